/* Random schedules over key/values and members: writes, deletes, loss, duplication, partitions, pauses, crashes, restarts,
 * goodbyes. After each everything heals, and then every view is the same and every node's keys are its owner's.
 * CAKE_GOSSIP_SEEDS sets how many seeds are run, CAKE_GOSSIP_FIRST from which on, CAKE_GOSSIP_SEED runs one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gossip/virtual.h"

#define NODES_MAX 12u
#define KEYS      12u

#define CHECK(cluster, condition)                                                                                      \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            print_error("seed %llu at %.3f s: %s\n", (unsigned long long)(cluster)->seed,                              \
                        (double)(cluster)->now_ns / 1e9, #condition);                                                  \
            fail();                                                                                                    \
        }                                                                                                              \
    } while (0)

static uint64_t seed_count(uint64_t normal)
{
    const char *text = getenv("CAKE_GOSSIP_SEEDS");
    return text == NULL ? normal : strtoull(text, NULL, 10);
}

static uint64_t first_seed(void)
{
    const char *text = getenv("CAKE_GOSSIP_FIRST");
    return text == NULL ? 1 : strtoull(text, NULL, 10);
}

/* ---- what a reader may see --------------------------------------------------------------------------------------------- */

/* Values tell the write they come from; deletes are remembered: what is gone must not return. */
static uint64_t write_count;
static uint64_t last_write[NODES_MAX][KEYS], last_delete[NODES_MAX][KEYS];
/* [viewer][owner]: what was seen of (generation, gc, version) only ever grows */
static uint64_t seen_generation[NODES_MAX][NODES_MAX], seen_version[NODES_MAX][NODES_MAX];

static void forget_what_was_seen(uint32_t viewer)
{
    memset(seen_generation[viewer], 0, sizeof seen_generation[viewer]);
    memset(seen_version[viewer], 0, sizeof seen_version[viewer]);
}

static void check_progress(virtual_t *cluster)
{
    for (uint32_t i = 0; i < cluster->count; i++)
        for (uint32_t j = 0; j < cluster->count && cluster->nodes[i].is_up; j++) {
            cake__gossip_member_t member;
            if (!cake__gossip_find_member(cluster->nodes[i].gossip, (uint16_t)(j + 1), &member))
                continue;
            CHECK(cluster, member.who.generation >= seen_generation[i][j]);
            seen_generation[i][j] = member.who.generation;
        }
}

static bool are_keys_equal(virtual_t *cluster, uint32_t viewer, uint32_t owner)
{
    cake__gossip_member_t own, seen;
    cake__gossip_self(cluster->nodes[owner].gossip, &own);
    if (!cake__gossip_find_member(cluster->nodes[viewer].gossip, own.who.node_id, &seen))
        return false;
    cake_slice_t key, value, other;
    size_t count = 0;
    for (size_t cursor = 0; cake__gossip_next_key(&seen, &cursor, &key, &value); count++)
        if (!cake__gossip_get_key(&own, key, &other) || !cake__slice_equal(value, other))
            return false;
    for (size_t cursor = 0; cake__gossip_next_key(&own, &cursor, &key, &value); count--)
        continue;
    return count == 0 && seen.version == own.version;
}

static bool is_converged(virtual_t *cluster)
{
    if (!virtual_all_see_all(cluster) || !virtual_all_equal(cluster))
        return false;
    for (uint32_t i = 0; i < cluster->count; i++)
        for (uint32_t j = 0; j < cluster->count; j++)
            if (cluster->nodes[i].is_up && cluster->nodes[j].is_up && !are_keys_equal(cluster, i, j))
                return false;
    return true;
}

/* No key that its owner deleted is there with a value from before. */
static void check_no_return(virtual_t *cluster)
{
    for (uint32_t i = 0; i < cluster->count; i++)
        for (uint32_t j = 0; j < cluster->count && cluster->nodes[i].is_up; j++)
            for (uint32_t k = 0; k < KEYS; k++) {
                cake__gossip_member_t member;
                char key[16];
                cake_slice_t value;
                snprintf(key, sizeof key, "k%u", k);
                if (!cake__gossip_find_member(cluster->nodes[i].gossip, (uint16_t)(j + 1), &member) ||
                    !cake__gossip_get_key(&member, cake__slice_str(key), &value))
                    continue;
                uint64_t write = 0;
                memcpy(&write, value.data, sizeof write);
                CHECK(cluster, write > last_delete[j][k]);
            }
}

/* ---- one schedule -------------------------------------------------------------------------------------------------------- */

static void write_or_delete(virtual_t *cluster, uint32_t node)
{
    static uint8_t value[CAKE__GOSSIP_VALUE_MAX];
    uint32_t k = (uint32_t)cake__random_below(&cluster->random, KEYS);
    char key[16];
    snprintf(key, sizeof key, "k%u", k);
    if (cake__random_below(&cluster->random, 3) == 0) {
        if (virtual_delete(cluster, node, key) == 0)
            last_write[node][k] = 0;
        return;
    }
    size_t sizes[] = {8, 40, 300, 1000, 5000, CAKE__GOSSIP_VALUE_MAX};
    size_t len = sizes[cake__random_below(&cluster->random, cake__random_below(&cluster->random, 6) + 1)];
    write_count++;
    memcpy(value, &write_count, sizeof write_count);
    int err = virtual_set(cluster, node, key, cake__slice(value, len));
    CHECK(cluster, err == 0);
    last_write[node][k] = write_count;
}

static void restart(virtual_t *cluster, uint32_t index)
{
    virtual_node_t *node = &cluster->nodes[index];
    uint64_t back = cake__random_below(&cluster->random, 4) == 0 ? 100 : 0;
    node->who.generation = back > 0 ? node->who.generation - back : node->who.generation + 50;
    if (cake__random_below(&cluster->random, 4) == 0)
        node->addr = virtual_addr(index * 32 + (uint32_t)cake__random_below(&cluster->random, 32));
    virtual_start(cluster, index, 2);
    forget_what_was_seen(index);
}

static void act_randomly(virtual_t *cluster)
{
    uint32_t index = (uint32_t)cake__random_below(&cluster->random, cluster->count);
    virtual_node_t *node = &cluster->nodes[index];
    uint64_t what = cake__random_below(&cluster->random, 100);
    if (!node->is_up && what < 40) {
        restart(cluster, index);
    } else if (!node->is_up || node->paused_until_ns > cluster->now_ns) {
        return;
    } else if (node->has_left) {
        virtual_crash(cluster, index);
    } else if (what < 60) {
        write_or_delete(cluster, index);
    } else if (what < 65) {
        virtual_crash(cluster, index);
    } else if (what < 70) {
        node->paused_until_ns = cluster->now_ns + cake__random_below(&cluster->random, 20 * VIRTUAL_SECOND);
    } else if (what < 75) {
        node->group = (int)cake__random_below(&cluster->random, 3);
    } else if (what < 82) {
        for (uint32_t i = 0; i < cluster->count; i++)
            cluster->nodes[i].group = 0;
    } else if (what < 84) {
        node->is_deaf = !node->is_deaf;
    } else if (what < 90) {
        cluster->loss = (double)cake__random_below(&cluster->random, 26) / 100;
    } else if (what < 92) {
        (void)virtual_step(cluster, index, &(cake__gossip_event_t){.kind = CAKE__GOSSIP_LEAVE});
        virtual_run(cluster, 2100 * VIRTUAL_MS);
        CHECK(cluster, node->has_left);
        virtual_crash(cluster, index);
    }
}

static void heal_all(virtual_t *cluster)
{
    cluster->loss = 0;
    for (uint32_t i = 0; i < cluster->count; i++) {
        virtual_node_t *node = &cluster->nodes[i];
        node->group = 0;
        node->is_deaf = false;
        if (node->has_left && node->is_up)
            virtual_crash(cluster, i);
        if (!node->is_up)
            restart(cluster, i);
    }
    /* Names are looked up again: the seeds may all have come back elsewhere, and nobody else would know where. */
    cake_addr_t seeds[] = {cluster->nodes[0].addr, cluster->nodes[1].addr};
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_SEEDS, .seeds = {.addrs = seeds, .count = 2}};
    for (uint32_t i = 0; i < cluster->count; i++)
        (void)virtual_step(cluster, i, &event);
}

static void run_schedule(uint64_t seed)
{
    virtual_t cluster;
    cake__random_t random;
    cake__random_init(&random, seed);
    virtual_init(&cluster, 3 + (uint32_t)cake__random_below(&random, NODES_MAX - 2), seed);
    cluster.params.tombstone_ms = (uint32_t)(1000 + cake__random_below(&random, 20000));
    cluster.duplication = 0.05;
    cluster.delay_max_ns = (1 + cake__random_below(&random, 100)) * VIRTUAL_MS;
    memset(last_delete, 0, sizeof last_delete);
    memset(last_write, 0, sizeof last_write);
    for (uint32_t i = 0; i < cluster.count; i++)
        forget_what_was_seen(i);
    virtual_start_all(&cluster, 2);
    for (int step = 0; step < 120; step++) {
        act_randomly(&cluster);
        virtual_run(&cluster, cake__random_below(&cluster.random, 2 * VIRTUAL_SECOND));
        check_progress(&cluster);
    }
    for (uint32_t i = 0; i < cluster.count; i++) /* nobody refused a restart as a stranger's */
        CHECK(&cluster, !cluster.nodes[i].is_refused);
    virtual_run(&cluster, 20 * VIRTUAL_SECOND);
    heal_all(&cluster);
    CHECK(&cluster, virtual_until(&cluster, is_converged, 90 * VIRTUAL_SECOND));
    uint64_t died = cluster.died;
    virtual_run(&cluster, 40 * VIRTUAL_SECOND);
    CHECK(&cluster, is_converged(&cluster));
    CHECK(&cluster, cluster.died == died);
    CHECK(&cluster, cluster.largest_datagram <= CAKE__GOSSIP_DATAGRAM_MAX);
    virtual_free(&cluster);
}

static void random_schedules_converge(void **state)
{
    const char *one = getenv("CAKE_GOSSIP_SEED");
    if (one != NULL) {
        run_schedule(strtoull(one, NULL, 10));
        return;
    }
    for (uint64_t seed = first_seed(), end = seed + seed_count(100); seed < end; seed++)
        run_schedule(seed);
}

/* ---- deletes ----------------------------------------------------------------------------------------------------------------- */

/* Deleted and collected while some are cut off; they come back with what they had, and with each other first. */
static void run_deletes(uint64_t seed)
{
    virtual_t cluster;
    virtual_init(&cluster, 6, seed);
    cluster.params.tombstone_ms = 2000;
    memset(last_delete, 0, sizeof last_delete);
    virtual_start_all(&cluster, 2);
    virtual_run(&cluster, 3 * VIRTUAL_SECOND);
    for (int round = 0; round < 6; round++) {
        for (uint32_t k = 0; k < KEYS; k++) {
            static uint8_t value[700];
            char key[16];
            snprintf(key, sizeof key, "k%u", k);
            write_count++;
            memcpy(value, &write_count, sizeof write_count);
            CHECK(&cluster, virtual_set(&cluster, 0, key, cake__slice(value, sizeof value)) == 0);
        }
        virtual_run(&cluster, cake__random_below(&cluster.random, 3 * VIRTUAL_SECOND));
        for (uint32_t i = 1; i < 6; i++)
            cluster.nodes[i].group = (int)cake__random_below(&cluster.random, 3);
        for (uint32_t k = 0; k < KEYS; k++) {
            char key[16];
            snprintf(key, sizeof key, "k%u", k);
            if (cake__random_below(&cluster.random, 2) == 0)
                CHECK(&cluster, virtual_delete(&cluster, 0, key) == 0);
        }
        uint64_t deleted_after = write_count;
        virtual_run(&cluster, cake__random_below(&cluster.random, 8 * VIRTUAL_SECOND));
        cluster.loss = (double)cake__random_below(&cluster.random, 50) / 100; /* deltas are cut short */
        for (uint32_t i = 1; i < 6; i++)
            cluster.nodes[i].group = (int)cake__random_below(&cluster.random, 2);
        virtual_run(&cluster, cake__random_below(&cluster.random, 4 * VIRTUAL_SECOND));
        cluster.loss = 0;
        for (uint32_t i = 1; i < 6; i++)
            cluster.nodes[i].group = 0;
        CHECK(&cluster, virtual_until(&cluster, is_converged, 60 * VIRTUAL_SECOND));
        for (uint32_t k = 0; k < KEYS; k++) { /* from here on, what is gone at the owner is gone for good */
            cake__gossip_member_t own;
            cake_slice_t value;
            char key[16];
            snprintf(key, sizeof key, "k%u", k);
            cake__gossip_self(cluster.nodes[0].gossip, &own);
            if (!cake__gossip_get_key(&own, cake__slice_str(key), &value))
                last_delete[0][k] = deleted_after;
        }
        for (int i = 0; i < 50; i++) {
            virtual_run(&cluster, 100 * VIRTUAL_MS);
            check_no_return(&cluster);
        }
    }
    virtual_free(&cluster);
}

static void no_deleted_key_returns(void **state)
{
    for (uint64_t seed = first_seed(), end = seed + seed_count(60); seed < end; seed++)
        run_deletes(seed);
}

/* ---- writes beyond the budget ------------------------------------------------------------------------------------------------- */

/* Ten write more than any delta holds, all the time, and ten have written once; the last node hears of all that from the
 * one before it alone, which always has newer writes of the loud for it. How many deltas until the quiet are there too? */
#define LOUD  10u
#define QUIET 10u
static uint32_t deltas_to_last;

static bool is_cut_from_last(virtual_t *cluster, uint32_t from, uint32_t to, cake_slice_t frame)
{
    const uint8_t delta = 13, *bytes = frame.data;
    uint32_t last = cluster->count - 1, relay = last - 1;
    deltas_to_last += from == relay && to == last && bytes[3] == delta;
    return (from == last && to != relay) || (to == last && from != relay);
}

static uint32_t deltas_until_quiet_arrive(uint64_t seed, size_t len, uint32_t limit)
{
    virtual_t cluster;
    virtual_init(&cluster, LOUD + QUIET + 2, seed);
    virtual_start_all(&cluster, 2);
    CHECK(&cluster, virtual_until(&cluster, virtual_all_see_all, 5 * VIRTUAL_SECOND));
    cluster.is_datagram_lost = is_cut_from_last;
    uint8_t value[600] = {0};
    CHECK(&cluster, len <= sizeof value);
    uint32_t last = cluster.count - 1, relay = last - 1, arrived = 0;
    for (uint32_t round = 0; round < 20 || (arrived < QUIET && deltas_to_last < limit); round++) {
        for (uint32_t k = 0; k < 40 * LOUD; k++) {
            char key[16];
            snprintf(key, sizeof key, "loud%u", k / LOUD);
            write_count++;
            memcpy(value, &write_count, sizeof write_count);
            CHECK(&cluster, virtual_set(&cluster, k % LOUD, key, cake__slice(value, len)) == 0);
        }
        if (round == 20) { /* the loud are behind by then */
            for (uint32_t i = LOUD; i < LOUD + QUIET; i++)
                CHECK(&cluster, virtual_set(&cluster, i, "quiet", cake__slice(value, len)) == 0);
            while (!are_keys_equal(&cluster, relay, LOUD) || !are_keys_equal(&cluster, relay, last - 2))
                virtual_run(&cluster, VIRTUAL_MS); /* what the relay knows is what counts */
            deltas_to_last = 0;
        }
        virtual_run(&cluster, round < 20 ? 20 * VIRTUAL_MS : 100 * VIRTUAL_MS);
        arrived = 0;
        for (uint32_t i = LOUD; round >= 20 && i < LOUD + QUIET; i++)
            arrived += are_keys_equal(&cluster, last, i);
    }
    virtual_free(&cluster);
    return arrived == QUIET ? deltas_to_last : limit + 1;
}

static void nothing_starves(void **state)
{
    for (uint64_t seed = 1; seed <= 5; seed++) {
        uint32_t small = deltas_until_quiet_arrive(seed, 40, 30), large = deltas_until_quiet_arrive(seed, 600, 30);
        if (small > 6 || large > 24)
            fail_msg("seed %llu: %u deltas of small values, %u of large ones", (unsigned long long)seed, small, large);
    }
}

static void large_values_go_over_streams(void **state)
{
    virtual_t cluster;
    virtual_init(&cluster, 5, 3);
    virtual_start_all(&cluster, 1);
    static uint8_t value[CAKE__GOSSIP_VALUE_MAX + 1];
    memset(value, 7, sizeof value);
    for (int k = 0; k < 30; k++) {
        char key[16];
        snprintf(key, sizeof key, "large%d", k);
        CHECK(&cluster, virtual_set(&cluster, 3, key, cake__slice(value, CAKE__GOSSIP_VALUE_MAX)) == 0);
    }
    CHECK(&cluster, virtual_set(&cluster, 3, "over", cake__slice(value, sizeof value)) == CAKE_ETOOBIG);
    CHECK(&cluster, virtual_set(&cluster, 3, "", cake__slice(value, 1)) == CAKE_EINVAL);
    CHECK(&cluster, virtual_delete(&cluster, 3, "none") == CAKE_ENOTFOUND);
    for (size_t k = 0; k < CAKE__GOSSIP_KEYS_MAX - 30; k++) {
        char key[32];
        snprintf(key, sizeof key, "small%zu", k);
        CHECK(&cluster, virtual_set(&cluster, 3, key, cake__slice("", 0)) == 0);
    }
    CHECK(&cluster, virtual_set(&cluster, 3, "one more", cake__slice("", 0)) == CAKE_ENOSPC);
    CHECK(&cluster, virtual_until(&cluster, is_converged, 20 * VIRTUAL_SECOND));
    CHECK(&cluster, cluster.streams > 0);
    virtual_free(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_schedules_converge),
        cmocka_unit_test(no_deleted_key_returns),
        cmocka_unit_test(nothing_starves),
        cmocka_unit_test(large_values_go_over_streams),
    };
    if (getenv("CAKE_GOSSIP_TEST") != NULL) /* one alone: see tests.cmake */
        cmocka_set_test_filter(getenv("CAKE_GOSSIP_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
