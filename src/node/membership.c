/* Drives the gossip core: datagrams, timer, pings, seeds go in, actions are carried out, watchers told (members.c). */
#include "node/node.h"

static void run_actions(cake_node_t *node, const cake__gossip_action_t *actions, size_t count);

static int step(cake_node_t *node, const cake__gossip_event_t *event)
{
    const cake__gossip_action_t *actions;
    size_t count;
    if (node->gossip == NULL || node->state >= CAKE__NODE_CLOSING)
        return CAKE_ECLOSED;
    CAKE_ASSERT(!node->is_stepping);
    int err = cake__gossip_step(node->gossip, cake__now_ns(node->env), event, &actions, &count);
    node->is_stepping = true;
    run_actions(node, actions, count);
    node->is_stepping = false;
    if (node->state < CAKE__NODE_CLOSING) {
        uint64_t deadline = cake__gossip_deadline(node->gossip);
        if (deadline == CAKE__GOSSIP_NEVER)
            node->env->ops->timer_cancel(node->env, &node->gossip_timer);
        else
            node->env->ops->timer_arm(node->env, &node->gossip_timer, deadline);
    }
    cake__tell_watchers(node);
    return err;
}

/* ---- actions ----------------------------------------------------------------------------------------------------- */

/* A ping over RPC under way. */
typedef struct {
    cake_node_t *node;
    uint64_t token;
} ping_t;

static void put_who(uint8_t out[CAKE__WHO_LEN], const cake__gossip_who_t *who)
{
    cake__store_le(out, who->node_id, 2);
    cake__store_le(out + 2, who->generation, 8);
    memcpy(out + 10, who->nonce, CAKE__GOSSIP_NONCE_LEN);
}

bool cake__who_read(cake_slice_t bytes, cake__gossip_who_t *out)
{
    const uint8_t *at = bytes.data;
    if (bytes.len != CAKE__WHO_LEN)
        return false;
    out->node_id = (uint16_t)cake__load_le(at, 2);
    out->generation = cake__load_le(at + 2, 8);
    memcpy(out->nonce, at + 10, CAKE__GOSSIP_NONCE_LEN);
    return true;
}

static void on_pinged(cake_reply_t *reply, void *arg)
{
    ping_t *ping = arg;
    cake_node_t *node = ping->node;
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_PINGED, .pinged = {.token = ping->token}};
    event.pinged.is_answered =
        cake_reply_err(reply) == 0 && cake__who_read(cake_reply_body(reply), &event.pinged.answer);
    cake_reply_free(reply);
    cake__free(node->alloc, ping);
    if (!node->is_stepping) /* else its channel was exchanged by an action: the core times the ping out by itself */
        step(node, &event);
}

/* A ping that cannot be sent counts as unanswered, but in a later step of the loop: no step inside a step. */
static void ping_member(cake_node_t *node, const cake__gossip_action_t *action)
{
    ping_t *ping = cake__calloc(node->alloc, 1, sizeof *ping);
    cake_channel_t *channel =
        ping == NULL ? NULL : cake__carrier_channel(node, &action->ping.to, action->ping.who.node_id);
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    options.timeout_ms = 1000;
    if (ping != NULL)
        *ping = (ping_t){node, action->ping.token};
    if (channel == NULL ||
        cake_channel_call_async(channel, CAKE__GOSSIP_PING_PATH, NULL, 0, &options, on_pinged, ping, NULL) != 0)
        cake__free(node->alloc, ping); /* the core times it out by itself */
}

static void on_duplicate(cake_node_t *node, const cake__gossip_action_t *action)
{
    char kept[CAKE_ADDR_TEXT_MAX], refused[CAKE_ADDR_TEXT_MAX];
    cake_addr_format(&action->duplicate.kept, kept);
    cake_addr_format(&action->duplicate.refused, refused);
    node->is_duplicate |= action->duplicate.is_self_refused;
    cake__log(node->log, CAKE_LOG_ERROR, "node id %u is used twice: by %s, which stays, and by %s, which is refused%s",
              (unsigned)action->duplicate.node_id, kept, refused,
              action->duplicate.is_self_refused ? " (this node: stop it and give it an id of its own)" : "");
}

static void run_actions(cake_node_t *node, const cake__gossip_action_t *actions, size_t count)
{
    bool has_left = false;
    for (size_t i = 0; i < count; i++) {
        const cake__gossip_action_t *action = &actions[i];
        switch (action->kind) {
        case CAKE__GOSSIP_SEND:
        case CAKE__GOSSIP_STREAM:
            if (action->kind == CAKE__GOSSIP_STREAM || node->carrier.is_for_all)
                cake__carrier_send(node, &action->send.to, action->send.node_id, action->send.frame);
            else
                node->env->ops->datagram_send(node->datagram, &action->send.to, action->send.frame.data,
                                              action->send.frame.len);
            break;
        case CAKE__GOSSIP_PING:
            ping_member(node, action);
            break;
        case CAKE__GOSSIP_MEMBER:
            node->tell_again = true;
            break;
        case CAKE__GOSSIP_DUPLICATE:
            on_duplicate(node, action);
            break;
        case CAKE__GOSSIP_ISOLATED:
            node->is_isolated = action->is_isolated;
            cake__log(node->log, CAKE_LOG_WARN,
                      action->is_isolated ? "isolated: most members do not answer this node" : "no longer isolated");
            break;
        case CAKE__GOSSIP_LEAVE_DONE:
            has_left = true;
            break;
        }
    }
    if (has_left && node->state == CAKE__NODE_LEAVING)
        cake__node_left(node);
}

/* ---- input ------------------------------------------------------------------------------------------------------- */

/* What is of another cluster changes nothing, but is said. */
static void receive(cake_node_t *node, const cake__gossip_event_t *event)
{
    cake__gossip_counters_t before, after;
    if (node->gossip == NULL || node->state >= CAKE__NODE_CLOSING)
        return;
    cake__gossip_counters(node->gossip, &before);
    step(node, event);
    if (node->state >= CAKE__NODE_CLOSING)
        return;
    cake__gossip_counters(node->gossip, &after);
    if (after.frames_foreign > before.frames_foreign)
        cake__stranger_heard(node, &event->received.from, event->received.frame);
}

void cake__membership_received(void *arg, const cake_addr_t *from, const void *data, size_t len)
{
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_RECEIVED};
    event.received.from = *from;
    event.received.frame = cake__slice(data, len);
    receive(arg, &event);
}

static void on_tick(void *arg)
{
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_TICK};
    step(arg, &event);
}

static void handle_ping(cake_rpc_call_t *call, void *arg)
{
    cake_node_t *node = arg;
    cake__gossip_member_t self;
    uint8_t body[CAKE__WHO_LEN];
    if (node->gossip == NULL || node->state >= CAKE__NODE_CLOSING || node->is_duplicate) {
        cake_rpc_fail(call, CAKE_ECLOSED, NULL); /* refused: it holds no id */
        return;
    }
    cake__gossip_self(node->gossip, &self);
    put_who(body, &self.who);
    cake_rpc_reply(call, body, sizeof body);
}

static void handle_frame(cake_rpc_call_t *call, void *arg)
{
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_RECEIVED};
    if (!cake__carrier_read(cake_rpc_body(call), &event.received.from, &event.received.frame)) {
        cake_rpc_fail(call, CAKE_EPARSE, NULL);
        return;
    }
    event.received.is_stream = true;
    receive(arg, &event);
    cake_rpc_reply(call, NULL, 0);
}

void cake__membership_seeds(cake_node_t *node, const cake_addr_t *addrs, size_t count)
{
    const cake__gossip_event_t event = {.kind = CAKE__GOSSIP_SEEDS, .seeds = {.addrs = addrs, .count = count}};
    step(node, &event);
}

/* ---- start and stop ---------------------------------------------------------------------------------------------- */

int cake__membership_start(cake_node_t *node)
{
    cake__gossip_config_t config = {.alloc = node->alloc,
                                    .log = node->log,
                                    .node_id = node->id,
                                    .generation = node->generation,
                                    .addr = node->public_addr,
                                    .data_center = node->data_center,
                                    .cluster_id = node->cluster_id,
                                    .seed = cake__draw_u64(node->env),
                                    .sealer = cake__node_sealer(&node->keys)};
    node->env->ops->random(node->env, config.nonce, sizeof config.nonce);
    int err = cake__gossip_new(&config, cake__now_ns(node->env), &node->gossip);
    if (err != 0)
        return err;
    const cake_rpc_method_t methods[] = {{"ping", handle_ping, 0}, {"frame", handle_frame, 0}};
    const cake_rpc_service_t service = {CAKE__GOSSIP_SERVICE, methods, CAKE_COUNT_OF(methods), node, NULL};
    err = cake_rpc_add_service(node->server, &service);
    if (err != 0)
        return err;
    node->gossip_timer = CAKE_TIMER_INIT(on_tick, node);
    node->retry_timer = CAKE_TIMER_INIT(cake__tell_again, node);
    node->tell_again = true;
    return 0;
}

void cake__membership_leave(cake_node_t *node)
{
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_LEAVE};
    step(node, &event);
    /* A refused duplicate has nobody to say goodbye to. */
    if (node->state == CAKE__NODE_LEAVING && cake__gossip_deadline(node->gossip) == CAKE__GOSSIP_NEVER)
        cake__node_left(node);
}

void cake__membership_close(cake_node_t *node)
{
    cake_env_t *env = node->env;
    env->ops->timer_cancel(env, &node->gossip_timer);
    env->ops->timer_cancel(env, &node->retry_timer);
    cake__carrier_close(node);
    cake__waits_close(node);
}

void cake__membership_free(cake_node_t *node)
{
    cake__watches_close(node);
    cake__free(node->alloc, node->told);
    cake__gossip_free(node->gossip);
}

/* ---- published keys ---------------------------------------------------------------------------------------------- */

typedef struct {
    cake_node_t *node;
    uint16_t id;
    cake_slice_t name;
    const void *value;
    void *out;
    size_t len;
} key_request_t;

/* Published names get a prefix, so that they cannot meet the node's own keys. */
static size_t prefixed(cake_slice_t name, char out[80])
{
    size_t prefix = strlen(CAKE__NODE_KEY_PREFIX);
    memcpy(out, CAKE__NODE_KEY_PREFIX, prefix);
    memcpy(out + prefix, name.data, name.len);
    return prefix + name.len;
}

static int publish(void *arg)
{
    key_request_t *request = arg;
    char name[80];
    cake__gossip_event_t event = {.kind = request->value == NULL ? CAKE__GOSSIP_DELETE_KEY : CAKE__GOSSIP_SET_KEY};
    event.key.key = cake__slice(name, prefixed(request->name, name));
    event.key.value = cake__slice(request->value, request->len);
    return step(request->node, &event);
}

int cake_node_publish(cake_node_t *node, const char *name, const void *value, size_t len)
{
    if (name == NULL || !cake__is_name(cake__slice_str(name), 63))
        return CAKE_EINVAL;
    if (len > CAKE__GOSSIP_VALUE_MAX)
        return CAKE_ETOOBIG;
    key_request_t request = {.node = node, .name = cake__slice_str(name), .value = value, .len = len};
    return cake__run_on_loop(node->env, publish, &request);
}

static int read_published(void *arg)
{
    key_request_t *request = arg;
    char name[80];
    cake__gossip_member_t member;
    cake_slice_t value;
    if (request->node->state >= CAKE__NODE_CLOSING)
        return CAKE_ECLOSED;
    if (!cake__gossip_find_member(request->node->gossip, request->id, &member) ||
        !cake__gossip_get_key(&member, cake__slice(name, prefixed(request->name, name)), &value))
        return CAKE_ENOTFOUND;
    if (value.len > request->len)
        return CAKE_ETOOBIG;
    memcpy(request->out, value.data, value.len);
    request->len = value.len;
    return 0;
}

int cake_node_published(cake_node_t *node, uint16_t id, const char *name, void *value, size_t *len)
{
    if (name == NULL || !cake__is_name(cake__slice_str(name), 63))
        return CAKE_EINVAL;
    key_request_t request = {.node = node, .id = id, .name = cake__slice_str(name), .out = value, .len = *len};
    int err = cake__run_on_loop(node->env, read_published, &request);
    if (err == 0)
        *len = request.len;
    return err;
}
