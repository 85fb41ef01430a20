/* Blocks of the slab and of a channel's spare ones: what is in them stays while they grow from one kind to another,
 * and they are used again. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <cmocka.h>

#include "rpc/slab.h"
#include "rpc/spare.h"

static atomic_int asked; /* of the heap */

static void *resize(void *ctx, void *block, size_t size)
{
    (void)ctx;
    if (size > 0)
        atomic_fetch_add(&asked, 1);
    return cake__libc_alloc.resize(cake__libc_alloc.ctx, block, size);
}

static const cake_alloc_t heap = {resize, NULL};

/* Grows from each size to each; beyond its old size a block holds nothing that may be read. */
static void grow_all(const cake_alloc_t *alloc)
{
    static const size_t sizes[] = {1,       64,      65,      2000,    2048,          2049,   30000,
                                   65535,   65536,   65537,   100000,  131072,        131073, 1000000,
                                   2097152, 2097153, 3 << 20, 4 << 20, (4 << 20) + 1, 9 << 20};
    const size_t count = sizeof sizes / sizeof sizes[0];
    for (size_t from = 0; from < count; from++) {
        for (size_t to = from; to < count; to++) {
            uint8_t *block = cake__malloc(alloc, sizes[from]);
            assert_non_null(block);
            memset(block, (int)(from + 1), sizes[from]);
            block = cake__realloc(alloc, block, sizes[to]);
            assert_non_null(block);
            for (size_t i = 0; i < sizes[from]; i++)
                assert_true(block[i] == from + 1);
            memset(block + sizes[from], 0, sizes[to] - sizes[from]);
            cake__free(alloc, block);
        }
    }
}

static void blocks_of_the_slab_keep_their_bytes(void **state)
{
    cake__slab_t slab;
    cake__slab_init(&slab, &heap);
    grow_all(&slab.alloc);
    cake__slab_trim(&slab);
    cake__slab_free(&slab);
}

static void spare_blocks_keep_their_bytes(void **state)
{
    cake__spare_t *spare;
    assert_int_equal(cake__spare_new(&heap, &spare), 0);
    grow_all(cake__spare_alloc(spare));
    cake__spare_unref(spare);
}

static void spare_blocks_are_used_again(void **state)
{
    cake__spare_t *spare;
    assert_int_equal(cake__spare_new(&heap, &spare), 0);
    const cake_alloc_t *alloc = cake__spare_alloc(spare);
    cake__free(alloc, cake__malloc(alloc, 1 << 20));
    int before = asked;
    for (int i = 0; i < 100; i++)
        cake__free(alloc, cake__malloc(alloc, (1 << 20) - (size_t)i * 1000));
    assert_int_equal(asked, before);
    cake__free(alloc, cake__malloc(alloc, 70000)); /* a megabyte is not wasted on it */
    assert_int_equal(asked, before + 1);
    cake__spare_trim(spare);
    void *last = cake__malloc(alloc, 1 << 20);
    assert_int_equal(asked, before + 2);
    cake__spare_unref(spare);
    cake__free(alloc, last); /* it outlives the owner */
}

static void *take_and_give(void *arg)
{
    const cake_alloc_t *alloc = cake__spare_alloc(arg);
    for (uintptr_t i = 0; i < 3000; i++) {
        uint8_t *block = cake__malloc(alloc, 70000 + i % 7 * 50000);
        block[0] = block[69999] = (uint8_t)i;
        assert_true(block[0] == (uint8_t)i);
        cake__free(alloc, block);
    }
    return NULL;
}

static void spare_blocks_go_between_threads(void **state)
{
    pthread_t threads[3];
    cake__spare_t *spare;
    assert_int_equal(cake__spare_new(&heap, &spare), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, spare), 0);
    for (int i = 0; i < 100; i++)
        cake__spare_trim(spare);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    cake__spare_unref(spare);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_the_slab_keep_their_bytes), cmocka_unit_test(spare_blocks_keep_their_bytes),
        cmocka_unit_test(spare_blocks_are_used_again), cmocka_unit_test(spare_blocks_go_between_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
