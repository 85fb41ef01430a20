/* storage_engines.h: what bench/storage.c measures: our storages, and SQLite and LMDB used directly for the same. */
#ifndef CAKE_BENCH_STORAGE_ENGINES_H
#define CAKE_BENCH_STORAGE_ENGINES_H

#include <inttypes.h>
#include <lmdb.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <datacake/lmdb.h>
#include <datacake/sqlite.h>

#include "base/base.h"

#define VALUE_BYTES 100
#define BATCH_MAX   4096
#define KEY_MAX     64
#define STAMP       (UINT64_C(1700000000000) << 16)
#define ACTOR       UINT64_C(0x8badf00d12345678)
#define RECORD      64 /* bytes of a small set's */

/* What is measured: one shape for ours and raw. n numbers the rows; the same n is the same key. */
typedef struct engine {
    const char *name, *path;
    bool is_lasting, is_ours;
    void *(*open)(const char *dir);
    void (*write)(void *state, uint64_t first, size_t count);
    void (*read)(void *state, uint64_t n);
    size_t (*scan)(void *state); /* all rows with their values, in order */
    size_t (*load)(void *state); /* all keys with stamps and dots, in any order: what a store reads when it is opened */
    void (*close)(void *state);
} engine_t;

static unsigned key_bytes = 16;
static bool writes_records; /* each batch of an engine with ids also has the record of a set, as a store's has */
static uint64_t sequential; /* so many rows have keys in their order, from all over the range: they are there sooner */
static uint8_t value[VALUE_BYTES];

static void check(bool is_right, const char *what)
{
    if (is_right)
        return;
    fprintf(stderr, "storage: %s failed\n", what);
    exit(1);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void put_hex(uint64_t number, char out[16])
{
    for (int i = 0; i < 16; i++)
        out[i] = "0123456789abcdef"[number >> (60 - 4 * i) & 15];
}

/* UUIDs where keys have 36 bytes, else so many digits, of which the first 15 differ. */
static cake_slice_t make_key(uint64_t n, char out[KEY_MAX])
{
    char digits[32];
    uint64_t mixed = cake__mix64(n + 1);
    put_hex(n < sequential ? n << 40 : mixed, digits);
    put_hex(cake__mix64(mixed), digits + 16);
    if (key_bytes == 36)
        snprintf(out, KEY_MAX, "%.8s-%.4s-4%.3s-a%.3s-%.12s", digits, digits + 8, digits + 13, digits + 17,
                 digits + 20);
    else
        memcpy(out, digits, key_bytes);
    return cake__slice(out, key_bytes);
}

/* ---- ours -------------------------------------------------------------------------------------------------------- */

static cake_id_t make_id(cake_slice_t key)
{
    cake_id_t id = {{0}};
    if (cake_id_of_key(key, &id))
        return id;
    memcpy(id.bytes, key.data, 15);
    id.bytes[15] = 0xff;
    return id;
}

static void ours_write(void *state, uint64_t first, size_t count)
{
    static cake_write_t writes[BATCH_MAX];
    static char keys[BATCH_MAX][KEY_MAX];
    cake_storage_t *storage = state;
    for (size_t i = 0; i < count; i++) {
        cake_slice_t key = make_key(first + i, keys[i]);
        writes[i] = (cake_write_t){.kind = CAKE_WRITE_PUT,
                                   .keyspace = {"bench", 5},
                                   .key = key,
                                   .value = {value, VALUE_BYTES},
                                   .id = make_id(key),
                                   .hlc = STAMP + first + i,
                                   .dot = {ACTOR, first + i + 1}};
    }
    cake_batch_t batch = {0, writes, count, NULL, 0};
    check(storage->ops->write(storage, &batch) == 0, "write");
}

static void ours_read(void *state, uint64_t n)
{
    cake_storage_t *storage = state;
    cake_doc_t *doc;
    char key[KEY_MAX];
    check(storage->ops->get(storage, cake__slice("bench", 5), make_key(n, key), &doc) == 0, "get");
    check(cake_doc_value(doc).len == VALUE_BYTES, "get");
    cake_doc_free(doc);
}

static int count_row(void *arg, const cake_row_t *row)
{
    *(size_t *)arg += row->value.len == VALUE_BYTES;
    return 0;
}

static size_t ours_scan(void *state)
{
    cake_storage_t *storage = state;
    cake_scan_t all = {.limit = 0};
    size_t count = 0;
    check(storage->ops->scan(storage, cake__slice("bench", 5), &all, count_row, &count) == 0, "scan");
    return count;
}

static int count_key(void *arg, const cake_row_t *row)
{
    *(size_t *)arg += row->key.len == key_bytes && row->dot.actor == ACTOR;
    return 0;
}

static size_t ours_load(void *state)
{
    cake_storage_t *storage = state;
    size_t count = 0;
    check(storage->ops->metadata(storage, cake__slice("bench", 5), count_key, &count) == 0, "metadata");
    return count;
}

static void ours_close(void *state)
{
    cake_storage_close(state);
}

static void *memory_open(const char *dir)
{
    cake_storage_t *storage;
    (void)dir;
    check(cake_memory_open(&storage) == 0, "open");
    return storage;
}

static void *sqlite_open(const char *dir)
{
    cake_storage_t *storage;
    check(cake_sqlite_open(dir, NULL, &storage) == 0, "open");
    return storage;
}

static void *lmdb_open(const char *dir)
{
    cake_storage_t *storage;
    check(cake_lmdb_open(dir, NULL, &storage) == 0, "open");
    return storage;
}

/* The same size, other bytes each time. */
static const uint8_t *record_of(uint64_t number)
{
    static uint8_t record[RECORD];
    memcpy(record, &number, sizeof number);
    return record;
}

/* What a raw read is made into as well, since ours gives a document. */
static cake_doc_t *make_doc(cake_slice_t key, cake_slice_t found, uint64_t hlc, cake_dot_t dot)
{
    cake_doc_t *doc = cake_doc_new(&cake__libc_alloc, key, found, hlc, dot);
    check(doc != NULL && cake_doc_value(doc).len == VALUE_BYTES, "get");
    return doc;
}

/* ---- raw SQLite -------------------------------------------------------------------------------------------------- */

typedef struct raw_sqlite {
    sqlite3 *db;
    bool has_ids;
    sqlite3_stmt *begin, *commit, *put, *record, *get, *scan, *load;
} raw_sqlite_t;

static const char raw_schema[] =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
    "CREATE TABLE IF NOT EXISTS records (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS rows (keyspace INTEGER, key BLOB, hlc INTEGER, actor INTEGER,"
    " seq INTEGER, value BLOB, PRIMARY KEY (keyspace, key)) WITHOUT ROWID";

/* What can be found by id as well: our own schema, without our code. */
static const char raw_schema_with_ids[] =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
    "CREATE TABLE IF NOT EXISTS records (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS rows (keyspace INTEGER, key BLOB, hlc INTEGER, actor INTEGER, seq INTEGER, value BLOB,"
    " id BLOB, UNIQUE (keyspace, key));"
    "CREATE UNIQUE INDEX IF NOT EXISTS ids ON rows (keyspace, id) WHERE id IS NOT NULL";

#define RAW_PUT_WITH_ID                                                                                                \
    "INSERT INTO rows VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (keyspace, key) DO UPDATE SET hlc = "             \
    "excluded.hlc,"                                                                                                    \
    " actor = excluded.actor, seq = excluded.seq, value = excluded.value"

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    check(sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK, sql);
    return statement;
}

static void *raw_sqlite_open_as(const char *dir, bool has_ids)
{
    raw_sqlite_t *raw = calloc(1, sizeof *raw);
    char path[512];
    snprintf(path, sizeof path, "mkdir -p %s", dir);
    check(raw != NULL && system(path) == 0, "mkdir");
    snprintf(path, sizeof path, "%s/raw.sqlite", dir);
    check(sqlite3_open(path, &raw->db) == SQLITE_OK, "sqlite3_open");
    raw->has_ids = has_ids;
    check(sqlite3_exec(raw->db, has_ids ? raw_schema_with_ids : raw_schema, NULL, NULL, NULL) == SQLITE_OK, "schema");
    raw->begin = prepare(raw->db, "BEGIN IMMEDIATE");
    raw->commit = prepare(raw->db, "COMMIT");
    raw->put =
        prepare(raw->db, has_ids ? RAW_PUT_WITH_ID : "INSERT OR REPLACE INTO rows VALUES (1, ?1, ?2, ?3, ?4, ?5)");
    raw->record = prepare(raw->db, "INSERT OR REPLACE INTO records VALUES ('set', ?1)");
    raw->get = prepare(raw->db, "SELECT hlc, actor, seq, value FROM rows WHERE keyspace = 1 AND key = ?1");
    raw->scan = prepare(raw->db, "SELECT key, hlc, actor, seq, value FROM rows WHERE keyspace = 1 ORDER BY key");
    raw->load = prepare(raw->db, "SELECT key, hlc, actor, seq FROM rows WHERE keyspace = 1");
    return raw;
}

static void *raw_sqlite_open(const char *dir)
{
    return raw_sqlite_open_as(dir, false);
}

static void *ids_sqlite_open(const char *dir)
{
    return raw_sqlite_open_as(dir, true);
}

static void step(sqlite3_stmt *statement)
{
    check(sqlite3_step(statement) == SQLITE_DONE, "sqlite3_step");
    sqlite3_reset(statement);
}

static void raw_sqlite_write(void *state, uint64_t first, size_t count)
{
    raw_sqlite_t *raw = state;
    step(raw->begin);
    for (size_t i = 0; i < count; i++) {
        char text[KEY_MAX];
        cake_slice_t key = make_key(first + i, text);
        sqlite3_bind_blob(raw->put, 1, key.data, (int)key.len, SQLITE_STATIC);
        sqlite3_bind_int64(raw->put, 2, (int64_t)(STAMP + first + i));
        sqlite3_bind_int64(raw->put, 3, (int64_t)ACTOR);
        sqlite3_bind_int64(raw->put, 4, (int64_t)(first + i + 1));
        sqlite3_bind_blob(raw->put, 5, value, VALUE_BYTES, SQLITE_STATIC);
        cake_id_t id = make_id(key);
        if (raw->has_ids && !cake_id_holds_key(&id))
            sqlite3_bind_blob(raw->put, 6, id.bytes, sizeof id.bytes, SQLITE_STATIC);
        step(raw->put);
    }
    if (raw->has_ids && writes_records) {
        sqlite3_bind_blob(raw->record, 1, record_of(first), RECORD, SQLITE_STATIC);
        step(raw->record);
    }
    step(raw->commit);
}

static void raw_sqlite_read(void *state, uint64_t n)
{
    raw_sqlite_t *raw = state;
    char text[KEY_MAX];
    cake_slice_t key = make_key(n, text);
    sqlite3_bind_blob(raw->get, 1, key.data, (int)key.len, SQLITE_STATIC);
    check(sqlite3_step(raw->get) == SQLITE_ROW, "get");
    cake_dot_t dot = {(uint64_t)sqlite3_column_int64(raw->get, 1), (uint64_t)sqlite3_column_int64(raw->get, 2)};
    cake_slice_t found = {sqlite3_column_blob(raw->get, 3), (size_t)sqlite3_column_bytes(raw->get, 3)};
    cake_doc_free(make_doc(key, found, (uint64_t)sqlite3_column_int64(raw->get, 0), dot));
    sqlite3_reset(raw->get);
}

static size_t raw_sqlite_scan(void *state)
{
    raw_sqlite_t *raw = state;
    size_t count = 0;
    while (sqlite3_step(raw->scan) == SQLITE_ROW)
        count += sqlite3_column_blob(raw->scan, 0) != NULL && sqlite3_column_blob(raw->scan, 4) != NULL &&
                 sqlite3_column_int64(raw->scan, 1) != 0 && sqlite3_column_int64(raw->scan, 3) != 0;
    sqlite3_reset(raw->scan);
    return count;
}

static size_t raw_sqlite_load(void *state)
{
    raw_sqlite_t *raw = state;
    size_t count = 0;
    while (sqlite3_step(raw->load) == SQLITE_ROW)
        count += sqlite3_column_blob(raw->load, 0) != NULL && sqlite3_column_int64(raw->load, 1) != 0 &&
                 sqlite3_column_int64(raw->load, 2) != 0 && sqlite3_column_int64(raw->load, 3) != 0;
    sqlite3_reset(raw->load);
    return count;
}

static void raw_sqlite_close(void *state)
{
    raw_sqlite_t *raw = state;
    sqlite3_stmt *statements[] = {raw->begin, raw->commit, raw->put, raw->record, raw->get, raw->scan, raw->load};
    for (size_t i = 0; i < CAKE_COUNT_OF(statements); i++)
        sqlite3_finalize(statements[i]);
    sqlite3_close(raw->db);
    free(raw);
}

/* ---- raw LMDB ---------------------------------------------------------------------------------------------------- */

typedef struct raw_lmdb {
    MDB_env *env;
    bool has_ids;
    MDB_dbi table, ids, records;
    MDB_txn *reader;
} raw_lmdb_t;

#define RAW_HEAD    24 /* stamp, actor, seq; the value follows */
#define RAW_KEY_MAX (4 + KEY_MAX)

static cake_slice_t raw_key(uint64_t n, uint8_t out[RAW_KEY_MAX])
{
    char text[KEY_MAX];
    cake_slice_t key = make_key(n, text);
    memcpy(out, "\0\0\0\1", 4); /* the keyspace */
    memcpy(out + 4, key.data, key.len);
    return cake__slice(out, 4 + key.len);
}

static MDB_val val(cake_slice_t slice)
{
    union { /* LMDB takes what it only reads as non-const */
        const void *from;
        void *to;
    } pointer = {slice.data};
    return (MDB_val){slice.len, pointer.to};
}

static void *raw_lmdb_open_as(const char *dir, bool has_ids)
{
    raw_lmdb_t *raw = calloc(1, sizeof *raw);
    MDB_txn *txn;
    char path[512];
    snprintf(path, sizeof path, "mkdir -p %s", dir);
    check(raw != NULL && system(path) == 0, "mkdir");
    check(mdb_env_create(&raw->env) == 0 && mdb_env_set_mapsize(raw->env, (size_t)1 << 36) == 0, "environment");
    check(mdb_env_set_maxdbs(raw->env, 3) == 0 && mdb_env_open(raw->env, dir, MDB_NOTLS, 0666) == 0, "mdb_env_open");
    check(mdb_txn_begin(raw->env, NULL, 0, &txn) == 0, "begin");
    check(mdb_dbi_open(txn, has_ids ? "rows" : NULL, has_ids ? MDB_CREATE : 0, &raw->table) == 0, "table");
    raw->has_ids = has_ids;
    if (has_ids)
        check(mdb_dbi_open(txn, "ids", MDB_CREATE, &raw->ids) == 0 &&
                  mdb_dbi_open(txn, "records", MDB_CREATE, &raw->records) == 0,
              "tables");
    check(mdb_txn_commit(txn) == 0, "commit");
    check(mdb_txn_begin(raw->env, NULL, MDB_RDONLY, &raw->reader) == 0, "reader");
    mdb_txn_reset(raw->reader);
    return raw;
}

static void *raw_lmdb_open(const char *dir)
{
    return raw_lmdb_open_as(dir, false);
}

static void *ids_lmdb_open(const char *dir)
{
    return raw_lmdb_open_as(dir, true);
}

static void raw_lmdb_put_id(raw_lmdb_t *raw, MDB_txn *txn, cake_slice_t place)
{
    uint8_t by_id[4 + sizeof(cake_id_t)];
    cake_slice_t name = cake__slice((const uint8_t *)place.data + 4, place.len - 4);
    cake_id_t id = make_id(name);
    memcpy(by_id, place.data, 4);
    memcpy(by_id + 4, id.bytes, sizeof id.bytes);
    MDB_val key = val(cake__slice(by_id, sizeof by_id)), data = val(name);
    check(cake_id_holds_key(&id) || mdb_put(txn, raw->ids, &key, &data, 0) == 0, "put");
}

static void raw_lmdb_write(void *state, uint64_t first, size_t count)
{
    raw_lmdb_t *raw = state;
    MDB_txn *txn;
    check(mdb_txn_begin(raw->env, NULL, 0, &txn) == 0, "begin");
    for (size_t i = 0; i < count; i++) {
        uint64_t head[] = {STAMP + first + i, ACTOR, first + i + 1};
        uint8_t text[RAW_KEY_MAX], record[RAW_HEAD + VALUE_BYTES];
        cake_slice_t place = raw_key(first + i, text);
        MDB_val key = val(place), data = val(cake__slice(record, sizeof record));
        memcpy(record, head, RAW_HEAD);
        memcpy(record + RAW_HEAD, value, VALUE_BYTES);
        check(mdb_put(txn, raw->table, &key, &data, 0) == 0, "put");
        if (raw->has_ids)
            raw_lmdb_put_id(raw, txn, place);
    }
    if (raw->has_ids && writes_records) {
        MDB_val name = val(cake__slice("set", 3)), data = val(cake__slice(record_of(first), RECORD));
        check(mdb_put(txn, raw->records, &name, &data, 0) == 0, "put");
    }
    check(mdb_txn_commit(txn) == 0, "commit");
}

static void raw_lmdb_read(void *state, uint64_t n)
{
    raw_lmdb_t *raw = state;
    uint8_t text[RAW_KEY_MAX];
    uint64_t head[3];
    cake_slice_t place = raw_key(n, text);
    MDB_val key = val(place), data;
    check(mdb_txn_renew(raw->reader) == 0 && mdb_get(raw->reader, raw->table, &key, &data) == 0, "get");
    memcpy(head, data.mv_data, RAW_HEAD);
    cake_slice_t found = cake__slice((const uint8_t *)data.mv_data + RAW_HEAD, data.mv_size - RAW_HEAD);
    cake_slice_t name = cake__slice((const uint8_t *)place.data + 4, place.len - 4);
    cake_doc_free(make_doc(name, found, head[0], (cake_dot_t){head[1], head[2]}));
    mdb_txn_reset(raw->reader);
}

static size_t raw_lmdb_scan(void *state)
{
    raw_lmdb_t *raw = state;
    MDB_cursor *cursor;
    MDB_val key, data;
    size_t count = 0;
    check(mdb_txn_renew(raw->reader) == 0 && mdb_cursor_open(raw->reader, raw->table, &cursor) == 0, "cursor");
    while (mdb_cursor_get(cursor, &key, &data, MDB_NEXT) == 0)
        count += data.mv_size == RAW_HEAD + VALUE_BYTES;
    mdb_cursor_close(cursor);
    mdb_txn_reset(raw->reader);
    return count;
}

static void raw_lmdb_close(void *state)
{
    raw_lmdb_t *raw = state;
    mdb_txn_abort(raw->reader);
    mdb_env_close(raw->env);
    free(raw);
}

static const engine_t engines[] = {
    {"memory", "memory", false, true, memory_open, ours_write, ours_read, ours_scan, ours_load, ours_close},
    {"sqlite", "sqlite", true, true, sqlite_open, ours_write, ours_read, ours_scan, ours_load, ours_close},
    {"raw sqlite", "raw-sqlite", true, false, raw_sqlite_open, raw_sqlite_write, raw_sqlite_read, raw_sqlite_scan,
     raw_sqlite_load, raw_sqlite_close},
    {"sqlite, ids", "ids-sqlite", true, false, ids_sqlite_open, raw_sqlite_write, raw_sqlite_read, raw_sqlite_scan,
     raw_sqlite_load, raw_sqlite_close},
    {"lmdb", "lmdb", true, true, lmdb_open, ours_write, ours_read, ours_scan, ours_load, ours_close},
    {"raw lmdb", "raw-lmdb", true, false, raw_lmdb_open, raw_lmdb_write, raw_lmdb_read, raw_lmdb_scan, raw_lmdb_scan,
     raw_lmdb_close},
    {"lmdb, ids", "ids-lmdb", true, false, ids_lmdb_open, raw_lmdb_write, raw_lmdb_read, raw_lmdb_scan, raw_lmdb_scan,
     raw_lmdb_close},
};

#define ENGINES CAKE_COUNT_OF(engines)

#endif
