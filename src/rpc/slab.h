/* slab.h: small blocks of one loop thread, kept for reuse by size. A burst of calls takes and gives back far more blocks than
 * a thread cache of malloc holds.
 *
 *   classes of 64, 128, ... 2048 bytes, each a list of spare blocks: [class | 16 bytes, then what the user has]
 *   larger ones come from the heap and go back there
 *
 * The slab is used through its cake_alloc_t; it must stay at its address. */
#ifndef CAKE_RPC_SLAB_H
#define CAKE_RPC_SLAB_H

#include "base/base.h"

#define CAKE__SLAB_CLASSES   6u
#define CAKE__SLAB_SMALLEST  64u
#define CAKE__SLAB_SPARE_MAX (2u << 20) /* bytes that wait for reuse */

typedef struct cake__slab_block {
    struct cake__slab_block *next; /* while spare */
    uint64_t class;                /* CAKE__SLAB_CLASSES: from the heap, and then size of it */
} cake__slab_block_t;

typedef struct cake__slab {
    cake_alloc_t alloc; /* what users are given */
    const cake_alloc_t *heap;
    cake__slab_block_t *spare[CAKE__SLAB_CLASSES];
    size_t spare_bytes;
    uint64_t out_count;
} cake__slab_t;

void cake__slab_init(cake__slab_t *slab, const cake_alloc_t *heap);
void cake__slab_free(cake__slab_t *slab); /* every block has come back */

#endif
