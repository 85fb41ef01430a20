/* sim: whole clusters of production code on simulated hosts, from one seed, with faults, clients and checkers.
 *
 *   sim.c       one seed from beginning to end          plan.c      which faults a seed has, and how often
 *   cluster.c   nodes: start, stop, crash, lost disks   chaos.c     makes the faults happen in time
 *   disk.c      storages that survive their host        clients.c   operations and what came of them
 *   settle.c    healing, and what must hold then        check_*.c   the checkers, one each
 *   operators.c waiting for others, looking for damage
 *   last.c      all levels, asked for once more
 *   workload.c  code of users: services, clients        picture.c   what happened, drawn
 *   calls.c     calls between the nodes                 files.c     SQLite on a disk that fails
 *   trace.c     what happened, for people               range.c     many seeds, determinism, shrinking
 *   fetches.c   storages that ask the node of origin
 *   followers.c applications that follow a keyspace       members.c   the membership core alone, a thousand of it
 *
 *      trial --- world of sim/env --- host n --- environment while it is up
 *        |                                          |
 *        +------ node n: disk (survives), cake_node_t, cake_store_t (gone with a crash)
 *        +------ ops: what clients asked for, what they were answered
 *
 * Everything here belongs to one thread and is no part of a simulated heap. Nothing in this layer changes how
 * production code runs: it sees an environment and a storage. */
#ifndef CAKE_SIM_SIM_H
#define CAKE_SIM_SIM_H

#include <datacake/sim.h>

#include "base/bytes.h"
#include "base/random.h"
#include "sim/env/simenv.h"
#include "store/store.h"

#define CAKE__TRIAL_NODES_MAX     64u
#define CAKE__TRIAL_KEYS_MAX      4096u /* per keyspace */
#define CAKE__TRIAL_KEYSPACES_MAX 16u
#define CAKE__TRIAL_OPS_MAX       1000000u
#define CAKE__TRIAL_LANES_MAX     16u
#define CAKE__TRIAL_PORT          7000u
#define CAKE__OP_ITEMS_MAX        8u
#define CAKE__OP_NONE             UINT32_MAX

#define CAKE__SECOND_NS (1000 * CAKE_NS_PER_MS)

typedef struct cake_sim cake__trial_t; /* what hooks of users are given */
typedef struct cake__trial_node cake__trial_node_t;
typedef struct cake__asked cake__asked_t; /* a call and what became of it */

/* ---- plan.c: what a seed draws ------------------------------------------------------------------------------------*/

typedef struct cake__plan {
    uint32_t kinds; /* CAKE_SIM_... that are on */
    cake__faults_t net;
    uint64_t latency_max_ns;
    uint64_t clock_offset_ms, clock_drift_ppm;
    /* mean time between two of them in the whole cluster, in ms; 0: never */
    uint32_t partition_ms, pause_ms, slow_ms, crash_ms, stop_ms, jump_ms, disk_loss_ms, join_ms, absence_ms, double_ms,
        full_ms;
    uint32_t partition_shapes; /* bits of cake__shape */
    uint32_t partition_len_ms, pause_len_ms, down_len_ms, full_len_ms;
    double write_error_rate, read_error_rate, ambiguous_share;
    /* the workload */
    uint32_t keys, keyspaces, lanes;
    uint32_t many_share, delete_share, read_share, scan_share, condition_share; /* percent */
    uint32_t levels; /* bits of cake_consistency_t that clients use */
    uint32_t max_value_bytes;
    uint32_t data_centers, chunk_records, calls, follower_credit; /* follower_credit 0: no followers */
    uint32_t wait_share;                                          /* percent of the starts */
    bool has_fetches;
    bool all_have_seeds; /* the first one, too: the cluster begins cold */
    uint64_t unpacked;   /* bits of nodes that do not compress */
    uint64_t tombstone_min_age_ms, hole_age_ms, timeout_ms, forget_after_ms;
} cake__plan_t;

void cake__plan_draw(cake__trial_t *trial);
void cake__plan_print(const cake__trial_t *trial, char *out, size_t size);

/* ---- disk.c -------------------------------------------------------------------------------------------------------*/

/* A write in the total order. hlc 0: none. */
typedef struct cake__stamp {
    cake_hlc_t hlc;
    cake_dot_t dot;
    uint32_t op;                   /* CAKE__OP_NONE for tombstones */
    bool is_tombstone, was_killed; /* killed: erased while it was live */
} cake__stamp_t;

/* A batch that was refused without anybody knowing whether it reached the disk: at the next start it may be there. */
typedef struct cake__pending {
    cake_batch_t batch; /* one block with all that it points to; writes NULL and metas NULL: none */
    void *block;
} cake__pending_t;

/* Invariants: seen[k] is the greatest write of key k that ever was durable here since the disk was new. */
typedef struct cake__disk {
    cake_storage_t base; /* what the store is given */
    cake__trial_t *trial;
    cake__trial_node_t *node;
    cake_storage_ops_t ops; /* as the storage behind it allows for */
    bool is_open, is_empty;
    uint32_t lane_count;
    cake_storage_t *lanes[CAKE__TRIAL_LANES_MAX]; /* storages in memory; or all the same one while it is open: SQLite's
                                                     or a user's, which rows stands for */
    struct cake__files *files;                    /* of SQLite's; or NULL */
    cake__stamp_t *rows;                          /* what each key shows; NULL: lanes has storages in memory */
    bool is_unsure[CAKE__TRIAL_LANES_MAX];        /* the last write failed */
    cake__pending_t pending[CAKE__TRIAL_LANES_MAX];
    cake__stamp_t *seen; /* keyspace * plan.keys + key */
    uint32_t generation; /* counts losses */
    bool may_fail;
    bool is_full;                            /* for a while: refuses all batches */
    bool is_refusing[CAKE__TRIAL_LANES_MAX]; /* the last batch of this run failed */
    uint64_t batches[CAKE__TRIAL_LANES_MAX]; /* that were written */
} cake__disk_t;

void cake__disk_new(cake__trial_t *trial, cake__trial_node_t *node);
void cake__disk_free(cake__disk_t *disk);
void cake__disk_lose(cake__disk_t *disk);
int cake__disk_open(cake__disk_t *disk); /* what was undecided is drawn now; fails as the storage does */
void cake__disk_crash(cake__disk_t *disk, bool with_power); /* the process is gone, or its machine, too */
bool cake__stamp_is_above(const cake__stamp_t *a, const cake__stamp_t *b);
void cake__disk_damage(cake__disk_t *disk, uint32_t keyspace, uint32_t key); /* the row is gone, and nobody is told */
/* Whether the last batch of the keyspace's lane failed, and how many were written there. */
bool cake__disk_is_refusing(cake__disk_t *disk, uint32_t keyspace, uint64_t *batches);
/* The row of a key as the disk has it now; false: none. */
bool cake__disk_row(cake__disk_t *disk, uint32_t keyspace, uint32_t key, cake__stamp_t *out);

/* ---- files.c ------------------------------------------------------------------------------------------------------*/

typedef struct cake__files cake__files_t;

typedef enum cake__end {
    CAKE__END_CLOSED, /* by the store */
    CAKE__END_KILLED, /* what was written is there */
    CAKE__END_POWER   /* what was synced is there */
} cake__end_t;

cake__files_t *cake__files_new(cake__disk_t *disk); /* NULL, and a violation: this machine has no place for them */
void cake__files_free(cake__files_t *files);
int cake__files_open(cake__files_t *files, cake_storage_t **storage);
void cake__files_end(cake__files_t *files, cake_storage_t *storage, cake__end_t how); /* closes it */
void cake__files_lose(cake__files_t *files);
void cake__files_clean(cake__trial_t *trial); /* after those of all nodes are freed */

/* ---- cluster.c ----------------------------------------------------------------------------------------------------*/

typedef enum cake__process_state {
    CAKE__IS_DOWN,
    CAKE__IS_STARTING,
    CAKE__IS_UP,
    CAKE__IS_LEAVING /* a graceful stop is under way */
} cake__process_state_t;

struct cake__trial_node {
    cake__trial_t *trial;
    uint16_t id;
    cake__host_t *host;
    cake__process_state_t state;
    bool is_paused, is_slow, has_lost_disk;
    uint32_t starts;
    uint64_t generation;
    char address[CAKE_ADDR_TEXT_MAX], data_center[16];
    cake_node_t *node;
    cake_store_t *store;
    cake_watch_t *watch;
    cake__disk_t disk;
    cake_hlc_t now_floor;               /* of stamps taken of the node's clock, below the bound on its disk */
    cake_hlc_t write_floor, read_floor; /* the greatest stamps its clients were given; of reads in this run of it */
    cake_watch_t *changes;
    struct cake__follower *follower;
    cake_hlc_t *told, *written; /* per key, in this run of it: by the watch; to the disk */
    uint32_t waiting;           /* application threads that wait for it: it is not crashed meanwhile */
    cake_post_t stop_post, forget_post;
    bool is_forgetting, is_retrying;
    uint16_t forget_id;
    bool is_stopped; /* the graceful stop is through; the environment closes in an event of its own */
    uint32_t pauses; /* of this process */
    bool is_asking;
    cake_post_t ask_post;
    bool has_workload, is_stepping; /* users: code has been told of this start; a step is under way */
    cake_post_t step_post;
};

void cake__cluster_new(cake__trial_t *trial);
void cake__cluster_free(cake__trial_t *trial);
cake__trial_node_t *cake__cluster_add(cake__trial_t *trial);
void cake__node_move(cake__trial_node_t *node);        /* while it is down: to another machine, with another address */
void cake__node_impersonate(cake__trial_node_t *node); /* a second one with its id */
void cake__impostor_end(cake__trial_t *trial);
void cake__node_unrefuse(cake__trial_node_t *node);            /* stops one that was refused for its id */
void cake__node_up(cake__trial_node_t *node, bool with_seeds); /* from outside of events; tries again when it fails */
void cake__node_crash(cake__trial_node_t *node, cake__crash_t how);
void cake__node_leave(cake__trial_node_t *node);          /* gracefully, in its own time */
bool cake__node_is_ready(const cake__trial_node_t *node); /* up, joined, and knows all others as replicas */

/* ---- clients.c ----------------------------------------------------------------------------------------------------*/

typedef enum cake__op_kind { CAKE__OP_PUT, CAKE__OP_DEL, CAKE__OP_GET, CAKE__OP_GET_AT, CAKE__OP_SCAN } cake__op_kind_t;

typedef enum cake__op_state {
    CAKE__OP_PENDING,
    CAKE__OP_ACKED,
    CAKE__OP_REFUSED, /* nothing may have been written */
    CAKE__OP_UNKNOWN  /* may go either way: a timeout, a crash, an error of a disk that cannot tell */
} cake__op_state_t;

typedef struct cake__op {
    cake__trial_t *trial;
    uint32_t number;
    uint16_t node_id;
    uint8_t kind, level, state, count;
    uint8_t keyspace;
    bool has_condition;
    bool was_refusing; /* its lane's last batch before had failed */
    bool was_seen;     /* on some disk */
    bool may_turn_up;  /* refused by a disk that cannot tell */
    uint16_t keys[CAKE__OP_ITEMS_MAX];
    uint32_t starts; /* of the node */
    int err;
    uint64_t issued_ns, done_ns;
    cake_hlc_t timestamp;
    cake_hlc_t expected;   /* with a condition */
    uint64_t lane_batches; /* that its lane had written before */
    cake_hlc_t node_floor; /* stamps that the client of the node had been given when it asked */
    cake_hlc_t key_floor;  /* of reads with a level: stamps that its majority acknowledged before */
    cake__stamp_t seen;    /* what the disk of its node had when it was asked */
} cake__op_t;

/* Of the item in everything that is kept per keyspace and key. */
static inline size_t cake__place(const cake__op_t *op, uint32_t item);

/* The stamps of one call are consecutive, and the answer names the last. */
static inline cake_hlc_t cake__stamp_of(const cake__op_t *op, uint32_t item)
{
    return op->timestamp - (op->count - 1 - item);
}

void cake__clients_start(cake__trial_t *trial);
cake__op_t *cake__op_new(cake__trial_t *trial, cake__trial_node_t *node);
void cake__op_ask(cake__op_t *op); /* once it says what */
void cake__clients_free(cake__trial_t *trial);
void cake__clients_node_gone(cake__trial_node_t *node); /* its callbacks will not come */
/* Keys, values and names as clients make them, and back. */
size_t cake__key_text(uint32_t key, char out[64]);
bool cake__key_parse(cake_slice_t text, uint32_t *key);
size_t cake__value_make(const cake__op_t *op, uint32_t item, uint8_t *out);
bool cake__keyspace_parse(const cake__trial_t *trial, cake_slice_t name, uint32_t *keyspace);
bool cake__value_parse(cake_slice_t value, uint32_t *op, uint32_t *item);
void cake__keyspace_name(uint32_t keyspace, char out[32]);

/* ---- workload.c: code of users ------------------------------------------------------------------------------------*/

void cake__workload_begin(cake__trial_t *trial);
void cake__workload_end(cake__trial_t *trial);
void cake__workload_clients(cake__trial_t *trial);
int cake__workload_started(cake__trial_node_t *node);
void cake__workload_gone(cake__trial_node_t *node);
void cake__workload_check(cake__trial_t *trial);
bool cake__is_foreign(const cake__trial_t *trial, cake_slice_t keyspace); /* of a workload */

/* ---- fetches.c ----------------------------------------------------------------------------------------------------*/

int cake__fetches_serve(cake__trial_node_t *node);
int cake__fetch_batch(cake__disk_t *disk, const cake_batch_t *batch); /* before it is written */

/* ---- followers.c --------------------------------------------------------------------------------------------------*/

typedef struct cake__follower cake__follower_t;

void cake__followers_begin(cake__trial_t *trial);
int cake__follower_start(cake__trial_node_t *node);
void cake__follower_stop(cake__trial_node_t *node); /* on its loop */
void cake__follower_gone(cake__trial_node_t *node); /* with the process */
void cake__follower_free(cake__trial_node_t *node);
bool cake__are_followers_told(cake__trial_t *trial, char *why, size_t size);

/* ---- calls.c ------------------------------------------------------------------------------------------------------*/

int cake__calls_serve(cake__trial_node_t *node);
void cake__calls_start(cake__trial_t *trial);
bool cake__are_calls_over(cake__trial_t *trial, char *why, size_t size);
void cake__calls_free(cake__trial_t *trial);

/* ---- chaos.c, settle.c --------------------------------------------------------------------------------------------*/

void cake__chaos_start(cake__trial_t *trial);
void cake__chaos_free(cake__trial_t *trial);
void cake__chaos_end(cake__trial_t *trial); /* mends everything, starts whoever is down */
void cake__settle(cake__trial_t *trial);    /* waits, and demands */

/* ---- operators.c --------------------------------------------------------------------------------------------------*/

void cake__node_up_and_wait(cake__trial_node_t *node);
void cake__verify_some(cake__trial_t *trial);
void cake__verify_damaged(cake__trial_t *trial);

/* ---- last.c -------------------------------------------------------------------------------------------------------*/

#define CAKE__LAST_STEPS 5

void cake__last_begin(cake__trial_t *trial);
void cake__last_step(cake__trial_t *trial, int step);
bool cake__is_step_over(cake__trial_t *trial, char *why, size_t size);

/* ---- checkers -----------------------------------------------------------------------------------------------------*/

void cake__check_acked(cake__trial_t *trial, const cake__op_t *op); /* check_acked.c */
void cake__check_refused(cake__trial_t *trial, const cake__op_t *op);
bool cake__do_levels_hold(const cake__trial_t *trial);
void cake__raise_floors(cake__trial_t *trial, const cake__op_t *op); /* check_reads.c */
cake_hlc_t cake__floor_of_read(const cake__trial_t *trial, const cake__op_t *op);
void cake__check_read(cake__trial_t *trial, const cake__op_t *op, const cake_result_t *result);
void cake__check_scan(cake__trial_t *trial, const cake__op_t *op, const cake__stamp_t *before, const cake_hlc_t *found);
void cake__check_condition(cake__trial_t *trial, const cake__op_t *op, cake_hlc_t found);
void cake__check_row(cake__disk_t *disk, const cake_write_t *write); /* check_rows.c: every row written */
void cake__check_may_turn_up(cake__trial_t *trial, const cake_write_t *write);
void cake__check_clock(cake__trial_t *trial, const cake__op_t *op); /* check_clock.c */
void cake__check_now(cake__trial_node_t *node);
void cake__check_followed(cake__trial_node_t *node, cake_hlc_t stamp);
void cake__check_change(cake__trial_node_t *node, const cake_change_t *change); /* check_watch.c */
void cake__check_told(cake__trial_t *trial);
bool cake__is_converged(cake__trial_t *trial, char *why, size_t size); /* check_convergence.c */
void cake__check_final(cake__trial_t *trial);
void cake__check_strict(cake__trial_t *trial);
void cake__check_purged(cake__trial_t *trial);
bool cake__are_tombstones_gone(cake__trial_t *trial, char *why, size_t size);
bool cake__has_lost_disks(const cake__trial_t *trial); /* or as much as that */
void cake__check_membership_change(cake__trial_node_t *node, cake_membership_kind_t kind, const cake_member_t *member);
bool cake__is_membership_exact(cake__trial_t *trial, char *why, size_t size); /* check_membership.c */
void cake__check_heap(cake__trial_node_t *node, bool is_stopped);             /* check_resources.c */
bool cake__are_queues_empty(cake__trial_t *trial, char *why, size_t size);

/* ---- the trial ----------------------------------------------------------------------------------------------------*/

typedef enum cake__trial_draw {
    CAKE__TRIAL_DRAW_PLAN,
    CAKE__TRIAL_DRAW_CLIENTS,
    CAKE__TRIAL_DRAW_CHAOS,
    CAKE__TRIAL_DRAW_DISK,
    CAKE__TRIAL_DRAW_WORKLOAD,
    CAKE__TRIAL_DRAW_SHAPE,
    CAKE__TRIAL_DRAW_CALLS,
    CAKE__TRIAL_DRAW_FOLLOWERS,
    CAKE__TRIAL_DRAW_ADDED, /* what was added later: the draws of the others stay what they were */
    CAKE__TRIAL_DRAW_LAST,
    CAKE__TRIAL_DRAW_COUNT
} cake__trial_draw_t;

struct cake_sim {
    uint64_t seed;
    cake_sim_options_t options;
    cake_sim_workload_t workload; /* what options point to, when there is one */
    cake__plan_t plan;
    cake__random_t draws[CAKE__TRIAL_DRAW_COUNT];
    cake__world_t *world;
    cake_log_t log;
    cake__trial_node_t *nodes[CAKE__TRIAL_NODES_MAX];
    cake__host_t *impostor; /* the host of a second node with an id that is taken; NULL: none */
    cake_node_t *impostor_node;
    cake_store_t *impostor_store;
    bool is_impostor_starting;
    char impostor_address[CAKE_ADDR_TEXT_MAX]; /* of the last one */
    bool was_taken_over; /* it was taken for the node while that was out of sight: as a disk that comes and is lost */
    uint32_t node_count, first_count; /* all; those it began with */
    uint32_t blocking;                /* calls of ours that wait at a gate now */
    bool is_chaotic, is_over;
    bool is_last_round;      /* all replicas are equal and count: nothing is excused */
    bool has_default_writes; /* a seed may draw fewer */
    bool was_tomorrow;       /* some clock was a day ahead */
    bool disks_hold;         /* the cluster is forming: disks do not fail yet */
    uint64_t chaos_ends_ns, calm_since_ns;
    cake__list_t happenings; /* of chaos.c, to come */

    cake__op_t **ops;
    uint32_t op_count, op_capacity;
    uint32_t step_op; /* the first of this step of the last round */
    bool is_step_late;
    cake__asked_t **asked;
    uint64_t asked_count;
    uint32_t writes_left;
    void *run; /* of the workload */
    uint32_t steps_left;
    cake_id_t *key_ids;
    cake_hlc_t *floors;  /* per majority (check_reads.c) and place: the greatest stamp that it has acknowledged */
    cake_hlc_t *deleted; /* per place: the greatest tombstone that ever was durable, on lost disks too */

    uint64_t second, second_events; /* the virtual second under way, and the events before it */
    uint64_t hash;
    cake_sim_result_t *result;
    struct cake__picture *picture; /* or NULL */
    char scratch[40];              /* directory of all files; empty: none yet */
};

static inline size_t cake__place(const cake__op_t *op, uint32_t item)
{
    return (size_t)op->keyspace * op->trial->plan.keys + op->keys[item];
}

static inline uint64_t cake__below(cake__trial_t *trial, cake__trial_draw_t draw, uint64_t bound)
{
    return cake__random_below(&trial->draws[draw], bound);
}

static inline bool cake__chance(cake__trial_t *trial, cake__trial_draw_t draw, double rate)
{
    return cake__random_unit(&trial->draws[draw]) < rate;
}

static inline bool cake__has_failed(const cake__trial_t *trial)
{
    return trial->result->violation[0] != '\0';
}

/* The first one counts. */
void cake__violation(cake__trial_t *trial, const char *checker, const char *format, ...) CAKE_PRINTF(3, 4);
void cake__dump(cake__trial_t *trial); /* the state of all replicas into the trace, when there is one */
/* Something that happened: a line of the trace, with the time in front, part of its hash, and a mark of the picture. */
typedef enum cake__mark {
    CAKE__MARK_NONE, /* the picture has it from elsewhere */
    CAKE__MARK_EVENT,
    CAKE__MARK_DEATH
} cake__mark_t;

void cake__note(cake__trial_t *trial, const char *format, ...) CAKE_PRINTF(2, 3); /* to the cluster */
void cake__note_of(cake__trial_node_t *node, cake__mark_t mark, const char *format, ...) CAKE_PRINTF(3, 4);
void cake__note_detail(cake__trial_t *trial, const char *format, ...)
    CAKE_PRINTF(2, 3); /* of a dump: in the trace alone */

/* ---- picture.c ----------------------------------------------------------------------------------------------------*/

typedef struct cake__picture cake__picture_t;

typedef enum cake__look {
    CAKE__LOOKS_DOWN,
    CAKE__LOOKS_UP,
    CAKE__LOOKS_PAUSED,
    CAKE__LOOKS_SLOW,
    CAKE__LOOKS_CUT
} cake__look_t;

/* Nothing without a picture. Row 0 is the net. */
void cake__picture_look(cake__trial_t *trial, uint32_t row, cake__look_t look);
void cake__picture_mark(cake__trial_t *trial, uint32_t row, cake__mark_t mark, const char *text);
void cake__picture_flight(void *trial, uint32_t from, uint32_t to, uint64_t arrives_ns, size_t bytes, bool is_stream);
void cake__picture_end(cake__trial_t *trial); /* draws what was gathered; before the trial goes */
int cake__sim_run(uint64_t seed, const cake_sim_options_t *options, cake_sim_result_t *result,
                  cake__picture_t *picture); /* sim.c */

cake_log_t cake__trace_log(cake__trial_t *trial);

void *cake__sim_alloc(size_t size); /* zeroed; stops the program when there is none */

#endif
