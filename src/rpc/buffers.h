/* buffers.h: bytes on their way.
 *
 *   block   64 KiB to read into and to gather small writes in; counted references; the spare ones wait in a pool
 *   chunk   bytes of an outgoing body, copied or borrowed; counted references
 *   body    a queue of chunks:   head -> chunk -> chunk     offset: what of the head is sent
 *   batch   what one write sends: slices into blocks and chunks, which it holds until the write has ended
 *
 * All of it belongs to one loop thread, but for making a chunk. */
#ifndef CAKE_RPC_BUFFERS_H
#define CAKE_RPC_BUFFERS_H

#include "env/env.h"

#define CAKE__BLOCK_BYTES    65536u
#define CAKE__POOL_SPARE_MAX 64u
#define CAKE__BATCH_BYTES    (1u << 20) /* a batch takes nothing more beyond it */
#define CAKE__COPY_BELOW     8192u      /* shorter pieces are copied together rather than sent from where they are */

typedef struct cake__pool cake__pool_t;

typedef struct cake__block {
    struct cake__block *next; /* in the pool */
    cake__pool_t *pool;
    uint32_t refs;
    size_t len; /* bytes in use, from the start */
    uint8_t data[];
} cake__block_t;

struct cake__pool {
    const cake_alloc_t *alloc;
    cake__block_t *spare;
    uint32_t spare_count;
    uint32_t out_count; /* blocks in use: none when the pool is freed */
};

void cake__pool_init(cake__pool_t *pool, const cake_alloc_t *alloc);
void cake__pool_free(cake__pool_t *pool);
cake__block_t *cake__block_get(cake__pool_t *pool); /* one reference; NULL: no memory */
void cake__block_unref(cake__block_t *block);

static inline cake__block_t *cake__block_ref(cake__block_t *block)
{
    block->refs++;
    return block;
}

typedef struct cake__chunk {
    struct cake__chunk *next; /* in a body */
    uint32_t refs;
    const uint8_t *data;
    size_t len;
    struct cake__chunk *lender; /* of a further borrowed piece: the first, which it lies in and holds */
    const cake_alloc_t *alloc;
    size_t count; /* pieces */
    cake_event_fn released;
    void *arg;
    uint8_t bytes[]; /* the copied ones, or the further pieces */
} cake__chunk_t;

/* The parts copied one after another. Any thread. */
cake__chunk_t *cake__chunk_copy(const cake_alloc_t *alloc, const cake_slice_t *parts, size_t count);
/* Pieces that are the parts; released(arg) runs when nobody holds any of them. NULL: no memory, released has not
 * run. */
cake__chunk_t *cake__chunk_borrow(const cake_alloc_t *alloc, const cake_slice_t *parts, size_t count,
                                  cake_event_fn released, void *arg);
/* All pieces of it as a list for a body, with a reference each. Again only when no body has the list before. */
cake__chunk_t *cake__chunk_list(cake__chunk_t *chunk);
void cake__chunk_unref(cake__chunk_t *chunk); /* NULL is fine */
void cake__chunk_unref_list(cake__chunk_t *chunk);

typedef struct cake__body {
    cake__chunk_t *head, *tail;
    size_t offset, pending; /* pending: bytes not sent */
    bool is_ended;          /* nothing is appended any more */
} cake__body_t;

void cake__body_append(cake__body_t *body, cake__chunk_t *list); /* takes the reference */
void cake__body_clear(cake__body_t *body);

typedef struct cake__batch {
    cake__pool_t *pool;
    cake__block_t *tail; /* small pieces go here; held by the slot that has its bytes, too */
    size_t count, bytes, body_bytes;
    cake_slice_t iov[CAKE_STREAM_IOV_MAX];
    cake__block_t *blocks[CAKE_STREAM_IOV_MAX]; /* of each slice one or the other */
    cake__chunk_t *chunks[CAKE_STREAM_IOV_MAX];
} cake__batch_t;

static inline bool cake__batch_has_room(const cake__batch_t *batch)
{
    return batch->bytes < CAKE__BATCH_BYTES && batch->count < CAKE_STREAM_IOV_MAX - 8;
}

uint8_t *cake__batch_room(cake__batch_t *batch, size_t len); /* in one piece, to be filled; NULL: no memory */
int cake__batch_copy(cake__batch_t *batch, const void *data, size_t len);   /* CAKE_ENOMEM */
int cake__batch_take(cake__batch_t *batch, cake__body_t *body, size_t len); /* the next len bytes; CAKE_ENOMEM */
void cake__batch_clear(cake__batch_t *batch);                               /* releases what it holds */

#endif
