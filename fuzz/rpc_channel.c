/* Bytes that a server sends to a channel with calls under way: whatever comes, each call ends once. The first byte
 * says how: bits 0-3 how large the pieces are, bit 4: without the server's settings before them, bit 5: the peer
 * reads nothing, bit 6: time passes between the pieces, bit 7: a call is cancelled in the midst of it. */
#include "rpc/rpc.h"

#include "tiny_env.h"

#define CALLS 4

typedef struct {
    tiny_env_t tiny;
    cake_call_t *calls[CALLS];
    int done[CALLS];
    size_t got;
    bool is_closed;
} target_t;

static target_t target;

static void on_closed(void *arg)
{
    target.is_closed = true;
}

static void on_done(cake_reply_t *reply, void *arg)
{
    volatile uint8_t sum = 0;
    cake_slice_t body = cake_reply_body(reply);
    for (size_t i = 0; i < body.len; i++)
        sum = (uint8_t)(sum + ((const uint8_t *)body.data)[i]);
    CAKE_ASSERT(strlen(cake_reply_message(reply)) <= 1000 && cake_reply_err(reply) <= 0);
    (void)cake_reply_header(reply, "x-tag");
    cake_reply_free(reply);
    CAKE_ASSERT(++*(int *)arg == 1);
}

static void on_data(void *arg, cake_slice_t data)
{
    target.got += data.len;
    cake_call_consume(target.calls[CALLS - 1], data.len);
}

static void call_all(cake_channel_t *channel)
{
    static const cake_stream_events_t events = {.on_data = on_data};
    static char body[20000];
    const cake_slice_t parts[] = {{"body", 4}, {body, sizeof body}};
    int err = 0;
    for (size_t i = 0; i + 1 < CALLS && err == 0; i++)
        err = cake_channel_call_async(channel, "/t/e", parts, i, NULL, on_done, &target.done[i], &target.calls[i]);
    CAKE_ASSERT(err == 0);
    err =
        cake_channel_stream(channel, "/t/s", NULL, &events, on_done, &target.done[CALLS - 1], &target.calls[CALLS - 1]);
    CAKE_ASSERT(err == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t settings[9] = {0, 0, 0, 4};
    cake_channel_config_t config = CAKE_CHANNEL_CONFIG_INIT;
    cake_channel_t *channel;
    memset(&target, 0, sizeof target);
    if (size == 0)
        return 0;
    uint8_t how = data[0];
    tiny_init(&target.tiny);
    config.env = &target.tiny.base;
    config.limits.max_body_bytes = 65536;
    config.limits.max_input_bytes = 200000;
    int err = cake_channel_open("127.0.0.1:1", &config, &channel);
    CAKE_ASSERT(err == 0);
    call_all(channel);
    tiny_run(&target.tiny);
    (void)cake_call_write(target.calls[CALLS - 1], "stream", 6);
    target.tiny.holds_writes = (how & 0x20) != 0;
    if ((how & 0x10) == 0)
        tiny_feed(&target.tiny, settings, sizeof settings);
    for (size_t at = 1, step = (size_t)1 << (how & 15); at < size; at += step) {
        tiny_feed(&target.tiny, data + at, cake__min_u64(step, size - at));
        if ((how & 0x40) != 0)
            tiny_pass(&target.tiny, 200);
        if ((how & 0x80) != 0 && at / step == 2)
            cake_call_cancel(target.calls[1]);
    }
    target.tiny.holds_writes = false;
    tiny_run(&target.tiny);
    (void)cake_call_finish(target.calls[CALLS - 1]);
    if ((how & 0x80) != 0) /* else closing ends those that are left */
        tiny_pass(&target.tiny, 20000);
    err = cake__channel_close(channel, on_closed, NULL);
    CAKE_ASSERT(err == 0);
    tiny_run(&target.tiny);
    CAKE_ASSERT(target.is_closed && target.tiny.timers == NULL && target.tiny.first_deferred == NULL);
    for (size_t i = 0; i < CALLS; i++) {
        CAKE_ASSERT(target.done[i] == 1);
        cake_call_free(target.calls[i]);
    }
    return 0;
}
