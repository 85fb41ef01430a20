/* actor_test.h: what the tests of simulated hosts share: an actor listens, connects, reads and writes on one host, and
 * notes what it hears. Bytes of a stream are the pattern of actor_byte, so that a reader can check them. */
#ifndef CAKE_SIM_ENV_ACTOR_TEST_H
#define CAKE_SIM_ENV_ACTOR_TEST_H

#include "env/env.h"
#include "sim/env/simenv.h"

#define ACTOR_PORT      7000
#define ACTOR_OUT_BYTES 100000
#define ACTOR_SECOND_NS (1000 * CAKE_NS_PER_MS)

typedef struct actor {
    cake__world_t *world;
    cake__host_t *host;
    cake_env_t *env;
    cake_listener_t *listener;
    cake_stream_t *stream;
    cake_datagram_t *socket;
    uint8_t in[4096];
    uint8_t out[ACTOR_OUT_BYTES];
    size_t received, read_count, write_len;
    bool is_connected, is_over, is_written, is_closed, is_listener_closed, is_socket_closed;
    int connect_err, read_err, write_err;
    uint64_t connected_ns, over_ns, written_ns, received_ns;
    uint32_t peer; /* the host number to connect or send to */
    uint32_t packets[8192];
    uint32_t packet_count, sent_packets;
} actor_t;

static inline uint8_t actor_byte(size_t index)
{
    return (uint8_t)(index * 31 + (index >> 8) * 7);
}

static inline cake__world_t *world_of(const cake__world_options_t *options, uint32_t hosts)
{
    cake__world_t *world;
    CAKE_ASSERT(cake__world_new(options, &world) == 0);
    for (uint32_t i = 0; i < hosts; i++)
        cake__world_add_host(world);
    return world;
}

/* An actor on that host. It is the test's memory, as what an application keeps on disk: it survives crashes. */
static inline actor_t *actor_new(cake__world_t *world, uint32_t number)
{
    actor_t *actor = cake__calloc(&cake__libc_alloc, 1, sizeof *actor);
    actor->world = world;
    actor->host = cake__world_host(world, number);
    actor->env = cake__host_env(actor->host);
    for (size_t i = 0; i < sizeof actor->out; i++)
        actor->out[i] = actor_byte(i);
    return actor;
}

static inline void actor_free(actor_t *actor)
{
    cake__free(&cake__libc_alloc, actor);
}

/* ---- streams ---- */

static inline void actor_on_connect(void *arg, int err)
{
    actor_t *actor = arg;
    CAKE_ASSERT(!actor->is_connected && !actor->is_closed);
    actor->is_connected = true;
    actor->connect_err = err;
    actor->connected_ns = cake__world_now_ns(actor->world);
}

static inline void actor_on_buffer(void *arg, void **data, size_t *size)
{
    actor_t *actor = arg;
    *data = actor->in;
    *size = sizeof actor->in;
}

static inline void actor_on_read(void *arg, void *data, intptr_t len)
{
    actor_t *actor = arg;
    CAKE_ASSERT(!actor->is_over && !actor->is_closed && actor->env->ops->on_loop(actor->env));
    actor->is_over = len <= 0;
    if (len <= 0) {
        actor->read_err = (int)len;
        actor->over_ns = cake__world_now_ns(actor->world);
        return;
    }
    for (intptr_t i = 0; i < len; i++)
        CAKE_ASSERT(actor->in[i] == actor_byte(actor->received + (size_t)i));
    actor->received += (size_t)len;
    actor->read_count++;
    actor->received_ns = cake__world_now_ns(actor->world);
}

static inline void actor_on_written(void *arg, int err)
{
    actor_t *actor = arg;
    CAKE_ASSERT(!actor->is_written && !actor->is_closed);
    actor->is_written = true;
    actor->write_err = err;
    actor->written_ns = cake__world_now_ns(actor->world);
}

static inline void actor_on_closed(void *arg)
{
    actor_t *actor = arg;
    CAKE_ASSERT(!actor->is_closed);
    actor->is_closed = true;
    actor->stream = NULL;
}

static const cake_stream_handlers_t actor_handlers = {actor_on_connect, actor_on_buffer, actor_on_read,
                                                      actor_on_written, actor_on_closed};

static inline void actor_accept(void *arg, cake_stream_t *stream)
{
    actor_t *actor = arg;
    actor->stream = stream;
    actor->is_over = actor->is_written = actor->is_closed = false;
    actor->received = 0;
    actor->env->ops->stream_start(stream, &actor_handlers, actor);
}

static inline int actor_do_listen(void *arg)
{
    actor_t *actor = arg;
    cake_addr_t any = {.family = 4, .port = ACTOR_PORT};
    return actor->env->ops->listen(actor->env, &any, actor_accept, actor, &actor->listener);
}

static inline int actor_do_connect(void *arg)
{
    actor_t *actor = arg;
    cake_addr_t addr;
    cake__host_addr(cake__world_host(actor->world, actor->peer), ACTOR_PORT, &addr);
    return actor->env->ops->connect(actor->env, &addr, &actor_handlers, actor, &actor->stream);
}

/* The bytes start where the pattern does: one write per actor, or one after another with actor->write_len the same. */
static inline int actor_do_write(void *arg)
{
    actor_t *actor = arg;
    cake_slice_t slice = {actor->out, actor->write_len};
    actor->is_written = false;
    return actor->env->ops->stream_write(actor->stream, &slice, 1);
}

static inline int actor_do_close(void *arg)
{
    actor_t *actor = arg;
    actor->env->ops->stream_close(actor->stream);
    return 0;
}

static inline void actor_note_true(void *arg)
{
    *(bool *)arg = true;
}

static inline int actor_do_unlisten(void *arg)
{
    actor_t *actor = arg;
    actor->env->ops->listener_close(actor->listener, actor_note_true, &actor->is_listener_closed);
    return 0;
}

/* ---- whole steps; they run the world ---- */

static inline void actor_listen(actor_t *actor)
{
    CAKE_ASSERT(cake__run_on_loop(actor->env, actor_do_listen, actor) == 0);
}

static inline void actor_connect(actor_t *actor, uint32_t peer)
{
    actor->peer = peer;
    actor->is_connected = actor->is_over = actor->is_closed = false;
    CAKE_ASSERT(cake__run_on_loop(actor->env, actor_do_connect, actor) == 0);
}

static inline void actor_write(actor_t *actor, size_t len)
{
    actor->write_len = len;
    CAKE_ASSERT(cake__run_on_loop(actor->env, actor_do_write, actor) == 0);
}

static inline void actor_close(actor_t *actor)
{
    if (actor->stream != NULL)
        cake__run_on_loop(actor->env, actor_do_close, actor);
}

static inline void run_seconds(cake__world_t *world, double seconds)
{
    cake__world_run_for(world, (uint64_t)(seconds * (double)ACTOR_SECOND_NS));
}

/* Server on host 1, client on host 2, connected. */
static inline void actors_connect(actor_t *server, actor_t *client)
{
    actor_listen(server);
    actor_connect(client, cake__host_number(server->host));
    run_seconds(server->world, 0.1);
    CAKE_ASSERT(client->is_connected && client->connect_err == 0 && server->stream != NULL);
}

/* ---- datagrams: each is a number ---- */

static inline void actor_got_packet(void *arg, const cake_addr_t *from, const void *data, size_t len)
{
    actor_t *actor = arg;
    CAKE_ASSERT(len == sizeof(uint32_t) && actor->packet_count < CAKE_COUNT_OF(actor->packets));
    memcpy(&actor->packets[actor->packet_count++], data, sizeof(uint32_t));
}

static inline int actor_do_open_socket(void *arg)
{
    actor_t *actor = arg;
    cake_addr_t any = {.family = 4, .port = ACTOR_PORT};
    return actor->env->ops->datagram_open(actor->env, &any, actor_got_packet, actor, &actor->socket);
}

static inline int actor_do_send_packets(void *arg)
{
    actor_t *actor = arg;
    cake_addr_t addr;
    cake__host_addr(cake__world_host(actor->world, actor->peer), ACTOR_PORT, &addr);
    for (uint32_t i = 0; i < actor->sent_packets; i++)
        actor->env->ops->datagram_send(actor->socket, &addr, &i, sizeof i);
    return 0;
}

static inline void actor_open_socket(actor_t *actor)
{
    CAKE_ASSERT(cake__run_on_loop(actor->env, actor_do_open_socket, actor) == 0);
}

static inline void actor_send_packets(actor_t *actor, uint32_t peer, uint32_t count)
{
    actor->peer = peer;
    actor->sent_packets = count;
    cake__run_on_loop(actor->env, actor_do_send_packets, actor);
}

#endif
