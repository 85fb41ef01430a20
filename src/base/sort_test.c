#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/random.h"
#include "base/sort.h"

typedef struct {
    uint64_t key, twin;
    char rest[100]; /* larger than the piece that a swap moves at once */
} item_t;

static int by_key(const void *a, const void *b)
{
    const item_t *x = a, *y = b;
    return (x->key > y->key) - (x->key < y->key);
}

static void any_number_of_items_ends_in_order_and_whole(void **state)
{
    static item_t items[700];
    cake__random_t random;
    cake__random_init(&random, 3);
    for (size_t count = 0; count < CAKE_COUNT_OF(items); count = count < 20 ? count + 1 : count * 2) {
        uint64_t sum = 0, sorted_sum = 0;
        for (size_t i = 0; i < count; i++) {
            uint64_t key = cake__random_below(&random, count); /* some are equal */
            items[i] = (item_t){.key = key, .twin = ~key};
            memset(items[i].rest, (int)(key & 0x7f), sizeof items[i].rest);
            sum += cake__mix64(key);
        }
        cake__sort(items, count, sizeof items[0], by_key);
        for (size_t i = 0; i < count; i++) {
            assert_true(i == 0 || items[i - 1].key <= items[i].key);
            assert_true(items[i].twin == ~items[i].key);
            assert_int_equal(items[i].rest[0], items[i].key & 0x7f);
            assert_int_equal(items[i].rest[99], items[i].key & 0x7f);
            sorted_sum += cake__mix64(items[i].key);
        }
        assert_true(sum == sorted_sum);
    }
    cake__sort(NULL, 0, 1, by_key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_items_ends_in_order_and_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
