/* Batches: one transaction each, so that its one sync covers every write in it. A map that is full grows, and the batch
 * begins again. */
#include "lmdb/lmdb.h"

#include <stdlib.h>
#include <sys/statvfs.h>

#include "base/bytes.h"
#include "storage/dir.h"

#define SORT_MIN           8
#define ATTEMPTS_MAX       32 /* each with a map twice as large */
#define NEARLY_FULL        (UINT64_C(4) << 20)
#define DEAD_READERS_EVERY 64 /* commits */

static int add_name(cake__lmdb_lane_t *lane, MDB_txn *txn, cake_slice_t text, cake__name_t **out)
{
    uint8_t bytes[4];
    if (lane->next_name > UINT32_MAX)
        return MDB_TXN_FULL;
    cake__store_le(bytes, (uint64_t)lane->next_name, 4);
    MDB_val key = cake__val(text.data, text.len), value = cake__val(bytes, 4);
    int code = mdb_put(txn, lane->tables[CAKE__TABLE_NAMES], &key, &value, MDB_NOOVERWRITE);
    if (code != 0)
        return code;
    if (cake__names_add(&lane->storage->names, text, lane->number, lane->next_name, out) != 0)
        return ENOMEM;
    lane->next_name++;
    return 0;
}

/* ---- the order of a batch -------------------------------------------------------------------------------------------
 * In the order of their keys, writes meet on the same pages one after another. Writes of one row keep their order. */

typedef struct turn {
    uint64_t start; /* of the key, so that it sorts */
    uint32_t at;    /* in the batch */
    uint32_t key_len;
    const uint8_t *key;
} turn_t;

static uint64_t start_of(cake_slice_t key)
{
    const uint8_t *bytes = key.data;
    uint64_t start = 0;
    for (size_t i = 0; i < 8; i++)
        start = start << 8 | (i < key.len ? bytes[i] : 0);
    return start;
}

static int compare_turns(const void *a, const void *b)
{
    const turn_t *first = a, *second = b;
    if (first->start != second->start)
        return first->start < second->start ? -1 : 1;
    int order = cake__slice_compare(cake__slice(first->key, first->key_len), cake__slice(second->key, second->key_len));
    return order != 0 ? order : first->at < second->at ? -1 : 1;
}

/* The key, which lies in the id or in its room for an erasure. */
static cake_slice_t key_of(const cake_write_t *write, char room[CAKE_ID_KEY_MAX])
{
    return write->kind == CAKE_WRITE_ERASE ? cake_id_key(&write->id, room) : write->key;
}

/* NULL: take them as they come, since it is a small batch, one of several keyspaces, or one with an erasure by an id
 * that does not hold its key, or since there is no memory for it. */
static turn_t *sort_batch(const cake_alloc_t *alloc, const cake_batch_t *batch)
{
    size_t erasures = 0;
    bool is_simple = batch->write_count >= SORT_MIN && batch->write_count <= UINT32_MAX;
    for (size_t i = 0; i < batch->write_count && is_simple; i++) {
        const cake_write_t *write = &batch->writes[i];
        is_simple = cake__slice_equal(write->keyspace, batch->writes[0].keyspace) &&
                    (write->kind != CAKE_WRITE_ERASE || cake_id_holds_key(&write->id));
        erasures += write->kind == CAKE_WRITE_ERASE;
    }
    size_t size = batch->write_count * sizeof(turn_t) + erasures * CAKE_ID_KEY_MAX;
    turn_t *turns = is_simple ? cake__malloc(alloc, size) : NULL;
    char *room = turns != NULL ? (char *)(turns + batch->write_count) : NULL;
    for (size_t i = 0; i < batch->write_count && turns != NULL; i++) {
        const cake_write_t *write = &batch->writes[i];
        cake_slice_t key = key_of(write, room);
        room += write->kind == CAKE_WRITE_ERASE ? CAKE_ID_KEY_MAX : 0;
        turns[i] = (turn_t){start_of(key), (uint32_t)i, (uint32_t)key.len, key.data};
    }
    if (turns != NULL)
        qsort(turns, batch->write_count, sizeof *turns, compare_turns);
    return turns;
}

static int write_row(cake__table_ref_t *ref, const cake_write_t *write, cake__name_t **name)
{
    cake__names_t *names = &ref->lane->storage->names;
    int code = 0;
    if (*name == NULL || !cake__slice_equal(cake__slice((*name)->text, (*name)->len), write->keyspace))
        *name = cake__names_find(names, write->keyspace);
    if (*name == NULL && write->kind == CAKE_WRITE_ERASE)
        return 0;
    if (*name == NULL)
        code = add_name(ref->lane, ref->txn, write->keyspace, name);
    if (code != 0)
        return code;
    ref->keyspace = (uint32_t)(*name)->number;
    return write->kind == CAKE_WRITE_ERASE ? cake__lmdb_erase_row(ref, &write->id) : cake__lmdb_put_row(ref, write);
}

static int write_rows(cake__lmdb_lane_t *lane, MDB_txn *txn, const cake_batch_t *batch)
{
    const cake_alloc_t *alloc = &lane->storage->alloc;
    cake__table_ref_t ref = {lane, txn, 0, NULL};
    cake__name_t *name = NULL; /* of the write before: batches seldom change keyspaces */
    if (batch->write_count == 0)
        return 0;
    int code = mdb_cursor_open(txn, lane->tables[CAKE__TABLE_ROWS], &ref.rows);
    if (code != 0)
        return code;
    turn_t *turns = sort_batch(alloc, batch);
    for (size_t i = 0; i < batch->write_count && code == 0; i++)
        code = write_row(&ref, &batch->writes[turns != NULL ? turns[i].at : i], &name);
    cake__free(alloc, turns);
    mdb_cursor_close(ref.rows);
    return code;
}

static int write_metas(cake__lmdb_lane_t *lane, MDB_txn *txn, const cake_batch_t *batch)
{
    int code = 0;
    for (size_t i = 0; i < batch->meta_count && code == 0; i++) {
        const cake_meta_write_t *meta = &batch->metas[i];
        MDB_val name = cake__val(meta->name.data, meta->name.len), value = cake__val(meta->value.data, meta->value.len);
        if (meta->value.data != NULL)
            code = mdb_put(txn, lane->tables[CAKE__TABLE_METAS], &name, &value, 0);
        else
            code = mdb_del(txn, lane->tables[CAKE__TABLE_METAS], &name, NULL);
        if (code == MDB_NOTFOUND)
            code = 0;
    }
    return code;
}

/* A process that was killed while it copied the file stays in the table of readers, and no page of since then would
 * be used again. */
static void clear_dead_readers(cake__lmdb_lane_t *lane)
{
    int dead = 0;
    if (atomic_load(&lane->commits) % DEAD_READERS_EVERY == 0 && mdb_reader_check(lane->env, &dead) == 0 && dead > 0)
        cake__log(&lane->storage->log, CAKE_LOG_INFO, "%s: %d readers of processes that have ended", lane->path, dead);
}

static int attempt(cake__lmdb_lane_t *lane, const cake_batch_t *batch)
{
    MDB_txn *txn;
    int64_t next_name = lane->next_name;
    clear_dead_readers(lane);
    int code = mdb_txn_begin(lane->env, NULL, 0, &txn);
    if (code != 0)
        return code;
    cake__late_begin(lane);
    code = write_rows(lane, txn, batch);
    if (code == 0)
        code = write_metas(lane, txn, batch);
    if (code == 0)
        code = cake__late_merge(lane, txn);
    if (code == 0)
        code = mdb_txn_commit(txn);
    else
        mdb_txn_abort(txn);
    if (code == 0)
        atomic_fetch_add(&lane->commits, 1);
    cake__late_settle(lane, code == 0);
    if (lane->next_name != next_name)
        cake__names_settle(&lane->storage->names, lane->number, code == 0);
    if (code != 0)
        lane->next_name = next_name;
    return code;
}

/* LMDB calls a write that a full disk cut short an I/O error. */
static int explain(cake__lmdb_lane_t *lane, int code)
{
    struct statvfs disk;
    int err = cake__lmdb_err(code);
    if (err == CAKE_EIO && statvfs(lane->storage->dir, &disk) == 0 &&
        (uint64_t)disk.f_bavail * disk.f_frsize < NEARLY_FULL)
        err = CAKE_ENOSPC;
    cake__log(&lane->storage->log, CAKE_LOG_ERROR, "%s: %s", lane->path, mdb_strerror(code));
    return err == CAKE_ENOTFOUND ? CAKE_EINTERNAL : err;
}

/* After a meta page could not be written, LMDB refuses all further use of the environment. */
static bool is_broken(cake__lmdb_lane_t *lane)
{
    MDB_txn *txn;
    int code = mdb_txn_begin(lane->env, NULL, MDB_RDONLY, &txn);
    if (code == 0)
        mdb_txn_abort(txn);
    return code == MDB_PANIC;
}

static int check_lanes(cake__lmdb_t *lmdb, const cake_batch_t *batch)
{
    for (size_t i = 0; i < batch->write_count && lmdb->lane_count > 1; i++) {
        if (cake__lane_of(batch->writes[i].keyspace, lmdb->lane_count) != batch->lane)
            return CAKE_EINVAL;
    }
    return 0;
}

static int write_batch(cake__lmdb_lane_t *lane, const cake_batch_t *batch)
{
    int code = attempt(lane, batch);
    for (int i = 0; i < ATTEMPTS_MAX && code == MDB_MAP_FULL; i++) {
        code = cake__lmdb_env_grow(lane);
        if (code == 0)
            code = attempt(lane, batch);
    }
    if (code == 0)
        return 0;
    int err = explain(lane, code);
    if (is_broken(lane))
        (void)cake__lmdb_env_reopen(lane);
    return err;
}

int cake__lmdb_write(cake_storage_t *storage, const cake_batch_t *batch)
{
    cake__lmdb_t *lmdb = cake__lmdb_of(storage);
    int err = cake__batch_check(batch, lmdb->lane_count);
    if (err == 0)
        err = check_lanes(lmdb, batch);
    if (err != 0 || batch->write_count + batch->meta_count == 0)
        return err;
    cake__lmdb_lane_t *lane = &lmdb->lanes[batch->lane];
    bool only_removes = cake__batch_only_removes(batch);
    if (lane->env == NULL && (err = cake__lmdb_env_reopen(lane)) != 0)
        return err;
    if (!only_removes && !cake__reserve_hold(&lane->reserve))
        return CAKE_ENOSPC;
    err = write_batch(lane, batch);
    if (err == CAKE_ENOSPC && only_removes && lane->env != NULL && cake__reserve_give_up(&lane->reserve))
        err = write_batch(lane, batch);
    return err;
}

int cake__lmdb_load_names(cake__lmdb_lane_t *lane)
{
    cake__lmdb_reader_t *reader;
    MDB_cursor *cursor = NULL;
    MDB_val key, value;
    int err = cake__lmdb_reader_take(lane, &reader);
    if (err != 0)
        return err;
    lane->next_name = 1;
    int code = mdb_cursor_open(reader->txn, lane->tables[CAKE__TABLE_NAMES], &cursor);
    while (code == 0 && err == 0 && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        bool is_sound = value.mv_size == 4 && key.mv_size > 0 && key.mv_size <= CAKE_KEYSPACE_NAME_MAX &&
                        cake__lane_of(cake__val_slice(key), lane->storage->lane_count) == lane->number;
        int64_t number = is_sound ? (int64_t)cake__load_le(value.mv_data, 4) : 0;
        err = is_sound ? cake__names_add(&lane->storage->names, cake__val_slice(key), lane->number, number, NULL)
                       : CAKE_ECORRUPT;
        lane->next_name = number >= lane->next_name ? number + 1 : lane->next_name;
    }
    if (cursor != NULL)
        mdb_cursor_close(cursor);
    cake__lmdb_reader_give(lane, reader);
    cake__names_settle(&lane->storage->names, lane->number, true);
    return err != 0 || code == MDB_NOTFOUND ? err : cake__lmdb_err(code);
}
