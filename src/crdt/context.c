/* context.c: see context.h for the picture and the invariants. Searches are binary; an append behind the last
 * range, which is what writes and sessions do, moves nothing. */
#include "crdt/context.h"

#include "crdt/mutant.h"

/* ---- actors ---------------------------------------------------------------------------------------------------- */

void cake__context_init(cake__context_t *context, const cake_alloc_t *alloc)
{
    *context = (cake__context_t){.alloc = alloc};
}

void cake__context_free(cake__context_t *context)
{
    for (uint32_t i = 0; i < context->count; i++)
        cake__free(context->alloc, context->actors[i].ranges);
    cake__free(context->alloc, context->actors);
    cake__retired_release(context->retired);
    cake__context_init(context, context->alloc);
}

void cake__context_swap(cake__context_t *a, cake__context_t *b)
{
    cake__context_t swap = *a;
    *a = *b;
    *b = swap;
}

/* The index of the first actor that is not below this one. */
static uint32_t lower_bound(const cake__context_t *context, uint64_t actor)
{
    uint32_t low = 0, high = context->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (context->actors[middle].actor < actor)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const cake__actor_dots_t *cake__context_find(const cake__context_t *context, uint64_t actor)
{
    uint32_t at = lower_bound(context, actor);
    return at < context->count && context->actors[at].actor == actor ? &context->actors[at] : NULL;
}

static const cake__actor_dots_t *from_table(uint64_t actor, uint64_t seq, cake__actor_dots_t *spare)
{
    *spare = (cake__actor_dots_t){.actor = actor, .base = seq};
    return spare;
}

const cake__actor_dots_t *cake__context_view(const cake__context_t *context, uint64_t actor, cake__actor_dots_t *spare)
{
    const cake__actor_dots_t *listed = cake__context_find(context, actor);
    uint64_t seq = listed == NULL ? cake__retired_seq(context->retired, actor) : 0;
    return seq != 0 ? from_table(actor, seq, spare) : listed;
}

const cake__actor_dots_t *cake__context_actor(const cake__context_t *context, uint32_t *index,
                                              cake__actor_dots_t *spare)
{
    if (*index < context->count)
        return &context->actors[*index];
    uint32_t end = context->count + (context->retired == NULL ? 0 : context->retired->count);
    for (; *index < end; ++*index) {
        const struct cake__retired_entry *entry = &context->retired->entries[*index - context->count];
        if (cake__context_find(context, entry->actor) == NULL)
            return from_table(entry->actor, entry->seq, spare);
    }
    return NULL;
}

static bool reserve_actors(cake__context_t *context, uint32_t need)
{
    if (need <= context->capacity)
        return true;
    uint32_t capacity = context->capacity == 0 ? 1 : context->capacity * 2;
    capacity = capacity < need ? need : capacity;
    cake__actor_dots_t *actors = cake__realloc(context->alloc, context->actors, capacity * sizeof *actors);
    if (actors == NULL)
        return false;
    context->actors = actors;
    context->capacity = capacity;
    return true;
}

static bool reserve_ranges(const cake_alloc_t *alloc, cake__actor_dots_t *dots, uint32_t need)
{
    if (need <= dots->range_capacity)
        return true;
    uint32_t capacity = dots->range_capacity < 4 ? 4 : dots->range_capacity * 2;
    capacity = capacity < need ? need : capacity;
    cake__run_t *ranges = cake__realloc(alloc, dots->ranges, capacity * sizeof *ranges);
    if (ranges == NULL)
        return false;
    dots->ranges = ranges;
    dots->range_capacity = capacity;
    return true;
}

/* A slot for an actor that is not there yet; it must get dots before anybody looks. */
static cake__actor_dots_t *insert_actor(cake__context_t *context, uint32_t at, uint64_t actor)
{
    if (!reserve_actors(context, context->count + 1))
        return NULL;
    memmove(context->actors + at + 1, context->actors + at, (context->count - at) * sizeof *context->actors);
    context->actors[at] = (cake__actor_dots_t){.actor = actor};
    context->count++;
    return &context->actors[at];
}

/* ---- runs of one actor ------------------------------------------------------------------------------------------- */

/* The first range whose last seq is at or above `seq`. */
static uint32_t range_at_or_above(const cake__actor_dots_t *dots, uint64_t seq)
{
    uint32_t low = 0, high = dots->range_count;
    if (high > 0 && dots->ranges[high - 1].last < seq)
        return high;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (dots->ranges[middle].last < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void remove_ranges(cake__actor_dots_t *dots, uint32_t at, uint32_t count)
{
    memmove(dots->ranges + at, dots->ranges + at + count, (dots->range_count - at - count) * sizeof *dots->ranges);
    dots->range_count -= count;
}

/* The base takes in every range that touches it. */
static void absorb_into_base(cake__actor_dots_t *dots)
{
    uint32_t count = 0;
    while (count < dots->range_count && dots->ranges[count].first <= dots->base + 1) {
        dots->base = cake__max_u64(dots->base, dots->ranges[count].last);
        count++;
    }
    if (count > 0)
        remove_ranges(dots, 0, count);
}

static int add_run(const cake_alloc_t *alloc, cake__actor_dots_t *dots, uint64_t first, uint64_t last)
{
    if (first <= dots->base + 1) {
        if (last > dots->base) {
            dots->base = last;
            absorb_into_base(dots);
        }
        return 0;
    }
    uint32_t at = range_at_or_above(dots, first - 1); /* this one overlaps or touches, or comes behind */
    if (at == dots->range_count || last + 1 < dots->ranges[at].first) {
        if (!reserve_ranges(alloc, dots, dots->range_count + 1))
            return CAKE_ENOMEM;
        memmove(dots->ranges + at + 1, dots->ranges + at, (dots->range_count - at) * sizeof *dots->ranges);
        dots->ranges[at] = (cake__run_t){first, last};
        dots->range_count++;
        return 0;
    }
    cake__run_t *run = &dots->ranges[at];
    run->first = cake__min_u64(run->first, first);
    run->last = cake__max_u64(run->last, last);
    uint32_t swallowed = 0;
    while (at + 1 + swallowed < dots->range_count && dots->ranges[at + 1 + swallowed].first <= run->last + 1) {
        run->last = cake__max_u64(run->last, dots->ranges[at + 1 + swallowed].last);
        swallowed++;
    }
    if (swallowed > 0)
        remove_ranges(dots, at + 1, swallowed);
    return 0;
}

bool cake__actor_dots_contain(const cake__actor_dots_t *dots, uint64_t first, uint64_t last)
{
    if (last <= dots->base)
        return true;
    uint32_t at = range_at_or_above(dots, last);
    return at < dots->range_count && dots->ranges[at].first <= first;
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

int cake__context_copy(cake__context_t *to, const cake__context_t *from)
{
    cake__context_t copy;
    cake__context_init(&copy, to->alloc);
    if (!reserve_actors(&copy, from->count))
        return CAKE_ENOMEM;
    for (uint32_t i = 0; i < from->count; i++) {
        const cake__actor_dots_t *dots = &from->actors[i];
        copy.actors[i] = (cake__actor_dots_t){.actor = dots->actor, .base = dots->base};
        copy.count++;
        if (!reserve_ranges(copy.alloc, &copy.actors[i], dots->range_count)) {
            cake__context_free(&copy);
            return CAKE_ENOMEM;
        }
        copy.actors[i].range_count = dots->range_count;
        if (dots->range_count > 0)
            memcpy(copy.actors[i].ranges, dots->ranges, dots->range_count * sizeof *dots->ranges);
    }
    copy.retired = cake__retired_share(from->retired);
    copy.reference = from->reference;
    cake__context_free(to);
    *to = copy;
    return 0;
}

int cake__context_add_run(cake__context_t *context, uint64_t actor, uint64_t first, uint64_t last)
{
    CAKE_ASSERT(first >= 1 && first <= last && last <= CAKE_SEQ_MAX);
    uint32_t at = lower_bound(context, actor);
    bool is_known = at < context->count && context->actors[at].actor == actor;
    uint64_t retired = is_known ? 0 : cake__retired_seq(context->retired, actor);
    if (last <= retired)
        return 0;
    if (!is_known && insert_actor(context, at, actor) == NULL)
        return CAKE_ENOMEM;
    if (retired > 0 && !CAKE__MUTANT(foldbase)) /* it writes after all: listed again, beside its entry */
        context->actors[at].base = retired;
    int err = add_run(context->alloc, &context->actors[at], first, last);
    if (err != 0 && !is_known) {
        memmove(context->actors + at, context->actors + at + 1, (context->count - at - 1) * sizeof *context->actors);
        context->count--;
    }
    return err;
}

int cake__context_add(cake__context_t *context, cake_dot_t dot)
{
    return cake__context_add_run(context, dot.actor, dot.seq, dot.seq);
}

/* Two sorted lists of runs become one. */
static int union_of(const cake_alloc_t *alloc, const cake__actor_dots_t *a, const cake__actor_dots_t *b,
                    cake__actor_dots_t *out)
{
    *out = (cake__actor_dots_t){.actor = a->actor, .base = cake__max_u64(a->base, b->base)};
    if (!reserve_ranges(alloc, out, a->range_count + b->range_count))
        return CAKE_ENOMEM;
    uint32_t i = 0, k = 0;
    while (i < a->range_count || k < b->range_count) {
        bool from_a = k == b->range_count || (i < a->range_count && a->ranges[i].first <= b->ranges[k].first);
        cake__run_t run = from_a ? a->ranges[i++] : b->ranges[k++];
        int err = add_run(alloc, out, run.first, run.last); /* always at the end */
        CAKE_ASSERT(err == 0);
    }
    return 0;
}

/* Joins what both have of one actor. It is not listed where the table says as much. */
static int join_actor(cake__context_t *into, const cake__context_t *a, const cake__context_t *b, uint64_t actor)
{
    cake__actor_dots_t spare_a, spare_b, none = {.actor = actor}, *made = &into->actors[into->count];
    const cake__actor_dots_t *mine = cake__context_view(a, actor, &spare_a);
    const cake__actor_dots_t *theirs = cake__context_view(b, actor, &spare_b);
    int err = union_of(into->alloc, mine == NULL ? &none : mine, theirs == NULL ? &none : theirs, made);
    if (err != 0)
        return err;
    if (made->range_count == 0 && made->base == cake__retired_seq(into->retired, actor))
        cake__free(into->alloc, made->ranges);
    else
        into->count++;
    return 0;
}

/* All of other's runs that have no place in the ranges yet make the join need memory; most joins need none. */
static bool join_is_plain(const cake__context_t *context, const cake__context_t *other)
{
    if (other->retired != NULL && !cake__retired_same(context->retired, other->retired) && !CAKE__MUTANT(foldjoin))
        return false;
    for (uint32_t i = 0; i < other->count; i++) {
        const cake__actor_dots_t *mine = cake__context_find(context, other->actors[i].actor);
        if (mine == NULL || other->actors[i].range_count > 0)
            return false;
    }
    return true;
}

int cake__context_join(cake__context_t *context, const cake__context_t *other)
{
    if (join_is_plain(context, other)) {
        for (uint32_t i = 0; i < other->count; i++) {
            uint32_t at = lower_bound(context, other->actors[i].actor);
            int err = add_run(context->alloc, &context->actors[at], 1, other->actors[i].base);
            CAKE_ASSERT(err == 0);
        }
        return 0;
    }
    cake__context_t joined;
    cake__context_init(&joined, context->alloc);
    int err = reserve_actors(&joined, context->count + other->count) ? 0 : CAKE_ENOMEM;
    cake__retired_t *theirs = CAKE__MUTANT(foldjoin) ? NULL : other->retired;
    if (err == 0)
        err = cake__retired_union(context->alloc, context->retired, theirs, &joined.retired);
    uint32_t i = 0, k = 0;
    while (err == 0 && (i < context->count || k < other->count)) {
        uint64_t mine = i < context->count ? context->actors[i].actor : UINT64_MAX;
        uint64_t actor = k < other->count ? cake__min_u64(mine, other->actors[k].actor) : mine;
        err = join_actor(&joined, context, other, actor);
        i += i < context->count && context->actors[i].actor == actor;
        k += k < other->count && other->actors[k].actor == actor;
    }
    if (err == 0)
        cake__context_swap(context, &joined);
    cake__context_free(&joined);
    return err;
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

bool cake__context_is_empty(const cake__context_t *context)
{
    return context->count == 0 && context->retired == NULL && context->reference == 0;
}

bool cake__context_contains(const cake__context_t *context, cake_dot_t dot)
{
    cake__actor_dots_t spare;
    const cake__actor_dots_t *dots = cake__context_view(context, dot.actor, &spare);
    return dots != NULL && cake__actor_dots_contain(dots, dot.seq, dot.seq);
}

/* The dots of `dots` up to `limit` are a subset of the context. */
static bool covers_up_to(const cake__context_t *context, const cake__actor_dots_t *dots, uint64_t limit)
{
    cake__actor_dots_t spare;
    const cake__actor_dots_t *mine = cake__context_view(context, dots->actor, &spare);
    uint64_t base = cake__min_u64(dots->base, limit);
    if (mine == NULL)
        return base == 0 && (dots->range_count == 0 || dots->ranges[0].first > limit);
    if (base > mine->base)
        return false;
    for (uint32_t i = 0; i < dots->range_count && dots->ranges[i].first <= limit; i++) {
        if (!cake__actor_dots_contain(mine, dots->ranges[i].first, cake__min_u64(dots->ranges[i].last, limit)))
            return false;
    }
    return true;
}

/* All that a table stands for is in the context. */
static bool table_is_covered(const cake__context_t *context, const cake__retired_t *table)
{
    cake__actor_dots_t spare;
    if (table == NULL || cake__retired_same(context->retired, table))
        return true;
    for (uint32_t i = 0; i < table->count; i++) {
        const cake__actor_dots_t *mine = cake__context_view(context, table->entries[i].actor, &spare);
        if (mine == NULL || mine->base < table->entries[i].seq)
            return false;
    }
    return true;
}

bool cake__context_covers(const cake__context_t *context, const cake__context_t *other)
{
    for (uint32_t i = 0; i < other->count; i++) {
        if (!covers_up_to(context, &other->actors[i], UINT64_MAX))
            return false;
    }
    return table_is_covered(context, other->retired);
}

bool cake__dropped_is_covered(const cake__context_t *context, const cake__limits_t *limits,
                              const cake__context_t *other)
{
    cake__actor_dots_t spare;
    for (uint32_t i = 0; i < limits->count; i++) {
        const cake__actor_dots_t *dots = cake__context_view(context, limits->items[i].actor, &spare);
#ifdef CAKE_MUTANTS
        const cake__actor_dots_t *theirs = cake__context_find(other, limits->items[i].actor);
        uint64_t limit = limits->items[i].seq;
        if (CAKE__MUTANT(graw) && (theirs == NULL || !cake__actor_dots_contain(theirs, 1, limit)))
            return false;
#endif
        if (dots != NULL && !covers_up_to(other, dots, limits->items[i].seq))
            return false;
    }
    return CAKE__MUTANT(foldnoG) || table_is_covered(other, context->retired); /* rule 8 */
}

static bool lists_are_equal(const cake__context_t *a, const cake__context_t *b)
{
    if (a->count != b->count)
        return false;
    for (uint32_t i = 0; i < a->count; i++) {
        const cake__actor_dots_t *x = &a->actors[i], *y = &b->actors[i];
        if (x->actor != y->actor || x->base != y->base || x->range_count != y->range_count)
            return false;
        if (x->range_count > 0 && memcmp(x->ranges, y->ranges, x->range_count * sizeof *x->ranges) != 0)
            return false;
    }
    return true;
}

bool cake__context_equal(const cake__context_t *a, const cake__context_t *b)
{
    cake__context_cursor_t at_a = {0}, at_b = {0};
    uint64_t actor_a, actor_b;
    cake__run_t run_a, run_b;
    if (cake__retired_same(a->retired, b->retired))
        return lists_are_equal(a, b);
    while (cake__context_next(a, &at_a, &actor_a, &run_a)) {
        if (!cake__context_next(b, &at_b, &actor_b, &run_b) || actor_a != actor_b || run_a.first != run_b.first ||
            run_a.last != run_b.last)
            return false;
    }
    return !cake__context_next(b, &at_b, &actor_b, &run_b);
}

uint64_t cake__context_base(const cake__context_t *context, uint64_t actor)
{
    cake__actor_dots_t spare;
    const cake__actor_dots_t *dots = cake__context_view(context, actor, &spare);
    return dots == NULL ? 0 : dots->base;
}

uint64_t cake__actor_dots_highest(const cake__actor_dots_t *dots)
{
    return dots->range_count == 0 ? dots->base : dots->ranges[dots->range_count - 1].last;
}

uint64_t cake__context_highest(const cake__context_t *context, uint64_t actor)
{
    cake__actor_dots_t spare;
    const cake__actor_dots_t *dots = cake__context_view(context, actor, &spare);
    return dots == NULL ? 0 : cake__actor_dots_highest(dots);
}

uint64_t cake__context_count(const cake__context_t *context)
{
    cake__context_cursor_t cursor = {0};
    uint64_t actor, count = 0;
    cake__run_t run;
    while (cake__context_next(context, &cursor, &actor, &run))
        count += run.last - run.first + 1;
    return count;
}

/* The sum of one hash per actor, so that the part of the table is known: O(listed actors). */
uint64_t cake__context_hash(const cake__context_t *context)
{
    uint64_t sum = context->retired == NULL ? 0 : context->retired->sum;
    for (uint32_t i = 0; i < context->count; i++) {
        const cake__actor_dots_t *dots = &context->actors[i];
        uint64_t hash = cake__actor_hash(dots->actor, dots->base);
        uint64_t retired = cake__retired_seq(context->retired, dots->actor);
        for (uint32_t k = 0; k < dots->range_count; k++)
            hash = cake__mix64(hash ^ cake__mix64(dots->ranges[k].first) ^
                               (dots->ranges[k].last * UINT64_C(0x9e3779b97f4a7c15)));
        sum += hash - (retired == 0 ? 0 : cake__actor_hash(dots->actor, retired));
    }
    return sum;
}

/* The next run of the list, if the cursor is not at its end. */
static void next_listed(const cake__actor_dots_t *dots, cake__context_cursor_t *cursor, cake__run_t *run)
{
    if (cursor->range_index == 0 && dots->base > 0) {
        *run = (cake__run_t){1, dots->base};
    } else {
        cursor->range_index += cursor->range_index == 0;
        *run = dots->ranges[cursor->range_index - 1];
    }
    if (cursor->range_index++ == dots->range_count) {
        cursor->actor_index++;
        cursor->range_index = 0;
    }
}

bool cake__context_next(const cake__context_t *context, cake__context_cursor_t *cursor, uint64_t *actor,
                        cake__run_t *run)
{
    const cake__actor_dots_t *dots =
        cursor->actor_index < context->count ? &context->actors[cursor->actor_index] : NULL;
    const struct cake__retired_entry *entry =
        context->retired == NULL ? NULL : &context->retired->entries[cursor->retired_index];
    const struct cake__retired_entry *end = entry == NULL ? NULL : &context->retired->entries[context->retired->count];
    if (entry != end && dots != NULL && entry->actor == dots->actor) { /* the list says more */
        entry++;
        cursor->retired_index++;
    }
    if (entry != end && (dots == NULL || entry->actor < dots->actor)) {
        *actor = entry->actor;
        *run = (cake__run_t){1, entry->seq};
        cursor->retired_index++;
        return true;
    }
    if (dots == NULL)
        return false;
    *actor = dots->actor;
    next_listed(dots, cursor, run);
    return true;
}

bool cake__actor_dots_gap(const cake__actor_dots_t *have, const cake__actor_dots_t *lacking, uint64_t from,
                          cake__run_t *gap)
{
    while (from != 0 && from <= cake__actor_dots_highest(have)) {
        uint32_t i = from <= have->base ? 0 : range_at_or_above(have, from);
        cake__run_t run = from <= have->base ? (cake__run_t){1, have->base} : have->ranges[i];
        gap->first = cake__max_u64(from, run.first);
        gap->last = run.last;
        if (lacking == NULL)
            return true;
        if (gap->first <= lacking->base) {
            from = lacking->base + 1;
            continue;
        }
        uint32_t k = range_at_or_above(lacking, gap->first);
        if (k < lacking->range_count && lacking->ranges[k].first <= gap->first) {
            from = lacking->ranges[k].last + 1;
            continue;
        }
        if (k < lacking->range_count)
            gap->last = cake__min_u64(gap->last, lacking->ranges[k].first - 1);
        return true;
    }
    return false;
}
