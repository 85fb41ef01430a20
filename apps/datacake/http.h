/* http.h: the server's REST side, on libmicrohttpd.
 *
 * A few threads of libmicrohttpd run all requests. A request that has to wait for other nodes is suspended: the
 * store calls back on the node's loop, which resumes it, so that thousands of waiting requests hold no thread. What
 * reads this node's own storage runs on the request's thread.
 *
 * Bounded: connections, the size of a body, all bodies together, watchers and what waits for each, the time a
 * connection may be idle or slow. */
#ifndef DATACAKE_APP_HTTP_H
#define DATACAKE_APP_HTTP_H

#include <datacake/node.h>
#include <datacake/store.h>

#include "log.h"

typedef struct http http_t;

typedef struct http_options {
    const char *token; /* NULL: none is asked for */
    cake_node_t *node;
    cake_store_t *store;
    const log_t *log;
    uint64_t max_value_bytes; /* of one document */
    uint64_t max_body_bytes;  /* held for all requests together */
    uint32_t max_connections;
    uint32_t idle_s; /* a connection that asks nothing, or stops in the middle, is cut */
    const char *storage_name;
    const char *const *names; /* NULL at the end: HOST or HOST:PORT by which browsers reach it; kept by the caller */
} http_options_t;

#define HTTP_NAMES_MAX   16u
#define HTTP_MESSAGE_MAX 256
#define HTTP_ADDRESS_MAX 128
#define HTTP_GREETING_MS 5000u

/* Binds the address, before the node makes itself known: returns the socket, or CAKE_EADDRINUSE, CAKE_EPARSE,
 * CAKE_EINVAL (no address of this machine), CAKE_EIO and message: one line. */
int http_listen(const char *address, char message[HTTP_MESSAGE_MAX]);
/* Of such a socket: with the port it has; a wildcard stays one. */
void http_address(int socket, char out[HTTP_ADDRESS_MAX]);

/* The socket becomes the server's, also after an error. CAKE_ENOMEM, CAKE_EINTERNAL. */
int http_start(const http_options_t *options, int socket, http_t **out);

/* Whether this node takes writes, and the levels of all nodes count it: it has joined, and has exchanged words with
 * the store of every live member (or tried for HTTP_GREETING_MS: one may be out of reach). Once true it stays true. */
bool http_is_ready(http_t *http);

/* Takes no new requests and waits until no thread of libmicrohttpd is inside the store. Requests that wait for
 * other nodes still end when the store closes. */
void http_quiesce(http_t *http);
/* After the store is closed: waits for the last answers, frees everything. NULL allowed. */
void http_stop(http_t *http);

#endif
