/* list.h: an intrusive doubly linked ring with a head. A node that is in no list points at itself.
 *
 *      head <-> a <-> b <-> head          empty: head <-> head */
#ifndef CAKE_BASE_LIST_H
#define CAKE_BASE_LIST_H

#include "base/base.h"

typedef struct cake__list {
    struct cake__list *next, *prev;
} cake__list_t;

static inline void cake__list_init(cake__list_t *node)
{
    node->next = node->prev = node;
}

static inline bool cake__list_is_empty(const cake__list_t *head)
{
    return head->next == head;
}

static inline bool cake__list_is_linked(const cake__list_t *node)
{
    return node->next != node;
}

static inline void cake__list_insert_before(cake__list_t *place, cake__list_t *node)
{
    CAKE_ASSERT(node->next == node && node->prev == node);
    node->next = place;
    node->prev = place->prev;
    place->prev->next = node;
    place->prev = node;
}

static inline void cake__list_push_back(cake__list_t *head, cake__list_t *node)
{
    cake__list_insert_before(head, node);
}

static inline void cake__list_push_front(cake__list_t *head, cake__list_t *node)
{
    cake__list_insert_before(head->next, node);
}

/* Removing a node that is in no list does nothing. */
static inline void cake__list_remove(cake__list_t *node)
{
    node->next->prev = node->prev;
    node->prev->next = node->next;
    node->next = node->prev = node;
}

static inline cake__list_t *cake__list_pop_front(cake__list_t *head)
{
    cake__list_t *node = head->next;
    if (node == head)
        return NULL;
    cake__list_remove(node);
    return node;
}

/* Moves everything of from to the back of to. */
static inline void cake__list_splice(cake__list_t *to, cake__list_t *from)
{
    if (cake__list_is_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    cake__list_init(from);
}

#define CAKE_LIST_FOR_EACH(node, head) for (cake__list_t *node = (head)->next; node != (head); node = node->next)

/* The body may remove node, and only node. */
#define CAKE_LIST_FOR_EACH_SAFE(node, head)                                                                            \
    for (cake__list_t *node = (head)->next, *node##_next = node->next; node != (head);                                 \
         node = node##_next, node##_next = node->next)

#endif
