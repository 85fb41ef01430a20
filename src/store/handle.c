/* Handles bound to a keyspace: a store and a name. */
#include "store/store.h"

struct cake_keyspace {
    cake_store_t *store;
    char name[CAKE_KEYSPACE_NAME_MAX + 1];
};

int cake_keyspace_open(cake_store_t *store, const char *name, cake_keyspace_t **out)
{
    *out = NULL;
    if (name == NULL || !cake__is_name(cake__slice_str(name), CAKE_KEYSPACE_NAME_MAX))
        return CAKE_EINVAL;
    cake_keyspace_t *keyspace = cake__calloc(store->alloc, 1, sizeof *keyspace);
    if (keyspace == NULL)
        return CAKE_ENOMEM;
    keyspace->store = store;
    memcpy(keyspace->name, name, strlen(name));
    *out = keyspace;
    return 0;
}

void cake_keyspace_close(cake_keyspace_t *keyspace)
{
    if (keyspace != NULL)
        cake__free(keyspace->store->alloc, keyspace);
}

const char *cake_keyspace_name(const cake_keyspace_t *keyspace)
{
    return keyspace->name;
}

int cake_keyspace_put(cake_keyspace_t *keyspace, cake_key_t key, const void *value, size_t len,
                      cake_consistency_t level)
{
    return cake_store_put(keyspace->store, keyspace->name, key, value, len, level);
}

int cake_keyspace_put_many(cake_keyspace_t *keyspace, const cake_item_t *items, size_t count, cake_consistency_t level)
{
    return cake_store_put_many(keyspace->store, keyspace->name, items, count, level);
}

int cake_keyspace_del(cake_keyspace_t *keyspace, cake_key_t key, cake_consistency_t level)
{
    return cake_store_del(keyspace->store, keyspace->name, key, level);
}

int cake_keyspace_del_many(cake_keyspace_t *keyspace, const cake_key_t *keys, size_t count, cake_consistency_t level)
{
    return cake_store_del_many(keyspace->store, keyspace->name, keys, count, level);
}

int cake_keyspace_get(cake_keyspace_t *keyspace, cake_key_t key, cake_doc_t **doc)
{
    return cake_store_get(keyspace->store, keyspace->name, key, doc);
}

int cake_keyspace_get_many(cake_keyspace_t *keyspace, const cake_key_t *keys, size_t count, cake_doc_t **docs)
{
    return cake_store_get_many(keyspace->store, keyspace->name, keys, count, docs);
}

int cake_keyspace_scan(cake_keyspace_t *keyspace, const cake_scan_t *range, cake_doc_fn fn, void *arg)
{
    return cake_store_scan(keyspace->store, keyspace->name, range, fn, arg);
}
