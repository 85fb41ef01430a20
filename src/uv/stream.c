/* Listeners, connects and streams over TCP. */
#include "uv/stream.h"

#include <errno.h>
#include <sys/socket.h>

#define LISTEN_BACKLOG 1024

struct cake_listener {
    uv_tcp_t tcp; /* first */
    cake__uvenv_t *env;
    cake_accept_fn accept;
    void *arg;
    cake_addr_t addr;
    uv_tcp_t refused; /* takes a connection that there was no memory for, and closes it */
    bool is_refusing, is_starved, is_closing, is_closed;
    cake_event_fn closed;
    void *closed_arg;
};

/* ---- bytes in ---- */

static void give_buffer(uv_handle_t *handle, size_t suggested_size, uv_buf_t *buf)
{
    cake_stream_t *stream = handle->data;
    void *data = NULL;
    size_t size = 0;
    (void)suggested_size;
    if (stream->secure != NULL) {
        *buf = cake__secure_buffer(stream);
        return;
    }
    stream->was_asked = stream->is_paused;
    if (!stream->is_paused)
        stream->handlers.on_buffer(stream->arg, &data, &size);
    *buf = uv_buf_init(data, (unsigned)(size < INT32_MAX ? size : INT32_MAX));
    if (stream->is_closing || size == 0) {
        *buf = uv_buf_init(NULL, 0); /* got_bytes will hear UV_ENOBUFS */
        stream->is_paused = true;
    }
}

static void stop_reading(cake_stream_t *stream)
{
    uv_read_stop((uv_stream_t *)&stream->tcp);
}

static void got_bytes(uv_stream_t *handle, ssize_t count, const uv_buf_t *buf)
{
    cake_stream_t *stream = handle->data;
    if (stream->secure != NULL) {
        cake__secure_got(stream, buf->base, count);
        return;
    }
    if (stream->is_closing || count == 0)
        return;
    if (count > 0) {
        stream->handlers.on_read(stream->arg, buf->base, count);
        return;
    }
    if (count == UV_ENOBUFS && stream->is_paused) {
        if (stream->was_asked) /* most who say no want more before the loop sleeps: stopping is a system call */
            stop_reading(stream);
        return;
    }
    stop_reading(stream);
    stream->is_read_over = true;
    stream->handlers.on_read(stream->arg, NULL, count == UV_EOF ? 0 : cake__uv_err((int)count));
}

void cake__uv_start_reading(cake_stream_t *stream)
{
    bool is_wanted = !stream->is_paused || (stream->secure != NULL && cake__secure_wants_bytes(stream));
    bool may_read = stream->is_started && stream->is_connected && is_wanted && !stream->is_closing;
    if (!may_read || stream->is_read_over)
        return;
    cake__uv_read(stream);
}

void cake__uv_read(cake_stream_t *stream)
{
    int err = uv_read_start((uv_stream_t *)&stream->tcp, give_buffer, got_bytes);
    CAKE_ASSERT(err == 0 || err == UV_EALREADY);
}

void cake__uv_stream_pause(cake_stream_t *stream)
{
    cake__uv_check_on_loop(stream->env);
    stream->is_paused = true;
    if (!stream->is_closing && (stream->secure == NULL || !cake__secure_wants_bytes(stream)))
        stop_reading(stream);
}

void cake__uv_stream_resume(cake_stream_t *stream)
{
    cake__uv_check_on_loop(stream->env);
    stream->is_paused = false;
    if (stream->secure != NULL && !stream->is_closing)
        cake__secure_deliver(stream);
    cake__uv_start_reading(stream);
}

/* ---- bytes out: what the socket takes at once, then the rest by libuv ---- */

void cake__uv_end_write(cake_stream_t *stream)
{
    stream->is_writing = false;
    stream->handlers.on_written(stream->arg, stream->write_err);
}

static void on_written_later(cake__later_t *later)
{
    cake__uv_end_write(CAKE_CONTAINER_OF(later, cake_stream_t, written));
}

static void on_write_ended(uv_write_t *request, int status)
{
    cake_stream_t *stream = request->data;
    if (stream->is_closing)
        return;
    stream->write_err = cake__uv_err(status);
    cake__uv_end_write(stream);
}

/* The system's call itself: what uv_try_write adds to it is a tenth of what libuv costs a lone call. Libuv has
 * nothing of this stream to send when it is called, and its buffers are the system's. */
intptr_t cake__uv_send(cake_stream_t *stream, uv_buf_t *bufs, unsigned count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)(void *)bufs, .msg_iovlen = count};
    uv_os_fd_t socket;
    ssize_t sent;
    _Static_assert(sizeof(uv_buf_t) == sizeof(struct iovec) &&
                       offsetof(uv_buf_t, base) == offsetof(struct iovec, iov_base),
                   "uv.h says so");
    int err = uv_fileno((const uv_handle_t *)&stream->tcp, &socket);
    if (err != 0 || count == 0)
        return err;
    do {
        sent = count == 1 ? send(socket, bufs->base, bufs->len, MSG_NOSIGNAL | MSG_DONTWAIT)
                          : sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return sent;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? 0 : uv_translate_sys_error(errno);
}

static int send_rest(cake_stream_t *stream, uv_buf_t *bufs, unsigned count, size_t sent)
{
    while (sent >= bufs->len) {
        sent -= bufs->len;
        bufs++;
        count--;
    }
    bufs->base += sent;
    bufs->len -= sent;
    stream->write.data = stream;
    return uv_write(&stream->write, (uv_stream_t *)&stream->tcp, bufs, count, on_write_ended);
}

int cake__uv_stream_write(cake_stream_t *stream, const cake_slice_t *iov, size_t count)
{
    uv_buf_t bufs[CAKE_STREAM_IOV_MAX];
    unsigned used = 0;
    size_t total = 0;
    cake__uv_check_on_loop(stream->env);
    if (stream->is_closing)
        return CAKE_ECLOSED;
    if (count > CAKE_STREAM_IOV_MAX || stream->is_shut)
        return CAKE_EINVAL;
    if (stream->is_writing || !stream->is_connected)
        return CAKE_EBUSY;
    for (size_t i = 0; i < count; i++) {
        if (iov[i].len == 0)
            continue;
        bufs[used].base = (char *)(uintptr_t)iov[i].data;
        bufs[used++].len = iov[i].len;
        total += iov[i].len;
    }
    stream->is_writing = true;
    if (stream->secure != NULL) {
        cake__secure_write(stream, bufs, used);
        return 0;
    }
    intptr_t sent = cake__uv_send(stream, bufs, used);
    int err = sent < 0 ? (int)sent : 0;
    if (err == 0 && (size_t)sent < total) {
        err = send_rest(stream, bufs, used, (size_t)sent);
        if (err == 0)
            return 0;
    }
    stream->write_err = cake__uv_err(err);
    cake__uv_later(stream->env, &stream->written);
    return 0;
}

static void on_shut(uv_shutdown_t *request, int status)
{
    (void)request;
    (void)status; /* a stream that broke says so to the reader and the next write */
}

void cake__uv_stream_shutdown(cake_stream_t *stream)
{
    cake__uv_check_on_loop(stream->env);
    if (stream->is_closing || stream->is_shut || !stream->is_connected)
        return;
    stream->is_shut = true;
    if (stream->secure != NULL)
        cake__secure_shutdown(stream);
    else
        uv_shutdown(&stream->shutdown, (uv_stream_t *)&stream->tcp, on_shut); /* libuv lets the write end first */
}

/* ---- making and closing ---- */

static void on_connect_failed_later(cake__later_t *later)
{
    cake_stream_t *stream = CAKE_CONTAINER_OF(later, cake_stream_t, connect_failed);
    stream->handlers.on_connect(stream->arg, stream->connect_err);
}

static cake_stream_t *new_stream(cake__uvenv_t *env)
{
    cake_stream_t *stream = cake__calloc(&env->base.alloc, 1, sizeof *stream);
    if (stream == NULL)
        return NULL;
    stream->env = env;
    cake__uv_later_init(&stream->connect_failed, on_connect_failed_later);
    cake__uv_later_init(&stream->written, on_written_later);
    int err = uv_tcp_init(&env->loop, &stream->tcp); /* makes no socket yet, so it does not fail */
    CAKE_ASSERT(err == 0);
    stream->tcp.data = stream;
    uv_tcp_nodelay(&stream->tcp, 1);
    env->open_count++;
    return stream;
}

static void on_stream_closed(uv_handle_t *handle)
{
    cake_stream_t *stream = handle->data;
    cake__uvenv_t *env = stream->env;
    void (*on_closed)(void *) = stream->handlers.on_closed;
    void *arg = stream->arg;
    cake__secure_free(stream);
    cake__free(&env->base.alloc, stream);
    env->open_count--;
    if (on_closed != NULL)
        on_closed(arg);
}

void cake__uv_stream_close(cake_stream_t *stream)
{
    cake__uv_check_on_loop(stream->env);
    if (stream->is_closing)
        return;
    stream->is_closing = true;
    cake__list_remove(&stream->connect_failed.node);
    cake__list_remove(&stream->written.node);
    if (stream->secure == NULL || !cake__secure_lingers(stream))
        cake__uv_close_now(stream);
}

void cake__uv_close_now(cake_stream_t *stream)
{
    if (!uv_is_closing((uv_handle_t *)&stream->tcp))
        uv_close((uv_handle_t *)&stream->tcp, on_stream_closed);
}

void cake__uv_stream_peer(cake_stream_t *stream, cake_addr_t *out)
{
    *out = stream->peer;
}

static int connect_err(int status)
{
    return status == UV_ETIMEDOUT ? CAKE_ETIMEDOUT : CAKE_ECONNECTION;
}

static void on_connected(uv_connect_t *request, int status)
{
    cake_stream_t *stream = request->data;
    if (stream->is_closing)
        return;
    stream->is_connected = status == 0;
    if (status == 0 && stream->secure != NULL) {
        cake__uv_start_reading(stream);
        cake__secure_start(stream);
        return;
    }
    stream->handlers.on_connect(stream->arg, status == 0 ? 0 : connect_err(status));
    cake__uv_start_reading(stream);
}

int cake__uv_connect(cake_env_t *base, const cake_addr_t *addr, const cake_stream_handlers_t *handlers, void *arg,
                     cake_stream_t **out)
{
    cake__uvenv_t *env = cake__uvenv(base);
    struct sockaddr_storage to;
    cake__uv_check_on_loop(env);
    if ((addr->family != 4 && addr->family != 6) || addr->port == 0)
        return CAKE_EINVAL;
    cake_stream_t *stream = new_stream(env);
    if (stream == NULL)
        return CAKE_ENOMEM;
    stream->handlers = *handlers;
    stream->arg = arg;
    stream->is_started = true;
    stream->peer = *addr;
    stream->connect.data = stream;
    cake__uv_from_addr(addr, &to);
    int err = uv_tcp_connect(&stream->connect, &stream->tcp, (const struct sockaddr *)&to, on_connected);
    if (err != 0) {
        stream->connect_err = connect_err(err);
        cake__uv_later(env, &stream->connect_failed);
    }
    *out = stream;
    return 0;
}

void cake__uv_stream_start(cake_stream_t *stream, const cake_stream_handlers_t *handlers, void *arg)
{
    cake__uv_check_on_loop(stream->env);
    CAKE_ASSERT(!stream->is_started && !stream->is_closing);
    stream->handlers = *handlers;
    stream->arg = arg;
    stream->is_started = true;
    cake__uv_start_reading(stream);
}

/* ---- listeners ---- */

static void end_listener(cake_listener_t *listener)
{
    if (!listener->is_closed || listener->is_refusing)
        return;
    cake__uvenv_t *env = listener->env;
    cake_event_fn closed = listener->closed;
    void *arg = listener->closed_arg;
    cake__free(&env->base.alloc, listener);
    env->open_count--;
    if (closed != NULL)
        closed(arg);
}

static void refuse_one(cake_listener_t *listener);

static void on_refused_closed(uv_handle_t *handle)
{
    cake_listener_t *listener = handle->data;
    listener->is_refusing = false;
    if (listener->is_starved && !listener->is_closing) {
        listener->is_starved = false;
        refuse_one(listener);
    }
    end_listener(listener);
}

/* libuv takes no further connection before this one is accepted: so it is, and closed at once. */
static void refuse_one(cake_listener_t *listener)
{
    if (listener->is_refusing) {
        listener->is_starved = true;
        return;
    }
    uv_tcp_init(&listener->env->loop, &listener->refused);
    listener->refused.data = listener;
    listener->is_refusing = true;
    uv_accept((uv_stream_t *)&listener->tcp, (uv_stream_t *)&listener->refused);
    uv_close((uv_handle_t *)&listener->refused, on_refused_closed);
}

static void on_connection(uv_stream_t *handle, int status)
{
    cake_listener_t *listener = handle->data;
    cake__uvenv_t *env = listener->env;
    struct sockaddr_storage peer;
    int peer_size = sizeof peer;
    if (status != 0) {
        cake__log(&env->base.log, CAKE_LOG_WARN, "a connection could not be accepted: %s", uv_strerror(status));
        return;
    }
    cake_stream_t *stream = new_stream(env);
    if (stream == NULL) {
        refuse_one(listener);
        return;
    }
    if (uv_accept(handle, (uv_stream_t *)&stream->tcp) != 0) {
        cake__uv_stream_close(stream);
        return;
    }
    if (uv_tcp_getpeername(&stream->tcp, (struct sockaddr *)&peer, &peer_size) == 0)
        cake__uv_to_addr((const struct sockaddr *)&peer, &stream->peer);
    stream->is_connected = true;
    listener->accept(listener->arg, stream);
}

static void on_listener_closed(uv_handle_t *handle)
{
    cake_listener_t *listener = handle->data;
    listener->is_closed = true;
    end_listener(listener);
}

void cake__uv_listener_close(cake_listener_t *listener, cake_event_fn closed, void *arg)
{
    cake__uv_check_on_loop(listener->env);
    CAKE_ASSERT(!listener->is_closing);
    listener->is_closing = true;
    listener->closed = closed;
    listener->closed_arg = arg;
    uv_close((uv_handle_t *)&listener->tcp, on_listener_closed);
}

void cake__uv_listener_addr(cake_listener_t *listener, cake_addr_t *out)
{
    *out = listener->addr;
}

static int bind_and_listen(cake_listener_t *listener, const cake_addr_t *addr)
{
    struct sockaddr_storage local;
    int size = sizeof local;
    cake__uv_from_addr(addr, &local);
    int err = uv_tcp_bind(&listener->tcp, (const struct sockaddr *)&local, 0);
    if (err == 0)
        err = uv_listen((uv_stream_t *)&listener->tcp, LISTEN_BACKLOG, on_connection);
    if (err == 0)
        err = uv_tcp_getsockname(&listener->tcp, (struct sockaddr *)&local, &size);
    if (err == 0)
        cake__uv_to_addr((const struct sockaddr *)&local, &listener->addr);
    return cake__uv_bound(listener->env, addr, err);
}

int cake__uv_listen(cake_env_t *base, const cake_addr_t *addr, cake_accept_fn accept, void *arg, cake_listener_t **out)
{
    cake__uvenv_t *env = cake__uvenv(base);
    cake__uv_check_on_loop(env);
    if (addr->family != 4 && addr->family != 6)
        return CAKE_EINVAL;
    cake_listener_t *listener = cake__calloc(&base->alloc, 1, sizeof *listener);
    if (listener == NULL)
        return CAKE_ENOMEM;
    listener->env = env;
    listener->accept = accept;
    listener->arg = arg;
    uv_tcp_init(&env->loop, &listener->tcp);
    listener->tcp.data = listener;
    env->open_count++;
    int err = bind_and_listen(listener, addr);
    if (err != 0) {
        cake__uv_listener_close(listener, NULL, NULL);
        return err;
    }
    *out = listener;
    return 0;
}
