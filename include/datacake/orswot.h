/* datacake/orswot.h: the set alone: an observed-remove set without tombstones that pile up, with last-writer-wins
 * values kept elsewhere, several asynchronous sources, and deltas in proportion to the changes. libdatacake-crdt has this
 * and the clock, and needs nothing but the C library. */
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

/* How an operation arrives. It selects the checks, never the outcome of the order. */
typedef enum cake_source {
    CAKE_SOURCE_LOCAL, /* issued here: gets a fresh dot and a fresh stamp */
    CAKE_SOURCE_EAGER, /* best effort, any order: adds its single dot, or is ignored */
    CAKE_SOURCE_SYNC   /* inside a session, whose end may join contexts */
} cake_source_t;

typedef enum cake_verdict {
    CAKE_VERDICT_NEWER,         /* becomes the record of its key */
    CAKE_VERDICT_OLDER,         /* only its dot is remembered */
    CAKE_VERDICT_SEEN,          /* its dot is known already */
    CAKE_VERDICT_BELOW_HORIZON, /* at or below the horizon: a session will bring it */
    CAKE_VERDICT_TOO_FAR_AHEAD, /* beyond the wall clock plus the drift allowed */
    CAKE_VERDICT_HELD           /* this replica has not joined yet */
} cake_verdict_t;

typedef struct cake_orswot_config {
    size_t size;
    const cake_alloc_t *alloc; /* NULL: the C library's; must outlive the set */
    cake_clock_t *clock;       /* NULL: a clock of its own; may be shared by many sets */
    uint64_t actor;            /* random, new for every run of the process; 0 is CAKE_EINVAL */
    bool is_joined;            /* false: a replica that begins with nothing and has to catch up first (rule 7) */
} cake_orswot_config_t;

#define CAKE_ORSWOT_CONFIG_INIT                                                                                        \
    {                                                                                                                  \
        .size = sizeof(cake_orswot_config_t), .is_joined = true                                                        \
    }

CAKE_API int cake_orswot_new(const cake_orswot_config_t *config, cake_orswot_t **set);
CAKE_API void cake_orswot_free(cake_orswot_t *set); /* NULL allowed */

CAKE_API bool cake_orswot_get(const cake_orswot_t *set, const cake_id_t *id, cake_record_t *out); /* live or dead */
CAKE_API size_t cake_orswot_live(const cake_orswot_t *set);
CAKE_API size_t cake_orswot_tombstones(const cake_orswot_t *set);
CAKE_API uint64_t
cake_orswot_fingerprint(const cake_orswot_t *set); /* of the live records; equal sets, equal numbers */

#ifdef __cplusplus
}
#endif
#endif
