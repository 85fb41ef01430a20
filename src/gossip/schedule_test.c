/* Random schedules: what may happen to a cluster is drawn from a seed as a list of operations, the list is run, and
 * after each operation the promises of docs/membership.md are looked at. A list that breaks one is made shorter for
 * as long as it breaks one, and is printed with the command that runs it again.
 *
 *      storm   writes, deletes, loss, partitions, one-way cuts, pauses, crashes, restarts, goodbyes; then all heals
 *      calm    loss up to 25%, short pauses, writes, restarts, goodbyes, a second process of an id: no other may die;
 *              at the end one node crashes together with all that observe it
 *
 * CAKE_GOSSIP_SEEDS: how many seeds; CAKE_GOSSIP_FIRST: from which on; CAKE_GOSSIP_SEED: this one alone. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "gossip/state.h"
#include "gossip/virtual.h"

#define NODES_MAX   12u
#define KEYS        8u
#define OPS_MAX     80u
#define SHRINKS_MAX 400 /* runs to make a list shorter */

/* ---- schedules --------------------------------------------------------------------------------------------------- */

#define OPS(X)                                                                                                         \
    X(WRITE)                                                                                                           \
    X(DELETE)                                                                                                          \
    X(CRASH)                                                                                                           \
    X(START)                                                                                                           \
    X(LEAVE)                                                                                                           \
    X(PAUSE)                                                                                                           \
    X(GROUP)                                                                                                           \
    X(HEAL)                                                                                                            \
    X(DEAF)                                                                                                            \
    X(LOSS)                                                                                                            \
    X(TWIN)                                                                                                            \
    X(WAIT)

typedef enum op_kind {
#define KIND(name) OP_##name,
    OPS(KIND)
#undef KIND
} op_kind_t;

static const char *const op_names[] = {
#define NAME(name) #name,
    OPS(NAME)
#undef NAME
};

typedef struct op {
    op_kind_t kind;
    uint32_t node, arg, then_ms; /* what then_ms passes after it */
} op_t;

typedef struct schedule {
    uint64_t seed;
    bool is_calm;
    uint32_t nodes, tombstone_ms, delay_ms;
    op_t ops[OPS_MAX];
    size_t count;
} schedule_t;

static op_kind_t draw_kind(cake__random_t *random, bool is_calm)
{
    static const op_kind_t storm[] = {OP_WRITE, OP_WRITE, OP_WRITE, OP_WRITE, OP_DELETE, OP_DELETE, OP_CRASH,
                                      OP_START, OP_START, OP_START, OP_LEAVE, OP_PAUSE,  OP_GROUP,  OP_GROUP,
                                      OP_HEAL,  OP_DEAF,  OP_LOSS,  OP_WAIT,  OP_DELETE, OP_HEAL};
    static const op_kind_t calm[] = {OP_WRITE, OP_WRITE, OP_DELETE, OP_LOSS,  OP_PAUSE, OP_CRASH,
                                     OP_START, OP_LEAVE, OP_TWIN,   OP_START, OP_WAIT,  OP_WAIT};
    return is_calm ? calm[cake__random_below(random, CAKE_COUNT_OF(calm))]
                   : storm[cake__random_below(random, CAKE_COUNT_OF(storm))];
}

static void draw_schedule(schedule_t *schedule, uint64_t seed)
{
    cake__random_t random;
    cake__random_init(&random, seed);
    *schedule = (schedule_t){.seed = seed, .is_calm = seed % 3 == 0, .count = OPS_MAX};
    schedule->nodes = 3 + (uint32_t)cake__random_below(&random, NODES_MAX - 2);
    schedule->tombstone_ms = 1000 + (uint32_t)cake__random_below(&random, 20000);
    schedule->delay_ms = 1 + (uint32_t)cake__random_below(&random, 100);
    if (schedule->is_calm)
        schedule->count /= 2;
    for (size_t i = 0; i < schedule->count; i++) {
        op_t *op = &schedule->ops[i];
        op->kind = draw_kind(&random, schedule->is_calm);
        op->node = (uint32_t)cake__random_below(&random, schedule->nodes);
        op->arg = (uint32_t)cake__random_u64(&random);
        op->then_ms = (uint32_t)cake__random_below(&random, schedule->is_calm ? 4000 : 3000);
    }
}

/* ---- what has to hold -------------------------------------------------------------------------------------------- */

static char violation[200]; /* the first; empty: none */
static const schedule_t *running;

/* [viewer][subject]: what was seen of a run */
typedef struct seen {
    uint64_t generation, gc_version, max_version;
    uint8_t nonce[CAKE__GOSSIP_NONCE_LEN];
    bool has_left;
} seen_t;
static seen_t seen[NODES_MAX + 1][NODES_MAX + 2];
static uint32_t own_refutation[NODES_MAX + 1]; /* the highest of its run, as of its last step that was looked at */
static cake__gossip_who_t own_run[NODES_MAX + 1];

static void violate(const virtual_t *cluster, const char *what)
{
    if (violation[0] == '\0')
        snprintf(violation, sizeof violation, "at %.3f s: %s", (double)cluster->now_ns / 1e9, what);
}

#define DEMAND(cluster, condition)                                                                                     \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            violate(cluster, #condition);                                                                              \
    } while (0)

static void on_member(virtual_t *cluster, uint32_t node, cake__gossip_change_t change,
                      const cake__gossip_member_t *member)
{
    seen_t *past = &seen[node][member->who.node_id];
    bool is_same = past->has_left && past->generation == member->who.generation;
    if (change == CAKE__GOSSIP_DEPARTED) {
        past->has_left = true;
        past->generation = member->who.generation;
    }
    bool who_has_left_is_suspected = is_same && (change == CAKE__GOSSIP_SUSPECTED || change == CAKE__GOSSIP_DIED);
    DEMAND(cluster, !who_has_left_is_suspected);                               /* property 9 */
    if (running->is_calm && cluster->false_deaths > 0 && violation[0] == '\0') /* 6 */
        snprintf(violation, sizeof violation, "at %.3f s: node %u holds %u for dead, which is well",
                 (double)cluster->now_ns / 1e9, node + 1, member->who.node_id);
}

/* Property 1: what a viewer holds of an owner's keys is the owner's map as far as it goes; property 2: so nothing
 * that was deleted is there. */
static void check_prefix(virtual_t *cluster, const cake__gossip_keys_t *view, const cake__gossip_keys_t *own)
{
    DEMAND(cluster, view->max_version <= own->max_version && view->gc_version <= own->gc_version);
    for (size_t i = 0; i < own->count; i++) {
        const cake__gossip_entry_t *entry = own->entries[i];
        if (entry->version > view->max_version)
            break;
        cake_slice_t key = cake__slice(entry->bytes, entry->key_len);
        const cake__gossip_entry_t *copy = cake__gossip_keys_find(view, key);
        if (entry->is_deleted) {
            bool is_deleted_there = copy == NULL || copy->is_deleted;
            DEMAND(cluster, is_deleted_there);
        } else {
            bool is_equal_there = copy != NULL && copy->version == entry->version &&
                                  copy->value_len == entry->value_len &&
                                  memcmp(copy->bytes, entry->bytes, (size_t)entry->key_len + entry->value_len) == 0;
            DEMAND(cluster, is_equal_there);
        }
    }
}

static void check_view(virtual_t *cluster, uint32_t viewer, uint32_t subject)
{
    const cake__gossip_peer_t *peer =
        cake__gossip_peer_find(cluster->nodes[viewer].gossip, cluster->nodes[subject].who.node_id);
    const virtual_node_t *node = &cluster->nodes[subject];
    seen_t *past = &seen[viewer][node->who.node_id];
    if (peer == NULL)
        return;
    DEMAND(cluster, peer->who.generation >= past->generation); /* 5: an old generation never comes back */
    bool is_same = past->generation == peer->who.generation && /* else another run may have been there in between */
                   memcmp(past->nonce, peer->who.nonce, sizeof past->nonce) == 0;
    if (is_same) /* 1 */
        DEMAND(cluster, peer->keys.gc_version > past->gc_version ||
                            (peer->keys.gc_version == past->gc_version && peer->keys.max_version >= past->max_version));
    past->gc_version = peer->keys.gc_version;
    past->max_version = peer->keys.max_version;
    past->has_left = past->has_left && past->generation == peer->who.generation;
    past->generation = peer->who.generation;
    memcpy(past->nonce, peer->who.nonce, sizeof past->nonce);
    bool is_own_run =
        peer->who.generation == own_run[subject].generation && /* two in a row may have had one generation */
        memcmp(peer->who.nonce, own_run[subject].nonce, sizeof peer->who.nonce) == 0;
    if (is_own_run) /* 5: only the subject raises it */
        DEMAND(cluster, peer->refutation <= own_refutation[subject]);
    if (node->is_up && memcmp(peer->who.nonce, node->who.nonce, sizeof node->who.nonce) == 0)
        check_prefix(cluster, &peer->keys, &node->gossip->self->keys);
}

static void note_own(const virtual_t *cluster, uint32_t index)
{
    if (!cluster->nodes[index].is_up)
        return;
    own_refutation[index] = cluster->nodes[index].gossip->self->refutation;
    own_run[index] = cluster->nodes[index].gossip->self->who;
}

static void crash(virtual_t *cluster, uint32_t index)
{
    note_own(cluster, index);
    virtual_crash(cluster, index);
}

static void check(virtual_t *cluster)
{
    for (uint32_t i = 0; i < running->nodes; i++)
        note_own(cluster, i);
    for (uint32_t i = 0; i < running->nodes; i++)
        for (uint32_t j = 0; j < running->nodes; j++)
            if (i != j && cluster->nodes[i].is_up && cluster->nodes[j].who.node_id != 0)
                check_view(cluster, i, j);
    DEMAND(cluster, cluster->largest_datagram <= CAKE__GOSSIP_DATAGRAM_MAX); /* 4 */
}

static bool are_keys_equal(virtual_t *cluster, uint32_t viewer, uint32_t owner)
{
    const cake__gossip_peer_t *own = cluster->nodes[owner].gossip->self;
    const cake__gossip_peer_t *view = cake__gossip_peer_find(cluster->nodes[viewer].gossip, own->who.node_id);
    return view != NULL && view->keys.max_version == own->keys.max_version &&
           view->keys.gc_version == own->keys.gc_version && view->keys.count == own->keys.count;
}

static bool is_converged(virtual_t *cluster)
{
    if (!virtual_all_see_all(cluster) || !virtual_all_equal(cluster))
        return false;
    for (uint32_t i = 0; i < running->nodes; i++)
        for (uint32_t j = 0; j < running->nodes; j++)
            if (cluster->nodes[i].is_up && cluster->nodes[j].is_up && !are_keys_equal(cluster, i, j))
                return false;
    return true;
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static void start(virtual_t *cluster, uint32_t index)
{
    memset(seen[index], 0, sizeof seen[index]);
    virtual_start(cluster, index, 2);
}

static void restart(virtual_t *cluster, uint32_t index, uint32_t arg)
{
    virtual_node_t *node = &cluster->nodes[index];
    node->who.generation += arg % 4 == 0 && !running->is_calm ? -(uint64_t)100 : 50;
    if (arg / 4 % 4 == 0)
        node->addr = virtual_addr(index * 32 + arg / 16 % 32);
    start(cluster, index);
}

static void write_key(virtual_t *cluster, const op_t *op, bool is_delete)
{
    static uint8_t value[CAKE__GOSSIP_VALUE_MAX];
    static const size_t sizes[] = {8, 8, 40, 40, 300, 300, 1000, 5000, CAKE__GOSSIP_VALUE_MAX};
    char key[16];
    snprintf(key, sizeof key, "k%u", op->arg % KEYS);
    if (is_delete) {
        (void)virtual_delete(cluster, op->node, key);
        return;
    }
    memcpy(value, &op->arg, sizeof op->arg);
    int err = virtual_set(cluster, op->node, key, cake__slice(value, sizes[op->arg / KEYS % CAKE_COUNT_OF(sizes)]));
    DEMAND(cluster, err == 0);
}

static void leave(virtual_t *cluster, uint32_t index)
{
    virtual_node_t *node = &cluster->nodes[index];
    (void)virtual_step(cluster, index, &(cake__gossip_event_t){.kind = CAKE__GOSSIP_LEAVE});
    virtual_run(cluster, 2100 * VIRTUAL_MS);
    DEMAND(cluster, node->has_left);
    crash(cluster, index);
}

/* Another process with the id of a node that has been there for a while: it is refused, and everyone hears of it. */
static void start_twin(virtual_t *cluster, const op_t *op)
{
    uint32_t spare = running->nodes;
    virtual_node_t *twin = &cluster->nodes[spare], *original = &cluster->nodes[op->node];
    twin->who.node_id = original->who.node_id;
    twin->who.generation = original->who.generation + op->arg % 3;
    uint64_t reported[NODES_MAX];
    bool is_news = original->duplicates_seen == 0; /* else it may have been told a moment ago, and is not told again */
    for (uint32_t i = 0; i < running->nodes; i++)
        reported[i] = cluster->nodes[i].duplicates_seen;
    virtual_start(cluster, spare, 2);
    for (int i = 0; i < 100 && !twin->is_refused; i++)
        virtual_run(cluster, 100 * VIRTUAL_MS);
    virtual_run(cluster, 8 * VIRTUAL_SECOND);
    DEMAND(cluster, twin->is_refused && !original->is_refused);
    for (uint32_t i = 0; i < running->nodes; i++) {
        bool was_told = cluster->nodes[i].duplicates_seen > reported[i];
        if (cluster->nodes[i].is_up && is_news)
            DEMAND(cluster, was_told); /* 9 */
    }
    virtual_crash(cluster, spare);
    twin->who.node_id = 0;
}

static void disturb(virtual_t *cluster, const op_t *op)
{
    virtual_node_t *node = &cluster->nodes[op->node];
    switch (op->kind) {
    case OP_PAUSE: /* not one into another: no longer than it says */
        if (node->paused_until_ns <= cluster->now_ns)
            node->paused_until_ns = cluster->now_ns + op->arg % (running->is_calm ? 4000 : 20000) * VIRTUAL_MS;
        return;
    case OP_GROUP:
        node->group = (int)(op->arg % 3);
        return;
    case OP_HEAL:
        for (uint32_t i = 0; i < running->nodes; i++)
            cluster->nodes[i].group = 0;
        return;
    case OP_DEAF:
        node->is_deaf = !node->is_deaf;
        return;
    case OP_LOSS:
        cluster->loss = (double)(op->arg % 26) / 100;
        return;
    default:
        return;
    }
}

static uint32_t count_up(const virtual_t *cluster)
{
    uint32_t up = 0;
    for (uint32_t i = 0; i < running->nodes; i++)
        up += cluster->nodes[i].is_up;
    return up;
}

static void apply(virtual_t *cluster, const op_t *op)
{
    virtual_node_t *node = &cluster->nodes[op->node];
    bool is_there = node->is_up && node->paused_until_ns <= cluster->now_ns;
    bool is_last_seed = op->node < 2 && !cluster->nodes[1 - op->node].is_up; /* who starts then finds nobody */
    bool may_go = is_there && (!running->is_calm || (count_up(cluster) > 3 && !is_last_seed));
    switch (op->kind) {
    case OP_WRITE:
    case OP_DELETE:
        if (is_there)
            write_key(cluster, op, op->kind == OP_DELETE);
        break;
    case OP_START:
        if (!node->is_up)
            restart(cluster, op->node, op->arg);
        break;
    case OP_CRASH:
        if (may_go)
            crash(cluster, op->node);
        break;
    case OP_LEAVE:
        if (may_go)
            leave(cluster, op->node);
        break;
    case OP_TWIN: /* who starts a moment before may be unknown to those that it asks */
        if (is_there && cluster->now_ns - node->gossip->started_ns + node->zero_ns > 10 * VIRTUAL_SECOND)
            start_twin(cluster, op);
        break;
    default:
        disturb(cluster, op);
        break;
    }
}

/* ---- a run ------------------------------------------------------------------------------------------------------- */

static void heal_all(virtual_t *cluster)
{
    cluster->loss = 0;
    for (uint32_t i = 0; i < running->nodes; i++) {
        cluster->nodes[i].group = 0;
        cluster->nodes[i].is_deaf = false;
        if (!cluster->nodes[i].is_up)
            restart(cluster, i, 1);
    }
    /* Names are looked up again: the seeds may all have come back elsewhere, and nobody else would know where. */
    cake_addr_t seeds[] = {cluster->nodes[0].addr, cluster->nodes[1].addr};
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_SEEDS, .seeds = {.addrs = seeds, .count = 2}};
    for (uint32_t i = 0; i < running->nodes; i++)
        (void)virtual_step(cluster, i, &event);
}

/* Property 8: one view, and nobody dies any more. */
static void end_storm(virtual_t *cluster)
{
    for (uint32_t i = 0; i < running->nodes; i++) /* nobody refused a restart as a stranger's */
        DEMAND(cluster, !cluster->nodes[i].is_refused);
    virtual_run(cluster, 20 * VIRTUAL_SECOND);
    heal_all(cluster);
    DEMAND(cluster, virtual_until(cluster, is_converged, 90 * VIRTUAL_SECOND));
    uint64_t died = cluster->died;
    virtual_run(cluster, 20 * VIRTUAL_SECOND);
    DEMAND(cluster, is_converged(cluster));
    DEMAND(cluster, cluster->died == died);
}

/* Property 7: who crashes is DEAD everywhere, also when all that observe it crash together with it. */
static void end_calm(virtual_t *cluster)
{
    uint32_t victim = (uint32_t)cake__random_below(&cluster->random, running->nodes);
    cake__gossip_member_t member;
    bool goes[NODES_MAX] = {false};
    virtual_run(cluster, 10 * VIRTUAL_SECOND);
    for (uint32_t i = 0; i < running->nodes && running->nodes > 8; i++)
        goes[i] = cluster->nodes[i].is_up &&
                  cake__gossip_find_member(cluster->nodes[i].gossip, cluster->nodes[victim].who.node_id, &member) &&
                  member.is_observed;
    goes[victim] = cluster->nodes[victim].is_up;
    for (uint32_t i = 0; i < running->nodes; i++)
        if (goes[i] && count_up(cluster) > 2)
            crash(cluster, i);
    DEMAND(cluster, virtual_until(cluster, virtual_all_see_all, 90 * VIRTUAL_SECOND));
    cluster->loss = 0;
    DEMAND(cluster, virtual_until(cluster, is_converged, 30 * VIRTUAL_SECOND));
}

/* NULL when all promises were kept. */
static const char *run(const schedule_t *schedule)
{
    virtual_t cluster;
    running = schedule;
    violation[0] = '\0';
    memset(seen, 0, sizeof seen);
    memset(own_refutation, 0, sizeof own_refutation);
    memset(own_run, 0, sizeof own_run);
    virtual_init(&cluster, schedule->nodes + 1, schedule->seed);
    cluster.nodes[schedule->nodes].who.node_id = 0; /* room for a twin */
    cluster.params.tombstone_ms = schedule->tombstone_ms;
    cluster.duplication = 0.05;
    cluster.delay_max_ns = schedule->delay_ms * VIRTUAL_MS;
    cluster.is_sealed = schedule->seed % 5 == 0;
    cluster.on_member = on_member;
    for (uint32_t i = 0; i < schedule->nodes; i++)
        start(&cluster, i);
    virtual_run(&cluster, schedule->is_calm ? 3 * VIRTUAL_SECOND : 0);
    for (size_t i = 0; i < schedule->count && violation[0] == '\0'; i++) {
        if (schedule->ops[i].node < schedule->nodes)
            apply(&cluster, &schedule->ops[i]);
        virtual_run(&cluster, schedule->ops[i].then_ms * VIRTUAL_MS);
        check(&cluster);
    }
    if (violation[0] == '\0')
        (schedule->is_calm ? end_calm : end_storm)(&cluster);
    if (violation[0] == '\0')
        check(&cluster);
    virtual_free(&cluster);
    return violation[0] == '\0' ? NULL : violation;
}

/* ---- shrinking --------------------------------------------------------------------------------------------------- */

/* The same promise, at whatever time. */
static bool breaks(const schedule_t *schedule, const char *what)
{
    return run(schedule) != NULL && strncmp(strchr(violation, ':'), strchr(what, ':'), 7) == 0;
}

/* Takes out ever smaller parts of the list while what is left still breaks a promise; then nodes; then time. */
static void shrink(schedule_t *schedule, const char *what)
{
    int runs = 0;
    for (size_t part = schedule->count / 2; part >= 1; part /= 2) {
        for (size_t at = 0; at < schedule->count && runs < SHRINKS_MAX;) {
            schedule_t less = *schedule;
            size_t gone = part < less.count - at ? part : less.count - at;
            memmove(less.ops + at, less.ops + at + gone, (less.count - at - gone) * sizeof less.ops[0]);
            less.count -= gone;
            runs++;
            if (breaks(&less, what))
                *schedule = less;
            else
                at += gone;
        }
    }
    while (schedule->nodes > 3 && runs++ < SHRINKS_MAX) {
        schedule_t less = *schedule;
        less.nodes--;
        if (!breaks(&less, what))
            break;
        *schedule = less;
    }
    for (size_t i = 0; i < schedule->count && runs < SHRINKS_MAX; i++) {
        schedule_t less = *schedule;
        less.ops[i].then_ms = 0;
        runs++;
        if (breaks(&less, what))
            *schedule = less;
    }
}

static void report(const schedule_t *whole)
{
    schedule_t schedule = *whole;
    char first[sizeof violation];
    memcpy(first, violation, sizeof first);
    shrink(&schedule, first);
    const char *what = run(&schedule);
    print_error("seed %llu (%s) broke a promise %s\n", (unsigned long long)schedule.seed,
                schedule.is_calm ? "calm" : "storm", first);
    print_error("with %zu of its operations and %u nodes %s:\n", schedule.count, schedule.nodes, what);
    for (size_t i = 0; i < schedule.count; i++) {
        const op_t *op = &schedule.ops[i];
        print_error("    %-6s node %-2u arg %-10u then %u ms\n", op_names[op->kind], op->node + 1, op->arg,
                    op->then_ms);
    }
    print_error("again: CAKE_GOSSIP_SEED=%llu gossip-schedule\n", (unsigned long long)schedule.seed);
}

static void on_abort(int number)
{
    char line[64];
    int len = snprintf(line, sizeof line, "in seed %llu\n", (unsigned long long)running->seed);
    (void)number;
    if (write(STDERR_FILENO, line, (size_t)len) < 0)
        _exit(2);
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

static void schedules_keep_every_promise(void **state)
{
    schedule_t schedule;
    uint64_t seed = number_from("CAKE_GOSSIP_SEED", number_from("CAKE_GOSSIP_FIRST", 1));
    uint64_t count = getenv("CAKE_GOSSIP_SEED") != NULL ? 1 : number_from("CAKE_GOSSIP_SEEDS", 1000), failed = 0;
    signal(SIGABRT, on_abort);
    for (uint64_t end = seed + count; seed < end && failed < number_from("CAKE_GOSSIP_FAILURES", 1); seed++) {
        draw_schedule(&schedule, seed);
        if (run(&schedule) == NULL)
            continue;
        failed++;
        report(&schedule);
    }
    assert_int_equal(failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(schedules_keep_every_promise)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
