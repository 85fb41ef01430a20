/* receiver.c: the receiver r of a session (rules 3, 5 and 7): all checks and all changes.
 *
 *      OPENING ──WELCOME──> RUNNING ──FIN, all chunks, all comparisons──> FINISHED (staged, or committed)
 *         └──────────── a check fails, the caller gives up, the change is aborted ────────────> ABORTED
 *
 * Aborting is always safe: every record taken so far added exactly its own dot. A running session is in the inbound
 * list of its set; one that staged something in an open change is also in the change's list, and ends with it. */
#include "crdt/comparison.h"
#include "crdt/set.h"

#define AHEAD 8u /* records of a chunk whose place in the index is fetched ahead */

/* A record of ours that the sender has dropped something above: to be erased at the end, if it is still this one. */
typedef struct candidate {
    cake_id_t id;
    cake_dot_t dot;
} candidate_t;

struct cake__receiver {
    cake_orswot_t *set;
    cake__list_t inbound, staged; /* nodes of set->inbound and of change->receivers */
    cake__hello_t hello;
    cake__session_phase_t phase;
    cake__session_mode_t mode;
    const char *reason;
    bool is_exclusive, has_welcome, has_fin;
    cake__welcome_t welcome;
    cake__fin_t fin;
    cake__context_t chunks_taken; /* indices + 1, as dots of actor 0 */
    /* repair */
    bool is_opening; /* the change with the WELCOME is open: what it puts cannot be walked yet */
    bool must_compare, last_compare_sent, is_finishing;
    cake__comparison_t *comparison; /* NULL: nothing to compare */
    uint32_t compares_sent;
    cake__context_t compares_answered; /* as chunks_taken */
    candidate_t *candidates;
    size_t candidate_count, candidate_capacity;
};

/* ---- create, end, destroy ---------------------------------------------------------------------------------------- */

int cake__receiver_new(cake_orswot_t *set, uint16_t node_id, uint64_t session_id, cake__receiver_t **out)
{
    *out = NULL;
    int err = cake__orswot_finish_loading(set);
    cake__receiver_t *receiver = err == 0 ? cake__calloc(set->alloc, 1, sizeof *receiver) : NULL;
    if (receiver == NULL)
        return err != 0 ? err : CAKE_ENOMEM;
    receiver->set = set;
    receiver->reason = "";
    cake__list_init(&receiver->inbound);
    cake__list_init(&receiver->staged);
    cake__context_init(&receiver->chunks_taken, set->alloc);
    cake__context_init(&receiver->compares_answered, set->alloc);
    cake__summary_init(&receiver->welcome.summary, set->alloc);
    cake__summary_init(&receiver->fin.summary, set->alloc);
    receiver->hello = (cake__hello_t){
        .session_id = session_id, .is_whole = set->sends_whole_table, .node_id = node_id, .actor = set->actor};
    cake__summary_init(&receiver->hello.summary, set->alloc);
    err = cake__summary_copy(&receiver->hello.summary, &set->summary);
    if (err != 0) {
        cake__receiver_free(receiver);
        return err;
    }
    *out = receiver;
    return 0;
}

static void close_with(cake__receiver_t *receiver, cake__session_phase_t phase)
{
    receiver->phase = phase;
    cake__list_remove(&receiver->inbound);
}

void cake__receiver_abort(cake__receiver_t *receiver, const char *reason)
{
    if (receiver->phase != CAKE__PHASE_OPENING && receiver->phase != CAKE__PHASE_RUNNING)
        return;
    receiver->reason = reason;
    close_with(receiver, CAKE__PHASE_ABORTED);
}

/* What an aborted change had taken from the session is lost: it must not come to a FIN. */
void cake__receiver_change_ended(cake__list_t *node, bool is_committed)
{
    cake__receiver_t *receiver = CAKE_CONTAINER_OF(node, cake__receiver_t, staged);
    receiver->is_opening = false;
    if (is_committed || CAKE__MUTANT(keepsession))
        return;
    receiver->reason = "the change was aborted";
    close_with(receiver, CAKE__PHASE_ABORTED);
}

void cake__receiver_free(cake__receiver_t *receiver)
{
    if (receiver == NULL)
        return;
    const cake_alloc_t *alloc = receiver->set->alloc;
    cake__list_remove(&receiver->inbound);
    cake__list_remove(&receiver->staged);
    cake__summary_free(&receiver->hello.summary);
    cake__summary_free(&receiver->welcome.summary);
    cake__summary_free(&receiver->fin.summary);
    cake__context_free(&receiver->chunks_taken);
    cake__context_free(&receiver->compares_answered);
    cake__comparison_free(receiver->comparison);
    cake__free(alloc, receiver->candidates);
    cake__free(alloc, receiver);
}

const cake__hello_t *cake__receiver_hello(const cake__receiver_t *receiver)
{
    return &receiver->hello;
}

cake__session_phase_t cake__receiver_phase(const cake__receiver_t *receiver)
{
    return receiver->phase;
}

cake__session_mode_t cake__receiver_mode(const cake__receiver_t *receiver)
{
    return receiver->mode;
}

const char *cake__receiver_reason(const cake__receiver_t *receiver)
{
    return receiver->reason;
}

size_t cake__receiver_bytes(const cake__receiver_t *receiver)
{
    return sizeof *receiver + receiver->candidate_capacity * sizeof *receiver->candidates +
           (receiver->comparison == NULL ? 0 : cake__comparison_bytes(receiver->comparison));
}

uint64_t cake__receiver_floor(const cake__list_t *inbound_node)
{
    const cake__receiver_t *receiver =
        (const cake__receiver_t *)(const void *)((const char *)inbound_node - offsetof(cake__receiver_t, inbound));
    return receiver->mode == CAKE__MODE_REPAIR ? receiver->welcome.summary.horizon : 0;
}

/* From here on the session ends with the change. */
static void attach(cake__receiver_t *receiver, cake__change_t *change)
{
    CAKE_ASSERT(change->set == receiver->set && receiver->set->change == change);
    if (!cake__list_is_linked(&receiver->staged))
        cake__list_push_back(&change->receivers, &receiver->staged);
}

/* ---- the checks on G (rule 3) ------------------------------------------------------------------------------------ */

/* G_r is a subset of C_z, as of WELCOME: contexts only grow. */
static bool receiver_forgot_nothing_new(const cake__receiver_t *receiver, const cake__change_t *change)
{
    const cake__summary_t *own = cake__change_summary(change);
    return CAKE__MUTANT(noS) ||
           cake__dropped_is_covered(&own->context, &own->dropped, &receiver->welcome.summary.context);
}

/* G_z is a subset of C_r. */
static bool sender_forgot_nothing_new(const cake__change_t *change, const cake__summary_t *theirs)
{
    return CAKE__MUTANT(noS) ||
           cake__dropped_is_covered(&theirs->context, &theirs->dropped, cake__change_context(change));
}

/* G_r as of HELLO is a subset of C_z: z is not behind, its WELCOME is merely old. */
static bool hello_was_acceptable(const cake__receiver_t *receiver)
{
    return cake__dropped_is_covered(&receiver->hello.summary.context, &receiver->hello.summary.dropped,
                                    &receiver->welcome.summary.context);
}

static bool sender_forgot_something(const cake__receiver_t *receiver, uint64_t epoch)
{
    if (receiver->mode == CAKE__MODE_JOIN ? CAKE__MUTANT(joinepoch) : CAKE__MUTANT(repairepoch))
        return false;
    return epoch != receiver->welcome.epoch;
}

static bool horizon_is_refused(const cake__receiver_t *receiver, const cake__change_t *change,
                               const cake__summary_t *theirs)
{
    return !CAKE__MUTANT(hdrift) && cake__orswot_is_too_far_ahead(receiver->set, change->wall_ms, theirs->horizon);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static void pick_mode(cake__receiver_t *receiver, const cake__change_t *change)
{
    bool is_joined = receiver->set->is_joined || change->joins;
    bool forgot_nothing = receiver_forgot_nothing_new(receiver, change);
    if (!is_joined) {
        /* Left-overs of a broken first session call for a repair. */
        bool is_empty = cake__context_is_empty(cake__change_context(change)); /* and so it was at HELLO */
        receiver->mode = is_empty || CAKE__MUTANT(joinpartial) ? CAKE__MODE_JOIN : CAKE__MODE_REPAIR;
        receiver->is_exclusive = true;
    } else if (!forgot_nothing && hello_was_acceptable(receiver)) {
        cake__receiver_abort(receiver, "the receiver dropped something while HELLO and WELCOME were on the way");
    } else if (forgot_nothing && sender_forgot_nothing_new(change, &receiver->welcome.summary)) {
        receiver->mode = CAKE__MODE_DELTA;
    } else {
        receiver->mode = CAKE__MODE_REPAIR;
        receiver->is_exclusive = true;
    }
}

/* A repair, and any session of a replica that has not joined, is the only inbound one. */
static bool may_start(const cake__receiver_t *receiver)
{
    const cake__list_t *inbound = &receiver->set->inbound;
    if (CAKE__MUTANT(shared))
        return true;
    if (receiver->is_exclusive)
        return cake__list_is_empty(inbound);
    CAKE_LIST_FOR_EACH(node, inbound)
    {
        if (CAKE_CONTAINER_OF(node, cake__receiver_t, inbound)->is_exclusive)
            return false;
    }
    return true;
}

static bool needs_comparison(const cake__receiver_t *receiver, const cake_record_t *record)
{
    return !record->is_tombstone && record->hlc <= receiver->welcome.summary.horizon;
}

/* From here on local writes and eager operations are above the horizon of z. */
static int start_repair(cake__receiver_t *receiver, const cake__change_t *change)
{
    const cake__context_t *own = cake__change_context(change);
    if (!CAKE__MUTANT(noclockraise))
        cake_clock_advance(receiver->set->clock, receiver->welcome.summary.horizon);
    receiver->must_compare = !sender_forgot_nothing_new(change, &receiver->welcome.summary);
    if (!receiver->must_compare)
        return 0;
    if (receiver->welcome.expects_compare)
        return cake__comparison_new(receiver->set, &receiver->hello.summary.context, own, &receiver->welcome,
                                    &receiver->comparison);
    /* Written since a HELLO that was empty: z does not wait for a comparison, so a new session has to. */
    if (!cake__context_is_empty(own))
        cake__receiver_abort(receiver, "the receiver began to write while HELLO was on the way");
    return 0;
}

/* What z referred to is the table of our HELLO, or this is none of our session. */
static bool resolve(const cake__receiver_t *receiver, cake__summary_t *summary)
{
    return cake__context_resolve(&summary->context, receiver->hello.summary.context.retired) == 0;
}

/* CAKE_ENOMEM ends the session too: half of a message must not be taken for the whole. */
static int fail(cake__receiver_t *receiver, int err)
{
    if (err != 0)
        cake__receiver_abort(receiver, "out of memory");
    return err;
}

int cake__receiver_on_welcome(cake__receiver_t *receiver, cake__change_t *change, const cake__welcome_t *welcome)
{
    if (receiver->phase != CAKE__PHASE_OPENING || welcome->session_id != receiver->hello.session_id)
        return 0;
    cake__summary_t summary = receiver->welcome.summary;
    int err = cake__summary_copy(&summary, &welcome->summary);
    receiver->welcome = *welcome;
    receiver->welcome.summary = summary;
    if (err != 0)
        return fail(receiver, err);
    receiver->has_welcome = true;
    attach(receiver, change);
    bool is_resolved = resolve(receiver, &receiver->welcome.summary);
    receiver->set->sends_whole_table =
        welcome->lacks_table ||
        (receiver->set->sends_whole_table &&
         !cake__retired_same(receiver->welcome.summary.context.retired, receiver->hello.summary.context.retired));
    if (welcome->lacks_table || !is_resolved) {
        cake__receiver_abort(receiver, "the sender has other retired actors");
    } else if (!welcome->is_joined) {
        cake__receiver_abort(receiver, "the sender has not joined");
    } else if (horizon_is_refused(receiver, change, &welcome->summary)) {
        cake__receiver_abort(receiver, "the horizon of the sender is too far ahead");
    } else {
        pick_mode(receiver, change);
        if (receiver->phase == CAKE__PHASE_OPENING && !may_start(receiver))
            cake__receiver_abort(receiver, "busy");
    }
    if (receiver->phase != CAKE__PHASE_OPENING)
        return 0;
    receiver->phase = CAKE__PHASE_RUNNING;
    receiver->is_opening = true;
    cake__list_push_back(&receiver->set->inbound, &receiver->inbound);
    return fail(receiver, receiver->mode == CAKE__MODE_REPAIR ? start_repair(receiver, change) : 0);
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

/* A repeated HELLO may have opened a second sender session, after a restart of z: only the token tells them apart. */
static bool is_mine(const cake__receiver_t *receiver, uint64_t session_id, uint64_t token)
{
    return receiver->has_welcome && session_id == receiver->hello.session_id &&
           (token == receiver->welcome.token || CAKE__MUTANT(notoken));
}

/* r may have dropped a tombstone above this operation that z has never seen. */
static bool is_ambiguous_here(const cake__receiver_t *receiver, const cake__change_t *change,
                              const cake_record_t *operation)
{
    cake_record_t current;
    return !CAKE__MUTANT(norestamp) && operation->hlc <= cake__change_summary(change)->horizon &&
           !cake__change_find(change, &operation->id, &current, NULL) && !receiver_forgot_nothing_new(receiver, change);
}

static int resolve_ambiguous_here(cake__change_t *change, const cake_record_t *operation, void *tag)
{
    if (!operation->is_tombstone)
        return cake__change_reissue(change, operation, tag, true);
    int err = cake__change_add_dot(change, operation->dot); /* dead either way: dropped on arrival */
    return err != 0 ? err : cake__change_note_dropped(change, operation);
}

/* CAKE_EDRIFT, CAKE_EINVAL: refused, and then the session must not finish. */
static int take(cake__receiver_t *receiver, cake__change_t *change, const cake_record_t *operation, void *tag)
{
    const cake__summary_t *own = cake__change_summary(change);
    cake_verdict_t verdict;
    if (!cake__dot_is_valid(operation->dot))
        return CAKE_EINVAL;
    if (receiver->mode == CAKE__MODE_REPAIR && !cake__context_contains(&own->context, operation->dot) &&
        !cake__orswot_is_too_far_ahead(receiver->set, change->wall_ms, operation->hlc) &&
        is_ambiguous_here(receiver, change, operation))
        return resolve_ambiguous_here(change, operation, tag);
    int err = cake__change_receive(change, operation, CAKE_SOURCE_SYNC, tag, &verdict);
    return err == 0 && verdict == CAKE_VERDICT_TOO_FAR_AHEAD && !CAKE__MUTANT(driftskip) ? CAKE_EDRIFT : err;
}

static int try_to_finish(cake__receiver_t *receiver, cake__change_t *change);

int cake__receiver_on_chunk(cake__receiver_t *receiver, cake__change_t *change, const cake__chunk_t *chunk)
{
    bool is_open = receiver->phase == CAKE__PHASE_RUNNING || (CAKE__MUTANT(stalechunk) && receiver->has_welcome);
    cake_dot_t index = {0, (uint64_t)chunk->index + 1};
    if (!is_open || !is_mine(receiver, chunk->session_id, chunk->token) ||
        cake__context_contains(&receiver->chunks_taken, index))
        return 0;
    attach(receiver, change);
    bool skips_check = CAKE__MUTANT(noG2) || CAKE__MUTANT(chunkcheck) || receiver->phase != CAKE__PHASE_RUNNING;
    if (receiver->mode != CAKE__MODE_REPAIR && !skips_check && !receiver_forgot_nothing_new(receiver, change)) {
        cake__receiver_abort(receiver, "the receiver dropped something while a chunk was on the way");
        return 0;
    }
    for (size_t i = 0; i < chunk->count; i++) {
        if (i + AHEAD < chunk->count)
            cake__table_prefetch(&receiver->set->table, &chunk->records[i + AHEAD].id);
        int err = take(receiver, change, &chunk->records[i], chunk->tags == NULL ? NULL : chunk->tags[i]);
        if (err == CAKE_ENOMEM)
            return fail(receiver, err);
        if (err != 0) {
            cake__receiver_abort(receiver, "an operation was refused");
            return 0;
        }
    }
    int err = cake__context_add(&receiver->chunks_taken, index);
    return err != 0 ? fail(receiver, err) : try_to_finish(receiver, change);
}

/* ---- the comparison of a repair (rule 5) ------------------------------------------------------------------------- */

static bool all_are_answered(const cake__receiver_t *receiver)
{
    return cake__context_base(&receiver->compares_answered, 0) >= receiver->compares_sent;
}

int cake__receiver_step(cake__receiver_t *receiver, bool *has_more)
{
    *has_more = false;
    if (receiver->phase != CAKE__PHASE_RUNNING || receiver->comparison == NULL || receiver->is_opening)
        return 0;
    return cake__comparison_step(receiver->comparison, all_are_answered(receiver), has_more);
}

int cake__receiver_next_compare(cake__receiver_t *receiver, size_t limit, bool *has, cake__compare_t *out)
{
    *has = false;
    if (receiver->phase != CAKE__PHASE_RUNNING || !receiver->welcome.expects_compare || receiver->last_compare_sent ||
        receiver->is_opening)
        return 0;
    *out = (cake__compare_t){
        .session_id = receiver->hello.session_id, .token = receiver->welcome.token, .index = receiver->compares_sent};
    int err = 0;
    if (receiver->comparison != NULL)
        err = cake__comparison_next(receiver->comparison, limit, all_are_answered(receiver), out, has);
    else
        *has = out->is_last = true; /* at least one: the sender waits for it */
    if (err != 0 || !*has)
        return err;
    if (CAKE__MUTANT(rangelast) && out->count > 0)
        out->is_last = true;
    receiver->compares_sent++;
    receiver->last_compare_sent = out->is_last;
    return 0;
}

/* z holds nothing at this id. If it has seen our record, it dropped something above it: kill. If not, it may have
 * dropped a tombstone that neither of us can order against our record: write it again, above all horizons. */
static int resolve_absent(cake__receiver_t *receiver, cake__change_t *change, const cake_id_t *id)
{
    cake_record_t record;
    void *tag;
    if (!cake__change_find(change, id, &record, &tag) || !needs_comparison(receiver, &record))
        return 0; /* replaced or dropped since the repair began */
    if (!cake__context_contains(&receiver->welcome.summary.context, record.dot))
        return CAKE__MUTANT(norestamp) ? 0 : cake__change_reissue(change, &record, tag, false);
    if (!cake__reserve(receiver->set->alloc, (void **)&receiver->candidates, receiver->candidate_count,
                       &receiver->candidate_capacity, sizeof *receiver->candidates))
        return CAKE_ENOMEM;
    receiver->candidates[receiver->candidate_count++] = (candidate_t){*id, record.dot};
    return 0;
}

int cake__receiver_on_compared(cake__receiver_t *receiver, cake__change_t *change, const cake__compared_t *reply)
{
    if (receiver->phase != CAKE__PHASE_RUNNING || !is_mine(receiver, reply->session_id, reply->token) ||
        reply->index >= receiver->compares_sent ||
        cake__context_contains(&receiver->compares_answered, (cake_dot_t){0, (uint64_t)reply->index + 1}))
        return 0;
    attach(receiver, change);
    /* A delta that z took for a repair, because the HELLO was old, needs no comparison: its FIN is checked. */
    if (receiver->mode != CAKE__MODE_DELTA && sender_forgot_something(receiver, reply->epoch)) {
        cake__receiver_abort(receiver, "the sender dropped something during the repair");
        return 0;
    }
    if (receiver->comparison != NULL)
        cake__comparison_take(receiver->comparison, reply);
    for (size_t i = 0; i < reply->absent_count; i++) {
        int err = resolve_absent(receiver, change, &reply->absent[i]);
        if (err == CAKE_ENOMEM)
            return fail(receiver, err);
        if (err != 0) {
            cake__receiver_abort(receiver, "the clock is too far ahead for a reissue");
            return 0;
        }
    }
    int err = cake__context_add(&receiver->compares_answered, (cake_dot_t){0, (uint64_t)reply->index + 1});
    return err != 0 ? fail(receiver, err) : try_to_finish(receiver, change);
}

static bool comparison_is_over(const cake__receiver_t *receiver)
{
    return receiver->comparison == NULL || (receiver->last_compare_sent && all_are_answered(receiver));
}

/* ---- finishing --------------------------------------------------------------------------------------------------- */

int cake__receiver_on_fin(cake__receiver_t *receiver, cake__change_t *change, const cake__fin_t *fin)
{
    if (receiver->phase != CAKE__PHASE_RUNNING || !is_mine(receiver, fin->session_id, fin->token))
        return 0;
    attach(receiver, change);
    cake__summary_t summary = receiver->fin.summary;
    int err = cake__summary_copy(&summary, &fin->summary);
    receiver->fin = *fin;
    receiver->fin.summary = summary;
    if (err != 0)
        return fail(receiver, err);
    receiver->has_fin = resolve(receiver, &receiver->fin.summary);
    if (!receiver->has_fin)
        cake__receiver_abort(receiver, "the sender has other retired actors");
    return try_to_finish(receiver, change);
}

/* Tombstones at or below H_z are dropped with the repair: z may have dropped what they are above. All chunks are
 * there, so none is added any more. Those of the set are listed by lane; some may have been erased by this change. */
static size_t list_tombstones(cake__receiver_t *receiver, cake__change_t *change, size_t limit, cake_id_t *ids)
{
    cake__table_t *table = &receiver->set->table;
    cake_hlc_t horizon = receiver->welcome.summary.horizon;
    size_t staged, count = 0;
    const cake__staged_t *puts = cake__change_puts(change, &staged);
    for (uint32_t i = 0; i < table->lane_count && count < limit; i++) {
        cake__sweep_t sweep = {.last = UINT64_MAX, .newest = horizon, .limit = limit - count, .ids = ids + count};
        cake__table_sweep(table, &table->lanes[i], &sweep);
        count += sweep.count;
    }
    for (size_t i = 0; i < staged && count < limit; i++) {
        if (puts[i].record.is_tombstone && puts[i].record.hlc <= horizon)
            ids[count++] = puts[i].record.id;
    }
    return count;
}

/* *is_done: none is left. */
static int drop_below_sender_horizon(cake__receiver_t *receiver, cake__change_t *change, bool *is_done)
{
    size_t erased, staged, dropped = 0, step = receiver->set->repair.step_drops;
    *is_done = true;
    if (!receiver->must_compare || CAKE__MUTANT(noblanket))
        return 0;
    (void)cake__change_erases(change, &erased);
    (void)cake__change_puts(change, &staged);
    size_t limit = step + 2 * staged + erased + 1; /* one more than the step, whatever the change hides */
    cake_id_t *ids = cake__malloc(receiver->set->alloc, limit * sizeof *ids);
    if (ids == NULL)
        return CAKE_ENOMEM;
    size_t count = list_tombstones(receiver, change, limit, ids);
    int err = 0;
    for (size_t i = 0; i < count && err == 0; i++) {
        cake_record_t record;
        bool is_there = cake__change_find(change, &ids[i], &record, NULL) && record.is_tombstone &&
                        record.hlc <= receiver->welcome.summary.horizon;
        *is_done = *is_done && (!is_there || dropped < step || CAKE__MUTANT(blanketpart));
        err = is_there && dropped < step ? cake__change_drop(change, &ids[i], 1) : 0;
        dropped += is_there;
    }
    cake__free(receiver->set->alloc, ids);
    return err;
}

/* Rule 5: the kills, the last of the drops and the join are one commit. Drops before it are as any others (rule 4). */
static int stage_repair(cake__receiver_t *receiver, cake__change_t *change, bool *is_done)
{
    int err = drop_below_sender_horizon(receiver, change, is_done);
    if (err != 0 || !*is_done)
        return err;
    err = cake__change_expect_erases(change, receiver->candidate_count);
    for (size_t i = 0; i < receiver->candidate_count && err == 0 && !CAKE__MUTANT(nokill); i++) {
        const candidate_t *candidate = &receiver->candidates[i];
        cake_record_t record;
        if (i + 2 * AHEAD < receiver->candidate_count)
            cake__table_prefetch(&receiver->set->table, &candidate[2 * AHEAD].id);
        if (i + AHEAD < receiver->candidate_count)
            cake__table_prefetch_record(&receiver->set->table, &candidate[AHEAD].id);
        bool is_same = cake__change_find(change, &candidate->id, &record, NULL) &&
                       record.dot.actor == candidate->dot.actor && record.dot.seq == candidate->dot.seq;
        err = is_same ? cake__change_erase(change, &candidate->id) : 0;
    }
    return err;
}

static bool all_chunks_arrived(const cake__receiver_t *receiver)
{
    return CAKE__MUTANT(fincount) || cake__context_base(&receiver->chunks_taken, 0) >= receiver->fin.chunk_count;
}

/* The end of a repair gets a change of its own where this one holds as much as a step may: a call is to be short. */
static bool has_enough_to_do(const cake__receiver_t *receiver, const cake__change_t *change)
{
    return receiver->mode == CAKE__MODE_REPAIR && !receiver->is_finishing &&
           change->put_count + receiver->candidate_count > receiver->set->repair.step_drops;
}

static int try_to_finish(cake__receiver_t *receiver, cake__change_t *change)
{
    const cake__summary_t *theirs = &receiver->fin.summary;
    if (receiver->phase != CAKE__PHASE_RUNNING || !receiver->has_fin || !all_chunks_arrived(receiver))
        return 0;
    if (horizon_is_refused(receiver, change, theirs)) {
        cake__receiver_abort(receiver, "the horizon of the sender is too far ahead");
        return 0;
    }
    bool skips_check = CAKE__MUTANT(noG2) || CAKE__MUTANT(fincheck);
    bool is_delta = receiver->mode == CAKE__MODE_DELTA;
    if (is_delta ? !skips_check && !sender_forgot_nothing_new(change, theirs)
                 : sender_forgot_something(receiver, receiver->fin.epoch)) {
        cake__receiver_abort(receiver, is_delta ? "the sender dropped something the receiver has not seen"
                                                : "the sender dropped something during the session");
        return 0;
    }
    if (!is_delta && !comparison_is_over(receiver))
        return 0;
    bool is_done = !has_enough_to_do(receiver, change);
    int err = is_done && receiver->mode == CAKE__MODE_REPAIR ? stage_repair(receiver, change, &is_done) : 0;
    receiver->is_finishing = !is_done;
    if (err == 0 && is_done)
        err = cake__change_join(change, theirs);
    if (err != 0 || !is_done)
        return fail(receiver, err);
    change->joins = change->joins || (!is_delta && !receiver->set->is_joined);
    close_with(receiver, CAKE__PHASE_FINISHED);
    return 0;
}

bool cake__receiver_is_finishing(const cake__receiver_t *receiver)
{
    return receiver->phase == CAKE__PHASE_RUNNING && receiver->is_finishing;
}

int cake__receiver_go_on(cake__receiver_t *receiver, cake__change_t *change)
{
    if (!cake__receiver_is_finishing(receiver))
        return 0;
    attach(receiver, change);
    return try_to_finish(receiver, change);
}
