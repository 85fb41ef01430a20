#include "sqlite/sqlite.h"

#include "storage/dir.h"

/* ---- check and backup -------------------------------------------------------------------------------------------- */

/* Each query gives rows only where something is wrong. */
static const char *const own_checks[] = {
    ("SELECT 'a document of keyspace number ' || keyspace || ', which has no name' FROM documents"
     " WHERE keyspace NOT IN (SELECT number FROM keyspaces) LIMIT 1"),
    ("SELECT 'a document whose key has ' || length(key) || ' bytes' FROM documents"
     " WHERE length(key) NOT BETWEEN 1 AND 511 LIMIT 1"),
    ("SELECT 'a document whose id does not fit its key: ' || hex(key) FROM documents"
     " WHERE " CAKE__SQLITE_HOLDS_KEY "(key) <> (id IS NULL) OR length(id) <> 16 LIMIT 1"),
    ("SELECT 'a name of ' || length(name) || ' bytes among the metas' FROM metas"
     " WHERE length(name) NOT BETWEEN 1 AND 255 LIMIT 1"),
};

static int check_one(cake__sqlite_lane_t *lane, sqlite3 *db, const char *sql, char *report, size_t size)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL), err = 0;
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    const char *text = code == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
    if (code == SQLITE_ROW && (text == NULL || strcmp(text, "ok") != 0))
        err = CAKE_ECORRUPT;
    else
        err = cake__sqlite_err(db, code);
    if (err != 0 && size > 0)
        snprintf(report, size, "%s: %s", lane->path, text != NULL ? text : sqlite3_errmsg(db));
    sqlite3_finalize(statement);
    return err;
}

static int sqlite_check(cake_storage_t *storage, char *report, size_t size)
{
    cake__sqlite_t *sqlite = cake__sqlite_of(storage);
    if (size > 0)
        report[0] = '\0';
    for (unsigned i = 0; i < sqlite->lane_count; i++) {
        cake__sqlite_lane_t *lane = &sqlite->lanes[i];
        cake__reader_connection_t *reader;
        cake__sqlite_readers_let_go(lane); /* to see what another program did to the file, too */
        int err = cake__sqlite_reader_take(lane, &reader);
        if (err != 0)
            return err;
        err = check_one(lane, reader->db, "PRAGMA integrity_check(1)", report, size);
        for (size_t j = 0; j < CAKE_COUNT_OF(own_checks) && err == 0; j++)
            err = check_one(lane, reader->db, own_checks[j], report, size);
        cake__sqlite_reader_give(lane, reader);
        if (err != 0)
            return err;
    }
    return 0;
}

static int lane_path(const char *dir, unsigned lane, char out[CAKE__PATH_MAX])
{
    char name[32];
    snprintf(name, sizeof name, "lane-%03u.sqlite", lane);
    return cake__path_join(out, dir, name);
}

/* VACUUM INTO writes one snapshot, without gaps; it does not run inside a transaction, so it gets its own
 * connection. */
static int copy_lane(const char *from, unsigned lane, const cake__sqlite_way_t *way, const char *dir)
{
    char path[CAKE__PATH_MAX], draft[CAKE__PATH_MAX];
    sqlite3 *db = NULL;
    int err = lane_path(dir, lane, path);
    int len = snprintf(draft, sizeof draft, "%s.new", path);
    if (err != 0 || len < 0 || (size_t)len >= sizeof draft)
        return CAKE_ETOOBIG;
    err = cake__sqlite_connect(from, way, &db);
    char *sql = err == 0 ? sqlite3_mprintf("VACUUM INTO %Q", draft) : NULL;
    if (err == 0)
        err = sql == NULL ? CAKE_ENOMEM : cake__sqlite_exec(db, sql, way->log);
    sqlite3_free(sql);
    sqlite3_close(db);
    return err != 0 ? err : cake__file_publish(dir, draft, path, way->log);
}

static int sqlite_backup(cake_storage_t *storage, const char *dir)
{
    cake__sqlite_t *sqlite = cake__sqlite_of(storage);
    const cake__sqlite_way_t way = cake__sqlite_way(sqlite);
    char draft[CAKE__PATH_MAX];
    int err = cake__copy_begin(dir, draft, &sqlite->log);
    if (err != 0)
        return err;
    for (unsigned i = 0; i < sqlite->lane_count && err == 0; i++)
        err = copy_lane(sqlite->lanes[i].path, i, &way, draft);
    return cake__copy_end(dir, draft, err, &sqlite->log);
}

/* ---- the rest of the interface ----------------------------------------------------------------------------------- */

static unsigned sqlite_lanes(cake_storage_t *storage)
{
    return cake__sqlite_of(storage)->lane_count;
}

static unsigned sqlite_lane_of(cake_storage_t *storage, cake_slice_t keyspace)
{
    return cake__lane_of(keyspace, cake__sqlite_of(storage)->lane_count);
}

static int sqlite_keyspaces(cake_storage_t *storage, cake_name_fn fn, void *arg)
{
    return cake__names_each(&cake__sqlite_of(storage)->names, fn, arg);
}

static void sqlite_close(cake_storage_t *storage)
{
    cake__sqlite_t *sqlite = cake__sqlite_of(storage);
    cake_alloc_t alloc = sqlite->alloc;
    for (unsigned i = 0; i < sqlite->lane_count; i++) {
        cake__sqlite_readers_close(&sqlite->lanes[i]);
        cake__sqlite_writer_close(&sqlite->lanes[i]);
    }
    cake__names_free(&sqlite->names);
    cake__dir_unlock(&sqlite->lock_fd);
    cake__free(&alloc, sqlite);
}

static const cake_storage_ops_t sqlite_ops = {
    .version = CAKE_STORAGE_VERSION,
    .flags = CAKE_STORAGE_CONCURRENT_READS,
    .lanes = sqlite_lanes,
    .lane_of = sqlite_lane_of,
    .write = cake__sqlite_write,
    .get = cake__sqlite_get,
    .fetch = cake__sqlite_fetch,
    .scan = cake__sqlite_scan,
    .metadata = cake__sqlite_metadata,
    .keyspaces = sqlite_keyspaces,
    .metas = cake__sqlite_metas,
    .check = sqlite_check,
    .close = sqlite_close,
    .backup = sqlite_backup,
};

/* ---- opening --------------------------------------------------------------------------------------------------------
 * Lane 0 is made last, so a directory without it was never finished: what is there is empty and made again. A directory
 * that has lane 0 must have them all. */

static int open_existing(const char *path, unsigned lane, unsigned *lanes, const cake__sqlite_way_t *way, sqlite3 **db)
{
    int err = cake__sqlite_open_file(path, lane, lanes, way, db);
    if (err == CAKE_ENOTFOUND)
        cake__log(way->log, CAKE_LOG_ERROR, "%s is missing", path);
    return err == CAKE_ENOTFOUND ? CAKE_ECORRUPT : err;
}

static int check_unfinished(const char *path, unsigned lane, const cake__sqlite_way_t *way)
{
    sqlite3 *db = NULL;
    unsigned lanes = 0;
    int64_t found = 0;
    if (!cake__path_exists(path))
        return 0;
    int err = open_existing(path, lane, &lanes, way, &db);
    if (err == 0)
        err = cake__sqlite_number(db, "SELECT (SELECT count(*) FROM keyspaces) + (SELECT count(*) FROM metas)", &found);
    sqlite3_close(db);
    if (err == 0 && found != 0) {
        cake__log(way->log, CAKE_LOG_ERROR, "%s has documents, but lane-000.sqlite is missing", path);
        err = CAKE_ECORRUPT;
    }
    if (err == 0 && unlink(path) != 0)
        err = CAKE_EIO;
    return err;
}

static int make_files(const char *dir, unsigned lanes, const cake__sqlite_way_t *way)
{
    char path[CAKE__PATH_MAX];
    int err = 0;
    for (unsigned i = CAKE_STORAGE_LANES_MAX; i > 1 && err == 0; i--) {
        err = lane_path(dir, i - 1, path);
        if (err == 0)
            err = check_unfinished(path, i - 1, way);
    }
    for (unsigned i = lanes; i > 0 && err == 0; i--) {
        err = lane_path(dir, i - 1, path);
        if (err == 0)
            err = cake__sqlite_make(dir, path, i - 1, lanes, way);
    }
    return err;
}

/* The number of lanes, in a directory that has been made if need be. */
static int settle_dir(const char *dir, unsigned wanted, const cake__sqlite_way_t *way, unsigned *lanes)
{
    char path[CAKE__PATH_MAX];
    sqlite3 *db = NULL;
    int err = lane_path(dir, 0, path);
    if (err == 0 && !cake__path_exists(path))
        err = make_files(dir, wanted == 0 ? 1 : wanted, way);
    *lanes = 0;
    if (err == 0)
        err = open_existing(path, 0, lanes, way, &db);
    sqlite3_close(db);
    if (err == 0 && wanted != 0 && *lanes != wanted) {
        cake__log(way->log, CAKE_LOG_ERROR, "%s was made with %u lanes, not %u", dir, *lanes, wanted);
        err = CAKE_ECONFLICT;
    }
    return err;
}

static int open_lane(cake__sqlite_t *sqlite, unsigned number)
{
    cake__sqlite_lane_t *lane = &sqlite->lanes[number];
    const cake__sqlite_way_t way = cake__sqlite_way(sqlite);
    unsigned lanes = sqlite->lane_count;
    int err = lane_path(sqlite->dir, number, lane->path);
    return err != 0 ? err : open_existing(lane->path, number, &lanes, &way, &lane->db);
}

/* None is migrated before all of them were found to be in order. */
static int start_lane(cake__sqlite_t *sqlite, unsigned number)
{
    cake__sqlite_lane_t *lane = &sqlite->lanes[number];
    const cake__sqlite_way_t way = cake__sqlite_way(sqlite);
    int err = cake__sqlite_migrate(lane->db, lane->path, &way);
    return err != 0 ? err : cake__sqlite_writer_open(lane);
}

static int open_lanes(const char *dir, const cake__sqlite_settings_t *settings, unsigned lanes, int lock_fd,
                      cake_storage_t **storage)
{
    const cake_sqlite_options_t *options = &settings->given;
    const cake_alloc_t *alloc = cake__alloc_or_default(options->alloc);
    cake__sqlite_t *sqlite = cake__calloc(alloc, 1, sizeof *sqlite + lanes * sizeof sqlite->lanes[0]);
    if (sqlite == NULL)
        return CAKE_ENOMEM;
    sqlite->base.ops = &sqlite_ops;
    sqlite->alloc = *alloc;
    sqlite->is_relaxed = options->lose_last_writes_on_power_cut;
    if (options->vfs != NULL)
        snprintf(sqlite->vfs, sizeof sqlite->vfs, "%s", options->vfs);
    sqlite->schema = settings->schema;
    sqlite->checkpoint_pages =
        settings->checkpoint_pages != 0 ? settings->checkpoint_pages : CAKE__SQLITE_CHECKPOINT_PAGES;
    sqlite->room_step = settings->room_step != 0 ? settings->room_step : CAKE__SQLITE_ROOM_STEP;
    sqlite->lock_fd = -1;
    sqlite->lane_count = lanes;
    if (options->log != NULL)
        sqlite->log = *options->log;
    snprintf(sqlite->dir, sizeof sqlite->dir, "%s", dir);
    cake__names_init(&sqlite->names, &sqlite->alloc);
    for (unsigned i = 0; i < lanes; i++) {
        sqlite->lanes[i].storage = sqlite;
        sqlite->lanes[i].number = i;
        cake__sqlite_readers_init(&sqlite->lanes[i]);
    }
    int err = 0;
    for (unsigned i = 0; i < lanes && err == 0; i++)
        err = open_lane(sqlite, i);
    for (unsigned i = 0; i < lanes && err == 0; i++)
        err = start_lane(sqlite, i);
    if (err != 0) {
        sqlite_close(&sqlite->base);
        return err;
    }
    sqlite->lock_fd = lock_fd;
    *storage = &sqlite->base;
    return 0;
}

static int open_dir(const char *dir, const cake__sqlite_settings_t *settings, int lock_fd, cake_storage_t **storage)
{
    const cake__sqlite_way_t way = {settings->given.log, settings->given.vfs, settings->schema};
    unsigned lanes;
    int err = settle_dir(dir, settings->given.lanes, &way, &lanes);
    return err != 0 ? err : open_lanes(dir, settings, lanes, lock_fd, storage);
}

int cake__sqlite_open(const char *dir, const cake__sqlite_settings_t *settings, cake_storage_t **storage)
{
    const cake_sqlite_options_t *options = &settings->given;
    int lock_fd;
    *storage = NULL;
    if (dir == NULL || dir[0] == '\0' || options->lanes > CAKE_STORAGE_LANES_MAX || sqlite3_threadsafe() == 0)
        return CAKE_EINVAL;
    const char *vfs = options->vfs;
    if (vfs != NULL && (strlen(vfs) >= CAKE__SQLITE_VFS_MAX || sqlite3_vfs_find(vfs) == NULL))
        return CAKE_EINVAL;
    int err = cake__dir_lock(dir, options->log, &lock_fd);
    if (err != 0)
        return err;
    err = open_dir(dir, settings, lock_fd, storage);
    /* SQLite makes 32 KiB of files beside each lane: on a full disk in the room of the reserves. */
    if (err == CAKE_ENOSPC && cake__reserves_give_up(dir))
        err = open_dir(dir, settings, lock_fd, storage);
    if (err != 0)
        cake__dir_unlock(&lock_fd);
    return err;
}

int cake_sqlite_open(const char *dir, const cake_sqlite_options_t *given, cake_storage_t **storage)
{
    cake__sqlite_settings_t settings = {CAKE_SQLITE_OPTIONS_INIT, &cake__sqlite_schema, 0, 0};
    if (given != NULL && cake__options_copy(&settings.given, sizeof settings.given, given) != 0)
        return CAKE_EINVAL;
    return cake__sqlite_open(dir, &settings, storage);
}

/* ---- copying the files of another process ---------------------------------------------------------------------------
 * They are not migrated: that process may be of an older version. */

static int copy_lanes(const char *from, const char *draft, const cake_log_t *log)
{
    const cake__sqlite_way_t way = {log, NULL, &cake__sqlite_schema};
    unsigned lanes = 1;
    int err = 0;
    for (unsigned i = 0; i < lanes && err == 0; i++) {
        char path[CAKE__PATH_MAX];
        sqlite3 *db = NULL;
        unsigned count = i == 0 ? 0 : lanes; /* the first one tells */
        err = lane_path(from, i, path);
        if (err == 0)
            err = open_existing(path, i, &count, &way, &db);
        sqlite3_close(db);
        lanes = count;
        if (err == 0)
            err = copy_lane(path, i, &way, draft);
    }
    return err;
}

int cake_sqlite_copy(const char *from, const char *to, const cake_log_t *log)
{
    char draft[CAKE__PATH_MAX];
    int err = lane_path(from, 0, draft);
    if (err == 0 && !cake__path_exists(draft))
        return CAKE_ENOTFOUND;
    if (err == 0)
        err = cake__copy_begin(to, draft, log);
    return err != 0 ? err : cake__copy_end(to, draft, copy_lanes(from, draft, log), log);
}
