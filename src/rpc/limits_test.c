/* What is beyond a limit ends with the error that rpc.h names, and what is within goes on.
 * ctest: no-tsan: one thread */
#include "rpc/fixture.h"

static void start(fixture_t *fixture, cake_rpc_server_config_t server, cake_channel_config_t channel)
{
    fixture_envs(fixture, true, 1);
    fixture_listen(fixture, server, NULL);
    fixture_open(fixture, channel);
}

static int echo(fixture_t *fixture, const char *tag)
{
    const cake_header_t header = {"x-tag", tag};
    cake_call_options_t options = {.size = sizeof options, .headers = &header, .header_count = 1};
    return cake_channel_call(fixture->channel, "/test/echo", "x", 1, &options, NULL);
}

static void connections_and_their_headers(void **state)
{
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    cake_rpc_server_stats_t stats;
    fixture_t fixture;
    char tag[3000] = "";
    memset(tag, 'a', sizeof tag - 1);
    server.limits.max_connections = 1;
    server.limits.max_header_bytes = 1000;
    server.limits.idle_ms = 2000;
    start(&fixture, server, channel);
    assert_int_equal(echo(&fixture, tag), CAKE_ETOOBIG);
    assert_int_equal(echo(&fixture, "a"), 0);
    cake_channel_t *first = fixture.channel;
    fixture_open(&fixture, channel);
    assert_int_equal(echo(&fixture, "a"), CAKE_ECONNECTION);
    cake__world_run_for(fixture.world, 6000 * CAKE_NS_PER_MS);
    assert_int_equal(cake_rpc_server_stats(fixture.server, &stats), 0);
    assert_true(stats.connections == 0 && stats.connections_refused == 1); /* the first was idle for too long */
    assert_int_equal(echo(&fixture, "a"), 0);
    assert_int_equal(cake_channel_close(first), 0);
    fixture_stop(&fixture);
}

/* Of several calls at once the first is let through, the last is too much. */
static void calls_and_bytes_at_once(void **state)
{
    static const char body[80000];
    static const char *const paths[] = {"/test/park", "/test/slow-echo", "/test/echo"};
    for (int which = 0; which < 3; which++) {
        cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
        cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
        cake_slice_t part = cake__slice(body, which == 0 ? sizeof body : 1);
        fixture_t fixture;
        outcome_t outcomes[3] = {0};
        server.limits.max_input_bytes = 100000;
        server.max_blocking = server.worker_lanes = 1;
        channel.max_waiting = which == 2 ? 2 : 100;
        start(&fixture, server, channel);
        for (int i = 0; i < 3; i++)
            assert_int_equal(
                cake_channel_call_async(fixture.channel, paths[which], &part, 1, NULL, note, &outcomes[i], NULL), 0);
        fixture_wait(&fixture, is_done, &outcomes[2]);
        assert_int_equal(outcomes[2].err, CAKE_EBUSY);
        for (int i = 0; i < fixture.parked_count; i++)
            cake_rpc_reply(fixture.parked[i], NULL, 0);
        fixture_wait(&fixture, is_done, &outcomes[0]);
        assert_int_equal(outcomes[0].err, 0);
        assert_int_equal(echo(&fixture, "a"), 0);
        fixture_stop(&fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(connections_and_their_headers),
                                       cmocka_unit_test(calls_and_bytes_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
