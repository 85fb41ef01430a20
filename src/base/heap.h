/* heap.h: an intrusive pairing heap (Fredman, Sedgewick, Sleator, Tarjan 1986). Nothing is allocated, so nothing
 * fails: insert O(1), take the least and remove any O(log n) amortised.
 *
 *      root ---child--> a <-sibling-> b <-sibling-> c      a->prev = root, b->prev = a */
#ifndef CAKE_BASE_HEAP_H
#define CAKE_BASE_HEAP_H

#include "base/base.h"

typedef struct cake__heap_node {
    struct cake__heap_node *child, *next, *prev; /* prev: the left sibling, or the parent of the first child */
} cake__heap_node_t;

/* True when a comes before b; must be a strict total order, or equal nodes leave in any order. */
typedef bool (*cake__heap_before_fn)(const cake__heap_node_t *a, const cake__heap_node_t *b);

typedef struct cake__heap {
    cake__heap_node_t *root;
    cake__heap_before_fn before;
} cake__heap_t;

static inline void cake__heap_init(cake__heap_t *heap, cake__heap_before_fn before)
{
    heap->root = NULL;
    heap->before = before;
}

static inline cake__heap_node_t *cake__heap_least(const cake__heap_t *heap)
{
    return heap->root;
}

void cake__heap_insert(cake__heap_t *heap, cake__heap_node_t *node); /* node must not be in a heap */
void cake__heap_remove(cake__heap_t *heap, cake__heap_node_t *node); /* node must be in this heap */

#endif
