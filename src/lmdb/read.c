/* Reads: each in one read transaction, so each sees whole batches only. Rows are handed to callbacks where they lie
 * in the map, without a copy; only get() copies, into the document. */
#include "lmdb/lmdb.h"

#include <errno.h>

#include "base/bytes.h"

/* ---- slots ------------------------------------------------------------------------------------------------------- */

void cake__lmdb_readers_init(cake__lmdb_lane_t *lane)
{
    for (unsigned i = 0; i < CAKE__LMDB_SLOTS; i++) {
        cake__lock_init(&lane->readers[i].lock);
        atomic_init(&lane->readers[i].since, UINT64_MAX);
    }
}

void cake__lmdb_readers_destroy(cake__lmdb_lane_t *lane)
{
    for (unsigned i = 0; i < CAKE__LMDB_SLOTS; i++)
        cake__lock_destroy(&lane->readers[i].lock);
}

void cake__lmdb_readers_stop(cake__lmdb_lane_t *lane)
{
    for (unsigned i = 0; i < CAKE__LMDB_SLOTS; i++)
        cake__lock_take(&lane->readers[i].lock);
}

void cake__lmdb_readers_go(cake__lmdb_lane_t *lane)
{
    for (unsigned i = 0; i < CAKE__LMDB_SLOTS; i++)
        cake__lock_give(&lane->readers[i].lock);
}

/* A reader that has not stored `since` yet begins its transaction later than this. */
uint64_t cake__lmdb_readers_oldest(cake__lmdb_lane_t *lane)
{
    uint64_t oldest = atomic_load(&lane->commits);
    for (unsigned i = 0; i < CAKE__LMDB_SLOTS; i++) {
        uint64_t since = atomic_load(&lane->readers[i].since);
        oldest = since < oldest ? since : oldest;
    }
    return oldest;
}

static void drop_reader(cake__lmdb_reader_t *reader)
{
    if (reader->txn != NULL)
        mdb_txn_abort(reader->txn);
    reader->txn = NULL;
}

void cake__lmdb_readers_close(cake__lmdb_lane_t *lane)
{
    for (unsigned i = 0; i < CAKE__LMDB_SLOTS; i++)
        drop_reader(&lane->readers[i]);
}

/* LMDB takes a snapshot by reading the last transaction's number, then the meta page of that parity. A reader that
 * is held up in between may find the page of two transactions later there, before that one is committed, and the
 * next read would go back in time. The page was its own while no transaction two ahead shows. */
static int settle_snapshot(cake__lmdb_lane_t *lane, MDB_txn *txn)
{
    MDB_envinfo info;
    int status = mdb_env_info(lane->env, &info);
    while (status == 0 && info.me_last_txnid > mdb_txn_id(txn) + 1) {
        mdb_txn_reset(txn);
        status = mdb_txn_renew(txn);
        if (status == 0)
            status = mdb_env_info(lane->env, &info);
    }
    return status;
}

/* Each thread looks for a free slot from another one on, which its stack tells: so they seldom meet. */
static cake__lmdb_reader_t *take_slot(cake__lmdb_lane_t *lane)
{
    uintptr_t place = (uintptr_t)&lane; /* on this thread's stack */
    unsigned first = (unsigned)(cake__mix64(place >> 16) % CAKE__LMDB_SLOTS);
    for (unsigned i = 0; i < CAKE__LMDB_SLOTS; i++) {
        cake__lmdb_reader_t *reader = &lane->readers[(first + i) % CAKE__LMDB_SLOTS];
        if (cake__lock_try(&reader->lock))
            return reader;
    }
    cake__lock_take(&lane->readers[first].lock);
    return &lane->readers[first];
}

int cake__lmdb_reader_take(cake__lmdb_lane_t *lane, cake__lmdb_reader_t **out)
{
    cake__lmdb_reader_t *reader = take_slot(lane);
    int code = EIO; /* it could not be opened again */
    atomic_store(&reader->since, atomic_load(&lane->commits));
    if (lane->env != NULL)
        code =
            reader->txn == NULL ? mdb_txn_begin(lane->env, NULL, MDB_RDONLY, &reader->txn) : mdb_txn_renew(reader->txn);
    if (code == 0)
        code = settle_snapshot(lane, reader->txn);
    *out = code == 0 ? reader : NULL;
    if (code != 0) {
        drop_reader(reader);
        atomic_store(&reader->since, UINT64_MAX);
        cake__lock_give(&reader->lock);
    }
    return cake__lmdb_err(code);
}

void cake__lmdb_reader_give(cake__lmdb_lane_t *lane, cake__lmdb_reader_t *reader)
{
    (void)lane;
    mdb_txn_reset(reader->txn);
    atomic_store_explicit(&reader->since, UINT64_MAX, memory_order_release);
    cake__lock_give(&reader->lock);
}

/* ---- reads ------------------------------------------------------------------------------------------------------- */

static int begin(cake_storage_t *storage, cake_slice_t keyspace, cake__table_ref_t *ref, cake__lmdb_reader_t **reader)
{
    cake__lmdb_t *lmdb = cake__lmdb_of(storage);
    const cake__name_t *name = cake__names_known(&lmdb->names, keyspace);
    if (name == NULL)
        return CAKE_ENOTFOUND;
    cake__lmdb_lane_t *lane = &lmdb->lanes[name->lane];
    int err = cake__lmdb_reader_take(lane, reader);
    if (err == 0)
        *ref = (cake__table_ref_t){lane, (*reader)->txn, (uint32_t)name->number, NULL};
    return err;
}

static int finish(const cake__table_ref_t *ref, cake__lmdb_reader_t *reader, int code, int from_fn)
{
    if (code != 0 && code != MDB_NOTFOUND)
        cake__log(&ref->lane->storage->log, CAKE_LOG_ERROR, "%s: %s", ref->lane->path, mdb_strerror(code));
    cake__lmdb_reader_give(ref->lane, reader);
    return from_fn != 0 ? from_fn : cake__lmdb_err(code);
}

int cake__lmdb_get(cake_storage_t *storage, cake_slice_t keyspace, cake_slice_t key, cake_doc_t **doc)
{
    cake__table_ref_t ref;
    cake__lmdb_reader_t *reader;
    cake_row_t row;
    *doc = NULL;
    int err = begin(storage, keyspace, &ref, &reader), from_doc = 0;
    if (err != 0)
        return err;
    int code = cake__lmdb_get_row(&ref, key, &row);
    if (code == 0 && row.is_tombstone) {
        code = MDB_NOTFOUND;
    } else if (code == 0) {
        *doc = cake_doc_new(&ref.lane->storage->alloc, key, row.value, row.hlc, row.dot);
        from_doc = *doc == NULL ? CAKE_ENOMEM : 0;
    }
    return finish(&ref, reader, code, from_doc);
}

int cake__lmdb_fetch(cake_storage_t *storage, cake_slice_t keyspace, const cake_id_t *ids, size_t count, cake_row_fn fn,
                     void *arg)
{
    cake__table_ref_t ref;
    cake__lmdb_reader_t *reader;
    int code = 0, from_fn = 0, err = begin(storage, keyspace, &ref, &reader);
    if (err != 0)
        return err == CAKE_ENOTFOUND ? 0 : err;
    for (size_t i = 0; i < count && code == 0 && from_fn == 0; i++) {
        cake_row_t row;
        uint8_t key[CAKE_KEY_MAX];
        code = cake__lmdb_fetch_row(&ref, &ids[i], key, &row);
        if (code == 0)
            from_fn = fn(arg, &row);
        else if (code == MDB_NOTFOUND)
            code = 0;
    }
    return finish(&ref, reader, code, from_fn);
}

/* Between the walk through all rows and the callback. done: stops the walk without being an error. */
typedef struct scan {
    const cake_scan_t *range;
    cake_row_fn fn;
    void *arg;
    size_t count;
    bool is_done;
} scan_t;

static int tell_key(const scan_t *scan, const cake_row_t *row)
{
    cake_row_t out = *row;
    out.value = cake__slice(NULL, 0);
    return scan->fn(scan->arg, &out);
}

static int scan_row(void *arg, const cake_row_t *row)
{
    scan_t *scan = arg;
    const cake_scan_t *range = scan->range;
    scan->is_done = !cake__slice_has_prefix(row->key, range->prefix);
    if (scan->is_done)
        return CAKE_ECANCELED;
    if (row->is_tombstone || (range->after.len > 0 && cake__slice_equal(row->key, range->after)))
        return 0;
    int err = range->keys_only ? tell_key(scan, row) : scan->fn(scan->arg, row);
    scan->is_done = err == 0 && ++scan->count == range->limit;
    return scan->is_done ? CAKE_ECANCELED : err;
}

int cake__lmdb_scan(cake_storage_t *storage, cake_slice_t keyspace, const cake_scan_t *range, cake_row_fn fn, void *arg)
{
    cake__table_ref_t ref;
    cake__lmdb_reader_t *reader;
    scan_t scan = {range, fn, arg, 0, false};
    int from_fn, err = begin(storage, keyspace, &ref, &reader);
    if (err != 0)
        return err == CAKE_ENOTFOUND ? 0 : err;
    bool from_after = cake__slice_compare(range->after, range->prefix) >= 0;
    int code = cake__lmdb_each_row(&ref, from_after ? range->after : range->prefix, scan_row, &scan, &from_fn);
    return finish(&ref, reader, code, scan.is_done ? 0 : from_fn);
}

static int metadata_row(void *arg, const cake_row_t *row)
{
    return tell_key(arg, row);
}

int cake__lmdb_metadata(cake_storage_t *storage, cake_slice_t keyspace, cake_row_fn fn, void *arg)
{
    cake__table_ref_t ref;
    cake__lmdb_reader_t *reader;
    scan_t scan = {NULL, fn, arg, 0, false};
    int from_fn, err = begin(storage, keyspace, &ref, &reader);
    if (err != 0)
        return err == CAKE_ENOTFOUND ? 0 : err;
    int code = cake__lmdb_each_row(&ref, cake__slice(NULL, 0), metadata_row, &scan, &from_fn);
    return finish(&ref, reader, code, from_fn);
}

int cake__lmdb_metas(cake_storage_t *storage, unsigned number, cake_slice_t prefix, cake_meta_fn fn, void *arg)
{
    cake__lmdb_t *lmdb = cake__lmdb_of(storage);
    cake__lmdb_reader_t *reader;
    MDB_cursor *cursor;
    if (number >= lmdb->lane_count)
        return CAKE_EINVAL;
    cake__lmdb_lane_t *lane = &lmdb->lanes[number];
    int from_fn = 0, err = cake__lmdb_reader_take(lane, &reader);
    if (err != 0)
        return err;
    cake__table_ref_t ref = {lane, reader->txn, 0, NULL};
    int code = mdb_cursor_open(reader->txn, lane->tables[CAKE__TABLE_METAS], &cursor);
    if (code == 0) {
        MDB_val name = cake__val(prefix.data, prefix.len), value;
        code = mdb_cursor_get(cursor, &name, &value, prefix.len == 0 ? MDB_FIRST : MDB_SET_RANGE);
        while (code == 0 && from_fn == 0 && cake__slice_has_prefix(cake__val_slice(name), prefix)) {
            from_fn = fn(arg, cake__val_slice(name), cake__val_slice(value));
            code = mdb_cursor_get(cursor, &name, &value, MDB_NEXT);
        }
        mdb_cursor_close(cursor);
    }
    return finish(&ref, reader, code == MDB_NOTFOUND ? 0 : code, from_fn);
}
