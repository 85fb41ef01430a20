/* index.c: see index.h. */
#include "crdt/index.h"

#define DEPTH_MAX 28u
#define AHEAD     24u /* entries whose ids are fetched ahead while a segment is made anew */

/* ---- segments ----------------------------------------------------------------------------------------------------- */

static size_t segment_bytes(uint32_t groups)
{
    return sizeof(cake__segment_t) + groups * sizeof(cake__group_t) + 63;
}

static cake__segment_t *segment_new(cake__index_t *index, uint32_t groups, uint8_t depth)
{
    uint8_t *block = cake__malloc(index->alloc, segment_bytes(groups));
    if (block == NULL)
        return NULL;
    cake__segment_t *segment = (cake__segment_t *)(void *)block;
    uintptr_t first = ((uintptr_t)(block + sizeof *segment) + 63) & ~(uintptr_t)63;
    *segment = (cake__segment_t){.group_mask = groups - 1, .depth = depth, .groups = (cake__group_t *)first};
    for (uint32_t i = 0; i < groups; i++)
        memset(segment->groups[i].tags, 0, sizeof segment->groups[i].tags);
    index->bytes += segment_bytes(groups);
    index->segments++;
    return segment;
}

static void segment_free(cake__index_t *index, cake__segment_t *segment)
{
    if (segment == NULL)
        return;
    index->bytes -= segment_bytes(segment->group_mask + 1);
    index->segments--;
    cake__free(index->alloc, segment);
}

/* Seven eighths; a segment of one group keeps one tag empty all the same. */
static bool is_full(const cake__segment_t *segment)
{
    uint32_t entries = (segment->group_mask + 1) * CAKE__GROUP;
    return segment->used >= entries - entries / 8;
}

static void set_entry(cake__segment_t *segment, cake__group_t *group, uint32_t empty, uint64_t hash, uint32_t slot)
{
    uint32_t at = (uint32_t)__builtin_ctz(empty);
    group->tags[at] = cake__tag_of(hash);
    group->slots[at] = slot;
    segment->used++;
}

static void segment_put(cake__segment_t *segment, uint64_t hash, uint32_t slot)
{
    uint32_t at = cake__home_group(segment, hash), empty;
    while ((empty = cake__tags_equal(&segment->groups[at], 0)) == 0)
        at = (at + 1) & segment->group_mask;
    set_entry(segment, &segment->groups[at], empty, hash, slot);
}

/* ---- making segments anew ----------------------------------------------------------------------------------------- */

static uint32_t slot_at(const cake__segment_t *segment, uint32_t entry)
{
    return segment->groups[entry / CAKE__GROUP].slots[entry % CAKE__GROUP];
}

static uint8_t tag_at(const cake__segment_t *segment, uint32_t entry)
{
    return segment->groups[entry / CAKE__GROUP].tags[entry % CAKE__GROUP];
}

static bool belongs(const cake__segment_t *segment, uint64_t hash, uint64_t hash_inside, uint8_t tag)
{
    return tag == cake__tag_of(hash) && (segment->depth == 0 || (hash ^ hash_inside) >> (64 - segment->depth) == 0);
}

/* The hash of every entry that still holds what it says, 0 for the others; returns how many hold. This is where the time
 * goes: each id is somewhere else, so they are fetched ahead. */
static uint32_t read_hashes(const cake__index_t *index, const cake__segment_t *segment, uint64_t hash_inside,
                            uint64_t *hashes)
{
    uint32_t entries = (segment->group_mask + 1) * CAKE__GROUP, held = 0;
    for (uint32_t i = 0; i < entries + AHEAD; i++) {
        if (i < entries && tag_at(segment, i) != 0)
            index->prefetch(index->ctx, slot_at(segment, i));
        if (i < AHEAD)
            continue;
        uint32_t entry = i - AHEAD;
        uint8_t tag = tag_at(segment, entry);
        uint64_t hash = tag == 0 ? 0 : index->hash_of(index->ctx, slot_at(segment, entry));
        hashes[entry] = hash != 0 && belongs(segment, hash, hash_inside, tag) ? hash : 0;
        held += hashes[entry] != 0;
    }
    return held;
}

/* to[0] and to[1] by the bit behind the old depth, or all to to[0]. */
static void move_entries(const cake__segment_t *from, const uint64_t *hashes, cake__segment_t *to[2])
{
    uint32_t entries = (from->group_mask + 1) * CAKE__GROUP;
    for (uint32_t i = 0; i < entries; i++) {
        if (hashes[i] != 0)
            segment_put(to[to[1] != NULL ? hashes[i] >> (63 - from->depth) & 1 : 0], hashes[i], slot_at(from, i));
    }
}

/* All directory cells of `old` (those that share its bits) now lead to the new ones, the upper half to to[1]. */
static void redirect(cake__index_t *index, const cake__segment_t *old, uint64_t hash, cake__segment_t *to[2])
{
    uint32_t cells = 1u << (index->depth - old->depth);
    uint64_t first = old->depth == 0 ? 0 : (hash >> (64 - old->depth)) << (index->depth - old->depth);
    for (uint32_t i = 0; i < cells; i++)
        index->directory[first + i] = to[to[1] != NULL && i >= cells / 2 ? 1 : 0];
}

static int double_directory(cake__index_t *index)
{
    size_t cells = (size_t)1 << index->depth;
    cake__segment_t **directory = cake__malloc(index->alloc, 2 * cells * sizeof *directory);
    if (directory == NULL)
        return CAKE_ENOMEM;
    for (size_t i = 0; i < cells; i++)
        directory[2 * i] = directory[2 * i + 1] = index->directory[i];
    cake__free(index->alloc, index->directory);
    index->directory = directory;
    index->bytes += cells * sizeof *directory;
    index->depth++;
    return 0;
}

/* Leaves what is stale behind; larger, or split, when more than half of the entries are held. */
static int make_room(cake__index_t *index, uint64_t hash)
{
    uint64_t hashes[CAKE__SEGMENT_GROUPS_MAX * CAKE__GROUP];
    cake__segment_t *old = cake__index_segment(index, hash), *to[2] = {NULL, NULL};
    uint32_t groups = old->group_mask + 1;
    bool grows = read_hashes(index, old, hash, hashes) * 2 > groups * CAKE__GROUP;
    bool splits = grows && groups == CAKE__SEGMENT_GROUPS_MAX;
    if (splits && old->depth >= DEPTH_MAX) /* only hashes that are equal on purpose come here */
        return CAKE_ENOMEM;
    if (splits && old->depth == index->depth && double_directory(index) != 0)
        return CAKE_ENOMEM;
    to[0] = segment_new(index, grows && !splits ? groups * 2 : groups, (uint8_t)(old->depth + splits));
    to[1] = splits ? segment_new(index, groups, (uint8_t)(old->depth + 1)) : NULL;
    if (to[0] == NULL || (splits && to[1] == NULL)) {
        segment_free(index, to[0]);
        segment_free(index, to[1]);
        return CAKE_ENOMEM;
    }
    move_entries(old, hashes, to);
    redirect(index, old, hash, to);
    segment_free(index, old);
    return 0;
}

/* ---- the index ------------------------------------------------------------------------------------------------------ */

void cake__index_init(cake__index_t *index, const cake_alloc_t *alloc, cake__index_hash_fn hash_of,
                      cake__index_prefetch_fn prefetch, const void *ctx)
{
    *index = (cake__index_t){.alloc = alloc, .hash_of = hash_of, .prefetch = prefetch, .ctx = ctx};
}

void cake__index_free(cake__index_t *index)
{
    size_t cells = index->directory == NULL ? 0 : (size_t)1 << index->depth;
    for (size_t i = 0; i < cells; i++) {
        cake__segment_t *segment = index->directory[i];
        bool is_last_cell = i + 1 == cells || index->directory[i + 1] != segment;
        if (is_last_cell)
            segment_free(index, segment);
    }
    cake__free(index->alloc, index->directory);
    cake__index_init(index, index->alloc, index->hash_of, index->prefetch, index->ctx);
}

static int begin(cake__index_t *index)
{
    index->directory = cake__malloc(index->alloc, sizeof *index->directory);
    if (index->directory == NULL)
        return CAKE_ENOMEM;
    index->directory[0] = segment_new(index, 1, 0);
    if (index->directory[0] == NULL) {
        cake__free(index->alloc, index->directory);
        index->directory = NULL;
        return CAKE_ENOMEM;
    }
    index->bytes += sizeof *index->directory;
    return 0;
}

/* An entry for this slot is there already, or one of the same tag that went stale is used again. Without this a key that
 * is written and dropped for ever at one position would fill its segment with equal entries. */
static bool reuse(cake__index_t *index, cake__group_t *group, uint64_t hash, uint32_t slot)
{
    for (uint32_t left = cake__tags_equal(group, cake__tag_of(hash)); left != 0; left &= left - 1) {
        uint32_t *held = &group->slots[__builtin_ctz(left)];
        if (*held == slot || index->hash_of(index->ctx, *held) == 0) {
            *held = slot;
            return true;
        }
    }
    return false;
}

int cake__index_put(cake__index_t *index, uint64_t hash, uint32_t slot)
{
    int err = index->directory == NULL ? begin(index) : 0;
    if (err != 0)
        return err;
    cake__segment_t *segment = cake__index_segment(index, hash);
    for (uint32_t at = cake__home_group(segment, hash);; at = (at + 1) & segment->group_mask) {
        cake__group_t *group = &segment->groups[at];
        if (reuse(index, group, hash, slot))
            return 0;
        uint32_t empty = cake__tags_equal(group, 0);
        if (empty == 0)
            continue;
        if (is_full(segment))
            break;
        set_entry(segment, group, empty, hash, slot);
        return 0;
    }
    while (is_full(cake__index_segment(index, hash))) {
        err = make_room(index, hash);
        if (err != 0)
            return err;
    }
    segment_put(cake__index_segment(index, hash), hash, slot);
    return 0;
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
