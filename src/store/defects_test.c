/* What a store of this kind got wrong before: each test is of one defect, by its number in the list of them
 * (inventory). The others are in level_test.c, sync_test.c, join_test.c and the node's tests. */
#include "store/cluster_test.h"

static cake_store_stats_t stats_of(cluster_t *cluster, int id)
{
    cake_store_stats_t stats;
    assert_int_equal(cake_store_stats(cluster->members[id].store, &stats), 0);
    return stats;
}

static int del_text(cluster_t *cluster, int id, const char *key, cake_consistency_t level)
{
    return cake_store_del(cluster->members[id].store, "ks", cake_key_str(key), level);
}

/* ---- order --------------------------------------------------------------------------------------------------------*/

static void swap_first_two(cake__peer_t *peer)
{
    cake__list_t *first = cake__list_pop_front(&peer->queue), *second = cake__list_pop_front(&peer->queue);
    cake__list_push_front(&peer->queue, first);
    cake__list_push_front(&peer->queue, second);
}

/* Defect 3: stored, but refused by the set, so that it was never offered to others; and an older one took the place
 * of a newer one. */
static void writes_of_one_node_that_arrive_in_reverse_end_as_written(void **state)
{
    (void)state;
    cluster_t cluster = {.options.batch_interval_ms = 500};
    cluster_open(&cluster, 3, 401, NULL);
    cake__world_cut_both(cluster.world, 1, 3, true);
    assert_int_equal(put_text(&cluster, 1, "a", "first", CAKE_NONE), 0);
    assert_int_equal(put_text(&cluster, 1, "a", "second", CAKE_NONE), 0);
    assert_int_equal(put_text(&cluster, 1, "b", "first", CAKE_NONE), 0);
    cake__peer_t *two = cake__peer_find(cluster.members[1].store, 2);
    assert_int_equal(two->queue_count, 3);
    swap_first_two(two);
    cluster_wait(&cluster, cluster_is_equal, 20000); /* node 3 has it from node 2 */
    for (int i = 1; i <= 3; i++) {
        assert_text(&cluster, i, "a", "second");
        assert_text(&cluster, i, "b", "first");
    }
    cluster_close(&cluster);
}

/* Defect 4 */
static void puts_and_deletes_of_one_batch_keep_their_order(void **state)
{
    (void)state;
    cluster_t cluster = {.options.batch_interval_ms = 500};
    cluster_open(&cluster, 2, 402, NULL);
    assert_int_equal(put_text(&cluster, 1, "kept", "1", CAKE_NONE), 0);
    assert_int_equal(del_text(&cluster, 1, "kept", CAKE_NONE), 0);
    assert_int_equal(put_text(&cluster, 1, "kept", "2", CAKE_NONE), 0);
    assert_int_equal(put_text(&cluster, 1, "gone", "1", CAKE_NONE), 0);
    assert_int_equal(del_text(&cluster, 1, "gone", CAKE_NONE), 0);
    assert_int_equal(cake__peer_find(cluster.members[1].store, 2)->queue_count, 5);
    cluster_wait(&cluster, cluster_is_equal, 5000);
    assert_int_equal(stats_of(&cluster, 2).batches_received, 1);
    assert_text(&cluster, 2, "kept", "2");
    assert_text(&cluster, 2, "gone", NULL);
    assert_int_equal(stats_of(&cluster, 1).fingerprint, stats_of(&cluster, 2).fingerprint);
    cluster_close(&cluster);
}

/* ---- limits -------------------------------------------------------------------------------------------------------*/

#define QUEUE_BYTES  20000u
#define MAX_SESSIONS 3u

typedef struct {
    cluster_t *cluster;
    uint32_t most_sessions;
} limits_t;

static bool is_equal_within_limits(void *arg)
{
    limits_t *limits = arg;
    for (int i = 1; i <= 2; i++) {
        uint32_t running = limits->cluster->members[i].store->pulls_running;
        assert_in_range(running, 0, MAX_SESSIONS);
        limits->most_sessions = running > limits->most_sessions ? running : limits->most_sessions;
    }
    return cluster_is_equal(limits->cluster);
}

/* Defect 15: batches that fail waited for the hourly repair, the queue had no end, and the limit of parallel work
 * was not applied. */
static void what_a_peer_missed_follows_in_seconds_and_within_limits(void **state)
{
    (void)state;
    enum { SPACES = 60, EACH = 40 };
    cluster_t cluster = {.options.queue_bytes = QUEUE_BYTES, .options.max_sessions = MAX_SESSIONS};
    limits_t limits = {&cluster, 0};
    char space[16], key[16];
    cluster_open(&cluster, 2, 403, NULL);
    cake__peer_t *two = cake__peer_find(cluster.members[1].store, 2);
    cake__world_cut_both(cluster.world, 1, 2, true);
    for (int i = 0; i < SPACES * EACH; i++) {
        snprintf(space, sizeof space, "ks%d", i % SPACES);
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(
            cake_store_put(cluster.members[1].store, space, cake_key_str(key), "some bytes", 10, CAKE_NONE), 0);
        assert_in_range(two->queue_bytes, 0, QUEUE_BYTES);
    }
    cake__world_run_for(cluster.world, 20 * SECOND_NS);
    cake__world_heal(cluster.world);
    uint64_t until_ns = cake__world_now_ns(cluster.world) + 30 * SECOND_NS;
    assert_true(cake__world_run_until(cluster.world, is_equal_within_limits, &limits, until_ns));
    assert_in_range(limits.most_sessions, 2, MAX_SESSIONS);
    cluster_close(&cluster);
}

/* Defect 19: a repair sent every key of each keyspace that had changed. */
static void a_repair_costs_what_differs(void **state)
{
    (void)state;
    enum { KEYS = 5000 };
    static cake_item_t items[KEYS];
    cluster_t cluster = {.options.forget_after_ms = 20000};
    cluster_open(&cluster, 2, 404, NULL);
    for (uint64_t i = 0; i < KEYS; i++)
        items[i] = (cake_item_t){cake_key_u64(i), "a value of some length, to be seen in what is sent", 50};
    assert_int_equal(cake_store_put_many(cluster.members[1].store, "ks", items, KEYS, CAKE_ALL), 0);
    cluster_crash(&cluster, 2);
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(cake_store_del(cluster.members[1].store, "ks", cake_key_u64(i * 1000), CAKE_NONE), 0);
    cake__world_run_for(cluster.world, 60 * SECOND_NS);
    assert_int_equal(stats_of(&cluster, 1).tombstones, 0);
    cluster_start(&cluster, 2);
    cluster_wait(&cluster, cluster_is_equal, 30000);
    cake_store_stats_t stats = stats_of(&cluster, 2);
    assert_int_equal(stats.live, KEYS - 3);
    assert_int_equal(stats.repairs_finished, 1);
    assert_in_range(stats.session_bytes, 1, 20000); /* of 350,000 */
    cluster_close(&cluster);
}

/* ---- statistics ---------------------------------------------------------------------------------------------------*/

/* Defect 14: they never moved. */
static void every_statistic_moves(void **state)
{
    (void)state;
    char text[4000];
    cake_doc_t *doc;
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 405, NULL);
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(put_text(&cluster, 1, "a", text, CAKE_ALL), 0);
    assert_int_equal(put_text(&cluster, 1, "b", "2", CAKE_ALL), 0);
    assert_int_equal(del_text(&cluster, 1, "b", CAKE_ALL), 0);
    assert_int_equal(cake_store_get(cluster.members[1].store, "ks", cake_key_str("a"), &doc), 0);
    cake_doc_free(doc);
    assert_int_equal(stats_of(&cluster, 1).tombstones, 1);
    cake__world_run_for(cluster.world, 30 * SECOND_NS);
    cluster_crash(&cluster, 3);
    assert_int_not_equal(put_text(&cluster, 1, "c", "3", CAKE_ALL), 0);
    assert_int_equal(put_text(&cluster, 1, "d", text, CAKE_ONE), 0);
    cluster_start(&cluster, 3);
    cluster_wait(&cluster, cluster_is_equal, 30000);
    cake_store_stats_t one = stats_of(&cluster, 1), two = stats_of(&cluster, 2), three = stats_of(&cluster, 3);
    assert_true(one.is_joined && one.keyspaces == 1 && one.live >= 2 && one.tombstones == 0 && one.replicas == 3);
    assert_true(one.fingerprint != 0 && one.fingerprint == three.fingerprint);
    assert_true(one.writes > 0 && one.writes_failed > 0 && one.reads > 0);
    assert_true(one.batches_sent > 0 && one.batches_failed > 0 && one.batch_bytes_sent > 0);
    assert_true(one.batch_bytes_saved > 0 && two.batches_received > 0 && two.writes_received > 0);
    assert_true(three.sessions_finished > 0 && three.session_calls > 0 && three.session_bytes > 0);
    assert_true(three.session_bytes_saved > 0);
    assert_true(one.commits > 0 && one.tombstones_purged > 0 && one.pulses > 0 && one.pulse_bytes > 0);
    cluster_close(&cluster);
}

/* ---- storages that fetch ------------------------------------------------------------------------------------------*/

/* A storage that fetches from the node of origin: no batch may have writes of several. */
typedef struct {
    cake_storage_ops_t ops;
    const cake_storage_ops_t *inner;
    uint16_t gone; /* a node that cannot be fetched from */
    uint32_t batches, refused;
} fetching_t;

static fetching_t fetching;

static int write_fetching(cake_storage_t *storage, const cake_batch_t *batch)
{
    fetching.batches++;
    for (size_t i = 0; i < batch->write_count; i++) {
        const cake_write_context_t *context = batch->writes[i].context, *first = batch->writes[0].context;
        assert_true((context == NULL) == (first == NULL));
        assert_true(context == NULL || context->node_id == first->node_id);
        if (context != NULL && context->node_id == fetching.gone) {
            fetching.refused++;
            return CAKE_EIO;
        }
    }
    return fetching.inner->write(storage, batch);
}

typedef struct {
    uint32_t waiting, failed;
} puts_t;

static void on_put(const cake_result_t *result, void *arg)
{
    puts_t *puts = arg;
    puts->waiting--;
    puts->failed += result->err != 0;
}

static bool are_done(void *arg)
{
    puts_t *puts = arg;
    return puts->waiting == 0;
}

static void a_batch_that_cannot_be_fetched_takes_no_other_with_it(void **state)
{
    (void)state;
    enum { EACH = 40 };
    puts_t puts[4] = {{0}};
    char key[16];
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 406, NULL);
    cluster_crash(&cluster, 1);
    cake_storage_t *storage = cluster.members[1].storage;
    fetching = (fetching_t){.ops = *storage->ops, .inner = storage->ops};
    fetching.ops.flags = CAKE_STORAGE_FETCHES;
    fetching.ops.write = write_fetching;
    storage->ops = &fetching.ops;
    cluster_start(&cluster, 1);
    for (int i = 1; i <= 3; i++)
        assert_int_equal(cake_store_wait_for(cluster.members[i].store, (uint16_t[]){1, 2, 3}, 3, 30000), 0);
    fetching.gone = 2;
    for (int i = 0; i < EACH; i++) {
        for (int id = 1; id <= 3; id++) {
            snprintf(key, sizeof key, "k%d-%d", id, i);
            puts[id].waiting++;
            assert_int_equal(cake_store_put_async(cluster.members[id].store, "ks", cake_key_str(key), "v", 1, CAKE_ALL,
                                                  on_put, &puts[id]),
                             0);
        }
    }
    uint64_t until_ns = cake__world_now_ns(cluster.world) + 10 * SECOND_NS;
    for (int id = 1; id <= 3; id++)
        assert_true(cake__world_run_until(cluster.world, are_done, &puts[id], until_ns));
    assert_true(fetching.refused > 0);
    assert_int_equal(puts[1].failed, 0);
    assert_int_equal(puts[3].failed, 0);
    assert_int_equal(puts[2].failed, 0); /* they came by a session with node 3, which has them too */
    fetching.gone = 0;
    cluster_wait(&cluster, cluster_is_equal, 30000);
    cluster_close(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_of_one_node_that_arrive_in_reverse_end_as_written),
        cmocka_unit_test(puts_and_deletes_of_one_batch_keep_their_order),
        cmocka_unit_test(what_a_peer_missed_follows_in_seconds_and_within_limits),
        cmocka_unit_test(a_repair_costs_what_differs),
        cmocka_unit_test(every_statistic_moves),
        cmocka_unit_test(a_batch_that_cannot_be_fetched_takes_no_other_with_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
