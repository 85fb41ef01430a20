/* Other nodes with a store: what is known of them as members, who of them counts for levels, and their signs of life.
 *
 * A peer is made when it is heard of (a member, a message, the registry), and stays until the store is closed. */
#include "store/store.h"

/* ---- finding and making -------------------------------------------------------------------------------------------*/

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

static void see_member(cake__peer_t *peer, const cake_member_t *member)
{
    memcpy(peer->data_center, member->data_center, sizeof peer->data_center);
    peer->is_member = peer->is_placed = true;
    peer->status = member->status;
    peer->is_degraded = member->is_degraded;
    peer->store->candidates_are_valid = false;
}

/* A member of whom there was no memory to take note when watchers were told is seen now. (Before that the store may
 * be loaded on a thread that is not the loop's, and watchers are told of all.) */
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
    const cake_member_t *member = store->state == CAKE__STORE_RUNNING ? cake__node_told(store->node, node_id) : NULL;
    if (member != NULL)
        see_member(peer, member);
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

/* ---- what counts --------------------------------------------------------------------------------------------------*/

bool cake__peer_is_there(const cake__peer_t *peer)
{
    return peer->is_member && (peer->status == CAKE_ALIVE || peer->status == CAKE_SUSPECT);
}

bool cake__peer_is_outside(const cake__peer_t *peer)
{
    return peer->actor != 0 && (!peer->is_joined || peer->is_alone);
}

bool cake__peer_is_forgotten(const cake__peer_t *peer)
{
    return peer->length > 0 && !peer->is_replica && !cake__peer_is_there(peer);
}

/* By the clock that does not jump: a wall clock that returns from a day behind must not make everybody who is away
 * right now silent for a day. */
bool cake__peer_is_silent(const cake__peer_t *peer)
{
    uint64_t silent_ms = (cake__now_ns(peer->store->env) - peer->heard_ns) / CAKE_NS_PER_MS + peer->silent_before_ms;
    return !cake__peer_is_there(peer) && silent_ms > peer->store->options.forget_after_ms;
}

/* What a registry says about the time before this run, by wall clocks, one of which may be wrong: so that counts for
 * half of the time at most, and the other half passes in this run. */
void cake__peer_heard_before(cake__peer_t *peer, uint64_t heard_wall_ms)
{
    uint64_t wall_ms = cake__wall_ms(peer->store->env), most_ms = peer->store->options.forget_after_ms / 2;
    peer->heard_wall_ms = heard_wall_ms;
    peer->heard_ns = cake__now_ns(peer->store->env);
    peer->silent_before_ms = cake__min_u64(wall_ms - cake__min_u64(wall_ms, heard_wall_ms), most_ms);
}

/* A member whose store is still joining counts too, and so does one that joined a moment ago and may be opening its
 * store: a level that passed over them would promise less than it says. */
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
            if (cake__peer_counts(peer)) /* who is outside counts for nobody's majority yet: taken last */
                store->candidates[store->candidate_count++] = (cake_candidate_t){
                    peer->node_id, peer->status, peer->is_degraded || cake__peer_is_outside(peer), peer->data_center};
        }
        store->candidates_are_valid = true;
    }
    *out = store->candidates;
    *count = store->candidate_count;
    return 0;
}

/* A node with seeds that has met nobody is no quorum, and of a replica that only its store was heard of nobody knows
 * whose majority it is part of. */
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

/* A majority of replicas of whom the others may know nothing is none. At all nobody is left who could know more. */
bool cake__level_takes_answer(const cake_store_t *store, cake_consistency_t level, uint32_t registry, bool is_outside)
{
    if (level < CAKE_QUORUM)
        return true;
    return registry == store->registry && (level == CAKE_ALL || !is_outside);
}

/* ---- signs of life ------------------------------------------------------------------------------------------------*/

void cake__peer_forget_acked(cake__peer_t *peer)
{
    cake_store_t *store = peer->store;
    cake__keyspace_t *keyspace;
    for (size_t cursor = 0; (keyspace = cake__map_next(&store->keyspaces, &cursor)) != NULL;)
        cake__keyspace_forget_acked(keyspace, peer->node_id);
}

/* Model, rule 4: a node that shows up with another actor has acknowledged nothing. Nor need it have what it told
 * before: its disk may be lost, and nobody would ever stop asking for that. */
static void begin_run(cake__peer_t *peer, uint64_t actor)
{
    bool is_first = peer->actor == 0;
    peer->actor = actor;
    peer->equal_version = peer->told_version = 0;
    peer->has_mismatch = false;
    peer->unexplained = 0;
    peer->is_compared = false;
    cake__servings_end(peer->store, peer->node_id);
    if (!is_first) {
        cake__peer_forget_acked(peer);
        cake__drop_wants(peer->store, peer->node_id);
        cake__join_leave(peer->store, peer->node_id);
    }
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
    bool was_ready = peer->has_store && peer->is_replica, was_outside = cake__peer_is_outside(peer);
    peer->is_joined = hail->is_joined;
    peer->is_alone = hail->is_alone;
    peer->sees_new = hail->sees_new;
    if (!peer->has_store) {
        peer->has_store = true;
        store->candidates_are_valid = false;
    }
    if (peer->actor != hail->actor)
        begin_run(peer, hail->actor);
    cake__registry_heard(peer, hail);
    if (was_outside != cake__peer_is_outside(peer)) {
        store->candidates_are_valid = false;
        cake__writes_recount(store);
    }
    if (!was_ready && peer->is_replica)
        cake__writes_send_again(peer);
    return peer;
}

static void on_membership(void *arg, cake_membership_kind_t kind, const cake_member_t *member)
{
    cake_store_t *store = arg;
    cake__peer_t *peer = member->is_self ? NULL : cake__peer_learn(store, member->node_id);
    if (peer == NULL)
        return;
    bool has_moved = strcmp(peer->data_center, member->data_center) != 0;
    see_member(peer, member);
    if (has_moved && peer->is_replica && store->state == CAKE__STORE_RUNNING)
        cake__registry_store(peer);
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
