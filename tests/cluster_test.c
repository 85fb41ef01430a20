/* Three nodes of the real environment in one process, many threads: for what only real threads show (and TSan sees). */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include <datacake/datacake.h>
#include <datacake/sqlite.h>

#define NODES       3
#define THREADS     6
#define WRITES      300
#define DEADLINE_S  120.0
#define PATIENCE_MS 120000

typedef struct {
    cake_node_t *nodes[NODES];
    cake_store_t *stores[NODES];
    char seed[CAKE_ADDR_TEXT_MAX];
    char dir[64];
    bool is_sqlite;
    uint64_t timeout_ms; /* of the stores: 0, or long enough for a write to reach its level on any machine */
} cluster_t;

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void yield_for_1_ms(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void start_node(cluster_t *cluster, int i)
{
    const char *seed = cluster->seed;
    cake_storage_t *storage;
    char path[128];
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    cake_store_options_t options = CAKE_STORE_OPTIONS_INIT;
    options.timeout_ms = cluster->timeout_ms;
    config.node_id = (uint16_t)(i + 1);
    config.listen_addr = "127.0.0.1:0";
    config.seeds = &seed;
    config.seed_count = seed[0] == '\0' ? 0 : 1;
    assert_int_equal(cake_node_start(&config, &cluster->nodes[i]), 0);
    if (seed[0] == '\0')
        strcpy(cluster->seed, cake_node_address(cluster->nodes[i]));
    snprintf(path, sizeof path, "%s/%d", cluster->dir, i);
    assert_int_equal(cluster->is_sqlite ? cake_sqlite_open(path, NULL, &storage) : cake_memory_open(&storage), 0);
    assert_int_equal(cake_store_open(cluster->nodes[i], storage, &options, &cluster->stores[i]), 0);
}

static void stop_node(cluster_t *cluster, int i)
{
    assert_int_equal(cake_store_close(cluster->stores[i]), 0);
    assert_int_equal(cake_node_stop(cluster->nodes[i]), 0);
    cluster->nodes[i] = NULL;
}

static void wait_replicas(cluster_t *cluster)
{
    double end_s = now_s() + DEADLINE_S;
    for (int i = 0; i < NODES; i++) {
        cake_store_stats_t stats = {0};
        while (stats.replicas < NODES || !stats.is_joined) {
            assert_true(now_s() < end_s);
            assert_int_equal(cake_store_stats(cluster->stores[i], &stats), 0);
            yield_for_1_ms();
        }
    }
}

static void wait_equal(cluster_t *cluster)
{
    double end_s = now_s() + DEADLINE_S;
    for (bool is_equal = false; !is_equal; yield_for_1_ms()) {
        cake_store_stats_t first, stats;
        assert_true(now_s() < end_s);
        assert_int_equal(cake_store_stats(cluster->stores[0], &first), 0);
        is_equal = true;
        for (int i = 1; i < NODES; i++) {
            assert_int_equal(cake_store_stats(cluster->stores[i], &stats), 0);
            is_equal = is_equal && stats.live == first.live && stats.fingerprint == first.fingerprint;
        }
    }
}

static void open_cluster(cluster_t *cluster, bool is_sqlite, uint64_t timeout_ms)
{
    memset(cluster, 0, sizeof *cluster);
    cluster->is_sqlite = is_sqlite;
    cluster->timeout_ms = timeout_ms;
    strcpy(cluster->dir, "/tmp/cake-cluster-XXXXXX");
    assert_non_null(mkdtemp(cluster->dir));
    for (int i = 0; i < NODES; i++)
        start_node(cluster, i);
    wait_replicas(cluster);
}

static void close_cluster(cluster_t *cluster)
{
    char command[128];
    for (int i = 0; i < NODES; i++)
        stop_node(cluster, i);
    snprintf(command, sizeof command, "rm -rf %s", cluster->dir);
    assert_int_equal(system(command), 0);
}

typedef struct {
    cake_store_t *store;
    int index, acknowledged;
    unsigned random;
} writer_t;

static void *write_some(void *arg)
{
    static const cake_consistency_t levels[] = {CAKE_NONE, CAKE_ONE, CAKE_QUORUM, CAKE_ALL};
    writer_t *writer = arg;
    for (int n = 0; n < WRITES; n++) {
        char keyspace[16], value[64];
        writer->random = writer->random * 1103515245u + 12345u;
        unsigned draw = writer->random >> 8;
        cake_consistency_t level = levels[draw % 4];
        cake_key_t key = cake_key_u64(draw / 4 % 200);
        snprintf(keyspace, sizeof keyspace, "ks-%u", draw % 3);
        snprintf(value, sizeof value, "%d-%d", writer->index, n);
        int err = draw % 5 == 0 ? cake_store_del(writer->store, keyspace, key, level)
                                : cake_store_put(writer->store, keyspace, key, value, strlen(value), level);
        writer->acknowledged += err == 0;
        cake_doc_t *doc;
        if (cake_store_get(writer->store, keyspace, key, &doc) == 0)
            cake_doc_free(doc);
    }
    return NULL;
}

static int count_doc(void *arg, const cake_doc_t *doc)
{
    *(size_t *)arg += cake_doc_key(doc).len > 0;
    return 0;
}

static void on_change(void *arg, const cake_change_t *change)
{
    *(size_t *)arg += change->key.len > 0;
}

static void check_many_threads(bool is_sqlite)
{
    cluster_t cluster;
    pthread_t threads[THREADS];
    writer_t writers[THREADS];
    size_t changes = 0;
    cake_watch_t *watch;
    open_cluster(&cluster, is_sqlite, PATIENCE_MS);
    assert_int_equal(cake_store_watch(cluster.stores[2], NULL, on_change, &changes, &watch), 0);
    for (int i = 0; i < THREADS; i++) {
        writers[i] = (writer_t){cluster.stores[i % NODES], i, 0, (unsigned)i * 7919u + 1u};
        assert_int_equal(pthread_create(&threads[i], NULL, write_some, &writers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(writers[i].acknowledged, WRITES);
    }
    wait_equal(&cluster);
    cake_watch_stop(watch);
    size_t counts[NODES] = {0};
    for (int i = 0; i < NODES; i++) {
        for (int k = 0; k < 3; k++) {
            char keyspace[16];
            snprintf(keyspace, sizeof keyspace, "ks-%d", k);
            assert_int_equal(cake_store_scan(cluster.stores[i], keyspace, NULL, count_doc, &counts[i]), 0);
        }
        assert_int_equal(counts[i], counts[0]);
    }
    assert_true(changes >= counts[0]);
    close_cluster(&cluster);
}

static void many_threads_write_and_all_nodes_end_equal_in_memory(void **state)
{
    (void)state;
    check_many_threads(false);
}

static void many_threads_write_and_all_nodes_end_equal_on_sqlite(void **state)
{
    (void)state;
    check_many_threads(true);
}

static void a_node_stops_while_others_write_and_is_back_with_all_of_it(void **state)
{
    (void)state;
    cluster_t cluster;
    pthread_t threads[2];
    writer_t writers[2];
    open_cluster(&cluster, true, 0);
    for (int i = 0; i < 2; i++) {
        writers[i] = (writer_t){cluster.stores[i], i, 0, (unsigned)i + 77u};
        assert_int_equal(pthread_create(&threads[i], NULL, write_some, &writers[i]), 0);
    }
    stop_node(&cluster, 2);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    start_node(&cluster, 2);
    wait_replicas(&cluster);
    wait_equal(&cluster);
    close_cluster(&cluster);
}

static void *write_until_closed(void *arg)
{
    writer_t *writer = arg;
    int err = 0;
    for (int n = 0; err == 0; n++)
        err = cake_store_put(writer->store, "ks", cake_key_u64((uint64_t)n), "x", 1, CAKE_ALL);
    writer->acknowledged = err;
    return NULL;
}

typedef struct {
    cake_post_t post;
    cake_store_t *store;
    int err;
    cake_gate_t gate;
    cake_env_t *env;
} loop_call_t;

static void call_on_loop(void *arg)
{
    loop_call_t *call = arg;
    call->err = cake_store_put(call->store, "ks", cake_key_u64(1), "x", 1, CAKE_NONE);
    call->env->ops->gate_open(call->env, &call->gate);
}

static void a_blocking_call_on_the_loop_is_refused(void **state)
{
    (void)state;
    cluster_t cluster;
    open_cluster(&cluster, false, 0);
    loop_call_t call = {.store = cluster.stores[0], .env = cake_node_env(cluster.nodes[0])};
    call.post = (cake_post_t){.fn = call_on_loop, .arg = &call};
    call.env->ops->gate_init(call.env, &call.gate);
    call.env->ops->post(call.env, &call.post);
    call.env->ops->gate_wait(call.env, &call.gate);
    call.env->ops->gate_destroy(call.env, &call.gate);
    assert_int_equal(call.err, CAKE_EDEADLK);
    close_cluster(&cluster);
}

/* The calls under way end first; a peer that stops meanwhile ends them with an error and not with silence. */
static void puts_under_way_end_when_a_peer_stops(void **state)
{
    (void)state;
    cluster_t cluster;
    pthread_t thread;
    writer_t writer;
    open_cluster(&cluster, false, 0);
    writer = (writer_t){cluster.stores[0], 0, 0, 1};
    assert_int_equal(pthread_create(&thread, NULL, write_until_closed, &writer), 0);
    stop_node(&cluster, 2);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(writer.acknowledged == CAKE_ECONSISTENCY || writer.acknowledged == CAKE_ENOTENOUGHNODES);
    start_node(&cluster, 2);
    close_cluster(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_threads_write_and_all_nodes_end_equal_in_memory),
        cmocka_unit_test(many_threads_write_and_all_nodes_end_equal_on_sqlite),
        cmocka_unit_test(a_node_stops_while_others_write_and_is_back_with_all_of_it),
        cmocka_unit_test(a_blocking_call_on_the_loop_is_refused),
        cmocka_unit_test(puts_under_way_end_when_a_peer_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
