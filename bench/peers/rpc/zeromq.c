/* Echo over ZeroMQ, dealer to router, for bench-rpc (peer.h). */
#include <string.h>
#include <zmq.h>

#include "peer.h"

static void serve(int fd)
{
    void *context = zmq_ctx_new(), *router = zmq_socket(context, ZMQ_ROUTER);
    char endpoint[64] = "";
    size_t size = sizeof endpoint;
    int none = 0;
    zmq_setsockopt(router, ZMQ_SNDHWM, &none, sizeof none);
    zmq_setsockopt(router, ZMQ_RCVHWM, &none, sizeof none);
    if (zmq_bind(router, "tcp://127.0.0.1:*") != 0 || zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &size) != 0)
        _exit(1);
    peer_tell_port(fd, atoi(strrchr(endpoint, ':') + 1));
    for (;;) {
        zmq_msg_t id, body;
        zmq_msg_init(&id);
        zmq_msg_init(&body);
        if (zmq_msg_recv(&id, router, 0) < 0 || zmq_msg_recv(&body, router, 0) < 0 ||
            zmq_msg_send(&id, router, ZMQ_SNDMORE) < 0 || zmq_msg_send(&body, router, 0) < 0)
            _exit(1);
    }
}

static void request(void *dealer, const peer_t *peer, const void *body)
{
    if (zmq_send(dealer, body, peer->bytes, 0) < 0)
        exit(1);
}

static void await(void *dealer)
{
    zmq_msg_t reply;
    zmq_msg_init(&reply);
    if (zmq_msg_recv(&reply, dealer, 0) < 0)
        exit(1);
    zmq_msg_close(&reply);
}

int main(int argc, char **argv)
{
    peer_t peer;
    char address[64];
    int none = 0;
    if (peer_start(&peer, argc, argv, serve) != 0)
        return 1;
    void *context = zmq_ctx_new(), *dealer = zmq_socket(context, ZMQ_DEALER), *body = calloc(1, peer.bytes);
    zmq_setsockopt(dealer, ZMQ_SNDHWM, &none, sizeof none);
    zmq_setsockopt(dealer, ZMQ_RCVHWM, &none, sizeof none);
    zmq_setsockopt(dealer, ZMQ_LINGER, &none, sizeof none);
    snprintf(address, sizeof address, "tcp://127.0.0.1:%d", peer.port);
    if (zmq_connect(dealer, address) != 0)
        return 1;
    request(dealer, &peer, body);
    await(dealer);
    uint64_t calls = 0, until_ns = peer_begin(&peer);
    for (size_t i = 0; i < peer.in_flight; i++)
        request(dealer, &peer, body);
    while ((calls & 15) != 0 || peer_ns(CLOCK_MONOTONIC) < until_ns) {
        await(dealer);
        calls++;
        request(dealer, &peer, body);
    }
    peer_end(&peer, calls);
    free(body);
    zmq_close(dealer);
    zmq_ctx_term(context);
    return 0;
}
