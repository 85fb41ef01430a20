/* The blocking calls: their asynchronous twins, and a gate. */
#include "store/store.h"

typedef struct {
    cake_store_t *store;
    cake_gate_t gate;
    cake_result_t result;
    cake_doc_t *doc;
} waiting_t;

static void on_done(const cake_result_t *result, void *arg)
{
    waiting_t *waiting = arg;
    waiting->result = *result;
    waiting->doc = result->doc_count > 0 ? result->docs[0] : NULL;
    waiting->result.docs = NULL;
    waiting->result.message = NULL;
    waiting->store->env->ops->gate_open(waiting->store->env, &waiting->gate);
}

static int begin(waiting_t *waiting, cake_store_t *store)
{
    *waiting = (waiting_t){.store = store};
    if (store->env->ops->on_loop(store->env))
        return CAKE_EDEADLK;
    store->env->ops->gate_init(store->env, &waiting->gate);
    return 0;
}

/* err: of the asynchronous call itself. */
static int end(waiting_t *waiting, int err)
{
    cake_store_t *store = waiting->store;
    if (err == 0)
        store->env->ops->gate_wait(store->env, &waiting->gate);
    store->env->ops->gate_destroy(store->env, &waiting->gate);
    if (err != 0)
        waiting->result.err = err;
    /* After CAKE_ECLOSED the store may be gone already. */
    if (waiting->result.err != 0 && waiting->result.err != CAKE_ENOTFOUND && waiting->result.err != CAKE_ECLOSED) {
        cake__lock_take(&store->failure_lock);
        store->last_failure = waiting->result;
        cake__lock_give(&store->failure_lock);
    }
    return waiting->result.err;
}

void cake_store_last_failure(cake_store_t *store, cake_result_t *out)
{
    cake__lock_take(&store->failure_lock);
    *out = store->last_failure;
    cake__lock_give(&store->failure_lock);
}

int cake_store_put_many(cake_store_t *store, const char *keyspace, const cake_item_t *items, size_t count,
                        cake_consistency_t level)
{
    waiting_t waiting;
    int err = count == 0 ? 0 : begin(&waiting, store);
    if (err != 0 || count == 0)
        return err;
    return end(&waiting, cake_store_put_many_async(store, keyspace, items, count, level, on_done, &waiting));
}

int cake_store_put(cake_store_t *store, const char *keyspace, cake_key_t key, const void *value, size_t len,
                   cake_consistency_t level)
{
    const cake_item_t item = {key, value, len};
    return cake_store_put_many(store, keyspace, &item, 1, level);
}

int cake_store_del_many(cake_store_t *store, const char *keyspace, const cake_key_t *keys, size_t count,
                        cake_consistency_t level)
{
    waiting_t waiting;
    int err = count == 0 ? 0 : begin(&waiting, store);
    if (err != 0 || count == 0)
        return err;
    return end(&waiting, cake_store_del_many_async(store, keyspace, keys, count, level, on_done, &waiting));
}

int cake_store_del(cake_store_t *store, const char *keyspace, cake_key_t key, cake_consistency_t level)
{
    return cake_store_del_many(store, keyspace, &key, 1, level);
}

int cake_store_put_if(cake_store_t *store, const char *keyspace, cake_key_t key, const void *value, size_t len,
                      cake_hlc_t expected, cake_consistency_t level)
{
    waiting_t waiting;
    int err = begin(&waiting, store);
    if (err != 0)
        return err;
    err = cake_store_put_if_async(store, keyspace, key, value, len, expected, level, on_done, &waiting);
    return end(&waiting, err);
}

int cake_store_del_if(cake_store_t *store, const char *keyspace, cake_key_t key, cake_hlc_t expected,
                      cake_consistency_t level)
{
    waiting_t waiting;
    int err = begin(&waiting, store);
    if (err != 0)
        return err;
    return end(&waiting, cake_store_del_if_async(store, keyspace, key, expected, level, on_done, &waiting));
}

int cake_store_get_at(cake_store_t *store, const char *keyspace, cake_key_t key, cake_consistency_t level,
                      cake_doc_t **doc)
{
    waiting_t waiting;
    *doc = NULL;
    int err = begin(&waiting, store);
    if (err != 0)
        return err;
    err = end(&waiting, cake_store_get_at_async(store, keyspace, key, level, on_done, &waiting));
    *doc = waiting.doc;
    return err;
}
