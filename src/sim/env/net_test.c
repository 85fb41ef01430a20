/* What goes wrong between simulated hosts, each kind alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sim/env/actor_test.h"
#include "sim/env/world.h"

/* A world of three hosts with an actor on each. */
typedef struct {
    cake__world_t *world;
    actor_t *a, *b, *c;
} trio_t;

static trio_t trio_with(uint64_t seed, const cake__faults_t *faults)
{
    cake__world_options_t options = {.seed = seed};
    if (faults != NULL)
        options.faults = *faults;
    trio_t trio = {.world = world_of(&options, 3)};
    trio.a = actor_new(trio.world, 1);
    trio.b = actor_new(trio.world, 2);
    trio.c = actor_new(trio.world, 3);
    return trio;
}

static void trio_free(trio_t *trio)
{
    cake__world_free(trio->world);
    actor_free(trio->a);
    actor_free(trio->b);
    actor_free(trio->c);
}

/* ---- streams ---- */

static size_t reads_of_transfer(double segment_rate)
{
    trio_t trio = trio_with(1, &(cake__faults_t){.segment_rate = segment_rate});
    actors_connect(trio.a, trio.b);
    actor_write(trio.b, ACTOR_OUT_BYTES);
    run_seconds(trio.world, 1);
    assert_int_equal(trio.a->received, ACTOR_OUT_BYTES);
    size_t reads = trio.a->read_count;
    trio_free(&trio);
    return reads;
}

static void test_segmentation_makes_more_and_smaller_reads(void **state)
{
    size_t whole = reads_of_transfer(0);
    assert_int_equal(whole, ACTOR_OUT_BYTES / 4096 + 1);
    assert_true(reads_of_transfer(1) > whole * 3 / 2);
}

static void test_stalls_delay_bytes_and_lose_none(void **state)
{
    uint64_t latest_ns = 0;
    for (uint64_t seed = 0; seed < 10; seed++) {
        trio_t trio = trio_with(seed, &(cake__faults_t){.stall_rate = 1, .stall_max_ns = 3 * ACTOR_SECOND_NS});
        actors_connect(trio.a, trio.b);
        uint64_t start_ns = cake__world_now_ns(trio.world);
        actor_write(trio.b, 100);
        run_seconds(trio.world, 3.1);
        assert_int_equal(trio.a->received, 100);
        latest_ns = cake__max_u64(latest_ns, trio.a->received_ns - start_ns);
        trio_free(&trio);
    }
    assert_true(latest_ns > ACTOR_SECOND_NS);
}

static void test_resets_break_both_ends_at_any_byte(void **state)
{
    size_t least = SIZE_MAX, most = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        trio_t trio = trio_with(seed, &(cake__faults_t){.reset_rate = 1});
        actors_connect(trio.a, trio.b);
        actor_write(trio.b, ACTOR_OUT_BYTES);
        run_seconds(trio.world, 1);
        assert_true(trio.a->is_over && trio.b->is_over);
        assert_int_equal(trio.a->read_err, CAKE_ECONNECTION);
        assert_int_equal(trio.b->read_err, CAKE_ECONNECTION);
        least = trio.a->received < least ? trio.a->received : least;
        most = trio.a->received > most ? trio.a->received : most;
        actor_write(trio.b, 1);
        run_seconds(trio.world, 1);
        assert_int_equal(trio.b->write_err, CAKE_ECONNECTION);
        trio_free(&trio);
    }
    assert_true(least < ACTOR_OUT_BYTES / 10 && most > ACTOR_OUT_BYTES * 9 / 10);
}

static void test_half_open_streams_break_for_one_end_until_the_other_writes(void **state)
{
    unsigned reader_heard = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        trio_t trio = trio_with(seed, &(cake__faults_t){.half_open_rate = 1});
        actors_connect(trio.a, trio.b);
        actor_write(trio.b, 1000);
        run_seconds(trio.world, 1000);
        assert_int_equal(trio.a->is_over + trio.b->is_over, 1);
        reader_heard += trio.a->is_over;
        cake__world_set_faults(trio.world, NULL);
        actor_write(trio.a->is_over ? trio.b : trio.a, 1);
        run_seconds(trio.world, 1);
        assert_true(trio.a->is_over && trio.b->is_over);
        trio_free(&trio);
    }
    assert_in_range(reader_heard, 10, 40);
}

/* Host 2 writes 400,000 bytes; true when some of them, and all after those, are swallowed. */
static bool is_swallowed(trio_t *trio)
{
    for (unsigned i = 0; i < 4; i++) {
        trio->a->received = 0; /* the pattern starts again with each write */
        actor_write(trio->b, ACTOR_OUT_BYTES);
        run_seconds(trio->world, 1);
        if (trio->a->received < ACTOR_OUT_BYTES)
            return true;
    }
    return false;
}

static void test_black_holes_swallow_one_direction(void **state)
{
    unsigned swallowed = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        trio_t trio = trio_with(seed, &(cake__faults_t){.black_hole_rate = 1});
        actors_connect(trio.a, trio.b);
        if (is_swallowed(&trio)) {
            swallowed++;
            run_seconds(trio.world, 61);
            assert_int_equal(trio.b->read_err, CAKE_ETIMEDOUT); /* its sender gives up */
        } else {
            run_seconds(trio.world, 61);
            assert_false(trio.b->is_over); /* it is the other direction, which nobody uses */
        }
        assert_false(trio.a->is_over); /* nothing comes, not even the end */
        trio_free(&trio);
    }
    assert_in_range(swallowed, 10, 30);
}

static void test_connects_are_refused_or_get_no_answer(void **state)
{
    trio_t refused = trio_with(1, &(cake__faults_t){.connect_refuse_rate = 1});
    actor_listen(refused.a);
    actor_connect(refused.b, 1);
    run_seconds(refused.world, 0.1);
    assert_true(refused.b->is_connected);
    assert_int_equal(refused.b->connect_err, CAKE_ECONNECTION);
    trio_free(&refused);

    trio_t unanswered = trio_with(1, &(cake__faults_t){.connect_timeout_rate = 1});
    actor_listen(unanswered.a);
    actor_connect(unanswered.b, 1);
    run_seconds(unanswered.world, 29);
    assert_false(unanswered.b->is_connected);
    run_seconds(unanswered.world, 2);
    assert_int_equal(unanswered.b->connect_err, CAKE_ETIMEDOUT);
    trio_free(&unanswered);
}

static void test_nobody_reaches_a_loopback_listener_from_elsewhere(void **state)
{
    trio_t trio = trio_with(1, NULL);
    cake_addr_t loopback = {.family = 4, .port = ACTOR_PORT, .ip = {127, 0, 0, 1}};
    actor_listen(trio.a);
    trio.a->listener->addr = loopback;
    actor_connect(trio.b, 1);
    run_seconds(trio.world, 1);
    assert_int_equal(trio.b->connect_err, CAKE_ECONNECTION);
    trio_free(&trio);
}

static void post_nothing(void *arg)
{
}

static void post_unlisten(void *arg)
{
    actor_do_unlisten(arg);
}

/* The connection waits to be accepted behind the closing of its listener. */
static void test_a_listener_that_closes_resets_what_it_did_not_accept(void **state)
{
    trio_t trio = trio_with(1, NULL);
    cake_post_t busy = {.fn = post_nothing}, unlisten = {.fn = post_unlisten, .arg = trio.a};
    actor_listen(trio.a);
    cake__host_slow(trio.a->host, ACTOR_SECOND_NS);
    trio.a->env->ops->post(trio.a->env, &busy);
    trio.a->env->ops->post(trio.a->env, &unlisten);
    actor_connect(trio.b, 1);
    run_seconds(trio.world, 0.5);
    assert_int_equal(trio.b->connect_err, 0);
    assert_false(trio.b->is_over);
    run_seconds(trio.world, 3);
    assert_int_equal(trio.b->read_err, CAKE_ECONNECTION);
    assert_true(trio.a->is_listener_closed && trio.a->stream == NULL);
    trio_free(&trio);
}

/* ---- datagrams ---- */

static void send_packets(trio_t *trio, uint32_t count)
{
    actor_open_socket(trio->a);
    actor_open_socket(trio->b);
    actor_send_packets(trio->b, 1, count);
    run_seconds(trio->world, 2);
}

static void test_datagrams_get_lost_doubled_and_out_of_order(void **state)
{
    trio_t lossy = trio_with(1, &(cake__faults_t){.loss_rate = 0.5});
    send_packets(&lossy, 1000);
    assert_in_range(lossy.a->packet_count, 400, 600);
    trio_free(&lossy);

    trio_t doubled = trio_with(1, &(cake__faults_t){.duplicate_rate = 0.5});
    send_packets(&doubled, 1000);
    assert_in_range(doubled.a->packet_count, 1400, 1600);
    trio_free(&doubled);

    trio_t disordered = trio_with(1, &(cake__faults_t){.reorder_rate = 0.1, .reorder_max_ns = ACTOR_SECOND_NS});
    unsigned overtaken = 0;
    send_packets(&disordered, 1000);
    assert_int_equal(disordered.a->packet_count, 1000);
    for (uint32_t i = 1; i < 1000; i++)
        overtaken += disordered.a->packets[i] < disordered.a->packets[i - 1];
    assert_true(overtaken > 50);
    trio_free(&disordered);
}

static void test_a_paused_host_keeps_a_bounded_number_of_datagrams(void **state)
{
    trio_t trio = trio_with(1, NULL);
    actor_open_socket(trio.a);
    actor_open_socket(trio.b);
    cake__host_pause(trio.a->host);
    actor_send_packets(trio.b, 1, 5000);
    run_seconds(trio.world, 1);
    assert_int_equal(trio.a->packet_count, 0);
    cake__host_resume(trio.a->host);
    run_seconds(trio.world, 1);
    assert_int_equal(trio.a->packet_count, 1024);
    trio_free(&trio);
}

/* ---- partitions ---- */

static void test_a_cut_holds_bytes_until_it_is_mended(void **state)
{
    trio_t trio = trio_with(1, NULL);
    actors_connect(trio.a, trio.b);
    cake__world_cut_both(trio.world, 1, 2, true);
    actor_write(trio.b, 1000);
    actor_write(trio.a, 1000);
    run_seconds(trio.world, 15);
    assert_int_equal(trio.a->received + trio.b->received, 0);
    cake__world_heal(trio.world);
    run_seconds(trio.world, 0.1);
    assert_int_equal(trio.a->received, 1000);
    assert_int_equal(trio.b->received, 1000);
    run_seconds(trio.world, 100);
    assert_false(trio.a->is_over || trio.b->is_over); /* nobody gives up any more */
    trio_free(&trio);
}

static void test_a_long_cut_makes_the_sender_give_up_and_tells_the_reader_nothing(void **state)
{
    trio_t trio = trio_with(1, NULL);
    actors_connect(trio.a, trio.b);
    cake__world_cut(trio.world, 2, 1, true);
    actor_write(trio.b, 1000);
    run_seconds(trio.world, 61);
    assert_int_equal(trio.b->read_err, CAKE_ETIMEDOUT);
    assert_false(trio.a->is_over);
    cake__world_heal(trio.world);
    run_seconds(trio.world, 100);
    assert_false(trio.a->is_over);
    actor_write(trio.a, 1);
    run_seconds(trio.world, 1);
    assert_int_equal(trio.a->read_err, CAKE_ECONNECTION);
    assert_int_equal(trio.a->received, 0);
    trio_free(&trio);
}

/* Bytes pass, acknowledgements do not: the sender must not believe in it for ever. */
static void test_a_cut_of_the_way_back_makes_the_sender_give_up(void **state)
{
    trio_t trio = trio_with(1, NULL);
    actors_connect(trio.a, trio.b);
    cake__world_cut(trio.world, 1, 2, true);
    actor_write(trio.b, 1000);
    run_seconds(trio.world, 1);
    assert_int_equal(trio.a->received, 1000);
    run_seconds(trio.world, 61);
    assert_int_equal(trio.b->read_err, CAKE_ETIMEDOUT);
    trio_free(&trio);
}

/* The reader makes space, but the writer cannot know before the way back is mended. */
static void test_a_full_buffer_behind_a_cut_goes_on_when_it_is_mended(void **state)
{
    trio_t trio = trio_with(1, NULL);
    trio.world->options.stream_buffer_bytes = 30000;
    actors_connect(trio.a, trio.b);
    cake__world_cut(trio.world, 1, 2, true);
    actor_write(trio.b, ACTOR_OUT_BYTES);
    run_seconds(trio.world, 10);
    assert_int_equal(trio.a->received, 30000);
    assert_false(trio.b->is_written);
    cake__world_heal(trio.world);
    run_seconds(trio.world, 1);
    assert_int_equal(trio.a->received, ACTOR_OUT_BYTES);
    assert_true(trio.b->is_written && trio.b->write_err == 0);
    trio_free(&trio);
}

static void test_cuts_are_per_direction_and_per_pair(void **state)
{
    trio_t trio = trio_with(1, NULL);
    actor_open_socket(trio.a);
    actor_open_socket(trio.b);
    actor_open_socket(trio.c);
    cake__world_cut(trio.world, 1, 2, true);
    actor_send_packets(trio.a, 2, 5);
    actor_send_packets(trio.b, 1, 6);
    actor_send_packets(trio.a, 3, 7);
    run_seconds(trio.world, 1);
    assert_int_equal(trio.b->packet_count, 0);
    assert_int_equal(trio.a->packet_count, 6);
    assert_int_equal(trio.c->packet_count, 7);
    trio_free(&trio);
}

static void test_connects_over_a_cut_wait_for_it_to_be_mended(void **state)
{
    trio_t trio = trio_with(1, NULL);
    actor_listen(trio.a);
    cake__world_cut(trio.world, 1, 2, true); /* the answers do not come through */
    actor_connect(trio.b, 1);
    actor_connect(trio.c, 1);
    run_seconds(trio.world, 5);
    assert_false(trio.b->is_connected);
    assert_true(trio.c->is_connected);
    cake__world_heal(trio.world);
    run_seconds(trio.world, 10);
    assert_true(trio.b->is_connected);
    assert_int_equal(trio.b->connect_err, 0);
    trio_free(&trio);

    trio = trio_with(1, NULL);
    actor_listen(trio.a);
    cake__world_cut(trio.world, 2, 1, true);
    actor_connect(trio.b, 1);
    run_seconds(trio.world, 31);
    assert_int_equal(trio.b->connect_err, CAKE_ETIMEDOUT);
    trio_free(&trio);
}

static void test_a_slow_link_is_slow(void **state)
{
    trio_t trio = trio_with(1, NULL);
    actors_connect(trio.a, trio.b);
    cake__world_slow_link(trio.world, 2, 1, ACTOR_SECOND_NS);
    actor_write(trio.b, 100);
    run_seconds(trio.world, 0.9);
    assert_int_equal(trio.a->received, 0);
    run_seconds(trio.world, 0.2);
    assert_int_equal(trio.a->received, 100);
    trio_free(&trio);
}

/* ---- names ---- */

typedef struct {
    cake_env_t *env;
    const char *text;
    cake_resolve_t *resolve;
    cake_addr_t addr;
    int err;
    bool is_known;
} question_t;

static void answered(void *arg, int err, const cake_addr_t *addrs, size_t count)
{
    question_t *question = arg;
    question->is_known = true;
    question->err = err;
    if (count > 0)
        question->addr = addrs[0];
}

static int ask(void *arg)
{
    question_t *question = arg;
    return question->env->ops->resolve(question->env, question->text, answered, question, &question->resolve);
}

static void test_hosts_have_names(void **state)
{
    trio_t trio = trio_with(1, NULL);
    question_t known = {.env = trio.a->env, .text = "host-3:7000"};
    question_t unknown = {.env = trio.a->env, .text = "host-4:7000"};
    cake_addr_t expected;
    cake__host_addr(trio.c->host, 7000, &expected);
    assert_int_equal(cake__run_on_loop(trio.a->env, ask, &known), 0);
    assert_int_equal(cake__run_on_loop(trio.a->env, ask, &unknown), 0);
    run_seconds(trio.world, 1);
    assert_true(known.is_known && cake_addr_equal(&known.addr, &expected));
    assert_int_equal(unknown.err, CAKE_ENOTFOUND);

    cake__world_set_faults(trio.world, &(cake__faults_t){.resolve_fail_rate = 1});
    question_t failing = {.env = trio.a->env, .text = "host-3:7000"};
    assert_int_equal(cake__run_on_loop(trio.a->env, ask, &failing), 0);
    run_seconds(trio.world, 1);
    assert_int_equal(failing.err, CAKE_ENOTFOUND);
    trio_free(&trio);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segmentation_makes_more_and_smaller_reads),
        cmocka_unit_test(test_stalls_delay_bytes_and_lose_none),
        cmocka_unit_test(test_resets_break_both_ends_at_any_byte),
        cmocka_unit_test(test_half_open_streams_break_for_one_end_until_the_other_writes),
        cmocka_unit_test(test_black_holes_swallow_one_direction),
        cmocka_unit_test(test_connects_are_refused_or_get_no_answer),
        cmocka_unit_test(test_nobody_reaches_a_loopback_listener_from_elsewhere),
        cmocka_unit_test(test_a_listener_that_closes_resets_what_it_did_not_accept),
        cmocka_unit_test(test_datagrams_get_lost_doubled_and_out_of_order),
        cmocka_unit_test(test_a_paused_host_keeps_a_bounded_number_of_datagrams),
        cmocka_unit_test(test_a_cut_holds_bytes_until_it_is_mended),
        cmocka_unit_test(test_a_long_cut_makes_the_sender_give_up_and_tells_the_reader_nothing),
        cmocka_unit_test(test_a_cut_of_the_way_back_makes_the_sender_give_up),
        cmocka_unit_test(test_a_full_buffer_behind_a_cut_goes_on_when_it_is_mended),
        cmocka_unit_test(test_cuts_are_per_direction_and_per_pair),
        cmocka_unit_test(test_connects_over_a_cut_wait_for_it_to_be_mended),
        cmocka_unit_test(test_a_slow_link_is_slow),
        cmocka_unit_test(test_hosts_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
