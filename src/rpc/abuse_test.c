/* Peers that misbehave, as raw bytes against a server, and services that come and go under load. */
#include <pthread.h>
#include <stdio.h>

#include "rpc/raw.h"

/* Sends it all and sees the server end the connection, saying why, and nobody else's calls suffer. */
static void is_thrown_out(cake__buf_t *bytes, int code)
{
    fixture_t fixture;
    raw_t raw = {.is_deaf = false};
    cake_rpc_server_stats_t stats;
    fixture_start(&fixture, true);
    assert_int_equal(cake_channel_call(fixture.channel, "/test/echo", "x", 1, NULL, NULL), 0);
    raw_start(&fixture, &raw, bytes);
    fixture_wait(&fixture, raw_is_over, &raw);
    assert_int_equal(raw.goaway_code, code);
    assert_int_equal(cake_channel_call(fixture.channel, "/test/echo", "x", 1, NULL, NULL), 0);
    cake__world_run_for(fixture.world, 2000 * CAKE_NS_PER_MS);
    assert_int_equal(cake_rpc_server_stats(fixture.server, &stats), 0);
    assert_int_equal(stats.connections, 1);
    assert_int_equal(stats.connections_abused, code == NGHTTP2_ENHANCE_YOUR_CALM);
    for (int i = 0; i < fixture.parked_count; i++)
        cake_rpc_reply(fixture.parked[i], NULL, 0);
    fixture_stop(&fixture);
    cake__buf_free(bytes);
}

static void garbage_ends_the_connection(void **state)
{
    cake__buf_t bytes;
    cake__buf_init(&bytes, &cake__libc_alloc);
    cake__put_bytes(&bytes, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27);
    is_thrown_out(&bytes, NGHTTP2_PROTOCOL_ERROR);
}

static void rapid_resets_end_the_connection(void **state)
{
    cake__buf_t bytes;
    put_preface(&bytes);
    for (uint32_t i = 0; i < 3000; i++) {
        put_frame(&bytes, 1, 4, 2 * i + 1, REQUEST, sizeof REQUEST);
        put_frame(&bytes, 3, 0, 2 * i + 1, "\0\0\0\x08", 4);
    }
    is_thrown_out(&bytes, NGHTTP2_ENHANCE_YOUR_CALM);
}

/* The server resets each request itself, for an update of its window by nothing. */
static void resets_that_we_are_made_to_end_the_connection(void **state)
{
    cake__buf_t bytes;
    put_preface(&bytes);
    for (uint32_t i = 0; i < 3000; i++) {
        put_frame(&bytes, 1, 4, 2 * i + 1, REQUEST, sizeof REQUEST);
        put_frame(&bytes, 8, 0, 2 * i + 1, "\0\0\0\0", 4);
    }
    is_thrown_out(&bytes, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void ping_floods_end_the_connection(void **state)
{
    cake__buf_t bytes;
    put_preface(&bytes);
    for (int i = 0; i < 1000; i++)
        put_frame(&bytes, 6, 0, 0, "12345678", 8);
    is_thrown_out(&bytes, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void settings_floods_end_the_connection(void **state)
{
    cake__buf_t bytes;
    put_preface(&bytes);
    for (int i = 0; i < 200; i++)
        put_frame(&bytes, 4, 0, 0, NULL, 0);
    is_thrown_out(&bytes, NGHTTP2_ENHANCE_YOUR_CALM);
}

/* Each entry could cost a walk over all streams. */
static void settings_of_many_entries_end_the_connection(void **state)
{
    cake__buf_t bytes;
    uint8_t entries[33][6];
    put_preface(&bytes);
    for (int i = 0; i < 33; i++)
        memcpy(entries[i], (uint8_t[6]){0, 4, 0, 0, 0, (uint8_t)i}, 6);
    put_frame(&bytes, 4, 0, 0, entries, sizeof entries);
    is_thrown_out(&bytes, NGHTTP2_ENHANCE_YOUR_CALM);
}

/* Of the windows in one frame the last one holds, whatever stood before it. */
static void the_last_window_of_a_frame_holds(void **state)
{
    static const uint8_t windows[] = {0, 4, 0x7f, 0xff, 0xff, 0xff, 0, 4, 0, 0, 0xff, 0xff};
    for (int is_alone = 0; is_alone <= 1; is_alone++) {
        cake__buf_t bytes;
        fixture_t fixture;
        raw_t raw = {.is_deaf = false};
        put_preface(&bytes);
        put_frame(&bytes, 1, 4, 1, REQUEST, sizeof REQUEST);
        put_frame(&bytes, 8, 0, 1, "\0\0\0\1", 4); /* the first of them is too much for this stream */
        put_frame(&bytes, 4, 0, 0, windows, is_alone ? 6 : 12);
        fixture_start(&fixture, true);
        raw_start(&fixture, &raw, &bytes);
        cake__world_run_for(fixture.world, 5000 * CAKE_NS_PER_MS);
        assert_int_equal(atomic_load(&raw.is_over), is_alone);
        assert_int_equal(raw.goaway_code, is_alone ? NGHTTP2_FLOW_CONTROL_ERROR : -1);
        cake__run_on_loop(fixture.client_env, raw_close, &raw);
        fixture_stop(&fixture);
        cake__buf_free(&bytes);
    }
}

static void continuation_floods_end_the_connection(void **state)
{
    cake__buf_t bytes;
    put_preface(&bytes);
    put_frame(&bytes, 1, 0, 1, REQUEST, sizeof REQUEST);
    for (int i = 0; i < 5000; i++)
        put_frame(&bytes, 9, 0, 1, NULL, 0);
    is_thrown_out(&bytes, NGHTTP2_ENHANCE_YOUR_CALM);
}

/* One long header in the peer's table, then thousands of one-byte references to it. */
static void header_bombs_stay_small(void **state)
{
    cake__buf_t bytes, block;
    fixture_t fixture;
    raw_t raw = {.is_deaf = false};
    cake__heap_stats_t stats;
    put_preface(&bytes);
    cake__buf_init(&block, &cake__libc_alloc);
    cake__put_bytes(&block, REQUEST, sizeof REQUEST);
    cake__put_bytes(&block, "\x40\x01x\x7f\xa1\x1e", 6); /* x: 4000 bytes */
    memset(cake__buf_extend(&block, 4000), 'a', 4000);
    memset(cake__buf_extend(&block, 12000), 0xbe, 12000);
    for (uint32_t i = 0; i < 100; i++)
        put_frame(&bytes, 1, 5, 2 * i + 1, block.data, block.len);
    fixture_start(&fixture, true);
    raw_start(&fixture, &raw, &bytes);
    cake__world_run_for(fixture.world, 3000 * CAKE_NS_PER_MS);
    cake__host_heap_stats(fixture.hosts[0], &stats);
    assert_true(stats.peak_bytes < 4u << 20);
    assert_int_equal(raw.frames[NGHTTP2_RST_STREAM], 100);
    assert_int_equal(raw.reset_code, NGHTTP2_PROTOCOL_ERROR);
    cake__run_on_loop(fixture.client_env, raw_close, &raw);
    fixture_stop(&fixture);
    cake__buf_free(&bytes);
    cake__buf_free(&block);
}

/* Asks for much, reads nothing: given up after stall_ms, and nobody else waits for it. */
static void a_deaf_peer_delays_nobody(void **state)
{
    cake__buf_t bytes;
    fixture_t fixture;
    raw_t raw = {.is_deaf = true};
    cake_rpc_server_stats_t stats;
    put_preface(&bytes);
    for (uint32_t i = 0; i < 50; i++) {
        put_frame(&bytes, 1, 4, 2 * i + 1, MAKE, sizeof MAKE);
        put_frame(&bytes, 0, 1, 2 * i + 1, "\0\0\x08\0", 4); /* 512 KiB */
    }
    fixture_start(&fixture, true);
    raw_start(&fixture, &raw, &bytes);
    for (int i = 0; i < 20; i++) {
        uint64_t before = cake__world_now_ns(fixture.world);
        assert_int_equal(cake_channel_call(fixture.channel, "/test/echo", "x", 1, NULL, NULL), 0);
        assert_true(cake__world_now_ns(fixture.world) - before < 50 * CAKE_NS_PER_MS);
        cake__world_run_for(fixture.world, 3500 * CAKE_NS_PER_MS);
    }
    assert_int_equal(cake_rpc_server_stats(fixture.server, &stats), 0);
    assert_int_equal(stats.connections, 1);
    assert_int_equal(stats.connections_abused, 1);
    cake__run_on_loop(fixture.client_env, raw_close, &raw);
    fixture_stop(&fixture);
    cake__buf_free(&bytes);
}

/* Reads all that comes, and never opens its window: given up after stall_ms too, for what it asked for is held
 * meanwhile. */
static void a_window_that_stays_shut_is_given_up(void **state)
{
    cake__buf_t bytes;
    fixture_t fixture;
    raw_t raw = {.is_deaf = false};
    cake_rpc_server_stats_t stats;
    cake__buf_init(&bytes, &cake__libc_alloc);
    cake__put_bytes(&bytes, PREFACE, sizeof PREFACE - 1);
    put_frame(&bytes, 4, 0, 0, "\0\4\0\0\0\0", 6); /* INITIAL_WINDOW_SIZE 0 */
    for (uint32_t i = 0; i < 10; i++) {
        put_frame(&bytes, 1, 4, 2 * i + 1, MAKE, sizeof MAKE);
        put_frame(&bytes, 0, 1, 2 * i + 1, "\0\0\x08\0", 4);
    }
    fixture_start(&fixture, true);
    raw_start(&fixture, &raw, &bytes);
    for (int i = 0; i < 20 && !atomic_load(&raw.is_over); i++) {
        assert_int_equal(cake_channel_call(fixture.channel, "/test/echo", "x", 1, NULL, NULL), 0);
        assert_int_equal(cake_rpc_server_stats(fixture.server, &stats), 0);
        assert_int_equal(stats.connections, 2);
        cake__world_run_for(fixture.world, 5000 * CAKE_NS_PER_MS);
    }
    assert_true(atomic_load(&raw.is_over));
    assert_true(cake__world_now_ns(fixture.world) < 61000 * CAKE_NS_PER_MS);
    assert_true(raw.body_bytes == 0);
    assert_int_equal(cake_rpc_server_stats(fixture.server, &stats), 0);
    assert_int_equal(stats.connections_abused, 1);
    fixture_stop(&fixture);
    cake__buf_free(&bytes);
}

/* Sends the frame each second, and answers pings where it is to; gives the seconds that the connection lived. */
static int drip(fixture_t *fixture, raw_t *raw, const cake__buf_t *frame, bool answers, int seconds)
{
    cake__buf_t bytes;
    int answered = 0, second = 0;
    for (; second < seconds && !atomic_load(&raw->is_over); second++) {
        cake__world_run_for(fixture->world, 900 * CAKE_NS_PER_MS);
        cake__buf_init(&bytes, &cake__libc_alloc);
        cake__put_bytes(&bytes, frame->data, frame->len);
        for (; answers && answered < raw->pings; answered++)
            put_frame(&bytes, 6, 1, 0, "\0\0\0\0\0\0\0\0", 8);
        raw->bytes = bytes.data;
        raw->len = bytes.len;
        cake__run_on_loop(fixture->client_env, raw_again, raw);
        cake__world_run_for(fixture->world, 100 * CAKE_NS_PER_MS);
        cake__buf_free(&bytes);
    }
    return second;
}

static void handle_watch(cake_rpc_call_t *call, void *arg)
{
    static const cake_stream_events_t events = {.on_data = NULL};
    cake_rpc_stream(call, &events, NULL);
    assert_int_equal(cake_rpc_write(call, "x", 1), 0);
    handle_park(call, arg);
}

/* Of peers that say nothing more those live on that answer pings: they wait for a reply, or for the next event. */
static void silent_peers_are_asked_whether_they_live(void **state)
{
    static const cake_rpc_method_t watch = {"park", handle_watch, CAKE_RPC_STREAM}; /* a path as long as REQUEST's */
    for (int i = 0; i < 4; i++) {
        bool answers = i % 2 == 1, is_watcher = i >= 2;
        uint8_t request[sizeof REQUEST];
        cake__buf_t bytes, nothing;
        fixture_t fixture;
        cake_rpc_server_stats_t stats;
        raw_t raw = {.is_deaf = false};
        cake__buf_init(&nothing, &cake__libc_alloc);
        put_preface(&bytes);
        memcpy(request, REQUEST, sizeof REQUEST);
        if (is_watcher)
            memcpy(request + 5, "feed", 4);
        put_frame(&bytes, 1, 5, 1, request, sizeof request);
        fixture_start(&fixture, true);
        cake_rpc_service_t feed = {"feed", &watch, 1, &fixture, NULL};
        assert_int_equal(cake_rpc_add_service(fixture.server, &feed), 0);
        raw_start(&fixture, &raw, &bytes);
        int seconds = drip(&fixture, &raw, &nothing, answers, 300);
        assert_int_equal(atomic_load(&fixture.parked_count), 1);
        assert_int_equal(seconds == 300, answers);
        assert_true(answers || (seconds >= 60 && seconds < 78));
        assert_int_equal(cake_rpc_is_canceled(fixture.parked[0]), !answers); /* its handler is told */
        assert_int_equal(cake_rpc_server_stats(fixture.server, &stats), 0);
        assert_int_equal(stats.connections_abused, 0); /* it is lost, and did no harm */
        cake_rpc_reply(fixture.parked[0], NULL, 0);
        cake__run_on_loop(fixture.client_env, raw_close, &raw);
        fixture_stop(&fixture);
        cake__buf_free(&bytes);
    }
}

/* A byte of a reply a second is as little as none; what is slow for being far away goes on. */
static void windows_that_open_by_bytes_are_given_up(void **state)
{
    for (int is_fair = 0; is_fair <= 1; is_fair++) {
        cake__buf_t bytes, frame;
        fixture_t fixture;
        cake_rpc_server_stats_t stats;
        raw_t raw = {.is_deaf = false};
        cake__buf_init(&bytes, &cake__libc_alloc);
        cake__put_bytes(&bytes, PREFACE, sizeof PREFACE - 1);
        put_frame(&bytes, 4, 0, 0, "\0\4\0\0\0\0", 6); /* INITIAL_WINDOW_SIZE 0 */
        put_frame(&bytes, 1, 4, 1, MAKE, sizeof MAKE);
        put_frame(&bytes, 0, 1, 1, "\0\0\x08\0", 4); /* 512 KiB */
        cake__buf_init(&frame, &cake__libc_alloc);
        put_frame(&frame, 8, 0, 1, is_fair ? "\0\0\2\0" : "\0\0\0\1", 4);
        put_frame(&frame, 8, 0, 0, is_fair ? "\0\0\2\0" : "\0\0\0\1", 4);
        fixture_start(&fixture, true);
        raw_start(&fixture, &raw, &bytes);
        int seconds = drip(&fixture, &raw, &frame, true, 200);
        assert_true(is_fair ? seconds == 200 : seconds < 61);
        assert_int_equal(cake_rpc_server_stats(fixture.server, &stats), 0);
        assert_int_equal(stats.connections_abused, !is_fair);
        cake__run_on_loop(fixture.client_env, raw_close, &raw);
        fixture_stop(&fixture);
        cake__buf_free(&frame);
        cake__buf_free(&bytes);
    }
}

/* As above, of requests: the one that hardly comes is answered, and its connection, where another call runs, stays. */
static void requests_that_come_by_bytes_are_ended(void **state)
{
    uint8_t zeroes[400] = {0};
    for (int is_fair = 0; is_fair <= 1; is_fair++) {
        cake__buf_t bytes, frame;
        fixture_t fixture;
        raw_t raw = {.is_deaf = false};
        cake_rpc_server_stats_t stats;
        put_preface(&bytes);
        put_frame(&bytes, 1, 5, 1, REQUEST, sizeof REQUEST);
        put_frame(&bytes, 1, 4, 3, REQUEST, sizeof REQUEST);
        cake__buf_init(&frame, &cake__libc_alloc);
        put_frame(&frame, 0, 0, 3, zeroes, is_fair ? sizeof zeroes : 1);
        fixture_start(&fixture, true);
        raw_start(&fixture, &raw, &bytes);
        assert_int_equal(drip(&fixture, &raw, &frame, true, 20), 20);
        assert_int_equal(cake_rpc_server_stats(fixture.server, &stats), 0);
        assert_int_equal(stats.calls_running, 2);
        assert_int_equal(drip(&fixture, &raw, &frame, true, 100), 100);
        assert_int_equal(cake_rpc_server_stats(fixture.server, &stats), 0);
        assert_int_equal(stats.calls_running, 1 + is_fair);
        assert_int_equal(stats.calls_failed, !is_fair);
        assert_int_equal(stats.connections_abused, 0);
        cake_rpc_reply(fixture.parked[0], NULL, 0);
        cake__run_on_loop(fixture.client_env, raw_close, &raw);
        fixture_stop(&fixture);
        cake__buf_free(&frame);
        cake__buf_free(&bytes);
    }
}

/* While more waits for a peer than it may leave unread, nothing is read from it, not even that it lives. */
static void peers_that_read_slowly_live(void **state)
{
    cake__buf_t bytes;
    fixture_t fixture;
    raw_t raw = {.is_deaf = true};
    cake_rpc_server_stats_t stats;
    cake__buf_init(&bytes, &cake__libc_alloc);
    cake__put_bytes(&bytes, PREFACE, sizeof PREFACE - 1);
    put_frame(&bytes, 4, 0, 0, "\0\4\x7f\xff\xff\xff", 6);
    put_frame(&bytes, 8, 0, 0, "\x7f\xff\0\0", 4);
    for (uint32_t i = 0; i < 50; i++) {
        put_frame(&bytes, 1, 4, 2 * i + 1, MAKE, sizeof MAKE);
        put_frame(&bytes, 0, 1, 2 * i + 1, "\0\0\x08\0", 4); /* 512 KiB */
    }
    fixture_start(&fixture, true);
    raw_start(&fixture, &raw, &bytes);
    for (int second = 0; second < 180 && !atomic_load(&raw.is_over); second++) {
        cake__world_run_for(fixture.world, 1000 * CAKE_NS_PER_MS);
        raw.listens = 50000;
        cake__run_on_loop(fixture.client_env, raw_listen, &raw);
    }
    assert_false(atomic_load(&raw.is_over));
    assert_true(raw.got > 8000000 && raw.got < 12000000);
    assert_int_equal(cake_rpc_server_stats(fixture.server, &stats), 0);
    assert_true(stats.connections == 1 && stats.connections_abused == 0);
    cake__run_on_loop(fixture.client_env, raw_close, &raw);
    fixture_stop(&fixture);
    cake__buf_free(&bytes);
}

/* Streams beyond the limit are refused one by one; those before it, and other connections, go on. */
static void too_many_streams_are_refused(void **state)
{
    cake__buf_t bytes;
    fixture_t fixture;
    raw_t raw = {.is_deaf = false};
    cake_rpc_server_stats_t stats;
    put_preface(&bytes);
    for (uint32_t i = 0; i < 3000; i++) /* none has ended its body */
        put_frame(&bytes, 1, 4, 2 * i + 1, REQUEST, sizeof REQUEST);
    fixture_start(&fixture, true);
    raw_start(&fixture, &raw, &bytes);
    cake__world_run_for(fixture.world, 5000 * CAKE_NS_PER_MS);
    assert_int_equal(cake_rpc_server_stats(fixture.server, &stats), 0);
    assert_int_equal(stats.calls_running, 1024);
    assert_false(atomic_load(&raw.is_over));
    assert_int_equal(raw.frames[NGHTTP2_RST_STREAM], 3000 - 1024);
    assert_int_equal(raw.reset_code, NGHTTP2_REFUSED_STREAM);
    assert_int_equal(stats.connections_abused, 0);
    assert_int_equal(cake_channel_call(fixture.channel, "/test/echo", "x", 1, NULL, NULL), 0);
    cake__run_on_loop(fixture.client_env, raw_close, &raw);
    fixture_stop(&fixture);
    cake__buf_free(&bytes);
}

/* ---- services under load, on real threads ---- */

typedef struct {
    fixture_t *fixture;
    const char *name;
    atomic_int *running;                              /* services that still come and go */
    atomic_int alive;                                 /* the service's state: 1 while it may be used */
    atomic_uint_fast64_t answered[2], unavailable[2]; /* calls of its methods */
    uint64_t rounds;
} churn_t;

static void handle_alive(cake_rpc_call_t *call, void *arg)
{
    churn_t *churn = arg;
    int is_alive = atomic_load(&churn->alive);
    cake_rpc_reply(call, &is_alive, sizeof is_alive);
}

static void churn_removed(void *arg)
{
    churn_t *churn = arg;
    atomic_store(&churn->alive, 0);
}

/* Until one call more of each method has ended so. */
static void wait_for_more(const churn_t *churn, atomic_uint_fast64_t counts[2])
{
    uint64_t until = cake__now_ns(churn->fixture->client_env) + REAL_PATIENCE_MS * CAKE_NS_PER_MS;
    uint64_t before[2] = {atomic_load(&counts[0]), atomic_load(&counts[1])};
    while (atomic_load(&counts[0]) == before[0] || atomic_load(&counts[1]) == before[1]) {
        struct timespec pause = {0, 200000};
        CAKE_ASSERT(cake__now_ns(churn->fixture->client_env) < until);
        nanosleep(&pause, NULL);
    }
}

static void *churn_services(void *arg)
{
    churn_t *churn = arg;
    static const cake_rpc_method_t methods[] = {{"now", handle_alive, 0}, {"lane", handle_alive, CAKE_RPC_BLOCKING}};
    cake_rpc_service_t service = {churn->name, methods, 2, churn, churn_removed};
    for (; churn->rounds > 0; churn->rounds--) {
        bool waits = churn->rounds % 200 == 1;
        atomic_store(&churn->alive, 1);
        CAKE_ASSERT(cake_rpc_add_service(churn->fixture->server, &service) == 0);
        if (waits)
            wait_for_more(churn, churn->answered);
        CAKE_ASSERT(cake_rpc_remove_service(churn->fixture->server, churn->name) == 0);
        CAKE_ASSERT(atomic_load(&churn->alive) == 0);
        if (waits)
            wait_for_more(churn, churn->unavailable);
    }
    atomic_fetch_sub(churn->running, 1);
    return NULL;
}

typedef struct {
    fixture_t *fixture;
    atomic_int *running;
    churn_t *churns; /* a, b */
} caller_t;

static void *call_services(void *arg)
{
    static const char *const paths[2][2] = {{"/a/now", "/a/lane"}, {"/b/now", "/b/lane"}};
    caller_t *caller = arg;
    for (unsigned i = 0; atomic_load(caller->running) > 0; i++) {
        unsigned service = i & 1, method = i >> 1 & 1;
        churn_t *churn = &caller->churns[service];
        cake_reply_t *reply;
        int err = cake_channel_call(caller->fixture->channel, paths[service][method], NULL, 0, NULL, &reply);
        CAKE_ASSERT(err == 0 || err == CAKE_EUNAVAILABLE);
        if (err == 0) {
            int is_alive;
            memcpy(&is_alive, cake_reply_body(reply).data, sizeof is_alive);
            CAKE_ASSERT(is_alive == 1); /* no call reaches a removed service */
        }
        atomic_fetch_add(err == 0 ? &churn->answered[method] : &churn->unavailable[method], 1);
        cake_reply_free(reply);
    }
    return NULL;
}

/* Every now and then one waits, there and not there, for a call of each method to see it so. */
static void services_come_and_go_under_load(void **state)
{
    const char *text = getenv("CAKE_ROUNDS");
    uint64_t rounds = text != NULL ? strtoull(text, NULL, 10) : 2000;
    fixture_t fixture;
    fixture_start(&fixture, false);
    atomic_int running = 2;
    churn_t churns[2] = {{.fixture = &fixture, .name = "a", .running = &running, .rounds = rounds},
                         {.fixture = &fixture, .name = "b", .running = &running, .rounds = rounds}};
    caller_t caller = {&fixture, &running, churns};
    pthread_t threads[4];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, churn_services, &churns[i]), 0);
        assert_int_equal(pthread_create(&threads[2 + i], NULL, call_services, &caller), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    fixture_stop(&fixture);
}

typedef struct {
    fixture_t *fixture;
    cake_call_t *call;
    outcome_t outcome;
} halves_t;

static int begin_call(void *arg)
{
    static const cake_stream_events_t events = {.on_data = NULL};
    halves_t *halves = arg;
    return cake_channel_stream(halves->fixture->channel, "/other/echo", NULL, &events, note, &halves->outcome,
                               &halves->call);
}

static int finish_call(void *arg)
{
    halves_t *halves = arg;
    return cake_call_finish(halves->call);
}

/* The headers name a service that is gone, or is another one of that name, when the body ends. */
static void a_service_removed_before_the_body_is_not_called(void **state)
{
    for (int comes_back = 0; comes_back <= 1; comes_back++) {
        fixture_t fixture;
        fixture_start(&fixture, true);
        halves_t halves = {.fixture = &fixture};
        cake_rpc_service_t service = fixture_service(&fixture, "other");
        assert_int_equal(cake_rpc_add_service(fixture.server, &service), 0);
        assert_int_equal(cake__run_on_loop(fixture.client_env, begin_call, &halves), 0);
        cake__world_run_for(fixture.world, 1000 * CAKE_NS_PER_MS);
        assert_int_equal(cake_rpc_remove_service(fixture.server, "other"), 0);
        assert_int_equal(fixture.removed, 1);
        if (comes_back)
            assert_int_equal(cake_rpc_add_service(fixture.server, &service), 0);
        assert_int_equal(cake__run_on_loop(fixture.client_env, finish_call, &halves), 0);
        fixture_wait(&fixture, is_done, &halves.outcome);
        assert_int_equal(halves.outcome.err, comes_back ? 0 : CAKE_EUNAVAILABLE);
        cake_call_free(halves.call);
        fixture_stop(&fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(garbage_ends_the_connection),
        cmocka_unit_test(rapid_resets_end_the_connection),
        cmocka_unit_test(resets_that_we_are_made_to_end_the_connection),
        cmocka_unit_test(ping_floods_end_the_connection),
        cmocka_unit_test(settings_floods_end_the_connection),
        cmocka_unit_test(settings_of_many_entries_end_the_connection),
        cmocka_unit_test(the_last_window_of_a_frame_holds),
        cmocka_unit_test(continuation_floods_end_the_connection),
        cmocka_unit_test(header_bombs_stay_small),
        cmocka_unit_test(a_deaf_peer_delays_nobody),
        cmocka_unit_test(a_window_that_stays_shut_is_given_up),
        cmocka_unit_test(silent_peers_are_asked_whether_they_live),
        cmocka_unit_test(windows_that_open_by_bytes_are_given_up),
        cmocka_unit_test(requests_that_come_by_bytes_are_ended),
        cmocka_unit_test(peers_that_read_slowly_live),
        cmocka_unit_test(too_many_streams_are_refused),
        cmocka_unit_test(services_come_and_go_under_load),
        cmocka_unit_test(a_service_removed_before_the_body_is_not_called),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
