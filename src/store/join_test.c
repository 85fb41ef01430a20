/* Promises of joining: what a node that has met nobody may say, waiting for others, and sessions whose receiver is
 * gone. */
#include "store/cluster_test.h"

static void cut_off(cluster_t *cluster, uint32_t id)
{
    for (uint32_t other = 1; other <= (uint32_t)cluster->count; other++) {
        if (other != id)
            cake__world_cut_both(cluster->world, id, other, true);
    }
}

static bool has_last_joined(void *arg)
{
    cluster_t *cluster = arg;
    return cluster->members[cluster->count].store->is_joined;
}

/* It declares itself joined, for a whole cluster that starts cold, but a quorum of itself alone would be a lie: the
 * others may have other quorums meanwhile. A restart changes nothing; the first replica it meets does. */
static void a_node_cut_off_at_birth_acknowledges_no_level_alone(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 2, 81, NULL);
    cluster_add(&cluster);
    cut_off(&cluster, 3);
    for (int run = 0; run < 2; run++) {
        cluster_start(&cluster, 3);
        cluster_wait(&cluster, has_last_joined, 30000);
        static const cake_consistency_t levels[] = {CAKE_ONE, CAKE_QUORUM, CAKE_LOCAL_QUORUM, CAKE_EACH_QUORUM,
                                                    CAKE_ALL};
        for (size_t i = 0; i < CAKE_COUNT_OF(levels); i++)
            assert_int_equal(put_text(&cluster, 3, "refused", "1", levels[i]), CAKE_ENOTENOUGHNODES);
        cake_doc_t *doc;
        assert_int_equal(cake_store_get_at(cluster.members[3].store, "ks", cake_key_str("a"), CAKE_QUORUM, &doc),
                         CAKE_ENOTENOUGHNODES);
        assert_int_equal(put_text(&cluster, 3, run == 0 ? "first" : "second", "1", CAKE_NONE), 0);
        if (run == 0)
            cluster_crash(&cluster, 3);
    }
    cake__world_heal(cluster.world);
    cluster_wait(&cluster, cluster_has_joined, 60000);
    cluster_wait(&cluster, cluster_is_equal, 60000);
    assert_int_equal(put_text(&cluster, 3, "a", "1", CAKE_ALL), 0);
    assert_text(&cluster, 1, "a", "1");
    assert_text(&cluster, 1, "first", "1");
    assert_text(&cluster, 2, "second", "1");
    assert_text(&cluster, 1, "refused", NULL);
    cluster_close(&cluster);
}

static void a_node_without_seeds_is_a_cluster_of_one(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 1, 82, NULL);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), 0);
    assert_int_equal(put_text(&cluster, 1, "a", "2", CAKE_QUORUM), 0);
    cluster_close(&cluster);
}

/* ---- a cluster that is all new ------------------------------------------------------------------------------------*/

/* All of them new, all with seeds 1 and 2; they are not started yet. */
static void make_new(cluster_t *cluster, int count, uint64_t seed)
{
    cake__world_options_t options = {.seed = seed};
    *cluster = (cluster_t){.options.size = sizeof(cake_store_options_t)};
    assert_int_equal(cake__world_new(&options, &cluster->world), 0);
    for (int i = 1; i <= count; i++) {
        cluster_add(cluster);
        assert_int_equal(cake_memory_open(&cluster->members[i].storage), 0); /* so that node 1 has seeds, too */
    }
}

static bool has_anybody_joined(void *arg)
{
    cluster_t *cluster = arg;
    for (int i = 1; i <= cluster->count; i++) {
        if (cluster->members[i].store != NULL && cluster->members[i].store->is_joined)
            return true;
    }
    return false;
}

/* They meet, see that nobody is missing and nobody has anything, and one of them begins: no time-out has to pass. */
static void a_cluster_that_starts_cold_takes_writes_at_every_level_at_once(void **state)
{
    (void)state;
    cluster_t cluster;
    make_new(&cluster, 5, 83);
    for (int i = 5; i >= 1; i--)
        cluster_start(&cluster, i);
    cluster_wait(&cluster, cluster_has_joined, 4000);
    for (int i = 1; i <= 5; i++) {
        assert_false(cluster.members[i].store->is_alone);
        assert_int_equal(put_text(&cluster, i, "a", "1", CAKE_QUORUM), 0);
        assert_int_equal(put_text(&cluster, i, "a", "2", CAKE_ALL), 0);
    }
    cluster_close(&cluster);
}

/* Who is not there may be an old replica: nobody begins without it before the time-out. */
static void new_nodes_wait_for_a_seed_that_is_down(void **state)
{
    (void)state;
    cluster_t cluster;
    make_new(&cluster, 3, 84);
    cluster_start(&cluster, 1);
    cluster_start(&cluster, 3);
    uint64_t until_ns = cake__world_now_ns(cluster.world) + 9 * SECOND_NS;
    assert_false(cake__world_run_until(cluster.world, has_anybody_joined, &cluster, until_ns));
    cluster_start(&cluster, 2);
    cluster_wait(&cluster, cluster_has_joined, 4000);
    cluster_close(&cluster);
}

/* It is there for one of them only. */
static void new_nodes_wait_for_a_seed_that_not_all_of_them_see(void **state)
{
    (void)state;
    cluster_t cluster;
    make_new(&cluster, 3, 85);
    cut_off(&cluster, 2);
    for (int i = 1; i <= 3; i++)
        cluster_start(&cluster, i);
    uint64_t until_ns = cake__world_now_ns(cluster.world) + 9 * SECOND_NS;
    assert_false(cake__world_run_until(cluster.world, has_anybody_joined, &cluster, until_ns));
    cluster_wait(&cluster, has_anybody_joined, 3000);
    cake__world_heal(cluster.world);
    cluster_wait(&cluster, cluster_takes_levels, 30000);
    cluster_wait(&cluster, cluster_has_joined, 30000);
    assert_int_equal(put_text(&cluster, 2, "a", "1", CAKE_ALL), 0);
    cluster_close(&cluster);
}

/* Both seeds lose their disks at once. A third, which is no seed, has everything. */
static void seeds_with_new_disks_join_who_is_left(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    char key[16];
    cluster_open(&cluster, 3, 86, NULL);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(put_text(&cluster, 1, key, "v", CAKE_ALL), 0);
    }
    for (int i = 1; i <= 2; i++) {
        cluster_crash(&cluster, i);
        cake_storage_close(cluster.members[i].storage);
        assert_int_equal(cake_memory_open(&cluster.members[i].storage), 0);
    }
    for (int i = 1; i <= 2; i++)
        cluster_start(&cluster, i);
    for (int i = 1; i <= 2; i++) {
        static const uint16_t all[] = {1, 2, 3};
        assert_int_equal(cake_store_wait_for(cluster.members[i].store, all, 3, 30000), 0);
        assert_text(&cluster, i, "k0", "v");
        assert_text(&cluster, i, "k99", "v");
    }
    cluster_close(&cluster);
}

static bool knows_two_is_dead(void *arg)
{
    cluster_t *cluster = arg;
    return cake__peer_find(cluster->members[1].store, 2)->status == CAKE_DEAD;
}

static void a_node_whose_others_were_forgotten_works_alone(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 2, 84, NULL);
    cluster_crash(&cluster, 2);
    cluster_wait(&cluster, knows_two_is_dead, 60000);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), CAKE_ENOTENOUGHNODES);
    assert_int_equal(cake_store_forget(cluster.members[1].store, 2), 0);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), 0);
    cake__world_run_for(cluster.world, SECOND_NS);
    cluster_crash(&cluster, 1);
    cluster_start(&cluster, 1);
    cake__world_run_for(cluster.world, 30 * SECOND_NS);
    assert_int_equal(put_text(&cluster, 1, "a", "2", CAKE_ALL), 0);
    cluster_close(&cluster);
}

/* ---- waiting ------------------------------------------------------------------------------------------------------*/

static void waiting_ends_when_the_others_are_met_and_what_they_had_is_here(void **state)
{
    (void)state;
    static const uint16_t all[] = {1, 2, 3};
    cluster_t cluster = {0};
    char key[16];
    cluster_open(&cluster, 2, 85, NULL);
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(put_text(&cluster, 1 + i % 2, key, "v", CAKE_NONE), 0);
    }
    cluster_add(&cluster);
    cluster_start(&cluster, 3);
    assert_int_equal(cake_store_wait_for(cluster.members[3].store, all, 3, 30000), 0);
    assert_text(&cluster, 3, "k0", "v");
    assert_text(&cluster, 3, "k499", "v");
    assert_int_equal(put_text(&cluster, 3, "a", "1", CAKE_ALL), 0);
    for (int i = 1; i <= 3; i++) {
        assert_text(&cluster, i, "a", "1");
        assert_int_equal(cake_store_wait_for(cluster.members[i].store, NULL, 0, 30000), 0);
    }
    cluster_close(&cluster);
}

static void waiting_for_one_who_is_not_there_ends_with_a_time_out(void **state)
{
    (void)state;
    static const uint16_t ids[] = {2, 9};
    cluster_t cluster = {0};
    cluster_open(&cluster, 2, 86, NULL);
    uint64_t begin_ns = cake__world_now_ns(cluster.world);
    assert_int_equal(cake_store_wait_for(cluster.members[1].store, ids, 2, 1500), CAKE_ETIMEDOUT);
    assert_in_range((cake__world_now_ns(cluster.world) - begin_ns) / CAKE_NS_PER_MS, 1500, 1600);
    assert_int_equal(cake_store_wait_for(cluster.members[1].store, ids, 1, UINT64_MAX), 0);
    assert_int_equal(cake_store_wait_for(cluster.members[1].store, NULL, 1, 1), CAKE_EINVAL);
    cluster_close(&cluster);
}

static bool has_met_but_lacks(void *arg)
{
    cake_store_t *store = ((cluster_t *)arg)->members[1].store;
    const cake__peer_t *peer = cake__peer_find(store, 2);
    return peer != NULL && peer->is_compared && cake__has_wants(store, 2);
}

/* Once it is dead nobody pulls from it any more: that it is not asked for anything does not mean that all is here. */
static void waiting_for_one_who_dies_before_all_is_here_ends_with_a_time_out(void **state)
{
    (void)state;
    static const uint16_t ids[] = {2};
    cluster_t cluster = {0};
    cluster_open(&cluster, 2, 87, NULL);
    cluster_crash(&cluster, 1);
    assert_int_equal(put_text(&cluster, 2, "a", "1", CAKE_NONE), 0);
    cluster_start(&cluster, 1);
    cluster_wait(&cluster, has_met_but_lacks, 20000);
    cluster_crash(&cluster, 2);
    assert_int_equal(cake_store_wait_for(cluster.members[1].store, ids, 1, 20000), CAKE_ETIMEDOUT);
    cluster_start(&cluster, 2);
    assert_int_equal(cake_store_wait_for(cluster.members[1].store, ids, 1, 20000), 0);
    assert_text(&cluster, 1, "a", "1");
    cluster_close(&cluster);
}

/* Or it would be asked for again and again, for ever. */
static void what_went_with_a_disk_is_not_asked_for_any_more(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 2, 88, NULL);
    cluster_crash(&cluster, 1);
    assert_int_equal(put_text(&cluster, 2, "a", "1", CAKE_NONE), 0);
    cluster_start(&cluster, 1);
    cluster_wait(&cluster, has_met_but_lacks, 20000);
    cluster_crash(&cluster, 2);
    cake_storage_close(cluster.members[2].storage);
    cluster.members[2].storage = NULL;
    cluster_start(&cluster, 2);
    cluster_wait(&cluster, cluster_takes_levels, 30000);
    assert_int_equal(put_text(&cluster, 2, "b", "2", CAKE_ALL), 0);
    assert_int_equal(cake_store_sync(cluster.members[1].store), 0);
    assert_true(cake__list_is_empty(&cluster.members[1].store->wanting));
    cluster_close(&cluster);
}

/* ---- sessions whose receiver is gone ------------------------------------------------------------------------------*/

static uint32_t serving_count(cluster_t *cluster, int id)
{
    const cake__keyspace_t *keyspace = cake__map_get(&cluster->members[id].store->keyspaces, cake__slice_str("ks"));
    return keyspace == NULL ? 0 : keyspace->serving_count;
}

static bool is_somebody_serving(void *arg)
{
    cluster_t *cluster = arg;
    return serving_count(cluster, 1) + serving_count(cluster, 2) > 0;
}

static bool is_nobody_serving(void *arg)
{
    return !is_somebody_serving(arg);
}

/* The receiver dies in the middle. Its new run ends what the old one had asked for: purges wait for neither. */
static void a_session_ends_when_its_receiver_runs_anew(void **state)
{
    (void)state;
    cluster_t cluster = {.options.chunk_records = 1};
    char key[16];
    cluster_open(&cluster, 3, 87, NULL);
    cluster_crash(&cluster, 3);
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(put_text(&cluster, 1, key, "v", CAKE_NONE), 0);
    }
    cluster_start(&cluster, 3);
    cluster_wait(&cluster, is_somebody_serving, 30000);
    cluster_crash(&cluster, 3);
    cake__world_run_for(cluster.world, SECOND_NS);
    assert_true(is_somebody_serving(&cluster));
    cluster_start(&cluster, 3);
    cluster_wait(&cluster, cluster_is_equal, 9000);
    cluster_wait(&cluster, is_nobody_serving, 1000);
    cluster_close(&cluster);
}

/* Nobody comes back: it is given up after ten seconds or so. */
static void a_session_that_nobody_asks_for_any_more_is_given_up(void **state)
{
    (void)state;
    cluster_t cluster = {.options.chunk_records = 1};
    char key[16];
    cluster_open(&cluster, 3, 88, NULL);
    cluster_crash(&cluster, 3);
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(put_text(&cluster, 1, key, "v", CAKE_NONE), 0);
    }
    cluster_start(&cluster, 3);
    cluster_wait(&cluster, is_somebody_serving, 30000);
    cluster_crash(&cluster, 3);
    cluster_wait(&cluster, is_nobody_serving, 13000);
    cluster_close(&cluster);
}

/* ---- a node id used twice -----------------------------------------------------------------------------------------*/

static bool is_told_of_duplicate(void *arg)
{
    cluster_t *cluster = arg;
    cake_node_stats_t stats;
    assert_int_equal(cake_node_stats(cluster->members[4].node, &stats), 0);
    return stats.is_duplicate;
}

/* Another machine comes up with node 2's id, as from a copied data directory or a copied configuration: the one that
 * was there goes on, the later one learns of it and acknowledges nothing beyond itself. (inventory.md, defect 20) */
static void a_node_id_used_again_while_its_owner_lives_harms_nobody(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 89, NULL);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), 0);
    uint64_t actor = cluster.members[2].store->actor;

    const char *seeds[] = {"10.0.0.1:7000", "10.0.0.2:7000"};
    member_t *second = &cluster.members[4];
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    second->host = cake__world_add_host(cluster.world);
    config.env = cake__host_env(second->host);
    config.node_id = 2;
    config.listen_addr = "10.0.0.4:7000";
    config.data_center = "dc-1";
    config.seeds = seeds;
    config.seed_count = 2;
    assert_int_equal(cake_node_start(&config, &second->node), 0);
    assert_int_equal(cake_memory_open(&second->storage), 0);
    assert_int_equal(cake_store_open(second->node, second->storage, &cluster.options, &second->store), 0);
    cluster_wait(&cluster, is_told_of_duplicate, 30000);
    cake__world_run_for(cluster.world, 20 * SECOND_NS);

    assert_int_not_equal(put_text(&cluster, 4, "b", "2", CAKE_QUORUM), 0);
    for (int i = 1; i <= 3; i++) {
        char key[] = {'c', (char)('0' + i), 0};
        assert_int_equal(put_text(&cluster, i, key, "3", CAKE_ALL), 0);
        assert_text(&cluster, 2, key, "3");
        assert_text(&cluster, i, "b", NULL);
    }
    assert_int_equal(cake__peer_find(cluster.members[1].store, 2)->actor, actor);
    assert_int_equal(cake__peer_find(cluster.members[3].store, 2)->actor, actor);
    assert_int_equal(cake_node_stop(second->node), 0);
    cluster_close(&cluster);
}

/* As store `to` reads what store `from` says, after something was written over it. */
static int read_hail(cake_store_t *to, cake_store_t *from, size_t at, uint64_t value, size_t len)
{
    cake__buf_t buf;
    cake__hail_t hail;
    cake__buf_init(&buf, from->alloc);
    cake__put_hail(from, &buf);
    assert_in_range(at + len, 0, buf.len);
    cake__store_le(buf.data + at, value, len);
    cake__reader_t reader = cake__reader(buf.data, buf.len);
    int err = cake__get_hail(to, &reader, &hail);
    cake__buf_free(&buf);
    return err;
}

static void what_another_process_says_under_a_known_id_is_not_heard(void **state)
{
    (void)state;
    enum { VERSION_AT, NODE_ID_AT, RUN_AT = 3 };
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 80, NULL);
    cake_store_t *one = cluster.members[1].store, *two = cluster.members[2].store;
    assert_int_equal(read_hail(one, two, 0, 0, 0), 0);
    assert_int_equal(read_hail(one, two, RUN_AT, cake__node_run(two->node) + 2, 4), CAKE_EBUSY);
    assert_int_equal(read_hail(one, two, NODE_ID_AT, 3, 2), CAKE_EBUSY); /* another that is known */
    assert_int_equal(read_hail(one, two, NODE_ID_AT, 9, 2), CAKE_EBUSY); /* one that is not */
    assert_int_equal(read_hail(one, two, NODE_ID_AT, 1, 2), CAKE_EPARSE);
    assert_int_equal(one->foreign_told_ns, 0);
    assert_int_equal(read_hail(one, two, VERSION_AT, 0, 1), CAKE_EVERSION);
    assert_true(one->foreign_told_ns > 0); /* the log has it */
    cluster_close(&cluster);
}

/* ---- a copied data directory --------------------------------------------------------------------------------------*/

typedef struct {
    cake_storage_t *from, *to;
    const char *keyspace;
} copying_t;

static int copy_fetched(void *arg, const cake_row_t *row)
{
    copying_t *copying = arg;
    const cake_write_t write = {.kind = row->is_tombstone ? CAKE_WRITE_TOMBSTONE : CAKE_WRITE_PUT,
                                .keyspace = cake__slice_str(copying->keyspace),
                                .key = row->key,
                                .value = row->value,
                                .id = row->id,
                                .hlc = row->hlc,
                                .dot = row->dot};
    const cake_batch_t batch = {.writes = &write, .write_count = 1};
    return copying->to->ops->write(copying->to, &batch);
}

static int copy_row(void *arg, const cake_row_t *row)
{
    copying_t *copying = arg;
    return copying->from->ops->fetch(copying->from, cake__slice_str(copying->keyspace), &row->id, 1, copy_fetched,
                                     copying);
}

static int copy_meta(void *arg, cake_slice_t name, cake_slice_t value)
{
    copying_t *copying = arg;
    const cake_meta_write_t meta = {name, value};
    const cake_batch_t batch = {.metas = &meta, .meta_count = 1};
    return copying->to->ops->write(copying->to, &batch);
}

/* Of one lane and the keyspace "ks". */
static cake_storage_t *copy_storage(cake_storage_t *from)
{
    copying_t copying = {.from = from, .keyspace = "ks"};
    assert_int_equal(cake_memory_open(&copying.to), 0);
    assert_int_equal(from->ops->lanes(from), 1);
    assert_int_equal(from->ops->metadata(from, cake__slice_str("ks"), copy_row, &copying), 0);
    assert_int_equal(from->ops->metas(from, 0, cake__slice("", 0), copy_meta, &copying), 0);
    return copying.to;
}

static bool is_second_told(void *arg)
{
    cluster_t *cluster = arg;
    for (int i = 1; i <= 3; i += 2) /* at every step: nobody has ever taken the second process for node 2 */
        assert_int_equal(cake__peer_find(cluster->members[i].store, 2)->actor, cluster->members[2].store->actor);
    return cluster->members[4].node->is_duplicate;
}

/* Node 2's directory, with its clock, registry and contexts, is started on another machine while node 2 runs: it is
 * refused, and neither its copies nor what it says it has count as those of node 2, before and after. (inventory.md,
 * defect 20) */
static void a_copied_data_directory_started_twice_counts_once(void **state)
{
    (void)state;
    for (uint64_t seed = 90; seed < 100; seed++) {
        cluster_t cluster = {0};
        cluster_open(&cluster, 3, seed, NULL);
        assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), 0);

        const char *seeds[] = {"10.0.0.1:7000", "10.0.0.3:7000"};
        member_t *second = &cluster.members[4];
        cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
        second->host = cake__world_add_host(cluster.world);
        second->storage = copy_storage(cluster.members[2].storage);
        config.env = cake__host_env(second->host);
        config.node_id = 2;
        config.listen_addr = "10.0.0.4:7000";
        config.data_center = "dc-1";
        config.seeds = seeds;
        config.seed_count = 2;
        config.generation = cluster.members[2].node->generation; /* it is in the directory, too */
        assert_int_equal(cake_node_start(&config, &second->node), 0);
        assert_int_equal(cake_store_open(second->node, second->storage, &cluster.options, &second->store), 0);
        assert_int_not_equal(put_text(&cluster, 4, "b", "2", CAKE_QUORUM), 0);
        cluster_wait(&cluster, is_second_told, 30000);

        assert_int_equal(put_text(&cluster, 4, "b", "2", CAKE_NONE), CAKE_EDUPLICATE);
        assert_int_equal(read_hail(second->store, cluster.members[1].store, 0, 0, 0), CAKE_EDUPLICATE);
        for (int i = 1; i <= 3; i++) {
            char key[] = {'c', (char)('0' + i), 0};
            assert_int_equal(put_text(&cluster, i, key, "3", CAKE_ALL), 0);
            assert_text(&cluster, 2, key, "3");
            assert_text(&cluster, 4, key, NULL);
            assert_text(&cluster, i, "b", NULL);
        }
        assert_int_equal(cake_node_stop(second->node), 0);
        cluster_close(&cluster);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_cut_off_at_birth_acknowledges_no_level_alone),
        cmocka_unit_test(a_node_without_seeds_is_a_cluster_of_one),
        cmocka_unit_test(a_cluster_that_starts_cold_takes_writes_at_every_level_at_once),
        cmocka_unit_test(new_nodes_wait_for_a_seed_that_is_down),
        cmocka_unit_test(new_nodes_wait_for_a_seed_that_not_all_of_them_see),
        cmocka_unit_test(seeds_with_new_disks_join_who_is_left),
        cmocka_unit_test(a_node_whose_others_were_forgotten_works_alone),
        cmocka_unit_test(waiting_ends_when_the_others_are_met_and_what_they_had_is_here),
        cmocka_unit_test(waiting_for_one_who_is_not_there_ends_with_a_time_out),
        cmocka_unit_test(waiting_for_one_who_dies_before_all_is_here_ends_with_a_time_out),
        cmocka_unit_test(what_went_with_a_disk_is_not_asked_for_any_more),
        cmocka_unit_test(a_session_ends_when_its_receiver_runs_anew),
        cmocka_unit_test(a_session_that_nobody_asks_for_any_more_is_given_up),
        cmocka_unit_test(a_node_id_used_again_while_its_owner_lives_harms_nobody),
        cmocka_unit_test(what_another_process_says_under_a_known_id_is_not_heard),
        cmocka_unit_test(a_copied_data_directory_started_twice_counts_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
