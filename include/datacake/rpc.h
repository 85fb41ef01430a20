/* datacake/rpc.h: calls between programs over HTTP/2: servers whose services come and go, and channels that call them.
 *
 * On the wire a call is `POST /service/method` over HTTP/2, without TLS ("prior knowledge") or with TLS 1.3 when the
 * configurations say so, so that any HTTP/2 client can make one:
 *
 *   curl --http2-prior-knowledge --data-binary @file http://127.0.0.1:7001/service/method
 *
 *   request  :path /service/method              reply   :status 200, body: the answer
 *            datacake-timeout: milliseconds     or      :status per cake_rpc_status(code)
 *            datacake-clock: 16 hex digits              datacake-error: the code, "-16"; body: the message as text
 *            datacake-cluster: id                       datacake-clock: 16 hex digits
 *            body: the message
 *   A reply that fails after its body has begun carries datacake-error and datacake-message as trailers.
 *
 * Threads
 *   - A server or channel runs on the loop thread of its environment. Every callback of it comes on that thread, except
 *     handlers of methods marked CAKE_RPC_BLOCKING, which come on a worker thread.
 *   - Functions below may be called from any thread unless they say otherwise; from threads other than the loop's those
 *     that change a server or channel block until the loop has done it. On the loop thread nothing ever blocks: a
 *     function that would have to wait returns CAKE_EDEADLK there, or says what it does instead.
 *   - Of a CAKE_RPC_BLOCKING handler, a reply or a failure may come from any thread, now or later.
 *
 * Names of services and methods are 1 to 127 characters out of A-Z a-z 0-9 . _ - so that they need no escaping in a
 * path. */
#ifndef DATACAKE_RPC_H
#define DATACAKE_RPC_H

#include <datacake/env.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cake_rpc_server cake_rpc_server_t;
typedef struct cake_rpc_call cake_rpc_call_t; /* a call that a server is answering */
typedef struct cake_channel cake_channel_t;
typedef struct cake_call cake_call_t; /* a call that a channel is making */
typedef struct cake_reply cake_reply_t;

#define CAKE_RPC_NAME_MAX 127u
#define CAKE_NO_TIMEOUT   UINT64_MAX

typedef struct cake_header {
    const char *name;  /* lower case; "datacake-..." and HTTP's own names are reserved: CAKE_EINVAL */
    const char *value; /* printable ASCII */
} cake_header_t;

/* Against peers that misbehave. Zero: the default in parentheses. */
typedef struct cake_rpc_limits {
    uint32_t max_connections;    /* (16384) server: further ones are closed at once */
    uint32_t max_streams;        /* (1024) calls at once on one connection; the others wait in the channel */
    uint32_t max_header_bytes;   /* (16 KiB) of one request or reply, names and values; CAKE_ETOOBIG */
    uint64_t max_body_bytes;     /* (64 MiB) of one unary request or reply: CAKE_ETOOBIG; streams have no such limit */
    uint64_t max_input_bytes;    /* (256 MiB) unary bodies held at once for one connection: CAKE_EBUSY beyond */
    uint64_t max_output_bytes;   /* (16 MiB) waiting for one peer to read: nothing more is read from it meanwhile */
    uint32_t max_resets_per_s;   /* (1000) by one peer, as the next two; passing one ends the connection */
    uint32_t max_pings_per_s;    /* (100) */
    uint32_t max_settings_per_s; /* (20) */
    uint64_t idle_ms;            /* (300,000) server: no call for so long ends a connection; CAKE_NO_TIMEOUT: never */
    uint64_t stall_ms;           /* (30,000) a peer that takes none of the bytes waiting for it is given up, as one that
                                    takes, or brings of a request, fewer than 256 bytes a second */
} cake_rpc_limits_t;

/* A cluster clock to be carried by every call. Both run on the loop thread (stamp on a worker's reply, too). */
typedef struct cake_rpc_hooks {
    uint64_t (*stamp)(void *arg);              /* goes out with each request and reply */
    int (*observe)(void *arg, uint64_t stamp); /* came in; an error refuses the request, or ends our call with it */
    void *arg;
} cake_rpc_hooks_t;

/* ---- server ------------------------------------------------------------------------------------------------------ */

typedef struct cake_rpc_server_config {
    size_t size;
    cake_env_t *env;         /* borrowed; NULL: an environment of the server's own, with a thread of its own */
    const char *listen_addr; /* "127.0.0.1:7001", "[::1]:0", "localhost:7001"; port 0 takes a free one */
    const char *cluster_id;  /* NULL: any; else calls that name another cluster end with CAKE_ECONFLICT */
    cake_rpc_limits_t limits;
    cake_rpc_hooks_t hooks;
    uint32_t worker_lanes; /* (2, at most 64) threads that run blocking methods; made when first needed */
    uint32_t max_blocking; /* (1024) blocking calls running or waiting; CAKE_EBUSY beyond */
    uint64_t drain_ms;     /* (5,000) closing waits so long for running calls before it cuts them */
    const cake_tls_config_t
        *tls;              /* NULL: without; read here, not kept. The environment must have TLS: CAKE_EUNAVAILABLE */
    uint64_t keepalive_ms; /* (30,000) as a channel's; CAKE_NO_TIMEOUT: none */
} cake_rpc_server_config_t;

#define CAKE_RPC_SERVER_CONFIG_INIT CAKE_SIZED(cake_rpc_server_config_t)

/* Listens. The strings of config are copied. On the loop thread the address must be numeric (CAKE_EDEADLK for a name).
 * CAKE_EINVAL, CAKE_EPARSE or CAKE_ENOTFOUND (address), CAKE_EADDRINUSE, CAKE_ENOMEM. *server is NULL after an
 * error. */
CAKE_API int cake_rpc_listen(const cake_rpc_server_config_t *config, cake_rpc_server_t **server);

/* Connections from now on use these files or this key; those that are open go on. tls as in the configuration, of a
 * server that began with TLS (else CAKE_EINVAL). An error changes nothing: CAKE_ENOTFOUND, CAKE_EPARSE (files),
 * CAKE_EINVAL, CAKE_ENOMEM. */
CAKE_API int cake_rpc_reload_tls(cake_rpc_server_t *server, const cake_tls_config_t *tls);

/* "127.0.0.1:40123": where it really listens; lives as long as the server. */
CAKE_API const char *cake_rpc_address(const cake_rpc_server_t *server);

/* Refuses new calls, lets running ones finish for drain_ms, cuts the rest, waits until every handler has answered, and
 * frees everything: when it returns, no callback will run again and the port is free. Services still there are removed
 * (their `removed` runs). NULL is fine. CAKE_EDEADLK on the loop thread. */
CAKE_API int cake_rpc_close(cake_rpc_server_t *server);

typedef struct cake_rpc_server_stats {
    uint64_t connections, calls_running;                /* now */
    uint64_t connections_accepted, connections_refused; /* ever */
    uint64_t connections_abused;                        /* ended for passing a limit */
    uint64_t calls_started, calls_failed;
} cake_rpc_server_stats_t;

CAKE_API int cake_rpc_server_stats(cake_rpc_server_t *server, cake_rpc_server_stats_t *out);

/* Answers one call, by cake_rpc_reply or cake_rpc_fail: now or later, from any thread, exactly once; the call is gone
 * after that. arg is the service's. */
typedef void (*cake_rpc_handler_fn)(cake_rpc_call_t *call, void *arg);

#define CAKE_RPC_BLOCKING 1u /* the handler may block: it runs on a worker thread */
#define CAKE_RPC_STREAM   2u /* the handler runs as soon as the headers are there, and takes the body as it comes */

typedef struct cake_rpc_method {
    const char *name;
    cake_rpc_handler_fn handler;
    unsigned flags; /* 0: on the loop thread, must not block; the two flags exclude each other */
} cake_rpc_method_t;

typedef struct cake_rpc_service {
    const char *name;
    const cake_rpc_method_t *methods;
    size_t count;
    void *arg;                  /* for the handlers */
    void (*removed)(void *arg); /* may be NULL; on the loop: it was removed and its last call has ended: arg is yours */
} cake_rpc_service_t;

/* Copies *service (not what arg points to). CAKE_EINVAL (names, flags, no methods), CAKE_EDUPLICATE, CAKE_ECLOSED,
 * CAKE_ENOMEM. */
CAKE_API int cake_rpc_add_service(cake_rpc_server_t *server, const cake_rpc_service_t *service);

/* New calls end with CAKE_EUNAVAILABLE from now on. From other threads it waits until the running ones have been
 * answered and `removed` has run; on the loop thread it returns at once and `removed` tells. The name is free again at
 * once. Must not be called from a handler of the service on a worker thread (it would wait for itself).
 * CAKE_ENOTFOUND. */
CAKE_API int cake_rpc_remove_service(cake_rpc_server_t *server, const char *name);

/* What came. All of it is valid until the call is answered. */
CAKE_API cake_slice_t cake_rpc_body(const cake_rpc_call_t *call); /* empty for streams; not aligned */
CAKE_API const char *cake_rpc_header(const cake_rpc_call_t *call, const char *name); /* NULL: not sent */
CAKE_API void cake_rpc_peer(const cake_rpc_call_t *call, cake_addr_t *out);
CAKE_API uint64_t cake_rpc_deadline_ns(const cake_rpc_call_t *call); /* env's clock; CAKE_NEVER when there is none */
CAKE_API bool cake_rpc_is_canceled(const cake_rpc_call_t *call);     /* nobody waits any more; still to be answered */

/* Adds a header to the reply. Before the answer (and a stream's first write), by whoever holds the call. CAKE_EINVAL
 * (name or value), CAKE_ETOOBIG, CAKE_ENOMEM. */
CAKE_API int cake_rpc_set_header(cake_rpc_call_t *call, const char *name, const char *value);

/* Ends the call with an answer. data is copied before it returns. CAKE_ENOMEM: the caller gets CAKE_ENOMEM instead; the
 * call is gone in any case. Nothing is said when the caller has gone away meanwhile. */
CAKE_API int cake_rpc_reply(cake_rpc_call_t *call, const void *data, size_t len);
CAKE_API int cake_rpc_replyv(cake_rpc_call_t *call, const cake_slice_t *parts, size_t count); /* one after another */

/* As replyv without the copy: parts stay where they are until released(arg) runs on the loop thread, once, in any case.
 * They may lie in the call's own body, which stays as long; released may be NULL. */
CAKE_API int cake_rpc_reply_borrowed(cake_rpc_call_t *call, const cake_slice_t *parts, size_t count,
                                     cake_event_fn released, void *arg);

/* Ends the call with an error. err 0 counts as CAKE_EINTERNAL; message may be NULL (cake_strerror), is cut at 1,000
 * bytes. */
CAKE_API int cake_rpc_fail(cake_rpc_call_t *call, int err, const char *message);

CAKE_API int cake_rpc_status(int err); /* the HTTP status that travels with a code: 404 for CAKE_EUNAVAILABLE ... */

/* ---- streaming bodies -----------------------------------------------------------------------------------------------
 * Flow control reaches from the writer to whoever consumes: at most the stream's window (4 MiB) is under way
 * unconsumed. All on the loop thread. Members may be NULL. */
typedef struct cake_stream_events {
    void (*on_data)(void *arg,
                    cake_slice_t data); /* valid for the call; give it back with ..._consume, then or later */
    void (*on_end)(void *arg, int err); /* nothing more comes: 0, CAKE_ECANCELED, CAKE_ECONNECTION. Servers only. */
    void (*on_writable)(void *arg);     /* a write may be made: once at the start, and after each CAKE_EBUSY */
} cake_stream_events_t;

/* Server side, from the handler of a CAKE_RPC_STREAM method or later, on the loop thread. cake_rpc_reply ends the
 * reply's body (with a last piece when it is given one), cake_rpc_fail ends it with an error; no event comes after
 * either. on_end with an error still wants one of the two. */
CAKE_API void cake_rpc_stream(cake_rpc_call_t *call, const cake_stream_events_t *events, void *arg);
CAKE_API void cake_rpc_consume(cake_rpc_call_t *call, size_t len);
CAKE_API int cake_rpc_write(cake_rpc_call_t *call, const void *data,
                            size_t len); /* copied; CAKE_EBUSY: later, nothing was
    taken; CAKE_ECLOSED: nobody reads any more; CAKE_ENOMEM */

/* ---- channel ----------------------------------------------------------------------------------------------------- */

typedef struct cake_channel_config {
    size_t size;
    cake_env_t *env;        /* borrowed; NULL: an environment of the channel's own, with a thread of its own */
    const char *cluster_id; /* NULL: none is sent */
    cake_rpc_limits_t limits;
    cake_rpc_hooks_t hooks;
    uint64_t connect_timeout_ms; /* (2,000) resolving, connecting and HTTP/2's first settings */
    uint64_t timeout_ms;         /* (10,000) of calls that name none; CAKE_NO_TIMEOUT: none */
    uint64_t backoff_min_ms;     /* (50) before the second attempt in a row to connect, doubling, with jitter ±50% */
    uint64_t backoff_max_ms;     /* (2,000) */
    uint64_t keepalive_ms;       /* (5,000) calls run and nothing came for so long: a ping; as long again: it is dead */
    uint32_t max_waiting;        /* (65,536) calls waiting for a connection or a free stream; CAKE_EBUSY beyond */
    const cake_tls_config_t *tls; /* as the server's */
} cake_channel_config_t;

#define CAKE_CHANNEL_CONFIG_INIT CAKE_SIZED(cake_channel_config_t)

/* Connects when the first call is made: only the address's form is checked here. One connection carries all calls; when
 * it is lost its calls end with CAKE_ECONNECTION and the next call connects anew. When an attempt to connect fails, the
 * calls that waited for it end with CAKE_ECONNECTION; calls made during the back-off wait for the next attempt.
 * address: "127.0.0.1:7001", "[::1]:7001", "name:7001". config may be NULL. CAKE_EPARSE, CAKE_EINVAL, CAKE_ENOMEM. */
CAKE_API int cake_channel_open(const char *address, const cake_channel_config_t *config, cake_channel_t **channel);

/* Ends running calls with CAKE_ECLOSED (their done runs), and frees everything. NULL is fine. CAKE_EDEADLK on the
 * loop. */
CAKE_API int cake_channel_close(cake_channel_t *channel);

CAKE_API int cake_channel_reload_tls(cake_channel_t *channel, const cake_tls_config_t *tls); /* as the server's */

CAKE_API const char *cake_channel_address(const cake_channel_t *channel);
CAKE_API bool cake_channel_is_connected(cake_channel_t *channel); /* at this moment; any thread */

typedef struct cake_call_options {
    size_t size;
    uint64_t timeout_ms;          /* 0: the channel's; CAKE_NO_TIMEOUT */
    const cake_header_t *headers; /* copied */
    size_t header_count;
    char *message; /* blocking calls: the error's message goes here, cut to message_size; may be NULL */
    size_t message_size;
} cake_call_options_t;

#define CAKE_CALL_OPTIONS_INIT CAKE_SIZED(cake_call_options_t)

/* Calls and waits. Returns 0 and a reply to be freed, or an error and NULL: what the handler failed with,
 * CAKE_EUNAVAILABLE (no such service or method there), CAKE_ETIMEDOUT, CAKE_ECONNECTION, CAKE_ETOOBIG, CAKE_EBUSY,
 * CAKE_ECLOSED, CAKE_EINVAL (path, headers), CAKE_EPARSE (not understood), CAKE_ENOMEM, CAKE_EDEADLK (on the loop).
 * options may be NULL, and reply. */
CAKE_API int cake_channel_call(cake_channel_t *channel, const char *path, const void *data, size_t len,
                               const cake_call_options_t *options, cake_reply_t **reply);

/* On the loop thread, once per call. The reply is never NULL (errors come in it) and belongs to the callee. */
typedef void (*cake_reply_fn)(cake_reply_t *reply, void *arg);

/* Begins a call with the parts as its body, which are copied before this returns. On an error (CAKE_EINVAL,
 * CAKE_ETOOBIG, CAKE_ENOMEM) done never runs; else it runs exactly once, never inside this function. call may be NULL;
 * otherwise *call is a handle to cancel it by, to be freed with cake_call_free, before or after done. */
CAKE_API int cake_channel_call_async(cake_channel_t *channel, const char *path, const cake_slice_t *parts, size_t count,
                                     const cake_call_options_t *options, cake_reply_fn done, void *arg,
                                     cake_call_t **call);

/* As call_async without the copy, which large bodies gain from: the parts stay where they are until released(arg) runs
 * on the loop thread, once, before or after done, maybe long after it when a call ends early (its bytes may be on their
 * way). Not after an error. */
CAKE_API int cake_channel_call_borrowed(cake_channel_t *channel, const char *path, const cake_slice_t *parts,
                                        size_t count, const cake_call_options_t *options, cake_event_fn released,
                                        cake_reply_fn done, void *arg, cake_call_t **call);

CAKE_API void cake_call_cancel(cake_call_t *call); /* done comes with CAKE_ECANCELED, unless the call is over already */
CAKE_API void cake_call_free(cake_call_t *call);   /* the handle only: the call goes on. NULL is fine. */

/* A call with streaming bodies, on_data taking the reply's; done is the last event and has an empty body. The handle is
 * needed for the functions below; all three belong to the loop thread. cake_call_write as cake_rpc_write. */
CAKE_API int cake_channel_stream(cake_channel_t *channel, const char *path, const cake_call_options_t *options,
                                 const cake_stream_events_t *events, cake_reply_fn done, void *arg, cake_call_t **call);
CAKE_API int cake_call_write(cake_call_t *call, const void *data, size_t len);
CAKE_API int cake_call_finish(cake_call_t *call); /* the request's body ends here; CAKE_ECLOSED */
CAKE_API void cake_call_consume(cake_call_t *call, size_t len);

/* NULL is an empty reply without an error. */
CAKE_API int cake_reply_err(const cake_reply_t *reply);
CAKE_API cake_slice_t cake_reply_body(const cake_reply_t *reply);                    /* lives as long as the reply */
CAKE_API const char *cake_reply_header(const cake_reply_t *reply, const char *name); /* NULL: none */
CAKE_API const char *cake_reply_message(const cake_reply_t *reply);                  /* of an error; never NULL */
CAKE_API void cake_reply_free(cake_reply_t *reply);

#ifdef __cplusplus
}
#endif
#endif
