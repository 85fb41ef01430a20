/* The simulator as users have it: their storages, extensions and clients, smaller runs, pictures, every interleaving.
 * ctest: no-tsan sim: one thread */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <datacake/sim.h>
#include <datacake/sqlite.h>

#define NODES_MAX 64

static cake_sim_options_t small_run(const cake_sim_workload_t *workload)
{
    cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
    options.workload = workload;
    options.nodes = 3;
    options.seconds = 12;
    options.steps = 30;
    return options;
}

/* ---- a storage of one's own ---------------------------------------------------------------------------------------*/

typedef struct {
    char root[64];
    unsigned losses[NODES_MAX];
} disks_t;

static void remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        char name[512];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (unlink(name) != 0)
            remove_tree(name);
    }
    if (dir != NULL)
        closedir(dir);
    rmdir(path);
}

static void *make_disks(cake_sim_t *sim, void *arg)
{
    disks_t *disks = calloc(1, sizeof *disks);
    snprintf(disks->root, sizeof disks->root, "/tmp/datacake-sim-XXXXXX");
    assert_non_null(mkdtemp(disks->root));
    return disks;
}

static void free_disks(void *run)
{
    remove_tree(((disks_t *)run)->root);
    free(run);
}

static int open_sqlite(void *run, cake_sim_t *sim, uint16_t id, bool is_empty, cake_storage_t **storage)
{
    disks_t *disks = run;
    cake_sqlite_options_t options = CAKE_SQLITE_OPTIONS_INIT;
    char dir[128];
    disks->losses[id] += is_empty;
    options.lanes = 2;
    options.lose_last_writes_on_power_cut = true; /* only processes crash here */
    snprintf(dir, sizeof dir, "%s/%u-%u", disks->root, (unsigned)id, disks->losses[id]);
    return cake_sqlite_open(dir, &options, storage);
}

static void sqlite_holds_in_a_simulated_cluster(void **state)
{
    cake_sim_workload_t workload = {
        .size = sizeof workload, .begin = make_disks, .end = free_disks, .open_storage = open_sqlite};
    cake_sim_options_t options = small_run(&workload);
    cake_sim_result_t result;
    uint64_t restarts = 0, first = 0;
    options.writes = 60;
    options.faults = CAKE_SIM_CRASH | CAKE_SIM_STOP | CAKE_SIM_DISK_ERROR | CAKE_SIM_LOSS | CAKE_SIM_DISK_LOSS;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        assert_int_equal(cake_sim_run(seed, &options, &result), 0);
        if (!result.ok)
            fail_msg("seed %u: %s", (unsigned)seed, result.violation);
        restarts += result.crashes + result.stops;
        first = seed == 1 ? result.trace_hash : first;
    }
    assert_true(restarts > 0);
    assert_int_equal(cake_sim_run(1, &options, &result), 0);
    assert_int_equal(result.trace_hash, first);
}

/* Machines die with what was not synced, writes are torn and fail, syncs lose what they should have kept. */
static void sqlite_survives_disks_that_fail(void **state)
{
    cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
    cake_sim_result_t result;
    uint64_t crashes = 0, errors = 0, first = 0;
    options.storage = CAKE_SIM_STORAGE_SQLITE;
    options.nodes = 3;
    options.seconds = 20;
    options.writes = 150;
    options.faults = CAKE_SIM_CRASH | CAKE_SIM_STOP | CAKE_SIM_DISK_ERROR | CAKE_SIM_DISK_LOSS;
    options.force_faults = true;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        assert_int_equal(cake_sim_run(seed, &options, &result), 0);
        if (!result.ok)
            fail_msg("seed %u: %s", (unsigned)seed, result.violation);
        assert_int_equal(result.storage, CAKE_SIM_STORAGE_SQLITE);
        crashes += result.crashes;
        errors += result.disk_errors;
        first = seed == 1 ? result.trace_hash : first;
    }
    assert_true(crashes > 6 && errors > 6);
    assert_int_equal(cake_sim_run(1, &options, &result), 0);
    assert_int_equal(result.trace_hash, first);
}

static int open_forgetful(void *run, cake_sim_t *sim, uint16_t id, bool is_empty, cake_storage_t **storage)
{
    return cake_memory_open(storage);
}

static void a_storage_that_forgets_is_found(void **state)
{
    cake_sim_workload_t workload = {.size = sizeof workload, .open_storage = open_forgetful};
    cake_sim_options_t options = small_run(&workload);
    cake_sim_result_t result = {.ok = true};
    options.writes = 60;
    options.faults = CAKE_SIM_CRASH;
    options.force_faults = true;
    for (uint64_t seed = 1; seed <= 10 && result.ok; seed++)
        assert_int_equal(cake_sim_run(seed, &options, &result), 0);
    assert_false(result.ok);
    assert_memory_equal(result.violation, "storage", 7);
}

/* ---- smaller runs, pictures ---------------------------------------------------------------------------------------*/

static void fail_at_third(void *run, cake_sim_t *sim, uint16_t id, cake_node_t *node, cake_store_t *store)
{
    if (++*(unsigned *)run >= 3)
        cake_sim_fail(sim, "third", "this is step %u", *(unsigned *)run);
}

static void *new_count(cake_sim_t *sim, void *arg)
{
    return calloc(1, sizeof(unsigned));
}

static void a_failing_run_becomes_small(void **state)
{
    cake_sim_workload_t workload = {.size = sizeof workload, .begin = new_count, .end = free, .step = fail_at_third};
    cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
    cake_sim_result_t result;
    options.workload = &workload;
    assert_true(cake_sim_shrink(7, &options, &result, 300) < 300);
    assert_false(result.ok);
    assert_memory_equal(result.violation, "third", 5);
    assert_int_equal(options.nodes, 1);
    assert_int_equal(options.faults, CAKE_SIM_NOTHING);
    assert_true(options.steps <= 4 && options.seconds <= 4);
    cake_sim_result_t again;
    assert_int_equal(cake_sim_run(result.seed, &options, &again), 0);
    assert_string_equal(again.violation, result.violation);
}

static void a_run_can_be_drawn(void **state)
{
    cake_sim_workload_t workload = {.size = sizeof workload, .begin = new_count, .end = free, .step = fail_at_third};
    cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
    cake_sim_result_t drawn, plain;
    static char text[CAKE_SIM_SVG_MAX_BYTES + 1];
    for (int is_failing = 0; is_failing < 2; is_failing++) {
        FILE *file = tmpfile();
        assert_non_null(file);
        options.workload = is_failing ? &workload : NULL;
        assert_int_equal(cake_sim_draw_svg(9, &options, file, &drawn), 0);
        assert_int_equal(cake_sim_run(9, &options, &plain), 0);
        assert_int_equal(drawn.trace_hash, plain.trace_hash); /* it changes nothing */
        rewind(file);
        size_t len = fread(text, 1, CAKE_SIM_SVG_MAX_BYTES, file);
        assert_true(len > 1000 && len < CAKE_SIM_SVG_MAX_BYTES);
        text[len] = '\0';
        assert_memory_equal(text, "<svg ", 5);
        assert_string_equal(text + len - 7, "</svg>\n");
        assert_int_equal(strstr(text, "third, at") != NULL, is_failing);
        fclose(file);
    }
}

/* ---- every interleaving -------------------------------------------------------------------------------------------*/

static void all_of_a_small_case_holds(void **state)
{
    cake_sim_explore_options_t options = CAKE_SIM_EXPLORE_OPTIONS_INIT;
    cake_sim_explore_result_t result;
    options.purges = options.forgets = options.crashes = CAKE_SIM_EXPLORE_NONE;
    options.max_states = 100000;
    assert_int_equal(cake_sim_explore(&options, &result), 0);
    assert_string_equal(result.violation, "");
    assert_true(result.ok && result.is_complete);
    assert_true(result.states > 20000 && result.transitions > result.states);
    options.replicas = 9;
    assert_int_equal(cake_sim_explore(&options, &result), CAKE_EINVAL);
}

static void the_bound_holds(void **state)
{
    cake_sim_explore_options_t options = CAKE_SIM_EXPLORE_OPTIONS_INIT;
    cake_sim_explore_result_t result;
    options.max_states = 5000;
    assert_int_equal(cake_sim_explore(&options, &result), 0);
    assert_true(result.ok && !result.is_complete);
    assert_int_equal(result.states, 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sqlite_holds_in_a_simulated_cluster), cmocka_unit_test(a_storage_that_forgets_is_found),
        cmocka_unit_test(sqlite_survives_disks_that_fail),

        cmocka_unit_test(a_failing_run_becomes_small),         cmocka_unit_test(a_run_can_be_drawn),
        cmocka_unit_test(all_of_a_small_case_holds),           cmocka_unit_test(the_bound_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
