/* hunt explore STATES: looks at every interleaving of a small case instead, and prints after how many states it saw something.
 *
 * hunt FROM COUNT: runs seeds until one fails, and prints how many it took and what it saw. Every fourth seed is one with
 * everything that leads to repairs, every eighth has the storages of SQLite, one few writes, one
 * nodes that join a cluster of two. Built by run.sh with a mutant; an assertion that ends the program is a catch, too. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <datacake/sim.h>

#include "crdt/mutant.h"

enum cake__mutant_name cake__mutant = CAKE__MUTANT_none;

static uint64_t seeds;

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

static void on_assertion(int number)
{
    char line[64];
    int len = snprintf(line, sizeof line, "caught after %llu seeds: an assertion\n", (unsigned long long)seeds);
    (void)number;
    if (write(STDOUT_FILENO, line, (size_t)len) < 0)
        _exit(2);
    _exit(1);
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
    choose_mutant();
    if (argc > 2 && strcmp(argv[1], "explore") == 0)
        return explore(strtoull(argv[2], NULL, 10));
    for (uint64_t seed = from; seed < from + count; seed++) {
        cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
        cake_sim_result_t result;
        if (seed % 4 == 0) {
            options.faults = CAKE_SIM_FORGET | CAKE_SIM_CRASH | CAKE_SIM_PARTITION | CAKE_SIM_LOSS;
            options.force_faults = true;
        }
        if (seed % 8 == 5)
            options.storage = CAKE_SIM_STORAGE_SQLITE;
        if (seed % 8 == 3 || seed % 8 == 7) {
            options.nodes = seed % 8 == 3 ? 3 : 2;
            options.writes = seed % 8 == 3 ? 60 : 300;
            options.keys = seed % 8 == 3 ? 0 : 200;
            options.faults =
                CAKE_SIM_DELAY | (seed % 8 == 3 ? CAKE_SIM_PARTITION | CAKE_SIM_CRASH | CAKE_SIM_PAUSE : CAKE_SIM_JOIN);
            options.force_faults = true;
        }
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
