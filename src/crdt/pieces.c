/* pieces.c: see pieces.h. */
#include "crdt/pieces.h"

#define ALIGNMENT 64u /* of the pieces of an area: a cache line */

/* How many areas begin at or below this address. */
static uint32_t areas_up_to(const cake__areas_t *areas, const void *address)
{
    uint32_t low = 0, high = areas->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((uintptr_t)areas->list[middle].begin <= (uintptr_t)address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool has_areas(cake__pieces_t *pieces, const cake_alloc_t *alloc, size_t piece_bytes)
{
    size_t rounded = (piece_bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (pieces->areas != NULL)
        return true;
    pieces->areas = cake__calloc(alloc, 1, sizeof *pieces->areas);
    if (pieces->areas == NULL)
        return false;
    pieces->areas->piece_bytes = rounded;
    pieces->areas->per_area = (uint32_t)(CAKE__AREA_BYTES / rounded);
    return true;
}

/* False: no memory. No area has room. */
static bool add_area(cake__areas_t *areas, const cake_alloc_t *alloc)
{
    if (areas->count == areas->capacity) {
        uint32_t capacity = areas->capacity == 0 ? 4 : areas->capacity * 2;
        cake__area_t *list = cake__realloc(alloc, areas->list, capacity * sizeof *list);
        if (list == NULL)
            return false;
        areas->list = list;
        areas->capacity = capacity;
    }
    void *begin, *block = cake__malloc_large(alloc, CAKE__AREA_BYTES, &begin);
    if (block == NULL)
        return false;
    uint32_t at = areas_up_to(areas, begin);
    memmove(areas->list + at + 1, areas->list + at, (areas->count - at) * sizeof *areas->list);
    areas->list[at] = (cake__area_t){.begin = begin, .block = block};
    areas->count++;
    areas->empty++;
    areas->room += areas->per_area;
    areas->first_room = at;
    return true;
}

static void *take_from(cake__areas_t *areas)
{
    while (areas->list[areas->first_room].used == areas->per_area)
        areas->first_room++;
    cake__area_t *area = &areas->list[areas->first_room];
    void *piece = area->free;
    if (piece != NULL)
        memcpy(&area->free, piece, sizeof area->free);
    else
        piece = area->begin + area->cut++ * areas->piece_bytes;
    areas->empty -= area->used++ == 0;
    areas->room--;
    return piece;
}

void *cake__pieces_take(cake__pieces_t *pieces, const cake_alloc_t *alloc, size_t piece_bytes)
{
    if (pieces->areas != NULL && pieces->areas->room > 0)
        return take_from(pieces->areas);
    bool is_large = (pieces->alone + 1) * piece_bytes > CAKE__ALONE_BYTES;
    if (is_large && has_areas(pieces, alloc, piece_bytes) && add_area(pieces->areas, alloc))
        return take_from(pieces->areas);
    void *piece = cake__malloc(alloc, piece_bytes);
    pieces->alone += piece != NULL;
    return piece;
}

static void remove_empty_area(cake__areas_t *areas, const cake_alloc_t *alloc)
{
    uint32_t at = areas->count - 1;
    while (areas->list[at].used > 0)
        at--;
    cake__free(alloc, areas->list[at].block);
    memmove(areas->list + at, areas->list + at + 1, (areas->count - at - 1) * sizeof *areas->list);
    areas->count--;
    areas->empty--;
    areas->room -= areas->per_area;
    areas->first_room -= areas->first_room > at;
}

static void give_to(cake__areas_t *areas, const cake_alloc_t *alloc, uint32_t at, void *piece)
{
    cake__area_t *area = &areas->list[at];
    CAKE_ASSERT(area->used > 0 && (size_t)((uint8_t *)piece - area->begin) % areas->piece_bytes == 0);
    memcpy(piece, &area->free, sizeof area->free);
    area->free = piece;
    areas->empty += --area->used == 0;
    areas->room++;
    areas->first_room = (uint32_t)cake__min_u64(areas->first_room, at);
    if (areas->empty > 0 && areas->room >= areas->per_area + areas->per_area / 2)
        remove_empty_area(areas, alloc);
}

void cake__pieces_give(cake__pieces_t *pieces, const cake_alloc_t *alloc, void *piece)
{
    uint32_t after = pieces->areas == NULL ? 0 : areas_up_to(pieces->areas, piece);
    if (piece == NULL)
        return;
    if (after > 0 && (uint8_t *)piece < pieces->areas->list[after - 1].begin + CAKE__AREA_BYTES) {
        give_to(pieces->areas, alloc, after - 1, piece);
        return;
    }
    CAKE_ASSERT(pieces->alone > 0);
    pieces->alone--;
    cake__free(alloc, piece);
}

void cake__pieces_free(cake__pieces_t *pieces, const cake_alloc_t *alloc)
{
    cake__areas_t *areas = pieces->areas;
    CAKE_ASSERT(pieces->alone == 0);
    if (areas == NULL)
        return;
    CAKE_ASSERT(areas->room == (uint64_t)areas->count * areas->per_area);
    for (uint32_t i = 0; i < areas->count; i++)
        cake__free(alloc, areas->list[i].block);
    cake__free(alloc, areas->list);
    cake__free(alloc, areas);
    pieces->areas = NULL;
}
