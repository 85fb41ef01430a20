/* Opening, stopping and asking about a store.
 *
 *   OPENING -> RUNNING -> STOPPING (calls end, lanes drain) -> CLOSING (storage, lanes) -> freed */
#include "store/pack.h"
#include "store/store.h"

#define IDENTITY_META "identity"
#define FORMAT        1u

static void on_close_timer(void *arg);

/* ---- calls of ours ------------------------------------------------------------------------------------------------*/

static void on_call_done(cake_reply_t *reply, void *arg)
{
    cake__outcall_t *outcall = arg;
    cake_store_t *store = outcall->store;
    cake_reply_fn done = outcall->done;
    void *done_arg = outcall->arg;
    cake__list_remove(&outcall->link);
    cake_call_free(outcall->call);
    cake__free(store->alloc, outcall);
    done(reply, done_arg);
    cake__store_check_stopped(store);
}

int cake__store_call_path(cake_store_t *store, uint16_t node_id, const char *path, const cake_slice_t *parts,
                          size_t count, uint64_t timeout_ms, cake_reply_fn done, void *arg, cake__outcall_t **out)
{
    cake_channel_t *channel;
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    if (cake__store_is_stopping(store))
        return CAKE_ECLOSED;
    if (cake_node_is_duplicate(store->node))
        return CAKE_EDUPLICATE;
    int err = cake_node_channel(store->node, node_id, &channel);
    if (err != 0)
        return err;
    cake__outcall_t *outcall = cake__calloc(store->alloc, 1, sizeof *outcall);
    if (outcall == NULL)
        return CAKE_ENOMEM;
    *outcall = (cake__outcall_t){.store = store, .done = done, .arg = arg};
    cake__list_init(&outcall->link);
    options.timeout_ms = timeout_ms;
    err = cake_channel_call_async(channel, path, parts, count, &options, on_call_done, outcall, &outcall->call);
    if (err != 0) {
        cake__free(store->alloc, outcall);
        return err;
    }
    cake__list_push_back(&store->outcalls, &outcall->link);
    if (out != NULL)
        *out = outcall;
    return 0;
}

int cake__store_call(cake_store_t *store, uint16_t node_id, const char *method, const cake_slice_t *parts, size_t count,
                     uint64_t timeout_ms, cake_reply_fn done, void *arg)
{
    char path[64] = "/" CAKE__STORE_SERVICE "/";
    CAKE_ASSERT(strlen(path) + strlen(method) < sizeof path);
    memcpy(path + strlen(path), method, strlen(method) + 1);
    return cake__store_call_path(store, node_id, path, parts, count, timeout_ms, done, arg, NULL);
}

/* ---- stopping -----------------------------------------------------------------------------------------------------*/

static void free_store(cake_store_t *store)
{
    cake__keyspace_t *keyspace;
    cake__servings_free(store);
    cake__watches_free(store);
    for (size_t cursor = 0; (keyspace = cake__map_next(&store->keyspaces, &cursor)) != NULL;)
        cake__keyspace_free(keyspace);
    cake__map_free(&store->keyspaces);
    cake__map_free(&store->servings);
    cake__peers_free(store);
    cake__lanes_free(store);
    cake__workspace_free(&store->packing);
    cake__workspace_free(&store->unpacking);
    cake__buf_free(&store->packed);
    cake__lock_destroy(&store->failure_lock);
    cake__free(store->alloc, store);
}

static bool may_close(const cake_store_t *store)
{
    return store->state == CAKE__STORE_STOPPING && cake__lanes_are_idle(store) && store->service_is_removed &&
           cake__list_is_empty(&store->outcalls) && cake__list_is_empty(&store->writes) && store->pulls_running == 0 &&
           store->reads_running == 0;
}

/* Closing begins in a step of its own: whoever noticed that the last thing has ended is still on the stack. */
void cake__store_check_stopped(cake_store_t *store)
{
    if (may_close(store) && !store->pulse_timer.is_armed) {
        store->pulse_timer = CAKE_TIMER_INIT(on_close_timer, store);
        store->env->ops->timer_arm(store->env, &store->pulse_timer, cake__now_ns(store->env));
    }
}

static void on_lane_closed(void *arg)
{
    cake_store_t *store = arg;
    CAKE_ASSERT(store->closing_count > 0);
    if (--store->closing_count > 0)
        return;
    cake_event_fn stopped = store->stopped;
    void *stopped_arg = store->stopped_arg;
    free_store(store);
    stopped(stopped_arg);
}

static void close_storage(void *arg)
{
    cake_store_t *store = arg;
    cake_storage_close(store->storage);
}

static void on_storage_closed(void *arg)
{
    cake_store_t *store = arg;
    store->closing_count++;
    if (store->reader != NULL)
        store->env->ops->lane_close(store->reader, on_lane_closed, store);
    for (unsigned i = 0; i < store->lane_count; i++) {
        if (store->lanes[i].worker == NULL)
            continue;
        store->closing_count++;
        store->env->ops->lane_close(store->lanes[i].worker, on_lane_closed, store);
    }
    if (store->reader == NULL)
        on_lane_closed(store);
}

static void on_close_timer(void *arg)
{
    cake_store_t *store = arg;
    if (!may_close(store))
        return;
    store->state = CAKE__STORE_CLOSING;
    if (store->reader == NULL) {
        close_storage(store);
        on_storage_closed(store);
        return;
    }
    store->close_work = (cake_work_t){.run = close_storage, .done = on_storage_closed, .arg = store};
    store->env->ops->lane_submit(store->reader, &store->close_work);
}

static void on_service_removed(void *arg)
{
    cake_store_t *store = arg;
    store->service_is_removed = true;
    cake__store_check_stopped(store);
}

static void stop_store(cake_node_t *node, void *arg, cake_event_fn stopped, void *stopped_arg)
{
    cake_store_t *store = arg;
    cake_env_t *env = store->env;
    CAKE_ASSERT(store->state == CAKE__STORE_RUNNING);
    store->stopped = stopped;
    store->stopped_arg = stopped_arg;
    store->state = CAKE__STORE_STOPPING;
    cake_timer_t *timers[] = {&store->pulse_timer, &store->purge_timer, &store->want_timer, &store->serving_timer,
                              &store->join_timer};
    for (size_t i = 0; i < CAKE_COUNT_OF(timers); i++)
        env->ops->timer_cancel(env, timers[i]);
    cake_watch_stop(store->membership);
    CAKE_LIST_FOR_EACH(link, &store->outcalls)
    cake_call_cancel(CAKE_CONTAINER_OF(link, cake__outcall_t, link)->call);
    cake__writes_fail_all(store, CAKE_ECLOSED);
    CAKE_LIST_FOR_EACH(link, &store->peers)
    cake__peer_drop_queue(CAKE_CONTAINER_OF(link, cake__peer_t, link));
    cake__servings_free(store);
    if (cake_node_remove_service(node, CAKE__STORE_SERVICE) != 0)
        store->service_is_removed = true;
    cake__store_check_stopped(store);
}

/* ---- opening ------------------------------------------------------------------------------------------------------*/

static int start_store(cake_node_t *node, void *arg)
{
    static const cake_rpc_method_t methods[] = {
        {"batch", cake__handle_batch, 0},       {"pulse", cake__handle_pulse, 0},
        {"list", cake__handle_list, 0},         {"open", cake__handle_open, 0},
        {"next", cake__handle_next, 0},         {"read", cake__handle_read, 0},
        {"registry", cake__handle_registry, 0}, {"progress", cake__handle_progress, 0},
        {"compare", cake__handle_compare, 0}};
    cake_store_t *store = arg;
    const cake_rpc_service_t service = {CAKE__STORE_SERVICE, methods, CAKE_COUNT_OF(methods), store,
                                        on_service_removed};
    int err = store->is_inline ? 0 : store->env->ops->lane_open(store->env, "cake-reader", &store->reader);
    if (err == 0)
        err = cake__lanes_open(store);
    if (err == 0)
        err = cake__peers_start(store);
    if (err != 0)
        return err;
    err = cake_node_add_service(node, &service); /* last: it is called from now on */
    if (err != 0) {
        cake_watch_stop(store->membership);
        return err;
    }
    store->state = CAKE__STORE_RUNNING;
    store->want_timer = CAKE_TIMER_INIT(cake__want_tick, store);
    store->serving_timer = CAKE_TIMER_INIT(cake__serving_tick, store);
    cake__timer_arm_ms(store->env, &store->serving_timer, CAKE__SERVING_IDLE_MS / 4);
    cake__join_start(store);
    cake__pulse_start(store);
    cake__purge_start(store);
    return 0;
}

static void set_default(uint64_t *value, uint64_t otherwise)
{
    *value = *value != 0 ? *value : otherwise;
}

static void fill_options(cake_store_options_t *options)
{
    set_default(&options->timeout_ms, 2000);
    set_default(&options->batch_interval_ms, 100);
    set_default(&options->sync_interval_ms, 10000);
    set_default(&options->join_timeout_ms, 10000);
    set_default(&options->tombstone_min_age_ms, 10000);
    set_default(&options->hole_age_ms, 3600000);
    set_default(&options->forget_after_ms, 86400000);
    options->batch_bytes = options->batch_bytes != 0 ? options->batch_bytes : 1u << 20;
    options->queue_bytes = options->queue_bytes != 0 ? options->queue_bytes : 64u << 20;
    options->pending_bytes = options->pending_bytes != 0 ? options->pending_bytes : 256u << 20;
    options->max_value_bytes = options->max_value_bytes != 0 ? options->max_value_bytes : CAKE_VALUE_MAX_DEFAULT;
    options->max_sessions = options->max_sessions != 0 ? options->max_sessions : 8;
    if (options->chunk_records == 0 || options->chunk_records > CAKE__CHUNK_RECORDS)
        options->chunk_records = CAKE__CHUNK_RECORDS;
}

/* The node's own metas, of lane 0 (and the clock's bound of every lane). */
typedef struct {
    cake_store_t *store;
    bool has_identity;
    int err;
} opening_t;

static int on_identity(opening_t *opening, cake_slice_t value)
{
    cake__reader_t reader = cake__reader(value.data, value.len);
    uint8_t format = cake__get_u8(&reader);
    uint16_t node_id = cake__get_u16(&reader);
    cake_slice_t cluster_id = cake__get_string(&reader, CAKE__NODE_NAME_MAX);
    if (!cake__reader_done(&reader))
        return CAKE_ECORRUPT;
    if (format != FORMAT)
        return CAKE_EVERSION;
    opening->has_identity = true;
    cake_node_t *node = opening->store->node;
    bool is_ours =
        node_id == cake_node_id(node) && cake__slice_equal(cluster_id, cake__slice_str(cake_node_cluster_id(node)));
    return is_ours ? 0 : CAKE_ECONFLICT;
}

static int on_own_meta(void *arg, cake_slice_t name, cake_slice_t value)
{
    opening_t *opening = arg;
    cake_store_t *store = opening->store;
    if (cake__slice_equal(name, cake__slice_str(IDENTITY_META)))
        opening->err = on_identity(opening, value);
    else if (cake__slice_equal(name, cake__slice_str("joined")))
        opening->err = cake__join_load(store, value);
    else if (cake__slice_equal(name, cake__slice_str("clock")))
        opening->err = value.len == 8 ? 0 : CAKE_ECORRUPT;
    if (opening->err == 0 && cake__slice_equal(name, cake__slice_str("clock")))
        store->clock_bound = cake__max_u64(store->clock_bound, cake__load_le(value.data, 8));
    return opening->err;
}

static int write_identity(cake_store_t *store)
{
    cake__buf_t value;
    cake__buf_init(&value, store->alloc);
    cake__put_u8(&value, FORMAT);
    cake__put_u16(&value, cake_node_id(store->node));
    cake__put_string(&value, cake__slice_str(cake_node_cluster_id(store->node)));
    const cake_meta_write_t meta = {cake__slice_str(IDENTITY_META), cake__buf_slice(&value)};
    const cake_batch_t batch = {.lane = 0, .metas = &meta, .meta_count = 1};
    int err = value.err != 0 ? value.err : store->storage->ops->write(store->storage, &batch);
    cake__buf_free(&value);
    return err;
}

static int load_store(cake_store_t *store)
{
    opening_t opening = {.store = store};
    int err = 0;
    for (unsigned lane = 0; err == 0 && lane < store->lane_count; lane++)
        err = store->storage->ops->metas(store->storage, lane, cake__slice("", 0), on_own_meta, &opening);
    err = opening.err != 0 ? opening.err : err;
    if (err == 0 && !opening.has_identity)
        err = write_identity(store);
    if (err == 0)
        err = cake__registry_load(store);
    if (err == 0)
        err = cake__keyspaces_load(store);
    if (err == 0)
        cake_clock_advance(cake_node_clock(store->node), store->clock_bound);
    return err;
}

static cake_store_t *make_store(cake_node_t *node, cake_storage_t *storage, const cake_store_options_t *options)
{
    cake_env_t *env = cake_node_env(node);
    cake_store_t *store = cake__calloc(&env->alloc, 1, sizeof *store);
    if (store == NULL)
        return NULL;
    store->node = node;
    store->env = env;
    store->alloc = &env->alloc;
    store->log = &env->log;
    store->storage = storage;
    store->options = *options;
    fill_options(&store->options);
    store->is_inline = (storage->ops->flags & CAKE_STORAGE_INLINE) != 0;
    store->storage_fetches = (storage->ops->flags & CAKE_STORAGE_FETCHES) != 0;
    store->reads_anywhere = (storage->ops->flags & CAKE_STORAGE_CONCURRENT_READS) != 0;
    store->actor = cake__draw_u64(env) | 1;
    store->drain = CAKE_DEFERRED_INIT(cake__drain_lanes, store);
    store->flush = CAKE_DEFERRED_INIT(cake__flush_peers, store);
    cake__lock_init(&store->failure_lock);
    store->packing.alloc = store->unpacking.alloc = store->alloc;
    cake__buf_init(&store->packed, store->alloc);
    cake__map_init(&store->keyspaces, store->alloc);
    cake__map_init(&store->servings, store->alloc);
    cake__list_t *lists[] = {&store->ready_lanes, &store->changed,  &store->with_tombstones, &store->wanting,
                             &store->peers,       &store->outcalls, &store->serving_list,    &store->writes,
                             &store->watches,     &store->crowded};
    for (size_t i = 0; i < CAKE_COUNT_OF(lists); i++)
        cake__list_init(lists[i]);
    unsigned lane_count = storage->ops->lanes(storage);
    store->lanes = cake__calloc(store->alloc, lane_count, sizeof *store->lanes);
    if (store->lanes == NULL) {
        free_store(store);
        return NULL;
    }
    store->lane_count = lane_count;
    for (unsigned i = 0; i < lane_count; i++) {
        cake__lane_t *lane = &store->lanes[i];
        lane->store = store;
        lane->index = i;
        cake__list_init(&lane->ready_link);
        cake__list_init(&lane->tasks);
        cake__list_init(&lane->batch);
        cake__buf_init(&lane->scratch, store->alloc);
        cake__buf_init(&lane->reissued, store->alloc);
    }
    return store;
}

/* Starting failed half way: the lanes that were opened close on the loop, the storage stays its owner's. */
typedef struct {
    cake_store_t *store;
    cake_env_t *env;
    cake_gate_t gate;
} undo_t;

static void on_undone(void *arg)
{
    undo_t *undo = arg;
    undo->env->ops->gate_open(undo->env, &undo->gate);
}

static int close_lanes(void *arg)
{
    undo_t *undo = arg;
    undo->store->stopped = on_undone;
    undo->store->stopped_arg = undo;
    on_storage_closed(undo->store);
    return 0;
}

static int free_on_loop(void *arg)
{
    free_store(arg);
    return 0;
}

static void undo_start(cake_store_t *store)
{
    undo_t undo = {.store = store, .env = store->env};
    if (store->reader == NULL || store->env->ops->on_loop(store->env)) {
        (void)cake__run_on_loop(store->env, free_on_loop, store); /* what was loaded has timers */
        return;
    }
    store->env->ops->gate_init(store->env, &undo.gate);
    (void)cake__run_on_loop(store->env, close_lanes, &undo);
    undo.env->ops->gate_wait(undo.env, &undo.gate);
    undo.env->ops->gate_destroy(undo.env, &undo.gate);
}

int cake_store_open(cake_node_t *node, cake_storage_t *storage, const cake_store_options_t *options, cake_store_t **out)
{
    static const cake_extension_t extension = {CAKE__STORE_EXTENSION, start_store, stop_store};
    *out = NULL;
    cake_store_options_t chosen = CAKE_STORE_OPTIONS_INIT;
    if (node == NULL || storage == NULL ||
        (options != NULL && cake__options_copy(&chosen, sizeof chosen, options) != 0))
        return CAKE_EINVAL;
    bool is_on_loop = node->env->ops->on_loop(node->env);
    if (is_on_loop && (storage->ops->flags & CAKE_STORAGE_INLINE) == 0)
        return CAKE_EDEADLK;
    cake_store_t *store = make_store(node, storage, &chosen);
    if (store == NULL)
        return CAKE_ENOMEM;
    int err = load_store(store);
    if (err == 0)
        err = cake_node_add_extension(node, &extension, store);
    if (err != 0) {
        undo_start(store);
        return err;
    }
    *out = store;
    return 0;
}

int cake_store_close(cake_store_t *store)
{
    return store == NULL ? 0 : cake_node_remove_extension(store->node, CAKE__STORE_EXTENSION);
}
