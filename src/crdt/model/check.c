/* check.c: the invariants of the model, held against the full history of writes. */
#include <stdlib.h>

#include "crdt/model/world.h"

write_t *find_write(world_t *world, cake_dot_t dot)
{
    for (size_t i = world->history_count; i-- > 0;) {
        const cake_dot_t *held = &world->history[i].record.dot;
        if (held->seq == dot.seq && held->actor == dot.actor)
            return &world->history[i];
    }
    return NULL;
}

void register_write(world_t *world, node_t *node, const cake_record_t *record, uint64_t value)
{
    if (find_write(world, record->dot) != NULL)
        violate(world, "I0: node %u used a dot twice", node->id);
    if (record->hlc <= node->highest_issued_hlc)
        violate(world, "I3: node %u issued a stamp after a higher one", node->id);
    node->highest_issued_hlc = record->hlc;
    if (world->history_count == world->history_capacity) {
        world->history_capacity = world->history_capacity == 0 ? 256 : world->history_capacity * 2;
        world->history = must(realloc(world->history, world->history_capacity * sizeof *world->history));
    }
    world->history[world->history_count++] =
        (write_t){.record = *record, .value = value, .owner = node->id, .owner_boot = node->boot, .is_tracked = true};
}

/* A replica told the writer that this write is durable there. At enough of them the client gets its answer. */
void count_durable(world_t *world, node_t *writer, uint32_t holder, cake_dot_t dot)
{
    write_t *write = find_write(world, dot);
    if (write == NULL || !write->is_tracked || write->owner != writer->id || write->owner_boot != writer->boot)
        return;
    write->holders |= 1u << holder;
    if ((uint32_t)__builtin_popcount(write->holders) < world->level)
        return;
    write->is_tracked = false;
    write->is_acknowledged = true;
    /* A holder may have lost its disk while its answer was on the way. */
    write->acknowledged_by = write->holders & write->promised;
    world->counts[COUNT_ACKNOWLEDGED]++;
}

/* What a set answers for each key of the run. */
typedef struct answers {
    bool has_record[KEYS_MAX];
    cake_record_t records[KEYS_MAX];
} answers_t;

static void check_writes_seen(world_t *world, const node_t *node, const cake__summary_t *summary,
                              const answers_t *answers)
{
    const write_t *greatest[KEYS_MAX] = {NULL};
    for (size_t i = 0; i < world->history_count; i++) {
        const write_t *write = &world->history[i];
        uint32_t key = key_of_id(&write->record.id);
        bool is_seen = cake__context_contains(&summary->context, write->record.dot);
        if (!is_seen && (write->promised >> node->id & 1) != 0)
            violate(world, "I4: node %u acknowledged a write and lost it", node->id);
        if (is_seen && (greatest[key] == NULL || cake__beats(&write->record, &greatest[key]->record)))
            greatest[key] = write;
    }
    for (uint32_t key = 0; key < world->key_count; key++) {
        const cake_record_t *top = greatest[key] == NULL ? NULL : &greatest[key]->record;
        cake_record_t record = answers->records[key];
        bool has_record = answers->has_record[key];
        if (has_record && !cake__context_contains(&summary->context, record.dot))
            violate(world, "I2: node %u holds a record that is not in C", node->id);
        if (has_record && record.hlc > cake_clock_last(&node->clock))
            violate(world, "I3: the clock of node %u is below a record", node->id);
        if (top == NULL)
            continue;
        if (has_record && cake__beats(top, &record))
            violate(world, "I1: node %u holds less than it has seen of key %u", node->id, key);
        if (!has_record && !top->is_tombstone)
            violate(world, "I1: node %u lost key %u", node->id, key);
        if (!has_record && top->dot.seq > cake__summary_dropped(summary, top->dot.actor))
            violate(world, "I1: node %u dropped a tombstone of key %u that is not in G", node->id, key);
        if (!has_record && top->hlc > summary->horizon)
            violate(world, "I2: node %u dropped a tombstone of key %u above H", node->id, key);
    }
}

/* Memory is what the disk would give back: replica.h promises it. */
static void check_image(world_t *world, node_t *node, const cake__summary_t *summary, const answers_t *answers)
{
    bool is_equal = cake__context_equal(&summary->context, &node->image.summary.context) &&
                    summary->horizon == node->image.summary.horizon;
    for (uint32_t key = 0; key < world->key_count && is_equal; key++) {
        cake_record_t record = answers->records[key];
        bool has_record = answers->has_record[key];
        const cake_record_t *stored = &node->image.records[key];
        is_equal = has_record == node->image.has_record[key] &&
                   (!has_record || (record.hlc == stored->hlc && record.dot.seq == stored->dot.seq &&
                                    record.dot.actor == stored->dot.actor));
    }
    if (!is_equal)
        violate(world, "memory and disk of node %u differ", node->id);
}

void check_node(world_t *world, node_t *node)
{
    const cake__summary_t *summary = cake__orswot_summary(node->set);
    cake_hlc_t clock = cake_clock_last(&node->clock);
    answers_t answers;
    for (uint32_t key = 0; key < world->key_count; key++) {
        cake_id_t id = id_of_key(key);
        answers.has_record[key] = cake_orswot_get(node->set, &id, &answers.records[key]);
    }
    check_writes_seen(world, node, summary, &answers);
    check_image(world, node, summary, &answers);
    if (summary->horizon > clock)
        violate(world, "I3: the clock of node %u is below H", node->id);
    if (clock > (node->highest_wall_ms + MAX_DRIFT_MS + RESERVE_MS + 1) << 16)
        violate(world, "I3: the clock of node %u was dragged too far ahead", node->id);
    if (!cake__context_covers(&summary->context, &node->promised_context))
        violate(world, "I4: node %u lost part of an acknowledged context", node->id);
    for (uint32_t i = 0; i < world->node_count; i++) {
        const node_t *other = &world->nodes[i];
        if (other == node || other->is_gone)
            continue;
        if (cake__context_equal(&cake__orswot_summary(other->set)->context, &summary->context) &&
            cake_orswot_fingerprint(other->set) != cake_orswot_fingerprint(node->set))
            violate(world, "theorem: nodes %u and %u have equal contexts and different live sets", node->id, i);
    }
}

void check_reissues(world_t *world, node_t *node)
{
    size_t count;
    const cake__reissue_t *reissues = cake__change_reissues(node->change, &count);
    for (size_t i = 0; i < count; i++) {
        world->counts[COUNT_REISSUES]++;
        if (is_strict(world))
            violate(world, "strict run: node %u reissued a write", node->id);
        if (reissues[i].came_from_sender && reissues[i].dot_was_seen)
            violate(world, "I5: node %u reissued a write whose fate it knew", node->id);
    }
}
