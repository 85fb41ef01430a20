/* Promises of a node, on simulated hosts. */
#include "node/net_test.h"

static int start(net_t *net, int host, uint16_t id, cake_node_config_t *config)
{
    static const char *const seeds[] = {"10.0.0.1:7000", "host-2:7000"};
    int err = start_with_seeds(net, host, id, seeds, 2, *config);
    config->listen_addr = NULL;
    return err;
}

static void start_plain(net_t *net, int host)
{
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    assert_int_equal(start(net, host, (uint16_t)host, &config), 0);
}

static void members_find_each_other_by_seeds(void **state)
{
    (void)state;
    net_t net;
    cake_member_t *members;
    size_t count;
    open_net(&net, 1, 5);
    for (int i = 1; i <= 5; i++)
        start_plain(&net, i);
    for (int i = 1; i <= 5; i++)
        assert_int_equal(cake_node_wait_for(net.nodes[i], ids, 5, 5000), 0);
    assert_int_equal(cake_node_members(net.nodes[3], &members, &count), 0);
    assert_int_equal(count, 5);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(members[i].node_id, i + 1);
        assert_int_equal(members[i].status, CAKE_ALIVE);
        assert_int_equal(members[i].is_self, i == 2);
        assert_string_equal(members[i].data_center, "default");
    }
    assert_string_equal(members[4].address, "10.0.0.5:7000");
    cake_members_free(members);
    close_net(&net);
}

static void waiting_ends_with_a_time_out(void **state)
{
    (void)state;
    net_t net;
    open_net(&net, 2, 2);
    start_plain(&net, 1);
    uint64_t begin_ns = cake__world_now_ns(net.world);
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 2, 1500), CAKE_ETIMEDOUT);
    assert_true(cake__world_now_ns(net.world) - begin_ns >= 1500 * CAKE_NS_PER_MS);
    close_net(&net);
}

static void bad_configurations_are_refused(void **state)
{
    (void)state;
    net_t net;
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    cake__heap_stats_t heap;
    open_net(&net, 3, 1);
    assert_int_equal(start(&net, 1, 0, &config), CAKE_EINVAL);
    config.size = 0;
    assert_int_equal(start(&net, 1, 1, &config), CAKE_EINVAL);
    config.size = offsetof(cake_node_config_t, connect_timeout_ms); /* of an older program */
    config.listen_addr = "0.0.0.0:7000";                            /* inventory.md, defect 17 */
    assert_int_equal(start(&net, 1, 1, &config), CAKE_EINVAL);
    config.listen_addr = "10.0.0.1";
    assert_int_equal(start(&net, 1, 1, &config), CAKE_EPARSE);
    config.listen_addr = "10.0.0.1:70000";
    assert_int_equal(start(&net, 1, 1, &config), CAKE_EPARSE);
    config.public_addr = "0.0.0.0:7000";
    assert_int_equal(start(&net, 1, 1, &config), CAKE_EINVAL);
    config.public_addr = NULL;
    config.cluster_id = "";
    assert_int_equal(start(&net, 1, 1, &config), CAKE_EINVAL);
    config.cluster_id = NULL;
    config.data_center = "a\tb";
    assert_int_equal(start(&net, 1, 1, &config), CAKE_EINVAL);
    cake__host_heap_stats(net.hosts[1], &heap);
    assert_int_equal(heap.live_blocks, 0);
    config.data_center = NULL;
    assert_int_equal(start(&net, 1, 1, &config), 0);
    cake_node_t *first = net.nodes[1];
    assert_int_equal(start(&net, 1, 2, &config), CAKE_EADDRINUSE);
    net.nodes[1] = first;
    close_net(&net);
}

typedef struct {
    char log[512];
} seen_t;

static void on_membership(void *arg, cake_membership_kind_t kind, const cake_member_t *member)
{
    seen_t *seen = arg;
    size_t len = strlen(seen->log);
    if (!member->is_self && kind != CAKE_MEMBER_UPDATED)
        snprintf(seen->log + len, sizeof seen->log - len, "%c%u@%s ", kind == CAKE_MEMBER_JOINED ? '+' : '-',
                 (unsigned)member->node_id, member->address);
}

static bool has_left(void *arg)
{
    return strchr(((seen_t *)arg)->log, '-') != NULL;
}

/* inventory.md, defect 11 */
static void watchers_see_every_change_and_the_whole_record_of_the_departed(void **state)
{
    (void)state;
    net_t net;
    seen_t early = {0}, late = {0};
    cake_watch_t *early_watch, *late_watch;
    open_net(&net, 4, 3);
    start_plain(&net, 1);
    assert_int_equal(cake_node_watch(net.nodes[1], on_membership, &early, &early_watch), 0);
    start_plain(&net, 2);
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 2, 5000), 0);
    assert_int_equal(cake_node_watch(net.nodes[1], on_membership, &late, &late_watch), 0);
    assert_int_equal(cake_node_wait_for(net.nodes[2], ids, 2, 5000), 0);
    assert_int_equal(cake_node_stop(net.nodes[2]), 0); /* says goodbye */
    net.nodes[2] = NULL;
    assert_true(
        cake__world_run_until(net.world, has_left, &late, cake__world_now_ns(net.world) + 3000 * CAKE_NS_PER_MS));
    assert_string_equal(early.log, "+2@10.0.0.2:7000 -2@10.0.0.2:7000 ");
    assert_string_equal(late.log, early.log);
    cake_watch_stop(early_watch);
    start_plain(&net, 2);
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 2, 5000), 0);
    assert_string_equal(early.log, "+2@10.0.0.2:7000 -2@10.0.0.2:7000 ");
    assert_string_equal(late.log, "+2@10.0.0.2:7000 -2@10.0.0.2:7000 +2@10.0.0.2:7000 ");
    close_net(&net);
}

static void a_killed_member_is_noticed_and_a_restarted_one_is_back(void **state)
{
    (void)state;
    net_t net;
    seen_t seen = {0};
    cake_watch_t *watch;
    open_net(&net, 5, 5);
    for (int i = 1; i <= 5; i++)
        start_plain(&net, i);
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 5, 5000), 0);
    cake__world_run_for(net.world, 10000 * CAKE_NS_PER_MS);
    assert_int_equal(cake_node_watch(net.nodes[1], on_membership, &seen, &watch), 0);
    seen.log[0] = '\0';
    cake__host_crash(net.hosts[5], CAKE__CRASH_SILENT);
    net.nodes[5] = NULL;
    assert_true(
        cake__world_run_until(net.world, has_left, &seen, cake__world_now_ns(net.world) + 15000 * CAKE_NS_PER_MS));
    assert_string_equal(seen.log, "-5@10.0.0.5:7000 ");
    start_plain(&net, 5);
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 5, 5000), 0);
    close_net(&net);
}

static void data_centers_are_those_of_live_members(void **state)
{
    (void)state;
    static const char *const data_centers[] = {NULL, "west", "east", "east"};
    net_t net;
    seen_t seen = {0};
    cake_watch_t *watch;
    cake_node_stats_t stats;
    open_net(&net, 13, 3);
    for (uint16_t i = 1; i <= 3; i++) {
        cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
        config.data_center = data_centers[i];
        assert_int_equal(start(&net, i, i, &config), 0);
    }
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 3, 5000), 0);
    assert_int_equal(cake_node_watch(net.nodes[1], on_membership, &seen, &watch), 0);
    cake__host_crash(net.hosts[2], CAKE__CRASH_SILENT);
    net.nodes[2] = NULL;
    assert_true(
        cake__world_run_until(net.world, has_left, &seen, cake__world_now_ns(net.world) + 15000 * CAKE_NS_PER_MS));
    assert_int_equal(cake_node_stats(net.nodes[1], &stats), 0);
    assert_int_equal(stats.data_centers, 2);
    close_net(&net);
}

static void nodes_of_another_cluster_are_not_heard(void **state)
{
    (void)state;
    net_t net;
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    open_net(&net, 6, 2);
    start_plain(&net, 1);
    config.cluster_id = "other";
    assert_int_equal(start(&net, 2, 2, &config), 0);
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 2, 5000), CAKE_ETIMEDOUT);
    close_net(&net);
}

static bool knows_duplicate(void *arg)
{
    net_t *net = arg;
    return net->nodes[3]->is_duplicate;
}

static void a_second_node_of_one_id_is_refused(void **state)
{
    (void)state;
    net_t net;
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    open_net(&net, 7, 3);
    start_plain(&net, 1);
    start_plain(&net, 2);
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 2, 5000), 0);
    assert_int_equal(start(&net, 3, 2, &config), 0);
    assert_true(cake__world_run_until(net.world, knows_duplicate, &net,
                                      cake__world_now_ns(net.world) + 20000 * CAKE_NS_PER_MS));
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 2, 1000), 0);
    assert_false(net.nodes[2]->is_duplicate);
    close_net(&net);
}

static void stamps_only_grow_and_carry_between_nodes(void **state)
{
    (void)state;
    net_t net;
    open_net(&net, 8, 1);
    start_plain(&net, 1);
    cake_node_t *node = net.nodes[1];
    cake_hlc_t last = 0;
    for (int i = 0; i < 200000; i++) { /* inventory.md, defect 9: more stamps than a counter holds, at one time */
        cake_hlc_t now = cake_node_now(node);
        assert_true(now > last);
        last = now;
    }
    cake_hlc_t ahead = cake_hlc_from_parts(cake_hlc_unix_ms(last) + 30000, 7);
    assert_int_equal(cake_node_observe(node, ahead), 0);
    assert_true(cake_node_now(node) > ahead);
    assert_int_equal(cake_node_observe(node, cake_hlc_from_parts(cake_hlc_unix_ms(last) + 3600000, 0)), CAKE_EDRIFT);
    cake__host_jump_clock(net.hosts[1], -3600 * 1000);
    assert_true(cake_node_now(node) > ahead);
    close_net(&net);
}

static void published_keys_reach_the_others(void **state)
{
    (void)state;
    net_t net;
    char value[16];
    size_t len = sizeof value;
    open_net(&net, 9, 2);
    start_plain(&net, 1);
    start_plain(&net, 2);
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 2, 5000), 0);
    assert_int_equal(cake_node_publish(net.nodes[2], "color", "red", 3), 0);
    assert_int_equal(cake_node_publish(net.nodes[2], "", "red", 3), CAKE_EINVAL);
    cake__world_run_for(net.world, 5000 * CAKE_NS_PER_MS);
    assert_int_equal(cake_node_published(net.nodes[1], 2, "color", value, &len), 0);
    assert_memory_equal(value, "red", 3);
    assert_int_equal(cake_node_publish(net.nodes[2], "color", NULL, 0), 0);
    cake__world_run_for(net.world, 5000 * CAKE_NS_PER_MS);
    assert_int_equal(cake_node_published(net.nodes[1], 2, "color", value, &len), CAKE_ENOTFOUND);
    close_net(&net);
}

static void answer(cake_rpc_call_t *call, void *arg)
{
    (void)arg;
    cake_rpc_reply(call, "pong", 4);
}

typedef struct {
    int inits, stops;
} extension_log_t;

static int init_extension(cake_node_t *node, void *arg)
{
    static const cake_rpc_method_t methods[] = {{"ping", answer, 0}};
    const cake_rpc_service_t service = {"test", methods, 1, NULL, NULL};
    ((extension_log_t *)arg)->inits++;
    return cake_node_add_service(node, &service);
}

static void stop_extension(cake_node_t *node, void *arg, cake_event_fn stopped, void *stopped_arg)
{
    ((extension_log_t *)arg)->stops++;
    (void)cake_node_remove_service(node, "test");
    stopped(stopped_arg);
}

/* Also inventory.md, defect 10: removing one service leaves the others. */
static void extensions_come_and_go_while_the_node_runs(void **state)
{
    (void)state;
    static const cake_extension_t extension = {"test", init_extension, stop_extension};
    static const cake_rpc_method_t methods[] = {{"ping", answer, 0}};
    const cake_rpc_service_t other = {"other", methods, 1, NULL, NULL};
    net_t net;
    extension_log_t log = {0};
    cake_channel_t *channel;
    cake_reply_t *reply;
    open_net(&net, 10, 2);
    start_plain(&net, 1);
    start_plain(&net, 2);
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 2, 5000), 0);
    assert_int_equal(cake_node_add_service(net.nodes[2], &other), 0);
    assert_int_equal(cake_node_add_extension(net.nodes[2], &extension, &log), 0);
    assert_int_equal(cake_node_add_extension(net.nodes[2], &extension, &log), CAKE_EDUPLICATE);
    assert_int_equal(cake_node_channel(net.nodes[1], 2, &channel), 0);
    assert_int_equal(cake_channel_call(channel, "/test/ping", NULL, 0, NULL, &reply), 0);
    assert_memory_equal(cake_reply_body(reply).data, "pong", 4);
    cake_reply_free(reply);
    assert_int_equal(cake_node_remove_extension(net.nodes[2], "test"), 0);
    assert_int_equal(cake_channel_call(channel, "/test/ping", NULL, 0, NULL, NULL), CAKE_EUNAVAILABLE);
    assert_int_equal(cake_channel_call(channel, "/other/ping", NULL, 0, NULL, NULL), 0);
    assert_int_equal(cake_node_add_extension(net.nodes[2], &extension, &log), 0);
    assert_int_equal(cake_node_channel(net.nodes[1], 9, &channel), CAKE_ENOTFOUND);
    close_net(&net);
    assert_int_equal(log.inits, 2);
    assert_int_equal(log.stops, 2);
}

static void a_channel_outlives_the_death_of_its_member(void **state)
{
    (void)state;
    static const cake_rpc_method_t methods[] = {{"ping", answer, 0}};
    const cake_rpc_service_t service = {"test", methods, 1, NULL, NULL};
    net_t net;
    seen_t seen = {0};
    cake_watch_t *watch;
    cake_channel_t *channel;
    open_net(&net, 11, 2);
    for (int i = 1; i <= 2; i++)
        start_plain(&net, i);
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 2, 5000), 0);
    assert_int_equal(cake_node_channel(net.nodes[1], 2, &channel), 0);
    assert_int_equal(cake_node_watch(net.nodes[1], on_membership, &seen, &watch), 0);
    cake__host_crash(net.hosts[2], CAKE__CRASH_SILENT);
    net.nodes[2] = NULL;
    uint64_t end_ns = cake__world_now_ns(net.world) + 15000 * CAKE_NS_PER_MS;
    assert_true(cake__world_run_until(net.world, has_left, &seen, end_ns));
    assert_int_equal(cake_channel_call(channel, "/test/ping", NULL, 0, NULL, NULL), CAKE_ECONNECTION);
    start_plain(&net, 2);
    assert_int_equal(cake_node_add_service(net.nodes[2], &service), 0);
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 2, 5000), 0);
    assert_int_equal(cake_channel_call(channel, "/test/ping", NULL, 0, NULL, NULL), 0);
    close_net(&net);
}

static void a_member_that_does_not_answer_is_given_up_after_the_connect_timeout(void **state)
{
    (void)state;
    net_t net;
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    const cake__faults_t faults = {.connect_timeout_rate = 1};
    cake_channel_t *channel;
    open_net(&net, 12, 2);
    config.connect_timeout_ms = 300;
    assert_int_equal(start(&net, 1, 1, &config), 0);
    start_plain(&net, 2);
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 2, 5000), 0);
    assert_int_equal(cake_node_channel(net.nodes[1], 2, &channel), 0);
    cake__world_set_faults(net.world, &faults);
    uint64_t began_ns = cake__world_now_ns(net.world);
    assert_int_equal(cake_channel_call(channel, "/test/ping", NULL, 0, NULL, NULL), CAKE_ECONNECTION);
    assert_in_range(cake__world_now_ns(net.world) - began_ns, 300 * CAKE_NS_PER_MS, 400 * CAKE_NS_PER_MS);
    close_net(&net);
}

/* Each allocation of a start fails once: an error, and nothing is left. */
static void a_start_that_runs_out_of_memory_leaves_nothing(void **state)
{
    (void)state;
    net_t net;
    open_net(&net, 11, 1);
    for (uint64_t nth = 1;; nth++) {
        cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
        cake__heap_stats_t heap;
        if (cake__host_env(net.hosts[1]) == NULL)
            cake__host_start(net.hosts[1]);
        cake__host_fail_alloc(net.hosts[1], nth, false);
        int err = start(&net, 1, 1, &config);
        cake__host_fail_alloc(net.hosts[1], 0, false);
        if (err == 0 && nth > 10)
            break;
        if (err == 0) {
            assert_int_equal(cake_node_stop(net.nodes[1]), 0);
            net.nodes[1] = NULL;
        }
        assert_in_range(nth, 1, 500);
        cake__host_heap_stats(net.hosts[1], &heap);
        assert_int_equal(heap.live_blocks, 0);
    }
    close_net(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_find_each_other_by_seeds),
        cmocka_unit_test(waiting_ends_with_a_time_out),
        cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(watchers_see_every_change_and_the_whole_record_of_the_departed),
        cmocka_unit_test(a_killed_member_is_noticed_and_a_restarted_one_is_back),
        cmocka_unit_test(data_centers_are_those_of_live_members),
        cmocka_unit_test(nodes_of_another_cluster_are_not_heard),
        cmocka_unit_test(a_second_node_of_one_id_is_refused),
        cmocka_unit_test(stamps_only_grow_and_carry_between_nodes),
        cmocka_unit_test(published_keys_reach_the_others),
        cmocka_unit_test(extensions_come_and_go_while_the_node_runs),
        cmocka_unit_test(a_channel_outlives_the_death_of_its_member),
        cmocka_unit_test(a_member_that_does_not_answer_is_given_up_after_the_connect_timeout),
        cmocka_unit_test(a_start_that_runs_out_of_memory_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
