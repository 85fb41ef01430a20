/* quiet.c: the end of a run: links heal, clocks agree, time passes. Everything must converge, every tombstone must
 * become droppable, and after that every session is a plain DELTA again. */
#include "crdt/model/world.h"

static void compare_some(world_t *world, cake__receiver_t *r_side, cake__sender_t *z_side, node_t *receiver, bool *did)
{
    cake__compare_t request;
    cake__compared_t reply;
    must_be_ok(cake__receiver_next_compare(r_side, world->chunk_limit, did, &request));
    if (!*did)
        return;
    if (cake__sender_compare(z_side, &request, &reply) == 0) {
        must_be_ok(cake__receiver_on_compared(r_side, node_change(world, receiver), &reply));
        cake__compared_free(&reply, &cake__libc_alloc);
    }
    cake__compare_free(&request, &cake__libc_alloc);
}

static void send_some(world_t *world, cake__receiver_t *r_side, cake__sender_t *z_side, node_t *receiver)
{
    cake_record_t records[BATCH_MAX];
    void *tags[BATCH_MAX];
    cake__chunk_t chunk = {.session_id = cake__receiver_hello(r_side)->session_id,
                           .token = cake__sender_token(z_side),
                           .records = records,
                           .tags = tags};
    cake__fin_t fin;
    bool has_fin;
    must_be_ok(cake__sender_next(z_side, world->chunk_limit, records, &chunk.count, &chunk.index, &has_fin, &fin));
    for (size_t i = 0; i < chunk.count; i++)
        tags[i] = tag_of(world, &records[i]);
    if (chunk.count > 0)
        must_be_ok(cake__receiver_on_chunk(r_side, node_change(world, receiver), &chunk));
    if (has_fin) {
        must_be_ok(cake__receiver_on_fin(r_side, node_change(world, receiver), &fin));
        cake__fin_free(&fin);
    }
    if (chunk.count == 0 && !has_fin)
        cake__receiver_abort(r_side, "incomplete");
}

/* A session that nothing else crosses. */
cake__session_mode_t whole_session(world_t *world, node_t *receiver, node_t *sender)
{
    cake__receiver_t *r_side;
    cake__sender_t *z_side;
    cake__welcome_t welcome;
    must_be_ok(cake__receiver_new(receiver->set, (uint16_t)receiver->id, world->next_session_id++, &r_side));
    const cake__hello_t *hello = cake__receiver_hello(r_side);
    must_be_ok(cake__sender_new(sender->set, (uint16_t)sender->id, hello, cake__random_u64(&world->random), &z_side));
    note_peer(sender, receiver->id, hello->actor);
    must_be_ok(cake__sender_welcome(z_side, &welcome));
    note_peer(receiver, sender->id, welcome.actor);
    must_be_ok(cake__receiver_on_welcome(r_side, node_change(world, receiver), &welcome));
    cake__welcome_free(&welcome);
    node_settle(world, receiver); /* what it walks through must be there */
    while (cake__receiver_phase(r_side) == CAKE__PHASE_RUNNING) {
        bool did = cake__receiver_is_finishing(r_side);
        if (did)
            must_be_ok(cake__receiver_go_on(r_side, node_change(world, receiver)));
        else
            compare_some(world, r_side, z_side, receiver, &did);
        if (!did)
            send_some(world, r_side, z_side, receiver);
        if (chance(world, 0.3))
            node_settle(world, receiver);
    }
    receiving_t outcome = {.receiver = r_side};
    note_outcome(world, &outcome);
    cake__session_mode_t mode = cake__receiver_mode(r_side);
    node_settle(world, receiver);
    cake__receiver_free(r_side);
    cake__sender_free(z_side);
    check_node(world, receiver);
    return mode;
}

static void pass_time(world_t *world, uint64_t ms)
{
    world->now_ms += ms;
    for (uint32_t i = 0; i < world->node_count; i++) {
        world->nodes[i].wall_offset_ms = 0;
        wall_of(world, &world->nodes[i]);
    }
}

static bool is_converged(const world_t *world, const node_t *first)
{
    for (uint32_t i = 0; i < world->node_count; i++) {
        const node_t *node = &world->nodes[i];
        if (node->is_gone)
            continue;
        if (!cake__orswot_is_joined(node->set) ||
            !cake__context_equal(&cake__orswot_summary(node->set)->context,
                                 &cake__orswot_summary(first->set)->context) ||
            cake_orswot_fingerprint(node->set) != cake_orswot_fingerprint(first->set))
            return false;
    }
    return true;
}

static void sync_all(world_t *world, bool must_be_delta)
{
    for (uint32_t r = 0; r < world->node_count; r++) {
        for (uint32_t z = 0; z < world->node_count; z++) {
            if (r == z || world->nodes[r].is_gone || world->nodes[z].is_gone)
                continue;
            cake__session_mode_t mode = whole_session(world, &world->nodes[r], &world->nodes[z]);
            if (must_be_delta && mode != CAKE__MODE_DELTA)
                violate(world, "jam: equal contexts, and still no plain delta session");
        }
    }
}

static void acknowledge_all(world_t *world)
{
    for (uint32_t n = 0; n < world->node_count; n++) {
        for (uint32_t other = 0; other < world->node_count && !world->nodes[n].is_gone; other++) {
            node_t *node = &world->nodes[n], *peer = &world->nodes[other];
            if (other == n || peer->is_gone)
                continue;
            note_peer(peer, n, node->set->actor);
            must_be_ok(cake__context_join(&peer->peers[n].context, &cake__orswot_summary(node->set)->context));
        }
    }
}

static void check_clean_up(world_t *world)
{
    bool has_left = false;
    for (uint32_t i = 0; i < world->node_count; i++)
        has_left = has_left || world->nodes[i].is_gone;
    acknowledge_all(world);
    if (has_left) {
        pass_time(world, world->profile->silent_ms + 1);
        acknowledge_all(world);
    }
    for (uint32_t i = 0; i < world->node_count; i++) {
        node_t *node = &world->nodes[i];
        const cake__context_t *peers[NODES_MAX];
        cake__context_t nothing;
        cake__purge_t policy;
        size_t dropped;
        if (node->is_gone)
            continue;
        cake__context_init(&nothing, &cake__libc_alloc);
        purge_policy(world, node, &policy, peers, &nothing);
        must_be_ok(cake__change_purge(node_change(world, node), &policy, &dropped));
        node_settle(world, node);
        check_node(world, node);
        for (uint32_t key = 0; key < KEYS_MAX; key++) {
            cake_id_t id = id_of_key(key);
            cake_record_t record;
            if (!cake_orswot_get(node->set, &id, &record) || !record.is_tombstone)
                continue;
            bool has_hole =
                cake__context_base(&cake__orswot_summary(node->set)->context, record.dot.actor) < record.dot.seq;
            if (world->profile->holes_age || !has_hole)
                violate(world, "jam: a tombstone is never dropped by node %u", node->id);
            world->counts[COUNT_KEPT]++;
        }
    }
}

static node_t *declare_joined(world_t *world)
{
    node_t *chosen = NULL;
    uint64_t most = 0;
    for (uint32_t i = 0; i < world->node_count; i++) {
        node_t *node = &world->nodes[i];
        if (node->is_gone)
            continue;
        if (cake__orswot_is_joined(node->set))
            return node;
        uint64_t count = cake__context_count(&cake__orswot_summary(node->set)->context);
        if (chosen == NULL || count > most) {
            chosen = node;
            most = count;
        }
    }
    cake__orswot_set_joined(chosen->set, true); /* the decision of a human */
    chosen->image.is_joined = true;
    return chosen;
}

static void come_to_rest(world_t *world)
{
    memset(world->is_cut, 0, sizeof world->is_cut);
    for (uint32_t i = 0; i < world->node_count; i++) {
        if (!world->nodes[i].is_gone)
            node_settle(world, &world->nodes[i]);
    }
    for (size_t i = 0; i < world->late_batches.count; i++)
        messages_push(&world->network, world->late_batches.items[i]);
    world->late_batches.count = 0;
    for (size_t left = world->network.count; left > 0; left--) {
        node_t *touched = deliver_one(world);
        if (touched == NULL)
            continue;
        node_settle(world, touched);
        check_node(world, touched);
    }
    pass_time(world, 10000);
    for (uint32_t i = 0; i < world->node_count; i++) {
        node_t *node = &world->nodes[i];
        for (size_t k = 0; k < node->receiving_count && !node->is_gone; k++)
            cake__receiver_abort(node->receiving[k].receiver, "timeout");
    }
}

void quiet_phase(world_t *world)
{
    come_to_rest(world);
    node_t *first = declare_joined(world);
    uint32_t round = 0;
    do {
        if (++round > 4 * world->node_count + 4)
            violate(world, "jam: no convergence");
        sync_all(world, false);
    } while (!is_converged(world, first));
    world->counts[COUNT_ROUNDS] += round;
    for (size_t i = 0; i < world->history_count; i++) {
        const write_t *write = &world->history[i];
        if (write->is_acknowledged && write->acknowledged_by != 0 &&
            !cake__context_contains(&cake__orswot_summary(first->set)->context, write->record.dot))
            violate(world, "I4: an acknowledged write is gone");
    }
    uint64_t fingerprint = cake_orswot_fingerprint(first->set);
    check_clean_up(world);
    sync_all(world, true);
    if (!is_converged(world, first) || cake_orswot_fingerprint(first->set) != fingerprint)
        violate(world, "cleaning up changed a live set");
}
