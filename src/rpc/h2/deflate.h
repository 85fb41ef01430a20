/* deflate.h: header blocks written by nghttp2's encoder (RFC 7541), and those that come again sent as they were.
 *
 *   headers: [ what many messages have ] [ unique ones ]  ->  block: [ a kept one, or the encoder's ] [ the encoder's ]
 *
 * A kept block stays right as long as the encoder's table stays as it was: what follows one that may have changed it
 * is encoded anew. Unique headers never get a place in the table, and go to the end. */
#ifndef CAKE_RPC_H2_DEFLATE_H
#define CAKE_RPC_H2_DEFLATE_H

#include <nghttp2/nghttp2.h>

#include "rpc/h2/h2.h"

#define CAKE__DEFLATE_TABLE_BYTES 4096u /* as RFC 7541, 4.1 counts them; the peer may want less */
#define CAKE__DEFLATE_HEADERS_MAX 80u   /* of one block */
#define CAKE__DEFLATE_OVERHEAD    16u /* a header takes at most so much besides its name and value; a block once more */
#define CAKE__DEFLATE_KEPT        4u
#define CAKE__DEFLATE_KEPT_BYTES  1024u /* the headers of a kept block */
#define CAKE__DEFLATE_MISSES      256u  /* blocks too many for a full table, then it is emptied */

typedef struct cake__kept_block {
    uint32_t version;      /* of the table */
    uint32_t count;        /* headers */
    uint32_t key_len, len; /* bytes: the headers' lengths and text, the block */
    uint8_t bytes[];
} cake__kept_block_t;

typedef struct cake__deflate {
    const cake_alloc_t *alloc;
    nghttp2_mem *mem;
    nghttp2_hd_deflater *deflater; /* NULL until the first block */
    uint32_t max_bytes, version, misses;
    bool has_news;   /* about the table, for the next block: it is not kept */
    bool has_unique; /* headers that need the encoder for each block */
    cake__kept_block_t *kept[CAKE__DEFLATE_KEPT];
    uint32_t next_kept;
} cake__deflate_t;

void cake__deflate_init(cake__deflate_t *deflate, const cake_alloc_t *alloc,
                        nghttp2_mem *mem); /* mem: for as long as it is used */
void cake__deflate_free(cake__deflate_t *deflate);
void cake__deflate_rest(
    cake__deflate_t *deflate); /* nothing is to be written for a while: an encoder that knows nothing goes */
int cake__deflate_limit(cake__deflate_t *deflate,
                        uint32_t max_bytes); /* the peer's table is to be no larger; CAKE_ENOMEM */

size_t cake__deflate_most(const cake__h2_header_t *headers, size_t count); /* bytes that the block takes at most */
/* Writes the block and gives its length. It is to be sent: the peer's table follows it. CAKE_ENOMEM: none can be
 * written any more. */
intptr_t cake__deflate_write(cake__deflate_t *deflate, const cake__h2_header_t *headers, size_t count, uint8_t *out);

#endif
