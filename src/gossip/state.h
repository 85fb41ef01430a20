/* state.h: what the files of gossip share. gossip.h says what it is for.
 *
 *      members   [ 1 | 4 | 7 | 9 ]          every run that is remembered, this node included, ascending by node id
 *      live      [ 7 | 4 ]                  those ALIVE or SUSPECT but this node, in no order: peers are drawn from it
 *      dead      [ 9 ]                      those DEAD: tried now and then, so that partitions heal
 *      edges     [ 4 | 7 ]                  the live ones that this node pings
 *      rumours   7 -> 9                     whose newest status is still being told
 *      timers    (heap by due_ns)           suspicion, end of degradation, retention
 *      changes   4 -> 9                     what the owner has yet to hear
 *      bucket[i] xor of the hashes of the members in it: equal buckets, equal state
 *
 * Invariants
 *   - A member is in live, in dead, or in neither (this node, LEFT), by its status alone; peer->slot is its place
 *     there.
 *   - Memory is taken before anything changes: a failed allocation leaves everything as it was.
 *   - (keys.gc_version, keys.max_version) of one run never falls, in lexicographic order. */
#ifndef CAKE_GOSSIP_STATE_H
#define CAKE_GOSSIP_STATE_H

#include "base/bytes.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/random.h"
#include "gossip/gossip.h"
#include "gossip/mutant.h"

#define GOSSIP_NS_PER_MS      UINT64_C(1000000)
#define GOSSIP_BUCKETS        32u
#define GOSSIP_RINGS_MAX      8u
#define GOSSIP_ACCUSERS_MAX   4u
#define GOSSIP_RELAYS         64u /* indirect pings carried for others at a time */
#define GOSSIP_FLAPS_MAX      8u
#define GOSSIP_NOTICES        8u                  /* duplicate ids told at a time */
#define GOSSIP_GENERATION_MAX (UINT64_C(1) << 62) /* larger ones are malformed: there must be room to raise ours */
#define GOSSIP_VERSION_MAX    (UINT64_C(1) << 62)
#define GOSSIP_REFUTATION_MAX (UINT32_C(1) << 30)
#define GOSSIP_RAISES_MAX     16u /* how often one run raises its generation */
#define GOSSIP_FRAME_HEADER   46u
#define GOSSIP_FRAME_CHECK    8u
#define GOSSIP_SEAL_HEADER    4u
#define GOSSIP_SEAL_ALL       (GOSSIP_SEAL_HEADER + CAKE__GOSSIP_SEAL_OVERHEAD) /* what sealing adds to a frame */
#define GOSSIP_WINDOW         256u /* frames of one sender that may overtake each other */
#define GOSSIP_JOINS          32u  /* JOINs that an answer is taken to */

/* ---- key/values of one member ------------------------------------------------------------------------------------ */

typedef struct cake__gossip_entry {
    uint64_t version;
    uint64_t deleted_ns; /* own tombstones: when */
    uint32_t key_len, value_len;
    bool is_deleted;
    uint8_t bytes[]; /* the key, then the value */
} cake__gossip_entry_t;

/* The owner's map as far as version max_version; tombstones up to gc_version are dropped. With max_version below
 * gc_version the state is in the middle of a reset: what is there is right, more has to come from a holder of the
 * same gc_version. */
typedef struct cake__gossip_keys {
    cake__gossip_entry_t **entries; /* ascending by version */
    size_t count, capacity;
    uint64_t max_version, gc_version;
} cake__gossip_keys_t;

void cake__gossip_keys_free(cake__gossip_keys_t *keys, const cake_alloc_t *alloc);
const cake__gossip_entry_t *cake__gossip_keys_find(const cake__gossip_keys_t *keys, cake_slice_t key);
/* Replaces the key's entry by one of a higher version. CAKE_ENOMEM, CAKE_ENOSPC: nothing changed. */
int cake__gossip_keys_put(cake__gossip_keys_t *keys, const cake_alloc_t *alloc, cake_slice_t key, cake_slice_t value,
                          bool is_deleted, uint64_t version, uint64_t now_ns);
void cake__gossip_keys_collect(cake__gossip_keys_t *keys, const cake_alloc_t *alloc, uint64_t gc_version);
void cake__gossip_keys_reset(cake__gossip_keys_t *keys, const cake_alloc_t *alloc, uint64_t gc_version);
size_t cake__gossip_keys_after(const cake__gossip_keys_t *keys, uint64_t version); /* index of the first above it */

/* ---- members ----------------------------------------------------------------------------------------------------- */

typedef struct cake__gossip_peer {
    cake__gossip_who_t who;
    cake_addr_t addr;
    char *data_center;
    cake__gossip_status_t status;
    uint32_t refutation;                     /* raised by its subject alone */
    uint64_t hash;                           /* what it adds to its bucket; 0 while fading */
    uint64_t seq_highest;                    /* sequence number of the newest frame from it */
    uint64_t seq_window[GOSSIP_WINDOW / 64]; /* bit n % GOSSIP_WINDOW: n was seen */
    uint16_t delta_next_id;                  /* the member that comes first in the next delta to it */
    size_t slot;                             /* its place in live or dead */
    int64_t ended_ns;                        /* DEAD, LEFT: since when; may be before our clock's zero */
    bool is_fading; /* nearly forgotten: no longer told, so that nobody's retention is renewed */
    cake__gossip_keys_t keys;

    /* suspicion */
    uint64_t suspect_since_ns;
    uint64_t verdict_ns; /* when it is declared DEAD */
    uint16_t accusers[GOSSIP_ACCUSERS_MAX];
    uint8_t accuser_count;
    bool is_accused_by_us;
    bool is_declared;         /* someone else says that it is DEAD */
    bool is_declared_rumour;  /* and it came as a rumour, fresh */
    uint64_t last_ping_token; /* 0: not started */
    uint64_t last_ping_ns;
    bool has_last_ping_failed;

    /* flapping */
    uint64_t refuted_ns[GOSSIP_FLAPS_MAX]; /* the last refutations, newest first; 0: none */
    uint64_t degraded_until_ns;
    uint32_t degraded_span_ms;
    bool is_degraded;

    cake__heap_node_t timer;
    uint64_t due_ns;
    bool is_timed;

    cake__list_t rumour_link;
    uint32_t rumour_sends;

    /* what the owner knows of it */
    cake__list_t change_link;
    bool is_announced; /* joined was told */
    cake__gossip_status_t announced;
    bool is_updated;
    bool is_gone; /* replaced or forgotten: freed once the owner was told */
    bool is_forgotten;
} cake__gossip_peer_t;

/* A live member that we ping. */
typedef struct cake__gossip_edge {
    cake__gossip_peer_t *peer;
    uint64_t evidence_ns; /* of the last answer, direct or through a helper */
    uint64_t next_ping_ns, retry_ns;
    uint64_t seq, previous_seq; /* an answer to the ping before is evidence too */
    bool is_waiting;            /* for the answer to seq */
    uint32_t retries;           /* of seq */
    uint32_t samples;
    double mean_ms, variance_ms2; /* of the time between answers */
} cake__gossip_edge_t;

/* Where a frame goes, and to which run: one that has ended since, or is another's, does not take it. */
typedef struct cake__gossip_dest {
    cake_addr_t addr;
    uint32_t tag;     /* of the run; 0: whoever is there, which only a JOIN may say */
    uint16_t node_id; /* of the member that has this address; else 0 */
} cake__gossip_dest_t;

typedef struct cake__gossip_relay {
    uint64_t seq, origin_seq, expires_ns;
    cake__gossip_dest_t origin;
    cake__gossip_who_t target;
} cake__gossip_relay_t;

/* A JOIN that was sent: one answer is taken to it. */
typedef struct cake__gossip_asked {
    uint64_t seq; /* 0: answered */
    cake_addr_t addr;
} cake__gossip_asked_t;

typedef struct cake__gossip_seed {
    cake_addr_t addr;
    uint32_t tag;    /* of the run that has answered; 0: none yet, so that it can't have let us in */
    uint64_t cookie; /* that it gave us */
} cake__gossip_seed_t;

typedef struct cake__gossip_notice {
    uint16_t node_id;
    cake_addr_t kept, refused;
    uint32_t sends;
    uint64_t expires_ns; /* of the memory that it was told already */
} cake__gossip_notice_t;

/* Our node id is held by another run: is that us before, or another process? */
typedef struct cake__gossip_claim {
    bool is_active;
    cake__gossip_who_t holder;
    cake_addr_t addr;
    uint32_t tries;
    uint64_t next_ns, asked_ns;
    uint64_t token; /* of the ping over RPC; 0: not under way */
    bool is_there;  /* the holder has answered it */
} cake__gossip_claim_t;

typedef struct cake__gossip_stale cake__gossip_stale_t;

struct cake__gossip {
    const cake_alloc_t *alloc;
    const cake_log_t *log;
    cake__gossip_params_t params;
    cake__random_t random;
    char *cluster_id;
    uint64_t cluster_hash;
    uint64_t born; /* the generation it was started with */
    cake__gossip_peer_t *self;

    cake__gossip_peer_t **members, **live, **dead;
    size_t member_count, live_count, dead_count, capacity;
    size_t suspect_count, left_count;
    uint64_t bucket[GOSSIP_BUCKETS];
    cake__heap_t timers;
    cake__list_t rumours, changes, garbage;

    cake__gossip_edge_t edges[GOSSIP_RINGS_MAX];
    size_t edge_count;
    uint64_t ring_distance[GOSSIP_RINGS_MAX]; /* to the successor in each */
    bool are_edges_dirty;
    uint64_t seq;
    cake__gossip_relay_t relays[GOSSIP_RELAYS];
    size_t next_relay;

    cake__gossip_notice_t notices[GOSSIP_NOTICES];
    size_t notice_count;

    cake__gossip_seed_t seeds[CAKE__GOSSIP_SEEDS_MAX];
    size_t seed_count;
    cake__gossip_asked_t asked[GOSSIP_JOINS];
    size_t next_asked;
    uint64_t cookie_secret;
    uint64_t who_seq;                         /* of the last of our frames that a WHO answered */
    uint8_t claimant[CAKE__GOSSIP_NONCE_LEN]; /* the last that claimed our id, and its newest frame */
    uint64_t claimant_seq;
    uint64_t next_join_ns, next_sync_ns, next_rumour_ns, last_rumour_ns, fast_until_ns, next_stream_ns, next_who_ns;
    uint64_t now_ns, due_ns, started_ns;
    uint64_t quiet_until_ns;    /* after an own pause: no accusations */
    uint64_t withhold_until_ns; /* isolated: no accusations */
    uint64_t withhold_again_ns;
    uint32_t join_retry_ms;
    bool has_joined, is_verified; /* the holder of our id did not answer: it is us before */
    bool is_isolated, is_isolated_told;
    uint32_t raises;
    cake__gossip_claim_t claim;
    bool is_leaving, is_over;
    uint64_t leave_until_ns, leave_next_ns;
    uint64_t leave_seq;
    uint32_t leave_acks, leave_told_seeds;

    /* what the current step makes */
    cake__gossip_action_t *actions;
    size_t action_count, action_capacity;
    cake__buf_t arena; /* the frames, one behind the other, in the order of their actions */
    cake__buf_t frame; /* the frame being built */
    cake__gossip_sealer_t sealer;
    uint64_t frame_seq; /* of the last frame that was begun */
    cake__buf_t opened; /* the sealed frame being read */
    int err;

    cake__gossip_stale_t *stale; /* scratch of sync.c, capacity places */
    size_t digest_start;         /* rotates, so that nothing starves */
    cake__gossip_counters_t counters;
};

static inline uint64_t cake__gossip_ms(uint64_t ms)
{
    return ms * GOSSIP_NS_PER_MS;
}

static inline bool cake__gossip_is_live(const cake__gossip_peer_t *peer)
{
    return peer->status == CAKE__GOSSIP_ALIVE || peer->status == CAKE__GOSSIP_SUSPECT;
}

static inline bool cake__gossip_same_run(const cake__gossip_who_t *a, const cake__gossip_who_t *b)
{
    return a->node_id == b->node_id && a->generation == b->generation &&
           memcmp(a->nonce, b->nonce, sizeof a->nonce) == 0;
}

static inline uint32_t cake__gossip_bucket_of(uint16_t node_id)
{
    return (uint32_t)(cake__mix64(node_id + UINT64_C(0x51ed270b)) % GOSSIP_BUCKETS);
}

/* Newer liveness of one run is larger: LEFT is final, a refutation beats what it refutes, DEAD beats ALIVE. */
static inline uint64_t cake__gossip_rank(cake__gossip_status_t status, uint32_t refutation)
{
    if (status == CAKE__GOSSIP_LEFT)
        return (uint64_t)GOSSIP_REFUTATION_MAX * 4;
    return (uint64_t)refutation * 2 + (status == CAKE__GOSSIP_DEAD ? 1 : 0);
}

/* ---- peers.c ----------------------------------------------------------------------------------------------------- */

cake__gossip_peer_t *cake__gossip_peer_find(const cake__gossip_t *gossip, uint16_t node_id);
size_t cake__gossip_peer_index(const cake__gossip_t *gossip, uint16_t node_id); /* of the first not below it */
/* A new record, in no list, status ALIVE. NULL: out of memory or members_max, remembered in err or counted. */
cake__gossip_peer_t *cake__gossip_peer_add(cake__gossip_t *gossip, const cake__gossip_who_t *who,
                                           const cake_addr_t *addr, cake_slice_t data_center,
                                           cake__gossip_status_t status);
/* A new run takes the place of an old one, whose record goes to the owner. */
cake__gossip_peer_t *cake__gossip_peer_replace(cake__gossip_t *gossip, cake__gossip_peer_t *old,
                                               const cake__gossip_who_t *who, const cake_addr_t *addr,
                                               cake_slice_t data_center, cake__gossip_status_t status);
void cake__gossip_peer_forget(cake__gossip_t *gossip, cake__gossip_peer_t *peer);
void cake__gossip_peer_free(cake__gossip_t *gossip, cake__gossip_peer_t *peer);
void cake__gossip_peer_set_status(cake__gossip_t *gossip, cake__gossip_peer_t *peer, cake__gossip_status_t status);
void cake__gossip_peer_touch(cake__gossip_t *gossip, cake__gossip_peer_t *peer); /* after any change: hash, timer */
void cake__gossip_peer_changed(cake__gossip_t *gossip, cake__gossip_peer_t *peer);
void cake__gossip_peer_retime(cake__gossip_t *gossip, cake__gossip_peer_t *peer);
void cake__gossip_tell_changes(cake__gossip_t *gossip);
void cake__gossip_peer_view(const cake__gossip_t *gossip, const cake__gossip_peer_t *peer, cake__gossip_member_t *out);
/* Up to count different live members other than except; returns how many. */
size_t cake__gossip_draw(cake__gossip_t *gossip, const cake__gossip_peer_t *except, cake__gossip_peer_t **out,
                         size_t count);
uint32_t cake__gossip_log2(size_t n); /* rounded up; at least 1 */

/* ---- frame.c ----------------------------------------------------------------------------------------------------- */

typedef enum cake__gossip_frame_type {
    GOSSIP_JOIN = 1,  /* flags, cookie, own record, padding to the largest datagram: the answer is never larger */
    GOSSIP_WELCOME,   /* seq of the JOIN, records */
    GOSSIP_WHO,       /* seq of the frame: "I do not know you, join" */
    GOSSIP_HELD,      /* record: the run that holds your node id */
    GOSSIP_CLAIM,     /* flags, born, uptime, holder's nonce, own address */
    GOSSIP_PINGING,   /* seq, target's run; records */
    GOSSIP_ACK,       /* seq, the run that is alive; records */
    GOSSIP_PING_REQ,  /* seq, target's run */
    GOSSIP_RUMOUR,    /* records and notices */
    GOSSIP_SYNC,      /* hash of all state */
    GOSSIP_BUCKETS_,  /* 32 bucket hashes */
    GOSSIP_DIGEST,    /* flags, mask, range, entries */
    GOSSIP_DELTA,     /* records with keys */
    GOSSIP_CHALLENGE, /* seq of the JOIN, cookie: say it again with this */
    GOSSIP_TYPE_END,
} cake__gossip_frame_type_t;

typedef struct cake__gossip_frame {
    cake__gossip_frame_type_t type;
    cake__gossip_who_t from;
    uint32_t to; /* tag of the run that it is for */
    uint64_t seq;
    cake__reader_t body;
    size_t size;
} cake__gossip_frame_t;

static inline uint32_t cake__gossip_tag(const uint8_t nonce[CAKE__GOSSIP_NONCE_LEN])
{
    uint32_t tag = (uint32_t)cake__load_le(nonce, 4);
    return tag == 0 ? 1 : tag;
}

static inline cake__gossip_dest_t cake__gossip_dest(const cake__gossip_peer_t *peer)
{
    return (cake__gossip_dest_t){peer->addr, cake__gossip_tag(peer->who.nonce), peer->who.node_id};
}

/* To whoever has sent the frame, member or not. */
static inline cake__gossip_dest_t cake__gossip_sender(const cake__gossip_frame_t *frame, const cake_addr_t *from)
{
    return (cake__gossip_dest_t){*from, cake__gossip_tag(frame->from.nonce), 0};
}

/* One member's record on the wire. */
typedef struct cake__gossip_record {
    uint16_t node_id;
    uint64_t generation;
    uint32_t refutation;
    cake__gossip_status_t status;
    bool has_identity, has_keys, is_notice;
    uint8_t nonce[CAKE__GOSSIP_NONCE_LEN];
    cake_addr_t addr; /* notices: kept */
    cake_addr_t refused;
    cake_slice_t data_center;
    uint64_t age_ms;
    uint16_t accusers[GOSSIP_ACCUSERS_MAX];
    uint8_t accuser_count;
    uint64_t gc_version, from_version, to_version, entry_count;
    cake__reader_t entries;
} cake__gossip_record_t;

typedef struct cake__gossip_wire_entry {
    cake_slice_t key, value;
    uint64_t version;
    bool is_deleted;
} cake__gossip_wire_entry_t;

/* Room for a frame before its check, in a datagram or over a stream. */
size_t cake__gossip_frame_max(const cake__gossip_t *gossip, size_t bytes);
/* Once per frame of a known process: false when it was there before. */
bool cake__gossip_frame_is_new(cake__gossip_peer_t *sender, uint64_t seq);

/* 0, CAKE_EPARSE, CAKE_ENOMEM or CAKE_ECONFLICT (another cluster, or not of our keys). */
int cake__gossip_frame_open(cake__gossip_t *gossip, cake_slice_t bytes, bool is_stream, cake__gossip_frame_t *frame);
void cake__gossip_frame_begin(cake__gossip_t *gossip, cake__buf_t *frame, cake__gossip_frame_type_t type);
void cake__gossip_frame_send(cake__gossip_t *gossip, cake__buf_t *frame, cake__gossip_dest_t to);
void cake__gossip_frame_stream(cake__gossip_t *gossip, cake__buf_t *frame, const cake__gossip_peer_t *to);

size_t cake__gossip_varint_size(uint64_t value);
void cake__gossip_put_addr(cake__buf_t *frame, const cake_addr_t *addr);
void cake__gossip_get_addr(cake__reader_t *reader, cake_addr_t *addr);
void cake__gossip_put_run(cake__buf_t *frame, const cake__gossip_who_t *who);
void cake__gossip_get_run(cake__reader_t *reader, cake__gossip_who_t *who);
/* Appends the peer's record without keys; false and nothing appended when it does not fit. */
bool cake__gossip_put_record(const cake__gossip_t *gossip, cake__buf_t *frame, const cake__gossip_peer_t *peer,
                             bool has_identity);
void cake__gossip_put_record_head(const cake__gossip_t *gossip, cake__buf_t *frame, const cake__gossip_peer_t *peer,
                                  bool has_identity, bool has_keys);
bool cake__gossip_put_notice(cake__buf_t *frame, const cake__gossip_notice_t *notice);
void cake__gossip_put_entry(cake__buf_t *frame, const cake__gossip_entry_t *entry);
size_t cake__gossip_entry_size(const cake__gossip_entry_t *entry);
int cake__gossip_get_record(cake__reader_t *reader, cake__gossip_record_t *record);
void cake__gossip_get_entry(cake__reader_t *reader, cake__gossip_wire_entry_t *entry);
bool cake__gossip_are_records(cake__reader_t body); /* nothing but well-formed records up to the end */

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

cake__gossip_action_t *cake__gossip_act(cake__gossip_t *gossip, cake__gossip_action_kind_t kind); /* NULL: no memory */

/* merge.c: where a record came from decides what is believed and what is told on. */
typedef enum cake__gossip_source { GOSSIP_FROM_RUMOUR, GOSSIP_FROM_SYNC, GOSSIP_FROM_JOIN } cake__gossip_source_t;
void cake__gossip_merge(cake__gossip_t *gossip, const cake__gossip_record_t *record, cake__gossip_source_t source);
void cake__gossip_merge_all(cake__gossip_t *gossip, cake__reader_t body, cake__gossip_source_t source);
void cake__gossip_raise_generation(cake__gossip_t *gossip, uint64_t above);

/* suspect.c */
void cake__gossip_accuse(cake__gossip_t *gossip, cake__gossip_peer_t *peer); /* we do */
void cake__gossip_hear_suspect(cake__gossip_t *gossip, cake__gossip_peer_t *peer, const cake__gossip_record_t *record,
                               cake__gossip_source_t source);
void cake__gossip_hear_dead(cake__gossip_t *gossip, cake__gossip_peer_t *peer, const cake__gossip_record_t *record,
                            cake__gossip_source_t source);
void cake__gossip_clear_suspicion(cake__gossip_peer_t *peer);
void cake__gossip_note_refutation(cake__gossip_t *gossip, cake__gossip_peer_t *peer);
void cake__gossip_peer_timer(cake__gossip_t *gossip, cake__gossip_peer_t *peer); /* its due_ns has come */
uint64_t cake__gossip_peer_due(const cake__gossip_t *gossip, const cake__gossip_peer_t *peer);
void cake__gossip_last_pinged(cake__gossip_t *gossip, uint64_t token, bool is_answered,
                              const cake__gossip_who_t *answer);
void cake__gossip_retime_suspects(cake__gossip_t *gossip); /* after may_accuse changed */
void cake__gossip_discount_suspicions(cake__gossip_t *gossip, uint64_t gap_ns);
bool cake__gossip_may_accuse(const cake__gossip_t *gossip);

/* probe.c */
void cake__gossip_edges_joined(cake__gossip_t *gossip, const cake__gossip_peer_t *peer);
void cake__gossip_edges_left(cake__gossip_t *gossip, const cake__gossip_peer_t *peer);
void cake__gossip_edges_run(cake__gossip_t *gossip);
uint64_t cake__gossip_edges_due(const cake__gossip_t *gossip);
void cake__gossip_edges_discount(cake__gossip_t *gossip, uint64_t gap_ns);
void cake__gossip_edge_alive(cake__gossip_t *gossip, const cake__gossip_peer_t *peer); /* proof from elsewhere */
bool cake__gossip_is_edge(const cake__gossip_t *gossip, const cake__gossip_peer_t *peer);
double cake__gossip_edge_phi(const cake__gossip_t *gossip, const cake__gossip_peer_t *peer);
uint64_t cake__gossip_edge_silent_ms(const cake__gossip_t *gossip, const cake__gossip_peer_t *peer);
void cake__gossip_ping_now(cake__gossip_t *gossip, cake__gossip_peer_t *peer); /* one ping outside of the schedule */
void cake__gossip_on_ping(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from,
                          cake__gossip_peer_t *sender);
void cake__gossip_on_ack(cake__gossip_t *gossip, cake__gossip_frame_t *frame, cake__gossip_peer_t *sender);
void cake__gossip_on_ping_req(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from,
                              const cake__gossip_peer_t *sender);
/* Told to its subject with every frame, so that a wrong accusation is refuted at once. */
void cake__gossip_put_accusation(cake__gossip_t *gossip, cake__buf_t *frame, const cake__gossip_peer_t *peer);

/* rumour.c */
void cake__gossip_rumour(cake__gossip_t *gossip, cake__gossip_peer_t *peer); /* tell its status, from the start */
void cake__gossip_rumours_run(cake__gossip_t *gossip);
uint64_t cake__gossip_rumours_due(const cake__gossip_t *gossip);
void cake__gossip_rumours_append(cake__gossip_t *gossip, cake__buf_t *frame); /* to a frame that has room */
void cake__gossip_notices_again(cake__gossip_t *gossip);
void cake__gossip_notice_heard(cake__gossip_t *gossip, uint16_t node_id, const cake_addr_t *kept,
                               const cake_addr_t *refused);

/* sync.c */
void cake__gossip_sync_run(cake__gossip_t *gossip);
void cake__gossip_sync_soon(cake__gossip_t *gossip);
void cake__gossip_sync_with(cake__gossip_t *gossip, const cake__gossip_peer_t *to); /* the whole digest at once */
void cake__gossip_on_sync(cake__gossip_t *gossip, cake__gossip_frame_t *frame, cake__gossip_peer_t *sender);
void cake__gossip_on_buckets(cake__gossip_t *gossip, cake__gossip_frame_t *frame, cake__gossip_peer_t *sender);
void cake__gossip_on_digest(cake__gossip_t *gossip, cake__gossip_frame_t *frame, cake__gossip_peer_t *sender);
uint64_t cake__gossip_state_hash(const cake__gossip_t *gossip);
size_t cake__gossip_stale_size(void);

/* join.c */
void cake__gossip_join_run(cake__gossip_t *gossip);
void cake__gossip_join_to(cake__gossip_t *gossip, const cake_addr_t *to, uint32_t tag, uint64_t cookie);
void cake__gossip_on_join(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from);
void cake__gossip_on_welcome(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from);
void cake__gossip_on_challenge(cake__gossip_t *gossip, cake__gossip_frame_t *frame);
void cake__gossip_on_who(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from);
/* To the sender of the frame, when that is no smaller than the answer. */
void cake__gossip_send_who(cake__gossip_t *gossip, const cake__gossip_frame_t *frame, const cake_addr_t *from);
void cake__gossip_on_held(cake__gossip_t *gossip, cake__gossip_frame_t *frame);
void cake__gossip_on_claim(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from);
void cake__gossip_send_held(cake__gossip_t *gossip, cake__gossip_dest_t to, const cake__gossip_peer_t *holder);
/* To the sender of the frame. Where that is smaller a WHO, after which there is a JOIN to answer. */
void cake__gossip_answer_held(cake__gossip_t *gossip, const cake__gossip_frame_t *frame, const cake_addr_t *from,
                              const cake__gossip_peer_t *holder);
void cake__gossip_claim_start(cake__gossip_t *gossip, const cake__gossip_who_t *holder, const cake_addr_t *addr);
void cake__gossip_claim_run(cake__gossip_t *gossip);
/* The answer to a ping over RPC; false: not to one of ours. */
bool cake__gossip_claim_pinged(cake__gossip_t *gossip, uint64_t token, bool is_answered,
                               const cake__gossip_who_t *answer);
void cake__gossip_leave_start(cake__gossip_t *gossip);
void cake__gossip_leave_run(cake__gossip_t *gossip);
void cake__gossip_leave_acked(cake__gossip_t *gossip);

#endif
