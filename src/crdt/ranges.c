/* ranges.c: see ranges.h. */
#include "crdt/ranges.h"

#define TOP_BITS        8u
#define PREPARE_AT_ONCE 4u /* pages: a fifth of a MB */

uint32_t cake__range_bits_for(uint64_t records, uint32_t leaf_records)
{
    uint32_t bits = 0;
    while (bits < CAKE__RANGE_BITS_MAX && records > (uint64_t)leaf_records << bits)
        bits += CAKE__RANGE_STEP;
    return bits;
}

/* Where the ranges of these bits begin: 1 + 16 + 256 ... are before them. */
static inline uint32_t top_at(uint32_t bits)
{
    return ((1u << bits) - 1) / (CAKE__RANGE_FAN - 1);
}

/* The same in a page, which begins 4 bits below the top: 16 + 256 ... */
static inline uint32_t page_at(uint32_t bits)
{
    return top_at(bits - TOP_BITS) - 1;
}

static uint32_t page_ranges(const cake__ranges_t *ranges)
{
    return page_at(ranges->bits + CAKE__RANGE_STEP);
}

void cake__ranges_init(cake__ranges_t *ranges, const cake_alloc_t *alloc, uint32_t bits)
{
    CAKE_ASSERT(bits <= CAKE__RANGE_BITS_MAX && bits % CAKE__RANGE_STEP == 0);
    memset(ranges, 0, sizeof *ranges);
    ranges->alloc = alloc;
    ranges->bits = bits;
}

void cake__ranges_free(cake__ranges_t *ranges)
{
    for (uint32_t i = 0; i < ranges->page_count; i++)
        cake__free(ranges->alloc, ranges->pages[i].sums);
    ranges->page_count = 0;
}

int cake__ranges_prepare(cake__ranges_t *ranges, bool *has_more)
{
    uint32_t size = ranges->bits <= TOP_BITS ? 0 : page_ranges(ranges);
    for (uint32_t i = 0; i < PREPARE_AT_ONCE && size > 0 && ranges->page_count < CAKE__RANGE_PAGES; i++) {
        struct cake__range_page *page = &ranges->pages[ranges->page_count];
        page->sums = cake__calloc(ranges->alloc, size, sizeof *page->sums + sizeof *page->counts);
        if (page->sums == NULL)
            return CAKE_ENOMEM;
        page->counts = (uint32_t *)(void *)(page->sums + size);
        ranges->page_count++;
    }
    *has_more = size > 0 && ranges->page_count < CAKE__RANGE_PAGES;
    return 0;
}

/* Where one range is kept. */
static uint64_t *find(const cake__ranges_t *ranges, uint32_t bits, uint32_t index, uint32_t **count)
{
    cake__ranges_t *owned = (cake__ranges_t *)(uintptr_t)ranges;
    CAKE_ASSERT(bits <= ranges->bits && bits % CAKE__RANGE_STEP == 0 && index >> bits == 0);
    if (bits <= TOP_BITS) {
        uint32_t at = top_at(bits) + index;
        *count = &owned->top_counts[at];
        return &owned->top_sums[at];
    }
    uint32_t below = bits - TOP_BITS, at = index & ((1u << below) - 1);
    struct cake__range_page *page = &owned->pages[index >> below];
    at += page_at(bits);
    *count = &page->counts[at];
    return &page->sums[at];
}

void cake__ranges_add(cake__ranges_t *ranges, const cake_record_t *record)
{
    cake__id_pair_t id = cake__id_pair(&record->id);
    uint64_t position = cake__range_position(id), fingerprint = cake__fingerprint_of(id, record->dot);
    for (uint32_t bits = 0; bits <= ranges->bits; bits += CAKE__RANGE_STEP) {
        uint32_t *count;
        uint64_t *sum = find(ranges, bits, cake__range_index(position, bits), &count);
        *sum += fingerprint;
        ++*count;
    }
}

uint64_t cake__ranges_sum(const cake__ranges_t *ranges, uint32_t bits, uint32_t index)
{
    uint32_t *count;
    return *find(ranges, bits, index, &count);
}

uint32_t cake__ranges_count(const cake__ranges_t *ranges, uint32_t bits, uint32_t index)
{
    uint32_t *count;
    (void)find(ranges, bits, index, &count);
    return *count;
}

size_t cake__ranges_bytes(const cake__ranges_t *ranges)
{
    return ranges->page_count == 0 ? 0 : (size_t)ranges->page_count * page_ranges(ranges) * 12;
}

/* ---- walks ------------------------------------------------------------------------------------------------------- */

int cake__walk_init(cake__walk_t *walk, const cake_alloc_t *alloc, const cake__context_t *dots)
{
    *walk = (cake__walk_t){.dots = dots, .run = {1, 0}, .alloc = alloc};
    walk->records = cake__malloc(alloc, CAKE__WALK_PART * sizeof *walk->records);
    return walk->records == NULL ? CAKE_ENOMEM : 0;
}

void cake__walk_free(cake__walk_t *walk)
{
    if (walk->alloc != NULL)
        cake__free(walk->alloc, walk->records);
    walk->records = NULL;
}

bool cake__walk_next(cake__walk_t *walk, const cake__table_t *table, size_t *count)
{
    *count = 0;
    if (walk->run.first > walk->run.last && !cake__context_next(walk->dots, &walk->cursor, &walk->actor, &walk->run))
        return false;
    *count = cake__table_select(table, walk->actor, walk->run.first, walk->run.last, walk->records, CAKE__WALK_PART);
    walk->run.first = *count < CAKE__WALK_PART ? walk->run.last + 1 : walk->records[CAKE__WALK_PART - 1].dot.seq + 1;
    return true;
}

/* ---- the ranges of a repair -------------------------------------------------------------------------------------- */

int cake__range_build_init(cake__range_build_t *build, const cake_alloc_t *alloc, uint32_t bits,
                           const cake__context_t *walked, const cake__context_t *within, cake_hlc_t horizon)
{
    cake__ranges_init(&build->ranges, alloc, bits);
    build->within = within;
    build->horizon = horizon;
    build->has_actor = build->is_prepared = build->is_done = false;
    build->lane = NULL;
    return cake__walk_init(&build->walk, alloc, walked);
}

void cake__range_build_free(cake__range_build_t *build)
{
    cake__ranges_free(&build->ranges);
    cake__walk_free(&build->walk);
}

static void add_record(cake__range_build_t *build, const cake_record_t *record)
{
    if (record->is_tombstone || record->hlc > build->horizon)
        return;
    if (!build->has_actor || build->actor != record->dot.actor) {
        build->actor = record->dot.actor;
        build->lane = cake__context_view(build->within, build->actor, &build->spare);
        build->has_actor = true;
    }
    if (build->lane != NULL && cake__actor_dots_contain(build->lane, record->dot.seq, record->dot.seq))
        cake__ranges_add(&build->ranges, record);
}

int cake__range_build_step(cake__range_build_t *build, const cake__table_t *table, size_t records)
{
    if (!build->is_prepared) {
        bool has_more;
        int err = cake__ranges_prepare(&build->ranges, &has_more);
        build->is_prepared = err == 0 && !has_more;
        return err;
    }
    for (size_t done = 0, count; done < records && !build->is_done; done += count + 16) {
        build->is_done = !cake__walk_next(&build->walk, table, &count);
        for (size_t i = 0; i < count; i++)
            add_record(build, &build->walk.records[i]);
    }
    return 0;
}
