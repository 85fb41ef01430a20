/* save.c: a set as bytes, written in pieces and read back.
 *
 *      "CAKESET" | version u8 = 2 | joined u8 | varint summary length | summary (context_codec.c)
 *      | varint records | per record, by (actor, seq): form u8 | [actor u64] | varint seq step | varint hlc | id
 *      | checksum u64 of all before
 *
 *      form: 1 tombstone, 2 another actor than before, 4 the id is 16 bytes as they are; else a length byte and the key
 *
 * Canonical: there is one way to write each set. The stamp is the difference to the one before it in zigzag form. */
#include "crdt/set.h"
#include "crdt/table_internal.h"

#define MAGIC       "CAKESET"
#define VERSION     2u
#define PIECE       4096u
#define RECORD_MAX  64u         /* bytes, and some */
#define TOGETHER    32u         /* records that are placed in a row, their part of the index fetched ahead */
#define SUMMARY_MAX (48u << 20) /* bytes: what the bounds of context.h can come to */

enum { FORM_TOMBSTONE = 1, FORM_ACTOR = 2, FORM_WHOLE_ID = 4, FORM_ALL = 7 };

/* Words of eight bytes, each taken in by a step that loses nothing: one altered word always alters the sum. */
typedef struct checksum {
    uint64_t sum, len;
    uint8_t rest[8]; /* bytes of a word that is not full yet */
} checksum_t;

#define CHECKSUM_BEGIN UINT64_C(0xcbf29ce484222325)

static uint64_t checksum_word(uint64_t sum, uint64_t word)
{
    sum = (sum ^ word) * UINT64_C(0x9fb21c651e98df25);
    return sum ^ sum >> 32;
}

static void checksum_more(checksum_t *checksum, const uint8_t *data, size_t len)
{
    for (; len > 0 && checksum->len % 8 != 0; len--) {
        checksum->rest[checksum->len++ % 8] = *data++;
        if (checksum->len % 8 == 0)
            checksum->sum = checksum_word(checksum->sum, cake__load_le(checksum->rest, 8));
    }
    for (; len >= 8; len -= 8, data += 8, checksum->len += 8)
        checksum->sum = checksum_word(checksum->sum, cake__load_le(data, 8));
    for (; len > 0; len--)
        checksum->rest[checksum->len++ % 8] = *data++;
}

static uint64_t checksum_end(const checksum_t *checksum)
{
    uint64_t rest = cake__load_le(checksum->rest, checksum->len % 8);
    return cake__mix64(checksum_word(checksum_word(checksum->sum, rest), checksum->len));
}

static uint64_t zigzag(uint64_t difference)
{
    return difference << 1 ^ (0 - (difference >> 63));
}

static uint64_t unzigzag(uint64_t value)
{
    return value >> 1 ^ (0 - (value & 1));
}

/* ---- saving ------------------------------------------------------------------------------------------------------ */

typedef struct saver {
    cake_orswot_write_fn write;
    void *ctx;
    cake__buf_t buf;
    checksum_t checksum;
    cake_dot_t before;
    cake_hlc_t hlc_before;
} saver_t;

static int flush(saver_t *saver)
{
    if (saver->buf.err != 0)
        return saver->buf.err;
    checksum_more(&saver->checksum, saver->buf.data, saver->buf.len);
    int err = saver->buf.len == 0 ? 0 : saver->write(saver->ctx, saver->buf.data, saver->buf.len);
    cake__buf_clear(&saver->buf);
    return err;
}

static uint8_t *varint_at(uint8_t *at, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *at++ = (uint8_t)(value | 0x80);
    *at++ = (uint8_t)value;
    return at;
}

static void put_record(saver_t *saver, const cake_record_t *record)
{
    bool is_other = record->dot.actor != saver->before.actor || saver->before.seq == 0;
    bool is_whole = !cake__id_is_plain(&record->id);
    size_t before = saver->buf.len;
    uint8_t *begin = cake__buf_extend(&saver->buf, RECORD_MAX), *at = begin;
    if (at == NULL)
        return;
    *at++ = (uint8_t)((record->is_tombstone ? FORM_TOMBSTONE : 0) | (is_other ? FORM_ACTOR : 0) |
                      (is_whole ? FORM_WHOLE_ID : 0));
    if (is_other) {
        cake__store_le(at, record->dot.actor, 8);
        at += 8;
    }
    at = varint_at(at, record->dot.seq - (is_other ? 0 : saver->before.seq));
    at = varint_at(at, zigzag(record->hlc - saver->hlc_before));
    if (!is_whole)
        *at++ = record->id.bytes[15];
    memcpy(at, record->id.bytes, 16); /* of a key its length only counts */
    at += is_whole ? 16 : record->id.bytes[15];
    saver->buf.len = before + (size_t)(at - begin);
    saver->before = record->dot;
    saver->hlc_before = record->hlc;
}

static int put_head(saver_t *saver, const cake_orswot_t *set)
{
    cake__buf_t summary;
    cake__buf_init(&summary, set->alloc);
    cake__summary_encode(&set->summary, &summary);
    cake__put_bytes(&saver->buf, MAGIC, sizeof MAGIC - 1);
    cake__put_u8(&saver->buf, VERSION);
    cake__put_u8(&saver->buf, set->is_joined);
    cake__put_string(&saver->buf, cake__buf_slice(&summary));
    cake__put_varint(&saver->buf, set->table.live + set->table.tombstones);
    int err = summary.err;
    cake__buf_free(&summary);
    return err != 0 ? err : flush(saver);
}

int cake_orswot_save(cake_orswot_t *set, cake_orswot_write_fn write, void *ctx)
{
    saver_t saver = {.write = write, .ctx = ctx, .checksum = {.sum = CHECKSUM_BEGIN}};
    cake__table_cursor_t cursor = {0, 0, 0};
    cake_record_t records[128];
    size_t count;
    CAKE_ASSERT(set->change == NULL);
    int err = cake__orswot_finish_loading(set);
    if (err != 0)
        return err;
    cake__buf_init(&saver.buf, set->alloc);
    err = put_head(&saver, set);
    while (err == 0 && (count = cake__table_next(&set->table, &cursor, records, CAKE_COUNT_OF(records))) > 0) {
        for (size_t i = 0; i < count; i++)
            put_record(&saver, &records[i]);
        err = saver.buf.len >= PIECE || saver.buf.err != 0 ? flush(&saver) : 0;
    }
    if (err == 0)
        err = flush(&saver);
    if (err == 0) {
        cake__put_u64(&saver.buf, checksum_end(&saver.checksum));
        err = flush(&saver);
    }
    cake__buf_free(&saver.buf);
    return err;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

/* A window on what was read: data[begin..end) is not used yet, what is before `summed` is in the checksum. */
typedef struct loader {
    cake_orswot_read_fn read;
    void *ctx;
    cake_orswot_t *set;
    uint8_t data[PIECE];
    size_t summed, begin, end;
    checksum_t checksum;
    cake_dot_t before;
    cake_hlc_t hlc_before, hlc_greatest;
    uint64_t base; /* of before.actor: C has all its seqs up to here */
} loader_t;

static void sum_up(loader_t *loader)
{
    checksum_more(&loader->checksum, loader->data + loader->summed, loader->begin - loader->summed);
    loader->summed = loader->begin;
}

/* What is left, at least `len` bytes of it unless the end comes before. */
static int look_ahead(loader_t *loader, size_t len, cake__reader_t *reader)
{
    CAKE_ASSERT(len <= PIECE / 2);
    if (loader->end - loader->begin < len) {
        sum_up(loader);
        memmove(loader->data, loader->data + loader->begin, loader->end - loader->begin);
        loader->end -= loader->begin;
        loader->summed = loader->begin = 0;
    }
    while (loader->end - loader->begin < len) {
        size_t room = PIECE - loader->end;
        int got = loader->read(loader->ctx, loader->data + loader->end, room);
        if (got < 0 || (size_t)got > room)
            return got < 0 ? got : CAKE_EPARSE;
        if (got == 0)
            break;
        loader->end += (size_t)got;
    }
    *reader = cake__reader(loader->data + loader->begin, loader->end - loader->begin);
    return 0;
}

static int advance(loader_t *loader, const cake__reader_t *reader)
{
    loader->begin = (size_t)(reader->at - loader->data);
    return reader->err;
}

/* Memory grows as bytes arrive: an announced length alone costs nothing. */
static int load_summary(loader_t *loader, uint64_t len)
{
    cake__buf_t buf;
    cake__reader_t reader;
    cake__buf_init(&buf, loader->set->alloc);
    int err = len > SUMMARY_MAX ? CAKE_ETOOBIG : 0;
    for (uint64_t left = len, part; left > 0 && err == 0; left -= part) {
        part = cake__min_u64(left, PIECE / 2);
        err = look_ahead(loader, (size_t)part, &reader);
        const uint8_t *from = err == 0 ? cake__get_bytes(&reader, (size_t)part) : NULL;
        if (err == 0)
            err = advance(loader, &reader);
        if (err == 0)
            cake__put_bytes(&buf, from, (size_t)part);
        err = err != 0 ? err : buf.err;
    }
    reader = cake__reader(buf.data, buf.len);
    if (err == 0)
        err = cake__summary_decode(&loader->set->summary, &reader);
    if (err == 0 && !cake__reader_done(&reader))
        err = CAKE_EPARSE;
    cake__buf_free(&buf);
    return err;
}

static bool get_id(cake__reader_t *reader, bool is_whole, cake_id_t *id)
{
    size_t len = is_whole ? 16 : cake__get_u8(reader);
    const uint8_t *from = len <= 16 ? cake__get_bytes(reader, len) : NULL;
    memset(id, 0, sizeof *id);
    if (from == NULL || (!is_whole && len > CAKE_ID_PLAIN_MAX))
        return false;
    memcpy(id->bytes, from, len);
    if (!is_whole)
        id->bytes[15] = (uint8_t)len;
    return !is_whole || !cake__id_is_plain(id);
}

/* In order and in C: what a set cannot be is not loaded. */
static int load_record(loader_t *loader, cake_record_t *record)
{
    cake__reader_t reader;
    int err = look_ahead(loader, RECORD_MAX, &reader);
    if (err != 0)
        return err;
    uint8_t form = cake__get_u8(&reader);
    bool is_other = (form & FORM_ACTOR) != 0, is_first = loader->before.seq == 0;
    uint64_t actor = is_other ? cake__get_u64(&reader) : loader->before.actor;
    uint64_t step = cake__get_varint(&reader);
    bool is_ordered = is_first ? is_other : is_other == (actor > loader->before.actor);
    record->hlc = loader->hlc_before + unzigzag(cake__get_varint(&reader));
    record->is_tombstone = (form & FORM_TOMBSTONE) != 0;
    record->dot = (cake_dot_t){actor, step + (is_other ? 0 : loader->before.seq)};
    if (!get_id(&reader, (form & FORM_WHOLE_ID) != 0, &record->id) || advance(loader, &reader) != 0 ||
        form > FORM_ALL || !is_ordered || step == 0 || step > CAKE_SEQ_MAX || record->dot.seq > CAKE_SEQ_MAX)
        return CAKE_EPARSE;
    const cake__context_t *context = &loader->set->summary.context;
    if (is_other)
        loader->base = cake__context_base(context, actor);
    if (record->dot.seq > loader->base && !cake__context_contains(context, record->dot))
        return CAKE_EPARSE;
    loader->before = record->dot;
    loader->hlc_before = record->hlc;
    loader->hlc_greatest = cake__max_u64(loader->hlc_greatest, record->hlc);
    return 0;
}

/* One for each id. */
static int load_records(loader_t *loader, uint64_t count)
{
    cake_record_t records[TOGETHER];
    uint64_t hashes[TOGETHER];
    cake__table_t *table = &loader->set->table;
    int err = 0;
    for (uint64_t part; count > 0 && err == 0; count -= part) {
        part = cake__min_u64(count, TOGETHER);
        for (uint64_t i = 0; i < part && err == 0; i++) {
            err = load_record(loader, &records[i]);
            hashes[i] = err != 0 ? 0 : cake__table_hash(table, cake__id_pair(&records[i].id));
            cake__table_prefetch_group(table, hashes[i]);
        }
        for (uint64_t i = 0; i < part && err == 0; i++) {
            cake__id_pair_t id = cake__id_pair(&records[i].id);
            cake__found_t found = cake__table_look_up(table, id, hashes[i]);
            err =
                found.entry == NULL ? cake__table_upsert_found(table, &records[i], id, hashes[i], found) : CAKE_EPARSE;
        }
    }
    return err;
}

static int load_head(loader_t *loader, uint64_t *count)
{
    cake__reader_t reader;
    int err = look_ahead(loader, RECORD_MAX, &reader);
    const uint8_t *magic = err == 0 ? cake__get_bytes(&reader, sizeof MAGIC - 1) : NULL;
    if (magic == NULL)
        return err != 0 ? err : CAKE_EPARSE;
    uint8_t version = cake__get_u8(&reader), is_joined = cake__get_u8(&reader);
    uint64_t len = cake__get_varint(&reader);
    if (memcmp(magic, MAGIC, sizeof MAGIC - 1) != 0 || reader.err != 0)
        return CAKE_EPARSE;
    if (version != VERSION || is_joined > 1)
        return version != VERSION ? CAKE_EVERSION : CAKE_EPARSE;
    loader->set->is_joined = is_joined == 1;
    (void)advance(loader, &reader);
    err = load_summary(loader, len);
    if (err == 0)
        err = look_ahead(loader, RECORD_MAX, &reader);
    *count = err == 0 ? cake__get_varint(&reader) : 0;
    return err == 0 ? advance(loader, &reader) : err;
}

static int load_checksum(loader_t *loader)
{
    cake__reader_t reader;
    sum_up(loader);
    int err = look_ahead(loader, sizeof(uint64_t), &reader);
    uint64_t sum = err == 0 ? cake__get_u64(&reader) : 0;
    if (err != 0 || reader.err != 0)
        return err != 0 ? err : reader.err;
    return sum == checksum_end(&loader->checksum) ? 0 : CAKE_ECORRUPT;
}

static int load(loader_t *loader)
{
    uint64_t count;
    int err = load_head(loader, &count);
    if (err == 0)
        err = load_records(loader, count);
    if (err == 0)
        err = load_checksum(loader);
    if (err == 0 && cake__context_highest(&loader->set->summary.context, loader->set->actor) != 0)
        err = CAKE_EDUPLICATE; /* every run takes a new actor */
    return err;
}

int cake_orswot_load(const cake_orswot_config_t *config, cake_orswot_read_fn read, void *ctx, cake_orswot_t **out)
{
    cake_orswot_t *set;
    *out = NULL;
    int err = cake_orswot_new(config, &set);
    if (err != 0)
        return err;
    loader_t *loader = cake__calloc(set->alloc, 1, sizeof *loader);
    if (loader == NULL) {
        cake_orswot_free(set);
        return CAKE_ENOMEM;
    }
    loader->read = read;
    loader->ctx = ctx;
    loader->set = set;
    loader->checksum.sum = CHECKSUM_BEGIN;
    err = load(loader);
    if (err == 0) { /* not before: a clock may be shared, and what is refused must not move it */
        cake_clock_advance(set->clock, cake__max_u64(loader->hlc_greatest, set->summary.horizon));
        *out = set;
    }
    cake__free(set->alloc, loader);
    if (err != 0)
        cake_orswot_free(set);
    return err;
}
