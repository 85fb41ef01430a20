/* context.h: sets of dots (C of the model), per actor limits (g) and the summary {C, g, H} that sessions exchange.
 *
 *      actor a:  base 7, ranges (9..12) (20..20)    =  a:1..7, a:9..12, a:20
 *      actor b:  base 0, ranges (5..5)              =  b:5
 *
 * Actors that have retired are in a table beside the list. An actor that is in both is as the list says.
 *
 * Invariants: actors sorted by number; ranges sorted, disjoint, not adjacent, all above base + 1; no actor without
 * dots; one that is listed and in the table has more dots than the table says. So equal sets with equal tables have
 * equal representations and encodings; equal sets have equal hashes whatever is in the tables. */
#ifndef CAKE_CRDT_CONTEXT_H
#define CAKE_CRDT_CONTEXT_H

#include <datacake/key.h>

#include "crdt/retired.h"

typedef struct cake__run {
    uint64_t first, last;
} cake__run_t;

typedef struct cake__actor_dots {
    uint64_t actor, base;
    cake__run_t *ranges;
    uint32_t range_count, range_capacity;
} cake__actor_dots_t;

typedef struct cake__context {
    cake__actor_dots_t *actors;
    uint32_t count, capacity;
    cake__retired_t *retired; /* more actors; NULL: none (retired.h) */
    uint64_t reference;       /* hash of the table that belongs here, until it is resolved; else 0 */
    const cake_alloc_t *alloc;
} cake__context_t;

#define CAKE__CONTEXT_ACTORS_MAX 65536u   /* of a received one */
#define CAKE__CONTEXT_RUNS_MAX   1048576u /* likewise, of all actors */

void cake__context_init(cake__context_t *context, const cake_alloc_t *alloc);
void cake__context_free(cake__context_t *context); /* leaves an empty one */
void cake__context_swap(cake__context_t *a, cake__context_t *b);
/* The following return 0 or CAKE_ENOMEM, and then changed nothing. */
int cake__context_copy(cake__context_t *to, const cake__context_t *from);
int cake__context_add(cake__context_t *context, cake_dot_t dot);
int cake__context_add_run(cake__context_t *context, uint64_t actor, uint64_t first, uint64_t last);
int cake__context_join(cake__context_t *context, const cake__context_t *other);

bool cake__context_is_empty(const cake__context_t *context);
bool cake__context_contains(const cake__context_t *context, cake_dot_t dot);
bool cake__context_covers(const cake__context_t *context, const cake__context_t *other); /* other is a subset */
bool cake__context_equal(const cake__context_t *a, const cake__context_t *b);
uint64_t cake__context_base(const cake__context_t *context, uint64_t actor);
uint64_t cake__context_highest(const cake__context_t *context, uint64_t actor);
uint64_t cake__context_count(const cake__context_t *context); /* dots */
uint64_t cake__context_hash(const cake__context_t *context);  /* 0 for the empty one; the same on every machine */

/* All runs in order of (actor, first), the base as run 1..base; false at the end. Start with a zeroed cursor. */
typedef struct cake__context_cursor {
    uint32_t actor_index, range_index; /* range_index 0: the base */
    uint32_t retired_index;
} cake__context_cursor_t;
bool cake__context_next(const cake__context_t *context, cake__context_cursor_t *cursor, uint64_t *actor,
                        cake__run_t *run);

/* What one actor has, *spare filled in from the table where needed; NULL when there is nothing. */
const cake__actor_dots_t *cake__context_view(const cake__context_t *context, uint64_t actor, cake__actor_dots_t *spare);
/* What the list alone has of it. */
const cake__actor_dots_t *cake__context_find(const cake__context_t *context, uint64_t actor);
/* The actors, each once, in no order that means something: *index from 0 on; NULL at the end. */
const cake__actor_dots_t *cake__context_actor(const cake__context_t *context, uint32_t *index,
                                              cake__actor_dots_t *spare);
bool cake__actor_dots_contain(const cake__actor_dots_t *dots, uint64_t first, uint64_t last); /* all of first..last */
uint64_t cake__actor_dots_highest(const cake__actor_dots_t *dots);
/* The first run of seqs >= from that `have` has and `lacking` (NULL: nothing) has not; false when there is none. */
bool cake__actor_dots_gap(const cake__actor_dots_t *have, const cake__actor_dots_t *lacking, uint64_t from,
                          cake__run_t *gap);

/* g: per actor the greatest seq of a dropped tombstone. Sorted by actor. */
typedef struct cake__limits {
    struct cake__limit {
        uint64_t actor, seq;
    } * items;
    uint32_t count, capacity;
    const cake_alloc_t *alloc;
} cake__limits_t;

void cake__limits_init(cake__limits_t *limits, const cake_alloc_t *alloc);
void cake__limits_free(cake__limits_t *limits);
int cake__limits_copy(cake__limits_t *to, const cake__limits_t *from);
int cake__limits_reserve(cake__limits_t *limits); /* the next raise of a new actor cannot fail */
int cake__limits_raise(cake__limits_t *limits, uint64_t actor, uint64_t seq);
int cake__limits_join(cake__limits_t *limits, const cake__limits_t *other);
uint64_t cake__limits_get(const cake__limits_t *limits, uint64_t actor);

/* G of {context, limits} is a subset of `other`; computed without building G. */
bool cake__dropped_is_covered(const cake__context_t *context, const cake__limits_t *limits,
                              const cake__context_t *other);

/* {C, g, H} of one replica at one instant. */
/* Of the table of a context too. */
typedef struct cake__summary {
    cake__context_t context;
    cake__limits_t dropped;
    uint64_t horizon;
} cake__summary_t;

void cake__summary_init(cake__summary_t *summary, const cake_alloc_t *alloc);
void cake__summary_free(cake__summary_t *summary);
int cake__summary_copy(cake__summary_t *to, const cake__summary_t *from);
uint64_t cake__summary_dropped(const cake__summary_t *summary, uint64_t actor); /* g[actor], the table included */
/* Limits that the table says as well are left out. */
void cake__summary_prune(cake__summary_t *summary);

/* Rule 8: folds the actors that are not among the living and of which all peers (NULL elements permit everything) have
 * exactly what C has. *count: how many. 0 or CAKE_ENOMEM, and then nothing changed. */
int cake__summary_retire(cake__summary_t *summary, const uint64_t *living, size_t living_count,
                         const cake__context_t *const *peers, size_t peer_count, size_t *count);

/* A context that was read with a reference gets its table, if this is the one. CAKE_ECONFLICT: it is another;
 * CAKE_EPARSE: they do not go together. One without a reference is as it is. */
int cake__context_resolve(cake__context_t *context, cake__retired_t *table);

/* Canonical and versioned. Reading checks every invariant above: CAKE_EPARSE, CAKE_ETOOBIG, CAKE_EVERSION or
 * CAKE_ENOMEM, *out empty. *out must be initialised. */
void cake__context_encode(const cake__context_t *context, cake__buf_t *out);
/* known: the hash of a table that the reader has (0: none). If it is this one, a reference takes its place. */
void cake__context_encode_known(const cake__context_t *context, uint64_t known, cake__buf_t *out);
void cake__summary_encode_known(const cake__summary_t *summary, uint64_t known, cake__buf_t *out);
int cake__context_decode(cake__context_t *out, cake__reader_t *reader);
void cake__summary_encode(const cake__summary_t *summary, cake__buf_t *out);
int cake__summary_decode(cake__summary_t *out, cake__reader_t *reader);

#endif
