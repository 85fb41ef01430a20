/* probe.c: who pings whom, and when silence becomes an accusation.
 *
 * Every ring orders the members that are not DEAD by a seeded hash of their ids; each node pings its successor in each
 * ring, so that everyone has about as many observers as there are rings, and a death gives its ring a new observer.
 * With no more members than rings everyone pings everyone.
 *
 *      t                   + 300 ms                                   + 1 s
 *      ping ----> (no answer) ping again, and 3 helpers ping for us -----> the next ping      and once more at + 600 ms
 *
 * Only answers count as evidence: a member that talks but cannot be reached is of no use to anyone. */
#include "gossip/state.h"

#define RETRIES_MAX 2u /* at 25% loss one would leave an accusation per node in two minutes, each told to everyone */

/* ---- rings ------------------------------------------------------------------------------------------------------- */

/* How far from this node going up ring; never 0 for another node. */
static uint64_t ring_distance(const cake__gossip_t *gossip, uint32_t ring, uint16_t node_id)
{
    uint64_t seed = cake__mix64(gossip->cluster_hash + ring + 1);
    uint64_t own = cake__mix64(seed ^ (gossip->self->who.node_id + UINT64_C(1)));
    return cake__mix64(seed ^ (node_id + UINT64_C(1))) - own;
}

/* edge_count when there is none */
static size_t edge_to(const cake__gossip_t *gossip, const cake__gossip_peer_t *peer)
{
    size_t i = 0;
    while (i < gossip->edge_count && gossip->edges[i].peer != peer)
        i++;
    return i;
}

bool cake__gossip_is_edge(const cake__gossip_t *gossip, const cake__gossip_peer_t *peer)
{
    return edge_to(gossip, peer) < gossip->edge_count;
}

void cake__gossip_edges_joined(cake__gossip_t *gossip, const cake__gossip_peer_t *peer)
{
    bool is_nearer = gossip->live_count <= gossip->params.rings + 1;
    for (uint32_t ring = 0; ring < gossip->params.rings && !is_nearer; ring++)
        is_nearer = ring_distance(gossip, ring, peer->who.node_id) < gossip->ring_distance[ring];
    gossip->are_edges_dirty |= is_nearer;
}

void cake__gossip_edges_left(cake__gossip_t *gossip, const cake__gossip_peer_t *peer)
{
    size_t at = edge_to(gossip, peer);
    bool was_edge = at < gossip->edge_count;
    if (was_edge)
        gossip->edges[at] = gossip->edges[--gossip->edge_count];
    if (GOSSIP_MUTANT(no_new_observers))
        return;
    gossip->are_edges_dirty |= was_edge || gossip->live_count <= gossip->params.rings;
}

static void want_edge(cake__gossip_peer_t **wanted, size_t *count, cake__gossip_peer_t *peer)
{
    for (size_t i = 0; i < *count; i++)
        if (wanted[i] == peer)
            return;
    CAKE_ASSERT(*count < GOSSIP_RINGS_MAX);
    wanted[(*count)++] = peer;
}

static size_t choose_edges(cake__gossip_t *gossip, cake__gossip_peer_t **wanted)
{
    size_t count = 0;
    for (uint32_t ring = 0; ring < gossip->params.rings; ring++) {
        cake__gossip_peer_t *nearest = NULL;
        gossip->ring_distance[ring] = UINT64_MAX;
        for (size_t i = 0; i < gossip->live_count; i++) {
            uint64_t distance = ring_distance(gossip, ring, gossip->live[i]->who.node_id);
            if (nearest != NULL && distance >= gossip->ring_distance[ring])
                continue;
            nearest = gossip->live[i];
            gossip->ring_distance[ring] = distance;
        }
        if (nearest != NULL)
            want_edge(wanted, &count, nearest);
    }
    for (size_t i = 0; gossip->live_count <= gossip->params.rings && i < gossip->live_count; i++)
        want_edge(wanted, &count, gossip->live[i]);
    return count;
}

static void rebuild_edges(cake__gossip_t *gossip)
{
    cake__gossip_peer_t *wanted[GOSSIP_RINGS_MAX];
    cake__gossip_edge_t edges[GOSSIP_RINGS_MAX];
    size_t count = choose_edges(gossip, wanted);
    for (size_t i = 0; i < count; i++) {
        size_t old = edge_to(gossip, wanted[i]);
        uint64_t jitter_ns = cake__random_below(&gossip->random, cake__gossip_ms(gossip->params.ping_period_ms) / 2);
        if (old < gossip->edge_count)
            edges[i] = gossip->edges[old];
        else
            edges[i] = (cake__gossip_edge_t){.peer = wanted[i],
                                             .evidence_ns = gossip->now_ns,
                                             .next_ping_ns = gossip->now_ns + jitter_ns,
                                             .retry_ns = CAKE__GOSSIP_NEVER,
                                             .mean_ms = gossip->params.ping_period_ms};
    }
    memcpy(gossip->edges, edges, count * sizeof edges[0]);
    gossip->edge_count = count;
    gossip->are_edges_dirty = false;
}

/* ---- evidence ---------------------------------------------------------------------------------------------------- */

static double square_root(double x)
{
    double root = x > 1 ? x / 2 : 1;
    for (int i = 0; i < 20; i++)
        root = (root + x / root) / 2;
    return root;
}

/* -log10 of the chance that a normal variable is further out than age: the logistic approximation of its tail. */
static double phi_of(const cake__gossip_t *gossip, const cake__gossip_edge_t *edge)
{
    const double least_deviation_ms = 100;
    double age_ms = (double)(gossip->now_ns - edge->evidence_ns) / 1e6;
    double variance_ms2 = edge->variance_ms2;
    if (variance_ms2 < least_deviation_ms * least_deviation_ms)
        variance_ms2 = least_deviation_ms * least_deviation_ms;
    double y = (age_ms - edge->mean_ms) / square_root(variance_ms2);
    return y <= 0 ? 0 : y * (1.5976 + 0.070566 * y * y) * 0.4342945;
}

double cake__gossip_edge_phi(const cake__gossip_t *gossip, const cake__gossip_peer_t *peer)
{
    size_t at = edge_to(gossip, peer);
    return at == gossip->edge_count ? 0 : phi_of(gossip, &gossip->edges[at]);
}

uint64_t cake__gossip_edge_silent_ms(const cake__gossip_t *gossip, const cake__gossip_peer_t *peer)
{
    size_t at = edge_to(gossip, peer);
    return at == gossip->edge_count ? 0 : (gossip->now_ns - gossip->edges[at].evidence_ns) / GOSSIP_NS_PER_MS;
}

void cake__gossip_edge_alive(cake__gossip_t *gossip, const cake__gossip_peer_t *peer)
{
    size_t at = edge_to(gossip, peer);
    if (at < gossip->edge_count)
        gossip->edges[at].evidence_ns = gossip->now_ns;
}

static void take_evidence(cake__gossip_t *gossip, cake__gossip_edge_t *edge)
{
    const double weight = 1.0 / 16;
    double interval_ms = (double)(gossip->now_ns - edge->evidence_ns) / 1e6;
    double deviation_ms = interval_ms - edge->mean_ms;
    if (edge->samples++ > 0 && interval_ms > gossip->params.ping_period_ms / 4) {
        edge->mean_ms += weight * deviation_ms;
        edge->variance_ms2 = (1 - weight) * (edge->variance_ms2 + weight * deviation_ms * deviation_ms);
    }
    edge->evidence_ns = gossip->now_ns;
}

void cake__gossip_edges_discount(cake__gossip_t *gossip, uint64_t gap_ns)
{
    for (size_t i = 0; i < gossip->edge_count; i++) {
        cake__gossip_edge_t *edge = &gossip->edges[i];
        edge->evidence_ns = cake__min_u64(edge->evidence_ns + gap_ns, gossip->now_ns);
        edge->next_ping_ns = gossip->now_ns;
        edge->retry_ns = CAKE__GOSSIP_NEVER;
        edge->is_waiting = false;
    }
}

/* ---- pings ------------------------------------------------------------------------------------------------------- */

void cake__gossip_put_accusation(cake__gossip_t *gossip, cake__buf_t *frame, const cake__gossip_peer_t *peer)
{
    if (peer != NULL && (peer->status == CAKE__GOSSIP_SUSPECT || peer->status == CAKE__GOSSIP_DEAD))
        (void)cake__gossip_put_record(gossip, frame, peer, false);
}

static void send_ping(cake__gossip_t *gossip, const cake__gossip_peer_t *peer, uint64_t seq)
{
    cake__buf_t *frame = &gossip->frame;
    cake__gossip_frame_begin(gossip, frame, GOSSIP_PINGING);
    cake__put_u64(frame, seq);
    cake__gossip_put_run(frame, &peer->who);
    cake__gossip_put_accusation(gossip, frame, peer);
    cake__gossip_rumours_append(gossip, frame);
    gossip->counters.pings++;
    cake__gossip_frame_send(gossip, frame, cake__gossip_dest(peer));
}

void cake__gossip_ping_now(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    send_ping(gossip, peer, ++gossip->seq);
}

static void retry_ping(cake__gossip_t *gossip, cake__gossip_edge_t *edge)
{
    cake__gossip_peer_t *helpers[GOSSIP_RINGS_MAX];
    size_t count = cake__gossip_draw(gossip, edge->peer, helpers, gossip->params.helpers);
    bool is_last = ++edge->retries == RETRIES_MAX;
    edge->retry_ns = is_last ? CAKE__GOSSIP_NEVER : gossip->now_ns + cake__gossip_ms(gossip->params.ping_timeout_ms);
    send_ping(gossip, edge->peer, edge->seq);
    for (size_t i = 0; i < count; i++) {
        cake__buf_t *frame = &gossip->frame;
        cake__gossip_frame_begin(gossip, frame, GOSSIP_PING_REQ);
        cake__put_u64(frame, edge->seq);
        cake__gossip_put_run(frame, &edge->peer->who);
        gossip->counters.pings_indirect++;
        cake__gossip_frame_send(gossip, frame, cake__gossip_dest(helpers[i]));
    }
}

static void next_ping(cake__gossip_t *gossip, cake__gossip_edge_t *edge)
{
    uint64_t period_ns = cake__gossip_ms(gossip->params.ping_period_ms);
    gossip->counters.pings_lost += edge->is_waiting;
    edge->previous_seq = edge->seq;
    edge->seq = ++gossip->seq;
    edge->is_waiting = true;
    edge->retries = 0;
    edge->retry_ns = gossip->now_ns + cake__gossip_ms(gossip->params.ping_timeout_ms);
    edge->next_ping_ns = gossip->now_ns + period_ns / 20 * 19 + cake__random_below(&gossip->random, period_ns / 10);
    send_ping(gossip, edge->peer, edge->seq);
}

static bool is_silent(const cake__gossip_t *gossip, const cake__gossip_edge_t *edge)
{
    return gossip->now_ns >= edge->evidence_ns + cake__gossip_ms(gossip->params.suspect_after_ms);
}

static size_t count_silent_for(const cake__gossip_t *gossip, uint64_t age_ns)
{
    size_t silent = 0;
    for (size_t i = 0; i < gossip->edge_count; i++)
        silent += gossip->now_ns >= gossip->edges[i].evidence_ns + age_ns;
    return silent;
}

/* Edges fall silent one by one, and when we are cut off the first would be accused before half of them are. With
 * half of them on their way there, wait until it is known which of both it is. */
static bool may_be_isolated(const cake__gossip_t *gossip)
{
    size_t quiet = count_silent_for(gossip, cake__gossip_ms(gossip->params.suspect_after_ms) / 3 * 2);
    return !gossip->is_isolated && quiet > 1 && 2 * quiet >= gossip->edge_count;
}

/* Half of what we ping is silent: more likely it is us. Others will judge, and we hold back; but not for ever, for it
 * may be true. With one other member there is nobody else to judge. */
static void watch_self(cake__gossip_t *gossip)
{
    size_t silent = count_silent_for(gossip, cake__gossip_ms(gossip->params.suspect_after_ms));
    bool is_isolated = silent > 0 && 2 * silent >= gossip->edge_count && (silent > 1 || gossip->edge_count == 1);
    if (is_isolated == gossip->is_isolated)
        return;
    gossip->is_isolated = is_isolated;
    if (!is_isolated) {
        gossip->withhold_until_ns = 0;
    } else if (gossip->edge_count > 1 && gossip->now_ns >= gossip->withhold_again_ns &&
               !GOSSIP_MUTANT(no_withholding)) {
        gossip->withhold_until_ns = gossip->now_ns + cake__gossip_ms(gossip->params.withhold_ms);
        gossip->withhold_again_ns = gossip->withhold_until_ns + cake__gossip_ms(gossip->params.withhold_ms) * 5;
    }
    cake__gossip_retime_suspects(gossip);
}

void cake__gossip_edges_run(cake__gossip_t *gossip)
{
    if (gossip->are_edges_dirty)
        rebuild_edges(gossip);
    watch_self(gossip);
    for (size_t i = 0; i < gossip->edge_count; i++) {
        cake__gossip_edge_t *edge = &gossip->edges[i];
        if (edge->is_waiting && gossip->now_ns >= edge->retry_ns)
            retry_ping(gossip, edge);
        if (gossip->now_ns >= edge->next_ping_ns)
            next_ping(gossip, edge);
        if (is_silent(gossip, edge) && cake__gossip_may_accuse(gossip) &&
            (GOSSIP_MUTANT(no_withholding) || !may_be_isolated(gossip)) &&
            phi_of(gossip, edge) >= gossip->params.suspect_phi)
            cake__gossip_accuse(gossip, edge->peer);
    }
}

uint64_t cake__gossip_edges_due(const cake__gossip_t *gossip)
{
    const uint64_t look_again_ns = cake__gossip_ms(100);
    uint64_t due_ns = gossip->are_edges_dirty ? gossip->now_ns : CAKE__GOSSIP_NEVER;
    for (size_t i = 0; i < gossip->edge_count; i++) {
        const cake__gossip_edge_t *edge = &gossip->edges[i];
        due_ns = cake__min_u64(due_ns, edge->next_ping_ns);
        if (edge->is_waiting)
            due_ns = cake__min_u64(due_ns, edge->retry_ns);
        uint64_t look_ns = edge->evidence_ns + cake__gossip_ms(gossip->params.suspect_after_ms);
        if (look_ns <= gossip->now_ns && edge->peer->is_accused_by_us)
            continue;
        due_ns = cake__min_u64(due_ns, look_ns > gossip->now_ns ? look_ns : gossip->now_ns + look_again_ns);
    }
    return due_ns;
}

/* ---- what comes in ----------------------------------------------------------------------------------------------- */

static void send_ack(cake__gossip_t *gossip, cake__gossip_dest_t to, uint64_t seq, const cake__gossip_who_t *run,
                     const cake__gossip_peer_t *peer, bool is_accused)
{
    cake__buf_t *frame = &gossip->frame;
    cake__gossip_frame_begin(gossip, frame, GOSSIP_ACK);
    cake__put_u64(frame, seq);
    cake__gossip_put_run(frame, run);
    /* Our own record refutes: the one who pings because it suspects us, or holds us for DEAD, is the first to need
     * it. A death that the answer does not lift would be told again and again. */
    bool is_news = gossip->self->refutation > 0 && cake__list_is_linked(&gossip->self->rumour_link);
    if (is_news || (is_accused && !GOSSIP_MUTANT(ack_does_not_refute)))
        (void)cake__gossip_put_record(gossip, frame, gossip->self, true);
    cake__gossip_put_accusation(gossip, frame, peer);
    cake__gossip_rumours_append(gossip, frame);
    cake__gossip_frame_send(gossip, frame, to);
}

static bool open_ping(cake__gossip_t *gossip, cake__gossip_frame_t *frame, uint64_t *seq, cake__gossip_who_t *run)
{
    *seq = cake__get_u64(&frame->body);
    cake__gossip_get_run(&frame->body, run);
    if (frame->body.err == 0 && cake__gossip_are_records(frame->body))
        return true;
    gossip->counters.frames_malformed++;
    return false;
}

static bool accuses_self(const cake__gossip_t *gossip, cake__reader_t body)
{
    cake__gossip_record_t record;
    while (cake__reader_left(&body) > 0) {
        int err = cake__gossip_get_record(&body, &record);
        CAKE_ASSERT(err == 0); /* the body was walked before */
        if (!record.is_notice && record.node_id == gossip->self->who.node_id && record.status != CAKE__GOSSIP_ALIVE)
            return true;
    }
    return false;
}

void cake__gossip_on_ping(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from,
                          cake__gossip_peer_t *sender)
{
    uint64_t seq;
    cake__gossip_who_t target;
    if (!open_ping(gossip, frame, &seq, &target))
        return;
    uint16_t sender_id = sender->who.node_id;
    bool is_accused = accuses_self(gossip, frame->body);
    cake__gossip_merge_all(gossip, frame->body, GOSSIP_FROM_RUMOUR);
    if (gossip->is_over)
        return;
    sender = cake__gossip_peer_find(gossip, sender_id); /* what was merged may have replaced it */
    cake__gossip_dest_t to = cake__gossip_sender(frame, from);
    if (cake__gossip_same_run(&target, &gossip->self->who)) {
        send_ack(gossip, to, seq, &gossip->self->who, sender, is_accused);
        return;
    }
    gossip->counters.frames_unknown++; /* meant for us before our generation was raised */
    cake__gossip_frame_begin(gossip, &gossip->frame, GOSSIP_RUMOUR);
    (void)cake__gossip_put_record(gossip, &gossip->frame, gossip->self, true);
    cake__gossip_frame_send(gossip, &gossip->frame, to);
}

static bool answers_edge(cake__gossip_t *gossip, uint64_t seq, const cake__gossip_who_t *run)
{
    for (size_t i = 0; i < gossip->edge_count; i++) {
        cake__gossip_edge_t *edge = &gossip->edges[i];
        if (!cake__gossip_same_run(run, &edge->peer->who) || (seq != edge->seq && seq != edge->previous_seq))
            continue;
        if (seq == edge->seq && edge->is_waiting) {
            edge->is_waiting = false;
            edge->retry_ns = CAKE__GOSSIP_NEVER;
        } else if (seq == edge->seq) {
            return true; /* a second answer to one ping is no new evidence */
        }
        take_evidence(gossip, edge);
        return true;
    }
    return false;
}

static void answer_relay(cake__gossip_t *gossip, uint64_t seq, const cake__gossip_who_t *run)
{
    for (size_t i = 0; i < GOSSIP_RELAYS; i++) {
        cake__gossip_relay_t *relay = &gossip->relays[i];
        if (relay->seq != seq || relay->expires_ns <= gossip->now_ns || !cake__gossip_same_run(run, &relay->target))
            continue;
        relay->expires_ns = 0;
        send_ack(gossip, relay->origin, relay->origin_seq, run, NULL, false);
        return;
    }
}

void cake__gossip_on_ack(cake__gossip_t *gossip, cake__gossip_frame_t *frame, cake__gossip_peer_t *sender)
{
    uint64_t seq;
    cake__gossip_who_t run;
    if (!open_ping(gossip, frame, &seq, &run))
        return;
    bool is_direct = cake__gossip_same_run(&run, &sender->who);
    cake__gossip_merge_all(gossip, frame->body, GOSSIP_FROM_RUMOUR);
    if (gossip->is_over)
        return;
    if (gossip->is_leaving && seq == gossip->leave_seq)
        cake__gossip_leave_acked(gossip);
    else if (!answers_edge(gossip, seq, &run) && is_direct)
        answer_relay(gossip, seq, &run);
}

void cake__gossip_on_ping_req(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from,
                              const cake__gossip_peer_t *sender)
{
    uint64_t seq;
    cake__gossip_who_t target;
    if (!open_ping(gossip, frame, &seq, &target))
        return;
    const cake__gossip_peer_t *peer = cake__gossip_peer_find(gossip, target.node_id);
    if (peer == NULL || peer == gossip->self || !cake__gossip_same_run(&target, &peer->who)) {
        gossip->counters.frames_unknown++;
        return;
    }
    cake__gossip_relay_t *relay = &gossip->relays[gossip->next_relay++ % GOSSIP_RELAYS];
    *relay = (cake__gossip_relay_t){
        .seq = ++gossip->seq,
        .origin_seq = seq,
        .expires_ns = gossip->now_ns + cake__gossip_ms(gossip->params.ping_period_ms),
        .origin = {*from, cake__gossip_tag(sender->who.nonce), 0},
        .target = target,
    };
    send_ping(gossip, peer, relay->seq);
}
