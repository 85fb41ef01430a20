/* set.c: the set between changes: its making, loading, reading, and the verdict and stability rules that both
 * changes and immediate operations follow. */
#include "crdt/set.h"

/* ---- create and destroy ------------------------------------------------------------------------------------------ */

int cake_orswot_new(const cake_orswot_config_t *given, cake_orswot_t **out)
{
    cake_orswot_config_t config;
    *out = NULL;
    if (given == NULL || cake__options_copy(&config, sizeof config, given) != 0 || config.actor == 0)
        return CAKE_EINVAL;
    const cake_alloc_t *alloc = cake__alloc_or_default(config.alloc);
    cake_orswot_t *set = cake__calloc(alloc, 1, sizeof *set);
    if (set == NULL)
        return CAKE_ENOMEM;
    set->alloc = alloc;
    set->actor = config.actor;
    set->is_joined = config.is_joined;
    cake_clock_init(&set->own_clock, 0, 0);
    set->clock = config.clock != NULL ? config.clock : &set->own_clock;
    cake__table_init(&set->table, alloc, config.actor);
    cake__summary_init(&set->summary, alloc);
    cake__list_init(&set->inbound);
    set->repair = CAKE__REPAIR_LIMITS;
    *out = set;
    return 0;
}

void cake_orswot_free(cake_orswot_t *set)
{
    if (set == NULL)
        return;
    CAKE_ASSERT(set->change == NULL && cake__list_is_empty(&set->inbound));
    cake__loading_free(set);
    cake__table_free(&set->table);
    cake__summary_free(&set->summary);
    cake__free(set->alloc, set);
}

/* ---- loading (rule 6); records: loading.c ------------------------------------------------------------------------ */

int cake__orswot_load_summary(cake_orswot_t *set, const cake__summary_t *summary)
{
    CAKE_ASSERT(set->change == NULL);
    int err = cake__context_join(&set->summary.context, &summary->context);
    if (err == 0)
        err = cake__limits_join(&set->summary.dropped, &summary->dropped);
    if (err != 0)
        return err;
    cake__summary_prune(&set->summary);
    set->summary.horizon = cake__max_u64(set->summary.horizon, summary->horizon);
    cake_clock_advance(set->clock, summary->horizon);
    return cake__orswot_finish_loading(set);
}

void cake__orswot_set_joined(cake_orswot_t *set, bool is_joined)
{
    set->is_joined = is_joined;
}

void cake__orswot_take_actor(cake_orswot_t *set, uint64_t actor)
{
    CAKE_ASSERT(actor != 0 && set->change == NULL);
    set->actor = actor;
    set->last_seq = 0;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

const cake__summary_t *cake__orswot_summary(const cake_orswot_t *set)
{
    return &set->summary;
}

uint64_t cake__orswot_epoch(const cake_orswot_t *set)
{
    return set->epoch;
}

bool cake__orswot_is_joined(const cake_orswot_t *set)
{
    return set->is_joined;
}

bool cake_orswot_get(const cake_orswot_t *set, const cake_id_t *id, cake_record_t *out)
{
    return cake__table_get(&set->table, id, out);
}

size_t cake_orswot_live(const cake_orswot_t *set)
{
    return (size_t)set->table.live;
}

size_t cake_orswot_tombstones(const cake_orswot_t *set)
{
    return (size_t)set->table.tombstones;
}

uint64_t cake_orswot_fingerprint(const cake_orswot_t *set)
{
    return set->table.fingerprint;
}

cake_hlc_t cake__orswot_oldest_tombstone(const cake_orswot_t *set)
{
    cake_hlc_t oldest = 0;
    for (uint32_t i = 0; i < set->table.lane_count; i++) {
        cake_hlc_t hlc = cake__lane_oldest_tombstone(&set->table, &set->table.lanes[i]);
        if (hlc != 0 && (oldest == 0 || hlc < oldest))
            oldest = hlc;
    }
    return oldest;
}

/* ---- rules 1 and 2 ----------------------------------------------------------------------------------------------- */

bool cake__dot_is_valid(cake_dot_t dot)
{
    return dot.seq >= 1 && dot.seq <= CAKE_SEQ_MAX;
}

/* The total order of writes. Within one actor it agrees with the order of seq. */
bool cake__beats(const cake_record_t *operation, const cake_record_t *current)
{
    if (current == NULL || operation->hlc != current->hlc)
        return current == NULL || operation->hlc > current->hlc;
    if (CAKE__MUTANT(notie))
        return false;
    if (operation->dot.actor != current->dot.actor)
        return operation->dot.actor > current->dot.actor;
    return operation->dot.seq > current->dot.seq;
}

bool cake__orswot_is_too_far_ahead(const cake_orswot_t *set, uint64_t wall_ms, cake_hlc_t hlc)
{
    return !CAKE__MUTANT(nodrift) && cake_clock_is_too_far_ahead(set->clock, wall_ms, hlc);
}

int cake__orswot_next_hlc(cake_orswot_t *set, uint64_t wall_ms, cake_hlc_t *out)
{
#ifdef CAKE_MUTANTS
    if (CAKE__MUTANT(wrapcount)) {
        cake_hlc_t last = cake_clock_last(set->clock), wall = cake_hlc_from_parts(wall_ms, 0);
        *out = cake__max_u64(wall, (last & ~UINT64_C(0xffff)) | ((last + 1) & 0xffff));
        return cake_clock_is_too_far_ahead(set->clock, wall_ms, *out) ? CAKE_EDRIFT : 0;
    }
#endif
    return cake_clock_now(set->clock, wall_ms, out);
}

uint64_t cake__orswot_eager_floor(const cake_orswot_t *set, uint64_t horizon)
{
    uint64_t floor = horizon;
    CAKE_LIST_FOR_EACH(node, &set->inbound)
    {
        if (!CAKE__MUTANT(nofloor))
            floor = cake__max_u64(floor, cake__receiver_floor(node));
    }
    return floor;
}

cake_verdict_t cake__orswot_verdict(const cake_orswot_t *set, uint64_t wall_ms, const cake__summary_t *summary,
                                    const cake_record_t *operation, const cake_record_t *current, cake_source_t source)
{
    if (!CAKE__MUTANT(seen) && cake__context_contains(&summary->context, operation->dot))
        return CAKE_VERDICT_SEEN;
    if (cake__orswot_is_too_far_ahead(set, wall_ms, operation->hlc))
        return CAKE_VERDICT_TOO_FAR_AHEAD;
    if (source != CAKE_SOURCE_SYNC) {
        if (!set->is_joined && !CAKE__MUTANT(nohold))
            return CAKE_VERDICT_HELD;
        if (operation->hlc <= cake__orswot_eager_floor(set, summary->horizon) && !CAKE__MUTANT(noH))
            return CAKE_VERDICT_BELOW_HORIZON;
    }
    return cake__beats(operation, current) ? CAKE_VERDICT_NEWER : CAKE_VERDICT_OLDER;
}

/* ---- rule 4: stability ------------------------------------------------------------------------------------------- */

uint64_t cake__stable_seq(const cake__context_t *context, uint64_t actor, const cake__purge_t *policy)
{
    cake__actor_dots_t spare, theirs;
    const cake__actor_dots_t *dots = cake__context_view(context, actor, &spare);
    uint64_t stable = UINT64_MAX;
    CAKE_ASSERT(dots != NULL); /* I2: every record's dot is in C */
    for (size_t i = 0; i < policy->peer_count; i++) {
        cake__run_t gap;
        if (policy->peers[i] == NULL)
            continue;
        if (CAKE__MUTANT(exactstable))
            stable = cake__min_u64(stable, cake__context_highest(policy->peers[i], actor));
        else if (cake__actor_dots_gap(dots, cake__context_view(policy->peers[i], actor, &theirs), 1, &gap))
            stable = cake__min_u64(stable, gap.first - 1);
    }
    return stable;
}

/* The newest stamp of that age; false when nothing can be so old. */
static bool newest_of_age(uint64_t wall_ms, uint64_t age_ms, cake_hlc_t *newest)
{
    if (age_ms > wall_ms)
        return false;
    *newest = cake_hlc_from_parts(wall_ms - age_ms, UINT16_MAX);
    return true;
}

uint32_t cake__stable_sweeps(const cake__context_t *context, uint64_t actor, const cake__purge_t *policy,
                             uint64_t wall_ms, cake__sweep_t sweeps[2])
{
    uint64_t stable = cake__stable_seq(context, actor, policy), base = cake__context_base(context, actor);
    uint32_t count = 0;
    cake_hlc_t newest;
    if (stable == 0 || !newest_of_age(wall_ms, policy->min_age_ms, &newest))
        return 0;
    /* A hole that filled later would enter G after the fact: it holds up what is above it, for a while. */
    uint64_t without_holes =
        CAKE__MUTANT(noholewait) || CAKE__MUTANT(exactstable) ? stable : cake__min_u64(stable, base);
    if (without_holes > 0)
        sweeps[count++] = (cake__sweep_t){.last = without_holes, .newest = newest, .stops_early = true};
    bool may_have_holes = !CAKE__MUTANT(holeforever) && stable > without_holes &&
                          newest_of_age(wall_ms, cake__max_u64(policy->min_age_ms, policy->hole_age_ms), &newest);
    if (may_have_holes)
        sweeps[count++] = (cake__sweep_t){.last = stable, .newest = newest, .stops_early = true};
    return count;
}
