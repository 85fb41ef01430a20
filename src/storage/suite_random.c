/* The case of random batches: the storage against a plain table that does the same. Keys come in few lengths around the
 * limits that storages tend to have, and from a small set, so that rows are overwritten, erased and written again. */
#include "storage/suite.h"

#include <stdlib.h>

#include "base/random.h"

#define KEYS        48u
#define KEYSPACES   3u
#define METAS       6u
#define BATCH_MAX   12u
#define VALUE_MAX   6000u
#define REOPEN_EACH 250u

typedef enum state { ABSENT, LIVE, DEAD } state_t;

typedef struct model_row {
    state_t state;
    uint64_t hlc;
    size_t len; /* of the value, whose bytes follow from hlc */
} model_row_t;

typedef struct model {
    cake__random_t random;
    uint64_t now;
    char names[KEYSPACES][32];
    uint8_t keys[KEYS][CAKE_KEY_MAX];
    size_t key_lens[KEYS];
    model_row_t rows[KEYSPACES][KEYS];
    uint64_t metas[METAS]; /* 0: none */
    uint8_t values[BATCH_MAX + 1][VALUE_MAX];
} model_t;

static void fill_value(uint8_t *to, size_t len, uint64_t hlc)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)(hlc * 31 + i * 7);
}

/* Sorted, so that rows of the table come in the order of a scan. */
static int compare_keys(const void *a, const void *b)
{
    return memcmp(a, b, CAKE_KEY_MAX);
}

static void make_keys(cake__suite_t *suite, model_t *model)
{
    const size_t lens[] = {1, 7, 8, 14, 15, 16, 17, 100, 505, 506, 507, 508, 509, 510, 511};
    cake__suite_name(suite, "k", true, 0, model->names[0]);
    for (unsigned i = 1; i < KEYSPACES; i++)
        cake__suite_name(suite, model->names[0], true, i, model->names[i]);
    for (unsigned i = 0; i < KEYS; i++) {
        size_t len = lens[cake__random_below(&model->random, CAKE_COUNT_OF(lens))];
        memset(model->keys[i], 'p', len);
        model->keys[i][0] = (uint8_t)('a' + i % 3);
        model->keys[i][len - 1] = (uint8_t)(i + 1);
    }
    qsort(model->keys, KEYS, CAKE_KEY_MAX, compare_keys); /* no key has a zero byte: padding sorts right */
    for (unsigned i = 0; i < KEYS; i++)
        model->key_lens[i] = strnlen((const char *)model->keys[i], CAKE_KEY_MAX);
}

static cake_slice_t key_of(const model_t *model, unsigned i)
{
    return cake__slice(model->keys[i], model->key_lens[i]);
}

static size_t random_len(model_t *model)
{
    switch (cake__random_below(&model->random, 8)) {
    case 0:
        return 0;
    case 1:
        return cake__random_below(&model->random, VALUE_MAX);
    case 2:
        return 400 + cake__random_below(&model->random, 1200);
    default:
        return cake__random_below(&model->random, 100);
    }
}

static cake_write_t random_write(model_t *model, uint8_t *value)
{
    unsigned space = (unsigned)cake__random_below(&model->random, KEYSPACES);
    unsigned i = (unsigned)cake__random_below(&model->random, KEYS);
    model_row_t *row = &model->rows[space][i];
    const char *name = model->names[space];
    uint64_t dice = cake__random_below(&model->random, 10), hlc = ++model->now;
    if (dice < 5) {
        *row = (model_row_t){LIVE, hlc, random_len(model)};
        fill_value(value, row->len, hlc);
        return cake__suite_put(name, key_of(model, i), cake__slice(value, row->len), hlc);
    }
    if (dice < 8) {
        *row = (model_row_t){DEAD, hlc, 0};
        return cake__suite_tombstone(name, key_of(model, i), hlc);
    }
    *row = (model_row_t){ABSENT, 0, 0};
    return cake__suite_erase(name, key_of(model, i));
}

static void random_batch(cake__suite_t *suite, model_t *model)
{
    cake_write_t writes[BATCH_MAX];
    size_t count = 1 + cake__random_below(&model->random, BATCH_MAX);
    for (size_t i = 0; i < count; i++)
        writes[i] = random_write(model, model->values[i]);
    unsigned which = (unsigned)cake__random_below(&model->random, METAS);
    char name[2] = {(char)('a' + which), 0};
    bool is_removal = cake__random_below(&model->random, 4) == 0;
    uint64_t value = is_removal ? 0 : ++model->now;
    cake_meta_write_t meta = {cake__slice_str(name), cake__slice(is_removal ? NULL : &value, is_removal ? 0 : 8)};
    model->metas[which] = value;
    CAKE__CHECK(suite, cake__suite_commit(suite, writes, count, &meta, 1) == 0);
}

typedef struct comparison {
    model_t *model;
    unsigned keyspace, next;
    size_t left; /* rows still expected */
    bool is_right;
} comparison_t;

static int compare_scanned(void *arg, const cake_row_t *row)
{
    comparison_t *comparison = arg;
    model_t *model = comparison->model;
    unsigned i = comparison->next;
    while (i < KEYS && model->rows[comparison->keyspace][i].state != LIVE)
        i++;
    const model_row_t *expected = &model->rows[comparison->keyspace][i < KEYS ? i : 0];
    uint8_t *value = model->values[BATCH_MAX];
    fill_value(value, expected->len, expected->hlc);
    comparison->is_right = comparison->is_right && i < KEYS && cake__slice_equal(row->key, key_of(model, i)) &&
                           row->hlc == expected->hlc &&
                           cake__slice_equal(row->value, cake__slice(value, expected->len));
    comparison->next = i + 1;
    comparison->left -= comparison->left > 0;
    return 0;
}

static size_t count_state(const model_t *model, unsigned keyspace, state_t state)
{
    size_t count = 0;
    for (unsigned i = 0; i < KEYS; i++)
        count += model->rows[keyspace][i].state == state;
    return count;
}

static void compare_scan(cake__suite_t *suite, model_t *model, unsigned keyspace)
{
    comparison_t comparison = {.model = model, .keyspace = keyspace, .is_right = true};
    cake_scan_t all = {.limit = 0};
    comparison.left = count_state(model, keyspace, LIVE);
    int err = suite->storage->ops->scan(suite->storage, cake__slice_str(model->names[keyspace]), &all, compare_scanned,
                                        &comparison);
    CAKE__CHECK(suite, err == 0);
    bool scan_equals_the_model = comparison.is_right && comparison.left == 0;
    CAKE__CHECK(suite, scan_equals_the_model);
}

static void compare_row(cake__suite_t *suite, model_t *model, unsigned keyspace, unsigned i)
{
    const model_row_t *row = &model->rows[keyspace][i];
    uint8_t *value = model->values[BATCH_MAX];
    const char *name = model->names[keyspace];
    fill_value(value, row->len, row->hlc);
    if (row->state == ABSENT)
        cake__suite_expect_absent(suite, name, key_of(model, i));
    else if (row->state == DEAD)
        cake__suite_expect_tombstone(suite, name, key_of(model, i), row->hlc);
    else
        cake__suite_expect_live(suite, name, key_of(model, i), cake__slice(value, row->len), row->hlc);
}

static void compare_all(cake__suite_t *suite, model_t *model)
{
    unsigned lane = suite->storage->ops->lane_of(suite->storage, cake__slice_str(model->names[0]));
    for (unsigned space = 0; space < KEYSPACES && !suite->failed; space++) {
        compare_scan(suite, model, space);
        cake__suite_expect_counts(suite, model->names[space], count_state(model, space, LIVE),
                                  count_state(model, space, DEAD));
        for (unsigned i = 0; i < KEYS && !suite->failed; i++)
            compare_row(suite, model, space, i);
    }
    for (unsigned i = 0; i < METAS && !suite->failed; i++) {
        char name[2] = {(char)('a' + i), 0};
        bool is_there = model->metas[i] != 0;
        cake__suite_expect_meta(suite, lane, name, cake__slice(is_there ? &model->metas[i] : NULL, is_there ? 8 : 0));
    }
}

static void random_batches(cake__suite_t *suite)
{
    model_t *model = calloc(1, sizeof *model);
    CAKE__CHECK(suite, model != NULL);
    cake__random_init(&model->random, suite->options.seed);
    make_keys(suite, model);
    for (size_t step = 1; step <= suite->options.steps && !suite->failed; step++) {
        random_batch(suite, model);
        unsigned space = (unsigned)cake__random_below(&model->random, KEYSPACES);
        compare_row(suite, model, space, (unsigned)cake__random_below(&model->random, KEYS));
        if (step % REOPEN_EACH == 0) {
            compare_all(suite, model);
            if (suite->keeps && !suite->failed)
                cake__suite_reopen(suite);
        }
    }
    if (!suite->failed)
        compare_all(suite, model);
    free(model);
}

const cake__suite_case_t cake__suite_random_cases[] = {
    {"random batches, compared with a plain table", random_batches, false},
    {NULL, NULL, false},
};
