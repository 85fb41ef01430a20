/* index_internal.h: what index.c and index_tidy.c share. Cells are directory cells; 0 is none. */
#ifndef CAKE_CRDT_INDEX_INTERNAL_H
#define CAKE_CRDT_INDEX_INTERNAL_H

#include "crdt/index.h"

#define CAKE__INDEX_AHEAD    24u /* entries whose ids are fetched ahead while a segment is made anew */
#define CAKE__CELLS_PER_LINE 8u  /* of the directory */

uintptr_t cake__segment_new(cake__index_t *index, uint32_t groups, uint32_t depth); /* 0: no memory */
void cake__segment_free(cake__index_t *index, uintptr_t cell);
void cake__segment_add(cake__index_t *index, uintptr_t cell, uint64_t hash, uint32_t slot); /* there is room */

/* The hash of every entry that still holds what it says, 0 for the others; returns how many hold. hash_inside: any
 * hash of the segment. This is where the time goes: each id is somewhere else, so they are fetched ahead. */
uint32_t cake__segment_hashes(cake__index_t *index, uintptr_t cell, uint64_t hash_inside, uint64_t *hashes);
/* Adds those that hold to to[0] and to[1] by the bit behind the depth of `from`, or all to to[0]. */
void cake__segment_move(cake__index_t *index, uintptr_t from, const uint64_t *hashes, const uintptr_t to[2]);
/* All directory cells that share the first `depth` bits of hash now lead to the new ones, the upper half to to[1]. */
void cake__index_redirect(cake__index_t *index, uint32_t depth, uint64_t hash, const uintptr_t to[2]);

#endif
