/* Comparing sets and rows with another node.
 *
 *   request  hail, keyspace string, kind u8, bits u8, then by kind
 *     SUMS     -                           answer  hail, hash of the context u64, a sum u64 per range of `bits`
 *     LIST     index u32                   answer  hail, hash of the context u64, count varint,
 *                                                  (id, hlc u64, actor u64, seq varint)...
 *     ROW      id                          answer  hail, (actor u64, operation)? where there is a row, live or dead
 *
 * Sets are walked through in pieces, each in a turn of the loop of its own. */
#include "store/verify.h"

#define COMPARE_TIMEOUT_MS 60000u
#define NEXTS_PER_STEP     16u /* of cake_ranges_next: about half a millisecond */

/* ---- lists --------------------------------------------------------------------------------------------------------*/

int cake__range_list_init(cake__range_list_t *list, cake__keyspace_t *keyspace, uint32_t bits, uint32_t index)
{
    *list = (cake__range_list_t){.alloc = keyspace->store->alloc};
    int err = cake_ranges_new(keyspace->set, bits, &list->ranges);
    if (err == 0)
        cake_ranges_seek(list->ranges, bits, index);
    return err;
}

static int reserve(cake__range_list_t *list)
{
    if (list->count + CAKE_RANGES_PART <= list->capacity)
        return 0;
    if (list->count >= CAKE__COMPARE_RECORDS)
        return CAKE_ETOOBIG;
    size_t capacity = list->capacity * 2 + CAKE_RANGES_PART;
    cake_record_t *records = cake__realloc(list->alloc, list->records, capacity * sizeof *records);
    if (records == NULL)
        return CAKE_ENOMEM;
    list->records = records;
    list->capacity = capacity;
    return 0;
}

int cake__range_list_step(cake__range_list_t *list)
{
    for (unsigned i = 0; i < NEXTS_PER_STEP; i++) {
        size_t count;
        int err = reserve(list);
        if (err != 0)
            return err;
        if (cake_ranges_next(list->ranges, list->records + list->count, &count) == 0)
            return 0;
        list->count += count;
    }
    return 1;
}

void cake__range_list_free(cake__range_list_t *list)
{
    if (list->alloc == NULL)
        return;
    cake_ranges_free(list->ranges);
    cake__free(list->alloc, list->records);
    list->ranges = NULL;
    list->records = NULL;
}

/* ---- asking: any thread but the loop ------------------------------------------------------------------------------*/

void cake__compare_put_head(cake__buf_t *out, const char *keyspace, cake__compare_kind_t kind, uint32_t bits)
{
    cake__put_string(out, cake__slice_str(keyspace));
    cake__put_u8(out, (uint8_t)kind);
    cake__put_u8(out, (uint8_t)bits);
}

typedef struct {
    cake_store_t *store;
    uint16_t node_id;
    cake_slice_t request;
    cake_gate_t gate;
    cake__comparison_t *out;
    int err;
} asking_t;

/* That the peer closes, or has left, is not that this store does. */
static int own_view(const cake_store_t *store, int err)
{
    return err == CAKE_ECLOSED && !cake__store_is_stopping(store) ? CAKE_EUNAVAILABLE : err;
}

static void on_answered(cake_reply_t *reply, void *arg)
{
    asking_t *asking = arg;
    cake__hail_t hail;
    cake_slice_t body = cake_reply_body(reply);
    asking->out->reply = reply;
    asking->out->reader = cake__reader(body.data, body.len);
    asking->err = own_view(asking->store, cake_reply_err(reply));
    if (asking->err == 0)
        asking->err = cake__get_hail(asking->store, &asking->out->reader, &hail);
    asking->store->env->ops->gate_open(asking->store->env, &asking->gate);
}

static int begin_asking(void *arg)
{
    asking_t *asking = arg;
    cake__buf_t head;
    cake__buf_init(&head, asking->store->alloc);
    cake__put_hail(asking->store, &head);
    const cake_slice_t parts[] = {cake__buf_slice(&head), asking->request};
    int err = head.err;
    if (err == 0)
        err = cake__store_call(asking->store, asking->node_id, "compare", parts, CAKE_COUNT_OF(parts),
                               COMPARE_TIMEOUT_MS, on_answered, asking);
    cake__buf_free(&head);
    return own_view(asking->store, err);
}

int cake__compare_ask(cake_store_t *store, uint16_t node_id, const cake__buf_t *request, cake__comparison_t *out)
{
    asking_t asking = {.store = store, .node_id = node_id, .request = cake__buf_slice(request), .out = out};
    *out = (cake__comparison_t){0};
    if (request->err != 0)
        return request->err;
    store->env->ops->gate_init(store->env, &asking.gate);
    int err = cake__run_on_loop(store->env, begin_asking, &asking);
    if (err == 0) {
        store->env->ops->gate_wait(store->env, &asking.gate);
        err = asking.err;
    }
    store->env->ops->gate_destroy(store->env, &asking.gate);
    if (err != 0)
        cake__compare_end(out);
    return err;
}

bool cake__compare_get_row(cake__comparison_t *comparison, cake__compared_row_t *out)
{
    if (cake__reader_left(&comparison->reader) == 0)
        return false;
    uint64_t actor = cake__get_u64(&comparison->reader);
    cake__get_operation(&comparison->reader, actor, &out->record, &out->value);
    return cake__reader_done(&comparison->reader);
}

void cake__compare_end(cake__comparison_t *comparison)
{
    cake_reply_free(comparison->reply);
    comparison->reply = NULL;
}

/* ---- answering ----------------------------------------------------------------------------------------------------*/

/* Its call is under way until it is freed, and stopping waits for calls. */
typedef struct {
    cake_store_t *store;
    cake_rpc_call_t *call;
    cake__keyspace_t *keyspace;
    cake__compare_kind_t kind;
    uint32_t bits;
    cake__range_list_t list;
    cake_timer_t timer;
    cake_work_t work;
    cake_id_t id;
    int err;
    cake__buf_t out;
} answering_t;

static void end_answering(answering_t *answering)
{
    cake_store_t *store = answering->store;
    if (answering->err == 0)
        answering->err = answering->out.err;
    if (answering->err == 0)
        cake_rpc_reply(answering->call, answering->out.data, answering->out.len);
    else
        cake_rpc_fail(answering->call, answering->err, NULL);
    cake__range_list_free(&answering->list);
    cake__buf_free(&answering->out);
    cake__free(store->alloc, answering);
}

static void put_sums(answering_t *answering)
{
    cake__put_u64(&answering->out, cake__context_hash(cake__keyspace_context(answering->keyspace)));
    if (!cake_ranges_are_exact(answering->list.ranges))
        answering->err = CAKE_EBUSY; /* written to meanwhile */
    for (uint32_t i = 0; i >> answering->bits == 0; i++)
        cake__put_u64(&answering->out, cake_ranges_fingerprint(answering->list.ranges, answering->bits, i, NULL));
}

static void put_list(answering_t *answering)
{
    const cake__range_list_t *list = &answering->list;
    cake__put_u64(&answering->out, cake__context_hash(cake__keyspace_context(answering->keyspace)));
    cake__put_varint(&answering->out, list->count);
    for (size_t i = 0; i < list->count; i++) {
        const cake_record_t *record = &list->records[i];
        cake__put_bytes(&answering->out, record->id.bytes, sizeof record->id.bytes);
        cake__put_u64(&answering->out, record->hlc);
        cake__put_u64(&answering->out, record->dot.actor);
        cake__put_varint(&answering->out, record->dot.seq);
    }
}

static void on_step(void *arg)
{
    answering_t *answering = arg;
    cake_env_t *env = answering->store->env;
    bool is_list = answering->kind == CAKE__COMPARE_LIST;
    int more = cake__store_is_stopping(answering->store) ? CAKE_ECLOSED
               : is_list                                 ? cake__range_list_step(&answering->list)
                                                         : cake_ranges_step(answering->list.ranges);
    if (more > 0) {
        env->ops->timer_arm(env, &answering->timer, cake__now_ns(env));
        return;
    }
    answering->err = more;
    if (more == 0 && is_list)
        put_list(answering);
    else if (more == 0)
        put_sums(answering);
    end_answering(answering);
}

static int on_row(void *arg, const cake_row_t *row)
{
    answering_t *answering = arg;
    cake_record_t record = {row->id, row->hlc, row->dot, row->is_tombstone};
    cake__value_t value = {.key = row->key, .value = row->value};
    cake__put_u64(&answering->out, row->dot.actor);
    cake__put_operation(&answering->out, &record, &value);
    return answering->out.err;
}

static void run_fetch(void *arg)
{
    answering_t *answering = arg;
    cake_storage_t *storage = answering->store->storage;
    answering->err =
        storage->ops->fetch(storage, cake__slice_str(answering->keyspace->name), &answering->id, 1, on_row, answering);
}

static void on_fetched(void *arg)
{
    end_answering(arg);
}

static int read_request(answering_t *answering, cake__reader_t *reader)
{
    cake_slice_t name = cake__get_string(reader, CAKE_KEYSPACE_NAME_MAX);
    uint8_t kind = cake__get_u8(reader);
    uint32_t index = 0;
    answering->bits = cake__get_u8(reader);
    if (reader->err != 0 || kind > CAKE__COMPARE_ROW || answering->bits > CAKE__COMPARE_BITS)
        return CAKE_EPARSE;
    answering->kind = (cake__compare_kind_t)kind;
    const uint8_t *id = kind == CAKE__COMPARE_ROW ? cake__get_bytes(reader, sizeof answering->id) : NULL;
    if (kind == CAKE__COMPARE_LIST)
        index = cake__get_u32(reader);
    int err = cake__reader_done(reader) ? 0 : CAKE_EPARSE;
    if (err == 0 && id != NULL)
        memcpy(&answering->id, id, sizeof answering->id);
    if (err == 0)
        err = cake__keyspace_find(answering->store, name, false, &answering->keyspace);
    if (err == 0 && kind != CAKE__COMPARE_ROW)
        err = cake__range_list_init(&answering->list, answering->keyspace, answering->bits, index);
    return err == CAKE_EINVAL ? CAKE_EPARSE : err;
}

void cake__handle_compare(cake_rpc_call_t *call, void *arg)
{
    cake_store_t *store = arg;
    cake_slice_t body = cake_rpc_body(call);
    cake__reader_t reader = cake__reader(body.data, body.len);
    cake__hail_t hail;
    answering_t *answering = NULL;
    int err = cake__store_is_stopping(store) ? CAKE_ECLOSED : cake__get_hail(store, &reader, &hail);
    if (err == 0 && (answering = cake__calloc(store->alloc, 1, sizeof *answering)) == NULL)
        err = CAKE_ENOMEM;
    if (err != 0) {
        cake_rpc_fail(call, err, NULL);
        return;
    }
    answering->store = store;
    answering->call = call;
    answering->timer = CAKE_TIMER_INIT(on_step, answering);
    cake__buf_init(&answering->out, store->alloc);
    answering->err = read_request(answering, &reader);
    cake__put_hail(store, &answering->out);
    if (answering->err != 0) {
        end_answering(answering);
    } else if (answering->kind != CAKE__COMPARE_ROW) {
        on_step(answering);
    } else if (store->is_inline) {
        run_fetch(answering);
        end_answering(answering);
    } else {
        cake_lane_t *lane = store->reads_anywhere ? store->reader : answering->keyspace->lane->worker;
        answering->work = (cake_work_t){.run = run_fetch, .done = on_fetched, .arg = answering};
        store->env->ops->lane_submit(lane, &answering->work);
    }
}
