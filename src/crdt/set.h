/* set.h: the struct behind cake_orswot_t, and an open change of it. Files of this layer only.
 *
 *      table     the records                        summary   {C, g, H}
 *      inbound   the sessions past WELCOME that this set receives
 *      change    the one that is open, or NULL: it reads through its overlay, and only commit writes here
 *
 * Invariants between changes: I1 and I2 of the model; the clock is at or above H and every hlc held. */
#ifndef CAKE_CRDT_SET_H
#define CAKE_CRDT_SET_H

#include "base/list.h"
#include "crdt/mutant.h"
#include "crdt/replica.h"
#include "crdt/session.h"
#include "crdt/table.h"

/* How finely repairs compare, and how much they do at a time. Tests make them small. */
typedef struct cake__repair_limits {
    uint32_t leaf_records; /* of a finest range, about */
    uint32_t least_bits;   /* of the finest ranges */
    uint32_t few_records;  /* a range with at most so many of r is not split: r asks about their ids */
    uint32_t step_records; /* read in one step: a walk of 10M ids into 2^20 ranges misses the cache each time */
    uint32_t step_drops;   /* of the end in one change: tombstones dropped; what it may hold before */
} cake__repair_limits_t;

#define CAKE__REPAIR_LIMITS                                                                                            \
    (cake__repair_limits_t)                                                                                            \
    {                                                                                                                  \
        .leaf_records = 16, .least_bits = 0, .few_records = 4, .step_records = 2048, .step_drops = 512                 \
    }

struct cake_orswot {
    const cake_alloc_t *alloc;
    cake_clock_t *clock, own_clock;
    uint64_t actor, last_seq;
    uint64_t epoch; /* counts everything that erases a record or raises g or H */
    bool is_joined;
    struct cake__loading *loading; /* records that are not placed yet, or NULL */
    cake__table_t table;
    cake__summary_t summary;
    uint32_t actor_hint; /* of C: the actor written last */
    cake__list_t inbound;
    cake__change_t *change;
    cake__repair_limits_t repair;
    bool sends_whole_table; /* of retired actors, in HELLO: the last WELCOME was of a set with another */
};

/* Rule 6: the dots of the records found in storage belong to C. 0, CAKE_ENOMEM (may be tried again), or
 * CAKE_ECORRUPT: two records with one dot. */
typedef struct cake__loading cake__loading_t;
int cake__orswot_finish_loading(cake_orswot_t *set);
void cake__loading_free(cake_orswot_t *set);

bool cake__beats(const cake_record_t *operation, const cake_record_t *current);
uint64_t cake__orswot_eager_floor(const cake_orswot_t *set, uint64_t horizon);
int cake__orswot_next_hlc(cake_orswot_t *set, uint64_t wall_ms, cake_hlc_t *out);
bool cake__orswot_is_too_far_ahead(const cake_orswot_t *set, uint64_t wall_ms, cake_hlc_t hlc);
bool cake__dot_is_valid(cake_dot_t dot);
/* Not NULL: adding this dot to C cannot fail, because it extends the last run of a known actor, which this is. */
cake__actor_dots_t *cake__orswot_extendable(cake_orswot_t *set, cake_dot_t dot);

/* What rule 2 says, given what is there. current: NULL when there is none. */
cake_verdict_t cake__orswot_verdict(const cake_orswot_t *set, uint64_t wall_ms, const cake__summary_t *summary,
                                    const cake_record_t *operation, const cake_record_t *current, cake_source_t source);

/* Rule 4: the greatest seq up to which all dots of C of this actor are known to every peer. */
uint64_t cake__stable_seq(const cake__context_t *context, uint64_t actor, const cake__purge_t *policy);
/* Calls back with the sweeps that the policy allows for one lane: those without holes, then those past the hole age. */
uint32_t cake__stable_sweeps(const cake__context_t *context, uint64_t actor, const cake__purge_t *policy,
                             uint64_t wall_ms, cake__sweep_t sweeps[2]);

/* ---- an open change ---------------------------------------------------------------------------------------------- */

/* What the change says about an id: the row it puts, that it erases the row, or that there is none after all. */
typedef struct cake__overlay_entry {
    cake_id_t id;
    uint16_t state; /* 0: empty slot of the map */
    bool has_row;   /* the set has a record of this id */
    uint32_t at;    /* index in puts or erases */
} cake__overlay_entry_t;

enum { CAKE__OVERLAY_EMPTY, CAKE__OVERLAY_PUT, CAKE__OVERLAY_ERASED, CAKE__OVERLAY_ABSENT };

struct cake__change {
    cake_orswot_t *set;
    uint64_t wall_ms;
    cake__summary_t summary; /* a copy, once something changes it */
    bool has_summary, joins, has_failed;
    uint64_t last_seq, epoch_steps;
    cake__staged_t *puts;
    size_t put_count, put_capacity;
    cake_id_t *erases;
    size_t erase_count, erase_capacity;
    cake__overlay_entry_t *overlay; /* open addressing, at most half full, never shrinks */
    size_t overlay_count, overlay_capacity;
    cake__reissue_t *reissues;
    size_t reissue_count, reissue_capacity;
    cake__list_t receivers; /* sessions that staged something here */
};

/* Room for one more element in an array of a change or of a session; false: no memory. */
static inline bool cake__reserve(const cake_alloc_t *alloc, void **items, size_t count, size_t *capacity, size_t size)
{
    void *grown = cake__grow(alloc, *items, count, capacity, size);
    if (grown != NULL)
        *items = grown;
    return grown != NULL;
}

cake__summary_t *cake__change_own_summary(cake__change_t *change);    /* to be written to; NULL: no memory */
int cake__change_erase(cake__change_t *change, const cake_id_t *id);  /* one that the change finds */
int cake__change_expect_erases(cake__change_t *change, size_t count); /* room for so many, at once */
int cake__change_note_dropped(cake__change_t *change, const cake_record_t *record);
int cake__change_add_dot(cake__change_t *change, cake_dot_t dot);
/* Rule 5. CAKE_EDRIFT: refused, and the session must not finish. */
int cake__change_reissue(cake__change_t *change, const cake_record_t *old, void *tag, bool came_from_sender);
/* C, g and H of a FIN. */
int cake__change_join(cake__change_t *change, const cake__summary_t *summary);

/* The receiver's side, for the change that carries it. */
void cake__receiver_change_ended(cake__list_t *node, bool is_committed);
uint64_t cake__receiver_floor(const cake__list_t *inbound_node); /* H_z of a running repair, else 0 */

#endif
