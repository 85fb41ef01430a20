/* What happens to simulated hosts: crash and restart, pause, slowness, clocks, the heap; and that one seed is one
 * run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "sim/env/actor_test.h"

static cake__world_t *quiet_world(uint64_t seed, uint32_t hosts)
{
    return world_of(&(cake__world_options_t){.seed = seed}, hosts);
}

static void *leak_some(cake_env_t *env, size_t size)
{
    return cake__malloc(&env->alloc, size);
}

static cake__heap_stats_t heap_of(cake__host_t *host)
{
    cake__heap_stats_t stats;
    cake__host_heap_stats(host, &stats);
    return stats;
}

/* ---- crash and restart ---- */

static void test_a_crash_frees_the_heap_and_a_restart_begins_anew(void **state)
{
    cake__world_t *world = quiet_world(1, 2);
    actor_t *server = actor_new(world, 1), *client = actor_new(world, 2);
    actors_connect(server, client);
    leak_some(server->env, 100);
    assert_true(heap_of(server->host).live_blocks >= 3); /* listener, stream, and what was leaked */
    cake__host_crash(server->host, CAKE__CRASH_RESET);
    assert_int_equal(heap_of(server->host).live_blocks, 0);
    assert_null(cake__host_env(server->host));
    run_seconds(world, 1);
    assert_int_equal(client->read_err, CAKE_ECONNECTION);

    server->env = cake__host_start(server->host);
    server->stream = NULL;
    actor_listen(server); /* the port is free again */
    actor_close(client);
    run_seconds(world, 1);
    actor_connect(client, 1);
    run_seconds(world, 1);
    assert_int_equal(client->connect_err, 0);
    assert_non_null(server->stream);
    cake__world_free(world);
    actor_free(server);
    actor_free(client);
}

static void test_nothing_of_a_crashed_process_runs_again(void **state)
{
    for (uint64_t seed = 0; seed < 50; seed++) {
        cake__world_t *world = quiet_world(seed, 2);
        actor_t *server = actor_new(world, 1), *client = actor_new(world, 2);
        actors_connect(server, client);
        actor_open_socket(server);
        actor_open_socket(client);
        actor_write(client, ACTOR_OUT_BYTES);
        actor_send_packets(client, 1, 100);
        cake__world_run_for(world, seed * 20000); /* in the middle of things */
        if (seed % 3 == 0)
            cake__host_pause(server->host);
        cake__host_crash(server->host, seed % 2 == 0 ? CAKE__CRASH_RESET : CAKE__CRASH_SILENT);
        server->env = NULL; /* a callback would use it */
        run_seconds(world, 30);
        cake__host_start(server->host);
        if (client->is_written && !client->is_over)
            actor_write(client, 1); /* all had arrived, so it waits for nothing: only a write tells it */
        run_seconds(world, 100);
        assert_true(client->is_over); /* reset at once or by the machine that is back, or gave up */
        cake__world_free(world);
        actor_free(server);
        actor_free(client);
    }
}

static void test_a_silent_crash_leaves_peers_waiting_until_the_machine_is_back(void **state)
{
    cake__world_t *world = quiet_world(1, 3);
    actor_t *server = actor_new(world, 1), *client = actor_new(world, 2), *late = actor_new(world, 3);
    actors_connect(server, client);
    cake__host_crash(server->host, CAKE__CRASH_SILENT);
    actor_connect(late, 1);
    actor_write(client, 10);
    run_seconds(world, 5);
    assert_false(client->is_over || late->is_connected);
    cake__host_start(server->host);
    run_seconds(world, 10);
    assert_int_equal(client->read_err, CAKE_ECONNECTION);
    assert_int_equal(late->connect_err, CAKE_ECONNECTION); /* its machine answers, and nobody listens */
    cake__world_free(world);
    actor_free(server);
    actor_free(client);
    actor_free(late);
}

/* ---- lanes and crashes ---- */

typedef struct {
    cake_env_t *env;
    cake_lane_t *lane;
    struct lane_step {
        cake_work_t work;
        bool has_run, is_done;
    } steps[6];
} laner_t;

static void note_run(void *arg)
{
    ((struct lane_step *)arg)->has_run = true;
}

static void note_done(void *arg)
{
    ((struct lane_step *)arg)->is_done = true;
}

static int submit_steps(void *arg)
{
    laner_t *laner = arg;
    CAKE_ASSERT(laner->env->ops->lane_open(laner->env, "steps", &laner->lane) == 0);
    for (size_t i = 0; i < CAKE_COUNT_OF(laner->steps); i++) {
        laner->steps[i].work = (cake_work_t){.run = note_run, .done = note_done, .arg = &laner->steps[i]};
        laner->env->ops->lane_submit(laner->lane, &laner->steps[i].work);
    }
    return 0;
}

static void test_a_crash_leaves_work_done_or_undone_or_done_and_unheard_of(void **state)
{
    unsigned heard = 0, unheard = 0, unrun = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        cake__world_t *world = quiet_world(seed, 1);
        laner_t laner = {.env = cake__host_env(cake__world_host(world, 1))};
        cake__run_on_loop(laner.env, submit_steps, &laner);
        cake__world_run_for(world, seed * 40000);
        cake__host_crash(cake__world_host(world, 1), CAKE__CRASH_DRAWN);
        laner_t at_crash = laner;
        run_seconds(world, 10);
        assert_memory_equal(&laner, &at_crash, sizeof laner);
        for (size_t i = 0; i < CAKE_COUNT_OF(laner.steps); i++) {
            heard += laner.steps[i].is_done;
            unheard += laner.steps[i].has_run && !laner.steps[i].is_done;
            unrun += !laner.steps[i].has_run;
        }
        cake__world_free(world);
    }
    assert_true(heard > 20 && unheard > 20 && unrun > 20);
}

/* ---- a graceful end ---- */

static void test_closing_shows_what_was_leaked(void **state)
{
    cake__world_t *world = quiet_world(1, 1);
    cake__host_t *host = cake__world_host(world, 1);
    cake_env_t *env = cake__host_env(host);
    cake_alloc_t alloc = env->alloc;
    void *leaked = leak_some(env, 64), *freed_late = leak_some(env, 64);
    env->ops->close(env);
    assert_null(cake__host_env(host));
    assert_int_equal(heap_of(host).live_blocks, 2);
    assert_int_equal(heap_of(host).live_bytes, 128);
    cake__free(&alloc, freed_late);
    assert_int_equal(heap_of(host).live_blocks, 1);
    assert_non_null(leaked);
    cake__host_start(host);
    assert_int_equal(heap_of(host).live_blocks, 0);
    cake__world_free(world);
}

/* ---- the heap ---- */

static void test_allocations_are_counted_and_fail_when_told(void **state)
{
    cake__world_t *world = quiet_world(1, 1);
    cake__host_t *host = cake__world_host(world, 1);
    cake_alloc_t alloc = cake__host_env(host)->alloc;
    uint8_t *block = cake__malloc(&alloc, 10);
    memset(block, 7, 10);
    block = cake__realloc(&alloc, block, 1000);
    assert_int_equal(block[9], 7);
    assert_int_equal(heap_of(host).allocations, 2);
    assert_int_equal(heap_of(host).live_bytes, 1000);
    assert_int_equal(heap_of(host).peak_bytes, 1000);
    cake__host_fail_alloc(host, 2, false);
    void *first = cake__malloc(&alloc, 1), *second = cake__malloc(&alloc, 1), *third = cake__malloc(&alloc, 1);
    assert_true(first != NULL && second == NULL && third != NULL);
    cake__host_fail_alloc(host, 1, true);
    assert_null(cake__realloc(&alloc, block, 2000));
    assert_int_equal(block[9], 7); /* the old one stays */
    assert_null(cake__malloc(&alloc, 1));
    block = cake__realloc(&alloc, block, 5); /* smaller never fails */
    assert_non_null(block);
    cake__host_fail_alloc(host, 0, false);
    cake__world_set_faults(world, &(cake__faults_t){.alloc_fail_rate = 1});
    assert_null(cake__malloc(&alloc, 1));
    assert_int_equal(heap_of(host).failed, 4);
    cake__free(&alloc, block);
    cake__free(&alloc, first);
    cake__free(&alloc, third);
    assert_int_equal(heap_of(host).live_blocks, 0);
    cake__world_free(world);
}

static void test_a_connection_without_memory_is_reset(void **state)
{
    cake__world_t *world = quiet_world(1, 2);
    actor_t *server = actor_new(world, 1), *client = actor_new(world, 2);
    actor_listen(server);
    cake__host_fail_alloc(server->host, 1, true);
    actor_connect(client, 1);
    run_seconds(world, 1);
    assert_null(server->stream);
    assert_int_equal(client->read_err, CAKE_ECONNECTION);
    cake__world_free(world);
    actor_free(server);
    actor_free(client);
}

/* ---- pause and slowness ---- */

typedef struct {
    cake__world_t *world;
    cake_env_t *env;
    cake_timer_t timers[3];
    uint64_t fired_ns[3];
    unsigned order[8], count;
} ticker_t;

static void tick(ticker_t *ticker, unsigned number)
{
    ticker->fired_ns[number] = cake__world_now_ns(ticker->world);
    ticker->order[ticker->count++] = number;
}

static void tick_0(void *arg)
{
    tick(arg, 0);
}

static void tick_1(void *arg)
{
    tick(arg, 1);
}

static void tick_2(void *arg)
{
    tick(arg, 2);
}

static int start_ticker(void *arg)
{
    ticker_t *ticker = arg;
    const cake_event_fn ticks[] = {tick_0, tick_1, tick_2};
    for (unsigned i = 0; i < 3; i++) {
        ticker->timers[i] = CAKE_TIMER_INIT(ticks[i], ticker);
        cake__timer_arm_ms(ticker->env, &ticker->timers[i], 300 - 100 * i);
    }
    return 0;
}

static ticker_t ticker_on(cake__world_t *world)
{
    return (ticker_t){.world = world, .env = cake__host_env(cake__world_host(world, 1))};
}

static void test_a_paused_host_does_all_later_in_order(void **state)
{
    cake__world_t *world = quiet_world(1, 2);
    cake__host_t *host = cake__world_host(world, 1);
    actor_t *server = actor_new(world, 1), *client = actor_new(world, 2);
    ticker_t ticker = ticker_on(world);
    actor_listen(server);
    cake__run_on_loop(ticker.env, start_ticker, &ticker);
    cake__host_pause(host);
    actor_connect(client, 1);
    run_seconds(world, 5);
    assert_int_equal(ticker.count, 0);
    assert_int_equal(client->connect_err, 0); /* its machine accepts */
    assert_true(client->is_connected && server->stream == NULL);
    cake__host_resume(host);
    run_seconds(world, 0.001);
    assert_int_equal(ticker.count, 3);
    assert_true(ticker.order[0] == 2 && ticker.order[1] == 1 && ticker.order[2] == 0);
    assert_non_null(server->stream);
    cake__world_free(world);
    actor_free(server);
    actor_free(client);
}

static void test_a_slow_host_takes_its_time_for_each_event(void **state)
{
    cake__world_t *world = quiet_world(1, 1);
    ticker_t ticker = ticker_on(world);
    cake__host_slow(cake__world_host(world, 1), ACTOR_SECOND_NS);
    cake__run_on_loop(ticker.env, start_ticker, &ticker);
    run_seconds(world, 10);
    assert_int_equal(ticker.count, 3);
    assert_true(ticker.fired_ns[2] >= ACTOR_SECOND_NS); /* the posted start took one */
    assert_true(ticker.fired_ns[1] >= ticker.fired_ns[2] + ACTOR_SECOND_NS);
    assert_true(ticker.fired_ns[0] >= ticker.fired_ns[1] + ACTOR_SECOND_NS);
    cake__world_free(world);
}

/* What came first runs first, whether it had to wait or falls due at the very moment the host is free again. */
static void test_a_slow_host_keeps_the_order(void **state)
{
    cake__world_t *world = quiet_world(1, 1);
    ticker_t ticker = ticker_on(world);
    const cake_event_fn ticks[] = {tick_0, tick_1};
    cake_post_t posts[2];
    cake__run_on_loop(ticker.env, start_ticker, &ticker); /* timer 2 is due at 0.1 s */
    cake__host_slow(cake__world_host(world, 1), 50 * CAKE_NS_PER_MS);
    for (unsigned i = 0; i < 2; i++) {
        posts[i] = (cake_post_t){.fn = ticks[i], .arg = &ticker};
        ticker.env->ops->post(ticker.env, &posts[i]);
    }
    cake_post_t third = {.fn = tick_0, .arg = &ticker};
    run_seconds(world, 0.06); /* 0 ran at 0 s, 1 at 0.05 s; the host is busy until 0.1 s */
    ticker.env->ops->post(ticker.env, &third);
    run_seconds(world, 0.1);
    assert_int_equal(ticker.count, 4);
    assert_true(ticker.order[2] == 0 && ticker.order[3] == 2);
    cake__world_free(world);
}

/* ---- clocks ---- */

static int64_t wall_error_ms(cake__host_t *host, cake__world_t *world)
{
    cake_env_t *env = cake__host_env(host);
    return (int64_t)(env->ops->wall_ms(env) - cake__world_wall_ms(world));
}

static void test_wall_clocks_are_off_and_drift_and_jump(void **state)
{
    cake__world_t *world = quiet_world(1, 1);
    cake__host_t *host = cake__world_host(world, 1);
    assert_int_equal(wall_error_ms(host, world), 0);
    cake__host_jump_clock(host, -86400000);
    assert_int_equal(wall_error_ms(host, world), -86400000);
    cake__host_jump_clock(host, 86400000);
    cake__host_drift_clock(host, 100000);
    run_seconds(world, 10);
    assert_int_equal(wall_error_ms(host, world), 1000);
    cake__host_drift_clock(host, -100000);
    run_seconds(world, 20);
    assert_int_equal(wall_error_ms(host, world), -1000);
    uint64_t before_ns = cake__now_ns(cake__host_env(host));
    run_seconds(world, 1);
    assert_true(cake__now_ns(cake__host_env(host)) == before_ns + ACTOR_SECOND_NS); /* monotonic time goes on alike */
    cake__world_set_faults(world, &(cake__faults_t){.clock_jump_rate = 1, .clock_jump_max_ms = 1000000});
    int64_t error_ms = wall_error_ms(host, world);
    assert_true(wall_error_ms(host, world) != error_ms);
    cake__world_free(world);

    world = world_of(&(cake__world_options_t){.clock_offset_max_ms = 60000, .clock_drift_max_ppm = 500}, 2);
    int64_t first_ms = wall_error_ms(cake__world_host(world, 1), world);
    int64_t second_ms = wall_error_ms(cake__world_host(world, 2), world);
    assert_true(first_ms != second_ms && first_ms >= -60000 && first_ms <= 60000);
    assert_true(cake__now_ns(cake__host_env(cake__world_host(world, 1))) !=
                cake__now_ns(cake__host_env(cake__world_host(world, 2))));
    cake__host_mend_clock(cake__world_host(world, 1));
    run_seconds(world, 100);
    assert_int_equal(wall_error_ms(cake__world_host(world, 1), world), 0);
    cake__world_free(world);
}

/* ---- scenarios, logs and traces ---- */

static void restart_first(void *arg)
{
    cake__world_t *world = arg;
    cake__host_t *host = cake__world_host(world, 1);
    assert_int_equal(cake__world_now_ns(world), 2 * ACTOR_SECOND_NS);
    cake__host_crash(host, CAKE__CRASH_DRAWN);
    cake__host_start(host);
}

static void append_a(void *arg)
{
    strcat(arg, "a");
}

static void append_b(void *arg)
{
    strcat(arg, "b");
}

static void test_events_of_one_time_run_in_the_order_of_asking(void **state)
{
    cake__world_t *world = quiet_world(1, 1);
    char order[32] = "";
    for (unsigned i = 0; i < 10; i++)
        cake__world_at(world, ACTOR_SECOND_NS, i % 2 == 0 ? append_a : append_b, order);
    run_seconds(world, 1);
    assert_string_equal(order, "ababababab");
    cake__world_free(world);
}

typedef struct {
    unsigned lines;
    char last[128];
} lines_t;

static void note_line(void *arg, const char *line)
{
    lines_t *lines = arg;
    lines->lines++;
    snprintf(lines->last, sizeof lines->last, "%s", line);
}

static void note_log(void *ctx, cake_log_level_t level, const char *message)
{
    note_line(ctx, message);
}

static void test_scenarios_run_at_their_time_and_traces_tell_of_events(void **state)
{
    lines_t lines = {0}, logged = {0};
    cake_log_t log = {note_log, &logged, CAKE_LOG_INFO};
    cake__world_options_t options = {.trace = note_line, .trace_arg = &lines, .log = &log};
    cake__world_t *world = world_of(&options, 1);
    cake_env_t *before = cake__host_env(cake__world_host(world, 1));
    cake__log(&before->log, CAKE_LOG_WARN, "hello %d", 7);
    assert_string_equal(logged.last, "0.000000 host-1: hello 7");
    cake__world_at(world, 2 * ACTOR_SECOND_NS, restart_first, world);
    run_seconds(world, 3);
    assert_int_equal(lines.lines, 1);
    assert_string_equal(lines.last, "2.000000000 - CALL");
    assert_int_equal(cake__world_event_count(world), 1);
    cake__world_free(world);
}

/* ---- one seed, one run ---- */

static const cake__faults_t all_faults = {.segment_rate = 0.3,
                                          .stall_rate = 0.05,
                                          .reset_rate = 0.01,
                                          .half_open_rate = 0.01,
                                          .black_hole_rate = 0.05,
                                          .connect_refuse_rate = 0.05,
                                          .connect_timeout_rate = 0.05,
                                          .loss_rate = 0.1,
                                          .duplicate_rate = 0.1,
                                          .reorder_rate = 0.1,
                                          .lane_stall_rate = 0.1,
                                          .clock_jump_rate = 0.01};

/* Everything at once; gives the trace hash. */
static uint64_t hash_of_run(uint64_t seed, const cake__faults_t *faults, uint64_t *lane_ns)
{
    cake__world_t *world = world_of(&(cake__world_options_t){.seed = seed, .faults = *faults}, 3);
    void *shift = cake__malloc(&cake__libc_alloc, 100 + (size_t)seed * 13); /* other addresses in each run */
    actor_t *server = actor_new(world, 1), *client = actor_new(world, 2), *other = actor_new(world, 3);
    laner_t laner = {.env = other->env};
    actor_listen(server);
    actor_open_socket(server);
    actor_open_socket(client);
    for (unsigned round = 0; round < 5; round++) {
        actor_connect(client, 1);
        run_seconds(world, 0.3);
        if (client->is_connected && client->connect_err == 0)
            actor_write(client, ACTOR_OUT_BYTES / (round + 1));
        actor_send_packets(client, 1, 200);
        run_seconds(world, 0.3);
        actor_close(client);
        actor_close(server);
        run_seconds(world, 31);
    }
    cake__run_on_loop(laner.env, submit_steps, &laner);
    while (!laner.steps[5].is_done)
        cake__world_step(world);
    *lane_ns = cake__world_now_ns(world);
    uint64_t hash = cake__world_trace_hash(world);
    cake__world_free(world);
    cake__free(&cake__libc_alloc, shift);
    actor_free(server);
    actor_free(client);
    actor_free(other);
    return hash;
}

static void test_two_runs_of_one_seed_are_equal(void **state)
{
    uint64_t lane_ns, lane_again_ns, last = 0;
    for (uint64_t seed = 0; seed < 30; seed++) {
        uint64_t hash = hash_of_run(seed, &all_faults, &lane_ns);
        assert_true(hash == hash_of_run(seed, &all_faults, &lane_again_ns));
        assert_true(lane_ns == lane_again_ns && hash != last);
        last = hash;
    }
}

static void test_another_kind_of_fault_leaves_the_draws_of_the_others(void **state)
{
    cake__faults_t more = all_faults, other = all_faults;
    uint64_t lane_ns, lane_other_ns, lane_more_ns;
    more.loss_rate = 0.5;
    other.lane_stall_rate = 1;
    uint64_t hash = hash_of_run(3, &all_faults, &lane_ns);
    assert_true(hash != hash_of_run(3, &more, &lane_more_ns));
    assert_true(lane_more_ns == lane_ns);
    hash_of_run(3, &other, &lane_other_ns);
    assert_true(lane_other_ns > lane_ns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_crash_frees_the_heap_and_a_restart_begins_anew),
        cmocka_unit_test(test_nothing_of_a_crashed_process_runs_again),
        cmocka_unit_test(test_a_silent_crash_leaves_peers_waiting_until_the_machine_is_back),
        cmocka_unit_test(test_a_crash_leaves_work_done_or_undone_or_done_and_unheard_of),
        cmocka_unit_test(test_closing_shows_what_was_leaked),
        cmocka_unit_test(test_allocations_are_counted_and_fail_when_told),
        cmocka_unit_test(test_a_connection_without_memory_is_reset),
        cmocka_unit_test(test_a_paused_host_does_all_later_in_order),
        cmocka_unit_test(test_a_slow_host_takes_its_time_for_each_event),
        cmocka_unit_test(test_a_slow_host_keeps_the_order),
        cmocka_unit_test(test_wall_clocks_are_off_and_drift_and_jump),
        cmocka_unit_test(test_events_of_one_time_run_in_the_order_of_asking),
        cmocka_unit_test(test_scenarios_run_at_their_time_and_traces_tell_of_events),
        cmocka_unit_test(test_two_runs_of_one_seed_are_equal),
        cmocka_unit_test(test_another_kind_of_fault_leaves_the_draws_of_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
