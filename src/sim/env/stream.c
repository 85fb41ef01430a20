/* Listeners, connects and the two ends of streams. The bytes between them are pipe.c's. */
#include "sim/env/world.h"

#define CONNECT_RETRY_NS     (1000 * CAKE_NS_PER_MS) /* doubled each time, as TCP repeats an unanswered SYN */
#define BLACK_HOLE_MAX_BYTES (256 * 1024)

static cake__end_t *end_of(const cake_stream_t *stream)
{
    return &stream->connection->ends[stream->side];
}

static cake__pipe_t *pipe_out(const cake_stream_t *stream)
{
    return &stream->connection->pipes[stream->side];
}

static cake__pipe_t *pipe_in(const cake_stream_t *stream)
{
    return &stream->connection->pipes[1 - stream->side];
}

static cake__sim_event_t *schedule_now(cake_stream_t *stream, cake__sim_kind_t kind)
{
    cake__world_t *world = stream->env->host->world;
    return cake__sim_schedule(world, kind, stream->env->host, world->now_ns, stream);
}

/* ---- connections ---- */

void cake__connection_free(cake__connection_t *connection)
{
    cake__world_t *world = connection->world;
    cake__sim_cancel(world, &connection->connect);
    cake__sim_cancel(world, &connection->accept);
    cake__pipe_free(&connection->pipes[0]);
    cake__pipe_free(&connection->pipes[1]);
    cake__list_remove(&connection->in_world);
    cake__free(world->alloc, connection);
}

static void free_when_both_gone(cake__connection_t *connection)
{
    if (connection->ends[0].is_gone && (connection->ends[1].is_gone || !connection->is_accepted))
        cake__connection_free(connection);
}

/* The machine of this end says that nobody is there any more. */
static void refuse_end(cake__connection_t *connection, unsigned side)
{
    connection->ends[side].is_gone = true;
    connection->ends[side].stream = NULL;
    if (connection->ends[side].broken == 0)
        cake__pipe_launch_end(&connection->pipes[side], true);
}

void cake__sim_connections_crash(cake__host_t *host, bool is_silent)
{
    CAKE_LIST_FOR_EACH_SAFE(node, &host->world->connections)
    {
        cake__connection_t *connection = CAKE_CONTAINER_OF(node, cake__connection_t, in_world);
        for (unsigned side = 0; side < 2; side++) {
            cake__end_t *end = &connection->ends[side];
            if (end->host != host || end->is_gone || !(side == 0 || connection->is_accepted))
                continue;
            if (side == 1)
                cake__sim_cancel(host->world, &connection->accept);
            end->is_gone = true;
            end->stream = NULL;
            if (!is_silent && connection->is_accepted)
                refuse_end(connection, side);
        }
        free_when_both_gone(connection);
    }
}

static bool is_loopback(const cake_addr_t *addr)
{
    return addr->family == 4 ? addr->ip[0] == 127 : addr->ip[15] == 1;
}

static cake_listener_t *find_listener(const cake__connection_t *connection)
{
    const cake__host_t *host = connection->ends[1].host;
    if (host->env == NULL)
        return NULL;
    CAKE_LIST_FOR_EACH(node, &host->env->listeners)
    {
        cake_listener_t *listener = CAKE_CONTAINER_OF(node, cake_listener_t, in_env);
        bool is_private = is_loopback(&listener->addr) && host != connection->ends[0].host;
        if (listener->addr.port == connection->to.port && !is_private)
            return listener;
    }
    return NULL;
}

/* ---- connecting ---- */

/* The connecting process hears at that time; err 0: it is connected. */
static void answer_connect(cake__connection_t *connection, int err, uint64_t at_ns)
{
    cake__end_t *end = &connection->ends[0];
    end->stream->connect_err = err;
    end->stream->connected = cake__sim_schedule(connection->world, CAKE__SIM_CONNECTED, end->host, at_ns, end->stream);
}

static void draw_black_hole(cake__connection_t *connection)
{
    cake__world_t *world = connection->world;
    if (!cake__sim_happens(world, CAKE__DRAW_BLACK_HOLE, world->options.faults.black_hole_rate))
        return;
    unsigned side = (unsigned)cake__sim_between(world, CAKE__DRAW_BLACK_HOLE, 0, 1);
    connection->pipes[side].black_hole_after = cake__sim_between(world, CAKE__DRAW_BLACK_HOLE, 0, BLACK_HOLE_MAX_BYTES);
}

/* The request to connect reaches the other machine, or not. */
void cake__sim_run_connect(cake__world_t *world, cake__host_t *host, void *object)
{
    cake__connection_t *connection = object;
    cake__host_t *from = connection->ends[0].host, *to = connection->ends[1].host;
    connection->connect = NULL;
    if (to == NULL || to->is_silent || cake__sim_is_cut(from, to) || cake__sim_is_cut(to, from)) {
        uint64_t again_ns = world->now_ns + connection->retry_ns;
        connection->retry_ns *= 2;
        if (again_ns < connection->connect_deadline_ns)
            connection->connect = cake__sim_schedule(world, CAKE__SIM_CONNECT, NULL, again_ns, connection);
        else
            answer_connect(connection, CAKE_ETIMEDOUT, connection->connect_deadline_ns);
        return;
    }
    uint64_t answer_ns = world->now_ns + cake__sim_latency_ns(world, to, from);
    if (find_listener(connection) == NULL) {
        answer_connect(connection, CAKE_ECONNECTION, answer_ns);
        return;
    }
    connection->is_accepted = true;
    connection->ends[1].addr = connection->to;
    draw_black_hole(connection);
    connection->accept = cake__sim_schedule(world, CAKE__SIM_ACCEPT, to, world->now_ns, connection);
    answer_connect(connection, 0, answer_ns);
}

static cake__connection_t *new_connection(cake_stream_t *stream, const cake_addr_t *to)
{
    cake__host_t *host = stream->env->host;
    cake__world_t *world = host->world;
    cake__connection_t *connection = cake__sim_must(cake__calloc(world->alloc, 1, sizeof *connection));
    connection->world = world;
    connection->to = *to;
    cake__pipe_init(&connection->pipes[0], connection);
    cake__pipe_init(&connection->pipes[1], connection);
    connection->ends[0].host = host;
    connection->ends[0].stream = stream;
    cake__host_addr(host, 0, &connection->ends[0].addr);
    if (is_loopback(to))
        connection->ends[0].addr = *to;
    connection->ends[0].addr.port = cake__sim_free_port(host);
    connection->ends[1].host = cake__sim_host_at(host, to);
    connection->connect_deadline_ns = world->now_ns + world->options.connect_timeout_ns;
    connection->retry_ns = CONNECT_RETRY_NS;
    cake__list_init(&connection->in_world);
    cake__list_push_back(&world->connections, &connection->in_world);
    return connection;
}

int cake__sim_connect(cake_env_t *base, const cake_addr_t *addr, const cake_stream_handlers_t *handlers, void *arg,
                      cake_stream_t **out)
{
    cake__simenv_t *env = cake__simenv(base);
    cake__world_t *world = env->host->world;
    const cake__faults_t *faults = &world->options.faults;
    cake__sim_check_on_loop(env);
    if ((addr->family != 4 && addr->family != 6) || addr->port == 0)
        return CAKE_EINVAL;
    cake_stream_t *stream = cake__calloc(&base->alloc, 1, sizeof *stream);
    if (stream == NULL)
        return CAKE_ENOMEM;
    stream->env = env;
    stream->handlers = *handlers;
    stream->arg = arg;
    stream->is_started = true;
    env->open_count++;
    cake__connection_t *connection = stream->connection = new_connection(stream, addr);
    cake__host_t *to = connection->ends[1].host;
    uint64_t arrives_ns = world->now_ns + cake__sim_latency_ns(world, env->host, to != NULL ? to : env->host);
    if (cake__sim_happens(world, CAKE__DRAW_REFUSE, faults->connect_refuse_rate))
        answer_connect(connection, CAKE_ECONNECTION, arrives_ns);
    else if (cake__sim_happens(world, CAKE__DRAW_CONNECT_TIMEOUT, faults->connect_timeout_rate))
        answer_connect(connection, CAKE_ETIMEDOUT, connection->connect_deadline_ns);
    else
        connection->connect = cake__sim_schedule(world, CAKE__SIM_CONNECT, NULL, arrives_ns, connection);
    *out = stream;
    return 0;
}

/* ---- reading ---- */

static bool has_to_read(const cake_stream_t *stream)
{
    bool may_read = stream->is_started && stream->is_connected && !stream->is_paused && !stream->is_closing;
    if (!may_read || stream->is_read_over)
        return false;
    return pipe_in(stream)->readable > 0 || pipe_in(stream)->end_arrived || end_of(stream)->broken != 0;
}

static void schedule_read(cake_stream_t *stream)
{
    if (stream->read == NULL && has_to_read(stream))
        stream->read = schedule_now(stream, CAKE__SIM_READ);
}

static void read_bytes(cake_stream_t *stream, void *data, size_t size)
{
    cake__world_t *world = stream->env->host->world;
    size_t len = size < pipe_in(stream)->readable ? size : pipe_in(stream)->readable;
    if (cake__sim_happens(world, CAKE__DRAW_SEGMENT, world->options.faults.segment_rate))
        len = cake__sim_between(world, CAKE__DRAW_SEGMENT, 1, len);
    world->trace_hash += len;
    cake__pipe_get(pipe_in(stream), data, len);
    stream->handlers.on_read(stream->arg, data, (intptr_t)len);
}

/* As on a real machine, the end and a break ask for a buffer too, since only reading finds them. */
void cake__sim_run_read(cake__world_t *world, cake__host_t *host, void *object)
{
    cake_stream_t *stream = object;
    void *data = NULL;
    size_t size = 0;
    stream->read = NULL;
    CAKE_ASSERT(has_to_read(stream));
    stream->handlers.on_buffer(stream->arg, &data, &size);
    stream->is_paused = stream->is_paused || size == 0;
    if (stream->is_closing || size == 0)
        return;
    if (pipe_in(stream)->readable > 0) {
        read_bytes(stream, data, size);
    } else {
        stream->is_read_over = true;
        stream->handlers.on_read(stream->arg, NULL, end_of(stream)->broken);
    }
    if (!stream->is_closing)
        schedule_read(stream);
}

void cake__end_bytes_arrived(cake__end_t *end)
{
    if (end->stream != NULL)
        schedule_read(end->stream);
}

void cake__sim_run_connected(cake__world_t *world, cake__host_t *host, void *object)
{
    cake_stream_t *stream = object;
    stream->connected = NULL;
    stream->is_connected = stream->connect_err == 0;
    stream->handlers.on_connect(stream->arg, stream->connect_err);
    if (!stream->is_closing)
        schedule_read(stream);
}

void cake__sim_stream_pause(cake_stream_t *stream)
{
    cake__sim_check_on_loop(stream->env);
    stream->is_paused = true;
    cake__sim_cancel(stream->env->host->world, &stream->read);
}

void cake__sim_stream_resume(cake_stream_t *stream)
{
    cake__sim_check_on_loop(stream->env);
    if (stream->is_closing)
        return;
    stream->is_paused = false;
    schedule_read(stream);
}

/* ---- writing ---- */

static void schedule_write(cake_stream_t *stream)
{
    if (stream->write == NULL)
        stream->write = schedule_now(stream, CAKE__SIM_WRITE);
}

/* Puts what fits into the pipe. */
static void move_bytes(cake_stream_t *stream)
{
    cake__pipe_t *pipe = pipe_out(stream);
    size_t moved = 0;
    while (stream->iov_at < stream->iov_count) {
        const cake_slice_t *slice = &stream->iov[stream->iov_at];
        size_t left = slice->len - stream->iov_offset, space = cake__pipe_space(pipe);
        size_t part = left < space ? left : space;
        if (part < left && part == 0)
            break;
        if (part > 0)
            cake__pipe_put(pipe, (const uint8_t *)slice->data + stream->iov_offset, part);
        moved += part;
        stream->iov_offset += part;
        if (part == left) {
            stream->iov_at++;
            stream->iov_offset = 0;
        }
    }
    if (moved > 0)
        cake__pipe_launch(pipe, moved);
}

int cake__sim_stream_write(cake_stream_t *stream, const cake_slice_t *iov, size_t count)
{
    cake__sim_check_on_loop(stream->env);
    if (stream->is_closing)
        return CAKE_ECLOSED;
    if (count > CAKE_STREAM_IOV_MAX || stream->is_shut)
        return CAKE_EINVAL;
    if (stream->is_writing || !stream->is_connected)
        return CAKE_EBUSY;
    stream->is_writing = true;
    memcpy(stream->iov, iov, count * sizeof *iov);
    stream->iov_count = count;
    stream->iov_at = stream->iov_offset = 0;
    if (end_of(stream)->broken == 0)
        move_bytes(stream);
    if (stream->iov_at == stream->iov_count || end_of(stream)->broken != 0)
        schedule_write(stream);
    return 0;
}

void cake__sim_run_write(cake__world_t *world, cake__host_t *host, void *object)
{
    cake_stream_t *stream = object;
    stream->write = NULL;
    CAKE_ASSERT(stream->is_writing && !stream->is_closing);
    int err = end_of(stream)->broken;
    if (stream->iov_at < stream->iov_count && err == 0) {
        move_bytes(stream);
        if (stream->iov_at < stream->iov_count)
            return;
    }
    bool is_out = stream->iov_at == stream->iov_count; /* a machine takes what it cannot deliver any more */
    stream->is_writing = false;
    if (stream->is_shut && err == 0)
        cake__pipe_launch_end(pipe_out(stream), false);
    stream->handlers.on_written(stream->arg, is_out ? 0 : err);
}

void cake__end_space_freed(cake__end_t *end)
{
    if (end->stream != NULL && end->stream->is_writing)
        schedule_write(end->stream);
}

void cake__end_break(cake__end_t *end, int err)
{
    if (end->is_gone || end->broken != 0)
        return;
    end->broken = err;
    if (end->stream == NULL)
        return;
    if (end->stream->is_writing)
        schedule_write(end->stream);
    schedule_read(end->stream);
}

void cake__sim_stream_shutdown(cake_stream_t *stream)
{
    cake__sim_check_on_loop(stream->env);
    if (stream->is_closing || stream->is_shut || !stream->is_connected)
        return;
    stream->is_shut = true;
    if (!stream->is_writing && end_of(stream)->broken == 0)
        cake__pipe_launch_end(pipe_out(stream), false);
}

/* ---- closing ---- */

void cake__sim_stream_close(cake_stream_t *stream)
{
    cake__sim_check_on_loop(stream->env);
    if (stream->is_closing)
        return;
    cake__world_t *world = stream->env->host->world;
    cake__connection_t *connection = stream->connection;
    cake__end_t *end = end_of(stream);
    stream->is_closing = true;
    cake__sim_cancel(world, &stream->read);
    cake__sim_cancel(world, &stream->write);
    cake__sim_cancel(world, &stream->connected);
    end->is_gone = true;
    end->stream = NULL;
    if (connection->is_accepted && end->broken == 0) {
        bool is_unread = pipe_in(stream)->readable > 0 || !stream->is_connected;
        cake__pipe_launch_end(pipe_out(stream), is_unread);
    }
    stream->connection = NULL;
    free_when_both_gone(connection);
    schedule_now(stream, CAKE__SIM_CLOSED);
}

void cake__sim_run_stream_closed(cake__world_t *world, cake__host_t *host, void *object)
{
    cake_stream_t *stream = object;
    cake__simenv_t *env = stream->env;
    void (*on_closed)(void *) = stream->handlers.on_closed;
    void *arg = stream->arg;
    env->open_count--;
    cake__free(&env->base.alloc, stream);
    if (on_closed != NULL)
        on_closed(arg);
}

/* ---- accepting ---- */

void cake__sim_run_accept(cake__world_t *world, cake__host_t *host, void *object)
{
    cake__connection_t *connection = object;
    cake_listener_t *listener = find_listener(connection);
    connection->accept = NULL;
    CAKE_ASSERT(listener != NULL); /* closing one takes its accepts away */
    cake_stream_t *stream = cake__calloc(&host->env->base.alloc, 1, sizeof *stream);
    if (stream == NULL) {
        refuse_end(connection, 1);
        free_when_both_gone(connection);
        return;
    }
    stream->env = host->env;
    stream->connection = connection;
    stream->side = 1;
    stream->is_connected = true;
    host->env->open_count++;
    connection->ends[1].stream = stream;
    listener->accept(listener->arg, stream);
}

void cake__sim_stream_start(cake_stream_t *stream, const cake_stream_handlers_t *handlers, void *arg)
{
    cake__sim_check_on_loop(stream->env);
    CAKE_ASSERT(!stream->is_started && !stream->is_closing);
    stream->handlers = *handlers;
    stream->arg = arg;
    stream->is_started = true;
    schedule_read(stream);
}

void cake__sim_stream_peer(cake_stream_t *stream, cake_addr_t *out)
{
    *out = (cake_addr_t){0};
    if (stream->connection != NULL)
        *out = stream->side == 0 ? stream->connection->to : stream->connection->ends[0].addr;
}

int cake__sim_listen(cake_env_t *base, const cake_addr_t *addr, cake_accept_fn accept, void *arg, cake_listener_t **out)
{
    cake__simenv_t *env = cake__simenv(base);
    cake_addr_t local = *addr;
    cake__sim_check_on_loop(env);
    int err = cake__sim_take_addr(env, &local, false);
    if (err != 0)
        return err;
    cake_listener_t *listener = cake__calloc(&base->alloc, 1, sizeof *listener);
    if (listener == NULL)
        return CAKE_ENOMEM;
    listener->env = env;
    listener->addr = local;
    listener->accept = accept;
    listener->arg = arg;
    cake__list_init(&listener->in_env);
    cake__list_push_back(&env->listeners, &listener->in_env);
    env->open_count++;
    *out = listener;
    return 0;
}

void cake__sim_listener_addr(cake_listener_t *listener, cake_addr_t *out)
{
    *out = listener->addr;
}

void cake__sim_listener_close(cake_listener_t *listener, cake_event_fn closed, void *arg)
{
    cake__host_t *host = listener->env->host;
    cake__sim_check_on_loop(listener->env);
    CAKE_ASSERT(cake__list_is_linked(&listener->in_env));
    CAKE_LIST_FOR_EACH_SAFE(node, &host->world->connections)
    {
        cake__connection_t *connection = CAKE_CONTAINER_OF(node, cake__connection_t, in_world);
        if (connection->accept == NULL || connection->ends[1].host != host || find_listener(connection) != listener)
            continue;
        cake__sim_cancel(host->world, &connection->accept);
        refuse_end(connection, 1);
        free_when_both_gone(connection);
    }
    cake__list_remove(&listener->in_env);
    listener->closed = closed;
    listener->closed_arg = arg;
    cake__sim_schedule(host->world, CAKE__SIM_LISTENER_CLOSED, host, host->world->now_ns, listener);
}

void cake__sim_run_listener_closed(cake__world_t *world, cake__host_t *host, void *object)
{
    cake_listener_t *listener = object;
    cake_event_fn closed = listener->closed;
    void *arg = listener->closed_arg;
    listener->env->open_count--;
    cake__free(&listener->env->base.alloc, listener);
    if (closed != NULL)
        closed(arg);
}
