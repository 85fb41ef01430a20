/* suite_stream.h: the part of suite.h about listeners, connects and streams. */
#ifndef CAKE_ENV_SUITE_STREAM_H
#define CAKE_ENV_SUITE_STREAM_H

#include "base/random.h"
#include "env/suite_loop.h"

#define SUITE_BYTES (1024 * 1024)

static uint8_t suite_byte(size_t index)
{
    return (uint8_t)(index * 31 + (index >> 8) * 7 + (index >> 16));
}

/* ---- streams: a peer is a listener with the one stream it took, or the end of a connect ---- */

typedef struct peer {
    cake_env_t *env;
    cake_stream_t *stream;
    cake_listener_t *listener;
    cake_addr_t addr;
    const cake_stream_handlers_t *handlers;
    cake__random_t random;
    uint8_t in[16384], *out;
    size_t received, sent, out_len;
    int connect_err, read_err, write_err, write_count;
    bool is_writing, is_over, is_closed, closes_at_once, holds, takes_one;
    latch_t connected, over, written, closed;
} peer_t;

static peer_t *peer_new(cake_env_t *env, const cake_stream_handlers_t *handlers)
{
    peer_t *peer = cake__calloc(&cake__libc_alloc, 1, sizeof *peer);
    peer->env = env;
    peer->handlers = handlers;
    peer->out = cake__malloc(&cake__libc_alloc, SUITE_BYTES);
    for (size_t i = 0; i < SUITE_BYTES; i++)
        peer->out[i] = suite_byte(i);
    cake__random_init(&peer->random, 7);
    latch_init(&peer->connected, env);
    latch_init(&peer->over, env);
    latch_init(&peer->written, env);
    latch_init(&peer->closed, env);
    return peer;
}

static void peer_free(peer_t *peer)
{
    cake__free(&cake__libc_alloc, peer->out);
    cake__free(&cake__libc_alloc, peer);
}

static void peer_accept(void *arg, cake_stream_t *stream)
{
    peer_t *peer = arg;
    CAKE_ASSERT(peer->stream == NULL);
    peer->stream = stream;
    if (peer->closes_at_once)
        peer->env->ops->stream_close(stream);
    else
        peer->env->ops->stream_start(stream, peer->handlers, peer);
    latch_open(&peer->connected);
}

static int peer_listen(void *arg)
{
    peer_t *peer = arg;
    cake_addr_t any_port = suite_addr("127.0.0.1:0");
    int err = peer->env->ops->listen(peer->env, &any_port, peer_accept, peer, &peer->listener);
    CAKE_ASSERT(err == 0);
    peer->env->ops->listener_addr(peer->listener, &peer->addr);
    CAKE_ASSERT(peer->addr.port != 0);
    return 0;
}

static int peer_connect(void *arg)
{
    peer_t *peer = arg;
    return peer->env->ops->connect(peer->env, &peer->addr, peer->handlers, peer, &peer->stream);
}

static void peer_on_connect(void *arg, int err)
{
    peer_t *peer = arg;
    peer->connect_err = err;
    latch_open(&peer->connected);
}

static void peer_on_closed(void *arg)
{
    peer_t *peer = arg;
    CAKE_ASSERT(!peer->is_closed);
    peer->is_closed = true;
    latch_open(&peer->closed);
}

static int peer_close(void *arg)
{
    peer_t *peer = arg;
    peer->env->ops->stream_close(peer->stream);
    peer->env->ops->stream_close(peer->stream); /* idempotent */
    CAKE_ASSERT(!peer->is_closed);
    return 0;
}

static void peer_listener_closed(void *arg)
{
    latch_open(arg);
}

static int peer_start_unlisten(void *arg)
{
    latch_t *closed = arg;
    peer_t *peer = CAKE_CONTAINER_OF(closed, peer_t, written);
    peer->env->ops->listener_close(peer->listener, peer_listener_closed, closed);
    return 0;
}

/* Uses the latch of written, which a listening peer must not have waited for. */
static void peer_unlisten(peer_t *peer)
{
    cake__run_on_loop(peer->env, peer_start_unlisten, &peer->written);
    latch_wait(&peer->written);
}

static void peer_on_buffer(void *arg, void **data, size_t *size)
{
    peer_t *peer = arg;
    CAKE_ASSERT(peer->env->ops->on_loop(peer->env) && !peer->is_over);
    *data = peer->in;
    *size = peer->holds ? 0 : peer->takes_one ? 1 : 1 + (size_t)cake__random_below(&peer->random, sizeof peer->in);
}

/* Checks what it reads against the pattern. */
static void peer_on_read(void *arg, void *data, intptr_t len)
{
    peer_t *peer = arg;
    CAKE_ASSERT(!peer->is_over && !peer->is_closed && !peer->holds);
    if (len <= 0) {
        peer->is_over = true;
        peer->read_err = (int)len;
        latch_open(&peer->over);
        return;
    }
    CAKE_ASSERT(data == peer->in);
    for (intptr_t i = 0; i < len; i++)
        CAKE_ASSERT(peer->in[i] == suite_byte(peer->received + (size_t)i));
    peer->received += (size_t)len;
    if (peer->takes_one) { /* of many: the others are here, unread */
        peer->env->ops->stream_pause(peer->stream);
        latch_open(&peer->over);
    }
}

static void peer_on_written(void *arg, int err)
{
    peer_t *peer = arg;
    CAKE_ASSERT(peer->is_writing && !peer->is_closed);
    peer->is_writing = false;
    peer->write_err = err;
    latch_open(&peer->written);
}

static const cake_stream_handlers_t peer_handlers = {peer_on_connect, peer_on_buffer, peer_on_read, peer_on_written,
                                                     peer_on_closed};

static int peer_write_all(void *arg)
{
    peer_t *peer = arg;
    cake_slice_t slice = {peer->out, SUITE_BYTES};
    peer->is_writing = true;
    CAKE_ASSERT(peer->env->ops->stream_write(peer->stream, &slice, 1) == 0);
    CAKE_ASSERT(peer->is_writing); /* no callback inside the call */
    CAKE_ASSERT(peer->env->ops->stream_write(peer->stream, &slice, 1) == CAKE_EBUSY);
    return 0;
}

static void peers_connect(peer_t *server, peer_t *client)
{
    cake__run_on_loop(server->env, peer_listen, server);
    client->addr = server->addr;
    CAKE_ASSERT(cake__run_on_loop(client->env, peer_connect, client) == 0);
    latch_wait(&client->connected);
    latch_wait(&server->connected);
    CAKE_ASSERT(client->connect_err == 0);
}

static void peers_end(peer_t *server, peer_t *client)
{
    peer_t *peers[] = {client, server};
    for (size_t i = 0; i < 2; i++) {
        cake__run_on_loop(peers[i]->env, peer_close, peers[i]);
        latch_wait(&peers[i]->closed);
    }
    peer_unlisten(server);
    peer_free(client);
    peer_free(server);
}

/* ---- echo: writes of random sizes in several slices there, reads of random sizes, and all of it back ---- */

static void echo_on_read(void *arg, void *data, intptr_t len)
{
    peer_t *peer = arg;
    CAKE_ASSERT(!peer->is_writing);
    if (len <= 0) {
        CAKE_ASSERT(len == 0);
        peer->env->ops->stream_shutdown(peer->stream);
        return;
    }
    cake_slice_t slice = {data, (size_t)len};
    peer->is_writing = peer->holds = true;
    CAKE_ASSERT(peer->env->ops->stream_write(peer->stream, &slice, 1) == 0);
}

static void echo_on_written(void *arg, int err)
{
    peer_t *peer = arg;
    CAKE_ASSERT(err == 0 && peer->is_writing);
    peer->is_writing = peer->holds = false;
    peer->env->ops->stream_resume(peer->stream);
}

static const cake_stream_handlers_t echo_handlers = {NULL, peer_on_buffer, echo_on_read, echo_on_written,
                                                     peer_on_closed};

static void echo_send(peer_t *peer)
{
    cake_slice_t slices[CAKE_STREAM_IOV_MAX];
    size_t count = (size_t)cake__random_below(&peer->random, 9), used = 0; /* sometimes nothing at all */
    for (; used < count && peer->sent < SUITE_BYTES; used++) {
        size_t len = (size_t)cake__random_below(&peer->random, used % 2 == 0 ? 20000 : 3);
        len = len < SUITE_BYTES - peer->sent ? len : SUITE_BYTES - peer->sent;
        slices[used] = cake__slice(peer->out + peer->sent, len);
        peer->sent += len;
    }
    peer->is_writing = true;
    CAKE_ASSERT(peer->env->ops->stream_write(peer->stream, slices, used) == 0);
    if (peer->sent == SUITE_BYTES)
        peer->env->ops->stream_shutdown(peer->stream); /* waits for the write */
}

static void echo_client_written(void *arg, int err)
{
    peer_t *peer = arg;
    CAKE_ASSERT(err == 0 && peer->is_writing);
    peer->is_writing = false;
    if (peer->sent < SUITE_BYTES)
        echo_send(peer);
}

static const cake_stream_handlers_t echo_client_handlers = {peer_on_connect, peer_on_buffer, peer_on_read,
                                                            echo_client_written, peer_on_closed};

static int echo_start(void *arg)
{
    peer_t *peer = arg;
    cake_addr_t from;
    peer->env->ops->stream_peer(peer->stream, &from);
    CAKE_ASSERT(cake_addr_equal(&from, &peer->addr));
    echo_send(peer);
    return 0;
}

static void suite_echo(cake_env_t *env)
{
    peer_t *server = peer_new(env, &echo_handlers), *client = peer_new(env, &echo_client_handlers);
    peers_connect(server, client);
    cake__run_on_loop(env, echo_start, client);
    latch_wait(&client->over);
    CAKE_ASSERT(client->read_err == 0 && client->received == SUITE_BYTES);
    peers_end(server, client);
}

/* ---- streams, one promise each ---- */

static int peer_pause(void *arg)
{
    peer_t *peer = arg;
    peer->env->ops->stream_pause(peer->stream);
    return 0;
}

static int peer_resume(void *arg)
{
    peer_t *peer = arg;
    peer->holds = false;
    peer->env->ops->stream_resume(peer->stream);
    return 0;
}

static int peer_hold(void *arg)
{
    ((peer_t *)arg)->holds = true; /* on_buffer gives no space from now on */
    return 0;
}

static int peer_shutdown(void *arg)
{
    peer_t *peer = arg;
    cake_slice_t slice = {peer->out, 1};
    peer->env->ops->stream_shutdown(peer->stream);
    peer->env->ops->stream_shutdown(peer->stream);
    CAKE_ASSERT(peer->env->ops->stream_write(peer->stream, &slice, 1) == CAKE_EINVAL);
    return 0;
}

static int suite_sleep_arm(void *arg)
{
    cake_timer_t *timer = arg;
    latch_t *latch = timer->arg;
    cake__timer_arm_ms(latch->env, timer, 20);
    return 0;
}

/* Lets the loop do what it has to do, and 20 ms more. */
static void suite_let_run(cake_env_t *env)
{
    latch_t latch;
    cake_timer_t timer = CAKE_TIMER_INIT(latch_open, &latch);
    latch_init(&latch, env);
    cake__run_on_loop(env, suite_sleep_arm, &timer);
    latch_wait(&latch);
}

static int peer_received(void *arg)
{
    return (int)((peer_t *)arg)->received;
}

static void suite_hold_and_resume(cake_env_t *env, cake__loop_fn hold)
{
    peer_t *server = peer_new(env, &peer_handlers), *client = peer_new(env, &peer_handlers);
    peers_connect(server, client);
    cake__run_on_loop(env, hold, server);
    int before = cake__run_on_loop(env, peer_received, server);
    cake__run_on_loop(env, peer_write_all, client);
    suite_let_run(env);
    CAKE_ASSERT(cake__run_on_loop(env, peer_received, server) == before); /* nothing while it is paused */
    cake__run_on_loop(env, peer_resume, server);
    latch_wait(&client->written);
    CAKE_ASSERT(client->write_err == 0);
    cake__run_on_loop(env, peer_shutdown, client);
    latch_wait(&server->over);
    CAKE_ASSERT(server->read_err == 0 && server->received == SUITE_BYTES);
    peers_end(server, client);
}

static void suite_pause(cake_env_t *env)
{
    suite_hold_and_resume(env, peer_pause);
}

static void suite_no_buffer(cake_env_t *env)
{
    suite_hold_and_resume(env, peer_hold);
}

/* A half-closed stream still carries the other direction. */
static void suite_shutdown(cake_env_t *env)
{
    peer_t *server = peer_new(env, &peer_handlers), *client = peer_new(env, &peer_handlers);
    peers_connect(server, client);
    cake__run_on_loop(env, peer_shutdown, client);
    latch_wait(&server->over);
    CAKE_ASSERT(server->read_err == 0 && server->received == 0);
    cake__run_on_loop(env, peer_write_all, server);
    cake__run_on_loop(env, peer_shutdown, server);
    latch_wait(&client->over);
    CAKE_ASSERT(client->read_err == 0 && client->received == SUITE_BYTES);
    cake__run_on_loop(env, peer_close, client);
    latch_wait(&client->closed);
    cake__run_on_loop(env, peer_close, server);
    latch_wait(&server->closed);
    peer_free(client);
    latch_wait(&server->written);
    latch_init(&server->written, env);
    peer_unlisten(server);
    peer_free(server);
}

/* Nobody reads, so the second write stays under way: after close only on_closed comes, and the buffer is free. */
static int suite_write_much(void *arg)
{
    peer_t *peer = arg;
    cake_slice_t slices[CAKE_STREAM_IOV_MAX];
    for (size_t i = 0; i < CAKE_STREAM_IOV_MAX; i++)
        slices[i] = cake__slice(peer->out, SUITE_BYTES);
    peer->is_writing = true;
    CAKE_ASSERT(peer->env->ops->stream_write(peer->stream, slices, CAKE_STREAM_IOV_MAX) == 0);
    return 0;
}

static void suite_close_while_writing(cake_env_t *env)
{
    peer_t *server = peer_new(env, &peer_handlers), *client = peer_new(env, &peer_handlers);
    peers_connect(server, client);
    cake__run_on_loop(env, peer_pause, server);
    cake__run_on_loop(env, suite_write_much, client);
    suite_let_run(env);
    CAKE_ASSERT(client->is_writing);
    cake__run_on_loop(env, peer_close, client);
    latch_wait(&client->closed);
    CAKE_ASSERT(client->is_writing); /* on_written did not come */
    memset(client->out, 0, SUITE_BYTES);
    peer_free(client);
    cake__run_on_loop(env, peer_close, server);
    latch_wait(&server->closed);
    peer_unlisten(server);
    peer_free(server);
}

/* Writing to a peer that is gone fails by on_written, sooner or later, and never by a signal. */
static void suite_peer_gone(cake_env_t *env)
{
    peer_t *server = peer_new(env, &peer_handlers), *client = peer_new(env, &peer_handlers);
    peers_connect(server, client);
    cake__run_on_loop(env, peer_close, server);
    latch_wait(&server->closed);
    latch_wait(&client->over);
    while (client->write_err == 0) {
        cake__run_on_loop(env, peer_write_all, client);
        latch_wait(&client->written);
        latch_init(&client->written, env);
        suite_let_run(env);
    }
    CAKE_ASSERT(client->write_err == CAKE_ECONNECTION);
    cake__run_on_loop(env, peer_close, client);
    latch_wait(&client->closed);
    peer_unlisten(server);
    peer_free(server);
    peer_free(client);
}

/* The writer must learn that its bytes were never read. */
static void suite_close_unread(cake_env_t *env)
{
    peer_t *server = peer_new(env, &peer_handlers), *client = peer_new(env, &peer_handlers);
    server->takes_one = true;
    peers_connect(server, client);
    cake__run_on_loop(env, peer_write_all, client);
    latch_wait(&server->over);
    cake__run_on_loop(env, peer_close, server);
    latch_wait(&server->closed);
    latch_wait(&client->over);
    CAKE_ASSERT(client->read_err == CAKE_ECONNECTION);
    cake__run_on_loop(env, peer_close, client);
    latch_wait(&client->closed);
    peer_unlisten(server);
    peer_free(server);
    peer_free(client);
}

static void suite_close_at_accept(cake_env_t *env)
{
    peer_t *server = peer_new(env, &peer_handlers), *client = peer_new(env, &peer_handlers);
    server->closes_at_once = true;
    peers_connect(server, client);
    latch_wait(&client->over);
    CAKE_ASSERT(client->received == 0);
    cake__run_on_loop(env, peer_close, client);
    latch_wait(&client->closed);
    peer_unlisten(server);
    peer_free(server);
    peer_free(client);
}

static void suite_connect_refused(cake_env_t *env)
{
    peer_t *server = peer_new(env, &peer_handlers), *client = peer_new(env, &peer_handlers);
    cake__run_on_loop(env, peer_listen, server);
    client->addr = server->addr;
    peer_unlisten(server);
    CAKE_ASSERT(cake__run_on_loop(env, peer_connect, client) == 0);
    latch_wait(&client->connected);
    CAKE_ASSERT(client->connect_err == CAKE_ECONNECTION);
    cake__run_on_loop(env, peer_close, client);
    latch_wait(&client->closed);
    CAKE_ASSERT(!client->is_over);
    peer_free(client);
    peer_free(server);
}

static void peer_on_connect_never(void *arg, int err)
{
    CAKE_ASSERT(!"closed before it was connected: only on_closed may come");
}

static const cake_stream_handlers_t closed_early_handlers = {peer_on_connect_never, peer_on_buffer, peer_on_read,
                                                             peer_on_written, peer_on_closed};

static int suite_connect_and_close(void *arg)
{
    peer_connect(arg);
    return peer_close(arg);
}

static void suite_close_while_connecting(cake_env_t *env)
{
    peer_t *server = peer_new(env, &peer_handlers), *client = peer_new(env, &closed_early_handlers);
    server->closes_at_once = true;
    cake__run_on_loop(env, peer_listen, server);
    client->addr = server->addr;
    cake__run_on_loop(env, suite_connect_and_close, client);
    latch_wait(&client->closed);
    suite_let_run(env);
    peer_unlisten(server);
    peer_free(client);
    peer_free(server);
}

static int suite_listen_twice(void *arg)
{
    peer_t *peer = arg;
    cake_addr_t not_ours = suite_addr("192.0.2.7:0");
    cake_listener_t *listener;
    CAKE_ASSERT(peer->env->ops->listen(peer->env, &peer->addr, peer_accept, peer, &listener) == CAKE_EADDRINUSE);
    CAKE_ASSERT(peer->env->ops->listen(peer->env, &not_ours, peer_accept, peer, &listener) == CAKE_EINVAL);
    return 0;
}

static void suite_listen_errors(cake_env_t *env)
{
    peer_t *server = peer_new(env, &peer_handlers);
    cake__run_on_loop(env, peer_listen, server);
    cake__run_on_loop(env, suite_listen_twice, server);
    peer_unlisten(server);
    peer_free(server);
}

#endif
