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
 *      late-0, late-1   number u64 (native) -> keyspace number u32, id, key   such rows of ids, before they are in it
 *      large   keyspace number u32, id -> record with its key    of keys of 507 bytes and more (see rows.c)
 *      metas   name -> value
 *
 *   env.c    opening, growing, closing an environment      rows.c   records within a transaction
 *   late.c   ids that wait until they can be put into their table many at once
 *   write.c  batches   read.c  reads   lmdb.c  the whole: open, check, backup, close
 *
 * Threads: the writer is its lane's thread. A reader holds one of the lane's slots while it is in a transaction; who
 * takes all of them knows that nobody reads, and may move the map. */
#ifndef CAKE_LMDB_LMDB_H
#define CAKE_LMDB_LMDB_H

#include <lmdb.h>
#include <stdatomic.h>

#include <datacake/lmdb.h>

#include "base/lock.h"
#include "storage/names.h"
#include "storage/reserve.h"
#include "storage/storage.h"

#define CAKE__LMDB_VERSION   3u /* 1: without late-0 and late-1; 2: ids held keys of up to 15 bytes only */
#define CAKE__LMDB_MAP_BYTES (UINT64_C(1) << 30)
#define CAKE__LMDB_READERS   256u
#define CAKE__LATE_HEAD      20u /* of an entry in late-0 or late-1: keyspace, id; the key follows */
#define CAKE__LMDB_SLOTS     48u /* reads at once; more wait. At times all are held: ThreadSanitizer follows 64 locks */

typedef enum cake__lmdb_table {
    CAKE__TABLE_ABOUT,
    CAKE__TABLE_NAMES,
    CAKE__TABLE_ROWS,
    CAKE__TABLE_IDS,
    CAKE__TABLE_LARGE,
    CAKE__TABLE_METAS,
    CAKE__TABLE_LATE_0,
    CAKE__TABLE_LATE_1,
    CAKE__TABLES
} cake__lmdb_table_t;

/* A place for one reader, and its transaction, which waits for its next use: renewing one is much cheaper than
 * beginning one. */
typedef struct cake__lmdb_reader {
    cake__lock_t lock;          /* held while in use */
    MDB_txn *txn;               /* NULL: not begun yet */
    atomic_uint_fast64_t since; /* commits of the lane when it began, or fewer; UINT64_MAX: idle */
    uint8_t apart[64];          /* from the next one, which another thread uses */
} cake__lmdb_reader_t;

/* An id of a long key that is not in table ids yet; see late.c. */
typedef struct cake__late_entry {
    cake_id_t id;
    uint64_t number; /* its key in the half's table */
    uint32_t keyspace, next;
} cake__late_entry_t;

typedef struct cake__late_half {
    cake__lmdb_table_t table;
    cake__late_entry_t *entries;
    uint32_t *buckets; /* of entries, 1 + index each; capacity of them, a power of two */
    uint32_t *order;   /* by keyspace and id; NULL: this half is being filled */
    size_t count, capacity;
    size_t merged;       /* how many of order are in ids */
    uint64_t dropped_at; /* the commit that emptied its table; 0: not yet */
} cake__late_half_t;

typedef struct cake__late {
    cake__rwlock_t lock; /* readers look up, the writer changes */
    cake__late_half_t halves[2];
    unsigned filling; /* which half */
    size_t least;     /* entries before a half is merged */
    uint64_t next_number;
    size_t count_before, merged_before;
    bool drops;
} cake__late_t;

typedef struct cake__lmdb_lane {
    struct cake__lmdb *storage;
    unsigned number;
    char path[1024];
    MDB_env *env;
    MDB_dbi tables[CAKE__TABLES];
    int64_t next_name; /* the number of the next new keyspace */
    cake__late_t late;
    cake__reserve_t reserve;
    atomic_uint_fast64_t commits;
    cake__lmdb_reader_t readers[CAKE__LMDB_SLOTS];
} cake__lmdb_lane_t;

typedef struct cake__lmdb {
    cake_storage_t base;
    cake_alloc_t alloc;
    cake_log_t log;
    bool is_relaxed;
    uint64_t map_bytes;
    size_t late_least;
    int lock_fd;
    unsigned lane_count;
    cake__names_t names;
    char dir[1024];
    cake__lmdb_lane_t lanes[];
} cake__lmdb_t;

typedef struct cake__lmdb_settings {
    cake_lmdb_options_t given;
    size_t late_least; /* for tests: how many late ids a half takes; 0: as many as suit the file */
} cake__lmdb_settings_t;

int cake__lmdb_open(const char *dir, const cake__lmdb_settings_t *settings, cake_storage_t **storage);

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

/* ---- env.c ------------------------------------------------------------------------------------------------------- */

/* What a result of LMDB is called here. MDB_NOTFOUND is CAKE_ENOTFOUND. */
int cake__lmdb_err(int code);

int cake__lmdb_recognise(const char *path, const cake_log_t *log); /* CAKE_ENOTFOUND, CAKE_ECORRUPT; only looks */
int cake__lmdb_make(const char *dir, const char *path, unsigned lane, unsigned lanes, const cake_log_t *log);

/* For reading only, beside a process that may be writing; tells the number of lanes. */
int cake__lmdb_open_for_copy(const char *path, MDB_env **env, unsigned *lanes, const cake_log_t *log);

/* Opens a file that was recognised and checks that it is lane `lane` of *lanes (0: tells). lane->env NULL after
 * errors. */
int cake__lmdb_env_open(cake__lmdb_lane_t *lane, unsigned *lanes);
void cake__lmdb_env_close(cake__lmdb_lane_t *lane);
int cake__lmdb_env_grow(cake__lmdb_lane_t *lane);   /* doubles the map; no transaction of the caller may be open */
int cake__lmdb_env_reopen(cake__lmdb_lane_t *lane); /* after MDB_PANIC */

/* ---- rows.c: within one transaction; all return codes of LMDB ---------------------------------------------------- */
typedef struct cake__table_ref {
    cake__lmdb_lane_t *lane;
    MDB_txn *txn;
    uint32_t keyspace;
    MDB_cursor *rows; /* of a batch: keys next to each other are put without a walk from the root; NULL: none */
} cake__table_ref_t;

int cake__lmdb_put_row(const cake__table_ref_t *ref, const cake_write_t *write);
int cake__lmdb_erase_row(const cake__table_ref_t *ref, const cake_id_t *id); /* 0 when there is none */
int cake__lmdb_get_row(const cake__table_ref_t *ref, cake_slice_t key, cake_row_t *row);
int cake__lmdb_fetch_row(const cake__table_ref_t *ref, const cake_id_t *id, uint8_t key[CAKE_KEY_MAX],
                         cake_row_t *row); /* the row's key may be in `key` */

/* Of a file of version 2: makes it one of version 3, but for the number. */
int cake__lmdb_drop_held_ids(cake__lmdb_lane_t *lane, MDB_txn *txn);

/* Rows in order of their keys, from the first that is not below `from`; dead ones too. *from_fn is what fn returned. */
int cake__lmdb_each_row(const cake__table_ref_t *ref, cake_slice_t from, cake_row_fn fn, void *arg, int *from_fn);

/* ---- late.c: of the writer, but for find; all but settle return codes of LMDB ------------------------------- */
void cake__late_init(cake__lmdb_lane_t *lane);
void cake__late_free(cake__lmdb_lane_t *lane);
int cake__late_load(cake__lmdb_lane_t *lane, MDB_txn *txn); /* forgets what it knew, and reads the tables */
void cake__late_begin(cake__lmdb_lane_t *lane);             /* with every transaction of the writer */
bool cake__late_is_full(cake__lmdb_lane_t *lane);           /* add no more now */
int cake__late_add(const cake__table_ref_t *ref, const cake_id_t *id, cake_slice_t key);
int cake__late_erase(const cake__table_ref_t *ref, const cake_id_t *id); /* 0 when it is not there */
int cake__late_merge(cake__lmdb_lane_t *lane, MDB_txn *txn);             /* a share of it, before the commit */
void cake__late_settle(cake__lmdb_lane_t *lane, bool is_committed);
int cake__late_find(const cake__table_ref_t *ref, const cake_id_t *id, uint8_t key[CAKE_KEY_MAX], size_t *len);
int cake__late_count(const cake__table_ref_t *ref, size_t *count); /* those that are not in ids, in this transaction */

/* ---- write.c, read.c --------------------------------------------------------------------------------------------- */
int cake__lmdb_write(cake_storage_t *storage, const cake_batch_t *batch);
int cake__lmdb_load_names(cake__lmdb_lane_t *lane);

void cake__lmdb_readers_stop(cake__lmdb_lane_t *lane); /* waits until nobody reads, and keeps it so */
void cake__lmdb_readers_go(cake__lmdb_lane_t *lane);
uint64_t cake__lmdb_readers_oldest(cake__lmdb_lane_t *lane); /* every reader sees at least that many commits */
int cake__lmdb_reader_take(cake__lmdb_lane_t *lane, cake__lmdb_reader_t **out);
void cake__lmdb_reader_give(cake__lmdb_lane_t *lane, cake__lmdb_reader_t *reader);
void cake__lmdb_readers_init(cake__lmdb_lane_t *lane);
void cake__lmdb_readers_close(cake__lmdb_lane_t *lane); /* their transactions */
void cake__lmdb_readers_destroy(cake__lmdb_lane_t *lane);
int cake__lmdb_get(cake_storage_t *storage, cake_slice_t keyspace, cake_slice_t key, cake_doc_t **doc);
int cake__lmdb_fetch(cake_storage_t *storage, cake_slice_t keyspace, const cake_id_t *ids, size_t count, cake_row_fn fn,
                     void *arg);
int cake__lmdb_scan(cake_storage_t *storage, cake_slice_t keyspace, const cake_scan_t *range, cake_row_fn fn,
                    void *arg);
int cake__lmdb_metadata(cake_storage_t *storage, cake_slice_t keyspace, cake_row_fn fn, void *arg);
int cake__lmdb_metas(cake_storage_t *storage, unsigned lane, cake_slice_t prefix, cake_meta_fn fn, void *arg);

#endif
