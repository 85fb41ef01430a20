#include "base/map.h"

uint64_t cake__hash_bytes(const void *data, size_t len)
{
    const uint8_t *at = data;
    uint64_t hash = UINT64_C(0x9e3779b97f4a7c15) ^ len;
    for (; len >= 8; at += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        hash = cake__mix64(hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    }
    uint64_t tail = 0;
    if (len > 0)
        memcpy(&tail, at, len);
    return cake__mix64(hash ^ tail ^ ((uint64_t)len << 56));
}

void cake__map_init(cake__map_t *map, const cake_alloc_t *alloc)
{
    *map = (cake__map_t){.alloc = alloc};
}

void cake__map_free(cake__map_t *map)
{
    if (map->alloc != NULL)
        cake__free(map->alloc, map->slots);
    *map = (cake__map_t){.alloc = map->alloc};
}

/* A number is a key without data whose length field holds it: one slot type serves both. */
static bool same_key(cake_slice_t a, cake_slice_t b)
{
    if (a.len != b.len || (a.data == NULL) != (b.data == NULL))
        return false;
    return a.data == NULL || memcmp(a.data, b.data, a.len) == 0;
}

static uint64_t hash_of(cake_slice_t key)
{
    uint64_t hash =
        key.data == NULL ? cake__mix64(key.len ^ UINT64_C(0x9e3779b97f4a7c15)) : cake__hash_bytes(key.data, key.len);
    return hash == 0 ? 1 : hash;
}

/* The slot of the key, or the empty slot where it belongs. */
static cake__map_slot_t *find(const cake__map_t *map, cake_slice_t key, uint64_t hash)
{
    size_t mask = map->capacity - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        cake__map_slot_t *slot = &map->slots[i];
        if (slot->hash == 0 || (slot->hash == hash && same_key(slot->key, key)))
            return slot;
    }
}

static int grow(cake__map_t *map)
{
    size_t capacity = map->capacity == 0 ? 8 : map->capacity * 2;
    cake__map_slot_t *slots = cake__calloc(map->alloc, capacity, sizeof *slots);
    if (slots == NULL)
        return CAKE_ENOMEM;
    cake__map_t bigger = {slots, map->count, capacity, map->alloc};
    for (size_t i = 0; i < map->capacity; i++) {
        if (map->slots[i].hash != 0)
            *find(&bigger, map->slots[i].key, map->slots[i].hash) = map->slots[i];
    }
    cake__free(map->alloc, map->slots);
    *map = bigger;
    return 0;
}

/* Only a new key may need room: replacing never fails. */
static int put(cake__map_t *map, cake_slice_t key, void *value)
{
    CAKE_ASSERT(value != NULL);
    uint64_t hash = hash_of(key);
    cake__map_slot_t *slot = map->capacity == 0 ? NULL : find(map, key, hash);
    bool is_new = slot == NULL || slot->hash == 0;
    if (is_new && (map->count + 1) * 4 > map->capacity * 3) {
        int err = grow(map);
        if (err != 0)
            return err;
        slot = find(map, key, hash);
    }
    map->count += is_new;
    *slot = (cake__map_slot_t){hash, key, value};
    return 0;
}

static void *get(const cake__map_t *map, cake_slice_t key)
{
    return map->count == 0 ? NULL : find(map, key, hash_of(key))->value;
}

static void *take(cake__map_t *map, cake_slice_t key)
{
    if (map->count == 0)
        return NULL;
    cake__map_slot_t *slot = find(map, key, hash_of(key));
    if (slot->hash == 0)
        return NULL;
    void *value = slot->value;
    size_t mask = map->capacity - 1, hole = (size_t)(slot - map->slots);
    for (size_t i = (hole + 1) & mask; map->slots[i].hash != 0; i = (i + 1) & mask) {
        size_t home = map->slots[i].hash & mask;
        bool may_move = ((i - home) & mask) >= ((i - hole) & mask);
        if (may_move) {
            map->slots[hole] = map->slots[i];
            hole = i;
        }
    }
    map->slots[hole] = (cake__map_slot_t){0};
    map->count--;
    return value;
}

/* An empty byte key still has a place of its own, apart from the number 0. */
static cake_slice_t bytes_key(cake_slice_t key)
{
    return key.data == NULL ? cake__slice("", 0) : key;
}

int cake__map_put(cake__map_t *map, cake_slice_t key, void *value)
{
    return put(map, bytes_key(key), value);
}

void *cake__map_get(const cake__map_t *map, cake_slice_t key)
{
    return get(map, bytes_key(key));
}

void *cake__map_remove(cake__map_t *map, cake_slice_t key)
{
    return take(map, bytes_key(key));
}

int cake__map_put_u64(cake__map_t *map, uint64_t key, void *value)
{
    return put(map, cake__slice(NULL, (size_t)key), value);
}

void *cake__map_get_u64(const cake__map_t *map, uint64_t key)
{
    return get(map, cake__slice(NULL, (size_t)key));
}

void *cake__map_remove_u64(cake__map_t *map, uint64_t key)
{
    return take(map, cake__slice(NULL, (size_t)key));
}

void *cake__map_next(const cake__map_t *map, size_t *cursor)
{
    while (*cursor < map->capacity) {
        cake__map_slot_t *slot = &map->slots[(*cursor)++];
        if (slot->hash != 0)
            return slot->value;
    }
    return NULL;
}
