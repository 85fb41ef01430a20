/* comparison.c: see comparison.h. */
#include "crdt/comparison.h"

#include "crdt/set.h"

#define IDS_AHEAD 4096u /* collected before they are asked for */

static size_t words_for(uint32_t bits)
{
    return bits <= 6 ? 1 : (size_t)1 << (bits - 6);
}

static void mark(uint64_t *map, uint32_t index)
{
    map[index / 64] |= UINT64_C(1) << (index % 64);
}

static bool is_marked(const uint64_t *map, uint32_t index)
{
    return map[index / 64] >> (index % 64) & 1;
}

/* Bits of the ranges above the leaves, which are the parents of a round. */
static uint32_t inner_bits(const cake__comparison_t *comparison)
{
    return comparison->bits < CAKE__RANGE_STEP ? 0 : comparison->bits - CAKE__RANGE_STEP;
}

int cake__comparison_new(const cake_orswot_t *set, const cake__context_t *hello, const cake__context_t *known,
                         const cake__welcome_t *welcome, cake__comparison_t **out)
{
    cake__comparison_t *made = *out = cake__calloc(set->alloc, 1, sizeof *made);
    if (made == NULL)
        return CAKE_ENOMEM;
    made->set = set;
    made->hello = hello;
    made->theirs = &welcome->summary.context;
    made->horizon = welcome->summary.horizon;
    made->bits = welcome->range_bits;
    made->asked_bits = CAKE__RANGE_STEP;
    made->phase = made->bits == 0 ? CAKE__COMPARISON_IDS : CAKE__COMPARISON_BUILD;
    cake__context_init(&made->known, set->alloc);
    made->parents = cake__calloc(set->alloc, words_for(inner_bits(made)), sizeof *made->parents);
    made->next = cake__calloc(set->alloc, words_for(inner_bits(made)), sizeof *made->next);
    made->leaves = cake__calloc(set->alloc, words_for(made->bits), sizeof *made->leaves);
    int err = made->parents == NULL || made->next == NULL || made->leaves == NULL ? CAKE_ENOMEM : 0;
    if (err == 0)
        err = cake__context_copy(&made->known, known);
    if (err == 0)
        err = cake__range_build_init(&made->build, set->alloc, made->bits, hello, made->theirs, made->horizon);
    if (err == 0)
        err = cake__walk_init(&made->walk, set->alloc, &made->known);
    if (err != 0) {
        cake__comparison_free(made);
        *out = NULL;
        return err;
    }
    mark(made->parents, 0);
    return 0;
}

void cake__comparison_free(cake__comparison_t *comparison)
{
    if (comparison == NULL)
        return;
    const cake_alloc_t *alloc = comparison->set->alloc;
    cake__context_free(&comparison->known);
    cake__range_build_free(&comparison->build);
    cake__walk_free(&comparison->walk);
    cake__free(alloc, comparison->parents);
    cake__free(alloc, comparison->next);
    cake__free(alloc, comparison->leaves);
    cake__free(alloc, comparison->ids);
    cake__free(alloc, comparison);
}

size_t cake__comparison_bytes(const cake__comparison_t *comparison)
{
    return sizeof *comparison + cake__ranges_bytes(&comparison->build.ranges) +
           2 * words_for(inner_bits(comparison)) * sizeof(uint64_t) + words_for(comparison->bits) * sizeof(uint64_t) +
           comparison->id_capacity * sizeof *comparison->ids + 2 * CAKE__WALK_PART * sizeof(cake_record_t);
}

/* ---- ranges ------------------------------------------------------------------------------------------------------ */

static void mark_leaves(cake__comparison_t *comparison, uint32_t bits, uint32_t index)
{
    uint32_t below = comparison->bits - bits;
    for (uint32_t leaf = index << below; leaf < (index + 1) << below; leaf++)
        mark(comparison->leaves, leaf);
}

/* A range that differs, or of which not much is known: what becomes of it. */
static void note_unequal(cake__comparison_t *comparison, uint32_t bits, uint32_t index)
{
    uint32_t count = cake__ranges_count(&comparison->build.ranges, bits, index);
    if (count == 0)
        return;
    if (bits == comparison->bits || count <= comparison->set->repair.few_records)
        mark_leaves(comparison, bits, index);
    else
        mark(comparison->next, index);
}

/* The next range of the round that is worth a question; false when there is none left. */
static bool next_range(cake__comparison_t *comparison, cake__range_sum_t *out)
{
    uint32_t bits = comparison->asked_bits;
    while (comparison->next_index >> bits == 0) {
        uint32_t index = comparison->next_index++;
        if (!is_marked(comparison->parents, index / CAKE__RANGE_FAN)) {
            comparison->next_index = (index | (CAKE__RANGE_FAN - 1)) + 1;
            continue;
        }
        uint32_t count = cake__ranges_count(&comparison->build.ranges, bits, index);
        if (count > 0 && count <= comparison->set->repair.few_records) {
            mark_leaves(comparison, bits, index);
        } else if (count > 0) {
            *out = (cake__range_sum_t){index, cake__ranges_sum(&comparison->build.ranges, bits, index)};
            return true;
        }
    }
    return false;
}

static void next_round(cake__comparison_t *comparison)
{
    uint64_t *swap = comparison->parents;
    comparison->parents = comparison->next;
    comparison->next = swap;
    memset(swap, 0, words_for(inner_bits(comparison)) * sizeof *swap);
    comparison->asked_bits += 2 * CAKE__RANGE_STEP;
    comparison->next_index = 0;
    if (comparison->asked_bits > comparison->bits)
        comparison->phase = CAKE__COMPARISON_IDS;
}

void cake__comparison_take(cake__comparison_t *comparison, const cake__compared_t *answer)
{
    uint32_t bits = comparison->asked_bits;
    if (comparison->phase != CAKE__COMPARISON_RANGES || answer->bits != bits)
        return;
    for (size_t i = 0; i < answer->unequal_count; i++) {
        const cake__unequal_t *unequal = &answer->unequal[i];
        if (!is_marked(comparison->parents, unequal->index / CAKE__RANGE_FAN))
            continue; /* not asked */
        if (bits == comparison->bits || !answer->has_parts) {
            mark_leaves(comparison, bits, unequal->index);
            continue;
        }
        for (uint32_t k = 0; k < CAKE__RANGE_FAN; k++) {
            uint32_t part = unequal->index * CAKE__RANGE_FAN + k;
            if (cake__ranges_sum(&comparison->build.ranges, bits + CAKE__RANGE_STEP, part) != unequal->parts[k])
                note_unequal(comparison, bits + CAKE__RANGE_STEP, part);
        }
    }
}

/* ---- ids --------------------------------------------------------------------------------------------------------- */

/* Both sides have seen it, so that the ranges tell. */
static bool is_in_ranges(const cake__comparison_t *comparison, cake_dot_t dot)
{
    return cake__context_contains(comparison->hello, dot) && cake__context_contains(comparison->theirs, dot);
}

static bool is_to_be_asked(const cake__comparison_t *comparison, const cake_record_t *record)
{
    if (record->is_tombstone || record->hlc > comparison->horizon)
        return false;
    uint64_t position = cake__range_position(cake__id_pair(&record->id));
    if (comparison->bits == 0 || is_marked(comparison->leaves, cake__range_index(position, comparison->bits)))
        return true;
    return !CAKE__MUTANT(rangeunseen) && !is_in_ranges(comparison, record->dot);
}

static int add_id(cake__comparison_t *comparison, const cake_id_t *id)
{
    if (!cake__reserve(comparison->set->alloc, (void **)&comparison->ids, comparison->id_count,
                       &comparison->id_capacity, sizeof *comparison->ids))
        return CAKE_ENOMEM;
    comparison->ids[comparison->id_count++] = *id;
    return 0;
}

/* A part of the walk is taken whole or, without memory, not at all. */
static int collect(cake__comparison_t *comparison)
{
    size_t count, before = comparison->id_count;
    cake__walk_t walk = comparison->walk;
    bool has_walked = !cake__walk_next(&walk, &comparison->set->table, &count);
    for (size_t i = 0; i < count; i++) {
        if (is_to_be_asked(comparison, &walk.records[i]) && add_id(comparison, &walk.records[i].id) != 0) {
            comparison->id_count = before;
            return CAKE_ENOMEM;
        }
    }
    comparison->walk = walk;
    comparison->has_walked = has_walked;
    return 0;
}

static size_t ids_waiting(const cake__comparison_t *comparison)
{
    return comparison->id_count - comparison->id_at;
}

/* Goes on to the next round, or to the ids, where nothing is left to ask before. */
static void end_rounds(cake__comparison_t *comparison)
{
    cake__range_sum_t question;
    while (comparison->phase == CAKE__COMPARISON_RANGES) {
        uint32_t before = comparison->next_index;
        if (next_range(comparison, &question)) {
            comparison->next_index = before; /* it will be asked */
            return;
        }
        next_round(comparison);
    }
}

int cake__comparison_step(cake__comparison_t *comparison, bool all_answered, bool *has_more)
{
    int err = 0;
    if (all_answered)
        end_rounds(comparison);
    if (comparison->phase == CAKE__COMPARISON_BUILD) {
        err = cake__range_build_step(&comparison->build, &comparison->set->table, comparison->set->repair.step_records);
        if (comparison->build.is_done)
            comparison->phase = CAKE__COMPARISON_RANGES;
    } else if (comparison->phase == CAKE__COMPARISON_IDS) {
        for (uint32_t done = 0; err == 0 && done < comparison->set->repair.step_records && !comparison->has_walked &&
                                ids_waiting(comparison) < IDS_AHEAD;
             done += CAKE__WALK_PART)
            err = collect(comparison);
    }
    *has_more =
        comparison->phase == CAKE__COMPARISON_BUILD ||
        (comparison->phase == CAKE__COMPARISON_IDS && !comparison->has_walked && ids_waiting(comparison) < IDS_AHEAD);
    return err;
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

static int ask_ranges(cake__comparison_t *comparison, size_t limit, cake__compare_t *out)
{
    limit = (size_t)cake__min_u64(limit, CAKE__RANGES_MAX);
    out->bits = (uint8_t)comparison->asked_bits;
    out->ranges = cake__malloc(comparison->set->alloc, limit * sizeof *out->ranges);
    if (out->ranges == NULL)
        return CAKE_ENOMEM;
    while (out->range_count < limit && next_range(comparison, &out->ranges[out->range_count]))
        out->range_count++;
    if (out->range_count == 0) {
        cake__free(comparison->set->alloc, out->ranges);
        out->ranges = NULL;
        out->bits = 0;
    }
    return 0;
}

static int ask_ids(cake__comparison_t *comparison, size_t limit, cake__compare_t *out)
{
    int err = 0;
    while (err == 0 && ids_waiting(comparison) <= limit && !comparison->has_walked)
        err = collect(comparison);
    if (err != 0)
        return err;
    out->count = (size_t)cake__min_u64(limit, ids_waiting(comparison));
    out->ids = cake__malloc(comparison->set->alloc, out->count * sizeof *out->ids);
    if (out->ids == NULL)
        return CAKE_ENOMEM;
    if (out->count > 0)
        memcpy(out->ids, comparison->ids + comparison->id_at, out->count * sizeof *out->ids);
    comparison->id_at += out->count;
    if (ids_waiting(comparison) == 0) {
        comparison->id_count = comparison->id_at = 0;
        out->is_last = comparison->has_walked;
    }
    if (out->is_last)
        comparison->phase = CAKE__COMPARISON_DONE;
    return 0;
}

int cake__comparison_next(cake__comparison_t *comparison, size_t limit, bool all_answered, cake__compare_t *out,
                          bool *has)
{
    int err = 0;
    bool has_more;
    *has = false;
    while (err == 0 && comparison->phase == CAKE__COMPARISON_BUILD)
        err = cake__comparison_step(comparison, false, &has_more);
    while (err == 0 && comparison->phase == CAKE__COMPARISON_RANGES) {
        err = ask_ranges(comparison, limit, out);
        *has = out->range_count > 0;
        if (err != 0 || *has || (!all_answered && !CAKE__MUTANT(rangeround)))
            return err;
        next_round(comparison);
    }
    /* The ids need the answers to the last round. */
    if (err != 0 || comparison->phase == CAKE__COMPARISON_DONE)
        return err;
    err = ask_ids(comparison, limit, out);
    *has = err == 0;
    return err;
}
