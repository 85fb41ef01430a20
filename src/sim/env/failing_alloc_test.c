/* That each allocation fails in its turn, alone and with all after it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "env/env.h"
#include "sim/env/failing_alloc.h"

typedef struct {
    unsigned runs, outcomes[8];
} seen_t;

/* Three allocations; notes which of them succeeded, as bits. */
static void three_blocks(const cake_alloc_t *alloc, void *arg)
{
    seen_t *seen = arg;
    unsigned bits = 0;
    void *blocks[3];
    for (unsigned i = 0; i < 3; i++) {
        blocks[i] = cake__malloc(alloc, 10);
        bits |= (unsigned)(blocks[i] != NULL) << i;
    }
    for (unsigned i = 0; i < 3; i++)
        cake__free(alloc, blocks[i]);
    seen->runs++;
    seen->outcomes[bits]++;
}

static void test_each_fails_alone_and_with_all_after_it(void **state)
{
    static const unsigned expected[8] = {[6] = 1, [0] = 1, [5] = 1, [1] = 1, [3] = 2, [7] = 1};
    seen_t seen = {0};
    (void)state;
    assert_int_equal(cake__fail_each_alloc(three_blocks, &seen), 3);
    assert_int_equal(seen.runs, 7);
    assert_memory_equal(seen.outcomes, expected, sizeof expected);
}

static void append(const cake_alloc_t *alloc, void *arg)
{
    cake__buf_t buf;
    (void)arg;
    cake__buf_init(&buf, alloc);
    for (int i = 0; i < 1000; i++)
        cake__put_u64(&buf, 7);
    assert_true(buf.err == CAKE_ENOMEM || buf.len == 8000);
    cake__buf_free(&buf);
}

static void test_a_growing_block_fails_too(void **state)
{
    (void)state;
    assert_in_range(cake__fail_each_alloc(append, NULL), 5, 50);
}

typedef struct {
    cake_env_t *env;
    cake_listener_t *listener;
    cake_lane_t *lane;
    int open_count;
} parts_t;

static void never(void *arg, cake_stream_t *stream)
{
    (void)arg;
    (void)stream;
    fail();
}

static void note_closed(void *arg)
{
    ((parts_t *)arg)->open_count--;
}

static int open_parts(void *arg)
{
    parts_t *parts = arg;
    const cake_addr_t any = {.family = 4};
    parts->open_count += parts->env->ops->listen(parts->env, &any, never, NULL, &parts->listener) == 0;
    parts->open_count += parts->env->ops->lane_open(parts->env, "part", &parts->lane) == 0;
    if (parts->listener != NULL)
        parts->env->ops->listener_close(parts->listener, note_closed, parts);
    if (parts->lane != NULL)
        parts->env->ops->lane_close(parts->lane, note_closed, parts);
    return 0;
}

static void open_and_close(cake__world_t *world, void *arg)
{
    parts_t parts = {.env = cake__host_env(cake__world_host(world, 1))};
    (*(unsigned *)arg)++;
    cake__run_on_loop(parts.env, open_parts, &parts);
    cake__world_run_for(world, CAKE_NS_PER_MS);
    assert_int_equal(parts.open_count, 0);
    parts.env->ops->close(parts.env);
}

static void test_hosts_fail_in_turn(void **state)
{
    unsigned runs = 0;
    (void)state;
    assert_int_equal(cake__fail_each_host_alloc(&(cake__world_options_t){0}, 2, open_and_close, &runs), 2);
    assert_int_equal(runs, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_fails_alone_and_with_all_after_it),
        cmocka_unit_test(test_a_growing_block_fails_too),
        cmocka_unit_test(test_hosts_fail_in_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
