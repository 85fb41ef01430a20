/* headers.h: the headers that users see, and what of ours travels beside them.
 *
 *   list   name NUL value NUL name NUL value NUL ...   in one buffer, limited by its owner */
#ifndef CAKE_RPC_HEADERS_H
#define CAKE_RPC_HEADERS_H

#include <datacake/rpc.h>

#include "base/bytes.h"
#include "rpc/h2/h2.h"

#define CAKE__HEADERS_MAX 64u /* a user's, per message */
#define CAKE__PATH_MAX    (2 * CAKE_RPC_NAME_MAX + 2)
#define CAKE__HEX_BYTES   16u
#define CAKE__DECIMAL_MAX 20u /* bytes */

typedef struct cake__headers {
    cake__buf_t buf;
    size_t count;
} cake__headers_t;

int cake__headers_check(const char *name, const char *value); /* CAKE_EINVAL: not one that users may send */
int cake__headers_add(cake__headers_t *headers, cake_slice_t name, cake_slice_t value); /* CAKE_ENOMEM, CAKE_ETOOBIG */
const char *cake__headers_get(const cake__headers_t *headers, const char *name);        /* NULL: none */
size_t cake__headers_fill(const cake__headers_t *headers, cake__h2_header_t *out);      /* count of them */

bool cake__is_rpc_name(const char *name);   /* of services and methods */
bool cake__is_cluster_id(const char *text); /* or NULL: none is wanted */

void cake__hex_write(uint64_t value, char out[CAKE__HEX_BYTES]);
bool cake__hex_read(cake_slice_t text, uint64_t *out); /* 16 lower-case digits */
cake_slice_t cake__decimal_write(int64_t value, char room[CAKE__DECIMAL_MAX]);
bool cake__decimal_read(cake_slice_t text, uint64_t *out); /* 1 to 19 digits */

static inline cake__h2_header_t cake__header(cake_slice_t name, cake_slice_t value, bool is_unique)
{
    return (cake__h2_header_t){name, value, is_unique};
}

#define CAKE__LITERAL(text) ((cake_slice_t){(text), sizeof(text) - 1})

#define CAKE__NAME_CLOCK   CAKE__LITERAL("datacake-clock")
#define CAKE__NAME_CLUSTER CAKE__LITERAL("datacake-cluster")
#define CAKE__NAME_TIMEOUT CAKE__LITERAL("datacake-timeout")
#define CAKE__NAME_ERROR   CAKE__LITERAL("datacake-error")
#define CAKE__NAME_MESSAGE CAKE__LITERAL("datacake-message")

#endif
