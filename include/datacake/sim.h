/* datacake/sim.h: whole clusters in one thread under virtual time, from one seed. The same seed gives the same run,
 * event by event, on every machine; another seed draws other faults, another schedule, other operations.
 *
 *   cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
 *   cake_sim_result_t result;
 *   cake_sim_run(42, &options, &result);
 *   if (!result.ok) puts(result.violation);
 *
 * A run starts a cluster, lets faults and clients loose, heals everything, and then demands that the replicas become
 * equal, that no acknowledged write is missing, that nothing deleted has come back, that tombstones go and memory is
 * bounded. Nothing here uses clocks, sockets or threads of the machine, or its files but for those of SQLite's storage.
 * A run belongs to the thread that calls it; several threads may each have one. */
#ifndef DATACAKE_SIM_H
#define DATACAKE_SIM_H

#include <stdio.h>

#include <datacake/store.h>

#ifdef __cplusplus
extern "C" {
#endif

/* bit, name, what it is. Numbers are part of how seeds are replayed: they are never reused. */
#define CAKE_SIM_FAULTS(X)                                                                                             \
    X(DELAY, 0, "delay", "longer ways between hosts")                                                                  \
    X(LOSS, 1, "loss", "datagrams are lost")                                                                           \
    X(DUPLICATE, 2, "duplicate", "datagrams arrive twice")                                                             \
    X(REORDER, 3, "reorder", "datagrams overtake each other")                                                          \
    X(SEGMENT, 4, "segment", "streams arrive in random pieces")                                                        \
    X(STALL, 5, "stall", "streams stand still for seconds")                                                            \
    X(RESET, 6, "reset", "streams break at any byte")                                                                  \
    X(HALF_OPEN, 7, "half-open", "streams break, and one end does not hear of it")                                     \
    X(BLACK_HOLE, 8, "black-hole", "connections lose one direction silently")                                          \
    X(CONNECT, 9, "connect", "connections are refused or get no answer")                                               \
    X(PARTITION, 10, "partition", "partitions: symmetric, one-way, partial, flapping")                                 \
    X(PAUSE, 11, "pause", "hosts stop for a while, as by SIGSTOP")                                                     \
    X(SLOW, 12, "slow", "hosts take long for everything")                                                              \
    X(CRASH, 13, "crash", "nodes die at any moment and start again")                                                   \
    X(STOP, 14, "stop", "nodes leave gracefully and come back")                                                        \
    X(CLOCK, 15, "clock", "wall clocks are off, drift and jump")                                                       \
    X(LANE, 16, "lane", "storage threads stall")                                                                       \
    X(DISK_ERROR, 17, "disk-error", "writes and reads of storages fail, also with effect")                             \
    X(DISK_LOSS, 18, "disk-loss", "a node comes back with an empty storage")                                           \
    X(JOIN, 19, "join", "new nodes join")                                                                              \
    X(ALLOC, 20, "alloc", "allocations fail; only when asked for")                                                     \
    X(FORGET, 21, "forget", "nodes away for so long that they are forgotten, and come back")                           \
    X(DUPLICATE_ID, 22, "duplicate-id", "a second node starts with the id of another")                                 \
    X(DUPLICATE_STORE, 23, "duplicate-store", "and opens a store, too")

enum cake_sim_fault {
#define CAKE_SIM_FAULT_ENUM(symbol, bit, name, text) CAKE_SIM_##symbol = 1 << (bit),
    CAKE_SIM_FAULTS(CAKE_SIM_FAULT_ENUM)
#undef CAKE_SIM_FAULT_ENUM
};

/* What nodes keep their documents in. SQLite's files are on a disk that loses what was not synced when a machine dies,
 * tears writes, and fails; they are in a scratch directory in /dev/shm or /tmp, which is removed. */
typedef enum cake_sim_storage {
    CAKE_SIM_STORAGE_DRAWN,
    CAKE_SIM_STORAGE_MEMORY,
    CAKE_SIM_STORAGE_SQLITE
} cake_sim_storage_t;

#define CAKE_SIM_ALL     (((1u << 24) - 1) & ~(1u << 20)) /* all but ALLOC */
#define CAKE_SIM_NOTHING (1u << 31)                       /* no fault at all: 0 means the default */

/* Zero: the default in parentheses. */
typedef struct cake_sim_options {
    size_t size;
    uint32_t nodes;         /* (drawn, 5 in half of the runs) at the beginning; at most 32 */
    uint32_t seconds;       /* (60) of virtual time; more where healing takes longer */
    uint32_t writes;        /* (500, an eighth in one run of 8; none with a workload) put and deleted documents */
    uint32_t keys;          /* (drawn) per keyspace, few, so that writes meet */
    uint32_t keyspaces;     /* (drawn) */
    uint32_t faults;        /* (CAKE_SIM_ALL) kinds that a seed may draw */
    bool force_faults;      /* every kind of faults is on, none is left to the seed */
    bool no_shutdown_check; /* the cluster is not stopped at the end */
    void (*trace)(void *arg, const char *line); /* what happens, for people */
    void *trace_arg;
    cake_log_level_t least_log; /* the nodes' own log in the trace, from here up; needs has_log */
    bool has_log;
    bool has_events;                          /* each event of each host in the trace: thousands per virtual second */
    const struct cake_sim_workload *workload; /* (none) code of yours that runs in the cluster */
    uint32_t steps;                           /* (200) of the workload's clients */
    cake_sim_storage_t storage;               /* (drawn: SQLite in one run of 16) unless the workload brings its own */
} cake_sim_options_t;

#define CAKE_SIM_OPTIONS_INIT CAKE_SIZED(cake_sim_options_t)

typedef struct cake_sim_result {
    uint64_t seed;
    bool ok;
    char violation[512];               /* the first one, with the checker's name and the virtual time; empty when ok */
    char faults[1024];                 /* what the seed drew, for people */
    uint64_t trace_hash;               /* equal for equal runs */
    uint64_t virtual_ms, converged_ms; /* how long all took; from healing to equality */
    uint32_t nodes;                    /* at the beginning */
    cake_sim_storage_t storage;        /* what it was */
    uint64_t events;
    uint64_t changes_told, scans;
    uint64_t writes_asked, writes_acked, writes_refused, writes_unknown, reads;
    uint64_t crashes, stops, disk_losses, partitions, pauses, jumps, disk_errors, joins, forgotten, ids_reused,
        ids_doubled;
    uint64_t sessions, repairs, tombstones_purged, steps, calls, calls_failed, fetches;
    uint64_t peak_heap_bytes; /* of the host with the most */
} cake_sim_result_t;

/* CAKE_EINVAL (options). A violation is a result, no error. */
CAKE_API int cake_sim_run(uint64_t seed, const cake_sim_options_t *options, cake_sim_result_t *result);

/* Many: seeds from `from` on, until `count` have run, `failures_max` have failed or done says so. Each twentieth
 * (by its number) runs twice and must give the same hash. */
typedef struct cake_sim_range {
    size_t size;
    uint64_t from, count;
    uint64_t failures_max; /* (1) */
    /* After each seed; return anything but 0 to stop. */
    int (*done)(void *arg, const cake_sim_result_t *result);
    void (*begin)(void *arg, uint64_t seed); /* before each; may be NULL */
    void *arg;
} cake_sim_range_t;

#define CAKE_SIM_RANGE_INIT CAKE_SIZED(cake_sim_range_t)

/* How many failed. */
CAKE_API uint64_t cake_sim_run_range(const cake_sim_range_t *range, const cake_sim_options_t *options);

/* Looks for a smaller run in which the same checker objects: fewer kinds of faults, nodes, writes, seconds; its seed
 * may be another. options: in, what failed; out, the smallest found. *result is that of the smallest, with its seed.
 * Returns the runs it took. */
CAKE_API unsigned cake_sim_shrink(uint64_t seed, cake_sim_options_t *options, cake_sim_result_t *result,
                                  unsigned runs_max);

/* ---- code of yours in simulated clusters ----------------------------------------------------------------------------
 * Services, extensions, a storage, clients and a rule that must hold:
 *
 *   options.workload = &(cake_sim_workload_t){.size = sizeof(cake_sim_workload_t),
 *                                             .start = add_services, .step = call_one, .check = compare_all};
 *
 * The runs and their faults are the same as without: nodes start, crash and come back, and `start` runs each time. For
 * one seed to give one run your code must take time, random numbers and memory addresses for nothing that it does:
 * cake_sim_draw and cake_sim_now_ms are there for that, cake_node_env(node) inside of services. It starts no threads.
 *
 * Every hook may be NULL. All but `step` run outside of the nodes' loops, as threads of an application do: calls that
 * wait are allowed, and hooks of other nodes run meanwhile. None but `gone` runs for a node that is down. */
typedef struct cake_sim cake_sim_t; /* a run under way */

#if defined(__GNUC__)
#define CAKE_SIM_PRINTF(format_at, args_at) __attribute__((format(printf, format_at, args_at)))
#else
#define CAKE_SIM_PRINTF(format_at, args_at)
#endif

typedef struct cake_sim_workload {
    size_t size;
    const char *name;
    void *arg;
    void *(*begin)(cake_sim_t *sim, void *arg); /* what it returns is `run` below; without it that is arg */
    void (*end)(void *run);                     /* everything is gone; frees what begin made */

    /* The storage of a node instead of the simulated disk; called at each start of it. is_empty: it has none yet, or
     * lost its disk: nothing of before may be seen. Errors of the disk and of reads are drawn around it. `crashed`
     * frees it when its process dies, and loses what is not durable; without it `close` is called, and nothing is lost.
     * At each start every row that was written must be there. */
    int (*open_storage)(void *run, cake_sim_t *sim, uint16_t node_id, bool is_empty, cake_storage_t **storage);
    void (*crashed)(void *run, cake_sim_t *sim, uint16_t node_id, cake_storage_t *storage);

    /* A node has started and has opened its store: add services and extensions, watch. An error is a start that failed:
     * the node is stopped and tried again, so it must not fail for good. */
    int (*start)(void *run, cake_sim_t *sim, uint16_t node_id, cake_node_t *node, cake_store_t *store);
    /* Its process is gone, by a crash or a stop: no callback of that start comes any more, node and store are no
     * more. */
    void (*gone)(void *run, cake_sim_t *sim, uint16_t node_id);
    /* What a client does, options.steps times in the time of chaos, each time on some node that is up, on its loop:
     * calls with callbacks only, which do not come any more once `gone` has run. */
    void (*step)(void *run, cake_sim_t *sim, uint16_t node_id, cake_node_t *node, cake_store_t *store);
    /* Everything is mended, all nodes are up and their stores equal. */
    void (*check)(void *run, cake_sim_t *sim);
} cake_sim_workload_t;

/* Your rule is broken: the run ends as failed. The first one counts. */
CAKE_API void cake_sim_fail(cake_sim_t *sim, const char *rule, const char *format, ...) CAKE_SIM_PRINTF(3, 4);
CAKE_API void cake_sim_note(cake_sim_t *sim, const char *format, ...) CAKE_SIM_PRINTF(2, 3); /* a line of the trace */
CAKE_API uint64_t cake_sim_draw(cake_sim_t *sim);             /* 64 random bits of the seed */
CAKE_API uint64_t cake_sim_now_ms(const cake_sim_t *sim);     /* virtual time */
CAKE_API bool cake_sim_is_mended(const cake_sim_t *sim);      /* the chaos is over: nothing may fail any more */
CAKE_API uint32_t cake_sim_node_count(const cake_sim_t *sim); /* their ids are 1 to this */
CAKE_API cake_node_t *cake_sim_node(const cake_sim_t *sim, uint16_t id);   /* NULL while it is not up */
CAKE_API cake_store_t *cake_sim_store(const cake_sim_t *sim, uint16_t id); /* likewise */

/* ---- a picture --------------------------------------------------------------------------------------------------- */

#define CAKE_SIM_SVG_MAX_BYTES (4u << 20)

/* Runs the seed and draws it as SVG: a row per node, time to the right; messages, faults, operations and the violation.
 * Of a long run its last part, with the messages nearest to its end. result may be NULL. What cake_sim_run returns, or
 * CAKE_EIO. */
CAKE_API int cake_sim_draw_svg(uint64_t seed, const cake_sim_options_t *options, FILE *out, cake_sim_result_t *result);

/* ---- the membership core alone --------------------------------------------------------------------------------------
 * Message by message, without hosts and stores, for clusters of a thousand: crashes, pauses, partitions, loss. Nobody
 * who runs may be declared dead, every crash must be known to all, and in the end all must see all. */

#define CAKE_SIM_MEMBERS_MAX 5000u

typedef struct cake_sim_members_result {
    uint64_t seed;
    bool ok;
    char violation[256];
    double loss; /* of datagrams, drawn */
    uint64_t formed_ms, healed_ms, crash_known_ms_most, virtual_ms;
    uint64_t crashes, pauses, partitions, false_deaths, steps, bytes; /* bytes: sent by all */
} cake_sim_members_result_t;

/* CAKE_EINVAL: members is to be 2 to CAKE_SIM_MEMBERS_MAX, seconds (of faults, in virtual time) at most a day. */
CAKE_API int cake_sim_members(uint64_t seed, uint32_t members, uint32_t seconds, cake_sim_members_result_t *result);

/* ---- every interleaving of small cases ------------------------------------------------------------------------------
 * Sets (<datacake/orswot.h>) in every order of writes, deletes, single operations that arrive late or never, steps of
 * sessions, purges, purges without a replica that is then forgotten, and crashes; states that are equal are looked at
 * once. In each of them the invariants of the model must hold, and from each of them whole sessions must make all
 * replicas equal. */

#define CAKE_SIM_EXPLORE_NONE       UINT32_MAX
#define CAKE_SIM_EXPLORE_STATES_MAX UINT64_C(50000000)

/* How many of each there may be; zero: the default in parentheses, CAKE_SIM_EXPLORE_NONE: none. */
typedef struct cake_sim_explore_options {
    size_t size;
    uint32_t replicas;                 /* (3) 2 to 4 */
    uint32_t keys;                     /* (1) at most 3 */
    uint32_t writes;                   /* (2) puts and deletes, at most 6 */
    uint32_t sessions;                 /* (1) that may be open at once or cut, at most 4 */
    uint32_t purges, forgets, crashes; /* (1) at most 8 each */
    uint64_t max_states;               /* (20,000) then it ends, incomplete */
} cake_sim_explore_options_t;

#define CAKE_SIM_EXPLORE_OPTIONS_INIT CAKE_SIZED(cake_sim_explore_options_t)

typedef struct cake_sim_explore_result {
    bool ok, is_complete;
    uint64_t states, transitions;
    uint32_t longest; /* steps of the longest way */
    char violation[256];
    char way[2048]; /* the steps that lead there, a shortest way */
} cake_sim_explore_result_t;

/* CAKE_EINVAL (options), CAKE_ENOMEM. options may be NULL. A violation is a result. */
CAKE_API int cake_sim_explore(const cake_sim_explore_options_t *options, cake_sim_explore_result_t *result);

/* "loss,crash" <-> bits; "all", "none". CAKE_EPARSE. */
CAKE_API int cake_sim_faults_parse(const char *text, uint32_t *out);
CAKE_API void cake_sim_faults_format(uint32_t faults, char *out, size_t size);

#ifdef __cplusplus
}
#endif
#endif
