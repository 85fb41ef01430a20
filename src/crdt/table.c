/* table.c: see table.h. Lanes and the placing of records are in lanes.c. */
#include "crdt/table_internal.h"

static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t cake__table_hash(const cake__table_t *table, cake__id_pair_t id)
{
    uint64_t folded = fold(id.low ^ table->seed, id.high ^ UINT64_C(0xa0761d6478bd642f));
    return fold(folded ^ UINT64_C(0xe7037ed1a0b428db), table->seed | 1);
}

uint64_t cake__fingerprint_of(cake__id_pair_t id, cake_dot_t dot)
{
    uint64_t x = fold(id.low ^ UINT64_C(0x8ebc6af09c88c6e3), id.high ^ UINT64_C(0x589965cc75374cc3));
    uint64_t y = fold(dot.actor ^ UINT64_C(0x1d8e4e27c47d124f), dot.seq ^ UINT64_C(0xeb44accab455d165));
    return cake__mix64(x + ((y << 32) | (y >> 32)));
}

static bool hash_of_slot(void *ctx, uint32_t slot, uint64_t *hash)
{
    const cake__table_t *table = ctx;
    const cake__chunk_t *chunk = cake__table_chunk(table, slot);
    uint32_t position = slot % CAKE__CHUNK_POSITIONS;
    if (chunk == NULL || position >= chunk->shape.capacity || !cake__bit(chunk->occupied_bits, position))
        return false;
    *hash = cake__table_hash(table, cake__chunk_id(chunk, position));
    return true;
}

void cake__table_init(cake__table_t *table, const cake_alloc_t *alloc, uint64_t seed)
{
    *table = (cake__table_t){.alloc = alloc, .seed = cake__mix64(seed ^ UINT64_C(0x9e3779b97f4a7c15))};
    cake__index_init(&table->index, alloc, hash_of_slot, table);
}

void cake__table_free(cake__table_t *table)
{
    for (uint32_t i = 0; i < table->chunk_count; i++)
        cake__chunk_free(table->alloc, table->chunks[i]);
    for (uint32_t i = 0; i < table->lane_count; i++)
        cake__free(table->alloc, table->lanes[i].entries);
    cake__free(table->alloc, table->lanes);
    cake__free(table->alloc, table->chunks);
    cake__free(table->alloc, table->free_numbers);
    cake__index_free(&table->index);
    *table = (cake__table_t){.alloc = table->alloc};
}

/* ---- finding ------------------------------------------------------------------------------------------------------ */

static inline bool slot_holds(const cake__table_t *table, uint32_t slot, cake__id_pair_t id)
{
    const cake__chunk_t *chunk = cake__table_chunk(table, slot);
    uint32_t position = slot % CAKE__CHUNK_POSITIONS;
    return chunk != NULL && position < chunk->shape.capacity && cake__chunk_holds_id(chunk, position, id) &&
           cake__bit(chunk->present_bits, position);
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
    cake__chunk_read(cake__table_chunk(table, slot), slot % CAKE__CHUNK_POSITIONS, out);
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
    cake__probe_t probe;
    if (table->index.directory == NULL)
        return;
    uint64_t hash = cake__table_hash(table, cake__id_pair(id));
    probe.segment = cake__index_segment(&table->index, hash);
    probe.group = cake__home_group(probe.segment, hash);
    __builtin_prefetch(probe.segment->slots + probe.group * CAKE__GROUP);
    __builtin_prefetch(probe.segment->tags + probe.group * CAKE__GROUP);
}

/* ---- staging, publishing, erasing ----------------------------------------------------------------------------------- */

static void count_in(cake__table_t *table, cake__chunk_t *chunk, uint32_t position)
{
    bool is_tombstone = cake__bit(chunk->tombstone_bits, position);
    cake_dot_t dot = {chunk->actor, cake__chunk_seq(chunk, position)};
    cake__bit_set(chunk->present_bits, position);
    chunk->present++;
    if (is_tombstone) {
        chunk->tombstones++;
        table->tombstones++;
        cake__lane_note_tombstone(cake__table_lane(table, dot.actor), dot.seq);
    } else {
        table->live++;
        table->fingerprint += cake__fingerprint_of(cake__chunk_id(chunk, position), dot);
    }
}

static void take_out(cake__table_t *table, uint32_t slot)
{
    cake__chunk_t *chunk = cake__table_chunk(table, slot);
    uint32_t position = slot % CAKE__CHUNK_POSITIONS;
    CAKE_ASSERT(cake__bit(chunk->present_bits, position));
    if (cake__bit(chunk->tombstone_bits, position)) {
        table->tombstones--;
        cake__table_lane(table, chunk->actor)->tombstones--;
    } else {
        cake_dot_t dot = {chunk->actor, cake__chunk_seq(chunk, position)};
        table->live--;
        table->fingerprint -= cake__fingerprint_of(cake__chunk_id(chunk, position), dot);
    }
    cake__chunk_vacate(chunk, position);
}

static int stage(cake__table_t *table, const cake_record_t *record, cake__id_pair_t id, uint64_t hash, bool is_new,
                 uint32_t *slot)
{
    int err = cake__table_place(table, record, id, slot);
    if (err != 0 || !is_new)
        return err;
    err = cake__index_put(&table->index, hash, *slot);
    if (err != 0) {
        cake__chunk_vacate(cake__table_chunk(table, *slot), *slot % CAKE__CHUNK_POSITIONS);
        cake__table_settle(table, cake__table_chunk(table, *slot));
    }
    return err;
}

int cake__table_stage(cake__table_t *table, const cake_record_t *record)
{
    uint32_t slot;
    cake__id_pair_t id = cake__id_pair(&record->id);
    uint64_t hash = cake__table_hash(table, id);
    return stage(table, record, id, hash, find(table, id, hash) == CAKE__SLOT_NONE, &slot);
}

void cake__table_unstage(cake__table_t *table, cake_dot_t dot)
{
    uint32_t slot = cake__table_slot_of(table, dot);
    CAKE_ASSERT(slot != CAKE__SLOT_NONE);
    cake__chunk_t *chunk = cake__table_chunk(table, slot);
    CAKE_ASSERT(!cake__bit(chunk->present_bits, slot % CAKE__CHUNK_POSITIONS));
    cake__chunk_vacate(chunk, slot % CAKE__CHUNK_POSITIONS);
    cake__table_settle(table, chunk);
}

/* The record in slot `to` takes the place of the one in `old`. */
static void succeed(cake__table_t *table, uint64_t hash, uint32_t old, uint32_t to)
{
    bool was_there = cake__index_replace(&table->index, hash, old, to);
    CAKE_ASSERT(was_there);
    take_out(table, old);
    cake__table_settle(table, cake__table_chunk(table, old));
}

void cake__table_publish(cake__table_t *table, const cake_record_t *record)
{
    cake__id_pair_t id = cake__id_pair(&record->id);
    uint64_t hash = cake__table_hash(table, id);
    uint32_t slot = cake__table_slot_of(table, record->dot), old = find(table, id, hash);
    CAKE_ASSERT(slot != CAKE__SLOT_NONE && slot != old);
    count_in(table, cake__table_chunk(table, slot), slot % CAKE__CHUNK_POSITIONS);
    if (old != CAKE__SLOT_NONE)
        succeed(table, hash, old, slot);
}

void cake__table_erase(cake__table_t *table, uint32_t slot)
{
    take_out(table, slot);
    cake__table_settle(table, cake__table_chunk(table, slot));
}

int cake__table_put(cake__table_t *table, const cake_record_t *record, uint32_t old)
{
    uint32_t slot;
    cake__id_pair_t id = cake__id_pair(&record->id);
    uint64_t hash = cake__table_hash(table, id);
    int err = stage(table, record, id, hash, old == CAKE__SLOT_NONE, &slot);
    if (err != 0)
        return err;
    if (old != CAKE__SLOT_NONE && !slot_holds(table, old, id)) /* placing has moved it */
        old = find(table, id, hash);
    count_in(table, cake__table_chunk(table, slot), slot % CAKE__CHUNK_POSITIONS);
    if (old != CAKE__SLOT_NONE)
        succeed(table, hash, old, slot);
    return 0;
}

/* ---- in order ------------------------------------------------------------------------------------------------------- */

static size_t read_positions(const cake__chunk_t *chunk, const uint16_t *positions, uint32_t from, uint32_t count,
                             cake_record_t *records, size_t limit)
{
    size_t taken = 0;
    for (uint32_t i = from; i < count && taken < limit; i++)
        cake__chunk_read(chunk, positions[i], &records[taken++]);
    return taken;
}

size_t cake__table_select(const cake__table_t *table, uint64_t actor, uint64_t first, uint64_t last,
                          cake_record_t *records, size_t limit)
{
    uint16_t positions[CAKE__CHUNK_POSITIONS];
    const cake__lane_t *lane = cake__table_lane(table, actor);
    size_t taken = 0;
    if (lane == NULL)
        return 0;
    for (uint32_t i = cake__lane_entry_at(lane, first); i < lane->count && taken < limit; i++) {
        if (lane->entries[i].first > last)
            break;
        const cake__chunk_t *chunk = table->chunks[lane->entries[i].chunk];
        uint32_t count = cake__chunk_select(chunk, first, last, positions);
        taken += read_positions(chunk, positions, 0, count, records + taken, limit - taken);
    }
    return taken;
}

size_t cake__table_next(const cake__table_t *table, cake__table_cursor_t *cursor, cake_record_t *records, size_t limit)
{
    uint16_t positions[CAKE__CHUNK_POSITIONS];
    size_t taken = 0;
    while (taken < limit && cursor->lane < table->lane_count) {
        const cake__lane_t *lane = &table->lanes[cursor->lane];
        if (cursor->entry >= lane->count) {
            *cursor = (cake__table_cursor_t){cursor->lane + 1, 0, 0};
            continue;
        }
        const cake__chunk_t *chunk = table->chunks[lane->entries[cursor->entry].chunk];
        uint32_t count = cake__chunk_select(chunk, 0, UINT64_MAX, positions);
        size_t more = read_positions(chunk, positions, cursor->skip, count, records + taken, limit - taken);
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
    while (table->chunks[lane->entries[lane->first_tombstones].chunk]->tombstones == 0) {
        lane->first_tombstones++;
        CAKE_ASSERT(lane->first_tombstones < lane->count);
    }
    const cake__chunk_t *chunk = table->chunks[lane->entries[lane->first_tombstones].chunk];
    uint64_t least = UINT64_MAX;
    cake_hlc_t oldest = 0;
    for (uint32_t word = 0; word < cake__chunk_words(chunk); word++) {
        uint64_t left = chunk->present_bits[word] & chunk->tombstone_bits[word];
        for (; left != 0; left &= left - 1) {
            uint32_t position = word * 64 + (uint32_t)__builtin_ctzll(left);
            if (chunk->offsets == NULL)
                return cake__chunk_hlc(chunk, position);
            if (cake__chunk_seq(chunk, position) < least) {
                least = cake__chunk_seq(chunk, position);
                oldest = cake__chunk_hlc(chunk, position);
            }
        }
    }
    CAKE_ASSERT(oldest != 0 || least != UINT64_MAX);
    return oldest;
}

static void sweep_position(cake__chunk_t *chunk, uint32_t position, cake__sweep_t *sweep)
{
    uint64_t seq = cake__chunk_seq(chunk, position);
    cake_hlc_t hlc = cake__chunk_hlc(chunk, position);
    if (seq > sweep->last || hlc > sweep->newest || sweep->count == sweep->limit)
        return;
    sweep->max_seq = cake__max_u64(sweep->max_seq, seq);
    sweep->max_hlc = cake__max_u64(sweep->max_hlc, hlc);
    if (sweep->ids != NULL)
        cake__id_from_pair(cake__chunk_id(chunk, position), &sweep->ids[sweep->count]);
    else
        cake__chunk_vacate(chunk, position);
    sweep->count++;
}

void cake__table_sweep(cake__table_t *table, cake__lane_t *lane, cake__sweep_t *sweep)
{
    uint64_t actor = lane->actor;
    for (uint32_t i = lane->first_tombstones; i < lane->count && sweep->count < sweep->limit; i++) {
        cake__chunk_t *chunk = table->chunks[lane->entries[i].chunk];
        size_t before = sweep->count;
        if (chunk->first > sweep->last)
            break;
        if (chunk->tombstones == 0)
            continue;
        for (uint32_t word = 0; word < cake__chunk_words(chunk); word++) {
            uint64_t left = chunk->present_bits[word] & chunk->tombstone_bits[word];
            for (; left != 0; left &= left - 1)
                sweep_position(chunk, word * 64 + (uint32_t)__builtin_ctzll(left), sweep);
        }
        if (sweep->ids != NULL)
            continue;
        lane->tombstones -= sweep->count - before;
        table->tombstones -= sweep->count - before;
        i -= cake__table_release_if_empty(table, chunk);
        lane = cake__table_lane(table, actor); /* it may be gone with its last chunk */
        if (lane == NULL)
            break;
    }
}

size_t cake__table_bytes(const cake__table_t *table)
{
    return table->bytes + table->index.bytes + table->lane_capacity * sizeof *table->lanes +
           table->chunk_capacity * (sizeof *table->chunks + sizeof *table->free_numbers);
}
