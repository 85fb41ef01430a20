/* Making, recognising and migrating the file of a lane. docs/storage.md has the same schema with words around it. */
#include "sqlite/sqlite.h"

#include "storage/dir.h"

#define HEADER_BYTES      100
#define HEADER_PAGES_AT   28
#define HEADER_VERSION_AT 60
#define HEADER_ID_AT      68

/* documents has a rowid on purpose: beside a small index of keys, rows are appended, whatever the order of their
 * keys. A table WITHOUT ROWID touches a page per row instead: measured, half the inserts/s at 100 bytes, a sixth at
 * 900. */
static const char schema_1[] =
    "CREATE TABLE lane (number INTEGER NOT NULL, lanes INTEGER NOT NULL) STRICT;"
    "CREATE TABLE keyspaces (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;"
    "CREATE TABLE documents (keyspace INTEGER NOT NULL, key BLOB NOT NULL, hlc INTEGER NOT NULL,"
    " actor INTEGER NOT NULL, seq INTEGER NOT NULL, id BLOB, value BLOB, UNIQUE (keyspace, key)) STRICT;"
    "CREATE UNIQUE INDEX long_ids ON documents (keyspace, id) WHERE id IS NOT NULL;"
    "CREATE TABLE metas (name BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE VIEW live_documents AS SELECT k.name AS keyspace, d.key AS key, d.value AS value,"
    " strftime('%Y-%m-%dT%H:%M:%fZ', (d.hlc >> 16) / 1000.0, 'unixepoch') AS written"
    " FROM documents d JOIN keyspaces k ON k.number = d.keyspace WHERE d.value IS NOT NULL;";

/* Until then ids held keys of up to 15 bytes only. */
static const char schema_2[] =
    "UPDATE documents SET id = NULL WHERE id IS NOT NULL AND " CAKE__SQLITE_HOLDS_KEY "(key)";

static const char *const steps[] = {schema_1, schema_2};

const cake__sqlite_schema_t cake__sqlite_schema = {steps, CAKE_COUNT_OF(steps)};

int cake__sqlite_err(sqlite3 *db, int code)
{
    if (code == SQLITE_IOERR_SHMSIZE) /* of the file beside the log that grows with it */
        return CAKE_ENOSPC;
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return 0;
    case SQLITE_NOMEM:
        return CAKE_ENOMEM;
    case SQLITE_FULL:
        return CAKE_ENOSPC;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return CAKE_EBUSY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return CAKE_ECORRUPT;
    case SQLITE_TOOBIG:
        return CAKE_ETOOBIG;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return db != NULL && sqlite3_system_errno(db) == ENOSPC ? CAKE_ENOSPC : CAKE_EIO;
    default:
        return CAKE_EINTERNAL;
    }
}

int cake__sqlite_exec(sqlite3 *db, const char *sql, const cake_log_t *log)
{
    int code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    if (code == SQLITE_OK)
        return 0;
    cake__log(log, CAKE_LOG_ERROR, "SQLite: %s: %.200s", sqlite3_errmsg(db), sql);
    return cake__sqlite_err(db, code);
}

int cake__sqlite_number(sqlite3 *db, const char *sql, int64_t *out)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    int err = code == SQLITE_DONE ? CAKE_ENOTFOUND : cake__sqlite_err(db, code);
    if (code == SQLITE_ROW)
        *out = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return err;
}

int cake__sqlite_prepare(sqlite3 *db, const char *const *texts, size_t count, sqlite3_stmt **statements,
                         const cake_log_t *log)
{
    for (size_t i = 0; i < count; i++) {
        int code = sqlite3_prepare_v3(db, texts[i], -1, SQLITE_PREPARE_PERSISTENT, &statements[i], NULL);
        if (code == SQLITE_OK)
            continue;
        cake__log(log, CAKE_LOG_ERROR, "SQLite: %s: %.200s", sqlite3_errmsg(db), texts[i]);
        /* The schema is ours by its header: a statement that does not fit it means that the file was changed. */
        return code == SQLITE_ERROR ? CAKE_ECORRUPT : cake__sqlite_err(db, code);
    }
    return 0;
}

/* CAKE__SQLITE_HOLDS_KEY(key): whether its id holds that key. */
static void holds_key(sqlite3_context *context, int count, sqlite3_value **values)
{
    cake_id_t id;
    CAKE_ASSERT(count == 1);
    const void *key = sqlite3_value_blob(values[0]);
    sqlite3_result_int(context, cake_id_of_key(cake__slice(key, (size_t)sqlite3_value_bytes(values[0])), &id));
}

static int add_functions(sqlite3 *db)
{
    int flags = SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_DIRECTONLY;
    return sqlite3_create_function_v2(db, CAKE__SQLITE_HOLDS_KEY, 1, flags, NULL, holds_key, NULL, NULL, NULL);
}

/* ---- recognising ------------------------------------------------------------------------------------------------- */

static uint32_t load_be32(const uint8_t *from)
{
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static int refuse(const char *path, int err, const char *why, const cake_log_t *log)
{
    cake__log(log, CAKE_LOG_ERROR, "%s: %s", path, why);
    return err;
}

/* A checkpoint that a full disk cut short leaves a file shorter than it says; the log then still has what is
 * missing. */
static bool has_log(const char *path)
{
    char name[CAKE__PATH_MAX];
    struct stat info;
    int len = snprintf(name, sizeof name, "%s-wal", path);
    return len > 0 && (size_t)len < sizeof name && stat(name, &info) == 0 && info.st_size > 0;
}

static int check_header(const char *path, const uint8_t *header, uint64_t size, const cake__sqlite_way_t *way)
{
    const cake_log_t *log = way->log;
    if (memcmp(header, "SQLite format 3", 16) != 0)
        return refuse(path, CAKE_ECORRUPT, "not a database of SQLite, or damaged", log);
    if (load_be32(header + HEADER_ID_AT) != CAKE__SQLITE_APPLICATION_ID)
        return refuse(path, CAKE_ECORRUPT, "a database of another program", log);
    if (load_be32(header + HEADER_VERSION_AT) > (uint32_t)way->schema->version)
        return refuse(path, CAKE_EVERSION, "made by a newer version", log);
    uint64_t page = (uint64_t)header[16] << 8 | header[17];
    page = page == 1 ? 65536 : page;
    bool is_short = load_be32(header + HEADER_PAGES_AT) * page > size;
    if (page < 512 || (is_short && !has_log(path)))
        return refuse(path, CAKE_ECORRUPT, "cut short, or damaged", log);
    return 0;
}

/* Only looks: SQLite itself would write to a file, and make others beside it. */
static int recognise(const char *path, const cake__sqlite_way_t *way)
{
    const cake_log_t *log = way->log;
    uint8_t header[HEADER_BYTES];
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return CAKE_ENOTFOUND;
    if (fd < 0)
        return refuse(path, CAKE_EIO, strerror(errno), log);
    ssize_t got = pread(fd, header, sizeof header, 0);
    int err = got >= 0 && fstat(fd, &info) == 0 ? 0 : CAKE_EIO;
    close(fd);
    if (err != 0)
        return refuse(path, err, "cannot be read", log);
    if (got < (ssize_t)sizeof header)
        return refuse(path, CAKE_ECORRUPT, "not a database of SQLite, or damaged", log);
    return check_header(path, header, (uint64_t)info.st_size, way);
}

/* ---- migrating --------------------------------------------------------------------------------------------------- */

static int read_version(sqlite3 *db, const char *path, const cake__sqlite_way_t *way, int64_t *version)
{
    int err = cake__sqlite_number(db, "PRAGMA user_version", version); /* the log may be ahead of the header */
    if (err != 0)
        return refuse(path, err, sqlite3_errmsg(db), way->log);
    return *version > way->schema->version ? refuse(path, CAKE_EVERSION, "made by a newer version", way->log) : 0;
}

static int take_step(sqlite3 *db, const char *step, int64_t version, const cake_log_t *log)
{
    char set[64];
    snprintf(set, sizeof set, "PRAGMA user_version = %d", (int)version);
    int err = cake__sqlite_exec(db, "BEGIN IMMEDIATE", log);
    if (err != 0)
        return err;
    err = cake__sqlite_exec(db, step, log);
    if (err == 0)
        err = cake__sqlite_exec(db, set, log);
    if (err == 0)
        err = cake__sqlite_exec(db, "COMMIT", log);
    if (err != 0)
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return err;
}

int cake__sqlite_migrate(sqlite3 *db, const char *path, const cake__sqlite_way_t *way)
{
    int64_t version = 0;
    int err = read_version(db, path, way, &version);
    bool is_older = err == 0 && version > 0 && version < way->schema->version;
    for (; err == 0 && version < way->schema->version; version++)
        err = take_step(db, way->schema->steps[version], version + 1, way->log);
    if (err == 0 && is_older)
        cake__log(way->log, CAKE_LOG_INFO, "%s: now of version %d", path, way->schema->version);
    return err;
}

/* ---- making, opening --------------------------------------------------------------------------------------------- */

static int fill_new(sqlite3 *db, const char *path, unsigned lane, unsigned lanes, const cake__sqlite_way_t *way)
{
    const cake_log_t *log = way->log;
    char about[128];
    snprintf(about, sizeof about, "PRAGMA application_id = %d; INSERT INTO lane VALUES (%u, %u)",
             CAKE__SQLITE_APPLICATION_ID, lane, lanes);
    /* Nobody has a draft before it is published, and that syncs it: what happens to it before does not matter. */
    int err = cake__sqlite_exec(db, "PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY", log);
    if (err == 0)
        err = cake__sqlite_migrate(db, path, way);
    if (err == 0)
        err = cake__sqlite_exec(db, about, log);
    return err != 0 ? err : cake__sqlite_exec(db, "PRAGMA journal_mode = WAL", log);
}

int cake__sqlite_make(const char *dir, const char *path, unsigned lane, unsigned lanes, const cake__sqlite_way_t *way)
{
    const cake_log_t *log = way->log;
    char draft[CAKE__PATH_MAX];
    sqlite3 *db = NULL;
    int len = snprintf(draft, sizeof draft, "%s.new", path);
    if (len < 0 || (size_t)len >= sizeof draft)
        return CAKE_ETOOBIG;
    (void)unlink(draft); /* of an attempt that was cut short */
    int code = sqlite3_open_v2(draft, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, way->vfs);
    if (code == SQLITE_OK)
        code = add_functions(db);
    int err = cake__sqlite_err(db, code);
    if (err == 0)
        err = fill_new(db, draft, lane, lanes, way);
    else
        cake__log(log, CAKE_LOG_ERROR, "%s: %s", draft, db == NULL ? "out of memory" : sqlite3_errmsg(db));
    sqlite3_close(db); /* the last connection: the log is merged and removed */
    return err != 0 ? err : cake__file_publish(dir, draft, path, log);
}

int cake__sqlite_connect(const char *path, const cake__sqlite_way_t *way, sqlite3 **db)
{
    const cake_log_t *log = way->log;
    *db = NULL;
    int code = sqlite3_open_v2(path, db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, way->vfs);
    if (code == SQLITE_OK)
        code = add_functions(*db);
    if (code != SQLITE_OK) {
        int err = cake__sqlite_err(*db, code);
        cake__log(log, CAKE_LOG_ERROR, "%s: %s", path, *db == NULL ? "out of memory" : sqlite3_errmsg(*db));
        sqlite3_close(*db);
        *db = NULL;
        return err;
    }
    sqlite3_extended_result_codes(*db, 1);
    sqlite3_busy_timeout(*db, CAKE__SQLITE_BUSY_MS);
    (void)sqlite3_db_config(*db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    return cake__sqlite_exec(
        *db, "PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF", log);
}

/* Negative versions are of no one. */
static int check_lane(sqlite3 *db, const char *path, unsigned lane, unsigned *lanes, const cake__sqlite_way_t *way)
{
    int64_t version = 0, number = 0, count = 0;
    int err = read_version(db, path, way, &version);
    if (err != 0)
        return err;
    if (version < 1)
        return refuse(path, CAKE_ECORRUPT, "has no schema", way->log);
    err = cake__sqlite_number(db, "SELECT number FROM lane", &number);
    if (err == 0)
        err = cake__sqlite_number(db, "SELECT lanes FROM lane", &count);
    if (err != 0)
        return refuse(path, err == CAKE_EINTERNAL || err == CAKE_ENOTFOUND ? CAKE_ECORRUPT : err, sqlite3_errmsg(db),
                      way->log);
    if (number != lane || count < 1 || count > CAKE_STORAGE_LANES_MAX || (*lanes != 0 && count != *lanes))
        return refuse(path, CAKE_ECORRUPT, "is not the lane that its name says", way->log);
    *lanes = (unsigned)count;
    return 0;
}

int cake__sqlite_open_file(const char *path, unsigned lane, unsigned *lanes, const cake__sqlite_way_t *way,
                           sqlite3 **db)
{
    *db = NULL;
    int err = recognise(path, way);
    if (err == 0)
        err = cake__sqlite_connect(path, way, db);
    return err != 0 ? err : check_lane(*db, path, lane, lanes, way);
}
