/* Sessions of the set alone between processes, and loading: by the bytes, cut, foreign, and short of memory. */
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

static void *fail_now_and_then(void *ctx, void *block, size_t size)
{
    if (ctx != NULL && size != 0 && cake__random_below(ctx, 60) == 0)
        return NULL;
    return cake__libc_alloc.resize(NULL, block, size);
}

static cake_orswot_t *set_new(uint64_t actor, bool is_joined, const cake_alloc_t *alloc)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set = NULL;
    config.actor = actor;
    config.is_joined = is_joined;
    config.alloc = alloc;
    while (cake_orswot_new(&config, &set) == CAKE_ENOMEM)
        ;
    assert_non_null(set);
    return set;
}

static void write_key(cake_orswot_t *set, uint64_t key, bool is_tombstone)
{
    cake_id_t id = cake_id_of_u64(key);
    int err;
    while ((err = is_tombstone ? cake_orswot_delete(set, WALL_MS, &id, NULL)
                               : cake_orswot_insert(set, WALL_MS, &id, NULL)) != 0)
        assert_int_equal(err, CAKE_ENOMEM);
}

static void purge(cake_orswot_t *set)
{
    while (cake_orswot_purge(set, WALL_MS + 1, NULL, 0, 0, 0, 1000, NULL) == CAKE_ENOMEM)
        ;
}

/* b is ahead of a; with drops on both sides it takes a repair. */
static void fill(cake_orswot_t *a, cake_orswot_t *b, bool has_drops)
{
    for (uint64_t key = 0; key < 1500; key++)
        write_key(b, key, key % 50 == 7);
    while (cake_orswot_pull(a, b, WALL_MS) == CAKE_ENOMEM)
        ;
    for (uint64_t key = 0; key < 20; key++) {
        write_key(b, key * 3, true);
        write_key(a, key * 5, key % 2 == 0);
    }
    if (has_drops) {
        purge(b);
        purge(a);
    }
}

/* The result of the whole session. */
static int pull_all(cake_orswot_t *a, cake_orswot_t *b, uint64_t number)
{
    cake_pull_t *pull;
    cake_answer_t *answer;
    cake_slice_t request, reply;
    int err = cake_pull_new(a, number, &pull);
    if (err != 0)
        return err;
    err = cake_answer_new(b, number, &answer);
    while (err == 0 && (err = cake_pull_next(pull, &request)) > 0) {
        err = cake_answer_next(answer, request, &reply);
        if (err == 0)
            err = cake_pull_take(pull, WALL_MS + 1, reply);
    }
    cake_pull_free(pull);
    cake_answer_free(answer);
    return err;
}

static void are_equal(cake_orswot_t *a, cake_orswot_t *b)
{
    assert_true(cake_orswot_is_in_sync(a, b));
    assert_true(cake_orswot_fingerprint(a) == cake_orswot_fingerprint(b));
    cake__table_check(&a->table);
    cake__table_check(&b->table);
}

static void pulling_both_ways_makes_sets_equal(void **state)
{
    for (int has_drops = 0; has_drops < 2; has_drops++) {
        cake_orswot_t *a = set_new(1, true, NULL), *b = set_new(2, true, NULL), *fresh = set_new(3, false, NULL);
        fill(a, b, has_drops);
        assert_int_equal(pull_all(a, b, 11), 0);
        assert_int_equal(pull_all(b, a, 12), 0);
        are_equal(a, b);
        assert_int_equal(pull_all(a, fresh, 13), CAKE_EBUSY); /* it has not joined */
        assert_int_equal(pull_all(fresh, a, 14), 0);
        are_equal(a, fresh);
        cake_pull_free(NULL);
        cake_answer_free(NULL);
        cake_orswot_free(a);
        cake_orswot_free(b);
        cake_orswot_free(fresh);
    }
}

static void memory_that_runs_out_now_and_then_only_delays(void **state)
{
    cake__random_t coin;
    for (uint64_t seed = 0; seed < 40; seed++) {
        const cake_alloc_t alloc = {fail_now_and_then, &coin};
        cake__random_init(&coin, seed);
        cake_orswot_t *a = set_new(1, true, &alloc), *b = set_new(2, true, &alloc);
        fill(a, b, seed % 2 == 0);
        for (uint64_t i = 0; i < 2;) {
            int err = i == 0 ? pull_all(a, b, 100 + i) : pull_all(b, a, 100 + i);
            assert_true(err == 0 || err == CAKE_ENOMEM || err == CAKE_EBUSY);
            i += err == 0;
        }
        are_equal(a, b);
        cake_orswot_free(a);
        cake_orswot_free(b);
    }
}

/* The first `whole` replies are taken, the next one is cut. False: the session was over before. */
static bool cut_session(cake_orswot_t *a, cake_answer_t *answer, size_t whole, size_t cut)
{
    cake_pull_t *pull;
    cake_slice_t request, reply;
    int more = 0;
    assert_int_equal(cake_pull_new(a, 1000 + cut, &pull), 0);
    for (size_t i = 0; i <= whole && (more = cake_pull_next(pull, &request)) > 0; i++) {
        assert_int_equal(cake_answer_next(answer, request, &reply), 0);
        if (i == whole)
            reply.len = reply.len * cut / 40;
        assert_int_equal(cake_pull_take(pull, WALL_MS + 1, reply), i == whole ? CAKE_EPARSE : 0);
    }
    assert_true(more == 0 || cake_pull_next(pull, &request) == CAKE_EBUSY);
    cake_pull_free(pull);
    return more != 0;
}

static void cut_messages_are_refused_and_end_the_session(void **state)
{
    cake_orswot_t *a = set_new(1, true, NULL), *b = set_new(2, true, NULL);
    cake_answer_t *answer;
    bool is_over = false;
    fill(a, b, true);
    assert_int_equal(cake_answer_new(b, 5, &answer), 0);
    for (size_t whole = 0; !is_over; whole++) {
        for (size_t cut = 0; cut < 40 && !is_over; cut++)
            is_over = !cut_session(a, answer, whole, cut);
    }
    cake_answer_free(answer);
    assert_int_equal(pull_all(a, b, 7), 0);
    assert_int_equal(pull_all(b, a, 8), 0);
    are_equal(a, b);
    cake_orswot_free(a);
    cake_orswot_free(b);
}

static void requests_that_make_no_sense_are_refused(void **state)
{
    cake_orswot_t *a = set_new(1, true, NULL), *b = set_new(2, true, NULL);
    cake_pull_t *pull;
    cake_answer_t *answer;
    cake_slice_t request, reply;
    uint8_t bytes[4096];
    fill(a, b, false);
    assert_int_equal(cake_pull_new(a, 1, &pull), 0);
    assert_int_equal(cake_answer_new(b, 2, &answer), 0);
    assert_int_equal(cake_answer_next(answer, (cake_slice_t){"", 0}, &reply), CAKE_EPARSE);
    assert_int_equal(cake_answer_next(answer, (cake_slice_t){"Z", 1}, &reply), CAKE_EPARSE);
    assert_int_equal(cake_answer_next(answer, (cake_slice_t){"N", 1}, &reply), 0); /* no session yet */
    assert_int_equal(*(const char *)reply.data, 'X');
    assert_int_equal(cake_pull_next(pull, &request), 1);
    assert_true(request.len < sizeof bytes);
    memcpy(bytes, request.data, request.len);
    for (size_t len = 1; len < request.len; len++)
        assert_int_equal(cake_answer_next(answer, (cake_slice_t){bytes, len}, &reply), CAKE_EPARSE);
    assert_int_equal(cake_answer_next(answer, (cake_slice_t){bytes, request.len + 1}, &reply), CAKE_EPARSE);
    bytes[1] = 7;
    assert_int_equal(cake_answer_next(answer, (cake_slice_t){bytes, request.len}, &reply), CAKE_EVERSION);
    assert_int_equal(cake_answer_next(answer, request, &reply), 0);
    assert_int_equal(cake_answer_next(answer, (cake_slice_t){"NN", 2}, &reply), CAKE_EPARSE);
    assert_int_equal(cake_answer_next(answer, (cake_slice_t){"C", 1}, &reply), CAKE_EPARSE);
    assert_int_equal(cake_pull_next(pull, &request), CAKE_EBUSY); /* asked, and no reply was taken */
    assert_int_equal(cake_pull_take(pull, WALL_MS, (cake_slice_t){"X", 1}), 0);
    assert_int_equal(cake_pull_next(pull, &request), CAKE_EBUSY);
    assert_int_equal(cake_pull_take(pull, WALL_MS, (cake_slice_t){"?", 1}), CAKE_EPARSE);
    assert_int_equal(cake_pull_take(pull, WALL_MS, (cake_slice_t){NULL, SIZE_MAX}), CAKE_ETOOBIG);
    cake_pull_free(pull);
    cake_answer_free(answer);
    cake_orswot_free(a);
    cake_orswot_free(b);
}

/* ---- loading (rule 6) -------------------------------------------------------------------------------------------- */

static void records_load_in_any_order_and_with_little_memory(void **state)
{
    enum { COUNT = 4000 };
    static cake_record_t records[COUNT];
    cake__random_t random, coin;
    cake_orswot_t *set = set_new(1, true, NULL), *other = set_new(9, true, NULL);
    cake_orswot_cursor_t cursor = {{0}};
    for (uint64_t key = 0; key < COUNT; key++)
        write_key(key % 3 == 0 ? other : set, key, key % 9 == 0);
    assert_int_equal(cake_orswot_merge(set, other, WALL_MS), 0);
    assert_int_equal(cake_orswot_next(set, &cursor, records, COUNT), COUNT);
    cake__random_init(&random, 1);
    for (uint64_t round = 0; round < 30; round++) {
        const cake_alloc_t alloc = {fail_now_and_then, round == 0 ? NULL : &coin};
        cake__random_init(&coin, round);
        cake_orswot_t *back = set_new(5, true, &alloc);
        for (size_t i = COUNT; i-- > 0;) {
            size_t k = (size_t)cake__random_below(&random, i + 1);
            cake_record_t swap = records[i];
            records[i] = records[k];
            records[k] = swap;
            while (cake__orswot_load_record(back, &records[i]) == CAKE_ENOMEM)
                ;
        }
        while (cake__orswot_load_summary(back, cake__orswot_summary(set)) == CAKE_ENOMEM)
            ;
        are_equal(set, back);
        cake_orswot_free(back);
    }
    cake_orswot_free(set);
    cake_orswot_free(other);
}

static int write_nowhere(void *ctx, const void *data, size_t len)
{
    return 0;
}

/* Whoever comes first: each places what was loaded. */
static void every_call_says_that_it_is_corrupt(cake_orswot_t *set)
{
    cake_orswot_t *other = set_new(2, true, NULL);
    cake_id_t id = cake_id_of_u64(1);
    cake_record_t record = {id, WALL_MS << 16, {7, 1}, false};
    cake_verdict_t verdict;
    cake_ranges_t *ranges;
    uint64_t fingerprint;
    size_t done;
    assert_int_equal(cake_orswot_insert(set, WALL_MS, &id, NULL), CAKE_ECORRUPT);
    assert_int_equal(cake_orswot_insert_many(set, WALL_MS, &id, 1, NULL, &done), CAKE_ECORRUPT);
    assert_int_equal(cake_orswot_receive(set, WALL_MS, &record, CAKE_SOURCE_EAGER, &verdict), CAKE_ECORRUPT);
    assert_int_equal(cake_orswot_purge(set, WALL_MS, NULL, 0, 1, 1, 1, NULL), CAKE_ECORRUPT);
    assert_int_equal(cake_orswot_pull(set, other, WALL_MS), CAKE_ECORRUPT);
    assert_int_equal(cake_orswot_pull(other, set, WALL_MS), CAKE_ECORRUPT);
    assert_int_equal(cake_orswot_save(set, write_nowhere, NULL), CAKE_ECORRUPT);
    assert_int_equal(cake_ranges_new(set, 4, &ranges), CAKE_ECORRUPT);
    assert_int_equal(cake_orswot_fingerprint_range(set, 0, UINT64_MAX, &fingerprint, NULL), CAKE_ECORRUPT);
    cake_orswot_free(other);
}

static void a_damaged_storage_is_noticed(void **state)
{
    cake_orswot_t *set = set_new(1, true, NULL);
    cake_record_t one = {cake_id_of_u64(1), 77, {3, 4}, false}, two = {cake_id_of_u64(2), 78, {3, 4}, false};
    cake__summary_t nothing;
    cake__summary_init(&nothing, &cake__libc_alloc);
    assert_int_equal(cake__orswot_load_record(set, &one), 0);
    assert_int_equal(cake__orswot_load_record(set, &two), 0);
    assert_int_equal(cake__orswot_load_summary(set, &nothing), CAKE_ECORRUPT);
    assert_int_equal(cake__orswot_load_record(set, &two), CAKE_EINVAL);
    every_call_says_that_it_is_corrupt(set);
    cake_orswot_free(set);
    /* an older and a newer row of one id: the newer counts */
    set = set_new(1, true, NULL);
    two = (cake_record_t){cake_id_of_u64(1), 78, {3, 5}, true};
    assert_int_equal(cake__orswot_load_record(set, &two), 0);
    assert_int_equal(cake__orswot_load_record(set, &one), 0);
    assert_int_equal(cake__orswot_load_summary(set, &nothing), 0);
    assert_true(cake_orswot_live(set) == 0 && cake_orswot_tombstones(set) == 1);
    assert_true(cake_orswot_has_seen(set, one.dot) && cake_orswot_has_seen(set, two.dot));
    cake_orswot_free(set);
}

/* What was loaded and not placed yet is placed by the next operation, also by one that could be done in place. */
static void operations_find_what_was_loaded(void **state)
{
    for (int operation = 0; operation < 3; operation++) {
        cake_orswot_t *set = set_new(1, true, NULL);
        cake_id_t ids[2] = {cake_id_of_u64(1), cake_id_of_u64(2)};
        cake_record_t loaded = {cake_id_of_u64(5), WALL_MS << 16, {1, 3}, false}, got;
        cake_record_t other = {cake_id_of_u64(3), WALL_MS << 16, {7, 1}, false};
        size_t done;
        assert_int_equal(cake_orswot_insert(set, WALL_MS, &ids[0], NULL), 0);
        assert_int_equal(cake_orswot_receive(set, WALL_MS, &other, CAKE_SOURCE_EAGER, NULL), 0);
        assert_int_equal(cake__orswot_load_record(set, &loaded), 0);
        if (operation == 0) {
            assert_int_equal(cake_orswot_insert(set, WALL_MS, &ids[1], &got), 0);
            assert_int_equal(got.dot.seq, 4);
        } else if (operation == 1) {
            assert_int_equal(cake_orswot_insert_many(set, WALL_MS, &ids[1], 1, &got, &done), 0);
            assert_int_equal(got.dot.seq, 4);
        } else {
            other = (cake_record_t){cake_id_of_u64(4), WALL_MS << 16, {7, 2}, false};
            assert_int_equal(cake_orswot_receive(set, WALL_MS, &other, CAKE_SOURCE_EAGER, NULL), 0);
        }
        assert_true(cake_orswot_get(set, &loaded.id, &got) && cake_orswot_has_seen(set, loaded.dot));
        assert_int_equal(cake_orswot_live(set), 4);
        cake_orswot_free(set);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pulling_both_ways_makes_sets_equal),
        cmocka_unit_test(memory_that_runs_out_now_and_then_only_delays),
        cmocka_unit_test(cut_messages_are_refused_and_end_the_session),
        cmocka_unit_test(requests_that_make_no_sense_are_refused),
        cmocka_unit_test(records_load_in_any_order_and_with_little_memory),
        cmocka_unit_test(a_damaged_storage_is_noticed),
        cmocka_unit_test(operations_find_what_was_loaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
