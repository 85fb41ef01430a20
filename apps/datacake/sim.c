/* sim.c: `datacake sim`: the simulator's front: many seeds on all cores, one replayed, a failing one made smaller. */
#include "command.h"
#include "clock.h"
#include "progress.h"

#ifdef CAKE_APP_SIM
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <datacake/sim.h>

#include "log.h"
#endif

static const flag_t flags[] = {
    {"seed", "S", "replay this seed, and show what it did"},
    {"seeds", "N", "run so many seeds (100)"},
    {"from", "S", "beginning with this one (1)"},
    {"faults", "LIST", "kinds of faults that a seed may draw, as loss,crash; all or none (all)"},
    {"nodes", "N", "nodes at the beginning (drawn)"},
    {"seconds", "N", "virtual time of a run (60)"},
    {"writes", "N", "documents put and deleted in a run (500)"},
    {"storage", "KIND", "memory or sqlite, whose files are on a disk that fails (drawn: sqlite in one run of 16)"},
    {"failures", "N", "end after so many failed seeds (1)"},
    {"jobs", "N", "seeds at once (one per core)"},
    {"trace", NULL, "with --seed: every event"},
    {"log-level", "LEVEL", "with --trace: the nodes' own log, from debug, info, warn or error up"},
    {"svg", "FILE", "with --seed: a picture of the run, or of the smaller one"},
    {"ledger", "FILE", "with --seeds: adds a line about them to this file, and prints its sums"},
    {"commit", "TEXT", "with --ledger: which code it was (the version)"},
    {"shrink", NULL, "with --seed: look for a smaller run that fails, too"},
    {"explore", "BOUNDS", "every interleaving of small cases of the set instead: writes=3,sessions=2 or default"},
    {"members", "N", "the membership core alone, of so many members, instead; with --seed, --seeds, --seconds"},
    {"states", "N", "with --explore: ends after so many states (20000)"},
    {"progress", "KIND", "bar, lines or none (a bar on a terminal)"},
    {NULL, NULL, NULL},
};

#ifndef CAKE_APP_SIM

static int run(const args_t *args)
{
    return fail(args, EXIT_USAGE, "this build does not have the simulator");
}

#else

#define JOBS_MAX        256u
#define SHRINK_RUNS_MAX 600u

typedef struct campaign {
    const args_t *args;
    cake_sim_options_t options;
    uint64_t from, count, failures_max, jobs;
    char flags_text[256]; /* those that a replay needs as well */

    pthread_mutex_t lock; /* of all below */
    progress_t progress;
    uint64_t next, done, failures, events, writes_acked, crashes, partitions, virtual_ms;
} campaign_t;

/* The seed of each thread, for the last words of a run that an assertion ends. */
static _Thread_local uint64_t running_seed;

/* Only what a signal handler may do. */
static void say_seed(int signal)
{
    static const char text[] = "datacake sim: an assertion ended the run of seed ";
    char digits[24];
    size_t at = sizeof(digits);
    uint64_t seed = running_seed;
    digits[--at] = '\n';
    do
        digits[--at] = (char)('0' + seed % 10);
    while ((seed /= 10) != 0);
    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0 || write(STDERR_FILENO, digits + at, sizeof(digits) - at) < 0)
        _exit(EXIT_OTHER);
}

static void note_seed(void *arg, uint64_t seed)
{
    running_seed = seed;
}

static int note_result(void *arg, const cake_sim_result_t *result)
{
    campaign_t *campaign = arg;
    pthread_mutex_lock(&campaign->lock);
    campaign->done++;
    campaign->events += result->events;
    campaign->writes_acked += result->writes_acked;
    campaign->crashes += result->crashes;
    campaign->partitions += result->partitions;
    campaign->virtual_ms += result->virtual_ms;
    if (!result->ok) {
        campaign->failures++;
        progress_clear(&campaign->progress);
        printf("seed %llu failed: %s\n  drew: %s\n  replay: datacake sim --seed %llu%s\n",
               (unsigned long long)result->seed, result->violation, result->faults, (unsigned long long)result->seed,
               campaign->flags_text);
        fflush(stdout);
    }
    progress_show(&campaign->progress, campaign->done, campaign->done);
    pthread_mutex_unlock(&campaign->lock);
    return 0;
}

static void *run_seeds(void *arg)
{
    campaign_t *campaign = arg;
    for (;;) {
        cake_sim_range_t range = CAKE_SIM_RANGE_INIT;
        pthread_mutex_lock(&campaign->lock);
        bool goes_on = campaign->next < campaign->count && campaign->failures < campaign->failures_max;
        range.from = campaign->from + campaign->next++;
        pthread_mutex_unlock(&campaign->lock);
        if (!goes_on)
            return NULL;
        range.count = 1;
        range.begin = note_seed;
        range.done = note_result;
        range.arg = campaign;
        cake_sim_run_range(&range, &campaign->options);
    }
}

/* ---- the ledger: one line per campaign, so that seeds add up over days and commits ------------------------------- */

static int sum_ledger(FILE *file)
{
    char line[512], first[32] = "", when[32], commit[64];
    unsigned long long from, count, failed, runs = 0, seeds = 0, failures = 0;
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "%31s %63s %llu %llu %llu", when, commit, &from, &count, &failed) != 5)
            return -1;
        if (runs++ == 0)
            memcpy(first, when, sizeof(first));
        seeds += count;
        failures += failed;
    }
    printf("ledger: %llu seeds in %llu runs since %s, %llu failed\n", seeds, runs, first, failures);
    return 0;
}

static int write_ledger(const campaign_t *campaign)
{
    const char *path = args_value(campaign->args, "ledger", NULL);
    const char *commit = args_value(campaign->args, "commit", cake_version());
    char when[32];
    time_t now = time(NULL);
    struct tm parts;
    if (path == NULL)
        return 0;
    if (strpbrk(commit, " \t\n") != NULL || commit[0] == '\0' || strlen(commit) > 63)
        return fail(campaign->args, EXIT_USAGE, "--commit is one word");
    FILE *file = fopen(path, "a+");
    if (file == NULL)
        return fail(campaign->args, EXIT_OTHER, "cannot open %s", path);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &parts));
    fprintf(file, "%s %s %llu %llu %llu%s\n", when, commit, (unsigned long long)campaign->from,
            (unsigned long long)campaign->done, (unsigned long long)campaign->failures, campaign->flags_text);
    rewind(file);
    int bad = sum_ledger(file);
    bool is_lost = fclose(file) != 0;
    return bad != 0 || is_lost ? fail(campaign->args, EXIT_OTHER, "%s is no ledger", path) : 0;
}

static int run_campaign(campaign_t *campaign)
{
    pthread_t threads[JOBS_MAX];
    uint64_t started = 0;
    if (progress_start(&campaign->progress, args_value(campaign->args, "progress", NULL), "sim", campaign->count) != 0)
        return fail(campaign->args, EXIT_USAGE, "--progress is bar, lines or none");
    campaign->progress.unit = "seeds";
    pthread_mutex_init(&campaign->lock, NULL);
    while (started < campaign->jobs && pthread_create(&threads[started], NULL, run_seeds, campaign) == 0)
        started++;
    for (uint64_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&campaign->lock);
    if (started == 0)
        return fail(campaign->args, EXIT_OTHER, "no thread can be started");
    progress_clear(&campaign->progress);
    double spent_s = (double)(monotonic_ms() - campaign->progress.started_ms) / 1000;
    printf(
        "%llu seeds from %llu, %llu failed, in %.1f s (%.0f seeds per minute): %llu events, %.1f virtual hours, %llu "
        "writes acknowledged, %llu crashes, %llu partitions\n",
        (unsigned long long)campaign->done, (unsigned long long)campaign->from, (unsigned long long)campaign->failures,
        spent_s, spent_s > 0 ? (double)campaign->done * 60 / spent_s : 0.0, (unsigned long long)campaign->events,
        (double)campaign->virtual_ms / 3600000, (unsigned long long)campaign->writes_acked,
        (unsigned long long)campaign->crashes, (unsigned long long)campaign->partitions);
    int status = write_ledger(campaign);
    return status != 0 ? status : campaign->failures == 0 ? EXIT_DONE : EXIT_OTHER;
}

/* ---- one seed ---------------------------------------------------------------------------------------------------- */

static void print_line(void *arg, const char *line)
{
    printf("%s\n", line);
}

static void print_result(const cake_sim_result_t *result)
{
    printf("seed %llu drew: %s\n", (unsigned long long)result->seed, result->faults);
    printf("%llu events in %llu virtual ms, equal %llu ms after healing, hash %016llx\n",
           (unsigned long long)result->events, (unsigned long long)result->virtual_ms,
           (unsigned long long)result->converged_ms, (unsigned long long)result->trace_hash);
    printf("writes: %llu asked, %llu acknowledged, %llu refused, %llu unknown; %llu reads\n",
           (unsigned long long)result->writes_asked, (unsigned long long)result->writes_acked,
           (unsigned long long)result->writes_refused, (unsigned long long)result->writes_unknown,
           (unsigned long long)result->reads);
    printf(
        "faults: %llu crashes, %llu stops, %llu disks lost, %llu disk errors, %llu partitions, %llu pauses, %llu clock "
        "jumps, %llu joins\n",
        (unsigned long long)result->crashes, (unsigned long long)result->stops, (unsigned long long)result->disk_losses,
        (unsigned long long)result->disk_errors, (unsigned long long)result->partitions,
        (unsigned long long)result->pauses, (unsigned long long)result->jumps, (unsigned long long)result->joins);
    printf(
        "sync sessions: %llu, repairs: %llu, tombstones purged: %llu, fetches: %llu, most heap of a node: %llu KiB\n",
        (unsigned long long)result->sessions, (unsigned long long)result->repairs,
        (unsigned long long)result->tombstones_purged, (unsigned long long)result->fetches,
        (unsigned long long)(result->peak_heap_bytes >> 10));
    printf("%s%s\n", result->ok ? "passed" : "FAILED: ", result->violation);
}

static void print_options(const cake_sim_options_t *options, uint64_t seed)
{
    char faults[512];
    cake_sim_faults_format(options->faults, faults, sizeof(faults));
    static const char *const storages[] = {"", " --storage memory", " --storage sqlite"};
    printf("smaller: datacake sim --seed %llu --nodes %u --seconds %u --writes %u --faults %s%s\n",
           (unsigned long long)seed, options->nodes, options->seconds, options->writes, faults,
           storages[options->storage]);
}

static int draw(campaign_t *campaign, uint64_t seed)
{
    const char *path = args_value(campaign->args, "svg", NULL);
    FILE *out = path == NULL ? NULL : fopen(path, "w");
    if (path == NULL)
        return 0;
    campaign->options.trace = NULL;
    int err = out == NULL ? CAKE_EIO : cake_sim_draw_svg(seed, &campaign->options, out, NULL);
    if (out != NULL && fclose(out) != 0)
        err = CAKE_EIO;
    return err == 0 ? 0 : fail(campaign->args, EXIT_OTHER, "cannot write %s: %s", path, cake_strerror(err));
}

static int run_one(campaign_t *campaign, uint64_t seed)
{
    cake_sim_result_t *result = calloc(1, sizeof(*result));
    if (result == NULL)
        return fail(campaign->args, EXIT_OTHER, "out of memory");
    bool has_trace = args_has(campaign->args, "trace");
    campaign->options.trace = has_trace ? print_line : NULL;
    note_seed(NULL, seed);
    int err = cake_sim_run(seed, &campaign->options, result);
    int status = err != 0 || !result->ok ? EXIT_OTHER : EXIT_DONE;
    if (err != 0)
        fail(campaign->args, EXIT_OTHER, "cannot run that: %s", cake_strerror(err));
    else
        print_result(result);
    if (err == 0 && !result->ok && args_has(campaign->args, "shrink")) {
        campaign->options.trace = NULL;
        unsigned runs = cake_sim_shrink(seed, &campaign->options, result, SHRINK_RUNS_MAX);
        printf("after %u runs:\n", runs);
        print_options(&campaign->options, result->seed);
        print_result(result);
    }
    if (err == 0 && draw(campaign, result->seed) != 0)
        status = EXIT_OTHER;
    free(result);
    return status;
}

/* ---- every interleaving ------------------------------------------------------------------------------------------ */

static int read_bound(cake_sim_explore_options_t *options, const char *name, size_t len, uint32_t value)
{
    const struct {
        const char *name;
        uint32_t *to;
    } bounds[] = {{"replicas", &options->replicas}, {"keys", &options->keys},     {"writes", &options->writes},
                  {"sessions", &options->sessions}, {"purges", &options->purges}, {"forgets", &options->forgets},
                  {"crashes", &options->crashes}};
    for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
        if (strlen(bounds[i].name) == len && memcmp(bounds[i].name, name, len) == 0) {
            *bounds[i].to = value == 0 ? CAKE_SIM_EXPLORE_NONE : value;
            return 0;
        }
    }
    return -1;
}

static int read_bounds(const char *text, cake_sim_explore_options_t *options)
{
    while (*text != '\0' && strcmp(text, "default") != 0) {
        size_t len = strcspn(text, "=");
        char *end = NULL;
        unsigned long value = text[len] == '=' ? strtoul(text + len + 1, &end, 10) : 0;
        if (text[len] != '=' || end == text + len + 1 || (*end != ',' && *end != '\0') || value > 100 ||
            read_bound(options, text, len, (uint32_t)value) != 0)
            return -1;
        text = end + (*end == ',');
    }
    return 0;
}

static int explore(const args_t *args)
{
    cake_sim_explore_options_t options = CAKE_SIM_EXPLORE_OPTIONS_INIT;
    cake_sim_explore_result_t result;
    if (read_bounds(args_value(args, "explore", ""), &options) != 0)
        return fail(
            args, EXIT_USAGE,
            "--explore takes default, or some of replicas=, keys=, writes=, sessions=, purges=, forgets=, crashes=");
    if (args_number(args, "states", 2, CAKE_SIM_EXPLORE_STATES_MAX, &options.max_states) != 0)
        return EXIT_USAGE;
    int err = cake_sim_explore(&options, &result);
    if (err != 0)
        return fail(args, EXIT_OTHER, "cannot explore that: %s", cake_strerror(err));
    printf("%llu states, %llu transitions, %u steps at most, %s\n", (unsigned long long)result.states,
           (unsigned long long)result.transitions, (unsigned)result.longest,
           result.is_complete ? "all there are" : "not all there are");
    if (!result.ok)
        printf("FAILED: %s\n  after: %s\n", result.violation, result.way);
    return result.ok ? EXIT_DONE : EXIT_OTHER;
}

/* ---- the membership core alone ----------------------------------------------------------------------------------- */

static int run_members(const args_t *args, uint64_t from, uint64_t count)
{
    uint64_t members = 0, seconds = 60, failures = 0;
    if (args_number(args, "members", 2, CAKE_SIM_MEMBERS_MAX, &members) != 0 ||
        args_number(args, "seconds", 1, 86400, &seconds) != 0)
        return EXIT_USAGE;
    for (uint64_t seed = from; seed < from + count; seed++) {
        cake_sim_members_result_t result;
        note_seed(NULL, seed);
        if (cake_sim_members(seed, (uint32_t)members, (uint32_t)seconds, &result) != 0)
            return fail(args, EXIT_OTHER, "cannot run that");
        printf(
            "seed %llu: all see all after %.1f s; %llu crashes, known to all after %.1f s at most; %llu pauses, %llu "
            "partitions, %.0f %% loss; all see all %.1f s after healing; %.0f bytes per member and second; %s%s\n",
            (unsigned long long)seed, (double)result.formed_ms / 1000, (unsigned long long)result.crashes,
            (double)result.crash_known_ms_most / 1000, (unsigned long long)result.pauses,
            (unsigned long long)result.partitions, result.loss * 100, (double)result.healed_ms / 1000,
            (double)result.bytes * 1000 / (double)result.virtual_ms / (double)members,
            result.ok ? "passed" : "FAILED: ", result.violation);
        failures += !result.ok;
    }
    return failures == 0 ? EXIT_DONE : EXIT_OTHER;
}

/* ---- flags ------------------------------------------------------------------------------------------------------- */

static int read_options(campaign_t *campaign)
{
    const args_t *args = campaign->args;
    cake_sim_options_t *options = &campaign->options;
    const char *faults = args_value(args, "faults", NULL), *level = args_value(args, "log-level", NULL);
    const char *storage = args_value(args, "storage", NULL);
    uint64_t nodes = 0, seconds = 0, writes = 0;
    if (args_number(args, "nodes", 1, 32, &nodes) != 0 || args_number(args, "seconds", 1, 1000000, &seconds) != 0 ||
        args_number(args, "writes", 1, 100000000, &writes) != 0)
        return EXIT_USAGE;
    options->nodes = (uint32_t)nodes;
    options->seconds = (uint32_t)seconds;
    options->writes = (uint32_t)writes;
    if (faults != NULL && cake_sim_faults_parse(faults, &options->faults) != 0)
        return fail(args, EXIT_USAGE, "there is no such kind of faults in \"%s\"", faults);
    if (storage != NULL && strcmp(storage, "memory") != 0 && strcmp(storage, "sqlite") != 0)
        return fail(args, EXIT_USAGE, "--storage is memory or sqlite, not \"%s\"", storage);
    if (storage != NULL)
        options->storage = storage[0] == 'm' ? CAKE_SIM_STORAGE_MEMORY : CAKE_SIM_STORAGE_SQLITE;
    options->has_log = level != NULL;
    if (level != NULL && log_level_parse(level, &options->least_log) != 0)
        return fail(args, EXIT_USAGE, "--log-level is debug, info, warn or error, not \"%s\"", level);
    static const char *const replayed[] = {"faults", "nodes", "seconds", "writes", "storage"};
    for (size_t i = 0; i < sizeof(replayed) / sizeof(replayed[0]); i++) {
        const char *value = args_value(args, replayed[i], NULL);
        size_t len = strlen(campaign->flags_text);
        if (value != NULL)
            snprintf(campaign->flags_text + len, sizeof(campaign->flags_text) - len, " --%s %s", replayed[i], value);
    }
    return 0;
}

static int run(const args_t *args)
{
    campaign_t campaign = {.args = args, .options = CAKE_SIM_OPTIONS_INIT, .from = 1, .count = 100, .failures_max = 1};
    uint64_t seed = 0;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    campaign.jobs = cores < 1 ? 1 : cores > (long)JOBS_MAX ? JOBS_MAX : (uint64_t)cores;
    if (args_number(args, "seed", 0, UINT64_MAX, &seed) != 0 ||
        args_number(args, "seeds", 1, UINT64_MAX, &campaign.count) != 0 ||
        args_number(args, "from", 0, UINT64_MAX, &campaign.from) != 0 ||
        args_number(args, "failures", 1, UINT64_MAX, &campaign.failures_max) != 0 ||
        args_number(args, "jobs", 1, JOBS_MAX, &campaign.jobs) != 0 || read_options(&campaign) != 0)
        return EXIT_USAGE;
    if (args_has(args, "seed") && args_has(args, "seeds"))
        return fail(args, EXIT_USAGE, "give --seed to replay one, or --seeds to run many");
    if (args_has(args, "explore"))
        return explore(args);
    signal(SIGABRT, say_seed);
    if (args_has(args, "members"))
        return run_members(args, args_has(args, "seed") ? seed : campaign.from,
                           args_has(args, "seeds") ? campaign.count : 1);
    return args_has(args, "seed") ? run_one(&campaign, seed) : run_campaign(&campaign);
}

#endif

const command_t sim_command = {
    .name = "sim",
    .operands = "",
    .summary = "run simulated clusters from seeds, with faults and checkers",
    .details =
        "Each seed is a whole run: a cluster under virtual time, the faults that the seed draws, then healing and the\n"
        "demand that all replicas are equal and nothing acknowledged is lost. The same seed gives the same run.",
    .flags = flags,
    .run = run,
};
