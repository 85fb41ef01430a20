/* Replicated puts over loopback. Writers are completions that begin the next put, as the tasks of an event-driven
 * program; a row of "blocking" (writers 0) is one thread in cake_store_put.
 *
 *   bench-store [seconds per row]
 *       A table of three nodes in one process. Columns: storage, level, writers, puts/s, µs of CPU per put (all three
 *       nodes and the writers), ratio to NONE.
 *
 *   bench-store --compression [seconds per row]
 *       Three nodes on memory, ALL, 256 writers: documents of text and of noise, with and without compression; bytes
 *       that node 1 sent per put.
 *
 *   bench-store --nodes N [--storage memory|sqlite|sqlite-normal|lmdb] [--dir DIR]
 *       N nodes in this process; rows are read from standard input. Prints "ready", then answers each line
 *       "put|del LEVEL WRITERS SECONDS COUNT" (COUNT 0: no limit) with
 *           row datacake NODES STORAGE OP LEVEL WRITERS OPS/S CPU_US DONE FAILED
 *       or "unavailable REASON" when the first write fails. scripts/bench-peers does this with all systems in turns.
 *
 *   bench-store --nodes N --node-id I [--seed HOST:PORT] ...
 *       Only node I is in this process. Prints "listening HOST:PORT" first. Node 1 takes the rows, once all N are
 *       there; the others run until their standard input ends. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <datacake/datacake.h>
#include <datacake/lmdb.h>
#include <datacake/sqlite.h>

#include "bench.h"

#define NODES_MAX   16
#define VALUE_BYTES 100
#define KEYS        100000
#define START_MS    30000
#define NO_LIMIT    UINT64_MAX

/* ---- the cluster --------------------------------------------------------------------------------------------------*/

/* Node i has id i + 1; NULL where it is in another process. */
typedef struct {
    int count;
    const char *kind;
    cake_node_t *nodes[NODES_MAX];
    cake_store_t *stores[NODES_MAX];
    char dir[256];
    bool is_dir_ours, no_compression;
} cluster_t;

static void open_dir(cluster_t *cluster, const char *dir)
{
    cluster->is_dir_ours = dir == NULL;
    snprintf(cluster->dir, sizeof cluster->dir, "%s", dir != NULL ? dir : "/tmp/bench-store-XXXXXX");
    if (cluster->is_dir_ours && mkdtemp(cluster->dir) == NULL)
        check(CAKE_EIO, "a temporary directory");
}

static void remove_dir(const cluster_t *cluster)
{
    char command[sizeof cluster->dir + 16];
    snprintf(command, sizeof command, "rm -rf '%s'", cluster->dir);
    if (cluster->is_dir_ours && system(command) != 0)
        fprintf(stderr, "bench-store: %s is left behind\n", cluster->dir);
}

static cake_storage_t *open_storage(const cluster_t *cluster, int index)
{
    cake_sqlite_options_t sqlite = CAKE_SQLITE_OPTIONS_INIT;
    cake_storage_t *storage = NULL;
    char path[sizeof cluster->dir + 16];
    snprintf(path, sizeof path, "%s/%d", cluster->dir, index + 1);
    sqlite.lose_last_writes_on_power_cut = strcmp(cluster->kind, "sqlite-normal") == 0;
    if (strcmp(cluster->kind, "memory") == 0)
        check(cake_memory_open(&storage), "memory");
    else if (strcmp(cluster->kind, "lmdb") == 0)
        check(cake_lmdb_open(path, NULL, &storage), path);
    else if (strcmp(cluster->kind, "sqlite") == 0 || sqlite.lose_last_writes_on_power_cut)
        check(cake_sqlite_open(path, &sqlite, &storage), path);
    else
        check(CAKE_EINVAL, cluster->kind);
    return storage;
}

static void start_node(cluster_t *cluster, int index, const char *seed)
{
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    cake_store_options_t options = CAKE_STORE_OPTIONS_INIT;
    options.no_compression = cluster->no_compression;
    config.node_id = (uint16_t)(index + 1);
    config.listen_addr = "127.0.0.1:0";
    config.seeds = &seed;
    config.seed_count = seed == NULL ? 0 : 1;
    check(cake_node_start(&config, &cluster->nodes[index]), "node");
    check(cake_store_open(cluster->nodes[index], open_storage(cluster, index), &options, &cluster->stores[index]),
          "store");
}

/* Until the first node counts all others as replicas and they take writes. */
static void wait_for_all(const cluster_t *cluster)
{
    uint16_t ids[NODES_MAX];
    for (int i = 0; i < cluster->count; i++)
        ids[i] = (uint16_t)(i + 1);
    for (int i = 0; i < cluster->count; i++)
        if (cluster->nodes[i] != NULL)
            check(cake_node_wait_for(cluster->nodes[i], ids, (size_t)cluster->count, START_MS),
                  "waiting for the members");
    double deadline = seconds() + START_MS * 1e-3;
    for (uint64_t replicas = 0; replicas < (uint64_t)cluster->count;) {
        cake_store_stats_t stats;
        check(cake_store_stats(cluster->stores[0], &stats), "statistics");
        replicas = stats.replicas;
        check(seconds() < deadline ? 0 : CAKE_ETIMEDOUT, "waiting for the replicas");
        check(cake_store_put(cluster->stores[0], "bench", cake_key_u64(0), "", 0, CAKE_NONE), "first put");
    }
    check(cake_store_put(cluster->stores[0], "bench", cake_key_u64(0), "", 0, CAKE_ALL), "first put at all");
}

static void start_cluster(cluster_t *cluster)
{
    for (int i = 0; i < cluster->count; i++)
        start_node(cluster, i, i == 0 ? NULL : cake_node_address(cluster->nodes[0]));
    wait_for_all(cluster);
}

static void stop_cluster(cluster_t *cluster)
{
    for (int i = cluster->count - 1; i >= 0; i--)
        check(cake_node_stop(cluster->nodes[i]), "stop");
    remove_dir(cluster);
}

/* ---- load ---------------------------------------------------------------------------------------------------------*/

typedef struct {
    cake_store_t *store;
    cake_env_t *env;
    bool is_delete;
    cake_consistency_t level;
    int writers; /* 0: one thread that blocks */
    double duration;
    uint64_t limit; /* of writes */
    double end;
    uint64_t begun, done, failed;
    int running;
    cake_gate_t gate;
    cake_post_t start;
} load_t;

typedef struct {
    double rate, cpu_us;
} outcome_t;

#define POOL_BYTES 8388608u

static char pool[POOL_BYTES]; /* each value is a part of it */

static void fill_pool(bool is_noise)
{
    static const char text[] = "The cake is replicated on every node, and each of them may be eaten from. ";
    uint64_t word = 1;
    for (size_t i = 0; i < sizeof pool; i++) {
        word = word * UINT64_C(6364136223846793005) + 1442695040888963407;
        pool[i] = is_noise ? (char)(word >> 56) : text[i % (sizeof text - 1)];
    }
}

static const char *value_of(uint64_t n)
{
    return pool + n * 7919 % (POOL_BYTES - VALUE_BYTES);
}

static int write_blocking(const load_t *load, uint64_t n)
{
    cake_key_t key = cake_key_u64(n % KEYS);
    if (load->is_delete)
        return cake_store_del(load->store, "bench", key, load->level);
    return cake_store_put(load->store, "bench", key, value_of(n), VALUE_BYTES, load->level);
}

static void write_next(load_t *load);

static void on_written(const cake_result_t *result, void *arg)
{
    load_t *load = arg;
    load->done += result->err == 0;
    load->failed += result->err != 0;
    write_next(load);
}

static void write_next(load_t *load)
{
    cake_key_t key = cake_key_u64(load->begun % KEYS);
    int err = CAKE_ECLOSED;
    if (load->begun < load->limit && seconds() < load->end) {
        load->begun++;
        if (load->is_delete)
            err = cake_store_del_async(load->store, "bench", key, load->level, on_written, load);
        else
            err = cake_store_put_async(load->store, "bench", key, value_of(load->begun), VALUE_BYTES, load->level,
                                       on_written, load);
        load->failed += err != 0;
    }
    if (err != 0 && --load->running == 0)
        load->env->ops->gate_open(load->env, &load->gate);
}

static void start_writers(void *arg)
{
    load_t *load = arg;
    for (int i = 0; i < load->writers; i++)
        write_next(load);
}

static void run_writers(load_t *load)
{
    load->running = load->writers;
    load->start = (cake_post_t){.fn = start_writers, .arg = load};
    load->env->ops->gate_init(load->env, &load->gate);
    load->env->ops->post(load->env, &load->start);
    load->env->ops->gate_wait(load->env, &load->gate);
    load->env->ops->gate_destroy(load->env, &load->gate);
}

static void run_blocking(load_t *load)
{
    while (load->begun < load->limit && seconds() < load->end) {
        int err = write_blocking(load, load->begun++);
        load->done += err == 0;
        load->failed += err != 0;
    }
}

static outcome_t measure(const cluster_t *cluster, load_t *load)
{
    double begin = seconds(), cpu = cpu_seconds();
    load->store = cluster->stores[0];
    load->env = cake_node_env(cluster->nodes[0]);
    load->end = begin + load->duration;
    if (load->writers == 0)
        run_blocking(load);
    else
        run_writers(load);
    double done = load->done > 0 ? (double)load->done : 1;
    return (outcome_t){.rate = (double)load->done / (seconds() - begin), .cpu_us = (cpu_seconds() - cpu) * 1e6 / done};
}

/* ---- rows from standard input -------------------------------------------------------------------------------------*/

/* The line is a row's five words. */
static void answer(const cluster_t *cluster, const char *line)
{
    load_t load = {.store = cluster->stores[0]};
    char op[8], level[32];
    unsigned long long limit;
    if (sscanf(line, "%7s %31s %d %lf %llu", op, level, &load.writers, &load.duration, &limit) != 5)
        check(CAKE_EPARSE, line);
    check(cake_consistency_parse(level, &load.level), level);
    load.is_delete = strcmp(op, "del") == 0;
    load.limit = limit == 0 ? NO_LIMIT : limit;
    int err = write_blocking(&load, 0);
    if (err != 0) {
        printf("unavailable %s\n", cake_strerror(err));
        return;
    }
    outcome_t outcome = measure(cluster, &load);
    printf("row datacake %d %s %s %s %d %.0f %.2f %llu %llu\n", cluster->count, cluster->kind, op, level, load.writers,
           outcome.rate, outcome.cpu_us, (unsigned long long)load.done, (unsigned long long)load.failed);
}

static void answer_rows(const cluster_t *cluster)
{
    char line[128];
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        answer(cluster, line);
        fflush(stdout);
    }
}

/* One node of a cluster whose others are in processes of their own. */
static void run_one(cluster_t *cluster, int index, const char *seed)
{
    start_node(cluster, index, seed);
    printf("listening %s\n", cake_node_address(cluster->nodes[index]));
    fflush(stdout);
    if (index == 0) {
        wait_for_all(cluster);
        answer_rows(cluster);
    } else {
        while (getchar() != EOF)
            ;
    }
    check(cake_node_stop(cluster->nodes[index]), "stop");
    remove_dir(cluster);
}

/* ---- the table ----------------------------------------------------------------------------------------------------*/

static void print_table(double duration)
{
    static const char *const kinds[] = {"memory", "sqlite"};
    static const cake_consistency_t levels[] = {CAKE_NONE, CAKE_QUORUM, CAKE_ALL};
    static const int writers[] = {0, 1, 256};
    printf("%-8s %-8s %9s %10s %10s %8s\n", "storage", "level", "writers", "puts/s", "CPU us", "/ none");
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        cluster_t cluster = {.count = 3, .kind = kinds[k]};
        open_dir(&cluster, NULL);
        start_cluster(&cluster);
        for (size_t w = 0; w < sizeof writers / sizeof writers[0]; w++) {
            double none = 0;
            for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
                load_t load = {.level = levels[l], .writers = writers[w], .duration = duration, .limit = NO_LIMIT};
                outcome_t outcome = measure(&cluster, &load);
                none = l == 0 ? outcome.rate : none;
                char who[16];
                snprintf(who, sizeof who, writers[w] == 0 ? "blocking" : "%d", writers[w]);
                if (load.failed > 0)
                    printf("  (%llu failed)\n", (unsigned long long)load.failed);
                printf("%-8s %-8s %9s %10.0f %10.2f %8.2f\n", kinds[k], cake_consistency_name(levels[l]), who,
                       outcome.rate, outcome.cpu_us, outcome.rate / none);
                fflush(stdout);
            }
        }
        stop_cluster(&cluster);
    }
}

static void compare_compression(double duration)
{
    printf("%-6s %-12s %10s %10s %10s\n", "values", "compression", "puts/s", "CPU us", "sent B/put");
    for (int row = 0; row < 4; row++) {
        cluster_t cluster = {.count = 3, .kind = "memory", .no_compression = row % 2 == 1};
        load_t load = {.level = CAKE_ALL, .writers = 256, .duration = duration, .limit = NO_LIMIT};
        cake_store_stats_t stats;
        fill_pool(row >= 2);
        start_cluster(&cluster);
        outcome_t outcome = measure(&cluster, &load);
        check(cake_store_stats(cluster.stores[0], &stats), "statistics");
        printf("%-6s %-12s %10.0f %10.2f %10.1f\n", row >= 2 ? "noise" : "text", row % 2 == 1 ? "no" : "yes",
               outcome.rate, outcome.cpu_us, (double)stats.batch_bytes_sent / (double)(load.done > 0 ? load.done : 1));
        fflush(stdout);
        stop_cluster(&cluster);
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"nodes", required_argument, NULL, 'n'},
        {"storage", required_argument, NULL, 's'},
        {"dir", required_argument, NULL, 'd'},
        {"node-id", required_argument, NULL, 'i'},
        {"seed", required_argument, NULL, 'j'},
        {"compression", no_argument, NULL, 'c'},
        {NULL, 0, NULL, 0},
    };
    cluster_t cluster = {.kind = "memory"};
    const char *dir = NULL, *seed = NULL;
    int node_id = 0;
    bool compares = false;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'n':
            cluster.count = atoi(optarg);
            break;
        case 's':
            cluster.kind = optarg;
            break;
        case 'd':
            dir = optarg;
            break;
        case 'i':
            node_id = atoi(optarg);
            break;
        case 'j':
            seed = optarg;
            break;
        case 'c':
            compares = true;
            break;
        default:
            return 2;
        }
    }
    double duration = optind < argc ? atof(argv[optind]) : 2.0;
    if (compares) {
        compare_compression(duration);
        return 0;
    }
    fill_pool(false);
    if (cluster.count == 0) {
        print_table(duration);
        return 0;
    }
    if (cluster.count < 0 || cluster.count > NODES_MAX || node_id < 0 || node_id > cluster.count)
        check(CAKE_EINVAL, "--nodes, --node-id");
    open_dir(&cluster, dir);
    if (node_id > 0) {
        run_one(&cluster, node_id - 1, seed);
        return 0;
    }
    start_cluster(&cluster);
    answer_rows(&cluster);
    stop_cluster(&cluster);
    return 0;
}
