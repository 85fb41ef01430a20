/* sets_test.h: small sets for tests of repairs, retired actors, messages, and memory that runs out. cmocka first. */
#ifndef CAKE_CRDT_SETS_TEST_H
#define CAKE_CRDT_SETS_TEST_H

#include "crdt/set.h"

#define WALL_MS UINT64_C(1795342830123)

static inline cake_orswot_t *set_with(uint64_t actor, const cake_alloc_t *alloc)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set;
    config.actor = actor;
    config.alloc = alloc;
    assert_int_equal(cake_orswot_new(&config, &set), 0);
    return set;
}

static inline cake_orswot_t *set_new(uint64_t actor)
{
    return set_with(actor, NULL);
}

static inline void put_key(cake_orswot_t *set, uint64_t key)
{
    cake_id_t id = cake_id_of_u64(key);
    assert_int_equal(cake_orswot_insert(set, WALL_MS, &id, NULL), 0);
}

static inline void delete_key(cake_orswot_t *set, uint64_t key)
{
    cake_id_t id = cake_id_of_u64(key);
    assert_int_equal(cake_orswot_delete(set, WALL_MS, &id, NULL), 0);
}

static inline bool is_live(const cake_orswot_t *set, uint64_t key)
{
    cake_id_t id = cake_id_of_u64(key);
    cake_record_t record;
    return cake_orswot_get(set, &id, &record) && !record.is_tombstone;
}

/* An allocator that takes `left` blocks, and counts those that it refused. */
typedef struct fuse {
    size_t left, burnt;
} fuse_t;

static inline void *burn(void *ctx, void *block, size_t size)
{
    fuse_t *fuse = ctx;
    if (size != 0 && fuse->left == 0) {
        fuse->burnt++;
        return NULL;
    }
    fuse->left -= size != 0;
    return cake__libc_alloc.resize(NULL, block, size);
}

#endif
