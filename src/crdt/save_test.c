/* Bytes that a set could not have written: an error each, no set, little memory, and the clock where it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "crdt/set.h"

#define WALL_MS UINT64_C(1795342830123)

typedef struct tape {
    cake__buf_t buf;
    size_t at;
    int fails; /* what reading returns at the end */
} tape_t;

static size_t greatest; /* allocation */

static void *note_greatest(void *ctx, void *block, size_t size)
{
    (void)ctx;
    greatest = size > greatest ? size : greatest;
    return cake__libc_alloc.resize(NULL, block, size);
}

static const cake_alloc_t noting = {note_greatest, NULL};

static int tape_read(void *ctx, void *data, size_t len)
{
    tape_t *tape = ctx;
    size_t left = tape->buf.len - tape->at, part = left < len ? left : len;
    if (part == 0)
        return tape->fails;
    memcpy(data, tape->buf.data + tape->at, part);
    tape->at += part;
    return (int)part;
}

static int tape_write(void *ctx, const void *data, size_t len)
{
    cake__put_bytes(&((tape_t *)ctx)->buf, data, len);
    return 0;
}

static void tape_begin(tape_t *tape)
{
    *tape = (tape_t){.at = 0};
    cake__buf_init(&tape->buf, &cake__libc_alloc);
}

/* Loads, and frees the tape. */
static int load(tape_t *tape)
{
    cake_clock_t clock;
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set;
    cake_clock_init(&clock, 0, 0);
    config.actor = 99;
    config.clock = &clock;
    config.alloc = &noting;
    greatest = 0;
    int err = cake_orswot_load(&config, tape_read, tape, &set);
    assert_true(err == 0 ? set != NULL : set == NULL && cake_clock_last(&clock) == 0);
    assert_true(greatest < 32768);
    cake_orswot_free(set);
    cake__buf_free(&tape->buf);
    return err;
}

/* Everything before the records: a set that has seen 1:1..9 and 2:1..9. */
static void put_head(tape_t *tape, uint64_t count)
{
    cake__summary_t summary;
    cake__buf_t bytes;
    cake__buf_init(&bytes, &cake__libc_alloc);
    cake__summary_init(&summary, &cake__libc_alloc);
    for (uint64_t actor = 1; actor <= 2; actor++)
        assert_int_equal(cake__context_add_run(&summary.context, actor, 1, 9), 0);
    cake__summary_encode(&summary, &bytes);
    tape_begin(tape);
    cake__put_bytes(&tape->buf, "CAKESET\2\1", 9);
    cake__put_string(&tape->buf, cake__buf_slice(&bytes));
    cake__put_varint(&tape->buf, count);
    cake__summary_free(&summary);
    cake__buf_free(&bytes);
}

/* actor 0: that of the record before */
static void put_record(tape_t *tape, uint8_t form, uint64_t actor, uint64_t step, uint8_t key)
{
    cake__put_u8(&tape->buf, (uint8_t)(form | (actor != 0 ? 2 : 0)));
    if (actor != 0)
        cake__put_u64(&tape->buf, actor);
    cake__put_varint(&tape->buf, step);
    cake__put_varint(&tape->buf, 2);
    cake__put_string(&tape->buf, cake__slice(&key, 1));
}

static int load_two(uint64_t actor, uint64_t step, uint8_t key)
{
    tape_t tape;
    put_head(&tape, 2);
    put_record(&tape, 0, 1, 4, 'a');
    put_record(&tape, 1, actor, step, key);
    cake__put_u64(&tape.buf, 0);
    return load(&tape);
}

static void records_that_cannot_be_are_refused(void **state)
{
    (void)state;
    tape_t tape;
    assert_int_equal(load_two(0, 1, 'b'), CAKE_ECORRUPT); /* all is well but the checksum */
    assert_int_equal(load_two(2, 1, 'b'), CAKE_ECORRUPT);
    assert_int_equal(load_two(0, 1, 'a'), CAKE_EPARSE); /* a second record of an id */
    assert_int_equal(load_two(0, 6, 'b'), CAKE_EPARSE); /* not in C */
    assert_int_equal(load_two(0, 0, 'b'), CAKE_EPARSE); /* the same dot again */
    assert_int_equal(load_two(1, 5, 'b'), CAKE_EPARSE); /* an actor again */
    assert_int_equal(load_two(3, 1, 'b'), CAKE_EPARSE); /* one that C does not know */
    assert_int_equal(load_two(0, CAKE_SEQ_MAX, 'b'), CAKE_EPARSE);
    assert_int_equal(load_two(0, UINT64_MAX - 3, 'b'), CAKE_EPARSE); /* wraps to 1 */
    assert_int_equal(load_two(2, CAKE_SEQ_MAX + 1, 'b'), CAKE_EPARSE);
    put_head(&tape, 1);
    put_record(&tape, 0, 0, 4, 'a'); /* the first without an actor */
    assert_int_equal(load(&tape), CAKE_EPARSE);
    put_head(&tape, 1);
    put_record(&tape, 8, 1, 4, 'a');
    cake__put_u64(&tape.buf, 0);
    assert_int_equal(load(&tape), CAKE_EPARSE);
}

static void ids_have_one_form(void **state)
{
    (void)state;
    static const uint8_t whole[16] = {'k', [15] = 1}, long_key[16] = {'k'};
    tape_t tape;
    for (int is_long = 0; is_long < 2; is_long++) {
        put_head(&tape, 1);
        cake__put_bytes(&tape.buf, is_long ? "\2\1\0\0\0\0\0\0\0\4\2\20" : "\6\1\0\0\0\0\0\0\0\4\2", is_long ? 12 : 11);
        cake__put_bytes(&tape.buf, is_long ? long_key : whole, 16);
        cake__put_u64(&tape.buf, 0);
        assert_int_equal(load(&tape), CAKE_EPARSE);
    }
    put_head(&tape, 1);
    cake__put_bytes(&tape.buf, "\2\1\0\0\0\0\0\0\0\4\2\21", 12); /* more than an id is */
    cake__put_bytes(&tape.buf, "01234567890123456789", 20);
    assert_int_equal(load(&tape), CAKE_EPARSE);
}

static void overlapping_ranges_are_refused(void **state)
{
    (void)state;
    cake__run_t runs[2] = {{5, 9}, {8, 12}};
    cake__actor_dots_t dots = {.actor = 1, .base = 2, .ranges = runs, .range_count = 2, .range_capacity = 2};
    cake__summary_t summary;
    for (int kind = 0; kind < 3; kind++) {
        cake__buf_t bytes;
        tape_t tape;
        runs[1].first = kind == 0 ? 8 : kind == 1 ? 10 : 11; /* overlapping, touching, as it must be */
        cake__buf_init(&bytes, &cake__libc_alloc);
        cake__summary_init(&summary, &cake__libc_alloc);
        summary.context.actors = &dots;
        summary.context.count = summary.context.capacity = 1;
        cake__summary_encode(&summary, &bytes);
        tape_begin(&tape);
        cake__put_bytes(&tape.buf, "CAKESET\2\1", 9);
        cake__put_string(&tape.buf, cake__buf_slice(&bytes));
        cake__put_varint(&tape.buf, 0);
        cake__put_u64(&tape.buf, 0);
        assert_int_equal(load(&tape), kind == 2 ? CAKE_ECORRUPT : CAKE_EPARSE);
        cake__buf_free(&bytes);
    }
}

static void absurd_sizes_cost_nothing(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {UINT64_MAX, UINT64_C(1) << 40, 40 << 20};
    tape_t tape;
    for (size_t i = 0; i < CAKE_COUNT_OF(lengths); i++) {
        tape_begin(&tape);
        cake__put_bytes(&tape.buf, "CAKESET\2\1", 9);
        cake__put_varint(&tape.buf, lengths[i]);
        cake__put_bytes(&tape.buf, "only this", 9);
        assert_int_equal(load(&tape), i < 2 ? CAKE_ETOOBIG : CAKE_EPARSE);
    }
    put_head(&tape, UINT64_MAX); /* records */
    put_record(&tape, 0, 1, 4, 'a');
    assert_int_equal(load(&tape), CAKE_EPARSE);
}

static void heads_that_are_not_ours_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        int err;
    } heads[] = {{"CAKESET\3\1\0\0", 11, CAKE_EVERSION},
                 {"CAKESET\2\2\0\0", 11, CAKE_EPARSE},
                 {"CAKESAT\2\1\0\0", 11, CAKE_EPARSE},
                 {"CAKESET\2\1\200\0", 11, CAKE_EPARSE},
                 {"CAKESET", 7, CAKE_EPARSE},
                 {"", 0, CAKE_EPARSE}};
    for (size_t i = 0; i < CAKE_COUNT_OF(heads); i++) {
        tape_t tape;
        tape_begin(&tape);
        cake__put_bytes(&tape.buf, heads[i].bytes, heads[i].len);
        assert_int_equal(load(&tape), heads[i].err);
    }
}

static void what_the_reader_returns_is_returned(void **state)
{
    (void)state;
    tape_t tape;
    put_head(&tape, 2);
    put_record(&tape, 0, 1, 4, 'a');
    tape.fails = CAKE_EIO;
    assert_int_equal(load(&tape), CAKE_EIO);
    put_head(&tape, 2);
    put_record(&tape, 0, 1, 4, 'a');
    tape.fails = 1 << 20; /* more than was asked for */
    assert_int_equal(load(&tape), CAKE_EPARSE);
}

/* A context of several pieces, and a reader that fails in one of them; cut there it is refused. */
static void a_long_context_is_read_in_pieces(void **state)
{
    (void)state;
    enum { ACTORS = 400 };
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set;
    tape_t tape, part;
    config.actor = 1;
    config.is_joined = true;
    assert_int_equal(cake_orswot_new(&config, &set), 0);
    for (uint64_t actor = 2; actor < ACTORS; actor++) {
        cake_record_t record = {cake_id_of_u64(actor), WALL_MS << 16, {actor, 1}, false};
        assert_int_equal(cake_orswot_receive(set, WALL_MS, &record, CAKE_SOURCE_EAGER, NULL), 0);
    }
    tape_begin(&tape);
    assert_int_equal(cake_orswot_save(set, tape_write, &tape), 0);
    for (size_t len = 1; len < tape.buf.len; len += len < tape.buf.len - 97 ? 97 : 1) {
        for (int fails = 0; fails < 2; fails++) {
            tape_begin(&part);
            cake__put_bytes(&part.buf, tape.buf.data, len);
            part.fails = fails ? CAKE_EIO : 0;
            assert_int_equal(load(&part), fails ? CAKE_EIO : CAKE_EPARSE);
        }
    }
    cake__buf_free(&tape.buf);
    cake_orswot_free(set);
}

static void a_large_set_comes_back_as_it_was(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set, *back;
    tape_t tape, again;
    config.actor = 3;
    assert_int_equal(cake_orswot_new(&config, &set), 0);
    for (uint64_t i = 0; i < COUNT; i++) {
        cake_id_t id = cake_id_of_u64(i * 7 % 15000);
        if (i % 3 == 0)
            id.bytes[15] = 0xff;
        assert_int_equal(i % 5 == 0 ? cake_orswot_delete(set, WALL_MS + i, &id, NULL)
                                    : cake_orswot_insert(set, WALL_MS + i, &id, NULL),
                         0);
    }
    tape_begin(&tape);
    tape_begin(&again);
    assert_int_equal(cake_orswot_save(set, tape_write, &tape), 0);
    config.actor = 4;
    assert_int_equal(cake_orswot_load(&config, tape_read, &tape, &back), 0);
    assert_true(cake_clock_last(back->clock) == cake_clock_last(set->clock));
    cake__table_check(&back->table);
    assert_int_equal(cake_orswot_save(back, tape_write, &again), 0);
    assert_int_equal(tape.buf.len, again.buf.len);
    assert_memory_equal(tape.buf.data, again.buf.data, tape.buf.len);
    cake_orswot_free(set);
    cake_orswot_free(back);
    cake__buf_free(&tape.buf);
    cake__buf_free(&again.buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_that_cannot_be_are_refused),  cmocka_unit_test(ids_have_one_form),
        cmocka_unit_test(overlapping_ranges_are_refused),      cmocka_unit_test(absurd_sizes_cost_nothing),
        cmocka_unit_test(heads_that_are_not_ours_are_refused), cmocka_unit_test(what_the_reader_returns_is_returned),
        cmocka_unit_test(a_long_context_is_read_in_pieces),    cmocka_unit_test(a_large_set_comes_back_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
