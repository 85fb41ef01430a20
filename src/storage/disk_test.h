/* disk_test.h: what every storage on disk is tested for, whatever its files hold. A test program fills in a
 * disk_kind_t and puts DISK_CASES(&kind) among its tests. Include cmocka first. */
#ifndef CAKE_STORAGE_DISK_TEST_H
#define CAKE_STORAGE_DISK_TEST_H

#include <pthread.h>

#include "storage/crash_test.h"

typedef struct disk_options {
    unsigned lanes; /* 0: as many as there are */
    bool is_relaxed;
    const cake_alloc_t *alloc;
} disk_options_t;

typedef struct disk_kind {
    const char *suffix; /* of lane-000 */
    int (*open)(const char *dir, const disk_options_t *options, cake_storage_t **storage);
    crash_open_fn open_plain;
    crash_open_alloc_fn open_alloc;
    int (*copy)(const char *from, const char *to, const cake_log_t *log);
    size_t least_bytes; /* a file cut to that many is refused */
} disk_kind_t;

#define DISK_CASE(test, kind)                                                                                          \
    {                                                                                                                  \
#test, test, NULL, NULL, kind                                                                                  \
    }
#define DISK_CASES(kind)                                                                                               \
    DISK_CASE(passes_the_suite, kind), DISK_CASE(passes_the_suite_with_lanes, kind),                                   \
        DISK_CASE(survives_being_killed, kind), DISK_CASE(survives_failed_allocations, kind),                          \
        DISK_CASE(survives_a_full_disk, kind), DISK_CASE(refuses_files_cut_short, kind),                               \
        DISK_CASE(keeps_the_number_of_lanes, kind), DISK_CASE(finishes_a_directory_that_was_cut_short, kind),          \
        DISK_CASE(is_open_once, kind), DISK_CASE(says_when_the_directory_cannot_be_made, kind),                        \
        DISK_CASE(backup_is_a_storage, kind), DISK_CASE(backup_beside_writers_is_consistent, kind),                    \
        DISK_CASE(refuses_batches_of_other_lanes, kind), DISK_CASE(copies_what_is_whole, kind),                        \
        DISK_CASE(needs_its_lock, kind), DISK_CASE(another_process_copies, kind),                                      \
        DISK_CASE(backup_that_fails_leaves_nothing_to_open, kind)

/* ---- helpers ----------------------------------------------------------------------------------------------------- */

static inline int disk_open(const disk_kind_t *kind, const char *dir, unsigned lanes, cake_storage_t **storage)
{
    disk_options_t options = {.lanes = lanes};
    return kind->open(dir, &options, storage);
}

static inline void disk_lane(const disk_kind_t *kind, const char *dir, unsigned lane, char out[128])
{
    snprintf(out, 128, "%s/lane-%03u.%s", dir, lane, kind->suffix);
}

/* A directory with one row in it, closed. */
static inline void disk_make(const disk_kind_t *kind, cake__test_dir_t *dir, unsigned lanes)
{
    cake__suite_t suite = {.keeps = true};
    cake__test_dir_make(dir);
    assert_int_equal(disk_open(kind, dir->path, lanes, &suite.storage), 0);
    cake_write_t write = cake__suite_put("k", cake__slice_str("key"), cake__slice_str("value"), 1);
    assert_int_equal(cake__suite_commit_one(&suite, write), 0);
    cake_storage_close(suite.storage);
}

static inline void disk_check_row(const disk_kind_t *kind, const char *dir)
{
    cake__suite_t suite = {.keeps = true};
    assert_int_equal(disk_open(kind, dir, 0, &suite.storage), 0);
    cake__suite_expect_live(&suite, "k", cake__slice_str("key"), cake__slice_str("value"), 1);
    assert_string_equal(suite.why, "");
    cake_storage_close(suite.storage);
}

typedef struct file_image {
    uint8_t *bytes;
    size_t len;
    char path[128];
} file_image_t;

static inline file_image_t read_image(const disk_kind_t *kind, const char *dir)
{
    file_image_t image = {0};
    struct stat info;
    disk_lane(kind, dir, 0, image.path);
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

static inline void write_image(const file_image_t *image, size_t len)
{
    int fd = open(image->path, O_WRONLY | O_TRUNC | O_CREAT, 0666);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, image->bytes, len), (ssize_t)len);
    close(fd);
}

/* Opening gives `expected` and leaves the file as it was. */
static inline void check_refused(const disk_kind_t *kind, const char *dir, int expected)
{
    cake_storage_t *storage = NULL;
    file_image_t before = read_image(kind, dir);
    assert_int_equal(disk_open(kind, dir, 0, &storage), expected);
    assert_null(storage);
    file_image_t after = read_image(kind, dir);
    assert_int_equal(before.len, after.len);
    assert_memory_equal(before.bytes, after.bytes, before.len);
    free(before.bytes);
    free(after.bytes);
}

/* ---- the suite, crashes ------------------------------------------------------------------------------------------ */

typedef struct factory {
    const disk_kind_t *kind;
    cake__test_dir_t dir;
    disk_options_t options;
} factory_t;

static inline int open_for_suite(void *arg, bool fresh, cake_storage_t **storage)
{
    factory_t *factory = arg;
    if (fresh)
        cake__test_dir_clear(&factory->dir);
    return factory->kind->open(factory->dir.path, &factory->options, storage);
}

/* CAKE_TEST_ROWS: of the case with many rows. */
static inline void run_suite(const disk_kind_t *kind, unsigned lanes, bool is_relaxed)
{
    const char *rows = getenv("CAKE_TEST_ROWS");
    factory_t factory = {.kind = kind, .options = {.lanes = lanes, .is_relaxed = is_relaxed}};
    cake_storage_suite_options_t options = CAKE_STORAGE_SUITE_OPTIONS_INIT;
    options.rows = rows != NULL ? strtoull(rows, NULL, 10) : 20000;
    options.steps = is_relaxed ? 2000 : 500;
    options.seed = lanes;
    cake__test_dir_make(&factory.dir);
    assert_int_equal(cake_storage_suite_run_with(&options, open_for_suite, &factory, stdout), 0);
    cake__test_dir_remove(&factory.dir);
}

static inline void passes_the_suite(void **state)
{
    run_suite(*state, 1, false);
}

static inline void passes_the_suite_with_lanes(void **state)
{
    run_suite(*state, 3, true);
}

static inline void survives_being_killed(void **state)
{
    const disk_kind_t *kind = *state;
    crash_kill_rounds(kind->open_plain, 40, 1);
}

static inline void survives_failed_allocations(void **state)
{
    const disk_kind_t *kind = *state;
    crash_fail_allocations(kind->open_plain, kind->open_alloc);
}

static inline void survives_a_full_disk(void **state)
{
    const disk_kind_t *kind = *state;
    crash_full_disk(kind->open_plain, "size=40m");
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static inline void refuses_files_cut_short(void **state)
{
    const disk_kind_t *kind = *state;
    cake__test_dir_t dir;
    uint8_t saved[64];
    disk_make(kind, &dir, 1);
    file_image_t good = read_image(kind, dir.path);
    const size_t sizes[] = {0, 60, 100, kind->least_bytes, good.len - 4096};
    for (size_t i = 0; i < CAKE_COUNT_OF(sizes); i++) {
        write_image(&good, sizes[i]);
        if (i < 4 || sizes[i] < good.len - 4096)
            check_refused(kind, dir.path, CAKE_ECORRUPT);
    }
    memcpy(saved, good.bytes, sizeof saved);
    memset(good.bytes, 'x', sizeof saved); /* not even the start is ours */
    write_image(&good, good.len);
    check_refused(kind, dir.path, CAKE_ECORRUPT);
    memcpy(good.bytes, saved, sizeof saved);
    write_image(&good, good.len);
    disk_check_row(kind, dir.path);
    free(good.bytes);
    cake__test_dir_remove(&dir);
}

static inline void use_damaged(cake_storage_t *storage)
{
    cake__suite_t suite = {.storage = storage};
    char report[256];
    cake_doc_t *doc = NULL;
    int err = storage->ops->get(storage, cake__slice_str("k"), cake__slice_str("key"), &doc);
    cake_doc_free(err == 0 ? doc : NULL);
    cake_write_t write = cake__suite_put("k", cake__slice_str("key"), cake__slice_str("value"), 1);
    (void)cake__suite_commit_one(&suite, write);
    (void)cake__suite_count_keyspaces(&suite, "k");
    (void)storage->ops->check(storage, report, sizeof report);
}

/* Any byte of the file may be wrong: nothing crashes, and what is read is an error or a row that check() doubts. */
static inline void survives_damaged_files(void **state)
{
    const disk_kind_t *kind = *state;
    cake__test_dir_t dir;
    cake__random_t random;
    disk_make(kind, &dir, 1);
    cake__random_init(&random, 7);
    file_image_t good = read_image(kind, dir.path);
    unsigned refused = 0;
    size_t used = good.len;
    while (used > 1 && good.bytes[used - 1] == 0) /* room that is not used yet */
        used--;
    for (unsigned i = 0; i < 150; i++) {
        cake__suite_t suite = {.keeps = true};
        size_t at = cake__random_below(&random, used), len = 1 + cake__random_below(&random, 64);
        len = len > good.len - at ? good.len - at : len;
        uint8_t saved[64];
        memcpy(saved, good.bytes + at, len);
        memset(good.bytes + at, (int)cake__random_below(&random, 256), len);
        write_image(&good, good.len);
        int err = disk_open(kind, dir.path, 0, &suite.storage);
        refused += err != 0;
        assert_true(err == 0 || err == CAKE_ECORRUPT || err == CAKE_EVERSION || err == CAKE_EIO);
        if (err == 0) {
            use_damaged(suite.storage);
            cake_storage_close(suite.storage);
        }
        memcpy(good.bytes + at, saved, len);
        cake__test_empty(dir.path); /* log and all */
    }
    assert_true(refused > 0);
    free(good.bytes);
    cake__test_dir_remove(&dir);
}

static inline void keeps_the_number_of_lanes(void **state)
{
    const disk_kind_t *kind = *state;
    cake__test_dir_t dir;
    cake_storage_t *storage = NULL;
    disk_make(kind, &dir, 3);
    assert_int_equal(disk_open(kind, dir.path, 2, &storage), CAKE_ECONFLICT);
    assert_int_equal(disk_open(kind, dir.path, 300, &storage), CAKE_EINVAL);
    assert_int_equal(disk_open(kind, dir.path, 3, &storage), 0);
    assert_int_equal(storage->ops->lanes(storage), 3);
    cake_storage_close(storage);
    disk_check_row(kind, dir.path); /* 0: as many as there are */

    char from[128], to[128];
    disk_lane(kind, dir.path, 1, from);
    snprintf(to, sizeof to, "%s/elsewhere", dir.path);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(disk_open(kind, dir.path, 0, &storage), CAKE_ECORRUPT); /* one is missing */
    disk_lane(kind, dir.path, 2, to);
    assert_int_equal(rename(to, from), 0);
    assert_int_equal(disk_open(kind, dir.path, 0, &storage), CAKE_ECORRUPT); /* one is another */
    cake__test_dir_remove(&dir);
}

/* Lane 0 is made last. Without it the others are of an attempt that was cut short, unless they hold something. */
static inline void finishes_a_directory_that_was_cut_short(void **state)
{
    const disk_kind_t *kind = *state;
    cake__test_dir_t dir;
    cake_storage_t *storage = NULL;
    char lane[128];
    cake__test_dir_make(&dir);
    assert_int_equal(disk_open(kind, dir.path, 2, &storage), 0);
    char name[32] = "";
    cake__suite_t suite = {.storage = storage};
    for (unsigned i = 0; storage->ops->lane_of(storage, cake__slice_str(name)) != 1 || i == 0; i++)
        snprintf(name, sizeof name, "keyspace %u", i);
    cake_storage_close(storage);
    disk_lane(kind, dir.path, 0, lane);
    assert_int_equal(unlink(lane), 0);
    assert_int_equal(disk_open(kind, dir.path, 4, &suite.storage), 0);
    cake_storage_close(suite.storage);

    cake__test_dir_clear(&dir);
    assert_int_equal(disk_open(kind, dir.path, 2, &suite.storage), 0);
    cake_write_t write = cake__suite_put(name, cake__slice_str("key"), cake__slice_str("value"), 1);
    assert_int_equal(cake__suite_commit_one(&suite, write), 0);
    cake_storage_close(suite.storage);
    assert_int_equal(unlink(lane), 0);
    assert_int_equal(disk_open(kind, dir.path, 2, &storage), CAKE_ECORRUPT);
    assert_false(cake__path_exists(lane));
    cake__test_dir_remove(&dir);
}

static inline void is_open_once(void **state)
{
    const disk_kind_t *kind = *state;
    cake__test_dir_t dir;
    cake_storage_t *storage, *second = NULL;
    disk_make(kind, &dir, 1);
    assert_int_equal(disk_open(kind, dir.path, 0, &storage), 0);
    assert_int_equal(disk_open(kind, dir.path, 0, &second), CAKE_EBUSY);
    assert_null(second);
    cake_storage_close(storage);
    disk_check_row(kind, dir.path);
    cake__test_dir_remove(&dir);
}

static inline void says_when_the_directory_cannot_be_made(void **state)
{
    const disk_kind_t *kind = *state;
    cake__test_dir_t dir;
    cake_storage_t *storage = NULL;
    char path[128], longer[2000];
    disk_make(kind, &dir, 1);
    snprintf(path, sizeof path, "%s/lane-000.%s/below", dir.path, kind->suffix);
    assert_int_equal(disk_open(kind, path, 0, &storage), CAKE_EIO);
    assert_int_equal(disk_open(kind, "/proc/no-such-place/data", 0, &storage), CAKE_EIO);
    assert_int_equal(disk_open(kind, "", 0, &storage), CAKE_EINVAL);
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(disk_open(kind, longer, 0, &storage), CAKE_ETOOBIG);
    snprintf(path, sizeof path, "%s/a/b/c", dir.parent);
    assert_int_equal(disk_open(kind, path, 0, &storage), 0); /* with its parents */
    cake_storage_close(storage);
    cake__test_empty(path);
    cake__test_dir_remove(&dir);
}

static inline void backup_is_a_storage(void **state)
{
    const disk_kind_t *kind = *state;
    cake__test_dir_t dir;
    cake_storage_t *storage;
    char copy[128];
    disk_make(kind, &dir, 3);
    snprintf(copy, sizeof copy, "%s/copy", dir.parent);
    assert_int_equal(disk_open(kind, dir.path, 0, &storage), 0);
    assert_int_equal(storage->ops->backup(storage, copy), 0);
    assert_int_equal(storage->ops->backup(storage, copy), CAKE_ECONFLICT);
    cake_storage_close(storage);
    disk_check_row(kind, copy);
    cake__test_empty(copy);
    cake__test_dir_remove(&dir);
}

static inline void refuses_batches_of_other_lanes(void **state)
{
    const disk_kind_t *kind = *state;
    cake__test_dir_t dir;
    cake_storage_t *storage = NULL;
    cake__test_dir_make(&dir);
    assert_int_equal(disk_open(kind, dir.path, 2, &storage), 0);
    cake_slice_t text = cake__slice_str("k");
    cake_write_t write = cake__suite_put("k", text, text, 1);
    cake_batch_t batch = {!storage->ops->lane_of(storage, text), &write, 1, NULL, 0};
    assert_int_equal(storage->ops->write(storage, &batch), CAKE_EINVAL);
    batch.lane = 2;
    assert_int_equal(storage->ops->write(storage, &batch), CAKE_EINVAL);
    assert_int_equal(storage->ops->metas(storage, 2, text, crash_take_last, NULL), CAKE_EINVAL);
    cake__suite_t suite = {.storage = storage};
    cake__suite_expect_absent(&suite, "k", text);
    assert_int_equal(cake__suite_count_keyspaces(&suite, "k"), 0);
    assert_string_equal(suite.why, "");
    cake_storage_close(storage);
    cake__test_dir_remove(&dir);
}

/* What nobody has open is copied as well, and not when a part of it is missing or damaged. */
static inline void copies_what_is_whole(void **state)
{
    const disk_kind_t *kind = *state;
    cake__test_dir_t dir;
    char lane[128], away[128], copy[128], longer[1100];
    disk_make(kind, &dir, 2);
    snprintf(copy, sizeof copy, "%s/copy", dir.parent);
    assert_int_equal(kind->copy(dir.path, copy, NULL), 0);
    disk_check_row(kind, copy);
    cake__test_empty(copy);
    assert_int_equal(rmdir(copy), 0);
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(kind->copy(dir.path, longer, NULL), CAKE_ETOOBIG);
    for (unsigned i = 0; i < 2; i++) {
        disk_lane(kind, dir.path, i, lane);
        snprintf(away, sizeof away, "%s/away", dir.parent);
        assert_int_equal(rename(lane, away), 0);
        int fd = open(lane, O_CREAT | O_WRONLY, 0666);
        assert_int_equal(write(fd, away, sizeof away), sizeof away); /* not a database */
        close(fd);
        assert_int_equal(kind->copy(dir.path, copy, NULL), CAKE_ECORRUPT);
        assert_int_equal(unlink(lane), 0);
        assert_int_equal(kind->copy(dir.path, copy, NULL), i == 0 ? CAKE_ENOTFOUND : CAKE_ECORRUPT);
        assert_false(cake__path_exists(copy));
        assert_int_equal(rename(away, lane), 0);
    }
    disk_check_row(kind, dir.path);
    cake__test_dir_remove(&dir);
}

static inline void needs_its_lock(void **state)
{
    const disk_kind_t *kind = *state;
    cake__test_dir_t dir;
    cake_storage_t *storage = NULL;
    char path[128];
    disk_make(kind, &dir, 1);
    snprintf(path, sizeof path, "%s/lock", dir.path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(disk_open(kind, dir.path, 0, &storage), CAKE_EIO);
    assert_int_equal(rmdir(path), 0);
    disk_check_row(kind, dir.path);
    cake__test_dir_remove(&dir);
}

/* ---- backup beside writers --------------------------------------------------------------------------------------- */

typedef struct copier {
    cake_storage_t *storage;
    char path[128];
    int err;
} copier_t;

static inline void *copy_storage(void *arg)
{
    copier_t *copier = arg;
    copier->err = copier->storage->ops->backup(copier->storage, copier->path);
    return NULL;
}

/* A copy made while batches are written: it holds batches 1..n, whole, for some n between those before and after. */
static inline void backup_beside_writers_is_consistent(void **state)
{
    const disk_kind_t *kind = *state;
    cake__test_dir_t dir;
    crash_model_t model, copied;
    cake_storage_t *storage = NULL;
    cake__test_dir_make(&dir);
    crash_model_init(&model);
    crash_model_init(&copied);
    assert_int_equal(disk_open(kind, dir.path, 2, &storage), 0);
    for (unsigned round = 0; round < 5; round++) {
        copier_t copier = {.storage = storage};
        pthread_t thread;
        uint64_t before = model.last;
        snprintf(copier.path, sizeof copier.path, "%s/copy-%u", dir.parent, round);
        assert_int_equal(pthread_create(&thread, NULL, copy_storage, &copier), 0);
        while (model.last < before + 40)
            assert_int_equal(crash_write(storage, model.last + 1, &model), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(copier.err, 0);
        cake_storage_t *copy = NULL;
        assert_int_equal(kind->open_plain(copier.path, &copy), 0);
        uint64_t last = crash_last(copy);
        assert_in_range(last, before, model.last);
        crash_catch_up(&copied, last);
        crash_compare(copy, &copied);
        cake_storage_close(copy);
    }
    cake_storage_close(storage);
    cake__test_dir_remove(&dir);
}

/* A child copies what this process has open and goes on writing. */
static inline void another_process_copies(void **state)
{
    const disk_kind_t *kind = *state;
    cake__test_dir_t dir;
    crash_model_t model;
    cake_storage_t *storage = NULL;
    char path[128];
    int status;
    cake__test_dir_make(&dir);
    crash_model_init(&model);
    snprintf(path, sizeof path, "%s/copy", dir.parent);
    assert_int_equal(kind->copy(dir.path, path, NULL), CAKE_ENOTFOUND);
    pid_t child = fork();
    if (child == 0) {
        int err = CAKE_ENOTFOUND; /* until there is something: no handles of the parent are used here */
        for (unsigned i = 0; err == CAKE_ENOTFOUND && i < 120000; i++, usleep(1000))
            err = kind->copy(dir.path, path, NULL);
        _exit(err == 0 ? 0 : 1);
    }
    assert_int_equal(disk_open(kind, dir.path, 3, &storage), 0);
    while (waitpid(child, &status, WNOHANG) == 0)
        assert_int_equal(crash_write(storage, model.last + 1, &model), 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(kind->copy(dir.path, path, NULL), CAKE_ECONFLICT);
    crash_compare(storage, &model);
    cake_storage_close(storage);
    crash_model_t copied;
    crash_model_init(&copied);
    assert_int_equal(kind->open_plain(path, &storage), 0);
    crash_catch_up(&copied, crash_last(storage));
    crash_compare(storage, &copied);
    assert_int_equal(storage->ops->lanes(storage), 3);
    cake_storage_close(storage);
    cake__test_empty(dir.path);
    assert_int_equal(kind->copy(dir.path, path, NULL), CAKE_ENOTFOUND);
    cake__test_dir_remove(&dir);
}

/* On a disk without room for it. What was there stays as it is. */
static inline void backup_that_fails_leaves_nothing_to_open(void **state)
{
    const disk_kind_t *kind = *state;
    cake__test_dir_t dir, small;
    cake_storage_t *storage = NULL;
    char path[128];
    disk_make(kind, &dir, 1);
    cake__test_dir_make(&small);
    if (mount("tmpfs", small.parent, "tmpfs", 0, "size=20k") != 0) {
        cake__test_dir_remove(&small);
        cake__test_dir_remove(&dir);
        skip();
    }
    snprintf(path, sizeof path, "%s/copy", small.parent);
    assert_int_equal(disk_open(kind, dir.path, 0, &storage), 0);
    assert_int_equal(storage->ops->backup(storage, path), CAKE_ENOSPC);
    cake_storage_close(storage);
    assert_false(cake__path_exists(path));
    assert_int_equal(rmdir(small.parent), -1);
    assert_int_equal(errno, EBUSY); /* mounted, and empty */
    disk_check_row(kind, dir.path);
    assert_int_equal(umount(small.parent), 0);
    cake__test_dir_remove(&small);
    cake__test_dir_remove(&dir);
}

#endif
