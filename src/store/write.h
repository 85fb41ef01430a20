/* write.h: one call of put, put_many, del or del_many, from the caller to its answer.
 *
 *   posted -> (held until the node has joined) -> staged in a lane -> committed -> waiting for its level -> done
 *                                                 └─ sent ahead ──────────┴─ or sent now
 *
 * One block of memory: the struct, its items, then their keys and values. */
#ifndef CAKE_STORE_WRITE_H
#define CAKE_STORE_WRITE_H

#include "store/store.h"

typedef struct cake__write_item {
    cake_id_t id;
    cake__value_t value;
    cake_record_t record;
} cake__write_item_t;

/* So many more answers from this data centre (0: from anywhere). */
typedef struct cake__need {
    uint64_t data_center_hash;
    uint32_t count;
} cake__need_t;

#define CAKE__WRITE_HERE 8u /* nodes and needs that take no memory of their own */

typedef enum cake__write_phase {
    CAKE__WRITE_POSTED,
    CAKE__WRITE_HELD,
    CAKE__WRITE_STAGED,
    CAKE__WRITE_WAITING,
    CAKE__WRITE_DONE
} cake__write_phase_t;

struct cake__write {
    cake__task_t task;          /* first */
    cake__list_t link;          /* in store->writes until done */
    cake__list_t keyspace_link; /* in keyspace->writes from when it was sent: STAGED or WAITING */
    cake_store_t *store;
    cake_post_t post;
    cake_timer_t timer;
    cake__write_phase_t phase;
    cake_consistency_t level;
    cake_done_fn done;
    void *arg;
    uint64_t deadline_ns;
    int stage_err;
    bool has_condition; /* of put_if and del_if */
    cake_hlc_t expected, found;
    bool has_lost_peer, is_counted;
    bool has_new_peer; /* for whom it was sent ahead too early */

    uint16_t *selected; /* nodes that the level waits for */
    size_t selected_count;
    uint16_t *answered; /* nodes that have it; those count that know the same replicas (registry.c) */
    size_t answered_count, answered_capacity;
    cake__need_t *needs;
    size_t need_count;
    uint32_t required, counted_local; /* for the result */
    uint16_t selected_here[CAKE__WRITE_HERE], answered_here[CAKE__WRITE_HERE];
    cake__need_t needs_here[CAKE__WRITE_HERE];
    cake__unit_t *unit;

    cake_slice_t keyspace_name;
    bool is_delete;
    size_t count;
    cake__write_item_t items[];
};

#endif
