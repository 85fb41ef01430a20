/* session.c: h2.h by an nghttp2 session. Frames are made by nghttp2 one by one and gathered in the batch; DATA goes there
 * directly, without a copy through nghttp2's buffer (NO_COPY). */
#include "rpc/h2/h2.h"

#include <nghttp2/nghttp2.h>

#define NV_MAX               80u
#define USELESS_FRAMES_PER_S 10000u /* empty DATA, PRIORITY: allowed, and of no use to anybody */
#define WINDOW_UPDATES_PER_S 1000000u
#define NS_PER_S             UINT64_C(1000000000)
#define OVER_IDS             16u

enum { RATE_RESET, RATE_PING, RATE_SETTINGS, RATE_USELESS, RATE_WINDOW, RATE_COUNT };

struct cake__h2 {
    nghttp2_session *session;
    cake__h2_config_t config;
    cake__list_t streams; /* all that the owner has not got back */
    cake__batch_t *batch; /* while pulling */
    uint64_t now_ns, rates_since_ns;
    uint32_t rates[RATE_COUNT];
    size_t data_frame_len;
    uint32_t continuations;     /* in a row */
    int32_t over_ids[OVER_IDS]; /* streams that the peer has ended and that are closed, the latest ones */
    uint32_t over_at;
    int32_t last_id, skipped_from, skipped_to; /* server: ids that the peer has left out, the latest ones */
    bool is_receiving, has_settings, has_goaway;
    int err; /* ends the connection */
};

static void set_err(cake__h2_t *h2, int err)
{
    if (h2->err == 0)
        h2->err = err;
}

/* ---- memory ---- */

static void *mem_malloc(size_t size, void *alloc)
{
    return cake__malloc(alloc, size);
}

static void mem_free(void *block, void *alloc)
{
    cake__free(alloc, block);
}

static void *mem_calloc(size_t count, size_t size, void *alloc)
{
    return cake__calloc(alloc, count, size);
}

static void *mem_realloc(void *block, size_t size, void *alloc)
{
    return cake__realloc(alloc, block, size);
}

/* ---- events ---- */

/* Counts one of a kind in the current second; too many of it end the connection with ENHANCE_YOUR_CALM. */
static void count_rate(cake__h2_t *h2, int kind, uint32_t max)
{
    if (h2->now_ns - h2->rates_since_ns >= NS_PER_S) {
        h2->rates_since_ns = h2->now_ns;
        memset(h2->rates, 0, sizeof h2->rates);
    }
    if (++h2->rates[kind] <= max || h2->err != 0)
        return;
    set_err(h2, CAKE_EBUSY);
    (void)nghttp2_session_terminate_session(h2->session, NGHTTP2_ENHANCE_YOUR_CALM);
}

static cake__h2_stream_t *stream_of(cake__h2_t *h2, int32_t id)
{
    return nghttp2_session_get_stream_user_data(h2->session, id);
}

/* A peer that goes on with a stream it has ended itself is told (RFC 9113, 5.1); nghttp2 ignores that, as it must for streams that
 * were ended by us. */
static bool is_over(const cake__h2_t *h2, int32_t id)
{
    if (id >= h2->skipped_from && id <= h2->skipped_to)
        return true;
    for (size_t i = 0; i < OVER_IDS; i++) {
        if (h2->over_ids[i] == id)
            return true;
    }
    return false;
}

static void note_over(cake__h2_t *h2, int32_t id)
{
    h2->over_ids[h2->over_at] = id;
    h2->over_at = (h2->over_at + 1) % OVER_IDS;
}

static void note_begun(cake__h2_t *h2, int32_t id)
{
    int32_t next = h2->last_id > 0 ? h2->last_id + 2 : 1;
    if (id > next) {
        h2->skipped_from = next;
        h2->skipped_to = id - 2;
    }
    h2->last_id = id;
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *arg)
{
    cake__h2_t *h2 = arg;
    h2->data_frame_len = hd->length;
    h2->continuations = hd->type == NGHTTP2_CONTINUATION ? h2->continuations + 1 : 0;
    bool is_message = hd->type == NGHTTP2_DATA || hd->type == NGHTTP2_HEADERS;
    if (is_message && hd->stream_id != 0 && stream_of(h2, hd->stream_id) == NULL && is_over(h2, hd->stream_id)) {
        set_err(h2, CAKE_EPARSE);
        (void)nghttp2_session_terminate_session(session, NGHTTP2_STREAM_CLOSED);
        return 0;
    }
    if (h2->continuations <= CAKE__H2_CONTINUATIONS_MAX)
        return 0;
    set_err(h2, CAKE_EBUSY);
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    cake__h2_t *h2 = arg;
    cake__h2_stream_t *stream = stream_of(h2, frame->hd.stream_id);
    if (stream != NULL)
        stream->header_bytes = 0;
    if (!h2->config.is_server || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    note_begun(h2, frame->hd.stream_id);
    stream = h2->config.events->on_begin(h2->config.arg);
    if (stream == NULL)
        return nghttp2_submit_rst_stream(session, 0, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM) == 0
                   ? 0
                   : NGHTTP2_ERR_CALLBACK_FAILURE;
    stream->id = frame->hd.stream_id;
    cake__list_init(&stream->link);
    cake__list_push_back(&h2->streams, &stream->link);
    (void)nghttp2_session_set_stream_user_data(session, stream->id, stream);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
    cake__h2_t *h2 = arg;
    cake__h2_stream_t *stream = stream_of(h2, frame->hd.stream_id);
    if (stream == NULL)
        return 0;
    stream->header_bytes += name_len + value_len + 32; /* as RFC 9113, 6.5.2 counts them */
    if (stream->header_bytes <= h2->config.max_header_bytes)
        h2->config.events->on_header(h2->config.arg, stream, cake__slice(name, name_len),
                                     cake__slice(value, value_len));
    else if (stream->header_bytes > 4 * (size_t)h2->config.max_header_bytes)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* a few small indices can stand for megabytes */
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
    cake__h2_t *h2 = arg;
    cake__h2_stream_t *stream = stream_of(h2, id);
    if (nghttp2_session_consume_connection(session, len) != 0)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (stream == NULL)
        return 0;
    bool is_whole = (flags & NGHTTP2_FLAG_END_STREAM) != 0 && len == h2->data_frame_len;
    h2->config.events->on_data(h2->config.arg, stream, data, len, is_whole);
    return 0;
}

static void stream_ended(cake__h2_t *h2, cake__h2_stream_t *stream)
{
    stream->is_remote_ended = true;
    h2->config.events->on_end(h2->config.arg, stream);
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    cake__h2_t *h2 = arg;
    const cake__h2_config_t *config = &h2->config;
    bool is_end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0, is_ack = (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0;
    cake__h2_stream_t *stream = frame->hd.stream_id != 0 ? stream_of(h2, frame->hd.stream_id) : NULL;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        if (stream != NULL)
            config->events->on_headers(config->arg, stream);
        break;
    case NGHTTP2_DATA:
        if (frame->hd.length == 0 && !is_end)
            count_rate(h2, RATE_USELESS, USELESS_FRAMES_PER_S);
        break;
    case NGHTTP2_RST_STREAM:
        if (stream != NULL)
            stream->is_remote_ended = true;
        count_rate(h2, RATE_RESET, config->max_resets_per_s);
        return 0;
    case NGHTTP2_PING:
        if (!is_ack)
            count_rate(h2, RATE_PING, config->max_pings_per_s);
        return 0;
    case NGHTTP2_SETTINGS:
        if (!is_ack)
            count_rate(h2, RATE_SETTINGS, config->max_settings_per_s);
        if (!is_ack && !h2->has_settings && config->events->on_settings != NULL)
            config->events->on_settings(config->arg);
        h2->has_settings = true;
        return 0;
    case NGHTTP2_GOAWAY:
        if (!h2->has_goaway && config->events->on_goaway != NULL)
            config->events->on_goaway(config->arg);
        h2->has_goaway = true;
        return 0;
    case NGHTTP2_PRIORITY:
        count_rate(h2, RATE_USELESS, USELESS_FRAMES_PER_S);
        return 0;
    case NGHTTP2_WINDOW_UPDATE:
        count_rate(h2, RATE_WINDOW, WINDOW_UPDATES_PER_S);
        return 0;
    default:
        return 0;
    }
    if (is_end && stream != NULL)
        stream_ended(h2, stream);
    return 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    cake__h2_t *h2 = arg;
    bool may_end = frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS;
    if (!may_end || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)
        return 0;
    cake__h2_stream_t *stream = stream_of(h2, frame->hd.stream_id);
    if (stream == NULL)
        return 0;
    stream->is_local_ended = true;
    if (stream->stop_after_reply && !stream->is_remote_ended &&
        nghttp2_submit_rst_stream(session, 0, stream->id, NGHTTP2_NO_ERROR) != 0)
        set_err(h2, CAKE_ENOMEM);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
    cake__h2_t *h2 = arg;
    cake__h2_stream_t *stream = stream_of(h2, id);
    if (stream == NULL)
        return 0;
    cake__h2_reason_t reason = CAKE__H2_RESET;
    if (code == NGHTTP2_REFUSED_STREAM)
        reason = CAKE__H2_REFUSED;
    else if (code == NGHTTP2_NO_ERROR && !stream->is_reset)
        reason = CAKE__H2_DONE;
    (void)nghttp2_session_set_stream_user_data(session, id, NULL);
    if (stream->is_remote_ended)
        note_over(h2, id);
    cake__list_remove(&stream->link);
    h2->config.events->on_closed(h2->config.arg, stream, reason);
    return 0;
}

/* ---- bodies ---- */

static void fill_nv(nghttp2_nv *nv, const cake__h2_header_t *header)
{
    *nv = (nghttp2_nv){.name = (uint8_t *)(uintptr_t)header->name.data,
                       .value = (uint8_t *)(uintptr_t)header->value.data,
                       .namelen = header->name.len,
                       .valuelen = header->value.len,
                       .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
    if (header->is_unique)
        nv->flags |= NGHTTP2_NV_FLAG_NO_INDEX;
}

static int submit_trailers(cake__h2_t *h2, cake__h2_stream_t *stream)
{
    nghttp2_nv nv[8];
    CAKE_ASSERT(stream->trailer_count <= CAKE_COUNT_OF(nv));
    for (size_t i = 0; i < stream->trailer_count; i++)
        fill_nv(&nv[i], &stream->trailers[i]);
    return nghttp2_submit_trailer(h2->session, stream->id, nv, stream->trailer_count);
}

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
                         nghttp2_data_source *source, void *arg)
{
    cake__h2_t *h2 = arg;
    cake__h2_stream_t *stream = source->ptr;
    const cake__body_t *body = &stream->out;
    if (body->pending == 0 && !body->is_ended) {
        stream->is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    size_t len = cake__min_u64(length, body->pending);
    if (body->is_ended && len == body->pending) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (stream->trailer_count > 0) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            if (submit_trailers(h2, stream) != 0)
                return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
    }
    return (ssize_t)len;
}

static int send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t len,
                     nghttp2_data_source *source, void *arg)
{
    cake__h2_t *h2 = arg;
    cake__h2_stream_t *stream = source->ptr;
    CAKE_ASSERT(h2->batch != NULL && frame->data.padlen == 0);
    if (!cake__batch_has_room(h2->batch))
        return NGHTTP2_ERR_WOULDBLOCK;
    if (cake__batch_copy(h2->batch, head, 9) != 0 || cake__batch_take(h2->batch, &stream->out, len) != 0) {
        set_err(h2, CAKE_ENOMEM);
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (!stream->out.is_ended && h2->config.events->on_sent != NULL)
        h2->config.events->on_sent(h2->config.arg, stream);
    return 0;
}

static ssize_t frame_length(nghttp2_session *session, uint8_t type, int32_t id, int32_t connection_window,
                            int32_t stream_window, uint32_t max_frame, void *arg)
{
    uint64_t window = (uint64_t)(connection_window < stream_window ? connection_window : stream_window);
    return (ssize_t)cake__min_u64(cake__min_u64(window, max_frame), CAKE__H2_FRAME_MAX);
}

/* ---- create, operate, destroy ---- */

static int submit_settings(cake__h2_t *h2)
{
    const cake__h2_config_t *config = &h2->config;
    const nghttp2_settings_entry all[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, CAKE__H2_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, CAKE__H2_FRAME_MAX},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, config->max_header_bytes},
        {config->is_server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
         config->is_server ? config->max_streams : 0},
    };
    if (nghttp2_submit_settings(h2->session, 0, all, CAKE_COUNT_OF(all)) != 0)
        return CAKE_ENOMEM;
    return nghttp2_session_set_local_window_size(h2->session, 0, 0, CAKE__H2_CONNECTION_WINDOW) == 0 ? 0 : CAKE_ENOMEM;
}

static int make_session(cake__h2_t *h2)
{
    const cake__h2_config_t *config = &h2->config;
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    nghttp2_mem mem = {(void *)(uintptr_t)config->alloc, mem_malloc, mem_free, mem_calloc, mem_realloc};
    int err = CAKE_ENOMEM;
    if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&option) != 0)
        goto done;
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data);
    nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, frame_length);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_peer_max_concurrent_streams(option, config->max_streams);
    int made = config->is_server ? nghttp2_session_server_new3(&h2->session, callbacks, h2, option, &mem)
                                 : nghttp2_session_client_new3(&h2->session, callbacks, h2, option, &mem);
    err = made == 0 ? submit_settings(h2) : CAKE_ENOMEM;
done:
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return err;
}

int cake__h2_new(const cake__h2_config_t *config, cake__h2_t **out)
{
    cake__h2_t *h2 = cake__calloc(config->alloc, 1, sizeof *h2);
    *out = NULL;
    if (h2 == NULL)
        return CAKE_ENOMEM;
    h2->config = *config;
    cake__list_init(&h2->streams);
    int err = make_session(h2);
    if (err != 0)
        cake__h2_free(h2);
    else
        *out = h2;
    return err;
}

void cake__h2_free(cake__h2_t *h2)
{
    if (h2 == NULL)
        return;
    CAKE_ASSERT(!h2->is_receiving && h2->batch == NULL);
    nghttp2_session_del(h2->session);
    h2->session = NULL;
    for (cake__list_t *link = cake__list_pop_front(&h2->streams); link != NULL;
         link = cake__list_pop_front(&h2->streams)) {
        cake__h2_stream_t *stream = CAKE_CONTAINER_OF(link, cake__h2_stream_t, link);
        h2->config.events->on_closed(h2->config.arg, stream, CAKE__H2_LOST);
    }
    cake__free(h2->config.alloc, h2);
}

static int error_of(const cake__h2_t *h2, ssize_t result)
{
    if (h2->err != 0)
        return h2->err;
    if (result >= 0)
        return 0;
    return result == NGHTTP2_ERR_NOMEM ? CAKE_ENOMEM : result == NGHTTP2_ERR_FLOODED ? CAKE_EBUSY : CAKE_EPARSE;
}

int cake__h2_receive(cake__h2_t *h2, uint64_t now_ns, const uint8_t *data, size_t len)
{
    CAKE_ASSERT(!h2->is_receiving);
    h2->now_ns = now_ns;
    h2->is_receiving = true;
    ssize_t taken = nghttp2_session_mem_recv(h2->session, data, len);
    h2->is_receiving = false;
    return error_of(h2, taken);
}

int cake__h2_pull(cake__h2_t *h2, cake__batch_t *batch)
{
    CAKE_ASSERT(!h2->is_receiving && h2->batch == NULL);
    ssize_t len = 0;
    int err = 0;
    h2->batch = batch;
    while (err == 0 && cake__batch_has_room(batch)) {
        const uint8_t *data;
        len = nghttp2_session_mem_send(h2->session, &data);
        if (len <= 0)
            break;
        err = cake__batch_copy(batch, data, (size_t)len);
    }
    h2->batch = NULL;
    bool may_say_why = h2->err == CAKE_EBUSY || h2->err == CAKE_EPARSE;
    return err != 0 ? err : may_say_why ? 0 : error_of(h2, len);
}

bool cake__h2_has_output(const cake__h2_t *h2)
{
    return nghttp2_session_want_write(h2->session) != 0;
}

bool cake__h2_is_over(const cake__h2_t *h2)
{
    return nghttp2_session_want_read(h2->session) == 0 && nghttp2_session_want_write(h2->session) == 0;
}

/* ---- commands ---- */

int cake__h2_request(cake__h2_t *h2, cake__h2_stream_t *stream, const cake__h2_header_t *headers, size_t count)
{
    nghttp2_nv nv[NV_MAX];
    nghttp2_data_provider provider = {.source = {.ptr = stream}, .read_callback = read_body};
    bool has_body = stream->out.pending > 0 || !stream->out.is_ended;
    CAKE_ASSERT(!h2->config.is_server && stream->id == 0 && count <= NV_MAX);
    for (size_t i = 0; i < count; i++)
        fill_nv(&nv[i], &headers[i]);
    int32_t id = nghttp2_submit_request(h2->session, NULL, nv, count, has_body ? &provider : NULL, stream);
    if (id < 0)
        return id == NGHTTP2_ERR_NOMEM ? CAKE_ENOMEM : CAKE_ECLOSED;
    stream->id = id;
    cake__list_init(&stream->link);
    cake__list_push_back(&h2->streams, &stream->link);
    return 0;
}

int cake__h2_respond(cake__h2_t *h2, cake__h2_stream_t *stream, const cake__h2_header_t *headers, size_t count)
{
    nghttp2_nv nv[NV_MAX];
    nghttp2_data_provider provider = {.source = {.ptr = stream}, .read_callback = read_body};
    bool has_body = stream->out.pending > 0 || !stream->out.is_ended || stream->trailer_count > 0;
    CAKE_ASSERT(h2->config.is_server && stream->id != 0 && count <= NV_MAX);
    for (size_t i = 0; i < count; i++)
        fill_nv(&nv[i], &headers[i]);
    int result = nghttp2_submit_response(h2->session, stream->id, nv, count, has_body ? &provider : NULL);
    if (result == NGHTTP2_ERR_NOMEM)
        set_err(h2, CAKE_ENOMEM);
    return result == 0 ? 0 : result == NGHTTP2_ERR_NOMEM ? CAKE_ENOMEM : CAKE_ECLOSED;
}

void cake__h2_resume(cake__h2_t *h2, cake__h2_stream_t *stream)
{
    if (!stream->is_deferred)
        return;
    stream->is_deferred = false;
    if (nghttp2_session_resume_data(h2->session, stream->id) == NGHTTP2_ERR_NOMEM)
        set_err(h2, CAKE_ENOMEM);
}

void cake__h2_reset(cake__h2_t *h2, cake__h2_stream_t *stream)
{
    if (stream->is_reset)
        return;
    stream->is_reset = true;
    if (nghttp2_submit_rst_stream(h2->session, 0, stream->id, NGHTTP2_CANCEL) != 0)
        set_err(h2, CAKE_ENOMEM);
}

void cake__h2_consume(cake__h2_t *h2, cake__h2_stream_t *stream, size_t len)
{
    if (nghttp2_session_consume_stream(h2->session, stream->id, len) == NGHTTP2_ERR_NOMEM)
        set_err(h2, CAKE_ENOMEM);
}

void cake__h2_ping(cake__h2_t *h2)
{
    if (nghttp2_submit_ping(h2->session, 0, NULL) != 0)
        set_err(h2, CAKE_ENOMEM);
}

void cake__h2_goaway(cake__h2_t *h2)
{
    int32_t last = nghttp2_session_get_last_proc_stream_id(h2->session);
    if (nghttp2_submit_goaway(h2->session, 0, last, NGHTTP2_NO_ERROR, NULL, 0) != 0)
        set_err(h2, CAKE_ENOMEM);
}

uint32_t cake__h2_peer_max_streams(const cake__h2_t *h2)
{
    return nghttp2_session_get_remote_settings(h2->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

bool cake__h2_takes_requests(const cake__h2_t *h2)
{
    return h2->err == 0 && nghttp2_session_check_request_allowed(h2->session) != 0;
}
