#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>

#include "lmdb/lmdb.h"
#include "lmdb/version_test.h"
#include "storage/disk_test.h"

#define LATE_LEAST 7 /* a half of late ids is full at once, so that merging goes on all the time */

static int open_with(const char *dir, const disk_options_t *wanted, cake_storage_t **storage)
{
    cake_log_t log = {cake__test_log, NULL, CAKE_LOG_WARN};
    cake__lmdb_settings_t settings = {.given = CAKE_LMDB_OPTIONS_INIT, .late_least = LATE_LEAST};
    settings.given.log = &log;
    settings.given.lanes = wanted->lanes;
    settings.given.lose_last_writes_on_power_cut = wanted->is_relaxed;
    settings.given.map_bytes = wanted->is_relaxed ? 128 << 10 : 0; /* small: it has to grow all the time */
    settings.given.alloc = wanted->alloc;
    return cake__lmdb_open(dir, &settings, storage);
}

static int open_dir(const char *dir, cake_storage_t **storage)
{
    disk_options_t options = {.lanes = 0};
    return open_with(dir, &options, storage);
}

static int open_with_alloc(const char *dir, const cake_alloc_t *alloc, cake_storage_t **storage)
{
    disk_options_t options = {.alloc = alloc};
    return open_with(dir, &options, storage);
}

static disk_kind_t lmdb_kind = {"mdb", open_with, open_dir, open_with_alloc, cake_lmdb_copy, 8192}; /* the meta pages */

/* ---- files of others, and of other versions ----------------------------------------------------------------------------- */

static void refuses_other_programs_and_newer_versions(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    disk_make(&lmdb_kind, &dir, 1);
    set_about(dir.path, "version", CAKE__LMDB_VERSION + 1, false);
    check_refused(&lmdb_kind, dir.path, CAKE_EVERSION);
    set_about(dir.path, "version", CAKE__LMDB_VERSION, false);
    disk_check_row(&lmdb_kind, dir.path);
    set_about(dir.path, "lane", 1, false);
    check_refused(&lmdb_kind, dir.path, CAKE_ECORRUPT);
    set_about(dir.path, "", 0, true);
    check_refused(&lmdb_kind, dir.path, CAKE_ECORRUPT);
    cake__test_dir_remove(&dir);
}

static void opens_a_file_of_version_1(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    crash_model_t model;
    cake_storage_t *storage = NULL;
    cake__test_dir_make(&dir);
    crash_model_init(&model);
    assert_int_equal(open_dir(dir.path, &storage), 0);
    while (model.last < 200)
        assert_int_equal(crash_write(storage, model.last + 1, &model), 0);
    cake_storage_close(storage);
    make_version_1(dir.path);
    storage = crash_reopen(open_dir, dir.path, &model, model.last);
    while (model.last < 400)
        assert_int_equal(crash_write(storage, model.last + 1, &model), 0);
    crash_compare(storage, &model);
    cake_storage_close(storage);
    cake_storage_close(crash_reopen(open_dir, dir.path, &model, model.last));
    cake__test_dir_remove(&dir);
}

/* Keys that are alike in all that LMDB can compare, and a scan that must still put them in order. */
static void keys_longer_than_lmdb_allows(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    cake__suite_t suite = {.keeps = true};
    uint8_t key[CAKE_KEY_MAX];
    size_t count = 0;
    cake__test_dir_make(&dir);
    assert_int_equal(open_dir(dir.path, &suite.storage), 0);
    memset(key, 'k', sizeof key);
    for (unsigned i = 0; i < 256; i++) {
        key[507 + i % 4] = (uint8_t)(i * 37);
        cake_slice_t slice = cake__slice(key, 508 + i % 4);
        cake_doc_t *doc;
        bool is_new = suite.storage->ops->get(suite.storage, cake__slice_str("k"), slice, &doc) != 0;
        if (!is_new)
            cake_doc_free(doc);
        count += is_new;
        assert_int_equal(cake__suite_commit_one(&suite, cake__suite_put("k", slice, slice, i)), 0);
        cake__suite_expect_live(&suite, "k", slice, slice, i);
    }
    cake__suite_expect_counts(&suite, "k", count, 0);
    assert_true(count > 100);
    assert_string_equal(suite.why, "");
    cake_storage_close(suite.storage);
    cake__test_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DISK_CASES(&lmdb_kind),
        cmocka_unit_test(refuses_other_programs_and_newer_versions),
        cmocka_unit_test(opens_a_file_of_version_1),
        cmocka_unit_test(keys_longer_than_lmdb_allows),
    };
    cmocka_set_test_filter(getenv("CAKE_TEST_ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
