/* sort.h: sorting in place. The C library's qsort may allocate, which the seam does not allow. */
#ifndef CAKE_BASE_SORT_H
#define CAKE_BASE_SORT_H

#include "base/base.h"

/* As qsort: O(n log n) always, equal items end in any order, but in the same one wherever it runs. */
void cake__sort(void *items, size_t count, size_t size, int (*compare)(const void *a, const void *b));

#endif
