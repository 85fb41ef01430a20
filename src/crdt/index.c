/* index.c: see index.h. Joining segments again: index_tidy.c. */
#include "crdt/index_internal.h"

#define DEPTH_MAX         28u
#define CELLS_PER_SEGMENT 64u /* of the directory; more only where hashes are equal on purpose */

/* What every index without a segment leads to: one empty group of a segment without room. */
static const struct {
    _Alignas(64) uint8_t unused[64 - sizeof(cake__segment_t)];
    cake__segment_t segment;
    cake__group_t group;
} NONE = {.segment = {.groups = 1}};

static uintptr_t no_cell(void)
{
    return (uintptr_t)(const void *)&NONE.group;
}

/* ---- segments ---------------------------------------------------------------------------------------------------- */

static size_t segment_bytes(uint32_t groups)
{
    size_t alignment = groups < 8 ? 16 : 64; /* a small one may lie across two lines */
    return sizeof(cake__segment_t) + groups * sizeof(cake__group_t) + alignment - 1;
}

/* Three quarters: fuller ones have many entries away from home. */
static uint32_t room_of(uint32_t groups)
{
    uint32_t entries = groups * CAKE__GROUP;
    return entries - (entries + 3) / 4;
}

uintptr_t cake__segment_new(cake__index_t *index, uint32_t groups, uint32_t depth)
{
    uintptr_t alignment = groups < 8 ? 16 : 64;
    uint8_t *memory = cake__malloc(index->alloc, segment_bytes(groups));
    if (memory == NULL)
        return 0;
    uintptr_t cell = ((uintptr_t)(memory + sizeof(cake__segment_t)) + alignment - 1) & ~(alignment - 1);
    *cake__cell_segment(cell) = (cake__segment_t){.memory = memory,
                                                  .groups = groups,
                                                  .room = room_of(groups),
                                                  .depth = (uint8_t)depth,
                                                  .known = depth == 0 ? 0 : 2};
    cake__group_t *group = cake__cell_groups(cell);
    for (uint32_t i = 0; i < groups; i++) {
        memset(group[i].tags, 0, sizeof group[i].tags);
        group[i].next = 0;
    }
    index->bytes += segment_bytes(groups);
    index->segments++;
    return cell | (uint32_t)__builtin_ctz(groups);
}

void cake__segment_free(cake__index_t *index, uintptr_t cell)
{
    if (cell == 0 || cell == no_cell())
        return;
    cake__segment_t *segment = cake__cell_segment(cell);
    index->bytes -= segment_bytes(segment->groups);
    index->segments--;
    index->used -= segment->used;
    cake__free(index->alloc, segment->memory);
}

void cake__segment_add(cake__index_t *index, uintptr_t cell, uint64_t hash, uint32_t slot)
{
    cake__segment_t *segment = cake__cell_segment(cell);
    uint32_t mask = segment->groups - 1, home = (uint32_t)(hash >> 8) & mask, at = home;
    cake__group_t *groups = cake__cell_groups(cell);
    while (cake__tags_equal(&groups[at], 0) == 0)
        at = (at + 1) & mask;
    CAKE_ASSERT(segment->room > 0);
    cake__group_add(&groups[at], cake__tag_of(hash), cake__next_bits(hash, segment->depth), slot, at == home);
    segment->used++;
    segment->room--;
    index->used++;
}

/* ---- making segments anew ---------------------------------------------------------------------------------------- */

static bool belongs(const cake__segment_t *segment, uint64_t hash, uint64_t hash_inside, uint8_t tag)
{
    return tag == cake__tag_of(hash) && (segment->depth == 0 || (hash ^ hash_inside) >> (64 - segment->depth) == 0);
}

uint32_t cake__segment_hashes(cake__index_t *index, uintptr_t cell, uint64_t hash_inside, uint64_t *hashes)
{
    const cake__segment_t *segment = cake__cell_segment(cell);
    const cake__group_t *groups = cake__cell_groups(cell);
    uint32_t entries = segment->groups * CAKE__GROUP, held = 0;
    index->work += entries;
    for (uint32_t i = 0; i < entries + CAKE__INDEX_AHEAD; i++) {
        if (i < entries && groups[i / CAKE__GROUP].tags[i % CAKE__GROUP] != 0)
            index->prefetch(index->ctx, groups[i / CAKE__GROUP].slots[i % CAKE__GROUP]);
        if (i < CAKE__INDEX_AHEAD)
            continue;
        uint32_t entry = i - CAKE__INDEX_AHEAD;
        const cake__group_t *group = &groups[entry / CAKE__GROUP];
        uint8_t tag = group->tags[entry % CAKE__GROUP];
        uint64_t hash = tag == 0 ? 0 : index->hash_of(index->ctx, group->slots[entry % CAKE__GROUP]);
        hashes[entry] = hash != 0 && belongs(segment, hash, hash_inside, tag) ? hash : 0;
        held += hashes[entry] != 0;
    }
    return held;
}

void cake__segment_move(cake__index_t *index, uintptr_t from, const uint64_t *hashes, const uintptr_t to[2])
{
    const cake__segment_t *segment = cake__cell_segment(from);
    const cake__group_t *groups = cake__cell_groups(from);
    for (uint32_t i = 0; i < segment->groups * CAKE__GROUP; i++) {
        bool is_upper = to[1] != 0 && (hashes[i] >> (63 - segment->depth) & 1) != 0;
        if (hashes[i] != 0)
            cake__segment_add(index, to[is_upper], hashes[i], groups[i / CAKE__GROUP].slots[i % CAKE__GROUP]);
    }
}

void cake__index_redirect(cake__index_t *index, uint32_t depth, uint64_t hash, const uintptr_t to[2])
{
    uint32_t cells = 1u << (index->depth - depth);
    uint64_t first = (hash >> 1 >> (63 - depth)) << (index->depth - depth);
    for (uint32_t i = 0; i < cells; i++)
        index->directory[first + i] = to[to[1] != 0 && i >= cells / 2 ? 1 : 0];
}

static int double_directory(cake__index_t *index)
{
    size_t cells = (size_t)1 << index->depth;
    uintptr_t *directory = cake__malloc(index->alloc, 2 * cells * sizeof *directory);
    if (directory == NULL)
        return CAKE_ENOMEM;
    for (size_t i = 0; i < cells; i++)
        directory[2 * i] = directory[2 * i + 1] = index->directory[i];
    if (index->directory != &index->only)
        cake__free(index->alloc, index->directory);
    index->bytes += (index->depth == 0 ? 2 * cells : cells) * sizeof *directory;
    index->work += cells / CAKE__CELLS_PER_LINE;
    index->directory = directory;
    index->depth++;
    index->deepest = 0;
    return 0;
}

/* ---- splitting by what is known ---------------------------------------------------------------------------------- */

/* The entries at home go to the same group of one half or the other; their ids are not needed. */
static void split_homes(cake__index_t *index, uintptr_t from, const uintptr_t to[2])
{
    const cake__group_t *groups = cake__cell_groups(from);
    for (uint32_t at = 0; at < CAKE__SEGMENT_GROUPS_MAX; at++) {
        uint32_t home = cake__at_home(&groups[at]), moved[2] = {0, 0};
        for (uint32_t i = 0; i < home; i++) {
            uint32_t next = cake__next_of(&groups[at], i), upper = next >> 1;
            cake__group_t *group = &cake__cell_groups(to[upper])[at];
            group->tags[moved[upper]] = groups[at].tags[i];
            group->slots[moved[upper]] = groups[at].slots[i];
            group->next |= (next & 1) << 1 << (2 * moved[upper]);
            moved[upper]++;
        }
        for (uint32_t upper = 0; upper < 2; upper++) {
            cake__cell_groups(to[upper])[at].next |= moved[upper] << (2 * CAKE__GROUP);
            cake__cell_segment(to[upper])->used += moved[upper];
            cake__cell_segment(to[upper])->room -= moved[upper];
            index->used += moved[upper];
        }
    }
}

/* The others are asked for. */
static void split_displaced(cake__index_t *index, uintptr_t from, uint64_t hash_inside, const uintptr_t to[2])
{
    const cake__segment_t *segment = cake__cell_segment(from);
    const cake__group_t *groups = cake__cell_groups(from);
    uint32_t slots[CAKE__SEGMENT_GROUPS_MAX * CAKE__GROUP], count = 0;
    uint8_t tags[CAKE__SEGMENT_GROUPS_MAX * CAKE__GROUP];
    for (uint32_t at = 0; at < CAKE__SEGMENT_GROUPS_MAX; at++) {
        for (uint32_t i = cake__at_home(&groups[at]); i < CAKE__GROUP && groups[at].tags[i] != 0; i++) {
            tags[count] = groups[at].tags[i];
            slots[count++] = groups[at].slots[i];
        }
    }
    for (uint32_t i = 0; i < count + CAKE__INDEX_AHEAD; i++) {
        if (i < count)
            index->prefetch(index->ctx, slots[i]);
        if (i < CAKE__INDEX_AHEAD)
            continue;
        uint32_t at = i - CAKE__INDEX_AHEAD;
        uint64_t hash = index->hash_of(index->ctx, slots[at]);
        if (hash != 0 && belongs(segment, hash, hash_inside, tags[at]))
            cake__segment_add(index, to[hash >> (63 - segment->depth) & 1], hash, slots[at]);
    }
}

/* ---- room -------------------------------------------------------------------------------------------------------- */

static int split(cake__index_t *index, uintptr_t old, uint64_t hash, const uint64_t *hashes)
{
    cake__segment_t *segment = cake__cell_segment(old);
    uint32_t depth = segment->depth;
    if (depth >= DEPTH_MAX || (depth == index->depth && 1u << depth > CELLS_PER_SEGMENT * index->segments))
        return CAKE_ENOMEM;
    uintptr_t to[2] = {cake__segment_new(index, CAKE__SEGMENT_GROUPS_MAX, depth + 1), 0};
    to[1] = cake__segment_new(index, CAKE__SEGMENT_GROUPS_MAX, depth + 1);
    if (to[0] == 0 || to[1] == 0 || (depth == index->depth && double_directory(index) != 0)) {
        cake__segment_free(index, to[0]);
        cake__segment_free(index, to[1]);
        return CAKE_ENOMEM;
    }
    if (hashes != NULL) {
        cake__segment_move(index, old, hashes, to);
    } else {
        index->work += segment->used;
        split_homes(index, old, to);
        split_displaced(index, old, hash, to);
        cake__cell_segment(to[0])->known = cake__cell_segment(to[1])->known = (uint8_t)(segment->known - 1);
    }
    index->deepest += depth + 1 == index->depth ? 2 : 0;
    cake__index_redirect(index, depth, hash, to);
    cake__segment_free(index, old);
    return 0;
}

/* Leaves what is stale behind; larger, or split, when more than half of the entries are held. */
static int make_room(cake__index_t *index, uint64_t hash, bool is_mostly_held)
{
    uint64_t hashes[CAKE__SEGMENT_GROUPS_MAX * CAKE__GROUP];
    uintptr_t old = cake__index_cell(index, hash), to[2] = {0, 0};
    const cake__segment_t *segment = cake__cell_segment(old);
    if (old == no_cell()) {
        to[0] = cake__segment_new(index, 1, 0);
        index->directory[0] = to[0] == 0 ? old : to[0];
        return to[0] == 0 ? CAKE_ENOMEM : 0;
    }
    uint32_t groups = segment->groups, depth = segment->depth;
    if (groups == CAKE__SEGMENT_GROUPS_MAX && segment->known > 0 && is_mostly_held)
        return split(index, old, hash, NULL);
    bool grows = cake__segment_hashes(index, old, hash, hashes) * 2 > groups * CAKE__GROUP;
    if (grows && groups == CAKE__SEGMENT_GROUPS_MAX)
        return split(index, old, hash, hashes);
    to[0] = cake__segment_new(index, grows ? groups * 2 : groups, depth);
    if (to[0] == 0)
        return CAKE_ENOMEM;
    cake__segment_move(index, old, hashes, to);
    cake__index_redirect(index, depth, hash, to);
    cake__segment_free(index, old);
    return 0;
}

/* ---- the index --------------------------------------------------------------------------------------------------- */

void cake__index_init(cake__index_t *index, const cake_alloc_t *alloc, cake__index_hash_fn hash_of,
                      cake__index_prefetch_fn prefetch, const void *ctx)
{
    *index = (cake__index_t){.alloc = alloc, .hash_of = hash_of, .prefetch = prefetch, .ctx = ctx, .only = no_cell()};
    index->directory = &index->only;
}

void cake__index_free(cake__index_t *index)
{
    size_t cells = (size_t)1 << index->depth;
    for (size_t i = 0; i < cells; i++) {
        uintptr_t cell = index->directory[i];
        bool is_last_cell = i + 1 == cells || index->directory[i + 1] != cell;
        if (is_last_cell)
            cake__segment_free(index, cell);
    }
    if (index->directory != &index->only)
        cake__free(index->alloc, index->directory);
    cake__index_init(index, index->alloc, index->hash_of, index->prefetch, index->ctx);
}

/* An entry for this slot is there already, or one of the same tag that went stale is used again. Without this a key
 * that is written and dropped for ever at one position would fill its segment with equal entries. An entry at home
 * stays one. */
static bool reuse(cake__index_t *index, cake__group_t *group, uint64_t hash, uint32_t slot, uint32_t next, bool is_home)
{
    for (uint32_t left = cake__tags_equal(group, cake__tag_of(hash)); left != 0; left &= left - 1) {
        uint32_t at = (uint32_t)__builtin_ctz(left), held = group->slots[at];
        bool is_stale = held == slot || index->hash_of(index->ctx, held) == 0;
        if (!is_stale || (at < cake__at_home(group) && !is_home))
            continue;
        group->slots[at] = slot;
        group->next = (group->next & ~(3u << (2 * at))) | next << (2 * at);
        return true;
    }
    return false;
}

static bool reuse_on_path(cake__index_t *index, uint64_t hash, uint32_t slot)
{
    uintptr_t cell = cake__index_cell(index, hash);
    uint32_t mask = cake__cell_mask(cell), home = (uint32_t)(hash >> 8) & mask, at = home;
    uint32_t next = cake__next_bits(hash, cake__cell_segment(cell)->depth);
    while (!reuse(index, &cake__cell_groups(cell)[at], hash, slot, next, at == home)) {
        if (cake__tags_equal(&cake__cell_groups(cell)[at], 0) != 0)
            return false;
        at = (at + 1) & mask;
    }
    return true;
}

int cake__index_put(cake__index_t *index, uint64_t hash, uint32_t slot, uint64_t held)
{
    int err = 0;
    while (err == 0 && !reuse_on_path(index, hash, slot)) {
        uintptr_t cell = cake__index_cell(index, hash);
        if (cake__cell_segment(cell)->room > 0) {
            cake__segment_add(index, cell, hash, slot);
            return 0;
        }
        err = make_room(index, hash, held >= index->used - index->used / 8);
    }
    return err;
}

bool cake__index_replace(cake__index_t *index, uint64_t hash, uint32_t from, uint32_t to)
{
    cake__probe_t probe;
    for (cake__probe_begin(&probe, index, hash); cake__probe_next(&probe);) {
        if (*probe.slot == from) {
            *probe.slot = to;
            return true;
        }
    }
    return false;
}
