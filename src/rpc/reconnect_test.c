/* How often, and when, a channel tries again to connect.
 * ctest: no-tsan: one thread */
#include <stdio.h>

#include "rpc/fixture.h"

#define ATTEMPTS_MAX 2000
#define SLACK_NS     (10 * CAKE_NS_PER_MS) /* an attempt that is refused takes a round trip */

/* A call waits for the next attempt and ends with it: one follows the other, so that each is an attempt. */
typedef struct {
    fixture_t *fixture;
    cake_channel_t *channel;
    uint64_t failed_ns[ATTEMPTS_MAX];
    size_t count;
    bool is_over;
} attempts_t;

static void attempt(attempts_t *attempts);

static void attempted(cake_reply_t *reply, void *arg)
{
    attempts_t *attempts = arg;
    assert_int_equal(cake_reply_err(reply), attempts->is_over ? CAKE_ECLOSED : CAKE_ECONNECTION);
    cake_reply_free(reply);
    if (attempts->is_over)
        return;
    assert_true(attempts->count < ATTEMPTS_MAX);
    attempts->failed_ns[attempts->count++] = cake__world_now_ns(attempts->fixture->world);
    attempt(attempts);
}

static void attempt(attempts_t *attempts)
{
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    options.timeout_ms = CAKE_NO_TIMEOUT;
    assert_int_equal(
        cake_channel_call_async(attempts->channel, "/test/echo", NULL, 0, &options, attempted, attempts, NULL), 0);
}

/* How long after the nth failure the next came. */
static uint64_t gap_ns(const attempts_t *attempts, size_t nth)
{
    return attempts->failed_ns[nth + 1] - attempts->failed_ns[nth];
}

/* Each is what rpc.h says: doubled from the least to the most, and up to half of it less or more. */
static void check_gaps(const attempts_t *attempts, uint64_t least_ms, uint64_t most_ms)
{
    uint64_t wanted_ns = least_ms * CAKE_NS_PER_MS;
    for (size_t i = 0; i + 1 < attempts->count; i++) {
        assert_true(gap_ns(attempts, i) >= wanted_ns / 2);
        assert_true(gap_ns(attempts, i) <= wanted_ns + wanted_ns / 2 + SLACK_NS);
        wanted_ns = cake__min_u64(2 * wanted_ns, most_ms * CAKE_NS_PER_MS);
    }
}

/* A port that nobody listens on any more. */
static void begin(fixture_t *fixture, attempts_t *attempts, uint64_t seed, cake_channel_config_t channel)
{
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    fixture_envs(fixture, true, seed);
    fixture_listen(fixture, server, NULL);
    fixture_open(fixture, channel);
    assert_int_equal(cake_rpc_close(fixture->server), 0);
    fixture->server = NULL;
    *attempts = (attempts_t){.fixture = fixture, .channel = fixture->channel};
}

static void end(fixture_t *fixture, attempts_t *attempts)
{
    attempts->is_over = true;
    fixture_stop(fixture);
}

static void attempts_become_rarer_up_to_a_limit(void **state)
{
    static const struct {
        uint64_t min_ms, max_ms;
        size_t least, most; /* attempts in a minute */
    } cases[] = {{0, 0, 24, 64}, {200, 1000, 42, 124}, {1000, 1000, 40, 121}};
    for (size_t i = 0; i < CAKE_COUNT_OF(cases); i++) {
        cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
        fixture_t fixture;
        attempts_t attempts;
        channel.backoff_min_ms = cases[i].min_ms;
        channel.backoff_max_ms = cases[i].max_ms;
        begin(&fixture, &attempts, 1 + i, channel);
        attempt(&attempts);
        cake__world_run_for(fixture.world, 60000 * CAKE_NS_PER_MS);
        assert_true(attempts.count >= cases[i].least && attempts.count <= cases[i].most);
        check_gaps(&attempts, i == 0 ? 50 : channel.backoff_min_ms, i == 0 ? 2000 : channel.backoff_max_ms);
        end(&fixture, &attempts);
    }
}

/* Of many clients of a server that is gone each has its own times, from the first on. */
static void attempts_of_many_clients_are_spread(void **state)
{
    size_t counts[8][4] = {{0}}; /* from half of what is wanted to one and a half, in quarters of that */
    for (uint64_t seed = 1; seed <= 40; seed++) {
        cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
        fixture_t fixture;
        attempts_t attempts;
        begin(&fixture, &attempts, seed, channel);
        attempt(&attempts);
        cake__world_run_for(fixture.world, 20000 * CAKE_NS_PER_MS);
        assert_true(attempts.count > 8);
        for (size_t nth = 0; nth < 8; nth++) {
            uint64_t wanted_ns = cake__min_u64(50u << nth, 2000) * CAKE_NS_PER_MS;
            counts[nth][cake__min_u64(3, (gap_ns(&attempts, nth) - wanted_ns / 2) * 4 / wanted_ns)]++;
        }
        end(&fixture, &attempts);
    }
    for (size_t nth = 0; nth < 8; nth++) {
        for (size_t i = 0; i < 4; i++)
            assert_true(counts[nth][i] >= 3); /* ten are to be expected */
    }
}

static int echo(fixture_t *fixture)
{
    return cake_channel_call(fixture->channel, "/test/echo", "x", 1, NULL, NULL);
}

/* What failed before a connection that was good does not count after it. */
static void a_success_begins_anew(void **state)
{
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    char address[CAKE_ADDR_TEXT_MAX];
    fixture_t fixture;
    attempts_t attempts;
    begin(&fixture, &attempts, 1, channel);
    snprintf(address, sizeof address, "%s", cake_channel_address(fixture.channel));
    for (int round = 0; round < 3; round++) {
        attempts.count = 0;
        for (int i = 0; i < 10; i++) {
            assert_int_equal(echo(&fixture), CAKE_ECONNECTION);
            attempts.failed_ns[attempts.count++] = cake__world_now_ns(fixture.world);
        }
        check_gaps(&attempts, 50, 2000);
        fixture_listen(&fixture, server, address);
        assert_int_equal(echo(&fixture), 0);
        assert_true(cake__world_now_ns(fixture.world) - attempts.failed_ns[9] <= 3000 * CAKE_NS_PER_MS + SLACK_NS);
        assert_int_equal(cake_rpc_close(fixture.server), 0);
        fixture.server = NULL;
    }
    end(&fixture, &attempts);
}

/* That connecting succeeds says nothing: who is full takes the connection, and closes it. */
static void a_server_that_is_full_is_asked_as_rarely(void **state)
{
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    cake_rpc_server_stats_t stats;
    fixture_t fixture;
    server.limits.max_connections = 1;
    fixture_envs(&fixture, true, 1);
    fixture_listen(&fixture, server, NULL);
    fixture_open(&fixture, channel);
    assert_int_equal(echo(&fixture), 0);
    cake_channel_t *first = fixture.channel;
    fixture_open(&fixture, channel);
    attempts_t attempts = {.fixture = &fixture, .channel = fixture.channel};
    attempt(&attempts);
    cake__world_run_for(fixture.world, 60000 * CAKE_NS_PER_MS);
    check_gaps(&attempts, 50, 2000);
    assert_int_equal(cake_rpc_server_stats(fixture.server, &stats), 0);
    assert_true(stats.connections_refused >= attempts.count && stats.connections_refused <= attempts.count + 1);
    assert_true(attempts.count >= 24 && attempts.count <= 64);
    assert_int_equal(cake_channel_close(first), 0);
    end(&fixture, &attempts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attempts_become_rarer_up_to_a_limit), cmocka_unit_test(attempts_of_many_clients_are_spread),
        cmocka_unit_test(a_success_begins_anew), cmocka_unit_test(a_server_that_is_full_is_asked_as_rarely)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
