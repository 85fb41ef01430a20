/* gossip: who is in the cluster, and who is alive. A pure core: step(state, now, event) -> actions. It never does I/O,
 * never reads a clock, never calls malloc but by the allocator it is given; the owner (node) carries the actions out.
 *
 *      datagrams, ticks, ping results ---> cake__gossip_step ---> datagrams, pings, member events
 *                                               |
 *                                  cake__gossip_deadline: when the next tick is due
 *
 * State spreads by scuttlebutt reconciliation (van Renesse et al. 2008), liveness is judged by phi-accrual (Hayashibara
 * et al. 2004) on six seeded rings of observers, and a death is confirmed as in SWIM (Das et al. 2002) and Lifeguard
 * (Dadgar et al. 2018) before anyone acts on it. docs/membership.md has the protocol.
 *
 * Rules for the owner
 *   - One thread. Nothing here may be called while a step runs, and no step from inside its own actions' use.
 *   - now_ns is monotonic. A tick that comes late is noticed: the gap is discounted, nobody is accused because of it.
 *   - After every step, arm a timer for cake__gossip_deadline and send CAKE__GOSSIP_TICK when it fires.
 *   - Actions are carried out in order, and what they point at is valid until the next call of step or free.
 *   - Losing a datagram is always safe. Losing a member event is not: they come once. */
#ifndef CAKE_GOSSIP_GOSSIP_H
#define CAKE_GOSSIP_GOSSIP_H

#include "base/base.h"

#define CAKE__GOSSIP_DATAGRAM_MAX 1200u         /* bytes of a frame that is sent as a datagram */
#define CAKE__GOSSIP_STREAM_MAX   (256u * 1024) /* bytes of a frame that goes over a stream */
#define CAKE__GOSSIP_KEY_MAX      255u          /* bytes; at least 1 */
#define CAKE__GOSSIP_VALUE_MAX    (16u * 1024)  /* bytes */
#define CAKE__GOSSIP_KEYS_MAX     256u          /* keys per member, tombstones included */
#define CAKE__GOSSIP_NAME_MAX     127u          /* bytes of a data centre's or cluster's name; at least 1 */
#define CAKE__GOSSIP_NONCE_LEN    16u
#define CAKE__GOSSIP_SEEDS_MAX    64u /* seed addresses that are kept; the rest is ignored */
#define CAKE__GOSSIP_NEVER        UINT64_MAX

typedef struct cake__gossip cake__gossip_t;

/* Every parameter of docs/membership.md. Zero means the default, which stands behind it. */
typedef struct cake__gossip_params {
    uint32_t rings;               /* 6       observer rings (at most 8) */
    uint32_t ping_period_ms;      /* 1000    with a jitter of 5% */
    uint32_t ping_timeout_ms;     /* 300     until a direct retry and the helpers */
    uint32_t helpers;             /* 3       members asked to ping in our place */
    uint32_t suspect_after_ms;    /* 3000    least age of the last evidence before an accusation */
    double suspect_phi;           /* 8       and the least phi */
    uint32_t suspicion_max_ms;    /* 9000    suspicion time of an accuser without confirmation */
    uint32_t suspicion_min_ms;    /* 3000    and with K = min(confirmations, live - 2) of them */
    uint32_t confirmations;       /* 2 */
    uint32_t suspicion_others_ms; /* 18000   suspicion time of those who do not observe the suspect */
    uint32_t last_ping_ms;        /* 1000    what the last ping over RPC may take */
    uint32_t late_ms;             /* 500     an own tick later than this makes no accusation */
    uint32_t withhold_ms;         /* 10000   no accusations after half of the edges fell silent */
    uint32_t rumour_ms;           /* 200     least time between two batches of rumours */
    uint32_t rumour_fanout;       /* 3 */
    uint32_t sync_period_ms;      /* 1000    state gossip, with a jitter of 5% */
    uint32_t sync_fanout;         /* 3 */
    uint32_t seed_period_ms;      /* 10000   a seed that is no live member is tried again */
    uint32_t join_retry_min_ms;   /* 200     until the first member answers; doubles */
    uint32_t join_retry_max_ms;   /* 1000 */
    double dead_try;              /* 0.2     chance per state gossip to try a DEAD member (more when few are alive) */
    uint32_t flap_count;          /* 3       refutations within flap_window_ms make a member degraded */
    uint32_t flap_window_ms;      /* 60000 */
    uint32_t degraded_min_ms;     /* 5000    doubles each time */
    uint32_t degraded_max_ms;     /* 60000 */
    uint32_t dead_retention_ms;   /* 900000  15 min */
    uint32_t left_retention_ms;   /* 3600000 1 h */
    uint32_t tombstone_ms;        /* 3600000 a deleted key is remembered this long */
    uint32_t leave_ms;            /* 2000    what leaving may take */
    uint32_t members_max;         /* 8192    members remembered; more are refused and counted */
} cake__gossip_params_t;

/* Seals every frame, and opens those of the same cluster. The owner holds the keys; both may be called in any step.
 * seal: plain to len + CAKE__GOSSIP_SEAL_OVERHEAD bytes at out, never the same nonce twice under one key.
 * open: a box to its len - CAKE__GOSSIP_SEAL_OVERHEAD bytes at out; false: altered, or of none of the keys. */
#define CAKE__GOSSIP_SEAL_OVERHEAD 28u /* nonce 12, tag 16 */
typedef struct cake__gossip_sealer {
    bool (*seal)(void *ctx, cake_slice_t plain, uint8_t *out);
    bool (*open)(void *ctx, cake_slice_t box, uint8_t *out);
    void *ctx;
} cake__gossip_sealer_t;

typedef struct cake__gossip_config {
    const cake_alloc_t *alloc; /* NULL: the C library's heap; must outlive the object */
    const cake_log_t *log;     /* NULL: silent; must outlive the object */
    uint16_t node_id;
    uint64_t generation;                   /* higher at every start; see cake__gossip_self for the one in use */
    uint8_t nonce[CAKE__GOSSIP_NONCE_LEN]; /* new at every start */
    cake_addr_t addr;                      /* public address; UDP and TCP on the same port */
    const char *data_center;               /* copied, as cluster_id */
    const char *cluster_id;
    uint64_t seed; /* of its own random generator */
    cake__gossip_sealer_t
        sealer; /* seal NULL: frames are plain, and sealed ones are not heard; else the other way round */
    cake__gossip_params_t params;
} cake__gossip_config_t;

/* ---- members ----------------------------------------------------------------------------------------------------- */

typedef enum cake__gossip_status {
    CAKE__GOSSIP_ALIVE,
    CAKE__GOSSIP_SUSPECT, /* accused, not convicted: still counts as live */
    CAKE__GOSSIP_DEAD,
    CAKE__GOSSIP_LEFT, /* said goodbye */
} cake__gossip_status_t;

/* One run of one node. */
typedef struct cake__gossip_who {
    uint16_t node_id;
    uint64_t generation;
    uint8_t nonce[CAKE__GOSSIP_NONCE_LEN];
} cake__gossip_who_t;

/* A member's record by value; what it points at is valid until the next step. */
typedef struct cake__gossip_member {
    cake__gossip_who_t who;
    cake_addr_t addr;
    const char *data_center;
    cake__gossip_status_t status;
    bool is_self;
    bool is_degraded;    /* flapping: alive, but selectors should skip it */
    bool is_observed;    /* this node pings it, and phi means something */
    double phi;          /* 0 when not observed */
    uint64_t silent_ms;  /* since its last answer; 0 when not observed */
    uint32_t refutation; /* how often it has refuted an accusation */
    uint32_t accusers;   /* while SUSPECT: who has accused it, as far as known; at most 4 */
    uint64_t version;    /* of its newest key/value; 0: none yet */
    const struct cake__gossip_keys *keys;
} cake__gossip_member_t;

/* The keys of a member, oldest change first. Start with *cursor = 0; false at the end. */
bool cake__gossip_next_key(const cake__gossip_member_t *member, size_t *cursor, cake_slice_t *key, cake_slice_t *value);

/* The value of a key; false when there is none. */
bool cake__gossip_get_key(const cake__gossip_member_t *member, cake_slice_t key, cake_slice_t *value);

/* ---- events ------------------------------------------------------------------------------------------------------ */

typedef enum cake__gossip_event_kind {
    CAKE__GOSSIP_TICK,       /* cake__gossip_deadline was reached (an early tick is harmless) */
    CAKE__GOSSIP_RECEIVED,   /* a frame from a datagram, or from a stream */
    CAKE__GOSSIP_SEEDS,      /* seeds were resolved: replaces the ones known; the own address is ignored */
    CAKE__GOSSIP_SET_KEY,    /* CAKE_EINVAL: bad key; CAKE_ETOOBIG: value; CAKE_ENOSPC: too many keys */
    CAKE__GOSSIP_DELETE_KEY, /* CAKE_ENOTFOUND */
    CAKE__GOSSIP_PINGED,     /* the answer to a CAKE__GOSSIP_PING action */
    CAKE__GOSSIP_LEAVE,      /* say goodbye; CAKE__GOSSIP_LEAVE_DONE follows within leave_ms */
} cake__gossip_event_kind_t;

typedef struct cake__gossip_event {
    cake__gossip_event_kind_t kind;
    union {
        struct {
            cake_addr_t from;
            cake_slice_t frame;
            bool is_stream; /* came by a stream: may be up to CAKE__GOSSIP_STREAM_MAX */
        } received;
        struct {
            const cake_addr_t *addrs;
            size_t count;
        } seeds;
        struct {
            cake_slice_t key, value; /* copied; value unused for DELETE_KEY */
        } key;
        struct {
            uint64_t token;
            bool is_answered;          /* false: no connection, time-out, error */
            cake__gossip_who_t answer; /* who says it is there, when answered */
        } pinged;
    };
} cake__gossip_event_t;

/* ---- actions ----------------------------------------------------------------------------------------------------- */

typedef enum cake__gossip_action_kind {
    CAKE__GOSSIP_SEND,       /* a datagram of at most CAKE__GOSSIP_DATAGRAM_MAX bytes */
    CAKE__GOSSIP_STREAM,     /* the same by RPC to that node: too large for a datagram. At the receiver it becomes a
                                CAKE__GOSSIP_RECEIVED with is_stream; may fail in silence */
    CAKE__GOSSIP_PING,       /* ask over RPC who is there, and answer with CAKE__GOSSIP_PINGED and this token */
    CAKE__GOSSIP_MEMBER,     /* a member changed */
    CAKE__GOSSIP_DUPLICATE,  /* two live processes use one node id */
    CAKE__GOSSIP_ISOLATED,   /* isolated changed: most of what this node pings is silent */
    CAKE__GOSSIP_LEAVE_DONE, /* goodbye was said: the object does nothing from here on */
} cake__gossip_action_kind_t;

typedef enum cake__gossip_change {
    CAKE__GOSSIP_JOINED,  /* a member that was not there, or not alive; or a new run of one after its old run's DEAD */
    CAKE__GOSSIP_UPDATED, /* keys, address or the degraded flag changed */
    CAKE__GOSSIP_SUSPECTED,
    CAKE__GOSSIP_ALIVE_AGAIN, /* after SUSPECTED; and after DEAD when it was wrong or a partition healed */
    CAKE__GOSSIP_DIED,        /* record: the departed one, with its keys */
    CAKE__GOSSIP_DEPARTED,    /* it left; record as with DIED */
    CAKE__GOSSIP_FORGOTTEN,   /* the last trace of a dead or departed one is dropped */
} cake__gossip_change_t;

typedef struct cake__gossip_action {
    cake__gossip_action_kind_t kind;
    union {
        struct {
            cake_addr_t to;
            uint16_t node_id; /* for CAKE__GOSSIP_STREAM */
            cake_slice_t frame;
        } send;
        struct {
            cake_addr_t to;
            cake__gossip_who_t who; /* who should be there */
            uint64_t token;
        } ping;
        struct {
            cake__gossip_change_t change;
            cake__gossip_member_t member;
        } member;
        struct {
            uint16_t node_id;
            cake_addr_t kept, refused; /* of the process that stays and of the later joiner */
            bool is_self_refused;      /* the later joiner is this node: stop it; the object does nothing any more */
        } duplicate;
        bool is_isolated;
    };
} cake__gossip_action_t;

/* ---- calls ------------------------------------------------------------------------------------------------------- */

/* CAKE_EINVAL (node id 0, address, names), CAKE_ENOMEM; *out is NULL then. cake__gossip_free accepts NULL. */
int cake__gossip_new(const cake__gossip_config_t *config, uint64_t now_ns, cake__gossip_t **out);
void cake__gossip_free(cake__gossip_t *gossip);

/* Takes one event. The actions are good on every return, also after an error: 0; CAKE_ENOMEM (something was not
 * sent, or a member event comes with a later step; the state is whole); for keys the codes at the event kinds.
 * A malformed, foreign or hostile frame changes nothing, is counted, and is no error. */
int cake__gossip_step(cake__gossip_t *gossip, uint64_t now_ns, const cake__gossip_event_t *event,
                      const cake__gossip_action_t **actions, size_t *count);

/* When the next tick is due; CAKE__GOSSIP_NEVER once it has left or was refused. */
uint64_t cake__gossip_deadline(const cake__gossip_t *gossip);

/* Members in ascending node id, this node included, DEAD and LEFT until they are forgotten. Start with *next_id = 0;
 * false at the end. Each is the first one from *next_id on, also when steps come in between. O(log n) */
bool cake__gossip_next_member(const cake__gossip_t *gossip, uint32_t *next_id, cake__gossip_member_t *out);
bool cake__gossip_find_member(const cake__gossip_t *gossip, uint16_t node_id, cake__gossip_member_t *out);
void cake__gossip_self(const cake__gossip_t *gossip, cake__gossip_member_t *out);

typedef struct cake__gossip_counters {
    uint64_t frames_in, frames_out, bytes_in, bytes_out;
    uint64_t frames_malformed; /* cut, altered, of another version */
    uint64_t frames_foreign;   /* of another cluster, or not sealed with a key of this one */
    uint64_t frames_replayed;  /* sealed, and seen before or too old to tell */
    uint64_t frames_unknown;   /* whole, but of a sender or for an addressee that is not there */
    uint64_t pings, pings_indirect, pings_last, pings_lost;
    uint64_t suspicions, refutations_seen, refutations_made, deaths_declared;
    uint64_t late_ticks;      /* own pauses noticed */
    uint64_t members_refused; /* members_max was reached */
    uint64_t allocations_failed;
    uint32_t live, suspect, dead, left; /* members now; live counts this node and the suspects */
    bool is_isolated;
    bool has_joined; /* another member has answered since the start */
} cake__gossip_counters_t;

void cake__gossip_counters(const cake__gossip_t *gossip, cake__gossip_counters_t *out);

/* A hash of all that has to become equal everywhere: two nodes with equal digests have the same view. */
uint64_t cake__gossip_digest(const cake__gossip_t *gossip);

#endif
