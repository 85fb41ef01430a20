/* simenv.h: many simulated hosts in one thread, with virtual time, from one seed: the environment of <datacake/env.h>
 * for simulations and for tests. Nothing here reads a clock, a socket or a random source of the machine, so one seed
 * gives one run, event by event.
 *
 *      world --- host 1 (10.0.0.1, "host-1") --- its environment while it is up
 *        |   \-- host 2 (10.0.0.2, "host-2") --- ...
 *        \------ links, one for each ordered pair of hosts; faults; one queue of events keyed by (time, sequence)
 *
 * A step takes the next event, moves the virtual time to it, runs its callback and what that deferred. Everything
 * stands still between steps. Code outside of any event plays the application's threads: gate_wait called there runs
 * the world until the gate opens.
 *
 * The world's own bookkeeping is no part of any simulated heap; when the real heap has nothing left, it stops the
 * program. Everything here belongs to the one thread that uses the world. */
#ifndef CAKE_SIM_ENV_SIMENV_H
#define CAKE_SIM_ENV_SIMENV_H

#include <datacake/env.h>

#include "base/base.h"

typedef struct cake__world cake__world_t;
typedef struct cake__host cake__host_t;

/* How often what goes wrong: chances from 0 to 1 each time the named thing happens; all zero: nothing goes wrong.
 * Each kind draws from a stream of its own: changing one rate leaves the draws of the others where they were. */
typedef struct cake__faults {
    /* streams; a flight is the bytes of one write (or what fitted of it) on their way */
    double segment_rate;         /* a read gets a random part of the bytes that are there */
    double stall_rate;           /* a flight, and all behind it, is late by up to stall_max_ns */
    double reset_rate;           /* a flight breaks the stream for both ends at a random byte of it */
    double half_open_rate;       /* the same, but only one of the ends hears of it */
    double black_hole_rate;      /* a new connection loses one direction silently, at a random byte */
    double connect_refuse_rate;  /* a connect is refused */
    double connect_timeout_rate; /* a connect gets no answer */
    uint64_t stall_max_ns;       /* 0: 5 s */
    /* datagrams */
    double loss_rate, duplicate_rate;
    double reorder_rate;     /* late by up to reorder_max_ns, so that others overtake it */
    uint64_t reorder_max_ns; /* 0: 50 ms */
    /* the rest */
    double resolve_fail_rate;   /* a name is not found */
    double lane_stall_rate;     /* a piece of work starts late by up to lane_stall_max_ns */
    uint64_t lane_stall_max_ns; /* 0: 2 s */
    double clock_jump_rate;     /* a reading of a wall clock first moves it by up to clock_jump_max_ms, either way */
    uint64_t clock_jump_max_ms; /* 0: 24 h */
    double alloc_fail_rate;     /* an allocation of a host fails */
} cake__faults_t;

/* Zero means the default given with each line. */
typedef struct cake__world_options {
    uint64_t seed;
    cake__faults_t faults;
    uint64_t latency_min_ns, latency_max_ns;    /* one way between two hosts, drawn per flight: 100 µs to 1 ms */
    uint64_t lane_min_ns, lane_max_ns;          /* from submit to run, and from run to done: 10 µs to 500 µs */
    uint64_t connect_timeout_ns;                /* 30 s */
    uint64_t give_up_min_ns, give_up_max_ns;    /* how long a sender waits for a stalled path: 20 s to 60 s */
    uint64_t clock_offset_max_ms;               /* wall clocks start off by up to this, either way: 0 */
    uint64_t clock_drift_max_ppm;               /* and run fast or slow by up to this: 0 */
    size_t stream_buffer_bytes;                 /* in flight and unread, per direction: 256 KiB */
    const cake_alloc_t *alloc;                  /* the world's own memory: the C library's */
    const cake_log_t *log;                      /* what the hosts log, with time and host in front: nothing */
    void (*trace)(void *arg, const char *line); /* one line per event: none */
    void *trace_arg;
    /* Each datagram, and each flight of bytes of a stream, as it leaves; arrives_ns 0: it is lost. For pictures:
     * none. */
    void (*flight)(void *arg, uint32_t from, uint32_t to, uint64_t arrives_ns, size_t bytes, bool is_stream);
    void *flight_arg;
} cake__world_options_t;

#define CAKE__HOSTS_MAX              4096u /* per world */
#define CAKE__WORLD_WALL_START_MS    UINT64_C(1750000000000)
#define CAKE__WORLD_WAIT_MAX_NS      (UINT64_C(86400000) * CAKE_NS_PER_MS) /* a longer wait at a gate is a dead lock */
#define CAKE__WORLD_SAME_TIME_EVENTS 20000000u /* more events than this at one time is a live lock */

int cake__world_new(const cake__world_options_t *options, cake__world_t **out); /* CAKE_ENOMEM */
void cake__world_free(cake__world_t *world); /* crashes what is still up; NULL is fine */

/* The next number, up, with an environment; the first host is number 1. */
cake__host_t *cake__world_add_host(cake__world_t *world);
cake__host_t *cake__world_host(const cake__world_t *world, uint32_t number); /* NULL when there is none */
uint32_t cake__world_host_count(const cake__world_t *world);

/* ---- running ---- */

bool cake__world_step(cake__world_t *world); /* false: no event is left */
/* Runs until done(arg), asked after each event, is true (gives true), or until the virtual time is until_ns. */
bool cake__world_run_until(cake__world_t *world, bool (*done)(void *arg), void *arg, uint64_t until_ns);
void cake__world_run_for(cake__world_t *world, uint64_t duration_ns);
/* Runs fn(arg) at that time outside of any host: for scenarios. It may do what application threads may. */
void cake__world_at(cake__world_t *world, uint64_t at_ns, cake_event_fn fn, void *arg);

uint64_t cake__world_now_ns(const cake__world_t *world);           /* true time since the start */
uint64_t cake__world_wall_ms(const cake__world_t *world);          /* true Unix time */
void cake__world_jump_clock(cake__world_t *world, uint64_t by_ms); /* true Unix time, and with it that of all hosts */
uint64_t cake__world_event_count(const cake__world_t *world);
uint64_t cake__world_trace_hash(const cake__world_t *world); /* of time, host and kind of all events so far */
uint64_t cake__world_draw(cake__world_t *world);             /* the scenario's own stream of random numbers */

/* ---- faults of the net ---- */

void cake__world_set_faults(cake__world_t *world, const cake__faults_t *faults); /* NULL: none from now on */
/* While from -> to is cut, datagrams are lost, bytes wait until it is mended or their sender gives up, and connects
 * either way get no answer. Hosts are numbers. */
void cake__world_cut(cake__world_t *world, uint32_t from, uint32_t to, bool is_cut);
void cake__world_cut_both(cake__world_t *world, uint32_t a, uint32_t b, bool is_cut);
void cake__world_slow_link(cake__world_t *world, uint32_t from, uint32_t to, uint64_t extra_latency_ns);
void cake__world_heal(cake__world_t *world); /* mends every link and takes the slowness away */

/* ---- hosts ---- */

cake_env_t *cake__host_env(const cake__host_t *host); /* NULL while it is down */
uint32_t cake__host_number(const cake__host_t *host);
const char *cake__host_name(const cake__host_t *host); /* "host-7" */
void cake__host_addr(const cake__host_t *host, uint16_t port, cake_addr_t *out);

typedef enum cake__crash {
    CAKE__CRASH_DRAWN, /* one of the others, by the seed */
    CAKE__CRASH_RESET, /* the process died: peers' streams are reset, connects refused */
    CAKE__CRASH_SILENT /* the machine died: nothing answers until it starts again, and then with resets */
} cake__crash_t;

/* Never inside one of its own events. Its environment and every block of its heap are gone at once; no callback of it
 * runs again. Work that ran on a lane has had its effect, its done is never called. */
void cake__host_crash(cake__host_t *host, cake__crash_t how);
bool cake__host_is_silent(const cake__host_t *host); /* its machine died, and has not started again */
cake_env_t *cake__host_start(cake__host_t *host);    /* a down host: after a crash or a close; a new environment */

void cake__host_pause(cake__host_t *host); /* its events wait, as by SIGSTOP */
void cake__host_resume(cake__host_t *host);
void cake__host_slow(cake__host_t *host, uint64_t event_cost_ns); /* each of its events takes so long; 0: none */
void cake__host_jump_clock(cake__host_t *host, int64_t by_ms);
void cake__host_drift_clock(cake__host_t *host, int64_t ppm); /* from now on */
void cake__host_mend_clock(cake__host_t *host); /* what the world's is, and no drift; also while it is down */

typedef struct cake__heap_stats {
    size_t live_blocks, live_bytes, peak_bytes;
    uint64_t allocations; /* so far, growing ones of realloc included; from the start of the environment */
    uint64_t failed;
} cake__heap_stats_t;

void cake__host_heap_stats(const cake__host_t *host, cake__heap_stats_t *out); /* of a closed environment too */
/* The nth allocation from now on fails, 1 being the next; 0: none does. With and_all_after, the later ones too. */
void cake__host_fail_alloc(cake__host_t *host, uint64_t nth, bool and_all_after);

#endif
