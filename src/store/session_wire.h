/* session_wire.h: the answer to "open" and "next": up to one of each message, in one body, so that a small difference
 * takes one round trip.
 *
 *   hail, parts u8 (1 WELCOME, 2 CHUNK, 4 COMPARED, 8 FIN), then those messages in this order
 *   CHUNK   session u64, token u64, index varint, count varint, payload (pack.h) of records: (2 u8, actor u64)? where
 *           the actor changes, operation */
#ifndef CAKE_STORE_SESSION_WIRE_H
#define CAKE_STORE_SESSION_WIRE_H

#include "store/pack.h"

#define CAKE__ACTOR_FOLLOWS 2u /* where the flags of an operation are 0 or 1 */
#define CAKE__PART_WELCOME  1u
#define CAKE__PART_CHUNK    2u
#define CAKE__PART_COMPARED 4u
#define CAKE__PART_FIN      8u

typedef struct cake__session_answer {
    bool has_welcome, has_chunk, has_compared, has_fin;
    cake__welcome_t welcome;
    cake__chunk_t
        chunk; /* records, tags and values are the answer's; keys and values borrow from the body or unpacked */
    cake__buf_t unpacked;
    cake__compared_t compared;
    cake__fin_t fin;
    cake_record_t *records;
    cake__value_t *values;
    void **tags;
} cake__session_answer_t;

/* body must outlive the answer. On an error *out needs no free. */
int cake__session_answer_decode(cake__session_answer_t *out, cake_store_t *store, cake_slice_t body,
                                cake__hail_t *hail);
void cake__session_answer_free(cake__session_answer_t *answer, const cake_alloc_t *alloc);

#endif
