#include "base/sort.h"

typedef struct {
    uint8_t *items;
    size_t size;
    int (*compare)(const void *a, const void *b);
} sort_t;

static void swap(sort_t *sort, size_t i, size_t k)
{
    uint8_t *a = sort->items + i * sort->size, *b = sort->items + k * sort->size, piece[64];
    for (size_t left = sort->size; left > 0;) {
        size_t len = left < sizeof piece ? left : sizeof piece;
        memcpy(piece, a, len);
        memcpy(a, b, len);
        memcpy(b, piece, len);
        a += len;
        b += len;
        left -= len;
    }
}

/* Lets item i sink until both its children, 2i + 1 and 2i + 2, are no greater. */
static void sink(sort_t *sort, size_t i, size_t count)
{
    for (size_t child = 2 * i + 1; child < count; child = 2 * i + 1) {
        const uint8_t *at = sort->items + child * sort->size;
        if (child + 1 < count && sort->compare(at, at + sort->size) < 0) {
            child++;
            at += sort->size;
        }
        if (sort->compare(sort->items + i * sort->size, at) >= 0)
            return;
        swap(sort, i, child);
        i = child;
    }
}

void cake__sort(void *items, size_t count, size_t size, int (*compare)(const void *a, const void *b))
{
    sort_t sort = {items, size, compare};
    CAKE_ASSERT(size > 0);
    for (size_t i = count / 2; i > 0; i--)
        sink(&sort, i - 1, count);
    for (size_t end = count; end > 1; end--) {
        swap(&sort, 0, end - 1);
        sink(&sort, 0, end - 1);
    }
}
