/* replica.h: the rules of one replica of one keyspace, for the store: changes that are decided first, made durable
 * by the caller, and only then take effect.
 *
 *      begin ──> stage operations, session messages, drops ──> persist what the change lists ──> commit
 *                                                                         └─ storage failed ──> abort
 *
 * A change is decided against the set as it stands plus what the change itself has staged so far, so a batch of a
 * hundred operations on one key ends as one row. Until commit the set answers as before; abort leaves it as it was.
 * So memory equals storage after every batch, the durable context of the model IS the context, and its
 * flush/barrier rules (6) hold because rows, C, g and H travel in one atomic batch.
 *
 * When it is not known whether a batch became durable (a commit that failed half-way), neither commit nor abort is
 * right: abort, free the set, and load it again from storage under a new actor. A new actor alone is not enough:
 * rows that were put or erased without the memory knowing could be overwritten by an older write.
 *
 * One change per set at a time. Nothing here blocks, does I/O, or reads a clock: wall_ms is passed in. All functions
 * that return int: 0 or CAKE_ENOMEM unless more is said; after CAKE_ENOMEM the set is unchanged and the change can only
 * be aborted. Not thread-safe: one owner (the loop thread). */
#ifndef CAKE_CRDT_REPLICA_H
#define CAKE_CRDT_REPLICA_H

#include <datacake/orswot.h>

#include "crdt/context.h"

/* ---- settings of the set beyond the public configuration live in cake_orswot_config_t (orswot.h) ----------------- */

/* ---- loading: before the first change -------------------------------------------------------------------------------
 * Records found in storage, in any order, then the stored summary (may be absent). Rule 6: the dots of the records are
 * added to C. They are placed at load_summary, or at the first change or session: about 0.3 us each, and 80 B of memory
 * until then. load_record: CAKE_EINVAL for a dot that cannot be. load_summary and the first begin: CAKE_ECORRUPT when
 * two records have one dot. */
int cake__orswot_load_record(cake_orswot_t *set, const cake_record_t *record);
int cake__orswot_load_summary(cake_orswot_t *set, const cake__summary_t *summary);
void cake__orswot_set_joined(cake_orswot_t *set, bool is_joined);

/* At start, and when an actor may have been used by another run: later local writes are of this actor, from seq 1. */
void cake__orswot_take_actor(cake_orswot_t *set, uint64_t actor);

/* ---- reading ----------------------------------------------------------------------------------------------------- */
const cake__summary_t *cake__orswot_summary(const cake_orswot_t *set);
uint64_t cake__orswot_epoch(const cake_orswot_t *set);
bool cake__orswot_is_joined(const cake_orswot_t *set);
/* As cake_orswot_diff, for a context alone: records whose dots are not in it. A set that is being loaded: none. */
size_t cake__orswot_unseen(const cake_orswot_t *set, const cake__context_t *seen, cake_orswot_cursor_t *cursor,
                           cake_record_t *records, size_t limit);

/* ---- changes ----------------------------------------------------------------------------------------------------- */
typedef struct cake__change cake__change_t;

/* One row to be written. tag is what the caller gave with the operation, to find key and value again. */
typedef struct cake__staged {
    cake_record_t record;
    void *tag;
    bool is_new; /* there is no row of this id yet */
} cake__staged_t;

int cake__change_begin(cake_orswot_t *set, uint64_t wall_ms, cake__change_t **out);

/* Rule 1. Stamps a write of our own; *out is the finished record. CAKE_EDRIFT: refused, try again later;
 * CAKE_ENOTJOINED: rule 7; CAKE_ETOOBIG: the actor has used up its seqs, take another. The change goes on. */
int cake__change_write(cake__change_t *change, const cake_id_t *id, bool is_tombstone, void *tag, cake_record_t *out);

/* Rule 2: a single operation from elsewhere. *verdict: what became of it. Acknowledge it exactly when the dot is in
 * cake__change_context() afterwards. (The error is CAKE_ENOMEM only.) */
int cake__change_receive(cake__change_t *change, const cake_record_t *record, cake_source_t source, void *tag,
                         cake_verdict_t *verdict);

/* Rule 4, by policy: drops up to max_count tombstones that are stable, in bounded time; of each actor the oldest first.
 * peers: the context each known replica has acknowledged; a NULL element is one that permits everything (silent for too
 * long). */
typedef struct cake__purge {
    const cake__context_t *const *peers;
    size_t peer_count;
    uint64_t min_age_ms, hole_age_ms;
    size_t max_count;
} cake__purge_t;
int cake__change_purge(cake__change_t *change, const cake__purge_t *policy, size_t *dropped);
/* Rule 4, forced: safe at any time, at the price of repair sessions. Ids without a tombstone are passed over. */
int cake__change_drop(cake__change_t *change, const cake_id_t *ids, size_t count);

/* Rule 8 (retired.h): folds the actors of which all peers have acknowledged exactly what C has. living: the actors
 * that may still write, that of this set included; one left out by mistake costs repair sessions later, not a
 * write. peers: as in cake__purge_t; NULL elements (silent for too long) are passed over, and come back by a
 * repair. *count: how many were folded. O(listed actors * (living + peers)). When: now and then, after a restart
 * anywhere, or never. */
int cake__change_retire(cake__change_t *change, const uint64_t *living, size_t living_count,
                        const cake__context_t *const *peers, size_t peer_count, size_t *count);

/* The record of a key as the change stands, live or dead; *tag (may be NULL) is that of a staged one. */
bool cake__change_find(const cake__change_t *change, const cake_id_t *id, cake_record_t *out, void **tag);

/* What must become durable, in one atomic batch, before commit:
 * the winning rows (one per id at most), the rows to erase, and {C, g, H} as it will be, when is_dirty. */
const cake__staged_t *cake__change_puts(const cake__change_t *change, size_t *count);
const cake_id_t *cake__change_erases(const cake__change_t *change, size_t *count);
const cake__summary_t *cake__change_summary(const cake__change_t *change);
bool cake__change_is_dirty(const cake__change_t *change); /* something would change */
bool cake__change_joins(const cake__change_t *change);    /* the set becomes joined with this commit (rule 7) */
const cake__context_t *cake__change_context(const cake__change_t *change);

/* The reissues of rule 5 that the change holds: each is also among the puts, unless something newer took its place.
 * Valid until the change ends. For statistics, and to know which puts are writes of our own. */
typedef struct cake__reissue {
    cake_record_t old, made;
    bool dot_was_seen, came_from_sender;
} cake__reissue_t;
const cake__reissue_t *cake__change_reissues(const cake__change_t *change, size_t *count);

void cake__change_commit(cake__change_t *change); /* cannot fail: everything was allocated before; frees the change */
/* Sessions that staged something in the change are aborted too. Frees the change. NULL allowed. */
void cake__change_abort(cake__change_t *change);
int cake__change_end(cake__change_t *change, int err); /* commits for 0, aborts else; gives err back */

/* ---- the stability bookkeeping ----------------------------------------------------------------------------------- */
/* hlc of the oldest tombstone: when it pays to try a purge; 0 when there is none */
cake_hlc_t cake__orswot_oldest_tombstone(const cake_orswot_t *set);

#endif
