/* The suite of all environments on a simulated host, for many seeds, some with the faults that lose nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "env/suite.h"
#include "sim/env/simenv.h"

#define SEEDS 60

static void run_with(const suite_case_t *one, uint64_t seed)
{
    cake__world_options_t options = {.seed = seed};
    cake__heap_stats_t heap;
    cake__world_t *world;
    if (seed % 2 == 1)
        options.faults = (cake__faults_t){
            .segment_rate = 0.5, .stall_rate = 0.01, .stall_max_ns = CAKE_NS_PER_MS, .lane_stall_rate = 0.1};
    if (seed % 3 == 1)
        options.stream_buffer_bytes = 700 + seed * 100;
    assert_int_equal(cake__world_new(&options, &world), 0);
    cake__host_t *host = cake__world_add_host(world);
    if (seed % 5 == 1)
        cake__host_slow(host, 1000);
    cake_env_t *env = cake__host_env(host);
    suite_run(env, one);
    env->ops->close(env);
    cake__host_heap_stats(host, &heap);
    assert_int_equal(heap.live_blocks, 0);
    cake__world_free(world);
}

static void run_case(void **state)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++)
        run_with(*state, seed);
}

int main(void)
{
    struct CMUnitTest tests[CAKE_COUNT_OF(suite_cases)] = {0};
    for (size_t i = 0; i < CAKE_COUNT_OF(suite_cases); i++)
        tests[i] = (struct CMUnitTest){suite_cases[i].name, run_case, NULL, NULL, (void *)(uintptr_t)&suite_cases[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
