#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>

#include "sqlite/sqlite.h"
#include "storage/crash_test.h"

static int open_dir(const char *dir, cake_storage_t **storage)
{
    cake_log_t log = {cake__test_log, NULL, CAKE_LOG_WARN};
    cake_sqlite_options_t options = CAKE_SQLITE_OPTIONS_INIT;
    options.log = &log;
    return cake_sqlite_open(dir, &options, storage);
}

static int open_lanes(const char *dir, unsigned lanes, bool is_relaxed, cake_storage_t **storage)
{
    cake_log_t log = {cake__test_log, NULL, CAKE_LOG_WARN};
    cake_sqlite_options_t options = CAKE_SQLITE_OPTIONS_INIT;
    options.log = &log;
    options.lanes = lanes;
    options.lose_last_writes_on_power_cut = is_relaxed;
    return cake_sqlite_open(dir, &options, storage);
}

typedef struct factory {
    cake__test_dir_t dir;
    unsigned lanes;
    bool is_relaxed;
} factory_t;

static int open_for_suite(void *arg, bool fresh, cake_storage_t **storage)
{
    factory_t *factory = arg;
    if (fresh)
        cake__test_dir_clear(&factory->dir);
    return open_lanes(factory->dir.path, factory->lanes, factory->is_relaxed, storage);
}

static void run_suite(unsigned lanes, bool is_relaxed)
{
    factory_t factory = {.lanes = lanes, .is_relaxed = is_relaxed};
    cake_storage_suite_options_t options = CAKE_STORAGE_SUITE_OPTIONS_INIT;
    options.rows = 20000;
    options.steps = is_relaxed ? 2000 : 500;
    options.seed = lanes;
    cake__test_dir_make(&factory.dir);
    assert_int_equal(cake_storage_suite_run_with(&options, open_for_suite, &factory, stdout), 0);
    cake__test_dir_remove(&factory.dir);
}

static void passes_the_suite(void **state)
{
    (void)state;
    run_suite(1, false);
}

static void passes_the_suite_with_lanes(void **state)
{
    (void)state;
    run_suite(3, true);
}

static void survives_being_killed(void **state)
{
    (void)state;
    crash_kill_rounds(open_dir, 40, 1);
}

static int open_with_alloc(const char *dir, const cake_alloc_t *alloc, cake_storage_t **storage)
{
    cake_sqlite_options_t options = CAKE_SQLITE_OPTIONS_INIT;
    options.alloc = alloc;
    return cake_sqlite_open(dir, &options, storage);
}

static void survives_failed_allocations(void **state)
{
    (void)state;
    crash_fail_allocations(open_dir, open_with_alloc);
}

static void survives_a_full_disk(void **state)
{
    (void)state;
    crash_full_disk(open_dir, "size=40m");
}

/* ---- refusals ----------------------------------------------------------------------------------------------------------- */

/* A directory with one row in it, closed; lanes as given. */
static void make_dir(cake__test_dir_t *dir, unsigned lanes)
{
    cake__suite_t suite = {.keeps = true};
    cake__test_dir_make(dir);
    assert_int_equal(open_lanes(dir->path, lanes, false, &suite.storage), 0);
    cake_write_t write = cake__suite_put("k", cake__slice_str("key"), cake__slice_str("value"), 1);
    assert_int_equal(cake__suite_commit_one(&suite, write), 0);
    cake_storage_close(suite.storage);
}

static void check_row(const char *dir)
{
    cake__suite_t suite = {.keeps = true};
    assert_int_equal(open_dir(dir, &suite.storage), 0);
    cake__suite_expect_live(&suite, "k", cake__slice_str("key"), cake__slice_str("value"), 1);
    assert_string_equal(suite.why, "");
    cake_storage_close(suite.storage);
}

typedef struct file_image {
    uint8_t *bytes;
    size_t len;
    char path[128];
} file_image_t;

static file_image_t read_image(const char *dir, const char *name)
{
    file_image_t image = {0};
    struct stat info;
    snprintf(image.path, sizeof image.path, "%s/%s", dir, name);
    int fd = open(image.path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &info), 0);
    image.len = (size_t)info.st_size;
    image.bytes = malloc(image.len + 1);
    assert_non_null(image.bytes);
    assert_int_equal(read(fd, image.bytes, image.len + 1), info.st_size);
    close(fd);
    return image;
}

static void write_image(const file_image_t *image, size_t len)
{
    int fd = open(image->path, O_WRONLY | O_TRUNC | O_CREAT, 0666);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, image->bytes, len), (ssize_t)len);
    close(fd);
}

/* Opening gives `expected` and leaves the file as it was. */
static void check_refused(const char *dir, const char *name, int expected)
{
    cake_storage_t *storage = NULL;
    file_image_t before = read_image(dir, name);
    assert_int_equal(open_dir(dir, &storage), expected);
    assert_null(storage);
    file_image_t after = read_image(dir, name);
    assert_int_equal(before.len, after.len);
    assert_memory_equal(before.bytes, after.bytes, before.len);
    free(before.bytes);
    free(after.bytes);
}

static void refuses_what_is_not_its_own(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    make_dir(&dir, 1);
    file_image_t good = read_image(dir.path, "lane-000.sqlite");
    uint8_t saved[100];
    memcpy(saved, good.bytes, sizeof saved);

    write_image(&good, 0); /* emptied */
    check_refused(dir.path, "lane-000.sqlite", CAKE_ECORRUPT);
    write_image(&good, 60);
    check_refused(dir.path, "lane-000.sqlite", CAKE_ECORRUPT);
    write_image(&good, good.len - 4096); /* cut short */
    check_refused(dir.path, "lane-000.sqlite", CAKE_ECORRUPT);

    memcpy(good.bytes, "Something else.", 16);
    write_image(&good, good.len);
    check_refused(dir.path, "lane-000.sqlite", CAKE_ECORRUPT);
    memcpy(good.bytes, saved, sizeof saved);

    good.bytes[68] ^= 1; /* application_id: the database of another program */
    write_image(&good, good.len);
    check_refused(dir.path, "lane-000.sqlite", CAKE_ECORRUPT);
    memcpy(good.bytes, saved, sizeof saved);

    good.bytes[63] = 200; /* user_version */
    write_image(&good, good.len);
    check_refused(dir.path, "lane-000.sqlite", CAKE_EVERSION);
    memcpy(good.bytes, saved, sizeof saved);

    write_image(&good, good.len);
    check_row(dir.path);
    free(good.bytes);
    cake__test_dir_remove(&dir);
}

/* Any byte of the file may be wrong: nothing crashes, and what is read is an error or a row that check() doubts. */
static void survives_damaged_files(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    cake__random_t random;
    make_dir(&dir, 1);
    cake__random_init(&random, 7);
    file_image_t good = read_image(dir.path, "lane-000.sqlite");
    unsigned refused = 0;
    for (unsigned i = 0; i < 150; i++) {
        cake__suite_t suite = {.keeps = true};
        char report[256];
        size_t at = cake__random_below(&random, good.len), len = 1 + cake__random_below(&random, 64);
        len = len > good.len - at ? good.len - at : len;
        uint8_t saved[64];
        memcpy(saved, good.bytes + at, len);
        memset(good.bytes + at, (int)cake__random_below(&random, 256), len);
        write_image(&good, good.len);
        int err = open_dir(dir.path, &suite.storage);
        refused += err != 0;
        assert_true(err == 0 || err == CAKE_ECORRUPT || err == CAKE_EVERSION || err == CAKE_EIO);
        if (err == 0) {
            cake_doc_t *doc = NULL;
            err = suite.storage->ops->get(suite.storage, cake__slice_str("k"), cake__slice_str("key"), &doc);
            cake_doc_free(err == 0 ? doc : NULL);
            cake_write_t write = cake__suite_put("k", cake__slice_str("key"), cake__slice_str("value"), 1);
            (void)cake__suite_commit_one(&suite, write);
            (void)cake__suite_count_keyspaces(&suite, "k");
            (void)suite.storage->ops->check(suite.storage, report, sizeof report);
            cake_storage_close(suite.storage);
        }
        memcpy(good.bytes + at, saved, len);
        cake__test_empty(dir.path); /* log and all */
    }
    assert_true(refused > 0);
    free(good.bytes);
    cake__test_dir_remove(&dir);
}

static void check_finds_damage(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    cake_storage_t *storage;
    sqlite3 *db;
    char path[128], report[256];
    make_dir(&dir, 1);
    snprintf(path, sizeof path, "%s/lane-000.sqlite", dir.path);
    assert_int_equal(open_dir(dir.path, &storage), 0);
    assert_int_equal(storage->ops->check(storage, report, sizeof report), 0);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK); /* a shell beside the open storage */
    assert_int_equal(sqlite3_exec(db, "INSERT INTO documents VALUES (99, x'01', 1, 1, 1, NULL, x'')", 0, 0, 0), 0);
    assert_int_equal(storage->ops->check(storage, report, sizeof report), CAKE_ECORRUPT);
    assert_non_null(strstr(report, "keyspace number 99"));
    assert_int_equal(sqlite3_exec(db, "DELETE FROM documents WHERE keyspace = 99", 0, 0, 0), 0);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    cake_storage_close(storage);
    check_row(dir.path);
    cake__test_dir_remove(&dir);
}

static void keeps_the_number_of_lanes(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    cake_storage_t *storage = NULL;
    make_dir(&dir, 3);
    assert_int_equal(open_lanes(dir.path, 2, false, &storage), CAKE_ECONFLICT);
    assert_int_equal(open_lanes(dir.path, 300, false, &storage), CAKE_EINVAL);
    assert_int_equal(open_lanes(dir.path, 3, false, &storage), 0);
    assert_int_equal(storage->ops->lanes(storage), 3);
    cake_storage_close(storage);
    check_row(dir.path); /* 0: as many as there are */

    char from[128], to[128];
    snprintf(from, sizeof from, "%s/lane-001.sqlite", dir.path);
    snprintf(to, sizeof to, "%s/elsewhere", dir.path);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(open_dir(dir.path, &storage), CAKE_ECORRUPT); /* one is missing */
    snprintf(to, sizeof to, "%s/lane-002.sqlite", dir.path);
    assert_int_equal(rename(to, from), 0);
    assert_int_equal(open_dir(dir.path, &storage), CAKE_ECORRUPT); /* one is another */
    cake__test_dir_remove(&dir);
}

/* Lane 0 is made last. Without it the others are of an attempt that was cut short, unless they hold something. */
static void finishes_a_directory_that_was_cut_short(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    cake_storage_t *storage = NULL;
    char lane[128];
    cake__test_dir_make(&dir);
    assert_int_equal(open_lanes(dir.path, 2, false, &storage), 0);
    char name[32] = "";
    cake__suite_t suite = {.storage = storage};
    for (unsigned i = 0; storage->ops->lane_of(storage, cake__slice_str(name)) != 1 || i == 0; i++)
        snprintf(name, sizeof name, "keyspace %u", i);
    cake_storage_close(storage);
    snprintf(lane, sizeof lane, "%s/lane-000.sqlite", dir.path);
    assert_int_equal(unlink(lane), 0);
    assert_int_equal(open_lanes(dir.path, 4, false, &suite.storage), 0);
    cake_storage_close(suite.storage);

    cake__test_dir_clear(&dir);
    assert_int_equal(open_lanes(dir.path, 2, false, &suite.storage), 0);
    cake_write_t write = cake__suite_put(name, cake__slice_str("key"), cake__slice_str("value"), 1);
    assert_int_equal(cake__suite_commit_one(&suite, write), 0);
    cake_storage_close(suite.storage);
    assert_int_equal(unlink(lane), 0);
    assert_int_equal(open_lanes(dir.path, 2, false, &storage), CAKE_ECORRUPT);
    assert_false(cake__path_exists(lane));
    cake__test_dir_remove(&dir);
}

static void is_open_once(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    cake_storage_t *storage, *second = NULL;
    make_dir(&dir, 1);
    assert_int_equal(open_dir(dir.path, &storage), 0);
    assert_int_equal(open_dir(dir.path, &second), CAKE_EBUSY);
    assert_null(second);
    cake_storage_close(storage);
    check_row(dir.path);
    cake__test_dir_remove(&dir);
}

static void says_when_the_directory_cannot_be_made(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    cake_storage_t *storage = NULL;
    char path[128], longer[2000];
    make_dir(&dir, 1);
    snprintf(path, sizeof path, "%s/lane-000.sqlite/below", dir.path);
    assert_int_equal(open_dir(path, &storage), CAKE_EIO);
    assert_int_equal(open_dir("/proc/no-such-place/data", &storage), CAKE_EIO);
    assert_int_equal(open_dir("", &storage), CAKE_EINVAL);
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(open_dir(longer, &storage), CAKE_ETOOBIG);
    snprintf(path, sizeof path, "%s/a/b/c", dir.parent);
    assert_int_equal(open_dir(path, &storage), 0); /* with its parents */
    cake_storage_close(storage);
    cake__test_empty(path);
    cake__test_dir_remove(&dir);
}

static void backup_is_a_storage(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    cake_storage_t *storage;
    char copy[128];
    make_dir(&dir, 3);
    snprintf(copy, sizeof copy, "%s/copy", dir.parent);
    assert_int_equal(open_dir(dir.path, &storage), 0);
    assert_int_equal(storage->ops->backup(storage, copy), 0);
    assert_int_equal(storage->ops->backup(storage, copy), CAKE_ECONFLICT);
    cake_storage_close(storage);
    check_row(copy);
    cake__test_empty(copy);
    cake__test_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_the_suite),
        cmocka_unit_test(passes_the_suite_with_lanes),
        cmocka_unit_test(survives_being_killed),
        cmocka_unit_test(survives_failed_allocations),
        cmocka_unit_test(survives_a_full_disk),
        cmocka_unit_test(refuses_what_is_not_its_own),
        cmocka_unit_test(survives_damaged_files),
        cmocka_unit_test(check_finds_damage),
        cmocka_unit_test(keeps_the_number_of_lanes),
        cmocka_unit_test(finishes_a_directory_that_was_cut_short),
        cmocka_unit_test(is_open_once),
        cmocka_unit_test(says_when_the_directory_cannot_be_made),
        cmocka_unit_test(backup_is_a_storage),
    };
    cmocka_set_test_filter(getenv("CAKE_TEST_ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
