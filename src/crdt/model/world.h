/* world.h: random schedules for the set: 2 to 4 replicas with disks, clocks and a network, faults of every kind,
 * and the invariants of the model after every step. One seed is one run: some hundred events, then a quiet phase in
 * which everything must converge and be cleaned up.
 *
 *      world.c    the run, its events and faults          check.c      I0..I5 and the theorem, against the full history
 *      node.c     a machine: disk image, process, change  network.c    messages, their loss and their handling
 *      quiet.c    convergence, clean-up                   directed.c   schedules for what chance hits too rarely
 *
 * Here the persistence of replica.h is modelled: a change is begun, filled, put in flight, and ends durable,
 * refused, or in a crash before or after its batch reached the disk. Nothing leaves a node before it is durable. */
#ifndef CAKE_CRDT_MODEL_WORLD_H
#define CAKE_CRDT_MODEL_WORLD_H

#include <setjmp.h>

#include "base/random.h"
#include "crdt/set.h"

#define NODES_MAX     4u
#define KEYS_MAX      20u
#define SESSIONS_MAX  24u /* of one node, each way; the oldest give way */
#define IMAGES_MAX    4u
#define BATCH_MAX     32u
#define START_MS      UINT64_C(1000)
#define MAX_DRIFT_MS  UINT64_C(60)
#define RESERVE_MS    UINT64_C(15)
#define MIN_AGE_MS    UINT64_C(10)
#define HOLE_AGE_MS   UINT64_C(60)
#define NEVER_MS      (UINT64_C(1) << 40)
#define TIMEOUT_STEPS 80u

typedef struct profile {
    const char *name;
    bool unclean_crash, clean_restart, forced_drop, holes_age, disk_loss, leaves, busy_sessions;
    uint64_t silent_ms; /* 0: peers are never ignored */
} profile_t;

/* One write of the history, and what was promised about it. */
typedef struct write {
    cake_record_t record;
    uint64_t value;
    uint32_t owner, owner_boot;
    bool is_tracked;   /* its writer still waits for answers */
    uint32_t holders;  /* bits of nodes that said it is durable */
    uint32_t promised; /* bits of nodes that acknowledged it as durable, and have their disks */
    bool is_acknowledged;
    uint32_t acknowledged_by; /* 0 with is_acknowledged: every holder has lost its disk since */
} write_t;

typedef struct image {
    bool has_record[KEYS_MAX];
    cake_record_t records[KEYS_MAX];
    uint64_t values[KEYS_MAX];
    cake__summary_t summary;
    cake_hlc_t clock_bound;
    bool is_joined;
    uint64_t actor; /* of the process that wrote it, for the mutant that goes on with it */
} image_t;

enum { BATCH, BATCH_ACK, CONTEXT_ACK, HELLO, WELCOME, CHUNK, FIN, COMPARE, COMPARED };

typedef struct payload {
    uint32_t references, kind, index;
    uint64_t session_id, token, actor;
    size_t count;
    cake_record_t records[BATCH_MAX]; /* BATCH, CHUNK, and the dots of BATCH_ACK */
    cake__context_t context;          /* CONTEXT_ACK */
    cake__buf_t bytes;                /* the messages of sessions, encoded */
} payload_t;

typedef struct message {
    uint32_t source, source_boot, target;
    payload_t *payload;
} message_t;

typedef struct messages {
    message_t *items;
    size_t count, capacity;
} messages_t;

typedef struct peer_row {
    bool is_known;
    uint64_t actor, last_heard_ms;
    cake__context_t context;
} peer_row_t;

typedef struct receiving {
    cake__receiver_t *receiver;
    uint32_t peer, since_step;
    bool is_counted;
} receiving_t;

typedef struct sending {
    cake__sender_t *sender;
    uint64_t session_id;
    uint32_t peer;
    bool is_finished;
} sending_t;

typedef struct node {
    uint32_t id, boot;
    bool is_gone, is_in_flight;
    image_t image, old_images[IMAGES_MAX];
    uint32_t old_image_count;
    int64_t wall_offset_ms;
    uint64_t highest_wall_ms, wall_ms, started_ms;
    cake_hlc_t highest_issued_hlc;
    uint32_t newest_boot_heard[NODES_MAX];
    cake__context_t promised_context;
    /* the process */
    cake_clock_t clock;
    cake_orswot_t *set;
    cake__change_t *change;
    cake_record_t staged_writes[BATCH_MAX]; /* own ones of the open change, in order of issue */
    uint64_t staged_values[BATCH_MAX];
    size_t staged_write_count;
    struct {
        uint32_t writer;
        payload_t *batch;
    } staged_batches[BATCH_MAX];
    size_t staged_batch_count;
    cake_record_t outbox[BATCH_MAX];
    size_t outbox_count;
    peer_row_t peers[NODES_MAX];
    receiving_t receiving[SESSIONS_MAX];
    sending_t sending[SESSIONS_MAX];
    size_t receiving_count, sending_count;
} node_t;

enum {
    EVENT_LOCAL_WRITE,
    EVENT_DELIVER,
    EVENT_LATE_BATCH,
    EVENT_OPEN_SESSION,
    EVENT_PUMP,
    EVENT_WHOLE_SESSION,
    EVENT_COMMIT,
    EVENT_SUBMIT,
    EVENT_ACKNOWLEDGE,
    EVENT_DROP,
    EVENT_TOGGLE_LINK,
    EVENT_CLOCK_FAULT,
    EVENT_MACHINE_FAULT,
    EVENT_COUNT
};

enum {
    COUNT_RUNS,
    COUNT_JOIN,
    COUNT_DELTA,
    COUNT_REPAIR,
    COUNT_ABORTED,
    COUNT_REISSUES,
    COUNT_DROPS,
    COUNT_FORCED,
    COUNT_CRASHES,
    COUNT_LOST_BATCHES,
    COUNT_TORN,
    COUNT_DISKS,
    COUNT_ACKNOWLEDGED,
    COUNT_RETIRED,
    COUNT_ROUNDS,
    COUNT_KEPT,
    COUNT_STEPS,
    COUNT_COUNT
};

typedef struct world {
    cake__random_t random;
    const profile_t *profile;
    uint32_t node_count, key_count, steps, step, chunk_limit, sessions_at_once, level;
    double eager_loss, late_share, repeat_share, drop_rate, commit_rate, retire_rate;
    double weights[EVENT_COUNT];
    cake__repair_limits_t repair;
    uint64_t now_ms, hole_age_ms, next_session_id, next_value, next_actor;
    messages_t network, late_batches;
    bool is_cut[NODES_MAX][NODES_MAX];
    write_t *history;
    size_t history_count, history_capacity;
    node_t nodes[NODES_MAX];
    uint64_t counts[COUNT_COUNT];
    char violation[400];
    jmp_buf on_violation;
} world_t;

extern const char *const count_names[COUNT_COUNT];

/* Runs one seed. True: no check failed; else world->violation says what did. */
bool world_run(world_t *world, uint64_t seed);
void world_free(world_t *world);
void violate(world_t *world, const char *format, ...) CAKE_PRINTF(2, 3) __attribute__((noreturn));
bool chance(world_t *world, double probability);
uint64_t pick(world_t *world, uint64_t below);
bool is_strict(const world_t *world);

/* node.c */
void *must(void *memory);
void must_be_ok(int err);
cake_id_t id_of_key(uint32_t key);
uint32_t key_of_id(const cake_id_t *id);
void image_init(image_t *image, bool is_joined);
void image_copy(image_t *to, const image_t *from);
void image_free(image_t *image);
uint64_t wall_of(world_t *world, node_t *node);
void node_start(world_t *world, node_t *node);
void node_stop(node_t *node); /* the process is gone, with what was not durable */
void node_free(node_t *node);
cake__change_t *node_change(world_t *world, node_t *node); /* the open one, or a new one */
bool node_is_busy(const node_t *node);                     /* its change is in flight: nothing can be staged */
void node_submit(node_t *node);
void node_commit(world_t *world, node_t *node); /* durable, refused or a crash, by chance */
void node_settle(world_t *world, node_t *node); /* durable, for certain */
void node_crash(world_t *world, node_t *node);
void node_lose_disk(world_t *world, node_t *node);
void node_write(world_t *world, node_t *node, uint32_t key, bool is_tombstone);
void node_drop(world_t *world, node_t *node);
void note_peer(node_t *node, uint32_t peer, uint64_t actor);
void purge_policy(const world_t *world, const node_t *node, cake__purge_t *policy,
                  const cake__context_t *peers[NODES_MAX], const cake__context_t *nothing);

/* network.c */
void send_message(world_t *world, const node_t *source, uint32_t target, payload_t *payload, double loss);
payload_t *payload_new(uint32_t kind);
void payload_release(payload_t *payload);
void messages_push(messages_t *messages, message_t message);
bool link_is_up(const world_t *world, uint32_t a, uint32_t b);
node_t *deliver_one(world_t *world);
node_t *deliver(world_t *world, message_t message);
void deliver_late_batch(world_t *world, node_t *node);
void broadcast_outbox(world_t *world, node_t *node);
void acknowledge_context(world_t *world, node_t *node);
void acknowledge_batch(world_t *world, node_t *node, uint32_t writer, const payload_t *batch);
void open_session(world_t *world, node_t *node);
void pump_sessions(world_t *world);
void expire_sessions(world_t *world, node_t *node);
void note_outcome(world_t *world, receiving_t *receiving);
/* The values that travel with records: what the history says. */
void *tag_of(world_t *world, const cake_record_t *record);

/* check.c */
write_t *find_write(world_t *world, cake_dot_t dot);
void register_write(world_t *world, node_t *node, const cake_record_t *record, uint64_t value);
void count_durable(world_t *world, node_t *writer, uint32_t holder, cake_dot_t dot);
void check_node(world_t *world, node_t *node);
void check_reissues(world_t *world, node_t *node);

/* quiet.c */
cake__session_mode_t whole_session(world_t *world, node_t *receiver, node_t *sender);
void quiet_phase(world_t *world);

/* directed.c: true when the schedule ends as it should. NULL name: no such schedule. */
typedef struct directed {
    const char *mutant;
    bool (*run)(void);
} directed_t;
extern const directed_t directed_schedules[];

#endif
