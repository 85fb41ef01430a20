/* bench/storage: the storages beside raw SQLite and raw LMDB, doing the same in the same run.
 *
 *   storage [--rows N] [--seconds S] [--dir DIR] [--key-bytes K] [--only NAME] [--parts writes,puts,writers,bulk,reads]
 *           [--sync-us N] [--sequential N] [--there N] [--keep 1]
 *
 * Writes of 100-byte values under random keys by batch size, then N rows written in bulk, opened again, read at random,
 * loaded as a store does when it is opened, scanned. Raw means the same information in one table and a transaction per
 * batch, with the same durability: keyspace and key, and under it stamp, dot and value. What the storage adds is
 * finding by id, tombstones, checks, its lanes and threads. Columns named ids are a second raw, the limit of what ours
 * can reach: with the index of ids that the interface asks for, SQLite in our own schema; and, beside a store, with the
 * record of its set in every batch.
 *
 * Rows named writers are puts of that many concurrent writers in a store of one node, each waiting until its put is
 * durable; beside them, raw batches of the same size. A caller is a thread of the program in the blocking call. Rows
 * named limit have the same puts beside raw ones that are made on a thread of their own, which is asked and answers as
 * cheaply as threads can: two wake-ups for a writer of the loop, four for a caller, since the loop stands between.
 *
 * Ours and raw take turns, and a ratio is the median of those of the turns: above 1 is faster than raw. Below the
 * rates: us of CPU per row, of the whole process.
 *
 * --sync-us adds that time to each sync, as a slower disk would. With --keep the rows stay for a run that is told by
 * --there how many there are: many millions can be measured a few minutes at a time. The first N of --sequential
 * have keys in order. */
#include <pthread.h>
#include <sys/resource.h>

#include <datacake/datacake.h>

#include "storage_disk.h"
#include "storage_engines.h"

#define SLICES      20
#define WRITERS_MAX 256
#define GROUP_MAX   3 /* engines that are measured together */

/* ---- measuring --------------------------------------------------------------------------------------------------- */

typedef enum measure {
    BATCH_1,
    BATCH_16,
    BATCH_256,
    BATCH_4096,
    WRITER,
    WRITER_LIMIT,
    CALLER,
    CALLER_LIMIT,
    WRITERS_256,
    BULK,
    REOPEN,
    LOAD,
    READS,
    SCAN,
    MEASURES
} measure_t;

static const char *const measure_names[MEASURES] = {
    "rows/s, batch 1", "rows/s, batch 16", "rows/s, batch 256", "rows/s, batch 4096",  "puts/s, 1 writer",
    "  limit",         "puts/s, 1 caller", "  limit",           "puts/s, 256 writers", "rows/s, bulk",
    "reopen, s",       "loaded rows/s",    "random reads/s",    "scanned rows/s"};
static const size_t batches[] = {1, 16, 256, 4096};

typedef struct result {
    double rate, cpu_us;
    double ratio, limit; /* of ours: to raw, to raw with ids */
} result_t;

typedef struct settings {
    uint64_t rows, there;
    double seconds;
    const char *dir, *only, *parts;
    bool keeps;
} settings_t;

static bool has_part(const settings_t *settings, const char *part)
{
    return settings->parts == NULL || strstr(settings->parts, part) != NULL;
}

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
    double slice_start_s, slice_cpu_s, rates[SLICES];
    unsigned slices;
    char path[256];
} runner_t;

static double cpu_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void slice_begin(runner_t *runner)
{
    runner->slice_start_s = now_s();
    runner->slice_cpu_s = cpu_now_s();
}

static double slice_took_s(const runner_t *runner)
{
    return now_s() - runner->slice_start_s;
}

static void slice_end(runner_t *runner, uint64_t done)
{
    double took = slice_took_s(runner);
    runner->done += done;
    runner->spent_s += took;
    runner->cpu_s += cpu_now_s() - runner->slice_cpu_s;
    check(runner->slices < SLICES, "the number of slices");
    runner->rates[runner->slices++] = (double)done / took;
}

static int by_size(const void *a, const void *b)
{
    const double *left = a, *right = b;
    return *left < *right ? -1 : *left > *right;
}

static double median_ratio(const runner_t *ours, const runner_t *raw)
{
    double ratios[SLICES];
    unsigned count = ours->slices;
    check(count == raw->slices && count > 0, "the number of slices");
    for (unsigned i = 0; i < count; i++)
        ratios[i] = ours->rates[i] / raw->rates[i];
    qsort(ratios, count, sizeof ratios[0], by_size);
    return (ratios[(count - 1) / 2] + ratios[count / 2]) / 2;
}

static void settle(runner_t *runners, size_t count, measure_t measure)
{
    double ratio = count > 1 ? median_ratio(&runners[0], &runners[1]) : 0;
    double limit = count > 2 ? median_ratio(&runners[0], &runners[2]) : 0;
    for (size_t i = 0; i < count; i++) {
        double done = (double)runners[i].done;
        runners[i].out[measure] = (result_t){done / runners[i].spent_s, runners[i].cpu_s * 1e6 / done, ratio, limit};
        runners[i].done = 0;
        runners[i].slices = 0;
        runners[i].spent_s = runners[i].cpu_s = 0;
    }
}

static void write_slice(runner_t *runner, size_t batch, double slice_s)
{
    uint64_t done = 0;
    slice_begin(runner);
    do {
        runner->engine->write(runner->state, runner->next, batch);
        runner->next += batch;
        done += batch;
    } while (slice_took_s(runner) < slice_s);
    slice_end(runner, done);
}

static void read_slice(runner_t *runner, uint64_t rows, double slice_s)
{
    uint64_t done = 0;
    slice_begin(runner);
    do {
        for (int i = 0; i < 64; i++)
            runner->engine->read(runner->state, cake__mix64(runner->done + done++) % rows);
    } while (slice_took_s(runner) < slice_s);
    slice_end(runner, done);
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

/* ---- a store on it ----------------------------------------------------------------------------------------------- */

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
    uint64_t done = load->done;
    slice_begin(runner);
    load->end = runner->slice_start_s + slice_s;
    load->running = writers;
    for (unsigned i = 0; i < writers; i++)
        write_next(load);
    pthread_mutex_lock(&load->lock);
    while (load->running > 0)
        pthread_cond_wait(&load->is_over, &load->lock);
    pthread_mutex_unlock(&load->lock);
    slice_end(runner, load->done - done);
}

static void call_slice(runner_t *runner, load_t *load, double slice_s)
{
    char text[KEY_MAX];
    uint64_t done = 0;
    slice_begin(runner);
    do {
        cake_slice_t key = make_key(load->next++, text);
        cake_key_t name = cake_key_bytes(key.data, key.len);
        check(cake_store_put(load->store, "bench", name, value, VALUE_BYTES, CAKE_NONE) == 0, "put");
        done++;
    } while (slice_took_s(runner) < slice_s);
    slice_end(runner, done);
}

/* A thread that does one thing for whoever asks, or asks the next one to do it. */
typedef struct relay {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum { IDLE, ASKED, ANSWERED, ENDING } state;
    struct relay *next; /* NULL: this one writes */
    runner_t *runner;
} relay_t;

static void relay_write(relay_t *relay)
{
    pthread_mutex_lock(&relay->lock);
    relay->state = ASKED;
    pthread_cond_signal(&relay->changed);
    while (relay->state != ANSWERED)
        pthread_cond_wait(&relay->changed, &relay->lock);
    pthread_mutex_unlock(&relay->lock);
}

static void *run_relay(void *arg)
{
    relay_t *relay = arg;
    pthread_mutex_lock(&relay->lock);
    for (;;) {
        while (relay->state != ASKED && relay->state != ENDING)
            pthread_cond_wait(&relay->changed, &relay->lock);
        if (relay->state == ENDING)
            break;
        pthread_mutex_unlock(&relay->lock);
        if (relay->next != NULL)
            relay_write(relay->next);
        else
            relay->runner->engine->write(relay->runner->state, relay->runner->next++, 1);
        pthread_mutex_lock(&relay->lock);
        relay->state = ANSWERED;
        pthread_cond_signal(&relay->changed);
    }
    pthread_mutex_unlock(&relay->lock);
    return NULL;
}

static void relay_start(relay_t *relay, relay_t *next, runner_t *runner)
{
    *relay = (relay_t){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    relay->next = next;
    relay->runner = runner;
    check(pthread_create(&relay->thread, NULL, run_relay, relay) == 0, "thread");
}

static void relay_end(relay_t *relay)
{
    pthread_mutex_lock(&relay->lock);
    relay->state = ENDING;
    pthread_cond_signal(&relay->changed);
    pthread_mutex_unlock(&relay->lock);
    pthread_join(relay->thread, NULL);
}

static void relay_slice(runner_t *runner, relay_t *relay, double slice_s)
{
    uint64_t done = 0;
    slice_begin(runner);
    do {
        relay_write(relay);
        done++;
    } while (slice_took_s(runner) < slice_s);
    slice_end(runner, done);
}

static void one_turn(runner_t *runners, size_t count, load_t *load, relay_t relays[][2], measure_t measure,
                     double slice_s)
{
    unsigned writers = measure == WRITERS_256 ? WRITERS_MAX : 1;
    if (measure == CALLER || measure == CALLER_LIMIT)
        call_slice(&runners[0], load, slice_s);
    else
        put_slice(&runners[0], load, writers, slice_s);
    for (size_t i = 1; i < count; i++) {
        if (measure == WRITER_LIMIT || measure == CALLER_LIMIT)
            relay_slice(&runners[i], &relays[i][measure == WRITER_LIMIT ? 0 : 1], slice_s);
        else
            write_slice(&runners[i], writers, slice_s);
    }
}

/* The first runner is ours. The store takes the storage and closes it. */
static void measure_store(runner_t *runners, size_t count, const settings_t *settings)
{
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    load_t load = {.lock = PTHREAD_MUTEX_INITIALIZER, .is_over = PTHREAD_COND_INITIALIZER, .next = UINT64_C(1) << 40};
    cake_node_t *node;
    relay_t relays[GROUP_MAX][2];
    config.node_id = 1;
    config.listen_addr = "127.0.0.1:0";
    check(cake_node_start(&config, &node) == 0, "node");
    check(cake_store_open(node, runners[0].state, NULL, &load.store) == 0, "store");
    writes_records = true;
    for (size_t i = 1; i < count; i++) {
        relay_start(&relays[i][0], NULL, &runners[i]);
        relay_start(&relays[i][1], &relays[i][0], NULL);
    }
    for (int m = has_part(settings, "puts") ? WRITER : WRITERS_256; m <= WRITERS_256; m++) {
        for (int slice = 0; slice < SLICES; slice++)
            one_turn(runners, count, &load, relays, (measure_t)m, settings->seconds / SLICES);
        settle(runners, count, (measure_t)m);
    }
    for (size_t i = 1; i < count; i++) {
        relay_end(&relays[i][1]);
        relay_end(&relays[i][0]);
    }
    writes_records = false;
    check(cake_store_close(load.store) == 0, "store");
    check(cake_node_stop(node) == 0, "node");
    runners[0].state = NULL;
}

/* ---- many rows --------------------------------------------------------------------------------------------------- */

static void bulk_slice(runner_t *runner, uint64_t from, uint64_t to)
{
    slice_begin(runner);
    for (uint64_t n = from; n < to; n += BATCH_MAX)
        runner->engine->write(runner->state, n, to - n < BATCH_MAX ? (size_t)(to - n) : BATCH_MAX);
    slice_end(runner, to - from);
}

static void measure_bulk(runner_t *runners, size_t count, const settings_t *settings)
{
    uint64_t first = settings->there, rows = settings->rows - first;
    for (uint64_t slice = 0; slice < SLICES && rows >= SLICES; slice++) {
        for (size_t i = 0; i < count; i++)
            bulk_slice(&runners[i], first + rows * slice / SLICES, first + rows * (slice + 1) / SLICES);
    }
    if (rows >= SLICES)
        settle(runners, count, BULK);
    for (size_t i = 0; i < count && runners[i].engine->is_lasting; i++) {
        runner_t *runner = &runners[i];
        runner->engine->close(runner->state);
        double start = now_s();
        runner->state = runner->engine->open(runner->path);
        runner->engine->read(runner->state, 0);
        runner->out[REOPEN] = (result_t){.rate = now_s() - start};
    }
    if (count > 1)
        runners[0].out[REOPEN].ratio = runners[1].out[REOPEN].rate / runners[0].out[REOPEN].rate;
    if (count > 2)
        runners[0].out[REOPEN].limit = runners[2].out[REOPEN].rate / runners[0].out[REOPEN].rate;
}

static void each_row(runner_t *runners, size_t count, const settings_t *settings, measure_t measure)
{
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < count; i++) {
            const engine_t *engine = runners[i].engine;
            slice_begin(&runners[i]);
            size_t rows = measure == LOAD ? engine->load(runners[i].state) : engine->scan(runners[i].state);
            check(rows == settings->rows, "the number of rows");
            slice_end(&runners[i], rows);
        }
    }
    settle(runners, count, measure);
}

static void measure_reads(runner_t *runners, size_t count, const settings_t *settings)
{
    each_row(runners, count, settings, LOAD);
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
    if (settings->there == 0)
        clear(settings->dir);
    for (size_t i = 0; i < count; i++) {
        snprintf(runners[i].path, sizeof runners[i].path, "%s/bench-storage-data/%s", settings->dir,
                 runners[i].engine->path);
        runners[i].state = runners[i].engine->open(runners[i].path);
    }
}

static void close_group(runner_t *runners, size_t count, const settings_t *settings)
{
    for (size_t i = 0; i < count; i++)
        if (runners[i].state != NULL)
            runners[i].engine->close(runners[i].state);
    if (!settings->keeps)
        clear(settings->dir);
}

static void measure_group(size_t first, size_t count, const settings_t *settings, result_t results[][MEASURES])
{
    runner_t runners[GROUP_MAX] = {{.engine = NULL}};
    for (size_t i = 0; i < count; i++)
        runners[i] = (runner_t){.engine = &engines[first + i], .out = results[first + i]};
    if (has_part(settings, "writes")) {
        open_group(runners, count, settings);
        measure_writes(runners, count, settings);
        close_group(runners, count, settings);
    }
    if (has_part(settings, "puts") || has_part(settings, "writers")) {
        open_group(runners, count, settings);
        measure_store(runners, count, settings);
        close_group(runners, count, settings);
    }
    if (!has_part(settings, "bulk") && !has_part(settings, "reads"))
        return;
    open_group(runners, count, settings);
    if (has_part(settings, "bulk"))
        measure_bulk(runners, count, settings);
    if (has_part(settings, "reads"))
        measure_reads(runners, count, settings);
    close_group(runners, count, settings);
}

static void print_line(result_t results[][MEASURES], int m, bool is_cpu)
{
    printf("%-20s", is_cpu ? "  us of CPU" : measure_names[m]);
    for (size_t i = 0; i < ENGINES; i++)
        printf(is_cpu        ? "%12.2f"
               : m == REOPEN ? "%12.3f"
                             : "%12.0f",
               is_cpu ? results[i][m].cpu_us : results[i][m].rate);
    for (size_t i = 1; i < ENGINES && !is_cpu; i += GROUP_MAX)
        printf("%9.2f%7.2f", results[i][m].ratio, results[i][m].limit);
    printf("\n");
}

static void print_table(result_t results[][MEASURES])
{
    printf("%-20s", "");
    for (size_t i = 0; i < ENGINES; i++)
        printf("%12s", engines[i].name);
    printf("%9s%7s%9s%7s\n", "sqlite/", "/ids", "lmdb/", "/ids");
    for (int m = 0; m < MEASURES; m++) {
        double sum = 0;
        for (size_t i = 0; i < ENGINES; i++)
            sum += results[i][m].rate;
        if (sum == 0)
            continue; /* a part that was not asked for */
        print_line(results, m, false);
        if (m != REOPEN)
            print_line(results, m, true);
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
        else if (strcmp(name, "--parts") == 0)
            settings.parts = given;
        else if (strcmp(name, "--sequential") == 0)
            sequential = strtoull(given, NULL, 10);
        else if (strcmp(name, "--sync-us") == 0)
            slow_syncs_down(strtoull(given, NULL, 10));
        else if (strcmp(name, "--there") == 0)
            settings.there = strtoull(given, NULL, 10);
        else if (strcmp(name, "--keep") == 0)
            settings.keeps = true;
        else if (strcmp(name, "--key-bytes") == 0)
            key_bytes = (unsigned)strtoul(given, NULL, 10);
        else
            check(false, "an option nobody knows");
    }
    check(settings.rows > 0 && settings.there <= settings.rows &&
              ((key_bytes >= 8 && key_bytes <= 32) || key_bytes == 36),
          "the choice of --rows, --there and --key-bytes (8 to 32, or 36: UUIDs)");
    memset(value, 'v', sizeof value);
    for (size_t i = 0; i < ENGINES;
         i += i == 0 ? 1 : GROUP_MAX) { /* memory alone, the others with their raw counterparts */
        if (settings.only == NULL || strcmp(engines[i].name, settings.only) == 0)
            measure_group(i, i == 0 ? 1 : GROUP_MAX, &settings, results);
    }
    printf("%" PRIu64 " rows, keys of %u bytes, values of %d; each sync %" PRIu64 " us longer\n", settings.rows,
           key_bytes, VALUE_BYTES, sync_us);
    print_table(results);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("peak memory of the process: %ld MiB (with the pages of mapped files)\n", usage.ru_maxrss / 1024);
    return 0;
}
