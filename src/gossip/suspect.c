/* suspect.c: from an accusation to a verdict.
 *
 *      ALIVE --accused--> SUSPECT --time is up, last ping over RPC fails--> DEAD --15 min--> forgotten
 *        ^                   |                                               |
 *        +---- its subject raises its refutation counter and says so --------+
 *
 * How long a suspicion lasts for an accuser falls from 9 to 3 s with independent confirmations (Lifeguard, section
 * IV.C). A death that is only told is never believed of a member held ALIVE: it makes it SUSPECT first, so that after a
 * partition the dead of the other side have time to answer. */
#include "gossip/state.h"

bool cake__gossip_may_accuse(const cake__gossip_t *gossip)
{
    return gossip->now_ns >= gossip->quiet_until_ns && gossip->now_ns >= gossip->withhold_until_ns;
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

/* log(c+1) / log(k+1) */
static double confirmed_part(uint32_t c, uint32_t k)
{
    static const double logs[] = {0, 0.6931, 1.0986, 1.3863, 1.6094};
    return c >= k ? 1 : logs[c] / logs[k];
}

static uint64_t suspicion_ms(const cake__gossip_t *gossip, const cake__gossip_peer_t *peer)
{
    const cake__gossip_params_t *params = &gossip->params;
    uint64_t time_ms = params->suspicion_others_ms;
    if (peer->is_accused_by_us) {
        size_t live = gossip->live_count + 1, others = live > 2 ? live - 2 : 0;
        uint32_t k = (uint32_t)cake__min_u64(params->confirmations, others);
        uint32_t c = peer->accuser_count > 0 ? peer->accuser_count - 1u : 0;
        double range_ms = (double)(params->suspicion_max_ms - params->suspicion_min_ms);
        time_ms = params->suspicion_max_ms - (uint64_t)(range_ms * confirmed_part(c, k));
    }
    if (peer->is_declared)
        time_ms = cake__min_u64(time_ms, params->suspicion_min_ms);
    if (peer->is_declared_rumour)
        time_ms = cake__min_u64(time_ms, params->suspicion_min_ms / 2);
    return time_ms;
}

static void set_verdict(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    peer->verdict_ns = peer->suspect_since_ns + cake__gossip_ms(suspicion_ms(gossip, peer));
    cake__gossip_peer_retime(gossip, peer);
}

static uint64_t suspect_due(const cake__gossip_t *gossip, const cake__gossip_peer_t *peer)
{
    uint64_t last_ping_ns = cake__gossip_ms(gossip->params.last_ping_ms), due_ns = peer->verdict_ns;
    if (!peer->is_declared_rumour && peer->last_ping_token == 0)
        due_ns = due_ns > last_ping_ns ? due_ns - last_ping_ns : 0;
    else if (peer->last_ping_token != 0 && !peer->has_last_ping_failed)
        due_ns = cake__max_u64(due_ns, peer->last_ping_ns + last_ping_ns);
    return cake__max_u64(due_ns, cake__max_u64(gossip->quiet_until_ns, gossip->withhold_until_ns));
}

static uint64_t after_end(const cake__gossip_peer_t *peer, uint64_t ms)
{
    int64_t at = peer->ended_ns + (int64_t)cake__gossip_ms(ms);
    return at < 0 ? 0 : (uint64_t)at;
}

static uint64_t retention_ms(const cake__gossip_t *gossip, const cake__gossip_peer_t *peer)
{
    return peer->status == CAKE__GOSSIP_LEFT ? gossip->params.left_retention_ms : gossip->params.dead_retention_ms;
}

uint64_t cake__gossip_peer_due(const cake__gossip_t *gossip, const cake__gossip_peer_t *peer)
{
    if (peer == gossip->self)
        return CAKE__GOSSIP_NEVER;
    if (!cake__gossip_is_live(peer))
        return after_end(peer, retention_ms(gossip, peer) / 10 * (peer->is_fading ? 10 : 9));
    uint64_t due_ns = peer->is_degraded ? peer->degraded_until_ns : CAKE__GOSSIP_NEVER;
    if (peer->status == CAKE__GOSSIP_SUSPECT)
        due_ns = cake__min_u64(due_ns, suspect_due(gossip, peer));
    return due_ns;
}

/* ---- accusations ------------------------------------------------------------------------------------------------- */

void cake__gossip_clear_suspicion(cake__gossip_peer_t *peer)
{
    peer->accuser_count = 0;
    peer->is_accused_by_us = peer->is_declared = peer->is_declared_rumour = false;
    peer->last_ping_token = 0;
    peer->has_last_ping_failed = false;
    if (cake__gossip_is_live(peer))
        peer->is_fading = false;
}

static bool add_accuser(cake__gossip_peer_t *peer, uint16_t node_id)
{
    for (size_t i = 0; i < peer->accuser_count; i++)
        if (peer->accusers[i] == node_id)
            return false;
    if (peer->accuser_count == GOSSIP_ACCUSERS_MAX || node_id == peer->who.node_id)
        return false;
    peer->accusers[peer->accuser_count++] = node_id;
    return true;
}

static void start_suspicion(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    cake__gossip_clear_suspicion(peer);
    peer->suspect_since_ns = gossip->now_ns;
    peer->verdict_ns = gossip->now_ns + cake__gossip_ms(gossip->params.suspicion_others_ms);
    gossip->counters.suspicions++;
    cake__gossip_peer_set_status(gossip, peer, CAKE__GOSSIP_SUSPECT);
}

void cake__gossip_accuse(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    CAKE_ASSERT(cake__gossip_is_live(peer) && peer != gossip->self);
    if (peer->is_accused_by_us)
        return;
    if (peer->status == CAKE__GOSSIP_ALIVE)
        start_suspicion(gossip, peer);
    peer->is_accused_by_us = true;
    (void)add_accuser(peer, gossip->self->who.node_id);
    set_verdict(gossip, peer);
    cake__gossip_rumour(gossip, peer);
}

/* A claim about an earlier refutation is void; one about a later shows that its subject was alive in between. */
static bool take_refutation(cake__gossip_t *gossip, cake__gossip_peer_t *peer, uint32_t refutation)
{
    if ((refutation < peer->refutation && !GOSSIP_MUTANT(old_accusations)) || peer->status == CAKE__GOSSIP_LEFT)
        return false;
    if (refutation > peer->refutation) {
        peer->refutation = refutation;
        cake__gossip_clear_suspicion(peer);
        cake__gossip_peer_set_status(gossip, peer, CAKE__GOSSIP_ALIVE);
        cake__gossip_peer_touch(gossip, peer);
    }
    return peer->status != CAKE__GOSSIP_DEAD;
}

void cake__gossip_hear_suspect(cake__gossip_t *gossip, cake__gossip_peer_t *peer, const cake__gossip_record_t *record,
                               cake__gossip_source_t source)
{
    if (!take_refutation(gossip, peer, record->refutation))
        return;
    bool is_news = peer->status == CAKE__GOSSIP_ALIVE;
    if (is_news)
        start_suspicion(gossip, peer);
    for (size_t i = 0; i < record->accuser_count; i++)
        is_news |= add_accuser(peer, record->accusers[i]);
    set_verdict(gossip, peer);
    if (is_news && source != GOSSIP_FROM_SYNC)
        cake__gossip_rumour(gossip, peer);
}

void cake__gossip_hear_dead(cake__gossip_t *gossip, cake__gossip_peer_t *peer, const cake__gossip_record_t *record,
                            cake__gossip_source_t source)
{
    if (!take_refutation(gossip, peer, record->refutation))
        return;
    bool is_news = peer->status == CAKE__GOSSIP_ALIVE;
    if (is_news && GOSSIP_MUTANT(dead_at_once)) {
        cake__gossip_peer_set_status(gossip, peer, CAKE__GOSSIP_DEAD);
        cake__gossip_rumour(gossip, peer);
        return;
    }
    if (is_news)
        start_suspicion(gossip, peer);
    peer->is_declared = true;
    peer->is_declared_rumour |= source == GOSSIP_FROM_RUMOUR;
    set_verdict(gossip, peer);
    if (!is_news)
        return;
    cake__gossip_ping_now(gossip, peer); /* it is told, and can answer, before anybody acts on it */
    if (source == GOSSIP_FROM_RUMOUR)
        cake__gossip_rumour(gossip, peer);
}

/* ---- verdicts ---------------------------------------------------------------------------------------------------- */

static void ping_last(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    cake__gossip_action_t *action = cake__gossip_act(gossip, CAKE__GOSSIP_PING);
    peer->last_ping_token = ++gossip->seq;
    peer->last_ping_ns = gossip->now_ns;
    peer->has_last_ping_failed = false;
    gossip->counters.pings_last++;
    if (action == NULL) { /* no memory: the ping counts as sent, and will be missing at the verdict: ask again then */
        peer->last_ping_token = 0;
        peer->verdict_ns = gossip->now_ns + cake__gossip_ms(gossip->params.suspicion_min_ms);
    } else {
        action->ping.to = peer->addr;
        action->ping.who = peer->who;
        action->ping.token = peer->last_ping_token;
    }
    cake__gossip_peer_retime(gossip, peer);
}

static void judge(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    if (!peer->is_declared_rumour && peer->last_ping_token == 0 && !GOSSIP_MUTANT(no_last_ping)) {
        ping_last(gossip, peer);
        return;
    }
    gossip->counters.deaths_declared += !peer->is_declared;
    cake__gossip_peer_set_status(gossip, peer, CAKE__GOSSIP_DEAD);
    cake__gossip_rumour(gossip, peer);
}

/* The subject lives, but has not refuted: whatever keeps the accusation from it, it is not condemned for it. */
static void acquit(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    bool was_ours = peer->is_accused_by_us;
    cake__gossip_clear_suspicion(peer);
    peer->is_accused_by_us = was_ours;
    if (was_ours)
        (void)add_accuser(peer, gossip->self->who.node_id);
    peer->suspect_since_ns = gossip->now_ns;
    set_verdict(gossip, peer);
    cake__gossip_edge_alive(gossip, peer);
    cake__gossip_ping_now(gossip, peer);
}

void cake__gossip_last_pinged(cake__gossip_t *gossip, uint64_t token, bool is_answered,
                              const cake__gossip_who_t *answer)
{
    if (cake__gossip_claim_pinged(gossip, token, is_answered, answer))
        return;
    for (size_t i = 0; i < gossip->live_count && token != 0; i++) {
        cake__gossip_peer_t *peer = gossip->live[i];
        if (peer->status != CAKE__GOSSIP_SUSPECT || peer->last_ping_token != token)
            continue;
        if (is_answered && cake__gossip_same_run(answer, &peer->who)) {
            acquit(gossip, peer);
            return;
        }
        peer->has_last_ping_failed = true; /* nobody there, or another run: that one will tell of itself */
        cake__gossip_peer_retime(gossip, peer);
        return;
    }
}

void cake__gossip_peer_timer(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    uint64_t now_ns = gossip->now_ns;
    if (peer->is_degraded && now_ns >= peer->degraded_until_ns) {
        peer->is_degraded = false;
        peer->is_updated = true;
        cake__gossip_peer_changed(gossip, peer);
    }
    if (peer->status == CAKE__GOSSIP_SUSPECT && now_ns >= suspect_due(gossip, peer)) {
        judge(gossip, peer);
    } else if (!cake__gossip_is_live(peer) && now_ns >= cake__gossip_peer_due(gossip, peer)) {
        if (peer->is_fading) {
            cake__gossip_peer_forget(gossip, peer);
            return;
        }
        peer->is_fading = true;
        cake__list_remove(&peer->rumour_link);
    }
    cake__gossip_peer_touch(gossip, peer);
}

void cake__gossip_retime_suspects(cake__gossip_t *gossip)
{
    for (size_t i = 0; i < gossip->live_count && gossip->suspect_count > 0; i++)
        cake__gossip_peer_retime(gossip, gossip->live[i]);
}

void cake__gossip_discount_suspicions(cake__gossip_t *gossip, uint64_t gap_ns)
{
    for (size_t i = 0; i < gossip->live_count; i++) {
        cake__gossip_peer_t *peer = gossip->live[i];
        if (peer->status != CAKE__GOSSIP_SUSPECT)
            continue;
        peer->suspect_since_ns += gap_ns;
        peer->verdict_ns += gap_ns;
        peer->last_ping_token = 0; /* its answer may have been lost in the pause */
        peer->has_last_ping_failed = false;
        cake__gossip_peer_retime(gossip, peer);
    }
}

/* ---- flapping ---------------------------------------------------------------------------------------------------- */

void cake__gossip_note_refutation(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    const cake__gossip_params_t *params = &gossip->params;
    uint64_t now_ns = gossip->now_ns, window_ns = cake__gossip_ms(params->flap_window_ms);
    gossip->counters.refutations_seen++;
    memmove(peer->refuted_ns + 1, peer->refuted_ns, sizeof peer->refuted_ns - sizeof peer->refuted_ns[0]);
    peer->refuted_ns[0] = now_ns + 1;
    uint64_t oldest_ns = peer->refuted_ns[params->flap_count - 1];
    if (oldest_ns == 0 || now_ns - oldest_ns > window_ns || GOSSIP_MUTANT(flaps_do_not_count))
        return;
    bool is_calm = now_ns > peer->degraded_until_ns + window_ns;
    uint64_t span_ms = is_calm ? params->degraded_min_ms : (uint64_t)peer->degraded_span_ms * 2;
    peer->degraded_span_ms = (uint32_t)cake__min_u64(span_ms, params->degraded_max_ms);
    peer->degraded_until_ns = now_ns + cake__gossip_ms(peer->degraded_span_ms);
    peer->is_updated |= !peer->is_degraded;
    peer->is_degraded = true;
    cake__gossip_peer_changed(gossip, peer);
    cake__gossip_peer_retime(gossip, peer);
}
