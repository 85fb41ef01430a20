/* frame.c: frames on the wire.
 *
 *      "DG" | version 1 | type 1 | cluster 4 | to 4 | seq 8 | node id 2 | generation 8 | nonce 16 | body ... | check 8
 *
 * to is the tag of the run that it is for (the first bytes of its nonce), seq counts the frames of its sender: a
 * frame that was caught and is sent again is for a run that has ended, or its number was there before. check is the
 * XXH3 of all before it, seeded with the cluster's hash: a frame that was cut or altered on the way is dropped
 * whole. A body is walked to its end before any of it is applied, so that a malformed one changes nothing.
 *
 * A record: flags | node id 2 | generation | refutation
 *           | identity: nonce 16, address, data centre          | DEAD, LEFT: age in ms    | SUSPECT: accusers
 *           | keys: gc, from, to, count, then per entry: version - previous, flags, key, value */
#include <xxhash.h>

#include "gossip/state.h"

#define FRAME_VERSION 1u
#define FRAME_TO      8u
#define FLAG_STATUS   0x03u
#define FLAG_IDENTITY 0x04u
#define FLAG_KEYS     0x08u
#define FLAG_NOTICE   0x10u
#define FLAG_ALL      0x1fu
#define ENTRY_DELETED 0x01u
#define AGE_MAX_MS    (UINT64_C(1) << 40)

/* ---- sealed frames --------------------------------------------------------------------------------------------------
 *
 *      "DS" | version 1 | 0 | box of the frame */

size_t cake__gossip_frame_max(const cake__gossip_t *gossip, size_t bytes)
{
    return bytes - GOSSIP_FRAME_CHECK - (gossip->sealer.seal != NULL ? GOSSIP_SEAL_ALL : 0);
}

bool cake__gossip_frame_is_new(cake__gossip_peer_t *sender, uint64_t frame_seq)
{
    uint64_t *words = sender->seq_window, bit = UINT64_C(1) << (frame_seq % 64);
    if (frame_seq + GOSSIP_WINDOW <= sender->seq_highest)
        return false;
    if (frame_seq > sender->seq_highest + GOSSIP_WINDOW)
        memset(words, 0, sizeof sender->seq_window);
    else
        for (uint64_t seq = sender->seq_highest + 1; seq <= frame_seq; seq++)
            words[seq % GOSSIP_WINDOW / 64] &= ~(UINT64_C(1) << (seq % 64));
    uint64_t *word = &words[frame_seq % GOSSIP_WINDOW / 64];
    bool is_new = (*word & bit) == 0;
    *word |= bit;
    sender->seq_highest = cake__max_u64(sender->seq_highest, frame_seq);
    return is_new;
}

/* Replaces bytes by the frame within, which lives until the next one is opened. */
static int unseal(cake__gossip_t *gossip, cake_slice_t *bytes)
{
    const uint8_t *data = bytes->data;
    if (data[0] != 'D' || data[1] != 'S' || data[2] != FRAME_VERSION || data[3] != 0)
        return CAKE_ECONFLICT;
    size_t len = bytes->len - GOSSIP_SEAL_HEADER - CAKE__GOSSIP_SEAL_OVERHEAD;
    cake__buf_clear(&gossip->opened);
    uint8_t *out = cake__buf_extend(&gossip->opened, len);
    if (out == NULL) {
        gossip->opened.err = 0;
        gossip->err = CAKE_ENOMEM;
        return CAKE_ENOMEM;
    }
    cake_slice_t box = cake__slice(data + GOSSIP_SEAL_HEADER, bytes->len - GOSSIP_SEAL_HEADER);
    if (!gossip->sealer.open(gossip->sealer.ctx, box, out))
        return CAKE_ECONFLICT;
    *bytes = cake__slice(out, len);
    return 0;
}

static bool seal_into_arena(cake__gossip_t *gossip, const cake__buf_t *frame)
{
    uint8_t *out = cake__buf_extend(&gossip->arena, frame->len + GOSSIP_SEAL_ALL);
    CAKE_ASSERT(out != NULL); /* there was room */
    memcpy(out, "DS\1", GOSSIP_SEAL_HEADER);
    return gossip->sealer.seal(gossip->sealer.ctx, cake__slice(frame->data, frame->len), out + GOSSIP_SEAL_HEADER);
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

int cake__gossip_frame_open(cake__gossip_t *gossip, cake_slice_t bytes, bool is_stream, cake__gossip_frame_t *frame)
{
    size_t most = is_stream ? CAKE__GOSSIP_STREAM_MAX : CAKE__GOSSIP_DATAGRAM_MAX;
    size_t least = GOSSIP_FRAME_HEADER + GOSSIP_FRAME_CHECK;
    if (gossip->sealer.seal != NULL) {
        int err = bytes.len < least + GOSSIP_SEAL_ALL || bytes.len > most ? CAKE_EPARSE : unseal(gossip, &bytes);
        if (err != 0)
            return err;
    }
    if (bytes.len < least || bytes.len > most)
        return CAKE_EPARSE;
    const uint8_t *data = bytes.data;
    size_t end = bytes.len - GOSSIP_FRAME_CHECK;
    if (data[0] == 'D' && data[1] == 'S')
        return CAKE_ECONFLICT; /* sealed, and we have no key */
    if (data[0] != 'D' || data[1] != 'G' || data[2] != FRAME_VERSION)
        return CAKE_EPARSE;
    if (cake__load_le(data + 4, 4) != (uint32_t)gossip->cluster_hash)
        return CAKE_ECONFLICT;
    if (cake__load_le(data + end, 8) != XXH3_64bits_withSeed(data, end, gossip->cluster_hash))
        return CAKE_EPARSE;
    if (data[3] == 0 || data[3] >= GOSSIP_TYPE_END)
        return CAKE_EPARSE;
    frame->type = (cake__gossip_frame_type_t)data[3];
    cake__reader_t header = cake__reader(data + FRAME_TO, GOSSIP_FRAME_HEADER - FRAME_TO);
    frame->to = cake__get_u32(&header);
    frame->seq = cake__get_u64(&header);
    if (frame->seq == 0 || frame->seq >= UINT64_MAX / 2)
        return CAKE_EPARSE;
    cake__gossip_get_run(&header, &frame->from);
    frame->size = bytes.len;
    frame->body = cake__reader(data + GOSSIP_FRAME_HEADER, end - GOSSIP_FRAME_HEADER);
    return header.err;
}

void cake__gossip_frame_begin(cake__gossip_t *gossip, cake__buf_t *frame, cake__gossip_frame_type_t type)
{
    cake__buf_clear(frame);
    cake__put_u8(frame, 'D');
    cake__put_u8(frame, 'G');
    cake__put_u8(frame, FRAME_VERSION);
    cake__put_u8(frame, (uint8_t)type);
    cake__put_u32(frame, (uint32_t)gossip->cluster_hash);
    cake__put_u32(frame, 0); /* to: see act_send */
    cake__put_u64(frame, ++gossip->frame_seq);
    cake__gossip_put_run(frame, &gossip->self->who);
    CAKE_ASSERT(frame->err != 0 || frame->len == GOSSIP_FRAME_HEADER);
}

/* The frame's limit leaves room for the check. */
static void put_check(cake__gossip_t *gossip, cake__buf_t *frame)
{
    uint64_t check = XXH3_64bits_withSeed(frame->data, frame->len, gossip->cluster_hash);
    frame->max += GOSSIP_FRAME_CHECK;
    cake__put_u64(frame, check);
    frame->max -= GOSSIP_FRAME_CHECK;
}

static void act_send(cake__gossip_t *gossip, cake__buf_t *frame, cake__gossip_action_kind_t kind,
                     cake__gossip_dest_t to)
{
    if (frame->err == 0) {
        cake__store_le(frame->data + FRAME_TO, to.tag, 4);
        put_check(gossip, frame);
    }
    bool is_sealed = gossip->sealer.seal != NULL;
    size_t len = frame->len + (is_sealed ? GOSSIP_SEAL_ALL : 0);
    if (frame->err != 0 || !cake__buf_reserve(&gossip->arena, len)) {
        gossip->err = CAKE_ENOMEM; /* a datagram less: as if lost on the way */
        gossip->arena.err = 0;
        return;
    }
    size_t before = gossip->arena.len;
    if (!is_sealed)
        cake__put_bytes(&gossip->arena, frame->data, frame->len);
    bool is_there = !is_sealed || seal_into_arena(gossip, frame);
    CAKE_ASSERT(gossip->arena.err == 0);
    cake__gossip_action_t *action = is_there ? cake__gossip_act(gossip, kind) : NULL;
    if (action == NULL) {
        gossip->arena.len = before;
        gossip->err = CAKE_ENOMEM;
        return;
    }
    action->send.to = to.addr;
    action->send.node_id = to.node_id;
    action->send.frame = cake__slice(NULL, len); /* where it is, is known when the step ends */
    gossip->counters.frames_out++;
    gossip->counters.bytes_out += len;
}

void cake__gossip_frame_send(cake__gossip_t *gossip, cake__buf_t *frame, cake__gossip_dest_t to)
{
    CAKE_ASSERT(frame->len <= cake__gossip_frame_max(gossip, CAKE__GOSSIP_DATAGRAM_MAX));
    act_send(gossip, frame, CAKE__GOSSIP_SEND, to);
}

void cake__gossip_frame_stream(cake__gossip_t *gossip, cake__buf_t *frame, const cake__gossip_peer_t *to)
{
    CAKE_ASSERT(frame->len <= cake__gossip_frame_max(gossip, CAKE__GOSSIP_STREAM_MAX));
    act_send(gossip, frame, CAKE__GOSSIP_STREAM, cake__gossip_dest(to));
}

size_t cake__gossip_varint_size(uint64_t value)
{
    size_t size = 1;
    while ((value >>= 7) != 0)
        size++;
    return size;
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

void cake__gossip_put_addr(cake__buf_t *frame, const cake_addr_t *addr)
{
    cake__put_u8(frame, addr->family);
    cake__put_u16(frame, addr->port);
    cake__put_bytes(frame, addr->ip, addr->family == 6 ? 16 : 4);
}

void cake__gossip_get_addr(cake__reader_t *reader, cake_addr_t *addr)
{
    *addr = (cake_addr_t){.family = cake__get_u8(reader)};
    addr->port = cake__get_u16(reader);
    if ((addr->family != 4 && addr->family != 6) || addr->port == 0)
        reader->err = CAKE_EPARSE;
    size_t len = addr->family == 6 ? 16 : 4;
    const uint8_t *ip = cake__get_bytes(reader, len);
    if (ip != NULL)
        memcpy(addr->ip, ip, len);
}

void cake__gossip_put_run(cake__buf_t *frame, const cake__gossip_who_t *who)
{
    cake__put_u16(frame, who->node_id);
    cake__put_u64(frame, who->generation);
    cake__put_bytes(frame, who->nonce, sizeof who->nonce);
}

static void get_nonce(cake__reader_t *reader, uint8_t nonce[CAKE__GOSSIP_NONCE_LEN])
{
    const uint8_t *bytes = cake__get_bytes(reader, CAKE__GOSSIP_NONCE_LEN);
    if (bytes != NULL)
        memcpy(nonce, bytes, CAKE__GOSSIP_NONCE_LEN);
}

void cake__gossip_get_run(cake__reader_t *reader, cake__gossip_who_t *who)
{
    memset(who, 0, sizeof *who);
    who->node_id = cake__get_u16(reader);
    who->generation = cake__get_u64(reader);
    get_nonce(reader, who->nonce);
    if (who->generation > GOSSIP_GENERATION_MAX)
        reader->err = CAKE_EPARSE;
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

void cake__gossip_put_record_head(const cake__gossip_t *gossip, cake__buf_t *frame, const cake__gossip_peer_t *peer,
                                  bool has_identity, bool has_keys)
{
    cake__put_u8(frame, (uint8_t)(peer->status | (has_identity ? FLAG_IDENTITY : 0) | (has_keys ? FLAG_KEYS : 0)));
    cake__put_u16(frame, peer->who.node_id);
    cake__put_varint(frame, peer->who.generation);
    cake__put_varint(frame, peer->refutation);
    if (has_identity) {
        cake__put_bytes(frame, peer->who.nonce, sizeof peer->who.nonce);
        cake__gossip_put_addr(frame, &peer->addr);
        cake__put_string(frame, cake__slice_str(peer->data_center));
    }
    if (!cake__gossip_is_live(peer))
        cake__put_varint(frame, (uint64_t)((int64_t)gossip->now_ns - peer->ended_ns) / GOSSIP_NS_PER_MS);
    if (peer->status == CAKE__GOSSIP_SUSPECT) {
        cake__put_u8(frame, peer->accuser_count);
        for (size_t i = 0; i < peer->accuser_count; i++)
            cake__put_u16(frame, peer->accusers[i]);
    }
}

/* Takes back what did not fit. */
static bool fits(cake__buf_t *frame, size_t before)
{
    if (frame->err == 0)
        return true;
    if (frame->err == CAKE_ETOOBIG)
        frame->err = 0;
    frame->len = before;
    return false;
}

bool cake__gossip_put_record(const cake__gossip_t *gossip, cake__buf_t *frame, const cake__gossip_peer_t *peer,
                             bool has_identity)
{
    size_t before = frame->len;
    cake__gossip_put_record_head(gossip, frame, peer, has_identity, false);
    return fits(frame, before);
}

bool cake__gossip_put_notice(cake__buf_t *frame, const cake__gossip_notice_t *notice)
{
    size_t before = frame->len;
    cake__put_u8(frame, FLAG_NOTICE);
    cake__put_u16(frame, notice->node_id);
    cake__gossip_put_addr(frame, &notice->kept);
    cake__gossip_put_addr(frame, &notice->refused);
    return fits(frame, before);
}

void cake__gossip_put_entry(cake__buf_t *frame, const cake__gossip_entry_t *entry)
{
    cake__put_u64(frame, entry->version);
    cake__put_u8(frame, entry->is_deleted ? ENTRY_DELETED : 0);
    cake__put_string(frame, cake__slice(entry->bytes, entry->key_len));
    cake__put_string(frame, cake__slice(entry->bytes + entry->key_len, entry->value_len));
}

size_t cake__gossip_entry_size(const cake__gossip_entry_t *entry)
{
    return 8 + 1 + (entry->key_len < 128 ? 1 : 2) + entry->key_len +
           (entry->value_len < 128 ? 1 : (entry->value_len < 16384 ? 2 : 3)) + entry->value_len;
}

void cake__gossip_get_entry(cake__reader_t *reader, cake__gossip_wire_entry_t *entry)
{
    entry->version = cake__get_u64(reader);
    uint8_t flags = cake__get_u8(reader);
    entry->is_deleted = (flags & ENTRY_DELETED) != 0;
    entry->key = cake__get_string(reader, CAKE__GOSSIP_KEY_MAX);
    entry->value = cake__get_string(reader, CAKE__GOSSIP_VALUE_MAX);
    if (flags > ENTRY_DELETED || entry->key.len == 0 || (entry->is_deleted && entry->value.len > 0))
        reader->err = CAKE_EPARSE;
}

static void get_keys(cake__reader_t *reader, cake__gossip_record_t *record)
{
    record->gc_version = cake__get_varint(reader);
    record->from_version = cake__get_varint(reader);
    record->to_version = cake__get_varint(reader);
    record->entry_count = cake__get_varint(reader);
    if (record->to_version < record->from_version || record->to_version > GOSSIP_VERSION_MAX ||
        record->gc_version > GOSSIP_VERSION_MAX || record->entry_count > CAKE__GOSSIP_KEYS_MAX)
        reader->err = CAKE_EPARSE;
    record->entries = *reader;
    uint64_t previous = record->from_version;
    for (uint64_t i = 0; i < record->entry_count && reader->err == 0; i++) {
        cake__gossip_wire_entry_t entry;
        cake__gossip_get_entry(reader, &entry);
        if (entry.version <= previous || entry.version > record->to_version)
            reader->err = CAKE_EPARSE;
        previous = entry.version;
    }
}

static void get_identity(cake__reader_t *reader, cake__gossip_record_t *record)
{
    get_nonce(reader, record->nonce);
    cake__gossip_get_addr(reader, &record->addr);
    record->data_center = cake__get_string(reader, CAKE__GOSSIP_NAME_MAX);
    if (reader->err == 0 && !cake__is_name(record->data_center, CAKE__GOSSIP_NAME_MAX))
        reader->err = CAKE_EPARSE;
}

static void get_accusers(cake__reader_t *reader, cake__gossip_record_t *record)
{
    record->accuser_count = cake__get_u8(reader);
    if (record->accuser_count > GOSSIP_ACCUSERS_MAX) {
        reader->err = CAKE_EPARSE;
        record->accuser_count = 0;
    }
    for (size_t i = 0; i < record->accuser_count; i++)
        record->accusers[i] = cake__get_u16(reader);
}

int cake__gossip_get_record(cake__reader_t *reader, cake__gossip_record_t *record)
{
    *record = (cake__gossip_record_t){0};
    uint8_t flags = cake__get_u8(reader);
    record->node_id = cake__get_u16(reader);
    record->is_notice = (flags & FLAG_NOTICE) != 0;
    if (record->node_id == 0 || flags > FLAG_ALL || (record->is_notice && flags != FLAG_NOTICE))
        reader->err = CAKE_EPARSE;
    if (record->is_notice) {
        cake__gossip_get_addr(reader, &record->addr);
        cake__gossip_get_addr(reader, &record->refused);
        return reader->err;
    }
    record->status = (cake__gossip_status_t)(flags & FLAG_STATUS);
    record->generation = cake__get_varint(reader);
    uint64_t refutation = cake__get_varint(reader);
    if (record->generation > GOSSIP_GENERATION_MAX || refutation >= GOSSIP_REFUTATION_MAX)
        reader->err = CAKE_EPARSE;
    record->refutation = (uint32_t)refutation;
    record->has_identity = (flags & FLAG_IDENTITY) != 0;
    record->has_keys = (flags & FLAG_KEYS) != 0;
    if (record->has_identity)
        get_identity(reader, record);
    if (record->status == CAKE__GOSSIP_DEAD || record->status == CAKE__GOSSIP_LEFT)
        record->age_ms = cake__get_varint(reader);
    if (record->age_ms > AGE_MAX_MS)
        reader->err = CAKE_EPARSE;
    if (record->status == CAKE__GOSSIP_SUSPECT)
        get_accusers(reader, record);
    if (record->has_keys && reader->err == 0)
        get_keys(reader, record);
    return reader->err;
}

bool cake__gossip_are_records(cake__reader_t body)
{
    cake__gossip_record_t record;
    while (body.err == 0 && cake__reader_left(&body) > 0)
        (void)cake__gossip_get_record(&body, &record);
    return cake__reader_done(&body);
}
