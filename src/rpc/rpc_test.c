/* What servers and channels promise, on a simulated and on the real environment. */
#include <stdio.h>

#include "rpc/fixture.h"

static void *pattern(size_t len)
{
    uint8_t *data = calloc(1, len + 1);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)i;
    return data;
}

static int call_echo(fixture_t *fixture, const char *path, size_t len)
{
    cake_reply_t *reply = NULL;
    void *data = pattern(len);
    int err = cake_channel_call(fixture->channel, path, data, len, NULL, &reply);
    assert_true((err == 0) == (reply != NULL));
    if (err == 0) {
        assert_int_equal(cake_reply_body(reply).len, len);
        assert_true(len == 0 || memcmp(cake_reply_body(reply).data, data, len) == 0);
    }
    cake_reply_free(reply);
    free(data);
    return err;
}

static void bodies_of_all_sizes_come_back(bool is_sim)
{
    static const size_t sizes[] = {0,    1,     255,   256,   257,   2047,  2048,    8191,    8192,
                                   8193, 16384, 16385, 65535, 65536, 70000, 1048576, 5000000, 20000000};
    fixture_t fixture;
    fixture_start(&fixture, is_sim);
    for (size_t i = 0; i < CAKE_COUNT_OF(sizes); i++) {
        assert_int_equal(call_echo(&fixture, "/test/echo", sizes[i]), 0);
        assert_int_equal(call_echo(&fixture, "/test/slow-echo", sizes[i]), 0);
    }
    fixture_stop(&fixture);
    assert_int_equal(fixture.removed, 1);
}

static void many_calls_share_one_connection(bool is_sim)
{
    fixture_t fixture;
    fixture_start(&fixture, is_sim);
    enum { COUNT = 3000 };
    outcome_t *outcomes = calloc(COUNT, sizeof *outcomes);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t len = i * 7 % 5000;
        cake_slice_t part = cake__slice(&len, 4);
        assert_int_equal(
            cake_channel_call_async(fixture.channel, "/test/make", &part, 1, NULL, note, &outcomes[i], NULL), 0);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        fixture_wait(&fixture, is_done, &outcomes[i]);
        assert_true(outcomes[i].err == 0 && outcomes[i].is_right && outcomes[i].len == i * 7 % 5000);
    }
    cake_rpc_server_stats_t stats;
    assert_int_equal(cake_rpc_server_stats(fixture.server, &stats), 0);
    assert_int_equal(stats.connections, 1);
    assert_int_equal(stats.calls_started, COUNT);
    free(outcomes);
    fixture_stop(&fixture);
}

static void handle_lend(cake_rpc_call_t *call, void *arg)
{
    (void)arg;
    cake_slice_t body = cake_rpc_body(call), parts[2];
    size_t half = body.len / 2;
    parts[0] = cake__slice(body.data, half);
    parts[1] = cake__slice((const uint8_t *)body.data + half, body.len - half);
    cake_rpc_reply_borrowed(call, parts, 2, NULL, NULL);
}

static int start_lent_calls(void *arg)
{
    static const size_t lens[] = {0, 1, 300, 5000, 65536, 65537, 300000, 1 << 20, (1 << 20) + 10, 3000000};
    struct {
        fixture_t *fixture;
        outcome_t *outcomes;
    } *calls = arg;
    for (size_t i = 0; i < CAKE_COUNT_OF(lens); i++) {
        uint8_t *body = malloc(lens[i] + 1);
        for (size_t at = 0; at < lens[i]; at++)
            body[at] = (uint8_t)at;
        cake_slice_t part = cake__slice(body, lens[i]);
        calls->outcomes[i].len = SIZE_MAX;
        assert_int_equal(cake_channel_call_async(calls->fixture->channel, "/lender/lend", &part, 1, NULL, note,
                                                 &calls->outcomes[i], NULL),
                         0);
        free(body);
    }
    return (int)CAKE_COUNT_OF(lens);
}

/* Long bodies, many on their way at once: each is read to its own place, and sent back from there. */
static void bodies_are_sent_back_from_where_they_lie(bool is_sim)
{
    static const cake_rpc_method_t methods[] = {{"lend", handle_lend, 0}};
    cake_rpc_service_t service = {"lender", methods, 1, NULL, NULL};
    fixture_t fixture;
    outcome_t outcomes[16] = {0};
    struct {
        fixture_t *fixture;
        outcome_t *outcomes;
    } calls = {&fixture, outcomes};
    fixture_start(&fixture, is_sim);
    assert_int_equal(cake_rpc_add_service(fixture.server, &service), 0);
    int count = cake__run_on_loop(fixture.client_env, start_lent_calls, &calls);
    for (int i = 0; i < count; i++) {
        fixture_wait(&fixture, is_done, &outcomes[i]);
        assert_int_equal(atomic_load(&outcomes[i].err), 0);
        assert_true(outcomes[i].is_right);
    }
    assert_int_equal(outcomes[count - 1].len, 3000000);
    assert_int_equal(outcomes[7].len, 1 << 20);
    fixture_stop(&fixture);
}

typedef struct {
    outcome_t outcome; /* first */
    uint8_t *data;
    size_t len;
    fixture_t *fixture;
    atomic_int released;
} loan_t;

static void loan_released(void *arg)
{
    loan_t *loan = arg;
    memset(loan->data, 0xee, loan->len + 1);
    free(loan->data);
    atomic_fetch_add(&loan->released, 1);
}

static bool is_loan_over(void *arg)
{
    loan_t *loan = arg;
    return is_done(arg) && atomic_load(&loan->released) > 0;
}

static void lend(fixture_t *fixture, loan_t *loan, const char *path, size_t len, cake_call_t **call)
{
    loan->len = len;
    loan->data = pattern(len);
    cake_slice_t parts[] = {cake__slice(loan->data, len / 3), cake__slice(loan->data, 0),
                            cake__slice(loan->data + len / 3, len - len / 3)};
    assert_int_equal(cake_channel_call_borrowed(fixture->channel, path, parts, CAKE_COUNT_OF(parts), NULL,
                                                loan_released, note, loan, call),
                     0);
}

/* More at once than the server takes, before it could say so: some are refused, and sent again from where they lie. */
static void a_borrowed_body_is_given_back_once(bool is_sim)
{
    static const size_t lens[] = {0, 1, 2, 5000, 65536, 200000, 1 << 20, 3000000};
    enum { COUNT = CAKE_COUNT_OF(lens) };
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    loan_t loans[COUNT + 1] = {0};
    cake_call_t *call;
    fixture_t fixture;
    fixture_envs(&fixture, is_sim, 1);
    server.limits.max_streams = 3;
    fixture_listen(&fixture, server, NULL);
    fixture_open(&fixture, channel);
    for (size_t i = 0; i < COUNT; i++)
        lend(&fixture, &loans[i], "/test/echo", lens[i], NULL);
    for (size_t i = 0; i < COUNT; i++) {
        fixture_wait(&fixture, is_loan_over, &loans[i]);
        assert_int_equal(loans[i].outcome.err, 0);
        assert_true(loans[i].outcome.is_right && loans[i].outcome.len == lens[i]);
    }
    lend(&fixture, &loans[COUNT], "/test/park", 3000000, &call);
    cake_call_cancel(call);
    cake_call_free(call);
    fixture_wait(&fixture, is_loan_over, &loans[COUNT]);
    assert_int_equal(loans[COUNT].outcome.err, CAKE_ECANCELED);
    /* Whether the whole body was away before it was canceled is seen only now: what follows on the connection is
     * after it. */
    assert_int_equal(cake_channel_call(fixture.channel, "/test/echo", NULL, 0, NULL, NULL), 0);
    for (int i = 0; i < atomic_load(&fixture.parked_count); i++)
        cake_rpc_fail(fixture.parked[i], CAKE_ECANCELED, NULL);
    cake_slice_t part = cake__slice("", 0);
    assert_int_equal(cake_channel_call_borrowed(fixture.channel, "/test/echo", &part, 1, NULL, NULL, note, loans, NULL),
                     CAKE_EINVAL);
    fixture_stop(&fixture);
    for (size_t i = 0; i <= COUNT; i++)
        assert_true(loans[i].released == 1 && loans[i].outcome.done == 1);
}

static int start_long_and_short(void *arg)
{
    loan_t *loans = arg;
    for (int i = 0; i < 4; i++)
        lend(loans->fixture, &loans[i], "/test/echo", 4000000, NULL);
    lend(loans->fixture, &loans[4], "/test/echo", 1000, NULL);
    return 0;
}

static void a_short_body_does_not_wait_for_long_ones(bool is_sim)
{
    fixture_t fixture;
    loan_t loans[5] = {0};
    fixture_start(&fixture, is_sim);
    loans->fixture = &fixture;
    assert_int_equal(cake__run_on_loop(fixture.client_env, start_long_and_short, loans), 0);
    fixture_wait(&fixture, is_done, &loans[4]);
    for (int i = 0; i < 4 && is_sim; i++)
        assert_int_equal(loans[i].outcome.done, 0);
    for (int i = 0; i < 4; i++) {
        fixture_wait(&fixture, is_done, &loans[i]);
        assert_true(loans[i].outcome.is_right && loans[i].outcome.len == 4000000);
    }
    fixture_stop(&fixture);
}

static void errors_come_with_code_and_message(bool is_sim)
{
    fixture_t fixture;
    fixture_start(&fixture, is_sim);
    static const int32_t codes[] = {CAKE_ENOTFOUND,  CAKE_EBUSY,        CAKE_EDRIFT, CAKE_ECONSISTENCY,
                                    CAKE_ENOTJOINED, CAKE_EUNAVAILABLE, CAKE_EPARSE, -4242};
    char message[64];
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    options.message = message;
    options.message_size = sizeof message;
    for (size_t i = 0; i < CAKE_COUNT_OF(codes); i++) {
        assert_int_equal(cake_channel_call(fixture.channel, "/test/fail", &codes[i], 4, &options, NULL), codes[i]);
        assert_string_equal(message, codes[i] == CAKE_EDRIFT ? cake_strerror(CAKE_EDRIFT) : "as you wish");
    }
    assert_int_equal(cake_channel_call(fixture.channel, "/test/fail", NULL, 0, NULL, NULL), CAKE_EINTERNAL);
    assert_int_equal(cake_channel_call(fixture.channel, "/test/none", NULL, 0, NULL, NULL), CAKE_EUNAVAILABLE);
    assert_int_equal(cake_channel_call(fixture.channel, "/none/echo", NULL, 0, NULL, NULL), CAKE_EUNAVAILABLE);
    assert_int_equal(cake_channel_call(fixture.channel, "/none/echo", pattern, 70000, NULL, NULL), CAKE_EUNAVAILABLE);
    assert_int_equal(cake_channel_call(fixture.channel, "test/echo", NULL, 0, NULL, NULL), CAKE_EINVAL);
    assert_int_equal(cake_channel_call(fixture.channel, "/test/e cho", NULL, 0, NULL, NULL), CAKE_EINVAL);
    assert_int_equal(call_echo(&fixture, "/test/echo", 10), 0);
    fixture_stop(&fixture);
}

#define CONTEXT_TIMEOUT_MS 90000

static void handle_context(cake_rpc_call_t *call, void *arg)
{
    fixture_t *fixture = arg;
    cake_addr_t peer;
    cake_rpc_peer(call, &peer);
    assert_true(peer.family == 4 && peer.port != 0);
    uint64_t now = cake__now_ns(fixture->server_env), deadline = cake_rpc_deadline_ns(call);
    assert_true(deadline > now && deadline <= now + CONTEXT_TIMEOUT_MS * CAKE_NS_PER_MS);
    assert_string_equal(cake_rpc_header(call, "x-one"), "1");
    assert_string_equal(cake_rpc_header(call, "x-two"), "");
    assert_null(cake_rpc_header(call, "x-three"));
    assert_int_equal(cake_rpc_set_header(call, "Bad", "x"), CAKE_EINVAL);
    assert_int_equal(cake_rpc_set_header(call, "datacake-error", "-1"), CAKE_EINVAL);
    assert_int_equal(cake_rpc_set_header(call, "x-bad", "a\nb"), CAKE_EINVAL);
    assert_int_equal(cake_rpc_set_header(call, "x-answer", "forty two"), 0);
    cake_slice_t parts[] = {{"ab", 2}, {NULL, 0}, {"c", 1}};
    cake_rpc_replyv(call, parts, 3);
}

static void headers_travel_both_ways(bool is_sim)
{
    fixture_t fixture;
    fixture_start(&fixture, is_sim);
    static const cake_rpc_method_t method = {"context", handle_context, 0};
    cake_rpc_service_t service = {"other", &method, 1, &fixture, NULL};
    assert_int_equal(cake_rpc_add_service(fixture.server, &service), 0);
    cake_header_t headers[] = {{"x-one", "1"}, {"x-two", ""}}, bad = {"content-length", "3"};
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    options.headers = headers;
    options.header_count = 2;
    options.timeout_ms = CONTEXT_TIMEOUT_MS;
    cake_reply_t *reply;
    assert_int_equal(cake_channel_call(fixture.channel, "/other/context", NULL, 0, &options, &reply), 0);
    assert_string_equal(cake_reply_header(reply, "x-answer"), "forty two");
    assert_null(cake_reply_header(reply, "x-bad"));
    assert_true(cake__slice_equal(cake_reply_body(reply), cake__slice_str("abc")));
    cake_reply_free(reply);
    options.headers = &bad;
    options.header_count = 1;
    assert_int_equal(cake_channel_call(fixture.channel, "/other/context", NULL, 0, &options, &reply), CAKE_EINVAL);
    fixture_stop(&fixture);
}

static uint64_t stamp(void *arg)
{
    return *(uint64_t *)arg;
}

static int observe(void *arg, uint64_t value)
{
    uint64_t *own = arg;
    if (value >= 1000)
        return CAKE_EDRIFT;
    *own = value > *own ? value : *own;
    return 0;
}

static void clock_stamps_travel_with_calls(bool is_sim)
{
    fixture_t fixture;
    uint64_t at_server = 40, at_client = 7;
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    server.hooks = (cake_rpc_hooks_t){stamp, observe, &at_server};
    channel.hooks = (cake_rpc_hooks_t){stamp, observe, &at_client};
    server.cluster_id = channel.cluster_id = "cake";
    fixture_envs(&fixture, is_sim, 1);
    fixture_listen(&fixture, server, NULL);
    fixture_open(&fixture, channel);
    assert_int_equal(call_echo(&fixture, "/test/echo", 3), 0);
    assert_int_equal(at_client, 40);
    at_client = 90;
    assert_int_equal(call_echo(&fixture, "/test/echo", 3), 0);
    assert_int_equal(at_server, 90);
    at_client = 1000;
    assert_int_equal(call_echo(&fixture, "/test/echo", 3), CAKE_EDRIFT);
    fixture_stop(&fixture);
}

static void another_cluster_is_refused(bool is_sim)
{
    fixture_t fixture;
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    server.cluster_id = "cake";
    channel.cluster_id = "bread";
    fixture_envs(&fixture, is_sim, 1);
    fixture_listen(&fixture, server, NULL);
    fixture_open(&fixture, channel);
    assert_int_equal(call_echo(&fixture, "/test/echo", 3), CAKE_ECONFLICT);
    fixture_stop(&fixture);
}

static void bodies_over_the_limit_are_refused(bool is_sim)
{
    fixture_t fixture;
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    server.limits.max_body_bytes = 100000;
    channel.limits.max_body_bytes = 300000;
    fixture_envs(&fixture, is_sim, 1);
    fixture_listen(&fixture, server, NULL);
    fixture_open(&fixture, channel);
    assert_int_equal(call_echo(&fixture, "/test/echo", 100000), 0);
    assert_int_equal(call_echo(&fixture, "/test/echo", 100001), CAKE_ETOOBIG);
    assert_int_equal(call_echo(&fixture, "/test/echo", 300000), CAKE_ETOOBIG);
    assert_int_equal(call_echo(&fixture, "/test/echo", 300001), CAKE_ETOOBIG);
    uint32_t len = 300001;
    assert_int_equal(cake_channel_call(fixture.channel, "/test/make", &len, 4, NULL, NULL), CAKE_ETOOBIG);
    len = 300000;
    assert_int_equal(cake_channel_call(fixture.channel, "/test/make", &len, 4, NULL, NULL), 0);
    fixture_stop(&fixture);
}

static void unpark(fixture_t *fixture, const char *text)
{
    int count = atomic_load(&fixture->parked_count);
    for (int i = 0; i < count; i++)
        cake_rpc_reply(fixture->parked[i], text, strlen(text));
    atomic_store(&fixture->parked_count, 0);
}

/* A call whose time is over before it was sent never comes to its handler: then there is another one. */
static void calls_time_out(bool is_sim)
{
    fixture_t fixture;
    fixture_start(&fixture, is_sim);
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    options.timeout_ms = 50;
    assert_int_equal(call_echo(&fixture, "/test/echo", 10), 0);
    do {
        uint64_t before = cake__now_ns(fixture.client_env);
        assert_int_equal(cake_channel_call(fixture.channel, "/test/park", NULL, 0, &options, NULL), CAKE_ETIMEDOUT);
        assert_true(cake__now_ns(fixture.client_env) - before >= 50 * CAKE_NS_PER_MS);
        assert_int_equal(call_echo(&fixture, "/test/echo", 10), 0); /* what was sent before it has arrived before it */
    } while (!is_parked(&fixture));
    assert_true(cake_rpc_is_canceled(fixture.parked[0]));
    unpark(&fixture, "too late");
    fixture_stop(&fixture);
}

static void calls_can_be_canceled(bool is_sim)
{
    fixture_t fixture;
    fixture_start(&fixture, is_sim);
    outcome_t outcome = {0}, other = {0};
    cake_call_t *call, *early;
    assert_int_equal(cake_channel_call_async(fixture.channel, "/test/park", NULL, 0, NULL, note, &outcome, &call), 0);
    assert_int_equal(cake_channel_call_async(fixture.channel, "/test/echo", NULL, 0, NULL, note, &other, &early), 0);
    cake_call_cancel(early); /* maybe before it was sent */
    fixture_wait(&fixture, is_parked, &fixture);
    cake_call_cancel(call);
    cake_call_cancel(call);
    fixture_wait(&fixture, is_done, &outcome);
    fixture_wait(&fixture, is_done, &other);
    cake_call_cancel(call);
    cake_call_free(call);
    cake_call_free(early);
    assert_int_equal(outcome.err, CAKE_ECANCELED);
    assert_true(other.err == CAKE_ECANCELED || other.err == 0);
    assert_int_equal(call_echo(&fixture, "/test/echo", 10), 0);
    unpark(&fixture, "nobody waits");
    fixture_stop(&fixture);
    assert_true(outcome.done == 1 && other.done == 1);
}

static void replies_may_come_later_from_anywhere(bool is_sim)
{
    fixture_t fixture;
    fixture_start(&fixture, is_sim);
    outcome_t outcome = {0};
    cake_slice_t part = cake__slice("x", 1);
    assert_int_equal(cake_channel_call_async(fixture.channel, "/test/park", &part, 1, NULL, note, &outcome, NULL), 0);
    fixture_wait(&fixture, is_parked, &fixture);
    assert_int_equal(cake_rpc_body(fixture.parked[0]).len, 1);
    unpark(&fixture, "later");
    fixture_wait(&fixture, is_done, &outcome);
    assert_int_equal(outcome.len, 5);
    fixture_stop(&fixture);
}

static bool is_closed(void *arg)
{
    fixture_t *fixture = arg;
    return atomic_load(&fixture->removed) == 2; /* the service's, and the server's own end */
}

static void wait_until_closed(fixture_t *fixture)
{
    fixture_wait(fixture, is_closed, fixture);
    atomic_store(&fixture->removed, 0);
}

static void closing_a_server_lets_running_calls_finish(bool is_sim)
{
    fixture_t fixture;
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    server.drain_ms = REAL_PATIENCE_MS;
    fixture_envs(&fixture, is_sim, 1);
    fixture_listen(&fixture, server, NULL);
    fixture_open(&fixture, channel);
    outcome_t outcome = {0}, ended = {0};
    assert_int_equal(cake_channel_call_async(fixture.channel, "/test/park", NULL, 0, NULL, note, &outcome, NULL), 0);
    fixture_wait(&fixture, is_parked, &fixture);
    assert_int_equal(cake__rpc_server_close(fixture.server, (cake_event_fn)service_removed, &fixture), 0);
    assert_int_equal(cake_channel_call(fixture.channel, "/test/echo", NULL, 0, NULL, NULL), CAKE_ECONNECTION);
    assert_int_equal(outcome.done, 0);
    unpark(&fixture, "last");
    fixture_wait(&fixture, is_done, &outcome);
    assert_true(outcome.err == 0 && outcome.len == 4 && ended.done == 0);
    fixture.server = NULL;
    assert_int_equal(cake_channel_close(fixture.channel), 0);
    fixture.channel = NULL;
    wait_until_closed(&fixture);
    fixture_stop(&fixture);
}

static void a_server_that_goes_cuts_calls_and_comes_back(bool is_sim)
{
    fixture_t fixture;
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    server.drain_ms = 1;
    char address[CAKE_ADDR_TEXT_MAX];
    fixture_envs(&fixture, is_sim, 1);
    fixture_listen(&fixture, server, NULL);
    fixture_open(&fixture, channel);
    strcpy(address, cake_rpc_address(fixture.server));
    for (int round = 0; round < 3; round++) {
        outcome_t outcome = {0};
        assert_int_equal(cake_channel_call_async(fixture.channel, "/test/park", NULL, 0, NULL, note, &outcome, NULL),
                         0);
        fixture_wait(&fixture, is_parked, &fixture);
        assert_int_equal(cake__rpc_server_close(fixture.server, service_removed, &fixture), 0);
        fixture_wait(&fixture, is_done, &outcome);
        assert_int_equal(outcome.err, CAKE_ECONNECTION);
        unpark(&fixture, "gone");
        wait_until_closed(&fixture);
        assert_int_equal(cake_channel_call(fixture.channel, "/test/echo", NULL, 0, NULL, NULL), CAKE_ECONNECTION);
        fixture_listen(&fixture, server, address);
        assert_int_equal(call_echo(&fixture, "/test/echo", 100), 0);
    }
    fixture_stop(&fixture);
}

static void services_come_and_go(bool is_sim)
{
    fixture_t fixture;
    fixture_start(&fixture, is_sim);
    cake_rpc_service_t service = fixture_service(&fixture, "other");
    assert_int_equal(cake_rpc_add_service(fixture.server, &service), 0);
    assert_int_equal(cake_rpc_add_service(fixture.server, &service), CAKE_EDUPLICATE);
    assert_int_equal(call_echo(&fixture, "/other/echo", 10), 0);
    assert_int_equal(cake_rpc_remove_service(fixture.server, "other"), 0);
    assert_int_equal(fixture.removed, 1);
    assert_int_equal(cake_rpc_remove_service(fixture.server, "other"), CAKE_ENOTFOUND);
    assert_int_equal(call_echo(&fixture, "/other/echo", 10), CAKE_EUNAVAILABLE);
    assert_int_equal(call_echo(&fixture, "/test/echo", 10), 0); /* the others stay */
    assert_int_equal(cake_rpc_add_service(fixture.server, &service), 0);
    assert_int_equal(call_echo(&fixture, "/other/echo", 10), 0);
    cake_rpc_service_t bad = fixture_service(&fixture, "a/b");
    assert_int_equal(cake_rpc_add_service(fixture.server, &bad), CAKE_EINVAL);
    cake_rpc_method_t both = {"m", handle_echo, CAKE_RPC_BLOCKING | CAKE_RPC_STREAM};
    bad = (cake_rpc_service_t){"fine", &both, 1, NULL, NULL};
    assert_int_equal(cake_rpc_add_service(fixture.server, &bad), CAKE_EINVAL);
    fixture_stop(&fixture);
    assert_int_equal(fixture.removed, 3);
}

static void nobody_listens(bool is_sim)
{
    fixture_t fixture;
    fixture_start(&fixture, is_sim);
    char address[CAKE_ADDR_TEXT_MAX];
    strcpy(address, cake_rpc_address(fixture.server));
    assert_int_equal(cake_rpc_close(fixture.server), 0);
    fixture.server = NULL;
    for (int i = 0; i < 3; i++) /* the later ones wait for the back-off */
        assert_int_equal(cake_channel_call(fixture.channel, "/test/echo", NULL, 0, NULL, NULL), CAKE_ECONNECTION);
    assert_false(cake_channel_is_connected(fixture.channel));
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    fixture_listen(&fixture, server, address);
    assert_int_equal(call_echo(&fixture, "/test/echo", 10), 0);
    assert_true(cake_channel_is_connected(fixture.channel));
    cake_channel_t *other;
    assert_int_equal(cake_channel_open("nonsense", NULL, &other), CAKE_EPARSE);
    assert_int_equal(cake_channel_open("a:b:1", NULL, &other), CAKE_EPARSE);
    assert_int_equal(cake_channel_open("host:99999", NULL, &other), CAKE_EPARSE);
    fixture_stop(&fixture);
}

static int call_on_loop(void *arg)
{
    fixture_t *fixture = arg;
    int err = cake_channel_call(fixture->channel, "/test/echo", NULL, 0, NULL, NULL);
    return err == CAKE_EDEADLK ? cake_channel_close(fixture->channel) : err;
}

static void blocking_on_the_loop_is_refused(bool is_sim)
{
    fixture_t fixture;
    fixture_start(&fixture, is_sim);
    if (!is_sim)
        assert_int_equal(cake__run_on_loop(fixture.client_env, call_on_loop, &fixture), CAKE_EDEADLK);
    fixture_stop(&fixture);
}

static void closing_a_channel_ends_its_calls(bool is_sim)
{
    fixture_t fixture;
    fixture_start(&fixture, is_sim);
    outcome_t outcome = {0};
    assert_int_equal(cake_channel_call_async(fixture.channel, "/test/park", NULL, 0, NULL, note, &outcome, NULL), 0);
    fixture_wait(&fixture, is_parked, &fixture);
    assert_int_equal(cake_channel_close(fixture.channel), 0);
    assert_true(outcome.done == 1 && outcome.err == CAKE_ECLOSED);
    fixture.channel = NULL;
    unpark(&fixture, "x");
    fixture_stop(&fixture);
}

static void names_are_looked_up(bool is_sim)
{
    fixture_t fixture;
    fixture_start(&fixture, is_sim);
    char address[64];
    const char *port = strrchr(cake_rpc_address(fixture.server), ':');
    snprintf(address, sizeof address, "%s%s", is_sim ? "host-1" : "localhost", port);
    assert_int_equal(cake_channel_close(fixture.channel), 0);
    cake_channel_config_t config = CAKE_CHANNEL_CONFIG_INIT;
    config.env = fixture.client_env;
    config.connect_timeout_ms = real_patience(&fixture, 0);
    config.timeout_ms = real_patience(&fixture, 0);
    assert_int_equal(cake_channel_open(address, &config, &fixture.channel), 0);
    assert_int_equal(call_echo(&fixture, "/test/echo", 10), 0);
    cake_channel_t *lost;
    /* A real machine knows by the form of this name that there is none: it asks nobody, who may be slow to answer. */
    assert_int_equal(cake_channel_open(is_sim ? "no-such-host.invalid:1" : "no..such:1", &config, &lost), 0);
    assert_int_equal(cake_channel_call(lost, "/test/echo", NULL, 0, NULL, NULL), CAKE_ECONNECTION);
    assert_int_equal(cake_channel_close(lost), 0);
    fixture_stop(&fixture);
}

static void an_environment_comes_by_itself(void **state)
{
    cake_rpc_server_config_t config = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t patient = CAKE_CHANNEL_CONFIG_INIT;
    cake_rpc_server_t *server;
    cake_channel_t *channel;
    cake_reply_t *reply;
    fixture_t fixture = {0};
    patient.connect_timeout_ms = patient.timeout_ms = REAL_PATIENCE_MS;
    assert_int_equal(cake_rpc_listen(&config, &server), CAKE_EINVAL);
    config.listen_addr = "localhost:0";
    assert_int_equal(cake_rpc_listen(&config, &server), 0);
    cake_rpc_service_t service = fixture_service(&fixture, "echo");
    assert_int_equal(cake_rpc_add_service(server, &service), 0);
    assert_int_equal(cake_channel_open(cake_rpc_address(server), &patient, &channel), 0);
    assert_int_equal(cake_channel_call(channel, "/echo/echo", "hello", 5, NULL, &reply), 0);
    assert_int_equal(cake_channel_close(channel), 0);
    assert_int_equal(cake_rpc_close(server), 0);
    assert_memory_equal(cake_reply_body(reply).data, "hello", 5); /* a reply outlives its channel */
    cake_reply_free(reply);
    assert_int_equal(cake_rpc_close(NULL), 0);
    assert_int_equal(cake_channel_close(NULL), 0);
}

/* ---- options of programs that were built with other headers: shorter, longer, longer with what is not known here - */

static void configs_of_older_and_newer_servers_are_understood(void **state)
{
    static const cake_tls_config_t wrong;
    struct {
        cake_rpc_server_config_t known;
        uint64_t later;
    } config = {.known = CAKE_RPC_SERVER_CONFIG_INIT};
    cake_rpc_server_t *server;
    config.known.listen_addr = "127.0.0.1:0";
    config.known.tls = &wrong;
    assert_int_equal(cake_rpc_listen(&config.known, &server), CAKE_EINVAL);
    config.known.size = offsetof(cake_rpc_server_config_t, tls);
    assert_int_equal(cake_rpc_listen(&config.known, &server), 0);
    assert_int_equal(cake_rpc_close(server), 0);
    config.known.size = sizeof config;
    config.known.tls = NULL;
    assert_int_equal(cake_rpc_listen(&config.known, &server), 0);
    assert_int_equal(cake_rpc_close(server), 0);
    config.later = 1;
    assert_int_equal(cake_rpc_listen(&config.known, &server), CAKE_EINVAL);
    assert_null(server);
}

static void configs_of_older_and_newer_channels_are_understood(void **state)
{
    static const cake_tls_config_t wrong;
    struct {
        cake_channel_config_t known;
        uint64_t later;
    } config = {.known = CAKE_CHANNEL_CONFIG_INIT};
    cake_channel_t *channel;
    config.known.tls = &wrong;
    assert_int_equal(cake_channel_open("127.0.0.1:1", &config.known, &channel), CAKE_EINVAL);
    config.known.size = offsetof(cake_channel_config_t, tls);
    assert_int_equal(cake_channel_open("127.0.0.1:1", &config.known, &channel), 0);
    assert_int_equal(cake_channel_close(channel), 0);
    config.known.size = sizeof config;
    config.known.tls = NULL;
    assert_int_equal(cake_channel_open("127.0.0.1:1", &config.known, &channel), 0);
    assert_int_equal(cake_channel_close(channel), 0);
    config.later = 1;
    assert_int_equal(cake_channel_open("127.0.0.1:1", &config.known, &channel), CAKE_EINVAL);
    assert_null(channel);
}

static void options_of_older_and_newer_calls_are_understood(bool is_sim)
{
    static const cake_header_t wrong = {":path", "/"};
    struct {
        cake_call_options_t known;
        uint64_t later;
    } options = {.known = CAKE_CALL_OPTIONS_INIT};
    fixture_t fixture;
    char message[64] = "";
    fixture_start(&fixture, is_sim);
    options.known.headers = &wrong;
    options.known.header_count = 1;
    assert_int_equal(cake_channel_call(fixture.channel, "/test/echo", NULL, 0, &options.known, NULL), CAKE_EINVAL);
    options.known.size = offsetof(cake_call_options_t, headers);
    options.known.message = message;
    options.known.message_size = sizeof message;
    assert_int_equal(cake_channel_call(fixture.channel, "/test/echo", NULL, 0, &options.known, NULL), 0);
    assert_int_equal(cake_channel_call(fixture.channel, "/none/echo", NULL, 0, &options.known, NULL),
                     CAKE_EUNAVAILABLE);
    assert_string_equal(message, "");
    options.known.size = sizeof options;
    options.known.header_count = 0;
    assert_int_equal(cake_channel_call(fixture.channel, "/none/echo", NULL, 0, &options.known, NULL),
                     CAKE_EUNAVAILABLE);
    assert_string_not_equal(message, "");
    options.later = 1;
    assert_int_equal(cake_channel_call(fixture.channel, "/test/echo", NULL, 0, &options.known, NULL), CAKE_EINVAL);
    outcome_t outcome = {0};
    assert_int_equal(
        cake_channel_call_async(fixture.channel, "/test/echo", NULL, 0, &options.known, note, &outcome, NULL),
        CAKE_EINVAL);
    fixture_stop(&fixture);
}

#define BOTH(X)                                                                                                        \
    X(bodies_of_all_sizes_come_back)                                                                                   \
    X(bodies_are_sent_back_from_where_they_lie)                                                                        \
    X(a_borrowed_body_is_given_back_once)                                                                              \
    X(a_short_body_does_not_wait_for_long_ones)                                                                        \
    X(many_calls_share_one_connection)                                                                                 \
    X(errors_come_with_code_and_message)                                                                               \
    X(headers_travel_both_ways)                                                                                        \
    X(clock_stamps_travel_with_calls)                                                                                  \
    X(another_cluster_is_refused)                                                                                      \
    X(bodies_over_the_limit_are_refused)                                                                               \
    X(calls_time_out)                                                                                                  \
    X(calls_can_be_canceled)                                                                                           \
    X(replies_may_come_later_from_anywhere)                                                                            \
    X(closing_a_server_lets_running_calls_finish)                                                                      \
    X(a_server_that_goes_cuts_calls_and_comes_back)                                                                    \
    X(services_come_and_go)                                                                                            \
    X(nobody_listens)                                                                                                  \
    X(blocking_on_the_loop_is_refused)                                                                                 \
    X(closing_a_channel_ends_its_calls)                                                                                \
    X(names_are_looked_up)                                                                                             \
    X(options_of_older_and_newer_calls_are_understood)

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
    const struct CMUnitTest tests[] = {BOTH(LIST) cmocka_unit_test(an_environment_comes_by_itself),
                                       cmocka_unit_test(configs_of_older_and_newer_servers_are_understood),
                                       cmocka_unit_test(configs_of_older_and_newer_channels_are_understood)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
