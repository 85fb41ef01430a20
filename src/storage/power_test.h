/* power_test.h: power cuts, kills and failing calls at every call that changes a file, for the test of each storage
 * on disk. */
#ifndef CAKE_STORAGE_POWER_TEST_H
#define CAKE_STORAGE_POWER_TEST_H

#include "storage/calls_test.h"

static inline unsigned power_rounds(const char *variable, unsigned usual)
{
    const char *wanted = getenv(variable);
    return wanted != NULL ? (unsigned)atoi(wanted) : usual;
}

/* Opens, writes some batches, closes, with the power cut at the nth call of all that. Returns how many calls there
 * were. */
static inline uint64_t power_cut_once(crash_open_fn open_fn, const char *dir, crash_model_t *model, uint64_t nth,
                                      unsigned batches, fate_t fate, cake__random_t *random)
{
    cake_storage_t *storage = NULL;
    calls_arm(nth, FAULT_POWER);
    int err = open_fn(dir, &storage);
    assert_true(err == 0 || calls.is_off);
    for (unsigned i = 0; i < batches && err == 0; i++)
        err = crash_write(storage, model->last + 1, model);
    assert_true(err == 0 || calls.is_off);
    cake_storage_close(storage);
    uint64_t count = calls.calls;
    if (calls.is_off)
        calls_settle(dir, fate, random);
    calls_forget();
    cake_storage_close(crash_reopen(open_fn, dir, model, model->last));
    return count;
}

/* CAKE_TEST_CUTS: the number of random cuts. */
static inline void power_cuts(crash_open_fn open_fn)
{
    cake__test_dir_t dir;
    crash_model_t model;
    cake__random_t random;
    unsigned rounds = power_rounds("CAKE_TEST_CUTS", 30);
    bool is_full = getenv("CAKE_TEST_CUTS") != NULL;
    cake__test_dir_make(&dir);
    crash_model_init(&model);
    cake__random_init(&random, 3);
    (void)power_cut_once(open_fn, dir.path, &model, 0, 60, FATE_DROP_ALL, &random);
    uint64_t count = power_cut_once(open_fn, dir.path, &model, 0, 3, FATE_DROP_ALL, &random);
    for (uint64_t nth = 1; nth <= count; nth++) { /* every call of an opening, three batches and a close */
        for (unsigned fate = 0; fate < FATES; fate++) {
            if (is_full || (nth + fate) % 2 == 0)
                (void)power_cut_once(open_fn, dir.path, &model, nth, 3, (fate_t)fate, &random);
        }
    }
    for (unsigned i = 0; i < rounds; i++) {
        fate_t fate = (fate_t)cake__random_below(&random, FATES);
        (void)power_cut_once(open_fn, dir.path, &model, 1 + cake__random_below(&random, 600), 40, fate, &random);
    }
    print_message("%u calls, %u random cuts, %u batches\n", (unsigned)count, rounds, (unsigned)model.last);
    cake__test_dir_remove(&dir);
}

/* One call fails, at every place in turn: the batch fails whole, or not at all, and the storage goes on. At the end the
 * power goes: what was acknowledged after the failure is on the disk. */
static inline void power_fail_one(crash_open_fn open_fn, const char *dir, crash_model_t *model, uint64_t nth,
                                  fault_t fault, unsigned *failed)
{
    cake__random_t random;
    cake_storage_t *storage = NULL;
    cake__random_init(&random, nth);
    calls_arm(nth, fault);
    int err = open_fn(dir, &storage);
    *failed += err != 0;
    assert_true(err == 0 || err == CAKE_EIO || err == CAKE_ENOSPC);
    for (unsigned i = 0; i < 4 && storage != NULL; i++) {
        err = crash_write(storage, model->last + 1, model);
        *failed += err != 0;
        assert_true(err == 0 || err == CAKE_EIO || err == CAKE_ENOSPC);
        if (err != 0)
            crash_compare(storage, model); /* nothing of it, now */
    }
    if (storage != NULL) {
        err = crash_write(storage, model->last + 1, model);
        if (err != 0) /* the one failure may come this late */
            err = crash_write(storage, model->last + 1, model);
        assert_int_equal(err, 0);
        crash_compare(storage, model);
    }
    cake_storage_close(storage);
    calls_settle(dir, (fate_t)(nth % FATES), &random);
    cake_storage_close(crash_reopen(open_fn, dir, model, model->last));
}

static inline void power_failures(crash_open_fn open_fn, uint64_t calls_tried)
{
    static const fault_t faults[] = {FAULT_EIO, FAULT_ENOSPC, FAULT_SHORT};
    cake__test_dir_t dir;
    crash_model_t model;
    unsigned failed = 0;
    cake__test_dir_make(&dir);
    crash_model_init(&model);
    (void)power_cut_once(open_fn, dir.path, &model, 0, 20, FATE_DROP_ALL, &(cake__random_t){{0}});
    for (uint64_t nth = 1; nth <= calls_tried; nth++) {
        for (size_t i = 0; i < CAKE_COUNT_OF(faults); i++)
            power_fail_one(open_fn, dir.path, &model, nth, faults[i], &failed);
    }
    print_message("%u calls failed in three ways each, %u batches or openings with them\n", (unsigned)calls_tried,
                  failed);
    assert_true(failed > 20);
    cake__test_dir_remove(&dir);
}

/* A child that opens, writes some batches and closes, killed in its nth call. True: it was. */
static inline bool power_kill_once(crash_open_fn open_fn, const char *dir, crash_model_t *model, uint64_t nth,
                                   unsigned batches)
{
    int ends[2], status;
    uint64_t acked = model->last, got;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        cake_storage_t *storage = NULL;
        calls_arm(nth, FAULT_KILL);
        int err = open_fn(dir, &storage);
        for (uint64_t next = acked + 1; err == 0 && next <= acked + batches; next++) {
            err = crash_write(storage, next, NULL);
            if (err == 0 && write(ends[1], &next, sizeof next) != sizeof next)
                _exit(4);
        }
        cake_storage_close(storage);
        _exit(err == 0 ? 0 : 5);
    }
    close(ends[1]);
    while (read(ends[0], &got, sizeof got) == sizeof got)
        acked = got;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    cake_storage_close(crash_reopen(open_fn, dir, model, acked));
    return WIFSIGNALED(status);
}

/* Calls 1, 2, 3 ... until a whole run makes no more; then random ones of longer runs. */
static inline void power_kills(crash_open_fn open_fn)
{
    cake__test_dir_t dir;
    crash_model_t model;
    cake__random_t random;
    uint64_t nth = 1;
    unsigned rounds = power_rounds("CAKE_TEST_KILLS", 20);
    cake__test_dir_make(&dir);
    crash_model_init(&model);
    cake__random_init(&random, 4);
    while (power_kill_once(open_fn, dir.path, &model, nth, 4))
        nth++;
    assert_true(nth > 8);
    for (unsigned i = 0; i < rounds; i++)
        (void)power_kill_once(open_fn, dir.path, &model, 1 + cake__random_below(&random, 400), 60);
    print_message("killed in each of %u calls and %u times at random, %u batches\n", (unsigned)nth - 1, rounds,
                  (unsigned)model.last);
    cake__test_dir_remove(&dir);
}

/* ---- the suite's cases of failing disks -------------------------------------------------------------------------- */

typedef struct power_factory {
    crash_open_fn open_fn;
    cake__test_dir_t dir;
} power_factory_t;

static inline int power_open(void *arg, bool fresh, cake_storage_t **storage)
{
    power_factory_t *factory = arg;
    calls.is_watched = false;
    if (fresh)
        cake__test_dir_clear(&factory->dir);
    return factory->open_fn(factory->dir.path, storage);
}

static inline int power_break_disk(void *arg, int err)
{
    (void)arg;
    calls_forget();
    if (err != 0)
        calls_arm(1, err == CAKE_EIO ? FAULT_DEAD : FAULT_FULL);
    return 0;
}

static inline void power_suite(crash_open_fn open_fn)
{
    power_factory_t factory = {.open_fn = open_fn};
    cake_storage_suite_options_t options = CAKE_STORAGE_SUITE_OPTIONS_INIT;
    options.break_disk = power_break_disk;
    options.only = "reported and survived";
    cake__test_dir_make(&factory.dir);
    assert_int_equal(cake_storage_suite_run_with(&options, power_open, &factory, stdout), 0);
    cake__test_dir_remove(&factory.dir);
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* Opened for the first time, in directories that it has to make, and written to, with the power cut at the nth call. */
static inline uint64_t power_make_once(crash_open_fn open_fn, uint64_t nth, fate_t fate)
{
    cake__test_dir_t above;
    crash_model_t model;
    cake__random_t random;
    char dir[CAKE__PATH_MAX];
    cake__test_dir_make(&above);
    crash_model_init(&model);
    cake__random_init(&random, nth * FATES + fate);
    snprintf(dir, sizeof dir, "%s/data/store", above.path);
    uint64_t count = power_cut_once(open_fn, dir, &model, nth, 2, fate, &random);
    assert_int_equal(nftw(dir, calls_remove, 8, FTW_DEPTH | FTW_PHYS), 0);
    *strrchr(dir, '/') = '\0';
    assert_int_equal(rmdir(dir), 0);
    cake__test_dir_remove(&above);
    return count;
}

static inline void power_makes(crash_open_fn open_fn)
{
    uint64_t count = power_make_once(open_fn, 0, FATE_KEEP_ALL);
    for (uint64_t nth = 1; nth <= count; nth++) {
        for (unsigned fate = 0; fate < FATES; fate++)
            (void)power_make_once(open_fn, nth, (fate_t)fate);
    }
    print_message("%u calls from nothing to the second batch\n", (unsigned)count);
}

/* ---- migrating --------------------------------------------------------------------------------------------------- */

#define POWER_BATCHES 8u /* in a file of the older version */

/* Programs of an older and of a newer version. */
typedef struct power_versions {
    void (*make_old)(const char *dir, crash_model_t *model); /* with POWER_BATCHES in it */
    crash_open_fn open_old;                                  /* NULL: there is none any more */
    crash_open_fn open_new;
    unsigned (*version)(const char *dir); /* of the file; it fails where it is neither one nor the other */
    unsigned old_version, new_version;
} power_versions_t;

/* Opened by the newer program, with a fault at the nth call. The file then is of one version, whole, and goes on
 * with a program of that version. Returns how many calls there were. */
static inline uint64_t power_migrate_once(const power_versions_t *versions, uint64_t nth, fault_t fault, fate_t fate,
                                          unsigned *stayed)
{
    cake__test_dir_t dir;
    crash_model_t model;
    cake__random_t random;
    cake_storage_t *storage = NULL;
    cake__test_dir_make(&dir);
    crash_model_init(&model);
    cake__random_init(&random, nth * FATES + fate);
    versions->make_old(dir.path, &model);
    calls_arm(nth, fault);
    int err = versions->open_new(dir.path, &storage);
    assert_true(err == 0 || err == CAKE_EIO || err == CAKE_ENOSPC);
    cake_storage_close(storage);
    uint64_t count = calls.calls;
    calls_settle(dir.path, fate, &random);
    unsigned version = versions->version(dir.path);
    assert_in_range(version, versions->old_version, versions->new_version);
    assert_true(err != 0 || fault == FAULT_POWER || version == versions->new_version);
    *stayed += version == versions->old_version;
    if (versions->open_old != NULL && version == versions->old_version) {
        storage = crash_reopen(versions->open_old, dir.path, &model, POWER_BATCHES);
        assert_int_equal(crash_write(storage, model.last + 1, &model), 0);
        cake_storage_close(storage);
    } else if (versions->open_old != NULL) {
        assert_int_equal(versions->open_old(dir.path, &storage), CAKE_EVERSION);
        assert_null(storage);
    }
    cake_storage_close(crash_reopen(versions->open_new, dir.path, &model, model.last));
    assert_int_equal(versions->version(dir.path), versions->new_version);
    cake__test_dir_remove(&dir);
    return count;
}

static inline void power_migrations(const power_versions_t *versions)
{
    static const fault_t faults[] = {FAULT_EIO, FAULT_ENOSPC, FAULT_SHORT, FAULT_DEAD, FAULT_FULL};
    bool is_full = getenv("CAKE_TEST_CUTS") != NULL;
    unsigned stayed = 0, tried = 0;
    uint64_t count = power_migrate_once(versions, 0, FAULT_NONE, FATE_KEEP_ALL, &stayed);
    assert_int_equal(stayed, 0);
    assert_true(count > 2);
    for (uint64_t nth = 1; nth <= count; nth++) {
        for (unsigned way = 0; way < FATES + CAKE_COUNT_OF(faults); way++) {
            fate_t fate = way < FATES ? (fate_t)way : (fate_t)(nth % FATES);
            if (!is_full && (nth + way) % 3 != 0)
                continue;
            (void)power_migrate_once(versions, nth, way < FATES ? FAULT_POWER : faults[way - FATES], fate, &stayed);
            tried++;
        }
    }
    print_message("%u migrations of %u calls cut short, %u had not happened\n", tried, (unsigned)count, stayed);
    assert_true(stayed > 0);
}

/* ---- the cases --------------------------------------------------------------------------------------------------- */

typedef struct power_kind {
    crash_open_fn open_fn;
    const power_versions_t *versions;
} power_kind_t;

static inline void loses_nothing_in_a_power_cut(void **state)
{
    power_cuts(((const power_kind_t *)*state)->open_fn);
}

static inline void loses_nothing_when_it_has_just_been_made(void **state)
{
    power_makes(((const power_kind_t *)*state)->open_fn);
}

static inline void survives_io_errors(void **state)
{
    power_failures(((const power_kind_t *)*state)->open_fn, 40);
}

static inline void survives_a_kill_in_every_call(void **state)
{
    power_kills(((const power_kind_t *)*state)->open_fn);
}

static inline void passes_the_suite_on_failing_disks(void **state)
{
    power_suite(((const power_kind_t *)*state)->open_fn);
}

static inline void survives_a_crash_while_it_migrates(void **state)
{
    power_migrations(((const power_kind_t *)*state)->versions);
}

static inline int power_main(crash_open_fn open_fn, const power_versions_t *versions)
{
    power_kind_t kind = {open_fn, versions};
    struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(loses_nothing_in_a_power_cut, &kind),
        cmocka_unit_test_prestate(loses_nothing_when_it_has_just_been_made, &kind),
        cmocka_unit_test_prestate(survives_io_errors, &kind),
        cmocka_unit_test_prestate(survives_a_kill_in_every_call, &kind),
        cmocka_unit_test_prestate(passes_the_suite_on_failing_disks, &kind),
        cmocka_unit_test_prestate(survives_a_crash_while_it_migrates, &kind),
    };
    cmocka_set_test_filter(getenv("CAKE_TEST_ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
