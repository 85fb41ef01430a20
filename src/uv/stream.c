/* Listeners, connects and streams over TCP. */
#include "uv/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LISTEN_BACKLOG 1024
#define ACCEPTS_MAX    64u /* in one turn */
#define READS_MAX      32u /* of one stream in one turn */
#define WATCHED        (EPOLLIN | EPOLLRDHUP | EPOLLET)

struct cake_listener {
    cake__watch_t watch;
    cake__uvenv_t *env;
    cake_accept_fn accept;
    void *arg;
    cake_addr_t addr;
    bool is_closing;
    cake__later_t ended;
    cake_event_fn closed;
    void *closed_arg;
};

/* ---- bytes in ---- */

static bool wants_bytes(const cake_stream_t *stream)
{
    if (stream->watch.file < 0 || !stream->is_started || !stream->is_connected)
        return false;
    if (stream->secure != NULL)
        return cake__secure_wants_bytes(stream);
    return !stream->is_paused && !stream->is_read_over && !stream->is_closing;
}

/* As on_read's; CAKE_EBUSY: there is nothing. A read that came short has taken all, unless the end is behind it. */
static intptr_t receive(cake_stream_t *stream, void *data, size_t size)
{
    ssize_t got;
    do {
        got = recv(stream->watch.file, data, size, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    stream->is_readable = got > 0 && ((size_t)got == size || stream->has_hung_up);
    if (got >= 0)
        return got;
    return errno == EAGAIN || errno == EWOULDBLOCK ? CAKE_EBUSY : cake__uv_errno();
}

static void read_secure(cake_stream_t *stream)
{
    cake__tls_pool_t *pool = &stream->env->tls_pool;
    uint8_t *buffer = cake__tls_buffer(pool);
    intptr_t got = buffer != NULL ? receive(stream, buffer, CAKE__TLS_INPUT_BYTES) : CAKE_ENOMEM;
    if (got == CAKE_EBUSY)
        cake__tls_give(pool, buffer);
    else
        cake__secure_got(stream, buffer, got);
}

static void read_plain(cake_stream_t *stream)
{
    void *data = NULL;
    size_t size = 0;
    stream->handlers.on_buffer(stream->arg, &data, &size);
    if (stream->is_closing || size == 0) {
        stream->is_paused = true;
        return;
    }
    intptr_t got = receive(stream, data, size);
    if (got == CAKE_EBUSY)
        return;
    stream->is_read_over = got <= 0;
    stream->handlers.on_read(stream->arg, got > 0 ? data : NULL, got);
}

static void read_some(cake_stream_t *stream)
{
    for (unsigned i = 0; i < READS_MAX && stream->is_readable && wants_bytes(stream); i++) {
        if (stream->secure != NULL)
            read_secure(stream);
        else
            read_plain(stream);
    }
    cake__list_remove(&stream->read_on.node);
    cake__uv_read_on(stream);
}

static void read_on_later(cake__later_t *later)
{
    read_some(CAKE_CONTAINER_OF(later, cake_stream_t, read_on));
}

void cake__uv_read_on(cake_stream_t *stream)
{
    if (stream->is_readable && wants_bytes(stream) && !cake__list_is_linked(&stream->read_on.node))
        cake__uv_next_turn(stream->env, &stream->read_on);
}

void cake__uv_stream_pause(cake_stream_t *stream)
{
    cake__uv_check_on_loop(stream->env);
    stream->is_paused = true;
}

void cake__uv_stream_resume(cake_stream_t *stream)
{
    cake__uv_check_on_loop(stream->env);
    stream->is_paused = false;
    if (stream->secure != NULL && !stream->is_closing)
        cake__secure_deliver(stream);
    cake__uv_read_on(stream);
}

/* ---- bytes out: what the socket takes at once, then the rest as it has room ---- */

static intptr_t send_some(cake_stream_t *stream, struct iovec *parts, size_t count)
{
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    ssize_t sent;
    do {
        sent = count == 1 ? send(stream->watch.file, parts->iov_base, parts->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
                          : sendmsg(stream->watch.file, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return sent;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? 0 : cake__uv_errno();
}

/* How many of the parts were sent whole; the next one is shortened by what was sent of it. */
static size_t parts_sent(struct iovec *parts, size_t count, size_t sent)
{
    size_t i = 0;
    while (i < count && sent >= parts[i].iov_len)
        sent -= parts[i++].iov_len;
    if (i < count) {
        parts[i].iov_base = (uint8_t *)parts[i].iov_base + sent;
        parts[i].iov_len -= sent;
    }
    return i;
}

int cake__uv_send(cake_stream_t *stream, struct iovec *parts, size_t count, cake__sent_fn sent_fn)
{
    CAKE_ASSERT(stream->rest == NULL);
    intptr_t sent = count > 0 ? send_some(stream, parts, count) : 0;
    if (sent < 0)
        return (int)sent;
    size_t whole = parts_sent(parts, count, (size_t)sent);
    if (whole == count)
        return 1;
    stream->rest = cake__malloc(&stream->env->base.alloc, (count - whole) * sizeof *parts);
    if (stream->rest == NULL)
        return CAKE_ENOMEM;
    memcpy(stream->rest, parts + whole, (count - whole) * sizeof *parts);
    stream->rest_at = 0;
    stream->rest_count = count - whole;
    stream->rest_sent = sent_fn;
    cake__uv_watch_for(stream->env, &stream->watch, WATCHED | EPOLLOUT);
    return 0;
}

static void drop_rest(cake_stream_t *stream)
{
    cake__free(&stream->env->base.alloc, stream->rest);
    stream->rest = NULL;
}

static void send_rest(cake_stream_t *stream)
{
    struct iovec *parts = stream->rest + stream->rest_at;
    size_t count = stream->rest_count - stream->rest_at;
    intptr_t sent = send_some(stream, parts, count);
    if (sent >= 0)
        stream->rest_at += parts_sent(parts, count, (size_t)sent);
    if (sent >= 0 && stream->rest_at < stream->rest_count)
        return;
    drop_rest(stream);
    cake__uv_watch_for(stream->env, &stream->watch, WATCHED);
    if (stream->shuts_after_rest)
        cake__uv_shut(stream);
    stream->rest_sent(stream, sent < 0 ? (int)sent : 0);
}

static void write_ended(cake_stream_t *stream, int err)
{
    stream->is_writing = false;
    stream->handlers.on_written(stream->arg, err);
}

static void on_written_later(cake__later_t *later)
{
    cake_stream_t *stream = CAKE_CONTAINER_OF(later, cake_stream_t, written);
    write_ended(stream, stream->write_err);
}

int cake__uv_stream_write(cake_stream_t *stream, const cake_slice_t *iov, size_t count)
{
    struct iovec parts[CAKE_STREAM_IOV_MAX];
    size_t used = 0;
    cake__uv_check_on_loop(stream->env);
    if (stream->is_closing)
        return CAKE_ECLOSED;
    if (count > CAKE_STREAM_IOV_MAX || stream->is_shut)
        return CAKE_EINVAL;
    if (stream->is_writing || !stream->is_connected)
        return CAKE_EBUSY;
    for (size_t i = 0; i < count; i++) {
        if (iov[i].len > 0)
            parts[used++] = (struct iovec){(void *)(uintptr_t)iov[i].data, iov[i].len};
    }
    stream->is_writing = true;
    if (stream->secure != NULL) {
        cake__secure_write(stream, parts, used);
        return 0;
    }
    int sent = cake__uv_send(stream, parts, used, write_ended);
    if (sent == 0)
        return 0;
    stream->write_err = sent < 0 ? sent : 0;
    cake__uv_later(stream->env, &stream->written);
    return 0;
}

/* A stream that broke says so to the reader and the next write. */
void cake__uv_shut(cake_stream_t *stream)
{
    stream->shuts_after_rest = stream->rest != NULL;
    if (stream->rest == NULL)
        (void)shutdown(stream->watch.file, SHUT_WR);
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
        cake__uv_shut(stream);
}

/* ---- closing ---- */

static void free_stream(cake_stream_t *stream)
{
    cake__uvenv_t *env = stream->env;
    cake__secure_free(stream);
    drop_rest(stream);
    cake__free(&env->base.alloc, stream);
    env->open_count--;
}

static void on_closed_later(cake__later_t *later)
{
    cake_stream_t *stream = CAKE_CONTAINER_OF(later, cake_stream_t, closed);
    void (*on_closed)(void *) = stream->handlers.on_closed;
    void *arg = stream->arg;
    free_stream(stream);
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
    if (cake__list_is_linked(&stream->closed.node))
        return;
    cake__list_remove(&stream->read_on.node);
    if (stream->watch.file >= 0)
        cake__uv_unwatch(stream->env, &stream->watch);
    cake__uv_later(stream->env, &stream->closed);
}

/* ---- making ---- */

static int connect_err(int err)
{
    return err == CAKE_ETIMEDOUT ? err : CAKE_ECONNECTION;
}

static void on_connect_failed_later(cake__later_t *later)
{
    cake_stream_t *stream = CAKE_CONTAINER_OF(later, cake_stream_t, connect_failed);
    stream->handlers.on_connect(stream->arg, stream->connect_err);
}

static void end_connect(cake_stream_t *stream)
{
    int why = 0;
    socklen_t size = sizeof why;
    (void)getsockopt(stream->watch.file, SOL_SOCKET, SO_ERROR, &why, &size);
    stream->is_connected = why == 0;
    if (why == 0)
        cake__uv_watch_for(stream->env, &stream->watch, WATCHED);
    else
        cake__uv_unwatch(stream->env, &stream->watch);
    if (why == 0 && stream->secure != NULL)
        cake__secure_start(stream);
    else
        stream->handlers.on_connect(stream->arg, why == 0 ? 0 : connect_err(cake__uv_err(uv_translate_sys_error(why))));
}

static void on_stream_events(cake__watch_t *watch, uint32_t events)
{
    cake_stream_t *stream = CAKE_CONTAINER_OF(watch, cake_stream_t, watch);
    bool has_ended = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    if (!stream->is_connected) {
        if ((events & EPOLLOUT) != 0 || has_ended)
            end_connect(stream);
        return;
    }
    stream->has_hung_up |= has_ended;
    stream->is_readable |= has_ended || (events & EPOLLIN) != 0;
    if (stream->rest != NULL && (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0)
        send_rest(stream);
    read_some(stream);
}

static cake_stream_t *new_stream(cake__uvenv_t *env)
{
    cake_stream_t *stream = cake__calloc(&env->base.alloc, 1, sizeof *stream);
    if (stream == NULL)
        return NULL;
    stream->env = env;
    stream->watch = (cake__watch_t){-1, on_stream_events};
    cake__uv_later_init(&stream->read_on, read_on_later);
    cake__uv_later_init(&stream->connect_failed, on_connect_failed_later);
    cake__uv_later_init(&stream->written, on_written_later);
    cake__uv_later_init(&stream->closed, on_closed_later);
    env->open_count++;
    return stream;
}

/* The socket becomes the stream's, or is closed. */
static int use_socket(cake_stream_t *stream, int file, uint32_t events)
{
    const int one = 1;
    (void)setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    stream->watch.file = file;
    int err = cake__uv_watch(stream->env, &stream->watch, events);
    if (err == 0)
        return 0;
    close(file);
    stream->watch.file = -1;
    return err;
}

void cake__uv_stream_peer(cake_stream_t *stream, cake_addr_t *out)
{
    *out = stream->peer;
}

static int start_connect(cake_stream_t *stream)
{
    struct sockaddr_storage to;
    socklen_t size = cake__uv_from_addr(&stream->peer, &to);
    int file = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (file < 0)
        return cake__uv_errno();
    if (connect(file, (const struct sockaddr *)&to, size) != 0 && errno != EINPROGRESS && errno != EINTR) {
        int err = cake__uv_errno();
        close(file);
        return err;
    }
    return use_socket(stream, file, WATCHED | EPOLLOUT);
}

int cake__uv_connect(cake_env_t *base, const cake_addr_t *addr, const cake_stream_handlers_t *handlers, void *arg,
                     cake_stream_t **out)
{
    cake__uvenv_t *env = cake__uvenv(base);
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
    int err = start_connect(stream);
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
    cake__uv_read_on(stream);
}

/* ---- listeners ---- */

/* Without a descriptor to spare, connections would wait, and wake the loop, for ever. */
static void refuse_one(cake_listener_t *listener)
{
    cake__uvenv_t *env = listener->env;
    close(env->spare_file);
    int file = accept4(listener->watch.file, NULL, NULL, SOCK_CLOEXEC);
    if (file >= 0)
        close(file);
    env->spare_file = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* False: no more for now. */
static bool accept_failed(cake_listener_t *listener)
{
    int why = errno;
    if (why == EAGAIN || why == EWOULDBLOCK)
        return false;
    if (why == EINTR || why == ECONNABORTED)
        return true;
    if (why == EMFILE || why == ENFILE)
        refuse_one(listener);
    cake__log(&listener->env->base.log, CAKE_LOG_WARN, "a connection could not be accepted: %s",
              uv_strerror(uv_translate_sys_error(why)));
    return false;
}

static bool accept_one(cake_listener_t *listener)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    int file = accept4(listener->watch.file, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (file < 0)
        return accept_failed(listener);
    cake_stream_t *stream = new_stream(listener->env);
    if (stream == NULL) {
        close(file);
        return true;
    }
    if (use_socket(stream, file, WATCHED) != 0) {
        free_stream(stream);
        return true;
    }
    cake__uv_to_addr((const struct sockaddr *)&peer, &stream->peer);
    stream->is_connected = true;
    listener->accept(listener->arg, stream);
    return true;
}

static void on_connections(cake__watch_t *watch, uint32_t events)
{
    cake_listener_t *listener = CAKE_CONTAINER_OF(watch, cake_listener_t, watch);
    (void)events;
    for (unsigned i = 0; i < ACCEPTS_MAX && !listener->is_closing && accept_one(listener); i++)
        continue;
}

static void on_listener_closed(cake__later_t *later)
{
    cake_listener_t *listener = CAKE_CONTAINER_OF(later, cake_listener_t, ended);
    cake__uvenv_t *env = listener->env;
    cake_event_fn closed = listener->closed;
    void *arg = listener->closed_arg;
    cake__free(&env->base.alloc, listener);
    env->open_count--;
    if (closed != NULL)
        closed(arg);
}

void cake__uv_listener_close(cake_listener_t *listener, cake_event_fn closed, void *arg)
{
    cake__uv_check_on_loop(listener->env);
    CAKE_ASSERT(!listener->is_closing);
    listener->is_closing = true;
    listener->closed = closed;
    listener->closed_arg = arg;
    cake__uv_unwatch(listener->env, &listener->watch);
    cake__uv_later(listener->env, &listener->ended);
}

void cake__uv_listener_addr(cake_listener_t *listener, cake_addr_t *out)
{
    *out = listener->addr;
}

static int bind_and_listen(cake_listener_t *listener, const cake_addr_t *addr)
{
    struct sockaddr_storage local;
    const int one = 1;
    socklen_t size = cake__uv_from_addr(addr, &local);
    int file = socket(local.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (file < 0)
        return cake__uv_errno();
    listener->watch = (cake__watch_t){file, on_connections};
    bool is_done = setsockopt(file, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
                   bind(file, (const struct sockaddr *)&local, size) == 0 && listen(file, LISTEN_BACKLOG) == 0;
    size = sizeof local;
    is_done = is_done && getsockname(file, (struct sockaddr *)&local, &size) == 0;
    int err = is_done ? cake__uv_watch(listener->env, &listener->watch, EPOLLIN) : cake__uv_errno();
    if (err != 0)
        close(file);
    else
        cake__uv_to_addr((const struct sockaddr *)&local, &listener->addr);
    return err;
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
    cake__uv_later_init(&listener->ended, on_listener_closed);
    int err = bind_and_listen(listener, addr);
    if (err != 0) {
        cake__free(&base->alloc, listener);
        return err;
    }
    env->open_count++;
    *out = listener;
    return 0;
}
