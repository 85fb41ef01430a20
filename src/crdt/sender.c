/* sender.c: the sender z of a session (rule 3). It reads the committed set and never changes it.
 *
 * `covered` begins as the context of HELLO and grows by what was swept: all dots of C_z up to where the last chunk
 * ended. A dot that z had and that had no record then will never have one again, so at the end covered contains
 * C_z, and each chunk costs what it carries. */
#include "crdt/ranges.h"
#include "crdt/set.h"

struct cake__sender {
    cake_orswot_t *set;
    uint16_t node_id;
    uint64_t session_id, token;
    cake__context_t covered;
    uint32_t chunk_count;
    bool is_finished, expects_compare, lacks_table;
    uint64_t known;           /* hash of the table that r has */
    cake__context_t answered; /* COMPARE indices + 1, as dots of actor 0 */
    bool knows_compares;
    uint32_t compare_count; /* once knows_compares */
    /* for the comparison, when one is expected: */
    uint8_t range_bits;
    cake__context_t theirs, ours; /* C_r of HELLO, C_z of WELCOME */
    cake__range_build_t *build;   /* NULL: no ranges are offered */
};

/* G_z is a subset of `context`. */
static bool dropped_is_covered(const cake_orswot_t *set, const cake__context_t *context)
{
    return cake__dropped_is_covered(&set->summary.context, &set->summary.dropped, context);
}

/* What the comparison is about, as of this instant. The ranges themselves are added up when r asks for them. */
static int prepare_comparison(cake__sender_t *sender)
{
    const cake_orswot_t *set = sender->set;
    uint32_t bits = cake__range_bits_for(set->table.live, set->repair.leaf_records);
    sender->range_bits = (uint8_t)cake__max_u64(bits, set->repair.least_bits);
    int err = cake__context_copy(&sender->theirs, &sender->covered);
    if (err == 0)
        err = cake__context_copy(&sender->ours, &set->summary.context);
    if (err != 0 || sender->range_bits == 0)
        return err;
    sender->build = cake__calloc(set->alloc, 1, sizeof *sender->build);
    if (sender->build == NULL)
        return CAKE_ENOMEM;
    return cake__range_build_init(sender->build, set->alloc, sender->range_bits, &sender->theirs, &sender->ours,
                                  set->summary.horizon);
}

int cake__sender_new(cake_orswot_t *set, uint16_t node_id, const cake__hello_t *hello, uint64_t token,
                     cake__sender_t **out)
{
    *out = NULL;
    int err = cake__orswot_finish_loading(set);
    cake__sender_t *sender = err == 0 ? cake__calloc(set->alloc, 1, sizeof *sender) : NULL;
    if (sender == NULL)
        return err != 0 ? err : CAKE_ENOMEM;
    sender->set = set;
    sender->node_id = node_id;
    sender->session_id = hello->session_id;
    sender->token = token;
    cake__context_init(&sender->covered, set->alloc);
    cake__context_init(&sender->answered, set->alloc);
    cake__context_init(&sender->theirs, set->alloc);
    cake__context_init(&sender->ours, set->alloc);
    err = cake__context_copy(&sender->covered, &hello->summary.context);
    if (err == 0)
        err = cake__context_resolve(&sender->covered, set->summary.context.retired);
    sender->lacks_table = err == CAKE_ECONFLICT;
    sender->known = sender->covered.retired == NULL ? 0 : sender->covered.retired->hash;
    sender->expects_compare =
        err == 0 && !cake__context_is_empty(&sender->covered) && !dropped_is_covered(set, &sender->covered);
    err = sender->lacks_table ? 0 : err;
    if (err == 0 && sender->expects_compare)
        err = prepare_comparison(sender);
    if (err != 0) {
        cake__sender_free(sender);
        return err;
    }
    *out = sender;
    return 0;
}

void cake__sender_free(cake__sender_t *sender)
{
    if (sender == NULL)
        return;
    cake__context_free(&sender->covered);
    cake__context_free(&sender->answered);
    cake__context_free(&sender->theirs);
    cake__context_free(&sender->ours);
    if (sender->build != NULL)
        cake__range_build_free(sender->build);
    cake__free(sender->set->alloc, sender->build);
    cake__free(sender->set->alloc, sender);
}

uint64_t cake__sender_token(const cake__sender_t *sender)
{
    return sender->token;
}

int cake__sender_welcome(const cake__sender_t *sender, cake__welcome_t *out)
{
    const cake_orswot_t *set = sender->set;
    *out = (cake__welcome_t){.session_id = sender->session_id,
                             .token = sender->token,
                             .actor = set->actor,
                             .epoch = set->epoch,
                             .node_id = sender->node_id,
                             .is_joined = set->is_joined,
                             .expects_compare = sender->expects_compare,
                             .lacks_table = sender->lacks_table,
                             .known = sender->known,
                             .range_bits = sender->range_bits};
    cake__summary_init(&out->summary, set->alloc);
    return cake__summary_copy(&out->summary, &set->summary);
}

/* ---- chunks ------------------------------------------------------------------------------------------------------ */

/* The next run of dots that z has and that are not covered. */
static bool next_gap(const cake__sender_t *sender, uint32_t *actor_index, uint64_t *from, uint64_t *actor,
                     cake__run_t *gap)
{
    const cake__context_t *have = &sender->set->summary.context;
    cake__actor_dots_t spare_have, spare_covered;
    bool is_same = cake__retired_same(have->retired, sender->covered.retired) || CAKE__MUTANT(folddiff);
    for (; *actor_index < have->count || !is_same; (*actor_index)++, *from = 1) {
        const cake__actor_dots_t *dots = cake__context_actor(have, actor_index, &spare_have);
        if (dots == NULL)
            break;
        const cake__actor_dots_t *covered = cake__context_view(&sender->covered, dots->actor, &spare_covered);
        if (cake__actor_dots_gap(dots, covered, *from, gap)) {
            *actor = dots->actor;
            return true;
        }
    }
    return false;
}

/* Takes records of one gap; *has_more: some did not fit, and only the dots up to the last one taken are covered. */
static int take_gap(cake__sender_t *sender, uint64_t actor, cake__run_t gap, cake_record_t *records, size_t limit,
                    size_t *taken, bool *has_more)
{
    cake_record_t next;
    const cake__table_t *table = &sender->set->table;
    size_t count = limit == 0 ? 0 : cake__table_select(table, actor, gap.first, gap.last, records, limit);
    uint64_t after = count == 0 ? gap.first : records[count - 1].dot.seq + 1;
    *taken = count;
    *has_more = count == limit && after <= gap.last && cake__table_select(table, actor, after, gap.last, &next, 1) > 0;
    if (*has_more && count == 0)
        return 0;
    return cake__context_add_run(&sender->covered, actor, gap.first, *has_more ? after - 1 : gap.last);
}

static bool may_build_fin(const cake__sender_t *sender)
{
    if (!sender->expects_compare || CAKE__MUTANT(latecompare))
        return true;
    return sender->knows_compares && cake__context_base(&sender->answered, 0) >= sender->compare_count;
}

static int build_fin(cake__sender_t *sender, cake__fin_t *fin)
{
    *fin = (cake__fin_t){.session_id = sender->session_id,
                         .token = sender->token,
                         .epoch = sender->set->epoch,
                         .known = sender->known,
                         .chunk_count = sender->chunk_count};
    cake__summary_init(&fin->summary, sender->set->alloc);
    return cake__summary_copy(&fin->summary, &sender->set->summary);
}

int cake__sender_next(cake__sender_t *sender, size_t limit, cake_record_t *records, size_t *count,
                      uint32_t *chunk_index, bool *has_fin, cake__fin_t *fin)
{
    uint32_t actor_index = 0;
    uint64_t from = 1, actor;
    cake__run_t gap;
    bool has_more = false;
    int err = 0;
    *count = 0;
    *has_fin = false;
    *chunk_index = sender->chunk_count;
    if (sender->is_finished || sender->lacks_table)
        return 0;
    while (err == 0 && !has_more && next_gap(sender, &actor_index, &from, &actor, &gap)) {
        size_t taken = 0;
        err = take_gap(sender, actor, gap, records + *count, limit - *count, &taken, &has_more);
        *count += taken;
        from = gap.last + 1;
    }
    if (err != 0)
        return err;
    sender->chunk_count += *count > 0;
    if ((has_more && !CAKE__MUTANT(earlyfin)) || !may_build_fin(sender))
        return 0;
    err = build_fin(sender, fin);
    *has_fin = sender->is_finished = err == 0;
    return err;
}

/* ---- the comparison of a repair (rule 5) ------------------------------------------------------------------------- */

int cake__sender_step(cake__sender_t *sender, bool *has_more)
{
    int err = 0;
    bool is_needed = sender->build != NULL && !sender->build->is_done;
    if (is_needed)
        err = cake__range_build_step(sender->build, &sender->set->table, sender->set->repair.step_records);
    *has_more = is_needed && !sender->build->is_done;
    return err;
}

/* Which of these ranges differ here, and what their parts come to. The sums are of z as it was at some instant
 * since the WELCOME: what they say is present stays so until the FIN, or the epoch has changed. */
static int compare_ranges(cake__sender_t *sender, const cake__compare_t *request, cake__compared_t *out)
{
    bool has_more = true;
    int err = 0;
    if (sender->build == NULL || request->bits > sender->range_bits)
        return CAKE_EINVAL;
    while (err == 0 && has_more)
        err = cake__sender_step(sender, &has_more);
    out->unequal = err == 0 ? cake__calloc(sender->set->alloc, request->range_count, sizeof *out->unequal) : NULL;
    if (out->unequal == NULL)
        return CAKE_ENOMEM;
    const cake__ranges_t *ranges = &sender->build->ranges;
    out->bits = request->bits;
    out->has_parts = request->bits < sender->range_bits;
    for (size_t i = 0; i < request->range_count; i++) {
        const cake__range_sum_t *asked = &request->ranges[i];
        if (cake__ranges_sum(ranges, request->bits, asked->index) == asked->sum || CAKE__MUTANT(rangeblind))
            continue;
        cake__unequal_t *unequal = &out->unequal[out->unequal_count++];
        unequal->index = asked->index;
        for (uint32_t k = 0; k < CAKE__RANGE_FAN && out->has_parts; k++)
            unequal->parts[k] =
                cake__ranges_sum(ranges, request->bits + CAKE__RANGE_STEP, asked->index * CAKE__RANGE_FAN + k);
    }
    return 0;
}

static int compare_ids(const cake__sender_t *sender, const cake__compare_t *request, cake__compared_t *out)
{
    const cake_orswot_t *set = sender->set;
    out->absent = cake__malloc(set->alloc, request->count * sizeof *out->absent);
    if (out->absent == NULL)
        return CAKE_ENOMEM;
    for (size_t i = 0; i < request->count; i++) {
        if (cake__table_find(&set->table, &request->ids[i]) == CAKE__SLOT_NONE)
            out->absent[out->absent_count++] = request->ids[i];
    }
    return 0;
}

int cake__sender_compare(cake__sender_t *sender, const cake__compare_t *request, cake__compared_t *out)
{
    *out = (cake__compared_t){
        .session_id = sender->session_id, .token = sender->token, .epoch = sender->set->epoch, .index = request->index};
    /* After the FIN an answer would be newer than what FIN covers. */
    bool is_late = sender->is_finished && !CAKE__MUTANT(latecompare);
    if (request->session_id != sender->session_id || request->token != sender->token || is_late)
        return CAKE_ECLOSED;
    int err = request->range_count == 0 ? 0 : compare_ranges(sender, request, out);
    if (err == 0)
        err = compare_ids(sender, request, out);
    if (err == 0)
        err = cake__context_add(&sender->answered, (cake_dot_t){0, (uint64_t)request->index + 1});
    if (err != 0) {
        cake__compared_free(out, sender->set->alloc);
        return err;
    }
    if (request->is_last) {
        sender->knows_compares = true;
        sender->compare_count = request->index + 1;
    }
    return 0;
}
