/* main.c: the random-schedule checker.
 *
 *      crdt-schedule [SEEDS [FIRST]]          the correct protocol; 1 at the first seed that fails; without arguments
 *                                             CRDT_SCHEDULES seeds, 50,000, or 1,500 under a sanitizer
 *      crdt-mutants  [SEEDS]                  every mutant must be caught, by chance or by its directed schedule
 *      crdt-mutants  NAME [SEEDS [FIRST]]     one mutant ("none": the correct protocol), with what caught it */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "crdt/model/world.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SLOW 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(IS_SLOW)
#define DEFAULT_SEEDS 1500u
#else
#define DEFAULT_SEEDS 50000u
#endif

#ifndef CAKE_MUTANTS
/* Seeds that have found something once: they come first. */
static const uint64_t remembered[] = {748, 1196377};
#endif

static uint64_t totals[COUNT_COUNT];
static world_t *running;

static bool run_seed(uint64_t seed, bool says_why)
{
    world_t *world = must(malloc(sizeof *world));
    running = world;
    bool is_fine = world_run(world, seed);
    running = NULL;
    if (!is_fine && says_why)
        printf("seed %llu: %s\n", (unsigned long long)seed, world->violation);
    for (int i = 0; i < COUNT_COUNT; i++)
        totals[i] += world->counts[i];
    if (is_fine)
        world_free(world);
#ifndef CAKE_MUTANTS
    else
        exit(1); /* what was in the middle of something is not taken apart */
#endif
    free(world);
    return is_fine;
}

static void print_totals(void)
{
    for (int i = 0; i < COUNT_COUNT; i++)
        printf("  %s: %llu\n", count_names[i], (unsigned long long)totals[i]);
}

static bool directed_passes(const char *mutant)
{
    for (const directed_t *schedule = directed_schedules; schedule->mutant != NULL; schedule++) {
        if (mutant == NULL ? !schedule->run() : strcmp(schedule->mutant, mutant) == 0 && !schedule->run()) {
            if (mutant == NULL)
                printf("directed schedule for %s fails\n", schedule->mutant);
            return false;
        }
    }
    return true;
}

static uint64_t number(const char *text, uint64_t otherwise)
{
    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

#ifndef CAKE_MUTANTS
int main(int argc, char **argv)
{
    uint64_t seeds = number(argc > 1 ? argv[1] : getenv("CRDT_SCHEDULES"), DEFAULT_SEEDS),
             first = number(argc > 2 ? argv[2] : NULL, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!directed_passes(NULL))
        return 1;
    for (size_t i = 0; i < CAKE_COUNT_OF(remembered); i++) {
        if (!run_seed(remembered[i], true))
            return 1;
    }
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        if (!run_seed(seed, true))
            return 1;
    }
    printf("%llu seeds from %llu: no violation\n", (unsigned long long)seeds, (unsigned long long)first);
    print_totals();
    return 0;
}
#else
#define MUTANT_SEEDS                 1500u
#define DIRECTED_SEEDS               300u /* of those that a directed schedule catches */

enum cake__mutant_name cake__mutant;

/* An invariant of the library that breaks counts as caught. What was in the middle of something is leaked. */
static void on_abort(int signal_number)
{
    (void)signal_number;
    if (running == NULL)
        _Exit(1);
    violate(running, "an invariant of the library is broken");
}

static const struct {
    const char *name, *text;
} mutants[] = {
#define CAKE__MUTANT_ROW(name, text) {#name, text},
    CAKE__MUTANTS(CAKE__MUTANT_ROW)
#undef CAKE__MUTANT_ROW
};

static int run_one(const char *name, uint64_t seeds, uint64_t first)
{
    uint64_t failures = 0;
    for (size_t i = 0; i < CAKE_COUNT_OF(mutants); i++) {
        if (strcmp(mutants[i].name, name) == 0)
            cake__mutant = (enum cake__mutant_name)i;
    }
    for (uint64_t seed = first; seed < first + seeds; seed++)
        failures += !run_seed(seed, failures < 5);
    printf("%s: %llu of %llu seeds fail, directed schedule: %s\n", name, (unsigned long long)failures,
           (unsigned long long)seeds, directed_passes(name) ? "passes or none" : "fails");
    print_totals();
    return 0;
}

/* Stops at the second failing seed: a test wants to know that it is caught, not how often. Prints a row of the
 * table: the mutant, seeds needed until the first failure, failures of how many seeds, whether a directed one fails. */
static bool is_caught(size_t mutant, uint64_t seeds)
{
    uint64_t failures = 0, seed = 0, needed = 0;
    cake__mutant = (enum cake__mutant_name)mutant;
    bool by_directed = !directed_passes(mutants[mutant].name);
    seeds = by_directed ? cake__min_u64(seeds, DIRECTED_SEEDS) : seeds;
    for (; seed < seeds && failures < 2; seed++) {
        failures += !run_seed(seed, false);
        needed = failures > 0 && needed == 0 ? seed + 1 : needed;
    }
    char first[24] = "-";
    if (needed > 0)
        (void)snprintf(first, sizeof first, "%llu", (unsigned long long)needed);
    printf("%-14s %6s  %3llu of %4llu  %-9s %s\n", mutants[mutant].name, first, (unsigned long long)failures,
           (unsigned long long)seed, by_directed ? "directed" : "", mutants[mutant].text);
    return failures > 0 || by_directed;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_abort, .sa_flags = SA_NODEFER};
    sigaction(SIGABRT, &action, NULL);
    (void)freopen("/dev/null", "w", stderr); /* the text of each assertion */
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1 && (argv[1][0] < '0' || argv[1][0] > '9'))
        return run_one(argv[1], number(argc > 2 ? argv[2] : NULL, MUTANT_SEEDS), number(argc > 3 ? argv[3] : NULL, 0));
    uint64_t seeds = number(argc > 1 ? argv[1] : NULL, MUTANT_SEEDS);
    int missed = 0;
    printf("%-14s %6s  %-11s %-9s %s\n", "mutant", "needed", "failures of", "", "what is broken");
    for (size_t i = 1; i < CAKE_COUNT_OF(mutants); i++)
        missed += !is_caught(i, seeds);
    if (missed > 0)
        printf("%d mutants are not caught\n", missed);
    return missed > 0;
}
#endif
