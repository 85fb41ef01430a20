/* Calls under faults of the net and of the heap, in the simulator. The checker: each call ends exactly once, with
 * the right answer or with an error; when the net is whole again calls go through; nothing is left behind. ctest:
 * no-tsan: one thread */
#include <stdio.h>

#include "rpc/fixture.h"

static void start_with(fixture_t *fixture, uint64_t seed, const cake__faults_t *faults)
{
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    fixture_envs(fixture, true, seed);
    fixture_listen(fixture, server, NULL);
    fixture_open(fixture, channel);
    cake__world_set_faults(fixture->world, faults);
}

static int try_call(fixture_t *fixture, const char *path, uint32_t len, uint64_t timeout_ms, uint64_t *took_ms)
{
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    options.timeout_ms = timeout_ms;
    uint64_t before = cake__world_now_ns(fixture->world);
    int err = cake_channel_call(fixture->channel, path, &len, 4, &options, NULL);
    *took_ms = (cake__world_now_ns(fixture->world) - before) / CAKE_NS_PER_MS;
    return err;
}

/* ---- a partition at each point of a connection's life ---- */

static void a_partition_on_connect_ends_the_call(void **state)
{
    fixture_t fixture;
    uint64_t took_ms;
    start_with(&fixture, 1, NULL);
    cake__world_cut_both(fixture.world, 1, 2, true);
    assert_int_equal(try_call(&fixture, "/test/make", 10, 0, &took_ms), CAKE_ECONNECTION);
    assert_true(took_ms >= 1999 && took_ms <= 2100); /* the connect timeout */
    fixture_stop(&fixture);
}

static void a_short_timeout_wins_over_the_connect_timeout(void **state)
{
    fixture_t fixture;
    uint64_t took_ms;
    start_with(&fixture, 1, NULL);
    cake__world_cut_both(fixture.world, 1, 2, true);
    assert_int_equal(try_call(&fixture, "/test/make", 10, 300, &took_ms), CAKE_ETIMEDOUT);
    assert_true(took_ms >= 299 && took_ms <= 310);
    fixture_stop(&fixture);
}

static void a_partition_after_the_first_call_ends_the_next(void **state)
{
    fixture_t fixture;
    uint64_t took_ms;
    start_with(&fixture, 1, NULL);
    assert_int_equal(try_call(&fixture, "/test/make", 10, 0, &took_ms), 0);
    cake__world_cut_both(fixture.world, 1, 2, true);
    assert_int_equal(try_call(&fixture, "/test/make", 10, 1000, &took_ms), CAKE_ETIMEDOUT);
    assert_int_equal(try_call(&fixture, "/test/make", 10, 600000, &took_ms), CAKE_ECONNECTION);
    assert_true(took_ms < 20000); /* pings found out */
    fixture_stop(&fixture);
}

static void calls_go_on_when_a_partition_heals(void **state)
{
    fixture_t fixture;
    uint64_t took_ms;
    start_with(&fixture, 1, NULL);
    assert_int_equal(try_call(&fixture, "/test/make", 10, 0, &took_ms), 0);
    cake__world_cut_both(fixture.world, 1, 2, true);
    for (int i = 0; i < 5; i++)
        assert_int_not_equal(try_call(&fixture, "/test/make", 10, 5000, &took_ms), 0);
    cake__world_heal(fixture.world);
    (void)try_call(&fixture, "/test/make", 10, 5000, &took_ms);
    assert_int_equal(try_call(&fixture, "/test/make", 1000, 10000, &took_ms), 0);
    fixture_stop(&fixture);
}

typedef struct {
    fixture_t *fixture;
    bool is_both;
} cut_t;

static void cut_now(void *arg)
{
    cut_t *cut = arg;
    cake__world_cut(cut->fixture->world, 1, 2, true);
    if (cut->is_both)
        cake__world_cut(cut->fixture->world, 2, 1, true);
}

/* The connection is cut while a long reply is on its way, both ways or one. */
static void a_cut_in_mid_response_ends_the_call(void **state)
{
    for (int i = 0; i < 2; i++) {
        fixture_t fixture;
        uint64_t took_ms;
        start_with(&fixture, 1, NULL);
        cut_t cut = {&fixture, i == 0};
        assert_int_equal(try_call(&fixture, "/test/make", 10, 0, &took_ms), 0);
        cake__world_at(fixture.world, cake__world_now_ns(fixture.world) + 5 * CAKE_NS_PER_MS, cut_now, &cut);
        assert_int_equal(try_call(&fixture, "/test/make", 30000000, 600000, &took_ms), CAKE_ECONNECTION);
        assert_true(took_ms < 20000);
        cake__world_heal(fixture.world);
        (void)try_call(&fixture, "/test/make", 10, 5000, &took_ms);
        assert_int_equal(try_call(&fixture, "/test/make", 10, 5000, &took_ms), 0);
        fixture_stop(&fixture);
    }
}

/* ---- random calls, random faults ---- */

#define CALLS     200
#define BODY_MOST 3000000u

static uint8_t pattern[BODY_MOST]; /* what handle_make makes */

typedef struct {
    fixture_t *fixture;
    outcome_t outcomes[CALLS];
    uint32_t lens[CALLS];
    bool may_fail[CALLS];
    bool lacks_memory;
    int left, started;
} load_t;

static void start_one(void *arg)
{
    load_t *load = arg;
    cake__world_t *world = load->fixture->world;
    int i = load->started++;
    uint64_t draw = cake__world_draw(world);
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    options.timeout_ms = 50 + draw % 20000;
    load->lens[i] = (uint32_t)(draw >> 20) % (draw % 7 == 0 ? BODY_MOST : 2000);
    bool is_echo = draw % 5 == 0; /* the body goes both ways */
    cake_slice_t part = is_echo ? cake__slice(pattern, load->lens[i]) : cake__slice(&load->lens[i], 4);
    cake_call_t *call = NULL;
    const char *path = draw % 11 == 0 ? "/other/make" : is_echo ? "/test/echo" : "/test/make";
    bool is_canceled = draw % 13 == 0;
    load->may_fail[i] = is_canceled || draw % 11 == 0;
    int err = cake_channel_call_async(load->fixture->channel, path, &part, 1, &options, note, &load->outcomes[i],
                                      is_canceled ? &call : NULL);
    assert_true(err == 0 || (err == CAKE_ENOMEM && load->lacks_memory));
    if (err != 0)
        load->outcomes[i] = (outcome_t){.done = 1, .err = err};
    else if (is_canceled)
        cake_call_cancel(call);
    cake_call_free(call);
}

static bool all_done(void *arg)
{
    load_t *load = arg;
    for (int i = 0; i < CALLS; i++) {
        if (load->outcomes[i].done == 0)
            return false;
    }
    return true;
}

static void check(const load_t *load, uint64_t seed, bool is_calm)
{
    for (int i = 0; i < CALLS; i++) {
        const outcome_t *outcome = &load->outcomes[i];
        bool is_fine =
            outcome->done == 1 && (outcome->err != 0 || (outcome->is_right && outcome->len == load->lens[i]));
        bool may_err = !is_calm || load->may_fail[i];
        if (!is_fine || (outcome->err != 0 && !may_err))
            fail_msg("seed %d: call %d ended %d times with %s, %zu bytes of %u", (int)seed, i, outcome->done,
                     cake_err_name(outcome->err), outcome->len, load->lens[i]);
    }
}

static void one_seed(uint64_t seed, double alloc_fail_rate)
{
    fixture_t fixture;
    load_t *load = calloc(1, sizeof *load);
    start_with(&fixture, seed, NULL);
    load->fixture = &fixture;
    load->lacks_memory = alloc_fail_rate > 0;
    uint64_t draw = cake__world_draw(fixture.world);
    double scale = (double)(draw % 4) / 3; /* of a quarter of the seeds nothing fails */
    cake__faults_t faults = {.segment_rate = draw >> 8 & 1 ? 0.5 : 0,
                             .stall_rate = (draw >> 9 & 1 ? 0.02 : 0) * scale,
                             .reset_rate = (draw >> 10 & 1 ? 0.01 : 0) * scale,
                             .half_open_rate = (draw >> 11 & 1 ? 0.005 : 0) * scale,
                             .black_hole_rate = (draw >> 12 & 1 ? 0.2 : 0) * scale,
                             .connect_refuse_rate = (draw >> 13 & 1 ? 0.3 : 0) * scale,
                             .connect_timeout_rate = (draw >> 14 & 1 ? 0.2 : 0) * scale,
                             .alloc_fail_rate = alloc_fail_rate};
    bool is_calm = scale == 0 && alloc_fail_rate == 0;
    cake__world_set_faults(fixture.world, &faults);
    uint64_t at = cake__world_now_ns(fixture.world);
    for (int i = 0; i < CALLS; i++)
        cake__world_at(fixture.world, at += cake__world_draw(fixture.world) % (200 * CAKE_NS_PER_MS), start_one, load);
    if (draw >> 15 & 1) {
        is_calm = false;
        cake__world_run_for(fixture.world, 5000 * CAKE_NS_PER_MS);
        cake__world_cut(fixture.world, 1, 2, true);
        cake__world_run_for(fixture.world, 5000 * CAKE_NS_PER_MS);
        cake__world_heal(fixture.world);
    }
    assert_true(cake__world_run_until(fixture.world, all_done, load, at + 60000 * CAKE_NS_PER_MS));
    for (int i = 0; i < CALLS && is_calm; i++)
        load->may_fail[i] = load->may_fail[i] || load->outcomes[i].err == CAKE_ETIMEDOUT;
    check(load, seed, is_calm);
    cake__world_set_faults(fixture.world, NULL);
    uint64_t took_ms;
    (void)try_call(&fixture, "/test/make", 10, 10000, &took_ms);
    assert_int_equal(try_call(&fixture, "/test/make", 10, 60000, &took_ms), 0);
    fixture_stop(&fixture);
    free(load);
}

static void some_seeds(uint64_t count, const double *alloc_fail_rates, size_t rate_count)
{
    const char *only = getenv("CAKE_SEED"), *text = getenv("CAKE_SEEDS");
    uint64_t first = only != NULL ? strtoull(only, NULL, 10) : 1;
    if (text != NULL || only != NULL)
        count = only != NULL ? 1 : strtoull(text, NULL, 10);
    for (uint64_t seed = first; seed < first + count; seed++)
        one_seed(seed, alloc_fail_rates[seed % rate_count]);
}

static void every_call_ends_once_and_right(void **state)
{
    static const double none[] = {0};
    some_seeds(60, none, 1);
}

static void every_call_ends_once_also_without_memory(void **state)
{
    static const double rates[] = {0.001, 0.01, 0.1};
    some_seeds(20, rates, CAKE_COUNT_OF(rates));
}

/* ---- the heap ---- */

/* What fails with memory: the call, or nothing; and the next one goes through. */
static void survive(int host, uint64_t nth)
{
    fixture_t fixture;
    uint64_t took_ms;
    start_with(&fixture, 7, NULL);
    cake__host_fail_alloc(fixture.hosts[host], nth, false);
    for (int i = 0; i < 3; i++) {
        int err = try_call(&fixture, i == 1 ? "/test/slow-echo" : "/test/make", 100000, 20000, &took_ms);
        assert_true(err == 0 || err == CAKE_ENOMEM || err == CAKE_ECONNECTION || err == CAKE_EBUSY);
    }
    cake__host_fail_alloc(fixture.hosts[host], 0, false);
    assert_int_equal(try_call(&fixture, "/test/make", 10, 20000, &took_ms), 0);
    fixture_stop(&fixture);
}

static void each_allocation_may_fail(void **state)
{
    for (uint64_t nth = 1; nth <= 140; nth++) {
        survive(0, nth);
        survive(1, nth);
    }
}

/* So many that tables grow and buffers are taken anew. */
static void many_calls_survive_each_allocation(void **state)
{
    enum { COUNT = 40 };
    static outcome_t outcomes[COUNT];
    for (uint64_t i = 0; i < 300; i++) {
        int host = i % 2, left = COUNT;
        uint32_t len = 100;
        cake_slice_t part = cake__slice(&len, 4);
        uint64_t took_ms;
        fixture_t fixture;
        memset(outcomes, 0, sizeof outcomes);
        start_with(&fixture, 7, NULL);
        assert_int_equal(try_call(&fixture, "/test/make", 10, 20000, &took_ms), 0);
        cake__host_fail_alloc(fixture.hosts[host], 1 + i / 2, false);
        for (int at = 0; at < COUNT; at++) {
            int err = cake_channel_call_async(fixture.channel, "/test/make", &part, 1, NULL, note, &outcomes[at], NULL);
            assert_true(err == 0 || err == CAKE_ENOMEM);
            left -= err != 0;
        }
        cake__world_run_for(fixture.world, 20000 * CAKE_NS_PER_MS);
        for (int at = 0; at < COUNT; at++) {
            int err = outcomes[at].err;
            left -= outcomes[at].done;
            assert_true(outcomes[at].done <= 1);
            assert_true(err != 0 || outcomes[at].done == 0 || (outcomes[at].is_right && outcomes[at].len == len));
            assert_true(err == 0 || err == CAKE_ENOMEM || err == CAKE_ECONNECTION || err == CAKE_EBUSY);
        }
        assert_int_equal(left, 0);
        cake__host_fail_alloc(fixture.hosts[host], 0, false);
        assert_int_equal(try_call(&fixture, "/test/make", 10, 20000, &took_ms), 0);
        fixture_stop(&fixture);
    }
}

static void opening_without_memory_leaves_nothing(void **state)
{
    for (uint64_t nth = 1; nth <= 30; nth++) {
        fixture_t fixture;
        cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
        cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
        char address[CAKE_ADDR_TEXT_MAX];
        fixture_envs(&fixture, true, 1);
        fixture_address(&fixture, address);
        server.env = fixture.server_env;
        server.listen_addr = address;
        server.cluster_id = channel.cluster_id = "cake";
        channel.env = fixture.client_env;
        cake__host_fail_alloc(fixture.hosts[0], nth, false);
        cake__host_fail_alloc(fixture.hosts[1], nth, false);
        int err = cake_rpc_listen(&server, &fixture.server);
        assert_true(err == 0 || (err == CAKE_ENOMEM && fixture.server == NULL));
        cake_rpc_service_t service = fixture_service(&fixture, "test");
        if (err == 0)
            err = cake_rpc_add_service(fixture.server, &service);
        assert_true(err == 0 || err == CAKE_ENOMEM);
        err = cake_channel_open("10.0.0.1:9", &channel, &fixture.channel);
        assert_true(err == 0 || (err == CAKE_ENOMEM && fixture.channel == NULL));
        fixture_stop(&fixture);
    }
}

int main(void)
{
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (uint8_t)i;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_partition_on_connect_ends_the_call),
        cmocka_unit_test(a_short_timeout_wins_over_the_connect_timeout),
        cmocka_unit_test(a_partition_after_the_first_call_ends_the_next),
        cmocka_unit_test(calls_go_on_when_a_partition_heals),
        cmocka_unit_test(a_cut_in_mid_response_ends_the_call),
        cmocka_unit_test(every_call_ends_once_and_right),
        cmocka_unit_test(every_call_ends_once_also_without_memory),
        cmocka_unit_test(each_allocation_may_fail),
        cmocka_unit_test(many_calls_survive_each_allocation),
        cmocka_unit_test(opening_without_memory_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
