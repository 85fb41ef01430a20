#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>

#include "storage/heap_test.h"
#include "storage/suite.h"

static int open_memory(void *arg, bool fresh, cake_storage_t **storage)
{
    (void)arg;
    return fresh ? cake_memory_open(storage) : CAKE_EUNAVAILABLE;
}

static void passes_the_suite(void **state)
{
    (void)state;
    assert_int_equal(cake_storage_suite_run(open_memory, NULL, stdout), 0);
}

static void cap_is_reported_and_survived(void **state)
{
    (void)state;
    cake_memory_options_t options = CAKE_MEMORY_OPTIONS_INIT;
    cake__suite_t suite = {.keeps = false};
    char value[100] = {0};
    options.max_bytes = 1000;
    assert_int_equal(cake_memory_open_with(&options, &suite.storage), 0);
    cake_slice_t large = cake__slice(value, sizeof value);
    for (unsigned i = 0; i < 9; i++) {
        char key[2] = {(char)('a' + i), 0};
        assert_int_equal(cake__suite_commit_one(&suite, cake__suite_put("k", cake__slice_str(key), large, i)), 0);
    }
    cake_meta_write_t meta = {cake__slice_str("meta"), large};
    cake_write_t writes[] = {
        cake__suite_put("k", cake__slice_str("a"), cake__slice_str("new"), 20),
        cake__suite_put("new keyspace", cake__slice_str("x"), large, 21), cake__suite_erase("k", cake__slice_str("c")),
        cake__suite_put("k", cake__slice_str("y"), large, 22), cake__suite_put("k", cake__slice_str("z"), large, 22)};
    assert_int_equal(cake__suite_commit(&suite, writes, 5, &meta, 1), CAKE_ENOSPC);
    cake__suite_expect_live(&suite, "k", cake__slice_str("a"), large, 0);
    cake__suite_expect_live(&suite, "k", cake__slice_str("c"), large, 2);
    cake__suite_expect_absent(&suite, "k", cake__slice_str("y"));
    cake__suite_expect_counts(&suite, "k", 9, 0);
    assert_int_equal(cake__suite_count_keyspaces(&suite, "new keyspace"), 0);
    cake__suite_expect_meta(&suite, 0, "meta", cake__slice(NULL, 0));
    assert_int_equal(cake__suite_commit_one(&suite, cake__suite_tombstone("k", cake__slice_str("b"), 30)), 0);
    assert_int_equal(cake__suite_commit(&suite, &writes[4], 1, NULL, 0), 0); /* there is room again */
    assert_int_equal(cake__suite_commit(&suite, &writes[3], 1, NULL, 0), CAKE_ENOSPC);
    assert_string_equal(suite.why, "");
    cake_storage_close(suite.storage);
}

/* ---- allocations that fail --------------------------------------------------------------------------------------- */

static int open_on(counting_heap_t *heap, cake_storage_t **storage)
{
    const cake_alloc_t alloc = {counting_resize, heap};
    cake_memory_options_t options = CAKE_MEMORY_OPTIONS_INIT;
    options.alloc = &alloc;
    return cake_memory_open_with(&options, storage);
}

static const char long_name[] = "a long key that is not held by its id";

/* Writes to old and new rows and keyspaces, of every kind, several times to some. */
static int commit_everything(cake__suite_t *suite, const char *fresh)
{
    cake_slice_t value = cake__slice_str("changed");
    cake_meta_write_t metas[] = {{cake__slice_str("old"), value},
                                 {cake__slice_str("gone"), cake__slice(NULL, 0)},
                                 {cake__slice_str("new"), value}};
    cake_write_t writes[] = {cake__suite_put("k", cake__slice_str("a"), value, 10),
                             cake__suite_erase("k", cake__slice_str("b")),
                             cake__suite_erase("k", cake__slice_str(long_name)),
                             cake__suite_put("k", cake__slice_str(long_name), value, 11),
                             cake__suite_erase("k", cake__slice_str(long_name)),
                             cake__suite_put("k", cake__slice_str("a new key of many bytes"), value, 12),
                             cake__suite_put(fresh, cake__slice_str("another new key of many bytes"), value, 13),
                             cake__suite_tombstone(fresh, cake__slice_str("x"), 14),
                             cake__suite_tombstone("k", cake__slice_str("c"), 15)};
    return cake__suite_commit(suite, writes, CAKE_COUNT_OF(writes), metas, CAKE_COUNT_OF(metas));
}

static void check_before(cake__suite_t *suite, const char *fresh)
{
    cake_slice_t value = cake__slice_str("before");
    cake__suite_expect_live(suite, "k", cake__slice_str("a"), value, 1);
    cake__suite_expect_live(suite, "k", cake__slice_str("b"), value, 2);
    cake__suite_expect_live(suite, "k", cake__slice_str("c"), value, 3);
    cake__suite_expect_live(suite, "k", cake__slice_str(long_name), value, 4);
    cake__suite_expect_absent(suite, fresh, cake__slice_str("x"));
    cake__suite_expect_counts(suite, "k", 4, 0);
    cake__suite_expect_meta(suite, 0, "old", value);
    cake__suite_expect_meta(suite, 0, "gone", value);
    cake__suite_expect_meta(suite, 0, "new", cake__slice(NULL, 0));
    assert_int_equal(cake__suite_count_keyspaces(suite, fresh), 0);
    assert_string_equal(suite->why, "");
}

static int prepare(cake__suite_t *suite)
{
    cake_slice_t value = cake__slice_str("before");
    cake_meta_write_t metas[] = {{cake__slice_str("old"), value}, {cake__slice_str("gone"), value}};
    cake_write_t writes[] = {cake__suite_put("k", cake__slice_str("a"), value, 1),
                             cake__suite_put("k", cake__slice_str("b"), value, 2),
                             cake__suite_put("k", cake__slice_str("c"), value, 3),
                             cake__suite_put("k", cake__slice_str(long_name), value, 4)};
    return cake__suite_commit(suite, writes, 4, metas, 2);
}

static void failed_allocations_change_nothing(void **state)
{
    (void)state;
    int err = CAKE_ENOMEM;
    uint64_t failures = 0;
    for (uint64_t nth = 0; err != 0; nth++) {
        counting_heap_t heap = {.left = nth};
        cake__suite_t suite = {.keeps = false};
        err = open_on(&heap, &suite.storage);
        if (err == 0) {
            err = prepare(&suite);
            bool is_prepared = err == 0;
            if (is_prepared)
                err = commit_everything(&suite, "fresh");
            heap.left = UINT64_MAX;
            if (!is_prepared)
                assert_int_equal(prepare(&suite), 0);
            if (err != 0)
                check_before(&suite, "fresh");
            assert_int_equal(commit_everything(&suite, "fresh"), 0);
            cake_storage_close(suite.storage);
        }
        failures += err != 0;
        assert_true(err == 0 || err == CAKE_ENOMEM);
        assert_int_equal(heap.live, 0);
    }
    assert_true(failures >= 10); /* rows, keyspaces, nodes, maps: each failed once */
}

static void empty_keyspaces_are_cheap(void **state)
{
    (void)state;
    counting_heap_t heap = {.left = UINT64_MAX};
    cake__suite_t suite = {.keeps = false};
    assert_int_equal(open_on(&heap, &suite.storage), 0);
    for (unsigned i = 0; i < 100000; i++) {
        char name[32];
        snprintf(name, sizeof name, "keyspace-%u", i);
        cake_write_t writes[] = {cake__suite_put(name, cake__slice_str("a"), cake__slice_str("1"), 1),
                                 cake__suite_erase(name, cake__slice_str("a"))};
        assert_int_equal(cake__suite_commit(&suite, writes, 2, NULL, 0), 0);
    }
    /* All that was ever asked for, the rows that are gone and the growing of the map included. */
    assert_true(heap.bytes / 100000 <= 1024);
    cake_storage_close(suite.storage);
    assert_int_equal(heap.live, 0);
}

static cake_write_t nth_write(unsigned n, bool is_erase, char key[32])
{
    snprintf(key, 32, "%u", n);
    return is_erase ? cake__suite_erase("k", cake__slice_str(key))
                    : cake__suite_put("k", cake__slice_str(key), cake__slice_str("value"), n);
}

/* In one large batch, and in an order that has nothing to do with that of the keys. */
static void rows_that_are_erased_give_their_memory_back(void **state)
{
    (void)state;
    enum { ROWS = 20000 };
    static char keys[ROWS][32];
    static cake_write_t writes[ROWS];
    counting_heap_t heap = {.left = UINT64_MAX};
    cake__suite_t suite = {.keeps = false};
    assert_int_equal(open_on(&heap, &suite.storage), 0);
    for (unsigned i = 0; i < ROWS; i++)
        writes[i] = nth_write(i, false, keys[i]);
    assert_int_equal(cake__suite_commit(&suite, writes, ROWS, NULL, 0), 0);
    assert_true(heap.live > ROWS);
    for (unsigned i = 0; i < ROWS; i++)
        assert_int_equal(cake__suite_commit_one(&suite, nth_write(i * 7919u % ROWS, true, keys[0])), 0);
    assert_true(heap.live < 200);
    cake__suite_expect_counts(&suite, "k", 0, 0);
    assert_int_equal(cake__suite_commit_one(&suite, nth_write(1, false, keys[0])), 0);
    cake__suite_expect_counts(&suite, "k", 1, 0);
    assert_string_equal(suite.why, "");
    cake_storage_close(suite.storage);
    assert_int_equal(heap.live, 0);
}

static int commit_bad(cake__suite_t *suite, cake_write_t write)
{
    cake_batch_t batch = {0, &write, 1, NULL, 0};
    return suite->storage->ops->write(suite->storage, &batch);
}

static int commit_bad_meta(cake__suite_t *suite, size_t name_len)
{
    static const char name[300];
    cake_meta_write_t meta = {{name, name_len}, {"x", 1}};
    return cake__suite_commit(suite, NULL, 0, &meta, 1);
}

static void batches_that_are_not_in_order_are_refused(void **state)
{
    (void)state;
    cake__suite_t suite = {.keeps = false};
    char name[CAKE_KEYSPACE_NAME_MAX + 2];
    cake_slice_t key = cake__slice_str("key"), value = cake__slice_str("value");
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = 0;
    assert_int_equal(cake_memory_open(&suite.storage), 0);
    assert_int_equal(commit_bad(&suite, cake__suite_put("", key, value, 1)), CAKE_EINVAL);
    assert_int_equal(commit_bad(&suite, cake__suite_put(name, key, value, 1)), CAKE_EINVAL);
    cake_write_t write = cake__suite_put("k", key, value, 1);
    write.id.bytes[0] ^= 1; /* of another key */
    assert_int_equal(commit_bad(&suite, write), CAKE_EINVAL);
    write = cake__suite_put("k", key, value, 1);
    write.kind = (cake_write_kind_t)9;
    assert_int_equal(commit_bad(&suite, write), CAKE_EINVAL);
    assert_int_equal(commit_bad_meta(&suite, 0), CAKE_EINVAL);
    assert_int_equal(commit_bad_meta(&suite, 256), CAKE_ETOOBIG);
    assert_int_equal(suite.storage->ops->metas(suite.storage, 1, key, NULL, NULL), CAKE_EINVAL);
    assert_int_equal(cake__suite_count_keyspaces(&suite, "k"), 0);
    cake_storage_close(suite.storage);
}

static void documents_outlive_their_storage(void **state)
{
    (void)state;
    cake__suite_t suite = {.keeps = false};
    cake_doc_t *doc = NULL;
    assert_int_equal(cake_memory_open(&suite.storage), 0);
    cake_write_t write = cake__suite_put("k", cake__slice_str("key"), cake__slice_str("value"), 5);
    assert_int_equal(cake__suite_commit_one(&suite, write), 0);
    assert_int_equal(suite.storage->ops->get(suite.storage, write.keyspace, write.key, &doc), 0);
    cake_storage_close(suite.storage);
    assert_true(cake__slice_equal(cake_doc_value(doc), cake__slice_str("value")));
    assert_true(cake__slice_equal(cake_doc_key(doc), cake__slice_str("key")));
    assert_int_equal(cake_doc_timestamp(doc), 5);
    cake_doc_free(doc);
    cake_doc_free(NULL);
    counting_heap_t heap = {.left = 0};
    cake_alloc_t alloc = {counting_resize, &heap};
    assert_null(cake_doc_new(&alloc, write.key, write.value, 5, write.dot));
    cake_storage_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_the_suite),
        cmocka_unit_test(cap_is_reported_and_survived),
        cmocka_unit_test(failed_allocations_change_nothing),
        cmocka_unit_test(empty_keyspaces_are_cheap),
        cmocka_unit_test(rows_that_are_erased_give_their_memory_back),
        cmocka_unit_test(batches_that_are_not_in_order_are_refused),
        cmocka_unit_test(documents_outlive_their_storage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
