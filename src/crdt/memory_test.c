/* Memory that runs out where records come from storage, and at each allocation of a set's life in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crdt/sets_test.h"

#define KEYS 40u

static int write_nowhere(void *ctx, const void *data, size_t len)
{
    return 0;
}

/* Refuses one block, before which it takes `left`; what comes behind is taken again. */
static void *refuse_one(void *ctx, void *block, size_t size)
{
    fuse_t *fuse = ctx;
    if (size != 0 && fuse->left-- == 0) {
        fuse->burnt++;
        return NULL;
    }
    return cake__libc_alloc.resize(NULL, block, size);
}

static int load(cake_orswot_t *set, const cake_orswot_t *from, size_t *loaded)
{
    int err = 0;
    for (; *loaded < KEYS && err == 0; *loaded += err == 0) {
        cake_id_t id = cake_id_of_u64(*loaded);
        cake_record_t record;
        assert_true(cake_orswot_get(from, &id, &record));
        err = cake__orswot_load_record(set, &record);
    }
    return err;
}

/* Whatever fails may be tried again, and then the set is the one that was stored. */
static void records_from_storage_are_loaded_in_the_end(void **state)
{
    cake_orswot_t *from = set_new(1);
    bool has_all = false;
    for (uint64_t key = 0; key < KEYS; key++)
        put_key(from, key);
    delete_key(from, KEYS); /* and dropped: more than records is stored */
    assert_int_equal(cake_orswot_purge(from, WALL_MS + 60000, NULL, 0, 1, 1, KEYS, NULL), 0);
    for (size_t left = 0; !has_all; left++) {
        fuse_t fuse = {.left = SIZE_MAX};
        const cake_alloc_t alloc = {refuse_one, &fuse};
        size_t loaded = 0;
        cake_orswot_t *set = set_with(2, &alloc);
        fuse.left = left;
        int err = load(set, from, &loaded);
        if (err == 0)
            err = cake_orswot_save(set, write_nowhere, NULL); /* places them */
        for (uint64_t seq = 1; seq <= KEYS && err == 0; seq++)
            assert_true(cake_orswot_has_seen(set, (cake_dot_t){1, seq}));
        if (err == 0)
            err = cake__orswot_load_summary(set, cake__orswot_summary(from));
        has_all = err == 0;
        assert_true(err == 0 || (err == CAKE_ENOMEM && fuse.burnt > 0));
        fuse.left = SIZE_MAX;
        assert_int_equal(load(set, from, &loaded), 0);
        assert_int_equal(cake__orswot_load_summary(set, cake__orswot_summary(from)), 0);
        assert_int_equal(cake_orswot_fingerprint(set), cake_orswot_fingerprint(from));
        assert_true(cake_orswot_is_in_sync(set, from));
        cake__table_check(&set->table);
        cake_orswot_free(set);
    }
    cake_orswot_free(from);
}

/* A repair that has something to kill, to write anew and to take. */
static void a_repair_that_lacked_memory_is_repeated(void **state)
{
    bool has_all = false;
    for (size_t left = 0; !has_all; left++) {
        fuse_t fuse = {.left = SIZE_MAX};
        const cake_alloc_t alloc = {refuse_one, &fuse};
        cake_orswot_t *a = set_new(1), *b = set_with(2, &alloc);
        cake_id_t id = cake_id_of_u64(500);
        cake_record_t record;
        for (uint64_t key = 0; key < KEYS; key++)
            put_key(a, key);
        assert_int_equal(cake_orswot_merge(b, a, WALL_MS), 0);
        for (uint64_t key = 0; key < KEYS; key += 2)
            delete_key(a, key);
        assert_int_equal(cake_orswot_purge(a, WALL_MS + 60000, NULL, 0, 1, 1, KEYS, NULL), 0);
        put_key(a, 1000);
        delete_key(b, 1);
        assert_int_equal(cake_orswot_purge(b, WALL_MS + 60000, NULL, 0, 1, 1, KEYS, NULL), 0);
        put_key(b, 500);
        fuse.left = left;
        int err = cake_orswot_pull(b, a, WALL_MS + 60000);
        fuse.left = SIZE_MAX;
        has_all = err == 0;
        assert_true(err == 0 || err == CAKE_ENOMEM);
        cake__table_check(&b->table);
        assert_int_equal(cake_orswot_pull(b, a, WALL_MS + 60000), 0);
        assert_true(cake_orswot_get(b, &id, &record) && !is_live(b, 0) && is_live(b, 3) && is_live(b, 1000));
        cake_orswot_free(a);
        cake_orswot_free(b);
    }
}

/* Each fails as a whole: it is not seen, and may come again. In order, as from a writer that is followed, and not. */
static void operations_from_elsewhere_that_lacked_memory_are_repeated(void **state)
{
    enum { COUNT = 3000 };
    static cake_record_t records[COUNT];
    for (int is_apart = 0; is_apart < 2; is_apart++) {
        fuse_t fuse = {.left = SIZE_MAX};
        const cake_alloc_t alloc = {refuse_one, &fuse};
        cake_orswot_t *from = set_new(1), *set = set_with(2, &alloc);
        cake_orswot_cursor_t cursor = {{0}};
        for (uint64_t key = 0; key < COUNT; key++)
            put_key(from, key);
        assert_int_equal(cake_orswot_next(from, &cursor, records, COUNT), COUNT);
        cake__orswot_set_joined(set, true);
        for (size_t i = 0; i < COUNT; i++) {
            const cake_record_t *record = &records[is_apart ? i * 7 % COUNT : i];
            cake_verdict_t verdict;
            int err = CAKE_ENOMEM;
            for (size_t left = 0; err != 0; left++) {
                fuse.left = left;
                err = cake_orswot_receive(set, WALL_MS, record, CAKE_SOURCE_EAGER, &verdict);
                assert_true(err == 0 || (err == CAKE_ENOMEM && !cake_orswot_has_seen(set, record->dot)));
                assert_int_equal(cake_orswot_live(set), i + (err == 0));
            }
        }
        assert_true(fuse.burnt > 30);
        cake__table_check(&set->table);
        assert_int_equal(cake_orswot_fingerprint(set), cake_orswot_fingerprint(from));
        cake_orswot_free(from);
        cake_orswot_free(set);
    }
}

static void a_purge_without_memory_drops_nothing(void **state)
{
    const cake__purge_t policy = {.min_age_ms = 1, .hole_age_ms = 1, .max_count = 2 * KEYS};
    size_t failures = 0, dropped;
    int err = CAKE_ENOMEM;
    for (size_t left = 0; err != 0; left++) {
        fuse_t fuse = {.left = SIZE_MAX};
        const cake_alloc_t alloc = {refuse_one, &fuse};
        cake_orswot_t *set = set_with(2, &alloc), *other = set_new(7);
        cake__change_t *change;
        for (uint64_t key = 0; key < KEYS; key++)
            delete_key(key % 2 == 0 ? set : other, key);
        assert_int_equal(cake_orswot_pull(set, other, WALL_MS), 0);
        assert_int_equal(cake__change_begin(set, WALL_MS + 60000, &change), 0);
        fuse.left = left;
        err = cake__change_end(change, cake__change_purge(change, &policy, &dropped));
        assert_true(err == 0 || (err == CAKE_ENOMEM && fuse.burnt > 0));
        failures += err != 0;
        assert_int_equal(cake_orswot_tombstones(set), err == 0 ? 0 : KEYS);
        assert_true((cake__orswot_summary(set)->horizon != 0) == (err == 0));
        assert_int_equal(cake__limits_get(&cake__orswot_summary(set)->dropped, 7), err == 0 ? KEYS / 2 : 0);
        cake__table_check(&set->table);
        cake_orswot_free(set);
        cake_orswot_free(other);
    }
    assert_true(failures > 5);
}

/* The end of a session: contexts, g and H are joined whole or not at all. */
static void a_join_without_memory_leaves_the_set_as_it_was(void **state)
{
    cake__summary_t theirs;
    size_t failures = 0;
    int err = CAKE_ENOMEM;
    cake__summary_init(&theirs, &cake__libc_alloc);
    for (uint64_t actor = 50; actor < 60; actor++) {
        assert_int_equal(cake__context_add_run(&theirs.context, actor, 2, actor), 0);
        assert_int_equal(cake__limits_raise(&theirs.dropped, actor, actor), 0);
    }
    theirs.horizon = WALL_MS << 16;
    for (size_t left = 0; err != 0; left++) {
        fuse_t fuse = {.left = SIZE_MAX};
        const cake_alloc_t alloc = {burn, &fuse};
        cake_orswot_t *set = set_with(2, &alloc);
        cake__change_t *change;
        put_key(set, 1);
        assert_int_equal(cake__change_begin(set, WALL_MS, &change), 0);
        uint64_t epoch = cake__orswot_epoch(set);
        fuse.left = left;
        err = cake__change_end(change, cake__change_join(change, &theirs));
        assert_true(err == 0 || (err == CAKE_ENOMEM && fuse.burnt > 0));
        failures += err != 0;
        const cake__summary_t *own = cake__orswot_summary(set);
        assert_int_equal(cake__context_contains(&own->context, (cake_dot_t){55, 55}), err == 0);
        assert_int_equal(cake__limits_get(&own->dropped, 55), err == 0 ? 55 : 0);
        assert_true((own->horizon == theirs.horizon) == (err == 0) && (cake__orswot_epoch(set) != epoch) == (err == 0));
        cake_orswot_free(set);
    }
    assert_true(failures > 10);
    cake__summary_free(&theirs);
}

static void a_dot_that_cannot_be_is_refused_in_a_change_too(void **state)
{
    cake_orswot_t *set = set_new(1);
    cake__change_t *change;
    cake_verdict_t verdict;
    cake_record_t record = {cake_id_of_u64(1), WALL_MS << 16, {9, 0}, false};
    assert_int_equal(cake__change_begin(set, WALL_MS, &change), 0);
    assert_int_equal(cake__change_receive(change, &record, CAKE_SOURCE_EAGER, NULL, &verdict), CAKE_EINVAL);
    record.dot.seq = CAKE_SEQ_MAX + 1;
    assert_int_equal(cake__change_receive(change, &record, CAKE_SOURCE_EAGER, NULL, &verdict), CAKE_EINVAL);
    cake__change_abort(change);
    assert_int_equal(cake_orswot_live(set), 0);
    cake_orswot_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_from_storage_are_loaded_in_the_end),
        cmocka_unit_test(a_repair_that_lacked_memory_is_repeated),
        cmocka_unit_test(operations_from_elsewhere_that_lacked_memory_are_repeated),
        cmocka_unit_test(a_purge_without_memory_drops_nothing),
        cmocka_unit_test(a_join_without_memory_leaves_the_set_as_it_was),
        cmocka_unit_test(a_dot_that_cannot_be_is_refused_in_a_change_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
