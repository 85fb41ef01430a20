/* Reading with a level: the newest of the answers of as many replicas as the level takes; those that answered with less
 * are sent it (read repair). A node that has not joined is no replica: it neither answers nor counts as its own answer,
 * as it may have little, or what others have deleted and purged since it was here. When one that answers knows other
 * replicas than this node, the majority that was asked may be none: once both know the same (registry.c), as many are
 * asked again as it takes then.
 *
 *   read    hail, keyspace string, key string        answer  hail, is_known u8, (actor u64, operation)? */
#include "store/store.h"

#define AGAIN_MS 20u

typedef struct {
    cake_record_t record;
    cake_slice_t value; /* allocated */
    uint16_t node_id;   /* who answered so */
    bool is_known;
} answer_t;

typedef struct {
    cake_post_t post;
    cake_work_t work;
    cake__task_t repair; /* of this node itself */
    cake_timer_t timer, again_timer;
    cake_store_t *store;
    cake__keyspace_t *keyspace;
    cake_consistency_t level;
    cake_done_fn done;
    void *arg;
    int err;
    bool is_over;
    bool is_here; /* best, on this node, which may have refused it: before it has joined, for one */
    uint32_t running, responses, required;
    uint32_t registry; /* by which they were chosen */
    cake_id_t id;
    answer_t best;
    cake__value_t best_value;
    cake__origin_t origin; /* of best, when this node itself is mended */
    struct asked {
        uint16_t node_id;
        bool has_answered;
        bool is_outside;   /* as it said with its answer */
        uint32_t registry; /* likewise: that it answered by */
        uint64_t hlc;
        cake_dot_t dot;
    } * asked; /* [0] is this node */
    size_t asked_count;
    size_t keyspace_len, key_len;
    char names[]; /* keyspace, then key */
} read_at_t;

typedef struct {
    read_at_t *read;
    size_t index;
} ask_t;

static cake_slice_t keyspace_of(const read_at_t *read)
{
    return cake__slice(read->names, read->keyspace_len);
}

static cake_slice_t key_of(const read_at_t *read)
{
    return cake__slice(read->names + read->keyspace_len, read->key_len);
}

/* ---- the newest answer --------------------------------------------------------------------------------------------*/

static bool is_newer(const cake_record_t *a, const cake_record_t *b)
{
    if (a->hlc != b->hlc)
        return a->hlc > b->hlc;
    return a->dot.actor != b->dot.actor ? a->dot.actor > b->dot.actor : a->dot.seq > b->dot.seq;
}

static int take_answer(read_at_t *read, size_t index, const cake_record_t *record, cake_slice_t value)
{
    read->asked[index].has_answered = true;
    read->responses++;
    if (record == NULL)
        return 0;
    read->asked[index].hlc = record->hlc;
    read->asked[index].dot = record->dot;
    if (read->best.is_known && !is_newer(record, &read->best.record))
        return 0;
    void *copy = cake__memdup(read->store->alloc, value.data, value.len);
    if (copy == NULL)
        return CAKE_ENOMEM;
    cake__free(read->store->alloc, (void *)(uintptr_t)read->best.value.data);
    read->best = (answer_t){*record, cake__slice(copy, value.len), read->asked[index].node_id, true};
    return 0;
}

static bool is_stale(const read_at_t *read, size_t index)
{
    const struct asked *asked = &read->asked[index];
    const cake_record_t *best = &read->best.record;
    return asked->has_answered && (asked->dot.actor != best->dot.actor || asked->dot.seq != best->dot.seq);
}

/* ---- repair -------------------------------------------------------------------------------------------------------*/

static int stage_repair(cake__task_t *task, cake__change_t *change)
{
    read_at_t *read = CAKE_CONTAINER_OF(task, read_at_t, repair);
    return cake__stage_received(change, &read->best.record, &read->best_value, 1, &read->is_here);
}

static void release(read_at_t *read)
{
    cake_store_t *store = read->store;
    if (--read->running > 0)
        return;
    cake__free(store->alloc, (void *)(uintptr_t)read->best.value.data);
    cake__free(store->alloc, read->asked);
    cake__free(store->alloc, read);
    store->reads_running--;
    cake__store_check_stopped(store);
}

static void send_to_stale(read_at_t *read)
{
    cake_store_t *store = read->store;
    cake__buf_t buf;
    cake__buf_init(&buf, store->alloc);
    cake__put_string(&buf, keyspace_of(read));
    cake__put_u64(&buf, read->best.record.dot.actor);
    cake__put_varint(&buf, 1);
    cake__put_operation(&buf, &read->best.record, &read->best_value);
    cake__unit_t *unit = buf.err != 0 ? NULL : cake__unit_new(store, buf.len, 1, NULL);
    if (unit != NULL)
        memcpy(unit->bytes, buf.data, buf.len);
    cake__buf_free(&buf);
    for (size_t i = 1; unit != NULL && i < read->asked_count; i++) {
        cake__peer_t *peer = cake__peer_find(store, read->asked[i].node_id);
        if (is_stale(read, i) && peer != NULL && cake__peer_is_there(peer))
            cake__peer_enqueue(peer, unit, false);
    }
    if (unit != NULL)
        cake__unit_release(store, unit);
}

static void finish_repair(cake__task_t *task, int err)
{
    read_at_t *read = CAKE_CONTAINER_OF(task, read_at_t, repair);
    if (err == 0 && read->is_here && !cake__store_is_stopping(read->store))
        send_to_stale(read);
    release(read);
}

/* Here first, or nobody is sent it: whoever sends a write has it on its disk, since storages may fetch the rest from
 * there. */
static void repair_stale(read_at_t *read)
{
    cake_store_t *store = read->store;
    read->best_value = (cake__value_t){.key = key_of(read), .value = read->best.value};
    if (read->asked[0].has_answered && !is_stale(read, 0)) {
        send_to_stale(read);
        return;
    }
    read->running++;
    cake__origin_init(&read->origin, store, read->best.node_id);
    read->best_value.origin = &read->origin;
    read->repair = (cake__task_t){.keyspace = read->keyspace,
                                  .bytes = read->best.value.len,
                                  .stage = stage_repair,
                                  .finish = finish_repair,
                                  .origin = &read->origin};
    cake__lane_submit(read->keyspace->lane, &read->repair);
}

/* ---- the end ------------------------------------------------------------------------------------------------------*/

static void finish(read_at_t *read, int err)
{
    cake_store_t *store = read->store;
    cake_doc_t *doc = NULL;
    if (read->is_over)
        return;
    read->is_over = true;
    store->env->ops->timer_cancel(store->env, &read->timer);
    bool is_live = read->best.is_known && !read->best.record.is_tombstone;
    if (err == 0 && !is_live)
        err = CAKE_ENOTFOUND;
    if (err == 0) {
        doc = cake_doc_new(store->alloc, key_of(read), read->best.value, read->best.record.hlc, read->best.record.dot);
        err = doc == NULL ? CAKE_ENOMEM : 0;
    }
    const cake_result_t result = {.err = err,
                                  .timestamp = read->best.is_known ? read->best.record.hlc : 0,
                                  .responses = read->responses,
                                  .required = read->required,
                                  .live = read->responses,
                                  .timeout_ms = store->options.timeout_ms,
                                  .docs = &doc,
                                  .doc_count = 1,
                                  .message = cake_strerror(err)};
    read->done(&result, read->arg);
    if (read->best.is_known && !cake__store_is_stopping(store))
        repair_stale(read);
}

/* The others, on who the replicas are. */
static bool do_all_agree(const read_at_t *read)
{
    bool all = cake__level_takes_answer(read->store, read->level, read->registry, false);
    for (size_t i = 1; i < read->asked_count; i++)
        all &= cake__level_takes_answer(read->store, read->level, read->asked[i].registry, read->asked[i].is_outside);
    return all;
}

static void check_over(read_at_t *read)
{
    if (read->is_over || read->responses < read->asked_count)
        return;
    if (do_all_agree(read)) {
        finish(read, read->err);
        return;
    }
    read->running++;
    cake__timer_arm_ms(read->store->env, &read->again_timer, AGAIN_MS);
}

static void on_timeout(void *arg)
{
    finish(arg, CAKE_ECONSISTENCY);
}

/* ---- asking -------------------------------------------------------------------------------------------------------*/

static int parse_answer(read_at_t *read, size_t index, cake_slice_t body)
{
    cake__reader_t reader = cake__reader(body.data, body.len);
    cake__hail_t hail;
    cake_record_t record;
    cake__value_t value;
    int err = cake__get_hail(read->store, &reader, &hail);
    if (err == 0) {
        read->asked[index].registry = hail.registry;
        read->asked[index].is_outside = !hail.is_joined || hail.is_alone;
        cake__peer_heard(read->store, &hail);
    }
    bool is_known = cake__get_u8(&reader) == 1;
    uint64_t actor = is_known ? cake__get_u64(&reader) : 0;
    if (is_known)
        cake__get_operation(&reader, actor, &record, &value);
    if (err == 0 && !cake__reader_done(&reader))
        err = CAKE_EPARSE;
    return err != 0
               ? err
               : take_answer(read, index, is_known ? &record : NULL, is_known ? value.value : cake__slice(NULL, 0));
}

static void on_answered(cake_reply_t *reply, void *arg)
{
    ask_t *ask = arg;
    read_at_t *read = ask->read;
    int err = cake_reply_err(reply);
    if (!read->is_over) {
        if (err == 0)
            err = parse_answer(read, ask->index, cake_reply_body(reply));
        if (err != 0)
            finish(read, CAKE_ECONSISTENCY);
        else
            check_over(read);
    }
    cake_reply_free(reply);
    cake__free(read->store->alloc, ask);
    release(read);
}

static int ask_peer(read_at_t *read, size_t index)
{
    cake_store_t *store = read->store;
    ask_t *ask = cake__calloc(store->alloc, 1, sizeof *ask);
    if (ask == NULL)
        return CAKE_ENOMEM;
    *ask = (ask_t){read, index};
    cake__buf_t out;
    cake__buf_init(&out, store->alloc);
    cake__put_hail(store, &out);
    cake__put_string(&out, keyspace_of(read));
    cake__put_string(&out, key_of(read));
    cake_slice_t body = cake__buf_slice(&out);
    int err = out.err;
    if (err == 0)
        err = cake__store_call(store, read->asked[index].node_id, "read", &body, 1, store->options.timeout_ms,
                               on_answered, ask);
    if (err == 0)
        read->running++;
    else
        cake__free(store->alloc, ask);
    cake__buf_free(&out);
    return err;
}

static int on_local_row(void *arg, const cake_row_t *row)
{
    read_at_t *read = arg;
    cake_record_t record = {row->id, row->hlc, row->dot, row->is_tombstone};
    return read->err = take_answer(read, 0, &record, row->value);
}

static void run_local(void *arg)
{
    read_at_t *read = arg;
    cake_storage_t *storage = read->store->storage;
    uint32_t before = read->responses;
    read->err = storage->ops->fetch(storage, keyspace_of(read), &read->id, 1, on_local_row, read);
    if (read->err == 0 && read->responses == before)
        read->err = take_answer(read, 0, NULL, cake__slice(NULL, 0));
}

static void ask_peers(read_at_t *read)
{
    int err = read->err;
    for (size_t i = 1; err == 0 && i < read->asked_count; i++)
        err = ask_peer(read, i);
    /* CAKE_ENOTFOUND here is a replica that this run has not met yet: it says nothing of the document. */
    if (err != 0)
        finish(read, err == CAKE_ENOTFOUND ? CAKE_ECONSISTENCY : err);
    else
        check_over(read);
}

static void on_local_read(void *arg)
{
    read_at_t *read = arg;
    ask_peers(read);
    release(read);
}

/* Keeps what this node itself has answered. */
static int choose_peers(read_at_t *read, cake_result_t *result)
{
    cake_store_t *store = read->store;
    cake_selection_t selection = {.level = read->level};
    const cake_candidate_t *candidates = NULL;
    int err = cake__level_candidates(store, read->level, &candidates, &selection.count, result);
    if (err != 0)
        return err;
    selection.candidates = candidates;
    selection.nodes = cake__calloc(store->alloc, selection.count, sizeof *selection.nodes);
    struct asked *asked = cake__calloc(store->alloc, selection.count + 1, sizeof *asked);
    if (selection.nodes == NULL || asked == NULL) {
        cake__free(store->alloc, selection.nodes);
        cake__free(store->alloc, asked);
        return CAKE_ENOMEM; /* those asked before stay: the read may end with what they said */
    }
    err = cake__node_select(store->node, &selection);
    if (read->asked != NULL)
        asked[0] = read->asked[0];
    cake__free(store->alloc, read->asked);
    read->asked = asked;
    read->registry = store->registry;
    read->asked_count = selection.node_count + 1;
    read->required = (uint32_t)read->asked_count;
    for (size_t i = 0; err == 0 && i < selection.node_count; i++)
        read->asked[i + 1].node_id = selection.nodes[i];
    result->live = selection.live;
    result->required = selection.required;
    cake__free(store->alloc, selection.nodes);
    return err;
}

static void on_again(void *arg)
{
    read_at_t *read = arg;
    cake_result_t unused;
    if (!read->is_over) {
        int err = cake__store_is_stopping(read->store) ? CAKE_ECLOSED : choose_peers(read, &unused);
        read->responses = 1;
        if (err == 0)
            ask_peers(read);
        else
            finish(read, err);
    }
    release(read);
}

static void on_posted(void *arg)
{
    read_at_t *read = arg;
    cake_store_t *store = read->store;
    cake_result_t result = {0};
    store->reads_running++;
    read->running = 1;
    int err = cake__store_is_stopping(store) ? CAKE_ECLOSED : 0;
    if (err == 0 && !store->is_joined && read->level != CAKE_NONE)
        err = CAKE_ENOTJOINED;
    if (err == 0)
        err = choose_peers(read, &result);
    if (err == 0)
        err = cake__keyspace_find(store, keyspace_of(read), true, &read->keyspace);
    if (err != 0) {
        result.err = err;
        result.message = cake_strerror(err);
        read->is_over = true;
        read->done(&result, read->arg);
        release(read);
        return;
    }
    cake__timer_arm_ms(store->env, &read->timer, store->options.timeout_ms);
    if (store->is_inline) {
        run_local(read);
        on_local_read(read);
        return;
    }
    read->work = (cake_work_t){.run = run_local, .done = on_local_read, .arg = read};
    store->env->ops->lane_submit(store->reads_anywhere ? store->reader : read->keyspace->lane->worker, &read->work);
}

int cake_store_get_at_async(cake_store_t *store, const char *keyspace, cake_key_t key, cake_consistency_t level,
                            cake_done_fn fn, void *arg)
{
    cake_id_t id;
    cake_slice_t name = cake__slice_str(keyspace == NULL ? "" : keyspace), slice = cake_key_slice(&key);
    if (cake_consistency_name(level) == NULL || !cake__is_name(name, CAKE_KEYSPACE_NAME_MAX) ||
        cake__key_id(slice, &id) != 0)
        return CAKE_EINVAL;
    read_at_t *read = cake__calloc(store->alloc, 1, sizeof *read + name.len + slice.len);
    if (read == NULL)
        return CAKE_ENOMEM;
    read->store = store;
    read->level = level;
    read->done = fn;
    read->arg = arg;
    read->id = id;
    read->keyspace_len = name.len;
    read->key_len = slice.len;
    memcpy(read->names, name.data, name.len);
    memcpy(read->names + name.len, slice.data, slice.len);
    read->timer = CAKE_TIMER_INIT(on_timeout, read);
    read->again_timer = CAKE_TIMER_INIT(on_again, read);
    read->post = (cake_post_t){.fn = on_posted, .arg = read};
    __atomic_fetch_add(&store->reads, 1, __ATOMIC_RELAXED);
    store->env->ops->post(store->env, &read->post);
    return 0;
}

/* ---- answering ----------------------------------------------------------------------------------------------------*/

typedef struct {
    cake_work_t work;
    cake_store_t *store;
    cake_rpc_call_t *call;
    cake_slice_t keyspace;
    cake_id_t id;
    bool is_known;
    int err;
    cake__buf_t out;
} answering_t;

static int on_asked_row(void *arg, const cake_row_t *row)
{
    answering_t *answering = arg;
    cake_record_t record = {row->id, row->hlc, row->dot, row->is_tombstone};
    cake__value_t value = {.key = row->key, .value = row->value};
    answering->is_known = true;
    cake__put_u64(&answering->out, row->dot.actor);
    cake__put_operation(&answering->out, &record, &value);
    return answering->out.err;
}

static void run_answering(void *arg)
{
    answering_t *answering = arg;
    cake_storage_t *storage = answering->store->storage;
    answering->err = storage->ops->fetch(storage, answering->keyspace, &answering->id, 1, on_asked_row, answering);
}

static void end_answering(void *arg)
{
    answering_t *answering = arg;
    cake_store_t *store = answering->store;
    cake__buf_t head;
    cake__buf_init(&head, store->alloc);
    cake__put_hail(store, &head);
    cake__put_u8(&head, answering->is_known);
    int err = answering->err != 0 ? answering->err : head.err;
    const cake_slice_t parts[] = {cake__buf_slice(&head), cake__buf_slice(&answering->out)};
    if (err == 0)
        (void)cake_rpc_replyv(answering->call, parts, CAKE_COUNT_OF(parts));
    else
        (void)cake_rpc_fail(answering->call, err, NULL);
    cake__buf_free(&head);
    cake__buf_free(&answering->out);
    cake__free(store->alloc, answering);
}

void cake__handle_read(cake_rpc_call_t *call, void *arg)
{
    cake_store_t *store = arg;
    cake_slice_t body = cake_rpc_body(call);
    cake__reader_t reader = cake__reader(body.data, body.len);
    cake__hail_t hail;
    answering_t *answering = cake__calloc(store->alloc, 1, sizeof *answering);
    int err = answering == NULL ? CAKE_ENOMEM : cake__store_is_stopping(store) ? CAKE_ECLOSED : 0;
    if (err == 0)
        err = cake__get_hail(store, &reader, &hail);
    if (err == 0 && !store->is_joined)
        err = CAKE_ENOTJOINED;
    if (err == 0) {
        answering->keyspace = cake__get_string(&reader, CAKE_KEYSPACE_NAME_MAX);
        cake_slice_t key = cake__get_string(&reader, CAKE_KEY_MAX);
        bool is_valid = cake__reader_done(&reader) && cake__is_name(answering->keyspace, CAKE_KEYSPACE_NAME_MAX) &&
                        cake__key_id(key, &answering->id) == 0;
        err = is_valid ? 0 : CAKE_EPARSE;
    }
    if (err != 0) {
        cake__free(store->alloc, answering);
        cake_rpc_fail(call, err, NULL);
        return;
    }
    answering->store = store;
    answering->call = call;
    cake__buf_init(&answering->out, store->alloc);
    if (store->is_inline) {
        run_answering(answering);
        end_answering(answering);
        return;
    }
    unsigned lane = store->storage->ops->lane_of(store->storage, answering->keyspace);
    answering->work = (cake_work_t){.run = run_answering, .done = end_answering, .arg = answering};
    store->env->ops->lane_submit(store->reads_anywhere ? store->reader : store->lanes[lane].worker, &answering->work);
}
