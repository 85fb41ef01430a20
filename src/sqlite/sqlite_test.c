#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>

#include "sqlite/sqlite.h"
#include "sqlite/version_test.h"
#include "storage/disk_test.h"

static int open_with(const char *dir, const disk_options_t *wanted, cake_storage_t **storage)
{
    cake_log_t log = {cake__test_log, NULL, CAKE_LOG_WARN};
    cake_sqlite_options_t options = CAKE_SQLITE_OPTIONS_INIT;
    options.log = &log;
    options.lanes = wanted->lanes;
    options.lose_last_writes_on_power_cut = wanted->is_relaxed;
    options.alloc = wanted->alloc;
    return cake_sqlite_open(dir, &options, storage);
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

static disk_kind_t sqlite_kind = {"sqlite", open_with, open_dir, open_with_alloc, cake_sqlite_copy, 4096};

/* ---- files of others, and of other versions ---------------------------------------------------------------------- */

static void refuses_what_is_not_its_own(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t byte;
        int err;
    } changes[] = {{68, 'X', CAKE_ECORRUPT}, /* application_id: the database of another program */
                   {63, 200, CAKE_EVERSION}, /* user_version */
                   {0, 'x', CAKE_ECORRUPT}};
    cake__test_dir_t dir;
    disk_make(&sqlite_kind, &dir, 1);
    file_image_t good = read_image(&sqlite_kind, dir.path);
    for (size_t i = 0; i < CAKE_COUNT_OF(changes); i++) {
        uint8_t saved = good.bytes[changes[i].at];
        good.bytes[changes[i].at] = changes[i].byte;
        write_image(&good, good.len);
        check_refused(&sqlite_kind, dir.path, changes[i].err);
        good.bytes[changes[i].at] = saved;
    }
    write_image(&good, good.len);
    disk_check_row(&sqlite_kind, dir.path);
    free(good.bytes);
    cake__test_dir_remove(&dir);
}

static void a_step_that_fails_changes_nothing(void **state)
{
    (void)state;
    static const char *const good = "CREATE TABLE more (number INTEGER) STRICT",
                             *const bad =
                                 "CREATE TABLE half (number INTEGER) STRICT; INSERT INTO no_such_table VALUES (1)";
    const char *const steps[] = {good, bad};
    cake__test_dir_t dir;
    cake_storage_t *storage = NULL;
    unsigned ours = (unsigned)cake__sqlite_schema.version;
    disk_make(&sqlite_kind, &dir, 2);
    assert_true(version_open(dir.path, &bad, 1, NULL, &storage) < 0);
    assert_null(storage);
    assert_int_equal(version_number(dir.path, "PRAGMA user_version"), ours);
    assert_int_equal(version_number(dir.path, "SELECT count(*) FROM sqlite_schema WHERE name = 'half'"), 0);
    disk_check_row(&sqlite_kind, dir.path);
    assert_true(version_open(dir.path, steps, 2, NULL, &storage) < 0); /* those before it are done, and stay */
    assert_int_equal(version_number(dir.path, "PRAGMA user_version"), ours + 1);
    check_refused(&sqlite_kind, dir.path, CAKE_EVERSION);
    assert_int_equal(version_open(dir.path, steps, 1, NULL, &storage), 0);
    cake_storage_close(storage);
    cake__test_dir_remove(&dir);
}

/* Where only keys of up to 15 bytes were held by their ids. */
static void opens_a_file_of_version_1(void **state)
{
    (void)state;
    static const char *const make_old =
        "UPDATE documents SET id = CAST(substr(key, 1, 15) || x'ff' AS BLOB) WHERE id IS NULL AND length(key) > 15;"
        "PRAGMA user_version = 1";
    static const char *const count = "SELECT count(*) FROM documents WHERE id IS NOT NULL";
    cake__test_dir_t dir;
    crash_model_t model;
    cake_storage_t *storage = NULL;
    cake__test_dir_make(&dir);
    crash_model_init(&model);
    assert_int_equal(open_dir(dir.path, &storage), 0);
    while (model.last < 100)
        assert_int_equal(crash_write(storage, model.last + 1, &model), 0);
    cake_storage_close(storage);
    unsigned with_id = version_number(dir.path, count);
    version_exec(dir.path, make_old);
    assert_true(version_number(dir.path, count) > with_id);
    cake_storage_close(crash_reopen(open_dir, dir.path, &model, model.last));
    assert_int_equal(version_number(dir.path, count), with_id);
    assert_int_equal(version_number(dir.path, "PRAGMA user_version"), cake__sqlite_schema.version);
    cake__test_dir_remove(&dir);
}

/* What a shell may do to a file, and what check() says; NULL: opening refuses it. */
static const struct {
    const char *sql, *says;
} damages[] = {
    {"INSERT INTO documents VALUES (99, x'01', 1, 1, 1, NULL, x'')", "keyspace number 99"},
    {"INSERT INTO documents VALUES (1, x'', 1, 1, 1, NULL, x'')", "has 0 bytes"},
    {"INSERT INTO documents VALUES (1, zeroblob(20), 1, 1, 1, x'01', x'')", "does not fit its key"},
    {"INSERT INTO metas VALUES (x'', x'')", "among the metas"},
    {"INSERT INTO keyspaces (name) VALUES ('')", NULL},
    {"PRAGMA user_version = 0", NULL},
    {"PRAGMA user_version = -5", NULL},
    {"DELETE FROM lane", NULL},
    {"DROP VIEW live_documents; DROP TABLE documents", NULL},
};

static void finds_what_a_shell_has_done(void **state)
{
    (void)state;
    for (size_t i = 0; i < CAKE_COUNT_OF(damages); i++) {
        cake__test_dir_t dir;
        cake_storage_t *storage = NULL;
        cake_scan_t all = {.limit = 0};
        sqlite3 *db;
        char path[128], report[256];
        disk_make(&sqlite_kind, &dir, 1);
        snprintf(path, sizeof path, "%s/lane-000.sqlite", dir.path);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, damages[i].sql, 0, 0, 0), 0);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        int err = open_dir(dir.path, &storage);
        if (damages[i].says == NULL) {
            assert_true(err == CAKE_ECORRUPT || err == CAKE_EVERSION);
        } else {
            assert_int_equal(err, 0);
            assert_int_equal(storage->ops->check(storage, report, sizeof report), CAKE_ECORRUPT);
            if (strstr(report, damages[i].says) == NULL)
                fail_msg("%s", report);
            err = storage->ops->scan(storage, cake__slice_str("k"), &all, crash_ignore_row, NULL);
            assert_int_equal(err, i == 1 || i == 2 ? CAKE_ECORRUPT : 0);
        }
        cake_storage_close(storage);
        cake__test_dir_remove(&dir);
    }
}

static void a_shell_may_be_beside(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    cake__suite_t suite = {.keeps = true};
    sqlite3 *db;
    char path[128];
    disk_make(&sqlite_kind, &dir, 1);
    snprintf(path, sizeof path, "%s/lane-000.sqlite", dir.path);
    assert_int_equal(open_dir(dir.path, &suite.storage), 0);
    cake_write_t write = cake__suite_put("k", cake__slice_str("other"), cake__slice_str("value"), 2);
    sqlite3_busy_timeout(cake__sqlite_of(suite.storage)->lanes[0].db, 10);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", 0, 0, 0), 0);
    assert_int_equal(cake__suite_commit_one(&suite, write), CAKE_EBUSY);
    assert_int_equal(sqlite3_exec(db, "COMMIT", 0, 0, 0), 0);
    assert_int_equal(cake__suite_commit_one(&suite, write), 0);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    cake_storage_close(suite.storage);
    disk_check_row(&sqlite_kind, dir.path);
    cake__test_dir_remove(&dir);
}

static void rows_too_large_for_sqlite_change_nothing(void **state)
{
    (void)state;
    static const char value[3000];
    cake__test_dir_t dir;
    cake__suite_t suite = {.keeps = true};
    disk_make(&sqlite_kind, &dir, 1);
    assert_int_equal(open_dir(dir.path, &suite.storage), 0);
    (void)sqlite3_limit(cake__sqlite_of(suite.storage)->lanes[0].db, SQLITE_LIMIT_LENGTH, 2000);
    cake_write_t write = cake__suite_put("k", cake__slice_str("key"), cake__slice(value, sizeof value), 2);
    assert_int_equal(cake__suite_commit_one(&suite, write), CAKE_ETOOBIG);
    cake_storage_close(suite.storage);
    disk_check_row(&sqlite_kind, dir.path);
    cake__test_dir_remove(&dir);
}

/* More at once than the pool keeps. */
static void many_read_at_once(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    cake_storage_t *storage = NULL;
    cake__reader_connection_t *readers[40];
    disk_make(&sqlite_kind, &dir, 1);
    assert_int_equal(open_dir(dir.path, &storage), 0);
    cake__sqlite_lane_t *lane = &cake__sqlite_of(storage)->lanes[0];
    for (size_t i = 0; i < CAKE_COUNT_OF(readers); i++)
        assert_int_equal(cake__sqlite_reader_take(lane, &readers[i]), 0);
    for (size_t i = 0; i < CAKE_COUNT_OF(readers); i++)
        cake__sqlite_reader_give(lane, readers[i]);
    assert_in_range(lane->pool_count, 1, CAKE_COUNT_OF(readers) / 2);
    cake_storage_close(storage);
    disk_check_row(&sqlite_kind, dir.path);
    cake__test_dir_remove(&dir);
}

static unsigned opened;

static int open_counted(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    opened++;
    return sqlite3_vfs_find(NULL)->xOpen(vfs, name, file, flags, out_flags);
}

static void takes_another_file_system(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    cake_storage_t *storage;
    cake_sqlite_options_t options = CAKE_SQLITE_OPTIONS_INIT;
    sqlite3_vfs vfs = *sqlite3_vfs_find(NULL);
    vfs.zName = "counted";
    vfs.pNext = NULL;
    vfs.xOpen = open_counted;
    options.vfs = vfs.zName;
    cake__test_dir_make(&dir);
    assert_int_equal(cake_sqlite_open(dir.path, &options, &storage), CAKE_EINVAL); /* not registered */
    assert_int_equal(sqlite3_vfs_register(&vfs, 0), SQLITE_OK);
    assert_int_equal(cake_sqlite_open(dir.path, &options, &storage), 0);
    cake_storage_close(storage);
    assert_true(opened > 0);
    sqlite3_vfs_unregister(&vfs);
    cake__test_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DISK_CASES(&sqlite_kind),
        DISK_CASE(survives_damaged_files, &sqlite_kind),
        cmocka_unit_test(refuses_what_is_not_its_own),
        cmocka_unit_test(a_step_that_fails_changes_nothing),
        cmocka_unit_test(opens_a_file_of_version_1),
        cmocka_unit_test(finds_what_a_shell_has_done),
        cmocka_unit_test(a_shell_may_be_beside),
        cmocka_unit_test(rows_too_large_for_sqlite_change_nothing),
        cmocka_unit_test(many_read_at_once),
        cmocka_unit_test(takes_another_file_system),
    };
    cmocka_set_test_filter(getenv("CAKE_TEST_ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
