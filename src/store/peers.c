/* The registry of replicas, and what is known of them as members.
 *
 * A peer is made when it is heard of (a member, a message, the storage), counts as a replica once it has said that it has
 * joined, and stays one, dead or alive, until it is forgotten or silent for forget_after: so two halves of a split count
 * the same replicas. Meta "replica/ID": version u8, heard u64 (Unix ms), data centre string. */
#include <stdio.h>

#include "store/store.h"

#define REPLICA_META      "replica/"
#define FORGET_TIMEOUT_MS 2000u

/* A replica's meta being written or removed. */
typedef struct {
    cake__task_t task; /* first */
    cake_store_t *store;
    uint16_t node_id;
    cake_meta_write_t meta;
    char name[24];
    uint8_t value[96];
} registration_t;

/* ---- finding and making ----------------------------------------------------------------------------------------------*/

cake__peer_t *cake__peer_find(cake_store_t *store, uint16_t node_id)
{
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        if (peer->node_id == node_id)
            return peer;
    }
    return NULL;
}

static void on_flush_timer(void *arg)
{
    cake__peer_t *peer = arg;
    peer->is_flush_due = true;
    peer->store->env->ops->defer(peer->store->env, &peer->store->flush);
}

cake__peer_t *cake__peer_learn(cake_store_t *store, uint16_t node_id)
{
    cake__peer_t *peer = cake__peer_find(store, node_id);
    if (peer != NULL || node_id == cake_node_id(store->node))
        return peer;
    peer = cake__calloc(store->alloc, 1, sizeof *peer);
    if (peer == NULL)
        return NULL;
    peer->store = store;
    peer->node_id = node_id;
    peer->status = CAKE_SUSPECT; /* nobody knows yet: a level may wait for it (cake__peers_give_up_unseen) */
    peer->heard_wall_ms = cake__wall_ms(store->env);
    peer->heard_ns = cake__now_ns(store->env);
    cake__list_init(&peer->link);
    cake__list_init(&peer->queue);
    cake__list_init(&peer->flights);
    peer->flush_timer = CAKE_TIMER_INIT(on_flush_timer, peer);
    cake__list_t *place = store->peers.next;
    while (place != &store->peers && CAKE_CONTAINER_OF(place, cake__peer_t, link)->node_id < node_id)
        place = place->next;
    cake__list_insert_before(place, &peer->link);
    store->peer_count++;
    store->candidates_are_valid = false;
    return peer;
}

static void free_peer(cake__peer_t *peer)
{
    cake__peer_drop_queue(peer);
    cake__peer_detach_flights(peer);
    cake__list_remove(&peer->link);
    peer->store->peer_count--;
    peer->store->candidates_are_valid = false;
    cake__free(peer->store->alloc, peer);
}

void cake__peers_free(cake_store_t *store)
{
    CAKE_LIST_FOR_EACH_SAFE(link, &store->peers)
    free_peer(CAKE_CONTAINER_OF(link, cake__peer_t, link));
    cake__free(store->alloc, store->candidates);
}

/* ---- what counts ------------------------------------------------------------------------------------------------------*/

bool cake__peer_is_there(const cake__peer_t *peer)
{
    return peer->is_member && (peer->status == CAKE_ALIVE || peer->status == CAKE_SUSPECT);
}

/* By the clock that does not jump: a wall clock that returns from a day behind must not make everybody who is away right now
 * silent for a day. */
bool cake__peer_is_silent(const cake__peer_t *peer)
{
    uint64_t silent_ms = (cake__now_ns(peer->store->env) - peer->heard_ns) / CAKE_NS_PER_MS + peer->silent_before_ms;
    return !cake__peer_is_there(peer) && silent_ms > peer->store->options.forget_after_ms;
}

/* What a registry says about the time before this run, by wall clocks, one of which may be wrong: so that counts for half of the
 * time at most, and the other half passes in this run. */
static void heard_before(cake__peer_t *peer, uint64_t heard_wall_ms)
{
    uint64_t wall_ms = cake__wall_ms(peer->store->env), most_ms = peer->store->options.forget_after_ms / 2;
    peer->heard_wall_ms = heard_wall_ms;
    peer->heard_ns = cake__now_ns(peer->store->env);
    peer->silent_before_ms = cake__min_u64(wall_ms - cake__min_u64(wall_ms, heard_wall_ms), most_ms);
}

/* A member whose store is still joining counts too, and so does one that joined a moment ago and may be opening its store: a
 * level that passed over them would promise less than it says. */
bool cake__peer_counts(const cake__peer_t *peer)
{
    if (peer->is_replica && !cake__peer_is_silent(peer))
        return true;
    bool may_have_store = cake__now_ns(peer->store->env) - peer->joined_ns < CAKE__MEET_MS * CAKE_NS_PER_MS;
    return cake__peer_is_there(peer) && (peer->has_store || may_have_store);
}

int cake__candidates(cake_store_t *store, const cake_candidate_t **out, size_t *count)
{
    size_t needed = 0;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    needed++;
    if (needed > store->candidate_capacity) {
        cake_candidate_t *bigger = cake__realloc(store->alloc, store->candidates, needed * sizeof *bigger);
        if (bigger == NULL)
            return CAKE_ENOMEM;
        store->candidates = bigger;
        store->candidate_capacity = needed;
        store->candidates_are_valid = false;
    }
    if (!store->candidates_are_valid) {
        store->candidate_count = 0;
        store->candidates_are_placed = true;
        CAKE_LIST_FOR_EACH(link, &store->peers)
        {
            const cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
            if (cake__peer_counts(peer))
                store->candidates_are_placed &= peer->is_placed;
            if (cake__peer_counts(peer)) /* who still joins answers nothing yet: taken last */
                store->candidates[store->candidate_count++] = (cake_candidate_t){
                    peer->node_id, peer->status, peer->is_degraded || !peer->is_replica, peer->data_center};
        }
        store->candidates_are_valid = true;
    }
    *out = store->candidates;
    *count = store->candidate_count;
    return 0;
}

/* A node with seeds that has met nobody is no quorum, and of a replica that only its store was heard of nobody knows whose majority
 * it is part of. */
int cake__level_candidates(cake_store_t *store, cake_consistency_t level, const cake_candidate_t **out, size_t *count,
                           cake_result_t *result)
{
    bool is_placed = level == CAKE_LOCAL_QUORUM || level == CAKE_EACH_QUORUM;
    *count = 0;
    if (level == CAKE_NONE)
        return 0;
    int err = cake__candidates(store, out, count);
    if (err == 0 && (store->is_alone || (is_placed && !store->candidates_are_placed))) {
        *result = (cake_result_t){.live = 1, .required = 2};
        err = CAKE_ENOTENOUGHNODES;
    }
    return err;
}

/* ---- the stored registry ----------------------------------------------------------------------------------------------*/

static void finish_registration(cake__task_t *task, int err)
{
    registration_t *registration = CAKE_CONTAINER_OF(task, registration_t, task);
    cake__peer_t *peer = err == 0 ? NULL : cake__peer_find(registration->store, registration->node_id);
    if (peer != NULL)
        peer->stored_wall_ms = 0; /* written again with its next sign of life: it must count after a restart, too */
    cake__free(registration->store->alloc, registration);
}

/* is_known false: removes it. */
static void store_replica(cake_store_t *store, uint16_t node_id, const cake__peer_t *peer)
{
    registration_t *registration = cake__calloc(store->alloc, 1, sizeof *registration);
    if (registration == NULL)
        return;
    registration->store = store;
    registration->node_id = node_id;
    int len = snprintf(registration->name, sizeof registration->name, REPLICA_META "%u", (unsigned)node_id);
    registration->meta.name = cake__slice(registration->name, (size_t)len);
    if (peer != NULL) {
        size_t name_len = strlen(peer->data_center);
        registration->value[0] = 1;
        cake__store_le(registration->value + 1, peer->heard_wall_ms, 8);
        memcpy(registration->value + 9, peer->data_center, name_len);
        registration->meta.value = cake__slice(registration->value, 9 + name_len);
    }
    registration->task = (cake__task_t){.finish = finish_registration, .metas = &registration->meta, .meta_count = 1};
    cake__lane_submit(&store->lanes[0], &registration->task);
}

typedef struct {
    cake_store_t *store;
    int err;
} loading_t;

static int on_replica(void *arg, cake_slice_t name, cake_slice_t value)
{
    loading_t *loading = arg;
    const uint8_t *at = value.data;
    unsigned long id = 0;
    for (size_t i = strlen(REPLICA_META); i < name.len && id <= UINT16_MAX; i++)
        id = id * 10 + (unsigned long)(((const char *)name.data)[i] - '0');
    if (value.len < 9 || value.len - 9 >= sizeof((cake__peer_t *)0)->data_center || at[0] != 1 || id == 0 ||
        id > UINT16_MAX)
        return loading->err = CAKE_ECORRUPT;
    cake__peer_t *peer = cake__peer_learn(loading->store, (uint16_t)id);
    if (peer == NULL)
        return id == cake_node_id(loading->store->node) ? 0 : (loading->err = CAKE_ENOMEM);
    peer->is_replica = true;
    heard_before(peer, cake__load_le(at + 1, 8));
    peer->stored_wall_ms = peer->heard_wall_ms;
    memcpy(peer->data_center, at + 9, value.len - 9);
    peer->is_placed = value.len > 9;
    return 0;
}

int cake__peers_load(cake_store_t *store)
{
    loading_t loading = {.store = store};
    int err = store->storage->ops->metas(store->storage, 0, cake__slice_str(REPLICA_META), on_replica, &loading);
    return loading.err != 0 ? loading.err : err;
}

/* What a joining node is told: whoever counts for levels there has to count here, also those that nobody can hear now.
 *
 *   count varint, entries: id u16, heard u64 (Unix ms), data centre string */
void cake__put_registry(cake_store_t *store, cake__buf_t *out)
{
    size_t count = 0;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    count += CAKE_CONTAINER_OF(link, cake__peer_t, link)->is_replica;
    cake__put_varint(out, count);
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        const cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        if (!peer->is_replica)
            continue;
        cake__put_u16(out, peer->node_id);
        cake__put_u64(out, peer->heard_wall_ms);
        cake__put_string(out, cake__slice_str(peer->data_center));
    }
}

int cake__take_registry(cake_store_t *store, cake__reader_t *reader)
{
    uint64_t count = cake__get_varint(reader);
    for (uint64_t i = 0; i < count && reader->err == 0; i++) {
        uint16_t node_id = cake__get_u16(reader);
        uint64_t heard_wall_ms = cake__get_u64(reader);
        cake_slice_t data_center = cake__get_string(reader, sizeof((cake__peer_t *)0)->data_center - 1);
        if (reader->err != 0 || node_id == 0)
            return CAKE_EPARSE;
        if (store->is_joined || node_id == cake_node_id(store->node))
            continue;
        cake__peer_t *peer = cake__peer_learn(store, node_id);
        if (peer == NULL)
            return CAKE_ENOMEM;
        if (peer->is_replica)
            continue;
        if (!cake__peer_is_there(peer)) {
            memcpy(peer->data_center, data_center.data, data_center.len);
            peer->data_center[data_center.len] = '\0';
            peer->is_placed = data_center.len > 0;
            heard_before(peer, heard_wall_ms);
        }
        peer->is_replica = true;
        cake__join_met(store);
        store->candidates_are_valid = false;
        store_replica(store, node_id, peer);
        peer->stored_wall_ms = peer->heard_wall_ms;
    }
    return reader->err;
}

/* ---- signs of life ----------------------------------------------------------------------------------------------------*/

static void forget_acked(cake_store_t *store, uint16_t node_id)
{
    cake__keyspace_t *keyspace;
    for (size_t cursor = 0; (keyspace = cake__map_next(&store->keyspaces, &cursor)) != NULL;)
        cake__keyspace_forget_acked(keyspace, node_id);
}

/* Model, rule 4: a node that shows up with another actor has acknowledged nothing. */
static void begin_run(cake__peer_t *peer, uint64_t actor)
{
    bool is_first = peer->actor == 0;
    peer->actor = actor;
    peer->equal_version = peer->told_version = 0;
    peer->has_mismatch = false;
    peer->unexplained = 0;
    peer->is_compared = false;
    cake__servings_end(peer->store, peer->node_id);
    if (!is_first)
        forget_acked(peer->store, peer->node_id);
    cake__pulse_peer(peer);
}

cake__peer_t *cake__peer_heard(cake_store_t *store, const cake__hail_t *hail)
{
    cake__peer_t *peer = cake__peer_learn(store, hail->node_id);
    if (peer == NULL)
        return NULL;
    peer->heard_wall_ms = cake__wall_ms(store->env);
    peer->heard_ns = cake__now_ns(store->env);
    peer->silent_before_ms = 0;
    peer->pulse_failures = 0;
    peer->reads_packed = hail->reads_packed;
    peer->is_new = !hail->is_joined && hail->digest == 0;
    peer->sees_new = hail->sees_new;
    bool was_ready = peer->has_store && peer->is_replica;
    if (!peer->has_store) {
        peer->has_store = true;
        store->candidates_are_valid = false;
    }
    if (peer->actor != hail->actor)
        begin_run(peer, hail->actor);
    if (hail->is_joined && !peer->is_replica) {
        peer->is_replica = true;
        cake__join_met(store);
        store->candidates_are_valid = false;
        store_replica(store, peer->node_id, peer);
        peer->stored_wall_ms = peer->heard_wall_ms;
    }
    if (!was_ready && peer->is_replica)
        cake__writes_send_again(peer);
    uint64_t unstored_ms = peer->heard_wall_ms - cake__min_u64(peer->heard_wall_ms, peer->stored_wall_ms);
    if (peer->is_replica && unstored_ms > store->options.forget_after_ms / 8) {
        store_replica(store, peer->node_id, peer);
        peer->stored_wall_ms = peer->heard_wall_ms;
    }
    return peer;
}

static void on_membership(void *arg, cake_membership_kind_t kind, const cake_member_t *member)
{
    cake_store_t *store = arg;
    cake__peer_t *peer = member->is_self ? NULL : cake__peer_learn(store, member->node_id);
    if (peer == NULL)
        return;
    bool has_moved = strcmp(peer->data_center, member->data_center) != 0;
    memcpy(peer->data_center, member->data_center, sizeof peer->data_center);
    if (has_moved && peer->is_replica && store->state == CAKE__STORE_RUNNING)
        store_replica(store, peer->node_id, peer);
    peer->is_member = peer->is_placed = true;
    peer->status = member->status;
    peer->is_degraded = member->is_degraded;
    store->candidates_are_valid = false;
    if (kind == CAKE_MEMBER_LEFT) {
        peer->has_store = false;
        cake__peer_drop_queue(peer);
    }
    if (kind == CAKE_MEMBER_JOINED) {
        peer->joined_ns = cake__now_ns(store->env);
        peer->reads_packed = false; /* until its new run says so */
        cake__pulse_peer(peer);
    }
    cake__join_try(store);
}

/* A replica that membership has not named for so long since the start, and that sends nothing, is taken for dead. */
void cake__peers_give_up_unseen(cake_store_t *store)
{
    uint64_t wall_ms = cake__wall_ms(store->env);
    if (cake__now_ns(store->env) < store->join_deadline_ns)
        return;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        bool is_fresh = peer->actor != 0 && wall_ms < peer->heard_wall_ms + store->options.join_timeout_ms;
        if (!peer->is_member && !is_fresh)
            peer->status = CAKE_DEAD;
    }
}

int cake__peers_start(cake_store_t *store)
{
    return cake_node_watch(store->node, on_membership, store, &store->membership);
}

/* ---- forgetting ---------------------------------------------------------------------------------------------------------*/

void cake__forget_peer(cake_store_t *store, uint16_t node_id)
{
    cake__peer_t *peer = cake__peer_find(store, node_id);
    if (peer == NULL)
        return;
    if (peer->is_replica)
        store_replica(store, node_id, NULL);
    cake__drop_wants(store, node_id);
    forget_acked(store, node_id);
    free_peer(peer);
}

void cake__handle_forget(cake_rpc_call_t *call, void *arg)
{
    cake_store_t *store = arg;
    cake_slice_t body = cake_rpc_body(call);
    cake__reader_t reader = cake__reader(body.data, body.len);
    cake__hail_t hail;
    int err = cake__store_is_stopping(store) ? CAKE_ECLOSED : cake__get_hail(store, &reader, &hail);
    uint16_t node_id = cake__get_u16(&reader);
    if (err == 0 && !cake__reader_done(&reader))
        err = CAKE_EPARSE;
    cake__peer_t *peer = err == 0 ? cake__peer_find(store, node_id) : NULL;
    if (err == 0 && peer != NULL && cake__peer_is_there(peer))
        err = CAKE_EBUSY;
    if (err == 0)
        cake__forget_peer(store, node_id);
    if (err == 0)
        cake_rpc_reply(call, NULL, 0);
    else
        cake_rpc_fail(call, err, NULL);
}

static void on_told_to_forget(cake_reply_t *reply, void *arg)
{
    (void)arg;
    cake_reply_free(reply);
}

typedef struct {
    cake_store_t *store;
    uint16_t node_id;
} forget_request_t;

static int forget(void *arg)
{
    forget_request_t *request = arg;
    cake_store_t *store = request->store;
    cake__peer_t *peer = cake__peer_find(store, request->node_id);
    if (peer == NULL)
        return CAKE_ENOTFOUND;
    if (cake__peer_is_there(peer))
        return CAKE_EBUSY;
    cake__forget_peer(store, request->node_id);
    cake__buf_t out;
    cake__buf_init(&out, store->alloc);
    cake__put_hail(store, &out);
    cake__put_u16(&out, request->node_id);
    cake_slice_t body = cake__buf_slice(&out);
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        if (cake__peer_is_there(peer) && out.err == 0)
            (void)cake__store_call(store, peer->node_id, "forget", &body, 1, FORGET_TIMEOUT_MS, on_told_to_forget,
                                   NULL);
    }
    cake__buf_free(&out);
    return 0;
}

int cake_store_forget(cake_store_t *store, uint16_t node_id)
{
    forget_request_t request = {store, node_id};
    return cake__run_on_loop(store->env, forget, &request);
}
