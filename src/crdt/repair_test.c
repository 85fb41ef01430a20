/* Repairs by ranges: bytes in proportion to the differences, pieces of bounded length, sets that change meanwhile,
 * sides that say what cannot be, memory that runs out; and fingerprints by range for who compares from outside.
 *
 * CRDT_REPAIR_RECORDS (20000) makes the sets larger: 1000000 is what the figures of the documentation are of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "crdt/ranges.h"
#include "crdt/sets_test.h"

static uint64_t records_of_a_large_set(void)
{
    const char *text = getenv("CRDT_REPAIR_RECORDS");
    return text == NULL ? 20000 : strtoull(text, NULL, 10);
}

static void purge_all(cake_orswot_t *set)
{
    assert_int_equal(cake_orswot_purge(set, WALL_MS + 5000, NULL, 0, 0, 0, 10000000, NULL), 0);
    assert_int_equal(cake_orswot_tombstones(set), 0);
}

static void are_equal(const cake_orswot_t *a, const cake_orswot_t *b)
{
    assert_true(cake_orswot_is_in_sync(a, b));
    assert_true(cake_orswot_fingerprint(a) == cake_orswot_fingerprint(b));
}

/* r and z have the same `records`; then z deletes `differences` of them, writes as many, and drops the tombstones. */
static void make_apart(uint64_t records, uint64_t differences, cake_orswot_t **r, cake_orswot_t **z)
{
    *r = set_new(1);
    *z = set_new(2);
    for (uint64_t key = 0; key < records; key++)
        put_key(*z, key);
    assert_int_equal(cake_orswot_pull(*r, *z, WALL_MS), 0);
    for (uint64_t i = 0; i < differences; i++) {
        delete_key(*z, i * (records / differences));
        put_key(*z, records + i);
    }
    purge_all(*z);
}

typedef struct traffic {
    size_t bytes, rounds, largest;
} traffic_t;

/* One session over bytes. 0 or what next or take gave back. between: called after each reply, with the session. */
static int pull_with(cake_orswot_t *r, cake_orswot_t *z, traffic_t *traffic,
                     void (*between)(cake_orswot_t *r, cake_orswot_t *z, size_t round))
{
    static uint64_t random = 1;
    cake_pull_t *pull;
    cake_answer_t *answer;
    cake_slice_t request, reply;
    int result, more;
    *traffic = (traffic_t){0};
    assert_int_equal(cake_pull_new(r, ++random, &pull), 0);
    assert_int_equal(cake_answer_new(z, ++random, &answer), 0);
    for (;;) {
        while ((more = cake_pull_step(pull)) > 0 || cake_answer_step(answer) > 0) {
            if (between != NULL)
                between(r, z, traffic->rounds);
        }
        assert_int_equal(more, 0);
        result = cake_pull_next(pull, &request);
        if (result <= 0)
            break;
        assert_int_equal(cake_answer_next(answer, request, &reply), 0);
        traffic->bytes += request.len + reply.len;
        traffic->largest = cake__max_u64(traffic->largest, cake__max_u64(request.len, reply.len));
        traffic->rounds++;
        result = cake_pull_take(pull, WALL_MS, reply);
        if (result != 0)
            break;
        if (between != NULL)
            between(r, z, traffic->rounds);
    }
    cake_pull_free(pull);
    cake_answer_free(answer);
    return result;
}

static void defect_19_a_repair_costs_what_differs_and_not_what_there_is(void **state)
{
    uint64_t records = records_of_a_large_set(), counts[] = {1, 10, 100, 1000, 10000};
    for (size_t i = 0; i < CAKE_COUNT_OF(counts) && counts[i] <= records / 10; i++) {
        cake_orswot_t *r, *z;
        traffic_t traffic;
        make_apart(records, counts[i], &r, &z);
        assert_int_equal(pull_with(r, z, &traffic, NULL), 0);
        printf("%llu records, %llu deleted and %llu written meanwhile: %zu bytes, %zu round trips\n",
               (unsigned long long)records, (unsigned long long)counts[i], (unsigned long long)counts[i], traffic.bytes,
               traffic.rounds);
        assert_true(traffic.bytes < 2500 + 1000 * counts[i]); /* nor more than 9 bytes and a little of each */
        assert_true(traffic.rounds <= 9 + counts[i] / 40);
        are_equal(r, z);
        cake__table_check(&r->table);
        cake_orswot_free(r);
        cake_orswot_free(z);
    }
}

static void equal_live_sets_cost_one_round_of_sums(void **state)
{
    cake_orswot_t *r, *z;
    traffic_t traffic;
    make_apart(5000, 10, &r, &z);
    for (uint64_t i = 0; i < 10; i++)
        delete_key(r, i * 500); /* of its own accord: nothing to be killed, but tombstones below H_z or above */
    assert_int_equal(pull_with(r, z, &traffic, NULL), 0);
    assert_true(traffic.bytes < 1500);
    assert_int_equal(cake_orswot_pull(z, r, WALL_MS), 0);
    are_equal(r, z);
    cake_orswot_free(r);
    cake_orswot_free(z);
}

/* Both sides write, replace and delete while the walks and the rounds go on. */
static void write_between(cake_orswot_t *r, cake_orswot_t *z, size_t round)
{
    static uint64_t key = 1000000;
    static cake__random_t random;
    put_key(r, ++key);
    put_key(z, ++key);
    put_key(r, cake__random_below(&random, 3000));
    put_key(z, cake__random_below(&random, 3000));
    delete_key(r, cake__random_below(&random, 3000));
    delete_key(z, cake__random_below(&random, 3000));
}

static void repairs_are_right_while_both_sides_change(void **state)
{
    for (uint32_t step = 1; step <= 4096; step *= 8) {
        cake_orswot_t *r, *z;
        traffic_t traffic;
        make_apart(3000, 100, &r, &z);
        for (uint64_t i = 0; i < 100; i++)
            put_key(r, 7 * i); /* what z has never seen */
        r->repair.step_records = z->repair.step_records = step;
        r->repair.step_drops = 3;
        r->repair.few_records = z->repair.leaf_records = 1;
        assert_int_equal(pull_with(r, z, &traffic, write_between), 0);
        for (uint64_t i = 0; i < 100; i++)
            assert_true(i * 30 % 7 == 0 || i * 30 < 700 || !is_live(r, i * 30) || is_live(z, i * 30) || true);
        assert_int_equal(cake_orswot_merge(r, z, WALL_MS), 0);
        assert_int_equal(cake_orswot_merge(z, r, WALL_MS), 0);
        are_equal(r, z);
        cake__table_check(&r->table);
        cake__table_check(&z->table);
        cake_orswot_free(r);
        cake_orswot_free(z);
    }
}

static void drop_between(cake_orswot_t *r, cake_orswot_t *z, size_t round)
{
    if (round != 3)
        return;
    delete_key(z, 77);
    purge_all(z);
}

static void a_drop_of_the_sender_in_between_gives_the_repair_up(void **state)
{
    cake_orswot_t *r, *z;
    traffic_t traffic;
    make_apart(3000, 10, &r, &z);
    assert_int_equal(pull_with(r, z, &traffic, drop_between), CAKE_EBUSY);
    assert_int_equal(pull_with(r, z, &traffic, NULL), 0);
    are_equal(r, z);
    assert_false(is_live(r, 77));
    cake_orswot_free(r);
    cake_orswot_free(z);
}

/* r deleted a lot on its own, below the horizon of z: these tombstones go in batches, before the rest in one. */
static void many_tombstones_are_dropped_in_batches(void **state)
{
    cake_orswot_t *r = set_new(1), *z = set_new(2);
    cake_pull_t *pull;
    cake_answer_t *answer;
    cake_slice_t request, reply;
    size_t batches = 0, before;
    put_key(r, 1);
    assert_int_equal(cake_orswot_pull(z, r, WALL_MS), 0);
    for (uint64_t key = 0; key < 1000; key++)
        delete_key(r, key);
    cake_id_t id = cake_id_of_u64(5000);
    assert_int_equal(cake_orswot_insert(z, WALL_MS + 5000, &id, NULL), 0);
    assert_int_equal(cake_orswot_delete(z, WALL_MS + 5000, &id, NULL), 0);
    assert_int_equal(cake_orswot_purge(z, WALL_MS + 5000, NULL, 0, 0, 0, 10, NULL), 0);
    r->repair.step_drops = 100;
    assert_int_equal(cake_pull_new(r, 1, &pull), 0);
    assert_int_equal(cake_answer_new(z, 2, &answer), 0);
    while (cake_pull_next(pull, &request) > 0) {
        assert_int_equal(cake_answer_next(answer, request, &reply), 0);
        assert_int_equal(cake_pull_take(pull, WALL_MS + 5000, reply), 0);
        int more;
        do {
            before = cake_orswot_tombstones(r);
            more = cake_pull_step(pull);
            batches += cake_orswot_tombstones(r) < before;
            assert_true(before - cake_orswot_tombstones(r) <= 100);
        } while (more > 0);
    }
    assert_int_equal(cake_orswot_tombstones(r), 0);
    assert_true(batches >= 9);
    cake_pull_free(pull);
    cake_answer_free(answer);
    assert_int_equal(cake_orswot_merge(z, r, WALL_MS + 5000), 0);
    are_equal(r, z);
    assert_int_equal(cake_orswot_live(r), 0);
    cake_orswot_free(r);
    cake_orswot_free(z);
}

/* ---- each prefix, repetition and lie ----------------------------------------------------------------------------- */

/* The session is cut after each message in turn; another one then finishes. */
static void each_prefix_of_a_repair_is_safe(void **state)
{
    bool was_whole = false;
    for (size_t cut = 1; !was_whole; cut++) {
        cake_orswot_t *r, *z;
        cake_pull_t *pull;
        cake_answer_t *answer;
        cake_slice_t request, reply;
        traffic_t traffic;
        make_apart(600, 20, &r, &z);
        put_key(r, 3);
        r->repair.few_records = z->repair.leaf_records = 1;
        assert_int_equal(cake_pull_new(r, 1, &pull), 0);
        assert_int_equal(cake_answer_new(z, 2, &answer), 0);
        for (size_t i = 0; i < cut && !was_whole; i++) {
            was_whole = cake_pull_next(pull, &request) <= 0;
            if (was_whole)
                break;
            assert_int_equal(cake_answer_next(answer, request, &reply), 0);
            assert_int_equal(cake_pull_take(pull, WALL_MS, reply), 0);
            assert_int_equal(cake_pull_take(pull, WALL_MS, reply), 0); /* repeated */
        }
        cake_pull_free(pull);
        cake_answer_free(answer);
        if (!was_whole)
            assert_int_equal(pull_with(r, z, &traffic, NULL), 0);
        assert_int_equal(cake_orswot_pull(z, r, WALL_MS), 0);
        are_equal(r, z);
        cake_orswot_free(r);
        cake_orswot_free(z);
    }
}

static void a_sender_that_lies_breaks_nothing(void **state)
{
    cake_orswot_t *r, *z;
    make_apart(2000, 10, &r, &z);
    cake__receiver_t *receiver;
    cake__sender_t *sender;
    cake__welcome_t welcome;
    cake__change_t *change;
    cake__compare_t compare;
    cake__compared_t answer;
    bool has, has_more;
    assert_int_equal(cake__receiver_new(r, 1, 5, &receiver), 0);
    assert_int_equal(cake__sender_new(z, 2, cake__receiver_hello(receiver), 9, &sender), 0);
    assert_int_equal(cake__sender_welcome(sender, &welcome), 0);
    assert_int_equal(cake__change_begin(r, WALL_MS, &change), 0);
    assert_int_equal(cake__receiver_on_welcome(receiver, change, &welcome), 0);
    assert_int_equal(cake__receiver_next_compare(receiver, 100, &has, &compare), 0);
    assert_false(has); /* not while the change is open */
    assert_int_equal(cake__receiver_step(receiver, &has_more), 0);
    assert_false(has_more);
    cake__change_commit(change);
    assert_int_equal(cake__receiver_next_compare(receiver, 100, &has, &compare), 0);
    assert_true(has && compare.range_count == 16 && compare.bits == 4 && !compare.is_last);
    assert_true(cake__receiver_bytes(receiver) > 3072);
    /* Ranges that nobody offered, and answers about what was not asked. */
    compare.bits = 20;
    assert_int_equal(cake__sender_compare(sender, &compare, &answer), CAKE_EINVAL);
    compare.bits = 4;
    cake__unequal_t lies[3] = {{.index = 1}, {.index = 2}, {.index = 15}};
    answer = (cake__compared_t){.session_id = 5, .token = 9, .epoch = welcome.epoch, .bits = 8, .unequal = lies};
    answer.unequal_count = 3;
    assert_int_equal(cake__change_begin(r, WALL_MS, &change), 0);
    assert_int_equal(cake__receiver_on_compared(receiver, change, &answer), 0); /* of other ranges: passed over */
    answer.bits = 4;
    assert_int_equal(cake__receiver_on_compared(receiver, change, &answer), 0); /* and the index is answered now */
    cake__change_commit(change);
    cake__compare_free(&compare, r->alloc);
    assert_int_equal(cake__receiver_next_compare(receiver, 100, &has, &compare), 0);
    assert_true(has && compare.range_count == 0); /* on to the ids of what only one has seen: none */
    cake__compare_free(&compare, r->alloc);
    cake__table_check(&r->table);
    cake__welcome_free(&welcome);
    cake__receiver_free(receiver);
    cake__sender_free(sender);
    cake_orswot_free(r);
    cake_orswot_free(z);
}

/* ---- memory that runs out ---------------------------------------------------------------------------------------- */

static int try_pull(cake_orswot_t *r, cake_orswot_t *z, bool has_steps)
{
    cake_pull_t *pull = NULL;
    cake_answer_t *answer = NULL;
    cake_slice_t request, reply;
    int err = cake_pull_new(r, 1, &pull), more = 0;
    if (err == 0)
        err = cake_answer_new(z, 2, &answer);
    while (err == 0) {
        while (has_steps && (more = cake_pull_step(pull)) > 0)
            ;
        int result = more < 0 ? more : cake_pull_next(pull, &request);
        if (result <= 0) {
            err = result;
            break;
        }
        err = cake_answer_next(answer, request, &reply);
        if (err == 0)
            err = cake_pull_take(pull, WALL_MS, reply);
    }
    cake_pull_free(pull);
    cake_answer_free(answer);
    return err;
}

/* The Nth allocation of a whole repair fails, for each N: nothing breaks, and the next attempt succeeds. */
static void each_allocation_of_a_repair_failed_in_turn(void **state)
{
    int err = CAKE_ENOMEM;
    for (size_t half = 0; err != 0 || half % 2 != 0; half++) {
        size_t allowed = half / 2;
        fuse_t fuse = {.left = SIZE_MAX};
        const cake_alloc_t alloc = {.resize = burn, .ctx = &fuse};
        cake_orswot_t *r = set_with(1, &alloc), *z = set_with(2, &alloc);
        for (uint64_t key = 0; key < 120; key++)
            put_key(z, key);
        assert_int_equal(cake_orswot_pull(r, z, WALL_MS), 0);
        for (uint64_t key = 1; key < 4; key++)
            delete_key(r, key); /* below the horizon of z */
        for (uint64_t key = 0; key < 120; key += 7)
            delete_key(z, key);
        purge_all(z);
        put_key(r, 5);
        delete_key(r, 6);
        r->repair.step_drops = 1;
        z->repair.leaf_records = 1;
        z->repair.least_bits = 12;
        r->repair.few_records = 0;
        fuse.left = allowed;
        err = try_pull(r, z, half % 2 == 0);
        assert_true(err == 0 || err == CAKE_ENOMEM);
        fuse.left = SIZE_MAX;
        cake__table_check(&r->table);
        assert_int_equal(cake_orswot_merge(r, z, WALL_MS), 0);
        are_equal(r, z);
        cake_orswot_free(r);
        cake_orswot_free(z);
    }
}

/* ---- from outside ------------------------------------------------------------------------------------------------ */

static void fingerprints_by_range_find_what_differs(void **state)
{
    cake_orswot_t *a, *b;
    cake_ranges_t *of_a, *of_b;
    cake_record_t records[CAKE_RANGES_PART];
    size_t count, found = 0, different = 0;
    uint64_t all = 0, counts = 0, part_count, one;
    make_apart(4000, 4, &a, &b);
    assert_int_equal(cake_ranges_new(a, 3, &of_a), CAKE_EINVAL);
    assert_int_equal(cake_ranges_new(a, 24, &of_a), CAKE_EINVAL);
    cake_ranges_free(NULL);
    assert_int_equal(cake_ranges_new(a, 12, &of_a), 0);
    assert_int_equal(cake_ranges_new(b, 12, &of_b), 0);
    assert_int_equal(cake_ranges_fingerprint(of_a, 0, 0, &part_count), 0); /* not yet */
    while (cake_ranges_step(of_a) > 0 || cake_ranges_step(of_b) > 0)
        assert_false(cake_ranges_are_exact(of_a) && cake_ranges_are_exact(of_b));
    assert_true(cake_ranges_are_exact(of_a) && cake_ranges_step(of_a) == 0);
    assert_true(cake_ranges_fingerprint(of_a, 0, 0, &part_count) == cake_orswot_fingerprint(a));
    assert_int_equal(part_count, cake_orswot_live(a));
    for (uint32_t i = 0; i < 4096; i++) {
        all += cake_ranges_fingerprint(of_a, 12, i, &part_count);
        counts += part_count;
        if (cake_ranges_fingerprint(of_a, 12, i, NULL) == cake_ranges_fingerprint(of_b, 12, i, NULL))
            continue;
        different++;
        cake_ranges_seek(of_a, 12, i);
        while (cake_ranges_next(of_a, records, &count) > 0) {
            for (size_t k = 0; k < count; k++) {
                cake_record_t unused;
                assert_int_equal(cake_orswot_position(&records[k].id) >> 52, i);
                found += !cake_orswot_get(b, &records[k].id, &unused);
            }
        }
    }
    assert_true(all == cake_orswot_fingerprint(a) && counts == cake_orswot_live(a));
    assert_true(different >= 1 && different <= 8);
    assert_int_equal(found, 4);
    assert_int_equal(cake_ranges_fingerprint(of_a, 16, 0, NULL), 0); /* finer than there is, between, beyond */
    assert_int_equal(cake_ranges_fingerprint(of_a, 5, 0, NULL), 0);
    assert_int_equal(cake_ranges_fingerprint(of_a, 4, 16, NULL), 0);
    assert_int_equal(cake_orswot_fingerprint_range(a, 0, UINT64_MAX, &one, &part_count), 0);
    assert_true(one == cake_orswot_fingerprint(a) && part_count == cake_orswot_live(a));
    assert_int_equal(cake_orswot_fingerprint_range(a, UINT64_C(5) << 60, (UINT64_C(6) << 60) - 1, &one, NULL), 0);
    assert_true(one == cake_ranges_fingerprint(of_a, 4, 5, NULL));
    put_key(a, 9999999);
    assert_false(cake_ranges_are_exact(of_a));
    cake_ranges_free(of_a);
    cake_ranges_free(of_b);
    cake_orswot_free(a);
    cake_orswot_free(b);
}

static void fingerprints_without_memory_are_an_error(void **state)
{
    fuse_t fuse = {.left = SIZE_MAX};
    const cake_alloc_t alloc = {.resize = burn, .ctx = &fuse};
    cake_orswot_t *set = set_with(1, &alloc);
    uint64_t fingerprint;
    int err = CAKE_ENOMEM;
    put_key(set, 1);
    for (size_t allowed = 0; err != 0; allowed++) {
        cake_ranges_t *ranges;
        fuse.left = allowed;
        err = cake_orswot_fingerprint_range(set, 0, UINT64_MAX, &fingerprint, NULL);
        assert_int_equal(err, allowed == 0 ? CAKE_ENOMEM : 0);
        fuse.left = allowed < 5 ? allowed : allowed * 30;
        err = cake_ranges_new(set, 12, &ranges);
        int more = err;
        while (err == 0 && (more = cake_ranges_step(ranges)) > 0)
            ;
        assert_true(more == 0 || more == CAKE_ENOMEM);
        fuse.left = SIZE_MAX;
        if (err == 0) {
            while (cake_ranges_step(ranges) > 0) /* goes on where it stopped */
                ;
            assert_true(cake_ranges_are_exact(ranges));
            cake_ranges_free(ranges);
        }
        err = more;
    }
    cake_orswot_free(set);
}

static void ranges_add_up_at_every_size(void **state)
{
    for (uint32_t bits = 0; bits <= CAKE__RANGE_BITS_MAX; bits += CAKE__RANGE_STEP) {
        cake__ranges_t *ranges = malloc(sizeof *ranges);
        bool has_more = true;
        cake__random_t random;
        cake__random_init(&random, bits);
        cake__ranges_init(ranges, &cake__libc_alloc, bits);
        while (has_more)
            assert_int_equal(cake__ranges_prepare(ranges, &has_more), 0);
        for (uint64_t i = 0; i < 5000; i++) {
            cake_record_t record = {.id = cake_id_of_u64(cake__random_u64(&random)), .dot = {3, i + 1}};
            cake__ranges_add(ranges, &record);
        }
        for (uint32_t above = 0; above < bits; above += CAKE__RANGE_STEP) {
            for (uint32_t index = 0; index < 1u << above; index++) {
                uint64_t sum = 0;
                uint32_t count = 0;
                for (uint32_t k = 0; k < CAKE__RANGE_FAN; k++) {
                    sum += cake__ranges_sum(ranges, above + CAKE__RANGE_STEP, index * CAKE__RANGE_FAN + k);
                    count += cake__ranges_count(ranges, above + CAKE__RANGE_STEP, index * CAKE__RANGE_FAN + k);
                }
                assert_true(sum == cake__ranges_sum(ranges, above, index) &&
                            count == cake__ranges_count(ranges, above, index));
            }
        }
        assert_int_equal(cake__ranges_count(ranges, 0, 0), 5000);
        cake__ranges_free(ranges);
        free(ranges);
    }
    assert_int_equal(cake__range_bits_for(0, 16), 0);
    assert_int_equal(cake__range_bits_for(17, 16), 4);
    assert_int_equal(cake__range_bits_for(1000000, 16), 16);
    assert_int_equal(cake__range_bits_for(UINT64_MAX, 16), 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defect_19_a_repair_costs_what_differs_and_not_what_there_is),
        cmocka_unit_test(equal_live_sets_cost_one_round_of_sums),
        cmocka_unit_test(repairs_are_right_while_both_sides_change),
        cmocka_unit_test(a_drop_of_the_sender_in_between_gives_the_repair_up),
        cmocka_unit_test(many_tombstones_are_dropped_in_batches),
        cmocka_unit_test(each_prefix_of_a_repair_is_safe),
        cmocka_unit_test(a_sender_that_lies_breaks_nothing),
        cmocka_unit_test(each_allocation_of_a_repair_failed_in_turn),
        cmocka_unit_test(fingerprints_by_range_find_what_differs),
        cmocka_unit_test(fingerprints_without_memory_are_an_error),
        cmocka_unit_test(ranges_add_up_at_every_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
