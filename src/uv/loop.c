/* One turn of the loop: timers, posts, later steps, deferred calls. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "env/env.h"
#include "uv/loop.h"

#define TURN_STEPS_MAX  4096u /* deferred calls and later steps before sockets get their turn again */
#define TURN_EVENTS_MAX 256u

/* ---- events ---- */

static int control(cake__uvenv_t *env, int operation, cake__watch_t *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    return epoll_ctl(env->epoll, operation, watch->file, &event);
}

int cake__uv_watch(cake__uvenv_t *env, cake__watch_t *watch, uint32_t events)
{
    return control(env, EPOLL_CTL_ADD, watch, events) == 0 ? 0 : CAKE_ENOMEM;
}

void cake__uv_watch_for(cake__uvenv_t *env, cake__watch_t *watch, uint32_t events)
{
    int err = control(env, EPOLL_CTL_MOD, watch, events);
    CAKE_ASSERT(err == 0);
}

/* A program that was forked may have the descriptor open for longer: closing alone would not end its events. */
void cake__uv_unwatch(cake__uvenv_t *env, cake__watch_t *watch)
{
    int err = control(env, EPOLL_CTL_DEL, watch, 0);
    CAKE_ASSERT(err == 0);
    close(watch->file);
    watch->file = -1;
}

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
static void run_due_timers(cake__watch_t *watch, uint32_t events)
{
    cake__uvenv_t *env = CAKE_CONTAINER_OF(watch, cake__uvenv_t, timer);
    uint64_t now_ns = cake__now_ns(&env->base), sequence = env->timers.sequence;
    cake_timer_t *timer;
    (void)events;
    env->timer_set_for_ns = CAKE_NEVER;
    while ((timer = cake__timers_least(&env->timers)) != NULL) {
        if (timer->deadline_ns > now_ns || timer->sequence >= sequence)
            break;
        cake__timers_cancel(&env->timers, timer);
        timer->fn(timer->arg);
    }
}

/* A timer of the kernel's that stays set, where a sleep with a limit has the kernel set and cancel one each time: 1.5 us of a lone call.
 * One that was put off is not set anew: it fires for nothing, once. */
static void set_timer(cake__uvenv_t *env)
{
    uint64_t deadline_ns = cake__timers_deadline_ns(&env->timers);
    if (deadline_ns >= env->timer_set_for_ns)
        return;
    env->timer_set_for_ns = deadline_ns;
    deadline_ns = cake__min_u64(cake__max_u64(deadline_ns, 1), INT64_MAX); /* 0 would stop it */
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(deadline_ns / 1000000000u), .tv_nsec = (long)(deadline_ns % 1000000000u)}};
    int err = timerfd_settime(env->timer.file, TFD_TIMER_ABSTIME, &when, NULL);
    CAKE_ASSERT(err == 0);
}

/* ---- deferred calls and later steps ---- */

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

void cake__uv_next_turn(cake__uvenv_t *env, cake__later_t *later)
{
    cake__list_push_back(&env->next_turn, &later->node);
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

/* ---- posts: a list that any thread pushes on and the loop takes whole ---- */

static void wake_loop(cake__uvenv_t *env)
{
    const uint64_t one = 1;
    ssize_t written;
    do {
        written = write(env->wake.file, &one, sizeof one);
    } while (written < 0 && errno == EINTR);
    CAKE_ASSERT(written == (ssize_t)sizeof one);
}

/* Nothing but the end of the sleep: posts are looked for in each turn. */
static void on_wake(cake__watch_t *watch, uint32_t events)
{
    (void)watch;
    (void)events;
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

static void run_posts(cake__uvenv_t *env)
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

/* ---- one turn ---- */

static void do_nothing(uv_prepare_t *handle)
{
    (void)handle;
}

static void on_inner(cake__watch_t *watch, uint32_t events)
{
    cake__uvenv_t *env = CAKE_CONTAINER_OF(watch, cake__uvenv_t, inner);
    (void)events;
    uv_run(&env->loop, UV_RUN_NOWAIT);
}

static bool is_left(const cake__uvenv_t *env)
{
    return env->deferreds.first != NULL || !cake__list_is_empty(&env->later) || !cake__list_is_empty(&env->next_turn) ||
           env->has_inner_work || atomic_load_explicit(&env->posts, memory_order_relaxed) != NULL;
}

/* Posts are taken once: those made by what runs here wait for the next turn, after the sockets. */
static void end_turn(cake__uvenv_t *env)
{
    unsigned steps = 0;
    cake__list_splice(&env->later, &env->next_turn);
    run_posts(env);
    if (env->has_inner_work) {
        env->has_inner_work = false;
        uv_run(&env->loop, UV_RUN_NOWAIT);
    }
    while (steps < TURN_STEPS_MAX && (cake__deferreds_run_one(&env->deferreds) || run_one_later(env)))
        steps++;
    set_timer(env);
}

static void take_events(cake__uvenv_t *env)
{
    struct epoll_event events[TURN_EVENTS_MAX];
    int count = epoll_wait(env->epoll, events, TURN_EVENTS_MAX, is_left(env) ? 0 : -1);
    CAKE_ASSERT(count >= 0 || errno == EINTR);
    for (int i = 0; i < count; i++) {
        cake__watch_t *watch = events[i].data.ptr;
        if (watch->file >= 0)
            watch->fn(watch, events[i].events);
    }
}

void cake__uv_loop_run(cake__uvenv_t *env)
{
    while (!atomic_load_explicit(&env->is_ending, memory_order_acquire)) {
        take_events(env);
        end_turn(env);
    }
    while (atomic_load_explicit(&env->posting, memory_order_acquire) != 0)
        sched_yield(); /* a thread whose post has run already may still be on its way out */
    while (is_left(env))
        end_turn(env);
    CAKE_ASSERT(env->open_count == 0 && "everything opened in an environment must be closed before it");
}

void cake__uv_loop_end(cake__uvenv_t *env)
{
    atomic_fetch_add_explicit(&env->posting, 1, memory_order_relaxed);
    atomic_store_explicit(&env->is_ending, true, memory_order_release);
    wake_loop(env);
    atomic_fetch_sub_explicit(&env->posting, 1, memory_order_release);
}

/* ---- create and destroy ---- */

static void close_files(cake__uvenv_t *env)
{
    const int files[] = {env->epoll, env->wake.file, env->timer.file, env->spare_file};
    for (size_t i = 0; i < CAKE_COUNT_OF(files); i++) {
        if (files[i] >= 0)
            close(files[i]);
    }
}

static bool open_files(cake__uvenv_t *env)
{
    env->epoll = epoll_create1(EPOLL_CLOEXEC);
    env->wake = (cake__watch_t){eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), on_wake};
    env->timer = (cake__watch_t){timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), run_due_timers};
    env->spare_file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return env->epoll >= 0 && env->wake.file >= 0 && env->timer.file >= 0 && env->spare_file >= 0 &&
           cake__uv_watch(env, &env->wake, EPOLLIN | EPOLLET) == 0 &&
           cake__uv_watch(env, &env->timer, EPOLLIN | EPOLLET) == 0; /* so neither needs to be read */
}

int cake__uv_loop_init(cake__uvenv_t *env)
{
    cake__timers_init(&env->timers);
    cake__deferreds_init(&env->deferreds);
    env->timer_set_for_ns = CAKE_NEVER;
    cake__list_init(&env->later);
    cake__list_init(&env->next_turn);
    int err = open_files(env) ? 0 : CAKE_EINTERNAL;
    if (err == 0)
        err = cake__uv_err(uv_loop_init(&env->loop));
    if (err != 0) {
        close_files(env);
        return err == CAKE_ENOMEM ? err : CAKE_EINTERNAL;
    }
    uv_prepare_init(&env->loop, &env->alive);
    uv_prepare_start(&env->alive, do_nothing);
    env->inner = (cake__watch_t){uv_backend_fd(&env->loop), on_inner};
    err = cake__uv_watch(env, &env->inner, EPOLLIN);
    if (err != 0)
        cake__uv_loop_free(env);
    return err;
}

void cake__uv_loop_free(cake__uvenv_t *env)
{
    uv_close((uv_handle_t *)&env->alive, NULL);
    uv_run(&env->loop, UV_RUN_DEFAULT); /* waits for names that nobody waits for any more */
    int err = uv_loop_close(&env->loop);
    CAKE_ASSERT(err == 0 && "a handle was left open");
    close_files(env);
}
