/* names.h: the keyspaces of a storage on disk and the numbers that stand for them in its files. Any thread.
 *
 *      map: text -> name { number, lane, published? }        fresh: those of batches that have not committed yet */
#ifndef CAKE_STORAGE_NAMES_H
#define CAKE_STORAGE_NAMES_H

#include <stdatomic.h>

#include "base/lock.h"
#include "base/map.h"
#include "storage/storage.h"

/* A keyspace, once it is known. is_published: its row is committed; until then only its lane's writer may use it. */
typedef struct cake__name {
    struct cake__name *next_fresh; /* of those not published */
    int64_t number;
    unsigned lane;
    bool is_published;
    size_t len;
    char text[];
} cake__name_t;

typedef struct cake__names {
    cake__rwlock_t lock;
    cake__map_t map;
    cake__name_t *fresh;
    _Atomic(const cake__name_t *) last; /* found last, published: most reads ask for the same one */
    const cake_alloc_t *alloc;
} cake__names_t;

void cake__names_init(cake__names_t *names, const cake_alloc_t *alloc);
void cake__names_free(cake__names_t *names);
cake__name_t *cake__names_find(cake__names_t *names, cake_slice_t text);        /* for the writer of its lane; NULL */
const cake__name_t *cake__names_known(cake__names_t *names, cake_slice_t text); /* published ones, valid until
                                                                                    cake__names_free; or NULL */
int64_t cake__names_number(cake__names_t *names, cake_slice_t text);            /* published only; -1: unknown */
int cake__names_add(cake__names_t *names, cake_slice_t text, unsigned lane, int64_t number, cake__name_t **out);
void cake__names_settle(cake__names_t *names, unsigned lane, bool is_committed); /* publishes or drops the new ones */
int cake__names_each(cake__names_t *names, cake_name_fn fn, void *arg);

#endif
