/* index.h: from ids to slots, 5 bytes an entry: an 8-bit tag of the hash and a 32-bit slot, probed 16 tags at a time.
 *
 *      directory: the upper `depth` bits of the hash     segment: groups of 16, home group by the middle bits
 *      [ 00 | 01 | 10 | 11 ] ──> segment ──> tags  [t t t . . ][t t . . . ]...      tag 0: never used
 *          └────┘ may be one                 slots [s s s . . ][s s . . . ]...
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

#define CAKE__GROUP              16u
#define CAKE__SEGMENT_GROUPS_MAX 256u
#define CAKE__SLOT_NONE          UINT32_MAX

typedef struct cake__segment {
    uint32_t group_mask, used; /* used: tags that are not 0 */
    uint32_t *slots;
    uint8_t *tags;
    uint8_t depth; /* bits of the hash that all its entries share */
} cake__segment_t;

/* False: the slot no longer holds anything. *hash: of the id that it holds. */
typedef bool (*cake__index_hash_fn)(void *ctx, uint32_t slot, uint64_t *hash);

typedef struct cake__index {
    cake__segment_t **directory; /* NULL: nothing was ever put */
    uint32_t depth, segments;
    size_t bytes;
    cake__index_hash_fn hash_of;
    void *ctx;
    const cake_alloc_t *alloc;
} cake__index_t;

void cake__index_init(cake__index_t *index, const cake_alloc_t *alloc, cake__index_hash_fn hash_of, void *ctx);
void cake__index_free(cake__index_t *index);
int cake__index_put(cake__index_t *index, uint64_t hash, uint32_t slot); /* 0 or CAKE_ENOMEM, and then no change */
/* The entry of this slot now leads to another; false when there is none. */
bool cake__index_replace(cake__index_t *index, uint64_t hash, uint32_t from, uint32_t to);

static inline uint8_t cake__tag_of(uint64_t hash)
{
    uint8_t tag = (uint8_t)hash;
    return tag == 0 ? 1 : tag;
}

/* A bit for each of 16 tags that equals this one. */
static inline uint32_t cake__tags_equal(const uint8_t *tags, uint8_t tag)
{
#if defined(__SSE2__) && !defined(CAKE_NO_SIMD)
    __m128i group = _mm_load_si128((const __m128i *)(const void *)tags);
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(group, _mm_set1_epi8((char)tag)));
#else
    uint32_t found = 0;
    for (uint32_t i = 0; i < CAKE__GROUP; i++)
        found |= (uint32_t)(tags[i] == tag) << i;
    return found;
#endif
}

/* All slots whose tag matches, in probe order:
 *      for (cake__probe_begin(&probe, index, hash); cake__probe_next(&probe);) use probe.slot[0] */
typedef struct cake__probe {
    const cake__segment_t *segment;
    uint32_t group, matches;
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
    probe->matches = probe->group = 0;
    probe->segment = index->directory == NULL ? NULL : cake__index_segment(index, hash);
    if (probe->segment == NULL)
        return;
    probe->group = cake__home_group(probe->segment, hash);
    __builtin_prefetch(probe->segment->slots + probe->group * CAKE__GROUP);
    probe->matches = cake__tags_equal(probe->segment->tags + probe->group * CAKE__GROUP, probe->tag);
}

static inline bool cake__probe_next(cake__probe_t *probe)
{
    if (probe->segment == NULL)
        return false;
    while (probe->matches == 0) {
        const uint8_t *tags = probe->segment->tags + probe->group * CAKE__GROUP;
        if (cake__tags_equal(tags, 0) != 0)
            return false;
        probe->group = (probe->group + 1) & probe->segment->group_mask;
        probe->matches = cake__tags_equal(probe->segment->tags + probe->group * CAKE__GROUP, probe->tag);
    }
    probe->slot = probe->segment->slots + probe->group * CAKE__GROUP + (uint32_t)__builtin_ctz(probe->matches);
    probe->matches &= probe->matches - 1;
    return true;
}

#endif
