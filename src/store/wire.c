/* How operations travel, in batches and in chunks of sessions, and the head that every message of the store has.
 *
 *   hail       version u8, node id u16, run u32, actor u64, flags u8, registry u32 (registry.c), digest u64
 *              flags: 1 has joined, 2 reads packed payloads, 4 all whom it knows are new or alone, as it is,
 *              8 is alone (join.c)
 *   operation  flags u8 (1: tombstone), seq varint, hlc u64, key string, value string unless it is a tombstone */
#include "store/store.h"

#define WIRE_VERSION      4u
#define FOREIGN_EVERY_NS  (60u * 1000u * CAKE_NS_PER_MS)
#define HAIL_JOINED       1u
#define HAIL_READS_PACKED 2u
#define HAIL_SEES_NEW     4u
#define HAIL_ALONE        8u

void cake__put_operation(cake__buf_t *out, const cake_record_t *record, const cake__value_t *value)
{
    cake__put_u8(out, record->is_tombstone ? 1 : 0);
    cake__put_varint(out, record->dot.seq);
    cake__put_u64(out, record->hlc);
    cake__put_string(out, value->key);
    if (!record->is_tombstone)
        cake__put_string(out, value->value);
}

void cake__get_operation(cake__reader_t *reader, uint64_t actor, cake_record_t *record, cake__value_t *value)
{
    uint8_t flags = cake__get_u8(reader);
    *value = (cake__value_t){0};
    record->is_tombstone = flags == 1;
    record->dot.actor = actor;
    record->dot.seq = cake__get_varint(reader);
    record->hlc = cake__get_u64(reader);
    value->key = cake__get_string(reader, CAKE_KEY_MAX);
    if (!record->is_tombstone)
        value->value = cake__get_string(reader, CAKE__UNIT_BYTES_MAX);
    bool is_valid = flags <= 1 && actor != 0 && record->dot.seq != 0 && record->hlc != 0;
    if (reader->err == 0 && (!is_valid || cake__key_id(value->key, &record->id) != 0))
        reader->err = CAKE_EPARSE;
}

void cake__put_hail(cake_store_t *store, cake__buf_t *out)
{
    cake__put_u8(out, WIRE_VERSION);
    cake__put_u16(out, cake_node_id(store->node));
    cake__put_u32(out, cake__node_run(store->node));
    cake__put_u64(out, store->actor);
    cake__put_u8(out, (store->is_joined ? HAIL_JOINED : 0) | (store->options.no_compression ? 0 : HAIL_READS_PACKED) |
                          (store->sees_new ? HAIL_SEES_NEW : 0) | (store->is_alone ? HAIL_ALONE : 0));
    cake__put_u32(out, store->registry);
    cake__put_u64(out, store->digest);
}

static int refuse_version(cake_store_t *store, uint16_t node_id, uint8_t version)
{
    uint64_t now_ns = cake__now_ns(store->env);
    if (store->foreign_told_ns != 0 && now_ns - store->foreign_told_ns < FOREIGN_EVERY_NS)
        return CAKE_EVERSION;
    cake__log(store->log, CAKE_LOG_ERROR,
              "node %u speaks version %u of the store's protocol, this one %u: neither gets what the other has; "
              "upgrade the older one",
              (unsigned)node_id, (unsigned)version, WIRE_VERSION);
    store->foreign_told_ns = now_ns;
    return CAKE_EVERSION;
}

/* What a second process says under a taken id is not heard, whichever of the two it is told about: its copies are of
 * no replica, and its contexts no acknowledgements. Who is new is heard as soon as membership has it: within a
 * gossip round. */
int cake__get_hail(cake_store_t *store, cake__reader_t *reader, cake__hail_t *out)
{
    uint8_t version = cake__get_u8(reader);
    out->node_id = cake__get_u16(reader);
    uint32_t run = cake__get_u32(reader);
    out->actor = cake__get_u64(reader);
    uint8_t flags = cake__get_u8(reader); /* others are of a later version: passed over */
    out->is_joined = (flags & HAIL_JOINED) != 0;
    out->reads_packed = (flags & HAIL_READS_PACKED) != 0;
    out->sees_new = (flags & HAIL_SEES_NEW) != 0;
    out->is_alone = (flags & HAIL_ALONE) != 0;
    out->registry = cake__get_u32(reader);
    out->digest = cake__get_u64(reader);
    if (reader->err == 0 && version != WIRE_VERSION)
        return refuse_version(store, out->node_id, version);
    bool is_valid = out->node_id != 0 && out->node_id != cake_node_id(store->node) && out->actor != 0;
    if (reader->err != 0 || !is_valid)
        return CAKE_EPARSE;
    if (cake_node_is_duplicate(store->node))
        return CAKE_EDUPLICATE;
    return cake__node_is_run(store->node, out->node_id, run) ? 0 : CAKE_EBUSY;
}
