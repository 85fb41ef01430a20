/* world.h: the inside of simulated hosts.
 *
 *   world.c     the queue of events and the step; links; faults           host.c   life and death, clocks, heap
 *   loop.c      timers, posts, deferred calls, gates, lanes               stream.c connections, listeners, streams
 *   datagram.c  datagrams and names                                       pipe.c   bytes under way in one direction
 *
 * What a process has (simenv, listeners, stream handles, lanes) is gone when it crashes; what the machine or the net
 * has (host, connections, packets) is the world's memory and stays. Events of a process carry its incarnation: when
 * it is not the host's any more, the event is dropped. */
#ifndef CAKE_SIM_ENV_WORLD_H
#define CAKE_SIM_ENV_WORLD_H

#include "base/heap.h"
#include "base/list.h"
#include "base/random.h"
#include "env/schedule.h"
#include "sim/env/simenv.h"

/* kind, handler. Events of the net have no host: they happen whether or not a host can run. */
#define CAKE__SIM_EVENTS(X)                                                                                            \
    X(TIMER, cake__sim_run_timer)                                                                                      \
    X(POST, cake__sim_run_post)                                                                                        \
    X(WAKE, NULL)                                                                                                      \
    X(CALL, cake__sim_run_call)                                                                                        \
    X(LANE_RUN, cake__sim_run_lane_work)                                                                               \
    X(LANE_DONE, cake__sim_run_lane_done)                                                                              \
    X(LANE_CLOSED, cake__sim_run_lane_closed)                                                                          \
    X(CONNECT, cake__sim_run_connect)                                                                                  \
    X(ACCEPT, cake__sim_run_accept)                                                                                    \
    X(CONNECTED, cake__sim_run_connected)                                                                              \
    X(ARRIVE, cake__sim_run_arrive)                                                                                    \
    X(GIVE_UP, cake__sim_run_give_up)                                                                                  \
    X(READ, cake__sim_run_read)                                                                                        \
    X(WRITE, cake__sim_run_write)                                                                                      \
    X(CLOSED, cake__sim_run_stream_closed)                                                                             \
    X(LISTENER_CLOSED, cake__sim_run_listener_closed)                                                                  \
    X(DATAGRAM, cake__sim_run_datagram)                                                                                \
    X(DATAGRAM_CLOSED, cake__sim_run_datagram_closed)                                                                  \
    X(RESOLVED, cake__sim_run_resolved)

typedef enum cake__sim_kind {
#define CAKE__SIM_EVENT_ENUM(name, handler) CAKE__SIM_##name,
    CAKE__SIM_EVENTS(CAKE__SIM_EVENT_ENUM)
#undef CAKE__SIM_EVENT_ENUM
} cake__sim_kind_t;

typedef struct cake__sim_event {
    cake__list_t parked; /* in host->parked */
    cake__host_t *host;  /* NULL: of the net or of the scenario */
    void *object;
    size_t index; /* in the queue; SIZE_MAX: parked or free */
    uint32_t incarnation;
    cake__sim_kind_t kind;
} cake__sim_event_t;

/* One stream of random numbers per reason to draw. New ones go to the end, so that the others stay as they are. */
typedef enum cake__draw {
    CAKE__DRAW_SCENARIO,
    CAKE__DRAW_LATENCY,
    CAKE__DRAW_SEGMENT,
    CAKE__DRAW_STALL,
    CAKE__DRAW_RESET,
    CAKE__DRAW_HALF_OPEN,
    CAKE__DRAW_BLACK_HOLE,
    CAKE__DRAW_REFUSE,
    CAKE__DRAW_CONNECT_TIMEOUT,
    CAKE__DRAW_GIVE_UP,
    CAKE__DRAW_LOSS,
    CAKE__DRAW_DUPLICATE,
    CAKE__DRAW_REORDER,
    CAKE__DRAW_RESOLVE,
    CAKE__DRAW_LANE,
    CAKE__DRAW_LANE_STALL,
    CAKE__DRAW_CLOCK,
    CAKE__DRAW_CLOCK_JUMP,
    CAKE__DRAW_ALLOC,
    CAKE__DRAW_CRASH,
    CAKE__DRAW_COUNT
} cake__draw_t;

typedef struct cake__sim_slot {
    uint64_t at_ns, sequence;
    cake__sim_event_t *event;
} cake__sim_slot_t;

typedef struct cake__sim_link {
    uint64_t extra_latency_ns;
    bool is_cut;
} cake__sim_link_t;

void cake__sim_note_flight(cake__host_t *from, cake__host_t *to, uint64_t arrives_ns, size_t bytes, bool is_stream);

struct cake__world {
    cake__world_options_t options;
    const cake_alloc_t *alloc;
    uint64_t now_ns, wall_jumped_ms, sequence;
    uint64_t event_count, trace_hash, same_time_count;
    cake__sim_slot_t *queue; /* a heap of four children per node */
    size_t queue_len, queue_capacity;
    cake__list_t free_events; /* through event->parked */
    cake__host_t **hosts;     /* host number n at n - 1 */
    uint32_t host_count, host_capacity;
    cake__sim_link_t *links; /* from * link_stride + to, counted from 0 */
    uint32_t link_stride;
    cake__host_t *current; /* whose event runs now */
    bool in_lane;          /* it is work of a lane, not the loop */
    cake__list_t connections;
    cake__random_t draws[CAKE__DRAW_COUNT];
};

typedef struct cake__simenv {
    cake_env_t base;
    cake__host_t *host;
    cake__timers_t timers;
    cake__sim_event_t *timer_event; /* for the least of the timers */
    uint64_t timer_event_deadline_ns;
    cake_post_t *first_post, **last_post;
    cake__deferreds_t deferreds;
    cake__list_t listeners, sockets;
    size_t open_count; /* listeners, streams, lanes, datagram sockets, resolves: 0 when it is closed */
} cake__simenv_t;

/* A block of a simulated heap begins with this. */
typedef struct cake__sim_block {
    cake__list_t in_host;
    size_t size;
    cake__host_t *host; /* another host's free is a bug that no real machine would let pass */
} cake__sim_block_t;

struct cake__host {
    cake__world_t *world;
    uint32_t number, incarnation;
    char name[16];
    cake__simenv_t *env; /* NULL while down */
    bool is_silent;      /* down, and its machine too */
    bool is_paused;
    uint64_t busy_until_ns, event_cost_ns;
    cake__list_t parked; /* events that were due while it could not run, in their order */
    cake__sim_event_t *wake;
    size_t parked_packets;
    /* clocks */
    uint64_t monotonic_base_ns; /* machines boot at different times: never compare across hosts */
    int64_t wall_offset_ms, drift_ppm;
    uint64_t drift_since_ns;
    cake__random_t random;
    uint16_t next_port;
    /* the heap of the process */
    cake__list_t blocks;
    cake__heap_stats_t heap;
    uint64_t fail_in;
    bool fail_all_after;
};

/* ---- connections: what the net knows of a stream -------------------------------------------------------------------
 *
 *      ends[0] (connected) ==== pipes[0] ====> ends[1] (accepted)
 *      ends[0]             <=== pipes[1] =====  ends[1] */
#define CAKE__SIM_FLIGHTS 8

typedef struct cake__flight {
    uint64_t arrives_ns;
    size_t bytes;
    size_t break_after; /* SIZE_MAX: never; else so many bytes arrive and then the stream breaks */
    bool breaks_one_end;
    bool is_end, is_reset; /* after the bytes */
} cake__flight_t;

typedef struct cake__pipe {
    struct cake__connection *connection;
    uint8_t *ring; /* readable bytes first, then those of the flights; NULL until the first byte */
    size_t head, len, readable;
    cake__flight_t flights[CAKE__SIM_FLIGHTS];
    unsigned first, count;
    cake__sim_event_t *arrive, *give_up;
    uint64_t black_hole_after; /* bytes; UINT64_MAX: none */
    uint64_t sent_bytes;
    bool is_black;      /* the black hole was reached: nothing comes through, acknowledgements neither */
    bool is_stalled;    /* the first flight waits for the path to be mended */
    bool is_space_held; /* the reader made space, and the way back is cut: the writer does not know */
    bool is_shut;       /* the end or a reset was sent: nothing follows */
    bool end_arrived;
} cake__pipe_t;

typedef struct cake__end {
    cake__host_t *host;
    cake_addr_t addr;
    cake_stream_t *stream; /* NULL: not accepted yet, or gone */
    bool is_gone;          /* closed by its process, or that died */
    int broken;            /* why nothing comes or goes any more; 0: it does */
} cake__end_t;

typedef struct cake__connection {
    cake__list_t in_world;
    cake__world_t *world;
    cake__end_t ends[2];
    cake__pipe_t pipes[2];
    cake_addr_t to; /* as given to connect */
    uint64_t connect_deadline_ns, retry_ns;
    cake__sim_event_t *connect, *accept;
    bool is_accepted; /* ends[1] exists */
} cake__connection_t;

/* The handle, in the heap of its process. */
struct cake_stream {
    cake__simenv_t *env;
    cake__connection_t *connection;
    unsigned side;
    cake_stream_handlers_t handlers;
    void *arg;
    bool is_started, is_connected, is_paused, is_closing, is_shut, is_writing;
    bool is_read_over; /* the end or the break was reported */
    int connect_err;
    cake_slice_t iov[CAKE_STREAM_IOV_MAX]; /* the write under way */
    size_t iov_count, iov_at, iov_offset;
    cake__sim_event_t *connected, *read, *write;
};

struct cake_listener {
    cake__list_t in_env;
    cake__simenv_t *env;
    cake_addr_t addr;
    cake_accept_fn accept;
    void *arg;
    cake_event_fn closed;
    void *closed_arg;
};

/* ---- world.c ---- */

void *cake__sim_must(void *block); /* stops the program when the world has no memory */
cake__sim_event_t *cake__sim_schedule(cake__world_t *world, cake__sim_kind_t kind, cake__host_t *host, uint64_t at_ns,
                                      void *object);
void cake__sim_cancel(cake__world_t *world, cake__sim_event_t **event); /* *event may be NULL; sets it to NULL */
void cake__sim_unpark_all(cake__host_t *host);                          /* drops them: their process is gone */
void cake__sim_wake(cake__host_t *host);
bool cake__sim_happens(cake__world_t *world, cake__draw_t draw, double rate);
uint64_t cake__sim_between(cake__world_t *world, cake__draw_t draw, uint64_t least, uint64_t most);
cake__sim_link_t *cake__sim_link(const cake__world_t *world, uint32_t from, uint32_t to);
uint64_t cake__sim_latency_ns(cake__world_t *world, const cake__host_t *from, const cake__host_t *to);
bool cake__sim_is_cut(const cake__host_t *from, const cake__host_t *to);
void cake__sim_wake_pipes(cake__world_t *world); /* paths may work again */
void cake__sim_run_call(cake__world_t *world, cake__host_t *host, void *object);

/* ---- host.c ---- */

static inline cake__simenv_t *cake__simenv(cake_env_t *env)
{
    return CAKE_CONTAINER_OF(env, cake__simenv_t, base);
}

/* Calls of the loop thread made from elsewhere would be races on a real machine. */
static inline void cake__sim_check_on_loop(const cake__simenv_t *env)
{
    CAKE_ASSERT(env->host->world->current == env->host && !env->host->world->in_lane);
}

cake__host_t *cake__sim_host_new(cake__world_t *world, uint32_t number);
void cake__sim_host_free(cake__host_t *host);
void cake__sim_close(cake_env_t *env);
/* The host that owns the address, as seen from one: its own for loopback and any; NULL for none. */
cake__host_t *cake__sim_host_at(const cake__host_t *from, const cake_addr_t *addr);
extern const cake_env_ops_t cake__sim_ops;

/* ---- loop.c ---- */

void cake__sim_run_deferred(cake__simenv_t *env);
void cake__sim_run_timer(cake__world_t *world, cake__host_t *host, void *object);
void cake__sim_run_post(cake__world_t *world, cake__host_t *host, void *object);
void cake__sim_timer_arm(cake_env_t *env, cake_timer_t *timer, uint64_t deadline_ns);
void cake__sim_timer_cancel(cake_env_t *env, cake_timer_t *timer);
void cake__sim_defer(cake_env_t *env, cake_deferred_t *deferred);
void cake__sim_defer_cancel(cake_env_t *env, cake_deferred_t *deferred);
void cake__sim_post(cake_env_t *env, cake_post_t *post);
bool cake__sim_on_loop(cake_env_t *env);
void cake__sim_gate_init(cake_env_t *env, cake_gate_t *gate);
void cake__sim_gate_wait(cake_env_t *env, cake_gate_t *gate);
void cake__sim_gate_open(cake_env_t *env, cake_gate_t *gate);
void cake__sim_gate_destroy(cake_env_t *env, cake_gate_t *gate);
int cake__sim_lane_open(cake_env_t *env, const char *name, cake_lane_t **lane);
void cake__sim_lane_submit(cake_lane_t *lane, cake_work_t *work);
void cake__sim_lane_close(cake_lane_t *lane, cake_event_fn closed, void *arg);
void cake__sim_run_lane_work(cake__world_t *world, cake__host_t *host, void *object);
void cake__sim_run_lane_done(cake__world_t *world, cake__host_t *host, void *object);
void cake__sim_run_lane_closed(cake__world_t *world, cake__host_t *host, void *object);

/* ---- pipe.c ---- */

void cake__pipe_init(cake__pipe_t *pipe, cake__connection_t *connection);
void cake__pipe_free(cake__pipe_t *pipe);
size_t cake__pipe_space(const cake__pipe_t *pipe);
void cake__pipe_put(cake__pipe_t *pipe, const void *data, size_t len); /* at most the space; then launch them */
void cake__pipe_launch(cake__pipe_t *pipe, size_t bytes);
void cake__pipe_launch_end(cake__pipe_t *pipe, bool is_reset);
void cake__pipe_get(cake__pipe_t *pipe, void *data, size_t len); /* at most readable */
void cake__pipe_mended(cake__pipe_t *pipe);                      /* its path may work again */
void cake__sim_run_arrive(cake__world_t *world, cake__host_t *host, void *object);
void cake__sim_run_give_up(cake__world_t *world, cake__host_t *host, void *object);

static inline cake__end_t *cake__pipe_from(const cake__pipe_t *pipe)
{
    return &pipe->connection->ends[pipe == &pipe->connection->pipes[0] ? 0 : 1];
}

static inline cake__end_t *cake__pipe_to(const cake__pipe_t *pipe)
{
    return &pipe->connection->ends[pipe == &pipe->connection->pipes[0] ? 1 : 0];
}

/* ---- stream.c ---- */

void cake__end_break(cake__end_t *end, int err); /* the process will hear of it, if it still has the end */
void cake__end_bytes_arrived(cake__end_t *end);
void cake__end_space_freed(cake__end_t *end);
void cake__sim_connections_crash(cake__host_t *host, bool is_silent); /* cuts off its ends */
void cake__connection_free(cake__connection_t *connection);
int cake__sim_listen(cake_env_t *env, const cake_addr_t *addr, cake_accept_fn accept, void *arg, cake_listener_t **out);
void cake__sim_listener_addr(cake_listener_t *listener, cake_addr_t *out);
void cake__sim_listener_close(cake_listener_t *listener, cake_event_fn closed, void *arg);
int cake__sim_connect(cake_env_t *env, const cake_addr_t *addr, const cake_stream_handlers_t *handlers, void *arg,
                      cake_stream_t **out);
void cake__sim_stream_start(cake_stream_t *stream, const cake_stream_handlers_t *handlers, void *arg);
void cake__sim_stream_peer(cake_stream_t *stream, cake_addr_t *out);
int cake__sim_stream_write(cake_stream_t *stream, const cake_slice_t *iov, size_t count);
void cake__sim_stream_pause(cake_stream_t *stream);
void cake__sim_stream_resume(cake_stream_t *stream);
void cake__sim_stream_shutdown(cake_stream_t *stream);
void cake__sim_stream_close(cake_stream_t *stream);
void cake__sim_run_connect(cake__world_t *world, cake__host_t *host, void *object);
void cake__sim_run_accept(cake__world_t *world, cake__host_t *host, void *object);
void cake__sim_run_connected(cake__world_t *world, cake__host_t *host, void *object);
void cake__sim_run_read(cake__world_t *world, cake__host_t *host, void *object);
void cake__sim_run_write(cake__world_t *world, cake__host_t *host, void *object);
void cake__sim_run_stream_closed(cake__world_t *world, cake__host_t *host, void *object);
void cake__sim_run_listener_closed(cake__world_t *world, cake__host_t *host, void *object);

/* ---- datagram.c ---- */

#define CAKE__SIM_PACKETS_WAITING_MAX 1024u /* datagrams that wait for one host that cannot run; more are lost */

int cake__sim_datagram_open(cake_env_t *env, const cake_addr_t *addr, cake_datagram_fn fn, void *arg,
                            cake_datagram_t **out);
void cake__sim_datagram_addr(cake_datagram_t *socket, cake_addr_t *out);
void cake__sim_datagram_send(cake_datagram_t *socket, const cake_addr_t *to, const void *data, size_t len);
void cake__sim_datagram_close(cake_datagram_t *socket, cake_event_fn closed, void *arg);
int cake__sim_resolve(cake_env_t *env, const char *host_port, cake_resolve_fn fn, void *arg, cake_resolve_t **out);
void cake__sim_resolve_cancel(cake_resolve_t *resolve);
void cake__sim_run_datagram(cake__world_t *world, cake__host_t *host, void *object);
void cake__sim_run_datagram_closed(cake__world_t *world, cake__host_t *host, void *object);
void cake__sim_run_resolved(cake__world_t *world, cake__host_t *host, void *object);
uint16_t cake__sim_free_port(cake__host_t *host); /* the next; may be taken */
/* A free port of the host, or CAKE_EADDRINUSE; *addr is checked and its port filled in. */
int cake__sim_take_addr(cake__simenv_t *env, cake_addr_t *addr, bool is_datagram);

#endif
