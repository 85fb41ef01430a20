/* datacake/lmdb.h: a storage on LMDB files, one per lane: the fastest reads, straight from the page cache.
 *
 * Caveats of LMDB, and what to do about them
 *   - A file never shrinks; freed pages are used again. cake_storage_ops_t.backup writes a compact copy.
 *   - A read that goes on for long (a scan whose callback waits) keeps pages from being used again: the file grows.
 *   - The file is mapped: it must be on a local disk, and an I/O error while reading a mapped page ends the process.
 *   - Damage inside a file is found when it is read, or by check, not when it is opened. */
#ifndef DATACAKE_LMDB_H
#define DATACAKE_LMDB_H

#include <datacake/storage.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cake_lmdb_options {
    size_t size;
    const cake_alloc_t *alloc; /* NULL: the C library's; LMDB itself always uses that */
    const cake_log_t *log;     /* NULL: silent */
    unsigned lanes;     /* files; 0: as many as the directory has, 1 for a new one. Fixed when the directory is made:
                                  another number later is CAKE_ECONFLICT. */
    uint64_t map_bytes; /* address space per lane to begin with; 0: 1 GiB. Doubled whenever it is full. */
    bool lose_last_writes_on_power_cut; /* MDB_NOMETASYNC: faster, and what its name says; never a damaged file */
} cake_lmdb_options_t;

#define CAKE_LMDB_OPTIONS_INIT CAKE_SIZED(cake_lmdb_options_t)

/* Opens or makes the directory. options may be NULL. Blocks. CAKE_EINVAL, CAKE_ENOMEM, CAKE_EIO, CAKE_ENOSPC,
 * CAKE_ECORRUPT (not our file, or damaged), CAKE_EVERSION (made by a newer version), CAKE_EBUSY (another process has it
 * open), CAKE_ECONFLICT. */
CAKE_API int cake_lmdb_open(const char *dir, const cake_lmdb_options_t *options, cake_storage_t **storage);

/* Copies the storage in directory `from` into the new directory `to`, as ops->backup does, but from any process, beside
 * the one that has it open, or none. log may be NULL. CAKE_ECONFLICT: `to` exists; CAKE_ENOTFOUND: `from` holds
 * none. */
CAKE_API int cake_lmdb_copy(const char *from, const char *to, const cake_log_t *log);

#ifdef __cplusplus
}
#endif
#endif
