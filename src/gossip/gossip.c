/* gossip.c: the step: one event in, actions out. What is due is done in every step, whatever the event was, in a fixed
 * order; member changes are told last. */
#include <xxhash.h>

#include "gossip/state.h"

/* ---- create and free --------------------------------------------------------------------------------------------- */

#define DEFAULT(field, value)                                                                                          \
    if (params->field == 0)                                                                                            \
    params->field = (value)

static void set_defaults(cake__gossip_params_t *params)
{
    DEFAULT(rings, 6);
    DEFAULT(ping_period_ms, 1000);
    DEFAULT(ping_timeout_ms, 300);
    DEFAULT(helpers, 3);
    DEFAULT(suspect_after_ms, 3000);
    DEFAULT(suspect_phi, 8);
    DEFAULT(suspicion_max_ms, 9000);
    DEFAULT(suspicion_min_ms, 3000);
    DEFAULT(confirmations, 2);
    DEFAULT(suspicion_others_ms, 18000);
    DEFAULT(last_ping_ms, 1000);
    DEFAULT(late_ms, 500);
    DEFAULT(withhold_ms, 10000);
    DEFAULT(rumour_ms, 200);
    DEFAULT(rumour_fanout, 3);
    DEFAULT(sync_period_ms, 1000);
    DEFAULT(sync_fanout, 3);
    DEFAULT(seed_period_ms, 10000);
    DEFAULT(join_retry_min_ms, 200);
    DEFAULT(join_retry_max_ms, 1000);
    DEFAULT(dead_try, 0.2);
    DEFAULT(flap_count, 3);
    DEFAULT(flap_window_ms, 60000);
    DEFAULT(degraded_min_ms, 5000);
    DEFAULT(degraded_max_ms, 60000);
    DEFAULT(dead_retention_ms, 900000);
    DEFAULT(left_retention_ms, 3600000);
    DEFAULT(tombstone_ms, 3600000);
    DEFAULT(leave_ms, 2000);
    DEFAULT(members_max, 8192);
}

static bool are_valid(const cake__gossip_params_t *params)
{
    return params->rings <= GOSSIP_RINGS_MAX && params->helpers <= GOSSIP_RINGS_MAX &&
           params->rumour_fanout <= GOSSIP_RINGS_MAX && params->sync_fanout <= GOSSIP_RINGS_MAX &&
           params->confirmations < GOSSIP_ACCUSERS_MAX && params->flap_count >= 2 &&
           params->flap_count <= GOSSIP_FLAPS_MAX && params->suspicion_min_ms <= params->suspicion_max_ms &&
           params->ping_timeout_ms < params->ping_period_ms;
}

static bool is_name(const char *name)
{
    return name != NULL && cake__is_name(cake__slice_str(name), CAKE__GOSSIP_NAME_MAX);
}

static bool make_parts(cake__gossip_t *gossip, const cake__gossip_config_t *config)
{
    cake__gossip_who_t who = {.node_id = config->node_id, .generation = config->generation};
    memcpy(who.nonce, config->nonce, sizeof who.nonce);
    gossip->cluster_id = cake__strdup(gossip->alloc, config->cluster_id);
    if (gossip->cluster_id == NULL || !cake__buf_reserve(&gossip->frame, CAKE__GOSSIP_DATAGRAM_MAX))
        return false;
    gossip->frame.max = cake__gossip_frame_max(gossip, CAKE__GOSSIP_DATAGRAM_MAX);
    return cake__gossip_peer_add(gossip, &who, &config->addr, cake__slice_str(config->data_center),
                                 CAKE__GOSSIP_ALIVE) != NULL;
}

static const cake__gossip_peer_t *timer_owner(const cake__heap_node_t *node)
{
    const void *owner = (const char *)node - offsetof(cake__gossip_peer_t, timer);
    return owner;
}

static bool timer_before(const cake__heap_node_t *a, const cake__heap_node_t *b)
{
    const cake__gossip_peer_t *x = timer_owner(a), *y = timer_owner(b);
    return x->due_ns != y->due_ns ? x->due_ns < y->due_ns : x->who.node_id < y->who.node_id;
}

int cake__gossip_new(const cake__gossip_config_t *config, uint64_t now_ns, cake__gossip_t **out)
{
    *out = NULL;
    cake__gossip_params_t params = config->params;
    set_defaults(&params);
    bool has_addr = (config->addr.family == 4 || config->addr.family == 6) && config->addr.port != 0;
    if (config->node_id == 0 || !has_addr || !is_name(config->data_center) || !is_name(config->cluster_id) ||
        !are_valid(&params) || config->generation >= GOSSIP_GENERATION_MAX)
        return CAKE_EINVAL;
    const cake_alloc_t *alloc = cake__alloc_or_default(config->alloc);
    cake__gossip_t *gossip = cake__calloc(alloc, 1, sizeof *gossip);
    if (gossip == NULL)
        return CAKE_ENOMEM;
    gossip->alloc = alloc;
    gossip->log = config->log;
    gossip->params = params;
    gossip->sealer = config->sealer;
    gossip->born = config->generation;
    gossip->now_ns = gossip->started_ns = now_ns;
    gossip->join_retry_ms = params.join_retry_min_ms;
    gossip->next_join_ns = CAKE__GOSSIP_NEVER;
    cake__random_init(&gossip->random, config->seed ^ cake__mix64(config->node_id));
    gossip->next_sync_ns = now_ns + cake__random_below(&gossip->random, cake__gossip_ms(params.sync_period_ms));
    gossip->seq = cake__random_u64(&gossip->random) >> 8; /* not to be guessed by who has not seen our pings */
    gossip->cookie_secret = cake__random_u64(&gossip->random);
    gossip->cluster_hash = XXH3_64bits(config->cluster_id, strlen(config->cluster_id));
    cake__heap_init(&gossip->timers, timer_before);
    cake__list_init(&gossip->rumours);
    cake__list_init(&gossip->changes);
    cake__list_init(&gossip->garbage);
    cake__buf_init(&gossip->arena, alloc);
    cake__buf_init(&gossip->frame, alloc);
    cake__buf_init(&gossip->opened, alloc);
    if (!make_parts(gossip, config)) {
        cake__gossip_free(gossip);
        return CAKE_ENOMEM;
    }
    gossip->due_ns = gossip->next_sync_ns;
    *out = gossip;
    return 0;
}

static void free_garbage(cake__gossip_t *gossip, cake__list_t *list)
{
    for (cake__list_t *node; (node = cake__list_pop_front(list)) != NULL;)
        cake__gossip_peer_free(gossip, CAKE_CONTAINER_OF(node, cake__gossip_peer_t, change_link));
}

void cake__gossip_free(cake__gossip_t *gossip)
{
    if (gossip == NULL)
        return;
    free_garbage(gossip, &gossip->garbage);
    CAKE_LIST_FOR_EACH_SAFE(node, &gossip->changes)
    {
        cake__gossip_peer_t *peer = CAKE_CONTAINER_OF(node, cake__gossip_peer_t, change_link);
        cake__list_remove(node);
        if (peer->is_gone)
            cake__gossip_peer_free(gossip, peer);
    }
    for (size_t i = 0; i < gossip->member_count; i++)
        cake__gossip_peer_free(gossip, gossip->members[i]);
    cake__buf_free(&gossip->frame);
    cake__buf_free(&gossip->opened);
    cake__buf_free(&gossip->arena);
    cake__free(gossip->alloc, gossip->actions);
    cake__free(gossip->alloc, gossip->stale);
    cake__free(gossip->alloc, gossip->dead);
    cake__free(gossip->alloc, gossip->live);
    cake__free(gossip->alloc, gossip->members);
    cake__free(gossip->alloc, gossip->cluster_id);
    cake__free(gossip->alloc, gossip);
}

/* ---- actions ----------------------------------------------------------------------------------------------------- */

cake__gossip_action_t *cake__gossip_act(cake__gossip_t *gossip, cake__gossip_action_kind_t kind)
{
    void *grown = cake__grow(gossip->alloc, gossip->actions, gossip->action_count, &gossip->action_capacity,
                             sizeof gossip->actions[0]);
    if (grown == NULL) {
        gossip->err = CAKE_ENOMEM;
        return NULL;
    }
    gossip->actions = grown;
    cake__gossip_action_t *action = &gossip->actions[gossip->action_count++];
    *action = (cake__gossip_action_t){.kind = kind};
    return action;
}

static void finish_actions(cake__gossip_t *gossip)
{
    cake__gossip_tell_changes(gossip);
    if (gossip->is_isolated != gossip->is_isolated_told) {
        cake__gossip_action_t *action = cake__gossip_act(gossip, CAKE__GOSSIP_ISOLATED);
        if (action != NULL)
            action->is_isolated = gossip->is_isolated_told = gossip->is_isolated;
    }
    size_t at = 0; /* the arena has stopped moving */
    for (size_t i = 0; i < gossip->action_count; i++) {
        cake__gossip_action_t *action = &gossip->actions[i];
        if (action->kind != CAKE__GOSSIP_SEND && action->kind != CAKE__GOSSIP_STREAM)
            continue;
        action->send.frame.data = gossip->arena.data + at;
        at += action->send.frame.len;
    }
    CAKE_ASSERT(at == gossip->arena.len);
}

/* ---- what is due ------------------------------------------------------------------------------------------------- */

static void run_timers(cake__gossip_t *gossip)
{
    for (;;) {
        cake__heap_node_t *least = cake__heap_least(&gossip->timers);
        if (least == NULL)
            return;
        cake__gossip_peer_t *peer = CAKE_CONTAINER_OF(least, cake__gossip_peer_t, timer);
        if (peer->due_ns > gossip->now_ns)
            return;
        cake__gossip_peer_timer(gossip, peer);
    }
}

static void run_due(cake__gossip_t *gossip)
{
    if (gossip->is_over)
        return;
    if (gossip->is_leaving) {
        cake__gossip_leave_run(gossip);
        return;
    }
    cake__gossip_claim_run(gossip);
    cake__gossip_join_run(gossip);
    cake__gossip_edges_run(gossip);
    run_timers(gossip);
    cake__gossip_sync_run(gossip);
    cake__gossip_rumours_run(gossip);
}

static uint64_t next_due(const cake__gossip_t *gossip)
{
    if (gossip->is_over)
        return CAKE__GOSSIP_NEVER;
    if (gossip->is_leaving)
        return cake__min_u64(gossip->leave_next_ns, gossip->leave_until_ns);
    uint64_t due_ns = cake__min_u64(gossip->next_sync_ns, cake__gossip_rumours_due(gossip));
    due_ns = cake__min_u64(due_ns, cake__gossip_edges_due(gossip));
    if (gossip->claim.is_active)
        due_ns = cake__min_u64(due_ns, gossip->claim.next_ns);
    else
        due_ns = cake__min_u64(due_ns, gossip->next_join_ns);
    const cake__heap_node_t *least = cake__heap_least(&gossip->timers);
    if (least != NULL)
        due_ns = cake__min_u64(due_ns, timer_owner(least)->due_ns);
    return due_ns;
}

/* We were not there for a while (a stopped process, a starved loop): the silence was ours. Whatever ran in the gap is
 * moved on by it, and until answers had time to come back nobody is accused. */
static void notice_gap(cake__gossip_t *gossip)
{
    const cake__gossip_params_t *params = &gossip->params;
    if (GOSSIP_MUTANT(no_pause_discount) || gossip->due_ns == CAKE__GOSSIP_NEVER ||
        gossip->now_ns <= gossip->due_ns + cake__gossip_ms(params->late_ms))
        return;
    uint64_t gap_ns = gossip->now_ns - gossip->due_ns;
    gossip->counters.late_ticks++;
    gossip->quiet_until_ns = gossip->now_ns + cake__gossip_ms(params->ping_period_ms + 2 * params->ping_timeout_ms);
    cake__gossip_edges_discount(gossip, gap_ns);
    if (!GOSSIP_MUTANT(discount_edges_only))
        cake__gossip_discount_suspicions(gossip, gap_ns);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

/* Frames that only members may send. */
static void receive_from_member(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from,
                                cake__gossip_peer_t *sender)
{
    bool was_dead = sender->status == CAKE__GOSSIP_DEAD;
    uint16_t sender_id = sender->who.node_id;
    switch (frame->type) {
    case GOSSIP_PINGING:
        cake__gossip_on_ping(gossip, frame, from, sender);
        return; /* the answer says it when it is dead */
    case GOSSIP_ACK:
        cake__gossip_on_ack(gossip, frame, sender);
        return; /* a ping in answer to it would go to and fro for ever, and multiply where datagrams arrive twice */
    case GOSSIP_PING_REQ:
        cake__gossip_on_ping_req(gossip, frame, from, sender);
        break;
    case GOSSIP_SYNC:
        cake__gossip_on_sync(gossip, frame, sender);
        break;
    case GOSSIP_BUCKETS_:
        cake__gossip_on_buckets(gossip, frame, sender);
        break;
    case GOSSIP_DIGEST:
        cake__gossip_on_digest(gossip, frame, sender);
        break;
    default:
        CAKE_ASSERT(frame->type == GOSSIP_RUMOUR || frame->type == GOSSIP_DELTA);
        if (cake__gossip_are_records(frame->body))
            cake__gossip_merge_all(gossip, frame->body,
                                   frame->type == GOSSIP_RUMOUR ? GOSSIP_FROM_RUMOUR : GOSSIP_FROM_SYNC);
        else
            gossip->counters.frames_malformed++;
        break;
    }
    sender = cake__gossip_peer_find(gossip, sender_id);
    if (was_dead && sender != NULL && sender->status == CAKE__GOSSIP_DEAD && !gossip->is_over)
        cake__gossip_ping_now(gossip, sender); /* it talks: let it refute */
}

/* Answered when its sender is no member, or means a run that is no more. What is itself an answer is not. */
static bool wants_answer(cake__gossip_frame_type_t type)
{
    switch (type) {
    case GOSSIP_PINGING:
    case GOSSIP_PING_REQ:
    case GOSSIP_RUMOUR:
    case GOSSIP_SYNC:
    case GOSSIP_BUCKETS_:
    case GOSSIP_DIGEST:
    case GOSSIP_DELTA:
        return true;
    default:
        return false;
    }
}

static void receive(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from)
{
    if (memcmp(frame->from.nonce, gossip->self->who.nonce, sizeof frame->from.nonce) == 0)
        return; /* our own, by another of our addresses */
    cake__gossip_peer_t *sender = cake__gossip_peer_find(gossip, frame->from.node_id);
    bool is_process = sender != NULL && memcmp(sender->who.nonce, frame->from.nonce, sizeof frame->from.nonce) == 0;
    if (is_process && !GOSSIP_MUTANT(no_window) && !cake__gossip_frame_is_new(sender, frame->seq)) {
        gossip->counters.frames_replayed++;
        return;
    }
    bool is_for_us = frame->to == cake__gossip_tag(gossip->self->who.nonce) || GOSSIP_MUTANT(any_addressee);
    if (!is_for_us && frame->type != GOSSIP_JOIN) {
        gossip->counters.frames_unknown++; /* for a run before ours, or for another node that had this address */
        if (wants_answer(frame->type))
            cake__gossip_send_who(gossip, frame, from);
        return;
    }
    bool is_member = sender != NULL && sender != gossip->self && cake__gossip_same_run(&sender->who, &frame->from);
    switch (frame->type) {
    case GOSSIP_JOIN:
        cake__gossip_on_join(gossip, frame, from);
        return;
    case GOSSIP_WELCOME:
        cake__gossip_on_welcome(gossip, frame, from);
        return;
    case GOSSIP_CHALLENGE:
        cake__gossip_on_challenge(gossip, frame);
        return;
    case GOSSIP_HELD:
        cake__gossip_on_held(gossip, frame);
        return;
    case GOSSIP_CLAIM:
        cake__gossip_on_claim(gossip, frame, from);
        return;
    case GOSSIP_WHO:
        cake__gossip_on_who(gossip, frame, from);
        return;
    default:
        break;
    }
    if (is_member) {
        receive_from_member(gossip, frame, from, sender);
        return;
    }
    gossip->counters.frames_unknown++;
    if (!wants_answer(frame->type))
        return;
    if (sender == NULL || (sender != gossip->self && frame->from.generation > sender->who.generation))
        cake__gossip_send_who(gossip, frame, from);
    else
        cake__gossip_answer_held(gossip, frame, from, sender);
}

static void on_received(cake__gossip_t *gossip, const cake__gossip_event_t *event)
{
    cake__gossip_frame_t frame;
    gossip->counters.frames_in++;
    gossip->counters.bytes_in += event->received.frame.len;
    int err = cake__gossip_frame_open(gossip, event->received.frame, event->received.is_stream, &frame);
    if (err == CAKE_ECONFLICT)
        gossip->counters.frames_foreign++;
    else if (err != 0)
        gossip->counters.frames_malformed++;
    else
        receive(gossip, &frame, &event->received.from);
    /* The one that made it a member counts as seen, too. */
    cake__gossip_peer_t *sender = err == 0 ? cake__gossip_peer_find(gossip, frame.from.node_id) : NULL;
    if (sender != NULL && cake__gossip_same_run(&sender->who, &frame.from))
        (void)cake__gossip_frame_is_new(sender, frame.seq);
}

static void on_seeds(cake__gossip_t *gossip, const cake__gossip_event_t *event)
{
    cake__gossip_seed_t before[CAKE__GOSSIP_SEEDS_MAX];
    size_t before_count = gossip->seed_count;
    memcpy(before, gossip->seeds, sizeof before);
    gossip->seed_count = 0;
    for (size_t i = 0; i < event->seeds.count && gossip->seed_count < CAKE__GOSSIP_SEEDS_MAX; i++) {
        const cake_addr_t *addr = &event->seeds.addrs[i];
        bool is_known = addr->family == 0 || cake_addr_equal(addr, &gossip->self->addr);
        for (size_t j = 0; j < gossip->seed_count; j++)
            is_known |= cake_addr_equal(addr, &gossip->seeds[j].addr);
        if (is_known)
            continue;
        cake__gossip_seed_t *seed = &gossip->seeds[gossip->seed_count++];
        *seed = (cake__gossip_seed_t){.addr = *addr};
        for (size_t j = 0; j < before_count; j++)
            if (cake_addr_equal(&before[j].addr, addr))
                *seed = before[j];
    }
    if (!gossip->has_joined)
        gossip->join_retry_ms = gossip->params.join_retry_min_ms;
    if (gossip->seed_count > 0)
        gossip->next_join_ns = gossip->now_ns;
}

static int on_key(cake__gossip_t *gossip, const cake__gossip_event_t *event)
{
    cake__gossip_keys_t *keys = &gossip->self->keys;
    cake_slice_t key = event->key.key, value = event->key.value;
    bool is_deleted = event->kind == CAKE__GOSSIP_DELETE_KEY;
    if (key.len == 0 || key.len > CAKE__GOSSIP_KEY_MAX || gossip->is_over)
        return CAKE_EINVAL;
    if (is_deleted)
        value = cake__slice(NULL, 0);
    if (value.len > CAKE__GOSSIP_VALUE_MAX)
        return CAKE_ETOOBIG;
    const cake__gossip_entry_t *old = cake__gossip_keys_find(keys, key);
    if (is_deleted && (old == NULL || old->is_deleted))
        return CAKE_ENOTFOUND;
    if (!is_deleted && old != NULL && !old->is_deleted &&
        cake__slice_equal(value, cake__slice(old->bytes + old->key_len, old->value_len)))
        return 0; /* nothing to tell */
    int err = cake__gossip_keys_put(keys, gossip->alloc, key, value, is_deleted, keys->max_version + 1, gossip->now_ns);
    if (err == 0) {
        cake__gossip_peer_touch(gossip, gossip->self);
        cake__gossip_sync_soon(gossip);
    }
    return err;
}

static int take_event(cake__gossip_t *gossip, const cake__gossip_event_t *event)
{
    switch (event->kind) {
    case CAKE__GOSSIP_TICK:
        return 0;
    case CAKE__GOSSIP_RECEIVED:
        on_received(gossip, event);
        return 0;
    case CAKE__GOSSIP_SEEDS:
        on_seeds(gossip, event);
        return 0;
    case CAKE__GOSSIP_SET_KEY:
    case CAKE__GOSSIP_DELETE_KEY:
        return on_key(gossip, event);
    case CAKE__GOSSIP_PINGED:
        cake__gossip_last_pinged(gossip, event->pinged.token, event->pinged.is_answered, &event->pinged.answer);
        return 0;
    case CAKE__GOSSIP_LEAVE:
        cake__gossip_leave_start(gossip);
        return 0;
    }
    return CAKE_EINVAL;
}

int cake__gossip_step(cake__gossip_t *gossip, uint64_t now_ns, const cake__gossip_event_t *event,
                      const cake__gossip_action_t **actions, size_t *count)
{
    free_garbage(gossip, &gossip->garbage);
    gossip->action_count = 0;
    gossip->err = 0;
    cake__buf_clear(&gossip->arena);
    gossip->now_ns = cake__max_u64(gossip->now_ns, now_ns);
    int err = 0;
    if (!gossip->is_over) {
        notice_gap(gossip);
        err = take_event(gossip, event);
        run_due(gossip);
    } else if (event->kind == CAKE__GOSSIP_SET_KEY || event->kind == CAKE__GOSSIP_DELETE_KEY) {
        err = CAKE_ECLOSED;
    }
    finish_actions(gossip);
    gossip->due_ns = next_due(gossip);
    gossip->counters.allocations_failed += gossip->err != 0;
    *actions = gossip->actions;
    *count = gossip->action_count;
    return err != 0 ? err : gossip->err;
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

uint64_t cake__gossip_deadline(const cake__gossip_t *gossip)
{
    return gossip->due_ns;
}

bool cake__gossip_next_member(const cake__gossip_t *gossip, uint32_t *next_id, cake__gossip_member_t *out)
{
    size_t i = *next_id > UINT16_MAX ? gossip->member_count : cake__gossip_peer_index(gossip, (uint16_t)*next_id);
    if (i == gossip->member_count)
        return false;
    cake__gossip_peer_view(gossip, gossip->members[i], out);
    *next_id = (uint32_t)out->who.node_id + 1;
    return true;
}

bool cake__gossip_find_member(const cake__gossip_t *gossip, uint16_t node_id, cake__gossip_member_t *out)
{
    const cake__gossip_peer_t *peer = cake__gossip_peer_find(gossip, node_id);
    if (peer == NULL)
        return false;
    cake__gossip_peer_view(gossip, peer, out);
    return true;
}

void cake__gossip_self(const cake__gossip_t *gossip, cake__gossip_member_t *out)
{
    cake__gossip_peer_view(gossip, gossip->self, out);
}

void cake__gossip_counters(const cake__gossip_t *gossip, cake__gossip_counters_t *out)
{
    *out = gossip->counters;
    out->live = (uint32_t)gossip->live_count + 1;
    out->suspect = (uint32_t)gossip->suspect_count;
    out->dead = (uint32_t)gossip->dead_count;
    out->left = (uint32_t)gossip->left_count;
    out->is_isolated = gossip->is_isolated;
    out->has_joined = gossip->has_joined;
}

uint64_t cake__gossip_digest(const cake__gossip_t *gossip)
{
    return cake__gossip_state_hash(gossip);
}
