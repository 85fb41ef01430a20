/* index.c: see index.h. */
#include "crdt/index.h"

#define DEPTH_MAX 28u

/* ---- segments ----------------------------------------------------------------------------------------------------- */

static size_t segment_bytes(uint32_t groups)
{
    return 64 + groups * CAKE__GROUP * (sizeof(uint32_t) + 1) + 64;
}

/* One block: the header, then the slots and the tags, each on a cache line of its own. */
static cake__segment_t *segment_new(cake__index_t *index, uint32_t groups, uint8_t depth)
{
    size_t entries = groups * CAKE__GROUP;
    uint8_t *block = cake__malloc(index->alloc, segment_bytes(groups));
    if (block == NULL)
        return NULL;
    cake__segment_t *segment = (cake__segment_t *)(void *)block;
    uintptr_t slots = ((uintptr_t)(block + sizeof *segment) + 63) & ~(uintptr_t)63;
    *segment = (cake__segment_t){.group_mask = groups - 1, .depth = depth};
    segment->slots = (uint32_t *)slots;
    segment->tags = (uint8_t *)(segment->slots + entries);
    memset(segment->tags, 0, entries);
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

static void segment_put(cake__segment_t *segment, uint64_t hash, uint32_t slot)
{
    uint32_t group = cake__home_group(segment, hash), empty;
    while ((empty = cake__tags_equal(segment->tags + group * CAKE__GROUP, 0)) == 0)
        group = (group + 1) & segment->group_mask;
    uint32_t at = group * CAKE__GROUP + (uint32_t)__builtin_ctz(empty);
    segment->tags[at] = cake__tag_of(hash);
    segment->slots[at] = slot;
    segment->used++;
}

/* ---- making segments anew ----------------------------------------------------------------------------------------- */

static bool belongs(const cake__segment_t *segment, uint64_t hash, uint64_t hash_inside, uint8_t tag)
{
    return tag == cake__tag_of(hash) && (segment->depth == 0 || (hash ^ hash_inside) >> (64 - segment->depth) == 0);
}

/* Moves the entries that still hold what they say; to[0] and to[1] by the bit behind the old depth, or all to to[0]. */
static void move_entries(const cake__index_t *index, const cake__segment_t *from, uint64_t hash_inside,
                         cake__segment_t *to[2])
{
    uint32_t entries = (from->group_mask + 1) * CAKE__GROUP;
    for (uint32_t i = 0; i < entries; i++) {
        uint64_t hash;
        bool holds = from->tags[i] != 0 && index->hash_of(index->ctx, from->slots[i], &hash);
        if (holds && belongs(from, hash, hash_inside, from->tags[i]))
            segment_put(to[to[1] != NULL ? hash >> (63 - from->depth) & 1 : 0], hash, from->slots[i]);
    }
}

static uint32_t count_held(const cake__index_t *index, const cake__segment_t *segment, uint64_t hash_inside)
{
    uint32_t entries = (segment->group_mask + 1) * CAKE__GROUP, held = 0;
    for (uint32_t i = 0; i < entries; i++) {
        uint64_t hash;
        held += segment->tags[i] != 0 && index->hash_of(index->ctx, segment->slots[i], &hash) &&
                belongs(segment, hash, hash_inside, segment->tags[i]);
    }
    return held;
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
    cake__segment_t *old = cake__index_segment(index, hash), *to[2] = {NULL, NULL};
    uint32_t groups = old->group_mask + 1;
    bool grows = count_held(index, old, hash) * 2 > groups * CAKE__GROUP;
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
    move_entries(index, old, hash, to);
    redirect(index, old, hash, to);
    segment_free(index, old);
    return 0;
}

/* ---- the index ------------------------------------------------------------------------------------------------------ */

void cake__index_init(cake__index_t *index, const cake_alloc_t *alloc, cake__index_hash_fn hash_of, void *ctx)
{
    *index = (cake__index_t){.alloc = alloc, .hash_of = hash_of, .ctx = ctx};
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
    cake__index_init(index, index->alloc, index->hash_of, index->ctx);
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

/* An entry for this slot is there already, or one of the same tag that went stale can be used again. Without this a key
 * that is written and dropped for ever at one position would fill its segment with equal entries. */
static bool reuse(cake__index_t *index, uint64_t hash, uint32_t slot)
{
    cake__probe_t probe;
    cake__probe_begin(&probe, index, hash);
    uint32_t *stale = NULL;
    while (cake__probe_next(&probe)) {
        uint64_t held;
        if (*probe.slot == slot)
            return true;
        if (stale == NULL && !index->hash_of(index->ctx, *probe.slot, &held))
            stale = probe.slot;
    }
    if (stale != NULL)
        *stale = slot;
    return stale != NULL;
}

int cake__index_put(cake__index_t *index, uint64_t hash, uint32_t slot)
{
    int err = index->directory == NULL ? begin(index) : 0;
    if (err != 0 || reuse(index, hash, slot))
        return err;
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
