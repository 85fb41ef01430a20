/* table_check.c: every invariant of table.h and block.h, asserted. */
#include "crdt/table_internal.h"

static void check_block(const cake__table_t *table, const cake__lane_t *lane, uint32_t at, uint64_t *fingerprint)
{
    const cake__block_t *block = cake__lane_block(table, lane, at);
    uint32_t occupied = 0, present = 0, tombstones = 0;
    cake_hlc_t tombstone_hlc = 0;
    CAKE_ASSERT(block->actor == lane->actor && block->first == lane->entries[at].first);
    CAKE_ASSERT(at == 0 || lane->entries[at - 1].first < block->first);
    CAKE_ASSERT(at == 0 || cake__lane_block(table, lane, at - 1)->max_seq < block->first);
    for (uint32_t position = 0; position < block->shape.capacity; position++) {
        bool is_present = cake__block_is_present(block, position);
        CAKE_ASSERT(!is_present || cake__block_is_occupied(block, position));
        occupied += cake__block_is_occupied(block, position);
        if (!is_present)
            continue;
        cake_record_t record;
        uint32_t slot = block->number * CAKE__BLOCK_POSITIONS + position;
        cake__block_read(block, position, &record);
        CAKE_ASSERT(record.dot.seq >= block->first && record.dot.seq <= block->max_seq);
        CAKE_ASSERT(cake__table_find(table, &record.id) == slot && cake__table_slot_of(table, record.dot) == slot);
        present++;
        tombstones += record.is_tombstone;
        tombstone_hlc = record.is_tombstone ? cake__max_u64(tombstone_hlc, record.hlc) : tombstone_hlc;
        *fingerprint += record.is_tombstone ? 0 : cake__fingerprint_of(cake__id_pair(&record.id), record.dot);
    }
    CAKE_ASSERT(occupied == block->occupied && present == block->present && tombstones == block->tombstones);
    CAKE_ASSERT(at >= lane->first_tombstones || tombstones == 0);
    CAKE_ASSERT(tombstone_hlc <= block->tombstone_hlc || tombstones == 0);
    CAKE_ASSERT(!block->has_exact_tombstone_hlc || tombstones == 0 || tombstone_hlc == block->tombstone_hlc);
}

void cake__table_check(cake__table_t *table)
{
    uint64_t present = 0, tombstones = 0, fingerprint = 0, blocks = 0;
    for (uint32_t i = 0; i < table->lane_count; i++) {
        cake__lane_t *lane = &table->lanes[i];
        uint64_t lane_tombstones = 0;
        CAKE_ASSERT(i == 0 || table->lanes[i - 1].actor < lane->actor);
        for (uint32_t at = 0; at < lane->count; at++) {
            check_block(table, lane, at, &fingerprint);
            present += cake__lane_block(table, lane, at)->present;
            lane_tombstones += cake__lane_block(table, lane, at)->tombstones;
        }
        CAKE_ASSERT(lane_tombstones == lane->tombstones);
        tombstones += lane_tombstones;
        blocks += lane->count;
    }
    CAKE_ASSERT(blocks + table->free_count == table->block_count);
    CAKE_ASSERT(tombstones == table->tombstones && present == table->live + table->tombstones);
    CAKE_ASSERT(fingerprint == table->fingerprint);
    CAKE_ASSERT(table->index.used >= present);
    cake__index_check(&table->index);
}
