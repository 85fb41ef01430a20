/* send.c: what a session sends: commands become frames, bodies go out in turns as far as the windows reach. */
#include "rpc/h2/state.h"

/* ---- frames into control ---- */

static void write_head(uint8_t *to, size_t len, uint8_t type, uint8_t flags, int32_t id)
{
    to[0] = (uint8_t)(len >> 16);
    to[1] = (uint8_t)(len >> 8);
    to[2] = (uint8_t)len;
    to[3] = type;
    to[4] = flags;
    cake__h2_store_u32(to + 5, (uint32_t)id);
}

uint8_t *cake__h2_put_frame(cake__h2_t *h2, uint8_t type, uint8_t flags, int32_t id, size_t len)
{
    uint8_t *to = cake__buf_extend(&h2->control, CAKE__H2_HEAD_BYTES + len);
    if (to == NULL) {
        cake__h2_set_err(h2, CAKE_ENOMEM);
        return NULL;
    }
    write_head(to, len, type, flags, id);
    return to + CAKE__H2_HEAD_BYTES;
}

void cake__h2_put_u32_frame(cake__h2_t *h2, uint8_t type, int32_t id, uint32_t value)
{
    uint8_t *to = cake__h2_put_frame(h2, type, 0, id, 4);
    if (to != NULL)
        cake__h2_store_u32(to, value);
}

void cake__h2_asked(cake__h2_t *h2, size_t len)
{
    h2->control_asked += len;
    if (h2->control_asked > CAKE__H2_CONTROL_MAX)
        cake__h2_fail(h2, CAKE_EBUSY, NGHTTP2_ENHANCE_YOUR_CALM);
}

/* A block longer than the peer takes in one frame goes on in CONTINUATION: each piece moves up by the heads before
 * it. */
static void split_block(cake__h2_t *h2, size_t at, size_t block_len, int32_t id, uint8_t flags)
{
    size_t most = h2->peer_frame_max, pieces = (block_len + most - 1) / most;
    uint8_t *data = h2->control.data + at;
    for (size_t i = pieces; i-- > 0;) {
        size_t len = i + 1 == pieces ? block_len - i * most : most;
        uint8_t *to = data + i * (most + CAKE__H2_HEAD_BYTES);
        uint8_t piece_flags = i == 0 ? flags & (uint8_t)~NGHTTP2_FLAG_END_HEADERS : 0;
        if (i + 1 == pieces)
            piece_flags |= NGHTTP2_FLAG_END_HEADERS;
        memmove(to + CAKE__H2_HEAD_BYTES, data + CAKE__H2_HEAD_BYTES + i * most, len);
        write_head(to, len, i == 0 ? NGHTTP2_HEADERS : NGHTTP2_CONTINUATION, piece_flags, id);
    }
    h2->control.len = at + block_len + pieces * CAKE__H2_HEAD_BYTES;
}

int cake__h2_put_headers(cake__h2_t *h2, int32_t id, const cake__h2_header_t *headers, size_t count, bool is_end)
{
    size_t at = h2->control.len, most = cake__deflate_most(headers, count);
    size_t heads = (most / h2->peer_frame_max + 1) * CAKE__H2_HEAD_BYTES;
    if (!cake__buf_reserve(&h2->control, most + heads)) {
        cake__h2_set_err(h2, CAKE_ENOMEM);
        return CAKE_ENOMEM;
    }
    uint8_t *to = h2->control.data + at, flags = NGHTTP2_FLAG_END_HEADERS | (is_end ? NGHTTP2_FLAG_END_STREAM : 0);
    intptr_t written = cake__deflate_write(&h2->deflate, headers, count, to + CAKE__H2_HEAD_BYTES);
    if (written < 0) {
        cake__h2_set_err(h2, CAKE_ENOMEM);
        return CAKE_ENOMEM;
    }
    size_t len = (size_t)written;
    CAKE_ASSERT(len <= most);
    h2->control.len += CAKE__H2_HEAD_BYTES + len;
    if (len <= h2->peer_frame_max)
        write_head(to, len, NGHTTP2_HEADERS, flags, id);
    else
        split_block(h2, at, len, id, flags);
    return 0;
}

/* ---- commands ---- */

void cake__h2_wants_turn(cake__h2_t *h2, cake__h2_stream_t *stream)
{
    if (!cake__list_is_linked(&stream->turn) && stream->is_begun && !stream->is_local_ended && !stream->is_reset)
        cake__list_push_back(&h2->sending, &stream->turn);
}

static bool is_all_headers(const cake__h2_stream_t *stream)
{
    return stream->out.is_ended && stream->out.pending == 0 && stream->trailer_count == 0;
}

static int begin(cake__h2_t *h2, cake__h2_stream_t *stream, const cake__h2_header_t *headers, size_t count)
{
    int err = cake__h2_put_headers(h2, stream->id, headers, count, is_all_headers(stream));
    if (err != 0)
        return err;
    stream->is_begun = true;
    stream->is_end_in_head = is_all_headers(stream);
    if (stream->out.pending > 0 || stream->out.is_ended)
        cake__h2_wants_turn(h2, stream);
    return 0;
}

int cake__h2_request(cake__h2_t *h2, cake__h2_stream_t *stream, const cake__h2_header_t *headers, size_t count)
{
    CAKE_ASSERT(!h2->config.is_server && stream->id == 0);
    if (!cake__h2_takes_requests(h2))
        return CAKE_ECLOSED;
    int err = cake__h2_add(h2, stream, h2->next_id);
    if (err != 0)
        return err;
    err = begin(h2, stream, headers, count);
    if (err != 0) { /* the owner hears it from here, and only from here */
        cake__h2_forget(h2, stream);
        return err;
    }
    h2->next_id += 2;
    return 0;
}

int cake__h2_respond(cake__h2_t *h2, cake__h2_stream_t *stream, const cake__h2_header_t *headers, size_t count)
{
    CAKE_ASSERT(h2->config.is_server && stream->id != 0);
    if (stream->is_reset || stream->is_begun)
        return CAKE_ECLOSED;
    return begin(h2, stream, headers, count);
}

void cake__h2_resume(cake__h2_t *h2, cake__h2_stream_t *stream)
{
    cake__h2_wants_turn(h2, stream);
}

static void put_reset(cake__h2_t *h2, cake__h2_stream_t *stream, uint32_t code)
{
    cake__h2_put_u32_frame(h2, NGHTTP2_RST_STREAM, stream->id, code);
}

void cake__h2_reset(cake__h2_t *h2, cake__h2_stream_t *stream)
{
    if (stream->is_reset)
        return;
    stream->is_reset = true;
    put_reset(h2, stream, NGHTTP2_CANCEL);
    cake__list_remove(&stream->turn);
    cake__list_push_back(&h2->closing, &stream->turn);
}

void cake__h2_consume(cake__h2_t *h2, cake__h2_stream_t *stream, size_t len)
{
    size_t received = CAKE__H2_STREAM_WINDOW - (uint32_t)stream->receive_left - stream->consumed;
    stream->consumed += (uint32_t)cake__min_u64(len, received);
    if (stream->consumed < CAKE__H2_STREAM_WINDOW / 2 || stream->is_remote_ended || stream->is_reset)
        return;
    cake__h2_put_u32_frame(h2, NGHTTP2_WINDOW_UPDATE, stream->id, stream->consumed);
    stream->receive_left += (int32_t)stream->consumed;
    stream->consumed = 0;
}

void cake__h2_ping(cake__h2_t *h2)
{
    uint8_t *to = cake__h2_put_frame(h2, NGHTTP2_PING, 0, 0, 8);
    if (to != NULL)
        memset(to, 0, 8);
}

static void put_goaway(cake__h2_t *h2, uint32_t code)
{
    uint8_t *to = cake__h2_put_frame(h2, NGHTTP2_GOAWAY, 0, 0, 8);
    if (to == NULL)
        return;
    cake__h2_store_u32(to, (uint32_t)h2->last_id);
    cake__h2_store_u32(to + 4, code);
}

void cake__h2_goaway(cake__h2_t *h2)
{
    if (h2->is_terminated || h2->is_goaway_sent)
        return;
    h2->is_goaway_sent = true;
    h2->goaway_id = h2->last_id;
    put_goaway(h2, NGHTTP2_NO_ERROR);
}

void cake__h2_fail(cake__h2_t *h2, int err, uint32_t code)
{
    cake__h2_set_err(h2, err);
    if (h2->is_terminated)
        return;
    h2->is_terminated = true;
    put_goaway(h2, code);
}

/* ---- out ---- */

static int drain_control(cake__h2_t *h2, cake__batch_t *batch)
{
    size_t left = h2->control.len - h2->control_at;
    size_t step = cake__min_u64(left, 6 * (size_t)CAKE__BLOCK_BYTES); /* a slice each: as many as there is room for */
    if (left == 0)
        return 0;
    int err = cake__batch_copy(batch, h2->control.data + h2->control_at, step);
    if (err != 0)
        return err;
    h2->control_at += step;
    if (h2->control_at < h2->control.len)
        return 0;
    h2->control_at = h2->control.len = h2->control_asked = 0;
    if (h2->control.capacity > CAKE__H2_CONTROL_KEPT)
        cake__buf_free(&h2->control);
    return 0;
}

static void local_ended(cake__h2_t *h2, cake__h2_stream_t *stream)
{
    stream->is_local_ended = true;
    if (stream->stop_after_reply && !stream->is_remote_ended)
        put_reset(h2, stream, NGHTTP2_NO_ERROR);
    else if (!stream->is_remote_ended)
        return;
    cake__h2_close_stream(h2, stream, CAKE__H2_DONE);
}

/* A long body goes on where it was, so that one after another is whole, and read while it is in the cache: not all
 * of them at the end. After so much of it the next one comes. */
static void take_turn_again(cake__h2_t *h2, cake__h2_stream_t *stream, size_t len)
{
    stream->turn_bytes += (uint32_t)len;
    if (stream->turn_bytes < CAKE__H2_TURN_BYTES) {
        cake__list_push_front(&h2->bulk, &stream->turn);
        return;
    }
    stream->turn_bytes = 0;
    cake__list_push_back(&h2->bulk, &stream->turn);
}

/* Bodies of one frame take turns with a frame of the long ones. */
static cake__h2_stream_t *next_in_turn(cake__h2_t *h2)
{
    bool is_bulk = cake__list_is_empty(&h2->sending) || (h2->is_bulk_next && !cake__list_is_empty(&h2->bulk));
    cake__list_t *list = is_bulk ? &h2->bulk : &h2->sending;
    h2->is_bulk_next = !is_bulk;
    return CAKE_CONTAINER_OF(list->next, cake__h2_stream_t, turn);
}

static bool has_bodies(const cake__h2_t *h2)
{
    return (!cake__list_is_empty(&h2->sending) || !cake__list_is_empty(&h2->bulk)) && !h2->is_terminated;
}

/* One DATA frame, or the trailers, or the end. The stream comes in turn again as long as there is more. */
static int send_some(cake__h2_t *h2, cake__h2_stream_t *stream, cake__batch_t *batch)
{
    cake__body_t *body = &stream->out;
    int64_t window = stream->send_left < h2->send_left ? stream->send_left : h2->send_left;
    size_t most =
        window > 0 ? cake__min_u64(cake__min_u64(h2->peer_frame_max, CAKE__H2_FRAME_MAX), (uint64_t)window) : 0;
    size_t len = cake__min_u64(body->pending, most);
    bool is_end = body->is_ended && len == body->pending, has_trailers = stream->trailer_count > 0;
    cake__list_remove(&stream->turn);
    if (len == 0 && !is_end) { /* resume, or a window's update, brings it back */
        if (body->pending > 0 && h2->send_left <= 0)
            cake__list_push_back(&h2->blocked, &stream->turn);
        return 0;
    }
    if (len > 0 || (!has_trailers && !stream->is_end_in_head)) {
        uint8_t *head = cake__batch_room(batch, CAKE__H2_HEAD_BYTES);
        if (head == NULL)
            return CAKE_ENOMEM;
        write_head(head, len, NGHTTP2_DATA, is_end && !has_trailers ? NGHTTP2_FLAG_END_STREAM : 0, stream->id);
        int err = cake__batch_take(batch, body, len);
        if (err != 0)
            return err;
        stream->send_left -= (int64_t)len;
        h2->send_left -= (int64_t)len;
    }
    if (is_end && has_trailers)
        (void)cake__h2_put_headers(h2, stream->id, stream->trailers, stream->trailer_count, true);
    if (is_end) {
        local_ended(h2, stream);
        return 0;
    }
    if (body->pending > 0)
        take_turn_again(h2, stream, len);
    if (!body->is_ended && h2->config.events->on_sent != NULL)
        h2->config.events->on_sent(h2->config.arg, stream);
    return 0;
}

int cake__h2_pull(cake__h2_t *h2, cake__batch_t *batch)
{
    CAKE_ASSERT(!h2->is_receiving && !h2->is_pulling);
    int err = 0;
    if (h2->err == CAKE_ENOMEM)
        return h2->err;
    h2->is_pulling = true;
    while (!cake__list_is_empty(&h2->closing))
        cake__h2_close_stream(h2, CAKE_CONTAINER_OF(h2->closing.next, cake__h2_stream_t, turn), CAKE__H2_RESET);
    while (err == 0 && cake__batch_has_room(batch)) {
        if (h2->control_at < h2->control.len)
            err = drain_control(h2, batch);
        else if (has_bodies(h2))
            err = send_some(h2, next_in_turn(h2), batch);
        else
            break;
    }
    h2->is_pulling = false;
    if (h2->stream_count == 0 && h2->control.len == 0) { /* idle */
        cake__buf_free(&h2->control);
        cake__deflate_rest(&h2->deflate);
    }
    return err != 0 ? err : h2->err == CAKE_ENOMEM ? h2->err : 0;
}

bool cake__h2_has_output(const cake__h2_t *h2)
{
    return h2->control_at < h2->control.len || !cake__list_is_empty(&h2->closing) || has_bodies(h2);
}
