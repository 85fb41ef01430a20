#include "lmdb/lmdb.h"

#include "storage/dir.h"

#define LEAST_BYTES   4096 /* less than the two meta pages of any environment */
#define MAGIC_AT      16   /* in the first page, behind the page header */
#define MAGIC         UINT32_C(0xbeefc0de)
#define MAP_BYTES_MAX (UINT64_C(1) << 46)

static const char *const table_names[CAKE__TABLES] = {"about", "names", "rows",   "ids",
                                                      "large", "metas", "late-0", "late-1"};

int cake__lmdb_err(int code)
{
    switch (code) {
    case 0:
        return 0;
    case MDB_NOTFOUND:
        return CAKE_ENOTFOUND;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_INCOMPATIBLE:
        return CAKE_ECORRUPT;
    case MDB_VERSION_MISMATCH:
        return CAKE_EVERSION;
    case MDB_READERS_FULL:
    case EAGAIN:
    case EBUSY:
        return CAKE_EBUSY;
    case MDB_MAP_FULL:
        return CAKE_ENOSPC;
    case MDB_TXN_FULL:
        return CAKE_ETOOBIG;
    case MDB_PANIC:
        return CAKE_EIO;
    default:
        return code > 0 ? cake__err_of_errno(code) : CAKE_EINTERNAL;
    }
}

static int refuse(const char *path, int err, const char *why, const cake_log_t *log)
{
    cake__log(log, CAKE_LOG_ERROR, "%s: %s", path, why);
    return err;
}

int cake__lmdb_recognise(const char *path, const cake_log_t *log)
{
    uint8_t header[MAGIC_AT + 4];
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return CAKE_ENOTFOUND;
    if (fd < 0)
        return refuse(path, CAKE_EIO, strerror(errno), log);
    ssize_t got = pread(fd, header, sizeof header, 0);
    bool is_whole = fstat(fd, &info) == 0 && info.st_size >= LEAST_BYTES && got == (ssize_t)sizeof header;
    uint32_t magic = 0;
    close(fd);
    memcpy(&magic, header + MAGIC_AT, is_whole ? 4 : 0); /* LMDB files have the byte order of their machine */
    return magic == MAGIC ? 0 : refuse(path, CAKE_ECORRUPT, "not an LMDB file, or damaged", log);
}

static int open_env(const char *path, uint64_t map_bytes, unsigned flags, MDB_env **env)
{
    int code = mdb_env_create(env);
    if (code != 0)
        return code;
    code = mdb_env_set_maxdbs(*env, CAKE__TABLES);
    if (code == 0)
        code = mdb_env_set_maxreaders(*env, CAKE__LMDB_READERS);
    if (code == 0)
        code = mdb_env_set_mapsize(*env, map_bytes);
    if (code == 0)
        code = mdb_env_open(*env, path, MDB_NOSUBDIR | MDB_NOTLS | flags, 0666);
    if (code != 0) {
        mdb_env_close(*env);
        *env = NULL;
    }
    return code;
}

static int put_number(MDB_txn *txn, MDB_dbi table, const char *name, uint32_t number)
{
    uint8_t bytes[4] = {(uint8_t)number, (uint8_t)(number >> 8), (uint8_t)(number >> 16), (uint8_t)(number >> 24)};
    MDB_val key = cake__val(name, strlen(name)), value = cake__val(bytes, 4);
    return mdb_put(txn, table, &key, &value, 0);
}

static int get_number(MDB_txn *txn, MDB_dbi table, const char *name, uint32_t *number)
{
    MDB_val key = cake__val(name, strlen(name)), value;
    int code = mdb_get(txn, table, &key, &value);
    if (code != 0)
        return code;
    const uint8_t *bytes = value.mv_data;
    if (value.mv_size != 4)
        return MDB_CORRUPTED;
    *number = (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    return 0;
}

static int open_table(MDB_txn *txn, cake__lmdb_table_t table, unsigned flags, MDB_dbi *out)
{
    bool has_numbers = table == CAKE__TABLE_LATE_0 || table == CAKE__TABLE_LATE_1;
    return mdb_dbi_open(txn, table_names[table], flags | (has_numbers ? MDB_INTEGERKEY : 0), out);
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static int fill_new(MDB_env *env, unsigned lane, unsigned lanes)
{
    MDB_txn *txn;
    MDB_dbi tables[CAKE__TABLES];
    int code = mdb_txn_begin(env, NULL, 0, &txn);
    if (code != 0)
        return code;
    for (int i = 0; i < CAKE__TABLES && code == 0; i++)
        code = open_table(txn, (cake__lmdb_table_t)i, MDB_CREATE, &tables[i]);
    if (code == 0)
        code = put_number(txn, tables[CAKE__TABLE_ABOUT], "version", CAKE__LMDB_VERSION);
    if (code == 0)
        code = put_number(txn, tables[CAKE__TABLE_ABOUT], "lane", lane);
    if (code == 0)
        code = put_number(txn, tables[CAKE__TABLE_ABOUT], "lanes", lanes);
    if (code == 0)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return code;
}

int cake__lmdb_make(const char *dir, const char *path, unsigned lane, unsigned lanes, const cake_log_t *log)
{
    char draft[CAKE__PATH_MAX], lock[CAKE__PATH_MAX];
    MDB_env *env = NULL;
    int len = snprintf(draft, sizeof draft, "%s.new", path),
        lock_len = snprintf(lock, sizeof lock, "%s.new-lock", path);
    if (len < 0 || lock_len < 0 || (size_t)lock_len >= sizeof lock)
        return CAKE_ETOOBIG;
    (void)unlink(draft); /* of an attempt that was cut short */
    int code = open_env(draft, CAKE__LMDB_MAP_BYTES, 0, &env);
    if (code == 0)
        code = fill_new(env, lane, lanes);
    if (env != NULL)
        mdb_env_close(env);
    (void)unlink(lock);
    if (code != 0)
        return refuse(draft, cake__lmdb_err(code), mdb_strerror(code), log);
    return cake__file_publish(dir, draft, path, log);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* Pages that were never used may be missing at the end, which is as it should be; a file that was cut short looks the
 * same. Touching such a page would end the process, so they are filled up with zeroes, and damage then is an error. */
static int fill_up(cake__lmdb_lane_t *lane, off_t *size_before)
{
    MDB_envinfo info;
    MDB_stat stat_of_main;
    struct stat file;
    int fd, code = mdb_env_info(lane->env, &info);
    if (code == 0)
        code = mdb_env_stat(lane->env, &stat_of_main);
    if (code == 0)
        code = mdb_env_get_fd(lane->env, &fd);
    if (code != 0)
        return code;
    if (fstat(fd, &file) != 0)
        return errno;
    *size_before = file.st_size;
    uint64_t need;
    if (__builtin_mul_overflow((uint64_t)info.me_last_pgno + 1, stat_of_main.ms_psize, &need) || need > MAP_BYTES_MAX)
        return MDB_CORRUPTED;
    if ((uint64_t)file.st_size < need && ftruncate(fd, (off_t)need) != 0)
        return errno;
    return 0;
}

/* An older file gets what it has not in the same transaction that reads it. */
static int open_tables(cake__lmdb_lane_t *lane, MDB_txn *txn, uint32_t version)
{
    int code = 0;
    for (int i = 0; i < CAKE__TABLES && code == 0; i++) {
        bool is_new = version < 2 && (i == CAKE__TABLE_LATE_0 || i == CAKE__TABLE_LATE_1);
        code = open_table(txn, (cake__lmdb_table_t)i, is_new ? MDB_CREATE : 0, &lane->tables[i]);
    }
    if (code == 0 && version < 3)
        code = cake__lmdb_drop_held_ids(lane, txn);
    if (code == 0 && version < CAKE__LMDB_VERSION)
        code = put_number(txn, lane->tables[CAKE__TABLE_ABOUT], "version", CAKE__LMDB_VERSION);
    return code == 0 ? cake__late_load(lane, txn) : code;
}

/* Once the file is found to be in order. The handles of tables stay open only when the transaction that opened them
 * commits. */
static int open_or_migrate(cake__lmdb_lane_t *lane, MDB_txn *txn, uint32_t version)
{
    int code = open_tables(lane, txn, version);
    while (code == MDB_MAP_FULL && version < CAKE__LMDB_VERSION) {
        mdb_txn_abort(txn);
        txn = NULL;
        code = cake__lmdb_env_grow(lane);
        if (code == 0)
            code = mdb_txn_begin(lane->env, NULL, 0, &txn);
        if (code == 0)
            code = open_tables(lane, txn, version);
    }
    if (code == 0)
        code = mdb_txn_commit(txn);
    else if (txn != NULL)
        mdb_txn_abort(txn);
    if (code == 0 && version < CAKE__LMDB_VERSION)
        cake__log(&lane->storage->log, CAKE_LOG_INFO, "%s: now of version %u", lane->path, CAKE__LMDB_VERSION);
    return code;
}

static int read_about(cake__lmdb_lane_t *lane, unsigned *lanes)
{
    const cake_log_t *log = &lane->storage->log;
    uint32_t version = 0, number = 0, count = 0;
    MDB_txn *txn;
    int code = mdb_txn_begin(lane->env, NULL, 0, &txn);
    if (code != 0)
        return refuse(lane->path, cake__lmdb_err(code), mdb_strerror(code), log);
    code = open_table(txn, CAKE__TABLE_ABOUT, 0, &lane->tables[CAKE__TABLE_ABOUT]);
    if (code == 0)
        code = get_number(txn, lane->tables[CAKE__TABLE_ABOUT], "version", &version);
    if (code == 0)
        code = get_number(txn, lane->tables[CAKE__TABLE_ABOUT], "lane", &number);
    if (code == 0)
        code = get_number(txn, lane->tables[CAKE__TABLE_ABOUT], "lanes", &count);
    bool is_lane =
        number == lane->number && count >= 1 && count <= CAKE_STORAGE_LANES_MAX && (*lanes == 0 || count == *lanes);
    bool is_ours = code == 0 && version <= CAKE__LMDB_VERSION && is_lane;
    if (is_ours)
        code = open_or_migrate(lane, txn, version);
    else
        mdb_txn_abort(txn);
    if (code == MDB_NOTFOUND)
        return refuse(lane->path, CAKE_ECORRUPT, "a database of another program, or damaged", log);
    if (code != 0)
        return refuse(lane->path, cake__lmdb_err(code), mdb_strerror(code), log);
    if (version > CAKE__LMDB_VERSION)
        return refuse(lane->path, CAKE_EVERSION, "made by a newer version", log);
    if (!is_lane)
        return refuse(lane->path, CAKE_ECORRUPT, "is not the lane that its name says", log);
    *lanes = count;
    return 0;
}

int cake__lmdb_env_open(cake__lmdb_lane_t *lane, unsigned *lanes)
{
    const cake_log_t *log = &lane->storage->log;
    off_t size_before = -1;
    int err = cake__lmdb_recognise(lane->path, log);
    if (err == CAKE_ENOTFOUND)
        return refuse(lane->path, CAKE_ECORRUPT, "is missing", log);
    if (err != 0)
        return err;
    unsigned flags = lane->storage->is_relaxed ? MDB_NOMETASYNC : 0;
    int code = open_env(lane->path, lane->storage->map_bytes, flags, &lane->env);
    if (code == 0)
        code = fill_up(lane, &size_before);
    if (code != 0) {
        cake__lmdb_env_close(lane);
        return refuse(lane->path, cake__lmdb_err(code), mdb_strerror(code), log);
    }
    err = read_about(lane, lanes);
    if (err != 0) {
        cake__lmdb_env_close(lane);
        if (truncate(lane->path, size_before) != 0)
            cake__log(log, CAKE_LOG_WARN, "%s: %s", lane->path, strerror(errno));
    }
    return err;
}

int cake__lmdb_open_for_copy(const char *path, MDB_env **env, unsigned *lanes, const cake_log_t *log)
{
    MDB_txn *txn = NULL;
    MDB_dbi about;
    uint32_t count = 0;
    int code = open_env(path, 0, MDB_RDONLY, env); /* 0: the size of the map is in the file */
    if (code == 0)
        code = mdb_txn_begin(*env, NULL, MDB_RDONLY, &txn);
    if (code == 0)
        code = open_table(txn, CAKE__TABLE_ABOUT, 0, &about);
    if (code == 0)
        code = get_number(txn, about, "lanes", &count);
    if (txn != NULL)
        mdb_txn_abort(txn);
    if (code == 0 && (count < 1 || count > CAKE_STORAGE_LANES_MAX))
        code = MDB_CORRUPTED;
    *lanes = count;
    if (code != 0)
        return refuse(path, code == MDB_NOTFOUND ? CAKE_ECORRUPT : cake__lmdb_err(code), mdb_strerror(code), log);
    return 0;
}

void cake__lmdb_env_close(cake__lmdb_lane_t *lane)
{
    cake__lmdb_readers_close(lane);
    if (lane->env != NULL)
        mdb_env_close(lane->env);
    lane->env = NULL;
}

/* The map may move: readers in it are waited for. */
int cake__lmdb_env_grow(cake__lmdb_lane_t *lane)
{
    MDB_envinfo info;
    cake__lmdb_readers_stop(lane);
    int code = mdb_env_info(lane->env, &info);
    uint64_t bytes = (uint64_t)info.me_mapsize * 2;
    if (code == 0)
        code = bytes > MAP_BYTES_MAX ? ENOMEM : mdb_env_set_mapsize(lane->env, bytes);
    cake__lmdb_readers_go(lane);
    if (code != 0)
        cake__log(&lane->storage->log, CAKE_LOG_ERROR, "%s: the map cannot grow: %s", lane->path, mdb_strerror(code));
    return code;
}

/* A meta page that could not be written leaves the environment unusable in memory, though not on disk. */
int cake__lmdb_env_reopen(cake__lmdb_lane_t *lane)
{
    unsigned lanes = lane->storage->lane_count;
    cake__lmdb_readers_stop(lane);
    cake__lmdb_env_close(lane);
    int err = cake__lmdb_env_open(lane, &lanes);
    cake__lmdb_readers_go(lane);
    return err;
}
