/* retired.h: actors that write no more, folded into a table that contexts share (rule 8).
 *
 *      context  a: 1..7 9..12     b: 1..3     c: 1..90    d: 1..5           g  b: 2   c: 88
 *                                  └─ b, c, d are of runs that have ended; all replicas have the same of them
 *      context  a: 1..7 9..12  + table #4f1c { b: 3, c: 90, d: 5 }           g  -
 *
 * Every restart takes a new actor (rule 6), so a context grows by an entry per restart, and each message that
 * carries one with it; g grows as well. A tombstone-free set must not pay for its past: an actor whose process is
 * gone, of which all is known everywhere, leaves the list for the table. Two replicas whose tables have the same
 * hash name it by the hash: a thousand restarts are 9 bytes in a message. Copies of a context share the table, so
 * that changes do not pay either.
 *
 * Rule 8. r may fold actor a at seq b when C_r has of a exactly 1..b, without a hole, and each registered replica
 * (as rule 4 has it) has acknowledged all of them. Then a:1..b stays in C, by way of the table, and counts as
 * dropped: g[a] = b.
 *
 * Why it is sound, whatever else happens. C is the same set of dots as before, so no check that looks at C can
 * tell. g only grows; G is an over-approximation at any time (model, "Why it is sound"): it makes the checks "G in
 * C" stricter and erases nothing, so that even folding too early, or an actor that lives, costs repair sessions and
 * not a write. If a dot above b turns up after all, the actor is listed again, beside its entry, which stands for
 * g[a]. Why it costs no repair: G_r in C_z asks a peer for a:1..b, and every registered replica has it durably. Who
 * was away is not registered any more: it has perhaps not all of a:1..b, or a hole there. Then "G_r in C_z" fails
 * and it comes back by a repair, as after any drop that it missed, where each of its records is compared: what z
 * has seen and no longer holds is killed (the table says that z has seen it), what z never saw is written anew. So
 * nothing revives and nothing is lost. Why the entries are kept for ever (16 bytes per restart, on each replica):
 * without the number of the actor a replica could not tell a record that it has seen and deleted from one it never
 * saw; actors are random, and nothing shorter is exact.
 *
 * Joining (FIN) takes the union of both tables, of two entries of an actor the greater one: both are in C and in G
 * of the union. Invariants: sorted by actor, seq >= 1, count >= 1; never changed once shared; a context lists an
 * actor of its table only with more dots than the entry has. */
#ifndef CAKE_CRDT_RETIRED_H
#define CAKE_CRDT_RETIRED_H

#include "base/bytes.h"

#define CAKE__RETIRED_MAX 1048576u /* of a received table */

typedef struct cake__retired {
    uint32_t references; /* atomic: contexts may be copied on any thread */
    uint32_t count;
    uint64_t hash; /* names the table; never 0 */
    uint64_t sum;  /* of what its actors add to the hash of a context */
    const cake_alloc_t *alloc;
    struct cake__retired_entry {
        uint64_t actor, seq;
    } entries[];
} cake__retired_t;

/* NULL is the empty table everywhere. */
cake__retired_t *cake__retired_share(cake__retired_t *table);
void cake__retired_release(cake__retired_t *table);
bool cake__retired_same(const cake__retired_t *a, const cake__retired_t *b);
uint64_t cake__retired_seq(const cake__retired_t *table, uint64_t actor); /* 0: not in it */

/* A new one from sorted entries, and the union of two; *out is to be released. 0 or CAKE_ENOMEM. */
int cake__retired_new(const cake_alloc_t *alloc, const struct cake__retired_entry *entries, uint32_t count,
                      cake__retired_t **out);
int cake__retired_union(const cake_alloc_t *alloc, cake__retired_t *a, cake__retired_t *b, cake__retired_t **out);

/* varint count; per entry: actor u64, varint seq. Reading: CAKE_EPARSE, CAKE_ETOOBIG, CAKE_ENOMEM; count >= 1. */
void cake__retired_encode(const cake__retired_t *table, cake__buf_t *out);
int cake__retired_decode(const cake_alloc_t *alloc, cake__reader_t *reader, cake__retired_t **out);

/* What the run 1..seq of an actor adds to the hash of a context. */
uint64_t cake__actor_hash(uint64_t actor, uint64_t base);

#endif
