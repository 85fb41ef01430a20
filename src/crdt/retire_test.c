/* Rule 8: actors that write no more are folded. What a thousand restarts cost, who comes back and how, late
 * repetitions, what travels between sets with different tables. The random schedules hold the rule itself (model/,
 * mutants fold...). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "crdt/sets_test.h"

#define RESTARTS 1000u

static size_t retire(cake_orswot_t *set, uint64_t living, const cake_orswot_t *peer)
{
    size_t retired;
    assert_int_equal(cake_orswot_retire(set, &living, 1, &peer, 1, &retired), 0);
    return retired;
}

static void purge_all(cake_orswot_t *set, const cake_orswot_t *peer)
{
    assert_int_equal(cake_orswot_purge(set, WALL_MS + 1000, &peer, 1, 0, 0, 1000000, NULL), 0);
}

static void are_equal(const cake_orswot_t *a, const cake_orswot_t *b)
{
    assert_true(cake_orswot_is_in_sync(a, b) && cake_orswot_is_in_sync(b, a));
    assert_true(cake_orswot_fingerprint(a) == cake_orswot_fingerprint(b));
    assert_true(cake__context_hash(&a->summary.context) == cake__context_hash(&b->summary.context));
}

static size_t hello_bytes(cake_orswot_t *set)
{
    cake_pull_t *pull;
    cake_slice_t request;
    assert_int_equal(cake_pull_new(set, 1, &pull), 0);
    assert_int_equal(cake_pull_next(pull, &request), 1);
    size_t len = request.len;
    cake_pull_free(pull);
    return len;
}

static int count_bytes(void *ctx, const void *data, size_t len)
{
    *(size_t *)ctx += len;
    return 0;
}

static size_t saved_bytes(cake_orswot_t *set)
{
    size_t bytes = 0;
    assert_int_equal(cake_orswot_save(set, count_bytes, &bytes), 0);
    return bytes;
}

/* One session over bytes; the mode it ran in, or NONE when it was given up. */
static cake__session_mode_t pull_once(cake_orswot_t *a, cake_orswot_t *b, size_t *bytes)
{
    static uint64_t random = 1;
    cake_pull_t *pull;
    cake_answer_t *answer;
    cake_slice_t request, reply;
    cake__session_mode_t mode = CAKE__MODE_NONE;
    int result;
    assert_int_equal(cake_pull_new(a, ++random, &pull), 0);
    assert_int_equal(cake_answer_new(b, ++random, &answer), 0);
    while ((result = cake_pull_next(pull, &request)) > 0) {
        assert_int_equal(cake_answer_next(answer, request, &reply), 0);
        *bytes += request.len + reply.len;
        assert_int_equal(cake_pull_take(pull, WALL_MS, reply), 0);
        if (!cake__list_is_empty(&a->inbound))
            mode = cake__receiver_floor(a->inbound.next) > 0 ? CAKE__MODE_REPAIR : CAKE__MODE_DELTA;
    }
    cake_pull_free(pull);
    cake_answer_free(answer);
    if (result == 0 && mode == CAKE__MODE_NONE)
        mode = CAKE__MODE_DELTA;
    return result == 0 ? mode : CAKE__MODE_NONE;
}

/* The node of `a` restarts a thousand times, writes a little each time (most of it stays), and b follows. */
static void a_thousand_restarts_leave_contexts_small(void **state)
{
    cake_orswot_t *a = set_new(1), *b = set_new(1000000);
    size_t bytes = 0;
    for (uint64_t run = 1; run <= RESTARTS; run++) {
        cake__orswot_take_actor(a, 7 * run);
        put_key(a, run);
        put_key(a, 5000 + run % 10);
        delete_key(a, run / 2);
        assert_int_equal(pull_once(b, a, &bytes), CAKE__MODE_DELTA);
    }
    put_key(b, 1);
    assert_int_equal(pull_once(a, b, &bytes), CAKE__MODE_DELTA);
    purge_all(a, b);
    purge_all(b, a);
    cake_orswot_statistics_t before, after;
    cake_orswot_statistics(a, &before);
    size_t hello_before = hello_bytes(a), saved_before = saved_bytes(a);
    uint64_t fingerprint = cake_orswot_fingerprint(a), hash = cake__context_hash(&a->summary.context);
    assert_true(before.actors == RESTARTS + 1 && before.retired == 0);

    assert_int_equal(retire(a, 1000000, b), RESTARTS - 1);
    assert_int_equal(retire(b, 7 * RESTARTS, a), RESTARTS - 1);
    cake_orswot_statistics(a, &after);
    printf("%u restarts: HELLO %zu B before, %zu after; saved form %zu, %zu; listed actors %llu, %llu; memory %llu, "
           "%llu\n",
           RESTARTS, hello_before, hello_bytes(a), saved_before, saved_bytes(a), (unsigned long long)before.actors,
           (unsigned long long)after.actors, (unsigned long long)before.bytes, (unsigned long long)after.bytes);
    assert_true(after.actors == 2 && after.retired == RESTARTS - 1);
    assert_true(hello_bytes(a) < 120 && hello_before > 10 * RESTARTS);
    assert_true(a->summary.dropped.count <= 2);
    assert_true(cake_orswot_fingerprint(a) == fingerprint && cake__context_hash(&a->summary.context) == hash);
    are_equal(a, b);

    put_key(a, 1);
    bytes = 0;
    assert_int_equal(pull_once(b, a, &bytes), CAKE__MODE_DELTA);
    assert_true(bytes < 400); /* a session does not pay for the past */
    are_equal(a, b);
    assert_int_equal(retire(a, 1000000, b), 0);
    cake__table_check(&a->table);
    cake_orswot_free(a);
    cake_orswot_free(b);
}

/* One of two has folded: the other lists the same actors. A session is given up, and the next brings the table. */
static void tables_that_differ_are_told_once(void **state)
{
    cake_orswot_t *a = set_new(1), *b = set_new(2);
    size_t bytes = 0;
    put_key(a, 1);
    cake__orswot_take_actor(a, 11);
    put_key(a, 2);
    put_key(b, 3);
    assert_int_equal(cake_orswot_merge(a, b, WALL_MS), 0);
    assert_int_equal(retire(a, 2, b), 1);
    are_equal(a, b); /* whatever is in the tables */
    assert_int_equal(pull_once(a, b, &bytes), CAKE__MODE_NONE);
    assert_int_equal(pull_once(a, b, &bytes), CAKE__MODE_DELTA);
    assert_true(a->sends_whole_table && b->summary.context.retired == NULL);
    assert_int_equal(pull_once(b, a, &bytes), CAKE__MODE_DELTA); /* takes the table over */
    assert_true(cake__retired_same(a->summary.context.retired, b->summary.context.retired));
    assert_int_equal(pull_once(a, b, &bytes), CAKE__MODE_DELTA);
    assert_false(a->sends_whole_table);
    assert_int_equal(b->summary.context.count, 2);
    are_equal(a, b);
    cake_orswot_free(a);
    cake_orswot_free(b);
}

static void a_hole_or_a_replica_that_lacks_something_holds_it_up(void **state)
{
    cake_orswot_t *a = set_new(1), *b = set_new(2);
    cake_record_t records[3];
    cake_id_t id = cake_id_of_u64(1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(cake_orswot_insert(a, WALL_MS, &id, &records[i]), 0);
    cake__orswot_take_actor(a, 11);
    assert_int_equal(retire(a, 2, b), 0); /* b has nothing of it */
    assert_int_equal(cake_orswot_receive(b, WALL_MS, &records[0], CAKE_SOURCE_EAGER, NULL), 0);
    assert_int_equal(cake_orswot_receive(b, WALL_MS, &records[2], CAKE_SOURCE_EAGER, NULL), 0);
    assert_int_equal(retire(a, 2, b), 0); /* b has a hole */
    assert_int_equal(retire(b, 11, a), 0);
    assert_int_equal(cake_orswot_receive(b, WALL_MS, &records[1], CAKE_SOURCE_EAGER, NULL), 0);
    assert_int_equal(retire(a, 2, b), 1);
    assert_int_equal(retire(b, 11, a), 1);
    are_equal(a, b);
    cake_orswot_free(a);
    cake_orswot_free(b);
}

static void late_repetitions_and_an_actor_that_writes_after_all(void **state)
{
    cake_orswot_t *a = set_new(1), *b = set_new(2);
    cake_record_t old, deletion, more;
    cake_id_t id = cake_id_of_u64(1), other = cake_id_of_u64(2);
    cake_verdict_t verdict;
    assert_int_equal(cake_orswot_insert(a, WALL_MS, &id, &old), 0);
    assert_int_equal(cake_orswot_delete(a, WALL_MS, &id, &deletion), 0);
    assert_int_equal(cake_orswot_pull(b, a, WALL_MS), 0);
    purge_all(b, a);
    purge_all(a, b);
    size_t count;
    const cake_orswot_t *peer = a;
    assert_int_equal(cake_orswot_retire(b, NULL, 0, &peer, 1, &count), 0); /* the caller takes actor 1 for dead */
    assert_true(count == 1 && b->summary.dropped.count == 0 && cake__summary_dropped(&b->summary, 1) == 2);
    assert_int_equal(cake_orswot_receive(b, WALL_MS, &old, CAKE_SOURCE_EAGER, &verdict), 0);
    assert_int_equal(verdict, CAKE_VERDICT_SEEN);
    assert_int_equal(cake_orswot_insert(a, WALL_MS + 9, &other, &more), 0);
    assert_int_equal(cake_orswot_receive(b, WALL_MS + 9, &more, CAKE_SOURCE_EAGER, &verdict), 0);
    assert_int_equal(verdict, CAKE_VERDICT_NEWER);
    assert_true(b->summary.context.count == 1 && cake__context_base(&b->summary.context, 1) == 3);
    are_equal(a, b);
    assert_int_equal(cake_orswot_merge(a, b, WALL_MS), 0);
    are_equal(a, b);
    assert_true(is_live(a, 2) && is_live(b, 2) && !is_live(b, 1));
    cake_orswot_free(a);
    cake_orswot_free(b);
}

/* c was away while actors retired and deletes were dropped; it also wrote. It has all, part, or a hole of the
 * retired one. */
static void who_was_away_comes_back_by_a_repair(void **state)
{
    for (int has = 0; has < 3; has++) {
        cake_orswot_t *a = set_new(1), *b = set_new(2), *c = set_new(3);
        cake_record_t records[4];
        size_t bytes = 0;
        for (uint64_t key = 0; key < 4; key++) {
            cake_id_t id = cake_id_of_u64(key);
            assert_int_equal(cake_orswot_insert(a, WALL_MS, &id, &records[key]), 0);
            bool reaches_c = has == 0 || (has == 1 && key < 2) || (has == 2 && key != 1);
            if (reaches_c)
                assert_int_equal(cake_orswot_receive(c, WALL_MS, &records[key], CAKE_SOURCE_EAGER, NULL), 0);
        }
        put_key(c, 10);
        delete_key(a, 0);
        cake__orswot_take_actor(a, 11);
        put_key(a, 20);
        assert_int_equal(cake_orswot_merge(b, a, WALL_MS), 0);
        purge_all(a, b);
        purge_all(b, a);
        assert_int_equal(retire(a, 2, b), 1);
        assert_int_equal(retire(b, 11, a), 1);
        assert_int_equal(pull_once(c, a, &bytes), CAKE__MODE_REPAIR);
        assert_int_equal(pull_once(a, c, &bytes), CAKE__MODE_DELTA);
        assert_int_equal(cake_orswot_merge(b, c, WALL_MS), 0);
        assert_int_equal(cake_orswot_merge(a, b, WALL_MS), 0);
        are_equal(a, c);
        are_equal(a, b);
        assert_true(!is_live(c, 0) && is_live(c, 1) && is_live(c, 2) && is_live(c, 3)); /* nothing revived or lost */
        assert_true(is_live(a, 10) && is_live(b, 10) && is_live(c, 20));
        assert_int_equal(c->summary.context.retired->count, 1);
        cake_orswot_free(a);
        cake_orswot_free(b);
        cake_orswot_free(c);
    }
}

typedef struct pipe_bytes {
    uint8_t data[65536];
    size_t len, at;
} pipe_bytes_t;

static int write_bytes(void *ctx, const void *data, size_t len)
{
    pipe_bytes_t *bytes = ctx;
    memcpy(bytes->data + bytes->len, data, len);
    bytes->len += len;
    return 0;
}

static int read_bytes(void *ctx, void *data, size_t len)
{
    pipe_bytes_t *bytes = ctx;
    size_t part = len < bytes->len - bytes->at ? len : bytes->len - bytes->at;
    memcpy(data, bytes->data + bytes->at, part);
    bytes->at += part;
    return (int)part;
}

static void tables_are_saved_and_loaded(void **state)
{
    cake_orswot_t *a = set_new(1), *b = set_new(2), *loaded;
    static pipe_bytes_t bytes;
    for (uint64_t run = 0; run < 50; run++) {
        cake__orswot_take_actor(a, 100 + run);
        put_key(a, run);
        delete_key(a, run / 3);
    }
    assert_int_equal(cake_orswot_merge(a, b, WALL_MS), 0);
    assert_int_equal(retire(a, 2, b), 49);
    bytes.len = bytes.at = 0;
    assert_int_equal(cake_orswot_save(a, write_bytes, &bytes), 0);
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    config.actor = 120;
    assert_int_equal(cake_orswot_load(&config, read_bytes, &bytes, &loaded), CAKE_EDUPLICATE); /* one of the table */
    bytes.at = 0;
    config.actor = 5000;
    assert_int_equal(cake_orswot_load(&config, read_bytes, &bytes, &loaded), 0);
    assert_true(cake__retired_same(a->summary.context.retired, loaded->summary.context.retired));
    are_equal(a, loaded);
    cake_orswot_cursor_t cursor = {{0}};
    cake_record_t records[64];
    assert_int_equal(cake_orswot_diff(a, loaded, &cursor, records, 64), 0);
    cake_orswot_t *empty = set_new(77);
    cursor = (cake_orswot_cursor_t){{0}};
    assert_int_equal(cake_orswot_diff(loaded, empty, &cursor, records, 64),
                     cake_orswot_live(a) + cake_orswot_tombstones(a));
    cake_orswot_free(a);
    cake_orswot_free(b);
    cake_orswot_free(empty);
    cake_orswot_free(loaded);
}

/* ---- memory that runs out ---------------------------------------------------------------------------------------- */

static void without_memory_nothing_is_folded(void **state)
{
    fuse_t fuse = {.left = SIZE_MAX};
    const cake_alloc_t alloc = {.resize = burn, .ctx = &fuse};
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set;
    config.actor = 1;
    config.alloc = &alloc;
    assert_int_equal(cake_orswot_new(&config, &set), 0);
    for (uint64_t run = 1; run < 20; run++) {
        cake__orswot_take_actor(set, run);
        put_key(set, run);
        if (run == 9) {
            size_t count;
            assert_int_equal(cake_orswot_retire(set, NULL, 0, NULL, 0, &count), 0);
        }
    }
    uint64_t hash = cake__context_hash(&set->summary.context);
    assert_int_equal(cake_orswot_retire(set, NULL, 0, NULL, 0, NULL), 0); /* *retired may be NULL */
    for (uint64_t run = 30; run < 40; run++) {
        cake__orswot_take_actor(set, run);
        put_key(set, run);
    }
    hash = cake__context_hash(&set->summary.context);
    for (size_t allowed = 0;; allowed++) {
        size_t count;
        cake__change_t *change;
        uint32_t listed = set->summary.context.count;
        fuse.left = allowed;
        int err = allowed % 2 == 0 ? cake_orswot_retire(set, NULL, 0, NULL, 0, &count) : CAKE_ENOMEM;
        if (err == 0)
            break;
        fuse.left = SIZE_MAX;
        assert_true(err == CAKE_ENOMEM && set->summary.context.count == listed);
        assert_int_equal(cake__change_begin(set, WALL_MS, &change), 0);
        fuse.left = allowed;
        err = cake__change_retire(change, NULL, 0, NULL, 0, &count);
        fuse.left = SIZE_MAX;
        assert_true(err == 0 || err == CAKE_ENOMEM);
        cake__change_abort(change);
        assert_int_equal(set->summary.context.count, listed);
    }
    fuse.left = SIZE_MAX;
    assert_true(cake__context_hash(&set->summary.context) == hash && set->summary.context.count == 1);
    cake_record_t record = {.id = cake_id_of_u64(999), .hlc = 7, .dot = {77, 1}};
    assert_int_equal(cake__orswot_load_record(set, &record), 0); /* not placed yet: that takes memory first */
    fuse.left = 0;
    assert_int_equal(cake_orswot_retire(set, NULL, 0, NULL, 0, NULL), CAKE_ENOMEM);
    fuse.left = SIZE_MAX;
    assert_int_equal(cake_orswot_retire(set, NULL, 0, NULL, 0, NULL), 0);
    assert_true(is_live(set, 999));
    cake_orswot_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_restarts_leave_contexts_small),
        cmocka_unit_test(tables_that_differ_are_told_once),
        cmocka_unit_test(a_hole_or_a_replica_that_lacks_something_holds_it_up),
        cmocka_unit_test(late_repetitions_and_an_actor_that_writes_after_all),
        cmocka_unit_test(who_was_away_comes_back_by_a_repair),
        cmocka_unit_test(tables_are_saved_and_loaded),
        cmocka_unit_test(without_memory_nothing_is_folded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
