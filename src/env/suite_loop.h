/* suite_loop.h: the part of suite.h about clocks, timers, deferred calls, posts, gates and lanes. */
#ifndef CAKE_ENV_SUITE_LOOP_H
#define CAKE_ENV_SUITE_LOOP_H

#include "env/env.h"

/* ---- helpers ---- */

typedef struct latch {
    cake_env_t *env;
    cake_gate_t gate;
} latch_t;

static void latch_init(latch_t *latch, cake_env_t *env)
{
    latch->env = env;
    env->ops->gate_init(env, &latch->gate);
}

static void latch_open(void *arg)
{
    latch_t *latch = arg;
    latch->env->ops->gate_open(latch->env, &latch->gate);
}

static void latch_wait(latch_t *latch)
{
    latch->env->ops->gate_wait(latch->env, &latch->gate);
    latch->env->ops->gate_destroy(latch->env, &latch->gate);
}

static cake_addr_t suite_addr(const char *text)
{
    cake_addr_t addr;
    CAKE_ASSERT(cake_addr_parse(text, &addr) == 0);
    return addr;
}

/* ---- clocks and random numbers ---- */

static void suite_clocks(cake_env_t *env)
{
    uint64_t before_ns = cake__now_ns(env), words[8] = {0};
    CAKE_ASSERT(cake__now_ns(env) >= before_ns);
    CAKE_ASSERT(cake__wall_ms(env) > UINT64_C(1600000000000));
    env->ops->random(env, words, sizeof words - 3);
    for (size_t i = 1; i < CAKE_COUNT_OF(words) - 1; i++)
        CAKE_ASSERT(words[i] != words[i - 1]);
    CAKE_ASSERT(words[7] >> 40 == 0); /* not beyond the length */
    CAKE_ASSERT(!env->ops->on_loop(env));
}

/* ---- timers ---- */

#define SUITE_TIMERS 8

typedef struct suite_timers {
    cake_env_t *env;
    latch_t done;
    struct suite_timer {
        struct suite_timers *all;
        cake_timer_t timer;
        unsigned number;
    } timers[SUITE_TIMERS];
    unsigned fired[SUITE_TIMERS * 2], count;
    unsigned repeats;
    bool is_arming;
} suite_timers_t;

static void suite_timer_fired(void *arg)
{
    struct suite_timer *fired = arg;
    suite_timers_t *all = fired->all;
    CAKE_ASSERT(all->env->ops->on_loop(all->env));
    CAKE_ASSERT(!all->is_arming && !fired->timer.is_armed);
    CAKE_ASSERT(cake__now_ns(all->env) >= fired->timer.deadline_ns); /* never early */
    CAKE_ASSERT(all->count < CAKE_COUNT_OF(all->fired));
    all->fired[all->count++] = fired->number;
    if (fired->number == 5 && all->repeats-- > 0)
        cake__timer_arm_ms(all->env, &fired->timer, 1);
    else if (fired->number == 5)
        latch_open(&all->done);
}

/* Number, delay: 5 is last and repeats; 1 and 2 and 4 are due at once; 6 is canceled; 7 moves to before all. */
static int suite_timers_arm(void *arg)
{
    suite_timers_t *all = arg;
    const cake_env_ops_t *ops = all->env->ops;
    uint64_t now_ns = cake__now_ns(all->env), ms = CAKE_NS_PER_MS;
    static const unsigned delays_ms[SUITE_TIMERS] = {9, 6, 6, 3, 6, 30, 5, 12};
    all->is_arming = true;
    for (unsigned i = 0; i < SUITE_TIMERS; i++) {
        all->timers[i].all = all;
        all->timers[i].number = i;
        all->timers[i].timer = CAKE_TIMER_INIT(suite_timer_fired, &all->timers[i]);
        ops->timer_arm(all->env, &all->timers[i].timer, now_ns + delays_ms[i] * ms);
        CAKE_ASSERT(all->timers[i].timer.is_armed);
    }
    ops->timer_cancel(all->env, &all->timers[6].timer);
    ops->timer_cancel(all->env, &all->timers[6].timer);
    CAKE_ASSERT(!all->timers[6].timer.is_armed);
    ops->timer_arm(all->env, &all->timers[7].timer, 0); /* in the past: soon, and not inside of this call */
    all->is_arming = false;
    return 0;
}

static void suite_timer_order(cake_env_t *env)
{
    suite_timers_t all = {.env = env, .repeats = 3};
    static const unsigned expected[] = {7, 3, 1, 2, 4, 0, 5, 5, 5, 5};
    latch_init(&all.done, env);
    cake__run_on_loop(env, suite_timers_arm, &all);
    latch_wait(&all.done);
    CAKE_ASSERT(all.count == CAKE_COUNT_OF(expected));
    CAKE_ASSERT(memcmp(all.fired, expected, sizeof expected) == 0);
}

/* ---- deferred calls and posts ---- */

typedef struct {
    cake_env_t *env;
    latch_t done;
    cake_deferred_t first, second, nested, canceled;
    cake_timer_t timer;
    char order[8];
    unsigned count;
} suite_defer_t;

static void suite_note(suite_defer_t *all, char what)
{
    CAKE_ASSERT(all->env->ops->on_loop(all->env) && all->count < sizeof all->order);
    all->order[all->count++] = what;
}

static void suite_defer_first(void *arg)
{
    suite_defer_t *all = arg;
    suite_note(all, '1');
    CAKE_ASSERT(!all->first.is_queued);
    all->env->ops->defer(all->env, &all->nested);
}

static void suite_defer_second(void *arg)
{
    suite_note(arg, '2');
}

static void suite_defer_nested(void *arg)
{
    suite_note(arg, 'n');
}

static void suite_defer_canceled(void *arg)
{
    suite_note(arg, 'x');
}

static void suite_defer_timer(void *arg)
{
    suite_defer_t *all = arg;
    suite_note(all, 't');
    latch_open(&all->done);
}

static int suite_defer_start(void *arg)
{
    suite_defer_t *all = arg;
    const cake_env_ops_t *ops = all->env->ops;
    ops->timer_arm(all->env, &all->timer, 0);
    ops->defer(all->env, &all->canceled);
    ops->defer(all->env, &all->first);
    ops->defer(all->env, &all->second);
    ops->defer(all->env, &all->first); /* is queued: nothing more */
    ops->defer_cancel(all->env, &all->canceled);
    ops->defer_cancel(all->env, &all->canceled);
    suite_note(all, 's');
    return 0;
}

static void suite_defer(cake_env_t *env)
{
    suite_defer_t all = {.env = env};
    all.first = (cake_deferred_t)CAKE_DEFERRED_INIT(suite_defer_first, &all);
    all.second = (cake_deferred_t)CAKE_DEFERRED_INIT(suite_defer_second, &all);
    all.nested = (cake_deferred_t)CAKE_DEFERRED_INIT(suite_defer_nested, &all);
    all.canceled = (cake_deferred_t)CAKE_DEFERRED_INIT(suite_defer_canceled, &all);
    all.timer = CAKE_TIMER_INIT(suite_defer_timer, &all);
    latch_init(&all.done, env);
    cake__run_on_loop(env, suite_defer_start, &all);
    latch_wait(&all.done);
    CAKE_ASSERT(all.count == 5 && memcmp(all.order, "s12nt", 5) == 0);
}

#define SUITE_POSTS 500

typedef struct suite_posts {
    cake_env_t *env;
    latch_t done;
    struct suite_post {
        struct suite_posts *all;
        cake_post_t post;
    } posts[SUITE_POSTS];
    unsigned count;
} suite_posts_t;

static void suite_posted(void *arg)
{
    struct suite_post *posted = arg;
    suite_posts_t *all = posted->all;
    CAKE_ASSERT(all->env->ops->on_loop(all->env));
    CAKE_ASSERT(posted == &all->posts[all->count]);
    if (++all->count == SUITE_POSTS)
        latch_open(&all->done);
}

static void suite_post_order(cake_env_t *env)
{
    suite_posts_t *all = cake__calloc(&cake__libc_alloc, 1, sizeof *all);
    all->env = env;
    latch_init(&all->done, env);
    for (unsigned i = 0; i < SUITE_POSTS; i++) {
        all->posts[i].all = all;
        all->posts[i].post = (cake_post_t){.fn = suite_posted, .arg = &all->posts[i]};
        env->ops->post(env, &all->posts[i].post);
    }
    latch_wait(&all->done);
    cake__free(&cake__libc_alloc, all);
}

static void suite_gates(cake_env_t *env)
{
    latch_t early;
    latch_init(&early, env);
    latch_open(&early);
    latch_wait(&early); /* open already: does not wait */
}

/* ---- lanes ---- */

#define SUITE_WORKS 64

typedef struct suite_works {
    cake_env_t *env;
    cake_lane_t *lane;
    latch_t closed;
    struct suite_work {
        struct suite_works *all;
        cake_work_t work;
        bool has_run;
    } works[SUITE_WORKS];
    unsigned run_count, done_count, posted_count;
    cake_post_t posts[SUITE_WORKS];
    bool is_submitting;
} suite_works_t;

static void suite_work_posted(void *arg)
{
    ((suite_works_t *)arg)->posted_count++;
}

static void suite_work_run(void *arg)
{
    struct suite_work *work = arg;
    suite_works_t *all = work->all;
    unsigned number = all->run_count++;
    CAKE_ASSERT(!all->env->ops->on_loop(all->env) && work == &all->works[number]);
    work->has_run = true;
    all->posts[number] = (cake_post_t){.fn = suite_work_posted, .arg = all};
    all->env->ops->post(all->env, &all->posts[number]); /* a lane may post */
}

static void suite_work_done(void *arg)
{
    struct suite_work *work = arg;
    suite_works_t *all = work->all;
    CAKE_ASSERT(all->env->ops->on_loop(all->env) && !all->is_submitting);
    CAKE_ASSERT(work == &all->works[all->done_count] && work->has_run);
    all->done_count++;
}

static void suite_lane_closed(void *arg)
{
    suite_works_t *all = arg;
    CAKE_ASSERT(all->env->ops->on_loop(all->env));
    CAKE_ASSERT(all->done_count == SUITE_WORKS && all->posted_count == SUITE_WORKS);
    latch_open(&all->closed);
}

static int suite_lane_fill(void *arg)
{
    suite_works_t *all = arg;
    CAKE_ASSERT(all->env->ops->lane_open(all->env, "suite", &all->lane) == 0);
    all->is_submitting = true;
    for (unsigned i = 0; i < SUITE_WORKS; i++) {
        all->works[i].all = all;
        all->works[i].work = (cake_work_t){.run = suite_work_run, .done = suite_work_done, .arg = &all->works[i]};
        all->env->ops->lane_submit(all->lane, &all->works[i].work);
    }
    all->is_submitting = false;
    all->env->ops->lane_close(all->lane, suite_lane_closed, all); /* what was submitted is still done */
    return 0;
}

static void suite_lanes(cake_env_t *env)
{
    suite_works_t *all = cake__calloc(&cake__libc_alloc, 1, sizeof *all);
    all->env = env;
    latch_init(&all->closed, env);
    cake__run_on_loop(env, suite_lane_fill, all);
    latch_wait(&all->closed);
    cake__free(&cake__libc_alloc, all);
}

#endif
