/* server.h: a server from the inside.
 *
 *   server --- services by name --- their methods by path       a removed service stays until its last call has been
 *                                                               answered
 *      |  \--- connections --- streams of h2 = calls
 *      \------ worker lanes
 *
 * A call lives as long as anybody needs it: its stream (until on_closed), whoever holds it (until reply or fail has
 * come to the loop), a lane that runs its handler (until the work is done). The last of the three frees it. */
#ifndef CAKE_RPC_SERVER_H
#define CAKE_RPC_SERVER_H

#include <stdatomic.h>

#include "base/map.h"
#include "rpc/conn.h"
#include "rpc/headers.h"
#include "rpc/rpc.h"

#define CAKE__LANES_MAX   64u
#define CAKE__SMALL_BODY  256u   /* kept in the call itself */
#define CAKE__PIN_BELOW   2048u  /* bodies from here on are read in the receive buffer when they lie there whole */
#define CAKE__DISCARD_MAX 65536u /* a refused call may finish its body up to here: not all clients hear us before */
#define CAKE__CALL_COST   512u   /* counted for each reply waiting, beside its bytes */

typedef struct cake__method {
    cake_rpc_method_t method;
    struct cake__service *service;
    char *path;
} cake__method_t;

typedef struct cake__service {
    cake__list_t link; /* of the server's, removed or not */
    char *name;
    void *arg;
    void (*removed)(void *arg);
    cake_deferred_t done; /* tells that the last call has ended */
    cake_gate_t *gate;    /* of the thread that waits for its removal */
    cake_rpc_server_t *server;
    uint64_t running;
    bool is_removed;
    size_t count;
    cake__method_t methods[];
} cake__service_t;

typedef struct cake__server_lane {
    cake_lane_t *lane;
    uint32_t load;
} cake__server_lane_t;

struct cake_rpc_server {
    cake__conn_kind_t kind; /* first: connections find their server by it */
    cake_env_t *env;
    bool owns_env;
    cake_rpc_hooks_t hooks;
    char *cluster_id;
    uint32_t worker_lanes, max_blocking, blocking;
    uint64_t drain_ms;
    char address[CAKE_ADDR_TEXT_MAX];
    cake_listener_t *listener;
    bool is_listening; /* the listener has not said closed */
    cake__map_t services, paths;
    uint64_t services_version; /* changes with each that comes or goes */
    cake__list_t service_list, conns;
    cake__server_lane_t lanes[CAKE__LANES_MAX];
    uint32_t lanes_open;
    uint64_t calls; /* alive */
    cake_rpc_server_stats_t stats;
    uint64_t warned_ns; /* of a connection that was of no use: not more than one line in a second */

    bool is_closing, has_ended;
    cake_timer_t drain;
    cake_deferred_t step; /* looks whether closing can go on */
    cake_event_fn closed;
    void *closed_arg;
};

struct cake_rpc_call {
    cake__h2_stream_t stream; /* first */
    cake_rpc_server_t *server;
    cake__conn_t *conn; /* NULL once its stream is closed */
    cake__service_t *service;
    const cake_rpc_method_t *method;
    const cake__method_t *found; /* when the headers came, at that version of the services */
    uint64_t found_version;
    bool is_told;             /* the end of its stream, just now */
    bool is_held, is_working; /* the other two references, see above; the stream's is conn != NULL */
    bool is_lent;             /* its reply was borrowed and is still to be sent */
    bool has_head, is_dispatched, is_answered, has_begun_reply;
    int head_err;         /* the first thing wrong with the headers */
    const char *head_why; /* NULL: the code's text */
    size_t discarded;     /* of the body of a call that is refused */
    uint64_t coming_ns;   /* its body was still to come at this tick; 0: at none yet */
    atomic_bool is_canceled;
    uint64_t deadline_ns, queued;
    size_t path_len;
    cake__headers_t headers, reply_headers;

    cake_slice_t body;
    cake__block_t *pinned; /* the receive buffer that body lies in */
    cake__buf_t gathered;
    uint64_t content_length;

    int reply_err; /* of the answer on its way to the loop */
    cake__chunk_t *reply;
    cake_event_fn released; /* of a borrowed reply */
    void *released_arg;
    const cake_stream_events_t *events; /* of a stream */
    void *events_arg;
    cake_deferred_t writable;
    bool wants_writable, is_end_told;

    /* not cleared at the start */
    cake_addr_t peer;
    cake_post_t post;
    cake_work_t work;
    cake__server_lane_t *lane;
    cake_stream_events_t events_copy;
    char clock_text[CAKE__HEX_BYTES], error_text[CAKE__DECIMAL_MAX], length_text[CAKE__DECIMAL_MAX];
    cake__h2_header_t trailers[2];
    char path[CAKE__PATH_MAX];
    uint8_t small[CAKE__SMALL_BODY];
};

static inline cake_rpc_server_t *cake__server_of(cake__conn_t *conn)
{
    return CAKE_CONTAINER_OF(conn->kind, cake_rpc_server_t, kind);
}

/* service.c, on the loop */
int cake__service_add(cake_rpc_server_t *server, const cake_rpc_service_t *service);
int cake__service_remove(cake_rpc_server_t *server, const char *name, cake_gate_t *gate);
void cake__service_release(cake__service_t *service); /* one call has ended */
const cake__method_t *cake__service_find(const cake_rpc_server_t *server, cake_slice_t path);
void cake__services_clear(cake_rpc_server_t *server); /* removes all; those without calls go at the end of the step */

/* answer.c: calls */
extern const cake__h2_events_t cake__server_events;
uint8_t *cake__answer_body_room(cake__h2_stream_t *stream, size_t least, size_t *size);
void cake__answer_tick(cake__conn_t *conn, uint64_t now_ns);

/* server.c */
void cake__server_step(cake_rpc_server_t *server); /* something ended: maybe closing can go on */

#endif
