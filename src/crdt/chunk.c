/* chunk.c: see chunk.h. */
#include "crdt/chunk.h"

uint16_t cake__chunk_capacity_for(uint32_t positions)
{
    uint16_t capacity = CAKE__CHUNK_LEAST;
    CAKE_ASSERT(positions <= CAKE__CHUNK_POSITIONS);
    while (capacity < positions)
        capacity = (uint16_t)(capacity * 2);
    return capacity;
}

cake__chunk_t *cake__chunk_new(const cake_alloc_t *alloc, cake__shape_t shape, uint64_t actor, uint64_t first,
                               cake_hlc_t hlc)
{
    size_t capacity = shape.capacity, words = (capacity + 63) / 64, bitmap = words * sizeof(uint64_t);
    size_t ids = capacity * (shape.has_wide_ids ? 16 : 8), hlcs = capacity * (shape.has_wide_hlcs ? 8 : 4);
    size_t offsets = shape.is_sparse ? capacity * sizeof(uint16_t) : 0;
    size_t header = (sizeof(cake__chunk_t) + 15) & ~(size_t)15;
    size_t bytes = header + 3 * bitmap + hlcs + ids + offsets;
    uint8_t *at = cake__malloc(alloc, bytes);
    if (at == NULL)
        return NULL;
    cake__chunk_t *chunk = (cake__chunk_t *)(void *)at;
    *chunk = (cake__chunk_t){.actor = actor, .first = first, .max_seq = first - 1, .shape = shape, .bytes = bytes};
    chunk->hlc_base = hlc < CAKE__NARROW_HLC_BELOW ? 0 : hlc - CAKE__NARROW_HLC_BELOW;
    memset(at + header, 0, 3 * bitmap);
    chunk->occupied_bits = (uint64_t *)(void *)(at + header);
    chunk->present_bits = chunk->occupied_bits + words;
    chunk->tombstone_bits = chunk->present_bits + words;
    chunk->hlcs = chunk->tombstone_bits + words;
    chunk->ids = (uint8_t *)chunk->hlcs + hlcs;
    chunk->offsets = shape.is_sparse ? (uint16_t *)(void *)((uint8_t *)chunk->ids + ids) : NULL;
    return chunk;
}

void cake__chunk_free(const cake_alloc_t *alloc, cake__chunk_t *chunk)
{
    cake__free(alloc, chunk);
}

cake__chunk_t *cake__chunk_remake(const cake_alloc_t *alloc, cake__chunk_t *chunk, cake__shape_t shape)
{
    CAKE_ASSERT(shape.capacity >= chunk->shape.capacity && shape.is_sparse == chunk->shape.is_sparse);
    cake__chunk_t *made = cake__chunk_new(alloc, shape, chunk->actor, chunk->first, chunk->hlc_base);
    if (made == NULL)
        return NULL;
    made->hlc_base = chunk->hlc_base;
    made->number = chunk->number;
    for (uint32_t word = 0; word < cake__chunk_words(chunk); word++) {
        for (uint64_t left = chunk->occupied_bits[word]; left != 0; left &= left - 1) {
            uint32_t position = word * 64 + (uint32_t)__builtin_ctzll(left);
            cake__chunk_write(made, position, cake__chunk_seq(chunk, position), cake__chunk_id(chunk, position),
                              cake__chunk_hlc(chunk, position), cake__bit(chunk->tombstone_bits, position));
        }
    }
    memcpy(made->present_bits, chunk->present_bits, cake__chunk_words(chunk) * sizeof(uint64_t));
    made->max_seq = chunk->max_seq;
    made->present = chunk->present;
    made->tombstones = chunk->tombstones;
    CAKE_ASSERT(made->occupied == chunk->occupied);
    cake__chunk_free(alloc, chunk);
    return made;
}

void cake__chunk_read(const cake__chunk_t *chunk, uint32_t position, cake_record_t *out)
{
    cake__id_from_pair(cake__chunk_id(chunk, position), &out->id);
    out->hlc = cake__chunk_hlc(chunk, position);
    out->dot = (cake_dot_t){chunk->actor, cake__chunk_seq(chunk, position)};
    out->is_tombstone = cake__bit(chunk->tombstone_bits, position);
}

void cake__chunk_write(cake__chunk_t *chunk, uint32_t position, uint64_t seq, cake__id_pair_t id, cake_hlc_t hlc,
                       bool is_tombstone)
{
    CAKE_ASSERT(position < chunk->shape.capacity && !cake__bit(chunk->occupied_bits, position));
    CAKE_ASSERT(seq >= chunk->first && cake__chunk_fits(chunk, id, hlc));
    if (chunk->offsets != NULL)
        chunk->offsets[position] = (uint16_t)(seq - chunk->first);
    if (chunk->shape.has_wide_ids)
        ((cake__id_pair_t *)chunk->ids)[position] = id;
    else
        ((uint64_t *)chunk->ids)[position] = id.low;
    if (chunk->shape.has_wide_hlcs)
        ((uint64_t *)chunk->hlcs)[position] = hlc;
    else
        ((uint32_t *)chunk->hlcs)[position] = (uint32_t)(hlc - chunk->hlc_base);
    cake__bit_set(chunk->occupied_bits, position);
    if (is_tombstone)
        cake__bit_set(chunk->tombstone_bits, position);
    else
        cake__bit_clear(chunk->tombstone_bits, position);
    chunk->occupied++;
    chunk->max_seq = cake__max_u64(chunk->max_seq, seq);
}

void cake__chunk_vacate(cake__chunk_t *chunk, uint32_t position)
{
    CAKE_ASSERT(cake__bit(chunk->occupied_bits, position));
    if (cake__bit(chunk->present_bits, position)) {
        chunk->present--;
        chunk->tombstones = (uint16_t)(chunk->tombstones - cake__bit(chunk->tombstone_bits, position));
    }
    cake__bit_clear(chunk->occupied_bits, position);
    cake__bit_clear(chunk->present_bits, position);
    chunk->occupied--;
}

uint32_t cake__chunk_find(const cake__chunk_t *chunk, uint64_t seq)
{
    uint64_t offset = seq - chunk->first;
    if (seq < chunk->first || offset >= CAKE__CHUNK_SPAN_MAX)
        return CAKE__CHUNK_POSITIONS;
    if (chunk->offsets == NULL) {
        bool is_there = offset < chunk->shape.capacity && cake__bit(chunk->occupied_bits, (uint32_t)offset);
        return is_there ? (uint32_t)offset : CAKE__CHUNK_POSITIONS;
    }
    for (uint32_t word = 0; word < cake__chunk_words(chunk); word++) {
        for (uint64_t left = chunk->occupied_bits[word]; left != 0; left &= left - 1) {
            uint32_t position = word * 64 + (uint32_t)__builtin_ctzll(left);
            if (chunk->offsets[position] == offset)
                return position;
        }
    }
    return CAKE__CHUNK_POSITIONS;
}

uint32_t cake__chunk_free_position(const cake__chunk_t *chunk)
{
    for (uint32_t word = 0; word < cake__chunk_words(chunk); word++) {
        if (chunk->occupied_bits[word] != UINT64_MAX) {
            uint32_t position = word * 64 + (uint32_t)__builtin_ctzll(~chunk->occupied_bits[word]);
            return position < chunk->shape.capacity ? position : chunk->shape.capacity;
        }
    }
    return chunk->shape.capacity;
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

uint32_t cake__chunk_select(const cake__chunk_t *chunk, uint64_t first, uint64_t last, uint16_t *positions)
{
    uint32_t keys[CAKE__CHUNK_POSITIONS], count = 0; /* offset above position */
    uint32_t word = 0, words = cake__chunk_words(chunk);
    if (last < chunk->first || first > chunk->max_seq)
        return 0;
    if (chunk->offsets == NULL) { /* dense: begin at the word of `first`, end at that of `last` */
        word = first <= chunk->first ? 0 : (uint32_t)((first - chunk->first) / 64);
        words = (uint32_t)cake__min_u64(words, (last - chunk->first) / 64 + 1);
    }
    for (; word < words; word++) {
        for (uint64_t left = chunk->present_bits[word]; left != 0; left &= left - 1) {
            uint32_t position = word * 64 + (uint32_t)__builtin_ctzll(left);
            uint64_t seq = cake__chunk_seq(chunk, position);
            if (seq < first || seq > last)
                continue;
            if (chunk->offsets == NULL)
                positions[count++] = (uint16_t)position;
            else
                keys[count++] = (uint32_t)(seq - chunk->first) << 10 | position;
        }
    }
    if (chunk->offsets == NULL)
        return count;
    sort(keys, count);
    for (uint32_t i = 0; i < count; i++)
        positions[i] = (uint16_t)(keys[i] & (CAKE__CHUNK_POSITIONS - 1));
    return count;
}
