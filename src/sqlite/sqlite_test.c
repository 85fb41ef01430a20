#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>

#include "sqlite/sqlite.h"
#include "storage/dir_test.h"
#include "storage/suite.h"

static int open_dir(const char *dir, cake_storage_t **storage)
{
    cake_log_t log = {cake__test_log, NULL, CAKE_LOG_WARN};
    cake_sqlite_options_t options = CAKE_SQLITE_OPTIONS_INIT;
    options.log = &log;
    return cake_sqlite_open(dir, &options, storage);
}

static int open_lanes(const char *dir, unsigned lanes, bool is_relaxed, cake_storage_t **storage)
{
    cake_log_t log = {cake__test_log, NULL, CAKE_LOG_WARN};
    cake_sqlite_options_t options = CAKE_SQLITE_OPTIONS_INIT;
    options.log = &log;
    options.lanes = lanes;
    options.lose_last_writes_on_power_cut = is_relaxed;
    return cake_sqlite_open(dir, &options, storage);
}

typedef struct factory {
    cake__test_dir_t dir;
    unsigned lanes;
    bool is_relaxed;
} factory_t;

static int open_for_suite(void *arg, bool fresh, cake_storage_t **storage)
{
    factory_t *factory = arg;
    if (fresh)
        cake__test_dir_clear(&factory->dir);
    return open_lanes(factory->dir.path, factory->lanes, factory->is_relaxed, storage);
}

static void run_suite(unsigned lanes, bool is_relaxed)
{
    factory_t factory = {.lanes = lanes, .is_relaxed = is_relaxed};
    cake_storage_suite_options_t options = CAKE_STORAGE_SUITE_OPTIONS_INIT;
    options.rows = 20000;
    options.steps = is_relaxed ? 2000 : 500;
    options.seed = lanes;
    cake__test_dir_make(&factory.dir);
    assert_int_equal(cake_storage_suite_run_with(&options, open_for_suite, &factory, stdout), 0);
    cake__test_dir_remove(&factory.dir);
}

static void passes_the_suite(void **state)
{
    (void)state;
    run_suite(1, false);
}

static void passes_the_suite_with_lanes(void **state)
{
    (void)state;
    run_suite(3, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_the_suite),
        cmocka_unit_test(passes_the_suite_with_lanes),
    };
    (void)open_dir;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
