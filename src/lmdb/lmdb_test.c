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

/* ---- files of others, and of other versions ---------------------------------------------------------------------- */

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

static void open_older(unsigned version)
{
    cake__test_dir_t dir;
    crash_model_t model;
    cake_storage_t *storage = NULL;
    cake__test_dir_make(&dir);
    crash_model_init(&model);
    assert_int_equal(open_dir(dir.path, &storage), 0);
    while (model.last < 200)
        assert_int_equal(crash_write(storage, model.last + 1, &model), 0);
    cake_storage_close(storage);
    if (version == 1)
        make_version_1(dir.path);
    else
        assert_true(make_version_2(dir.path) > 0);
    set_about(dir.path, "lane", 1, false); /* refused, and not migrated either */
    check_refused(&lmdb_kind, dir.path, CAKE_ECORRUPT);
    assert_int_equal(version_of(dir.path), version);
    set_about(dir.path, "lane", 0, false);
    storage = crash_reopen(open_dir, dir.path, &model, model.last);
    while (model.last < 400)
        assert_int_equal(crash_write(storage, model.last + 1, &model), 0);
    crash_compare(storage, &model);
    cake_storage_close(storage);
    cake_storage_close(crash_reopen(open_dir, dir.path, &model, model.last));
    assert_int_equal(version_of(dir.path), CAKE__LMDB_VERSION);
    cake__test_dir_remove(&dir);
}

static void opens_files_of_older_versions(void **state)
{
    (void)state;
    for (unsigned version = 1; version < CAKE__LMDB_VERSION; version++)
        open_older(version);
}

/* ---- damage that LMDB itself does not see ------------------------------------------------------------------------ */

typedef struct damage {
    const char *table;
    const char *text; /* in place of the value that is `at`th; NULL: that entry is removed */
    size_t len;
    int at;
    int on_open;      /* what opening says */
    const char *says; /* or else what check says */
} damage_t;

static const damage_t damages[] = {
    {"rows", NULL, 0, -1, 0, "ids without a document"}, /* at: found by its long key */
    {"ids", NULL, 0, 0, 0, "not found by its id"},      {"ids", "short", 5, 0, 0, "not found by its id"},
    {"rows", "\x07", 1, 0, 0, "lane-000.mdb"},          {"rows", "", 0, 0, 0, "lane-000.mdb"},
    {"late-0", "short", 5, 0, CAKE_ECORRUPT, NULL},     {"names", "five!", 5, 0, CAKE_ECORRUPT, NULL},
    {"about", "five!", 5, 0, CAKE_ECORRUPT, NULL},
};

static void do_damage(const char *dir, const damage_t *damage)
{
    bool has_numbers = strncmp(damage->table, "late", 4) == 0;
    MDB_txn *txn = version_begin(dir, 0);
    MDB_dbi table;
    MDB_cursor *cursor;
    MDB_val key, value;
    assert_int_equal(mdb_dbi_open(txn, damage->table, has_numbers ? MDB_INTEGERKEY : 0, &table), 0);
    assert_int_equal(mdb_cursor_open(txn, table, &cursor), 0);
    for (int i = 0; i <= (damage->at < 0 ? 0 : damage->at) || (damage->at < 0 && key.mv_size < 42); i++)
        assert_int_equal(mdb_cursor_get(cursor, &key, &value, MDB_NEXT), 0);
    value = cake__val(damage->text, damage->len);
    assert_int_equal(damage->text == NULL ? mdb_cursor_del(cursor, 0) : mdb_put(txn, table, &key, &value, 0), 0);
    mdb_cursor_close(cursor);
    version_end(txn);
}

static void read_everything(cake_storage_t *storage)
{
    cake_scan_t all = {.limit = 0};
    cake_slice_t name = cake__slice_str("k");
    int err = storage->ops->scan(storage, name, &all, crash_ignore_row, NULL);
    assert_true(err == 0 || err == CAKE_ECORRUPT);
    assert_int_equal(storage->ops->metadata(storage, name, crash_ignore_row, NULL), err);
    for (unsigned i = 0; i < CRASH_KEYS; i++) {
        char text[64];
        cake_slice_t key = crash_key(i, text);
        cake_id_t id = cake__suite_id(key);
        cake_doc_t *doc = NULL;
        err = storage->ops->get(storage, name, key, &doc);
        assert_true(err == 0 || err == CAKE_ENOTFOUND || err == CAKE_ECORRUPT);
        cake_doc_free(doc);
        err = storage->ops->fetch(storage, name, &id, 1, crash_ignore_row, NULL);
        assert_true(err == 0 || err == CAKE_ECORRUPT);
    }
}

static void finds_damage(void **state)
{
    (void)state;
    for (size_t i = 0; i < CAKE_COUNT_OF(damages); i++) {
        cake__test_dir_t dir;
        crash_model_t model;
        cake_storage_t *storage = NULL;
        char report[256] = "";
        cake__test_dir_make(&dir);
        crash_model_init(&model);
        assert_int_equal(open_dir(dir.path, &storage), 0);
        while (model.last < 20 || ((cake__lmdb_t *)(void *)storage)->lanes[0].late.halves[0].count == 0)
            assert_int_equal(crash_write(storage, model.last + 1, &model), 0);
        cake_storage_close(storage);
        do_damage(dir.path, &damages[i]);
        assert_int_equal(open_dir(dir.path, &storage), damages[i].on_open);
        if (damages[i].says != NULL) {
            assert_int_equal(storage->ops->check(storage, report, sizeof report), CAKE_ECORRUPT);
            if (strstr(report, damages[i].says) == NULL)
                fail_msg("%s", report);
            read_everything(storage);
        }
        cake_storage_close(storage);
        cake__test_dir_remove(&dir);
    }
}

static void opens_with_the_defaults(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    cake_storage_t *storage = NULL;
    cake__test_dir_make(&dir);
    assert_int_equal(cake_lmdb_open(dir.path, NULL, &storage), 0);
    assert_int_equal(storage->ops->lanes(storage), 1);
    cake_storage_close(storage);
    cake__test_dir_remove(&dir);
}

static void results_of_lmdb_are_told_apart(void **state)
{
    (void)state;
    static const struct {
        int code, err;
    } rows[] = {{0, 0},
                {MDB_NOTFOUND, CAKE_ENOTFOUND},
                {MDB_CORRUPTED, CAKE_ECORRUPT},
                {MDB_INVALID, CAKE_ECORRUPT},
                {MDB_VERSION_MISMATCH, CAKE_EVERSION},
                {MDB_READERS_FULL, CAKE_EBUSY},
                {EBUSY, CAKE_EBUSY},
                {MDB_MAP_FULL, CAKE_ENOSPC},
                {ENOSPC, CAKE_ENOSPC},
                {ENOMEM, CAKE_ENOMEM},
                {MDB_TXN_FULL, CAKE_ETOOBIG},
                {MDB_PANIC, CAKE_EIO},
                {EIO, CAKE_EIO},
                {MDB_BAD_DBI, CAKE_EINTERNAL}};
    for (size_t i = 0; i < CAKE_COUNT_OF(rows); i++)
        assert_int_equal(cake__lmdb_err(rows[i].code), rows[i].err);
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

/* ---- readers of other processes ---------------------------------------------------------------------------------- */

static _Noreturn void read_until_killed(const char *path, int ready)
{
    MDB_env *env;
    MDB_txn *txn;
    unsigned lanes;
    cake_log_t log = {cake__test_log, NULL, CAKE_LOG_WARN};
    bool reads =
        cake__lmdb_open_for_copy(path, &env, &lanes, &log) == 0 && mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) == 0;
    if (write(ready, &reads, sizeof reads) == sizeof reads)
        pause();
    _exit(1);
}

/* Begins to read the file in another process, and kills that. */
static void die_reading(const char *path)
{
    int ends[2], status;
    bool reads = false;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        read_until_killed(path, ends[1]);
    assert_int_equal(read(ends[0], &reads, sizeof reads), sizeof reads);
    assert_true(reads);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    close(ends[0]);
    close(ends[1]);
}

static off_t overwrite(cake__suite_t *suite, const char *path, unsigned times)
{
    static const char value[8192];
    struct stat info;
    for (unsigned i = 0; i < times; i++) {
        cake_write_t write = cake__suite_put("k", cake__slice_str("key"), cake__slice(value, sizeof value), i + 1);
        assert_int_equal(cake__suite_commit_one(suite, write), 0);
    }
    assert_int_equal(stat(path, &info), 0);
    return info.st_size;
}

static void pages_are_used_again_after_a_reader_was_killed(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    cake__suite_t suite = {.keeps = true};
    char path[CAKE__PATH_MAX];
    cake__test_dir_make(&dir);
    snprintf(path, sizeof path, "%s/lane-000.mdb", dir.path);
    assert_int_equal(open_dir(dir.path, &suite.storage), 0);
    off_t before = overwrite(&suite, path, 200);
    die_reading(path);
    off_t after = overwrite(&suite, path, 600);
    assert_true(after - before <
                64 * 5 * 8192); /* what the commits between two looks take; with the dead one that of all 600 */
    assert_true(overwrite(&suite, path, 600) == after);
    cake_storage_close(suite.storage);
    cake__test_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DISK_CASES(&lmdb_kind),
        cmocka_unit_test(refuses_other_programs_and_newer_versions),
        cmocka_unit_test(opens_files_of_older_versions),
        cmocka_unit_test(finds_damage),
        cmocka_unit_test(opens_with_the_defaults),
        cmocka_unit_test(results_of_lmdb_are_told_apart),
        cmocka_unit_test(keys_longer_than_lmdb_allows),
        cmocka_unit_test(pages_are_used_again_after_a_reader_was_killed),
    };
    cmocka_set_test_filter(getenv("CAKE_TEST_ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
