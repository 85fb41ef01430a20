/* rpc_frames.h: what measuring takes, and length-prefixed frames echoed by as little as there can be: over epoll,
 * and over libuv as our environment uses it. One thread on each side; all requests look the same. */
#ifndef CAKE_BENCH_RPC_FRAMES_H
#define CAKE_BENCH_RPC_FRAMES_H

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

typedef struct {
    size_t bytes, in_flight, batch; /* batch: messages in one read of the raw echo; 0: all */
} cell_t;

typedef struct {
    double per_s, client_us, server_us, p50_us; /* p50: of what is measured with one call at a time */
} figures_t;

#define SAMPLES_MAX 200000u

/* How long calls took that were made one after the other. */
typedef struct {
    uint64_t began_ns;
    size_t count;
    uint32_t ns[SAMPLES_MAX];
} samples_t;

static uint64_t now_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void must(bool is_fine, const char *what)
{
    if (is_fine)
        return;
    perror(what);
    exit(1);
}

/* The calling thread to the core of that side: 0 a client's, 1 a server's. All but one are taken away for one core. */
static void pin(int side)
{
    cpu_set_t all, one;
    must(sched_getaffinity(0, sizeof all, &all) == 0, "sched_getaffinity");
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++) {
        if (CPU_ISSET(i, &all) && (CPU_COUNT(&all) == 1 || side-- == 0))
            CPU_SET(i, &one);
    }
    must(sched_setaffinity(0, sizeof one, &one) == 0, "sched_setaffinity");
}

static void sample(samples_t *samples)
{
    uint64_t now = now_ns(CLOCK_MONOTONIC);
    if (samples->began_ns != 0 && samples->count < SAMPLES_MAX)
        samples->ns[samples->count++] = (uint32_t)(now - samples->began_ns);
    samples->began_ns = now;
}

static int compare_ns(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double p50_us(samples_t *samples)
{
    qsort(samples->ns, samples->count, sizeof samples->ns[0], compare_ns);
    return samples->count == 0 ? 0 : samples->ns[samples->count / 2] / 1e3;
}

#define CHUNK (256u << 10)

typedef struct {
    int socket, side;
    const cell_t *cell;
    uint64_t until_ns, calls, cpu_ns;
    samples_t *samples;
} raw_t;

static size_t frame_bytes(const raw_t *raw)
{
    return raw->cell->bytes + 4;
}

static size_t buffer_bytes(const raw_t *raw)
{
    return CHUNK > 2 * frame_bytes(raw) ? CHUNK : 2 * frame_bytes(raw);
}

static size_t read_size(const raw_t *raw, size_t len)
{
    size_t batch = raw->cell->batch * frame_bytes(raw), room = buffer_bytes(raw) - len;
    return raw->cell->batch == 0 || batch - len > room || batch <= len ? room : batch - len;
}

/* Written once, so that they are no pages of zeroes that the kernel has in its cache. */
static uint8_t *make_requests(const raw_t *raw)
{
    size_t total = frame_bytes(raw) * raw->cell->in_flight;
    return memset(malloc(total), 1, total);
}

static void count_replies(raw_t *raw, size_t count)
{
    raw->calls += count;
    if (raw->cell->in_flight == 1 && count == 1)
        sample(raw->samples);
}

/* ---- epoll ---- */

static void write_all(int socket, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t sent = send(socket, data, len, MSG_NOSIGNAL);
        if (sent <= 0)
            return; /* the client has ended */
        data += sent;
        len -= (size_t)sent;
    }
}

static int watch(int socket)
{
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    must(epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event) == 0, "epoll");
    return epoll;
}

static void *epoll_server(void *arg)
{
    raw_t *raw = arg;
    size_t frame = frame_bytes(raw), len = 0;
    uint8_t *buffer = malloc(buffer_bytes(raw));
    int epoll = watch(raw->socket);
    pin(raw->side);
    for (;;) {
        struct epoll_event event;
        must(epoll_wait(epoll, &event, 1, -1) == 1, "epoll_wait");
        ssize_t got = read(raw->socket, buffer + len, read_size(raw, len));
        if (got <= 0)
            break;
        len += (size_t)got;
        size_t whole = len / frame * frame;
        write_all(raw->socket, buffer, whole);
        memmove(buffer, buffer + whole, len - whole);
        len -= whole;
    }
    raw->cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID);
    close(raw->socket);
    close(epoll);
    free(buffer);
    return NULL;
}

/* Sends what the socket takes of pending bytes. */
static size_t send_some(int socket, const uint8_t *requests, size_t size, size_t pending)
{
    while (pending > 0) {
        ssize_t sent = send(socket, requests, pending < size ? pending : size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            break;
        must(sent > 0, "send");
        pending -= (size_t)sent;
    }
    return pending;
}

static void *epoll_client(void *arg)
{
    raw_t *raw = arg;
    size_t frame = frame_bytes(raw), total = frame * raw->cell->in_flight, len = 0;
    uint8_t *requests = make_requests(raw), *buffer = malloc(buffer_bytes(raw));
    int epoll = watch(raw->socket);
    pin(raw->side);
    size_t pending = send_some(raw->socket, requests, total, total);
    while (now_ns(CLOCK_MONOTONIC) < raw->until_ns) {
        struct epoll_event event = {.events = EPOLLIN | (pending > 0 ? EPOLLOUT : 0)};
        if (total > CHUNK)
            must(epoll_ctl(epoll, EPOLL_CTL_MOD, raw->socket, &event) == 0, "epoll_ctl");
        must(epoll_wait(epoll, &event, 1, -1) == 1, "epoll_wait");
        ssize_t got = recv(raw->socket, buffer + len, read_size(raw, len), MSG_DONTWAIT);
        must(got > 0 || errno == EAGAIN, "recv");
        len += got > 0 ? (size_t)got : 0;
        count_replies(raw, len / frame);
        pending = send_some(raw->socket, requests, total, pending + len / frame * frame);
        len %= frame;
    }
    raw->cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID);
    /* with replies unread: the server's write fails, where a shutdown would leave it waiting for room */
    close(raw->socket);
    close(epoll);
    free(requests);
    free(buffer);
    return NULL;
}

/* ---- libuv ---- */

typedef struct {
    uv_loop_t loop;
    uv_tcp_t tcp;
    uv_write_t write;
    raw_t *raw;
    bool is_client;
    uint8_t *buffer, *requests;
    size_t len, whole; /* in the buffer; of a server: in whole frames, that are to be sent back */
    size_t pending;    /* to be sent */
    size_t writing;    /* of it, by libuv when the socket has room */
} uvside_t;

static void uv_push(uvside_t *side);

static void uv_give(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    uvside_t *side = handle->data;
    (void)suggested;
    *buf = uv_buf_init((char *)side->buffer + side->len, (unsigned)read_size(side->raw, side->len));
}

static void uv_got(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf)
{
    uvside_t *side = stream->data;
    size_t frame = frame_bytes(side->raw);
    (void)buf;
    if (got < 0 || (side->is_client && now_ns(CLOCK_MONOTONIC) >= side->raw->until_ns)) {
        uv_close((uv_handle_t *)stream, NULL);
        return;
    }
    side->len += (size_t)got;
    side->whole = side->len / frame * frame;
    side->pending += side->whole;
    if (side->is_client) {
        count_replies(side->raw, side->whole / frame);
        side->len -= side->whole;
    }
    if (side->writing == 0)
        uv_push(side);
}

static void uv_wrote(uv_write_t *write, int status)
{
    uvside_t *side = write->data;
    if (status != 0)
        return;
    side->pending -= side->writing;
    side->writing = 0;
    if (!side->is_client)
        uv_read_start((uv_stream_t *)&side->tcp, uv_give, uv_got);
    uv_push(side);
}

/* What the socket takes at once, then the rest by libuv. */
static void uv_push(uvside_t *side)
{
    size_t total = frame_bytes(side->raw) * side->raw->cell->in_flight;
    while (side->pending > 0) {
        size_t step = side->is_client && side->pending > total ? total : side->pending;
        uint8_t *from = side->is_client ? side->requests : side->buffer + side->whole - side->pending;
        uv_buf_t buf = uv_buf_init((char *)from, (unsigned)step);
        int sent = uv_try_write((uv_stream_t *)&side->tcp, &buf, 1);
        if (sent < 0 && sent != UV_EAGAIN)
            return; /* the other side has ended */
        sent = sent < 0 ? 0 : sent;
        side->pending -= (size_t)sent;
        if ((size_t)sent == step)
            continue;
        buf = uv_buf_init((char *)from + sent, (unsigned)(step - (size_t)sent));
        side->writing = buf.len;
        if (!side->is_client)
            uv_read_stop((uv_stream_t *)&side->tcp);
        uv_write(&side->write, (uv_stream_t *)&side->tcp, &buf, 1, uv_wrote);
        return;
    }
    if (!side->is_client) {
        memmove(side->buffer, side->buffer + side->whole, side->len - side->whole);
        side->len -= side->whole;
    }
}

static void run_uv(raw_t *raw, bool is_client)
{
    uvside_t side = {.raw = raw, .is_client = is_client, .buffer = malloc(buffer_bytes(raw))};
    pin(raw->side);
    signal(SIGPIPE, SIG_IGN); /* a write after the other side has ended */
    must(uv_loop_init(&side.loop) == 0 && uv_tcp_init(&side.loop, &side.tcp) == 0, "uv_loop_init");
    side.tcp.data = side.write.data = &side;
    must(uv_tcp_open(&side.tcp, raw->socket) == 0, "uv_tcp_open");
    uv_read_start((uv_stream_t *)&side.tcp, uv_give, uv_got);
    if (is_client) {
        side.requests = make_requests(raw);
        side.pending = frame_bytes(raw) * raw->cell->in_flight;
        uv_push(&side);
    }
    uv_run(&side.loop, UV_RUN_DEFAULT);
    raw->cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID);
    uv_loop_close(&side.loop);
    free(side.requests);
    free(side.buffer);
}

static void *libuv_server(void *arg)
{
    run_uv(arg, false);
    return NULL;
}

static void *libuv_client(void *arg)
{
    run_uv(arg, true);
    return NULL;
}

/* ---- both ---- */

static void connect_pair(int out[2])
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof addr;
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    must(bind(listener, (struct sockaddr *)&addr, size) == 0 && listen(listener, 1) == 0, "listen");
    getsockname(listener, (struct sockaddr *)&addr, &size);
    out[0] = socket(AF_INET, SOCK_STREAM, 0);
    must(connect(out[0], (struct sockaddr *)&addr, size) == 0, "connect");
    out[1] = accept(listener, NULL, NULL);
    must(out[1] >= 0, "accept");
    for (int i = 0; i < 2; i++)
        setsockopt(out[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    close(listener);
}

typedef void *(*side_fn)(void *raw);

static figures_t run_raw(const cell_t *cell, double seconds, samples_t *samples, side_fn run_server, side_fn run_client)
{
    int sockets[2];
    pthread_t threads[2];
    connect_pair(sockets);
    uint64_t start_ns = now_ns(CLOCK_MONOTONIC);
    raw_t client = {.socket = sockets[0], .cell = cell, .until_ns = start_ns + (uint64_t)(seconds * 1e9)};
    raw_t server = {.socket = sockets[1], .side = 1, .cell = cell};
    samples->began_ns = samples->count = 0;
    client.samples = samples;
    int err = pthread_create(&threads[0], NULL, run_server, &server);
    must(err == 0, "pthread_create");
    err = pthread_create(&threads[1], NULL, run_client, &client);
    must(err == 0, "pthread_create");
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    double took = (double)(now_ns(CLOCK_MONOTONIC) - start_ns) / 1e9, calls = (double)client.calls;
    return (figures_t){calls / took, (double)client.cpu_ns / 1e3 / calls, (double)server.cpu_ns / 1e3 / calls,
                       p50_us(samples)};
}

#endif
