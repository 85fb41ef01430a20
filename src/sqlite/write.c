/* The writer of a lane: a batch is a transaction, so that its one sync covers every write in it (group commit is what
 * the caller puts into a batch).
 *
 * A batch commits only once the database's file has room for all of its pages. So the log can be merged on a full disk,
 * too, and begins anew in its own place: there, deletes go on without any room.
 *
 * The log is merged into the database here, by the lane's thread, every so many pages; SQLite's own trigger is off.
 * A reader that stays in one snapshot for long keeps the log from starting over; past WAL_PAGES_MAX we wait a little
 * for it, in the hope that the log can be cut. */
#include "sqlite/sqlite.h"

#define WAL_PAGES_MAX      64000 /* 256 MiB */
#define CHECKPOINT_RETRY   1000  /* pages until the next attempt, when one did not finish */
#define CHECKPOINT_WAIT_MS 200
#define JOURNAL_BYTES_KEPT "67108864"
#define WRITER_CACHE_KIB   "65536"
#define FRAME_HEAD_BYTES   24

static const char *const texts[CAKE__WRITE_STATEMENTS] = {
    [CAKE__WRITE_BEGIN] = "BEGIN IMMEDIATE",
    [CAKE__WRITE_COMMIT] = "COMMIT",
    [CAKE__WRITE_ROLLBACK] = "ROLLBACK",
    [CAKE__WRITE_ROW] = ("INSERT INTO documents (keyspace, key, hlc, actor, seq, id, value)"
                         " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (keyspace, key) DO UPDATE SET"
                         " hlc = excluded.hlc, actor = excluded.actor, seq = excluded.seq, value = excluded.value"),
    [CAKE__WRITE_ERASE_KEY] = "DELETE FROM documents WHERE keyspace = ?1 AND key = ?2",
    [CAKE__WRITE_ERASE_ID] = "DELETE FROM documents WHERE keyspace = ?1 AND id = ?2",
    [CAKE__WRITE_KEYSPACE] = "INSERT INTO keyspaces (name) VALUES (?1)",
    [CAKE__WRITE_META] = ("INSERT INTO metas (name, value) VALUES (?1, ?2)"
                          " ON CONFLICT (name) DO UPDATE SET value = excluded.value"),
    [CAKE__WRITE_META_REMOVAL] = "DELETE FROM metas WHERE name = ?1",
    [CAKE__WRITE_PAGES] = "PRAGMA page_count",
};

static int step(cake__sqlite_lane_t *lane, cake__write_statement_t which)
{
    sqlite3_stmt *statement = lane->statements[which];
    int code = sqlite3_step(statement);
    int err = cake__sqlite_err(lane->db, code);
    if (err != 0)
        cake__log(&lane->storage->log, CAKE_LOG_ERROR, "%s: %s", lane->path, sqlite3_errmsg(lane->db));
    sqlite3_reset(statement);
    return err;
}

/* Slices live until the statement is reset. An empty one is an empty blob, never NULL. */
static int bind_bytes(sqlite3_stmt *statement, int at, cake_slice_t bytes)
{
    int code = bytes.len == 0 ? sqlite3_bind_zeroblob(statement, at, 0)
                              : sqlite3_bind_blob64(statement, at, bytes.data, bytes.len, SQLITE_STATIC);
    return cake__sqlite_err(NULL, code);
}

static int add_keyspace(cake__sqlite_lane_t *lane, cake_slice_t text, cake__name_t **out)
{
    sqlite3_stmt *statement = lane->statements[CAKE__WRITE_KEYSPACE];
    sqlite3_bind_text(statement, 1, text.data, (int)text.len, SQLITE_STATIC);
    int err = step(lane, CAKE__WRITE_KEYSPACE);
    if (err != 0)
        return err;
    return cake__names_add(&lane->storage->names, text, lane->number, sqlite3_last_insert_rowid(lane->db), out);
}

static int erase(cake__sqlite_lane_t *lane, int64_t keyspace, const cake_id_t *id)
{
    char room[CAKE_ID_KEY_MAX];
    bool is_held = cake_id_holds_key(id);
    cake__write_statement_t which = is_held ? CAKE__WRITE_ERASE_KEY : CAKE__WRITE_ERASE_ID;
    sqlite3_bind_int64(lane->statements[which], 1, keyspace);
    (void)bind_bytes(lane->statements[which], 2,
                     is_held ? cake_id_key(id, room) : cake__slice(id->bytes, sizeof id->bytes));
    return step(lane, which);
}

static int put(cake__sqlite_lane_t *lane, int64_t keyspace, const cake_write_t *write)
{
    sqlite3_stmt *statement = lane->statements[CAKE__WRITE_ROW];
    sqlite3_bind_int64(statement, 1, keyspace);
    (void)bind_bytes(statement, 2, write->key);
    sqlite3_bind_int64(statement, 3, (int64_t)write->hlc);
    sqlite3_bind_int64(statement, 4, (int64_t)write->dot.actor);
    sqlite3_bind_int64(statement, 5, (int64_t)write->dot.seq);
    if (cake_id_holds_key(&write->id))
        sqlite3_bind_null(statement, 6);
    else
        (void)bind_bytes(statement, 6, cake__slice(write->id.bytes, sizeof write->id.bytes));
    int err = 0; /* a value that SQLite was built not to take must not become a tombstone */
    if (write->kind == CAKE_WRITE_TOMBSTONE)
        sqlite3_bind_null(statement, 7);
    else
        err = bind_bytes(statement, 7, write->value);
    return err != 0 ? err : step(lane, CAKE__WRITE_ROW);
}

static int write_rows(cake__sqlite_lane_t *lane, const cake_batch_t *batch, bool *has_new_names)
{
    cake__name_t *name = NULL; /* of the write before: batches seldom change keyspaces */
    for (size_t i = 0; i < batch->write_count; i++) {
        const cake_write_t *write = &batch->writes[i];
        if (name == NULL || !cake__slice_equal(cake__slice(name->text, name->len), write->keyspace))
            name = cake__names_find(&lane->storage->names, write->keyspace);
        unsigned number = name != NULL ? name->lane : cake__lane_of(write->keyspace, lane->storage->lane_count);
        if (number != lane->number)
            return CAKE_EINVAL;
        int err = 0;
        if (write->kind == CAKE_WRITE_ERASE) {
            err = name == NULL ? 0 : erase(lane, name->number, &write->id);
        } else {
            *has_new_names = *has_new_names || name == NULL;
            if (name == NULL)
                err = add_keyspace(lane, write->keyspace, &name);
            if (err == 0)
                err = put(lane, name->number, write);
        }
        if (err != 0)
            return err;
    }
    return 0;
}

static int write_metas(cake__sqlite_lane_t *lane, const cake_batch_t *batch)
{
    for (size_t i = 0; i < batch->meta_count; i++) {
        const cake_meta_write_t *meta = &batch->metas[i];
        bool is_removal = meta->value.data == NULL;
        cake__write_statement_t which = is_removal ? CAKE__WRITE_META_REMOVAL : CAKE__WRITE_META;
        int err = bind_bytes(lane->statements[which], 1, meta->name);
        if (err == 0 && !is_removal)
            err = bind_bytes(lane->statements[which], 2, meta->value);
        if (err == 0)
            err = step(lane, which);
        if (err != 0)
            return err;
    }
    return 0;
}

/* A checkpoint that fails loses nothing: the log still has it all. True: all of it was merged, the log starts over. */
static bool checkpoint(cake__sqlite_lane_t *lane)
{
    int pages = 0, merged = 0,
        mode = lane->wal_pages < WAL_PAGES_MAX ? SQLITE_CHECKPOINT_PASSIVE : SQLITE_CHECKPOINT_RESTART;
    cake__sqlite_readers_let_go(lane);
    sqlite3_busy_timeout(lane->db, CHECKPOINT_WAIT_MS);
    int code = sqlite3_wal_checkpoint_v2(lane->db, NULL, mode, &pages, &merged);
    sqlite3_busy_timeout(lane->db, CAKE__SQLITE_BUSY_MS);
    bool is_finished = code == SQLITE_OK && pages == merged;
    lane->room_pages = 0; /* SQLite has cut the file to what it needs */
    lane->checkpoint_at = is_finished ? lane->storage->checkpoint_pages : lane->wal_pages + CHECKPOINT_RETRY;
    if (code != SQLITE_OK && code != SQLITE_BUSY)
        cake__log(&lane->storage->log, CAKE_LOG_WARN, "%s: checkpoint: %s", lane->path, sqlite3_errmsg(lane->db));
    return is_finished;
}

static int note_wal_pages(void *arg, sqlite3 *db, const char *name, int pages)
{
    cake__sqlite_lane_t *lane = arg;
    (void)db;
    (void)name;
    if (pages < lane->wal_pages)
        lane->checkpoint_at = lane->storage->checkpoint_pages; /* the log has started over */
    lane->wal_pages = pages;
    return SQLITE_OK;
}

/* Ahead of need. In the database's file it is also for batches that only remove, which may split a few pages. */
static int64_t spare_bytes(const cake__sqlite_lane_t *lane)
{
    return lane->storage->room_step / 4;
}

/* The log grows ahead of the commits: one that lengthens its file has the file system write its own log as well,
 * which takes as long as the commit. Where there is no room for it, the commit says so. */
static void lengthen_log(cake__sqlite_lane_t *lane)
{
    int64_t bytes = lane->wal_pages * (lane->page_bytes + FRAME_HEAD_BYTES) + spare_bytes(lane);
    int step_bytes = lane->storage->room_step;
    sqlite3_file *log = NULL;
    if (bytes <= lane->log_bytes)
        return;
    lane->log_bytes = (bytes + step_bytes - 1) / step_bytes * step_bytes;
    int code = sqlite3_file_control(lane->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
    if (code != SQLITE_OK || log == NULL || log->pMethods == NULL)
        return;
    (void)log->pMethods->xFileControl(log, SQLITE_FCNTL_CHUNK_SIZE, &step_bytes);
    (void)log->pMethods->xFileControl(log, SQLITE_FCNTL_SIZE_HINT, &bytes);
}

static int64_t pages_of_file(cake__sqlite_lane_t *lane)
{
    sqlite3_file *file = NULL;
    sqlite3_int64 bytes = 0;
    int code = sqlite3_file_control(lane->db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
    if (code == SQLITE_OK && file != NULL && file->pMethods != NULL)
        code = file->pMethods->xFileSize(file, &bytes);
    return code == SQLITE_OK ? bytes / lane->page_bytes : 0;
}

/* Room in the database's file for what the transaction under way has made of it. On a full disk without any to
 * spare. */
static int make_room(cake__sqlite_lane_t *lane)
{
    sqlite3_stmt *statement = lane->statements[CAKE__WRITE_PAGES];
    int code = sqlite3_step(statement);
    int64_t pages = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_reset(statement);
    if (code != SQLITE_ROW)
        return cake__sqlite_err(lane->db, code);
    if (pages <= lane->room_pages)
        return 0;
    sqlite3_int64 bytes = pages * lane->page_bytes + spare_bytes(lane);
    bool has_grown = sqlite3_file_control(lane->db, "main", SQLITE_FCNTL_SIZE_HINT, &bytes) == SQLITE_OK;
    lane->room_pages = has_grown ? bytes / lane->page_bytes : pages_of_file(lane);
    if (pages <= lane->room_pages)
        return 0;
    int number = 0;
    (void)sqlite3_file_control(lane->db, "main", SQLITE_FCNTL_LAST_ERRNO, &number);
    return number == 0 || number == ENOSPC || number == EDQUOT ? CAKE_ENOSPC : CAKE_EIO;
}

static int commit_batch(cake__sqlite_lane_t *lane, const cake_batch_t *batch, bool only_removes)
{
    bool has_new_names = false;
    int err = step(lane, CAKE__WRITE_BEGIN);
    if (err != 0)
        return err;
    err = write_rows(lane, batch, &has_new_names);
    if (err == 0)
        err = write_metas(lane, batch);
    if (err == 0 && !only_removes)
        err = make_room(lane);
    if (err == 0) {
        atomic_fetch_add(&lane->commits, 1);
        err = step(lane, CAKE__WRITE_COMMIT);
        atomic_fetch_add(&lane->commits, 1);
    }
    if (err != 0 && sqlite3_get_autocommit(lane->db) == 0)
        (void)step(lane, CAKE__WRITE_ROLLBACK);
    if (has_new_names)
        cake__names_settle(&lane->storage->names, lane->number, err == 0);
    return err;
}

/* A full disk may be full of log: once that is merged, its space is used again. Removals have a reserve beside. */
static int write_batch(cake__sqlite_lane_t *lane, const cake_batch_t *batch)
{
    bool only_removes = cake__batch_only_removes(batch);
    if (!only_removes && !cake__reserve_hold(&lane->reserve))
        return CAKE_ENOSPC;
    lengthen_log(lane);
    int err = commit_batch(lane, batch, only_removes);
    if (err == CAKE_ENOSPC && checkpoint(lane))
        err = commit_batch(lane, batch, only_removes);
    if (err == CAKE_ENOSPC && only_removes && cake__reserve_give_up(&lane->reserve))
        err = commit_batch(lane, batch, only_removes);
    return err;
}

int cake__sqlite_write(cake_storage_t *storage, const cake_batch_t *batch)
{
    cake__sqlite_t *sqlite = cake__sqlite_of(storage);
    int err = cake__batch_check(batch, sqlite->lane_count);
    if (err != 0 || batch->write_count + batch->meta_count == 0)
        return err;
    cake__sqlite_lane_t *lane = &sqlite->lanes[batch->lane];
    err = write_batch(lane, batch);
    if (err != 0)
        return err;
    if (lane->wal_pages >= lane->checkpoint_at)
        (void)checkpoint(lane);
    return 0;
}

/* ---- opening and closing ----------------------------------------------------------------------------------------- */

static int load_names(cake__sqlite_lane_t *lane)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(lane->db, "SELECT number, name FROM keyspaces", -1, &statement, NULL), err = 0;
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(statement);
        if (code != SQLITE_ROW)
            break;
        cake_slice_t text = {sqlite3_column_text(statement, 1), (size_t)sqlite3_column_bytes(statement, 1)};
        if (text.len == 0 || text.len > CAKE_KEYSPACE_NAME_MAX ||
            cake__lane_of(text, lane->storage->lane_count) != lane->number)
            err = CAKE_ECORRUPT;
        if (err == 0)
            err = cake__names_add(&lane->storage->names, text, lane->number, sqlite3_column_int64(statement, 0), NULL);
        if (err != 0)
            break;
    }
    sqlite3_finalize(statement);
    cake__names_settle(&lane->storage->names, lane->number, true);
    return err != 0 ? err : cake__sqlite_err(lane->db, code);
}

int cake__sqlite_writer_open(cake__sqlite_lane_t *lane)
{
    const cake_log_t *log = &lane->storage->log;
    (void)sqlite3_file_control(lane->db, "main", SQLITE_FCNTL_CHUNK_SIZE, &lane->storage->room_step);
    int err = cake__sqlite_exec(lane->db,
                                lane->storage->is_relaxed ? "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"
                                                          : "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL",
                                log);
    if (err == 0)
        err = cake__sqlite_exec(lane->db,
                                "PRAGMA wal_autocheckpoint = 0; PRAGMA secure_delete = FAST;"
                                " PRAGMA journal_size_limit = " JOURNAL_BYTES_KEPT
                                "; PRAGMA cache_size = -" WRITER_CACHE_KIB,
                                log);
    if (err == 0)
        err = cake__sqlite_number(lane->db, "PRAGMA page_size", &lane->page_bytes);
    if (err == 0)
        err = cake__sqlite_prepare(lane->db, texts, CAKE__WRITE_STATEMENTS, lane->statements, log);
    lane->checkpoint_at = lane->storage->checkpoint_pages;
    sqlite3_wal_hook(lane->db, note_wal_pages, lane);
    if (err == 0)
        err = cake__reserve_open(&lane->reserve, lane->storage->dir, lane->number);
    return err != 0 ? err : load_names(lane);
}

void cake__sqlite_writer_close(cake__sqlite_lane_t *lane)
{
    for (size_t i = 0; i < CAKE__WRITE_STATEMENTS; i++)
        sqlite3_finalize(lane->statements[i]);
    sqlite3_close(lane->db);
    lane->db = NULL;
}
