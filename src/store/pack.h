/* pack.h: zstd over what travels in bulk: the units of a batch, the documents of a session. A payload is packed when
 * the other side has said that it reads it (hail), it is over CAKE__PACK_MIN, and it becomes smaller by a quarter at
 * least: less costs more time than it saves on a fast net.
 *
 *   payload   encoding u8 (0), then the bytes as they are
 *             encoding u8 (1), raw length varint, one zstd frame behind its length
 *
 * No memory is taken for a length that is only claimed beyond CAKE__UNPACKED_MAX, and none is kept: what comes out
 * is as long as was said, or the message is refused. */
#ifndef CAKE_STORE_PACK_H
#define CAKE_STORE_PACK_H

#include "store/store.h"

#define CAKE__PAYLOAD_PLAIN  0u
#define CAKE__PAYLOAD_PACKED 1u

/* Appends a packed payload to out, its encoding included. False: it stays as it is, and out is as it was. Any
 * thread: the workspace is its own. */
bool cake__pack(cake__workspace_t *workspace, cake_slice_t raw, cake__buf_t *out);

/* The rest of a packed payload, behind its encoding. *raw must be initialised and empty. CAKE_EPARSE, CAKE_ETOOBIG,
 * CAKE_ENOMEM. */
int cake__unpack(cake__workspace_t *workspace, cake__reader_t *reader, cake__buf_t *raw);

/* CAKE_EBUSY when the receiver's memory is promised to others: asked before anything is unpacked. */
bool cake__payload_fits(const cake_store_t *store, cake__reader_t reader);

void cake__workspace_free(cake__workspace_t *workspace);

#endif
