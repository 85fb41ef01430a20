/* The storage in memory.
 *
 *      names: map name -> keyspace { rows: tree by key; long_ids: map id -> row, of keys too long for their id }
 *      metas: tree of rows whose key is the name
 *
 * Rows never change once they are in a tree: a write puts a new one in the place of the old. A batch is first copied
 * to new rows without the lock, then put in place under the lock, remembering what was there; a failure on the way puts
 * everything back. Putting back allocates nothing, so it cannot fail. Only then is the lock given back: readers see all
 * of a batch or nothing. Every map entry borrows its key from its value. */
#include "storage/tree.h"

#include "base/lock.h"
#include "base/map.h"

#define STAGED_KEPT 4096 /* entries of the work space kept between batches */

typedef struct keyspace {
    cake__tree_t rows;
    cake__map_t long_ids;
    size_t name_len;
    char name[];
} keyspace_t;

/* One write of the batch under way. */
typedef struct staged {
    cake__row_t *row;     /* what to put; NULL: erase */
    cake__row_t *old;     /* what stood there; for an erase: the row that goes */
    keyspace_t *keyspace; /* NULL: metas, or nothing to do */
    bool is_new_keyspace;
} staged_t;

typedef struct memory {
    cake_storage_t base;
    cake_alloc_t alloc;
    uint64_t max_bytes, bytes; /* keys and values, of rows and metas */
    cake__rwlock_t lock;
    cake__map_t names;
    cake__tree_t metas;
    cake__spares_t spares;
    staged_t *staged;
    size_t staged_capacity;
} memory_t;

static memory_t *memory_of(cake_storage_t *storage)
{
    return CAKE_CONTAINER_OF(storage, memory_t, base);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static uint64_t row_bytes(const cake__row_t *row)
{
    return row == NULL ? 0 : (uint64_t)row->key_len + row->value_len;
}

static cake__row_t *new_row(memory_t *memory, const cake_id_t *id, cake_slice_t key, cake_slice_t value)
{
    size_t key_len = key.len <= CAKE_ID_PLAIN_MAX ? 0 : key.len;
    cake__row_t *row = cake__malloc(&memory->alloc, sizeof *row + key_len + value.len);
    if (row == NULL)
        return NULL;
    row->id = *id;
    row->hlc = 0;
    row->dot = (cake_dot_t){0, 0};
    row->value_len = (uint32_t)value.len;
    row->key_len = (uint16_t)key.len;
    row->is_tombstone = row->is_erased = false;
    if (key_len > 0)
        memcpy(row->bytes, key.data, key_len);
    if (value.len > 0)
        memcpy(row->bytes + key_len, value.data, value.len);
    return row;
}

static cake__row_t *row_of_write(memory_t *memory, const cake_write_t *write)
{
    bool is_tombstone = write->kind == CAKE_WRITE_TOMBSTONE;
    cake__row_t *row = new_row(memory, &write->id, write->key, is_tombstone ? cake__slice(NULL, 0) : write->value);
    if (row == NULL)
        return NULL;
    row->hlc = write->hlc;
    row->dot = write->dot;
    row->is_tombstone = is_tombstone;
    return row;
}

static cake__row_t *row_of_meta(memory_t *memory, const cake_meta_write_t *meta)
{
    cake_id_t id = {{0}};
    (void)cake_id_of_key(meta->name, &id);
    return new_row(memory, &id, meta->name, meta->value);
}

static cake__row_t *find_by_id(const keyspace_t *keyspace, const cake_id_t *id)
{
    char room[CAKE_ID_KEY_MAX];
    if (cake_id_holds_key(id))
        return cake__tree_get(&keyspace->rows, cake_id_key(id, room));
    return cake__map_get(&keyspace->long_ids, cake__slice(id->bytes, sizeof id->bytes));
}

static cake_slice_t id_slice(const cake__row_t *row)
{
    return cake__slice(row->id.bytes, sizeof row->id.bytes);
}

/* ---- keyspaces --------------------------------------------------------------------------------------------------- */

static keyspace_t *add_keyspace(memory_t *memory, cake_slice_t name)
{
    keyspace_t *keyspace = cake__malloc(&memory->alloc, sizeof *keyspace + name.len + 1);
    if (keyspace == NULL)
        return NULL;
    *keyspace = (keyspace_t){.name_len = name.len};
    memcpy(keyspace->name, name.data, name.len);
    keyspace->name[name.len] = '\0';
    cake__map_init(&keyspace->long_ids, &memory->alloc);
    if (cake__map_put(&memory->names, cake__slice(keyspace->name, name.len), keyspace) != 0) {
        cake__free(&memory->alloc, keyspace);
        return NULL;
    }
    return keyspace;
}

static void free_keyspace(memory_t *memory, keyspace_t *keyspace)
{
    cake__tree_free(&keyspace->rows, &memory->alloc);
    cake__map_free(&keyspace->long_ids);
    cake__free(&memory->alloc, keyspace);
}

/* ---- batches: stage without the lock, apply under it, then settle or take back ----------------------------------- */

static int reserve_staged(memory_t *memory, size_t count)
{
    if (count <= memory->staged_capacity)
        return 0;
    size_t capacity = count < 64 ? 64 : count, size;
    if (__builtin_mul_overflow(capacity, sizeof(staged_t), &size))
        return CAKE_ENOMEM;
    staged_t *staged = cake__realloc(&memory->alloc, memory->staged, size);
    if (staged == NULL)
        return CAKE_ENOMEM;
    memory->staged = staged;
    memory->staged_capacity = capacity;
    return 0;
}

static void trim_staged(memory_t *memory)
{
    if (memory->staged_capacity <= STAGED_KEPT)
        return;
    cake__free(&memory->alloc, memory->staged);
    memory->staged = NULL;
    memory->staged_capacity = 0;
}

static int stage(memory_t *memory, const cake_batch_t *batch)
{
    size_t count = batch->write_count + batch->meta_count;
    int err = reserve_staged(memory, count);
    for (size_t i = 0; i < count && err == 0; i++) {
        const cake_write_t *write = i < batch->write_count ? &batch->writes[i] : NULL;
        const cake_meta_write_t *meta = write != NULL ? NULL : &batch->metas[i - batch->write_count];
        bool is_erase = write != NULL ? write->kind == CAKE_WRITE_ERASE : meta->value.data == NULL;
        staged_t *staged = &memory->staged[i];
        *staged = (staged_t){0};
        if (is_erase)
            continue;
        staged->row = write != NULL ? row_of_write(memory, write) : row_of_meta(memory, meta);
        if (staged->row != NULL)
            continue;
        while (i-- > 0)
            cake__free(&memory->alloc, memory->staged[i].row);
        err = CAKE_ENOMEM;
        break;
    }
    return err;
}

static int put_row(memory_t *memory, cake__tree_t *tree, cake__map_t *long_ids, staged_t *staged)
{
    cake__row_t *row = staged->row;
    int err = cake__spares_fill(&memory->spares, tree);
    if (err != 0)
        return err;
    staged->old = cake__tree_put(tree, &memory->spares, row);
    if (long_ids != NULL && !cake_id_holds_key(&row->id))
        err = cake__map_put(long_ids, id_slice(row), row);
    if (err != 0) {
        if (staged->old == NULL)
            (void)cake__tree_remove(tree, &memory->spares, cake__row_key(row));
        else
            (void)cake__tree_put(tree, &memory->spares, staged->old);
        return err;
    }
    bool had_old = staged->old != NULL && !staged->old->is_erased; /* an erased one was subtracted before */
    memory->bytes += row_bytes(row);
    memory->bytes -= had_old ? row_bytes(staged->old) : 0;
    return 0;
}

static void erase_row(memory_t *memory, cake__row_t *row, staged_t *staged)
{
    if (row == NULL || row->is_erased)
        return;
    row->is_erased = true;
    staged->old = row;
    memory->bytes -= row_bytes(row);
}

static int apply_write(memory_t *memory, const cake_write_t *write, keyspace_t **last, staged_t *staged)
{
    keyspace_t *keyspace = *last;
    if (keyspace == NULL || !cake__slice_equal(cake__slice(keyspace->name, keyspace->name_len), write->keyspace))
        keyspace = cake__map_get(&memory->names, write->keyspace);
    if (write->kind == CAKE_WRITE_ERASE) {
        staged->keyspace = keyspace;
        if (keyspace != NULL)
            erase_row(memory, find_by_id(keyspace, &write->id), staged);
        return 0;
    }
    if (keyspace == NULL) {
        keyspace = add_keyspace(memory, write->keyspace);
        if (keyspace == NULL)
            return CAKE_ENOMEM;
        staged->is_new_keyspace = true;
    }
    *last = staged->keyspace = keyspace;
    return put_row(memory, &keyspace->rows, &keyspace->long_ids, staged);
}

static int apply_meta(memory_t *memory, const cake_meta_write_t *meta, staged_t *staged)
{
    if (staged->row != NULL)
        return put_row(memory, &memory->metas, NULL, staged);
    erase_row(memory, cake__tree_get(&memory->metas, meta->name), staged);
    return 0;
}

/* The last step back for one entry of the batch; `was_applied` is false for the one that failed. */
static void take_back(memory_t *memory, staged_t *staged, bool was_applied)
{
    keyspace_t *keyspace = staged->keyspace;
    cake__tree_t *tree = keyspace != NULL ? &keyspace->rows : &memory->metas;
    cake__row_t *row = staged->row, *old = staged->old;
    if (row == NULL && old != NULL)
        old->is_erased = false;
    if (row != NULL && was_applied) {
        if (old != NULL)
            (void)cake__tree_put(tree, &memory->spares, old);
        else
            (void)cake__tree_remove(tree, &memory->spares, cake__row_key(row));
        bool is_long = keyspace != NULL && !cake_id_holds_key(&row->id);
        if (is_long && old != NULL)
            (void)cake__map_put(&keyspace->long_ids, id_slice(old), old); /* replaces: does not fail */
        else if (is_long)
            (void)cake__map_remove(&keyspace->long_ids, id_slice(row));
    }
    if (staged->is_new_keyspace) {
        (void)cake__map_remove(&memory->names, cake__slice(keyspace->name, keyspace->name_len));
        free_keyspace(memory, keyspace);
    }
    cake__free(&memory->alloc, row);
}

static int apply(memory_t *memory, const cake_batch_t *batch)
{
    size_t count = batch->write_count + batch->meta_count, done = 0;
    uint64_t bytes_before = memory->bytes;
    keyspace_t *last = NULL;
    int err = 0;
    for (; done < count && err == 0; done++) {
        staged_t *staged = &memory->staged[done];
        err = done < batch->write_count ? apply_write(memory, &batch->writes[done], &last, staged)
                                        : apply_meta(memory, &batch->metas[done - batch->write_count], staged);
    }
    bool last_failed = err != 0;
    if (err == 0 && memory->max_bytes != 0 && memory->bytes > memory->max_bytes && memory->bytes > bytes_before)
        err = CAKE_ENOSPC;
    if (err == 0)
        return 0;
    for (size_t i = count; i > done; i--)
        cake__free(&memory->alloc, memory->staged[i - 1].row);
    for (size_t i = done; i > 0; i--)
        take_back(memory, &memory->staged[i - 1], !(last_failed && i == done));
    memory->bytes = bytes_before;
    return err;
}

/* Erased rows leave the trees, unless a later write of the batch took their place: that one then frees them. */
static void settle_erases(memory_t *memory, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        staged_t *staged = &memory->staged[i];
        cake__row_t *old = staged->old;
        if (staged->row != NULL || old == NULL)
            continue;
        keyspace_t *keyspace = staged->keyspace;
        cake__tree_t *tree = keyspace != NULL ? &keyspace->rows : &memory->metas;
        if (cake__tree_get(tree, cake__row_key(old)) != old) {
            staged->old = NULL;
            continue;
        }
        (void)cake__tree_remove(tree, &memory->spares, cake__row_key(old));
        if (keyspace != NULL && !cake_id_holds_key(&old->id))
            (void)cake__map_remove(&keyspace->long_ids, id_slice(old));
    }
}

static int memory_write(cake_storage_t *storage, const cake_batch_t *batch)
{
    memory_t *memory = memory_of(storage);
    int err = cake__batch_check(batch, 1);
    if (err != 0)
        return err;
    err = stage(memory, batch);
    if (err != 0)
        return err;
    size_t count = batch->write_count + batch->meta_count;
    cake__rwlock_write(&memory->lock);
    err = apply(memory, batch);
    if (err == 0)
        settle_erases(memory, count);
    cake__rwlock_give(&memory->lock);
    for (size_t i = 0; err == 0 && i < count; i++)
        cake__free(&memory->alloc, memory->staged[i].old);
    trim_staged(memory);
    return err;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static int memory_get(cake_storage_t *storage, cake_slice_t name, cake_slice_t key, cake_doc_t **doc)
{
    memory_t *memory = memory_of(storage);
    int err = CAKE_ENOTFOUND;
    *doc = NULL;
    cake__rwlock_read(&memory->lock);
    const keyspace_t *keyspace = cake__map_get(&memory->names, name);
    const cake__row_t *row = keyspace == NULL ? NULL : cake__tree_get(&keyspace->rows, key);
    if (row != NULL && !row->is_tombstone) {
        *doc = cake_doc_new(&memory->alloc, key, cake__row_value(row), row->hlc, row->dot);
        err = *doc == NULL ? CAKE_ENOMEM : 0;
    }
    cake__rwlock_give(&memory->lock);
    return err;
}

static cake_row_t public_row(const cake__row_t *row, bool with_value)
{
    return (cake_row_t){.id = row->id,
                        .key = cake__row_key(row),
                        .value = with_value ? cake__row_value(row) : cake__slice(NULL, 0),
                        .hlc = row->hlc,
                        .dot = row->dot,
                        .is_tombstone = row->is_tombstone};
}

static int memory_fetch(cake_storage_t *storage, cake_slice_t name, const cake_id_t *ids, size_t count, cake_row_fn fn,
                        void *arg)
{
    memory_t *memory = memory_of(storage);
    int err = 0;
    cake__rwlock_read(&memory->lock);
    const keyspace_t *keyspace = cake__map_get(&memory->names, name);
    for (size_t i = 0; keyspace != NULL && i < count && err == 0; i++) {
        const cake__row_t *row = find_by_id(keyspace, &ids[i]);
        if (row == NULL)
            continue;
        cake_row_t out = public_row(row, true);
        err = fn(arg, &out);
    }
    cake__rwlock_give(&memory->lock);
    return err;
}

static int scan_rows(const keyspace_t *keyspace, const cake_scan_t *range, cake_row_fn fn, void *arg)
{
    bool from_after = cake__slice_compare(range->after, range->prefix) >= 0;
    cake__tree_cursor_t cursor = cake__tree_seek(&keyspace->rows, from_after ? range->after : range->prefix);
    const cake__row_t *row;
    size_t count = 0;
    while ((row = cake__tree_next(&cursor)) != NULL) {
        cake_slice_t key = cake__row_key(row);
        if (!cake__slice_has_prefix(key, range->prefix))
            return 0;
        if (row->is_tombstone || (range->after.len > 0 && cake__slice_equal(key, range->after)))
            continue;
        cake_row_t out = public_row(row, !range->keys_only);
        int err = fn(arg, &out);
        if (err != 0)
            return err;
        if (++count == range->limit)
            return 0;
    }
    return 0;
}

static int memory_scan(cake_storage_t *storage, cake_slice_t name, const cake_scan_t *range, cake_row_fn fn, void *arg)
{
    memory_t *memory = memory_of(storage);
    cake__rwlock_read(&memory->lock);
    const keyspace_t *keyspace = cake__map_get(&memory->names, name);
    int err = keyspace == NULL ? 0 : scan_rows(keyspace, range, fn, arg);
    cake__rwlock_give(&memory->lock);
    return err;
}

static int memory_metadata(cake_storage_t *storage, cake_slice_t name, cake_row_fn fn, void *arg)
{
    memory_t *memory = memory_of(storage);
    int err = 0;
    cake__rwlock_read(&memory->lock);
    const keyspace_t *keyspace = cake__map_get(&memory->names, name);
    if (keyspace != NULL) {
        cake__tree_cursor_t cursor = cake__tree_seek(&keyspace->rows, cake__slice(NULL, 0));
        const cake__row_t *row;
        while (err == 0 && (row = cake__tree_next(&cursor)) != NULL) {
            cake_row_t out = public_row(row, false);
            err = fn(arg, &out);
        }
    }
    cake__rwlock_give(&memory->lock);
    return err;
}

static int memory_keyspaces(cake_storage_t *storage, cake_name_fn fn, void *arg)
{
    memory_t *memory = memory_of(storage);
    const keyspace_t *keyspace;
    size_t cursor = 0;
    int err = 0;
    cake__rwlock_read(&memory->lock);
    while (err == 0 && (keyspace = cake__map_next(&memory->names, &cursor)) != NULL)
        err = fn(arg, keyspace->name);
    cake__rwlock_give(&memory->lock);
    return err;
}

static int memory_metas(cake_storage_t *storage, unsigned lane, cake_slice_t prefix, cake_meta_fn fn, void *arg)
{
    memory_t *memory = memory_of(storage);
    const cake__row_t *row;
    int err = 0;
    if (lane != 0)
        return CAKE_EINVAL;
    cake__rwlock_read(&memory->lock);
    cake__tree_cursor_t cursor = cake__tree_seek(&memory->metas, prefix);
    while (err == 0 && (row = cake__tree_next(&cursor)) != NULL) {
        if (!cake__slice_has_prefix(cake__row_key(row), prefix))
            break;
        err = fn(arg, cake__row_key(row), cake__row_value(row));
    }
    cake__rwlock_give(&memory->lock);
    return err;
}

static unsigned memory_lanes(cake_storage_t *storage)
{
    (void)storage;
    return 1;
}

static unsigned memory_lane_of(cake_storage_t *storage, cake_slice_t keyspace)
{
    (void)storage;
    (void)keyspace;
    return 0;
}

/* ---- open and close ---------------------------------------------------------------------------------------------- */

static void memory_close(cake_storage_t *storage)
{
    memory_t *memory = memory_of(storage);
    cake_alloc_t alloc = memory->alloc;
    keyspace_t *keyspace;
    size_t cursor = 0;
    while ((keyspace = cake__map_next(&memory->names, &cursor)) != NULL)
        free_keyspace(memory, keyspace);
    cake__map_free(&memory->names);
    cake__tree_free(&memory->metas, &memory->alloc);
    cake__spares_free(&memory->spares);
    cake__free(&alloc, memory->staged);
    cake__rwlock_destroy(&memory->lock);
    cake__free(&alloc, memory);
}

static const cake_storage_ops_t memory_ops = {
    .version = CAKE_STORAGE_VERSION,
    .flags = CAKE_STORAGE_CONCURRENT_READS | CAKE_STORAGE_INLINE,
    .lanes = memory_lanes,
    .lane_of = memory_lane_of,
    .write = memory_write,
    .get = memory_get,
    .fetch = memory_fetch,
    .scan = memory_scan,
    .metadata = memory_metadata,
    .keyspaces = memory_keyspaces,
    .metas = memory_metas,
    .close = memory_close,
};

int cake_memory_open_with(const cake_memory_options_t *options, cake_storage_t **storage)
{
    cake_memory_options_t chosen = CAKE_MEMORY_OPTIONS_INIT;
    *storage = NULL;
    if (options != NULL && cake__options_copy(&chosen, sizeof chosen, options) != 0)
        return CAKE_EINVAL;
    cake_alloc_t alloc = *cake__alloc_or_default(chosen.alloc);
    memory_t *memory = cake__malloc(&alloc, sizeof *memory);
    if (memory == NULL)
        return CAKE_ENOMEM;
    *memory = (memory_t){.base.ops = &memory_ops, .alloc = alloc, .max_bytes = chosen.max_bytes};
    cake__rwlock_init(&memory->lock);
    cake__map_init(&memory->names, &memory->alloc);
    memory->spares.alloc = &memory->alloc;
    *storage = &memory->base;
    return 0;
}

int cake_memory_open(cake_storage_t **storage)
{
    return cake_memory_open_with(NULL, storage);
}
