/* Cases: the process killed while it writes, a full disk, I/O errors. */
#include "storage/suite.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"

#define KEYS          16u
#define BATCHES_ACKED 12u /* at most, before a kill */
#define SPINS         200000u
#define FULL_AFTER    20000u /* batches of VALUE bytes: the disk of break_disk is smaller than that */
#define VALUE         8192u

/* ---- batch n, whoever writes it, and whenever -----------------------------------------------------------------------
 * It puts a key, deletes another, erases a third, and says in the meta "last" that it was there. */

static cake_slice_t key_of(unsigned which, char out[64])
{
    const char *format = which % 2 == 0 ? "key %u" : "a key of more than fifteen bytes %u";
    return cake__slice(out, (size_t)snprintf(out, 64, format, which % KEYS));
}

static unsigned target(uint64_t n, unsigned place)
{
    return (unsigned)((n * 7 + place * 5) % KEYS);
}

static int write_batch(cake_storage_t *storage, uint64_t n)
{
    char keys[3][64];
    cake_write_t writes[3] = {
        cake__suite_put("killed", key_of(target(n, 0), keys[0]), cake__slice(&n, sizeof n), n),
        cake__suite_tombstone("killed", key_of(target(n, 1), keys[1]), n),
        cake__suite_erase("killed", key_of(target(n, 2), keys[2])),
    };
    cake_meta_write_t meta = {cake__slice_str("last"), cake__slice(&n, sizeof n)};
    cake_batch_t batch = {storage->ops->lane_of(storage, writes[0].keyspace), writes, 3, &meta, 1};
    return storage->ops->write(storage, &batch);
}

static int take_last(void *arg, cake_slice_t name, cake_slice_t value)
{
    (void)name;
    if (value.len == sizeof(uint64_t))
        memcpy(arg, value.data, value.len);
    return 0;
}

/* Everything is as batches 1..last make it. */
static void expect_batches(cake__suite_t *suite, uint64_t last)
{
    for (unsigned which = 0; which < KEYS && !suite->failed; which++) {
        char text[64];
        cake_slice_t key = key_of(which, text);
        uint64_t n = last;
        while (n > 0 && target(n, 0) != which && target(n, 1) != which && target(n, 2) != which)
            n--;
        if (n > 0 && target(n, 2) == which)
            cake__suite_expect_absent(suite, "killed", key);
        else if (n > 0 && target(n, 1) == which)
            cake__suite_expect_tombstone(suite, "killed", key, n);
        else if (n > 0)
            cake__suite_expect_live(suite, "killed", key, cake__slice(&n, sizeof n), n);
        else
            cake__suite_expect_absent(suite, "killed", key);
    }
}

/* ---- killed ------------------------------------------------------------------------------------------------------ */

static void write_until_killed(cake__suite_t *suite, uint64_t next, int to_parent)
{
    cake_storage_t *storage = NULL;
    if (suite->factory(suite->arg, false, &storage) != 0)
        _exit(2);
    for (; write_batch(storage, next) == 0; next++) {
        if (write(to_parent, &next, sizeof next) != sizeof next)
            _exit(3);
    }
    _exit(4);
}

/* Raises *acked to the last batch that the child had acknowledged. */
static bool kill_child(cake__suite_t *suite, uint64_t *acked, cake__random_t *random)
{
    int ends[2], status = 0;
    uint64_t enough = *acked + cake__random_below(random, BATCHES_ACKED), got;
    if (pipe(ends) != 0)
        return false;
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        write_until_killed(suite, *acked + 1, ends[1]);
    }
    close(ends[1]);
    while (child > 0 && *acked < enough && read(ends[0], &got, sizeof got) == sizeof got)
        *acked = got;
    for (volatile uint64_t spins = cake__random_below(random, SPINS); spins > 0; spins--)
        ; /* where in a write it strikes is left to chance */
    if (child > 0) {
        (void)kill(child, SIGKILL);
        (void)waitpid(child, &status, 0);
    }
    while (child > 0 && read(ends[0], &got, sizeof got) == sizeof got)
        *acked = got;
    close(ends[0]);
    return child > 0 && WIFSIGNALED(status);
}

static void killed_while_writing(cake__suite_t *suite)
{
    cake__random_t random;
    uint64_t acked = 0;
    if (suite->options.kills == SIZE_MAX) {
        cake__suite_skip(suite, "not to be opened in a child process");
        return;
    }
    cake__random_init(&random, suite->options.seed + 1);
    for (size_t i = 0; i < suite->options.kills && !suite->failed; i++) {
        uint64_t last = 0;
        cake_storage_close(suite->storage);
        suite->storage = NULL;
        bool child_wrote_until_it_was_killed = kill_child(suite, &acked, &random);
        CAKE__CHECK(suite, child_wrote_until_it_was_killed);
        int err = suite->factory(suite->arg, false, &suite->storage);
        CAKE__CHECK(suite, err == 0);
        unsigned lane = suite->storage->ops->lane_of(suite->storage, cake__slice_str("killed"));
        err = suite->storage->ops->metas(suite->storage, lane, cake__slice_str("last"), take_last, &last);
        CAKE__CHECK(suite, err == 0);
        bool acknowledged_batches_are_there = last >= acked && last <= acked + 1;
        CAKE__CHECK(suite, acknowledged_batches_are_there);
        expect_batches(suite, last);
        acked = last;
    }
}

/* ---- a disk that fails ------------------------------------------------------------------------------------------- */

static int add_large(cake__suite_t *suite, uint64_t n)
{
    static const uint8_t value[VALUE];
    cake_slice_t key = cake__slice(&n, sizeof n);
    return cake__suite_commit_one(suite, cake__suite_put("large", key, cake__slice(value, VALUE), n + 1));
}

/* Until it fails. *added counts those that succeeded. */
static int add_until_failure(cake__suite_t *suite, uint64_t *added)
{
    int err = 0;
    for (unsigned i = 0; i < FULL_AFTER && (err = add_large(suite, *added)) == 0; i++)
        ++*added;
    return err;
}

static void break_and_mend(cake__suite_t *suite, int err)
{
    uint64_t added = 0, last = 0;
    while (last < 40) {
        int written = write_batch(suite->storage, ++last);
        CAKE__CHECK(suite, written == 0);
    }
    CAKE__CHECK(suite, add_large(suite, added++) == 0);
    for (unsigned round = 0; round < 3 && !suite->failed; round++) {
        CAKE__CHECK(suite, suite->options.break_disk(suite->arg, err) == 0);
        int failure = add_until_failure(suite, &added);
        bool failure_is_reported = err == CAKE_EIO ? failure == CAKE_EIO : failure == CAKE_ENOSPC;
        CAKE__CHECK(suite, failure_is_reported);
        cake__suite_expect_absent(suite, "large",
                                  cake__slice(&added, sizeof added)); /* nothing of it, and reads go on */
        CAKE__CHECK_ALL(suite);
        cake__suite_expect_counts(suite, "large", added, 0);
        expect_batches(suite, last);
        CAKE__CHECK_ALL(suite);
        CAKE__CHECK(suite, suite->options.break_disk(suite->arg, 0) == 0);
        bool writing_goes_on = add_large(suite, added++) == 0 && write_batch(suite->storage, ++last) == 0;
        CAKE__CHECK(suite, writing_goes_on);
    }
    if (suite->keeps)
        cake__suite_reopen(suite);
    CAKE__CHECK_ALL(suite);
    cake__suite_expect_counts(suite, "large", added, 0);
    expect_batches(suite, last);
}

static void full_disk(cake__suite_t *suite)
{
    if (suite->options.break_disk == NULL)
        cake__suite_skip(suite, "options.break_disk is not given");
    else
        break_and_mend(suite, CAKE_ENOSPC);
}

static void io_errors(cake__suite_t *suite)
{
    if (suite->options.break_disk == NULL)
        cake__suite_skip(suite, "options.break_disk is not given");
    else
        break_and_mend(suite, CAKE_EIO);
}

const cake__suite_case_t cake__suite_crash_cases[] = {
    {"killed while writing: acknowledged batches are there, whole", killed_while_writing, true},
    {"a full disk is reported and survived", full_disk, false},
    {"I/O errors are reported and survived", io_errors, false},
    {NULL, NULL, false},
};
