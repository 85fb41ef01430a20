#include "rpc/slab.h"

_Static_assert(sizeof(cake__slab_block_t) == 16, "what users get is aligned as malloc's is");

static bool is_large(uint64_t class)
{
    return class >= CAKE__SLAB_SMALL && class < CAKE__SLAB_CLASSES;
}

static size_t class_bytes(uint64_t class)
{
    return is_large(class) ? (size_t)CAKE__SLAB_LARGEST >> (CAKE__SLAB_CLASSES - 1 - class)
                           : (size_t)CAKE__SLAB_SMALLEST << class;
}

static uint64_t class_of(size_t size)
{
    if (size <= CAKE__SLAB_SMALLEST)
        return 0;
    uint64_t bits = 64 - (uint64_t)__builtin_clzll((unsigned long long)size - 1);
    if (size > CAKE__SLAB_LARGE_MIN && size <= CAKE__SLAB_LARGEST)
        return CAKE__SLAB_SMALL + bits - 17;
    return bits - 6 < CAKE__SLAB_SMALL ? bits - 6 : CAKE__SLAB_CLASSES;
}

/* What waits of its kind. */
static size_t *spare_of(cake__slab_t *slab, uint64_t class)
{
    return is_large(class) ? &slab->large_bytes : &slab->spare_bytes;
}

static cake__slab_block_t *block_of(void *user)
{
    return (cake__slab_block_t *)user - 1;
}

static cake__slab_block_t *make(cake__slab_t *slab, uint64_t class, size_t size)
{
    size_t bytes = class < CAKE__SLAB_CLASSES ? class_bytes(class) : size;
    cake__slab_block_t *block =
        bytes > SIZE_MAX - sizeof *block ? NULL : cake__malloc(slab->heap, sizeof *block + bytes);
    if (block == NULL)
        return NULL;
    block->class = class;
    block->heap_bytes = bytes;
    return block;
}

static void *take(cake__slab_t *slab, size_t size)
{
    uint64_t class = class_of(size);
    cake__slab_block_t *block = class < CAKE__SLAB_CLASSES ? slab->spare[class] : NULL;
    if (block != NULL) {
        slab->spare[class] = block->next;
        *spare_of(slab, class) -= class_bytes(class);
    } else if ((block = make(slab, class, size)) == NULL) {
        return NULL;
    }
    slab->out_count++;
    return block + 1;
}

static void give(cake__slab_t *slab, cake__slab_block_t *block)
{
    CAKE_ASSERT(slab->out_count > 0);
    slab->out_count--;
    size_t *spare = spare_of(slab, block->class),
           most = is_large(block->class) ? CAKE__SLAB_LARGE_MAX : CAKE__SLAB_SPARE_MAX;
    if (block->class >= CAKE__SLAB_CLASSES || *spare >= most) {
        cake__free(slab->heap, block);
        return;
    }
    block->next = slab->spare[block->class];
    slab->spare[block->class] = block;
    *spare += class_bytes(block->class);
}

/* From one kind of block to another; large ones grow in place where the heap can. */
static void *move(cake__slab_t *slab, cake__slab_block_t *block, size_t size)
{
    if (block->class >= CAKE__SLAB_CLASSES && class_of(size) >= CAKE__SLAB_CLASSES) {
        if (size > SIZE_MAX - sizeof *block)
            return NULL;
        block = cake__realloc(slab->heap, block, sizeof *block + size);
        if (block == NULL)
            return NULL;
        block->heap_bytes = size;
        return block + 1;
    }
    void *user = take(slab, size);
    if (user == NULL)
        return NULL;
    size_t old = block->class < CAKE__SLAB_CLASSES ? class_bytes(block->class) : block->heap_bytes;
    memcpy(user, block + 1, old < size ? old : size);
    give(slab, block);
    return user;
}

static void *resize(void *ctx, void *user, size_t size)
{
    cake__slab_t *slab = ctx;
    if (user == NULL)
        return take(slab, size);
    cake__slab_block_t *block = block_of(user);
    if (size == 0) {
        give(slab, block);
        return NULL;
    }
    if (block->class < CAKE__SLAB_CLASSES && class_of(size) == block->class)
        return user;
    return move(slab, block, size);
}

void cake__slab_init(cake__slab_t *slab, const cake_alloc_t *heap)
{
    *slab = (cake__slab_t){.alloc = {resize, slab}, .heap = heap};
}

static void free_spare(cake__slab_t *slab, size_t class)
{
    while (slab->spare[class] != NULL) {
        cake__slab_block_t *block = slab->spare[class];
        slab->spare[class] = block->next;
        *spare_of(slab, class) -= class_bytes(class);
        cake__free(slab->heap, block);
    }
}

void cake__slab_trim(cake__slab_t *slab)
{
    for (size_t i = CAKE__SLAB_SMALL; i < CAKE__SLAB_CLASSES && slab->large_bytes > 0; i++)
        free_spare(slab, i);
}

void cake__slab_free(cake__slab_t *slab)
{
    CAKE_ASSERT(slab->out_count == 0);
    for (size_t i = 0; i < CAKE__SLAB_CLASSES; i++)
        free_spare(slab, i);
}
