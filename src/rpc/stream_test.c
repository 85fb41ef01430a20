/* Streaming bodies: both ways, larger than every buffer, at the pace of whoever reads. */
#include "rpc/fixture.h"

#define TOTAL (UINT64_C(48) << 20)
#define PIECE 60000u

/* Writes TOTAL bytes, each its place's low byte, as fast as it may. */
typedef struct {
    uint64_t written;
    uint64_t refused;
} writer_t;

/* Reads, checks, and consumes after a pause (a timer), so that the writer has to wait. */
typedef struct {
    cake_env_t *env;
    uint64_t read, unconsumed, most_unconsumed;
    bool is_wrong, is_slow;
    cake_timer_t timer;
} reader_t;

static uint8_t PATTERN[PIECE + 256];

static int write_some(writer_t *writer, int (*write)(void *to, const void *data, size_t len), void *to)
{
    while (writer->written < TOTAL) {
        size_t len = cake__min_u64(PIECE, TOTAL - writer->written);
        int err = write(to, PATTERN + writer->written % 256, len);
        if (err != 0) {
            writer->refused += err == CAKE_EBUSY;
            return err;
        }
        writer->written += len;
    }
    return 0;
}

static void read_some(reader_t *reader, cake_slice_t data)
{
    size_t known = reader->read < TOTAL ? cake__min_u64(data.len, TOTAL - reader->read) : 0;
    for (size_t at = 0; at < known; at += PIECE) {
        const uint8_t *right = PATTERN + (reader->read + at) % 256;
        bool is_equal = memcmp((const uint8_t *)data.data + at, right, cake__min_u64(known - at, PIECE)) == 0;
        reader->is_wrong = reader->is_wrong || !is_equal;
    }
    reader->read += data.len;
    reader->unconsumed += data.len;
    reader->most_unconsumed = cake__max_u64(reader->most_unconsumed, reader->unconsumed);
}

/* ---- the server's side ---- */

typedef struct {
    cake_rpc_call_t *call;
    writer_t writer;
    reader_t reader;
    bool has_all;
    int end_err;
} session_t;

static session_t *SESSION; /* of the last call */
static atomic_int SESSION_ENDS;

static int call_write(void *to, const void *data, size_t len)
{
    return cake_rpc_write(to, data, len);
}

static void server_writable(void *arg)
{
    session_t *session = arg;
    int err = write_some(&session->writer, call_write, session->call);
    if (err == CAKE_EBUSY)
        return;
    cake_rpc_reply(session->call, err == 0 ? "end" : NULL, err == 0 ? 3 : 0);
    atomic_fetch_add(&SESSION_ENDS, 1);
}

static void server_read_end(void *arg, int err)
{
    session_t *session = arg;
    session->end_err = err;
    cake_rpc_fail(session->call, err != 0 ? err : CAKE_EINTERNAL, "cut");
    atomic_fetch_add(&SESSION_ENDS, 1);
}

static void handle_download(cake_rpc_call_t *call, void *arg)
{
    static const cake_stream_events_t events = {.on_writable = server_writable};
    SESSION->call = call;
    cake_rpc_stream(call, &events, SESSION);
}

static void consume_upload(void *arg)
{
    session_t *session = arg;
    cake_rpc_consume(session->call, session->reader.unconsumed);
    session->reader.unconsumed = 0;
}

static void upload_data(void *arg, cake_slice_t data)
{
    session_t *session = arg;
    read_some(&session->reader, data);
    if (!session->reader.is_slow)
        consume_upload(session);
    else if (!session->reader.timer.is_armed)
        cake__timer_arm_ms(session->reader.env, &session->reader.timer, 3);
}

static void upload_end(void *arg, int err)
{
    session_t *session = arg;
    session->reader.env->ops->timer_cancel(session->reader.env, &session->reader.timer);
    session->end_err = err;
    if (err == 0)
        cake_rpc_reply(session->call, &session->reader.read, 8);
    else
        cake_rpc_fail(session->call, err, NULL);
    atomic_fetch_add(&SESSION_ENDS, 1);
}

static void handle_upload(cake_rpc_call_t *call, void *arg)
{
    static const cake_stream_events_t events = {.on_data = upload_data, .on_end = upload_end};
    fixture_t *fixture = arg;
    SESSION->call = call;
    SESSION->reader.env = fixture->server_env;
    SESSION->reader.timer = CAKE_TIMER_INIT(consume_upload, SESSION);
    cake_rpc_stream(call, &events, SESSION);
}

/* Each piece goes straight back. */
static void mirror_data(void *arg, cake_slice_t data)
{
    session_t *session = arg;
    if (cake_rpc_write(session->call, data.data, data.len) != 0)
        session->reader.is_wrong = true;
    cake_rpc_consume(session->call, data.len);
}

static void mirror_end(void *arg, int err)
{
    session_t *session = arg;
    session->end_err = err;
    cake_rpc_reply(session->call, NULL, 0);
    atomic_fetch_add(&SESSION_ENDS, 1);
}

static void handle_mirror(cake_rpc_call_t *call, void *arg)
{
    static const cake_stream_events_t events = {.on_data = mirror_data, .on_end = mirror_end};
    SESSION->call = call;
    cake_rpc_stream(call, &events, SESSION);
}

/* Some bytes, then an error: it arrives behind them. */
static void handle_break(cake_rpc_call_t *call, void *arg)
{
    cake_rpc_write(call, "abc", 3);
    cake_rpc_fail(call, CAKE_ENOSPC, NULL);
}

static void handle_hold(cake_rpc_call_t *call, void *arg)
{
    static const cake_stream_events_t events = {.on_end = server_read_end};
    SESSION->call = call;
    cake_rpc_stream(call, &events, SESSION);
    cake_rpc_write(call, "abc", 3);
}

static const cake_rpc_method_t METHODS[] = {{"download", handle_download, CAKE_RPC_STREAM},
                                            {"upload", handle_upload, CAKE_RPC_STREAM},
                                            {"mirror", handle_mirror, CAKE_RPC_STREAM},
                                            {"break", handle_break, CAKE_RPC_STREAM},
                                            {"hold", handle_hold, CAKE_RPC_STREAM}};

/* ---- the client's side ---- */

typedef struct {
    cake_call_t *call;
    cake_env_t *env;
    writer_t writer;
    reader_t reader;
    atomic_int done, err;
    uint64_t answer;
} client_t;

static int client_write(void *to, const void *data, size_t len)
{
    return cake_call_write(to, data, len);
}

static void client_writable(void *arg)
{
    client_t *client = arg;
    if (write_some(&client->writer, client_write, client->call) == 0)
        cake_call_finish(client->call);
}

static void client_consume(void *arg)
{
    client_t *client = arg;
    cake_call_consume(client->call, client->reader.unconsumed);
    client->reader.unconsumed = 0;
}

static void client_data(void *arg, cake_slice_t data)
{
    client_t *client = arg;
    read_some(&client->reader, data);
    if (!client->reader.is_slow)
        client_consume(client);
    else if (!client->reader.timer.is_armed)
        cake__timer_arm_ms(client->env, &client->reader.timer, 3);
}

static void client_keeps_answer(void *arg, cake_slice_t data)
{
    client_t *client = arg;
    if (data.len == 8)
        memcpy(&client->answer, data.data, 8);
    cake_call_consume(client->call, data.len);
}

static void client_done(cake_reply_t *reply, void *arg)
{
    client_t *client = arg;
    client->env->ops->timer_cancel(client->env, &client->reader.timer);
    atomic_store(&client->err, cake_reply_err(reply));
    cake_reply_free(reply);
    atomic_fetch_add(&client->done, 1);
}

static bool client_is_done(void *arg)
{
    client_t *client = arg;
    return atomic_load(&client->done) > 0;
}

typedef struct {
    fixture_t *fixture;
    client_t *client;
    const char *path;
    const cake_stream_events_t *events;
} start_t;

static int start_on_loop(void *arg)
{
    start_t *start = arg;
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    options.timeout_ms = CAKE_NO_TIMEOUT;
    return cake_channel_stream(start->fixture->channel, start->path, &options, start->events, client_done,
                               start->client, &start->client->call);
}

static void start_client(fixture_t *fixture, client_t *client, const char *path, const cake_stream_events_t *events)
{
    start_t start = {fixture, client, path, events};
    client->env = fixture->client_env;
    client->reader.timer = CAKE_TIMER_INIT(client_consume, client);
    assert_int_equal(cake__run_on_loop(fixture->client_env, start_on_loop, &start), 0);
}

static void begin(fixture_t *fixture, bool is_sim, session_t *session)
{
    for (size_t i = 0; i < sizeof PATTERN; i++)
        PATTERN[i] = (uint8_t)i;
    memset(session, 0, sizeof *session);
    SESSION = session;
    atomic_store(&SESSION_ENDS, 0);
    fixture_start(fixture, is_sim);
    cake_rpc_service_t service = {"stream", METHODS, CAKE_COUNT_OF(METHODS), fixture, NULL};
    assert_int_equal(cake_rpc_add_service(fixture->server, &service), 0);
}

static void download(bool is_sim, bool is_slow)
{
    static const cake_stream_events_t events = {.on_data = client_data};
    fixture_t fixture;
    session_t session;
    client_t client = {.reader = {.is_slow = is_slow}};
    begin(&fixture, is_sim, &session);
    start_client(&fixture, &client, "/stream/download", &events);
    fixture_wait(&fixture, client_is_done, &client);
    assert_int_equal(client.err, 0);
    assert_true(client.reader.read == TOTAL + 3 && !client.reader.is_wrong);
    assert_true(client.reader.most_unconsumed <= 5u << 20);
    assert_true(session.writer.refused > 0); /* it never got far ahead */
    cake_call_free(client.call);
    fixture_stop(&fixture);
}

static void a_reply_larger_than_memory_is_streamed(bool is_sim)
{
    download(is_sim, false);
}

static void a_reply_goes_at_the_readers_pace(bool is_sim)
{
    download(is_sim, true);
}

static void a_request_goes_at_the_readers_pace(bool is_sim)
{
    static const cake_stream_events_t events = {.on_data = client_keeps_answer, .on_writable = client_writable};
    fixture_t fixture;
    session_t session;
    client_t client = {.answer = 0};
    begin(&fixture, is_sim, &session);
    session.reader.is_slow = true;
    start_client(&fixture, &client, "/stream/upload", &events);
    fixture_wait(&fixture, client_is_done, &client);
    assert_int_equal(client.err, 0);
    assert_true(session.reader.read == TOTAL && client.answer == TOTAL && !session.reader.is_wrong);
    assert_true(session.reader.most_unconsumed <= 5u << 20);
    assert_true(client.writer.refused > 0);
    cake_call_free(client.call);
    fixture_stop(&fixture);
}

static void both_bodies_stream_at_once(bool is_sim)
{
    static const cake_stream_events_t events = {.on_data = client_data, .on_writable = client_writable};
    fixture_t fixture;
    session_t session;
    client_t client = {.answer = 0};
    begin(&fixture, is_sim, &session);
    start_client(&fixture, &client, "/stream/mirror", &events);
    fixture_wait(&fixture, client_is_done, &client);
    assert_int_equal(client.err, 0);
    assert_true(client.reader.read == TOTAL || session.reader.is_wrong); /* it was told when too much waited */
    cake_call_free(client.call);
    fixture_stop(&fixture);
}

static void an_error_may_come_after_the_body_began(bool is_sim)
{
    static const cake_stream_events_t events = {.on_data = client_data};
    fixture_t fixture;
    session_t session;
    client_t client = {.answer = 0};
    begin(&fixture, is_sim, &session);
    start_client(&fixture, &client, "/stream/break", &events);
    fixture_wait(&fixture, client_is_done, &client);
    assert_int_equal(client.err, CAKE_ENOSPC);
    assert_true(client.reader.read == 3);
    cake_call_free(client.call);
    fixture_stop(&fixture);
}

static bool has_read(void *arg)
{
    client_t *client = arg;
    return client->reader.read == 3;
}

static bool session_has_ended(void *arg)
{
    return atomic_load(&SESSION_ENDS) == 1;
}

static void a_canceled_stream_tells_its_handler(bool is_sim)
{
    static const cake_stream_events_t events = {.on_data = client_data};
    fixture_t fixture;
    session_t session;
    client_t client = {.answer = 0};
    begin(&fixture, is_sim, &session);
    start_client(&fixture, &client, "/stream/hold", &events);
    if (is_sim)
        fixture_wait(&fixture, has_read, &client);
    cake_call_cancel(client.call);
    fixture_wait(&fixture, client_is_done, &client);
    assert_int_equal(client.err, CAKE_ECANCELED);
    if (is_sim) {
        fixture_wait(&fixture, session_has_ended, NULL);
        assert_int_equal(session.end_err, CAKE_ECANCELED);
    }
    cake_call_free(client.call);
    fixture_stop(&fixture);
}

#define BOTH(X)                                                                                                        \
    X(a_reply_larger_than_memory_is_streamed)                                                                          \
    X(a_reply_goes_at_the_readers_pace)                                                                                \
    X(a_request_goes_at_the_readers_pace)                                                                              \
    X(both_bodies_stream_at_once)                                                                                      \
    X(an_error_may_come_after_the_body_began)                                                                          \
    X(a_canceled_stream_tells_its_handler)

#define DEFINE(name)                                                                                                   \
    static void name##_sim(void **state)                                                                               \
    {                                                                                                                  \
        name(true);                                                                                                    \
    }                                                                                                                  \
    static void name##_real(void **state)                                                                              \
    {                                                                                                                  \
        name(false);                                                                                                   \
    }
#define LIST(name) cmocka_unit_test(name##_sim), cmocka_unit_test(name##_real),

BOTH(DEFINE)

int main(void)
{
    const struct CMUnitTest tests[] = {BOTH(LIST)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
