/* session.h: rules 3, 5 and 7: how receiver r catches up with sender z. Pure: messages in, messages out; the store
 * carries them, and the values that belong to the records.
 *
 *   r -> z  HELLO     C, g, H of r                    z -> r  WELCOME  C, g, H, epoch of z: r picks JOIN, DELTA, REPAIR
 *   z -> r  CHUNK...  records that r's HELLO lacks    z -> r  FIN      with C, g, H as of the instant of the last chunk
 *   r -> z  COMPARE / z -> r COMPARED   repair only       r: everything staged in a change, joined contexts with FIN
 *
 * The comparison of a repair goes down from coarse ranges to fine ones: r sends the sums of 16 ranges, z answers
 * which differ and with what in their parts, r goes on with those, and asks in the end about the ids that it holds
 * in ranges that differ. So its bytes are in proportion to the differences, and it takes one round trip per 8 bits.
 *
 * Only r changes. Every message that r handles is staged in a change (replica.h); a failed check aborts the
 * session, which is always safe. One struct per message; the encoders are in session_codec. */
#ifndef CAKE_CRDT_SESSION_H
#define CAKE_CRDT_SESSION_H

#include "crdt/replica.h"

/* Tables of retired actors (retired.h) travel as a reference where the other side has the same: HELLO refers to
 * that of r unless is_whole; WELCOME and FIN refer to it when it is also that of z (`known`: its hash, 0: none). If
 * z has another one and got a reference, its WELCOME says lacks_table, r aborts, and its next HELLO is whole. */
typedef struct cake__hello {
    uint64_t session_id;
    bool is_whole; /* for the encoder */
    uint16_t node_id;
    uint64_t actor;
    cake__summary_t summary;
} cake__hello_t;

typedef struct cake__welcome {
    uint64_t session_id, token, actor, epoch;
    uint16_t node_id;
    bool is_joined, expects_compare, lacks_table;
    uint64_t known;     /* for the encoder */
    uint8_t range_bits; /* of the finest ranges that z will compare; 0: ids only */
    cake__summary_t summary;
} cake__welcome_t;

typedef struct cake__chunk {
    uint64_t session_id, token;
    uint32_t index;
    const cake_record_t *records;
    void *const *tags; /* one per record, for cake__staged_t */
    size_t count;
} cake__chunk_t;

typedef struct cake__fin {
    uint64_t session_id, token, epoch;
    uint64_t known; /* for the encoder */
    uint32_t chunk_count;
    cake__summary_t summary;
} cake__fin_t;

/* A key as it is, then zeroes: in byte forms such an id is as long as its key. */
static inline bool cake__id_is_plain(const cake_id_t *id)
{
    uint8_t rest = 0;
    for (size_t i = id->bytes[15]; i < 15; i++)
        rest |= id->bytes[i];
    return id->bytes[15] <= CAKE_ID_PLAIN_MAX && rest == 0;
}

/* Ranges of ids (ranges.h): from one to its parts are 4 bits, and the finest have 20. */
#define CAKE__RANGE_STEP     4u
#define CAKE__RANGE_FAN      (1u << CAKE__RANGE_STEP)
#define CAKE__RANGE_BITS_MAX 20u
#define CAKE__RANGES_MAX     4096u /* of one COMPARE */

/* COMPARE of one part: sums of ranges (ranges.h) of which r holds something, or ids that r asks about. */
typedef struct cake__range_sum {
    uint32_t index;
    uint64_t sum;
} cake__range_sum_t;

typedef struct cake__compare {
    uint64_t session_id, token;
    uint32_t index;
    bool is_last;
    uint8_t bits;              /* of the ranges */
    cake__range_sum_t *ranges; /* by index; owned by the message, as the ids */
    size_t range_count;
    cake_id_t *ids;
    size_t count;
} cake__compare_t;

/* A range that differs, and the sums of its parts as z has them. */
typedef struct cake__unequal {
    uint32_t index;
    uint64_t parts[CAKE__RANGE_FAN];
} cake__unequal_t;

typedef struct cake__compared {
    uint64_t session_id, token, epoch;
    uint32_t index; /* of the COMPARE that is answered: r knows what it asked */
    uint8_t bits;   /* of the ranges, as they were asked */
    bool has_parts; /* false: these are the finest */
    cake__unequal_t *unequal;
    size_t unequal_count;
    cake_id_t *absent; /* those asked that z holds neither live nor dead; owned by the message */
    size_t absent_count;
} cake__compared_t;

/* Each message type has free, encode (appends to buf) and decode (strict; CAKE_EPARSE, CAKE_ETOOBIG, CAKE_ENOMEM;
 * on error *out needs no free). cake__chunk_t is encoded by the store, with keys and values. */
void cake__hello_free(cake__hello_t *message);
void cake__hello_encode(const cake__hello_t *message, cake__buf_t *out);
int cake__hello_decode(cake__hello_t *out, const cake_alloc_t *alloc, cake__reader_t *reader);
void cake__welcome_free(cake__welcome_t *message);
void cake__welcome_encode(const cake__welcome_t *message, cake__buf_t *out);
int cake__welcome_decode(cake__welcome_t *out, const cake_alloc_t *alloc, cake__reader_t *reader);
void cake__fin_free(cake__fin_t *message);
void cake__fin_encode(const cake__fin_t *message, cake__buf_t *out);
int cake__fin_decode(cake__fin_t *out, const cake_alloc_t *alloc, cake__reader_t *reader);
void cake__compare_free(cake__compare_t *message, const cake_alloc_t *alloc);
void cake__compare_encode(const cake__compare_t *message, cake__buf_t *out);
int cake__compare_decode(cake__compare_t *out, const cake_alloc_t *alloc, cake__reader_t *reader);
void cake__compared_free(cake__compared_t *message, const cake_alloc_t *alloc);
void cake__compared_encode(const cake__compared_t *message, cake__buf_t *out);
int cake__compared_decode(cake__compared_t *out, const cake_alloc_t *alloc, cake__reader_t *reader);

/* ---- the sender, z: never changes its set ------------------------------------------------------------------------ */
typedef struct cake__sender cake__sender_t;

/* token: drawn at random by the caller. The sender keeps what it needs of hello (copies). */
int cake__sender_new(cake_orswot_t *set, uint16_t node_id, const cake__hello_t *hello, uint64_t token,
                     cake__sender_t **out);
void cake__sender_free(cake__sender_t *sender);
int cake__sender_welcome(const cake__sender_t *sender, cake__welcome_t *out);

/* The next part, at this instant: up to limit records that r lacks and was not sent. *count may be 0. *has_fin:
 * these were the last; *fin is of the same instant (free it). When *count is 0 and there is no fin, z waits for a
 * COMPARE. The caller fetches the values afterwards; a row that has become newer goes out in its place, and when
 * one has gone the session must be given up (its FIN would cover what was never sent). */
int cake__sender_next(cake__sender_t *sender, size_t limit, cake_record_t *records, size_t *count,
                      uint32_t *chunk_index, bool *has_fin, cake__fin_t *fin);

/* Work that a comparison waits for, in pieces of bounded length. A caller that must not pause calls step while
 * *has_more, between other things, before it answers a COMPARE; what is left is done at once by
 * cake__sender_compare. */
int cake__sender_step(cake__sender_t *sender, bool *has_more);

/* CAKE_ECLOSED: not of this session, or after the FIN: no answer. CAKE_EINVAL: ranges that WELCOME did not offer. */
int cake__sender_compare(cake__sender_t *sender, const cake__compare_t *request, cake__compared_t *out);
uint64_t cake__sender_token(const cake__sender_t *sender);

/* ---- the receiver, r --------------------------------------------------------------------------------------------- */
typedef struct cake__receiver cake__receiver_t;

typedef enum cake__session_mode {
    CAKE__MODE_NONE,
    CAKE__MODE_JOIN,
    CAKE__MODE_DELTA,
    CAKE__MODE_REPAIR
} cake__session_mode_t;
typedef enum cake__session_phase {
    CAKE__PHASE_OPENING,
    CAKE__PHASE_RUNNING,
    CAKE__PHASE_FINISHED, /* its FIN is staged, or committed */
    CAKE__PHASE_ABORTED
} cake__session_phase_t;

int cake__receiver_new(cake_orswot_t *set, uint16_t node_id, uint64_t session_id, cake__receiver_t **out);
void cake__receiver_free(cake__receiver_t *receiver); /* aborts it first when it runs */
const cake__hello_t *cake__receiver_hello(const cake__receiver_t *receiver);
cake__session_phase_t cake__receiver_phase(const cake__receiver_t *receiver);
cake__session_mode_t cake__receiver_mode(const cake__receiver_t *receiver);
const char *cake__receiver_reason(const cake__receiver_t *receiver);       /* why it was aborted; static text */
void cake__receiver_abort(cake__receiver_t *receiver, const char *reason); /* reason: static text */

/* Memory that a running repair holds, and what it still waits for: for statistics. */
size_t cake__receiver_bytes(const cake__receiver_t *receiver);

/* Messages, staged in a change of the receiver's set. Messages of another session or token, and repeated ones, are
 * ignored. 0 also when the session was aborted by a check: look at the phase. */
int cake__receiver_on_welcome(cake__receiver_t *receiver, cake__change_t *change, const cake__welcome_t *welcome);
int cake__receiver_on_chunk(cake__receiver_t *receiver, cake__change_t *change, const cake__chunk_t *chunk);
int cake__receiver_on_compared(cake__receiver_t *receiver, cake__change_t *change, const cake__compared_t *reply);
int cake__receiver_on_fin(cake__receiver_t *receiver, cake__change_t *change, const cake__fin_t *fin);

/* As cake__sender_step, for the comparison: while *has_more, before next_compare. Not while the change with the
 * WELCOME is open (then there is nothing to do yet). */
int cake__receiver_step(cake__receiver_t *receiver, bool *has_more);
/* The end of a repair that drops many tombstones takes several changes: while is_finishing, begin another and go on.
 * Only the last one joins the contexts and carries the kills; the others are drops, which are safe at any time. */
bool cake__receiver_is_finishing(const cake__receiver_t *receiver);
int cake__receiver_go_on(cake__receiver_t *receiver, cake__change_t *change);

/* The next COMPARE of up to limit ranges and ids; *has false when there is none now: none at all, or first the
 * answers to the others are needed. */
int cake__receiver_next_compare(cake__receiver_t *receiver, size_t limit, bool *has, cake__compare_t *out);

/* A reissue (rule 5) is a write of our own on an existing row: where the record came from z its value is behind the tag
 * of the chunk; where it is a record of ours the tag is NULL and the caller copies key and value from the storage. */

#endif
