/* table_check.c: every invariant of table.h and chunk.h, asserted. */
#include "crdt/table_internal.h"

static void check_chunk(const cake__table_t *table, const cake__lane_t *lane, uint32_t at, uint64_t *fingerprint)
{
    const cake__chunk_t *chunk = table->chunks[lane->entries[at].chunk];
    uint32_t occupied = 0, present = 0, tombstones = 0;
    CAKE_ASSERT(chunk->actor == lane->actor && chunk->first == lane->entries[at].first);
    CAKE_ASSERT(at == 0 || lane->entries[at - 1].first < chunk->first);
    CAKE_ASSERT(at == 0 || table->chunks[lane->entries[at - 1].chunk]->max_seq < chunk->first);
    for (uint32_t position = 0; position < chunk->shape.capacity; position++) {
        bool is_present = cake__bit(chunk->present_bits, position);
        CAKE_ASSERT(!is_present || cake__bit(chunk->occupied_bits, position));
        occupied += cake__bit(chunk->occupied_bits, position);
        if (!is_present)
            continue;
        cake_record_t record;
        uint32_t slot = chunk->number * CAKE__CHUNK_POSITIONS + position;
        cake__chunk_read(chunk, position, &record);
        CAKE_ASSERT(record.dot.seq >= chunk->first && record.dot.seq <= chunk->max_seq);
        CAKE_ASSERT(cake__table_find(table, &record.id) == slot && cake__table_slot_of(table, record.dot) == slot);
        present++;
        tombstones += record.is_tombstone;
        *fingerprint += record.is_tombstone ? 0 : cake__fingerprint_of(cake__id_pair(&record.id), record.dot);
    }
    CAKE_ASSERT(occupied == chunk->occupied && present == chunk->present && tombstones == chunk->tombstones);
    CAKE_ASSERT(at >= lane->first_tombstones || tombstones == 0);
}

void cake__table_check(cake__table_t *table)
{
    uint64_t present = 0, tombstones = 0, fingerprint = 0, chunks = 0;
    for (uint32_t i = 0; i < table->lane_count; i++) {
        cake__lane_t *lane = &table->lanes[i];
        uint64_t lane_tombstones = 0;
        CAKE_ASSERT(i == 0 || table->lanes[i - 1].actor < lane->actor);
        for (uint32_t at = 0; at < lane->count; at++) {
            check_chunk(table, lane, at, &fingerprint);
            present += table->chunks[lane->entries[at].chunk]->present;
            lane_tombstones += table->chunks[lane->entries[at].chunk]->tombstones;
        }
        CAKE_ASSERT(lane_tombstones == lane->tombstones);
        tombstones += lane_tombstones;
        chunks += lane->count;
    }
    CAKE_ASSERT(chunks + table->free_count == table->chunk_count);
    CAKE_ASSERT(tombstones == table->tombstones && present == table->live + table->tombstones);
    CAKE_ASSERT(fingerprint == table->fingerprint);
}
