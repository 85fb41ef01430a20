/* block.h: up to 1024 records of one actor, in columns. The dot is implied by the position (dense), or kept as a 16-bit
 * offset (sparse: what is left of long overwritten stretches).
 *
 *      header | occupied, present, tombstone bits | hlc column 4 or 8 B | id column 8 or 16 B | offsets 2 B (sparse)
 *
 *      dense    seq = first + position               positions 0..capacity-1, each for one seq for ever
 *      sparse   seq = first + offsets[position]      positions in order of arrival, used again
 *
 * A position is free, occupied (staged: not visible yet), or occupied and present. Ids of eight-byte keys take 8 B while
 * all of the block are such; stamps take 4 B while all are within 2^32 of hlc_base (65 s). A block that no longer fits is made
 * anew in another shape, at the same positions.
 *
 * Invariants: present implies occupied; tombstone means something only where occupied; counts equal the bits;
 * first <= every seq <= max_seq; offsets and dense spans below their limits. */
#ifndef CAKE_CRDT_BLOCK_H
#define CAKE_CRDT_BLOCK_H

#include <datacake/orswot.h>

#include "base/base.h"

#define CAKE__BLOCK_POSITIONS  1024u
#define CAKE__BLOCK_LEAST      16u
#define CAKE__BLOCK_SPAN_MAX   65536u              /* seqs of a sparse block */
#define CAKE__NARROW_ID_HIGH   (UINT64_C(8) << 56) /* the upper half of the id of an eight-byte key */
#define CAKE__NARROW_HLC_BELOW (UINT64_C(1) << 30) /* room for stamps older than the first of the block */

/* An id as two numbers, little-endian, the same on every machine. */
typedef struct cake__id_pair {
    uint64_t low, high;
} cake__id_pair_t;

static inline cake__id_pair_t cake__id_pair(const cake_id_t *id)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    cake__id_pair_t pair;
    memcpy(&pair, id->bytes, 16);
    return pair;
#else
    cake__id_pair_t pair = {0, 0};
    for (int i = 0; i < 8; i++) {
        pair.low |= (uint64_t)id->bytes[i] << (8 * i);
        pair.high |= (uint64_t)id->bytes[8 + i] << (8 * i);
    }
    return pair;
#endif
}

static inline void cake__id_from_pair(cake__id_pair_t pair, cake_id_t *id)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    memcpy(id->bytes, &pair, 16);
#else
    for (int i = 0; i < 8; i++) {
        id->bytes[i] = (uint8_t)(pair.low >> (8 * i));
        id->bytes[8 + i] = (uint8_t)(pair.high >> (8 * i));
    }
#endif
}

typedef struct cake__shape {
    uint16_t capacity; /* a power of two, CAKE__BLOCK_LEAST..CAKE__BLOCK_POSITIONS */
    bool is_sparse, has_wide_ids, has_wide_hlcs;
} cake__shape_t;

typedef struct cake__block {
    uint64_t actor, first, max_seq;
    cake_hlc_t hlc_base; /* of narrow stamps */
    cake__shape_t shape;
    uint32_t number;                        /* of the table's list */
    uint16_t occupied, present, tombstones; /* tombstones: present ones */
    uint64_t *occupied_bits, *present_bits, *tombstone_bits;
    void *hlcs, *ids;
    uint16_t *offsets; /* NULL: dense */
    size_t bytes;
} cake__block_t;

/* NULL: no memory. hlc: of the first record, to place narrow stamps around. */
cake__block_t *cake__block_new(const cake_alloc_t *alloc, cake__shape_t shape, uint64_t actor, uint64_t first,
                               cake_hlc_t hlc);
void cake__block_free(const cake_alloc_t *alloc, cake__block_t *block);
/* The same records at the same positions in another shape (capacity not smaller, dense stays dense); the old block is
 * freed. NULL: no memory, and the old one is as it was. */
cake__block_t *cake__block_remake(const cake_alloc_t *alloc, cake__block_t *block, cake__shape_t shape);

uint16_t cake__block_capacity_for(uint32_t positions); /* the least capacity */

static inline bool cake__bit(const uint64_t *bits, uint32_t position)
{
    return bits[position / 64] >> (position % 64) & 1;
}

static inline void cake__bit_set(uint64_t *bits, uint32_t position)
{
    bits[position / 64] |= UINT64_C(1) << (position % 64);
}

static inline void cake__bit_clear(uint64_t *bits, uint32_t position)
{
    bits[position / 64] &= ~(UINT64_C(1) << (position % 64));
}

static inline uint32_t cake__block_words(const cake__block_t *block)
{
    return (block->shape.capacity + 63u) / 64u;
}

static inline uint64_t cake__block_seq(const cake__block_t *block, uint32_t position)
{
    return block->first + (block->offsets == NULL ? position : block->offsets[position]);
}

static inline cake__id_pair_t cake__block_id(const cake__block_t *block, uint32_t position)
{
    if (block->shape.has_wide_ids)
        return ((const cake__id_pair_t *)block->ids)[position];
    return (cake__id_pair_t){((const uint64_t *)block->ids)[position], CAKE__NARROW_ID_HIGH};
}

static inline bool cake__block_holds_id(const cake__block_t *block, uint32_t position, cake__id_pair_t id)
{
    cake__id_pair_t held = cake__block_id(block, position);
    return held.low == id.low && held.high == id.high;
}

static inline cake_hlc_t cake__block_hlc(const cake__block_t *block, uint32_t position)
{
    if (block->shape.has_wide_hlcs)
        return ((const uint64_t *)block->hlcs)[position];
    return block->hlc_base + ((const uint32_t *)block->hlcs)[position];
}

static inline bool cake__block_fits(const cake__block_t *block, cake__id_pair_t id, cake_hlc_t hlc)
{
    return (block->shape.has_wide_ids || id.high == CAKE__NARROW_ID_HIGH) &&
           (block->shape.has_wide_hlcs || (hlc >= block->hlc_base && hlc - block->hlc_base <= UINT32_MAX));
}

void cake__block_read(const cake__block_t *block, uint32_t position, cake_record_t *out);
/* Occupies a free position; the record must fit. It is not present yet. */
static inline void cake__block_write(cake__block_t *block, uint32_t position, uint64_t seq, cake__id_pair_t id,
                                     cake_hlc_t hlc, bool is_tombstone)
{
    CAKE_ASSERT(position < block->shape.capacity && !cake__bit(block->occupied_bits, position));
    CAKE_ASSERT(seq >= block->first && cake__block_fits(block, id, hlc));
    if (block->offsets != NULL)
        block->offsets[position] = (uint16_t)(seq - block->first);
    if (block->shape.has_wide_ids)
        ((cake__id_pair_t *)block->ids)[position] = id;
    else
        ((uint64_t *)block->ids)[position] = id.low;
    if (block->shape.has_wide_hlcs)
        ((uint64_t *)block->hlcs)[position] = hlc;
    else
        ((uint32_t *)block->hlcs)[position] = (uint32_t)(hlc - block->hlc_base);
    cake__bit_set(block->occupied_bits, position);
    if (is_tombstone)
        cake__bit_set(block->tombstone_bits, position);
    else
        cake__bit_clear(block->tombstone_bits, position);
    block->occupied++;
    block->max_seq = cake__max_u64(block->max_seq, seq);
}

/* Frees an occupied position, present or not. */
static inline void cake__block_vacate(cake__block_t *block, uint32_t position)
{
    CAKE_ASSERT(cake__bit(block->occupied_bits, position));
    if (cake__bit(block->present_bits, position)) {
        block->present--;
        block->tombstones = (uint16_t)(block->tombstones - cake__bit(block->tombstone_bits, position));
    }
    cake__bit_clear(block->occupied_bits, position);
    cake__bit_clear(block->present_bits, position);
    block->occupied--;
}

/* The position of seq among the occupied ones, or CAKE__BLOCK_POSITIONS. */
uint32_t cake__block_find(const cake__block_t *block, uint64_t seq);
uint32_t cake__block_free_position(const cake__block_t *block); /* the lowest, or the capacity when there is none */
/* Present positions with first <= seq <= last, in order of seq. At most CAKE__BLOCK_POSITIONS; returns how many. */
uint32_t cake__block_select(const cake__block_t *block, uint64_t first, uint64_t last, uint16_t *positions);

#endif
