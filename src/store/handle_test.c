/* Promises of the calls about many documents, by the store and by a handle bound to a keyspace. */
#include "store/cluster_test.h"

static const char *const texts[] = {"a", "b", "c"};

/* ---- what scans and lists show ------------------------------------------------------------------------------------*/

typedef struct {
    char text[64];
    int end_after, result;
} seen_t;

static int on_name(seen_t *seen, const char *name, size_t len)
{
    size_t at = strlen(seen->text);
    snprintf(seen->text + at, sizeof seen->text - at, "%.*s ", (int)len, name);
    return --seen->end_after == 0 ? seen->result : 0;
}

static int on_document(void *arg, const cake_doc_t *doc)
{
    cake_slice_t key = cake_doc_key(doc);
    return on_name(arg, (const char *)key.data, key.len);
}

static int on_keyspace(void *arg, const char *name)
{
    return on_name(arg, name, strlen(name));
}

/* ---- tests --------------------------------------------------------------------------------------------------------*/

static void a_handle_does_what_the_store_does_in_its_keyspace(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cake_keyspace_t *keyspace;
    cake_doc_t *doc;
    cluster_open(&cluster, 2, 11, NULL);
    assert_int_equal(cake_keyspace_open(cluster.members[1].store, "", &keyspace), CAKE_EINVAL);
    assert_null(keyspace);
    assert_int_equal(cake_keyspace_open(cluster.members[1].store, "ks", &keyspace), 0);
    assert_string_equal(cake_keyspace_name(keyspace), "ks");
    assert_int_equal(cake_keyspace_put(keyspace, cake_key_str("a"), "1", 1, CAKE_ALL), 0);
    assert_text(&cluster, 2, "a", "1");
    assert_int_equal(cake_keyspace_get(keyspace, cake_key_str("a"), &doc), 0);
    cake_doc_free(doc);
    assert_int_equal(cake_keyspace_del(keyspace, cake_key_str("a"), CAKE_ALL), 0);
    assert_text(&cluster, 2, "a", NULL);
    cake_keyspace_close(keyspace);
    cake_keyspace_close(NULL);
    cluster_close(&cluster);
}

static void a_handle_takes_many_at_once(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    cake_keyspace_t *keyspace;
    cake_item_t items[3];
    cake_key_t keys[4];
    cake_doc_t *docs[4];
    for (size_t i = 0; i < 3; i++) {
        keys[i] = cake_key_str(texts[i]);
        items[i] = (cake_item_t){keys[i], texts[i], 1};
    }
    keys[3] = cake_key_str("missing");
    cluster_open(&cluster, 2, 12, NULL);
    assert_int_equal(cake_keyspace_open(cluster.members[1].store, "ks", &keyspace), 0);
    assert_int_equal(cake_keyspace_put_many(keyspace, items, 3, CAKE_ALL), 0);
    for (size_t i = 0; i < 3; i++)
        assert_text(&cluster, 2, texts[i], texts[i]);

    assert_int_equal(cake_keyspace_get_many(keyspace, keys, 4, docs), 0);
    for (size_t i = 0; i < 3; i++) {
        assert_true(cake__slice_equal(cake_doc_value(docs[i]), cake__slice_str(texts[i])));
        cake_doc_free(docs[i]);
    }
    assert_null(docs[3]);

    seen_t all = {0}, two = {.end_after = 2, .result = CAKE_ECANCELED};
    cake_scan_t behind_a = {.after = cake__slice_str("a")};
    assert_int_equal(cake_keyspace_scan(keyspace, NULL, on_document, &all), 0);
    assert_string_equal(all.text, "a b c ");
    assert_int_equal(cake_keyspace_scan(keyspace, NULL, on_document, &two), CAKE_ECANCELED);
    assert_string_equal(two.text, "a b ");
    all = (seen_t){0};
    assert_int_equal(cake_keyspace_scan(keyspace, &behind_a, on_document, &all), 0);
    assert_string_equal(all.text, "b c ");

    assert_int_equal(cake_keyspace_del_many(keyspace, keys, 2, CAKE_ALL), 0);
    assert_text(&cluster, 2, "a", NULL);
    assert_text(&cluster, 2, "b", NULL);
    assert_text(&cluster, 2, "c", "c");
    cake_keyspace_close(keyspace);
    cluster_close(&cluster);
}

typedef struct {
    int calls, err;
    cake_doc_t *docs[4];
    size_t count;
} read_t;

static void on_read(const cake_result_t *result, void *arg)
{
    read_t *read = arg;
    read->calls++;
    read->err = result->err;
    read->count = result->doc_count;
    memcpy(read->docs, result->docs, result->doc_count * sizeof *result->docs);
}

static void many_are_read_without_waiting_and_missing_ones_are_null(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    read_t read = {0};
    const cake_key_t keys[] = {cake_key_str("a"), cake_key_str("missing"), cake_key_str("c")};
    cluster_open(&cluster, 1, 13, NULL);
    cake_store_t *store = cluster.members[1].store;
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_NONE), 0);
    assert_int_equal(put_text(&cluster, 1, "c", "3", CAKE_NONE), 0);
    assert_int_equal(cake_store_get_many_async(store, "ks", keys, 3, on_read, &read), 0);
    cake__world_run_for(cluster.world, SECOND_NS);
    assert_int_equal(read.calls, 1);
    assert_int_equal(read.err, 0);
    assert_int_equal(read.count, 3);
    assert_true(cake__slice_equal(cake_doc_value(read.docs[0]), cake__slice_str("1")));
    assert_null(read.docs[1]);
    assert_true(cake__slice_equal(cake_doc_value(read.docs[2]), cake__slice_str("3")));
    for (size_t i = 0; i < read.count; i++)
        cake_doc_free(read.docs[i]);
    cluster_close(&cluster);
}

static void keyspaces_are_listed_by_name(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    seen_t all = {0}, first = {.end_after = 1, .result = CAKE_ECANCELED};
    cluster_open(&cluster, 1, 15, NULL);
    cake_store_t *store = cluster.members[1].store;
    for (size_t i = 3; i > 0; i--)
        assert_int_equal(cake_store_put(store, texts[i - 1], cake_key_str("k"), "", 0, CAKE_NONE), 0);
    assert_int_equal(cake_store_keyspaces(store, on_keyspace, &all), 0);
    assert_string_equal(all.text, "a b c ");
    assert_int_equal(cake_store_keyspaces(store, on_keyspace, &first), CAKE_ECANCELED);
    assert_string_equal(first.text, "a ");
    cluster_close(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_handle_does_what_the_store_does_in_its_keyspace),
        cmocka_unit_test(a_handle_takes_many_at_once),
        cmocka_unit_test(many_are_read_without_waiting_and_missing_ones_are_null),
        cmocka_unit_test(keyspaces_are_listed_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
