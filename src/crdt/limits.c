/* limits.c: g, per actor the greatest seq of a dropped tombstone, and the summary {C, g, H}. */
#include "crdt/context.h"
#include "crdt/mutant.h"

void cake__limits_init(cake__limits_t *limits, const cake_alloc_t *alloc)
{
    *limits = (cake__limits_t){.alloc = alloc};
}

void cake__limits_free(cake__limits_t *limits)
{
    cake__free(limits->alloc, limits->items);
    cake__limits_init(limits, limits->alloc);
}

static bool reserve(cake__limits_t *limits, uint32_t need)
{
    if (need <= limits->capacity)
        return true;
    uint32_t capacity = limits->capacity < 4 ? 4 : limits->capacity * 2;
    capacity = capacity < need ? need : capacity;
    struct cake__limit *items = cake__realloc(limits->alloc, limits->items, capacity * sizeof *items);
    if (items == NULL)
        return false;
    limits->items = items;
    limits->capacity = capacity;
    return true;
}

static uint32_t lower_bound(const cake__limits_t *limits, uint64_t actor)
{
    uint32_t low = 0, high = limits->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (limits->items[middle].actor < actor)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int cake__limits_copy(cake__limits_t *to, const cake__limits_t *from)
{
    if (!reserve(to, from->count))
        return CAKE_ENOMEM;
    if (from->count > 0)
        memcpy(to->items, from->items, from->count * sizeof *from->items);
    to->count = from->count;
    return 0;
}

int cake__limits_reserve(cake__limits_t *limits)
{
    return reserve(limits, limits->count + 1) ? 0 : CAKE_ENOMEM;
}

int cake__limits_raise(cake__limits_t *limits, uint64_t actor, uint64_t seq)
{
    uint32_t at = lower_bound(limits, actor);
    if (at < limits->count && limits->items[at].actor == actor) {
        limits->items[at].seq = cake__max_u64(limits->items[at].seq, seq);
        return 0;
    }
    if (!reserve(limits, limits->count + 1))
        return CAKE_ENOMEM;
    memmove(limits->items + at + 1, limits->items + at, (limits->count - at) * sizeof *limits->items);
    limits->items[at] = (struct cake__limit){actor, seq};
    limits->count++;
    return 0;
}

int cake__limits_join(cake__limits_t *limits, const cake__limits_t *other)
{
    uint32_t missing = 0;
    for (uint32_t i = 0; i < other->count; i++)
        missing += cake__limits_get(limits, other->items[i].actor) == 0;
    if (!reserve(limits, limits->count + missing))
        return CAKE_ENOMEM;
    for (uint32_t i = 0; i < other->count; i++) {
        int err = cake__limits_raise(limits, other->items[i].actor, other->items[i].seq);
        CAKE_ASSERT(err == 0);
    }
    return 0;
}

uint64_t cake__limits_get(const cake__limits_t *limits, uint64_t actor)
{
    uint32_t at = lower_bound(limits, actor);
    return at < limits->count && limits->items[at].actor == actor ? limits->items[at].seq : 0;
}

void cake__summary_init(cake__summary_t *summary, const cake_alloc_t *alloc)
{
    cake__context_init(&summary->context, alloc);
    cake__limits_init(&summary->dropped, alloc);
    summary->horizon = 0;
}

void cake__summary_free(cake__summary_t *summary)
{
    cake__context_free(&summary->context);
    cake__limits_free(&summary->dropped);
    summary->horizon = 0;
}

int cake__summary_copy(cake__summary_t *to, const cake__summary_t *from)
{
    cake__context_t context;
    cake__context_init(&context, to->context.alloc);
    int err = cake__context_copy(&context, &from->context);
    if (err == 0)
        err = cake__limits_copy(&to->dropped, &from->dropped);
    if (err == 0) {
        cake__context_swap(&to->context, &context);
        to->horizon = from->horizon;
    }
    cake__context_free(&context);
    return err;
}

/* ---- rule 8 (retired.h) ------------------------------------------------------------------------------------------ */

uint64_t cake__summary_dropped(const cake__summary_t *summary, uint64_t actor)
{
    return cake__max_u64(cake__limits_get(&summary->dropped, actor),
                         cake__retired_seq(summary->context.retired, actor));
}

/* What is left of an array takes less memory, if that can be had. */
static void *shrink(const cake_alloc_t *alloc, void *items, uint32_t count, uint32_t *capacity, size_t size)
{
    uint32_t least = count < 4 ? 4 : count;
    void *smaller = *capacity <= least ? NULL : cake__realloc(alloc, items, least * size);
    if (smaller == NULL)
        return items;
    *capacity = least;
    return smaller;
}

void cake__summary_prune(cake__summary_t *summary)
{
    uint32_t kept = 0;
    if (summary->context.retired == NULL)
        return;
    for (uint32_t i = 0; i < summary->dropped.count; i++) {
        struct cake__limit limit = summary->dropped.items[i];
        if (limit.seq > cake__retired_seq(summary->context.retired, limit.actor))
            summary->dropped.items[kept++] = limit;
    }
    summary->dropped.count = kept;
    if (kept < summary->dropped.capacity / 4)
        summary->dropped.items = shrink(summary->dropped.alloc, summary->dropped.items, kept,
                                        &summary->dropped.capacity, sizeof *summary->dropped.items);
}

static bool is_among(const uint64_t *actors, size_t count, uint64_t actor)
{
    for (size_t i = 0; i < count; i++) {
        if (actors[i] == actor)
            return true;
    }
    return false;
}

/* All peers have acknowledged what C has of this actor, and nothing beyond it. */
static bool all_have_it(const cake__actor_dots_t *dots, const cake__context_t *const *peers, size_t count)
{
    for (size_t i = 0; i < count && !CAKE__MUTANT(foldunacked); i++) {
        cake__actor_dots_t spare;
        const cake__actor_dots_t *theirs = peers[i] == NULL ? dots : cake__context_view(peers[i], dots->actor, &spare);
        if (theirs == NULL || theirs->base < dots->base ||
            cake__actor_dots_highest(theirs) > cake__actor_dots_highest(dots))
            return false;
    }
    return true;
}

static int fold(cake__context_t *context, const struct cake__retired_entry *entries, uint32_t count)
{
    cake__retired_t *fresh, *both;
    int err = cake__retired_new(context->alloc, entries, count, &fresh);
    if (err != 0)
        return err;
    err = cake__retired_union(context->alloc, context->retired, fresh, &both);
    cake__retired_release(fresh);
    if (err != 0)
        return err;
    uint32_t kept = 0;
    for (uint32_t i = 0, next = 0; i < context->count; i++) {
        bool is_folded = next < count && entries[next].actor == context->actors[i].actor;
        next += is_folded;
        if (is_folded)
            cake__free(context->alloc, context->actors[i].ranges);
        else
            context->actors[kept++] = context->actors[i];
    }
    context->count = kept;
    context->actors = shrink(context->alloc, context->actors, kept, &context->capacity, sizeof *context->actors);
    cake__retired_release(context->retired);
    context->retired = both;
    if (CAKE__MUTANT(foldforget)) {
        cake__retired_release(both);
        context->retired = NULL;
    }
    return 0;
}

int cake__summary_retire(cake__summary_t *summary, const uint64_t *living, size_t living_count,
                         const cake__context_t *const *peers, size_t peer_count, size_t *count)
{
    cake__context_t *context = &summary->context;
    struct cake__retired_entry *entries = cake__malloc(context->alloc, context->count * sizeof *entries);
    uint32_t found = 0;
    *count = 0;
    if (entries == NULL)
        return CAKE_ENOMEM;
    for (uint32_t i = 0; i < context->count; i++) {
        const cake__actor_dots_t *dots = &context->actors[i];
        bool has_holes = dots->range_count > 0 && !CAKE__MUTANT(foldholes);
        uint64_t seq = has_holes ? 0 : cake__actor_dots_highest(dots);
        if (seq > 0 && !is_among(living, living_count, dots->actor) && all_have_it(dots, peers, peer_count))
            entries[found++] = (struct cake__retired_entry){dots->actor, seq};
    }
    int err = found == 0 ? 0 : fold(context, entries, found);
    cake__free(context->alloc, entries);
    if (err == 0) {
        *count = found;
        cake__summary_prune(summary);
    }
    return err;
}
