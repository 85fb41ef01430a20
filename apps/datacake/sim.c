/* sim.c: `datacake sim`: runs simulated clusters from seeds, replays one, shrinks a failing one. */
#include "command.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <datacake/sim.h>

static const flag_t flags[] = {
    {"seed", "S", "replay this seed"},
    {"seeds", "N", "run so many seeds (100)"},
    {"from", "S", "beginning with this one (1, or what CAKE_SIM_FROM says)"},
    {"failures", "N", "stop after so many failing seeds (1)"},
    {"nodes", "N", "in the cluster (5)"},
    {"virtual-seconds", "N", "of each run (60)"},
    {"writes", "N", "of each run (500)"},
    {"keys", "N", "per keyspace (drawn)"},
    {"keyspaces", "N", "(drawn)"},
    {"faults", "LIST", "that seeds may draw: all, none, or names (all)"},
    {"force", NULL, "every one of these faults in each run"},
    {"shrink", NULL, "look for a smaller run that fails too"},
    {"budget", "SECONDS", "stop after so much time"},
    {"verbose", NULL, "print what happens, line by line"},
    {"log", NULL, "and what the nodes log"},
    {NULL, NULL, NULL},
};

typedef struct front {
    const cake_sim_options_t *options;
    double began, budget;
    uint64_t runs, events, writes_asked, writes_acked, writes_refused, writes_unknown, reads, crashes, stops,
        partitions;
    uint64_t disk_losses, disk_errors, joins, sessions, repairs, purged, peak_heap_bytes, converged_ms, virtual_ms;
} front_t;

static volatile uint64_t seed_under_way; /* for the handler of a crash */

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* An assertion or worse: the seed is the most important thing to know. */
static void on_crash(int number)
{
    char line[96];
    int len = snprintf(line, sizeof(line), "datacake sim: seed %llu crashes; replay: datacake sim --seed %llu\n",
                       (unsigned long long)seed_under_way, (unsigned long long)seed_under_way);
    if (len > 0 && write(STDERR_FILENO, line, (size_t)len) < 0)
        _exit(EXIT_OTHER);
    signal(number, SIG_DFL);
    raise(number);
}

static void print_line(void *arg, const char *line)
{
    (void)arg;
    puts(line);
}

/* ---- what is said about a seed --------------------------------------------------------------------------------------------*/

static void print_options(const cake_sim_options_t *options)
{
    char faults[512];
    if (options->nodes != 0)
        printf(" --nodes %u", options->nodes);
    if (options->seconds != 0)
        printf(" --virtual-seconds %u", options->seconds);
    if (options->writes != 0)
        printf(" --writes %u", options->writes);
    if (options->keys != 0)
        printf(" --keys %u", options->keys);
    if (options->keyspaces != 0)
        printf(" --keyspaces %u", options->keyspaces);
    cake_sim_faults_format(options->faults, faults, sizeof(faults));
    if (options->faults != 0 && options->faults != CAKE_SIM_ALL)
        printf(" --faults %s", faults);
    if (options->force_faults)
        printf(" --force");
}

static void print_failure(const cake_sim_result_t *result, const cake_sim_options_t *options)
{
    printf("seed %llu FAILS: %s\n  %s\n  replay: datacake sim --seed %llu", (unsigned long long)result->seed,
           result->violation, result->faults, (unsigned long long)result->seed);
    print_options(options);
    printf(" --verbose\n");
    fflush(stdout);
}

static void print_run(const cake_sim_result_t *result)
{
    printf("seed %llu: %s, hash %016llx, %.1f virtual s, %llu events, equal %.1f s after healing\n",
           (unsigned long long)result->seed, result->ok ? "ok" : "FAILS", (unsigned long long)result->trace_hash,
           (double)result->virtual_ms / 1000, (unsigned long long)result->events, (double)result->converged_ms / 1000);
    printf("  writes: %llu asked, calls %llu acknowledged, %llu refused, %llu unknown; %llu reads\n",
           (unsigned long long)result->writes_asked, (unsigned long long)result->writes_acked,
           (unsigned long long)result->writes_refused, (unsigned long long)result->writes_unknown,
           (unsigned long long)result->reads);
    printf("  %llu crashes, %llu stops, %llu partitions, %llu pauses, %llu clock jumps, %llu disk errors, %llu disks "
           "lost, %llu joins\n",
           (unsigned long long)result->crashes, (unsigned long long)result->stops,
           (unsigned long long)result->partitions, (unsigned long long)result->pauses,
           (unsigned long long)result->jumps, (unsigned long long)result->disk_errors,
           (unsigned long long)result->disk_losses, (unsigned long long)result->joins);
    printf("  %llu sessions, %llu repairs, %llu tombstones purged, heap of a node up to %llu KiB\n",
           (unsigned long long)result->sessions, (unsigned long long)result->repairs,
           (unsigned long long)result->tombstones_purged, (unsigned long long)result->peak_heap_bytes / 1024);
}

/* ---- running --------------------------------------------------------------------------------------------------------------*/

static void on_begin(void *arg, uint64_t seed)
{
    (void)arg;
    seed_under_way = seed;
}

static int on_done(void *arg, const cake_sim_result_t *result)
{
    front_t *front = arg;
    front->runs++;
    front->events += result->events;
    front->writes_asked += result->writes_asked;
    front->writes_acked += result->writes_acked;
    front->writes_refused += result->writes_refused;
    front->writes_unknown += result->writes_unknown;
    front->reads += result->reads;
    front->crashes += result->crashes;
    front->stops += result->stops;
    front->partitions += result->partitions;
    front->disk_losses += result->disk_losses;
    front->disk_errors += result->disk_errors;
    front->joins += result->joins;
    front->sessions += result->sessions;
    front->repairs += result->repairs;
    front->purged += result->tombstones_purged;
    front->virtual_ms += result->virtual_ms;
    if (result->converged_ms > front->converged_ms)
        front->converged_ms = result->converged_ms;
    if (result->peak_heap_bytes > front->peak_heap_bytes)
        front->peak_heap_bytes = result->peak_heap_bytes;
    if (!result->ok)
        print_failure(result, front->options);
    return front->budget > 0 && now() - front->began > front->budget;
}

static void print_sum(const front_t *front, uint64_t failures)
{
    double took = now() - front->began;
    printf("%llu seeds, %llu failed, %.1f s, %.1f seeds/s, %.0f virtual s, %.1f M events\n",
           (unsigned long long)front->runs, (unsigned long long)failures, took, (double)front->runs / took,
           (double)front->virtual_ms / 1000, (double)front->events / 1e6);
    printf("  writes: %llu asked, calls %llu acknowledged, %llu refused, %llu unknown; %llu reads\n",
           (unsigned long long)front->writes_asked, (unsigned long long)front->writes_acked,
           (unsigned long long)front->writes_refused, (unsigned long long)front->writes_unknown,
           (unsigned long long)front->reads);
    printf("  %llu crashes, %llu stops, %llu partitions, %llu disk errors, %llu disks lost, %llu joins\n",
           (unsigned long long)front->crashes, (unsigned long long)front->stops, (unsigned long long)front->partitions,
           (unsigned long long)front->disk_errors, (unsigned long long)front->disk_losses,
           (unsigned long long)front->joins);
    printf(
        "  %llu sessions, %llu repairs, %llu tombstones purged; equal at most %.1f s after healing; heap of a node up "
        "to %llu KiB\n",
        (unsigned long long)front->sessions, (unsigned long long)front->repairs, (unsigned long long)front->purged,
        (double)front->converged_ms / 1000, (unsigned long long)front->peak_heap_bytes / 1024);
}

static int run_range(const args_t *args, const cake_sim_options_t *options, uint64_t from, uint64_t count,
                     uint64_t failures_max)
{
    uint64_t budget = 0;
    if (args_number(args, "budget", 1, 10000000, &budget) != 0)
        return EXIT_USAGE;
    front_t front = {.options = options, .began = now(), .budget = (double)budget};
    cake_sim_range_t range = CAKE_SIM_RANGE_INIT;
    range.from = from;
    range.count = count;
    range.failures_max = failures_max;
    range.begin = on_begin;
    range.done = on_done;
    range.arg = &front;
    uint64_t failures = cake_sim_run_range(&range, options);
    print_sum(&front, failures);
    return failures == 0 ? EXIT_DONE : EXIT_OTHER;
}

static int run_one(const args_t *args, cake_sim_options_t *options, uint64_t seed)
{
    cake_sim_result_t result;
    seed_under_way = seed;
    if (cake_sim_run(seed, options, &result) != 0)
        return fail(args, EXIT_USAGE, "options out of bounds; see: datacake help sim");
    print_run(&result);
    if (result.ok)
        return EXIT_DONE;
    print_failure(&result, options);
    if (args_has(args, "shrink")) {
        options->trace = NULL;
        unsigned runs = cake_sim_shrink(seed, options, &result, 300);
        printf("the smallest that fails, of %u tried:\n", runs);
        print_failure(&result, options);
    }
    return EXIT_OTHER;
}

static int read_numbers(const args_t *args, cake_sim_options_t *options)
{
    const struct {
        const char *name;
        uint32_t *to;
        uint64_t most;
    } numbers[] = {{"nodes", &options->nodes, 32},
                   {"virtual-seconds", &options->seconds, 86400},
                   {"writes", &options->writes, 250000},
                   {"keys", &options->keys, 4096},
                   {"keyspaces", &options->keyspaces, 16}};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        uint64_t value = 0;
        if (args_number(args, numbers[i].name, 1, numbers[i].most, &value) != 0)
            return EXIT_USAGE;
        *numbers[i].to = (uint32_t)value;
    }
    return 0;
}

static int read_options(const args_t *args, cake_sim_options_t *options)
{
    if (read_numbers(args, options) != 0)
        return EXIT_USAGE;
    const char *faults = args_value(args, "faults", NULL);
    if (faults != NULL && cake_sim_faults_parse(faults, &options->faults) != 0)
        return fail(args, EXIT_USAGE, "--faults takes all, none, or names such as loss,crash,partition");
    options->force_faults = args_has(args, "force");
    if (args_has(args, "verbose") || args_has(args, "log"))
        options->trace = print_line;
    options->has_log = args_has(args, "log");
    options->least_log = CAKE_LOG_DEBUG;
    return 0;
}

static int run(const args_t *args)
{
    cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
    uint64_t seed = 0, from = 1, count = 100, failures_max = 1;
    const char *given_from = getenv("CAKE_SIM_FROM");
    if (given_from != NULL && parse_number(given_from, 0, UINT64_MAX / 2, &from) != 0)
        return fail(args, EXIT_USAGE, "CAKE_SIM_FROM is no number");
    if (read_options(args, &options) != 0 || args_number(args, "seed", 0, UINT64_MAX / 2, &seed) != 0 ||
        args_number(args, "seeds", 1, UINT64_MAX / 2, &count) != 0 ||
        args_number(args, "from", 0, UINT64_MAX / 2, &from) != 0 ||
        args_number(args, "failures", 1, UINT64_MAX / 2, &failures_max) != 0)
        return EXIT_USAGE;
    signal(SIGABRT, on_crash);
    signal(SIGSEGV, on_crash);
    if (args_has(args, "seed"))
        return run_one(args, &options, seed);
    return run_range(args, &options, from, count, failures_max);
}

const command_t sim_command = {
    .name = "sim",
    .operands = "",
    .summary = "run simulated clusters from seeds, with faults and checkers",
    .flags = flags,
    .run = run,
};
