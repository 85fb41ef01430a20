/* Writing: from a call to a committed batch to the answers of the peers its level waits for. */
#include "store/write.h"

static void complete(cake__write_t *write, const cake_result_t *result)
{
    cake_store_t *store = write->store;
    CAKE_ASSERT(write->phase != CAKE__WRITE_DONE);
    write->phase = CAKE__WRITE_DONE;
    store->env->ops->timer_cancel(store->env, &write->timer);
    cake__list_remove(&write->link);
    cake__list_remove(&write->keyspace_link);
    store->write_bytes -= write->is_counted ? write->task.bytes : 0;
    if (write->unit != NULL) {
        write->unit->write = NULL;
        cake__unit_release(store, write->unit);
    }
    store->stats.writes += result->err == 0 || result->err == CAKE_ECONSISTENCY;
    store->stats.writes_failed += result->err != 0;
    write->done(result, write->arg);
    if (write->selected != write->selected_here)
        cake__free(store->alloc, write->selected);
    if (write->answered != write->answered_here)
        cake__free(store->alloc, write->answered);
    if (write->needs != write->needs_here)
        cake__free(store->alloc, write->needs);
    cake__free(store->alloc, write);
    cake__store_check_stopped(store);
}

static void fail(cake__write_t *write, int err)
{
    cake_result_t result = {.err = err, .message = cake_strerror(err)};
    if (err == CAKE_ECONFLICT)
        result.timestamp = write->found;
    complete(write, &result);
}

static void succeed(cake__write_t *write)
{
    cake_result_t result = {.timestamp = write->items[write->count - 1].record.hlc, .message = cake_strerror(0)};
    complete(write, &result);
}

/* ---- levels -------------------------------------------------------------------------------------------------------*/

static uint64_t data_center_hash(const char *name)
{
    uint64_t hash = cake__hash_bytes(name, strlen(name));
    return hash == 0 ? 1 : hash;
}

static void add_need(cake__write_t *write, uint64_t data_center, uint32_t known, bool counts_local)
{
    uint32_t majority = known / 2 + 1;
    write->required += majority;
    write->counted_local += counts_local;
    uint32_t others = counts_local ? majority - 1 : majority;
    if (others > 0)
        write->needs[write->need_count++] = (cake__need_t){data_center, others};
}

/* One need per data centre of each_quorum; the local node's first. */
static void add_each_need(cake__write_t *write, const cake_candidate_t *candidates, size_t count)
{
    const char *local = cake_node_data_center(write->store->node);
    uint32_t known = 1;
    for (size_t i = 0; i < count; i++)
        known += strcmp(candidates[i].data_center, local) == 0;
    add_need(write, data_center_hash(local), known, true);
    for (size_t i = 0; write->level == CAKE_EACH_QUORUM && i < count; i++) {
        const char *name = candidates[i].data_center;
        bool is_new = strcmp(name, local) != 0;
        for (size_t k = 0; k < i && is_new; k++)
            is_new = strcmp(candidates[k].data_center, name) != 0;
        known = 0;
        for (size_t k = 0; k < count && is_new; k++)
            known += strcmp(candidates[k].data_center, name) == 0;
        if (is_new)
            add_need(write, data_center_hash(name), known, false);
    }
}

/* What it takes, counted over every known replica, so that the answer of any of them helps, not only of those
 * chosen. */
static int count_needs(cake__write_t *write, const cake_candidate_t *candidates, size_t count)
{
    write->needs = count < CAKE__WRITE_HERE ? write->needs_here
                                            : cake__calloc(write->store->alloc, count + 1, sizeof *write->needs);
    if (write->needs == NULL)
        return CAKE_ENOMEM;
    switch (write->level) {
    case CAKE_NONE:
        break;
    case CAKE_ONE:
    case CAKE_TWO:
    case CAKE_THREE:
        write->required = (uint32_t)write->level;
        write->needs[write->need_count++] = (cake__need_t){0, write->required};
        break;
    case CAKE_QUORUM:
        add_need(write, 0, (uint32_t)count + 1, true);
        break;
    case CAKE_LOCAL_QUORUM:
    case CAKE_EACH_QUORUM:
        add_each_need(write, candidates, count);
        break;
    case CAKE_ALL:
        write->required = (uint32_t)count + 1;
        write->counted_local = 1;
        if (count > 0)
            write->needs[write->need_count++] = (cake__need_t){0, (uint32_t)count};
        break;
    }
    return 0;
}

/* Picks the nodes of the level, or fails at once, before anything is written. */
static int select_nodes(cake__write_t *write, cake_result_t *result)
{
    cake_store_t *store = write->store;
    cake_selection_t selection = {.level = write->level};
    if (write->level == CAKE_NONE)
        return 0;
    const cake_candidate_t *candidates;
    int err = cake__level_candidates(store, write->level, &candidates, &selection.count, result);
    if (err != 0)
        return err;
    selection.candidates = candidates;
    if (selection.count <= CAKE__WRITE_HERE) {
        write->selected = write->selected_here;
        write->answered = write->answered_here;
    } else {
        write->selected = cake__calloc(store->alloc, selection.count, sizeof *write->selected);
        write->answered = cake__calloc(store->alloc, selection.count, sizeof *write->answered);
        if (write->selected == NULL || write->answered == NULL)
            return CAKE_ENOMEM;
    }
    write->answered_capacity = selection.count;
    selection.nodes = write->selected;
    err = cake__node_select(store->node, &selection);
    write->selected_count = selection.node_count;
    if (err == CAKE_ENOTENOUGHNODES) {
        result->live = selection.live;
        result->required = selection.required;
    }
    return err != 0 ? err : count_needs(write, candidates, selection.count);
}

static bool is_reached(const cake__write_t *write)
{
    for (size_t i = 0; i < write->need_count; i++) {
        if (write->needs[i].count > 0)
            return false;
    }
    return true;
}

bool cake__write_wants(const cake__write_t *write, uint16_t node_id)
{
    for (size_t i = 0; i < write->selected_count; i++) {
        if (write->selected[i] == node_id)
            return true;
    }
    return write->has_lost_peer;
}

static void count_answer(cake__write_t *write, uint16_t node_id)
{
    const cake__peer_t *peer = cake__peer_find(write->store, node_id);
    if (peer == NULL ||
        !cake__level_takes_answer(write->store, write->level, peer->registry, cake__peer_is_outside(peer)))
        return; /* cake__writes_recount comes back to it */
    uint64_t hash = data_center_hash(peer->data_center);
    for (size_t i = 0; i < write->need_count; i++) {
        cake__need_t *need = &write->needs[i];
        if (need->count > 0 && (need->data_center_hash == 0 || need->data_center_hash == hash))
            need->count--;
    }
}

void cake__write_acked(cake__write_t *write, uint16_t node_id)
{
    if (write->answered_count == write->answered_capacity)
        return;
    for (size_t i = 0; i < write->answered_count; i++) {
        if (write->answered[i] == node_id)
            return;
    }
    write->answered[write->answered_count++] = node_id;
    count_answer(write, node_id);
    if (write->phase == CAKE__WRITE_WAITING && is_reached(write))
        succeed(write);
}

static int grow_answered(cake__write_t *write, size_t capacity)
{
    if (capacity <= write->answered_capacity)
        return 0;
    uint16_t *bigger = cake__calloc(write->store->alloc, capacity, sizeof *bigger);
    if (bigger == NULL)
        return CAKE_ENOMEM;
    memcpy(bigger, write->answered, write->answered_count * sizeof *bigger);
    if (write->answered != write->answered_here)
        cake__free(write->store->alloc, write->answered);
    write->answered = bigger;
    write->answered_capacity = capacity;
    return 0;
}

static void free_needs(cake__write_t *write)
{
    if (write->needs != write->needs_here)
        cake__free(write->store->alloc, write->needs);
    write->needs = write->needs_here;
    write->need_count = 0;
    write->required = write->counted_local = 0;
}

/* Without memory it is not reached: the call ends with its time-out. */
static void recount(cake__write_t *write)
{
    const cake_candidate_t *candidates;
    size_t count;
    uint32_t required = write->required, counted_local = write->counted_local;
    free_needs(write);
    int err = cake__candidates(write->store, &candidates, &count);
    if (err == 0)
        err = grow_answered(write, count);
    if (err == 0)
        err = count_needs(write, candidates, count);
    if (err != 0) {
        write->needs = write->needs_here;
        write->needs[0] = (cake__need_t){0, UINT32_MAX};
        write->need_count = 1;
        write->required = required;
        write->counted_local = counted_local;
    }
    for (size_t i = 0; err == 0 && i < write->answered_count; i++)
        count_answer(write, write->answered[i]);
}

void cake__writes_recount(cake_store_t *store)
{
    CAKE_LIST_FOR_EACH_SAFE(link, &store->writes)
    {
        cake__write_t *write = CAKE_CONTAINER_OF(link, cake__write_t, link);
        bool is_counted = write->phase == CAKE__WRITE_STAGED || write->phase == CAKE__WRITE_WAITING;
        if (!is_counted || write->level < CAKE_QUORUM)
            continue;
        recount(write);
        if (write->phase == CAKE__WRITE_WAITING && is_reached(write))
            succeed(write);
    }
}

/* A peer's context covers every dot of the write: however it got them, it has them on disk. */
void cake__writes_check_context(cake__keyspace_t *keyspace, uint16_t node_id, const cake__context_t *context)
{
    CAKE_LIST_FOR_EACH_SAFE(link, &keyspace->writes)
    {
        cake__write_t *write = CAKE_CONTAINER_OF(link, cake__write_t, keyspace_link);
        bool has_all = true;
        for (size_t i = 0; i < write->count && has_all; i++)
            has_all = cake__context_contains(context, write->items[i].record.dot);
        if (has_all)
            cake__write_acked(write, node_id);
    }
}

void cake__writes_acked_all(cake_store_t *store, uint16_t node_id, uint64_t version)
{
    CAKE_LIST_FOR_EACH_SAFE(link, &store->writes)
    {
        cake__write_t *write = CAKE_CONTAINER_OF(link, cake__write_t, link);
        if (write->phase == CAKE__WRITE_WAITING && write->task.keyspace->changed_version <= version)
            cake__write_acked(write, node_id);
    }
}

/* ---- phases -------------------------------------------------------------------------------------------------------*/

static void begin(cake__write_t *write);

static void on_deadline(void *arg)
{
    cake__write_t *write = arg;
    if (write->phase == CAKE__WRITE_HELD) {
        fail(write, CAKE_ENOTJOINED);
        return;
    }
    CAKE_ASSERT(write->phase == CAKE__WRITE_WAITING);
    cake_result_t result = {.err = CAKE_ECONSISTENCY,
                            .timestamp = write->items[write->count - 1].record.hlc,
                            .responses = (uint32_t)write->answered_count + write->counted_local,
                            .required = write->required,
                            .timeout_ms = write->store->options.timeout_ms,
                            .message = cake_strerror(CAKE_ECONSISTENCY)};
    complete(write, &result);
}

/* Against the set as it stands plus what the batch has staged before: two in one batch cannot both hold. */
static bool does_condition_hold(cake__write_t *write, const cake__change_t *change)
{
    cake_record_t record;
    bool is_there = cake__change_find(change, &write->items[0].id, &record, NULL) && !record.is_tombstone;
    write->found = is_there ? record.hlc : 0;
    return write->found == write->expected;
}

/* The clock, for all documents of a write: the last must still be one that it gives. (A single one it refuses
 * itself.) */
static bool is_clock_too_far_ahead(const cake__write_t *write)
{
    const cake_clock_t *clock = cake_node_clock(write->store->node);
    return write->count > 1 &&
           cake_clock_is_too_far_ahead(clock, cake__wall_ms(write->store->env), cake_clock_last(clock) + write->count);
}

/* All or nothing: the clock is asked before the first document, with room for the last. */
static int stage_write(cake__task_t *task, cake__change_t *change)
{
    cake__write_t *write = CAKE_CONTAINER_OF(task, cake__write_t, task);
    write->stage_err = is_clock_too_far_ahead(write) ? CAKE_EDRIFT : 0;
    if (write->stage_err == 0 && write->has_condition && !does_condition_hold(write, change))
        write->stage_err = CAKE_ECONFLICT;
    for (size_t i = 0; i < write->count && write->stage_err == 0; i++) {
        cake__write_item_t *item = &write->items[i];
        int err = cake__change_write(change, &item->id, write->is_delete, &item->value, &item->record);
        if (err == CAKE_EDRIFT || err == CAKE_ENOTJOINED)
            write->stage_err = err;
        else if (err != 0)
            return err;
        if (write->stage_err != 0 && i > 0)
            return write->stage_err; /* the documents before it must not stand alone */
    }
    return 0;
}

/* Encoded in place: an operation takes at most 24 bytes beside its key and value. */
static cake__unit_t *make_unit(cake__write_t *write)
{
    size_t most = write->task.bytes + write->count * 24 + 160;
    cake__unit_t *unit = cake__unit_new(write->store, most, (uint32_t)write->count, write);
    if (unit == NULL)
        return NULL;
    cake__buf_t buf = {.data = unit->bytes, .capacity = most, .max = most};
    cake__put_string(&buf, write->keyspace_name);
    cake__put_u64(&buf, write->items[0].record.dot.actor);
    cake__put_varint(&buf, write->count);
    for (size_t i = 0; i < write->count; i++)
        cake__put_operation(&buf, &write->items[i].record, &write->items[i].value);
    CAKE_ASSERT(buf.err == 0 && buf.data == unit->bytes);
    unit->len = buf.len;
    return unit;
}

/* Without memory for a unit the peers get it through their contexts, as after any lost message. */
static void publish(cake__write_t *write)
{
    cake__list_push_back(&write->task.keyspace->writes, &write->keyspace_link);
    if (write->unit == NULL)
        write->unit = make_unit(write);
    if (write->unit != NULL)
        cake__distribute(write->store, write->unit);
}

/* NULL: another task, or nothing was staged. */
static cake__write_t *staged_write(cake__list_t *link)
{
    cake__task_t *task = CAKE_CONTAINER_OF(link, cake__task_t, link);
    cake__write_t *write = task->stage == stage_write ? CAKE_CONTAINER_OF(task, cake__write_t, task) : NULL;
    return write == NULL || write->stage_err != 0 ? NULL : write;
}

static bool drop_units(cake__list_t *batch)
{
    CAKE_LIST_FOR_EACH(link, batch)
    {
        cake__write_t *write = staged_write(link);
        if (write != NULL && write->unit != NULL)
            cake__unit_release(write->store, write->unit);
        if (write != NULL)
            write->unit = NULL;
    }
    return false;
}

/* False: for want of memory not one. */
static bool make_units(cake__list_t *batch)
{
    bool is_first = true;
    CAKE_LIST_FOR_EACH(link, batch)
    {
        cake__write_t *write = staged_write(link);
        if (write == NULL)
            continue;
        write->unit = make_unit(write);
        if (write->unit == NULL)
            return drop_units(batch);
        write->unit->is_glued = !is_first;
        is_first = false;
    }
    return true;
}

/* Where a level waits for a peer; and all in one message. If this node's disk then refuses the batch, or the process
 * dies, nobody but the peers has these dots: one that had got only the later ones would have a hole for ever, which
 * holds up its tombstones (rule 4). */
void cake__writes_send_ahead(cake_store_t *store, cake__list_t *batch)
{
    size_t bytes = 0, count = 0;
    bool is_waited_for = false;
    CAKE_LIST_FOR_EACH(link, batch)
    {
        const cake__write_t *write = staged_write(link);
        if (write == NULL)
            continue;
        bytes += write->task.bytes;
        count++;
        is_waited_for |= write->selected_count > 0;
    }
    if (!is_waited_for || (count > 1 && bytes > store->options.batch_bytes) || !make_units(batch))
        return;
    CAKE_LIST_FOR_EACH(link, batch)
    {
        cake__write_t *write = staged_write(link);
        if (write != NULL)
            publish(write);
    }
}

/* A node alone has nobody to encode it for: who comes later gets it by a session. */
static bool is_for_nobody(const cake__write_t *write)
{
    return cake__list_is_empty(&write->store->peers) && is_reached(write);
}

static void finish_write(cake__task_t *task, int err)
{
    cake__write_t *write = CAKE_CONTAINER_OF(task, cake__write_t, task);
    cake_store_t *store = write->store;
    if (err == 0)
        err = write->stage_err;
    if (err != 0) {
        fail(write, err);
        return;
    }
    write->phase = CAKE__WRITE_WAITING;
    if (!cake__list_is_linked(&write->keyspace_link) && !is_for_nobody(write))
        publish(write);
    else if (write->unit != NULL && write->has_new_peer)
        cake__distribute(store, write->unit);
    if (write->unit != NULL)
        write->unit->is_glued = false; /* who gets it without the others lacks nothing that is not here */
    if (is_reached(write)) {
        succeed(write);
        return;
    }
    if (cake__store_is_stopping(store)) {
        fail(write, CAKE_ECLOSED);
        return;
    }
    store->env->ops->timer_arm(store->env, &write->timer, write->deadline_ns);
}

/* The chosen one failed at once: those that were to get the write with the next lazy batch are asked now. */
void cake__write_lost_peer(cake__write_t *write)
{
    if (write->has_lost_peer)
        return;
    write->has_lost_peer = true;
    CAKE_LIST_FOR_EACH(link, &write->store->peers)
    cake__peer_flush_urgent(CAKE_CONTAINER_OF(link, cake__peer_t, link));
}

static void begin(cake__write_t *write)
{
    cake_store_t *store = write->store;
    cake_result_t result = {0};
    int err = cake__keyspace_find(store, write->keyspace_name, true, &write->task.keyspace);
    if (err == 0)
        err = select_nodes(write, &result);
    if (err != 0) {
        result.err = err;
        result.message = cake_strerror(err);
        complete(write, &result);
        return;
    }
    write->phase = CAKE__WRITE_STAGED;
    cake__lane_submit(write->task.keyspace->lane, &write->task);
}

static void on_posted(void *arg)
{
    cake__write_t *write = arg;
    cake_store_t *store = write->store;
    cake__list_push_back(&store->writes, &write->link);
    write->deadline_ns = cake__now_ns(store->env) + store->options.timeout_ms * CAKE_NS_PER_MS;
    if (cake__store_is_stopping(store) || cake_node_is_duplicate(store->node)) {
        fail(write, cake__store_is_stopping(store) ? CAKE_ECLOSED : CAKE_EDUPLICATE);
        return;
    }
    if (store->write_bytes + write->task.bytes > store->options.pending_bytes) {
        fail(write, CAKE_EBUSY);
        return;
    }
    store->write_bytes += write->task.bytes;
    write->is_counted = true;
    if (!store->is_joined) {
        write->phase = CAKE__WRITE_HELD;
        store->env->ops->timer_arm(store->env, &write->timer, write->deadline_ns);
    } else {
        begin(write);
    }
}

void cake__writes_send_again(cake__peer_t *peer)
{
    CAKE_LIST_FOR_EACH(link, &peer->store->writes)
    {
        cake__write_t *write = CAKE_CONTAINER_OF(link, cake__write_t, link);
        if (write->phase == CAKE__WRITE_WAITING && write->unit != NULL && cake__peer_is_there(peer))
            cake__peer_enqueue(peer, write->unit, true);
        write->has_new_peer |= write->phase == CAKE__WRITE_STAGED;
    }
}

void cake__writes_release_held(cake_store_t *store)
{
    CAKE_LIST_FOR_EACH_SAFE(link, &store->writes)
    {
        cake__write_t *write = CAKE_CONTAINER_OF(link, cake__write_t, link);
        if (write->phase != CAKE__WRITE_HELD)
            continue;
        store->env->ops->timer_cancel(store->env, &write->timer);
        begin(write);
    }
}

/* Those in a lane end with their batch. */
void cake__writes_fail_all(cake_store_t *store, int err)
{
    CAKE_LIST_FOR_EACH_SAFE(link, &store->writes)
    {
        cake__write_t *write = CAKE_CONTAINER_OF(link, cake__write_t, link);
        if (write->phase == CAKE__WRITE_HELD || write->phase == CAKE__WRITE_WAITING)
            fail(write, err);
    }
}

/* ---- the calls ----------------------------------------------------------------------------------------------------*/

/* What the four calls have in common: the i-th key and value. */
typedef struct {
    const cake_item_t *items; /* or */
    const cake_key_t *keys;
    size_t count;
} documents_t;

static const cake_key_t *key_at(const documents_t *documents, size_t i)
{
    return documents->items != NULL ? &documents->items[i].key : &documents->keys[i];
}

static int measure(cake_store_t *store, const char *keyspace, const documents_t *documents, size_t *bytes)
{
    if (keyspace == NULL || !cake__is_name(cake__slice_str(keyspace), CAKE_KEYSPACE_NAME_MAX))
        return CAKE_EINVAL;
    if (documents->count > CAKE__MANY_MAX)
        return CAKE_ETOOBIG;
    *bytes = strlen(keyspace) + 1;
    for (size_t i = 0; i < documents->count; i++) {
        size_t key_len = key_at(documents, i)->len;
        size_t len = documents->items != NULL ? documents->items[i].len : 0;
        if (key_len == 0 || key_len > CAKE_KEY_MAX)
            return CAKE_EINVAL;
        if (len > 0 && documents->items[i].value == NULL)
            return CAKE_EINVAL;
        if (len > store->options.max_value_bytes || *bytes + key_len + len > CAKE__UNIT_BYTES_MAX)
            return CAKE_ETOOBIG;
        *bytes += key_len + len;
    }
    return 0;
}

static uint8_t *copy_slice(uint8_t *at, cake_slice_t from, cake_slice_t *to)
{
    if (from.len > 0)
        memcpy(at, from.data, from.len);
    *to = cake__slice(at, from.len);
    return at + from.len;
}

static int copy_documents(cake__write_t *write, const char *keyspace, const documents_t *documents)
{
    uint8_t *at = (uint8_t *)&write->items[write->count];
    at = copy_slice(at, cake__slice_str(keyspace), &write->keyspace_name);
    for (size_t i = 0; i < write->count; i++) {
        cake__write_item_t *item = &write->items[i];
        const cake_item_t *given = documents->items == NULL ? NULL : &documents->items[i];
        at = copy_slice(at, cake_key_slice(key_at(documents, i)), &item->value.key);
        at = copy_slice(at, given == NULL ? cake__slice(NULL, 0) : cake__slice(given->value, given->len),
                        &item->value.value);
        int err = cake__key_id(item->value.key, &item->id);
        if (err != 0)
            return err;
    }
    return 0;
}

/* What a call asks for beside its documents. */
typedef struct {
    bool is_delete, has_condition;
    cake_hlc_t expected;
    cake_consistency_t level;
} terms_t;

static int write_documents(cake_store_t *store, const char *keyspace, const documents_t *documents, terms_t terms,
                           cake_done_fn done, void *arg)
{
    size_t bytes;
    int err = measure(store, keyspace, documents, &bytes);
    if (err != 0 || cake_consistency_name(terms.level) == NULL || documents->count == 0)
        return err != 0 ? err : CAKE_EINVAL;
    size_t size = sizeof(cake__write_t) + documents->count * sizeof(cake__write_item_t) + bytes;
    cake__write_t *write = cake__malloc(store->alloc, size);
    if (write == NULL)
        return CAKE_ENOMEM;
    memset(write, 0, sizeof *write + documents->count * sizeof(cake__write_item_t));
    write->count = documents->count;
    err = copy_documents(write, keyspace, documents);
    if (err != 0) {
        cake__free(store->alloc, write);
        return err;
    }
    write->store = store;
    write->is_delete = terms.is_delete;
    write->has_condition = terms.has_condition;
    write->expected = terms.expected;
    write->level = terms.level;
    write->done = done;
    write->arg = arg;
    write->task.bytes = bytes;
    write->task.stage = stage_write;
    write->task.finish = finish_write;
    cake__list_init(&write->link);
    cake__list_init(&write->keyspace_link);
    write->timer = CAKE_TIMER_INIT(on_deadline, write);
    write->post = (cake_post_t){.fn = on_posted, .arg = write};
    store->env->ops->post(store->env, &write->post);
    return 0;
}

int cake_store_put_many_async(cake_store_t *store, const char *keyspace, const cake_item_t *items, size_t count,
                              cake_consistency_t level, cake_done_fn fn, void *arg)
{
    const documents_t documents = {.items = items, .count = count};
    return write_documents(store, keyspace, &documents, (terms_t){.level = level}, fn, arg);
}

int cake_store_put_async(cake_store_t *store, const char *keyspace, cake_key_t key, const void *value, size_t len,
                         cake_consistency_t level, cake_done_fn fn, void *arg)
{
    const cake_item_t item = {key, value, len};
    return cake_store_put_many_async(store, keyspace, &item, 1, level, fn, arg);
}

int cake_store_del_many_async(cake_store_t *store, const char *keyspace, const cake_key_t *keys, size_t count,
                              cake_consistency_t level, cake_done_fn fn, void *arg)
{
    const documents_t documents = {.keys = keys, .count = count};
    return write_documents(store, keyspace, &documents, (terms_t){.is_delete = true, .level = level}, fn, arg);
}

int cake_store_del_async(cake_store_t *store, const char *keyspace, cake_key_t key, cake_consistency_t level,
                         cake_done_fn fn, void *arg)
{
    return cake_store_del_many_async(store, keyspace, &key, 1, level, fn, arg);
}

int cake_store_put_if_async(cake_store_t *store, const char *keyspace, cake_key_t key, const void *value, size_t len,
                            cake_hlc_t expected, cake_consistency_t level, cake_done_fn fn, void *arg)
{
    const cake_item_t item = {key, value, len};
    const documents_t documents = {.items = &item, .count = 1};
    const terms_t terms = {.has_condition = true, .expected = expected, .level = level};
    return write_documents(store, keyspace, &documents, terms, fn, arg);
}

int cake_store_del_if_async(cake_store_t *store, const char *keyspace, cake_key_t key, cake_hlc_t expected,
                            cake_consistency_t level, cake_done_fn fn, void *arg)
{
    const documents_t documents = {.keys = &key, .count = 1};
    const terms_t terms = {.is_delete = true, .has_condition = true, .expected = expected, .level = level};
    return write_documents(store, keyspace, &documents, terms, fn, arg);
}
