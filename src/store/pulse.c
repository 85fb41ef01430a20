/* Pulses: once a second every node tells every peer the digest of its contexts, and the contexts of the keyspaces that
 * have changed since it told them last. So peers learn what is durable here (for levels and for dropping tombstones),
 * and what they lack; equal digests mean that nothing is to be done, at the cost of some thirty bytes. Peers that were
 * equal when asked last, with nothing changed since, are asked every sync_interval_ms.
 *
 *   pulse  hail, is_complete u8, count varint, entries: keyspace string, context    answer  hail, is_equal u8
 *   list   hail, after string, a digest u64 per bucket of keyspaces                 answer  hail, has_more u8, entries
 *
 * A list names every keyspace of the buckets that differ: for first contacts, and for differences that pulses do not
 * explain.
 *
 * A table of retired actors goes by its hash in pulses to a peer that knows it; in lists it goes whole. */
#include "store/store.h"

#define PULSE_TIMEOUT_MS    5000u
#define LIST_BYTES          (1u << 20)
#define UNEXPLAINED_MAX     3u
#define ABSENT_PULSE_FACTOR 10u /* members without a store are asked so much less often */

/* A pulse or list under way. */
typedef struct {
    cake_store_t *store;
    uint16_t node_id;
    uint64_t actor, version, told_version;
    bool is_partial; /* more contexts are to be told */
    char after[CAKE_KEYSPACE_NAME_MAX + 1];
    void (*listed)(cake_store_t *store, uint16_t node_id, int err);
} asking_t;

static asking_t *make_asking(cake__peer_t *peer)
{
    asking_t *asking = cake__calloc(peer->store->alloc, 1, sizeof *asking);
    if (asking == NULL)
        return NULL;
    asking->store = peer->store;
    asking->node_id = peer->node_id;
    asking->actor = peer->actor;
    asking->version = peer->store->version;
    asking->told_version = peer->told_version;
    return asking;
}

/* ---- entries: what peers have -------------------------------------------------------------------------------------*/

/* The peer has this table itself, or got it whole in a pulse that it answered, and keeps it for as long as we both
 * run. */
static bool knows_table(const cake__peer_t *peer, const cake__acked_t *theirs, uint64_t hash)
{
    bool was_told = theirs->told_table == hash && theirs->told_serial <= peer->answered_serial &&
                    theirs->told_serial > peer->failed_serial;
    return was_told || (theirs->context.retired != NULL && theirs->context.retired->hash == hash);
}

/* In a pulse to it; NULL: for who may know nothing. */
static void put_entry(cake__buf_t *out, cake__keyspace_t *keyspace, const cake__peer_t *peer)
{
    const cake__retired_t *table = cake__keyspace_context(keyspace)->retired;
    cake__acked_t *theirs = peer == NULL || table == NULL ? NULL : cake__keyspace_acked(keyspace, peer->node_id, true);
    bool is_known = theirs != NULL && knows_table(peer, theirs, table->hash);
    cake__put_string(out, cake__slice_str(keyspace->name));
    cake__context_encode_known(cake__keyspace_context(keyspace), is_known ? table->hash : 0, out);
    if (theirs != NULL && !is_known) {
        theirs->told_table = table->hash;
        theirs->told_serial = peer->pulse_serial;
    }
}

/* It has named the table that we told, which may be no longer ours, or told its own, which it then shares with us. */
static int share_table(cake__context_t *context, const cake__keyspace_t *keyspace, const cake__acked_t *acked)
{
    cake__retired_t *ours = cake__keyspace_context(keyspace)->retired;
    int err = cake__context_resolve(context, ours);
    if (err == CAKE_ECONFLICT)
        err = cake__context_resolve(context, acked->context.retired);
    if (err == 0 && context->retired != ours && cake__retired_same(context->retired, ours)) {
        cake__retired_release(context->retired);
        context->retired = cake__retired_share(ours);
    }
    return err;
}

/* One entry of a peer: what it has acknowledged, and whether we lack some of it. */
static int take_entry(cake_store_t *store, cake__peer_t *peer, cake__reader_t *reader, uint64_t delay_ms,
                      bool is_forced)
{
    cake_slice_t name = cake__get_string(reader, CAKE_KEYSPACE_NAME_MAX);
    cake__context_t context;
    cake__keyspace_t *keyspace;
    if (reader->err != 0)
        return CAKE_EPARSE;
    cake__context_init(&context, store->alloc);
    int err = cake__context_decode(&context, reader);
    if (err == 0)
        err = cake__keyspace_find(store, name, true, &keyspace);
    cake__acked_t *acked = err != 0 ? NULL : cake__keyspace_acked(keyspace, peer->node_id, true);
    if (err == 0)
        err = acked == NULL ? CAKE_ENOMEM : share_table(&context, keyspace, acked);
    if (err == CAKE_ECONFLICT) { /* a run of one of us has ended meanwhile; it hears of that */
        cake__context_free(&context);
        return 0;
    }
    if (err == 0)
        err = cake__context_join(&acked->context, &context);
    if (err == 0) {
        cake__writes_check_context(keyspace, peer->node_id, &context);
        if (is_forced || !cake__context_covers(cake__keyspace_context(keyspace), &context))
            err = cake__want(keyspace, peer->node_id, &context, delay_ms, is_forced);
    }
    cake__context_free(&context);
    return err;
}

static void note_equal(cake__peer_t *peer, uint64_t version)
{
    peer->equal_version = cake__max_u64(peer->equal_version, version);
    peer->told_version = cake__max_u64(peer->told_version, version);
    peer->has_mismatch = false;
    peer->unexplained = 0;
    peer->is_compared = true;
}

/* ---- sending pulses -----------------------------------------------------------------------------------------------*/

/* The first changed keyspace that the peer was not told of; store->changed is ordered by changed_version. */
static cake__list_t *first_untold(cake_store_t *store, uint64_t told_version)
{
    cake__list_t *at = &store->changed;
    while (at->prev != &store->changed &&
           CAKE_CONTAINER_OF(at->prev, cake__keyspace_t, changed_link)->changed_version > told_version)
        at = at->prev;
    return at;
}

/* A first pulse to a new run carries the digest alone: after a restart all is mostly equal. */
static void put_pulse(cake__peer_t *peer, asking_t *asking, cake__buf_t *out)
{
    cake_store_t *store = peer->store;
    cake__buf_t entries;
    uint64_t count = 0;
    bool is_probe = peer->told_version == 0 && !peer->has_mismatch;
    cake__buf_init(&entries, store->alloc);
    cake__list_t *at = is_probe ? &store->changed : first_untold(store, peer->told_version);
    for (; at != &store->changed && entries.len < CAKE__PULSE_BYTES; at = at->next, count++) {
        cake__keyspace_t *keyspace = CAKE_CONTAINER_OF(at, cake__keyspace_t, changed_link);
        put_entry(&entries, keyspace, peer);
        asking->told_version = keyspace->changed_version;
    }
    cake__put_hail(store, out);
    asking->is_partial = is_probe || at != &store->changed;
    cake__put_u8(out, !asking->is_partial);
    cake__put_varint(out, count);
    cake__put_bytes(out, entries.data, entries.len);
    if (entries.err != 0)
        out->err = entries.err;
    cake__buf_free(&entries);
}

static void on_pulse_answered(cake_reply_t *reply, void *arg)
{
    asking_t *asking = arg;
    cake_store_t *store = asking->store;
    cake_slice_t body = cake_reply_body(reply);
    cake__reader_t reader = cake__reader(body.data, body.len);
    cake__hail_t hail;
    bool is_equal = false;
    int err = cake_reply_err(reply);
    store->stats.pulse_bytes += body.len;
    if (err == 0)
        err = cake__get_hail(store, &reader, &hail);
    if (err == 0) {
        is_equal = cake__get_u8(&reader) == 1;
        err = cake__reader_done(&reader) ? 0 : CAKE_EPARSE;
    }
    cake__peer_t *peer = err == 0 ? cake__peer_heard(store, &hail) : cake__peer_find(store, asking->node_id);
    if (peer != NULL) {
        peer->is_pulsing = false;
        *(err == 0 && peer->actor == asking->actor ? &peer->answered_serial : &peer->failed_serial) =
            peer->pulse_serial;
        if (err != CAKE_EBUSY) /* it has not heard of this run yet, and will in a moment */
            peer->pulse_failures = err == 0 ? 0 : peer->pulse_failures + 1;
        if (err == CAKE_EUNAVAILABLE)
            peer->has_store = false;
    }
    bool is_same_run = peer != NULL && err == 0 && (asking->actor == 0 || peer->actor == asking->actor);
    if (is_same_run && is_equal) {
        note_equal(peer, asking->version);
        cake__writes_acked_all(store, peer->node_id, asking->version);
    } else if (is_same_run) {
        peer->told_version = cake__max_u64(peer->told_version, asking->told_version);
        peer->has_mismatch = true;
        peer->pulses_again |= asking->is_partial;
    }
    if (peer != NULL && peer->pulses_again && err == 0)
        cake__pulse_peer(peer);
    cake__join_try(store);
    cake__free(store->alloc, asking);
    cake_reply_free(reply);
}

void cake__pulse_peer(cake__peer_t *peer)
{
    cake_store_t *store = peer->store;
    peer->pulses_again = peer->is_pulsing;
    if (peer->is_pulsing || !cake__peer_is_there(peer) || store->state != CAKE__STORE_RUNNING)
        return;
    asking_t *asking = make_asking(peer);
    if (asking == NULL)
        return;
    cake__buf_t out;
    cake__buf_init(&out, store->alloc);
    peer->pulse_serial++;
    put_pulse(peer, asking, &out);
    cake_slice_t body = cake__buf_slice(&out);
    int err = out.err;
    if (err == 0)
        err = cake__store_call(store, peer->node_id, "pulse", &body, 1, PULSE_TIMEOUT_MS, on_pulse_answered, asking);
    peer->pulsed_ns = cake__now_ns(store->env);
    if (err == 0) {
        peer->is_pulsing = true;
        store->stats.pulses++;
        store->stats.pulse_bytes += body.len;
    } else {
        peer->failed_serial = peer->pulse_serial;
        cake__free(store->alloc, asking);
    }
    cake__buf_free(&out);
}

void cake__pulse_all(cake_store_t *store)
{
    CAKE_LIST_FOR_EACH(link, &store->peers)
    cake__pulse_peer(CAKE_CONTAINER_OF(link, cake__peer_t, link));
}

static bool is_due(const cake__peer_t *peer, uint64_t now_ns)
{
    uint64_t idle_ns = now_ns - peer->pulsed_ns;
    if (!peer->has_store && peer->pulse_failures > 0)
        return idle_ns >= ABSENT_PULSE_FACTOR * CAKE__PULSE_MS * CAKE_NS_PER_MS;
    bool is_quiet = peer->store->is_joined && peer->actor != 0 && !peer->has_mismatch && peer->pulse_failures == 0 &&
                    peer->equal_version == peer->store->version;
    return !is_quiet || idle_ns >= peer->store->options.sync_interval_ms * CAKE_NS_PER_MS;
}

static void on_pulse_timer(void *arg)
{
    cake_store_t *store = arg;
    uint64_t now_ns = cake__now_ns(store->env);
    cake__peers_give_up_unseen(store);
    store->candidates_are_valid = false; /* silence counts by the clock */
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        if (is_due(peer, now_ns))
            cake__pulse_peer(peer);
    }
    uint64_t jitter_ms = cake__draw_u64(store->env) % 100;
    cake__timer_arm_ms(store->env, &store->pulse_timer, CAKE__PULSE_MS - 50 + jitter_ms);
}

void cake__pulse_start(cake_store_t *store)
{
    store->pulse_timer = CAKE_TIMER_INIT(on_pulse_timer, store);
    cake__timer_arm_ms(store->env, &store->pulse_timer, CAKE__PULSE_MS);
    cake__pulse_all(store);
}

/* ---- answering pulses ---------------------------------------------------------------------------------------------*/

static void answer(cake_rpc_call_t *call, cake_store_t *store, bool is_equal)
{
    cake__buf_t out;
    cake__buf_init(&out, store->alloc);
    cake__put_hail(store, &out);
    cake__put_u8(&out, is_equal);
    if (out.err != 0)
        cake_rpc_fail(call, out.err, NULL);
    else
        cake_rpc_reply(call, out.data, out.len);
    cake__buf_free(&out);
}

/* Everything was told, digests differ, and nothing that we know of explains it: compare all keyspaces. So at the
 * first meeting: what a pulse leaves out may have been told to the run of this node before, which may have lost it. */
static void consider_listing(cake__peer_t *peer, bool is_complete)
{
    bool is_explained = cake__has_wants(peer->store, peer->node_id) || peer->queue_count > 0 || peer->flight_count > 0;
    if (is_complete)
        peer->unexplained = is_explained ? 0 : peer->unexplained + 1;
    if ((peer->is_compared && peer->unexplained < UNEXPLAINED_MAX) || peer->is_listing)
        return;
    peer->unexplained = 0;
    (void)cake__list_peer(peer, NULL);
}

void cake__handle_pulse(cake_rpc_call_t *call, void *arg)
{
    cake_store_t *store = arg;
    cake_slice_t body = cake_rpc_body(call);
    cake__reader_t reader = cake__reader(body.data, body.len);
    cake__hail_t hail;
    int err = cake__store_is_stopping(store) ? CAKE_ECLOSED : cake__get_hail(store, &reader, &hail);
    bool is_complete = cake__get_u8(&reader) == 1;
    uint64_t count = cake__get_varint(&reader);
    if (err == 0 && reader.err != 0)
        err = CAKE_EPARSE;
    cake__peer_t *peer = err == 0 ? cake__peer_heard(store, &hail) : NULL;
    if (err == 0 && peer == NULL)
        err = CAKE_ENOMEM;
    bool is_equal = err == 0 && hail.digest == store->digest;
    if (is_equal) {
        note_equal(peer, store->version);
        cake__writes_acked_all(store, peer->node_id, store->version);
    }
    for (uint64_t i = 0; err == 0 && store->is_joined && i < count; i++)
        err = take_entry(store, peer, &reader, CAKE__WANT_DELAY_MS, false);
    if (err != 0) {
        cake_rpc_fail(call, err, NULL);
        return;
    }
    if (!is_equal && store->is_joined)
        consider_listing(peer, is_complete);
    answer(call, store, is_equal);
    cake__join_try(store);
}

/* ---- lists --------------------------------------------------------------------------------------------------------*/

static void sum_buckets(cake_store_t *store, uint64_t sums[CAKE__DIGEST_BUCKETS])
{
    memset(sums, 0, CAKE__DIGEST_BUCKETS * sizeof sums[0]);
    cake__keyspace_t *keyspace;
    for (size_t cursor = 0; (keyspace = cake__map_next(&store->keyspaces, &cursor)) != NULL;)
        sums[keyspace->name_hash % CAKE__DIGEST_BUCKETS] += keyspace->digest_part;
}

static int by_name(const void *a, const void *b)
{
    const cake__keyspace_t *const *left = a, *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

/* The keyspaces of the differing buckets above `after`, in order of name; NULL: no memory. */
static cake__keyspace_t **find_differing(cake_store_t *store, const uint64_t theirs[CAKE__DIGEST_BUCKETS],
                                         const char *after, size_t *count)
{
    uint64_t ours[CAKE__DIGEST_BUCKETS];
    cake__keyspace_t *keyspace, **found;
    *count = 0;
    sum_buckets(store, ours);
    found = cake__malloc(store->alloc, store->keyspaces.count * sizeof(cake__keyspace_t *));
    for (size_t cursor = 0; found != NULL && (keyspace = cake__map_next(&store->keyspaces, &cursor)) != NULL;) {
        size_t bucket = keyspace->name_hash % CAKE__DIGEST_BUCKETS;
        if (ours[bucket] != theirs[bucket] && keyspace->digest_part != 0 && strcmp(keyspace->name, after) > 0)
            found[(*count)++] = keyspace;
    }
    if (found != NULL && *count > 1)
        cake__sort(found, *count, sizeof(cake__keyspace_t *), by_name);
    return found;
}

void cake__handle_list(cake_rpc_call_t *call, void *arg)
{
    cake_store_t *store = arg;
    cake_slice_t body = cake_rpc_body(call);
    cake__reader_t reader = cake__reader(body.data, body.len);
    cake__hail_t hail;
    uint64_t sums[CAKE__DIGEST_BUCKETS];
    char after[CAKE_KEYSPACE_NAME_MAX + 1] = {0};
    int err = cake__store_is_stopping(store) ? CAKE_ECLOSED : cake__get_hail(store, &reader, &hail);
    cake_slice_t name = cake__get_string(&reader, CAKE_KEYSPACE_NAME_MAX);
    for (size_t i = 0; i < CAKE__DIGEST_BUCKETS; i++)
        sums[i] = cake__get_u64(&reader);
    if (err == 0 && !cake__reader_done(&reader))
        err = CAKE_EPARSE;
    if (err != 0) {
        cake_rpc_fail(call, err, NULL);
        return;
    }
    memcpy(after, name.data, name.len);
    size_t count, sent = 0;
    cake__buf_t entries, out;
    cake__buf_init(&entries, store->alloc);
    cake__buf_init(&out, store->alloc);
    cake__keyspace_t **found = find_differing(store, sums, after, &count);
    for (; found != NULL && sent < count && entries.len < LIST_BYTES; sent++)
        put_entry(&entries, found[sent], NULL);
    cake__put_hail(store, &out);
    cake__put_u8(&out, sent < count);
    if (found == NULL || entries.err != 0 || out.err != 0) {
        cake_rpc_fail(call, CAKE_ENOMEM, NULL);
    } else {
        const cake_slice_t parts[] = {cake__buf_slice(&out), cake__buf_slice(&entries)};
        cake_rpc_replyv(call, parts, CAKE_COUNT_OF(parts));
    }
    cake__free(store->alloc, found);
    cake__buf_free(&entries);
    cake__buf_free(&out);
}

static int ask_list(asking_t *asking);

/* The last name of an answer is where the next one begins. */
static int take_list(asking_t *asking, cake__peer_t *peer, cake_slice_t body, bool *has_more)
{
    cake_store_t *store = asking->store;
    cake__reader_t reader = cake__reader(body.data, body.len);
    cake__hail_t hail;
    int err = cake__get_hail(store, &reader, &hail);
    *has_more = cake__get_u8(&reader) == 1;
    if (err == 0 && (reader.err != 0 || hail.node_id != asking->node_id))
        err = CAKE_EPARSE;
    while (err == 0 && cake__reader_left(&reader) > 0) {
        cake__reader_t peek = reader;
        cake_slice_t name = cake__get_string(&peek, CAKE_KEYSPACE_NAME_MAX);
        err = take_entry(store, peer, &reader, 0, !store->is_joined);
        if (err == 0) {
            memcpy(asking->after, name.data, name.len);
            asking->after[name.len] = '\0';
        }
    }
    return err;
}

static void end_listing(asking_t *asking, int err)
{
    cake_store_t *store = asking->store;
    cake__peer_t *peer = cake__peer_find(store, asking->node_id);
    if (peer != NULL) {
        peer->is_listing = false;
        peer->is_compared |= err == 0;
    }
    if (asking->listed != NULL)
        asking->listed(store, asking->node_id, err);
    cake__free(store->alloc, asking);
}

static void on_listed(cake_reply_t *reply, void *arg)
{
    asking_t *asking = arg;
    bool has_more = false;
    cake__peer_t *peer = cake__peer_find(asking->store, asking->node_id);
    int err = cake_reply_err(reply);
    if (err == 0 && peer == NULL)
        err = CAKE_ENOTFOUND;
    if (err == 0)
        err = take_list(asking, peer, cake_reply_body(reply), &has_more);
    cake_reply_free(reply);
    if (err == 0 && has_more)
        err = ask_list(asking);
    else
        has_more = false;
    if (err != 0 || !has_more)
        end_listing(asking, err);
}

static int ask_list(asking_t *asking)
{
    cake_store_t *store = asking->store;
    uint64_t sums[CAKE__DIGEST_BUCKETS];
    cake__buf_t out;
    cake__buf_init(&out, store->alloc);
    sum_buckets(store, sums);
    cake__put_hail(store, &out);
    cake__put_string(&out, cake__slice_str(asking->after));
    for (size_t i = 0; i < CAKE__DIGEST_BUCKETS; i++)
        cake__put_u64(&out, sums[i]);
    cake_slice_t body = cake__buf_slice(&out);
    int err = out.err;
    if (err == 0)
        err = cake__store_call(store, asking->node_id, "list", &body, 1, PULSE_TIMEOUT_MS, on_listed, asking);
    cake__buf_free(&out);
    return err;
}

int cake__list_peer(cake__peer_t *peer, void (*listed)(cake_store_t *store, uint16_t node_id, int err))
{
    asking_t *asking = make_asking(peer);
    if (asking == NULL)
        return CAKE_ENOMEM;
    asking->listed = listed;
    int err = ask_list(asking);
    if (err != 0)
        cake__free(peer->store->alloc, asking);
    else
        peer->is_listing = true;
    return err;
}
