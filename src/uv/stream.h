/* stream.h: a TCP stream, and what one with TLS has besides; for stream.c and secure.c only. */
#ifndef CAKE_UV_STREAM_H
#define CAKE_UV_STREAM_H

#include "uv/loop.h"
#include "uv/tls.h"

typedef struct cake__secure cake__secure_t;

struct cake_stream {
    uv_tcp_t tcp; /* first: closing gives the handle back */
    cake__uvenv_t *env;
    cake_stream_handlers_t handlers;
    void *arg;
    uv_connect_t connect;
    uv_write_t write;
    uv_shutdown_t shutdown;
    cake__later_t connect_failed, written;
    int connect_err, write_err;
    cake_addr_t peer;
    cake__secure_t *secure; /* NULL: the bytes are the application's as they are */
    bool is_started, is_connected, is_writing, is_paused, is_read_over, is_shut, is_closing;
    bool was_asked; /* for a buffer while it is paused */
};

/* stream.c */
void cake__uv_start_reading(cake_stream_t *stream);
void cake__uv_read(cake_stream_t *stream); /* the socket, whatever the application wants */
/* How many bytes the socket takes at once, 0 for none, or an error of libuv's. Not while libuv sends. */
intptr_t cake__uv_send(cake_stream_t *stream, uv_buf_t *bufs, unsigned count);
void cake__uv_close_now(cake_stream_t *stream);
void cake__uv_end_write(cake_stream_t *stream);

/* secure.c: what stream.c does for a stream with TLS */
int cake__uv_stream_secure(cake_stream_t *stream, cake_tls_t *context);
const char *cake__uv_stream_reason(cake_stream_t *stream);
void cake__secure_free(cake_stream_t *stream);
void cake__secure_start(cake_stream_t *stream);                                 /* the socket is connected */
bool cake__secure_wants_bytes(const cake_stream_t *stream);                     /* also when the application does not */
uv_buf_t cake__secure_buffer(cake_stream_t *stream);                            /* of the socket; empty: no memory */
void cake__secure_got(cake_stream_t *stream, void *data, ssize_t count);        /* as libuv gave it */
void cake__secure_deliver(cake_stream_t *stream);                               /* the application reads again; later */
void cake__secure_write(cake_stream_t *stream, uv_buf_t *bufs, unsigned count); /* bufs: until it returns */
bool cake__secure_lingers(cake_stream_t *stream);                               /* closes it itself, a moment later */
void cake__secure_shutdown(cake_stream_t *stream);

#endif
