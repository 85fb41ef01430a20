/* One channel per member, shared by everybody on the node. */
#include "node/node.h"

static uint64_t stamp(void *arg)
{
    return cake_node_now(arg);
}

/* A stamp from too far ahead is not taken, and the call goes on: the store's own rules refuse what it carries. */
static int observe(void *arg, uint64_t ts)
{
    (void)cake_node_observe(arg, ts);
    return 0;
}

cake_rpc_hooks_t cake__node_hooks(cake_node_t *node)
{
    return (cake_rpc_hooks_t){.stamp = stamp, .observe = observe, .arg = node};
}

cake_channel_t *cake__channel_make(cake_node_t *node, const cake_addr_t *addr, char text[CAKE_ADDR_TEXT_MAX])
{
    cake_channel_t *channel;
    cake_channel_config_t config = CAKE_CHANNEL_CONFIG_INIT;
    cake_addr_format(addr, text);
    config.env = node->env;
    config.cluster_id = node->cluster_id;
    config.limits = node->rpc_limits;
    config.hooks = cake__node_hooks(node);
    if (cake_channel_open(text, &config, &channel) != 0)
        return NULL;
    if (node->tls != NULL)
        cake__channel_lend_tls(channel, node->tls);
    return channel;
}

cake_channel_t *cake__channel_to(cake_node_t *node, uint16_t id, const cake_addr_t *addr)
{
    cake__node_channel_t *entry = cake__map_get_u64(&node->channels, id);
    if (entry != NULL && cake_addr_equal(&entry->addr, addr))
        return entry->channel;
    if (entry != NULL)
        cake__channel_drop(node, id);
    entry = cake__calloc(node->alloc, 1, sizeof *entry);
    if (entry == NULL)
        return NULL;
    *entry = (cake__node_channel_t){.node = node, .node_id = id, .addr = *addr};
    if (cake__map_put_u64(&node->channels, id, entry) != 0) {
        cake__free(node->alloc, entry);
        return NULL;
    }
    char text[CAKE_ADDR_TEXT_MAX];
    entry->channel = cake__channel_make(node, addr, text);
    if (entry->channel == NULL) {
        cake__map_remove_u64(&node->channels, id);
        cake__free(node->alloc, entry);
        return NULL;
    }
    return entry->channel;
}

void cake__channel_drop(cake_node_t *node, uint16_t id)
{
    cake__node_channel_t *entry = cake__map_remove_u64(&node->channels, id);
    if (entry == NULL)
        return;
    cake__node_closing(node);
    int err = cake__channel_close(entry->channel, cake__node_closed, node);
    CAKE_ASSERT(err == 0);
    cake__free(node->alloc, entry);
}

void cake__channels_lend_tls(cake_node_t *node)
{
    cake__node_channel_t *entry;
    for (size_t cursor = 0; (entry = cake__map_next(&node->channels, &cursor)) != NULL;)
        cake__channel_lend_tls(entry->channel, node->tls);
    if (node->refusal.channel != NULL)
        cake__channel_lend_tls(node->refusal.channel, node->tls);
    cake__carrier_lend_tls(node);
}

void cake__channels_close(cake_node_t *node)
{
    cake__node_channel_t *entry;
    for (size_t cursor = 0; (entry = cake__map_next(&node->channels, &cursor)) != NULL; cursor = 0)
        cake__channel_drop(node, entry->node_id);
}

typedef struct {
    cake_node_t *node;
    uint16_t id;
    cake_channel_t *channel;
} channel_request_t;

static int find_channel(void *arg)
{
    channel_request_t *request = arg;
    cake__gossip_member_t member;
    if (cake__node_is_stopping(request->node) && request->node->state >= CAKE__NODE_CLOSING)
        return CAKE_ECLOSED;
    if (!cake__gossip_find_member(request->node->gossip, request->id, &member))
        return CAKE_ENOTFOUND;
    request->channel = cake__channel_to(request->node, request->id, &member.addr);
    return request->channel == NULL ? CAKE_ENOMEM : 0;
}

int cake_node_channel(cake_node_t *node, uint16_t id, cake_channel_t **channel)
{
    channel_request_t request = {.node = node, .id = id};
    int err = cake__run_on_loop(node->env, find_channel, &request);
    *channel = request.channel;
    return err;
}
