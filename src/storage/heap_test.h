/* heap_test.h: a heap that fails at a chosen allocation, and counts what is not given back. */
#ifndef CAKE_STORAGE_HEAP_TEST_H
#define CAKE_STORAGE_HEAP_TEST_H

#include <stdlib.h>

#include "base/base.h"

typedef struct counting_heap {
    uint64_t left; /* allocations before the one that fails */
    uint64_t live;
    uint64_t bytes;
} counting_heap_t;

static inline void *counting_resize(void *ctx, void *block, size_t size)
{
    counting_heap_t *heap = ctx;
    if (size == 0) {
        free(block);
        heap->live--;
        return NULL;
    }
    if (heap->left == 0)
        return NULL;
    heap->left--;
    heap->live += block == NULL;
    heap->bytes += size;
    return realloc(block, size);
}

#endif
