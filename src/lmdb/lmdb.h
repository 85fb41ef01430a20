/* lmdb: the storage on LMDB files, one per lane. Uses base, hlc, storage.
 *
 *      dir/lock             held by the one process that has the directory open
 *      dir/lane-000.mdb     an LMDB environment (MDB_NOSUBDIR); its -lock file beside it
 *
 * The databases of an environment; numbers in keys are big-endian, in values little-endian:
 *
 *      about   "version", "lane", "lanes" -> u32
 *      names   keyspace name -> u32 number
 *      rows    keyspace number u32, key -> record
 *      ids     keyspace number u32, id -> key                    of keys that their id does not hold
 *      large   keyspace number u32, id -> record with its key    of keys of 507 bytes and more (see rows.c)
 *      metas   name -> value
 *
 *   env.c    opening, growing, closing an environment      rows.c   records within a transaction
 *   write.c  batches   read.c  reads   lmdb.c  the whole: open, check, backup, close
 *
 * Threads: the writer is its lane's thread. Readers hold the lane's gate while they are in a transaction, so that the map
 * can be moved when none is. */
#ifndef CAKE_LMDB_LMDB_H
#define CAKE_LMDB_LMDB_H

#include <lmdb.h>

#include <datacake/lmdb.h>

#include "base/lock.h"
#include "storage/names.h"
#include "storage/storage.h"

#define CAKE__LMDB_VERSION   1u
#define CAKE__LMDB_MAP_BYTES (UINT64_C(1) << 30)
#define CAKE__LMDB_READERS   1024u

typedef enum cake__lmdb_table {
    CAKE__TABLE_ABOUT,
    CAKE__TABLE_NAMES,
    CAKE__TABLE_ROWS,
    CAKE__TABLE_IDS,
    CAKE__TABLE_LARGE,
    CAKE__TABLE_METAS,
    CAKE__TABLES
} cake__lmdb_table_t;

/* A read transaction that waits for its next use: renewing one is much cheaper than beginning one. */
typedef struct cake__lmdb_reader {
    struct cake__lmdb_reader *next;
    MDB_txn *txn;
} cake__lmdb_reader_t;

typedef struct cake__lmdb_lane {
    struct cake__lmdb *storage;
    unsigned number;
    char path[1024];
    MDB_env *env;
    MDB_dbi tables[CAKE__TABLES];
    int64_t next_name; /* the number of the next new keyspace */
    cake__rwlock_t gate;
    cake__lock_t pool_lock;
    cake__lmdb_reader_t *pool;
} cake__lmdb_lane_t;

typedef struct cake__lmdb {
    cake_storage_t base;
    cake_alloc_t alloc;
    cake_log_t log;
    bool is_relaxed;
    uint64_t map_bytes;
    int lock_fd;
    unsigned lane_count;
    cake__names_t names;
    char dir[1024];
    cake__lmdb_lane_t lanes[];
} cake__lmdb_t;

static inline cake__lmdb_t *cake__lmdb_of(cake_storage_t *storage)
{
    return CAKE_CONTAINER_OF(storage, cake__lmdb_t, base);
}

static inline MDB_val cake__val(const void *data, size_t len)
{
    union { /* LMDB takes what it only reads as non-const */
        const void *from;
        void *to;
    } pointer = {data};
    return (MDB_val){len, pointer.to};
}

static inline cake_slice_t cake__val_slice(MDB_val val)
{
    return cake__slice(val.mv_data, val.mv_size);
}

/* ---- env.c --------------------------------------------------------------------------------------------------------------- */

/* What a result of LMDB is called here. MDB_NOTFOUND is CAKE_ENOTFOUND. */
int cake__lmdb_err(int code);

int cake__lmdb_recognise(const char *path, const cake_log_t *log); /* CAKE_ENOTFOUND, CAKE_ECORRUPT; only looks */
int cake__lmdb_make(const char *dir, const char *path, unsigned lane, unsigned lanes, const cake_log_t *log);

/* Opens a file that was recognised and checks that it is lane `lane` of *lanes (0: tells). lane->env NULL after errors. */
int cake__lmdb_env_open(cake__lmdb_lane_t *lane, unsigned *lanes);
void cake__lmdb_env_close(cake__lmdb_lane_t *lane);
int cake__lmdb_env_grow(cake__lmdb_lane_t *lane);   /* doubles the map; no transaction of the caller may be open */
int cake__lmdb_env_reopen(cake__lmdb_lane_t *lane); /* after MDB_PANIC */

/* ---- rows.c: within one transaction; all return codes of LMDB ------------------------------------------------------- */
typedef struct cake__table_ref {
    cake__lmdb_lane_t *lane;
    MDB_txn *txn;
    uint32_t keyspace;
} cake__table_ref_t;

int cake__lmdb_put_row(const cake__table_ref_t *ref, const cake_write_t *write);
int cake__lmdb_erase_row(const cake__table_ref_t *ref, const cake_id_t *id); /* 0 when there is none */
int cake__lmdb_get_row(const cake__table_ref_t *ref, cake_slice_t key, cake_row_t *row);
int cake__lmdb_fetch_row(const cake__table_ref_t *ref, const cake_id_t *id, cake_row_t *row);

/* Rows in order of their keys, from the first that is not below `from`; dead ones too. *from_fn is what fn returned. */
int cake__lmdb_each_row(const cake__table_ref_t *ref, cake_slice_t from, cake_row_fn fn, void *arg, int *from_fn);

/* ---- write.c, read.c ----------------------------------------------------------------------------------------------------- */
int cake__lmdb_write(cake_storage_t *storage, const cake_batch_t *batch);
int cake__lmdb_load_names(cake__lmdb_lane_t *lane);

int cake__lmdb_reader_take(cake__lmdb_lane_t *lane, cake__lmdb_reader_t **out);
void cake__lmdb_reader_give(cake__lmdb_lane_t *lane, cake__lmdb_reader_t *reader);
void cake__lmdb_readers_close(cake__lmdb_lane_t *lane);
int cake__lmdb_get(cake_storage_t *storage, cake_slice_t keyspace, cake_slice_t key, cake_doc_t **doc);
int cake__lmdb_fetch(cake_storage_t *storage, cake_slice_t keyspace, const cake_id_t *ids, size_t count, cake_row_fn fn,
                     void *arg);
int cake__lmdb_scan(cake_storage_t *storage, cake_slice_t keyspace, const cake_scan_t *range, cake_row_fn fn,
                    void *arg);
int cake__lmdb_metadata(cake_storage_t *storage, cake_slice_t keyspace, cake_row_fn fn, void *arg);
int cake__lmdb_metas(cake_storage_t *storage, unsigned lane, cake_slice_t prefix, cake_meta_fn fn, void *arg);

#endif
