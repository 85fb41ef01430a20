/* channel.h: a channel from the inside.
 *
 *      calls --waiting--> connection (current) --> server
 *                         connections that said goodbye keep the calls they have
 *
 *      IDLE --a call--> RESOLVING --> CONNECTING --> READY --lost--> IDLE
 *        ^                  \------------\--failed--> BACKOFF --time--> IDLE
 *
 * A call is NEW until it has come to the loop, then WAITING (in a list) unless a connection has room, ACTIVE (a
 * stream of one), and OVER, which is decided once: its reply is fixed, and done runs at the end of that step of the
 * loop. References to a call: the channel's until done was called, its stream's, the handle's, the reply's, a
 * cancellation's. */
#ifndef CAKE_RPC_CHANNEL_H
#define CAKE_RPC_CHANNEL_H

#include <stdatomic.h>

#include "base/heap.h"
#include "rpc/conn.h"
#include "rpc/headers.h"
#include "rpc/rpc.h"

#define CAKE__ATTEMPTS_MAX 3u /* of one call, when peers refuse it unseen */
#define CAKE__SMALL_REPLY  256u
#define CAKE__ADDRS_MAX    8u /* of one name */
#define CAKE__REPLY_FIRST  (1u << 20)

typedef enum cake__channel_state {
    CAKE__CHANNEL_IDLE,
    CAKE__CHANNEL_RESOLVING,
    CAKE__CHANNEL_CONNECTING,
    CAKE__CHANNEL_READY,
    CAKE__CHANNEL_BACKOFF
} cake__channel_state_t;

struct cake_channel {
    cake__conn_kind_t kind;
    cake_env_t *env;
    bool owns_env;
    cake_rpc_hooks_t hooks;
    char *address, *cluster_id;
    uint64_t connect_timeout_ms, timeout_ms, backoff_min_ms, backoff_max_ms;
    uint32_t max_waiting;

    cake__channel_state_t state;
    atomic_bool is_connected;
    bool has_settings; /* the current connection's peer speaks HTTP/2 */
    cake_resolve_t *resolve;
    cake_addr_t addrs[CAKE__ADDRS_MAX];
    size_t addr_count, addr_next;
    cake__conn_t *current;
    cake__list_t conns;
    char why[200];              /* the latest attempt failed; "": not known */
    uint32_t failures;          /* to connect, in a row */
    cake_timer_t connect_timer; /* the attempt's limit, or the back-off's end */

    cake__list_t calls;   /* not over */
    cake__list_t waiting; /* those that no connection has taken */
    cake__list_t ended;   /* over; done has not run */
    uint32_t waiting_count;
    cake__heap_t deadlines;
    cake_timer_t deadline_timer;
    cake_deferred_t tell; /* runs done for the ended */
    cake_deferred_t pump; /* gives waiting calls to a connection, connects */

    bool is_closing;
    cake_event_fn closed;
    void *closed_arg;
};

typedef enum cake__call_state {
    CAKE__CALL_NEW,
    CAKE__CALL_WAITING,
    CAKE__CALL_ACTIVE,
    CAKE__CALL_OVER
} cake__call_state_t;

struct cake_call {
    cake__h2_stream_t stream; /* first; in use while conn != NULL */
    cake__list_t link;        /* calls, then ended */
    cake__list_t wait_link;
    cake__heap_node_t heap;
    bool is_in_heap, is_streaming;
    cake_channel_t *channel; /* not to be touched once is_over */
    cake_env_t *env;
    cake_alloc_t alloc; /* replies may outlive the environment */
    cake__conn_t *conn;
    atomic_uint refs;
    atomic_bool is_over, is_cancel_posted;
    cake__call_state_t state;
    uint32_t attempts;
    uint64_t timeout_ms, deadline_ns;
    cake_slice_t path; /* in tail[] */
    cake__headers_t headers;
    cake__chunk_t *request; /* of a unary call; kept for another attempt */
    cake_reply_fn done;
    void *arg;
    bool wants_writable, is_finished;

    int err; /* the reply */
    bool has_head;
    int status;
    int remote_err;
    cake__headers_t reply_headers;
    cake__buf_t gathered;
    uint64_t content_length;
    cake_slice_t body;
    char *message;

    /* not cleared at the start */
    cake_stream_events_t events; /* of a stream, as the next */
    cake_deferred_t writable;
    cake_post_t post, cancel_post;
    char clock_text[CAKE__HEX_BYTES], timeout_text[CAKE__DECIMAL_MAX], length_text[CAKE__DECIMAL_MAX];
    uint8_t small[CAKE__SMALL_REPLY];
    char tail[];
};

struct cake_reply {
    cake_call_t call;
};

/* call.c */
extern const cake__h2_events_t cake__channel_events;
uint8_t *cake__call_body_room(cake__h2_stream_t *stream, size_t least, size_t *size);
bool cake__call_is_before(const cake__heap_node_t *a, const cake__heap_node_t *b);
void cake__call_over(cake_call_t *call, int err, const char *message);          /* nothing when it is over already */
void cake__call_tell(cake_call_t *call);                                        /* runs done */
void cake__call_submit(cake_call_t *call, cake__conn_t *conn, uint64_t now_ns); /* maybe it is over then */
void cake__call_start(void *call);                                              /* on the loop */

/* channel.c */
void cake__channel_pump(cake_channel_t *channel); /* calls wait, or a connection has room again */
void cake__channel_deadline(cake_channel_t *channel, cake_call_t *call);
void cake__channel_begin(cake_channel_t *channel, cake_call_t *call, uint64_t now_ns); /* a new one */
void cake__channel_wait(cake_channel_t *channel, cake_call_t *call, bool is_first);
void cake__channel_settings(cake__conn_t *conn);
void cake__channel_goaway(cake__conn_t *conn);
void cake__channel_call_left(cake__conn_t *conn); /* a stream of it has closed */

static inline cake_channel_t *cake__channel_of(cake__conn_t *conn)
{
    return CAKE_CONTAINER_OF(conn->kind, cake_channel_t, kind);
}

#endif
