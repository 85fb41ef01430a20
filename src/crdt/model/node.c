/* node.c: one machine: its disk image, its process, and the life of a change between the two. */
#include <stdlib.h>

#include "crdt/model/world.h"

void *must(void *memory)
{
    if (memory == NULL)
        abort();
    return memory;
}

void must_be_ok(int err)
{
    if (err != 0)
        abort();
}

cake_id_t id_of_key(uint32_t key)
{
    cake_id_t id = {{0}};
    id.bytes[0] = (uint8_t)key;
    id.bytes[15] = key % 3 == 0 ? 9 : 8; /* both forms of a record */
    return id;
}

uint32_t key_of_id(const cake_id_t *id)
{
    return id->bytes[0];
}

/* ---- disk images ------------------------------------------------------------------------------------------------- */

void image_init(image_t *image, bool is_joined)
{
    memset(image, 0, sizeof *image);
    cake__summary_init(&image->summary, &cake__libc_alloc);
    image->is_joined = is_joined;
}

void image_copy(image_t *to, const image_t *from)
{
    cake__summary_t summary = to->summary;
    must_be_ok(cake__summary_copy(&summary, &from->summary));
    *to = *from;
    to->summary = summary;
}

void image_free(image_t *image)
{
    cake__summary_free(&image->summary);
}

enum { PART_ROWS = 1, PART_ERASES = 2, PART_CONTEXT = 4, PART_LIMITS = 8, PART_ALL = 15 };

/* Writes parts of the batch that a change asks for: all of them at once, except in mutants. */
static void persist(world_t *world, node_t *node, uint32_t parts)
{
    image_t *image = &node->image;
    size_t count;
    const cake__staged_t *puts = cake__change_puts(node->change, &count);
    for (size_t i = 0; i < count && (parts & PART_ROWS) != 0; i++) {
        uint32_t key = key_of_id(&puts[i].record.id);
        uint64_t value = puts[i].tag != NULL ? (uint64_t)(uintptr_t)puts[i].tag : image->values[key];
        const write_t *write = find_write(world, puts[i].record.dot);
        if (write == NULL || write->value != value)
            violate(world, "a row of node %u would get the value of another record", node->id);
        image->has_record[key] = true;
        image->records[key] = puts[i].record;
        image->values[key] = value;
    }
    const cake_id_t *erases = cake__change_erases(node->change, &count);
    for (size_t i = 0; i < count && (parts & PART_ERASES) != 0; i++) {
        if (!image->has_record[key_of_id(&erases[i])])
            violate(world, "node %u erases a row that is not there", node->id);
        image->has_record[key_of_id(&erases[i])] = false;
    }
    const cake__summary_t *summary = cake__change_summary(node->change);
    if (parts & PART_CONTEXT)
        must_be_ok(cake__context_join(&image->summary.context, &summary->context));
    if (parts & PART_LIMITS) {
        must_be_ok(cake__limits_join(&image->summary.dropped, &summary->dropped));
        cake__summary_prune(&image->summary);
        image->summary.horizon = cake__max_u64(image->summary.horizon, summary->horizon);
    }
    image->is_joined = image->is_joined || (parts == PART_ALL && cake__change_joins(node->change));
}

/* ---- processes --------------------------------------------------------------------------------------------------- */

uint64_t wall_of(world_t *world, node_t *node)
{
    int64_t wall = (int64_t)world->now_ms + node->wall_offset_ms;
    node->wall_ms = wall < 1 ? 1 : (uint64_t)wall;
    node->highest_wall_ms = cake__max_u64(node->highest_wall_ms, node->wall_ms);
    return node->wall_ms;
}

void node_start(world_t *world, node_t *node)
{
    node->boot++;
    node->started_ms = wall_of(world, node);
    uint64_t actor = cake__mix64(++world->next_actor) | 1;
    if (CAKE__MUTANT(reuse) && node->image.actor != 0)
        actor = node->image.actor;
    node->image.actor = actor;
    cake_clock_init(&node->clock, MAX_DRIFT_MS, node->image.clock_bound);
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    config.clock = &node->clock;
    config.actor = actor;
    config.is_joined = node->image.is_joined;
    must_be_ok(cake_orswot_new(&config, &node->set));
    node->set->repair = world->repair;
    for (uint32_t key = 0; key < KEYS_MAX; key++) {
        if (node->image.has_record[key])
            must_be_ok(cake__orswot_load_record(node->set, &node->image.records[key]));
    }
    must_be_ok(cake__orswot_load_summary(node->set, &node->image.summary));
    for (uint32_t i = 0; i < NODES_MAX; i++)
        cake__context_init(&node->peers[i].context, &cake__libc_alloc);
}

static void forget_change(node_t *node)
{
    for (size_t i = 0; i < node->staged_batch_count; i++)
        payload_release(node->staged_batches[i].batch);
    node->staged_batch_count = node->staged_write_count = 0;
    node->change = NULL;
    node->is_in_flight = false;
}

void node_stop(node_t *node)
{
    if (node->set == NULL)
        return;
    cake__change_abort(node->change);
    forget_change(node);
    for (size_t i = 0; i < node->receiving_count; i++)
        cake__receiver_free(node->receiving[i].receiver);
    for (size_t i = 0; i < node->sending_count; i++)
        cake__sender_free(node->sending[i].sender);
    for (uint32_t i = 0; i < NODES_MAX; i++) {
        cake__context_free(&node->peers[i].context);
        node->peers[i] = (peer_row_t){.is_known = false};
    }
    node->receiving_count = node->sending_count = node->outbox_count = 0;
    cake_orswot_free(node->set);
    node->set = NULL;
}

void node_free(node_t *node)
{
    node_stop(node);
    image_free(&node->image);
    for (uint32_t i = 0; i < node->old_image_count; i++)
        image_free(&node->old_images[i]);
    cake__context_free(&node->promised_context);
}

void node_crash(world_t *world, node_t *node)
{
    world->counts[COUNT_CRASHES]++;
    node_stop(node);
    node_start(world, node);
}

/* The disk, or everything that it held since an old image, is gone: its promises are void. */
void node_lose_disk(world_t *world, node_t *node)
{
    world->counts[COUNT_DISKS]++;
    node_stop(node);
    cake__context_free(&node->promised_context);
    node->highest_issued_hlc = 0;
    for (size_t i = 0; i < world->history_count; i++) {
        world->history[i].promised &= ~(1u << node->id);
        world->history[i].acknowledged_by &= ~(1u << node->id);
    }
}

/* ---- the life of a change ---------------------------------------------------------------------------------------- */

bool node_is_busy(const node_t *node)
{
    return node->is_in_flight;
}

cake__change_t *node_change(world_t *world, node_t *node)
{
    if (node->change == NULL)
        must_be_ok(cake__change_begin(node->set, wall_of(world, node), &node->change));
    node->change->wall_ms = wall_of(world, node);
    return node->change;
}

void node_submit(node_t *node)
{
    node->is_in_flight = node->change != NULL;
}

/* What the change wrote becomes part of the history: it may be found after a restart from here on. */
static void register_staged(world_t *world, node_t *node)
{
    size_t count, next = 0;
    const cake__reissue_t *reissues = cake__change_reissues(node->change, &count);
    for (size_t i = 0; i < count || next < node->staged_write_count;) {
        bool from_reissues = next == node->staged_write_count ||
                             (i < count && reissues[i].made.dot.seq < node->staged_writes[next].dot.seq);
        if (from_reissues) {
            const write_t *old = find_write(world, reissues[i].old.dot);
            if (old == NULL)
                violate(world, "node %u reissued what was never written", node->id);
            register_write(world, node, &reissues[i].made, old->value);
            i++;
        } else {
            register_write(world, node, &node->staged_writes[next], node->staged_values[next]);
            next++;
        }
    }
    check_reissues(world, node);
}

static void ended_durably(world_t *world, node_t *node)
{
    cake__change_commit(node->change);
    for (size_t i = 0; i < node->staged_write_count; i++) {
        find_write(world, node->staged_writes[i].dot)->promised |= 1u << node->id;
        count_durable(world, node, node->id, node->staged_writes[i].dot);
        if (node->outbox_count < BATCH_MAX)
            node->outbox[node->outbox_count++] = node->staged_writes[i];
    }
    if (node->outbox_count > 0 && chance(world, 0.6))
        broadcast_outbox(world, node);
    for (size_t i = 0; i < node->staged_batch_count && !CAKE__MUTANT(ackvolatile); i++)
        acknowledge_batch(world, node, node->staged_batches[i].writer, node->staged_batches[i].batch);
    forget_change(node);
    if (chance(world, 0.5))
        acknowledge_context(world, node);
}

static uint32_t torn_parts(void)
{
    return CAKE__MUTANT(killnotatomic) ? PART_ERASES
           : CAKE__MUTANT(ctxfirst)    ? PART_CONTEXT | PART_LIMITS
           : CAKE__MUTANT(metasplit)   ? PART_ALL & ~PART_LIMITS
                                       : 0;
}

void node_commit(world_t *world, node_t *node)
{
    if (node->change == NULL)
        return;
    if (world->profile->unclean_crash && chance(world, 0.015)) { /* the batch is lost, or (in mutants) torn */
        uint32_t parts = torn_parts();
        world->counts[COUNT_LOST_BATCHES]++;
        if (parts != 0) {
            world->counts[COUNT_TORN]++;
            register_staged(world, node);
            persist(world, node, parts);
        }
        node_crash(world, node);
        return;
    }
    if (chance(world, 0.02)) { /* the storage refused it, and said so */
        cake__change_abort(node->change);
        forget_change(node);
        return;
    }
    register_staged(world, node);
    persist(world, node, PART_ALL);
    if (world->profile->unclean_crash && chance(world, 0.015)) { /* durable, and nobody heard of it */
        node_crash(world, node);
        return;
    }
    ended_durably(world, node);
}

void node_settle(world_t *world, node_t *node)
{
    if (node->change == NULL)
        return;
    register_staged(world, node);
    persist(world, node, PART_ALL);
    ended_durably(world, node);
}

/* ---- what a node does of itself ---------------------------------------------------------------------------------- */

void node_write(world_t *world, node_t *node, uint32_t key, bool is_tombstone)
{
    cake_id_t id = id_of_key(key);
    cake_record_t record, seen;
    if (node_is_busy(node) || node->staged_write_count == BATCH_MAX)
        return;
    cake__change_t *change = node_change(world, node);
    uint64_t value = ++world->next_value;
    int err = cake__change_write(change, &id, is_tombstone, (void *)(uintptr_t)value, &record);
    if (err == CAKE_EDRIFT || err == CAKE_ENOTJOINED)
        return;
    must_be_ok(err);
    if (!cake__change_find(change, &id, &seen, NULL) || memcmp(&seen.dot, &record.dot, sizeof seen.dot) != 0 ||
        record.hlc <= cake__change_summary(change)->horizon)
        violate(world, "I3: a local write of node %u did not win at once", node->id);
    node->staged_writes[node->staged_write_count] = record;
    node->staged_values[node->staged_write_count++] = value;
}

void note_peer(node_t *node, uint32_t peer, uint64_t actor)
{
    peer_row_t *row = &node->peers[peer];
    if (!row->is_known || row->actor != actor) {
        cake__context_free(&row->context);
        row->is_known = true;
        row->actor = actor;
    }
    row->last_heard_ms = node->wall_ms;
}

void purge_policy(const world_t *world, const node_t *node, cake__purge_t *policy,
                  const cake__context_t *peers[NODES_MAX], const cake__context_t *nothing)
{
    *policy =
        (cake__purge_t){.peers = peers, .min_age_ms = MIN_AGE_MS, .hole_age_ms = world->hole_age_ms, .max_count = 1000};
    for (uint32_t i = 0; i < world->node_count; i++) {
        const peer_row_t *row = &node->peers[i];
        uint64_t heard_ms = row->is_known ? row->last_heard_ms : node->started_ms;
        bool is_silent = world->profile->silent_ms != 0 && node->wall_ms > heard_ms &&
                         node->wall_ms - heard_ms > world->profile->silent_ms;
        if (i != node->id)
            peers[policy->peer_count++] = is_silent ? NULL : row->is_known ? &row->context : nothing;
    }
}

/* Rule 8. Who lives is known, but now and then one is taken for dead: that may cost repairs, and nothing else. */
static void retire(world_t *world, cake__change_t *change, const cake__purge_t *policy)
{
    uint64_t living[NODES_MAX];
    size_t living_count = 0, count;
    for (uint32_t i = 0; i < world->node_count; i++) {
        if (!world->nodes[i].is_gone && (is_strict(world) || chance(world, 0.9)))
            living[living_count++] = world->nodes[i].set->actor;
    }
    must_be_ok(cake__change_retire(change, living, living_count, policy->peers, policy->peer_count, &count));
    world->counts[COUNT_RETIRED] += count;
}

void node_drop(world_t *world, node_t *node)
{
    const cake__context_t *peers[NODES_MAX];
    cake__context_t nothing;
    cake__purge_t policy;
    size_t dropped;
    if (node_is_busy(node))
        return;
    cake__change_t *change = node_change(world, node);
    cake__context_init(&nothing, &cake__libc_alloc);
    purge_policy(world, node, &policy, peers, &nothing);
    if (chance(world, 0.1))
        policy.max_count = 1;
    if (chance(world, world->retire_rate))
        retire(world, change, &policy);
    must_be_ok(cake__change_purge(change, &policy, &dropped));
    world->counts[COUNT_DROPS] += dropped;
    for (uint32_t key = 0; key < KEYS_MAX && world->profile->forced_drop; key++) {
        cake_id_t id = id_of_key(key);
        cake_record_t record;
        if (!cake__change_find(change, &id, &record, NULL) || !record.is_tombstone || !chance(world, world->drop_rate))
            continue;
        must_be_ok(cake__change_drop(change, &id, 1));
        world->counts[COUNT_FORCED]++;
    }
}
