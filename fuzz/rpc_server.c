/* Bytes that a peer sends to a server. The first byte says how: bits 0-3 how large the pieces are, bit 4: without the
 * client's preface before them, bit 5: the peer reads nothing, bit 6: time passes between the pieces. */
#include "rpc/rpc.h"

#include "tiny_env.h"

#define PARKED_MAX 64

typedef struct {
    tiny_env_t tiny;
    cake_rpc_call_t *parked[PARKED_MAX];
    size_t parked_count;
    bool is_closed;
} target_t;

static void on_closed(void *arg)
{
    ((target_t *)arg)->is_closed = true;
}

static void echo(cake_rpc_call_t *call, void *arg)
{
    cake_slice_t body = cake_rpc_body(call);
    const char *tag = cake_rpc_header(call, "x-tag");
    if (tag != NULL)
        (void)cake_rpc_set_header(call, "x-tag", tag);
    (void)cake_rpc_reply(call, body.data, body.len);
}

static void park(cake_rpc_call_t *call, void *arg)
{
    target_t *target = arg;
    if (target->parked_count == PARKED_MAX)
        (void)cake_rpc_fail(call, CAKE_EBUSY, NULL);
    else
        target->parked[target->parked_count++] = call;
}

static void stream_data(void *arg, cake_slice_t data)
{
    cake_rpc_call_t *call = arg;
    (void)cake_rpc_write(call, data.data, data.len);
    cake_rpc_consume(call, data.len);
}

static void stream_end(void *arg, int err)
{
    if (err == 0)
        (void)cake_rpc_reply(arg, "end", 3);
    else
        (void)cake_rpc_fail(arg, err, "over");
}

static void stream(cake_rpc_call_t *call, void *arg)
{
    static const cake_stream_events_t events = {.on_data = stream_data, .on_end = stream_end};
    cake_rpc_stream(call, &events, call);
}

static void release_parked(target_t *target)
{
    while (target->parked_count > 0) {
        cake_rpc_call_t *call = target->parked[--target->parked_count];
        if (target->parked_count % 2 == 0)
            (void)cake_rpc_reply(call, "late", 4);
        else
            (void)cake_rpc_fail(call, CAKE_EIO, "late");
    }
}

static cake_rpc_server_t *start(target_t *target)
{
    static const cake_rpc_method_t methods[] = {
        {"e", echo, 0}, {"b", echo, CAKE_RPC_BLOCKING}, {"p", park, 0}, {"s", stream, CAKE_RPC_STREAM}};
    cake_rpc_server_config_t config = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_rpc_service_t service = {.name = "t", .methods = methods, .count = CAKE_COUNT_OF(methods), .arg = target};
    cake_rpc_server_t *server;
    config.env = &target->tiny.base;
    config.listen_addr = "127.0.0.1:1";
    config.cluster_id = "c";
    config.limits.max_body_bytes = 65536;
    config.limits.max_input_bytes = 200000;
    config.limits.max_output_bytes = 100000;
    config.limits.max_streams = 100;
    int err = cake_rpc_listen(&config, &server);
    CAKE_ASSERT(err == 0);
    err = cake_rpc_add_service(server, &service);
    CAKE_ASSERT(err == 0);
    return server;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    static target_t target;
    memset(&target, 0, sizeof target);
    if (size == 0)
        return 0;
    uint8_t how = data[0];
    tiny_init(&target.tiny);
    cake_rpc_server_t *server = start(&target);
    tiny_accept(&target.tiny);
    target.tiny.holds_writes = (how & 0x20) != 0;
    if ((how & 0x10) == 0)
        tiny_feed(&target.tiny, (const uint8_t *)preface, sizeof preface);
    for (size_t at = 1, step = (size_t)1 << (how & 15); at < size; at += step) {
        tiny_feed(&target.tiny, data + at, cake__min_u64(step, size - at));
        if ((how & 0x40) != 0)
            tiny_pass(&target.tiny, 200);
        if (at / step % 8 == 7)
            release_parked(&target);
    }
    release_parked(&target);
    target.tiny.holds_writes = false;
    tiny_run(&target.tiny);
    int err = cake__rpc_server_close(server, on_closed, &target);
    CAKE_ASSERT(err == 0);
    for (int i = 0; i < 100 && !target.is_closed; i++) {
        tiny_pass(&target.tiny, 1000);
        release_parked(&target);
    }
    CAKE_ASSERT(target.is_closed && target.tiny.timers == NULL && target.tiny.first_deferred == NULL);
    return 0;
}
