/* crash_test.h: what a storage on disk must survive, for the tests of each: its process killed at random points, a full
 * disk. Include cmocka first.
 *
 * Batch n does the same whenever it is run: a handful of puts, tombstones and erases drawn from a generator seeded
 * with n, and the meta "last" = n. So after a crash the meta says which batches should be there, and everything else
 * in the storage must equal what they make: a batch that is there in part shows, and so does one that was lost. */
#ifndef CAKE_STORAGE_CRASH_TEST_H
#define CAKE_STORAGE_CRASH_TEST_H

#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "base/random.h"
#include "storage/dir_test.h"
#include "storage/heap_test.h"
#include "storage/suite.h"

#define CRASH_KEYS  300u
#define CRASH_BATCH 12u
#define CRASH_VALUE 3000u

typedef int (*crash_open_fn)(const char *dir, cake_storage_t **storage);

typedef struct crash_model {
    uint64_t last; /* batches 1..last are in it */
    struct crash_row {
        cake_write_kind_t kind; /* erase: absent */
        uint64_t hlc;
        size_t len;
    } rows[CRASH_KEYS];
} crash_model_t;

static inline void crash_model_init(crash_model_t *model)
{
    memset(model, 0, sizeof *model);
    for (unsigned i = 0; i < CRASH_KEYS; i++)
        model->rows[i].kind = CAKE_WRITE_ERASE;
}

static inline cake_slice_t crash_key(unsigned i, char out[64])
{
    static const char *const formats[] = {"a long key, to be found by its digest %u", "key %u",
                                          "%08x-7dec-41d0-a765-00a0c91e6bf6"};
    return cake__slice(out, (size_t)snprintf(out, 64, formats[i % 3], i));
}

static inline const uint8_t *crash_value(uint64_t hlc)
{
    static uint8_t bytes[CRASH_VALUE + 256];
    for (unsigned i = 0; bytes[1] == 0 && i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    return bytes + hlc % 256;
}

/* Fills writes from batch n; keys must have room for CRASH_BATCH * 64 bytes. */
static inline size_t crash_batch(uint64_t n, cake_write_t *writes, char (*keys)[64], crash_model_t *model)
{
    cake__random_t random;
    cake__random_init(&random, n);
    size_t count = 1 + cake__random_below(&random, CRASH_BATCH);
    for (size_t i = 0; i < count; i++) {
        unsigned which = (unsigned)cake__random_below(&random, CRASH_KEYS);
        uint64_t dice = cake__random_below(&random, 10), hlc = n * 100 + i;
        size_t len = dice == 0 ? cake__random_below(&random, CRASH_VALUE) : cake__random_below(&random, 120);
        cake_slice_t key = crash_key(which, keys[i]);
        if (dice < 7)
            writes[i] = cake__suite_put("k", key, cake__slice(crash_value(hlc), len), hlc);
        else
            writes[i] = dice < 9 ? cake__suite_tombstone("k", key, hlc) : cake__suite_erase("k", key);
        if (model != NULL)
            model->rows[which] = (struct crash_row){writes[i].kind, hlc, len};
    }
    return count;
}

static inline int crash_write(cake_storage_t *storage, uint64_t n, crash_model_t *model)
{
    cake_write_t writes[CRASH_BATCH];
    char keys[CRASH_BATCH][64];
    size_t count = crash_batch(n, writes, keys, NULL);
    cake_meta_write_t meta = {cake__slice_str("last"), cake__slice(&n, sizeof n)};
    cake_batch_t batch = {storage->ops->lane_of(storage, cake__slice_str("k")), writes, count, &meta, 1};
    int err = storage->ops->write(storage, &batch);
    if (err == 0 && model != NULL) {
        (void)crash_batch(n, writes, keys, model);
        model->last = n;
    }
    return err;
}

static inline int crash_take_last(void *arg, cake_slice_t name, cake_slice_t value)
{
    (void)name;
    if (value.len == sizeof(uint64_t))
        memcpy(arg, value.data, value.len);
    return 0;
}

static inline uint64_t crash_last(cake_storage_t *storage)
{
    uint64_t last = 0;
    unsigned lane = storage->ops->lane_of(storage, cake__slice_str("k"));
    assert_int_equal(storage->ops->metas(storage, lane, cake__slice_str("last"), crash_take_last, &last), 0);
    return last;
}

/* The storage holds batches 1..last, whole, and nothing else. */
static inline void crash_compare(cake_storage_t *storage, const crash_model_t *model)
{
    cake__suite_t suite = {.storage = storage};
    size_t live = 0, dead = 0;
    char report[256] = "";
    for (unsigned i = 0; i < CRASH_KEYS; i++) {
        const struct crash_row *row = &model->rows[i];
        char text[64];
        cake_slice_t key = crash_key(i, text);
        live += row->kind == CAKE_WRITE_PUT;
        dead += row->kind == CAKE_WRITE_TOMBSTONE;
        if (row->kind == CAKE_WRITE_PUT)
            cake__suite_expect_live(&suite, "k", key, cake__slice(crash_value(row->hlc), row->len), row->hlc);
        else if (row->kind == CAKE_WRITE_TOMBSTONE)
            cake__suite_expect_tombstone(&suite, "k", key, row->hlc);
        else
            cake__suite_expect_absent(&suite, "k", key);
    }
    cake__suite_expect_counts(&suite, "k", live, dead);
    assert_string_equal(suite.why, "");
    if (storage->ops->check != NULL && storage->ops->check(storage, report, sizeof report) != 0)
        fail_msg("%s", report);
}

/* Brings the model to batches 1..last. */
static inline void crash_catch_up(crash_model_t *model, uint64_t last)
{
    cake_write_t writes[CRASH_BATCH];
    char keys[CRASH_BATCH][64];
    while (model->last < last)
        (void)crash_batch(++model->last, writes, keys, model);
}

/* Opens after a crash. acked: the last batch known to be durable; at most one more may be there. */
static inline cake_storage_t *crash_reopen(crash_open_fn open_fn, const char *dir, crash_model_t *model, uint64_t acked)
{
    cake_storage_t *storage = NULL;
    assert_int_equal(open_fn(dir, &storage), 0);
    uint64_t last = crash_last(storage);
    assert_in_range(last, acked, acked + 1);
    crash_catch_up(model, last);
    crash_compare(storage, model);
    return storage;
}

/* ---- out of memory ----------------------------------------------------------------------------------------------- */

typedef int (*crash_open_alloc_fn)(const char *dir, const cake_alloc_t *alloc, cake_storage_t **storage);

static inline int crash_ignore_row(void *arg, const cake_row_t *row)
{
    (void)arg;
    (void)row;
    return 0;
}

/* Every kind of read; 0 or CAKE_ENOMEM. */
static inline int crash_read_all(cake_storage_t *storage)
{
    cake_slice_t name = cake__slice_str("k");
    cake_scan_t all = {.limit = 0};
    cake_doc_t *doc = NULL;
    char text[64];
    cake_slice_t key = crash_key(0, text);
    cake_id_t id = cake__suite_id(key);
    uint64_t last = 0;
    int err = storage->ops->get(storage, name, key, &doc);
    if (err == 0)
        cake_doc_free(doc);
    if (err == 0 || err == CAKE_ENOTFOUND)
        err = storage->ops->fetch(storage, name, &id, 1, crash_ignore_row, NULL);
    if (err == 0)
        err = storage->ops->scan(storage, name, &all, crash_ignore_row, NULL);
    if (err == 0)
        err = storage->ops->metadata(storage, name, crash_ignore_row, NULL);
    return err != 0 ? err : storage->ops->metas(storage, 0, cake__slice_str("last"), crash_take_last, &last);
}

/* Opening, writing and reading with the nth allocation failing, for every n: CAKE_ENOMEM, nothing changed, nothing
 * lost. */
static inline void crash_fail_allocations(crash_open_fn open_fn, crash_open_alloc_fn open_alloc)
{
    unsigned failures = 0;
    int err = CAKE_ENOMEM;
    for (uint64_t nth = 0; err != 0; nth++) {
        counting_heap_t heap = {.left = nth};
        cake_alloc_t alloc = {counting_resize, &heap};
        cake__test_dir_t dir;
        crash_model_t model;
        cake_storage_t *storage = NULL;
        cake__test_dir_make(&dir);
        crash_model_init(&model);
        err = open_alloc(dir.path, &alloc, &storage);
        for (unsigned i = 0; i < 5 && err == 0; i++)
            err = crash_write(storage, model.last + 1, &model);
        if (err == 0)
            err = crash_read_all(storage);
        assert_true(err == 0 || err == CAKE_ENOMEM);
        failures += err != 0;
        heap.left = UINT64_MAX;
        if (storage != NULL) {
            crash_compare(storage, &model);
            assert_int_equal(crash_write(storage, model.last + 1, &model), 0);
            cake_storage_close(storage);
        }
        assert_int_equal(heap.live, 0);
        cake_storage_close(crash_reopen(open_fn, dir.path, &model, model.last));
        cake__test_dir_remove(&dir);
    }
    assert_true(failures > 2);
}

/* The same with the allocations of the library underneath, whose hook asks crash_library_fails: the nth from now on
 * fails (0: none), or all from that one on. CAKE_TEST_ALLOCATIONS=all tries every one of them; otherwise the later
 * ones are sampled. */
static struct crash_library {
    uint64_t calls, fail_at;
    bool is_lasting, has_failed;
} crash_library;

static inline bool crash_library_fails(void)
{
    struct crash_library *heap = &crash_library;
    bool is_it =
        heap->fail_at != 0 && (++heap->calls == heap->fail_at || (heap->is_lasting && heap->calls > heap->fail_at));
    heap->has_failed = heap->has_failed || is_it;
    return is_it;
}

static inline bool crash_fail_library_allocation(crash_open_fn open_fn, uint64_t nth, bool is_lasting)
{
    cake__test_dir_t dir;
    crash_model_t model;
    cake_storage_t *storage = NULL;
    cake__test_dir_make(&dir);
    crash_model_init(&model);
    crash_library = (struct crash_library){.fail_at = nth, .is_lasting = is_lasting};
    int err = open_fn(dir.path, &storage);
    for (unsigned i = 0; i < 3 && err == 0; i++)
        err = crash_write(storage, model.last + 1, &model);
    if (err == 0)
        err = crash_read_all(storage);
    bool has_failed = crash_library.has_failed;
    assert_true(err == 0 || (has_failed && err == CAKE_ENOMEM));
    crash_library.fail_at = 0;
    if (storage != NULL) {
        crash_compare(storage, &model);
        assert_int_equal(crash_write(storage, model.last + 1, &model), 0);
        cake_storage_close(storage);
    }
    cake_storage_close(crash_reopen(open_fn, dir.path, &model, model.last));
    cake__test_dir_remove(&dir);
    return has_failed;
}

static inline void crash_fail_library_allocations(crash_open_fn open_fn)
{
    const char *wanted = getenv("CAKE_TEST_ALLOCATIONS");
    uint64_t nth = 1, tried = 0;
    while (crash_fail_library_allocation(open_fn, nth, false)) {
        if (tried % 8 == 0)
            (void)crash_fail_library_allocation(open_fn, nth, true);
        nth += wanted != NULL || nth < 20 ? 1 : 1 + nth / 8;
        tried++;
    }
    print_message("%u of %u allocations failed in turn\n", (unsigned)tried, (unsigned)nth);
    assert_true(tried > 10);
}

/* ---- killed ------------------------------------------------------------------------------------------------------ */

static inline void crash_child(crash_open_fn open_fn, const char *dir, uint64_t next, int to_parent)
{
    cake_storage_t *storage = NULL;
    if (open_fn(dir, &storage) != 0)
        _exit(3);
    for (; crash_write(storage, next, NULL) == 0; next++) {
        if (write(to_parent, &next, sizeof next) != sizeof next)
            _exit(4);
    }
    _exit(5);
}

/* One writer, killed in the midst of its work. Returns the last batch that it had acknowledged. */
static inline uint64_t crash_kill_one(crash_open_fn open_fn, const char *dir, uint64_t acked, cake__random_t *random)
{
    int ends[2], status;
    uint64_t enough = acked + cake__random_below(random, 20), got = acked;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(ends[0]);
        crash_child(open_fn, dir, acked + 1, ends[1]);
    }
    close(ends[1]);
    while (acked < enough && read(ends[0], &got, sizeof got) == sizeof got)
        acked = got;
    usleep((useconds_t)cake__random_below(random, 3000)); /* where in a write it strikes is left to chance */
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status)); /* it had not failed by itself */
    while (read(ends[0], &got, sizeof got) == sizeof got)
        acked = got;
    close(ends[0]);
    return acked;
}

/* CAKE_TEST_KILLS overrides the number of rounds. */
static inline void crash_kill_rounds(crash_open_fn open_fn, unsigned rounds, uint64_t seed)
{
    cake__test_dir_t dir;
    crash_model_t model;
    cake__random_t random;
    const char *wanted = getenv("CAKE_TEST_KILLS");
    uint64_t acked = 0;
    rounds = wanted != NULL ? (unsigned)atoi(wanted) : rounds;
    cake__test_dir_make(&dir);
    crash_model_init(&model);
    cake__random_init(&random, seed);
    for (unsigned i = 0; i < rounds; i++) {
        acked = crash_kill_one(open_fn, dir.path, acked, &random);
        cake_storage_t *storage = crash_reopen(open_fn, dir.path, &model, acked);
        acked = model.last;
        cake_storage_close(storage);
    }
    assert_true(rounds < 10 || acked > rounds);
    print_message("%u kills, %llu batches, none lost, none partial\n", rounds, (unsigned long long)acked);
    cake__test_dir_remove(&dir);
}

/* ---- a full disk ------------------------------------------------------------------------------------------------- */

/* Takes the rest of the disk, but for `leave` bytes. */
static inline void crash_fill_disk(const char *path, size_t leave)
{
    static const char block[4096];
    int fd = open(path, O_CREAT | O_WRONLY, 0666);
    off_t size = 0;
    assert_true(fd >= 0);
    for (ssize_t wrote; (wrote = write(fd, block, sizeof block)) > 0;)
        size += wrote;
    assert_int_equal(ftruncate(fd, size > (off_t)leave ? size - (off_t)leave : 0), 0);
    close(fd);
}

static inline int crash_add(cake_storage_t *storage, unsigned n)
{
    static const char value[8192];
    cake__suite_t suite = {.storage = storage};
    char key[32];
    snprintf(key, sizeof key, "%u", n);
    return cake__suite_commit_one(
        &suite, cake__suite_put("growing", cake__slice_str(key), cake__slice(value, sizeof value), n));
}

static inline void crash_check_added(cake_storage_t *storage, const crash_model_t *model, unsigned added)
{
    cake__suite_t suite = {.storage = storage};
    cake__suite_expect_counts(&suite, "growing", added, 0);
    assert_string_equal(suite.why, "");
    crash_compare(storage, model);
}

/* On the full disk deletes go through, and what they free is not for puts, until there is room. */
static inline void crash_delete_on_full_disk(cake_storage_t *storage, unsigned n)
{
    cake__suite_t suite = {.storage = storage};
    char key[32];
    snprintf(key, sizeof key, "%u", n);
    assert_int_equal(cake__suite_commit_one(&suite, cake__suite_tombstone("growing", cake__slice_str(key), 1u << 20)),
                     0);
    cake__suite_expect_tombstone(&suite, "growing", cake__slice_str(key), 1u << 20);
    assert_int_equal(cake__suite_commit_one(&suite, cake__suite_erase("growing", cake__slice_str(key))), 0);
    assert_string_equal(suite.why, "");
}

/* What deletes were given is not for puts, also where deletes have freed some. */
static inline void crash_check_reserve(cake_storage_t *storage, const char *dir, unsigned n)
{
    char path[CAKE__PATH_MAX];
    assert_int_equal(cake__path_join(path, dir, "reserve-000"), 0);
    if (!cake__path_exists(path))
        assert_int_equal(crash_add(storage, n), CAKE_ENOSPC);
}

/* Writes until the disk is full: the failed batches leave nothing, reads go on, writes go on once there is room. Two
 * keyspaces: one that changes and one that grows. */
static inline void crash_fill_rounds(crash_open_fn open_fn, const char *dir, const char *ballast)
{
    crash_model_t model;
    cake_storage_t *storage = NULL;
    unsigned added = 0;
    crash_model_init(&model);
    assert_int_equal(open_fn(dir, &storage), 0);
    for (unsigned round = 0; round < 4; round++) {
        int err = 0;
        for (uint64_t until = model.last + 100; model.last < until;)
            assert_int_equal(crash_write(storage, model.last + 1, &model), 0);
        for (unsigned i = 0; i < 30; i++)
            assert_int_equal(crash_add(storage, added++), 0);
        crash_fill_disk(ballast, round * 20000);
        while ((err = crash_add(storage, added)) == 0)
            added++;
        assert_int_equal(err, CAKE_ENOSPC);
        err = crash_write(storage, model.last + 1, &model); /* something smaller may yet fit */
        assert_true(err == 0 || err == CAKE_ENOSPC);
        crash_check_added(storage, &model, added); /* reads go on */
        for (unsigned i = 0; i < 20; i++)
            crash_delete_on_full_disk(storage, --added);
        crash_check_reserve(storage, dir, added);
        if (round % 2 == 1)
            cake_storage_close(storage);
        assert_int_equal(unlink(ballast), 0);
        if (round % 2 == 1)
            storage = crash_reopen(open_fn, dir, &model, model.last);
        crash_check_added(storage, &model, added);
    }
    assert_int_equal(crash_write(storage, model.last + 1, &model), 0);
    cake_storage_close(storage);
    storage = crash_reopen(open_fn, dir, &model, model.last);
    crash_check_added(storage, &model, added);
    cake_storage_close(storage);
}

/* In a tmpfs of its own, where that can be mounted. */
static inline void crash_full_disk(crash_open_fn open_fn, const char *tmpfs_options)
{
    cake__test_dir_t dir;
    char ballast[96];
    cake__test_dir_make(&dir);
    if (mount("tmpfs", dir.parent, "tmpfs", 0, tmpfs_options) != 0) {
        print_message("skipped: a tmpfs cannot be mounted here: %s\n", strerror(errno));
        cake__test_dir_remove(&dir);
        skip();
    }
    snprintf(ballast, sizeof ballast, "%s/ballast", dir.parent);
    crash_fill_rounds(open_fn, dir.path, ballast);
    assert_int_equal(umount(dir.parent), 0);
    cake__test_dir_remove(&dir);
}

#endif
