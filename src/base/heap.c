#include "base/heap.h"

/* Joins two roots: the later one becomes the first child of the earlier. */
static cake__heap_node_t *meld(cake__heap_t *heap, cake__heap_node_t *a, cake__heap_node_t *b)
{
    if (a == NULL || b == NULL)
        return a == NULL ? b : a;
    if (heap->before(b, a)) {
        cake__heap_node_t *swap = a;
        a = b;
        b = swap;
    }
    b->prev = a;
    b->next = a->child;
    if (a->child != NULL)
        a->child->prev = b;
    a->child = b;
    return a;
}

/* Melds the children of a removed root in pairs, left to right, then the pairs right to left. */
static cake__heap_node_t *meld_children(cake__heap_t *heap, cake__heap_node_t *first)
{
    cake__heap_node_t *pairs = NULL; /* linked through prev, the newest first */
    while (first != NULL) {
        cake__heap_node_t *a = first, *b = a->next;
        first = b == NULL ? NULL : b->next;
        a->next = a->prev = NULL;
        if (b != NULL)
            b->next = b->prev = NULL;
        cake__heap_node_t *pair = meld(heap, a, b);
        pair->prev = pairs;
        pairs = pair;
    }
    cake__heap_node_t *root = NULL;
    while (pairs != NULL) {
        cake__heap_node_t *pair = pairs;
        pairs = pair->prev;
        pair->prev = NULL;
        root = meld(heap, root, pair);
    }
    return root;
}

void cake__heap_insert(cake__heap_t *heap, cake__heap_node_t *node)
{
    node->child = node->next = node->prev = NULL;
    heap->root = meld(heap, heap->root, node);
}

void cake__heap_remove(cake__heap_t *heap, cake__heap_node_t *node)
{
    if (node == heap->root) {
        heap->root = meld_children(heap, node->child);
    } else {
        CAKE_ASSERT(node->prev != NULL);
        if (node->prev->child == node)
            node->prev->child = node->next;
        else
            node->prev->next = node->next;
        if (node->next != NULL)
            node->next->prev = node->prev;
        heap->root = meld(heap, heap->root, meld_children(heap, node->child));
    }
    node->child = node->next = node->prev = NULL;
}
