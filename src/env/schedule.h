/* schedule.h: what the loop of every environment keeps: timers by their deadlines, and deferred calls in their
 * order. Loop thread. */
#ifndef CAKE_ENV_SCHEDULE_H
#define CAKE_ENV_SCHEDULE_H

#include <datacake/env.h>

#include "base/heap.h"

/* Equal deadlines fire in the order of arming. */
typedef struct cake__timers {
    cake__heap_t heap;
    uint64_t sequence; /* of the next that is armed */
} cake__timers_t;

void cake__timers_init(cake__timers_t *timers);
void cake__timers_arm(cake__timers_t *timers, cake_timer_t *timer, uint64_t deadline_ns); /* moves an armed one */
void cake__timers_cancel(cake__timers_t *timers, cake_timer_t *timer);
cake_timer_t *cake__timers_least(const cake__timers_t *timers);  /* NULL: none */
uint64_t cake__timers_deadline_ns(const cake__timers_t *timers); /* the least one's; CAKE_NEVER: none */

typedef struct cake__deferreds {
    cake_deferred_t *first, **last;
} cake__deferreds_t;

void cake__deferreds_init(cake__deferreds_t *deferreds);
void cake__deferreds_add(cake__deferreds_t *deferreds, cake_deferred_t *deferred); /* nothing when queued */
void cake__deferreds_cancel(cake__deferreds_t *deferreds, cake_deferred_t *deferred);
bool cake__deferreds_run_one(cake__deferreds_t *deferreds); /* false: there is none */

#endif
