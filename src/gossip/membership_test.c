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

static void settle(virtual_t *cluster, uint32_t count, uint64_t seed)
{
    virtual_init(cluster, count, seed);
    virtual_start_all(cluster, 2);
    CHECK(cluster, virtual_until(cluster, virtual_all_see_all, 5 * VIRTUAL_SECOND));
    virtual_run(cluster, 5 * VIRTUAL_SECOND);
}

static void loss_kills_nobody(void **state)
{
    static const struct {
        uint32_t count, minutes;
    } runs[] = {{3, 240}, {10, 120}, {100, 10}};
    for (size_t i = 0; i < CAKE_COUNT_OF(runs); i++) {
        virtual_t cluster;
        settle(&cluster, runs[i].count, i + 1);
        cluster.loss = 0.25;
        cluster.duplication = 0.02;
        cluster.delay_max_ns = 50 * VIRTUAL_MS;
        virtual_run(&cluster, runs[i].minutes * 60 * VIRTUAL_SECOND);
        CHECK(&cluster, cluster.died == 0);
        virtual_free(&cluster);
    }
}

static void a_crash_under_loss_is_known_in_time(void **state)
{
    uint64_t worst_ns = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        virtual_t cluster;
        settle(&cluster, 10, seed);
        cluster.loss = 0.25;
        virtual_run(&cluster, 20 * VIRTUAL_SECOND + cake__random_below(&cluster.random, VIRTUAL_SECOND));
        virtual_crash(&cluster, 4);
        uint64_t start_ns = cluster.now_ns;
        while (cluster.now_ns - start_ns < 20 * VIRTUAL_SECOND) {
            bool is_known = true;
            for (uint32_t i = 0; i < 10; i++)
                is_known &= i == 4 || virtual_status(&cluster, i, 4) == CAKE__GOSSIP_DEAD;
            if (is_known)
                break;
            virtual_run(&cluster, 10 * VIRTUAL_MS);
        }
        CHECK(&cluster, cluster.now_ns - start_ns <= 9 * VIRTUAL_SECOND);
        CHECK(&cluster, cluster.false_deaths == 0);
        worst_ns = cluster.now_ns - start_ns > worst_ns ? cluster.now_ns - start_ns : worst_ns;
        virtual_free(&cluster);
    }
    print_message("N = 10, 25%% loss: a crash is known to all in %.2f s at worst\n", (double)worst_ns / 1e9);
}

static void a_short_pause_kills_nobody(void **state)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        virtual_t cluster;
        settle(&cluster, seed % 2 == 0 ? 10 : 3, seed);
        virtual_run(&cluster, cake__random_below(&cluster.random, VIRTUAL_SECOND));
        cluster.nodes[1].paused_until_ns = cluster.now_ns + 4 * VIRTUAL_SECOND;
        virtual_run(&cluster, 20 * VIRTUAL_SECOND);
        CHECK(&cluster, cluster.died == 0);
        CHECK(&cluster, virtual_all_see_all(&cluster));
        virtual_free(&cluster);
    }
}

static uint32_t paused_node;
static uint64_t deaths_seen_by_paused;

static void count_deaths_seen_by_paused(virtual_t *cluster, uint32_t node, cake__gossip_change_t change,
                                        const cake__gossip_member_t *member)
{
    deaths_seen_by_paused += node == paused_node && change == CAKE__GOSSIP_DIED;
}

static void a_paused_node_accuses_nobody(void **state)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        virtual_t cluster;
        settle(&cluster, 5, seed);
        paused_node = 1;
        deaths_seen_by_paused = 0;
        cluster.on_member = count_deaths_seen_by_paused;
        uint64_t pause_ns = 2 * VIRTUAL_SECOND + cake__random_below(&cluster.random, 120 * VIRTUAL_SECOND);
        cluster.nodes[1].paused_until_ns = cluster.now_ns + pause_ns;
        cluster.nodes[1].excused_until_ns = cluster.nodes[1].paused_until_ns + 3 * VIRTUAL_SECOND;
        virtual_run(&cluster, pause_ns + 30 * VIRTUAL_SECOND);
        cake__gossip_counters_t counters;
        cake__gossip_counters(cluster.nodes[1].gossip, &counters);
        CHECK(&cluster, deaths_seen_by_paused == 0);
        CHECK(&cluster, counters.suspicions == 0 && cluster.nodes[1].isolated_at_ns == 0);
        CHECK(&cluster, cluster.false_deaths == 0);
        CHECK(&cluster, virtual_all_see_all(&cluster));
        CHECK(&cluster, virtual_all_equal(&cluster));
        virtual_free(&cluster);
    }
}

/* Who does not even get the frames sent to it accuses nobody: what it says would still arrive. */
static void a_deaf_node_accuses_nobody(void **state)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        virtual_t cluster;
        settle(&cluster, 4 + (uint32_t)seed % 20, seed);
        virtual_run(&cluster, cake__random_below(&cluster.random, VIRTUAL_SECOND));
        cluster.nodes[1].is_deaf = true;
        virtual_run(&cluster, 10 * VIRTUAL_SECOND);
        for (uint32_t i = 0; i < cluster.count; i++) {
            cake__gossip_counters_t counters;
            cake__gossip_counters(cluster.nodes[i].gossip, &counters);
            CHECK(&cluster, i == 1 || counters.refutations_made == 0);
        }
        CHECK(&cluster, cluster.false_deaths == 0);
        virtual_free(&cluster);
    }
}

static bool is_second_silent(virtual_t *cluster, uint32_t from, uint32_t to, cake_slice_t frame)
{
    return from == 1 || to == 1;
}

/* Its datagrams are all lost, but it answers over RPC: it stays SUSPECT, also for a node that was stopped while the
 * last ping was on its way. */
static void who_answers_over_rpc_is_not_declared_dead(void **state)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        virtual_t cluster;
        settle(&cluster, 6, seed);
        cluster.is_datagram_lost = is_second_silent;
        cake__gossip_counters_t before = {0}, counters = {0};
        for (uint64_t end_ns = cluster.now_ns + 30 * VIRTUAL_SECOND; cluster.now_ns < end_ns;) {
            before = counters;
            virtual_run(&cluster, VIRTUAL_MS / 10);
            cake__gossip_counters(cluster.nodes[3].gossip, &counters);
            if (seed % 2 == 0 && counters.pings_last > before.pings_last && counters.pings_last % 2 == 1) {
                cluster.nodes[3].paused_until_ns = cluster.now_ns + 3 * VIRTUAL_SECOND;
                virtual_run(&cluster, 3 * VIRTUAL_SECOND);
            }
        }
        CHECK(&cluster, counters.pings_last > 0);
        for (uint32_t i = 0; i < 6; i++)
            CHECK(&cluster, i == 1 || virtual_status(&cluster, i, 1) <= CAKE__GOSSIP_SUSPECT);
        virtual_free(&cluster);
    }
}

static bool all_isolated_know_it(virtual_t *cluster)
{
    return cluster->nodes[0].is_isolated;
}

static bool is_healed(virtual_t *cluster)
{
    return virtual_all_see_all(cluster) && virtual_all_equal(cluster);
}

static void a_partition_heals_to_one_view(void **state)
{
    uint64_t worst_ns = 0, worst_isolated_ns = 0;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        virtual_t cluster;
        uint32_t count = seed % 3 == 0 ? 20 : 2 + (uint32_t)seed % 9;
        uint32_t cut = seed % 2 == 0 ? 1 : count / 2;
        settle(&cluster, count, seed);
        for (uint32_t i = 0; i < cut; i++)
            cluster.nodes[i].group = 1;
        uint64_t start_ns = cluster.now_ns;
        if (cut == 1) {
            CHECK(&cluster, virtual_until(&cluster, all_isolated_know_it, 4 * VIRTUAL_SECOND + 10 * VIRTUAL_MS));
            if (cluster.now_ns - start_ns > worst_isolated_ns)
                worst_isolated_ns = cluster.now_ns - start_ns;
        }
        virtual_run(&cluster, cake__random_below(&cluster.random, 60 * VIRTUAL_SECOND));
        for (uint32_t i = 0; i < count; i++)
            cluster.nodes[i].group = 0;
        start_ns = cluster.now_ns;
        virtual_run(&cluster, 500 * VIRTUAL_MS); /* what was declared before the heal arrives */
        uint64_t died = cluster.died;
        CHECK(&cluster, virtual_until(&cluster, is_healed, 4500 * VIRTUAL_MS));
        worst_ns = cluster.now_ns - start_ns > worst_ns ? cluster.now_ns - start_ns : worst_ns;
        virtual_run(&cluster, 30 * VIRTUAL_SECOND);
        CHECK(&cluster, is_healed(&cluster));
        CHECK(&cluster, cluster.died == died);
        virtual_free(&cluster);
    }
    print_message("isolated raised in %.2f s, healed in %.2f s at worst\n", (double)worst_isolated_ns / 1e9,
                  (double)worst_ns / 1e9);
}

static uint64_t suspicions_seen, departures_seen, deaths_seen, joins_seen;

static void count_changes(virtual_t *cluster, uint32_t node, cake__gossip_change_t change,
                          const cake__gossip_member_t *member)
{
    suspicions_seen += change == CAKE__GOSSIP_SUSPECTED;
    departures_seen += change == CAKE__GOSSIP_DEPARTED;
    deaths_seen += change == CAKE__GOSSIP_DIED;
    joins_seen += change == CAKE__GOSSIP_JOINED;
}

static void watch_changes(virtual_t *cluster)
{
    suspicions_seen = departures_seen = deaths_seen = joins_seen = 0;
    cluster->on_member = count_changes;
}

static void a_goodbye_is_never_a_suspicion(void **state)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        virtual_t cluster;
        settle(&cluster, 2 + (uint32_t)seed % 20, seed);
        cluster.loss = seed % 2 == 0 ? 0.25 : 0;
        watch_changes(&cluster);
        (void)virtual_step(&cluster, 1, &(cake__gossip_event_t){.kind = CAKE__GOSSIP_LEAVE});
        for (int i = 0; i < 250 && !cluster.nodes[1].has_left; i++)
            virtual_run(&cluster, 10 * VIRTUAL_MS);
        CHECK(&cluster, cluster.nodes[1].has_left);
        virtual_crash(&cluster, 1);
        virtual_run(&cluster, 30 * VIRTUAL_SECOND);
        CHECK(&cluster, departures_seen == cluster.count - 1);
        CHECK(&cluster, deaths_seen == 0);
        CHECK(&cluster, cluster.loss > 0 || suspicions_seen == 0);
        cluster.nodes[1].who.generation += 10; /* and back again */
        virtual_start(&cluster, 1, 1);
        CHECK(&cluster, virtual_until(&cluster, virtual_all_see_all, 10 * VIRTUAL_SECOND));
        virtual_free(&cluster);
    }
}

static bool is_answer_lost(virtual_t *cluster, uint32_t from, uint32_t to, cake_slice_t frame)
{
    const uint8_t challenge = 14, *bytes = frame.data;
    return from == 0 && bytes[3] != challenge;
}

/* The seed has let it in, but it never heard of that: it says goodbye to whom it asked. */
static void a_goodbye_reaches_the_seeds_that_never_answered(void **state)
{
    virtual_t cluster;
    virtual_init(&cluster, 2, 5);
    watch_changes(&cluster);
    virtual_start(&cluster, 0, 1);
    cluster.is_datagram_lost = is_answer_lost;
    virtual_start(&cluster, 1, 1);
    virtual_run(&cluster, 100 * VIRTUAL_MS);
    CHECK(&cluster, joins_seen == 1);
    (void)virtual_step(&cluster, 1, &(cake__gossip_event_t){.kind = CAKE__GOSSIP_LEAVE});
    virtual_run(&cluster, 500 * VIRTUAL_MS);
    CHECK(&cluster, cluster.nodes[1].has_left);
    virtual_crash(&cluster, 1);
    virtual_run(&cluster, 30 * VIRTUAL_SECOND);
    CHECK(&cluster, departures_seen == 1 && suspicions_seen == 0 && deaths_seen == 0);
    virtual_free(&cluster);
}

static void a_restart_replaces_the_old_run_at_once(void **state)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        virtual_t cluster;
        settle(&cluster, 3 + (uint32_t)seed % 10, seed);
        virtual_crash(&cluster, 2);
        virtual_run(&cluster, cake__random_below(&cluster.random, 20 * VIRTUAL_SECOND));
        uint64_t old = cluster.nodes[2].who.generation;
        bool is_clock_back = seed % 3 == 0, is_moved = seed % 2 == 0;
        cluster.nodes[2].who.generation += is_clock_back ? -(uint64_t)500 : 500;
        if (is_moved)
            cluster.nodes[2].addr = virtual_addr(2 * 32 + 1);
        watch_changes(&cluster);
        virtual_start(&cluster, 2, 1);
        virtual_run(&cluster, is_moved ? 1500 * VIRTUAL_MS : 600 * VIRTUAL_MS);
        CHECK(&cluster, !cluster.nodes[2].is_refused);
        CHECK(&cluster, virtual_all_see_all(&cluster));
        CHECK(&cluster, cluster.nodes[2].who.generation > old);
        virtual_run(&cluster, 30 * VIRTUAL_SECOND);
        CHECK(&cluster, virtual_all_see_all(&cluster));
        CHECK(&cluster, virtual_all_equal(&cluster));
        CHECK(&cluster, cluster.false_deaths == 0);
        virtual_free(&cluster);
    }
}

static bool is_other_than_ping(virtual_t *cluster, uint32_t from, uint32_t to, cake_slice_t frame)
{
    const uint8_t ping = 6, ack = 7, *bytes = frame.data;
    return bytes[3] != ping && bytes[3] != ack;
}

static bool is_from_second(virtual_t *cluster, uint32_t from, uint32_t to, cake_slice_t frame)
{
    return from == 1;
}

/* It has said that it lives while nobody could hear it, and said it often enough; then it is asked again. Every
 * datagram comes twice: whatever is answered by what it answers would never end. */
static void an_answer_lifts_a_death(void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        virtual_t cluster;
        settle(&cluster, 2, seed);
        cluster.nodes[1].group = 1;
        virtual_run(&cluster, 30 * VIRTUAL_SECOND);
        cluster.nodes[1].group = 0;
        cluster.is_datagram_lost = is_from_second;
        virtual_run(&cluster, 20 * VIRTUAL_SECOND);
        CHECK(&cluster, virtual_status(&cluster, 0, 1) == CAKE__GOSSIP_DEAD);
        cluster.is_datagram_lost = is_other_than_ping;
        cluster.duplication = 1;
        uint64_t steps = cluster.steps;
        virtual_run(&cluster, 10 * VIRTUAL_SECOND);
        CHECK(&cluster, cluster.steps - steps < 1000);
        CHECK(&cluster, virtual_all_see_all(&cluster));
        virtual_free(&cluster);
    }
}

static bool is_degraded_for(virtual_t *cluster, uint32_t viewer, uint32_t subject)
{
    cake__gossip_member_t member;
    return cake__gossip_find_member(cluster->nodes[viewer].gossip, cluster->nodes[subject].who.node_id, &member) &&
           member.is_degraded;
}

/* How long the first holds the second degraded from here on, to 100 ms. */
static uint64_t degraded_ms(virtual_t *cluster)
{
    uint64_t ms = 0;
    for (; is_degraded_for(cluster, 0, 1) && ms < 100000; ms += 100)
        virtual_run(cluster, 100 * VIRTUAL_MS);
    return ms;
}

static uint64_t updates_of_second;

static void count_updates(virtual_t *cluster, uint32_t node, cake__gossip_change_t change,
                          const cake__gossip_member_t *member)
{
    updates_of_second += node == 0 && member->who.node_id == 2 && change == CAKE__GOSSIP_UPDATED;
}

static void fall_silent_and_return(virtual_t *cluster)
{
    cluster->is_datagram_lost = is_second_silent;
    for (int i = 0; i < 500 && virtual_status(cluster, 0, 1) == CAKE__GOSSIP_ALIVE; i++)
        virtual_run(cluster, 10 * VIRTUAL_MS);
    CHECK(cluster, virtual_status(cluster, 0, 1) == CAKE__GOSSIP_SUSPECT);
    cake__gossip_member_t before, after;
    CHECK(cluster, cake__gossip_find_member(cluster->nodes[0].gossip, 2, &before));
    CHECK(cluster, before.is_observed && before.silent_ms > 1000 && before.silent_ms < 4500 && before.phi > 0 &&
                       before.accusers > 0);
    cluster->is_datagram_lost = NULL;
    for (int i = 0; i < 300 && virtual_status(cluster, 0, 1) != CAKE__GOSSIP_ALIVE; i++)
        virtual_run(cluster, 10 * VIRTUAL_MS);
    CHECK(cluster, virtual_status(cluster, 0, 1) == CAKE__GOSSIP_ALIVE);
    virtual_run(cluster, 50 * VIRTUAL_MS);
    CHECK(cluster, cake__gossip_find_member(cluster->nodes[0].gossip, 2, &after));
    CHECK(cluster, after.refutation > before.refutation && after.accusers == 0);
}

/* Accused and back three times in a minute: alive, but to be left alone for 5 s; each time more for twice as long,
 * up to a minute; after a calm minute it starts anew. */
static void who_flaps_is_degraded(void **state)
{
    virtual_t cluster;
    settle(&cluster, 6, 3);
    fall_silent_and_return(&cluster);
    fall_silent_and_return(&cluster);
    for (uint32_t i = 0; i < 6; i++)
        CHECK(&cluster, !is_degraded_for(&cluster, i, 1));
    updates_of_second = 0;
    cluster.on_member = count_updates;
    fall_silent_and_return(&cluster);
    virtual_run(&cluster, VIRTUAL_SECOND);
    for (uint32_t i = 0; i < 6; i++)
        CHECK(&cluster, is_degraded_for(&cluster, i, 1) == (i != 1));
    uint64_t ms = degraded_ms(&cluster);
    CHECK(&cluster, ms >= 3900 && ms <= 4100 && updates_of_second > 0);
    uint64_t updates = updates_of_second;
    fall_silent_and_return(&cluster);
    ms = degraded_ms(&cluster);
    CHECK(&cluster, ms >= 9900 && ms <= 10100 && updates_of_second > updates);
    for (int i = 0; i < 4; i++)
        fall_silent_and_return(&cluster);
    ms = degraded_ms(&cluster);
    CHECK(&cluster, ms >= 59900 && ms <= 60100);
    virtual_run(&cluster, 130 * VIRTUAL_SECOND);
    for (int i = 0; i < 3; i++)
        fall_silent_and_return(&cluster);
    ms = degraded_ms(&cluster);
    CHECK(&cluster, ms >= 4900 && ms <= 5100);
    CHECK(&cluster, cluster.died == 0);
    virtual_free(&cluster);
}

static void a_duplicate_id_is_refused_and_reported(void **state)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        virtual_t cluster;
        uint32_t count = 4 + (uint32_t)seed % 6, twin = count - 1;
        virtual_init(&cluster, count, seed);
        for (uint32_t i = 0; i < twin; i++)
            virtual_start(&cluster, i, 2);
        virtual_run(&cluster, seed % 4 == 0 ? 0 : 5 * VIRTUAL_SECOND);
        virtual_node_t *original = &cluster.nodes[2], *copy = &cluster.nodes[twin];
        uint64_t shift = cake__random_below(&cluster.random, 3);
        copy->who.node_id = original->who.node_id;
        copy->who.generation = original->who.generation + shift;
        virtual_start(&cluster, twin, 2);
        virtual_run(&cluster, 10 * VIRTUAL_SECOND);
        CHECK(&cluster, original->is_refused + copy->is_refused == 1);
        CHECK(&cluster, seed % 4 == 0 || copy->is_refused);
        for (uint32_t i = 0; i < count; i++)
            CHECK(&cluster,
                  cluster.nodes[i].duplicates_seen == 1 || (seed % 4 == 0 && cluster.nodes[i].duplicates_seen > 1));
        if (original->is_refused)
            original->who.node_id = 0; /* the one that stays is looked for by its id */
        virtual_crash(&cluster, original->is_refused ? 2 : twin);
        virtual_run(&cluster, 20 * VIRTUAL_SECOND);
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t j = 0; j < count; j++)
                CHECK(&cluster, !cluster.nodes[i].is_up || !cluster.nodes[j].is_up ||
                                    virtual_status(&cluster, i, j) == CAKE__GOSSIP_ALIVE);
        virtual_free(&cluster);
    }
}

static void another_cluster_changes_nothing(void **state)
{
    virtual_t cluster;
    virtual_init(&cluster, 4, 1);
    for (uint32_t i = 0; i < 4; i++) {
        cluster.cluster_id = i < 2 ? "one" : "two";
        virtual_start(&cluster, i, 4);
    }
    virtual_run(&cluster, 20 * VIRTUAL_SECOND);
    for (uint32_t i = 0; i < 4; i++) {
        cake__gossip_counters_t counters;
        cake__gossip_counters(cluster.nodes[i].gossip, &counters);
        CHECK(&cluster, counters.live == 2 && counters.dead == 0 && counters.frames_foreign > 0);
    }
    virtual_free(&cluster);
}

/* Also when all who observe one of them crash with it. */
static void every_crash_ends_dead_everywhere(void **state)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        virtual_t cluster;
        uint32_t count = seed % 3 == 0 ? 40 : 6 + (uint32_t)seed % 12;
        settle(&cluster, count, seed);
        uint32_t crashes = 1 + (uint32_t)cake__random_below(&cluster.random, count - 2);
        for (uint32_t i = 0; i < crashes; i++)
            virtual_crash(&cluster, count - 1 - i);
        CHECK(&cluster, virtual_until(&cluster, virtual_all_see_all, 90 * VIRTUAL_SECOND));
        CHECK(&cluster, cluster.false_deaths == 0);
        virtual_free(&cluster);
    }
}

static void the_dead_are_forgotten_everywhere(void **state)
{
    virtual_t cluster;
    virtual_init(&cluster, 6, 7);
    cluster.params.dead_retention_ms = 60000;
    virtual_start_all(&cluster, 2);
    virtual_run(&cluster, 5 * VIRTUAL_SECOND);
    virtual_crash(&cluster, 5);
    virtual_run(&cluster, 40 * VIRTUAL_SECOND);
    virtual_crash(&cluster, 4); /* restarts do not renew what is remembered */
    cluster.nodes[4].who.generation += 10;
    virtual_start(&cluster, 4, 2);
    virtual_run(&cluster, 5 * VIRTUAL_SECOND);
    cake__gossip_member_t member;
    CHECK(&cluster, cake__gossip_find_member(cluster.nodes[4].gossip, 6, &member));
    virtual_run(&cluster, 25 * VIRTUAL_SECOND);
    for (uint32_t i = 0; i < 5; i++)
        CHECK(&cluster, !cake__gossip_find_member(cluster.nodes[i].gossip, 6, &member));
    CHECK(&cluster, virtual_all_equal(&cluster));
    virtual_free(&cluster);
}

/* Restarts do not renew what is remembered of who has left, either. */
static void who_has_left_is_forgotten_everywhere(void **state)
{
    virtual_t cluster;
    virtual_init(&cluster, 6, 8);
    cluster.params.left_retention_ms = 60000;
    virtual_start_all(&cluster, 2);
    virtual_run(&cluster, 5 * VIRTUAL_SECOND);
    (void)virtual_step(&cluster, 5, &(cake__gossip_event_t){.kind = CAKE__GOSSIP_LEAVE});
    virtual_run(&cluster, 3 * VIRTUAL_SECOND);
    virtual_crash(&cluster, 5);
    for (uint32_t i = 0; i < 5; i++) { /* each once */
        virtual_run(&cluster, 8 * VIRTUAL_SECOND);
        virtual_crash(&cluster, i);
        cluster.nodes[i].who.generation += 10;
        virtual_start(&cluster, i, 2);
    }
    virtual_run(&cluster, 5 * VIRTUAL_SECOND);
    cake__gossip_member_t member;
    for (uint32_t i = 0; i < 5; i++)
        CHECK(&cluster, cake__gossip_find_member(cluster.nodes[i].gossip, 6, &member));
    virtual_run(&cluster, 20 * VIRTUAL_SECOND);
    for (uint32_t i = 0; i < 5; i++)
        CHECK(&cluster, !cake__gossip_find_member(cluster.nodes[i].gossip, 6, &member));
    CHECK(&cluster, virtual_all_equal(&cluster));
    virtual_free(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_clusters_see_each_other_at_once),
        cmocka_unit_test(sixty_see_each_other),
        cmocka_unit_test(a_crash_is_known_in_time),
        cmocka_unit_test(a_crash_under_loss_is_known_in_time),
        cmocka_unit_test(loss_kills_nobody),
        cmocka_unit_test(a_short_pause_kills_nobody),
        cmocka_unit_test(a_paused_node_accuses_nobody),
        cmocka_unit_test(a_deaf_node_accuses_nobody),
        cmocka_unit_test(who_answers_over_rpc_is_not_declared_dead),
        cmocka_unit_test(a_partition_heals_to_one_view),
        cmocka_unit_test(a_goodbye_is_never_a_suspicion),
        cmocka_unit_test(a_goodbye_reaches_the_seeds_that_never_answered),
        cmocka_unit_test(a_restart_replaces_the_old_run_at_once),
        cmocka_unit_test(an_answer_lifts_a_death),
        cmocka_unit_test(who_flaps_is_degraded),
        cmocka_unit_test(who_has_left_is_forgotten_everywhere),
        cmocka_unit_test(a_duplicate_id_is_refused_and_reported),
        cmocka_unit_test(another_cluster_changes_nothing),
        cmocka_unit_test(every_crash_ends_dead_everywhere),
        cmocka_unit_test(the_dead_are_forgotten_everywhere),
    };
    if (getenv("CAKE_GOSSIP_TEST") != NULL) /* one alone: see tests.cmake */
        cmocka_set_test_filter(getenv("CAKE_GOSSIP_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
