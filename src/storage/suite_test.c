/* The suite finds what is wrong: storages with one fault each, and the case that says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>

#include "storage/suite.h"

static const cake_storage_ops_t *real; /* of the storage in memory, which the faulty ones are made from */

typedef struct passer {
    cake_row_fn fn;
    void *arg;
    size_t count;
} passer_t;

/* ---- faults ------------------------------------------------------------------------------------------------------ */

static int write_half(cake_storage_t *storage, const cake_batch_t *batch)
{
    cake_batch_t half = *batch;
    if (batch->write_count > 1)
        half.write_count /= 2;
    return real->write(storage, &half);
}

static int write_backwards(cake_storage_t *storage, const cake_batch_t *batch)
{
    int err = 0;
    for (size_t i = batch->write_count; i-- > 0 && err == 0;)
        err = real->write(storage, &(cake_batch_t){batch->lane, &batch->writes[i], 1, NULL, 0});
    return err != 0 ? err
                    : real->write(storage, &(cake_batch_t){batch->lane, NULL, 0, batch->metas, batch->meta_count});
}

/* Not atomic: what comes before a write that is refused stays. */
static int write_one_by_one(cake_storage_t *storage, const cake_batch_t *batch)
{
    int err = 0;
    for (size_t i = 0; i < batch->write_count && err == 0; i++)
        err = real->write(storage, &(cake_batch_t){batch->lane, &batch->writes[i], 1, NULL, 0});
    return err != 0 ? err
                    : real->write(storage, &(cake_batch_t){batch->lane, NULL, 0, batch->metas, batch->meta_count});
}

static int write_without_tombstones(cake_storage_t *storage, const cake_batch_t *batch)
{
    for (size_t i = 0; i < batch->write_count; i++) {
        cake_write_t write = batch->writes[i];
        write.kind = write.kind == CAKE_WRITE_TOMBSTONE ? CAKE_WRITE_ERASE : write.kind;
        int err = real->write(storage, &(cake_batch_t){batch->lane, &write, 1, NULL, 0});
        if (err != 0)
            return err;
    }
    return real->write(storage, &(cake_batch_t){batch->lane, NULL, 0, batch->metas, batch->meta_count});
}

static int write_without_metas(cake_storage_t *storage, const cake_batch_t *batch)
{
    return real->write(storage, &(cake_batch_t){batch->lane, batch->writes, batch->write_count, NULL, 0});
}

static int pass_short_stamp(void *arg, const cake_row_t *row)
{
    passer_t *passer = arg;
    cake_row_t out = *row;
    out.hlc &= INT64_MAX;
    return passer->fn(passer->arg, &out);
}

static int fetch_short_stamps(cake_storage_t *storage, cake_slice_t keyspace, const cake_id_t *ids, size_t count,
                              cake_row_fn fn, void *arg)
{
    passer_t passer = {fn, arg, 0};
    return real->fetch(storage, keyspace, ids, count, pass_short_stamp, &passer);
}

static int pass_most(void *arg, const cake_row_t *row)
{
    passer_t *passer = arg;
    return passer->count++ % 100 == 99 ? 0 : passer->fn(passer->arg, row);
}

static int metadata_with_gaps(cake_storage_t *storage, cake_slice_t keyspace, cake_row_fn fn, void *arg)
{
    passer_t passer = {fn, arg, 0};
    return real->metadata(storage, keyspace, pass_most, &passer);
}

static int scan_without_limit(cake_storage_t *storage, cake_slice_t keyspace, const cake_scan_t *range, cake_row_fn fn,
                              void *arg)
{
    cake_scan_t all = *range;
    all.limit = 0;
    return real->scan(storage, keyspace, &all, fn, arg);
}

static int get_shorter_value(cake_storage_t *storage, cake_slice_t keyspace, cake_slice_t key, cake_doc_t **doc)
{
    int err = real->get(storage, keyspace, key, doc);
    if (err != 0 || cake_doc_value(*doc).len < 1 << 20)
        return err;
    cake_doc_t *large = *doc;
    cake_slice_t value = {cake_doc_value(large).data, (1 << 20) - 1};
    *doc = cake_doc_new(NULL, key, value, cake_doc_timestamp(large), (cake_dot_t){7, 1});
    cake_doc_free(large);
    return 0;
}

static int check_always_doubts(cake_storage_t *storage, char *report, size_t size)
{
    (void)storage;
    snprintf(report, size, "a page is missing");
    return CAKE_ECORRUPT;
}

/* ---- the tests --------------------------------------------------------------------------------------------------- */

typedef struct fault {
    const char *found_by, *says; /* the case, and something of its line */
    cake_storage_ops_t ops;
} fault_t;

static int open_faulty(void *arg, bool fresh, cake_storage_t **storage)
{
    if (!fresh)
        return CAKE_EUNAVAILABLE;
    int err = cake_memory_open(storage);
    if (err == 0)
        (*storage)->ops = arg;
    return err;
}

static void expect_found(const fault_t *fault)
{
    cake_storage_suite_options_t options = CAKE_STORAGE_SUITE_OPTIONS_INIT;
    static char text[1 << 12];
    cake_storage_ops_t ops = fault->ops;
    FILE *report = fmemopen(text, sizeof text, "w");
    options.rows = 500;
    options.only = fault->found_by;
    assert_non_null(report);
    int err = cake_storage_suite_run_with(&options, open_faulty, &ops, report);
    fclose(report);
    if (err != CAKE_EINTERNAL || strstr(text, "FAILED") == NULL || strstr(text, fault->says) == NULL)
        fail_msg("%s: %s", fault->found_by, text);
}

static void finds_each_fault(void **state)
{
    (void)state;
    cake_storage_t *storage;
    assert_int_equal(cake_memory_open(&storage), 0);
    real = storage->ops;
    cake_storage_close(storage);
    fault_t faults[] = {{"a batch spans keyspaces and metas", "", *real},
                        {"writes of a batch apply in order", "", *real},
                        {"a refused batch changes nothing", "", *real},
                        {"deletes, tombstones of unknown keys", "", *real},
                        {"metas: by name", "", *real},
                        {"stamps and dots keep all 64 bits", "", *real},
                        {"many rows", "", *real},
                        {"scans", "", *real},
                        {"values of every size", "", *real},
                        {"rows are updated", "a page is missing", *real}};
    faults[0].ops.write = write_half;
    faults[1].ops.write = write_backwards;
    faults[2].ops.write = write_one_by_one;
    faults[3].ops.write = write_without_tombstones;
    faults[4].ops.write = write_without_metas;
    faults[5].ops.fetch = fetch_short_stamps;
    faults[6].ops.metadata = metadata_with_gaps;
    faults[7].ops.scan = scan_without_limit;
    faults[8].ops.get = get_shorter_value;
    faults[9].ops.check = check_always_doubts;
    for (size_t i = 0; i < CAKE_COUNT_OF(faults); i++)
        expect_found(&faults[i]);
}

static int opens_never(void *arg, bool fresh, cake_storage_t **storage)
{
    (void)fresh;
    (void)storage;
    return *(int *)arg;
}

static int opens_once(void *arg, bool fresh, cake_storage_t **storage)
{
    unsigned *count = arg;
    if (!fresh)
        return CAKE_EUNAVAILABLE;
    return (*count)++ == 0 ? cake_memory_open(storage) : CAKE_EIO;
}

static void says_when_it_cannot_be_opened(void **state)
{
    (void)state;
    static char text[1 << 14];
    int err = CAKE_EIO;
    unsigned count = 0;
    FILE *report = fmemopen(text, sizeof text, "w");
    assert_non_null(report);
    assert_int_equal(cake_storage_suite_run(opens_never, &err, NULL), CAKE_EINTERNAL);
    assert_int_equal(cake_storage_suite_run(opens_never, &err, report), CAKE_EINTERNAL);
    assert_int_equal(cake_storage_suite_run(opens_once, &count, report), CAKE_EINTERNAL);
    fclose(report);
    assert_non_null(strstr(text, "the factory returned CAKE_EIO"));
    assert_non_null(strstr(text, "the factory opens a fresh storage"));
    assert_non_null(strstr(text, "\n0 passed"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_each_fault),
        cmocka_unit_test(says_when_it_cannot_be_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
