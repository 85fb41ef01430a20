/* hlc.c: the hybrid logical clock. `last` only grows; every change of it is one compare-and-swap, so that stamps of
 * many threads are distinct and each is above everything issued or observed before it. */
#include <datacake/hlc.h>

#include "base/base.h"

#define COUNTER_BITS 16u

static uint64_t load(const cake_clock_t *clock)
{
    return __atomic_load_n(&clock->last, __ATOMIC_ACQUIRE);
}

/* False: somebody else moved the clock; *expected is what it reads now. */
static bool swap(cake_clock_t *clock, uint64_t *expected, uint64_t desired)
{
    return __atomic_compare_exchange_n(&clock->last, expected, desired, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

void cake_clock_init(cake_clock_t *clock, uint64_t max_drift_ms, cake_hlc_t floor)
{
    clock->max_drift_ms = max_drift_ms == 0 ? CAKE_CLOCK_MAX_DRIFT_MS : max_drift_ms;
    __atomic_store_n(&clock->last, floor, __ATOMIC_RELEASE);
}

bool cake_clock_is_too_far_ahead(const cake_clock_t *clock, uint64_t wall_ms, cake_hlc_t ts)
{
    uint64_t ms = cake_hlc_unix_ms(ts);
    return ms > wall_ms && ms - wall_ms > clock->max_drift_ms;
}

int cake_clock_now(cake_clock_t *clock, uint64_t wall_ms, cake_hlc_t *out)
{
    return cake_clock_take(clock, wall_ms, 1, out);
}

int cake_clock_take(cake_clock_t *clock, uint64_t wall_ms, uint64_t count, cake_hlc_t *first)
{
    cake_hlc_t wall = cake_hlc_from_parts(wall_ms, 0);
    uint64_t last = load(clock);
    cake_hlc_t begin;
    do {
        /* Adding one to the whole number is what makes a full counter carry into the milliseconds. */
        begin = last == UINT64_MAX ? last : cake__max_u64(wall, last + 1);
        if (count == 0 || begin == last || count - 1 > UINT64_MAX - begin ||
            cake_clock_is_too_far_ahead(clock, wall_ms, begin + (count - 1)))
            return CAKE_EDRIFT;
    } while (!swap(clock, &last, begin + (count - 1)));
    *first = begin;
    return 0;
}

void cake_clock_advance(cake_clock_t *clock, cake_hlc_t ts)
{
    uint64_t last = load(clock);
    while (ts > last && !swap(clock, &last, ts))
        ;
}

int cake_clock_observe(cake_clock_t *clock, uint64_t wall_ms, cake_hlc_t ts)
{
    if (cake_clock_is_too_far_ahead(clock, wall_ms, ts))
        return CAKE_EDRIFT;
    cake_clock_advance(clock, ts);
    return 0;
}

/* A clock that is ahead of the wall clock moves by the counter alone and needs little: 65 million stamps a second. */
#define AHEAD_MS 1000u

bool cake_clock_needs_bound(const cake_clock_t *clock, uint64_t wall_ms, cake_hlc_t bound, cake_hlc_t *next)
{
    cake_hlc_t last = load(clock);
    if (last < bound)
        return false;
    uint64_t from_wall_ms = wall_ms > CAKE_HLC_MAX_MS ? CAKE_HLC_MAX_MS : wall_ms + CAKE_CLOCK_RESERVE_MS;
    *next = cake_hlc_from_parts(cake__max_u64(from_wall_ms, cake_hlc_unix_ms(last) + AHEAD_MS), UINT16_MAX);
    return true;
}

cake_hlc_t cake_clock_last(const cake_clock_t *clock)
{
    return load(clock);
}

cake_hlc_t cake_hlc_from_parts(uint64_t unix_ms, uint16_t counter)
{
    return cake__min_u64(unix_ms, CAKE_HLC_MAX_MS) << COUNTER_BITS | counter;
}

uint64_t cake_hlc_unix_ms(cake_hlc_t ts)
{
    return ts >> COUNTER_BITS;
}

uint16_t cake_hlc_counter(cake_hlc_t ts)
{
    return (uint16_t)ts;
}
