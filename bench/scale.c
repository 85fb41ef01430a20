/* What things cost as they grow: memory and time per keyspace, per document, and per node. One process, loopback or
 * none.
 *
 *   bench-scale [documents (1000000)] [keyspaces (100000)] [nodes (7)] [part ...]
 *       parts: empty, keyspaces, documents, nodes, simulated; without any: all of them
 *
 *   empty       keyspaces that were asked for and hold nothing, on one node; a row after each tenfold; then how long
 *               one put takes among them
 *   keyspaces   of one small document each, likewise; and how long the node needs to open them again
 *   documents   of 100 bytes in one keyspace, likewise
 *   nodes       in this process, each with a store, all idle and equal: memory, the time until all count all, CPU of an
 *               idle node; then the latency of a put at level all, and what each node spends on it
 *   simulated   5, 10 and 20 nodes in the simulator, without faults: a minute of 500 writes at all levels, its checkers
 *               included
 * Times "CPU" are those of all threads together, so that other load on the machine counts little. Memory is the
 * growth of this process, so it has what the allocator wastes in it; storage in memory, the documents included. */
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <datacake/datacake.h>
#include <datacake/sim.h>
#include <datacake/uv.h>

#include "bench.h"

#define VALUE_BYTES 100
#define MANY        1000
#define NODES_MAX   64
#define PATIENCE_S  120

/* Resident, once what is free was given back. */
static double memory_bytes(void)
{
    unsigned long pages = 0;
    malloc_trim(0);
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%*u %lu", &pages) != 1)
        check(CAKE_EIO, "/proc/self/statm");
    fclose(file);
    return (double)pages * 4096;
}

/* ---- one node -----------------------------------------------------------------------------------------------------*/

static cake_storage_ops_t kept_ops;
static const cake_storage_ops_t *memory_ops;

static void keep(cake_storage_t *storage)
{
    (void)storage;
}

static cake_storage_t *open_kept(void)
{
    cake_storage_t *storage;
    check(cake_memory_open(&storage), "memory");
    memory_ops = storage->ops;
    kept_ops = *storage->ops;
    kept_ops.close = keep;
    storage->ops = &kept_ops;
    return storage;
}

static void drop_kept(cake_storage_t *storage)
{
    storage->ops = memory_ops;
    cake_storage_close(storage);
}

static void start(int index, const char *seed, cake_storage_t *storage, cake_node_t **node, cake_store_t **store)
{
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    config.node_id = (uint16_t)(index + 1);
    config.listen_addr = "127.0.0.1:0";
    config.seeds = &seed;
    config.seed_count = seed != NULL;
    check(cake_node_start(&config, node), "node");
    check(cake_store_open(*node, storage, NULL, store), "store");
}

/* CPU: waiting for the loop's thread is longer on a busy machine. */
static double put_us(cake_store_t *store, const char *keyspace, uint64_t salt)
{
    double begin = cpu_seconds();
    for (uint64_t i = 0; i < MANY; i++)
        check(cake_store_put(store, keyspace, cake_key_u64((i * 7919 + salt) << 20), "x", 1, CAKE_NONE), "put");
    return (cpu_seconds() - begin) * 1e6 / MANY;
}

/* ---- keyspaces ----------------------------------------------------------------------------------------------------*/

typedef struct {
    cake_gate_t gate;
    atomic_uint left;
    cake_env_t *env;
} many_t;

static void on_done(const cake_result_t *result, void *arg)
{
    many_t *many = arg;
    check(result->err == CAKE_ENOTFOUND ? 0 : result->err, "put or get");
    if (atomic_fetch_sub(&many->left, 1) == 1)
        many->env->ops->gate_open(many->env, &many->gate);
}

static void use_keyspaces(cake_node_t *node, cake_store_t *store, uint64_t from, uint64_t to, bool is_put)
{
    many_t many = {.env = cake_node_env(node)};
    for (uint64_t next = from; next < to;) {
        uint64_t count = to - next < MANY ? to - next : MANY;
        many.left = (unsigned)count;
        many.env->ops->gate_init(many.env, &many.gate);
        for (uint64_t end = next + count; next < end; next++) {
            char name[32];
            snprintf(name, sizeof name, "keyspace-%llu", (unsigned long long)next);
            int err = is_put ? cake_store_put_async(store, name, cake_key_u64(next), "x", 1, CAKE_NONE, on_done, &many)
                             : cake_store_get_at_async(store, name, cake_key_u64(next), CAKE_NONE, on_done, &many);
            check(err, "put or get");
        }
        many.env->ops->gate_wait(many.env, &many.gate);
        many.env->ops->gate_destroy(many.env, &many.gate);
    }
}

static void put_in_keyspaces(cake_node_t *node, cake_store_t *store, uint64_t from, uint64_t to)
{
    use_keyspaces(node, store, from, to, true);
}

static void get_in_keyspaces(cake_node_t *node, cake_store_t *store, uint64_t from, uint64_t to)
{
    use_keyspaces(node, store, from, to, false);
}

static void print_row(const char *what, uint64_t count, double bytes, double took, double put, double reopen)
{
    printf("%-10s %10llu %12.0f %12.0f %12.2f %14.0f\n", what, (unsigned long long)count, bytes / (double)count,
           took * 1e9 / (double)count, put, reopen * 1e9 / (double)count);
    fflush(stdout);
}

static double reopen(cake_node_t **node, cake_store_t **store, cake_storage_t *storage)
{
    check(cake_node_stop(*node), "stop");
    double begin = cpu_seconds();
    start(0, NULL, storage, node, store);
    check(cake_store_put(*store, "first", cake_key_u64(0), "x", 1, CAKE_NONE), "put");
    return cpu_seconds() - begin;
}

static void grow(const char *what, uint64_t most, bool is_reopened,
                 void (*add)(cake_node_t *, cake_store_t *, uint64_t, uint64_t))
{
    cake_storage_t *storage = open_kept();
    cake_node_t *node;
    cake_store_t *store;
    start(0, NULL, storage, &node, &store);
    put_us(store, "first", 0);
    double before = memory_bytes();
    for (uint64_t have = 0, count = most / 100; have < most; count = count * 10 < most ? count * 10 : most) {
        double begin = cpu_seconds();
        add(node, store, have, count);
        double took = (cpu_seconds() - begin) * (double)count / (double)(count - have),
               memory = memory_bytes() - before;
        have = count;
        double put = put_us(store, "first", have);
        double opened = is_reopened ? reopen(&node, &store, storage) : 0;
        print_row(what, have, memory, took, put, opened);
    }
    check(cake_node_stop(node), "stop");
    drop_kept(storage);
}

/* ---- documents ----------------------------------------------------------------------------------------------------*/

static uint64_t mix(uint64_t n)
{
    n = (n ^ (n >> 31)) * UINT64_C(0x9e3779b97f4a7c15);
    return n ^ (n >> 29);
}

static void put_documents(cake_node_t *node, cake_store_t *store, uint64_t from, uint64_t to)
{
    static const char value[VALUE_BYTES] = "value";
    cake_item_t items[MANY];
    (void)node;
    while (from < to) {
        size_t count = 0;
        for (; count < MANY && from < to; count++, from++)
            items[count] = (cake_item_t){.key = cake_key_u64(mix(from)), .value = value, .len = VALUE_BYTES};
        check(cake_store_put_many(store, "documents", items, count, CAKE_NONE), "put_many");
    }
}

/* ---- nodes --------------------------------------------------------------------------------------------------------*/

static void wait_for_replicas(cake_store_t *const stores[], int count)
{
    double end = seconds() + PATIENCE_S;
    for (int i = 0; i < count;) {
        cake_store_stats_t stats;
        check(cake_store_stats(stores[i], &stats), "statistics");
        check(seconds() < end ? 0 : CAKE_ETIMEDOUT, "waiting for the replicas");
        if (stats.is_joined && stats.replicas == (uint64_t)count)
            i++;
        else
            nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
}

static void measure_nodes(int count)
{
    cake_node_t *nodes[NODES_MAX];
    cake_store_t *stores[NODES_MAX];
    double before = memory_bytes(), begin = seconds();
    for (int i = 0; i < count; i++) {
        cake_storage_t *storage;
        check(cake_memory_open(&storage), "memory");
        start(i, i == 0 ? NULL : cake_node_address(nodes[0]), storage, &nodes[i], &stores[i]);
    }
    wait_for_replicas(stores, count);
    double formed = seconds() - begin, memory = memory_bytes() - before;
    double idle = cpu_seconds();
    nanosleep(&(struct timespec){.tv_sec = 5}, NULL);
    idle = (cpu_seconds() - idle) / 5 / count;
    double cpu = cpu_seconds(), took = seconds();
    for (uint64_t i = 0; i < MANY; i++)
        check(cake_store_put(stores[0], "first", cake_key_u64(i), "x", 1, CAKE_ALL), "put at all");
    took = (seconds() - took) * 1e6 / MANY;
    printf("%-10s %10d %9.0f KiB %9.2f s %10.3f %% %10.0f us %10.1f us\n", "nodes", count, memory / 1024 / count,
           formed, idle * 100, took, (cpu_seconds() - cpu) * 1e6 / MANY / count);
    fflush(stdout);
    for (int i = count - 1; i >= 0; i--)
        check(cake_node_stop(nodes[i]), "stop");
}

/* ---- nodes in the simulator ---------------------------------------------------------------------------------------*/

static void measure_simulated(uint32_t count)
{
    cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
    cake_sim_result_t result;
    options.nodes = count;
    options.faults = CAKE_SIM_NOTHING;
    options.storage = CAKE_SIM_STORAGE_MEMORY;
    double begin = cpu_seconds();
    check(cake_sim_run(1, &options, &result), "simulation");
    double cpu = cpu_seconds() - begin;
    check(result.ok ? 0 : CAKE_EINTERNAL, result.violation);
    printf("%-10s %10u %9.0f KiB %11.2f s %12.2f ms %10.1f us %12llu\n", "simulated", count,
           (double)result.peak_heap_bytes / 1024, cpu, cpu * 1e3 / count, cpu * 1e6 / (double)result.events,
           (unsigned long long)result.events);
    fflush(stdout);
}

/* ---- the parts ----------------------------------------------------------------------------------------------------*/

static void print_head(void)
{
    printf("%-10s %10s %12s %12s %12s %14s\n", "what", "count", "bytes each", "CPU ns each", "CPU us a put",
           "CPU ns to open");
}

static bool is_asked(int argc, char **argv, const char *part)
{
    bool is_named = argc <= 4;
    for (int i = 4; i < argc; i++)
        is_named |= strcmp(argv[i], part) == 0;
    return is_named;
}

int main(int argc, char **argv)
{
    uint64_t documents = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    uint64_t keyspaces = argc > 2 ? strtoull(argv[2], NULL, 10) : 100000;
    int nodes = argc > 3 ? atoi(argv[3]) : 7;
    if (documents < 100 || keyspaces < 100 || nodes < 1 || nodes > NODES_MAX) {
        fprintf(stderr, "usage: bench-scale [documents] [keyspaces] [nodes, up to %d] [part ...]\n", NODES_MAX);
        return 2;
    }
    print_head();
    if (is_asked(argc, argv, "empty"))
        grow("empty", keyspaces, false, get_in_keyspaces);
    if (is_asked(argc, argv, "keyspaces"))
        grow("keyspaces", keyspaces, true, put_in_keyspaces);
    if (is_asked(argc, argv, "documents"))
        grow("documents", documents, true, put_documents);
    if (is_asked(argc, argv, "nodes")) {
        printf("%-10s %10s %13s %11s %12s %13s %13s\n", "what", "count", "memory each", "formed in", "idle CPU each",
               "put at all", "CPU per node");
        for (int count = 3; count < nodes; count = count * 2 + 1)
            measure_nodes(count);
        measure_nodes(nodes);
    }
    if (is_asked(argc, argv, "simulated")) {
        printf("%-10s %10s %13s %13s %15s %13s %12s\n", "what", "nodes", "largest heap", "CPU", "CPU per node",
               "per event", "events");
        for (uint32_t count = 5; count <= 20; count *= 2)
            measure_simulated(count);
    }
    return 0;
}
