/* Key/values and their tombstones, deltas that are cut, large values, five thousand members. Random schedules of
 * everything are in schedule_test.c. CAKE_GOSSIP_SEEDS sets how many seeds are run, CAKE_GOSSIP_FIRST from which
 * on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <xxhash.h>

#include "gossip/state.h"
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

/* ---- what a reader may see --------------------------------------------------------------------------------------- */

/* Values tell the write they come from; deletes are remembered: what is gone must not return. */
static uint64_t write_count;
static uint64_t last_delete[NODES_MAX][KEYS];
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

/* ---- deletes ----------------------------------------------------------------------------------------------------- */

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

/* ---- writes beyond the budget ------------------------------------------------------------------------------------ */

/* Ten write more than any delta holds, all the time, and ten have written once; the last node hears of all that
 * from the one before it alone, which always has newer writes of the loud for it. How many deltas until the quiet
 * are there too? */
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

/* ---- five thousand members --------------------------------------------------------------------------------------- */

#define MANY 5000u
static uint32_t frames_seen[2]; /* digests and deltas to those that are there */

#define HEADER 46u /* see frame.c */

/* A frame as if node from had sent it, with a record of each of the members from first on that fits. */
static uint16_t tell_of_members(virtual_t *cluster, uint32_t from, uint32_t to, uint16_t first, uint64_t seq)
{
    const virtual_node_t *sender = &cluster->nodes[from], *receiver = &cluster->nodes[to];
    uint64_t hash = XXH3_64bits(cluster->cluster_id, strlen(cluster->cluster_id));
    cake__buf_t frame;
    cake__buf_init(&frame, cake__alloc_or_default(NULL));
    cake__put_bytes(&frame, "DG\1\11", 4);
    cake__put_u32(&frame, (uint32_t)hash);
    cake__put_u32(&frame, (uint32_t)cake__load_le(receiver->who.nonce, 4));
    cake__put_u64(&frame, seq);
    cake__gossip_put_run(&frame, &sender->who);
    assert_int_equal(frame.len, HEADER);
    for (; first <= MANY && frame.len < 1100; first++) {
        cake_addr_t addr = virtual_addr(32u * first);
        uint8_t nonce[CAKE__GOSSIP_NONCE_LEN] = {(uint8_t)first, (uint8_t)(first >> 8), 1};
        cake__put_u8(&frame, CAKE__GOSSIP_ALIVE | 4);
        cake__put_u16(&frame, first);
        cake__put_varint(&frame, 1000);
        cake__put_varint(&frame, 0);
        cake__put_bytes(&frame, nonce, sizeof nonce);
        cake__gossip_put_addr(&frame, &addr);
        cake__put_string(&frame, cake__slice_str("a-data-centre"));
    }
    cake__put_u64(&frame, XXH3_64bits_withSeed(frame.data, frame.len, hash));
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_RECEIVED};
    event.received.from = sender->addr;
    event.received.frame = cake__slice(frame.data, frame.len);
    (void)virtual_step(cluster, to, &event);
    cake__buf_free(&frame);
    return first;
}

static bool count_frames(virtual_t *cluster, uint32_t from, uint32_t to, cake_slice_t frame)
{
    const uint8_t digest = 12, delta = 13, *bytes = frame.data;
    frames_seen[0] += bytes[3] == digest;
    frames_seen[1] += bytes[3] == delta;
    return false;
}

/* Four of them are there: two know of all, two come back and hear of many; nothing that they send is larger than a
 * datagram, through accusations by the thousand. */
static void no_frame_is_larger_than_a_datagram_with_five_thousand_members(void **state)
{
    virtual_t cluster;
    virtual_init(&cluster, 4, 17);
    virtual_start_all(&cluster, 2);
    CHECK(&cluster, virtual_until(&cluster, virtual_all_see_all, 5 * VIRTUAL_SECOND));
    uint64_t seq = 1000000;
    for (uint32_t to = 0; to < 2; to++)
        for (uint16_t first = 5; first <= MANY;) {
            first = tell_of_members(&cluster, 1 - to, to, first, seq++);
            virtual_run(&cluster, VIRTUAL_MS / 10);
        }
    static uint8_t value[600];
    for (uint32_t i = 0; i < 4; i++)
        CHECK(&cluster, virtual_set(&cluster, i, "key", cake__slice(value, sizeof value)) == 0);
    cluster.is_datagram_lost = count_frames;
    for (uint32_t round = 0; round < 6; round++) {
        uint32_t index = 2 + round % 2;
        virtual_crash(&cluster, index);
        cluster.nodes[index].who.generation += 10;
        virtual_start(&cluster, index, 2);
        virtual_run(&cluster, 5 * VIRTUAL_SECOND);
    }
    cake__gossip_counters_t counters;
    for (uint32_t i = 0; i < 4; i++) {
        cake__gossip_counters(cluster.nodes[i].gossip, &counters);
        CHECK(&cluster, counters.live + counters.dead >= (i < 2 ? MANY : 200));
    }
    CHECK(&cluster, frames_seen[0] > 10 && frames_seen[1] > 10);
    CHECK(&cluster, cluster.largest_datagram > 1150 && cluster.largest_datagram <= CAKE__GOSSIP_DATAGRAM_MAX);
    virtual_free(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_deleted_key_returns),
        cmocka_unit_test(nothing_starves),
        cmocka_unit_test(large_values_go_over_streams),
        cmocka_unit_test(no_frame_is_larger_than_a_datagram_with_five_thousand_members),
    };
    if (getenv("CAKE_GOSSIP_TEST") != NULL) /* one alone: see tests.cmake */
        cmocka_set_test_filter(getenv("CAKE_GOSSIP_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
