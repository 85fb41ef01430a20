/* Checker "acknowledged": when a write is acknowledged at a level, so many disks have it, or something greater, at that very
 * moment; a refused one is on none; a read at a quorum is not older than what a quorum had acknowledged before. */
#include "sim/sim.h"

bool cake__has_lost_disks(const cake__trial_t *trial)
{
    bool is_with_store = (trial->plan.kinds & CAKE_SIM_DUPLICATE_STORE) != 0;
    return trial->result->disk_losses > 0 || (trial->was_taken_over && is_with_store);
}

/* A lost disk takes copies along, a forgotten node no longer counts: then the numbers of the levels say nothing. */
static bool do_levels_hold(const cake__trial_t *trial)
{
    return !cake__has_lost_disks(trial) && trial->result->forgotten == 0 && trial->plan.forget_after_ms == 0;
}

static size_t place(const cake__trial_t *trial, const cake__op_t *op, uint32_t item)
{
    return (size_t)op->keyspace * trial->plan.keys + op->keys[item];
}

/* The stamps of one call are consecutive, and the answer names the last. */
static cake_hlc_t stamp_of(const cake__op_t *op, uint32_t item)
{
    return op->timestamp - (op->count - 1 - item);
}

static bool disk_has(const cake__trial_node_t *node, const cake__op_t *op)
{
    for (uint32_t i = 0; i < op->count; i++) {
        if (node->disk.seen[place(node->trial, op, i)].hlc < stamp_of(op, i))
            return false;
    }
    return true;
}

/* Disks of one data centre that have it (NULL: of all), and of how many of the first nodes. */
static uint32_t count_holders(const cake__trial_t *trial, const cake__op_t *op, const char *data_center, uint32_t *of)
{
    uint32_t count = 0;
    *of = 0;
    for (uint32_t i = 0; i < trial->node_count; i++) {
        const cake__trial_node_t *node = trial->nodes[i];
        if (data_center != NULL && strcmp(node->data_center, data_center) != 0)
            continue;
        *of += i < trial->first_count;
        count += disk_has(node, op);
    }
    return count;
}

static void check_each(cake__trial_t *trial, const cake__op_t *op)
{
    for (uint32_t i = 0; i < trial->plan.data_centers && i < trial->first_count; i++) {
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

static void raise_quorum_floor(cake__trial_t *trial, const cake__op_t *op)
{
    if (op->level != CAKE_QUORUM && op->level != CAKE_ALL)
        return;
    for (uint32_t i = 0; i < op->count; i++) {
        cake_hlc_t *floor = &trial->quorum_floor[place(trial, op, i)];
        *floor = cake__max_u64(*floor, stamp_of(op, i));
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
    else if (do_levels_hold(trial) && holders < required(op, of))
        cake__violation(trial, "acknowledged", "operation %u at %s is on %u disks, which takes %u", op->number,
                        cake_consistency_name((cake_consistency_t)op->level), holders, required(op, of));
    else if (do_levels_hold(trial) && op->level == CAKE_EACH_QUORUM)
        check_each(trial, op);
    raise_quorum_floor(trial, op);
}

void cake__check_refused(cake__trial_t *trial, const cake__op_t *op)
{
    if (op->was_seen && !op->may_turn_up)
        cake__violation(trial, "acknowledged", "operation %u was refused with %s, and a disk has it", op->number,
                        cake_err_name(op->err));
}

/* ---- reads ----------------------------------------------------------------------------------------------------------------*/

static void check_document(cake__trial_t *trial, const cake__op_t *op, const cake_doc_t *doc)
{
    uint32_t number, item;
    char text[64];
    size_t len = cake__key_text(op->keys[0], text);
    if (!cake__slice_equal(cake_doc_key(doc), cake__slice(text, len)))
        cake__violation(trial, "reads", "operation %u reads another key", op->number);
    else if (!cake__value_parse(cake_doc_value(doc), &number, &item) || number >= trial->op_count)
        cake__violation(trial, "reads", "operation %u reads a value that nobody wrote", op->number);
    else if (trial->ops[number]->state == CAKE__OP_REFUSED)
        cake__violation(trial, "reads", "operation %u reads %u, which was refused", op->number, number);
}

/* What was on the disk when it was asked, or something later that came meanwhile. A repair may erase. */
static void check_local(cake__trial_t *trial, const cake__op_t *op, const cake__stamp_t *before,
                        const cake__stamp_t *now, cake_hlc_t found)
{
    bool has_changed = cake__stamp_is_above(now, before);
    bool was_live = before->hlc != 0 && !before->is_tombstone;
    bool was_killed = before->was_killed || now->was_killed; /* that it had to be is for the end to show */
    bool is_lawful = found != 0 ? found >= before->hlc && (has_changed || found == before->hlc)
                                : !was_live || has_changed || was_killed;
    if (!is_lawful)
        cake__violation(trial, "reads", "operation %u reads %llx, its node had %llx (%s)", op->number,
                        (unsigned long long)found, (unsigned long long)before->hlc, was_live ? "live" : "dead");
}

void cake__check_scan(cake__trial_t *trial, const cake__op_t *op, const cake__stamp_t *before, const cake_hlc_t *found)
{
    const cake__stamp_t *now = &trial->nodes[op->node_id - 1]->disk.seen[(size_t)op->keyspace * trial->plan.keys];
    for (uint32_t key = 0; key < trial->plan.keys; key++)
        check_local(trial, op, &before[key], &now[key], found[key]);
}

/* Nothing is found, and no tombstone: there was one, that everybody had. */
static void check_quorum(cake__trial_t *trial, const cake__op_t *op, bool is_found, cake_hlc_t found)
{
    bool is_purged = !is_found && trial->deleted[place(trial, op, 0)] >= op->key_floor;
    if (found < op->key_floor && !is_purged)
        cake__violation(trial, "reads", "operation %u at %s reads %llx, and %llx was acknowledged before", op->number,
                        cake_consistency_name((cake_consistency_t)op->level), (unsigned long long)found,
                        (unsigned long long)op->key_floor);
}

void cake__check_read(cake__trial_t *trial, const cake__op_t *op, const cake_result_t *result)
{
    bool is_found = result->err == 0 && result->doc_count > 0 && result->docs[0] != NULL;
    cake_hlc_t found = is_found ? cake_doc_timestamp(result->docs[0]) : 0;
    if (result->err != 0 && result->err != CAKE_ENOTFOUND)
        return;
    if (is_found)
        check_document(trial, op, result->docs[0]);
    if (op->kind == CAKE__OP_GET)
        check_local(trial, op, &op->seen, &trial->nodes[op->node_id - 1]->disk.seen[place(trial, op, 0)], found);
    bool is_quorum = op->kind == CAKE__OP_GET_AT && (op->level == CAKE_QUORUM || op->level == CAKE_ALL);
    if (is_quorum && do_levels_hold(trial))
        check_quorum(trial, op, is_found, is_found ? found : result->timestamp);
}
