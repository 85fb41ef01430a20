/* receive.c: what a session receives: frames (RFC 9113, 4 and 6), their order, header blocks. Whatever breaks the
 * rules ends the stream or the connection, as the RFC says; only bytes that keep them become events. */
#include "rpc/h2/state.h"

#define USELESS_FRAMES_PER_S 10000u /* empty DATA, PRIORITY: allowed, and of no use to anybody */
#define WINDOW_UPDATES_PER_S 1000000u
#define SETTINGS_MAX         32u /* entries of one frame: there are about ten that mean something */
#define NS_PER_S             UINT64_C(1000000000)

static const char MAGIC[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/* ---- errors ---- */

static void fail(cake__h2_t *h2, uint32_t code)
{
    cake__h2_fail(h2, CAKE_EPARSE, code);
}

/* Counts one of a kind in the current second; too many of it end the connection with ENHANCE_YOUR_CALM. */
static void count_rate(cake__h2_t *h2, int kind, uint32_t max)
{
    if (h2->now_ns - h2->rates_since_ns >= NS_PER_S) {
        h2->rates_since_ns = h2->now_ns;
        memset(h2->rates, 0, sizeof h2->rates);
    }
    if (++h2->rates[kind] > max)
        cake__h2_fail(h2, CAKE_EBUSY, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void put_reset(cake__h2_t *h2, int32_t id, uint32_t code)
{
    cake__h2_put_u32_frame(h2, NGHTTP2_RST_STREAM, id, code);
    cake__h2_asked(h2, CAKE__H2_HEAD_BYTES + 4);
}

/* A request that the peer has us reset by a bad frame leaves its handler at work, as one that it resets itself: both
 * count alike. Bad replies take no more than the calls that a client has made. */
static void fail_stream(cake__h2_t *h2, int32_t id, uint32_t code)
{
    cake__h2_stream_t *stream = cake__h2_find(h2, id);
    put_reset(h2, id, code);
    if (h2->config.is_server)
        count_rate(h2, CAKE__H2_RATE_RESET, h2->config.max_resets_per_s);
    if (stream == NULL)
        return;
    stream->is_reset = true;
    cake__h2_close_stream(h2, stream, CAKE__H2_RESET);
}

/* A peer that goes on with a stream it has ended itself is told (RFC 9113, 5.1); what comes for streams that were
 * ended by us may have been on its way, and is dropped. */
static bool is_over(const cake__h2_t *h2, int32_t id)
{
    if (id >= h2->skipped_from && id <= h2->skipped_to)
        return true;
    for (size_t i = 0; i < CAKE__H2_OVER_IDS; i++) {
        if (h2->over_ids[i] == id)
            return true;
    }
    return false;
}

/* Streams that nobody has opened yet. */
static bool is_idle(const cake__h2_t *h2, int32_t id)
{
    if (!h2->config.is_server)
        return (id & 1) == 0 || id >= h2->next_id;
    return (id & 1) == 0 || id > h2->last_id;
}

/* ---- header blocks ---- */

enum { SEEN_METHOD = 1, SEEN_SCHEME = 2, SEEN_PATH = 4, SEEN_AUTHORITY = 8, SEEN_STATUS = 16 };

static uint32_t pseudo_of(bool is_server, cake_slice_t name)
{
    static const struct {
        cake_slice_t name;
        uint32_t bit;
    } all[] = {{{":method", 7}, SEEN_METHOD},
               {{":scheme", 7}, SEEN_SCHEME},
               {{":path", 5}, SEEN_PATH},
               {{":authority", 10}, SEEN_AUTHORITY}};
    if (!is_server)
        return cake__slice_equal(name, cake__slice(":status", 7)) ? SEEN_STATUS : 0;
    for (size_t i = 0; i < CAKE_COUNT_OF(all); i++) {
        if (cake__slice_equal(name, all[i].name))
            return all[i].bit;
    }
    return 0;
}

/* Of one connection (RFC 9113, 8.2.2): an intermediary's matter, and a sign of smuggling. */
static bool is_of_connection(cake_slice_t name, cake_slice_t value)
{
    static const cake_slice_t all[] = {
        {"connection", 10}, {"keep-alive", 10}, {"proxy-connection", 16}, {"transfer-encoding", 17}, {"upgrade", 7}};
    for (size_t i = 0; i < CAKE_COUNT_OF(all); i++) {
        if (cake__slice_equal(name, all[i]))
            return true;
    }
    return cake__slice_equal(name, cake__slice("te", 2)) && !cake__slice_equal(value, cake__slice("trailers", 8));
}

static bool read_length(cake__h2_stream_t *stream, cake_slice_t value)
{
    const char *at = value.data;
    int64_t length = 0;
    if (value.len == 0 || value.len > 18 || stream->length_left != -1)
        return false;
    for (size_t i = 0; i < value.len; i++) {
        if (at[i] < '0' || at[i] > '9')
            return false;
        length = length * 10 + (at[i] - '0');
    }
    stream->length_left = length;
    return true;
}

static bool is_status(cake_slice_t value)
{
    const char *at = value.data;
    return value.len == 3 && at[0] >= '1' && at[0] <= '9' && at[1] >= '0' && at[1] <= '9' && at[2] >= '0' &&
           at[2] <= '9';
}

/* RFC 9113, 8.2 and 8.3. */
static bool is_fine(cake__h2_t *h2, cake_slice_t name, cake_slice_t value)
{
    if (name.len == 0 || nghttp2_check_header_value(value.data, value.len) == 0)
        return false;
    if (*(const char *)name.data == ':') {
        uint32_t bit = pseudo_of(h2->config.is_server, name);
        bool is_allowed = bit != 0 && (h2->block_pseudo & bit) == 0 && !h2->has_regular && !h2->is_block_trailer;
        h2->block_pseudo |= bit;
        h2->is_block_interim = bit == SEEN_STATUS && value.len > 0 && *(const char *)value.data == '1';
        return is_allowed && (bit != SEEN_PATH || value.len > 0) && (bit != SEEN_STATUS || is_status(value));
    }
    h2->has_regular = true;
    if (nghttp2_check_header_name(name.data, name.len) == 0 || is_of_connection(name, value))
        return false;
    bool is_length = cake__slice_equal(name, cake__slice("content-length", 14)) && !h2->is_block_trailer;
    return !is_length || read_length(h2->block_stream, value);
}

void cake__h2_take_header(cake__h2_t *h2, cake_slice_t name, cake_slice_t value)
{
    cake__h2_stream_t *stream = h2->block_stream;
    size_t max = h2->config.max_header_bytes;
    if (stream == NULL || h2->is_block_bad)
        return;
    stream->header_bytes += name.len + value.len + 32; /* as RFC 9113, 6.5.2 counts them */
    if (stream->header_bytes > 4 * max)                /* a few small indices can stand for megabytes */
        h2->is_block_bad = true;
    else if (!is_fine(h2, name, value))
        h2->is_block_bad = true;
    else if (stream->header_bytes <= max)
        h2->config.events->on_header(h2->config.arg, stream, name, value);
}

/* ---- messages ---- */

static void remote_ended(cake__h2_t *h2, cake__h2_stream_t *stream)
{
    if (stream->length_left > 0) {
        fail_stream(h2, stream->id, NGHTTP2_PROTOCOL_ERROR);
        return;
    }
    stream->is_remote_ended = true;
    h2->config.events->on_end(h2->config.arg, stream);
    if (stream->is_local_ended)
        cake__h2_close_stream(h2, stream, CAKE__H2_DONE);
}

static bool is_complete(const cake__h2_t *h2)
{
    const uint32_t request = SEEN_METHOD | SEEN_SCHEME | SEEN_PATH;
    if (h2->is_block_trailer)
        return true;
    return h2->config.is_server ? (h2->block_pseudo & request) == request : (h2->block_pseudo & SEEN_STATUS) != 0;
}

static void end_block(cake__h2_t *h2)
{
    cake__h2_stream_t *stream = h2->block_stream;
    int32_t id = h2->block_id;
    bool is_end = h2->block_ends_stream;
    h2->block_id = 0;
    h2->block_stream = NULL;
    if (stream == NULL)
        return;
    if (h2->is_block_bad || !is_complete(h2) || (h2->is_block_interim && is_end)) {
        fail_stream(h2, id, NGHTTP2_PROTOCOL_ERROR);
        return;
    }
    stream->has_head = !h2->is_block_interim;
    h2->config.events->on_headers(h2->config.arg, stream);
    if (is_end && !stream->is_reset)
        remote_ended(h2, stream);
}

static void take_block(cake__h2_t *h2, const uint8_t *data, size_t len, bool is_first, bool is_last)
{
    if (cake__h2_inflate(h2, data, len, is_first, is_last) && is_last && h2->err == 0)
        end_block(h2);
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

/* A request's first frame. NULL: it is refused, or comes after our GOAWAY. Refusals are not counted: a client may send
 * thousands of requests too many before it has our settings, nothing runs for them, and a peer that does not read them
 * is bounded by CAKE__H2_CONTROL_MAX. */
static cake__h2_stream_t *begin_request(cake__h2_t *h2, int32_t id)
{
    note_begun(h2, id);
    if (h2->is_goaway_sent && id > h2->goaway_id)
        return NULL;
    cake__h2_stream_t *stream =
        h2->stream_count < h2->config.max_streams ? h2->config.events->on_begin(h2->config.arg) : NULL;
    if (stream == NULL) {
        put_reset(h2, id, NGHTTP2_REFUSED_STREAM);
        return NULL;
    }
    if (cake__h2_add(h2, stream, id) != 0) { /* the owner has it back by the same event as always */
        stream->id = id;
        cake__h2_fail(h2, CAKE_ENOMEM, NGHTTP2_INTERNAL_ERROR);
        h2->config.events->on_closed(h2->config.arg, stream, CAKE__H2_LOST);
        return NULL;
    }
    return stream;
}

/* The stream that a HEADERS frame is for. False: the frame is against the rules, and has been answered. */
static bool choose_stream(cake__h2_t *h2, int32_t id, bool is_end)
{
    cake__h2_stream_t *stream = cake__h2_find(h2, id);
    h2->is_block_trailer = false;
    h2->block_stream = NULL;
    if (stream != NULL) {
        if (stream->is_remote_ended && !stream->is_reset) {
            fail(h2, NGHTTP2_STREAM_CLOSED);
            return false;
        }
        h2->is_block_trailer = stream->has_head;
        h2->is_block_bad = stream->has_head && !is_end; /* a second head */
        h2->block_stream = stream->is_reset ? NULL : stream;
        if (h2->block_stream != NULL)
            stream->header_bytes = 0;
        return true;
    }
    if (is_idle(h2, id)) {
        if (!h2->config.is_server || (id & 1) == 0) {
            fail(h2, NGHTTP2_PROTOCOL_ERROR);
            return false;
        }
        h2->block_stream = begin_request(h2, id);
        return h2->err == 0;
    }
    if (is_over(h2, id))
        fail(h2, NGHTTP2_STREAM_CLOSED);
    return h2->err == 0;
}

static void on_headers(cake__h2_t *h2, const uint8_t *data, size_t len)
{
    bool is_end = (h2->flags & NGHTTP2_FLAG_END_STREAM) != 0, is_last = (h2->flags & NGHTTP2_FLAG_END_HEADERS) != 0;
    size_t padding = 0;
    int32_t id = h2->frame_id;
    bool depends_on_itself = false;
    bool has_padding = (h2->flags & NGHTTP2_FLAG_PADDED) != 0, has_priority = (h2->flags & NGHTTP2_FLAG_PRIORITY) != 0;
    if (len < (has_padding ? 1u : 0u) + (has_priority ? 5u : 0u)) {
        fail(h2, NGHTTP2_FRAME_SIZE_ERROR);
        return;
    }
    if (has_padding) {
        padding = data[0];
        data++;
        len--;
    }
    if (has_priority) {
        depends_on_itself = (int32_t)(cake__h2_load_u32(data) & INT32_MAX) == id;
        data += 5;
        len -= 5;
    }
    if (padding > len) {
        fail(h2, NGHTTP2_PROTOCOL_ERROR);
        return;
    }
    h2->is_block_bad = h2->is_block_interim = h2->has_regular = false;
    h2->block_pseudo = 0;
    if (!choose_stream(h2, id, is_end))
        return;
    h2->block_id = id;
    h2->block_ends_stream = is_end;
    h2->is_block_bad |= depends_on_itself;
    take_block(h2, data, len - padding, true, is_last);
}

static void on_continuation(cake__h2_t *h2, const uint8_t *data, size_t len)
{
    take_block(h2, data, len, false, (h2->flags & NGHTTP2_FLAG_END_HEADERS) != 0);
}

/* ---- DATA, which goes through in pieces ---- */

static void begin_data(cake__h2_t *h2)
{
    cake__h2_stream_t *stream = cake__h2_find(h2, h2->frame_id);
    h2->has_padding = (h2->flags & NGHTTP2_FLAG_PADDED) == 0;
    h2->padding_left = 0;
    h2->data_stream = NULL;
    if (!h2->has_padding && h2->frame_len == 0) {
        fail(h2, NGHTTP2_FRAME_SIZE_ERROR);
        return;
    }
    if (h2->frame_len > h2->receive_left) {
        fail(h2, NGHTTP2_FLOW_CONTROL_ERROR);
        return;
    }
    h2->receive_left -= h2->frame_len;
    h2->consumed += h2->frame_len;
    if (h2->consumed >= CAKE__H2_CONNECTION_WINDOW / 4) {
        cake__h2_put_u32_frame(h2, NGHTTP2_WINDOW_UPDATE, 0, h2->consumed);
        h2->receive_left += h2->consumed;
        h2->consumed = 0;
    }
    if (stream == NULL) {
        if (is_idle(h2, h2->frame_id))
            fail(h2, NGHTTP2_PROTOCOL_ERROR);
        else if (is_over(h2, h2->frame_id))
            fail(h2, NGHTTP2_STREAM_CLOSED);
        return;
    }
    if (stream->is_reset)
        return;
    if (stream->is_remote_ended || !stream->has_head)
        fail_stream(h2, stream->id, stream->has_head ? NGHTTP2_STREAM_CLOSED : NGHTTP2_PROTOCOL_ERROR);
    else if ((int64_t)h2->frame_len > stream->receive_left)
        fail_stream(h2, stream->id, NGHTTP2_FLOW_CONTROL_ERROR);
    else {
        stream->receive_left -= (int32_t)h2->frame_len;
        h2->data_stream = stream;
    }
}

static void end_data(cake__h2_t *h2)
{
    cake__h2_stream_t *stream = h2->data_stream;
    bool is_end = (h2->flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (h2->frame_len == 0 && !is_end)
        count_rate(h2, CAKE__H2_RATE_USELESS, USELESS_FRAMES_PER_S);
    if (is_end && h2->err == 0 && stream != NULL && !stream->is_reset)
        remote_ended(h2, stream);
}

/* Gives how many bytes of data it took. */
static size_t take_data(cake__h2_t *h2, const uint8_t *data, size_t len)
{
    size_t taken = 0;
    cake__h2_stream_t *stream = h2->data_stream;
    if (!h2->has_padding) {
        h2->has_padding = true;
        h2->padding_left = data[0];
        if (h2->padding_left > --h2->frame_left) {
            fail(h2, NGHTTP2_PROTOCOL_ERROR);
            return 1;
        }
        if (stream != NULL && !stream->is_reset)
            cake__h2_consume(h2, stream, 1 + h2->padding_left);
        taken = 1;
    }
    size_t body = cake__min_u64(len - taken, h2->frame_left - h2->padding_left);
    if (body > 0 && stream != NULL && !stream->is_reset) {
        bool is_whole = (h2->flags & NGHTTP2_FLAG_END_STREAM) != 0 && body == h2->frame_len;
        if (stream->length_left >= 0 && (stream->length_left -= (int64_t)body) < 0)
            fail_stream(h2, stream->id, NGHTTP2_PROTOCOL_ERROR);
        else
            h2->config.events->on_data(h2->config.arg, stream, data + taken, body, is_whole);
    }
    h2->frame_left -= (uint32_t)body;
    taken += body;
    size_t padding = cake__min_u64(len - taken, h2->frame_left <= h2->padding_left ? h2->frame_left : 0);
    h2->frame_left -= (uint32_t)padding;
    h2->padding_left -= (uint32_t)padding;
    return taken + padding;
}

/* ---- the other frames ---- */

static void on_priority(cake__h2_t *h2, const uint8_t *data, size_t len)
{
    count_rate(h2, CAKE__H2_RATE_USELESS, USELESS_FRAMES_PER_S);
    if (len != 5)
        fail_stream(h2, h2->frame_id, NGHTTP2_FRAME_SIZE_ERROR);
    else if ((int32_t)(cake__h2_load_u32(data) & INT32_MAX) == h2->frame_id)
        fail_stream(h2, h2->frame_id, NGHTTP2_PROTOCOL_ERROR);
}

static void on_rst_stream(cake__h2_t *h2, const uint8_t *data, size_t len)
{
    cake__h2_stream_t *stream = cake__h2_find(h2, h2->frame_id);
    if (len != 4) {
        fail(h2, NGHTTP2_FRAME_SIZE_ERROR);
        return;
    }
    if (is_idle(h2, h2->frame_id)) {
        fail(h2, NGHTTP2_PROTOCOL_ERROR);
        return;
    }
    count_rate(h2, CAKE__H2_RATE_RESET, h2->config.max_resets_per_s);
    if (stream == NULL)
        return;
    uint32_t code = cake__h2_load_u32(data);
    cake__h2_reason_t reason = CAKE__H2_RESET;
    if (code == NGHTTP2_REFUSED_STREAM)
        reason = CAKE__H2_REFUSED;
    else if (code == NGHTTP2_NO_ERROR && !stream->is_reset)
        reason = CAKE__H2_DONE;
    stream->is_remote_ended = true;
    cake__h2_close_stream(h2, stream, reason);
}

/* Costs a walk over all streams: once in a frame. */
static bool set_window(cake__h2_t *h2, int64_t value)
{
    int64_t change = value - h2->peer_window;
    if (change == 0)
        return true;
    h2->peer_window = value;
    CAKE_LIST_FOR_EACH(link, &h2->streams)
    {
        cake__h2_stream_t *stream = CAKE_CONTAINER_OF(link, cake__h2_stream_t, link);
        stream->send_left += change;
        if (stream->send_left > CAKE__H2_WINDOW_MOST)
            return false;
        if (stream->out.pending > 0)
            cake__h2_wants_turn(h2, stream);
    }
    return true;
}

/* window: the streams', set at the end of the frame. */
static uint32_t apply_setting(cake__h2_t *h2, unsigned id, uint32_t value, int64_t *window)
{
    switch (id) {
    case NGHTTP2_SETTINGS_HEADER_TABLE_SIZE:
        if (cake__deflate_limit(&h2->deflate, value) != 0)
            cake__h2_set_err(h2, CAKE_ENOMEM);
        return 0;
    case NGHTTP2_SETTINGS_ENABLE_PUSH:
        return value > (h2->config.is_server ? 1u : 0u) ? NGHTTP2_PROTOCOL_ERROR : 0;
    case NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS:
        h2->peer_max_streams = value;
        return 0;
    case NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE:
        *window = value;
        return value <= CAKE__H2_WINDOW_MOST ? 0 : NGHTTP2_FLOW_CONTROL_ERROR;
    case NGHTTP2_SETTINGS_MAX_FRAME_SIZE:
        if (value < CAKE__H2_FRAME_FIRST || value > 0xffffff)
            return NGHTTP2_PROTOCOL_ERROR;
        h2->peer_frame_max = value;
        return 0;
    default:
        return 0; /* those unknown are ignored (RFC 9113, 6.5.2) */
    }
}

/* Entries count in their order (RFC 9113, 6.5.3), so that the last window of a frame is the one that holds: one before
 * it that would have been too much for a stream was never in force, and is no error. */
static void on_settings(cake__h2_t *h2, const uint8_t *data, size_t len)
{
    bool is_ack = (h2->flags & NGHTTP2_FLAG_ACK) != 0;
    int64_t window = h2->peer_window;
    if (len % 6 != 0 || (is_ack && len != 0)) {
        fail(h2, NGHTTP2_FRAME_SIZE_ERROR);
        return;
    }
    if (is_ack)
        return;
    count_rate(h2, CAKE__H2_RATE_SETTINGS, h2->config.max_settings_per_s);
    if (len / 6 > SETTINGS_MAX)
        cake__h2_fail(h2, CAKE_EBUSY, NGHTTP2_ENHANCE_YOUR_CALM);
    for (size_t i = 0; i < len && h2->err == 0; i += 6) {
        unsigned id = (unsigned)data[i] << 8 | data[i + 1];
        uint32_t code = apply_setting(h2, id, cake__h2_load_u32(data + i + 2), &window);
        if (code != 0)
            fail(h2, code);
    }
    if (h2->err == 0 && !set_window(h2, window))
        fail(h2, NGHTTP2_FLOW_CONTROL_ERROR);
    if (h2->err != 0)
        return;
    (void)cake__h2_put_frame(h2, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, 0);
    cake__h2_asked(h2, CAKE__H2_HEAD_BYTES);
    bool is_first = !h2->has_settings;
    h2->has_settings = true;
    if (is_first && h2->config.events->on_settings != NULL)
        h2->config.events->on_settings(h2->config.arg);
}

static void on_ping(cake__h2_t *h2, const uint8_t *data, size_t len)
{
    if (len != 8) {
        fail(h2, NGHTTP2_FRAME_SIZE_ERROR);
        return;
    }
    if ((h2->flags & NGHTTP2_FLAG_ACK) != 0)
        return;
    count_rate(h2, CAKE__H2_RATE_PING, h2->config.max_pings_per_s);
    uint8_t *to = h2->err == 0 ? cake__h2_put_frame(h2, NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, 8) : NULL;
    if (to == NULL)
        return;
    memcpy(to, data, 8);
    cake__h2_asked(h2, CAKE__H2_HEAD_BYTES + 8);
}

/* Requests beyond its last were not begun, and may be made again. */
static void on_goaway(cake__h2_t *h2, const uint8_t *data, size_t len)
{
    if (len < 8) {
        fail(h2, NGHTTP2_FRAME_SIZE_ERROR);
        return;
    }
    int32_t last = (int32_t)(cake__h2_load_u32(data) & INT32_MAX);
    bool is_first = !h2->has_goaway;
    h2->has_goaway = true;
    cake__list_t *link = h2->streams.next;
    while (link != &h2->streams && !h2->config.is_server) {
        cake__h2_stream_t *stream = CAKE_CONTAINER_OF(link, cake__h2_stream_t, link);
        link = link->next;
        if (stream->id > last)
            cake__h2_close_stream(h2, stream, stream->is_reset ? CAKE__H2_RESET : CAKE__H2_REFUSED);
    }
    if (is_first && h2->config.events->on_goaway != NULL)
        h2->config.events->on_goaway(h2->config.arg);
}

static void widen_connection(cake__h2_t *h2, uint32_t by)
{
    h2->send_left += by;
    if (by == 0 || h2->send_left > CAKE__H2_WINDOW_MOST)
        fail(h2, by == 0 ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_FLOW_CONTROL_ERROR);
    else
        cake__list_splice(&h2->sending, &h2->blocked);
}

static void on_window_update(cake__h2_t *h2, const uint8_t *data, size_t len)
{
    if (len != 4) {
        fail(h2, NGHTTP2_FRAME_SIZE_ERROR);
        return;
    }
    uint32_t by = cake__h2_load_u32(data) & INT32_MAX;
    count_rate(h2, CAKE__H2_RATE_WINDOW, WINDOW_UPDATES_PER_S);
    if (h2->frame_id == 0) {
        widen_connection(h2, by);
        return;
    }
    cake__h2_stream_t *stream = cake__h2_find(h2, h2->frame_id);
    if (is_idle(h2, h2->frame_id)) {
        fail(h2, NGHTTP2_PROTOCOL_ERROR);
    } else if (stream != NULL && !stream->is_reset) {
        stream->send_left += by;
        if (by == 0 || stream->send_left > CAKE__H2_WINDOW_MOST)
            fail_stream(h2, stream->id, by == 0 ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_FLOW_CONTROL_ERROR);
        else if (stream->out.pending > 0)
            cake__h2_wants_turn(h2, stream);
    }
}

/* ---- frames ---- */

/* A header block is not interrupted, and each type belongs to a stream, or to none. */
static bool may_come(const cake__h2_t *h2)
{
    bool is_in_block = h2->block_id != 0, is_of_stream = h2->frame_id != 0;
    switch (h2->type) {
    case NGHTTP2_DATA:
    case NGHTTP2_HEADERS:
    case NGHTTP2_PRIORITY:
    case NGHTTP2_RST_STREAM:
        return !is_in_block && is_of_stream;
    case NGHTTP2_CONTINUATION:
        return is_in_block && h2->block_id == h2->frame_id;
    case NGHTTP2_SETTINGS:
    case NGHTTP2_PING:
    case NGHTTP2_GOAWAY:
        return !is_in_block && !is_of_stream;
    case NGHTTP2_PUSH_PROMISE:
        return false;
    default:
        return !is_in_block;
    }
}

/* What can be told from the head alone. */
static void begin_frame(cake__h2_t *h2)
{
    bool is_early = !h2->has_settings && (h2->type != NGHTTP2_SETTINGS || (h2->flags & NGHTTP2_FLAG_ACK) != 0);
    if (h2->frame_len > CAKE__H2_FRAME_MAX)
        fail(h2, NGHTTP2_FRAME_SIZE_ERROR);
    else if (is_early || !may_come(h2))
        fail(h2, NGHTTP2_PROTOCOL_ERROR);
    h2->continuations = h2->type == NGHTTP2_CONTINUATION ? h2->continuations + 1 : 0;
    if (h2->continuations > CAKE__H2_CONTINUATIONS_MAX)
        cake__h2_fail(h2, CAKE_EBUSY, NGHTTP2_ENHANCE_YOUR_CALM);
    if (h2->err == 0 && h2->type == NGHTTP2_DATA)
        begin_data(h2);
}

static void take_frame(cake__h2_t *h2, const uint8_t *data, size_t len)
{
    switch (h2->type) {
    case NGHTTP2_HEADERS:
        on_headers(h2, data, len);
        break;
    case NGHTTP2_PRIORITY:
        on_priority(h2, data, len);
        break;
    case NGHTTP2_RST_STREAM:
        on_rst_stream(h2, data, len);
        break;
    case NGHTTP2_SETTINGS:
        on_settings(h2, data, len);
        break;
    case NGHTTP2_PING:
        on_ping(h2, data, len);
        break;
    case NGHTTP2_GOAWAY:
        on_goaway(h2, data, len);
        break;
    case NGHTTP2_WINDOW_UPDATE:
        on_window_update(h2, data, len);
        break;
    case NGHTTP2_CONTINUATION:
        on_continuation(h2, data, len);
        break;
    default:
        break; /* those unknown are ignored (RFC 9113, 5.5) */
    }
}

static size_t read_head(cake__h2_t *h2, const uint8_t *data, size_t len)
{
    size_t step = CAKE__H2_HEAD_BYTES - h2->head_len;
    const uint8_t *head = data;
    if (step < CAKE__H2_HEAD_BYTES || len < step) { /* a read has cut it */
        step = cake__min_u64(step, len);
        memcpy(h2->head + h2->head_len, data, step);
        head = h2->head;
    }
    h2->head_len += (uint8_t)step;
    if (h2->head_len < CAKE__H2_HEAD_BYTES)
        return step;
    h2->frame_len = h2->frame_left = (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2];
    h2->type = head[3];
    h2->flags = head[4];
    h2->frame_id = (int32_t)(cake__h2_load_u32(head + 5) & INT32_MAX);
    begin_frame(h2);
    return step;
}

/* The rest of a frame whose head has been read, as far as it is there. */
static size_t read_rest(cake__h2_t *h2, const uint8_t *data, size_t len)
{
    size_t taken = 0, step = cake__min_u64(len, h2->frame_left);
    if (h2->type == NGHTTP2_DATA) {
        taken = step > 0 ? take_data(h2, data, step) : 0;
        if (h2->frame_left == 0 && h2->err == 0)
            end_data(h2);
    } else if (step == h2->frame_len) {
        take_frame(h2, data, step);
        h2->frame_left = 0;
        taken = step;
    } else {
        cake__put_bytes(&h2->frame, data, step);
        h2->frame_left -= (uint32_t)step;
        taken = step;
        if (h2->frame.err != 0)
            cake__h2_fail(h2, CAKE_ENOMEM, NGHTTP2_INTERNAL_ERROR);
        else if (h2->frame_left == 0)
            take_frame(h2, h2->frame.data, h2->frame.len);
        if (h2->frame_left == 0)
            cake__buf_free(&h2->frame);
    }
    if (h2->frame_left == 0)
        h2->head_len = 0;
    return taken;
}

static size_t read_preface(cake__h2_t *h2, const uint8_t *data, size_t len)
{
    size_t step = cake__min_u64(sizeof MAGIC - 1 - h2->preface_len, len);
    if (memcmp(data, MAGIC + h2->preface_len, step) != 0)
        fail(h2, NGHTTP2_PROTOCOL_ERROR);
    h2->preface_len += (uint8_t)step;
    return step;
}

cake__h2_stream_t *cake__h2_receiving(const cake__h2_t *h2, size_t *left)
{
    bool is_data = h2->head_len == CAKE__H2_HEAD_BYTES && h2->type == NGHTTP2_DATA && h2->err == 0;
    bool has_padding = !h2->has_padding || h2->padding_left > 0;
    *left = h2->frame_left;
    return !is_data || has_padding || h2->data_stream == NULL || h2->data_stream->is_reset ? NULL : h2->data_stream;
}

int cake__h2_receive(cake__h2_t *h2, uint64_t now_ns, const uint8_t *data, size_t len)
{
    CAKE_ASSERT(!h2->is_receiving && !h2->is_pulling);
    h2->now_ns = now_ns;
    h2->is_receiving = true;
    while (len > 0 && h2->err == 0) {
        size_t taken;
        if (h2->preface_len < sizeof MAGIC - 1)
            taken = read_preface(h2, data, len);
        else if (h2->head_len < CAKE__H2_HEAD_BYTES)
            taken = read_head(h2, data, len);
        else
            taken = read_rest(h2, data, len);
        data += taken;
        len -= taken;
        if (h2->head_len == CAKE__H2_HEAD_BYTES && h2->frame_left == 0 && h2->err == 0)
            (void)read_rest(h2, data, 0); /* a frame without a payload is whole already */
    }
    h2->is_receiving = false;
    return h2->err;
}
