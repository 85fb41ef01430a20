/* Checker "acknowledged": when a write is acknowledged at a level, so many disks have it, or something greater, at
 * that very moment; a refused one is on none. */
#include "sim/sim.h"

bool cake__has_lost_disks(const cake__trial_t *trial)
{
    bool is_with_store = (trial->plan.kinds & CAKE_SIM_DUPLICATE_STORE) != 0;
    return trial->result->disk_losses > 0 || (trial->was_taken_over && is_with_store);
}

/* A lost disk takes copies along, a forgotten node no longer counts: then the numbers of the levels say nothing,
 * until all are equal. */
bool cake__do_levels_hold(const cake__trial_t *trial)
{
    return trial->is_last_round ||
           (!cake__has_lost_disks(trial) && trial->result->forgotten == 0 && trial->plan.forget_after_ms == 0);
}

/* Those that are sure to count: one that joins does some time later, and in the end. */
static uint32_t replicas(const cake__trial_t *trial)
{
    return trial->is_last_round ? trial->node_count : trial->first_count;
}

static bool disk_has(const cake__trial_node_t *node, const cake__op_t *op)
{
    for (uint32_t i = 0; i < op->count; i++) {
        if (node->disk.seen[cake__place(op, i)].hlc < cake__stamp_of(op, i))
            return false;
    }
    return true;
}

/* Disks of one data centre that have it (NULL: of all), and of how many replicas. */
static uint32_t count_holders(const cake__trial_t *trial, const cake__op_t *op, const char *data_center, uint32_t *of)
{
    uint32_t count = 0;
    *of = 0;
    for (uint32_t i = 0; i < trial->node_count; i++) {
        const cake__trial_node_t *node = trial->nodes[i];
        if (data_center != NULL && strcmp(node->data_center, data_center) != 0)
            continue;
        *of += i < replicas(trial);
        count += disk_has(node, op);
    }
    return count;
}

static void check_each(cake__trial_t *trial, const cake__op_t *op)
{
    for (uint32_t i = 0; i < trial->plan.data_centers && i < replicas(trial); i++) {
        uint32_t of, holders = count_holders(trial, op, trial->nodes[i]->data_center, &of);
        if (holders < of / 2 + 1)
            cake__violation(trial, "acknowledged", "operation %u at each_quorum is on %u of %u disks in %s", op->number,
                            holders, of, trial->nodes[i]->data_center);
    }
}

static uint32_t required(const cake__op_t *op, uint32_t of)
{
    switch ((cake_consistency_t)op->level) {
    case CAKE_NONE:
        return 1;
    case CAKE_ONE:
    case CAKE_TWO:
    case CAKE_THREE:
        return 1 + op->level;
    case CAKE_ALL:
        return of;
    default:
        return of / 2 + 1;
    }
}

void cake__check_acked(cake__trial_t *trial, const cake__op_t *op)
{
    cake__trial_node_t *node = trial->nodes[op->node_id - 1];
    if (op->state == CAKE__OP_UNKNOWN) {
        if (op->err == CAKE_ECONSISTENCY && !disk_has(node, op))
            cake__violation(trial, "acknowledged", "operation %u is to stay, and is not on the disk of its node",
                            op->number);
        return;
    }
    uint32_t of, holders = count_holders(trial, op, op->level == CAKE_LOCAL_QUORUM ? node->data_center : NULL, &of);
    if (!disk_has(node, op))
        cake__violation(trial, "acknowledged", "operation %u is not on the disk of node %u that acknowledged it",
                        op->number, node->id);
    else if (cake__do_levels_hold(trial) && holders < required(op, of))
        cake__violation(trial, "acknowledged", "operation %u at %s is on %u disks, which takes %u", op->number,
                        cake_consistency_name((cake_consistency_t)op->level), holders, required(op, of));
    else if (cake__do_levels_hold(trial) && op->level == CAKE_EACH_QUORUM)
        check_each(trial, op);
    cake__raise_floors(trial, op);
}

void cake__check_refused(cake__trial_t *trial, const cake__op_t *op)
{
    if (op->was_seen && !op->may_turn_up)
        cake__violation(trial, "acknowledged", "operation %u was refused with %s, and a disk has it", op->number,
                        cake_err_name(op->err));
}
