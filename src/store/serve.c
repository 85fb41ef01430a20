/* Handing out: this node as sender z of sessions. It changes nothing here.
 *
 *   open ─> WELCOME + first part      next ─> COMPARED? + next part      a part: records of this instant, their values
 *                                                                       fetched from the storage, and FIN with the last
 *
 * The values are fetched after the records were chosen. A row that became newer meanwhile goes out in its place: it
 * covers what it replaced. A row that has gone would be covered by the FIN and never sent: the session is given up. */
#include "store/session_wire.h"

#define PLAIN_PARTS     15u
#define CHUNK_BYTES_MAX (32u << 20) /* one answer; above it fewer records are tried */

/* Invariant: call is set exactly while an answer is being made; has_compare exactly while it waits for step_timer. */
typedef struct serving {
    cake__list_t link; /* in store->serving_list */
    cake_store_t *store;
    cake__keyspace_t *keyspace;
    cake__sender_t *sender;
    uint16_t node_id; /* of the receiver */
    uint64_t session_id, token, idle_since_ns;
    cake_rpc_call_t *call;
    bool is_over, may_pack;
    uint32_t plain_parts; /* sent without a try to pack, since one did not */

    cake_record_t records[CAKE__CHUNK_RECORDS];
    cake_id_t ids[CAKE__CHUNK_RECORDS];
    size_t count, found;
    uint32_t chunk_index;
    bool has_fin, has_welcome, has_compared;
    cake__fin_t fin;
    cake__welcome_t welcome;
    cake__compared_t compared;
    cake__compare_t compare;
    bool has_compare;
    cake_timer_t step_timer; /* the next piece of what a comparison of ranges needs */
    uint64_t rows_actor;     /* of the last of rows; 0: none */
    cake__buf_t rows;        /* encoded records with their values */
    cake__buf_t packed;      /* the same, packed, with its encoding; empty: it was not */
    int result;
    cake_work_t work;
} serving_t;

static void free_messages(serving_t *serving)
{
    if (serving->has_fin)
        cake__fin_free(&serving->fin);
    if (serving->has_welcome)
        cake__welcome_free(&serving->welcome);
    if (serving->has_compared)
        cake__compared_free(&serving->compared, serving->store->alloc);
    if (serving->has_compare)
        cake__compare_free(&serving->compare, serving->store->alloc);
    serving->has_compare = false;
    serving->has_fin = serving->has_welcome = serving->has_compared = false;
}

static void free_serving(serving_t *serving)
{
    cake_store_t *store = serving->store;
    CAKE_ASSERT(serving->call == NULL);
    free_messages(serving);
    store->env->ops->timer_cancel(store->env, &serving->step_timer);
    cake__map_remove_u64(&store->servings, serving->token);
    cake__list_remove(&serving->link);
    CAKE_ASSERT(serving->keyspace->serving_count > 0);
    serving->keyspace->serving_count--;
    cake__sender_free(serving->sender);
    cake__buf_free(&serving->rows);
    cake__buf_free(&serving->packed);
    cake__free(store->alloc, serving);
    cake__store_check_stopped(store);
}

/* ---- answering ----------------------------------------------------------------------------------------------------*/

static void encode_answer(serving_t *serving, cake__buf_t *head, cake__buf_t *tail)
{
    unsigned parts = (serving->has_welcome ? CAKE__PART_WELCOME : 0) | (serving->count > 0 ? CAKE__PART_CHUNK : 0) |
                     (serving->has_compared ? CAKE__PART_COMPARED : 0) | (serving->has_fin ? CAKE__PART_FIN : 0);
    cake__put_hail(serving->store, head);
    cake__put_u8(head, (uint8_t)parts);
    if (serving->has_welcome)
        cake__welcome_encode(&serving->welcome, head);
    if (serving->count > 0) {
        cake__put_u64(head, serving->session_id);
        cake__put_u64(head, serving->token);
        cake__put_varint(head, serving->chunk_index);
        cake__put_varint(head, serving->count);
        if (serving->packed.len == 0)
            cake__put_u8(head, CAKE__PAYLOAD_PLAIN);
    }
    if (serving->has_compared)
        cake__compared_encode(&serving->compared, tail);
    if (serving->has_fin)
        cake__fin_encode(&serving->fin, tail);
}

static void reply_parts(serving_t *serving)
{
    cake__buf_t head, tail;
    cake__buf_init(&head, serving->store->alloc);
    cake__buf_init(&tail, serving->store->alloc);
    encode_answer(serving, &head, &tail);
    int err = head.err != 0 ? head.err : tail.err;
    const cake__buf_t *rows = serving->packed.len > 0 ? &serving->packed : &serving->rows;
    const cake_slice_t parts[] = {cake__buf_slice(&head), cake__buf_slice(rows), cake__buf_slice(&tail)};
    if (err == 0)
        (void)cake_rpc_replyv(serving->call, parts, CAKE_COUNT_OF(parts));
    else
        (void)cake_rpc_fail(serving->call, err, NULL);
    serving->is_over |= err != 0 || serving->has_fin;
    cake__buf_free(&head);
    cake__buf_free(&tail);
}

static void finish_answer(serving_t *serving, int err)
{
    if (err == 0)
        reply_parts(serving);
    else
        (void)cake_rpc_fail(serving->call, err, NULL);
    serving->call = NULL;
    serving->is_over |= err != 0;
    serving->idle_since_ns = cake__now_ns(serving->store->env);
    cake__buf_clear(&serving->rows);
    cake__buf_clear(&serving->packed);
    free_messages(serving);
    if (serving->is_over || cake__store_is_stopping(serving->store))
        free_serving(serving);
}

/* ---- values -------------------------------------------------------------------------------------------------------*/

static int on_row(void *arg, const cake_row_t *row)
{
    serving_t *serving = arg;
    cake_record_t record = {row->id, row->hlc, row->dot, row->is_tombstone};
    cake__value_t value = {.key = row->key, .value = row->value};
    serving->found++;
    if (row->dot.actor != serving->rows_actor) {
        serving->rows_actor = row->dot.actor;
        cake__put_u8(&serving->rows, CAKE__ACTOR_FOLLOWS);
        cake__put_u64(&serving->rows, row->dot.actor);
    }
    cake__put_operation(&serving->rows, &record, &value);
    return serving->rows.err;
}

/* Where one part does not pack, the next ones are not tried. */
static void pack_rows(serving_t *serving)
{
    cake__workspace_t workspace = {.alloc = serving->store->alloc};
    if (serving->plain_parts > 0) {
        serving->plain_parts--;
        return;
    }
    if (!cake__pack(&workspace, cake__buf_slice(&serving->rows), &serving->packed))
        serving->plain_parts = PLAIN_PARTS;
    cake__workspace_free(&workspace);
}

static void run_fetch(void *arg)
{
    serving_t *serving = arg;
    cake_storage_t *storage = serving->store->storage;
    serving->result = storage->ops->fetch(storage, cake__slice_str(serving->keyspace->name), serving->ids,
                                          serving->count, on_row, serving);
    if (serving->result == 0 && serving->may_pack)
        pack_rows(serving);
}

static void on_fetched(void *arg)
{
    serving_t *serving = arg;
    cake__keyspace_t *keyspace = serving->keyspace;
    int err = serving->result;
    if (err == CAKE_ETOOBIG) {
        keyspace->chunk_limit = keyspace->chunk_limit > 4 ? keyspace->chunk_limit / 4 : 1;
        err = CAKE_EBUSY; /* the receiver comes again, and gets fewer at a time */
    } else if (err == 0 && serving->found < serving->count) {
        err = CAKE_ECONFLICT;
    } else if (serving->rows.len < CAKE__CHUNK_BYTES / 2) {
        uint64_t most = keyspace->store->options.chunk_records;
        keyspace->chunk_limit = (uint32_t)cake__min_u64((uint64_t)keyspace->chunk_limit * 2, most);
    }
    finish_answer(serving, err);
}

/* The records of this instant, and then their values: at once, or on a thread that may wait for the disk. */
static void make_part(serving_t *serving)
{
    cake_store_t *store = serving->store;
    cake__keyspace_t *keyspace = serving->keyspace;
    serving->count = serving->found = 0;
    int err = cake__sender_next(serving->sender, keyspace->chunk_limit, serving->records, &serving->count,
                                &serving->chunk_index, &serving->has_fin, &serving->fin);
    if (err != 0 || serving->count == 0) {
        finish_answer(serving, err);
        return;
    }
    for (size_t i = 0; i < serving->count; i++)
        serving->ids[i] = serving->records[i].id;
    serving->rows.max = CHUNK_BYTES_MAX;
    serving->rows_actor = 0;
    if (store->is_inline) {
        run_fetch(serving);
        on_fetched(serving);
        return;
    }
    serving->work = (cake_work_t){.run = run_fetch, .done = on_fetched, .arg = serving};
    store->env->ops->lane_submit(store->reads_anywhere ? store->reader : keyspace->lane->worker, &serving->work);
}

/* ---- comparisons (rule 5) -----------------------------------------------------------------------------------------*/

static void answer_next(serving_t *serving)
{
    int err = 0;
    if (serving->has_compare) {
        err = cake__sender_compare(serving->sender, &serving->compare, &serving->compared);
        serving->has_compared = err == 0;
        serving->has_compare = false;
        cake__compare_free(&serving->compare, serving->store->alloc);
    }
    if (err == 0)
        make_part(serving);
    else
        finish_answer(serving, err);
}

/* The walk through the set begins with the WELCOME and goes on between other things; a COMPARE waits for its end. */
static void on_step(void *arg)
{
    serving_t *serving = arg;
    cake_env_t *env = serving->store->env;
    bool has_more;
    int err = cake__sender_step(serving->sender, &has_more);
    if (err == 0 && has_more)
        env->ops->timer_arm(env, &serving->step_timer, cake__now_ns(env));
    else if (serving->has_compare)
        answer_next(serving); /* without memory it says so */
}

/* ---- requests -----------------------------------------------------------------------------------------------------*/

static void end_serving(serving_t *serving)
{
    if (serving->call == NULL)
        free_serving(serving);
    else
        serving->is_over = true; /* with the answer that is being made */
}

/* A receiver has one session per keyspace: when it opens another, what it had is lost, and would hold up purges
 * until it is taken for gone. */
static void end_earlier(cake__keyspace_t *keyspace, uint16_t node_id)
{
    CAKE_LIST_FOR_EACH_SAFE(link, &keyspace->store->serving_list)
    {
        serving_t *serving = CAKE_CONTAINER_OF(link, serving_t, link);
        if (serving->keyspace == keyspace && serving->node_id == node_id)
            end_serving(serving);
    }
}

void cake__servings_end(cake_store_t *store, uint16_t node_id)
{
    CAKE_LIST_FOR_EACH_SAFE(link, &store->serving_list)
    {
        serving_t *serving = CAKE_CONTAINER_OF(link, serving_t, link);
        if (serving->node_id == node_id)
            end_serving(serving);
    }
}

static int make_serving(cake__keyspace_t *keyspace, uint16_t node_id, const cake__hello_t *hello, serving_t **out)
{
    cake_store_t *store = keyspace->store;
    uint64_t token = cake__draw_u64(store->env);
    if (store->servings.count >= CAKE__SERVING_MAX || cake__map_get_u64(&store->servings, token) != NULL)
        return CAKE_EBUSY;
    serving_t *serving = cake__calloc(store->alloc, 1, sizeof *serving);
    if (serving == NULL)
        return CAKE_ENOMEM;
    serving->store = store;
    serving->keyspace = keyspace;
    serving->node_id = node_id;
    serving->session_id = hello->session_id;
    serving->token = token;
    cake__list_init(&serving->link);
    cake__buf_init(&serving->rows, store->alloc);
    serving->step_timer = CAKE_TIMER_INIT(on_step, serving);
    cake__buf_init(&serving->packed, store->alloc);
    int err = cake__sender_new(keyspace->set, cake_node_id(store->node), hello, token, &serving->sender);
    if (err == 0)
        err = cake__sender_welcome(serving->sender, &serving->welcome);
    serving->has_welcome = err == 0;
    if (err == 0)
        err = cake__map_put_u64(&store->servings, token, serving);
    if (err != 0) {
        free_messages(serving);
        cake__sender_free(serving->sender);
        cake__free(store->alloc, serving);
        return err;
    }
    cake__list_push_back(&store->serving_list, &serving->link);
    if (serving->welcome.range_bits > 0)
        store->env->ops->timer_arm(store->env, &serving->step_timer, cake__now_ns(store->env));
    keyspace->serving_count++;
    *out = serving;
    return 0;
}

void cake__handle_open(cake_rpc_call_t *call, void *arg)
{
    cake_store_t *store = arg;
    cake_slice_t body = cake_rpc_body(call);
    cake__reader_t reader = cake__reader(body.data, body.len);
    cake__hail_t hail;
    cake__hello_t hello;
    cake__keyspace_t *keyspace;
    serving_t *serving = NULL;
    int err = cake__store_is_stopping(store) ? CAKE_ECLOSED : cake__get_hail(store, &reader, &hail);
    cake_slice_t name = cake__get_string(&reader, CAKE_KEYSPACE_NAME_MAX);
    if (err == 0)
        err = reader.err != 0 ? CAKE_EPARSE : cake__hello_decode(&hello, store->alloc, &reader);
    if (err != 0) {
        cake_rpc_fail(call, err, NULL);
        return;
    }
    if (!cake__reader_done(&reader))
        err = CAKE_EPARSE;
    if (err == 0)
        cake__peer_heard(store, &hail); /* first: the sessions of its last run end here */
    if (err == 0 && !store->is_joined)
        err = CAKE_ENOTJOINED;
    if (err == 0)
        err = cake__keyspace_find(store, name, true, &keyspace);
    if (err == 0)
        end_earlier(keyspace, hail.node_id);
    if (err == 0)
        err = make_serving(keyspace, hail.node_id, &hello, &serving);
    cake__hello_free(&hello);
    if (err != 0) {
        cake_rpc_fail(call, err, NULL);
        return;
    }
    serving->call = call;
    serving->may_pack = hail.reads_packed && !store->options.no_compression;
    make_part(serving);
}

static int find_serving(cake_store_t *store, cake__reader_t *reader, serving_t **out)
{
    uint64_t session_id = cake__get_u64(reader), token = cake__get_u64(reader);
    if (reader->err != 0)
        return CAKE_EPARSE;
    *out = cake__map_get_u64(&store->servings, token);
    if (*out == NULL || (*out)->session_id != session_id)
        return CAKE_ENOTFOUND;
    return (*out)->call != NULL ? CAKE_EBUSY : 0;
}

void cake__handle_next(cake_rpc_call_t *call, void *arg)
{
    cake_store_t *store = arg;
    cake_slice_t body = cake_rpc_body(call);
    cake__reader_t reader = cake__reader(body.data, body.len);
    cake__hail_t hail;
    serving_t *serving = NULL;
    int err = cake__store_is_stopping(store) ? CAKE_ECLOSED : cake__get_hail(store, &reader, &hail);
    if (err == 0)
        err = find_serving(store, &reader, &serving);
    bool has_compare = cake__get_u8(&reader) == 1;
    if (err == 0 && has_compare) {
        err = cake__compare_decode(&serving->compare, store->alloc, &reader);
        serving->has_compare = err == 0;
    }
    if (err == 0 && !cake__reader_done(&reader))
        err = CAKE_EPARSE;
    if (err != 0) {
        if (serving != NULL && serving->call == NULL)
            free_messages(serving);
        cake_rpc_fail(call, err, NULL);
        return;
    }
    serving->call = call;
    if (!serving->has_compare || !serving->step_timer.is_armed)
        answer_next(serving);
}

/* ---- ends ---------------------------------------------------------------------------------------------------------*/

void cake__serving_goes_on(cake_store_t *store, uint64_t token)
{
    serving_t *serving = cake__map_get_u64(&store->servings, token);
    if (serving != NULL)
        serving->idle_since_ns = cake__now_ns(store->env);
}

void cake__serving_tick(void *arg)
{
    cake_store_t *store = arg;
    uint64_t now_ns = cake__now_ns(store->env);
    CAKE_LIST_FOR_EACH_SAFE(link, &store->serving_list)
    {
        serving_t *serving = CAKE_CONTAINER_OF(link, serving_t, link);
        if (serving->call == NULL && now_ns - serving->idle_since_ns > CAKE__SERVING_IDLE_MS * CAKE_NS_PER_MS)
            free_serving(serving);
    }
    if (!cake__store_is_stopping(store))
        cake__timer_arm_ms(store->env, &store->serving_timer, CAKE__SERVING_IDLE_MS / 4);
}

void cake__servings_free(cake_store_t *store)
{
    CAKE_LIST_FOR_EACH_SAFE(link, &store->serving_list)
    {
        serving_t *serving = CAKE_CONTAINER_OF(link, serving_t, link);
        if (serving->call == NULL)
            free_serving(serving);
    }
}
