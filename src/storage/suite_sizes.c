/* Cases: the largest sizes, and many rows and keyspaces. */
#include "storage/suite.h"

#include <stdio.h>
#include <stdlib.h>

#define BATCH       1000u
#define VALUE_BYTES 32u
#define MANY_NAMES  300u

static void fill(uint8_t *to, size_t len, uint64_t seed)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)(seed + i + i / 251);
}

static void largest_keys_and_names(cake__suite_t *suite)
{
    uint8_t key[CAKE_KEY_MAX];
    char name[CAKE_KEYSPACE_NAME_MAX + 1], meta_name[CAKE__META_NAME_MAX + 1];
    memset(name, 'n', sizeof name - 1);
    memset(meta_name, 'm', sizeof meta_name - 1);
    name[sizeof name - 1] = meta_name[sizeof meta_name - 1] = '\0';
    cake_meta_write_t meta = {cake__slice_str(meta_name), cake__slice_str("value")};
    unsigned lane = suite->storage->ops->lane_of(suite->storage, cake__slice_str(name));
    for (size_t len = CAKE_KEY_MAX - 8; len <= CAKE_KEY_MAX; len++) {
        memset(key, 0xff, len);
        cake_slice_t slice = cake__slice(key, len);
        cake_write_t write = cake__suite_put(name, slice, cake__slice_str("value"), len);
        CAKE__CHECK(suite, cake__suite_commit(suite, &write, 1, &meta, 1) == 0);
    }
    for (int round = 0; round < 2; round++) {
        for (size_t len = CAKE_KEY_MAX - 8; len <= CAKE_KEY_MAX && !suite->failed; len++)
            cake__suite_expect_live(suite, name, cake__slice(key, len), cake__slice_str("value"), len);
        cake__suite_expect_counts(suite, name, 9, 0);
        cake__suite_expect_meta(suite, lane, meta_name, cake__slice_str("value"));
        CAKE__CHECK_ALL(suite);
        CAKE__CHECK(suite, cake__suite_count_keyspaces(suite, name) == 1);
        if (suite->keeps)
            cake__suite_reopen(suite);
        CAKE__CHECK_ALL(suite);
    }
}

/* Every size at which a storage might change its layout, up to the largest, growing and shrinking the same row. */
static void check_sizes(cake__suite_t *suite, uint8_t *value)
{
    const size_t lens[] = {CAKE_VALUE_MAX_DEFAULT,
                           0,
                           1 << 20,
                           255,
                           256,
                           257,
                           511,
                           512,
                           513,
                           1000,
                           1003,
                           4096,
                           65536,
                           1,
                           CAKE_VALUE_MAX_DEFAULT,
                           CAKE_VALUE_MAX_DEFAULT - 1,
                           100};
    cake_slice_t small = cake__slice_str("key"), large = cake__slice_str("a key of more than fifteen bytes");
    for (size_t i = 0; i < CAKE_COUNT_OF(lens) && !suite->failed; i++) {
        fill(value, lens[i], i);
        cake_slice_t slice = cake__slice(value, lens[i]);
        cake_write_t writes[] = {cake__suite_put("k", small, slice, i), cake__suite_put("k", large, slice, i)};
        CAKE__CHECK(suite, cake__suite_commit(suite, writes, 2, NULL, 0) == 0);
        cake__suite_expect_live(suite, "k", small, slice, i);
        cake__suite_expect_live(suite, "k", large, slice, i);
        bool is_largest = lens[i] == CAKE_VALUE_MAX_DEFAULT;
        if (!is_largest || !suite->keeps || suite->failed)
            continue;
        cake__suite_reopen(suite);
        CAKE__CHECK_ALL(suite);
        cake__suite_expect_live(suite, "k", large, slice, i);
        CAKE__CHECK(suite, cake__suite_commit_one(suite, cake__suite_tombstone("k", small, i + 1)) == 0);
        cake__suite_expect_tombstone(suite, "k", small, i + 1);
        CAKE__CHECK(suite, cake__suite_commit_one(suite, cake__suite_erase("k", large)) == 0);
        cake__suite_expect_absent(suite, "k", large);
    }
}

static void largest_values(cake__suite_t *suite)
{
    uint8_t *value = malloc(CAKE_VALUE_MAX_DEFAULT);
    CAKE__CHECK(suite, value != NULL);
    check_sizes(suite, value);
    if (!suite->failed) {
        fill(value, 1 << 20, 5);
        cake_meta_write_t meta = {cake__slice_str("large"), cake__slice(value, 1 << 20)};
        cake_batch_t batch = {0, NULL, 0, &meta, 1};
        if (suite->storage->ops->write(suite->storage, &batch) != 0)
            cake__suite_fail(suite, __FILE__, __LINE__, "a meta of 1 MiB is written");
        cake__suite_expect_meta(suite, 0, "large", meta.value);
    }
    free(value);
}

/* ---- many rows --------------------------------------------------------------------------------------------------- */

typedef struct numbered {
    char key[40];
    uint8_t value[VALUE_BYTES];
} numbered_t;

/* Every fourth key is long. */
static void make_numbered(numbered_t *out, uint64_t n)
{
    uint64_t shuffled = cake__mix64(n);
    const char *format = n % 4 == 0 ? "document-number-%016llx" : "%012llx";
    snprintf(out->key, sizeof out->key, format, (unsigned long long)(n % 4 == 0 ? shuffled : shuffled >> 16));
    fill(out->value, sizeof out->value, n);
}

static void write_many(cake__suite_t *suite, size_t rows, bool are_tombstones)
{
    static const size_t size = BATCH * sizeof(numbered_t);
    numbered_t *items = malloc(size);
    cake_write_t *writes = malloc(BATCH * sizeof *writes);
    int err = items == NULL || writes == NULL ? CAKE_ENOMEM : 0;
    for (size_t n = 0; n < rows && err == 0;) {
        size_t count = 0;
        for (; count < BATCH && n < rows; n++) {
            if (are_tombstones && n % 2 == 0)
                continue;
            numbered_t *item = &items[count];
            make_numbered(item, n);
            cake_slice_t key = cake__slice_str(item->key);
            writes[count++] = are_tombstones ? cake__suite_tombstone("k", key, n)
                                             : cake__suite_put("k", key, cake__slice(item->value, VALUE_BYTES), n);
        }
        err = cake__suite_commit(suite, writes, count, NULL, 0);
    }
    free(items);
    free(writes);
    CAKE__CHECK(suite, err == 0);
}

static void check_some(cake__suite_t *suite, size_t rows, bool odd_are_dead)
{
    for (size_t i = 0; i < 500 && !suite->failed; i++) {
        size_t n = i * 7919 % rows;
        numbered_t item;
        make_numbered(&item, n);
        if (odd_are_dead && n % 2 == 1)
            cake__suite_expect_tombstone(suite, "k", cake__slice_str(item.key), n);
        else
            cake__suite_expect_live(suite, "k", cake__slice_str(item.key), cake__slice(item.value, VALUE_BYTES), n);
    }
}

static void many_rows(cake__suite_t *suite)
{
    size_t rows = suite->options.rows;
    write_many(suite, rows, false);
    CAKE__CHECK_ALL(suite);
    cake__suite_expect_counts(suite, "k", rows, 0);
    check_some(suite, rows, false);
    if (suite->keeps && !suite->failed)
        cake__suite_reopen(suite);
    CAKE__CHECK_ALL(suite);
    cake__suite_expect_counts(suite, "k", rows, 0);
    write_many(suite, rows, true);
    CAKE__CHECK_ALL(suite);
    cake__suite_expect_counts(suite, "k", rows - rows / 2, rows / 2);
    check_some(suite, rows, true);
}

static void many_keyspaces(cake__suite_t *suite)
{
    char name[32];
    for (unsigned i = 0; i < MANY_NAMES; i++) {
        snprintf(name, sizeof name, "keyspace-%u", i);
        CAKE__CHECK(suite, cake__suite_commit_one(
                               suite, cake__suite_put(name, cake__slice_str("key"), cake__slice_str(name), i)) == 0);
    }
    if (suite->keeps)
        cake__suite_reopen(suite);
    CAKE__CHECK_ALL(suite);
    for (unsigned i = 0; i < MANY_NAMES && !suite->failed; i++) {
        snprintf(name, sizeof name, "keyspace-%u", i);
        cake__suite_expect_live(suite, name, cake__slice_str("key"), cake__slice_str(name), i);
        CAKE__CHECK(suite, i % 50 != 0 || cake__suite_count_keyspaces(suite, name) == 1);
    }
}

const cake__suite_case_t cake__suite_size_cases[] = {
    {"the longest keys, keyspace and meta names", largest_keys_and_names, false},
    {"values of every size up to 16 MiB", largest_values, false},
    {"many rows: written, counted, reopened, deleted", many_rows, false},
    {"many keyspaces", many_keyspaces, false},
    {NULL, NULL, false},
};
