/* All allocations of the process fail in turn, LMDB's and the C library's own among them.
 *
 * ctest: no-asan no-tsan: sanitizers have an allocator of their own */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "lmdb/lmdb.h"
#include "storage/crash_test.h"

/* glibc's, under the names that it keeps for this */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);

#pragma GCC visibility push(default)

void *malloc(size_t size)
{
    errno = ENOMEM;
    return crash_library_fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    errno = ENOMEM;
    return crash_library_fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t size)
{
    errno = ENOMEM;
    return crash_library_fails() ? NULL : __libc_realloc(block, size);
}

#pragma GCC visibility pop

static int open_dir(const char *dir, cake_storage_t **storage)
{
    cake__lmdb_settings_t settings = {.given = CAKE_LMDB_OPTIONS_INIT, .late_least = 5};
    settings.given.map_bytes = 256 << 10;
    return cake__lmdb_open(dir, &settings, storage);
}

static void survives_failed_allocations_of_lmdb(void **state)
{
    (void)state;
    crash_fail_library_allocations(open_dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(survives_failed_allocations_of_lmdb)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
