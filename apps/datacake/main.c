/* main.c: `datacake COMMAND ...`: finds the command, reads its flags, runs it. */
#include "command.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <datacake/base.h>

static const command_t *const commands[] = {
    &serve_command,     &put_command,    &get_command,    &del_command,     &ls_command,
    &keyspaces_command, &import_command, &export_command, &members_command, &status_command,
    &watch_command,     &verify_command, &forget_command, &demo_command,    &bench_command,
    &sim_command,       &keygen_command, &backup_command, &restore_command,
};

#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static const command_t *find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

static void print_overview(FILE *out)
{
    fprintf(out, "usage: datacake COMMAND ...\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(out, "  %-10s %s\n  %-10s %s\n\n", "help", "this list, or the flags of a command: datacake help serve",
            "--version", "the version");
    fprintf(out, "Exit status: 0 done, 1 not found, 2 usage, 3 cannot reach the node, 4 consistency not reached, "
                 "5 other failure.\n");
}

static int help(int argc, char **argv)
{
    if (argc < 3 || strcmp(argv[2], "help") == 0) {
        print_overview(stdout);
        return EXIT_DONE;
    }
    const command_t *command = find_command(argv[2]);
    if (command == NULL)
        return fail(NULL, EXIT_USAGE, "there is no command %s; see: datacake help", argv[2]);
    command_help(command);
    return EXIT_DONE;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_overview(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return help(argc, argv);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0) {
        printf("datacake %s\n", cake_version());
        return EXIT_DONE;
    }
    const command_t *command = find_command(argv[1]);
    if (command == NULL)
        return fail(NULL, EXIT_USAGE, "there is no command %s; see: datacake help", argv[1]);

    args_t args;
    int status = args_parse(&args, command, argc - 1, argv + 1);
    if (status == 0)
        status = command->run(&args);
    args_free(&args);
    if (fflush(stdout) != 0 && status == EXIT_DONE)
        status = fail(NULL, EXIT_OTHER, "cannot write to standard output");
    return status;
}
