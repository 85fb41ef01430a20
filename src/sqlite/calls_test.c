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

int main(void)
{
    return power_main(open_dir);
}
