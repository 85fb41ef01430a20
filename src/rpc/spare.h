/* spare.h: large blocks of one channel for the bodies of replies, which are freed on any thread and maybe after the
 * channel: given back to the kernel after each call, they would come back as pages to be cleared.
 *
 *   places: [ block | NULL | block ... ]    taken and given by one atomic exchange each
 *
 * References: the channel's, and one for each block that is out. */
#ifndef CAKE_RPC_SPARE_H
#define CAKE_RPC_SPARE_H

#include "base/base.h"

#define CAKE__SPARE_PLACES 16u
#define CAKE__SPARE_MIN    (1u << 16) /* bytes of blocks that are worth it */
#define CAKE__SPARE_MAX    (2u << 20)

typedef struct cake__spare cake__spare_t;

int cake__spare_new(const cake_alloc_t *heap, cake__spare_t **out); /* CAKE_ENOMEM */
const cake_alloc_t *
cake__spare_alloc(const cake__spare_t *spare); /* any thread; good as long as a block of it is out */
void cake__spare_trim(cake__spare_t *spare);   /* what waits goes back to the heap */
void cake__spare_unref(cake__spare_t *spare);  /* NULL is fine */

#endif
