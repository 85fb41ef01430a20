/* Ids of long keys, on their way into table ids.
 *
 * Ids of long keys are digests: each row would touch a page of its own in ids, beside the one of its record, and so
 * cost twice as much. So they are appended to a table first, in the order of writing, and kept in memory, where fetch
 * finds them:
 *
 *      late-0: 901 902 903 904 ...      being filled                 halves[filling]
 *      late-1: 123 124 ... 900          being merged into ids        halves[!filling], order: 470 213 655 ...
 *                                                                                      merged: ^
 * When the one that is filled has enough and the other is empty, they change roles. Every batch that adds n ids merges
 * 2n of the other half, in the order of ids: so each page of ids that is touched takes many. The half is emptied when
 * all of it is merged, long before the next one is full.
 *
 * Everything here happens in the transaction of the batch. What is in memory only says where in the tables to look: an
 * entry that is not in its table any more was erased. It is read again when the file is opened, and put back (settle)
 * when a transaction fails.
 *
 * Readers
 *   An entry that is too new or too old for a reader's snapshot does no harm: its table does not have it there. One
 *   that is missing would: so a half that was merged stays in memory until every reader's snapshot has its rows in
 *   ids (see cake__lmdb_readers_oldest). */
#include "lmdb/lmdb.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"

#define LEAST_MIN  16384u   /* entries of a half */
#define LEAST_MAX  1048576u /* 40 MB */
#define FULL       4u       /* halves of that many times the least are full: their ids go where they belong, at once */
#define NONE       0u
#define IDS_PER    4u /* merging is worth while with a quarter of what ids holds: then a page takes fifteen of them */
#define MERGE_RATE 2u

static cake__late_half_t *filling(cake__late_t *late)
{
    return &late->halves[late->filling];
}

static cake__late_half_t *merging(cake__late_t *late)
{
    return &late->halves[!late->filling];
}

/* ---- a half in memory -------------------------------------------------------------------------------------------- */

static void empty_half(const cake_alloc_t *alloc, cake__late_half_t *half)
{
    cake__free(alloc, half->entries);
    cake__free(alloc, half->buckets);
    cake__free(alloc, half->order);
    *half = (cake__late_half_t){.table = half->table};
}

static size_t bucket_of(const cake__late_half_t *half, uint32_t keyspace, const cake_id_t *id)
{
    uint64_t hash = cake__mix64(cake__load_le(id->bytes, 8) ^ cake__load_le(id->bytes + 8, 8) ^ keyspace);
    return (size_t)hash & (half->capacity - 1);
}

static void link_entry(cake__late_half_t *half, size_t at)
{
    cake__late_entry_t *entry = &half->entries[at];
    size_t bucket = bucket_of(half, entry->keyspace, &entry->id);
    entry->next = half->buckets[bucket];
    half->buckets[bucket] = (uint32_t)at + 1;
}

/* Room for so many entries; with the lock held. */
static int make_room(const cake_alloc_t *alloc, cake__late_half_t *half, size_t count)
{
    size_t capacity = half->capacity == 0 ? 64 : half->capacity;
    if (count <= half->capacity)
        return 0;
    while (capacity < count)
        capacity *= 2;
    cake__late_entry_t *entries = cake__realloc(alloc, half->entries, capacity * sizeof *entries);
    if (entries == NULL)
        return ENOMEM;
    half->entries = entries;
    uint32_t *buckets = cake__calloc(alloc, capacity, sizeof *buckets);
    if (buckets == NULL)
        return ENOMEM;
    cake__free(alloc, half->buckets);
    half->buckets = buckets;
    half->capacity = capacity;
    for (size_t i = 0; i < half->count; i++)
        link_entry(half, i);
    return 0;
}

static int remember(cake__lmdb_lane_t *lane, cake__late_half_t *half, uint64_t number, uint32_t keyspace,
                    const cake_id_t *id)
{
    cake__rwlock_write(&lane->late.lock);
    int code = make_room(&lane->storage->alloc, half, half->count + 1);
    if (code == 0) {
        half->entries[half->count] = (cake__late_entry_t){.id = *id, .number = number, .keyspace = keyspace};
        link_entry(half, half->count++);
    }
    cake__rwlock_give(&lane->late.lock);
    return code;
}

/* From `at` on (0: nothing) in its bucket; 1 + index, or 0. Later ones come first. */
static uint32_t find_entry(const cake__late_half_t *half, uint32_t at, uint32_t keyspace, const cake_id_t *id)
{
    while (at != NONE) {
        const cake__late_entry_t *entry = &half->entries[at - 1];
        if (entry->keyspace == keyspace && memcmp(entry->id.bytes, id->bytes, sizeof id->bytes) == 0)
            return at;
        at = entry->next;
    }
    return NONE;
}

static uint32_t first_entry(const cake__late_half_t *half, uint32_t keyspace, const cake_id_t *id)
{
    return half->capacity == 0 ? NONE : find_entry(half, half->buckets[bucket_of(half, keyspace, id)], keyspace, id);
}

/* The key of an entry, as far as this transaction sees it. */
static int read_key(const cake__table_ref_t *ref, const cake__late_half_t *half, const cake__late_entry_t *entry,
                    uint8_t key[CAKE_KEY_MAX], size_t *len)
{
    uint64_t number = entry->number;
    MDB_val at = cake__val(&number, sizeof number), value;
    int code = mdb_get(ref->txn, ref->lane->tables[half->table], &at, &value);
    if (code != 0)
        return code;
    if (value.mv_size <= CAKE__LATE_HEAD + CAKE_ID_PLAIN_MAX || value.mv_size > CAKE__LATE_HEAD + CAKE_KEY_MAX ||
        memcmp((const uint8_t *)value.mv_data + 4, entry->id.bytes, sizeof entry->id.bytes) != 0)
        return MDB_CORRUPTED;
    *len = value.mv_size - CAKE__LATE_HEAD;
    memcpy(key, (const uint8_t *)value.mv_data + CAKE__LATE_HEAD, *len);
    return 0;
}

/* An id that was erased and came back has several entries, one of them at most in a table. */
int cake__late_find(const cake__table_ref_t *ref, const cake_id_t *id, uint8_t key[CAKE_KEY_MAX], size_t *len)
{
    cake__late_t *late = &ref->lane->late;
    int code = MDB_NOTFOUND;
    cake__rwlock_read(&late->lock);
    for (unsigned i = 0; i < 2 && code == MDB_NOTFOUND; i++) {
        const cake__late_half_t *half = &late->halves[i];
        uint32_t at = first_entry(half, ref->keyspace, id);
        while (at != NONE && code == MDB_NOTFOUND) {
            code = read_key(ref, half, &half->entries[at - 1], key, len);
            at = find_entry(half, half->entries[at - 1].next, ref->keyspace, id);
        }
    }
    cake__rwlock_give(&late->lock);
    return code;
}

/* ---- begin, settle ----------------------------------------------------------------------------------------------- */

void cake__late_init(cake__lmdb_lane_t *lane)
{
    cake__rwlock_init(&lane->late.lock);
    for (unsigned i = 0; i < 2; i++)
        lane->late.halves[i].table = CAKE__TABLE_LATE_0 + i;
}

void cake__late_free(cake__lmdb_lane_t *lane)
{
    for (unsigned i = 0; i < 2; i++)
        empty_half(&lane->storage->alloc, &lane->late.halves[i]);
    cake__rwlock_destroy(&lane->late.lock);
}

void cake__late_begin(cake__lmdb_lane_t *lane)
{
    cake__late_t *late = &lane->late;
    late->count_before = filling(late)->count;
    late->merged_before = merging(late)->merged;
    late->drops = false;
}

static void put_back(cake__late_t *late)
{
    cake__late_half_t *half = filling(late);
    while (half->count > late->count_before) { /* the last of its bucket came first */
        const cake__late_entry_t *entry = &half->entries[--half->count];
        half->buckets[bucket_of(half, entry->keyspace, &entry->id)] = entry->next;
    }
    merging(late)->merged = late->merged_before;
}

typedef struct place {
    uint64_t start; /* of the id: enough to put those of one page next to each other */
    uint32_t at, keyspace;
} place_t;

static int compare_places(const void *a, const void *b)
{
    const place_t *first = a, *second = b;
    if (first->keyspace != second->keyspace)
        return first->keyspace < second->keyspace ? -1 : 1;
    if (first->start != second->start)
        return first->start < second->start ? -1 : 1;
    return first->at < second->at ? -1 : 1;
}

static uint64_t start_of(const cake_id_t *id)
{
    uint64_t start = 0;
    for (size_t i = 0; i < 8; i++)
        start = start << 8 | id->bytes[i];
    return start;
}

/* Without memory it is tried again after the next batch. Readers see nothing of it, so it needs no lock. */
static void start_merging(cake__lmdb_lane_t *lane, cake__late_half_t *half)
{
    const cake_alloc_t *alloc = &lane->storage->alloc;
    place_t *places = cake__malloc(alloc, half->count * sizeof *places);
    uint32_t *order = cake__malloc(alloc, half->count * sizeof *order);
    for (size_t i = 0; i < half->count && places != NULL; i++)
        places[i] = (place_t){start_of(&half->entries[i].id), (uint32_t)i, half->entries[i].keyspace};
    if (places != NULL && order != NULL) {
        qsort(places, half->count, sizeof *places, compare_places);
        for (size_t i = 0; i < half->count; i++)
            order[i] = places[i].at;
        half->order = order;
        lane->late.filling = !lane->late.filling;
        order = NULL;
    }
    cake__free(alloc, order);
    cake__free(alloc, places);
}

void cake__late_settle(cake__lmdb_lane_t *lane, bool is_committed)
{
    cake__late_t *late = &lane->late;
    cake__rwlock_write(&late->lock);
    if (!is_committed)
        put_back(late);
    else if (late->drops)
        merging(late)->dropped_at = atomic_load(&lane->commits);
    cake__late_half_t *other = merging(late);
    if (other->dropped_at != 0 && cake__lmdb_readers_oldest(lane) >= other->dropped_at)
        empty_half(&lane->storage->alloc, other);
    cake__rwlock_give(&late->lock);
    if (other->count == 0 && filling(late)->count >= late->least)
        start_merging(lane, filling(late));
}

/* ---- the tables -------------------------------------------------------------------------------------------------- */

static int load_half(cake__lmdb_lane_t *lane, MDB_txn *txn, cake__late_half_t *half)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    MDB_stat table;
    int code = mdb_stat(txn, lane->tables[half->table], &table);
    cake__rwlock_write(&lane->late.lock);
    if (code == 0) /* what a damaged file says is not believed */
        code = make_room(&lane->storage->alloc, half, table.ms_entries < LEAST_MAX ? table.ms_entries : LEAST_MAX);
    cake__rwlock_give(&lane->late.lock);
    if (code == 0)
        code = mdb_cursor_open(txn, lane->tables[half->table], &cursor);
    if (code != 0)
        return code;
    while ((code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        cake_id_t id;
        uint64_t number;
        const uint8_t *bytes = value.mv_data;
        if (key.mv_size != sizeof number || value.mv_size <= CAKE__LATE_HEAD + CAKE_ID_PLAIN_MAX ||
            value.mv_size > CAKE__LATE_HEAD + CAKE_KEY_MAX) {
            code = MDB_CORRUPTED;
            break;
        }
        memcpy(&number, key.mv_data, sizeof number);
        memcpy(id.bytes, bytes + 4, sizeof id.bytes);
        code = remember(lane, half, number, (uint32_t)cake__load_le(bytes, 4), &id);
        if (code != 0)
            break;
        lane->late.next_number = number >= lane->late.next_number ? number + 1 : lane->late.next_number;
    }
    mdb_cursor_close(cursor);
    return code == MDB_NOTFOUND ? 0 : code;
}

/* As the table grows, so does what it takes for many of them to meet on one page. */
static int choose_least(cake__lmdb_lane_t *lane, MDB_txn *txn)
{
    MDB_stat ids;
    int code = mdb_stat(txn, lane->tables[CAKE__TABLE_IDS], &ids);
    if (code != 0)
        return code;
    size_t least = ids.ms_entries / IDS_PER;
    least = least < LEAST_MIN ? LEAST_MIN : least > LEAST_MAX ? LEAST_MAX : least;
    lane->late.least = lane->storage->late_least != 0 ? lane->storage->late_least : least;
    return 0;
}

/* The half with the lower numbers is the one that was being merged; with one alone it does not matter. */
int cake__late_load(cake__lmdb_lane_t *lane, MDB_txn *txn)
{
    cake__late_t *late = &lane->late;
    int code = choose_least(lane, txn);
    late->next_number = 1;
    for (unsigned i = 0; i < 2; i++) {
        empty_half(&lane->storage->alloc, &late->halves[i]);
        if (code == 0)
            code = load_half(lane, txn, &late->halves[i]);
    }
    const cake__late_half_t *first = &late->halves[0], *second = &late->halves[1];
    late->filling = second->count > 0 && (first->count == 0 || second->entries[0].number > first->entries[0].number);
    cake__late_half_t *other = merging(late);
    if (code == 0 && other->count > 0) {
        unsigned which = late->filling;
        start_merging(lane, other); /* which changes the roles */
        code = other->order == NULL ? ENOMEM : 0;
        late->filling = which;
    }
    return code;
}

int cake__late_add(const cake__table_ref_t *ref, const cake_id_t *id, cake_slice_t key)
{
    cake__lmdb_lane_t *lane = ref->lane;
    cake__late_half_t *half = filling(&lane->late);
    uint8_t head[CAKE__LATE_HEAD];
    cake__store_le(head, ref->keyspace, 4);
    memcpy(head + 4, id->bytes, sizeof id->bytes);
    uint64_t number = lane->late.next_number++;
    MDB_val at = cake__val(&number, sizeof number), value = cake__val(NULL, CAKE__LATE_HEAD + key.len);
    int code = mdb_put(ref->txn, lane->tables[half->table], &at, &value, MDB_APPEND | MDB_RESERVE);
    if (code != 0)
        return code;
    memcpy(value.mv_data, head, CAKE__LATE_HEAD);
    memcpy((uint8_t *)value.mv_data + CAKE__LATE_HEAD, key.data, key.len);
    return remember(lane, half, number, ref->keyspace, id);
}

bool cake__late_is_full(cake__lmdb_lane_t *lane)
{
    const cake__late_half_t *half = filling(&lane->late);
    return half->count >= lane->late.least * FULL;
}

/* Only the latest entry of an id can still be in its table. */
int cake__late_erase(const cake__table_ref_t *ref, const cake_id_t *id)
{
    cake__lmdb_lane_t *lane = ref->lane;
    int code = 0;
    for (unsigned i = 0; i < 2 && code == 0; i++) {
        const cake__late_half_t *half = &lane->late.halves[i];
        uint32_t at = half->dropped_at != 0 ? NONE : first_entry(half, ref->keyspace, id);
        if (at == NONE)
            continue;
        uint64_t number = half->entries[at - 1].number;
        MDB_val key = cake__val(&number, sizeof number);
        code = mdb_del(ref->txn, lane->tables[half->table], &key, NULL);
        code = code == MDB_NOTFOUND ? 0 : code;
    }
    return code;
}

static int merge_entry(const cake__table_ref_t *ref, const cake__late_half_t *half, const cake__late_entry_t *entry,
                       MDB_cursor *cursor)
{
    uint8_t bytes[CAKE__LATE_HEAD], name[CAKE_KEY_MAX]; /* a copy: LMDB may move what it gave when it is changed */
    size_t len;
    int code = read_key(ref, half, entry, name, &len);
    if (code != 0)
        return code == MDB_NOTFOUND ? 0 : code; /* erased */
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(entry->keyspace >> (24 - 8 * i));
    memcpy(bytes + 4, entry->id.bytes, sizeof entry->id.bytes);
    MDB_val key = cake__val(bytes, sizeof bytes), value = cake__val(name, len);
    code = mdb_cursor_put(cursor, &key, &value, MDB_NOOVERWRITE);
    return code == MDB_KEYEXIST ? 0 : code;
}

int cake__late_merge(cake__lmdb_lane_t *lane, MDB_txn *txn)
{
    cake__late_t *late = &lane->late;
    cake__late_half_t *half = merging(late);
    size_t share = (filling(late)->count - late->count_before) * MERGE_RATE;
    const cake__table_ref_t ref = {lane, txn, 0, NULL};
    MDB_cursor *cursor;
    if (half->order == NULL || half->dropped_at != 0 || share == 0)
        return 0;
    int code = mdb_cursor_open(txn, lane->tables[CAKE__TABLE_IDS], &cursor);
    if (code != 0)
        return code;
    for (; share > 0 && half->merged < half->count && code == 0; share--)
        code = merge_entry(&ref, half, &half->entries[half->order[half->merged++]], cursor);
    mdb_cursor_close(cursor);
    if (code == 0 && half->merged == half->count) {
        code = mdb_drop(txn, lane->tables[half->table], 0);
        late->drops = true;
        if (code == 0)
            code = choose_least(lane, txn);
    }
    return code;
}

int cake__late_count(const cake__table_ref_t *ref, size_t *count)
{
    int code = 0;
    *count = 0;
    for (unsigned i = 0; i < 2 && code == 0; i++) {
        MDB_cursor *cursor;
        MDB_val number, value, found;
        code = mdb_cursor_open(ref->txn, ref->lane->tables[CAKE__TABLE_LATE_0 + i], &cursor);
        while (code == 0 && (code = mdb_cursor_get(cursor, &number, &value, MDB_NEXT)) == 0) {
            uint8_t bytes[CAKE__LATE_HEAD];
            if (value.mv_size <= CAKE__LATE_HEAD) {
                code = MDB_CORRUPTED;
                break;
            }
            uint64_t keyspace = cake__load_le(value.mv_data, 4);
            for (int j = 0; j < 4; j++)
                bytes[j] = (uint8_t)(keyspace >> (24 - 8 * j));
            memcpy(bytes + 4, (const uint8_t *)value.mv_data + 4, 16);
            MDB_val key = cake__val(bytes, sizeof bytes);
            int status = mdb_get(ref->txn, ref->lane->tables[CAKE__TABLE_IDS], &key, &found);
            *count += status == MDB_NOTFOUND;
            code = status == MDB_NOTFOUND ? 0 : status;
        }
        if (code == 0 || code == MDB_NOTFOUND || code == MDB_CORRUPTED)
            mdb_cursor_close(cursor);
        code = code == MDB_NOTFOUND ? 0 : code;
    }
    return code;
}
