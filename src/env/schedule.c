#include "env/schedule.h"

/* ---- timers ---- */

static cake_timer_t *timer_of(const cake__heap_node_t *node)
{
    return (cake_timer_t *)(uintptr_t)((uintptr_t)node - offsetof(cake_timer_t, node));
}

static cake__heap_node_t *node_of(cake_timer_t *timer)
{
    return (cake__heap_node_t *)(void *)timer->node;
}

static bool fires_before(const cake__heap_node_t *a, const cake__heap_node_t *b)
{
    const cake_timer_t *one = timer_of(a), *other = timer_of(b);
    return one->deadline_ns != other->deadline_ns ? one->deadline_ns < other->deadline_ns
                                                  : one->sequence < other->sequence;
}

void cake__timers_init(cake__timers_t *timers)
{
    _Static_assert(sizeof(cake__heap_node_t) == sizeof(((cake_timer_t *)0)->node), "the node is the heap's");
    cake__heap_init(&timers->heap, fires_before);
    timers->sequence = 0;
}

void cake__timers_arm(cake__timers_t *timers, cake_timer_t *timer, uint64_t deadline_ns)
{
    CAKE_ASSERT(timer->fn != NULL);
    cake__timers_cancel(timers, timer);
    timer->is_armed = true;
    timer->deadline_ns = deadline_ns;
    timer->sequence = timers->sequence++;
    cake__heap_insert(&timers->heap, node_of(timer));
}

void cake__timers_cancel(cake__timers_t *timers, cake_timer_t *timer)
{
    if (timer->is_armed)
        cake__heap_remove(&timers->heap, node_of(timer));
    timer->is_armed = false;
}

cake_timer_t *cake__timers_least(const cake__timers_t *timers)
{
    cake__heap_node_t *least = cake__heap_least(&timers->heap);
    return least == NULL ? NULL : timer_of(least);
}

uint64_t cake__timers_deadline_ns(const cake__timers_t *timers)
{
    const cake_timer_t *least = cake__timers_least(timers);
    return least == NULL ? CAKE_NEVER : least->deadline_ns;
}

/* ---- deferred calls ---- */

void cake__deferreds_init(cake__deferreds_t *deferreds)
{
    deferreds->first = NULL;
    deferreds->last = &deferreds->first;
}

void cake__deferreds_add(cake__deferreds_t *deferreds, cake_deferred_t *deferred)
{
    if (deferred->is_queued)
        return;
    deferred->is_queued = true;
    deferred->next = NULL;
    *deferreds->last = deferred;
    deferreds->last = &deferred->next;
}

void cake__deferreds_cancel(cake__deferreds_t *deferreds, cake_deferred_t *deferred)
{
    if (!deferred->is_queued)
        return;
    cake_deferred_t **at = &deferreds->first;
    while (*at != deferred) {
        CAKE_ASSERT(*at != NULL);
        at = &(*at)->next;
    }
    *at = deferred->next;
    if (*at == NULL)
        deferreds->last = at;
    deferred->is_queued = false;
}

bool cake__deferreds_run_one(cake__deferreds_t *deferreds)
{
    cake_deferred_t *deferred = deferreds->first;
    if (deferred == NULL)
        return false;
    deferreds->first = deferred->next;
    if (deferreds->first == NULL)
        deferreds->last = &deferreds->first;
    deferred->is_queued = false;
    deferred->fn(deferred->arg);
    return true;
}
