/* Dropping tombstones (model, rule 4): as soon as every known replica has acknowledged them and they are old enough. Twice a
 * second, for keyspaces that have any; a batch drops a bounded number, so that a purge delays no write for long. */
#include "store/store.h"

typedef struct {
    cake__task_t task; /* first */
    cake__keyspace_t *keyspace;
    size_t dropped;
} purge_t;

static const cake__context_t nothing_acked = {0};

/* What each replica has acknowledged of this keyspace; NULL for one that is silent for too long to be waited for. */
static int gather_acked(cake__keyspace_t *keyspace, const cake__context_t ***out, size_t *count)
{
    cake_store_t *store = keyspace->store;
    *count = 0;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    *count += 1;
    const cake__context_t **acked = cake__calloc(store->alloc, *count, sizeof(const cake__context_t *));
    if (acked == NULL)
        return CAKE_ENOMEM;
    *count = 0;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        const cake__acked_t *row = cake__keyspace_acked(keyspace, peer->node_id, false);
        if (!cake__peer_counts(peer))
            continue;
        if (peer->equal_version != 0 && keyspace->changed_version <= peer->equal_version)
            acked[(*count)++] = cake__keyspace_context(keyspace);
        else
            acked[(*count)++] = row == NULL ? &nothing_acked : &row->context;
    }
    *out = acked;
    return 0;
}

static int stage_purge(cake__task_t *task, cake__change_t *change)
{
    purge_t *purge = CAKE_CONTAINER_OF(task, purge_t, task);
    cake__keyspace_t *keyspace = purge->keyspace;
    const cake_store_options_t *options = &keyspace->store->options;
    const cake__context_t **acked;
    size_t count;
    if (keyspace->pull != NULL || keyspace->serving_count > 0 || cake__watches_hold(keyspace))
        return 0; /* a drop would end their session, or be missed */
    int err = gather_acked(keyspace, &acked, &count);
    if (err != 0)
        return err;
    const cake__purge_t policy = {.peers = acked,
                                  .peer_count = count,
                                  .min_age_ms = options->tombstone_min_age_ms,
                                  .hole_age_ms = options->hole_age_ms,
                                  .max_count = CAKE__PURGE_COUNT};
    err = cake__change_purge(change, &policy, &purge->dropped);
    cake__free(keyspace->store->alloc, acked);
    return err;
}

static void start_purge(cake__keyspace_t *keyspace);

static void finish_purge(cake__task_t *task, int err)
{
    purge_t *purge = CAKE_CONTAINER_OF(task, purge_t, task);
    cake__keyspace_t *keyspace = purge->keyspace;
    bool has_more = err == 0 && purge->dropped == CAKE__PURGE_COUNT;
    keyspace->is_purging = false;
    keyspace->store->stats.tombstones_purged += err == 0 ? purge->dropped : 0;
    cake__free(keyspace->store->alloc, purge);
    if (has_more && keyspace->store->state == CAKE__STORE_RUNNING)
        start_purge(keyspace);
}

static void start_purge(cake__keyspace_t *keyspace)
{
    cake_store_t *store = keyspace->store;
    purge_t *purge = cake__calloc(store->alloc, 1, sizeof *purge);
    if (purge == NULL)
        return;
    purge->keyspace = keyspace;
    purge->task = (cake__task_t){.keyspace = keyspace, .stage = stage_purge, .finish = finish_purge};
    keyspace->is_purging = true;
    cake__lane_submit(keyspace->lane, &purge->task);
}

static bool may_have_droppable(const cake__keyspace_t *keyspace, uint64_t wall_ms)
{
    uint64_t oldest_ms = cake_hlc_unix_ms(cake__orswot_oldest_tombstone(keyspace->set));
    bool is_old = oldest_ms + keyspace->store->options.tombstone_min_age_ms <= wall_ms;
    return is_old && !keyspace->is_purging && keyspace->pull == NULL && keyspace->serving_count == 0;
}

static void on_purge_timer(void *arg)
{
    cake_store_t *store = arg;
    uint64_t wall_ms = cake__wall_ms(store->env);
    CAKE_LIST_FOR_EACH(link, &store->with_tombstones)
    {
        cake__keyspace_t *keyspace = CAKE_CONTAINER_OF(link, cake__keyspace_t, tombstone_link);
        if (may_have_droppable(keyspace, wall_ms))
            start_purge(keyspace);
    }
    cake__timer_arm_ms(store->env, &store->purge_timer, CAKE__PURGE_TICK_MS);
}

void cake__purge_start(cake_store_t *store)
{
    store->purge_timer = CAKE_TIMER_INIT(on_purge_timer, store);
    cake__timer_arm_ms(store->env, &store->purge_timer, CAKE__PURGE_TICK_MS);
}
