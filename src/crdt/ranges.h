/* ranges.h: fingerprints of live records by ranges of ids, for repairs (rule 5) and for comparing replicas.
 *
 *      id ──hash──> position, 64 bits        range (bits, index): the positions whose upper `bits` bits are `index`
 *
 *      bits 0   [            all             ]      each range is the sum of its 16 parts: count, and fingerprints
 *      bits 4   [0 | 1 | 2 | 3 | ...      | f]      added up without order
 *      bits 8   [00|01|..|0f|10|...        |ff]     ... down to the leaves, some 16 records each, at most 2^20 of them
 *
 * Why it is computed by a walk and not kept: an order by id, or a tree that follows every write, would cost 8 to 16
 * bytes per entry and a cache miss per write, for something that is needed once after a long absence. A walk costs
 * some 30 ns per record, is done in steps of bounded length between other work, and needs 12 B per range while the
 * repair runs. By the hash of the id and not by the id: ranges of equal size hold about equally many, whatever the
 * keys look like.
 *
 * The walk goes through the dots of a context in order, not through blocks: a record has one dot for ever, so none
 * is passed over or counted twice while the set changes, repacks and grows underneath. What is written meanwhile
 * has newer dots and does not take part; what it replaced may have been counted or not. So two equal sums say: the
 * other side held each of these records at some instant since the walk began (up to a collision of 64 bits);
 * unequal ones say nothing.
 *
 * Invariants: bits is a multiple of 4; the sum of a range is that of its parts; pages are there for all ranges of
 * more than 8 bits, or none of them and the walk has not begun. */
#ifndef CAKE_CRDT_RANGES_H
#define CAKE_CRDT_RANGES_H

#include "crdt/session.h"
#include "crdt/table.h"

#define CAKE__RANGE_TOP   273u /* ranges of 0, 4 and 8 bits */
#define CAKE__RANGE_PAGES 256u /* one for each range of 8 bits: what is below it */

typedef struct cake__ranges {
    uint32_t bits; /* of the leaves */
    uint32_t page_count;
    uint64_t top_sums[CAKE__RANGE_TOP];
    uint32_t top_counts[CAKE__RANGE_TOP];
    struct cake__range_page {
        uint64_t *sums;
        uint32_t *counts; /* behind the sums */
    } pages[CAKE__RANGE_PAGES];
    const cake_alloc_t *alloc;
} cake__ranges_t;

static inline uint64_t cake__range_position(cake__id_pair_t id)
{
    return cake__mix64(id.low ^ cake__mix64(id.high + UINT64_C(0x9e3779b97f4a7c15)));
}

static inline uint32_t cake__range_index(uint64_t position, uint32_t bits)
{
    return bits == 0 ? 0 : (uint32_t)(position >> (64 - bits));
}

/* The least bits at which a leaf has about this many records. */
uint32_t cake__range_bits_for(uint64_t records, uint32_t leaf_records);

void cake__ranges_init(cake__ranges_t *ranges, const cake_alloc_t *alloc, uint32_t bits);
void cake__ranges_free(cake__ranges_t *ranges);
/* Memory for the ranges, a part of it per call. 0 or CAKE_ENOMEM (may be tried again). */
int cake__ranges_prepare(cake__ranges_t *ranges, bool *has_more);
void cake__ranges_add(cake__ranges_t *ranges, const cake_record_t *record);
uint64_t cake__ranges_sum(const cake__ranges_t *ranges, uint32_t bits, uint32_t index);
uint32_t cake__ranges_count(const cake__ranges_t *ranges, uint32_t bits, uint32_t index);
size_t cake__ranges_bytes(const cake__ranges_t *ranges);

/* ---- walks ------------------------------------------------------------------------------------------------------- */

#define CAKE__WALK_PART 1024u /* records read in a row: a block */

/* All records whose dots are in `dots`, which must not change meanwhile, in order of (actor, seq). The table may change
 * between steps. */
typedef struct cake__walk {
    const cake__context_t *dots;
    cake__context_cursor_t cursor;
    uint64_t actor;
    cake__run_t run; /* what is left of it; first > last: nothing */
    cake_record_t *records;
    const cake_alloc_t *alloc;
} cake__walk_t;

int cake__walk_init(cake__walk_t *walk, const cake_alloc_t *alloc, const cake__context_t *dots);
void cake__walk_free(cake__walk_t *walk);
/* The next records, at most CAKE__WALK_PART, perhaps none; they are walk->records. False at the end. */
bool cake__walk_next(cake__walk_t *walk, const cake__table_t *table, size_t *count);

/* The ranges that both sides of a repair compare: of the live records at or below H_z whose dots are in C_r as of
 * HELLO and in C_z as of WELCOME. What only one side has seen is not in them: it would make them differ, and takes
 * part as a chunk, or is asked about by its id. */
typedef struct cake__range_build {
    cake__ranges_t ranges;
    cake__walk_t walk;
    const cake__context_t *within;
    cake_hlc_t horizon;
    uint64_t actor; /* whose dots `lane` are, once has_actor */
    bool has_actor, is_prepared, is_done;
    const cake__actor_dots_t *lane;
    cake__actor_dots_t spare;
} cake__range_build_t;

/* Both contexts must stay as they are. */
int cake__range_build_init(cake__range_build_t *build, const cake_alloc_t *alloc, uint32_t bits,
                           const cake__context_t *walked, const cake__context_t *within, cake_hlc_t horizon);
void cake__range_build_free(cake__range_build_t *build); /* also for a zeroed one */
/* About `records` of them; is_done at the end. 0 or CAKE_ENOMEM. */
int cake__range_build_step(cake__range_build_t *build, const cake__table_t *table, size_t records);

#endif
