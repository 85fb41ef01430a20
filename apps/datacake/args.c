/* args.c: flags of subcommands, by getopt_long from each command's table, and from configuration files. */
#include "command.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_FILE_MAX_BYTES (64u << 10)

int fail(const args_t *args, int status, const char *format, ...)
{
    char line[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof(line), format, list);
    va_end(list);
    if (args == NULL)
        fprintf(stderr, "datacake: %s\n", line);
    else
        fprintf(stderr, "datacake %s: %s\n", args->command->name, line);
    return status;
}

static int add_given(args_t *args, const flag_t *flag, const char *value, bool is_from_file)
{
    if (args->given_count == ARGS_VALUES_MAX)
        return fail(args, EXIT_USAGE, "more than %u flags", ARGS_VALUES_MAX);
    args->given[args->given_count].flag = flag;
    args->given[args->given_count].value = value;
    args->given[args->given_count].is_from_file = is_from_file;
    args->given_count++;
    return 0;
}

static int check_operands(const args_t *args)
{
    const command_t *command = args->command;
    if (args->operand_count >= command->least && args->operand_count <= command->most)
        return 0;
    return fail(args, EXIT_USAGE, "%s; usage: datacake %s%s%s [flags]",
                args->operand_count < command->least ? "something is missing" : "too many operands", command->name,
                *command->operands != 0 ? " " : "", command->operands);
}

int args_parse(args_t *args, const command_t *command, int argc, char **argv)
{
    struct option options[ARGS_FLAGS_MAX + 1];
    memset(args, 0, sizeof(*args));
    memset(options, 0, sizeof(options));
    args->command = command;
    size_t count = 0;
    for (const flag_t *flag = command->flags; flag->name != NULL; flag++) {
        assert(count < ARGS_FLAGS_MAX);
        options[count++] =
            (struct option){.name = flag->name, .has_arg = flag->value != NULL ? required_argument : no_argument};
    }
    opterr = 0;
    optind = 1;
    for (;;) {
        int index = -1;
        int found = getopt_long(argc, argv, ":h", options, &index);
        if (found == -1)
            break;
        if (found == 'h') {
            command_help(command);
            exit(EXIT_DONE);
        }
        if (found == ':')
            return fail(args, EXIT_USAGE, "%s needs a value; see: datacake help %s", argv[optind - 1], command->name);
        if (found == '?' && optopt != 0)
            return fail(args, EXIT_USAGE, "unknown flag -%c; see: datacake help %s", optopt, command->name);
        if (found == '?' || index < 0)
            return fail(args, EXIT_USAGE, "unknown flag %s; see: datacake help %s", argv[optind - 1], command->name);
        int err = add_given(args, &command->flags[index], optarg, false);
        if (err != 0)
            return err;
    }
    for (; optind < argc; optind++) {
        if (args->operand_count == ARGS_OPERANDS_MAX)
            return fail(args, EXIT_USAGE, "more than %u operands", ARGS_OPERANDS_MAX);
        args->operands[args->operand_count++] = argv[optind];
    }
    return check_operands(args);
}

static const flag_t *find_flag(const command_t *command, const char *name)
{
    for (const flag_t *flag = command->flags; flag->name != NULL; flag++)
        if (strcmp(flag->name, name) == 0)
            return flag;
    return NULL;
}

static char *trim(char *text)
{
    text += strspn(text, " \t\r");
    size_t len = strlen(text);
    while (len > 0 && strchr(" \t\r", text[len - 1]) != NULL)
        text[--len] = 0;
    return text;
}

static int read_file_line(args_t *args, const char *path, unsigned number, char *line)
{
    line = trim(line);
    if (*line == 0 || *line == '#')
        return 0;
    char *equals = strchr(line, '=');
    const char *value = equals == NULL ? NULL : trim(equals + 1);
    if (equals != NULL)
        *equals = 0;
    char *name = trim(line);
    const flag_t *flag = find_flag(args->command, name);
    if (flag == NULL || strcmp(name, "config") == 0)
        return fail(args, EXIT_USAGE, "%s:%u: unknown name %s", path, number, name);
    if ((flag->value != NULL) != (value != NULL && *value != 0))
        return fail(args, EXIT_USAGE, flag->value != NULL ? "%s:%u: %s needs a value" : "%s:%u: %s takes no value",
                    path, number, name);
    return add_given(args, flag, value, true);
}

int args_read_file(args_t *args, const char *path)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return fail(args, EXIT_USAGE, "cannot read %s: %s", path, strerror(errno));
    args->file = calloc(1, CONFIG_FILE_MAX_BYTES + 1);
    size_t len = args->file == NULL ? 0 : fread(args->file, 1, CONFIG_FILE_MAX_BYTES + 1, file);
    bool is_bad = args->file == NULL || ferror(file) != 0;
    fclose(file);
    if (is_bad)
        return fail(args, EXIT_USAGE, "cannot read %s", path);
    if (len > CONFIG_FILE_MAX_BYTES || memchr(args->file, 0, len) != NULL)
        return fail(args, EXIT_USAGE, "%s is no configuration file of up to %u bytes", path, CONFIG_FILE_MAX_BYTES);
    unsigned number = 0;
    for (char *line = args->file, *next; line != NULL; line = next) {
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = 0;
        int err = read_file_line(args, path, ++number, line);
        if (err != 0)
            return err;
    }
    return 0;
}

void args_free(args_t *args)
{
    free(args->file);
    args->file = NULL;
}

size_t args_values(const args_t *args, const char *name, const char **out, size_t max)
{
    const flag_t *flag = find_flag(args->command, name);
    assert(flag != NULL);
    bool in_file = true;
    for (size_t i = 0; i < args->given_count; i++)
        if (args->given[i].flag == flag && !args->given[i].is_from_file)
            in_file = false;
    size_t count = 0;
    for (size_t i = 0; i < args->given_count; i++) {
        if (args->given[i].flag != flag || args->given[i].is_from_file != in_file)
            continue;
        if (count < max)
            out[count] = args->given[i].value;
        count++;
    }
    return count;
}

bool args_has(const args_t *args, const char *name)
{
    return args_values(args, name, NULL, 0) > 0;
}

const char *args_value(const args_t *args, const char *name, const char *otherwise)
{
    const char *values[ARGS_VALUES_MAX];
    size_t count = args_values(args, name, values, ARGS_VALUES_MAX);
    return count == 0 ? otherwise : values[count - 1];
}

int parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *out)
{
    size_t len = strlen(text);
    if (len == 0 || len > 20 || strspn(text, "0123456789") != len)
        return -1;
    errno = 0;
    unsigned long long number = strtoull(text, NULL, 10);
    if (errno != 0 || number < least || number > most)
        return -1;
    *out = number;
    return 0;
}

int args_number(const args_t *args, const char *name, uint64_t least, uint64_t most, uint64_t *out)
{
    const char *text = args_value(args, name, NULL);
    if (text == NULL || parse_number(text, least, most, out) == 0)
        return 0;
    return fail(args, EXIT_USAGE, "--%s is a number from %llu to %llu, not \"%s\"", name, (unsigned long long)least,
                (unsigned long long)most, text);
}

const flag_t no_flags[] = {{NULL, NULL, NULL}};

void command_help(const command_t *command)
{
    bool has_flags = command->flags[0].name != NULL;
    printf("usage: datacake %s%s%s%s\n\n%s\n", command->name, *command->operands != 0 ? " " : "", command->operands,
           has_flags ? " [flags]" : "", command->summary);
    if (command->details != NULL)
        printf("\n%s\n", command->details);
    if (has_flags)
        printf("\nFlags:\n");
    for (const flag_t *flag = command->flags; flag->name != NULL; flag++) {
        char left[64];
        snprintf(left, sizeof(left), "--%s%s%s", flag->name, flag->value != NULL ? " " : "",
                 flag->value != NULL ? flag->value : "");
        printf("  %-28s %s\n", left, flag->help);
    }
}
