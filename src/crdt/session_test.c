/* Changes and sessions, step by step: what is staged, each prefix, each repetition, each crash, strict messages.
 * The random schedules (model/) hold the rules themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "crdt/set.h"

#define WALL_MS UINT64_C(1795342830123)
#define PARTS   64

static cake_orswot_t *set_new(uint64_t actor, bool is_joined)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set;
    config.actor = actor;
    config.is_joined = is_joined;
    assert_int_equal(cake_orswot_new(&config, &set), 0);
    return set;
}

static cake__change_t *begin(cake_orswot_t *set)
{
    cake__change_t *change;
    assert_int_equal(cake__change_begin(set, WALL_MS, &change), 0);
    return change;
}

static void write_key(cake_orswot_t *set, uint64_t key, bool is_tombstone)
{
    cake_id_t id = cake_id_of_u64(key);
    assert_int_equal(
        is_tombstone ? cake_orswot_delete(set, WALL_MS, &id, NULL) : cake_orswot_insert(set, WALL_MS, &id, NULL), 0);
}

static void are_equal(const cake_orswot_t *a, const cake_orswot_t *b)
{
    assert_true(cake_orswot_is_in_sync(a, b));
    assert_true(cake_orswot_fingerprint(a) == cake_orswot_fingerprint(b));
}

/* ---- changes ----------------------------------------------------------------------------------------------------- */

static void a_batch_on_one_key_ends_as_one_row(void **state)
{
    cake_orswot_t *set = set_new(1, true);
    cake__change_t *change = begin(set);
    cake_id_t id = cake_id_of_u64(5);
    cake_record_t record, seen;
    size_t count;
    assert_false(cake__change_is_dirty(change));
    for (uintptr_t i = 1; i <= 100; i++) {
        assert_int_equal(cake__change_write(change, &id, i % 2 == 0, (void *)i, &record), 0);
        assert_int_equal(record.dot.seq, i);
    }
    const cake__staged_t *puts = cake__change_puts(change, &count);
    assert_int_equal(count, 1);
    assert_true(puts[0].record.dot.seq == 100 && puts[0].tag == (void *)100 && puts[0].record.is_tombstone);
    assert_false(cake_orswot_get(set, &id, &seen)); /* until commit the set answers as before */
    assert_int_equal(cake__context_count(&cake__orswot_summary(set)->context), 0);
    assert_int_equal(cake__context_base(cake__change_context(change), 1), 100);
    assert_true(cake__change_is_dirty(change));
    cake__change_commit(change);
    assert_true(cake_orswot_get(set, &id, &seen) && seen.dot.seq == 100);
    assert_int_equal(cake__context_base(&cake__orswot_summary(set)->context, 1), 100);
    cake__table_check(&set->table);
    cake_orswot_free(set);
}

static void an_aborted_change_leaves_nothing(void **state)
{
    cake_orswot_t *set = set_new(1, true);
    cake_record_t record, seen;
    cake_id_t ids[3] = {cake_id_of_u64(1), cake_id_of_u64(2), cake_id_of_u64(3)};
    write_key(set, 1, false);
    write_key(set, 2, true);
    uint64_t fingerprint = cake_orswot_fingerprint(set);
    cake__change_t *change = begin(set);
    assert_int_equal(cake__change_write(change, &ids[0], true, NULL, &record), 0);
    assert_int_equal(cake__change_write(change, &ids[2], false, NULL, &record), 0);
    assert_int_equal(cake__change_drop(change, ids, 3), 0);
    cake__change_abort(change);
    cake__change_abort(NULL);
    assert_true(cake_orswot_fingerprint(set) == fingerprint && cake_orswot_tombstones(set) == 1);
    assert_int_equal(cake__orswot_summary(set)->horizon, 0);
    assert_int_equal(cake__orswot_epoch(set), 0);
    assert_false(cake_orswot_get(set, &ids[2], &seen));
    cake__table_check(&set->table);
    write_key(set, 3, false); /* the dots of what never was are used again */
    assert_true(cake_orswot_get(set, &ids[2], &seen) && seen.dot.seq == 3);
    cake_orswot_free(set);
}

static void an_id_is_put_or_erased_never_both(void **state)
{
    cake_orswot_t *set = set_new(1, true);
    cake_id_t id = cake_id_of_u64(1), other = cake_id_of_u64(2);
    cake_record_t record;
    size_t puts, erases;
    write_key(set, 1, true);
    cake__change_t *change = begin(set);
    assert_int_equal(cake__change_drop(change, &id, 1), 0);
    (void)cake__change_erases(change, &erases);
    assert_int_equal(erases, 1);
    assert_int_equal(cake__change_write(change, &id, false, NULL, &record), 0); /* written again: no erasure */
    (void)cake__change_erases(change, &erases);
    (void)cake__change_puts(change, &puts);
    assert_true(puts == 1 && erases == 0);
    assert_int_equal(cake__change_write(change, &other, true, NULL, &record), 0);
    assert_int_equal(cake__change_drop(change, &other, 1), 0); /* staged and dropped: neither */
    (void)cake__change_erases(change, &erases);
    (void)cake__change_puts(change, &puts);
    assert_true(puts == 1 && erases == 0);
    assert_true(cake__change_summary(change)->horizon >= record.hlc);
    cake__change_commit(change);
    assert_int_equal(cake_orswot_live(set), 1);
    assert_int_equal(cake__orswot_epoch(set), 2);
    cake__table_check(&set->table);
    cake_orswot_free(set);
}

static void a_purge_is_bounded_and_knows_its_oldest(void **state)
{
    cake_orswot_t *set = set_new(1, true);
    cake__purge_t policy = {.min_age_ms = 1000, .max_count = 10};
    size_t dropped, erases;
    assert_int_equal(cake__orswot_oldest_tombstone(set), 0);
    for (uint64_t key = 0; key < 25; key++)
        write_key(set, key, true);
    assert_int_equal(cake_hlc_unix_ms(cake__orswot_oldest_tombstone(set)), WALL_MS);
    /* the oldest of any actor, some of whom have none */
    const struct {
        cake_record_t record;
        uint64_t oldest_ms;
    } steps[] = {{{cake_id_of_u64(100), (WALL_MS - 7) << 16, {9, 1}, true}, WALL_MS - 7},
                 {{cake_id_of_u64(101), (WALL_MS - 8) << 16, {8, 1}, false}, WALL_MS - 7},
                 {{cake_id_of_u64(102), (WALL_MS - 5) << 16, {12, 1}, true}, WALL_MS - 7},
                 {{cake_id_of_u64(100), WALL_MS << 16, {7, 1}, false}, WALL_MS - 5},
                 {{cake_id_of_u64(102), WALL_MS << 16, {7, 2}, false}, WALL_MS}};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        assert_int_equal(cake_orswot_receive(set, WALL_MS, &steps[i].record, CAKE_SOURCE_EAGER, NULL), 0);
        assert_int_equal(cake_hlc_unix_ms(cake__orswot_oldest_tombstone(set)), steps[i].oldest_ms);
    }
    policy.min_age_ms = 2 * WALL_MS; /* nothing can be so old */
    cake__change_t *change = begin(set);
    assert_int_equal(cake__change_purge(change, &policy, &dropped), 0);
    assert_int_equal(dropped, 0);
    cake__change_abort(change);
    policy.min_age_ms = 1000;
    change = begin(set);
    assert_int_equal(cake__change_purge(change, &policy, &dropped), 0);
    assert_int_equal(dropped, 0); /* too young */
    cake__change_abort(change);
    for (size_t left = 25; left > 0; left -= dropped) {
        assert_int_equal(cake__change_begin(set, WALL_MS + 5000, &change), 0);
        assert_int_equal(cake__change_purge(change, &policy, &dropped), 0);
        assert_int_equal(dropped, left < 10 ? left : 10);
        (void)cake__change_erases(change, &erases);
        assert_int_equal(erases, dropped);
        cake__change_commit(change);
    }
    assert_int_equal(cake_orswot_tombstones(set), 0);
    assert_int_equal(cake__limits_get(&cake__orswot_summary(set)->dropped, 1), 25);
    cake_orswot_free(set);
}

static void loading_gives_back_what_was_stored(void **state)
{
    cake_orswot_t *set = set_new(1, true), *back = set_new(2, true);
    cake_orswot_cursor_t cursor = {{0}};
    cake_record_t record, bad = {.dot = {1, 0}};
    for (uint64_t key = 0; key < 3000; key++)
        write_key(set, key % 2000, key % 7 == 0);
    while (cake_orswot_next(set, &cursor, &record, 1) > 0)
        assert_int_equal(cake__orswot_load_record(back, &record), 0);
    assert_int_equal(cake__orswot_load_record(back, &bad), CAKE_EINVAL);
    assert_int_equal(cake__orswot_load_summary(back, cake__orswot_summary(set)), 0);
    are_equal(set, back);
    assert_int_equal(cake_orswot_tombstones(set), cake_orswot_tombstones(back));
    cake__orswot_set_joined(back, false);
    assert_false(cake__orswot_is_joined(back));
    cake_orswot_free(back);
    /* without a summary C is made of the records */
    back = set_new(2, true);
    assert_int_equal(cake__orswot_load_record(back, &record), 0);
    write_key(back, 9, false);
    assert_true(cake_orswot_has_seen(back, record.dot));
    cake_orswot_free(back);
    cake_orswot_free(set);
}

/* ---- sessions as lists of messages ------------------------------------------------------------------------------- */

typedef enum kind { WELCOME, COMPARE, CHUNK, FIN } kind_t;

/* What a whole session sends to r, recorded against a sender that stands still. */
typedef struct script {
    cake__welcome_t welcome;
    struct {
        kind_t kind;
        cake_record_t records[4];
        cake__chunk_t chunk;
        cake__compared_t compared;
        cake__fin_t fin;
    } messages[PARTS];
    size_t count;
    uint64_t session_id;
    cake_orswot_t *r;
} script_t;

typedef struct pair {
    cake_orswot_t *r, *z;
} pair_t;

/* mode DELTA: both wrote. REPAIR: z dropped what r has not seen, r what z has not. JOIN: r is empty. */
static pair_t pair_new(cake__session_mode_t mode)
{
    pair_t pair = {set_new(1, mode != CAKE__MODE_JOIN), set_new(2, true)};
    for (uint64_t key = 0; key < 6; key++)
        write_key(pair.z, key, false);
    if (mode == CAKE__MODE_JOIN)
        return pair;
    assert_int_equal(cake_orswot_merge(pair.r, pair.z, WALL_MS), 0);
    write_key(pair.r, 10, false);
    write_key(pair.z, 11, false);
    write_key(pair.z, 12, true);
    if (mode == CAKE__MODE_REPAIR) {
        write_key(pair.z, 1, true); /* r must lose key 1 */
        assert_int_equal(cake_orswot_purge(pair.z, WALL_MS + 1, NULL, 0, 0, 0, 100, NULL), 0);
        write_key(pair.r, 2, true);
        assert_int_equal(cake_orswot_purge(pair.r, WALL_MS + 1, NULL, 0, 0, 0, 100, NULL), 0);
    }
    return pair;
}

static void pair_free(pair_t *pair)
{
    cake_orswot_free(pair->r);
    cake_orswot_free(pair->z);
}

static void apply(script_t *script, size_t at, cake__receiver_t *receiver, cake__change_t *change)
{
    int err = 0;
    switch (script->messages[at].kind) {
    case WELCOME:
        err = cake__receiver_on_welcome(receiver, change, &script->welcome);
        break;
    case COMPARE:
        err = cake__receiver_on_compared(receiver, change, &script->messages[at].compared);
        break;
    case CHUNK:
        err = cake__receiver_on_chunk(receiver, change, &script->messages[at].chunk);
        break;
    case FIN:
        err = cake__receiver_on_fin(receiver, change, &script->messages[at].fin);
        break;
    }
    assert_int_equal(err, 0);
}

static void deliver(script_t *script, size_t at, cake__receiver_t *receiver)
{
    cake__change_t *change = begin(script->r);
    apply(script, at, receiver, change);
    cake__change_commit(change);
}

static void record_parts(script_t *script, cake__receiver_t *receiver, cake__sender_t *sender)
{
    bool has_fin = false, has;
    while (!has_fin) {
        size_t at = script->count++;
        cake__compare_t compare;
        assert_true(at < PARTS - 1);
        assert_int_equal(cake__receiver_next_compare(receiver, 3, &has, &compare), 0);
        if (has) {
            script->messages[at].kind = COMPARE;
            assert_int_equal(cake__sender_compare(sender, &compare, &script->messages[at].compared), 0);
            cake__compare_free(&compare, &cake__libc_alloc);
            continue;
        }
        cake__chunk_t *chunk = &script->messages[at].chunk;
        script->messages[at].kind = CHUNK;
        cake__fin_t fin;
        assert_int_equal(
            cake__sender_next(sender, 2, script->messages[at].records, &chunk->count, &chunk->index, &has_fin, &fin),
            0);
        chunk->records = script->messages[at].records;
        chunk->session_id = script->session_id;
        chunk->token = cake__sender_token(sender);
        script->count -= chunk->count == 0;
        if (chunk->count == 0 && !has_fin)
            return; /* z waits for a comparison that an aborted r does not ask for */
        if (has_fin) {
            script->messages[script->count].kind = FIN;
            script->messages[script->count++].fin = fin;
        }
    }
}

/* Opens a session of r, and records everything that z says in it; only WELCOME is delivered. */
static cake__receiver_t *record(pair_t *pair, uint64_t session_id, script_t *script)
{
    cake__receiver_t *receiver;
    cake__sender_t *sender;
    memset(script, 0, sizeof *script);
    script->session_id = session_id;
    script->r = pair->r;
    assert_int_equal(cake__receiver_new(pair->r, 1, session_id, &receiver), 0);
    assert_int_equal(cake__sender_new(pair->z, 2, cake__receiver_hello(receiver), 1000 + session_id, &sender), 0);
    assert_int_equal(cake__sender_welcome(sender, &script->welcome), 0);
    script->messages[script->count++].kind = WELCOME;
    deliver(script, 0, receiver);
    record_parts(script, receiver, sender);
    cake__sender_free(sender);
    return receiver;
}

static void script_free(script_t *script)
{
    cake__welcome_free(&script->welcome);
    for (size_t i = 0; i < script->count; i++) {
        if (script->messages[i].kind == COMPARE)
            cake__compared_free(&script->messages[i].compared, &cake__libc_alloc);
        if (script->messages[i].kind == FIN)
            cake__fin_free(&script->messages[i].fin);
    }
}

static void converges(pair_t *pair, cake__session_mode_t mode)
{
    cake_record_t record_of_key;
    cake_id_t id = cake_id_of_u64(1);
    assert_int_equal(cake_orswot_merge(pair->r, pair->z, WALL_MS + 1), 0);
    assert_int_equal(cake_orswot_merge(pair->r, pair->z, WALL_MS + 1), 0);
    are_equal(pair->r, pair->z);
    cake__table_check(&pair->r->table);
    if (mode == CAKE__MODE_REPAIR)
        assert_false(cake_orswot_get(pair->r, &id, &record_of_key));
}

static const cake__session_mode_t modes[] = {CAKE__MODE_DELTA, CAKE__MODE_REPAIR, CAKE__MODE_JOIN};

static void each_prefix_of_a_session_is_safe(void **state)
{
    for (size_t m = 0; m < CAKE_COUNT_OF(modes); m++) {
        size_t length = 1;
        for (size_t prefix = 1; prefix <= length; prefix++) {
            script_t script;
            pair_t pair = pair_new(modes[m]);
            cake__receiver_t *receiver = record(&pair, 7, &script);
            length = script.count;
            assert_int_equal(cake__receiver_mode(receiver), modes[m]);
            for (size_t at = 1; at < prefix; at++)
                deliver(&script, at, receiver);
            assert_int_equal(cake__receiver_phase(receiver),
                             prefix == length ? CAKE__PHASE_FINISHED : CAKE__PHASE_RUNNING);
            cake__receiver_abort(receiver, "cut");
            cake__receiver_free(receiver);
            converges(&pair, modes[m]);
            script_free(&script);
            pair_free(&pair);
        }
        assert_true(length >= 3);
    }
}

static void repeated_and_reordered_messages_change_nothing(void **state)
{
    for (size_t m = 0; m < CAKE_COUNT_OF(modes); m++) {
        script_t script;
        pair_t pair = pair_new(modes[m]);
        cake__receiver_t *receiver = record(&pair, 7, &script);
        for (size_t at = script.count; at-- > 0;) { /* FIN first, each twice */
            deliver(&script, at, receiver);
            deliver(&script, at, receiver);
        }
        assert_int_equal(cake__receiver_phase(receiver), CAKE__PHASE_FINISHED);
        uint64_t count = cake__context_count(&cake__orswot_summary(pair.r)->context);
        for (size_t at = 0; at < script.count; at++)
            deliver(&script, at, receiver);
        assert_int_equal(cake__context_count(&cake__orswot_summary(pair.r)->context), count);
        cake__receiver_free(receiver);
        converges(&pair, modes[m]);
        script_free(&script);
        pair_free(&pair);
    }
}

static void messages_of_a_stale_session_are_ignored(void **state)
{
    for (size_t m = 0; m < CAKE_COUNT_OF(modes); m++) {
        static script_t stale, fresh;
        pair_t pair = pair_new(modes[m]);
        cake__receiver_t *first = record(&pair, 7, &stale);
        cake__receiver_abort(first, "timeout");
        assert_string_equal(cake__receiver_reason(first), "timeout");
        write_key(pair.z, 20, false);
        cake__receiver_t *second = record(&pair, 8, &fresh);
        for (size_t at = 0; at < stale.count; at++) {
            deliver(&stale, at, first);
            deliver(&stale, at, second);
        }
        assert_int_equal(cake__receiver_phase(second), CAKE__PHASE_RUNNING);
        for (size_t at = 0; at < fresh.count; at++)
            deliver(&fresh, at, second);
        assert_int_equal(cake__receiver_phase(second), CAKE__PHASE_FINISHED);
        assert_true(cake__receiver_bytes(second) > 0);
        cake__receiver_free(first);
        cake__receiver_free(second);
        converges(&pair, modes[m]);
        script_free(&stale);
        script_free(&fresh);
        pair_free(&pair);
    }
}

/* The storage refuses the batch of each message in turn: the session ends, and nothing is lost. */
static void each_refused_batch_ends_the_session(void **state)
{
    for (size_t m = 0; m < CAKE_COUNT_OF(modes); m++) {
        size_t length = 2;
        for (size_t refused = 1; refused < length; refused++) {
            script_t script;
            pair_t pair = pair_new(modes[m]);
            cake__receiver_t *receiver = record(&pair, 7, &script);
            uint64_t before = 0;
            length = script.count;
            for (size_t at = 1; at < length; at++) {
                cake__change_t *change = begin(pair.r);
                before = at == refused ? cake_orswot_fingerprint(pair.r) : before;
                apply(&script, at, receiver, change);
                if (at != refused)
                    cake__change_commit(change);
                else
                    cake__change_abort(change);
            }
            assert_int_equal(cake__receiver_phase(receiver), CAKE__PHASE_ABORTED);
            assert_string_equal(cake__receiver_reason(receiver), "the change was aborted");
            assert_true(cake_orswot_fingerprint(pair.r) == before);
            cake__receiver_free(receiver);
            converges(&pair, modes[m]);
            script_free(&script);
            pair_free(&pair);
        }
    }
}

/* A crash after each batch: what the disk has is loaded by a process with another actor. */
static void a_crash_after_each_batch_loses_nothing_that_was_durable(void **state)
{
    for (size_t m = 0; m < CAKE_COUNT_OF(modes); m++) {
        size_t length = 1;
        for (size_t crash = 1; crash <= length; crash++) {
            script_t script;
            pair_t pair = pair_new(modes[m]);
            cake__receiver_t *receiver = record(&pair, 7, &script);
            length = script.count;
            for (size_t at = 1; at < crash; at++)
                deliver(&script, at, receiver);
            cake__receiver_free(receiver);
            cake_orswot_t *again = set_new(99, cake__orswot_is_joined(pair.r));
            cake_orswot_cursor_t cursor = {{0}};
            cake_record_t held;
            while (cake_orswot_next(pair.r, &cursor, &held, 1) > 0)
                assert_int_equal(cake__orswot_load_record(again, &held), 0);
            assert_int_equal(cake__orswot_load_summary(again, cake__orswot_summary(pair.r)), 0);
            are_equal(pair.r, again);
            cake_orswot_free(pair.r);
            pair.r = again;
            converges(&pair, modes[m]);
            script_free(&script);
            pair_free(&pair);
        }
    }
}

static void what_cannot_be_received_aborts_the_session(void **state)
{
    script_t script;
    pair_t pair = pair_new(CAKE__MODE_DELTA);
    cake__receiver_t *receiver = record(&pair, 7, &script);
    script.messages[1].records[0].hlc = cake_hlc_from_parts(WALL_MS + 3600000, 0);
    deliver(&script, 1, receiver);
    assert_int_equal(cake__receiver_phase(receiver), CAKE__PHASE_ABORTED);
    assert_string_equal(cake__receiver_reason(receiver), "an operation was refused");
    cake__receiver_free(receiver);
    script_free(&script);
    receiver = record(&pair, 8, &script);
    script.messages[1].records[0].dot.seq = 0;
    deliver(&script, 1, receiver);
    assert_int_equal(cake__receiver_phase(receiver), CAKE__PHASE_ABORTED);
    cake__receiver_free(receiver);
    script_free(&script);
    /* a horizon from the far future, at WELCOME and at FIN */
    cake__orswot_set_joined(pair.z, false);
    receiver = record(&pair, 9, &script);
    assert_string_equal(cake__receiver_reason(receiver), "the sender has not joined");
    cake__receiver_free(receiver);
    script_free(&script);
    cake__orswot_set_joined(pair.z, true);
    receiver = record(&pair, 10, &script);
    script.messages[script.count - 1].fin.summary.horizon = UINT64_MAX;
    for (size_t at = 1; at < script.count; at++)
        deliver(&script, at, receiver);
    assert_string_equal(cake__receiver_reason(receiver), "the horizon of the sender is too far ahead");
    cake__receiver_free(receiver);
    script_free(&script);
    converges(&pair, CAKE__MODE_DELTA);
    pair_free(&pair);
}

static void an_exclusive_session_is_the_only_one(void **state)
{
    script_t first_script, second_script;
    pair_t pair = pair_new(CAKE__MODE_REPAIR);
    cake__receiver_t *first = record(&pair, 7, &first_script), *second = record(&pair, 8, &second_script);
    assert_int_equal(cake__receiver_phase(first), CAKE__PHASE_RUNNING);
    assert_string_equal(cake__receiver_reason(second), "busy");
    cake__receiver_free(first);
    cake__receiver_free(second);
    script_free(&first_script);
    script_free(&second_script);
    converges(&pair, CAKE__MODE_REPAIR);
    pair_free(&pair);
}

/* ---- messages as bytes: every cut is refused, every version but ours --------------------------------------------- */

#define STRICT(type, message, free_call)                                                                               \
    do {                                                                                                               \
        cake__buf_t buf;                                                                                               \
        cake__##type##_t out;                                                                                          \
        cake__buf_init(&buf, alloc);                                                                                   \
        cake__##type##_encode(message, &buf);                                                                          \
        for (size_t len = 0; len < buf.len; len++) {                                                                   \
            cake__reader_t reader = cake__reader(buf.data, len);                                                       \
            assert_int_equal(cake__##type##_decode(&out, alloc, &reader), CAKE_EPARSE);                                \
        }                                                                                                              \
        cake__reader_t whole = cake__reader(buf.data, buf.len);                                                        \
        assert_int_equal(cake__##type##_decode(&out, alloc, &whole), 0);                                               \
        assert_true(cake__reader_done(&whole));                                                                        \
        free_call;                                                                                                     \
        buf.data[0] = 9;                                                                                               \
        whole = cake__reader(buf.data, buf.len);                                                                       \
        assert_int_equal(cake__##type##_decode(&out, alloc, &whole), CAKE_EVERSION);                                   \
        cake__buf_free(&buf);                                                                                          \
    } while (0)

static void cut_and_foreign_messages_are_refused(void **state)
{
    const cake_alloc_t *alloc = &cake__libc_alloc;
    script_t script;
    pair_t pair = pair_new(CAKE__MODE_REPAIR);
    cake__receiver_t *receiver = record(&pair, 7, &script);
    cake_id_t ids[2] = {cake_id_of_u64(1), {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0xff}}};
    cake__compare_t compare = {.session_id = 1, .token = 2, .index = 3, .is_last = true, .ids = ids, .count = 2};
    cake__compared_t compared = {.session_id = 1, .absent = ids, .absent_count = 2};
    STRICT(hello, cake__receiver_hello(receiver), cake__hello_free(&out));
    STRICT(welcome, &script.welcome, cake__welcome_free(&out));
    STRICT(fin, &script.messages[script.count - 1].fin, cake__fin_free(&out));
    STRICT(compare, &compare, cake__compare_free(&out, alloc));
    STRICT(compared, &compared, cake__compared_free(&out, alloc));
    cake__receiver_free(receiver);
    script_free(&script);
    pair_free(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_on_one_key_ends_as_one_row),
        cmocka_unit_test(an_aborted_change_leaves_nothing),
        cmocka_unit_test(an_id_is_put_or_erased_never_both),
        cmocka_unit_test(a_purge_is_bounded_and_knows_its_oldest),
        cmocka_unit_test(loading_gives_back_what_was_stored),
        cmocka_unit_test(each_prefix_of_a_session_is_safe),
        cmocka_unit_test(repeated_and_reordered_messages_change_nothing),
        cmocka_unit_test(messages_of_a_stale_session_are_ignored),
        cmocka_unit_test(each_refused_batch_ends_the_session),
        cmocka_unit_test(a_crash_after_each_batch_loses_nothing_that_was_durable),
        cmocka_unit_test(what_cannot_be_received_aborts_the_session),
        cmocka_unit_test(an_exclusive_session_is_the_only_one),
        cmocka_unit_test(cut_and_foreign_messages_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
