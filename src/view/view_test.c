#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include <datacake/view.h>

#include "base/base.h"

#define POINT_FIELDS(F, T) F(T, DOUBLE, x, 0) F(T, DOUBLE, y, 0)
CAKE_VIEW(point, POINT_FIELDS)

/* clang-format off */
#define FULL_FIELDS(F, T)                                                                                             \
    F(T, U8, small, 1) F(T, U16, port, 2) F(T, U32, count, 3) F(T, U64, id, 4) F(T, I64, delta, -5)                   \
    F(T, DOUBLE, ratio, 0.5) F(T, BOOL, is_on, true)                                                                  \
    F(T, OPT_U8, a, _) F(T, OPT_U16, b, _) F(T, OPT_U32, c, _) F(T, OPT_U64, d, _) F(T, OPT_I64, e, _)                \
    F(T, OPT_DOUBLE, f, _) F(T, OPT_BOOL, g, _)                                                                       \
    F(T, FIXED, digest, 16) F(T, BYTES, blob, _) F(T, OPT_BYTES, extra, _) F(T, STRING, name, _)                      \
    F(T, OPT_STRING, nick, _)                                                                                         \
    F(T, ARRAY_U8, bytes, _) F(T, ARRAY_U16, shorts, _) F(T, ARRAY_U32, words, _) F(T, ARRAY_U64, longs, _)           \
    F(T, ARRAY_I64, deltas, _) F(T, ARRAY_DOUBLE, ratios, _)                                                          \
    F(T, MESSAGE, origin, point) F(T, MESSAGE, target, point) F(T, MESSAGES, corners, point)                          \
    F(T, MESSAGES, children, full)
CAKE_VIEW(full, FULL_FIELDS)

#define OLD_FIELDS(F, T) F(T, U64, id, 7) F(T, STRING, name, _)
CAKE_VIEW(old, OLD_FIELDS)
#define NEW_FIELDS(F, T)                                                                                              \
    OLD_FIELDS(F, T) F(T, U32, limit, 99) F(T, OPT_STRING, note, _) F(T, BYTES, blob, _) F(T, FIXED, digest, 4)       \
    F(T, ARRAY_U16, ports, _) F(T, MESSAGE, origin, point) F(T, MESSAGES, corners, point)
CAKE_VIEW(new, NEW_FIELDS)
/* clang-format on */

static const point_t POINTS[] = {{1.5, -2.5}, {3.25, 4}, {0, 1e300}};

static full_t sample(const full_t *children, size_t count)
{
    static const uint8_t bytes[] = {1, 2, 255};
    static const uint16_t shorts[] = {1, 65535};
    static const uint32_t words[] = {7, UINT32_MAX, 9};
    static const uint64_t longs[] = {UINT64_MAX};
    static const int64_t deltas[] = {-1, INT64_MIN};
    static const double ratios[] = {0.25, -1e-300};
    return (full_t){.small = 200,
                    .port = 7001,
                    .count = 4000000000u,
                    .id = UINT64_MAX - 1,
                    .delta = -77,
                    .ratio = 2.75,
                    .is_on = false,
                    .has_a = true,
                    .a = 9,
                    .has_c = true,
                    .c = 0,
                    .has_e = true,
                    .e = -9,
                    .has_f = true,
                    .f = 1.25,
                    .has_g = true,
                    .g = true,
                    .digest = {1, 2, 3, [15] = 16},
                    .blob = {"blob\0blob", 9},
                    .name = "na\xc3\xafve",
                    .nick = "",
                    .bytes = bytes,
                    .bytes_count = 3,
                    .shorts = shorts,
                    .shorts_count = 2,
                    .words = words,
                    .words_count = 3,
                    .longs = longs,
                    .longs_count = 1,
                    .deltas = deltas,
                    .deltas_count = 2,
                    .ratios = ratios,
                    .ratios_count = 2,
                    .origin = &POINTS[0],
                    .corners = POINTS,
                    .corners_count = 3,
                    .children = children,
                    .children_count = count};
}

/* Reads everything there is through the accessors, so that a sanitizer sees every byte they touch. */
static uint64_t read_all(full_view_t view)
{
    uint64_t sum = full_small(view) + full_port(view) + full_count(view) + full_id(view) + (uint64_t)full_delta(view);
    sum += (full_ratio(view) > 0) + full_is_on(view);
    sum += full_a(view) + full_b(view) + full_c(view) + full_d(view) + (uint64_t)full_e(view) + (full_f(view) > 0);
    sum += full_g(view) + full_has_a(view) + full_has_g(view);
    for (size_t i = 0; i < 16; i++)
        sum += full_digest(view)[i];
    cake_slice_t slices[] = {full_blob(view), full_extra(view), cake__slice_str(full_name(view)),
                             cake__slice_str(full_nick(view))};
    for (size_t i = 0; i < CAKE_COUNT_OF(slices); i++) {
        for (size_t at = 0; at < slices[i].len; at++)
            sum += ((const uint8_t *)slices[i].data)[at];
    }
    for (size_t i = 0; i <= full_bytes_count(view); i++)
        sum += full_bytes_at(view, i);
    for (size_t i = 0; i <= full_shorts_count(view); i++)
        sum += full_shorts_at(view, i);
    for (size_t i = 0; i <= full_words_count(view); i++)
        sum += full_words_at(view, i);
    for (size_t i = 0; i <= full_longs_count(view); i++)
        sum += full_longs_at(view, i);
    for (size_t i = 0; i <= full_deltas_count(view); i++)
        sum += (uint64_t)full_deltas_at(view, i);
    for (size_t i = 0; i <= full_ratios_count(view); i++)
        sum += full_ratios_at(view, i) > 0;
    point_view_t point;
    sum += full_origin(view, &point) + (point_x(point) > 0) + full_target(view, &point) + (point_y(point) > 0);
    for (size_t i = 0; i <= full_corners_count(view); i++)
        sum += point_x(full_corners_at(view, i)) > 0;
    for (size_t i = 0; i < full_children_count(view); i++)
        sum += read_all(full_children_at(view, i));
    return sum;
}

static void scalars_read_as_written(void **state)
{
    full_t message = sample(NULL, 0);
    full_view_t view;
    void *data;
    size_t len;
    assert_int_equal(full_encode(&message, CAKE_VIEW_CHECKSUM, NULL, &data, &len), 0);
    assert_int_equal(full_view_init(&view, data, len), 0);
    assert_int_equal(full_small(view), 200);
    assert_int_equal(full_port(view), 7001);
    assert_true(full_count(view) == 4000000000u);
    assert_true(full_id(view) == UINT64_MAX - 1);
    assert_true(full_delta(view) == -77);
    assert_true(full_ratio(view) == 2.75);
    assert_false(full_is_on(view));
    assert_true(full_has_a(view) && full_a(view) == 9 && !full_has_b(view) && full_b(view) == 0);
    assert_true(full_has_c(view) && full_c(view) == 0 && !full_has_d(view));
    assert_true(full_has_e(view) && full_e(view) == -9 && full_f(view) == 1.25 && full_g(view));
    cake_view_free(NULL, data);
}

static void items_read_as_written(void **state)
{
    full_t child = sample(NULL, 0), children[2] = {child, child};
    children[1].name = "second";
    full_t message = sample(children, 2);
    full_view_t view;
    point_view_t point;
    void *data;
    size_t len;
    assert_int_equal(full_encode(&message, 0, NULL, &data, &len), 0);
    assert_int_equal(full_view_init(&view, data, len), 0);
    assert_memory_equal(full_digest(view), message.digest, 16);
    assert_true(cake__slice_equal(full_blob(view), message.blob));
    assert_false(full_has_extra(view));
    assert_string_equal(full_name(view), "na\xc3\xafve");
    assert_true(full_has_nick(view));
    assert_string_equal(full_nick(view), "");
    assert_true(full_words_count(view) == 3 && full_words_at(view, 1) == UINT32_MAX && full_words_at(view, 3) == 0);
    assert_true(full_deltas_at(view, 1) == INT64_MIN && full_ratios_at(view, 1) == -1e-300);
    assert_true(full_origin(view, &point) && point_x(point) == 1.5 && point_y(point) == -2.5);
    assert_false(full_target(view, &point));
    assert_true(point_x(point) == 0);
    assert_int_equal(full_corners_count(view), 3);
    assert_true(point_y(full_corners_at(view, 2)) == 1e300 && point_y(full_corners_at(view, 3)) == 0);
    assert_int_equal(full_children_count(view), 2);
    assert_string_equal(full_name(full_children_at(view, 1)), "second");
    assert_true(point_x(full_corners_at(full_children_at(view, 0), 1)) == 3.25);
    cake_view_free(NULL, data);
}

static void versions_read_each_other(void **state)
{
    static const uint16_t ports[] = {80, 443};
    new_t fresh = {.id = 5,
                   .name = "new",
                   .limit = 3,
                   .note = "n",
                   .ports = ports,
                   .ports_count = 2,
                   .corners = POINTS,
                   .corners_count = 2};
    old_t aged = {.id = 6, .name = "old"};
    old_view_t as_old;
    new_view_t as_new;
    point_view_t point;
    void *data;
    size_t len;
    assert_int_equal(new_encode(&fresh, CAKE_VIEW_CHECKSUM, NULL, &data, &len), 0);
    assert_int_equal(old_view_init(&as_old, data, len), 0);
    assert_true(old_id(as_old) == 5);
    assert_string_equal(old_name(as_old), "new");
    cake_view_free(NULL, data);

    assert_int_equal(old_encode(&aged, 0, NULL, &data, &len), 0);
    assert_int_equal(new_view_init(&as_new, data, len), 0);
    assert_true(new_id(as_new) == 6 && new_limit(as_new) == 99 && !new_has_note(as_new));
    assert_true(new_blob(as_new).len == 0 && new_digest(as_new)[3] == 0 && new_ports_count(as_new) == 0);
    assert_true(!new_origin(as_new, &point) && new_corners_count(as_new) == 0);
    cake_view_free(NULL, data);
}

static void every_prefix_is_refused(void **state)
{
    full_t child = sample(NULL, 0), message = sample(&child, 1);
    full_view_t view;
    void *data;
    size_t len;
    assert_int_equal(full_encode(&message, 0, NULL, &data, &len), 0);
    for (size_t cut = 0; cut < len; cut++) {
        void *copy = malloc(cut + 1);
        memcpy(copy, data, cut);
        assert_int_not_equal(full_view_init(&view, copy, cut), 0);
        assert_true(full_id(view) == 4); /* a refused view is safe to read */
        if (cut >= 4) {
            uint32_t size = (uint32_t)cut;
            memcpy(copy, &size, 4);
            if (full_view_init(&view, copy, cut) == 0)
                (void)read_all(view);
        }
        free(copy);
    }
    cake_view_free(NULL, data);
}

static void no_mutation_gets_out_of_bounds(void **state)
{
    full_t child = sample(NULL, 0), message = sample(&child, 1);
    full_view_t view;
    void *data;
    size_t len;
    uint64_t sum = 0, accepted = 0;
    assert_int_equal(full_encode(&message, 0, NULL, &data, &len), 0);
    uint8_t *copy = malloc(len);
    memcpy(copy, data, len);
    static const uint8_t values[] = {0x00, 0x01, 0x07, 0x08, 0x10, 0x7f, 0x80, 0xff};
    for (size_t at = 0; at < len; at++) {
        for (size_t i = 0; i < 8 + CAKE_COUNT_OF(values); i++) {
            copy[at] = i < 8 ? copy[at] ^ (uint8_t)(1u << i) : values[i - 8];
            if (full_view_init(&view, copy, len) == 0) {
                sum += read_all(view);
                accepted++;
            }
            copy[at] = ((uint8_t *)data)[at];
        }
    }
    assert_true(sum != 0 && accepted > 0);
    free(copy);
    cake_view_free(NULL, data);
}

static void the_checksum_notices_every_flipped_bit(void **state)
{
    full_t message = sample(NULL, 0);
    full_view_t view;
    void *data;
    size_t len;
    assert_int_equal(full_encode(&message, CAKE_VIEW_CHECKSUM, NULL, &data, &len), 0);
    uint8_t *bytes = data;
    for (size_t bit = 0; bit < 8 * len; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        int err = full_view_init(&view, data, len);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(err, 0);
    }
    assert_int_equal(full_view_init(&view, data, len), 0);
    cake_view_free(NULL, data);
}

/* Many elements that all are the same bytes would make checking take exponential time: refused. */
static void overlapping_items_are_refused(void **state)
{
    full_t child = sample(NULL, 0), children[2] = {child, child}, message = {.children = children, .children_count = 2};
    full_view_t view;
    void *data;
    size_t len;
    assert_int_equal(full_encode(&message, 0, NULL, &data, &len), 0);
    assert_int_equal(full_view_init(&view, data, len), 0);
    size_t count;
    uint8_t *table = (uint8_t *)data + (cake_view__item(data, full__slot_children, &count) - (uint8_t *)data);
    memcpy(table + 4, table, 4);
    assert_int_equal(full_view_init(&view, data, len), CAKE_EPARSE);
    cake_view_free(NULL, data);
}

static void depth_is_bounded(void **state)
{
    full_t chain[CAKE_VIEW_MAX_DEPTH + 1];
    memset(chain, 0, sizeof chain);
    for (size_t i = 0; i < CAKE_VIEW_MAX_DEPTH; i++) {
        chain[i].children = &chain[i + 1];
        chain[i].children_count = 1;
    }
    void *data;
    size_t len;
    full_view_t view;
    assert_int_equal(full_encode(&chain[0], 0, NULL, &data, &len), CAKE_EINVAL);
    assert_int_equal(full_encode(&chain[1], 0, NULL, &data, &len), 0);
    assert_int_equal(full_view_init(&view, data, len), 0);
    cake_view_free(NULL, data);
}

static void bad_input_is_refused_by_the_encoder(void **state)
{
    void *data;
    size_t len;
    full_t message = {.name = "\xff"};
    assert_int_equal(full_encode(&message, 0, NULL, &data, &len), CAKE_EINVAL);
    assert_null(data);
    message = (full_t){.blob = {"x", (size_t)CAKE_VIEW_MAX_BYTES + 1}};
    assert_int_equal(full_encode(&message, 0, NULL, &data, &len), CAKE_ETOOBIG);
    assert_int_equal(full_encode(&message, 8, NULL, &data, &len), CAKE_EINVAL);
    full_view_t view;
    assert_int_equal(full_view_init(&view, cake_view_empty, 8), 0);
    uint8_t other[8] = {8, 0, 0, 0, 0, 0, 2, 0};
    assert_int_equal(full_view_init(&view, other, 8), CAKE_EVERSION);
}

typedef struct {
    size_t left, live;
} failing_t;

static void *failing_resize(void *ctx, void *block, size_t size)
{
    failing_t *failing = ctx;
    if (size == 0) {
        failing->live -= block != NULL;
        free(block);
        return NULL;
    }
    if (failing->left == 0)
        return NULL;
    failing->left--;
    failing->live += block == NULL;
    return realloc(block, size);
}

static void each_allocation_may_fail(void **state)
{
    full_t child = sample(NULL, 0), message = sample(&child, 1);
    failing_t failing = {0, 0};
    cake_alloc_t alloc = {failing_resize, &failing};
    void *data;
    size_t len;
    int err = CAKE_ENOMEM;
    for (size_t n = 0; err != 0; n++) {
        failing.left = n;
        err = full_encode(&message, CAKE_VIEW_CHECKSUM, &alloc, &data, &len);
        assert_true(err == 0 || (err == CAKE_ENOMEM && failing.live == 0));
        assert_true(n < 100);
    }
    cake_view_free(&alloc, data);
    assert_int_equal(failing.live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_read_as_written),
        cmocka_unit_test(items_read_as_written),
        cmocka_unit_test(versions_read_each_other),
        cmocka_unit_test(every_prefix_is_refused),
        cmocka_unit_test(no_mutation_gets_out_of_bounds),
        cmocka_unit_test(the_checksum_notices_every_flipped_bit),
        cmocka_unit_test(overlapping_items_are_refused),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(bad_input_is_refused_by_the_encoder),
        cmocka_unit_test(each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
