/* tls.h: one TLS 1.3 connection as a machine: bytes of the socket in and out, bytes of the application out and in. No sockets,
 * no waiting; stream.c feeds it and sends what it puts out. Loop thread, but for opening a context. */
#ifndef CAKE_UV_TLS_H
#define CAKE_UV_TLS_H

#include <datacake/env.h>

#define CAKE__TLS_WRITE_MAX 65536u /* encrypted at once */
#define CAKE__TLS_KEY_MIN   16u

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

/* Where bytes of the socket are to go, and how many there is room for, once there is no input: then feed tells how many came, and
 * cake__tls_rest that it may let go of the buffer again. Size 0: no memory. */
uint8_t *cake__tls_room(cake__tls_t *tls, size_t *size);
int cake__tls_feed(cake__tls_t *tls, size_t len); /* CAKE_EUNAUTHENTICATED */
void cake__tls_rest(cake__tls_t *tls);
void cake__tls_drop(cake__tls_t *tls);     /* what has come and was not read */
int cake__tls_handshake(cake__tls_t *tls); /* 0: done; CAKE_EBUSY: needs more; else failed */
bool cake__tls_has_input(const cake__tls_t *tls);
intptr_t cake__tls_read(cake__tls_t *tls, void *data, size_t size); /* as on_read's; CAKE_EBUSY: needs more */

/* Once the handshake is done. A record of what the parts begin with; gives how many bytes it took from them. CAKE_ENOMEM. */
intptr_t cake__tls_write(cake__tls_t *tls, const cake_slice_t *parts, size_t count);
void cake__tls_shut(cake__tls_t *tls);
cake_slice_t cake__tls_output(const cake__tls_t *tls); /* for the socket */
void cake__tls_sent(cake__tls_t *tls);                 /* all of it */
uint8_t *cake__tls_take(cake__tls_t *tls);             /* the buffer it lies in, to be given back to the pool */
const char *cake__tls_reason(const cake__tls_t *tls);  /* of the failure; NULL: none */
void cake__tls_fail(cake__tls_t *tls, const char *reason);

#endif
