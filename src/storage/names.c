#include "storage/names.h"

void cake__names_init(cake__names_t *names, const cake_alloc_t *alloc)
{
    cake__rwlock_init(&names->lock);
    cake__map_init(&names->map, alloc);
    names->alloc = alloc;
    atomic_init(&names->last, NULL);
}

void cake__names_free(cake__names_t *names)
{
    cake__name_t *name;
    size_t cursor = 0;
    while ((name = cake__map_next(&names->map, &cursor)) != NULL)
        cake__free(names->alloc, name);
    cake__map_free(&names->map);
    cake__rwlock_destroy(&names->lock);
}

cake__name_t *cake__names_find(cake__names_t *names, cake_slice_t text)
{
    cake__rwlock_read(&names->lock);
    cake__name_t *name = cake__map_get(&names->map, text);
    cake__rwlock_give(&names->lock);
    return name;
}

const cake__name_t *cake__names_known(cake__names_t *names, cake_slice_t text)
{
    const cake__name_t *last = atomic_load_explicit(&names->last, memory_order_acquire);
    if (last != NULL && cake__slice_equal(cake__slice(last->text, last->len), text))
        return last;
    cake__rwlock_read(&names->lock);
    const cake__name_t *name = cake__map_get(&names->map, text);
    if (name != NULL && !name->is_published)
        name = NULL;
    cake__rwlock_give(&names->lock);
    if (name != NULL)
        atomic_store_explicit(&names->last, name, memory_order_release);
    return name;
}

int64_t cake__names_number(cake__names_t *names, cake_slice_t text)
{
    const cake__name_t *name = cake__names_known(names, text);
    return name != NULL ? name->number : -1;
}

int cake__names_add(cake__names_t *names, cake_slice_t text, unsigned lane, int64_t number, cake__name_t **out)
{
    cake__name_t *name = cake__malloc(names->alloc, sizeof *name + text.len + 1);
    if (name == NULL)
        return CAKE_ENOMEM;
    *name = (cake__name_t){.number = number, .lane = lane, .len = text.len};
    memcpy(name->text, text.data, text.len);
    name->text[text.len] = '\0';
    cake__rwlock_write(&names->lock);
    int err = cake__map_put(&names->map, cake__slice(name->text, name->len), name);
    if (err == 0) {
        name->next_fresh = names->fresh;
        names->fresh = name;
    }
    cake__rwlock_give(&names->lock);
    if (err != 0)
        cake__free(names->alloc, name);
    else if (out != NULL)
        *out = name;
    return err;
}

void cake__names_settle(cake__names_t *names, unsigned lane, bool is_committed)
{
    cake__rwlock_write(&names->lock);
    for (cake__name_t **at = &names->fresh; *at != NULL;) {
        cake__name_t *name = *at;
        if (name->lane != lane) {
            at = &name->next_fresh;
            continue;
        }
        *at = name->next_fresh;
        name->is_published = is_committed;
        if (is_committed)
            continue;
        (void)cake__map_remove(&names->map, cake__slice(name->text, name->len));
        cake__free(names->alloc, name);
    }
    cake__rwlock_give(&names->lock);
}

int cake__names_each(cake__names_t *names, cake_name_fn fn, void *arg)
{
    const cake__name_t *name;
    size_t cursor = 0;
    int err = 0;
    cake__rwlock_read(&names->lock);
    while (err == 0 && (name = cake__map_next(&names->map, &cursor)) != NULL)
        err = name->is_published ? fn(arg, name->text) : 0;
    cake__rwlock_give(&names->lock);
    return err;
}
