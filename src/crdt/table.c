/* table.c: see table.h. Lanes and the placing of records are in lanes.c. */
#include "crdt/table_internal.h"

uint64_t cake__fingerprint_of(cake__id_pair_t id, cake_dot_t dot)
{
    return cake__fingerprint_of_pair(id, dot);
}

static uint64_t hash_of_slot(const void *ctx, uint32_t slot)
{
    const cake__table_t *table = ctx;
    const uint8_t *record = cake__slot_record(table, slot);
    uint32_t position = slot % CAKE__BLOCK_POSITIONS;
    if (record == NULL || !cake__block_is_occupied(cake__table_block(table, slot), position))
        return 0;
    return cake__table_hash(table, cake__record_id(record, table->views[slot / CAKE__BLOCK_POSITIONS].has_wide_ids));
}

static void prefetch_slot(const void *ctx, uint32_t slot)
{
    cake__slot_prefetch(ctx, slot);
}

void cake__table_init(cake__table_t *table, const cake_alloc_t *alloc, uint64_t seed)
{
    *table = (cake__table_t){.alloc = alloc, .seed = cake__mix64(seed ^ UINT64_C(0x9e3779b97f4a7c15))};
    cake__index_init(&table->index, alloc, hash_of_slot, prefetch_slot, table);
}

void cake__table_free(cake__table_t *table)
{
    for (uint32_t i = 0; i < table->block_count; i++)
        cake__block_free(table->alloc, table->blocks[i]);
    for (uint32_t i = 0; i < table->lane_count; i++)
        cake__lane_free(table->alloc, &table->lanes[i]);
    cake__free(table->alloc, table->lanes);
    cake__free(table->alloc, table->blocks);
    cake__free(table->alloc, table->views);
    cake__free(table->alloc, table->free_numbers);
    cake__index_free(&table->index);
    *table = (cake__table_t){.alloc = table->alloc};
}

/* ---- finding ------------------------------------------------------------------------------------------------------ */

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

cake__lane_t *cake__table_find_lane(const cake__table_t *table, uint64_t actor)
{
    return cake__table_lane(table, actor);
}

/* ---- staging, publishing, erasing ----------------------------------------------------------------------------------- */

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

/* The record in slot `to` takes the place of the one in `old`. */
static void succeed(cake__table_t *table, uint64_t hash, uint32_t old, uint32_t to)
{
    bool was_there = cake__index_replace(&table->index, hash, old, to);
    CAKE_ASSERT(was_there);
    cake__table_take_out(table, old);
    cake__table_settle(table, cake__table_block(table, old));
}

void cake__table_publish(cake__table_t *table, const cake_record_t *record, bool is_new)
{
    cake__id_pair_t id = cake__id_pair(&record->id);
    uint64_t hash = is_new ? 0 : cake__table_hash(table, id);
    uint32_t slot = cake__table_slot_of(table, record->dot), old = is_new ? CAKE__SLOT_NONE : find(table, id, hash);
    CAKE_ASSERT(slot != CAKE__SLOT_NONE && slot != old && (is_new || old != CAKE__SLOT_NONE));
    cake__table_count_in(table, slot);
    if (old != CAKE__SLOT_NONE)
        succeed(table, hash, old, slot);
}

void cake__table_erase(cake__table_t *table, uint32_t slot)
{
    cake__table_take_out(table, slot);
    cake__table_settle(table, cake__table_block(table, slot));
}

static int put(cake__table_t *table, const cake_record_t *record, cake__id_pair_t id, uint64_t hash, uint32_t old)
{
    uint32_t slot;
    int err = stage(table, record, id, hash, old == CAKE__SLOT_NONE, &slot);
    if (err != 0)
        return err;
    if (old != CAKE__SLOT_NONE && !cake__slot_holds(table, old, id)) /* placing has moved it */
        old = find(table, id, hash);
    cake__table_count_in(table, slot);
    if (old != CAKE__SLOT_NONE)
        succeed(table, hash, old, slot);
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
    return cake__table_upsert_hashed(table, record, id, cake__table_hash(table, id));
}

/* ---- in order ------------------------------------------------------------------------------------------------------- */

static size_t read_positions(const cake__block_t *block, const uint16_t *positions, uint32_t from, uint32_t count,
                             cake_record_t *records, size_t limit)
{
    size_t taken = 0;
    const cake__block_t header = *block; /* a copy, so that the compiler need not read it again after each record */
    const cake__bits_t *bits = block->bits;
    size_t id_bytes = cake__shape_id_bytes(header.shape), stride = cake__shape_stride(header.shape);
    for (uint32_t i = from; i < count && taken < limit; i++) {
        uint32_t position = positions[i], narrow;
        const uint8_t *at = header.records + position * stride;
        cake_record_t *out = &records[taken++];
        cake__id_from_pair(cake__record_id(at, id_bytes == 16), &out->id);
        memcpy(&narrow, at + id_bytes, sizeof narrow);
        out->hlc = header.hlc_base + narrow;
        if (header.shape.has_wide_hlcs)
            memcpy(&out->hlc, at + id_bytes, sizeof out->hlc);
        out->dot.actor = header.actor;
        out->dot.seq = header.first + (header.offsets == NULL ? position : header.offsets[position]);
        out->is_tombstone = cake__bit(bits[position / 64].tombstone, position);
    }
    return taken;
}

size_t cake__table_select(const cake__table_t *table, uint64_t actor, uint64_t first, uint64_t last,
                          cake_record_t *records, size_t limit)
{
    uint16_t positions[CAKE__BLOCK_POSITIONS];
    const cake__lane_t *lane = cake__table_lane(table, actor);
    size_t taken = 0;
    if (lane == NULL)
        return 0;
    for (uint32_t i = cake__lane_entry_at(lane, first); i < lane->count && taken < limit; i++) {
        if (lane->entries[i].first > last)
            break;
        const cake__block_t *block = table->blocks[lane->entries[i].block];
        uint32_t count = cake__block_select(block, first, last, positions);
        taken += read_positions(block, positions, 0, count, records + taken, limit - taken);
    }
    return taken;
}

size_t cake__table_next(const cake__table_t *table, cake__table_cursor_t *cursor, cake_record_t *records, size_t limit)
{
    uint16_t positions[CAKE__BLOCK_POSITIONS];
    size_t taken = 0;
    while (taken < limit && cursor->lane < table->lane_count) {
        const cake__lane_t *lane = &table->lanes[cursor->lane];
        if (cursor->entry >= lane->count) {
            *cursor = (cake__table_cursor_t){cursor->lane + 1, 0, 0};
            continue;
        }
        const cake__block_t *block = table->blocks[lane->entries[cursor->entry].block];
        uint32_t count = cake__block_select(block, 0, UINT64_MAX, positions);
        size_t more = read_positions(block, positions, cursor->skip, count, records + taken, limit - taken);
        taken += more;
        cursor->skip += (uint32_t)more;
        if (cursor->skip >= count)
            *cursor = (cake__table_cursor_t){cursor->lane, cursor->entry + 1, 0};
    }
    return taken;
}

size_t cake__table_bytes(const cake__table_t *table)
{
    return table->bytes + table->index.bytes + table->lane_capacity * sizeof *table->lanes +
           table->block_capacity * (sizeof *table->blocks + sizeof *table->views + sizeof *table->free_numbers);
}
