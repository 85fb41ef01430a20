/* TLS between two machines of ours whose bytes pass through the fuzzer: before, inside and after the handshake. The
 * first byte says which keys they have; then each step is an operation of two bytes, some followed by bytes of the
 * input. What the other side wrote is read, or the connection ends: never anything else. */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "env/env.h"
#include "uv/tls.h"

#define WIRE_MAX 300000u

typedef struct {
    cake__tls_t *tls;
    bool is_ready, is_over;
    uint8_t wire[WIRE_MAX]; /* on its way to this side */
    size_t wire_len;
    uint64_t written, read; /* plain bytes of the other side: its counter's low bytes */
} side_t;

static side_t sides[2];
static cake__tls_pool_t pool = {.alloc = &cake__libc_alloc};

static void end(side_t *side)
{
    side->is_over = true;
    if (cake__tls_reason(side->tls) != NULL)
        CAKE_ASSERT(cake__tls_reason(side->tls)[0] != '\0');
}

static void send_output(side_t *side)
{
    side_t *other = &sides[side == sides];
    cake_slice_t out = cake__tls_output(side->tls);
    size_t room = WIRE_MAX - other->wire_len;
    if (out.len == 0)
        return;
    size_t len = cake__min_u64(out.len, room);
    memcpy(other->wire + other->wire_len, out.data, len);
    other->wire_len += len;
    cake__tls_sent(side->tls);
}

static void read_plain(side_t *side)
{
    const side_t *other = &sides[side == sides];
    uint8_t buffer[5000];
    while (!side->is_over && cake__tls_has_input(side->tls)) {
        intptr_t got = cake__tls_read(side->tls, buffer, sizeof buffer);
        if (got == CAKE_EBUSY)
            return;
        if (got <= 0) {
            end(side);
            return;
        }
        for (intptr_t i = 0; i < got; i++)
            CAKE_ASSERT(buffer[i] == (uint8_t)(side->read + (uint64_t)i)); /* nothing that was altered gets through */
        side->read += (uint64_t)got;
        CAKE_ASSERT(side->read <= other->written);
    }
}

static void advance(side_t *side)
{
    if (!side->is_ready && !side->is_over) {
        int err = cake__tls_handshake(side->tls);
        if (err == 0)
            side->is_ready = true;
        else if (err != CAKE_EBUSY)
            end(side);
    }
    if (side->is_ready && !side->is_over)
        read_plain(side);
    send_output(side);
}

static void receive(side_t *side, size_t len)
{
    len = cake__min_u64(cake__min_u64(len, side->wire_len), CAKE__TLS_BUFFER_BYTES);
    if (len == 0 || side->is_over)
        return;
    uint8_t *copy = cake__tls_buffer(&pool);
    CAKE_ASSERT(copy != NULL);
    memcpy(copy, side->wire, len);
    memmove(side->wire, side->wire + len, side->wire_len - len);
    side->wire_len -= len;
    if (cake__tls_feed(side->tls, copy, len) != 0) {
        end(side);
        send_output(side);
    } else {
        advance(side);
    }
    if (!cake__tls_keep(side->tls, copy))
        cake__tls_give(&pool, copy);
}

static void write_plain(side_t *side, size_t len)
{
    uint8_t buffer[4096];
    len = cake__min_u64(len * 16 + 1, sizeof buffer);
    if (!side->is_ready || side->is_over)
        return;
    for (size_t i = 0; i < len; i++)
        buffer[i] = (uint8_t)(side->written + i);
    if (cake__tls_write(side->tls, buffer, len) != 0)
        end(side);
    else
        side->written += len;
    send_output(side);
}

static size_t inject(side_t *side, const uint8_t *data, size_t size, size_t len)
{
    len = cake__min_u64(cake__min_u64(len, size), WIRE_MAX - side->wire_len);
    memmove(side->wire + len, side->wire, side->wire_len);
    memcpy(side->wire, data, len);
    side->wire_len += len;
    return len;
}

static void run(const uint8_t *data, size_t size)
{
    for (size_t at = 0; at + 2 <= size;) {
        side_t *side = &sides[data[at] & 1];
        uint8_t operation = data[at] >> 1 & 7, count = data[at + 1];
        at += 2;
        if (operation <= 2)
            receive(side, operation == 0 ? SIZE_MAX : operation == 1 ? count : count * 64u);
        else if (operation == 3 && side->wire_len > 0)
            side->wire[count * 7u % side->wire_len] ^= (uint8_t)(1u << (count & 7));
        else if (operation == 4)
            at += inject(side, data + at, size - at, count);
        else if (operation == 5)
            write_plain(side, count);
        else if (operation == 6)
            side->wire_len -= cake__min_u64(side->wire_len, count);
        else if (operation == 7 && side->is_ready && !side->is_over)
            cake__tls_shut(side->tls), send_output(side);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static cake_tls_t *contexts[2];
    static cake_env_t env;
    if (contexts[0] == NULL) {
        static const cake_tls_config_t configs[2] = {{.cluster_key = "the key of all 1", .cluster_key_len = 16},
                                                     {.cluster_key = "another key of 2", .cluster_key_len = 16}};
        env.alloc = cake__libc_alloc;
        for (int i = 0; i < 2; i++) {
            int err = cake__tls_open(&env, &configs[i], &contexts[i]);
            CAKE_ASSERT(err == 0);
        }
    }
    if (size == 0)
        return 0;
    for (int i = 0; i < 2; i++) {
        sides[i].is_ready = sides[i].is_over = false;
        sides[i].wire_len = 0;
        sides[i].written = sides[i].read = 0;
        int err = cake__tls_new(contexts[i == 0 && (data[0] & 1) != 0], i == 0, &pool, &sides[i].tls);
        CAKE_ASSERT(err == 0);
    }
    advance(&sides[1]); /* the client begins */
    for (int i = 0; i < (data[0] >> 1 & 7); i++)
        receive(&sides[i & 1], SIZE_MAX);
    run(data + 1, size - 1);
    for (int i = 0; i < 2; i++)
        cake__tls_free(sides[i].tls);
    return 0;
}
