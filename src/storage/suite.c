#include "storage/suite.h"

#include "base/map.h"

#include <stdio.h>
#include <time.h>

void cake__suite_fail(cake__suite_t *suite, const char *file, int line, const char *text)
{
    if (suite->failed)
        return;
    suite->failed = true;
    const char *name = strrchr(file, '/');
    snprintf(suite->why, sizeof suite->why, "%s:%d: %s", name == NULL ? file : name + 1, line, text);
}

void cake__suite_skip(cake__suite_t *suite, const char *why)
{
    suite->skipped = true;
    snprintf(suite->why, sizeof suite->why, "%s", why);
}

cake_id_t cake__suite_id(cake_slice_t key)
{
    cake_id_t id = {{0}};
    if (cake_id_of_key(key, &id))
        return id;
    uint64_t first = cake__hash_bytes(key.data, key.len), second = cake__mix64(first ^ key.len);
    memcpy(id.bytes, &first, 8);
    memcpy(id.bytes + 8, &second, 7);
    id.bytes[15] = 0xff;
    return id;
}

void cake__suite_reopen(cake__suite_t *suite)
{
    CAKE_ASSERT(suite->keeps);
    cake_storage_close(suite->storage);
    suite->storage = NULL;
    int err = suite->factory(suite->arg, false, &suite->storage);
    CAKE__CHECK(suite, err == 0);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static cake_write_t make_write(cake_write_kind_t kind, const char *keyspace, cake_slice_t key, uint64_t hlc)
{
    return (cake_write_t){.kind = kind,
                          .keyspace = cake__slice_str(keyspace),
                          .key = key,
                          .id = cake__suite_id(key),
                          .hlc = hlc,
                          .dot = {7, hlc + 1}};
}

cake_write_t cake__suite_put(const char *keyspace, cake_slice_t key, cake_slice_t value, uint64_t hlc)
{
    cake_write_t write = make_write(CAKE_WRITE_PUT, keyspace, key, hlc);
    write.value = value;
    return write;
}

cake_write_t cake__suite_tombstone(const char *keyspace, cake_slice_t key, uint64_t hlc)
{
    return make_write(CAKE_WRITE_TOMBSTONE, keyspace, key, hlc);
}

cake_write_t cake__suite_erase(const char *keyspace, cake_slice_t key)
{
    cake_write_t write = make_write(CAKE_WRITE_ERASE, keyspace, key, 0);
    write.key = cake__slice(NULL, 0); /* by id alone, as the interface allows */
    return write;
}

int cake__suite_commit(cake__suite_t *suite, const cake_write_t *writes, size_t count, const cake_meta_write_t *metas,
                       size_t meta_count)
{
    cake_storage_t *storage = suite->storage;
    cake_batch_t batch = {0, writes, count, metas, meta_count};
    if (count > 0)
        batch.lane = storage->ops->lane_of(storage, writes[0].keyspace);
    return storage->ops->write(storage, &batch);
}

int cake__suite_commit_one(cake__suite_t *suite, cake_write_t write)
{
    return cake__suite_commit(suite, &write, 1, NULL, 0);
}

/* ---- expecting --------------------------------------------------------------------------------------------------- */

typedef struct expected_row {
    cake_write_t write;
    bool matches;
    size_t calls;
} expected_row_t;

static int compare_row(void *arg, const cake_row_t *row)
{
    expected_row_t *expected = arg;
    const cake_write_t *write = &expected->write;
    bool is_tombstone = write->kind == CAKE_WRITE_TOMBSTONE;
    bool same_id = memcmp(row->id.bytes, write->id.bytes, sizeof write->id.bytes) == 0;
    bool same_dot = row->dot.actor == write->dot.actor && row->dot.seq == write->dot.seq;
    expected->calls++;
    expected->matches = same_id && same_dot && row->hlc == write->hlc && row->is_tombstone == is_tombstone &&
                        cake__slice_equal(row->key, write->key) && cake__slice_equal(row->value, write->value);
    return 0;
}

static void expect_row(cake__suite_t *suite, cake_write_t write)
{
    cake_storage_t *storage = suite->storage;
    expected_row_t expected = {.write = write};
    int err = storage->ops->fetch(storage, write.keyspace, &write.id, 1, compare_row, &expected);
    CAKE__CHECK(suite, err == 0);
    bool row_was_found = expected.calls == 1;
    CAKE__CHECK(suite, row_was_found);
    bool row_matches = expected.matches;
    CAKE__CHECK(suite, row_matches);
}

static void expect_not_found(cake__suite_t *suite, const char *keyspace, cake_slice_t key)
{
    cake_doc_t *doc = NULL;
    int err = suite->storage->ops->get(suite->storage, cake__slice_str(keyspace), key, &doc);
    bool get_says_not_found = err == CAKE_ENOTFOUND;
    cake_doc_free(err == 0 ? doc : NULL);
    CAKE__CHECK(suite, get_says_not_found);
}

void cake__suite_expect_live(cake__suite_t *suite, const char *keyspace, cake_slice_t key, cake_slice_t value,
                             uint64_t hlc)
{
    cake_doc_t *doc = NULL;
    cake_write_t write = cake__suite_put(keyspace, key, value, hlc);
    int get_result = suite->storage->ops->get(suite->storage, write.keyspace, key, &doc);
    CAKE__CHECK(suite, get_result == 0);
    cake_dot_t dot = cake_doc_dot(doc);
    bool same_bytes = cake__slice_equal(cake_doc_key(doc), key) && cake__slice_equal(cake_doc_value(doc), value);
    bool same_version = cake_doc_timestamp(doc) == hlc && dot.actor == write.dot.actor && dot.seq == write.dot.seq;
    cake_doc_free(doc);
    CAKE__CHECK(suite, same_bytes);
    CAKE__CHECK(suite, same_version);
    expect_row(suite, write);
}

void cake__suite_expect_tombstone(cake__suite_t *suite, const char *keyspace, cake_slice_t key, uint64_t hlc)
{
    expect_not_found(suite, keyspace, key);
    expect_row(suite, cake__suite_tombstone(keyspace, key, hlc));
}

void cake__suite_expect_absent(cake__suite_t *suite, const char *keyspace, cake_slice_t key)
{
    expect_not_found(suite, keyspace, key);
    cake_id_t id = cake__suite_id(key);
    expected_row_t expected = {0};
    int err = suite->storage->ops->fetch(suite->storage, cake__slice_str(keyspace), &id, 1, compare_row, &expected);
    CAKE__CHECK(suite, err == 0);
    bool row_is_absent = expected.calls == 0;
    CAKE__CHECK(suite, row_is_absent);
}

typedef struct expected_meta {
    cake_slice_t name, value;
    size_t calls;
    bool matches;
} expected_meta_t;

static int compare_meta(void *arg, cake_slice_t name, cake_slice_t value)
{
    expected_meta_t *expected = arg;
    if (!cake__slice_equal(name, expected->name))
        return 0;
    expected->calls++;
    expected->matches = cake__slice_equal(value, expected->value);
    return 0;
}

void cake__suite_expect_meta(cake__suite_t *suite, unsigned lane, const char *name, cake_slice_t value)
{
    expected_meta_t expected = {.name = cake__slice_str(name), .value = value};
    int err = suite->storage->ops->metas(suite->storage, lane, expected.name, compare_meta, &expected);
    CAKE__CHECK(suite, err == 0);
    bool meta_is_there_or_not = expected.calls == (value.data != NULL ? 1 : 0);
    CAKE__CHECK(suite, meta_is_there_or_not);
    bool meta_matches = expected.calls == 0 || expected.matches;
    CAKE__CHECK(suite, meta_matches);
}

typedef struct row_counts {
    size_t live, dead;
    bool is_sound;
} row_counts_t;

static int count_row(void *arg, const cake_row_t *row)
{
    row_counts_t *counts = arg;
    cake_id_t id = cake__suite_id(row->key);
    counts->live += !row->is_tombstone;
    counts->dead += row->is_tombstone;
    counts->is_sound = counts->is_sound && memcmp(id.bytes, row->id.bytes, sizeof id.bytes) == 0 && row->value.len == 0;
    return 0;
}

static int count_scanned(void *arg, const cake_row_t *row)
{
    (void)row;
    (*(size_t *)arg)++;
    return 0;
}

void cake__suite_expect_counts(cake__suite_t *suite, const char *keyspace, size_t live, size_t dead)
{
    row_counts_t counts = {.is_sound = true};
    size_t scanned = 0;
    cake_scan_t all = {.limit = 0};
    cake_slice_t name = cake__slice_str(keyspace);
    int err = suite->storage->ops->metadata(suite->storage, name, count_row, &counts);
    CAKE__CHECK(suite, err == 0);
    CAKE__CHECK(suite, counts.live == live);
    CAKE__CHECK(suite, counts.dead == dead);
    bool metadata_has_id_and_key_but_no_value = counts.is_sound;
    CAKE__CHECK(suite, metadata_has_id_and_key_but_no_value);
    err = suite->storage->ops->scan(suite->storage, name, &all, count_scanned, &scanned);
    CAKE__CHECK(suite, err == 0);
    CAKE__CHECK(suite, scanned == live);
}

bool cake__suite_name(cake__suite_t *suite, const char *keyspace, bool same_lane, unsigned n, char out[32])
{
    cake_storage_t *storage = suite->storage;
    unsigned lane = storage->ops->lane_of(storage, cake__slice_str(keyspace));
    if (!same_lane && storage->ops->lanes(storage) == 1)
        return false;
    for (unsigned i = 0; i < 100000; i++) {
        snprintf(out, 32, "other-%u-%u", n, i);
        if ((storage->ops->lane_of(storage, cake__slice_str(out)) == lane) == same_lane)
            return true;
    }
    return false;
}

typedef struct name_count {
    const char *name;
    size_t count;
} name_count_t;

static int count_name(void *arg, const char *name)
{
    name_count_t *counted = arg;
    counted->count += strcmp(name, counted->name) == 0;
    return 0;
}

size_t cake__suite_count_keyspaces(cake__suite_t *suite, const char *name)
{
    name_count_t counted = {name, 0};
    int err = suite->storage->ops->keyspaces(suite->storage, count_name, &counted);
    return err == 0 ? counted.count : SIZE_MAX;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void report_line(cake__suite_t *suite, const char *name, double ms)
{
    if (suite->report == NULL)
        return;
    const char *verdict = suite->failed ? "FAILED" : suite->skipped ? "skipped" : "ok";
    fprintf(suite->report, "%-8s %-56s %9.1f ms%s%s\n", verdict, name, ms, suite->failed || suite->skipped ? "  " : "",
            suite->why);
    fflush(suite->report);
}

static void check_integrity(cake__suite_t *suite)
{
    char text[256] = "";
    cake_storage_t *storage = suite->storage;
    if (storage->ops->check == NULL || storage->ops->check(storage, text, sizeof text) == 0)
        return;
    cake__suite_fail(suite, __FILE__, __LINE__, text);
}

static void run_case(cake__suite_t *suite, const cake__suite_case_t *test)
{
    double start = now_ms();
    suite->failed = suite->skipped = false;
    suite->why[0] = '\0';
    if (test->needs_reopening && !suite->keeps) {
        cake__suite_skip(suite, "keeps nothing beyond close");
    } else if (suite->factory(suite->arg, true, &suite->storage) != 0) {
        cake__suite_fail(suite, __FILE__, __LINE__, "the factory opens a fresh storage");
    } else {
        test->run(suite);
        if (suite->storage != NULL)
            check_integrity(suite);
        cake_storage_close(suite->storage);
    }
    suite->storage = NULL;
    report_line(suite, test->name, now_ms() - start);
}

/* A storage that keeps nothing says so when it is asked to open what it held. */
static int probe(cake__suite_t *suite)
{
    int err = suite->factory(suite->arg, true, &suite->storage);
    if (err != 0)
        return err;
    cake_storage_close(suite->storage);
    suite->storage = NULL;
    err = suite->factory(suite->arg, false, &suite->storage);
    suite->keeps = err == 0;
    if (err == 0)
        cake_storage_close(suite->storage);
    suite->storage = NULL;
    return err == CAKE_EUNAVAILABLE ? 0 : err;
}

int cake_storage_suite_run_with(const cake_storage_suite_options_t *options, cake_storage_factory_fn factory, void *arg,
                                FILE *report)
{
    const cake__suite_case_t *groups[] = {cake__suite_row_cases,  cake__suite_scan_cases,   cake__suite_random_cases,
                                          cake__suite_size_cases, cake__suite_thread_cases, cake__suite_crash_cases};
    cake__suite_t suite = {.factory = factory, .arg = arg, .report = report};
    unsigned passed = 0, failed = 0, skipped = 0;
    int err = cake__options_copy(&suite.options, sizeof suite.options, options);
    if (err != 0)
        return err;
    suite.options.rows = suite.options.rows == 0 ? 100000 : suite.options.rows;
    suite.options.kills = suite.options.kills == 0 ? 8 : suite.options.kills;
    suite.options.steps = suite.options.steps == 0 ? 2000 : suite.options.steps;
    err = probe(&suite);
    if (err != 0) {
        if (report != NULL)
            fprintf(report, "FAILED   the factory returned %s\n", cake_err_name(err));
        return CAKE_EINTERNAL;
    }
    for (size_t i = 0; i < CAKE_COUNT_OF(groups); i++) {
        for (const cake__suite_case_t *test = groups[i]; test->name != NULL; test++) {
            if (suite.options.only != NULL && strstr(test->name, suite.options.only) == NULL)
                continue;
            run_case(&suite, test);
            failed += suite.failed;
            skipped += !suite.failed && suite.skipped;
            passed += !suite.failed && !suite.skipped;
        }
    }
    if (report != NULL)
        fprintf(report, "%u passed, %u failed, %u skipped\n", passed, failed, skipped);
    return failed == 0 ? 0 : CAKE_EINTERNAL;
}

int cake_storage_suite_run(cake_storage_factory_fn factory, void *arg, FILE *report)
{
    cake_storage_suite_options_t options = CAKE_STORAGE_SUITE_OPTIONS_INIT;
    return cake_storage_suite_run_with(&options, factory, arg, report);
}
