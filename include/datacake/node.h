/* datacake/node.h: a running node of a cluster: it finds the other members by gossip, serves and calls RPC services,
 * keeps the cluster's clock, and carries extensions (the replicated store is one).
 *
 *   cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
 *   config.node_id = 1;
 *   config.listen_addr = "127.0.0.1:7001";
 *   cake_node_t *node;
 *   int err = cake_node_start(&config, &node);
 *
 * One thread runs everything of a node, its loop; callbacks come on it unless said otherwise, and must not block. Calls
 * may come from any thread; those that wait return CAKE_EDEADLK on the loop. */
#ifndef DATACAKE_NODE_H
#define DATACAKE_NODE_H

#include <datacake/env.h>
#include <datacake/hlc.h>
#include <datacake/rpc.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cake_node cake_node_t;
typedef struct cake_watch cake_watch_t;

/* ---- consistency levels and selectors ---------------------------------------------------------------------------- */

/* How many replicas must have a write on disk before it is acknowledged, this node's own included in the quorums and
 * ALL; ONE, TWO and THREE count other nodes. Quorums and ALL count every known replica, not the live ones. */
typedef enum cake_consistency {
    CAKE_NONE, /* here only; the others get it soon after */
    CAKE_ONE,
    CAKE_TWO,
    CAKE_THREE,
    CAKE_QUORUM,       /* more than half of all replicas */
    CAKE_LOCAL_QUORUM, /* more than half of the replicas in this node's data centre */
    CAKE_EACH_QUORUM,  /* more than half in every data centre */
    CAKE_ALL
} cake_consistency_t;

CAKE_API const char *cake_consistency_name(cake_consistency_t level);           /* "each_quorum"; NULL for no level */
CAKE_API int cake_consistency_parse(const char *text, cake_consistency_t *out); /* CAKE_EPARSE */

typedef enum cake_status { CAKE_ALIVE, CAKE_SUSPECT, CAKE_DEAD, CAKE_LEFT } cake_status_t;
CAKE_API const char *cake_status_name(cake_status_t status); /* "alive" */

/* One node that could be chosen. */
typedef struct cake_candidate {
    uint16_t node_id;
    cake_status_t status;
    bool is_degraded; /* flapping: taken last */
    const char *data_center;
} cake_candidate_t;

/* Chooses the nodes that a level waits for. candidates: every known replica but the local node, ordered by node id.
 * Fills nodes (room for count of them) with ids of candidates that are not DEAD or LEFT, no more than the level needs,
 * never one twice, and never the local node. CAKE_ENOTENOUGHNODES, with how many replicas (the local one counted where
 * the level counts it) are there and how many it takes. rotation grows with every selection: equal choices take turns
 * by it. */
typedef struct cake_selection {
    uint16_t local_id;
    const char *local_data_center;
    const cake_candidate_t *candidates;
    size_t count;
    cake_consistency_t level;
    uint64_t rotation;
    uint16_t *nodes;         /* out */
    size_t node_count;       /* out */
    uint32_t live, required; /* out: with CAKE_ENOTENOUGHNODES */
} cake_selection_t;

typedef int (*cake_select_fn)(cake_selection_t *selection, void *arg);

/* The built-in selector: ONE, TWO, THREE from other data centres first, a different one each, rotating within each. */
CAKE_API int cake_select_data_center_aware(cake_selection_t *selection, void *arg);

/* ---- the node ---------------------------------------------------------------------------------------------------- */

#define CAKE_CLUSTER_KEY_LEN  32
#define CAKE_CLUSTER_KEYS_MAX 8

typedef struct cake_node_config {
    size_t size;
    cake_env_t *env;          /* borrowed; NULL: an environment of the node's own */
    uint16_t node_id;         /* 1 to 65535, unique in the cluster */
    const char *listen_addr;  /* "127.0.0.1:7001"; TCP and UDP; port 0: any, see cake_node_address */
    const char *public_addr;  /* what others are told; default: the listen address; required with 0.0.0.0 or [::] */
    const char *const *seeds; /* "host:port"; none needs to be up; the own address may be among them */
    size_t seed_count;
    const char *cluster_id;  /* default "datacake"; nodes of another cluster are not heard */
    const char *data_center; /* default "default" */
    uint64_t generation; /* greater after each restart: max(last one + 1, now) of who keeps it on disk; 0: now, in ms */
    cake_select_fn selector; /* NULL: cake_select_data_center_aware */
    void *selector_arg;
    uint64_t max_drift_ms; /* of stamps ahead of the wall clock; default 60,000 */
    cake_rpc_limits_t rpc_limits;
    const cake_log_t *log; /* with env NULL only */
    /* What all members know and nobody else. Seals gossip: the first key seals, all open, so that a new one can be
     * given to one node after the other (cake_node_reload_keys). Without tls below, calls between nodes are encrypted
     * by them, too, where the environment has TLS (the simulated one has none). None: gossip is plain. */
    const uint8_t (*cluster_keys)[CAKE_CLUSTER_KEY_LEN];
    size_t cluster_key_count; /* at most CAKE_CLUSTER_KEYS_MAX */
    /* For the calls between nodes, both ways: certificates, or a key of their own. Read here, not kept. NULL: as said
     * above. */
    const cake_tls_config_t *tls;
    bool gossip_over_rpc; /* where UDP is blocked: gossip goes by RPC. For all nodes of a cluster, or for none. */
    uint64_t connect_timeout_ms; /* of the channels to members, as in cake_channel_config_t; default 2,000 */
} cake_node_config_t;

#define CAKE_NODE_CONFIG_INIT CAKE_SIZED(cake_node_config_t)

/* Everything is copied. CAKE_EINVAL (size, node id 0, a name out of bounds, 0.0.0.0 without public_addr, an address
 * that is not this machine's, keys, tls), CAKE_EPARSE (an address, or files of tls), CAKE_ENOTFOUND (files of tls),
 * CAKE_EADDRINUSE, CAKE_ETOOBIG (more than 64 seeds), CAKE_ENOMEM, CAKE_EUNAVAILABLE (tls, and the environment has
 * none), CAKE_EDEADLK. *node is NULL after an error. */
CAKE_API int cake_node_start(const cake_node_config_t *config, cake_node_t **node);

/* Leaves the cluster, stops extensions, services and channels, frees everything: when it returns no callback will run
 * again and the ports are free. NULL allowed. CAKE_EDEADLK on the loop. */
CAKE_API int cake_node_stop(cake_node_t *node);

/* Other keys, or other certificates, from now on; connections that are open go on. An error changes nothing. Any
 * thread.
 *   keys   of a node that was started with some (else CAKE_EINVAL). Without an outage: give every node (old, new), then
 *          every node (new, old), then (new).
 *   tls    of a node that was started with tls (else CAKE_EINVAL): the files are read again; CAKE_ENOTFOUND,
 *          CAKE_EPARSE. */
CAKE_API int cake_node_reload_keys(cake_node_t *node, const uint8_t (*keys)[CAKE_CLUSTER_KEY_LEN], size_t count);
CAKE_API int cake_node_reload_tls(cake_node_t *node, const cake_tls_config_t *tls);

CAKE_API uint16_t cake_node_id(const cake_node_t *node);
CAKE_API const char *
cake_node_address(const cake_node_t *node); /* the public one, "127.0.0.1:7001"; lives as the node */
CAKE_API const char *cake_node_data_center(const cake_node_t *node);
CAKE_API const char *cake_node_cluster_id(const cake_node_t *node);
CAKE_API cake_env_t *cake_node_env(const cake_node_t *node);

/* ---- the cluster's clock. Any thread, never blocks. -------------------------------------------------------------- */
CAKE_API cake_hlc_t cake_node_now(cake_node_t *node);             /* above every stamp issued or observed here before */
CAKE_API int cake_node_observe(cake_node_t *node, cake_hlc_t ts); /* CAKE_EDRIFT: too far ahead, ignored */
CAKE_API cake_clock_t *cake_node_clock(cake_node_t *node);

/* ---- members ----------------------------------------------------------------------------------------------------- */
typedef struct cake_member {
    uint16_t node_id;
    uint64_t generation; /* greater after each restart */
    char address[CAKE_ADDR_TEXT_MAX];
    char data_center[64];
    cake_status_t status;
    bool is_self, is_degraded;
    double phi; /* suspicion level of the failure detector; 0 where this node does not observe it */
} cake_member_t;

/* Ordered by node id, this node included; DEAD and LEFT ones as long as they are remembered. One block, for
 * cake_members_free. */
CAKE_API int cake_node_members(cake_node_t *node, cake_member_t **members, size_t *count);
CAKE_API void cake_members_free(cake_member_t *members);

/* Waits until all the ids are ALIVE here. CAKE_ETIMEDOUT, CAKE_EDEADLK. */
CAKE_API int cake_node_wait_for(cake_node_t *node, const uint16_t *ids, size_t count, uint64_t timeout_ms);

typedef enum cake_membership_kind {
    CAKE_MEMBER_JOINED,  /* ALIVE and new, or back from DEAD or LEFT, or with a higher generation */
    CAKE_MEMBER_UPDATED, /* suspicion, degradation, address or a published key changed */
    CAKE_MEMBER_LEFT     /* DEAD or LEFT, as member->status says */
} cake_membership_kind_t;

/* member: the whole record, also of a departed node; valid for the call. */
typedef void (*cake_membership_fn)(void *arg, cake_membership_kind_t kind, const cake_member_t *member);

/* Every subscriber gets JOINED for each live member first, then every change, in order. On the loop. */
CAKE_API int cake_node_watch(cake_node_t *node, cake_membership_fn fn, void *arg, cake_watch_t **watch);
/* fn will not run any more when this returns, and the watch is gone. Any thread. NULL allowed. Before the node stops,
 * which ends all of its watches: they are not to be used any more. */
CAKE_API void cake_watch_stop(cake_watch_t *watch);

/* Key/values that the node publishes to all members through gossip. Names of 1 to 63 bytes, values up to 16 KiB. */
CAKE_API int cake_node_publish(cake_node_t *node, const char *name, const void *value, size_t len); /* NULL: remove */
/* What a member publishes: CAKE_ENOTFOUND, or up to *len bytes copied and *len set. */
CAKE_API int cake_node_published(cake_node_t *node, uint16_t id, const char *name, void *value, size_t *len);

/* ---- services and channels --------------------------------------------------------------------------------------- */
CAKE_API int cake_node_add_service(cake_node_t *node, const cake_rpc_service_t *service);
CAKE_API int cake_node_remove_service(cake_node_t *node, const char *name);

/* The channel to a member: shared, owned by the node, valid until the node stops (asked for on the loop thread: until
 * the callback returns). It leads to the address that the member had: fetch it for each use. Calls under way when the
 * member is found dead end with CAKE_ECONNECTION. CAKE_ENOTFOUND: no such member known. Calls carry the cluster's
 * clock. */
CAKE_API int cake_node_channel(cake_node_t *node, uint16_t id, cake_channel_t **channel);

/* ---- extensions -----------------------------------------------------------------------------------------------------
 * A part that lives with the node: it adds services, watches members, publishes keys. Both run on the loop. */
typedef struct cake_extension {
    const char *name;
    int (*init)(cake_node_t *node, void *arg); /* an error takes it back out, and is what add_extension returns */
    /* The node is stopping, or the extension is removed: end everything, then call stopped(stopped_arg), then or later.
     * Extensions stop in the reverse order of their adding. */
    void (*stop)(cake_node_t *node, void *arg, cake_event_fn stopped, void *stopped_arg);
} cake_extension_t;

CAKE_API int cake_node_add_extension(cake_node_t *node, const cake_extension_t *extension,
                                     void *arg);                              /* CAKE_EDUPLICATE */
CAKE_API int cake_node_remove_extension(cake_node_t *node, const char *name); /* waits for its stop; CAKE_EDEADLK */

typedef struct cake_node_stats {
    uint32_t alive, suspect, dead, data_centers;
    uint64_t gossip_sent_bytes, gossip_received_bytes, gossip_bad_frames;
    uint64_t rpc_connections, rpc_calls_started, rpc_calls_failed;
    bool is_isolated;  /* at least half of this node's probes go unanswered */
    bool is_duplicate; /* another node has our id, and was there first: this one is not heard */
} cake_node_stats_t;

CAKE_API int cake_node_stats(cake_node_t *node, cake_node_stats_t *out);
CAKE_API bool cake_node_is_duplicate(const cake_node_t *node); /* as in the statistics; never blocks, wakes nobody */

#ifdef __cplusplus
}
#endif
#endif
