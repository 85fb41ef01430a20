/* tiny_env.h: an environment in memory for fuzz targets: one loop without a thread, one stream whose peer is the
 * fuzzer, time that stands still until it is moved. Everything a real environment does later is done by tiny_run. */
#ifndef CAKE_FUZZ_TINY_ENV_H
#define CAKE_FUZZ_TINY_ENV_H

#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/list.h"
#include "env/env.h"

struct cake_listener {
    cake_event_fn closed;
    void *arg;
    bool is_closing;
};

struct cake_stream {
    cake_stream_handlers_t handlers;
    void *arg;
    bool is_open, is_connecting, is_writing, is_paused, is_closing;
};

typedef struct {
    cake_env_t base;
    cake_env_ops_t ops;
    uint64_t now_ns, random;
    cake_deferred_t *first_deferred, **last_deferred;
    cake_post_t *first_post, **last_post;
    cake_work_t *first_work, **last_work;
    cake_event_fn lane_closed[64];
    void *lane_args[64];
    size_t lanes, lanes_closing;
    cake_timer_t *timers; /* node[0]: the next, node[1]: where the pointer to it is */
    cake_listener_t listener;
    cake_accept_fn accept;
    void *accept_arg;
    cake_stream_t stream; /* one at a time */
    bool holds_writes;    /* the peer reads nothing */
} tiny_env_t;

static inline tiny_env_t *tiny_of(cake_env_t *env)
{
    return CAKE_CONTAINER_OF(env, tiny_env_t, base);
}

static tiny_env_t *tiny_current; /* streams and listeners are found by it */

static inline uint64_t tiny_now(cake_env_t *env)
{
    return tiny_of(env)->now_ns;
}

static inline uint64_t tiny_wall(cake_env_t *env)
{
    return UINT64_C(1700000000000) + tiny_of(env)->now_ns / CAKE_NS_PER_MS;
}

static inline void tiny_random(cake_env_t *env, void *out, size_t len)
{
    uint8_t *bytes = out;
    for (size_t i = 0; i < len; i++) {
        tiny_of(env)->random = tiny_of(env)->random * 6364136223846793005u + 1442695040888963407u;
        bytes[i] = (uint8_t)(tiny_of(env)->random >> 56);
    }
}

static inline void tiny_timer_cancel(cake_env_t *env, cake_timer_t *timer)
{
    (void)env;
    if (!timer->is_armed)
        return;
    cake_timer_t *next = timer->node[0];
    *(cake_timer_t **)timer->node[1] = next;
    if (next != NULL)
        next->node[1] = timer->node[1];
    timer->is_armed = false;
}

static inline void tiny_timer_arm(cake_env_t *env, cake_timer_t *timer, uint64_t deadline_ns)
{
    tiny_timer_cancel(env, timer);
    cake_timer_t **at = &tiny_of(env)->timers;
    while (*at != NULL && (*at)->deadline_ns <= deadline_ns)
        at = (cake_timer_t **)&(*at)->node[0];
    timer->deadline_ns = deadline_ns;
    timer->node[0] = *at;
    timer->node[1] = at;
    if (*at != NULL)
        (*at)->node[1] = &timer->node[0];
    *at = timer;
    timer->is_armed = true;
}

static inline void tiny_defer(cake_env_t *env, cake_deferred_t *deferred)
{
    tiny_env_t *tiny = tiny_of(env);
    if (deferred->is_queued)
        return;
    deferred->is_queued = true;
    deferred->next = NULL;
    *tiny->last_deferred = deferred;
    tiny->last_deferred = &deferred->next;
}

static inline void tiny_defer_cancel(cake_env_t *env, cake_deferred_t *deferred)
{
    tiny_env_t *tiny = tiny_of(env);
    if (!deferred->is_queued)
        return;
    cake_deferred_t **at = &tiny->first_deferred;
    while (*at != deferred)
        at = &(*at)->next;
    *at = deferred->next;
    if (*at == NULL)
        tiny->last_deferred = at;
    deferred->is_queued = false;
}

static inline void tiny_post(cake_env_t *env, cake_post_t *post)
{
    tiny_env_t *tiny = tiny_of(env);
    post->next = NULL;
    *tiny->last_post = post;
    tiny->last_post = &post->next;
}

static inline bool tiny_on_loop(cake_env_t *env)
{
    (void)env;
    return true;
}

static inline int tiny_lane_open(cake_env_t *env, const char *name, cake_lane_t **lane)
{
    (void)name;
    if (tiny_of(env)->lanes == 64)
        return CAKE_EBUSY;
    tiny_of(env)->lanes++;
    *lane = (cake_lane_t *)(void *)env;
    return 0;
}

static inline void tiny_lane_submit(cake_lane_t *lane, cake_work_t *work)
{
    tiny_env_t *tiny = tiny_of((cake_env_t *)(void *)lane);
    work->next = NULL;
    *tiny->last_work = work;
    tiny->last_work = &work->next;
}

static inline void tiny_lane_close(cake_lane_t *lane, cake_event_fn closed, void *arg)
{
    tiny_env_t *tiny = tiny_of((cake_env_t *)(void *)lane);
    tiny->lane_closed[tiny->lanes_closing] = closed;
    tiny->lane_args[tiny->lanes_closing++] = arg;
}

static inline int tiny_listen(cake_env_t *env, const cake_addr_t *addr, cake_accept_fn accept, void *arg,
                              cake_listener_t **out)
{
    (void)addr;
    tiny_of(env)->accept = accept;
    tiny_of(env)->accept_arg = arg;
    *out = &tiny_of(env)->listener;
    return 0;
}

static inline void tiny_listener_addr(cake_listener_t *listener, cake_addr_t *out)
{
    (void)listener;
    *out = (cake_addr_t){.family = 4, .port = 1, .ip = {127, 0, 0, 1}};
}

static inline void tiny_listener_close(cake_listener_t *listener, cake_event_fn closed, void *arg)
{
    *listener = (cake_listener_t){closed, arg, true};
}

static inline int tiny_connect(cake_env_t *env, const cake_addr_t *addr, const cake_stream_handlers_t *handlers,
                               void *arg, cake_stream_t **out)
{
    tiny_env_t *tiny = tiny_of(env);
    (void)addr;
    if (tiny->stream.is_open)
        return CAKE_EBUSY;
    tiny->stream = (cake_stream_t){.handlers = *handlers, .arg = arg, .is_open = true, .is_connecting = true};
    *out = &tiny->stream;
    return 0;
}

static inline void tiny_stream_start(cake_stream_t *stream, const cake_stream_handlers_t *handlers, void *arg)
{
    stream->handlers = *handlers;
    stream->arg = arg;
}

static inline void tiny_stream_peer(cake_stream_t *stream, cake_addr_t *out)
{
    (void)stream;
    *out = (cake_addr_t){.family = 4, .port = 2, .ip = {127, 0, 0, 1}};
}

static inline int tiny_stream_write(cake_stream_t *stream, const cake_slice_t *iov, size_t count)
{
    volatile uint8_t sum = 0;
    CAKE_ASSERT(!stream->is_writing && !stream->is_closing && count > 0);
    for (size_t i = 0; i < count; i++) { /* what is sent has to be there */
        const uint8_t *bytes = iov[i].data;
        for (size_t at = 0; at < iov[i].len; at++)
            sum = (uint8_t)(sum + bytes[at]);
    }
    stream->is_writing = true;
    return 0;
}

static inline void tiny_stream_pause(cake_stream_t *stream)
{
    stream->is_paused = true;
}

static inline void tiny_stream_resume(cake_stream_t *stream)
{
    stream->is_paused = false;
}

static inline void tiny_stream_shutdown(cake_stream_t *stream)
{
    (void)stream;
}

static inline void tiny_stream_close(cake_stream_t *stream)
{
    stream->is_closing = true;
}

static inline int tiny_resolve(cake_env_t *env, const char *host_port, cake_resolve_fn fn, void *arg,
                               cake_resolve_t **out)
{
    return CAKE_ENOTFOUND;
}

static inline void tiny_init(tiny_env_t *tiny)
{
    memset(tiny, 0, sizeof *tiny);
    tiny->ops = (cake_env_ops_t){.version = 1,
                                 .now_ns = tiny_now,
                                 .wall_ms = tiny_wall,
                                 .random = tiny_random,
                                 .timer_arm = tiny_timer_arm,
                                 .timer_cancel = tiny_timer_cancel,
                                 .defer = tiny_defer,
                                 .defer_cancel = tiny_defer_cancel,
                                 .post = tiny_post,
                                 .on_loop = tiny_on_loop,
                                 .lane_open = tiny_lane_open,
                                 .lane_submit = tiny_lane_submit,
                                 .lane_close = tiny_lane_close,
                                 .listen = tiny_listen,
                                 .listener_addr = tiny_listener_addr,
                                 .listener_close = tiny_listener_close,
                                 .connect = tiny_connect,
                                 .stream_start = tiny_stream_start,
                                 .stream_peer = tiny_stream_peer,
                                 .stream_write = tiny_stream_write,
                                 .stream_pause = tiny_stream_pause,
                                 .stream_resume = tiny_stream_resume,
                                 .stream_shutdown = tiny_stream_shutdown,
                                 .stream_close = tiny_stream_close,
                                 .resolve = tiny_resolve};
    tiny->base.ops = &tiny->ops;
    tiny->base.alloc = cake__libc_alloc;
    tiny->last_deferred = &tiny->first_deferred;
    tiny->last_post = &tiny->first_post;
    tiny->last_work = &tiny->first_work;
    tiny->now_ns = 1000 * CAKE_NS_PER_MS;
    tiny_current = tiny;
}

static inline void tiny_deferred(tiny_env_t *tiny)
{
    while (tiny->first_deferred != NULL) {
        cake_deferred_t *deferred = tiny->first_deferred;
        tiny_defer_cancel(&tiny->base, deferred);
        deferred->fn(deferred->arg);
    }
}

static inline bool tiny_stream_event(tiny_env_t *tiny)
{
    cake_stream_t *stream = &tiny->stream;
    if (!stream->is_open)
        return false;
    if (stream->is_closing) {
        stream->is_open = false;
        stream->handlers.on_closed(stream->arg);
        return true;
    }
    if (stream->is_connecting) {
        stream->is_connecting = false;
        stream->handlers.on_connect(stream->arg, 0);
        return true;
    }
    if (stream->is_writing && !tiny->holds_writes) {
        stream->is_writing = false;
        stream->handlers.on_written(stream->arg, 0);
        return true;
    }
    return false;
}

static inline bool tiny_other_event(tiny_env_t *tiny)
{
    if (tiny->first_post != NULL) {
        cake_post_t *post = tiny->first_post;
        tiny->first_post = post->next;
        if (tiny->first_post == NULL)
            tiny->last_post = &tiny->first_post;
        post->fn(post->arg);
        return true;
    }
    if (tiny->first_work != NULL) {
        cake_work_t *work = tiny->first_work;
        tiny->first_work = work->next;
        if (tiny->first_work == NULL)
            tiny->last_work = &tiny->first_work;
        work->run(work->arg);
        work->done(work->arg);
        return true;
    }
    if (tiny->listener.is_closing) {
        tiny->listener.is_closing = false;
        tiny->listener.closed(tiny->listener.arg);
        return true;
    }
    if (tiny->lanes_closing > 0) {
        tiny->lanes_closing--;
        tiny->lane_closed[tiny->lanes_closing](tiny->lane_args[tiny->lanes_closing]);
        return true;
    }
    if (tiny->timers != NULL && tiny->timers->deadline_ns <= tiny->now_ns) {
        cake_timer_t *timer = tiny->timers;
        tiny_timer_cancel(&tiny->base, timer);
        timer->fn(timer->arg);
        return true;
    }
    return false;
}

/* Until nothing is left to do at this time. */
static inline void tiny_run(tiny_env_t *tiny)
{
    do
        tiny_deferred(tiny);
    while (tiny_stream_event(tiny) || tiny_other_event(tiny));
}

static inline void tiny_pass(tiny_env_t *tiny, uint64_t ms)
{
    tiny->now_ns += ms * CAKE_NS_PER_MS;
    tiny_run(tiny);
}

static inline void tiny_accept(tiny_env_t *tiny)
{
    tiny->stream = (cake_stream_t){.is_open = true};
    tiny->accept(tiny->accept_arg, &tiny->stream);
    tiny_run(tiny);
}

/* Gives the bytes to the stream, as many as it takes at once; false when it takes none. */
static inline bool tiny_feed(tiny_env_t *tiny, const uint8_t *data, size_t len)
{
    cake_stream_t *stream = &tiny->stream;
    while (len > 0 && stream->is_open && !stream->is_closing && !stream->is_paused) {
        void *to;
        size_t size;
        stream->handlers.on_buffer(stream->arg, &to, &size);
        if (size == 0 || stream->is_closing) {
            stream->is_paused = true;
            tiny_run(tiny);
            continue;
        }
        size = cake__min_u64(size, len);
        memcpy(to, data, size);
        stream->handlers.on_read(stream->arg, to, (intptr_t)size);
        data += size;
        len -= size;
        tiny_run(tiny);
    }
    return len == 0;
}

#endif
