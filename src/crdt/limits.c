/* limits.c: g, per actor the greatest seq of a dropped tombstone, and the summary {C, g, H}. */
#include "crdt/context.h"

void cake__limits_init(cake__limits_t *limits, const cake_alloc_t *alloc)
{
    *limits = (cake__limits_t){.alloc = alloc};
}

void cake__limits_free(cake__limits_t *limits)
{
    if (limits->alloc != NULL)
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
