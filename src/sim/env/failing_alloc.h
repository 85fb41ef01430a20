/* failing_alloc.h: for tests: runs something over and over, and each time another allocation fails: the first, the
 * second, and so on until a run needs no more. Every n is tried twice: with that one failing alone, as after a spike,
 * and with all after it failing too, as on a machine that has run out.
 *
 *      cake__fail_each_alloc(run, arg)                 what takes a heap hook
 *      cake__fail_each_host_alloc(options, run, arg)   what runs in simulated hosts: host 1 fails, the others do not
 *
 * run must take each failure for an error or do without, and free all it has: a leak stops the program. */
#ifndef CAKE_SIM_ENV_FAILING_ALLOC_H
#define CAKE_SIM_ENV_FAILING_ALLOC_H

#include "sim/env/simenv.h"

#define CAKE__FAILING_ALLOCS_MAX 1000000u /* a run that needs more is one that never ends */

typedef struct cake__failing_heap {
    uint64_t count, fail_at; /* fail_at 0: none */
    size_t live_blocks;
    bool fails_all_after;
} cake__failing_heap_t;

static inline void *cake__failing_resize(void *ctx, void *block, size_t size)
{
    cake__failing_heap_t *heap = ctx;
    if (size == 0) {
        heap->live_blocks -= block != NULL;
        return cake__libc_alloc.resize(cake__libc_alloc.ctx, block, 0);
    }
    heap->count++;
    if (heap->count == heap->fail_at || (heap->fails_all_after && heap->count > heap->fail_at))
        return NULL;
    heap->live_blocks += block == NULL;
    return cake__libc_alloc.resize(cake__libc_alloc.ctx, block, size);
}

/* Gives how many allocations a run makes when none fails. */
static inline uint64_t cake__fail_each_alloc(void (*run)(const cake_alloc_t *alloc, void *arg), void *arg)
{
    for (uint64_t tries = 2;; tries++) {
        cake__failing_heap_t heap = {.fail_at = tries / 2, .fails_all_after = tries % 2 == 1};
        cake_alloc_t alloc = {cake__failing_resize, &heap};
        run(&alloc, arg);
        CAKE_ASSERT(heap.live_blocks == 0 && "a leak after a failed allocation");
        if (heap.count < heap.fail_at)
            return heap.count;
        CAKE_ASSERT(tries < CAKE__FAILING_ALLOCS_MAX * 2);
    }
}

/* Each run gets a new world of hosts, all up. It may crash, start and close them; what it leaves open is a leak only
 * when it closed the environment of host 1. Gives how many allocations the first process of host 1 makes. */
static inline uint64_t cake__fail_each_host_alloc(const cake__world_options_t *options, uint32_t host_count,
                                                  void (*run)(cake__world_t *world, void *arg), void *arg)
{
    for (uint64_t tries = 2;; tries++) {
        cake__world_t *world;
        cake__heap_stats_t heap;
        CAKE_ASSERT(cake__world_new(options, &world) == 0);
        for (uint32_t i = 0; i < host_count; i++)
            cake__world_add_host(world);
        cake__host_t *host = cake__world_host(world, 1);
        cake__host_fail_alloc(host, tries / 2, tries % 2 == 1);
        run(world, arg);
        cake__host_heap_stats(host, &heap);
        bool is_closed = cake__host_env(host) == NULL;
        cake__world_free(world);
        CAKE_ASSERT((!is_closed || heap.live_blocks == 0) && "a leak after a failed allocation");
        if (heap.failed == 0)
            return heap.allocations;
        CAKE_ASSERT(tries < CAKE__FAILING_ALLOCS_MAX * 2);
    }
}

#endif
