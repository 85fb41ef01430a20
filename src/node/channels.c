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
    config.connect_timeout_ms = node->connect_timeout_ms;
    config.hooks = cake__node_hooks(node);
    if (cake_channel_open(text, &config, &channel) != 0)
        return NULL;
    if (node->tls != NULL)
        cake__channel_lend_tls(channel, node->tls);
    return channel;
}

static void close_channel(cake__node_channel_t *entry)
{
    cake_node_t *node = entry->node;
    cake__node_closing(node);
    int err = cake__channel_close(entry->channel, cake__node_closed, node);
    CAKE_ASSERT(err == 0);
    cake__free(node->alloc, entry);
}

/* The member has another address. */
static void move_away(cake_node_t *node, cake__node_channel_t *entry)
{
    cake__map_remove_u64(&node->channels, entry->node_id);
    if (!entry->is_lent) {
        close_channel(entry);
        return;
    }
    cake__channel_reset(entry->channel);
    cake__list_push_back(&node->lent, &entry->link);
}

cake_channel_t *cake__channel_to(cake_node_t *node, uint16_t id, const cake_addr_t *addr)
{
    cake__node_channel_t *entry = cake__map_get_u64(&node->channels, id);
    if (entry != NULL && cake_addr_equal(&entry->addr, addr))
        return entry->channel;
    if (entry != NULL)
        move_away(node, entry);
    entry = cake__calloc(node->alloc, 1, sizeof *entry);
    if (entry == NULL)
        return NULL;
    *entry = (cake__node_channel_t){.node = node, .node_id = id, .addr = *addr};
    cake__list_init(&entry->link);
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
    cake__node_channel_t *entry = cake__map_get_u64(&node->channels, id);
    if (entry != NULL && entry->is_lent) {
        cake__channel_reset(entry->channel);
    } else if (entry != NULL) {
        cake__map_remove_u64(&node->channels, id);
        close_channel(entry);
    }
}

void cake__channels_lend_tls(cake_node_t *node)
{
    cake__node_channel_t *entry;
    for (size_t cursor = 0; (entry = cake__map_next(&node->channels, &cursor)) != NULL;)
        cake__channel_lend_tls(entry->channel, node->tls);
    CAKE_LIST_FOR_EACH(link, &node->lent)
    cake__channel_lend_tls(CAKE_CONTAINER_OF(link, cake__node_channel_t, link)->channel, node->tls);
    if (node->refusal.channel != NULL)
        cake__channel_lend_tls(node->refusal.channel, node->tls);
    cake__carrier_lend_tls(node);
}

void cake__channels_close(cake_node_t *node)
{
    cake__node_channel_t *entry;
    for (size_t cursor = 0; (entry = cake__map_next(&node->channels, &cursor)) != NULL; cursor = 0) {
        cake__map_remove_u64(&node->channels, entry->node_id);
        close_channel(entry);
    }
    for (cake__list_t *link; (link = cake__list_pop_front(&node->lent)) != NULL;)
        close_channel(CAKE_CONTAINER_OF(link, cake__node_channel_t, link));
}

typedef struct {
    cake_node_t *node;
    uint16_t id;
    bool is_lent;
    cake_channel_t *channel;
} channel_request_t;

static int find_channel(void *arg)
{
    channel_request_t *request = arg;
    cake__gossip_member_t member;
    if (request->node->state >= CAKE__NODE_CLOSING)
        return CAKE_ECLOSED;
    if (!cake__gossip_find_member(request->node->gossip, request->id, &member))
        return CAKE_ENOTFOUND;
    request->channel = cake__channel_to(request->node, request->id, &member.addr);
    if (request->channel == NULL)
        return CAKE_ENOMEM;
    cake__node_channel_t *entry = cake__map_get_u64(&request->node->channels, request->id);
    entry->is_lent = entry->is_lent || request->is_lent;
    return 0;
}

int cake_node_channel(cake_node_t *node, uint16_t id, cake_channel_t **channel)
{
    channel_request_t request = {.node = node, .id = id, .is_lent = !node->env->ops->on_loop(node->env)};
    int err = cake__run_on_loop(node->env, find_channel, &request);
    *channel = request.channel;
    return err;
}
