/* channel.c: connecting, reconnecting, and closing. The calls themselves are in call.c. */
#include "rpc/channel.h"

#include <stdio.h>

static void connect_next(cake_channel_t *channel);
static void closing_step(cake_channel_t *channel);

/* ---- connecting ---- */

/* Attempts follow each other ever slower, and at random: many clients of a server that comes back must not come back
 * at once. */
static uint64_t backoff_ms(cake_channel_t *channel)
{
    uint32_t shift = channel->failures > 20 ? 20 : channel->failures - 1;
    uint64_t delay = cake__min_u64(channel->backoff_min_ms << shift, channel->backoff_max_ms);
    uint64_t random = cake__draw_u64(channel->env) >> 32;
    return delay / 2 + (delay * random >> 32);
}

static void cancel_resolve(cake_channel_t *channel)
{
    if (channel->resolve != NULL)
        channel->env->ops->resolve_cancel(channel->resolve);
    channel->resolve = NULL;
}

/* The attempt is over: who waited for it is told, who comes later waits for the next. */
static void connect_failed(cake_channel_t *channel, int err, const char *what)
{
    cancel_resolve(channel);
    channel->env->ops->timer_cancel(channel->env, &channel->connect_timer);
    channel->failures++;
    channel->state = CAKE__CHANNEL_BACKOFF;
    cake__timer_arm_ms(channel->env, &channel->connect_timer, backoff_ms(channel));
    while (!cake__list_is_empty(&channel->waiting)) {
        cake_call_t *call = CAKE_CONTAINER_OF(channel->waiting.next, cake_call_t, wait_link);
        cake__call_over(call, err == CAKE_ENOMEM ? err : CAKE_ECONNECTION, what);
    }
}

static void note_why(cake_channel_t *channel, const cake__conn_t *conn)
{
    if (conn->why != NULL)
        snprintf(channel->why, sizeof channel->why, "%s", conn->why);
}

static void drop_current(cake_channel_t *channel)
{
    channel->current = NULL;
    atomic_store(&channel->is_connected, false);
}

static void on_connect(cake__conn_t *conn, int err)
{
    cake_channel_t *channel = cake__channel_of(conn);
    if (conn != channel->current || channel->state != CAKE__CHANNEL_CONNECTING)
        return;
    if (err != 0) {
        note_why(channel, conn);
        drop_current(channel);
        cake__conn_end(conn, err);
        connect_next(channel);
        return;
    }
    channel->state = CAKE__CHANNEL_READY;
    atomic_store(&channel->is_connected, true);
    cake__channel_pump(channel);
}

static void connect_next(cake_channel_t *channel)
{
    channel->state = CAKE__CHANNEL_CONNECTING;
    channel->has_settings = false;
    int err = CAKE_ECONNECTION;
    while (channel->addr_next < channel->addr_count) {
        cake__conn_t *conn;
        err = cake__conn_new(&channel->kind, channel, &conn);
        if (err != 0)
            break;
        err = cake__conn_connect(conn, &channel->addrs[channel->addr_next++]);
        if (err == 0) {
            cake__list_push_back(&channel->conns, &conn->link);
            channel->current = conn;
            return;
        }
        cake__conn_free(conn);
    }
    connect_failed(channel, err, channel->why[0] != '\0' ? channel->why : "cannot connect");
}

static void on_resolved(void *arg, int err, const cake_addr_t *addrs, size_t count)
{
    cake_channel_t *channel = arg;
    channel->resolve = NULL;
    if (err != 0 || count == 0) {
        connect_failed(channel, CAKE_ECONNECTION, "the address has no such name");
        return;
    }
    channel->addr_count = cake__min_u64(count, CAKE__ADDRS_MAX);
    channel->addr_next = 0;
    memcpy(channel->addrs, addrs, channel->addr_count * sizeof addrs[0]);
    connect_next(channel);
}

static void start_connecting(cake_channel_t *channel)
{
    CAKE_ASSERT(channel->state == CAKE__CHANNEL_IDLE && channel->current == NULL);
    cake__timer_arm_ms(channel->env, &channel->connect_timer, channel->connect_timeout_ms);
    channel->addr_next = 0;
    channel->why[0] = '\0';
    channel->addr_count = 1;
    if (cake_addr_parse(channel->address, &channel->addrs[0]) == 0) {
        connect_next(channel);
        return;
    }
    channel->state = CAKE__CHANNEL_RESOLVING;
    cake_env_t *env = channel->env;
    int err = env->ops->resolve(env, channel->address, on_resolved, channel, &channel->resolve);
    if (err != 0) {
        channel->resolve = NULL;
        connect_failed(channel, err, "the address cannot be looked up");
    }
}

static void connect_timer(void *arg)
{
    cake_channel_t *channel = arg;
    if (channel->state == CAKE__CHANNEL_BACKOFF) {
        channel->state = CAKE__CHANNEL_IDLE;
        cake__channel_pump(channel);
        return;
    }
    cake__conn_t *conn = channel->current;
    if (channel->state == CAKE__CHANNEL_READY) { /* connected to something that does not answer in HTTP/2 */
        cake__conn_end(conn, CAKE_ECONNECTION);
        return;
    }
    drop_current(channel);
    if (conn != NULL)
        cake__conn_end(conn, CAKE_ETIMEDOUT);
    connect_failed(channel, CAKE_ECONNECTION, "connecting took too long");
}

void cake__channel_settings(cake__conn_t *conn)
{
    cake_channel_t *channel = cake__channel_of(conn);
    if (conn != channel->current)
        return;
    channel->has_settings = true;
    channel->failures = 0;
    channel->env->ops->timer_cancel(channel->env, &channel->connect_timer);
    cake__channel_pump(channel);
}

/* The peer takes no more calls on this connection; those that it has go on there. */
void cake__channel_goaway(cake__conn_t *conn)
{
    cake_channel_t *channel = cake__channel_of(conn);
    if (conn == channel->current) {
        drop_current(channel);
        channel->env->ops->timer_cancel(channel->env, &channel->connect_timer);
        channel->state = CAKE__CHANNEL_IDLE;
    }
    if (conn->calls == 0)
        cake__conn_finish(conn, CAKE_ECONNECTION);
    cake__channel_pump(channel);
}

void cake__channel_call_left(cake__conn_t *conn)
{
    cake_channel_t *channel = cake__channel_of(conn);
    if (conn != channel->current && conn->calls == 0 && !conn->is_dead)
        cake__conn_finish(conn, CAKE_ECONNECTION);
    if (channel->waiting_count > 0)
        cake__channel_pump(channel);
}

static void on_dead(cake__conn_t *conn, int err)
{
    cake_channel_t *channel = cake__channel_of(conn);
    if (conn != channel->current)
        return;
    drop_current(channel);
    if (channel->is_closing)
        return;
    if (channel->has_settings) {
        channel->state = CAKE__CHANNEL_IDLE;
        cake__channel_pump(channel);
    } else {
        connect_failed(channel, err, conn->why != NULL ? conn->why : "the peer does not answer in HTTP/2");
    }
}

static void on_gone(cake__conn_t *conn)
{
    cake_channel_t *channel = cake__channel_of(conn);
    cake__list_remove(&conn->link);
    cake__conn_free(conn);
    closing_step(channel);
}

/* ---- calls ---- */

/* The connection that takes calls, and how many it may have; NULL: none does. */
static cake__conn_t *ready_conn(const cake_channel_t *channel, uint64_t *room)
{
    cake__conn_t *conn = channel->current;
    if (channel->state != CAKE__CHANNEL_READY || conn->is_ended || conn->is_finishing)
        return NULL;
    *room = cake__min_u64(channel->kind.limits.max_streams, cake__h2_peer_max_streams(conn->h2));
    return conn;
}

static void pump(void *arg)
{
    cake_channel_t *channel = arg;
    uint64_t room;
    if (channel->is_closing || cake__list_is_empty(&channel->waiting))
        return;
    if (channel->state == CAKE__CHANNEL_IDLE)
        start_connecting(channel);
    cake__conn_t *conn = ready_conn(channel, &room);
    if (conn == NULL)
        return;
    if (!cake__h2_takes_requests(conn->h2)) {
        cake__channel_goaway(conn);
        return;
    }
    uint64_t now_ns = cake__now_ns(channel->env);
    while (!cake__list_is_empty(&channel->waiting) && conn->calls < room)
        cake__call_submit(CAKE_CONTAINER_OF(channel->waiting.next, cake_call_t, wait_link), conn, now_ns);
}

void cake__channel_pump(cake_channel_t *channel)
{
    channel->env->ops->defer(channel->env, &channel->pump);
}

void cake__channel_wait(cake_channel_t *channel, cake_call_t *call, bool is_first)
{
    if (is_first)
        cake__list_push_front(&channel->waiting, &call->wait_link);
    else
        cake__list_push_back(&channel->waiting, &call->wait_link);
    channel->waiting_count++;
    call->state = CAKE__CALL_WAITING;
    cake__channel_pump(channel);
}

void cake__channel_begin(cake_channel_t *channel, cake_call_t *call, uint64_t now_ns)
{
    uint64_t room;
    cake__conn_t *conn = cake__list_is_empty(&channel->waiting) ? ready_conn(channel, &room) : NULL;
    if (conn != NULL && conn->calls < room && cake__h2_takes_requests(conn->h2))
        cake__call_submit(call, conn, now_ns);
    else
        cake__channel_wait(channel, call, false);
}

void cake__channel_deadline(cake_channel_t *channel, cake_call_t *call)
{
    const cake_env_ops_t *ops = channel->env->ops;
    cake__heap_insert(&channel->deadlines, &call->heap);
    call->is_in_heap = true;
    if (!channel->deadline_timer.is_armed || channel->deadline_timer.deadline_ns > call->deadline_ns)
        ops->timer_arm(channel->env, &channel->deadline_timer, call->deadline_ns);
}

static void deadline_timer(void *arg)
{
    cake_channel_t *channel = arg;
    uint64_t now_ns = cake__now_ns(channel->env);
    cake__heap_node_t *least;
    while ((least = cake__heap_least(&channel->deadlines)) != NULL) {
        cake_call_t *call = CAKE_CONTAINER_OF(least, cake_call_t, heap);
        if (call->deadline_ns > now_ns) {
            channel->env->ops->timer_arm(channel->env, &channel->deadline_timer, call->deadline_ns);
            return;
        }
        cake__call_over(call, CAKE_ETIMEDOUT, NULL);
    }
}

static void tell_ended(void *arg)
{
    cake_channel_t *channel = arg;
    cake__list_t ended;
    cake__list_init(&ended);
    cake__list_splice(&ended, &channel->ended);
    for (cake__list_t *link = cake__list_pop_front(&ended); link != NULL; link = cake__list_pop_front(&ended))
        cake__call_tell(CAKE_CONTAINER_OF(link, cake_call_t, link));
    closing_step(channel);
}

/* ---- create and destroy ---- */

static void free_channel(cake_channel_t *channel)
{
    cake_env_t *env = channel->env;
    env->ops->timer_cancel(env, &channel->connect_timer);
    env->ops->timer_cancel(env, &channel->deadline_timer);
    env->ops->defer_cancel(env, &channel->tell);
    env->ops->defer_cancel(env, &channel->pump);
    cake__conn_kind_free(&channel->kind);
    cake__free(&env->alloc, channel->address);
    cake__free(&env->alloc, channel->cluster_id);
    cake__free(&env->alloc, channel);
}

static uint64_t u64_or(uint64_t value, uint64_t otherwise)
{
    return value != 0 ? value : otherwise;
}

static cake_channel_t *make(cake_env_t *env, const char *address, const cake_channel_config_t *config)
{
    cake_channel_t *channel = cake__calloc(&env->alloc, 1, sizeof *channel);
    if (channel == NULL)
        return NULL;
    channel->env = env;
    channel->kind.env = env;
    channel->kind.limits = config->limits;
    channel->kind.keepalive_ms = u64_or(config->keepalive_ms, 5000);
    channel->kind.events = cake__channel_events;
    channel->kind.on_connect = on_connect;
    channel->kind.on_dead = on_dead;
    channel->kind.on_gone = on_gone;
    channel->kind.body_room = cake__call_body_room;
    cake__conn_kind_init(&channel->kind);
    (void)cake__spare_new(&env->alloc, &channel->kind.spare);
    channel->hooks = config->hooks;
    channel->connect_timeout_ms = u64_or(config->connect_timeout_ms, 2000);
    channel->timeout_ms = u64_or(config->timeout_ms, 10000);
    channel->backoff_min_ms = cake__min_u64(u64_or(config->backoff_min_ms, 50), UINT32_MAX);
    channel->backoff_max_ms = cake__min_u64(u64_or(config->backoff_max_ms, 2000), UINT32_MAX);
    channel->max_waiting = config->max_waiting != 0 ? config->max_waiting : 65536;
    cake__list_init(&channel->conns);
    cake__list_init(&channel->calls);
    cake__list_init(&channel->waiting);
    cake__list_init(&channel->ended);
    cake__heap_init(&channel->deadlines, cake__call_is_before);
    channel->connect_timer = CAKE_TIMER_INIT(connect_timer, channel);
    channel->deadline_timer = CAKE_TIMER_INIT(deadline_timer, channel);
    channel->tell = CAKE_DEFERRED_INIT(tell_ended, channel);
    channel->pump = CAKE_DEFERRED_INIT(pump, channel);
    atomic_init(&channel->is_connected, false);
    channel->address = cake__strdup(&env->alloc, address);
    channel->cluster_id = cake__strdup(&env->alloc, config->cluster_id);
    bool has_texts = channel->address != NULL && (channel->cluster_id != NULL || config->cluster_id == NULL);
    if (has_texts && channel->kind.spare != NULL)
        return channel;
    cake__spare_unref(channel->kind.spare);
    cake__free(&env->alloc, channel->address);
    cake__free(&env->alloc, channel->cluster_id);
    cake__free(&env->alloc, channel);
    return NULL;
}

/* "host:port", or a numeric address: what there is to check without asking anybody. */
static int check_address(const char *text)
{
    cake_addr_t addr;
    if (text == NULL)
        return CAKE_EINVAL;
    if (cake_addr_parse(text, &addr) == 0)
        return 0;
    const char *colon = strrchr(text, ':');
    uint64_t port;
    bool has_port = colon != NULL && cake__decimal_read(cake__slice_str(colon + 1), &port) && port <= UINT16_MAX;
    if (!has_port || colon == text || colon - text > 255 || text[0] == '[' || strchr(text, '/') != NULL ||
        strchr(text, ':') != colon)
        return CAKE_EPARSE;
    return 0;
}

int cake_channel_open(const char *address, const cake_channel_config_t *given, cake_channel_t **out)
{
    cake_channel_config_t config = CAKE_CHANNEL_CONFIG_INIT;
    *out = NULL;
    int err = check_address(address);
    if (err == 0 && given != NULL)
        err = cake__options_copy(&config, sizeof config, given);
    if (err != 0)
        return err;
    cake__setup_t setup;
    err = cake__set_up(&setup, true, config.env, config.cluster_id, config.tls);
    if (err != 0)
        return err;
    *out = make(setup.env, address, &config);
    if (*out == NULL) {
        cake__undo_setup(&setup);
        return CAKE_ENOMEM;
    }
    (*out)->owns_env = setup.owns_env;
    cake__conn_kind_own_tls(&(*out)->kind, setup.tls);
    return 0;
}

int cake_channel_reload_tls(cake_channel_t *channel, const cake_tls_config_t *tls)
{
    return cake__conn_kind_reload_tls(&channel->kind, tls);
}

void cake__channel_lend_tls(cake_channel_t *channel, cake_tls_t *tls)
{
    cake__conn_kind_lend_tls(&channel->kind, tls);
}

const char *cake_channel_address(const cake_channel_t *channel)
{
    return channel->address;
}

bool cake_channel_is_connected(cake_channel_t *channel)
{
    return atomic_load(&channel->is_connected);
}

static void closing_step(cake_channel_t *channel)
{
    if (!channel->is_closing || !cake__list_is_empty(&channel->conns) || !cake__list_is_empty(&channel->calls) ||
        !cake__list_is_empty(&channel->ended) || channel->closed == NULL)
        return;
    cake_event_fn closed = channel->closed;
    void *arg = channel->closed_arg;
    free_channel(channel);
    closed(arg);
}

static int close_on_loop(void *arg)
{
    cake_channel_t *channel = arg;
    cake_env_t *env = channel->env;
    channel->is_closing = true;
    cancel_resolve(channel);
    env->ops->timer_cancel(env, &channel->connect_timer);
    while (!cake__list_is_empty(&channel->calls)) {
        cake_call_t *call = CAKE_CONTAINER_OF(channel->calls.next, cake_call_t, link);
        cake__call_over(call, CAKE_ECLOSED, NULL);
    }
    CAKE_LIST_FOR_EACH(link, &channel->conns)
    cake__conn_end(CAKE_CONTAINER_OF(link, cake__conn_t, link), CAKE_ECLOSED);
    env->ops->defer(env, &channel->tell);
    return 0;
}

void cake__channel_reset(cake_channel_t *channel)
{
    if (channel->is_closing)
        return;
    cancel_resolve(channel);
    channel->env->ops->timer_cancel(channel->env, &channel->connect_timer);
    drop_current(channel); /* first: what ends below is no attempt that failed */
    channel->state = CAKE__CHANNEL_IDLE;
    while (!cake__list_is_empty(&channel->calls)) {
        cake_call_t *call = CAKE_CONTAINER_OF(channel->calls.next, cake_call_t, link);
        cake__call_over(call, CAKE_ECONNECTION, NULL);
    }
    CAKE_LIST_FOR_EACH(link, &channel->conns)
    cake__conn_end(CAKE_CONTAINER_OF(link, cake__conn_t, link), CAKE_ECONNECTION);
}

int cake__channel_close(cake_channel_t *channel, cake_event_fn closed, void *arg)
{
    CAKE_ASSERT(channel->closed == NULL && closed != NULL);
    if (channel->owns_env)
        return CAKE_EINVAL;
    channel->closed = closed;
    channel->closed_arg = arg;
    return cake__run_on_loop(channel->env, close_on_loop, channel);
}

int cake_channel_close(cake_channel_t *channel)
{
    if (channel == NULL)
        return 0;
    return cake__close_and_wait(channel->env, channel->owns_env, close_on_loop, channel, &channel->closed,
                                &channel->closed_arg);
}
