/* Power cuts and I/O errors at every call that changes a file.
 *
 * A VFS between SQLite and the disk counts the calls that write, cut or sync. At a chosen one the power goes: that call
 * and all later ones fail. What the disk then holds is made from what was synced:
 *
 *      file after a cut = what it was at its last sync + some of the later writes, in order, perhaps torn
 *
 * and the storage must open from it with every acknowledged batch and no part of any other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sqlite3.h>
#include <stdlib.h>

#include <datacake/sqlite.h>

#include "base/bytes.h"
#include "storage/crash_test.h"

#define FILES_MAX 16
#define SECTOR    512

typedef enum fault { FAULT_NONE, FAULT_POWER, FAULT_IOERR, FAULT_FULL } fault_t;
typedef enum fate { DROP_ALL, KEEP_ALL, KEEP_SOME, TEAR, FATES } fate_t;

/* A write (or, without bytes, a truncation) that was not synced. */
typedef struct change {
    uint64_t at;
    uint8_t *bytes;
    size_t len;
} change_t;

typedef struct disk_file {
    char path[256];
    cake__buf_t synced;
    change_t *changes;
    size_t count, capacity;
} disk_file_t;

/* The disk of the test. One thread. */
static struct disk {
    sqlite3_vfs vfs;
    sqlite3_vfs *real;
    disk_file_t files[FILES_MAX];
    size_t file_count;
    uint64_t calls;    /* that change something, so far */
    uint64_t fault_at; /* the call that fails; 0: none */
    fault_t fault;
    bool is_off;
} disk;

typedef struct handle {
    sqlite3_file base;
    disk_file_t *file; /* NULL: not watched */
    sqlite3_file *real;
} handle_t;

static sqlite3_file *real_of(sqlite3_file *file)
{
    return ((handle_t *)(void *)file)->real;
}

/* ---- what was synced and what was not ---------------------------------------------------------------------------------- */

static void forget_changes(disk_file_t *file)
{
    for (size_t i = 0; i < file->count; i++)
        free(file->changes[i].bytes);
    file->count = 0;
}

static void take_image(disk_file_t *file)
{
    struct stat info;
    int fd = open(file->path, O_RDONLY);
    forget_changes(file);
    cake__buf_clear(&file->synced);
    if (fd < 0)
        return;
    assert_int_equal(fstat(fd, &info), 0);
    uint8_t *to = cake__buf_extend(&file->synced, (size_t)info.st_size);
    assert_true(info.st_size == 0 || to != NULL);
    assert_int_equal(pread(fd, to, (size_t)info.st_size, 0), info.st_size);
    close(fd);
}

static disk_file_t *watch(const char *path)
{
    for (size_t i = 0; i < disk.file_count; i++) {
        if (strcmp(disk.files[i].path, path) == 0)
            return &disk.files[i];
    }
    assert_in_range(disk.file_count, 0, FILES_MAX - 1);
    disk_file_t *file = &disk.files[disk.file_count++];
    snprintf(file->path, sizeof file->path, "%s", path);
    cake__buf_init(&file->synced, &cake__libc_alloc);
    take_image(file);
    return file;
}

static void note_change(disk_file_t *file, uint64_t at, const void *bytes, size_t len)
{
    if (file->count == file->capacity) {
        file->capacity = file->capacity * 2 + 64;
        file->changes = realloc(file->changes, file->capacity * sizeof *file->changes);
        assert_non_null(file->changes);
    }
    file->changes[file->count++] =
        (change_t){at, bytes == NULL ? NULL : cake__memdup(&cake__libc_alloc, bytes, len), len};
}

static void apply_change(cake__buf_t *content, const change_t *change)
{
    size_t end = (size_t)change->at + change->len;
    if (change->bytes == NULL) {
        content->len = change->at < content->len ? (size_t)change->at : content->len;
        return;
    }
    while (content->len < end)
        cake__put_u8(content, 0);
    memcpy(content->data + change->at, change->bytes, change->len);
}

/* Writes what the disk holds after the cut. */
static void settle_file(disk_file_t *file, fate_t fate, cake__random_t *random)
{
    for (size_t i = 0; i < file->count; i++) {
        change_t change = file->changes[i];
        bool is_last = i + 1 == file->count;
        if (fate == DROP_ALL || (fate == KEEP_SOME && cake__random_below(random, 2) == 0))
            continue;
        if (fate == TEAR && is_last && change.len > SECTOR)
            change.len = cake__random_below(random, change.len / SECTOR) * SECTOR;
        apply_change(&file->synced, &change);
    }
    int fd = open(file->path, O_WRONLY | O_TRUNC); /* a file that SQLite has removed stays removed */
    if (fd >= 0) {
        assert_int_equal(write(fd, file->synced.data, file->synced.len), (ssize_t)file->synced.len);
        close(fd);
    }
}

static void forget_files(void)
{
    for (size_t i = 0; i < disk.file_count; i++) {
        forget_changes(&disk.files[i]);
        free(disk.files[i].changes);
        cake__buf_free(&disk.files[i].synced);
        disk.files[i] = (disk_file_t){.count = 0};
    }
    disk.file_count = 0;
}

/* ---- the VFS -------------------------------------------------------------------------------------------------------------- */

/* What the next changing call returns instead of being done; SQLITE_OK: do it. */
static int next_fault(int io_code)
{
    disk.calls++;
    if (disk.is_off)
        return io_code;
    if (disk.fault_at == 0 || disk.calls != disk.fault_at)
        return SQLITE_OK;
    disk.is_off = disk.fault == FAULT_POWER;
    return disk.fault == FAULT_FULL && io_code == SQLITE_IOERR_WRITE ? SQLITE_FULL : io_code;
}

static int disk_write(sqlite3_file *file, const void *bytes, int len, sqlite3_int64 at)
{
    disk_file_t *watched = ((handle_t *)(void *)file)->file;
    bool was_off = disk.is_off;
    int code = next_fault(SQLITE_IOERR_WRITE);
    if (watched != NULL && (code == SQLITE_OK || (disk.is_off && !was_off))) /* the last one may get there in part */
        note_change(watched, (uint64_t)at, bytes, (size_t)len);
    return code != SQLITE_OK ? code : real_of(file)->pMethods->xWrite(real_of(file), bytes, len, at);
}

static int disk_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    disk_file_t *watched = ((handle_t *)(void *)file)->file;
    int code = next_fault(SQLITE_IOERR_TRUNCATE);
    if (code == SQLITE_OK && watched != NULL)
        note_change(watched, (uint64_t)size, NULL, 0);
    return code != SQLITE_OK ? code : real_of(file)->pMethods->xTruncate(real_of(file), size);
}

static int disk_sync(sqlite3_file *file, int flags)
{
    disk_file_t *watched = ((handle_t *)(void *)file)->file;
    int code = next_fault(SQLITE_IOERR_FSYNC);
    if (code == SQLITE_OK)
        code = real_of(file)->pMethods->xSync(real_of(file), flags);
    if (code == SQLITE_OK && watched != NULL) {
        for (size_t i = 0; i < watched->count; i++)
            apply_change(&watched->synced, &watched->changes[i]);
        forget_changes(watched);
    }
    return code;
}

static int disk_close(sqlite3_file *file)
{
    int code = real_of(file)->pMethods->xClose(real_of(file));
    free(real_of(file));
    return code;
}

static int disk_read(sqlite3_file *file, void *to, int len, sqlite3_int64 at)
{
    return real_of(file)->pMethods->xRead(real_of(file), to, len, at);
}

static int disk_size(sqlite3_file *file, sqlite3_int64 *size)
{
    return real_of(file)->pMethods->xFileSize(real_of(file), size);
}

static int disk_lock(sqlite3_file *file, int level)
{
    return real_of(file)->pMethods->xLock(real_of(file), level);
}

static int disk_unlock(sqlite3_file *file, int level)
{
    return real_of(file)->pMethods->xUnlock(real_of(file), level);
}

static int disk_reserved(sqlite3_file *file, int *out)
{
    return real_of(file)->pMethods->xCheckReservedLock(real_of(file), out);
}

static int disk_control(sqlite3_file *file, int what, void *arg)
{
    return real_of(file)->pMethods->xFileControl(real_of(file), what, arg);
}

static int disk_sector(sqlite3_file *file)
{
    return real_of(file)->pMethods->xSectorSize(real_of(file));
}

static int disk_traits(sqlite3_file *file)
{
    (void)file;
    return 0; /* promises nothing: not even that a sector beside the one written is safe */
}

static int disk_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **out)
{
    return real_of(file)->pMethods->xShmMap(real_of(file), page, size, extend, out);
}

static int disk_shm_lock(sqlite3_file *file, int at, int count, int flags)
{
    return real_of(file)->pMethods->xShmLock(real_of(file), at, count, flags);
}

static void disk_shm_barrier(sqlite3_file *file)
{
    real_of(file)->pMethods->xShmBarrier(real_of(file));
}

static int disk_shm_unmap(sqlite3_file *file, int remove)
{
    return real_of(file)->pMethods->xShmUnmap(real_of(file), remove);
}

static int disk_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    static const sqlite3_io_methods methods = {
        2,           disk_close,   disk_read,     disk_write,       disk_truncate,  disk_sync,
        disk_size,   disk_lock,    disk_unlock,   disk_reserved,    disk_control,   disk_sector,
        disk_traits, disk_shm_map, disk_shm_lock, disk_shm_barrier, disk_shm_unmap, NULL,
        NULL};
    handle_t *handle = (handle_t *)(void *)file;
    (void)vfs;
    handle->base.pMethods = NULL;
    handle->real = calloc(1, (size_t)disk.real->szOsFile);
    assert_non_null(handle->real);
    int code = disk.real->xOpen(disk.real, name, handle->real, flags, out_flags);
    if (code != SQLITE_OK) {
        free(handle->real);
        return code;
    }
    handle->file = name == NULL ? NULL : watch(name);
    handle->base.pMethods = &methods;
    return SQLITE_OK;
}

static void install_disk(void)
{
    disk.real = sqlite3_vfs_find(NULL);
    disk.vfs = *disk.real;
    disk.vfs.zName = "cut";
    disk.vfs.pNext = NULL;
    disk.vfs.szOsFile = sizeof(handle_t);
    disk.vfs.xOpen = disk_open;
    assert_int_equal(sqlite3_vfs_register(&disk.vfs, 1), SQLITE_OK);
}

/* ---- the tests ------------------------------------------------------------------------------------------------------------- */

static int open_dir(const char *dir, cake_storage_t **storage)
{
    cake_log_t log = {cake__test_log, NULL, CAKE_LOG_WARN};
    cake_sqlite_options_t options = CAKE_SQLITE_OPTIONS_INIT;
    options.log = &log;
    return cake_sqlite_open(dir, &options, storage);
}

static void arm(uint64_t at, fault_t fault)
{
    disk.calls = 0;
    disk.fault_at = at;
    disk.fault = fault;
    disk.is_off = false;
}

/* Power on again, with what the disk held. */
static void restore(const char *dir, fate_t fate, cake__random_t *random)
{
    char shm[CAKE__PATH_MAX];
    for (size_t i = 0; i < disk.file_count && disk.is_off; i++)
        settle_file(&disk.files[i], fate, random);
    assert_int_equal(cake__path_join(shm, dir, "lane-000.sqlite-shm"), 0);
    (void)unlink(shm);
    forget_files();
    arm(0, FAULT_NONE);
}

/* Some batches, and a close, with the power cut at the nth call. Returns how many calls there were. */
static uint64_t cut_once(const char *dir, crash_model_t *model, uint64_t nth, unsigned batches, fate_t fate,
                         cake__random_t *random)
{
    cake_storage_t *storage = NULL;
    assert_int_equal(open_dir(dir, &storage), 0);
    arm(nth, FAULT_POWER);
    for (unsigned i = 0; i < batches && crash_write(storage, model->last + 1, model) == 0; i++)
        ;
    cake_storage_close(storage);
    uint64_t calls = disk.calls;
    restore(dir, fate, random);
    storage = crash_reopen(open_dir, dir, model, model->last);
    cake_storage_close(storage);
    forget_files();
    return calls;
}

/* CAKE_TEST_CUTS overrides the number of random cuts. */
static void loses_nothing_in_a_power_cut(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    crash_model_t model;
    cake__random_t random;
    const char *wanted = getenv("CAKE_TEST_CUTS");
    unsigned rounds = wanted != NULL ? (unsigned)atoi(wanted) : 60;
    cake__test_dir_make(&dir);
    crash_model_init(&model);
    cake__random_init(&random, 3);
    uint64_t calls = cut_once(dir.path, &model, 0, 3, DROP_ALL, &random);
    for (uint64_t nth = 1; nth <= calls; nth++) /* every call of three batches and a close */
        (void)cut_once(dir.path, &model, nth, 3, (fate_t)(nth % FATES), &random);
    for (unsigned i = 0; i < rounds; i++) {
        fate_t fate = (fate_t)cake__random_below(&random, FATES);
        (void)cut_once(dir.path, &model, 1 + cake__random_below(&random, 600), 40, fate, &random);
    }
    print_message("%u cuts, %u batches\n", (unsigned)calls + rounds, (unsigned)model.last);
    cake__test_dir_remove(&dir);
}

/* One call fails, at every place in turn: the batch fails whole, or not at all, and the storage goes on. */
static void survives_io_errors(void **state)
{
    (void)state;
    cake__test_dir_t dir;
    crash_model_t model;
    unsigned failed = 0;
    cake__test_dir_make(&dir);
    crash_model_init(&model);
    for (uint64_t nth = 1; nth < 80; nth++) {
        cake_storage_t *storage = NULL;
        assert_int_equal(open_dir(dir.path, &storage), 0);
        arm(nth, nth % 2 == 0 ? FAULT_IOERR : FAULT_FULL);
        for (unsigned i = 0; i < 6; i++) {
            int err = crash_write(storage, model.last + 1, &model);
            failed += err != 0;
            assert_true(err == 0 || err == CAKE_EIO || err == CAKE_ENOSPC);
            if (err != 0)
                crash_compare(storage, &model); /* nothing of it, now */
        }
        crash_compare(storage, &model);
        cake_storage_close(storage);
        arm(0, FAULT_NONE);
        cake_storage_close(crash_reopen(open_dir, dir.path, &model, model.last));
        forget_files();
    }
    assert_true(failed > 20);
    cake__test_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loses_nothing_in_a_power_cut),
        cmocka_unit_test(survives_io_errors),
    };
    install_disk();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
