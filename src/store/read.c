/* Reading: from this node's own storage, on the caller's thread where the storage allows it. */
#include "store/store.h"

typedef struct {
    cake_work_t work;
    cake_post_t post;
    cake_store_t *store;
    cake_done_fn done;
    void *arg;
    int err;
    cake_doc_t **docs;
    size_t count;
    cake_slice_t keyspace, *keys; /* behind the struct */
} read_t;

static int check_names(const char *keyspace, const cake_key_t *keys, size_t count)
{
    if (keyspace == NULL || !cake__is_name(cake__slice_str(keyspace), CAKE_KEYSPACE_NAME_MAX))
        return CAKE_EINVAL;
    if (count > CAKE__MANY_MAX)
        return CAKE_ETOOBIG;
    for (size_t i = 0; i < count; i++) {
        if (keys[i].len == 0 || keys[i].len > CAKE_KEY_MAX)
            return CAKE_EINVAL;
    }
    return 0;
}

static void count_reads(cake_store_t *store, size_t count)
{
    __atomic_fetch_add(&store->reads, count, __ATOMIC_RELAXED);
}

/* The calls below block: on the loop only where the storage never waits. */
static bool may_read_here(const cake_store_t *store)
{
    bool is_on_loop = store->env->ops->on_loop(store->env);
    return store->reads_anywhere && (store->is_inline || !is_on_loop);
}

static int read_docs(cake_storage_t *storage, cake_slice_t keyspace, const cake_slice_t *keys, size_t count,
                     cake_doc_t **docs)
{
    for (size_t i = 0; i < count; i++)
        docs[i] = NULL;
    for (size_t i = 0; i < count; i++) {
        int err = storage->ops->get(storage, keyspace, keys[i], &docs[i]);
        if (err == 0 || err == CAKE_ENOTFOUND)
            continue;
        for (size_t k = 0; k <= i; k++) {
            cake_doc_free(docs[k]);
            docs[k] = NULL;
        }
        return err;
    }
    return 0;
}

/* ---- asynchronous -------------------------------------------------------------------------------------------------*/

static void run_read(void *arg)
{
    read_t *read = arg;
    read->err = read_docs(read->store->storage, read->keyspace, read->keys, read->count, read->docs);
}

static void end_read(void *arg)
{
    read_t *read = arg;
    cake_store_t *store = read->store;
    bool is_missing = read->err == 0 && read->count == 1 && read->docs[0] == NULL;
    cake_result_t result = {
        .err = is_missing ? CAKE_ENOTFOUND : read->err, .docs = read->docs, .doc_count = read->count};
    if (result.err == 0 && read->docs[0] != NULL)
        result.timestamp = cake_doc_timestamp(read->docs[0]);
    result.message = cake_strerror(result.err);
    read->done(&result, read->arg);
    cake__free(store->alloc, read);
    store->reads_running--;
    cake__store_check_stopped(store);
}

static void on_read_posted(void *arg)
{
    read_t *read = arg;
    cake_store_t *store = read->store;
    store->reads_running++;
    if (cake__store_is_stopping(store)) {
        read->err = CAKE_ECLOSED;
        end_read(read);
        return;
    }
    if (store->is_inline) {
        run_read(read);
        end_read(read);
        return;
    }
    cake_lane_t *lane = store->reader;
    if (!store->reads_anywhere)
        lane = store->lanes[store->storage->ops->lane_of(store->storage, read->keyspace)].worker;
    read->work = (cake_work_t){.run = run_read, .done = end_read, .arg = read};
    store->env->ops->lane_submit(lane, &read->work);
}

int cake_store_get_many_async(cake_store_t *store, const char *keyspace, const cake_key_t *keys, size_t count,
                              cake_done_fn fn, void *arg)
{
    int err = count == 0 ? CAKE_EINVAL : check_names(keyspace, keys, count);
    if (err != 0)
        return err;
    size_t name_len = strlen(keyspace), bytes = name_len;
    for (size_t i = 0; i < count; i++)
        bytes += keys[i].len;
    read_t *read =
        cake__calloc(store->alloc, 1, sizeof *read + count * (sizeof(cake_slice_t) + sizeof(cake_doc_t *)) + bytes);
    if (read == NULL)
        return CAKE_ENOMEM;
    read->store = store;
    read->done = fn;
    read->arg = arg;
    read->count = count;
    read->keys = (cake_slice_t *)(read + 1);
    read->docs = (cake_doc_t **)(read->keys + count);
    uint8_t *at = (uint8_t *)(read->docs + count);
    memcpy(at, keyspace, name_len);
    read->keyspace = cake__slice(at, name_len);
    at += name_len;
    for (size_t i = 0; i < count; i++) {
        cake_slice_t key = cake_key_slice(&keys[i]);
        memcpy(at, key.data, key.len);
        read->keys[i] = cake__slice(at, key.len);
        at += key.len;
    }
    count_reads(store, count);
    read->post = (cake_post_t){.fn = on_read_posted, .arg = read};
    store->env->ops->post(store->env, &read->post);
    return 0;
}

int cake_store_get_async(cake_store_t *store, const char *keyspace, cake_key_t key, cake_done_fn fn, void *arg)
{
    return cake_store_get_many_async(store, keyspace, &key, 1, fn, arg);
}

/* ---- blocking -----------------------------------------------------------------------------------------------------*/

typedef struct {
    cake_env_t *env;
    cake_gate_t gate;
    int err;
    cake_doc_t **docs;
} waiting_t;

static void on_waited(const cake_result_t *result, void *arg)
{
    waiting_t *waiting = arg;
    waiting->err = result->err;
    for (size_t i = 0; i < result->doc_count; i++)
        waiting->docs[i] = result->docs[i];
    waiting->env->ops->gate_open(waiting->env, &waiting->gate);
}

static int read_elsewhere(cake_store_t *store, const char *keyspace, const cake_key_t *keys, size_t count,
                          cake_doc_t **docs)
{
    cake_env_t *env = store->env;
    waiting_t waiting = {.env = env, .docs = docs};
    if (env->ops->on_loop(env))
        return CAKE_EDEADLK;
    env->ops->gate_init(env, &waiting.gate);
    int err = cake_store_get_many_async(store, keyspace, keys, count, on_waited, &waiting);
    if (err == 0)
        env->ops->gate_wait(env, &waiting.gate);
    env->ops->gate_destroy(env, &waiting.gate);
    return err != 0 ? err : waiting.err;
}

int cake_store_get(cake_store_t *store, const char *keyspace, cake_key_t key, cake_doc_t **doc)
{
    *doc = NULL;
    int err = check_names(keyspace, &key, 1);
    if (err != 0)
        return err;
    if (!may_read_here(store))
        return read_elsewhere(store, keyspace, &key, 1, doc);
    count_reads(store, 1);
    return store->storage->ops->get(store->storage, cake__slice_str(keyspace), cake_key_slice(&key), doc);
}

int cake_store_get_many(cake_store_t *store, const char *keyspace, const cake_key_t *keys, size_t count,
                        cake_doc_t **docs)
{
    int err = check_names(keyspace, keys, count);
    if (err != 0 || count == 0)
        return err;
    if (!may_read_here(store)) {
        err = read_elsewhere(store, keyspace, keys, count, docs);
        return err == CAKE_ENOTFOUND ? 0 : err;
    }
    count_reads(store, count);
    cake_slice_t *slices = cake__malloc(store->alloc, count * sizeof *slices);
    if (slices == NULL)
        return CAKE_ENOMEM;
    for (size_t i = 0; i < count; i++)
        slices[i] = cake_key_slice(&keys[i]);
    err = read_docs(store->storage, cake__slice_str(keyspace), slices, count, docs);
    cake__free(store->alloc, slices);
    return err;
}

/* ---- scans --------------------------------------------------------------------------------------------------------*/

typedef struct {
    cake_work_t work;
    cake_post_t post;
    cake_store_t *store;
    cake_slice_t keyspace;
    const cake_scan_t *range;
    cake_doc_fn fn;
    void *arg;
    int err;
    cake_gate_t gate;
} scan_t;

static int on_scanned(void *arg, const cake_row_t *row)
{
    scan_t *scan = arg;
    cake_doc_t *doc = cake_doc_new(NULL, row->key, row->value, row->hlc, row->dot);
    if (doc == NULL)
        return CAKE_ENOMEM;
    int err = scan->fn(scan->arg, doc);
    cake_doc_free(doc);
    return err;
}

static void run_scan(void *arg)
{
    scan_t *scan = arg;
    cake_storage_t *storage = scan->store->storage;
    scan->err = storage->ops->scan(storage, scan->keyspace, scan->range, on_scanned, scan);
}

static void end_scan(void *arg)
{
    scan_t *scan = arg;
    scan->store->reads_running--;
    scan->store->env->ops->gate_open(scan->store->env, &scan->gate);
    cake__store_check_stopped(scan->store);
}

static void on_scan_posted(void *arg)
{
    scan_t *scan = arg;
    cake_store_t *store = scan->store;
    store->reads_running++;
    unsigned lane = store->storage->ops->lane_of(store->storage, scan->keyspace);
    scan->work = (cake_work_t){.run = run_scan, .done = end_scan, .arg = scan};
    if (cake__store_is_stopping(store)) {
        scan->err = CAKE_ECLOSED;
        end_scan(scan);
    } else if (store->lanes[lane].worker == NULL) {
        run_scan(scan);
        end_scan(scan);
    } else {
        store->env->ops->lane_submit(store->lanes[lane].worker, &scan->work);
    }
}

int cake_store_scan(cake_store_t *store, const char *keyspace, const cake_scan_t *range, cake_doc_fn fn, void *arg)
{
    static const cake_scan_t everything = {0};
    int err = check_names(keyspace, NULL, 0);
    if (err != 0)
        return err;
    scan_t scan = {.store = store,
                   .keyspace = cake__slice_str(keyspace),
                   .range = range == NULL ? &everything : range,
                   .fn = fn,
                   .arg = arg};
    if (may_read_here(store)) {
        run_scan(&scan);
        return scan.err;
    }
    cake_env_t *env = store->env;
    if (env->ops->on_loop(env))
        return CAKE_EDEADLK;
    env->ops->gate_init(env, &scan.gate);
    scan.post = (cake_post_t){.fn = on_scan_posted, .arg = &scan};
    env->ops->post(env, &scan.post);
    env->ops->gate_wait(env, &scan.gate);
    env->ops->gate_destroy(env, &scan.gate);
    return scan.err;
}
