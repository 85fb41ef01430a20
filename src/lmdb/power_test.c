/* Power cuts, kills, full disks and I/O errors at every call of LMDB that changes its file.
 *
 * ctest: no-tsan: one thread */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "lmdb/lmdb.h"
#include "storage/power_test.h"

/* A few late ids fill a half, so that merging them is under way most of the time. */
static int open_dir(const char *dir, cake_storage_t **storage)
{
    cake_log_t log = {cake__test_log, NULL, CAKE_LOG_WARN};
    cake__lmdb_settings_t settings = {.given = CAKE_LMDB_OPTIONS_INIT, .late_least = 5};
    settings.given.log = &log;
    settings.given.map_bytes = 256 << 10; /* it has to grow, too */
    return cake__lmdb_open(dir, &settings, storage);
}

int main(void)
{
    return power_main(open_dir);
}
