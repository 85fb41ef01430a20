/* Power cuts, kills, full disks and I/O errors at every call of LMDB that changes its file.
 *
 * ctest: no-tsan: one thread */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "lmdb/lmdb.h"
#include "lmdb/version_test.h"
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

static void make_old(const char *dir, crash_model_t *model)
{
    cake_storage_t *storage = NULL;
    assert_int_equal(open_dir(dir, &storage), 0);
    while (model->last < POWER_BATCHES)
        assert_int_equal(crash_write(storage, model->last + 1, model), 0);
    cake_storage_close(storage);
    make_version_1(dir);
}

int main(void)
{
    static const power_versions_t versions = {make_old, NULL, open_dir, version_of, 1, CAKE__LMDB_VERSION};
    return power_main(open_dir, &versions);
}
