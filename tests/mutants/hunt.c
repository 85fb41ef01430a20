/* hunt FROM COUNT: runs seeds until one fails, and prints how many it took and what it saw. One of eight is as it is
 * drawn; the others reach what those seldom do (shapes). Built by run.sh with a mutant; an assertion that ends the
 * program is a catch, too, and so is a seed that does not end.
 *
 * hunt explore STATES: looks at every interleaving of a small case instead, and prints after how many states it saw
 * something. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <datacake/sim.h>

#include "crdt/mutant.h"

#define SEED_SECONDS_MAX 120 /* of processor time; most take a tenth of one */

enum cake__mutant_name cake__mutant = CAKE__MUTANT_none;

static uint64_t seeds;

/* By the number of the seed; a row of zeros is the default. */
static const struct {
    uint32_t nodes, writes, keys, keyspaces, faults;
    cake_sim_storage_t storage;
} shapes[] = {
    /* repairs */
    {.faults = CAKE_SIM_FORGET | CAKE_SIM_CRASH | CAKE_SIM_PARTITION | CAKE_SIM_LOSS},
    {0},
    /* nodes that are new while others are away */
    {.nodes = 3, .writes = 300, .faults = CAKE_SIM_DELAY | CAKE_SIM_PARTITION | CAKE_SIM_CRASH | CAKE_SIM_JOIN},
    /* keyspaces so many and keys so few that what is deleted is soon dropped, or is not */
    {.nodes = 3,
     .writes = 200,
     .keys = 4,
     .keyspaces = 16,
     .faults = CAKE_SIM_DELAY | CAKE_SIM_PARTITION | CAKE_SIM_CRASH | CAKE_SIM_LANE},
    {.faults = CAKE_SIM_FORGET | CAKE_SIM_CRASH | CAKE_SIM_PARTITION | CAKE_SIM_LOSS},
    {.storage = CAKE_SIM_STORAGE_SQLITE},
    {.nodes = 3,
     .writes = 200,
     .keys = 4,
     .keyspaces = 16,
     .storage = CAKE_SIM_STORAGE_MEMORY,
     .faults = CAKE_SIM_DELAY | CAKE_SIM_PARTITION | CAKE_SIM_CRASH | CAKE_SIM_LANE},
    /* new nodes that outvote the one that has it all, and take long to get it */
    {.nodes = 1,
     .writes = 1000,
     .keys = 400,
     .keyspaces = 4,
     .faults = CAKE_SIM_DELAY | CAKE_SIM_PARTITION | CAKE_SIM_CRASH | CAKE_SIM_SLOW | CAKE_SIM_JOIN},
};

static void choose_mutant(void)
{
    static const char *const names[] = {
#define NAME(name, text) #name,
        CAKE__MUTANTS(NAME)
#undef NAME
    };
    const char *chosen = getenv("CAKE_CRDT_MUTANT");
    for (size_t i = 0; chosen != NULL && i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], chosen) == 0)
            cake__mutant = (enum cake__mutant_name)i;
    }
}

static void on_end(int number, const char *how)
{
    char line[64];
    int len = snprintf(line, sizeof line, "caught after %llu seeds: it %s\n", (unsigned long long)seeds, how);
    (void)number;
    if (write(STDOUT_FILENO, line, (size_t)len) < 0)
        _exit(2);
    _exit(1);
}

static void on_assertion(int number)
{
    on_end(number, "stops");
}

static void on_too_long(int number)
{
    on_end(number, "does not end");
}

static int explore(uint64_t states)
{
    cake_sim_explore_options_t options = CAKE_SIM_EXPLORE_OPTIONS_INIT;
    cake_sim_explore_result_t result;
    options.max_states = states;
    if (cake_sim_explore(&options, &result) != 0)
        return 2;
    if (result.ok)
        printf("NOT CAUGHT in %llu states\n", (unsigned long long)result.states);
    else
        printf("caught after %llu states: %s, by %s\n", (unsigned long long)result.states, result.violation,
               result.way);
    return result.ok ? 0 : 1;
}

int main(int argc, char **argv)
{
    uint64_t from = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, count = argc > 2 ? strtoull(argv[2], NULL, 10) : 100;
    signal(SIGABRT, on_assertion);
    signal(SIGSEGV, on_assertion);
    signal(SIGPROF, on_too_long);
    choose_mutant();
    if (argc > 2 && strcmp(argv[1], "explore") == 0)
        return explore(strtoull(argv[2], NULL, 10));
    for (uint64_t seed = from; seed < from + count; seed++) {
        cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
        cake_sim_result_t result;
        size_t shape = seed % (sizeof shapes / sizeof shapes[0]);
        options.nodes = shapes[shape].nodes;
        options.writes = shapes[shape].writes;
        options.keys = shapes[shape].keys;
        options.keyspaces = shapes[shape].keyspaces;
        options.faults = shapes[shape].faults;
        options.force_faults = shapes[shape].faults != 0;
        options.storage = shapes[shape].storage;
        const struct itimerval limit = {.it_value.tv_sec = SEED_SECONDS_MAX};
        setitimer(ITIMER_PROF, &limit, NULL);
        seeds++;
        if (cake_sim_run(seed, &options, &result) != 0)
            return 2;
        if (!result.ok) {
            printf("caught after %llu seeds: seed %llu, %s\n", (unsigned long long)seeds, (unsigned long long)seed,
                   result.violation);
            return 1;
        }
    }
    printf("NOT CAUGHT in %llu seeds\n", (unsigned long long)seeds);
    return 0;
}
