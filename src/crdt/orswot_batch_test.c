/* Batches equal the same operations one by one, and stop at a failure with what was done before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "crdt/set.h"

#define WALL_MS UINT64_C(1795342830123)
#define KEYS    3000u

typedef struct pressure {
    cake__random_t random;
    uint32_t one_in; /* allocations fail; 0: none */
} pressure_t;

static void *resize(void *ctx, void *block, size_t size)
{
    pressure_t *pressure = ctx;
    if (size != 0 && pressure->one_in != 0 && cake__random_below(&pressure->random, pressure->one_in) == 0)
        return NULL;
    return cake__libc_alloc.resize(NULL, block, size);
}

static cake_orswot_t *set_new(uint64_t actor, bool is_joined, const cake_alloc_t *alloc)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set;
    config.actor = actor;
    config.is_joined = is_joined;
    config.alloc = alloc;
    assert_int_equal(cake_orswot_new(&config, &set), 0);
    return set;
}

static void make_ids(cake__random_t *random, cake_id_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ids[i] = cake_id_of_u64(cake__random_below(random, KEYS));
        if (ids[i].bytes[7] % 5 == 0)
            ids[i].bytes[15] = 0xff;
    }
}

static void are_equal(cake_orswot_t *a, cake_orswot_t *b)
{
    cake_orswot_cursor_t at_a = {{0}}, at_b = {{0}};
    cake_record_t x, y;
    assert_true(cake_orswot_is_in_sync(a, b) && cake_orswot_fingerprint(a) == cake_orswot_fingerprint(b));
    while (cake_orswot_next(a, &at_a, &x, 1) > 0) {
        assert_int_equal(cake_orswot_next(b, &at_b, &y, 1), 1);
        assert_true(x.hlc == y.hlc && x.dot.seq == y.dot.seq && x.is_tombstone == y.is_tombstone);
        assert_memory_equal(&x.id, &y.id, sizeof x.id);
    }
    assert_int_equal(cake_orswot_next(b, &at_b, &y, 1), 0);
    cake__table_check(&a->table);
}

/* Under pressure what failed is tried again from where it stopped. */
static void batches_equal_single_operations(uint32_t one_in)
{
    static cake_id_t ids[2500];
    static cake_record_t out[2500], one;
    pressure_t pressure = {.one_in = 0};
    const cake_alloc_t alloc = {resize, &pressure};
    cake__random_t random;
    cake__random_init(&random, one_in + 1);
    cake__random_init(&pressure.random, 5);
    cake_orswot_t *batched = set_new(1, true, &alloc), *single = set_new(1, true, NULL);
    pressure.one_in = one_in;
    for (int round = 0; round < 60; round++) {
        size_t count = (size_t)cake__random_below(&random, CAKE_COUNT_OF(ids) + 1), done = 0;
        bool is_delete = round % 3 == 2, wants_out = one_in == 0 && round % 2 == 0;
        make_ids(&random, ids, count);
        for (size_t at = 0; at < count; at += done) {
            int err = is_delete ? cake_orswot_delete_many(batched, WALL_MS, ids + at, count - at,
                                                          wants_out ? out + at : NULL, &done)
                                : cake_orswot_insert_many(batched, WALL_MS, ids + at, count - at,
                                                          wants_out ? out + at : NULL, &done);
            assert_true(err == 0 ? done == count - at : err == CAKE_ENOMEM && one_in != 0);
            if (one_in != 0) /* stamps of writes that failed are lost; the other set follows */
                assert_true(cake_orswot_has_seen(batched, (cake_dot_t){1, batched->last_seq}) ||
                            batched->last_seq == 0);
        }
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(is_delete ? cake_orswot_delete(single, WALL_MS, &ids[i], &one)
                                       : cake_orswot_insert(single, WALL_MS, &ids[i], &one),
                             0);
            if (wants_out)
                assert_true(out[i].hlc == one.hlc && out[i].dot.seq == one.dot.seq);
        }
        if (one_in == 0)
            are_equal(batched, single);
        assert_int_equal(cake_orswot_live(batched), cake_orswot_live(single));
        assert_true(cake_orswot_fingerprint(batched) == cake_orswot_fingerprint(single));
        cake__table_check(&batched->table);
    }
    cake_orswot_free(batched);
    cake_orswot_free(single);
}

static void a_batch_is_its_operations_in_a_row(void **state)
{
    (void)state;
    batches_equal_single_operations(0);
}

static void a_batch_that_runs_out_of_memory_has_done_what_it_says(void **state)
{
    (void)state;
    batches_equal_single_operations(2);
    batches_equal_single_operations(7);
}

static void many_are_read_as_one_by_one(void **state)
{
    (void)state;
    static cake_id_t ids[4000];
    static cake_record_t out[4000];
    cake__random_t random;
    size_t done, expected = 0;
    cake_record_t one;
    cake_orswot_t *set = set_new(1, true, NULL);
    cake__random_init(&random, 9);
    make_ids(&random, ids, 4000);
    assert_int_equal(cake_orswot_get_many(set, ids, 4000, out), 0);
    assert_int_equal(cake_orswot_insert_many(set, WALL_MS, ids, 1500, NULL, &done), 0);
    size_t found = cake_orswot_get_many(set, ids, 4000, out);
    for (size_t i = 0; i < 4000; i++) {
        bool is_there = cake_orswot_get(set, &ids[i], &one);
        expected += is_there;
        assert_memory_equal(&out[i].id, &ids[i], sizeof ids[i]);
        assert_true(out[i].dot.seq == (is_there ? one.dot.seq : 0) && out[i].hlc == (is_there ? one.hlc : 0));
    }
    assert_int_equal(found, expected);
    assert_int_equal(cake_orswot_get_many(set, ids, 0, out), 0);
    cake_orswot_free(set);
}

static void refusals_are_those_of_single_operations(void **state)
{
    (void)state;
    cake_id_t ids[3] = {cake_id_of_u64(1), cake_id_of_u64(2), cake_id_of_u64(3)};
    size_t done = 9;
    cake_orswot_t *set = set_new(1, false, NULL), *ahead = set_new(2, true, NULL);
    assert_int_equal(cake_orswot_insert_many(set, WALL_MS, ids, 3, NULL, &done), CAKE_ENOTJOINED);
    assert_int_equal(done, 0);
    assert_int_equal(cake_orswot_insert_many(ahead, WALL_MS, ids, 1, NULL, &done), 0);
    cake_clock_advance(ahead->clock, cake_hlc_from_parts(WALL_MS + 60000, 0xfffd)); /* room for two stamps more */
    assert_int_equal(cake_orswot_delete_many(ahead, WALL_MS, ids, 3, NULL, &done), CAKE_EDRIFT);
    assert_int_equal(done, 2);
    ahead->last_seq = CAKE_SEQ_MAX - 1;
    assert_int_equal(cake__context_add_run(&ahead->summary.context, 2, 1, CAKE_SEQ_MAX - 1), 0);
    assert_int_equal(cake_orswot_insert_many(ahead, WALL_MS + 90000, ids, 3, NULL, &done), CAKE_ETOOBIG);
    assert_int_equal(done, 1);
    cake_orswot_free(set);
    cake_orswot_free(ahead);
}

/* An empty keyspace and one of a document: a store has a hundred thousand of them. */
static void small_sets_are_small(void **state)
{
    (void)state;
    cake_orswot_statistics_t statistics;
    cake_id_t id = cake_id_of_u64(1);
    cake_record_t record;
    cake_orswot_t *set = set_new(1, true, NULL), *loaded = set_new(2, true, NULL);
    cake_orswot_statistics(set, &statistics);
    assert_in_range(statistics.bytes, 1, 512);
    assert_int_equal(cake_orswot_insert(set, WALL_MS, &id, &record), 0);
    cake_orswot_statistics(set, &statistics);
    assert_in_range(statistics.bytes, 1, 900);
    assert_int_equal(cake__orswot_load_record(loaded, &record), 0);
    assert_int_equal(cake__orswot_load_summary(loaded, cake__orswot_summary(set)), 0);
    cake_orswot_statistics(loaded, &statistics);
    assert_in_range(statistics.bytes, 1, 900);
    cake_orswot_free(set);
    cake_orswot_free(loaded);
}

static void memory_comes_back_after_a_purge(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    static cake_id_t ids[COUNT];
    static cake_record_t records[2000];
    cake_orswot_statistics_t full, empty;
    size_t done, dropped, total = 0;
    cake_orswot_t *set = set_new(1, true, NULL);
    for (size_t i = 0; i < COUNT; i++)
        ids[i] = cake_id_of_u64(i);
    assert_int_equal(cake_orswot_insert_many(set, WALL_MS, ids, COUNT, NULL, &done), 0);
    assert_int_equal(cake_orswot_delete_many(set, WALL_MS + 10, ids, COUNT, NULL, &done), 0);
    cake_orswot_statistics(set, &full);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(cake_orswot_purge(set, WALL_MS + 60000, NULL, 0, 1000, 1000, 900, &dropped), 0);
        total += dropped;
        if (i == 2) /* the index still leads to blocks that are gone */
            assert_int_equal(cake_orswot_get_many(set, ids, 2000, records), 0);
        if (i % 20 == 0)
            cake__table_check(&set->table);
    }
    cake_orswot_statistics(set, &empty);
    assert_int_equal(total, COUNT);
    assert_true(empty.bytes < full.bytes / 100);
    cake_orswot_free(set);
}

/* What a call moves or looks at beside what it was asked for: this times a cache miss or two is its pause, however
 * large the set is. Lists of blocks and the directory are in it by their cache lines. */
static uint64_t most_work(cake_orswot_t *set, const cake_id_t *ids, size_t count, bool is_tombstone, uint64_t wall_ms)
{
    uint64_t most = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t before = set->table.index.work;
        if (is_tombstone)
            assert_int_equal(cake_orswot_delete(set, wall_ms, &ids[i], NULL), 0);
        else
            assert_int_equal(cake_orswot_insert(set, wall_ms, &ids[i], NULL), 0);
        most = cake__max_u64(most, set->table.index.work - before);
    }
    return most;
}

static uint64_t most_purge_work(cake_orswot_t *set, uint64_t wall_ms, size_t step)
{
    uint64_t most = 0;
    size_t dropped = step;
    while (dropped > 0) {
        uint64_t before = set->table.index.work;
        assert_int_equal(cake_orswot_purge(set, wall_ms, NULL, 0, 1000, 1000, step, &dropped), 0);
        most = cake__max_u64(most, set->table.index.work - before);
    }
    return most;
}

static void no_call_does_much_more_than_it_was_asked_for(void **state)
{
    (void)state;
    enum { COUNT = 200000, SEGMENT = CAKE__SEGMENT_GROUPS_MAX * CAKE__GROUP };
    cake_id_t *ids = malloc(COUNT * sizeof *ids);
    cake__random_t random;
    cake_orswot_t *set = set_new(1, true, NULL);
    cake__random_init(&random, 7);
    for (size_t i = 0; i < COUNT; i++)
        ids[i] = cake_id_of_u64(cake__random_u64(&random));
    assert_in_range(most_work(set, ids, COUNT, false, WALL_MS), SEGMENT / 2, 2 * SEGMENT);
    for (size_t i = 0; i < COUNT; i++) { /* another order: blocks become sparse, are packed and joined */
        size_t k = (size_t)cake__random_below(&random, COUNT);
        cake_id_t swap = ids[i];
        ids[i] = ids[k];
        ids[k] = swap;
    }
    assert_in_range(most_work(set, ids, COUNT, false, WALL_MS + 1000), 1, CAKE__BLOCK_POSITIONS + SEGMENT);
    assert_in_range(most_work(set, ids, COUNT / 2, true, WALL_MS + 2000), 1, CAKE__BLOCK_POSITIONS + SEGMENT);
    /* Tombstones that are too new are not gone through. */
    assert_in_range(most_purge_work(set, WALL_MS + 2500, 1000), 1, 2 * CAKE__BLOCK_POSITIONS);
    assert_in_range(most_purge_work(set, WALL_MS + 60000, 1000), 1000,
                    2 * CAKE__BLOCK_POSITIONS + CAKE__TIDY_STEPS_MAX * 2 * SEGMENT);
    assert_int_equal(cake_orswot_tombstones(set), 0);
    cake_orswot_free(set);
    free(ids);
}

typedef struct returned {
    size_t now, most; /* blocks given back since the last request that a C library has to look for */
} returned_t;

static void *count_returned(void *ctx, void *block, size_t size)
{
    enum { LARGE = 1100 }; /* smaller ones come from lists of their own */
    returned_t *returned = ctx;
    returned->now = size == 0 ? returned->now + 1 : size >= LARGE ? 0 : returned->now;
    returned->most = returned->now > returned->most ? returned->now : returned->most;
    return cake__libc_alloc.resize(NULL, block, size);
}

/* What is given back costs time at a later request, in glibc all at once: so there has to be one before it is much. */
static void a_purge_of_many_steps_leaves_no_work_behind(void **state)
{
    enum { COUNT = 400000, STEP = 10000 };
    returned_t returned = {0, 0};
    const cake_alloc_t alloc = {count_returned, &returned};
    cake_orswot_t *set = set_new(1, true, &alloc);
    size_t dropped = STEP;
    for (uint64_t key = 0; key < COUNT; key++) {
        cake_id_t id = cake_id_of_u64(key);
        assert_int_equal(cake_orswot_delete(set, WALL_MS, &id, NULL), 0);
    }
    returned = (returned_t){0, 0};
    while (dropped > 0)
        assert_int_equal(cake_orswot_purge(set, WALL_MS + 60000, NULL, 0, 1000, 1000, STEP, &dropped), 0);
    assert_in_range(returned.most, 2, 2 * STEP / CAKE__BLOCK_POSITIONS + 2);
    cake_orswot_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_is_its_operations_in_a_row),
        cmocka_unit_test(a_batch_that_runs_out_of_memory_has_done_what_it_says),
        cmocka_unit_test(many_are_read_as_one_by_one),
        cmocka_unit_test(refusals_are_those_of_single_operations),
        cmocka_unit_test(small_sets_are_small),
        cmocka_unit_test(memory_comes_back_after_a_purge),
        cmocka_unit_test(no_call_does_much_more_than_it_was_asked_for),
        cmocka_unit_test(a_purge_of_many_steps_leaves_no_work_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
