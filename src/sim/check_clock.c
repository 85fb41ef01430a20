/* Checker "clock": the stamps that a client gets from one node grow, across restarts too, and a write is above
 * everything that its client had been told by that run of the node before; the clock of a node is never behind what
 * it has on its disk. */
#include "sim/sim.h"

void cake__check_clock(cake__trial_t *trial, const cake__op_t *op)
{
    cake__trial_node_t *node = trial->nodes[op->node_id - 1];
    bool is_write = op->kind == CAKE__OP_PUT || op->kind == CAKE__OP_DEL;
    if (op->timestamp == 0)
        return;
    if (is_write && op->timestamp <= op->node_floor && !node->has_lost_disk)
        cake__violation(trial, "clock", "operation %u gets stamp %llx, and node %u had given out %llx before",
                        op->number, (unsigned long long)op->timestamp, node->id, (unsigned long long)op->node_floor);
    /* A clock that is a day behind refuses the stamps of today: then nothing is promised about what it reads. */
    cake_env_t *env = cake__host_env(node->host);
    if (!is_write && (env == NULL || cake_hlc_unix_ms(op->timestamp) > cake__wall_ms(env) + CAKE_CLOCK_MAX_DRIFT_MS))
        return;
    cake_hlc_t *floor = is_write ? &node->write_floor : &node->read_floor;
    *floor = cake__max_u64(*floor, op->timestamp);
}

/* An application takes stamps, too. Those below the bound that is on disk are above all taken before, also by runs
 * of the node that crashed. */
void cake__check_now(cake__trial_node_t *node)
{
    cake_hlc_t stamp = cake_node_now(node->node);
    if (stamp != 0 && stamp <= node->now_floor && !node->has_lost_disk)
        cake__violation(node->trial, "clock", "node %u gives the stamp %llx, and had given %llx before", node->id,
                        (unsigned long long)stamp, (unsigned long long)node->now_floor);
    if (stamp < node->store->clock_bound)
        node->now_floor = cake__max_u64(node->now_floor, stamp);
}

/* Whatever comes to its disk: what the node writes next is ordered after it. */
void cake__check_followed(cake__trial_node_t *node, cake_hlc_t stamp)
{
    if (node->store == NULL)
        return; /* what turns up as a node starts is loaded then */
    cake_hlc_t last = cake_clock_last(cake_node_clock(node->node));
    if (stamp > last)
        cake__violation(node->trial, "clock", "node %u writes %llx, and its clock is at %llx", node->id,
                        (unsigned long long)stamp, (unsigned long long)last);
}
