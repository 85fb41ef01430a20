/* save.c: a set as bytes, written in pieces and read back.
 *
 *      "CAKESET" | version u8 = 1 | joined u8 | varint summary length | summary (context_codec.c)
 *      | varint records | per record, in order of (actor, seq): form u8 | [actor u64] | varint seq step | varint hlc | id
 *      | checksum u64 of all before
 *
 *      form: 1 tombstone, 2 another actor than before, 4 the id is 16 bytes as they are; else one length byte and the key
 *
 * Canonical: there is one way to write each set. The stamp is the difference to the one before it in zigzag form. */
#include "crdt/set.h"

#define MAGIC       "CAKESET"
#define VERSION     1u
#define PIECE       4096u
#define SUMMARY_MAX (48u << 20) /* bytes: what the bounds of context.h can come to */

enum { FORM_TOMBSTONE = 1, FORM_ACTOR = 2, FORM_WHOLE_ID = 4, FORM_ALL = 7 };

/* FNV-1a, finished by a mix: every altered byte alters it. */
#define CHECKSUM_BEGIN UINT64_C(0xcbf29ce484222325)

static uint64_t checksum_more(uint64_t sum, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        sum = (sum ^ data[i]) * UINT64_C(0x100000001b3);
    return sum;
}

static bool is_compact(const cake_id_t *id)
{
    uint8_t len = id->bytes[15], rest = 0;
    if (len > CAKE_ID_KEY_MAX)
        return false;
    for (uint8_t i = len; i < 15; i++)
        rest |= id->bytes[i];
    return rest == 0;
}

static uint64_t zigzag(uint64_t difference)
{
    return difference << 1 ^ (0 - (difference >> 63));
}

static uint64_t unzigzag(uint64_t value)
{
    return value >> 1 ^ (0 - (value & 1));
}

/* ---- saving ------------------------------------------------------------------------------------------------------- */

typedef struct saver {
    cake_orswot_write_fn write;
    void *ctx;
    cake__buf_t buf;
    uint64_t checksum;
    cake_dot_t before;
    cake_hlc_t hlc_before;
} saver_t;

static int flush(saver_t *saver)
{
    if (saver->buf.err != 0)
        return saver->buf.err;
    saver->checksum = checksum_more(saver->checksum, saver->buf.data, saver->buf.len);
    int err = saver->buf.len == 0 ? 0 : saver->write(saver->ctx, saver->buf.data, saver->buf.len);
    cake__buf_clear(&saver->buf);
    return err;
}

static void put_record(saver_t *saver, const cake_record_t *record)
{
    bool is_other = record->dot.actor != saver->before.actor || saver->before.seq == 0;
    bool is_whole = !is_compact(&record->id);
    cake__put_u8(&saver->buf, (uint8_t)((record->is_tombstone ? FORM_TOMBSTONE : 0) | (is_other ? FORM_ACTOR : 0) |
                                        (is_whole ? FORM_WHOLE_ID : 0)));
    if (is_other)
        cake__put_u64(&saver->buf, record->dot.actor);
    cake__put_varint(&saver->buf, record->dot.seq - (is_other ? 0 : saver->before.seq));
    cake__put_varint(&saver->buf, zigzag(record->hlc - saver->hlc_before));
    if (is_whole)
        cake__put_bytes(&saver->buf, record->id.bytes, sizeof record->id.bytes);
    else
        cake__put_string(&saver->buf, cake_id_key(&record->id));
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
    saver_t saver = {.write = write, .ctx = ctx, .checksum = CHECKSUM_BEGIN};
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
        cake__put_u64(&saver.buf, cake__mix64(saver.checksum));
        err = flush(&saver);
    }
    cake__buf_free(&saver.buf);
    return err;
}

/* ---- loading ------------------------------------------------------------------------------------------------------- */

/* What was read and not used yet: a window of PIECE bytes that is moved on. */
typedef struct loader {
    cake_orswot_read_fn read;
    void *ctx;
    cake_orswot_t *set;
    uint8_t window[PIECE];
    size_t begin, end;
    uint64_t checksum;
    cake_dot_t before;
    cake_hlc_t hlc_before;
    int err;
} loader_t;

static bool fill(loader_t *loader)
{
    loader->begin = loader->end = 0;
    int got = loader->err != 0 ? 0 : loader->read(loader->ctx, loader->window, PIECE);
    if (got <= 0 || got > (int)PIECE) {
        loader->err = loader->err != 0 ? loader->err : got < 0 ? got : CAKE_EPARSE; /* cut */
        return false;
    }
    loader->end = (size_t)got;
    return true;
}

/* After a failure zeroes, and err says why. */
static void get_raw(loader_t *loader, void *to, size_t len)
{
    uint8_t *at = to;
    while (len > 0) {
        if (loader->begin == loader->end && !fill(loader)) {
            memset(at, 0, len);
            return;
        }
        size_t part = (size_t)cake__min_u64(len, loader->end - loader->begin);
        memcpy(at, loader->window + loader->begin, part);
        loader->begin += part;
        at += part;
        len -= part;
    }
}

static void get_bytes(loader_t *loader, void *to, size_t len)
{
    get_raw(loader, to, len);
    loader->checksum = checksum_more(loader->checksum, to, len);
}

static uint8_t get_u8(loader_t *loader)
{
    uint8_t byte;
    get_bytes(loader, &byte, 1);
    return byte;
}

static uint64_t get_varint(loader_t *loader)
{
    uint8_t bytes[10] = {0};
    size_t len = 0;
    do {
        bytes[len] = get_u8(loader);
    } while (bytes[len++] >= 0x80 && len < sizeof bytes);
    cake__reader_t reader = cake__reader(bytes, len);
    uint64_t value = cake__get_varint(&reader);
    if (loader->err == 0 && !cake__reader_done(&reader))
        loader->err = CAKE_EPARSE;
    return value;
}

/* Memory grows as bytes arrive: an announced length alone costs nothing. */
static int load_summary(loader_t *loader)
{
    uint64_t len = get_varint(loader);
    cake__buf_t buf;
    cake__buf_init(&buf, loader->set->alloc);
    if (loader->err == 0 && len > SUMMARY_MAX)
        loader->err = CAKE_ETOOBIG;
    for (uint64_t left = len, part; left > 0 && loader->err == 0; left -= part) {
        part = cake__min_u64(left, PIECE);
        uint8_t *to = cake__buf_extend(&buf, (size_t)part);
        if (to == NULL)
            loader->err = CAKE_ENOMEM;
        else
            get_bytes(loader, to, (size_t)part);
    }
    cake__reader_t reader = cake__reader(buf.data, buf.len);
    int err = loader->err != 0 ? loader->err : cake__summary_decode(&loader->set->summary, &reader);
    if (err == 0 && !cake__reader_done(&reader))
        err = CAKE_EPARSE;
    cake__buf_free(&buf);
    return err;
}

static void get_id(loader_t *loader, bool is_whole, cake_id_t *id)
{
    memset(id, 0, sizeof *id);
    if (is_whole) {
        get_bytes(loader, id->bytes, sizeof id->bytes);
        if (loader->err == 0 && is_compact(id))
            loader->err = CAKE_EPARSE;
        return;
    }
    uint8_t len = get_u8(loader);
    if (loader->err == 0 && len > CAKE_ID_KEY_MAX)
        loader->err = CAKE_EPARSE;
    if (loader->err == 0)
        get_bytes(loader, id->bytes, len);
    id->bytes[15] = len;
}

/* In order, in C, and one for each id: what a set cannot be is not loaded. */
static int load_record(loader_t *loader)
{
    cake_record_t record;
    cake_orswot_t *set = loader->set;
    uint8_t form = get_u8(loader), actor[8];
    bool is_other = (form & FORM_ACTOR) != 0;
    record.dot.actor = loader->before.actor;
    if (is_other) {
        get_bytes(loader, actor, sizeof actor);
        record.dot.actor = cake__load_le(actor, 8);
    }
    uint64_t step = get_varint(loader);
    record.hlc = loader->hlc_before + unzigzag(get_varint(loader));
    get_id(loader, (form & FORM_WHOLE_ID) != 0, &record.id);
    record.is_tombstone = (form & FORM_TOMBSTONE) != 0;
    if (loader->err != 0)
        return loader->err;
    bool is_first = loader->before.seq == 0;
    bool is_ordered = is_first ? is_other : is_other == (record.dot.actor > loader->before.actor);
    if (form > FORM_ALL || !is_ordered || step == 0 || step > CAKE_SEQ_MAX)
        return CAKE_EPARSE;
    record.dot.seq = step + (is_other ? 0 : loader->before.seq);
    if (!cake__context_contains(&set->summary.context, record.dot) || record.dot.seq > CAKE_SEQ_MAX)
        return CAKE_EPARSE;
    if (cake__table_find(&set->table, &record.id) != CAKE__SLOT_NONE)
        return CAKE_EPARSE;
    loader->before = record.dot;
    loader->hlc_before = record.hlc;
    cake_clock_advance(set->clock, record.hlc);
    return cake__table_put(&set->table, &record, CAKE__SLOT_NONE);
}

static int load_head(loader_t *loader, uint64_t *count)
{
    uint8_t magic[sizeof MAGIC - 1];
    get_bytes(loader, magic, sizeof magic);
    uint8_t version = get_u8(loader), is_joined = get_u8(loader);
    if (loader->err != 0)
        return loader->err;
    if (memcmp(magic, MAGIC, sizeof magic) != 0 || is_joined > 1)
        return CAKE_EPARSE;
    if (version != VERSION)
        return CAKE_EVERSION;
    loader->set->is_joined = is_joined == 1;
    int err = load_summary(loader);
    *count = err == 0 ? get_varint(loader) : 0;
    return err != 0 ? err : loader->err;
}

int cake_orswot_load(const cake_orswot_config_t *config, cake_orswot_read_fn read, void *ctx, cake_orswot_t **out)
{
    cake_orswot_t *set;
    uint64_t count = 0;
    uint8_t sum[8];
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
    loader->checksum = CHECKSUM_BEGIN;
    err = load_head(loader, &count);
    for (; count > 0 && err == 0; count--)
        err = load_record(loader);
    if (err == 0) {
        get_raw(loader, sum, sizeof sum);
        err = loader->err != 0                                         ? loader->err
              : cake__load_le(sum, 8) != cake__mix64(loader->checksum) ? CAKE_ECORRUPT
                                                                       : 0;
    }
    if (err == 0 && cake__context_highest(&set->summary.context, set->actor) != 0)
        err = CAKE_EDUPLICATE; /* every run takes a new actor */
    cake_clock_advance(set->clock, err == 0 ? set->summary.horizon : 0);
    cake__free(set->alloc, loader);
    if (err == 0)
        *out = set;
    else
        cake_orswot_free(set);
    return err;
}
