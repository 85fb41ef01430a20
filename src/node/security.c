/* What the members have in common and strangers do not: the cluster keys and TLS.
 *
 *      keys --seal--> gossip                         one context of TLS, lent to the server and to every channel: a
 *        '--(without certificates)--> tls --> rpc    change of keys or certificates exchanges it for all at once
 *
 * Invariant: tls is NULL or what server and channels have; it is exchanged on the loop only. */
#include "node/node.h"

static bool has_tls(const cake_env_t *env)
{
    return env->ops->version >= 2 && env->ops->tls_open != NULL;
}

/* The first key is offered to others; those that are on their way in or out are taken from them. */
static int tls_of_keys(cake_env_t *env, const cake__node_keys_t *keys, cake_tls_t **out)
{
    cake_slice_t others[CAKE_CLUSTER_KEYS_MAX];
    cake_tls_config_t config = {.cluster_key = keys->keys[0],
                                .cluster_key_len = CAKE_CLUSTER_KEY_LEN,
                                .other_keys = others,
                                .other_key_count = keys->count - 1};
    CAKE_ASSERT(keys->count > 0 && keys->count - 1 <= CAKE_TLS_OTHER_KEYS_MAX);
    for (size_t i = 1; i < keys->count; i++)
        others[i - 1] = cake__slice(keys->keys[i], CAKE_CLUSTER_KEY_LEN);
    return env->ops->tls_open(env, &config, out);
}

int cake__security_start(cake_node_t *node, const cake_node_config_t *config)
{
    int err = cake__node_keys_copy(&node->keys, config->cluster_keys, config->cluster_key_count);
    if (err != 0)
        return err;
    node->is_sealed = node->keys.count > 0;
    node->has_own_tls = config->tls != NULL;
    if (node->has_own_tls)
        return has_tls(node->env) ? node->env->ops->tls_open(node->env, config->tls, &node->tls) : CAKE_EUNAVAILABLE;
    node->is_tls_by_keys = node->is_sealed && has_tls(node->env);
    return node->is_tls_by_keys ? tls_of_keys(node->env, &node->keys, &node->tls) : 0;
}

void cake__security_free(cake_node_t *node)
{
    if (node->tls != NULL)
        node->env->ops->tls_close(node->tls);
    node->tls = NULL;
    cake__node_keys_wipe(&node->keys);
}

/* ---- while it runs ----------------------------------------------------------------------------------------------- */

typedef struct {
    cake_node_t *node;
    const cake__node_keys_t *keys; /* NULL: stay */
    cake_tls_t *tls;               /* NULL: stays */
} exchange_t;

static int exchange(void *arg)
{
    exchange_t *request = arg;
    cake_node_t *node = request->node;
    if (cake__node_is_stopping(node))
        return CAKE_ECLOSED;
    memset(node->keys.keys, 0, request->keys != NULL ? sizeof node->keys.keys : 0); /* what is out of use is not kept */
    if (request->keys != NULL)
        (void)cake__node_keys_copy(&node->keys, request->keys->keys, request->keys->count);
    if (request->tls == NULL)
        return 0;
    cake_tls_t *before = node->tls;
    node->tls = request->tls;
    cake__rpc_server_lend_tls(node->server, node->tls);
    cake__channels_lend_tls(node);
    node->env->ops->tls_close(before); /* connections that have it keep it */
    return 0;
}

static int exchange_or_undo(exchange_t *request)
{
    cake_env_t *env = request->node->env;
    int err = cake__run_on_loop(env, exchange, request);
    if (err != 0 && request->tls != NULL)
        env->ops->tls_close(request->tls);
    return err;
}

int cake_node_reload_keys(cake_node_t *node, const uint8_t (*keys)[CAKE_CLUSTER_KEY_LEN], size_t count)
{
    cake__node_keys_t ring = {.env = node->env};
    exchange_t request = {.node = node, .keys = &ring};
    if (count == 0 || !node->is_sealed)
        return CAKE_EINVAL;
    int err = cake__node_keys_copy(&ring, keys, count);
    if (err == 0 && node->is_tls_by_keys)
        err = tls_of_keys(node->env, &ring, &request.tls);
    if (err == 0)
        err = exchange_or_undo(&request);
    cake__node_keys_wipe(&ring);
    return err;
}

int cake_node_reload_tls(cake_node_t *node, const cake_tls_config_t *tls)
{
    exchange_t request = {.node = node};
    if (tls == NULL || !node->has_own_tls)
        return CAKE_EINVAL;
    int err = node->env->ops->tls_open(node->env, tls, &request.tls);
    return err != 0 ? err : exchange_or_undo(&request);
}
