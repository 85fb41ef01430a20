/* index_tidy.c: segments that have become mostly empty are made smaller, or one of two. A step looks at two
 * segments at most. */
#include "crdt/index_internal.h"

#define SEGMENT_ENTRIES (CAKE__SEGMENT_GROUPS_MAX * CAKE__GROUP)

/* Worth a look: most entries are stale, or there is room for many times of what is held. What is looked at too
 * early costs most of the misses that it would have cost to take the entries out at once. */
static bool is_loose(const cake__index_t *index, uint64_t held, bool has_time)
{
    uint64_t room = index->bytes / sizeof(cake__group_t) * CAKE__GROUP;
    uint64_t most = has_time ? held + held / 2 : held * 8;
    return index->used > most || room > 2 * most + 5 * held + 4 * CAKE__GROUP;
}

/* The least number of groups that leaves half of the entries empty. */
static uint32_t groups_for(uint32_t held)
{
    uint32_t groups = 1;
    while (groups < CAKE__SEGMENT_GROUPS_MAX && groups * CAKE__GROUP < held * 2)
        groups *= 2;
    return groups;
}

static void halve_directory(cake__index_t *index)
{
    while (index->depth > 0 && index->deepest == 0) {
        size_t cells = (size_t)1 << (index->depth - 1);
        uintptr_t *directory = index->depth == 1 ? &index->only : cake__malloc(index->alloc, cells * sizeof *directory);
        if (directory == NULL)
            return;
        for (size_t i = 0; i < cells; i++)
            directory[i] = index->directory[2 * i];
        cake__free(index->alloc, index->directory);
        index->bytes -= (index->depth == 1 ? 2 * cells : cells) * sizeof *directory;
        index->directory = directory;
        index->depth--;
        index->tidied /= 2;
        index->work += 2 * cells / CAKE__CELLS_PER_LINE;
        for (size_t i = 0; i + 1 < cells; i += 2) /* one of less than full depth has both cells of a pair */
            index->deepest += directory[i] != directory[i + 1] ? 2 : 0;
    }
}

/* One segment alone: without what is stale, and the only one also smaller. */
static bool rebuild(cake__index_t *index, uintptr_t old, uint64_t hash)
{
    uint64_t hashes[SEGMENT_ENTRIES];
    const cake__segment_t *segment = cake__cell_segment(old);
    uint32_t depth = segment->depth, held = cake__segment_hashes(index, old, hash, hashes);
    uint32_t groups = depth == 0 ? groups_for(held) : segment->groups;
    if (groups >= segment->groups && (segment->used - held) * 4 <= segment->used)
        return false;
    uintptr_t to[2] = {cake__segment_new(index, groups, depth), 0};
    if (to[0] == 0)
        return false;
    cake__segment_move(index, old, hashes, to);
    cake__index_redirect(index, depth, hash, to);
    cake__segment_free(index, old);
    return true;
}

/* Two halves become one again when what they hold fills three eighths of it: far enough from the next split. */
static bool join(cake__index_t *index, uintptr_t lower, uintptr_t upper, uint64_t hash, bool *is_joined)
{
    uint64_t hashes[2][SEGMENT_ENTRIES];
    uint32_t depth = cake__cell_segment(lower)->depth;
    uint64_t in_upper = hash | UINT64_C(1) << (64 - depth);
    uint32_t held = cake__segment_hashes(index, lower, hash, hashes[0]);
    held += cake__segment_hashes(index, upper, in_upper, hashes[1]);
    *is_joined = false;
    if (held * 8 > SEGMENT_ENTRIES * 3)
        return false;
    uintptr_t to[2] = {cake__segment_new(index, CAKE__SEGMENT_GROUPS_MAX, depth - 1), 0};
    if (to[0] == 0)
        return false;
    cake__segment_move(index, lower, hashes[0], to);
    cake__segment_move(index, upper, hashes[1], to);
    cake__index_redirect(index, depth - 1, hash, to);
    cake__segment_free(index, lower);
    cake__segment_free(index, upper);
    index->deepest -= depth == index->depth ? 2 : 0;
    halve_directory(index);
    return *is_joined = true;
}

/* Looks at the segment of one cell and at its other half, if that is whole; returns the cell behind them. */
static uint32_t step(cake__index_t *index, uint32_t at, bool *did)
{
    uintptr_t cell = index->directory[at], buddy = 0;
    uint32_t depth = cake__cell_segment(cell)->depth, cells = 1u << (index->depth - depth), full = index->depth;
    uint64_t hash = index->depth == 0 ? 0 : (uint64_t)(at / cells * cells) << (64 - index->depth);
    bool is_lower = depth > 0 && (at / cells & 1) == 0, is_joined = false;
    if (is_lower)
        buddy = index->directory[at + cells];
    if (buddy != 0 && cake__cell_segment(buddy)->depth == depth)
        *did |= join(index, cell, buddy, hash, &is_joined);
    if (is_joined)
        return (at + 2 * cells) >> (full - index->depth);
    *did |= rebuild(index, cell, hash);
    return at / cells * cells + cells;
}

bool cake__index_tidy(cake__index_t *index, uint64_t held, uint32_t limit, bool has_time)
{
    bool did = false;
    for (; limit > 0 && is_loose(index, held, has_time); limit--) {
        if (index->tidied >> index->depth != 0)
            index->tidied = 0;
        index->tidied = step(index, index->tidied, &did);
    }
    return did;
}

void cake__index_check(const cake__index_t *index)
{
    uint64_t used = 0, segments = 0, deepest = 0;
    for (uint32_t at = 0, cells; at >> index->depth == 0; at += cells) {
        uintptr_t cell = index->directory[at];
        const cake__segment_t *segment = cake__cell_segment(cell);
        cells = 1u << (index->depth - segment->depth);
        for (uint32_t i = 0; i < cells; i++)
            CAKE_ASSERT(index->directory[at + i] == cell);
        uint32_t count = 0;
        for (uint32_t i = 0; i <= cake__cell_mask(cell); i++) {
            const cake__group_t *group = &cake__cell_groups(cell)[i];
            uint32_t here = CAKE__GROUP - (uint32_t)__builtin_popcount(cake__tags_equal(group, 0));
            CAKE_ASSERT(cake__at_home(group) <= here && (here == CAKE__GROUP || group->tags[here] == 0));
            count += here;
        }
        CAKE_ASSERT(count == segment->used && segment->depth <= index->depth);
        CAKE_ASSERT(count < segment->groups * CAKE__GROUP);
        used += count;
        segments += segment->memory != NULL;
        deepest += segment->depth == index->depth;
    }
    CAKE_ASSERT(used == index->used && segments == index->segments);
    CAKE_ASSERT(index->depth == 0 || deepest == index->deepest);
}
