/* verify.h: looking for damage, and mending it from a replica.
 *
 *   verify.c         the call: one keyspace after the other; this node's storage against its set
 *   verify_peers.c   this node's set against that of each replica, by ranges
 *   compare.c        what the others are asked for that, and how it is answered
 *
 * All but the answering runs on the caller's thread, which hops to the loop and to the lanes for what belongs to
 * them. */
#ifndef CAKE_STORE_VERIFY_H
#define CAKE_STORE_VERIFY_H

#include "store/store.h"

#define CAKE__COMPARE_RANGES                                                                                           \
    256u /* that differ, of one keyspace and replica: looked into; more are found by the next call */
#define CAKE__VERIFY_PEERS_MAX 256u
#define CAKE__COMPARE_BITS     12u
#define CAKE__COMPARE_RECORDS  65536u /* of one range */

typedef enum cake__compare_kind { CAKE__COMPARE_SUMS, CAKE__COMPARE_LIST, CAKE__COMPARE_ROW } cake__compare_kind_t;

/* A call of verify. Invariant: store->reads_running counts it, so that the store outlives it. */
typedef struct cake__verifying {
    cake_store_t *store;
    cake_verify_options_t options;
    cake_verify_report_t *report;
    cake__keyspace_t *keyspace;             /* the one that is looked at; keyspaces live as long as the store */
    uint16_t peers[CAKE__VERIFY_PEERS_MAX]; /* live replicas */
    size_t peer_count;
    cake__buf_t own; /* key and value of a row of this node */
} cake__verifying_t;

/* One row as a replica has it; borrows from the answer. */
typedef struct cake__compared_row {
    cake_record_t record;
    cake__value_t value;
} cake__compared_row_t;

/* An answer: what follows its hail. */
typedef struct cake__comparison {
    cake_reply_t *reply;
    cake__reader_t reader;
} cake__comparison_t;

/* ---- verify.c -----------------------------------------------------------------------------------------------------*/
void cake__verify_tell(cake__verifying_t *verifying, cake_damage_kind_t kind, uint16_t node_id, const cake_id_t *id,
                       cake_slice_t key, bool is_healed);
/* This record as a replica has it; *out borrows from *answer, which is to be ended. CAKE_ENOTFOUND: none has it. */
int cake__verify_fetch(cake__verifying_t *verifying, const cake_record_t *record, cake__comparison_t *answer,
                       cake__compared_row_t *out);

/* The same from this node's own storage; *out borrows from verifying->own. */
int cake__verify_read(cake__verifying_t *verifying, const cake_record_t *record, cake__compared_row_t *out);

/* ---- verify_peers.c -----------------------------------------------------------------------------------------------*/
int cake__verify_peers(cake__verifying_t *verifying);

/* ---- compare.c ----------------------------------------------------------------------------------------------------*/
/* request: of one kind, from keyspace on (below). Blocks. */
int cake__compare_ask(cake_store_t *store, uint16_t node_id, const cake__buf_t *request, cake__comparison_t *out);
void cake__compare_put_head(cake__buf_t *out, const char *keyspace, cake__compare_kind_t kind, uint32_t bits);
/* Of the answer to ROW; false: it has none, or makes no sense. */
bool cake__compare_get_row(cake__comparison_t *comparison, cake__compared_row_t *out);
void cake__compare_end(cake__comparison_t *comparison);

/* All records of a range of a set, as it is walked in pieces: step until it returns 0. On the loop. */
typedef struct cake__range_list {
    cake_ranges_t *ranges;
    cake_record_t *records;
    size_t count, capacity;
    const cake_alloc_t *alloc;
} cake__range_list_t;
int cake__range_list_init(cake__range_list_t *list, cake__keyspace_t *keyspace, uint32_t bits, uint32_t index);
int cake__range_list_step(cake__range_list_t *list); /* 1: there is more; 0; CAKE_ENOMEM, CAKE_ETOOBIG */
void cake__range_list_free(cake__range_list_t *list);

#endif
