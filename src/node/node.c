/* Starting and stopping a node.
 *
 *   STARTING -> RUNNING -> STOPPING_EXTENSIONS -> LEAVING -> CLOSING -> freed
 *
 * Stopping goes one way, each step when the one before has ended: extensions in reverse order (they may still call
 * others), goodbye by gossip, then everything that closes, counted, and at last the memory. */
#include "node/node.h"

#define PORT_ATTEMPTS 16

uint16_t cake_node_id(const cake_node_t *node)
{
    return node->id;
}

const char *cake_node_address(const cake_node_t *node)
{
    return node->address;
}

const char *cake_node_data_center(const cake_node_t *node)
{
    return node->data_center;
}

const char *cake_node_cluster_id(const cake_node_t *node)
{
    return node->cluster_id;
}

cake_env_t *cake_node_env(const cake_node_t *node)
{
    return node->env;
}

/* ---- clock ------------------------------------------------------------------------------------------------------- */

cake_clock_t *cake_node_clock(cake_node_t *node)
{
    return &node->clock;
}

cake_hlc_t cake_node_now(cake_node_t *node)
{
    cake_hlc_t ts;
    if (cake_clock_now(&node->clock, cake__wall_ms(node->env), &ts) == 0)
        return ts;
    /* The wall clock was set back by more than the drift allowed: go on counting from where the clock stands. */
    while (cake_clock_now(&node->clock, cake_hlc_unix_ms(cake_clock_last(&node->clock)), &ts) != 0)
        ;
    return ts;
}

int cake_node_observe(cake_node_t *node, cake_hlc_t ts)
{
    return cake_clock_observe(&node->clock, cake__wall_ms(node->env), ts);
}

/* ---- stopping ---------------------------------------------------------------------------------------------------- */

static void free_node(cake_node_t *node)
{
    cake__membership_free(node);
    cake__seeds_free(node);
    cake__security_free(node);
    cake__map_free(&node->channels);
    cake__free(node->alloc, node->cluster_id);
    cake__free(node->alloc, node->data_center);
    cake__free(node->alloc, node);
}

void cake__node_closing(cake_node_t *node)
{
    node->closing_count++;
}

void cake__node_closed(void *arg)
{
    cake_node_t *node = arg;
    CAKE_ASSERT(node->closing_count > 0);
    if (--node->closing_count > 0 || node->state != CAKE__NODE_CLOSING)
        return;
    cake_event_fn stopped = node->stopped;
    void *stopped_arg = node->stopped_arg;
    free_node(node);
    stopped(stopped_arg);
}

static void close_everything(cake_node_t *node)
{
    CAKE_ASSERT(node->state < CAKE__NODE_CLOSING);
    node->state = CAKE__NODE_CLOSING;
    cake__node_closing(node); /* ours, so that the count does not reach zero half way */
    cake__membership_close(node);
    cake__seeds_close(node);
    cake__channels_close(node);
    if (node->datagram != NULL) {
        cake__node_closing(node);
        node->env->ops->datagram_close(node->datagram, cake__node_closed, node);
        node->datagram = NULL;
    }
    if (node->server != NULL) {
        cake__node_closing(node);
        int err = cake__rpc_server_close(node->server, cake__node_closed, node);
        CAKE_ASSERT(err == 0);
        node->server = NULL;
    }
}

/* The last count is given back in a step of its own: nothing of the node is on the stack when its memory goes. */
static void release_last(void *arg)
{
    cake__node_closed(arg);
}

static void close_and_release(cake_node_t *node)
{
    close_everything(node);
    node->retry_timer = CAKE_TIMER_INIT(release_last, node);
    node->env->ops->timer_arm(node->env, &node->retry_timer, cake__now_ns(node->env));
}

void cake__node_left(cake_node_t *node)
{
    CAKE_ASSERT(node->state == CAKE__NODE_LEAVING);
    close_and_release(node);
}

void cake__extensions_stopped(cake_node_t *node)
{
    node->state = CAKE__NODE_LEAVING;
    cake__membership_leave(node);
}

void cake__node_stop(cake_node_t *node, cake_event_fn stopped, void *arg)
{
    CAKE_ASSERT(node->state == CAKE__NODE_RUNNING && node->stopped == NULL);
    node->stopped = stopped;
    node->stopped_arg = arg;
    node->state = CAKE__NODE_STOPPING_EXTENSIONS;
    cake__extensions_stop(node);
}

/* ---- starting ---------------------------------------------------------------------------------------------------- */

static int parse_address(const char *text, cake_addr_t *out)
{
    static const char local[] = "localhost:";
    char numeric[32];
    if (text == NULL)
        return CAKE_EINVAL;
    if (strncmp(text, local, sizeof local - 1) != 0)
        return cake_addr_parse(text, out);
    size_t len = strlen(text + sizeof local - 1);
    if (len > 5)
        return CAKE_EPARSE;
    memcpy(numeric, "127.0.0.1:", 10);
    memcpy(numeric + 10, text + sizeof local - 1, len + 1);
    return cake_addr_parse(numeric, out);
}

static bool is_any_address(const cake_addr_t *addr)
{
    static const uint8_t zero[16] = {0};
    return memcmp(addr->ip, zero, sizeof zero) == 0;
}

static int copy_name(cake_node_t *node, const char *text, const char *fallback, char **out)
{
    if (text == NULL)
        text = fallback;
    if (!cake__is_name(cake__slice_str(text), CAKE__NODE_NAME_MAX))
        return CAKE_EINVAL;
    *out = cake__strdup(node->alloc, text);
    return *out == NULL ? CAKE_ENOMEM : 0;
}

static int copy_config(cake_node_t *node, const cake_node_config_t *config)
{
    node->id = config->node_id;
    node->selector = config->selector != NULL ? config->selector : cake_select_data_center_aware;
    node->selector_arg = config->selector_arg;
    node->rpc_limits = config->rpc_limits;
    node->connect_timeout_ms = config->connect_timeout_ms;
    node->carrier.is_for_all = config->gossip_over_rpc;
    cake_clock_init(&node->clock, config->max_drift_ms, 0);
    node->generation = config->generation != 0 ? config->generation : cake__wall_ms(node->env);
    int err = copy_name(node, config->cluster_id, "datacake", &node->cluster_id);
    if (err == 0)
        err = copy_name(node, config->data_center, "default", &node->data_center);
    if (err == 0)
        err = cake__seeds_copy(node, config);
    if (err == 0)
        err = parse_address(config->listen_addr, &node->listen_addr);
    if (err == 0 && config->public_addr != NULL)
        err = parse_address(config->public_addr, &node->public_addr);
    if (err == 0 && config->public_addr == NULL && is_any_address(&node->listen_addr))
        err = CAKE_EINVAL; /* nobody could reach what it would announce */
    if (err == 0 && config->public_addr != NULL && is_any_address(&node->public_addr))
        err = CAKE_EINVAL;
    return err;
}

static void ignore(void *arg)
{
    (void)arg;
}

static int listen_at(cake_node_t *node, const cake_addr_t *addr)
{
    char text[CAKE_ADDR_TEXT_MAX];
    cake_addr_format(addr, text);
    cake_rpc_server_config_t config = CAKE_RPC_SERVER_CONFIG_INIT;
    config.env = node->env;
    config.listen_addr = text;
    config.cluster_id = node->cluster_id;
    config.limits = node->rpc_limits;
    config.hooks = cake__node_hooks(node);
    int err = cake_rpc_listen(&config, &node->server);
    if (err == 0 && node->tls != NULL)
        cake__rpc_server_lend_tls(node->server, node->tls);
    return err;
}

/* TCP and UDP take the same port; where any port will do, one that is free for both is looked for. */
static int open_ports(cake_node_t *node)
{
    bool takes_any = node->listen_addr.port == 0;
    int err = CAKE_EADDRINUSE;
    for (int attempt = 0; err == CAKE_EADDRINUSE && attempt < (takes_any ? PORT_ATTEMPTS : 1); attempt++) {
        err = node->env->ops->datagram_open(node->env, &node->listen_addr, cake__membership_received, node,
                                            &node->datagram);
        if (err != 0)
            return err;
        cake_addr_t addr;
        node->env->ops->datagram_addr(node->datagram, &addr);
        err = listen_at(node, &addr);
        if (err == 0) {
            node->listen_addr = addr;
            break;
        }
        node->env->ops->datagram_close(node->datagram, ignore, NULL);
        node->datagram = NULL;
    }
    if (node->public_addr.family == 0)
        node->public_addr = node->listen_addr;
    if (node->public_addr.port == 0)
        node->public_addr.port = node->listen_addr.port;
    cake_addr_format(&node->public_addr, node->address);
    return err;
}

typedef struct {
    const cake_node_config_t *config;
    cake_node_t *node;
} start_request_t;

static int start_on_loop(void *arg)
{
    start_request_t *request = arg;
    cake_node_t *node = request->node;
    int err = copy_config(node, request->config);
    if (err == 0)
        err = open_ports(node);
    if (err == 0)
        err = cake__membership_start(node);
    if (err != 0)
        return err;
    cake__seeds_start(node);
    node->state = CAKE__NODE_RUNNING;
    return 0;
}

typedef struct {
    cake_env_t *env;
    cake_node_t *node;
    cake_gate_t gate;
} stop_request_t;

static void on_node_stopped(void *arg)
{
    stop_request_t *request = arg;
    request->env->ops->gate_open(request->env, &request->gate);
}

static int undo_start(void *arg)
{
    stop_request_t *request = arg;
    request->node->stopped = on_node_stopped;
    request->node->stopped_arg = request;
    close_and_release(request->node);
    return 0;
}

static int begin_stop(void *arg)
{
    stop_request_t *request = arg;
    cake__node_stop(request->node, on_node_stopped, request);
    return 0;
}

/* Runs a stopping function on the loop and waits until the node is gone, and its environment when it was its own. */
static void stop_and_wait(cake_node_t *node, cake__loop_fn how)
{
    cake_env_t *env = node->env;
    bool owns_env = node->owns_env;
    stop_request_t request = {.env = env, .node = node};
    env->ops->gate_init(env, &request.gate);
    (void)cake__run_on_loop(env, how, &request);
    env->ops->gate_wait(env, &request.gate);
    env->ops->gate_destroy(env, &request.gate);
    if (owns_env)
        env->ops->close(env);
}

/* One that has done nothing yet, with its environment. */
static int new_node(const cake_node_config_t *config, cake_node_t **out)
{
    cake_env_t *env = config->env;
    if (env != NULL && env->ops->on_loop(env))
        return CAKE_EDEADLK;
    int err = env != NULL ? 0 : cake__default_env(&env);
    if (err != 0)
        return err;
    if (config->env == NULL && config->log != NULL)
        env->log = *config->log;
    cake_node_t *node = cake__calloc(&env->alloc, 1, sizeof *node);
    if (node == NULL) {
        if (config->env == NULL)
            env->ops->close(env);
        return CAKE_ENOMEM;
    }
    node->env = node->keys.env = env;
    node->alloc = &env->alloc;
    node->log = &env->log;
    node->owns_env = config->env == NULL;
    cake__map_init(&node->channels, node->alloc);
    cake__list_init(&node->lent);
    cake__list_init(&node->watches);
    cake__list_init(&node->waits);
    cake__list_init(&node->extensions);
    *out = node;
    return 0;
}

int cake_node_start(const cake_node_config_t *given, cake_node_t **out)
{
    cake_node_config_t config;
    cake_node_t *node;
    *out = NULL;
    int err = given == NULL ? CAKE_EINVAL : cake__options_copy(&config, sizeof config, given);
    if (err == 0 && config.node_id == 0)
        err = CAKE_EINVAL;
    if (err == 0)
        err = new_node(&config, &node);
    if (err != 0)
        return err;
    start_request_t request = {.config = &config, .node = node};
    err = cake__security_start(node, &config);
    if (err == 0)
        err = cake__run_on_loop(node->env, start_on_loop, &request);
    if (err != 0)
        stop_and_wait(node, undo_start);
    else
        *out = node;
    return err;
}

int cake_node_stop(cake_node_t *node)
{
    if (node == NULL)
        return 0;
    if (node->env->ops->on_loop(node->env))
        return CAKE_EDEADLK;
    stop_and_wait(node, begin_stop);
    return 0;
}

/* ---- services, selection, statistics ----------------------------------------------------------------------------- */

int cake_node_add_service(cake_node_t *node, const cake_rpc_service_t *service)
{
    return cake_rpc_add_service(node->server, service);
}

int cake_node_remove_service(cake_node_t *node, const char *name)
{
    return cake_rpc_remove_service(node->server, name);
}

int cake__node_select(cake_node_t *node, cake_selection_t *selection)
{
    selection->local_id = node->id;
    selection->local_data_center = node->data_center;
    selection->rotation = node->rotation++;
    selection->node_count = 0;
    selection->live = selection->required = 0;
    return node->selector(selection, node->selector_arg);
}

bool cake_node_is_duplicate(const cake_node_t *node)
{
    return node->is_duplicate;
}

typedef struct {
    cake_node_t *node;
    cake_node_stats_t *out;
} stats_request_t;

/* Of live members. */
static uint32_t count_data_centers(const cake_node_t *node)
{
    uint32_t count = 0;
    for (size_t i = 0; i < node->told_count; i++) {
        bool is_new = cake__member_is_live(&node->told[i]);
        for (size_t k = 0; k < i && is_new; k++)
            is_new = !cake__member_is_live(&node->told[k]) ||
                     strcmp(node->told[k].data_center, node->told[i].data_center) != 0;
        count += is_new;
    }
    return count;
}

static int read_stats(void *arg)
{
    stats_request_t *request = arg;
    cake_node_t *node = request->node;
    cake_node_stats_t *out = request->out;
    cake__gossip_counters_t counters;
    if (node->state >= CAKE__NODE_CLOSING)
        return CAKE_ECLOSED;
    cake__gossip_counters(node->gossip, &counters);
    *out = (cake_node_stats_t){.alive = counters.live - counters.suspect,
                               .suspect = counters.suspect,
                               .dead = counters.dead,
                               .gossip_sent_bytes = counters.bytes_out,
                               .gossip_received_bytes = counters.bytes_in,
                               .gossip_bad_frames =
                                   counters.frames_malformed + counters.frames_foreign + counters.frames_replayed,
                               .is_isolated = node->is_isolated,
                               .is_duplicate = node->is_duplicate};
    out->data_centers = count_data_centers(node);
    cake_rpc_server_stats_t server;
    if (cake_rpc_server_stats(node->server, &server) == 0) {
        out->rpc_connections = server.connections;
        out->rpc_calls_started = server.calls_started;
        out->rpc_calls_failed = server.calls_failed;
    }
    return 0;
}

int cake_node_stats(cake_node_t *node, cake_node_stats_t *out)
{
    stats_request_t request = {node, out};
    *out = (cake_node_stats_t){0};
    return cake__run_on_loop(node->env, read_stats, &request);
}
