/* Any bytes as a view of every kind of field: what view_init lets through can be read by all accessors. */
#include <stdlib.h>
#include <string.h>

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
    F(T, MESSAGE, origin, point) F(T, MESSAGES, corners, point) F(T, MESSAGES, children, full)
CAKE_VIEW(full, FULL_FIELDS)
/* clang-format on */

static volatile uint64_t sink;

static void read_bytes(const void *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        sink += ((const uint8_t *)data)[i];
}

#define READ_ARRAY(name)                                                                                               \
    for (size_t i = 0; i <= full_##name##_count(view); i++)                                                            \
    sink += full_##name##_at(view, i) != 0

static void read_all(full_view_t view, unsigned depth)
{
    point_view_t origin;
    CAKE_ASSERT(depth <= CAKE_VIEW_MAX_DEPTH);
    sink += full_small(view) + full_port(view) + full_count(view) + full_id(view) + (uint64_t)full_delta(view);
    sink += (full_ratio(view) > 0) + full_is_on(view) + full_has_a(view) + full_a(view) + full_b(view) + full_c(view);
    sink += full_d(view) + (uint64_t)full_e(view) + (full_f(view) > 0) + full_g(view);
    read_bytes(full_digest(view), 16);
    read_bytes(full_blob(view).data, full_blob(view).len);
    read_bytes(full_extra(view).data, full_extra(view).len);
    read_bytes(full_name(view), strlen(full_name(view)));
    read_bytes(full_nick(view), strlen(full_nick(view)));
    READ_ARRAY(bytes);
    READ_ARRAY(shorts);
    READ_ARRAY(words);
    READ_ARRAY(longs);
    READ_ARRAY(deltas);
    READ_ARRAY(ratios);
    sink += full_origin(view, &origin) + (point_x(origin) > point_y(origin));
    for (size_t i = 0; i <= full_corners_count(view); i++)
        sink += point_x(full_corners_at(view, i)) > 0;
    for (size_t i = 0; i < full_children_count(view); i++)
        read_all(full_children_at(view, i), depth + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size + 1); /* at an odd address, and nothing after the end */
    full_view_t view;
    if (exact == NULL)
        return 0;
    memcpy(exact + 1, data, size);
    if (full_view_init(&view, exact + 1, size) == 0)
        read_all(view, 0);
    free(exact);
    return 0;
}
