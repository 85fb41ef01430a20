/* sender.c: the sender z of a session (rule 3). It reads the committed set and never changes it.
 *
 * `covered` begins as the context of HELLO and grows by what was swept: all dots of C_z up to where the last chunk ended. A
 * dot that z had and that had no record then will never have one again, so at the end covered contains C_z, and each
 * chunk costs what it carries. */
#include "crdt/set.h"

struct cake__sender {
    cake_orswot_t *set;
    uint16_t node_id;
    uint64_t session_id, token;
    cake__context_t covered;
    uint32_t chunk_count;
    bool is_finished, expects_compare;
    cake__context_t answered; /* COMPARE indices + 1, as dots of actor 0 */
    bool knows_compares;
    uint32_t compare_count; /* once knows_compares */
};

/* G_z is a subset of `context`. */
static bool dropped_is_covered(const cake_orswot_t *set, const cake__context_t *context)
{
    return cake__dropped_is_covered(&set->summary.context, &set->summary.dropped, context);
}

int cake__sender_new(cake_orswot_t *set, uint16_t node_id, const cake__hello_t *hello, uint64_t token,
                     cake__sender_t **out)
{
    *out = NULL;
    int err = cake__orswot_finish_loading(set);
    cake__sender_t *sender = err == 0 ? cake__calloc(set->alloc, 1, sizeof *sender) : NULL;
    if (sender == NULL)
        return CAKE_ENOMEM;
    sender->set = set;
    sender->node_id = node_id;
    sender->session_id = hello->session_id;
    sender->token = token;
    sender->expects_compare =
        !cake__context_is_empty(&hello->summary.context) && !dropped_is_covered(set, &hello->summary.context);
    cake__context_init(&sender->covered, set->alloc);
    cake__context_init(&sender->answered, set->alloc);
    err = cake__context_copy(&sender->covered, &hello->summary.context);
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
                             .expects_compare = sender->expects_compare};
    cake__summary_init(&out->summary, set->alloc);
    return cake__summary_copy(&out->summary, &set->summary);
}

/* ---- chunks ----------------------------------------------------------------------------------------------------------- */

/* The next run of dots that z has and that are not covered. */
static bool next_gap(const cake__sender_t *sender, uint32_t *actor_index, uint64_t *from, uint64_t *actor,
                     cake__run_t *gap)
{
    const cake__context_t *have = &sender->set->summary.context;
    for (; *actor_index < have->count; (*actor_index)++, *from = 1) {
        const cake__actor_dots_t *dots = &have->actors[*actor_index];
        if (cake__actor_dots_gap(dots, cake__context_find(&sender->covered, dots->actor), *from, gap)) {
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
    if (sender->is_finished)
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

/* ---- the comparison of a repair (rule 5) ------------------------------------------------------------------------------ */

int cake__sender_compare(cake__sender_t *sender, const cake__compare_t *request, cake__compared_t *out)
{
    const cake_orswot_t *set = sender->set;
    *out = (cake__compared_t){
        .session_id = sender->session_id, .token = sender->token, .epoch = set->epoch, .index = request->index};
    /* After the FIN an answer would be newer than what FIN covers. */
    bool is_late = sender->is_finished && !CAKE__MUTANT(latecompare);
    if (request->session_id != sender->session_id || request->token != sender->token || is_late)
        return CAKE_ECLOSED;
    int err = cake__context_add(&sender->answered, (cake_dot_t){0, (uint64_t)request->index + 1});
    if (err != 0)
        return err;
    out->absent = cake__malloc(set->alloc, request->count * sizeof *out->absent);
    if (out->absent == NULL)
        return CAKE_ENOMEM;
    for (size_t i = 0; i < request->count; i++) {
        if (cake__table_find(&set->table, &request->ids[i]) == CAKE__SLOT_NONE)
            out->absent[out->absent_count++] = request->ids[i];
    }
    if (request->is_last) {
        sender->knows_compares = true;
        sender->compare_count = request->index + 1;
    }
    return 0;
}
