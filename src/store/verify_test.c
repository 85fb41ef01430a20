/* Promises of verifying: what damage is found, named and mended, and that nothing is where there is none. */
#include "store/cluster_test.h"

#define KEYS 500

/* ---- damage -------------------------------------------------------------------------------------------------------*/

static const cake_record_t nothing = {.hlc = 0};

static int take_record(void *arg, const cake_row_t *row)
{
    cake_record_t *record = arg;
    *record = (cake_record_t){row->id, row->hlc, row->dot, row->is_tombstone};
    return 0;
}

/* Behind the store's back: what a failing disk, a wrong restore or another program may do. */
static void write_row(cluster_t *cluster, int id, const char *key, const char *value, uint64_t later, cake_dot_t dot)
{
    cake_storage_t *storage = cluster->members[id].storage;
    cake_write_t write = {.kind = value == NULL ? CAKE_WRITE_ERASE : CAKE_WRITE_PUT,
                          .keyspace = cake__slice_str("ks"),
                          .key = cake__slice_str(key),
                          .value = cake__slice_str(value == NULL ? "" : value)};
    const cake_batch_t batch = {.writes = &write, .write_count = 1};
    cake_record_t record = nothing;
    assert_int_equal(cake__key_id(write.key, &write.id), 0);
    assert_int_equal(storage->ops->fetch(storage, write.keyspace, &write.id, 1, take_record, &record), 0);
    write.hlc = record.hlc + later;
    write.dot = dot.actor != 0 ? dot : record.dot;
    assert_int_equal(storage->ops->write(storage, &batch), 0);
}

static void lose_row(cluster_t *cluster, int id, const char *key)
{
    write_row(cluster, id, key, NULL, 0, (cake_dot_t){0});
}

typedef struct {
    uint32_t count, healed;
    char last_key[600];
    cake_damage_kind_t last_kind;
    uint16_t last_node;
} found_t;

static void on_found(void *arg, const cake_damage_t *damage)
{
    found_t *found = arg;
    found->count++;
    found->healed += damage->is_healed;
    found->last_kind = damage->kind;
    found->last_node = damage->node_id;
    snprintf(found->last_key, sizeof found->last_key, "%.*s", (int)damage->key.len, (const char *)damage->key.data);
}

static cake_verify_report_t verify(cluster_t *cluster, int id, bool only_report, found_t *found)
{
    cake_verify_options_t options = CAKE_VERIFY_OPTIONS_INIT;
    cake_verify_report_t report;
    *found = (found_t){0};
    options.only_report = only_report;
    options.found = on_found;
    options.arg = found;
    assert_int_equal(cake_store_verify(cluster->members[id].store, &options, &report), 0);
    assert_int_equal(found->count, report.missing + report.strange + report.wrong + report.different + report.damaged);
    assert_int_equal(found->healed, report.healed);
    return report;
}

static void open_filled(cluster_t *cluster, int count, uint64_t seed)
{
    char key[16];
    cluster_open(cluster, count, seed, NULL);
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(put_text(cluster, 1, key, "value", CAKE_NONE), 0);
    }
    assert_int_equal(put_text(cluster, 1, "a key of many more bytes than fit into an id", "value", CAKE_NONE), 0);
    assert_int_equal(cake_store_del(cluster->members[1].store, "ks", cake_key_str("k1"), CAKE_ALL), 0);
    cluster_wait(cluster, cluster_is_equal, 10000);
}

static void assert_whole(cluster_t *cluster)
{
    found_t found;
    cluster_wait(cluster, cluster_is_equal, 20000);
    for (int i = 1; i <= cluster->count; i++) {
        cake_verify_report_t report = verify(cluster, i, true, &found);
        assert_int_equal(found.count, 0);
        assert_int_equal(report.not_compared, 0);
        assert_int_equal(report.ranges_different, 0);
        assert_int_equal(report.replicas, cluster->count - 1);
        assert_int_equal(report.documents, KEYS);
    }
}

/* ---- what is found ------------------------------------------------------------------------------------------------*/

static void a_cluster_without_damage_is_found_whole(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    open_filled(&cluster, 3, 301);
    assert_whole(&cluster);
    cluster_close(&cluster);
}

static void a_row_that_is_gone_comes_back_from_a_replica(void **state)
{
    (void)state;
    static const char *const keys[] = {"k7", "a key of many more bytes than fit into an id"};
    for (size_t i = 0; i < CAKE_COUNT_OF(keys); i++) {
        cluster_t cluster = {0};
        found_t found;
        open_filled(&cluster, 3, 302);
        lose_row(&cluster, 2, keys[i]);
        assert_text(&cluster, 2, keys[i], NULL);
        cake_verify_report_t report = verify(&cluster, 2, true, &found);
        assert_true(report.missing == 1 && found.count == 1 && report.healed == 0);
        if (i == 0)
            assert_string_equal(found.last_key, keys[i]);
        assert_text(&cluster, 2, keys[i], NULL);
        report = verify(&cluster, 2, false, &found);
        assert_true(report.missing == 1 && found.count == 1 && report.healed == 1);
        assert_text(&cluster, 2, keys[i], "value");
        assert_whole(&cluster);
        cluster_close(&cluster);
    }
}

static void a_row_of_another_write_is_put_right(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    found_t found;
    open_filled(&cluster, 3, 303);
    write_row(&cluster, 3, "k9", "old", 0, (cake_dot_t){77, 1});
    cake_verify_report_t report = verify(&cluster, 3, false, &found);
    assert_true(report.wrong == 1 && found.count == 1 && report.healed == 1);
    assert_string_equal(found.last_key, "k9");
    assert_text(&cluster, 3, "k9", "value");
    assert_whole(&cluster);
    cluster_close(&cluster);
}

static void a_row_that_nobody_wrote_is_removed(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    found_t found;
    open_filled(&cluster, 2, 304);
    write_row(&cluster, 1, "ghost", "boo", 5, (cake_dot_t){77, 1});
    assert_text(&cluster, 1, "ghost", "boo");
    cake_verify_report_t report = verify(&cluster, 1, false, &found);
    assert_true(report.strange == 1 && found.count == 1 && report.healed == 1);
    assert_string_equal(found.last_key, "ghost");
    assert_text(&cluster, 1, "ghost", NULL);
    assert_whole(&cluster);
    cluster_close(&cluster);
}

/* Else the next start knows nothing of the delete. That of a key that does not fit into an id is to be had from a
 * replica only. */
static void a_tombstone_whose_row_is_gone_comes_back(void **state)
{
    (void)state;
    static const char *const keys[] = {"k2", "a key of many more bytes than fit into an id"};
    for (size_t i = 0; i < CAKE_COUNT_OF(keys); i++) {
        cluster_t cluster = {.options = {.tombstone_min_age_ms = 3600000}};
        cake_record_t record = nothing;
        cake_id_t id;
        found_t found;
        open_filled(&cluster, 3, 308);
        assert_int_equal(cake_store_del(cluster.members[1].store, "ks", cake_key_str(keys[i]), CAKE_ALL), 0);
        lose_row(&cluster, 2, keys[i]);
        cake_verify_report_t report = verify(&cluster, 2, true, &found);
        assert_true(report.missing == 1 && found.count == 1 && report.healed == 0);
        report = verify(&cluster, 2, false, &found);
        assert_true(report.missing == 1 && found.count == 1 && report.healed == 1);
        cake_storage_t *storage = cluster.members[2].storage;
        assert_int_equal(cake__key_id(cake__slice_str(keys[i]), &id), 0);
        assert_int_equal(storage->ops->fetch(storage, cake__slice_str("ks"), &id, 1, take_record, &record), 0);
        assert_true(record.is_tombstone && record.hlc != 0);
        report = verify(&cluster, 2, true, &found);
        assert_int_equal(found.count, 0);
        cluster_close(&cluster);
    }
}

/* No replica has it: it is said, and stays so. */
static void what_no_replica_has_is_named_and_not_mended(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    found_t found;
    open_filled(&cluster, 1, 305);
    lose_row(&cluster, 1, "k7");
    cake_verify_report_t report = verify(&cluster, 1, false, &found);
    assert_true(report.missing == 1 && report.healed == 0 && found.last_kind == CAKE_DAMAGE_MISSING);
    cluster_close(&cluster);
}

/* ---- damage that a restart has loaded -----------------------------------------------------------------------------*/

/* The set does not know that anything is missing, and contexts are equal: only the sums of ranges tell. Found from
 * either side. */
static void rows_lost_before_a_restart_come_back(void **state)
{
    (void)state;
    for (int from = 1; from <= 2; from++) {
        cluster_t cluster = {0};
        found_t found;
        open_filled(&cluster, 3, 306);
        cluster_crash(&cluster, 2);
        lose_row(&cluster, 2, "k7");
        lose_row(&cluster, 2, "k8");
        lose_row(&cluster, 2, "a key of many more bytes than fit into an id");
        cluster_start(&cluster, 2);
        for (int i = 1; i <= 3; i++)
            assert_int_equal(cake_store_wait_for(cluster.members[i].store, (uint16_t[]){1, 2, 3}, 3, 30000), 0);
        assert_text(&cluster, 2, "k7", NULL);
        cake_verify_report_t report = verify(&cluster, from, true, &found);
        assert_int_equal(report.not_compared, 0);
        assert_int_equal(report.replicas, 2);
        assert_in_range(report.ranges_different, 1, 6);
        assert_int_equal(report.different, from == 1 ? 3 : 6); /* both replicas have what is missing here */
        report = verify(&cluster, from, false, &found);
        assert_int_equal(report.different, 3);
        assert_int_equal(report.healed, 3);
        assert_int_equal(found.last_node, from == 1 ? 2 : 1);
        assert_whole(&cluster);
        for (int i = 1; i <= 3; i++) {
            assert_text(&cluster, i, "k7", "value");
            assert_text(&cluster, i, "k8", "value");
        }
        cluster_close(&cluster);
    }
}

/* A row of long ago is back, as after a wrong restore: the newest copy stays. */
static void an_old_row_that_a_restart_has_loaded_gives_way(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    found_t found;
    open_filled(&cluster, 2, 307);
    cake_storage_t *storage = cluster.members[2].storage;
    cake_record_t old = nothing;
    cake_id_t id;
    assert_int_equal(cake__key_id(cake__slice_str("k7"), &id), 0);
    assert_int_equal(storage->ops->fetch(storage, cake__slice_str("ks"), &id, 1, take_record, &old), 0);
    assert_int_equal(put_text(&cluster, 1, "k7", "new", CAKE_ALL), 0);
    cluster_crash(&cluster, 2);
    cake_write_t write = {.kind = CAKE_WRITE_PUT,
                          .keyspace = cake__slice_str("ks"),
                          .key = cake__slice_str("k7"),
                          .value = cake__slice_str("value"),
                          .id = id,
                          .hlc = old.hlc,
                          .dot = old.dot};
    const cake_batch_t batch = {.writes = &write, .write_count = 1};
    assert_int_equal(storage->ops->write(storage, &batch), 0);
    cluster_start(&cluster, 2);
    assert_int_equal(cake_store_wait_for(cluster.members[1].store, (uint16_t[]){1, 2}, 2, 30000), 0);
    assert_text(&cluster, 2, "k7", "value");
    cake_verify_report_t report = verify(&cluster, 1, false, &found);
    assert_true(report.different == 1 && report.healed == 1);
    assert_string_equal(found.last_key, "k7");
    assert_whole(&cluster);
    assert_text(&cluster, 2, "k7", "new");
    cluster_close(&cluster);
}

/* ---- a storage whose own check has something to say -------------------------------------------------------------- */

static int doubt(cake_storage_t *storage, char *report, size_t size)
{
    (void)storage;
    snprintf(report, size, "a page is gone");
    return CAKE_ECORRUPT;
}

static int fail_to_look(cake_storage_t *storage, char *report, size_t size)
{
    (void)storage;
    (void)report;
    (void)size;
    return CAKE_EIO;
}

static void what_the_storage_itself_doubts_is_told(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    found_t found;
    refusing_t own;
    cake_verify_report_t report;
    open_filled(&cluster, 2, 919);
    cluster_crash(&cluster, 1);
    refuse_documents(cluster.members[1].storage, &own, 0);
    own.ops.flags &= ~(uint32_t)CAKE_STORAGE_INLINE;
    own.ops.check = doubt;
    cluster_start(&cluster, 1);
    cluster_wait(&cluster, cluster_is_equal, 20000);
    report = verify(&cluster, 1, false, &found);
    assert_true(report.damaged == 1 && found.count == 1 && found.last_kind == CAKE_DAMAGE_STORAGE);
    assert_int_equal(report.documents, KEYS); /* and the rest was looked at */
    own.ops.check = fail_to_look;
    assert_int_equal(cake_store_verify(cluster.members[1].store, NULL, &report), CAKE_EIO);
    cluster_close(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cluster_without_damage_is_found_whole),
        cmocka_unit_test(a_row_that_is_gone_comes_back_from_a_replica),
        cmocka_unit_test(a_row_of_another_write_is_put_right),
        cmocka_unit_test(a_row_that_nobody_wrote_is_removed),
        cmocka_unit_test(a_tombstone_whose_row_is_gone_comes_back),
        cmocka_unit_test(what_no_replica_has_is_named_and_not_mended),
        cmocka_unit_test(rows_lost_before_a_restart_come_back),
        cmocka_unit_test(an_old_row_that_a_restart_has_loaded_gives_way),
        cmocka_unit_test(what_the_storage_itself_doubts_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
