#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "storage/heap_test.h"
#include "storage/suite.h"

typedef struct journal {
    uint64_t clock_ns;
    unsigned calls;
    cake_storage_call_t last;
} journal_t;

static uint64_t tick(void *arg)
{
    journal_t *journal = arg;
    return journal->clock_ns += 10;
}

static void note(void *arg, const cake_storage_call_t *call)
{
    journal_t *journal = arg;
    journal->calls++;
    journal->last = *call;
}

static int open_wrapped(void *arg, bool fresh, cake_storage_t **storage)
{
    cake_storage_t *memory, *faulty;
    cake_instrument_options_t options = CAKE_INSTRUMENT_OPTIONS_INIT;
    if (!fresh)
        return CAKE_EUNAVAILABLE;
    assert_int_equal(cake_memory_open(&memory), 0);
    assert_int_equal(cake_storage_inject(memory, NULL, &faulty), 0);
    options.file = arg;
    return cake_storage_instrument(faulty, &options, storage);
}

static void wrapped_storage_passes_the_suite(void **state)
{
    (void)state;
    FILE *log = tmpfile();
    cake_storage_suite_options_t options = CAKE_STORAGE_SUITE_OPTIONS_INIT;
    options.rows = 1000;
    options.steps = 100;
    assert_non_null(log);
    assert_int_equal(cake_storage_suite_run_with(&options, open_wrapped, log, NULL), 0);
    assert_true(ftell(log) > 1000);
    fclose(log);
}

static void every_call_is_told_with_its_time(void **state)
{
    (void)state;
    journal_t journal = {0};
    cake_storage_t *memory;
    cake__suite_t suite = {.keeps = false};
    cake_instrument_options_t options = CAKE_INSTRUMENT_OPTIONS_INIT;
    options.now_ns = tick;
    options.call = note;
    options.arg = &journal;
    assert_int_equal(cake_memory_open(&memory), 0);
    assert_int_equal(cake_storage_instrument(memory, &options, &suite.storage), 0);
    cake_write_t write = cake__suite_put("k", cake__slice_str("key"), cake__slice_str("value"), 1);
    assert_int_equal(cake__suite_commit_one(&suite, write), 0);
    assert_string_equal(journal.last.name, "write");
    assert_int_equal(journal.last.count, 1);
    assert_int_equal(journal.last.bytes, 8);
    assert_int_equal(journal.last.duration_ns, 10);
    cake_doc_t *doc;
    assert_int_equal(suite.storage->ops->get(suite.storage, write.keyspace, write.key, &doc), 0);
    cake_doc_free(doc);
    assert_string_equal(journal.last.name, "get");
    assert_int_equal(journal.last.bytes, 5);
    cake_storage_close(suite.storage);
    assert_string_equal(journal.last.name, "close");
    assert_int_equal(journal.calls, 3);
}

static int doubt(cake_storage_t *storage, char *report, size_t size)
{
    (void)storage;
    snprintf(report, size, "doubted");
    return CAKE_ECORRUPT;
}

static int refuse_copy(cake_storage_t *storage, const char *dir)
{
    (void)storage;
    return strcmp(dir, "there") == 0 ? CAKE_ECONFLICT : 0;
}

static void check_and_backup_are_passed_on(void **state)
{
    (void)state;
    journal_t journal = {0};
    cake_storage_t *memory, *faulty, *told;
    cake_instrument_options_t options = CAKE_INSTRUMENT_OPTIONS_INIT;
    char report[16];
    options.now_ns = tick;
    options.call = note;
    options.arg = &journal;
    assert_int_equal(cake_memory_open(&memory), 0);
    assert_null(memory->ops->check);
    cake_storage_ops_t ops = *memory->ops;
    ops.check = doubt;
    ops.backup = refuse_copy;
    memory->ops = &ops;
    assert_int_equal(cake_storage_inject(memory, NULL, &faulty), 0);
    assert_int_equal(cake_storage_instrument(faulty, &options, &told), 0);
    assert_int_equal(told->ops->check(told, report, sizeof report), CAKE_ECORRUPT);
    assert_string_equal(report, "doubted");
    assert_string_equal(journal.last.name, "check");
    assert_int_equal(journal.last.result, CAKE_ECORRUPT);
    assert_int_equal(told->ops->backup(told, "there"), CAKE_ECONFLICT);
    assert_int_equal(told->ops->backup(told, "elsewhere"), 0);
    assert_string_equal(journal.last.name, "backup");
    cake_storage_close(told);
}

static void wrappers_need_memory(void **state)
{
    (void)state;
    counting_heap_t heap = {.left = 0};
    cake_alloc_t alloc = {counting_resize, &heap};
    cake_storage_t *memory, *wrapper;
    cake_instrument_options_t options = CAKE_INSTRUMENT_OPTIONS_INIT;
    options.alloc = &alloc;
    assert_int_equal(cake_memory_open(&memory), 0);
    assert_int_equal(cake_storage_instrument(memory, &options, &wrapper), CAKE_ENOMEM);
    assert_null(wrapper);
    assert_int_equal(cake_storage_inject(memory, &alloc, &wrapper), CAKE_ENOMEM);
    assert_null(wrapper);
    cake_storage_close(memory); /* still the caller's */
}

static void chosen_calls_fail(void **state)
{
    (void)state;
    cake_storage_t *memory;
    cake__suite_t suite = {.keeps = false};
    cake_slice_t key = cake__slice_str("key"), value = cake__slice_str("value");
    assert_int_equal(cake_memory_open(&memory), 0);
    assert_int_equal(cake_storage_inject(memory, NULL, &suite.storage), 0);
    cake_storage_fail(suite.storage, &(cake_fault_t){.nth = 2, .err = CAKE_ENOSPC});
    assert_int_equal(cake__suite_commit_one(&suite, cake__suite_put("k", key, value, 1)), 0);
    assert_int_equal(cake__suite_commit_one(&suite, cake__suite_put("k", key, value, 2)), CAKE_ENOSPC);
    cake__suite_expect_live(&suite, "k", key, value, 1);
    assert_int_equal(cake__suite_commit_one(&suite, cake__suite_put("k", key, value, 3)), 0);
    cake_storage_fail(suite.storage, &(cake_fault_t){.nth = 1, .err = CAKE_EIO, .is_applied = true});
    assert_int_equal(cake__suite_commit_one(&suite, cake__suite_put("k", key, value, 4)), CAKE_EIO);
    cake__suite_expect_live(&suite, "k", key, value, 4);
    cake_storage_fail(suite.storage, &(cake_fault_t){.nth = 1, .err = CAKE_EIO, .is_repeated = true});
    for (int i = 0; i < 3; i++)
        assert_int_equal(cake__suite_commit_one(&suite, cake__suite_put("k", key, value, 5)), CAKE_EIO);
    cake_storage_fail(suite.storage, &(cake_fault_t){.nth = 0});
    cake_storage_fail(suite.storage, &(cake_fault_t){.is_read = true, .nth = 1, .err = CAKE_ECORRUPT});
    cake_doc_t *doc;
    assert_int_equal(suite.storage->ops->get(suite.storage, cake__slice_str("k"), key, &doc), CAKE_ECORRUPT);
    cake__suite_expect_live(&suite, "k", key, value, 4);
    assert_string_equal(suite.why, "");
    cake_storage_close(suite.storage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrapped_storage_passes_the_suite),
        cmocka_unit_test(every_call_is_told_with_its_time),
        cmocka_unit_test(check_and_backup_are_passed_on),
        cmocka_unit_test(wrappers_need_memory),
        cmocka_unit_test(chosen_calls_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
