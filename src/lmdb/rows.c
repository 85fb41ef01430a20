/* Rows within one transaction.
 *
 *      record   kind u8 | parts u8 | hlc u64 | actor u64 | seq u64 | [id 16] | [key length u16, key] | value
 *
 * LMDB's keys have 511 bytes at most, ours too, and four go to the keyspace. So keys of DIRECT_MAX bytes and more share
 * the row of their first DIRECT_MAX bytes, a bucket:
 *
 *      bucket   ( tail length u8 | tail 4 | id 16 )*     sorted by tail; the records are in table large, by id
 *
 * and a walk through rows that opens the buckets it meets still goes in bytewise order of keys. */
#include "lmdb/lmdb.h"

#include <errno.h>

#include "base/bytes.h"

#define DIRECT_MAX 507u
#define TAIL_MAX   4u
#define HEADER     26u
#define PART_ID    1u
#define PART_KEY   2u
#define PARTS      3u
#define ENTRY      21u /* of a bucket */
#define BUCKET_MAX (UINT32_C(1) << 20)

_Static_assert(DIRECT_MAX + TAIL_MAX == CAKE_KEY_MAX, "a tail holds the rest of the longest key");

typedef struct table_key {
    uint8_t bytes[4 + CAKE_KEY_MAX];
    size_t len;
} table_key_t;

static table_key_t make_key(uint32_t keyspace, cake_slice_t rest)
{
    table_key_t key;
    size_t len = rest.len < DIRECT_MAX ? rest.len : DIRECT_MAX;
    for (int i = 0; i < 4; i++)
        key.bytes[i] = (uint8_t)(keyspace >> (24 - 8 * i));
    if (len > 0)
        memcpy(key.bytes + 4, rest.data, len);
    key.len = 4 + len;
    return key;
}

static table_key_t key_of_id(uint32_t keyspace, const cake_id_t *id)
{
    return make_key(keyspace, cake__slice(id->bytes, sizeof id->bytes));
}

static int get(const cake__table_ref_t *ref, cake__lmdb_table_t table, const table_key_t *key, MDB_val *value)
{
    MDB_val at = cake__val(key->bytes, key->len);
    return mdb_get(ref->txn, ref->lane->tables[table], &at, value);
}

static int put(const cake__table_ref_t *ref, cake__lmdb_table_t table, const table_key_t *key, MDB_val *value,
               unsigned flags)
{
    MDB_val at = cake__val(key->bytes, key->len);
    if (table == CAKE__TABLE_ROWS && ref->rows != NULL)
        return mdb_cursor_put(ref->rows, &at, value, flags);
    return mdb_put(ref->txn, ref->lane->tables[table], &at, value, flags);
}

static int del(const cake__table_ref_t *ref, cake__lmdb_table_t table, const table_key_t *key)
{
    MDB_val at = cake__val(key->bytes, key->len);
    int code = mdb_del(ref->txn, ref->lane->tables[table], &at, NULL);
    return code == MDB_NOTFOUND ? 0 : code;
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

static int put_record(const cake__table_ref_t *ref, cake__lmdb_table_t table, const table_key_t *key, unsigned parts,
                      unsigned flags, const cake_write_t *write)
{
    bool is_tombstone = write->kind == CAKE_WRITE_TOMBSTONE;
    size_t value_len = is_tombstone ? 0 : write->value.len;
    size_t len = HEADER + (parts & PART_ID ? 16 : 0) + (parts & PART_KEY ? 2 + write->key.len : 0) + value_len;
    MDB_val value = cake__val(NULL, len);
    int code = put(ref, table, key, &value, MDB_RESERVE | flags);
    if (code != 0)
        return code;
    uint8_t *to = value.mv_data;
    to[0] = is_tombstone;
    to[1] = (uint8_t)parts;
    cake__store_le(to + 2, write->hlc, 8);
    cake__store_le(to + 10, write->dot.actor, 8);
    cake__store_le(to + 18, write->dot.seq, 8);
    to += HEADER;
    if (parts & PART_ID) {
        memcpy(to, write->id.bytes, 16);
        to += 16;
    }
    if (parts & PART_KEY) {
        cake__store_le(to, write->key.len, 2);
        memcpy(to + 2, write->key.data, write->key.len);
        to += 2 + write->key.len;
    }
    if (value_len > 0)
        memcpy(to, write->value.data, value_len);
    return 0;
}

/* Without a key in it, the record gets the one given. Slices point into the map. */
static int read_record(MDB_val record, cake_slice_t key, cake_row_t *row)
{
    cake__reader_t reader = cake__reader(record.mv_data, record.mv_size);
    uint8_t kind = cake__get_u8(&reader), parts = cake__get_u8(&reader);
    *row = (cake_row_t){.key = key, .is_tombstone = kind != 0};
    row->hlc = cake__get_u64(&reader);
    row->dot.actor = cake__get_u64(&reader);
    row->dot.seq = cake__get_u64(&reader);
    const uint8_t *id = parts & PART_ID ? cake__get_bytes(&reader, 16) : NULL;
    if (parts & PART_KEY) {
        row->key.len = cake__get_u16(&reader);
        row->key.data = cake__get_bytes(&reader, row->key.len);
    }
    bool is_sound = reader.err == 0 && kind <= 1 && parts <= PARTS && row->key.len > 0 &&
                    row->key.len <= CAKE_KEY_MAX && cake_id_of_key(row->key, &row->id) == (id == NULL);
    if (!is_sound)
        return MDB_CORRUPTED;
    if (id != NULL)
        memcpy(row->id.bytes, id, 16);
    row->value = cake__slice(reader.at, cake__reader_left(&reader));
    return 0;
}

/* ---- buckets ----------------------------------------------------------------------------------------------------- */

static void make_entry(uint8_t entry[ENTRY], cake_slice_t key, const cake_id_t *id)
{
    size_t len = key.len - DIRECT_MAX;
    memset(entry, 0, ENTRY);
    entry[0] = (uint8_t)len;
    if (len > 0)
        memcpy(entry + 1, (const uint8_t *)key.data + DIRECT_MAX, len);
    memcpy(entry + 1 + TAIL_MAX, id->bytes, 16);
}

static int compare_tails(const uint8_t *a, const uint8_t *b)
{
    int order = memcmp(a + 1, b + 1, TAIL_MAX);
    return order != 0 ? order : (int)a[0] - (int)b[0];
}

/* The first entry whose tail is not below; *found: it is that tail. */
static size_t find_entry(cake_slice_t bucket, const uint8_t *entry, bool *found)
{
    const uint8_t *entries = bucket.data;
    size_t low = 0, high = bucket.len / ENTRY;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare_tails(entries + middle * ENTRY, entry) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *found = low < bucket.len / ENTRY && compare_tails(entries + low * ENTRY, entry) == 0;
    return low;
}

/* Puts the bucket back with the entry added or taken out. */
static int change_bucket(const cake__table_ref_t *ref, cake_slice_t key, const cake_id_t *id, bool is_removal)
{
    uint8_t entry[ENTRY];
    table_key_t place = make_key(ref->keyspace, key);
    MDB_val old = {0, NULL};
    bool found;
    int code = get(ref, CAKE__TABLE_ROWS, &place, &old);
    if (code != 0 && code != MDB_NOTFOUND)
        return code;
    old.mv_size = code == 0 ? old.mv_size : 0;
    make_entry(entry, key, id);
    size_t at = find_entry(cake__val_slice(old), entry, &found) * ENTRY;
    if (found != is_removal)
        return 0;
    if (old.mv_size > BUCKET_MAX)
        return MDB_TXN_FULL; /* millions of keys alike in their first 507 bytes */
    if (is_removal && old.mv_size == ENTRY)
        return del(ref, CAKE__TABLE_ROWS, &place);
    size_t len = is_removal ? old.mv_size - ENTRY : old.mv_size + ENTRY;
    const cake_alloc_t *alloc = &ref->lane->storage->alloc;
    uint8_t *bytes = cake__malloc(alloc, len); /* LMDB may move the old one while it makes room */
    if (bytes == NULL)
        return ENOMEM;
    const uint8_t *from = old.mv_data;
    size_t skip = is_removal ? ENTRY : 0, add = is_removal ? 0 : ENTRY;
    if (at > 0)
        memcpy(bytes, from, at);
    memcpy(bytes + at, entry, add);
    if (old.mv_size > at + skip)
        memcpy(bytes + at + add, from + at + skip, old.mv_size - at - skip);
    MDB_val value = cake__val(bytes, len);
    code = put(ref, CAKE__TABLE_ROWS, &place, &value, 0);
    cake__free(alloc, bytes);
    return code;
}

static int find_in_bucket(const cake__table_ref_t *ref, cake_slice_t key, cake_id_t *id)
{
    uint8_t entry[ENTRY];
    table_key_t place = make_key(ref->keyspace, key);
    MDB_val bucket;
    bool found;
    int code = get(ref, CAKE__TABLE_ROWS, &place, &bucket);
    if (code != 0)
        return code;
    make_entry(entry, key, &(cake_id_t){{0}});
    size_t at = find_entry(cake__val_slice(bucket), entry, &found);
    if (!found)
        return MDB_NOTFOUND;
    memcpy(id->bytes, (const uint8_t *)bucket.mv_data + at * ENTRY + 1 + TAIL_MAX, 16);
    return 0;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

int cake__lmdb_put_row(const cake__table_ref_t *ref, const cake_write_t *write)
{
    table_key_t place = make_key(ref->keyspace, write->key), by_id;
    if (cake_id_holds_key(&write->id))
        return put_record(ref, CAKE__TABLE_ROWS, &place, 0, 0, write);
    by_id = key_of_id(ref->keyspace, &write->id);
    if (write->key.len >= DIRECT_MAX) {
        int code = change_bucket(ref, write->key, &write->id, false);
        return code != 0 ? code : put_record(ref, CAKE__TABLE_LARGE, &by_id, PART_ID | PART_KEY, 0, write);
    }
    int code = put_record(ref, CAKE__TABLE_ROWS, &place, PART_ID, MDB_NOOVERWRITE, write);
    if (code == MDB_KEYEXIST) /* then its id is known, too */
        return put_record(ref, CAKE__TABLE_ROWS, &place, PART_ID, 0, write);
    if (code != 0 || !cake__late_is_full(ref->lane))
        return code != 0 ? code : cake__late_add(ref, &write->id, write->key);
    MDB_val key = cake__val(write->key.data, write->key.len);
    return put(ref, CAKE__TABLE_IDS, &by_id, &key, 0);
}

/* The key of a row that table rows holds under it. */
static int find_key(const cake__table_ref_t *ref, const cake_id_t *id, uint8_t key[CAKE_KEY_MAX], size_t *len)
{
    MDB_val found;
    int code = cake__late_find(ref, id, key, len);
    if (code != MDB_NOTFOUND)
        return code;
    table_key_t by_id = key_of_id(ref->keyspace, id);
    code = get(ref, CAKE__TABLE_IDS, &by_id, &found);
    if (code != 0)
        return code;
    if (found.mv_size <= CAKE_ID_PLAIN_MAX || found.mv_size >= DIRECT_MAX)
        return MDB_CORRUPTED;
    *len = found.mv_size;
    memcpy(key, found.mv_data, found.mv_size);
    return 0;
}

static int erase_direct(const cake__table_ref_t *ref, const cake_id_t *id, cake_slice_t key)
{
    table_key_t place = make_key(ref->keyspace, key), by_id = key_of_id(ref->keyspace, id);
    int code = del(ref, CAKE__TABLE_ROWS, &place);
    if (code == 0)
        code = cake__late_erase(ref, id);
    return code != 0 ? code : del(ref, CAKE__TABLE_IDS, &by_id);
}

int cake__lmdb_erase_row(const cake__table_ref_t *ref, const cake_id_t *id)
{
    MDB_val found;
    cake_row_t row;
    uint8_t key[CAKE_KEY_MAX];
    size_t len;
    if (cake_id_holds_key(id)) {
        char room[CAKE_ID_KEY_MAX];
        table_key_t place = make_key(ref->keyspace, cake_id_key(id, room));
        return del(ref, CAKE__TABLE_ROWS, &place);
    }
    table_key_t by_id = key_of_id(ref->keyspace, id);
    int code = find_key(ref, id, key, &len);
    if (code == 0)
        return erase_direct(ref, id, cake__slice(key, len));
    if (code == MDB_NOTFOUND)
        code = get(ref, CAKE__TABLE_LARGE, &by_id, &found);
    if (code == 0)
        code = read_record(found, cake__slice(NULL, 0), &row);
    if (code == 0) {
        memcpy(key, row.key.data, row.key.len);
        code = row.key.len < DIRECT_MAX ? MDB_CORRUPTED : change_bucket(ref, cake__slice(key, row.key.len), id, true);
        if (code == 0)
            code = del(ref, CAKE__TABLE_LARGE, &by_id);
    }
    return code == MDB_NOTFOUND ? 0 : code;
}

static int get_large(const cake__table_ref_t *ref, const cake_id_t *id, cake_row_t *row)
{
    MDB_val record;
    table_key_t by_id = key_of_id(ref->keyspace, id);
    int code = get(ref, CAKE__TABLE_LARGE, &by_id, &record);
    return code != 0 ? code : read_record(record, cake__slice(NULL, 0), row);
}

int cake__lmdb_get_row(const cake__table_ref_t *ref, cake_slice_t key, cake_row_t *row)
{
    MDB_val record;
    cake_id_t id;
    if (key.len == 0 || key.len > CAKE_KEY_MAX)
        return MDB_NOTFOUND;
    if (key.len >= DIRECT_MAX) {
        int code = find_in_bucket(ref, key, &id);
        return code != 0 ? code : get_large(ref, &id, row);
    }
    table_key_t place = make_key(ref->keyspace, key);
    int code = get(ref, CAKE__TABLE_ROWS, &place, &record);
    return code != 0 ? code : read_record(record, key, row);
}

int cake__lmdb_fetch_row(const cake__table_ref_t *ref, const cake_id_t *id, uint8_t key[CAKE_KEY_MAX], cake_row_t *row)
{
    char room[CAKE_ID_KEY_MAX];
    cake_slice_t held = cake_id_key(id, room);
    size_t len = held.len;
    if (len > 0)
        memcpy(key, held.data, len); /* the row's key has to outlive this call */
    int code = len > 0 ? 0 : find_key(ref, id, key, &len);
    if (code == MDB_NOTFOUND)
        return get_large(ref, id, row);
    return code != 0 ? code : cake__lmdb_get_row(ref, cake__slice(key, len), row);
}

/* ---- walking ----------------------------------------------------------------------------------------------------- */

static int each_in_bucket(const cake__table_ref_t *ref, cake_slice_t bucket, cake_slice_t from, cake_row_fn fn,
                          void *arg, int *from_fn)
{
    const uint8_t *entries = bucket.data;
    if (bucket.len % ENTRY != 0)
        return MDB_CORRUPTED;
    for (size_t at = 0; at < bucket.len && *from_fn == 0; at += ENTRY) {
        cake_id_t id;
        cake_row_t row;
        memcpy(id.bytes, entries + at + 1 + TAIL_MAX, 16);
        int code = get_large(ref, &id, &row);
        if (code != 0)
            return code == MDB_NOTFOUND ? MDB_CORRUPTED : code;
        if (cake__slice_compare(row.key, from) >= 0)
            *from_fn = fn(arg, &row);
    }
    return 0;
}

int cake__lmdb_each_row(const cake__table_ref_t *ref, cake_slice_t from, cake_row_fn fn, void *arg, int *from_fn)
{
    MDB_cursor *cursor;
    table_key_t start = make_key(ref->keyspace, from);
    MDB_val key = cake__val(start.bytes, start.len), value;
    *from_fn = 0;
    int code = mdb_cursor_open(ref->txn, ref->lane->tables[CAKE__TABLE_ROWS], &cursor);
    if (code != 0)
        return code;
    code = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    while (code == 0 && *from_fn == 0) {
        if (key.mv_size <= 4 || memcmp(key.mv_data, start.bytes, 4) != 0)
            break;
        cake_slice_t rest = cake__slice((const uint8_t *)key.mv_data + 4, key.mv_size - 4);
        if (rest.len < DIRECT_MAX) {
            cake_row_t row;
            code = read_record(value, rest, &row);
            if (code == 0)
                *from_fn = fn(arg, &row);
        } else {
            code = each_in_bucket(ref, cake__val_slice(value), from, fn, arg, from_fn);
        }
        if (code == 0 && *from_fn == 0)
            code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return code == MDB_NOTFOUND ? 0 : code;
}

/* ---- files of version 2, whose ids held keys of up to 15 bytes only ---------------------------------------------- */

/* The record again without its id. */
static int drop_id(const cake__table_ref_t *ref, MDB_cursor *cursor, const MDB_val *place, const MDB_val *record)
{
    const cake_alloc_t *alloc = &ref->lane->storage->alloc;
    uint8_t at[4 + CAKE_ID_KEY_MAX]; /* a copy, as of the record: LMDB moves what it gave */
    size_t len = record->mv_size - 16;
    uint8_t *bytes = cake__malloc(alloc, len);
    if (bytes == NULL)
        return ENOMEM;
    memcpy(at, place->mv_data, place->mv_size);
    memcpy(bytes, record->mv_data, HEADER);
    bytes[1] = 0;
    memcpy(bytes + HEADER, (const uint8_t *)record->mv_data + HEADER + 16, len - HEADER);
    MDB_val key = cake__val(at, place->mv_size), value = cake__val(bytes, len);
    int code = mdb_cursor_put(cursor, &key, &value, MDB_CURRENT);
    cake__free(alloc, bytes);
    return code;
}

static int drop_ids_of_rows(const cake__table_ref_t *ref)
{
    MDB_cursor *cursor;
    MDB_val key, record;
    cake_id_t id;
    int code = mdb_cursor_open(ref->txn, ref->lane->tables[CAKE__TABLE_ROWS], &cursor);
    if (code != 0)
        return code;
    while (code == 0 && (code = mdb_cursor_get(cursor, &key, &record, MDB_NEXT)) == 0) {
        bool is_held = key.mv_size > 4 && cake_id_of_key(cake__slice((uint8_t *)key.mv_data + 4, key.mv_size - 4), &id);
        if (is_held && record.mv_size >= HEADER + 16 && ((uint8_t *)record.mv_data)[1] == PART_ID)
            code = drop_id(ref, cursor, &key, &record);
    }
    mdb_cursor_close(cursor);
    return code == MDB_NOTFOUND ? 0 : code;
}

/* Of a table whose values end in a key, `skip` bytes behind their beginning. */
static int drop_held(const cake__table_ref_t *ref, cake__lmdb_table_t table, size_t skip)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    cake_id_t id;
    int code = mdb_cursor_open(ref->txn, ref->lane->tables[table], &cursor);
    if (code != 0)
        return code;
    while (code == 0 && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        bool has_key = value.mv_size > skip;
        if (has_key && cake_id_of_key(cake__slice((uint8_t *)value.mv_data + skip, value.mv_size - skip), &id))
            code = mdb_cursor_del(cursor, 0);
    }
    mdb_cursor_close(cursor);
    return code == MDB_NOTFOUND ? 0 : code;
}

int cake__lmdb_drop_held_ids(cake__lmdb_lane_t *lane, MDB_txn *txn)
{
    const cake__table_ref_t ref = {lane, txn, 0, NULL};
    int code = drop_ids_of_rows(&ref);
    if (code == 0)
        code = drop_held(&ref, CAKE__TABLE_IDS, 0);
    for (unsigned i = 0; i < 2 && code == 0; i++)
        code = drop_held(&ref, CAKE__TABLE_LATE_0 + i, CAKE__LATE_HEAD);
    return code;
}
