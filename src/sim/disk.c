/* Storages that survive their host: what is on them is not in its heap.
 *
 *      store --write--> [ errors drawn here ] --> one storage in memory per lane    (there at once, or not at all)
 *                              |
 *                              +--> pending: refused, and nobody knows; the lane's next successful write buries it,
 *                                   a restart before that finds it there or not
 *
 * The work of a lane runs in one event: a crash before it loses the batch, a crash after it loses the answer.
 *
 * SQLite (files.c) or a user's storage takes the place of those in memory. It is opened at each start, and then must
 * have every row that it said it had written. */
#include "sim/sim.h"

#include "storage/storage.h"

static cake__disk_t *disk_of(cake_storage_t *storage)
{
    return CAKE_CONTAINER_OF(storage, cake__disk_t, base);
}

static unsigned lane_of(cake__disk_t *disk, cake_slice_t keyspace)
{
    if (disk->rows != NULL)
        return disk->lanes[0]->ops->lane_of(disk->lanes[0], keyspace);
    return cake__lane_of(keyspace, disk->lane_count);
}

static cake_storage_t *storage_of(cake__disk_t *disk, cake_slice_t keyspace)
{
    return disk->lanes[lane_of(disk, keyspace)];
}

/* ---- batches that may turn up -------------------------------------------------------------------------------------*/

static uint8_t *copy(uint8_t *at, cake_slice_t *slice)
{
    bool is_absent = slice->data == NULL;
    if (slice->len > 0)
        memcpy(at, slice->data, slice->len);
    slice->data = is_absent ? NULL : at;
    return at + slice->len;
}

static void keep_pending(cake__trial_t *trial, cake__pending_t *pending, const cake_batch_t *batch)
{
    size_t bytes = 1 + batch->write_count * sizeof *batch->writes + batch->meta_count * sizeof *batch->metas;
    for (size_t i = 0; i < batch->write_count; i++)
        bytes += batch->writes[i].keyspace.len + batch->writes[i].key.len + batch->writes[i].value.len;
    for (size_t i = 0; i < batch->meta_count; i++)
        bytes += batch->metas[i].name.len + batch->metas[i].value.len;
    cake__free(&cake__libc_alloc, pending->block);
    pending->block = cake__sim_alloc(bytes);
    cake_write_t *writes = pending->block;
    cake_meta_write_t *metas = (cake_meta_write_t *)(writes + batch->write_count);
    uint8_t *at = (uint8_t *)(metas + batch->meta_count);
    for (size_t i = 0; i < batch->write_count; i++) {
        writes[i] = batch->writes[i];
        writes[i].context = NULL;
        at = copy(at, &writes[i].keyspace);
        at = copy(at, &writes[i].key);
        at = copy(at, &writes[i].value);
        cake__check_may_turn_up(trial, &writes[i]);
    }
    for (size_t i = 0; i < batch->meta_count; i++) {
        metas[i] = batch->metas[i];
        at = copy(at, &metas[i].name);
        at = copy(at, &metas[i].value);
    }
    pending->batch = (cake_batch_t){0, writes, batch->write_count, metas, batch->meta_count};
}

static void drop_pending(cake__pending_t *pending)
{
    cake__free(&cake__libc_alloc, pending->block);
    *pending = (cake__pending_t){0};
}

/* ---- writing ------------------------------------------------------------------------------------------------------*/

bool cake__stamp_is_above(const cake__stamp_t *a, const cake__stamp_t *b)
{
    if (a->hlc != b->hlc)
        return a->hlc > b->hlc;
    return a->dot.actor != b->dot.actor ? a->dot.actor > b->dot.actor : a->dot.seq > b->dot.seq;
}

/* Erased rows are found by their id: the key may be left out. False: it is none of ours. */
static bool find_place(const cake__trial_t *trial, const cake_write_t *write, size_t *place)
{
    uint32_t keyspace, key = 0;
    if (!cake__keyspace_parse(trial, write->keyspace, &keyspace))
        return false;
    while (key < trial->plan.keys && memcmp(&trial->key_ids[key], &write->id, sizeof write->id) != 0)
        key++;
    *place = (size_t)keyspace * trial->plan.keys + key;
    return key < trial->plan.keys;
}

/* The row that a key shows from now on. One that is erased while it lives was killed: by a repair, or as a node
 * joins. */
static void note_row(cake__disk_t *disk, const cake_write_t *write)
{
    size_t place;
    uint32_t item;
    if (!find_place(disk->trial, write, &place))
        return;
    cake__stamp_t *seen = &disk->seen[place], now = {0};
    if (write->kind == CAKE_WRITE_ERASE)
        seen->was_killed = seen->hlc != 0 && !seen->is_tombstone;
    else
        now = (cake__stamp_t){write->hlc, write->dot, CAKE__OP_NONE, write->kind == CAKE_WRITE_TOMBSTONE, false};
    if (write->kind == CAKE_WRITE_PUT)
        (void)cake__value_parse(write->value, &now.op, &item);
    if (disk->rows != NULL)
        disk->rows[place] = now;
}

static int apply(cake__disk_t *disk, unsigned lane, const cake_batch_t *batch)
{
    cake_batch_t inner = *batch;
    inner.lane = disk->rows != NULL ? lane : 0;
    int err = disk->lanes[lane]->ops->write(disk->lanes[lane], &inner);
    disk->is_unsure[lane] = err != 0;
    for (size_t i = 0; i < batch->write_count; i++) {
        if (cake__is_foreign(disk->trial, batch->writes[i].keyspace))
            continue;
        if (err != 0) {
            cake__check_may_turn_up(disk->trial, &batch->writes[i]);
            continue;
        }
        if (batch->writes[i].kind != CAKE_WRITE_ERASE)
            cake__check_row(disk, &batch->writes[i]);
        if (batch->writes[i].kind == CAKE_WRITE_ERASE || disk->rows != NULL)
            note_row(disk, &batch->writes[i]);
    }
    return err;
}

static int write_or_refuse(cake__disk_t *disk, const cake_batch_t *batch)
{
    cake__trial_t *trial = disk->trial;
    if (disk->is_full)
        return CAKE_ENOSPC;
    int fetched = trial->plan.has_fetches ? cake__fetch_batch(disk, batch) : 0;
    if (fetched != 0)
        return fetched;
    if (trial->disks_hold || !disk->may_fail || disk->files != NULL ||
        !cake__chance(trial, CAKE__TRIAL_DRAW_DISK, trial->plan.write_error_rate)) {
        int err = apply(disk, batch->lane, batch);
        if (err == 0)
            drop_pending(&disk->pending[batch->lane]);
        return err;
    }
    trial->result->disk_errors++;
    bool is_ambiguous = cake__chance(trial, CAKE__TRIAL_DRAW_DISK, trial->plan.ambiguous_share);
    int err = is_ambiguous || cake__below(trial, CAKE__TRIAL_DRAW_DISK, 2) == 0 ? CAKE_EIO : CAKE_ENOSPC;
    cake__note_of(disk->node, CAKE__MARK_EVENT, "a write of %zu rows fails: %s%s", batch->write_count,
                  cake_err_name(err), is_ambiguous ? ", it may turn up" : "");
    if (is_ambiguous)
        keep_pending(trial, &disk->pending[batch->lane], batch);
    return err;
}

static int disk_write(cake_storage_t *storage, const cake_batch_t *batch)
{
    cake__disk_t *disk = disk_of(storage);
    CAKE_ASSERT(disk->is_open && batch->lane < disk->lane_count);
    int err = write_or_refuse(disk, batch);
    disk->is_refusing[batch->lane] = err != 0;
    disk->batches[batch->lane] += err == 0;
    return err;
}

bool cake__disk_is_refusing(cake__disk_t *disk, uint32_t keyspace, uint64_t *batches)
{
    char name[32];
    cake__keyspace_name(keyspace, name);
    unsigned lane = lane_of(disk, cake__slice_str(name));
    *batches = disk->batches[lane];
    return disk->is_refusing[lane];
}

/* ---- reading ------------------------------------------------------------------------------------------------------*/

static int read_error(cake__disk_t *disk)
{
    cake__trial_t *trial = disk->trial;
    CAKE_ASSERT(disk->is_open);
    if (trial->disks_hold || !disk->may_fail ||
        !cake__chance(trial, CAKE__TRIAL_DRAW_DISK, trial->plan.read_error_rate))
        return 0;
    trial->result->disk_errors++;
    cake__note_of(disk->node, CAKE__MARK_EVENT, "a read fails");
    return CAKE_EIO;
}

static int disk_get(cake_storage_t *storage, cake_slice_t keyspace, cake_slice_t key, cake_doc_t **doc)
{
    cake__disk_t *disk = disk_of(storage);
    cake_storage_t *inner = storage_of(disk, keyspace);
    cake_doc_t *found;
    *doc = NULL;
    int err = read_error(disk);
    if (err == 0)
        err = inner->ops->get(inner, keyspace, key, &found);
    if (err != 0)
        return err;
    *doc = cake_doc_new(&cake__host_env(disk->node->host)->alloc, key, cake_doc_value(found), cake_doc_timestamp(found),
                        cake_doc_dot(found));
    cake_doc_free(found);
    return *doc == NULL ? CAKE_ENOMEM : 0;
}

static int disk_fetch(cake_storage_t *storage, cake_slice_t keyspace, const cake_id_t *ids, size_t count,
                      cake_row_fn fn, void *arg)
{
    cake_storage_t *inner = storage_of(disk_of(storage), keyspace);
    int err = read_error(disk_of(storage));
    return err != 0 ? err : inner->ops->fetch(inner, keyspace, ids, count, fn, arg);
}

static int disk_scan(cake_storage_t *storage, cake_slice_t keyspace, const cake_scan_t *range, cake_row_fn fn,
                     void *arg)
{
    cake_storage_t *inner = storage_of(disk_of(storage), keyspace);
    int err = read_error(disk_of(storage));
    return err != 0 ? err : inner->ops->scan(inner, keyspace, range, fn, arg);
}

static int disk_metadata(cake_storage_t *storage, cake_slice_t keyspace, cake_row_fn fn, void *arg)
{
    cake_storage_t *inner = storage_of(disk_of(storage), keyspace);
    int err = read_error(disk_of(storage));
    return err != 0 ? err : inner->ops->metadata(inner, keyspace, fn, arg);
}

static int disk_keyspaces(cake_storage_t *storage, cake_name_fn fn, void *arg)
{
    cake__disk_t *disk = disk_of(storage);
    int err = read_error(disk);
    unsigned count = disk->rows != NULL ? 1 : disk->lane_count;
    for (unsigned i = 0; err == 0 && i < count; i++)
        err = disk->lanes[i]->ops->keyspaces(disk->lanes[i], fn, arg);
    return err;
}

static int disk_metas(cake_storage_t *storage, unsigned lane, cake_slice_t prefix, cake_meta_fn fn, void *arg)
{
    cake__disk_t *disk = disk_of(storage);
    CAKE_ASSERT(lane < disk->lane_count);
    int err = read_error(disk);
    unsigned inner = disk->rows != NULL ? lane : 0;
    return err != 0 ? err : disk->lanes[lane]->ops->metas(disk->lanes[lane], inner, prefix, fn, arg);
}

static unsigned disk_lanes(cake_storage_t *storage)
{
    return disk_of(storage)->lane_count;
}

static unsigned disk_lane_of(cake_storage_t *storage, cake_slice_t keyspace)
{
    return lane_of(disk_of(storage), keyspace);
}

static void disk_close(cake_storage_t *storage)
{
    cake__disk_t *disk = disk_of(storage);
    CAKE_ASSERT(disk->is_open && "closed twice");
    disk->is_open = false;
    if (disk->files != NULL)
        cake__files_end(disk->files, disk->lanes[0], CAKE__END_CLOSED);
    else if (disk->rows != NULL)
        cake_storage_close(disk->lanes[0]);
}

static const cake_storage_ops_t disk_ops = {
    .version = CAKE_STORAGE_VERSION,
    .flags = CAKE_STORAGE_CONCURRENT_READS,
    .lanes = disk_lanes,
    .lane_of = disk_lane_of,
    .write = disk_write,
    .get = disk_get,
    .fetch = disk_fetch,
    .scan = disk_scan,
    .metadata = disk_metadata,
    .keyspaces = disk_keyspaces,
    .metas = disk_metas,
    .close = disk_close,
};

/* ---- for checkers: past every error -------------------------------------------------------------------------------*/

static int on_row(void *arg, const cake_row_t *row)
{
    cake__stamp_t *out = arg;
    uint32_t item;
    *out = (cake__stamp_t){row->hlc, row->dot, CAKE__OP_NONE, row->is_tombstone, false};
    if (!row->is_tombstone)
        (void)cake__value_parse(row->value, &out->op, &item);
    return 0;
}

bool cake__disk_row(cake__disk_t *disk, uint32_t keyspace, uint32_t key, cake__stamp_t *out)
{
    char name[32], text[64];
    cake_id_t id;
    cake__keyspace_name(keyspace, name);
    size_t len = cake__key_text(key, text);
    int err = cake__key_id(cake__slice(text, len), &id);
    CAKE_ASSERT(err == 0 && (disk->rows == NULL || disk->is_open));
    cake_storage_t *inner = storage_of(disk, cake__slice_str(name));
    *out = (cake__stamp_t){0};
    bool may_fail = disk->may_fail;
    disk->may_fail = false;
    err = inner->ops->fetch(inner, cake__slice_str(name), &id, 1, on_row, out);
    disk->may_fail = may_fail;
    if (err != 0)
        cake__violation(disk->trial, "storage", "node %u cannot read key %u of %s: %s", disk->node->id, (unsigned)key,
                        name, cake_err_name(err));
    return out->hlc != 0;
}

void cake__disk_damage(cake__disk_t *disk, uint32_t keyspace, uint32_t key)
{
    char name[32];
    cake__keyspace_name(keyspace, name);
    unsigned lane = lane_of(disk, cake__slice_str(name));
    const cake_write_t write = {
        .kind = CAKE_WRITE_ERASE, .keyspace = cake__slice_str(name), .id = disk->trial->key_ids[key]};
    const cake_batch_t batch = {disk->rows != NULL ? lane : 0, &write, 1, NULL, 0};
    int err = disk->lanes[lane]->ops->write(disk->lanes[lane], &batch);
    CAKE_ASSERT(err == 0);
    cake__note_of(disk->node, CAKE__MARK_EVENT, "key %u of %s is damaged", (unsigned)key, name);
}

/* ---- life ---------------------------------------------------------------------------------------------------------*/

static void make_lanes(cake__disk_t *disk)
{
    for (unsigned i = 0; disk->rows == NULL && i < disk->lane_count; i++) {
        int err = cake_memory_open(&disk->lanes[i]);
        CAKE_ASSERT(err == 0);
    }
}

static void drop_lanes(cake__disk_t *disk)
{
    for (unsigned i = 0; i < disk->lane_count; i++) {
        if (disk->rows == NULL)
            cake_storage_close(disk->lanes[i]);
        drop_pending(&disk->pending[i]);
    }
}

static size_t seen_bytes(const cake__trial_t *trial)
{
    return (size_t)trial->plan.keyspaces * trial->plan.keys * sizeof(cake__stamp_t);
}

void cake__disk_new(cake__trial_t *trial, cake__trial_node_t *node)
{
    const cake_sim_workload_t *workload = trial->options.workload;
    cake__disk_t *disk = &node->disk;
    *disk = (cake__disk_t){
        .ops = disk_ops, .trial = trial, .node = node, .lane_count = trial->plan.lanes, .may_fail = true};
    disk->base.ops = &disk->ops;
    disk->ops.flags |= trial->plan.has_fetches ? CAKE_STORAGE_FETCHES : 0;
    disk->is_empty = true;
    disk->seen = cake__sim_alloc(seen_bytes(trial));
    bool is_of_user = workload != NULL && workload->open_storage != NULL;
    if (is_of_user || trial->options.storage == CAKE_SIM_STORAGE_SQLITE) {
        disk->rows = cake__sim_alloc(seen_bytes(trial));
        disk->lane_count = 0; /* until it is open */
    }
    if (disk->rows != NULL && !is_of_user)
        disk->files = cake__files_new(disk);
    make_lanes(disk);
}

void cake__disk_free(cake__disk_t *disk)
{
    cake__disk_crash(disk, false);
    cake__files_free(disk->files);
    drop_lanes(disk);
    cake__free(&cake__libc_alloc, disk->seen);
    cake__free(&cake__libc_alloc, disk->rows);
}

void cake__disk_crash(cake__disk_t *disk, bool with_power)
{
    const cake_sim_workload_t *workload = disk->trial->options.workload;
    if (disk->is_open && disk->files != NULL)
        cake__files_end(disk->files, disk->lanes[0], with_power ? CAKE__END_POWER : CAKE__END_KILLED);
    else if (disk->is_open && disk->rows != NULL && workload->crashed != NULL)
        workload->crashed(disk->trial->run, disk->trial, disk->node->id, disk->lanes[0]);
    else if (disk->is_open && disk->rows != NULL)
        cake_storage_close(disk->lanes[0]);
    disk->is_open = false;
}

void cake__disk_lose(cake__disk_t *disk)
{
    CAKE_ASSERT(!disk->is_open);
    drop_lanes(disk);
    make_lanes(disk);
    memset(disk->seen, 0, seen_bytes(disk->trial));
    if (disk->rows != NULL)
        memset(disk->rows, 0, seen_bytes(disk->trial));
    disk->is_empty = true;
    disk->generation++;
    if (disk->files != NULL)
        cake__files_lose(disk->files);
}

/* SQLite's, or the user's. */
static int open_one(cake__disk_t *disk)
{
    cake__trial_t *trial = disk->trial;
    cake_storage_t *storage = NULL;
    int err = disk->files != NULL
                  ? cake__files_open(disk->files, &storage)
                  : trial->options.workload->open_storage(trial->run, trial, disk->node->id, disk->is_empty, &storage);
    if (err != 0)
        return err;
    disk->is_empty = false;
    disk->lane_count = storage->ops->lanes(storage);
    disk->ops.flags = storage->ops->flags;
    if (disk->lane_count == 0 || disk->lane_count > CAKE__TRIAL_LANES_MAX) {
        cake_storage_close(storage);
        disk->lane_count = 0;
        return CAKE_EINVAL;
    }
    for (unsigned i = 0; i < disk->lane_count; i++)
        disk->lanes[i] = storage;
    disk->is_open = true;
    return 0;
}

/* What was unsure is decided. */
static void note_turned_up(cake__disk_t *disk, uint32_t place, const cake__stamp_t *found)
{
    const cake__stamp_t *row = &disk->rows[place];
    cake__stamp_t *seen = &disk->seen[place];
    if (found->hlc == 0 && row->hlc != 0 && !row->is_tombstone)
        seen->was_killed = true;
    if (found->op != CAKE__OP_NONE && found->op < disk->trial->op_count)
        disk->trial->ops[found->op]->was_seen = true;
    if (cake__stamp_is_above(found, seen))
        *seen = *found;
}

/* What a storage has said it has written is there when it is opened again. */
static void compare_rows(cake__disk_t *disk)
{
    cake__trial_t *trial = disk->trial;
    for (uint32_t i = 0; i < trial->plan.keyspaces * trial->plan.keys; i++) {
        cake__stamp_t found, *row = &disk->rows[i];
        char name[32];
        cake__keyspace_name(i / trial->plan.keys, name);
        (void)cake__disk_row(disk, i / trial->plan.keys, i % trial->plan.keys, &found);
        if (!disk->is_unsure[lane_of(disk, cake__slice_str(name))] &&
            (found.hlc != row->hlc || found.is_tombstone != row->is_tombstone || found.op != row->op))
            cake__violation(trial, "storage", "node %u starts with key %u of %s at %llx, and had written %llx",
                            disk->node->id, (unsigned)(i % trial->plan.keys), name, (unsigned long long)found.hlc,
                            (unsigned long long)row->hlc);
        note_turned_up(disk, i, &found);
        *row = found;
    }
    memset(disk->is_unsure, 0, sizeof disk->is_unsure);
}

int cake__disk_open(cake__disk_t *disk)
{
    CAKE_ASSERT(!disk->is_open);
    int err = disk->rows != NULL ? open_one(disk) : 0;
    if (err != 0)
        return err;
    disk->is_open = true;
    memset(disk->is_refusing, 0, sizeof disk->is_refusing);
    if (disk->rows != NULL)
        compare_rows(disk);
    for (unsigned i = 0; i < disk->lane_count; i++) {
        cake__pending_t *pending = &disk->pending[i];
        if (pending->block != NULL && cake__below(disk->trial, CAKE__TRIAL_DRAW_DISK, 2) == 0) {
            cake__note_of(disk->node, CAKE__MARK_EVENT, "%zu rows of a failed write turn up",
                          pending->batch.write_count);
            err = apply(disk, i, &pending->batch);
            CAKE_ASSERT(err == 0 || disk->rows != NULL);
        }
        drop_pending(pending);
    }
    return 0;
}
