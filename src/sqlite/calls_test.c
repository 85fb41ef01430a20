/* Power cuts, kills, full disks and I/O errors at every system call of SQLite that changes a file: what power_test.c does
 * through a VFS, with the VFS that is used.
 *
 * ctest: no-tsan: one thread */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sqlite/sqlite.h"
#include "storage/power_test.h"

static int open_dir(const char *dir, cake_storage_t **storage)
{
    cake_log_t log = {cake__test_log, NULL, CAKE_LOG_WARN};
    cake_sqlite_options_t options = CAKE_SQLITE_OPTIONS_INIT;
    options.log = &log;
    return cake_sqlite_open(dir, &options, storage);
}

static void loses_nothing_in_a_power_cut(void **state)
{
    (void)state;
    power_cuts(open_dir);
}

static void survives_io_errors(void **state)
{
    (void)state;
    power_failures(open_dir, 40);
}

static void survives_a_kill_in_every_call(void **state)
{
    (void)state;
    power_kills(open_dir);
}

static void passes_the_suite_on_failing_disks(void **state)
{
    (void)state;
    power_suite(open_dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loses_nothing_in_a_power_cut),
        cmocka_unit_test(survives_io_errors),
        cmocka_unit_test(survives_a_kill_in_every_call),
        cmocka_unit_test(passes_the_suite_on_failing_disks),
    };
    cmocka_set_test_filter(getenv("CAKE_TEST_ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
