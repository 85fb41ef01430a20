/* Checker "rows": whatever reaches a disk is what a client asked for, unchanged, and never what was refused. Also
 * keeps, per disk and key, the greatest write that was ever durable there: the other checkers compare with it. */
#include "sim/sim.h"

static void check_value(cake__disk_t *disk, const cake_write_t *write, uint32_t keyspace, uint32_t key,
                        uint32_t *number)
{
    cake__trial_t *trial = disk->trial;
    uint32_t item;
    if (!cake__value_parse(write->value, number, &item) || *number >= trial->op_count) {
        cake__violation(trial, "rows", "node %u stores a value that nobody wrote (%zu bytes)", disk->node->id,
                        write->value.len);
        return;
    }
    cake__op_t *op = trial->ops[*number];
    if (op->kind != CAKE__OP_PUT || item >= op->count || op->keyspace != keyspace || op->keys[item] != key)
        cake__violation(trial, "rows", "node %u stores the value of operation %u under another key", disk->node->id,
                        *number);
    else if (op->state == CAKE__OP_REFUSED)
        cake__violation(trial, "rows", "node %u stores operation %u, which was refused with %s", disk->node->id,
                        *number, cake_err_name(op->err));
    op->was_seen = true;
}

void cake__check_row(cake__disk_t *disk, const cake_write_t *write)
{
    cake__trial_t *trial = disk->trial;
    cake__stamp_t stamp = {write->hlc, write->dot, CAKE__OP_NONE, write->kind == CAKE_WRITE_TOMBSTONE, false};
    uint32_t keyspace, key;
    if (!cake__keyspace_parse(trial, write->keyspace, &keyspace) || !cake__key_parse(write->key, &key) ||
        key >= trial->plan.keys) {
        cake__violation(trial, "rows", "node %u stores a key that nobody wrote", disk->node->id);
        return;
    }
    if (!stamp.is_tombstone)
        check_value(disk, write, keyspace, key, &stamp.op);
    cake__check_followed(disk->node, write->hlc);
    size_t place = (size_t)keyspace * trial->plan.keys + key;
    if (stamp.is_tombstone)
        trial->deleted[place] = cake__max_u64(trial->deleted[place], stamp.hlc);
    cake__stamp_t *seen = &disk->seen[place];
    bool is_reissue = !stamp.is_tombstone && stamp.op == seen->op && seen->hlc != 0 && !seen->is_tombstone;
    if (!is_reissue) /* the document is what it was: watches are not told */
        disk->node->written[place] = write->hlc;
    if (cake__stamp_is_above(&stamp, seen))
        *seen = stamp;
}

void cake__check_may_turn_up(cake__trial_t *trial, const cake_write_t *write)
{
    uint32_t number, item;
    if (write->kind == CAKE_WRITE_PUT && cake__value_parse(write->value, &number, &item) && number < trial->op_count)
        trial->ops[number]->may_turn_up = true;
}
