#include "store/session_wire.h"

void cake__session_answer_free(cake__session_answer_t *answer, const cake_alloc_t *alloc)
{
    if (answer->has_welcome)
        cake__welcome_free(&answer->welcome);
    if (answer->has_compared)
        cake__compared_free(&answer->compared, alloc);
    if (answer->has_fin)
        cake__fin_free(&answer->fin);
    cake__buf_free(&answer->unpacked);
    cake__free(alloc, answer->records);
    cake__free(alloc, answer->values);
    cake__free(alloc, answer->tags);
    memset(answer, 0, sizeof *answer);
}

/* The records; for a packed payload they are read from what comes out of it, and nothing may be left over there. */
static int decode_records(cake__session_answer_t *out, cake_store_t *store, cake__reader_t *reader)
{
    uint8_t encoding = cake__get_u8(reader);
    cake__reader_t unpacked, *records = reader;
    if (reader->err != 0 || encoding > CAKE__PAYLOAD_PACKED)
        return CAKE_EPARSE;
    if (encoding == CAKE__PAYLOAD_PACKED) {
        const uint8_t *start = reader->at;
        int err = cake__unpack(&store->unpacking, reader, &out->unpacked);
        if (err != 0)
            return err;
        size_t packed_len = (size_t)(reader->at - start);
        store->stats.session_bytes_saved += out->unpacked.len - cake__min_u64(out->unpacked.len, packed_len);
        unpacked = cake__reader(out->unpacked.data, out->unpacked.len);
        records = &unpacked;
    }
    uint64_t actor = 0; /* none yet: no operation is valid without */
    for (size_t i = 0; i < out->chunk.count && records->err == 0; i++) {
        if (cake__reader_left(records) > 0 && *records->at == CAKE__ACTOR_FOLLOWS) {
            (void)cake__get_u8(records);
            actor = cake__get_u64(records);
        }
        cake__get_operation(records, actor, &out->records[i], &out->values[i]);
        out->tags[i] = &out->values[i];
    }
    if (records->err == 0 && records != reader && cake__reader_left(records) > 0)
        return CAKE_EPARSE;
    return records->err;
}

static int decode_chunk(cake__session_answer_t *out, cake_store_t *store, cake__reader_t *reader)
{
    const cake_alloc_t *alloc = store->alloc;
    cake__chunk_t *chunk = &out->chunk;
    chunk->session_id = cake__get_u64(reader);
    chunk->token = cake__get_u64(reader);
    uint64_t index = cake__get_varint(reader), count = cake__get_varint(reader);
    if (reader->err != 0 || index > UINT32_MAX || count == 0 || count > CAKE__CHUNK_RECORDS)
        return CAKE_EPARSE;
    chunk->index = (uint32_t)index;
    chunk->count = (size_t)count;
    out->records = cake__calloc(alloc, chunk->count, sizeof *out->records);
    out->values = cake__calloc(alloc, chunk->count, sizeof *out->values);
    out->tags = cake__calloc(alloc, chunk->count, sizeof *out->tags);
    if (out->records == NULL || out->values == NULL || out->tags == NULL)
        return CAKE_ENOMEM;
    chunk->records = out->records;
    chunk->tags = out->tags;
    return decode_records(out, store, reader);
}

static int decode_parts(cake__session_answer_t *out, cake_store_t *store, cake__reader_t *reader)
{
    const cake_alloc_t *alloc = store->alloc;
    uint8_t parts = cake__get_u8(reader);
    int err = reader->err != 0 || parts > 15 ? CAKE_EPARSE : 0;
    if (err == 0 && (parts & CAKE__PART_WELCOME) != 0) {
        err = cake__welcome_decode(&out->welcome, alloc, reader);
        out->has_welcome = err == 0;
    }
    if (err == 0 && (parts & CAKE__PART_CHUNK) != 0) {
        err = decode_chunk(out, store, reader);
        out->has_chunk = err == 0;
    }
    if (err == 0 && (parts & CAKE__PART_COMPARED) != 0) {
        err = cake__compared_decode(&out->compared, alloc, reader);
        out->has_compared = err == 0;
    }
    if (err == 0 && (parts & CAKE__PART_FIN) != 0) {
        err = cake__fin_decode(&out->fin, alloc, reader);
        out->has_fin = err == 0;
    }
    return err != 0 ? err : cake__reader_done(reader) ? 0 : CAKE_EPARSE;
}

int cake__session_answer_decode(cake__session_answer_t *out, cake_store_t *store, cake_slice_t body, cake__hail_t *hail)
{
    cake__reader_t reader = cake__reader(body.data, body.len);
    memset(out, 0, sizeof *out);
    cake__buf_init(&out->unpacked, store->alloc);
    int err = cake__get_hail(store, &reader, hail);
    if (err == 0)
        err = decode_parts(out, store, &reader);
    if (err != 0)
        cake__session_answer_free(out, store->alloc);
    return err;
}
