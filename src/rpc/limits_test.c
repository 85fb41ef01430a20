/* What is beyond a limit ends with the error that rpc.h names, and what is within goes on.
 * ctest: no-tsan: one thread */
#include "rpc/raw.h"

static void start(fixture_t *fixture, cake_rpc_server_config_t server, cake_channel_config_t channel)
{
    fixture_envs(fixture, true, 1);
    fixture_listen(fixture, server, NULL);
    fixture_open(fixture, channel);
}

static int echo(fixture_t *fixture, const char *tag)
{
    const cake_header_t header = {"x-tag", tag};
    cake_call_options_t options = {.size = sizeof options, .headers = &header, .header_count = 1};
    return cake_channel_call(fixture->channel, "/test/echo", "x", 1, &options, NULL);
}

static void connections_and_their_headers(void **state)
{
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    cake_rpc_server_stats_t stats;
    fixture_t fixture;
    char tag[3000] = "";
    memset(tag, 'a', sizeof tag - 1);
    server.limits.max_connections = 1;
    server.limits.max_header_bytes = 1000;
    server.limits.idle_ms = 2000;
    start(&fixture, server, channel);
    assert_int_equal(echo(&fixture, tag), CAKE_ETOOBIG);
    assert_int_equal(echo(&fixture, "a"), 0);
    cake_channel_t *first = fixture.channel;
    fixture_open(&fixture, channel);
    assert_int_equal(echo(&fixture, "a"), CAKE_ECONNECTION);
    cake__world_run_for(fixture.world, 6000 * CAKE_NS_PER_MS);
    assert_int_equal(cake_rpc_server_stats(fixture.server, &stats), 0);
    assert_true(stats.connections == 0 && stats.connections_refused == 1); /* the first was idle for too long */
    assert_int_equal(echo(&fixture, "a"), 0);
    assert_int_equal(cake_channel_close(first), 0);
    fixture_stop(&fixture);
}

/* Of several calls at once the first is let through, the last is too much. */
static void calls_and_bytes_at_once(void **state)
{
    static const char body[80000];
    static const char *const paths[] = {"/test/park", "/test/slow-echo", "/test/echo"};
    for (int which = 0; which < 3; which++) {
        cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
        cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
        cake_slice_t part = cake__slice(body, which == 0 ? sizeof body : 1);
        fixture_t fixture;
        outcome_t outcomes[3] = {0};
        server.limits.max_input_bytes = 100000;
        server.max_blocking = server.worker_lanes = 1;
        channel.max_waiting = which == 2 ? 2 : 100;
        start(&fixture, server, channel);
        for (int i = 0; i < 3; i++)
            assert_int_equal(
                cake_channel_call_async(fixture.channel, paths[which], &part, 1, NULL, note, &outcomes[i], NULL), 0);
        fixture_wait(&fixture, is_done, &outcomes[2]);
        assert_int_equal(outcomes[2].err, CAKE_EBUSY);
        for (int i = 0; i < fixture.parked_count; i++)
            cake_rpc_reply(fixture.parked[i], NULL, 0);
        fixture_wait(&fixture, is_done, &outcomes[0]);
        assert_int_equal(outcomes[0].err, 0);
        assert_int_equal(echo(&fixture, "a"), 0);
        fixture_stop(&fixture);
    }
}

/* ---- what waits for a peer to read ---- */

#define ASKED_BYTES 524288u /* by each of the requests below */
#define ASKED_COUNT 40u
#define OUTPUT_MAX  1048576u

/* As many of them as it says, by a peer that would take all at once. */
static void put_requests(cake__buf_t *bytes, uint32_t first_id, uint32_t count)
{
    for (uint32_t id = first_id; id < first_id + 2 * count; id += 2) {
        put_frame(bytes, 1, 4, id, MAKE, sizeof MAKE);
        put_frame(bytes, 0, 1, id, "\0\0\x08\0", 4); /* ASKED_BYTES */
    }
}

static void start_greedy(fixture_t *fixture, raw_t *raw, cake__buf_t *bytes)
{
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    server.limits.max_output_bytes = OUTPUT_MAX;
    start(fixture, server, channel);
    cake__buf_init(bytes, &cake__libc_alloc);
    cake__put_bytes(bytes, PREFACE, sizeof PREFACE - 1);
    put_frame(bytes, 4, 0, 0, "\0\4\x7f\xff\xff\xff", 6); /* INITIAL_WINDOW_SIZE */
    put_frame(bytes, 8, 0, 0, "\x7f\xff\0\0", 4);
    *raw = (raw_t){.is_deaf = true};
}

static cake_rpc_server_stats_t stats_of(fixture_t *fixture)
{
    cake_rpc_server_stats_t stats;
    assert_int_equal(cake_rpc_server_stats(fixture->server, &stats), 0);
    return stats;
}

static void read_all(fixture_t *fixture, raw_t *raw)
{
    raw->is_deaf = false;
    cake__run_on_loop(fixture->client_env, raw_listen, raw);
    cake__world_run_for(fixture->world, 5000 * CAKE_NS_PER_MS);
}

static void send_more(fixture_t *fixture, raw_t *raw, const cake__buf_t *bytes)
{
    raw->bytes = bytes->data;
    raw->len = bytes->len;
    cake__run_on_loop(fixture->client_env, raw_again, raw);
    cake__world_run_for(fixture->world, 50 * CAKE_NS_PER_MS);
}

/* What comes while too much waits is not read, and is answered when the peer reads again. */
static void who_does_not_read_is_not_read_from(void **state)
{
    const uint32_t first = 1, all = 8; /* of OUTPUT_MAX / 2 each */
    cake__buf_t bytes;
    fixture_t fixture;
    raw_t raw;
    start_greedy(&fixture, &raw, &bytes);
    put_requests(&bytes, 1, first);
    raw_start(&fixture, &raw, &bytes);
    cake__world_run_for(fixture.world, 50 * CAKE_NS_PER_MS);
    for (uint32_t i = first; i < all; i++) {
        cake__buf_free(&bytes);
        put_requests(&bytes, 2 * i + 1, 1);
        send_more(&fixture, &raw, &bytes);
    }
    assert_true(stats_of(&fixture).calls_started <= 3);
    read_all(&fixture, &raw);
    assert_int_equal(stats_of(&fixture).calls_started, all);
    assert_int_equal(raw.body_bytes, all * ASKED_BYTES);
    assert_int_equal(raw.frames[NGHTTP2_RST_STREAM], 0);
    cake__run_on_loop(fixture.client_env, raw_close, &raw);
    fixture_stop(&fixture);
    cake__buf_free(&bytes);
}

/* All of them in one read: what is too much by far is refused, and may be asked for later. */
static void requests_beyond_what_may_wait_are_refused(void **state)
{
    cake__buf_t bytes;
    fixture_t fixture;
    raw_t raw;
    start_greedy(&fixture, &raw, &bytes);
    put_requests(&bytes, 1, ASKED_COUNT);
    raw_start(&fixture, &raw, &bytes);
    cake__world_run_for(fixture.world, 1000 * CAKE_NS_PER_MS);
    uint64_t started = stats_of(&fixture).calls_started;
    assert_true(started >= 4 * OUTPUT_MAX / ASKED_BYTES && started <= 4 * OUTPUT_MAX / ASKED_BYTES + 4);
    read_all(&fixture, &raw);
    assert_int_equal(raw.frames[NGHTTP2_RST_STREAM], ASKED_COUNT - started);
    assert_int_equal(raw.reset_code, NGHTTP2_REFUSED_STREAM);
    assert_int_equal(raw.body_bytes, started * ASKED_BYTES);
    cake__buf_free(&bytes);
    put_requests(&bytes, 2 * ASKED_COUNT + 1, 2);
    send_more(&fixture, &raw, &bytes);
    assert_int_equal(raw.body_bytes, (started + 2) * ASKED_BYTES);
    assert_int_equal(stats_of(&fixture).connections_abused, 0);
    cake__run_on_loop(fixture.client_env, raw_close, &raw);
    fixture_stop(&fixture);
    cake__buf_free(&bytes);
}

/* ---- texts ---- */

static char long_text[3001];

static void handle_long_header(cake_rpc_call_t *call, void *arg)
{
    if (cake_rpc_body(call).len > 0)
        assert_int_equal(cake_rpc_set_header(call, "x-long", long_text), 0);
    cake_rpc_reply(call, "x", 1);
}

static void handle_long_failure(cake_rpc_call_t *call, void *arg)
{
    cake_rpc_fail(call, CAKE_ECONFLICT, long_text);
}

static void handle_late_failure(cake_rpc_call_t *call, void *arg)
{
    static const cake_stream_events_t events = {.on_data = NULL};
    cake_rpc_stream(call, &events, NULL);
    assert_int_equal(cake_rpc_write(call, "begun", 5), 0);
    cake_rpc_fail(call, CAKE_ECONFLICT, NULL);
}

/* Paths as long as REQUEST's: /long/head, /long/fail, /long/late. */
static void start_long(fixture_t *fixture, cake_rpc_server_config_t server, cake_channel_config_t channel)
{
    static const cake_rpc_method_t methods[] = {{"head", handle_long_header, 0},
                                                {"fail", handle_long_failure, 0},
                                                {"late", handle_late_failure, CAKE_RPC_STREAM}};
    cake_rpc_service_t service = {"long", methods, CAKE_COUNT_OF(methods), NULL, NULL};
    memset(long_text, 'a', sizeof long_text - 1);
    start(fixture, server, channel);
    assert_int_equal(cake_rpc_add_service(fixture->server, &service), 0);
}

static void reply_headers_beyond_the_limit_end_the_call(void **state)
{
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    fixture_t fixture;
    char message[100];
    cake_call_options_t options = {.size = sizeof options, .message = message, .message_size = sizeof message};
    for (int is_within = 0; is_within <= 1; is_within++) {
        channel.limits.max_header_bytes = is_within ? 4000 : 1000;
        start_long(&fixture, server, channel);
        int err = cake_channel_call(fixture.channel, "/long/head", "x", 1, &options, NULL);
        assert_int_equal(err, is_within ? 0 : CAKE_ETOOBIG);
        if (!is_within)
            assert_string_equal(message, "the reply's headers are larger than the limit");
        assert_int_equal(cake_channel_call(fixture.channel, "/long/head", NULL, 0, NULL, NULL), 0);
        assert_int_equal(stats_of(&fixture).connections_accepted, 1); /* the connection is none the worse */
        fixture_stop(&fixture);
    }
}

/* A raw peer's request of such a path, with bytes of headers that mean nothing, and what of a body there is. */
static void ask(fixture_t *fixture, raw_t *raw, const char *path, size_t header_len, size_t body_len, bool is_end)
{
    static const uint8_t zeroes[70000];
    cake__buf_t bytes, block;
    cake__buf_init(&block, &cake__libc_alloc);
    cake__put_bytes(&block, REQUEST, sizeof REQUEST);
    memcpy(block.data + 4, path, 10);
    for (size_t left = header_len; left > 0; left -= 100) {
        cake__put_bytes(&block, "\0\1x\x64", 4);
        memset(cake__buf_extend(&block, 100), 'a', 100);
    }
    put_preface(&bytes);
    put_frame(&bytes, 1, 4, 1, block.data, block.len);
    for (size_t left = body_len, len; left > 0; left -= len) {
        len = cake__min_u64(left, 16384);
        put_frame(&bytes, 0, 0, 1, zeroes, len);
    }
    if (is_end)
        put_frame(&bytes, 0, 1, 1, NULL, 0);
    *raw = (raw_t){.is_deaf = false};
    raw_start(fixture, raw, &bytes);
    cake__world_run_for(fixture->world, 1000 * CAKE_NS_PER_MS);
    cake__run_on_loop(fixture->client_env, raw_close, raw);
    cake__world_run_for(fixture->world, 1000 * CAKE_NS_PER_MS);
    cake__buf_free(&bytes);
    cake__buf_free(&block);
}

/* What any client gets to see: the status beyond the limit, and no answer beyond four times of it. */
static void request_headers_beyond_the_limit_have_a_status(void **state)
{
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    fixture_t fixture;
    raw_t raw;
    server.limits.max_header_bytes = 1000;
    start_long(&fixture, server, channel);
    ask(&fixture, &raw, "/long/head", 500, 0, true);
    assert_int_equal(raw.status, 200);
    ask(&fixture, &raw, "/long/head", 900, 0, true);
    assert_int_equal(raw.status, 413);
    assert_int_equal(stats_of(&fixture).calls_started, 1); /* no handler sees it */
    ask(&fixture, &raw, "/long/head", 3900, 0, true);
    assert_int_equal(raw.status, -1);
    assert_int_equal(raw.reset_code, NGHTTP2_PROTOCOL_ERROR);
    assert_int_equal(raw.goaway_code, -1);
    fixture_stop(&fixture);
}

/* A call that is refused may send its body up to a limit: clients that hear nothing before would break off. */
static void bodies_of_refused_calls_are_cut_short(void **state)
{
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    fixture_t fixture;
    raw_t raw;
    start_long(&fixture, server, channel);
    ask(&fixture, &raw, "/nope/nope", 0, 65536, false);
    assert_true(raw.status == -1 && raw.frames[NGHTTP2_RST_STREAM] == 0);
    ask(&fixture, &raw, "/nope/nope", 0, 65536, true);
    assert_true(raw.status == 404 && raw.frames[NGHTTP2_RST_STREAM] == 0);
    ask(&fixture, &raw, "/nope/nope", 0, 65537, false);
    assert_true(raw.status == 404 && raw.frames[NGHTTP2_RST_STREAM] == 1);
    assert_int_equal(raw.reset_code, NGHTTP2_NO_ERROR);
    fixture_stop(&fixture);
}

static void texts_of_errors_are_cut_by_the_server(void **state)
{
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    fixture_t fixture;
    raw_t raw;
    start_long(&fixture, server, channel);
    ask(&fixture, &raw, "/long/fail", 0, 0, true);
    assert_true(raw.status == 409 && raw.body_bytes == 1000);
    ask(&fixture, &raw, "/long/late", 0, 0, true);
    assert_true(raw.status == 200 && raw.body_bytes == 5);
    assert_string_equal(raw.message, cake_strerror(CAKE_ECONFLICT)); /* in the trailers */
    fixture_stop(&fixture);
}

/* ---- a server that is not ours ---- */

static void raw_accept(void *arg, cake_stream_t *stream)
{
    raw_t *raw = arg;
    raw->stream = stream;
    raw->env->ops->stream_start(stream, &RAW_HANDLERS, raw);
    raw_send(raw);
}

static int serve(void *arg)
{
    raw_t *raw = arg;
    return raw->env->ops->listen(raw->env, &raw->addr, raw_accept, raw, &raw->listener);
}

static void listener_closed(void *arg)
{
    raw_t *raw = arg;
    raw->listener = NULL;
}

static int stop_serving(void *arg)
{
    raw_t *raw = arg;
    raw->env->ops->listener_close(raw->listener, listener_closed, raw);
    return 0;
}

static void keep_message_len(cake_reply_t *reply, void *arg)
{
    size_t *len = arg;
    assert_int_equal(cake_reply_err(reply), CAKE_EINTERNAL);
    *len = strlen(cake_reply_message(reply));
    cake_reply_free(reply);
}

static void texts_of_errors_are_cut_by_the_channel(void **state)
{
    static const uint8_t head[] = {0x8e}; /* :status 500 */
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    char address[CAKE_ADDR_TEXT_MAX];
    fixture_t fixture;
    raw_t raw = {.is_deaf = false};
    cake__buf_t bytes;
    size_t message_len = 0;
    fixture_envs(&fixture, true, 1);
    memset(long_text, 'a', sizeof long_text - 1);
    cake__buf_init(&bytes, &cake__libc_alloc);
    put_frame(&bytes, 4, 0, 0, NULL, 0);
    raw.env = fixture.server_env;
    raw.bytes = bytes.data;
    raw.len = bytes.len;
    cake__host_addr(fixture.hosts[0], 7001, &raw.addr);
    cake_addr_format(&raw.addr, address);
    assert_int_equal(cake__run_on_loop(raw.env, serve, &raw), 0);
    channel.env = fixture.client_env;
    assert_int_equal(cake_channel_open(address, &channel, &fixture.channel), 0);
    assert_int_equal(
        cake_channel_call_async(fixture.channel, "/a/b", NULL, 0, NULL, keep_message_len, &message_len, NULL), 0);
    cake__world_run_for(fixture.world, 1000 * CAKE_NS_PER_MS);
    cake__buf_free(&bytes);
    put_frame(&bytes, 1, 4, 1, head, sizeof head);
    put_frame(&bytes, 0, 1, 1, long_text, sizeof long_text - 1);
    raw.sent = 0;
    raw.bytes = bytes.data;
    raw.len = bytes.len;
    cake__run_on_loop(raw.env, raw_again, &raw);
    cake__world_run_for(fixture.world, 1000 * CAKE_NS_PER_MS);
    assert_int_equal(message_len, 1000);
    cake__run_on_loop(raw.env, raw_close, &raw);
    cake__run_on_loop(raw.env, stop_serving, &raw);
    cake__world_run_for(fixture.world, 1000 * CAKE_NS_PER_MS);
    fixture_stop(&fixture);
    cake__buf_free(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_and_their_headers),
        cmocka_unit_test(calls_and_bytes_at_once),
        cmocka_unit_test(who_does_not_read_is_not_read_from),
        cmocka_unit_test(requests_beyond_what_may_wait_are_refused),
        cmocka_unit_test(reply_headers_beyond_the_limit_end_the_call),
        cmocka_unit_test(request_headers_beyond_the_limit_have_a_status),
        cmocka_unit_test(bodies_of_refused_calls_are_cut_short),
        cmocka_unit_test(texts_of_errors_are_cut_by_the_server),
        cmocka_unit_test(texts_of_errors_are_cut_by_the_channel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
