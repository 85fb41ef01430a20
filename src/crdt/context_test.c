/* Contexts against plain sets of dots; codecs: canonical and strict. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "crdt/context.h"

#define ACTORS 3u
#define SEQS   24u

typedef struct plain {
    bool has[ACTORS][SEQS + 1];
} plain_t;

static void add_random(cake__context_t *context, plain_t *plain, cake__random_t *random)
{
    uint64_t actor = cake__random_below(random, ACTORS), first = 1 + cake__random_below(random, SEQS);
    uint64_t last = cake__random_below(random, 2) == 0 ? first : first + cake__random_below(random, SEQS + 1 - first);
    assert_int_equal(cake__context_add_run(context, actor * 7, first, last), 0);
    for (uint64_t seq = first; seq <= last; seq++)
        plain->has[actor][seq] = true;
}

static uint64_t check_equal(const cake__context_t *context, const plain_t *plain)
{
    uint64_t count = 0, actor, before_actor = 0, before_last = 0;
    for (uint64_t a = 0; a < ACTORS; a++) {
        uint64_t highest = 0, base = 0;
        for (uint64_t seq = 1; seq <= SEQS; seq++) {
            assert_int_equal(cake__context_contains(context, (cake_dot_t){a * 7, seq}), plain->has[a][seq]);
            count += plain->has[a][seq];
            highest = plain->has[a][seq] ? seq : highest;
            base = plain->has[a][seq] && base == seq - 1 ? seq : base;
        }
        assert_int_equal(cake__context_highest(context, a * 7), highest);
        assert_int_equal(cake__context_base(context, a * 7), base);
    }
    assert_int_equal(cake__context_count(context), count);
    assert_int_equal(cake__context_is_empty(context), count == 0);
    cake__context_cursor_t cursor = {0};
    cake__run_t run;
    while (cake__context_next(context, &cursor, &actor, &run)) {
        assert_true(before_last == 0 || actor > before_actor || run.first > before_last + 1);
        count -= run.last - run.first + 1;
        before_actor = actor;
        before_last = run.last;
    }
    assert_int_equal(count, 0);
    return count;
}

static bool plain_covers(const plain_t *a, const plain_t *b, const uint64_t limits[ACTORS])
{
    for (uint64_t actor = 0; actor < ACTORS; actor++) {
        for (uint64_t seq = 1; seq <= SEQS && seq <= limits[actor]; seq++) {
            if (b->has[actor][seq] && !a->has[actor][seq])
                return false;
        }
    }
    return true;
}

static void check_gaps(const cake__context_t *a, const cake__context_t *b, const plain_t *x, const plain_t *y)
{
    for (uint64_t actor = 0; actor < ACTORS; actor++) {
        const cake__actor_dots_t *have = cake__context_find(a, actor * 7);
        uint64_t from = 1, expected = 0, found = 0;
        cake__run_t gap;
        for (uint64_t seq = 1; seq <= SEQS; seq++)
            expected += x->has[actor][seq] && !y->has[actor][seq];
        while (have != NULL && cake__actor_dots_gap(have, cake__context_find(b, actor * 7), from, &gap)) {
            for (uint64_t seq = gap.first; seq <= gap.last; seq++, found++)
                assert_true(x->has[actor][seq] && !y->has[actor][seq]);
            from = gap.last + 1;
        }
        assert_int_equal(found, expected);
    }
}

static void check_round_trip(const cake__context_t *context)
{
    cake__buf_t buf, again;
    cake__context_t back;
    cake__buf_init(&buf, &cake__libc_alloc);
    cake__buf_init(&again, &cake__libc_alloc);
    cake__context_init(&back, &cake__libc_alloc);
    cake__context_encode(context, &buf);
    cake__reader_t reader = cake__reader(buf.data, buf.len);
    assert_int_equal(cake__context_decode(&back, &reader), 0);
    assert_true(cake__reader_done(&reader) && cake__context_equal(context, &back));
    assert_true(cake__context_hash(context) == cake__context_hash(&back));
    cake__context_encode(&back, &again);
    assert_int_equal(again.len, buf.len);
    assert_memory_equal(again.data, buf.data, buf.len);
    for (size_t len = 0; len < buf.len; len++) {
        reader = cake__reader(buf.data, len);
        assert_int_equal(cake__context_decode(&back, &reader), CAKE_EPARSE);
        assert_true(cake__context_is_empty(&back));
    }
    cake__context_free(&back);
    cake__buf_free(&buf);
    cake__buf_free(&again);
}

static void contexts_are_sets_of_dots(void **state)
{
    const uint64_t everything[ACTORS] = {SEQS, SEQS, SEQS};
    cake__random_t random;
    cake__random_init(&random, 1);
    for (int round = 0; round < 4000; round++) {
        cake__context_t contexts[2], copy;
        cake__limits_t limits;
        plain_t plain[2];
        uint64_t plain_limits[ACTORS] = {0};
        memset(plain, 0, sizeof plain);
        cake__limits_init(&limits, &cake__libc_alloc);
        for (int i = 0; i < 2; i++) {
            cake__context_init(&contexts[i], &cake__libc_alloc);
            for (uint64_t k = cake__random_below(&random, 12); k > 0; k--)
                add_random(&contexts[i], &plain[i], &random);
            check_equal(&contexts[i], &plain[i]);
            check_round_trip(&contexts[i]);
        }
        for (uint64_t actor = 0; actor < ACTORS; actor++) {
            plain_limits[actor] = cake__random_below(&random, SEQS);
            if (plain_limits[actor] > 0)
                assert_int_equal(cake__limits_raise(&limits, actor * 7, plain_limits[actor]), 0);
        }
        assert_int_equal(cake__context_covers(&contexts[0], &contexts[1]),
                         plain_covers(&plain[0], &plain[1], everything));
        assert_int_equal(cake__dropped_is_covered(&contexts[1], &limits, &contexts[0]),
                         plain_covers(&plain[0], &plain[1], plain_limits));
        assert_int_equal(cake__context_equal(&contexts[0], &contexts[1]),
                         memcmp(&plain[0], &plain[1], sizeof plain[0]) == 0);
        check_gaps(&contexts[0], &contexts[1], &plain[0], &plain[1]);
        cake__context_init(&copy, &cake__libc_alloc);
        assert_int_equal(cake__context_copy(&copy, &contexts[0]), 0);
        assert_int_equal(cake__context_join(&contexts[0], &contexts[1]), 0);
        assert_true(cake__context_covers(&contexts[0], &copy) && cake__context_covers(&contexts[0], &contexts[1]));
        for (uint64_t actor = 0; actor < ACTORS; actor++) {
            for (uint64_t seq = 0; seq <= SEQS; seq++)
                plain[0].has[actor][seq] |= plain[1].has[actor][seq];
        }
        check_equal(&contexts[0], &plain[0]);
        check_round_trip(&contexts[0]);
        for (int i = 0; i < 2; i++)
            cake__context_free(&contexts[i]);
        cake__context_free(&copy);
        cake__limits_free(&limits);
    }
}

static int decode(const uint8_t *bytes, size_t len)
{
    cake__context_t out;
    cake__context_init(&out, &cake__libc_alloc);
    cake__reader_t reader = cake__reader(bytes, len);
    int err = cake__context_decode(&out, &reader);
    cake__context_free(&out);
    return err;
}

static void a_context_that_cannot_be_is_refused(void **state)
{
    const uint8_t fine[] = {1, 5, 0, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0, 0};
    const uint8_t no_dots[] = {1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    const uint8_t form_3[] = {1, 5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 3};
    const uint8_t with_table[] = {1, 5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1, 1, 5, 0, 0, 0, 0, 0, 0, 0, 2};
    const uint8_t as_table[] = {1, 5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1, 1, 5, 0, 0, 0, 0, 0, 0, 0, 3};
    const uint8_t empty_table[] = {1, 5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0};
    const uint8_t many_retired[] = {1, 5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0xff, 0xff, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    const uint8_t zero_retired[] = {0, 1, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0};
    const uint8_t unsorted_retired[] = {0, 1, 2, 5, 0, 0, 0, 0, 0, 0, 0, 1, 5, 0, 0, 0, 0, 0, 0, 0, 1};
    const uint8_t reference[] = {0, 2, 5, 0, 0, 0, 0, 0, 0, 0};
    const uint8_t no_reference[] = {0, 2, 0, 0, 0, 0, 0, 0, 0, 0};
    const uint8_t unsorted[] = {2, 5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0};
    const uint8_t twice[] = {2, 5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0};
    const uint8_t many_actors[] = {0xff, 0xff, 0xff, 0xff, 0x0f};
    const uint8_t many_ranges[] = {1, 5, 0, 0, 0, 0, 0, 0, 0, 3, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0};
    const uint8_t padded[] = {1, 5, 0, 0, 0, 0, 0, 0, 0, 0x83, 0x00, 0};
    const uint8_t huge_seq[] = {1,    5,    0,    0,    0,    0,    0,    0,    0,    0xff,
                                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0};
    const uint8_t wrapping[] = {1, 5,    0,    0,    0,    0,    0,    0,    0,    3,   1,
                                0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10};
    const uint8_t long_range[] = {1, 5,    0,    0,    0,    0,    0,    0,    0,    3,   1,
                                  0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20};
    const uint8_t huge_retired[] = {0, 1,    1,    5,    0,    0,    0,    0,    0,    0,
                                    0, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10};
    assert_int_equal(decode(long_range, sizeof long_range), CAKE_EPARSE);
    assert_int_equal(decode(huge_retired, sizeof huge_retired), CAKE_EPARSE);
    for (size_t len = 0; len < sizeof fine; len++)
        assert_int_equal(decode(fine, len), CAKE_EPARSE);
    for (size_t len = 0; len < sizeof with_table; len++)
        assert_int_equal(decode(with_table, len), CAKE_EPARSE);
    for (size_t len = 0; len < sizeof reference; len++)
        assert_int_equal(decode(reference, len), CAKE_EPARSE);
    assert_int_equal(decode(form_3, sizeof form_3), CAKE_EPARSE);
    assert_int_equal(decode(with_table, sizeof with_table), 0);
    assert_int_equal(decode(as_table, sizeof as_table), CAKE_EPARSE);
    assert_int_equal(decode(empty_table, sizeof empty_table), CAKE_EPARSE);
    assert_int_equal(decode(many_retired, sizeof many_retired), CAKE_EPARSE);
    assert_int_equal(decode(zero_retired, sizeof zero_retired), CAKE_EPARSE);
    assert_int_equal(decode(unsorted_retired, sizeof unsorted_retired), CAKE_EPARSE);
    assert_int_equal(decode(reference, sizeof reference), 0);
    assert_int_equal(decode(no_reference, sizeof no_reference), CAKE_EPARSE);
    assert_int_equal(decode(fine, sizeof fine), 0);
    assert_int_equal(decode(no_dots, sizeof no_dots), CAKE_EPARSE);
    assert_int_equal(decode(unsorted, sizeof unsorted), CAKE_EPARSE);
    assert_int_equal(decode(twice, sizeof twice), CAKE_EPARSE);
    assert_int_equal(decode(many_actors, sizeof many_actors), CAKE_ETOOBIG);
    assert_int_equal(decode(many_ranges, sizeof many_ranges), CAKE_EPARSE);
    assert_int_equal(decode(padded, sizeof padded), CAKE_EPARSE);
    assert_int_equal(decode(huge_seq, sizeof huge_seq), CAKE_EPARSE);
    assert_int_equal(decode(wrapping, sizeof wrapping), CAKE_EPARSE);
}

static void a_limit_that_cannot_be_is_refused(void **state)
{
    uint8_t bytes[] = {2, 0, 0, 1, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0};
    uint8_t huge[] = {2,    0,    0,    1,    5,    0,    0, 0, 0, 0, 0, 0, 0x81, 0x80, 0x80,
                      0x80, 0x80, 0x80, 0x80, 0x80, 0x10, 0, 0, 0, 0, 0, 0, 0,    0};
    cake__summary_t back;
    cake__summary_init(&back, &cake__libc_alloc);
    cake__reader_t reader = cake__reader(bytes, sizeof bytes);
    assert_int_equal(cake__summary_decode(&back, &reader), 0);
    assert_int_equal(cake__limits_get(&back.dropped, 5), 1);
    bytes[12] = 0;
    reader = cake__reader(bytes, sizeof bytes);
    assert_int_equal(cake__summary_decode(&back, &reader), CAKE_EPARSE);
    reader = cake__reader(huge, sizeof huge);
    assert_int_equal(cake__summary_decode(&back, &reader), CAKE_EPARSE);
    assert_int_equal(back.dropped.count, 0);
}

static void summaries_round_trip_and_cut_ones_are_refused(void **state)
{
    cake__summary_t summary, back;
    cake__buf_t buf;
    cake__buf_init(&buf, &cake__libc_alloc);
    cake__summary_init(&summary, &cake__libc_alloc);
    cake__summary_init(&back, &cake__libc_alloc);
    assert_int_equal(cake__context_add_run(&summary.context, 9, 1, 500), 0);
    assert_int_equal(cake__context_add_run(&summary.context, 4, 3, 3), 0);
    assert_int_equal(cake__limits_raise(&summary.dropped, 9, 300), 0);
    assert_int_equal(cake__limits_raise(&summary.dropped, 3, 1), 0);
    summary.horizon = 77;
    cake__summary_encode(&summary, &buf);
    cake__reader_t reader = cake__reader(buf.data, buf.len);
    assert_int_equal(cake__summary_decode(&back, &reader), 0);
    assert_true(cake__reader_done(&reader) && back.horizon == 77 && back.dropped.count == 2);
    assert_true(cake__context_equal(&summary.context, &back.context) && cake__limits_get(&back.dropped, 9) == 300);
    for (size_t len = 0; len < buf.len; len++) {
        reader = cake__reader(buf.data, len);
        assert_int_equal(cake__summary_decode(&back, &reader), CAKE_EPARSE);
        assert_true(cake__context_is_empty(&back.context) && back.dropped.count == 0 && back.horizon == 0);
    }
    buf.data[0] = 1;
    reader = cake__reader(buf.data, buf.len);
    assert_int_equal(cake__summary_decode(&back, &reader), CAKE_EVERSION);
    cake__summary_free(&summary);
    cake__summary_free(&back);
    cake__buf_free(&buf);
}

static void *fail_now_and_then(void *ctx, void *block, size_t size)
{
    if (size != 0 && cake__random_below(ctx, 3) == 0)
        return NULL;
    return cake__libc_alloc.resize(NULL, block, size);
}

static void a_failed_allocation_changes_nothing(void **state)
{
    cake__random_t random, coin;
    const cake_alloc_t alloc = {fail_now_and_then, &coin};
    cake__random_init(&random, 2);
    cake__random_init(&coin, 3);
    for (int round = 0; round < 3000; round++) {
        cake__context_t a, b, before;
        cake__context_init(&a, &alloc);
        cake__context_init(&b, &cake__libc_alloc);
        cake__context_init(&before, &cake__libc_alloc);
        for (uint64_t i = cake__random_below(&random, 20); i > 0; i--) {
            uint64_t first = 1 + cake__random_below(&random, 50);
            (void)cake__context_add_run(&a, cake__random_below(&random, 5), first, first + 2);
            assert_int_equal(cake__context_add(&b, (cake_dot_t){cake__random_below(&random, 5), first + 5}), 0);
        }
        assert_int_equal(cake__context_copy(&before, &a), 0);
        int err = cake__context_join(&a, &b);
        assert_true(err == 0 ? cake__context_covers(&a, &b) : cake__context_equal(&a, &before));
        assert_int_equal(cake__context_copy(&before, &a), 0);
        if (cake__context_add(&a, (cake_dot_t){cake__random_below(&random, 9), 99}) != 0)
            assert_true(cake__context_equal(&a, &before));
        if (cake__context_copy(&a, &b) != 0)
            assert_true(cake__context_equal(&a, &before) || cake__context_contains(&a, (cake_dot_t){0, 0}) ||
                        cake__context_covers(&a, &before));
        cake__context_free(&a);
        cake__context_free(&b);
        cake__context_free(&before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contexts_are_sets_of_dots),
        cmocka_unit_test(a_context_that_cannot_be_is_refused),
        cmocka_unit_test(a_limit_that_cannot_be_is_refused),
        cmocka_unit_test(summaries_round_trip_and_cut_ones_are_refused),
        cmocka_unit_test(a_failed_allocation_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
