/* server.c: listening, accepting, and the end of a server.
 *
 * Closing, each step once the one before is through:
 *   1. the listener closes, connections say goodbye and take no new calls; running ones have drain_ms and are cut then
 *   2. no connection and no call is left: services are removed, and tell
 *   3. no service is left: the lanes close
 *   4. everything is freed, and closed(arg) runs */
#include "rpc/server.h"

static void step(void *arg);

/* ---- connections ---- */

static void on_gone(cake__conn_t *conn)
{
    cake_rpc_server_t *server = cake__server_of(conn);
    cake__list_remove(&conn->link);
    server->stats.connections--;
    server->stats.connections_abused += conn->was_abused;
    cake__conn_free(conn);
    cake__server_step(server);
}

static void on_dead(cake__conn_t *conn, int err)
{
    cake_rpc_server_t *server = cake__server_of(conn);
    uint64_t now_ns = cake__now_ns(server->env);
    char peer[CAKE_ADDR_TEXT_MAX];
    (void)err;
    bool may_warn = server->warned_ns == 0 || now_ns - server->warned_ns >= 1000 * CAKE_NS_PER_MS;
    if (conn->why == NULL || !may_warn)
        return;
    server->warned_ns = now_ns;
    cake_addr_format(&conn->peer, peer);
    cake__log(&server->env->log, CAKE_LOG_WARN, "a connection from %s is refused: %s", peer, conn->why);
}

static void on_accept(void *arg, cake_stream_t *stream)
{
    cake_rpc_server_t *server = arg;
    cake__conn_t *conn = NULL;
    cake_tls_t *tls = server->kind.tls;
    bool is_full = server->is_closing || server->stats.connections >= server->kind.limits.max_connections;
    if (is_full || (tls != NULL && server->env->ops->stream_secure(stream, tls) != 0) ||
        cake__conn_new(&server->kind, server, &conn) != 0) {
        server->stats.connections_refused++;
        server->env->ops->stream_close(stream);
        return;
    }
    server->stats.connections++;
    server->stats.connections_accepted++;
    cake__list_push_back(&server->conns, &conn->link);
    cake__conn_accept(conn, stream);
}

/* ---- create ---- */

static void free_server(cake_rpc_server_t *server)
{
    const cake_alloc_t *alloc = &server->env->alloc;
    CAKE_ASSERT(cake__list_is_empty(&server->conns) && cake__list_is_empty(&server->service_list));
    CAKE_ASSERT(server->calls == 0 && server->lanes_open == 0 && !server->is_listening);
    server->env->ops->timer_cancel(server->env, &server->drain);
    server->env->ops->defer_cancel(server->env, &server->step);
    cake__map_free(&server->services);
    cake__map_free(&server->paths);
    cake__conn_kind_free(&server->kind);
    cake__free(alloc, server->cluster_id);
    cake__free(alloc, server);
}

static void drain_over(void *arg)
{
    cake_rpc_server_t *server = arg;
    CAKE_LIST_FOR_EACH(link, &server->conns)
    cake__conn_end(CAKE_CONTAINER_OF(link, cake__conn_t, link), CAKE_ECLOSED);
}

static cake_rpc_server_t *make(cake_env_t *env, const cake_rpc_server_config_t *config)
{
    cake_rpc_server_t *server = cake__calloc(&env->alloc, 1, sizeof *server);
    if (server == NULL)
        return NULL;
    server->env = env;
    server->kind.env = env;
    server->kind.is_server = true;
    server->kind.limits = config->limits;
    server->kind.events = cake__server_events;
    server->kind.on_dead = on_dead;
    server->kind.on_gone = on_gone;
    server->kind.on_tick = cake__answer_tick;
    server->kind.keepalive_ms = config->keepalive_ms != 0 ? config->keepalive_ms : 30000;
    server->kind.body_room = cake__answer_body_room;
    cake__conn_kind_init(&server->kind);
    server->hooks = config->hooks;
    server->worker_lanes = config->worker_lanes != 0 ? config->worker_lanes : 2;
    server->max_blocking = config->max_blocking != 0 ? config->max_blocking : 1024;
    server->drain_ms = config->drain_ms != 0 ? config->drain_ms : 5000;
    cake__map_init(&server->services, &env->alloc);
    cake__map_init(&server->paths, &env->alloc);
    cake__list_init(&server->service_list);
    cake__list_init(&server->conns);
    server->drain = CAKE_TIMER_INIT(drain_over, server);
    server->step = CAKE_DEFERRED_INIT(step, server);
    if (config->cluster_id != NULL && (server->cluster_id = cake__strdup(&env->alloc, config->cluster_id)) == NULL) {
        cake__free(&env->alloc, server);
        return NULL;
    }
    return server;
}

/* An address given by name is looked up while the caller waits. */
typedef struct {
    cake_env_t *env;
    const char *text;
    cake_gate_t gate;
    cake_resolve_t *resolve;
    cake_addr_t addr;
    int err;
} lookup_t;

static void looked_up(void *arg, int err, const cake_addr_t *addrs, size_t count)
{
    lookup_t *lookup = arg;
    lookup->err = err != 0 ? err : count == 0 ? CAKE_ENOTFOUND : 0;
    if (lookup->err == 0)
        lookup->addr = addrs[0];
    lookup->env->ops->gate_open(lookup->env, &lookup->gate);
}

static int look_up_on_loop(void *arg)
{
    lookup_t *lookup = arg;
    return lookup->env->ops->resolve(lookup->env, lookup->text, looked_up, lookup, &lookup->resolve);
}

static int look_up(cake_env_t *env, const char *text, cake_addr_t *out)
{
    lookup_t lookup = {.env = env, .text = text};
    if (cake_addr_parse(text, out) == 0)
        return 0;
    if (env->ops->on_loop(env))
        return CAKE_EDEADLK;
    env->ops->gate_init(env, &lookup.gate);
    int err = cake__run_on_loop(env, look_up_on_loop, &lookup);
    if (err == 0) {
        env->ops->gate_wait(env, &lookup.gate);
        err = lookup.err;
    }
    env->ops->gate_destroy(env, &lookup.gate);
    *out = lookup.addr;
    return err;
}

typedef struct {
    cake__setup_t setup;
    const cake_rpc_server_config_t *config;
    cake_addr_t addr;
    cake_rpc_server_t *server;
} listen_t;

static int listen_on_loop(void *arg)
{
    listen_t *request = arg;
    cake_env_t *env = request->setup.env;
    cake_rpc_server_t *server = make(env, request->config);
    if (server == NULL)
        return CAKE_ENOMEM;
    int err = env->ops->listen(env, &request->addr, on_accept, server, &server->listener);
    if (err != 0) {
        free_server(server);
        return err;
    }
    server->is_listening = true;
    server->owns_env = request->setup.owns_env;
    cake__conn_kind_own_tls(&server->kind, request->setup.tls);
    cake_addr_t addr;
    env->ops->listener_addr(server->listener, &addr);
    cake_addr_format(&addr, server->address);
    request->server = server;
    return 0;
}

int cake_rpc_listen(const cake_rpc_server_config_t *given, cake_rpc_server_t **out)
{
    cake_rpc_server_config_t config;
    *out = NULL;
    if (given == NULL || cake__options_copy(&config, sizeof config, given) != 0)
        return CAKE_EINVAL;
    listen_t request = {.config = &config};
    bool is_sound = config.listen_addr != NULL && config.worker_lanes <= CAKE__LANES_MAX;
    int err = cake__set_up(&request.setup, is_sound, config.env, config.cluster_id, config.tls);
    if (err != 0)
        return err;
    err = look_up(request.setup.env, config.listen_addr, &request.addr);
    if (err == 0)
        err = cake__run_on_loop(request.setup.env, listen_on_loop, &request);
    if (err != 0)
        cake__undo_setup(&request.setup);
    *out = request.server;
    return err;
}

/* ---- operate ---- */

const char *cake_rpc_address(const cake_rpc_server_t *server)
{
    return server->address;
}

typedef struct {
    cake_rpc_server_t *server;
    const void *what;
    cake_gate_t *gate;
    cake_rpc_server_stats_t *stats;
} request_t;

static int add_on_loop(void *arg)
{
    request_t *request = arg;
    return cake__service_add(request->server, request->what);
}

int cake_rpc_add_service(cake_rpc_server_t *server, const cake_rpc_service_t *service)
{
    request_t request = {.server = server, .what = service};
    return cake__run_on_loop(server->env, add_on_loop, &request);
}

int cake_rpc_reload_tls(cake_rpc_server_t *server, const cake_tls_config_t *tls)
{
    return cake__conn_kind_reload_tls(&server->kind, tls);
}

void cake__rpc_server_lend_tls(cake_rpc_server_t *server, cake_tls_t *tls)
{
    cake__conn_kind_lend_tls(&server->kind, tls);
}

static int remove_on_loop(void *arg)
{
    request_t *request = arg;
    return cake__service_remove(request->server, request->what, request->gate);
}

int cake_rpc_remove_service(cake_rpc_server_t *server, const char *name)
{
    cake_env_t *env = server->env;
    request_t request = {.server = server, .what = name};
    cake_gate_t gate;
    if (env->ops->on_loop(env))
        return remove_on_loop(&request);
    env->ops->gate_init(env, &gate);
    request.gate = &gate;
    int err = cake__run_on_loop(env, remove_on_loop, &request);
    if (err == 0)
        env->ops->gate_wait(env, &gate);
    env->ops->gate_destroy(env, &gate);
    return err;
}

static int stats_on_loop(void *arg)
{
    request_t *request = arg;
    *request->stats = request->server->stats;
    request->stats->calls_running = request->server->calls;
    return 0;
}

int cake_rpc_server_stats(cake_rpc_server_t *server, cake_rpc_server_stats_t *out)
{
    request_t request = {.server = server, .stats = out};
    return cake__run_on_loop(server->env, stats_on_loop, &request);
}

/* ---- destroy ---- */

void cake__server_step(cake_rpc_server_t *server)
{
    if (server->is_closing)
        server->env->ops->defer(server->env, &server->step);
}

static void listener_closed(void *arg)
{
    cake_rpc_server_t *server = arg;
    server->is_listening = false;
    cake__server_step(server);
}

static void lane_closed(void *arg)
{
    cake_rpc_server_t *server = arg;
    CAKE_ASSERT(server->lanes_open > 0);
    server->lanes_open--;
    cake__server_step(server);
}

static void step(void *arg)
{
    cake_rpc_server_t *server = arg;
    CAKE_ASSERT(server->is_closing);
    if (server->is_listening || !cake__list_is_empty(&server->conns) || server->calls > 0)
        return;
    if (!cake__list_is_empty(&server->service_list)) {
        cake__services_clear(server);
        return;
    }
    if (!server->has_ended) {
        server->has_ended = true;
        for (uint32_t i = 0, count = server->lanes_open; i < count; i++)
            server->env->ops->lane_close(server->lanes[i].lane, lane_closed, server);
    }
    if (server->lanes_open > 0)
        return;
    cake_event_fn closed = server->closed;
    void *closed_arg = server->closed_arg;
    free_server(server);
    closed(closed_arg);
}

static int close_on_loop(void *arg)
{
    cake_rpc_server_t *server = arg;
    const cake_env_ops_t *ops = server->env->ops;
    server->is_closing = true;
    ops->listener_close(server->listener, listener_closed, server);
    CAKE_LIST_FOR_EACH(link, &server->conns)
    {
        cake__conn_t *conn = CAKE_CONTAINER_OF(link, cake__conn_t, link);
        if (conn->is_ended || conn->is_finishing)
            continue;
        cake__h2_goaway(conn->h2);
        if (conn->calls == 0)
            cake__conn_finish(conn, CAKE_ECLOSED);
        else
            cake__conn_kick(conn);
    }
    cake__timer_arm_ms(server->env, &server->drain, cake__min_u64(server->drain_ms, UINT32_MAX));
    cake__server_step(server);
    return 0;
}

int cake__rpc_server_close(cake_rpc_server_t *server, cake_event_fn closed, void *arg)
{
    CAKE_ASSERT(server->closed == NULL && closed != NULL);
    if (server->owns_env)
        return CAKE_EINVAL;
    server->closed = closed;
    server->closed_arg = arg;
    return cake__run_on_loop(server->env, close_on_loop, server);
}

int cake_rpc_close(cake_rpc_server_t *server)
{
    if (server == NULL)
        return 0;
    return cake__close_and_wait(server->env, server->owns_env, close_on_loop, server, &server->closed,
                                &server->closed_arg);
}
