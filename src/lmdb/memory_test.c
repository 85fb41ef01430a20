/* All allocations of the process fail in turn, LMDB's and the C library's own among them.
 *
 * ctest: no-asan no-tsan: sanitizers have an allocator of their own */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "lmdb/lmdb.h"
#include "storage/crash_test.h"

static struct heap {
    uint64_t calls, fail_at; /* 0: none */
    bool is_lasting, has_failed;
} heap;

static bool fails(void)
{
    bool is_it = heap.fail_at != 0 && (++heap.calls == heap.fail_at || (heap.is_lasting && heap.calls > heap.fail_at));
    heap.has_failed = heap.has_failed || is_it;
    return is_it;
}

/* glibc's, under the names that it keeps for this */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);

#pragma GCC visibility push(default)

void *malloc(size_t size)
{
    errno = ENOMEM;
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    errno = ENOMEM;
    return fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t size)
{
    errno = ENOMEM;
    return fails() ? NULL : __libc_realloc(block, size);
}

#pragma GCC visibility pop

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
    cake__lmdb_settings_t settings = {.given = CAKE_LMDB_OPTIONS_INIT, .late_least = 5};
    settings.given.map_bytes = 256 << 10;
    return cake__lmdb_open(dir, &settings, storage);
}

static void survives_failed_allocations_of_lmdb(void **state)
{
    static const crash_heap_t hooks = {arm, has_failed};
    (void)state;
    crash_fail_library_allocations(open_dir, &hooks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(survives_failed_allocations_of_lmdb)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
