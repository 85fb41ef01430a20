/* datacake/orswot.h: the set alone: an observed-remove set without tombstones that pile up, with last-writer-wins
 * values kept elsewhere, several asynchronous sources, and deltas in proportion to the changes. libdatacake-crdt has
 * this and the clock, and needs nothing but the C library.
 *
 * What to know first
 * - A set holds ids, stamps and dots; the values belong to the caller, who stores them beside the record of each id.
 * - Every run of a process takes a new actor, drawn at random. Two runs with one actor can use one dot for two writes,
 *   and then replicas differ for good.
 * - wall_ms is the wall clock in Unix milliseconds. It may jump; stamps never go back for it.
 * - A set belongs to one thread at a time.
 * - Out of memory is CAKE_ENOMEM everywhere, and the set is as it was.
 *
 *   cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
 *   config.actor = random_number;
 *   cake_orswot_t *set;
 *   cake_orswot_new(&config, &set);
 *   cake_id_t id = cake_id_of_u64(42);
 *   cake_orswot_insert(set, wall_ms, &id, NULL);
 *   cake_orswot_delete(set, wall_ms, &id, NULL);
 *
 *   cake_orswot_free(set);
 *
 * n: records; costs are amortised, and no call that says O(1) takes longer than the move of 3072 index entries (docs
 * say how long). What is passed in is read during the call and stays the caller's; records and ids are written to
 * memory of the caller. Each call lists its errors; one that lists none cannot fail. docs/set-layout.md has what the
 * calls cost in ns. */
#ifndef DATACAKE_ORSWOT_H
#define DATACAKE_ORSWOT_H

#include <datacake/hlc.h>
#include <datacake/key.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cake_orswot cake_orswot_t;

/* One write: at once the operation on the wire and the record that is kept. Totally ordered by (hlc, actor, seq). */
typedef struct cake_record {
    cake_id_t id;
    cake_hlc_t hlc;
    cake_dot_t dot;
    bool is_tombstone;
} cake_record_t;

/* How an operation arrives. It selects the checks, never the outcome of the order. An application that uses the set
 * alone may number sources of its own from CAKE_SOURCE_USER on: they are held to the rules of EAGER. */
typedef enum cake_source {
    CAKE_SOURCE_LOCAL, /* issued here: gets a fresh dot and a fresh stamp */
    CAKE_SOURCE_EAGER, /* best effort, any order: adds its single dot, or is ignored */
    CAKE_SOURCE_SYNC,  /* inside a session, whose end may join contexts */
    CAKE_SOURCE_USER = 16
} cake_source_t;

typedef enum cake_verdict {
    CAKE_VERDICT_NEWER,         /* becomes the record of its key */
    CAKE_VERDICT_OLDER,         /* only its dot is remembered */
    CAKE_VERDICT_SEEN,          /* its dot is known already */
    CAKE_VERDICT_BELOW_HORIZON, /* at or below the horizon: a session will bring it */
    CAKE_VERDICT_TOO_FAR_AHEAD, /* beyond the wall clock plus the drift allowed */
    CAKE_VERDICT_HELD           /* this replica has not joined yet */
} cake_verdict_t;

/* The id of an eight-byte key, cake_key_u64(number). Of other keys: cake_id_of_key(); what that cannot hold the caller
 * names by a digest that ends in 0xff (key.h). */
static inline cake_id_t cake_id_of_u64(uint64_t number)
{
    cake_id_t id = {{0}};
    for (int i = 0; i < 8; i++)
        id.bytes[i] = (uint8_t)(number >> (56 - 8 * i));
    id.bytes[15] = 8;
    return id;
}

/* ---- a set ------------------------------------------------------------------------------------------------------- */

typedef struct cake_orswot_config {
    size_t size;
    const cake_alloc_t *alloc; /* NULL: the C library's; must outlive the set */
    cake_clock_t *clock;       /* NULL: a clock of its own; may be shared by many sets */
    uint64_t actor;            /* random, new for every run of the process; 0 is CAKE_EINVAL */
    bool is_joined;            /* false: a replica that begins with nothing and has to catch up first (rule 7) */
} cake_orswot_config_t;

#ifdef __cplusplus
static inline cake_orswot_config_t cake__orswot_config()
{
    cake_orswot_config_t config = CAKE_SIZED(cake_orswot_config_t);
    config.is_joined = true;
    return config;
}
#define CAKE_ORSWOT_CONFIG_INIT cake__orswot_config()
#else
#define CAKE_ORSWOT_CONFIG_INIT                                                                                        \
    {                                                                                                                  \
        .size = sizeof(cake_orswot_config_t), .is_joined = true                                                        \
    }
#endif

/* An empty set, the caller's until it is freed; the clock and the allocator must outlive it. O(1). CAKE_EINVAL,
 * CAKE_ENOMEM, and then *set is NULL. */
CAKE_API int cake_orswot_new(const cake_orswot_config_t *config, cake_orswot_t **set);
CAKE_API void cake_orswot_free(cake_orswot_t *set); /* NULL allowed; no session may be open. O(n / 1000) */

/* ---- writing: O(1) --------------------------------------------------------------------------------------------------
 * *out (may be NULL) is what to send to other replicas. CAKE_EDRIFT: the clock was dragged ahead of the wall clock, try
 * again later. CAKE_ENOTJOINED: rule 7. CAKE_ETOOBIG: the actor has used up its 2^60 dots. A delete of an id that is
 * not there is a write too: it may be there elsewhere. */
CAKE_API int cake_orswot_insert(cake_orswot_t *set, uint64_t wall_ms, const cake_id_t *id, cake_record_t *out);
CAKE_API int cake_orswot_delete(cake_orswot_t *set, uint64_t wall_ms, const cake_id_t *id, cake_record_t *out);
/* The same in a row, several times as fast on a large set, because the memory that each needs is fetched ahead: hand
 * over some hundreds at once. *done: how many were written, all of them after 0. out may be NULL, else it has room for
 * count. */
CAKE_API int cake_orswot_insert_many(cake_orswot_t *set, uint64_t wall_ms, const cake_id_t *ids, size_t count,
                                     cake_record_t *out, size_t *done);
CAKE_API int cake_orswot_delete_many(cake_orswot_t *set, uint64_t wall_ms, const cake_id_t *ids, size_t count,
                                     cake_record_t *out, size_t *done);

/* An operation from another replica. *verdict (may be NULL): what became of it; only NEWER and OLDER change the set.
 * CAKE_EINVAL: a dot that cannot be, or source LOCAL or SYNC, which have their own calls. */
CAKE_API int cake_orswot_receive(cake_orswot_t *set, uint64_t wall_ms, const cake_record_t *record,
                                 cake_source_t source, cake_verdict_t *verdict);
/* What receive would say; changes nothing. */
CAKE_API cake_verdict_t cake_orswot_will_apply(const cake_orswot_t *set, uint64_t wall_ms, const cake_record_t *record,
                                               cake_source_t source);

/* Example, on each replica every few seconds, with the others as this one knows them to be:
 *      cake_orswot_purge(set, wall_ms, others, count, 10000, 3600000, 4096, &dropped);
 *      cake_orswot_retire(set, living, living_count, others, count, NULL);
 *
 * Drops up to max_count tombstones older than min_age_ms, those that all of the given replicas have seen (rule 4). A
 * hole below a tombstone (a dot that did not arrive) holds it up for hole_age_ms. *dropped may be NULL. O(actors +
 * dropped). */
CAKE_API int cake_orswot_purge(cake_orswot_t *set, uint64_t wall_ms, const cake_orswot_t *const *replicas, size_t count,
                               uint64_t min_age_ms, uint64_t hole_age_ms, size_t max_count, size_t *dropped);

/* Folds actors that write no more: every run of a process takes a new actor, and each would stay in the contexts, in
 * memory and in the messages of sessions for ever. Folded ones take 16 bytes in memory and in the byte form, and 9
 * bytes all together in a message between sets that have folded the same. living: the actors that may still write (that
 * of the set is among them anyway). replicas: all that are to be had without a repair, as they are known to be (as in
 * purge); an actor is folded once each of them has all of its writes. May be called at any time, best after a restart
 * somewhere. A replica that was not among them, or an actor that writes after all, costs repair sessions; no write is
 * lost or comes back (src/crdt/retired.h says why). *retired: how many; may be NULL. O(listed actors * (living +
 * replicas)). */
CAKE_API int cake_orswot_retire(cake_orswot_t *set, const uint64_t *living, size_t living_count,
                                const cake_orswot_t *const *replicas, size_t count, size_t *retired);

/* ---- reading: O(1) ----------------------------------------------------------------------------------------------- */

CAKE_API bool cake_orswot_get(const cake_orswot_t *set, const cake_id_t *id, cake_record_t *out); /* live or dead */
/* The same in a row, out[i] for ids[i], with memory fetched ahead. Returns how many there are; of the others out[i] has
 * the id and the rest is zero, the seq of the dot too. */
CAKE_API size_t cake_orswot_get_many(const cake_orswot_t *set, const cake_id_t *ids, size_t count, cake_record_t *out);
CAKE_API size_t cake_orswot_live(const cake_orswot_t *set);
CAKE_API size_t cake_orswot_tombstones(const cake_orswot_t *set);
CAKE_API uint64_t
cake_orswot_fingerprint(const cake_orswot_t *set); /* of the live records; equal sets, equal numbers */

typedef struct cake_orswot_statistics {
    uint64_t live, tombstones;
    uint64_t actors;     /* that the context lists */
    uint64_t exceptions; /* ranges of the context above holes */
    uint64_t bytes;      /* held by the set, all told */
    cake_hlc_t horizon;  /* the highest stamp of a tombstone that was dropped */
    uint64_t retired;    /* actors in the table beside the list */
} cake_orswot_statistics_t;
CAKE_API void cake_orswot_statistics(const cake_orswot_t *set, cake_orswot_statistics_t *out);

/* A place in an iteration; begin with all zeroes. The set must not change in between. */
typedef struct cake_orswot_cursor {
    uint64_t place[4];
} cake_orswot_cursor_t;

/* Up to limit records, live and dead, in order of (actor, seq); 0 at the end. */
CAKE_API size_t cake_orswot_next(const cake_orswot_t *set, cake_orswot_cursor_t *cursor, cake_record_t *records,
                                 size_t limit);
/* Those that `other` lacks: whose dots are not in its context. O(actors + holes + what is returned). */
CAKE_API size_t cake_orswot_diff(const cake_orswot_t *set, const cake_orswot_t *other, cake_orswot_cursor_t *cursor,
                                 cake_record_t *records, size_t limit);
CAKE_API bool cake_orswot_has_seen(const cake_orswot_t *set, cake_dot_t dot);
CAKE_API bool cake_orswot_is_in_sync(const cake_orswot_t *a,
                                     const cake_orswot_t *b); /* equal contexts: equal live sets */

/* ---- fingerprints by range ------------------------------------------------------------------------------------------
 * To find where two sets differ without sending either: ids have a position, a hash of 64 bits that is the same on
 * every machine, and the range (bits, index) is the positions whose upper `bits` bits are `index`, so that (0, 0) is
 * everything and the 16 parts of (bits, index) are (bits + 4, 16 * index ...). Equal live records (id and dot) of a
 * range have equal fingerprints, on every machine. Replicas whose contexts are equal must have equal ones everywhere;
 * others may not.
 *
 *   cake_ranges_new(set, 16, &ranges);                              about 16 records per range at a million
 *   while ((more = cake_ranges_step(ranges)) > 0) ...               half a millisecond each; the set may change between
 *   ... compare cake_ranges_fingerprint(ranges, 4, 0 .. 15) with the other side's, then the parts of those that differ
 * ...
 *   cake_ranges_seek(ranges, 16, index);                            the records of one range
 *   while (cake_ranges_next(ranges, records, &count) > 0) ...
 *
 * Nothing is kept for this while it is not used: new and step walk through the set, O(n) in all, about 30 ns per
 * record, and take 12 bytes per range. What is written after new does not take part, what it replaces may or may not.
 * seek and next walk again: O(n) per range, so ask for the ranges that differ and not for each. The set must outlive
 * its ranges. */
typedef struct cake_ranges cake_ranges_t;

#define CAKE_RANGE_BITS_STEP 4u
#define CAKE_RANGE_BITS_MAX  20u
#define CAKE_RANGES_PART     1024u /* records of one next, at most */

CAKE_API uint64_t cake_orswot_position(const cake_id_t *id);
/* bits: of the finest ranges, a multiple of 4 up to 20, else CAKE_EINVAL. */
CAKE_API int cake_ranges_new(cake_orswot_t *set, uint32_t bits, cake_ranges_t **out);
CAKE_API void cake_ranges_free(cake_ranges_t *ranges); /* NULL allowed */
CAKE_API int
cake_ranges_step(cake_ranges_t *ranges); /* 1: there is more to do; 0: done; CAKE_ENOMEM: may be tried again */
/* Done, and the set has not changed since new: these are the fingerprints of the set as it is. */
CAKE_API bool cake_ranges_are_exact(const cake_ranges_t *ranges);
/* O(1) once done; before, and for ranges that are none, 0. *count (may be NULL): live records. */
CAKE_API uint64_t cake_ranges_fingerprint(const cake_ranges_t *ranges, uint32_t bits, uint32_t index, uint64_t *count);
CAKE_API void cake_ranges_seek(cake_ranges_t *ranges, uint32_t bits, uint32_t index);
/* Live records of the range, up to CAKE_RANGES_PART, perhaps none yet. 1: come again; 0: that was the end, and none. */
CAKE_API int cake_ranges_next(cake_ranges_t *ranges, cake_record_t *records, size_t *count);
/* Of the positions from..to, both included, at once. O(n). *count may be NULL. */
CAKE_API int cake_orswot_fingerprint_range(cake_orswot_t *set, uint64_t from, uint64_t to, uint64_t *fingerprint,
                                           uint64_t *count);

/* ---- as bytes -------------------------------------------------------------------------------------------------------
 * Versioned, checksummed, and canonical: equal sets give equal bytes. O(n), in pieces of some kilobytes.
 * write: 0, or a negative code that save returns. read: how many bytes it put into data, at most len; 0 at the end, or
 * a negative code that load returns. It may read beyond the set; what follows it is not used.
 *
 *      int err = cake_orswot_save(set, write_to_file, file);                 config.actor = random_number;
 *      err = cake_orswot_load(&config, read_from_file, file, &loaded);       a set of the caller's, or NULL
 *
 * load: CAKE_EPARSE (cut or malformed), CAKE_EVERSION, CAKE_ETOOBIG, CAKE_ECORRUPT (checksum), CAKE_EDUPLICATE
 * (config->actor has written before: draw another). config->is_joined is not used. */
typedef int (*cake_orswot_write_fn)(void *ctx, const void *data, size_t len);
typedef int (*cake_orswot_read_fn)(void *ctx, void *data, size_t len);
CAKE_API int cake_orswot_save(cake_orswot_t *set, cake_orswot_write_fn write, void *ctx);
CAKE_API int cake_orswot_load(const cake_orswot_config_t *config, cake_orswot_read_fn read, void *ctx,
                              cake_orswot_t **set);

/* ---- sessions in one process ----------------------------------------------------------------------------------------
 *      if (cake_orswot_pull(mine, theirs, wall_ms) == CAKE_EBUSY) ... again, later ...
 *
 * Invariant of every session, whole or broken off: what a has taken was written by somebody, an older write never takes
 * the place of a newer one, and a context joins only what was sent before. Both sets stay their owners'.
 * a takes what b has (a delta, or a repair after one of them dropped what the other has not seen). CAKE_EBUSY: a drop
 * came in between or a stamp of b is too far ahead; safe to try again. O(actors + holes + what a lacks); a repair
 * O(n). */
CAKE_API int cake_orswot_pull(cake_orswot_t *a, cake_orswot_t *b, uint64_t wall_ms);
/* Both ways: afterwards both have equal contexts and equal live sets. */
CAKE_API int cake_orswot_merge(cake_orswot_t *a, cake_orswot_t *b, uint64_t wall_ms);

/* ---- sessions between processes -------------------------------------------------------------------------------------
 * One side pulls: it asks and takes; the other answers and does not change. Whatever carries the bytes may lose a
 * session at any point: what was taken stays, and a new session goes on from there.
 *
 *   pulling:   cake_pull_new(set, random, &pull);            answering:  cake_answer_new(set, random, &answer);
 *              while (cake_pull_next(pull, &request) > 0) {              per request:
 *                  ... send request, receive reply ...                   cake_answer_next(answer, request, &reply)
 *                  cake_pull_take(pull, wall_ms, reply);                 ... send reply ...
 *              }
 *
 * The random number tells sessions apart: draw a new one for each. Sets must outlive their sessions. A delta costs
 * bytes and time in proportion to what is lacking; so does a repair in bytes (some 350 per difference and 1 to 2 KB at
 * a million records, at most 9 round trips and one more per 1024 questions), while its time has O(n) walks on both
 * sides. A message is below 150 KB, but for contexts with many holes. */
typedef struct cake_pull cake_pull_t;
typedef struct cake_answer cake_answer_t;

#define CAKE_PULL_RECORDS_MAX 1024u /* of one reply */

CAKE_API int cake_pull_new(cake_orswot_t *set, uint64_t random, cake_pull_t **out);
CAKE_API void cake_pull_free(cake_pull_t *pull); /* NULL allowed */
/* 1: *request is to be sent, and valid until the next call; 0: everything was taken; CAKE_EBUSY: given up, as in
 * cake_orswot_pull; a new session may succeed. */
CAKE_API int cake_pull_next(cake_pull_t *pull, cake_slice_t *request);
/* CAKE_EPARSE, CAKE_EVERSION, CAKE_ETOOBIG: the reply makes no sense, and the session is given up. */
CAKE_API int cake_pull_take(cake_pull_t *pull, uint64_t wall_ms, cake_slice_t reply);

/* A repair compares the two sets by ranges, and walks through all of a set for that. A caller that must not pause does
 * the walk in pieces of about half a millisecond: it calls step until it returns 0 before cake_pull_next, and
 * cake_answer_step before cake_answer_next. What is left is done at once by these. 1: there is more to do; or
 * CAKE_ENOMEM. */
CAKE_API int cake_pull_step(cake_pull_t *pull);
CAKE_API int cake_answer_step(cake_answer_t *answer);

CAKE_API int cake_answer_new(cake_orswot_t *set, uint64_t random, cake_answer_t **out);
CAKE_API void cake_answer_free(cake_answer_t *answer); /* NULL allowed */
/* *reply is valid until the next call. CAKE_EPARSE, CAKE_EVERSION, CAKE_ETOOBIG: the request makes no sense. */
CAKE_API int cake_answer_next(cake_answer_t *answer, cake_slice_t request, cake_slice_t *reply);

#ifdef __cplusplus
}
#endif
#endif
