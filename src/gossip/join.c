/* join.c: becoming a member, keeping one's node id, saying goodbye.
 *
 *      joiner -- JOIN (own record, padded to 1200 B) --> seed      no answer is larger than what it answers: a forged
 *      joiner <- WELCOME (members) --------------------- seed      sender's address is not flooded through us
 *      joiner <- HELD (the run that holds your id) ------ seed     when that id is alive on another address
 *      joiner -- CLAIM --> holder -- CLAIM --> joiner              both alive: one id, two processes; one gives way
 *      joiner -- CLAIM --> (nobody, three times)                   it was us before: raise the generation, JOIN again
 *
 * Who is asked decides, and its answer binds both: the one that runs longer stays. Only when both asked, each unasked, the
 * lower generation stays, then the lower nonce: both sides know these, so that both come to the same answer. */
#include "gossip/state.h"

#define JOIN_VERIFIED   0x01u
#define CLAIM_REPLY     0x01u
#define CLAIM_STAY      0x02u /* in a reply: its sender stays */
#define CLAIM_TRIES     3u
#define CLAIM_RETRY_MS  200u
#define WHO_INTERVAL_MS 100u
#define LEAVE_RETRY_MS  100u
#define LEAVE_BLIND     3u    /* times that seeds are told, of which no answer is expected */
#define FAST_SYNC_MS    2000u /* of quicker state gossip after joining */
#define JOIN_SEEDS      3u    /* tried at a time */

/* ---- joining --------------------------------------------------------------------------------------------------------------- */

void cake__gossip_join_to(cake__gossip_t *gossip, const cake_addr_t *to)
{
    cake__buf_t *frame = &gossip->frame;
    cake__gossip_frame_begin(gossip, frame, GOSSIP_JOIN);
    cake__put_u8(frame, gossip->is_verified ? JOIN_VERIFIED : 0);
    (void)cake__gossip_put_record(gossip, frame, gossip->self, true);
    size_t padding = frame->max - frame->len;
    uint8_t *zeroes = cake__buf_extend(frame, padding);
    if (zeroes != NULL)
        memset(zeroes, 0, padding);
    cake__gossip_frame_send(gossip, frame, to);
}

static bool is_member_addr(const cake__gossip_t *gossip, const cake_addr_t *addr)
{
    for (size_t i = 0; i < gossip->live_count; i++)
        if (cake_addr_equal(&gossip->live[i]->addr, addr))
            return true;
    return false;
}

void cake__gossip_join_run(cake__gossip_t *gossip)
{
    if (gossip->now_ns < gossip->next_join_ns || gossip->claim.is_active)
        return;
    const cake__gossip_params_t *params = &gossip->params;
    bool is_alone = !gossip->has_joined || gossip->live_count == 0;
    size_t start = cake__random_below(&gossip->random, gossip->seed_count), sent = 0;
    for (size_t i = 0; i < gossip->seed_count && sent < (is_alone ? JOIN_SEEDS : 1); i++) {
        const cake_addr_t *seed = &gossip->seeds[(start + i) % gossip->seed_count];
        if (is_member_addr(gossip, seed))
            continue;
        cake__gossip_join_to(gossip, seed);
        sent++;
    }
    uint64_t wait_ms = params->seed_period_ms;
    if (is_alone) {
        wait_ms = gossip->join_retry_ms;
        gossip->join_retry_ms = (uint32_t)cake__min_u64(2 * wait_ms, params->join_retry_max_ms);
    }
    gossip->next_join_ns = gossip->seed_count == 0 ? CAKE__GOSSIP_NEVER : gossip->now_ns + cake__gossip_ms(wait_ms);
}

static void set_joined(cake__gossip_t *gossip)
{
    if (!gossip->has_joined)
        gossip->next_sync_ns = gossip->now_ns + cake__gossip_ms(gossip->params.rumour_ms);
    gossip->has_joined = true;
    gossip->fast_until_ns = gossip->now_ns + cake__gossip_ms(FAST_SYNC_MS);
    gossip->next_sync_ns =
        cake__min_u64(gossip->next_sync_ns, gossip->now_ns + cake__gossip_ms(gossip->params.rumour_ms));
    gossip->next_join_ns = gossip->now_ns + cake__gossip_ms(gossip->params.seed_period_ms);
}

static void send_welcome(cake__gossip_t *gossip, const cake_addr_t *to, const cake__gossip_peer_t *joiner, size_t room)
{
    cake__buf_t *frame = &gossip->frame;
    size_t max = frame->max;
    cake__gossip_frame_begin(gossip, frame, GOSSIP_WELCOME);
    frame->max = cake__min_u64(max, room - GOSSIP_FRAME_CHECK);
    (void)cake__gossip_put_record(gossip, frame, gossip->self, true);
    if (joiner->status != CAKE__GOSSIP_ALIVE)
        (void)cake__gossip_put_record(gossip, frame, joiner, true); /* to be refuted */
    size_t start = cake__random_below(&gossip->random, gossip->live_count);
    for (size_t i = 0; i < gossip->live_count; i++) {
        const cake__gossip_peer_t *peer = gossip->live[(start + i) % gossip->live_count];
        if (peer != joiner && !cake__gossip_put_record(gossip, frame, peer, true))
            break;
    }
    frame->max = max;
    cake__gossip_frame_send(gossip, frame, to);
}

/* One record with identity, which has to be the frame's sender's own. */
static bool open_join(cake__gossip_frame_t *frame, uint8_t *flags, cake__gossip_record_t *record)
{
    *flags = cake__get_u8(&frame->body);
    (void)cake__gossip_get_record(&frame->body, record);
    return frame->body.err == 0 && *flags <= JOIN_VERIFIED && record->has_identity && !record->has_keys &&
           record->node_id == frame->from.node_id && record->generation == frame->from.generation &&
           memcmp(record->nonce, frame->from.nonce, sizeof record->nonce) == 0;
}

/* An id that is alive elsewhere is not given to another process before its holder was asked. */
static bool is_held(const cake__gossip_peer_t *peer, const cake__gossip_record_t *record, bool is_verified)
{
    if (peer == NULL || memcmp(peer->who.nonce, record->nonce, sizeof record->nonce) == 0)
        return false;
    if (record->generation <= peer->who.generation)
        return true;
    return cake__gossip_is_live(peer) && !cake_addr_equal(&peer->addr, &record->addr) && !is_verified;
}

void cake__gossip_on_join(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from)
{
    uint8_t flags;
    cake__gossip_record_t record;
    size_t room = cake__reader_left(&frame->body) + GOSSIP_FRAME_HEADER + GOSSIP_FRAME_CHECK;
    if (!open_join(frame, &flags, &record)) {
        gossip->counters.frames_malformed++;
        return;
    }
    if (record.node_id == gossip->self->who.node_id) {
        if (memcmp(record.nonce, gossip->self->who.nonce, sizeof record.nonce) != 0)
            cake__gossip_send_held(gossip, from, gossip->self);
        return;
    }
    cake__gossip_peer_t *peer = cake__gossip_peer_find(gossip, record.node_id);
    if (is_held(peer, &record, (flags & JOIN_VERIFIED) != 0)) {
        cake__gossip_send_held(gossip, from, peer);
        return;
    }
    cake__gossip_merge(gossip, &record, GOSSIP_FROM_JOIN);
    set_joined(gossip);
    peer = cake__gossip_peer_find(gossip, record.node_id);
    if (peer != NULL && peer->who.generation == record.generation) /* else: no memory, or too many members */
        send_welcome(gossip, from, peer, room);
}

void cake__gossip_on_welcome(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from)
{
    if (!cake__gossip_are_records(frame->body)) {
        gossip->counters.frames_malformed++;
        return;
    }
    cake__gossip_merge_all(gossip, frame->body, GOSSIP_FROM_SYNC);
    const cake__gossip_peer_t *sender = cake__gossip_peer_find(gossip, frame->from.node_id);
    if (gossip->is_over || sender == NULL || sender == gossip->self)
        return;
    set_joined(gossip);
    cake__gossip_notices_again(gossip); /* until now we may have been a stranger, who is not listened to */
    cake__gossip_sync_with(gossip, &sender->addr);
}

/* Whoever lives where we know a member to be does not know us: it came back while we were cut off, or has forgotten us.
 * No more than ten times a second: a forged WHO is not to make us flood anyone. */
void cake__gossip_on_who(cake__gossip_t *gossip, const cake_addr_t *from)
{
    bool is_known = false;
    for (size_t i = 0; i < gossip->member_count && !is_known; i++)
        is_known = gossip->members[i] != gossip->self && cake_addr_equal(&gossip->members[i]->addr, from);
    if (!is_known || gossip->now_ns < gossip->next_who_ns || gossip->claim.is_active || gossip->is_leaving)
        return;
    gossip->next_who_ns = gossip->now_ns + cake__gossip_ms(WHO_INTERVAL_MS);
    cake__gossip_join_to(gossip, from);
}

/* ---- one id, two runs ------------------------------------------------------------------------------------------------------- */

void cake__gossip_send_held(cake__gossip_t *gossip, const cake_addr_t *to, const cake__gossip_peer_t *holder)
{
    cake__gossip_frame_begin(gossip, &gossip->frame, GOSSIP_HELD);
    (void)cake__gossip_put_record(gossip, &gossip->frame, holder, true);
    cake__gossip_frame_send(gossip, &gossip->frame, to);
}

void cake__gossip_on_held(cake__gossip_t *gossip, cake__gossip_frame_t *frame)
{
    cake__gossip_record_t record;
    int err = cake__gossip_get_record(&frame->body, &record);
    if (err != 0 || !cake__reader_done(&frame->body) || !record.has_identity || record.has_keys) {
        gossip->counters.frames_malformed++;
        return;
    }
    if (record.node_id != gossip->self->who.node_id) {
        gossip->counters.frames_unknown++;
        return;
    }
    cake__gossip_who_t who = {.node_id = record.node_id, .generation = record.generation};
    memcpy(who.nonce, record.nonce, sizeof who.nonce);
    bool is_other = memcmp(who.nonce, gossip->self->who.nonce, sizeof who.nonce) != 0;
    bool is_lower = record.generation < gossip->self->who.generation;
    if (is_other && is_lower && !gossip->is_leaving)
        cake__gossip_claim_start(gossip, &who, &record.addr);
    else
        cake__gossip_merge(gossip, &record, GOSSIP_FROM_SYNC);
}

static void send_claim(cake__gossip_t *gossip, const cake_addr_t *to, const uint8_t *holder_nonce, uint8_t flags)
{
    cake__buf_t *frame = &gossip->frame;
    cake__gossip_frame_begin(gossip, frame, GOSSIP_CLAIM);
    cake__put_u8(frame, flags);
    cake__put_u64(frame, gossip->born);
    cake__put_u64(frame, gossip->now_ns - gossip->started_ns);
    cake__put_bytes(frame, holder_nonce, CAKE__GOSSIP_NONCE_LEN);
    cake__gossip_put_addr(frame, &gossip->self->addr);
    cake__gossip_frame_send(gossip, frame, to);
}

static void settle(cake__gossip_t *gossip)
{
    uint64_t held = gossip->claim.holder.generation;
    gossip->claim.is_active = false;
    gossip->is_verified = true;
    cake__gossip_raise_generation(gossip, held);
    gossip->next_join_ns = gossip->now_ns;
    gossip->join_retry_ms = gossip->params.join_retry_min_ms;
}

void cake__gossip_claim_start(cake__gossip_t *gossip, const cake__gossip_who_t *holder, const cake_addr_t *addr)
{
    cake__gossip_claim_t *claim = &gossip->claim;
    if (claim->is_active) {
        if (holder->generation > claim->holder.generation)
            claim->holder.generation = holder->generation;
        return;
    }
    *claim = (cake__gossip_claim_t){.is_active = true, .holder = *holder, .addr = *addr, .next_ns = gossip->now_ns};
    if (cake_addr_equal(addr, &gossip->self->addr))
        settle(gossip); /* the port is ours: whoever had it is gone */
}

void cake__gossip_claim_run(cake__gossip_t *gossip)
{
    cake__gossip_claim_t *claim = &gossip->claim;
    if (!claim->is_active || gossip->now_ns < claim->next_ns)
        return;
    if (claim->tries++ == CLAIM_TRIES) {
        settle(gossip);
        return;
    }
    claim->next_ns = gossip->now_ns + cake__gossip_ms(CLAIM_RETRY_MS);
    send_claim(gossip, &claim->addr, claim->holder.nonce, 0);
}

static void give_way(cake__gossip_t *gossip, const cake_addr_t *kept)
{
    cake__gossip_action_t *action = cake__gossip_act(gossip, CAKE__GOSSIP_DUPLICATE);
    if (action == NULL)
        return; /* the other insists until it was told */
    action->duplicate.node_id = gossip->self->who.node_id;
    action->duplicate.kept = *kept;
    action->duplicate.refused = gossip->self->addr;
    action->duplicate.is_self_refused = true;
    gossip->is_over = true;
}

static void keep(cake__gossip_t *gossip, const cake__gossip_who_t *other, const cake_addr_t *addr)
{
    gossip->claim.is_active = false;
    gossip->is_verified = true;
    cake__gossip_notice_heard(gossip, other->node_id, &gossip->self->addr, addr);
    if (other->generation >= gossip->self->who.generation)
        cake__gossip_raise_generation(gossip, other->generation);
}

void cake__gossip_on_claim(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from)
{
    uint8_t flags = cake__get_u8(&frame->body);
    uint64_t born = cake__get_u64(&frame->body), uptime_ns = cake__get_u64(&frame->body);
    const uint8_t *nonce = cake__get_bytes(&frame->body, CAKE__GOSSIP_NONCE_LEN);
    cake_addr_t addr;
    cake__gossip_get_addr(&frame->body, &addr);
    if (!cake__reader_done(&frame->body) || flags > (CLAIM_REPLY | CLAIM_STAY)) {
        gossip->counters.frames_malformed++;
        return;
    }
    const cake__gossip_who_t *own = &gossip->self->who, *other = &frame->from;
    int order = memcmp(own->nonce, other->nonce, sizeof own->nonce);
    bool is_asked = gossip->claim.is_active && memcmp(gossip->claim.holder.nonce, other->nonce, sizeof own->nonce) == 0;
    bool is_reply = (flags & CLAIM_REPLY) != 0, do_we_stay;
    if (other->node_id != own->node_id || order == 0 || memcmp(nonce, own->nonce, sizeof own->nonce) != 0 ||
        (is_reply && !is_asked) || gossip->is_leaving) {
        gossip->counters.frames_unknown++; /* meant for who was here before, or decided already */
        return;
    }
    if (is_reply)
        do_we_stay = (flags & CLAIM_STAY) == 0;
    else if (is_asked)
        do_we_stay = gossip->born != born ? gossip->born < born : order < 0;
    else
        do_we_stay = gossip->now_ns - gossip->started_ns >= uptime_ns;
    if (!is_reply)
        send_claim(gossip, from, other->nonce, CLAIM_REPLY | (do_we_stay ? CLAIM_STAY : 0));
    if (do_we_stay)
        keep(gossip, other, &addr);
    else
        give_way(gossip, &addr);
}

/* ---- leaving ------------------------------------------------------------------------------------------------------------------ */

void cake__gossip_leave_start(cake__gossip_t *gossip)
{
    if (gossip->is_leaving)
        return;
    gossip->is_leaving = true;
    gossip->leave_seq = ++gossip->seq;
    gossip->leave_until_ns = gossip->now_ns + cake__gossip_ms(gossip->params.leave_ms);
    gossip->leave_next_ns = gossip->now_ns;
    gossip->self->ended_ns = (int64_t)gossip->now_ns;
    gossip->self->status = CAKE__GOSSIP_LEFT;
    cake__gossip_peer_touch(gossip, gossip->self);
    cake__list_remove(&gossip->self->rumour_link);
}

static size_t leave_goal(const cake__gossip_t *gossip)
{
    return cake__min_u64(gossip->live_count, 2 * cake__gossip_log2(gossip->live_count + 2));
}

void cake__gossip_leave_acked(cake__gossip_t *gossip)
{
    gossip->leave_acks++;
}

/* Nobody has answered, but one of those that we asked may have heard us, and would hold us SUSPECT, then DEAD. */
static void tell_seeds(cake__gossip_t *gossip)
{
    for (size_t i = 0; i < gossip->seed_count; i++) {
        cake__gossip_frame_begin(gossip, &gossip->frame, GOSSIP_RUMOUR);
        (void)cake__gossip_put_record(gossip, &gossip->frame, gossip->self, true);
        cake__gossip_frame_send(gossip, &gossip->frame, &gossip->seeds[i]);
    }
    gossip->leave_told_seeds++;
}

void cake__gossip_leave_run(cake__gossip_t *gossip)
{
    size_t goal = leave_goal(gossip);
    bool is_told = gossip->live_count > 0 || gossip->seed_count == 0 || GOSSIP_MUTANT(seeds_not_told) ||
                   gossip->leave_told_seeds == LEAVE_BLIND;
    if ((is_told && gossip->leave_acks >= goal) || gossip->now_ns >= gossip->leave_until_ns) {
        gossip->is_over = cake__gossip_act(gossip, CAKE__GOSSIP_LEAVE_DONE) != NULL;
        return;
    }
    if (gossip->now_ns < gossip->leave_next_ns)
        return;
    gossip->leave_next_ns = gossip->now_ns + cake__gossip_ms(LEAVE_RETRY_MS);
    if (goal == 0) {
        tell_seeds(gossip);
        return;
    }
    size_t start = cake__random_below(&gossip->random, gossip->live_count);
    for (size_t i = 0; i < goal - gossip->leave_acks; i++) {
        const cake__gossip_peer_t *peer = gossip->live[(start + i) % gossip->live_count];
        cake__buf_t *frame = &gossip->frame;
        cake__gossip_frame_begin(gossip, frame, GOSSIP_PINGING);
        cake__put_u64(frame, gossip->leave_seq);
        cake__gossip_put_run(frame, &peer->who);
        (void)cake__gossip_put_record(gossip, frame, gossip->self, true);
        cake__gossip_frame_send(gossip, frame, &peer->addr);
    }
}
