/* Checker "convergence": once everything is mended all replicas are equal: their contexts, their sets, every row of
 * their disks; and each key shows the greatest write that ever was durable on a disk that is still there (the
 * model's theorem and I1). A delete whose disk is lost may have been heard of before: what a repair killed for it
 * stays away. So no acknowledged write is missing, and nothing that a delete has observed is back. */
#include "sim/sim.h"

#include <stdio.h>

static bool is_quiet(const cake_store_t *store)
{
    return cake__list_is_empty(&store->writes) && store->pulls_running == 0 && cake__list_is_empty(&store->wanting);
}

bool cake__is_converged(cake__trial_t *trial, char *why, size_t size)
{
    const cake_store_t *first = trial->nodes[0]->store;
    for (uint32_t i = 0; i < trial->op_count; i++) {
        if (trial->ops[i]->state != CAKE__OP_PENDING)
            continue;
        snprintf(why, size, "operation %u has not ended", (unsigned)i); /* a slow host may not even have begun it */
        return false;
    }
    for (uint32_t i = 0; i < trial->node_count; i++) {
        cake__trial_node_t *node = trial->nodes[i];
        if (node->state != CAKE__IS_UP) {
            snprintf(why, size, "node %u is not up", (unsigned)node->id);
            return false;
        }
        if (!cake__node_is_ready(node)) {
            snprintf(why, size, "node %u %s", (unsigned)node->id,
                     node->store->is_joined ? "does not know all replicas" : "has not joined");
            return false;
        }
        if (node->store->is_alone) {
            snprintf(why, size, "node %u has not met a majority", (unsigned)node->id);
            return false;
        }
        if (node->store->digest != first->digest) {
            snprintf(why, size, "the contexts of nodes 1 and %u differ", (unsigned)node->id);
            return false;
        }
        if (!is_quiet(node->store)) {
            snprintf(why, size, "node %u has writes or sessions under way", (unsigned)node->id);
            return false;
        }
    }
    return true;
}

bool cake__are_tombstones_gone(cake__trial_t *trial, char *why, size_t size)
{
    for (uint32_t i = 0; i < trial->node_count; i++) {
        const cake__trial_node_t *node = trial->nodes[i];
        cake__keyspace_t *keyspace;
        for (size_t cursor = 0; (keyspace = cake__map_next(&node->store->keyspaces, &cursor)) != NULL;) {
            uint64_t count = cake_orswot_tombstones(keyspace->set);
            if (count == 0)
                continue;
            snprintf(why, size, "node %u still has %llu tombstones in %s", (unsigned)node->id,
                     (unsigned long long)count, keyspace->name);
            return false;
        }
    }
    return true;
}

static cake__stamp_t greatest(const cake__trial_t *trial, size_t at)
{
    cake__stamp_t most = {0};
    for (uint32_t i = 0; i < trial->node_count; i++) {
        const cake__stamp_t *seen = &trial->nodes[i]->disk.seen[at];
        if (cake__stamp_is_above(seen, &most))
            most = *seen;
    }
    return most;
}

static bool is_same(const cake__stamp_t *a, const cake__stamp_t *b)
{
    return a->hlc == b->hlc && a->dot.actor == b->dot.actor && a->dot.seq == b->dot.seq &&
           a->is_tombstone == b->is_tombstone && a->op == b->op;
}

static void check_key(cake__trial_t *trial, cake__trial_node_t *node, uint32_t keyspace, uint32_t key, uint64_t *live)
{
    size_t place = (size_t)keyspace * trial->plan.keys + key;
    cake__stamp_t most = greatest(trial, place), row;
    bool has_row = cake__disk_row(&node->disk, keyspace, key, &row);
    char text[64];
    cake__key_text(key, text);
    *live += has_row && !row.is_tombstone;
    bool is_dead = most.hlc == 0 || most.is_tombstone || trial->deleted[place] > most.hlc;
    if (has_row ? is_same(&row, &most) : is_dead)
        return;
    if (has_row && !row.is_tombstone && most.is_tombstone)
        cake__violation(trial, "resurrection", "%u/%s on node %u is back: %llx (operation %u), deleted at %llx",
                        (unsigned)keyspace, text, node->id, (unsigned long long)row.hlc, row.op,
                        (unsigned long long)most.hlc);
    else
        cake__violation(trial, "convergence", "%u/%s on node %u is %s %llx, and the greatest write is %s %llx",
                        (unsigned)keyspace, text, node->id,
                        !has_row           ? "absent"
                        : row.is_tombstone ? "deleted"
                                           : "live",
                        (unsigned long long)(has_row ? row.hlc : 0), most.is_tombstone ? "a delete" : "a put",
                        (unsigned long long)most.hlc);
}

static void check_stats(cake__trial_t *trial, cake__trial_node_t *node, uint64_t live, uint64_t *fingerprint)
{
    cake_store_stats_t stats;
    int err = cake_store_stats(node->store, &stats);
    if (err != 0 || (trial->options.workload == NULL && stats.live != live))
        cake__violation(trial, "convergence", "node %u counts %llu documents, its disk has %llu", node->id,
                        (unsigned long long)stats.live, (unsigned long long)live);
    if (node == trial->nodes[0])
        *fingerprint = stats.fingerprint;
    else if (stats.fingerprint != *fingerprint)
        cake__violation(trial, "convergence", "the fingerprints of nodes 1 and %u differ", node->id);
    if (stats.replicas != trial->node_count)
        cake__violation(trial, "convergence", "node %u counts %llu replicas of %u", node->id,
                        (unsigned long long)stats.replicas, (unsigned)trial->node_count);
    if (stats.sessions_running != 0)
        cake__violation(trial, "convergence", "node %u has sessions under way that do not end", node->id);
}

void cake__check_final(cake__trial_t *trial)
{
    uint64_t fingerprint = 0;
    for (uint32_t i = 0; i < trial->node_count; i++) {
        cake__trial_node_t *node = trial->nodes[i];
        uint64_t live = 0;
        for (uint32_t keyspace = 0; keyspace < trial->plan.keyspaces; keyspace++) {
            for (uint32_t key = 0; key < trial->plan.keys; key++)
                check_key(trial, node, keyspace, key, &live);
        }
        check_stats(trial, node, live, &fingerprint);
    }
}

/* The sets have dropped their tombstones: then no disk has one either. */
void cake__check_purged(cake__trial_t *trial)
{
    for (uint32_t i = 0; i < trial->node_count; i++) {
        for (uint32_t at = 0; at < trial->plan.keyspaces * trial->plan.keys; at++) {
            cake__stamp_t row;
            if (cake__disk_row(&trial->nodes[i]->disk, at / trial->plan.keys, at % trial->plan.keys, &row) &&
                row.is_tombstone)
                cake__violation(trial, "tombstones", "node %u has dropped that of key %u, and its disk has it",
                                trial->nodes[i]->id, (unsigned)(at % trial->plan.keys));
        }
    }
}

/* Where no disk is lost, nor taken for lost, nobody is forgotten, nobody is new and no day has passed at once,
 * deltas are enough (the model's strict runs). Elsewhere holes hold nothing up any more after hole_age_ms. */
void cake__check_strict(cake__trial_t *trial)
{
    uint32_t losses = CAKE_SIM_DISK_LOSS | CAKE_SIM_FORGET | CAKE_SIM_JOIN | CAKE_SIM_DUPLICATE_STORE;
    bool is_strict = (trial->plan.kinds & losses) == 0 && !cake__has_lost_disks(trial) && !trial->was_tomorrow;
    for (uint32_t i = 0; is_strict && i < trial->node_count; i++) {
        uint64_t repairs = trial->nodes[i]->store->stats.repairs_finished;
        if (repairs > 0)
            cake__violation(trial, "strict", "node %u had to repair %llu times, and nothing was lost",
                            trial->nodes[i]->id, (unsigned long long)repairs);
    }
}
