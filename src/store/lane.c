/* Lanes: group commit. Whatever arrives while one batch is being written goes into the next: under load one transaction
 * carries hundreds of writes, alone one write waits for nobody.
 *
 *      tasks ──stage──> change of each keyspace ──> rows, erasures, {C,g,H} ──write──> commit ──> finish
 *                                                       one atomic batch         └──> abort  ──> finish(err)
 *
 * While it is being written, it goes to the peers already when a level waits for one: the disks of all work at the
 * same time. What makes that safe: their stamps are below a bound that is durable, and their dots are never used
 * again, whether the process dies (each run has its own actor) or the batch fails (abort_keyspace). */
#include "store/store.h"

#define CLOCK_META "clock"

static void finish_batch(cake__lane_t *lane, int err);

/* ---- making a batch -----------------------------------------------------------------------------------------------*/

static int touch(cake__lane_t *lane, cake__keyspace_t *keyspace)
{
    cake_store_t *store = lane->store;
    if (keyspace->change != NULL)
        return 0;
    cake__keyspace_t **touched =
        cake__grow(store->alloc, lane->touched, lane->touched_count, &lane->touched_capacity, sizeof *touched);
    if (touched == NULL)
        return CAKE_ENOMEM;
    lane->touched = touched;
    int err = cake__change_begin(keyspace->set, cake__wall_ms(store->env), &keyspace->change);
    if (err == 0)
        lane->touched[lane->touched_count++] = keyspace;
    return err;
}

/* A storage that fetches from the origin may fail where that is gone: no other node's writes, and none of ours,
 * shall fail with it. */
static bool may_join_batch(const cake__lane_t *lane, const cake__task_t *task)
{
    if (!lane->store->storage_fetches || cake__list_is_empty(&lane->batch))
        return true;
    return CAKE_CONTAINER_OF(lane->batch.next, cake__task_t, link)->origin == task->origin;
}

static int stage_tasks(cake__lane_t *lane)
{
    size_t bytes = 0, count = 0;
    int err = 0;
    while (!cake__list_is_empty(&lane->tasks) && count < CAKE__LANE_BATCH_TASKS && bytes < CAKE__LANE_BATCH_BYTES) {
        cake__list_t *link = cake__list_pop_front(&lane->tasks);
        cake__task_t *task = CAKE_CONTAINER_OF(link, cake__task_t, link);
        if (!may_join_batch(lane, task)) {
            cake__list_push_front(&lane->tasks, link);
            break;
        }
        cake__list_push_back(&lane->batch, link);
        count++;
        bytes += task->bytes;
        if (err == 0 && task->keyspace != NULL)
            err = touch(lane, task->keyspace);
        if (err == 0 && task->stage != NULL)
            err = task->stage(task, task->keyspace == NULL ? NULL : task->keyspace->change);
    }
    return err;
}

static int add_write(cake__lane_t *lane, const cake_write_t *write)
{
    cake_write_t *writes =
        cake__grow(lane->store->alloc, lane->writes, lane->write_count, &lane->write_capacity, sizeof *writes);
    if (writes == NULL)
        return CAKE_ENOMEM;
    lane->writes = writes;
    lane->writes[lane->write_count++] = *write;
    return 0;
}

/* A record without a tag is one of ours under a new dot: key and value are filled in from its row (fill_reissued). */
static int add_rows(cake__lane_t *lane, cake__keyspace_t *keyspace)
{
    size_t count;
    int err = 0;
    const cake__staged_t *puts = cake__change_puts(keyspace->change, &count);
    for (size_t i = 0; err == 0 && i < count; i++) {
        const cake__value_t *value = puts[i].tag;
        cake_write_t write = {.kind = puts[i].record.is_tombstone ? CAKE_WRITE_TOMBSTONE : CAKE_WRITE_PUT,
                              .keyspace = cake__slice_str(keyspace->name),
                              .id = puts[i].record.id,
                              .hlc = puts[i].record.hlc,
                              .dot = puts[i].record.dot};
        if (value != NULL) {
            write.key = value->key;
            write.context = value->origin == NULL ? NULL : &value->origin->context;
            write.value = puts[i].record.is_tombstone ? cake__slice(NULL, 0) : value->value;
        }
        lane->has_reissued |= value == NULL;
        err = add_write(lane, &write);
    }
    const cake_id_t *erases = cake__change_erases(keyspace->change, &count);
    for (size_t i = 0; err == 0 && i < count; i++) {
        cake_write_t write = {.kind = CAKE_WRITE_ERASE, .keyspace = cake__slice_str(keyspace->name), .id = erases[i]};
        err = add_write(lane, &write);
    }
    return err;
}

static int add_piece(cake__lane_t *lane, cake__meta_piece_t piece)
{
    cake__meta_piece_t *pieces =
        cake__grow(lane->store->alloc, lane->pieces, lane->piece_count, &lane->piece_capacity, sizeof *pieces);
    if (pieces == NULL)
        return CAKE_ENOMEM;
    lane->pieces = pieces;
    lane->pieces[lane->piece_count++] = piece;
    return 0;
}

typedef void (*keyspace_meta_fn)(cake__keyspace_t *keyspace, cake__buf_t *out, size_t *name_len);

static int add_keyspace_meta(cake__lane_t *lane, cake__keyspace_t *keyspace, keyspace_meta_fn put)
{
    cake__meta_piece_t piece = {.name_at = lane->scratch.len};
    put(keyspace, &lane->scratch, &piece.name_len);
    if (lane->scratch.len == piece.name_at)
        return lane->scratch.err;
    piece.value_at = piece.name_at + piece.name_len;
    piece.value_len = lane->scratch.len - piece.value_at;
    return lane->scratch.err != 0 ? lane->scratch.err : add_piece(lane, piece);
}

/* Model, rule 1: an upper bound of all stamps issued is durable ahead of their use. It is measured from the wall
 * clock: a clock that is ahead of it, as after a restart, moves by the counter alone, and needs little. Measured
 * from the clock, every restart anywhere would push the stamps of the whole cluster further ahead, until all are
 * refused for drift. */
static int add_clock_bound(cake__lane_t *lane)
{
    cake_store_t *store = lane->store;
    cake_hlc_t last = cake_clock_last(cake_node_clock(store->node));
    lane->clock_bound = 0;
    if (last < store->clock_bound)
        return 0;
    lane->clock_bound = cake_hlc_from_parts(cake__max_u64(cake__wall_ms(store->env) + CAKE__CLOCK_RESERVE_MS,
                                                          cake_hlc_unix_ms(last) + CAKE__CLOCK_AHEAD_MS),
                                            0);
    cake__meta_piece_t piece = {lane->scratch.len, strlen(CLOCK_META), lane->scratch.len + strlen(CLOCK_META), 8};
    cake__put_bytes(&lane->scratch, CLOCK_META, strlen(CLOCK_META));
    cake__put_u64(&lane->scratch, lane->clock_bound);
    return lane->scratch.err != 0 ? lane->scratch.err : add_piece(lane, piece);
}

static int add_meta(cake__lane_t *lane, cake_slice_t name, cake_slice_t value)
{
    cake_meta_write_t *metas =
        cake__grow(lane->store->alloc, lane->metas, lane->meta_count, &lane->meta_capacity, sizeof *metas);
    if (metas == NULL)
        return CAKE_ENOMEM;
    lane->metas = metas;
    lane->metas[lane->meta_count++] = (cake_meta_write_t){name, value};
    return 0;
}

static int gather_metas(cake__lane_t *lane)
{
    int err = 0;
    for (size_t i = 0; err == 0 && i < lane->piece_count; i++) {
        const cake__meta_piece_t *piece = &lane->pieces[i];
        err = add_meta(lane, cake__slice(lane->scratch.data + piece->name_at, piece->name_len),
                       cake__slice(lane->scratch.data + piece->value_at, piece->value_len));
    }
    CAKE_LIST_FOR_EACH(link, &lane->batch)
    {
        const cake__task_t *task = CAKE_CONTAINER_OF(link, cake__task_t, link);
        for (size_t i = 0; err == 0 && i < task->meta_count; i++)
            err = add_meta(lane, task->metas[i].name, task->metas[i].value);
    }
    return err;
}

static int make_batch(cake__lane_t *lane)
{
    bool is_dirty = false;
    lane->write_count = lane->piece_count = lane->meta_count = 0;
    lane->has_reissued = false;
    cake__buf_clear(&lane->scratch);
    cake__buf_clear(&lane->reissued);
    int err = stage_tasks(lane);
    CAKE_LIST_FOR_EACH(link, &lane->batch) /* first: what the changes write to the same rows is newer */
    {
        const cake__task_t *task = CAKE_CONTAINER_OF(link, cake__task_t, link);
        if (err == 0 && task->mended != NULL)
            err = add_write(lane, task->mended);
    }
    for (size_t i = 0; err == 0 && i < lane->touched_count; i++) {
        cake__keyspace_t *keyspace = lane->touched[i];
        if (!cake__change_is_dirty(keyspace->change))
            continue;
        is_dirty = true;
        err = add_rows(lane, keyspace);
        if (err == 0)
            err = add_keyspace_meta(lane, keyspace, cake__keyspace_meta);
        if (err == 0)
            err = add_keyspace_meta(lane, keyspace, cake__keyspace_retired_meta);
    }
    lane->clock_bound = 0;
    if (err == 0 && is_dirty)
        err = add_clock_bound(lane);
    return err != 0 ? err : gather_metas(lane);
}

/* ---- writing it: on the lane's thread -----------------------------------------------------------------------------*/

typedef struct {
    cake__buf_t *into;
    size_t key_len, value_len;
    bool is_found;
} reissue_t;

static int on_reissued_row(void *arg, const cake_row_t *row)
{
    reissue_t *reissue = arg;
    reissue->is_found = true;
    reissue->key_len = row->key.len;
    reissue->value_len = row->value.len;
    cake__put_bytes(reissue->into, row->key.data, row->key.len);
    cake__put_bytes(reissue->into, row->value.data, row->value.len);
    return reissue->into->err;
}

static int fill_reissued(cake__lane_t *lane)
{
    cake_storage_t *storage = lane->store->storage;
    for (size_t i = 0; i < lane->write_count; i++) {
        cake_write_t *write = &lane->writes[i];
        if (write->kind == CAKE_WRITE_ERASE || write->key.data != NULL)
            continue;
        reissue_t reissue = {.into = &lane->reissued};
        int err = storage->ops->fetch(storage, write->keyspace, &write->id, 1, on_reissued_row, &reissue);
        if (err != 0 || !reissue.is_found)
            return err != 0 ? err : CAKE_ECORRUPT;
        write->key = cake__slice(NULL, reissue.key_len); /* the buffer may still move */
        write->value = cake__slice(NULL, reissue.value_len);
    }
    const uint8_t *at = lane->reissued.data;
    for (size_t i = 0; i < lane->write_count; i++) {
        cake_write_t *write = &lane->writes[i];
        if (write->kind == CAKE_WRITE_ERASE || write->key.data != NULL)
            continue;
        write->key.data = at;
        write->value.data = at + write->key.len;
        at += write->key.len + write->value.len;
    }
    return 0;
}

static void run_batch(void *arg)
{
    cake__lane_t *lane = arg;
    cake_storage_t *storage = lane->store->storage;
    cake_batch_t batch = {lane->index, lane->writes, lane->write_count, lane->metas, lane->meta_count};
    lane->result = fill_reissued(lane);
    if (lane->result == 0 && (batch.write_count > 0 || batch.meta_count > 0))
        lane->result = storage->ops->write(storage, &batch);
}

static void on_batch_done(void *arg)
{
    cake__lane_t *lane = arg;
    finish_batch(lane, lane->result);
    if (!cake__list_is_empty(&lane->tasks) && !cake__list_is_linked(&lane->ready_link))
        cake__list_push_back(&lane->store->ready_lanes, &lane->ready_link);
    lane->store->env->ops->defer(lane->store->env, &lane->store->drain);
}

/* ---- its end ------------------------------------------------------------------------------------------------------*/

static void commit_keyspace(cake__keyspace_t *keyspace)
{
    cake_store_t *store = keyspace->store;
    size_t count;
    const cake__staged_t *puts = cake__change_puts(keyspace->change, &count);
    if (!cake__list_is_empty(&store->watches)) {
        for (size_t i = 0; i < count; i++)
            cake__tell_change(keyspace, &puts[i]);
    }
    if (!cake__list_is_empty(&keyspace->watches))
        cake__watches_commit(keyspace);
    cake__change_commit(keyspace->change);
    keyspace->change = NULL;
    cake__keyspace_committed(keyspace);
}

/* A batch of which nobody knows whether it reached the disk, or a peer: its dots may turn up, so they are not used
 * again (invariant I0). The new actor costs one entry in the context. */
static void abort_keyspace(cake__keyspace_t *keyspace)
{
    cake__change_abort(keyspace->change);
    keyspace->change = NULL;
    keyspace->actor = cake__draw_u64(keyspace->store->env) | 1;
    cake__orswot_take_actor(keyspace->set, keyspace->actor);
}

static void finish_batch(cake__lane_t *lane, int err)
{
    cake_store_t *store = lane->store;
    cake__list_t done;
    for (size_t i = 0; i < lane->touched_count; i++) {
        if (err == 0)
            commit_keyspace(lane->touched[i]);
        else
            abort_keyspace(lane->touched[i]);
    }
    lane->touched_count = 0;
    if (err != 0 || lane->write_count > 0 || lane->meta_count > 0) /* one without rows says nothing of the disk */
        lane->has_failed = err != 0;
    if (err == 0 && lane->clock_bound > store->clock_bound)
        store->clock_bound = lane->clock_bound;
    store->stats.commits += err == 0;
    store->stats.commits_failed += err != 0;
    if (err != 0)
        cake__log(store->log, CAKE_LOG_ERROR, "the storage refused a batch of %zu rows: %s", lane->write_count,
                  cake_strerror(err));
    cake__list_init(&done);
    cake__list_splice(&done, &lane->batch);
    lane->is_busy = false;
    cake__list_t *link;
    while ((link = cake__list_pop_front(&done)) != NULL) {
        cake__task_t *task = CAKE_CONTAINER_OF(link, cake__task_t, link);
        CAKE_ASSERT(store->pending_bytes >= task->bytes);
        store->pending_bytes -= task->bytes;
        task->finish(task, err);
    }
    cake__store_check_stopped(store);
}

/* Not where storages get the values from here, which has nothing yet; nor with dots that no message brings (rule 5);
 * nor after a failure: while a disk is full, what it refuses shall not take effect elsewhere. */
static bool may_go_ahead(const cake__lane_t *lane)
{
    return lane->clock_bound == 0 && !lane->store->storage_fetches && !lane->has_reissued && !lane->has_failed;
}

static void start_batch(cake__lane_t *lane)
{
    CAKE_ASSERT(!lane->is_busy && lane->touched_count == 0);
    lane->is_busy = true;
    int err = make_batch(lane);
    if (err != 0) {
        finish_batch(lane, err);
        return;
    }
    bool has_rows = lane->write_count > 0 || lane->meta_count > 0;
    if (lane->worker != NULL && has_rows) {
        lane->store->env->ops->lane_submit(lane->worker, &lane->work);
        if (may_go_ahead(lane))
            cake__writes_send_ahead(lane->store, &lane->batch);
        return;
    }
    run_batch(lane);
    finish_batch(lane, lane->result);
}

/* At the end of a turn of the loop, so that all that came in it goes into one batch. */
void cake__drain_lanes(void *arg)
{
    cake_store_t *store = arg;
    cake__list_t *link;
    while ((link = cake__list_pop_front(&store->ready_lanes)) != NULL) {
        cake__lane_t *lane = CAKE_CONTAINER_OF(link, cake__lane_t, ready_link);
        if (!lane->is_busy && !cake__list_is_empty(&lane->tasks))
            start_batch(lane);
        bool has_more = !lane->is_busy && !cake__list_is_empty(&lane->tasks);
        if (has_more && !cake__list_is_linked(&lane->ready_link))
            cake__list_push_back(&store->ready_lanes, &lane->ready_link);
    }
}

void cake__lane_submit(cake__lane_t *lane, cake__task_t *task)
{
    cake_store_t *store = lane->store;
    cake__list_init(&task->link);
    cake__list_push_back(&lane->tasks, &task->link);
    store->pending_bytes += task->bytes;
    if (lane->is_busy)
        return; /* on_batch_done drains again */
    if (!cake__list_is_linked(&lane->ready_link))
        cake__list_push_back(&store->ready_lanes, &lane->ready_link);
    store->env->ops->defer(store->env, &store->drain);
}

/* ---- opening and freeing ------------------------------------------------------------------------------------------*/

int cake__lanes_open(cake_store_t *store)
{
    for (unsigned i = 0; i < store->lane_count; i++) {
        cake__lane_t *lane = &store->lanes[i];
        lane->work = (cake_work_t){.run = run_batch, .done = on_batch_done, .arg = lane};
        if (store->is_inline)
            continue;
        int err = store->env->ops->lane_open(store->env, "cake-lane", &lane->worker);
        if (err != 0)
            return err;
    }
    return 0;
}

bool cake__lanes_are_idle(const cake_store_t *store)
{
    for (unsigned i = 0; i < store->lane_count; i++) {
        if (store->lanes[i].is_busy || !cake__list_is_empty(&store->lanes[i].tasks))
            return false;
    }
    return true;
}

void cake__lanes_free(cake_store_t *store)
{
    for (unsigned i = 0; i < store->lane_count; i++) {
        cake__lane_t *lane = &store->lanes[i];
        cake__free(store->alloc, lane->touched);
        cake__free(store->alloc, lane->writes);
        cake__free(store->alloc, lane->pieces);
        cake__free(store->alloc, lane->metas);
        cake__buf_free(&lane->scratch);
        cake__buf_free(&lane->reissued);
    }
    cake__free(store->alloc, store->lanes);
}
