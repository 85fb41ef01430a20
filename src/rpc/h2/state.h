/* state.h: a session from the inside, for session.c, send.c, receive.c and inflate.c.
 *
 *   in:   head (9 bytes) -> a frame other than DATA is gathered in frame when a read cuts it; DATA goes through in
 *         pieces
 *   out:  control: frames but DATA, whole and in their order (header blocks depend on it) -> then DATA: sending and
 *         bulk in turns
 *
 * Invariants: a stream is in the table and in streams until on_closed; `turn` links it in sending, bulk, blocked or
 * closing, or nowhere; what is sent of a stream's body goes out after all of control, so that its headers come
 * first. */
#ifndef CAKE_RPC_H2_STATE_H
#define CAKE_RPC_H2_STATE_H

#include <nghttp2/nghttp2.h>

#include "base/bytes.h"
#include "rpc/h2/deflate.h"

#define CAKE__H2_OVER_IDS      16u
#define CAKE__H2_TABLE_MIN     16u
#define CAKE__H2_CONTROL_MAX   (256u << 10) /* of frames that the peer makes us send; more: it does not read them */
#define CAKE__H2_CONTROL_KEPT  2048u        /* while there are streams */
#define CAKE__H2_TURN_BYTES    (1u << 20)   /* of one long body, before another's turn */
#define CAKE__H2_WINDOW_MOST   INT32_MAX
#define CAKE__H2_WINDOW_FIRST  65535
#define CAKE__H2_FRAME_FIRST   16384u
#define CAKE__H2_STREAM_ID_MAX INT32_MAX

enum {
    CAKE__H2_RATE_RESET,
    CAKE__H2_RATE_PING,
    CAKE__H2_RATE_SETTINGS,
    CAKE__H2_RATE_USELESS,
    CAKE__H2_RATE_WINDOW,
    CAKE__H2_RATE_COUNT
};

#define CAKE__INFLATE_KEPT 4u

/* A block that was read; see inflate.c. */
typedef struct cake__inflated {
    uint32_t version, count, len;
    /* Of a head that was fine: what the checks of its headers left in the session. They need not be made again. */
    bool is_checked, has_regular;
    uint32_t pseudo;
    size_t header_bytes;
    uint8_t bytes[];
} cake__inflated_t;

typedef struct cake__inflate {
    const cake_alloc_t *alloc;
    nghttp2_hd_inflater *inflater; /* NULL until the first header comes */
    uint32_t version;              /* of its table */
    cake__inflated_t *kept[CAKE__INFLATE_KEPT];
    uint32_t next_kept;
} cake__inflate_t;

struct cake__h2 {
    cake__h2_config_t config;
    cake__inflate_t inflate;
    cake__deflate_t deflate;
    nghttp2_mem mem; /* of both */
    cake__list_t streams, sending, bulk, blocked,
        closing;               /* bulk: more than a frame; blocked: by the connection's window */
    cake__h2_stream_t **table; /* by id; first, or larger on the heap */
    uint32_t table_size, stream_count;
    int32_t last_id, next_id; /* the peer's latest, server; our next, client */
    int32_t goaway_id;        /* server: streams beyond it are not taken any more */

    cake__buf_t control;
    size_t control_at;    /* so much of it is in a batch */
    size_t control_asked; /* bytes of it that the peer caused */
    int64_t send_left, peer_window;
    uint32_t peer_frame_max, peer_max_streams;

    uint8_t head[CAKE__H2_HEAD_BYTES];
    uint8_t type, flags;
    uint8_t head_len, preface_len;
    bool has_padding; /* of DATA: its length has been read */
    uint32_t frame_len, frame_left, padding_left;
    cake__h2_stream_t *data_stream; /* that a DATA frame is for; NULL: nobody takes it */
    int32_t frame_id;
    cake__buf_t frame;
    int32_t block_id; /* a header block goes on: only CONTINUATION may come; 0: none */
    bool block_ends_stream;
    cake__h2_stream_t *block_stream; /* NULL: it belongs to none, and is read for the table's sake */
    bool is_block_bad, is_block_trailer, is_block_interim, has_regular;
    uint32_t block_pseudo; /* bits */
    uint32_t continuations;
    int64_t receive_left;
    uint32_t consumed;

    uint64_t now_ns, rates_since_ns;
    uint32_t rates[CAKE__H2_RATE_COUNT];
    int32_t over_ids[CAKE__H2_OVER_IDS]; /* streams that the peer has ended and that are closed, the latest ones */
    uint32_t over_at;
    int32_t skipped_from, skipped_to; /* server: ids that the peer has left out, the latest ones */
    bool is_receiving, is_pulling, is_bulk_next, has_settings, has_goaway, is_goaway_sent, is_terminated;
    int err; /* ends the connection */
    cake__h2_stream_t *first_table[CAKE__H2_TABLE_MIN];
};

/* inflate.c: some of a block, or all of it; false: the connection ends */
bool cake__h2_inflate(cake__h2_t *h2, const uint8_t *data, size_t len, bool is_first, bool is_last);
void cake__inflate_free(cake__inflate_t *inflate);

/* receive.c: one header of the block that is being read */
void cake__h2_take_header(cake__h2_t *h2, cake_slice_t name, cake_slice_t value);

/* session.c: streams */
cake__h2_stream_t *cake__h2_find(const cake__h2_t *h2, int32_t id);
int cake__h2_add(cake__h2_t *h2, cake__h2_stream_t *stream, int32_t id); /* CAKE_ENOMEM */
void cake__h2_forget(cake__h2_t *h2, cake__h2_stream_t *stream);         /* without an event */
void cake__h2_close_stream(cake__h2_t *h2, cake__h2_stream_t *stream, cake__h2_reason_t reason);

void cake__h2_set_err(cake__h2_t *h2, int err);
nghttp2_mem cake__h2_mem(const cake_alloc_t *alloc); /* alloc: for as long as it is used */

/* send.c: the connection ends: GOAWAY, and nothing more is read */
void cake__h2_fail(cake__h2_t *h2, int err, uint32_t code);

/* send.c: frames into control */
uint8_t *cake__h2_put_frame(cake__h2_t *h2, uint8_t type, uint8_t flags, int32_t id, size_t len); /* NULL: no memory */
void cake__h2_put_u32_frame(cake__h2_t *h2, uint8_t type, int32_t id, uint32_t value);
int cake__h2_put_headers(cake__h2_t *h2, int32_t id, const cake__h2_header_t *headers, size_t count, bool is_end);
void cake__h2_asked(cake__h2_t *h2, size_t len); /* the peer caused so many bytes of it */
void cake__h2_wants_turn(cake__h2_t *h2, cake__h2_stream_t *stream);

static inline void cake__h2_store_u32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (24 - 8 * i));
}

static inline uint32_t cake__h2_load_u32(const uint8_t *from)
{
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

#endif
