/* answer.c: the calls that a server is answering, from the first header to the last byte of the reply. */
#include "rpc/server.h"

#define NS_MAX_TIMEOUT_MS (UINT64_MAX / CAKE_NS_PER_MS / 4)
#define GATHER_FIRST      (1u << 20) /* of a body that says it is longer: a claim costs its maker more than us */
#define REFUSE_FACTOR     4u         /* so many times max_output_bytes waiting: no new calls */

static cake_rpc_call_t *call_of(cake__h2_stream_t *stream)
{
    return CAKE_CONTAINER_OF(stream, cake_rpc_call_t, stream);
}

/* Of replies: they may be made on any thread, but the loop's own come from its own. */
static const cake_alloc_t *alloc_of(const cake_rpc_call_t *call)
{
    cake_env_t *env = call->server->env;
    return env->ops->on_loop(env) ? &call->server->kind.slab.alloc : &env->alloc;
}

/* ---- create and destroy ---- */

static cake__h2_stream_t *on_begin(void *arg)
{
    cake__conn_t *conn = arg;
    cake_rpc_server_t *server = cake__server_of(conn);
    const cake_rpc_limits_t *limits = &server->kind.limits;
    if (server->is_closing || conn->queued_bytes > REFUSE_FACTOR * limits->max_output_bytes)
        return NULL;
    cake_rpc_call_t *call = cake__malloc(&server->kind.slab.alloc, sizeof *call);
    if (call == NULL)
        return NULL;
    memset(call, 0, offsetof(cake_rpc_call_t, peer));
    call->server = server;
    call->conn = conn;
    call->peer = conn->peer;
    call->deadline_ns = CAKE_NEVER;
    call->content_length = UINT64_MAX;
    atomic_init(&call->is_canceled, false);
    cake__buf_init(&call->headers.buf, &server->kind.slab.alloc);
    cake__buf_init(&call->reply_headers.buf, &server->env->alloc);
    cake__buf_init(&call->gathered, &server->kind.slab.alloc);
    call->reply_headers.buf.max = limits->max_header_bytes / 2;
    call->gathered.max = limits->max_body_bytes;
    conn->calls++;
    server->calls++;
    return &call->stream;
}

/* Frees the call when nobody needs it any more. */
static void settle(cake_rpc_call_t *call)
{
    cake_rpc_server_t *server = call->server;
    if (call->is_held || call->is_working || call->is_told)
        return;
    if (call->service != NULL)
        cake__service_release(call->service);
    call->service = NULL;
    if (call->is_lent)
        return;
    if (call->pinned != NULL)
        cake__block_unref(call->pinned);
    call->pinned = NULL;
    cake__buf_free(&call->gathered);
    if (call->conn != NULL)
        return;
    CAKE_ASSERT(call->reply == NULL && call->stream.out.head == NULL);
    server->env->ops->defer_cancel(server->env, &call->writable);
    cake__buf_free(&call->headers.buf);
    cake__buf_free(&call->reply_headers.buf);
    cake__free(&server->kind.slab.alloc, call);
    CAKE_ASSERT(server->calls > 0);
    server->calls--;
    cake__server_step(server);
}

/* ---- the reply ---- */

/* Replies that wait count against the connection. */
static void count_queued(cake_rpc_call_t *call)
{
    uint64_t now = call->stream.out.pending + CAKE__CALL_COST;
    cake__conn_queued(call->conn, (int64_t)now - (int64_t)call->queued);
    call->queued = now;
}

static cake_slice_t status_text(int err)
{
    switch (cake_rpc_status(err)) {
    case 200:
        return CAKE__LITERAL("200");
    case 400:
        return CAKE__LITERAL("400");
    case 401:
        return CAKE__LITERAL("401");
    case 404:
        return CAKE__LITERAL("404");
    case 409:
        return CAKE__LITERAL("409");
    case 413:
        return CAKE__LITERAL("413");
    case 503:
        return CAKE__LITERAL("503");
    case 504:
        return CAKE__LITERAL("504");
    default:
        return CAKE__LITERAL("500");
    }
}

/* Sends the head, with what stands in stream.out as the body or its beginning. */
static void respond(cake_rpc_call_t *call, int err)
{
    cake__h2_header_t headers[CAKE__HEADERS_MAX + 4];
    cake_rpc_server_t *server = call->server;
    size_t count = 0, body_len = call->stream.out.pending;
    headers[count++] = cake__header(CAKE__LITERAL(":status"), status_text(err), false);
    if (err != 0) {
        cake_slice_t text = cake__decimal_write(err, call->error_text);
        headers[count++] = cake__header(CAKE__NAME_ERROR, text, false);
    }
    if (server->hooks.stamp != NULL) {
        cake__hex_write(server->hooks.stamp(server->hooks.arg), call->clock_text);
        headers[count++] = cake__header(CAKE__NAME_CLOCK, cake__slice(call->clock_text, CAKE__HEX_BYTES), true);
    }
    if (call->stream.out.is_ended && body_len >= CAKE__COPY_BELOW) { /* the receiver can make room at once */
        cake_slice_t text = cake__decimal_write((int64_t)body_len, call->length_text);
        headers[count++] = cake__header(CAKE__LITERAL("content-length"), text, true);
    }
    if (call->reply_headers.count > 0)
        count += cake__headers_fill(&call->reply_headers, headers + count);
    call->has_begun_reply = true;
    count_queued(call);
    (void)cake__h2_respond(call->conn->h2, &call->stream, headers, count); /* lost with its stream or connection */
    cake__conn_kick(call->conn);
}

/* The last of the reply: a whole one, the end of a stream's, or an error. Takes call->reply. */
static void finish_reply(cake_rpc_call_t *call, int err)
{
    cake__chunk_t *reply = call->reply;
    call->reply = NULL;
    call->is_answered = true;
    call->stream.stop_after_reply = true;
    call->server->stats.calls_failed += err != 0;
    if (call->conn == NULL) {
        cake__chunk_unref_list(reply);
        return;
    }
    if (err != 0 && call->has_begun_reply) {
        cake_slice_t text = cake__decimal_write(err, call->error_text);
        call->trailers[0] = cake__header(CAKE__NAME_ERROR, text, false);
        call->trailers[1] = cake__header(CAKE__NAME_MESSAGE, cake__slice_str(cake_strerror(err)), false);
        call->stream.trailers = call->trailers;
        call->stream.trailer_count = 2;
        cake__chunk_unref_list(reply);
        reply = NULL;
    }
    cake__body_append(&call->stream.out, reply);
    call->stream.out.is_ended = true;
    if (!call->has_begun_reply) {
        respond(call, err);
        return;
    }
    count_queued(call);
    cake__h2_resume(call->conn->h2, &call->stream);
    cake__conn_kick(call->conn);
}

/* Refuses a call that no handler has seen. */
static void reject(cake_rpc_call_t *call, int err, const char *message)
{
    if (call->is_answered || call->is_dispatched)
        return;
    if (message == NULL)
        message = cake_strerror(err);
    cake_slice_t text = cake__slice_str(message);
    call->reply = cake__chunk_copy(alloc_of(call), &text, 1); /* without memory: no text */
    cake__buf_free(&call->gathered);
    finish_reply(call, err);
}

static void finish_on_loop(void *arg)
{
    cake_rpc_call_t *call = arg;
    CAKE_ASSERT(call->is_held && !call->is_answered);
    finish_reply(call, call->reply_err);
    call->is_held = false;
    settle(call);
}

/* From any thread: whoever held the call lets go of it. */
static void answer(cake_rpc_call_t *call, int err, cake__chunk_t *reply)
{
    cake_env_t *env = call->server->env;
    call->reply_err = err;
    call->reply = reply;
    if (env->ops->on_loop(env)) {
        finish_on_loop(call);
        return;
    }
    call->post = (cake_post_t){.fn = finish_on_loop, .arg = call};
    env->ops->post(env, &call->post);
}

int cake_rpc_replyv(cake_rpc_call_t *call, const cake_slice_t *parts, size_t count)
{
    cake__chunk_t *reply = NULL;
    size_t len = 0;
    for (size_t i = 0; i < count; i++)
        len += parts[i].len;
    if (len > 0 && (reply = cake__chunk_copy(alloc_of(call), parts, count)) == NULL) {
        answer(call, CAKE_ENOMEM, NULL);
        return CAKE_ENOMEM;
    }
    answer(call, 0, reply);
    return 0;
}

int cake_rpc_reply(cake_rpc_call_t *call, const void *data, size_t len)
{
    cake_slice_t part = cake__slice(data, len);
    return cake_rpc_replyv(call, &part, 1);
}

static void reply_released(void *arg)
{
    cake_rpc_call_t *call = arg;
    call->is_lent = false;
    if (call->released != NULL)
        call->released(call->released_arg);
    settle(call);
}

int cake_rpc_reply_borrowed(cake_rpc_call_t *call, const cake_slice_t *parts, size_t count, cake_event_fn released,
                            void *arg)
{
    cake__chunk_t *reply = cake__chunk_borrow(alloc_of(call), parts, count, reply_released, call);
    if (reply != NULL) {
        call->is_lent = true; /* the parts may lie in its body */
        call->released = released;
        call->released_arg = arg;
        cake__chunk_t *list = cake__chunk_list(reply);
        cake__chunk_unref(reply);
        answer(call, 0, list);
        return 0;
    }
    int err = cake_rpc_replyv(call, parts, count);
    if (released != NULL)
        released(arg);
    return err;
}

int cake_rpc_fail(cake_rpc_call_t *call, int err, const char *message)
{
    if (err >= 0)
        err = CAKE_EINTERNAL;
    if (message == NULL)
        message = cake_strerror(err);
    cake_slice_t text = cake__slice(message, strnlen(message, CAKE__MESSAGE_MAX));
    answer(call, err, cake__chunk_copy(alloc_of(call), &text, 1)); /* without memory: no text */
    return 0;
}

int cake_rpc_set_header(cake_rpc_call_t *call, const char *name, const char *value)
{
    int err = cake__headers_check(name, value);
    if (err != 0)
        return err;
    return cake__headers_add(&call->reply_headers, cake__slice_str(name), cake__slice_str(value));
}

/* ---- handlers ---- */

static void work_run(void *arg)
{
    cake_rpc_call_t *call = arg;
    call->method->handler(call, call->service->arg);
}

static void work_done(void *arg)
{
    cake_rpc_call_t *call = arg;
    CAKE_ASSERT(call->is_working && call->lane->load > 0);
    call->lane->load--;
    call->server->blocking--;
    call->is_working = false;
    settle(call);
}

/* The lane with the least to do; a new one while there may be more and all are busy. */
static cake__server_lane_t *choose_lane(cake_rpc_server_t *server)
{
    cake__server_lane_t *best = NULL;
    for (uint32_t i = 0; i < server->lanes_open; i++) {
        if (best == NULL || server->lanes[i].load < best->load)
            best = &server->lanes[i];
    }
    if (best != NULL && (best->load == 0 || server->lanes_open == server->worker_lanes))
        return best;
    cake__server_lane_t *fresh = &server->lanes[server->lanes_open];
    if (server->env->ops->lane_open(server->env, "rpc", &fresh->lane) != 0)
        return best;
    fresh->load = 0;
    server->lanes_open++;
    return fresh;
}

static void start_work(cake_rpc_call_t *call)
{
    cake_rpc_server_t *server = call->server;
    cake__server_lane_t *lane = server->blocking < server->max_blocking ? choose_lane(server) : NULL;
    if (lane == NULL) {
        (void)cake_rpc_fail(call, CAKE_EBUSY, "too many blocking calls");
        return;
    }
    server->blocking++;
    lane->load++;
    call->lane = lane;
    call->is_working = true;
    call->work = (cake_work_t){.run = work_run, .done = work_done, .arg = call};
    server->env->ops->lane_submit(lane->lane, &call->work);
}

static void dispatch(cake_rpc_call_t *call, const cake__method_t *method)
{
    CAKE_ASSERT(!call->is_dispatched && !call->is_answered);
    call->service = method->service;
    call->method = &method->method;
    call->service->running++;
    call->server->stats.calls_started++;
    call->conn->messages++;
    call->is_dispatched = true;
    call->is_held = true;
    if ((call->method->flags & CAKE_RPC_BLOCKING) != 0)
        start_work(call);
    else
        call->method->handler(call, call->service->arg);
}

/* ---- what comes in ---- */

static void on_header(void *arg, cake__h2_stream_t *stream, cake_slice_t name, cake_slice_t value)
{
    cake_rpc_call_t *call = call_of(stream);
    cake_rpc_server_t *server = call->server;
    uint64_t number;
    int err = 0;
    if (call->has_head)
        return; /* trailers mean nothing here */
    if (cake__slice_equal(name, CAKE__LITERAL(":path"))) {
        call->path_len = cake__min_u64(value.len, CAKE__PATH_MAX);
        memcpy(call->path, value.data, call->path_len);
        if (value.len > CAKE__PATH_MAX)
            call->path_len = 0;
    } else if (cake__slice_equal(name, CAKE__LITERAL(":method"))) {
        err = cake__slice_equal(value, CAKE__LITERAL("POST")) ? 0 : CAKE_EINVAL;
    } else if (cake__slice_equal(name, CAKE__NAME_TIMEOUT)) {
        err = cake__decimal_read(value, &number) ? 0 : CAKE_EPARSE;
        if (err == 0 && number < NS_MAX_TIMEOUT_MS)
            call->deadline_ns = call->conn->now_ns + number * CAKE_NS_PER_MS;
    } else if (cake__slice_equal(name, CAKE__NAME_CLOCK)) {
        err = cake__hex_read(value, &number) ? 0 : CAKE_EPARSE;
        if (err == 0 && server->hooks.observe != NULL)
            err = server->hooks.observe(server->hooks.arg, number);
    } else if (cake__slice_equal(name, CAKE__NAME_CLUSTER)) {
        if (server->cluster_id != NULL && !cake__slice_equal(value, cake__slice_str(server->cluster_id)))
            err = CAKE_ECONFLICT;
    } else if (cake__slice_equal(name, CAKE__LITERAL("content-length"))) {
        if (cake__decimal_read(value, &number))
            call->content_length = number;
    } else if (((const char *)name.data)[0] != ':') {
        err = cake__headers_add(&call->headers, name, value);
    }
    if (call->head_err == 0)
        call->head_err = err;
}

static void on_headers(void *arg, cake__h2_stream_t *stream)
{
    cake_rpc_call_t *call = call_of(stream);
    const cake_rpc_limits_t *limits = &call->server->kind.limits;
    if (call->has_head)
        return;
    call->has_head = true;
    const cake__method_t *method = cake__service_find(call->server, cake__slice(call->path, call->path_len));
    call->found = method;
    call->found_version = call->server->services_version;
    bool is_stream = method != NULL && (method->method.flags & CAKE_RPC_STREAM) != 0;
    if (stream->header_bytes > limits->max_header_bytes) {
        call->head_err = CAKE_ETOOBIG;
        call->head_why = "the headers are larger than the limit";
    } else if (call->head_err == CAKE_ECONFLICT) {
        call->head_why = "this server belongs to another cluster";
    } else if (call->head_err == 0 && method == NULL) {
        call->head_err = CAKE_EUNAVAILABLE;
    } else if (call->head_err == 0 && is_stream) {
        dispatch(call, method);
    } else if (call->content_length != UINT64_MAX && call->content_length > limits->max_body_bytes) {
        reject(call, CAKE_ETOOBIG, "the body is larger than the limit");
    }
}

/* Its body is, to a method that wants it whole. */
static bool is_coming(const cake_rpc_call_t *call)
{
    return !call->is_dispatched && !call->is_answered;
}

/* The body of a call that is refused goes nowhere; a long one is cut short. */
static void discard(cake_rpc_call_t *call, size_t len)
{
    call->discarded += len;
    if (call->discarded > CAKE__DISCARD_MAX)
        reject(call, call->head_err, call->head_why);
}

static void gather(cake_rpc_call_t *call, const uint8_t *data, size_t len)
{
    const cake_rpc_limits_t *limits = &call->server->kind.limits;
    size_t total = call->body.len + len;
    if (total > limits->max_body_bytes) {
        reject(call, CAKE_ETOOBIG, "the body is larger than the limit");
        return;
    }
    if (call->conn->input_bytes + len > limits->max_input_bytes) {
        reject(call, CAKE_EBUSY, "too many bytes are on their way to this server");
        return;
    }
    call->conn->input_bytes += len;
    cake__buf_t *buf = &call->gathered;
    if (buf->len > 0 && data == buf->data + buf->len) { /* it was read to there, see body_room */
        buf->len += len;
        call->body = cake__buf_slice(buf);
        return;
    }
    if (total <= CAKE__SMALL_BODY) {
        memcpy(call->small + call->body.len, data, len);
        call->body = cake__slice(call->small, total);
        return;
    }
    if (buf->capacity == 0) {
        bool is_known = call->content_length != UINT64_MAX && call->content_length > total;
        (void)cake__buf_reserve(buf, is_known ? cake__min_u64(call->content_length, GATHER_FIRST) : total);
        cake__put_bytes(buf, call->small, call->body.len);
    }
    cake__put_bytes(buf, data, len);
    call->body = cake__buf_slice(buf);
    if (buf->err != 0)
        reject(call, CAKE_ENOMEM, NULL);
}

uint8_t *cake__answer_body_room(cake__h2_stream_t *stream, size_t least, size_t *size)
{
    cake_rpc_call_t *call = call_of(stream);
    cake__buf_t *buf = &call->gathered;
    bool is_gathered = buf->len > 0 && !call->is_dispatched && !call->is_answered && call->head_err == 0;
    if (!is_gathered || !cake__buf_reserve(buf, least))
        return NULL;
    call->body = cake__buf_slice(buf); /* it may have moved */
    *size = buf->capacity - buf->len;
    return buf->data + buf->len;
}

/* Requests that are still to come while hardly anything does are ended: who has sent one byte must not hold a call for
 * ever. The connection is judged, not each of them: one may have to wait while others come. */
void cake__answer_tick(cake__conn_t *conn, uint64_t now_ns)
{
    uint64_t limit_ms = conn->kind->limits.stall_ms;
    bool is_waiting = false;
    cake__h2_stream_t *stream = NULL;
    while ((stream = cake__h2_next(conn->h2, stream)) != NULL) {
        cake_rpc_call_t *call = call_of(stream);
        if (!is_coming(call))
            continue;
        if (call->coming_ns == 0)
            call->coming_ns = cake__max_u64(now_ns, 1);
        is_waiting = !conn->was_paused;
    }
    if (!cake__pace_is_slow(&conn->coming, is_waiting, now_ns, limit_ms))
        return;
    while ((stream = cake__h2_next(conn->h2, stream)) != NULL) {
        cake_rpc_call_t *call = call_of(stream);
        if (is_coming(call) && now_ns - call->coming_ns >= limit_ms * CAKE_NS_PER_MS)
            reject(call, CAKE_ETIMEDOUT, "the request comes too slowly");
    }
}

static void on_data(void *arg, cake__h2_stream_t *stream, const uint8_t *data, size_t len, bool is_whole)
{
    cake_rpc_call_t *call = call_of(stream);
    cake__conn_t *conn = arg;
    bool is_stream = call->is_dispatched && (call->method->flags & CAKE_RPC_STREAM) != 0;
    if (call->head_err != 0) {
        discard(call, len);
    } else if (is_stream && !call->is_answered && call->events != NULL) {
        if (call->events->on_data != NULL) {
            call->events->on_data(call->events_arg, cake__slice(data, len));
            return;
        }
    } else if (!is_stream && !call->is_answered && is_whole && len >= CAKE__PIN_BELOW && call->body.len == 0 &&
               len <= call->server->kind.limits.max_body_bytes) {
        call->pinned = cake__block_ref(conn->block);
        call->body = cake__slice(data, len);
    } else if (!is_stream && !call->is_answered) {
        gather(call, data, len);
    }
    cake__h2_consume(conn->h2, stream, len);
}

static void tell_end(cake_rpc_call_t *call, int err)
{
    if (call->events == NULL || call->is_answered || call->is_end_told)
        return;
    call->is_end_told = true;
    if (call->events->on_end != NULL)
        call->events->on_end(call->events_arg, err);
}

static void on_end(void *arg, cake__h2_stream_t *stream)
{
    cake_rpc_call_t *call = call_of(stream);
    if (call->is_answered)
        return;
    if (call->is_dispatched) {
        tell_end(call, 0);
        return;
    }
    if (call->head_err != 0) {
        reject(call, call->head_err, call->head_why);
        return;
    }
    const cake__method_t *method = call->found;
    if (call->found_version != call->server->services_version) /* it may have been removed since the headers came */
        method = cake__service_find(call->server, cake__slice(call->path, call->path_len));
    if (method == NULL)
        reject(call, CAKE_EUNAVAILABLE, NULL);
    else
        dispatch(call, method);
}

static void on_closed(void *arg, cake__h2_stream_t *stream, cake__h2_reason_t reason)
{
    cake_rpc_call_t *call = call_of(stream);
    cake__conn_t *conn = arg;
    CAKE_ASSERT(call->conn == conn && conn->calls > 0);
    conn->calls--;
    conn->idle_since_ns = 0;
    cake__conn_queued(conn, -(int64_t)call->queued);
    if (call->pinned == NULL)
        conn->input_bytes -= cake__min_u64(conn->input_bytes, call->body.len);
    call->conn = NULL;
    call->is_told = true; /* it may be answered in here, and its reply released */
    call->stream.out.is_ended = true;
    cake__body_clear(&call->stream.out);
    atomic_store(&call->is_canceled, true);
    if (call->is_held)
        tell_end(call, reason == CAKE__H2_LOST ? CAKE_ECONNECTION : CAKE_ECANCELED);
    call->is_told = false;
    if (call->server->is_closing && conn->calls == 0)
        cake__conn_finish(conn, CAKE_ECLOSED);
    settle(call);
}

/* ---- streams ---- */

static void tell_writable(void *arg)
{
    cake_rpc_call_t *call = arg;
    if (call->is_held && !call->is_answered && call->conn != NULL && call->events->on_writable != NULL)
        call->events->on_writable(call->events_arg);
}

static void on_sent(void *arg, cake__h2_stream_t *stream)
{
    cake_rpc_call_t *call = call_of(stream);
    count_queued(call);
    if (!call->wants_writable || stream->out.pending > CAKE__STREAM_BUFFER / 2)
        return;
    call->wants_writable = false;
    call->server->env->ops->defer(call->server->env, &call->writable);
}

void cake_rpc_stream(cake_rpc_call_t *call, const cake_stream_events_t *events, void *arg)
{
    CAKE_ASSERT(call->is_held && call->events == NULL);
    call->events_copy = *events;
    call->events = &call->events_copy;
    call->events_arg = arg;
    call->writable = CAKE_DEFERRED_INIT(tell_writable, call);
    call->server->env->ops->defer(call->server->env, &call->writable);
}

void cake_rpc_consume(cake_rpc_call_t *call, size_t len)
{
    if (call->conn == NULL)
        return;
    cake__h2_consume(call->conn->h2, &call->stream, len);
    cake__conn_kick(call->conn);
}

int cake_rpc_write(cake_rpc_call_t *call, const void *data, size_t len)
{
    if (call->conn == NULL || call->stream.is_reset)
        return CAKE_ECLOSED;
    if (call->stream.out.pending >= CAKE__STREAM_BUFFER) {
        call->wants_writable = true;
        return CAKE_EBUSY;
    }
    cake_slice_t part = cake__slice(data, len);
    cake__chunk_t *chunk = cake__chunk_copy(alloc_of(call), &part, 1);
    if (chunk == NULL)
        return CAKE_ENOMEM;
    cake__body_append(&call->stream.out, chunk);
    if (!call->has_begun_reply) {
        respond(call, 0);
        return 0;
    }
    count_queued(call);
    cake__h2_resume(call->conn->h2, &call->stream);
    cake__conn_kick(call->conn);
    return 0;
}

/* ---- what handlers see ---- */

cake_slice_t cake_rpc_body(const cake_rpc_call_t *call)
{
    return call->body;
}

const char *cake_rpc_header(const cake_rpc_call_t *call, const char *name)
{
    return cake__headers_get(&call->headers, name);
}

void cake_rpc_peer(const cake_rpc_call_t *call, cake_addr_t *out)
{
    *out = call->peer;
}

uint64_t cake_rpc_deadline_ns(const cake_rpc_call_t *call)
{
    return call->deadline_ns;
}

bool cake_rpc_is_canceled(const cake_rpc_call_t *call)
{
    return atomic_load(&call->is_canceled);
}

const cake__h2_events_t cake__server_events = {.on_begin = on_begin,
                                               .on_header = on_header,
                                               .on_headers = on_headers,
                                               .on_data = on_data,
                                               .on_end = on_end,
                                               .on_sent = on_sent,
                                               .on_closed = on_closed};
