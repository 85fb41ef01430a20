/* datacake/sqlite.h: a storage on SQLite files, one per lane. docs/storage.md has the schema, for the sqlite3 shell.
 *
 * Caveats, and what to do about them
 *   - The directory must be on a local disk: the files are mapped for reading, and their locks are those of the kernel.
 *     An I/O error while reading a mapped page ends the process.
 *   - A read that goes on for long (a scan whose callback waits) keeps the write-ahead log from starting over: it
 *     grows.
 *   - Another program may read the files at any time. One that keeps a write transaction open makes writes fail with
 *     CAKE_EBUSY after five seconds. */
#ifndef DATACAKE_SQLITE_H
#define DATACAKE_SQLITE_H

#include <datacake/storage.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cake_sqlite_options {
    size_t size;
    const cake_alloc_t *alloc; /* NULL: the C library's */
    const cake_log_t *log;     /* NULL: silent */
    unsigned lanes; /* files; 0: 1. Fixed when the directory is made: another number later is CAKE_ECONFLICT. */
    bool lose_last_writes_on_power_cut; /* synchronous=NORMAL: faster, and what its name says */
    /* A registered file system of SQLite (sqlite3_vfs) that the databases are opened with; NULL: SQLite's own. The
     * directory and its lock are files of the machine all the same. At most 63 characters. */
    const char *vfs;
} cake_sqlite_options_t;

#define CAKE_SQLITE_OPTIONS_INIT CAKE_SIZED(cake_sqlite_options_t)

/* Opens or makes the directory. options may be NULL. Blocks. CAKE_EIO, CAKE_ENOSPC, CAKE_ECORRUPT (not our file, or
 * damaged), CAKE_EVERSION (made by a newer version), CAKE_EBUSY (another process has it open), CAKE_ECONFLICT. */
CAKE_API int cake_sqlite_open(const char *dir, const cake_sqlite_options_t *options, cake_storage_t **storage);

/* Copies the storage in directory `from` into the new directory `to`, as ops->backup does, but from any process, beside
 * the one that has it open, or none. log may be NULL. CAKE_ECONFLICT: `to` exists; CAKE_ENOTFOUND: `from` holds
 * none. */
CAKE_API int cake_sqlite_copy(const char *from, const char *to, const cake_log_t *log);

#ifdef __cplusplus
}
#endif
#endif
