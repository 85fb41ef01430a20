/* A node that has stopped answers no calls any more, also on connections that were open, and its port is free.
 * ctest: no-tsan: one thread */
#include "node/net_test.h"

static void answer(cake_rpc_call_t *call, void *arg)
{
    (void)arg;
    cake_rpc_reply(call, "pong", 4);
}

static void a_stopped_node_serves_no_calls(void **state)
{
    static const cake_rpc_method_t methods[] = {{"ping", answer, 0}};
    const cake_rpc_service_t service = {"test", methods, 1, NULL, NULL};
    const cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    cake_channel_config_t own = CAKE_CHANNEL_CONFIG_INIT;
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_t *channel;
    cake_rpc_server_t *next;
    net_t net;
    (void)state;
    open_net(&net, 18, 2);
    assert_int_equal(start_with_seeds(&net, 1, 1, NULL, 0, config), 0);
    assert_int_equal(cake_node_add_service(net.nodes[1], &service), 0);
    own.env = env_of(&net, 2);
    own.cluster_id = "datacake";
    assert_int_equal(cake_channel_open("10.0.0.1:7000", &own, &channel), 0);
    assert_int_equal(cake_channel_call(channel, "/test/ping", NULL, 0, NULL, NULL), 0);
    assert_int_equal(cake_node_stop(net.nodes[1]), 0);
    net.nodes[1] = NULL;
    assert_int_equal(cake_channel_call(channel, "/test/ping", NULL, 0, NULL, NULL), CAKE_ECONNECTION);
    server.env = env_of(&net, 1);
    server.listen_addr = "10.0.0.1:7000";
    assert_int_equal(cake_rpc_listen(&server, &next), 0);
    assert_int_equal(cake_channel_call(channel, "/test/ping", NULL, 0, NULL, NULL), CAKE_EUNAVAILABLE);
    assert_int_equal(cake_channel_close(channel), 0);
    assert_int_equal(cake_rpc_close(next), 0);
    close_net(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_stopped_node_serves_no_calls)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
