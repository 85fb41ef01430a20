/* call.c: the calls that a channel makes, from any thread to the last callback. */
#include "rpc/channel.h"

static cake_call_t *call_of(cake__h2_stream_t *stream)
{
    return CAKE_CONTAINER_OF(stream, cake_call_t, stream);
}

static uint64_t deadline_of(const cake__heap_node_t *node)
{
    const void *call = (const char *)node - offsetof(cake_call_t, heap);
    return ((const cake_call_t *)call)->deadline_ns;
}

bool cake__call_is_before(const cake__heap_node_t *a, const cake__heap_node_t *b)
{
    return deadline_of(a) < deadline_of(b);
}

/* ---- create and destroy ---- */

static void unref(cake_call_t *call)
{
    if (atomic_fetch_sub(&call->refs, 1) > 1)
        return;
    cake_alloc_t alloc = call->alloc;
    CAKE_ASSERT(call->conn == NULL && call->stream.out.head == NULL && call->request == NULL);
    cake__buf_free(&call->headers.buf);
    cake__buf_free(&call->reply_headers.buf);
    cake__buf_free(&call->gathered);
    cake__free(&alloc, call->message);
    cake__free(&alloc, call);
}

static bool is_path(const char *path, size_t len)
{
    if (len < 2 || len > CAKE__PATH_MAX || path[0] != '/')
        return false;
    for (size_t i = 0; i < len; i++) {
        if (path[i] <= 0x20 || path[i] > 0x7e)
            return false;
    }
    return true;
}

static int add_headers(cake_call_t *call, const cake_call_options_t *options)
{
    for (size_t i = 0; i < options->header_count; i++) {
        const cake_header_t *header = &options->headers[i];
        int err = cake__headers_check(header->name, header->value);
        if (err == 0)
            err = cake__headers_add(&call->headers, cake__slice_str(header->name), cake__slice_str(header->value));
        if (err != 0)
            return err;
    }
    return 0;
}

static int make(cake_channel_t *channel, const char *path, const cake_call_options_t *given, cake_call_t **out)
{
    cake_env_t *env = channel->env;
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    size_t path_len = path == NULL ? 0 : strnlen(path, CAKE__PATH_MAX + 1);
    *out = NULL;
    if (path == NULL || !is_path(path, path_len) ||
        (given != NULL && cake__options_copy(&options, sizeof options, given) != 0))
        return CAKE_EINVAL;
    cake_call_t *call = cake__malloc(&env->alloc, sizeof *call + path_len + 1);
    if (call == NULL)
        return CAKE_ENOMEM;
    memset(call, 0, offsetof(cake_call_t, events));
    memcpy(call->tail, path, path_len + 1);
    call->path = cake__slice(call->tail, path_len);
    call->channel = channel;
    call->env = env;
    call->alloc = env->alloc;
    atomic_init(&call->refs, 1);
    atomic_init(&call->is_over, false);
    atomic_init(&call->is_cancel_posted, false);
    call->timeout_ms = options.timeout_ms != 0 ? options.timeout_ms : channel->timeout_ms;
    call->content_length = UINT64_MAX;
    cake__list_init(&call->link);
    cake__list_init(&call->wait_link);
    cake__buf_init(&call->headers.buf, &call->alloc);
    cake__buf_init(&call->reply_headers.buf, &call->alloc);
    cake__buf_init(&call->gathered, &call->alloc);
    call->headers.buf.max = channel->kind.limits.max_header_bytes / 2;
    call->gathered.max = channel->kind.limits.max_body_bytes;
    int err = add_headers(call, &options);
    if (err != 0)
        unref(call);
    else
        *out = call;
    return err;
}

/* ---- the end of a call ---- */

void cake__call_over(cake_call_t *call, int err, const char *message)
{
    cake_channel_t *channel = call->channel;
    if (call->state == CAKE__CALL_OVER)
        return;
    if (call->state == CAKE__CALL_WAITING) {
        cake__list_remove(&call->wait_link);
        channel->waiting_count--;
    }
    if (call->is_in_heap)
        cake__heap_remove(&channel->deadlines, &call->heap);
    call->is_in_heap = false;
    call->state = CAKE__CALL_OVER;
    call->err = err;
    if (message != NULL && call->message == NULL)
        call->message = cake__strdup(&call->alloc, message); /* without memory: the code's text */
    cake__chunk_unref(call->request);
    call->request = NULL;
    if (call->is_streaming)
        channel->env->ops->defer_cancel(channel->env, &call->writable);
    if (call->conn != NULL && !call->stream.is_remote_ended && !call->conn->is_dead) {
        cake__h2_reset(call->conn->h2, &call->stream);
        cake__conn_kick(call->conn);
    }
    if (call->conn == NULL) {
        call->stream.out.is_ended = true;
        cake__body_clear(&call->stream.out);
    }
    atomic_store(&call->is_over, true);
    cake__list_remove(&call->link);
    cake__list_push_back(&channel->ended, &call->link);
    channel->env->ops->defer(channel->env, &channel->tell);
}

void cake__call_tell(cake_call_t *call)
{
    CAKE_ASSERT(call->state == CAKE__CALL_OVER);
    call->done(CAKE_CONTAINER_OF(call, cake_reply_t, call), call->arg); /* our reference is the reply's now */
}

/* ---- begin ---- */

static void tell_writable(void *arg)
{
    cake_call_t *call = arg;
    if (call->state != CAKE__CALL_OVER && !call->is_finished && call->events.on_writable != NULL)
        call->events.on_writable(call->arg);
}

void cake__call_start(void *arg)
{
    cake_call_t *call = arg;
    cake_channel_t *channel = call->channel;
    cake__list_push_back(&channel->calls, &call->link);
    if (channel->is_closing) {
        cake__call_over(call, CAKE_ECLOSED, NULL);
        return;
    }
    if (channel->waiting_count >= channel->max_waiting) {
        cake__call_over(call, CAKE_EBUSY, "too many calls wait for a connection");
        return;
    }
    uint64_t now_ns = cake__now_ns(channel->env);
    call->deadline_ns = CAKE_NEVER;
    if (call->timeout_ms < UINT64_MAX / CAKE_NS_PER_MS / 4) {
        call->deadline_ns = now_ns + call->timeout_ms * CAKE_NS_PER_MS;
        cake__channel_deadline(channel, call);
    }
    if (call->is_streaming)
        channel->env->ops->defer(channel->env, &call->writable);
    cake__channel_begin(channel, call, now_ns);
}

static void begin(cake_call_t *call, cake_call_t **handle)
{
    cake_env_t *env = call->env;
    if (handle != NULL) {
        atomic_fetch_add(&call->refs, 1);
        *handle = call;
    }
    if (env->ops->on_loop(env)) {
        cake__call_start(call);
        return;
    }
    call->post = (cake_post_t){.fn = cake__call_start, .arg = call};
    env->ops->post(env, &call->post);
}

/* released: of parts that stay where they are; NULL: they are copied. */
static int call_unary(cake_channel_t *channel, const char *path, const cake_slice_t *parts, size_t count,
                      const cake_call_options_t *options, cake_event_fn released, cake_reply_fn done, void *arg,
                      cake_call_t **handle)
{
    cake_call_t *call;
    size_t len = 0;
    if (handle != NULL)
        *handle = NULL;
    if (done == NULL)
        return CAKE_EINVAL;
    for (size_t i = 0; i < count; i++) {
        if (__builtin_add_overflow(len, parts[i].len, &len) || len > channel->kind.limits.max_body_bytes)
            return CAKE_ETOOBIG;
    }
    int err = make(channel, path, options, &call);
    if (err != 0)
        return err;
    /* it is freed on the loop in any case */
    const cake_env_t *env = channel->env;
    const cake_alloc_t *alloc = env->ops->on_loop(channel->env) ? &channel->kind.slab.alloc : &env->alloc;
    if (released != NULL)
        call->request = cake__chunk_borrow(alloc, parts, count, released, arg);
    else if (len > 0)
        call->request = cake__chunk_copy(alloc, parts, count);
    if (call->request == NULL && (released != NULL || len > 0)) {
        unref(call);
        return CAKE_ENOMEM;
    }
    call->done = done;
    call->arg = arg;
    begin(call, handle);
    return 0;
}

int cake_channel_call_async(cake_channel_t *channel, const char *path, const cake_slice_t *parts, size_t count,
                            const cake_call_options_t *options, cake_reply_fn done, void *arg, cake_call_t **handle)
{
    return call_unary(channel, path, parts, count, options, NULL, done, arg, handle);
}

int cake_channel_call_borrowed(cake_channel_t *channel, const char *path, const cake_slice_t *parts, size_t count,
                               const cake_call_options_t *options, cake_event_fn released, cake_reply_fn done,
                               void *arg, cake_call_t **handle)
{
    if (released == NULL)
        return CAKE_EINVAL;
    return call_unary(channel, path, parts, count, options, released, done, arg, handle);
}

int cake_channel_stream(cake_channel_t *channel, const char *path, const cake_call_options_t *options,
                        const cake_stream_events_t *events, cake_reply_fn done, void *arg, cake_call_t **handle)
{
    cake_call_t *call;
    *handle = NULL;
    if (done == NULL || events == NULL)
        return CAKE_EINVAL;
    int err = make(channel, path, options, &call);
    if (err != 0)
        return err;
    call->is_streaming = true;
    call->events = *events;
    call->writable = CAKE_DEFERRED_INIT(tell_writable, call);
    call->done = done;
    call->arg = arg;
    begin(call, handle);
    return 0;
}

typedef struct {
    cake_env_t *env;
    cake_gate_t gate;
    cake_reply_t *reply;
} waiter_t;

static void wake(cake_reply_t *reply, void *arg)
{
    waiter_t *waiter = arg;
    waiter->reply = reply;
    waiter->env->ops->gate_open(waiter->env, &waiter->gate);
}

int cake_channel_call(cake_channel_t *channel, const char *path, const void *data, size_t len,
                      const cake_call_options_t *given, cake_reply_t **reply)
{
    cake_env_t *env = channel->env;
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    waiter_t waiter = {.env = env};
    cake_slice_t part = cake__slice(data, len);
    if (reply != NULL)
        *reply = NULL;
    if (env->ops->on_loop(env))
        return CAKE_EDEADLK;
    if (given != NULL && cake__options_copy(&options, sizeof options, given) != 0)
        return CAKE_EINVAL;
    env->ops->gate_init(env, &waiter.gate);
    int err = cake_channel_call_async(channel, path, &part, 1, &options, wake, &waiter, NULL);
    if (err == 0) {
        env->ops->gate_wait(env, &waiter.gate);
        err = cake_reply_err(waiter.reply);
    }
    env->ops->gate_destroy(env, &waiter.gate);
    if (err != 0 && options.message != NULL && options.message_size > 0) {
        const char *message = waiter.reply != NULL ? cake_reply_message(waiter.reply) : cake_strerror(err);
        size_t size = strnlen(message, options.message_size - 1);
        memcpy(options.message, message, size);
        options.message[size] = '\0';
    }
    if (err == 0 && reply != NULL)
        *reply = waiter.reply;
    else
        cake_reply_free(waiter.reply);
    return err;
}

/* ---- the request ---- */

static size_t fill_headers(cake_call_t *call, uint64_t now_ns, cake__h2_header_t *headers)
{
    const cake_channel_t *channel = call->channel;
    size_t count = 0;
    headers[count++] = cake__header(CAKE__LITERAL(":method"), CAKE__LITERAL("POST"), false);
    headers[count++] = channel->kind.tls == NULL
                           ? cake__header(CAKE__LITERAL(":scheme"), CAKE__LITERAL("http"), false)
                           : cake__header(CAKE__LITERAL(":scheme"), CAKE__LITERAL("https"), false);
    headers[count++] = cake__header(CAKE__LITERAL(":authority"), cake__slice_str(channel->address), false);
    headers[count++] = cake__header(CAKE__LITERAL(":path"), call->path, false);
    if (channel->cluster_id != NULL)
        headers[count++] = cake__header(CAKE__NAME_CLUSTER, cake__slice_str(channel->cluster_id), false);
    if (call->deadline_ns != CAKE_NEVER) {
        /* the same text for each call as long as none had to wait: it has a place in the peer's table then */
        uint64_t left_ms = call->deadline_ns > now_ns ? (call->deadline_ns - now_ns) / CAKE_NS_PER_MS : 0;
        bool has_waited = call->timeout_ms - cake__min_u64(left_ms, call->timeout_ms) > call->timeout_ms / 16;
        cake_slice_t text = cake__decimal_write((int64_t)(has_waited ? left_ms : call->timeout_ms), call->timeout_text);
        headers[count++] = cake__header(CAKE__NAME_TIMEOUT, text, has_waited);
    }
    if (channel->hooks.stamp != NULL) {
        cake__hex_write(channel->hooks.stamp(channel->hooks.arg), call->clock_text);
        headers[count++] = cake__header(CAKE__NAME_CLOCK, cake__slice(call->clock_text, CAKE__HEX_BYTES), true);
    }
    size_t body_len = call->stream.out.pending;
    if (!call->is_streaming && body_len >= CAKE__COPY_BELOW) {
        cake_slice_t text = cake__decimal_write((int64_t)body_len, call->length_text);
        headers[count++] = cake__header(CAKE__LITERAL("content-length"), text, true);
    }
    return count + cake__headers_fill(&call->headers, headers + count);
}

void cake__call_submit(cake_call_t *call, cake__conn_t *conn, uint64_t now_ns)
{
    cake__h2_header_t headers[CAKE__HEADERS_MAX + 8];
    CAKE_ASSERT(call->state <= CAKE__CALL_WAITING && call->conn == NULL);
    if (call->state == CAKE__CALL_WAITING) {
        cake__list_remove(&call->wait_link);
        call->channel->waiting_count--;
    }
    call->state = CAKE__CALL_ACTIVE;
    call->attempts++;
    if (call->request != NULL) {
        cake__body_append(&call->stream.out, cake__chunk_list(call->request));
    }
    call->stream.out.is_ended = !call->is_streaming || call->is_finished;
    size_t count = fill_headers(call, now_ns, headers);
    int err = cake__h2_request(conn->h2, &call->stream, headers, count);
    if (err != 0) {
        call->stream.id = 0;
        cake__call_over(call, err == CAKE_ENOMEM ? err : CAKE_ECONNECTION, NULL);
        return;
    }
    call->conn = conn;
    conn->calls++;
    atomic_fetch_add(&call->refs, 1);
    cake__conn_kick(conn);
}

/* ---- the reply ---- */

static int err_of_status(int status)
{
    switch (status) {
    case 200:
        return 0;
    case 400:
        return CAKE_EINVAL;
    case 401:
    case 403:
        return CAKE_EUNAUTHENTICATED;
    case 404:
        return CAKE_EUNAVAILABLE;
    case 413:
        return CAKE_ETOOBIG;
    case 429:
    case 503:
        return CAKE_EBUSY;
    case 504:
        return CAKE_ETIMEDOUT;
    default:
        return CAKE_EINTERNAL;
    }
}

static int parse_err(cake_slice_t text)
{
    const char *at = text.data;
    uint64_t number = 0;
    bool is_code = text.len >= 2 && at[0] == '-' && cake__decimal_read(cake__slice(at + 1, text.len - 1), &number) &&
                   number >= 1 && number <= 65535;
    return is_code ? -(int)number : CAKE_EINTERNAL;
}

static void keep_message(cake_call_t *call, cake_slice_t text)
{
    size_t len = cake__min_u64(text.len, CAKE__MESSAGE_MAX);
    if (call->message != NULL || len == 0)
        return;
    call->message = cake__malloc(&call->alloc, len + 1);
    if (call->message == NULL)
        return;
    memcpy(call->message, text.data, len);
    call->message[len] = '\0';
}

static void on_header(void *arg, cake__h2_stream_t *stream, cake_slice_t name, cake_slice_t value)
{
    cake_call_t *call = call_of(stream);
    cake_channel_t *channel = call->channel;
    uint64_t number = 0;
    int err = 0;
    if (call->state == CAKE__CALL_OVER)
        return;
    if (cake__slice_equal(name, CAKE__LITERAL(":status"))) {
        call->status = cake__decimal_read(value, &number) && number < 1000 ? (int)number : 500;
    } else if (cake__slice_equal(name, CAKE__NAME_ERROR)) {
        call->remote_err = parse_err(value);
    } else if (cake__slice_equal(name, CAKE__NAME_MESSAGE)) {
        keep_message(call, value);
    } else if (cake__slice_equal(name, CAKE__NAME_CLOCK)) {
        err = cake__hex_read(value, &number) ? 0 : CAKE_EPARSE;
        if (err == 0 && channel->hooks.observe != NULL)
            err = channel->hooks.observe(channel->hooks.arg, number);
    } else if (cake__slice_equal(name, CAKE__LITERAL("content-length"))) {
        call->content_length = cake__decimal_read(value, &number) ? number : UINT64_MAX;
    } else if (!call->has_head) {
        err = cake__headers_add(&call->reply_headers, name, value);
    }
    if (err != 0)
        cake__call_over(call, err, NULL);
}

static void on_headers(void *arg, cake__h2_stream_t *stream)
{
    cake_call_t *call = call_of(stream);
    const cake_rpc_limits_t *limits = &((cake__conn_t *)arg)->kind->limits;
    if (call->state == CAKE__CALL_OVER)
        return;
    if (call->status >= 200)
        call->has_head = true;
    bool is_too_long = call->content_length != UINT64_MAX && call->content_length > limits->max_body_bytes;
    if (stream->header_bytes > limits->max_header_bytes)
        cake__call_over(call, CAKE_ETOOBIG, "the reply's headers are larger than the limit");
    else if (!call->is_streaming && is_too_long)
        cake__call_over(call, CAKE_ETOOBIG, "the reply's body is larger than the limit");
}

static void gather(cake_call_t *call, const uint8_t *data, size_t len)
{
    size_t total = call->body.len + len;
    cake__buf_t *buf = &call->gathered;
    if (buf->len > 0 && data == buf->data + buf->len && total <= buf->max) { /* it was read to there, see body_room */
        buf->len = total;
        call->body = cake__buf_slice(buf);
        return;
    }
    if (total <= CAKE__SMALL_REPLY) {
        memcpy(call->small + call->body.len, data, len);
        call->body = cake__slice(call->small, total);
        return;
    }
    if (total <= buf->max && buf->capacity == 0) {
        bool is_known = call->content_length != UINT64_MAX && call->content_length > total;
        if (is_known && call->content_length >= CAKE__SPARE_MIN)
            buf->alloc = cake__spare_alloc(call->channel->kind.spare);
        (void)cake__buf_reserve(buf, is_known ? cake__min_u64(call->content_length, CAKE__REPLY_FIRST) : total);
        cake__put_bytes(buf, call->small, call->body.len);
    }
    cake__put_bytes(buf, data, len);
    call->body = cake__buf_slice(buf);
    if (buf->err == CAKE_ETOOBIG)
        cake__call_over(call, CAKE_ETOOBIG, "the reply's body is larger than the limit");
    else if (buf->err != 0)
        cake__call_over(call, buf->err, NULL);
}

uint8_t *cake__call_body_room(cake__h2_stream_t *stream, size_t least, size_t *size)
{
    cake_call_t *call = call_of(stream);
    cake__buf_t *buf = &call->gathered;
    if (call->state == CAKE__CALL_OVER || buf->len == 0 || !cake__buf_reserve(buf, least))
        return NULL;
    call->body = cake__buf_slice(buf); /* it may have moved */
    *size = buf->capacity - buf->len;
    return buf->data + buf->len;
}

static void on_data(void *arg, cake__h2_stream_t *stream, const uint8_t *data, size_t len, bool is_whole)
{
    cake_call_t *call = call_of(stream);
    cake__conn_t *conn = arg;
    bool is_alive = call->state != CAKE__CALL_OVER;
    bool is_streamed = call->is_streaming && call->status == 200 && call->remote_err == 0;
    if (is_alive && is_streamed && call->events.on_data != NULL) {
        call->events.on_data(call->arg, cake__slice(data, len));
        return;
    }
    if (is_alive && !is_streamed)
        gather(call, data, len);
    cake__h2_consume(conn->h2, stream, len);
}

static void replied(cake_call_t *call)
{
    int err = call->remote_err != 0 ? call->remote_err : err_of_status(call->status);
    if (err != 0) {
        keep_message(call, call->body);
        call->body = cake__slice(NULL, 0);
    }
    cake__call_over(call, err, NULL);
}

static void on_end(void *arg, cake__h2_stream_t *stream)
{
    cake_call_t *call = call_of(stream);
    cake__conn_t *conn = arg;
    conn->messages++;
    if (call->state != CAKE__CALL_OVER)
        replied(call);
    if (!stream->is_local_ended) { /* answered before it was all said: the rest is of no use */
        cake__h2_reset(conn->h2, stream);
        cake__conn_kick(conn);
    }
}

static void refused(cake_call_t *call)
{
    bool may_repeat = !call->is_streaming && call->attempts < CAKE__ATTEMPTS_MAX && !call->channel->is_closing;
    if (!may_repeat) {
        cake__call_over(call, CAKE_EBUSY, "the peer refused the call");
        return;
    }
    call->stream = (cake__h2_stream_t){.id = 0};
    cake__channel_wait(call->channel, call, true);
}

static void on_closed(void *arg, cake__h2_stream_t *stream, cake__h2_reason_t reason)
{
    cake_call_t *call = call_of(stream);
    cake__conn_t *conn = arg;
    CAKE_ASSERT(call->conn == conn && conn->calls > 0);
    conn->calls--;
    call->conn = NULL;
    call->stream.out.is_ended = true;
    cake__body_clear(&call->stream.out);
    if (call->state != CAKE__CALL_OVER) {
        if (reason == CAKE__H2_REFUSED)
            refused(call);
        else if (reason == CAKE__H2_DONE && call->has_head)
            replied(call);
        else if (reason == CAKE__H2_LOST)
            cake__call_over(call, conn->err == CAKE_ENOMEM ? CAKE_ENOMEM : CAKE_ECONNECTION,
                            conn->why != NULL ? conn->why : "the connection was lost");
        else
            cake__call_over(call, CAKE_ECONNECTION, "the call was cut by the peer");
    }
    cake__channel_call_left(conn);
    unref(call);
}

static void on_settings(void *arg)
{
    cake__channel_settings(arg);
}

static void on_goaway(void *arg)
{
    cake__channel_goaway(arg);
}

/* ---- streams, handles, replies ---- */

static void on_sent(void *arg, cake__h2_stream_t *stream)
{
    cake_call_t *call = call_of(stream);
    if (!call->wants_writable || stream->out.pending > CAKE__STREAM_BUFFER / 2 || call->state == CAKE__CALL_OVER)
        return;
    call->wants_writable = false;
    call->env->ops->defer(call->env, &call->writable);
}

int cake_call_write(cake_call_t *call, const void *data, size_t len)
{
    if (!call->is_streaming || call->is_finished || call->state == CAKE__CALL_OVER)
        return CAKE_ECLOSED;
    if (call->stream.out.pending >= CAKE__STREAM_BUFFER) {
        call->wants_writable = true;
        return CAKE_EBUSY;
    }
    cake_slice_t part = cake__slice(data, len);
    cake__chunk_t *chunk = cake__chunk_copy(&call->env->alloc, &part, 1);
    if (chunk == NULL)
        return CAKE_ENOMEM;
    cake__body_append(&call->stream.out, chunk);
    if (call->conn != NULL) {
        cake__h2_resume(call->conn->h2, &call->stream);
        cake__conn_kick(call->conn);
    }
    return 0;
}

int cake_call_finish(cake_call_t *call)
{
    if (!call->is_streaming || call->is_finished || call->state == CAKE__CALL_OVER)
        return CAKE_ECLOSED;
    call->is_finished = true;
    call->stream.out.is_ended = true;
    if (call->conn != NULL) {
        cake__h2_resume(call->conn->h2, &call->stream);
        cake__conn_kick(call->conn);
    }
    return 0;
}

void cake_call_consume(cake_call_t *call, size_t len)
{
    if (call->conn == NULL)
        return;
    cake__h2_consume(call->conn->h2, &call->stream, len);
    cake__conn_kick(call->conn);
}

static void cancel_posted(void *arg)
{
    cake_call_t *call = arg;
    if (call->state != CAKE__CALL_OVER)
        cake__call_over(call, CAKE_ECANCELED, NULL);
    unref(call);
}

void cake_call_cancel(cake_call_t *call)
{
    if (atomic_load(&call->is_over))
        return;
    cake_env_t *env = call->env;
    if (env->ops->on_loop(env)) {
        cake__call_over(call, CAKE_ECANCELED, NULL);
        return;
    }
    if (atomic_exchange(&call->is_cancel_posted, true))
        return;
    atomic_fetch_add(&call->refs, 1);
    call->cancel_post = (cake_post_t){.fn = cancel_posted, .arg = call};
    env->ops->post(env, &call->cancel_post);
}

void cake_call_free(cake_call_t *call)
{
    if (call != NULL)
        unref(call);
}

int cake_reply_err(const cake_reply_t *reply)
{
    return reply == NULL ? 0 : reply->call.err;
}

cake_slice_t cake_reply_body(const cake_reply_t *reply)
{
    return reply == NULL || reply->call.err != 0 ? cake__slice(NULL, 0) : reply->call.body;
}

const char *cake_reply_header(const cake_reply_t *reply, const char *name)
{
    return reply == NULL ? NULL : cake__headers_get(&reply->call.reply_headers, name);
}

const char *cake_reply_message(const cake_reply_t *reply)
{
    if (reply == NULL || reply->call.err == 0)
        return "";
    return reply->call.message != NULL ? reply->call.message : cake_strerror(reply->call.err);
}

void cake_reply_free(cake_reply_t *reply)
{
    if (reply != NULL)
        unref(&reply->call);
}

const cake__h2_events_t cake__channel_events = {.on_header = on_header,
                                                .on_headers = on_headers,
                                                .on_data = on_data,
                                                .on_end = on_end,
                                                .on_sent = on_sent,
                                                .on_closed = on_closed,
                                                .on_settings = on_settings,
                                                .on_goaway = on_goaway};
