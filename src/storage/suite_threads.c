/* Cases: readers beside the writer, and writers of several lanes at once. */
#include "storage/suite.h"

#include <pthread.h>
#include <stdatomic.h>

#define READERS      3u
#define PAIRS        20u
#define BATCHES      300u
#define LANE_BATCHES 100u

typedef struct shared {
    cake__suite_t *suite;
    atomic_bool is_over, is_wrong;
    atomic_uint reads;
} shared_t;

/* Every batch writes the same stamp to both rows of every pair, in two keyspaces of one lane. */
static void pair_key(char out[8], unsigned n, bool is_second)
{
    out[0] = is_second ? 'z' : 'a';
    out[1] = (char)('A' + n);
    out[2] = '\0';
}

static int same_stamp(void *arg, const cake_row_t *row)
{
    uint64_t *stamp = arg;
    if (*stamp == 0)
        *stamp = row->hlc;
    return *stamp == row->hlc ? 0 : CAKE_EINTERNAL;
}

static bool read_once(shared_t *shared, unsigned n)
{
    cake_storage_t *storage = shared->suite->storage;
    cake_slice_t name = cake__slice_str("k");
    char keys[2][8];
    uint64_t stamp = 0, all = 0;
    pair_key(keys[0], n % PAIRS, false);
    pair_key(keys[1], n % PAIRS, true);
    cake_id_t ids[2] = {cake__suite_id(cake__slice_str(keys[0])), cake__suite_id(cake__slice_str(keys[1]))};
    cake_scan_t range = {.limit = 0};
    cake_doc_t *doc = NULL;
    int err = storage->ops->fetch(storage, name, ids, 2, same_stamp, &stamp);
    if (err == 0)
        err = storage->ops->scan(storage, name, &range, same_stamp, &all);
    if (err == 0)
        err = storage->ops->get(storage, name, cake__slice_str(keys[0]), &doc);
    bool is_right = err == 0 && cake_doc_timestamp(doc) >= all; /* reads never go back */
    if (err == 0)
        cake_doc_free(doc);
    atomic_fetch_add(&shared->reads, 1);
    return is_right;
}

static void *reader(void *arg)
{
    shared_t *shared = arg;
    for (unsigned n = 0; !atomic_load(&shared->is_over); n++) {
        if (!read_once(shared, n))
            atomic_store(&shared->is_wrong, true);
    }
    return NULL;
}

static int write_pairs(cake__suite_t *suite, uint64_t hlc)
{
    cake_write_t writes[2 * PAIRS];
    char keys[2 * PAIRS][8];
    for (unsigned i = 0; i < 2 * PAIRS; i++) {
        pair_key(keys[i], i / 2, i % 2 == 1);
        writes[i] = cake__suite_put("k", cake__slice_str(keys[i]), cake__slice_str("value"), hlc);
    }
    return cake__suite_commit(suite, writes, 2 * PAIRS, NULL, 0);
}

static void readers_beside_the_writer(cake__suite_t *suite)
{
    if ((suite->storage->ops->flags & CAKE_STORAGE_CONCURRENT_READS) == 0) {
        cake__suite_skip(suite, "reads come from the lane's thread only");
        return;
    }
    shared_t shared = {.suite = suite};
    pthread_t threads[READERS];
    unsigned started = 0, written = 0;
    int err = write_pairs(suite, 1);
    while (started < READERS && pthread_create(&threads[started], NULL, reader, &shared) == 0)
        started++;
    for (; written < BATCHES && err == 0; written++)
        err = write_pairs(suite, written + 2);
    while (started > 0 && atomic_load(&shared.reads) == 0 && !atomic_load(&shared.is_wrong))
        err = err == 0 ? write_pairs(suite, BATCHES + 2) : err; /* on a busy machine the readers may not have begun */
    atomic_store(&shared.is_over, true);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    CAKE__CHECK(suite, err == 0);
    CAKE__CHECK(suite, started == READERS);
    bool readers_saw_whole_batches_only = !atomic_load(&shared.is_wrong);
    CAKE__CHECK(suite, readers_saw_whole_batches_only);
}

typedef struct lane_writer {
    cake_storage_t *storage;
    char name[32];
    int err;
} lane_writer_t;

static void *write_lane(void *arg)
{
    lane_writer_t *writer = arg;
    cake_storage_t *storage = writer->storage;
    unsigned lane = storage->ops->lane_of(storage, cake__slice_str(writer->name));
    for (uint64_t i = 0; i < LANE_BATCHES && writer->err == 0; i++) {
        cake_slice_t key = cake__slice(&i, sizeof i);
        cake_write_t write = cake__suite_put(writer->name, key, key, i);
        cake_meta_write_t meta = {cake__slice_str("count"), key};
        cake_batch_t batch = {lane, &write, 1, &meta, 1};
        writer->err = storage->ops->write(storage, &batch);
    }
    return NULL;
}

static void lanes_write_at_once(cake__suite_t *suite)
{
    lane_writer_t writers[2] = {{.storage = suite->storage, .name = "k"}, {.storage = suite->storage}};
    if (!cake__suite_name(suite, "k", false, 0, writers[1].name)) {
        cake__suite_skip(suite, "has one lane");
        return;
    }
    pthread_t thread;
    CAKE__CHECK(suite, pthread_create(&thread, NULL, write_lane, &writers[0]) == 0);
    write_lane(&writers[1]);
    pthread_join(thread, NULL);
    CAKE__CHECK(suite, writers[0].err == 0 && writers[1].err == 0);
    cake__suite_expect_counts(suite, "k", LANE_BATCHES, 0);
    cake__suite_expect_counts(suite, writers[1].name, LANE_BATCHES, 0);
}

const cake__suite_case_t cake__suite_thread_cases[] = {
    {"readers beside the writer see whole batches only", readers_beside_the_writer, false},
    {"lanes write at once", lanes_write_at_once, false},
    {NULL, NULL, false},
};
