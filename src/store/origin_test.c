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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_write_says_which_node_it_comes_from),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
