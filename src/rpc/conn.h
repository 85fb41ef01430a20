/* conn.h: one connection of a server or a channel: bytes of a stream into an HTTP/2 session, the session's bytes out in
 * one write per turn of the loop; idle, stalled and silent peers; the end.
 *
 *   stream --on_read--> block --> h2 --events--> owner    reads stop while too much waits for a peer that does not read
 *          \--on_read--> a long body, where its owner gathers it
 *   stream <--write---- batch <-- h2 <-commands- owner + kick      at most one write is under way
 *
 * The end: cake__conn_end (at once) or cake__conn_finish (what is to be said first) -> on_dead -> on_closed of every
 * stream -> the stream closes -> on_gone, and the connection is freed. None of it inside the call that asked for it. */
#ifndef CAKE_RPC_CONN_H
#define CAKE_RPC_CONN_H

#include <datacake/rpc.h>

#include "base/list.h"
#include "rpc/h2/h2.h"
#include "rpc/slab.h"
#include "rpc/spare.h"

#define CAKE__READ_MIN 1024u

typedef struct cake__conn cake__conn_t;

/* How fast something moves, as ticks see it. */
typedef struct cake__pace {
    uint64_t since_ns; /* 0: nothing waits */
    uint64_t bytes;    /* moved since */
} cake__pace_t;

/* What the connections of one owner share. */
typedef struct cake__conn_kind {
    cake_env_t *env;
    bool is_server;
    cake_rpc_limits_t limits; /* no zeroes */
    uint64_t keepalive_ms;
    cake__h2_events_t events; /* their arg is the connection */
    void (*on_connect)(cake__conn_t *conn, int err);
    void (*on_dead)(cake__conn_t *conn, int err);
    void (*on_gone)(cake__conn_t *conn);
    void (*on_tick)(cake__conn_t *conn, uint64_t now_ns); /* NULL: nothing; calls may end in it, their streams not */
    /* Where the next bytes of a body are to go: room for at least so many; NULL: it is not gathered. */
    uint8_t *(*body_room)(cake__h2_stream_t *stream, size_t least, size_t *size);
    cake__pool_t pool;
    cake_tls_t *tls;      /* NULL: without */
    bool is_tls_lent;     /* and not ours to close */
    bool has_own_tls;     /* from the start */
    cake__slab_t slab;    /* what is made and freed on the loop thread */
    cake__spare_t *spare; /* of a channel; for what is freed anywhere */
    cake__batch_t *spare_batch;
} cake__conn_kind_t;

struct cake__conn {
    cake__list_t link; /* the owner's */
    cake__conn_kind_t *kind;
    void *owner;
    cake_stream_t *stream; /* NULL: none yet */
    cake__h2_t *h2;
    cake__block_t *block; /* is read into; kept while it may be */
    cake__batch_t *batch; /* of the write under way */
    cake_deferred_t flush;
    cake_timer_t tick;
    cake_addr_t peer;
    uint64_t now_ns, last_read_ns, ping_ns, finish_ns;
    uint64_t idle_since_ns, write_since_ns; /* 0: since the last tick */
    cake__pace_t sending, coming;           /* bodies; all that is read */
    uint64_t queued_bytes;                  /* replies not sent yet */
    uint64_t input_bytes;                   /* unary bodies held */
    uint32_t calls;                         /* streams of the owner's in it */
    uint32_t messages;                      /* dispatched out of the current read */
    size_t read_cap;
    size_t direct; /* bytes that are read into a body at most; 0: into the block */
    int err;
    const char *why; /* the connection was of no use from the start; NULL: nothing known */
    bool has_read;
    bool is_held;    /* reads wait for a write */
    bool is_stopped; /* the stream does not read until it is told to */
    bool is_writing, is_paused, is_finishing, is_shut, is_ended, is_dead;
    bool was_paused; /* since the last tick */
    bool was_abused;
};

void cake__limits_fill(cake_rpc_limits_t *limits); /* defaults for zeroes */

/* Any thread; NULL gives NULL. CAKE_EUNAVAILABLE: the environment has no TLS. */
int cake__tls_make(cake_env_t *env, const cake_tls_config_t *config, cake_tls_t **out);
void cake__conn_kind_own_tls(cake__conn_kind_t *kind, cake_tls_t *tls); /* at the start; NULL: without */
int cake__conn_kind_reload_tls(cake__conn_kind_t *kind, const cake_tls_config_t *config); /* not on the loop */
void cake__conn_kind_lend_tls(cake__conn_kind_t *kind, cake_tls_t *tls);

void cake__conn_kind_init(cake__conn_kind_t *kind);
void cake__conn_kind_free(cake__conn_kind_t *kind);

int cake__conn_new(cake__conn_kind_t *kind, void *owner, cake__conn_t **out); /* CAKE_ENOMEM */
void cake__conn_free(cake__conn_t *conn);                                     /* one that never had a stream */
void cake__conn_accept(cake__conn_t *conn, cake_stream_t *stream);
int cake__conn_connect(cake__conn_t *conn, const cake_addr_t *addr); /* an error: it has no stream */

void cake__conn_kick(cake__conn_t *conn); /* there is something to write */
void cake__conn_queued(cake__conn_t *conn, int64_t change);
bool cake__pace_is_slow(cake__pace_t *pace, bool is_waiting, uint64_t now_ns, uint64_t limit_ms);
void cake__conn_finish(cake__conn_t *conn, int err);
void cake__conn_end(cake__conn_t *conn, int err);

#endif
