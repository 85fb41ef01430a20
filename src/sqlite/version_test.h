/* version_test.h: a schema two versions ahead of ours, for tests of migration. Include cmocka first. */
#ifndef CAKE_SQLITE_VERSION_TEST_H
#define CAKE_SQLITE_VERSION_TEST_H

#include "sqlite/sqlite.h"

#define VERSION_STEPS_MAX 8

/* A program whose schema has these steps beyond ours. */
static inline int version_open(const char *dir, const char *const *more, int count, const cake_log_t *log,
                               cake_storage_t **storage)
{
    const char *steps[VERSION_STEPS_MAX];
    int ours = cake__sqlite_schema.version;
    cake__sqlite_schema_t schema = {steps, ours + count};
    cake__sqlite_settings_t settings = {CAKE_SQLITE_OPTIONS_INIT, &schema, 0, 0};
    settings.given.log = log;
    assert_in_range(schema.version, 1, VERSION_STEPS_MAX);
    memcpy(steps, cake__sqlite_schema.steps, (size_t)ours * sizeof *steps);
    memcpy(steps + ours, more, (size_t)count * sizeof *steps);
    return cake__sqlite_open(dir, &settings, storage);
}

static inline void version_exec(const char *dir, const char *sql)
{
    sqlite3 *db;
    char path[128];
    snprintf(path, sizeof path, "%s/lane-000.sqlite", dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(cake__sqlite_exec(db, sql, NULL), 0);
    sqlite3_close(db);
}

static inline unsigned version_number(const char *dir, const char *sql)
{
    sqlite3 *db;
    char path[128];
    int64_t version = -1;
    snprintf(path, sizeof path, "%s/lane-000.sqlite", dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(cake__sqlite_number(db, sql, &version), 0);
    sqlite3_close(db);
    return (unsigned)version;
}

#endif
