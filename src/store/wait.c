/* Calls that wait for the store to have caught up: looked at every few milliseconds, since many things may bring it
 * about. */
#include "store/store.h"

#define TICK_MS         20u
#define SYNC_TIMEOUT_MS 60000u

typedef struct waiting {
    cake_store_t *store;
    cake_timer_t timer;
    cake_gate_t gate;
    uint64_t timeout_ms, deadline_ns;
    const uint16_t *ids;
    size_t count;
    bool (*is_over)(const struct waiting *waiting);
    int err;
} waiting_t;

static void look(void *arg)
{
    waiting_t *waiting = arg;
    cake_store_t *store = waiting->store;
    bool is_over = waiting->is_over(waiting), is_late = cake__now_ns(store->env) >= waiting->deadline_ns;
    if (!is_over && !is_late && store->state == CAKE__STORE_RUNNING) {
        cake__timer_arm_ms(store->env, &waiting->timer, TICK_MS);
        return;
    }
    waiting->err = is_over ? 0 : store->state != CAKE__STORE_RUNNING ? CAKE_ECLOSED : CAKE_ETIMEDOUT;
    store->reads_running--;
    store->env->ops->gate_open(store->env, &waiting->gate);
    cake__store_check_stopped(store);
}

static int begin(waiting_t *waiting)
{
    cake_store_t *store = waiting->store;
    store->reads_running++; /* stopping waits for it */
    waiting->timer = CAKE_TIMER_INIT(look, waiting);
    uint64_t longest_ms = (CAKE_NEVER - 1) / CAKE_NS_PER_MS - cake__now_ns(store->env) / CAKE_NS_PER_MS - 1;
    waiting->deadline_ns = cake__now_ns(store->env) + cake__min_u64(waiting->timeout_ms, longest_ms) * CAKE_NS_PER_MS;
    cake__timer_arm_ms(store->env, &waiting->timer, 0);
    return 0;
}

static int wait_on_loop(waiting_t *waiting, int (*start)(void *arg))
{
    cake_env_t *env = waiting->store->env;
    if (env->ops->on_loop(env))
        return CAKE_EDEADLK;
    env->ops->gate_init(env, &waiting->gate);
    int err = cake__run_on_loop(env, start, waiting);
    if (err == 0) {
        env->ops->gate_wait(env, &waiting->gate);
        err = waiting->err;
    }
    env->ops->gate_destroy(env, &waiting->gate);
    return err;
}

/* ---- comparing now ------------------------------------------------------------------------------------------------*/

static bool is_compared(const waiting_t *waiting)
{
    const cake_store_t *store = waiting->store;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        if (CAKE_CONTAINER_OF(link, cake__peer_t, link)->is_listing)
            return false;
    }
    return cake__list_is_empty(&store->wanting) && store->pulls_running == 0;
}

static int begin_sync(void *arg)
{
    waiting_t *waiting = arg;
    cake_store_t *store = waiting->store;
    if (store->state != CAKE__STORE_RUNNING)
        return CAKE_ECLOSED;
    int err = 0;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        if (err == 0 && cake__peer_is_there(peer) && peer->has_store && !peer->is_listing)
            err = cake__list_peer(peer, NULL);
        err = err == CAKE_ECLOSED ? 0 : err; /* it has just left */
    }
    return err != 0 ? err : begin(waiting);
}

int cake_store_sync(cake_store_t *store)
{
    waiting_t waiting = {.store = store, .timeout_ms = SYNC_TIMEOUT_MS, .is_over = is_compared};
    return wait_on_loop(&waiting, begin_sync);
}

/* ---- having met others --------------------------------------------------------------------------------------------*/

static bool has_caught_up(cake_store_t *store, const cake__peer_t *peer)
{
    return peer->is_replica && peer->is_placed && peer->is_compared && !peer->is_listing &&
           !cake__has_wants(store, peer->node_id);
}

static bool has_met(const waiting_t *waiting)
{
    cake_store_t *store = waiting->store;
    if (!store->is_joined)
        return false;
    for (size_t i = 0; i < waiting->count; i++) {
        const cake__peer_t *peer = cake__peer_find(store, waiting->ids[i]);
        bool is_self = waiting->ids[i] == cake_node_id(store->node);
        if (!is_self && (peer == NULL || !has_caught_up(store, peer)))
            return false;
    }
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        const cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        if (waiting->count == 0 && cake__peer_is_there(peer) && peer->has_store && !has_caught_up(store, peer))
            return false;
    }
    return true;
}

static int begin_meeting(void *arg)
{
    waiting_t *waiting = arg;
    if (waiting->store->state != CAKE__STORE_RUNNING)
        return CAKE_ECLOSED;
    return begin(waiting);
}

int cake_store_wait_for(cake_store_t *store, const uint16_t *ids, size_t count, uint64_t timeout_ms)
{
    if (store == NULL || (ids == NULL && count > 0))
        return CAKE_EINVAL;
    waiting_t waiting = {.store = store, .ids = ids, .count = count, .is_over = has_met, .timeout_ms = timeout_ms};
    return wait_on_loop(&waiting, begin_meeting);
}

/* ---- having told the others ---------------------------------------------------------------------------------------*/

static bool has_sent(const waiting_t *waiting)
{
    CAKE_LIST_FOR_EACH(link, &waiting->store->peers)
    {
        const cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        if (peer->queue_count > 0 || peer->flight_count > 0)
            return false;
    }
    return true;
}

int cake__wait_sent(cake_store_t *store, uint64_t timeout_ms)
{
    waiting_t waiting = {.store = store, .is_over = has_sent, .timeout_ms = timeout_ms};
    return wait_on_loop(&waiting, begin_meeting);
}
