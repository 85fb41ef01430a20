/* The promises of docs/membership.md, in virtual time, over random schedules. A seed that fails is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gossip/virtual.h"

#define CHECK(cluster, condition)                                                                                      \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            print_error("seed %llu at %.3f s: %s\n", (unsigned long long)(cluster)->seed,                              \
                        (double)(cluster)->now_ns / 1e9, #condition);                                                  \
            fail();                                                                                                    \
        }                                                                                                              \
    } while (0)

static void small_clusters_see_each_other_at_once(void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++)
        for (uint32_t count = 2; count <= 5; count++) {
            virtual_t cluster;
            virtual_init(&cluster, count, seed);
            virtual_start_all(&cluster, 1);
            CHECK(&cluster, virtual_until(&cluster, virtual_all_see_all, 400 * VIRTUAL_MS));
            virtual_free(&cluster);
        }
}

static void sixty_see_each_other(void **state)
{
    uint64_t worst_ns = 0;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        virtual_t cluster;
        virtual_init(&cluster, 60, seed);
        virtual_start_all(&cluster, 3);
        CHECK(&cluster, virtual_until(&cluster, virtual_all_see_all, 1600 * VIRTUAL_MS));
        worst_ns = worst_ns > cluster.now_ns ? worst_ns : cluster.now_ns;
        CHECK(&cluster, virtual_until(&cluster, virtual_all_equal, 5 * VIRTUAL_SECOND));
        virtual_free(&cluster);
    }
    print_message("60 nodes, all see all: %.0f ms at worst\n", (double)worst_ns / 1e6);
}

static void a_crash_is_known_in_time(void **state)
{
    static const uint32_t counts[] = {2, 3, 5, 10, 100};
    for (size_t c = 0; c < CAKE_COUNT_OF(counts); c++) {
        uint64_t worst_ns = 0, runs = counts[c] == 100 ? 4 : 40;
        for (uint64_t seed = 1; seed <= runs; seed++) {
            virtual_t cluster;
            virtual_init(&cluster, counts[c], seed);
            virtual_start_all(&cluster, 1);
            CHECK(&cluster, virtual_until(&cluster, virtual_all_see_all, 5 * VIRTUAL_SECOND));
            virtual_run(&cluster, 10 * VIRTUAL_SECOND + cake__random_below(&cluster.random, VIRTUAL_SECOND));
            CHECK(&cluster, cluster.died == 0);
            virtual_crash(&cluster, (uint32_t)cake__random_below(&cluster.random, counts[c]));
            uint64_t start_ns = cluster.now_ns;
            CHECK(&cluster, virtual_until(&cluster, virtual_all_see_all, 14 * VIRTUAL_SECOND));
            worst_ns = cluster.now_ns - start_ns > worst_ns ? cluster.now_ns - start_ns : worst_ns;
            CHECK(&cluster, cluster.false_deaths == 0);
            CHECK(&cluster, cluster.largest_datagram <= CAKE__GOSSIP_DATAGRAM_MAX);
            virtual_free(&cluster);
        }
        print_message("N = %u: a crash is known to all in %.2f s at worst\n", counts[c], (double)worst_ns / 1e9);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_clusters_see_each_other_at_once),
        cmocka_unit_test(sixty_see_each_other),
        cmocka_unit_test(a_crash_is_known_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
