/* calls_test.h: a disk made of this program's own system calls, for tests of storages on disk. Include it in one source
 * of a test program, cmocka first. It defines pwrite, pwritev, write, fsync, fdatasync, msync and ftruncate, which the
 * libraries that the program is linked to then call, too.
 *
 * Calls that change a file below a test directory (see dir_test.h) are counted. At a chosen one
 *
 *      FAULT_POWER     the power goes: that call and all later ones fail. What the disk then holds is made by
 *                      calls_settle from what was synced: file = what it was at its last sync + some of the later
 *                      writes, perhaps torn
 *      FAULT_KILL      the process is killed, in the midst of the call
 *      FAULT_EIO, FAULT_ENOSPC, FAULT_SHORT     that call fails, or does half; a sync that fails loses what it should
 *                                               have synced
 *
 *      FAULT_DEAD      that call and all later ones fail with EIO; FAULT_FULL: all later ones that write fail with
 *                      ENOSPC
 *
 * Files that end in lock and shm are shared memory, not data: they do not count, and a power cut removes them.
 * Directories made and files renamed are not on the disk until the directory that names them is synced: a power cut may
 * undo them. */
#ifndef CAKE_STORAGE_CALLS_TEST_H
#define CAKE_STORAGE_CALLS_TEST_H

#include <errno.h>
#include <ftw.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "storage/crash_test.h"

#define CALLS_FILES_MAX 16
#define CALLS_SECTOR    512

typedef enum fault {
    FAULT_NONE,
    FAULT_POWER,
    FAULT_KILL,
    FAULT_EIO,
    FAULT_ENOSPC,
    FAULT_SHORT,
    FAULT_DEAD,
    FAULT_FULL
} fault_t;
typedef enum fate { FATE_DROP_ALL, FATE_KEEP_ALL, FATE_KEEP_SOME, FATE_TEAR, FATES } fate_t;

/* A write (or, without bytes, a change of size) that was not synced. */
typedef struct change {
    uint64_t at;
    uint8_t *bytes;
    size_t len;
    bool is_lost; /* a sync failed: no later one brings it to the disk */
} change_t;

typedef struct disk_file {
    char path[256];
    cake__buf_t synced;
    change_t *changes;
    size_t count, capacity;
} disk_file_t;

/* A directory that was made, or a file that was renamed, and that the directory above does not name on the disk yet. */
typedef struct entry {
    char from[256], path[256]; /* from: "" for a directory */
} entry_t;

static struct calls_disk {
    disk_file_t files[CALLS_FILES_MAX];
    entry_t entries[CALLS_FILES_MAX];
    size_t file_count, entry_count;
    uint64_t calls;    /* so far */
    uint64_t fault_at; /* 0: none */
    fault_t fault;
    bool is_watched, is_off;
} calls;

/* ---- what was synced and what was not ---------------------------------------------------------------------------- */

static void calls_forget_changes(disk_file_t *file)
{
    for (size_t i = 0; i < file->count; i++)
        free(file->changes[i].bytes);
    file->count = 0;
}

static void calls_take_image(disk_file_t *file)
{
    struct stat info;
    int fd = open(file->path, O_RDONLY);
    if (fd < 0)
        return;
    assert_int_equal(fstat(fd, &info), 0);
    off_t size = S_ISREG(info.st_mode) ? info.st_size : 0; /* directories are synced, too */
    uint8_t *to = cake__buf_extend(&file->synced, (size_t)size);
    assert_true(size == 0 || to != NULL);
    assert_true(size == 0 || pread(fd, to, (size_t)size, 0) == size);
    close(fd);
}

static bool calls_ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* The file that a call is about; NULL: none of the test's data. */
static disk_file_t *calls_file(int fd)
{
    char link[64], path[256];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = calls.is_watched ? readlink(link, path, sizeof path - 1) : 0;
    path[len > 0 ? len : 0] = '\0';
    if (strstr(path, "/datacake-test-") == NULL || calls_ends_with(path, "lock") || calls_ends_with(path, "shm"))
        return NULL;
    for (size_t i = 0; i < calls.file_count; i++) {
        if (strcmp(calls.files[i].path, path) == 0)
            return &calls.files[i];
    }
    assert_in_range(calls.file_count, 0, CALLS_FILES_MAX - 1);
    disk_file_t *file = &calls.files[calls.file_count++];
    snprintf(file->path, sizeof file->path, "%s", path);
    cake__buf_init(&file->synced, &cake__libc_alloc);
    calls_take_image(file);
    return file;
}

static void calls_note(disk_file_t *file, uint64_t at, const void *bytes, size_t len)
{
    if (file->count == file->capacity) {
        file->capacity = file->capacity * 2 + 64;
        file->changes = realloc(file->changes, file->capacity * sizeof *file->changes);
        assert_non_null(file->changes);
    }
    file->changes[file->count++] =
        (change_t){at, bytes == NULL ? NULL : cake__memdup(&cake__libc_alloc, bytes, len), len, false};
}

static void calls_apply(cake__buf_t *content, const change_t *change)
{
    size_t end = (size_t)change->at + change->len;
    if (change->bytes == NULL && change->at < content->len)
        content->len = (size_t)change->at;
    while (content->len < end)
        cake__put_u8(content, 0);
    if (change->bytes != NULL)
        memcpy(content->data + change->at, change->bytes, change->len);
}

static void calls_synced(disk_file_t *file)
{
    for (size_t i = 0; i < file->count; i++) {
        if (!file->changes[i].is_lost)
            calls_apply(&file->synced, &file->changes[i]);
    }
    calls_forget_changes(file);
}

/* Writes what the disk holds after the cut. */
static void calls_settle_file(disk_file_t *file, fate_t fate, cake__random_t *random)
{
    for (size_t i = 0; i < file->count; i++) {
        change_t change = file->changes[i];
        bool is_kept = fate == FATE_KEEP_ALL || fate == FATE_TEAR || cake__random_below(random, 2) == 0;
        if (fate == FATE_DROP_ALL || change.is_lost || !is_kept)
            continue;
        if (fate == FATE_TEAR && change.bytes != NULL && (i + 1 == file->count || cake__random_below(random, 4) == 0)) {
            size_t sectors = cake__random_below(random, change.len / CALLS_SECTOR + 1);
            change.len = sectors * CALLS_SECTOR;
        }
        calls_apply(&file->synced, &change);
    }
    int fd = open(file->path, O_WRONLY | O_TRUNC); /* a file that was removed stays removed */
    if (fd >= 0) {
        assert_int_equal(write(fd, file->synced.data, file->synced.len), (ssize_t)file->synced.len);
        close(fd);
    }
}

static int calls_remove(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

static void calls_move_file(const char *from, const char *to)
{
    for (size_t i = 0; i < calls.file_count; i++) {
        if (strcmp(calls.files[i].path, from) == 0)
            snprintf(calls.files[i].path, sizeof calls.files[i].path, "%s", to);
    }
}

/* The latest first: what a directory names goes with it. */
static void calls_undo_entries(fate_t fate, cake__random_t *random)
{
    bool is_undone = fate == FATE_DROP_ALL || (fate == FATE_KEEP_SOME && cake__random_below(random, 2) == 0);
    while (is_undone && calls.entry_count > 0) {
        const entry_t *entry = &calls.entries[--calls.entry_count];
        if (entry->from[0] == '\0') {
            assert_int_equal(nftw(entry->path, calls_remove, 8, FTW_DEPTH | FTW_PHYS), 0);
            continue;
        }
        assert_int_equal(syscall(SYS_rename, entry->path, entry->from), 0);
        calls_move_file(entry->path, entry->from);
    }
}

/* What the directory names is on the disk now. */
static void calls_settle_entries(const char *dir)
{
    size_t kept = 0, len = strlen(dir);
    for (size_t i = 0; i < calls.entry_count; i++) {
        const char *path = calls.entries[i].path;
        bool is_there = strncmp(path, dir, len) == 0 && path[len] == '/' && strchr(path + len + 1, '/') == NULL;
        if (!is_there)
            calls.entries[kept++] = calls.entries[i];
    }
    calls.entry_count = kept;
}

static void calls_note_entry(const char *from, const char *path)
{
    if (!calls.is_watched || strstr(path, "/datacake-test-") == NULL)
        return;
    assert_in_range(calls.entry_count, 0, CALLS_FILES_MAX - 1);
    entry_t *entry = &calls.entries[calls.entry_count++];
    snprintf(entry->from, sizeof entry->from, "%s", from);
    snprintf(entry->path, sizeof entry->path, "%s", path);
    calls_move_file(from, path);
}

static void calls_arm(uint64_t at, fault_t fault)
{
    calls.calls = 0;
    calls.fault_at = at;
    calls.fault = fault;
    calls.is_off = false;
    calls.is_watched = true;
}

static void calls_forget(void)
{
    for (size_t i = 0; i < calls.file_count; i++) {
        calls_forget_changes(&calls.files[i]);
        free(calls.files[i].changes);
        cake__buf_free(&calls.files[i].synced);
        calls.files[i] = (disk_file_t){.count = 0};
    }
    calls.file_count = calls.entry_count = 0;
    calls.is_watched = false;
}

/* Power on again, with what the disk held. */
static void calls_settle(const char *dir, fate_t fate, cake__random_t *random)
{
    static const char *const shared[] = {"lane-000.mdb-lock", "lane-000.sqlite-shm"};
    calls.is_watched = false;
    calls_undo_entries(fate, random);
    for (size_t i = 0; i < calls.file_count; i++)
        calls_settle_file(&calls.files[i], fate, random);
    for (size_t i = 0; i < CAKE_COUNT_OF(shared); i++) {
        char path[CAKE__PATH_MAX];
        assert_int_equal(cake__path_join(path, dir, shared[i]), 0);
        (void)unlink(path);
    }
    calls_forget();
}

/* ---- the calls --------------------------------------------------------------------------------------------------- */

/* What this call is to do. FAULT_NONE: what it always does. */
static fault_t calls_next(const disk_file_t *file)
{
    if (file == NULL)
        return FAULT_NONE;
    calls.calls++;
    if (calls.is_off || calls.fault == FAULT_DEAD)
        return FAULT_EIO;
    if (calls.fault == FAULT_FULL)
        return FAULT_ENOSPC;
    if (calls.fault_at == 0 || calls.calls != calls.fault_at)
        return FAULT_NONE;
    calls.is_off = calls.fault == FAULT_POWER;
    return calls.fault;
}

static int calls_fail(fault_t fault)
{
    errno = fault == FAULT_ENOSPC ? ENOSPC : EIO;
    return -1;
}

static ssize_t calls_write(int fd, const struct iovec *parts, int count, off_t at)
{
    disk_file_t *file = calls_file(fd);
    fault_t fault = calls_next(file);
    size_t len = 0;
    cake__buf_t all;
    if (file == NULL || fault == FAULT_EIO || fault == FAULT_ENOSPC)
        return fault != FAULT_NONE ? calls_fail(fault) : syscall(SYS_pwritev, fd, parts, count, at, 0);
    cake__buf_init(&all, &cake__libc_alloc);
    for (int i = 0; i < count; i++)
        cake__put_bytes(&all, parts[i].iov_base, parts[i].iov_len);
    len = fault == FAULT_NONE || fault == FAULT_POWER ? all.len : all.len / 2;
    calls_note(file, (uint64_t)at, all.data, len);
    ssize_t done = fault == FAULT_POWER ? calls_fail(FAULT_EIO) : syscall(SYS_pwrite64, fd, all.data, len, at);
    cake__buf_free(&all);
    if (fault == FAULT_KILL)
        (void)raise(SIGKILL);
    if (fault == FAULT_NONE && (fcntl(fd, F_GETFL) & O_DSYNC) != 0) {
        change_t *last = &file->changes[file->count - 1]; /* this one alone is on the disk now */
        calls_apply(&file->synced, last);
        free(last->bytes);
        file->count--;
    }
    return done;
}

static int calls_sync(int fd, long number)
{
    disk_file_t *file = calls_file(fd);
    fault_t fault = calls_next(file);
    if (fault == FAULT_KILL)
        (void)raise(SIGKILL);
    if (fault != FAULT_NONE && calls.fault != FAULT_FULL) {
        for (size_t i = 0; i < file->count && fault != FAULT_POWER; i++)
            file->changes[i].is_lost = true;
        return calls_fail(fault);
    }
    int result = (int)syscall(number, fd);
    if (file != NULL && result == 0) {
        calls_synced(file);
        calls_settle_entries(file->path);
    }
    return result;
}

static int calls_resize(int fd, off_t size)
{
    disk_file_t *file = calls_file(fd);
    fault_t fault = calls_next(file);
    if (fault == FAULT_KILL)
        (void)raise(SIGKILL);
    if (fault != FAULT_NONE)
        return calls_fail(fault);
    if (file != NULL)
        calls_note(file, (uint64_t)size, NULL, 0);
    return (int)syscall(SYS_ftruncate, fd, size);
}

static struct iovec calls_part(const void *bytes, size_t len)
{
    union {
        const void *from;
        void *to;
    } pointer = {bytes};
    return (struct iovec){pointer.to, len};
}

#pragma GCC visibility push(default) /* the libraries shall find these */

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at)
{
    struct iovec part = calls_part(bytes, len);
    return calls_write(fd, &part, 1, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t at)
{
    struct iovec part = calls_part(bytes, len);
    return calls_write(fd, &part, 1, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    return calls_write(fd, parts, count, at);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at)
{
    return calls_write(fd, parts, count, at);
}

ssize_t write(int fd, const void *bytes, size_t len)
{
    if (calls_file(fd) == NULL)
        return syscall(SYS_write, fd, bytes, len);
    struct iovec part = calls_part(bytes, len);
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t done = calls_write(fd, &part, 1, at);
    if (done > 0)
        (void)lseek(fd, at + done, SEEK_SET);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (calls_file(fd) == NULL)
        return syscall(SYS_writev, fd, parts, count);
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t done = calls_write(fd, parts, count, at);
    if (done > 0)
        (void)lseek(fd, at + done, SEEK_SET);
    return done;
}

int fsync(int fd)
{
    return calls_sync(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return calls_sync(fd, SYS_fdatasync);
}

int ftruncate(int fd, off_t size)
{
    return calls_resize(fd, size);
}

int ftruncate64(int fd, off_t size)
{
    return calls_resize(fd, size);
}

int mkdir(const char *path, mode_t mode)
{
    int result = calls.is_watched && calls.is_off ? calls_fail(FAULT_EIO) : (int)syscall(SYS_mkdir, path, mode);
    if (result == 0)
        calls_note_entry("", path);
    return result;
}

int rename(const char *from, const char *to)
{
    int result = calls.is_watched && calls.is_off ? calls_fail(FAULT_EIO) : (int)syscall(SYS_rename, from, to);
    if (result == 0)
        calls_note_entry(from, to);
    return result;
}

/* Data that went into a file through a map would pass us by. */
int msync(void *at, size_t len, int flags)
{
    assert_false(calls.is_watched);
    return (int)syscall(SYS_msync, at, len, flags);
}

#pragma GCC visibility pop

#endif
