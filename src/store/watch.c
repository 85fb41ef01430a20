/* Subscriptions to changes, told in the order in which they take effect. */
#include "store/store.h"

typedef struct {
    cake_watch_t base; /* first */
    cake__list_t link;
    cake_store_t *store;
    cake_change_fn fn;
    void *arg;
    bool is_stopped, takes_all;
    char keyspace[CAKE_KEYSPACE_NAME_MAX + 1];
} change_watch_t;

static void free_watch(change_watch_t *watch)
{
    cake__list_remove(&watch->link);
    cake__free(watch->store->alloc, watch);
}

void cake__tell_change(cake__keyspace_t *keyspace, const cake__staged_t *staged)
{
    cake_store_t *store = keyspace->store;
    const cake__value_t *value = staged->tag;
    if (value == NULL)
        return; /* a record of ours under a new dot: the document is what it was */
    const cake_change_t change = {.keyspace = keyspace->name,
                                  .key = value->key,
                                  .value = staged->record.is_tombstone ? cake__slice(NULL, 0) : value->value,
                                  .timestamp = staged->record.hlc,
                                  .is_delete = staged->record.is_tombstone,
                                  .is_local = value->origin == NULL};
    store->is_telling = true;
    CAKE_LIST_FOR_EACH(link, &store->watches)
    {
        change_watch_t *watch = CAKE_CONTAINER_OF(link, change_watch_t, link);
        bool is_for_it = watch->takes_all || strcmp(watch->keyspace, keyspace->name) == 0;
        if (is_for_it && !watch->is_stopped)
            watch->fn(watch->arg, &change);
    }
    store->is_telling = false;
    CAKE_LIST_FOR_EACH_SAFE(link, &store->watches)
    {
        change_watch_t *watch = CAKE_CONTAINER_OF(link, change_watch_t, link);
        if (watch->is_stopped)
            free_watch(watch);
    }
}

static void stop_watch(cake_watch_t *base)
{
    change_watch_t *watch = CAKE_CONTAINER_OF(base, change_watch_t, base);
    watch->is_stopped = true;
    if (!watch->store->is_telling)
        free_watch(watch);
}

static int add_watch(void *arg)
{
    change_watch_t *watch = arg;
    if (cake__store_is_stopping(watch->store))
        return CAKE_ECLOSED;
    cake__list_push_back(&watch->store->watches, &watch->link);
    return 0;
}

int cake_store_watch(cake_store_t *store, const char *keyspace, cake_change_fn fn, void *arg, cake_watch_t **out)
{
    *out = NULL;
    if (fn == NULL || (keyspace != NULL && !cake__is_name(cake__slice_str(keyspace), CAKE_KEYSPACE_NAME_MAX)))
        return CAKE_EINVAL;
    change_watch_t *watch = cake__calloc(store->alloc, 1, sizeof *watch);
    if (watch == NULL)
        return CAKE_ENOMEM;
    watch->base = (cake_watch_t){store->env, stop_watch};
    watch->store = store;
    watch->fn = fn;
    watch->arg = arg;
    watch->takes_all = keyspace == NULL;
    if (keyspace != NULL)
        memcpy(watch->keyspace, keyspace, strlen(keyspace));
    cake__list_init(&watch->link);
    int err = cake__run_on_loop(store->env, add_watch, watch);
    if (err != 0)
        cake__free(store->alloc, watch);
    else
        *out = &watch->base;
    return err;
}

void cake__watches_free(cake_store_t *store)
{
    CAKE_LIST_FOR_EACH_SAFE(link, &store->watches)
    free_watch(CAKE_CONTAINER_OF(link, change_watch_t, link));
}
