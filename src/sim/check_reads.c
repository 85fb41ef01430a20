/* Checker "reads": a local read or scan gives what the disk had when it was asked, or something later; a read that
 * asks a majority is not older than what the same majority, of all or in one data centre, had acknowledged before;
 * where it finds nothing, a delete came later. A write with a condition has read, too: of two that expect the same
 * document on one node, one is done. */
#include "sim/sim.h"

/* ---- what majorities have acknowledged ----------------------------------------------------------------------------*/

/* On which majorities a write at the level is, and which a read asks: bit 0 of all replicas, bit 1 + d of those in
 * data centre d. */
static uint32_t majorities(const cake__op_t *op)
{
    uint32_t centers = op->trial->plan.data_centers;
    switch ((cake_consistency_t)op->level) {
    case CAKE_QUORUM:
        return 1;
    case CAKE_LOCAL_QUORUM:
        return 2u << (op->node_id - 1u) % centers;
    case CAKE_EACH_QUORUM: /* more than half in each are more than half of all */
    case CAKE_ALL:
        return (2u << centers) - 1;
    default:
        return 0;
    }
}

static cake_hlc_t *floor_of(const cake__trial_t *trial, uint32_t majority, size_t place)
{
    return &trial->floors[majority * trial->plan.keyspaces * trial->plan.keys + place];
}

void cake__raise_floors(cake__trial_t *trial, const cake__op_t *op)
{
    uint32_t bits = majorities(op);
    for (uint32_t majority = 0; bits >> majority != 0; majority++) {
        for (uint32_t i = 0; (bits >> majority & 1) != 0 && i < op->count; i++) {
            cake_hlc_t *floor = floor_of(trial, majority, cake__place(op, i));
            *floor = cake__max_u64(*floor, cake__stamp_of(op, i));
        }
    }
}

cake_hlc_t cake__floor_of_read(const cake__trial_t *trial, const cake__op_t *op)
{
    uint32_t bits = majorities(op);
    cake_hlc_t floor = 0;
    for (uint32_t majority = 0; bits >> majority != 0; majority++) {
        if ((bits >> majority & 1) != 0)
            floor = cake__max_u64(floor, *floor_of(trial, majority, cake__place(op, 0)));
    }
    return floor;
}

/* ---- reads --------------------------------------------------------------------------------------------------------*/

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
static void check_majority(cake__trial_t *trial, const cake__op_t *op, bool is_found, cake_hlc_t found)
{
    bool is_purged = !is_found && trial->deleted[cake__place(op, 0)] >= op->key_floor;
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
        check_local(trial, op, &op->seen, &trial->nodes[op->node_id - 1]->disk.seen[cake__place(op, 0)], found);
    if (op->kind == CAKE__OP_GET_AT && cake__do_levels_hold(trial))
        check_majority(trial, op, is_found, is_found ? found : result->timestamp);
}

/* ---- conditions ---------------------------------------------------------------------------------------------------*/

/* A delete of this node that may have come first, and which no disk has seen when it went into the batch of the
 * write. */
static bool has_delete_beside(const cake__trial_t *trial, const cake__op_t *op)
{
    for (uint32_t i = 0; i < trial->op_count; i++) {
        const cake__op_t *other = trial->ops[i];
        bool may_be_first = other->kind == CAKE__OP_DEL && other->node_id == op->node_id &&
                            other->keyspace == op->keyspace && other->state != CAKE__OP_REFUSED && other != op;
        for (uint32_t k = 0; may_be_first && k < other->count; k++) {
            if (other->keys[k] == op->keys[0] && (other->state == CAKE__OP_PENDING || other->done_ns >= op->issued_ns))
                return true;
        }
    }
    return false;
}

/* Stamps are unique: no document can be replaced twice on one node. */
static void check_once(cake__trial_t *trial, const cake__op_t *op)
{
    for (uint32_t i = 0; i < trial->op_count; i++) {
        const cake__op_t *other = trial->ops[i];
        if (other != op && other->has_condition && other->expected == op->expected && other->timestamp != 0 &&
            other->node_id == op->node_id && other->keyspace == op->keyspace && other->keys[0] == op->keys[0])
            cake__violation(trial, "conditions", "operations %u and %u on node %u both replace %llx", other->number,
                            op->number, op->node_id, (unsigned long long)op->expected);
    }
}

void cake__check_condition(cake__trial_t *trial, const cake__op_t *op, cake_hlc_t found)
{
    const cake__trial_node_t *node = trial->nodes[op->node_id - 1];
    const cake__stamp_t *before = &op->seen, *now = &node->disk.seen[cake__place(op, 0)];
    bool is_done = op->state == CAKE__OP_ACKED || op->err == CAKE_ECONSISTENCY;
    if (!op->has_condition || (!is_done && op->err != CAKE_ECONFLICT))
        return;
    bool was_live = before->hlc != 0 && !before->is_tombstone && !before->was_killed && !now->was_killed;
    bool was_deleted = trial->deleted[cake__place(op, 0)] >= before->hlc; /* two nodes may stamp alike */
    if (!is_done && found == op->expected)
        cake__violation(trial, "conditions", "operation %u is refused, and finds what it expects", op->number);
    else if (!is_done)
        check_local(trial, op, before, now, found);
    else if (op->expected == 0 && was_live && !was_deleted && !has_delete_beside(trial, op))
        cake__violation(trial, "conditions", "operation %u expects nothing, and its node had %llx", op->number,
                        (unsigned long long)before->hlc);
    else if (op->expected != 0 && op->expected < before->hlc)
        cake__violation(trial, "conditions", "operation %u expects %llx, and its node had %llx", op->number,
                        (unsigned long long)op->expected, (unsigned long long)before->hlc);
    else if (op->expected != 0 && !node->has_lost_disk)
        check_once(trial, op);
}
