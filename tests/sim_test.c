/* Simulated clusters: a fixed number of seeds with everything that a seed may draw, from the one that CAKE_SIM_FROM
 * names (CI derives it from the commit), and the seeds that have found something before. ctest: no-tsan slow sim:
 * one thread; some hundred whole clusters */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <datacake/sim.h>

#if defined(__SANITIZE_ADDRESS__)
#define SHARE 10u /* a sanitizer takes its time */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHARE 10u
#endif
#endif
#ifndef SHARE
#define SHARE 1u
#endif

#define SEEDS 300u

static uint64_t seed_under_way;

/* What found a bug once: the seed, the faults it may draw, whether all of them are on, and what it was. */
static const struct {
    uint64_t seed;
    const char *faults;
    bool force;
    const char *what;
    uint32_t nodes; /* 0: 5 */
} regressions[] = {
    {2, "none", false, "an answer to a pulse acknowledged writes that were committed after the question", 0},
    {24, "all", false, "a store that failed to open was freed off the loop, with timers", 0},
    {43, "all", false, "a queue stood still once its batches were answered, when all were under way as it was due", 0},
    {12, "all", false, "each restart pushed the clock of the whole cluster ten seconds further ahead", 0},
    {69, "all", false, "a joining node did not count replicas that were down", 0},
    {411, "duplicate-id,loss,partition,crash,stop,disk-loss,join,clock", false,
     "a clock that came back from a day behind made replicas that were away count as silent for a day", 0},
    {226, "all", false, "levels per data centre did not count replicas whose data centre was not known yet", 7},
    {302198, "all", false, "a read at a level sent on what its own node did not have yet", 0},
    {700160, "all", false, "a read at a level sent on what its own node had refused, as it had not joined yet", 0},
    {701333, "all", false,
     "a node that had been down while it joined answered a read with what was deleted and purged since", 0},
    {701005, "all", false,
     "a node that crashed before it had stored that another one joined did not count it before the first gossip", 0},
    {702295, "all", false, "new nodes that were cut off together counted as a cluster", 0},
    {412807, "all", false, "the checker missed what a repair had killed for a delete whose disk was lost then", 2},
    {500873, "all", false, "as healing began a clock was two days ahead for a moment", 3},
    {1001, "all", false,
     "a repair gives a document a new stamp, under which the node that is asked for it does not have it", 0},
    {2237776920, "all", false, "the checker took a session that a late pulse began for one that does not end", 6},
    {2297000571, "all", false, "as healing began the clock of a node that was down was two days ahead for a moment", 2},
    {2299000023, "all", false, "a full disk refused what the others had got ahead, after a batch without rows", 0},
    {2294000229, "all", false, "what a replica had told before it lost its disk was asked for for ever", 0},
    {725566090, "all", false, "a replica that left while it was compared with ended the verification", 3},
    {57, "forget,crash,partition,loss", true, "forgetting, repairs and restarts together", 0},
};

static void say_seed(int number)
{
    char line[96];
    int len = snprintf(line, sizeof line, "seed %llu ends the program; replay: datacake sim --seed %llu\n",
                       (unsigned long long)seed_under_way, (unsigned long long)seed_under_way);
    if (len > 0 && write(STDERR_FILENO, line, (size_t)len) < 0)
        _exit(1);
    signal(number, SIG_DFL);
    raise(number);
}

static void on_begin(void *arg, uint64_t seed)
{
    seed_under_way = seed;
}

static int on_done(void *arg, const cake_sim_result_t *result)
{
    uint64_t *repairs = arg;
    *repairs += result->repairs;
    if (!result->ok)
        print_error("seed %llu: %s\n  drew: %s\n  replay: datacake sim --seed %llu --trace\n",
                    (unsigned long long)result->seed, result->violation, result->faults,
                    (unsigned long long)result->seed);
    return 0;
}

static uint64_t run(uint64_t from, uint64_t count, const cake_sim_options_t *options, uint64_t *repairs)
{
    cake_sim_range_t range = CAKE_SIM_RANGE_INIT;
    range.from = from;
    range.count = count;
    range.failures_max = 3;
    range.begin = on_begin;
    range.done = on_done;
    range.arg = repairs;
    return cake_sim_run_range(&range, options);
}

static void seeds_pass(void **state)
{
    const char *given = getenv("CAKE_SIM_FROM");
    uint64_t from = given != NULL ? strtoull(given, NULL, 0) : 1, repairs = 0;
    assert_int_equal(run(from, SEEDS / SHARE, NULL, &repairs), 0);
}

static void everything_at_once_passes(void **state)
{
    cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
    uint64_t repairs = 0;
    options.force_faults = true;
    assert_int_equal(run(1, 20 / SHARE, &options, &repairs), 0);
}

static void repairs_pass(void **state)
{
    cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
    uint64_t repairs = 0;
    options.force_faults = true;
    options.faults = CAKE_SIM_FORGET | CAKE_SIM_CRASH | CAKE_SIM_PARTITION | CAKE_SIM_LOSS;
    assert_int_equal(run(1, 30 / SHARE, &options, &repairs), 0);
    assert_true(repairs > 0); /* else it has tested nothing */
}

static void failing_allocations_pass(void **state)
{
    cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
    uint64_t repairs = 0;
    options.faults = CAKE_SIM_ALL | CAKE_SIM_ALLOC;
    assert_int_equal(run(1, 30 / SHARE, &options, &repairs), 0);
}

static void small_and_large_clusters_pass(void **state)
{
    cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
    uint64_t repairs = 0;
    static const uint32_t sizes[] = {1, 2, 3, 9};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        options.nodes = sizes[i];
        /* 9 nodes, seed 9: pings in answer to acknowledgements multiplied without end */
        assert_int_equal(run(sizes[i] > 5 ? 8 : 1, (sizes[i] > 5 ? 2 : 10) / SHARE + 1, &options, &repairs), 0);
    }
}

static void count_line(void *arg, const char *line)
{
    uint64_t *count = arg;
    (void)line;
    ++*count;
}

static void a_seed_gives_one_run(void **state)
{
    cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT, traced = CAKE_SIM_OPTIONS_INIT;
    cake_sim_result_t first, second, other;
    uint64_t lines = 0;
    options.force_faults = traced.force_faults = true;
    traced.trace = count_line;
    traced.trace_arg = &lines;
    traced.has_log = true;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        assert_int_equal(cake_sim_run(seed, &options, &first), 0);
        assert_int_equal(cake_sim_run(seed, &traced, &second), 0);
        assert_int_equal(cake_sim_run(seed + 1000, &options, &other), 0);
        assert_int_equal(first.trace_hash, second.trace_hash);
        assert_int_equal(first.events, second.events);
        assert_int_not_equal(first.trace_hash, other.trace_hash);
    }
    assert_true(lines > 1000);
}

static void old_bugs_stay_away(void **state)
{
    for (size_t i = 0; i < sizeof regressions / sizeof regressions[0]; i++) {
        cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
        uint64_t repairs = 0;
        assert_int_equal(cake_sim_faults_parse(regressions[i].faults, &options.faults), 0);
        options.force_faults = regressions[i].force;
        options.nodes = regressions[i].nodes != 0 ? regressions[i].nodes : 5;
        if (run(regressions[i].seed, 1, &options, &repairs) != 0)
            fail_msg("this seed once found: %s", regressions[i].what);
    }
}

static void options_are_checked(void **state)
{
    cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
    cake_sim_result_t result;
    options.nodes = 1000;
    assert_int_equal(cake_sim_run(1, &options, &result), CAKE_EINVAL);
    assert_int_equal(cake_sim_run_range(&(cake_sim_range_t){.size = sizeof(cake_sim_range_t), .count = 1}, &options),
                     1);
    options.nodes = 3;
    options.size = 1;
    assert_int_equal(cake_sim_run(1, &options, &result), CAKE_EINVAL);
}

static uint64_t hash_of(const cake_sim_options_t *options)
{
    cake_sim_result_t result;
    assert_int_equal(cake_sim_run(1, options, &result), 0);
    assert_true(result.ok);
    return result.trace_hash;
}

/* Whether a member was read shows in the run. */
static void options_of_older_and_newer_programs_are_understood(void **state)
{
    struct {
        cake_sim_options_t known;
        uint64_t later;
    } options = {.known = CAKE_SIM_OPTIONS_INIT};
    struct {
        cake_sim_workload_t known;
        uint64_t later;
    } workload = {{.size = sizeof workload, .name = "newer"}, 0};
    cake_sim_result_t result;
    options.known.nodes = 2;
    options.known.seconds = 10;
    options.known.faults = CAKE_SIM_NOTHING;
    uint64_t hash = hash_of(&options.known);
    options.known.size = offsetof(cake_sim_options_t, storage);
    options.known.storage = (cake_sim_storage_t)99;
    assert_true(hash_of(&options.known) == hash);
    options.known.storage = CAKE_SIM_STORAGE_DRAWN;
    options.known.size = sizeof options;
    assert_true(hash_of(&options.known) == hash);
    options.later = 1;
    assert_int_equal(cake_sim_run(1, &options.known, &result), CAKE_EINVAL);
    options.later = 0;

    options.known.workload = &workload.known;
    hash = hash_of(&options.known);
    workload.known.size = offsetof(cake_sim_workload_t, check);
    workload.known.check = (void (*)(void *, cake_sim_t *))(uintptr_t)1;
    assert_true(hash_of(&options.known) == hash);
    workload.known.check = NULL;
    workload.known.size = sizeof workload;
    workload.later = 1;
    assert_int_equal(cake_sim_run(1, &options.known, &result), CAKE_EINVAL);
}

static void ranges_of_older_and_newer_programs_are_understood(void **state)
{
    struct {
        cake_sim_range_t known;
        uint64_t later;
    } range = {{.size = offsetof(cake_sim_range_t, done), .from = 1, .count = 1}, 0};
    cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
    cake_sim_result_t result;
    options.nodes = 2;
    options.seconds = 10;
    options.size = offsetof(cake_sim_options_t, steps);
    range.known.done = (int (*)(void *, const cake_sim_result_t *))(uintptr_t)1;
    assert_int_equal(cake_sim_run_range(&range.known, &options), 0);
    options.steps = 77;
    assert_int_equal(cake_sim_shrink(1, &options, &result, 1), 1);
    assert_int_equal(options.steps, 77); /* of the program's, behind the end of what it has as options */
    range.known.done = NULL;
    range.known.size = sizeof range;
    assert_int_equal(cake_sim_run_range(&range.known, &options), 0);
    range.later = 1;
    assert_int_equal(cake_sim_run_range(&range.known, &options), 1);
}

static void cases_of_older_and_newer_programs_are_understood(void **state)
{
    struct {
        cake_sim_explore_options_t known;
        uint64_t later;
    } options = {.known = CAKE_SIM_EXPLORE_OPTIONS_INIT};
    cake_sim_explore_result_t result;
    options.known.max_states = UINT64_MAX;
    assert_int_equal(cake_sim_explore(&options.known, &result), CAKE_EINVAL);
    options.known.size = offsetof(cake_sim_explore_options_t, max_states);
    assert_int_equal(cake_sim_explore(&options.known, &result), 0);
    options.known.size = sizeof options;
    options.known.max_states = 100;
    assert_int_equal(cake_sim_explore(&options.known, &result), 0);
    options.later = 1;
    assert_int_equal(cake_sim_explore(&options.known, &result), CAKE_EINVAL);
}

static void faults_have_names(void **state)
{
    uint32_t faults;
    char text[512];
    assert_int_equal(cake_sim_faults_parse("loss,half-open,crash", &faults), 0);
    assert_int_equal(faults, CAKE_SIM_LOSS | CAKE_SIM_HALF_OPEN | CAKE_SIM_CRASH);
    cake_sim_faults_format(faults, text, sizeof text);
    assert_string_equal(text, "loss,half-open,crash");
    assert_int_equal(cake_sim_faults_parse("all", &faults), 0);
    assert_int_equal(faults, CAKE_SIM_ALL);
    assert_int_equal(cake_sim_faults_parse("none", &faults), 0);
    assert_int_equal(faults, CAKE_SIM_NOTHING);
    cake_sim_faults_format(faults, text, sizeof text);
    assert_string_equal(text, "none");
    assert_int_equal(cake_sim_faults_parse("loss,nonsense", &faults), CAKE_EPARSE);
    assert_int_equal(cake_sim_faults_parse("", &faults), CAKE_EPARSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(options_of_older_and_newer_programs_are_understood),
        cmocka_unit_test(ranges_of_older_and_newer_programs_are_understood),
        cmocka_unit_test(cases_of_older_and_newer_programs_are_understood),
        cmocka_unit_test(faults_have_names),
        cmocka_unit_test(old_bugs_stay_away),
        cmocka_unit_test(a_seed_gives_one_run),
        cmocka_unit_test(repairs_pass),
        cmocka_unit_test(failing_allocations_pass),
        cmocka_unit_test(small_and_large_clusters_pass),
        cmocka_unit_test(everything_at_once_passes),
        cmocka_unit_test(seeds_pass),
    };
    signal(SIGABRT, say_seed);
    signal(SIGSEGV, say_seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
