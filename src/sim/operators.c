/* Operators: what people and scripts ask of a node beside its documents. They wait, as threads of an application do,
 * and their node is neither stopped nor crashed meanwhile.
 *
 *   cake_store_wait_for   after a start, while the faults go on: then the node has what the others had on their disks
 *                         when it started
 *   cake_store_verify     as healing begins, beside everything that catches up: nothing is damaged, so nothing is
 *                         found; and in the end, once one row of its storage is gone: that one is found, and mended */
#include "sim/sim.h"

#include <stdio.h>

#define VERIFY_ONE_IN 4

static uint64_t below(cake__trial_t *trial, uint64_t bound)
{
    return cake__below(trial, CAKE__TRIAL_DRAW_ADDED, bound);
}

/* ---- waiting for others -------------------------------------------------------------------------------------------*/

typedef struct {
    size_t count;
    uint16_t ids[CAKE__TRIAL_NODES_MAX];
    cake_hlc_t *had; /* per id and place */
} expected_t;

static size_t place_count(const cake__trial_t *trial)
{
    return (size_t)trial->plan.keyspaces * trial->plan.keys;
}

/* Some of those that run. */
static void look_at_others(const cake__trial_node_t *node, expected_t *expected)
{
    cake__trial_t *trial = node->trial;
    size_t places = place_count(trial);
    expected->had = cake__sim_alloc(trial->node_count * places * sizeof *expected->had);
    for (uint32_t i = 0; i < trial->node_count; i++) {
        const cake__trial_node_t *other = trial->nodes[i];
        if (other == node || other->state != CAKE__IS_UP || below(trial, 2) == 0)
            continue;
        for (size_t place = 0; place < places; place++)
            expected->had[expected->count * places + place] = other->disk.seen[place].hlc;
        expected->ids[expected->count++] = other->id;
    }
}

/* What was deleted may be purged meanwhile, and what a repair has killed is gone. */
static void check_waited(cake__trial_node_t *node, const expected_t *expected)
{
    cake__trial_t *trial = node->trial;
    size_t places = place_count(trial);
    for (size_t i = 0; i < expected->count * places && !cake__has_lost_disks(trial); i++) {
        const cake__stamp_t *seen = &node->disk.seen[i % places];
        if (expected->had[i] > seen->hlc && expected->had[i] > trial->deleted[i % places] && !seen->was_killed)
            cake__violation(trial, "waiting",
                            "node %u has waited for node %u, which had %llx for key %zu, and has %llx", node->id,
                            expected->ids[i / places], (unsigned long long)expected->had[i], i % trial->plan.keys,
                            (unsigned long long)seen->hlc);
    }
}

void cake__node_up_and_wait(cake__trial_node_t *node)
{
    cake__trial_t *trial = node->trial;
    expected_t expected = {0};
    if (below(trial, 100) < trial->plan.wait_share)
        look_at_others(node, &expected);
    cake__node_up(node, true);
    if (expected.count > 0 && node->state == CAKE__IS_UP) {
        node->waiting++;
        int err = cake_store_wait_for(node->store, expected.ids, expected.count, 200 + below(trial, 4000));
        node->waiting--;
        cake__note_of(node, CAKE__MARK_EVENT, "has waited for %zu others: %s", expected.count,
                      err == 0 ? "ok" : cake_err_name(err));
        if (err == 0)
            check_waited(node, &expected);
        else if (err != CAKE_ETIMEDOUT && err != CAKE_ECLOSED && (trial->plan.kinds & CAKE_SIM_ALLOC) == 0)
            cake__violation(trial, "answers", "waiting for others fails with %s", cake_err_name(err));
    }
    cake__free(&cake__libc_alloc, expected.had);
}

/* ---- verifying ----------------------------------------------------------------------------------------------------*/

typedef struct {
    cake__trial_node_t *node;
    bool has_damage;
    uint32_t keyspace, key; /* that was damaged */
    uint64_t count;
} verifying_t;

static void on_damage(void *arg, const cake_damage_t *damage)
{
    verifying_t *verifying = arg;
    cake__trial_t *trial = verifying->node->trial;
    char name[32], key[64];
    cake__keyspace_name(verifying->keyspace, name);
    size_t len = cake__key_text(verifying->key, key);
    bool is_it = verifying->has_damage && damage->kind == CAKE_DAMAGE_MISSING && damage->is_healed &&
                 strcmp(damage->keyspace, name) == 0 &&
                 memcmp(&damage->id, &trial->key_ids[verifying->key], sizeof damage->id) == 0 &&
                 (damage->key.len == 0 || cake__slice_equal(damage->key, cake__slice(key, len)));
    verifying->count++;
    if (!is_it)
        cake__violation(trial, "verify", "node %u finds that a document of %s is %s, and it is not",
                        verifying->node->id, damage->keyspace, cake_damage_name(damage->kind));
}

static void verify(verifying_t *verifying)
{
    cake__trial_node_t *node = verifying->node;
    cake_verify_options_t options = CAKE_VERIFY_OPTIONS_INIT;
    cake_verify_report_t report = {0};
    options.found = on_damage;
    options.arg = verifying;
    node->waiting++;
    int err = cake_store_verify(node->store, &options, &report);
    node->waiting--;
    cake__note_of(node, CAKE__MARK_EVENT, "is verified: %s, %llu documents", err == 0 ? "ok" : cake_err_name(err),
                  (unsigned long long)report.documents);
    if (err != 0)
        cake__violation(node->trial, "verify", "node %u cannot be verified: %s", node->id, cake_err_name(err));
    else if (verifying->has_damage && verifying->count != 1)
        cake__violation(node->trial, "verify", "node %u does not find that key %u of space-%u is missing", node->id,
                        (unsigned)verifying->key, (unsigned)verifying->keyspace);
}

/* One that is up; NULL: not in this run. */
static cake__trial_node_t *draw_node(cake__trial_t *trial)
{
    cake__trial_node_t *node = trial->nodes[below(trial, trial->node_count)];
    bool is_drawn = below(trial, VERIFY_ONE_IN) == 0;
    return is_drawn && node->state == CAKE__IS_UP && node->waiting == 0 ? node : NULL;
}

void cake__verify_some(cake__trial_t *trial)
{
    verifying_t verifying = {.node = draw_node(trial)};
    if (verifying.node != NULL)
        verify(&verifying);
}

void cake__verify_damaged(cake__trial_t *trial)
{
    verifying_t verifying = {.node = draw_node(trial)};
    size_t places = place_count(trial), first = below(trial, places);
    for (size_t i = 0; verifying.node != NULL && i < places && !verifying.has_damage; i++) {
        cake__stamp_t row;
        verifying.keyspace = (uint32_t)((first + i) % places / trial->plan.keys);
        verifying.key = (uint32_t)((first + i) % places % trial->plan.keys);
        verifying.has_damage = trial->node_count > 1 &&
                               cake__disk_row(&verifying.node->disk, verifying.keyspace, verifying.key, &row) &&
                               !row.is_tombstone;
    }
    if (verifying.has_damage) {
        cake__disk_damage(&verifying.node->disk, verifying.keyspace, verifying.key);
        verify(&verifying);
    }
}
