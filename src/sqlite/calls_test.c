/* Power cuts, kills, full disks and I/O errors at every system call of SQLite that changes a file.
 *
 * ctest: no-tsan: one thread */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sqlite/sqlite.h"
#include "sqlite/version_test.h"
#include "storage/power_test.h"

#define CHECKPOINT_PAGES 40    /* so that the log is merged and starts over within a few batches */
#define ROOM_STEP        16384 /* few calls each time */

static int open_dir(const char *dir, cake_storage_t **storage)
{
    cake_log_t log = {cake__test_log, NULL, CAKE_LOG_WARN};
    cake__sqlite_settings_t settings = {CAKE_SQLITE_OPTIONS_INIT, &cake__sqlite_schema, CHECKPOINT_PAGES, ROOM_STEP};
    settings.given.log = &log;
    return cake__sqlite_open(dir, &settings, storage);
}

static void make_old(const char *dir, crash_model_t *model)
{
    cake_storage_t *storage = NULL;
    assert_int_equal(open_dir(dir, &storage), 0);
    while (model->last < POWER_BATCHES)
        assert_int_equal(crash_write(storage, model->last + 1, model), 0);
    cake_storage_close(storage);
}

/* Of a later version, whose second step changes every row. */
static int open_new(const char *dir, cake_storage_t **storage)
{
    static const char *const more[] = {
        "ALTER TABLE documents ADD COLUMN expires INTEGER; CREATE INDEX expiring ON documents (expires)",
        "UPDATE documents SET expires = hlc >> 16; CREATE TABLE done (rows INTEGER) STRICT;"
        " INSERT INTO done SELECT count(expires) FROM documents"};
    cake_log_t log = {cake__test_log, NULL, CAKE_LOG_WARN};
    return version_open(dir, more, CAKE_COUNT_OF(more), &log, storage);
}

static unsigned version_of(const char *dir)
{
    static const char *const has_column[] = {
        "SELECT count(*) FROM pragma_table_info('documents') WHERE name = 'expires'",
        "SELECT count(*) FROM sqlite_schema WHERE name = 'done'"};
    unsigned version = version_number(dir, "PRAGMA user_version");
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(version_number(dir, has_column[i]), version > (unsigned)cake__sqlite_schema.version + i);
    return version;
}

int main(void)
{
    const power_versions_t versions = {make_old,
                                       open_dir,
                                       open_new,
                                       version_of,
                                       (unsigned)cake__sqlite_schema.version,
                                       (unsigned)cake__sqlite_schema.version + 2};
    return power_main(open_dir, &versions);
}
