/* Readers: pooled connections, each used by one thread at a time. Every read sees one snapshot: whole batches only.
 *
 *      lane->pool -> idle connection -> idle connection          at most POOL_MAX; more are opened when all are in use,
 *                                                                and closed when they come back
 *
 * A connection keeps its snapshot while lane->commits stands still, and so needs no locks of the file for the next
 * read. A write raises commits before it returns, so a read that begins later begins a new snapshot. While a commit
 * is under way each read begins one: of two reads, one after the other, the second never sees less than the first. */
#include "sqlite/sqlite.h"

#define POOL_MAX         16u
#define READER_CACHE_KIB "16384"
#define READER_MMAP      "2147418112" /* bytes; what is above it is read into the cache: half as fast, measured */
#define BOUND_MAX        512          /* above every key and meta name: that many bytes of 0xff */

#define ROW_COLUMNS "key, hlc, actor, seq, id"

static const char *const texts[CAKE__READ_STATEMENTS] = {
    [CAKE__READ_BEGIN] = "BEGIN",
    [CAKE__READ_END] = "COMMIT",
    [CAKE__READ_GET] = "SELECT hlc, actor, seq, value FROM documents WHERE keyspace = ?1 AND key = ?2",
    [CAKE__READ_BY_KEY] = ("SELECT " ROW_COLUMNS ", value FROM documents WHERE keyspace = ?1 AND key = ?2"),
    [CAKE__READ_BY_ID] = ("SELECT " ROW_COLUMNS ", value FROM documents WHERE keyspace = ?1 AND id = ?2"),
    [CAKE__READ_SCAN] = ("SELECT " ROW_COLUMNS ", value FROM documents"
                         " WHERE keyspace = ?1 AND key >= ?2 AND key < ?3 AND value IS NOT NULL ORDER BY key"),
    [CAKE__READ_SCAN_KEYS] = ("SELECT " ROW_COLUMNS ", x'' FROM documents"
                              " WHERE keyspace = ?1 AND key >= ?2 AND key < ?3 AND value IS NOT NULL ORDER BY key"),
    [CAKE__READ_COUNT] =
        ("WITH most (n) AS (SELECT coalesce(max(rowid), 0) / 8 FROM documents) SELECT count(*), n FROM most,"
         " (SELECT 1 FROM documents WHERE keyspace = ?1 LIMIT (SELECT n + 1 FROM most))"),
    [CAKE__READ_METADATA] = ("SELECT " ROW_COLUMNS ", value IS NULL FROM documents WHERE keyspace = ?1"),
    [CAKE__READ_METADATA_ALL] =
        ("SELECT " ROW_COLUMNS ", value IS NULL FROM documents NOT INDEXED WHERE keyspace = ?1"),
    [CAKE__READ_METAS] = "SELECT name, value FROM metas WHERE name >= ?1 AND name < ?2",
};

/* ---- the pool ---------------------------------------------------------------------------------------------------- */

void cake__sqlite_readers_init(cake__sqlite_lane_t *lane)
{
    cake__lock_init(&lane->pool_lock);
}

static void close_reader(cake__sqlite_lane_t *lane, cake__reader_connection_t *reader)
{
    for (size_t i = 0; i < CAKE__READ_STATEMENTS; i++)
        sqlite3_finalize(reader->statements[i]);
    sqlite3_close(reader->db);
    cake__free(&lane->storage->alloc, reader);
}

void cake__sqlite_readers_close(cake__sqlite_lane_t *lane)
{
    while (lane->pool != NULL) {
        cake__reader_connection_t *reader = lane->pool;
        lane->pool = reader->next;
        close_reader(lane, reader);
    }
    lane->pool_count = 0;
    cake__lock_destroy(&lane->pool_lock);
}

static int run(cake__reader_connection_t *reader, cake__read_statement_t which)
{
    int code = sqlite3_step(reader->statements[which]);
    sqlite3_reset(reader->statements[which]);
    return cake__sqlite_err(reader->db, code);
}

static void end_snapshot(cake__reader_connection_t *reader)
{
    if (reader->has_snapshot)
        (void)run(reader, CAKE__READ_END);
    reader->has_snapshot = false;
}

void cake__sqlite_readers_let_go(cake__sqlite_lane_t *lane)
{
    cake__lock_take(&lane->pool_lock);
    for (cake__reader_connection_t *reader = lane->pool; reader != NULL; reader = reader->next)
        end_snapshot(reader);
    cake__lock_give(&lane->pool_lock);
}

static int open_reader(cake__sqlite_lane_t *lane, cake__reader_connection_t **out)
{
    const cake_log_t *log = &lane->storage->log;
    const cake__sqlite_way_t way = cake__sqlite_way(lane->storage);
    cake__reader_connection_t *reader = cake__calloc(&lane->storage->alloc, 1, sizeof *reader);
    if (reader == NULL)
        return CAKE_ENOMEM;
    int err = cake__sqlite_connect(lane->path, &way, &reader->db);
    if (err == 0)
        err = cake__sqlite_exec(
            reader->db,
            "PRAGMA query_only = ON; PRAGMA mmap_size = " READER_MMAP "; PRAGMA cache_size = -" READER_CACHE_KIB, log);
    if (err == 0)
        err = cake__sqlite_prepare(reader->db, texts, CAKE__READ_STATEMENTS, reader->statements, log);
    if (err != 0) {
        close_reader(lane, reader);
        return err;
    }
    *out = reader;
    return 0;
}

static int begin_snapshot(cake__sqlite_lane_t *lane, cake__reader_connection_t *reader)
{
    uint64_t commits = atomic_load(&lane->commits);
    if (reader->has_snapshot && reader->commits == commits && commits % 2 == 0)
        return 0;
    end_snapshot(reader);
    int err = run(reader, CAKE__READ_BEGIN);
    reader->has_snapshot = err == 0;
    reader->commits = commits;
    return err;
}

int cake__sqlite_reader_take(cake__sqlite_lane_t *lane, cake__reader_connection_t **out)
{
    cake__lock_take(&lane->pool_lock);
    cake__reader_connection_t *reader = lane->pool;
    if (reader != NULL) {
        lane->pool = reader->next;
        lane->pool_count--;
    }
    cake__lock_give(&lane->pool_lock);
    int err = reader == NULL ? open_reader(lane, &reader) : 0;
    if (err == 0)
        err = begin_snapshot(lane, reader);
    if (err != 0 && reader != NULL)
        close_reader(lane, reader);
    *out = err == 0 ? reader : NULL;
    return err;
}

/* A snapshot that is out of date already would only keep the log long. */
void cake__sqlite_reader_give(cake__sqlite_lane_t *lane, cake__reader_connection_t *reader)
{
    if (reader->commits != atomic_load(&lane->commits))
        end_snapshot(reader);
    cake__lock_take(&lane->pool_lock);
    bool is_kept = lane->pool_count < POOL_MAX;
    if (is_kept) {
        reader->next = lane->pool;
        lane->pool = reader;
        lane->pool_count++;
    }
    cake__lock_give(&lane->pool_lock);
    if (!is_kept)
        close_reader(lane, reader);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static cake_slice_t column_bytes(sqlite3_stmt *statement, int at)
{
    const void *data = sqlite3_column_blob(statement, at);
    return cake__slice(data == NULL ? "" : data, (size_t)sqlite3_column_bytes(statement, at));
}

static void bind_bytes(sqlite3_stmt *statement, int at, cake_slice_t bytes)
{
    if (bytes.len == 0)
        sqlite3_bind_zeroblob(statement, at, 0);
    else
        sqlite3_bind_blob64(statement, at, bytes.data, bytes.len, SQLITE_STATIC);
}

/* Ends a query: what the callback said goes before what SQLite said. */
static int finish(cake__sqlite_lane_t *lane, cake__reader_connection_t *reader, sqlite3_stmt *statement, int code,
                  int from_callback)
{
    int err = cake__sqlite_err(reader->db, code);
    if (err != 0)
        cake__log(&lane->storage->log, CAKE_LOG_ERROR, "%s: %s", lane->path, sqlite3_errmsg(reader->db));
    sqlite3_reset(statement);
    return from_callback != 0 ? from_callback : err;
}

/* From ROW_COLUMNS; CAKE_ECORRUPT when they cannot be ours. */
static int read_row(sqlite3_stmt *statement, cake_row_t *row)
{
    *row = (cake_row_t){
        .key = column_bytes(statement, 0),
        .hlc = (uint64_t)sqlite3_column_int64(statement, 1),
        .dot = {(uint64_t)sqlite3_column_int64(statement, 2), (uint64_t)sqlite3_column_int64(statement, 3)}};
    if (row->key.len == 0 || row->key.len > CAKE_KEY_MAX)
        return CAKE_ECORRUPT;
    if (cake_id_of_key(row->key, &row->id))
        return 0;
    cake_slice_t id = column_bytes(statement, 4);
    if (id.len != sizeof row->id.bytes)
        return CAKE_ECORRUPT;
    memcpy(row->id.bytes, id.data, id.len);
    return 0;
}

static int find(cake_storage_t *storage, cake_slice_t keyspace, int64_t *number, cake__sqlite_lane_t **lane,
                cake__reader_connection_t **reader)
{
    cake__sqlite_t *sqlite = cake__sqlite_of(storage);
    *number = cake__names_number(&sqlite->names, keyspace);
    if (*number < 0)
        return CAKE_ENOTFOUND;
    *lane = &sqlite->lanes[cake__lane_of(keyspace, sqlite->lane_count)];
    return cake__sqlite_reader_take(*lane, reader);
}

int cake__sqlite_get(cake_storage_t *storage, cake_slice_t keyspace, cake_slice_t key, cake_doc_t **doc)
{
    cake__sqlite_lane_t *lane;
    cake__reader_connection_t *reader;
    int64_t number;
    *doc = NULL;
    int err = find(storage, keyspace, &number, &lane, &reader);
    if (err != 0)
        return err;
    sqlite3_stmt *statement = reader->statements[CAKE__READ_GET];
    sqlite3_bind_int64(statement, 1, number);
    bind_bytes(statement, 2, key);
    int code = sqlite3_step(statement);
    err = CAKE_ENOTFOUND;
    if (code == SQLITE_ROW && sqlite3_column_type(statement, 3) != SQLITE_NULL) {
        cake_dot_t dot = {(uint64_t)sqlite3_column_int64(statement, 1), (uint64_t)sqlite3_column_int64(statement, 2)};
        cake_slice_t value = column_bytes(statement, 3);
        bool is_lost = sqlite3_errcode(reader->db) == SQLITE_NOMEM;
        if (!is_lost)
            *doc = cake_doc_new(&lane->storage->alloc, key, value, (uint64_t)sqlite3_column_int64(statement, 0), dot);
        err = *doc == NULL ? CAKE_ENOMEM : 0;
    }
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        err = cake__sqlite_err(reader->db, code);
    (void)finish(lane, reader, statement, code, err);
    cake__sqlite_reader_give(lane, reader);
    return err;
}

static int fetch_one(cake__sqlite_lane_t *lane, cake__reader_connection_t *reader, int64_t number, const cake_id_t *id,
                     cake_row_fn fn, void *arg)
{
    char room[CAKE_ID_KEY_MAX];
    bool is_held = cake_id_holds_key(id);
    sqlite3_stmt *statement = reader->statements[is_held ? CAKE__READ_BY_KEY : CAKE__READ_BY_ID];
    sqlite3_bind_int64(statement, 1, number);
    bind_bytes(statement, 2, is_held ? cake_id_key(id, room) : cake__slice(id->bytes, sizeof id->bytes));
    int code = sqlite3_step(statement), err = 0;
    if (code == SQLITE_ROW) {
        cake_row_t row;
        err = read_row(statement, &row);
        row.is_tombstone = sqlite3_column_type(statement, 5) == SQLITE_NULL;
        row.value = row.is_tombstone ? cake__slice(NULL, 0) : column_bytes(statement, 5);
        if (err == 0 && sqlite3_errcode(reader->db) == SQLITE_NOMEM)
            err = CAKE_ENOMEM;
        if (err == 0)
            err = fn(arg, &row);
    }
    return finish(lane, reader, statement, code, err);
}

int cake__sqlite_fetch(cake_storage_t *storage, cake_slice_t keyspace, const cake_id_t *ids, size_t count,
                       cake_row_fn fn, void *arg)
{
    cake__sqlite_lane_t *lane;
    cake__reader_connection_t *reader;
    int64_t number;
    int err = find(storage, keyspace, &number, &lane, &reader);
    if (err != 0)
        return err == CAKE_ENOTFOUND ? 0 : err;
    for (size_t i = 0; i < count && err == 0; i++)
        err = fetch_one(lane, reader, number, &ids[i], fn, arg);
    cake__sqlite_reader_give(lane, reader);
    return err;
}

/* The least byte string above all that begin with prefix; only ff bytes when there is none. */
static cake_slice_t end_of_prefix(cake_slice_t prefix, uint8_t bound[BOUND_MAX])
{
    size_t len = prefix.len < BOUND_MAX ? prefix.len : BOUND_MAX;
    if (len > 0)
        memcpy(bound, prefix.data, len);
    while (len > 0 && bound[len - 1] == 0xff)
        len--;
    if (len > 0) {
        bound[len - 1]++;
        return cake__slice(bound, len);
    }
    memset(bound, 0xff, BOUND_MAX);
    return cake__slice(bound, BOUND_MAX);
}

static int scan_rows(cake__reader_connection_t *reader, sqlite3_stmt *statement, const cake_scan_t *range,
                     cake_row_fn fn, void *arg, int *code)
{
    size_t count = 0;
    int err = 0;
    while (err == 0 && (*code = sqlite3_step(statement)) == SQLITE_ROW) {
        cake_row_t row;
        err = read_row(statement, &row);
        if (err == 0 && range->after.len > 0 && cake__slice_equal(row.key, range->after))
            continue;
        row.value = column_bytes(statement, 5);
        if (err == 0 && sqlite3_errcode(reader->db) == SQLITE_NOMEM)
            err = CAKE_ENOMEM;
        if (err == 0)
            err = fn(arg, &row);
        if (++count == range->limit)
            break;
    }
    return err;
}

int cake__sqlite_scan(cake_storage_t *storage, cake_slice_t keyspace, const cake_scan_t *range, cake_row_fn fn,
                      void *arg)
{
    cake__sqlite_lane_t *lane;
    cake__reader_connection_t *reader;
    uint8_t bound[BOUND_MAX];
    int64_t number;
    int code = SQLITE_OK, err = find(storage, keyspace, &number, &lane, &reader);
    if (err != 0)
        return err == CAKE_ENOTFOUND ? 0 : err;
    bool from_after = cake__slice_compare(range->after, range->prefix) >= 0;
    sqlite3_stmt *statement = reader->statements[range->keys_only ? CAKE__READ_SCAN_KEYS : CAKE__READ_SCAN];
    sqlite3_bind_int64(statement, 1, number);
    bind_bytes(statement, 2, from_after ? range->after : range->prefix);
    bind_bytes(statement, 3, end_of_prefix(range->prefix, bound));
    err = scan_rows(reader, statement, range, fn, arg, &code);
    err = finish(lane, reader, statement, code, err);
    cake__sqlite_reader_give(lane, reader);
    return err;
}

/* Through the index every row is a jump; past an eighth of the table reading all of it in its own order is faster. */
static int choose_metadata(cake__reader_connection_t *reader, int64_t number, sqlite3_stmt **out)
{
    sqlite3_stmt *count = reader->statements[CAKE__READ_COUNT];
    sqlite3_bind_int64(count, 1, number);
    int code = sqlite3_step(count);
    bool is_large = sqlite3_column_int64(count, 0) > sqlite3_column_int64(count, 1);
    sqlite3_reset(count);
    *out = reader->statements[is_large ? CAKE__READ_METADATA_ALL : CAKE__READ_METADATA];
    sqlite3_bind_int64(*out, 1, number);
    return cake__sqlite_err(reader->db, code);
}

int cake__sqlite_metadata(cake_storage_t *storage, cake_slice_t keyspace, cake_row_fn fn, void *arg)
{
    cake__sqlite_lane_t *lane;
    cake__reader_connection_t *reader;
    int64_t number;
    int code = SQLITE_OK, err = find(storage, keyspace, &number, &lane, &reader);
    if (err != 0)
        return err == CAKE_ENOTFOUND ? 0 : err;
    sqlite3_stmt *statement;
    err = choose_metadata(reader, number, &statement);
    while (err == 0 && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        cake_row_t row;
        err = read_row(statement, &row);
        row.is_tombstone = sqlite3_column_int(statement, 5) != 0;
        if (err == 0)
            err = fn(arg, &row);
    }
    err = finish(lane, reader, statement, code, err);
    cake__sqlite_reader_give(lane, reader);
    return err;
}

int cake__sqlite_metas(cake_storage_t *storage, unsigned number, cake_slice_t prefix, cake_meta_fn fn, void *arg)
{
    cake__sqlite_t *sqlite = cake__sqlite_of(storage);
    cake__reader_connection_t *reader;
    uint8_t bound[BOUND_MAX];
    if (number >= sqlite->lane_count)
        return CAKE_EINVAL;
    cake__sqlite_lane_t *lane = &sqlite->lanes[number];
    int code = SQLITE_OK, err = cake__sqlite_reader_take(lane, &reader);
    if (err != 0)
        return err;
    sqlite3_stmt *statement = reader->statements[CAKE__READ_METAS];
    bind_bytes(statement, 1, prefix);
    bind_bytes(statement, 2, end_of_prefix(prefix, bound));
    while (err == 0 && (code = sqlite3_step(statement)) == SQLITE_ROW)
        err = fn(arg, column_bytes(statement, 0), column_bytes(statement, 1));
    err = finish(lane, reader, statement, code, err);
    cake__sqlite_reader_give(lane, reader);
    return err;
}
