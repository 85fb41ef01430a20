/* Promises of catching up: restarts, partitions, lost disks, tombstones, joining. */
#include <stdlib.h>

#include "store/cluster_test.h"

static uint64_t tombstones(cluster_t *cluster)
{
    uint64_t count = 0;
    for (int i = 1; i <= cluster->count; i++) {
        cake_store_stats_t stats;
        if (cluster->members[i].store == NULL)
            continue;
        assert_int_equal(cake_store_stats(cluster->members[i].store, &stats), 0);
        count += stats.tombstones;
    }
    return count;
}

static bool has_no_tombstones(void *arg)
{
    cluster_t *cluster = arg;
    for (int i = 1; i <= cluster->count; i++) {
        if (cluster->members[i].store != NULL && !cake__list_is_empty(&cluster->members[i].store->with_tombstones))
            return false;
    }
    return true;
}

static void fill(cluster_t *cluster, int id, int from, int to, cake_consistency_t level)
{
    enum { BATCH = 500 };
    for (int begin = from; begin < to; begin += BATCH) {
        cake_item_t items[BATCH];
        size_t count = 0;
        for (int n = begin; n < to && count < BATCH; n++)
            items[count++] = (cake_item_t){cake_key_u64((uint64_t)n), "value", 5};
        assert_int_equal(cake_store_put_many(cluster->members[id].store, "ks", items, count, level), 0);
    }
}

static void clear(cluster_t *cluster, int id, int from, int to, cake_consistency_t level)
{
    enum { BATCH = 500 };
    for (int begin = from; begin < to; begin += BATCH) {
        cake_key_t keys[BATCH];
        size_t count = 0;
        for (int n = begin; n < to && count < BATCH; n++)
            keys[count++] = cake_key_u64((uint64_t)n);
        assert_int_equal(cake_store_del_many(cluster->members[id].store, "ks", keys, count, level), 0);
    }
}

static uint64_t live(cluster_t *cluster, int id)
{
    cake_store_stats_t stats;
    assert_int_equal(cake_store_stats(cluster->members[id].store, &stats), 0);
    return stats.live;
}

/* inventory.md, defect 1 */
static void ten_thousand_deletes_leave_no_tombstone_after_thirty_seconds(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 1, NULL);
    fill(&cluster, 1, 0, 10000, CAKE_QUORUM);
    clear(&cluster, 1, 0, 10000, CAKE_QUORUM);
    assert_true(tombstones(&cluster) > 0);
    cluster_wait(&cluster, has_no_tombstones, 30000);
    assert_int_equal(tombstones(&cluster), 0);
    assert_true(cluster_is_equal(&cluster));
    for (int i = 1; i <= 3; i++)
        assert_int_equal(live(&cluster, i), 0);
    cluster_close(&cluster);
}

/* inventory.md, defect 2 */
static void a_node_that_missed_deletes_holds_their_tombstones_up_and_revives_nothing(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 2, NULL);
    fill(&cluster, 1, 0, 1000, CAKE_ALL);
    cluster_crash(&cluster, 3);
    clear(&cluster, 1, 0, 500, CAKE_QUORUM);
    cake__world_run_for(cluster.world, 60 * SECOND_NS);
    assert_int_equal(tombstones(&cluster), 1000);
    cluster_start(&cluster, 3);
    cluster_wait(&cluster, cluster_is_equal, 10000);
    cluster_wait(&cluster, has_no_tombstones, 30000);
    for (int i = 1; i <= 3; i++)
        assert_int_equal(live(&cluster, i), 500);
    cluster_close(&cluster);
}

static void a_node_away_past_forget_after_comes_back_through_repair_and_revives_nothing(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cake_store_stats_t stats;
    cluster.options.forget_after_ms = 60000;
    cluster_open(&cluster, 3, 3, NULL);
    fill(&cluster, 1, 0, 1000, CAKE_ALL);
    cluster_crash(&cluster, 3);
    clear(&cluster, 1, 0, 500, CAKE_QUORUM);
    cluster_wait(&cluster, has_no_tombstones, 180000);
    cluster_start(&cluster, 3);
    assert_int_equal(cake_store_put(cluster.members[3].store, "ks", cake_key_str("own"), "x", 1, CAKE_NONE), 0);
    cluster_wait(&cluster, cluster_is_equal, 20000);
    assert_int_equal(cake_store_stats(cluster.members[3].store, &stats), 0);
    assert_true(stats.repairs_finished > 0);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(live(&cluster, i), 501);
        assert_text(&cluster, i, "own", "x");
    }
    cluster_close(&cluster);
}

static void a_restart_resends_nothing_that_is_there(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cake_store_stats_t stats;
    cluster_open(&cluster, 3, 4, NULL);
    fill(&cluster, 1, 0, 5000, CAKE_ALL);
    cluster_crash(&cluster, 2);
    cluster_start(&cluster, 2);
    assert_int_equal(live(&cluster, 2), 5000);
    cluster_wait(&cluster, cluster_is_equal, 10000);
    cake__world_run_for(cluster.world, 15 * SECOND_NS);
    assert_int_equal(cake_store_stats(cluster.members[2].store, &stats), 0);
    assert_int_equal(stats.sessions_finished + stats.sessions_failed, 0);
    assert_int_equal(stats.writes_received, 0);
    cluster_close(&cluster);
}

static void a_lost_disk_is_filled_again(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 5, NULL);
    fill(&cluster, 1, 0, 5000, CAKE_ALL);
    clear(&cluster, 1, 0, 100, CAKE_ALL);
    cluster_crash(&cluster, 2);
    cake_storage_close(cluster.members[2].storage);
    cluster.members[2].storage = NULL;
    cluster_start(&cluster, 2);
    cluster_wait(&cluster, cluster_is_equal, 20000);
    assert_int_equal(live(&cluster, 2), 4900);
    cluster_wait(&cluster, has_no_tombstones, 60000);
    cluster_close(&cluster);
}

/* inventory.md, defect 5: a fresh node that hears broadcasts while it joins in chunks ends with everything. */
static void a_fresh_node_that_hears_writes_while_it_joins_misses_nothing(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 2, 6, NULL);
    fill(&cluster, 1, 0, 20000, CAKE_ALL);
    cluster.count = 3;
    cluster.members[3].host = cake__world_add_host(cluster.world);
    cluster.members[3].data_center = "dc-1";
    cluster_start(&cluster, 3);
    for (int i = 20000; i < 21000; i += 10) {
        fill(&cluster, 1 + i % 2, i, i + 10, CAKE_NONE);
        cake__world_run_for(cluster.world, CAKE_NS_PER_MS);
    }
    cluster_wait(&cluster, cluster_has_joined, 20000);
    cluster_wait(&cluster, cluster_is_equal, 20000);
    for (int i = 1; i <= 3; i++)
        assert_int_equal(live(&cluster, i), 21000);
    cluster_close(&cluster);
}

/* inventory.md, defect 6: writes of both sides of a long partition survive. */
static void writes_on_both_sides_of_a_long_partition_meet(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 7, NULL);
    assert_int_equal(put_text(&cluster, 1, "both", "before", CAKE_ALL), 0);
    cake__world_cut_both(cluster.world, 1, 3, true);
    cake__world_cut_both(cluster.world, 2, 3, true);
    cake__world_run_for(cluster.world, 2 * 3600 * SECOND_NS);
    assert_int_equal(put_text(&cluster, 1, "left", "1", CAKE_QUORUM), 0);
    assert_int_equal(put_text(&cluster, 3, "right", "2", CAKE_NONE), 0);
    assert_int_equal(put_text(&cluster, 1, "both", "left", CAKE_NONE), 0);
    cake__world_run_for(cluster.world, SECOND_NS);
    assert_int_equal(put_text(&cluster, 3, "both", "right", CAKE_NONE), 0);
    cake__world_heal(cluster.world);
    cluster_wait(&cluster, cluster_is_equal, 60000);
    for (int i = 1; i <= 3; i++) {
        assert_text(&cluster, i, "left", "1");
        assert_text(&cluster, i, "right", "2");
        assert_text(&cluster, i, "both", "right");
    }
    cluster_close(&cluster);
}

/* inventory.md, defect 7: a stamp from far ahead is refused everywhere, with an error for its writer, and harms
 * nobody else. */
static void a_node_with_a_clock_far_ahead_harms_nobody(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 8, NULL);
    cake__host_jump_clock(cluster.members[3].host, 24 * 3600 * 1000);
    assert_int_equal(put_text(&cluster, 3, "ahead", "1", CAKE_ALL), CAKE_ECONSISTENCY);
    cake__host_jump_clock(cluster.members[3].host, -24 * 3600 * 1000);
    assert_int_equal(put_text(&cluster, 3, "later", "2", CAKE_NONE), CAKE_EDRIFT);
    assert_int_equal(put_text(&cluster, 1, "other", "3", CAKE_ALL), 0);
    assert_text(&cluster, 2, "other", "3");
    assert_text(&cluster, 3, "other", "3");
    cluster_close(&cluster);
}

/* inventory.md, defect 8: after a restart with the clock behind its own history new writes still win. */
static void a_restart_with_the_clock_behind_still_writes_what_wins(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 9, NULL);
    assert_int_equal(put_text(&cluster, 2, "a", "1", CAKE_ALL), 0);
    cluster_crash(&cluster, 2);
    cake__host_jump_clock(cluster.members[2].host, -20000);
    cluster_start(&cluster, 2);
    assert_int_equal(put_text(&cluster, 2, "a", "2", CAKE_QUORUM), 0);
    cluster_wait(&cluster, cluster_is_equal, 20000);
    for (int i = 1; i <= 3; i++)
        assert_text(&cluster, i, "a", "2");
    cluster_close(&cluster);
}

static void data_of_another_node_is_refused(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cake_store_t *store;
    cluster_open(&cluster, 2, 10, NULL);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), 0);
    cluster_crash(&cluster, 1);
    assert_int_equal(cake_store_close(cluster.members[2].store), 0);
    cluster.members[2].store = NULL;
    cluster.members[2].storage = NULL;
    assert_int_equal(cake_store_open(cluster.members[2].node, cluster.members[1].storage, NULL, &store),
                     CAKE_ECONFLICT);
    assert_null(store);
    cluster_close(&cluster);
}

static void a_forgotten_replica_no_longer_counts_nor_holds_tombstones_up(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 11, NULL);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), 0);
    assert_int_equal(cake_store_forget(cluster.members[1].store, 3), CAKE_EBUSY);
    assert_int_equal(cake_store_forget(cluster.members[1].store, 9), CAKE_ENOTFOUND);
    cluster_crash(&cluster, 3);
    cake__world_run_for(cluster.world, 30 * SECOND_NS);
    assert_int_equal(cake_store_del(cluster.members[1].store, "ks", cake_key_str("a"), CAKE_QUORUM), 0);
    assert_int_equal(put_text(&cluster, 1, "b", "1", CAKE_ALL), CAKE_ENOTENOUGHNODES);
    assert_int_equal(cake_store_forget(cluster.members[1].store, 3), 0);
    cluster_wait(&cluster, has_no_tombstones, 30000);
    assert_int_equal(put_text(&cluster, 1, "b", "1", CAKE_ALL), 0);
    assert_int_equal(put_text(&cluster, 2, "b", "2", CAKE_ALL), 0);
    cluster_start(&cluster, 3);
    cluster_wait(&cluster, cluster_is_equal, 20000);
    assert_text(&cluster, 3, "a", NULL);
    assert_text(&cluster, 3, "b", "2");
    cluster_close(&cluster);
}

static void large_values_travel_in_chunks_that_fit(void **state)
{
    (void)state;
    enum { LARGE = 4 << 20 };
    cluster_t cluster = {0};
    char *value = calloc(1, LARGE);
    cluster_open(&cluster, 2, 12, NULL);
    cluster_crash(&cluster, 2);
    for (int i = 0; i < 24; i++) {
        memset(value, 'a' + i, LARGE);
        assert_int_equal(
            cake_store_put(cluster.members[1].store, "ks", cake_key_u64((uint64_t)i), value, LARGE, CAKE_NONE), 0);
    }
    cluster_start(&cluster, 2);
    cluster_wait(&cluster, cluster_is_equal, 120000);
    assert_int_equal(live(&cluster, 2), 24);
    free(value);
    cluster_close(&cluster);
}

/* inventory.md, defect 16 */
static void two_first_uses_of_a_keyspace_make_one(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 13, NULL);
    for (int i = 1; i <= 3; i++)
        assert_int_equal(put_text(&cluster, i, "key", i == 1 ? "1" : "2", CAKE_NONE), 0);
    cluster_wait(&cluster, cluster_is_equal, 10000);
    for (int i = 1; i <= 3; i++)
        assert_int_equal(cluster.members[i].store->keyspaces.count, 1);
    cluster_close(&cluster);
}

typedef struct {
    int count;
    char log[256];
} seen_t;

static void on_change(void *arg, const cake_change_t *change)
{
    seen_t *seen = arg;
    seen->count++;
    snprintf(seen->log + strlen(seen->log), sizeof seen->log - strlen(seen->log), "%c%.*s=%.*s ",
             change->is_delete ? '-' : '+', (int)change->key.len, (const char *)change->key.data,
             (int)change->value.len, (const char *)change->value.data);
}

static void a_watcher_sees_each_change_once_and_in_order(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    seen_t seen = {0};
    cake_watch_t *watch;
    cluster_open(&cluster, 2, 14, NULL);
    assert_int_equal(cake_store_watch(cluster.members[2].store, "ks", on_change, &seen, &watch), 0);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), 0);
    assert_int_equal(put_text(&cluster, 2, "b", "2", CAKE_ALL), 0);
    assert_int_equal(put_text(&cluster, 1, "a", "3", CAKE_ALL), 0);
    assert_int_equal(cake_store_del(cluster.members[1].store, "ks", cake_key_str("a"), CAKE_ALL), 0);
    assert_int_equal(cake_store_put(cluster.members[1].store, "other", cake_key_str("x"), "", 0, CAKE_ALL), 0);
    assert_string_equal(seen.log, "+a=1 +b=2 +a=3 -a= ");
    cake_watch_stop(watch);
    assert_int_equal(put_text(&cluster, 1, "a", "4", CAKE_ALL), 0);
    assert_int_equal(seen.count, 4);
    cluster_close(&cluster);
}

static void put_if_writes_only_what_it_expects(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cake_result_t failure;
    cake_doc_t *doc;
    cluster_open(&cluster, 2, 16, NULL);
    cake_store_t *store = cluster.members[1].store;
    cake_key_t key = cake_key_str("a");
    assert_int_equal(cake_store_put_if(store, "ks", key, "1", 1, 0, CAKE_ALL), 0);
    assert_int_equal(cake_store_put_if(store, "ks", key, "2", 1, 0, CAKE_ALL), CAKE_ECONFLICT);
    cake_store_last_failure(store, &failure);
    assert_int_equal(cake_store_get(store, "ks", key, &doc), 0);
    assert_true(failure.timestamp == cake_doc_timestamp(doc));
    assert_int_equal(cake_store_put_if(store, "ks", key, "2", 1, cake_doc_timestamp(doc) + 1, CAKE_ALL),
                     CAKE_ECONFLICT);
    assert_text(&cluster, 2, "a", "1");
    assert_int_equal(cake_store_put_if(store, "ks", key, "2", 1, cake_doc_timestamp(doc), CAKE_ALL), 0);
    assert_text(&cluster, 2, "a", "2");
    assert_int_equal(cake_store_del_if(store, "ks", key, cake_doc_timestamp(doc), CAKE_ALL), CAKE_ECONFLICT);
    cake_doc_free(doc);
    assert_int_equal(cake_store_get(store, "ks", key, &doc), 0);
    assert_int_equal(cake_store_del_if(store, "ks", key, cake_doc_timestamp(doc), CAKE_ALL), 0);
    cake_doc_free(doc);
    assert_text(&cluster, 2, "a", NULL);
    assert_int_equal(cake_store_put_if(store, "ks", key, "3", 1, 0, CAKE_ALL), 0);
    cluster_close(&cluster);
}

/* A storage that refuses batches: the caller hears it, nothing was acknowledged, set and storage agree. */
static void a_refused_batch_changes_nothing(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cake_storage_t *inner;
    cake__world_options_t options = {.seed = 15};
    assert_int_equal(cake__world_new(&options, &cluster.world), 0);
    cluster.count = 1;
    cluster.options.size = sizeof cluster.options;
    cluster.members[1].host = cake__world_add_host(cluster.world);
    cluster.members[1].data_center = "dc-1";
    assert_int_equal(cake_memory_open(&inner), 0);
    assert_int_equal(cake_storage_inject(inner, NULL, &cluster.members[1].storage), 0);
    cluster_start(&cluster, 1);
    cluster_wait(&cluster, cluster_has_joined, 20000);
    cake_store_t *store = cluster.members[1].store;
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_NONE), 0);
    uint64_t digest = store->digest;
    const int errors[] = {CAKE_ENOSPC, CAKE_EIO};
    for (size_t i = 0; i < CAKE_COUNT_OF(errors); i++) {
        cake_fault_t fault = {.nth = 1, .err = errors[i]};
        cake_storage_fail(cluster.members[1].storage, &fault);
        assert_int_equal(put_text(&cluster, 1, "a", "2", CAKE_NONE), errors[i]);
        assert_text(&cluster, 1, "a", "1");
        assert_true(store->digest == digest);
    }
    assert_int_equal(put_text(&cluster, 1, "a", "3", CAKE_NONE), 0);
    assert_text(&cluster, 1, "a", "3");
    cluster_close(&cluster);
}

/* ---- restarts -----------------------------------------------------------------------------------------------------*/

static bool is_second_ready(void *arg)
{
    cluster_t *cluster = arg;
    const cake__peer_t *peer = cake__peer_find(cluster->members[1].store, 2);
    return cluster->members[2].store->is_joined && peer != NULL && peer->actor == cluster->members[2].store->actor;
}

static const cake__context_t *context_of(cluster_t *cluster, int id)
{
    const cake__keyspace_t *keyspace = cake__map_get(&cluster->members[id].store->keyspaces, cake__slice_str("ks"));
    assert_non_null(keyspace);
    return cake__keyspace_context(keyspace);
}

static size_t actors_kept(cluster_t *cluster, int id)
{
    const cake__context_t *context = context_of(cluster, id);
    return context->count + (context->retired == NULL ? 0 : context->retired->count);
}

static uint64_t pulse_bytes(cluster_t *cluster, int id)
{
    cake_store_stats_t stats;
    assert_int_equal(cake_store_stats(cluster->members[id].store, &stats), 0);
    return stats.pulse_bytes;
}

/* Each run has an actor of its own; those that have ended are folded (rule 8), and what is stored and told of them
 * with each write stays small. DATACAKE_RESTARTS for another number. */
static void contexts_stay_small_after_many_restarts(void **state)
{
    (void)state;
    const char *asked = getenv("DATACAKE_RESTARTS");
    int restarts = asked == NULL ? 1000 : atoi(asked);
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 120, NULL);
    for (int i = 0; i < restarts; i++) {
        cluster_crash(&cluster, 2);
        cluster_start(&cluster, 2);
        cluster_wait(&cluster, is_second_ready, 20000);
        fill(&cluster, 2, i, i + 1, CAKE_NONE);
        if (i % 20 == 19)
            cake__world_run_for(cluster.world, 12 * SECOND_NS);
    }
    for (int i = 1; i <= 3; i++)
        fill(&cluster, i, 0, 1, CAKE_ALL);
    cake__world_run_for(cluster.world, 30 * SECOND_NS);
    for (int i = 1; i <= 3; i++) {
        const cake__context_t *context = context_of(&cluster, i);
        cake__buf_t buf;
        assert_in_range(context->count, 1, 3 + CAKE__CROWDED_ACTORS);
        assert_int_equal(actors_kept(&cluster, i), restarts + 2);
        cake__buf_init(&buf, cluster.members[i].store->alloc);
        cake__context_encode_known(context, context->retired->hash, &buf);
        assert_in_range(buf.len, 1, 300);
        cake__buf_free(&buf);
    }
    uint64_t before = pulse_bytes(&cluster, 1);
    for (int i = 0; i < 10; i++) {
        fill(&cluster, 1, i, i + 1, CAKE_ALL);
        cake__world_run_for(cluster.world, SECOND_NS);
    }
    assert_in_range((pulse_bytes(&cluster, 1) - before) / 20, 1, 200); /* two peers, ten seconds */

    /* What was folded is stored: all of it comes back, and nothing has to be sent. */
    for (int i = 1; i <= 3; i++)
        cluster_crash(&cluster, i);
    for (int i = 1; i <= 3; i++)
        cluster_start(&cluster, i);
    cluster_wait(&cluster, cluster_has_joined, 30000);
    cluster_wait(&cluster, cluster_is_equal, 30000);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(live(&cluster, i), restarts);
        assert_int_equal(actors_kept(&cluster, i), restarts + 2);
    }
    fill(&cluster, 3, 0, 1, CAKE_ALL);
    cluster_close(&cluster);
}

/* A replica that was away while others were folded comes back and neither loses nor revives anything. */
static void a_node_that_was_away_while_actors_were_folded_comes_back(void **state)
{
    (void)state;
    cluster_t cluster = {.options.forget_after_ms = 60000};
    cluster_open(&cluster, 3, 121, NULL);
    fill(&cluster, 3, 1000, 1100, CAKE_ALL);
    cluster_crash(&cluster, 3);
    for (int i = 0; i < 40; i++) {
        cluster_crash(&cluster, 2);
        cluster_start(&cluster, 2);
        cluster_wait(&cluster, is_second_ready, 20000);
        fill(&cluster, 2, i, i + 1, CAKE_NONE);
    }
    cake__world_run_for(cluster.world, 20 * SECOND_NS);
    assert_true(context_of(&cluster, 1)->count > 40); /* node 3 counts, and has not got them */
    clear(&cluster, 1, 1000, 1050, CAKE_NONE);
    cake__world_run_for(cluster.world, 100 * SECOND_NS);
    assert_in_range(context_of(&cluster, 1)->count, 1, 3 + CAKE__CROWDED_ACTORS);
    cluster_start(&cluster, 3);
    cluster_wait(&cluster, cluster_has_joined, 30000);
    cluster_wait(&cluster, cluster_is_equal, 60000);
    for (int i = 1; i <= 3; i++)
        assert_int_equal(live(&cluster, i), 90);
    cluster_close(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_thousand_deletes_leave_no_tombstone_after_thirty_seconds),
        cmocka_unit_test(a_node_that_missed_deletes_holds_their_tombstones_up_and_revives_nothing),
        cmocka_unit_test(a_node_away_past_forget_after_comes_back_through_repair_and_revives_nothing),
        cmocka_unit_test(a_restart_resends_nothing_that_is_there),
        cmocka_unit_test(a_lost_disk_is_filled_again),
        cmocka_unit_test(a_fresh_node_that_hears_writes_while_it_joins_misses_nothing),
        cmocka_unit_test(writes_on_both_sides_of_a_long_partition_meet),
        cmocka_unit_test(a_node_with_a_clock_far_ahead_harms_nobody),
        cmocka_unit_test(a_restart_with_the_clock_behind_still_writes_what_wins),
        cmocka_unit_test(data_of_another_node_is_refused),
        cmocka_unit_test(a_forgotten_replica_no_longer_counts_nor_holds_tombstones_up),
        cmocka_unit_test(large_values_travel_in_chunks_that_fit),
        cmocka_unit_test(two_first_uses_of_a_keyspace_make_one),
        cmocka_unit_test(a_watcher_sees_each_change_once_and_in_order),
        cmocka_unit_test(put_if_writes_only_what_it_expects),
        cmocka_unit_test(a_refused_batch_changes_nothing),
        cmocka_unit_test(contexts_stay_small_after_many_restarts),
        cmocka_unit_test(a_node_that_was_away_while_actors_were_folded_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
