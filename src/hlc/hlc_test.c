#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <datacake/hlc.h>

#include "base/random.h"

#define WALL_MS UINT64_C(1795342830123)
#define DAY_MS  UINT64_C(86400000)

static void stamps_grow_while_the_wall_clock_stands_or_goes_back(void **state)
{
    cake_clock_t clock;
    cake_hlc_t ts, before = 0;
    cake_clock_init(&clock, 0, 0);
    for (uint64_t i = 0; i < 1000; i++) {
        assert_int_equal(cake_clock_now(&clock, WALL_MS - i, &ts), 0);
        assert_true(ts > before);
        assert_int_equal(cake_hlc_unix_ms(ts), WALL_MS);
        assert_int_equal(cake_hlc_counter(ts), i);
        before = ts;
    }
    assert_int_equal(cake_clock_now(&clock, WALL_MS + 1, &ts), 0);
    assert_int_equal(ts, cake_hlc_from_parts(WALL_MS + 1, 0));
    assert_int_equal(cake_clock_last(&clock), ts);
}

static void parts_and_order(void **state)
{
    cake_hlc_t a = cake_hlc_from_parts(5, 0xffff), b = cake_hlc_from_parts(6, 0);
    assert_int_equal(a + 1, b);
    assert_int_equal(cake_hlc_compare(a, b), -1);
    assert_int_equal(cake_hlc_compare(b, a), 1);
    assert_int_equal(cake_hlc_compare(a, a), 0);
    assert_int_equal(cake_hlc_unix_ms(a), 5);
    assert_int_equal(cake_hlc_counter(a), 0xffff);
    assert_int_equal(cake_hlc_unix_ms(cake_hlc_from_parts(UINT64_MAX, 7)), CAKE_HLC_MAX_MS);
}

static void a_full_counter_carries_into_the_milliseconds(void **state)
{
    cake_clock_t clock;
    cake_hlc_t ts;
    cake_clock_init(&clock, 0, cake_hlc_from_parts(WALL_MS, 0xfffe));
    assert_int_equal(cake_clock_now(&clock, WALL_MS, &ts), 0);
    assert_int_equal(ts, cake_hlc_from_parts(WALL_MS, 0xffff));
    assert_int_equal(cake_clock_now(&clock, WALL_MS, &ts), 0);
    assert_int_equal(ts, cake_hlc_from_parts(WALL_MS + 1, 0));
}

static void later_stamps_are_above_an_observed_one(void **state)
{
    cake_clock_t clock;
    cake_hlc_t ts, theirs = cake_hlc_from_parts(WALL_MS + 60000, 9);
    cake_clock_init(&clock, 0, 0);
    assert_int_equal(cake_clock_observe(&clock, WALL_MS, theirs), 0);
    assert_int_equal(cake_clock_observe(&clock, WALL_MS, cake_hlc_from_parts(5, 5)), 0);
    assert_int_equal(cake_clock_last(&clock), theirs);
    assert_int_equal(cake_clock_now(&clock, WALL_MS, &ts), 0);
    assert_int_equal(ts, theirs + 1);
}

static void a_stamp_beyond_the_drift_is_refused_and_changes_nothing(void **state)
{
    cake_clock_t clock;
    cake_hlc_t ts = 77;
    cake_clock_init(&clock, 100, 0);
    assert_int_equal(cake_clock_now(&clock, WALL_MS, &ts), 0);
    cake_hlc_t last = ts;
    assert_int_equal(cake_clock_observe(&clock, WALL_MS, cake_hlc_from_parts(WALL_MS + 101, 0)), CAKE_EDRIFT);
    assert_int_equal(cake_clock_last(&clock), last);
    assert_int_equal(cake_clock_observe(&clock, WALL_MS, cake_hlc_from_parts(WALL_MS + 100, 0xffff)), 0);
    last = cake_clock_last(&clock);
    assert_int_equal(cake_clock_now(&clock, WALL_MS, &ts), CAKE_EDRIFT);
    assert_int_equal(cake_clock_last(&clock), last);
    assert_int_equal(cake_clock_now(&clock, WALL_MS + 1, &ts), 0);
    assert_int_equal(ts, cake_hlc_from_parts(WALL_MS + 101, 0));
    cake_clock_advance(&clock, cake_hlc_from_parts(WALL_MS + DAY_MS, 0));
    assert_int_equal(cake_clock_now(&clock, WALL_MS, &ts), CAKE_EDRIFT);
}

static void the_last_stamp_of_all_does_not_wrap(void **state)
{
    cake_clock_t clock;
    cake_hlc_t ts = 1;
    cake_clock_init(&clock, 0, UINT64_MAX - 1);
    assert_int_equal(cake_clock_now(&clock, CAKE_HLC_MAX_MS, &ts), 0);
    assert_true(ts == UINT64_MAX);
    assert_int_equal(cake_clock_now(&clock, CAKE_HLC_MAX_MS, &ts), CAKE_EDRIFT);
    assert_true(cake_clock_last(&clock) == UINT64_MAX);
}

/* inventory 9: overflow of the counter after 65,534 stamps when a peer is ahead: the clock dies */
static void defect_9_counter_overflow_with_a_peer_ahead(void **state)
{
    cake_clock_t clock;
    cake_hlc_t ts, before;
    cake_clock_init(&clock, 0, 0);
    before = cake_hlc_from_parts(WALL_MS + 1000, 1);
    assert_int_equal(cake_clock_observe(&clock, WALL_MS, before), 0);
    for (int i = 0; i < 200000; i++) {
        assert_int_equal(cake_clock_now(&clock, WALL_MS, &ts), 0);
        assert_int_equal(ts, before + 1);
        before = ts;
    }
}

/* inventory 8: a restart with the clock behind its own history */
static void defect_8_restart_with_the_clock_behind_its_history(void **state)
{
    cake_clock_t clock;
    cake_hlc_t ts, bound = cake_hlc_from_parts(WALL_MS + 10000, 0);
    cake_clock_init(&clock, 0, bound);
    assert_int_equal(cake_clock_now(&clock, WALL_MS - 30000, &ts), 0);
    assert_true(ts > bound);
    /* A day behind: refused until the wall clock is back, never stamped below the history. */
    assert_int_equal(cake_clock_now(&clock, WALL_MS - DAY_MS, &ts), CAKE_EDRIFT);
    assert_int_equal(cake_clock_now(&clock, WALL_MS, &ts), 0);
    assert_true(ts > bound + 1);
}

/* inventory 7: one operation stamped 24 h ahead makes all later writes of its origin refused */
static void defect_7_a_stamp_24_hours_ahead_is_refused_here(void **state)
{
    cake_clock_t clock;
    cake_hlc_t ts;
    cake_clock_init(&clock, 0, 0);
    assert_int_equal(cake_clock_observe(&clock, WALL_MS, cake_hlc_from_parts(WALL_MS + DAY_MS, 0)), CAKE_EDRIFT);
    assert_int_equal(cake_clock_now(&clock, WALL_MS, &ts), 0);
    assert_int_equal(cake_hlc_unix_ms(ts), WALL_MS);
    assert_int_equal(cake_clock_observe(&clock, WALL_MS, cake_hlc_from_parts(WALL_MS - DAY_MS, 0)), 0);
    assert_int_equal(cake_clock_now(&clock, WALL_MS - DAY_MS, &ts), CAKE_EDRIFT);
    assert_int_equal(cake_clock_now(&clock, WALL_MS + DAY_MS, &ts), 0);
    assert_int_equal(cake_hlc_unix_ms(ts), WALL_MS + DAY_MS);
}

static void round_trips(cake_hlc_t ts, const char *expected)
{
    char text[CAKE_HLC_TEXT_MAX];
    cake_hlc_t back = 0;
    int len = cake_hlc_format(ts, text, sizeof text);
    assert_int_equal(len, strlen(text));
    if (expected != NULL)
        assert_string_equal(text, expected);
    assert_int_equal(cake_hlc_parse(text, &back), 0);
    assert_true(back == ts);
}

static void every_stamp_round_trips_as_text(void **state)
{
    round_trips(0, "1970-01-01T00:00:00.000Z+0000");
    round_trips(cake_hlc_from_parts(WALL_MS, 0x42), "2026-11-22T10:20:30.123Z+0042");
    round_trips(cake_hlc_from_parts(UINT64_C(951782400000), 0xffff), "2000-02-29T00:00:00.000Z+ffff");
    round_trips(cake_hlc_from_parts(UINT64_C(4107542399999), 1), "2100-02-28T23:59:59.999Z+0001");
    round_trips(cake_hlc_from_parts(UINT64_C(4107542400000), 1), "2100-03-01T00:00:00.000Z+0001");
    round_trips(cake_hlc_from_parts(UINT64_C(253402300799999), 0), "9999-12-31T23:59:59.999Z+0000");
    round_trips(cake_hlc_from_parts(UINT64_C(253402300800000), 0), "10000-01-01T00:00:00.000Z+0000");
    round_trips(UINT64_MAX, "10889-08-02T05:31:50.655Z+ffff");
    cake__random_t random;
    cake__random_init(&random, 1);
    for (int i = 0; i < 100000; i++)
        round_trips(cake__random_u64(&random), NULL);
}

static void text_that_does_not_fit_is_not_written(void **state)
{
    char text[CAKE_HLC_TEXT_MAX] = "unchanged";
    assert_int_equal(cake_hlc_format(0, text, 29), CAKE_ETOOBIG);
    assert_string_equal(text, "unchanged");
    assert_int_equal(cake_hlc_format(0, text, 30), 29);
}

static void the_parser_rejects_everything_else(void **state)
{
    static const char *const bad[] = {
        "",
        "2026",
        "-",
        "2026-11-22",
        "2026-11-22T10:20:30.123Z",
        "2026-11-22T10:20:30.123Z+004",
        "2026-11-22T10:20:30.123Z+00420",
        "2026-11-22T10:20:30.123Z+004g",
        "2026-11-22T10:20:30.123Z+00AB",
        "2026-11-22T10:20:30.123Z 0042",
        "2026-11-22T10:20:30.123+0042",
        "2026-11-22t10:20:30.123Z+0042",
        "2026-11-22T10:20:30,123Z+0042",
        "2026-13-22T10:20:30.123Z+0042",
        "2026-00-22T10:20:30.123Z+0042",
        "2026-11-31T10:20:30.123Z+0042",
        "2026-11-00T10:20:30.123Z+0042",
        "2026-02-29T10:20:30.123Z+0042",
        "2026-11-22T24:20:30.123Z+0042",
        "2026-11-22T10:60:30.123Z+0042",
        "2026-11-22T10:20:60.123Z+0042",
        "1969-12-31T23:59:59.999Z+0000",
        "02026-11-22T10:20:30.123Z+0042",
        "10889-08-02T05:31:50.656Z+0000",
        "99999-12-31T23:59:59.999Z+0000",
        "999999-12-31T23:59:59.999Z+0000",
        " 2026-11-22T10:20:30.123Z+0042",
        "2026-11-22T10:20:30.123Z+0042 ",
        "2026-11-22T10:20:3a.123Z+0042",
        "2026-11-22T10-20:30.123Z+0042",
        "2026-1122T10:20:30.123Z+0042",
        "2026-11-22T1020:30.123Z+0042",
        "202a-11-22T10:20:30.123Z+0042",
        "2026-11-22T10:20:30.12Z+0042",
        "2026-11-22T10:20:30.1234Z+0042",
        "2026-11-22T10:20:30.123Z-0042",
    };
    cake_hlc_t out = 5;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(cake_hlc_parse(bad[i], &out), CAKE_EPARSE);
        assert_int_equal(out, 5);
    }
    static const char wrong[] = "x:-.+ 9z";
    for (size_t at = 0; at < strlen("2026-11-22T10:20:30.123Z+0042"); at++) {
        for (const char *with = wrong; *with != 0; with++) {
            char text[] = "2026-11-22T10:20:30.123Z+0042", again[CAKE_HLC_TEXT_MAX];
            text[at] = *with;
            bool is_exact = cake_hlc_parse(text, &out) == 0;
            if (is_exact)
                assert_true(cake_hlc_format(out, again, sizeof again) > 0 && strcmp(text, again) == 0);
        }
    }
    assert_int_equal(cake_hlc_parse(NULL, &out), CAKE_EPARSE);
}

/* A process that crashes after every stamp, on clocks that jump by a day: no stamp is used twice or goes back. */
static void restarts_begin_above_the_persisted_bound(void **state)
{
    static const int64_t jumps_ms[] = {0, 20000, -86400000, 3, -3, 30000, -20000, 0};
    cake_hlc_t bound = 0, before = 0;
    int refused = 0, bounds = 0;
    uint64_t wall_ms = WALL_MS;
    for (int run = 0; run < 400; run++) {
        cake_clock_t clock;
        cake_clock_init(&clock, 0, bound);
        wall_ms += 5000;
        uint64_t skewed_ms = (uint64_t)((int64_t)wall_ms + jumps_ms[run % 8]);
        for (int i = 0; i < 50; i++) {
            cake_hlc_t ts, next;
            if (cake_clock_now(&clock, skewed_ms + (uint64_t)i, &ts) != 0) {
                refused += jumps_ms[run % 8] > -60000; /* a day behind, nothing can be stamped */
                continue;
            }
            if (cake_clock_needs_bound(&clock, skewed_ms + (uint64_t)i, bound, &next)) {
                assert_true(next > bound && next > ts);
                bound = next;
                bounds++;
            }
            assert_true(ts > before && ts < bound);
            before = ts;
        }
    }
    assert_int_equal(refused, 0);
    assert_true(bounds <= 2 * 400); /* and not one per stamp */
}

/* The clock is a day ahead for a while, or behind, and stamps of others come in: refused, or taken and never undone. */
static void a_day_either_way(void **state)
{
    cake_clock_t clock;
    cake_hlc_t ts, before, next;
    cake_clock_init(&clock, 0, 0);
    assert_int_equal(cake_clock_now(&clock, WALL_MS, &before), 0);
    assert_int_equal(cake_clock_observe(&clock, WALL_MS, cake_hlc_from_parts(WALL_MS + 86400000, 0)), CAKE_EDRIFT);
    assert_int_equal(cake_clock_observe(&clock, WALL_MS, cake_hlc_from_parts(WALL_MS - 86400000, 0)), 0);
    assert_true(cake_clock_last(&clock) == before);
    assert_int_equal(cake_clock_now(&clock, WALL_MS + 86400000, &ts), 0);  /* our own wall clock is believed */
    assert_int_equal(cake_clock_now(&clock, WALL_MS, &next), CAKE_EDRIFT); /* and refused once it is back */
    assert_true(cake_clock_last(&clock) == ts);
    assert_int_equal(cake_clock_now(&clock, WALL_MS + 86400000 - 60000, &next), 0); /* until the wall is near */
    assert_true(next > ts);
    assert_false(cake_clock_needs_bound(&clock, WALL_MS, UINT64_MAX, &ts));
    assert_true(cake_clock_needs_bound(&clock, UINT64_MAX, 0, &ts) && cake_hlc_unix_ms(ts) == CAKE_HLC_MAX_MS);
    assert_true(cake_clock_needs_bound(&clock, 0, 0, &ts) && ts > next);
}

static void stamps_in_a_row_are_taken_whole_or_not_at_all(void **state)
{
    cake_clock_t clock;
    cake_hlc_t first, next;
    cake_clock_init(&clock, 0, 0);
    assert_int_equal(cake_clock_take(&clock, WALL_MS, 1000, &first), 0);
    assert_true(cake_hlc_unix_ms(first) == WALL_MS && cake_clock_last(&clock) == first + 999);
    assert_int_equal(cake_clock_now(&clock, WALL_MS, &next), 0);
    assert_true(next == first + 1000);
    assert_int_equal(cake_clock_take(&clock, WALL_MS, 0, &first), CAKE_EDRIFT);
    assert_int_equal(cake_clock_take(&clock, WALL_MS, UINT64_C(61000) << 16, &first), CAKE_EDRIFT);
    assert_int_equal(cake_clock_take(&clock, WALL_MS, UINT64_MAX, &first), CAKE_EDRIFT);
    assert_true(cake_clock_last(&clock) == next);
    cake_clock_advance(&clock, UINT64_MAX);
    assert_int_equal(cake_clock_take(&clock, UINT64_MAX, 1, &first), CAKE_EDRIFT);
}

#define THREADS 4
#define STAMPS  20000

typedef struct worker {
    cake_clock_t *clock;
    cake_hlc_t stamps[STAMPS];
} worker_t;

static void *stamp_many(void *arg)
{
    worker_t *worker = arg;
    for (int i = 0; i < STAMPS; i++) {
        if (i % 64 == 0)
            cake_clock_observe(worker->clock, WALL_MS, cake_hlc_from_parts(WALL_MS, (uint16_t)i));
        cake_hlc_t *stamp = &worker->stamps[i];
        uint64_t wall_ms = WALL_MS + (uint64_t)i / 1000;
        int err = i % 5 == 0 ? cake_clock_take(worker->clock, wall_ms, 1, stamp)
                             : cake_clock_now(worker->clock, wall_ms, stamp);
        if (err != 0)
            return worker;
    }
    return NULL;
}

static int compare_stamps(const void *a, const void *b)
{
    return cake_hlc_compare(*(const cake_hlc_t *)a, *(const cake_hlc_t *)b);
}

static void stamps_of_many_threads_are_distinct_and_grow(void **state)
{
    static worker_t workers[THREADS];
    static cake_hlc_t all[THREADS * STAMPS];
    pthread_t threads[THREADS];
    cake_clock_t clock;
    cake_clock_init(&clock, 0, 0);
    for (int i = 0; i < THREADS; i++) {
        workers[i].clock = &clock;
        assert_int_equal(pthread_create(&threads[i], NULL, stamp_many, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
        for (int k = 1; k < STAMPS; k++)
            assert_true(workers[i].stamps[k] > workers[i].stamps[k - 1]);
        memcpy(all + i * STAMPS, workers[i].stamps, sizeof workers[i].stamps);
    }
    qsort(all, THREADS * STAMPS, sizeof all[0], compare_stamps);
    for (int i = 1; i < THREADS * STAMPS; i++)
        assert_true(all[i] > all[i - 1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stamps_grow_while_the_wall_clock_stands_or_goes_back),
        cmocka_unit_test(parts_and_order),
        cmocka_unit_test(a_full_counter_carries_into_the_milliseconds),
        cmocka_unit_test(later_stamps_are_above_an_observed_one),
        cmocka_unit_test(a_stamp_beyond_the_drift_is_refused_and_changes_nothing),
        cmocka_unit_test(the_last_stamp_of_all_does_not_wrap),
        cmocka_unit_test(defect_9_counter_overflow_with_a_peer_ahead),
        cmocka_unit_test(defect_8_restart_with_the_clock_behind_its_history),
        cmocka_unit_test(defect_7_a_stamp_24_hours_ahead_is_refused_here),
        cmocka_unit_test(every_stamp_round_trips_as_text),
        cmocka_unit_test(text_that_does_not_fit_is_not_written),
        cmocka_unit_test(the_parser_rejects_everything_else),
        cmocka_unit_test(restarts_begin_above_the_persisted_bound),
        cmocka_unit_test(a_day_either_way),
        cmocka_unit_test(stamps_in_a_row_are_taken_whole_or_not_at_all),
        cmocka_unit_test(stamps_of_many_threads_are_distinct_and_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
