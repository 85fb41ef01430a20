/* The registry: which nodes are replicas and count for levels, dead or alive, until they are forgotten. Two halves of a
 * split count the same.
 *
 * A causal-length set of node ids (Yu and Rostad, 2020): each id has a length, 0 at first, greater by one with every
 * change, odd while it is a replica. Of two lengths the greater one holds, so who has missed that a node joined, or was
 * forgotten, learns it from anybody, and a node that was forgotten counts again with the first sign of life.
 *
 *   every hail has a hash over the replicas ──differs──> registry call, both ways ──> equal
 *                                                                             ──> writes under way are counted anew
 *
 * Levels rest on it: an answer counts only when who gives it knows the same replicas. A majority of those that this
 * node knows may be far from one of those that there are: it may have crashed before it stored that another joined.
 *
 *   registry  hail, entries    answer  the same
 *             entries: count varint, by node id: id u16, length varint, heard u64 (Unix ms), data centre string
 *
 * Meta "replica/ID": version u8, heard u64 (Unix ms), length u32, data centre string. Version 1 has no length: a
 * replica. */
#include <stdio.h>

#include "store/store.h"

#define REPLICA_META        "replica/"
#define META_VERSION        2u
#define EXCHANGE_TIMEOUT_MS 5000u
#define EXCHANGE_PAUSE_MS   10u /* between two with one peer: what still differs then is told by its next hail */
#define LENGTH_MAX          (1u << 30)

/* ---- the set ------------------------------------------------------------------------------------------------------*/

static bool is_replica(uint32_t length)
{
    return length % 2 == 1;
}

/* What an id adds to the hash. */
static uint32_t hash_of(uint16_t node_id, uint32_t length)
{
    return is_replica(length) ? (uint32_t)cake__mix64((uint64_t)node_id << 32 | length) : 0;
}

static void store_entry(cake_store_t *store, uint16_t node_id, cake__peer_t *peer);

static void set_length(cake__peer_t *peer, uint32_t length)
{
    cake_store_t *store = peer->store;
    store->registry += hash_of(peer->node_id, length) - hash_of(peer->node_id, peer->length);
    peer->length = length;
    peer->is_replica = is_replica(length);
    store->candidates_are_valid = false;
    if (!peer->is_replica) {
        cake__drop_wants(store, peer->node_id);
        cake__peer_forget_acked(peer);
        cake__peer_drop_queue(peer);
    }
    store_entry(store, peer->node_id, peer);
}

static void set_own_length(cake_store_t *store, uint32_t length)
{
    uint16_t node_id = cake_node_id(store->node);
    store->registry += hash_of(node_id, length) - hash_of(node_id, store->own_length);
    store->own_length = length;
    store_entry(store, node_id, NULL);
}

bool cake__registry_agrees(const cake__peer_t *peer)
{
    return peer->actor != 0 && peer->registry == peer->store->registry;
}

/* A writer is told again by those whose answers it has, or it would wait for their next hail. */
static void on_changed(cake_store_t *store)
{
    cake__writes_recount(store);
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        if (!cake__list_is_empty(&store->writes) && peer->actor != 0)
            cake__registry_compare(peer);
    }
}

void cake__registry_join(cake_store_t *store)
{
    if (is_replica(store->own_length))
        return;
    set_own_length(store, store->own_length + 1);
    on_changed(store);
}

/* ---- on disk ------------------------------------------------------------------------------------------------------*/

/* An entry's meta being written. */
typedef struct {
    cake__task_t task; /* first */
    cake_store_t *store;
    uint16_t node_id;
    cake_meta_write_t meta;
    char name[24];
    uint8_t value[96];
} registration_t;

static void finish_registration(cake__task_t *task, int err)
{
    registration_t *registration = CAKE_CONTAINER_OF(task, registration_t, task);
    cake__peer_t *peer = err == 0 ? NULL : cake__peer_find(registration->store, registration->node_id);
    if (peer != NULL)
        peer->stored_wall_ms = 0; /* written again with its next sign of life: it must count after a restart, too */
    cake__free(registration->store->alloc, registration);
}

/* peer NULL: this node. */
static void store_entry(cake_store_t *store, uint16_t node_id, cake__peer_t *peer)
{
    registration_t *registration = cake__calloc(store->alloc, 1, sizeof *registration);
    if (registration == NULL)
        return;
    const char *data_center = peer == NULL ? cake_node_data_center(store->node) : peer->data_center;
    size_t data_center_len = strlen(data_center);
    CAKE_ASSERT(13 + data_center_len <= sizeof registration->value);
    registration->store = store;
    registration->node_id = node_id;
    int len = snprintf(registration->name, sizeof registration->name, REPLICA_META "%u", (unsigned)node_id);
    registration->meta.name = cake__slice(registration->name, (size_t)len);
    registration->value[0] = META_VERSION;
    cake__store_le(registration->value + 1, peer == NULL ? cake__wall_ms(store->env) : peer->heard_wall_ms, 8);
    cake__store_le(registration->value + 9, peer == NULL ? store->own_length : peer->length, 4);
    memcpy(registration->value + 13, data_center, data_center_len);
    registration->meta.value = cake__slice(registration->value, 13 + data_center_len);
    registration->task = (cake__task_t){.finish = finish_registration, .metas = &registration->meta, .meta_count = 1};
    if (peer != NULL)
        peer->stored_wall_ms = peer->heard_wall_ms;
    cake__lane_submit(&store->lanes[0], &registration->task);
}

void cake__registry_store(cake__peer_t *peer)
{
    store_entry(peer->store, peer->node_id, peer);
}

typedef struct {
    cake_store_t *store;
    int err;
} loading_t;

static int on_entry(void *arg, cake_slice_t name, cake_slice_t value)
{
    loading_t *loading = arg;
    cake_store_t *store = loading->store;
    const uint8_t *at = value.data;
    unsigned long id = 0;
    for (size_t i = strlen(REPLICA_META); i < name.len && id <= UINT16_MAX; i++)
        id = id * 10 + (unsigned long)(((const char *)name.data)[i] - '0');
    size_t head = value.len > 0 && at[0] == 1 ? 9 : 13;
    if (value.len < head || value.len - head >= sizeof((cake__peer_t *)0)->data_center || at[0] == 0 ||
        at[0] > META_VERSION || id == 0 || id > UINT16_MAX)
        return loading->err = CAKE_ECORRUPT;
    uint32_t length = head == 9 ? 1 : (uint32_t)cake__load_le(at + 9, 4);
    uint16_t node_id = (uint16_t)id;
    if (node_id == cake_node_id(store->node)) {
        store->own_length = length;
        store->registry += hash_of(node_id, length);
        return 0;
    }
    cake__peer_t *peer = cake__peer_learn(store, node_id);
    if (peer == NULL)
        return loading->err = CAKE_ENOMEM;
    peer->length = length;
    peer->is_replica = is_replica(length);
    store->registry += hash_of(node_id, length);
    cake__peer_heard_before(peer, cake__load_le(at + 1, 8));
    peer->stored_wall_ms = peer->heard_wall_ms;
    memcpy(peer->data_center, at + head, value.len - head);
    peer->is_placed = value.len > head;
    return 0;
}

int cake__registry_load(cake_store_t *store)
{
    loading_t loading = {.store = store};
    int err = store->storage->ops->metas(store->storage, 0, cake__slice_str(REPLICA_META), on_entry, &loading);
    return loading.err != 0 ? loading.err : err;
}

/* ---- merging ------------------------------------------------------------------------------------------------------*/

typedef struct {
    uint16_t node_id;
    uint32_t length;
    uint64_t heard_wall_ms;
    cake_slice_t data_center;
} entry_t;

static void put_entry(cake__buf_t *out, const entry_t *entry)
{
    cake__put_u16(out, entry->node_id);
    cake__put_varint(out, entry->length);
    cake__put_u64(out, entry->heard_wall_ms);
    cake__put_string(out, entry->data_center);
}

static void put_entries(cake_store_t *store, cake__buf_t *out)
{
    const entry_t own = {cake_node_id(store->node), store->own_length, cake__wall_ms(store->env),
                         cake__slice_str(cake_node_data_center(store->node))};
    bool has_own = own.length > 0;
    size_t count = has_own;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    count += CAKE_CONTAINER_OF(link, cake__peer_t, link)->length > 0;
    cake__put_varint(out, count);
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        const cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        if (has_own && own.node_id < peer->node_id) {
            put_entry(out, &own);
            has_own = false;
        }
        const entry_t entry = {peer->node_id, peer->length, peer->heard_wall_ms, cake__slice_str(peer->data_center)};
        if (entry.length > 0)
            put_entry(out, &entry);
    }
    if (has_own)
        put_entry(out, &own);
}

static int merge(cake_store_t *store, const entry_t *entry)
{
    if (entry->node_id == cake_node_id(store->node)) {
        if (entry->length > store->own_length)
            set_own_length(store, entry->length);
        return 0;
    }
    cake__peer_t *peer = cake__peer_learn(store, entry->node_id);
    if (peer == NULL)
        return CAKE_ENOMEM;
    if (entry->length <= peer->length)
        return 0;
    if (!cake__peer_is_there(peer)) {
        memcpy(peer->data_center, entry->data_center.data, entry->data_center.len);
        peer->data_center[entry->data_center.len] = '\0';
        peer->is_placed = entry->data_center.len > 0;
        cake__peer_heard_before(peer, entry->heard_wall_ms);
    }
    set_length(peer, entry->length);
    return 0;
}

/* All of it is read before any of it counts (merges false). */
static int read_entries(cake_store_t *store, cake__reader_t reader, bool merges)
{
    uint64_t count = cake__get_varint(&reader);
    uint32_t last_id = 0;
    for (uint64_t i = 0; i < count; i++) {
        entry_t entry = {.node_id = cake__get_u16(&reader)};
        uint64_t length = cake__get_varint(&reader);
        entry.heard_wall_ms = cake__get_u64(&reader);
        entry.data_center = cake__get_string(&reader, sizeof((cake__peer_t *)0)->data_center - 1);
        if (reader.err != 0 || entry.node_id <= last_id || length == 0 || length > LENGTH_MAX)
            return CAKE_EPARSE;
        last_id = entry.node_id;
        entry.length = (uint32_t)length;
        int err = merges ? merge(store, &entry) : 0;
        if (err != 0)
            return err;
    }
    return cake__reader_done(&reader) ? 0 : CAKE_EPARSE;
}

int cake__registry_take(cake_store_t *store, cake_slice_t entries)
{
    cake__reader_t reader = cake__reader(entries.data, entries.len);
    uint32_t before = store->registry;
    int err = read_entries(store, reader, false);
    if (err == 0)
        err = read_entries(store, reader, true);
    if (store->registry != before)
        on_changed(store);
    if (store->is_joined)
        cake__registry_join(store); /* it was forgotten, and is here */
    return err;
}

/* ---- exchanging ---------------------------------------------------------------------------------------------------*/

typedef struct {
    cake_store_t *store;
    uint16_t node_id;
} exchange_t;

static void put_message(cake_store_t *store, cake__buf_t *out)
{
    cake__buf_init(out, store->alloc);
    cake__put_hail(store, out);
    put_entries(store, out);
}

/* The hail counts after the entries: it says what its sender knew with them. */
static int take_message(cake_store_t *store, cake_slice_t body)
{
    cake__reader_t reader = cake__reader(body.data, body.len);
    cake__hail_t hail;
    int err = cake__get_hail(store, &reader, &hail);
    if (err == 0) {
        size_t left = cake__reader_left(&reader);
        err = cake__registry_take(store, cake__slice(cake__get_bytes(&reader, left), left));
    }
    if (err == 0 && cake__peer_heard(store, &hail) == NULL)
        err = CAKE_ENOMEM;
    return err;
}

static void on_exchanged(cake_reply_t *reply, void *arg)
{
    exchange_t *exchange = arg;
    cake_store_t *store = exchange->store;
    cake__peer_t *peer = cake__peer_find(store, exchange->node_id);
    peer->is_exchanging = false;
    if (cake_reply_err(reply) == 0)
        (void)take_message(store, cake_reply_body(reply)); /* what is wrong is told again by the next hail */
    cake__join_try(store);
    cake__free(store->alloc, exchange);
    cake_reply_free(reply);
}

void cake__registry_compare(cake__peer_t *peer)
{
    cake_store_t *store = peer->store;
    uint64_t now_ns = cake__now_ns(store->env);
    bool is_soon = now_ns - peer->exchanged_ns < EXCHANGE_PAUSE_MS * CAKE_NS_PER_MS;
    if (cake__registry_agrees(peer) || peer->is_exchanging || is_soon || !cake__peer_is_there(peer) ||
        store->state != CAKE__STORE_RUNNING)
        return;
    exchange_t *exchange = cake__calloc(store->alloc, 1, sizeof *exchange);
    if (exchange == NULL)
        return;
    *exchange = (exchange_t){store, peer->node_id};
    cake__buf_t out;
    put_message(store, &out);
    cake_slice_t body = cake__buf_slice(&out);
    int err = out.err;
    if (err == 0)
        err = cake__store_call(store, peer->node_id, "registry", &body, 1, EXCHANGE_TIMEOUT_MS, on_exchanged, exchange);
    peer->exchanged_ns = now_ns;
    peer->is_exchanging = err == 0;
    if (err != 0)
        cake__free(store->alloc, exchange);
    cake__buf_free(&out);
}

void cake__handle_registry(cake_rpc_call_t *call, void *arg)
{
    cake_store_t *store = arg;
    int err = cake__store_is_stopping(store) ? CAKE_ECLOSED : take_message(store, cake_rpc_body(call));
    cake__buf_t out;
    put_message(store, &out);
    if (err == 0)
        err = out.err;
    if (err == 0)
        cake_rpc_reply(call, out.data, out.len);
    else
        cake_rpc_fail(call, err, NULL);
    cake__buf_free(&out);
    cake__join_try(store);
}

void cake__registry_heard(cake__peer_t *peer, const cake__hail_t *hail)
{
    cake_store_t *store = peer->store;
    bool did_agree = cake__registry_agrees(peer);
    peer->registry = hail->registry;
    if (hail->is_joined && !peer->is_replica) {
        set_length(peer, peer->length + 1);
        on_changed(store);
    }
    uint64_t unstored_ms = peer->heard_wall_ms - cake__min_u64(peer->heard_wall_ms, peer->stored_wall_ms);
    if (peer->is_replica && unstored_ms > store->options.forget_after_ms / 8)
        cake__registry_store(peer);
    if (!cake__registry_agrees(peer)) {
        cake__registry_compare(peer);
        return;
    }
    if (!did_agree)
        cake__writes_recount(store);
}

/* ---- forgetting ---------------------------------------------------------------------------------------------------*/

typedef struct {
    cake_store_t *store;
    uint16_t node_id;
} forget_request_t;

/* The others learn it as they learn who has joined. */
static int forget(void *arg)
{
    forget_request_t *request = arg;
    cake_store_t *store = request->store;
    cake__peer_t *peer = cake__peer_find(store, request->node_id);
    if (peer == NULL || (!peer->is_replica && !cake__peer_is_there(peer)))
        return CAKE_ENOTFOUND;
    if (cake__peer_is_there(peer))
        return CAKE_EBUSY;
    set_length(peer, peer->length + 1);
    on_changed(store);
    cake__pulse_all(store);
    return 0;
}

int cake_store_forget(cake_store_t *store, uint16_t node_id)
{
    forget_request_t request = {store, node_id};
    return cake__run_on_loop(store->env, forget, &request);
}
