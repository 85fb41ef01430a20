/* stream.h: a TCP stream, and what one with TLS has besides; for stream.c and secure.c only.
 *
 * Events come once for what is there: is_readable holds one that was not read to its end, until the stream wants bytes again. */
#ifndef CAKE_UV_STREAM_H
#define CAKE_UV_STREAM_H

#include <sys/uio.h>

#include "uv/loop.h"
#include "uv/tls.h"

typedef struct cake__secure cake__secure_t;
typedef void (*cake__sent_fn)(cake_stream_t *stream, int err);

struct cake_stream {
    cake__watch_t watch; /* the socket */
    cake__uvenv_t *env;
    cake_stream_handlers_t handlers;
    void *arg;
    cake__secure_t *secure; /* NULL: the bytes are the application's as they are */
    bool is_started, is_connected, is_writing, is_paused, is_read_over, is_shut, is_closing;
    bool is_readable;
    bool has_hung_up; /* the end has come: no event tells of it again, so that it is read to there */
    bool shuts_after_rest;
    int connect_err, write_err;
    cake__later_t read_on, connect_failed, written, closed;
    struct iovec *rest; /* what the socket has not taken of the latest send; NULL: nothing */
    size_t rest_at, rest_count;
    cake__sent_fn rest_sent;
    cake_addr_t peer;
};

/* stream.c */
void cake__uv_read_on(cake_stream_t *stream); /* in the next turn, if there is something and it is wanted */
/* 1: the socket took all of it; 0: the rest goes later, then sent is called; or an error. One at a time. */
int cake__uv_send(cake_stream_t *stream, struct iovec *parts, size_t count, cake__sent_fn sent);
void cake__uv_shut(cake_stream_t *stream); /* after what is being sent */
void cake__uv_close_now(cake_stream_t *stream);

/* secure.c: what stream.c does for a stream with TLS */
int cake__uv_stream_secure(cake_stream_t *stream, cake_tls_t *context);
const char *cake__uv_stream_reason(cake_stream_t *stream);
void cake__secure_free(cake_stream_t *stream);
void cake__secure_start(cake_stream_t *stream);             /* the socket is connected */
bool cake__secure_wants_bytes(const cake_stream_t *stream); /* also when the application does not */
void cake__secure_got(cake_stream_t *stream, void *data,
                      intptr_t got);              /* from the socket, into a buffer of the pool; as on_read's */
void cake__secure_deliver(cake_stream_t *stream); /* the application reads again; later */
void cake__secure_write(cake_stream_t *stream, struct iovec *parts, size_t count); /* parts: until it returns */
bool cake__secure_lingers(cake_stream_t *stream); /* closes it itself, a moment later */
void cake__secure_shutdown(cake_stream_t *stream);

#endif
