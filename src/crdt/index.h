/* index.h: from ids to slots: groups of one cache line, 12 entries each, an 8-bit tag of the hash and a 32-bit slot.
 *
 *      directory: the upper `depth` bits of a hash  group: [ t t t t t . . . . . . . | next | s s s s s . . . . . . . ]
 *      [ 00 | 01 | 10 | 11 ] ──> segment ──> groups             12 tags (0: never used)           12 slots
 *          └────┘ may be one                 home group by the middle bits, then the next ones
 *
 * Entries are hints. The owner decides whether a slot still holds the id that it looks for, so what has gone is not
 * taken out: it is left behind when a segment is made anew. A segment grows to 64 groups and is then split in two
 * (extendible hashing; Fagin et al., 1979), so that no insertion moves more than one segment; two halves that have
 * become mostly empty are joined again by cake__index_tidy, a few segments at a time.
 *
 * Making a segment anew needs the hashes of its entries, and so their ids, each of which is a cache miss. To need
 * them less often a group keeps in `next`, per entry, the two bits of its hash that decide the next two splits, and
 * the number of entries that are at home here: those come first, and only the others, which found their home full,
 * must be asked for.
 *
 * A directory cell is the address of the first group, a multiple of 64 (16 in small segments), with the logarithm
 * of the number of groups in its lower bits: one miss leads from a hash to its group.
 *
 * Invariants: every segment has an empty tag in its probe sequence, where searches end; the directory has a
 * segment of its full depth, or is of depth 0. */
#ifndef CAKE_CRDT_INDEX_H
#define CAKE_CRDT_INDEX_H

#include "base/base.h"

#if defined(__SSE2__) && !defined(CAKE_NO_SIMD)
#include <emmintrin.h>
#endif

#define CAKE__GROUP              12u
#define CAKE__GROUP_MASK         0xfffu
#define CAKE__SEGMENT_GROUPS_MAX 64u
#define CAKE__SLOT_NONE          UINT32_MAX
#define CAKE__CELL_BITS          15u /* of a directory cell: the logarithm */

typedef struct cake__group {
    uint8_t tags[CAKE__GROUP];
    uint32_t next; /* two bits per entry, the lower one the later; above them the number of entries at home */
    uint32_t slots[CAKE__GROUP];
} cake__group_t;

/* Right before the first group. */
typedef struct cake__segment {
    void *memory;
    uint32_t groups, used; /* used: tags that are not 0 */
    uint32_t room;         /* until it is three quarters full */
    uint8_t depth;         /* bits of the hash that all its entries share */
    uint8_t known;         /* how many bits of `next` are still to be used, 0..2 */
} cake__segment_t;

/* The hash of the id that a slot holds, never 0; 0: it no longer holds anything. */
typedef uint64_t (*cake__index_hash_fn)(const void *ctx, uint32_t slot);
typedef void (*cake__index_prefetch_fn)(const void *ctx, uint32_t slot); /* it will be asked for soon */

typedef struct cake__index {
    uintptr_t *directory; /* `only` while depth is 0 */
    uintptr_t only;
    uint32_t depth, segments;
    uint32_t deepest; /* segments of the directory's full depth */
    uint32_t tidied;  /* the cell where cake__index_tidy goes on */
    uint64_t used;    /* entries, stale ones too */
    uint64_t work;    /* ever moved or looked at beside what was asked for: entries, records, cache lines of lists */
    size_t bytes;
    cake__index_hash_fn hash_of;
    cake__index_prefetch_fn prefetch;
    const void *ctx;
    const cake_alloc_t *alloc;
} cake__index_t;

void cake__index_init(cake__index_t *index, const cake_alloc_t *alloc, cake__index_hash_fn hash_of,
                      cake__index_prefetch_fn prefetch, const void *ctx);
void cake__index_free(cake__index_t *index);
/* 0 or CAKE_ENOMEM, and then no change. The slot must hold an id of this hash already. held: how many records there
 * are, which tells about how many entries are stale. */
int cake__index_put(cake__index_t *index, uint64_t hash, uint32_t slot, uint64_t held);
/* The entry of this slot now leads to another; false when there is none. */
bool cake__index_replace(cake__index_t *index, uint64_t hash, uint32_t from, uint32_t to);
/* Gives back memory: looks at up to `limit` segments, leaves behind what is stale and joins halves; without time
 * only once nearly everything is stale. False when it found nothing to do. Needs no memory to be correct. */
bool cake__index_tidy(cake__index_t *index, uint64_t held, uint32_t limit, bool has_time);
void cake__index_check(const cake__index_t *index); /* asserts the invariants; for tests */

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
    /* Not _mm_set1_epi8: compilers store the byte and read more back, for which all before it must end. */
    __m128i wanted = _mm_shuffle_epi32(_mm_cvtsi32_si128((int)(tag * UINT32_C(0x01010101))), 0);
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(tags, wanted)) & CAKE__GROUP_MASK;
#else
    uint32_t found = 0;
    for (uint32_t i = 0; i < CAKE__GROUP; i++)
        found |= (uint32_t)(group->tags[i] == tag) << i;
    return found;
#endif
}

/* ---- where a hash leads ------------------------------------------------------------------------------------------ */

static inline cake__group_t *cake__cell_groups(uintptr_t cell)
{
    return (cake__group_t *)(cell & ~(uintptr_t)CAKE__CELL_BITS);
}

static inline uint32_t cake__cell_mask(uintptr_t cell)
{
    return (1u << (cell & CAKE__CELL_BITS)) - 1;
}

static inline cake__segment_t *cake__cell_segment(uintptr_t cell)
{
    return (cake__segment_t *)(void *)cake__cell_groups(cell) - 1;
}

static inline uintptr_t cake__index_cell(const cake__index_t *index, uint64_t hash)
{
    return index->directory[hash >> 1 >> (63 - index->depth)];
}

static inline cake__group_t *cake__index_home(const cake__index_t *index, uint64_t hash)
{
    uintptr_t cell = cake__index_cell(index, hash);
    return cake__cell_groups(cell) + ((uint32_t)(hash >> 8) & cake__cell_mask(cell));
}

static inline bool cake__index_has_room(const cake__index_t *index, uint64_t hash)
{
    return cake__cell_segment(cake__index_cell(index, hash))->room > 0;
}

/* All slots whose tag matches, in probe order, then the group with the first empty tag:
 *      for (cake__probe_begin(&probe, index, hash); cake__probe_next(&probe);) use *probe.slot */
typedef struct cake__probe {
    cake__group_t *groups;
    uint32_t at, mask, matches;
    uint8_t tag;
    uint32_t *slot;
} cake__probe_t;

static inline void cake__probe_begin(cake__probe_t *probe, const cake__index_t *index, uint64_t hash)
{
    uintptr_t cell = cake__index_cell(index, hash);
    probe->tag = cake__tag_of(hash);
    probe->groups = cake__cell_groups(cell);
    probe->mask = cake__cell_mask(cell);
    probe->at = (uint32_t)(hash >> 8) & probe->mask;
    probe->matches = cake__tags_equal(&probe->groups[probe->at], probe->tag);
}

static inline bool cake__probe_next(cake__probe_t *probe)
{
    while (probe->matches == 0) {
        if (cake__tags_equal(&probe->groups[probe->at], 0) != 0)
            return false;
        probe->at = (probe->at + 1) & probe->mask;
        probe->matches = cake__tags_equal(&probe->groups[probe->at], probe->tag);
    }
    probe->slot = &probe->groups[probe->at].slots[__builtin_ctz(probe->matches)];
    probe->matches &= probe->matches - 1;
    return true;
}

/* ---- entries ----------------------------------------------------------------------------------------------------- */

static inline uint32_t cake__next_of(const cake__group_t *group, uint32_t entry)
{
    return group->next >> (2 * entry) & 3;
}

static inline uint32_t cake__at_home(const cake__group_t *group)
{
    return group->next >> (2 * CAKE__GROUP);
}

/* The two bits behind the first `depth` ones. */
static inline uint32_t cake__next_bits(uint64_t hash, uint32_t depth)
{
    return (uint32_t)(hash << depth >> 62);
}

/* A new entry in a group that has an empty tag. Entries at home stay before the others: one of those makes way. */
static inline void cake__group_add(cake__group_t *group, uint8_t tag, uint32_t next, uint32_t slot, bool is_home)
{
    uint32_t at = (uint32_t)__builtin_ctz(cake__tags_equal(group, 0));
    if (is_home) {
        uint32_t home = cake__at_home(group);
        if (home < at) {
            group->tags[at] = group->tags[home];
            group->slots[at] = group->slots[home];
            group->next |= cake__next_of(group, home) << (2 * at);
            group->next &= ~(3u << (2 * home));
            at = home;
        }
        group->next += 1u << (2 * CAKE__GROUP);
    }
    group->tags[at] = tag;
    group->slots[at] = slot;
    group->next |= next << (2 * at);
}

#endif
