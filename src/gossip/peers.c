/* peers.c: the table of members, its indexes, and what the owner is told about them. */
#include "gossip/state.h"

size_t cake__gossip_peer_index(const cake__gossip_t *gossip, uint16_t node_id)
{
    size_t low = 0, high = gossip->member_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (gossip->members[middle]->who.node_id < node_id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

cake__gossip_peer_t *cake__gossip_peer_find(const cake__gossip_t *gossip, uint16_t node_id)
{
    size_t i = cake__gossip_peer_index(gossip, node_id);
    if (i < gossip->member_count && gossip->members[i]->who.node_id == node_id)
        return gossip->members[i];
    return NULL;
}

uint32_t cake__gossip_log2(size_t n)
{
    uint32_t log = 1;
    while (((size_t)1 << log) < n)
        log++;
    return log;
}

/* ---- indexes ----------------------------------------------------------------------------------------------------- */

static void slot_add(cake__gossip_peer_t **slots, size_t *count, cake__gossip_peer_t *peer)
{
    peer->slot = *count;
    slots[(*count)++] = peer;
}

static void slot_remove(cake__gossip_peer_t **slots, size_t *count, cake__gossip_peer_t *peer)
{
    CAKE_ASSERT(*count > 0 && slots[peer->slot] == peer);
    cake__gossip_peer_t *last = slots[--*count];
    slots[peer->slot] = last;
    last->slot = peer->slot;
}

static void index_status(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    if (peer == gossip->self)
        return;
    if (cake__gossip_is_live(peer))
        slot_add(gossip->live, &gossip->live_count, peer);
    else if (peer->status == CAKE__GOSSIP_DEAD)
        slot_add(gossip->dead, &gossip->dead_count, peer);
    gossip->suspect_count += peer->status == CAKE__GOSSIP_SUSPECT;
    gossip->left_count += peer->status == CAKE__GOSSIP_LEFT;
    if (cake__gossip_is_live(peer))
        cake__gossip_edges_joined(gossip, peer);
}

static void unindex_status(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    if (peer == gossip->self)
        return;
    if (cake__gossip_is_live(peer))
        slot_remove(gossip->live, &gossip->live_count, peer);
    else if (peer->status == CAKE__GOSSIP_DEAD)
        slot_remove(gossip->dead, &gossip->dead_count, peer);
    gossip->suspect_count -= peer->status == CAKE__GOSSIP_SUSPECT;
    gossip->left_count -= peer->status == CAKE__GOSSIP_LEFT;
}

void cake__gossip_peer_set_status(cake__gossip_t *gossip, cake__gossip_peer_t *peer, cake__gossip_status_t status)
{
    if (peer->status == status)
        return;
    bool was_live = cake__gossip_is_live(peer);
    bool is_live = status == CAKE__GOSSIP_ALIVE || status == CAKE__GOSSIP_SUSPECT;
    if (was_live && is_live) { /* keeps its place and its edge */
        gossip->suspect_count += status == CAKE__GOSSIP_SUSPECT ? 1 : -(size_t)1;
        peer->status = status;
    } else {
        unindex_status(gossip, peer);
        peer->status = status;
        index_status(gossip, peer);
        if (was_live)
            cake__gossip_edges_left(gossip, peer);
    }
    if (!is_live)
        peer->ended_ns = (int64_t)gossip->now_ns;
    if (status != CAKE__GOSSIP_SUSPECT)
        cake__gossip_clear_suspicion(peer);
    cake__gossip_peer_changed(gossip, peer);
    cake__gossip_peer_touch(gossip, peer);
}

static uint64_t hash_of(const cake__gossip_peer_t *peer)
{
    if (peer->is_fading)
        return 0;
    uint64_t hash = cake__mix64(peer->who.node_id + 1);
    hash = cake__mix64(hash ^ peer->who.generation);
    hash = cake__mix64(hash ^ cake__load_le(peer->who.nonce, 8));
    hash = cake__mix64(hash ^ cake__gossip_rank(peer->status, peer->refutation));
    hash = cake__mix64(hash ^ peer->keys.max_version);
    return cake__mix64(hash ^ peer->keys.gc_version);
}

void cake__gossip_peer_retime(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    uint64_t due_ns = peer->is_gone ? CAKE__GOSSIP_NEVER : cake__gossip_peer_due(gossip, peer);
    if (peer->is_timed && peer->due_ns == due_ns)
        return;
    if (peer->is_timed)
        cake__heap_remove(&gossip->timers, &peer->timer);
    peer->due_ns = due_ns;
    peer->is_timed = due_ns != CAKE__GOSSIP_NEVER;
    if (peer->is_timed)
        cake__heap_insert(&gossip->timers, &peer->timer);
}

void cake__gossip_peer_touch(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    uint64_t hash = peer->is_gone ? 0 : hash_of(peer);
    gossip->bucket[cake__gossip_bucket_of(peer->who.node_id)] ^= peer->hash ^ hash;
    peer->hash = hash;
    cake__gossip_peer_retime(gossip, peer);
}

/* ---- coming and going -------------------------------------------------------------------------------------------- */

void cake__gossip_peer_free(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    cake__gossip_keys_free(&peer->keys, gossip->alloc);
    cake__free(gossip->alloc, peer->data_center);
    cake__free(gossip->alloc, peer);
}

static cake__gossip_peer_t *make_peer(cake__gossip_t *gossip, const cake__gossip_who_t *who, const cake_addr_t *addr,
                                      cake_slice_t data_center)
{
    cake__gossip_peer_t *peer = cake__calloc(gossip->alloc, 1, sizeof *peer);
    char *name = cake__malloc(gossip->alloc, data_center.len + 1);
    if (peer == NULL || name == NULL) {
        cake__free(gossip->alloc, peer);
        cake__free(gossip->alloc, name);
        gossip->err = CAKE_ENOMEM;
        return NULL;
    }
    memcpy(name, data_center.data, data_center.len);
    name[data_center.len] = '\0';
    peer->who = *who;
    peer->addr = *addr;
    peer->data_center = name;
    cake__list_init(&peer->rumour_link);
    cake__list_init(&peer->change_link);
    return peer;
}

static bool grow(cake__gossip_t *gossip)
{
    if (gossip->member_count < gossip->capacity)
        return true;
    if (gossip->member_count >= gossip->params.members_max) {
        gossip->counters.members_refused++;
        return false;
    }
    size_t capacity = gossip->capacity == 0 ? 8 : gossip->capacity * 2;
    void **arrays[] = {(void **)&gossip->members, (void **)&gossip->live, (void **)&gossip->dead};
    for (size_t i = 0; i < CAKE_COUNT_OF(arrays); i++) {
        void *grown = cake__realloc(gossip->alloc, *arrays[i], capacity * sizeof(void *));
        if (grown == NULL) {
            gossip->err = CAKE_ENOMEM;
            return false;
        }
        *arrays[i] = grown;
    }
    void *stale = cake__realloc(gossip->alloc, gossip->stale, capacity * cake__gossip_stale_size());
    if (stale == NULL) {
        gossip->err = CAKE_ENOMEM;
        return false;
    }
    gossip->stale = stale;
    gossip->capacity = capacity;
    return true;
}

static void start_peer(cake__gossip_t *gossip, cake__gossip_peer_t *peer, cake__gossip_status_t status)
{
    peer->status = status;
    peer->ended_ns = (int64_t)gossip->now_ns;
    index_status(gossip, peer);
    cake__gossip_peer_changed(gossip, peer);
    cake__gossip_peer_touch(gossip, peer);
}

cake__gossip_peer_t *cake__gossip_peer_add(cake__gossip_t *gossip, const cake__gossip_who_t *who,
                                           const cake_addr_t *addr, cake_slice_t data_center,
                                           cake__gossip_status_t status)
{
    if (!grow(gossip))
        return NULL;
    cake__gossip_peer_t *peer = make_peer(gossip, who, addr, data_center);
    if (peer == NULL)
        return NULL;
    size_t at = cake__gossip_peer_index(gossip, who->node_id);
    CAKE_ASSERT(at == gossip->member_count || gossip->members[at]->who.node_id != who->node_id);
    memmove(gossip->members + at + 1, gossip->members + at, (gossip->member_count - at) * sizeof gossip->members[0]);
    gossip->members[at] = peer;
    gossip->member_count++;
    if (gossip->self == NULL)
        gossip->self = peer; /* the first one made: before it enters any index of the others */
    start_peer(gossip, peer, status);
    return peer;
}

static void retire(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    CAKE_ASSERT(peer != gossip->self && !peer->is_gone);
    unindex_status(gossip, peer);
    if (cake__gossip_is_live(peer))
        cake__gossip_edges_left(gossip, peer);
    peer->is_gone = true;
    cake__list_remove(&peer->rumour_link);
    cake__gossip_peer_touch(gossip, peer);
    cake__gossip_peer_changed(gossip, peer);
}

cake__gossip_peer_t *cake__gossip_peer_replace(cake__gossip_t *gossip, cake__gossip_peer_t *old,
                                               const cake__gossip_who_t *who, const cake_addr_t *addr,
                                               cake_slice_t data_center, cake__gossip_status_t status)
{
    CAKE_ASSERT(old->who.node_id == who->node_id && old->who.generation < who->generation);
    cake__gossip_peer_t *peer = make_peer(gossip, who, addr, data_center);
    if (peer == NULL)
        return NULL;
    retire(gossip, old);
    gossip->members[cake__gossip_peer_index(gossip, who->node_id)] = peer;
    start_peer(gossip, peer, status);
    return peer;
}

void cake__gossip_peer_forget(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    size_t at = cake__gossip_peer_index(gossip, peer->who.node_id);
    CAKE_ASSERT(gossip->members[at] == peer);
    peer->is_forgotten = true;
    retire(gossip, peer);
    gossip->member_count--;
    memmove(gossip->members + at, gossip->members + at + 1, (gossip->member_count - at) * sizeof gossip->members[0]);
}

size_t cake__gossip_draw(cake__gossip_t *gossip, const cake__gossip_peer_t *except, cake__gossip_peer_t **out,
                         size_t count)
{
    size_t drawn = 0, live = gossip->live_count;
    /* Few members: in turn from a random one, so that none is missed by chance. */
    bool in_turn = live <= 2 * count;
    size_t start = cake__random_below(&gossip->random, live), tries_max = in_turn ? live : 8 * count;
    for (size_t tries = 0; drawn < count && tries < tries_max; tries++) {
        size_t at = in_turn ? (start + tries) % live : cake__random_below(&gossip->random, live);
        cake__gossip_peer_t *peer = gossip->live[at];
        bool is_taken = peer == except;
        for (size_t i = 0; i < drawn; i++)
            is_taken |= out[i] == peer;
        if (!is_taken)
            out[drawn++] = peer;
    }
    return drawn;
}

/* ---- what the owner is told -------------------------------------------------------------------------------------- */

void cake__gossip_peer_changed(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    if (peer != gossip->self && !cake__list_is_linked(&peer->change_link))
        cake__list_push_back(&gossip->changes, &peer->change_link);
}

void cake__gossip_peer_view(const cake__gossip_t *gossip, const cake__gossip_peer_t *peer, cake__gossip_member_t *out)
{
    *out = (cake__gossip_member_t){.who = peer->who,
                                   .addr = peer->addr,
                                   .data_center = peer->data_center,
                                   .status = peer->status,
                                   .is_self = peer == gossip->self,
                                   .is_degraded = peer->is_degraded,
                                   .is_observed = cake__gossip_is_edge(gossip, peer),
                                   .phi = cake__gossip_edge_phi(gossip, peer),
                                   .silent_ms = cake__gossip_edge_silent_ms(gossip, peer),
                                   .refutation = peer->refutation,
                                   .accusers = peer->accuser_count,
                                   .version = peer->keys.max_version,
                                   .keys = &peer->keys};
}

/* The steps from what the owner was told to what is so now; at most three. */
static size_t steps_of(const cake__gossip_peer_t *peer, cake__gossip_change_t steps[3])
{
    size_t count = 0;
    bool was_live = peer->is_announced && peer->announced <= CAKE__GOSSIP_SUSPECT;
    if (peer->is_gone) {
        if (was_live)
            steps[count++] = CAKE__GOSSIP_DIED;
        if (peer->is_forgotten && peer->is_announced)
            steps[count++] = CAKE__GOSSIP_FORGOTTEN;
        return count;
    }
    if (!cake__gossip_is_live(peer)) {
        bool is_left = peer->status == CAKE__GOSSIP_LEFT;
        if (was_live)
            steps[count++] = is_left ? CAKE__GOSSIP_DEPARTED : CAKE__GOSSIP_DIED;
        return count;
    }
    if (!peer->is_announced)
        steps[count++] = CAKE__GOSSIP_JOINED;
    else if (!was_live || (peer->announced == CAKE__GOSSIP_SUSPECT && peer->status == CAKE__GOSSIP_ALIVE))
        steps[count++] = CAKE__GOSSIP_ALIVE_AGAIN;
    else if (peer->is_updated)
        steps[count++] = CAKE__GOSSIP_UPDATED;
    bool was_suspect = was_live && peer->announced == CAKE__GOSSIP_SUSPECT;
    if (peer->status == CAKE__GOSSIP_SUSPECT && !was_suspect)
        steps[count++] = CAKE__GOSSIP_SUSPECTED;
    return count;
}

/* Members are told at the end of a step and not where they change: when there is no memory for the action they stay
 * in the list, and nothing is lost. */
void cake__gossip_tell_changes(cake__gossip_t *gossip)
{
    while (!cake__list_is_empty(&gossip->changes)) {
        cake__gossip_peer_t *peer = CAKE_CONTAINER_OF(gossip->changes.next, cake__gossip_peer_t, change_link);
        cake__gossip_change_t steps[3];
        size_t count = steps_of(peer, steps), before = gossip->action_count;
        for (size_t i = 0; i < count; i++) {
            cake__gossip_action_t *action = cake__gossip_act(gossip, CAKE__GOSSIP_MEMBER);
            if (action == NULL) {
                gossip->action_count = before;
                return;
            }
            action->member.change = steps[i];
            cake__gossip_peer_view(gossip, peer, &action->member.member);
            if (peer->is_gone && steps[i] == CAKE__GOSSIP_DIED)
                action->member.member.status = CAKE__GOSSIP_DEAD;
        }
        peer->is_announced |= count > 0;
        peer->announced = peer->status;
        peer->is_updated = false;
        cake__list_remove(&peer->change_link);
        if (peer->is_gone)
            cake__list_push_back(&gossip->garbage, &peer->change_link);
    }
}
