/* What goes out: one queue per peer, batches by size and interval, at once where a write waits for that peer.
 *
 *   peer->queue   [unit][unit][unit] ...   ──batch──>   peer->flights (at most CAKE__PEER_BATCHES_MAX under way)
 *
 * A queue is bounded in bytes: a peer that falls behind loses its queue, not this node its memory, and catches up by a
 * session when it sees our context. So does a peer whose batch failed. Units are shared: a slow peer delays no
 * other. */
#include "store/pack.h"

#define BATCH_UNITS_MAX   8192u
#define BATCH_TIMEOUT_MS  10000u
#define BATCH_PATH        "/" CAKE__STORE_SERVICE "/batch"
#define PLAIN_BATCHES_MAX 64u /* sent without a try to pack, where values do not */

/* A batch under way. */
typedef struct {
    cake__list_t link;
    cake__peer_t *peer;
    cake_store_t *store;
    uint16_t node_id;
    uint64_t id;
    cake_timer_t timer;       /* no answer, and no word that it is being written */
    cake__outcall_t *outcall; /* until it is answered */
    size_t count;
    cake__unit_t *units[];
} flight_t;

static void flush_later(cake__peer_t *peer);

/* ---- units --------------------------------------------------------------------------------------------------------*/

cake__unit_t *cake__unit_new(cake_store_t *store, size_t len, uint32_t count, cake__write_t *write)
{
    cake__unit_t *unit = cake__malloc(store->alloc, sizeof *unit + len);
    if (unit == NULL)
        return NULL;
    *unit = (cake__unit_t){.refs = 1, .count = count, .write = write, .len = len};
    unit->made_ns = cake__now_ns(store->env);
    return unit;
}

void cake__unit_release(cake_store_t *store, cake__unit_t *unit)
{
    CAKE_ASSERT(unit->refs > 0);
    if (--unit->refs == 0)
        cake__free(store->alloc, unit);
}

/* ---- queues -------------------------------------------------------------------------------------------------------*/

static cake__unit_t *dequeue(cake__peer_t *peer)
{
    cake__list_t *link = cake__list_pop_front(&peer->queue);
    cake__queued_t *queued = CAKE_CONTAINER_OF(link, cake__queued_t, link);
    cake__unit_t *unit = queued->unit;
    peer->queue_bytes -= unit->len;
    peer->queue_count--;
    cake__free(peer->store->alloc, queued);
    return unit;
}

void cake__peer_drop_queue(cake__peer_t *peer)
{
    while (!cake__list_is_empty(&peer->queue))
        cake__unit_release(peer->store, dequeue(peer));
    CAKE_ASSERT(peer->queue_bytes == 0 && peer->queue_count == 0);
    peer->store->env->ops->timer_cancel(peer->store->env, &peer->flush_timer);
}

/* A unit that finds no memory is not sent, nor are those before it (and those that are glued to it): the peer sees
 * in our next pulse that it lacks something. */
void cake__peer_enqueue(cake__peer_t *peer, cake__unit_t *unit, bool is_urgent)
{
    cake_store_t *store = peer->store;
    if (unit->is_glued && peer->queue_count == 0)
        return; /* the queue has been dropped */
    if (peer->queue_bytes + unit->len > store->options.queue_bytes) {
        cake__log(store->log, CAKE_LOG_WARN, "node %u falls behind: %zu writes leave its queue, a session will follow",
                  (unsigned)peer->node_id, peer->queue_count + 1);
        cake__peer_drop_queue(peer);
        return;
    }
    cake__queued_t *queued = cake__malloc(store->alloc, sizeof *queued);
    if (queued == NULL) {
        cake__peer_drop_queue(peer);
        return;
    }
    queued->unit = unit;
    unit->refs++;
    cake__list_init(&queued->link);
    cake__list_push_back(&peer->queue, &queued->link);
    peer->queue_bytes += unit->len;
    peer->queue_count++;
    peer->is_urgent |= is_urgent;
    if (peer->is_urgent || peer->queue_bytes >= store->options.batch_bytes)
        flush_later(peer);
    else if (!peer->flush_timer.is_armed)
        cake__timer_arm_ms(store->env, &peer->flush_timer, store->options.batch_interval_ms);
}

void cake__distribute(cake_store_t *store, cake__unit_t *unit)
{
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        if (cake__peer_is_there(peer) && peer->has_store)
            cake__peer_enqueue(peer, unit, unit->write != NULL && cake__write_wants(unit->write, peer->node_id));
    }
}

/* ---- batches ------------------------------------------------------------------------------------------------------*/

/* At the end of the turn: all that one commit brought goes into one batch. */
static void flush_later(cake__peer_t *peer)
{
    peer->is_flush_due = true;
    peer->store->env->ops->defer(peer->store->env, &peer->store->flush);
}

void cake__peer_flush_urgent(cake__peer_t *peer)
{
    if (peer->queue_count == 0)
        return;
    peer->is_urgent = true;
    flush_later(peer);
}

static void free_flight(flight_t *flight)
{
    for (size_t i = 0; i < flight->count; i++)
        cake__unit_release(flight->store, flight->units[i]);
    cake__free(flight->store->alloc, flight);
}

static void settle(flight_t *flight, const uint8_t *bitmap)
{
    for (size_t i = 0; i < flight->count; i++) {
        cake__write_t *write = flight->units[i]->write;
        bool is_acked = bitmap != NULL && (bitmap[i / 8] >> (i % 8) & 1) != 0;
        if (write != NULL && is_acked)
            cake__write_acked(write, flight->node_id);
        else if (write != NULL)
            cake__write_lost_peer(write);
    }
}

static void on_flight_timeout(void *arg)
{
    flight_t *flight = arg;
    cake_call_cancel(flight->outcall->call);
}

void cake__flight_goes_on(cake__peer_t *peer, uint64_t flight_id)
{
    CAKE_LIST_FOR_EACH(link, &peer->flights)
    {
        flight_t *flight = CAKE_CONTAINER_OF(link, flight_t, link);
        if (flight->id == flight_id)
            cake__timer_arm_ms(peer->store->env, &flight->timer, BATCH_TIMEOUT_MS);
    }
}

static void on_batch_answered(cake_reply_t *reply, void *arg)
{
    flight_t *flight = arg;
    cake_store_t *store = flight->store;
    store->env->ops->timer_cancel(store->env, &flight->timer);
    cake__peer_t *peer = flight->peer; /* NULL when it was forgotten meanwhile */
    cake_slice_t body = cake_reply_body(reply);
    cake__reader_t reader = cake__reader(body.data, body.len);
    cake__hail_t hail;
    const uint8_t *bitmap = NULL;
    int err = cake_reply_err(reply);
    if (err == 0)
        err = cake__get_hail(store, &reader, &hail);
    if (err == 0) {
        bitmap = cake__get_bytes(&reader, (flight->count + 7) / 8);
        err = cake__reader_done(&reader) ? 0 : CAKE_EPARSE;
    }
    if (err == 0)
        cake__peer_heard(store, &hail);
    store->stats.batches_failed += err != 0;
    settle(flight, err == 0 ? bitmap : NULL);
    if (peer != NULL) {
        cake__list_remove(&flight->link);
        peer->flight_count--;
        bool was_due = !peer->flush_timer.is_armed; /* and found too many batches under way */
        if (peer->queue_count > 0 && (was_due || peer->is_urgent || peer->queue_bytes >= store->options.batch_bytes))
            flush_later(peer);
    }
    free_flight(flight);
    cake_reply_free(reply);
}

static flight_t *make_flight(cake__peer_t *peer, size_t *bytes)
{
    size_t count = 0;
    *bytes = 0;
    CAKE_LIST_FOR_EACH(link, &peer->queue)
    {
        const cake__unit_t *unit = CAKE_CONTAINER_OF(link, cake__queued_t, link)->unit;
        bool is_full = count >= BATCH_UNITS_MAX || *bytes + unit->len > peer->store->options.batch_bytes;
        if (count > 0 && is_full && !unit->is_glued)
            break;
        *bytes += unit->len;
        count++;
    }
    flight_t *flight = cake__malloc(peer->store->alloc, sizeof *flight + count * sizeof flight->units[0]);
    if (flight == NULL)
        return NULL;
    *flight = (flight_t){.peer = peer, .store = peer->store, .node_id = peer->node_id, .count = count};
    flight->id = ++peer->store->next_flight_id;
    flight->timer = CAKE_TIMER_INIT(on_flight_timeout, flight);
    cake__list_init(&flight->link);
    for (size_t i = 0; i < count; i++)
        flight->units[i] = dequeue(peer);
    return flight;
}

static bool has_same_units(const flight_t *a, const flight_t *b)
{
    return a->count == b->count && memcmp(a->units, b->units, a->count * sizeof(cake__unit_t *)) == 0;
}

/* Packs the units into store->packed, where they may lie already: peers that a level waits for get the same ones.
 * Where values do not pack, the next batches go out as they are: each try that fails doubles their number. */
static bool pack_units(flight_t *flight, size_t bytes)
{
    cake_store_t *store = flight->store;
    cake__peer_t *peer = flight->peer;
    if (!peer->reads_packed || store->options.no_compression || bytes < CAKE__PACK_MIN)
        return false;
    if (store->packed_flight != NULL && has_same_units(flight, CAKE_CONTAINER_OF(store->packed_flight, flight_t, link)))
        return true;
    if (peer->plain_batches > 0) {
        peer->plain_batches--;
        return false;
    }
    cake__buf_t raw;
    cake__buf_init(&raw, store->alloc);
    cake__buf_reserve(&raw, bytes + 10);
    cake__put_varint(&raw, flight->count);
    for (size_t i = 0; i < flight->count; i++)
        cake__put_bytes(&raw, flight->units[i]->bytes, flight->units[i]->len);
    cake__buf_clear(&store->packed);
    store->packed_flight = NULL;
    bool is_packed = raw.err == 0 && cake__pack(&store->packing, cake__buf_slice(&raw), &store->packed);
    cake__buf_free(&raw);
    peer->pack_misses = is_packed ? 0 : peer->pack_misses + 1;
    if (is_packed)
        store->packed_flight = &flight->link;
    else
        peer->plain_batches = peer->pack_misses < 6 ? 1u << peer->pack_misses : PLAIN_BATCHES_MAX;
    return is_packed;
}

static int call_batch(flight_t *flight, bool is_packed)
{
    cake_store_t *store = flight->store;
    cake__buf_t head;
    cake__buf_init(&head, store->alloc);
    cake__put_hail(store, &head);
    cake__put_u64(&head, flight->id);
    if (!is_packed) {
        cake__put_u8(&head, CAKE__PAYLOAD_PLAIN);
        cake__put_varint(&head, flight->count);
    }
    size_t count = is_packed ? 1 : flight->count;
    cake_slice_t *parts = cake__malloc(store->alloc, (count + 1) * sizeof *parts);
    int err = head.err != 0 ? head.err : parts == NULL ? CAKE_ENOMEM : 0;
    if (err == 0) {
        parts[0] = cake__buf_slice(&head);
        if (is_packed)
            parts[1] = cake__buf_slice(&store->packed);
        for (size_t i = 0; !is_packed && i < flight->count; i++)
            parts[i + 1] = cake__slice(flight->units[i]->bytes, flight->units[i]->len);
        err = cake__store_call_path(store, flight->node_id, BATCH_PATH, parts, count + 1, CAKE_NO_TIMEOUT,
                                    on_batch_answered, flight, &flight->outcall);
    }
    cake__free(store->alloc, parts);
    cake__buf_free(&head);
    return err;
}

static int send_batch(cake__peer_t *peer)
{
    cake_store_t *store = peer->store;
    size_t bytes;
    flight_t *flight = make_flight(peer, &bytes);
    if (flight == NULL)
        return CAKE_ENOMEM;
    bool is_packed = pack_units(flight, bytes);
    int err = call_batch(flight, is_packed);
    if (err != 0) {
        store->packed_flight = NULL; /* it may have been this one */
        settle(flight, NULL);
        free_flight(flight);
        return err;
    }
    cake__timer_arm_ms(store->env, &flight->timer, BATCH_TIMEOUT_MS);
    cake__list_push_back(&peer->flights, &flight->link);
    peer->flight_count++;
    size_t sent = is_packed ? store->packed.len : bytes;
    store->stats.batches_sent++;
    store->stats.batch_bytes_sent += sent;
    store->stats.batch_bytes_saved += bytes - cake__min_u64(bytes, sent);
    return 0;
}

static void flush_peer(cake__peer_t *peer)
{
    peer->is_flush_due = false;
    while (peer->queue_count > 0 && peer->flight_count < CAKE__PEER_BATCHES_MAX) {
        if (send_batch(peer) != 0) {
            cake__peer_drop_queue(peer);
            break;
        }
    }
    if (peer->queue_count == 0) {
        peer->is_urgent = false;
        peer->store->env->ops->timer_cancel(peer->store->env, &peer->flush_timer);
    }
}

void cake__flush_peers(void *arg)
{
    cake_store_t *store = arg;
    if (store->state != CAKE__STORE_RUNNING)
        return;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        if (peer->is_flush_due)
            flush_peer(peer);
    }
    store->packed_flight = NULL; /* flights end between turns */
    if (store->packed.capacity > 2 * store->options.batch_bytes)
        cake__buf_free(&store->packed);
}

uint64_t cake__peer_oldest_ns(const cake__peer_t *peer)
{
    uint64_t oldest = CAKE_NEVER;
    CAKE_LIST_FOR_EACH(link, &peer->flights)
    {
        const flight_t *flight = CAKE_CONTAINER_OF(link, flight_t, link);
        oldest = cake__min_u64(oldest, flight->units[0]->made_ns);
    }
    if (!cake__list_is_empty(&peer->queue)) {
        const cake__queued_t *first = CAKE_CONTAINER_OF(peer->queue.next, cake__queued_t, link);
        oldest = cake__min_u64(oldest, first->unit->made_ns);
    }
    return oldest;
}

/* The peer is going: what is under way to it answers to nobody. */
void cake__peer_detach_flights(cake__peer_t *peer)
{
    cake__list_t *link;
    while ((link = cake__list_pop_front(&peer->flights)) != NULL)
        CAKE_CONTAINER_OF(link, flight_t, link)->peer = NULL;
}
