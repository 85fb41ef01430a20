/* uv: the environment of a real machine, on libuv. The only layer that touches clocks, sockets, threads and random
 * numbers of the machine; it knows nothing of what runs on it.
 *
 *   env.c    start and close, clocks, random numbers, gates, errors    lane.c      a thread per lane
 *   loop.c   timers, posts, deferred calls: one turn of the loop       datagram.c  datagrams, names
 *   tls.c    TLS as a machine without sockets          secure.c    streams with it
 *   stream.c listeners, connects, streams. A stream with TLS has its bytes go through secure.c.
 *
 * One turn of the loop: due timers, callbacks of libuv (posts and sockets among them), then end_turn before it sleeps:
 *
 *      [ deferred calls until none is left ] [ one later step ] [ deferred calls ] [ one later step ] ...
 *
 * A later step is a callback that a call asked for and that was ready at once, as the end of a write that the socket
 * took whole: no callback runs inside the call that asked for it.
 *
 * All threads made here block all signals but those of faults: signals are the application's, and a write to a
 * socket that the peer closed is an error and never a SIGPIPE. */
#ifndef CAKE_UV_LOOP_H
#define CAKE_UV_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

#include <datacake/uv.h>

#include "base/list.h"
#include "env/schedule.h"
#include "uv/tls.h"

typedef struct cake__later {
    cake__list_t node; /* linked while it waits for its step */
    void (*fn)(struct cake__later *later);
} cake__later_t;

typedef struct cake__uvenv {
    cake_env_t base;
    uv_loop_t loop;
    uv_poll_t wake;       /* for posts and for the end: a pipe of ours, see wake_loop */
    uv_file wake_fds[2];  /* the end that is read, the end that is written */
    uv_prepare_t prepare; /* end_turn */
    uv_idle_t idle;       /* runs while end_turn left something: the loop does not sleep then */
    uv_poll_t timer;      /* for the least of the timers, see set_timer */
    uv_file timer_fd;
    pthread_t thread; /* set by itself before cake_uv_env_new returns */
    cake_gate_t started;
    char thread_name[16];
    cake__timers_t timers;
    uint64_t timer_set_for_ns;
    cake__deferreds_t deferreds;
    cake__list_t later;
    _Atomic(cake_post_t *) posts; /* the newest first */
    atomic_size_t posting;        /* threads inside of post: the loop stays until they have left */
    atomic_bool is_ending;
    bool has_begun_to_end;
    size_t open_count; /* listeners, streams, lanes, datagram sockets, resolves: 0 when it is closed */
    cake__tls_pool_t tls_pool;
    uint8_t *datagram_buffer; /* one is enough: a datagram is handed over before the next is received */
} cake__uvenv_t;

static inline cake__uvenv_t *cake__uvenv(cake_env_t *env)
{
    return CAKE_CONTAINER_OF(env, cake__uvenv_t, base);
}

static inline void cake__uv_check_on_loop(const cake__uvenv_t *env)
{
    CAKE_ASSERT(pthread_equal(pthread_self(), env->thread));
}

/* ---- env.c ---- */

/* Has the log say why an address cannot be had, unless the code says all: status is 0 or libuv's. Returns the code. */
int cake__uv_bound(cake__uvenv_t *env, const cake_addr_t *addr, int status);
int cake__uv_err(int status); /* a libuv status as a code of ours */
void cake__uv_from_addr(const cake_addr_t *addr, struct sockaddr_storage *out);
void cake__uv_to_addr(const struct sockaddr *from, cake_addr_t *out);
int cake__uv_thread(pthread_t *out, void *(*fn)(void *arg), void *arg); /* with signals blocked */
void cake__uv_gate_init(cake_env_t *env, cake_gate_t *gate);
void cake__uv_gate_wait(cake_env_t *env, cake_gate_t *gate);
void cake__uv_gate_open(cake_env_t *env, cake_gate_t *gate);
void cake__uv_gate_destroy(cake_env_t *env, cake_gate_t *gate);

/* ---- loop.c ---- */

int cake__uv_loop_init(cake__uvenv_t *env);
void cake__uv_loop_close_handles(cake__uvenv_t *env); /* then run the loop until nothing is left */
void cake__uv_loop_end(cake__uvenv_t *env);           /* any thread: it runs what was posted, and returns */
void cake__uv_loop_free(cake__uvenv_t *env);          /* after it has returned */
void cake__uv_run_posts(cake__uvenv_t *env);
void cake__uv_later(cake__uvenv_t *env, cake__later_t *later); /* once; cake__list_remove takes it back */
void cake__uv_timer_arm(cake_env_t *env, cake_timer_t *timer, uint64_t deadline_ns);
void cake__uv_timer_cancel(cake_env_t *env, cake_timer_t *timer);
void cake__uv_defer(cake_env_t *env, cake_deferred_t *deferred);
void cake__uv_defer_cancel(cake_env_t *env, cake_deferred_t *deferred);
void cake__uv_post(cake_env_t *env, cake_post_t *post);

static inline void cake__uv_later_init(cake__later_t *later, void (*fn)(cake__later_t *later))
{
    cake__list_init(&later->node);
    later->fn = fn;
}

/* ---- lane.c ---- */

int cake__uv_lane_open(cake_env_t *env, const char *name, cake_lane_t **lane);
void cake__uv_lane_submit(cake_lane_t *lane, cake_work_t *work);
void cake__uv_lane_close(cake_lane_t *lane, cake_event_fn closed, void *arg);

/* ---- stream.c ---- */

int cake__uv_listen(cake_env_t *env, const cake_addr_t *addr, cake_accept_fn accept, void *arg, cake_listener_t **out);
void cake__uv_listener_addr(cake_listener_t *listener, cake_addr_t *out);
void cake__uv_listener_close(cake_listener_t *listener, cake_event_fn closed, void *arg);
int cake__uv_connect(cake_env_t *env, const cake_addr_t *addr, const cake_stream_handlers_t *handlers, void *arg,
                     cake_stream_t **out);
void cake__uv_stream_start(cake_stream_t *stream, const cake_stream_handlers_t *handlers, void *arg);
void cake__uv_stream_peer(cake_stream_t *stream, cake_addr_t *out);
int cake__uv_stream_write(cake_stream_t *stream, const cake_slice_t *iov, size_t count);
void cake__uv_stream_pause(cake_stream_t *stream);
void cake__uv_stream_resume(cake_stream_t *stream);
void cake__uv_stream_shutdown(cake_stream_t *stream);
void cake__uv_stream_close(cake_stream_t *stream);

/* ---- datagram.c ---- */

int cake__uv_datagram_open(cake_env_t *env, const cake_addr_t *addr, cake_datagram_fn fn, void *arg,
                           cake_datagram_t **out);
void cake__uv_datagram_addr(cake_datagram_t *socket, cake_addr_t *out);
void cake__uv_datagram_send(cake_datagram_t *socket, const cake_addr_t *to, const void *data, size_t len);
void cake__uv_datagram_close(cake_datagram_t *socket, cake_event_fn closed, void *arg);
int cake__uv_resolve(cake_env_t *env, const char *host_port, cake_resolve_fn fn, void *arg, cake_resolve_t **out);
void cake__uv_resolve_cancel(cake_resolve_t *resolve);

#endif
