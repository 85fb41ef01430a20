/* table.h: the records of a set, found by id and by dot, in blocks.
 *
 *      lanes (sorted by actor)          blocks of one actor, by first seq                 index: id ──> block, position
 *      [ a | b | c ]  ──> b: [1..1024][1025..2048][5000..]
 *
 * A record is staged (occupies a position, cannot be found), then published, which takes its predecessor away;
 * publishing and erasing need no memory. So a change can be prepared, made durable, and then take effect without a
 * way to fail.
 *
 * Invariants: at most one present record per id, and every present record is found by the index; blocks of a lane
 * cover disjoint ranges of seqs in order; live, tombstones, fingerprint are those of the present records. */
#ifndef CAKE_CRDT_TABLE_H
#define CAKE_CRDT_TABLE_H

#include "crdt/block.h"
#include "crdt/context.h"
#include "crdt/index.h"

typedef struct cake__lane {
    uint64_t actor;
    struct cake__lane_entry {
        uint64_t first;
        uint32_t block;
    } * entries;
    uint32_t count, capacity;
    uint32_t spare;            /* places before entries, of those that were taken out there */
    uint32_t first_tombstones; /* no entry below it has tombstones */
    uint64_t tombstones;
} cake__lane_t;

typedef struct cake__table {
    cake__lane_t *lanes;
    uint32_t lane_count, lane_capacity;
    uint32_t lane_hint;    /* the lane used last */
    cake__block_t **heads; /* of blocks: 1, 2, 4, 8 ... of them, which stay where they are */
    uint32_t head_lists;
    uint32_t block_count; /* numbers given so far */
    uint32_t free_count,
        free_number; /* of them to be used again: the last one; the one before is in `first` of its head */
    cake__index_t index;
    uint64_t seed; /* of the hashes of the index; never leaves the process */
    uint64_t live, tombstones, fingerprint;
    uint64_t untidied; /* records taken out since cake__table_tidy looked at the index */
    size_t bytes;
    const cake_alloc_t *alloc;
} cake__table_t;

void cake__table_init(cake__table_t *table, const cake_alloc_t *alloc, uint64_t seed);
void cake__table_free(cake__table_t *table);

/* The slot of the present record, or CAKE__SLOT_NONE. Valid until something is staged, published or erased. */
uint32_t cake__table_find(const cake__table_t *table, const cake_id_t *id);
void cake__table_read(const cake__table_t *table, uint32_t slot, cake_record_t *out);
/* The same in one: false when there is none. */
bool cake__table_get(const cake__table_t *table, const cake_id_t *id, cake_record_t *out);
/* Fetch ahead what a search will read: its part of the index and, once that is there, the record. */
void cake__table_prefetch(const cake__table_t *table, const cake_id_t *id);
void cake__table_prefetch_record(const cake__table_t *table, const cake_id_t *id);
cake__lane_t *cake__table_find_lane(const cake__table_t *table, uint64_t actor); /* NULL when there is none */

/* 0 or CAKE_ENOMEM and no change. The dot must not be staged or present yet: CAKE_EDUPLICATE. is_new: no record of
 * this id is present, now and when it is published. */
int cake__table_stage(cake__table_t *table, const cake_record_t *record, bool is_new);
void cake__table_unstage(cake__table_t *table, cake_dot_t dot);
void cake__table_publish(cake__table_t *table, const cake_record_t *record, bool is_new);
void cake__table_erase(cake__table_t *table, uint32_t slot);
/* Both at once for a record whose predecessor is in slot `old`, or CAKE__SLOT_NONE. 0, CAKE_ENOMEM, CAKE_EDUPLICATE. */
int cake__table_put(cake__table_t *table, const cake_record_t *record, uint32_t old);
int cake__table_upsert(cake__table_t *table, const cake_record_t *record); /* the same, whatever is there */

/* Present records of one actor with first <= seq <= last in order; at most limit. */
size_t cake__table_select(const cake__table_t *table, uint64_t actor, uint64_t first, uint64_t last,
                          cake_record_t *records, size_t limit);

/* All present records in order of (actor, seq). Start with {0, 0, 0}; false at the end. The table must not change. */
typedef struct cake__table_cursor {
    uint32_t lane, entry;
    uint32_t skip; /* seqs of the block that are done */
} cake__table_cursor_t;
size_t cake__table_next(const cake__table_t *table, cake__table_cursor_t *cursor, cake_record_t *records, size_t limit);

/* hlc of the oldest tombstone of a lane (its first by seq); 0 when there is none. */
cake_hlc_t cake__lane_oldest_tombstone(const cake__table_t *table, cake__lane_t *lane);

/* Takes out the tombstones of a lane with seq <= last and hlc <= newest, oldest first, at most limit. */
typedef struct cake__sweep {
    uint64_t last;
    cake_hlc_t newest;
    size_t limit;
    bool stops_early; /* behind the first block with one that is newer: stamps of an actor go up with its seqs */
    cake_id_t *ids;   /* not NULL: only list them here, and take nothing out */
    uint64_t max_seq; /* out: of those taken */
    cake_hlc_t max_hlc;
    size_t count;
    bool has_newer; /* out: than `newest` */
} cake__sweep_t;
void cake__table_sweep(cake__table_t *table, cake__lane_t *lane, cake__sweep_t *sweep);
/* After `count` records were taken out: gives back memory of the index in steps of some ten microseconds, about one
 * for each CAKE__TIDY_EVERY of them, and a few more if has_time. */
#define CAKE__TIDY_EVERY      1024u
#define CAKE__TIDY_IDLE_STEPS 4u
#define CAKE__TIDY_STEPS_MAX  4u /* in one call; the rest in later ones */
void cake__table_tidy(cake__table_t *table, uint64_t count, bool has_time);

uint64_t cake__fingerprint_of(cake__id_pair_t id, cake_dot_t dot);
size_t cake__table_bytes(const cake__table_t *table);
void cake__table_check(cake__table_t *table); /* asserts every invariant; for tests; O(records) */

#endif
