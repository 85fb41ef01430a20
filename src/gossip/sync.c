/* sync.c: state gossip (scuttlebutt). Two nodes find out what differs, and each gets what is newer at the other.
 *
 *      A -- SYNC: hash of all state, or BUCKETS: 32 hashes --> B     equal: nothing more
 *      A <- DIGEST: what B has of the members that differ ----- B
 *      A -- DELTA: what is newer at A; DIGEST of what A lacks -> B
 *      A <- DELTA --------------------------------------------- B
 *
 * Every message more is one that can be lost: up to 48 members the hash alone is sent, and the digest of all fits one
 * frame; with more the 32 bucket hashes go out at once, and only the members in the buckets that differ are listed.
 *
 * A digest covers a range of ids, so that any number of members goes through datagrams, a part at a time; where the
 * next one starts moves on. A delta is cut fairly: first who and where everyone is, then one key/value per member
 * in turn, in the order of versions, so that what a cut leaves is a prefix and nothing starves. What is larger than
 * a datagram goes over a stream. */
#include "gossip/state.h"

#define DIGEST_REPLY       0x01u /* answer with a digest of what you lack */
#define DIGEST_EXACT       0x02u /* only about the members that are listed */
#define DIGEST_FRAMES      2u
#define DELTA_FRAMES       3u
#define STREAM_INTERVAL_MS 200u
#define SMALL_DIGEST       48u /* members whose digest is one frame: buckets would only be one more that can be lost */

/* What a peer lacks of one member. */
struct cake__gossip_stale {
    const cake__gossip_peer_t *peer;
    uint64_t from; /* version */
    size_t first;  /* index of the first entry above it */
    size_t count;  /* entries of it that go into this frame */
    bool has_identity, is_in_frame, is_done;
};

typedef struct digest_entry {
    uint16_t node_id, nonce;
    uint64_t generation, rank, max_version, gc_version;
} digest_entry_t;

typedef struct digest {
    uint8_t flags;
    uint32_t mask;
    uint16_t low, high;
    cake__reader_t entries;
} digest_t;

size_t cake__gossip_stale_size(void)
{
    return sizeof(cake__gossip_stale_t);
}

uint64_t cake__gossip_state_hash(const cake__gossip_t *gossip)
{
    uint64_t hash = 0;
    for (uint32_t i = 0; i < GOSSIP_BUCKETS; i++)
        hash = cake__mix64(hash ^ gossip->bucket[i]) + i;
    return hash;
}

static uint16_t nonce16(const cake__gossip_who_t *who)
{
    return (uint16_t)cake__load_le(who->nonce, 2);
}

/* ---- digests ----------------------------------------------------------------------------------------------------- */

static void put_digest_entry(cake__buf_t *frame, const cake__gossip_peer_t *peer)
{
    cake__put_u16(frame, peer->who.node_id);
    cake__put_varint(frame, peer->who.generation);
    cake__put_u16(frame, nonce16(&peer->who));
    cake__put_varint(frame, cake__gossip_rank(peer->status, peer->refutation));
    cake__put_varint(frame, peer->keys.max_version);
    cake__put_varint(frame, peer->keys.gc_version);
}

static void get_digest_entry(cake__reader_t *reader, digest_entry_t *entry)
{
    entry->node_id = cake__get_u16(reader);
    entry->generation = cake__get_varint(reader);
    entry->nonce = cake__get_u16(reader);
    entry->rank = cake__get_varint(reader);
    entry->max_version = cake__get_varint(reader);
    entry->gc_version = cake__get_varint(reader);
    if (entry->max_version > GOSSIP_VERSION_MAX || entry->gc_version > GOSSIP_VERSION_MAX)
        reader->err = CAKE_EPARSE;
}

static bool in_mask(uint32_t mask, uint16_t node_id)
{
    return (mask >> cake__gossip_bucket_of(node_id) & 1) != 0;
}

/* One frame from the member at index on; returns the index after the last one that it covers. */
static size_t send_digest_frame(cake__gossip_t *gossip, const cake__gossip_peer_t *to, uint32_t mask, size_t index)
{
    cake__buf_t *frame = &gossip->frame;
    cake__gossip_frame_begin(gossip, frame, GOSSIP_DIGEST);
    cake__put_u8(frame, DIGEST_REPLY);
    cake__put_u32(frame, mask);
    cake__put_u16(frame, index == 0 ? 0 : gossip->members[index]->who.node_id);
    size_t high_at = frame->len, i = index;
    cake__put_u16(frame, UINT16_MAX);
    for (; i < gossip->member_count; i++) {
        const cake__gossip_peer_t *peer = gossip->members[i];
        if (peer->is_fading || !in_mask(mask, peer->who.node_id))
            continue;
        size_t before = frame->len;
        put_digest_entry(frame, peer);
        if (frame->err == CAKE_ETOOBIG) {
            frame->err = 0;
            frame->len = before;
            break;
        }
    }
    if (i < gossip->member_count)
        cake__store_le(frame->data + high_at, gossip->members[i]->who.node_id - UINT64_C(1), 2);
    cake__gossip_frame_send(gossip, frame, cake__gossip_dest(to));
    return i;
}

static void send_digest(cake__gossip_t *gossip, const cake__gossip_peer_t *to, uint32_t mask)
{
    size_t start = gossip->digest_start < gossip->member_count ? gossip->digest_start : 0, at = start;
    for (size_t frames = 0; frames < DIGEST_FRAMES; frames++) {
        size_t next = send_digest_frame(gossip, to, mask, at);
        bool is_round = at < start && next >= start;
        at = next >= gossip->member_count ? 0 : next;
        if (is_round || at == start)
            break;
    }
    gossip->digest_start = at;
}

void cake__gossip_sync_with(cake__gossip_t *gossip, const cake__gossip_peer_t *to)
{
    send_digest(gossip, to, UINT32_MAX);
}

/* ---- what differs ------------------------------------------------------------------------------------------------ */

/* Has a holder of (gc, max) keys that one of (other_gc, other_max) can use? See merge.c for what is accepted. */
static bool offers_keys(uint64_t gc, uint64_t max, uint64_t other_gc, uint64_t other_max)
{
    if (gc > other_gc)
        return true;
    bool is_mid_reset = other_max < other_gc;
    return max > other_max && (gc == other_gc || !is_mid_reset);
}

static void want(cake__gossip_t *gossip, cake__buf_t *frame, const cake__gossip_peer_t *peer, uint16_t node_id)
{
    size_t before = frame->len;
    if (peer != NULL) {
        put_digest_entry(frame, peer);
    } else {
        cake__put_u16(frame, node_id);
        for (int i = 0; i < 6; i++)
            cake__put_u8(frame, 0); /* generation, nonce, rank, max, gc */
    }
    if (frame->err == CAKE_ETOOBIG) { /* the rest comes with another round */
        frame->err = 0;
        frame->len = before;
    }
}

static void offer(cake__gossip_t *gossip, size_t *count, const cake__gossip_peer_t *peer, const digest_entry_t *entry)
{
    bool is_known = entry != NULL && entry->generation == peer->who.generation && entry->nonce == nonce16(&peer->who);
    uint64_t from = 0;
    if (is_known && (peer->keys.gc_version <= entry->gc_version || entry->max_version >= peer->keys.gc_version))
        from = entry->max_version;
    CAKE_ASSERT(*count < gossip->capacity);
    gossip->stale[(*count)++] = (cake__gossip_stale_t){
        .peer = peer,
        .from = from,
        .first = cake__gossip_keys_after(&peer->keys, from),
        .has_identity = !is_known,
    };
}

/* One member that both know, or that the digest says nothing of. */
static void compare(cake__gossip_t *gossip, size_t *stale, cake__buf_t *wants, cake__gossip_peer_t *peer,
                    const digest_entry_t *entry)
{
    if (entry == NULL || entry->generation < peer->who.generation) {
        offer(gossip, stale, peer, entry);
        return;
    }
    if (entry->generation > peer->who.generation) {
        want(gossip, wants, NULL, peer->who.node_id);
        return;
    }
    bool is_same = entry->nonce == nonce16(&peer->who);
    cake__gossip_keys_t *keys = &peer->keys;
    uint64_t rank = cake__gossip_rank(peer->status, peer->refutation);
    if (is_same && peer != gossip->self && entry->gc_version > keys->gc_version &&
        keys->max_version >= entry->gc_version) {
        cake__gossip_keys_collect(keys, gossip->alloc, entry->gc_version);
        cake__gossip_peer_touch(gossip, peer);
    }
    if (!is_same || rank > entry->rank ||
        offers_keys(keys->gc_version, keys->max_version, entry->gc_version, entry->max_version))
        offer(gossip, stale, peer, entry);
    if (is_same &&
        (rank < entry->rank || offers_keys(entry->gc_version, entry->max_version, keys->gc_version, keys->max_version)))
        want(gossip, wants, peer, peer->who.node_id);
}

/* ---- deltas ------------------------------------------------------------------------------------------------------ */

static size_t head_size(const cake__gossip_peer_t *peer, bool has_identity)
{
    size_t keys = 3 * cake__gossip_varint_size(peer->keys.max_version) + 2;
    size_t size =
        3 + cake__gossip_varint_size(peer->who.generation) + cake__gossip_varint_size(peer->refutation) + keys;
    if (has_identity)
        size += CAKE__GOSSIP_NONCE_LEN + (peer->addr.family == 6 ? 19 : 7) + 1 + strlen(peer->data_center);
    if (!cake__gossip_is_live(peer))
        size += 6;
    if (peer->status == CAKE__GOSSIP_SUSPECT)
        size += 1 + 2 * GOSSIP_ACCUSERS_MAX;
    return size;
}

static const cake__gossip_entry_t *next_entry(const cake__gossip_stale_t *stale)
{
    size_t at = stale->first + stale->count;
    return at < stale->peer->keys.count ? stale->peer->keys.entries[at] : NULL;
}

/* Chooses what goes into one frame of room bytes; false: nothing. *start moves to the first that got less than the
 * others: it comes first in the next frame. */
static bool fill(cake__gossip_t *gossip, size_t count, size_t *start_at, size_t room)
{
    size_t members = 0, start = *start_at, unserved = count;
    for (size_t i = 0; i < count; i++) {
        cake__gossip_stale_t *stale = &gossip->stale[(start + i) % count];
        stale->is_in_frame = false;
        stale->count = 0;
        size_t size = head_size(stale->peer, stale->has_identity);
        if (!stale->is_done && size > room && unserved == count)
            unserved = i;
        if (stale->is_done || size > room)
            continue;
        stale->is_in_frame = true;
        room -= size;
        members++;
    }
    bool are_all_in = unserved == count, is_first_turn = true;
    for (bool is_going = members > 0; is_going; is_first_turn = false) {
        is_going = false;
        for (size_t i = 0; i < count; i++) {
            cake__gossip_stale_t *stale = &gossip->stale[(start + i) % count];
            const cake__gossip_entry_t *entry = stale->is_in_frame ? next_entry(stale) : NULL;
            bool fits = entry != NULL && cake__gossip_entry_size(entry) <= room;
            if (entry != NULL && !fits && is_first_turn && are_all_in && unserved == count)
                unserved = i;
            if (!fits)
                continue;
            room -= cake__gossip_entry_size(entry);
            stale->count++;
            is_going = true;
            i -= GOSSIP_MUTANT(cut_member_by_member);
        }
    }
    *start_at = (start + (unserved < count && unserved > 0 ? unserved : 1)) % count;
    return members > 0;
}

/* Writes the member as chosen, and leaves in stale what remains. */
static void put_stale(cake__gossip_t *gossip, cake__buf_t *frame, cake__gossip_stale_t *stale)
{
    const cake__gossip_keys_t *keys = &stale->peer->keys;
    bool is_whole = next_entry(stale) == NULL;
    uint64_t to = is_whole ? keys->max_version
                           : (stale->count > 0 ? keys->entries[stale->first + stale->count - 1]->version : stale->from);
    to = cake__max_u64(to, stale->from);
    cake__gossip_put_record_head(gossip, frame, stale->peer, stale->has_identity, true);
    cake__put_varint(frame, keys->gc_version);
    cake__put_varint(frame, stale->from);
    cake__put_varint(frame, to);
    cake__put_varint(frame, stale->count);
    for (size_t i = 0; i < stale->count; i++)
        cake__gossip_put_entry(frame, keys->entries[stale->first + i]);
    stale->first += stale->count;
    stale->count = 0;
    stale->from = to; /* the identity goes with every part: another run may have this generation, too */
    stale->is_done = is_whole;
}

static void put_all_stale(cake__gossip_t *gossip, cake__buf_t *frame, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (gossip->stale[i].is_in_frame)
            put_stale(gossip, frame, &gossip->stale[i]);
}

/* Something is larger than any datagram: it goes by RPC, with as much of the rest as fits. */
static void stream_rest(cake__gossip_t *gossip, const cake__gossip_peer_t *to, size_t count)
{
    size_t room = cake__gossip_frame_max(gossip, CAKE__GOSSIP_DATAGRAM_MAX) - GOSSIP_FRAME_HEADER;
    bool is_needed = false;
    for (size_t i = 0; i < count; i++) {
        const cake__gossip_stale_t *stale = &gossip->stale[i];
        const cake__gossip_entry_t *entry = stale->is_done ? NULL : next_entry(stale);
        is_needed |= entry != NULL && cake__gossip_entry_size(entry) + head_size(stale->peer, true) > room;
    }
    if (!is_needed || gossip->now_ns < gossip->next_stream_ns)
        return;
    gossip->next_stream_ns = gossip->now_ns + cake__gossip_ms(STREAM_INTERVAL_MS);
    cake__buf_t frame;
    cake__buf_init(&frame, gossip->alloc);
    frame.max = cake__gossip_frame_max(gossip, CAKE__GOSSIP_STREAM_MAX);
    cake__gossip_frame_begin(gossip, &frame, GOSSIP_DELTA);
    size_t start = 0;
    (void)fill(gossip, count, &start, frame.max - GOSSIP_FRAME_HEADER);
    put_all_stale(gossip, &frame, count);
    cake__gossip_frame_stream(gossip, &frame, to);
    cake__buf_free(&frame);
}

/* Where the last delta to this peer ended, by node id: a place in the list of what it lacks would mean another
 * member each time, and one that all peers share can come back to the same few for ever. */
static size_t first_for(const cake__gossip_t *gossip, const cake__gossip_peer_t *to, size_t count)
{
    for (size_t i = 0; i < count && !GOSSIP_MUTANT(cut_from_first); i++)
        if (gossip->stale[i].peer->who.node_id >= to->delta_next_id)
            return i;
    return 0;
}

static void send_delta(cake__gossip_t *gossip, cake__gossip_peer_t *to, size_t count)
{
    for (size_t frames = 0; frames < DELTA_FRAMES && count > 0; frames++) {
        cake__buf_t *frame = &gossip->frame;
        cake__gossip_frame_begin(gossip, frame, GOSSIP_DELTA);
        size_t start = first_for(gossip, to, count);
        if (!fill(gossip, count, &start, frame->max - frame->len))
            break;
        to->delta_next_id = gossip->stale[start].peer->who.node_id;
        put_all_stale(gossip, frame, count);
        cake__gossip_frame_send(gossip, frame, cake__gossip_dest(to));
    }
    stream_rest(gossip, to, count);
}

/* ---- rounds ------------------------------------------------------------------------------------------------------ */

static void collect_own(cake__gossip_t *gossip)
{
    cake__gossip_keys_t *keys = &gossip->self->keys;
    uint64_t keep_ns = cake__gossip_ms(gossip->params.tombstone_ms), gc_version = 0;
    for (size_t i = 0; i < keys->count; i++) {
        const cake__gossip_entry_t *entry = keys->entries[i];
        if (entry->is_deleted && gossip->now_ns - entry->deleted_ns >= keep_ns)
            gc_version = entry->version;
    }
    if (gc_version == 0)
        return;
    cake__gossip_keys_collect(keys, gossip->alloc, gc_version);
    cake__gossip_peer_touch(gossip, gossip->self);
}

static void send_buckets(cake__gossip_t *gossip, const cake__gossip_peer_t *peer)
{
    cake__gossip_frame_begin(gossip, &gossip->frame, GOSSIP_BUCKETS_);
    for (uint32_t i = 0; i < GOSSIP_BUCKETS; i++)
        cake__put_u32(&gossip->frame, (uint32_t)gossip->bucket[i]);
    cake__gossip_frame_send(gossip, &gossip->frame, cake__gossip_dest(peer));
}

static void send_sync(cake__gossip_t *gossip, const cake__gossip_peer_t *peer)
{
    if (gossip->member_count > SMALL_DIGEST) {
        send_buckets(gossip, peer);
        return;
    }
    cake__gossip_frame_begin(gossip, &gossip->frame, GOSSIP_SYNC);
    cake__put_u64(&gossip->frame, cake__gossip_state_hash(gossip));
    cake__gossip_frame_send(gossip, &gossip->frame, cake__gossip_dest(peer));
}

/* With p = 0.2 a DEAD one is tried; the fewer are alive, the more each has to try. */
static void try_dead(cake__gossip_t *gossip)
{
    double chance = 2.0 / (double)(gossip->live_count + 1);
    if (chance < gossip->params.dead_try)
        chance = gossip->params.dead_try;
    if (GOSSIP_MUTANT(dead_not_tried) || gossip->dead_count == 0 || cake__random_unit(&gossip->random) >= chance)
        return;
    cake__gossip_peer_t *peer = gossip->dead[cake__random_below(&gossip->random, gossip->dead_count)];
    cake__gossip_ping_now(gossip, peer); /* tells it that it is held dead, so that it can refute */
}

/* Who is accused by us and no longer pinged by us: others have come nearer in its ring, as they do when a partition
 * ends. Its observers see it answer, so that nobody but us could tell it, and state gossip knows nothing of
 * suspicions. */
static void ask_suspects(cake__gossip_t *gossip)
{
    size_t start = cake__random_below(&gossip->random, gossip->live_count), asked = 0;
    size_t looked_max = gossip->suspect_count > 0 && !GOSSIP_MUTANT(suspects_not_asked) ? gossip->live_count : 0;
    for (size_t i = 0; i < looked_max && asked < gossip->params.sync_fanout; i++) {
        cake__gossip_peer_t *peer = gossip->live[(start + i) % gossip->live_count];
        if (peer->status != CAKE__GOSSIP_SUSPECT || !peer->is_accused_by_us || cake__gossip_is_edge(gossip, peer))
            continue;
        cake__gossip_ping_now(gossip, peer);
        asked++;
    }
}

/* Keys changed, here or by a delta: the next round comes sooner, so that news goes round in a few hops of 200 ms and a
 * lost frame costs little. */
void cake__gossip_sync_soon(cake__gossip_t *gossip)
{
    uint64_t soon_ns = cake__gossip_ms(gossip->params.rumour_ms);
    gossip->next_sync_ns = cake__min_u64(gossip->next_sync_ns, gossip->now_ns + soon_ns);
}

void cake__gossip_sync_run(cake__gossip_t *gossip)
{
    if (gossip->now_ns < gossip->next_sync_ns)
        return;
    cake__gossip_peer_t *peers[GOSSIP_RINGS_MAX];
    bool is_fast = gossip->now_ns < gossip->fast_until_ns;
    uint64_t period_ns = cake__gossip_ms(is_fast ? gossip->params.rumour_ms : gossip->params.sync_period_ms);
    gossip->next_sync_ns = gossip->now_ns + period_ns / 20 * 19 + cake__random_below(&gossip->random, period_ns / 10);
    collect_own(gossip);
    size_t count = cake__gossip_draw(gossip, NULL, peers, gossip->params.sync_fanout);
    for (size_t i = 0; i < count; i++)
        send_sync(gossip, peers[i]);
    ask_suspects(gossip);
    if (!is_fast)
        try_dead(gossip);
}

void cake__gossip_on_sync(cake__gossip_t *gossip, cake__gossip_frame_t *frame, cake__gossip_peer_t *sender)
{
    uint64_t hash = cake__get_u64(&frame->body);
    if (!cake__reader_done(&frame->body)) {
        gossip->counters.frames_malformed++;
        return;
    }
    if (hash == cake__gossip_state_hash(gossip))
        return;
    if (gossip->member_count > SMALL_DIGEST)
        send_buckets(gossip, sender);
    else
        send_digest(gossip, sender, UINT32_MAX);
}

void cake__gossip_on_buckets(cake__gossip_t *gossip, cake__gossip_frame_t *frame, cake__gossip_peer_t *sender)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < GOSSIP_BUCKETS; i++)
        mask |= (uint32_t)(cake__get_u32(&frame->body) != (uint32_t)gossip->bucket[i]) << i;
    if (!cake__reader_done(&frame->body))
        gossip->counters.frames_malformed++;
    else if (mask != 0)
        send_digest(gossip, sender, mask);
}

static bool open_digest(cake__gossip_frame_t *frame, digest_t *digest)
{
    digest->flags = cake__get_u8(&frame->body);
    digest->mask = cake__get_u32(&frame->body);
    digest->low = cake__get_u16(&frame->body);
    digest->high = cake__get_u16(&frame->body);
    digest->entries = frame->body;
    if (digest->flags > (DIGEST_REPLY | DIGEST_EXACT) || digest->low > digest->high)
        return false;
    cake__reader_t walk = digest->entries;
    digest_entry_t entry;
    for (int32_t previous = -1; walk.err == 0 && cake__reader_left(&walk) > 0; previous = entry.node_id) {
        get_digest_entry(&walk, &entry);
        if (entry.node_id <= previous || entry.node_id < digest->low || entry.node_id > digest->high)
            return false;
    }
    return cake__reader_done(&walk);
}

/* Both sides in ascending node id: a merge. */
static size_t compare_all(cake__gossip_t *gossip, digest_t *digest, cake__buf_t *wants)
{
    size_t i = cake__gossip_peer_index(gossip, digest->low), stale = 0;
    bool is_exact = (digest->flags & DIGEST_EXACT) != 0, has_entry = false;
    digest_entry_t entry = {0};
    for (;;) {
        if (!has_entry && cake__reader_left(&digest->entries) > 0) {
            get_digest_entry(&digest->entries, &entry);
            has_entry = true;
        }
        cake__gossip_peer_t *peer = i < gossip->member_count ? gossip->members[i] : NULL;
        if (peer != NULL && peer->who.node_id > digest->high)
            peer = NULL;
        if (peer == NULL && !has_entry)
            return stale;
        bool is_entry_first = has_entry && (peer == NULL || entry.node_id < peer->who.node_id);
        if (is_entry_first) {
            want(gossip, wants, NULL, entry.node_id);
            has_entry = false;
            continue;
        }
        bool is_match = has_entry && entry.node_id == peer->who.node_id;
        if (!peer->is_fading && (is_match || (!is_exact && in_mask(digest->mask, peer->who.node_id))))
            compare(gossip, &stale, wants, peer, is_match ? &entry : NULL);
        has_entry = has_entry && !is_match;
        i++;
    }
}

void cake__gossip_on_digest(cake__gossip_t *gossip, cake__gossip_frame_t *frame, cake__gossip_peer_t *sender)
{
    digest_t digest;
    if (!open_digest(frame, &digest)) {
        gossip->counters.frames_malformed++;
        return;
    }
    cake__buf_t *wants = &gossip->frame;
    cake__gossip_frame_begin(gossip, wants, GOSSIP_DIGEST);
    cake__put_u8(wants, DIGEST_EXACT);
    cake__put_u32(wants, digest.mask);
    cake__put_u16(wants, 0);
    cake__put_u16(wants, UINT16_MAX);
    size_t empty = wants->len;
    size_t stale = compare_all(gossip, &digest, wants);
    if (wants->len > empty && (digest.flags & DIGEST_REPLY) != 0)
        cake__gossip_frame_send(gossip, wants, cake__gossip_dest(sender));
    send_delta(gossip, sender, stale);
}
