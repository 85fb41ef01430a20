/* Bodies of requests that are read in the receive buffer: they lie there, and stay as they are for as long as the
 * call is held. ctest: no-tsan: one thread */
#include "rpc/fixture.h"
#include "rpc/server.h"

#define BODY_BYTES 8192u
#define HELD       48
#define MORE       16

static uint8_t body[BODY_BYTES];

static void park(fixture_t *fixture, uint8_t fill, outcome_t *outcome)
{
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    int before = atomic_load(&fixture->parked_count);
    cake_slice_t part = cake__slice(body, sizeof body);
    options.timeout_ms = CAKE_NO_TIMEOUT;
    memset(body, fill, sizeof body);
    assert_int_equal(cake_channel_call_async(fixture->channel, "/test/park", &part, 1, &options, note, outcome, NULL),
                     0);
    cake__world_run_for(fixture->world, 20 * CAKE_NS_PER_MS);
    assert_int_equal(atomic_load(&fixture->parked_count), before + 1);
}

static bool lies_in_buffer(const cake_rpc_call_t *call)
{
    const uint8_t *at = cake_rpc_body(call).data;
    return call->pinned != NULL && at >= call->pinned->data &&
           at + cake_rpc_body(call).len <= call->pinned->data + call->pinned->len && call->gathered.capacity == 0;
}

static void is_filled(const cake_rpc_call_t *call, uint8_t fill)
{
    const uint8_t *at = cake_rpc_body(call).data;
    assert_int_equal(cake_rpc_body(call).len, BODY_BYTES);
    for (size_t i = 0; i < BODY_BYTES; i++)
        assert_int_equal(at[i], fill);
}

static void echo_other(fixture_t *fixture)
{
    cake_reply_t *reply;
    memset(body, 0xee, sizeof body);
    assert_int_equal(cake_channel_call(fixture->channel, "/test/echo", body, sizeof body, NULL, &reply), 0);
    assert_memory_equal(cake_reply_body(reply).data, body, sizeof body);
    cake_reply_free(reply);
}

static void begin(fixture_t *fixture)
{
    fixture_start(fixture, true);
    for (int i = 0; i < 3; i++) /* how much a read takes follows from those before */
        echo_other(fixture);
}

static void a_body_in_one_frame_is_not_copied(void **state)
{
    fixture_t fixture;
    begin(&fixture);
    for (uint8_t i = 0; i < 20; i++) {
        outcome_t outcome = {.done = 0};
        fixture.parked_count = 0;
        park(&fixture, i, &outcome);
        assert_true(lies_in_buffer(fixture.parked[0]));
        is_filled(fixture.parked[0], i);
        cake_rpc_reply(fixture.parked[0], NULL, 0);
        fixture_wait(&fixture, is_done, &outcome);
        assert_int_equal(outcome.err, 0);
    }
    fixture_stop(&fixture);
}

static void are_all_filled(const fixture_t *fixture, int from)
{
    for (int i = from; i < fixture->parked_count; i++)
        is_filled(fixture->parked[i], (uint8_t)i);
}

/* While others come and go, some of those held are answered, and at last the connection is gone. */
static void a_body_stays_while_its_call_is_held(void **state)
{
    fixture_t fixture;
    static outcome_t outcomes[HELD + MORE];
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    int in_buffer = 0;
    memset(outcomes, 0, sizeof outcomes);
    begin(&fixture);
    for (int i = 0; i < HELD; i++) {
        park(&fixture, (uint8_t)i, &outcomes[i]);
        in_buffer += lies_in_buffer(fixture.parked[i]);
        echo_other(&fixture);
    }
    assert_true(in_buffer > HELD / 2);
    are_all_filled(&fixture, 0);
    for (int i = 0; i < HELD / 2; i++) {
        cake_rpc_reply(fixture.parked[i], NULL, 0);
        echo_other(&fixture);
        are_all_filled(&fixture, i + 1);
    }
    assert_int_equal(cake_channel_close(fixture.channel), 0);
    fixture_open(&fixture, channel);
    for (int i = HELD; i < HELD + MORE; i++) { /* these use what is free of the buffers again */
        park(&fixture, (uint8_t)i, &outcomes[i]);
        echo_other(&fixture);
    }
    are_all_filled(&fixture, HELD / 2);
    for (int i = HELD / 2; i < HELD + MORE; i++) {
        assert_int_equal(cake_rpc_is_canceled(fixture.parked[i]), i < HELD);
        cake_rpc_reply(fixture.parked[i], NULL, 0);
    }
    fixture_wait(&fixture, is_done, &outcomes[HELD + MORE - 1]);
    for (int i = 0; i < HELD + MORE; i++)
        assert_true(outcomes[i].done == 1 && outcomes[i].err == (i < HELD / 2 || i >= HELD ? 0 : CAKE_ECLOSED));
    fixture_stop(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_body_in_one_frame_is_not_copied),
                                       cmocka_unit_test(a_body_stays_while_its_call_is_held)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
