#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/map.h"
#include "base/random.h"

#define KEYS  512u
#define STEPS 200000u

/* Against the plainest model: an array by key. Few keys and many steps make clusters that wrap round the end. */
static void numbers_behave_as_an_array(void **state)
{
    static char marks[KEYS];
    void *model[KEYS] = {0};
    size_t count = 0;
    cake__random_t random;
    cake__random_init(&random, 1);
    cake__map_t map;
    cake__map_init(&map, &cake__libc_alloc);
    for (size_t step = 0; step < STEPS; step++) {
        size_t key = cake__random_below(&random, KEYS);
        bool is_filling = step / 20000 % 2 == 0;
        if (cake__random_below(&random, 10) < (is_filling ? 7 : 3)) {
            void *value = &marks[cake__random_below(&random, KEYS)];
            assert_int_equal(cake__map_put_u64(&map, key, value), 0);
            count += model[key] == NULL;
            model[key] = value;
        } else {
            assert_ptr_equal(cake__map_remove_u64(&map, key), model[key]);
            count -= model[key] != NULL;
            model[key] = NULL;
        }
        size_t other = cake__random_below(&random, KEYS);
        assert_ptr_equal(cake__map_get_u64(&map, other), model[other]);
        assert_int_equal(map.count, count);
    }
    size_t seen = 0, cursor = 0;
    while (cake__map_next(&map, &cursor) != NULL)
        seen++;
    assert_int_equal(seen, count);
    cake__map_free(&map);
}

static void bytes_and_numbers_and_the_empty_key_are_apart(void **state)
{
    int a, b, c, d;
    cake__map_t map;
    cake__map_init(&map, &cake__libc_alloc);
    assert_null(cake__map_get(&map, cake__slice_str("x")));
    assert_null(cake__map_remove(&map, cake__slice_str("x")));
    assert_int_equal(cake__map_put(&map, cake__slice_str("x"), &a), 0);
    assert_int_equal(cake__map_put(&map, cake__slice(NULL, 0), &b), 0);
    assert_int_equal(cake__map_put_u64(&map, 0, &c), 0);
    assert_int_equal(cake__map_put_u64(&map, 1, &d), 0);
    assert_ptr_equal(cake__map_get(&map, cake__slice("x", 1)), &a);
    assert_ptr_equal(cake__map_get(&map, cake__slice("", 0)), &b);
    assert_ptr_equal(cake__map_get_u64(&map, 0), &c);
    assert_ptr_equal(cake__map_get_u64(&map, 1), &d);
    assert_ptr_equal(cake__map_remove(&map, cake__slice("", 0)), &b);
    assert_ptr_equal(cake__map_get_u64(&map, 0), &c);
    cake__map_free(&map);
    assert_null(cake__map_get_u64(&map, 0));
    cake__map_free(&map);
}

static void every_length_of_key_hashes_all_its_bytes(void **state)
{
    uint8_t key[40] = {0};
    for (size_t len = 1; len <= sizeof key; len++) {
        uint64_t before = cake__hash_bytes(key, len);
        assert_true(before != cake__hash_bytes(key, len - 1));
        for (size_t i = 0; i < len; i++) {
            key[i] ^= 1;
            assert_true(before != cake__hash_bytes(key, len));
            key[i] ^= 1;
        }
    }
}

static void *refuse(void *ctx, void *block, size_t size)
{
    return NULL;
}

static void out_of_memory_changes_nothing(void **state)
{
    const cake_alloc_t none = {refuse, NULL};
    int value, other;
    cake__map_t map;
    cake__map_init(&map, &cake__libc_alloc);
    for (uint64_t key = 0; key < 6; key++)
        assert_int_equal(cake__map_put_u64(&map, key, &value), 0);
    map.alloc = &none;
    assert_int_equal(cake__map_put_u64(&map, 6, &value), CAKE_ENOMEM);
    assert_int_equal(cake__map_put_u64(&map, 5, &other), 0); /* replacing never fails */
    assert_ptr_equal(cake__map_get_u64(&map, 5), &other);
    assert_int_equal(map.count, 6);
    assert_null(cake__map_get_u64(&map, 6));
    map.alloc = &cake__libc_alloc;
    cake__map_free(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_behave_as_an_array),
        cmocka_unit_test(bytes_and_numbers_and_the_empty_key_are_apart),
        cmocka_unit_test(every_length_of_key_hashes_all_its_bytes),
        cmocka_unit_test(out_of_memory_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
