/* Frames that were cut, altered or made up, and memory that runs out: nothing crashes, changes or leaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <xxhash.h>

#include "gossip/state.h"
#include "gossip/virtual.h"

#define CAPTURES_MAX 8000u
#define HEADER       46u /* magic, version, type, cluster, to, seq, run */
#define HEADER_TO    8u
#define HEADER_SEQ   12u

typedef struct capture {
    uint32_t from, to;
    size_t len;
    uint8_t data[CAKE__GOSSIP_DATAGRAM_MAX];
} capture_t;

static capture_t *captures;
static size_t capture_count;

static bool keep_frame(virtual_t *cluster, uint32_t from, uint32_t to, cake_slice_t frame)
{
    if (capture_count < CAPTURES_MAX && frame.len <= CAKE__GOSSIP_DATAGRAM_MAX) {
        capture_t *capture = &captures[capture_count++];
        *capture = (capture_t){.from = from, .to = to, .len = frame.len};
        memcpy(capture->data, frame.data, frame.len);
    }
    return false;
}

/* Frames of every type, from a cluster with a busy life. */
static void capture_life(virtual_t *cluster)
{
    captures = calloc(CAPTURES_MAX, sizeof captures[0]);
    assert_non_null(captures);
    capture_count = 0;
    cluster->is_datagram_lost = keep_frame;
    virtual_start_all(cluster, 2);
    for (uint32_t i = 0; i < cluster->count; i++)
        (void)virtual_set(cluster, i, "service", cake__slice("here", 4));
    virtual_run(cluster, 3 * VIRTUAL_SECOND);
    cluster->loss = 0.3;
    virtual_crash(cluster, cluster->count - 1);
    virtual_run(cluster, 2 * VIRTUAL_SECOND);
    cluster->loss = 0;
    virtual_node_t *last = &cluster->nodes[cluster->count - 1];
    uint16_t node_id = last->who.node_id;
    last->who.generation -= 10; /* HELD */
    last->addr = virtual_addr(32 * cluster->count - 1);
    virtual_start(cluster, cluster->count - 1, 2);
    virtual_run(cluster, 2 * VIRTUAL_SECOND);
    virtual_crash(cluster, cluster->count - 1);
    last->who.node_id = cluster->nodes[1].who.node_id; /* CLAIM, notices */
    virtual_start(cluster, cluster->count - 1, 2);
    virtual_run(cluster, 2 * VIRTUAL_SECOND);
    assert_true(last->is_refused);
    virtual_crash(cluster, cluster->count - 1);
    last->who.node_id = node_id;
    last->who.generation += 1000;
    virtual_start(cluster, cluster->count - 1, 2);
    virtual_run(cluster, 2 * VIRTUAL_SECOND);
    cluster->is_datagram_lost = NULL;
}

static void hand_over(virtual_t *cluster, uint32_t to, uint32_t from, const uint8_t *data, size_t len)
{
    uint8_t *exact = malloc(len == 0 ? 1 : len); /* so that reading past the end is seen */
    assert_non_null(exact);
    memcpy(exact, data, len);
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_RECEIVED};
    event.received.from = cluster->nodes[from].addr;
    event.received.frame = cake__slice(exact, len);
    (void)virtual_step(cluster, to, &event);
    free(exact);
}

static void altered_frames_change_nothing(void **state)
{
    virtual_t cluster;
    virtual_init(&cluster, 5, 11);
    capture_life(&cluster);
    virtual_run(&cluster, 10 * VIRTUAL_SECOND);
    cake__gossip_t *gossip = cluster.nodes[0].gossip;
    uint64_t digest = cake__gossip_digest(gossip);
    cake__gossip_counters_t before, after;
    cake__gossip_counters(gossip, &before);
    uint64_t sent = 0;
    for (size_t i = 0; i < capture_count; i++) {
        capture_t altered = captures[i];
        for (int k = 0; k < 4; k++, sent++) {
            size_t len = altered.len, at = cake__random_below(&cluster.random, len);
            altered = captures[i];
            if (k == 0)
                len = at;
            else
                altered.data[at] ^= (uint8_t)(1 + cake__random_below(&cluster.random, 255));
            hand_over(&cluster, 0, 1, altered.data, len);
        }
    }
    cake__gossip_counters(gossip, &after);
    assert_int_equal(after.frames_malformed + after.frames_foreign - before.frames_malformed - before.frames_foreign,
                     sent);
    assert_int_equal(cake__gossip_digest(gossip), digest);
    free(captures);
    virtual_free(&cluster);
}

/* With a check that is right: a peer of ours with a defect, or an attacker who knows the cluster's name. Whatever
 * it does to the view, the process stays whole. */
static void made_up_frames_crash_nothing(void **state)
{
    virtual_t cluster;
    virtual_init(&cluster, 5, 12);
    capture_life(&cluster);
    uint64_t cluster_hash = XXH3_64bits(cluster.cluster_id, strlen(cluster.cluster_id));
    uint8_t types_seen[32] = {0};
    for (uint64_t round = 0; round < 60000; round++) {
        capture_t made = captures[cake__random_below(&cluster.random, capture_count)];
        if (round % 10 == 0) { /* bucket hashes, which only larger clusters send */
            made.data[3] = 11;
            made.len = HEADER + 128 + 8;
            for (size_t i = HEADER; i < made.len; i++)
                made.data[i] = (uint8_t)cake__random_u64(&cluster.random);
        }
        uint32_t to = (uint32_t)cake__random_below(&cluster.random, 5);
        if (cake__random_below(&cluster.random, 8) > 0) { /* for this run, and new */
            uint64_t seq = 1000000 + round;
            memcpy(made.data + HEADER_TO, cluster.nodes[to].who.nonce, 4);
            memcpy(made.data + HEADER_SEQ, &seq, sizeof seq);
        }
        types_seen[made.data[3] % 32] = 1;
        size_t end = made.len - 8;
        uint64_t changes = 1 + cake__random_below(&cluster.random, 4);
        for (uint64_t k = 0; k < changes; k++) {
            size_t from = cake__random_below(&cluster.random, 6) == 0 ? 3 : HEADER;
            size_t at = from >= end ? 3 : from + cake__random_below(&cluster.random, end - from);
            uint8_t extremes[] = {0, 1, 0x7f, 0x80, 0xff, (uint8_t)cake__random_u64(&cluster.random)};
            made.data[at] = extremes[cake__random_below(&cluster.random, sizeof extremes)];
        }
        if (cake__random_below(&cluster.random, 4) == 0 && end > HEADER)
            end = HEADER + cake__random_below(&cluster.random, end - HEADER);
        uint64_t check = XXH3_64bits_withSeed(made.data, end, cluster_hash);
        for (int i = 0; i < 8; i++)
            made.data[end + (size_t)i] = (uint8_t)(check >> (8 * i));
        if (cluster.nodes[to].is_refused) { /* told that it is a duplicate: believed, so start it again */
            virtual_crash(&cluster, to);
            cluster.nodes[to].who.generation += 1000;
            virtual_start(&cluster, to, 2);
        }
        hand_over(&cluster, to, (uint32_t)cake__random_below(&cluster.random, 5), made.data, end + 8);
        if (round % 20 == 0)
            virtual_run(&cluster, 50 * VIRTUAL_MS);
    }
    assert_true(cluster.largest_datagram <= CAKE__GOSSIP_DATAGRAM_MAX);
    for (int type = 1; type <= 14; type++)
        assert_true(types_seen[type]);
    free(captures);
    virtual_free(&cluster);
}

static uint64_t changes_seen;

/* What one frame makes a node send at once, to anyone. */
static size_t bytes_for(virtual_t *cluster, uint32_t to, cake_addr_t from, const uint8_t *data, size_t len)
{
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_TICK};
    const cake__gossip_action_t *actions;
    size_t count, bytes = 0;
    virtual_node_t *node = &cluster->nodes[to];
    uint64_t now_ns = node->zero_ns + cluster->now_ns;
    (void)cake__gossip_step(node->gossip, now_ns, &event, &actions, &count); /* what is due: not the frame's */
    event.kind = CAKE__GOSSIP_RECEIVED;
    event.received.from = from;
    event.received.frame = cake__slice(data, len);
    (void)cake__gossip_step(node->gossip, now_ns, &event, &actions, &count);
    for (size_t k = 0; k < count; k++) {
        bytes += actions[k].kind == CAKE__GOSSIP_SEND ? actions[k].send.frame.len : 0;
        changes_seen += actions[k].kind == CAKE__GOSSIP_MEMBER;
    }
    return bytes;
}

/* Whoever is no member, or speaks to a run that is no more, gets no more bytes than it sent: also with the id of a
 * member and of one of its runs before, whose name is long. */
static void strangers_are_not_amplified(void **state)
{
    static const char long_name[] =
        "a-data-centre-with-a-name-that-is-as-long-as-a-name-can-be-here-which-is-quite-long-a";
    for (int round = 0; round < 4; round++) {
        virtual_t cluster, other;
        virtual_init(&cluster, 40, 13);
        virtual_init(&other, 3, 14);
        for (uint32_t i = 0; i < 40; i++)
            cluster.nodes[i].data_center = long_name;
        for (uint32_t i = 0; i < 3; i++) {
            other.nodes[i].who.node_id = (uint16_t)(round % 2 == 0 ? 500 + i : i + 1);
            other.nodes[i].who.generation = 500;
        }
        cluster.is_sealed = other.is_sealed = round >= 2;
        virtual_start_all(&cluster, 2);
        virtual_run(&cluster, 5 * VIRTUAL_SECOND);
        capture_life(&other);
        virtual_run(&cluster, VIRTUAL_SECOND);
        size_t answered = 0;
        uint64_t cluster_hash = XXH3_64bits(cluster.cluster_id, strlen(cluster.cluster_id));
        for (size_t i = 0; i < capture_count; i++) {
            size_t end = captures[i].len - 8;
            const uint8_t who = 3, held = 4; /* answers themselves: taken once per frame of ours, and for our own id */
            bool is_answer = captures[i].data[3] == who || captures[i].data[3] == held;
            if (round < 2 && i % 4 < 2 && !is_answer) { /* it knows for which run it has to be */
                memcpy(captures[i].data + HEADER_TO, cluster.nodes[0].who.nonce, 4);
                uint64_t check = XXH3_64bits_withSeed(captures[i].data, end, cluster_hash);
                memcpy(captures[i].data + end, &check, sizeof check);
            }
            cake_addr_t from = i % 2 == 0 ? virtual_addr(0xfffff0) : cluster.nodes[2].addr;
            size_t bytes = bytes_for(&cluster, 0, from, captures[i].data, captures[i].len);
            assert_true(bytes <= captures[i].len);
            answered += bytes;
        }
        assert_true(answered > 0);
        free(captures);
        virtual_free(&other);
        virtual_free(&cluster);
    }
}

/* ---- frames that were caught ------------------------------------------------------------------------------------- */

static void count_changes(virtual_t *cluster, uint32_t node, cake__gossip_change_t change,
                          const cake__gossip_member_t *member)
{
    changes_seen++;
}

/* All that was caught, again, to one node: from where it came, or elsewhere. Nothing changes, nothing is flooded. */
static void replay_all(virtual_t *cluster, uint32_t to)
{
    cake__gossip_t *gossip = cluster->nodes[to].gossip;
    uint64_t digest = cake__gossip_digest(gossip);
    for (size_t i = 0; i < capture_count; i++) {
        cake_addr_t from = i % 3 == 0 ? virtual_addr(0xfffff0) : cluster->nodes[captures[i].from].addr;
        size_t bytes = bytes_for(cluster, to, from, captures[i].data, captures[i].len);
        assert_true(bytes <= captures[i].len);
        assert_int_equal(cake__gossip_digest(gossip), digest);
    }
}

static void replay_to_run_and_restart(virtual_t *cluster)
{
    capture_life(cluster);
    virtual_run(cluster, 30 * VIRTUAL_SECOND);
    cluster->on_member = count_changes;
    changes_seen = 0;
    cake__gossip_counters_t counters;
    for (uint32_t to = 0; to < 5; to++)
        replay_all(cluster, to);
    cake__gossip_counters(cluster->nodes[0].gossip, &counters);
    assert_true(counters.frames_replayed > 50 && counters.frames_unknown > 50);
    virtual_run(cluster, 20 * VIRTUAL_SECOND); /* nor does anything come of it later */
    assert_int_equal(changes_seen, 0);
    for (uint32_t i = 0; i < 2; i++) { /* what they remember of each other's frames is gone */
        virtual_crash(cluster, i);
        cluster->nodes[i].who.generation += 10000;
        virtual_start(cluster, i, 2);
        virtual_run(cluster, 20 * VIRTUAL_SECOND);
    }
    changes_seen = 0;
    for (uint32_t to = 0; to < 5; to++)
        replay_all(cluster, to);
    virtual_run(cluster, 20 * VIRTUAL_SECOND);
    assert_int_equal(changes_seen, 0);
    for (uint32_t i = 0; i < 5; i++) {
        cake__gossip_counters(cluster->nodes[i].gossip, &counters);
        assert_true(counters.live == 5 && counters.dead == 0 && counters.frames_malformed == 0);
    }
}

/* 0 stands for nobody. */
static void nobody_has_the_id_0(void **state)
{
    virtual_t cluster;
    cake__buf_t frame;
    virtual_init(&cluster, 1, 13);
    virtual_start_all(&cluster, 0);
    cake__buf_init(&frame, &cake__libc_alloc);
    for (uint16_t id = 0; id < 2; id++) {
        const cake__gossip_peer_t peer = {
            .who = {.node_id = id, .generation = 1}, .addr = virtual_addr(1), .data_center = (char[]){"east"}};
        cake__gossip_record_t record;
        cake__buf_clear(&frame);
        assert_true(cake__gossip_put_record(cluster.nodes[0].gossip, &frame, &peer, true));
        cake__reader_t reader = cake__reader(frame.data, frame.len);
        assert_int_equal(cake__gossip_get_record(&reader, &record), id == 0 ? CAKE_EPARSE : 0);
    }
    cake__buf_free(&frame);
    virtual_free(&cluster);
}

static void captured_frames_change_nothing(void **state)
{
    for (int is_sealed = 0; is_sealed < 2; is_sealed++) {
        virtual_t cluster, other;
        virtual_init(&cluster, 5, 31);
        cluster.is_sealed = is_sealed;
        replay_to_run_and_restart(&cluster);
        virtual_init(&other, 2, 32); /* one that has never met any of them */
        other.is_sealed = is_sealed;
        other.nodes[0].who.node_id = 77;
        other.nodes[1].who.node_id = 78;
        virtual_start_all(&other, 0);
        other.on_member = count_changes;
        changes_seen = 0;
        for (size_t i = 0; i < capture_count; i++) {
            assert_true(bytes_for(&other, i % 2, virtual_addr(32), captures[i].data, captures[i].len) <=
                        captures[i].len);
            virtual_run(&other, VIRTUAL_MS);
        }
        assert_int_equal(changes_seen, 0);
        free(captures);
        virtual_free(&other);
        virtual_free(&cluster);
    }
}

/* Even when nobody remembers the one that they came from. */
static void captured_frames_of_the_forgotten_change_nothing(void **state)
{
    virtual_t cluster;
    virtual_init(&cluster, 5, 33);
    cluster.params.dead_retention_ms = 20000;
    capture_life(&cluster);
    virtual_run(&cluster, 10 * VIRTUAL_SECOND);
    virtual_crash(&cluster, 4);
    virtual_run(&cluster, 60 * VIRTUAL_SECOND);
    cake__gossip_member_t member;
    for (uint32_t i = 0; i < 4; i++)
        assert_false(cake__gossip_find_member(cluster.nodes[i].gossip, 5, &member));
    for (uint32_t to = 0; to < 4; to++)
        replay_all(&cluster, to);
    virtual_run(&cluster, 10 * VIRTUAL_SECOND);
    for (uint32_t i = 0; i < 4; i++)
        assert_false(cake__gossip_find_member(cluster.nodes[i].gossip, 5, &member));
    free(captures);
    virtual_free(&cluster);
}

/* ---- sealed ------------------------------------------------------------------------------------------------------ */

static void start_sealed(virtual_t *cluster, uint32_t count, uint64_t seed, uint64_t key)
{
    virtual_init(cluster, count, seed);
    cluster->is_sealed = true;
    for (uint32_t i = 0; i < count; i++)
        cluster->nodes[i].keys[0] = cluster->nodes[i].keys[1] = key;
}

static void expect_all_well(virtual_t *cluster)
{
    assert_true(virtual_until(cluster, virtual_all_see_all, 5 * VIRTUAL_SECOND));
    assert_int_equal(cluster->false_deaths, 0);
    assert_true(cluster->largest_datagram <= CAKE__GOSSIP_DATAGRAM_MAX);
}

/* Whatever was on the wire, again, altered, in plain, or of another cluster's key: nobody's view or answer changes. */
static void captured_sealed_frames_change_nothing(void **state)
{
    virtual_t cluster, other;
    start_sealed(&cluster, 5, 21, 1000);
    capture_life(&cluster);
    virtual_run(&cluster, 10 * VIRTUAL_SECOND);
    cake__gossip_counters_t before, after;
    for (size_t i = 0; i < capture_count; i++) /* those that were lost on the way arrive late, and for the first time */
        if (captures[i].to == 0)
            hand_over(&cluster, 0, captures[i].from, captures[i].data, captures[i].len);
    virtual_run(&cluster, VIRTUAL_SECOND);
    cake__gossip_counters(cluster.nodes[0].gossip, &before);
    assert_true(before.live == 5 && before.frames_malformed == 0);
    uint64_t digest = cake__gossip_digest(cluster.nodes[0].gossip), replays = 0, altered_count = 0;
    uint64_t sent = cluster.nodes[0].bytes_out;
    for (size_t i = 0; i < capture_count; i++) {
        capture_t altered = captures[i];
        altered.data[cake__random_below(&cluster.random, altered.len)] ^= 1;
        hand_over(&cluster, 0, 1, altered.data, altered.len);
        hand_over(&cluster, 0, 1, altered.data, cake__random_below(&cluster.random, altered.len));
        altered_count += 2;
        if (captures[i].to != 0 || captures[i].from == 4)
            continue; /* of node 5's former runs more below */
        hand_over(&cluster, 0, captures[i].from, captures[i].data, captures[i].len);
        replays++;
    }
    cake__gossip_counters(cluster.nodes[0].gossip, &after);
    assert_int_equal(cake__gossip_digest(cluster.nodes[0].gossip), digest);
    assert_int_equal(after.frames_malformed + after.frames_foreign - before.frames_malformed - before.frames_foreign,
                     altered_count);
    assert_true(replays > 20);
    assert_int_equal(after.frames_replayed - before.frames_replayed, replays);
    assert_int_equal(cluster.nodes[0].bytes_out, sent);
    for (size_t i = 0; i < capture_count; i++)
        if (captures[i].to == 0 && captures[i].from == 4)
            hand_over(&cluster, 0, 4, captures[i].data, captures[i].len);
    assert_int_equal(cake__gossip_digest(cluster.nodes[0].gossip), digest);
    free(captures);
    start_sealed(&other, 5, 22, 2000);
    capture_life(&other);
    for (size_t i = 0; i < capture_count; i++)
        hand_over(&cluster, 0, 1, captures[i].data, captures[i].len);
    assert_int_equal(cake__gossip_digest(cluster.nodes[0].gossip), digest);
    free(captures);
    virtual_free(&other);
    virtual_init(&other, 5, 23); /* the right name, and no key */
    capture_life(&other);
    for (size_t i = 0; i < capture_count; i++)
        hand_over(&cluster, 0, 1, captures[i].data, captures[i].len);
    assert_int_equal(cake__gossip_digest(cluster.nodes[0].gossip), digest);
    free(captures);
    virtual_free(&other);
    expect_all_well(&cluster);
    virtual_free(&cluster);
}

/* A new key to open everywhere, then to seal everywhere, then the old one is gone: at each step node by node. */
static void keys_rotate_without_an_outage(void **state)
{
    virtual_t cluster;
    start_sealed(&cluster, 8, 24, 1);
    virtual_start_all(&cluster, 2);
    expect_all_well(&cluster);
    static const uint64_t rings[][2] = {{1, 2}, {2, 1}, {2, 2}};
    for (size_t step = 0; step < CAKE_COUNT_OF(rings); step++)
        for (uint32_t i = 0; i < 8; i++) {
            memcpy(cluster.nodes[i].keys, rings[step], sizeof rings[step]);
            virtual_run(&cluster, 5 * VIRTUAL_SECOND);
            expect_all_well(&cluster);
            cake__gossip_counters_t counters;
            cake__gossip_counters(cluster.nodes[i].gossip, &counters);
            assert_int_equal(counters.frames_foreign, 0);
        }
    (void)virtual_set(&cluster, 0, "key", cake__slice("new", 3));
    assert_true(virtual_until(&cluster, virtual_all_equal, 5 * VIRTUAL_SECOND));
    virtual_free(&cluster);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

typedef struct heap {
    int64_t blocks, calls, fail_at; /* fail_at: that call fails; -n: every nth fails by chance */
    cake__random_t random;
} heap_t;

static void *heap_resize(void *ctx, void *block, size_t size)
{
    heap_t *heap = ctx;
    if (size == 0) {
        heap->blocks -= block != NULL;
        free(block);
        return NULL;
    }
    heap->calls++;
    if (heap->calls == heap->fail_at ||
        (heap->fail_at < 0 && cake__random_below(&heap->random, (uint64_t)-heap->fail_at) == 0))
        return NULL;
    void *grown = realloc(block, size);
    assert_non_null(grown);
    heap->blocks += block == NULL;
    return grown;
}

static void creation_survives_each_failure(void **state)
{
    heap_t heap = {0};
    cake_alloc_t alloc = {heap_resize, &heap};
    cake__gossip_config_t config = {.alloc = &alloc,
                                    .node_id = 1,
                                    .generation = 1,
                                    .addr = virtual_addr(1),
                                    .data_center = "east",
                                    .cluster_id = "test"};
    cake__gossip_t *gossip;
    for (int64_t n = 1;; n++) {
        heap = (heap_t){.fail_at = n};
        int err = cake__gossip_new(&config, 0, &gossip);
        if (err == 0)
            break;
        assert_int_equal(err, CAKE_ENOMEM);
        assert_null(gossip);
        assert_int_equal(heap.blocks, 0);
    }
    cake__gossip_free(gossip);
    assert_int_equal(heap.blocks, 0);
    config.addr.port = 0;
    assert_int_equal(cake__gossip_new(&config, 0, &gossip), CAKE_EINVAL);
    config.addr.port = 1;
    config.node_id = 0;
    assert_int_equal(cake__gossip_new(&config, 0, &gossip), CAKE_EINVAL);
    config.node_id = 1;
    config.cluster_id = "";
    assert_int_equal(cake__gossip_new(&config, 0, &gossip), CAKE_EINVAL);
    cake__gossip_free(NULL);
}

/* Every member is told exactly as it came and went, whatever failed. */
static int64_t told[8][9];

static void tell(virtual_t *cluster, uint32_t node, cake__gossip_change_t change, const cake__gossip_member_t *member)
{
    int64_t *live = &told[node][member->who.node_id];
    if (change == CAKE__GOSSIP_JOINED || (change == CAKE__GOSSIP_ALIVE_AGAIN && *live == 0))
        *live += 1;
    else if (change == CAKE__GOSSIP_DIED || change == CAKE__GOSSIP_DEPARTED)
        *live -= 1;
    assert_true(*live == 0 || *live == 1);
}

static void clusters_survive_failing_memory(void **state)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        heap_t heap = {0};
        cake__random_init(&heap.random, seed);
        cake_alloc_t alloc = {heap_resize, &heap};
        virtual_t cluster;
        virtual_init(&cluster, 6, seed);
        cluster.alloc = &alloc;
        cluster.on_member = tell;
        memset(told, 0, sizeof told);
        virtual_start_all(&cluster, 2);
        heap.fail_at = -(int64_t)(2 + seed % 4);
        for (int i = 0; i < 60; i++) {
            char key[16];
            snprintf(key, sizeof key, "k%d", i % 9);
            (void)virtual_set(&cluster, (uint32_t)i % 5, key, cake__slice(key, sizeof key));
            virtual_run(&cluster, 100 * VIRTUAL_MS);
        }
        virtual_crash(&cluster, 5);
        virtual_run(&cluster, 12 * VIRTUAL_SECOND);
        cluster.nodes[5].who.generation += 5;
        heap.fail_at = 0;
        virtual_start(&cluster, 5, 2);
        memset(told[5], 0, sizeof told[5]);
        heap.fail_at = -(int64_t)(2 + seed % 4);
        virtual_run(&cluster, 3 * VIRTUAL_SECOND);
        heap.fail_at = 0;
        assert_true(virtual_until(&cluster, virtual_all_see_all, 30 * VIRTUAL_SECOND));
        assert_true(virtual_until(&cluster, virtual_all_equal, 30 * VIRTUAL_SECOND));
        for (uint32_t i = 0; i < 6; i++)
            for (uint16_t id = 1; id <= 6; id++)
                assert_int_equal(told[i][id], id == i + 1 ? 0 : 1);
        virtual_free(&cluster);
        assert_int_equal(heap.blocks, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(altered_frames_change_nothing),
        cmocka_unit_test(made_up_frames_crash_nothing),
        cmocka_unit_test(strangers_are_not_amplified),
        cmocka_unit_test(creation_survives_each_failure),
        cmocka_unit_test(clusters_survive_failing_memory),
        cmocka_unit_test(captured_sealed_frames_change_nothing),
        cmocka_unit_test(keys_rotate_without_an_outage),
        cmocka_unit_test(nobody_has_the_id_0),
        cmocka_unit_test(captured_frames_change_nothing),
        cmocka_unit_test(captured_frames_of_the_forgotten_change_nothing),
    };
    if (getenv("CAKE_GOSSIP_TEST") != NULL) /* one alone: see tests.cmake */
        cmocka_set_test_filter(getenv("CAKE_GOSSIP_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
