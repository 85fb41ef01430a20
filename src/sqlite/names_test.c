/* A keyspace that only a failed batch had made: it is not there, and the next one to write to it makes it. Its name,
 * kept from the batch that was rolled back, would stand for a number that no file knows, and all under it would be
 * gone when the file is opened again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sqlite/sqlite.h"
#include "storage/dir_test.h"
#include "storage/suite.h"

#define LEAST_LENGTH                                                                                                   \
    2000 /* of what SQLite takes, so that a value is too long once the keyspace is in the transaction */

static void names_of_a_failed_batch_are_forgotten(void **state)
{
    static const char value[LEAST_LENGTH + 1000];
    cake__test_dir_t dir;
    cake__suite_t suite = {.keeps = true};
    char report[256] = "";
    cake__test_dir_make(&dir);
    assert_int_equal(cake_sqlite_open(dir.path, NULL, &suite.storage), 0);
    sqlite3 *db = cake__sqlite_of(suite.storage)->lanes[0].db;
    int length = sqlite3_limit(db, SQLITE_LIMIT_LENGTH, LEAST_LENGTH);
    cake_write_t writes[] = {
        cake__suite_put("fresh", cake__slice_str("a"), cake__slice_str("small"), 1),
        cake__suite_put("fresh", cake__slice_str("b"), cake__slice(value, sizeof value), 2),
    };
    assert_int_equal(cake__suite_commit(&suite, writes, 2, NULL, 0), CAKE_ETOOBIG);
    assert_int_equal(cake__suite_count_keyspaces(&suite, "fresh"), 0);
    cake__suite_expect_absent(&suite, "fresh", cake__slice_str("a"));
    (void)sqlite3_limit(db, SQLITE_LIMIT_LENGTH, length);
    assert_int_equal(cake__suite_commit(&suite, writes, 2, NULL, 0), 0);
    cake_storage_close(suite.storage);
    assert_int_equal(cake_sqlite_open(dir.path, NULL, &suite.storage), 0);
    assert_int_equal(cake__suite_count_keyspaces(&suite, "fresh"), 1);
    cake__suite_expect_live(&suite, "fresh", cake__slice_str("a"), cake__slice_str("small"), 1);
    cake__suite_expect_counts(&suite, "fresh", 2, 0);
    assert_string_equal(suite.why, "");
    assert_int_equal(suite.storage->ops->check(suite.storage, report, sizeof report), 0);
    cake_storage_close(suite.storage);
    cake__test_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_of_a_failed_batch_are_forgotten)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
