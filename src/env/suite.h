/* suite.h: what every environment of <datacake/env.h> promises, as tests. The conformance_test.c of an environment
 * includes it once and runs each of suite_cases with a fresh environment, by suite_run.
 *
 * Cases run on a thread that is not the loop's (in the simulator: outside of any event) and talk to the loop by
 * cake__run_on_loop and gates. A broken promise stops the program at the line that says it; so does a case that has
 * not ended after SUITE_DEADLINE_MS of its environment's time. */
#ifndef CAKE_ENV_SUITE_H
#define CAKE_ENV_SUITE_H

#include <stdio.h>

#include "env/suite_stream.h"

#define SUITE_DEADLINE_MS 60000

/* ---- datagrams: each size goes there and back, again after 50 ms when it was lost ---- */

typedef struct {
    cake_env_t *env;
    cake_datagram_t *asking, *answering;
    cake_addr_t asking_addr, answering_addr;
    uint8_t data[CAKE_DATAGRAM_MAX];
    cake_timer_t again;
    unsigned next, closed_count;
    latch_t done, closed;
} suite_datagrams_t;

static const size_t suite_datagram_sizes[] = {1, 0, 1400, 9000, 30000, 2};

static void suite_ask(void *arg)
{
    suite_datagrams_t *all = arg;
    size_t len = suite_datagram_sizes[all->next];
    for (size_t i = 0; i < len; i++)
        all->data[i] = suite_byte(i);
    all->env->ops->datagram_send(all->asking, &all->answering_addr, all->data, len);
    memset(all->data, 0, len); /* it was copied */
    cake__timer_arm_ms(all->env, &all->again, 50);
}

static void suite_answer(void *arg, const cake_addr_t *from, const void *data, size_t len)
{
    suite_datagrams_t *all = arg;
    CAKE_ASSERT(all->env->ops->on_loop(all->env) && cake_addr_equal(from, &all->asking_addr));
    all->env->ops->datagram_send(all->answering, from, data, len);
}

static void suite_answered(void *arg, const cake_addr_t *from, const void *data, size_t len)
{
    suite_datagrams_t *all = arg;
    CAKE_ASSERT(cake_addr_equal(from, &all->answering_addr));
    if (all->next == CAKE_COUNT_OF(suite_datagram_sizes) || len != suite_datagram_sizes[all->next])
        return; /* the answer to one that was asked twice */
    for (size_t i = 0; i < len; i++)
        CAKE_ASSERT(((const uint8_t *)data)[i] == suite_byte(i));
    all->env->ops->timer_cancel(all->env, &all->again);
    if (++all->next < CAKE_COUNT_OF(suite_datagram_sizes))
        suite_ask(all);
    else
        latch_open(&all->done);
}

static int suite_datagrams_start(void *arg)
{
    suite_datagrams_t *all = arg;
    const cake_env_ops_t *ops = all->env->ops;
    cake_addr_t any_port = suite_addr("127.0.0.1:0"), not_ours = suite_addr("192.0.2.7:0");
    cake_datagram_t *other;
    CAKE_ASSERT(ops->datagram_open(all->env, &any_port, suite_answered, all, &all->asking) == 0);
    CAKE_ASSERT(ops->datagram_open(all->env, &any_port, suite_answer, all, &all->answering) == 0);
    ops->datagram_addr(all->asking, &all->asking_addr);
    ops->datagram_addr(all->answering, &all->answering_addr);
    CAKE_ASSERT(all->asking_addr.port != 0 && !cake_addr_equal(&all->asking_addr, &all->answering_addr));
    int err = ops->datagram_open(all->env, &all->asking_addr, suite_answer, all, &other);
    CAKE_ASSERT(err == CAKE_EADDRINUSE);
    CAKE_ASSERT(ops->datagram_open(all->env, &not_ours, suite_answer, all, &other) == CAKE_EINVAL);
    suite_ask(all);
    return 0;
}

static void suite_datagram_closed(void *arg)
{
    suite_datagrams_t *all = arg;
    if (++all->closed_count == 2)
        latch_open(&all->closed);
}

static int suite_datagrams_end(void *arg)
{
    suite_datagrams_t *all = arg;
    all->env->ops->datagram_close(all->asking, suite_datagram_closed, all);
    all->env->ops->datagram_close(all->answering, suite_datagram_closed, all);
    CAKE_ASSERT(all->closed_count == 0);
    return 0;
}

static void suite_datagrams(cake_env_t *env)
{
    suite_datagrams_t *all = cake__calloc(&cake__libc_alloc, 1, sizeof *all);
    all->env = env;
    all->again = CAKE_TIMER_INIT(suite_ask, all);
    latch_init(&all->done, env);
    latch_init(&all->closed, env);
    cake__run_on_loop(env, suite_datagrams_start, all);
    latch_wait(&all->done);
    cake__run_on_loop(env, suite_datagrams_end, all);
    latch_wait(&all->closed);
    cake__free(&cake__libc_alloc, all);
}

/* ---- names ---- */

typedef struct {
    cake_env_t *env;
    const char *text;
    cake_resolve_t *resolve;
    cake_addr_t addr;
    int err;
    bool is_starting;
    latch_t done;
} suite_name_t;

static void suite_resolved(void *arg, int err, const cake_addr_t *addrs, size_t count)
{
    suite_name_t *name = arg;
    CAKE_ASSERT(name->env->ops->on_loop(name->env) && !name->is_starting);
    CAKE_ASSERT(err != 0 || count > 0);
    name->err = err;
    if (count > 0)
        name->addr = addrs[0];
    latch_open(&name->done);
}

static int suite_resolve_start(void *arg)
{
    suite_name_t *name = arg;
    name->is_starting = true;
    int err = name->env->ops->resolve(name->env, name->text, suite_resolved, name, &name->resolve);
    name->is_starting = false;
    return err;
}

static int suite_resolve_and_cancel(void *arg)
{
    suite_name_t *name = arg;
    CAKE_ASSERT(suite_resolve_start(name) == 0);
    name->env->ops->resolve_cancel(name->resolve);
    return 0;
}

static void suite_names(cake_env_t *env)
{
    static const char *const good[] = {"127.0.0.1:80", "[::1]:80", "localhost:80"};
    static const char *const bad[] = {"", "name", "name:", ":80", "name:65536", "name:8a", "::1:80", "name:-1"};
    for (size_t i = 0; i < CAKE_COUNT_OF(good); i++) {
        suite_name_t name = {.env = env, .text = good[i]};
        latch_init(&name.done, env);
        CAKE_ASSERT(cake__run_on_loop(env, suite_resolve_start, &name) == 0);
        latch_wait(&name.done);
        CAKE_ASSERT(name.err == 0 && name.addr.port == 80);
        CAKE_ASSERT(name.addr.family == 4 ? name.addr.ip[0] == 127 : name.addr.ip[15] == 1);
        suite_name_t canceled = {.env = env, .text = good[i], .err = 1};
        cake__run_on_loop(env, suite_resolve_and_cancel, &canceled);
        suite_let_run(env);
        CAKE_ASSERT(canceled.err == 1);
    }
    for (size_t i = 0; i < CAKE_COUNT_OF(bad); i++) {
        suite_name_t name = {.env = env, .text = bad[i]};
        CAKE_ASSERT(cake__run_on_loop(env, suite_resolve_start, &name) == CAKE_EPARSE);
    }
}

/* ---- all of them ---- */

typedef struct suite_case {
    const char *name;
    void (*run)(cake_env_t *env);
} suite_case_t;

static const suite_case_t suite_cases[] = {
    {"clocks go on and random numbers differ", suite_clocks},
    {"timers fire in the order of deadline and arming", suite_timer_order},
    {"deferred calls run once at the end of the step", suite_defer},
    {"posts run on the loop in their order", suite_post_order},
    {"an open gate lets through", suite_gates},
    {"a lane runs its work in order and gives it back in order", suite_lanes},
    {"a stream brings back 1 MiB in writes and reads of all sizes", suite_echo},
    {"a paused stream reads nothing and loses nothing", suite_pause},
    {"a stream without a buffer reads nothing and loses nothing", suite_no_buffer},
    {"a stream shut in one direction carries the other", suite_shutdown},
    {"closing ends a write under way without on_written", suite_close_while_writing},
    {"writing to a peer that is gone is an error", suite_peer_gone},
    {"closing a stream with unread bytes resets it", suite_close_unread},
    {"an incoming stream may be closed at once", suite_close_at_accept},
    {"a connect to a closed port is refused", suite_connect_refused},
    {"a connect may be closed under way", suite_close_while_connecting},
    {"listening where one cannot is an error", suite_listen_errors},
    {"datagrams go there and back", suite_datagrams},
    {"names become addresses", suite_names},
};

static void suite_too_late(void *arg)
{
    const suite_case_t *one = arg;
    fprintf(stderr, "not ended in time: %s\n", one->name);
    CAKE_ASSERT(!"a case that ends");
}

typedef struct {
    cake_env_t *env;
    cake_timer_t timer;
} suite_deadline_t;

static int suite_arm_deadline(void *arg)
{
    suite_deadline_t *deadline = arg;
    cake__timer_arm_ms(deadline->env, &deadline->timer, SUITE_DEADLINE_MS);
    return 0;
}

static int suite_cancel_deadline(void *arg)
{
    suite_deadline_t *deadline = arg;
    deadline->env->ops->timer_cancel(deadline->env, &deadline->timer);
    return 0;
}

static inline void suite_run(cake_env_t *env, const suite_case_t *one)
{
    suite_deadline_t deadline = {env, CAKE_TIMER_INIT(suite_too_late, (void *)(uintptr_t)one)};
    cake__run_on_loop(env, suite_arm_deadline, &deadline);
    one->run(env);
    cake__run_on_loop(env, suite_cancel_deadline, &deadline);
}

#endif
