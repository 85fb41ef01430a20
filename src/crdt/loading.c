/* loading.c: records found in storage (rule 6). They come in the order of their keys, which is no order of dots:
 * placed one by one they would make every block split again and again. So they are collected, sorted by dot, and
 * placed in a row.
 *
 *      records   as they came, 48 B each          order   (seq, rank of the actor, index), 16 B, twice while sorting
 *
 * Sorting is by digits of 11 bits from the lowest up (radix, stable): a million records take some tens of ms. */
#include "crdt/set.h"

#define DIGIT_BITS 11u
#define DIGITS     (1u << DIGIT_BITS)
#define AHEAD      8u

typedef struct sort_key {
    uint64_t seq;
    uint32_t rank, index;
} sort_key_t;

struct cake__loading {
    cake_record_t *records;
    size_t count, capacity, placed;
    sort_key_t *order; /* NULL: not sorted yet */
};

void cake__loading_free(cake_orswot_t *set)
{
    if (set->loading == NULL)
        return;
    cake__free(set->alloc, set->loading->records);
    cake__free(set->alloc, set->loading->order);
    cake__free(set->alloc, set->loading);
    set->loading = NULL;
}

int cake__orswot_load_record(cake_orswot_t *set, const cake_record_t *record)
{
    CAKE_ASSERT(set->change == NULL);
    if (!cake__dot_is_valid(record->dot))
        return CAKE_EINVAL;
    if (set->loading == NULL && (set->loading = cake__calloc(set->alloc, 1, sizeof *set->loading)) == NULL)
        return CAKE_ENOMEM;
    cake__loading_t *loading = set->loading;
    if (loading->order != NULL || loading->count == UINT32_MAX)
        return CAKE_EINVAL; /* it has begun to end */
    if (!cake__reserve(set->alloc, (void **)&loading->records, loading->count, &loading->capacity,
                       sizeof *loading->records))
        return CAKE_ENOMEM;
    loading->records[loading->count++] = *record;
    cake_clock_advance(set->clock, record->hlc);
    return 0;
}

/* ---- sorting ----------------------------------------------------------------------------------------------------- */

static uint64_t digit_of(const sort_key_t *key, uint32_t pass, uint32_t seq_passes)
{
    if (pass < seq_passes)
        return key->seq >> (pass * DIGIT_BITS) & (DIGITS - 1);
    return key->rank >> ((pass - seq_passes) * DIGIT_BITS) & (DIGITS - 1);
}

static void sort_by_digit(const sort_key_t *from, sort_key_t *to, size_t count, uint32_t pass, uint32_t seq_passes)
{
    uint32_t starts[DIGITS] = {0}, sum = 0;
    for (size_t i = 0; i < count; i++)
        starts[digit_of(&from[i], pass, seq_passes)]++;
    for (uint32_t digit = 0; digit < DIGITS; digit++) {
        uint32_t here = starts[digit];
        starts[digit] = sum;
        sum += here;
    }
    for (size_t i = 0; i < count; i++)
        to[starts[digit_of(&from[i], pass, seq_passes)]++] = from[i];
}

static uint32_t passes_for(uint64_t greatest)
{
    uint32_t passes = 0;
    for (; greatest != 0; greatest >>= DIGIT_BITS)
        passes++;
    return passes;
}

/* A context of one dot per actor serves as the sorted list of actors. */
static int rank_actors(const cake__loading_t *loading, const cake_alloc_t *alloc, cake__context_t *actors)
{
    uint64_t last = 0;
    cake__context_init(actors, alloc);
    for (size_t i = 0; i < loading->count; i++) {
        uint64_t actor = loading->records[i].dot.actor;
        if (i > 0 && actor == last)
            continue;
        if (cake__context_add(actors, (cake_dot_t){actor, 1}) != 0)
            return CAKE_ENOMEM;
        last = actor;
    }
    return 0;
}

static int sort_records(cake_orswot_t *set)
{
    cake__loading_t *loading = set->loading;
    cake__context_t actors;
    uint64_t greatest = 0;
    int err = rank_actors(loading, set->alloc, &actors);
    sort_key_t *order = cake__malloc(set->alloc, loading->count * sizeof *order);
    sort_key_t *spare = cake__malloc(set->alloc, loading->count * sizeof *spare);
    if (err != 0 || order == NULL || spare == NULL) {
        err = CAKE_ENOMEM;
        goto out;
    }
    for (size_t i = 0; i < loading->count; i++) {
        const cake_dot_t *dot = &loading->records[i].dot;
        uint32_t rank = (uint32_t)(cake__context_find(&actors, dot->actor) - actors.actors);
        order[i] = (sort_key_t){dot->seq, rank, (uint32_t)i};
        greatest = cake__max_u64(greatest, dot->seq);
    }
    uint32_t seq_passes = passes_for(greatest), passes = seq_passes + passes_for(actors.count - 1);
    for (uint32_t pass = 0; pass < passes; pass++) {
        sort_by_digit(order, spare, loading->count, pass, seq_passes);
        sort_key_t *swap = order;
        order = spare;
        spare = swap;
    }
    loading->order = order;
    order = NULL;
out:
    cake__free(set->alloc, order);
    cake__free(set->alloc, spare);
    cake__context_free(&actors);
    return err;
}

/* ---- placing ----------------------------------------------------------------------------------------------------- */

static int place(cake_orswot_t *set, const cake_record_t *record)
{
    cake_record_t current;
    int err = 0;
    if (!cake__context_contains(&set->summary.context, record->dot))
        err = cake__context_add(&set->summary.context, record->dot);
    uint32_t slot = cake__table_find(&set->table, &record->id);
    if (slot != CAKE__SLOT_NONE)
        cake__table_read(&set->table, slot, &current);
    if (err != 0 || (slot != CAKE__SLOT_NONE && !cake__beats(record, &current)))
        return err;
    return cake__table_put(&set->table, record, slot);
}

int cake__orswot_finish_loading(cake_orswot_t *set)
{
    cake__loading_t *loading = set->loading;
    if (loading == NULL)
        return 0;
    int err = loading->order == NULL ? sort_records(set) : 0;
    for (; err == 0 && loading->placed < loading->count; loading->placed += err == 0) {
        size_t at = loading->placed;
        if (at + 2 * AHEAD < loading->count)
            __builtin_prefetch(&loading->records[loading->order[at + 2 * AHEAD].index]);
        if (at + AHEAD < loading->count)
            cake__table_prefetch(&set->table, &loading->records[loading->order[at + AHEAD].index].id);
        err = place(set, &loading->records[loading->order[at].index]);
    }
    if (err == 0)
        cake__loading_free(set);
    return err == CAKE_EDUPLICATE ? CAKE_ECORRUPT : err;
}
