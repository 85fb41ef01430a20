/* network.c: messages between nodes: sent, lost, repeated, late, and handled. */
#include <stdlib.h>

#include "crdt/model/world.h"

payload_t *payload_new(uint32_t kind)
{
    payload_t *payload = must(malloc(sizeof *payload));
    payload->references = 1;
    payload->kind = kind;
    payload->count = 0;
    payload->session_id = 0;
    cake__context_init(&payload->context, &cake__libc_alloc);
    cake__buf_init(&payload->bytes, &cake__libc_alloc);
    return payload;
}

void payload_release(payload_t *payload)
{
    if (--payload->references > 0)
        return;
    cake__context_free(&payload->context);
    cake__buf_free(&payload->bytes);
    free(payload);
}

void messages_push(messages_t *messages, message_t message)
{
    if (messages->count == messages->capacity) {
        messages->capacity = messages->capacity == 0 ? 64 : messages->capacity * 2;
        messages->items = must(realloc(messages->items, messages->capacity * sizeof message));
    }
    messages->items[messages->count++] = message;
}

static message_t messages_take(messages_t *messages, size_t at)
{
    message_t message = messages->items[at];
    memmove(messages->items + at, messages->items + at + 1, (messages->count - at - 1) * sizeof message);
    messages->count--;
    return message;
}

/* The caller keeps its own reference. */
void send_message(world_t *world, const node_t *source, uint32_t target, payload_t *payload, double loss)
{
    if (chance(world, loss))
        return;
    bool is_late = payload->kind == BATCH && chance(world, world->late_share);
    payload->references++;
    messages_push(is_late ? &world->late_batches : &world->network,
                  (message_t){source->id, source->boot, target, payload});
}

static void send_session(world_t *world, const node_t *source, uint32_t target, payload_t *payload)
{
    send_message(world, source, target, payload, 0.015);
    payload_release(payload);
}

bool link_is_up(const world_t *world, uint32_t a, uint32_t b)
{
    return !world->is_cut[a][b] && !world->nodes[a].is_gone && !world->nodes[b].is_gone;
}

void *tag_of(world_t *world, const cake_record_t *record)
{
    const write_t *write = find_write(world, record->dot);
    if (write == NULL)
        violate(world, "a record travels that was never written");
    return (void *)(uintptr_t)write->value;
}

/* ---- eager operations and acknowledgements ----------------------------------------------------------------------- */

void broadcast_outbox(world_t *world, node_t *node)
{
    payload_t *batch = payload_new(BATCH);
    memcpy(batch->records, node->outbox, node->outbox_count * sizeof *node->outbox);
    batch->count = node->outbox_count;
    node->outbox_count = 0;
    for (uint32_t peer = 0; peer < world->node_count; peer++) {
        if (peer != node->id)
            send_message(world, node, peer, batch, world->eager_loss);
    }
    payload_release(batch);
}

void acknowledge_batch(world_t *world, node_t *node, uint32_t writer, const payload_t *batch)
{
    const cake__context_t *context =
        CAKE__MUTANT(ackvolatile) ? cake__change_context(node->change) : &cake__orswot_summary(node->set)->context;
    payload_t *ack = payload_new(BATCH_ACK);
    for (size_t i = 0; i < batch->count; i++) {
        if (!cake__context_contains(context, batch->records[i].dot) && !CAKE__MUTANT(ackrejected))
            continue;
        ack->records[ack->count++] = batch->records[i];
        find_write(world, batch->records[i].dot)->promised |= 1u << node->id;
    }
    send_message(world, node, writer, ack, 0.015);
    payload_release(ack);
}

void acknowledge_context(world_t *world, node_t *node)
{
    const cake__context_t *context = &cake__orswot_summary(node->set)->context;
    if (CAKE__MUTANT(ackmemory) && node->change != NULL)
        context = cake__change_context(node->change);
    payload_t *ack = payload_new(CONTEXT_ACK);
    ack->actor = node->set->actor;
    must_be_ok(cake__context_copy(&ack->context, context));
    must_be_ok(cake__context_join(&node->promised_context, context));
    for (uint32_t peer = 0; peer < world->node_count; peer++) {
        if (peer != node->id)
            send_message(world, node, peer, ack, 0.5);
    }
    payload_release(ack);
}

static bool on_batch(world_t *world, node_t *node, uint32_t writer, payload_t *batch)
{
    if (node_is_busy(node) || node->staged_batch_count == BATCH_MAX)
        return false;
    cake__change_t *change = node_change(world, node);
    for (size_t i = 0; i < batch->count; i++) {
        cake_verdict_t verdict;
        must_be_ok(cake__change_receive(change, &batch->records[i], CAKE_SOURCE_EAGER,
                                        tag_of(world, &batch->records[i]), &verdict));
    }
    batch->references++;
    node->staged_batches[node->staged_batch_count].writer = writer;
    node->staged_batches[node->staged_batch_count++].batch = batch;
    if (CAKE__MUTANT(ackvolatile))
        acknowledge_batch(world, node, writer, batch);
    return true;
}

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

static receiving_t *find_receiving(node_t *node, uint64_t session_id)
{
    for (size_t i = 0; i < node->receiving_count; i++) {
        if (cake__receiver_hello(node->receiving[i].receiver)->session_id == session_id)
            return &node->receiving[i];
    }
    return NULL;
}

static sending_t *find_sending(node_t *node, uint64_t session_id)
{
    for (size_t i = 0; i < node->sending_count; i++) {
        if (node->sending[i].session_id == session_id)
            return &node->sending[i];
    }
    return NULL;
}

void open_session(world_t *world, node_t *node)
{
    uint32_t peer = (uint32_t)pick(world, world->node_count), open_now = 0;
    for (size_t i = 0; i < node->receiving_count; i++)
        open_now += cake__receiver_phase(node->receiving[i].receiver) < CAKE__PHASE_FINISHED;
    if (peer == node->id || !link_is_up(world, node->id, peer) || open_now >= world->sessions_at_once)
        return;
    if (node->receiving_count == SESSIONS_MAX) {
        cake__receiver_free(node->receiving[0].receiver);
        memmove(node->receiving, node->receiving + 1, --node->receiving_count * sizeof *node->receiving);
    }
    receiving_t *receiving = &node->receiving[node->receiving_count++];
    *receiving = (receiving_t){.peer = peer, .since_step = world->step};
    must_be_ok(cake__receiver_new(node->set, (uint16_t)node->id, world->next_session_id++, &receiving->receiver));
    payload_t *payload = payload_new(HELLO);
    payload->session_id = cake__receiver_hello(receiving->receiver)->session_id;
    cake__hello_encode(cake__receiver_hello(receiving->receiver), &payload->bytes);
    send_session(world, node, peer, payload);
}

static void on_hello(world_t *world, node_t *node, uint32_t peer, const payload_t *payload)
{
    cake__reader_t reader = cake__reader(payload->bytes.data, payload->bytes.len);
    cake__hello_t hello;
    cake__welcome_t welcome;
    if (find_sending(node, payload->session_id) != NULL)
        return;
    must_be_ok(cake__hello_decode(&hello, &cake__libc_alloc, &reader));
    note_peer(node, peer, hello.actor);
    if (node->sending_count == SESSIONS_MAX) {
        cake__sender_free(node->sending[0].sender);
        memmove(node->sending, node->sending + 1, --node->sending_count * sizeof *node->sending);
    }
    sending_t *sending = &node->sending[node->sending_count++];
    *sending = (sending_t){.session_id = hello.session_id, .peer = peer};
    must_be_ok(
        cake__sender_new(node->set, (uint16_t)node->id, &hello, cake__random_u64(&world->random), &sending->sender));
    must_be_ok(cake__sender_welcome(sending->sender, &welcome));
    payload_t *answer = payload_new(WELCOME);
    answer->session_id = hello.session_id;
    cake__welcome_encode(&welcome, &answer->bytes);
    send_session(world, node, peer, answer);
    cake__welcome_free(&welcome);
    cake__hello_free(&hello);
}

static void on_compare(world_t *world, node_t *node, uint32_t peer, const payload_t *payload)
{
    cake__reader_t reader = cake__reader(payload->bytes.data, payload->bytes.len);
    cake__compare_t compare;
    cake__compared_t compared;
    sending_t *sending = find_sending(node, payload->session_id);
    if (sending == NULL)
        return;
    must_be_ok(cake__compare_decode(&compare, &cake__libc_alloc, &reader));
    if (cake__sender_compare(sending->sender, &compare, &compared) == 0) {
        payload_t *answer = payload_new(COMPARED);
        answer->session_id = payload->session_id;
        cake__compared_encode(&compared, &answer->bytes);
        send_session(world, node, peer, answer);
        cake__compared_free(&compared, &cake__libc_alloc);
    }
    cake__compare_free(&compare, &cake__libc_alloc);
}

static void receive_chunk(world_t *world, node_t *node, cake__receiver_t *receiver, const payload_t *payload)
{
    void *tags[BATCH_MAX];
    for (size_t i = 0; i < payload->count; i++)
        tags[i] = tag_of(world, &payload->records[i]);
    cake__chunk_t chunk = {.session_id = payload->session_id,
                           .token = payload->token,
                           .index = payload->index,
                           .records = payload->records,
                           .tags = tags,
                           .count = payload->count};
    must_be_ok(cake__receiver_on_chunk(receiver, node_change(world, node), &chunk));
}

static void receive_encoded(world_t *world, node_t *node, receiving_t *receiving, const payload_t *payload)
{
    cake__reader_t reader = cake__reader(payload->bytes.data, payload->bytes.len);
    cake__change_t *change = node_change(world, node);
    if (payload->kind == WELCOME) {
        cake__welcome_t welcome;
        must_be_ok(cake__welcome_decode(&welcome, &cake__libc_alloc, &reader));
        note_peer(node, receiving->peer, welcome.actor);
        must_be_ok(cake__receiver_on_welcome(receiving->receiver, change, &welcome));
        cake__welcome_free(&welcome);
    } else if (payload->kind == FIN) {
        cake__fin_t fin;
        must_be_ok(cake__fin_decode(&fin, &cake__libc_alloc, &reader));
        must_be_ok(cake__receiver_on_fin(receiving->receiver, change, &fin));
        cake__fin_free(&fin);
    } else {
        cake__compared_t compared;
        must_be_ok(cake__compared_decode(&compared, &cake__libc_alloc, &reader));
        must_be_ok(cake__receiver_on_compared(receiving->receiver, change, &compared));
        cake__compared_free(&compared, &cake__libc_alloc);
    }
    if (!cake__reader_done(&reader))
        violate(world, "a message is longer than what is read of it");
}

/* False: the node cannot take it now. */
static bool on_receiver_message(world_t *world, node_t *node, const payload_t *payload)
{
    receiving_t *receiving = find_receiving(node, payload->session_id);
    if (receiving == NULL)
        return true;
    if (node_is_busy(node))
        return false;
    if (payload->kind == CHUNK)
        receive_chunk(world, node, receiving->receiver, payload);
    else
        receive_encoded(world, node, receiving, payload);
    note_outcome(world, receiving);
    return true;
}

void note_outcome(world_t *world, receiving_t *receiving)
{
    cake__session_phase_t phase = cake__receiver_phase(receiving->receiver);
    cake__session_mode_t mode = cake__receiver_mode(receiving->receiver);
    const char *reason = cake__receiver_reason(receiving->receiver);
    if (is_strict(world) &&
        (mode == CAKE__MODE_REPAIR || mode == CAKE__MODE_JOIN || strstr(reason, "the sender dropped") != NULL))
        violate(world, "strict run: session mode %d, %s", (int)mode, reason);
    if (receiving->is_counted || phase < CAKE__PHASE_FINISHED)
        return;
    receiving->is_counted = true;
    world->counts[phase == CAKE__PHASE_ABORTED ? COUNT_ABORTED
                  : mode == CAKE__MODE_JOIN    ? COUNT_JOIN
                  : mode == CAKE__MODE_DELTA   ? COUNT_DELTA
                                               : COUNT_REPAIR]++;
}

static void pump_sender(world_t *world, node_t *node, sending_t *sending)
{
    bool has_more;
    must_be_ok(cake__sender_step(sending->sender, &has_more));
    payload_t *chunk = payload_new(CHUNK);
    cake__fin_t fin;
    bool has_fin;
    size_t limit = 1 + (size_t)pick(world, world->chunk_limit);
    must_be_ok(cake__sender_next(sending->sender, limit, chunk->records, &chunk->count, &chunk->index, &has_fin, &fin));
    chunk->session_id = sending->session_id;
    chunk->token = cake__sender_token(sending->sender);
    if (chunk->count > 0)
        send_message(world, node, sending->peer, chunk, 0.015);
    payload_release(chunk);
    if (!has_fin)
        return;
    sending->is_finished = true;
    payload_t *payload = payload_new(FIN);
    payload->session_id = sending->session_id;
    cake__fin_encode(&fin, &payload->bytes);
    send_session(world, node, sending->peer, payload);
    cake__fin_free(&fin);
}

static void pump_receiver(world_t *world, node_t *node, receiving_t *receiving)
{
    cake__compare_t compare;
    bool has;
    if (cake__receiver_is_finishing(receiving->receiver)) {
        if (!node_is_busy(node))
            must_be_ok(cake__receiver_go_on(receiving->receiver, node_change(world, node)));
        note_outcome(world, receiving);
        return;
    }
    if (chance(world, 0.5)) {
        must_be_ok(cake__receiver_step(receiving->receiver, &has));
        return;
    }
    must_be_ok(cake__receiver_next_compare(receiving->receiver, 1 + (size_t)pick(world, 3), &has, &compare));
    if (!has)
        return;
    payload_t *payload = payload_new(COMPARE);
    payload->session_id = compare.session_id;
    cake__compare_encode(&compare, &payload->bytes);
    send_session(world, node, receiving->peer, payload);
    cake__compare_free(&compare, &cake__libc_alloc);
}

void pump_sessions(world_t *world)
{
    for (uint32_t n = 0; n < world->node_count; n++) {
        node_t *node = &world->nodes[n];
        if (node->is_gone)
            continue;
        for (size_t i = 0; i < node->sending_count; i++) {
            if (!node->sending[i].is_finished && chance(world, 0.6))
                pump_sender(world, node, &node->sending[i]);
        }
        for (size_t i = 0; i < node->receiving_count; i++) {
            if (cake__receiver_phase(node->receiving[i].receiver) == CAKE__PHASE_RUNNING && chance(world, 0.6))
                pump_receiver(world, node, &node->receiving[i]);
        }
    }
}

void expire_sessions(world_t *world, node_t *node)
{
    for (size_t i = 0; i < node->receiving_count; i++) {
        receiving_t *receiving = &node->receiving[i];
        if (world->step - receiving->since_step > TIMEOUT_STEPS)
            cake__receiver_abort(receiving->receiver, "timeout");
        note_outcome(world, receiving);
    }
}

/* ---- delivery ---------------------------------------------------------------------------------------------------- */

/* False: the node cannot take it now, and nothing has happened. */
static bool dispatch(world_t *world, node_t *node, message_t message)
{
    payload_t *payload = message.payload;
    wall_of(world, node);
    switch (payload->kind) {
    case BATCH:
        return on_batch(world, node, message.source, payload);
    case BATCH_ACK:
        for (size_t i = 0; i < payload->count; i++)
            count_durable(world, node, message.source, payload->records[i].dot);
        return true;
    case CONTEXT_ACK:
        note_peer(node, message.source, payload->actor);
        must_be_ok(cake__context_join(&node->peers[message.source].context, &payload->context));
        return true;
    case HELLO:
        on_hello(world, node, message.source, payload);
        return true;
    case COMPARE:
        on_compare(world, node, message.source, payload);
        return true;
    default:
        return on_receiver_message(world, node, payload);
    }
}

node_t *deliver(world_t *world, message_t message)
{
    node_t *target = &world->nodes[message.target];
    /* The first message of a new connection ends everything still queued from the older ones. */
    bool is_stale = message.source_boot < target->newest_boot_heard[message.source];
    if (is_stale || !link_is_up(world, message.source, message.target)) {
        payload_release(message.payload);
        return NULL;
    }
    target->newest_boot_heard[message.source] = message.source_boot;
    if (!dispatch(world, target, message)) {
        messages_push(&world->network, message);
        return NULL;
    }
    payload_release(message.payload);
    return target;
}

node_t *deliver_one(world_t *world)
{
    size_t count = world->network.count;
    if (count == 0)
        return NULL;
    /* Mostly old messages first, so that sessions make progress; sometimes any message. */
    size_t window = chance(world, 0.3) ? count : (size_t)cake__min_u64(3, count);
    message_t message = messages_take(&world->network, (size_t)pick(world, window));
    if (chance(world, world->repeat_share)) {
        message.payload->references++;
        messages_push(&world->network, message);
    }
    return deliver(world, message);
}

void deliver_late_batch(world_t *world, node_t *node)
{
    size_t count = world->late_batches.count, start = count == 0 ? 0 : (size_t)pick(world, count);
    for (size_t i = 0; i < count; i++) {
        size_t at = (start + i) % count;
        if (world->late_batches.items[at].target == node->id) {
            (void)deliver(world, messages_take(&world->late_batches, at));
            return;
        }
    }
}
