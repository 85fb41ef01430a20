/* context_codec.c: contexts and summaries as bytes.
 *
 *      context   varint actors; per actor: actor u64 | varint base | varint ranges | per range: varints gap, length
 *                gap = first - (end of the run before) - 2, length = last - first: no value is impossible, so every
 *                accepted text is canonical
 *                then the table: u8 0 (none), 1 (retired.h) or 2 with its hash u64, where the reader has it
 *      summary   version u8 = 2 | context | varint limits; per limit: actor u64 | varint seq | u64 horizon */
#include "crdt/context.h"

#include "crdt/mutant.h"

#define SUMMARY_VERSION 2u

enum { TABLE_NONE, TABLE_WHOLE, TABLE_REFERENCE };

static void encode_table(const cake__context_t *context, uint64_t known, cake__buf_t *out)
{
    const cake__retired_t *table = context->retired;
    if (context->reference != 0 || (table != NULL && table->hash == known)) {
        cake__put_u8(out, TABLE_REFERENCE);
        cake__put_u64(out, table != NULL ? table->hash : context->reference);
    } else if (table != NULL) {
        cake__put_u8(out, TABLE_WHOLE);
        cake__retired_encode(table, out);
    } else {
        cake__put_u8(out, TABLE_NONE);
    }
}

void cake__context_encode(const cake__context_t *context, cake__buf_t *out)
{
    cake__context_encode_known(context, 0, out);
}

void cake__context_encode_known(const cake__context_t *context, uint64_t known, cake__buf_t *out)
{
    cake__put_varint(out, context->count);
    for (uint32_t i = 0; i < context->count; i++) {
        const cake__actor_dots_t *dots = &context->actors[i];
        uint64_t end = dots->base;
        cake__put_u64(out, dots->actor);
        cake__put_varint(out, dots->base);
        cake__put_varint(out, dots->range_count);
        for (uint32_t k = 0; k < dots->range_count; k++) {
            cake__put_varint(out, dots->ranges[k].first - end - 2);
            cake__put_varint(out, dots->ranges[k].last - dots->ranges[k].first);
            end = dots->ranges[k].last;
        }
    }
    encode_table(context, known, out);
}

/* Sums of what was read, each bounded, so that nothing overflows. */
static int decode_runs(cake__context_t *out, uint64_t actor, uint64_t end, uint64_t count, cake__reader_t *reader)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t gap = cake__get_varint(reader), length = cake__get_varint(reader);
        if (reader->err != 0 || gap > CAKE_SEQ_MAX || length > CAKE_SEQ_MAX || end + gap + 2 + length > CAKE_SEQ_MAX)
            return CAKE_EPARSE;
        int err = cake__context_add_run(out, actor, end + gap + 2, end + gap + 2 + length);
        if (err != 0)
            return err;
        end += gap + 2 + length;
    }
    return 0;
}

static int decode_actor(cake__context_t *out, uint64_t *total_runs, cake__reader_t *reader)
{
    uint64_t actor = cake__get_u64(reader), base = cake__get_varint(reader), runs = cake__get_varint(reader);
    bool is_sorted = out->count == 0 || actor > out->actors[out->count - 1].actor;
    if (reader->err != 0 || !is_sorted || base > CAKE_SEQ_MAX || (base == 0 && runs == 0))
        return CAKE_EPARSE;
    /* A range takes two bytes at least: a count beyond that is a lie that must not cost memory. */
    if (runs > cake__reader_left(reader) / 2)
        return CAKE_EPARSE;
    *total_runs += runs;
    if (*total_runs > CAKE__CONTEXT_RUNS_MAX)
        return CAKE_ETOOBIG;
    int err = base > 0 ? cake__context_add_run(out, actor, 1, base) : 0;
    return err != 0 ? err : decode_runs(out, actor, base, runs, reader);
}

/* An actor that is listed and in the table has more dots than the table says. */
static bool goes_with(const cake__context_t *context, const cake__retired_t *table)
{
    for (uint32_t i = 0; i < context->count; i++) {
        const cake__actor_dots_t *dots = &context->actors[i];
        uint64_t seq = cake__retired_seq(table, dots->actor);
        if (seq > dots->base || (seq > 0 && seq == dots->base && dots->range_count == 0))
            return false;
    }
    return true;
}

int cake__context_resolve(cake__context_t *context, cake__retired_t *table)
{
    if (context->reference == 0)
        return 0;
    if (table == NULL || (table->hash != context->reference && !CAKE__MUTANT(foldhash)))
        return CAKE_ECONFLICT;
    if (!goes_with(context, table))
        return CAKE_EPARSE;
    context->retired = cake__retired_share(table);
    context->reference = 0;
    return 0;
}

static int decode_table(cake__context_t *out, cake__reader_t *reader)
{
    uint8_t form = cake__get_u8(reader);
    if (reader->err != 0 || form > TABLE_REFERENCE)
        return CAKE_EPARSE;
    if (form == TABLE_REFERENCE) {
        out->reference = cake__get_u64(reader);
        return reader->err == 0 && out->reference != 0 ? 0 : CAKE_EPARSE;
    }
    if (form == TABLE_NONE)
        return 0;
    int err = cake__retired_decode(out->alloc, reader, &out->retired);
    return err == 0 && !goes_with(out, out->retired) ? CAKE_EPARSE : err;
}

int cake__context_decode(cake__context_t *out, cake__reader_t *reader)
{
    uint64_t actors = cake__get_varint(reader), total_runs = 0;
    int err = reader->err != 0 ? CAKE_EPARSE : actors > CAKE__CONTEXT_ACTORS_MAX ? CAKE_ETOOBIG : 0;
    cake__context_free(out);
    for (uint64_t i = 0; i < actors && err == 0; i++)
        err = decode_actor(out, &total_runs, reader);
    if (err == 0)
        err = decode_table(out, reader);
    if (err != 0)
        cake__context_free(out);
    return err;
}

static int limits_decode(cake__limits_t *out, cake__reader_t *reader)
{
    uint64_t count = cake__get_varint(reader), before = 0;
    if (reader->err != 0)
        return CAKE_EPARSE;
    if (count > CAKE__CONTEXT_ACTORS_MAX)
        return CAKE_ETOOBIG;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t actor = cake__get_u64(reader), seq = cake__get_varint(reader);
        if (reader->err != 0 || (i > 0 && actor <= before) || seq == 0 || seq > CAKE_SEQ_MAX)
            return CAKE_EPARSE;
        int err = cake__limits_raise(out, actor, seq);
        if (err != 0)
            return err;
        before = actor;
    }
    return 0;
}

void cake__summary_encode(const cake__summary_t *summary, cake__buf_t *out)
{
    cake__summary_encode_known(summary, 0, out);
}

void cake__summary_encode_known(const cake__summary_t *summary, uint64_t known, cake__buf_t *out)
{
    cake__put_u8(out, SUMMARY_VERSION);
    cake__context_encode_known(&summary->context, known, out);
    cake__put_varint(out, summary->dropped.count);
    for (uint32_t i = 0; i < summary->dropped.count; i++) {
        cake__put_u64(out, summary->dropped.items[i].actor);
        cake__put_varint(out, summary->dropped.items[i].seq);
    }
    cake__put_u64(out, summary->horizon);
}

int cake__summary_decode(cake__summary_t *out, cake__reader_t *reader)
{
    cake__summary_free(out);
    int err = cake__get_u8(reader) == SUMMARY_VERSION ? 0 : reader->err != 0 ? CAKE_EPARSE : CAKE_EVERSION;
    if (err == 0)
        err = cake__context_decode(&out->context, reader);
    if (err == 0)
        err = limits_decode(&out->dropped, reader);
    out->horizon = err == 0 ? cake__get_u64(reader) : 0;
    if (err == 0 && reader->err != 0)
        err = CAKE_EPARSE;
    if (err != 0)
        cake__summary_free(out);
    return err;
}
