/* One turn of the loop: timers, posts, later steps, deferred calls. */
#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "env/env.h"
#include "uv/loop.h"

#define TURN_STEPS_MAX 4096u /* deferred calls and later steps before sockets get their turn again */

/* ---- timers ---- */

void cake__uv_timer_arm(cake_env_t *base, cake_timer_t *timer, uint64_t deadline_ns)
{
    cake__uvenv_t *env = cake__uvenv(base);
    cake__uv_check_on_loop(env);
    cake__timers_arm(&env->timers, timer, deadline_ns);
}

void cake__uv_timer_cancel(cake_env_t *base, cake_timer_t *timer)
{
    cake__uvenv_t *env = cake__uvenv(base);
    cake__uv_check_on_loop(env);
    cake__timers_cancel(&env->timers, timer);
}

/* Timers that were armed by these callbacks wait for the next turn, so that one armed for the past cannot hold it. */
static void run_due_timers(uv_poll_t *handle, int status, int events)
{
    cake__uvenv_t *env = handle->data;
    uint64_t now_ns = cake__now_ns(&env->base), sequence = env->timers.sequence, expirations;
    cake_timer_t *timer;
    (void)status;
    (void)events;
    ssize_t got = read(env->timer_fd, &expirations, sizeof expirations);
    (void)got; /* none: it was set anew meanwhile */
    env->timer_set_for_ns = CAKE_NEVER;
    while ((timer = cake__timers_least(&env->timers)) != NULL) {
        if (timer->deadline_ns > now_ns || timer->sequence >= sequence)
            break;
        cake__timers_cancel(&env->timers, timer);
        timer->fn(timer->arg);
    }
}

/* A timer of the kernel's that stays set, where libuv's own would have the kernel set and cancel one around each
 * sleep: 1.5 us of a lone call. One that was put off is not set anew: it fires for nothing, once. */
static void set_timer(cake__uvenv_t *env)
{
    uint64_t deadline_ns = cake__timers_deadline_ns(&env->timers);
    if (deadline_ns >= env->timer_set_for_ns)
        return;
    env->timer_set_for_ns = deadline_ns;
    deadline_ns = cake__min_u64(cake__max_u64(deadline_ns, 1), INT64_MAX); /* 0 would stop it */
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(deadline_ns / 1000000000u), .tv_nsec = (long)(deadline_ns % 1000000000u)}};
    int err = timerfd_settime(env->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
    CAKE_ASSERT(err == 0);
}

/* ---- the end of a turn ---- */

void cake__uv_defer(cake_env_t *base, cake_deferred_t *deferred)
{
    cake__uvenv_t *env = cake__uvenv(base);
    cake__uv_check_on_loop(env);
    cake__deferreds_add(&env->deferreds, deferred);
}

void cake__uv_defer_cancel(cake_env_t *base, cake_deferred_t *deferred)
{
    cake__uvenv_t *env = cake__uvenv(base);
    cake__uv_check_on_loop(env);
    cake__deferreds_cancel(&env->deferreds, deferred);
}

void cake__uv_later(cake__uvenv_t *env, cake__later_t *later)
{
    cake__list_push_back(&env->later, &later->node);
}

static bool run_one_later(cake__uvenv_t *env)
{
    cake__list_t *node = cake__list_pop_front(&env->later);
    if (node == NULL)
        return false;
    cake__later_t *later = CAKE_CONTAINER_OF(node, cake__later_t, node);
    later->fn(later);
    return true;
}

static void do_not_sleep(uv_idle_t *handle)
{
    (void)handle;
}

/* Posts are taken once: those made by what runs here wait for the next turn, after the sockets. */
static void end_turn(uv_prepare_t *handle)
{
    cake__uvenv_t *env = handle->data;
    unsigned steps = 0;
    cake__uv_run_posts(env);
    while (steps < TURN_STEPS_MAX && (cake__deferreds_run_one(&env->deferreds) || run_one_later(env)))
        steps++;
    bool is_left = env->deferreds.first != NULL || !cake__list_is_empty(&env->later) ||
                   atomic_load_explicit(&env->posts, memory_order_relaxed) != NULL;
    if (is_left && !uv_is_active((uv_handle_t *)&env->idle))
        uv_idle_start(&env->idle, do_not_sleep);
    else if (!is_left)
        uv_idle_stop(&env->idle);
    set_timer(env);
}

/* ---- posts: a list that any thread pushes on and the loop takes whole ---- */

/* uv_async_send would do, but where sender and loop share a processor the loop runs before the call has returned,
 * and libuv then spins until it has: 40 us of a put. A full pipe has enough in it to wake the loop. */
static void wake_loop(cake__uvenv_t *env)
{
    ssize_t written;
    do {
        written = write(env->wake_fds[1], "", 1);
    } while (written < 0 && errno == EINTR);
    CAKE_ASSERT(written == 1 || errno == EAGAIN);
}

static void drain_wakes(cake__uvenv_t *env)
{
    char bytes[64];
    while (read(env->wake_fds[0], bytes, sizeof bytes) == (ssize_t)sizeof bytes)
        continue;
}

void cake__uv_post(cake_env_t *base, cake_post_t *post)
{
    cake__uvenv_t *env = cake__uvenv(base);
    atomic_fetch_add_explicit(&env->posting, 1, memory_order_relaxed);
    cake_post_t *newest = atomic_load_explicit(&env->posts, memory_order_relaxed);
    do {
        post->next = newest;
    } while (
        !atomic_compare_exchange_weak_explicit(&env->posts, &newest, post, memory_order_acq_rel, memory_order_relaxed));
    /* Whoever found it empty wakes the loop, for all that follow until it takes them. The loop itself is awake, and
     * looks at the list before it sleeps. */
    if (newest == NULL && !pthread_equal(pthread_self(), env->thread))
        wake_loop(env);
    atomic_fetch_sub_explicit(&env->posting, 1, memory_order_release);
}

void cake__uv_run_posts(cake__uvenv_t *env)
{
    cake_post_t *newest = atomic_exchange_explicit(&env->posts, NULL, memory_order_acquire), *oldest = NULL;
    while (newest != NULL) {
        cake_post_t *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        cake_post_t *post = oldest;
        oldest = post->next;
        post->fn(post->arg);
    }
}

static void on_wake(uv_poll_t *handle, int status, int events)
{
    cake__uvenv_t *env = handle->data;
    (void)status; /* an error of the pipe: it is woken as well */
    (void)events;
    drain_wakes(env); /* before the posts are taken: one that comes now writes again */
    bool is_ending = atomic_load_explicit(&env->is_ending, memory_order_acquire);
    cake__uv_run_posts(env);
    if (!is_ending)
        return;
    if (!env->has_begun_to_end) { /* what could not be opened is closed at this turn's end: nobody waits for it */
        env->has_begun_to_end = true;
        wake_loop(env);
        return;
    }
    while (atomic_load_explicit(&env->posting, memory_order_acquire) != 0)
        sched_yield(); /* a thread whose post has run already may still be on its way out */
    cake__uv_run_posts(env);
    while (env->deferreds.first != NULL || !cake__list_is_empty(&env->later))
        end_turn(&env->prepare);
    CAKE_ASSERT(env->open_count == 0 && "everything opened in an environment must be closed before it");
    cake__uv_loop_close_handles(env);
}

void cake__uv_loop_end(cake__uvenv_t *env)
{
    atomic_fetch_add_explicit(&env->posting, 1, memory_order_relaxed);
    atomic_store_explicit(&env->is_ending, true, memory_order_release);
    wake_loop(env);
    atomic_fetch_sub_explicit(&env->posting, 1, memory_order_release);
}

/* ---- making and closing ---- */

static void close_files(cake__uvenv_t *env)
{
    close(env->wake_fds[0]);
    close(env->wake_fds[1]);
    close(env->timer_fd);
}

static int open_files(cake__uvenv_t *env)
{
    int err = uv_pipe(env->wake_fds, UV_NONBLOCK_PIPE, UV_NONBLOCK_PIPE);
    if (err != 0)
        return err;
    env->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (env->timer_fd >= 0)
        return 0;
    close(env->wake_fds[0]);
    close(env->wake_fds[1]);
    return uv_translate_sys_error(errno);
}

int cake__uv_loop_init(cake__uvenv_t *env)
{
    cake__timers_init(&env->timers);
    cake__deferreds_init(&env->deferreds);
    env->timer_set_for_ns = CAKE_NEVER;
    cake__list_init(&env->later);
    int err = open_files(env);
    if (err != 0)
        return err;
    err = uv_loop_init(&env->loop);
    if (err != 0) {
        close_files(env);
        return err;
    }
    err = uv_poll_init(&env->loop, &env->wake, env->wake_fds[0]);
    if (err == 0 && (err = uv_poll_init(&env->loop, &env->timer, env->timer_fd)) != 0)
        uv_close((uv_handle_t *)&env->wake, NULL);
    if (err != 0) {
        uv_run(&env->loop, UV_RUN_DEFAULT);
        uv_loop_close(&env->loop);
        close_files(env);
        return err;
    }
    err = uv_poll_start(&env->wake, UV_READABLE, on_wake);
    CAKE_ASSERT(err == 0);
    err = uv_poll_start(&env->timer, UV_READABLE, run_due_timers);
    CAKE_ASSERT(err == 0);
    uv_prepare_init(&env->loop, &env->prepare);
    uv_idle_init(&env->loop, &env->idle);
    env->wake.data = env->prepare.data = env->idle.data = env->timer.data = env;
    uv_prepare_start(&env->prepare, end_turn);
    return 0;
}

void cake__uv_loop_close_handles(cake__uvenv_t *env)
{
    uv_close((uv_handle_t *)&env->wake, NULL);
    uv_close((uv_handle_t *)&env->prepare, NULL);
    uv_close((uv_handle_t *)&env->idle, NULL);
    uv_close((uv_handle_t *)&env->timer, NULL);
}

void cake__uv_loop_free(cake__uvenv_t *env)
{
    int err = uv_loop_close(&env->loop);
    CAKE_ASSERT(err == 0 && "a handle was left open");
    close_files(env);
}
