/* table.c: see table.h. Lanes and the placing of records are in lanes.c. */
#include "crdt/table_internal.h"

static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Keys that differ only in the low bits of their last byte, as numbers in a row do, share the upper bits of the hash and so
 * their group of the index: one cache line serves them all. Their tags differ for certain. */
#define NEIGHBOUR_MASK UINT64_C(7)

static uint64_t split_off_neighbours(cake__id_pair_t *id)
{
    uint64_t len = id->high >> 56;
    if (len == 0 || len > CAKE_ID_KEY_MAX)
        return 0;
    uint64_t *word = len <= 8 ? &id->low : &id->high;
    uint64_t shift = (len - 1) % 8 * 8, bits = *word >> shift & NEIGHBOUR_MASK;
    *word ^= bits << shift;
    return bits;
}

uint64_t cake__table_hash(const cake__table_t *table, cake__id_pair_t id)
{
    uint64_t neighbour = split_off_neighbours(&id);
    uint64_t folded = fold(id.low ^ table->seed, id.high ^ UINT64_C(0xa0761d6478bd642f));
    uint64_t hash = fold(folded ^ UINT64_C(0xe7037ed1a0b428db), table->seed | 1);
    hash = (hash & ~UINT64_C(0xff)) | ((hash + neighbour * 31) & 0xff);
    return hash == 0 ? 1 : hash; /* 0 means none */
}

uint64_t cake__fingerprint_of(cake__id_pair_t id, cake_dot_t dot)
{
    uint64_t x = fold(id.low ^ UINT64_C(0x8ebc6af09c88c6e3), id.high ^ UINT64_C(0x589965cc75374cc3));
    uint64_t y = fold(dot.actor ^ UINT64_C(0x1d8e4e27c47d124f), dot.seq ^ UINT64_C(0xeb44accab455d165));
    return cake__mix64(x + ((y << 32) | (y >> 32)));
}

static uint64_t hash_of_slot(const void *ctx, uint32_t slot)
{
    const cake__table_t *table = ctx;
    const cake__block_t *block = cake__table_block(table, slot);
    uint32_t position = slot % CAKE__BLOCK_POSITIONS;
    if (block == NULL || position >= block->shape.capacity || !cake__bit(block->occupied_bits, position))
        return 0;
    return cake__table_hash(table, cake__block_id(block, position));
}

static void prefetch_slot(const void *ctx, uint32_t slot)
{
    const cake__block_t *block = cake__table_block(ctx, slot);
    uint32_t position = slot % CAKE__BLOCK_POSITIONS;
    if (block != NULL && position < block->shape.capacity)
        __builtin_prefetch((const uint8_t *)block->ids + position * (block->shape.has_wide_ids ? 16 : 8));
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
        cake__free(table->alloc, table->lanes[i].entries);
    cake__free(table->alloc, table->lanes);
    cake__free(table->alloc, table->blocks);
    cake__free(table->alloc, table->free_numbers);
    cake__index_free(&table->index);
    *table = (cake__table_t){.alloc = table->alloc};
}

/* ---- finding ------------------------------------------------------------------------------------------------------ */

static inline bool slot_holds(const cake__table_t *table, uint32_t slot, cake__id_pair_t id)
{
    const cake__block_t *block = cake__table_block(table, slot);
    uint32_t position = slot % CAKE__BLOCK_POSITIONS;
    return block != NULL && position < block->shape.capacity && cake__block_holds_id(block, position, id) &&
           cake__bit(block->present_bits, position);
}

static inline uint32_t find(const cake__table_t *table, cake__id_pair_t id, uint64_t hash)
{
    cake__probe_t probe;
    for (cake__probe_begin(&probe, &table->index, hash); cake__probe_next(&probe);) {
        if (slot_holds(table, *probe.slot, id))
            return *probe.slot;
    }
    return CAKE__SLOT_NONE;
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
    if (table->index.directory == NULL)
        return;
    uint64_t hash = cake__table_hash(table, cake__id_pair(id));
    const cake__segment_t *segment = cake__index_segment(&table->index, hash);
    __builtin_prefetch(&segment->groups[cake__home_group(segment, hash)]);
}

void cake__table_prefetch_record(const cake__table_t *table, const cake_id_t *id)
{
    cake__probe_t probe;
    cake__probe_begin(&probe, &table->index, cake__table_hash(table, cake__id_pair(id)));
    if (cake__probe_next(&probe))
        prefetch_slot(table, *probe.slot);
}

cake__lane_t *cake__table_find_lane(const cake__table_t *table, uint64_t actor)
{
    return cake__table_lane(table, actor);
}

/* ---- staging, publishing, erasing ----------------------------------------------------------------------------------- */

static void count_in(cake__table_t *table, cake__block_t *block, uint32_t position)
{
    bool is_tombstone = cake__bit(block->tombstone_bits, position);
    cake_dot_t dot = {block->actor, cake__block_seq(block, position)};
    cake__bit_set(block->present_bits, position);
    block->present++;
    if (is_tombstone) {
        block->tombstones++;
        table->tombstones++;
        cake__lane_note_tombstone(cake__table_lane(table, dot.actor), dot.seq);
    } else {
        table->live++;
        table->fingerprint += cake__fingerprint_of(cake__block_id(block, position), dot);
    }
}

static void take_out(cake__table_t *table, uint32_t slot)
{
    cake__block_t *block = cake__table_block(table, slot);
    uint32_t position = slot % CAKE__BLOCK_POSITIONS;
    CAKE_ASSERT(cake__bit(block->present_bits, position));
    if (cake__bit(block->tombstone_bits, position)) {
        table->tombstones--;
        cake__table_lane(table, block->actor)->tombstones--;
    } else {
        cake_dot_t dot = {block->actor, cake__block_seq(block, position)};
        table->live--;
        table->fingerprint -= cake__fingerprint_of(cake__block_id(block, position), dot);
    }
    cake__block_vacate(block, position);
}

static int stage(cake__table_t *table, const cake_record_t *record, cake__id_pair_t id, uint64_t hash, bool is_new,
                 uint32_t *slot)
{
    int err = cake__table_place(table, record, id, slot);
    if (err != 0 || !is_new)
        return err;
    err = cake__index_put(&table->index, hash, *slot);
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
    uint32_t slot = cake__table_slot_of(table, dot);
    CAKE_ASSERT(slot != CAKE__SLOT_NONE);
    cake__block_t *block = cake__table_block(table, slot);
    CAKE_ASSERT(!cake__bit(block->present_bits, slot % CAKE__BLOCK_POSITIONS));
    cake__block_vacate(block, slot % CAKE__BLOCK_POSITIONS);
    cake__table_settle(table, block);
}

/* The record in slot `to` takes the place of the one in `old`. */
static void succeed(cake__table_t *table, uint64_t hash, uint32_t old, uint32_t to)
{
    bool was_there = cake__index_replace(&table->index, hash, old, to);
    CAKE_ASSERT(was_there);
    take_out(table, old);
    cake__table_settle(table, cake__table_block(table, old));
}

void cake__table_publish(cake__table_t *table, const cake_record_t *record, bool is_new)
{
    cake__id_pair_t id = cake__id_pair(&record->id);
    uint64_t hash = is_new ? 0 : cake__table_hash(table, id);
    uint32_t slot = cake__table_slot_of(table, record->dot), old = is_new ? CAKE__SLOT_NONE : find(table, id, hash);
    CAKE_ASSERT(slot != CAKE__SLOT_NONE && slot != old && (is_new || old != CAKE__SLOT_NONE));
    count_in(table, cake__table_block(table, slot), slot % CAKE__BLOCK_POSITIONS);
    if (old != CAKE__SLOT_NONE)
        succeed(table, hash, old, slot);
}

void cake__table_erase(cake__table_t *table, uint32_t slot)
{
    take_out(table, slot);
    cake__table_settle(table, cake__table_block(table, slot));
}

static int put(cake__table_t *table, const cake_record_t *record, cake__id_pair_t id, uint64_t hash, uint32_t old)
{
    uint32_t slot;
    int err = stage(table, record, id, hash, old == CAKE__SLOT_NONE, &slot);
    if (err != 0)
        return err;
    if (old != CAKE__SLOT_NONE && !slot_holds(table, old, id)) /* placing has moved it */
        old = find(table, id, hash);
    count_in(table, cake__table_block(table, slot), slot % CAKE__BLOCK_POSITIONS);
    if (old != CAKE__SLOT_NONE)
        succeed(table, hash, old, slot);
    return 0;
}

int cake__table_put(cake__table_t *table, const cake_record_t *record, uint32_t old)
{
    cake__id_pair_t id = cake__id_pair(&record->id);
    return put(table, record, id, cake__table_hash(table, id), old);
}

int cake__table_upsert(cake__table_t *table, const cake_record_t *record)
{
    cake__id_pair_t id = cake__id_pair(&record->id);
    uint64_t hash = cake__table_hash(table, id);
    return put(table, record, id, hash, find(table, id, hash));
}

/* ---- in order ------------------------------------------------------------------------------------------------------- */

static size_t read_positions(const cake__block_t *block, const uint16_t *positions, uint32_t from, uint32_t count,
                             cake_record_t *records, size_t limit)
{
    size_t taken = 0;
    for (uint32_t i = from; i < count && taken < limit; i++)
        cake__block_read(block, positions[i], &records[taken++]);
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

/* ---- tombstones ----------------------------------------------------------------------------------------------------- */

cake_hlc_t cake__lane_oldest_tombstone(const cake__table_t *table, cake__lane_t *lane)
{
    if (lane->tombstones == 0)
        return 0;
    while (table->blocks[lane->entries[lane->first_tombstones].block]->tombstones == 0) {
        lane->first_tombstones++;
        CAKE_ASSERT(lane->first_tombstones < lane->count);
    }
    const cake__block_t *block = table->blocks[lane->entries[lane->first_tombstones].block];
    uint64_t least = UINT64_MAX;
    cake_hlc_t oldest = 0;
    for (uint32_t word = 0; word < cake__block_words(block); word++) {
        uint64_t left = block->present_bits[word] & block->tombstone_bits[word];
        for (; left != 0; left &= left - 1) {
            uint32_t position = word * 64 + (uint32_t)__builtin_ctzll(left);
            if (block->offsets == NULL)
                return cake__block_hlc(block, position);
            if (cake__block_seq(block, position) < least) {
                least = cake__block_seq(block, position);
                oldest = cake__block_hlc(block, position);
            }
        }
    }
    CAKE_ASSERT(oldest != 0 || least != UINT64_MAX);
    return oldest;
}

static void sweep_position(cake__block_t *block, uint32_t position, cake__sweep_t *sweep)
{
    uint64_t seq = cake__block_seq(block, position);
    cake_hlc_t hlc = cake__block_hlc(block, position);
    if (seq > sweep->last || hlc > sweep->newest || sweep->count == sweep->limit)
        return;
    sweep->max_seq = cake__max_u64(sweep->max_seq, seq);
    sweep->max_hlc = cake__max_u64(sweep->max_hlc, hlc);
    if (sweep->ids != NULL)
        cake__id_from_pair(cake__block_id(block, position), &sweep->ids[sweep->count]);
    else
        cake__block_vacate(block, position);
    sweep->count++;
}

void cake__table_sweep(cake__table_t *table, cake__lane_t *lane, cake__sweep_t *sweep)
{
    uint64_t actor = lane->actor;
    for (uint32_t i = lane->first_tombstones; i < lane->count && sweep->count < sweep->limit; i++) {
        cake__block_t *block = table->blocks[lane->entries[i].block];
        size_t before = sweep->count;
        if (block->first > sweep->last)
            break;
        if (block->tombstones == 0)
            continue;
        for (uint32_t word = 0; word < cake__block_words(block); word++) {
            uint64_t left = block->present_bits[word] & block->tombstone_bits[word];
            for (; left != 0; left &= left - 1)
                sweep_position(block, word * 64 + (uint32_t)__builtin_ctzll(left), sweep);
        }
        if (sweep->ids != NULL)
            continue;
        lane->tombstones -= sweep->count - before;
        table->tombstones -= sweep->count - before;
        i -= cake__table_release_if_empty(table, block);
        lane = cake__table_lane(table, actor); /* it may be gone with its last block */
        if (lane == NULL)
            break;
    }
}

size_t cake__table_bytes(const cake__table_t *table)
{
    return table->bytes + table->index.bytes + table->lane_capacity * sizeof *table->lanes +
           table->block_capacity * (sizeof *table->blocks + sizeof *table->free_numbers);
}
