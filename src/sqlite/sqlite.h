/* sqlite: the storage on SQLite files, one per lane. Uses base, hlc, storage.
 *
 *      dir/lock               held by the one process that has the directory open
 *      dir/lane-000.sqlite    a whole database; -wal and -shm beside it while it is open
 *
 *   schema.c   making, recognising and migrating a file     write.c   a lane's writer: one transaction per batch
 *   read.c     pooled connections for readers               sqlite.c  opening and closing the whole, check, backup
 *
 * Threads: a writer belongs to its lane's thread. A reader connection is taken from the lane's pool by one thread at a
 * time. names is shared. */
#ifndef CAKE_SQLITE_SQLITE_H
#define CAKE_SQLITE_SQLITE_H

#include <sqlite3.h>
#include <stdatomic.h>

#include <datacake/sqlite.h>

#include "base/lock.h"
#include "storage/names.h"
#include "storage/reserve.h"
#include "storage/storage.h"

#define CAKE__SQLITE_APPLICATION_ID 0x43414b45 /* "CAKE" */
#define CAKE__SQLITE_BUSY_MS        5000       /* for a sqlite3 shell that writes */
#define CAKE__SQLITE_VFS_MAX        64u

/* The log is merged when it has so many pages, 16 MiB. Syncing a log that is written over costs half of one that
 * grows, and pages that change often are merged once for many changes; up to 4,062 pages its index is one table. */
#define CAKE__SQLITE_CHECKPOINT_PAGES 4000
#define CAKE__SQLITE_ROOM_STEP        (1 << 20) /* bytes by which the files grow */

typedef enum cake__read_statement {
    CAKE__READ_BEGIN,
    CAKE__READ_END,
    CAKE__READ_GET,
    CAKE__READ_BY_KEY,
    CAKE__READ_BY_ID,
    CAKE__READ_SCAN,
    CAKE__READ_SCAN_KEYS,
    CAKE__READ_COUNT,
    CAKE__READ_METADATA,     /* by the index: good for a small part of the table */
    CAKE__READ_METADATA_ALL, /* all of the table: good for a large one */
    CAKE__READ_METAS,
    CAKE__READ_STATEMENTS
} cake__read_statement_t;

/* A connection for reading. It keeps its read transaction from one read to the next as long as the lane commits
 * nothing: beginning one costs more than a point read. */
typedef struct cake__reader_connection {
    struct cake__reader_connection *next; /* in the pool */
    sqlite3 *db;
    sqlite3_stmt *statements[CAKE__READ_STATEMENTS];
    bool has_snapshot;
    uint64_t commits; /* the lane's count when the snapshot was taken, or before */
} cake__reader_connection_t;

typedef enum cake__write_statement {
    CAKE__WRITE_BEGIN,
    CAKE__WRITE_COMMIT,
    CAKE__WRITE_ROLLBACK,
    CAKE__WRITE_ROW,
    CAKE__WRITE_ERASE_KEY,
    CAKE__WRITE_ERASE_ID,
    CAKE__WRITE_KEYSPACE,
    CAKE__WRITE_META,
    CAKE__WRITE_META_REMOVAL,
    CAKE__WRITE_PAGES,
    CAKE__WRITE_STATEMENTS
} cake__write_statement_t;

typedef struct cake__sqlite_lane {
    struct cake__sqlite *storage;
    unsigned number;
    char path[1024];
    sqlite3 *db; /* the writer */
    sqlite3_stmt *statements[CAKE__WRITE_STATEMENTS];
    int wal_pages, checkpoint_at;
    int64_t page_bytes;
    int64_t room_pages; /* the database's file has room for so many, since it was last merged into; 0: not known */
    int64_t log_bytes;  /* the log's file has been made at least so long */
    cake__reserve_t reserve;
    atomic_uint_fast64_t commits; /* begun and ended: odd while one is under way */
    cake__lock_t pool_lock;
    cake__reader_connection_t *pool;
    unsigned pool_count;
} cake__sqlite_lane_t;

/* steps[i] leads from version i, which is user_version in the file, to i + 1; 0 is an empty file. */
typedef struct cake__sqlite_schema {
    const char *const *steps;
    int version; /* how many they are */
} cake__sqlite_schema_t;

extern const cake__sqlite_schema_t cake__sqlite_schema; /* in schema.c */

typedef struct cake__sqlite {
    cake_storage_t base;
    cake_alloc_t alloc;
    cake_log_t log;
    bool is_relaxed;                /* synchronous=NORMAL */
    char vfs[CAKE__SQLITE_VFS_MAX]; /* "": SQLite's own */
    const cake__sqlite_schema_t *schema;
    int checkpoint_pages, room_step;
    int lock_fd;
    unsigned lane_count;
    cake__names_t names;
    char dir[1024];
    cake__sqlite_lane_t lanes[];
} cake__sqlite_t;

/* How files are opened. */
typedef struct cake__sqlite_way {
    const cake_log_t *log;
    const char *vfs; /* NULL: SQLite's own */
    const cake__sqlite_schema_t *schema;
} cake__sqlite_way_t;

static inline cake__sqlite_way_t cake__sqlite_way(const cake__sqlite_t *sqlite)
{
    return (cake__sqlite_way_t){&sqlite->log, sqlite->vfs[0] == '\0' ? NULL : sqlite->vfs, sqlite->schema};
}

typedef struct cake__sqlite_settings {
    cake_sqlite_options_t given;
    const cake__sqlite_schema_t *schema; /* for tests: one with other versions */
    int checkpoint_pages;                /* for tests: when the log is merged; 0: as usual */
    int room_step;                       /* for tests: bytes by which files grow; 0: as usual */
} cake__sqlite_settings_t;

int cake__sqlite_open(const char *dir, const cake__sqlite_settings_t *settings, cake_storage_t **storage);

static inline cake__sqlite_t *cake__sqlite_of(cake_storage_t *storage)
{
    return CAKE_CONTAINER_OF(storage, cake__sqlite_t, base);
}

/* ---- schema.c ---------------------------------------------------------------------------------------------------- */

#define CAKE__SQLITE_HOLDS_KEY "cake_holds_key" /* a function of each connection: of a key, whether its id holds it */

/* What a result code of SQLite is called here. db may be NULL; it tells a full disk from other I/O errors. */
int cake__sqlite_err(sqlite3 *db, int code);

/* Runs statements that give no rows. Logs failures. */
int cake__sqlite_exec(sqlite3 *db, const char *sql, const cake_log_t *log);
int cake__sqlite_number(sqlite3 *db, const char *sql, int64_t *out); /* the first column of the first row */
int cake__sqlite_prepare(sqlite3 *db, const char *const *texts, size_t count, sqlite3_stmt **statements,
                         const cake_log_t *log);

/* Makes a new file with everything in it, under another name until it is whole. */
int cake__sqlite_make(const char *dir, const char *path, unsigned lane, unsigned lanes, const cake__sqlite_way_t *way);

/* A connection with the settings that all share, to a file that is known to be sound. *db: for sqlite3_close, after
 * errors, too. */
int cake__sqlite_connect(const char *path, const cake__sqlite_way_t *way, sqlite3 **db);

/* Opens a file that may be anything, and checks that it is lane `lane` of *lanes (0: tells). CAKE_ENOTFOUND: no file;
 * CAKE_ECORRUPT: not one of ours; CAKE_EVERSION: of a newer version. Then it is as it was. */
int cake__sqlite_open_file(const char *path, unsigned lane, unsigned *lanes, const cake__sqlite_way_t *way,
                           sqlite3 **db);

/* Brings an older file up to this version, each step in a transaction of its own. */
int cake__sqlite_migrate(sqlite3 *db, const char *path, const cake__sqlite_way_t *way);

/* ---- write.c ----------------------------------------------------------------------------------------------------- */
int cake__sqlite_writer_open(cake__sqlite_lane_t *lane);
void cake__sqlite_writer_close(cake__sqlite_lane_t *lane);
int cake__sqlite_write(cake_storage_t *storage, const cake_batch_t *batch);

/* ---- read.c ------------------------------------------------------------------------------------------------------ */
void cake__sqlite_readers_init(cake__sqlite_lane_t *lane);
void cake__sqlite_readers_close(cake__sqlite_lane_t *lane);
void cake__sqlite_readers_let_go(
    cake__sqlite_lane_t *lane); /* idle ones end their transactions, so that the log can shrink */
int cake__sqlite_reader_take(cake__sqlite_lane_t *lane, cake__reader_connection_t **out);
void cake__sqlite_reader_give(cake__sqlite_lane_t *lane, cake__reader_connection_t *reader);
int cake__sqlite_get(cake_storage_t *storage, cake_slice_t keyspace, cake_slice_t key, cake_doc_t **doc);
int cake__sqlite_fetch(cake_storage_t *storage, cake_slice_t keyspace, const cake_id_t *ids, size_t count,
                       cake_row_fn fn, void *arg);
int cake__sqlite_scan(cake_storage_t *storage, cake_slice_t keyspace, const cake_scan_t *range, cake_row_fn fn,
                      void *arg);
int cake__sqlite_metadata(cake_storage_t *storage, cake_slice_t keyspace, cake_row_fn fn, void *arg);
int cake__sqlite_metas(cake_storage_t *storage, unsigned lane, cake_slice_t prefix, cake_meta_fn fn, void *arg);

#endif
