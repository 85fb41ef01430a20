/* bench-crdt: the set alone. For each number of entries, order of keys and kind of key:
 *
 *      insert, insert in batches, update, get, delete, purge, diff, merge, pull, save, load
 *
 * in ns per operation, bytes per live entry, and the longest single call ("pause"). Medians of ROUNDS runs.
 *      bench-crdt [ENTRIES...]      default: 1000000 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <datacake/orswot.h>

#include "base/random.h"

#ifndef ROUNDS
#define ROUNDS 5
#endif
#define WALL_MS UINT64_C(1795342830123)

typedef struct work {
    size_t count;
    cake_id_t *ids;   /* in the order of use */
    uint64_t wall_ms; /* moves on as writes do, a thousand per ms */
    double pause_ns;
} work_t;

/* CPU time, so that other programs on the machine count less. */
static double now_ns(void)
{
    struct timespec at;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

static void must_be_ok(int err)
{
    if (err != 0) {
        fprintf(stderr, "bench-crdt: %s\n", cake_strerror(err));
        exit(1);
    }
}

static void *must(void *memory)
{
    if (memory == NULL)
        must_be_ok(CAKE_ENOMEM);
    return memory;
}

static cake_orswot_t *set_new(uint64_t actor)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set;
    config.actor = actor;
    must_be_ok(cake_orswot_new(&config, &set));
    return set;
}

static uint64_t wall(work_t *work, size_t i)
{
    return work->wall_ms + i / 1000;
}

/* ---- the rows ------------------------------------------------------------------------------------------------------- */

static double write_all(cake_orswot_t *set, work_t *work, bool is_delete)
{
    double began = now_ns();
    for (size_t i = 0; i < work->count; i++)
        must_be_ok(is_delete ? cake_orswot_delete(set, wall(work, i), &work->ids[i], NULL)
                             : cake_orswot_insert(set, wall(work, i), &work->ids[i], NULL));
    work->wall_ms = wall(work, work->count) + 1;
    return (now_ns() - began) / (double)work->count;
}

static double write_batches(cake_orswot_t *set, work_t *work)
{
    double began = now_ns();
    for (size_t i = 0, done; i < work->count; i += done)
        must_be_ok(cake_orswot_insert_many(set, wall(work, i), work->ids + i,
                                           work->count - i < 1000 ? work->count - i : 1000, NULL, &done));
    work->wall_ms = wall(work, work->count) + 1;
    return (now_ns() - began) / (double)work->count;
}

/* The same again with a clock around each call. */
static void find_pause(cake_orswot_t *set, work_t *work)
{
    for (size_t i = 0; i < work->count; i++) {
        double began = now_ns();
        must_be_ok(cake_orswot_insert(set, wall(work, i), &work->ids[i], NULL));
        double took = now_ns() - began;
        work->pause_ns = took > work->pause_ns ? took : work->pause_ns;
    }
    work->wall_ms = wall(work, work->count) + 1;
}

static double get_all(cake_orswot_t *set, work_t *work)
{
    double began = now_ns();
    uint64_t sum = 0;
    cake_record_t record;
    for (size_t i = 0; i < work->count; i++)
        sum += cake_orswot_get(set, &work->ids[i], &record) ? record.hlc : 0;
    double took = now_ns() - began;
    if (sum == 0)
        must_be_ok(CAKE_EINTERNAL);
    return took / (double)work->count;
}

static double purge_all(cake_orswot_t *set, work_t *work)
{
    size_t dropped = 0, total = 0;
    double began = now_ns();
    do {
        must_be_ok(cake_orswot_purge(set, work->wall_ms + 60000, NULL, 0, 1000, 1000, 100000, &dropped));
        total += dropped;
    } while (dropped > 0);
    double took = now_ns() - began;
    if (total != work->count)
        must_be_ok(CAKE_EINTERNAL);
    return took / (double)work->count;
}

/* ns for all records that one side lacks */
static double diff_once(cake_orswot_t *set, cake_orswot_t *other, cake_record_t *records, size_t expected)
{
    double best = 1e18;
    for (int i = 0; i < 20; i++) {
        cake_orswot_cursor_t cursor = {{0}};
        double began = now_ns();
        size_t found = cake_orswot_diff(set, other, &cursor, records, expected + 1);
        double took = now_ns() - began;
        if (found != expected)
            must_be_ok(CAKE_EINTERNAL);
        best = took < best ? took : best;
    }
    return best;
}

typedef struct results {
    double insert, batched, update, get, remove, purge, diff_10, diff_10k, merge_10, pull_all, bytes, pause, save, load,
        saved_bytes;
} results_t;

typedef struct tape {
    uint8_t *bytes;
    size_t len, at, capacity;
} tape_t;

static int tape_write(void *ctx, const void *data, size_t len)
{
    tape_t *tape = ctx;
    if (tape->len + len > tape->capacity)
        return CAKE_ENOSPC;
    memcpy(tape->bytes + tape->len, data, len);
    tape->len += len;
    return 0;
}

static int tape_read(void *ctx, void *data, size_t len)
{
    tape_t *tape = ctx;
    size_t part = tape->len - tape->at < len ? tape->len - tape->at : len;
    memcpy(data, tape->bytes + tape->at, part);
    tape->at += part;
    return (int)part;
}

static void save_and_load(cake_orswot_t *set, work_t *work, results_t *out)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *back;
    tape_t tape = {.capacity = work->count * 48 + 65536};
    tape.bytes = must(calloc(tape.capacity, 1));
    config.actor = 99;
    double began = now_ns();
    must_be_ok(cake_orswot_save(set, tape_write, &tape));
    out->save = (now_ns() - began) / (double)work->count;
    out->saved_bytes = (double)tape.len / (double)work->count;
    began = now_ns();
    must_be_ok(cake_orswot_load(&config, tape_read, &tape, &back));
    out->load = (now_ns() - began) / (double)work->count;
    if (cake_orswot_fingerprint(back) != cake_orswot_fingerprint(set))
        must_be_ok(CAKE_EINTERNAL);
    cake_orswot_free(back);
    free(tape.bytes);
}

static double merge_with_differences(work_t *work, cake_orswot_t *a, cake_orswot_t *b, size_t differences)
{
    for (size_t i = 0; i < differences / 2; i++) {
        must_be_ok(cake_orswot_insert(a, work->wall_ms, &work->ids[i * 7 % work->count], NULL));
        must_be_ok(cake_orswot_insert(b, work->wall_ms, &work->ids[i * 11 % work->count], NULL));
    }
    double began = now_ns();
    must_be_ok(cake_orswot_merge(a, b, work->wall_ms));
    double took = now_ns() - began;
    if (!cake_orswot_is_in_sync(a, b) || cake_orswot_fingerprint(a) != cake_orswot_fingerprint(b))
        must_be_ok(CAKE_EINTERNAL);
    return took;
}

static void one_round(work_t *work, results_t *out)
{
    cake_orswot_statistics_t statistics;
    cake_record_t *records = must(calloc(10001, sizeof *records));
    cake_orswot_t *set = set_new(11), *copy = set_new(12), *batched = set_new(13), *timed = set_new(14);
    out->insert = write_all(set, work, false);
    cake_orswot_statistics(set, &statistics);
    out->bytes = (double)statistics.bytes / (double)work->count;
    out->get = get_all(set, work);
    save_and_load(set, work, out);
    out->batched = write_batches(batched, work);
    find_pause(timed, work);
    out->pause = work->pause_ns;
    cake_orswot_free(batched);
    cake_orswot_free(timed);
    double began = now_ns();
    must_be_ok(cake_orswot_pull(copy, set, work->wall_ms));
    out->pull_all = (now_ns() - began) / (double)work->count;
    for (size_t i = 0; i < 10; i++)
        must_be_ok(cake_orswot_insert(set, work->wall_ms, &work->ids[i], NULL));
    out->diff_10 = diff_once(set, copy, records, 10);
    for (size_t i = 10; i < 10000; i++)
        must_be_ok(cake_orswot_insert(set, work->wall_ms, &work->ids[i], NULL));
    out->diff_10k = diff_once(set, copy, records, 10000);
    must_be_ok(cake_orswot_merge(set, copy, work->wall_ms));
    out->merge_10 = merge_with_differences(work, set, copy, 10);
    out->update = write_all(set, work, false);
    out->remove = write_all(set, work, true);
    out->purge = purge_all(set, work);
    cake_orswot_free(set);
    cake_orswot_free(copy);
    free(records);
}

/* ---- the table -------------------------------------------------------------------------------------------------------- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void median_of(const results_t *rounds, results_t *out)
{
    const size_t fields = sizeof(results_t) / sizeof(double);
    for (size_t field = 0; field < fields; field++) {
        double values[ROUNDS];
        for (int i = 0; i < ROUNDS; i++)
            values[i] = ((const double *)(const void *)&rounds[i])[field];
        qsort(values, ROUNDS, sizeof values[0], compare_doubles);
        ((double *)(void *)out)[field] = values[ROUNDS / 2];
    }
}

static void make_ids(work_t *work, bool is_random, bool is_long)
{
    cake__random_t random;
    cake__random_init(&random, 1);
    for (size_t i = 0; i < work->count; i++) {
        work->ids[i] = cake_id_of_u64(i);
        if (is_long) { /* as of keys above 15 bytes: a digest */
            uint64_t words[2] = {cake__mix64(i + 1), cake__mix64(~i)};
            memcpy(work->ids[i].bytes, words, 15);
            work->ids[i].bytes[15] = 0xff;
        }
    }
    for (size_t i = work->count; i-- > 1 && is_random;) {
        size_t k = (size_t)cake__random_below(&random, i + 1);
        cake_id_t swap = work->ids[i];
        work->ids[i] = work->ids[k];
        work->ids[k] = swap;
    }
}

static void run(size_t count, bool is_random, bool is_long)
{
    results_t rounds[ROUNDS], median;
    work_t work = {.count = count, .ids = must(calloc(count, sizeof(cake_id_t)))};
    make_ids(&work, is_random, is_long);
    for (int i = 0; i < ROUNDS; i++) {
        work.wall_ms = WALL_MS;
        work.pause_ns = 0;
        one_round(&work, &rounds[i]);
    }
    median_of(rounds, &median);
    printf("%9zu %-6s %-5s | insert %5.1f  batched %5.1f  update %5.1f  get %5.1f  delete %5.1f  purge %4.2f ns | "
           "%5.1f B | diff 10: %.2f us  10k: %.1f us | merge 10: %.3f ms | pull %5.1f ns | pause %.0f us | "
           "save %.1f  load %.1f ns  %.1f B\n",
           count, is_random ? "random" : "order", is_long ? "long" : "8 B", median.insert, median.batched,
           median.update, median.get, median.remove, median.purge, median.bytes, median.diff_10 / 1e3,
           median.diff_10k / 1e3, median.merge_10 / 1e6, median.pull_all, median.pause / 1e3, median.save, median.load,
           median.saved_bytes);
    fflush(stdout);
    free(work.ids);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < (argc > 1 ? argc : 2); i++) {
        size_t count = argc > 1 ? (size_t)strtoull(argv[i], NULL, 10) : 1000000;
        if (count < 20000) {
            fprintf(stderr, "usage: bench-crdt [ENTRIES...], at least 20000\n");
            return 2;
        }
        for (int kind = 0; kind < 4; kind++)
            run(count, kind & 1, kind & 2);
    }
    return 0;
}
