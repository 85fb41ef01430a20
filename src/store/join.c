/* Joining (model, rule 7, for all keyspaces of a node): a node that begins with nothing takes no writes and hands
 * nothing out until a first session with a joined replica has finished for every keyspace of that replica. Then it
 * becomes part of the cluster:
 *
 *   find a joined replica ─> list its keyspaces, each wanted in any case ─> all pulled
 *     ─> in the registry ─> more than half of the replicas, and of those in its data centre, know that
 *     ─> what they have was pulled again ─> "joined" is made durable
 *
 * From the moment when more than half know it, no majority can form without it any more; what was acknowledged by one
 * before is among what it pulls from them. So a majority of the replicas with it has all that a majority without it has
 * acknowledged. Others that join at the same time, and say so, are not asked, and their answers count for nobody's
 * majority (cake__level_takes_answer): those who join by a minority that is cut off are none, however many they are.
 * The same for a replica that has lost its disk.
 *
 * A node without seeds has joined when it starts.
 *
 * A cluster that is all new begins with the lowest id, where nobody can be missing: every seed of every node is a live
 * member, every member has a store, and each of them says that it has nothing and sees the same of its own seeds. That
 * has to hold for a second, so that who is old and just out of sight is heard of. The others then join that one. A seed
 * that is down, cut off or still opening its store may be a replica with documents: then nobody begins but by
 * join_timeout.
 *
 * A node that finds no joined replica within join_timeout, or not enough of those that there are within another one,
 * declares itself joined, and is alone: it takes writes at NONE only. That ends when it has become part of a cluster as
 * above, or when its seeds are all there, and all whom it sees are alone or new. Those that are alone together, or join
 * one that is, stay alone.
 *
 * Meta "joined": 1, or 2 while it is alone. */
#include "store/store.h"

#define JOIN_TICK_MS   200u
#define JOIN_SETTLE_MS 1000u
#define JOINED_META    "joined"
#define ALONE_TEXT     "it takes writes at level none until it has met a majority, or all its seeds, and they are new"

static void on_joined(cake__task_t *task, int err)
{
    cake_store_t *store = CAKE_CONTAINER_OF(task, cake_store_t, join_task);
    store->is_declaring_joined = false;
    if (err != 0)
        return; /* the timer tries again */
    store->is_joined = true;
    store->sees_new = false;
    cake__keyspace_t *keyspace;
    for (size_t cursor = 0; (keyspace = cake__map_next(&store->keyspaces, &cursor)) != NULL;)
        cake__orswot_set_joined(keyspace->set, true);
    if (!store->is_alone)
        store->env->ops->timer_cancel(store->env, &store->join_timer);
    cake__registry_join(store);
    cake__log(store->log, CAKE_LOG_INFO, "joined: %zu keyspaces", store->keyspaces.count);
    cake__writes_release_held(store);
    cake__pulse_all(store);
}

static void declare_joined(cake_store_t *store, bool is_alone)
{
    if (store->is_declaring_joined || store->is_joined)
        return;
    store->is_declaring_joined = true;
    store->is_alone = is_alone;
    store->join_meta = (cake_meta_write_t){cake__slice_str(JOINED_META), cake__slice(is_alone ? "\2" : "\1", 1)};
    store->join_task = (cake__task_t){.finish = on_joined, .metas = &store->join_meta, .meta_count = 1};
    cake__lane_submit(&store->lanes[0], &store->join_task);
}

static void on_listed(cake_store_t *store, uint16_t node_id, int err)
{
    if (node_id != store->join_peer)
        return;
    if (err == 0)
        store->join_is_listed = true;
    else
        store->join_peer = 0;
    cake__join_try(store);
}

static void on_met_stored(cake__task_t *task, int err)
{
    cake_store_t *store = CAKE_CONTAINER_OF(task, cake_store_t, join_task);
    (void)err; /* after a restart it meets the replicas again */
    store->is_declaring_joined = false;
}

static void end_alone(cake_store_t *store)
{
    store->is_alone = false;
    store->sees_new = false;
    store->env->ops->timer_cancel(store->env, &store->join_timer);
    cake__pulse_all(store);
    if (store->is_declaring_joined)
        return; /* likewise */
    store->is_declaring_joined = true;
    store->join_meta = (cake_meta_write_t){cake__slice_str(JOINED_META), cake__slice("\1", 1)};
    store->join_task = (cake__task_t){.finish = on_met_stored, .metas = &store->join_meta, .meta_count = 1};
    cake__lane_submit(&store->lanes[0], &store->join_task);
}

/* ---- becoming part of the cluster ---------------------------------------------------------------------------------*/

static void on_listed_again(cake_store_t *store, uint16_t node_id, int err)
{
    cake__peer_t *peer = cake__peer_find(store, node_id);
    if (err != 0 && peer != NULL)
        peer->listed_registry = 0;
    cake__join_try(store);
}

/* Has all that the peer had when both knew the same replicas, this node among them; begins what that takes. */
static bool has_caught_up(cake_store_t *store, cake__peer_t *peer)
{
    if (!cake__peer_is_there(peer) || peer->is_listing)
        return false;
    if (!cake__registry_agrees(peer)) {
        cake__registry_compare(peer);
        return false;
    }
    if (peer->listed_registry == store->registry)
        return !cake__has_wants(store, peer->node_id);
    if (cake__list_peer(peer, on_listed_again) == 0)
        peer->listed_registry = store->registry;
    return false;
}

/* Known by more than half of the replicas, and of those in its own data centre, for levels that count there. Who is
 * dead counts among them, whatever it said last, and as one of here where nobody knows. */
static bool is_part_of_cluster(cake_store_t *store)
{
    struct {
        size_t replicas, caught_up;
    } all = {0}, here = {0};
    const char *data_center = cake_node_data_center(store->node);
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        bool is_passed_over = cake__peer_is_there(peer) && cake__peer_is_outside(peer);
        if (!peer->is_replica || cake__peer_is_silent(peer) || is_passed_over)
            continue;
        bool is_here = !peer->is_placed || strcmp(peer->data_center, data_center) == 0;
        bool is_caught_up = has_caught_up(store, peer);
        all.replicas++;
        all.caught_up += is_caught_up;
        here.replicas += is_here;
        here.caught_up += is_here && is_caught_up;
    }
    return all.caught_up > all.replicas / 2 && (here.replicas == 0 || here.caught_up > here.replicas / 2);
}

/* The first session is over. */
static void become_part(cake_store_t *store, const cake__peer_t *by)
{
    uint64_t now_ns = cake__now_ns(store->env);
    if (store->part_deadline_ns == 0)
        store->part_deadline_ns = now_ns + store->options.join_timeout_ms * CAKE_NS_PER_MS;
    cake__registry_join(store);
    if (is_part_of_cluster(store)) {
        declare_joined(store, false);
    } else if ((by->is_alone && cake__registry_agrees(by)) || now_ns >= store->part_deadline_ns) {
        cake__log(store->log, CAKE_LOG_WARN, "%s", "joined, but not by a majority of the replicas: " ALONE_TEXT);
        declare_joined(store, true);
    }
}

/* ---- finding whom to join -----------------------------------------------------------------------------------------*/

/* Of a cluster, where there is one. */
static cake__peer_t *find_joined_peer(cake_store_t *store)
{
    cake__peer_t *found = NULL;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        bool is_usable = peer->is_joined && peer->has_store && cake__peer_is_there(peer) && !peer->is_listing;
        if (is_usable && (found == NULL || (found->is_alone && !peer->is_alone)))
            found = peer;
    }
    return found;
}

void cake__join_leave(cake_store_t *store, uint16_t node_id)
{
    if (store->join_peer != node_id)
        return;
    store->join_peer = 0;
    store->part_deadline_ns = 0;
}

void cake__join_try(cake_store_t *store)
{
    if (store->is_declaring_joined || store->state != CAKE__STORE_RUNNING)
        return;
    if (store->is_joined) {
        if (store->is_alone && is_part_of_cluster(store))
            end_alone(store);
        return;
    }
    if (store->join_peer != 0) {
        cake__peer_t *peer = cake__peer_find(store, store->join_peer);
        if (peer == NULL || !cake__peer_is_there(peer)) {
            cake__drop_wants(store, store->join_peer);
            cake__join_leave(store, store->join_peer);
        } else if (store->join_is_listed && !cake__has_wants(store, store->join_peer)) {
            become_part(store, peer);
        }
        if (store->join_peer != 0)
            return;
    }
    cake__peer_t *peer = find_joined_peer(store);
    if (peer == NULL)
        return;
    store->join_peer = peer->node_id;
    store->join_is_listed = false;
    if (cake__list_peer(peer, on_listed) != 0)
        store->join_peer = 0;
}

int cake__join_load(cake_store_t *store, cake_slice_t value)
{
    const uint8_t *state = value.data;
    if (value.len != 1 || state[0] == 0 || state[0] > 2)
        return CAKE_ECORRUPT;
    store->is_joined = true;
    store->is_alone = state[0] == 2;
    return 0;
}

/* ---- a cluster that is all new ------------------------------------------------------------------------------------*/

static bool sees_only_new(const cake_store_t *store)
{
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        const cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        if (cake__peer_is_forgotten(peer))
            continue;
        bool is_harmless = peer->is_alone || (peer->is_new && !peer->is_replica);
        if (!is_harmless || !peer->has_store || !cake__peer_is_there(peer) || !cake__registry_agrees(peer))
            return false;
    }
    bool is_harmless = store->is_joined || store->digest == 0;
    return is_harmless && !cake__list_is_empty(&store->peers) && cake__node_seeds_are_members(store->node);
}

static bool is_first_of_new(const cake_store_t *store)
{
    bool is_first = store->sees_new;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        const cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        is_first &= peer->sees_new && peer->node_id > cake_node_id(store->node);
    }
    return is_first;
}

static void look_for_new(cake_store_t *store)
{
    uint64_t now_ns = cake__now_ns(store->env);
    bool saw_new = store->sees_new;
    store->sees_new = sees_only_new(store);
    if (store->sees_new != saw_new)
        cake__pulse_all(store);
    if (!is_first_of_new(store)) {
        store->all_new_since_ns = 0;
    } else if (store->all_new_since_ns == 0) {
        store->all_new_since_ns = now_ns;
    } else if (now_ns - store->all_new_since_ns >= JOIN_SETTLE_MS * CAKE_NS_PER_MS) {
        cake__log(store->log, CAKE_LOG_INFO, "all seeds and members are new: the cluster begins with this node");
        if (store->is_joined)
            end_alone(store);
        else
            declare_joined(store, false);
    }
}

static void on_join_timer(void *arg)
{
    cake_store_t *store = arg;
    if ((store->is_joined && !store->is_alone) || store->state != CAKE__STORE_RUNNING)
        return;
    cake__join_try(store);
    look_for_new(store);
    bool is_waiting = !store->is_joined && !store->is_declaring_joined && store->join_peer == 0;
    if (is_waiting && cake__now_ns(store->env) >= store->join_deadline_ns) {
        cake__log(store->log, CAKE_LOG_WARN,
                  "no joined replica answered within %llu ms: this node declares itself joined; " ALONE_TEXT,
                  (unsigned long long)store->options.join_timeout_ms);
        declare_joined(store, true);
    }
    cake__timer_arm_ms(store->env, &store->join_timer, JOIN_TICK_MS);
}

/* Seeds that are this node itself do not count. */
static bool has_other_seeds(const cake_node_t *node)
{
    for (size_t i = 0; i < node->seed_count; i++) {
        cake_addr_t addr;
        bool is_self = cake_addr_parse(node->seeds[i].text, &addr) == 0 &&
                       (cake_addr_equal(&addr, &node->public_addr) || cake_addr_equal(&addr, &node->listen_addr));
        if (!is_self)
            return true;
    }
    return false;
}

void cake__join_start(cake_store_t *store)
{
    store->join_timer = CAKE_TIMER_INIT(on_join_timer, store);
    store->join_deadline_ns = cake__now_ns(store->env) + store->options.join_timeout_ms * CAKE_NS_PER_MS;
    if (store->is_joined)
        cake__registry_join(store);
    bool has_seeds = has_other_seeds(store->node);
    if (store->is_joined && store->is_alone && !has_seeds)
        end_alone(store); /* it was told so: it is the cluster */
    if (store->is_joined && !store->is_alone)
        return;
    if (has_seeds) {
        cake__timer_arm_ms(store->env, &store->join_timer, JOIN_TICK_MS);
        return;
    }
    declare_joined(store, false);
    cake__timer_arm_ms(store->env, &store->join_timer, JOIN_TICK_MS);
}
