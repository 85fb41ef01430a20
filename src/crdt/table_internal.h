/* table_internal.h: what table.c and lanes.c share. */
#ifndef CAKE_CRDT_TABLE_INTERNAL_H
#define CAKE_CRDT_TABLE_INTERNAL_H

#include "crdt/table.h"

static inline cake__block_t *cake__table_block(const cake__table_t *table, uint32_t slot)
{
    return table->blocks[slot / CAKE__BLOCK_POSITIONS];
}

uint64_t cake__table_hash(const cake__table_t *table, cake__id_pair_t id);

cake__lane_t *cake__table_lane(const cake__table_t *table, uint64_t actor); /* NULL when there is none */
uint32_t cake__lane_entry_at(const cake__lane_t *lane, uint64_t seq);       /* the entry whose range seq is in, or 0 */
void cake__lane_note_tombstone(cake__lane_t *lane, uint64_t seq);

/* A position for a record, occupied. 0, CAKE_ENOMEM, CAKE_EDUPLICATE. */
int cake__table_place(cake__table_t *table, const cake_record_t *record, cake__id_pair_t id, uint32_t *slot);
uint32_t cake__table_slot_of(const cake__table_t *table, cake_dot_t dot); /* present or staged, or CAKE__SLOT_NONE */

/* After something was taken out of a block: gives up an empty one, packs one that is mostly empty. Needs no memory to be
 * correct: without it the block stays as it is. */
void cake__table_settle(cake__table_t *table, cake__block_t *block);
bool cake__table_release_if_empty(cake__table_t *table, cake__block_t *block);

#endif
