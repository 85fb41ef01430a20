/* node: a running node. Owns the RPC server and the channels, drives the gossip core over datagrams, keeps the
 * clock, tells watchers about members, carries extensions. Never stores documents and knows nothing of them.
 *
 *   node.c        start and stop           membership.c  drives gossip        members.c  watchers, wait_for, records
 *   carrier.c     gossip over RPC
 *   channels.c    one channel per member   extensions.c  what lives with it   select.c   levels and selectors
 *   seal.c        the cluster key over gossip  security.c  keys and TLS      seeds.c    names, who is refused, why
 *
 *      application threads ──post──> [ loop thread: gossip <─ datagrams, timer; rpc server; channels; extensions ] */
#ifndef CAKE_NODE_NODE_H
#define CAKE_NODE_NODE_H

#include <stdatomic.h>

#include <datacake/node.h>

#include "base/bytes.h"
#include "base/list.h"
#include "base/map.h"
#include "env/env.h"
#include "gossip/gossip.h"
#include "rpc/rpc.h"

#define CAKE__NODE_NAME_MAX    63u /* bytes of a cluster's or data centre's name */
#define CAKE__NODE_SEEDS_MAX   64u
#define CAKE__NODE_KEY_PREFIX  "app:" /* before the names of published keys: the rest is the node's own */
#define CAKE__SEED_RESOLVE_MS  10000u
#define CAKE__SEED_ADDRS_MAX   8u /* of one name */
#define CAKE__GOSSIP_SERVICE   "datacake.gossip"
#define CAKE__GOSSIP_PING_PATH "/" CAKE__GOSSIP_SERVICE "/ping"
#define CAKE__WHO_LEN          26u /* bytes of a run: node id, generation, nonce */
#define CAKE__RETRY_TOLD_MS    100u

struct cake_watch {
    cake_env_t *env;
    void (*stop)(cake_watch_t *watch); /* on the loop; frees it */
};

/* The cluster key ring: the first seals, each opens. Empty: gossip is plain. */
typedef struct cake__node_keys {
    uint8_t keys[CAKE_CLUSTER_KEYS_MAX][CAKE_CLUSTER_KEY_LEN];
    size_t count;
    cake_env_t *env; /* nonces are its random numbers */
} cake__node_keys_t;

/* A seed as it was given, and what it resolved to. */
typedef struct cake__seed {
    cake_node_t *node;
    char *text;
    cake_addr_t addrs[CAKE__SEED_ADDRS_MAX]; /* the last ones that it had */
    size_t addr_count;
    bool is_missing; /* and it has been said */
    cake_resolve_t *resolve;
} cake__seed_t;

/* What has been said, and when, about seeds that do not answer and about strangers; and the question under way. */
typedef struct cake__refusal {
    cake_timer_t timer;
    cake_channel_t *channel; /* NULL: none is asked */
    char seed[CAKE_ADDR_TEXT_MAX];
    char said[CAKE_ADDR_TEXT_MAX + 256];
    size_t next;
    uint64_t said_ns, stranger_ns, strangers;
} cake__refusal_t;

typedef struct cake__node_watch {
    cake_watch_t base;
    cake__list_t link;
    cake_node_t *node;
    cake_membership_fn fn;
    void *arg;
    bool is_stopped;
} cake__node_watch_t;

typedef struct cake__node_extension {
    cake__list_t link;
    cake_node_t *node;
    cake_extension_t extension;
    char *name;
    void *arg;
    bool is_stopping;
    cake_event_fn removed; /* of a removal, NULL when the node stops */
    void *removed_arg;
} cake__node_extension_t;

/* The shared channel to one node id. One that an application's thread was given stays until the node stops, in
 * `lent` once the member has moved: that thread may be about to call over it. */
typedef struct cake__node_channel {
    cake_node_t *node;
    cake__list_t link;
    bool is_lent;
    uint16_t node_id;
    cake_addr_t addr;
    cake_channel_t *channel;
} cake__node_channel_t;

#define CAKE__ROUTES_MAX           16u   /* addresses of no member that gossip goes to over RPC */
#define CAKE__FRAMES_IN_FLIGHT_MAX 1024u /* frames over RPC under way: more are dropped, as datagrams would be */

/* A channel to an address that no member has. */
typedef struct cake__route {
    cake_addr_t addr;
    cake_channel_t *channel; /* NULL: free */
    uint64_t used_ns;
} cake__route_t;

typedef struct cake__carrier {
    bool is_for_all; /* else for what is too large for a datagram */
    size_t in_flight;
    cake__route_t routes[CAKE__ROUTES_MAX];
} cake__carrier_t;

typedef enum cake__node_state {
    CAKE__NODE_STARTING,
    CAKE__NODE_RUNNING,
    CAKE__NODE_STOPPING_EXTENSIONS,
    CAKE__NODE_LEAVING,
    CAKE__NODE_CLOSING,
} cake__node_state_t;

/* Invariants: `told` is sorted by node id and is what every watcher has been told; it differs from the gossip core only
 * inside a step, or while retry_timer is armed for want of memory. Closing things are counted in closing_count. */
struct cake_node {
    cake_env_t *env;
    const cake_alloc_t *alloc;
    const cake_log_t *log;
    cake__node_state_t state;
    bool owns_env;

    uint16_t id;
    char *cluster_id, *data_center;
    cake_addr_t listen_addr, public_addr;
    char address[CAKE_ADDR_TEXT_MAX];
    uint64_t generation;
    cake_select_fn selector;
    void *selector_arg;
    uint64_t rotation;
    cake_rpc_limits_t rpc_limits;
    uint64_t connect_timeout_ms;
    cake_clock_t clock;

    cake_rpc_server_t *server;
    cake_datagram_t *datagram;
    cake__map_t channels; /* node id -> cake__node_channel_t */
    cake__list_t lent;    /* cake__node_channel_t of addresses that members had */

    cake__gossip_t *gossip;
    cake__node_keys_t keys;
    cake_tls_t *tls;                             /* lent to server and channels; NULL: calls are plain */
    bool is_sealed, has_own_tls, is_tls_by_keys; /* as it was started */
    cake__refusal_t refusal;
    cake_timer_t gossip_timer, retry_timer, resolve_timer;
    cake__seed_t *seeds;
    size_t seed_count;
    cake_member_t *told;
    size_t told_count, told_capacity;
    bool is_telling, tell_again;
    cake__list_t watches, waits;
    bool is_isolated, is_stepping;
    atomic_bool is_duplicate; /* never false again; read by any thread */
    cake__carrier_t carrier;

    cake__list_t extensions; /* in the order of their adding */
    size_t closing_count;
    cake_event_fn stopped;
    void *stopped_arg;
};

/* On the loop. Ends the node as cake_node_stop does; stopped(arg) is the last that is heard of it, never called inside.
 * Only for a node with a borrowed environment. */
void cake__node_stop(cake_node_t *node, cake_event_fn stopped, void *arg);

static inline bool cake__node_is_stopping(const cake_node_t *node)
{
    return node->state > CAKE__NODE_RUNNING;
}

/* Which process this is: what an operator copies (id, address, data) is not enough to be taken for it. Never 0. */
uint32_t cake__node_run(const cake_node_t *node);
/* Membership has this process for the id: not a second one of the id; a new one once it was heard of. Loop only. */
bool cake__node_is_run(const cake_node_t *node, uint16_t id, uint32_t run);

static inline bool cake__member_is_live(const cake_member_t *member)
{
    return member->status == CAKE_ALIVE || member->status == CAKE_SUSPECT;
}

/* The member as watchers were told of it last; NULL: they were not. Valid until the next step of gossip. Loop only. */
const cake_member_t *cake__node_told(const cake_node_t *node, uint16_t id);
/* Every seed has an address, and each of them is this node's or a live member's. Loop only. */
bool cake__node_seeds_are_members(const cake_node_t *node);

/* Chooses by the node's selector; nodes has room for count. rotation is filled in. */
int cake__node_select(cake_node_t *node, cake_selection_t *selection);

/* ---- parts of the node, for node.c ------------------------------------------------------------------------------- */
cake__gossip_sealer_t cake__node_sealer(cake__node_keys_t *keys); /* lives as keys */
int cake__node_keys_copy(cake__node_keys_t *keys, const uint8_t (*from)[CAKE_CLUSTER_KEY_LEN], size_t count);
void cake__node_keys_wipe(cake__node_keys_t *keys);
int cake__security_start(cake_node_t *node, const cake_node_config_t *config); /* any thread; reads files */
void cake__security_free(cake_node_t *node);
int cake__seeds_copy(cake_node_t *node, const cake_node_config_t *config);
void cake__seeds_start(cake_node_t *node);
void cake__seeds_close(cake_node_t *node);
void cake__seeds_free(cake_node_t *node);
void cake__stranger_heard(cake_node_t *node, const cake_addr_t *from, cake_slice_t frame);

int cake__membership_start(cake_node_t *node);
void cake__membership_seeds(cake_node_t *node, const cake_addr_t *addrs, size_t count);
bool cake__who_read(cake_slice_t bytes, cake__gossip_who_t *out);
void cake__membership_leave(cake_node_t *node); /* state goes on to CLOSING by cake__node_left */
void cake__membership_close(cake_node_t *node); /* no callbacks after; memory goes with cake__membership_free */
void cake__membership_free(cake_node_t *node);
void cake__node_left(cake_node_t *node);
void cake__tell_watchers(cake_node_t *node); /* when node->tell_again */
void cake__tell_again(void *node);           /* the retry timer */
void cake__waits_close(cake_node_t *node);
void cake__watches_close(cake_node_t *node);
/* To a member, or to whoever is at that address (node id 0, or ours, which another holds). NULL: no memory. */
cake_channel_t *cake__carrier_channel(cake_node_t *node, const cake_addr_t *to, uint16_t node_id);
void cake__carrier_send(cake_node_t *node, const cake_addr_t *to, uint16_t node_id, cake_slice_t frame);
bool cake__carrier_read(cake_slice_t body, cake_addr_t *from, cake_slice_t *frame); /* false: malformed */
void cake__carrier_lend_tls(cake_node_t *node);
void cake__carrier_close(cake_node_t *node);
void cake__membership_received(void *arg, const cake_addr_t *from, const void *data, size_t len);

cake_rpc_hooks_t cake__node_hooks(cake_node_t *node); /* the cluster clock, for servers and channels */
cake_channel_t *cake__channel_to(cake_node_t *node, uint16_t id, const cake_addr_t *addr); /* NULL: no memory */
void cake__channel_drop(cake_node_t *node, uint16_t id);                                   /* its calls end at once */
cake_channel_t *cake__channel_make(cake_node_t *node, const cake_addr_t *addr, char text[CAKE_ADDR_TEXT_MAX]);
void cake__channels_lend_tls(cake_node_t *node);
void cake__channels_close(cake_node_t *node);

void cake__extensions_stop(cake_node_t *node); /* calls cake__extensions_stopped once all have */
void cake__extensions_stopped(cake_node_t *node);

/* One more thing closes asynchronously: give cake__node_closed as its closed callback, with the node. */
void cake__node_closing(cake_node_t *node);
void cake__node_closed(void *arg);

#endif
