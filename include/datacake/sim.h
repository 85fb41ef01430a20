/* datacake/sim.h: whole clusters in one thread under virtual time, from one seed. The same seed gives the same run, event by
 * event, on every machine; another seed draws other faults, another schedule, other operations.
 *
 *   cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
 *   cake_sim_result_t result;
 *   cake_sim_run(42, &options, &result);
 *   if (!result.ok) puts(result.violation);
 *
 * A run starts a cluster, lets faults and clients loose, heals everything, and then demands that the replicas become equal, that
 * no acknowledged write is missing, that nothing deleted has come back, that tombstones go and memory is bounded. Nothing here
 * uses clocks, sockets, threads or files of the machine. A run belongs to the thread that calls it; several threads may each have
 * one. */
#ifndef DATACAKE_SIM_H
#define DATACAKE_SIM_H

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
    X(FORGET, 21, "forget", "nodes away for so long that they are forgotten, and come back")

enum cake_sim_fault {
#define CAKE_SIM_FAULT_ENUM(symbol, bit, name, text) CAKE_SIM_##symbol = 1 << (bit),
    CAKE_SIM_FAULTS(CAKE_SIM_FAULT_ENUM)
#undef CAKE_SIM_FAULT_ENUM
};

#define CAKE_SIM_ALL     (((1u << 22) - 1) & ~(1u << 20)) /* all but ALLOC */
#define CAKE_SIM_NOTHING (1u << 31)                       /* no fault at all: 0 means the default */

/* Zero: the default in parentheses. */
typedef struct cake_sim_options {
    size_t size;
    uint32_t nodes;                             /* (5) at the beginning; at most 32 */
    uint32_t seconds;                           /* (60) of virtual time; more where healing takes longer */
    uint32_t writes;                            /* (500) put and deleted documents */
    uint32_t keys;                              /* (drawn) per keyspace, few, so that writes meet */
    uint32_t keyspaces;                         /* (drawn) */
    uint32_t faults;                            /* (CAKE_SIM_ALL) kinds that a seed may draw */
    bool force_faults;                          /* every kind of faults is on, none is left to the seed */
    bool no_shutdown_check;                     /* the cluster is not stopped at the end */
    void (*trace)(void *arg, const char *line); /* what happens, for people */
    void *trace_arg;
    cake_log_level_t least_log; /* the nodes' own log in the trace, from here up; needs has_log */
    bool has_log;
    bool has_events; /* each event of each host in the trace: thousands per virtual second */
} cake_sim_options_t;

#define CAKE_SIM_OPTIONS_INIT                                                                                          \
    {                                                                                                                  \
        .size = sizeof(cake_sim_options_t)                                                                             \
    }

typedef struct cake_sim_result {
    uint64_t seed;
    bool ok;
    char violation[512];               /* the first one, with the checker's name and the virtual time; empty when ok */
    char faults[1024];                 /* what the seed drew, for people */
    uint64_t trace_hash;               /* equal for equal runs */
    uint64_t virtual_ms, converged_ms; /* how long all took; from healing to equality */
    uint64_t events;
    uint64_t changes_told, scans;
    uint64_t writes_asked, writes_acked, writes_refused, writes_unknown, reads;
    uint64_t crashes, stops, disk_losses, partitions, pauses, jumps, disk_errors, joins, forgotten;
    uint64_t sessions, repairs, tombstones_purged;
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

#define CAKE_SIM_RANGE_INIT                                                                                            \
    {                                                                                                                  \
        .size = sizeof(cake_sim_range_t)                                                                               \
    }

/* How many failed. */
CAKE_API uint64_t cake_sim_run_range(const cake_sim_range_t *range, const cake_sim_options_t *options);

/* Looks for a smaller run that fails too: fewer kinds of faults, nodes, writes, seconds. options: in, what failed; out, the
 * smallest found. Returns the runs it took; *result is that of the smallest. */
CAKE_API unsigned cake_sim_shrink(uint64_t seed, cake_sim_options_t *options, cake_sim_result_t *result,
                                  unsigned runs_max);

/* "loss,crash" <-> bits; "all", "none". CAKE_EPARSE. */
CAKE_API int cake_sim_faults_parse(const char *text, uint32_t *out);
CAKE_API void cake_sim_faults_format(uint32_t faults, char *out, size_t size);

#ifdef __cplusplus
}
#endif
#endif
