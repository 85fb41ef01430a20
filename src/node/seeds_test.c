/* How nodes find each other and stay found: names that move, addresses of every kind, statistics, and watchers that
 * miss nothing. On simulated hosts, where not said otherwise. */
#include "node/net_test.h"

#define SECONDS (1000 * CAKE_NS_PER_MS)

static int start(net_t *net, int host, uint16_t id, const char *seed, cake_node_config_t config)
{
    return start_with_seeds(net, host, id, &seed, seed != NULL, config);
}

static void start_plain(net_t *net, int host, const char *seed)
{
    const cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    assert_int_equal(start(net, host, (uint16_t)host, seed, config), 0);
}

static void crash(net_t *net, int host)
{
    cake__host_crash(net->hosts[host], CAKE__CRASH_SILENT);
    net->nodes[host] = NULL;
}

static cake_member_t member_of(cake_node_t *node, uint16_t id)
{
    cake_member_t *members, found = {0};
    size_t count;
    assert_int_equal(cake_node_members(node, &members, &count), 0);
    for (size_t i = 0; i < count; i++) {
        if (members[i].node_id == id)
            found = members[i];
    }
    cake_members_free(members);
    return found;
}

/* ---- seeds ------------------------------------------------------------------------------------------------------- */

/* A name service that can be changed: "seed:7000" is what it says now, all else what it is. */
static const char *seed_is;
static const cake_env_ops_t *real_ops;

static int resolve(cake_env_t *env, const char *host_port, cake_resolve_fn fn, void *arg, cake_resolve_t **out)
{
    return real_ops->resolve(env, strcmp(host_port, "seed:7000") == 0 ? seed_is : host_port, fn, arg, out);
}

static void use_names(net_t *net, int host, cake_env_ops_t *ops)
{
    cake_env_t *env = env_of(net, host);
    real_ops = env->ops;
    *ops = *env->ops;
    ops->resolve = resolve;
    env->ops = ops;
}

static void a_seed_that_moves_is_found(void **state)
{
    (void)state;
    net_t net;
    cake_env_ops_t ops;
    open_net(&net, 1, 3);
    start_plain(&net, 2, NULL);
    use_names(&net, 1, &ops);
    seed_is = "nobody:7000"; /* not there yet */
    start_plain(&net, 1, "seed:7000");
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 2, 15000), CAKE_ETIMEDOUT);
    seed_is = "host-3:7000"; /* there, and nobody listens */
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 2, 15000), CAKE_ETIMEDOUT);
    seed_is = "host-2:7000";
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 2, CAKE__SEED_RESOLVE_MS + 2000), 0);
    seed_is = "nobody:7000"; /* what it was is kept */
    cake__world_run_for(net.world, 3 * CAKE__SEED_RESOLVE_MS * CAKE_NS_PER_MS);
    assert_int_equal(net.nodes[1]->seeds[0].addr_count, 1);
    close_net(&net);
}

static void a_node_alone_with_its_own_seed_is_at_peace(void **state)
{
    (void)state;
    net_t net;
    cake_node_stats_t stats;
    open_net(&net, 2, 1);
    start_plain(&net, 1, "host-1:7000");
    cake__world_run_for(net.world, 30 * SECONDS);
    assert_int_equal(cake_node_stats(net.nodes[1], &stats), 0);
    assert_int_equal(stats.alive, 1);
    assert_int_equal(stats.rpc_calls_started, 0); /* it does not ask itself */
    assert_string_equal(net.nodes[1]->refusal.said, "");
    close_net(&net);
}

static void seeds_out_of_bounds_are_refused(void **state)
{
    (void)state;
    net_t net;
    open_net(&net, 3, 1);
    const cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    assert_int_equal(start(&net, 1, 1, "nowhere", config), CAKE_EPARSE);
    assert_int_equal(start(&net, 1, 1, ":7000", config), CAKE_EPARSE);
    assert_int_equal(start(&net, 1, 1, "host-1:", config), CAKE_EPARSE);
    cake_node_config_t many = CAKE_NODE_CONFIG_INIT;
    const char *seeds[CAKE__NODE_SEEDS_MAX + 1] = {NULL};
    many.env = env_of(&net, 1);
    many.node_id = 1;
    many.listen_addr = "10.0.0.1:7000";
    many.seeds = seeds;
    many.seed_count = CAKE_COUNT_OF(seeds);
    assert_int_equal(cake_node_start(&many, &net.nodes[1]), CAKE_ETOOBIG);
    close_net(&net);
}

/* ---- addresses --------------------------------------------------------------------------------------------------- */

static void behind_any_address_others_get_the_public_one(void **state)
{
    (void)state;
    net_t net;
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    open_net(&net, 4, 2);
    config.listen_addr = "0.0.0.0:7000";
    config.public_addr = "10.0.0.1:7000";
    assert_int_equal(start(&net, 1, 1, NULL, config), 0);
    start_plain(&net, 2, "10.0.0.1:7000");
    assert_int_equal(cake_node_wait_for(net.nodes[2], ids, 2, 5000), 0);
    assert_string_equal(member_of(net.nodes[2], 1).address, "10.0.0.1:7000");
    assert_string_equal(cake_node_address(net.nodes[1]), "10.0.0.1:7000");
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 2, 5000), 0);
    close_net(&net);
}

typedef struct {
    char log[2000];
} seen_t;

static void on_membership(void *arg, cake_membership_kind_t kind, const cake_member_t *member)
{
    seen_t *seen = arg;
    size_t len = strlen(seen->log);
    if (!member->is_self && kind != CAKE_MEMBER_UPDATED)
        snprintf(seen->log + len, sizeof seen->log - len, "%c%u@%s/%s ", kind == CAKE_MEMBER_JOINED ? '+' : '-',
                 (unsigned)member->node_id, member->address, member->data_center);
}

static void a_node_comes_back_on_another_address(void **state)
{
    (void)state;
    net_t net;
    seen_t seen = {""};
    cake_watch_t *watch;
    cake_channel_t *before, *after;
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    open_net(&net, 5, 4);
    start_plain(&net, 1, NULL);
    config.data_center = "old";
    assert_int_equal(start(&net, 2, 2, "host-1:7000", config), 0);
    start_plain(&net, 3, "host-1:7000");
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 3, 5000), 0);
    uint64_t generation = member_of(net.nodes[1], 2).generation;
    assert_int_equal(cake_node_channel(net.nodes[1], 2, &before), 0);
    assert_int_equal(cake_node_watch(net.nodes[1], on_membership, &seen, &watch), 0);
    seen.log[0] = '\0';
    crash(&net, 2);
    config.data_center = "new";
    config.generation = generation + 1;
    assert_int_equal(start(&net, 4, 2, "host-3:7000", config), 0);
    for (int i = 0; i < 60 && strcmp(member_of(net.nodes[1], 2).address, "10.0.0.4:7000") != 0; i++)
        cake__world_run_for(net.world, SECONDS / 2);
    cake_member_t member = member_of(net.nodes[1], 2);
    assert_string_equal(member.address, "10.0.0.4:7000");
    assert_int_equal(member.status, CAKE_ALIVE);
    assert_true(member.generation > generation);
    /* The whole record of the run that is gone, then the new one; calls go where it is now. */
    assert_string_equal(seen.log, "-2@10.0.0.2:7000/old +2@10.0.0.4:7000/new ");
    assert_int_equal(cake_node_channel(net.nodes[1], 2, &after), 0);
    assert_string_equal(cake_channel_address(after), "10.0.0.4:7000");
    close_net(&net);
}

/* On the real machine: simulated hosts have no addresses of that kind. */
static void addresses_of_version_6_work(void **state)
{
    (void)state;
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    cake_node_t *one, *two;
    const char *seed;
    config.node_id = 1;
    config.listen_addr = "[::1]:0";
    if (cake_node_start(&config, &one) != 0)
        skip(); /* this machine has none */
    seed = cake_node_address(one);
    assert_memory_equal(seed, "[::1]:", 6);
    config.node_id = 2;
    config.seeds = &seed;
    config.seed_count = 1;
    assert_int_equal(cake_node_start(&config, &two), 0);
    assert_int_equal(cake_node_wait_for(one, ids, 2, 60000), 0);
    assert_int_equal(cake_node_wait_for(two, ids, 2, 60000), 0);
    assert_string_equal(member_of(two, 1).address, seed);
    config.listen_addr = "[::]:0";
    cake_node_t *none;
    assert_int_equal(cake_node_start(&config, &none), CAKE_EINVAL);
    assert_int_equal(cake_node_stop(two), 0);
    assert_int_equal(cake_node_stop(one), 0);
}

/* ---- statistics and watchers ------------------------------------------------------------------------------------- */

static void statistics_say_what_there_is(void **state)
{
    (void)state;
    net_t net;
    cake_node_stats_t before, stats;
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    open_net(&net, 6, 4);
    for (int i = 1; i <= 4; i++) {
        config.data_center = i <= 2 ? "a" : i == 3 ? "b" : "c";
        assert_int_equal(start(&net, i, (uint16_t)i, "host-1:7000", config), 0);
    }
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 4, 5000), 0);
    cake__world_run_for(net.world, 10 * SECONDS);
    assert_int_equal(cake_node_stats(net.nodes[1], &before), 0);
    assert_int_equal(before.alive, 4);
    assert_int_equal(before.data_centers, 3);
    assert_true(before.gossip_sent_bytes > 0 && before.gossip_received_bytes > 0);
    assert_int_equal(before.gossip_bad_frames, 0);
    double calm = member_of(net.nodes[1], 4).phi;
    crash(&net, 4);
    cake__world_run_for(net.world, 3 * SECONDS);
    assert_true(member_of(net.nodes[1], 4).phi > calm + 1); /* each member of four is pinged by all */
    cake__world_run_for(net.world, 20 * SECONDS);
    assert_int_equal(cake_node_stats(net.nodes[1], &stats), 0);
    assert_int_equal(stats.alive, 3);
    assert_int_equal(stats.dead, 1);
    assert_int_equal(stats.data_centers, 2); /* a data centre goes with its last member */
    assert_true(stats.gossip_sent_bytes > before.gossip_sent_bytes);
    assert_false(cake_node_is_duplicate(net.nodes[1]));
    close_net(&net);
}

/* Memory that is short for a while delays what a watcher hears, but loses nothing. */
static void watchers_hear_all_also_after_want_of_memory(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth <= 40; nth++) {
        net_t net;
        seen_t seen = {""};
        cake_watch_t *watch;
        open_net(&net, 100 + nth, 4);
        start_plain(&net, 1, NULL);
        assert_int_equal(cake_node_watch(net.nodes[1], on_membership, &seen, &watch), 0);
        cake__host_fail_alloc(net.hosts[1], nth, true);
        for (int i = 2; i <= 4; i++)
            start_plain(&net, i, "host-1:7000");
        cake__world_run_for(net.world, 2 * SECONDS);
        cake__host_fail_alloc(net.hosts[1], 0, false);
        assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 4, 30000), 0);
        for (int i = 2; i <= 4; i++) {
            char joined[40];
            snprintf(joined, sizeof joined, "+%d@10.0.0.%d:7000/default ", i, i);
            assert_non_null(strstr(seen.log, joined));
        }
        close_net(&net);
    }
}

/* A watcher that takes its time holds up nothing that others hear, and gets every change: here it publishes from
 * inside, which makes further changes, and stops another watcher. */
typedef struct {
    cake_node_t *node;
    cake_watch_t *other;
    int joined, left;
} busy_t;

static void on_busy(void *arg, cake_membership_kind_t kind, const cake_member_t *member)
{
    busy_t *busy = arg;
    busy->joined += kind == CAKE_MEMBER_JOINED && !member->is_self;
    busy->left += kind == CAKE_MEMBER_LEFT;
    (void)cake_node_publish(busy->node, "count", &busy->joined, sizeof busy->joined);
    cake_watch_stop(busy->other);
    busy->other = NULL;
}

static void watchers_may_act_from_inside(void **state)
{
    (void)state;
    net_t net;
    busy_t busy = {0};
    seen_t seen = {""}, silent = {""};
    cake_watch_t *first, *last;
    open_net(&net, 7, 5);
    start_plain(&net, 1, NULL);
    busy.node = net.nodes[1];
    assert_int_equal(cake_node_watch(net.nodes[1], on_busy, &busy, &first), 0);
    assert_int_equal(cake_node_watch(net.nodes[1], on_membership, &silent, &busy.other), 0);
    assert_int_equal(cake_node_watch(net.nodes[1], on_membership, &seen, &last), 0);
    for (int i = 2; i <= 5; i++)
        start_plain(&net, i, "host-1:7000");
    assert_int_equal(cake_node_wait_for(net.nodes[1], ids, 5, 5000), 0);
    assert_int_equal(busy.joined, 4);
    for (int i = 2; i <= 4; i++) {
        assert_int_equal(cake_node_stop(net.nodes[i]), 0);
        net.nodes[i] = NULL;
    }
    cake__world_run_for(net.world, 3 * SECONDS);
    assert_int_equal(busy.left, 3);
    assert_string_equal(silent.log, ""); /* stopped before it heard anything */
    size_t signs = 0;
    for (const char *at = seen.log; *at != '\0'; at++)
        signs += *at == '+' || *at == '-';
    assert_int_equal(signs, 7);
    cake_watch_stop(NULL);
    close_net(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seed_that_moves_is_found),
        cmocka_unit_test(a_node_alone_with_its_own_seed_is_at_peace),
        cmocka_unit_test(seeds_out_of_bounds_are_refused),
        cmocka_unit_test(behind_any_address_others_get_the_public_one),
        cmocka_unit_test(a_node_comes_back_on_another_address),
        cmocka_unit_test(addresses_of_version_6_work),
        cmocka_unit_test(statistics_say_what_there_is),
        cmocka_unit_test(watchers_hear_all_also_after_want_of_memory),
        cmocka_unit_test(watchers_may_act_from_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
