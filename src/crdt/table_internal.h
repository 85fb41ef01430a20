/* table_internal.h: what table.c and lanes.c share. */
#ifndef CAKE_CRDT_TABLE_INTERNAL_H
#define CAKE_CRDT_TABLE_INTERNAL_H

#include "crdt/table.h"

#define CAKE__PLACE_NEAR 64u /* a block that begins this close before its first record is dense */
#define CAKE__PACK_AT    8u  /* a block of which only this part is left is packed */

/* ---- ids --------------------------------------------------------------------------------------------------------- */

static inline uint64_t cake__fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Keys that differ only in the low bits of their last byte, as numbers in a row do, share the upper bits of the
 * hash and so their group of the index: one cache line serves them all. Their tags differ for certain. */
#define CAKE__NEIGHBOUR_MASK UINT64_C(3)

static inline uint64_t cake__split_off_neighbours(cake__id_pair_t *id)
{
    uint64_t len = id->high >> 56, shift = (len - 1) % 8 * 8;
    if (len == 0 || len > CAKE_ID_PLAIN_MAX)
        return 0;
    uint64_t bits = (len <= 8 ? id->low : id->high) >> shift & CAKE__NEIGHBOUR_MASK;
    id->low ^= len <= 8 ? bits << shift : 0;
    id->high ^= len <= 8 ? 0 : bits << shift;
    return bits;
}

static inline uint64_t cake__table_hash(const cake__table_t *table, cake__id_pair_t id)
{
    uint64_t neighbour = cake__split_off_neighbours(&id);
    uint64_t folded = cake__fold(id.low ^ table->seed, id.high ^ UINT64_C(0xa0761d6478bd642f));
    uint64_t hash = cake__fold(folded ^ UINT64_C(0xe7037ed1a0b428db), table->seed | 1);
    hash = (hash & ~UINT64_C(0xff)) | ((hash + neighbour * 31) & 0xff);
    return hash == 0 ? 1 : hash; /* 0 means none */
}

static inline uint64_t cake__fingerprint_of_pair(cake__id_pair_t id, cake_dot_t dot)
{
    uint64_t x = cake__fold(id.low ^ UINT64_C(0x8ebc6af09c88c6e3), id.high ^ UINT64_C(0x589965cc75374cc3));
    uint64_t y = cake__fold(dot.actor ^ UINT64_C(0x1d8e4e27c47d124f), dot.seq ^ UINT64_C(0xeb44accab455d165));
    return cake__mix64(x + ((y << 32) | (y >> 32)));
}

/* ---- slots, lanes ------------------------------------------------------------------------------------------------ */

static inline cake__block_t *cake__table_head(const cake__table_t *table, uint32_t number)
{
    uint32_t list = 31 - (uint32_t)__builtin_clz(number + 1);
    return &table->heads[list][number + 1 - (1u << list)];
}

static inline cake__block_t *cake__table_block(const cake__table_t *table, uint32_t slot)
{
    return cake__table_head(table, slot / CAKE__BLOCK_POSITIONS);
}

static inline cake__block_t *cake__lane_block(const cake__table_t *table, const cake__lane_t *lane, uint32_t entry)
{
    return cake__table_head(table, lane->entries[entry].block);
}

static inline bool cake__slot_holds(const cake__table_t *table, uint32_t slot, cake__id_pair_t id)
{
    const cake__block_t *block = cake__table_block(table, slot);
    uint32_t position = slot % CAKE__BLOCK_POSITIONS;
    if (position >= block->shape.capacity) /* of an entry that is stale */
        return false;
    cake__id_pair_t held = cake__block_id(block, position);
    return held.low == id.low && held.high == id.high && cake__block_is_present(block, position);
}

/* What the index leads to for this hash will be asked for soon: first the group, then the record. */
static inline void cake__table_prefetch_group(const cake__table_t *table, uint64_t hash)
{
    __builtin_prefetch(cake__index_home(&table->index, hash), 1);
}

CAKE__HOT void cake__table_prefetch_slot(const cake__table_t *table, uint64_t hash)
{
    const cake__group_t *group = cake__index_home(&table->index, hash);
    uint32_t matches = cake__tags_equal(group, cake__tag_of(hash));
    if (matches == 0) {
        if (cake__tags_equal(group, 0) == 0)
            __builtin_prefetch(group + 1); /* or beyond the segment: then for nothing */
        return;
    }
    uint32_t slot = group->slots[__builtin_ctz(matches)], position = slot % CAKE__BLOCK_POSITIONS;
    const cake__block_t *block = cake__table_block(table, slot);
    if (position >= block->shape.capacity)
        return;
    const uint8_t *record = cake__block_record(block, position);
    __builtin_prefetch(record);
    __builtin_prefetch(record + cake__shape_stride(block->shape) - 1);
    __builtin_prefetch(cake__block_bits(block, position), 1);
}

void cake__table_free_heads(cake__table_t *table);
void cake__lane_free(const cake_alloc_t *alloc, cake__lane_t *lane);
cake__lane_t *cake__table_search_lane(const cake__table_t *table, uint64_t actor);
uint32_t cake__lane_search_entry(const cake__lane_t *lane, uint64_t seq);

static inline cake__lane_t *cake__table_lane(const cake__table_t *table, uint64_t actor) /* NULL when there is none */
{
    if (table->lane_hint < table->lane_count && table->lanes[table->lane_hint].actor == actor)
        return &table->lanes[table->lane_hint];
    return cake__table_search_lane(table, actor);
}

/* The last entry whose first seq is at most seq; 0 also when there is none. */
static inline uint32_t cake__lane_entry_at(const cake__lane_t *lane, uint64_t seq)
{
    if (lane->count > 0 && lane->entries[lane->count - 1].first <= seq)
        return lane->count - 1;
    return cake__lane_search_entry(lane, seq);
}

static inline void cake__lane_note_tombstone(cake__lane_t *lane, uint64_t seq)
{
    uint32_t at = cake__lane_entry_at(lane, seq);
    if (lane->tombstones++ == 0 || at < lane->first_tombstones)
        lane->first_tombstones = at;
}

/* ---- records come and go ----------------------------------------------------------------------------------------- */

/* The usual case: the next seq of a dense last block that has the room and the form. NULL: it is not. */
CAKE__HOT cake__block_t *cake__table_tail(const cake__table_t *table, const cake_record_t *record, cake__id_pair_t id)
{
    const cake__lane_t *lane = cake__table_lane(table, record->dot.actor);
    if (lane == NULL || lane->count == 0)
        return NULL;
    cake__block_t *block = cake__lane_block(table, lane, lane->count - 1);
    uint64_t offset = record->dot.seq - block->first;
    bool is_next = !block->shape.is_sparse && record->dot.seq > block->max_seq && offset < block->shape.capacity &&
                   offset <= block->occupied + CAKE__PLACE_NEAR && cake__block_fits(block, id, record->hlc);
    return is_next ? block : NULL;
}

/* A position for a record, occupied. 0, CAKE_ENOMEM, CAKE_EDUPLICATE. */
int cake__table_place(cake__table_t *table, const cake_record_t *record, cake__id_pair_t id, uint32_t *slot);
uint32_t cake__table_slot_of(const cake__table_t *table, cake_dot_t dot); /* present or staged, or CAKE__SLOT_NONE */

/* A record that is visible from now on. */
CAKE__HOT void cake__table_count_in(cake__table_t *table, cake__id_pair_t id, cake_dot_t dot, bool is_tombstone)
{
    if (is_tombstone) {
        table->tombstones++;
        cake__lane_note_tombstone(cake__table_lane(table, dot.actor), dot.seq);
    } else {
        table->live++;
        table->fingerprint += cake__fingerprint_of_pair(id, dot);
    }
}

/* A present position becomes free. id: of its record */
CAKE__HOT void cake__table_take_out(cake__table_t *table, cake__block_t *block, uint32_t position, cake__id_pair_t id)
{
    cake_dot_t dot = {block->actor, cake__block_seq(block, position)};
    bool is_tombstone = cake__block_is_tombstone(block, position);
    CAKE_ASSERT(cake__block_is_present(block, position));
    cake__block_vacate(block, position);
    if (is_tombstone) {
        table->tombstones--;
        cake__table_lane(table, dot.actor)->tombstones--;
    } else {
        table->live--;
        table->fingerprint -= cake__fingerprint_of_pair(id, dot);
    }
}

/* After something was taken out of a block: gives up an empty one, packs one that is mostly empty. Needs no memory
 * to be correct: without it the block stays as it is. */
void cake__table_settle_now(cake__table_t *table, cake__block_t *block);
bool cake__table_release_if_empty(cake__table_t *table, cake__block_t *block);

static inline void cake__table_settle(cake__table_t *table, cake__block_t *block)
{
    if (block->occupied * CAKE__PACK_AT <= block->shape.capacity)
        cake__table_settle_now(table, block);
}

/* ---- finding ----------------------------------------------------------------------------------------------------- */

/* Where the index leads to an id, and where it would. */
typedef struct cake__found {
    uint32_t *entry;      /* of the present record, or NULL */
    cake__group_t *empty; /* the first group with an empty tag, if there is no record */
    bool is_home;         /* it is the one where the search began */
    bool has_stale;       /* an entry of this tag leads nowhere: to be used again */
} cake__found_t;

cake__found_t cake__table_search(const cake__table_t *table, cake__id_pair_t id, uint64_t hash);

/* What most searches end with, their first group, here; the rest in cake__table_search. */
CAKE__HOT cake__found_t cake__table_look_up(const cake__table_t *table, cake__id_pair_t id, uint64_t hash)
{
    cake__group_t *home = cake__index_home(&table->index, hash);
    uint32_t matches = cake__tags_equal(home, cake__tag_of(hash));
    if (matches == 0 && cake__tags_equal(home, 0) != 0)
        return (cake__found_t){NULL, home, true, false};
    if (matches != 0) {
        uint32_t *entry = &home->slots[__builtin_ctz(matches)];
        if (cake__slot_holds(table, *entry, id))
            return (cake__found_t){entry, NULL, true, false};
    }
    return cake__table_search(table, id, hash);
}

/* Puts a record whatever is there. The record must win. */
int cake__table_upsert_slowly(cake__table_t *table, const cake_record_t *record, cake__id_pair_t id, uint64_t hash);

/* The same, of which the search is done. */
CAKE__HOT int cake__table_upsert_found(cake__table_t *table, const cake_record_t *record, cake__id_pair_t id,
                                       uint64_t hash, cake__found_t found)
{
    cake__block_t *block = cake__table_tail(table, record, id);
    if (block == NULL || (found.entry == NULL && (found.has_stale || !cake__index_has_room(&table->index, hash))))
        return cake__table_upsert_slowly(table, record, id, hash);
    uint32_t slot = block->number * CAKE__BLOCK_POSITIONS + (uint32_t)(record->dot.seq - block->first);
    cake__block_append(block, record->dot.seq, id, record->hlc, record->is_tombstone);
    cake__table_count_in(table, id, record->dot, record->is_tombstone);
    if (found.entry == NULL) {
        cake__segment_t *segment = cake__cell_segment(cake__index_cell(&table->index, hash));
        cake__group_add(found.empty, cake__tag_of(hash), cake__next_bits(hash, segment->depth), slot, found.is_home);
        segment->used++;
        segment->room--;
        table->index.used++;
        return 0;
    }
    cake__block_t *old = cake__table_block(table, *found.entry);
    cake__table_take_out(table, old, *found.entry % CAKE__BLOCK_POSITIONS, id);
    *found.entry = slot;
    cake__table_settle(table, old);
    return 0;
}

#endif
