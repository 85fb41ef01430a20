/* block.c: see block.h. */
#include "crdt/block.h"

uint16_t cake__block_capacity_for(uint32_t positions)
{
    uint16_t capacity = CAKE__BLOCK_LEAST;
    CAKE_ASSERT(positions <= CAKE__BLOCK_POSITIONS);
    while (capacity < positions)
        capacity = (uint16_t)(capacity * 2);
    return capacity;
}

static uint32_t words_of(cake__shape_t shape)
{
    return (shape.capacity + 63u) / 64u;
}

static size_t bytes_of(cake__shape_t shape)
{
    size_t per_position = cake__shape_stride(shape) + (shape.is_sparse ? sizeof(uint16_t) : 0);
    return words_of(shape) * sizeof(cake__bits_t) + shape.capacity * per_position;
}

size_t cake__block_bytes(const cake__block_t *block)
{
    return bytes_of(block->shape);
}

bool cake__block_init(const cake_alloc_t *alloc, cake__block_t *block, cake__shape_t shape, uint64_t actor,
                      uint64_t first, cake_hlc_t hlc)
{
    uint8_t *body = cake__malloc(alloc, bytes_of(shape));
    if (body == NULL)
        return false;
    *block = (cake__block_t){
        .body = body, .actor = actor, .first = first, .max_seq = first - 1, .number = block->number, .shape = shape};
    block->words = (uint8_t)words_of(shape);
    memset(body, 0, block->words * sizeof(cake__bits_t));
    if (shape.is_sparse)
        memset(cake__block_offsets(block), 0, shape.capacity * sizeof(uint16_t));
    block->hlc_base = hlc < CAKE__NARROW_HLC_BELOW ? 0 : hlc - CAKE__NARROW_HLC_BELOW;
    return true;
}

void cake__block_free(const cake_alloc_t *alloc, cake__block_t *block)
{
    cake__free(alloc, block->body);
    block->body = NULL;
}

bool cake__block_reshape(const cake_alloc_t *alloc, cake__block_t *block, cake__shape_t shape)
{
    cake__block_t made = *block;
    CAKE_ASSERT(shape.capacity >= block->shape.capacity && shape.is_sparse == block->shape.is_sparse);
    if (!cake__block_init(alloc, &made, shape, block->actor, block->first, 0))
        return false;
    made.hlc_base = block->hlc_base;
    for (uint32_t word = 0; word < cake__block_words(block); word++) {
        for (uint64_t left = cake__block_word(block, word)->occupied; left != 0; left &= left - 1) {
            uint32_t position = word * 64 + (uint32_t)__builtin_ctzll(left);
            cake__block_write(&made, position, cake__block_seq(block, position), cake__block_id(block, position),
                              cake__block_hlc(block, position), cake__block_is_tombstone(block, position));
            if (cake__block_is_present(block, position))
                cake__block_reveal(&made, position);
        }
    }
    made.max_seq = block->max_seq;
    CAKE_ASSERT(made.occupied == block->occupied && made.present == block->present);
    cake__block_free(alloc, block);
    *block = made;
    return true;
}

/* Free positions count too. Many at once, by instructions for vectors: one after the other a part of a session
 * whose records go to a sparse block would look at half a block for each of them. */
static bool is_among(const cake__block_t *block, uint32_t word, uint16_t offset)
{
    const uint16_t *offsets = cake__block_offsets(block) + word * 64;
    uint32_t count = block->shape.capacity < 64 ? block->shape.capacity : 64;
    uint16_t found = 0;
    for (uint32_t i = 0; i < count; i++)
        found |= (uint16_t)(offsets[i] == offset);
    return found != 0;
}

uint32_t cake__block_find(const cake__block_t *block, uint64_t seq)
{
    uint64_t offset = seq - block->first;
    if (seq < block->first || offset >= CAKE__BLOCK_SPAN_MAX)
        return CAKE__BLOCK_POSITIONS;
    if (!block->shape.is_sparse) {
        bool is_there = offset < block->shape.capacity && cake__block_is_occupied(block, (uint32_t)offset);
        return is_there ? (uint32_t)offset : CAKE__BLOCK_POSITIONS;
    }
    for (uint32_t word = 0; word < cake__block_words(block); word++) {
        uint64_t left = is_among(block, word, (uint16_t)offset) ? cake__block_word(block, word)->occupied : 0;
        for (; left != 0; left &= left - 1) {
            uint32_t position = word * 64 + (uint32_t)__builtin_ctzll(left);
            if (cake__block_offsets(block)[position] == offset)
                return position;
        }
    }
    return CAKE__BLOCK_POSITIONS;
}

uint32_t cake__block_free_position(const cake__block_t *block)
{
    for (uint32_t word = 0; word < cake__block_words(block); word++) {
        if (cake__block_word(block, word)->occupied != UINT64_MAX) {
            uint32_t position = word * 64 + (uint32_t)__builtin_ctzll(~cake__block_word(block, word)->occupied);
            return position < block->shape.capacity ? position : block->shape.capacity;
        }
    }
    return block->shape.capacity;
}

/* Heap sort by offset: bounded, in place, and no call of the C library's qsort, which may allocate. */
static void sift(uint32_t *keys, uint32_t root, uint32_t count)
{
    for (uint32_t child; (child = 2 * root + 1) < count; root = child) {
        child += child + 1 < count && keys[child + 1] > keys[child];
        if (keys[root] >= keys[child])
            return;
        uint32_t swap = keys[root];
        keys[root] = keys[child];
        keys[child] = swap;
    }
}

static void sort(uint32_t *keys, uint32_t count)
{
    bool is_sorted = true;
    for (uint32_t i = 1; i < count && is_sorted; i++)
        is_sorted = keys[i - 1] < keys[i];
    if (is_sorted)
        return;
    for (uint32_t i = count / 2; i-- > 0;)
        sift(keys, i, count);
    for (uint32_t left = count; left-- > 1;) {
        uint32_t swap = keys[0];
        keys[0] = keys[left];
        keys[left] = swap;
        sift(keys, 0, left);
    }
}

uint32_t cake__block_select(const cake__block_t *block, uint64_t first, uint64_t last, uint16_t *positions)
{
    uint32_t keys[CAKE__BLOCK_POSITIONS], count = 0; /* offset above position */
    CAKE_ASSERT(block->shape.is_sparse);
    for (uint32_t word = 0; word < cake__block_words(block); word++) {
        for (uint64_t left = cake__block_word(block, word)->present; left != 0; left &= left - 1) {
            uint32_t position = word * 64 + (uint32_t)__builtin_ctzll(left);
            uint64_t seq = cake__block_seq(block, position);
            if (seq >= first && seq <= last)
                keys[count++] = (uint32_t)(seq - block->first) << 10 | position;
        }
    }
    sort(keys, count);
    for (uint32_t i = 0; i < count; i++)
        positions[i] = (uint16_t)(keys[i] & (CAKE__BLOCK_POSITIONS - 1));
    return count;
}
