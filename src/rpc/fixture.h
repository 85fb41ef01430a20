/* fixture.h: for tests: a server and a channel, each in an environment of its own, simulated or real. */
#ifndef CAKE_RPC_FIXTURE_H
#define CAKE_RPC_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

#include <datacake/rpc.h>
#include <datacake/uv.h>

#include "env/env.h"
#include "rpc/rpc.h"
#include "sim/env/simenv.h"

#define PATIENCE_MS      20000u  /* of the simulator's time */
#define REAL_PATIENCE_MS 120000u /* a busy machine takes long for little */

typedef struct {
    bool is_sim;
    cake__world_t *world;
    cake__host_t *hosts[2];
    cake_env_t *server_env, *client_env;
    cake_rpc_server_t *server;
    cake_channel_t *channel;
    atomic_int removed, running;
    cake_rpc_call_t *parked[64];
    atomic_int parked_count;
} fixture_t;

static inline void fixture_envs(fixture_t *fixture, bool is_sim, uint64_t seed)
{
    memset(fixture, 0, sizeof *fixture);
    fixture->is_sim = is_sim;
    if (!is_sim) {
        assert_int_equal(cake_uv_env_new(NULL, &fixture->server_env), 0);
        assert_int_equal(cake_uv_env_new(NULL, &fixture->client_env), 0);
        return;
    }
    cake__world_options_t options = {.seed = seed};
    assert_int_equal(cake__world_new(&options, &fixture->world), 0);
    for (int i = 0; i < 2; i++)
        fixture->hosts[i] = cake__world_add_host(fixture->world);
    fixture->server_env = cake__host_env(fixture->hosts[0]);
    fixture->client_env = cake__host_env(fixture->hosts[1]);
}

static inline void fixture_address(const fixture_t *fixture, char out[CAKE_ADDR_TEXT_MAX])
{
    cake_addr_t addr;
    if (fixture->is_sim)
        cake__host_addr(fixture->hosts[0], 0, &addr);
    else
        cake_addr_parse("127.0.0.1:0", &addr);
    cake_addr_format(&addr, out);
}

/* Runs until is(arg); real time is waited for in small steps. */
#define fixture_wait(fixture, is, arg) fixture_wait_at(fixture, is, arg, #is, __FILE__, __LINE__)
static inline void fixture_wait_at(fixture_t *fixture, bool (*is)(void *arg), void *arg, const char *what,
                                   const char *file, int line)
{
    if (fixture->is_sim) {
        uint64_t until = cake__world_now_ns(fixture->world) + PATIENCE_MS * CAKE_NS_PER_MS;
        _assert_true(cake__world_run_until(fixture->world, is, arg, until), what, file, line);
        return;
    }
    uint64_t until = cake__now_ns(fixture->client_env) + REAL_PATIENCE_MS * CAKE_NS_PER_MS;
    while (!is(arg)) {
        struct timespec pause = {0, 200000};
        _assert_true(cake__now_ns(fixture->client_env) < until, what, file, line);
        nanosleep(&pause, NULL);
    }
}

/* ---- a service that does what tests want ---- */

static inline void handle_echo(cake_rpc_call_t *call, void *arg)
{
    (void)arg;
    cake_slice_t body = cake_rpc_body(call);
    const char *tag = cake_rpc_header(call, "x-tag");
    if (tag != NULL)
        assert_int_equal(cake_rpc_set_header(call, "x-tag-back", tag), 0);
    cake_rpc_reply(call, body.data, body.len);
}

/* The body names the code. */
static inline void handle_fail(cake_rpc_call_t *call, void *arg)
{
    (void)arg;
    cake_slice_t body = cake_rpc_body(call);
    int32_t err = 0;
    if (body.len == 4)
        memcpy(&err, body.data, 4);
    cake_rpc_fail(call, err, err == CAKE_EDRIFT ? NULL : "as you wish");
}

static inline void handle_park(cake_rpc_call_t *call, void *arg)
{
    fixture_t *fixture = arg;
    int at = atomic_load(&fixture->parked_count);
    CAKE_ASSERT(at < 64);
    fixture->parked[at] = call;
    atomic_store(&fixture->parked_count, at + 1);
}

/* The body names how much is wanted; each byte is its place's low byte. */
static inline void handle_make(cake_rpc_call_t *call, void *arg)
{
    (void)arg;
    uint32_t len = 0;
    cake_slice_t body = cake_rpc_body(call);
    if (body.len == 4)
        memcpy(&len, body.data, 4);
    uint8_t *data = malloc(len + 1);
    for (uint32_t i = 0; i < len; i++)
        data[i] = (uint8_t)i;
    cake_slice_t part = cake__slice(data, len);
    cake_rpc_reply_borrowed(call, &part, 1, free, data);
}

static inline void service_removed(void *arg)
{
    fixture_t *fixture = arg;
    atomic_fetch_add(&fixture->removed, 1);
}

static const cake_rpc_method_t FIXTURE_METHODS[] = {{"echo", handle_echo, 0},
                                                    {"slow-echo", handle_echo, CAKE_RPC_BLOCKING},
                                                    {"fail", handle_fail, 0},
                                                    {"park", handle_park, 0},
                                                    {"make", handle_make, 0}};

static inline cake_rpc_service_t fixture_service(fixture_t *fixture, const char *name)
{
    return (cake_rpc_service_t){.name = name,
                                .methods = FIXTURE_METHODS,
                                .count = CAKE_COUNT_OF(FIXTURE_METHODS),
                                .arg = fixture,
                                .removed = service_removed};
}

static inline void fixture_listen(fixture_t *fixture, cake_rpc_server_config_t config, const char *address)
{
    char text[CAKE_ADDR_TEXT_MAX];
    fixture_address(fixture, text);
    config.env = fixture->server_env;
    config.listen_addr = address != NULL ? address : text;
    assert_int_equal(cake_rpc_listen(&config, &fixture->server), 0);
    cake_rpc_service_t service = fixture_service(fixture, "test");
    assert_int_equal(cake_rpc_add_service(fixture->server, &service), 0);
}

static inline uint64_t real_patience(const fixture_t *fixture, uint64_t wanted_ms)
{
    return wanted_ms == 0 && !fixture->is_sim ? REAL_PATIENCE_MS : wanted_ms;
}

/* On a real machine nothing ends for the reason that a thread has not had its turn. */
static inline void fixture_open(fixture_t *fixture, cake_channel_config_t config)
{
    config.connect_timeout_ms = real_patience(fixture, config.connect_timeout_ms);
    config.timeout_ms = real_patience(fixture, config.timeout_ms);
    config.keepalive_ms = real_patience(fixture, config.keepalive_ms);
    config.env = fixture->client_env;
    assert_int_equal(cake_channel_open(cake_rpc_address(fixture->server), &config, &fixture->channel), 0);
}

static inline void fixture_start(fixture_t *fixture, bool is_sim)
{
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    fixture_envs(fixture, is_sim, 1);
    fixture_listen(fixture, server, NULL);
    fixture_open(fixture, channel);
}

static inline void fixture_stop(fixture_t *fixture)
{
    assert_int_equal(cake_channel_close(fixture->channel), 0);
    assert_int_equal(cake_rpc_close(fixture->server), 0);
    fixture->client_env->ops->close(fixture->client_env);
    fixture->server_env->ops->close(fixture->server_env);
    for (int i = 0; i < 2 && fixture->is_sim; i++) {
        cake__heap_stats_t stats;
        cake__host_heap_stats(fixture->hosts[i], &stats);
        assert_int_equal(stats.live_blocks, 0);
    }
    if (fixture->is_sim)
        cake__world_free(fixture->world);
}

/* ---- calls that are counted ---- */

typedef struct {
    atomic_int done, err; /* done: how many times */
    size_t len;
    bool is_right; /* the body is what handle_make makes */
    char message[64];
} outcome_t;

static inline void note(cake_reply_t *reply, void *arg)
{
    outcome_t *outcome = arg;
    cake_slice_t body = cake_reply_body(reply);
    const uint8_t *bytes = body.data;
    outcome->len = body.len;
    outcome->is_right = true;
    for (size_t i = 0; i < body.len; i++)
        outcome->is_right = outcome->is_right && bytes[i] == (uint8_t)i;
    strncpy(outcome->message, cake_reply_message(reply), sizeof outcome->message - 1);
    atomic_store(&outcome->err, cake_reply_err(reply));
    cake_reply_free(reply);
    atomic_fetch_add(&outcome->done, 1);
}

static inline bool is_done(void *arg)
{
    outcome_t *outcome = arg;
    return atomic_load(&outcome->done) > 0;
}

static inline bool is_parked(void *arg)
{
    fixture_t *fixture = arg;
    return atomic_load(&fixture->parked_count) > 0;
}

#endif
