/* table_sweep.c: tombstones, the oldest first. A block all of whose tombstones may go loses them 64 at a time. */
#include "crdt/table_internal.h"

cake_hlc_t cake__lane_oldest_tombstone(const cake__table_t *table, cake__lane_t *lane)
{
    if (lane->tombstones == 0)
        return 0;
    while (cake__lane_block(table, lane, lane->first_tombstones)->tombstones == 0) {
        lane->first_tombstones++;
        CAKE_ASSERT(lane->first_tombstones < lane->count);
    }
    const cake__block_t *block = cake__lane_block(table, lane, lane->first_tombstones);
    uint64_t least = UINT64_MAX;
    cake_hlc_t oldest = 0;
    for (uint32_t word = 0; word < cake__block_words(block); word++) {
        uint64_t left = cake__block_word(block, word)->present & cake__block_word(block, word)->tombstone;
        for (; left != 0; left &= left - 1) {
            uint32_t position = word * 64 + (uint32_t)__builtin_ctzll(left);
            if (!block->shape.is_sparse)
                return cake__block_hlc(block, position);
            if (cake__block_seq(block, position) < least) {
                least = cake__block_seq(block, position);
                oldest = cake__block_hlc(block, position);
            }
        }
    }
    CAKE_ASSERT(oldest != 0 || least != UINT64_MAX);
    return oldest;
}

static void sweep_position(cake__block_t *block, uint32_t position, cake__sweep_t *sweep)
{
    uint64_t seq = cake__block_seq(block, position);
    cake_hlc_t hlc = cake__block_hlc(block, position);
    sweep->has_newer = sweep->has_newer || hlc > sweep->newest;
    if (seq > sweep->last || hlc > sweep->newest || sweep->count == sweep->limit)
        return;
    sweep->max_seq = cake__max_u64(sweep->max_seq, seq);
    sweep->max_hlc = cake__max_u64(sweep->max_hlc, hlc);
    if (sweep->ids != NULL)
        cake__id_from_pair(cake__block_id(block, position), &sweep->ids[sweep->count]);
    else
        cake__block_vacate(block, position);
    sweep->count++;
}

static void sweep_one_by_one(cake__block_t *block, cake__sweep_t *sweep)
{
    for (uint32_t word = 0; word < cake__block_words(block); word++) {
        uint64_t left = cake__block_word(block, word)->present & cake__block_word(block, word)->tombstone;
        for (; left != 0; left &= left - 1)
            sweep_position(block, word * 64 + (uint32_t)__builtin_ctzll(left), sweep);
    }
}

/* Every tombstone of a dense block may go, and the highest stamp among them is known: no record is read. */
static bool sweep_whole(cake__block_t *block, cake__sweep_t *sweep)
{
    if (sweep->ids != NULL || block->shape.is_sparse || !block->has_exact_tombstone_hlc ||
        block->max_seq > sweep->last || block->tombstone_hlc > sweep->newest ||
        block->tombstones > sweep->limit - sweep->count)
        return false;
    for (uint32_t word = cake__block_words(block); word-- > 0;) {
        cake__bits_t *bits = cake__block_word(block, word);
        uint64_t gone = bits->present & bits->tombstone;
        if (gone == 0)
            continue;
        uint32_t highest = word * 64 + 63 - (uint32_t)__builtin_clzll(gone);
        sweep->max_seq = cake__max_u64(sweep->max_seq, cake__block_seq(block, highest));
        bits->present &= ~gone;
        bits->occupied &= ~gone;
    }
    sweep->max_hlc = cake__max_u64(sweep->max_hlc, block->tombstone_hlc);
    sweep->count += block->tombstones;
    block->occupied = (uint16_t)(block->occupied - block->tombstones);
    block->present = (uint16_t)(block->present - block->tombstones);
    block->tombstones = 0;
    return true;
}

void cake__table_sweep(cake__table_t *table, cake__lane_t *lane, cake__sweep_t *sweep)
{
    uint64_t actor = lane->actor;
    for (uint32_t i = lane->first_tombstones; i < lane->count && sweep->count < sweep->limit; i++) {
        if (sweep->stops_early && sweep->has_newer)
            break;
        cake__block_t *block = cake__lane_block(table, lane, i);
        size_t before = sweep->count;
        if (block->first > sweep->last)
            break;
        if (block->tombstones == 0) {
            lane->first_tombstones += i == lane->first_tombstones;
            continue;
        }
        table->index.work += block->tombstones;
        if (!sweep_whole(block, sweep))
            sweep_one_by_one(block, sweep);
        if (sweep->ids != NULL)
            continue;
        lane->tombstones -= sweep->count - before;
        table->tombstones -= sweep->count - before;
        i -= cake__table_release_if_empty(table, block);
        lane = cake__table_lane(table, actor); /* it may be gone with its last block */
        if (lane == NULL)
            break;
    }
}

/* glibc puts what was given back into order at the next large request, all of it at once: after a purge of
 * millions, step by step, that is thousands of blocks and a millisecond. A request now and then keeps it short. No
 * block has this size, which would be taken as it is. */
#define REQUEST_BYTES 2000u

static void put_in_order(cake__table_t *table)
{
    cake__free(table->alloc, cake__malloc(table->alloc, REQUEST_BYTES));
}

void cake__table_tidy(cake__table_t *table, uint64_t count, bool has_time)
{
    table->untidied += count;
    uint64_t due = cake__min_u64(table->untidied / CAKE__TIDY_EVERY, CAKE__TIDY_STEPS_MAX);
    table->untidied -= due * CAKE__TIDY_EVERY;
    if (due > 0)
        put_in_order(table);
    due = cake__min_u64(due + (has_time ? CAKE__TIDY_IDLE_STEPS : 0), CAKE__TIDY_STEPS_MAX);
    (void)cake__index_tidy(&table->index, table->live + table->tombstones, (uint32_t)due, has_time);
}
