#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/heap.h"
#include "base/random.h"

#define NODES 300u
#define STEPS 100000u

typedef struct {
    cake__heap_node_t node;
    uint64_t key, index;
    bool is_in;
} item_t;

static const item_t *item_of(const cake__heap_node_t *node)
{
    return (const item_t *)(const void *)((const char *)node - offsetof(item_t, node));
}

static bool before(const cake__heap_node_t *a, const cake__heap_node_t *b)
{
    const item_t *x = item_of(a), *y = item_of(b);
    return x->key != y->key ? x->key < y->key : x->index < y->index;
}

static const item_t *least_by_search(const item_t *items)
{
    const item_t *least = NULL;
    for (size_t i = 0; i < NODES; i++) {
        if (items[i].is_in && (least == NULL || before(&items[i].node, &least->node)))
            least = &items[i];
    }
    return least;
}

static void the_least_is_always_on_top(void **state)
{
    static item_t items[NODES];
    cake__random_t random;
    cake__random_init(&random, 7);
    cake__heap_t heap;
    cake__heap_init(&heap, before);
    for (size_t step = 0; step < STEPS; step++) {
        item_t *item = &items[cake__random_below(&random, NODES)];
        if (cake__random_below(&random, 4) == 0 && heap.root != NULL)
            item = CAKE_CONTAINER_OF(cake__heap_least(&heap), item_t, node); /* take the least as often as any */
        if (item->is_in) {
            cake__heap_remove(&heap, &item->node);
        } else {
            *item = (item_t){.key = cake__random_below(&random, 50), .index = (uint64_t)(item - items)};
            cake__heap_insert(&heap, &item->node);
        }
        item->is_in = !item->is_in;
        const item_t *least = least_by_search(items);
        assert_ptr_equal(cake__heap_least(&heap), least == NULL ? NULL : &least->node);
    }
}

static void everything_comes_out_in_order(void **state)
{
    static item_t items[NODES];
    cake__random_t random;
    cake__random_init(&random, 8);
    cake__heap_t heap;
    cake__heap_init(&heap, before);
    for (size_t i = 0; i < NODES; i++) {
        items[i] = (item_t){.key = cake__random_u64(&random), .index = i};
        cake__heap_insert(&heap, &items[i].node);
    }
    const item_t *last = NULL;
    for (size_t i = 0; i < NODES; i++) {
        cake__heap_node_t *least = cake__heap_least(&heap);
        assert_non_null(least);
        assert_true(last == NULL || before(&last->node, least));
        last = item_of(least);
        cake__heap_remove(&heap, least);
    }
    assert_null(cake__heap_least(&heap));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_is_always_on_top),
        cmocka_unit_test(everything_comes_out_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
