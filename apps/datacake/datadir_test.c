/* A data directory's generation grows with every start, whatever became of the write before. */
#include "datadir.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FILE_BYTES 1024

typedef struct place {
    char dir[64], file[96];
} place_t;

static int set_up(void **state)
{
    place_t *place = calloc(1, sizeof(*place));
    assert_non_null(place);
    snprintf(place->dir, sizeof(place->dir), "/tmp/datacake-test-XXXXXX");
    assert_non_null(mkdtemp(place->dir));
    snprintf(place->file, sizeof(place->file), "%s/generation", place->dir);
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"generation", "generation.new", "node", "lock"};
    place_t *place = *state;
    char path[128];
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "%s/%s", place->dir, names[i]);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(place->dir), 0);
    free(place);
    return 0;
}

static uint64_t start(const place_t *place)
{
    datadir_t datadir;
    int err = datadir_open(&datadir, place->dir, 1, "datacake", "memory");
    datadir_close(&datadir);
    if (err != 0)
        fail_msg("%s", datadir.message);
    return datadir.generation;
}

static int start_refused(const place_t *place)
{
    datadir_t datadir;
    int err = datadir_open(&datadir, place->dir, 1, "datacake", "memory");
    datadir_close(&datadir);
    return err;
}

static void read_file(const place_t *place, char bytes[FILE_BYTES])
{
    int file = open(place->file, O_RDONLY | O_CLOEXEC);
    assert_true(file >= 0);
    assert_int_equal(read(file, bytes, FILE_BYTES), FILE_BYTES);
    close(file);
}

static void write_file(const place_t *place, const char *bytes, size_t len)
{
    int file = open(place->file, O_WRONLY | O_TRUNC | O_CREAT | O_CLOEXEC, 0600);
    assert_true(file >= 0);
    assert_int_equal(write(file, bytes, len), (ssize_t)len);
    close(file);
}

static void grows_with_every_start(void **state)
{
    uint64_t last = 0;
    for (int i = 0; i < 20; i++) {
        uint64_t generation = start(*state);
        assert_true(generation > last);
        last = generation;
    }
}

/* Also where the clock is far behind what is stored. */
static void a_torn_write_does_no_harm(void **state)
{
    const place_t *place = *state;
    char old[FILE_BYTES], new[FILE_BYTES], torn[FILE_BYTES];
    write_file(place, "4000000000000000\n", 17);
    (void)start(place);
    for (size_t cut = 0; cut <= 64; cut++) {
        uint64_t before = start(place);
        read_file(place, old);
        uint64_t after = start(place);
        read_file(place, new);
        assert_true(after > before);
        memcpy(torn, old, sizeof(torn)); /* in each slot, the start of what was written, the rest of what was there */
        for (size_t slot = 0; slot < FILE_BYTES; slot += FILE_BYTES / 2)
            memcpy(torn + slot, new + slot, cut < 64 ? cut : FILE_BYTES / 2);
        write_file(place, torn, sizeof(torn));
        assert_true(start(place) > before);
        memset(torn + (memcmp(old, new, FILE_BYTES / 2) == 0 ? FILE_BYTES / 2 : 0), 0xa5, FILE_BYTES / 2);
        write_file(place, torn, sizeof(torn)); /* rubbish in the slot that was being written */
        assert_true(start(place) > before);
    }
}

static void reads_what_earlier_versions_wrote(void **state)
{
    write_file(*state, "5000000000000000\n", 17);
    assert_int_equal(start(*state), UINT64_C(5000000000000001));
    assert_int_equal(start(*state), UINT64_C(5000000000000002));
    assert_int_equal(start(*state), UINT64_C(5000000000000003));
}

static void says_when_both_slots_are_damaged(void **state)
{
    static const char *const texts[] = {"", "x\n", "17", "18446744073709551615\n", "17 0000000000000000\n"};
    char damaged[FILE_BYTES];
    for (size_t i = 0; i < 5; i++) {
        write_file(*state, texts[i], strlen(texts[i]));
        assert_int_equal(start_refused(*state), CAKE_ECORRUPT);
    }
    memset(damaged, 0, sizeof(damaged));
    write_file(*state, damaged, sizeof(damaged));
    assert_int_equal(start_refused(*state), CAKE_ECORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(grows_with_every_start, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_torn_write_does_no_harm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reads_what_earlier_versions_wrote, set_up, tear_down),
        cmocka_unit_test_setup_teardown(says_when_both_slots_are_damaged, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
