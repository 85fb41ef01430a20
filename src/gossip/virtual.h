/* virtual.h: a cluster of membership cores in virtual time, for tests and benchmarks: no sockets, no clocks, no
 * threads. Everything that happens is drawn from one seed, so that a seed that fails, fails again.
 *
 *      queue: (time, order) -> datagram arrives | stream | a ping over RPC comes back | tick
 *
 * Faults: loss, duplication, delay (and with it reordering), partitions by group, one-way cuts, pauses of a process,
 * crashes, restarts, allocations that fail. Each node has a clock of its own, with a random zero. */
#ifndef CAKE_GOSSIP_VIRTUAL_H
#define CAKE_GOSSIP_VIRTUAL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "gossip/gossip.h"

#define VIRTUAL_MS           UINT64_C(1000000)
#define VIRTUAL_SECOND       (1000 * VIRTUAL_MS)
#define VIRTUAL_SOCKET_QUEUE 256 /* datagrams that wait while a process is paused */

typedef enum virtual_kind { VIRTUAL_DATAGRAM, VIRTUAL_STREAM, VIRTUAL_PINGED } virtual_kind_t;

/* What arrives at a node; the heap holds only when, so that its moves are cheap. */
typedef struct virtual_item {
    virtual_kind_t kind;
    uint32_t node, run;
    cake_addr_t from;
    cake__gossip_event_t pinged;
    size_t len;
    uint8_t data[];
} virtual_item_t;

typedef struct virtual_due {
    uint64_t time_ns, order;
    virtual_item_t *item; /* NULL: a tick of node */
    uint32_t node, run;
} virtual_due_t;

typedef struct virtual_node {
    cake__gossip_t *gossip;
    cake_addr_t addr;
    cake__gossip_who_t who;
    const char *data_center;
    uint64_t keys[2]; /* the first seals, both open */
    uint64_t boxes;
    bool is_up, is_refused, has_left, is_isolated;
    uint32_t run;
    int group;        /* of the partition */
    bool is_deaf;     /* receives nothing */
    uint64_t zero_ns; /* of its clock */
    uint64_t paused_until_ns;
    uint64_t excused_until_ns; /* until then its death is no error: it was paused, or cut off */
    uint64_t tick_ns;          /* the tick that is queued */
    uint32_t waiting;          /* datagrams during a pause */
    uint64_t isolated_at_ns, duplicates_seen;
    uint64_t bytes_out;
} virtual_node_t;

typedef struct virtual virtual_t;
typedef void (*virtual_member_fn)(virtual_t *cluster, uint32_t node, cake__gossip_change_t change,
                                  const cake__gossip_member_t *member);

struct virtual
{
    uint64_t seed, now_ns, orders;
    cake__random_t random;
    virtual_node_t *nodes;
    uint32_t count;
    virtual_due_t *heap;
    size_t heap_len, heap_capacity;
    uint32_t looked_at, looked_for; /* where virtual_all_see_all found somebody missing */

    double loss, duplication;
    uint64_t delay_min_ns, delay_max_ns;
    cake__gossip_params_t params;
    const cake_alloc_t *alloc;
    const char *cluster_id;
    bool is_sealed; /* the nodes that start from now on */

    virtual_member_fn on_member;
    void *arg;
    uint64_t died, false_deaths, largest_datagram, streams, steps;
    bool (*is_datagram_lost)(virtual_t * cluster, uint32_t from, uint32_t to, cake_slice_t frame);
};

/* ---- the queue --------------------------------------------------------------------------------------------------- */

static inline bool virtual__before(const virtual_due_t *a, const virtual_due_t *b)
{
    return a->time_ns != b->time_ns ? a->time_ns < b->time_ns : a->order < b->order;
}

static inline virtual_item_t *virtual__item(virtual_kind_t kind, const void *data, size_t len)
{
    virtual_item_t *item = malloc(sizeof *item + len);
    CAKE_ASSERT(item != NULL);
    memset(item, 0, sizeof *item);
    item->kind = kind;
    item->len = len;
    if (len > 0)
        memcpy(item->data, data, len);
    return item;
}

static inline void virtual__push(virtual_t *cluster, uint64_t time_ns, uint32_t node, virtual_item_t *to)
{
    virtual_due_t item = {.time_ns = time_ns, .item = to, .node = node, .run = cluster->nodes[node].run};
    if (cluster->heap_len == cluster->heap_capacity) {
        cluster->heap_capacity = cluster->heap_capacity == 0 ? 1024 : cluster->heap_capacity * 2;
        cluster->heap = realloc(cluster->heap, cluster->heap_capacity * sizeof cluster->heap[0]);
        CAKE_ASSERT(cluster->heap != NULL);
    }
    item.order = cluster->orders++;
    size_t at = cluster->heap_len++;
    while (at > 0 && virtual__before(&item, &cluster->heap[(at - 1) / 2])) {
        cluster->heap[at] = cluster->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    cluster->heap[at] = item;
}

static inline virtual_due_t virtual__pop(virtual_t *cluster)
{
    virtual_due_t top = cluster->heap[0], last = cluster->heap[--cluster->heap_len];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= cluster->heap_len)
            break;
        if (child + 1 < cluster->heap_len && virtual__before(&cluster->heap[child + 1], &cluster->heap[child]))
            child++;
        if (!virtual__before(&cluster->heap[child], &last))
            break;
        cluster->heap[at] = cluster->heap[child];
        at = child;
    }
    cluster->heap[at] = last;
    return top;
}

/* ---- the network ------------------------------------------------------------------------------------------------- */

/* The address number n: 10.x.y.z, 32 addresses per node so that a node may come back elsewhere. */
static inline cake_addr_t virtual_addr(uint32_t n)
{
    cake_addr_t addr = {.family = 4, .port = 7000};
    addr.ip[0] = 10;
    addr.ip[1] = (uint8_t)(n >> 16);
    addr.ip[2] = (uint8_t)(n >> 8);
    addr.ip[3] = (uint8_t)n;
    return addr;
}

static inline virtual_node_t *virtual__at(virtual_t *cluster, const cake_addr_t *addr)
{
    uint32_t first = ((uint32_t)addr->ip[1] << 16 | (uint32_t)addr->ip[2] << 8 | addr->ip[3]) / 32;
    if (first < cluster->count && cake_addr_equal(&cluster->nodes[first].addr, addr))
        return &cluster->nodes[first];
    for (uint32_t i = 0; i < cluster->count; i++) /* one that took another's address */
        if (cluster->nodes[i].is_up && cake_addr_equal(&cluster->nodes[i].addr, addr))
            return &cluster->nodes[i];
    return NULL;
}

static inline uint64_t virtual__delay(virtual_t *cluster)
{
    return cluster->delay_min_ns +
           cake__random_below(&cluster->random, cluster->delay_max_ns - cluster->delay_min_ns + 1);
}

static inline bool virtual__is_lost(virtual_t *cluster)
{
    return cake__random_unit(&cluster->random) < cluster->loss;
}

static inline void virtual__send(virtual_t *cluster, uint32_t from, const cake__gossip_action_t *action)
{
    bool is_stream = action->kind == CAKE__GOSSIP_STREAM;
    virtual_node_t *to = virtual__at(cluster, &action->send.to), *sender = &cluster->nodes[from];
    if (is_stream)
        cluster->streams++;
    else if (action->send.frame.len > cluster->largest_datagram)
        cluster->largest_datagram = action->send.frame.len;
    sender->bytes_out += action->send.frame.len;
    if (to == NULL || to->group != sender->group || to->is_deaf)
        return;
    uint32_t index = (uint32_t)(to - cluster->nodes);
    if (cluster->is_datagram_lost != NULL && cluster->is_datagram_lost(cluster, from, index, action->send.frame))
        return;
    bool is_doubled = cake__random_unit(&cluster->random) < cluster->duplication;
    for (int copy = 0; copy < (is_doubled && !is_stream ? 2 : 1); copy++) {
        if (!is_stream && virtual__is_lost(cluster))
            continue;
        virtual_item_t *item = virtual__item(is_stream ? VIRTUAL_STREAM : VIRTUAL_DATAGRAM, action->send.frame.data,
                                             action->send.frame.len);
        item->from = sender->addr;
        virtual__push(cluster, cluster->now_ns + virtual__delay(cluster), index, item);
    }
}

/* Over a reliable stream: a lost packet costs time, a silent peer the time-out, a closed port answers at once. */
static inline void virtual__ping(virtual_t *cluster, uint32_t from, const cake__gossip_action_t *action)
{
    virtual_node_t *to = virtual__at(cluster, &action->ping.to), *sender = &cluster->nodes[from];
    virtual_item_t *item = virtual__item(VIRTUAL_PINGED, NULL, 0);
    uint64_t took_ns = 2 * virtual__delay(cluster);
    while (virtual__is_lost(cluster))
        took_ns += 200 * VIRTUAL_MS;
    bool is_reachable = to != NULL && to->group == sender->group && !to->is_deaf;
    bool is_paused = to != NULL && to->paused_until_ns > cluster->now_ns;
    item->pinged.kind = CAKE__GOSSIP_PINGED;
    item->pinged.pinged.token = action->ping.token;
    item->pinged.pinged.is_answered =
        is_reachable && to->is_up && !to->is_refused && !is_paused && took_ns < VIRTUAL_SECOND;
    if (item->pinged.pinged.is_answered)
        item->pinged.pinged.answer = to->who;
    else if (!is_reachable || is_paused)
        took_ns = VIRTUAL_SECOND;
    virtual__push(cluster, cluster->now_ns + took_ns, from, item);
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static inline virtual_node_t *virtual_by_id(virtual_t *cluster, uint16_t node_id)
{
    return node_id >= 1 && node_id <= cluster->count ? &cluster->nodes[node_id - 1] : NULL;
}

static inline void virtual__member(virtual_t *cluster, uint32_t index, const cake__gossip_action_t *action)
{
    const cake__gossip_member_t *member = &action->member.member;
    const virtual_node_t *node = &cluster->nodes[index], *subject = virtual_by_id(cluster, member->who.node_id);
    if (action->member.change == CAKE__GOSSIP_DIED) {
        cluster->died++;
        bool is_healthy = subject != NULL && subject->is_up && subject->group == node->group && !subject->is_deaf &&
                          subject->paused_until_ns <= cluster->now_ns && subject->excused_until_ns <= cluster->now_ns &&
                          node->excused_until_ns <= cluster->now_ns &&
                          subject->who.generation == member->who.generation;
        cluster->false_deaths += is_healthy;
    }
    if (cluster->on_member != NULL)
        cluster->on_member(cluster, index, action->member.change, member);
}

static inline void virtual__act(virtual_t *cluster, uint32_t index, const cake__gossip_action_t *action)
{
    virtual_node_t *node = &cluster->nodes[index];
    switch (action->kind) {
    case CAKE__GOSSIP_SEND:
    case CAKE__GOSSIP_STREAM:
        virtual__send(cluster, index, action);
        break;
    case CAKE__GOSSIP_PING:
        virtual__ping(cluster, index, action);
        break;
    case CAKE__GOSSIP_MEMBER:
        virtual__member(cluster, index, action);
        break;
    case CAKE__GOSSIP_DUPLICATE:
        node->duplicates_seen++;
        node->is_refused |= action->duplicate.is_self_refused;
        break;
    case CAKE__GOSSIP_ISOLATED:
        node->is_isolated = action->is_isolated;
        if (node->is_isolated)
            node->isolated_at_ns = cluster->now_ns;
        break;
    case CAKE__GOSSIP_LEAVE_DONE:
        node->has_left = true;
        break;
    }
}

static inline int virtual_step(virtual_t *cluster, uint32_t index, const cake__gossip_event_t *event)
{
    virtual_node_t *node = &cluster->nodes[index];
    const cake__gossip_action_t *actions;
    size_t count;
    CAKE_ASSERT(node->is_up);
    cluster->steps++;
    int err = cake__gossip_step(node->gossip, node->zero_ns + cluster->now_ns, event, &actions, &count);
    for (size_t i = 0; i < count; i++)
        virtual__act(cluster, index, &actions[i]);
    cake__gossip_member_t self;
    cake__gossip_self(node->gossip, &self);
    node->who = self.who;
    uint64_t due_ns = cake__gossip_deadline(node->gossip);
    if (due_ns == CAKE__GOSSIP_NEVER)
        return err;
    due_ns = due_ns < node->zero_ns + cluster->now_ns ? cluster->now_ns : due_ns - node->zero_ns;
    if (due_ns >= node->tick_ns && node->tick_ns > cluster->now_ns)
        return err;
    node->tick_ns = due_ns;
    virtual__push(cluster, due_ns, index, NULL);
    return err;
}

static inline void virtual__deliver(virtual_t *cluster, virtual_due_t *due)
{
    virtual_node_t *node = &cluster->nodes[due->node];
    virtual_item_t *item = due->item;
    bool is_frame = item != NULL && item->kind != VIRTUAL_PINGED;
    if (!node->is_up || (node->run != due->run && !is_frame)) {
        free(item);
        return;
    }
    if (node->paused_until_ns > cluster->now_ns) {
        if (is_frame && node->waiting++ >= VIRTUAL_SOCKET_QUEUE) {
            free(item);
            return;
        }
        if (item != NULL)
            item->pinged.pinged.is_answered = false; /* its own time-out is what it sees first */
        virtual__push(cluster, node->paused_until_ns, due->node, item);
        return;
    }
    node->waiting = 0;
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_TICK};
    if (is_frame) {
        event.kind = CAKE__GOSSIP_RECEIVED;
        event.received.from = item->from;
        event.received.frame = cake__slice(item->data, item->len);
        event.received.is_stream = item->kind == VIRTUAL_STREAM;
    } else if (item != NULL) {
        event = item->pinged;
    } else if (due->time_ns >= node->tick_ns) {
        node->tick_ns = 0;
    }
    (void)virtual_step(cluster, due->node, &event);
    free(item);
}

/* ---- keys: not secret at all, but as strict about what was altered ----------------------------------------------- */

static inline void virtual__mask(uint64_t key, uint64_t nonce, const uint8_t *from, size_t len, uint8_t *to)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)(from[i] ^ cake__mix64(key ^ nonce ^ (i / 8)) >> (8 * (i % 8)));
}

static inline uint64_t virtual__tag(uint64_t key, const uint8_t *bytes, size_t len)
{
    uint64_t tag = key;
    for (size_t i = 0; i < len; i++)
        tag = cake__mix64(tag ^ bytes[i]) + i;
    return tag;
}

static inline bool virtual__seal(void *ctx, cake_slice_t plain, uint8_t *out)
{
    virtual_node_t *node = ctx;
    memset(out, 0, 12);
    memcpy(out, &(uint64_t){++node->boxes}, 8);
    virtual__mask(node->keys[0], node->boxes, plain.data, plain.len, out + 12);
    uint64_t tag = virtual__tag(node->keys[0], out, 12 + plain.len), again = ~tag;
    memcpy(out + 12 + plain.len, &tag, 8);
    memcpy(out + 20 + plain.len, &again, 8);
    return true;
}

static inline bool virtual__open(void *ctx, cake_slice_t box, uint8_t *out)
{
    virtual_node_t *node = ctx;
    const uint8_t *bytes = box.data;
    size_t len = box.len - 16;
    uint64_t tag, again, nonce;
    memcpy(&nonce, bytes, 8);
    memcpy(&tag, bytes + len, 8);
    memcpy(&again, bytes + len + 8, 8);
    for (size_t i = 0; i < 2; i++) {
        if (virtual__tag(node->keys[i], bytes, len) != tag || again != ~tag)
            continue;
        virtual__mask(node->keys[i], nonce, bytes + 12, len - 12, out);
        return true;
    }
    return false;
}

/* ---- the cluster ------------------------------------------------------------------------------------------------- */

static inline void virtual_init(virtual_t *cluster, uint32_t count, uint64_t seed)
{
    *cluster = (virtual_t){.seed = seed,
                           .count = count,
                           .delay_min_ns = VIRTUAL_MS / 5,
                           .delay_max_ns = 2 * VIRTUAL_MS,
                           .cluster_id = "test"};
    cake__random_init(&cluster->random, seed);
    cluster->nodes = calloc(count, sizeof cluster->nodes[0]);
    CAKE_ASSERT(cluster->nodes != NULL);
    for (uint32_t i = 0; i < count; i++) {
        virtual_node_t *node = &cluster->nodes[i];
        node->addr = virtual_addr(i * 32);
        node->who.node_id = (uint16_t)(i + 1);
        node->data_center = i % 2 == 0 ? "east" : "west";
        node->who.generation = 1000 + cake__random_below(&cluster->random, 1000);
    }
}

static inline void virtual_crash(virtual_t *cluster, uint32_t index)
{
    virtual_node_t *node = &cluster->nodes[index];
    cake__gossip_free(node->gossip);
    node->gossip = NULL;
    node->is_up = false;
    node->run++;
}

static inline void virtual_free(virtual_t *cluster)
{
    for (uint32_t i = 0; i < cluster->count; i++)
        virtual_crash(cluster, i);
    for (size_t i = 0; i < cluster->heap_len; i++)
        free(cluster->heap[i].item);
    free(cluster->heap);
    free(cluster->nodes);
}

/* Starts (or restarts) a node with the generation in its who, and the first seed_count nodes as seeds. */
static inline void virtual_start(virtual_t *cluster, uint32_t index, uint32_t seed_count)
{
    virtual_node_t *node = &cluster->nodes[index];
    CAKE_ASSERT(!node->is_up);
    cake__gossip_config_t config = {.alloc = cluster->alloc,
                                    .node_id = node->who.node_id,
                                    .generation = node->who.generation,
                                    .addr = node->addr,
                                    .data_center = node->data_center,
                                    .cluster_id = cluster->cluster_id,
                                    .seed = cake__random_u64(&cluster->random),
                                    .params = cluster->params};
    if (cluster->is_sealed)
        config.sealer = (cake__gossip_sealer_t){virtual__seal, virtual__open, node};
    for (size_t i = 0; i < sizeof config.nonce; i++)
        config.nonce[i] = (uint8_t)cake__random_u64(&cluster->random);
    memcpy(node->who.nonce, config.nonce, sizeof config.nonce);
    node->zero_ns = cake__random_below(&cluster->random, UINT64_C(1) << 50);
    node->tick_ns = 0;
    node->is_refused = node->has_left = node->is_isolated = false;
    node->paused_until_ns = 0;
    node->run++;
    int err = cake__gossip_new(&config, node->zero_ns + cluster->now_ns, &node->gossip);
    CAKE_ASSERT(err == 0);
    node->is_up = true;
    cake_addr_t seeds[CAKE__GOSSIP_SEEDS_MAX];
    CAKE_ASSERT(seed_count <= CAKE__GOSSIP_SEEDS_MAX);
    for (uint32_t i = 0; i < seed_count; i++)
        seeds[i] = cluster->nodes[i].addr;
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_SEEDS};
    event.seeds.addrs = seeds;
    event.seeds.count = seed_count;
    (void)virtual_step(cluster, index, &event);
}

static inline void virtual_run(virtual_t *cluster, uint64_t for_ns)
{
    uint64_t end_ns = cluster->now_ns + for_ns;
    while (cluster->heap_len > 0 && cluster->heap[0].time_ns <= end_ns) {
        virtual_due_t due = virtual__pop(cluster);
        cluster->now_ns = due.time_ns;
        virtual__deliver(cluster, &due);
    }
    cluster->now_ns = end_ns;
}

/* Runs until the condition holds, looked at every 10 ms; false when it does not within limit_ns. */
static inline bool virtual_until(virtual_t *cluster, bool (*holds)(virtual_t *), uint64_t limit_ns)
{
    for (uint64_t end_ns = cluster->now_ns + limit_ns; cluster->now_ns < end_ns;) {
        if (holds(cluster))
            return true;
        virtual_run(cluster, 10 * VIRTUAL_MS);
    }
    return holds(cluster);
}

static inline cake__gossip_status_t virtual_status(virtual_t *cluster, uint32_t viewer, uint32_t subject)
{
    cake__gossip_member_t member;
    uint16_t node_id = cluster->nodes[subject].who.node_id;
    if (!cake__gossip_find_member(cluster->nodes[viewer].gossip, node_id, &member))
        return CAKE__GOSSIP_LEFT;
    return member.status;
}

static inline bool virtual__sees(virtual_t *cluster, uint32_t viewer, uint32_t subject)
{
    const virtual_node_t *from = &cluster->nodes[viewer], *to = &cluster->nodes[subject];
    cake__gossip_status_t status = virtual_status(cluster, viewer, subject);
    return to->is_up && from->group == to->group ? status == CAKE__GOSSIP_ALIVE : status >= CAKE__GOSSIP_DEAD;
}

/* Every node that is up holds every other one of its partition ALIVE, and those that are not up not ALIVE. Begins
 * where it was not so the last time. */
static inline bool virtual_all_see_all(virtual_t *cluster)
{
    for (uint32_t i = 0; i <= cluster->count; i++) {
        uint32_t viewer = (cluster->looked_at + i) % cluster->count;
        uint32_t first = i == 0 ? cluster->looked_for % cluster->count : 0;
        for (uint32_t j = first; j < cluster->count && cluster->nodes[viewer].is_up; j++) {
            if (virtual__sees(cluster, viewer, j))
                continue;
            cluster->looked_at = viewer;
            cluster->looked_for = j;
            return false;
        }
    }
    return true;
}

static inline bool virtual_all_equal(virtual_t *cluster)
{
    uint64_t digest = 0;
    bool is_first = true;
    for (uint32_t i = 0; i < cluster->count; i++) {
        if (!cluster->nodes[i].is_up)
            continue;
        uint64_t own = cake__gossip_digest(cluster->nodes[i].gossip);
        if (!is_first && own != digest)
            return false;
        digest = own;
        is_first = false;
    }
    return true;
}

static inline void virtual_start_all(virtual_t *cluster, uint32_t seed_count)
{
    for (uint32_t i = 0; i < cluster->count; i++)
        virtual_start(cluster, i, seed_count);
}

static inline int virtual_set(virtual_t *cluster, uint32_t index, const char *key, cake_slice_t value)
{
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_SET_KEY};
    event.key.key = cake__slice_str(key);
    event.key.value = value;
    return virtual_step(cluster, index, &event);
}

static inline int virtual_delete(virtual_t *cluster, uint32_t index, const char *key)
{
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_DELETE_KEY};
    event.key.key = cake__slice_str(key);
    return virtual_step(cluster, index, &event);
}

#endif
