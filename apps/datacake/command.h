/* command.h: what every subcommand of `datacake` shares: its flags, its exit status, how it reports an error. */
#ifndef DATACAKE_APP_COMMAND_H
#define DATACAKE_APP_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum exit_status {
    EXIT_DONE = 0,
    EXIT_NOT_FOUND = 1,
    EXIT_USAGE = 2,
    EXIT_UNREACHABLE = 3,
    EXIT_CONSISTENCY = 4,
    EXIT_OTHER = 5
};

/* A flag `--name value`, or `--name` alone when value is NULL. Tables of them end with a NULL name. */
typedef struct flag {
    const char *name;
    const char *value;
    const char *help;
} flag_t;

struct args;

typedef struct command {
    const char *name;
    const char *operands; /* "KEYSPACE KEY [VALUE]", for the help */
    unsigned least, most; /* operands */
    const char *summary;
    const char *details; /* more lines for the help; may be NULL */
    const flag_t *flags;
    int (*run)(const struct args *args);
} command_t;

#define ARGS_FLAGS_MAX    64u  /* flags that a command knows */
#define ARGS_VALUES_MAX   256u /* flags given in one call, repeats included */
#define ARGS_OPERANDS_MAX 64u

typedef struct args {
    const command_t *command;
    struct {
        const flag_t *flag;
        const char *value;
        bool is_from_file;
    } given[ARGS_VALUES_MAX];
    size_t given_count;
    const char *operands[ARGS_OPERANDS_MAX];
    size_t operand_count;
    char *file; /* text of --config, which values point into */
} args_t;

/* Reads argv[1...] by the command's table. 0, or EXIT_USAGE once it has been said why. args_free in any case. */
int args_parse(args_t *args, const command_t *command, int argc, char **argv);
/* Adds the `name = value` lines of a file; the command line's own flags win over them. */
int args_read_file(args_t *args, const char *path);
void args_free(args_t *args);

bool args_has(const args_t *args, const char *name);
const char *args_value(const args_t *args, const char *name, const char *otherwise); /* the last one given */
size_t args_values(const args_t *args, const char *name, const char **out, size_t max);
/* 0, or EXIT_USAGE once it has been said what is wrong; *out keeps its value when the flag was not given. */
int args_number(const args_t *args, const char *name, uint64_t least, uint64_t most, uint64_t *out);
int parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *out); /* 0 or -1; decimal digits only */

/* One line on standard error: "datacake NAME: ...". Returns status. */
int fail(const args_t *args, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));

void command_help(const command_t *command);

extern const flag_t no_flags[];

extern const command_t serve_command, put_command, get_command, del_command, ls_command, keyspaces_command,
    import_command, export_command, members_command, status_command, watch_command, verify_command, forget_command,
    demo_command, bench_command, sim_command, keygen_command, backup_command, restore_command;

#endif
