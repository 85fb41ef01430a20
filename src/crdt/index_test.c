/* The index against a plain array of what it should lead to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "crdt/index.h"

#define SLOTS 60000u

/* The owner: the hash of what each slot holds, 0 for nothing. */
typedef struct owner {
    uint64_t hashes[SLOTS];
    uint64_t held;
    uint32_t failures; /* of the allocator: one of that many calls; 0: none */
    cake__random_t random;
} owner_t;

static owner_t owner;

static uint64_t hash_of(const void *ctx, uint32_t slot)
{
    return ((const owner_t *)ctx)->hashes[slot];
}

static void prefetch(const void *ctx, uint32_t slot)
{
    (void)ctx;
    (void)slot;
}

static void *resize(void *ctx, void *block, size_t size)
{
    owner_t *from = ctx;
    if (size != 0 && from->failures != 0 && cake__random_below(&from->random, from->failures) == 0)
        return NULL;
    return cake__libc_alloc.resize(NULL, block, size);
}

static const cake_alloc_t alloc = {resize, &owner};

static void begin(cake__index_t *index, uint64_t seed)
{
    memset(&owner, 0, sizeof owner);
    cake__random_init(&owner.random, seed);
    cake__index_init(index, &alloc, hash_of, prefetch, &owner);
}

static bool leads_to(const cake__index_t *index, uint64_t hash, uint32_t slot)
{
    cake__probe_t probe;
    for (cake__probe_begin(&probe, index, hash); cake__probe_next(&probe);) {
        if (*probe.slot == slot)
            return true;
    }
    return false;
}

static void same(const cake__index_t *index)
{
    cake__index_check(index);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        assert_true(owner.hashes[slot] == 0 || leads_to(index, owner.hashes[slot], slot));
}

static void put(cake__index_t *index, uint32_t slot, uint64_t hash)
{
    owner.hashes[slot] = hash;
    while (cake__index_put(index, hash, slot, owner.held) != 0)
        assert_true(owner.failures != 0);
    owner.held++;
}

static void drop(uint32_t slot)
{
    owner.held -= owner.hashes[slot] != 0;
    owner.hashes[slot] = 0;
}

/* bits: of the hash that vary; the fewer, the more collide. */
static uint64_t some_hash(uint64_t bits)
{
    uint64_t hash = cake__random_u64(&owner.random) & bits;
    return hash == 0 ? 1 : hash;
}

static void churn(uint64_t seed, uint64_t bits, uint32_t slots, uint32_t failures)
{
    cake__index_t index;
    begin(&index, seed);
    owner.failures = failures;
    for (uint32_t round = 0; round < 12; round++) {
        uint64_t keep = cake__random_below(&owner.random, 4);
        for (uint32_t i = 0; i < slots; i++) {
            uint32_t slot = (uint32_t)cake__random_below(&owner.random, slots);
            if (owner.hashes[slot] == 0)
                put(&index, slot, some_hash(bits));
            else if (cake__random_below(&owner.random, 4) > keep)
                drop(slot);
            if (i % 128 == 0)
                (void)cake__index_tidy(&index, owner.held, 1, i % 256 == 0);
        }
        same(&index);
    }
    cake__index_free(&index);
    assert_int_equal(index.bytes, 0);
    assert_int_equal(index.used, 0);
}

static void every_slot_is_found(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 2; seed++) {
        churn(seed, UINT64_MAX, 300, 0);
        churn(seed, UINT64_MAX, SLOTS, 0);
        churn(seed, UINT64_MAX, SLOTS, 5);
    }
}

static void every_slot_is_found_where_hashes_collide(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 2; seed++) {
        churn(seed, 0xff, 250, 0);                           /* one group */
        churn(seed, UINT64_C(0xf800000000000000), 4000, 0);  /* 32 homes, one tag */
        churn(seed, UINT64_C(0xff000000000007ff), SLOTS, 0); /* few groups of each segment */
        churn(seed, UINT64_C(0xff000000000007ff), 9000, 7);
    }
}

static void equal_hashes_without_end_are_refused_and_nothing_is_lost(void **state)
{
    (void)state;
    cake__index_t index;
    uint32_t slot = 0;
    begin(&index, 1);
    for (int err = 0; err == 0 && slot < 4000; slot++) {
        owner.hashes[slot] = 77;
        err = cake__index_put(&index, 77, slot, slot);
        if (err != 0) {
            assert_int_equal(err, CAKE_ENOMEM);
            owner.hashes[slot] = 0;
        }
    }
    assert_true(slot > 500 && slot < 4000);
    assert_true(index.bytes < 1000000);
    same(&index);
    cake__index_free(&index);
}

static void an_entry_can_be_led_elsewhere(void **state)
{
    (void)state;
    cake__index_t index;
    begin(&index, 1);
    put(&index, 5, 1000);
    owner.hashes[9] = 1000;
    assert_true(cake__index_replace(&index, 1000, 5, 9));
    assert_false(cake__index_replace(&index, 1000, 5, 9));
    assert_true(leads_to(&index, 1000, 9) && !leads_to(&index, 1000, 5));
    cake__index_free(&index);
}

static void memory_comes_back_in_small_steps(void **state)
{
    (void)state;
    cake__index_t index;
    begin(&index, 3);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        put(&index, slot, some_hash(UINT64_MAX));
    size_t full = index.bytes;
    assert_false(cake__index_tidy(&index, owner.held, 1000, true));
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        if (slot % 1000 != 0)
            drop(slot);
    }
    uint32_t steps = 0;
    while (index.bytes > full / 50 && steps++ < 2000) {
        (void)cake__index_tidy(&index, owner.held, 1, true);
        cake__index_check(&index);
    }
    assert_in_range(steps, 40, 1000);
    same(&index);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        drop(slot);
    for (steps = 0; steps < 400; steps++)
        (void)cake__index_tidy(&index, 0, 1, false);
    assert_true(index.bytes < 256 && index.depth == 0);
    for (uint32_t slot = 0; slot < SLOTS; slot++) /* and it grows again */
        put(&index, slot, some_hash(UINT64_MAX));
    same(&index);
    cake__index_free(&index);
}

static void without_memory_tidying_changes_nothing(void **state)
{
    (void)state;
    cake__index_t index;
    begin(&index, 3);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        put(&index, slot, some_hash(UINT64_MAX));
    for (uint32_t slot = 100; slot < SLOTS; slot++)
        drop(slot);
    size_t full = index.bytes;
    owner.failures = 1;
    assert_false(cake__index_tidy(&index, owner.held, 100, true));
    assert_int_equal(index.bytes, full);
    owner.failures = 2;
    for (int i = 0; i < 1000; i++)
        (void)cake__index_tidy(&index, owner.held, 1, true);
    assert_true(index.bytes < full / 20);
    same(&index);
    cake__index_free(&index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_slot_is_found),
        cmocka_unit_test(every_slot_is_found_where_hashes_collide),
        cmocka_unit_test(equal_hashes_without_end_are_refused_and_nothing_is_lost),
        cmocka_unit_test(an_entry_can_be_led_elsewhere),
        cmocka_unit_test(memory_comes_back_in_small_steps),
        cmocka_unit_test(without_memory_tidying_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
