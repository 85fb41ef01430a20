/* Gossip between nodes on simulated hosts: over RPC where datagrams do not get through, large values, and datagrams
 * that were caught and are sent again. */
#include "node/net_test.h"

#define HOSTS 4

static void start(net_t *net, int host, cake_node_config_t config)
{
    static const char *const seeds[] = {"10.0.0.1:7000", "10.0.0.2:7000"};
    assert_int_equal(start_with_seeds(net, host, (uint16_t)host, seeds, 2, config), 0);
}

static void run_ms(net_t *net, uint64_t ms)
{
    cake__world_run_for(net->world, ms * CAKE_NS_PER_MS);
}

static void lose_all_datagrams(net_t *net)
{
    cake__world_set_faults(net->world, &(cake__faults_t){.loss_rate = 1});
}

static cake_status_t status_of(net_t *net, int viewer, uint16_t id)
{
    cake_member_t *members;
    size_t count;
    cake_status_t status = CAKE_LEFT;
    assert_int_equal(cake_node_members(net->nodes[viewer], &members, &count), 0);
    for (size_t i = 0; i < count; i++)
        status = members[i].node_id == id ? members[i].status : status;
    cake_members_free(members);
    return status;
}

static void gossip_goes_over_rpc_where_udp_is_blocked(void **state)
{
    (void)state;
    net_t net;
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    static uint8_t large[16 * 1024], copy[sizeof large];
    size_t len = sizeof copy;
    config.gossip_over_rpc = true;
    open_net(&net, 1, HOSTS);
    lose_all_datagrams(&net);
    for (int i = 1; i <= HOSTS; i++)
        start(&net, i, config);
    for (int i = 1; i <= HOSTS; i++)
        assert_int_equal(cake_node_wait_for(net.nodes[i], ids, HOSTS, 5000), 0);
    memset(large, 7, sizeof large);
    assert_int_equal(cake_node_publish(net.nodes[2], "large", large, sizeof large), 0);
    run_ms(&net, 20000);
    assert_int_equal(cake_node_published(net.nodes[3], 2, "large", copy, &len), 0);
    assert_int_equal(len, sizeof large);
    assert_memory_equal(copy, large, sizeof large);
    cake__host_crash(net.hosts[4], CAKE__CRASH_SILENT);
    net.nodes[4] = NULL;
    run_ms(&net, 8000);
    for (int i = 1; i < HOSTS; i++) {
        assert_int_equal(status_of(&net, i, 4), CAKE_DEAD);
        for (uint16_t id = 1; id < HOSTS; id++)
            assert_int_equal(status_of(&net, i, id), CAKE_ALIVE);
    }
    start(&net, 4, config);
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, HOSTS, 5000), 0);
    assert_int_equal(cake_node_stop(net.nodes[3]), 0);
    net.nodes[3] = NULL;
    run_ms(&net, 1000);
    assert_int_equal(status_of(&net, 1, 3), CAKE_LEFT);
    close_net(&net);
}

static void large_values_reach_everyone(void **state)
{
    (void)state;
    net_t net;
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    static uint8_t large[16 * 1024 + 1], copy[sizeof large];
    open_net(&net, 2, HOSTS);
    for (int i = 1; i <= HOSTS; i++)
        start(&net, i, config);
    for (int i = 1; i <= HOSTS; i++)
        assert_int_equal(cake_node_wait_for(net.nodes[i], ids, HOSTS, 5000), 0);
    assert_int_equal(cake_node_publish(net.nodes[1], "large", large, sizeof large), CAKE_ETOOBIG);
    static const size_t sizes[] = {1, 1000, 1001, 1200, 5000, 16 * 1024};
    for (size_t s = 0; s < CAKE_COUNT_OF(sizes); s++) {
        for (int i = 1; i <= HOSTS; i++) {
            memset(large, i + (int)s, sizes[s]);
            assert_int_equal(cake_node_publish(net.nodes[i], "large", large, sizes[s]), 0);
        }
        run_ms(&net, 10000);
        for (int i = 1; i <= HOSTS; i++)
            for (uint16_t id = 1; id <= HOSTS; id++) {
                size_t len = sizeof copy;
                assert_int_equal(cake_node_published(net.nodes[i], id, "large", copy, &len), 0);
                assert_int_equal(len, sizes[s]);
                assert_int_equal(copy[0], id + s);
                assert_int_equal(copy[len - 1], id + s);
            }
    }
    close_net(&net);
}

/* Datagrams stop to arrive, calls do not: everyone is suspected, and asked by a call before it is declared dead. */
static void nobody_dies_who_answers_over_rpc(void **state)
{
    (void)state;
    net_t net;
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    open_net(&net, 3, HOSTS);
    for (int i = 1; i <= HOSTS; i++)
        start(&net, i, config);
    for (int i = 1; i <= HOSTS; i++)
        assert_int_equal(cake_node_wait_for(net.nodes[i], ids, HOSTS, 5000), 0);
    lose_all_datagrams(&net);
    cake_node_stats_t stats;
    bool was_suspect = false;
    for (int s = 0; s < 60; s++) {
        run_ms(&net, 1000);
        for (int i = 1; i <= HOSTS; i++) {
            assert_int_equal(cake_node_stats(net.nodes[i], &stats), 0);
            assert_int_equal(stats.dead, 0);
            was_suspect |= stats.suspect > 0;
        }
    }
    assert_true(was_suspect);
    cake__world_set_faults(net.world, NULL);
    run_ms(&net, 5000);
    for (int i = 1; i <= HOSTS; i++)
        assert_int_equal(cake_node_wait_for(net.nodes[i], ids, HOSTS, 1), 0);
    close_net(&net);
}

/* ---- what was caught --------------------------------------------------------------------------------------------- */

#define CAUGHT_MAX 4000u

typedef struct {
    cake_addr_t to;
    size_t len;
    uint8_t bytes[1200];
} caught_t;

static caught_t *caught;
static size_t caught_count;
static const cake_env_ops_t *real_ops;
static cake_env_ops_t tapped_ops;

static void catch_datagram(cake_datagram_t *socket, const cake_addr_t *to, const void *data, size_t len)
{
    if (caught_count < CAUGHT_MAX && len <= sizeof caught[0].bytes) {
        caught_t *frame = &caught[caught_count++];
        frame->to = *to;
        frame->len = len;
        memcpy(frame->bytes, data, len);
    }
    real_ops->datagram_send(socket, to, data, len);
}

static void tap(net_t *net, int host)
{
    cake_env_t *env = cake__host_env(net->hosts[host]);
    if (env == NULL)
        env = cake__host_start(net->hosts[host]);
    real_ops = env->ops;
    tapped_ops = *real_ops;
    tapped_ops.datagram_send = catch_datagram;
    env->ops = &tapped_ops;
}

typedef struct {
    cake_node_t *node;
    bool is_altered;
} hearing_t;

static int hear_on_loop(void *arg)
{
    const hearing_t *hearing = arg;
    cake_addr_t from = {.family = 4, .port = 7000, .ip = {10, 0, 0, 2}};
    for (size_t i = 0; i < caught_count; i++) {
        uint8_t bytes[sizeof caught[0].bytes];
        memcpy(bytes, caught[i].bytes, caught[i].len);
        if (hearing->is_altered)
            bytes[i % caught[i].len] ^= 0x10;
        cake__membership_received(hearing->node, &from, bytes, caught[i].len);
    }
    return 0;
}

static void hear_again(net_t *net, int host, bool is_altered)
{
    hearing_t hearing = {net->nodes[host], is_altered};
    assert_int_equal(cake__run_on_loop(cake__host_env(net->hosts[host]), hear_on_loop, &hearing), 0);
}

static int changes;

static void count_change(void *arg, cake_membership_kind_t kind, const cake_member_t *member)
{
    (void)arg;
    (void)kind;
    (void)member;
    changes++;
}

/* As they were, altered; to the nodes that had them, to one that was restarted, to one of another cluster or key. */
static void replay_everywhere(bool is_sealed)
{
    static const uint8_t keys[2][CAKE_CLUSTER_KEY_LEN] = {{1}, {2}};
    net_t net;
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT, other = CAKE_NODE_CONFIG_INIT;
    cake_watch_t *watches[HOSTS + 1];
    cake_node_stats_t before, after;
    config.cluster_keys = is_sealed ? keys : NULL;
    other.cluster_keys = is_sealed ? keys + 1 : NULL;
    config.cluster_key_count = other.cluster_key_count = is_sealed;
    other.cluster_id = is_sealed ? NULL : "another";
    caught = calloc(CAUGHT_MAX, sizeof caught[0]);
    assert_non_null(caught);
    caught_count = 0;
    open_net(&net, 4, HOSTS);
    tap(&net, 2);
    for (int i = 1; i <= 3; i++)
        start(&net, i, config);
    for (int i = 1; i <= 3; i++)
        assert_int_equal(cake_node_wait_for(net.nodes[i], ids, 3, 5000), 0);
    assert_int_equal(cake_node_publish(net.nodes[2], "color", "red", 3), 0);
    run_ms(&net, 5000);
    assert_int_equal(cake_node_stop(net.nodes[3]), 0); /* node 2 has much to tell of it */
    run_ms(&net, 3000);
    start(&net, 3, config);
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 3, 5000), 0);
    run_ms(&net, 3000);
    real_ops = NULL;
    cake__host_env(net.hosts[2])->ops = cake__host_env(net.hosts[1])->ops; /* all hosts have the same */
    start(&net, 4, other);
    assert_true(caught_count > 100);
    for (int i = 1; i <= 4; i++)
        assert_int_equal(cake_node_watch(net.nodes[i], count_change, NULL, &watches[i]), 0);
    changes = 0;
    for (int i = 1; i <= 4; i++) {
        assert_int_equal(cake_node_stats(net.nodes[i], &before), 0);
        uint64_t digest = cake__gossip_digest(net.nodes[i]->gossip);
        hear_again(&net, i, false);
        hear_again(&net, i, true);
        assert_int_equal(cake__gossip_digest(net.nodes[i]->gossip), digest);
        assert_int_equal(cake_node_stats(net.nodes[i], &after), 0);
        size_t least = i == 4 ? 2 * caught_count : (i == 2 ? caught_count : caught_count + 20);
        assert_true(after.gossip_bad_frames - before.gossip_bad_frames >= least); /* node 2: its own are no news */
    }
    run_ms(&net, 15000);
    assert_int_equal(changes, 0);
    for (int i = 1; i <= 4; i++)
        cake_watch_stop(watches[i]);
    assert_int_equal(cake_node_stop(net.nodes[1]), 0);
    run_ms(&net, 1000);
    start(&net, 1, config);
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 3, 5000), 0);
    run_ms(&net, 5000);
    assert_int_equal(cake_node_watch(net.nodes[1], count_change, NULL, &watches[1]), 0);
    changes = 0;
    uint64_t digest = cake__gossip_digest(net.nodes[1]->gossip);
    hear_again(&net, 1, false);
    assert_int_equal(cake__gossip_digest(net.nodes[1]->gossip), digest);
    run_ms(&net, 15000);
    assert_int_equal(changes, 0);
    cake_watch_stop(watches[1]);
    free(caught);
    close_net(&net);
}

static void caught_datagrams_change_nothing(void **state)
{
    (void)state;
    replay_everywhere(false);
    replay_everywhere(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gossip_goes_over_rpc_where_udp_is_blocked),
        cmocka_unit_test(large_values_reach_everyone),
        cmocka_unit_test(nobody_dies_who_answers_over_rpc),
        cmocka_unit_test(caught_datagrams_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
