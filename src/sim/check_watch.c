/* Checker "watch": whoever watches a store from its start hears of every change once, in the order in which it was
 * applied: per key the stamps grow, and the last one told is the last one written. */
#include "sim/sim.h"

void cake__check_change(cake__trial_node_t *node, const cake_change_t *change)
{
    cake__trial_t *trial = node->trial;
    uint32_t keyspace, key, number, item;
    trial->result->changes_told++;
    if (cake__is_foreign(trial, cake__slice_str(change->keyspace)))
        return;
    if (!cake__keyspace_parse(trial, cake__slice_str(change->keyspace), &keyspace) ||
        !cake__key_parse(change->key, &key) || key >= trial->plan.keys) {
        cake__violation(trial, "watch", "node %u tells of a key that nobody wrote", node->id);
        return;
    }
    cake_hlc_t *told = &node->told[(size_t)keyspace * trial->plan.keys + key];
    if (change->timestamp < *told)
        cake__violation(trial, "watch", "node %u tells of %llx after %llx", node->id,
                        (unsigned long long)change->timestamp, (unsigned long long)*told);
    if (!change->is_delete && !cake__value_parse(change->value, &number, &item))
        cake__violation(trial, "watch", "node %u tells of a value that nobody wrote", node->id);
    *told = change->timestamp;
}

void cake__check_told(cake__trial_t *trial)
{
    for (uint32_t i = 0; i < trial->node_count; i++) {
        const cake__trial_node_t *node = trial->nodes[i];
        for (size_t at = 0; at < (size_t)trial->plan.keyspaces * trial->plan.keys; at++) {
            if (node->told[at] < node->written[at])
                cake__violation(trial, "watch", "node %u has written %llx for key %zu, and told of %llx", node->id,
                                (unsigned long long)node->written[at], at, (unsigned long long)node->told[at]);
        }
    }
}
