/* retired.c: see retired.h. */
#include "crdt/retired.h"

#include <datacake/key.h>

#define ENTRY_BYTES_MIN 9u /* as bytes */

cake__retired_t *cake__retired_share(cake__retired_t *table)
{
    if (table != NULL)
        (void)__atomic_add_fetch(&table->references, 1, __ATOMIC_RELAXED);
    return table;
}

void cake__retired_release(cake__retired_t *table)
{
    if (table != NULL && __atomic_sub_fetch(&table->references, 1, __ATOMIC_ACQ_REL) == 0)
        cake__free(table->alloc, table);
}

bool cake__retired_same(const cake__retired_t *a, const cake__retired_t *b)
{
    return a == b || (a != NULL && b != NULL && a->hash == b->hash && a->count == b->count);
}

uint64_t cake__retired_seq(const cake__retired_t *table, uint64_t actor)
{
    uint32_t low = 0, high = table == NULL ? 0 : table->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (table->entries[middle].actor < actor)
            low = middle + 1;
        else
            high = middle;
    }
    bool is_there = table != NULL && low < table->count && table->entries[low].actor == actor;
    return is_there ? table->entries[low].seq : 0;
}

uint64_t cake__actor_hash(uint64_t actor, uint64_t base)
{
    uint64_t hash = cake__mix64(actor + UINT64_C(0x9e3779b97f4a7c15));
    return base == 0 ? hash : cake__mix64(hash ^ cake__mix64(1) ^ (base * UINT64_C(0x9e3779b97f4a7c15)));
}

/* Once its entries are there. */
static void seal(cake__retired_t *table)
{
    uint64_t hash = table->count;
    table->sum = 0;
    for (uint32_t i = 0; i < table->count; i++) {
        CAKE_ASSERT(table->entries[i].seq > 0 && (i == 0 || table->entries[i - 1].actor < table->entries[i].actor));
        hash = cake__mix64(hash + table->entries[i].actor);
        hash = cake__mix64(hash ^ (table->entries[i].seq * UINT64_C(0xc2b2ae3d27d4eb4f)));
        table->sum += cake__actor_hash(table->entries[i].actor, table->entries[i].seq);
    }
    table->hash = hash == 0 ? 1 : hash;
}

static cake__retired_t *allocate(const cake_alloc_t *alloc, uint32_t count)
{
    cake__retired_t *table = cake__malloc(alloc, sizeof *table + count * sizeof table->entries[0]);
    if (table != NULL)
        *table = (cake__retired_t){.references = 1, .count = count, .alloc = alloc};
    return table;
}

int cake__retired_new(const cake_alloc_t *alloc, const struct cake__retired_entry *entries, uint32_t count,
                      cake__retired_t **out)
{
    *out = count == 0 ? NULL : allocate(alloc, count);
    if (*out == NULL)
        return count == 0 ? 0 : CAKE_ENOMEM;
    memcpy((*out)->entries, entries, count * sizeof *entries);
    seal(*out);
    return 0;
}

int cake__retired_union(const cake_alloc_t *alloc, cake__retired_t *a, cake__retired_t *b, cake__retired_t **out)
{
    if (b == NULL || cake__retired_same(a, b) || a == NULL) {
        *out = cake__retired_share(a == NULL ? b : a);
        return 0;
    }
    cake__retired_t *made = *out = allocate(alloc, a->count + b->count);
    if (made == NULL)
        return CAKE_ENOMEM;
    uint32_t i = 0, k = 0, count = 0;
    while (i < a->count || k < b->count) {
        bool from_a = k == b->count || (i < a->count && a->entries[i].actor <= b->entries[k].actor);
        bool from_b = i == a->count || (k < b->count && b->entries[k].actor <= a->entries[i].actor);
        struct cake__retired_entry entry = from_a ? a->entries[i] : b->entries[k];
        if (from_a && from_b)
            entry.seq = cake__max_u64(entry.seq, b->entries[k].seq);
        i += from_a;
        k += from_b;
        made->entries[count++] = entry;
    }
    made->count = count;
    seal(made);
    return 0;
}

void cake__retired_encode(const cake__retired_t *table, cake__buf_t *out)
{
    cake__put_varint(out, table->count);
    for (uint32_t i = 0; i < table->count; i++) {
        cake__put_u64(out, table->entries[i].actor);
        cake__put_varint(out, table->entries[i].seq);
    }
}

int cake__retired_decode(const cake_alloc_t *alloc, cake__reader_t *reader, cake__retired_t **out)
{
    uint64_t count = cake__get_varint(reader);
    *out = NULL;
    if (reader->err != 0 || count == 0 || count > cake__reader_left(reader) / ENTRY_BYTES_MIN)
        return CAKE_EPARSE;
    if (count > CAKE__RETIRED_MAX)
        return CAKE_ETOOBIG;
    cake__retired_t *table = allocate(alloc, (uint32_t)count);
    if (table == NULL)
        return CAKE_ENOMEM;
    for (uint32_t i = 0; i < table->count; i++) {
        struct cake__retired_entry *entry = &table->entries[i];
        entry->actor = cake__get_u64(reader);
        entry->seq = cake__get_varint(reader);
        bool is_sorted = i == 0 || entry->actor > table->entries[i - 1].actor;
        if (reader->err != 0 || !is_sorted || entry->seq == 0 || entry->seq > CAKE_SEQ_MAX) {
            cake__free(alloc, table);
            return CAKE_EPARSE;
        }
    }
    seal(table);
    *out = table;
    return 0;
}
