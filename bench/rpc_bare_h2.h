/* rpc_bare_h2.h: the exchange of rpc_frames.h as HTTP/2 by nghttp2's sessions over epoll, with no layer around them:
 * what HTTP/2 costs a lone call when that library does it. One write and one read each way, the headers of ours, the
 * body sent from where it lies. */
#ifndef CAKE_BENCH_RPC_BARE_H2_H
#define CAKE_BENCH_RPC_BARE_H2_H

#include <nghttp2/nghttp2.h>

#include "rpc_frames.h"

typedef struct {
    raw_t *raw;
    nghttp2_session *session;
    const uint8_t *body;
    size_t got; /* of the reply's or request's body: one call at a time */
} bare_h2_t;

#define BARE_HEADER(name, value)                                                                                       \
    {                                                                                                                  \
        (uint8_t *)(uintptr_t)(name), (uint8_t *)(uintptr_t)(value), sizeof(name) - 1, sizeof(value) - 1,              \
            NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE                                               \
    }

static ssize_t bare_h2_body(nghttp2_session *session, int32_t id, uint8_t *out, size_t size, uint32_t *flags,
                            nghttp2_data_source *source, void *arg)
{
    bare_h2_t *side = arg;
    (void)session;
    (void)id;
    (void)source;
    must(side->raw->cell->bytes <= size, "a body of one frame");
    memcpy(out, side->body, side->raw->cell->bytes);
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)side->raw->cell->bytes;
}

static void bare_h2_ask(bare_h2_t *side)
{
    static const nghttp2_nv headers[] = {BARE_HEADER(":method", "POST"), BARE_HEADER(":scheme", "http"),
                                         BARE_HEADER(":authority", "127.0.0.1:40000"),
                                         BARE_HEADER(":path", "/bench/echo"), BARE_HEADER("datacake-timeout", "10000")};
    nghttp2_data_provider body = {.read_callback = bare_h2_body};
    side->got = 0;
    must(nghttp2_submit_request(side->session, NULL, headers, 5, &body, NULL) > 0, "nghttp2_submit_request");
}

static int bare_h2_on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
                           void *arg)
{
    bare_h2_t *side = arg;
    (void)session;
    (void)flags;
    (void)id;
    (void)data;
    side->got += len;
    return 0;
}

static int bare_h2_on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                             const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
    (void)session;
    (void)frame;
    (void)name;
    (void)name_len;
    (void)value;
    (void)value_len;
    (void)flags;
    (void)arg;
    return 0;
}

static int bare_h2_on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    static const nghttp2_nv headers[] = {BARE_HEADER(":status", "200")};
    bare_h2_t *side = arg;
    nghttp2_data_provider body = {.read_callback = bare_h2_body};
    bool is_whole = frame->hd.type == NGHTTP2_DATA && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (!is_whole)
        return 0;
    must(side->got == side->raw->cell->bytes, "a body came short");
    side->got = 0;
    if (nghttp2_session_check_server_session(session))
        return nghttp2_submit_response(session, frame->hd.stream_id, headers, 1, &body);
    count_replies(side->raw, 1);
    bare_h2_ask(side);
    return 0;
}

static void bare_h2_flush(bare_h2_t *side)
{
    uint8_t out[4096];
    const uint8_t *part;
    size_t len = 0;
    ssize_t got;
    while ((got = nghttp2_session_mem_send(side->session, &part)) > 0) {
        must((size_t)got <= sizeof out - len, "what one turn sends");
        memcpy(out + len, part, (size_t)got);
        len += (size_t)got;
    }
    must(got == 0, "nghttp2_session_mem_send");
    write_all(side->raw->socket, out, len);
}

/* False: the other side has ended. */
static bool bare_h2_read(bare_h2_t *side, int epoll)
{
    uint8_t in[4096];
    struct epoll_event event;
    must(epoll_wait(epoll, &event, 1, -1) == 1, "epoll_wait");
    ssize_t got = read(side->raw->socket, in, sizeof in);
    if (got <= 0)
        return false;
    must(nghttp2_session_mem_recv(side->session, in, (size_t)got) == got, "nghttp2_session_mem_recv");
    return true;
}

static void bare_h2_begin(bare_h2_t *side, raw_t *raw, bool is_client)
{
    /* windows that no call of a short run uses up */
    static const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 4 << 20}};
    nghttp2_session_callbacks *callbacks;
    *side = (bare_h2_t){.raw = raw, .body = make_requests(raw)};
    must(nghttp2_session_callbacks_new(&callbacks) == 0, "nghttp2_session_callbacks_new");
    nghttp2_session_callbacks_set_on_header_callback(callbacks, bare_h2_on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, bare_h2_on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, bare_h2_on_frame);
    int err = is_client ? nghttp2_session_client_new(&side->session, callbacks, side)
                        : nghttp2_session_server_new(&side->session, callbacks, side);
    must(err == 0 && nghttp2_submit_settings(side->session, NGHTTP2_FLAG_NONE, settings, 1) == 0, "nghttp2_session");
    must(nghttp2_session_set_local_window_size(side->session, NGHTTP2_FLAG_NONE, 0, 16 << 20) == 0, "window");
    nghttp2_session_callbacks_del(callbacks);
}

static void bare_h2_end(bare_h2_t *side, int epoll)
{
    side->raw->cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID);
    close(side->raw->socket);
    close(epoll);
    nghttp2_session_del(side->session);
    free((void *)(uintptr_t)side->body);
}

static void *bare_h2_server(void *arg)
{
    bare_h2_t side;
    raw_t *raw = arg;
    int epoll = watch(raw->socket);
    pin(raw->side);
    bare_h2_begin(&side, raw, false);
    do {
        bare_h2_flush(&side);
    } while (bare_h2_read(&side, epoll));
    bare_h2_end(&side, epoll);
    return NULL;
}

static void *bare_h2_client(void *arg)
{
    bare_h2_t side;
    raw_t *raw = arg;
    int epoll = watch(raw->socket);
    pin(raw->side);
    bare_h2_begin(&side, raw, true);
    bare_h2_ask(&side);
    do {
        bare_h2_flush(&side);
    } while (bare_h2_read(&side, epoll) && now_ns(CLOCK_MONOTONIC) < raw->until_ns);
    bare_h2_end(&side, epoll);
    return NULL;
}

#endif
