/* Where a write came from, as storages see it: cake_write_context_t. A storage that fetches what does not fit into a
 * message calls the node of origin from the lane's thread, and says now and then that it is still at it, so that
 * neither the batch nor the session is given up there.
 *
 *   progress  hail, flight u64, token u64 (0: none)        answer  empty */
#include <stdio.h>

#include "store/store.h"

#define PROGRESS_EVERY_MS   500u
#define PROGRESS_TIMEOUT_MS 2000u

/* ---- on the lane's thread, which waits for the loop ---------------------------------------------------------------*/

static void on_progress_answered(cake_reply_t *reply, void *arg)
{
    (void)arg;
    cake_reply_free(reply);
}

static int tell_progress(void *arg)
{
    const cake__origin_t *origin = arg;
    cake_store_t *store = origin->store;
    cake__buf_t out;
    cake__buf_init(&out, store->alloc);
    cake__put_hail(store, &out);
    cake__put_u64(&out, origin->flight_id);
    cake__put_u64(&out, origin->token);
    cake_slice_t body = cake__buf_slice(&out);
    int err = out.err;
    if (err == 0)
        err = cake__store_call(store, origin->context.node_id, "progress", &body, 1, PROGRESS_TIMEOUT_MS,
                               on_progress_answered, NULL);
    cake__buf_free(&out);
    return err;
}

/* A message of progress that is lost is followed by the next: nothing is said of errors. */
static void progress(void *arg)
{
    cake__origin_t *origin = arg;
    cake_env_t *env = origin->store->env;
    uint64_t now_ns = cake__now_ns(env);
    if (now_ns < origin->told_ns + PROGRESS_EVERY_MS * CAKE_NS_PER_MS)
        return;
    origin->told_ns = now_ns;
    (void)cake__run_on_loop(env, tell_progress, origin);
}

typedef struct {
    const cake__origin_t *origin;
    const char *path;
    cake_slice_t body;
    uint64_t timeout_ms;
    cake_gate_t gate;
    cake_reply_t *reply;
} fetching_t;

static void on_fetched(cake_reply_t *reply, void *arg)
{
    fetching_t *fetching = arg;
    cake_env_t *env = fetching->origin->store->env;
    fetching->reply = reply;
    env->ops->gate_open(env, &fetching->gate);
}

static int begin_fetch(void *arg)
{
    fetching_t *fetching = arg;
    const cake__origin_t *origin = fetching->origin;
    return cake__store_call_path(origin->store, origin->context.node_id, fetching->path, &fetching->body, 1,
                                 fetching->timeout_ms, on_fetched, fetching, NULL);
}

static int call(void *arg, const char *path, const void *data, size_t len, uint64_t timeout_ms, cake_reply_t **reply)
{
    cake__origin_t *origin = arg;
    cake_env_t *env = origin->store->env;
    fetching_t fetching = {.origin = origin, .path = path, .body = cake__slice(data, len), .timeout_ms = timeout_ms};
    *reply = NULL;
    if (env->ops->on_loop(env))
        return CAKE_EDEADLK;
    env->ops->gate_init(env, &fetching.gate);
    int err = cake__run_on_loop(env, begin_fetch, &fetching);
    if (err == 0) {
        env->ops->gate_wait(env, &fetching.gate);
        err = cake_reply_err(fetching.reply);
    }
    env->ops->gate_destroy(env, &fetching.gate);
    if (err == 0)
        *reply = fetching.reply;
    else
        cake_reply_free(fetching.reply);
    return err;
}

/* ---- on the loop --------------------------------------------------------------------------------------------------*/

void cake__origin_init(cake__origin_t *origin, cake_store_t *store, uint16_t node_id)
{
    cake_channel_t *channel;
    *origin = (cake__origin_t){.store = store, .told_ns = cake__now_ns(store->env)};
    if (cake_node_channel(store->node, node_id, &channel) == 0)
        snprintf(origin->address, sizeof origin->address, "%s", cake_channel_address(channel));
    origin->context = (cake_write_context_t){
        .node_id = node_id, .address = origin->address, .progress = progress, .arg = origin, .call = call};
}

void cake__handle_progress(cake_rpc_call_t *request, void *arg)
{
    cake_store_t *store = arg;
    cake_slice_t body = cake_rpc_body(request);
    cake__reader_t reader = cake__reader(body.data, body.len);
    cake__hail_t hail;
    int err = cake__store_is_stopping(store) ? CAKE_ECLOSED : cake__get_hail(store, &reader, &hail);
    uint64_t flight_id = cake__get_u64(&reader), token = cake__get_u64(&reader);
    if (err == 0 && !cake__reader_done(&reader))
        err = CAKE_EPARSE;
    if (err != 0) {
        cake_rpc_fail(request, err, NULL);
        return;
    }
    cake__peer_t *peer = cake__peer_heard(store, &hail);
    if (peer != NULL && flight_id != 0)
        cake__flight_goes_on(peer, flight_id);
    if (token != 0)
        cake__serving_goes_on(store, token);
    cake_rpc_reply(request, NULL, 0);
}
