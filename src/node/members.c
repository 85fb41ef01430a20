/* What watchers are told of the members, who waits for some, and what can be asked about them.
 *
 * Watchers are told by comparing the gossip core with `told`, so that running out of memory delays what they hear
 * but never loses it: retry_timer compares again. */
#include "node/node.h"

static void check_waits(cake_node_t *node);

/* ---- records ----------------------------------------------------------------------------------------------------- */

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

/* ---- runs -------------------------------------------------------------------------------------------------------- */

static uint32_t run_of(const cake__gossip_who_t *who)
{
    return (uint32_t)cake__load_le(who->nonce, 4) | 1;
}

uint32_t cake__node_run(const cake_node_t *node)
{
    cake__gossip_member_t self;
    cake__gossip_self(node->gossip, &self);
    return run_of(&self.who);
}

bool cake__node_is_run(const cake_node_t *node, uint16_t id, uint32_t run)
{
    cake__gossip_member_t member;
    return cake__gossip_find_member(node->gossip, id, &member) && run_of(&member.who) == run;
}

/* ---- telling watchers -------------------------------------------------------------------------------------------- */

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

const cake_member_t *cake__node_told(const cake_node_t *node, uint16_t id)
{
    size_t at = find_told(node, id);
    return at < node->told_count && node->told[at].node_id == id ? &node->told[at] : NULL;
}

/* The differences between two records of one id, as the events that lead from one to the other. */
static void tell_change(cake_node_t *node, const cake_member_t *before, const cake_member_t *now)
{
    bool was_live = before != NULL && cake__member_is_live(before);
    bool is_new_run = before == NULL || before->generation != now->generation;
    if (was_live && is_new_run) {
        cake_member_t departed = *before;
        departed.status = CAKE_DEAD;
        tell(node, CAKE_MEMBER_LEFT, &departed);
    }
    if (cake__member_is_live(now))
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
    if (!is_known) {
        cake_member_t *told = cake__grow(node->alloc, node->told, node->told_count, &node->told_capacity, sizeof *told);
        if (told == NULL)
            return false;
        node->told = told;
    }
    cake_member_t before = {0};
    if (is_known) {
        before = node->told[at];
    } else {
        memmove(&node->told[at + 1], &node->told[at], (node->told_count - at) * sizeof *node->told);
        node->told_count++;
    }
    node->told[at] = now;
    if (!cake__member_is_live(&now))
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

/* Watchers may publish keys and so step the core: what changes meanwhile is told in a further round. */
void cake__tell_watchers(cake_node_t *node)
{
    if (!node->tell_again || node->is_telling || node->gossip == NULL)
        return;
    node->is_telling = true;
    while (node->tell_again) {
        node->tell_again = false;
        cake__gossip_member_t member;
        bool is_complete = true;
        for (uint32_t next_id = 0; cake__gossip_next_member(node->gossip, &next_id, &member);)
            is_complete &= tell_member(node, &member);
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

void cake__tell_again(void *arg)
{
    cake_node_t *node = arg;
    node->tell_again = true;
    cake__tell_watchers(node);
}

/* ---- watching, waiting, asking ----------------------------------------------------------------------------------- */

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
    for (size_t i = 0; i < node->told_count; i++) {
        if (cake__member_is_live(&node->told[i]))
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
        const cake_member_t *member = cake__node_told(node, wait->ids[i]);
        if (member == NULL || member->status != CAKE_ALIVE)
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
    size_t count = 0;
    if (request->node->state >= CAKE__NODE_CLOSING)
        return CAKE_ECLOSED;
    for (uint32_t next_id = 0; cake__gossip_next_member(request->node->gossip, &next_id, &member);)
        count++;
    /* The C library's heap: cake_members_free knows no node. */
    request->members = cake__calloc(&cake__libc_alloc, count, sizeof *request->members);
    if (request->members == NULL)
        return CAKE_ENOMEM;
    for (uint32_t next_id = 0; cake__gossip_next_member(request->node->gossip, &next_id, &member);)
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

/* ---- the end ----------------------------------------------------------------------------------------------------- */

void cake__waits_close(cake_node_t *node)
{
    while (!cake__list_is_empty(&node->waits))
        end_wait(node, node->waits.next, CAKE_ECLOSED);
}

void cake__watches_close(cake_node_t *node)
{
    CAKE_LIST_FOR_EACH_SAFE(link, &node->watches)
    {
        cake__list_remove(link);
        cake__free(node->alloc, CAKE_CONTAINER_OF(link, cake__node_watch_t, link));
    }
}
