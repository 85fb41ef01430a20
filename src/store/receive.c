/* Batches from peers: each unit becomes a task of its keyspace's lane; one answer once all are durable.
 *
 *   request  hail, flight u64 (its number there), payload (pack.h): count varint,
 *            units: keyspace string, actor u64, count varint, operations
 *   answer   hail, one bit per unit: every operation of it is durable here (model, rule 2: what was ignored is not) */
#include "store/pack.h"

typedef struct incoming incoming_t;

typedef struct {
    cake__task_t task;
    incoming_t *incoming;
    cake_slice_t keyspace_name;
    cake_record_t *records;
    cake__value_t *values;
    size_t count;
    bool is_known;
} incoming_unit_t;

struct incoming {
    cake_store_t *store;
    cake_rpc_call_t *call;
    cake__origin_t origin;
    cake__buf_t unpacked; /* what the values borrow from, where the units came packed */
    size_t unit_count, running;
    int err;
    uint8_t *bitmap;
    cake_record_t *records;
    cake__value_t *values;
    incoming_unit_t units[];
};

static void free_incoming(incoming_t *incoming)
{
    const cake_alloc_t *alloc = incoming->store->alloc;
    cake__buf_free(&incoming->unpacked);
    cake__free(alloc, incoming->bitmap);
    cake__free(alloc, incoming->records);
    cake__free(alloc, incoming->values);
    cake__free(alloc, incoming);
}

static void answer(incoming_t *incoming)
{
    cake_store_t *store = incoming->store;
    cake__buf_t head;
    cake__buf_init(&head, store->alloc);
    cake__put_hail(store, &head);
    if (incoming->err != 0 || head.err != 0) {
        cake_rpc_fail(incoming->call, incoming->err != 0 ? incoming->err : head.err, NULL);
    } else {
        const cake_slice_t parts[] = {cake__buf_slice(&head),
                                      cake__slice(incoming->bitmap, (incoming->unit_count + 7) / 8)};
        cake_rpc_replyv(incoming->call, parts, CAKE_COUNT_OF(parts));
    }
    cake__buf_free(&head);
    free_incoming(incoming);
}

int cake__stage_received(cake__change_t *change, const cake_record_t *records, cake__value_t *values, size_t count,
                         bool *are_known)
{
    cake_verdict_t verdict;
    int err = 0;
    for (size_t i = 0; i < count && err == 0; i++)
        err = cake__change_receive(change, &records[i], CAKE_SOURCE_EAGER, &values[i], &verdict);
    *are_known = err == 0;
    for (size_t i = 0; i < count && *are_known; i++)
        *are_known = cake__context_contains(cake__change_context(change), records[i].dot);
    return err;
}

static int stage_unit(cake__task_t *task, cake__change_t *change)
{
    incoming_unit_t *unit = CAKE_CONTAINER_OF(task, incoming_unit_t, task);
    return cake__stage_received(change, unit->records, unit->values, unit->count, &unit->is_known);
}

static void finish_unit(cake__task_t *task, int err)
{
    incoming_unit_t *unit = CAKE_CONTAINER_OF(task, incoming_unit_t, task);
    incoming_t *incoming = unit->incoming;
    size_t index = (size_t)(unit - incoming->units);
    if (err == 0 && unit->is_known)
        incoming->bitmap[index / 8] |= (uint8_t)(1u << (index % 8));
    incoming->store->stats.writes_received += err == 0 ? unit->count : 0;
    if (err != 0)
        incoming->err = err;
    if (--incoming->running == 0)
        answer(incoming);
}

/* Reads the units; with NULL records only counts, and so checks the whole message before anything is done. */
static int read_units(cake__reader_t reader, size_t unit_count, incoming_t *incoming, size_t *operations)
{
    size_t total = 0;
    for (size_t i = 0; i < unit_count; i++) {
        cake_slice_t name = cake__get_string(&reader, CAKE_KEYSPACE_NAME_MAX);
        uint64_t actor = cake__get_u64(&reader);
        uint64_t count = cake__get_varint(&reader);
        if (reader.err != 0 || count == 0 || count > CAKE__MANY_MAX || !cake__is_name(name, CAKE_KEYSPACE_NAME_MAX))
            return CAKE_EPARSE;
        if (incoming != NULL) {
            incoming_unit_t *unit = &incoming->units[i];
            unit->keyspace_name = name;
            unit->records = incoming->records + total;
            unit->values = incoming->values + total;
            unit->count = (size_t)count;
        }
        for (uint64_t k = 0; k < count && reader.err == 0; k++, total++) {
            cake_record_t record;
            cake__value_t value;
            cake__get_operation(&reader, actor, &record, &value);
            if (incoming != NULL) {
                incoming->records[total] = record;
                incoming->values[total] = value;
                incoming->values[total].origin = &incoming->origin;
            }
        }
    }
    *operations = total;
    return cake__reader_done(&reader) ? 0 : CAKE_EPARSE;
}

static incoming_t *make_incoming(cake_store_t *store, size_t unit_count, size_t operations)
{
    incoming_t *incoming = cake__calloc(store->alloc, 1, sizeof *incoming + unit_count * sizeof incoming->units[0]);
    if (incoming == NULL)
        return NULL;
    incoming->store = store;
    incoming->unit_count = unit_count;
    incoming->bitmap = cake__calloc(store->alloc, unit_count / 8 + 1, 1);
    incoming->records = cake__calloc(store->alloc, operations, sizeof *incoming->records);
    incoming->values = cake__calloc(store->alloc, operations, sizeof *incoming->values);
    if (incoming->bitmap != NULL && incoming->records != NULL && incoming->values != NULL)
        return incoming;
    free_incoming(incoming);
    return NULL;
}

static void submit_units(incoming_t *incoming, size_t bytes)
{
    cake_store_t *store = incoming->store;
    incoming->running = 1; /* ours */
    for (size_t i = 0; i < incoming->unit_count; i++) {
        incoming_unit_t *unit = &incoming->units[i];
        unit->incoming = incoming;
        unit->task = (cake__task_t){.bytes = bytes / incoming->unit_count,
                                    .stage = stage_unit,
                                    .finish = finish_unit,
                                    .origin = &incoming->origin};
        int err = cake__keyspace_find(store, unit->keyspace_name, true, &unit->task.keyspace);
        if (err != 0) {
            incoming->err = err;
            continue;
        }
        incoming->running++;
        cake__lane_submit(unit->task.keyspace->lane, &unit->task);
    }
    if (--incoming->running == 0)
        answer(incoming);
}

/* *reader is then at the units. */
static int open_payload(cake_store_t *store, cake__reader_t *reader, cake__buf_t *unpacked)
{
    uint8_t encoding = cake__get_u8(reader);
    if (reader->err != 0 || encoding > CAKE__PAYLOAD_PACKED)
        return CAKE_EPARSE;
    if (encoding == CAKE__PAYLOAD_PLAIN)
        return 0;
    if (!cake__payload_fits(store, *reader))
        return CAKE_EBUSY;
    int err = cake__unpack(&store->unpacking, reader, unpacked);
    if (err == 0 && !cake__reader_done(reader))
        err = CAKE_EPARSE;
    *reader = cake__reader(unpacked->data, unpacked->len);
    return err;
}

void cake__handle_batch(cake_rpc_call_t *call, void *arg)
{
    cake_store_t *store = arg;
    cake_slice_t body = cake_rpc_body(call);
    cake__reader_t reader = cake__reader(body.data, body.len);
    cake__hail_t hail;
    cake__buf_t unpacked;
    size_t operations = 0;
    incoming_t *incoming = NULL;
    cake__buf_init(&unpacked, store->alloc);
    int err = cake__store_is_stopping(store) ? CAKE_ECLOSED : cake__get_hail(store, &reader, &hail);
    uint64_t flight_id = err != 0 ? 0 : cake__get_u64(&reader);
    if (err == 0)
        err = open_payload(store, &reader, &unpacked);
    size_t bytes = body.len + unpacked.len;
    uint64_t unit_count = err != 0 ? 0 : cake__get_varint(&reader);
    if (err == 0 && unit_count > cake__reader_left(&reader))
        err = CAKE_EPARSE; /* a unit takes at least a byte: no memory for counts that cannot be */
    if (err == 0)
        err = read_units(reader, (size_t)unit_count, NULL, &operations);
    if (err == 0 && store->pending_bytes + bytes > store->options.pending_bytes)
        err = CAKE_EBUSY;
    if (err == 0 && (incoming = make_incoming(store, (size_t)unit_count, operations)) == NULL)
        err = CAKE_ENOMEM;
    if (err != 0) {
        cake__buf_free(&unpacked);
        cake_rpc_fail(call, err, NULL);
        return;
    }
    err = read_units(reader, (size_t)unit_count, incoming, &operations);
    CAKE_ASSERT(err == 0);
    incoming->call = call;
    incoming->unpacked = unpacked;
    cake__origin_init(&incoming->origin, store, hail.node_id);
    incoming->origin.flight_id = flight_id;
    store->stats.batches_received++;
    cake__peer_heard(store, &hail);
    submit_units(incoming, bytes);
}
