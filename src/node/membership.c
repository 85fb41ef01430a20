/* Drives the gossip core: datagrams, timer and pings go in, actions are carried out, watchers are told.
 *
 * Watchers are told by comparing the core with `told`, so that running out of memory delays what they hear but never loses
 * it: retry_timer compares again. */
#include "node/node.h"

#define GOSSIP_SERVICE "datacake.gossip"

static void tell_watchers(cake_node_t *node);
static void run_actions(cake_node_t *node, const cake__gossip_action_t *actions, size_t count);

static int step(cake_node_t *node, const cake__gossip_event_t *event)
{
    const cake__gossip_action_t *actions;
    size_t count;
    if (node->gossip == NULL || node->state >= CAKE__NODE_CLOSING)
        return CAKE_ECLOSED;
    int err = cake__gossip_step(node->gossip, cake__now_ns(node->env), event, &actions, &count);
    run_actions(node, actions, count);
    if (node->state < CAKE__NODE_CLOSING) {
        uint64_t deadline = cake__gossip_deadline(node->gossip);
        if (deadline == CAKE__GOSSIP_NEVER)
            node->env->ops->timer_cancel(node->env, &node->gossip_timer);
        else
            node->env->ops->timer_arm(node->env, &node->gossip_timer, deadline);
    }
    tell_watchers(node);
    return err;
}

/* ---- records ------------------------------------------------------------------------------------------------------------*/

static cake_status_t public_status(cake__gossip_status_t status)
{
    switch (status) {
    case CAKE__GOSSIP_ALIVE:
        return CAKE_ALIVE;
    case CAKE__GOSSIP_SUSPECT:
        return CAKE_SUSPECT;
    case CAKE__GOSSIP_DEAD:
        return CAKE_DEAD;
    default:
        return CAKE_LEFT;
    }
}

static void public_record(const cake__gossip_member_t *member, cake_member_t *out)
{
    memset(out, 0, sizeof *out); /* padding too: records are compared as bytes */
    out->node_id = member->who.node_id;
    out->generation = member->who.generation;
    cake_addr_format(&member->addr, out->address);
    size_t len = strlen(member->data_center);
    memcpy(out->data_center, member->data_center, len < sizeof out->data_center ? len : sizeof out->data_center - 1);
    out->status = public_status(member->status);
    out->is_self = member->is_self;
    out->is_degraded = member->is_degraded;
    out->phi = member->phi;
}

static bool is_live(const cake_member_t *member)
{
    return member->status == CAKE_ALIVE || member->status == CAKE_SUSPECT;
}

/* ---- telling watchers ------------------------------------------------------------------------------------------------*/

static void tell(cake_node_t *node, cake_membership_kind_t kind, const cake_member_t *member)
{
    CAKE_LIST_FOR_EACH(link, &node->watches)
    {
        cake__node_watch_t *watch = CAKE_CONTAINER_OF(link, cake__node_watch_t, link);
        if (!watch->is_stopped)
            watch->fn(watch->arg, kind, member);
    }
}

static size_t find_told(const cake_node_t *node, uint16_t id)
{
    size_t low = 0, high = node->told_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (node->told[middle].node_id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool reserve_told(cake_node_t *node)
{
    if (node->told_count < node->told_capacity)
        return true;
    size_t capacity = node->told_capacity == 0 ? 8 : node->told_capacity * 2;
    cake_member_t *told = cake__realloc(node->alloc, node->told, capacity * sizeof *told);
    if (told == NULL)
        return false;
    node->told = told;
    node->told_capacity = capacity;
    return true;
}

/* The differences between two records of one id, as the events that lead from one to the other. */
static void tell_change(cake_node_t *node, const cake_member_t *before, const cake_member_t *now)
{
    bool was_live = before != NULL && is_live(before);
    bool is_new_run = before == NULL || before->generation != now->generation;
    if (was_live && is_new_run) {
        cake_member_t departed = *before;
        departed.status = CAKE_DEAD;
        tell(node, CAKE_MEMBER_LEFT, &departed);
    }
    if (is_live(now))
        tell(node, was_live && !is_new_run ? CAKE_MEMBER_UPDATED : CAKE_MEMBER_JOINED, now);
    else if (was_live && !is_new_run)
        tell(node, CAKE_MEMBER_LEFT, now);
}

/* Puts one member's record into told and tells the watchers; false for want of memory. */
static bool tell_member(cake_node_t *node, const cake__gossip_member_t *member)
{
    cake_member_t now;
    public_record(member, &now);
    now.phi = 0;
    size_t at = find_told(node, now.node_id);
    bool is_known = at < node->told_count && node->told[at].node_id == now.node_id;
    if (is_known && memcmp(&node->told[at], &now, sizeof now) == 0)
        return true;
    if (!is_known && !reserve_told(node))
        return false;
    cake_member_t before = {0};
    if (is_known) {
        before = node->told[at];
    } else {
        memmove(&node->told[at + 1], &node->told[at], (node->told_count - at) * sizeof *node->told);
        node->told_count++;
    }
    node->told[at] = now;
    if (!is_live(&now))
        cake__channel_drop(node, now.node_id); /* calls to the dead end at once, not at their time-outs */
    tell_change(node, is_known ? &before : NULL, &now);
    return true;
}

static void forget_told(cake_node_t *node)
{
    size_t kept = 0;
    for (size_t i = 0; i < node->told_count; i++) {
        cake__gossip_member_t member;
        if (cake__gossip_find_member(node->gossip, node->told[i].node_id, &member))
            node->told[kept++] = node->told[i];
    }
    node->told_count = kept;
}

static void check_waits(cake_node_t *node);

/* Watchers may publish keys and so step the core: what changes meanwhile is told in a further round. */
static void tell_watchers(cake_node_t *node)
{
    if (!node->tell_again || node->is_telling || node->gossip == NULL)
        return;
    node->is_telling = true;
    while (node->tell_again) {
        node->tell_again = false;
        cake__gossip_member_t member;
        bool is_complete = true;
        for (uint32_t id = 0; id <= UINT16_MAX;) {
            size_t cursor = 0;
            bool found = false; /* the next member above the last id: the core may have changed under the callbacks */
            while (!found && cake__gossip_next_member(node->gossip, &cursor, &member))
                found = member.who.node_id >= id;
            if (!found)
                break;
            id = (uint32_t)member.who.node_id + 1;
            is_complete &= tell_member(node, &member);
        }
        forget_told(node);
        if (!is_complete)
            cake__timer_arm_ms(node->env, &node->retry_timer, CAKE__RETRY_TOLD_MS);
    }
    node->is_telling = false;
    CAKE_LIST_FOR_EACH_SAFE(link, &node->watches)
    {
        cake__node_watch_t *watch = CAKE_CONTAINER_OF(link, cake__node_watch_t, link);
        if (watch->is_stopped) {
            cake__list_remove(&watch->link);
            cake__free(node->alloc, watch);
        }
    }
    check_waits(node);
}

static void on_retry(void *arg)
{
    cake_node_t *node = arg;
    node->tell_again = true;
    tell_watchers(node);
}

/* ---- actions -------------------------------------------------------------------------------------------------------------*/

/* A ping over RPC under way. */
typedef struct {
    cake_node_t *node;
    uint64_t token;
} ping_t;

static void put_who(uint8_t out[26], const cake__gossip_who_t *who)
{
    cake__store_le(out, who->node_id, 2);
    cake__store_le(out + 2, who->generation, 8);
    memcpy(out + 10, who->nonce, CAKE__GOSSIP_NONCE_LEN);
}

static void on_pinged(cake_reply_t *reply, void *arg)
{
    ping_t *ping = arg;
    cake_node_t *node = ping->node;
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_PINGED, .pinged = {.token = ping->token}};
    cake_slice_t body = cake_reply_body(reply);
    if (cake_reply_err(reply) == 0 && body.len == 26) {
        const uint8_t *at = body.data;
        event.pinged.is_answered = true;
        event.pinged.answer.node_id = (uint16_t)cake__load_le(at, 2);
        event.pinged.answer.generation = cake__load_le(at + 2, 8);
        memcpy(event.pinged.answer.nonce, at + 10, CAKE__GOSSIP_NONCE_LEN);
    }
    cake_reply_free(reply);
    cake__free(node->alloc, ping);
    step(node, &event);
}

/* A ping that cannot be sent counts as unanswered, but in a later step of the loop: no step inside a step. */
static void ping_member(cake_node_t *node, const cake__gossip_action_t *action)
{
    ping_t *ping = cake__calloc(node->alloc, 1, sizeof *ping);
    cake_channel_t *channel = ping == NULL ? NULL : cake__channel_to(node, action->ping.who.node_id, &action->ping.to);
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    options.timeout_ms = 1000;
    if (ping != NULL)
        *ping = (ping_t){node, action->ping.token};
    if (channel == NULL ||
        cake_channel_call_async(channel, "/" GOSSIP_SERVICE "/ping", NULL, 0, &options, on_pinged, ping, NULL) != 0)
        cake__free(node->alloc, ping); /* the core times it out by itself */
}

static void on_streamed(cake_reply_t *reply, void *arg)
{
    (void)arg;
    cake_reply_free(reply);
}

static void stream_frame(cake_node_t *node, const cake__gossip_action_t *action)
{
    cake_channel_t *channel = cake__channel_to(node, action->send.node_id, &action->send.to);
    if (channel != NULL)
        (void)cake_channel_call_async(channel, "/" GOSSIP_SERVICE "/frame", &action->send.frame, 1, NULL, on_streamed,
                                      NULL, NULL);
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
            node->env->ops->datagram_send(node->datagram, &action->send.to, action->send.frame.data,
                                          action->send.frame.len);
            break;
        case CAKE__GOSSIP_STREAM:
            stream_frame(node, action);
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

/* ---- input ---------------------------------------------------------------------------------------------------------------*/

void cake__membership_received(void *arg, const cake_addr_t *from, const void *data, size_t len)
{
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_RECEIVED};
    event.received.from = *from;
    event.received.frame = cake__slice(data, len);
    step(arg, &event);
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
    uint8_t body[26];
    if (node->gossip == NULL || node->state >= CAKE__NODE_CLOSING) {
        cake_rpc_fail(call, CAKE_ECLOSED, NULL);
        return;
    }
    cake__gossip_self(node->gossip, &self);
    put_who(body, &self.who);
    cake_rpc_reply(call, body, sizeof body);
}

static void handle_frame(cake_rpc_call_t *call, void *arg)
{
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_RECEIVED};
    cake_rpc_peer(call, &event.received.from);
    event.received.frame = cake_rpc_body(call);
    event.received.is_stream = true;
    step(arg, &event);
    cake_rpc_reply(call, NULL, 0);
}

/* ---- seeds ----------------------------------------------------------------------------------------------------------------*/

static void give_seeds(cake_node_t *node)
{
    cake_addr_t addrs[CAKE__NODE_SEEDS_MAX];
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_SEEDS, .seeds = {.addrs = addrs}};
    for (size_t i = 0; i < node->seed_count; i++) {
        if (node->seeds[i].addr.family != 0)
            addrs[event.seeds.count++] = node->seeds[i].addr;
    }
    step(node, &event);
}

static void on_seed_resolved(void *arg, int err, const cake_addr_t *addrs, size_t count)
{
    cake__seed_t *seed = arg;
    seed->resolve = NULL;
    if (err != 0 || count == 0) {
        cake__log(seed->node->log, CAKE_LOG_WARN, "seed %s has no address: %s", seed->text, cake_strerror(err));
        return;
    }
    if (cake_addr_equal(&seed->addr, &addrs[0]))
        return;
    seed->addr = addrs[0];
    give_seeds(seed->node);
}

/* Names are looked up again and again: a seed may come back elsewhere. */
static void resolve_seeds(void *arg)
{
    cake_node_t *node = arg;
    bool has_names = false;
    for (size_t i = 0; i < node->seed_count; i++) {
        cake__seed_t *seed = &node->seeds[i];
        cake_addr_t numeric;
        if (cake_addr_parse(seed->text, &numeric) == 0) {
            seed->addr = numeric;
            continue;
        }
        has_names = true;
        if (seed->resolve == NULL)
            (void)node->env->ops->resolve(node->env, seed->text, on_seed_resolved, seed, &seed->resolve);
    }
    if (has_names)
        cake__timer_arm_ms(node->env, &node->resolve_timer, CAKE__SEED_RESOLVE_MS);
}

/* ---- start and stop -----------------------------------------------------------------------------------------------------*/

int cake__membership_start(cake_node_t *node)
{
    cake__gossip_config_t config = {.alloc = node->alloc,
                                    .log = node->log,
                                    .node_id = node->id,
                                    .generation = node->generation,
                                    .addr = node->public_addr,
                                    .data_center = node->data_center,
                                    .cluster_id = node->cluster_id,
                                    .seed = cake__draw_u64(node->env)};
    node->env->ops->random(node->env, config.nonce, sizeof config.nonce);
    int err = cake__gossip_new(&config, cake__now_ns(node->env), &node->gossip);
    if (err != 0)
        return err;
    const cake_rpc_method_t methods[] = {{"ping", handle_ping, 0}, {"frame", handle_frame, 0}};
    const cake_rpc_service_t service = {GOSSIP_SERVICE, methods, CAKE_COUNT_OF(methods), node, NULL};
    err = cake_rpc_add_service(node->server, &service);
    if (err != 0)
        return err;
    node->gossip_timer = CAKE_TIMER_INIT(on_tick, node);
    node->retry_timer = CAKE_TIMER_INIT(on_retry, node);
    node->resolve_timer = CAKE_TIMER_INIT(resolve_seeds, node);
    node->tell_again = true;
    resolve_seeds(node);
    give_seeds(node);
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

static void end_wait(cake_node_t *node, void *wait, int result);

void cake__membership_close(cake_node_t *node)
{
    cake_env_t *env = node->env;
    env->ops->timer_cancel(env, &node->gossip_timer);
    env->ops->timer_cancel(env, &node->retry_timer);
    env->ops->timer_cancel(env, &node->resolve_timer);
    for (size_t i = 0; i < node->seed_count; i++) {
        if (node->seeds[i].resolve != NULL)
            env->ops->resolve_cancel(node->seeds[i].resolve);
        node->seeds[i].resolve = NULL;
    }
    while (!cake__list_is_empty(&node->waits))
        end_wait(node, node->waits.next, CAKE_ECLOSED);
}

void cake__membership_free(cake_node_t *node)
{
    CAKE_LIST_FOR_EACH_SAFE(link, &node->watches)
    {
        cake__list_remove(link);
        cake__free(node->alloc, CAKE_CONTAINER_OF(link, cake__node_watch_t, link));
    }
    for (size_t i = 0; i < node->seed_count; i++)
        cake__free(node->alloc, node->seeds[i].text);
    cake__free(node->alloc, node->seeds);
    cake__free(node->alloc, node->told);
    cake__gossip_free(node->gossip);
}

/* ---- watching, waiting, asking -----------------------------------------------------------------------------------------*/

static void stop_watch(cake_watch_t *base)
{
    cake__node_watch_t *watch = CAKE_CONTAINER_OF(base, cake__node_watch_t, base);
    cake_node_t *node = watch->node;
    watch->is_stopped = true;
    if (node->is_telling)
        return;
    cake__list_remove(&watch->link);
    cake__free(node->alloc, watch);
}

static int stop_any_watch(void *arg)
{
    cake_watch_t *watch = arg;
    watch->stop(watch);
    return 0;
}

void cake_watch_stop(cake_watch_t *watch)
{
    if (watch != NULL)
        (void)cake__run_on_loop(watch->env, stop_any_watch, watch);
}

static int add_watch(void *arg)
{
    cake__node_watch_t *watch = arg;
    cake_node_t *node = watch->node;
    if (cake__node_is_stopping(node))
        return CAKE_ECLOSED;
    for (size_t i = 0; i < node->told_count && !watch->is_stopped; i++) {
        if (is_live(&node->told[i]))
            watch->fn(watch->arg, CAKE_MEMBER_JOINED, &node->told[i]);
    }
    cake__list_push_back(&node->watches, &watch->link);
    return 0;
}

int cake_node_watch(cake_node_t *node, cake_membership_fn fn, void *arg, cake_watch_t **out)
{
    cake__node_watch_t *watch = cake__calloc(node->alloc, 1, sizeof *watch);
    *out = NULL;
    if (watch == NULL)
        return CAKE_ENOMEM;
    *watch = (cake__node_watch_t){.base = {node->env, stop_watch}, .node = node, .fn = fn, .arg = arg};
    cake__list_init(&watch->link);
    int err = cake__run_on_loop(node->env, add_watch, watch);
    if (err != 0)
        cake__free(node->alloc, watch);
    else
        *out = &watch->base;
    return err;
}

/* One blocked cake_node_wait_for; lives on its caller's stack. */
typedef struct {
    cake__list_t link; /* first: waits are passed around by it */
    cake_node_t *node;
    const uint16_t *ids;
    size_t count;
    uint64_t timeout_ms;
    cake_timer_t timer;
    cake_gate_t gate;
    int result;
} wait_t;

static void end_wait(cake_node_t *node, void *arg, int result)
{
    wait_t *wait = arg;
    wait->result = result;
    cake__list_remove(&wait->link);
    node->env->ops->timer_cancel(node->env, &wait->timer);
    node->env->ops->gate_open(node->env, &wait->gate);
}

static bool is_wait_over(const cake_node_t *node, const wait_t *wait)
{
    for (size_t i = 0; i < wait->count; i++) {
        size_t at = find_told(node, wait->ids[i]);
        if (at == node->told_count || node->told[at].node_id != wait->ids[i] || node->told[at].status != CAKE_ALIVE)
            return false;
    }
    return true;
}

static void check_waits(cake_node_t *node)
{
    CAKE_LIST_FOR_EACH_SAFE(link, &node->waits)
    {
        if (is_wait_over(node, CAKE_CONTAINER_OF(link, wait_t, link)))
            end_wait(node, link, 0);
    }
}

static void on_wait_timeout(void *arg)
{
    wait_t *wait = arg;
    end_wait(wait->node, wait, CAKE_ETIMEDOUT);
}

static int begin_wait(void *arg)
{
    wait_t *wait = arg;
    cake_node_t *node = wait->node;
    cake__list_push_back(&node->waits, &wait->link);
    cake__timer_arm_ms(node->env, &wait->timer, wait->timeout_ms);
    if (cake__node_is_stopping(node))
        end_wait(node, wait, CAKE_ECLOSED);
    else if (is_wait_over(node, wait))
        end_wait(node, wait, 0);
    return 0;
}

int cake_node_wait_for(cake_node_t *node, const uint16_t *ids, size_t count, uint64_t timeout_ms)
{
    cake_env_t *env = node->env;
    if (env->ops->on_loop(env))
        return CAKE_EDEADLK;
    wait_t wait = {.node = node, .ids = ids, .count = count, .timeout_ms = timeout_ms};
    cake__list_init(&wait.link);
    wait.timer = CAKE_TIMER_INIT(on_wait_timeout, &wait);
    env->ops->gate_init(env, &wait.gate);
    (void)cake__run_on_loop(env, begin_wait, &wait);
    env->ops->gate_wait(env, &wait.gate);
    env->ops->gate_destroy(env, &wait.gate);
    return wait.result;
}

typedef struct {
    cake_node_t *node;
    cake_member_t *members;
    size_t count;
} members_request_t;

static int list_members(void *arg)
{
    members_request_t *request = arg;
    cake__gossip_member_t member;
    size_t count = 0, cursor = 0;
    if (request->node->state >= CAKE__NODE_CLOSING)
        return CAKE_ECLOSED;
    while (cake__gossip_next_member(request->node->gossip, &cursor, &member))
        count++;
    /* The C library's heap: cake_members_free knows no node. */
    request->members = cake__calloc(&cake__libc_alloc, count, sizeof *request->members);
    if (request->members == NULL)
        return CAKE_ENOMEM;
    cursor = 0;
    while (cake__gossip_next_member(request->node->gossip, &cursor, &member))
        public_record(&member, &request->members[request->count++]);
    return 0;
}

int cake_node_members(cake_node_t *node, cake_member_t **members, size_t *count)
{
    members_request_t request = {.node = node};
    int err = cake__run_on_loop(node->env, list_members, &request);
    *members = request.members;
    *count = request.count;
    return err;
}

void cake_members_free(cake_member_t *members)
{
    cake__free(&cake__libc_alloc, members);
}

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
    if (len > 1000)
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
