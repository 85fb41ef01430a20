/* Batches that a level waits for are sent while this node's storage writes: what may be seen of that, and when. */
#include "store/cluster_test.h"

static void restart(cluster_t *cluster)
{
    cluster_start(cluster, 1);
    cluster_wait(cluster, cluster_has_joined, 20000);
    cluster_wait(cluster, cluster_is_equal, 20000);
}

/* Starts node 1 again on a storage with a thread of its own. The first batch of a run writes the bound of the clock,
 * and is not sent ahead: it is over when this returns. */
static void open_on_lane(cluster_t *cluster, refusing_t *own, uint32_t more_flags)
{
    cake_storage_t *storage = cluster->members[1].storage;
    cluster_crash(cluster, 1);
    refuse_documents(storage, own, 0);
    own->ops.flags = (own->ops.flags & ~(uint32_t)CAKE_STORAGE_INLINE) | more_flags;
    restart(cluster);
    assert_int_equal(put_text(cluster, 1, "first", "0", CAKE_ALL), 0);
}

typedef struct {
    bool is_done;
    int err;
} answer_t;

static void note_answer(const cake_result_t *result, void *arg)
{
    answer_t *answer = arg;
    assert_false(answer->is_done);
    *answer = (answer_t){true, result->err};
}

static void begin_put(cluster_t *cluster, const char *key, const char *value, cake_consistency_t level,
                      answer_t *answer)
{
    *answer = (answer_t){0};
    assert_int_equal(cake_store_put_async(cluster->members[1].store, "ks", cake_key_str(key), value, strlen(value),
                                          level, note_answer, answer),
                     0);
}

#define STALL_MAX_S 4 /* drawn by the seed: long enough in each of these */

/* What was begun goes to a disk that is busy for seconds; the world is then a tenth of a second further. */
static void run_while_disk_is_busy(cluster_t *cluster)
{
    const cake__faults_t stalls = {.lane_stall_rate = 1, .lane_stall_max_ns = STALL_MAX_S * SECOND_NS};
    cake__world_set_faults(cluster->world, &stalls);
    cake__world_run_for(cluster->world, CAKE_NS_PER_MS);
    cake__world_set_faults(cluster->world, NULL);
    cake__world_run_for(cluster->world, SECOND_NS / 10);
}

static void the_others_have_it_first_and_it_is_acknowledged_with_the_own_disk(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    refusing_t own = {0};
    answer_t answer;
    cluster_open(&cluster, 3, 201, NULL);
    open_on_lane(&cluster, &own, 0);
    begin_put(&cluster, "a", "1", CAKE_ALL, &answer);
    run_while_disk_is_busy(&cluster);
    assert_text(&cluster, 2, "a", "1");
    assert_text(&cluster, 3, "a", "1");
    assert_text(&cluster, 1, "a", NULL);
    assert_false(answer.is_done);
    cake__world_run_for(cluster.world, STALL_MAX_S * SECOND_NS);
    assert_true(answer.is_done && answer.err == 0);
    assert_text(&cluster, 1, "a", "1");
    cluster_close(&cluster);
}

static void what_nobody_waits_for_goes_when_it_is_on_the_own_disk(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    refusing_t own = {0};
    answer_t answer;
    cluster_open(&cluster, 3, 205, NULL);
    open_on_lane(&cluster, &own, 0);
    begin_put(&cluster, "a", "1", CAKE_NONE, &answer);
    run_while_disk_is_busy(&cluster);
    cake__world_run_for(cluster.world, SECOND_NS / 5); /* more than it is kept back for the next batch */
    assert_text(&cluster, 2, "a", NULL);
    assert_false(answer.is_done);
    cake__world_run_for(cluster.world, STALL_MAX_S * SECOND_NS);
    assert_true(answer.is_done && answer.err == 0);
    assert_text(&cluster, 2, "a", "1");
    cluster_close(&cluster);
}

/* The peer's queue holds half a message already: of what is glued together nothing stays behind for the next. */
static void all_of_a_batch_goes_in_one_message(void **state)
{
    (void)state;
    static const char text[400] = {0};
    cluster_t cluster = {.options = {.batch_bytes = 1000, .no_compression = true}};
    refusing_t own = {0};
    answer_t answers[3];
    cake_store_stats_t before, after;
    cluster_open(&cluster, 2, 206, NULL);
    open_on_lane(&cluster, &own, 0);
    assert_int_equal(cake_store_stats(cluster.members[2].store, &before), 0);
    for (int i = 0; i < 3; i++) {
        answers[i] = (answer_t){0};
        assert_int_equal(cake_store_put_async(cluster.members[1].store, "ks", cake_key_u64((uint64_t)i), text,
                                              sizeof text, i == 0 ? CAKE_NONE : CAKE_ALL, note_answer, &answers[i]),
                         0);
        run_while_disk_is_busy(&cluster); /* the first is alone in its batch, and the two others wait for it */
        assert_false(answers[0].is_done);
    }
    cake__world_run_for(cluster.world, STALL_MAX_S * SECOND_NS);
    assert_true(answers[0].is_done && answers[1].is_done && answers[2].is_done);
    assert_int_equal(cake_store_stats(cluster.members[2].store, &after), 0);
    assert_int_equal(after.writes_received - before.writes_received, 3);
    assert_int_equal(after.batches_received - before.batches_received, 1);
    cluster_close(&cluster);
}

static void what_the_own_disk_refused_may_turn_up_but_nothing_after_it(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    refusing_t own = {0};
    answer_t answer;
    cluster_open(&cluster, 3, 202, NULL);
    open_on_lane(&cluster, &own, 0);
    own.err = CAKE_ENOSPC;
    begin_put(&cluster, "a", "1", CAKE_QUORUM, &answer);
    run_while_disk_is_busy(&cluster);
    assert_text(&cluster, 2, "a", "1");
    assert_false(answer.is_done);
    cake__world_run_for(cluster.world, STALL_MAX_S * SECOND_NS);
    assert_true(answer.is_done && answer.err == CAKE_ENOSPC);
    assert_int_equal(cake_store_put_if(cluster.members[1].store, "ks", cake_key_str("b"), "", 0, 1, CAKE_NONE),
                     CAKE_ECONFLICT); /* nothing is written: it says nothing of the disk */
    assert_int_equal(put_text(&cluster, 1, "b", "2", CAKE_QUORUM), CAKE_ENOSPC);
    own.err = 0;
    begin_put(&cluster, "c", "3", CAKE_ALL, &answer); /* none of its dots is one of those that are out already */
    run_while_disk_is_busy(&cluster);
    assert_false(answer.is_done);
    assert_text(&cluster, 2, "c", NULL); /* not before this disk has proved itself */
    cake__world_run_for(cluster.world, STALL_MAX_S * SECOND_NS);
    assert_true(answer.is_done);
    assert_true(answer.err == 0 || answer.err == CAKE_ECONSISTENCY);
    cluster_wait(&cluster, cluster_is_equal, 20000);
    for (int i = 1; i <= 3; i++) {
        assert_text(&cluster, i, "a", "1");
        assert_text(&cluster, i, "b", NULL);
        assert_text(&cluster, i, "c", "3");
    }
    cluster_close(&cluster);
}

static void a_node_that_dies_meanwhile_gets_it_back(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    refusing_t own = {0};
    answer_t answer;
    cluster_open(&cluster, 3, 203, NULL);
    open_on_lane(&cluster, &own, 0);
    begin_put(&cluster, "a", "1", CAKE_ALL, &answer);
    run_while_disk_is_busy(&cluster);
    cluster_crash(&cluster, 1);
    assert_false(answer.is_done);
    assert_text(&cluster, 2, "a", "1");
    restart(&cluster);
    assert_text(&cluster, 1, "a", "1");
    assert_int_equal(put_text(&cluster, 1, "a", "2", CAKE_ALL), 0);
    for (int i = 1; i <= 3; i++)
        assert_text(&cluster, i, "a", "2");
    cluster_close(&cluster);
}

static void storages_that_fetch_from_here_hear_of_it_when_it_is_here(void **state)
{
    (void)state;
    cluster_t cluster = {0};
    refusing_t own = {0};
    answer_t answer;
    cluster_open(&cluster, 2, 204, NULL);
    open_on_lane(&cluster, &own, CAKE_STORAGE_FETCHES);
    begin_put(&cluster, "a", "1", CAKE_ALL, &answer);
    run_while_disk_is_busy(&cluster);
    assert_text(&cluster, 2, "a", NULL);
    cake__world_run_for(cluster.world, STALL_MAX_S * SECOND_NS);
    assert_true(answer.is_done);
    assert_true(answer.err == 0 || answer.err == CAKE_ECONSISTENCY); /* its time may be over before it could be sent */
    cluster_wait(&cluster, cluster_is_equal, 5000);
    assert_text(&cluster, 2, "a", "1");
    cluster_close(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_others_have_it_first_and_it_is_acknowledged_with_the_own_disk),
        cmocka_unit_test(what_nobody_waits_for_goes_when_it_is_on_the_own_disk),
        cmocka_unit_test(all_of_a_batch_goes_in_one_message),
        cmocka_unit_test(what_the_own_disk_refused_may_turn_up_but_nothing_after_it),
        cmocka_unit_test(a_node_that_dies_meanwhile_gets_it_back),
        cmocka_unit_test(storages_that_fetch_from_here_hear_of_it_when_it_is_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
