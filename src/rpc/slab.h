/* slab.h: blocks of one loop thread, kept for reuse by size. A burst of calls takes and gives back far more small
 * blocks than a thread cache of malloc holds; large ones, of whole bodies, would be given to the kernel and come back
 * as pages to be cleared.
 *
 *   small   classes of 64, 128, ... 2048 bytes, each a list of spare blocks: [class | 16 bytes, then what the user has]
 *   large   classes of 128 KiB, 256 KiB, ... 4 MiB, likewise
 *   all others come from the heap and go back there
 *
 * The slab is used through its cake_alloc_t; it must stay at its address. */
#ifndef CAKE_RPC_SLAB_H
#define CAKE_RPC_SLAB_H

#include "base/base.h"

#define CAKE__SLAB_SMALL     6u
#define CAKE__SLAB_CLASSES   12u /* small and large */
#define CAKE__SLAB_SMALLEST  64u
#define CAKE__SLAB_LARGEST   (4u << 20)
#define CAKE__SLAB_LARGE_MIN (1u << 16)  /* beyond it */
#define CAKE__SLAB_SPARE_MAX (2u << 20)  /* bytes of small ones that wait for reuse */
#define CAKE__SLAB_LARGE_MAX (32u << 20) /* and of large ones, until nothing has been asked for a while */

typedef struct cake__slab_block {
    union {
        struct cake__slab_block *next; /* while spare */
        size_t heap_bytes;             /* of one from the heap */
    };
    uint64_t class; /* CAKE__SLAB_CLASSES: from the heap */
} cake__slab_block_t;

typedef struct cake__slab {
    cake_alloc_t alloc; /* what users are given */
    const cake_alloc_t *heap;
    cake__slab_block_t *spare[CAKE__SLAB_CLASSES];
    size_t spare_bytes, large_bytes;
    uint64_t out_count;
} cake__slab_t;

void cake__slab_init(cake__slab_t *slab, const cake_alloc_t *heap);
void cake__slab_trim(cake__slab_t *slab); /* large ones that are spare go back to the heap */
void cake__slab_free(cake__slab_t *slab); /* every block has come back */

#endif
