/* What goes once every known replica has acknowledged it, twice a second.
 *
 *   tombstones (model, rule 4)  of keyspaces that have any, when they are old enough; a batch drops a bounded number,
 *                               so that a purge delays no write for long
 *   actors (rule 8)             of keyspaces whose context lists many more than there are replicas: those of runs that
 *                               have ended are folded into the table that all share, so that contexts do not grow with
 *                               every restart */
#include "store/store.h"

#define CROWDED_PER_TICK 64u    /* keyspaces looked at */
#define CROWDED_AGAIN_MS 10000u /* the same one: somebody has not acknowledged all yet, or nobody retires */

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

/* ---- actors -------------------------------------------------------------------------------------------------------*/

/* The actors that may still write: this run's, that of the set when a batch has failed, and those of the peers. One
 * that is missing here (a peer's, after a failed batch there) costs no more than being listed again. */
static int gather_living(const cake__keyspace_t *keyspace, uint64_t **out, size_t *count)
{
    cake_store_t *store = keyspace->store;
    *count = 2;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    *count += 1;
    uint64_t *living = cake__malloc(store->alloc, *count * sizeof *living);
    if (living == NULL)
        return CAKE_ENOMEM;
    living[0] = store->actor;
    living[1] = keyspace->actor;
    *count = 2;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    living[(*count)++] = CAKE_CONTAINER_OF(link, cake__peer_t, link)->actor;
    *out = living;
    return 0;
}

typedef int (*retire_fn)(void *of, const uint64_t *living, size_t living_count, const cake__context_t *const *peers,
                         size_t peer_count, size_t *count);

static int retire_by(retire_fn retire, void *of, cake__keyspace_t *keyspace, size_t *folded)
{
    const cake_alloc_t *alloc = keyspace->store->alloc;
    const cake__context_t **acked = NULL;
    uint64_t *living = NULL;
    size_t acked_count = 0, living_count = 0;
    *folded = 0;
    int err = gather_acked(keyspace, &acked, &acked_count);
    if (err == 0)
        err = gather_living(keyspace, &living, &living_count);
    if (err == 0)
        err = retire(of, living, living_count, acked, acked_count, folded);
    cake__free(alloc, living);
    cake__free(alloc, acked);
    return err;
}

static int retire_in_summary(void *of, const uint64_t *living, size_t living_count, const cake__context_t *const *peers,
                             size_t peer_count, size_t *count)
{
    return cake__summary_retire(of, living, living_count, peers, peer_count, count);
}

static int retire_in_change(void *of, const uint64_t *living, size_t living_count, const cake__context_t *const *peers,
                            size_t peer_count, size_t *count)
{
    return cake__change_retire(of, living, living_count, peers, peer_count, count);
}

static int stage_retire(cake__task_t *task, cake__change_t *change)
{
    cake__keyspace_t *keyspace = task->keyspace;
    size_t folded;
    if (keyspace->pull != NULL || keyspace->serving_count > 0)
        return 0; /* a session has told what was dropped here */
    return retire_by(retire_in_change, change, keyspace, &folded);
}

static void finish_retire(cake__task_t *task, int err)
{
    (void)err; /* it is tried again */
    cake__free(task->keyspace->store->alloc, task);
}

/* Tried on a copy, so that nothing is written where nothing retires. */
static bool may_retire(cake__keyspace_t *keyspace)
{
    cake__summary_t copy;
    size_t folded = 0;
    cake__summary_init(&copy, keyspace->store->alloc);
    if (cake__summary_copy(&copy, cake__orswot_summary(keyspace->set)) == 0)
        (void)retire_by(retire_in_summary, &copy, keyspace, &folded);
    cake__summary_free(&copy);
    return folded > 0;
}

static void start_retire(cake__keyspace_t *keyspace)
{
    cake_store_t *store = keyspace->store;
    cake__task_t *task = may_retire(keyspace) ? cake__calloc(store->alloc, 1, sizeof *task) : NULL;
    if (task == NULL)
        return;
    *task = (cake__task_t){.keyspace = keyspace, .stage = stage_retire, .finish = finish_retire};
    cake__lane_submit(keyspace->lane, task);
}

/* store->crowded is ordered by when a keyspace may be looked at (again). */
static void look_at_crowded(cake_store_t *store)
{
    uint64_t now_ns = cake__now_ns(store->env);
    for (uint32_t i = 0; i < CROWDED_PER_TICK && !cake__list_is_empty(&store->crowded); i++) {
        cake__keyspace_t *keyspace = CAKE_CONTAINER_OF(store->crowded.next, cake__keyspace_t, crowded_link);
        if (keyspace->crowded_until_ns > now_ns)
            return;
        keyspace->crowded_until_ns = now_ns + CROWDED_AGAIN_MS * CAKE_NS_PER_MS;
        cake__list_remove(&keyspace->crowded_link);
        cake__list_push_back(&store->crowded, &keyspace->crowded_link);
        if (keyspace->change == NULL)
            start_retire(keyspace);
    }
}

static void on_purge_timer(void *arg)
{
    cake_store_t *store = arg;
    uint64_t wall_ms = cake__wall_ms(store->env);
    look_at_crowded(store);
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
