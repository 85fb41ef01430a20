/* What can be asked about a store. */
#include "store/store.h"

typedef struct {
    cake_store_t *store;
    cake_store_stats_t *stats;
    cake_peer_info_t *peers;
    size_t count;
    cake_keyspace_info_t *infos;
    char *names;
} state_request_t;

/* One that was only asked for is nobody's business. */
static bool is_used(const cake__keyspace_t *keyspace)
{
    return keyspace->digest_part != 0;
}

static int read_stats(void *arg)
{
    state_request_t *request = arg;
    cake_store_t *store = request->store;
    cake__keyspace_t *keyspace;
    *request->stats = store->stats;
    request->stats->is_joined = store->is_joined;
    request->stats->reads = __atomic_load_n(&store->reads, __ATOMIC_RELAXED);
    request->stats->sessions_running = store->pulls_running;
    request->stats->replicas = 1;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    request->stats->replicas += cake__peer_counts(CAKE_CONTAINER_OF(link, cake__peer_t, link));
    for (size_t cursor = 0; (keyspace = cake__map_next(&store->keyspaces, &cursor)) != NULL;) {
        uint64_t fingerprint = cake_orswot_fingerprint(keyspace->set);
        request->stats->keyspaces += is_used(keyspace);
        request->stats->live += cake_orswot_live(keyspace->set);
        request->stats->tombstones += cake_orswot_tombstones(keyspace->set);
        request->stats->fingerprint += fingerprint == 0 ? 0 : cake__mix64(keyspace->name_hash ^ fingerprint);
    }
    return 0;
}

int cake_store_stats(cake_store_t *store, cake_store_stats_t *out)
{
    state_request_t request = {.store = store, .stats = out};
    return cake__run_on_loop(store->env, read_stats, &request);
}

static int read_peers(void *arg)
{
    state_request_t *request = arg;
    cake_store_t *store = request->store;
    uint64_t now_ns = cake__now_ns(store->env), wall_ms = cake__wall_ms(store->env);
    size_t count = 0;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    count++;
    request->peers = cake__calloc(&cake__libc_alloc, count, sizeof *request->peers);
    if (request->peers == NULL)
        return CAKE_ENOMEM;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        const cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        if (cake__peer_is_forgotten(peer))
            continue;
        uint64_t oldest_ns = cake__peer_oldest_ns(peer);
        request->peers[request->count++] = (cake_peer_info_t){
            .node_id = peer->node_id,
            .is_replica = cake__peer_counts(peer),
            .queued_writes = peer->queue_count,
            .queued_bytes = peer->queue_bytes,
            .lag_ms = oldest_ns == CAKE_NEVER ? 0 : (now_ns - oldest_ns) / CAKE_NS_PER_MS,
            .last_heard_ms_ago = peer->actor == 0 ? UINT64_MAX : wall_ms - cake__min_u64(wall_ms, peer->heard_wall_ms)};
    }
    return 0;
}

int cake_store_peers(cake_store_t *store, cake_peer_info_t **peers, size_t *count)
{
    state_request_t request = {.store = store};
    int err = cake__run_on_loop(store->env, read_peers, &request);
    *peers = request.peers;
    *count = request.count;
    return err;
}

void cake_peers_free(cake_peer_info_t *peers)
{
    cake__free(&cake__libc_alloc, peers);
}

static int by_name(const void *a, const void *b)
{
    const cake_keyspace_info_t *left = a, *right = b;
    return strcmp(left->name, right->name);
}

static int read_keyspaces(void *arg)
{
    state_request_t *request = arg;
    cake_store_t *store = request->store;
    cake__keyspace_t *keyspace;
    size_t bytes = 0;
    for (size_t cursor = 0; (keyspace = cake__map_next(&store->keyspaces, &cursor)) != NULL;)
        bytes += strlen(keyspace->name) + 1;
    request->infos = cake__calloc(&cake__libc_alloc, store->keyspaces.count, sizeof *request->infos);
    request->names = cake__malloc(&cake__libc_alloc, bytes);
    if (request->infos == NULL || request->names == NULL)
        return CAKE_ENOMEM;
    char *at = request->names;
    for (size_t cursor = 0; (keyspace = cake__map_next(&store->keyspaces, &cursor)) != NULL;) {
        if (!is_used(keyspace))
            continue;
        size_t len = strlen(keyspace->name) + 1;
        memcpy(at, keyspace->name, len);
        request->infos[request->count++] =
            (cake_keyspace_info_t){.name = at,
                                   .live = cake_orswot_live(keyspace->set),
                                   .tombstones = cake_orswot_tombstones(keyspace->set),
                                   .fingerprint = cake_orswot_fingerprint(keyspace->set)};
        at += len;
    }
    if (request->count > 1)
        cake__sort(request->infos, request->count, sizeof *request->infos, by_name);
    return 0;
}

static void free_keyspaces(state_request_t *request)
{
    cake__free(&cake__libc_alloc, request->infos);
    cake__free(&cake__libc_alloc, request->names);
}

int cake_store_keyspace_info(cake_store_t *store, cake_keyspace_fn fn, void *arg)
{
    state_request_t request = {.store = store};
    int err = cake__run_on_loop(store->env, read_keyspaces, &request);
    for (size_t i = 0; err == 0 && i < request.count; i++)
        fn(arg, &request.infos[i]);
    free_keyspaces(&request);
    return err;
}

int cake_store_keyspaces(cake_store_t *store, cake_name_fn fn, void *arg)
{
    state_request_t request = {.store = store};
    int err = cake__run_on_loop(store->env, read_keyspaces, &request);
    for (size_t i = 0; err == 0 && i < request.count; i++)
        err = fn(arg, request.infos[i].name);
    free_keyspaces(&request);
    return err;
}
