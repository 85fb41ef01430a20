/* sim.c: `datacake sim`: the simulator's front. */
#include "command.h"

static const flag_t flags[] = {
    {"seed", "S", "replay this seed"},
    {"seeds", "N", "run so many seeds"},
    {"from", "S", "beginning with this one (1)"},
    {NULL, NULL, NULL},
};

static int run(const args_t *args)
{
    return fail(args, EXIT_USAGE, "this build does not have the simulator");
}

const command_t sim_command = {
    .name = "sim",
    .operands = "",
    .summary = "run simulated clusters from seeds, with faults and checkers",
    .flags = flags,
    .run = run,
};
