/* After the chaos: everything is mended, and within bounds of virtual time the replicas become equal, tombstones go,
 * and the nodes stop without leaving anything. */
#include "sim/sim.h"

#include <stdio.h>

#define POLL_NS        (100 * CAKE_NS_PER_MS)
#define PURGE_GRACE_NS (45 * CAKE__SECOND_NS) /* a receiver that is gone holds purges up for 30 s and more */
#define CONVERGENCE_NS (60 * CAKE__SECOND_NS)
#define QUEUE_NS       (15 * CAKE__SECOND_NS)
#define CALL_NS        (10 * CAKE__SECOND_NS)
#define STOP_NS        (30 * CAKE__SECOND_NS)
#define RESTART_ONE_IN 8
#define FOLLOWER_NS    (60 * CAKE__SECOND_NS) /* one change a second is granted at least */

/* Those that were stopping when the chaos ended start again. */
static void keep_up(cake__trial_t *trial)
{
    for (uint32_t i = 0; i < trial->node_count; i++) {
        cake__trial_node_t *node = trial->nodes[i];
        cake__node_unrefuse(node);
        if (node->state == CAKE__IS_DOWN)
            cake__node_up(node, true);
    }
}

/* Polls until it holds; a violation of that name when it does not in time. */
static bool await(cake__trial_t *trial, const char *checker,
                  bool (*holds)(cake__trial_t *trial, char *why, size_t size), uint64_t within_ns)
{
    char why[160] = "";
    uint64_t until_ns = cake__world_now_ns(trial->world) + within_ns;
    while (!cake__has_failed(trial)) {
        if (holds(trial, why, sizeof why))
            return true;
        if (cake__world_now_ns(trial->world) >= until_ns) {
            cake__violation(
                trial, checker, "%s, %llu s after everything was mended", why,
                (unsigned long long)((cake__world_now_ns(trial->world) - trial->calm_since_ns) / CAKE__SECOND_NS));
            return false;
        }
        cake__world_run_for(trial->world, POLL_NS);
        keep_up(trial);
    }
    return false;
}

/* A replica that fetches one large value after the other, as many as there are, and twice: while it joins, and then. */
static uint64_t convergence_ns(const cake__trial_t *trial)
{
    uint64_t fetches = trial->plan.has_fetches ? 2 * (uint64_t)trial->plan.keys * trial->plan.keyspaces / 4 : 0;
    return CONVERGENCE_NS + fetches * 2 * trial->plan.latency_max_ns;
}

static bool is_whole(cake__trial_t *trial, char *why, size_t size)
{
    return cake__is_converged(trial, why, size) && cake__is_membership_exact(trial, why, size);
}

/* And nothing is on its way to a disk: what is checked is this instant. */
static bool is_still(cake__trial_t *trial, char *why, size_t size)
{
    return is_whole(trial, why, size) && cake__are_queues_empty(trial, why, size);
}

/* All at once: what a disk had refused at the end may turn up elsewhere, late, and be a delete. */
static bool is_all_over(cake__trial_t *trial, char *why, size_t size)
{
    return cake__are_tombstones_gone(trial, why, size) && cake__are_followers_told(trial, why, size) &&
           cake__are_calls_over(trial, why, size) && is_still(trial, why, size);
}

static bool has_stopped(cake__trial_t *trial, char *why, size_t size)
{
    for (uint32_t i = 0; i < trial->node_count; i++) {
        if (trial->nodes[i]->state == CAKE__IS_DOWN)
            continue;
        snprintf(why, size, "node %u does not stop", (unsigned)trial->nodes[i]->id);
        return false;
    }
    return true;
}

static void sum_up(cake__trial_t *trial)
{
    for (uint32_t i = 0; i < trial->node_count; i++) {
        const cake_store_stats_t *stats = &trial->nodes[i]->store->stats;
        trial->result->sessions += stats->sessions_finished;
        trial->result->repairs += stats->repairs_finished;
        trial->result->tombstones_purged += stats->tombstones_purged;
    }
}

/* Then all are equal again. */
static bool has_last_round(cake__trial_t *trial)
{
    if (trial->options.writes == 0)
        return true;
    cake__note(trial, "the last round");
    cake__last_begin(trial);
    for (int step = 0; step < CAKE__LAST_STEPS; step++) {
        cake__last_step(trial, step);
        if (!await(trial, "levels", cake__is_step_over, CALL_NS))
            return false;
        step -= trial->is_step_late; /* once more */
    }
    return await(trial, "convergence", is_still, convergence_ns(trial));
}

/* All at once: nobody is left to take anything over. */
static bool stop_all(cake__trial_t *trial)
{
    char why[160] = "";
    uint64_t until_ns = cake__world_now_ns(trial->world) + STOP_NS;
    trial->is_over = true;
    for (uint32_t i = 0; i < trial->node_count; i++) {
        if (trial->nodes[i]->state == CAKE__IS_UP)
            cake__node_leave(trial->nodes[i]);
    }
    while (!cake__has_failed(trial) && !has_stopped(trial, why, sizeof why)) {
        if (cake__world_now_ns(trial->world) >= until_ns)
            cake__violation(trial, "resources", "%s", why);
        cake__world_run_for(trial->world, POLL_NS);
    }
    return !cake__has_failed(trial);
}

void cake__settle(cake__trial_t *trial)
{
    uint64_t began_ns = cake__world_now_ns(trial->world);
    cake__verify_some(trial);
    if (!await(trial, "convergence", is_whole, convergence_ns(trial)))
        return;
    trial->result->converged_ms = (cake__world_now_ns(trial->world) - began_ns) / CAKE_NS_PER_MS;
    cake__note(trial, "the replicas are equal");
    bool has_lost = cake__has_lost_disks(trial); /* positions that are ahead for good wait for a minute */
    if (!await(trial, "watch", cake__are_followers_told, has_lost ? 90 * CAKE__SECOND_NS : FOLLOWER_NS) ||
        !await(trial, "convergence", is_still, convergence_ns(trial)))
        return;
    cake__check_final(trial);
    cake__check_told(trial);
    cake__workload_check(trial);
    uint64_t age_ms = trial->plan.tombstone_min_age_ms + trial->plan.clock_offset_ms * 2;
    if (trial->plan.hole_age_ms < 60000)
        age_ms += trial->plan.hole_age_ms;
    if (!await(trial, "tombstones", cake__are_tombstones_gone, age_ms * CAKE_NS_PER_MS + PURGE_GRACE_NS) ||
        !await(trial, "watch", cake__are_followers_told, FOLLOWER_NS) ||
        !await(trial, "resources", cake__are_queues_empty, QUEUE_NS) ||
        !await(trial, "calls", cake__are_calls_over, QUEUE_NS) ||
        !await(trial, "convergence", is_all_over, convergence_ns(trial)))
        return;
    cake__note(trial, "the tombstones are gone");
    cake__check_final(trial);
    cake__check_purged(trial);
    if (!has_last_round(trial))
        return;
    cake__check_told(trial);
    cake__check_strict(trial);
    cake__verify_damaged(trial);
    if (!await(trial, "convergence", is_still, convergence_ns(trial)))
        return;
    cake__check_final(trial);
    sum_up(trial);
    if (cake__has_failed(trial) || trial->options.no_shutdown_check || !stop_all(trial))
        return;
    if (cake__below(trial, CAKE__TRIAL_DRAW_PLAN, RESTART_ONE_IN) != 0)
        return;
    cake__note(trial, "all start again");
    trial->is_over = false;
    keep_up(trial);
    if (!await(trial, "restart", is_still, CONVERGENCE_NS))
        return;
    cake__check_final(trial);
    if (has_last_round(trial))
        cake__check_final(trial);
}
