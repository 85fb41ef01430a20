/* Compression: what packs, what does not, what is refused, and peers that do not read it. */
#include "store/cluster_test.h"
#include "store/pack.h"

static const cake_alloc_t *const heap = &cake__libc_alloc;

static int unpack_bytes(const uint8_t *data, size_t len, cake__buf_t *raw)
{
    cake__workspace_t workspace = {.alloc = heap};
    cake__reader_t reader = cake__reader(data, len);
    cake__buf_init(raw, heap);
    int err = cake__unpack(&workspace, &reader, raw);
    if (err == 0 && !cake__reader_done(&reader))
        err = CAKE_EPARSE;
    cake__workspace_free(&workspace);
    return err;
}

static bool pack_bytes(const uint8_t *data, size_t len, cake__buf_t *out)
{
    cake__workspace_t workspace = {.alloc = heap};
    cake__buf_init(out, heap);
    bool is_packed = cake__pack(&workspace, cake__slice(data, len), out);
    cake__workspace_free(&workspace);
    return is_packed;
}

static void what_is_packed_comes_out_as_it_was(void **state)
{
    (void)state;
    static uint8_t text[300000];
    static const size_t lengths[] = {CAKE__PACK_MIN, 4096, sizeof text};
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)("datacake"[i % 8] + i / 5000 % 3);
    for (size_t i = 0; i < CAKE_COUNT_OF(lengths); i++) {
        cake__buf_t packed, raw;
        assert_true(pack_bytes(text, lengths[i], &packed));
        assert_in_range(packed.len, 1, lengths[i] - lengths[i] / 4);
        assert_int_equal(packed.data[0], CAKE__PAYLOAD_PACKED);
        assert_int_equal(unpack_bytes(packed.data + 1, packed.len - 1, &raw), 0);
        assert_true(cake__slice_equal(cake__buf_slice(&raw), cake__slice(text, lengths[i])));
        cake__buf_free(&packed);
        cake__buf_free(&raw);
    }
}

static void what_is_small_or_random_stays_as_it_is(void **state)
{
    (void)state;
    static uint8_t noise[100000];
    cake__buf_t out;
    uint64_t word = 1;
    assert_false(pack_bytes(noise, CAKE__PACK_MIN - 1, &out));
    assert_int_equal(out.len, 0);
    cake__buf_free(&out);
    for (size_t i = 0; i < sizeof noise; i++) {
        word = word * UINT64_C(6364136223846793005) + 1442695040888963407;
        noise[i] = (uint8_t)(word >> 56);
    }
    assert_false(pack_bytes(noise, sizeof noise, &out));
    assert_int_equal(out.len, 0);
    cake__buf_free(&out);
}

/* A few bytes that claim to be gigabytes take no memory; a frame longer or shorter than was said is refused. */
static void bombs_and_lies_are_refused(void **state)
{
    (void)state;
    static uint8_t zeroes[200000];
    cake__buf_t packed, raw, lie;
    assert_true(pack_bytes(zeroes, sizeof zeroes, &packed));
    cake__reader_t reader = cake__reader(packed.data + 1, packed.len - 1);
    assert_int_equal(cake__get_varint(&reader), sizeof zeroes);
    cake_slice_t frame = cake__get_string(&reader, SIZE_MAX);
    static const uint64_t claims[] = {
        0, 1, sizeof zeroes - 1, sizeof zeroes + 1, CAKE__UNPACKED_MAX, CAKE__UNPACKED_MAX + 1, UINT64_MAX};
    for (size_t i = 0; i < CAKE_COUNT_OF(claims); i++) {
        cake__buf_init(&lie, heap);
        cake__put_varint(&lie, claims[i]);
        cake__put_string(&lie, frame);
        int err = unpack_bytes(lie.data, lie.len, &raw);
        assert_int_equal(err, claims[i] > CAKE__UNPACKED_MAX ? CAKE_ETOOBIG : CAKE_EPARSE);
        assert_int_equal(raw.capacity, 0);
        cake__buf_free(&lie);
        cake__buf_free(&raw);
    }
    cake__buf_free(&packed);
}

static void cut_or_changed_bytes_are_refused_or_come_out_whole(void **state)
{
    (void)state;
    static uint8_t text[5000];
    cake__buf_t packed, raw;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)(i * i / 7 % 50);
    assert_true(pack_bytes(text, sizeof text, &packed));
    for (size_t len = 0; len < packed.len - 1; len++) {
        assert_int_equal(unpack_bytes(packed.data + 1, len, &raw), CAKE_EPARSE);
        cake__buf_free(&raw);
    }
    for (size_t at = 1; at < packed.len; at++) {
        packed.data[at] ^= 0x15;
        if (unpack_bytes(packed.data + 1, packed.len - 1, &raw) == 0)
            assert_int_equal(raw.len, sizeof text);
        cake__buf_free(&raw);
        packed.data[at] ^= 0x15;
    }
    cake__buf_free(&packed);
}

/* ---- between nodes ------------------------------------------------------------------------------------------------*/

#define DOCS 300

static void put_many(cluster_t *cluster, int id, const char *prefix, bool is_text)
{
    static char values[DOCS][200], keys[DOCS][32];
    cake_item_t items[DOCS];
    uint64_t word = 7;
    for (int i = 0; i < DOCS; i++) {
        snprintf(keys[i], sizeof keys[i], "%s%d", prefix, i);
        for (size_t k = 0; k < sizeof values[i]; k++) {
            word = word * UINT64_C(6364136223846793005) + 1442695040888963407;
            values[i][k] = is_text ? "the cake is on the table"[k % 24] : (char)(word >> 56);
        }
        items[i] = (cake_item_t){cake_key_str(keys[i]), values[i], sizeof values[i]};
    }
    assert_int_equal(cake_store_put_many(cluster->members[id].store, "ks", items, DOCS, CAKE_ALL), 0);
}

static cake_store_stats_t stats_of(cluster_t *cluster, int id)
{
    cake_store_stats_t stats;
    assert_int_equal(cake_store_stats(cluster->members[id].store, &stats), 0);
    return stats;
}

static void batches_and_sessions_of_text_are_packed(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 71, NULL);
    put_many(&cluster, 1, "text", true);
    cake_store_stats_t stats = stats_of(&cluster, 1);
    assert_in_range(stats.batch_bytes_sent, 1, DOCS * 200);
    assert_in_range(stats.batch_bytes_saved, DOCS * 200, DOCS * 600);
    put_many(&cluster, 1, "noise", false);
    assert_int_equal(stats_of(&cluster, 1).batch_bytes_saved, stats.batch_bytes_saved);
    cluster_crash(&cluster, 3); /* the others hold its place; what it lacks then comes by sessions */
    cake_storage_close(cluster.members[3].storage);
    cluster.members[3].storage = NULL;
    cluster_start(&cluster, 3);
    cluster_wait(&cluster, cluster_has_joined, 20000);
    cluster_wait(&cluster, cluster_is_equal, 20000);
    assert_in_range(stats_of(&cluster, 3).session_bytes_saved, DOCS * 100, DOCS * 400);
    cluster_close(&cluster);
}

static bool has_met_two(void *arg)
{
    cluster_t *cluster = arg;
    return cake__peer_find(cluster->members[1].store, 2)->actor == cluster->members[2].store->actor &&
           cake__peer_find(cluster->members[2].store, 1)->actor == cluster->members[1].store->actor;
}

/* Its hail does not offer it: the others send it plain bytes, and go on packing for each other. */
static void a_peer_that_does_not_offer_it_gets_plain_bytes(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cluster_open(&cluster, 2, 72, NULL);
    cluster_crash(&cluster, 2);
    cluster.options.no_compression = true;
    cluster_start(&cluster, 2);
    cluster_wait(&cluster, has_met_two, 20000);
    assert_false(cake__peer_find(cluster.members[1].store, 2)->reads_packed);
    assert_true(cake__peer_find(cluster.members[2].store, 1)->reads_packed);
    put_many(&cluster, 1, "one", true);
    put_many(&cluster, 2, "two", true);
    cluster_wait(&cluster, cluster_is_equal, 20000);
    assert_int_equal(stats_of(&cluster, 1).batch_bytes_saved, 0);
    assert_int_equal(stats_of(&cluster, 2).batch_bytes_saved, 0);
    cluster_close(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_packed_comes_out_as_it_was),
        cmocka_unit_test(what_is_small_or_random_stays_as_it_is),
        cmocka_unit_test(bombs_and_lies_are_refused),
        cmocka_unit_test(cut_or_changed_bytes_are_refused_or_come_out_whole),
        cmocka_unit_test(batches_and_sessions_of_text_are_packed),
        cmocka_unit_test(a_peer_that_does_not_offer_it_gets_plain_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
