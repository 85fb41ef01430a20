/* tls.h: one TLS 1.3 connection as a machine: bytes of the socket in and out, bytes of the application out and in.
 * No sockets, no waiting; stream.c feeds it and sends what it puts out. Loop thread, but for opening a context. */
#ifndef CAKE_UV_TLS_H
#define CAKE_UV_TLS_H

#include <datacake/env.h>

#define CAKE__TLS_INPUT_BYTES 65536u /* read from a socket at once */
#define CAKE__TLS_WRITE_MAX   65536u /* encrypted at once */
#define CAKE__TLS_KEY_MIN     16u

#define CAKE__TLS_BUFFER_BYTES (CAKE__TLS_WRITE_MAX + 4096) /* what is encrypted at once, as records; or what is read */
#define CAKE__TLS_SPARE_MAX    8u

typedef struct cake__tls cake__tls_t;

/* The buffers of one loop: a connection has them only while bytes are on their way. */
typedef struct cake__tls_pool {
    const cake_alloc_t *alloc;
    uint8_t *spare[CAKE__TLS_SPARE_MAX];
    unsigned spare_count;
} cake__tls_pool_t;

uint8_t *cake__tls_buffer(cake__tls_pool_t *pool); /* CAKE__TLS_BUFFER_BYTES; NULL: no memory */
void cake__tls_give(cake__tls_pool_t *pool, uint8_t *buffer);
void cake__tls_pool_free(cake__tls_pool_t *pool);

int cake__tls_open(cake_env_t *env, const cake_tls_config_t *config, cake_tls_t **out);
void cake__tls_close(cake_tls_t *context);

int cake__tls_new(cake_tls_t *context, bool is_server, cake__tls_pool_t *pool, cake__tls_t **out); /* CAKE_ENOMEM */
void cake__tls_free(cake__tls_t *tls);

/* From the socket, once there is no input; buffer is the pool's, and read in place. False from keep: nothing is left
 * of it; true: it is the connection's until it is read. CAKE_EUNAUTHENTICATED. */
int cake__tls_feed(cake__tls_t *tls, uint8_t *buffer, size_t len);
bool cake__tls_keep(cake__tls_t *tls, uint8_t *buffer);
int cake__tls_handshake(cake__tls_t *tls); /* 0: done; CAKE_EBUSY: needs more; else failed */
bool cake__tls_has_input(const cake__tls_t *tls);
intptr_t cake__tls_read(cake__tls_t *tls, void *data, size_t size);  /* as on_read's; CAKE_EBUSY: needs more */
int cake__tls_write(cake__tls_t *tls, const void *data, size_t len); /* all of it, once the handshake is done */
void cake__tls_shut(cake__tls_t *tls);
cake_slice_t cake__tls_output(const cake__tls_t *tls); /* for the socket */
void cake__tls_sent(cake__tls_t *tls);                 /* all of it */
uint8_t *cake__tls_take(cake__tls_t *tls);             /* the buffer it lies in, to be given back to the pool */
const char *cake__tls_reason(const cake__tls_t *tls);  /* of the failure; NULL: none */
void cake__tls_fail(cake__tls_t *tls, const char *reason);

#endif
