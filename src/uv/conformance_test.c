/* The suite of all environments on the one of a real machine, with its heap counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <datacake/uv.h>

#include "env/suite.h"

typedef struct {
    atomic_long live_blocks;
} counted_heap_t;

static void *counted_resize(void *ctx, void *block, size_t size)
{
    counted_heap_t *heap = ctx;
    if (size == 0) {
        atomic_fetch_sub(&heap->live_blocks, block != NULL);
        free(block);
        return NULL;
    }
    atomic_fetch_add(&heap->live_blocks, block == NULL);
    return realloc(block, size);
}

static void run_case(void **state)
{
    counted_heap_t heap = {0};
    cake_alloc_t alloc = {counted_resize, &heap};
    cake_uv_options_t options = CAKE_UV_OPTIONS_INIT;
    cake_env_t *env;
    options.alloc = &alloc;
    assert_int_equal(cake_uv_env_new(&options, &env), 0);
    suite_run(env, *state);
    env->ops->close(env);
    assert_int_equal(atomic_load(&heap.live_blocks), 0);
}

int main(void)
{
    struct CMUnitTest tests[CAKE_COUNT_OF(suite_cases)] = {0};
    for (size_t i = 0; i < CAKE_COUNT_OF(suite_cases); i++)
        tests[i] = (struct CMUnitTest){suite_cases[i].name, run_case, NULL, NULL, (void *)(uintptr_t)&suite_cases[i]};
    signal(SIGPIPE, SIG_DFL); /* which ends a program that writes to a closed socket, unless it is kept from it */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
