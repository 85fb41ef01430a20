/* SQLite's own allocations fail in turn.
 *
 * ctest: no-tsan: one thread */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sqlite/sqlite.h"
#include "storage/crash_test.h"

static struct heap {
    sqlite3_mem_methods real;
    uint64_t calls, fail_at; /* 0: none */
    bool is_lasting, has_failed;
} heap;

static bool fails(void)
{
    bool is_it = heap.fail_at != 0 && (++heap.calls == heap.fail_at || (heap.is_lasting && heap.calls > heap.fail_at));
    heap.has_failed = heap.has_failed || is_it;
    return is_it;
}

static void *take(int size)
{
    return fails() ? NULL : heap.real.xMalloc(size);
}

static void *resize(void *block, int size)
{
    return fails() ? NULL : heap.real.xRealloc(block, size);
}

static void arm(uint64_t nth, bool is_lasting)
{
    heap.calls = 0;
    heap.fail_at = nth;
    heap.is_lasting = is_lasting;
    heap.has_failed = false;
}

static bool has_failed(void)
{
    return heap.has_failed;
}

static int open_dir(const char *dir, cake_storage_t **storage)
{
    return cake_sqlite_open(dir, NULL, storage);
}

static void survives_failed_allocations_of_sqlite(void **state)
{
    static const crash_heap_t hooks = {arm, has_failed};
    (void)state;
    crash_fail_library_allocations(open_dir, &hooks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(survives_failed_allocations_of_sqlite)};
    sqlite3_mem_methods methods;
    if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &heap.real) != SQLITE_OK)
        return 1;
    methods = heap.real;
    methods.xMalloc = take;
    methods.xRealloc = resize;
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &methods) != SQLITE_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
