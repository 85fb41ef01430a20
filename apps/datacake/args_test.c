/* Flags of commands and of configuration files: the given is found, the unknown and the malformed end with status 2. */
#include "command.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const flag_t flags[] = {
    {"name", "TEXT", ""}, {"count", "N", ""},     {"seed", "ADDR", ""},
    {"quiet", NULL, ""},  {"config", "FILE", ""}, {NULL, NULL, NULL},
};
static const command_t command = {.name = "test", .operands = "A [B]", .least = 1, .most = 2, .flags = flags};

static int parse(args_t *args, const char *const *words)
{
    char *argv[32] = {(char *)(uintptr_t) "test"};
    int argc = 1;
    for (; words[argc - 1] != NULL; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    return args_parse(args, &command, argc, argv);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void flags_may_stand_anywhere(void **state)
{
    args_t args;
    const char *seeds[4];
    assert_int_equal(parse(&args, WORDS("--seed", "x:1", "one", "--quiet", "--seed=y:2", "two", "--name", "-5")), 0);
    assert_int_equal(args.operand_count, 2);
    assert_string_equal(args.operands[0], "one");
    assert_string_equal(args.operands[1], "two");
    assert_int_equal(args_values(&args, "seed", seeds, 4), 2);
    assert_string_equal(seeds[1], "y:2");
    assert_true(args_has(&args, "quiet"));
    assert_string_equal(args_value(&args, "name", ""), "-5");
    args_free(&args);

    assert_int_equal(parse(&args, WORDS("--", "--name", "-")), 0);
    assert_string_equal(args.operands[0], "--name");
    args_free(&args);
}

static void what_is_unknown_is_refused(void **state)
{
    args_t args;
    assert_int_equal(parse(&args, WORDS("one", "--unknown")), EXIT_USAGE);
    assert_int_equal(parse(&args, WORDS("one", "-x")), EXIT_USAGE);
    assert_int_equal(parse(&args, WORDS("one", "--name")), EXIT_USAGE);
    assert_int_equal(parse(&args, WORDS("one", "--quiet=yes")), EXIT_USAGE);
    assert_int_equal(parse(&args, WORDS("--quiet")), EXIT_USAGE);
    assert_int_equal(parse(&args, WORDS("one", "two", "three")), EXIT_USAGE);
}

static void numbers_are_checked(void **state)
{
    static const char *const bad[] = {"", "-1", "+1", " 1", "1 ", "0x1", "1e3", "11", "99999999999999999999999"};
    args_t args;
    uint64_t number = 7;
    assert_int_equal(parse(&args, WORDS("one")), 0);
    assert_int_equal(args_number(&args, "count", 1, 10, &number), 0);
    assert_int_equal(number, 7);
    assert_int_equal(parse(&args, WORDS("one", "--count", "10")), 0);
    assert_int_equal(args_number(&args, "count", 1, 10, &number), 0);
    assert_int_equal(number, 10);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(parse(&args, WORDS("one", "--count", bad[i])), 0);
        assert_int_equal(args_number(&args, "count", 1, 10, &number), EXIT_USAGE);
    }
}

static int read_config(args_t *args, const char *text)
{
    char path[] = "/tmp/datacake-args-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, text, strlen(text)), strlen(text));
    close(file);
    int status = args_read_file(args, path);
    unlink(path);
    return status;
}

static void the_command_line_wins_over_the_file(void **state)
{
    args_t args;
    const char *seeds[4];
    assert_int_equal(parse(&args, WORDS("one", "--name", "line")), 0);
    assert_int_equal(read_config(&args, "# a comment\n\nname = file\r\n seed=a:1\nseed =  b:2  \nquiet\ncount = 3"), 0);
    assert_string_equal(args_value(&args, "name", ""), "line");
    assert_int_equal(args_values(&args, "seed", seeds, 4), 2);
    assert_string_equal(seeds[1], "b:2");
    assert_true(args_has(&args, "quiet"));
    assert_string_equal(args_value(&args, "count", ""), "3");
    args_free(&args);
}

static void bad_files_are_refused(void **state)
{
    static const char *const bad[] = {"unknown = 1\n", "name\n", "name =\n", "quiet = yes\n", "config = x\n", "= 1\n"};
    args_t args;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(parse(&args, WORDS("one")), 0);
        assert_int_equal(read_config(&args, bad[i]), EXIT_USAGE);
        args_free(&args);
    }
    assert_int_equal(parse(&args, WORDS("one")), 0);
    assert_int_equal(args_read_file(&args, "/nonexistent"), EXIT_USAGE);
    args_free(&args);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_may_stand_anywhere), cmocka_unit_test(what_is_unknown_is_refused),
        cmocka_unit_test(numbers_are_checked),      cmocka_unit_test(the_command_line_wins_over_the_file),
        cmocka_unit_test(bad_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
