/* Cases: keyspaces, rows, tombstones, erasing, long keys, batches, metas, reopening. */
#include "storage/suite.h"

#define PUT       cake__suite_put
#define TOMBSTONE cake__suite_tombstone
#define ERASE     cake__suite_erase
#define STR       cake__slice_str

static const char long_key[] = "a key of more than fifteen bytes, which its id cannot hold";
static const char long_key_2[] = "a key of more than fifteen bytes, which differs only here";

static int never(void *arg, const cake_row_t *row)
{
    (void)row;
    *(bool *)arg = true;
    return 0;
}

static void unknown_keyspace_is_empty(cake__suite_t *suite)
{
    cake_storage_t *storage = suite->storage;
    cake_scan_t all = {.limit = 0};
    bool called = false;
    CAKE__CHECK(suite, storage->ops->scan(storage, STR("nowhere"), &all, never, &called) == 0);
    CAKE__CHECK(suite, storage->ops->metadata(storage, STR("nowhere"), never, &called) == 0);
    CAKE__CHECK(suite, !called);
    cake__suite_expect_absent(suite, "nowhere", STR("key"));
    CAKE__CHECK_ALL(suite);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, ERASE("nowhere", STR("key"))) == 0);
    CAKE__CHECK(suite, cake__suite_count_keyspaces(suite, "nowhere") == 0);
}

static void keyspaces_are_made_and_listed(cake__suite_t *suite)
{
    CAKE__CHECK(suite, cake__suite_commit_one(suite, PUT("one", STR("key"), STR("1"), 1)) == 0);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, TOMBSTONE("two", STR("key"), 2)) == 0);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, PUT("snö", STR("key"), STR("3"), 3)) == 0);
    CAKE__CHECK(suite, cake__suite_count_keyspaces(suite, "one") == 1);
    CAKE__CHECK(suite, cake__suite_count_keyspaces(suite, "two") == 1);
    CAKE__CHECK(suite, cake__suite_count_keyspaces(suite, "snö") == 1);
    CAKE__CHECK(suite, cake__suite_count_keyspaces(suite, "three") == 0);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, PUT("one", STR("more"), STR("1"), 4)) == 0);
    CAKE__CHECK(suite, cake__suite_count_keyspaces(suite, "one") == 1);
}

static void keyspaces_are_apart(cake__suite_t *suite)
{
    char other[32];
    cake__suite_name(suite, "one", true, 0, other);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, PUT("one", STR("key"), STR("1"), 1)) == 0);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, PUT(other, STR("key"), STR("2"), 2)) == 0);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, PUT(other, STR(long_key), STR("3"), 3)) == 0);
    cake__suite_expect_live(suite, "one", STR("key"), STR("1"), 1);
    cake__suite_expect_live(suite, other, STR("key"), STR("2"), 2);
    cake__suite_expect_absent(suite, "one", STR(long_key));
    CAKE__CHECK(suite, cake__suite_commit_one(suite, ERASE(other, STR("key"))) == 0);
    cake__suite_expect_live(suite, "one", STR("key"), STR("1"), 1);
    cake__suite_expect_counts(suite, "one", 1, 0);
    cake__suite_expect_counts(suite, other, 1, 0);
}

static void rows_are_updated(cake__suite_t *suite)
{
    CAKE__CHECK(suite, cake__suite_commit_one(suite, PUT("k", STR("key"), STR("first"), 1)) == 0);
    cake__suite_expect_live(suite, "k", STR("key"), STR("first"), 1);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, PUT("k", STR("key"), STR("a longer second value"), 2)) == 0);
    cake__suite_expect_live(suite, "k", STR("key"), STR("a longer second value"), 2);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, PUT("k", STR("key"), STR("3"), 3)) == 0);
    cake__suite_expect_live(suite, "k", STR("key"), STR("3"), 3);
    /* The order of stamps is the store's business: a storage keeps what it is given. */
    CAKE__CHECK(suite, cake__suite_commit_one(suite, PUT("k", STR("key"), STR("older"), 2)) == 0);
    cake__suite_expect_live(suite, "k", STR("key"), STR("older"), 2);
    cake__suite_expect_counts(suite, "k", 1, 0);
}

static void deletes_and_tombstones(cake__suite_t *suite)
{
    cake_write_t writes[] = {PUT("k", STR("a"), STR("1"), 1), PUT("k", STR("b"), STR("2"), 2),
                             PUT("k", STR("c"), STR("3"), 3)};
    CAKE__CHECK(suite, cake__suite_commit(suite, writes, 3, NULL, 0) == 0);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, TOMBSTONE("k", STR("a"), 4)) == 0);
    cake__suite_expect_tombstone(suite, "k", STR("a"), 4);
    cake__suite_expect_counts(suite, "k", 2, 1);
    cake_write_t many[] = {TOMBSTONE("k", STR("b"), 5), TOMBSTONE("k", STR("c"), 6), TOMBSTONE("k", STR("d"), 7)};
    CAKE__CHECK(suite, cake__suite_commit(suite, many, 3, NULL, 0) == 0);
    cake__suite_expect_tombstone(suite, "k", STR("d"), 7); /* of a key that never was */
    cake__suite_expect_counts(suite, "k", 0, 4);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, PUT("k", STR("b"), STR("again"), 8)) == 0);
    cake__suite_expect_live(suite, "k", STR("b"), STR("again"), 8);
    cake__suite_expect_counts(suite, "k", 1, 3);
}

static void erased_rows_are_gone(cake__suite_t *suite)
{
    cake_write_t writes[] = {PUT("k", STR("live"), STR("1"), 1), TOMBSTONE("k", STR("dead"), 2),
                             PUT("k", STR(long_key), STR("3"), 3), TOMBSTONE("k", STR(long_key_2), 4)};
    CAKE__CHECK(suite, cake__suite_commit(suite, writes, 4, NULL, 0) == 0);
    cake__suite_expect_counts(suite, "k", 2, 2);
    cake_write_t erases[] = {ERASE("k", STR("live")), ERASE("k", STR("dead")), ERASE("k", STR(long_key)),
                             ERASE("k", STR(long_key_2)), ERASE("k", STR("never there"))};
    CAKE__CHECK(suite, cake__suite_commit(suite, erases, 5, NULL, 0) == 0);
    cake__suite_expect_absent(suite, "k", STR("live"));
    cake__suite_expect_absent(suite, "k", STR("dead"));
    cake__suite_expect_absent(suite, "k", STR(long_key));
    cake__suite_expect_counts(suite, "k", 0, 0);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, ERASE("k", STR("live"))) == 0);
    CAKE__CHECK(suite, cake__suite_commit(suite, writes, 4, NULL, 0) == 0); /* and may come back */
    cake__suite_expect_live(suite, "k", STR(long_key), STR("3"), 3);
    cake__suite_expect_counts(suite, "k", 2, 2);
    CAKE__CHECK(suite, cake__suite_count_keyspaces(suite, "k") == 1);
}

static void long_keys_have_digests_for_ids(cake__suite_t *suite)
{
    cake_write_t writes[] = {PUT("k", STR(long_key), STR("1"), 1), PUT("k", STR(long_key_2), STR("2"), 2)};
    CAKE__CHECK(suite, cake__suite_commit(suite, writes, 2, NULL, 0) == 0);
    cake__suite_expect_live(suite, "k", STR(long_key), STR("1"), 1);
    cake__suite_expect_live(suite, "k", STR(long_key_2), STR("2"), 2);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, TOMBSTONE("k", STR(long_key), 3)) == 0);
    cake__suite_expect_tombstone(suite, "k", STR(long_key), 3);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, ERASE("k", STR(long_key))) == 0);
    cake__suite_expect_absent(suite, "k", STR(long_key));
    cake__suite_expect_live(suite, "k", STR(long_key_2), STR("2"), 2);
    cake__suite_expect_counts(suite, "k", 1, 0);
}

typedef struct order_check {
    const cake_write_t *expected;
    size_t count, at;
    bool is_right;
} order_check_t;

static int check_order(void *arg, const cake_row_t *row)
{
    order_check_t *check = arg;
    check->is_right = check->is_right && check->at < check->count &&
                      cake__slice_equal(row->key, check->expected[check->at].key) &&
                      cake__slice_equal(row->value, check->expected[check->at].value);
    check->at++;
    return 0;
}

static int stop_at_once(void *arg, const cake_row_t *row)
{
    (void)row;
    (*(int *)arg)++;
    return 77;
}

static void fetch_keeps_the_order_of_ids(cake__suite_t *suite)
{
    cake_storage_t *storage = suite->storage;
    cake_write_t writes[] = {PUT("k", STR(long_key), STR("1"), 1), TOMBSTONE("k", STR("c"), 2),
                             PUT("k", STR("b"), STR("3"), 3), PUT("k", STR("a"), STR("4"), 4)};
    cake_id_t ids[] = {writes[0].id, cake__suite_id(STR("absent")), writes[1].id, writes[2].id, writes[3].id};
    order_check_t check = {.expected = writes, .count = 4, .is_right = true};
    int calls = 0;
    CAKE__CHECK(suite, cake__suite_commit(suite, writes, 4, NULL, 0) == 0);
    CAKE__CHECK(suite, storage->ops->fetch(storage, STR("k"), ids, 5, check_order, &check) == 0);
    CAKE__CHECK(suite, check.at == 4 && check.is_right);
    CAKE__CHECK(suite, storage->ops->fetch(storage, STR("k"), ids, 0, check_order, &check) == 0);
    CAKE__CHECK(suite, check.at == 4);
    CAKE__CHECK(suite, storage->ops->fetch(storage, STR("k"), ids, 5, stop_at_once, &calls) == 77 && calls == 1);
    CAKE__CHECK(suite, storage->ops->metadata(storage, STR("k"), stop_at_once, &calls) == 77 && calls == 2);
}

static void writes_of_a_batch_apply_in_order(cake__suite_t *suite)
{
    cake_write_t writes[] = {
        PUT("k", STR("a"), STR("1"), 1),
        PUT("k", STR("a"), STR("2"), 2), /* a: the later put */
        PUT("k", STR("b"), STR("3"), 3),
        ERASE("k", STR("b")), /* b: gone */
        PUT("k", STR("c"), STR("4"), 4),
        ERASE("k", STR("c")),
        PUT("k", STR("c"), STR("5"), 5), /* c: back again */
        PUT("k", STR(long_key), STR("6"), 6),
        ERASE("k", STR(long_key)),
        TOMBSTONE("k", STR(long_key), 7), /* a tombstone */
        ERASE("k", STR("d")),
        PUT("k", STR("d"), STR("8"), 8),
        TOMBSTONE("k", STR("d"), 9),
        ERASE("k", STR("d")), /* d: gone */
    };
    for (int round = 0; round < 2; round++) {
        CAKE__CHECK(suite, cake__suite_commit(suite, writes, CAKE_COUNT_OF(writes), NULL, 0) == 0);
        cake__suite_expect_live(suite, "k", STR("a"), STR("2"), 2);
        cake__suite_expect_absent(suite, "k", STR("b"));
        cake__suite_expect_live(suite, "k", STR("c"), STR("5"), 5);
        cake__suite_expect_tombstone(suite, "k", STR(long_key), 7);
        cake__suite_expect_absent(suite, "k", STR("d"));
        cake__suite_expect_counts(suite, "k", 2, 1);
        CAKE__CHECK_ALL(suite);
    }
}

static void bad_batches_change_nothing(cake__suite_t *suite)
{
    char huge[CAKE_KEY_MAX + 1], other[32];
    memset(huge, 'h', sizeof huge);
    cake__suite_name(suite, "k", true, 0, other);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, PUT("k", STR("a"), STR("before"), 1)) == 0);
    cake_meta_write_t meta = {STR("name"), STR("value")};
    cake_write_t writes[] = {PUT("k", STR("a"), STR("after"), 2), PUT(other, STR("b"), STR("after"), 3),
                             PUT("k", cake__slice(huge, sizeof huge), STR("too long a key"), 4)};
    unsigned lane = suite->storage->ops->lane_of(suite->storage, STR("k"));
    CAKE__CHECK(suite, cake__suite_commit(suite, writes, 3, &meta, 1) == CAKE_ETOOBIG);
    cake__suite_expect_live(suite, "k", STR("a"), STR("before"), 1);
    cake__suite_expect_absent(suite, other, STR("b"));
    cake__suite_expect_meta(suite, lane, "name", cake__slice(NULL, 0));
    CAKE__CHECK(suite, cake__suite_count_keyspaces(suite, other) == 0);
    cake_batch_t batch = {suite->storage->ops->lanes(suite->storage), writes, 1, NULL, 0};
    CAKE__CHECK(suite, suite->storage->ops->write(suite->storage, &batch) != 0); /* no such lane */
    cake__suite_expect_live(suite, "k", STR("a"), STR("before"), 1);
    CAKE__CHECK(suite, cake__suite_commit(suite, NULL, 0, NULL, 0) == 0);
}

static void batches_span_keyspaces_and_metas(cake__suite_t *suite)
{
    char other[32];
    cake__suite_name(suite, "k", true, 0, other);
    unsigned lane = suite->storage->ops->lane_of(suite->storage, STR("k"));
    cake_write_t writes[] = {PUT("k", STR("a"), STR("1"), 1), PUT(other, STR("a"), STR("2"), 2),
                             TOMBSTONE("k", STR("b"), 3), PUT(other, STR(long_key), STR(""), 4)};
    cake_meta_write_t metas[] = {{STR("context/k"), STR("one")}, {STR("context/o"), STR("two")}};
    CAKE__CHECK(suite, cake__suite_commit(suite, writes, 4, metas, 2) == 0);
    for (int round = 0; round < 2; round++) {
        cake__suite_expect_live(suite, "k", STR("a"), STR("1"), 1);
        cake__suite_expect_live(suite, other, STR("a"), STR("2"), 2);
        cake__suite_expect_tombstone(suite, "k", STR("b"), 3);
        cake__suite_expect_live(suite, other, STR(long_key), STR(""), 4);
        cake__suite_expect_meta(suite, lane, "context/k", STR("one"));
        cake__suite_expect_meta(suite, lane, "context/o", STR("two"));
        CAKE__CHECK_ALL(suite);
        if (suite->keeps)
            cake__suite_reopen(suite);
        CAKE__CHECK_ALL(suite);
    }
}

static int count_metas(void *arg, cake_slice_t name, cake_slice_t value)
{
    (void)name;
    (void)value;
    (*(size_t *)arg)++;
    return 0;
}

static int stop_meta(void *arg, cake_slice_t name, cake_slice_t value)
{
    (void)name;
    (void)value;
    (*(size_t *)arg)++;
    return 78;
}

static size_t metas_below(cake__suite_t *suite, unsigned lane, cake_slice_t prefix)
{
    size_t count = 0;
    int err = suite->storage->ops->metas(suite->storage, lane, prefix, count_metas, &count);
    return err == 0 ? count : SIZE_MAX;
}

static void metas_are_kept_by_name(cake__suite_t *suite)
{
    cake_meta_write_t metas[] = {{STR("a"), STR("1")},        {STR("ab"), STR("")},
                                 {STR("abc"), STR("3")},      {STR("b"), STR("4")},
                                 {STR("\xff\xff"), STR("5")}, {STR("\xff\xff\xff a long name of a meta"), STR("6")}};
    cake_batch_t batch = {0, NULL, 0, metas, CAKE_COUNT_OF(metas)};
    CAKE__CHECK(suite, suite->storage->ops->write(suite->storage, &batch) == 0);
    CAKE__CHECK(suite, metas_below(suite, 0, STR("")) == 6);
    CAKE__CHECK(suite, metas_below(suite, 0, STR("a")) == 3);
    CAKE__CHECK(suite, metas_below(suite, 0, STR("ab")) == 2);
    CAKE__CHECK(suite, metas_below(suite, 0, STR("abcd")) == 0);
    CAKE__CHECK(suite, metas_below(suite, 0, STR("\xff")) == 2);
    cake__suite_expect_meta(suite, 0, "ab", STR("")); /* empty is not removed */
    cake_meta_write_t changes[] = {{STR("a"), cake__slice(NULL, 0)}, {STR("nothing"), cake__slice(NULL, 0)},
                                   {STR("b"), STR("a new value")},   {STR("c"), STR("1")},
                                   {STR("c"), cake__slice(NULL, 0)}, {STR("ab"), cake__slice(NULL, 0)},
                                   {STR("ab"), STR("back")}};
    batch = (cake_batch_t){0, NULL, 0, changes, CAKE_COUNT_OF(changes)};
    CAKE__CHECK(suite, suite->storage->ops->write(suite->storage, &batch) == 0);
    cake__suite_expect_meta(suite, 0, "a", cake__slice(NULL, 0));
    cake__suite_expect_meta(suite, 0, "b", STR("a new value"));
    cake__suite_expect_meta(suite, 0, "c", cake__slice(NULL, 0));
    cake__suite_expect_meta(suite, 0, "ab", STR("back"));
    size_t calls = 0;
    CAKE__CHECK(suite, suite->storage->ops->metas(suite->storage, 0, STR(""), stop_meta, &calls) == 78 && calls == 1);
    CAKE__CHECK(suite, metas_below(suite, 0, STR("")) == 5);
}

static void metas_belong_to_their_lane(cake__suite_t *suite)
{
    cake_storage_t *storage = suite->storage;
    unsigned lanes = storage->ops->lanes(storage);
    char other[32];
    CAKE__CHECK(suite, lanes >= 1 && lanes <= CAKE_STORAGE_LANES_MAX);
    if (!cake__suite_name(suite, "k", false, 0, other)) {
        cake__suite_skip(suite, "has one lane");
        return;
    }
    unsigned one = storage->ops->lane_of(storage, STR("k")), two = storage->ops->lane_of(storage, STR(other));
    CAKE__CHECK(suite, one < lanes && two < lanes && one != two);
    cake_meta_write_t meta = {STR("name"), STR("one")};
    cake_batch_t batch = {one, NULL, 0, &meta, 1};
    CAKE__CHECK(suite, storage->ops->write(storage, &batch) == 0);
    cake__suite_expect_meta(suite, one, "name", STR("one"));
    cake__suite_expect_meta(suite, two, "name", cake__slice(NULL, 0));
    CAKE__CHECK(suite, cake__suite_commit_one(suite, PUT("k", STR("a"), STR("1"), 1)) == 0);
    CAKE__CHECK(suite, cake__suite_commit_one(suite, PUT(other, STR("a"), STR("2"), 2)) == 0);
    cake__suite_expect_live(suite, "k", STR("a"), STR("1"), 1);
    cake__suite_expect_live(suite, other, STR("a"), STR("2"), 2);
    CAKE__CHECK(suite, cake__suite_count_keyspaces(suite, other) == 1);
}

typedef struct version_count {
    uint64_t hlc;
    cake_dot_t dot;
    unsigned same, others;
} version_count_t;

static int count_version(void *arg, const cake_row_t *row)
{
    version_count_t *count = arg;
    bool is_same = row->hlc == count->hlc && row->dot.actor == count->dot.actor && row->dot.seq == count->dot.seq;
    count->same += is_same;
    count->others += !is_same;
    return 0;
}

/* Whatever is asked. */
static void stamps_and_dots_are_kept_whole(cake__suite_t *suite)
{
    const uint64_t edges[] = {0, 1, (UINT64_C(1) << 63) - 1, UINT64_C(1) << 63, UINT64_MAX - 1, UINT64_MAX};
    const cake_scan_t all = {.limit = 0};
    cake_storage_t *storage = suite->storage;
    for (size_t i = 0; i < CAKE_COUNT_OF(edges); i++) {
        cake_doc_t *doc = NULL;
        cake_write_t write = PUT("k", STR("key"), STR("value"), edges[i]);
        write.dot = (cake_dot_t){edges[CAKE_COUNT_OF(edges) - 1 - i], edges[i]};
        version_count_t count = {.hlc = write.hlc, .dot = write.dot};
        CAKE__CHECK(suite, cake__suite_commit_one(suite, write) == 0);
        CAKE__CHECK(suite, storage->ops->get(storage, STR("k"), STR("key"), &doc) == 0);
        bool same = cake_doc_timestamp(doc) == edges[i] && cake_doc_dot(doc).actor == write.dot.actor &&
                    cake_doc_dot(doc).seq == edges[i];
        cake_doc_free(doc);
        CAKE__CHECK(suite, same);
        CAKE__CHECK(suite, storage->ops->fetch(storage, STR("k"), &write.id, 1, count_version, &count) == 0);
        CAKE__CHECK(suite, storage->ops->scan(storage, STR("k"), &all, count_version, &count) == 0);
        CAKE__CHECK(suite, storage->ops->metadata(storage, STR("k"), count_version, &count) == 0);
        CAKE__CHECK(suite, count.same == 3 && count.others == 0);
    }
}

static void everything_is_there_after_reopening(cake__suite_t *suite)
{
    cake_write_t writes[] = {
        PUT("k", STR("live"), STR("1"), 1),   TOMBSTONE("k", STR("dead"), 2), PUT("k", STR(long_key), STR("3"), 3),
        PUT("k", STR("erased"), STR("4"), 4), ERASE("k", STR("erased")),      PUT("k", STR("empty"), STR(""), 5)};
    cake_meta_write_t metas[] = {{STR("kept"), STR("value")}, {STR("removed"), STR("value")}};
    cake_meta_write_t removal = {STR("removed"), cake__slice(NULL, 0)};
    unsigned lane = suite->storage->ops->lane_of(suite->storage, STR("k"));
    CAKE__CHECK(suite, cake__suite_commit(suite, writes, CAKE_COUNT_OF(writes), metas, 2) == 0);
    CAKE__CHECK(suite, cake__suite_commit(suite, writes, 1, &removal, 1) == 0);
    for (int round = 0; round < 2; round++) {
        cake__suite_reopen(suite);
        CAKE__CHECK_ALL(suite);
        CAKE__CHECK(suite, suite->storage->ops->lane_of(suite->storage, STR("k")) == lane);
        CAKE__CHECK(suite, cake__suite_count_keyspaces(suite, "k") == 1);
        cake__suite_expect_live(suite, "k", STR("live"), STR("1"), 1);
        cake__suite_expect_live(suite, "k", STR("empty"), STR(""), 5);
        cake__suite_expect_tombstone(suite, "k", STR("dead"), 2);
        cake__suite_expect_live(suite, "k", STR(long_key), STR("3"), 3);
        cake__suite_expect_absent(suite, "k", STR("erased"));
        cake__suite_expect_counts(suite, "k", 3, 1);
        cake__suite_expect_meta(suite, lane, "kept", STR("value"));
        cake__suite_expect_meta(suite, lane, "removed", cake__slice(NULL, 0));
        CAKE__CHECK_ALL(suite);
    }
    CAKE__CHECK(suite, cake__suite_commit_one(suite, PUT("k", STR("live"), STR("later"), 9)) == 0);
    cake__suite_expect_live(suite, "k", STR("live"), STR("later"), 9);
}

const cake__suite_case_t cake__suite_row_cases[] = {
    {"an unknown keyspace is empty", unknown_keyspace_is_empty, false},
    {"keyspaces are made by writing and listed once", keyspaces_are_made_and_listed, false},
    {"keyspaces are apart from each other", keyspaces_are_apart, false},
    {"rows are updated", rows_are_updated, false},
    {"deletes, tombstones of unknown keys, writes after them", deletes_and_tombstones, false},
    {"erased rows are gone and may come back", erased_rows_are_gone, false},
    {"long keys are found by id and by key", long_keys_have_digests_for_ids, false},
    {"fetch keeps the order of ids; callbacks can stop", fetch_keeps_the_order_of_ids, false},
    {"writes of a batch apply in order", writes_of_a_batch_apply_in_order, false},
    {"a refused batch changes nothing", bad_batches_change_nothing, false},
    {"a batch spans keyspaces and metas", batches_span_keyspaces_and_metas, false},
    {"metas: by name, by prefix, replaced, removed", metas_are_kept_by_name, false},
    {"metas and keyspaces of several lanes", metas_belong_to_their_lane, false},
    {"stamps and dots keep all 64 bits", stamps_and_dots_are_kept_whole, false},
    {"everything is there after reopening", everything_is_there_after_reopening, true},
    {NULL, NULL, false},
};
