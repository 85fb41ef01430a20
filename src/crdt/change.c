/* change.c: a change that is staged, made durable by the caller, and committed. See replica.h and set.h. */
#include "crdt/set.h"
#include "crdt/table_internal.h"

#define AHEAD 8u /* operations whose records are fetched ahead */

/* ---- the overlay ------------------------------------------------------------------------------------------------- */

static cake__overlay_entry_t *overlay_slot(const cake__change_t *change, const cake_id_t *id)
{
    size_t mask = change->overlay_capacity - 1;
    size_t at = cake__table_hash(&change->set->table, cake__id_pair(id)) & mask;
    while (change->overlay[at].state != CAKE__OVERLAY_EMPTY &&
           memcmp(change->overlay[at].id.bytes, id->bytes, sizeof id->bytes) != 0)
        at = (at + 1) & mask;
    return &change->overlay[at];
}

/* NULL: the change says nothing about this id. */
static cake__overlay_entry_t *overlay_find(const cake__change_t *change, const cake_id_t *id)
{
    if (change->overlay_count == 0)
        return NULL;
    cake__overlay_entry_t *entry = overlay_slot(change, id);
    return entry->state == CAKE__OVERLAY_EMPTY ? NULL : entry;
}

static bool overlay_reserve(cake__change_t *change, size_t more)
{
    size_t old_capacity = change->overlay_capacity, capacity = old_capacity == 0 ? 16 : old_capacity;
    cake__overlay_entry_t *old = change->overlay;
    while (2 * (change->overlay_count + more) > capacity)
        capacity *= 2;
    if (capacity == old_capacity)
        return true;
    cake__overlay_entry_t *entries = cake__calloc(change->set->alloc, capacity, sizeof *entries);
    if (entries == NULL)
        return false;
    change->overlay = entries;
    change->overlay_capacity = capacity;
    for (size_t i = 0; i < old_capacity; i++) {
        if (old[i].state != CAKE__OVERLAY_EMPTY)
            *overlay_slot(change, &old[i].id) = old[i];
    }
    cake__free(change->set->alloc, old);
    return true;
}

/* Room was reserved. */
static cake__overlay_entry_t *overlay_for(cake__change_t *change, const cake_id_t *id)
{
    cake__overlay_entry_t *entry = overlay_slot(change, id);
    if (entry->state == CAKE__OVERLAY_EMPTY) {
        *entry = (cake__overlay_entry_t){.id = *id, .state = CAKE__OVERLAY_ABSENT};
        change->overlay_count++;
    }
    return entry;
}

static int failed(cake__change_t *change)
{
    change->has_failed = true;
    return CAKE_ENOMEM;
}

/* ---- begin, end -------------------------------------------------------------------------------------------------- */

int cake__change_begin(cake_orswot_t *set, uint64_t wall_ms, cake__change_t **out)
{
    CAKE_ASSERT(set->change == NULL);
    *out = NULL;
    int err = cake__orswot_finish_loading(set);
    cake__change_t *change = err == 0 ? cake__calloc(set->alloc, 1, sizeof *change) : NULL;
    if (change == NULL)
        return err != 0 ? err : CAKE_ENOMEM;
    change->set = set;
    change->wall_ms = wall_ms;
    change->last_seq = set->last_seq;
    cake__summary_init(&change->summary, set->alloc);
    cake__list_init(&change->receivers);
    set->change = change;
    *out = change;
    return 0;
}

static void end(cake__change_t *change, bool is_committed)
{
    const cake_alloc_t *alloc = change->set->alloc;
    while (!cake__list_is_empty(&change->receivers))
        cake__receiver_change_ended(cake__list_pop_front(&change->receivers), is_committed);
    change->set->change = NULL;
    cake__summary_free(&change->summary);
    cake__free(alloc, change->puts);
    cake__free(alloc, change->erases);
    cake__free(alloc, change->overlay);
    cake__free(alloc, change->reissues);
    cake__free(alloc, change);
}

void cake__change_commit(cake__change_t *change)
{
    cake_orswot_t *set = change->set;
    CAKE_ASSERT(!change->has_failed && set->change == change);
    for (size_t i = 0; i < change->erase_count; i++) {
        if (i + 2 * AHEAD < change->erase_count)
            cake__table_prefetch(&set->table, &change->erases[i + 2 * AHEAD]);
        if (i + AHEAD < change->erase_count)
            cake__table_prefetch_record(&set->table, &change->erases[i + AHEAD]);
        uint32_t slot = cake__table_find(&set->table, &change->erases[i]);
        CAKE_ASSERT(slot != CAKE__SLOT_NONE);
        cake__table_erase(&set->table, slot);
    }
    if (change->erase_count > 0)
        cake__table_tidy(&set->table, change->erase_count, false);
    for (size_t i = 0; i < change->put_count; i++) {
        if (i + AHEAD < change->put_count)
            cake__table_prefetch(&set->table, &change->puts[i + AHEAD].record.id);
        cake__table_publish(&set->table, &change->puts[i].record, change->puts[i].is_new);
    }
    if (change->has_summary) {
        cake__summary_t swap = set->summary;
        set->summary = change->summary;
        change->summary = swap;
    }
    set->last_seq = change->last_seq;
    set->epoch += change->epoch_steps;
    set->is_joined = set->is_joined || change->joins;
    end(change, true);
}

void cake__change_abort(cake__change_t *change)
{
    if (change == NULL)
        return;
    for (size_t i = 0; i < change->put_count; i++)
        cake__table_unstage(&change->set->table, change->puts[i].record.dot);
    end(change, false);
}

int cake__change_end(cake__change_t *change, int err)
{
    if (err == 0)
        cake__change_commit(change);
    else
        cake__change_abort(change);
    return err;
}

/* ---- what it holds ----------------------------------------------------------------------------------------------- */

const cake__staged_t *cake__change_puts(const cake__change_t *change, size_t *count)
{
    *count = change->put_count;
    return change->puts;
}

const cake_id_t *cake__change_erases(const cake__change_t *change, size_t *count)
{
    *count = change->erase_count;
    return change->erases;
}

const cake__reissue_t *cake__change_reissues(const cake__change_t *change, size_t *count)
{
    *count = change->reissue_count;
    return change->reissues;
}

const cake__summary_t *cake__change_summary(const cake__change_t *change)
{
    return change->has_summary ? &change->summary : &change->set->summary;
}

const cake__context_t *cake__change_context(const cake__change_t *change)
{
    return &cake__change_summary(change)->context;
}

bool cake__change_is_dirty(const cake__change_t *change)
{
    return change->has_summary || change->joins;
}

bool cake__change_joins(const cake__change_t *change)
{
    return change->joins;
}

/* Where the change found the record of an id. */
typedef struct found {
    bool is_there; /* in the view of the change */
    bool has_row;  /* in the set, before the change */
    cake_record_t record;
    void *tag;
} found_t;

static void look_up(const cake__change_t *change, const cake_id_t *id, found_t *found)
{
    const cake__overlay_entry_t *entry = overlay_find(change, id);
    found->tag = NULL;
    if (entry == NULL) {
        found->is_there = found->has_row = cake__table_get(&change->set->table, id, &found->record);
        return;
    }
    found->has_row = entry->has_row;
    found->is_there = entry->state == CAKE__OVERLAY_PUT;
    if (found->is_there) {
        found->record = change->puts[entry->at].record;
        found->tag = change->puts[entry->at].tag;
    }
}

bool cake__change_find(const cake__change_t *change, const cake_id_t *id, cake_record_t *out, void **tag)
{
    found_t found;
    look_up(change, id, &found);
    if (found.is_there)
        *out = found.record;
    if (tag != NULL)
        *tag = found.tag;
    return found.is_there;
}

/* ---- staging ----------------------------------------------------------------------------------------------------- */

cake__summary_t *cake__change_own_summary(cake__change_t *change)
{
    if (!change->has_summary) {
        if (cake__summary_copy(&change->summary, &change->set->summary) != 0) {
            (void)failed(change);
            return NULL;
        }
        change->has_summary = true;
    }
    return &change->summary;
}

int cake__change_add_dot(cake__change_t *change, cake_dot_t dot)
{
    cake__summary_t *summary = cake__change_own_summary(change);
    if (summary == NULL || cake__context_add(&summary->context, dot) != 0)
        return failed(change);
    return 0;
}

static void remove_put(cake__change_t *change, size_t at)
{
    cake__table_unstage(&change->set->table, change->puts[at].record.dot);
    change->puts[at] = change->puts[--change->put_count];
    if (at < change->put_count)
        overlay_find(change, &change->puts[at].record.id)->at = (uint32_t)at;
}

static void remove_erase(cake__change_t *change, size_t at)
{
    change->erases[at] = change->erases[--change->erase_count];
    if (at < change->erase_count)
        overlay_find(change, &change->erases[at])->at = (uint32_t)at;
}

static int stage_put(cake__change_t *change, const cake_record_t *record, void *tag, bool has_row)
{
    const cake_alloc_t *alloc = change->set->alloc;
    if (!overlay_reserve(change, 1) ||
        !cake__reserve(alloc, (void **)&change->puts, change->put_count, &change->put_capacity, sizeof *change->puts))
        return failed(change);
    int err = cake__table_stage(&change->set->table, record, !has_row);
    CAKE_ASSERT(err != CAKE_EDUPLICATE); /* a dot that is not in C has no record */
    if (err != 0)
        return failed(change);
    cake__overlay_entry_t *entry = overlay_for(change, &record->id);
    entry->has_row = has_row;
    if (entry->state == CAKE__OVERLAY_PUT) {
        cake__table_unstage(&change->set->table, change->puts[entry->at].record.dot);
    } else {
        if (entry->state == CAKE__OVERLAY_ERASED)
            remove_erase(change, entry->at);
        entry->state = CAKE__OVERLAY_PUT;
        entry->at = (uint32_t)change->put_count++;
    }
    change->puts[entry->at] = (cake__staged_t){*record, tag, !has_row};
    return 0;
}

int cake__change_expect_erases(cake__change_t *change, size_t count)
{
    size_t capacity = change->erase_count + count;
    cake_id_t *erases = capacity <= change->erase_capacity
                            ? change->erases
                            : cake__realloc(change->set->alloc, change->erases, capacity * sizeof *change->erases);
    if (count == 0)
        return 0;
    if (erases == NULL)
        return failed(change);
    change->erases = erases;
    change->erase_capacity = (size_t)cake__max_u64(capacity, change->erase_capacity);
    return overlay_reserve(change, count) ? 0 : failed(change);
}

int cake__change_erase(cake__change_t *change, const cake_id_t *id)
{
    if (!overlay_reserve(change, 1) || !cake__reserve(change->set->alloc, (void **)&change->erases, change->erase_count,
                                                      &change->erase_capacity, sizeof *change->erases))
        return failed(change);
    cake__overlay_entry_t *entry = overlay_for(change, id);
    if (entry->state == CAKE__OVERLAY_PUT)
        remove_put(change, entry->at);
    CAKE_ASSERT(entry->state != CAKE__OVERLAY_ERASED); /* who erases has found a record */
    entry->has_row = cake__table_find(&change->set->table, id) != CAKE__SLOT_NONE;
    entry->state = entry->has_row ? CAKE__OVERLAY_ERASED : CAKE__OVERLAY_ABSENT;
    entry->at = (uint32_t)change->erase_count;
    if (entry->has_row)
        change->erases[change->erase_count++] = *id;
    return 0;
}

/* Add exactly one dot and keep the greater record: every source ends here. */
static int absorb(cake__change_t *change, const cake_record_t *record, void *tag, const found_t *found)
{
    if (!CAKE__MUTANT(noadvance))
        cake_clock_advance(change->set->clock, record->hlc);
    int err = cake__change_add_dot(change, record->dot);
    if (err != 0 || !cake__beats(record, found->is_there ? &found->record : NULL))
        return err;
    return stage_put(change, record, tag, found->has_row);
}

/* ---- rule 1: local writes; rule 2: operations from elsewhere ----------------------------------------------------- */

static int write_local(cake__change_t *change, const cake_id_t *id, bool is_tombstone, void *tag, cake_hlc_t keep_hlc,
                       cake_record_t *out)
{
    cake_orswot_t *set = change->set;
    cake_record_t record = {.id = *id, .is_tombstone = is_tombstone};
    found_t found;
    uint64_t known = cake__context_highest(cake__change_context(change), set->actor);
    if (known >= CAKE_SEQ_MAX || change->last_seq >= CAKE_SEQ_MAX)
        return CAKE_ETOOBIG;
    int err = cake__orswot_next_hlc(set, change->wall_ms, &record.hlc);
    if (err != 0)
        return err;
    record.hlc = keep_hlc != 0 ? keep_hlc : record.hlc;
    change->last_seq = cake__max_u64(known, change->last_seq) + 1;
    record.dot = (cake_dot_t){set->actor, change->last_seq};
    look_up(change, id, &found);
    err = absorb(change, &record, tag, &found);
    if (err == 0)
        *out = record;
    return err;
}

int cake__change_write(cake__change_t *change, const cake_id_t *id, bool is_tombstone, void *tag, cake_record_t *out)
{
    bool may_write = change->set->is_joined || change->joins || CAKE__MUTANT(nohold);
    return may_write ? write_local(change, id, is_tombstone, tag, 0, out) : CAKE_ENOTJOINED;
}

int cake__change_receive(cake__change_t *change, const cake_record_t *record, cake_source_t source, void *tag,
                         cake_verdict_t *verdict)
{
    found_t found;
    if (!cake__dot_is_valid(record->dot))
        return CAKE_EINVAL;
    look_up(change, &record->id, &found);
    *verdict = cake__orswot_verdict(change->set, change->wall_ms, cake__change_summary(change), record,
                                    found.is_there ? &found.record : NULL, source);
    /* The commit of this change may be what makes the set joined. */
    if (*verdict == CAKE_VERDICT_HELD && change->joins)
        *verdict = CAKE_VERDICT_BELOW_HORIZON;
    bool is_taken = *verdict == CAKE_VERDICT_NEWER || *verdict == CAKE_VERDICT_OLDER;
    return is_taken ? absorb(change, record, tag, &found) : 0;
}

/* ---- rule 4: dropping tombstones --------------------------------------------------------------------------------- */

int cake__change_note_dropped(cake__change_t *change, const cake_record_t *record)
{
    cake__summary_t *summary = cake__change_own_summary(change);
    if (summary == NULL || cake__limits_raise(&summary->dropped, record->dot.actor, record->dot.seq) != 0)
        return failed(change);
    summary->horizon = cake__max_u64(summary->horizon, record->hlc);
    cake_clock_advance(change->set->clock, record->hlc);
    change->epoch_steps++;
    return 0;
}

int cake__change_drop(cake__change_t *change, const cake_id_t *ids, size_t count)
{
    int err = 0;
    for (size_t i = 0; i < count && err == 0; i++) {
        cake_record_t record;
        if (!cake__change_find(change, &ids[i], &record, NULL) || !record.is_tombstone)
            continue;
        err = cake__change_note_dropped(change, &record);
        if (err == 0)
            err = cake__change_erase(change, &ids[i]);
    }
    return err;
}

static int purge_lane(cake__change_t *change, cake__lane_t *lane, const cake__purge_t *policy, cake_id_t *ids,
                      size_t *dropped)
{
    cake__sweep_t sweeps[2];
    int err = 0;
    uint32_t count = cake__stable_sweeps(cake__change_context(change), lane->actor, policy, change->wall_ms, sweeps);
    for (uint32_t i = 0; i < count && err == 0; i++) {
        sweeps[i].ids = ids;
        sweeps[i].limit = policy->max_count - *dropped;
        cake__table_sweep(&change->set->table, lane, &sweeps[i]);
        for (size_t k = 0; k < sweeps[i].count && err == 0; k++) {
            if (overlay_find(change, &ids[k]) != NULL) /* replaced, or dropped by the first sweep */
                continue;
            err = cake__change_drop(change, &ids[k], 1);
            (*dropped)++;
        }
    }
    return err;
}

int cake__change_purge(cake__change_t *change, const cake__purge_t *policy, size_t *dropped)
{
    cake__table_t *table = &change->set->table;
    *dropped = 0;
    size_t room = (size_t)cake__min_u64(policy->max_count, table->tombstones);
    if (room == 0)
        return 0;
    cake_id_t *ids = NULL;
    int err = 0;
    for (uint32_t i = 0; i < table->lane_count && *dropped < policy->max_count && err == 0; i++) {
        cake__sweep_t sweeps[2];
        cake__lane_t *lane = &table->lanes[i];
        if (lane->tombstones == 0 ||
            cake__stable_sweeps(cake__change_context(change), lane->actor, policy, change->wall_ms, sweeps) == 0)
            continue;
        if (ids == NULL)
            ids = cake__malloc(change->set->alloc, room * sizeof *ids);
        err = ids == NULL ? failed(change) : purge_lane(change, lane, policy, ids, dropped);
    }
    cake__free(change->set->alloc, ids);
    return err;
}

int cake__change_retire(cake__change_t *change, const uint64_t *living, size_t living_count,
                        const cake__context_t *const *peers, size_t peer_count, size_t *count)
{
    cake__summary_t *summary = cake__change_own_summary(change);
    int err =
        summary == NULL ? CAKE_ENOMEM : cake__summary_retire(summary, living, living_count, peers, peer_count, count);
    return err != 0 ? failed(change) : 0;
}

/* ---- rules 3 and 5: what a session does to the state ------------------------------------------------------------- */

int cake__change_reissue(cake__change_t *change, const cake_record_t *old, void *tag, bool came_from_sender)
{
    cake__reissue_t reissue = {.old = *old, .came_from_sender = came_from_sender};
    reissue.dot_was_seen = cake__context_contains(cake__change_context(change), old->dot);
    if (!cake__reserve(change->set->alloc, (void **)&change->reissues, change->reissue_count, &change->reissue_capacity,
                       sizeof *change->reissues))
        return failed(change);
    int err = write_local(change, &old->id, false, tag, CAKE__MUTANT(samehlc) ? old->hlc : 0, &reissue.made);
    if (err == 0)
        err = cake__change_add_dot(change, old->dot);
    if (err == 0)
        change->reissues[change->reissue_count++] = reissue;
    return err;
}

int cake__change_join(cake__change_t *change, const cake__summary_t *summary)
{
    cake__summary_t *own = cake__change_own_summary(change);
    if (own == NULL || cake__context_join(&own->context, &summary->context) != 0)
        return failed(change);
    if (!CAKE__MUTANT(noG) && cake__limits_join(&own->dropped, &summary->dropped) != 0)
        return failed(change);
    cake__summary_prune(own);
    if (!CAKE__MUTANT(noHjoin))
        own->horizon = cake__max_u64(own->horizon, summary->horizon);
    cake_clock_advance(change->set->clock, summary->horizon);
    change->epoch_steps++;
    return 0;
}
