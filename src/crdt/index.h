/* index.h: from ids to slots: groups of one cache line, 12 entries each, an 8-bit tag of the hash and a 32-bit slot.
 *
 *      directory: the upper `depth` bits of the hash     group: [ t t t t t . . . . . . . - - - - | s s s s s . . . . . . . ]
 *      [ 00 | 01 | 10 | 11 ] ──> segment ──> groups             12 tags (0: never used), 4 unused    12 slots
 *          └────┘ may be one                 home group by the middle bits, then the next ones
 *
 * Entries are hints. The owner decides whether a slot still holds the id that it looks for, so nothing is ever removed:
 * what has gone stale is left behind when a segment is made anew. A segment grows to 256 groups and is then split in two
 * (extendible hashing; Fagin et al., 1979), so that no insertion moves more than one segment. Invariant: every segment
 * has an empty tag in its probe sequence, where searches end. */
#ifndef CAKE_CRDT_INDEX_H
#define CAKE_CRDT_INDEX_H

#include "base/base.h"

#if defined(__SSE2__) && !defined(CAKE_NO_SIMD)
#include <emmintrin.h>
#endif

#define CAKE__GROUP              12u
#define CAKE__GROUP_MASK         0xfffu
#define CAKE__SEGMENT_GROUPS_MAX 256u
#define CAKE__SLOT_NONE          UINT32_MAX

typedef struct cake__group {
    uint8_t tags[16];
    uint32_t slots[CAKE__GROUP];
} cake__group_t;

typedef struct cake__segment {
    uint32_t group_mask, used; /* used: tags that are not 0 */
    cake__group_t *groups;     /* aligned to 64 bytes, behind this header */
    uint8_t depth;             /* bits of the hash that all its entries share */
} cake__segment_t;

/* The hash of the id that a slot holds, never 0; 0: it no longer holds anything. */
typedef uint64_t (*cake__index_hash_fn)(const void *ctx, uint32_t slot);
typedef void (*cake__index_prefetch_fn)(const void *ctx, uint32_t slot); /* it will be asked for soon */

typedef struct cake__index {
    cake__segment_t **directory; /* NULL: nothing was ever put */
    uint32_t depth, segments;
    size_t bytes;
    cake__index_hash_fn hash_of;
    cake__index_prefetch_fn prefetch;
    const void *ctx;
    const cake_alloc_t *alloc;
} cake__index_t;

void cake__index_init(cake__index_t *index, const cake_alloc_t *alloc, cake__index_hash_fn hash_of,
                      cake__index_prefetch_fn prefetch, const void *ctx);
void cake__index_free(cake__index_t *index);
int cake__index_put(cake__index_t *index, uint64_t hash, uint32_t slot); /* 0 or CAKE_ENOMEM, and then no change */
/* The entry of this slot now leads to another; false when there is none. */
bool cake__index_replace(cake__index_t *index, uint64_t hash, uint32_t from, uint32_t to);

static inline uint8_t cake__tag_of(uint64_t hash)
{
    uint8_t tag = (uint8_t)hash;
    return tag == 0 ? 1 : tag;
}

/* A bit for each of the 12 tags that equals this one. */
static inline uint32_t cake__tags_equal(const cake__group_t *group, uint8_t tag)
{
#if defined(__SSE2__) && !defined(CAKE_NO_SIMD)
    __m128i tags = _mm_load_si128((const __m128i *)(const void *)group->tags);
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(tags, _mm_set1_epi8((char)tag))) & CAKE__GROUP_MASK;
#else
    uint32_t found = 0;
    for (uint32_t i = 0; i < CAKE__GROUP; i++)
        found |= (uint32_t)(group->tags[i] == tag) << i;
    return found;
#endif
}

/* All slots whose tag matches, in probe order:
 *      for (cake__probe_begin(&probe, index, hash); cake__probe_next(&probe);) use *probe.slot */
typedef struct cake__probe {
    const cake__segment_t *segment;
    uint32_t at, matches;
    uint8_t tag;
    uint32_t *slot;
} cake__probe_t;

static inline cake__segment_t *cake__index_segment(const cake__index_t *index, uint64_t hash)
{
    return index->directory[index->depth == 0 ? 0 : hash >> (64 - index->depth)];
}

static inline uint32_t cake__home_group(const cake__segment_t *segment, uint64_t hash)
{
    return (uint32_t)(hash >> 8) & segment->group_mask;
}

static inline void cake__probe_begin(cake__probe_t *probe, const cake__index_t *index, uint64_t hash)
{
    probe->tag = cake__tag_of(hash);
    probe->matches = probe->at = 0;
    probe->segment = index->directory == NULL ? NULL : cake__index_segment(index, hash);
    if (probe->segment == NULL)
        return;
    probe->at = cake__home_group(probe->segment, hash);
    probe->matches = cake__tags_equal(&probe->segment->groups[probe->at], probe->tag);
}

static inline bool cake__probe_next(cake__probe_t *probe)
{
    if (probe->segment == NULL)
        return false;
    while (probe->matches == 0) {
        if (cake__tags_equal(&probe->segment->groups[probe->at], 0) != 0)
            return false;
        probe->at = (probe->at + 1) & probe->segment->group_mask;
        probe->matches = cake__tags_equal(&probe->segment->groups[probe->at], probe->tag);
    }
    probe->slot = &probe->segment->groups[probe->at].slots[__builtin_ctz(probe->matches)];
    probe->matches &= probe->matches - 1;
    return true;
}

#endif
