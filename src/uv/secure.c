/* Streams with TLS: what lies between the socket's bytes and the application's.
 *
 *   out: the application's write -> rest (slices not yet encrypted) -> records -> socket; what the socket does not take
 *        waits in pending, and nothing more is encrypted meanwhile: one slow reader holds at most one step's records
 *   in:  socket -> records -> the application, as long as it reads; the socket is not read while it does not, nor
 *        before what was read is decrypted
 *
 * All of it lies in buffers of the loop's pool: an idle connection has none. */
#include "uv/stream.h"

#include "env/env.h"

struct cake__secure {
    cake__tls_t *tls;
    cake_stream_t *stream;
    cake__later_t deliver;
    uv_buf_t *rest; /* while the write is under way: the writer's, or a copy of ours once it waits for the socket */
    unsigned rest_at, rest_count;
    bool is_rest_ours;
    uint8_t *pending;
    cake_timer_t linger;
    bool is_client, is_ready, is_sending, wants_shutdown, is_shutdown_sent, has_failed, has_ended, is_gone;
};

#define LINGER_MS 500u

static void advance(cake_stream_t *stream);

static void drop_rest(cake_stream_t *stream)
{
    if (stream->secure->is_rest_ours)
        cake__free(&stream->env->base.alloc, stream->secure->rest);
    stream->secure->rest = NULL;
    stream->secure->is_rest_ours = false;
}

static bool is_full(const cake__secure_t *secure)
{
    return secure->is_ready && cake__tls_has_input(secure->tls);
}

static void deliver_later(cake__later_t *later)
{
    advance(CAKE_CONTAINER_OF(later, cake__secure_t, deliver)->stream);
}

static void linger_over(void *arg)
{
    cake__uv_close_now(arg);
}

int cake__uv_stream_secure(cake_stream_t *stream, cake_tls_t *context)
{
    cake__uv_check_on_loop(stream->env);
    CAKE_ASSERT(stream->secure == NULL && stream->is_started != stream->is_connected);
    cake__secure_t *secure = cake__calloc(&stream->env->base.alloc, 1, sizeof *secure);
    if (secure == NULL)
        return CAKE_ENOMEM;
    secure->is_client = !stream->is_connected;
    int err = cake__tls_new(context, !secure->is_client, &stream->env->tls_pool, &secure->tls);
    if (err != 0) {
        cake__free(&stream->env->base.alloc, secure);
        return err;
    }
    secure->stream = stream;
    cake__uv_later_init(&secure->deliver, deliver_later);
    secure->linger = CAKE_TIMER_INIT(linger_over, stream);
    stream->secure = secure;
    return 0;
}

void cake__secure_free(cake_stream_t *stream)
{
    cake__secure_t *secure = stream->secure;
    if (secure == NULL)
        return;
    cake__list_remove(&secure->deliver.node);
    cake__uv_timer_cancel(&stream->env->base, &secure->linger);
    cake__tls_free(secure->tls);
    cake__tls_give(&stream->env->tls_pool, secure->pending);
    drop_rest(stream);
    cake__free(&stream->env->base.alloc, secure);
}

const char *cake__uv_stream_reason(cake_stream_t *stream)
{
    return stream->secure != NULL ? cake__tls_reason(stream->secure->tls) : NULL;
}

bool cake__secure_wants_bytes(const cake_stream_t *stream)
{
    return !stream->secure->is_ready && !stream->secure->has_failed;
}

uv_buf_t cake__secure_buffer(cake_stream_t *stream)
{
    bool is_wanted = !is_full(stream->secure) || stream->is_closing;
    uint8_t *buffer = is_wanted ? cake__tls_buffer(&stream->env->tls_pool) : NULL;
    return uv_buf_init((char *)buffer, buffer != NULL ? CAKE__TLS_INPUT_BYTES : 0);
}

/* ---- out ---- */

static void flush(cake_stream_t *stream);

static void end_rest(cake_stream_t *stream, int err)
{
    stream->secure->rest_at = stream->secure->rest_count = 0;
    drop_rest(stream);
    if (!stream->is_writing || cake__list_is_linked(&stream->written.node))
        return;
    stream->write_err = err;
    cake__uv_later(stream->env, &stream->written);
}

static void on_sent(uv_write_t *request, int status)
{
    cake_stream_t *stream = request->data;
    cake__secure_t *secure = stream->secure;
    if (stream->is_closing)
        return;
    cake__tls_give(&stream->env->tls_pool, secure->pending);
    secure->pending = NULL;
    secure->is_sending = false;
    if (status != 0)
        end_rest(stream, cake__uv_err(status));
    else
        flush(stream);
}

/* The records, or what the socket takes of them at once; the rest by libuv. */
static int send_records(cake_stream_t *stream, cake_slice_t records)
{
    cake__secure_t *secure = stream->secure;
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)records.data, (unsigned)records.len);
    intptr_t sent = cake__uv_send(stream, &buf, 1);
    if (sent < 0)
        return cake__uv_err((int)sent);
    size_t taken = (size_t)sent;
    if (taken == records.len) {
        cake__tls_sent(secure->tls);
        return 0;
    }
    secure->pending = cake__tls_take(secure->tls);
    buf.base += taken;
    buf.len -= taken;
    stream->write.data = stream;
    int err = uv_write(&stream->write, (uv_stream_t *)&stream->tcp, &buf, 1, on_sent);
    secure->is_sending = err == 0;
    return cake__uv_err(err);
}

static int encrypt_some(cake__secure_t *secure)
{
    size_t done = 0;
    while (secure->rest_at < secure->rest_count && done < CAKE__TLS_WRITE_MAX) {
        uv_buf_t *buf = &secure->rest[secure->rest_at];
        size_t step = cake__min_u64(buf->len, CAKE__TLS_WRITE_MAX - done);
        int err = cake__tls_write(secure->tls, buf->base, step);
        if (err != 0)
            return err;
        buf->base += step;
        buf->len -= step;
        done += step;
        if (buf->len == 0)
            secure->rest_at++;
    }
    return 0;
}

static void on_shut(uv_shutdown_t *request, int status)
{
    (void)request;
    (void)status;
}

static void flush(cake_stream_t *stream)
{
    cake__secure_t *secure = stream->secure;
    int err = 0;
    while (err == 0 && !secure->is_sending && !stream->is_closing) {
        cake_slice_t records = cake__tls_output(secure->tls);
        if (records.len > 0)
            err = send_records(stream, records);
        else if (secure->is_ready && secure->rest_at < secure->rest_count)
            err = encrypt_some(secure);
        else
            break;
    }
    if (err == 0 && (secure->is_sending || stream->is_closing))
        return;
    if (err != 0 || secure->is_ready)
        end_rest(stream, err);
    if (secure->wants_shutdown && !secure->is_shutdown_sent) {
        secure->is_shutdown_sent = true;
        if (secure->is_ready)
            cake__tls_shut(secure->tls);
        flush(stream);
        uv_shutdown(&stream->shutdown, (uv_stream_t *)&stream->tcp, on_shut);
    }
}

void cake__secure_write(cake_stream_t *stream, uv_buf_t *bufs, unsigned count)
{
    cake__secure_t *secure = stream->secure;
    secure->rest = bufs;
    secure->rest_at = 0;
    secure->rest_count = count;
    flush(stream);
    unsigned left = secure->rest_count - secure->rest_at; /* the socket takes no more for now */
    secure->rest = NULL;
    secure->rest_at = secure->rest_count = 0;
    if (left == 0)
        return;
    secure->rest = cake__malloc(&stream->env->base.alloc, left * sizeof bufs[0]);
    if (secure->rest == NULL) {
        end_rest(stream, CAKE_ENOMEM);
        return;
    }
    memcpy(secure->rest, bufs + count - left, left * sizeof bufs[0]);
    secure->rest_count = left;
    secure->is_rest_ours = true;
}

void cake__secure_shutdown(cake_stream_t *stream)
{
    stream->secure->wants_shutdown = true;
    flush(stream);
}

/* ---- in ---- */

static void fail(cake_stream_t *stream, int err)
{
    cake__secure_t *secure = stream->secure;
    if (secure->has_failed)
        return;
    secure->has_failed = true;
    stream->is_read_over = true;
    uv_read_stop((uv_stream_t *)&stream->tcp);
    flush(stream); /* an alert tells the peer */
    if (secure->is_client && !secure->is_ready)
        stream->handlers.on_connect(stream->arg, err == CAKE_ENOMEM ? err : CAKE_ECONNECTION);
    else if (stream->is_started)
        stream->handlers.on_read(stream->arg, NULL, err == CAKE_ENOMEM ? err : CAKE_ECONNECTION);
}

static void shake_hands(cake_stream_t *stream)
{
    cake__secure_t *secure = stream->secure;
    int err = cake__tls_handshake(secure->tls);
    if (err == CAKE_EBUSY) {
        flush(stream);
    } else if (err != 0) {
        fail(stream, err);
    } else {
        secure->is_ready = true;
        flush(stream);
        if (secure->is_client && !stream->is_closing)
            stream->handlers.on_connect(stream->arg, 0);
    }
}

static void hand_over(cake_stream_t *stream)
{
    cake__secure_t *secure = stream->secure;
    while (!stream->is_closing && !stream->is_paused && cake__tls_has_input(secure->tls)) {
        void *data = NULL;
        size_t size = 0;
        stream->handlers.on_buffer(stream->arg, &data, &size);
        if (stream->is_closing)
            return;
        if (size == 0) {
            stream->is_paused = true;
            break;
        }
        intptr_t got = cake__tls_read(secure->tls, data, size);
        if (got == CAKE_EBUSY)
            break;
        if (got < 0) {
            fail(stream, (int)got);
            return;
        }
        if (got == 0)
            secure->has_ended = stream->is_read_over = true;
        stream->handlers.on_read(stream->arg, got == 0 ? NULL : data, got);
        if (got == 0)
            break;
    }
    if (stream->is_closing)
        return;
    if (stream->is_read_over)
        uv_read_stop((uv_stream_t *)&stream->tcp);
    else if (!is_full(secure))
        cake__uv_start_reading(stream);
}

static void advance(cake_stream_t *stream)
{
    cake__secure_t *secure = stream->secure;
    if (!secure->is_ready && !secure->has_failed)
        shake_hands(stream);
    if (stream->is_closing || !secure->is_ready || secure->has_failed || secure->has_ended)
        return;
    hand_over(stream);
    if (!stream->is_closing)
        flush(stream); /* an answer to a change of keys */
}

/* A server that refuses a client goes on reading for a moment: closing with bytes unread would reset the connection,
 * and the alert that names the reason could be lost. */
bool cake__secure_lingers(cake_stream_t *stream)
{
    cake__secure_t *secure = stream->secure;
    cake__list_remove(&secure->deliver.node);
    if (!secure->has_failed || secure->is_client || secure->is_gone || secure->is_sending)
        return false;
    if (!secure->is_shutdown_sent && uv_shutdown(&stream->shutdown, (uv_stream_t *)&stream->tcp, on_shut) != 0)
        return false;
    cake__uv_read(stream);
    cake__timer_arm_ms(&stream->env->base, &secure->linger, LINGER_MS);
    return true;
}

void cake__secure_start(cake_stream_t *stream)
{
    advance(stream);
}

void cake__secure_deliver(cake_stream_t *stream)
{
    cake__secure_t *secure = stream->secure;
    if (secure->is_ready && cake__tls_has_input(secure->tls) && !cake__list_is_linked(&secure->deliver.node))
        cake__uv_later(stream->env, &secure->deliver);
}

void cake__secure_got(cake_stream_t *stream, void *data, ssize_t count)
{
    cake__secure_t *secure = stream->secure;
    if (count <= 0 || stream->is_closing)
        cake__tls_give(&stream->env->tls_pool, data);
    if (stream->is_closing && count < 0)
        cake__uv_close_now(stream); /* it lingered for this */
    if (stream->is_closing || count == 0)
        return;
    if (count > 0) {
        int err = cake__tls_feed(secure->tls, data, (size_t)count);
        if (err != 0)
            fail(stream, err);
        else
            advance(stream);
        if (!cake__tls_keep(secure->tls, data))
            cake__tls_give(&stream->env->tls_pool, data);
        return;
    }
    if (count == UV_ENOBUFS &&
        is_full(secure)) { /* who wants no more mostly does again before the loop sleeps, and is asked once more */
        uv_read_stop((uv_stream_t *)&stream->tcp);
        return;
    }
    secure->is_gone = true;
    if (!secure->is_ready)
        cake__tls_fail(secure->tls, "TLS: the peer closed the connection before it was secured");
    fail(stream, count == UV_ENOBUFS ? CAKE_ENOMEM : CAKE_ECONNECTION); /* without a goodbye: it may have been cut */
}
