#include "rpc/spare.h"

#include <stdatomic.h>

/* Before what the user has. */
typedef struct {
    size_t bytes; /* the user's */
    size_t unused;
} block_t;

_Static_assert(sizeof(block_t) == 16, "what users get is aligned as malloc's is");

struct cake__spare {
    cake_alloc_t alloc, heap;
    atomic_uint refs;
    _Atomic(block_t *) places[CAKE__SPARE_PLACES];
};

/* One that is large enough and not wasted on so little. */
static block_t *take_spare(cake__spare_t *spare, size_t size)
{
    for (size_t i = 0; i < CAKE__SPARE_PLACES; i++) {
        block_t *block = atomic_load_explicit(&spare->places[i], memory_order_relaxed), *none = NULL;
        if (block == NULL || (block = atomic_exchange(&spare->places[i], NULL)) == NULL)
            continue;
        if (block->bytes >= size && block->bytes / 4 <= size)
            return block;
        if (!atomic_compare_exchange_strong(&spare->places[i], &none, block))
            cake__free(&spare->heap, block);
    }
    return NULL;
}

static void *take(cake__spare_t *spare, size_t size)
{
    block_t *block = size >= CAKE__SPARE_MIN ? take_spare(spare, size) : NULL;
    if (block == NULL) {
        block = size > SIZE_MAX - sizeof *block ? NULL : cake__malloc(&spare->heap, sizeof *block + size);
        if (block == NULL)
            return NULL;
        block->bytes = size;
    }
    atomic_fetch_add(&spare->refs, 1);
    return block + 1;
}

static void give(cake__spare_t *spare, block_t *block)
{
    bool is_fit = block->bytes >= CAKE__SPARE_MIN && block->bytes <= CAKE__SPARE_MAX;
    for (size_t i = 0; i < CAKE__SPARE_PLACES && is_fit && block != NULL; i++) {
        block_t *none = NULL;
        if (atomic_compare_exchange_strong(&spare->places[i], &none, block))
            block = NULL;
    }
    cake__free(&spare->heap, block);
    cake__spare_unref(spare);
}

static void *resize(void *ctx, void *user, size_t size)
{
    cake__spare_t *spare = ctx;
    if (user == NULL)
        return take(spare, size);
    block_t *block = (block_t *)user - 1;
    if (size == 0) {
        give(spare, block);
        return NULL;
    }
    if (size <= block->bytes)
        return user;
    if (block->bytes > CAKE__SPARE_MAX) { /* the heap may have room behind it */
        block = size > SIZE_MAX - sizeof *block ? NULL : cake__realloc(&spare->heap, block, sizeof *block + size);
        if (block == NULL)
            return NULL;
        block->bytes = size;
        return block + 1;
    }
    void *larger = take(spare, size);
    if (larger == NULL)
        return NULL;
    memcpy(larger, user, block->bytes);
    give(spare, block);
    return larger;
}

int cake__spare_new(const cake_alloc_t *heap, cake__spare_t **out)
{
    cake__spare_t *spare = cake__calloc(heap, 1, sizeof *spare);
    *out = spare;
    if (spare == NULL)
        return CAKE_ENOMEM;
    spare->alloc = (cake_alloc_t){resize, spare};
    spare->heap = *heap;
    atomic_init(&spare->refs, 1);
    return 0;
}

const cake_alloc_t *cake__spare_alloc(const cake__spare_t *spare)
{
    return &spare->alloc;
}

void cake__spare_trim(cake__spare_t *spare)
{
    for (size_t i = 0; i < CAKE__SPARE_PLACES; i++) {
        if (atomic_load_explicit(&spare->places[i], memory_order_relaxed) != NULL)
            cake__free(&spare->heap, atomic_exchange(&spare->places[i], NULL));
    }
}

void cake__spare_unref(cake__spare_t *spare)
{
    if (spare == NULL || atomic_fetch_sub(&spare->refs, 1) > 1)
        return;
    cake__spare_trim(spare);
    cake_alloc_t heap = spare->heap;
    cake__free(&heap, spare);
}
