/* Promises of reads at a level: who is asked, who answers, and what is sent on. */
#include "store/cluster_test.h"

/* ---- calls --------------------------------------------------------------------------------------------------------*/

typedef struct {
    cake_store_t *store; /* of who asks */
    uint16_t node_id;
    bool is_over;
    int err;
} asking_t;

static void on_answered(cake_reply_t *reply, void *arg)
{
    asking_t *asking = arg;
    asking->err = cake_reply_err(reply);
    asking->is_over = true;
    cake_reply_free(reply);
}

static int ask(void *arg)
{
    asking_t *asking = arg;
    cake__buf_t out;
    cake__buf_init(&out, asking->store->alloc);
    cake__put_hail(asking->store, &out);
    cake__put_string(&out, cake__slice_str("ks"));
    cake__put_string(&out, cake__slice_str("a"));
    cake_slice_t body = cake__buf_slice(&out);
    int err = cake__store_call(asking->store, asking->node_id, "read", &body, 1, 1000, on_answered, asking);
    cake__buf_free(&out);
    return err;
}

/* What node `to` answers to a read of node `from`, whatever that thinks of it. */
static int read_from(cluster_t *cluster, int from, uint16_t to)
{
    asking_t asking = {.store = cluster->members[from].store, .node_id = to};
    assert_int_equal(cake__run_on_loop(asking.store->env, ask, &asking), 0);
    cake__world_run_for(cluster->world, 2 * SECOND_NS);
    assert_true(asking.is_over);
    return asking.err;
}

static int get_at(cluster_t *cluster, int id, cake_consistency_t level, const char *value)
{
    cake_doc_t *doc = NULL;
    int err = cake_store_get_at(cluster->members[id].store, "ks", cake_key_str("a"), level, &doc);
    if (err == 0)
        assert_true(cake__slice_equal(cake_doc_value(doc), cake__slice_str(value)));
    cake_doc_free(doc);
    return err;
}

/* ---- tests --------------------------------------------------------------------------------------------------------*/

/* Node 3 never gets through its first session. It counts as one that will be there soon: what all others can answer
 * alone does not ask it, and all of them are not there yet. */
static void a_node_that_has_not_joined_answers_no_reads_and_is_asked_for_none(void **state)
{
    (void)state;
    static const cake_consistency_t levels[] = {CAKE_ONE, CAKE_QUORUM, CAKE_ALL};
    cluster_t cluster = {0};
    refusing_t refusing;
    cluster_open(&cluster, 2, 401, NULL);
    assert_int_equal(put_text(&cluster, 1, "a", "1", CAKE_ALL), 0);
    member_t *third = &cluster.members[3];
    third->host = cake__world_add_host(cluster.world);
    third->data_center = "dc-1";
    assert_int_equal(cake_memory_open(&third->storage), 0);
    refuse_documents(third->storage, &refusing, CAKE_EIO);
    cluster_start(&cluster, 3);
    cake__world_run_for(cluster.world, 8 * SECOND_NS);
    assert_false(third->store->is_joined);
    cake__peer_t *peer = cake__peer_find(cluster.members[1].store, 3);
    assert_true(peer != NULL && cake__peer_is_there(peer) && !peer->is_replica);

    for (size_t i = 0; i < CAKE_COUNT_OF(levels); i++) {
        assert_int_equal(get_at(&cluster, 3, levels[i], NULL), CAKE_ENOTJOINED);
        for (int turn = 0; turn < 8; turn++)
            assert_int_equal(get_at(&cluster, 1, levels[i], "1"), levels[i] == CAKE_ALL ? CAKE_ECONSISTENCY : 0);
    }
    assert_int_equal(read_from(&cluster, 1, 2), 0);
    assert_int_equal(read_from(&cluster, 1, 3), CAKE_ENOTJOINED);

    refusing.err = 0;
    cluster.count = 3;
    cluster_wait(&cluster, cluster_has_joined, 60000);
    assert_int_equal(get_at(&cluster, 3, CAKE_ALL, "1"), 0);
    assert_int_equal(read_from(&cluster, 1, 3), 0);
    cluster_close(&cluster);
}

/* A new document is on node 2 alone; nothing but reads takes it anywhere for the next second. */
static void open_with_news(cluster_t *cluster, uint64_t seed)
{
    cluster->options.batch_interval_ms = 600000;
    cluster_open(cluster, 3, seed, NULL);
    assert_int_equal(put_text(cluster, 1, "a", "old", CAKE_ALL), 0);
    cluster_wait(cluster, cluster_is_equal, 20000);
    assert_int_equal(put_text(cluster, 2, "a", "new", CAKE_NONE), 0);
    assert_text(cluster, 1, "a", "old");
    assert_text(cluster, 3, "a", "old");
}

static uint64_t sent_by(cluster_t *cluster, int id)
{
    const cake__peer_t *peer = cake__peer_find(cluster->members[id].store, 3);
    return cluster->members[id].store->stats.batches_sent + peer->queue_count;
}

static void a_read_repairs_this_node_and_then_the_others(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    open_with_news(&cluster, 402);
    uint64_t sent = sent_by(&cluster, 1);
    assert_int_equal(get_at(&cluster, 1, CAKE_ALL, "new"), 0);
    cake__world_run_for(cluster.world, SECOND_NS / 10);
    assert_text(&cluster, 1, "a", "new");
    assert_true(sent_by(&cluster, 1) > sent);
    cluster_close(&cluster);
}

/* By its disk, or as a stamp of too far ahead: what is not on the disk of who sends it, no storage can fetch from
 * there. */
static void what_this_node_has_refused_is_not_sent_on(void **state)
{
    (void)state;
    for (int by_disk = 0; by_disk <= 1; by_disk++) {
        cluster_t cluster = {0};
        refusing_t refusing;
        open_with_news(&cluster, 403);
        if (by_disk)
            refuse_documents(cluster.members[1].storage, &refusing, CAKE_EIO);
        else
            cake__host_jump_clock(cluster.members[1].host, -3600000);
        uint64_t sent = sent_by(&cluster, 1);
        assert_int_equal(get_at(&cluster, 1, CAKE_ALL, "new"), 0);
        cake__world_run_for(cluster.world, SECOND_NS / 10);
        assert_text(&cluster, 1, "a", "old");
        assert_text(&cluster, 3, "a", "old");
        assert_int_equal(sent_by(&cluster, 1), sent);
        cluster_close(&cluster);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_that_has_not_joined_answers_no_reads_and_is_asked_for_none),
        cmocka_unit_test(a_read_repairs_this_node_and_then_the_others),
        cmocka_unit_test(what_this_node_has_refused_is_not_sent_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
