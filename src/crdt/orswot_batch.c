/* orswot_batch.c: many operations in a row. Of a large set each one waits for two cache misses, the group of the
 * index and the record; here those of the operations ahead are under way meanwhile:
 *
 *      operation   i + 2 * AHEAD        i + AHEAD              i
 *                  hash, fetch group    match, fetch record    done, in the order of the caller */
#include "crdt/set.h"
#include "crdt/table_internal.h"

#define AHEAD     10u
#define IDS_AHEAD 32u   /* ids that are fetched before they are read */
#define RING      32u   /* hashes kept: more than two stages, a power of two */
#define PART      1024u /* stamps drawn from the clock at a time */

typedef struct pipeline {
    const cake__table_t *table;
    const cake_id_t *ids;
    size_t count;
    uint64_t hashes[RING];
} pipeline_t;

static inline void fetch_group(pipeline_t *pipeline, size_t at)
{
    if (at >= pipeline->count)
        return;
    __builtin_prefetch(&pipeline->ids[at] + IDS_AHEAD);
    uint64_t hash = cake__table_hash(pipeline->table, cake__id_pair(&pipeline->ids[at]));
    pipeline->hashes[at % RING] = hash;
    cake__table_prefetch_group(pipeline->table, hash);
}

static inline void fetch_record(const pipeline_t *pipeline, size_t at)
{
    if (at < pipeline->count)
        cake__table_prefetch_slot(pipeline->table, pipeline->hashes[at % RING]);
}

static void begin(pipeline_t *pipeline, const cake__table_t *table, const cake_id_t *ids, size_t count)
{
    pipeline->table = table;
    pipeline->ids = ids;
    pipeline->count = count;
    for (size_t at = 0; at < 2 * AHEAD; at++)
        fetch_group(pipeline, at);
    for (size_t at = 0; at < AHEAD; at++)
        fetch_record(pipeline, at);
}

/* The hash of operation `at`, and the two stages before it one further. */
static inline uint64_t next_hash(pipeline_t *pipeline, size_t at)
{
    uint64_t hash = pipeline->hashes[at % RING];
    fetch_group(pipeline, at + 2 * AHEAD);
    fetch_record(pipeline, at + AHEAD);
    return hash;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static int write_one(cake_orswot_t *set, uint64_t wall_ms, const cake_id_t *id, bool is_tombstone, cake_record_t *out,
                     size_t *done)
{
    int err = is_tombstone ? cake_orswot_delete(set, wall_ms, id, out) : cake_orswot_insert(set, wall_ms, id, out);
    *done += err == 0;
    return err;
}

/* Up to PART writes. Stamps are drawn for all of them at once; those of writes that fail are not used. */
static int write_part(cake_orswot_t *set, uint64_t wall_ms, const cake_id_t *ids, size_t count, bool is_tombstone,
                      cake_record_t *out, size_t *done)
{
    pipeline_t pipeline;
    cake_record_t record = {.dot = {set->actor, set->last_seq + 1}, .is_tombstone = is_tombstone};
    cake__actor_dots_t *dots = cake__orswot_extendable(set, record.dot);
    bool is_plain = dots != NULL && set->loading == NULL && set->is_joined && set->last_seq < CAKE_SEQ_MAX - count;
    if (!is_plain || cake_clock_take(set->clock, wall_ms, count, &record.hlc) != 0)
        return write_one(set, wall_ms, ids, is_tombstone, out, done);
    begin(&pipeline, &set->table, ids, count);
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = next_hash(&pipeline, i);
        cake__id_pair_t id = cake__id_pair(&ids[i]);
        record.id = ids[i];
        cake__found_t found = cake__table_look_up(&set->table, id, hash);
        int err = cake__table_upsert_found(&set->table, &record, id, hash, found);
        if (err != 0)
            return err;
        if (out != NULL)
            out[i] = record;
        dots->base = set->last_seq = record.dot.seq++;
        record.hlc++;
        ++*done;
    }
    return 0;
}

static int write_many(cake_orswot_t *set, uint64_t wall_ms, const cake_id_t *ids, size_t count, bool is_tombstone,
                      cake_record_t *out, size_t *done)
{
    int err = 0;
    CAKE_ASSERT(set->change == NULL);
    for (*done = 0; *done < count && err == 0;)
        err = write_part(set, wall_ms, ids + *done, cake__min_u64(count - *done, PART), is_tombstone,
                         out == NULL ? NULL : out + *done, done);
    return err;
}

int cake_orswot_insert_many(cake_orswot_t *set, uint64_t wall_ms, const cake_id_t *ids, size_t count,
                            cake_record_t *out, size_t *done)
{
    return write_many(set, wall_ms, ids, count, false, out, done);
}

int cake_orswot_delete_many(cake_orswot_t *set, uint64_t wall_ms, const cake_id_t *ids, size_t count,
                            cake_record_t *out, size_t *done)
{
    return write_many(set, wall_ms, ids, count, true, out, done);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

size_t cake_orswot_get_many(const cake_orswot_t *set, const cake_id_t *ids, size_t count, cake_record_t *out)
{
    pipeline_t pipeline;
    size_t found = 0;
    begin(&pipeline, &set->table, ids, count);
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = next_hash(&pipeline, i);
        cake__id_pair_t id = cake__id_pair(&ids[i]);
        const uint32_t *entry = cake__table_look_up(&set->table, id, hash).entry;
        out[i] = (cake_record_t){.id = ids[i]};
        if (entry == NULL)
            continue;
        cake__block_read_known(cake__table_block(&set->table, *entry), *entry % CAKE__BLOCK_POSITIONS, &out[i]);
        found++;
    }
    return found;
}
