/* Boxes of the cluster key: what was sealed opens, with any key of the ring, and nothing else does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/node.h"
#include "sim/env/simenv.h"

static void boxes_open_with_their_keys_alone(void **state)
{
    (void)state;
    const cake__world_options_t options = {.seed = 1};
    cake__world_t *world;
    assert_int_equal(cake__world_new(&options, &world), 0);
    cake_env_t *env = cake__host_env(cake__world_add_host(world));
    static const uint8_t both[2][CAKE_CLUSTER_KEY_LEN] = {{1, 2, 3}, {4, 5, 6}};
    cake__node_keys_t first = {.env = env}, second = {.env = env}, ring = {.env = env};
    assert_int_equal(cake__node_keys_copy(&first, both, 1), 0);
    assert_int_equal(cake__node_keys_copy(&second, both + 1, 1), 0);
    assert_int_equal(cake__node_keys_copy(&ring, both, 2), 0);
    assert_int_equal(cake__node_keys_copy(&ring, both, CAKE_CLUSTER_KEYS_MAX + 1), CAKE_EINVAL);
    cake__gossip_sealer_t old = cake__node_sealer(&first), next = cake__node_sealer(&second),
                          all = cake__node_sealer(&ring);
    uint8_t plain[100] = "what nodes tell each other", again[sizeof plain] = {0};
    uint8_t box[sizeof plain + CAKE__GOSSIP_SEAL_OVERHEAD], other[sizeof box];
    assert_true(next.seal(next.ctx, cake__slice(plain, sizeof plain), box));
    assert_true(next.seal(next.ctx, cake__slice(plain, sizeof plain), other));
    assert_memory_not_equal(box, other, sizeof box);
    assert_true(next.open(next.ctx, cake__slice(box, sizeof box), again));
    assert_memory_equal(plain, again, sizeof plain);
    assert_true(all.open(all.ctx, cake__slice(box, sizeof box), again));
    assert_false(old.open(old.ctx, cake__slice(box, sizeof box), again));
    for (size_t i = 0; i < sizeof box; i++) {
        box[i] ^= 1;
        assert_false(all.open(all.ctx, cake__slice(box, sizeof box), again));
        box[i] ^= 1;
        assert_false(all.open(all.ctx, cake__slice(box, i), again));
    }
    cake__node_keys_wipe(&ring);
    assert_null(cake__node_sealer(&ring).seal);
    cake__world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(boxes_open_with_their_keys_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
