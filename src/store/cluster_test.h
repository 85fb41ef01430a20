/* A simulated cluster for the store's tests: hosts with a node and a store each, on storages in memory that outlive
 * their host, so that a crash followed by a start is a restart from disk. */
#ifndef CAKE_STORE_CLUSTER_TEST_H
#define CAKE_STORE_CLUSTER_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "sim/env/simenv.h"
#include "store/store.h"

#define CLUSTER_MAX  7
#define CLUSTER_PORT 7000
#define SECOND_NS    (UINT64_C(1000) * CAKE_NS_PER_MS)

typedef struct member {
    cake__host_t *host;
    cake_node_t *node;
    cake_store_t *store;
    cake_storage_t *storage; /* closed by its store; NULL after a graceful stop */
    const char *data_center;
} member_t;

typedef struct cluster {
    cake__world_t *world;
    member_t members[CLUSTER_MAX + 1]; /* by node id; [0] is unused */
    int count;
    cake_store_options_t options;
} cluster_t;

/* A storage that refuses batches with documents while it is told to. */
typedef struct refusing {
    cake_storage_ops_t ops; /* first: how it is found again */
    const cake_storage_ops_t *inner;
    int err; /* 0: it takes them */
} refusing_t;

static inline int write_or_refuse(cake_storage_t *storage, const cake_batch_t *batch)
{
    const refusing_t *refusing = (const refusing_t *)(uintptr_t)storage->ops;
    return refusing->err != 0 && batch->write_count > 0 ? refusing->err : refusing->inner->write(storage, batch);
}

static inline void refuse_documents(cake_storage_t *storage, refusing_t *refusing, int err)
{
    *refusing = (refusing_t){.ops = *storage->ops, .inner = storage->ops, .err = err};
    refusing->ops.write = write_or_refuse;
    storage->ops = &refusing->ops;
}

static inline void cluster_start(cluster_t *cluster, int id)
{
    member_t *member = &cluster->members[id];
    char listen[32], seed_text[2][32];
    const char *seeds[2] = {seed_text[0], seed_text[1]};
    cake_env_t *env = cake__host_env(member->host);
    if (env == NULL)
        env = cake__host_start(member->host);
    snprintf(listen, sizeof listen, "10.0.0.%d:%d", id, CLUSTER_PORT);
    snprintf(seed_text[0], sizeof seed_text[0], "10.0.0.1:%d", CLUSTER_PORT);
    snprintf(seed_text[1], sizeof seed_text[1], "10.0.0.2:%d", CLUSTER_PORT);
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    config.env = env;
    config.node_id = (uint16_t)id;
    config.listen_addr = listen;
    config.data_center = member->data_center;
    config.seeds = seeds;
    config.seed_count = id == 1 && member->storage == NULL ? 0 : 2;
    assert_int_equal(cake_node_start(&config, &member->node), 0);
    if (member->storage == NULL)
        assert_int_equal(cake_memory_open(&member->storage), 0);
    assert_int_equal(cake_store_open(member->node, member->storage, &cluster->options, &member->store), 0);
}

/* The process dies; its storage stays. */
static inline void cluster_crash(cluster_t *cluster, int id)
{
    cake__host_crash(cluster->members[id].host, CAKE__CRASH_RESET);
    cluster->members[id].node = NULL;
    cluster->members[id].store = NULL;
}

static inline bool cluster_has_joined(void *arg)
{
    cluster_t *cluster = arg;
    for (int i = 1; i <= cluster->count; i++) {
        cake_store_t *store = cluster->members[i].store;
        int replicas = 1;
        if (store == NULL)
            continue;
        CAKE_LIST_FOR_EACH(link, &store->peers)
        replicas += CAKE_CONTAINER_OF(link, cake__peer_t, link)->is_replica;
        if (!store->is_joined || replicas < cluster->count)
            return false;
    }
    return true;
}

/* Each node takes writes at levels: it is part of the cluster, and not alone. */
static inline bool cluster_takes_levels(void *arg)
{
    cluster_t *cluster = arg;
    for (int i = 1; i <= cluster->count; i++) {
        const cake_store_t *store = cluster->members[i].store;
        if (store != NULL && (!store->is_joined || store->is_alone))
            return false;
    }
    return true;
}

static inline bool cluster_is_equal(void *arg)
{
    cluster_t *cluster = arg;
    cake_store_t *first = NULL;
    for (int i = 1; i <= cluster->count; i++) {
        cake_store_t *store = cluster->members[i].store;
        if (store == NULL)
            continue;
        if (first != NULL && (store->digest != first->digest || !cake__lanes_are_idle(store)))
            return false;
        first = store;
    }
    return true;
}

static inline void cluster_wait(cluster_t *cluster, bool (*done)(void *arg), uint64_t timeout_ms)
{
    uint64_t until_ns = cake__world_now_ns(cluster->world) + timeout_ms * CAKE_NS_PER_MS;
    assert_true(cake__world_run_until(cluster->world, done, cluster, until_ns));
}

/* One more, which is not started yet. */
static inline void cluster_add(cluster_t *cluster)
{
    member_t *member = &cluster->members[++cluster->count];
    member->host = cake__world_add_host(cluster->world);
    member->data_center = "dc-1";
}

/* data_centers: one name per node, or NULL */
static inline void cluster_open(cluster_t *cluster, int count, uint64_t seed, const char *const *data_centers)
{
    cake__world_options_t options = {.seed = seed};
    assert_in_range(count, 1, CLUSTER_MAX);
    cluster->count = count;
    cluster->options.size = sizeof cluster->options;
    assert_int_equal(cake__world_new(&options, &cluster->world), 0);
    for (int i = 1; i <= count; i++) {
        cluster->members[i].host = cake__world_add_host(cluster->world);
        cluster->members[i].data_center = data_centers == NULL ? "dc-1" : data_centers[i - 1];
    }
    for (int i = 1; i <= count; i++)
        cluster_start(cluster, i);
    cluster_wait(cluster, cluster_has_joined, 20000);
}

static inline void cluster_stop(cluster_t *cluster, int id)
{
    member_t *member = &cluster->members[id];
    cake__heap_stats_t heap;
    assert_int_equal(cake_node_stop(member->node), 0);
    member->node = NULL;
    member->store = NULL;
    member->storage = NULL;
    cake__host_heap_stats(member->host, &heap);
    assert_int_equal(heap.live_blocks, 0);
}

/* Stops every node: nothing of it may be left on its heap. */
static inline void cluster_close(cluster_t *cluster)
{
    for (int i = 1; i <= cluster->count; i++) {
        if (cluster->members[i].node != NULL)
            cluster_stop(cluster, i);
        else if (cluster->members[i].storage != NULL)
            cake_storage_close(cluster->members[i].storage);
    }
    cake__world_free(cluster->world);
}

static inline int put_text(cluster_t *cluster, int id, const char *key, const char *value, cake_consistency_t level)
{
    return cake_store_put(cluster->members[id].store, "ks", cake_key_str(key), value, strlen(value), level);
}

/* The node's own copy: 0 when it is `value` (NULL: when there is none). */
static inline void assert_text(cluster_t *cluster, int id, const char *key, const char *value)
{
    cake_doc_t *doc = NULL;
    int err = cake_store_get(cluster->members[id].store, "ks", cake_key_str(key), &doc);
    if (value == NULL) {
        assert_int_equal(err, CAKE_ENOTFOUND);
        return;
    }
    assert_int_equal(err, 0);
    assert_true(cake__slice_equal(cake_doc_value(doc), cake__slice_str(value)));
    cake_doc_free(doc);
}

#endif
