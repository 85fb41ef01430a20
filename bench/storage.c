/* bench/storage: the storages beside raw SQLite and raw LMDB, doing the same in the same run.
 *
 *   storage [--rows N] [--seconds S] [--dir DIR] [--key-bytes K] [--only NAME] [--no-writes 1]
 *           [--sequential 1]
 *
 * Writes of 100-byte values under random keys by batch size, then N rows written in bulk, opened again, read at random,
 * loaded as a store does when it is opened, scanned. Rows named writers are puts of that many concurrent writers in a store of
 * one node, each waiting until its put is durable; beside them, raw batches of the same size. Below the rates: µs of CPU per
 * row, of the whole process. Raw means the same information in one table and a transaction per batch, with the same durability: keyspace and
 * key, and under it stamp, dot and value. What the storage adds is finding by id, tombstones, checks, its lanes and
 * threads. Ratios are ours to raw: above 1 is faster than raw. */
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <datacake/datacake.h>

#include "storage_engines.h"

#define SLICES      20
#define WRITERS_MAX 256

/* ---- measuring ------------------------------------------------------------------------------------------------------------ */

typedef enum measure {
    BATCH_1,
    BATCH_16,
    BATCH_256,
    BATCH_4096,
    WRITERS_1,
    WRITERS_256,
    BULK,
    REOPEN,
    LOAD,
    READS,
    SCAN,
    MEASURES
} measure_t;

static const char *const measure_names[MEASURES] = {"rows/s, batch 1",    "rows/s, batch 16", "rows/s, batch 256",
                                                    "rows/s, batch 4096", "puts/s, 1 writer", "puts/s, 256 writers",
                                                    "rows/s, bulk",       "reopen, s",        "loaded rows/s",
                                                    "random reads/s",     "scanned rows/s"};
static const size_t batches[] = {1, 16, 256, 4096};

typedef struct result {
    double rate, cpu_us;
} result_t;

typedef struct settings {
    uint64_t rows;
    double seconds;
    const char *dir, *only;
    bool without_writes;
} settings_t;

static void clear(const char *dir)
{
    char command[512];
    snprintf(command, sizeof command, "rm -rf %s/bench-storage-data", dir);
    check(system(command) == 0, "rm");
}

/* One engine of a group that is measured together: in turns, a slice each, so that a busy machine is busy for both. */
typedef struct runner {
    const engine_t *engine;
    result_t *out;
    void *state;
    uint64_t next, done;
    double spent_s, cpu_s;
    char path[256];
} runner_t;

static double cpu_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void write_slice(runner_t *runner, size_t batch, double slice_s)
{
    double start = now_s(), cpu = cpu_now_s(), took;
    do {
        runner->engine->write(runner->state, runner->next, batch);
        runner->next += batch;
        runner->done += batch;
        took = now_s() - start;
    } while (took < slice_s);
    runner->spent_s += took;
    runner->cpu_s += cpu_now_s() - cpu;
}

static void read_slice(runner_t *runner, uint64_t rows, double slice_s)
{
    double start = now_s(), cpu = cpu_now_s(), took;
    do {
        for (int i = 0; i < 64; i++)
            runner->engine->read(runner->state, cake__mix64(runner->done++) % rows);
        took = now_s() - start;
    } while (took < slice_s);
    runner->spent_s += took;
    runner->cpu_s += cpu_now_s() - cpu;
}

static void settle(runner_t *runners, size_t count, measure_t measure)
{
    for (size_t i = 0; i < count; i++) {
        double done = (double)runners[i].done;
        runners[i].out[measure] = (result_t){done / runners[i].spent_s, runners[i].cpu_s * 1e6 / done};
        runners[i].done = 0;
        runners[i].spent_s = runners[i].cpu_s = 0;
    }
}

static void measure_writes(runner_t *runners, size_t count, const settings_t *settings)
{
    for (int m = BATCH_1; m <= BATCH_4096; m++) {
        for (int slice = 0; slice < SLICES; slice++) {
            for (size_t i = 0; i < count; i++)
                write_slice(&runners[i], batches[m], settings->seconds / SLICES);
        }
        settle(runners, count, (measure_t)m);
    }
}

/* ---- a store on it -------------------------------------------------------------------------------------------------------- */

/* Writers are completions that begin the next put. */
typedef struct load {
    cake_store_t *store;
    pthread_mutex_t lock;
    pthread_cond_t is_over;
    uint64_t next, done;
    unsigned running;
    double end;
} load_t;

static void write_next(load_t *load);

static void on_written(const cake_result_t *result, void *arg)
{
    load_t *load = arg;
    check(result->err == 0, "put");
    pthread_mutex_lock(&load->lock);
    load->done++;
    pthread_mutex_unlock(&load->lock);
    write_next(load);
}

static void write_next(load_t *load)
{
    char text[KEY_MAX];
    pthread_mutex_lock(&load->lock);
    uint64_t n = load->next++;
    bool goes_on = now_s() < load->end;
    if (!goes_on && --load->running == 0)
        pthread_cond_signal(&load->is_over);
    pthread_mutex_unlock(&load->lock);
    if (!goes_on)
        return;
    cake_slice_t key = make_key(n, text);
    check(cake_store_put_async(load->store, "bench", cake_key_bytes(key.data, key.len), value, VALUE_BYTES, CAKE_NONE,
                               on_written, load) == 0,
          "put");
}

static void put_slice(runner_t *runner, load_t *load, unsigned writers, double slice_s)
{
    double start = now_s(), cpu = cpu_now_s();
    uint64_t done = load->done;
    load->end = start + slice_s;
    load->running = writers;
    for (unsigned i = 0; i < writers; i++)
        write_next(load);
    pthread_mutex_lock(&load->lock);
    while (load->running > 0)
        pthread_cond_wait(&load->is_over, &load->lock);
    pthread_mutex_unlock(&load->lock);
    runner->done += load->done - done;
    runner->spent_s += now_s() - start;
    runner->cpu_s += cpu_now_s() - cpu;
}

/* The first runner is ours; beside it, raw batches. The store takes the storage and closes it. */
static void measure_store(runner_t *runners, size_t count, const settings_t *settings)
{
    static const unsigned writers[] = {1, WRITERS_MAX};
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    load_t load = {.lock = PTHREAD_MUTEX_INITIALIZER, .is_over = PTHREAD_COND_INITIALIZER, .next = UINT64_C(1) << 40};
    cake_node_t *node;
    config.node_id = 1;
    config.listen_addr = "127.0.0.1:0";
    check(cake_node_start(&config, &node) == 0, "node");
    check(cake_store_open(node, runners[0].state, NULL, &load.store) == 0, "store");
    for (size_t w = 0; w < CAKE_COUNT_OF(writers); w++) {
        for (int slice = 0; slice < SLICES; slice++) {
            put_slice(&runners[0], &load, writers[w], settings->seconds / SLICES);
            for (size_t i = 1; i < count; i++)
                write_slice(&runners[i], writers[w], settings->seconds / SLICES);
        }
        settle(runners, count, (measure_t)(WRITERS_1 + w));
    }
    check(cake_store_close(load.store) == 0, "store");
    check(cake_node_stop(node) == 0, "node");
    runners[0].state = NULL;
}

/* ---- many rows ---------------------------------------------------------------------------------------------------------------- */

static void measure_bulk(runner_t *runners, size_t count, const settings_t *settings)
{
    for (uint64_t n = 0; n < settings->rows; n += BATCH_MAX) {
        for (size_t i = 0; i < count; i++) {
            size_t batch = settings->rows - n < BATCH_MAX ? (size_t)(settings->rows - n) : BATCH_MAX;
            runners[i].next = n;
            write_slice(&runners[i], batch, 0);
        }
    }
    settle(runners, count, BULK);
    for (size_t i = 0; i < count && runners[i].engine->is_lasting; i++) {
        runner_t *runner = &runners[i];
        runner->engine->close(runner->state);
        double start = now_s();
        runner->state = runner->engine->open(runner->path);
        runner->engine->read(runner->state, 0);
        runner->out[REOPEN] = (result_t){.rate = now_s() - start};
    }
}

static void each_row(runner_t *runners, size_t count, const settings_t *settings, measure_t measure)
{
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < count; i++) {
            double start = now_s(), cpu = cpu_now_s();
            const engine_t *engine = runners[i].engine;
            size_t rows = measure == LOAD ? engine->load(runners[i].state) : engine->scan(runners[i].state);
            check(rows == settings->rows, "the number of rows");
            runners[i].spent_s += now_s() - start;
            runners[i].cpu_s += cpu_now_s() - cpu;
            runners[i].done += rows;
        }
    }
    settle(runners, count, measure);
}

static void measure_reads(runner_t *runners, size_t count, const settings_t *settings)
{
    for (size_t i = 0; i < count; i++)
        read_slice(&runners[i], settings->rows, settings->seconds); /* warm */
    settle(runners, count, READS);
    for (int slice = 0; slice < SLICES; slice++) {
        for (size_t i = 0; i < count; i++)
            read_slice(&runners[i], settings->rows, 2 * settings->seconds / SLICES);
    }
    settle(runners, count, READS);
    each_row(runners, count, settings, SCAN);
}

static void open_group(runner_t *runners, size_t count, const settings_t *settings)
{
    clear(settings->dir);
    for (size_t i = 0; i < count; i++) {
        snprintf(runners[i].path, sizeof runners[i].path, "%s/bench-storage-data/%zu", settings->dir, i);
        runners[i].state = runners[i].engine->open(runners[i].path);
    }
}

static void close_group(runner_t *runners, size_t count, const settings_t *settings)
{
    for (size_t i = 0; i < count; i++)
        if (runners[i].state != NULL)
            runners[i].engine->close(runners[i].state);
    clear(settings->dir);
}

static void measure_group(size_t first, size_t count, const settings_t *settings, result_t results[][MEASURES])
{
    runner_t runners[2] = {{.engine = NULL}};
    for (size_t i = 0; i < count; i++)
        runners[i] = (runner_t){.engine = &engines[first + i], .out = results[first + i]};
    if (!settings->without_writes) {
        open_group(runners, count, settings);
        measure_writes(runners, count, settings);
        measure_store(runners, count, settings);
        close_group(runners, count, settings);
    }
    open_group(runners, count, settings);
    measure_bulk(runners, count, settings);
    each_row(runners, count, settings, LOAD);
    measure_reads(runners, count, settings);
    close_group(runners, count, settings);
}

static void print_ratios(result_t results[][MEASURES], int m)
{
    for (size_t i = 1; i < ENGINES; i += 2) {
        double ours = results[i][m].rate, raw = results[i + 1][m].rate;
        printf("%12.2f", raw == 0 || ours == 0 ? 0 : m == REOPEN ? raw / ours : ours / raw);
    }
}

static void print_table(result_t results[][MEASURES])
{
    printf("%-20s", "");
    for (size_t i = 0; i < ENGINES; i++)
        printf("%12s", engines[i].name);
    printf("%12s%12s\n", "sqlite/raw", "lmdb/raw");
    for (int m = 0; m < MEASURES; m++) {
        printf("%-20s", measure_names[m]);
        for (size_t i = 0; i < ENGINES; i++)
            printf(m == REOPEN ? "%12.3f" : "%12.0f", results[i][m].rate);
        print_ratios(results, m);
        printf("\n");
        if (m == REOPEN)
            continue;
        printf("%-20s", "  us of CPU");
        for (size_t i = 0; i < ENGINES; i++)
            printf("%12.2f", results[i][m].cpu_us);
        printf("\n");
    }
}

int main(int argc, char **argv)
{
    settings_t settings = {.rows = 1000000, .seconds = 1, .dir = "."};
    static result_t results[ENGINES][MEASURES];
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *given = i + 1 < argc ? argv[++i] : "";
        if (strcmp(name, "--rows") == 0)
            settings.rows = strtoull(given, NULL, 10);
        else if (strcmp(name, "--seconds") == 0)
            settings.seconds = strtod(given, NULL);
        else if (strcmp(name, "--dir") == 0)
            settings.dir = given;
        else if (strcmp(name, "--only") == 0)
            settings.only = given;
        else if (strcmp(name, "--no-writes") == 0)
            settings.without_writes = true;
        else if (strcmp(name, "--sequential") == 0)
            is_sequential = true;
        else if (strcmp(name, "--key-bytes") == 0)
            key_bytes = (unsigned)strtoul(given, NULL, 10);
        else
            check(false, "an option nobody knows");
    }
    check(settings.rows > 0 && key_bytes >= 8 && key_bytes <= 32, "the choice of --rows and --key-bytes (8 to 32)");
    memset(value, 'v', sizeof value);
    for (size_t i = 0; i < ENGINES; i += i == 0 ? 1 : 2) { /* memory alone, the others with their raw counterpart */
        if (settings.only == NULL || strcmp(engines[i].name, settings.only) == 0)
            measure_group(i, i == 0 ? 1 : 2, &settings, results);
    }
    printf("%" PRIu64 " rows, keys of %u bytes, values of %d\n", settings.rows, key_bytes, VALUE_BYTES);
    print_table(results);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("peak memory of the process: %ld MiB (with the pages of mapped files)\n", usage.ru_maxrss / 1024);
    return 0;
}
