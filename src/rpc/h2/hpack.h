/* hpack.h: header blocks written (RFC 7541). nghttp2 reads them; its encoder never gives :path a place in the table, and a
 * connection of ours sends few different headers very often.
 *
 *   table   entries[0] the oldest ... entries[count - 1] the newest      index of the newest on the wire: 62
 *
 * Nothing is ever evicted, so that both sides' tables agree without counting: when the table is full and many headers have found no place,
 * it is emptied (a size of 0, then the size again) and filled anew. */
#ifndef CAKE_RPC_H2_HPACK_H
#define CAKE_RPC_H2_HPACK_H

#include "rpc/h2/h2.h"

#define CAKE__HPACK_ENTRIES   24u
#define CAKE__HPACK_BYTES     4096u /* of the table, as RFC 7541, 4.1 counts them; the peer may want less */
#define CAKE__HPACK_ENTRY_MAX 512u
#define CAKE__HPACK_MISSES    256u /* headers without a place, then the table is emptied */
#define CAKE__HPACK_OVERHEAD  16u  /* a header takes at most so much besides its name and value; a block once more */

typedef struct cake__hpack_entry {
    uint16_t name_len, value_len;
    char *text; /* name, value */
} cake__hpack_entry_t;

typedef struct cake__hpack {
    const cake_alloc_t *alloc;
    cake__hpack_entry_t *entries; /* NULL: none yet */
    uint32_t count, bytes, max_bytes, misses;
    bool must_say_size;
} cake__hpack_t;

void cake__hpack_init(cake__hpack_t *hpack, const cake_alloc_t *alloc);
void cake__hpack_free(cake__hpack_t *hpack);
void cake__hpack_limit(cake__hpack_t *hpack, uint32_t max_bytes); /* the peer's table is to be no larger */

size_t cake__hpack_most(const cake__h2_header_t *headers, size_t count); /* bytes that the block takes at most */
/* Writes the block and gives its length. It is to be sent: the peer's table follows it. */
size_t cake__hpack_write(cake__hpack_t *hpack, const cake__h2_header_t *headers, size_t count, uint8_t *out);

#endif
