/* pieces.h: pieces of memory of one size. The first ones are from the heap, each alone; once there are 4 MiB of them, more come
 * from areas of 8 MiB, for which the system is asked for large pages.
 *
 *      areas, by address:   [ piece | piece | free | piece | never used . . . ]   [ ... ]   [ ... ]
 *
 * A large set reads its index and its records at random. With pages of 4 KiB nearly each such read also has to look for the
 * page, and each page that is touched first costs a fault: a third of the time of a batch on a machine that is virtual.
 *
 * Pieces are taken from the first area that has room, so that the last ones become empty. An empty area goes back to the heap
 * once the others have room for half of it: a set that grows and shrinks by a piece does not ask for an area each time.
 *
 * Invariants: areas are disjoint and in order of their addresses; none before `first_room` has room; `room` is what all have. */
#ifndef CAKE_CRDT_PIECES_H
#define CAKE_CRDT_PIECES_H

#include "base/base.h"

#define CAKE__AREA_BYTES (4 * CAKE_LARGE_PAGE)
#define CAKE__ALONE_BYTES                                                                                              \
    (2 * CAKE_LARGE_PAGE) /* so that a page of which little is used is a small part of the whole */

typedef struct cake__area {
    uint8_t *begin;
    void *block;   /* the heap's, which begins there or before */
    uint32_t used; /* pieces that are given out */
    uint32_t cut;  /* those that ever were: what is behind them was never touched */
    void *free;    /* the first of those that came back; each leads to the next */
} cake__area_t;

typedef struct cake__areas {
    size_t piece_bytes;
    uint32_t per_area;
    uint32_t count, capacity, first_room;
    uint32_t empty; /* areas of which nothing is given out */
    uint64_t room;
    cake__area_t *list;
} cake__areas_t;

/* All zero: nothing yet. Small, because a set has three and there are many small sets. */
typedef struct cake__pieces {
    cake__areas_t *areas; /* NULL while there are few pieces */
    uint64_t alone;       /* pieces that are from the heap */
} cake__pieces_t;

/* The same allocator and size in each call. NULL: no memory. */
void *cake__pieces_take(cake__pieces_t *pieces, const cake_alloc_t *alloc, size_t piece_bytes);
void cake__pieces_give(cake__pieces_t *pieces, const cake_alloc_t *alloc, void *piece); /* NULL allowed */
void cake__pieces_free(cake__pieces_t *pieces, const cake_alloc_t *alloc);              /* all pieces have come back */

#endif
