/* The set alone: what its header promises, and the defects of others that it must not have. */
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
#define DAY_MS  UINT64_C(86400000)
#define HOUR_MS UINT64_C(3600000)

static cake_orswot_t *set_new(uint64_t actor, bool is_joined)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set;
    config.actor = actor;
    config.is_joined = is_joined;
    assert_int_equal(cake_orswot_new(&config, &set), 0);
    return set;
}

static cake_record_t insert(cake_orswot_t *set, uint64_t wall_ms, uint64_t key)
{
    cake_record_t record;
    cake_id_t id = cake_id_of_u64(key);
    assert_int_equal(cake_orswot_insert(set, wall_ms, &id, &record), 0);
    return record;
}

static cake_record_t erase(cake_orswot_t *set, uint64_t wall_ms, uint64_t key)
{
    cake_record_t record;
    cake_id_t id = cake_id_of_u64(key);
    assert_int_equal(cake_orswot_delete(set, wall_ms, &id, &record), 0);
    return record;
}

static cake_verdict_t receive(cake_orswot_t *set, uint64_t wall_ms, const cake_record_t *record)
{
    cake_verdict_t verdict, announced = cake_orswot_will_apply(set, wall_ms, record, CAKE_SOURCE_EAGER);
    assert_int_equal(cake_orswot_receive(set, wall_ms, record, CAKE_SOURCE_EAGER, &verdict), 0);
    assert_int_equal(verdict, announced);
    return verdict;
}

static bool is_live(const cake_orswot_t *set, uint64_t key)
{
    cake_record_t record;
    cake_id_t id = cake_id_of_u64(key);
    return cake_orswot_get(set, &id, &record) && !record.is_tombstone;
}

static void are_equal(const cake_orswot_t *a, const cake_orswot_t *b)
{
    assert_true(cake_orswot_is_in_sync(a, b));
    assert_true(cake_orswot_fingerprint(a) == cake_orswot_fingerprint(b));
    assert_int_equal(cake_orswot_live(a), cake_orswot_live(b));
}

static size_t purge(cake_orswot_t *set, uint64_t wall_ms, const cake_orswot_t *other)
{
    size_t dropped;
    assert_int_equal(cake_orswot_purge(set, wall_ms, &other, other == NULL ? 0 : 1, 10000, HOUR_MS, 100000, &dropped),
                     0);
    return dropped;
}

/* ---- promises of the header -------------------------------------------------------------------------------------- */

static void a_write_wins_at_once_and_a_delete_hides_it(void **state)
{
    cake_orswot_t *set = set_new(1, true);
    cake_record_t first = insert(set, WALL_MS, 5), second = insert(set, WALL_MS - DAY_MS / 2000, 5), got;
    assert_true(second.hlc > first.hlc && second.dot.seq == first.dot.seq + 1);
    assert_int_equal(cake_orswot_live(set), 1);
    assert_true(cake_orswot_has_seen(set, first.dot) && !cake_orswot_has_seen(set, (cake_dot_t){1, 3}));
    cake_record_t gone = erase(set, WALL_MS, 5);
    assert_true(!is_live(set, 5) && cake_orswot_get(set, &gone.id, &got) && got.is_tombstone);
    assert_int_equal(cake_orswot_live(set), 0);
    assert_int_equal(cake_orswot_tombstones(set), 1);
    assert_int_equal(cake_orswot_fingerprint(set), 0);
    cake_orswot_free(set);
    cake_orswot_free(NULL);
}

static void verdicts_say_what_becomes_of_an_operation(void **state)
{
    cake_orswot_t *a = set_new(1, true), *b = set_new(2, true), *fresh = set_new(3, false);
    cake_record_t old = insert(a, WALL_MS, 1), fine = insert(a, WALL_MS, 1), far = fine, none = fine;
    assert_int_equal(receive(b, WALL_MS, &fine), CAKE_VERDICT_NEWER);
    assert_int_equal(receive(b, WALL_MS, &fine), CAKE_VERDICT_SEEN);
    assert_int_equal(receive(b, WALL_MS, &old), CAKE_VERDICT_OLDER);
    assert_int_equal(receive(fresh, WALL_MS, &old), CAKE_VERDICT_HELD);
    far.dot.seq = 3;
    far.hlc = cake_hlc_from_parts(WALL_MS + DAY_MS, 0);
    assert_int_equal(receive(b, WALL_MS, &far), CAKE_VERDICT_TOO_FAR_AHEAD);
    none.dot.seq = 0;
    assert_int_equal(cake_orswot_receive(b, WALL_MS, &none, CAKE_SOURCE_EAGER, NULL), CAKE_EINVAL);
    none.dot.seq = CAKE_SEQ_MAX + 1;
    assert_int_equal(cake_orswot_receive(b, WALL_MS, &none, CAKE_SOURCE_EAGER, NULL), CAKE_EINVAL);
    none.dot.seq = 9;
    assert_int_equal(cake_orswot_receive(b, WALL_MS, &none, CAKE_SOURCE_SYNC, NULL), CAKE_EINVAL);
    assert_int_equal(cake_orswot_receive(b, WALL_MS, &none, CAKE_SOURCE_LOCAL, NULL), CAKE_EINVAL);
    assert_int_equal(cake_orswot_receive(b, WALL_MS, &none, CAKE_SOURCE_USER + 3, NULL), 0);
    cake_id_t id = cake_id_of_u64(1);
    assert_int_equal(cake_orswot_insert(fresh, WALL_MS, &id, NULL), CAKE_ENOTJOINED);
    cake_orswot_free(a);
    cake_orswot_free(b);
    cake_orswot_free(fresh);
}

static void an_actor_that_has_used_up_its_dots_writes_no_more(void **state)
{
    cake_orswot_t *set = set_new(1, true);
    cake_record_t last = {cake_id_of_u64(1), cake_hlc_from_parts(WALL_MS, 0), {1, CAKE_SEQ_MAX}, false};
    cake_id_t id = cake_id_of_u64(2);
    assert_int_equal(receive(set, WALL_MS, &last), CAKE_VERDICT_NEWER);
    assert_int_equal(cake_orswot_insert(set, WALL_MS, &id, NULL), CAKE_ETOOBIG);
    assert_int_equal(cake_orswot_live(set), 1);
    cake__orswot_take_actor(set, 9);
    assert_int_equal(cake_orswot_insert(set, WALL_MS, &id, NULL), 0);
    cake_orswot_free(set);
}

static void bad_configurations_are_refused(void **state)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set;
    assert_int_equal(cake_orswot_new(NULL, &set), CAKE_EINVAL);
    assert_int_equal(cake_orswot_new(&config, &set), CAKE_EINVAL);
    config.actor = 1;
    config.size = 3;
    assert_int_equal(cake_orswot_new(&config, &set), CAKE_EINVAL);
    assert_null(set);
}

static void many_inserts_and_iteration_and_diff(void **state)
{
    enum { COUNT = 5000 };
    static cake_id_t ids[COUNT];
    static cake_record_t records[COUNT + 1], seen[COUNT + 1];
    cake_orswot_t *a = set_new(1, true), *b = set_new(2, true);
    cake_orswot_cursor_t cursor = {{0}};
    cake_orswot_statistics_t statistics;
    size_t done, count = 0, part;
    for (uint64_t i = 0; i < COUNT; i++)
        ids[i] = cake_id_of_u64(i * 977);
    assert_int_equal(cake_orswot_insert_many(a, WALL_MS, ids, COUNT, records, &done), 0);
    assert_int_equal(done, COUNT);
    while ((part = cake_orswot_next(a, &cursor, seen + count, 37)) > 0)
        count += part;
    assert_int_equal(count, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        assert_memory_equal(&seen[i].id, &records[i].id, sizeof(cake_id_t));
    assert_int_equal(cake_orswot_pull(b, a, WALL_MS), 0);
    are_equal(a, b);
    for (uint64_t i = 0; i < 10; i++)
        (void)insert(a, WALL_MS, i * 977);
    memset(&cursor, 0, sizeof cursor);
    for (count = 0; (part = cake_orswot_diff(a, b, &cursor, seen + count, 3)) > 0;)
        count += part;
    assert_int_equal(count, 10);
    memset(&cursor, 0, sizeof cursor);
    assert_int_equal(cake_orswot_diff(b, a, &cursor, seen, 3), 0);
    (void)insert(b, WALL_MS, 3);
    assert_int_equal(cake_orswot_merge(a, b, WALL_MS), 0);
    are_equal(a, b);
    assert_int_equal(cake_orswot_pull(a, a, WALL_MS), CAKE_EINVAL);
    cake_orswot_statistics(a, &statistics);
    assert_true(statistics.live == COUNT + 1 && statistics.actors == 2 && statistics.exceptions == 0);
    assert_true(statistics.bytes / COUNT < 40);
    cake_orswot_free(a);
    cake_orswot_free(b);
}

static void a_set_is_read_in_parts_of_any_size(void **state)
{
    enum { COUNT = 3000 };
    static cake_record_t all[COUNT], part[COUNT];
    cake_orswot_t *set = set_new(1, true), *empty = set_new(2, true);
    cake_orswot_cursor_t whole = {{0}};
    for (uint64_t key = 0; key < COUNT; key++)
        insert(set, WALL_MS + key / 10, key);
    assert_int_equal(cake_orswot_next(set, &whole, all, COUNT), COUNT);
    for (size_t limit = 1; limit < 200; limit += 9) {
        cake_orswot_cursor_t cursor = {{0}}, lacking = {{0}};
        for (size_t at = 0, count; at < COUNT; at += count) {
            count = cake_orswot_next(set, &cursor, part, limit);
            assert_int_equal(count, limit < COUNT - at ? limit : COUNT - at);
            assert_memory_equal(part, &all[at], count * sizeof *part);
            assert_int_equal(cake_orswot_diff(set, empty, &lacking, part, limit), count);
            assert_memory_equal(part, &all[at], count * sizeof *part);
        }
    }
    cake_orswot_free(set);
    cake_orswot_free(empty);
}

static void an_empty_set_is_small(void **state)
{
    cake_orswot_statistics_t statistics;
    cake_orswot_t *set = set_new(1, true);
    cake_orswot_statistics(set, &statistics);
    assert_true(statistics.bytes <= 1024);
    cake_orswot_free(set);
}

/* ---- defects of the system that this one comes from: numbers of the inventory ------------------------------------ */

static void defect_1_tombstones_go_in_a_healthy_pair(void **state)
{
    cake_orswot_t *a = set_new(1, true), *b = set_new(2, true);
    for (uint64_t key = 0; key < 100; key++)
        (void)insert(a, WALL_MS, key);
    for (uint64_t key = 0; key < 100; key++)
        (void)erase(a, WALL_MS, key);
    assert_int_equal(purge(a, WALL_MS + 20000, b), 0); /* b has not seen them */
    assert_int_equal(cake_orswot_merge(a, b, WALL_MS), 0);
    assert_int_equal(purge(a, WALL_MS, b), 0); /* too young */
    assert_int_equal(purge(a, WALL_MS + 20000, b), 100);
    assert_int_equal(purge(b, WALL_MS + 20000, a), 100);
    assert_int_equal(cake_orswot_tombstones(a) + cake_orswot_tombstones(b), 0);
    (void)insert(b, WALL_MS + 20000, 7);
    assert_int_equal(cake_orswot_merge(a, b, WALL_MS + 20000), 0);
    are_equal(a, b);
    cake_orswot_free(a);
    cake_orswot_free(b);
}

static void defect_2_a_replica_that_missed_the_delete_loses_the_key_after_the_purge(void **state)
{
    cake_orswot_t *a = set_new(1, true), *b = set_new(2, true);
    (void)insert(a, WALL_MS, 1);
    (void)insert(a, WALL_MS, 2);
    assert_int_equal(cake_orswot_merge(a, b, WALL_MS), 0);
    (void)erase(a, WALL_MS, 1);
    assert_int_equal(purge(a, WALL_MS + 20000, NULL), 1); /* b is away and not waited for */
    assert_int_equal(cake_orswot_merge(b, a, WALL_MS + 20000), 0);
    assert_true(!is_live(a, 1) && !is_live(b, 1) && is_live(b, 2));
    are_equal(a, b);
    cake_orswot_free(a);
    cake_orswot_free(b);
}

static void defect_3_writes_of_one_origin_in_reverse_order(void **state)
{
    cake_orswot_t *a = set_new(1, true), *b = set_new(2, true), *c = set_new(3, true);
    cake_record_t first = insert(a, WALL_MS, 1), second = insert(a, WALL_MS, 2), third = insert(a, WALL_MS, 1);
    assert_int_equal(receive(b, WALL_MS, &third), CAKE_VERDICT_NEWER);
    assert_int_equal(receive(b, WALL_MS, &second), CAKE_VERDICT_NEWER);
    assert_int_equal(receive(b, WALL_MS, &first), CAKE_VERDICT_OLDER);
    are_equal(a, b);
    assert_int_equal(cake_orswot_pull(c, b, WALL_MS), 0);
    are_equal(a, c);
    cake_orswot_free(a);
    cake_orswot_free(b);
    cake_orswot_free(c);
}

static void defect_4_removals_and_puts_of_one_batch_keep_their_order(void **state)
{
    cake_orswot_t *a = set_new(1, true), *b = set_new(2, true);
    cake_record_t batch[3] = {insert(a, WALL_MS, 1), erase(a, WALL_MS, 1), insert(a, WALL_MS, 1)};
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (int order = 0; order < 6; order++) {
        cake_orswot_t *c = set_new(10, true);
        for (int i = 0; i < 3; i++)
            (void)receive(c, WALL_MS, &batch[orders[order][i]]);
        assert_true(is_live(c, 1));
        are_equal(a, c);
        cake_orswot_free(c);
    }
    cake_orswot_free(a);
    cake_orswot_free(b);
}

static void defect_5_a_broadcast_before_the_bootstrap_loses_nothing(void **state)
{
    enum { COUNT = 20000 };
    cake_orswot_t *a = set_new(1, true), *fresh = set_new(2, false);
    for (uint64_t key = 0; key < COUNT; key++)
        (void)insert(a, WALL_MS, key);
    cake_record_t heard = insert(a, WALL_MS, COUNT);
    assert_int_equal(receive(fresh, WALL_MS, &heard), CAKE_VERDICT_HELD);
    assert_int_equal(cake_orswot_pull(fresh, a, WALL_MS), 0);
    are_equal(a, fresh);
    assert_int_equal(cake_orswot_live(fresh), COUNT + 1);
    cake_orswot_free(a);
    cake_orswot_free(fresh);
}

static void defect_6_writes_of_a_long_partition_are_taken(void **state)
{
    cake_orswot_t *a = set_new(1, true), *b = set_new(2, true);
    (void)insert(a, WALL_MS, 1);
    (void)insert(b, WALL_MS + 48 * HOUR_MS, 2);
    assert_int_equal(cake_orswot_merge(a, b, WALL_MS + 48 * HOUR_MS), 0);
    assert_true(is_live(b, 1) && is_live(a, 2));
    are_equal(a, b);
    cake_orswot_free(a);
    cake_orswot_free(b);
}

static void defect_7_one_stamp_far_ahead_stops_nobody(void **state)
{
    cake_orswot_t *a = set_new(1, true), *b = set_new(2, true);
    cake_record_t ahead = insert(a, WALL_MS + DAY_MS, 1), refused;
    assert_int_equal(receive(b, WALL_MS, &ahead), CAKE_VERDICT_TOO_FAR_AHEAD);
    cake_id_t id = cake_id_of_u64(2);
    /* a cannot write until the wall clock catches up, and says so; b goes on */
    assert_int_equal(cake_orswot_insert(a, WALL_MS, &id, &refused), CAKE_EDRIFT);
    (void)insert(b, WALL_MS, 3);
    assert_int_equal(cake_orswot_pull(b, a, WALL_MS), CAKE_EBUSY);
    assert_int_equal(cake_orswot_pull(a, b, WALL_MS), 0);
    assert_int_equal(cake_orswot_merge(a, b, WALL_MS + DAY_MS), 0);
    are_equal(a, b);
    cake_orswot_free(a);
    cake_orswot_free(b);
}

static void defect_8_after_a_restart_with_the_clock_behind_writes_win(void **state)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *a = set_new(1, true), *again, *b = set_new(2, true);
    cake_record_t old = insert(a, WALL_MS, 1);
    config.actor = 5;
    assert_int_equal(cake_orswot_new(&config, &again), 0);
    assert_int_equal(cake__orswot_load_record(again, &old), 0);
    assert_int_equal(cake__orswot_load_summary(again, cake__orswot_summary(a)), 0);
    cake_record_t fresh = insert(again, WALL_MS - 30000, 1);
    assert_true(fresh.hlc > old.hlc && fresh.dot.actor == 5);
    assert_int_equal(cake_orswot_merge(b, again, WALL_MS), 0);
    are_equal(again, b);
    cake_orswot_free(a);
    cake_orswot_free(again);
    cake_orswot_free(b);
}

/* ---- as bytes ---------------------------------------------------------------------------------------------------- */

typedef struct tape {
    uint8_t bytes[1 << 16];
    size_t len, at, piece;
} tape_t;

static int tape_write(void *ctx, const void *data, size_t len)
{
    tape_t *tape = ctx;
    if (tape->len + len > sizeof tape->bytes)
        return CAKE_ENOSPC;
    memcpy(tape->bytes + tape->len, data, len);
    tape->len += len;
    return 0;
}

static int tape_read(void *ctx, void *data, size_t len)
{
    tape_t *tape = ctx;
    size_t part = tape->len - tape->at < len ? tape->len - tape->at : len;
    part = part < tape->piece ? part : tape->piece;
    memcpy(data, tape->bytes + tape->at, part);
    tape->at += part;
    return (int)part;
}

static int load(tape_t *tape, uint64_t actor, cake_orswot_t **out)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    config.actor = actor;
    tape->at = 0;
    return cake_orswot_load(&config, tape_read, tape, out);
}

static cake_orswot_t *some_set(void)
{
    cake_orswot_t *set = set_new(77, true), *other = set_new(3, true);
    for (uint64_t key = 0; key < 300; key++)
        (void)insert(set, WALL_MS + key, key % 250);
    for (uint64_t key = 0; key < 60; key++)
        (void)erase(set, WALL_MS + 1000, key * 3);
    (void)insert(other, WALL_MS, 9);
    cake_record_t lone = insert(other, WALL_MS, 8);
    cake_id_t whole = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0xff}};
    assert_int_equal(cake_orswot_insert(set, WALL_MS, &whole, NULL), 0);
    (void)receive(set, WALL_MS, &lone);
    assert_int_equal(cake_orswot_purge(set, WALL_MS + 20000, NULL, 0, 0, HOUR_MS, 20, NULL), 0);
    cake_orswot_free(other);
    return set;
}

static void a_set_is_the_same_after_saving_and_loading(void **state)
{
    static tape_t tape, again;
    cake_orswot_t *set = some_set(), *back;
    tape.len = again.len = 0;
    assert_int_equal(cake_orswot_save(set, tape_write, &tape), 0);
    tape.piece = 7;
    assert_int_equal(load(&tape, 77, &back), CAKE_EDUPLICATE);
    assert_int_equal(load(&tape, 78, &back), 0);
    are_equal(set, back);
    assert_int_equal(cake_orswot_tombstones(set), cake_orswot_tombstones(back));
    assert_true(set->summary.horizon == back->summary.horizon && set->summary.horizon != 0);
    assert_true(cake__limits_get(&back->summary.dropped, 77) == cake__limits_get(&set->summary.dropped, 77));
    assert_int_equal(cake_orswot_save(back, tape_write, &again), 0);
    assert_int_equal(tape.len, again.len);
    assert_memory_equal(tape.bytes, again.bytes, tape.len);
    cake__table_check(&back->table);
    /* the same set by another way: canonical */
    cake_orswot_t *third = set_new(12, false);
    assert_int_equal(cake_orswot_pull(third, back, WALL_MS + 1000), 0);
    again.len = 0;
    assert_int_equal(cake_orswot_save(third, tape_write, &again), 0);
    assert_int_equal(tape.len, again.len);
    assert_memory_equal(tape.bytes, again.bytes, tape.len);
    cake_orswot_free(third);
    cake_orswot_free(set);
    cake_orswot_free(back);
}

static void altered_and_cut_bytes_are_refused(void **state)
{
    static tape_t tape, bad;
    cake_orswot_t *set = some_set(), *back;
    tape.len = 0;
    assert_int_equal(cake_orswot_save(set, tape_write, &tape), 0);
    tape.piece = sizeof tape.bytes;
    for (size_t len = 0; len < tape.len; len++) {
        bad = tape;
        bad.len = len;
        assert_int_equal(load(&bad, 78, &back), CAKE_EPARSE);
        assert_null(back);
    }
    for (size_t at = 0; at < tape.len; at++) {
        bad = tape;
        bad.bytes[at] ^= (uint8_t)(1u << at % 8);
        assert_int_not_equal(load(&bad, 78, &back), 0);
        assert_null(back);
    }
    bad = tape;
    bad.bytes[7] = 1;
    assert_int_equal(load(&bad, 78, &back), CAKE_EVERSION);
    bad = tape;
    bad.bytes[tape.len - 1] ^= 1;
    assert_int_equal(load(&bad, 78, &back), CAKE_ECORRUPT);
    cake_orswot_free(set);
}

static void a_failing_writer_or_reader_is_reported(void **state)
{
    static tape_t tape;
    cake_orswot_t *set = some_set();
    tape.len = sizeof tape.bytes - 10;
    assert_int_equal(cake_orswot_save(set, tape_write, &tape), CAKE_ENOSPC);
    cake_orswot_free(set);
}

/* Reads ten bytes at a time and then fails. */
static int read_some(void *ctx, void *data, size_t len)
{
    tape_t *tape = ctx;
    if (tape->at >= tape->len)
        return CAKE_ENOSPC;
    size_t part = cake__min_u64(cake__min_u64(tape->len - tape->at, len), 10);
    memcpy(data, tape->bytes + tape->at, part);
    tape->at += part;
    return (int)part;
}

static void a_reader_that_fails_anywhere_is_reported(void **state)
{
    static tape_t tape, cut;
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set = some_set(), *back;
    config.actor = 78;
    tape.len = 0;
    assert_int_equal(cake_orswot_save(set, tape_write, &tape), 0);
    for (size_t len = 0; len < tape.len; len++) {
        cut = tape;
        cut.at = 0;
        cut.len = len;
        assert_int_equal(cake_orswot_load(&config, read_some, &cut, &back), CAKE_ENOSPC);
        assert_null(back);
    }
    cake_orswot_free(set);
}

/* ---- each allocation failed in turn ------------------------------------------------------------------------------ */

typedef struct countdown {
    uint64_t left; /* allocations until one fails; then all succeed again */
    bool has_failed;
} countdown_t;

static void *fail_nth(void *ctx, void *block, size_t size)
{
    countdown_t *countdown = ctx;
    if (size != 0 && countdown->left-- == 0) {
        countdown->has_failed = true;
        return NULL;
    }
    return cake__libc_alloc.resize(NULL, block, size);
}

/* A little of everything; every step is tried again after it failed, so the end must always be the same. */
static uint64_t scenario(countdown_t *countdown)
{
    const cake_alloc_t alloc = {fail_nth, countdown};
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *a, *b, *back;
    static tape_t tape;
    cake_record_t record;
    int err;
    config.alloc = &alloc;
    config.actor = 1;
    while ((err = cake_orswot_new(&config, &a)) != 0)
        assert_int_equal(err, CAKE_ENOMEM);
    config.actor = 2;
    while ((err = cake_orswot_new(&config, &b)) != 0)
        assert_int_equal(err, CAKE_ENOMEM);
    for (uint64_t i = 0; i < 60; i++) {
        cake_id_t id = cake_id_of_u64(i % 40);
        while ((err = i % 3 == 0 ? cake_orswot_delete(a, WALL_MS, &id, &record)
                                 : cake_orswot_insert(a, WALL_MS, &id, &record)) != 0)
            assert_int_equal(err, CAKE_ENOMEM);
        while (i % 4 != 1 && (err = cake_orswot_receive(b, WALL_MS, &record, CAKE_SOURCE_EAGER, NULL)) != 0)
            assert_int_equal(err, CAKE_ENOMEM);
    }
    const cake_orswot_t *none = NULL;
    while ((err = cake_orswot_purge(a, WALL_MS + 1, &none, 0, 0, 0, 5, NULL)) != 0)
        assert_int_equal(err, CAKE_ENOMEM);
    while ((err = cake_orswot_merge(a, b, WALL_MS + 1)) != 0)
        assert_int_equal(err, CAKE_ENOMEM);
    are_equal(a, b);
    cake__table_check(&a->table);
    cake__table_check(&b->table);
    do
        tape.len = 0;
    while ((err = cake_orswot_save(a, tape_write, &tape)) != 0 && err == CAKE_ENOMEM);
    assert_int_equal(err, 0);
    tape.piece = 100;
    config.actor = 9;
    do
        tape.at = 0;
    while ((err = cake_orswot_load(&config, tape_read, &tape, &back)) == CAKE_ENOMEM);
    assert_int_equal(err, 0);
    are_equal(a, back);
    uint64_t live = cake_orswot_live(a);
    cake_orswot_free(a);
    cake_orswot_free(b);
    cake_orswot_free(back);
    return live;
}

static void each_allocation_failed_in_turn_leaves_everything_as_it_was(void **state)
{
    countdown_t countdown = {UINT64_MAX, false};
    uint64_t expected = scenario(&countdown), tried = 0;
    do {
        countdown = (countdown_t){tried++, false};
        assert_int_equal(scenario(&countdown), expected);
    } while (countdown.has_failed);
    assert_true(tried > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_wins_at_once_and_a_delete_hides_it),
        cmocka_unit_test(verdicts_say_what_becomes_of_an_operation),
        cmocka_unit_test(an_actor_that_has_used_up_its_dots_writes_no_more),
        cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(many_inserts_and_iteration_and_diff),
        cmocka_unit_test(a_set_is_read_in_parts_of_any_size),
        cmocka_unit_test(an_empty_set_is_small),
        cmocka_unit_test(defect_1_tombstones_go_in_a_healthy_pair),
        cmocka_unit_test(defect_2_a_replica_that_missed_the_delete_loses_the_key_after_the_purge),
        cmocka_unit_test(defect_3_writes_of_one_origin_in_reverse_order),
        cmocka_unit_test(defect_4_removals_and_puts_of_one_batch_keep_their_order),
        cmocka_unit_test(defect_5_a_broadcast_before_the_bootstrap_loses_nothing),
        cmocka_unit_test(defect_6_writes_of_a_long_partition_are_taken),
        cmocka_unit_test(defect_7_one_stamp_far_ahead_stops_nobody),
        cmocka_unit_test(defect_8_after_a_restart_with_the_clock_behind_writes_win),
        cmocka_unit_test(a_set_is_the_same_after_saving_and_loading),
        cmocka_unit_test(altered_and_cut_bytes_are_refused),
        cmocka_unit_test(a_failing_writer_or_reader_is_reported),
        cmocka_unit_test(a_reader_that_fails_anywhere_is_reported),
        cmocka_unit_test(each_allocation_failed_in_turn_leaves_everything_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
