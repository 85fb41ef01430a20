/* What storages are told of where a write comes from. (examples/blobs.c fetches from there.) */
#include "store/cluster_test.h"

typedef struct {
    cake_storage_ops_t ops; /* first: how it is found again */
    const cake_storage_ops_t *inner;
    int local, remote;
    uint16_t from; /* of the last remote write */
    char address[CAKE_ADDR_TEXT_MAX];
} witness_t;

static int write_witnessed(cake_storage_t *storage, const cake_batch_t *batch)
{
    witness_t *witness = (witness_t *)(uintptr_t)storage->ops;
    for (size_t i = 0; i < batch->write_count; i++) {
        const cake_write_context_t *context = batch->writes[i].context;
        cake_reply_t *reply;
        witness->local += context == NULL;
        witness->remote += context != NULL;
        if (context == NULL)
            continue;
        witness->from = context->node_id;
        snprintf(witness->address, sizeof witness->address, "%s", context->address);
        /* This storage runs on the loop, where nothing may wait. */
        assert_int_equal(context->call(context->arg, "/x/y", "", 0, 1000, &reply), CAKE_EDEADLK);
        assert_null(reply);
        ((cake__origin_t *)context->arg)->told_ns = 0; /* long ago */
        context->progress(context->arg);
    }
    return witness->inner->write(storage, batch);
}

static void watch_storage(cluster_t *cluster, int id, witness_t *witness)
{
    cake_storage_t *storage = cluster->members[id].storage;
    witness->inner = storage->ops;
    witness->ops = *storage->ops;
    witness->ops.write = write_witnessed;
    storage->ops = &witness->ops;
}

static void each_write_says_which_node_it_comes_from(void **state)
{
    (void)state;
    witness_t one = {0}, two = {0}, three = {0};
    cluster_t cluster = {0};
    cluster_open(&cluster, 3, 101, NULL);
    watch_storage(&cluster, 1, &one);
    watch_storage(&cluster, 2, &two);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), 0);
    assert_int_equal(one.local, 1);
    assert_int_equal(one.remote, 0);
    assert_int_equal(two.local, 0);
    assert_int_equal(two.remote, 1);
    assert_int_equal(two.from, 1);
    assert_string_equal(two.address, "10.0.0.1:7000");

    /* By a session: from whoever it is with. */
    cluster_crash(&cluster, 3);
    assert_int_equal(put_text(&cluster, 2, "b", "2", CAKE_ONE), 0);
    watch_storage(&cluster, 3, &three);
    cluster_start(&cluster, 3);
    cluster_wait(&cluster, cluster_is_equal, 20000);
    assert_int_equal(three.local, 0);
    assert_int_equal(three.remote, 1);
    assert_in_range(three.from, 1, 2);
    assert_text(&cluster, 3, "b", "2");

    cluster_close(&cluster);
}

/* ---- progress: a storage on a thread of its own, once slow over a write of another node ---------------------------*/

#define SLOW_S 30 /* three times as long as a sender waits without a word */

typedef struct {
    cake_storage_ops_t ops; /* first: how it is found again */
    const cake_storage_ops_t *inner;
    cake_env_t *env;
    bool tells, was_slow;
} slow_t;

typedef struct {
    cake_env_t *env;
    cake_gate_t gate;
    cake_timer_t timer;
} nap_t;

static void end_nap(void *arg)
{
    nap_t *nap = arg;
    nap->env->ops->gate_open(nap->env, &nap->gate);
}

static int begin_nap(void *arg)
{
    nap_t *nap = arg;
    nap->timer = CAKE_TIMER_INIT(end_nap, nap);
    cake__timer_arm_ms(nap->env, &nap->timer, 1000);
    return 0;
}

static void take_a_second(cake_env_t *env)
{
    nap_t nap = {.env = env};
    env->ops->gate_init(env, &nap.gate);
    assert_int_equal(cake__run_on_loop(env, begin_nap, &nap), 0);
    env->ops->gate_wait(env, &nap.gate);
    env->ops->gate_destroy(env, &nap.gate);
}

static int write_slowly(cake_storage_t *storage, const cake_batch_t *batch)
{
    slow_t *slow = (slow_t *)(uintptr_t)storage->ops;
    const cake_write_context_t *context = batch->write_count == 0 ? NULL : batch->writes[0].context;
    bool is_slow = context != NULL && !slow->was_slow;
    slow->was_slow |= is_slow;
    for (int i = 0; i < SLOW_S && is_slow; i++) {
        take_a_second(slow->env);
        if (slow->tells)
            context->progress(context->arg);
    }
    return slow->inner->write(storage, batch);
}

/* Node 2 of two starts again, with a storage that will be slow once. */
static void open_with_slow_storage(cluster_t *cluster, uint64_t seed, slow_t *slow, int writes_while_down)
{
    char key[8];
    cluster->options.chunk_records = 4;
    cluster_open(cluster, 2, seed, NULL);
    assert_int_equal(put_text(cluster, 1, "first", "1", CAKE_ALL), 0);
    cluster_crash(cluster, 2);
    for (int i = 0; i < writes_while_down; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(put_text(cluster, 1, key, "1", CAKE_NONE), 0);
    }
    cake_storage_t *storage = cluster->members[2].storage;
    slow->inner = storage->ops;
    slow->ops = *storage->ops;
    slow->ops.flags &= ~(uint32_t)CAKE_STORAGE_INLINE;
    slow->ops.write = write_slowly;
    storage->ops = &slow->ops;
    slow->env = cake__host_start(cluster->members[2].host);
    cluster_start(cluster, 2);
}

static void a_batch_is_given_up_only_when_nothing_is_heard_of_it(void **state)
{
    (void)state;
    for (int tells = 0; tells <= 1; tells++) {
        cluster_t cluster = {0};
        slow_t slow = {.tells = tells == 1};
        open_with_slow_storage(&cluster, 102, &slow, 0);
        cake__world_run_for(cluster.world, 5 * SECOND_NS); /* they have met */
        assert_false(slow.was_slow);
        uint64_t failed = cluster.members[1].store->stats.batches_failed;
        assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_NONE), 0);
        cake__world_run_for(cluster.world, (SLOW_S + 10) * SECOND_NS);
        assert_true(slow.was_slow);
        assert_int_equal(cluster.members[1].store->stats.batches_failed - failed, tells == 1 ? 0 : 1);
        assert_text(&cluster, 2, "a", "1");
        cluster_close(&cluster);
    }
}

static void a_session_is_given_up_only_when_nothing_is_heard_of_it(void **state)
{
    (void)state;
    for (int tells = 0; tells <= 1; tells++) {
        cluster_t cluster = {0};
        slow_t slow = {.tells = tells == 1};
        open_with_slow_storage(&cluster, 103, &slow, 20);
        cluster_wait(&cluster, cluster_is_equal, 120000);
        assert_true(slow.was_slow);
        const cake_store_stats_t *stats = &cluster.members[2].store->stats;
        assert_true(tells == 1 ? stats->sessions_failed == 0 && stats->sessions_finished == 1
                               : stats->sessions_failed >= 1);
        assert_text(&cluster, 2, "k19", "1");
        cluster_close(&cluster);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_write_says_which_node_it_comes_from),
        cmocka_unit_test(a_batch_is_given_up_only_when_nothing_is_heard_of_it),
        cmocka_unit_test(a_session_is_given_up_only_when_nothing_is_heard_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
