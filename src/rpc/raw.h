/* raw.h: for tests: a peer that sends bytes as they were written down, and notes what frames come back. */
#ifndef CAKE_RPC_RAW_H
#define CAKE_RPC_RAW_H

#include <nghttp2/nghttp2.h>

#include "base/bytes.h"
#include "rpc/fixture.h"

#define RAW_FRAME_TYPES 10
#define RAW_KEPT        16384u /* of a frame's payload */

static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/* :method POST, :scheme http, :path /test/park, without an index; :authority a */
static const uint8_t REQUEST[] = {0x83, 0x86, 0x04, 10, '/', 't', 'e', 's', 't', '/', 'p', 'a', 'r', 'k', 0x01, 1, 'a'};
static const uint8_t MAKE[] = {0x83, 0x86, 0x04, 10, '/', 't', 'e', 's', 't', '/', 'm', 'a', 'k', 'e', 0x01, 1, 'a'};

typedef struct {
    cake_env_t *env;
    cake_stream_t *stream;
    cake_addr_t addr;
    const uint8_t *bytes;
    size_t len, sent, got;
    uint8_t in[4096];
    uint8_t head[9]; /* of a frame that comes in */
    size_t head_len, skip;
    uint8_t payload[RAW_KEPT];
    size_t payload_len;
    int frames[RAW_FRAME_TYPES]; /* that have come whole, of each type */
    int pings;                   /* that want an answer */
    uint32_t reset_code;         /* of the last RST_STREAM */
    size_t body_bytes;           /* of DATA */
    nghttp2_hd_inflater *inflater;
    int status;       /* of the last head, or -1 */
    char message[64]; /* the last datacake-message */
    int goaway_code;  /* -1: none has come */
    cake_listener_t *listener;
    atomic_bool is_over;
    bool is_deaf;   /* reads nothing but what it is told to, see listens */
    size_t listens; /* to so many bytes more */
} raw_t;

static inline void raw_send(raw_t *raw)
{
    cake_slice_t part = cake__slice(raw->bytes + raw->sent, cake__min_u64(raw->len - raw->sent, 8192));
    raw->sent += part.len;
    if (part.len > 0 && raw->env->ops->stream_write(raw->stream, &part, 1) != 0)
        raw->env->ops->stream_close(raw->stream);
}

static inline void raw_connected(void *arg, int err)
{
    raw_t *raw = arg;
    assert_int_equal(err, 0);
    if (raw->is_deaf)
        raw->env->ops->stream_pause(raw->stream);
    raw_send(raw);
}

static inline void raw_buffer(void *arg, void **data, size_t *size)
{
    raw_t *raw = arg;
    *data = raw->in;
    *size = sizeof raw->in;
}

static inline uint32_t raw_u32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline bool raw_is(const nghttp2_nv *nv, const char *name)
{
    return cake__slice_equal(cake__slice(nv->name, nv->namelen), cake__slice_str(name));
}

static inline void raw_headers(raw_t *raw)
{
    const uint8_t *at = raw->payload;
    size_t len = raw->payload_len;
    if (raw->inflater == NULL)
        assert_int_equal(nghttp2_hd_inflate_new(&raw->inflater), 0);
    for (int flags = 0; (flags & NGHTTP2_HD_INFLATE_FINAL) == 0;) {
        nghttp2_nv nv;
        ssize_t taken = nghttp2_hd_inflate_hd2(raw->inflater, &nv, &flags, at, len, 1);
        assert_true(taken >= 0);
        at += taken;
        len -= (size_t)taken;
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0)
            continue;
        if (raw_is(&nv, ":status"))
            raw->status = (nv.value[0] - '0') * 100 + (nv.value[1] - '0') * 10 + (nv.value[2] - '0');
        else if (raw_is(&nv, "datacake-message"))
            memcpy(raw->message, nv.value, cake__min_u64(nv.valuelen, sizeof raw->message - 1));
    }
    nghttp2_hd_inflate_end_headers(raw->inflater);
}

static inline void raw_frame(raw_t *raw)
{
    uint8_t type = raw->head[3];
    if (type < RAW_FRAME_TYPES)
        raw->frames[type]++;
    raw->pings += type == NGHTTP2_PING && raw->head[4] == 0;
    if (type == NGHTTP2_HEADERS)
        raw_headers(raw);
    else if (type == NGHTTP2_RST_STREAM)
        raw->reset_code = raw_u32(raw->payload);
    else if (type == NGHTTP2_GOAWAY)
        raw->goaway_code = (int)raw_u32(raw->payload + 4);
}

static inline void raw_frames(raw_t *raw, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (raw->head_len < 9) {
            raw->head[raw->head_len++] = data[i];
            raw->skip = (size_t)raw->head[0] << 16 | (size_t)raw->head[1] << 8 | raw->head[2];
            raw->payload_len = 0;
        } else {
            if (raw->payload_len < RAW_KEPT)
                raw->payload[raw->payload_len++] = data[i];
            raw->body_bytes += raw->head[3] == NGHTTP2_DATA;
            raw->skip--;
        }
        if (raw->head_len < 9 || raw->skip > 0)
            continue;
        raw_frame(raw);
        raw->head_len = 0;
    }
}

static inline void raw_read(void *arg, void *data, intptr_t len)
{
    raw_t *raw = arg;
    if (len <= 0) {
        raw->env->ops->stream_close(raw->stream);
        return;
    }
    raw->got += (size_t)len;
    raw_frames(raw, data, (size_t)len);
    raw->listens -= cake__min_u64(raw->listens, (size_t)len);
    if (raw->is_deaf && raw->listens == 0)
        raw->env->ops->stream_pause(raw->stream);
}

static inline void raw_written(void *arg, int err)
{
    raw_t *raw = arg;
    if (err != 0)
        raw->env->ops->stream_close(raw->stream);
    else
        raw_send(raw);
}

static inline void raw_closed(void *arg)
{
    raw_t *raw = arg;
    if (raw->inflater != NULL)
        nghttp2_hd_inflate_del(raw->inflater);
    raw->inflater = NULL;
    atomic_store(&raw->is_over, true);
}

static const cake_stream_handlers_t RAW_HANDLERS = {raw_connected, raw_buffer, raw_read, raw_written, raw_closed};

static inline int raw_connect(void *arg)
{
    raw_t *raw = arg;
    return raw->env->ops->connect(raw->env, &raw->addr, &RAW_HANDLERS, raw, &raw->stream);
}

static inline int raw_listen(void *arg)
{
    raw_t *raw = arg;
    if (!atomic_load(&raw->is_over))
        raw->env->ops->stream_resume(raw->stream);
    return 0;
}

static inline int raw_again(void *arg)
{
    raw_t *raw = arg;
    raw->sent = 0;
    if (!atomic_load(&raw->is_over))
        raw_send(raw);
    return 0;
}

static inline int raw_close(void *arg)
{
    raw_t *raw = arg;
    if (!atomic_load(&raw->is_over))
        raw->env->ops->stream_close(raw->stream);
    return 0;
}

static inline bool raw_is_over(void *arg)
{
    raw_t *raw = arg;
    return atomic_load(&raw->is_over);
}

static inline void raw_start(fixture_t *fixture, raw_t *raw, const cake__buf_t *bytes)
{
    raw->env = fixture->client_env;
    raw->bytes = bytes->data;
    raw->len = bytes->len;
    raw->goaway_code = raw->status = -1;
    cake_addr_parse(cake_rpc_address(fixture->server), &raw->addr);
    assert_int_equal(cake__run_on_loop(fixture->client_env, raw_connect, raw), 0);
}

static inline void put_frame(cake__buf_t *buf, uint8_t type, uint8_t flags, uint32_t stream, const void *data,
                             size_t len)
{
    uint8_t head[9] = {(uint8_t)(len >> 16),    (uint8_t)(len >> 8),     (uint8_t)len,           type,           flags,
                       (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    cake__put_bytes(buf, head, 9);
    cake__put_bytes(buf, data, len);
}

static inline void put_preface(cake__buf_t *buf)
{
    cake__buf_init(buf, &cake__libc_alloc);
    cake__put_bytes(buf, PREFACE, sizeof PREFACE - 1);
    put_frame(buf, 4, 0, 0, NULL, 0);
}

#endif
