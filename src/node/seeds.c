/* Seeds: names that are looked up again and again, and what is said about them while none has answered.
 *
 * Gossip tells a stranger nothing, so that nobody outside learns of the cluster by it. But people whose node is
 * refused must get to know why, on both sides:
 *
 *      the node that is refused   asks one seed after another by a call, and logs what comes of it      ask_why
 *      the node that refuses      logs who it does not hear, and why                            cake__stranger_heard */
#include <stdio.h>

#include "node/node.h"

#define ASK_FIRST_MS    3000u
#define ASK_AGAIN_MS    10000u
#define ASK_TIMEOUT_MS  2000u
#define SAY_AGAIN_NS    (60000 * CAKE_NS_PER_MS) /* the same about the same seed */
#define STRANGER_NS     (10000 * CAKE_NS_PER_MS) /* least time between two lines about strangers */
#define SEALED_HEAD_LEN 4u

/* ---- names ------------------------------------------------------------------------------------------------------- */

int cake__seeds_copy(cake_node_t *node, const cake_node_config_t *config)
{
    if (config->seed_count > CAKE__NODE_SEEDS_MAX)
        return CAKE_ETOOBIG;
    node->seeds = cake__calloc(node->alloc, config->seed_count, sizeof *node->seeds);
    if (node->seeds == NULL)
        return CAKE_ENOMEM;
    for (size_t i = 0; i < config->seed_count; i++) {
        const char *colon = config->seeds[i] == NULL ? NULL : strrchr(config->seeds[i], ':');
        if (colon == NULL || colon == config->seeds[i] || colon[1] == '\0')
            return CAKE_EPARSE;
        node->seeds[i] = (cake__seed_t){.node = node, .text = cake__strdup(node->alloc, config->seeds[i])};
        if (node->seeds[i].text == NULL)
            return CAKE_ENOMEM;
        node->seed_count = i + 1;
    }
    return 0;
}

static void give_seeds(cake_node_t *node)
{
    cake_addr_t addrs[CAKE__NODE_SEEDS_MAX];
    size_t count = 0;
    /* The first address of each comes first, so that one name with many does not push the others out. */
    for (size_t round = 0; round < CAKE__SEED_ADDRS_MAX; round++) {
        for (size_t i = 0; i < node->seed_count && count < CAKE__NODE_SEEDS_MAX; i++) {
            if (round < node->seeds[i].addr_count)
                addrs[count++] = node->seeds[i].addrs[round];
        }
    }
    cake__membership_seeds(node, addrs, count);
}

static bool are_same(const cake__seed_t *seed, const cake_addr_t *addrs, size_t count)
{
    bool are_equal = seed->addr_count == count;
    for (size_t i = 0; i < count && are_equal; i++)
        are_equal = cake_addr_equal(&seed->addrs[i], &addrs[i]);
    return are_equal;
}

static void on_seed_resolved(void *arg, int err, const cake_addr_t *addrs, size_t count)
{
    cake__seed_t *seed = arg;
    seed->resolve = NULL;
    if (err != 0 || count == 0) {
        if (!seed->is_missing)
            cake__log(seed->node->log, CAKE_LOG_WARN, "seed %s has no address: %s; it is looked up again every %u s",
                      seed->text, cake_strerror(err), CAKE__SEED_RESOLVE_MS / 1000);
        seed->is_missing = true;
        return;
    }
    seed->is_missing = false;
    count = cake__min_u64(count, CAKE__SEED_ADDRS_MAX);
    if (are_same(seed, addrs, count))
        return;
    memcpy(seed->addrs, addrs, count * sizeof *addrs);
    seed->addr_count = count;
    give_seeds(seed->node);
}

/* Names are looked up again and again: a seed may come back elsewhere. */
static void resolve_seeds(void *arg)
{
    cake_node_t *node = arg;
    bool has_names = false;
    for (size_t i = 0; i < node->seed_count; i++) {
        cake__seed_t *seed = &node->seeds[i];
        if (cake_addr_parse(seed->text, &seed->addrs[0]) == 0) {
            seed->addr_count = 1;
            continue;
        }
        has_names = true;
        if (seed->resolve == NULL)
            (void)node->env->ops->resolve(node->env, seed->text, on_seed_resolved, seed, &seed->resolve);
    }
    if (has_names)
        cake__timer_arm_ms(node->env, &node->resolve_timer, CAKE__SEED_RESOLVE_MS);
}

static bool is_of_a_member(const cake_node_t *node, const cake_addr_t *addr)
{
    char text[CAKE_ADDR_TEXT_MAX];
    cake_addr_format(addr, text);
    for (size_t i = 0; i < node->told_count; i++) {
        const cake_member_t *member = &node->told[i];
        if (cake__member_is_live(member) && strcmp(member->address, text) == 0)
            return true;
    }
    return cake_addr_equal(addr, &node->listen_addr);
}

bool cake__node_seeds_are_members(const cake_node_t *node)
{
    for (size_t i = 0; i < node->seed_count; i++) {
        const cake__seed_t *seed = &node->seeds[i];
        if (seed->addr_count == 0)
            return false;
        for (size_t k = 0; k < seed->addr_count; k++) {
            if (!is_of_a_member(node, &seed->addrs[k]))
                return false;
        }
    }
    return true;
}

/* ---- while no seed has answered ---------------------------------------------------------------------------------- */

static void say_why(cake_node_t *node, const char *text, const char *why)
{
    cake__refusal_t *refusal = &node->refusal;
    uint64_t now_ns = cake__now_ns(node->env);
    char said[sizeof refusal->said];
    snprintf(said, sizeof said, "%s: %s", text, why);
    if (strcmp(said, refusal->said) == 0 && now_ns - refusal->said_ns < SAY_AGAIN_NS)
        return;
    refusal->said_ns = now_ns;
    memcpy(refusal->said, said, sizeof said);
    cake__log(node->log, CAKE_LOG_WARN, "no seed has answered yet; seed %s", said);
}

static bool is_self(cake_node_t *node, cake_slice_t body)
{
    cake__gossip_who_t who;
    cake__gossip_member_t self;
    cake__gossip_self(node->gossip, &self);
    return cake__who_read(body, &who) && memcmp(who.nonce, self.who.nonce, sizeof who.nonce) == 0;
}

static bool has_joined(const cake_node_t *node)
{
    cake__gossip_counters_t counters;
    cake__gossip_counters(node->gossip, &counters);
    return counters.has_joined;
}

static void end_question(cake_node_t *node)
{
    cake_channel_t *channel = node->refusal.channel;
    node->refusal.channel = NULL; /* first: its call may still end, and finds nothing left to close */
    if (channel == NULL)
        return;
    cake__node_closing(node);
    int err = cake__channel_close(channel, cake__node_closed, node);
    CAKE_ASSERT(err == 0);
}

static void on_answer(cake_reply_t *reply, void *arg)
{
    cake_node_t *node = arg;
    cake__refusal_t *refusal = &node->refusal;
    int err = cake_reply_err(reply);
    bool is_over = node->state >= CAKE__NODE_LEAVING || has_joined(node);
    if (!is_over && err == 0 && !is_self(node, cake_reply_body(reply)))
        say_why(node, refusal->seed,
                "it answers calls, but not the gossip: is UDP let through to that port, and has it the "
                "same cluster key?");
    else if (!is_over && err != 0)
        say_why(node, refusal->seed, cake_reply_message(reply));
    cake_reply_free(reply);
    end_question(node);
}

/* The next address that is not ours; NULL: there is none. */
static const cake_addr_t *next_seed(cake_node_t *node)
{
    for (size_t i = 0; i < node->seed_count * CAKE__SEED_ADDRS_MAX; i++) {
        size_t at = node->refusal.next++ % (node->seed_count * CAKE__SEED_ADDRS_MAX);
        const cake__seed_t *seed = &node->seeds[at / CAKE__SEED_ADDRS_MAX];
        const cake_addr_t *addr = &seed->addrs[at % CAKE__SEED_ADDRS_MAX];
        bool is_ours = cake_addr_equal(addr, &node->public_addr) || cake_addr_equal(addr, &node->listen_addr);
        if (at % CAKE__SEED_ADDRS_MAX < seed->addr_count && !is_ours)
            return addr;
    }
    return NULL;
}

static void ask_why(void *arg)
{
    cake_node_t *node = arg;
    cake__refusal_t *refusal = &node->refusal;
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    options.timeout_ms = ASK_TIMEOUT_MS;
    if (has_joined(node))
        return;
    const cake_addr_t *addr = next_seed(node);
    cake__timer_arm_ms(node->env, &refusal->timer, ASK_AGAIN_MS);
    if (addr == NULL || refusal->channel != NULL)
        return;
    refusal->channel = cake__channel_make(node, addr, refusal->seed);
    if (refusal->channel == NULL)
        return;
    int err =
        cake_channel_call_async(refusal->channel, CAKE__GOSSIP_PING_PATH, NULL, 0, &options, on_answer, node, NULL);
    if (err != 0)
        end_question(node); /* no memory: it is asked again */
}

/* ---- strangers --------------------------------------------------------------------------------------------------- */

static const char *why_strange(cake_node_t *node, cake_slice_t frame)
{
    uint8_t plain[CAKE__GOSSIP_DATAGRAM_MAX];
    const char *head = frame.data;
    bool has_keys = node->keys.count > 0, is_sealed = frame.len > SEALED_HEAD_LEN && memcmp(head, "DS", 2) == 0;
    if (has_keys && !is_sealed)
        return "its gossip is plain, and this node has a cluster key";
    if (!has_keys && is_sealed)
        return "its gossip is sealed with a cluster key, and this node has none";
    if (!has_keys)
        return "it belongs to another cluster";
    cake__gossip_sealer_t sealer = cake__node_sealer(&node->keys);
    cake_slice_t box = cake__slice(head + SEALED_HEAD_LEN, frame.len - SEALED_HEAD_LEN);
    bool is_open = frame.len <= sizeof plain && sealer.open(sealer.ctx, box, plain);
    return is_open ? "it belongs to another cluster with the same key" : "it has another cluster key";
}

void cake__stranger_heard(cake_node_t *node, const cake_addr_t *from, cake_slice_t frame)
{
    cake__refusal_t *refusal = &node->refusal;
    uint64_t now_ns = cake__now_ns(node->env);
    char text[CAKE_ADDR_TEXT_MAX], more[64] = "";
    if (refusal->stranger_ns != 0 && now_ns - refusal->stranger_ns < STRANGER_NS) {
        refusal->strangers++;
        return;
    }
    if (refusal->strangers > 0)
        snprintf(more, sizeof more, " (and %llu other frames of strangers)", (unsigned long long)refusal->strangers);
    refusal->stranger_ns = now_ns;
    refusal->strangers = 0;
    cake_addr_format(from, text);
    cake__log(node->log, CAKE_LOG_WARN, "%s is not heard: %s%s", text, why_strange(node, frame), more);
}

/* ---- start and stop ---------------------------------------------------------------------------------------------- */

void cake__seeds_start(cake_node_t *node)
{
    node->resolve_timer = CAKE_TIMER_INIT(resolve_seeds, node);
    node->refusal.timer = CAKE_TIMER_INIT(ask_why, node);
    resolve_seeds(node);
    give_seeds(node);
    if (node->seed_count > 0)
        cake__timer_arm_ms(node->env, &node->refusal.timer, ASK_FIRST_MS);
}

void cake__seeds_close(cake_node_t *node)
{
    cake_env_t *env = node->env;
    env->ops->timer_cancel(env, &node->resolve_timer);
    env->ops->timer_cancel(env, &node->refusal.timer);
    for (size_t i = 0; i < node->seed_count; i++) {
        if (node->seeds[i].resolve != NULL)
            env->ops->resolve_cancel(node->seeds[i].resolve);
        node->seeds[i].resolve = NULL;
    }
    end_question(node);
}

void cake__seeds_free(cake_node_t *node)
{
    for (size_t i = 0; i < node->seed_count; i++)
        cake__free(node->alloc, node->seeds[i].text);
    cake__free(node->alloc, node->seeds);
}
