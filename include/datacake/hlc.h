/* datacake/hlc.h: the hybrid logical clock (Kulkarni et al., 2014): time stamps that are close to the wall clock,
 * respect causality, and never go back.
 *
 *      63                          16 15        0
 *      [ Unix milliseconds (48 bits) | counter  ]      stamps compare as numbers; a full counter carries into the ms
 *
 *   cake_clock_t clock;
 *   cake_clock_init(&clock, 60000, 0);
 *   cake_hlc_t ts;
 *   if (cake_clock_now(&clock, wall_ms, &ts) == 0) ...      an event of ours
 *   if (cake_clock_observe(&clock, wall_ms, theirs) == 0)   one from elsewhere: later stamps are above it
 *
 * All calls on one clock may come from any threads at once: a stamp is one compare-and-swap. Every call is O(1) and
 * takes no memory; a clock is the caller's, and needs no end. CAKE_EDRIFT is the only error but where another is
 * named. */
#ifndef DATACAKE_HLC_H
#define DATACAKE_HLC_H

#include <datacake/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef uint64_t cake_hlc_t;

#define CAKE_HLC_TEXT_MAX       40u /* bytes, the terminating zero included */
#define CAKE_HLC_MAX_MS         ((UINT64_C(1) << 48) - 1)
#define CAKE_CLOCK_MAX_DRIFT_MS 60000u
#define CAKE_CLOCK_RESERVE_MS   10000u /* how far a bound is ahead of the wall clock */

typedef struct cake_clock {
    uint64_t last;         /* the greatest stamp issued or observed; atomic */
    uint64_t max_drift_ms; /* constant after init */
} cake_clock_t;

/* Begins above `floor`: after a restart, the upper bound that was made durable ahead of use. max_drift_ms 0:
 * default. */
CAKE_API void cake_clock_init(cake_clock_t *clock, uint64_t max_drift_ms, cake_hlc_t floor);

/* A stamp above every one issued or observed before. CAKE_EDRIFT when that is further ahead of wall_ms than the drift
 * allowed (model, rule 1): nothing changed, try again once the wall clock has caught up. */
CAKE_API int cake_clock_now(cake_clock_t *clock, uint64_t wall_ms, cake_hlc_t *out);

/* `count` stamps in a row at the price of one, the first in *first, the others each one more. CAKE_EDRIFT (also for
 * none): as above, and none is taken. */
CAKE_API int cake_clock_take(cake_clock_t *clock, uint64_t wall_ms, uint64_t count, cake_hlc_t *first);

/* Takes note of a stamp from elsewhere. CAKE_EDRIFT when it is too far ahead of wall_ms: nothing changed. */
CAKE_API int cake_clock_observe(cake_clock_t *clock, uint64_t wall_ms, cake_hlc_t ts);

/* Raises the clock without a check: for stamps that this node had accepted before (loading, horizons). */
CAKE_API void cake_clock_advance(cake_clock_t *clock, cake_hlc_t ts);

/* The persisted bound: after a restart the wall clock may be behind what was issued before, so an upper bound of all
 * stamps is made durable ahead of their use, and the next run begins above it (init). true: *next is to be durable
 * before any stamp issued by now leaves the process; bound is the last that is (0: none). Bounds are some seconds
 * ahead, so that few writes wait for one; measured from the wall clock, so that a clock which is ahead is not pushed
 * further by every restart.
 *
 *   if (cake_clock_needs_bound(&clock, wall_ms, bound, &next)) { ... write next, wait for the disk ...; bound = next; }
 *   ... send the stamp ... */
CAKE_API bool cake_clock_needs_bound(const cake_clock_t *clock, uint64_t wall_ms, cake_hlc_t bound, cake_hlc_t *next);

CAKE_API bool cake_clock_is_too_far_ahead(const cake_clock_t *clock, uint64_t wall_ms, cake_hlc_t ts);
CAKE_API cake_hlc_t cake_clock_last(const cake_clock_t *clock);

CAKE_API cake_hlc_t cake_hlc_from_parts(uint64_t unix_ms, uint16_t counter); /* ms above 48 bits are cut to the most */
CAKE_API uint64_t cake_hlc_unix_ms(cake_hlc_t ts);
CAKE_API uint16_t cake_hlc_counter(cake_hlc_t ts);
static inline int cake_hlc_compare(cake_hlc_t a, cake_hlc_t b)
{
    return (a > b) - (a < b);
}

/* "2026-11-22T10:20:30.123Z+0042" (UTC, counter in hex). Every stamp round-trips; years above 9999 have five digits.
 * Returns the length, or CAKE_ETOOBIG and no text when size is too small. */
CAKE_API int cake_hlc_format(cake_hlc_t ts, char *out, size_t size);
/* Exactly what format writes; anything else is CAKE_EPARSE and *out is unchanged. */
CAKE_API int cake_hlc_parse(const char *text, cake_hlc_t *out);

#ifdef __cplusplus
}
#endif
#endif
