/* block.h: up to 1024 records of one actor. The dot is implied by the position (dense), or kept as a 16-bit offset
 * (sparse: what is left of long overwritten stretches).
 *
 *      head: one cache line
 *      body: per 64 positions: occupied, present, tombstone bits | records: id 8 or 16 B, hlc 4 or 8 B
 *            | offsets 2 B (sparse)
 *
 *      dense    seq = first + position               positions 0..capacity-1, each for one seq for ever
 *      sparse   seq = first + offsets[position]      positions in order of arrival, used again
 *
 * A position is free, occupied (staged: not visible yet), or occupied and present. Ids of eight-byte keys take 8 B
 * while all of the block are such; stamps take 4 B while all are within 2^32 of hlc_base (65 s). A block that no
 * longer fits gets a body in another shape, at the same positions. Id and stamp stand side by side, and so do the
 * three bits of a position, because each is one cache miss of a large set; heads lie side by side too, so that they
 * stay in the second level of the cache, and their pages in the TLB.
 *
 * Invariants: present implies occupied; tombstone means something only where occupied; counts equal the bits; first
 * <= every seq <= max_seq; offsets and dense spans below their limits; tombstone_hlc is at or above the stamp of
 * every present tombstone, and equal to that of one of them while has_exact_tombstone_hlc. */
#ifndef CAKE_CRDT_BLOCK_H
#define CAKE_CRDT_BLOCK_H

#include <datacake/orswot.h>

#include "base/base.h"

#define CAKE__BLOCK_POSITIONS  1024u
#define CAKE__BLOCK_LEAST      8u
#define CAKE__BLOCK_SPAN_MAX   65536u              /* seqs of a sparse block */
#define CAKE__NARROW_ID_HIGH   (UINT64_C(8) << 56) /* the upper half of the id of an eight-byte key */
#define CAKE__NARROW_HLC_BELOW (UINT64_C(1) << 30) /* room for stamps older than the first of the block */

/* What happens once per record of a batch: a call would cost as much as the work. */
#define CAKE__HOT static inline __attribute__((always_inline))

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
    bool is_sparse : 1, has_wide_ids : 1, has_wide_hlcs : 1;
} cake__shape_t;

typedef struct cake__bits {
    uint64_t occupied, present, tombstone;
} cake__bits_t;

typedef struct cake__block {
    uint8_t *body; /* NULL: the head is free */
    uint64_t actor, first, max_seq;
    cake_hlc_t hlc_base; /* of narrow stamps */
    cake_hlc_t tombstone_hlc;
    uint32_t number;                        /* of the table's list */
    uint16_t occupied, present, tombstones; /* tombstones: present ones */
    cake__shape_t shape;
    bool has_exact_tombstone_hlc;
    uint8_t words; /* of bits */
} cake__block_t;

_Static_assert(sizeof(cake__block_t) == 64, "one cache line");

/* All but the number. hlc: of the first record, to place narrow stamps around. False: no memory. */
bool cake__block_init(const cake_alloc_t *alloc, cake__block_t *block, cake__shape_t shape, uint64_t actor,
                      uint64_t first, cake_hlc_t hlc);
void cake__block_free(const cake_alloc_t *alloc, cake__block_t *block);
/* The same records at the same positions in another shape (capacity not smaller, dense stays dense). False: no
 * memory, and it is as it was. */
bool cake__block_reshape(const cake_alloc_t *alloc, cake__block_t *block, cake__shape_t shape);

uint16_t cake__block_capacity_for(uint32_t positions); /* the least capacity */

static inline bool cake__bit(uint64_t bits, uint32_t position)
{
    return bits >> (position % 64) & 1;
}

static inline size_t cake__shape_id_bytes(cake__shape_t shape)
{
    return shape.has_wide_ids ? 16 : 8;
}

static inline size_t cake__shape_stride(cake__shape_t shape)
{
    return cake__shape_id_bytes(shape) + (shape.has_wide_hlcs ? 8 : 4);
}

static inline uint32_t cake__block_words(const cake__block_t *block) /* of bits */
{
    return block->words;
}

static inline cake__bits_t *cake__block_word(const cake__block_t *block, uint32_t word)
{
    return (cake__bits_t *)(void *)block->body + word;
}

static inline cake__bits_t *cake__block_bits(const cake__block_t *block, uint32_t position)
{
    return cake__block_word(block, position / 64);
}

static inline uint8_t *cake__block_record(const cake__block_t *block, uint32_t position)
{
    return block->body + block->words * sizeof(cake__bits_t) + position * cake__shape_stride(block->shape);
}

static inline bool cake__block_is_occupied(const cake__block_t *block, uint32_t position)
{
    return cake__bit(cake__block_bits(block, position)->occupied, position);
}

static inline bool cake__block_is_present(const cake__block_t *block, uint32_t position)
{
    return cake__bit(cake__block_bits(block, position)->present, position);
}

static inline bool cake__block_is_tombstone(const cake__block_t *block, uint32_t position)
{
    return cake__bit(cake__block_bits(block, position)->tombstone, position);
}

size_t cake__block_bytes(const cake__block_t *block); /* of the body */

static inline uint16_t *cake__block_offsets(const cake__block_t *block) /* of a sparse one */
{
    return (uint16_t *)(void *)cake__block_record(block, block->shape.capacity);
}

static inline uint64_t cake__block_seq(const cake__block_t *block, uint32_t position)
{
    return block->first + (block->shape.is_sparse ? cake__block_offsets(block)[position] : position);
}

static inline cake__id_pair_t cake__record_id(const uint8_t *record, bool is_wide)
{
    cake__id_pair_t pair = {0, CAKE__NARROW_ID_HIGH};
    memcpy(&pair.low, record, sizeof pair.low);
    if (is_wide)
        memcpy(&pair.high, record + 8, sizeof pair.high);
    return pair;
}

static inline cake__id_pair_t cake__block_id(const cake__block_t *block, uint32_t position)
{
    return cake__record_id(cake__block_record(block, position), block->shape.has_wide_ids);
}

static inline cake_hlc_t cake__block_hlc(const cake__block_t *block, uint32_t position)
{
    const uint8_t *at = cake__block_record(block, position) + cake__shape_id_bytes(block->shape);
    uint64_t wide;
    uint32_t narrow;
    if (block->shape.has_wide_hlcs) {
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
    memcpy(&narrow, at, sizeof narrow);
    return block->hlc_base + narrow;
}

static inline bool cake__block_fits(const cake__block_t *block, cake__id_pair_t id, cake_hlc_t hlc)
{
    return (block->shape.has_wide_ids || id.high == CAKE__NARROW_ID_HIGH) &&
           (block->shape.has_wide_hlcs || (hlc >= block->hlc_base && hlc - block->hlc_base <= UINT32_MAX));
}

/* All but the id. */
static inline void cake__block_read_known(const cake__block_t *block, uint32_t position, cake_record_t *out)
{
    out->hlc = cake__block_hlc(block, position);
    out->dot = (cake_dot_t){block->actor, cake__block_seq(block, position)};
    out->is_tombstone = cake__block_is_tombstone(block, position);
}

static inline void cake__block_read(const cake__block_t *block, uint32_t position, cake_record_t *out)
{
    cake__id_from_pair(cake__block_id(block, position), &out->id);
    cake__block_read_known(block, position, out);
}

/* The bytes of a record, which must fit. */
CAKE__HOT void cake__block_store(cake__block_t *block, uint32_t position, cake__id_pair_t id, cake_hlc_t hlc)
{
    uint8_t *at = cake__block_record(block, position);
    uint32_t narrow = (uint32_t)(hlc - block->hlc_base);
    memcpy(at, &id.low, sizeof id.low);
    if (block->shape.has_wide_ids)
        memcpy(at + 8, &id.high, sizeof id.high);
    at += cake__shape_id_bytes(block->shape);
    if (block->shape.has_wide_hlcs)
        memcpy(at, &hlc, sizeof hlc);
    else
        memcpy(at, &narrow, sizeof narrow);
}

/* Occupies a free position; the record must fit. It is not present yet. */
static inline void cake__block_write(cake__block_t *block, uint32_t position, uint64_t seq, cake__id_pair_t id,
                                     cake_hlc_t hlc, bool is_tombstone)
{
    cake__bits_t *bits = cake__block_bits(block, position);
    uint64_t bit = UINT64_C(1) << (position % 64);
    CAKE_ASSERT(position < block->shape.capacity && (bits->occupied & bit) == 0);
    CAKE_ASSERT(seq >= block->first && cake__block_fits(block, id, hlc));
    if (block->shape.is_sparse)
        cake__block_offsets(block)[position] = (uint16_t)(seq - block->first);
    cake__block_store(block, position, id, hlc);
    bits->occupied |= bit;
    bits->tombstone = is_tombstone ? bits->tombstone | bit : bits->tombstone & ~bit;
    block->occupied++;
    block->max_seq = cake__max_u64(block->max_seq, seq);
}

/* A tombstone that is from now on visible. */
static inline void cake__block_note_tombstone(cake__block_t *block, cake_hlc_t hlc)
{
    block->has_exact_tombstone_hlc =
        block->tombstones == 0 || block->has_exact_tombstone_hlc || hlc > block->tombstone_hlc;
    block->tombstone_hlc = block->tombstones == 0 ? hlc : cake__max_u64(block->tombstone_hlc, hlc);
    block->tombstones++;
}

/* An occupied position is from now on visible. */
static inline void cake__block_reveal(cake__block_t *block, uint32_t position)
{
    cake__bits_t *bits = cake__block_bits(block, position);
    bits->present |= UINT64_C(1) << (position % 64);
    block->present++;
    if (cake__bit(bits->tombstone, position))
        cake__block_note_tombstone(block, cake__block_hlc(block, position));
}

/* Both at once, behind all others of a dense block. */
CAKE__HOT void cake__block_append(cake__block_t *block, uint64_t seq, cake__id_pair_t id, cake_hlc_t hlc,
                                  bool is_tombstone)
{
    uint32_t position = (uint32_t)(seq - block->first);
    cake__bits_t *bits = cake__block_bits(block, position);
    uint64_t bit = UINT64_C(1) << (position % 64);
    CAKE_ASSERT((bits->occupied & bit) == 0);
    bits->occupied |= bit;
    bits->present |= bit;
    bits->tombstone = is_tombstone ? bits->tombstone | bit : bits->tombstone & ~bit;
    cake__block_store(block, position, id, hlc);
    block->occupied++;
    block->present++;
    block->max_seq = seq;
    if (is_tombstone)
        cake__block_note_tombstone(block, hlc);
}

/* Frees an occupied position, present or not. */
CAKE__HOT void cake__block_vacate(cake__block_t *block, uint32_t position)
{
    cake__bits_t *bits = cake__block_bits(block, position);
    uint64_t bit = UINT64_C(1) << (position % 64);
    CAKE_ASSERT((bits->occupied & bit) != 0);
    if ((bits->present & bit) != 0) {
        block->present--;
        if ((bits->tombstone & bit) != 0) {
            block->tombstones--;
            block->has_exact_tombstone_hlc = false;
        }
    }
    bits->occupied &= ~bit;
    bits->present &= ~bit;
    block->occupied--;
}

/* The position of seq among the occupied ones, or CAKE__BLOCK_POSITIONS. */
uint32_t cake__block_find(const cake__block_t *block, uint64_t seq);
uint32_t cake__block_free_position(const cake__block_t *block); /* the lowest, or the capacity when there is none */
/* Of a sparse block: present positions with first <= seq <= last, in order of seq. At most CAKE__BLOCK_POSITIONS;
 * returns how many. */
uint32_t cake__block_select(const cake__block_t *block, uint64_t first, uint64_t last, uint16_t *positions);

#endif
