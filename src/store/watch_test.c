/* Watches from a position: every change once, in order, at the reader's pace, over restarts and on any node. */
#include <stdlib.h>

#include "store/cluster_test.h"

#define KEYS 40

/* What an application would keep: the documents as it was told, and how far. */
typedef struct {
    cake_watch_t *watch;
    cake_position_t position;
    cake_hlc_t stamps[KEYS]; /* of the last change of each; 0: never told */
    bool is_there[KEYS];
    uint64_t told, resets, granted, stop_after;
    cake_hlc_t last;
    bool is_ordered; /* changes have to come in order of stamps: one writer */
} reader_t;

static void on_change(void *arg, const cake_change_t *change)
{
    reader_t *reader = arg;
    if (change->is_reset) {
        reader->resets++;
        memset(reader->stamps, 0, sizeof reader->stamps);
        memset(reader->is_there, 0, sizeof reader->is_there);
        reader->last = 0;
        return;
    }
    char text[16] = {0};
    assert_in_range(change->key.len, 2, sizeof text - 1);
    memcpy(text, change->key.data, change->key.len);
    int key = atoi(text + 1);
    assert_in_range(key, 0, KEYS - 1);
    /* Never back; once, but that two nodes may have stamped two writes alike. */
    assert_true(change->timestamp >= reader->stamps[key]);
    assert_true(change->timestamp > reader->stamps[key] || !reader->is_ordered);
    if (reader->is_ordered)
        assert_true(change->timestamp > reader->last);
    reader->last = change->timestamp;
    reader->stamps[key] = change->timestamp;
    reader->is_there[key] = !change->is_delete;
    reader->told++;
    if (reader->stop_after != 0 && reader->told == reader->stop_after) {
        assert_int_equal(cake_watch_position(reader->watch, &reader->position), 0);
        cake_watch_stop(reader->watch);
        reader->watch = NULL;
        reader->stop_after = 0;
    }
}

static void open_watch(cluster_t *cluster, int id, reader_t *reader, uint64_t credit)
{
    cake_watch_options_t options = CAKE_WATCH_OPTIONS_INIT;
    options.keyspace = "ks";
    options.credit = credit;
    cake_position_t position = reader->position; /* the first callback may come before the call returns */
    reader->position = (cake_position_t){0};
    options.position = cake__slice(position.data, position.len);
    assert_int_equal(cake_store_watch_from(cluster->members[id].store, &options, on_change, reader, &reader->watch), 0);
    cake_position_free(&position);
}

static void leave(reader_t *reader)
{
    if (reader->watch == NULL)
        return;
    assert_int_equal(cake_watch_position(reader->watch, &reader->position), 0);
    cake_watch_stop(reader->watch);
    reader->watch = NULL;
}

static void put_key(cluster_t *cluster, int id, int key)
{
    char text[16];
    snprintf(text, sizeof text, "k%d", key);
    assert_int_equal(put_text(cluster, id, text, text, CAKE_NONE), 0);
}

static void delete_key(cluster_t *cluster, int id, int key)
{
    char text[16];
    snprintf(text, sizeof text, "k%d", key);
    assert_int_equal(cake_store_del(cluster->members[id].store, "ks", cake_key_str(text), CAKE_NONE), 0);
}

static void run_for_ms(cluster_t *cluster, uint64_t duration_ms)
{
    cake__world_run_for(cluster->world, duration_ms * CAKE_NS_PER_MS);
}

/* The reader knows exactly what the node has. */
static void assert_knows_all(cluster_t *cluster, int id, const reader_t *reader)
{
    for (int key = 0; key < KEYS; key++) {
        cake_doc_t *doc = NULL;
        char text[16];
        snprintf(text, sizeof text, "k%d", key);
        int err = cake_store_get(cluster->members[id].store, "ks", cake_key_str(text), &doc);
        assert_int_equal(err == 0, reader->is_there[key]);
        if (err == 0)
            assert_int_equal(cake_doc_timestamp(doc), reader->stamps[key]);
        cake_doc_free(doc);
    }
}

static void a_new_watch_begins_with_all_that_is_there(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    reader_t reader = {.is_ordered = true};
    cluster_open(&cluster, 1, 91, NULL);
    for (int i = 0; i < 3 * KEYS; i++)
        put_key(&cluster, 1, i % KEYS);
    delete_key(&cluster, 1, 7);
    open_watch(&cluster, 1, &reader, 0);
    run_for_ms(&cluster, 10);
    assert_int_equal(reader.told, KEYS);
    put_key(&cluster, 1, 3);
    put_key(&cluster, 1, 3);
    delete_key(&cluster, 1, 4);
    assert_int_equal(reader.told, KEYS + 3);
    assert_knows_all(&cluster, 1, &reader);
    leave(&reader);
    cake_position_free(&reader.position);
    cluster_close(&cluster);
}

static void a_reader_that_comes_back_is_told_what_it_missed_and_nothing_else(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    reader_t reader = {.is_ordered = true};
    cluster_open(&cluster, 1, 92, NULL);
    for (int i = 0; i < KEYS; i++)
        put_key(&cluster, 1, i);
    open_watch(&cluster, 1, &reader, 0);
    run_for_ms(&cluster, 10);
    leave(&reader);
    put_key(&cluster, 1, 5);
    put_key(&cluster, 1, 5);
    delete_key(&cluster, 1, 6);
    cluster_crash(&cluster, 1);
    cluster_start(&cluster, 1);
    cluster_wait(&cluster, cluster_has_joined, 20000);
    put_key(&cluster, 1, 8);
    reader.told = 0;
    open_watch(&cluster, 1, &reader, 0);
    run_for_ms(&cluster, 10);
    assert_int_equal(reader.told, 3);
    assert_int_equal(reader.resets, 0);
    assert_knows_all(&cluster, 1, &reader);
    leave(&reader);
    cake_position_free(&reader.position);
    cluster_close(&cluster);
}

/* Credit is all that a slow reader gets; meanwhile documents change, and it is told their last change once. */
static void a_slow_reader_is_told_no_faster_than_it_asks(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    reader_t reader = {0};
    cluster_open(&cluster, 1, 93, NULL);
    for (int i = 0; i < KEYS; i++)
        put_key(&cluster, 1, i);
    open_watch(&cluster, 1, &reader, 10);
    run_for_ms(&cluster, 10);
    assert_int_equal(reader.told, 10);
    for (int i = 0; i < 1000; i++)
        put_key(&cluster, 1, i % 2);
    run_for_ms(&cluster, 10);
    assert_int_equal(reader.told, 10);
    for (int i = 0; i < 8 && reader.told < KEYS + 2; i++) {
        uint64_t before = reader.told;
        assert_int_equal(cake_watch_grant(reader.watch, 5), 0);
        run_for_ms(&cluster, 10);
        assert_in_range(reader.told, before + 1, before + 5);
    }
    assert_int_equal(reader.told, KEYS + 2);
    assert_int_equal(cake_watch_grant(reader.watch, 100), 0);
    run_for_ms(&cluster, 10);
    assert_int_equal(reader.told, KEYS + 2);
    assert_knows_all(&cluster, 1, &reader);
    leave(&reader);
    cake_position_free(&reader.position);
    cluster_close(&cluster);
}

static void a_position_taken_in_the_middle_of_a_batch_is_exact(void **state)
{
    (void)state;
    static const char *const names[] = {"k1", "k2", "k3", "k4", "k5", "k6"};
    for (uint64_t stop_after = 1; stop_after <= 6; stop_after++) {
        cluster_t cluster = {0};
        reader_t reader = {.stop_after = stop_after};
        cake_item_t items[6];
        cluster_open(&cluster, 1, 94, NULL);
        for (int i = 0; i < 6; i++)
            items[i] = (cake_item_t){cake_key_str(names[i]), "v", 1};
        open_watch(&cluster, 1, &reader, 0);
        run_for_ms(&cluster, 10);
        if (stop_after % 2 == 0) { /* live, or read afterwards */
            assert_int_equal(cake_store_put_many(cluster.members[1].store, "ks", items, 6, CAKE_NONE), 0);
        } else {
            leave(&reader);
            assert_int_equal(cake_store_put_many(cluster.members[1].store, "ks", items, 6, CAKE_NONE), 0);
            open_watch(&cluster, 1, &reader, 0);
            run_for_ms(&cluster, 10);
        }
        assert_int_equal(reader.told, stop_after);
        put_key(&cluster, 1, 9);
        open_watch(&cluster, 1, &reader, 0);
        run_for_ms(&cluster, 10);
        assert_int_equal(reader.told, 7);
        assert_knows_all(&cluster, 1, &reader);
        leave(&reader);
        cake_position_free(&reader.position);
        cluster_close(&cluster);
    }
}

static bool has_no_tombstones(void *arg)
{
    cluster_t *cluster = arg;
    return cake__list_is_empty(&cluster->members[1].store->with_tombstones);
}

static void a_reader_that_missed_deletes_for_good_begins_anew(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    reader_t reader = {0};
    cluster_open(&cluster, 1, 95, NULL);
    for (int i = 0; i < 10; i++)
        put_key(&cluster, 1, i);
    open_watch(&cluster, 1, &reader, 0);
    run_for_ms(&cluster, 10);
    leave(&reader);
    delete_key(&cluster, 1, 2);
    cluster_wait(&cluster, has_no_tombstones, 30000);
    open_watch(&cluster, 1, &reader, 0);
    run_for_ms(&cluster, 10);
    assert_int_equal(reader.resets, 1);
    assert_int_equal(reader.told, 10 + 9);
    assert_knows_all(&cluster, 1, &reader);
    leave(&reader);
    cake_position_free(&reader.position);
    cluster_close(&cluster);
}

/* A tombstone waits for a reader that is behind, but not for ever. */
static void a_reader_without_credit_holds_purges_up_for_a_minute(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    reader_t reader = {0};
    cluster_open(&cluster, 1, 96, NULL);
    for (int i = 0; i < 10; i++)
        put_key(&cluster, 1, i);
    open_watch(&cluster, 1, &reader, 10);
    run_for_ms(&cluster, 10);
    delete_key(&cluster, 1, 2);
    run_for_ms(&cluster, 40000);
    assert_false(has_no_tombstones(&cluster));
    cluster_wait(&cluster, has_no_tombstones, 40000);
    assert_int_equal(cake_watch_grant(reader.watch, 100), 0);
    run_for_ms(&cluster, 10);
    assert_int_equal(reader.resets, 1);
    assert_knows_all(&cluster, 1, &reader);
    leave(&reader);
    cake_position_free(&reader.position);
    cluster_close(&cluster);
}

static bool one_and_two_have_no_tombstones(void *arg)
{
    cluster_t *cluster = arg;
    return has_no_tombstones(cluster) && cake__list_is_empty(&cluster->members[2].store->with_tombstones);
}

/* Node 3 was away for so long that the tombstone went without it: a repair removes the document there, which is no
 * write. */
static void a_reader_hears_of_documents_that_a_repair_removes(void **state)
{
    (void)state;
    cluster_t cluster = {.options.forget_after_ms = 20000};
    reader_t reader = {0};
    cluster_open(&cluster, 3, 98, NULL);
    for (int i = 0; i < 10; i++)
        put_key(&cluster, 1, i);
    cluster_wait(&cluster, cluster_is_equal, 20000);
    open_watch(&cluster, 3, &reader, 0);
    run_for_ms(&cluster, 10);
    assert_int_equal(reader.told, 10);
    cake__world_cut_both(cluster.world, 1, 3, true);
    cake__world_cut_both(cluster.world, 2, 3, true);
    run_for_ms(&cluster, 30000); /* it is dead to them: nothing is queued for it */
    delete_key(&cluster, 1, 2);
    run_for_ms(&cluster, 1000);
    cluster_wait(&cluster, one_and_two_have_no_tombstones, 120000);
    cake__world_heal(cluster.world);
    cluster_wait(&cluster, cluster_is_equal, 60000);
    run_for_ms(&cluster, 100);
    assert_false(reader.is_there[2]);
    assert_in_range(reader.resets, 1, 3);
    assert_knows_all(&cluster, 3, &reader);
    leave(&reader);
    cake_position_free(&reader.position);
    cluster_close(&cluster);
}

static void bytes_that_are_no_position_are_refused(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    reader_t reader = {0};
    cake_watch_options_t options = CAKE_WATCH_OPTIONS_INIT;
    cake_watch_t *watch;
    cluster_open(&cluster, 1, 97, NULL);
    cake_store_t *store = cluster.members[1].store;
    for (int i = 0; i < 10; i++)
        put_key(&cluster, 1, i);
    open_watch(&cluster, 1, &reader, 3);
    run_for_ms(&cluster, 10);
    leave(&reader);
    options.keyspace = "ks";
    for (size_t len = 1; len < reader.position.len; len++) {
        options.position = cake__slice(reader.position.data, len);
        assert_int_equal(cake_store_watch_from(store, &options, on_change, &reader, &watch), CAKE_EPARSE);
        assert_null(watch);
    }
    options.position = cake__slice(reader.position.data, reader.position.len);
    options.keyspace = "other";
    assert_int_equal(cake_store_watch_from(store, &options, on_change, &reader, &watch), CAKE_EINVAL);
    ((uint8_t *)reader.position.data)[0] = 9;
    options.keyspace = "ks";
    assert_int_equal(cake_store_watch_from(store, &options, on_change, &reader, &watch), CAKE_EVERSION);
    cake_position_free(&reader.position);
    cluster_close(&cluster);
}

/* Writers everywhere; readers that leave, come back on any node, with any credit; nodes that crash and start again. */
static void readers_that_wander_end_with_exactly_what_is_there(void **state)
{
    (void)state;
    uint64_t seeds = getenv("DATACAKE_WATCH_SEEDS") != NULL ? strtoull(getenv("DATACAKE_WATCH_SEEDS"), NULL, 10) : 15;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        cluster_t cluster = {0};
        reader_t readers[3] = {{0}};
        int at[3] = {0};
        cluster_open(&cluster, 3, 1000 + seed, NULL);
        for (int step = 0; step < 400; step++) {
            uint64_t draw = cake__world_draw(cluster.world);
            int id = 1 + (int)(draw >> 8 & 255) % 3, which = (int)(draw >> 16 & 255) % 3,
                key = (int)(draw >> 24 & 255) % KEYS;
            if (draw % 16 < 9)
                put_key(&cluster, id, key);
            else if (draw % 16 < 12)
                delete_key(&cluster, id, key);
            else if (draw % 16 == 12)
                run_for_ms(&cluster, (draw >> 32) % 500);
            else if (draw % 64 == 13) {
                for (int i = 0; i < 3; i++) {
                    if (at[i] == id)
                        leave(&readers[i]);
                }
                cluster_crash(&cluster, id);
                cluster_start(&cluster, id);
                cluster_wait(&cluster, cluster_has_joined, 20000);
            } else if (readers[which].watch == NULL) {
                at[which] = id;
                open_watch(&cluster, id, &readers[which], 1 + (draw >> 40) % 30);
            } else if (draw % 16 == 14) {
                leave(&readers[which]);
            } else {
                assert_int_equal(cake_watch_grant(readers[which].watch, 1 + (draw >> 40) % 20), 0);
            }
        }
        cluster_wait(&cluster, cluster_is_equal, 60000);
        for (int i = 0; i < 3; i++) {
            leave(&readers[i]);
            open_watch(&cluster, 1 + i, &readers[i], 100000);
            run_for_ms(&cluster, 100);
            assert_knows_all(&cluster, 1 + i, &readers[i]);
            leave(&readers[i]);
            cake_position_free(&readers[i].position);
        }
        cluster_close(&cluster);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_watch_begins_with_all_that_is_there),
        cmocka_unit_test(a_reader_that_comes_back_is_told_what_it_missed_and_nothing_else),
        cmocka_unit_test(a_slow_reader_is_told_no_faster_than_it_asks),
        cmocka_unit_test(a_position_taken_in_the_middle_of_a_batch_is_exact),
        cmocka_unit_test(a_reader_that_missed_deletes_for_good_begins_anew),
        cmocka_unit_test(a_reader_without_credit_holds_purges_up_for_a_minute),
        cmocka_unit_test(a_reader_hears_of_documents_that_a_repair_removes),
        cmocka_unit_test(bytes_that_are_no_position_are_refused),
        cmocka_unit_test(readers_that_wander_end_with_exactly_what_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
