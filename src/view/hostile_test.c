/* Messages that are right but for one thing, each of which an accessor would trip over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include <datacake/view.h>

#include "base/bytes.h"

#define ITEMS(F, T)      F(T, STRING, text, _) F(T, ARRAY_U64, longs, _) F(T, FIXED, digest, 16)
#define ONE_FIELDS(F, T) ITEMS(F, T) F(T, BOOL, is_on, false) F(T, U8, small, 0) F(T, MESSAGE, next, one)
CAKE_VIEW(one, ONE_FIELDS)

#define SLOTS 16u /* the first slot's place, behind the presence bits */

static const uint64_t longs[] = {1, 2};

/* Which bytes of a good message become what, seen from a slot (at < 0) or from the item it names. */
static const struct {
    one_t message;
    unsigned slot;
    int at;
    uint64_t value;
    unsigned width;
} changes[] = {
    {{.text = "abcdefg"}, 0, 7, 'x', 1},                   /* does not end */
    {{.text = "abcdefg"}, 0, 2, 0, 1},                     /* ends within */
    {{.text = "abcdefg"}, 0, 0, 0xff, 1},                  /* not UTF-8 */
    {{.longs = longs, .longs_count = 2}, 1, -4, 16, 4},    /* as many bytes, not as many longs */
    {{.longs = longs, .longs_count = 2}, 1, -8, SLOTS, 4}, /* lies in the slots */
    {{.small = 0}, 2, -4, 8, 4},                           /* fewer bytes than the field has */
    {{.is_on = true}, 3, -8, 2, 1},                        /* neither true nor false */
    {{.small = 1}, 4, -7, 1, 1},                           /* wider than its type */
    {{.next = &(one_t){.small = 1}}, 5, 0, 8, 4},          /* says another size than its slot */
};

static void each_change_is_refused(void **state)
{
    for (size_t i = 0; i < CAKE_COUNT_OF(changes); i++) {
        void *data;
        size_t len;
        one_view_t view;
        assert_int_equal(one_encode(&changes[i].message, 0, NULL, &data, &len), 0);
        assert_int_equal(one_view_init(&view, data, len), 0);
        uint8_t *slot = (uint8_t *)data + SLOTS + 8 * changes[i].slot;
        uint8_t *to =
            changes[i].at < 0 ? slot + 8 + changes[i].at : (uint8_t *)data + cake__load_le(slot, 4) + changes[i].at;
        cake__store_le(to, changes[i].value, changes[i].width);
        if (one_view_init(&view, data, len) != CAKE_EPARSE)
            fail_msg("change %zu is let through", i);
        cake_view_free(NULL, data);
    }
}

/* Each message holds the next one: one more than may be would take the checker's stack, with enough of them. */
static void too_deep_is_refused(void **state)
{
    enum { FIELDS = 6, EACH = SLOTS + 8 * FIELDS, MOST = CAKE_VIEW_MAX_DEPTH };
    uint8_t data[(MOST + 1) * EACH] = {0};
    one_view_t view;
    for (unsigned i = 0; i <= MOST; i++) {
        uint8_t *to = data + i * EACH;
        cake__store_le(to, sizeof data - i * EACH, 4);
        to[4] = FIELDS;
        to[6] = 1;
        to[8] = i < MOST ? 1u << 5 : 0;
        cake__store_le(to + SLOTS + 40, EACH, 4);
        cake__store_le(to + SLOTS + 44, sizeof data - (i + 1) * EACH, 4);
    }
    assert_int_equal(one_view_init(&view, data, sizeof data), CAKE_EPARSE);
    assert_int_equal(one_view_init(&view, data + EACH, sizeof data - EACH), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_change_is_refused), cmocka_unit_test(too_deep_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
