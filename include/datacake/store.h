/* datacake/store.h: keyspaces of documents, kept on every node of the cluster, last writer wins by hybrid logical
 * clock.
 *
 *   cake_storage_t *storage;
 *   cake_store_t *store;
 *   cake_sqlite_open("data", NULL, &storage);
 *   cake_store_open(node, storage, NULL, &store);
 *   cake_store_put(store, "users", cake_key_str("ada"), "1815", 4, CAKE_QUORUM);
 *
 * Any thread. Calls that wait return CAKE_EDEADLK on the node's loop thread: use their _async twins there, whose
 * callbacks come on the loop, exactly once, never inside the call, unless the call itself returned an error (then
 * never).
 *
 * Errors of all calls that take them: CAKE_EINVAL (keyspace name, key, level), CAKE_ETOOBIG (value), CAKE_ENOMEM,
 * CAKE_ECLOSED. Writes: CAKE_ENOTENOUGHNODES (nothing was written; also at a node with seeds that has never met a
 * majority of the replicas), CAKE_ECONSISTENCY (written here, level not reached in time; it stays and goes on
 * replicating), CAKE_ENOTJOINED (this node is catching up for the first time), CAKE_EDUPLICATE (another process has
 * this node's id: cake_node_is_duplicate), CAKE_EDRIFT (the cluster's clock is too far ahead of this machine's),
 * CAKE_EBUSY (too much is under way): after those nothing was written. And what the storage says (CAKE_ENOSPC,
 * CAKE_EIO...): nothing was written here, but a write with a level, and those that the storage takes together with
 * it, are sent to the others meanwhile, and may turn up from there. */
#ifndef DATACAKE_STORE_H
#define DATACAKE_STORE_H

#include <datacake/node.h>
#include <datacake/storage.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cake_store cake_store_t;

/* Zero: the default in parentheses. */
typedef struct cake_store_options {
    size_t size;
    uint64_t timeout_ms;           /* (2,000) to reach a consistency level */
    uint64_t batch_interval_ms;    /* (100) writes nobody waits for are sent so often */
    size_t batch_bytes;            /* (1 MiB) or when so much has gathered */
    size_t queue_bytes;            /* (64 MiB) per peer; beyond it the peer gets a sync session instead */
    size_t pending_bytes;          /* (256 MiB) of writes waiting for the storage; CAKE_EBUSY beyond */
    size_t max_value_bytes;        /* (16 MiB) */
    uint64_t sync_interval_ms;     /* (10,000) contexts are compared so often even when nothing seems amiss */
    uint64_t join_timeout_ms;      /* (10,000) without a joined replica: this node declares itself joined */
    uint64_t tombstone_min_age_ms; /* (10,000) younger tombstones stay */
    uint64_t hole_age_ms;          /* (3,600,000) a lost write below a tombstone stops holding it up after this */
    uint64_t forget_after_ms;      /* (86,400,000) a replica silent for so long no longer counts */
    uint32_t max_sessions;         /* (8) sync sessions of this node at once, each way */
    uint32_t chunk_records;        /* (1,024, the most) documents in one message of a session */
    bool no_compression; /* (false) messages over 1 KiB are packed (zstd) for peers that do not say this either */
} cake_store_options_t;

#define CAKE_STORE_OPTIONS_INIT CAKE_SIZED(cake_store_options_t)

/* Loads what the storage holds and starts replicating. The storage becomes the store's, which closes it; after an
 * error it is still the caller's. options may be NULL. CAKE_ECONFLICT (the data is of another node id or cluster),
 * CAKE_EDUPLICATE (the node has a store), CAKE_ECORRUPT and other errors of the storage. */
CAKE_API int cake_store_open(cake_node_t *node, cake_storage_t *storage, const cake_store_options_t *options,
                             cake_store_t **store);

/* Calls under way end first (writes with CAKE_ECLOSED where their level is not reached). Before cake_node_stop, or
 * left to it: stopping a node closes its store. NULL allowed. CAKE_EDEADLK on the loop. */
CAKE_API int cake_store_close(cake_store_t *store);

/* ---- results ------------------------------------------------------------------------------------------------------*/
typedef struct cake_result {
    int err;
    cake_hlc_t timestamp; /* writes: of the (last) write; reads: of the document */
    uint32_t live;        /* with CAKE_ENOTENOUGHNODES: replicas that are there */
    uint32_t responses;   /* with CAKE_ECONSISTENCY: replicas that have it */
    uint32_t required;    /* with both: replicas that the level takes */
    uint64_t timeout_ms;  /* with CAKE_ECONSISTENCY */
    cake_doc_t **docs;    /* reads: yours to free each (not the array), NULL where there is none */
    size_t doc_count;
    const char *message; /* never NULL; valid for the call */
} cake_result_t;

/* On the loop. */
typedef void (*cake_done_fn)(const cake_result_t *result, void *arg);

/* The details of the blocking call that failed last on this store, whichever thread made it; docs and message are
 * NULL. */
CAKE_API void cake_store_last_failure(cake_store_t *store, cake_result_t *out);

/* ---- writing ------------------------------------------------------------------------------------------------------*/
typedef struct cake_item {
    cake_key_t key;
    const void *value;
    size_t len;
} cake_item_t;

CAKE_API int cake_store_put(cake_store_t *store, const char *keyspace, cake_key_t key, const void *value, size_t len,
                            cake_consistency_t level);
/* Atomic per replica: each shows all of them or none. At most 65,536 items. CAKE_ETOOBIG above, or
 * above 48 MiB of keys and values. count 0 does nothing. */
CAKE_API int cake_store_put_many(cake_store_t *store, const char *keyspace, const cake_item_t *items, size_t count,
                                 cake_consistency_t level);
/* Also of a key unknown here: it may exist elsewhere. */
CAKE_API int cake_store_del(cake_store_t *store, const char *keyspace, cake_key_t key, cake_consistency_t level);
CAKE_API int cake_store_del_many(cake_store_t *store, const char *keyspace, const cake_key_t *keys, size_t count,
                                 cake_consistency_t level);

/* Writes only if the document here has exactly this timestamp (0: if there is none here). CAKE_ECONFLICT otherwise,
 * with the timestamp found in the result. The check is of this node's own copy, in the same step as the write:
 * between calls on one node it is atomic; of two that run on different nodes at once both may succeed, and the later
 * stamp wins. */
CAKE_API int cake_store_put_if(cake_store_t *store, const char *keyspace, cake_key_t key, const void *value, size_t len,
                               cake_hlc_t expected, cake_consistency_t level);
CAKE_API int cake_store_del_if(cake_store_t *store, const char *keyspace, cake_key_t key, cake_hlc_t expected,
                               cake_consistency_t level);

/* Everything passed in is copied before these return. */
CAKE_API int cake_store_put_async(cake_store_t *store, const char *keyspace, cake_key_t key, const void *value,
                                  size_t len, cake_consistency_t level, cake_done_fn fn, void *arg);
CAKE_API int cake_store_put_many_async(cake_store_t *store, const char *keyspace, const cake_item_t *items,
                                       size_t count, cake_consistency_t level, cake_done_fn fn, void *arg);
CAKE_API int cake_store_del_async(cake_store_t *store, const char *keyspace, cake_key_t key, cake_consistency_t level,
                                  cake_done_fn fn, void *arg);
CAKE_API int cake_store_del_many_async(cake_store_t *store, const char *keyspace, const cake_key_t *keys, size_t count,
                                       cake_consistency_t level, cake_done_fn fn, void *arg);
CAKE_API int cake_store_put_if_async(cake_store_t *store, const char *keyspace, cake_key_t key, const void *value,
                                     size_t len, cake_hlc_t expected, cake_consistency_t level, cake_done_fn fn,
                                     void *arg);
CAKE_API int cake_store_del_if_async(cake_store_t *store, const char *keyspace, cake_key_t key, cake_hlc_t expected,
                                     cake_consistency_t level, cake_done_fn fn, void *arg);

/* ---- reading --------------------------------------------------------------------------------------------------------
 * From this node's own storage, on the caller's thread where the storage allows it. Never waits for other nodes,
 * unless with a level. */
CAKE_API int cake_store_get(cake_store_t *store, const char *keyspace, cake_key_t key,
                            cake_doc_t **doc); /* CAKE_ENOTFOUND */
/* docs: room for count; NULL where there is none. 0 also when some are missing. */
CAKE_API int cake_store_get_many(cake_store_t *store, const char *keyspace, const cake_key_t *keys, size_t count,
                                 cake_doc_t **docs);
/* The newest of the answers of as many replicas as the level takes. CAKE_ENOTFOUND when the newest is a delete. */
CAKE_API int cake_store_get_at(cake_store_t *store, const char *keyspace, cake_key_t key, cake_consistency_t level,
                               cake_doc_t **doc);
CAKE_API int cake_store_get_async(cake_store_t *store, const char *keyspace, cake_key_t key, cake_done_fn fn,
                                  void *arg);
CAKE_API int cake_store_get_at_async(cake_store_t *store, const char *keyspace, cake_key_t key,
                                     cake_consistency_t level, cake_done_fn fn, void *arg);
CAKE_API int cake_store_get_many_async(cake_store_t *store, const char *keyspace, const cake_key_t *keys, size_t count,
                                       cake_done_fn fn, void *arg);

/* Return 0 to go on; anything else ends the scan, which returns it. doc is valid for the call; it must not call the
 * store. */
typedef int (*cake_doc_fn)(void *arg, const cake_doc_t *doc);

/* Live documents in bytewise order of their keys. range may be NULL (all). */
CAKE_API int cake_store_scan(cake_store_t *store, const char *keyspace, const cake_scan_t *range, cake_doc_fn fn,
                             void *arg);
CAKE_API int cake_store_keyspaces(cake_store_t *store, cake_name_fn fn, void *arg); /* ordered by name */

/* ---- a handle bound to a keyspace -----------------------------------------------------------------------------------
 * The same calls without naming it each time. Costs its name; closing it closes nothing else. It must not outlive
 * the store. */
typedef struct cake_keyspace cake_keyspace_t;

CAKE_API int cake_keyspace_open(cake_store_t *store, const char *name, cake_keyspace_t **keyspace); /* writes nothing */
CAKE_API void cake_keyspace_close(cake_keyspace_t *keyspace);                                       /* NULL allowed */
CAKE_API const char *cake_keyspace_name(const cake_keyspace_t *keyspace);
CAKE_API int cake_keyspace_put(cake_keyspace_t *keyspace, cake_key_t key, const void *value, size_t len,
                               cake_consistency_t level);
CAKE_API int cake_keyspace_put_many(cake_keyspace_t *keyspace, const cake_item_t *items, size_t count,
                                    cake_consistency_t level);
CAKE_API int cake_keyspace_del(cake_keyspace_t *keyspace, cake_key_t key, cake_consistency_t level);
CAKE_API int cake_keyspace_del_many(cake_keyspace_t *keyspace, const cake_key_t *keys, size_t count,
                                    cake_consistency_t level);
CAKE_API int cake_keyspace_get(cake_keyspace_t *keyspace, cake_key_t key, cake_doc_t **doc);
CAKE_API int cake_keyspace_get_many(cake_keyspace_t *keyspace, const cake_key_t *keys, size_t count, cake_doc_t **docs);
CAKE_API int cake_keyspace_scan(cake_keyspace_t *keyspace, const cake_scan_t *range, cake_doc_fn fn, void *arg);

/* ---- state --------------------------------------------------------------------------------------------------------*/
typedef struct cake_keyspace_info {
    const char *name;
    uint64_t live, tombstones;
    uint64_t fingerprint; /* of the live documents: equal on replicas that hold the same */
} cake_keyspace_info_t;

typedef void (*cake_keyspace_fn)(void *arg, const cake_keyspace_info_t *info);
CAKE_API int cake_store_keyspace_info(cake_store_t *store, cake_keyspace_fn fn, void *arg); /* ordered by name; waits */

typedef struct cake_peer_info {
    uint16_t node_id;
    bool is_replica; /* counts for quorums */
    uint64_t queued_writes, queued_bytes;
    uint64_t lag_ms;            /* age of the oldest write it has not acknowledged */
    uint64_t last_heard_ms_ago; /* UINT64_MAX: never */
} cake_peer_info_t;

typedef struct cake_store_stats {
    bool is_joined;
    uint64_t keyspaces, live, tombstones, fingerprint; /* the fingerprint over all keyspaces and their names */
    uint64_t writes, writes_failed, reads;
    uint64_t batches_sent, batches_received, batches_failed, batch_bytes_sent, writes_received;
    uint64_t sessions_running, sessions_finished, sessions_failed, repairs_finished;
    uint64_t commits, commits_failed;
    uint64_t tombstones_purged;
    uint64_t replicas; /* this node included */
    uint64_t session_calls,
        session_bytes;            /* round trips of sessions that this node asked for; both ways, without framing */
    uint64_t pulses, pulse_bytes; /* likewise, comparisons of contexts */
    uint64_t batch_bytes_saved;   /* by compression, beyond batch_bytes_sent */
    uint64_t session_bytes_saved; /* likewise, beyond session_bytes */
} cake_store_stats_t;

CAKE_API int cake_store_stats(cake_store_t *store, cake_store_stats_t *out);
/* One block for free by cake_peers_free. */
CAKE_API int cake_store_peers(cake_store_t *store, cake_peer_info_t **peers, size_t *count);
CAKE_API void cake_peers_free(cake_peer_info_t *peers);

/* Compares with all live replicas now. Returns once those sessions have ended: 0, or why one failed. */
CAKE_API int cake_store_sync(cake_store_t *store);

/* Looks for damage, and mends it. First the storage's own check of its files, where it has one; then, per keyspace:
 *   this node's storage against what the node knows   rows that are missing, strange, or of another timestamp: mended
 *                                                     from a replica
 *   this node against each live replica               documents that differ though both have seen the same writes, as
 *                                                     after damage before a restart: the newest copy is written anew
 * Values are not compared: whether bytes are what they were is for the storage's own check to say, and what that
 * doubts is mended by starting again without the files: the node gets its data from the others. Reads everything
 * here (their records take 48 bytes each meanwhile) and asks each replica for some kilobytes per keyspace; writers
 * go on. 0 also when damage was found: see the report. CAKE_EDEADLK; CAKE_ECLOSED; what the storage says. Of one
 * call at a time. */
typedef enum cake_damage_kind {
    CAKE_DAMAGE_MISSING,   /* in the storage there is no row for what this node has */
    CAKE_DAMAGE_STRANGE,   /* there is a row of which this node knows nothing */
    CAKE_DAMAGE_WRONG,     /* the row is of another write */
    CAKE_DAMAGE_DIFFERENT, /* the replica node_id has another document there, or only one of both has it */
    CAKE_DAMAGE_STORAGE    /* its own check doubts the storage's files: see why */
} cake_damage_kind_t;

CAKE_API const char *cake_damage_name(cake_damage_kind_t kind); /* "missing" */

typedef struct cake_damage {
    cake_damage_kind_t kind;
    const char *keyspace;
    cake_slice_t key; /* empty: not known */
    cake_id_t id;
    uint16_t node_id; /* with DIFFERENT */
    bool is_healed;
    const char *why; /* with STORAGE, where keyspace is "" and id zero: what the check says; else NULL */
} cake_damage_t;

/* Zero: the default. */
typedef struct cake_verify_options {
    size_t size;
    bool only_report;                                      /* changes nothing */
    void (*found)(void *arg, const cake_damage_t *damage); /* on the caller's thread; valid for the call */
    void *arg;
} cake_verify_options_t;

#define CAKE_VERIFY_OPTIONS_INIT CAKE_SIZED(cake_verify_options_t)

typedef struct cake_verify_report {
    uint64_t keyspaces, documents; /* of this node */
    uint64_t replicas;             /* that were compared with */
    uint64_t ranges_different;     /* of documents, summed up over replicas */
    uint64_t missing, strange, wrong, different, healed;
    uint64_t not_compared; /* keyspaces that a replica was not equal with in time, or could not be asked about */
    uint64_t damaged;      /* 1: the storage's own check doubts its files */
} cake_verify_report_t;

CAKE_API int cake_store_verify(cake_store_t *store, const cake_verify_options_t *options, /* may be NULL */
                               cake_verify_report_t *report);

/* Waits until this node takes writes, counts each of the given replicas for its levels, and has all that they had
 * when it met them in this run: after a start, and before the first write at a level that is to mean all of a known
 * cluster. ids may name this node; count 0: the replicas that are there now. CAKE_ETIMEDOUT, CAKE_ECLOSED,
 * CAKE_EDEADLK. */
CAKE_API int cake_store_wait_for(cake_store_t *store, const uint16_t *ids, size_t count, uint64_t timeout_ms);

/* A replica that is gone for good: it no longer counts for levels, and no longer holds tombstones up. Every node has
 * to be told, or to be reachable: the word is passed on to the live ones. CAKE_ENOTFOUND; CAKE_EBUSY when it is
 * alive. */
CAKE_API int cake_store_forget(cake_store_t *store, uint16_t node_id);

/* ---- watching -----------------------------------------------------------------------------------------------------*/
typedef struct cake_change {
    const char *keyspace;
    cake_slice_t key;
    cake_slice_t value; /* empty for deletes */
    cake_hlc_t timestamp;
    bool is_delete, is_local;
    bool is_reset; /* of cake_store_watch_from: deletes were missed; forget all, what is there follows */
} cake_change_t;

typedef void (*cake_change_fn)(void *arg, const cake_change_t *change);

/* Every change from now on, once, in the order in which it was applied here; keyspace NULL: of all. On the loop:
 * must not block. End it with cake_watch_stop. A document that a repair session removes here (deleted elsewhere, so
 * long ago that its tombstone is gone) is not told; cake_store_watch_from tells of it by is_reset. */
CAKE_API int cake_store_watch(cake_store_t *store, const char *keyspace, cake_change_fn fn, void *arg,
                              cake_watch_t **watch);

/* The same for one keyspace, from where an earlier watch was left, and never faster than it is read: `credit`
 * changes are told, then as many more as cake_watch_grant allows. Nothing is queued meanwhile: of a document that
 * changed several times while the reader was behind, the last change is told, once. What was missed comes in order
 * of timestamps, later changes as they are applied. is_local is not known of changes that were missed. */
typedef struct cake_watch_options {
    size_t size;
    const char *keyspace;
    cake_slice_t position; /* of cake_watch_position, on any node of the cluster; empty: begin with all that is there */
    uint64_t credit;       /* (1,024) */
} cake_watch_options_t;

#define CAKE_WATCH_OPTIONS_INIT CAKE_SIZED(cake_watch_options_t)

/* CAKE_EINVAL (also a position of another keyspace), CAKE_EPARSE, CAKE_EVERSION (position), CAKE_ENOMEM,
 * CAKE_ECLOSED. */
CAKE_API int cake_store_watch_from(cake_store_t *store, const cake_watch_options_t *options, cake_change_fn fn,
                                   void *arg, cake_watch_t **watch);
CAKE_API int cake_watch_grant(cake_watch_t *watch, uint64_t changes); /* any thread, the callback too */

/* Behind the last change that was told, the one of a callback that is running included: store it with what came of
 * the changes. Any thread. Some tens of bytes per node that ever wrote. For cake_position_free. */
typedef struct cake_position {
    void *data;
    size_t len;
} cake_position_t;

CAKE_API int cake_watch_position(cake_watch_t *watch, cake_position_t *position); /* CAKE_EINVAL: of cake_store_watch */
CAKE_API void cake_position_free(cake_position_t *position);                      /* a zeroed one, too */

#ifdef __cplusplus
}
#endif
#endif
