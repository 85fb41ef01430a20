#include "lmdb/lmdb.h"

#include "storage/dir.h"

static int lane_path(const char *dir, unsigned lane, char out[CAKE__PATH_MAX])
{
    char name[32];
    snprintf(name, sizeof name, "lane-%03u.mdb", lane);
    return cake__path_join(out, dir, name);
}

/* ---- check and backup -------------------------------------------------------------------------------------------- */

/* Every row is reached through rows, and every long one by its id as well. */
typedef struct tally {
    cake__table_ref_t ref;
    size_t by_id; /* rows whose id does not hold the key */
    uint8_t key[CAKE_KEY_MAX];
    const char *problem;
} tally_t;

static int check_row(void *arg, const cake_row_t *row)
{
    tally_t *tally = arg;
    cake_row_t same;
    if (cake_id_holds_key(&row->id))
        return 0;
    tally->by_id++;
    if (cake__lmdb_fetch_row(&tally->ref, &row->id, tally->key, &same) == 0 && cake__slice_equal(same.key, row->key))
        return 0;
    tally->problem = "a document with a long key is not found by its id";
    return CAKE_ECORRUPT;
}

static int check_keyspaces(cake__lmdb_lane_t *lane, tally_t *tally)
{
    MDB_cursor *cursor;
    MDB_val name, number;
    int from_fn = 0, code = mdb_cursor_open(tally->ref.txn, lane->tables[CAKE__TABLE_NAMES], &cursor);
    if (code != 0)
        return code;
    while ((code = mdb_cursor_get(cursor, &name, &number, MDB_NEXT)) == 0 && from_fn == 0) {
        int64_t known = cake__names_number(&lane->storage->names, cake__val_slice(name));
        if (known < 0)
            continue; /* made since */
        tally->ref.keyspace = (uint32_t)known;
        code = cake__lmdb_each_row(&tally->ref, cake__slice(NULL, 0), check_row, tally, &from_fn);
        if (code != 0)
            break;
    }
    mdb_cursor_close(cursor);
    return from_fn != 0 ? MDB_CORRUPTED : code == MDB_NOTFOUND ? 0 : code;
}

static int check_lane(cake__lmdb_lane_t *lane, char *report, size_t size)
{
    cake__lmdb_reader_t *reader;
    MDB_stat ids, large;
    size_t late = 0;
    int err = cake__lmdb_reader_take(lane, &reader);
    if (err != 0)
        return err;
    tally_t tally = {.ref = {lane, reader->txn, 0, NULL}};
    int code = check_keyspaces(lane, &tally);
    if (code == 0)
        code = mdb_stat(reader->txn, lane->tables[CAKE__TABLE_IDS], &ids);
    if (code == 0)
        code = mdb_stat(reader->txn, lane->tables[CAKE__TABLE_LARGE], &large);
    if (code == 0)
        code = cake__late_count(&tally.ref, &late);
    if (code == 0 && ids.ms_entries + late + large.ms_entries != tally.by_id) {
        tally.problem = "ids without a document";
        code = MDB_CORRUPTED;
    }
    cake__lmdb_reader_give(lane, reader);
    if (code != 0 && size > 0)
        snprintf(report, size, "%s: %s", lane->path, tally.problem != NULL ? tally.problem : mdb_strerror(code));
    return cake__lmdb_err(code);
}

static int lmdb_check(cake_storage_t *storage, char *report, size_t size)
{
    cake__lmdb_t *lmdb = cake__lmdb_of(storage);
    int err = 0;
    if (size > 0)
        report[0] = '\0';
    for (unsigned i = 0; i < lmdb->lane_count && err == 0; i++)
        err = check_lane(&lmdb->lanes[i], report, size);
    return err;
}

static int copy_env(MDB_env *env, unsigned lane, const char *dir, const cake_log_t *log)
{
    char path[CAKE__PATH_MAX], draft[CAKE__PATH_MAX];
    int err = lane_path(dir, lane, path);
    int len = snprintf(draft, sizeof draft, "%s.new", path);
    if (err != 0 || len < 0 || (size_t)len >= sizeof draft)
        return CAKE_ETOOBIG;
    int code = mdb_env_copy2(env, draft, MDB_CP_COMPACT);
    if (code != 0) {
        cake__log(log, CAKE_LOG_ERROR, "%s: %s", draft, mdb_strerror(code));
        return cake__lmdb_err(code);
    }
    return cake__file_publish(dir, draft, path, log);
}

static int backup_lane(cake__lmdb_lane_t *lane, const char *dir)
{
    cake__lmdb_reader_t *reader; /* so that the map stays where it is */
    int err = cake__lmdb_reader_take(lane, &reader);
    if (err != 0)
        return err;
    err = copy_env(lane->env, lane->number, dir, &lane->storage->log);
    cake__lmdb_reader_give(lane, reader);
    return err;
}

static int lmdb_backup(cake_storage_t *storage, const char *dir)
{
    cake__lmdb_t *lmdb = cake__lmdb_of(storage);
    char draft[CAKE__PATH_MAX];
    int err = cake__copy_begin(dir, draft, &lmdb->log);
    if (err != 0)
        return err;
    for (unsigned i = 0; i < lmdb->lane_count && err == 0; i++)
        err = backup_lane(&lmdb->lanes[i], draft);
    return cake__copy_end(dir, draft, err, &lmdb->log);
}

/* ---- the rest of the interface ----------------------------------------------------------------------------------- */

static unsigned lmdb_lanes(cake_storage_t *storage)
{
    return cake__lmdb_of(storage)->lane_count;
}

static unsigned lmdb_lane_of(cake_storage_t *storage, cake_slice_t keyspace)
{
    return cake__lane_of(keyspace, cake__lmdb_of(storage)->lane_count);
}

static int lmdb_keyspaces(cake_storage_t *storage, cake_name_fn fn, void *arg)
{
    return cake__names_each(&cake__lmdb_of(storage)->names, fn, arg);
}

static void lmdb_close(cake_storage_t *storage)
{
    cake__lmdb_t *lmdb = cake__lmdb_of(storage);
    cake_alloc_t alloc = lmdb->alloc;
    for (unsigned i = 0; i < lmdb->lane_count; i++) {
        cake__lmdb_env_close(&lmdb->lanes[i]);
        cake__lmdb_readers_destroy(&lmdb->lanes[i]);
        cake__late_free(&lmdb->lanes[i]);
    }
    cake__names_free(&lmdb->names);
    cake__dir_unlock(&lmdb->lock_fd);
    cake__free(&alloc, lmdb);
}

static const cake_storage_ops_t lmdb_ops = {
    .version = CAKE_STORAGE_VERSION,
    .flags = CAKE_STORAGE_CONCURRENT_READS,
    .lanes = lmdb_lanes,
    .lane_of = lmdb_lane_of,
    .write = cake__lmdb_write,
    .get = cake__lmdb_get,
    .fetch = cake__lmdb_fetch,
    .scan = cake__lmdb_scan,
    .metadata = cake__lmdb_metadata,
    .keyspaces = lmdb_keyspaces,
    .metas = cake__lmdb_metas,
    .check = lmdb_check,
    .close = lmdb_close,
    .backup = lmdb_backup,
};

/* ---- opening --------------------------------------------------------------------------------------------------------
 * Lane 0 is made last, so in a directory without it nothing was ever written: its other files are made again. Files
 * that hold documents are never replaced. */

static cake__lmdb_t *new_storage(const char *dir, const cake__lmdb_settings_t *settings, unsigned lanes)
{
    const cake_alloc_t *alloc = cake__alloc_or_default(settings->given.alloc);
    cake__lmdb_t *lmdb = cake__calloc(alloc, 1, sizeof *lmdb + lanes * sizeof lmdb->lanes[0]);
    if (lmdb == NULL)
        return NULL;
    lmdb->base.ops = &lmdb_ops;
    lmdb->alloc = *alloc;
    lmdb->is_relaxed = settings->given.lose_last_writes_on_power_cut;
    lmdb->map_bytes = settings->given.map_bytes == 0 ? CAKE__LMDB_MAP_BYTES : settings->given.map_bytes;
    lmdb->late_least = settings->late_least;
    lmdb->lock_fd = -1;
    lmdb->lane_count = lanes;
    if (settings->given.log != NULL)
        lmdb->log = *settings->given.log;
    snprintf(lmdb->dir, sizeof lmdb->dir, "%s", dir);
    cake__names_init(&lmdb->names, &lmdb->alloc);
    for (unsigned i = 0; i < lanes; i++) {
        lmdb->lanes[i].storage = lmdb;
        lmdb->lanes[i].number = i;
        cake__lmdb_readers_init(&lmdb->lanes[i]);
        cake__late_init(&lmdb->lanes[i]);
    }
    return lmdb;
}

static int open_lane(cake__lmdb_t *lmdb, unsigned number, unsigned *lanes)
{
    cake__lmdb_lane_t *lane = &lmdb->lanes[number];
    int err = lane_path(lmdb->dir, number, lane->path);
    return err != 0 ? err : cake__lmdb_env_open(lane, lanes);
}

static int check_unfinished(const char *dir, const char *path, unsigned number, const cake__lmdb_settings_t *settings)
{
    cake__lmdb_t *lmdb;
    cake__lmdb_lane_t *lane;
    cake__lmdb_reader_t *reader = NULL;
    MDB_stat names = {0}, metas = {0};
    unsigned lanes = 0;
    if (!cake__path_exists(path))
        return 0;
    lmdb = new_storage(dir, settings, number + 1);
    if (lmdb == NULL)
        return CAKE_ENOMEM;
    lane = &lmdb->lanes[number];
    int err = open_lane(lmdb, number, &lanes);
    if (err == 0)
        err = cake__lmdb_reader_take(lane, &reader);
    if (err == 0) {
        err = cake__lmdb_err(mdb_stat(reader->txn, lane->tables[CAKE__TABLE_NAMES], &names));
        if (err == 0)
            err = cake__lmdb_err(mdb_stat(reader->txn, lane->tables[CAKE__TABLE_METAS], &metas));
        cake__lmdb_reader_give(lane, reader);
    }
    if (err == 0 && names.ms_entries + metas.ms_entries != 0) {
        cake__log(&lmdb->log, CAKE_LOG_ERROR, "%s has documents, but lane-000.mdb is missing", path);
        err = CAKE_ECORRUPT;
    }
    lmdb_close(&lmdb->base);
    return err == 0 && unlink(path) != 0 ? CAKE_EIO : err;
}

static int make_files(const char *dir, const cake__lmdb_settings_t *settings)
{
    char path[CAKE__PATH_MAX];
    int err = 0;
    for (unsigned i = CAKE_STORAGE_LANES_MAX; i > 1 && err == 0; i--) {
        err = lane_path(dir, i - 1, path);
        if (err == 0)
            err = check_unfinished(dir, path, i - 1, settings);
    }
    unsigned lanes = settings->given.lanes == 0 ? 1 : settings->given.lanes;
    for (unsigned i = lanes; i > 0 && err == 0; i--) {
        err = lane_path(dir, i - 1, path);
        if (err == 0)
            err = cake__lmdb_make(dir, path, i - 1, lanes, settings->given.log);
    }
    return err;
}

/* The number of lanes, in a directory that has been made if need be. */
static int settle_dir(const char *dir, const cake__lmdb_settings_t *settings, unsigned *lanes)
{
    char path[CAKE__PATH_MAX];
    int err = lane_path(dir, 0, path);
    if (err == 0 && !cake__path_exists(path))
        err = make_files(dir, settings);
    if (err != 0)
        return err;
    cake__lmdb_t *lmdb = new_storage(dir, settings, 1);
    if (lmdb == NULL)
        return CAKE_ENOMEM;
    *lanes = 0;
    err = open_lane(lmdb, 0, lanes);
    lmdb_close(&lmdb->base);
    if (err == 0 && settings->given.lanes != 0 && *lanes != settings->given.lanes) {
        cake__log(settings->given.log, CAKE_LOG_ERROR, "%s was made with %u lanes, not %u", dir, *lanes,
                  settings->given.lanes);
        err = CAKE_ECONFLICT;
    }
    return err;
}

static int open_lanes(const char *dir, const cake__lmdb_settings_t *settings, unsigned lanes, int lock_fd,
                      cake_storage_t **storage)
{
    cake__lmdb_t *lmdb = new_storage(dir, settings, lanes);
    if (lmdb == NULL)
        return CAKE_ENOMEM;
    int err = 0;
    for (unsigned i = 0; i < lanes && err == 0; i++) {
        unsigned count = lanes;
        err = open_lane(lmdb, i, &count);
        if (err == 0)
            err = cake__lmdb_load_names(&lmdb->lanes[i]);
        if (err == 0)
            err = cake__reserve_open(&lmdb->lanes[i].reserve, dir, i);
    }
    if (err != 0) {
        lmdb_close(&lmdb->base);
        return err;
    }
    lmdb->lock_fd = lock_fd;
    *storage = &lmdb->base;
    return 0;
}

int cake__lmdb_open(const char *dir, const cake__lmdb_settings_t *settings, cake_storage_t **storage)
{
    unsigned lanes;
    int lock_fd;
    *storage = NULL;
    if (dir == NULL || dir[0] == '\0' || settings->given.lanes > CAKE_STORAGE_LANES_MAX)
        return CAKE_EINVAL;
    int err = cake__dir_lock(dir, settings->given.log, &lock_fd);
    if (err != 0)
        return err;
    err = settle_dir(dir, settings, &lanes);
    if (err == 0)
        err = open_lanes(dir, settings, lanes, lock_fd, storage);
    if (err != 0)
        cake__dir_unlock(&lock_fd);
    return err;
}

int cake_lmdb_open(const char *dir, const cake_lmdb_options_t *given, cake_storage_t **storage)
{
    cake__lmdb_settings_t settings = {.given = CAKE_LMDB_OPTIONS_INIT};
    if (given != NULL && cake__options_copy(&settings.given, sizeof settings.given, given) != 0)
        return CAKE_EINVAL;
    return cake__lmdb_open(dir, &settings, storage);
}

/* ---- copying the files of another process ------------------------------------------------------------------------ */

static int copy_lane(const char *from, unsigned number, const char *draft, const cake_log_t *log, unsigned *lanes)
{
    char path[CAKE__PATH_MAX];
    MDB_env *env = NULL;
    int err = lane_path(from, number, path);
    if (err == 0)
        err = cake__lmdb_recognise(path, log);
    if (err != 0)
        return err == CAKE_ENOTFOUND ? CAKE_ECORRUPT : err;
    err = cake__lmdb_open_for_copy(path, &env, lanes, log);
    if (err == 0)
        err = copy_env(env, number, draft, log);
    if (env != NULL)
        mdb_env_close(env);
    return err;
}

int cake_lmdb_copy(const char *from, const char *to, const cake_log_t *log)
{
    char draft[CAKE__PATH_MAX];
    unsigned lanes = 1;
    int err = lane_path(from, 0, draft);
    if (err == 0 && !cake__path_exists(draft))
        return CAKE_ENOTFOUND;
    if (err == 0)
        err = cake__copy_begin(to, draft, log);
    if (err != 0)
        return err;
    for (unsigned i = 0; i < lanes && err == 0; i++)
        err = copy_lane(from, i, draft, log, &lanes);
    return cake__copy_end(to, draft, err, log);
}
