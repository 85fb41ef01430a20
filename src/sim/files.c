/* The SQLite storage of a node, on a disk that fails as disks do. SQLite sees it as a file system of its own
 * (sqlite3_vfs):
 *
 *      SQLite --xWrite--> file of the machine, in a scratch directory: what processes see
 *                 |
 *                 +-----> changes since the last sync --xSync--> image: what the disk holds for certain
 *
 *      process killed: the file stays as it is          power cut: file = image + some of the changes, perhaps torn
 *
 * Calls fail at the rates that the seed has drawn: writes by halves, for want of room, and syncs, which then lose some
 * of what they should have made durable, whatever a later sync says. A process that ended has no say any more: its last
 * calls, as the handles it left are closed, do nothing. Removed files are gone at once.
 *
 * Everything happens in one thread; what SQLite draws at random (salts of its log) decides nothing that a run could
 * see. */
#include "sim/sim.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include <datacake/sqlite.h>

#include "storage/dir.h"

#define SECTOR_BYTES 512
#define PIECE_BYTES  65536u /* SQLite's file systems take no more than 128 KiB at once */

/* bytes NULL: the file was cut, to end at `at`. */
typedef struct change {
    uint64_t at;
    uint8_t *bytes;
    size_t len;
    bool is_lost; /* a sync failed */
} change_t;

/* Invariant: what the machine's file holds is image, with all changes applied in their order. */
typedef struct watched {
    cake__list_t link;
    char path[CAKE__PATH_MAX];
    cake__buf_t image;
    change_t *changes;
    size_t count, capacity;
} watched_t;

struct cake__files {
    sqlite3_vfs vfs;
    sqlite3_vfs *machine;
    cake__disk_t *disk;
    char name[64], dir[128];
    cake__list_t watched;
    cake_alloc_t alloc; /* of the storage: fails at the seed's rate */
    bool is_off;        /* the process is gone */
};

typedef struct handle {
    sqlite3_file base;
    cake__files_t *files;
    watched_t *watched; /* NULL: a temporary file */
    sqlite3_file *machine;
} handle_t;

/* ---- what was synced and what was not -----------------------------------------------------------------------------*/

static void drop_changes(watched_t *watched)
{
    for (size_t i = 0; i < watched->count; i++)
        cake__free(&cake__libc_alloc, watched->changes[i].bytes);
    watched->count = 0;
}

static void note_change(watched_t *watched, uint64_t at, const void *bytes, size_t len)
{
    if (watched->count == watched->capacity) {
        watched->capacity = watched->capacity * 2 + 64;
        watched->changes =
            cake__realloc(&cake__libc_alloc, watched->changes, watched->capacity * sizeof *watched->changes);
        CAKE_ASSERT(watched->changes != NULL);
    }
    change_t *change = &watched->changes[watched->count++];
    *change = (change_t){.at = at, .len = len};
    if (bytes != NULL) {
        change->bytes = cake__sim_alloc(len);
        memcpy(change->bytes, bytes, len);
    }
}

static void apply(cake__buf_t *image, const change_t *change, size_t from, size_t len)
{
    size_t end = (size_t)change->at + from + len;
    if (change->bytes == NULL && change->at < image->len)
        image->len = (size_t)change->at;
    if (image->len < end) {
        size_t more = end - image->len;
        uint8_t *to = cake__buf_extend(image, more);
        CAKE_ASSERT(to != NULL);
        memset(to, 0, more);
    }
    if (change->bytes != NULL)
        memcpy(image->data + change->at + from, change->bytes + from, len);
}

static void make_durable(watched_t *watched)
{
    for (size_t i = 0; i < watched->count; i++) {
        if (!watched->changes[i].is_lost)
            apply(&watched->image, &watched->changes[i], 0, watched->changes[i].len);
    }
    drop_changes(watched);
}

static watched_t *find(cake__files_t *files, const char *path)
{
    CAKE_LIST_FOR_EACH(link, &files->watched)
    {
        watched_t *watched = CAKE_CONTAINER_OF(link, watched_t, link);
        if (strcmp(watched->path, path) == 0)
            return watched;
    }
    return NULL;
}

/* What it holds when it is seen first was there before: durable. */
static watched_t *watch(cake__files_t *files, const char *path, sqlite3_file *machine)
{
    watched_t *watched = find(files, path);
    sqlite3_int64 size = 0;
    if (watched != NULL)
        return watched;
    watched = cake__sim_alloc(sizeof *watched);
    snprintf(watched->path, sizeof watched->path, "%s", path);
    cake__buf_init(&watched->image, &cake__libc_alloc);
    cake__list_init(&watched->link);
    cake__list_push_back(&files->watched, &watched->link);
    int code = machine->pMethods->xFileSize(machine, &size);
    uint8_t *to = size > 0 ? cake__buf_extend(&watched->image, (size_t)size) : NULL;
    for (sqlite3_int64 at = 0; code == SQLITE_OK && at < size; at += PIECE_BYTES)
        code = machine->pMethods->xRead(machine, to + at, (int)cake__min_u64(PIECE_BYTES, (uint64_t)(size - at)), at);
    CAKE_ASSERT(code == SQLITE_OK);
    return watched;
}

static void unwatch(watched_t *watched)
{
    cake__list_remove(&watched->link);
    drop_changes(watched);
    cake__free(&cake__libc_alloc, watched->changes);
    cake__buf_free(&watched->image);
    cake__free(&cake__libc_alloc, watched);
}

static void unwatch_all(cake__files_t *files)
{
    while (!cake__list_is_empty(&files->watched))
        unwatch(CAKE_CONTAINER_OF(files->watched.next, watched_t, link));
}

/* ---- errors -------------------------------------------------------------------------------------------------------*/

static uint64_t below(cake__files_t *files, uint64_t bound)
{
    return cake__below(files->disk->trial, CAKE__TRIAL_DRAW_DISK, bound);
}

static bool fails(cake__files_t *files, double rate, const char *what, const char *path)
{
    cake__trial_t *trial = files->disk->trial;
    if (trial->disks_hold || !files->disk->may_fail || !cake__chance(trial, CAKE__TRIAL_DRAW_DISK, rate))
        return false;
    trial->result->disk_errors++;
    const char *slash = strrchr(path, '/');
    cake__note_of(files->disk->node, CAKE__MARK_EVENT, "%s %s fails", what, slash != NULL ? slash + 1 : path);
    return true;
}

static void *resize(void *ctx, void *data, size_t size)
{
    cake__files_t *files = ctx;
    cake__trial_t *trial = files->disk->trial;
    double rate = trial->plan.net.alloc_fail_rate;
    bool may_fail = rate > 0 && trial->is_chaotic && files->disk->may_fail && !files->is_off;
    if (size > 0 && may_fail && cake__chance(trial, CAKE__TRIAL_DRAW_DISK, rate))
        return NULL;
    if (size > 0)
        return cake__realloc(&cake__libc_alloc, data, size);
    cake__free(&cake__libc_alloc, data);
    return NULL;
}

/* ---- the file system ----------------------------------------------------------------------------------------------*/

static handle_t *handle_of(sqlite3_file *file)
{
    return (handle_t *)(void *)file;
}

static sqlite3_file *machine_of(sqlite3_file *file)
{
    return handle_of(file)->machine;
}

static int file_close(sqlite3_file *file)
{
    sqlite3_file *machine = machine_of(file);
    int code = machine->pMethods->xClose(machine);
    cake__free(&cake__libc_alloc, machine);
    return code;
}

static int file_read(sqlite3_file *file, void *to, int len, sqlite3_int64 at)
{
    handle_t *handle = handle_of(file);
    cake__files_t *files = handle->files;
    double rate = files->disk->trial->plan.read_error_rate;
    if (files->is_off || (handle->watched != NULL && fails(files, rate, "a read of", handle->watched->path)))
        return SQLITE_IOERR_READ;
    return handle->machine->pMethods->xRead(handle->machine, to, len, at);
}

static int put_bytes(handle_t *handle, const void *bytes, int len, sqlite3_int64 at)
{
    if (handle->watched != NULL && len > 0)
        note_change(handle->watched, (uint64_t)at, bytes, (size_t)len);
    return handle->machine->pMethods->xWrite(handle->machine, bytes, len, at);
}

static int file_write(sqlite3_file *file, const void *bytes, int len, sqlite3_int64 at)
{
    handle_t *handle = handle_of(file);
    cake__files_t *files = handle->files;
    double rate = files->disk->trial->plan.write_error_rate;
    if (files->is_off)
        return SQLITE_IOERR_WRITE;
    if (handle->watched == NULL || !fails(files, rate, "a write to", handle->watched->path))
        return put_bytes(handle, bytes, len, at);
    int part = (int)below(files, 2) * (int)below(files, (uint64_t)len);
    if (part > 0)
        (void)put_bytes(handle, bytes, part, at);
    return below(files, 2) == 0 ? SQLITE_FULL : SQLITE_IOERR_WRITE;
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    handle_t *handle = handle_of(file);
    cake__files_t *files = handle->files;
    if (files->is_off || (handle->watched != NULL && fails(files, files->disk->trial->plan.write_error_rate,
                                                           "a change of size of", handle->watched->path)))
        return SQLITE_IOERR_TRUNCATE;
    if (handle->watched != NULL)
        note_change(handle->watched, (uint64_t)size, NULL, 0);
    return handle->machine->pMethods->xTruncate(handle->machine, size);
}

static int file_sync(sqlite3_file *file, int flags)
{
    handle_t *handle = handle_of(file);
    cake__files_t *files = handle->files;
    watched_t *watched = handle->watched;
    if (files->is_off)
        return SQLITE_IOERR_FSYNC;
    if (watched == NULL)
        return SQLITE_OK;
    if (!fails(files, files->disk->trial->plan.write_error_rate, "a sync of", watched->path)) {
        make_durable(watched);
        return SQLITE_OK;
    }
    for (size_t i = 0; i < watched->count; i++)
        watched->changes[i].is_lost |= below(files, 2) == 0;
    return SQLITE_IOERR_FSYNC;
}

static int file_size(sqlite3_file *file, sqlite3_int64 *out)
{
    return machine_of(file)->pMethods->xFileSize(machine_of(file), out);
}

static int file_lock(sqlite3_file *file, int level)
{
    return machine_of(file)->pMethods->xLock(machine_of(file), level);
}

static int file_unlock(sqlite3_file *file, int level)
{
    return machine_of(file)->pMethods->xUnlock(machine_of(file), level);
}

static int file_is_reserved(sqlite3_file *file, int *out)
{
    return machine_of(file)->pMethods->xCheckReservedLock(machine_of(file), out);
}

static int file_control(sqlite3_file *file, int what, void *arg)
{
    return machine_of(file)->pMethods->xFileControl(machine_of(file), what, arg);
}

static int file_sector(sqlite3_file *file)
{
    return SECTOR_BYTES;
}

static int file_traits(sqlite3_file *file)
{
    /* As SQLite takes for granted of disks unless it is told otherwise. Without it the log is filled up to the end of a
     * sector behind each sync, and a later sync that fails may lose that filling, which the log is not readable
     * beyond. */
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static int file_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **out)
{
    return machine_of(file)->pMethods->xShmMap(machine_of(file), page, size, extend, out);
}

static int file_shm_lock(sqlite3_file *file, int at, int count, int flags)
{
    return machine_of(file)->pMethods->xShmLock(machine_of(file), at, count, flags);
}

static void file_shm_barrier(sqlite3_file *file)
{
    machine_of(file)->pMethods->xShmBarrier(machine_of(file));
}

static int file_shm_unmap(sqlite3_file *file, int is_removed)
{
    return machine_of(file)->pMethods->xShmUnmap(machine_of(file), is_removed);
}

static cake__files_t *files_of(sqlite3_vfs *vfs)
{
    return CAKE_CONTAINER_OF(vfs, cake__files_t, vfs);
}

static int files_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *file, int flags, int *out_flags)
{
    static const sqlite3_io_methods methods = {
        2,           file_close,   file_read,     file_write,       file_truncate,  file_sync,
        file_size,   file_lock,    file_unlock,   file_is_reserved, file_control,   file_sector,
        file_traits, file_shm_map, file_shm_lock, file_shm_barrier, file_shm_unmap, NULL,
        NULL};
    cake__files_t *files = files_of(vfs);
    handle_t *handle = handle_of(file);
    *handle = (handle_t){.files = files};
    if (files->is_off)
        return SQLITE_CANTOPEN;
    handle->machine = cake__sim_alloc((size_t)files->machine->szOsFile);
    int code = files->machine->xOpen(files->machine, path, handle->machine, flags, out_flags);
    if (code != SQLITE_OK) {
        cake__free(&cake__libc_alloc, handle->machine);
        return code;
    }
    if (path != NULL)
        handle->watched = watch(files, path, handle->machine);
    handle->base.pMethods = &methods;
    return SQLITE_OK;
}

static int files_remove(sqlite3_vfs *vfs, const char *path, int is_synced)
{
    cake__files_t *files = files_of(vfs);
    watched_t *watched = find(files, path);
    if (files->is_off)
        return SQLITE_IOERR_DELETE;
    int code = files->machine->xDelete(files->machine, path, 0);
    if (code == SQLITE_OK && watched != NULL) {
        drop_changes(watched);
        cake__buf_clear(&watched->image);
    }
    return code;
}

/* ---- the end of a process -----------------------------------------------------------------------------------------*/

typedef enum fate { DROP_ALL, KEEP_ALL, KEEP_SOME, TEAR, FATES } fate_t;

/* Each sector of a torn write is there or not. */
static void apply_torn(cake__files_t *files, watched_t *watched, const change_t *change)
{
    for (size_t from = 0; from < change->len; from += SECTOR_BYTES) {
        size_t len = change->len - from < SECTOR_BYTES ? change->len - from : SECTOR_BYTES;
        if (below(files, 2) == 0)
            apply(&watched->image, change, from, len);
    }
}

static void write_image(cake__files_t *files, watched_t *watched)
{
    sqlite3_file *file = cake__sim_alloc((size_t)files->machine->szOsFile);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_MAIN_DB;
    int code = files->machine->xOpen(files->machine, watched->path, file, flags, NULL);
    if (code == SQLITE_OK) { /* it was not removed */
        code = file->pMethods->xTruncate(file, 0);
        for (size_t at = 0; code == SQLITE_OK && at < watched->image.len; at += PIECE_BYTES)
            code = file->pMethods->xWrite(file, watched->image.data + at,
                                          (int)cake__min_u64(PIECE_BYTES, watched->image.len - at), (sqlite3_int64)at);
        CAKE_ASSERT(code == SQLITE_OK);
        file->pMethods->xClose(file);
    }
    cake__free(&cake__libc_alloc, file);
}

static void cut_power(cake__files_t *files)
{
    fate_t fate = (fate_t)below(files, FATES);
    CAKE_LIST_FOR_EACH(link, &files->watched)
    {
        watched_t *watched = CAKE_CONTAINER_OF(link, watched_t, link);
        for (size_t i = 0; i < watched->count; i++) {
            const change_t *change = &watched->changes[i];
            if (change->is_lost || fate == DROP_ALL || (fate == KEEP_SOME && below(files, 2) == 0))
                continue;
            if (fate == TEAR && change->bytes != NULL && below(files, 2) == 0)
                apply_torn(files, watched, change);
            else
                apply(&watched->image, change, 0, change->len);
        }
        if (watched->count > 0)
            write_image(files, watched);
        drop_changes(watched);
    }
}

void cake__files_end(cake__files_t *files, cake_storage_t *storage, cake__end_t how)
{
    files->is_off = how != CAKE__END_CLOSED;
    cake_storage_close(storage);
    files->is_off = false;
    if (how == CAKE__END_POWER || (how == CAKE__END_CLOSED && below(files, 4) == 0))
        cut_power(files);
    unwatch_all(files); /* whoever comes next finds the files as they are now, and durable */
}

/* ---- life ---------------------------------------------------------------------------------------------------------*/

/* The directory of all disks of the run; in memory where the machine has such a place, since nothing here has to
 * last. */
static bool has_scratch(cake__trial_t *trial)
{
    static const char *const places[] = {"/dev/shm", "/tmp"};
    for (size_t i = 0; i < CAKE_COUNT_OF(places) && trial->scratch[0] == '\0'; i++) {
        snprintf(trial->scratch, sizeof trial->scratch, "%s/datacake-sim-XXXXXX", places[i]);
        if (mkdtemp(trial->scratch) == NULL)
            trial->scratch[0] = '\0';
    }
    return trial->scratch[0] != '\0';
}

static void name_dir(cake__files_t *files)
{
    snprintf(files->dir, sizeof files->dir, "%s/%u-%u", files->disk->trial->scratch, (unsigned)files->disk->node->id,
             (unsigned)files->disk->generation);
}

cake__files_t *cake__files_new(cake__disk_t *disk)
{
    cake__trial_t *trial = disk->trial;
    if (!has_scratch(trial)) {
        cake__violation(trial, "machine", "no directory can be made in /dev/shm and /tmp");
        return NULL;
    }
    cake__files_t *files = cake__sim_alloc(sizeof *files);
    files->disk = disk;
    files->alloc = (cake_alloc_t){resize, files};
    cake__list_init(&files->watched);
    name_dir(files);
    snprintf(files->name, sizeof files->name, "%s-%u", strrchr(trial->scratch, '/') + 1, (unsigned)disk->node->id);
    files->machine = sqlite3_vfs_find(NULL);
    CAKE_ASSERT(files->machine != NULL);
    files->vfs = *files->machine;
    files->vfs.zName = files->name;
    files->vfs.pNext = NULL;
    files->vfs.szOsFile = sizeof(handle_t);
    files->vfs.xOpen = files_open;
    files->vfs.xDelete = files_remove;
    int code = sqlite3_vfs_register(&files->vfs, 0);
    CAKE_ASSERT(code == SQLITE_OK);
    return files;
}

int cake__files_open(cake__files_t *files, cake_storage_t **storage)
{
    cake__disk_t *disk = files->disk;
    cake_sqlite_options_t options = CAKE_SQLITE_OPTIONS_INIT;
    cake_log_t log = cake__host_env(disk->node->host)->log;
    options.alloc = &files->alloc;
    options.log = &log;
    options.lanes = disk->trial->plan.lanes;
    options.vfs = files->name;
    return cake_sqlite_open(files->dir, &options, storage);
}

void cake__files_lose(cake__files_t *files)
{
    unwatch_all(files);
    cake__dir_discard(files->dir);
    name_dir(files);
}

void cake__files_free(cake__files_t *files)
{
    if (files == NULL)
        return;
    cake__files_lose(files);
    sqlite3_vfs_unregister(&files->vfs);
    cake__free(&cake__libc_alloc, files);
}

void cake__files_clean(cake__trial_t *trial)
{
    if (trial->scratch[0] != '\0')
        cake__dir_discard(trial->scratch);
}
