/* comparison.h: what r does to find the records of its own at whose ids z may hold nothing (rule 5), by ranges.h.
 *
 *      BUILD ──walk──> RANGES ──a round per 8 bits──> IDS ──walk──> DONE
 *
 *      round   r: sums of the parts of `parents`    z: those that differ, with sums of their parts  r: `next`, `leaves`
 *
 * The ranges hold what both have seen. Where they agree, z holds each of these records. Of the rest r asks about
 * the ids: its records in the leaves that differ, and those that only one side has seen. A range of few records is
 * not split.
 *
 * Invariants: a round ends when all its questions are answered; parents, next and leaves only name ranges in which
 * r holds something; every record of r that needs the comparison (live, at or below H_z, seen before WELCOME) is in
 * a range that was equal, or is asked about, or was replaced meanwhile by something newer than H_z or by a record
 * of z. */
#ifndef CAKE_CRDT_COMPARISON_H
#define CAKE_CRDT_COMPARISON_H

#include "crdt/ranges.h"

typedef enum cake__comparison_phase {
    CAKE__COMPARISON_BUILD,
    CAKE__COMPARISON_RANGES,
    CAKE__COMPARISON_IDS,
    CAKE__COMPARISON_DONE /* the last question was asked */
} cake__comparison_phase_t;

typedef struct cake__comparison {
    const cake_orswot_t *set;
    cake__comparison_phase_t phase;
    const cake__context_t *hello, *theirs; /* C_r as of HELLO, C_z as of WELCOME: borrowed */
    cake__context_t known;                 /* C_r as of WELCOME */
    cake_hlc_t horizon;
    uint32_t bits, asked_bits, next_index;
    uint64_t *parents, *next, *leaves; /* bits: ranges of asked_bits - 4, of asked_bits + 4, the finest */
    cake__range_build_t build;
    cake__walk_t walk; /* for the ids */
    bool has_walked;
    cake_id_t *ids;
    size_t id_count, id_at, id_capacity;
} cake__comparison_t;

/* hello and theirs must outlive it. *out: NULL after CAKE_ENOMEM. */
int cake__comparison_new(const cake_orswot_t *set, const cake__context_t *hello, const cake__context_t *known,
                         const cake__welcome_t *welcome, cake__comparison_t **out);
void cake__comparison_free(cake__comparison_t *comparison); /* NULL allowed */
size_t cake__comparison_bytes(const cake__comparison_t *comparison);

/* A piece of the walk for the ranges, or of that for the ids once all answers about ranges are there. */
int cake__comparison_step(cake__comparison_t *comparison, bool all_answered, bool *has_more);
/* Fills in ranges or ids, up to limit; false: nothing can be asked before the answers to what was asked are there,
 * or it is DONE. Does what steps have left to do. CAKE_ENOMEM: *out needs no free. */
int cake__comparison_next(cake__comparison_t *comparison, size_t limit, bool all_answered, cake__compare_t *out,
                          bool *has);
/* The ranges of an answer that was not taken before. */
void cake__comparison_take(cake__comparison_t *comparison, const cake__compared_t *answer);

#endif
