/* Datagrams between simulated hosts, the ports of hosts, and names. */
#include <stdio.h>

#include "env/env.h"
#include "sim/env/world.h"

#define FIRST_FREE_PORT 49152

struct cake_datagram {
    cake__list_t in_env;
    cake__simenv_t *env;
    cake_addr_t addr;
    cake_datagram_fn fn;
    void *arg;
    cake_event_fn closed;
    void *closed_arg;
};

typedef struct {
    cake_addr_t from;
    uint16_t port;
    size_t len;
    uint8_t data[];
} packet_t;

struct cake_resolve {
    cake__simenv_t *env;
    cake_resolve_fn fn;
    void *arg;
    int err;
    cake_addr_t addr;
    cake__sim_event_t *event;
};

/* ---- ports ---- */

uint16_t cake__sim_free_port(cake__host_t *host)
{
    uint16_t port = host->next_port;
    host->next_port = port == UINT16_MAX ? FIRST_FREE_PORT : (uint16_t)(port + 1);
    return port;
}

static cake_datagram_t *find_socket(const cake__simenv_t *env, uint16_t port)
{
    CAKE_LIST_FOR_EACH(node, &env->sockets)
    {
        cake_datagram_t *socket = CAKE_CONTAINER_OF(node, cake_datagram_t, in_env);
        if (socket->addr.port == port)
            return socket;
    }
    return NULL;
}

static bool is_taken(const cake__simenv_t *env, uint16_t port, bool is_datagram)
{
    if (is_datagram)
        return find_socket(env, port) != NULL;
    CAKE_LIST_FOR_EACH(node, &env->listeners)
    {
        if (CAKE_CONTAINER_OF(node, cake_listener_t, in_env)->addr.port == port)
            return true;
    }
    return false;
}

int cake__sim_take_addr(cake__simenv_t *env, cake_addr_t *addr, bool is_datagram)
{
    if ((addr->family != 4 && addr->family != 6) || cake__sim_host_at(env->host, addr) != env->host)
        return CAKE_EINVAL;
    if (addr->port != 0)
        return is_taken(env, addr->port, is_datagram) ? CAKE_EADDRINUSE : 0;
    for (unsigned tries = FIRST_FREE_PORT; tries <= UINT16_MAX; tries++) {
        addr->port = cake__sim_free_port(env->host);
        if (!is_taken(env, addr->port, is_datagram))
            return 0;
    }
    return CAKE_EADDRINUSE;
}

/* ---- datagrams ---- */

int cake__sim_datagram_open(cake_env_t *base, const cake_addr_t *addr, cake_datagram_fn fn, void *arg,
                            cake_datagram_t **out)
{
    cake__simenv_t *env = cake__simenv(base);
    cake_addr_t local = *addr;
    cake__sim_check_on_loop(env);
    int err = cake__sim_take_addr(env, &local, true);
    if (err != 0)
        return err;
    cake_datagram_t *socket = cake__calloc(&base->alloc, 1, sizeof *socket);
    if (socket == NULL)
        return CAKE_ENOMEM;
    socket->env = env;
    socket->addr = local;
    socket->fn = fn;
    socket->arg = arg;
    cake__list_init(&socket->in_env);
    cake__list_push_back(&env->sockets, &socket->in_env);
    env->open_count++;
    *out = socket;
    return 0;
}

void cake__sim_datagram_addr(cake_datagram_t *socket, cake_addr_t *out)
{
    *out = socket->addr;
}

static void send_copy(cake_datagram_t *socket, cake__host_t *to, const cake_addr_t *addr, const void *data, size_t len)
{
    cake__host_t *from = socket->env->host;
    cake__world_t *world = from->world;
    const cake__faults_t *faults = &world->options.faults;
    uint64_t at_ns = world->now_ns + cake__sim_latency_ns(world, from, to);
    if (cake__sim_happens(world, CAKE__DRAW_LOSS, faults->loss_rate) || cake__sim_is_cut(from, to)) {
        cake__sim_note_flight(from, to, 0, len, false);
        return;
    }
    if (cake__sim_happens(world, CAKE__DRAW_REORDER, faults->reorder_rate))
        at_ns += cake__sim_between(world, CAKE__DRAW_REORDER, 0, faults->reorder_max_ns);
    cake__sim_note_flight(from, to, at_ns, len, false);
    packet_t *packet = cake__sim_must(cake__malloc(world->alloc, sizeof *packet + len));
    cake__host_addr(from, 0, &packet->from);
    if (from == to && (addr->family == 6 || addr->ip[0] == 127))
        packet->from = *addr;
    packet->from.port = socket->addr.port;
    packet->port = addr->port;
    packet->len = len;
    if (len > 0)
        memcpy(packet->data, data, len);
    cake__sim_schedule(world, CAKE__SIM_DATAGRAM, to, at_ns, packet);
}

void cake__sim_datagram_send(cake_datagram_t *socket, const cake_addr_t *to, const void *data, size_t len)
{
    cake__world_t *world = socket->env->host->world;
    cake__sim_check_on_loop(socket->env);
    cake__host_t *host = cake__sim_host_at(socket->env->host, to);
    if (host == NULL || len > CAKE_DATAGRAM_MAX)
        return;
    send_copy(socket, host, to, data, len);
    if (cake__sim_happens(world, CAKE__DRAW_DUPLICATE, world->options.faults.duplicate_rate))
        send_copy(socket, host, to, data, len);
}

/* A packet that arrives where nobody listens any more is lost: so is one for the process of before a crash. */
void cake__sim_run_datagram(cake__world_t *world, cake__host_t *host, void *object)
{
    packet_t *packet = object;
    cake_datagram_t *socket = find_socket(host->env, packet->port);
    world->trace_hash += packet->len;
    if (socket != NULL)
        socket->fn(socket->arg, &packet->from, packet->data, packet->len);
    cake__free(world->alloc, packet);
}

void cake__sim_datagram_close(cake_datagram_t *socket, cake_event_fn closed, void *arg)
{
    cake__host_t *host = socket->env->host;
    cake__sim_check_on_loop(socket->env);
    CAKE_ASSERT(cake__list_is_linked(&socket->in_env));
    cake__list_remove(&socket->in_env);
    socket->closed = closed;
    socket->closed_arg = arg;
    cake__sim_schedule(host->world, CAKE__SIM_DATAGRAM_CLOSED, host, host->world->now_ns, socket);
}

void cake__sim_run_datagram_closed(cake__world_t *world, cake__host_t *host, void *object)
{
    cake_datagram_t *socket = object;
    cake_event_fn closed = socket->closed;
    void *arg = socket->closed_arg;
    socket->env->open_count--;
    cake__free(&socket->env->base.alloc, socket);
    if (closed != NULL)
        closed(arg);
}

/* ---- names: "host-7:7000", "localhost:7000" and what cake_addr_parse knows ---- */

static int look_up(const cake__host_t *asking, const char *host_port, cake_addr_t *out)
{
    char name[CAKE__HOST_MAX + 1], rest;
    unsigned number = 0;
    uint16_t port;
    if (cake_addr_parse(host_port, out) == 0)
        return 0;
    int err = cake__split_host_port(host_port, name, &port);
    if (err != 0)
        return err;
    *out = (cake_addr_t){.family = 4, .port = port, .ip = {127, 0, 0, 1}};
    if (strcmp(name, "localhost") == 0)
        return 0;
    if (strncmp(name, "host-", 5) != 0 || sscanf(name + 5, "%4u%c", &number, &rest) != 1)
        return CAKE_ENOTFOUND;
    const cake__host_t *host = cake__world_host(asking->world, number);
    if (host == NULL)
        return CAKE_ENOTFOUND;
    cake__host_addr(host, port, out);
    return 0;
}

int cake__sim_resolve(cake_env_t *base, const char *host_port, cake_resolve_fn fn, void *arg, cake_resolve_t **out)
{
    cake__simenv_t *env = cake__simenv(base);
    cake__world_t *world = env->host->world;
    cake_addr_t addr;
    cake__sim_check_on_loop(env);
    int err = look_up(env->host, host_port, &addr);
    if (err == CAKE_EPARSE)
        return err;
    cake_resolve_t *resolve = cake__calloc(&base->alloc, 1, sizeof *resolve);
    if (resolve == NULL)
        return CAKE_ENOMEM;
    *resolve = (cake_resolve_t){.env = env, .fn = fn, .arg = arg, .err = err, .addr = addr};
    if (cake__sim_happens(world, CAKE__DRAW_RESOLVE, world->options.faults.resolve_fail_rate))
        resolve->err = CAKE_ENOTFOUND;
    uint64_t delay_ns = cake__sim_between(world, CAKE__DRAW_RESOLVE, 0, CAKE_NS_PER_MS);
    resolve->event = cake__sim_schedule(world, CAKE__SIM_RESOLVED, env->host, world->now_ns + delay_ns, resolve);
    env->open_count++;
    *out = resolve;
    return 0;
}

static void end_resolve(cake_resolve_t *resolve)
{
    cake__simenv_t *env = resolve->env;
    env->open_count--;
    cake__free(&env->base.alloc, resolve);
}

void cake__sim_run_resolved(cake__world_t *world, cake__host_t *host, void *object)
{
    cake_resolve_t resolve = *(cake_resolve_t *)object;
    end_resolve(object);
    resolve.fn(resolve.arg, resolve.err, resolve.err == 0 ? &resolve.addr : NULL, resolve.err == 0 ? 1 : 0);
}

void cake__sim_resolve_cancel(cake_resolve_t *resolve)
{
    cake__sim_check_on_loop(resolve->env);
    cake__sim_cancel(resolve->env->host->world, &resolve->event);
    end_resolve(resolve);
}
