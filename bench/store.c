/* Replicated puts: three nodes in one process, over loopback. Writers are completions that begin the next put, as the
 * tasks of an event-driven program; the blocking row is one thread in cake_store_put.
 *
 *   bench-store [seconds per row]
 *
 * Columns: storage, level, writers, puts/s, µs of CPU per put (all three nodes and the writers), ratio to NONE. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <datacake/datacake.h>
#include <datacake/sqlite.h>

#define NODES       3
#define VALUE_BYTES 100
#define KEYS        100000

static void check(int err, const char *what)
{
    if (err == 0)
        return;
    fprintf(stderr, "bench-store: %s: %s\n", what, cake_strerror(err));
    exit(1);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* ---- the cluster ------------------------------------------------------------------------------------------------------*/

typedef struct {
    cake_node_t *nodes[NODES];
    cake_store_t *stores[NODES];
    char dir[64];
} cluster_t;

static cake_storage_t *open_storage(const cluster_t *cluster, const char *kind, int index)
{
    cake_storage_t *storage;
    char path[128];
    if (strcmp(kind, "memory") == 0) {
        check(cake_memory_open(&storage), "memory");
        return storage;
    }
    snprintf(path, sizeof path, "%s/%d", cluster->dir, index);
    check(cake_sqlite_open(path, NULL, &storage), path);
    return storage;
}

static void start_cluster(cluster_t *cluster, const char *kind)
{
    static const uint16_t ids[NODES] = {1, 2, 3};
    const char *seed = NULL;
    strcpy(cluster->dir, "/tmp/bench-store-XXXXXX");
    if (mkdtemp(cluster->dir) == NULL)
        check(CAKE_EIO, "a temporary directory");
    for (int i = 0; i < NODES; i++) {
        cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
        config.node_id = ids[i];
        config.listen_addr = "127.0.0.1:0";
        config.seeds = &seed;
        config.seed_count = seed == NULL ? 0 : 1;
        check(cake_node_start(&config, &cluster->nodes[i]), "node");
        seed = cake_node_address(cluster->nodes[0]);
        check(cake_store_open(cluster->nodes[i], open_storage(cluster, kind, i), NULL, &cluster->stores[i]), "store");
    }
    for (int i = 0; i < NODES; i++)
        check(cake_node_wait_for(cluster->nodes[i], ids, NODES, 20000), "waiting for the members");
    for (uint64_t replicas = 0; replicas < NODES;) {
        cake_store_stats_t stats;
        check(cake_store_stats(cluster->stores[0], &stats), "statistics");
        replicas = stats.replicas;
        check(cake_store_put(cluster->stores[0], "bench", cake_key_u64(0), "", 0, CAKE_NONE), "first put");
    }
    check(cake_store_put(cluster->stores[0], "bench", cake_key_u64(0), "", 0, CAKE_ALL), "first put at all");
}

static void stop_cluster(cluster_t *cluster)
{
    char command[128];
    for (int i = NODES - 1; i >= 0; i--)
        check(cake_node_stop(cluster->nodes[i]), "stop");
    snprintf(command, sizeof command, "rm -rf %s", cluster->dir);
    if (system(command) != 0)
        fprintf(stderr, "bench-store: %s is left behind\n", cluster->dir);
}

/* ---- load ---------------------------------------------------------------------------------------------------------------*/

typedef struct {
    cake_store_t *store;
    cake_consistency_t level;
    double end;
    uint64_t next_key, done, failed;
    int running;
    cake_env_t *env;
    cake_gate_t gate;
} load_t;

static void put_next(load_t *load);

static void on_put(const cake_result_t *result, void *arg)
{
    load_t *load = arg;
    load->done += result->err == 0;
    load->failed += result->err != 0;
    if (seconds() < load->end)
        put_next(load);
    else if (--load->running == 0)
        load->env->ops->gate_open(load->env, &load->gate);
}

static void put_next(load_t *load)
{
    static const char value[VALUE_BYTES] = "value";
    cake_key_t key = cake_key_u64(load->next_key++ % KEYS);
    check(cake_store_put_async(load->store, "bench", key, value, sizeof value, load->level, on_put, load), "put");
}

typedef struct {
    cake_post_t post;
    load_t *load;
    int writers;
} start_t;

static void start_writers(void *arg)
{
    start_t *start = arg;
    for (int i = 0; i < start->writers; i++)
        put_next(start->load);
}

static double measure(const cluster_t *cluster, cake_consistency_t level, int writers, double duration, double *cpu_us)
{
    cake_env_t *env = cake_node_env(cluster->nodes[0]);
    load_t load = {.store = cluster->stores[0], .level = level, .running = writers, .env = env};
    start_t start = {.post = {.fn = start_writers, .arg = &start}, .load = &load, .writers = writers};
    double begin = seconds(), cpu = cpu_seconds();
    load.end = begin + duration;
    env->ops->gate_init(env, &load.gate);
    env->ops->post(env, &start.post);
    env->ops->gate_wait(env, &load.gate);
    env->ops->gate_destroy(env, &load.gate);
    if (load.failed > 0)
        printf("  (%llu failed)\n", (unsigned long long)load.failed);
    *cpu_us = (cpu_seconds() - cpu) * 1e6 / (double)load.done;
    return (double)load.done / (seconds() - begin);
}

static double measure_blocking(const cluster_t *cluster, cake_consistency_t level, double duration, double *cpu_us)
{
    static const char value[VALUE_BYTES] = "value";
    double begin = seconds(), cpu = cpu_seconds();
    uint64_t done = 0;
    for (; seconds() < begin + duration; done++)
        check(cake_store_put(cluster->stores[0], "bench", cake_key_u64(done % KEYS), value, sizeof value, level), "put");
    *cpu_us = (cpu_seconds() - cpu) * 1e6 / (double)done;
    return (double)done / (seconds() - begin);
}

int main(int argc, char **argv)
{
    static const char *const kinds[] = {"memory", "sqlite"};
    static const cake_consistency_t levels[] = {CAKE_NONE, CAKE_QUORUM, CAKE_ALL};
    static const int writers[] = {0, 1, 256};
    double duration = argc > 1 ? atof(argv[1]) : 2.0;
    printf("%-8s %-8s %9s %10s %10s %8s\n", "storage", "level", "writers", "puts/s", "CPU us", "/ none");
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        cluster_t cluster;
        start_cluster(&cluster, kinds[k]);
        for (size_t w = 0; w < sizeof writers / sizeof writers[0]; w++) {
            double none = 0;
            for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
                double cpu_us, rate;
                if (writers[w] == 0)
                    rate = measure_blocking(&cluster, levels[l], duration, &cpu_us);
                else
                    rate = measure(&cluster, levels[l], writers[w], duration, &cpu_us);
                none = l == 0 ? rate : none;
                char who[16];
                snprintf(who, sizeof who, writers[w] == 0 ? "blocking" : "%d", writers[w]);
                printf("%-8s %-8s %9s %10.0f %10.2f %8.2f\n", kinds[k], cake_consistency_name(levels[l]), who, rate,
                       cpu_us, rate / none);
                fflush(stdout);
            }
        }
        stop_cluster(&cluster);
    }
    return 0;
}
