/* SQLite's own allocations fail in turn.
 *
 * ctest: no-tsan: one thread */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sqlite/sqlite.h"
#include "storage/crash_test.h"

static sqlite3_mem_methods real;

static void *take(int size)
{
    return crash_library_fails() ? NULL : real.xMalloc(size);
}

static void *resize(void *block, int size)
{
    return crash_library_fails() ? NULL : real.xRealloc(block, size);
}

static int open_dir(const char *dir, cake_storage_t **storage)
{
    return cake_sqlite_open(dir, NULL, storage);
}

static void survives_failed_allocations_of_sqlite(void **state)
{
    (void)state;
    crash_fail_library_allocations(open_dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(survives_failed_allocations_of_sqlite)};
    sqlite3_mem_methods methods;
    if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real) != SQLITE_OK)
        return 1;
    methods = real;
    methods.xMalloc = take;
    methods.xRealloc = resize;
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &methods) != SQLITE_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
