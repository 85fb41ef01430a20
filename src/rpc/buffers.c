#include "rpc/buffers.h"

/* ---- blocks ---- */

void cake__pool_init(cake__pool_t *pool, const cake_alloc_t *alloc)
{
    *pool = (cake__pool_t){.alloc = alloc};
}

void cake__pool_free(cake__pool_t *pool)
{
    CAKE_ASSERT(pool->out_count == 0);
    while (pool->spare != NULL) {
        cake__block_t *block = pool->spare;
        pool->spare = block->next;
        cake__free(pool->alloc, block);
    }
}

cake__block_t *cake__block_get(cake__pool_t *pool)
{
    cake__block_t *block = pool->spare;
    if (block != NULL) {
        pool->spare = block->next;
        pool->spare_count--;
    } else {
        block = cake__malloc(pool->alloc, sizeof *block + CAKE__BLOCK_BYTES);
        if (block == NULL)
            return NULL;
    }
    block->next = NULL;
    block->pool = pool;
    block->refs = 1;
    block->len = 0;
    pool->out_count++;
    return block;
}

void cake__block_unref(cake__block_t *block)
{
    CAKE_ASSERT(block->refs > 0);
    if (--block->refs > 0)
        return;
    cake__pool_t *pool = block->pool;
    CAKE_ASSERT(pool->out_count > 0);
    pool->out_count--;
    if (pool->spare_count >= CAKE__POOL_SPARE_MAX) {
        cake__free(pool->alloc, block);
        return;
    }
    block->next = pool->spare;
    pool->spare = block;
    pool->spare_count++;
}

/* ---- chunks ---- */

cake__chunk_t *cake__chunk_copy(const cake_alloc_t *alloc, const cake_slice_t *parts, size_t count)
{
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        if (__builtin_add_overflow(len, parts[i].len, &len))
            return NULL;
    }
    if (len > SIZE_MAX - sizeof(cake__chunk_t))
        return NULL;
    cake__chunk_t *chunk = cake__malloc(alloc, sizeof *chunk + len);
    if (chunk == NULL)
        return NULL;
    *chunk = (cake__chunk_t){.refs = 1, .data = chunk->bytes, .alloc = alloc, .count = 1};
    for (size_t i = 0; i < count; i++) {
        if (parts[i].len > 0)
            memcpy(chunk->bytes + chunk->len, parts[i].data, parts[i].len);
        chunk->len += parts[i].len;
    }
    return chunk;
}

static cake__chunk_t *piece_of(cake__chunk_t *chunk, size_t i)
{
    return i == 0 ? chunk : (cake__chunk_t *)(void *)chunk->bytes + i - 1;
}

cake__chunk_t *cake__chunk_borrow(const cake_alloc_t *alloc, const cake_slice_t *parts, size_t count,
                                  cake_event_fn released, void *arg)
{
    cake__chunk_t *chunk =
        count > SIZE_MAX / sizeof *chunk - 1 ? NULL : cake__malloc(alloc, (count + 1) * sizeof *chunk);
    if (chunk == NULL)
        return NULL;
    for (size_t i = 0; i < count || i == 0; i++) {
        *piece_of(chunk, i) = (cake__chunk_t){.lender = i == 0 ? NULL : chunk,
                                              .data = i < count ? parts[i].data : NULL,
                                              .len = i < count ? parts[i].len : 0};
    }
    chunk->refs = 1;
    chunk->alloc = alloc;
    chunk->count = count == 0 ? 1 : count;
    chunk->released = released;
    chunk->arg = arg;
    return chunk;
}

cake__chunk_t *cake__chunk_list(cake__chunk_t *chunk)
{
    for (size_t i = 0; i < chunk->count; i++) {
        cake__chunk_t *piece = piece_of(chunk, i);
        if (piece->lender != NULL && piece->refs == 0)
            chunk->refs++;
        piece->refs++;
        piece->next = i + 1 < chunk->count ? piece_of(chunk, i + 1) : NULL;
    }
    return chunk;
}

void cake__chunk_unref(cake__chunk_t *chunk)
{
    while (chunk != NULL) {
        CAKE_ASSERT(chunk->refs > 0);
        if (--chunk->refs > 0)
            return;
        cake__chunk_t *lender = chunk->lender;
        if (lender == NULL) {
            if (chunk->released != NULL)
                chunk->released(chunk->arg);
            cake__free(chunk->alloc, chunk);
        }
        chunk = lender;
    }
}

void cake__chunk_unref_list(cake__chunk_t *chunk)
{
    while (chunk != NULL) {
        cake__chunk_t *next = chunk->next;
        chunk->next = NULL;
        cake__chunk_unref(chunk);
        chunk = next;
    }
}

/* ---- bodies ---- */

void cake__body_append(cake__body_t *body, cake__chunk_t *list)
{
    CAKE_ASSERT(!body->is_ended);
    while (list != NULL) {
        cake__chunk_t *next = list->next;
        list->next = NULL;
        if (body->tail == NULL)
            body->head = list;
        else
            body->tail->next = list;
        body->tail = list;
        body->pending += list->len;
        list = next;
    }
}

void cake__body_clear(cake__body_t *body)
{
    cake__chunk_unref_list(body->head);
    *body = (cake__body_t){.is_ended = body->is_ended};
}

/* ---- batches ---- */

static void add_slice(cake__batch_t *batch, const void *data, size_t len, cake__block_t *block, cake__chunk_t *chunk)
{
    CAKE_ASSERT(batch->count < CAKE_STREAM_IOV_MAX);
    batch->iov[batch->count] = cake__slice(data, len);
    batch->blocks[batch->count] = block;
    batch->chunks[batch->count] = chunk;
    batch->count++;
    batch->bytes += len;
}

uint8_t *cake__batch_room(cake__batch_t *batch, size_t len)
{
    cake__block_t *tail = batch->tail;
    CAKE_ASSERT(len <= CAKE__BLOCK_BYTES);
    if (tail == NULL || CAKE__BLOCK_BYTES - tail->len < len) {
        cake__block_t *fresh = cake__block_get(batch->pool);
        if (fresh == NULL)
            return NULL;
        if (tail != NULL)
            cake__block_unref(tail);
        batch->tail = tail = fresh;
    }
    uint8_t *to = tail->data + tail->len;
    tail->len += len;
    if (batch->count > 0 && batch->blocks[batch->count - 1] == tail) { /* behind the last slice, which grows */
        batch->iov[batch->count - 1].len += len;
        batch->bytes += len;
    } else {
        add_slice(batch, to, len, cake__block_ref(tail), NULL);
    }
    return to;
}

int cake__batch_copy(cake__batch_t *batch, const void *data, size_t len)
{
    const uint8_t *from = data;
    while (len > 0) {
        size_t left = batch->tail == NULL ? 0 : CAKE__BLOCK_BYTES - batch->tail->len;
        size_t step = cake__min_u64(len, left > 0 ? left : CAKE__BLOCK_BYTES);
        uint8_t *to = cake__batch_room(batch, step);
        if (to == NULL)
            return CAKE_ENOMEM;
        memcpy(to, from, step);
        from += step;
        len -= step;
    }
    return 0;
}

int cake__batch_take(cake__batch_t *batch, cake__body_t *body, size_t len)
{
    CAKE_ASSERT(len <= body->pending);
    batch->body_bytes += len;
    while (len > 0) {
        cake__chunk_t *chunk = body->head;
        size_t step = cake__min_u64(len, chunk->len - body->offset);
        const uint8_t *from = chunk->data + body->offset;
        if (step >= CAKE__COPY_BELOW && batch->count < CAKE_STREAM_IOV_MAX - 4) {
            chunk->refs++;
            add_slice(batch, from, step, NULL, chunk);
        } else if (step > 0) {
            int err = cake__batch_copy(batch, from, step);
            if (err != 0)
                return err;
        }
        len -= step;
        body->offset += step;
        body->pending -= step;
        if (body->offset == chunk->len) {
            body->head = chunk->next;
            body->tail = body->head == NULL ? NULL : body->tail;
            body->offset = 0;
            chunk->next = NULL;
            cake__chunk_unref(chunk);
        }
    }
    return 0;
}

void cake__batch_clear(cake__batch_t *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        if (batch->blocks[i] != NULL)
            cake__block_unref(batch->blocks[i]);
        cake__chunk_unref(batch->chunks[i]);
    }
    if (batch->tail != NULL)
        cake__block_unref(batch->tail);
    batch->tail = NULL;
    batch->count = batch->bytes = batch->body_bytes = 0;
}
