/* Promises of the registry: a replica counts wherever it has joined, also for who has missed that; so does what was
 * forgotten; and nodes that have met nobody but each other are no cluster. */
#include "store/cluster_test.h"

static void write_meta(cake_storage_t *storage, const char *name, cake_slice_t value)
{
    const cake_meta_write_t meta = {cake__slice_str(name), value};
    const cake_batch_t batch = {.metas = &meta, .meta_count = 1};
    assert_int_equal(storage->ops->write(storage, &batch), 0);
}

static bool knows(cluster_t *cluster, int id, uint16_t other)
{
    const cake__peer_t *peer = cake__peer_find(cluster->members[id].store, other);
    return peer != NULL && peer->is_replica;
}

/* ---- who has joined -----------------------------------------------------------------------------------------------*/

/* A fourth one joins, and node 1 crashes before that is on its disk. */
static void forget_the_fourth(cluster_t *cluster, uint64_t seed)
{
    *cluster = (cluster_t){0};
    cluster_open(cluster, 3, seed, NULL);
    cluster_add(cluster);
    cluster_start(cluster, 4);
    cluster_wait(cluster, cluster_has_joined, 30000);
    assert_int_equal(put_text(cluster, 4, "a", "1", CAKE_ALL), 0);
    cluster_crash(cluster, 1);
    write_meta(cluster->members[1].storage, "replica/4", (cake_slice_t){0}); /* removed */
}

static void a_write_at_all_counts_a_replica_that_its_node_has_missed(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        cluster_t cluster;
        forget_the_fourth(&cluster, seed);
        cluster_start(&cluster, 1);
        assert_false(knows(&cluster, 1, 4));
        if (put_text(&cluster, 1, "b", "2", CAKE_ALL) == 0)
            assert_text(&cluster, 4, "b", "2");
        cluster_wait(&cluster, cluster_has_joined, 5000);
        assert_int_equal(put_text(&cluster, 1, "c", "3", CAKE_ALL), 0);
        assert_text(&cluster, 4, "c", "3");
        cluster_close(&cluster);
    }
}

/* Three of four are a majority; of the three that it knows two would be one. */
static void a_quorum_counts_replicas_that_its_node_has_missed(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        cluster_t cluster;
        cake_doc_t *doc = NULL;
        forget_the_fourth(&cluster, seed);
        cluster_crash(&cluster, 3);
        cake__world_cut_both(cluster.world, 1, 4, true);
        cluster_start(&cluster, 1);
        assert_int_not_equal(put_text(&cluster, 1, "b", "2", CAKE_QUORUM), 0);
        cake__world_run_for(cluster.world, 2 * SECOND_NS);
        assert_true(knows(&cluster, 1, 4));
        assert_int_not_equal(cake_store_get_at(cluster.members[1].store, "ks", cake_key_str("a"), CAKE_QUORUM, &doc),
                             0);
        cluster_close(&cluster);
    }
}

/* ---- who was forgotten --------------------------------------------------------------------------------------------*/

static bool is_three_dead(void *arg)
{
    cluster_t *cluster = arg;
    return cake__peer_find(cluster->members[1].store, 3)->status == CAKE_DEAD;
}

static bool has_two_forgotten_three(void *arg)
{
    cluster_t *cluster = arg;
    return cluster->members[2].store != NULL && !knows(cluster, 2, 3);
}

static bool does_one_count_three(void *arg)
{
    return knows(arg, 1, 3) && knows(arg, 2, 3);
}

static void a_node_that_was_away_learns_who_was_forgotten(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 31, NULL);
    cluster_crash(&cluster, 3);
    cluster_wait(&cluster, is_three_dead, 60000);
    cluster_crash(&cluster, 2);
    assert_int_equal(cake_store_forget(cluster.members[1].store, 3), 0);
    assert_int_equal(cake_store_forget(cluster.members[1].store, 3), CAKE_ENOTFOUND);
    cake__world_run_for(cluster.world, SECOND_NS);
    for (int run = 0; run < 2; run++) { /* it stays so after a restart of both */
        if (run == 1)
            cluster_crash(&cluster, 1);
        cluster_start(&cluster, 2);
        if (run == 1)
            cluster_start(&cluster, 1);
        cluster_wait(&cluster, has_two_forgotten_three, 10000);
        cake__world_run_for(cluster.world, 2 * SECOND_NS);
        assert_int_equal(put_text(&cluster, 2, "a", "1", CAKE_ALL), 0);
        assert_false(knows(&cluster, 1, 3));
        cluster_crash(&cluster, 2);
    }
    cluster_start(&cluster, 2);
    cluster_start(&cluster, 3); /* it counts again with its first sign of life */
    cluster_wait(&cluster, does_one_count_three, 20000);
    assert_int_equal(put_text(&cluster, 1, "b", "2", CAKE_ALL), 0);
    assert_text(&cluster, 3, "b", "2");
    cluster_close(&cluster);
}

/* ---- who has met nobody -------------------------------------------------------------------------------------------*/

/* A new node whose seeds are node 1 and this one. */
static void start_new(cluster_t *cluster, int id, int seed)
{
    member_t *member = &cluster->members[id];
    char listen[32], seed_text[32];
    const char *seeds[2] = {"10.0.0.1:7000", seed_text};
    snprintf(listen, sizeof listen, "10.0.0.%d:7000", id);
    snprintf(seed_text, sizeof seed_text, "10.0.0.%d:7000", seed);
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    config.env = cake__host_env(member->host);
    config.node_id = (uint16_t)id;
    config.listen_addr = listen;
    config.data_center = member->data_center;
    config.seeds = seeds;
    config.seed_count = 2;
    assert_int_equal(cake_node_start(&config, &member->node), 0);
    assert_int_equal(cake_memory_open(&member->storage), 0);
    assert_int_equal(cake_store_open(member->node, member->storage, &cluster->options, &member->store), 0);
}

static bool have_new_met(void *arg)
{
    cluster_t *cluster = arg;
    return cluster->members[3].store->is_joined && cluster->members[4].store->is_joined && knows(cluster, 3, 4) &&
           knows(cluster, 4, 3);
}

static void assert_takes_no_level(cluster_t *cluster, int id)
{
    static const cake_consistency_t levels[] = {CAKE_ONE, CAKE_QUORUM, CAKE_LOCAL_QUORUM, CAKE_EACH_QUORUM, CAKE_ALL};
    for (size_t i = 0; i < CAKE_COUNT_OF(levels); i++)
        assert_int_equal(put_text(cluster, id, "refused", "1", levels[i]), CAKE_ENOTENOUGHNODES);
}

/* Two new ones are cut off together from the two that there are, for longer than join_timeout. */
static void new_nodes_that_are_cut_off_together_are_no_cluster(void **state)
{
    (void)state;
    for (uint64_t seed = 41; seed <= 50; seed++) {
        cluster_t cluster = {0};
        cluster_open(&cluster, 2, seed, NULL);
        cluster_add(&cluster);
        cluster_add(&cluster);
        for (uint32_t fresh = 3; fresh <= 4; fresh++) {
            for (uint32_t old = 1; old <= 2; old++)
                cake__world_cut_both(cluster.world, fresh, old, true);
        }
        start_new(&cluster, 3, 4);
        start_new(&cluster, 4, 3);
        cluster_wait(&cluster, have_new_met, 30000);
        for (int id = 3; id <= 4; id++)
            assert_takes_no_level(&cluster, id);
        assert_int_equal(put_text(&cluster, 3, "mine", "1", CAKE_NONE), 0);
        cake__world_run_for(cluster.world, 5 * SECOND_NS);
        assert_text(&cluster, 4, "mine", "1");
        assert_takes_no_level(&cluster, 4);

        cake__world_heal(cluster.world);
        cluster_wait(&cluster, cluster_takes_levels, 60000);
        cluster_wait(&cluster, cluster_is_equal, 60000);
        assert_int_equal(put_text(&cluster, 3, "a", "1", CAKE_ALL), 0);
        for (int id = 1; id <= 4; id++) {
            assert_text(&cluster, id, "a", "1");
            assert_text(&cluster, id, "mine", "1");
            assert_text(&cluster, id, "refused", NULL);
        }
        cluster_close(&cluster);
    }
}

/* A cluster that is all new, and one of its seeds comes when the others have been waiting for longer than
 * join_timeout. */
static void a_new_cluster_begins_when_the_last_of_its_seeds_is_there(void **state)
{
    (void)state;
    for (uint64_t seed = 61; seed <= 70; seed++) {
        cake__world_options_t options = {.seed = seed};
        cluster_t cluster = {.options.size = sizeof(cake_store_options_t)};
        assert_int_equal(cake__world_new(&options, &cluster.world), 0);
        for (int id = 1; id <= 4; id++)
            cluster_add(&cluster);
        start_new(&cluster, 3, 4);
        start_new(&cluster, 4, 3);
        cluster_wait(&cluster, have_new_met, 30000);
        assert_takes_no_level(&cluster, 3);
        assert_int_equal(put_text(&cluster, 4, "early", "1", CAKE_NONE), 0);
        start_new(&cluster, 2, 3);
        start_new(&cluster, 1, 2);
        cluster_wait(&cluster, cluster_takes_levels, 20000);
        cluster_wait(&cluster, cluster_has_joined, 5000);
        for (int id = 1; id <= 4; id++) {
            assert_int_equal(put_text(&cluster, id, "a", "1", CAKE_ALL), 0);
            assert_text(&cluster, id, "early", "1");
        }
        cluster_close(&cluster);
    }
}

/* ---- who joins on the wrong side of a split -----------------------------------------------------------------------*/

static bool have_two_more_joined(void *arg)
{
    cluster_t *cluster = arg;
    int last = cluster->count;
    return cluster->members[last - 1].store->is_joined && cluster->members[last].store->is_joined &&
           knows(cluster, 3, (uint16_t)last) && knows(cluster, last - 1, (uint16_t)last) &&
           knows(cluster, last, (uint16_t)(last - 1));
}

static bool reads_at(cluster_t *cluster, int id, const char *value, cake_consistency_t level)
{
    cake_doc_t *doc = NULL;
    int err = cake_store_get_at(cluster->members[id].store, "ks", cake_key_str("a"), level, &doc);
    bool is_same = err == 0 && cake__slice_equal(cake_doc_value(doc), cake__slice_str(value));
    cake_doc_free(doc);
    return is_same;
}

static bool reads_at_quorum(cluster_t *cluster, int id, const char *value)
{
    return reads_at(cluster, id, value, CAKE_QUORUM);
}

/* `joining` and the one after it are new, and hear all but the first two. */
static void join_without_the_first_two(cluster_t *cluster, int joining)
{
    cluster_wait(cluster, cluster_takes_levels, 20000);
    assert_int_equal(put_text(cluster, 1, "a", "old", CAKE_ALL), 0);
    cluster_add(cluster);
    cluster_add(cluster);
    for (int here = 3; here <= joining + 1; here++) {
        for (uint32_t there = 1; there <= 2; there++)
            cake__world_cut_both(cluster->world, (uint32_t)here, there, true);
    }
    start_new(cluster, joining, 3);
    start_new(cluster, joining + 1, 3);
    cluster_wait(cluster, have_two_more_joined, 60000);
    cake__world_run_for(cluster->world, 2 * SECOND_NS);
}

/* Those of the first two take `level`, the others do not; after healing all do. */
static void assert_that_two_are_the_majority(cluster_t *cluster, cake_consistency_t level, const int *others,
                                             size_t count)
{
    assert_int_equal(put_text(cluster, 1, "a", "new", level), 0);
    for (size_t i = 0; i < count; i++) {
        assert_int_not_equal(put_text(cluster, others[i], "b", "1", level), 0);
        assert_false(reads_at(cluster, others[i], "old", level));
    }
    assert_int_equal(put_text(cluster, cluster->count, "mine", "1", CAKE_NONE), 0);
    cake__world_heal(cluster->world);
    cluster_wait(cluster, cluster_has_joined, 60000);
    cluster_wait(cluster, cluster_takes_levels, 20000);
    cluster_wait(cluster, cluster_is_equal, 60000);
    for (int id = 1; id <= cluster->count; id++) {
        assert_true(reads_at(cluster, id, "new", level));
        assert_int_equal(put_text(cluster, id, "c", "1", CAKE_ALL), 0);
        assert_text(cluster, id, "mine", "1");
    }
}

/* Of three one is cut off from the two others, and two new ones join by it. The two go on as the majority that they
 * are; five of whom three have never asked them are none. */
static void nodes_that_join_in_a_minority_make_no_majority(void **state)
{
    static const int others[] = {3, 4, 5};
    (void)state;
    for (uint64_t seed = 81; seed <= 90; seed++) {
        cluster_t cluster = {0};
        cluster_open(&cluster, 3, seed, NULL);
        join_without_the_first_two(&cluster, 4);
        assert_that_two_are_the_majority(&cluster, CAKE_QUORUM, others, CAKE_COUNT_OF(others));
        cluster_close(&cluster);
    }
}

/* Three of five replicas know the new ones, but of the three in their data centre only one. */
static void nodes_that_join_in_a_local_minority_make_no_local_majority(void **state)
{
    static const char *const data_centers[] = {"dc-1", "dc-1", "dc-1", "dc-2", "dc-2"};
    static const int others[] = {3, 6, 7};
    (void)state;
    for (uint64_t seed = 91; seed <= 95; seed++) {
        cluster_t cluster = {0};
        cluster_open(&cluster, 5, seed, data_centers);
        join_without_the_first_two(&cluster, 6);
        assert_that_two_are_the_majority(&cluster, CAKE_LOCAL_QUORUM, others, CAKE_COUNT_OF(others));
        cluster_close(&cluster);
    }
}

/* Of three the first has missed a write at quorum, and the third is dead: two that join by the first have it from
 * the second, which knows them before they count. */
static void nodes_that_join_have_what_a_majority_had(void **state)
{
    (void)state;
    for (uint64_t seed = 101; seed <= 120; seed++) {
        cluster_t cluster = {0};
        cluster_open(&cluster, 3, seed, NULL);
        cluster_wait(&cluster, cluster_takes_levels, 20000);
        assert_int_equal(put_text(&cluster, 1, "a", "old", CAKE_ALL), 0);
        for (uint32_t other = 2; other <= 3; other++)
            cake__world_cut_both(cluster.world, 1, other, true);
        assert_int_equal(put_text(&cluster, 2, "a", "new", CAKE_QUORUM), 0);
        cluster_crash(&cluster, 3);
        cluster_add(&cluster);
        cluster_add(&cluster);
        start_new(&cluster, 4, 2);
        start_new(&cluster, 5, 2);
        cluster_wait(&cluster, cluster_takes_levels, 60000);
        for (uint32_t other = 4; other <= 5; other++)
            cake__world_cut_both(cluster.world, 2, other, true);
        assert_text(&cluster, 4, "a", "new");
        assert_text(&cluster, 5, "a", "new");
        cake__world_run_for(cluster.world, 15 * SECOND_NS); /* the second is taken for dead */
        assert_true(reads_at_quorum(&cluster, 4, "new"));
        cake__world_heal(cluster.world);
        cluster_close(&cluster);
    }
}

/* Of the two that have a write at quorum one loses its disk, and the other is away: the third and an empty disk are
 * no majority. */
static void a_lost_disk_counts_again_with_what_a_majority_had(void **state)
{
    (void)state;
    for (uint64_t seed = 121; seed <= 130; seed++) {
        cluster_t cluster = {0};
        cluster_open(&cluster, 3, seed, NULL);
        cluster_wait(&cluster, cluster_takes_levels, 20000);
        assert_int_equal(put_text(&cluster, 1, "a", "old", CAKE_ALL), 0);
        cake__world_cut_both(cluster.world, 2, 1, true);
        cake__world_cut_both(cluster.world, 2, 3, true);
        assert_int_equal(put_text(&cluster, 1, "a", "new", CAKE_QUORUM), 0);
        cluster_crash(&cluster, 1);
        cluster_crash(&cluster, 3);
        cake_storage_close(cluster.members[3].storage);
        cluster.members[3].storage = NULL;
        cake__world_heal(cluster.world);
        cluster_start(&cluster, 3);
        cake__world_run_for(cluster.world, 30 * SECOND_NS);
        for (int id = 2; id <= 3; id++) {
            assert_false(reads_at_quorum(&cluster, id, "old"));
            assert_int_not_equal(put_text(&cluster, id, "b", "1", CAKE_QUORUM), 0);
        }
        cluster_start(&cluster, 1);
        cluster_wait(&cluster, cluster_has_joined, 30000);
        cluster_wait(&cluster, cluster_takes_levels, 20000);
        for (int id = 1; id <= 3; id++)
            assert_true(reads_at_quorum(&cluster, id, "new"));
        cluster_close(&cluster);
    }
}

/* ---- what others say ----------------------------------------------------------------------------------------------*/

static void a_registry_that_makes_no_sense_changes_nothing(void **state)
{
    (void)state;
    static const struct {
        uint8_t bytes[48];
        size_t len;
    } cases[] = {
        {{0}, 0},                                                                 /* nothing at all */
        {{1}, 1},                                                                 /* an entry that is not there */
        {{1, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 'd'}, 14},                       /* cut in a name */
        {{1, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}, 14},                         /* more than it says */
        {{1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 13},                            /* no id */
        {{1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 13},                            /* no length */
        {{1, 9, 0, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 17}, /* an absurd length */
        {{2, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 25}, /* one id twice */
        {{2, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 25}, /* not in order */
    };
    cluster_t cluster = {0};
    cluster_open(&cluster, 2, 71, NULL);
    cake_store_t *store = cluster.members[1].store;
    uint32_t before = store->registry;
    for (size_t i = 0; i < CAKE_COUNT_OF(cases); i++) {
        assert_int_equal(cake__registry_take(store, cake__slice(cases[i].bytes, cases[i].len)), CAKE_EPARSE);
        assert_int_equal(store->registry, before);
        assert_null(cake__peer_find(store, 9));
    }
    cluster_close(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_at_all_counts_a_replica_that_its_node_has_missed),
        cmocka_unit_test(a_quorum_counts_replicas_that_its_node_has_missed),
        cmocka_unit_test(a_node_that_was_away_learns_who_was_forgotten),
        cmocka_unit_test(new_nodes_that_are_cut_off_together_are_no_cluster),
        cmocka_unit_test(a_new_cluster_begins_when_the_last_of_its_seeds_is_there),
        cmocka_unit_test(nodes_that_join_in_a_minority_make_no_majority),
        cmocka_unit_test(nodes_that_join_in_a_local_minority_make_no_local_majority),
        cmocka_unit_test(nodes_that_join_have_what_a_majority_had),
        cmocka_unit_test(a_lost_disk_counts_again_with_what_a_majority_had),
        cmocka_unit_test(a_registry_that_makes_no_sense_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
