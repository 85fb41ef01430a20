/* session_codec.c: session messages as bytes: a version byte, fixed numbers, then the summary or the ids.
 *
 *      HELLO    2 | session u64 | node u16 | actor u64 | summary
 *      WELCOME  2 | session u64 | token u64 | node u16 | actor u64 | epoch u64
 *                 | flags u8 (joined 1, compare 2, lacks table 4) | range bits u8 | summary
 *      FIN      2 | session u64 | token u64 | epoch u64 | chunks u32 | summary
 *      COMPARE  2 | session u64 | token u64 | index u32 | last u8 | ranges, each with its sum u64 | varint ids | ids
 *      COMPARED 2 | session u64 | token u64 | epoch u64 | index u32 | parts u8 | ranges, each with 16 sums u64 if parts
 *                 | varint absent | ids
 *      ranges   varint count | [bits u8 | per range: varint index - the one before - 1 (the first: index)]
 *      id       varint length, key; or 16, 16 B: the ids that are no padded key */
#include "crdt/session.h"

#include "base/base.h"

#define VERSION   2u
#define IDS_MAX   65536u /* of one message */
#define FLAG_JOIN 1u
#define FLAG_COMP 2u
#define FLAG_LACK 4u

static int check_version(cake__reader_t *reader)
{
    uint8_t version = cake__get_u8(reader);
    return reader->err != 0 ? CAKE_EPARSE : version == VERSION ? 0 : CAKE_EVERSION;
}

static int decode_summary(cake__summary_t *out, const cake_alloc_t *alloc, cake__reader_t *reader)
{
    cake__summary_init(out, alloc);
    return reader->err != 0 ? CAKE_EPARSE : cake__summary_decode(out, reader);
}

static bool are_bits(uint8_t bits)
{
    return bits <= CAKE__RANGE_BITS_MAX && bits % CAKE__RANGE_STEP == 0;
}

/* ---- HELLO, WELCOME, FIN ----------------------------------------------------------------------------------------- */

void cake__hello_free(cake__hello_t *message)
{
    cake__summary_free(&message->summary);
}

void cake__hello_encode(const cake__hello_t *message, cake__buf_t *out)
{
    cake__put_u8(out, VERSION);
    cake__put_u64(out, message->session_id);
    cake__put_u16(out, message->node_id);
    cake__put_u64(out, message->actor);
    const cake__retired_t *table = message->summary.context.retired;
    cake__summary_encode_known(&message->summary, table == NULL || message->is_whole ? 0 : table->hash, out);
}

int cake__hello_decode(cake__hello_t *out, const cake_alloc_t *alloc, cake__reader_t *reader)
{
    int err = check_version(reader);
    if (err != 0)
        return err;
    out->is_whole = true;
    out->session_id = cake__get_u64(reader);
    out->node_id = cake__get_u16(reader);
    out->actor = cake__get_u64(reader);
    return decode_summary(&out->summary, alloc, reader);
}

void cake__welcome_free(cake__welcome_t *message)
{
    cake__summary_free(&message->summary);
}

void cake__welcome_encode(const cake__welcome_t *message, cake__buf_t *out)
{
    cake__put_u8(out, VERSION);
    cake__put_u64(out, message->session_id);
    cake__put_u64(out, message->token);
    cake__put_u16(out, message->node_id);
    cake__put_u64(out, message->actor);
    cake__put_u64(out, message->epoch);
    cake__put_u8(out, (uint8_t)((message->is_joined ? FLAG_JOIN : 0) | (message->expects_compare ? FLAG_COMP : 0) |
                                (message->lacks_table ? FLAG_LACK : 0)));
    cake__put_u8(out, message->range_bits);
    cake__summary_encode_known(&message->summary, message->known, out);
}

int cake__welcome_decode(cake__welcome_t *out, const cake_alloc_t *alloc, cake__reader_t *reader)
{
    int err = check_version(reader);
    if (err != 0)
        return err;
    out->session_id = cake__get_u64(reader);
    out->token = cake__get_u64(reader);
    out->node_id = cake__get_u16(reader);
    out->actor = cake__get_u64(reader);
    out->epoch = cake__get_u64(reader);
    uint8_t flags = cake__get_u8(reader);
    out->range_bits = cake__get_u8(reader);
    if (flags > (FLAG_JOIN | FLAG_COMP | FLAG_LACK) || !are_bits(out->range_bits))
        return CAKE_EPARSE;
    out->is_joined = (flags & FLAG_JOIN) != 0;
    out->expects_compare = (flags & FLAG_COMP) != 0;
    out->lacks_table = (flags & FLAG_LACK) != 0;
    out->known = 0;
    return decode_summary(&out->summary, alloc, reader);
}

void cake__fin_free(cake__fin_t *message)
{
    cake__summary_free(&message->summary);
}

void cake__fin_encode(const cake__fin_t *message, cake__buf_t *out)
{
    cake__put_u8(out, VERSION);
    cake__put_u64(out, message->session_id);
    cake__put_u64(out, message->token);
    cake__put_u64(out, message->epoch);
    cake__put_u32(out, message->chunk_count);
    cake__summary_encode_known(&message->summary, message->known, out);
}

int cake__fin_decode(cake__fin_t *out, const cake_alloc_t *alloc, cake__reader_t *reader)
{
    int err = check_version(reader);
    if (err != 0)
        return err;
    out->session_id = cake__get_u64(reader);
    out->token = cake__get_u64(reader);
    out->epoch = cake__get_u64(reader);
    out->known = 0;
    out->chunk_count = cake__get_u32(reader);
    return decode_summary(&out->summary, alloc, reader);
}

/* ---- ids --------------------------------------------------------------------------------------------------------- */

static void put_ids(cake__buf_t *out, const cake_id_t *ids, size_t count)
{
    cake__put_varint(out, count);
    for (size_t i = 0; i < count; i++)
        cake__put_string(out, cake__slice(ids[i].bytes, cake__id_is_plain(&ids[i]) ? ids[i].bytes[15] : 16));
}

static int get_id(cake__reader_t *reader, cake_id_t *id)
{
    cake_slice_t key = cake__get_string(reader, sizeof id->bytes);
    if (reader->err != 0)
        return CAKE_EPARSE;
    memset(id, 0, sizeof *id);
    id->bytes[15] = (uint8_t)key.len;
    if (key.len > 0)
        memcpy(id->bytes, key.data, key.len);
    return key.len == sizeof id->bytes && cake__id_is_plain(id) ? CAKE_EPARSE : 0;
}

/* The count is held against the bytes that are there before anything is allocated. */
static int get_ids(cake__reader_t *reader, const cake_alloc_t *alloc, cake_id_t **ids, size_t *count)
{
    uint64_t announced = cake__get_varint(reader);
    *ids = NULL;
    *count = 0;
    if (reader->err != 0 || announced > cake__reader_left(reader))
        return CAKE_EPARSE;
    if (announced > IDS_MAX)
        return CAKE_ETOOBIG;
    *ids = cake__malloc(alloc, (size_t)announced * sizeof **ids);
    int err = *ids == NULL ? CAKE_ENOMEM : 0;
    for (; *count < announced && err == 0; *count += err == 0)
        err = get_id(reader, *ids + *count);
    if (err != 0) {
        cake__free(alloc, *ids);
        *ids = NULL;
    }
    return err;
}

/* ---- ranges: ascending, so that there is one way to write them --------------------------------------------------- */

static void put_head(cake__buf_t *out, uint8_t bits, size_t count)
{
    cake__put_varint(out, count);
    if (count > 0)
        cake__put_u8(out, bits);
}

/* each: bytes that a range takes at least. */
static int get_head(cake__reader_t *reader, size_t each, uint8_t *bits, size_t *count)
{
    uint64_t announced = cake__get_varint(reader);
    *bits = 0;
    *count = 0;
    if (reader->err != 0 || announced > cake__reader_left(reader) / each)
        return CAKE_EPARSE;
    if (announced > CAKE__RANGES_MAX)
        return CAKE_ETOOBIG;
    *bits = announced > 0 ? cake__get_u8(reader) : 0;
    *count = (size_t)announced;
    return reader->err == 0 && are_bits(*bits) ? 0 : CAKE_EPARSE;
}

/* *next: one above the index before. */
static void put_index(cake__buf_t *out, uint32_t *next, uint32_t index)
{
    CAKE_ASSERT(index >= *next);
    cake__put_varint(out, index - *next);
    *next = index + 1;
}

static bool get_index(cake__reader_t *reader, uint8_t bits, uint32_t *next, uint32_t *index)
{
    uint64_t step = cake__get_varint(reader);
    if (reader->err != 0 || step >= (UINT64_C(1) << bits) - *next)
        return false;
    *index = *next + (uint32_t)step;
    *next = *index + 1;
    return *index >> bits == 0;
}

static int get_sums(cake__reader_t *reader, const cake_alloc_t *alloc, cake__compare_t *out)
{
    uint32_t next = 0;
    int err = get_head(reader, 9, &out->bits, &out->range_count);
    out->ranges = err == 0 ? cake__malloc(alloc, out->range_count * sizeof *out->ranges) : NULL;
    if (out->ranges == NULL)
        return err != 0 ? err : CAKE_ENOMEM;
    for (size_t i = 0; i < out->range_count; i++) {
        if (!get_index(reader, out->bits, &next, &out->ranges[i].index))
            return CAKE_EPARSE;
        out->ranges[i].sum = cake__get_u64(reader);
    }
    return reader->err != 0 ? CAKE_EPARSE : 0;
}

static int get_unequal(cake__reader_t *reader, const cake_alloc_t *alloc, cake__compared_t *out)
{
    uint32_t next = 0;
    int err = get_head(reader, out->has_parts ? 1 + 8 * CAKE__RANGE_FAN : 1, &out->bits, &out->unequal_count);
    out->unequal = err == 0 ? cake__calloc(alloc, out->unequal_count + 1, sizeof *out->unequal) : NULL;
    if (out->unequal == NULL)
        return err != 0 ? err : CAKE_ENOMEM;
    if (out->has_parts && out->unequal_count > 0 && out->bits == CAKE__RANGE_BITS_MAX)
        return CAKE_EPARSE;
    for (size_t i = 0; i < out->unequal_count; i++) {
        if (!get_index(reader, out->bits, &next, &out->unequal[i].index))
            return CAKE_EPARSE;
        for (uint32_t k = 0; k < CAKE__RANGE_FAN && out->has_parts; k++)
            out->unequal[i].parts[k] = cake__get_u64(reader);
    }
    return reader->err != 0 ? CAKE_EPARSE : 0;
}

/* ---- COMPARE, COMPARED: messages --------------------------------------------------------------------------------- */

void cake__compare_free(cake__compare_t *message, const cake_alloc_t *alloc)
{
    cake__free(alloc, message->ranges);
    cake__free(alloc, message->ids);
    message->ranges = NULL;
    message->ids = NULL;
}

void cake__compare_encode(const cake__compare_t *message, cake__buf_t *out)
{
    uint32_t next = 0;
    cake__put_u8(out, VERSION);
    cake__put_u64(out, message->session_id);
    cake__put_u64(out, message->token);
    cake__put_u32(out, message->index);
    cake__put_u8(out, message->is_last);
    put_head(out, message->bits, message->range_count);
    for (size_t i = 0; i < message->range_count; i++) {
        put_index(out, &next, message->ranges[i].index);
        cake__put_u64(out, message->ranges[i].sum);
    }
    put_ids(out, message->ids, message->count);
}

int cake__compare_decode(cake__compare_t *out, const cake_alloc_t *alloc, cake__reader_t *reader)
{
    int err = check_version(reader);
    if (err != 0)
        return err;
    memset(out, 0, sizeof *out);
    out->session_id = cake__get_u64(reader);
    out->token = cake__get_u64(reader);
    out->index = cake__get_u32(reader);
    uint8_t is_last = cake__get_u8(reader);
    out->is_last = is_last == 1;
    err = is_last > 1 || out->index == UINT32_MAX ? CAKE_EPARSE : get_sums(reader, alloc, out);
    if (err == 0)
        err = get_ids(reader, alloc, &out->ids, &out->count);
    if (err != 0)
        cake__compare_free(out, alloc);
    return err;
}

void cake__compared_free(cake__compared_t *message, const cake_alloc_t *alloc)
{
    cake__free(alloc, message->unequal);
    cake__free(alloc, message->absent);
    message->unequal = NULL;
    message->absent = NULL;
}

void cake__compared_encode(const cake__compared_t *message, cake__buf_t *out)
{
    uint32_t next = 0;
    cake__put_u8(out, VERSION);
    cake__put_u64(out, message->session_id);
    cake__put_u64(out, message->token);
    cake__put_u64(out, message->epoch);
    cake__put_u32(out, message->index);
    cake__put_u8(out, message->has_parts);
    put_head(out, message->bits, message->unequal_count);
    for (size_t i = 0; i < message->unequal_count; i++) {
        put_index(out, &next, message->unequal[i].index);
        for (uint32_t k = 0; k < CAKE__RANGE_FAN && message->has_parts; k++)
            cake__put_u64(out, message->unequal[i].parts[k]);
    }
    put_ids(out, message->absent, message->absent_count);
}

int cake__compared_decode(cake__compared_t *out, const cake_alloc_t *alloc, cake__reader_t *reader)
{
    int err = check_version(reader);
    if (err != 0)
        return err;
    memset(out, 0, sizeof *out);
    out->session_id = cake__get_u64(reader);
    out->token = cake__get_u64(reader);
    out->epoch = cake__get_u64(reader);
    out->index = cake__get_u32(reader);
    uint8_t has_parts = cake__get_u8(reader);
    out->has_parts = has_parts == 1;
    err = has_parts > 1 ? CAKE_EPARSE : get_unequal(reader, alloc, out);
    if (err == 0)
        err = get_ids(reader, alloc, &out->absent, &out->absent_count);
    if (err != 0)
        cake__compared_free(out, alloc);
    return err;
}
