/* datacake/env.h: the seam. Every clock, timer, random number, socket, thread and byte of heap that a node uses comes
 * through an environment, so that the same code runs on a machine (<datacake/uv.h>) and in the simulator
 * (<datacake/sim.h>).
 *
 * Rules of the whole contract
 *   - An environment has one loop. Every callback runs on it, one at a time, and may call anything here.
 *   - Unless a line says "any thread", a call belongs to the loop thread.
 *   - No callback runs inside the call that asked for it: it comes in a later step of the loop.
 *   - Calls that return void cannot fail.
 *   - Closing is asynchronous: the object may still call back until its closed callback, its last, has run.
 *   - What a caller owns (cake_timer_t, cake_post_t, cake_work_t, cake_deferred_t, buffers under way) stays at its
 *     address until the callback that ends it. */
#ifndef DATACAKE_ENV_H
#define DATACAKE_ENV_H

#include <datacake/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cake_env cake_env_t;
typedef struct cake_stream cake_stream_t;
typedef struct cake_listener cake_listener_t;
typedef struct cake_datagram cake_datagram_t;
typedef struct cake_resolve cake_resolve_t;
typedef struct cake_lane cake_lane_t;
typedef struct cake_tls cake_tls_t;

typedef void (*cake_event_fn)(void *arg);

#define CAKE_NS_PER_MS UINT64_C(1000000)
#define CAKE_NEVER     UINT64_MAX

/* ---- timers: caller-owned; equal deadlines fire in the order of arming ----------------------------------------------
 * Initialise with CAKE_TIMER_INIT(fn, arg). One shot: arm again inside fn to repeat. */
typedef struct cake_timer {
    void *node[3]; /* the environment's */
    uint64_t deadline_ns, sequence;
    bool is_armed;
    cake_event_fn fn;
    void *arg;
} cake_timer_t;

#define CAKE_TIMER_INIT(fn_, arg_) ((cake_timer_t){.fn = (fn_), .arg = (arg_)})

/* ---- deferred: runs once at the end of the current step of the loop, before it sleeps or takes the next event ---- */
typedef struct cake_deferred {
    struct cake_deferred *next;
    bool is_queued;
    cake_event_fn fn;
    void *arg;
} cake_deferred_t;

#define CAKE_DEFERRED_INIT(fn_, arg_) ((cake_deferred_t){.fn = (fn_), .arg = (arg_)})

/* ---- posts: how other threads reach the loop; they run in the order of posting ----------------------------------- */
typedef struct cake_post {
    struct cake_post *next;
    cake_event_fn fn;
    void *arg;
} cake_post_t;

/* ---- work: run() on the lane's thread, one after another in order; then done() on the loop ----------------------- */
typedef struct cake_work {
    struct cake_work *next;
    cake_event_fn run, done;
    void *arg;
} cake_work_t;

/* ---- gates: how an application thread waits for the loop. Opened once, from any thread. -------------------------- */
typedef struct cake_gate {
    uint64_t opaque[16];
} cake_gate_t;

/* ---- streams --------------------------------------------------------------------------------------------------------
 * Connected byte streams with one reader and one write under way. All handlers get the arg given with them.
 *   on_connect   streams of stream_connect only, once, before anything else: 0 or CAKE_ECONNECTION, CAKE_ETIMEDOUT
 *   on_buffer    where the next bytes go: *data and its size; size 0 stops reading until read_resume
 *   on_read      > 0: so many bytes were put into that buffer; 0: the peer sent its end; < 0: the stream broke
 *   on_written   the write under way ended: 0, or the stream broke. Its buffers are the caller's again.
 *   on_closed    the last callback; the buffers of a write under way are the caller's again, the stream is gone */
typedef struct cake_stream_handlers {
    void (*on_connect)(void *arg, int err);
    void (*on_buffer)(void *arg, void **data, size_t *size);
    void (*on_read)(void *arg, void *data, intptr_t len);
    void (*on_written)(void *arg, int err);
    void (*on_closed)(void *arg);
} cake_stream_handlers_t;

/* An incoming stream: call stream_start or stream_close on it before the next step of the loop. */
typedef void (*cake_accept_fn)(void *arg, cake_stream_t *stream);
typedef void (*cake_datagram_fn)(void *arg, const cake_addr_t *from, const void *data, size_t len);
/* addrs is valid for the call; CAKE_ENOTFOUND when the name has none. */
typedef void (*cake_resolve_fn)(void *arg, int err, const cake_addr_t *addrs, size_t count);

#define CAKE_STREAM_IOV_MAX 64     /* slices per write */
#define CAKE_DATAGRAM_MAX   65507u /* bytes */

#define CAKE_TLS_OTHER_KEYS_MAX 7u

/* ---- TLS: one of the two kinds ----------------------------------------------------------------------------------- */
typedef struct cake_tls_config {
    const char *cert_file, *key_file; /* PEM: our certificate (with those between it and the authority) and its key */
    const char *ca_file;              /* PEM: who signs the peers' certificates; both sides must have one */
    const char *peer_name;            /* of servers we connect to, in their certificate; NULL: any of that authority */
    const void *cluster_key;          /* instead of all of the above: what all members know, 16 bytes or more */
    size_t cluster_key_len;
    const cake_slice_t *other_keys; /* taken from those who connect, never offered: for the time of a change of keys */
    size_t other_key_count;         /* at most CAKE_TLS_OTHER_KEYS_MAX */
} cake_tls_config_t;

/* The port. Versioned; only grows at the end. */
typedef struct cake_env_ops {
    uint32_t version;

    uint64_t (*now_ns)(cake_env_t *env);                    /* monotonic; any thread */
    uint64_t (*wall_ms)(cake_env_t *env);                   /* Unix time; may jump; any thread */
    void (*random)(cake_env_t *env, void *out, size_t len); /* fit for keys and nonces; any thread */

    void (*timer_arm)(cake_env_t *env, cake_timer_t *timer, uint64_t deadline_ns); /* moves an armed one */
    void (*timer_cancel)(cake_env_t *env, cake_timer_t *timer);                    /* fn will not run; idempotent */
    void (*defer)(cake_env_t *env, cake_deferred_t *deferred);                     /* nothing when already queued */
    void (*defer_cancel)(cake_env_t *env, cake_deferred_t *deferred);
    void (*post)(cake_env_t *env, cake_post_t *post); /* any thread */
    bool (*on_loop)(cake_env_t *env);                 /* any thread: is this the loop thread? */

    void (*gate_init)(cake_env_t *env, cake_gate_t *gate); /* any thread, as all of gate_ */
    void (*gate_wait)(cake_env_t *env, cake_gate_t *gate); /* never on the loop */
    void (*gate_open)(cake_env_t *env, cake_gate_t *gate); /* the waiter may free the gate at once */
    void (*gate_destroy)(cake_env_t *env, cake_gate_t *gate);

    int (*lane_open)(cake_env_t *env, const char *name, cake_lane_t **lane);
    void (*lane_submit)(cake_lane_t *lane, cake_work_t *work);
    void (*lane_close)(cake_lane_t *lane, cake_event_fn closed, void *arg); /* after all that was submitted is done */

    /* Port 0 takes a free one. CAKE_EADDRINUSE, CAKE_EINVAL (no such local address), CAKE_ENOMEM. */
    int (*listen)(cake_env_t *env, const cake_addr_t *addr, cake_accept_fn accept, void *arg, cake_listener_t **out);
    void (*listener_addr)(cake_listener_t *listener, cake_addr_t *out);
    void (*listener_close)(cake_listener_t *listener, cake_event_fn closed, void *arg);

    int (*connect)(cake_env_t *env, const cake_addr_t *addr, const cake_stream_handlers_t *handlers, void *arg,
                   cake_stream_t **out); /* reads from the start once connected */
    void (*stream_start)(cake_stream_t *stream, const cake_stream_handlers_t *handlers, void *arg);
    void (*stream_peer)(cake_stream_t *stream, cake_addr_t *out);
    int (*stream_write)(cake_stream_t *stream, const cake_slice_t *iov,
                        size_t count);           /* CAKE_EBUSY: one is under way */
    void (*stream_pause)(cake_stream_t *stream); /* no on_read from the next step on */
    void (*stream_resume)(cake_stream_t *stream);
    void (*stream_shutdown)(cake_stream_t *stream); /* sends our end once the write under way is out */
    void (*stream_close)(cake_stream_t *stream);    /* idempotent; only on_closed follows */

    int (*datagram_open)(cake_env_t *env, const cake_addr_t *addr, cake_datagram_fn fn, void *arg,
                         cake_datagram_t **out);
    void (*datagram_addr)(cake_datagram_t *socket, cake_addr_t *out);
    void (*datagram_send)(cake_datagram_t *socket, const cake_addr_t *to, const void *data, size_t len); /* copied */
    void (*datagram_close)(cake_datagram_t *socket, cake_event_fn closed, void *arg);

    int (*resolve)(cake_env_t *env, const char *host_port, cake_resolve_fn fn, void *arg, cake_resolve_t **out);
    void (*resolve_cancel)(cake_resolve_t *resolve); /* fn will not run */

    void (*close)(cake_env_t *env); /* frees it; everything opened in it must be closed; not on the loop */

    /* Version 2: TLS 1.3 below streams. NULL where there is none. A context may be closed while streams use it.
     * tls_open: any thread; CAKE_EINVAL (neither or both kinds), CAKE_ENOTFOUND or CAKE_EPARSE (files), CAKE_ENOMEM.
     * stream_secure: right after connect, or between accept and stream_start; on_connect comes after the handshake
     * then. stream_reason: why the handshake or the encryption failed, for people; NULL: it did not; lives as long as
     * the stream. */
    int (*tls_open)(cake_env_t *env, const cake_tls_config_t *config, cake_tls_t **out);
    void (*tls_close)(cake_tls_t *tls);
    int (*stream_secure)(cake_stream_t *stream, cake_tls_t *tls);
    const char *(*stream_reason)(cake_stream_t *stream);
} cake_env_ops_t;

/* Implementations begin with this. */
struct cake_env {
    const cake_env_ops_t *ops;
    cake_alloc_t alloc; /* everything a node allocates comes from here */
    cake_log_t log;
};

/* An owner that gets its environment from outside borrows it: it must outlive whatever runs in it. */

#ifdef __cplusplus
}
#endif
#endif
