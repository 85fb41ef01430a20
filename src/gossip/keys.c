/* keys.c: the key/values of one member, ascending by version. An owner has a few dozen keys at most, so that the
 * lookup by key walks; what has to be quick is "everything above version v", which every delta asks for. */
#include "gossip/state.h"

void cake__gossip_keys_free(cake__gossip_keys_t *keys, const cake_alloc_t *alloc)
{
    for (size_t i = 0; i < keys->count; i++)
        cake__free(alloc, keys->entries[i]);
    cake__free(alloc, keys->entries);
    *keys = (cake__gossip_keys_t){0};
}

static size_t index_of(const cake__gossip_keys_t *keys, cake_slice_t key)
{
    size_t i = 0;
    while (i < keys->count && !cake__slice_equal(key, cake__slice(keys->entries[i]->bytes, keys->entries[i]->key_len)))
        i++;
    return i;
}

const cake__gossip_entry_t *cake__gossip_keys_find(const cake__gossip_keys_t *keys, cake_slice_t key)
{
    size_t i = index_of(keys, key);
    return i < keys->count ? keys->entries[i] : NULL;
}

size_t cake__gossip_keys_after(const cake__gossip_keys_t *keys, uint64_t version)
{
    size_t low = 0, high = keys->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (keys->entries[middle]->version <= version)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void remove_at(cake__gossip_keys_t *keys, const cake_alloc_t *alloc, size_t i)
{
    CAKE_ASSERT(i < keys->count);
    cake__free(alloc, keys->entries[i]);
    keys->count--;
    memmove(keys->entries + i, keys->entries + i + 1, (keys->count - i) * sizeof keys->entries[0]);
}

static int reserve(cake__gossip_keys_t *keys, const cake_alloc_t *alloc)
{
    if (keys->count < keys->capacity)
        return 0;
    size_t capacity = keys->capacity == 0 ? 4 : keys->capacity * 2;
    void *grown = cake__realloc(alloc, keys->entries, capacity * sizeof keys->entries[0]);
    if (grown == NULL)
        return CAKE_ENOMEM;
    keys->entries = grown;
    keys->capacity = capacity;
    return 0;
}

int cake__gossip_keys_put(cake__gossip_keys_t *keys, const cake_alloc_t *alloc, cake_slice_t key, cake_slice_t value,
                          bool is_deleted, uint64_t version, uint64_t now_ns)
{
    CAKE_ASSERT(version > keys->max_version);
    CAKE_ASSERT(key.len >= 1 && key.len <= CAKE__GOSSIP_KEY_MAX && value.len <= CAKE__GOSSIP_VALUE_MAX);
    size_t old = index_of(keys, key);
    if (old == keys->count && keys->count >= CAKE__GOSSIP_KEYS_MAX)
        return CAKE_ENOSPC;
    cake__gossip_entry_t *entry = cake__malloc(alloc, sizeof *entry + key.len + value.len);
    if (entry == NULL)
        return CAKE_ENOMEM;
    if (reserve(keys, alloc) != 0) {
        cake__free(alloc, entry);
        return CAKE_ENOMEM;
    }
    *entry = (cake__gossip_entry_t){.version = version,
                                    .deleted_ns = is_deleted ? now_ns : 0,
                                    .key_len = (uint32_t)key.len,
                                    .value_len = (uint32_t)value.len,
                                    .is_deleted = is_deleted};
    memcpy(entry->bytes, key.data, key.len);
    if (value.len > 0)
        memcpy(entry->bytes + key.len, value.data, value.len);
    if (old < keys->count)
        remove_at(keys, alloc, old);
    keys->entries[keys->count++] = entry;
    keys->max_version = version;
    return 0;
}

void cake__gossip_keys_collect(cake__gossip_keys_t *keys, const cake_alloc_t *alloc, uint64_t gc_version)
{
    if (gc_version <= keys->gc_version)
        return;
    CAKE_ASSERT(gc_version <= keys->max_version);
    for (size_t i = keys->count; i-- > 0;)
        if (keys->entries[i]->is_deleted && keys->entries[i]->version <= gc_version)
            remove_at(keys, alloc, i);
    keys->gc_version = gc_version;
}

void cake__gossip_keys_reset(cake__gossip_keys_t *keys, const cake_alloc_t *alloc, uint64_t gc_version)
{
    CAKE_ASSERT(gc_version > keys->gc_version && keys->max_version < gc_version);
    cake__gossip_keys_free(keys, alloc);
    keys->gc_version = gc_version;
}

bool cake__gossip_next_key(const cake__gossip_member_t *member, size_t *cursor, cake_slice_t *key, cake_slice_t *value)
{
    const cake__gossip_keys_t *keys = member->keys;
    while (*cursor < keys->count) {
        const cake__gossip_entry_t *entry = keys->entries[(*cursor)++];
        if (entry->is_deleted)
            continue;
        *key = cake__slice(entry->bytes, entry->key_len);
        *value = cake__slice(entry->bytes + entry->key_len, entry->value_len);
        return true;
    }
    return false;
}

bool cake__gossip_get_key(const cake__gossip_member_t *member, cake_slice_t key, cake_slice_t *value)
{
    const cake__gossip_entry_t *entry = cake__gossip_keys_find(member->keys, key);
    if (entry == NULL || entry->is_deleted)
        return false;
    *value = cake__slice(entry->bytes + entry->key_len, entry->value_len);
    return true;
}
