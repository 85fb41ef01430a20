/* The last round: once all replicas are equal and everything is mended, clients on all nodes read, put, read, delete
 * and read again, at every level. Nothing is wrong any more, so each has to be reached within the time of one call;
 * what that is worth is checked as in the time of chaos, and nothing is excused. Registries that differ for ever
 * show here, and counts of replicas that are no more. */
#include "sim/sim.h"

#include <stdio.h>

#define LEVELS    (CAKE_ALL + 1u)
#define STALE_NS  (20 * CAKE__SECOND_NS) /* so long connections of before may still be there that lead nowhere */
#define WAYS_MOST 6u /* one way each, that a call may take: to connect, to ask, to hear of another registry, and back */

void cake__last_begin(cake__trial_t *trial)
{
    size_t places = (size_t)trial->plan.keyspaces * trial->plan.keys;
    if (!cake__do_levels_hold(trial)) /* what was acknowledged before may have gone with a disk */
        memset(trial->floors, 0, (1 + trial->plan.data_centers) * places * sizeof *trial->floors);
    trial->is_last_round = true;
}

/* Each level from some node, and each node at some level. */
void cake__last_step(cake__trial_t *trial, int step)
{
    static const cake__op_kind_t kinds[CAKE__LAST_STEPS] = {CAKE__OP_GET_AT, CAKE__OP_PUT, CAKE__OP_GET_AT,
                                                            CAKE__OP_DEL, CAKE__OP_GET_AT};
    uint64_t first = cake__below(trial, CAKE__TRIAL_DRAW_LAST, trial->node_count);
    uint32_t count = trial->node_count > LEVELS ? trial->node_count : LEVELS;
    trial->step_op = trial->op_count;
    for (uint32_t i = 0; i < count; i++) {
        cake__op_t *op = cake__op_new(trial, trial->nodes[(first + i) % trial->node_count]);
        op->kind = (uint8_t)kinds[step];
        op->level = (uint8_t)(i % LEVELS);
        op->keyspace = (uint8_t)cake__below(trial, CAKE__TRIAL_DRAW_LAST, trial->plan.keyspaces);
        op->keys[op->count++] = (uint16_t)cake__below(trial, CAKE__TRIAL_DRAW_LAST, trial->plan.keys);
        cake__op_ask(op);
    }
}

static bool is_late(const cake__op_t *op)
{
    return op->err == CAKE_ECONSISTENCY || op->err == CAKE_ETIMEDOUT;
}

static bool is_as_it_should(const cake__op_t *op)
{
    const cake__trial_t *trial = op->trial;
    bool has_others = op->level > CAKE_THREE || op->level < trial->node_count;
    uint64_t ways = trial->plan.has_fetches ? WAYS_MOST * LEVELS : WAYS_MOST;
    bool has_time = trial->plan.timeout_ms * CAKE_NS_PER_MS > ways * trial->plan.latency_max_ns;
    if (!has_others)
        return op->err == CAKE_ENOTENOUGHNODES;
    return op->err == 0 || (op->err == CAKE_ENOTFOUND && op->kind == CAKE__OP_GET_AT) || (is_late(op) && !has_time);
}

bool cake__is_step_over(cake__trial_t *trial, char *why, size_t size)
{
    bool may_be_late = cake__world_now_ns(trial->world) < trial->calm_since_ns + STALE_NS;
    trial->is_step_late = false;
    for (uint32_t i = trial->step_op; i < trial->op_count; i++) {
        const cake__op_t *op = trial->ops[i];
        const char *level = cake_consistency_name((cake_consistency_t)op->level);
        if (op->state == CAKE__OP_PENDING) {
            snprintf(why, size, "operation %u at %s has not ended", (unsigned)i, level);
            return false;
        }
        if (is_as_it_should(op))
            continue;
        trial->is_step_late |= may_be_late && is_late(op);
        if (!may_be_late || !is_late(op))
            cake__violation(trial, "levels", "operation %u at %s of node %u ends with %s, and nothing is wrong", i,
                            level, op->node_id, op->err == 0 ? "ok" : cake_err_name(op->err));
    }
    return true;
}
