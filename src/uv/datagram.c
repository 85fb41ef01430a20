/* Datagrams over UDP, and names. */
#include <netdb.h>

#include "env/env.h"
#include "uv/loop.h"

#define RECEIVE_MAX   65536u /* bytes; no datagram is larger */
#define ADDRESSES_MAX 16u    /* of one name; more are left out */

struct cake_datagram {
    uv_udp_t udp; /* first */
    cake__uvenv_t *env;
    cake_addr_t addr;
    cake_datagram_fn fn;
    void *arg;
    bool is_closing;
    cake_event_fn closed;
    void *closed_arg;
};

struct cake_resolve {
    uv_getaddrinfo_t request;
    cake__later_t later; /* for what needs no asking */
    cake__uvenv_t *env;
    cake_resolve_fn fn;
    void *arg;
    cake_addr_t addr;
    bool is_canceled;
};

/* ---- datagrams ---- */

static void give_buffer(uv_handle_t *handle, size_t suggested_size, uv_buf_t *buf)
{
    cake_datagram_t *socket = handle->data;
    (void)suggested_size;
    *buf = uv_buf_init((char *)socket->env->datagram_buffer, RECEIVE_MAX);
}

static void on_received(uv_udp_t *handle, ssize_t count, const uv_buf_t *buf, const struct sockaddr *from,
                        unsigned flags)
{
    cake_datagram_t *socket = handle->data;
    cake_addr_t addr;
    bool is_datagram = count >= 0 && from != NULL && (flags & UV_UDP_PARTIAL) == 0;
    if (!is_datagram || socket->is_closing)
        return; /* errors are of datagrams sent before: those are lost, as any may be */
    cake__uv_to_addr(from, &addr);
    socket->fn(socket->arg, &addr, buf->base, (size_t)count);
}

static int bind_and_receive(cake_datagram_t *socket, const cake_addr_t *addr)
{
    struct sockaddr_storage local;
    int size = sizeof local;
    cake__uv_from_addr(addr, &local);
    int err = uv_udp_bind(&socket->udp, (const struct sockaddr *)&local, 0);
    if (err == 0)
        err = uv_udp_recv_start(&socket->udp, give_buffer, on_received);
    if (err == 0)
        err = uv_udp_getsockname(&socket->udp, (struct sockaddr *)&local, &size);
    if (err == 0)
        cake__uv_to_addr((const struct sockaddr *)&local, &socket->addr);
    return cake__uv_bound(socket->env, addr, err);
}

int cake__uv_datagram_open(cake_env_t *base, const cake_addr_t *addr, cake_datagram_fn fn, void *arg,
                           cake_datagram_t **out)
{
    cake__uvenv_t *env = cake__uvenv(base);
    cake__uv_check_on_loop(env);
    if (addr->family != 4 && addr->family != 6)
        return CAKE_EINVAL;
    if (env->datagram_buffer == NULL)
        env->datagram_buffer = cake__malloc(&base->alloc, RECEIVE_MAX);
    cake_datagram_t *socket = cake__calloc(&base->alloc, 1, sizeof *socket);
    if (socket == NULL || env->datagram_buffer == NULL) {
        cake__free(&base->alloc, socket);
        return CAKE_ENOMEM;
    }
    socket->env = env;
    socket->fn = fn;
    socket->arg = arg;
    uv_udp_init(&env->loop, &socket->udp);
    socket->udp.data = socket;
    env->open_count++;
    int err = bind_and_receive(socket, addr);
    if (err != 0) {
        cake__uv_datagram_close(socket, NULL, NULL);
        return err;
    }
    *out = socket;
    return 0;
}

void cake__uv_datagram_addr(cake_datagram_t *socket, cake_addr_t *out)
{
    *out = socket->addr;
}

/* What the socket does not take at once is lost: a queue of our own would only be late. */
void cake__uv_datagram_send(cake_datagram_t *socket, const cake_addr_t *to, const void *data, size_t len)
{
    struct sockaddr_storage addr;
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
    cake__uv_check_on_loop(socket->env);
    if (socket->is_closing || len > CAKE_DATAGRAM_MAX)
        return;
    cake__uv_from_addr(to, &addr);
    (void)uv_udp_try_send(&socket->udp, &buf, 1, (const struct sockaddr *)&addr);
}

static void on_datagram_closed(uv_handle_t *handle)
{
    cake_datagram_t *socket = handle->data;
    cake__uvenv_t *env = socket->env;
    cake_event_fn closed = socket->closed;
    void *arg = socket->closed_arg;
    cake__free(&env->base.alloc, socket);
    env->open_count--;
    if (closed != NULL)
        closed(arg);
}

void cake__uv_datagram_close(cake_datagram_t *socket, cake_event_fn closed, void *arg)
{
    cake__uv_check_on_loop(socket->env);
    CAKE_ASSERT(!socket->is_closing);
    socket->is_closing = true;
    socket->closed = closed;
    socket->closed_arg = arg;
    uv_close((uv_handle_t *)&socket->udp, on_datagram_closed);
}

/* ---- names: getaddrinfo blocks, so libuv asks it on its own workers, which it shares among all loops ---- */

static void end_resolve(cake_resolve_t *resolve, int err, const cake_addr_t *addrs, size_t count)
{
    cake__uvenv_t *env = resolve->env;
    cake_resolve_fn fn = resolve->fn;
    void *arg = resolve->arg;
    cake__free(&env->base.alloc, resolve);
    env->open_count--;
    fn(arg, err, addrs, count);
}

static void on_known_later(cake__later_t *later)
{
    cake_resolve_t *resolve = CAKE_CONTAINER_OF(later, cake_resolve_t, later);
    cake_addr_t addr = resolve->addr;
    end_resolve(resolve, 0, &addr, 1);
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    cake_resolve_t *resolve = CAKE_CONTAINER_OF(request, cake_resolve_t, request);
    cake_addr_t addrs[ADDRESSES_MAX];
    size_t count = 0;
    for (const struct addrinfo *at = found; at != NULL && count < ADDRESSES_MAX; at = at->ai_next) {
        cake__uv_to_addr(at->ai_addr, &addrs[count]);
        addrs[count].port = resolve->addr.port;
        count += addrs[count].family != 0;
    }
    uv_freeaddrinfo(found);
    if (resolve->is_canceled) {
        cake__free(&resolve->env->base.alloc, resolve);
        return;
    }
    int err = status == UV_EAI_MEMORY || status == UV_ENOMEM ? CAKE_ENOMEM : count == 0 ? CAKE_ENOTFOUND : 0;
    end_resolve(resolve, err, addrs, err == 0 ? count : 0);
}

static int start_resolve(cake_resolve_t *resolve, const char *host_port)
{
    char host[CAKE__HOST_MAX + 1];
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    if (cake_addr_parse(host_port, &resolve->addr) == 0) {
        cake__uv_later(resolve->env, &resolve->later);
        return 0;
    }
    int err = cake__split_host_port(host_port, host, &resolve->addr.port);
    if (err != 0)
        return err;
    return cake__uv_err(uv_getaddrinfo(&resolve->env->loop, &resolve->request, on_resolved, host, NULL, &hints));
}

int cake__uv_resolve(cake_env_t *base, const char *host_port, cake_resolve_fn fn, void *arg, cake_resolve_t **out)
{
    cake__uvenv_t *env = cake__uvenv(base);
    cake__uv_check_on_loop(env);
    cake_resolve_t *resolve = cake__calloc(&base->alloc, 1, sizeof *resolve);
    if (resolve == NULL)
        return CAKE_ENOMEM;
    resolve->env = env;
    resolve->fn = fn;
    resolve->arg = arg;
    cake__uv_later_init(&resolve->later, on_known_later);
    int err = start_resolve(resolve, host_port);
    if (err != 0) {
        cake__free(&base->alloc, resolve);
        return err;
    }
    env->open_count++;
    *out = resolve;
    return 0;
}

void cake__uv_resolve_cancel(cake_resolve_t *resolve)
{
    cake__uvenv_t *env = resolve->env;
    cake__uv_check_on_loop(env);
    env->open_count--;
    if (cake__list_is_linked(&resolve->later.node)) {
        cake__list_remove(&resolve->later.node);
        cake__free(&env->base.alloc, resolve);
        return;
    }
    resolve->is_canceled = true;
    uv_cancel((uv_req_t *)&resolve->request); /* one that runs already ends by itself; closing waits for it */
}
