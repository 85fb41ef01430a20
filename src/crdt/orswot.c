/* orswot.c: the operations of the set alone, which take effect at once. Where everything that a write needs is
 * there, it is done in place; what would need more memory in more than one spot goes through a change (change.c),
 * which can be given up. */
#include "crdt/set.h"

cake__actor_dots_t *cake__orswot_extendable(cake_orswot_t *set, cake_dot_t dot)
{
    cake__context_t *context = &set->summary.context;
    if (set->actor_hint >= context->count || context->actors[set->actor_hint].actor != dot.actor) {
        const cake__actor_dots_t *dots = cake__context_find(context, dot.actor);
        if (dots == NULL)
            return NULL;
        set->actor_hint = (uint32_t)(dots - context->actors);
    }
    cake__actor_dots_t *dots = &context->actors[set->actor_hint];
    return dots->range_count == 0 && dots->base + 1 == dot.seq ? dots : NULL;
}

static int write_in_change(cake_orswot_t *set, uint64_t wall_ms, const cake_id_t *id, bool is_tombstone,
                           cake_record_t *out)
{
    cake__change_t *change;
    int err = cake__change_begin(set, wall_ms, &change);
    if (err == 0)
        err = cake__change_write(change, id, is_tombstone, NULL, out);
    return cake__change_end(change, err);
}

static int write_now(cake_orswot_t *set, uint64_t wall_ms, const cake_id_t *id, bool is_tombstone, cake_record_t *out)
{
    cake_record_t made;
    CAKE_ASSERT(set->change == NULL);
    cake_record_t *record = out == NULL ? &made : out;
    cake_dot_t dot = {set->actor, set->last_seq + 1};
    cake__actor_dots_t *dots = cake__orswot_extendable(set, dot);
    if (dots == NULL || set->loading != NULL || !set->is_joined || dot.seq > CAKE_SEQ_MAX)
        return write_in_change(set, wall_ms, id, is_tombstone, record);
    *record = (cake_record_t){.id = *id, .dot = dot, .is_tombstone = is_tombstone};
    int err = cake__orswot_next_hlc(set, wall_ms, &record->hlc);
    if (err != 0)
        return err;
    err = cake__table_upsert(&set->table, record); /* it wins: its stamp is above everything held (I3) */
    if (err != 0)
        return err;
    dots->base = set->last_seq = dot.seq;
    return 0;
}

int cake_orswot_insert(cake_orswot_t *set, uint64_t wall_ms, const cake_id_t *id, cake_record_t *out)
{
    return write_now(set, wall_ms, id, false, out);
}

int cake_orswot_delete(cake_orswot_t *set, uint64_t wall_ms, const cake_id_t *id, cake_record_t *out)
{
    return write_now(set, wall_ms, id, true, out);
}

/* ---- operations from elsewhere ----------------------------------------------------------------------------------- */

cake_verdict_t cake_orswot_will_apply(const cake_orswot_t *set, uint64_t wall_ms, const cake_record_t *record,
                                      cake_source_t source)
{
    cake_record_t current;
    bool has_current = cake__table_get(&set->table, &record->id, &current);
    return cake__orswot_verdict(set, wall_ms, &set->summary, record, has_current ? &current : NULL, source);
}

static int receive_in_change(cake_orswot_t *set, uint64_t wall_ms, const cake_record_t *record, cake_source_t source,
                             cake_verdict_t *verdict)
{
    cake__change_t *change;
    int err = cake__change_begin(set, wall_ms, &change);
    if (err == 0)
        err = cake__change_receive(change, record, source, NULL, verdict);
    return cake__change_end(change, err);
}

int cake_orswot_receive(cake_orswot_t *set, uint64_t wall_ms, const cake_record_t *record, cake_source_t source,
                        cake_verdict_t *verdict)
{
    cake_verdict_t made;
    cake_record_t current;
    CAKE_ASSERT(set->change == NULL);
    verdict = verdict == NULL ? &made : verdict;
    if (!cake__dot_is_valid(record->dot) || source == CAKE_SOURCE_LOCAL || source == CAKE_SOURCE_SYNC)
        return CAKE_EINVAL;
    cake__actor_dots_t *dots = cake__orswot_extendable(set, record->dot);
    if (dots == NULL || set->loading != NULL)
        return receive_in_change(set, wall_ms, record, source, verdict);
    uint32_t slot = cake__table_find(&set->table, &record->id);
    if (slot != CAKE__SLOT_NONE)
        cake__table_read(&set->table, slot, &current);
    const cake_record_t *held = slot == CAKE__SLOT_NONE ? NULL : &current;
    *verdict = cake__orswot_verdict(set, wall_ms, &set->summary, record, held, source);
    int err = *verdict == CAKE_VERDICT_NEWER ? cake__table_put(&set->table, record, slot) : 0;
    if (err != 0 || (*verdict != CAKE_VERDICT_NEWER && *verdict != CAKE_VERDICT_OLDER))
        return err;
    cake_clock_advance(set->clock, record->hlc);
    dots->base = record->dot.seq;
    return 0;
}

/* ---- purge (rule 4) ---------------------------------------------------------------------------------------------- */

/* Sweeps one lane; g has room for its actor, so that nothing can fail half-way. */
static int purge_lane(cake_orswot_t *set, uint64_t actor, cake__sweep_t sweeps[2], uint32_t count, size_t limit,
                      size_t *dropped)
{
    uint64_t known = cake__limits_get(&set->summary.dropped, actor);
    int err = known == 0 ? cake__limits_reserve(&set->summary.dropped) : 0;
    for (uint32_t i = 0; i < count && err == 0; i++) {
        cake__lane_t *lane = cake__table_find_lane(&set->table, actor);
        if (lane == NULL)
            break;
        sweeps[i].limit = limit - *dropped;
        cake__table_sweep(&set->table, lane, &sweeps[i]);
        if (sweeps[i].count == 0)
            continue;
        *dropped += sweeps[i].count;
        err = cake__limits_raise(&set->summary.dropped, actor, sweeps[i].max_seq);
        CAKE_ASSERT(err == 0);
        set->summary.horizon = cake__max_u64(set->summary.horizon, sweeps[i].max_hlc);
        set->epoch++;
    }
    return err;
}

static int purge(cake_orswot_t *set, uint64_t wall_ms, const cake__purge_t *policy, size_t *dropped)
{
    int err = 0;
    /* Backwards, because a lane that becomes empty is given up. */
    for (uint32_t i = set->table.lane_count; i-- > 0 && *dropped < policy->max_count && err == 0;) {
        cake__sweep_t sweeps[2];
        const cake__lane_t *lane = &set->table.lanes[i];
        if (lane->tombstones == 0)
            continue;
        uint32_t count = cake__stable_sweeps(&set->summary.context, lane->actor, policy, wall_ms, sweeps);
        err = purge_lane(set, lane->actor, sweeps, count, policy->max_count, dropped);
    }
    return err;
}

int cake_orswot_purge(cake_orswot_t *set, uint64_t wall_ms, const cake_orswot_t *const *replicas, size_t count,
                      uint64_t min_age_ms, uint64_t hole_age_ms, size_t max_count, size_t *dropped)
{
    size_t made;
    CAKE_ASSERT(set->change == NULL);
    dropped = dropped == NULL ? &made : dropped;
    *dropped = 0;
    int err = cake__orswot_finish_loading(set);
    const cake__context_t **peers = err == 0 ? cake__malloc(set->alloc, count * sizeof(cake__context_t *)) : NULL;
    if (peers == NULL)
        return err != 0 ? err : CAKE_ENOMEM;
    for (size_t i = 0; i < count; i++)
        peers[i] = &replicas[i]->summary.context;
    cake__purge_t policy = {peers, count, min_age_ms, hole_age_ms, max_count};
    err = purge(set, wall_ms, &policy, dropped);
    cake__table_tidy(&set->table, *dropped, *dropped < max_count);
    cake__free(set->alloc, peers);
    return err;
}

/* ---- reading in order -------------------------------------------------------------------------------------------- */

void cake_orswot_statistics(const cake_orswot_t *set, cake_orswot_statistics_t *out)
{
    const cake__context_t *context = &set->summary.context;
    *out = (cake_orswot_statistics_t){.live = set->table.live,
                                      .tombstones = set->table.tombstones,
                                      .actors = context->count,
                                      .retired = context->retired == NULL ? 0 : context->retired->count,
                                      .bytes = sizeof *set + cake__table_bytes(&set->table),
                                      .horizon = set->summary.horizon};
    out->bytes += out->retired * sizeof context->retired->entries[0];
    out->bytes += context->capacity * sizeof *context->actors +
                  set->summary.dropped.capacity * sizeof *set->summary.dropped.items;
    for (uint32_t i = 0; i < context->count; i++) {
        out->exceptions += context->actors[i].range_count;
        out->bytes += context->actors[i].range_capacity * sizeof *context->actors[i].ranges;
    }
}

size_t cake_orswot_next(const cake_orswot_t *set, cake_orswot_cursor_t *cursor, cake_record_t *records, size_t limit)
{
    cake__table_cursor_t at = {(uint32_t)cursor->place[0], (uint32_t)cursor->place[1], (uint32_t)cursor->place[2]};
    size_t count = cake__table_next(&set->table, &at, records, limit);
    cursor->place[0] = at.lane;
    cursor->place[1] = at.entry;
    cursor->place[2] = at.skip;
    return count;
}

/* place[0]: the actor's index in C; place[1]: all seqs below it are done, 0 at first. */
size_t cake__orswot_unseen(const cake_orswot_t *set, const cake__context_t *seen, cake_orswot_cursor_t *cursor,
                           cake_record_t *records, size_t limit)
{
    const cake__context_t *have = &set->summary.context;
    size_t taken = 0;
    while (taken < limit) {
        cake__actor_dots_t spare, spare_theirs;
        uint32_t index = (uint32_t)cursor->place[0];
        const cake__actor_dots_t *dots = cake__context_actor(have, &index, &spare);
        if (dots == NULL || (index >= have->count && cake__retired_same(have->retired, seen->retired)))
            break;
        cursor->place[0] = index;
        const cake__actor_dots_t *theirs = cake__context_view(seen, dots->actor, &spare_theirs);
        cake__run_t gap;
        if (!cake__actor_dots_gap(dots, theirs, cake__max_u64(cursor->place[1], 1), &gap)) {
            cursor->place[0]++;
            cursor->place[1] = 0;
            continue;
        }
        size_t more = cake__table_select(&set->table, dots->actor, gap.first, gap.last, records + taken, limit - taken);
        bool is_full = more == limit - taken;
        taken += more;
        cursor->place[1] = is_full ? records[taken - 1].dot.seq + 1 : gap.last + 1;
    }
    return taken;
}

size_t cake_orswot_diff(const cake_orswot_t *set, const cake_orswot_t *other, cake_orswot_cursor_t *cursor,
                        cake_record_t *records, size_t limit)
{
    return cake__orswot_unseen(set, &other->summary.context, cursor, records, limit);
}

bool cake_orswot_has_seen(const cake_orswot_t *set, cake_dot_t dot)
{
    return cake__dot_is_valid(dot) && cake__context_contains(&set->summary.context, dot);
}

bool cake_orswot_is_in_sync(const cake_orswot_t *a, const cake_orswot_t *b)
{
    return cake__context_equal(&a->summary.context, &b->summary.context);
}
