/* Promises of the consistency levels. */
#include "store/cluster_test.h"

static void put_at_all_is_read_at_once_on_every_node(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 1, NULL);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), 0);
    for (int i = 1; i <= 3; i++)
        assert_text(&cluster, i, "a", "1");
    assert_int_equal(cake_store_del(cluster.members[2].store, "ks", cake_key_str("a"), CAKE_ALL), 0);
    for (int i = 1; i <= 3; i++)
        assert_text(&cluster, i, "a", NULL);
    cluster_close(&cluster);
}

static void put_without_level_arrives_a_little_later(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 2, NULL);
    assert_int_equal(put_text(&cluster, 2, "a", "1", CAKE_NONE), 0);
    assert_text(&cluster, 2, "a", "1");
    cake__world_run_for(cluster.world, SECOND_NS / 2);
    assert_text(&cluster, 1, "a", "1");
    assert_text(&cluster, 3, "a", "1");
    cluster_close(&cluster);
}

static void each_level_waits_for_as_many_as_it_says(void **state)
{
    (void)state;
    static const struct {
        cake_consistency_t level;
        int others;
    } rows[] = {{CAKE_NONE, 0}, {CAKE_ONE, 1}, {CAKE_TWO, 2}, {CAKE_THREE, 3}, {CAKE_QUORUM, 2}, {CAKE_ALL, 4}};
    cluster_t cluster = {0};
    cluster_open(&cluster, 5, 3, NULL);
    for (size_t row = 0; row < CAKE_COUNT_OF(rows); row++) {
        char key[16];
        int holders = 0;
        snprintf(key, sizeof key, "key-%zu", row);
        assert_int_equal(put_text(&cluster, 1, key, "v", rows[row].level), 0);
        for (int i = 2; i <= 5; i++) {
            cake_doc_t *doc;
            if (cake_store_get(cluster.members[i].store, "ks", cake_key_str(key), &doc) == 0) {
                holders++;
                cake_doc_free(doc);
            }
        }
        assert_true(holders >= rows[row].others);
    }
    cluster_close(&cluster);
}

static void a_node_just_killed_fails_all_within_the_timeout_and_gets_the_document_later(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cake_result_t failure;
    cluster_open(&cluster, 3, 4, NULL);
    cluster_crash(&cluster, 3);
    uint64_t begin_ns = cake__world_now_ns(cluster.world);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), CAKE_ECONSISTENCY);
    assert_true(cake__world_now_ns(cluster.world) - begin_ns <= 2100 * CAKE_NS_PER_MS);
    cake_store_last_failure(cluster.members[1].store, &failure);
    assert_int_equal(failure.required, 3);
    assert_int_equal(failure.responses, 2);
    assert_int_equal(failure.timeout_ms, 2000);
    assert_text(&cluster, 1, "a", "1");
    assert_int_equal(put_text(&cluster, 1, "b", "2", CAKE_QUORUM), 0);
    cluster_start(&cluster, 3);
    cluster_wait(&cluster, cluster_is_equal, 10000);
    assert_text(&cluster, 3, "a", "1");
    assert_text(&cluster, 3, "b", "2");
    cluster_close(&cluster);
}

static bool knows_dead(void *arg)
{
    cluster_t *cluster = arg;
    cake__peer_t *peer = cake__peer_find(cluster->members[1].store, 3);
    return peer->status == CAKE_DEAD;
}

static void a_node_known_dead_fails_all_at_once_and_nothing_is_written(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cake_result_t failure;
    cluster_open(&cluster, 3, 5, NULL);
    cluster_crash(&cluster, 3);
    cluster_wait(&cluster, knows_dead, 20000);
    uint64_t begin_ns = cake__world_now_ns(cluster.world);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), CAKE_ENOTENOUGHNODES);
    assert_true(cake__world_now_ns(cluster.world) - begin_ns <= 10 * CAKE_NS_PER_MS);
    cake_store_last_failure(cluster.members[1].store, &failure);
    assert_int_equal(failure.live, 2);
    assert_int_equal(failure.required, 3);
    cake__world_run_for(cluster.world, SECOND_NS);
    assert_text(&cluster, 1, "a", NULL);
    assert_text(&cluster, 2, "a", NULL);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_QUORUM), 0);
    cluster_close(&cluster);
}

static bool is_split(void *arg)
{
    cluster_t *cluster = arg;
    for (int i = 1; i <= 4; i++) {
        for (int k = 1; k <= 4; k++) {
            cake__peer_t *peer = i == k ? NULL : cake__peer_find(cluster->members[i].store, (uint16_t)k);
            if (peer != NULL && (i <= 2) != (k <= 2) && peer->status != CAKE_DEAD)
                return false;
        }
    }
    return true;
}

/* inventory.md, defect 12 */
static void two_halves_of_a_split_cannot_both_reach_a_quorum(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 4, 6, NULL);
    for (uint32_t a = 1; a <= 2; a++) {
        for (uint32_t b = 3; b <= 4; b++)
            cake__world_cut_both(cluster.world, a, b, true);
    }
    cluster_wait(&cluster, is_split, 60000);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_QUORUM), CAKE_ENOTENOUGHNODES);
    assert_int_equal(put_text(&cluster, 3, "a", "2", CAKE_QUORUM), CAKE_ENOTENOUGHNODES);
    assert_int_equal(put_text(&cluster, 3, "b", "3", CAKE_ONE), 0);
    cake__world_heal(cluster.world);
    cluster_wait(&cluster, cluster_is_equal, 60000);
    assert_text(&cluster, 1, "b", "3");
    cluster_close(&cluster);
}

static void data_centre_levels_count_within_data_centres(void **state)
{
    (void)state;
    static const char *const data_centers[] = {"east", "east", "east", "west", "west"};
    cluster_t cluster = {0};
    cluster_open(&cluster, 5, 7, data_centers);
    cluster_crash(&cluster, 4);
    cluster_crash(&cluster, 5);
    cake__world_run_for(cluster.world, 30 * SECOND_NS);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_LOCAL_QUORUM), 0);
    assert_int_equal(put_text(&cluster, 1, "b", "1", CAKE_QUORUM), 0);
    assert_int_equal(put_text(&cluster, 1, "c", "1", CAKE_EACH_QUORUM), CAKE_ENOTENOUGHNODES);
    cluster_start(&cluster, 4);
    cluster_start(&cluster, 5);
    cluster_wait(&cluster, cluster_is_equal, 20000);
    cake__world_run_for(cluster.world, 2 * SECOND_NS);
    assert_int_equal(put_text(&cluster, 1, "c", "1", CAKE_EACH_QUORUM), 0);
    cluster_close(&cluster);
}

/* inventory.md, defect 13: the time-out exists. */
static void a_stalled_peer_cannot_hang_a_put(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 2, 8, NULL);
    cake__host_pause(cluster.members[2].host);
    uint64_t begin_ns = cake__world_now_ns(cluster.world);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), CAKE_ECONSISTENCY);
    assert_true(cake__world_now_ns(cluster.world) - begin_ns <= 2100 * CAKE_NS_PER_MS);
    cake__host_resume(cluster.members[2].host);
    cluster_wait(&cluster, cluster_is_equal, 20000);
    assert_text(&cluster, 2, "a", "1");
    cluster_close(&cluster);
}

static void a_read_with_a_level_finds_the_newest_and_mends_the_others(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cake_doc_t *doc;
    cluster_open(&cluster, 3, 9, NULL);
    assert_int_equal(put_text(&cluster, 1, "a", "old", CAKE_ALL), 0);
    cake__world_cut_both(cluster.world, 1, 2, true);
    assert_int_equal(put_text(&cluster, 1, "a", "new", CAKE_QUORUM), 0);
    assert_text(&cluster, 2, "a", "old");
    assert_int_equal(cake_store_get_at(cluster.members[3].store, "ks", cake_key_str("a"), CAKE_ALL, &doc), 0);
    assert_true(cake__slice_equal(cake_doc_value(doc), cake__slice_str("new")));
    cake_doc_free(doc);
    cake__world_run_for(cluster.world, SECOND_NS / 2);
    assert_text(&cluster, 2, "a", "new");
    assert_int_equal(cake_store_get_at(cluster.members[3].store, "ks", cake_key_str("none"), CAKE_ALL, &doc),
                     CAKE_ENOTFOUND);
    cluster_close(&cluster);
}

static void bad_input_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    char long_key[600] = {0};
    cluster_open(&cluster, 1, 10, NULL);
    cake_store_t *store = cluster.members[1].store;
    assert_int_equal(cake_store_put(store, "", cake_key_str("a"), "1", 1, CAKE_NONE), CAKE_EINVAL);
    assert_int_equal(cake_store_put(store, NULL, cake_key_str("a"), "1", 1, CAKE_NONE), CAKE_EINVAL);
    assert_int_equal(cake_store_put(store, "a\nb", cake_key_str("a"), "1", 1, CAKE_NONE), CAKE_EINVAL);
    assert_int_equal(cake_store_put(store, "\xff", cake_key_str("a"), "1", 1, CAKE_NONE), CAKE_EINVAL);
    assert_int_equal(cake_store_put(store, "ks", cake_key_str(""), "1", 1, CAKE_NONE), CAKE_EINVAL);
    assert_int_equal(cake_store_put(store, "ks", cake_key_bytes(long_key, 512), "1", 1, CAKE_NONE), CAKE_EINVAL);
    assert_int_equal(cake_store_put(store, "ks", cake_key_str("a"), "1", (16u << 20) + 1, CAKE_NONE), CAKE_ETOOBIG);
    assert_int_equal(cake_store_put(store, "ks", cake_key_str("a"), "1", 1, (cake_consistency_t)8), CAKE_EINVAL);
    assert_int_equal(cake_store_put(store, "ks", cake_key_str("a"), "1", 1, CAKE_ONE), CAKE_ENOTENOUGHNODES);
    assert_int_equal(cake_store_put(store, "ks", cake_key_bytes(long_key, 511), "1", 1, CAKE_NONE), 0);
    assert_int_equal(store->keyspaces.count, 1);
    assert_int_equal(
        cake_orswot_live(((cake__keyspace_t *)cake__map_get(&store->keyspaces, cake__slice_str("ks")))->set), 1);
    cluster_close(&cluster);
}

static bool has_member_3(void *arg)
{
    cluster_t *cluster = arg;
    cake__peer_t *peer = cake__peer_find(cluster->members[1].store, 3);
    return peer != NULL && cake__peer_is_there(peer);
}

/* Between a member's first sign of life and its store's, a level must not pass over it. */
static void a_member_that_has_just_joined_counts_before_its_store_is_heard(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        cluster_t cluster = {0};
        cluster_open(&cluster, 2, 100 + seed, NULL);
        cluster.count = 3;
        cluster.members[3].host = cake__world_add_host(cluster.world);
        cluster.members[3].data_center = "dc-1";
        cluster_start(&cluster, 3);
        cluster_wait(&cluster, has_member_3, 5000);
        assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), 0);
        for (int i = 1; i <= 3; i++)
            assert_text(&cluster, i, "a", "1");
        cluster_close(&cluster);
    }
}

static void a_read_at_a_level_after_a_restart_alone_does_not_take_replicas_for_documents(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cake_doc_t *doc = NULL;
    cluster_open(&cluster, 3, 14, NULL);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), 0);
    for (int i = 1; i <= 3; i++)
        cluster_crash(&cluster, i);
    cluster_start(&cluster, 3);
    int err = cake_store_get_at(cluster.members[3].store, "ks", cake_key_str("a"), CAKE_QUORUM, &doc);
    assert_true(err == CAKE_ECONSISTENCY || err == CAKE_ENOTENOUGHNODES);
    cluster_close(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_at_all_is_read_at_once_on_every_node),
        cmocka_unit_test(put_without_level_arrives_a_little_later),
        cmocka_unit_test(each_level_waits_for_as_many_as_it_says),
        cmocka_unit_test(a_node_just_killed_fails_all_within_the_timeout_and_gets_the_document_later),
        cmocka_unit_test(a_node_known_dead_fails_all_at_once_and_nothing_is_written),
        cmocka_unit_test(two_halves_of_a_split_cannot_both_reach_a_quorum),
        cmocka_unit_test(data_centre_levels_count_within_data_centres),
        cmocka_unit_test(a_stalled_peer_cannot_hang_a_put),
        cmocka_unit_test(a_read_with_a_level_finds_the_newest_and_mends_the_others),
        cmocka_unit_test(a_read_at_a_level_after_a_restart_alone_does_not_take_replicas_for_documents),
        cmocka_unit_test(a_member_that_has_just_joined_counts_before_its_store_is_heard),
        cmocka_unit_test(bad_input_is_refused_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
