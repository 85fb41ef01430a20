/* table.c: see table.h. Lanes and the placing of records are in lanes.c. */
#include "crdt/table_internal.h"

uint64_t cake__fingerprint_of(cake__id_pair_t id, cake_dot_t dot)
{
    return cake__fingerprint_of_pair(id, dot);
}

static uint64_t hash_of_slot(const void *ctx, uint32_t slot)
{
    const cake__table_t *table = ctx;
    const cake__block_t *block = cake__table_block(table, slot);
    uint32_t position = slot % CAKE__BLOCK_POSITIONS;
    if (position >= block->shape.capacity || !cake__block_is_occupied(block, position))
        return 0;
    return cake__table_hash(table, cake__block_id(block, position));
}

static void prefetch_slot(const void *ctx, uint32_t slot)
{
    const cake__table_t *table = ctx;
    const cake__block_t *block = cake__table_block(table, slot);
    uint32_t position = slot % CAKE__BLOCK_POSITIONS;
    if (position < block->shape.capacity)
        __builtin_prefetch(cake__block_record(block, position));
}

void cake__table_init(cake__table_t *table, const cake_alloc_t *alloc, uint64_t seed)
{
    *table = (cake__table_t){.alloc = alloc, .seed = cake__mix64(seed ^ UINT64_C(0x9e3779b97f4a7c15))};
    cake__index_init(&table->index, alloc, hash_of_slot, prefetch_slot, table);
}

void cake__table_free(cake__table_t *table)
{
    for (uint32_t i = 0; i < table->block_count; i++)
        cake__block_free(table->alloc, cake__table_head(table, i));
    cake__table_free_heads(table);
    for (uint32_t i = 0; i < table->lane_count; i++)
        cake__lane_free(table->alloc, &table->lanes[i]);
    cake__free(table->alloc, table->lanes);
    cake__index_free(&table->index);
    *table = (cake__table_t){.alloc = table->alloc};
}

/* ---- finding ----------------------------------------------------------------------------------------------------- */

cake__found_t cake__table_search(const cake__table_t *table, cake__id_pair_t id, uint64_t hash)
{
    uintptr_t cell = cake__index_cell(&table->index, hash);
    uint32_t mask = cake__cell_mask(cell), home = (uint32_t)(hash >> 8) & mask, at = home;
    cake__found_t found = {NULL, NULL, true, false};
    for (;; at = (at + 1) & mask) {
        cake__group_t *group = &cake__cell_groups(cell)[at];
        for (uint32_t left = cake__tags_equal(group, cake__tag_of(hash)); left != 0; left &= left - 1) {
            uint32_t *entry = &group->slots[__builtin_ctz(left)];
            if (cake__slot_holds(table, *entry, id)) {
                found.entry = entry;
                return found;
            }
            found.has_stale = true; /* or another id of this tag: then nothing is lost but time */
        }
        if (cake__tags_equal(group, 0) != 0) {
            found.empty = group;
            found.is_home = at == home;
            return found;
        }
    }
}

static uint32_t find(const cake__table_t *table, cake__id_pair_t id, uint64_t hash)
{
    cake__found_t found = cake__table_look_up(table, id, hash);
    return found.entry == NULL ? CAKE__SLOT_NONE : *found.entry;
}

uint32_t cake__table_find(const cake__table_t *table, const cake_id_t *id)
{
    cake__id_pair_t pair = cake__id_pair(id);
    return find(table, pair, cake__table_hash(table, pair));
}

void cake__table_read(const cake__table_t *table, uint32_t slot, cake_record_t *out)
{
    cake__block_read(cake__table_block(table, slot), slot % CAKE__BLOCK_POSITIONS, out);
}

bool cake__table_get(const cake__table_t *table, const cake_id_t *id, cake_record_t *out)
{
    uint32_t slot = cake__table_find(table, id);
    if (slot != CAKE__SLOT_NONE)
        cake__table_read(table, slot, out);
    return slot != CAKE__SLOT_NONE;
}

void cake__table_prefetch(const cake__table_t *table, const cake_id_t *id)
{
    cake__table_prefetch_group(table, cake__table_hash(table, cake__id_pair(id)));
}

void cake__table_prefetch_record(const cake__table_t *table, const cake_id_t *id)
{
    cake__table_prefetch_slot(table, cake__table_hash(table, cake__id_pair(id)));
}

cake__lane_t *cake__table_find_lane(const cake__table_t *table, uint64_t actor)
{
    return cake__table_lane(table, actor);
}

/* ---- staging, publishing, erasing -------------------------------------------------------------------------------- */

static int stage(cake__table_t *table, const cake_record_t *record, cake__id_pair_t id, uint64_t hash, bool is_new,
                 uint32_t *slot)
{
    int err = cake__table_place(table, record, id, slot);
    if (err != 0 || !is_new)
        return err;
    err = cake__index_put(&table->index, hash, *slot, table->live + table->tombstones);
    if (err != 0) {
        cake__block_vacate(cake__table_block(table, *slot), *slot % CAKE__BLOCK_POSITIONS);
        cake__table_settle(table, cake__table_block(table, *slot));
    }
    return err;
}

int cake__table_stage(cake__table_t *table, const cake_record_t *record, bool is_new)
{
    uint32_t slot;
    cake__id_pair_t id = cake__id_pair(&record->id);
    return stage(table, record, id, cake__table_hash(table, id), is_new, &slot);
}

void cake__table_unstage(cake__table_t *table, cake_dot_t dot)
{
    uint32_t slot = cake__table_slot_of(table, dot), position = slot % CAKE__BLOCK_POSITIONS;
    CAKE_ASSERT(slot != CAKE__SLOT_NONE);
    cake__block_t *block = cake__table_block(table, slot);
    CAKE_ASSERT(!cake__block_is_present(block, position));
    cake__block_vacate(block, position);
    cake__table_settle(table, block);
}

/* The record in slot `to` becomes visible, in the place of the one in `old`, if there is one. */
static void show(cake__table_t *table, const cake_record_t *record, cake__id_pair_t id, uint64_t hash, uint32_t to,
                 uint32_t old)
{
    cake__block_reveal(cake__table_block(table, to), to % CAKE__BLOCK_POSITIONS);
    cake__table_count_in(table, id, record->dot, record->is_tombstone);
    if (old == CAKE__SLOT_NONE)
        return;
    bool was_there = cake__index_replace(&table->index, hash, old, to);
    CAKE_ASSERT(was_there);
    cake__block_t *block = cake__table_block(table, old);
    cake__table_take_out(table, block, old % CAKE__BLOCK_POSITIONS, id);
    cake__table_settle(table, block);
}

void cake__table_publish(cake__table_t *table, const cake_record_t *record, bool is_new)
{
    cake__id_pair_t id = cake__id_pair(&record->id);
    uint64_t hash = is_new ? 0 : cake__table_hash(table, id);
    uint32_t slot = cake__table_slot_of(table, record->dot), old = is_new ? CAKE__SLOT_NONE : find(table, id, hash);
    CAKE_ASSERT(slot != CAKE__SLOT_NONE && slot != old && (is_new || old != CAKE__SLOT_NONE));
    show(table, record, id, hash, slot, old);
}

void cake__table_erase(cake__table_t *table, uint32_t slot)
{
    cake__block_t *block = cake__table_block(table, slot);
    uint32_t position = slot % CAKE__BLOCK_POSITIONS;
    cake__table_take_out(table, block, position, cake__block_id(block, position));
    cake__table_settle(table, block);
}

static int put(cake__table_t *table, const cake_record_t *record, cake__id_pair_t id, uint64_t hash, uint32_t old)
{
    uint32_t slot;
    int err = stage(table, record, id, hash, old == CAKE__SLOT_NONE, &slot);
    if (err != 0)
        return err;
    if (old != CAKE__SLOT_NONE && !cake__slot_holds(table, old, id)) /* placing has moved it */
        old = find(table, id, hash);
    show(table, record, id, hash, slot, old);
    return 0;
}

int cake__table_put(cake__table_t *table, const cake_record_t *record, uint32_t old)
{
    cake__id_pair_t id = cake__id_pair(&record->id);
    return put(table, record, id, cake__table_hash(table, id), old);
}

int cake__table_upsert_slowly(cake__table_t *table, const cake_record_t *record, cake__id_pair_t id, uint64_t hash)
{
    return put(table, record, id, hash, find(table, id, hash));
}

int cake__table_upsert(cake__table_t *table, const cake_record_t *record)
{
    cake__id_pair_t id = cake__id_pair(&record->id);
    uint64_t hash = cake__table_hash(table, id);
    return cake__table_upsert_found(table, record, id, hash, cake__table_look_up(table, id, hash));
}

/* ---- in order ---------------------------------------------------------------------------------------------------- */

static inline void read_record(const cake__block_t *block, const uint8_t *at, uint64_t seq, bool is_tombstone,
                               cake__shape_t shape, cake_record_t *out)
{
    cake_hlc_t hlc;
    uint32_t narrow;
    memcpy(&narrow, at + cake__shape_id_bytes(shape), sizeof narrow);
    hlc = block->hlc_base + narrow;
    if (shape.has_wide_hlcs)
        memcpy(&hlc, at + cake__shape_id_bytes(shape), sizeof hlc);
    cake__id_from_pair(cake__record_id(at, shape.has_wide_ids), &out->id);
    out->hlc = hlc;
    out->dot.actor = block->actor;
    out->dot.seq = seq;
    out->is_tombstone = is_tombstone;
}

/* Positions from..to of a dense block. shape: of the block; a constant where it is inlined, which makes this fast. */
CAKE__HOT size_t read_dense(const cake__block_t *of, uint32_t from, uint32_t to, cake__shape_t shape,
                            cake_record_t *records, size_t limit)
{
    const cake__block_t block = *of;
    size_t taken = 0, stride = cake__shape_stride(shape);
    for (uint32_t word = from / 64; word <= to / 64; word++) {
        const cake__bits_t bits = *cake__block_word(&block, word);
        const uint8_t *at = cake__block_record(&block, word * 64);
        uint64_t seq = block.first + word * 64, left = bits.present;
        left &= word == from / 64 ? UINT64_MAX << (from % 64) : UINT64_MAX;
        left &= word == to / 64 ? UINT64_MAX >> (63 - to % 64) : UINT64_MAX;
        if (left == UINT64_MAX && bits.tombstone == 0 && limit - taken >= 64) {
            for (uint32_t i = 0; i < 64; i++)
                read_record(&block, at + i * stride, seq + i, false, shape, &records[taken + i]);
            taken += 64;
            continue;
        }
        for (; left != 0 && taken < limit; left &= left - 1) {
            uint32_t i = (uint32_t)__builtin_ctzll(left);
            read_record(&block, at + i * stride, seq + i, cake__bit(bits.tombstone, i), shape, &records[taken++]);
        }
    }
    return taken;
}

static size_t read_sparse(const cake__block_t *block, uint64_t first, uint64_t last, cake_record_t *records,
                          size_t limit)
{
    uint16_t positions[CAKE__BLOCK_POSITIONS];
    uint32_t count = cake__block_select(block, first, last, positions);
    size_t taken = 0;
    for (; taken < count && taken < limit; taken++)
        cake__block_read(block, positions[taken], &records[taken]);
    return taken;
}

/* Present records with first <= seq <= last in order. */
static size_t read_block(const cake__block_t *block, uint64_t first, uint64_t last, cake_record_t *records,
                         size_t limit)
{
    const cake__shape_t usual = {.has_wide_ids = false};
    if (last < block->first || first > block->max_seq)
        return 0;
    if (block->shape.is_sparse)
        return read_sparse(block, first, last, records, limit);
    uint32_t from = first <= block->first ? 0 : (uint32_t)(first - block->first);
    uint32_t to = (uint32_t)(cake__min_u64(last, block->max_seq) - block->first);
    if (!block->shape.has_wide_ids && !block->shape.has_wide_hlcs)
        return read_dense(block, from, to, usual, records, limit);
    return read_dense(block, from, to, block->shape, records, limit);
}

size_t cake__table_select(const cake__table_t *table, uint64_t actor, uint64_t first, uint64_t last,
                          cake_record_t *records, size_t limit)
{
    const cake__lane_t *lane = cake__table_lane(table, actor);
    size_t taken = 0;
    if (lane == NULL)
        return 0;
    for (uint32_t i = cake__lane_entry_at(lane, first); i < lane->count && taken < limit; i++) {
        if (lane->entries[i].first > last)
            break;
        taken += read_block(cake__lane_block(table, lane, i), first, last, records + taken, limit - taken);
    }
    return taken;
}

size_t cake__table_next(const cake__table_t *table, cake__table_cursor_t *cursor, cake_record_t *records, size_t limit)
{
    size_t taken = 0;
    while (taken < limit && cursor->lane < table->lane_count) {
        const cake__lane_t *lane = &table->lanes[cursor->lane];
        if (cursor->entry >= lane->count) {
            *cursor = (cake__table_cursor_t){cursor->lane + 1, 0, 0};
            continue;
        }
        const cake__block_t *block = cake__lane_block(table, lane, cursor->entry);
        taken += read_block(block, block->first + cursor->skip, UINT64_MAX, records + taken, limit - taken);
        if (taken == limit)
            cursor->skip = (uint32_t)(records[taken - 1].dot.seq + 1 - block->first);
        else
            *cursor = (cake__table_cursor_t){cursor->lane, cursor->entry + 1, 0};
    }
    return taken;
}

size_t cake__table_bytes(const cake__table_t *table)
{
    return table->bytes + table->index.bytes + table->lane_capacity * sizeof *table->lanes +
           (((size_t)1 << table->head_lists) - 1) * sizeof(cake__block_t) + table->head_lists * sizeof *table->heads;
}
