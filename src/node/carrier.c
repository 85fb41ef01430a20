/* carrier.c: frames of gossip over RPC: those that are too large for a datagram, and with gossip_over_rpc all of
 * them, where nothing but TCP gets through.
 *
 *      body: the public address of its sender 19 | frame
 *
 * To a member goes its shared channel; to an address that no member has (a seed, a stranger that is answered) a
 * route of its own, closed when it was not used for a while or its place is needed. Like a datagram a frame may be
 * lost in silence: when too many are under way, for want of memory, or because nobody answers in time. */
#include "node/node.h"

#define ADDRESS_LEN      19u
#define FRAME_TIMEOUT_MS 2000u
#define ROUTE_IDLE_MS    30000u

static void put_address(uint8_t out[ADDRESS_LEN], const cake_addr_t *addr)
{
    out[0] = addr->family;
    cake__store_le(out + 1, addr->port, 2);
    memcpy(out + 3, addr->ip, 16);
}

static bool get_address(const uint8_t *bytes, cake_addr_t *out)
{
    *out = (cake_addr_t){.family = bytes[0], .port = (uint16_t)cake__load_le(bytes + 1, 2)};
    memcpy(out->ip, bytes + 3, out->family == 6 ? 16 : 4);
    return (out->family == 4 || out->family == 6) && out->port != 0;
}

bool cake__carrier_read(cake_slice_t body, cake_addr_t *from, cake_slice_t *frame)
{
    if (body.len < ADDRESS_LEN || !get_address(body.data, from))
        return false;
    *frame = cake__slice((const uint8_t *)body.data + ADDRESS_LEN, body.len - ADDRESS_LEN);
    return true;
}

/* ---- routes ------------------------------------------------------------------------------------------------------ */

static void close_route(cake_node_t *node, cake__route_t *route)
{
    cake_channel_t *channel = route->channel;
    route->channel = NULL;
    if (channel == NULL)
        return;
    cake__node_closing(node);
    int err = cake__channel_close(channel, cake__node_closed, node);
    CAKE_ASSERT(err == 0);
}

static cake_channel_t *route_to(cake_node_t *node, const cake_addr_t *addr)
{
    cake__carrier_t *carrier = &node->carrier;
    uint64_t now_ns = cake__now_ns(node->env);
    cake__route_t *oldest = &carrier->routes[0];
    for (size_t i = 0; i < CAKE__ROUTES_MAX; i++) {
        cake__route_t *route = &carrier->routes[i];
        if (route->channel != NULL && cake_addr_equal(&route->addr, addr)) {
            route->used_ns = now_ns;
            return route->channel;
        }
        if (route->channel != NULL && now_ns - route->used_ns > ROUTE_IDLE_MS * CAKE_NS_PER_MS)
            close_route(node, route);
        if (oldest->channel != NULL && (route->channel == NULL || route->used_ns < oldest->used_ns))
            oldest = route;
    }
    char text[CAKE_ADDR_TEXT_MAX];
    close_route(node, oldest);
    *oldest = (cake__route_t){.addr = *addr, .channel = cake__channel_make(node, addr, text), .used_ns = now_ns};
    return oldest->channel;
}

void cake__carrier_close(cake_node_t *node)
{
    for (size_t i = 0; i < CAKE__ROUTES_MAX; i++)
        close_route(node, &node->carrier.routes[i]);
}

void cake__carrier_lend_tls(cake_node_t *node)
{
    for (size_t i = 0; i < CAKE__ROUTES_MAX; i++)
        if (node->carrier.routes[i].channel != NULL)
            cake__channel_lend_tls(node->carrier.routes[i].channel, node->tls);
}

/* ---- sending ----------------------------------------------------------------------------------------------------- */

static void on_carried(cake_reply_t *reply, void *arg)
{
    cake_node_t *node = arg;
    CAKE_ASSERT(node->carrier.in_flight > 0);
    node->carrier.in_flight--;
    cake_reply_free(reply);
}

cake_channel_t *cake__carrier_channel(cake_node_t *node, const cake_addr_t *to, uint16_t node_id)
{
    bool is_member = node_id != 0 && node_id != node->id;
    return is_member ? cake__channel_to(node, node_id, to) : route_to(node, to);
}

void cake__carrier_send(cake_node_t *node, const cake_addr_t *to, uint16_t node_id, cake_slice_t frame)
{
    if (node->carrier.in_flight >= CAKE__FRAMES_IN_FLIGHT_MAX)
        return;
    cake_channel_t *channel = cake__carrier_channel(node, to, node_id);
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    options.timeout_ms = FRAME_TIMEOUT_MS;
    uint8_t own[ADDRESS_LEN];
    put_address(own, &node->public_addr);
    const cake_slice_t parts[] = {cake__slice(own, sizeof own), frame};
    if (channel == NULL)
        return;
    node->carrier.in_flight++;
    if (cake_channel_call_async(channel, "/" CAKE__GOSSIP_SERVICE "/frame", parts, CAKE_COUNT_OF(parts), &options,
                                on_carried, node, NULL) != 0)
        node->carrier.in_flight--;
}
