/* store: keyspaces of documents kept on every node. Owns the sets, the lanes that write them to the storage, the queues
 * to the peers, and the sessions by which nodes catch up. Knows no sockets and no files: node and storage do that.
 *
 *   a put        write.c ──task──> lane.c ──batch──> storage        (group commit; durable before it takes effect here)
 *                   │                 └─commit─> set, watchers
 *                   └─────unit─────> distributor.c ──batches──> peers (beside the storage, when a level waits for one)
 *   from a peer  receive.c ──task──> lane.c ──> ... ──> answered once durable
 *   catching up  pulse.c compares contexts, sync.c pulls what is missing (receiver), serve.c hands it out (sender)
 *   tombstones   purge.c drops what every replica has acknowledged
 *
 * Everything below runs on the loop thread unless it says otherwise. */
#ifndef CAKE_STORE_STORE_H
#define CAKE_STORE_STORE_H

#include <datacake/store.h>

#include "base/list.h"
#include "base/lock.h"
#include "base/map.h"
#include "base/sort.h"
#include "crdt/session.h"
#include "env/env.h"
#include "node/node.h"

#define CAKE__STORE_SERVICE    "datacake.store"
#define CAKE__STORE_EXTENSION  "datacake.store"
#define CAKE__MANY_MAX         65536u      /* documents in one call */
#define CAKE__UNIT_BYTES_MAX   (48u << 20) /* one call's documents travel in one message */
#define CAKE__LANE_BATCH_TASKS 4096u
#define CAKE__LANE_BATCH_BYTES (8u << 20)
#define CAKE__KEYSPACES_MAX    1000000u
#define CAKE__PEER_BATCHES_MAX 4u /* under way at once to one peer */
#define CAKE__PULSE_MS         1000u
#define CAKE__PULSE_BYTES      65536u /* of contexts in one pulse; the rest follows in the next */
#define CAKE__CHUNK_RECORDS    1024u
#define CAKE__CHUNK_BYTES      (1u << 20)
#define CAKE__SERVING_MAX      64u    /* sessions handed out at once */
#define CAKE__SERVING_IDLE_MS  10000u /* then the receiver is taken for gone */
#define CAKE__CLOCK_RESERVE_MS 10000u /* the bound of stamps on disk is so far above the wall clock */
#define CAKE__CLOCK_AHEAD_MS   64u    /* but at least so far above the clock: 4M stamps */
#define CAKE__PURGE_TICK_MS    500u
#define CAKE__PURGE_COUNT      20000u /* tombstones dropped in one batch */
#define CAKE__CROWDED_ACTORS   16u    /* that a context lists, beyond those of the replicas' runs (purge.c) */
#define CAKE__MEET_MS          3000u  /* a member that says nothing of a store may still be opening it */
#define CAKE__WANT_DELAY_MS    400u   /* what batches under way may still bring is not asked for */
#define CAKE__DIGEST_BUCKETS   256u
#define CAKE__PACK_MIN         1024u       /* smaller payloads are not packed */
#define CAKE__UNPACKED_MAX     (64u << 20) /* a packed payload becomes no larger */

/* What zstd works in: made on first use, kept. Its address stays, and one thread at a time uses it. */
typedef struct cake__workspace {
    const cake_alloc_t *alloc;
    void *memory;
    size_t size;
} cake__workspace_t;

typedef struct cake__keyspace cake__keyspace_t;
typedef struct cake__peer cake__peer_t;
typedef struct cake__lane cake__lane_t;
typedef struct cake__write cake__write_t;

/* ---- origins: where writes of other nodes come from (origin.c) ------------------------------------------------------
 * Part of the message that brought them; context is what the storage sees. told_ns is the lane thread's. */
typedef struct cake__origin {
    cake_write_context_t context;
    cake_store_t *store;
    char address[CAKE_ADDR_TEXT_MAX];
    uint64_t flight_id, token; /* what the sender waits with; 0: does not */
    uint64_t told_ns;
} cake__origin_t;

/* ---- tasks: what a lane does with a keyspace ------------------------------------------------------------------------
 * stage decides, against the sets as they are and what was staged before in the same batch; finish follows once the
 * batch is durable and committed (0) or failed (the error: nothing of it happened here). The task is its owner's
 * again in finish. */
typedef struct cake__task {
    cake__list_t link;
    cake__keyspace_t *keyspace; /* NULL: metas only */
    size_t bytes;
    int (*stage)(struct cake__task *task, cake__change_t *change); /* an error fails the whole batch */
    void (*finish)(struct cake__task *task, int err);
    const cake_meta_write_t *metas; /* written with the batch; valid until finish */
    size_t meta_count;
    const cake_write_t *mended;   /* a row that is written past the set, which has it already; NULL: none. Likewise */
    const cake__origin_t *origin; /* of its writes; NULL: this node */
} cake__task_t;

/* Key and value behind a staged record: cake__staged_t.tag. Valid until its task's finish. */
typedef struct cake__value {
    cake_slice_t key, value;
    const cake__origin_t *origin; /* NULL: a write of this node */
} cake__value_t;

/* ---- keyspaces ----------------------------------------------------------------------------------------------------*/

/* What a peer has acknowledged of a keyspace; kept until the peer's run ends. */
typedef struct cake__acked {
    uint16_t node_id;
    cake__context_t context;
    uint64_t told_table, told_serial; /* the retired actors that it was told last, and in which pulse; 0: none */
} cake__acked_t;

/* A peer that seems to have what we lack. */
typedef struct cake__want {
    uint16_t node_id;
    uint32_t failures;
    uint64_t due_ns;
    cake__context_t context; /* what it had; empty: whatever it has */
    bool is_forced;          /* a session even when the context is covered */
} cake__want_t;

/* Invariants: digest_part is what this keyspace adds to store->digest; changed_version <= store->version;
 * change is set exactly while the lane's batch with it is under way. */
struct cake__keyspace {
    cake_store_t *store;
    char *name;
    uint64_t name_hash;
    cake_orswot_t *set;
    cake__lane_t *lane;
    cake__change_t *change;
    uint64_t digest_part, changed_version;
    cake__list_t changed_link;     /* in store->changed, the least recently changed first */
    cake__list_t tombstone_link;   /* in store->with_tombstones while it has any */
    cake__list_t wanting_link;     /* in store->wanting while it has wants */
    cake__list_t crowded_link;     /* in store->crowded while its context lists many actors */
    uint64_t crowded_until_ns;     /* not looked at before */
    uint64_t actor;                /* of the set, in this run */
    uint64_t stored_table;         /* hash of the retired actors that the storage has; 0: none */
    cake__retired_t *loaded_table; /* while loading: what the storage has */
    cake__list_t writes;           /* of this node, sent, waiting for their level */
    cake__list_t watches;          /* that go on from a position (watch_from.c) */
    cake__acked_t *acked;
    uint32_t acked_count;
    cake__want_t *wants;
    uint32_t want_count;
    uint32_t serving_count;  /* sessions handed out */
    struct cake__pull *pull; /* the session under way that catches up, or NULL */
    uint32_t chunk_limit;    /* records per chunk: fewer where values are large */
    bool is_purging;
};

/* ---- lanes: group commit ------------------------------------------------------------------------------------------*/

/* A meta of the batch being made: offsets into the lane's scratch, which moves while it grows. */
typedef struct cake__meta_piece {
    size_t name_at, name_len, value_at, value_len;
} cake__meta_piece_t;

/* Invariants: is_busy exactly while a batch is between stage and finish; `batch` and `touched` are empty otherwise. */
struct cake__lane {
    cake_store_t *store;
    unsigned index;
    cake_lane_t *worker;     /* NULL: the storage never blocks, batches run on the loop */
    cake__list_t ready_link; /* in store->ready_lanes */
    cake__list_t tasks;      /* waiting */
    bool is_busy;

    cake__list_t batch;         /* tasks of the batch under way */
    cake__keyspace_t **touched; /* keyspaces with a change in it */
    size_t touched_count, touched_capacity;
    cake_write_t *writes;
    size_t write_count, write_capacity;
    cake__meta_piece_t *pieces;
    size_t piece_count, piece_capacity;
    cake_meta_write_t *metas;
    size_t meta_count, meta_capacity;
    cake__buf_t scratch;    /* encoded metas */
    cake__buf_t reissued;   /* keys and values of records of ours that are written again (rule 5) */
    cake_hlc_t clock_bound; /* in this batch; 0: none */
    bool has_reissued;      /* this batch */
    bool has_failed;        /* the one before */
    int result;
    cake_work_t work;
};

/* ---- peers and what is sent to them -------------------------------------------------------------------------------*/

/* The documents of one call as they travel: encoded once, shared by all queues. */
typedef struct cake__unit {
    uint32_t refs;
    uint32_t count; /* operations */
    bool is_glued;  /* goes in the message of the one before it in the queue, or not at all */
    uint64_t made_ns;
    cake__write_t *write; /* who waits for answers; NULL: nobody (any more) */
    size_t len;
    uint8_t bytes[];
} cake__unit_t;

typedef struct cake__queued {
    cake__list_t link;
    cake__unit_t *unit;
} cake__queued_t;

/* Another node with a store: a replica once it has joined. Replicas persist as meta "replica/ID".
 * Invariants: queue_bytes and queue_count are those of queue; equal_version and told_version are 0 in a new run of
 * it. */
struct cake__peer {
    cake_store_t *store;
    cake__list_t link; /* in store->peers, by node id */
    uint16_t node_id;
    char data_center[64];
    bool is_placed;       /* data_center is known: by membership or a registry, which a message may outrun */
    cake_status_t status; /* of the member; SUSPECT for a stored replica that is not a member yet */
    bool is_member;       /* membership has named it in this run of ours */
    uint64_t joined_ns;   /* when it did, last */
    bool is_degraded;
    bool has_store;    /* it said so, in this run of it */
    bool is_replica;   /* joins or has joined; counts until it is forgotten */
    uint32_t length;   /* of its id in the registry: odd while it is a replica (registry.c) */
    uint32_t registry; /* hash of the replicas that it knows, as it said last */
    uint32_t
        listed_registry; /* that both knew when this node, not part of the cluster yet, listed its keyspaces last */
    bool is_exchanging;  /* registries */
    uint64_t exchanged_ns;
    uint64_t actor;                         /* of its run; 0: not heard in this run of ours */
    uint64_t heard_wall_ms, stored_wall_ms; /* last sign of it; what of it is on disk */
    uint64_t heard_ns,
        silent_before_ms; /* the same by the clock that does not jump; and how long it was silent before */

    cake__list_t queue, flights; /* cake__queued_t waiting; batches under way */
    size_t queue_bytes, queue_count;
    uint32_t flight_count;
    bool is_urgent, is_flush_due;
    cake_timer_t flush_timer;

    bool reads_packed;        /* it said so */
    bool is_new, sees_new;    /* it said last that it has neither joined nor anything; that all whom it knows are new */
    bool is_joined, is_alone; /* likewise: that it has joined; that it is no part of a cluster yet (join.c) */
    uint32_t pack_misses, plain_batches; /* in a row that did not pack; so many are sent without a try */

    bool is_compared; /* all that it had when its run was met is here or wanted */
    bool is_pulsing, pulses_again, has_mismatch, is_listing;
    uint32_t pulse_failures, unexplained;
    uint64_t pulse_serial, answered_serial,
        failed_serial;      /* of the last pulse to it; that was answered; that was not */
    uint64_t pulsed_ns;     /* when it was asked last */
    uint64_t equal_version; /* keyspaces unchanged since are equal there */
    uint64_t told_version;  /* contexts of keyspaces changed up to here were told */
};

/* An RPC of ours under way, so that stopping can end it. Gone once done has begun. */
typedef struct cake__outcall {
    cake__list_t link;
    cake_store_t *store;
    cake_call_t *call;
    cake_reply_fn done;
    void *arg;
} cake__outcall_t;

typedef enum cake__store_state {
    CAKE__STORE_OPENING,
    CAKE__STORE_RUNNING,
    CAKE__STORE_STOPPING, /* calls end, lanes drain */
    CAKE__STORE_CLOSING   /* lanes and storage close */
} cake__store_state_t;

struct cake_store {
    cake_node_t *node;
    cake_env_t *env;
    const cake_alloc_t *alloc;
    const cake_log_t *log;
    cake_store_options_t options;
    cake__store_state_t state;

    cake_storage_t *storage;
    bool is_inline, reads_anywhere, storage_fetches;
    cake__lane_t *lanes;
    unsigned lane_count;
    cake_lane_t *reader; /* for reads of the loop's; NULL when the storage never blocks */
    cake__list_t ready_lanes;
    cake_deferred_t drain;
    size_t pending_bytes; /* of tasks */
    size_t write_bytes;   /* of writes that are not done */

    uint64_t actor; /* of this run */
    bool is_joined, is_declaring_joined;
    bool is_alone; /* joined without being part of a cluster, though it has seeds: levels promise nothing (join.c) */
    uint16_t join_peer; /* whom the first session is with; 0: nobody yet */
    bool join_is_listed;
    bool sees_new;             /* of a cluster that is all new, as far as this node knows (join.c) */
    uint64_t foreign_told_ns;  /* when it was logged last that another speaks another version of the protocol */
    uint64_t all_new_since_ns; /* and all others said so, too; 0: they do not */
    uint64_t join_deadline_ns,
        part_deadline_ns; /* for finding whom to join; for becoming part of the cluster, 0: later */
    cake_timer_t join_timer;
    cake__task_t join_task;
    cake_meta_write_t join_meta;
    cake_hlc_t clock_bound;

    cake__map_t keyspaces; /* name -> cake__keyspace_t */
    uint64_t version;      /* counts commits */
    uint64_t digest;       /* over all keyspaces' contexts; equal digests: nothing to do */
    cake__list_t changed, with_tombstones, wanting, crowded;

    cake__list_t peers;
    uint32_t peer_count;
    uint32_t registry, own_length; /* hash of the replicas, this node included; its own id's length (registry.c) */
    cake_candidate_t *candidates;  /* made anew when candidates_are_valid is false */
    size_t candidate_count, candidate_capacity;
    bool candidates_are_valid, candidates_are_placed; /* the data centre of each is known */
    cake__list_t outcalls;
    cake_deferred_t flush;
    cake__workspace_t packing, unpacking; /* of the loop */
    cake__buf_t packed;                   /* the payload made last in this turn, for peers that get the same units */
    cake__list_t *packed_flight;          /* whose it is; NULL: nobody's */
    cake__map_t servings;                 /* token -> cake__serving_t */
    cake__list_t serving_list;
    uint32_t pulls_running;
    uint64_t next_session_id, next_flight_id;

    cake__list_t writes; /* waiting for their level, or to be joined */
    cake__list_t watches;
    bool is_telling;
    cake_watch_t *membership;
    cake_timer_t pulse_timer, purge_timer, want_timer, serving_timer;
    cake_store_stats_t stats;
    uint64_t reads; /* atomic */

    uint32_t closing_count, reads_running;
    bool service_is_removed;
    cake__lock_t failure_lock;
    cake_result_t last_failure;
    cake_work_t close_work;
    cake_event_fn stopped;
    void *stopped_arg;
};

/* ---- store.c ------------------------------------------------------------------------------------------------------*/
static inline bool cake__store_is_stopping(const cake_store_t *store)
{
    return store->state >= CAKE__STORE_STOPPING;
}

/* A call of ours to a peer's store service. An error: done never runs. Else it runs exactly once, and frees the
 * reply. */
int cake__store_call(cake_store_t *store, uint16_t node_id, const char *method, const cake_slice_t *parts, size_t count,
                     uint64_t timeout_ms, cake_reply_fn done, void *arg);
/* To any service there; out may be NULL. */
int cake__store_call_path(cake_store_t *store, uint16_t node_id, const char *path, const cake_slice_t *parts,
                          size_t count, uint64_t timeout_ms, cake_reply_fn done, void *arg, cake__outcall_t **out);
void cake__store_check_stopped(cake_store_t *store); /* something that stopping waits for has ended */

/* ---- keyspace.c ---------------------------------------------------------------------------------------------------*/
/* CAKE_EINVAL (name), CAKE_ENOTFOUND (may_create false), CAKE_ETOOBIG, CAKE_ENOMEM */
int cake__keyspace_find(cake_store_t *store, cake_slice_t name, bool may_create, cake__keyspace_t **out);
void cake__keyspace_free(cake__keyspace_t *keyspace);
int cake__keyspaces_load(cake_store_t *store);             /* before the loop knows the store; on any one thread */
void cake__keyspace_committed(cake__keyspace_t *keyspace); /* C may have changed */
/* Of the change under way: name, then value. The second is empty where the storage has it. */
void cake__keyspace_meta(cake__keyspace_t *keyspace, cake__buf_t *out, size_t *name_len);
void cake__keyspace_retired_meta(cake__keyspace_t *keyspace, cake__buf_t *out, size_t *name_len);
cake__acked_t *cake__keyspace_acked(cake__keyspace_t *keyspace, uint16_t node_id, bool may_create);
void cake__keyspace_forget_acked(cake__keyspace_t *keyspace, uint16_t node_id);
int cake__key_id(cake_slice_t key, cake_id_t *out); /* any thread; CAKE_EINVAL: length, CAKE_EINTERNAL */
static inline const cake__context_t *cake__keyspace_context(const cake__keyspace_t *keyspace)
{
    return &cake__orswot_summary(keyspace->set)->context;
}

/* ---- lane.c -------------------------------------------------------------------------------------------------------*/
int cake__lanes_open(cake_store_t *store);
void cake__lane_submit(cake__lane_t *lane, cake__task_t *task);
bool cake__lanes_are_idle(const cake_store_t *store);
void cake__lanes_free(cake_store_t *store);
void cake__drain_lanes(void *store);

/* ---- write.c ------------------------------------------------------------------------------------------------------*/
void cake__write_acked(cake__write_t *write, uint16_t node_id);
void cake__writes_check_context(cake__keyspace_t *keyspace, uint16_t node_id, const cake__context_t *context);
/* Its digest was equal to that of our version: it has all that was committed up to then, and nothing is known of
 * later writes. */
void cake__writes_acked_all(cake_store_t *store, uint16_t node_id, uint64_t version);
void cake__writes_send_ahead(cake_store_t *store,
                             cake__list_t *batch);   /* tasks that are being written, and may yet fail */
void cake__writes_send_again(cake__peer_t *peer);    /* those under way, to a peer that was not there for them */
void cake__writes_release_held(cake_store_t *store); /* the node has joined */
void cake__writes_fail_all(cake_store_t *store, int err);
void cake__writes_recount(cake_store_t *store); /* the registry is another, or a peer's has become equal to it */
void cake__write_lost_peer(cake__write_t *write);
bool cake__write_wants(const cake__write_t *write, uint16_t node_id); /* its answer soon */

/* ---- wire.c: operations as they travel ----------------------------------------------------------------------------*/
void cake__put_operation(cake__buf_t *out, const cake_record_t *record, const cake__value_t *value);
/* In place: the value borrows from what is read. actor is that of the unit; chunks name one per record. */
void cake__get_operation(cake__reader_t *reader, uint64_t actor, cake_record_t *record, cake__value_t *value);
typedef struct cake__hail {
    uint16_t node_id;
    uint64_t actor, digest;
    uint32_t registry;
    bool is_joined, is_alone, reads_packed, sees_new;
} cake__hail_t; /* what every message of the store begins with */
void cake__put_hail(cake_store_t *store, cake__buf_t *out);
int cake__get_hail(cake_store_t *store, cake__reader_t *reader, cake__hail_t *out);
/* CAKE_EPARSE, CAKE_EVERSION; CAKE_EBUSY: of no process that membership knows; CAKE_EDUPLICATE: this node is refused */

/* ---- distributor.c ------------------------------------------------------------------------------------------------*/
cake__unit_t *cake__unit_new(cake_store_t *store, size_t len, uint32_t count,
                             cake__write_t *write); /* bytes to be filled */
void cake__unit_release(cake_store_t *store, cake__unit_t *unit);
void cake__distribute(cake_store_t *store, cake__unit_t *unit); /* to every peer that is there */
void cake__peer_enqueue(cake__peer_t *peer, cake__unit_t *unit, bool is_urgent);
void cake__peer_flush_urgent(cake__peer_t *peer);
void cake__peer_drop_queue(cake__peer_t *peer);
void cake__flush_peers(void *store);
void cake__peer_detach_flights(cake__peer_t *peer);
void cake__flight_goes_on(cake__peer_t *peer, uint64_t flight_id); /* it is being written there */
uint64_t cake__peer_oldest_ns(const cake__peer_t *peer); /* of what it has not acknowledged; CAKE_NEVER: nothing */

/* ---- origin.c -----------------------------------------------------------------------------------------------------*/
void cake__origin_init(cake__origin_t *origin, cake_store_t *store, uint16_t node_id);

/* ---- peers.c ------------------------------------------------------------------------------------------------------*/
int cake__peers_start(cake_store_t *store);
void cake__peers_free(cake_store_t *store);
void cake__peers_give_up_unseen(cake_store_t *store);
cake__peer_t *cake__peer_find(cake_store_t *store, uint16_t node_id);
cake__peer_t *cake__peer_learn(cake_store_t *store, uint16_t node_id); /* made when unknown; NULL: no memory, or self */
cake__peer_t *cake__peer_heard(cake_store_t *store, const cake__hail_t *hail); /* likewise */
bool cake__peer_is_there(const cake__peer_t *peer);                            /* can be called */
bool cake__peer_is_outside(const cake__peer_t *peer);   /* it said that it is no part of the cluster yet */
bool cake__peer_counts(const cake__peer_t *peer);       /* for levels */
bool cake__peer_is_forgotten(const cake__peer_t *peer); /* and has not come back */
bool cake__peer_is_silent(const cake__peer_t *peer);    /* past forget_after */
/* Candidates for a selector, by node id; the store's, valid until the next change of a peer. */
int cake__candidates(cake_store_t *store, const cake_candidate_t **out, size_t *count);
/* For this level; *result gets live and required. CAKE_ENOTENOUGHNODES: too little is known of the others to promise
 * it. */
int cake__level_candidates(cake_store_t *store, cake_consistency_t level, const cake_candidate_t **out, size_t *count,
                           cake_result_t *result);
/* The answer of one that knows this registry. */
bool cake__level_takes_answer(const cake_store_t *store, cake_consistency_t level, uint32_t registry, bool is_outside);
void cake__peer_heard_before(cake__peer_t *peer, uint64_t heard_wall_ms); /* in a life that is over, or by another */
void cake__peer_forget_acked(cake__peer_t *peer);

/* ---- registry.c ---------------------------------------------------------------------------------------------------*/
int cake__registry_load(cake_store_t *store); /* before the loop knows the store */
void cake__registry_store(cake__peer_t *peer);
void cake__registry_join(cake_store_t *store);                           /* this node joins, or has joined */
void cake__registry_heard(cake__peer_t *peer, const cake__hail_t *hail); /* for cake__peer_heard */
bool cake__registry_agrees(const cake__peer_t *peer);                    /* it knows the same replicas */
void cake__registry_compare(cake__peer_t *peer);                         /* when it does not: exchanges with it */
int cake__registry_take(cake_store_t *store, cake_slice_t entries);      /* of a message; CAKE_EPARSE: none of it */

/* ---- handlers of the store's service: receive.c, pulse.c, serve.c, read.c, registry.c -----------------------------*/
void cake__handle_batch(cake_rpc_call_t *call, void *store);
void cake__handle_pulse(cake_rpc_call_t *call, void *store);
void cake__handle_list(cake_rpc_call_t *call, void *store);
void cake__handle_open(cake_rpc_call_t *call, void *store);
void cake__handle_next(cake_rpc_call_t *call, void *store);
void cake__handle_read(cake_rpc_call_t *call, void *store);
void cake__handle_registry(cake_rpc_call_t *call, void *store);
void cake__handle_progress(cake_rpc_call_t *call, void *store);
void cake__handle_compare(cake_rpc_call_t *call, void *store);

/* ---- receive.c ----------------------------------------------------------------------------------------------------*/
/* Of other nodes. are_known: once durable, every one of them is here or superseded (rule 2): what was refused is
 * not. */
int cake__stage_received(cake__change_t *change, const cake_record_t *records, cake__value_t *values, size_t count,
                         bool *are_known);

/* ---- pulse.c ------------------------------------------------------------------------------------------------------*/
void cake__pulse_start(cake_store_t *store);
void cake__pulse_peer(cake__peer_t *peer); /* now, or again after the one under way */
void cake__pulse_all(cake_store_t *store);
/* Asks for all keyspaces that differ; each is wanted, and at the end `listed` runs, once. An error: it never runs. */
int cake__list_peer(cake__peer_t *peer, void (*listed)(cake_store_t *store, uint16_t node_id, int err));

/* ---- serve.c ------------------------------------------------------------------------------------------------------*/
void cake__servings_free(cake_store_t *store); /* those that nothing is under way for; the others end by themselves */
void cake__servings_end(cake_store_t *store, uint16_t node_id); /* its receiver runs anew */
void cake__serving_tick(void *store);
void cake__serving_goes_on(cake_store_t *store, uint64_t token); /* its part is being written there */

/* ---- sync.c -------------------------------------------------------------------------------------------------------*/
/* Catch up with a peer when its context is still not covered after delay_ms; forced: in any case. */
int cake__want(cake__keyspace_t *keyspace, uint16_t node_id, const cake__context_t *context, uint64_t delay_ms,
               bool is_forced);
void cake__want_tick(void *store);
void cake__drop_wants(cake_store_t *store, uint16_t node_id);
bool cake__has_wants(const cake_store_t *store, uint16_t node_id); /* also a pull under way */

/* ---- wait.c: blocks -----------------------------------------------------------------------------------------------*/
int cake__wait_sent(cake_store_t *store, uint64_t timeout_ms); /* nothing waits for, or is under way to, another node */

/* ---- join.c -------------------------------------------------------------------------------------------------------*/
void cake__join_start(cake_store_t *store);
void cake__join_leave(cake_store_t *store, uint16_t node_id); /* whom it joins by: it looks for another one */
void cake__join_try(cake_store_t *store);                     /* something has changed that may help */
int cake__join_load(cake_store_t *store, cake_slice_t value); /* of meta "joined" */

/* ---- purge.c, watch.c ---------------------------------------------------------------------------------------------*/
void cake__purge_start(cake_store_t *store);
void cake__tell_change(cake__keyspace_t *keyspace, const cake__staged_t *staged);
void cake__watches_free(cake_store_t *store);

/* ---- watch_from.c -------------------------------------------------------------------------------------------------*/
void cake__watches_commit(cake__keyspace_t *keyspace);     /* the change is about to take effect */
bool cake__watches_hold(const cake__keyspace_t *keyspace); /* purges */
void cake__keyspace_watches_free(cake__keyspace_t *keyspace);

#endif
