/* map.h: an open-addressing hash map with linear probing, from byte strings or 64-bit numbers to pointers.
 *
 *      slots: [ . | k,v | k,v | . | k,v ]     at most 3/4 full; removal shifts back, so there are no tombstones
 *
 * Keys of byte maps are borrowed: they live as long as their entry, normally inside the value. Iteration goes in
 * slot order, which depends on the keys and the insertions alone, never on addresses. */
#ifndef CAKE_BASE_MAP_H
#define CAKE_BASE_MAP_H

#include "base/base.h"

typedef struct cake__map_slot {
    uint64_t hash; /* 0: empty */
    cake_slice_t key;
    void *value;
} cake__map_slot_t;

typedef struct cake__map {
    cake__map_slot_t *slots;
    size_t count, capacity; /* capacity: 0 or a power of two */
    const cake_alloc_t *alloc;
} cake__map_t;

void cake__map_init(cake__map_t *map, const cake_alloc_t *alloc);
void cake__map_free(cake__map_t *map);                              /* the slots only */
int cake__map_put(cake__map_t *map, cake_slice_t key, void *value); /* 0, or CAKE_ENOMEM and no change; replacing an
                                                                        entry (and its key) never fails */
void *cake__map_get(const cake__map_t *map, cake_slice_t key);      /* NULL when there is none */
void *cake__map_remove(cake__map_t *map, cake_slice_t key);         /* what was removed, or NULL */

int cake__map_put_u64(cake__map_t *map, uint64_t key, void *value);
void *cake__map_get_u64(const cake__map_t *map, uint64_t key);
void *cake__map_remove_u64(cake__map_t *map, uint64_t key);

/* Start with *cursor = 0; NULL at the end. The map must not change in between. */
void *cake__map_next(const cake__map_t *map, size_t *cursor);

uint64_t cake__hash_bytes(const void *data, size_t len); /* good mixing, not for hostile keys */

#endif
