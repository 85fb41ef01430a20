/* bench.c: `datacake bench`: load on a running cluster over HTTP, with the latencies that clients see.
 *
 * A histogram per worker, merged at the end: 16 buckets per power of two of microseconds, so that a percentile is
 * off by at most 6%. */
#include "client.h"
#include "clock.h"
#include "progress.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <datacake/key.h>
#include <datacake/node.h>

#define WORKERS_MAX 1024u
#define VALUE_MAX   (16u << 20)
#define SUB_BUCKETS 16u
#define BUCKETS     (40u * SUB_BUCKETS)

static const flag_t flags[] = {
    {"keyspace", "NAME", "where to write (bench)"},
    {"writers", "N", "clients at once (16)"},
    {"value-bytes", "N", "size of each value (100)"},
    {"keys", "N", "different keys (100000)"},
    {"reads", "PERCENT", "how many of the requests are reads (0)"},
    {"consistency", "LEVEL", "of the writes (quorum)"},
    {"duration-s", "N", "how long (10)"},
    {"json", NULL, "print the result as JSON"},
    CLIENT_FLAGS,
    {NULL, NULL, NULL},
};

typedef struct histogram {
    uint64_t counts[BUCKETS];
    uint64_t total, max_us;
} histogram_t;

typedef struct bench {
    const args_t *args;
    uint64_t writers, value_bytes, keys, reads, duration_s;
    const char *level, *keyspace;
    char *value;
    uint64_t end_ms;
} bench_t;

typedef struct worker {
    bench_t *bench;
    client_t *client;
    pthread_t thread;
    uint64_t random;
    histogram_t writes, reads;
    uint64_t errors;
    int status;
    char message[256];
} worker_t;

static unsigned bucket_of(uint64_t us)
{
    if (us < SUB_BUCKETS)
        return (unsigned)us;
    unsigned power = 63u - (unsigned)__builtin_clzll(us); /* at least 4 */
    unsigned bucket = (power - 3) * SUB_BUCKETS + (unsigned)(us >> (power - 4) & (SUB_BUCKETS - 1));
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static uint64_t bucket_end_us(unsigned bucket)
{
    if (bucket < SUB_BUCKETS)
        return bucket;
    unsigned power = bucket / SUB_BUCKETS + 3;
    return ((UINT64_C(1) << 4 | bucket % SUB_BUCKETS) + 1) << (power - 4);
}

static void note(histogram_t *histogram, uint64_t us)
{
    histogram->counts[bucket_of(us)]++;
    histogram->total++;
    histogram->max_us = us > histogram->max_us ? us : histogram->max_us;
}

static void merge(histogram_t *into, const histogram_t *from)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        into->counts[i] += from->counts[i];
    into->total += from->total;
    into->max_us = from->max_us > into->max_us ? from->max_us : into->max_us;
}

static double percentile_ms(const histogram_t *histogram, double percent)
{
    uint64_t wanted = (uint64_t)((double)histogram->total * percent / 100), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += histogram->counts[i];
        if (seen > wanted)
            return (double)(bucket_end_us(i) < histogram->max_us ? bucket_end_us(i) : histogram->max_us) / 1000;
    }
    return (double)histogram->max_us / 1000;
}

static uint64_t next_random(worker_t *worker)
{
    uint64_t x = worker->random += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static bool make_request(worker_t *worker, client_t *client)
{
    bench_t *bench = worker->bench;
    char path[512];
    response_t response;
    bool is_read = next_random(worker) % 100 < bench->reads;
    snprintf(path, sizeof(path), "/kv/%s/key-%llu%s%s", bench->keyspace,
             (unsigned long long)(next_random(worker) % bench->keys),
             is_read ? "" : "?consistency=", is_read ? "" : bench->level);
    uint64_t began_us = monotonic_us();
    int err = client_request(client, is_read ? "GET" : "PUT", path, is_read ? NULL : bench->value, bench->value_bytes,
                             NULL, NULL, &response);
    bool is_done = err == 0 && (response.status == 200 || (is_read && response.status == 404));
    if (is_done)
        note(is_read ? &worker->reads : &worker->writes, monotonic_us() - began_us);
    else
        worker->errors++;
    if (err != 0) {
        worker->status = EXIT_UNREACHABLE;
        snprintf(worker->message, sizeof(worker->message), "cannot reach %s: %s", client_url(client),
                 client_message(client));
    } else if (!is_done) {
        worker->status = client_explain(&response, worker->message, sizeof(worker->message));
    }
    response_free(&response);
    return err == 0;
}

/* One request at least: a machine that is slow to start it has a figure, too. */
static void *run_worker(void *arg)
{
    worker_t *worker = arg;
    while (make_request(worker, worker->client) && monotonic_ms() < worker->bench->end_ms)
        continue;
    return NULL;
}

static void print_histogram(const char *name, const histogram_t *histogram, double spent_s)
{
    if (histogram->total == 0)
        return;
    printf("%-7s %10.0f/s   p50 %.2f ms   p90 %.2f   p99 %.2f   p99.9 %.2f   max %.2f\n", name,
           (double)histogram->total / spent_s, percentile_ms(histogram, 50), percentile_ms(histogram, 90),
           percentile_ms(histogram, 99), percentile_ms(histogram, 99.9), (double)histogram->max_us / 1000);
}

static void print_json(const char *name, const histogram_t *histogram, double spent_s)
{
    printf("\"%s\":{\"count\":%llu,\"per_s\":%.1f,\"p50_ms\":%.3f,\"p90_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,"
           "\"max_ms\":%.3f},",
           name, (unsigned long long)histogram->total, (double)histogram->total / spent_s, percentile_ms(histogram, 50),
           percentile_ms(histogram, 90), percentile_ms(histogram, 99), percentile_ms(histogram, 99.9),
           (double)histogram->max_us / 1000);
}

static int report(const bench_t *bench, const worker_t *workers, double spent_s)
{
    histogram_t *totals = calloc(2, sizeof(*totals));
    const worker_t *failed = NULL;
    uint64_t errors = 0;
    if (totals == NULL)
        return fail(bench->args, EXIT_OTHER, "out of memory");
    for (uint64_t i = 0; i < bench->writers; i++) {
        merge(&totals[0], &workers[i].writes);
        merge(&totals[1], &workers[i].reads);
        errors += workers[i].errors;
        failed = workers[i].status != 0 ? &workers[i] : failed;
    }
    if (args_has(bench->args, "json")) {
        printf("{");
        print_json("writes", &totals[0], spent_s);
        print_json("reads", &totals[1], spent_s);
        printf("\"errors\":%llu,\"seconds\":%.3f}\n", (unsigned long long)errors, spent_s);
    } else {
        print_histogram("writes", &totals[0], spent_s);
        print_histogram("reads", &totals[1], spent_s);
        printf("errors  %10llu\n", (unsigned long long)errors);
    }
    free(totals);
    return failed == NULL ? EXIT_DONE : fail(bench->args, failed->status, "%s", failed->message);
}

static int read_bench_flags(bench_t *bench)
{
    const args_t *args = bench->args;
    cake_consistency_t level;
    bench->level = args_value(args, "consistency", "quorum");
    bench->keyspace = args_value(args, "keyspace", "bench");
    if (cake_consistency_parse(bench->level, &level) != 0)
        return fail(args, EXIT_USAGE, "there is no consistency level \"%s\"", bench->level);
    if (strlen(bench->keyspace) > CAKE_KEYSPACE_NAME_MAX || strpbrk(bench->keyspace, "/?&% ") != NULL ||
        *bench->keyspace == 0)
        return fail(args, EXIT_USAGE, "--keyspace takes a plain name here");
    if (args_number(args, "writers", 1, WORKERS_MAX, &bench->writers) != 0 ||
        args_number(args, "value-bytes", 0, VALUE_MAX, &bench->value_bytes) != 0 ||
        args_number(args, "keys", 1, UINT64_MAX, &bench->keys) != 0 ||
        args_number(args, "reads", 0, 100, &bench->reads) != 0 ||
        args_number(args, "duration-s", 1, 86400, &bench->duration_s) != 0)
        return EXIT_USAGE;
    return 0;
}

static int run_bench(const args_t *args)
{
    bench_t bench = {.args = args, .writers = 16, .value_bytes = 100, .keys = 100000, .duration_s = 10};
    int status = read_bench_flags(&bench);
    if (status != 0)
        return status;
    worker_t *workers = calloc(bench.writers, sizeof(*workers));
    bench.value = malloc(bench.value_bytes + 1);
    if (workers == NULL || bench.value == NULL) {
        free(workers);
        free(bench.value);
        return fail(args, EXIT_OTHER, "out of memory");
    }
    for (uint64_t i = 0; i < bench.value_bytes; i++)
        bench.value[i] = (char)('a' + i % 26);
    uint64_t began_us = monotonic_us(), started = 0;
    bench.end_ms = monotonic_ms() + bench.duration_s * 1000;
    for (bool has_started = true; status == 0 && has_started && started < bench.writers; started += has_started) {
        worker_t *worker = &workers[started];
        worker->bench = &bench;
        worker->random = began_us + started;
        status = client_from_args(args, &worker->client);
        has_started = status == 0 && pthread_create(&worker->thread, NULL, run_worker, worker) == 0;
        if (!has_started)
            client_close(worker->client);
    }
    for (uint64_t i = 0; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
        client_close(workers[i].client);
    }
    bench.writers = started;
    if (status == 0)
        status = report(&bench, workers, (double)(monotonic_us() - began_us) / 1e6);
    free(workers);
    free(bench.value);
    return status;
}

const command_t bench_command = {
    .name = "bench",
    .operands = "",
    .summary = "put load on a running cluster and measure what clients see",
    .flags = flags,
    .run = run_bench,
};
