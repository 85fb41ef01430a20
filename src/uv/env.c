/* The environment of a real machine: start and close, clocks, random numbers, gates, errors, addresses. */
#include <errno.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "uv/stream.h"

typedef struct {
    sem_t opened;
} gate_t;

_Static_assert(sizeof(gate_t) <= sizeof(cake_gate_t), "a gate holds a semaphore");

/* ---- clocks and random numbers ---- */

static struct timespec read_clock(clockid_t clock)
{
    struct timespec now;
    int err = clock_gettime(clock, &now);
    CAKE_ASSERT(err == 0);
    return now;
}

static uint64_t now_ns(cake_env_t *env)
{
    (void)env;
    struct timespec now = read_clock(CLOCK_MONOTONIC); /* the clock of the loop's timer */
    return (uint64_t)now.tv_sec * 1000 * CAKE_NS_PER_MS + (uint64_t)now.tv_nsec;
}

static uint64_t wall_ms(cake_env_t *env)
{
    (void)env;
    struct timespec now = read_clock(CLOCK_REALTIME);
    return now.tv_sec < 0 ? 0 : (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / CAKE_NS_PER_MS;
}

/* A node that goes on with numbers that are not random would make keys that can be guessed: it stops instead. */
static void fill_random(cake_env_t *env, void *out, size_t len)
{
    (void)env;
    int err = len == 0 ? 0 : uv_random(NULL, NULL, out, len, 0, NULL);
    CAKE_ASSERT(err == 0 && "the machine gives no random numbers");
}

/* ---- gates ---- */

static gate_t *gate_of(cake_gate_t *gate)
{
    return (gate_t *)(void *)gate->opaque;
}

void cake__uv_gate_init(cake_env_t *env, cake_gate_t *opaque)
{
    (void)env;
    int err = sem_init(&gate_of(opaque)->opened, 0, 0);
    CAKE_ASSERT(err == 0);
}

/* Leaves it open, for who waits again. */
static void wait_until_open(gate_t *gate)
{
    while (sem_wait(&gate->opened) != 0)
        CAKE_ASSERT(errno == EINTR);
    sem_post(&gate->opened);
}

void cake__uv_gate_wait(cake_env_t *env, cake_gate_t *gate)
{
    CAKE_ASSERT(!env->ops->on_loop(env) && "the loop may not wait at a gate");
    wait_until_open(gate_of(gate));
}

/* The waiter may free the gate before this has returned, which a semaphore is made for. A mutex and a condition
 * would wake it while the mutex is held, and so twice. */
void cake__uv_gate_open(cake_env_t *env, cake_gate_t *opaque)
{
    (void)env;
    int err = sem_post(&gate_of(opaque)->opened);
    CAKE_ASSERT(err == 0);
}

void cake__uv_gate_destroy(cake_env_t *env, cake_gate_t *opaque)
{
    (void)env;
    sem_destroy(&gate_of(opaque)->opened);
}

/* ---- errors and addresses ---- */

int cake__uv_err(int status)
{
    switch (status) {
    case 0:
        return 0;
    case UV_ENOMEM:
    case UV_ENOBUFS:
        return CAKE_ENOMEM;
    case UV_EADDRINUSE:
        return CAKE_EADDRINUSE;
    case UV_EADDRNOTAVAIL:
    case UV_EAFNOSUPPORT:
    case UV_EINVAL:
        return CAKE_EINVAL;
    case UV_ETIMEDOUT:
        return CAKE_ETIMEDOUT;
    case UV_ECANCELED:
        return CAKE_ECANCELED;
    case UV_EMFILE:
    case UV_ENFILE:
        return CAKE_EBUSY;
    case UV_ECONNREFUSED:
    case UV_ECONNRESET:
    case UV_ECONNABORTED:
    case UV_EPIPE:
    case UV_ENOTCONN:
    case UV_EHOSTUNREACH:
    case UV_ENETUNREACH:
    case UV_ENETDOWN:
        return CAKE_ECONNECTION;
    default:
        return CAKE_EIO;
    }
}

int cake__uv_bound(cake__uvenv_t *env, const cake_addr_t *addr, int status)
{
    char text[CAKE_ADDR_TEXT_MAX];
    if (status != 0 && status != UV_EADDRINUSE && status != UV_ENOMEM) {
        cake_addr_format(addr, text);
        cake__log(&env->base.log, CAKE_LOG_ERROR, "cannot listen on %s: %s", text, uv_strerror(status));
    }
    return cake__uv_err(status);
}

void cake__uv_from_addr(const cake_addr_t *addr, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (addr->family == 6) {
        struct sockaddr_in6 *to = (struct sockaddr_in6 *)out;
        to->sin6_family = AF_INET6;
        to->sin6_port = htons(addr->port);
        memcpy(&to->sin6_addr, addr->ip, 16);
    } else {
        struct sockaddr_in *to = (struct sockaddr_in *)out;
        to->sin_family = AF_INET;
        to->sin_port = htons(addr->port);
        memcpy(&to->sin_addr, addr->ip, 4);
    }
}

void cake__uv_to_addr(const struct sockaddr *from, cake_addr_t *out)
{
    *out = (cake_addr_t){0};
    if (from->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)from;
        out->family = 4;
        out->port = ntohs(in->sin_port);
        memcpy(out->ip, &in->sin_addr, 4);
    } else if (from->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)from;
        out->family = 6;
        out->port = ntohs(in6->sin6_port);
        memcpy(out->ip, &in6->sin6_addr, 16);
    }
}

/* ---- the loop's thread ---- */

static bool on_loop(cake_env_t *env)
{
    return pthread_equal(pthread_self(), cake__uvenv(env)->thread) != 0;
}

int cake__uv_thread(pthread_t *out, void *(*fn)(void *arg), void *arg)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF};
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (size_t i = 0; i < CAKE_COUNT_OF(faults); i++)
        sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int err = pthread_create(out, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err == 0 ? 0 : CAKE_EINTERNAL;
}

static void *run_loop(void *arg)
{
    cake__uvenv_t *env = arg;
    pthread_setname_np(pthread_self(), env->thread_name);
    env->thread = pthread_self();
    cake__uv_gate_open(&env->base, &env->started);
    uv_run(&env->loop, UV_RUN_DEFAULT);
    return NULL;
}

static void write_to_stderr(void *ctx, cake_log_level_t level, const char *message)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    char line[640];
    (void)ctx;
    int len = snprintf(line, sizeof line, "datacake: %s: %s\n", names[level], message);
    if (len >= (int)sizeof line) {
        line[sizeof line - 2] = '\n';
        len = (int)sizeof line - 1;
    }
    ssize_t written = write(STDERR_FILENO, line, (size_t)len); /* one call: lines of two threads do not mix */
    (void)written;
}

/* ---- start and close ---- */

static void end_loop(cake__uvenv_t *env)
{
    cake__uv_loop_free(env);
    cake_alloc_t alloc = env->base.alloc;
    env->tls_pool.alloc = &alloc;
    cake__tls_pool_free(&env->tls_pool);
    cake__free(&alloc, env->datagram_buffer);
    cake__free(&alloc, env);
}

static void close_env(cake_env_t *base)
{
    cake__uvenv_t *env = cake__uvenv(base);
    CAKE_ASSERT(!on_loop(base) && "the loop cannot close itself");
    pthread_t thread = env->thread;
    cake__uv_loop_end(env);
    int err = pthread_join(thread, NULL);
    CAKE_ASSERT(err == 0);
    end_loop(env);
}

static const cake_env_ops_t uv_ops = {
    .version = 2,
    .now_ns = now_ns,
    .wall_ms = wall_ms,
    .random = fill_random,
    .timer_arm = cake__uv_timer_arm,
    .timer_cancel = cake__uv_timer_cancel,
    .defer = cake__uv_defer,
    .defer_cancel = cake__uv_defer_cancel,
    .post = cake__uv_post,
    .on_loop = on_loop,
    .gate_init = cake__uv_gate_init,
    .gate_wait = cake__uv_gate_wait,
    .gate_open = cake__uv_gate_open,
    .gate_destroy = cake__uv_gate_destroy,
    .lane_open = cake__uv_lane_open,
    .lane_submit = cake__uv_lane_submit,
    .lane_close = cake__uv_lane_close,
    .listen = cake__uv_listen,
    .listener_addr = cake__uv_listener_addr,
    .listener_close = cake__uv_listener_close,
    .connect = cake__uv_connect,
    .stream_start = cake__uv_stream_start,
    .stream_peer = cake__uv_stream_peer,
    .stream_write = cake__uv_stream_write,
    .stream_pause = cake__uv_stream_pause,
    .stream_resume = cake__uv_stream_resume,
    .stream_shutdown = cake__uv_stream_shutdown,
    .stream_close = cake__uv_stream_close,
    .datagram_open = cake__uv_datagram_open,
    .datagram_addr = cake__uv_datagram_addr,
    .datagram_send = cake__uv_datagram_send,
    .datagram_close = cake__uv_datagram_close,
    .resolve = cake__uv_resolve,
    .resolve_cancel = cake__uv_resolve_cancel,
    .close = close_env,
    .tls_open = cake__tls_open,
    .tls_close = cake__tls_close,
    .stream_secure = cake__uv_stream_secure,
    .stream_reason = cake__uv_stream_reason,
};

int cake_uv_env_new(const cake_uv_options_t *given, cake_env_t **out)
{
    cake_uv_options_t options = CAKE_UV_OPTIONS_INIT;
    if (out == NULL)
        return CAKE_EINVAL;
    *out = NULL;
    if (given != NULL && cake__options_copy(&options, sizeof options, given) != 0)
        return CAKE_EINVAL;
    const cake_alloc_t *alloc = cake__alloc_or_default(options.alloc);
    cake__uvenv_t *env = cake__calloc(alloc, 1, sizeof *env);
    if (env == NULL)
        return CAKE_ENOMEM;
    env->base.ops = &uv_ops;
    env->base.alloc = *alloc;
    env->tls_pool.alloc = &env->base.alloc;
    env->base.log = options.log != NULL ? *options.log : (cake_log_t){write_to_stderr, NULL, CAKE_LOG_WARN};
    snprintf(env->thread_name, sizeof env->thread_name, "%s",
             options.thread_name != NULL ? options.thread_name : "datacake");
    int err = cake__uv_loop_init(env);
    if (err != 0) {
        cake__free(alloc, env);
        return err == UV_ENOMEM ? CAKE_ENOMEM : CAKE_EINTERNAL;
    }
    pthread_t thread;
    cake__uv_gate_init(&env->base, &env->started);
    err = cake__uv_thread(&thread, run_loop, env);
    if (err != 0) {
        cake__uv_loop_close_handles(env);
        uv_run(&env->loop, UV_RUN_DEFAULT);
        cake__uv_gate_destroy(&env->base, &env->started);
        end_loop(env);
        return err;
    }
    wait_until_open(gate_of(&env->started));
    cake__uv_gate_destroy(&env->base, &env->started);
    *out = &env->base;
    return 0;
}
