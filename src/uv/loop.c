/* One turn of the loop: timers, posts, later steps, deferred calls. */
#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "uv/loop.h"

#define TURN_STEPS_MAX 4096u /* deferred calls and later steps before sockets get their turn again */

/* ---- timers ---- */

static cake_timer_t *timer_of(const cake__heap_node_t *node)
{
    return (cake_timer_t *)(uintptr_t)((uintptr_t)node - offsetof(cake_timer_t, node));
}

static cake__heap_node_t *node_of(cake_timer_t *timer)
{
    return (cake__heap_node_t *)(void *)timer->node;
}

static bool fires_before(const cake__heap_node_t *a, const cake__heap_node_t *b)
{
    const cake_timer_t *one = timer_of(a), *other = timer_of(b);
    return one->deadline_ns != other->deadline_ns ? one->deadline_ns < other->deadline_ns
                                                  : one->sequence < other->sequence;
}

void cake__uv_timer_arm(cake_env_t *base, cake_timer_t *timer, uint64_t deadline_ns)
{
    cake__uvenv_t *env = cake__uvenv(base);
    cake__uv_check_on_loop(env);
    CAKE_ASSERT(timer->fn != NULL);
    if (timer->is_armed)
        cake__heap_remove(&env->timers, node_of(timer));
    timer->is_armed = true;
    timer->deadline_ns = deadline_ns;
    timer->sequence = env->timer_sequence++;
    cake__heap_insert(&env->timers, node_of(timer));
}

void cake__uv_timer_cancel(cake_env_t *base, cake_timer_t *timer)
{
    cake__uvenv_t *env = cake__uvenv(base);
    cake__uv_check_on_loop(env);
    if (!timer->is_armed)
        return;
    cake__heap_remove(&env->timers, node_of(timer));
    timer->is_armed = false;
}

/* Timers that were armed by these callbacks wait for the next turn, so that one armed for the past cannot hold it. */
static void run_due_timers(uv_poll_t *handle, int status, int events)
{
    cake__uvenv_t *env = handle->data;
    uint64_t now_ns = uv_hrtime(), sequence = env->timer_sequence, expirations;
    cake__heap_node_t *least;
    (void)status;
    (void)events;
    ssize_t got = read(env->timer_fd, &expirations, sizeof expirations);
    (void)got; /* none: it was set anew meanwhile */
    env->timer_set_for_ns = CAKE_NEVER;
    while ((least = cake__heap_least(&env->timers)) != NULL) {
        cake_timer_t *timer = timer_of(least);
        if (timer->deadline_ns > now_ns || timer->sequence >= sequence)
            break;
        cake__heap_remove(&env->timers, least);
        timer->is_armed = false;
        timer->fn(timer->arg);
    }
}

/* A timer of the kernel's that stays set, where libuv's own would have the kernel set and cancel one around each sleep: 1.5 us of a lone call.
 * One that was put off is not set anew: it fires for nothing, once. */
static void set_timer(cake__uvenv_t *env)
{
    cake__heap_node_t *least = cake__heap_least(&env->timers);
    uint64_t deadline_ns = least == NULL ? CAKE_NEVER : timer_of(least)->deadline_ns;
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
    if (deferred->is_queued)
        return;
    deferred->is_queued = true;
    deferred->next = NULL;
    *env->last_deferred = deferred;
    env->last_deferred = &deferred->next;
}

void cake__uv_defer_cancel(cake_env_t *base, cake_deferred_t *deferred)
{
    cake__uvenv_t *env = cake__uvenv(base);
    cake__uv_check_on_loop(env);
    if (!deferred->is_queued)
        return;
    cake_deferred_t **at = &env->first_deferred;
    while (*at != deferred) {
        CAKE_ASSERT(*at != NULL);
        at = &(*at)->next;
    }
    *at = deferred->next;
    if (*at == NULL)
        env->last_deferred = at;
    deferred->is_queued = false;
}

void cake__uv_later(cake__uvenv_t *env, cake__later_t *later)
{
    cake__list_push_back(&env->later, &later->node);
}

static bool run_one_deferred(cake__uvenv_t *env)
{
    cake_deferred_t *deferred = env->first_deferred;
    if (deferred == NULL)
        return false;
    env->first_deferred = deferred->next;
    if (env->first_deferred == NULL)
        env->last_deferred = &env->first_deferred;
    deferred->is_queued = false;
    deferred->fn(deferred->arg);
    return true;
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
    while (steps < TURN_STEPS_MAX && (run_one_deferred(env) || run_one_later(env)))
        steps++;
    bool is_left = env->first_deferred != NULL || !cake__list_is_empty(&env->later) ||
                   atomic_load_explicit(&env->posts, memory_order_relaxed) != NULL;
    if (is_left && !uv_is_active((uv_handle_t *)&env->idle))
        uv_idle_start(&env->idle, do_not_sleep);
    else if (!is_left)
        uv_idle_stop(&env->idle);
    set_timer(env);
}

/* ---- posts: a list that any thread pushes on and the loop takes whole ---- */

/* uv_async_send would do, but where sender and loop share a processor the loop runs before the call has returned, and libuv
 * then spins until it has: 40 us of a put. A full pipe has enough in it to wake the loop. */
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
    /* Whoever found it empty wakes the loop, for all that follow until it takes them. The loop itself is awake, and looks
     * at the list before it sleeps. */
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
    while (atomic_load_explicit(&env->posting, memory_order_acquire) != 0)
        sched_yield(); /* a thread whose post has run already may still be on its way out */
    cake__uv_run_posts(env);
    while (env->first_deferred != NULL || !cake__list_is_empty(&env->later))
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
    _Static_assert(sizeof(cake__heap_node_t) == sizeof(((cake_timer_t *)0)->node), "the node is the heap's");
    cake__heap_init(&env->timers, fires_before);
    env->timer_set_for_ns = CAKE_NEVER;
    env->last_deferred = &env->first_deferred;
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
