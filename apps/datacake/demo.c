#include "command.h"
static const flag_t flags[] = {{NULL, NULL, NULL}};
static int run(const args_t *args)
{
    return fail(args, EXIT_USAGE, "later");
}
const command_t demo_command = {
    .name = "demo", .operands = "up N|down", .least = 1, .most = 2, .summary = "x", .flags = flags, .run = run};
