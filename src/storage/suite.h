/* suite.h: what the cases of the conformance suite share. A case is a function that gets a fresh, open storage and
 * returns; the first check that fails ends it. */
#ifndef CAKE_STORAGE_SUITE_H
#define CAKE_STORAGE_SUITE_H

#include "storage/storage.h"

typedef struct cake__suite {
    cake_storage_factory_fn factory;
    void *arg;
    FILE *report;
    cake_storage_suite_options_t options;
    cake_storage_t *storage;
    bool keeps; /* what was written is there after closing and opening */
    bool failed, skipped;
    char why[256];
} cake__suite_t;

typedef struct cake__suite_case {
    const char *name;
    void (*run)(cake__suite_t *suite);
    bool needs_reopening;
} cake__suite_case_t;

extern const cake__suite_case_t cake__suite_row_cases[], cake__suite_scan_cases[], cake__suite_random_cases[],
    cake__suite_size_cases[], cake__suite_thread_cases[], cake__suite_crash_cases[]; /* each ends with a name of NULL */

void cake__suite_fail(cake__suite_t *suite, const char *file, int line, const char *text);
void cake__suite_skip(cake__suite_t *suite, const char *why);

#define CAKE__CHECK(suite, condition)                                                                                  \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            cake__suite_fail(suite, __FILE__, __LINE__, #condition);                                                   \
            return;                                                                                                    \
        }                                                                                                              \
    } while (0)

/* After a helper that may have failed. */
#define CAKE__CHECK_ALL(suite)                                                                                         \
    do {                                                                                                               \
        if ((suite)->failed)                                                                                           \
            return;                                                                                                    \
    } while (0)

/* The storage's id of a key. Ids of long keys are a digest there; any will do here. */
cake_id_t cake__suite_id(cake_slice_t key);

/* Closes and opens again. Only when keeps. */
void cake__suite_reopen(cake__suite_t *suite);

/* Writes; slices are borrowed. The dot is (actor 7, seq), the stamp hlc. */
cake_write_t cake__suite_put(const char *keyspace, cake_slice_t key, cake_slice_t value, uint64_t hlc);
cake_write_t cake__suite_tombstone(const char *keyspace, cake_slice_t key, uint64_t hlc);
cake_write_t cake__suite_erase(const char *keyspace, cake_slice_t key);

/* One batch on the lane of the first keyspace (lane 0 without writes). */
int cake__suite_commit(cake__suite_t *suite, const cake_write_t *writes, size_t count, const cake_meta_write_t *metas,
                       size_t meta_count);
int cake__suite_commit_one(cake__suite_t *suite, cake_write_t write);

/* Checks get and fetch: value NULL data: a tombstone or no row. */
void cake__suite_expect_live(cake__suite_t *suite, const char *keyspace, cake_slice_t key, cake_slice_t value,
                             uint64_t hlc);
void cake__suite_expect_tombstone(cake__suite_t *suite, const char *keyspace, cake_slice_t key, uint64_t hlc);
void cake__suite_expect_absent(cake__suite_t *suite, const char *keyspace, cake_slice_t key);
void cake__suite_expect_meta(cake__suite_t *suite, unsigned lane, const char *name, cake_slice_t value); /* data NULL:
                                                                                                              none */
void cake__suite_expect_counts(cake__suite_t *suite, const char *keyspace, size_t live, size_t dead);

/* Another name in the lane of `keyspace`, or in another lane (false: there is none); n tells several apart. */
bool cake__suite_name(cake__suite_t *suite, const char *keyspace, bool same_lane, unsigned n, char out[32]);

size_t cake__suite_count_keyspaces(cake__suite_t *suite, const char *name); /* those of this name */

#endif
