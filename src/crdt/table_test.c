/* Blocks, index and lanes against plain arrays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "crdt/table_internal.h"

#define KEYS   400u
#define ACTORS 3u

typedef struct plain {
    cake_record_t records[KEYS];
    bool is_present[KEYS];
    uint64_t next_seq[ACTORS];
    cake_hlc_t next_hlc;
} plain_t;

static cake_id_t id_of(uint32_t key, bool is_wide)
{
    cake_id_t id = {{0}};
    memcpy(id.bytes, &key, sizeof key);
    id.bytes[15] = is_wide ? 12 : 8;
    return id;
}

static cake_record_t next_record(plain_t *plain, cake__random_t *random, uint32_t key, uint64_t stride, bool is_wide)
{
    uint32_t actor = (uint32_t)cake__random_below(random, ACTORS);
    plain->next_seq[actor] += 1 + cake__random_below(random, stride);
    plain->next_hlc += 1 + cake__random_below(random, cake__random_below(random, 500) == 0 ? 1u << 31 : 100);
    return (cake_record_t){id_of(key, is_wide && key % 7 == 0),
                           plain->next_hlc,
                           {100 + actor, plain->next_seq[actor]},
                           cake__random_below(random, 3) == 0};
}

static void same(cake__table_t *table, const plain_t *plain, bool is_wide)
{
    uint64_t live = 0, tombstones = 0;
    for (uint32_t key = 0; key < KEYS; key++) {
        cake_record_t record;
        cake_id_t id = id_of(key, is_wide && key % 7 == 0);
        assert_int_equal(cake__table_get(table, &id, &record), plain->is_present[key]);
        if (!plain->is_present[key])
            continue;
        const cake_record_t *expected = &plain->records[key];
        assert_memory_equal(&record.id, &expected->id, sizeof record.id);
        assert_true(record.hlc == expected->hlc && record.is_tombstone == expected->is_tombstone);
        assert_true(record.dot.actor == expected->dot.actor && record.dot.seq == expected->dot.seq);
        live += !record.is_tombstone;
        tombstones += record.is_tombstone;
    }
    assert_int_equal(table->live, live);
    assert_int_equal(table->tombstones, tombstones);
    cake__table_check(table);
}

static void in_order(const cake__table_t *table, const plain_t *plain, cake__random_t *random)
{
    cake__table_cursor_t cursor = {0, 0, 0};
    cake_record_t records[64], last = {.dot = {0, 0}};
    size_t total = 0, count, limit = 1 + (size_t)cake__random_below(random, 64);
    while ((count = cake__table_next(table, &cursor, records, limit)) > 0) {
        for (size_t i = 0; i < count; i++) {
            assert_true(records[i].dot.actor > last.dot.actor ||
                        (records[i].dot.actor == last.dot.actor && records[i].dot.seq > last.dot.seq));
            last = records[i];
        }
        total += count;
    }
    assert_int_equal(total, table->live + table->tombstones);
    uint64_t first = cake__random_below(random, plain->next_seq[1] + 2), end = first + cake__random_below(random, 3000);
    size_t expected = 0;
    for (uint32_t key = 0; key < KEYS; key++) {
        const cake_record_t *record = &plain->records[key];
        expected +=
            plain->is_present[key] && record->dot.actor == 101 && record->dot.seq >= first && record->dot.seq <= end;
    }
    cake_record_t selected[KEYS];
    count = cake__table_select(table, 101, first, end, selected, KEYS);
    assert_int_equal(count, expected);
    for (size_t i = 1; i < count; i++)
        assert_true(selected[i].dot.seq > selected[i - 1].dot.seq);
}

static void one_operation(cake__table_t *table, plain_t *plain, cake__random_t *random, uint64_t stride, bool is_wide)
{
    uint32_t key = (uint32_t)cake__random_below(random, KEYS);
    cake_record_t record = next_record(plain, random, key, stride, is_wide);
    switch (cake__random_below(random, 6)) {
    case 0:
    case 1:
        assert_int_equal(cake__table_put(table, &record, cake__table_find(table, &record.id)), 0);
        break;
    case 2:
    case 3:
        assert_int_equal(cake__table_stage(table, &record, !plain->is_present[key]), 0);
        assert_int_equal(cake__table_stage(table, &record, !plain->is_present[key]), CAKE_EDUPLICATE);
        cake__table_publish(table, &record, !plain->is_present[key]);
        break;
    case 4:
        assert_int_equal(cake__table_stage(table, &record, !plain->is_present[key]), 0);
        cake__table_unstage(table, record.dot);
        return;
    default:
        if (plain->is_present[key])
            cake__table_erase(table, cake__table_find(table, &record.id));
        plain->is_present[key] = false;
        return;
    }
    plain->records[key] = record;
    plain->is_present[key] = true;
}

static void sweep(cake__table_t *table, plain_t *plain, cake__random_t *random)
{
    uint64_t actor = 100 + cake__random_below(random, ACTORS);
    cake__lane_t *lane = cake__table_lane(table, actor);
    uint64_t last = cake__random_below(random, plain->next_seq[actor - 100] + 10), expected = 0;
    if (lane == NULL)
        return;
    cake_hlc_t oldest = 0, newest = 0;
    uint64_t least = UINT64_MAX, greatest = 0;
    for (uint32_t key = 0; key < KEYS; key++) {
        cake_record_t *record = &plain->records[key];
        if (!plain->is_present[key] || !record->is_tombstone || record->dot.actor != actor)
            continue;
        if (record->dot.seq < least) {
            least = record->dot.seq;
            oldest = record->hlc;
        }
        if (record->dot.seq <= last) {
            plain->is_present[key] = false;
            greatest = cake__max_u64(greatest, record->dot.seq);
            newest = cake__max_u64(newest, record->hlc);
            expected++;
        }
    }
    assert_true(cake__lane_oldest_tombstone(table, lane) == oldest);
    cake__sweep_t sweep = {.last = last, .newest = UINT64_MAX, .limit = KEYS};
    cake_id_t ids[KEYS];
    sweep.ids = ids;
    cake__table_sweep(table, lane, &sweep);
    assert_int_equal(sweep.count, expected);
    assert_true(sweep.max_seq == greatest && sweep.max_hlc == newest);
    sweep = (cake__sweep_t){.last = last, .newest = UINT64_MAX, .limit = KEYS};
    cake__table_sweep(table, lane, &sweep);
    assert_int_equal(sweep.count, expected);
    assert_true(sweep.max_seq == greatest && sweep.max_hlc == newest);
}

static void run(uint64_t seed, uint64_t stride, bool is_wide)
{
    static plain_t plain;
    cake__table_t table;
    cake__random_t random;
    memset(&plain, 0, sizeof plain);
    plain.next_hlc = 1u << 20;
    cake__random_init(&random, seed);
    cake__table_init(&table, &cake__libc_alloc, seed);
    for (int i = 0; i < 20000; i++) {
        one_operation(&table, &plain, &random, stride, is_wide);
        if (i % 997 == 0)
            sweep(&table, &plain, &random);
        if (i % 1999 == 0) {
            same(&table, &plain, is_wide);
            in_order(&table, &plain, &random);
        }
    }
    same(&table, &plain, is_wide);
    /* 400 records, 80,000 dots: what was overwritten is given back */
    assert_true(cake__table_bytes(&table) < 400 * 120 + 60000);
    cake__table_free(&table);
}

static void the_table_equals_a_plain_array(void **state)
{
    for (uint64_t seed = 0; seed < 4; seed++) {
        run(seed, 1, false);
        run(seed, 3, true);
        run(seed, 40, true);
        run(seed, 5000, false);
    }
}

static void *fail_now_and_then(void *ctx, void *block, size_t size)
{
    if (size != 0 && cake__random_below(ctx, 4) == 0)
        return NULL;
    return cake__libc_alloc.resize(NULL, block, size);
}

/* Arrival in any order of seqs: splits in the middle, blocks filled from behind; also while memory is short. */
static void any_order_of_arrival(void **state)
{
    enum { COUNT = 30000 };
    static uint32_t order[COUNT];
    for (uint64_t seed = 0; seed < 6; seed++) {
        cake__random_t random, chance;
        cake__table_t table;
        const cake_alloc_t short_of_memory = {fail_now_and_then, &chance};
        cake__random_init(&random, seed % 3);
        cake__random_init(&chance, seed);
        cake__table_init(&table, seed < 3 ? &cake__libc_alloc : &short_of_memory, seed);
        for (uint32_t i = 0; i < COUNT; i++)
            order[i] = i;
        for (uint32_t i = COUNT; i-- > 1;) {
            uint32_t k = (uint32_t)cake__random_below(&random, i + 1), swap = order[i];
            order[i] = order[k];
            order[k] = swap;
        }
        for (uint32_t i = 0; i < COUNT; i++) {
            uint64_t seq = (order[i] + 1) * (seed % 3 == 1 ? 1 : 1 + seed % 3 * 50);
            cake_record_t record = {id_of(order[i], false), (seq << 16) + 5, {9, seq}, false};
            int err;
            while ((err = cake__table_put(&table, &record, CAKE__SLOT_NONE)) != 0)
                assert_true(err == CAKE_ENOMEM && seed >= 3);
        }
        cake__table_check(&table);
        assert_int_equal(table.live, COUNT);
        cake__table_free(&table);
    }
}

static void put_at(cake__table_t *table, uint32_t key, uint64_t seq, cake_hlc_t hlc, bool is_tombstone)
{
    cake_record_t record = {id_of(key, false), hlc, {9, seq}, is_tombstone};
    assert_int_equal(cake__table_put(table, &record, cake__table_find(table, &record.id)), 0);
}

/* What is left of two blocks whose stamps are days apart is put into one. */
static void leftovers_of_distant_days_share_a_block(void **state)
{
    enum { COUNT = 4096, KEPT = 37, DAY_MS = 86400000 };
    cake__table_t table;
    uint64_t seq = 1;
    cake__table_init(&table, &cake__libc_alloc, 1);
    for (uint32_t i = 0; i < COUNT; i++, seq++)
        put_at(&table, i, seq, cake_hlc_from_parts((uint64_t)DAY_MS * (1 + i / 1024), 0), false);
    for (uint32_t i = 0; i < COUNT; i++) {
        if (i % KEPT != 0)
            put_at(&table, i, seq++, cake_hlc_from_parts((uint64_t)DAY_MS * 9, 0) + i, false);
    }
    cake__table_check(&table);
    for (uint32_t i = 0; i < COUNT; i += KEPT) {
        cake_record_t record;
        cake_id_t id = id_of(i, false);
        assert_true(cake__table_get(&table, &id, &record));
        assert_true(record.dot.seq == i + 1 && record.hlc == cake_hlc_from_parts((uint64_t)DAY_MS * (1 + i / 1024), 0));
    }
    cake__table_free(&table);
}

/* The search for the oldest tombstone has gone past the place where it belongs. */
static void a_tombstone_that_comes_late_is_the_oldest(void **state)
{
    cake__table_t table;
    cake__table_init(&table, &cake__libc_alloc, 1);
    put_at(&table, 1, 1, 10, false);
    cake__lane_t *lane = cake__table_find_lane(&table, 9);
    assert_int_equal(cake__lane_oldest_tombstone(&table, lane), 0);
    put_at(&table, 2, 900000, 50, true);
    put_at(&table, 3, 700000, 40, false);
    put_at(&table, 4, 990000, 60, true);
    assert_int_equal(cake__lane_oldest_tombstone(&table, lane), 50);
    put_at(&table, 5, 300000, 20, false);
    put_at(&table, 6, 300001, 30, true);
    assert_int_equal(cake__lane_oldest_tombstone(&table, lane), 30);
    assert_int_equal(cake__table_slot_of(&table, (cake_dot_t){9, 500000}), CAKE__SLOT_NONE);
    assert_int_equal(cake__table_slot_of(&table, (cake_dot_t){9, 0}), CAKE__SLOT_NONE);
    assert_int_equal(cake__table_slot_of(&table, (cake_dot_t){8, 1}), CAKE__SLOT_NONE);
    cake__table_check(&table);
    cake__table_free(&table);
}

/* A key that is written and dropped for ever must not fill the index. */
static void the_index_does_not_grow_by_writing_and_dropping(void **state)
{
    cake__table_t table;
    cake__table_init(&table, &cake__libc_alloc, 1);
    for (uint64_t seq = 1; seq < 200000; seq++) {
        cake_record_t record = {id_of((uint32_t)(seq % 5), false), seq, {1, seq}, true};
        assert_int_equal(cake__table_put(&table, &record, cake__table_find(&table, &record.id)), 0);
        if (seq % 3 == 0)
            cake__table_erase(&table, cake__table_find(&table, &record.id));
    }
    cake__table_check(&table);
    assert_true(cake__table_bytes(&table) < 8192);
    cake__table_free(&table);
}

static void a_failed_allocation_leaves_the_table_as_it_was(void **state)
{
    cake__table_t table;
    cake__random_t random, chance;
    const cake_alloc_t alloc = {fail_now_and_then, &chance};
    uint64_t failures = 0, seq = 0;
    cake__random_init(&random, 5);
    cake__table_init(&table, &alloc, 1);
    cake__random_init(&chance, 6);
    for (uint32_t i = 0; i < 30000; i++) {
        seq += 1 + cake__random_below(&random, 4);
        cake_record_t record = {
            id_of((uint32_t)cake__random_below(&random, 5000), i % 3 == 0), seq << 12, {i / 3000, seq}, false};
        uint64_t fingerprint = table.fingerprint, live = table.live;
        int err;
        while ((err = cake__table_put(&table, &record, cake__table_find(&table, &record.id))) != 0) {
            assert_int_equal(err, CAKE_ENOMEM);
            assert_true(table.fingerprint == fingerprint && table.live == live);
            failures++;
        }
        if (i % 5000 == 0)
            cake__table_check(&table);
    }
    cake__table_check(&table);
    assert_true(failures > 100);
    cake__table_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_equals_a_plain_array),
        cmocka_unit_test(any_order_of_arrival),
        cmocka_unit_test(leftovers_of_distant_days_share_a_block),
        cmocka_unit_test(a_tombstone_that_comes_late_is_the_oldest),
        cmocka_unit_test(the_index_does_not_grow_by_writing_and_dropping),
        cmocka_unit_test(a_failed_allocation_leaves_the_table_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
