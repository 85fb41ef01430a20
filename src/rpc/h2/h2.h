/* h2.h: one HTTP/2 connection as a machine: bytes in, events out; commands in, bytes out. No sockets, no clocks, no
 * calls, so that the session behind it can be exchanged without touching servers and channels.
 *
 * A stream is the owner's object that begins with a cake__h2_stream_t: given by on_begin on a server, by
 * cake__h2_request on a client, and the owner's again with on_closed, its last event. Commands may be given inside
 * events; pull and free may not. */
#ifndef CAKE_RPC_H2_H2_H
#define CAKE_RPC_H2_H2_H

#include "base/list.h"
#include "rpc/buffers.h"

#define CAKE__H2_STREAM_WINDOW     (4u << 20)  /* bytes a peer may send ahead of consume, per stream */
#define CAKE__H2_CONNECTION_WINDOW (16u << 20) /* and in one round trip, over all streams */
#define CAKE__H2_FRAME_MAX         65536u
#define CAKE__H2_HEAD_BYTES        9u /* of each frame */
#define CAKE__H2_CONTINUATIONS_MAX 8u /* frames of one header block */

typedef struct cake__h2 cake__h2_t;

typedef struct cake__h2_header {
    cake_slice_t name, value; /* stay where they are until the stream is closed */
    bool is_unique;           /* changes with each message: not worth a place in the peer's table */
} cake__h2_header_t;

typedef struct cake__h2_stream {
    cake__list_t link, turn;         /* of all streams; of those that have something to send, or are to be closed */
    struct cake__h2_stream *next_id; /* of the same place in the table */
    int32_t id;                      /* 0: in no session */
    int32_t receive_left;            /* the peer may send so much of the body */
    uint32_t consumed;               /* and will be told that it may send so much more */
    uint32_t turn_bytes;             /* sent since another long body was */
    int64_t send_left, length_left;  /* length_left: of the content-length that the peer has named; -1: none */
    size_t header_bytes;
    cake__body_t out;              /* what is sent as the body: append, then cake__h2_resume */
    bool is_begun, is_end_in_head; /* our headers are out, and were all */
    bool has_head;                 /* the peer's are in */
    bool is_remote_ended, is_local_ended, is_reset;
    bool stop_after_reply;             /* tells the peer to send no more of its body, once the reply is out */
    const cake__h2_header_t *trailers; /* sent after the body when it has ended */
    size_t trailer_count;
} cake__h2_stream_t;

typedef enum cake__h2_reason {
    CAKE__H2_DONE,    /* both sides ended */
    CAKE__H2_REFUSED, /* the peer did nothing with it */
    CAKE__H2_RESET,   /* by either side */
    CAKE__H2_LOST     /* with the session */
} cake__h2_reason_t;

typedef struct cake__h2_events {
    cake__h2_stream_t *(*on_begin)(void *arg); /* server: a request; NULL refuses it */
    void (*on_header)(void *arg, cake__h2_stream_t *stream, cake_slice_t name, cake_slice_t value);
    void (*on_headers)(void *arg, cake__h2_stream_t *stream); /* a block ends: the head, 1xx before it, or trailers */
    /* is_whole: these bytes are the whole body, inside the buffer given to receive */
    void (*on_data)(void *arg, cake__h2_stream_t *stream, const uint8_t *data, size_t len, bool is_whole);
    void (*on_end)(void *arg, cake__h2_stream_t *stream);  /* the peer's side has ended */
    void (*on_sent)(void *arg, cake__h2_stream_t *stream); /* some of a body that goes on was taken */
    void (*on_closed)(void *arg, cake__h2_stream_t *stream, cake__h2_reason_t reason);
    void (*on_settings)(void *arg); /* the peer speaks HTTP/2 */
    void (*on_goaway)(void *arg);   /* no further requests on this connection */
} cake__h2_events_t;

typedef struct cake__h2_config {
    bool is_server;
    const cake_alloc_t *alloc;              /* lives as long as the session */
    uint32_t max_streams, max_header_bytes; /* headers beyond are counted, not reported */
    uint32_t max_resets_per_s, max_pings_per_s, max_settings_per_s;
    const cake__h2_events_t *events;
    void *arg;
} cake__h2_config_t;

int cake__h2_new(const cake__h2_config_t *config, cake__h2_t **out); /* CAKE_ENOMEM */
void cake__h2_free(cake__h2_t *h2); /* on_closed with CAKE__H2_LOST for each stream that is left */

/* 0, CAKE_EPARSE (not HTTP/2; what is left to send says so), CAKE_EBUSY (a rate was passed), CAKE_ENOMEM: the
 * connection ends. */
int cake__h2_receive(cake__h2_t *h2, uint64_t now_ns, const uint8_t *data, size_t len);
int cake__h2_pull(cake__h2_t *h2, cake__batch_t *batch); /* as much as fits; 0, CAKE_ENOMEM, CAKE_EPARSE */
/* The stream of a body whose DATA frame has been received in part, and how much of it is left in that frame; NULL:
 * none. */
cake__h2_stream_t *cake__h2_receiving(const cake__h2_t *h2, size_t *left);
bool cake__h2_has_output(const cake__h2_t *h2);
bool cake__h2_is_over(const cake__h2_t *h2); /* nothing more to receive or to send */

/* The body comes out of stream->out; one that is ended and empty makes a message of headers only. CAKE_ENOMEM,
 * CAKE_ECLOSED. */
int cake__h2_request(cake__h2_t *h2, cake__h2_stream_t *stream, const cake__h2_header_t *headers, size_t count);
int cake__h2_respond(cake__h2_t *h2, cake__h2_stream_t *stream, const cake__h2_header_t *headers, size_t count);
void cake__h2_resume(cake__h2_t *h2, cake__h2_stream_t *stream);
void cake__h2_reset(cake__h2_t *h2, cake__h2_stream_t *stream); /* on_closed follows, maybe after a pull */
void cake__h2_consume(cake__h2_t *h2, cake__h2_stream_t *stream, size_t len); /* the peer may send as much again */
void cake__h2_ping(cake__h2_t *h2);
void cake__h2_goaway(cake__h2_t *h2); /* server: takes no new streams; those running go on */
uint32_t cake__h2_peer_max_streams(const cake__h2_t *h2);
bool cake__h2_takes_requests(const cake__h2_t *h2);
bool cake__h2_is_blocked(const cake__h2_t *h2, const cake__h2_stream_t *stream); /* its body waits for a window */

/* All streams, one after the other; NULL begins and ends. */
cake__h2_stream_t *cake__h2_next(const cake__h2_t *h2, const cake__h2_stream_t *after);

#endif
