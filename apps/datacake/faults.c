/* faults.c: see faults.h. A partition as a network makes it: bytes on the way are held, not lost, until the
 * partition ends or somebody gives the connection up; datagrams are lost; new connections fail.
 *
 * Streams that a node has opened are known by the address they go to. Those that others have opened come from ports
 * that say nothing: they are held at their other end, which has the same addresses blocked. So a partition needs
 * both sides. */
#include "faults.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKED_MAX 64u

/* A stream that this node has opened. Stands between it and whoever opened it. */
typedef struct held_stream {
    struct held_stream *previous, *next;
    cake_stream_t *stream;
    cake_addr_t peer;
    cake_stream_handlers_t handlers;
    void *arg;
    cake_slice_t parts[CAKE_STREAM_IOV_MAX]; /* a write that waits for the end of the partition */
    size_t part_count;
    bool is_held, is_write_held;
} held_stream_t;

typedef struct held_socket {
    cake_datagram_fn fn;
    void *arg;
} held_socket_t;

typedef struct faults {
    cake_env_ops_t ops;         /* what the node calls */
    const cake_env_ops_t *real; /* what they stand in front of */
    held_stream_t *streams;     /* all below: on the loop */
    held_socket_t sockets[4];
    size_t socket_count;
    cake_addr_t blocked[BLOCKED_MAX];
    size_t blocked_count;
    cake_addr_t wanted[BLOCKED_MAX]; /* by faults_read, until the loop takes it */
    size_t wanted_count;
    cake_gate_t gate;
    cake_post_t post;
    cake_env_t *env;
} faults_t;

/* The calls of an environment on a stream or socket do not name the environment: one per process. */
static faults_t *faults;

static bool is_blocked(const cake_addr_t *addr)
{
    for (size_t i = 0; i < faults->blocked_count; i++)
        if (cake_addr_equal(&faults->blocked[i], addr))
            return true;
    return false;
}

/* ---- streams ----------------------------------------------------------------------------------------------------- */

static void on_connect(void *arg, int err)
{
    held_stream_t *held = arg;
    if (held->handlers.on_connect != NULL)
        held->handlers.on_connect(held->arg, err);
}

static void on_buffer(void *arg, void **data, size_t *size)
{
    held_stream_t *held = arg;
    held->handlers.on_buffer(held->arg, data, size);
}

static void on_read(void *arg, void *data, intptr_t len)
{
    held_stream_t *held = arg;
    held->handlers.on_read(held->arg, data, len);
}

static void on_written(void *arg, int err)
{
    held_stream_t *held = arg;
    if (held->handlers.on_written != NULL)
        held->handlers.on_written(held->arg, err);
}

static void on_closed(void *arg)
{
    held_stream_t *held = arg;
    cake_stream_handlers_t handlers = held->handlers;
    void *their_arg = held->arg;
    if (held->previous != NULL)
        held->previous->next = held->next;
    else
        faults->streams = held->next;
    if (held->next != NULL)
        held->next->previous = held->previous;
    free(held);
    if (handlers.on_closed != NULL)
        handlers.on_closed(their_arg);
}

static int connect_unless_blocked(cake_env_t *env, const cake_addr_t *addr, const cake_stream_handlers_t *handlers,
                                  void *arg, cake_stream_t **out)
{
    static const cake_stream_handlers_t between = {.on_connect = on_connect,
                                                   .on_buffer = on_buffer,
                                                   .on_read = on_read,
                                                   .on_written = on_written,
                                                   .on_closed = on_closed};
    if (is_blocked(addr))
        return CAKE_ECONNECTION;
    held_stream_t *held = calloc(1, sizeof(*held));
    if (held == NULL)
        return CAKE_ENOMEM;
    held->peer = *addr;
    held->handlers = *handlers;
    held->arg = arg;
    int err = faults->real->connect(env, addr, &between, held, &held->stream);
    if (err != 0) {
        free(held);
        return err;
    }
    held->next = faults->streams;
    if (held->next != NULL)
        held->next->previous = held;
    faults->streams = held;
    *out = held->stream;
    return 0;
}

static int write_unless_held(cake_stream_t *stream, const cake_slice_t *iov, size_t count)
{
    held_stream_t *held = faults->streams;
    while (held != NULL && held->stream != stream)
        held = held->next;
    if (held == NULL || !held->is_held)
        return faults->real->stream_write(stream, iov, count);
    if (held->is_write_held)
        return CAKE_EBUSY;
    if (count > CAKE_STREAM_IOV_MAX)
        return CAKE_EINVAL;
    memcpy(held->parts, iov, count * sizeof(*iov));
    held->part_count = count;
    held->is_write_held = true;
    return 0;
}

static void hold_streams(void)
{
    for (held_stream_t *held = faults->streams, *next; held != NULL; held = next) {
        next = held->next;
        bool is_held = is_blocked(&held->peer);
        if (is_held == held->is_held)
            continue;
        held->is_held = is_held;
        if (is_held) {
            faults->real->stream_pause(held->stream);
            continue;
        }
        faults->real->stream_resume(held->stream);
        if (held->is_write_held) {
            held->is_write_held = false;
            if (faults->real->stream_write(held->stream, held->parts, held->part_count) != 0)
                faults->real->stream_close(held->stream);
        }
    }
}

/* ---- datagrams --------------------------------------------------------------------------------------------------- */

static void receive_unless_blocked(void *arg, const cake_addr_t *from, const void *data, size_t len)
{
    const held_socket_t *held = arg;
    if (!is_blocked(from))
        held->fn(held->arg, from, data, len);
}

static int open_socket(cake_env_t *env, const cake_addr_t *addr, cake_datagram_fn fn, void *arg, cake_datagram_t **out)
{
    if (faults->socket_count == sizeof(faults->sockets) / sizeof(faults->sockets[0]))
        return CAKE_EBUSY;
    held_socket_t *held = &faults->sockets[faults->socket_count];
    *held = (held_socket_t){fn, arg};
    int err = faults->real->datagram_open(env, addr, receive_unless_blocked, held, out);
    if (err == 0)
        faults->socket_count++;
    return err;
}

static void send_unless_blocked(cake_datagram_t *socket, const cake_addr_t *to, const void *data, size_t len)
{
    if (!is_blocked(to))
        faults->real->datagram_send(socket, to, data, len);
}

/* ---- control ----------------------------------------------------------------------------------------------------- */

int faults_install(cake_env_t *env)
{
    assert(faults == NULL);
    faults = calloc(1, sizeof(*faults));
    if (faults == NULL)
        return CAKE_ENOMEM;
    faults->env = env;
    faults->real = env->ops;
    faults->ops = *env->ops;
    faults->ops.connect = connect_unless_blocked;
    faults->ops.stream_write = write_unless_held;
    faults->ops.datagram_open = open_socket;
    faults->ops.datagram_send = send_unless_blocked;
    env->ops = &faults->ops;
    return 0;
}

static void take_wanted(void *arg)
{
    memcpy(faults->blocked, faults->wanted, sizeof(faults->blocked));
    faults->blocked_count = faults->wanted_count;
    hold_streams();
    faults->env->ops->gate_open(faults->env, &faults->gate);
}

void faults_read(cake_env_t *env, const char *path)
{
    char line[CAKE_ADDR_TEXT_MAX + 2];
    FILE *file = fopen(path, "re");
    assert(faults != NULL && faults->env == env);
    faults->wanted_count = 0;
    while (file != NULL && faults->wanted_count < BLOCKED_MAX && fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\r\n")] = 0;
        if (cake_addr_parse(line, &faults->wanted[faults->wanted_count]) == 0)
            faults->wanted_count++;
    }
    if (file != NULL)
        fclose(file);
    faults->post = (cake_post_t){.fn = take_wanted};
    env->ops->gate_init(env, &faults->gate);
    env->ops->post(env, &faults->post);
    env->ops->gate_wait(env, &faults->gate);
    env->ops->gate_destroy(env, &faults->gate);
}
