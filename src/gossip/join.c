/* join.c: becoming a member, keeping one's node id, saying goodbye.
 *
 *      joiner -- JOIN (own record, padded to 1200 B) --> seed      no answer is larger than what it answers: a forged
 *      joiner <- CHALLENGE (cookie) --------------------- seed     sender's address is not flooded through us
 *      joiner -- JOIN with the cookie -----------------> seed      a caught JOIN sent again makes nobody a member
 *      joiner <- WELCOME (members) --------------------- seed
 *      joiner <- HELD (the run that holds your id) ------ seed     when that id is alive on another address
 *      joiner -- CLAIM --> holder -- CLAIM --> joiner              both alive: one id, two processes; one gives way
 *      joiner -- CLAIM --> (nobody, three times, nor over RPC)     it was us before: raise the generation, JOIN again
 *
 * Who is asked decides, and its answer binds both: the one that runs longer stays. Only when both asked, each
 * unasked, the lower generation stays, then the lower nonce: both know these, and come to the same answer. */
#include <xxhash.h>

#include "gossip/state.h"

#define JOIN_VERIFIED   0x01u
#define CLAIM_REPLY     0x01u
#define CLAIM_STAY      0x02u /* in a reply: its sender stays */
#define CLAIM_TRIES     3u
#define CLAIM_TRIES_MAX 25u /* of a holder that answers over RPC: then it is asked there again */
#define CLAIM_RETRY_MS  200u
#define WHO_INTERVAL_MS 100u
#define LEAVE_RETRY_MS  100u
#define LEAVE_BLIND     3u    /* times that seeds are told, of which no answer is expected */
#define FAST_SYNC_MS    2000u /* of quicker state gossip after joining */
#define JOIN_SEEDS      3u    /* tried at a time */
#define COOKIE_NS       (UINT64_C(10000) * GOSSIP_NS_PER_MS) /* accepted in this span of time and in the next */
#define CLAIM_ADDR      19u /* bytes, whatever the family: the answer to a claim is as large as the claim */

/* ---- joining ----------------------------------------------------------------------------------------------------- */

void cake__gossip_join_to(cake__gossip_t *gossip, const cake_addr_t *to, uint32_t tag, uint64_t cookie)
{
    cake__buf_t *frame = &gossip->frame;
    cake__gossip_frame_begin(gossip, frame, GOSSIP_JOIN);
    gossip->asked[gossip->next_asked++ % GOSSIP_JOINS] = (cake__gossip_asked_t){gossip->frame_seq, *to};
    cake__put_u8(frame, gossip->is_verified ? JOIN_VERIFIED : 0);
    cake__put_u64(frame, cookie);
    (void)cake__gossip_put_record(gossip, frame, gossip->self, true);
    size_t padding = frame->max - frame->len;
    uint8_t *zeroes = cake__buf_extend(frame, padding);
    if (zeroes != NULL)
        memset(zeroes, 0, padding);
    cake__gossip_frame_send(gossip, frame, (cake__gossip_dest_t){*to, tag, 0});
}

/* The JOIN that this is the answer to: the first that comes is taken, and only it. */
static bool was_asked(cake__gossip_t *gossip, uint64_t seq, cake_addr_t *addr)
{
    for (size_t i = 0; i < GOSSIP_JOINS; i++) {
        if (seq == 0 || gossip->asked[i].seq != seq)
            continue;
        *addr = gossip->asked[i].addr;
        gossip->asked[i].seq = 0;
        return true;
    }
    return false;
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
        const cake__gossip_seed_t *seed = &gossip->seeds[(start + i) % gossip->seed_count];
        if (is_member_addr(gossip, &seed->addr))
            continue;
        cake__gossip_join_to(gossip, &seed->addr, seed->tag, seed->cookie);
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

/* What a joiner has to say again: only who gets answers at that address, and now, can know it. Nothing is kept. */
static uint64_t cookie_of(const cake__gossip_t *gossip, const cake__gossip_who_t *who, const cake_addr_t *from,
                          uint64_t span)
{
    uint64_t cookie = XXH3_64bits_withSeed(who->nonce, sizeof who->nonce, gossip->cookie_secret);
    cookie = cake__mix64(cookie ^ XXH3_64bits_withSeed(from->ip, sizeof from->ip, gossip->cookie_secret));
    cookie = cake__mix64(cookie ^ (span << 16) ^ from->port);
    return cookie == 0 ? 1 : cookie;
}

static bool is_cookie_good(const cake__gossip_t *gossip, const cake__gossip_frame_t *frame, const cake_addr_t *from,
                           uint64_t cookie)
{
    uint64_t span = gossip->now_ns / COOKIE_NS;
    bool is_ours = cookie == cookie_of(gossip, &frame->from, from, span) ||
                   (span > 0 && cookie == cookie_of(gossip, &frame->from, from, span - 1));
    return is_ours && frame->to == cake__gossip_tag(gossip->self->who.nonce);
}

static void send_challenge(cake__gossip_t *gossip, const cake__gossip_frame_t *join, const cake_addr_t *from)
{
    cake__gossip_frame_begin(gossip, &gossip->frame, GOSSIP_CHALLENGE);
    cake__put_u64(&gossip->frame, join->seq);
    cake__put_u64(&gossip->frame, cookie_of(gossip, &join->from, from, gossip->now_ns / COOKIE_NS));
    cake__gossip_frame_send(gossip, &gossip->frame, cake__gossip_sender(join, from));
}

void cake__gossip_on_challenge(cake__gossip_t *gossip, cake__gossip_frame_t *frame)
{
    uint64_t seq = cake__get_u64(&frame->body), cookie = cake__get_u64(&frame->body);
    uint32_t tag = cake__gossip_tag(frame->from.nonce);
    cake_addr_t addr;
    if (!cake__reader_done(&frame->body)) {
        gossip->counters.frames_malformed++;
        return;
    }
    if (!was_asked(gossip, seq, &addr) || gossip->is_leaving) {
        gossip->counters.frames_unknown++;
        return;
    }
    for (size_t i = 0; i < gossip->seed_count; i++) {
        cake__gossip_seed_t *seed = &gossip->seeds[i];
        if (cake_addr_equal(&seed->addr, &addr))
            *seed = (cake__gossip_seed_t){addr, tag, cookie};
    }
    cake__gossip_join_to(gossip, &addr, tag, cookie);
}

static void send_welcome(cake__gossip_t *gossip, const cake__gossip_frame_t *join, const cake_addr_t *from,
                         const cake__gossip_peer_t *joiner)
{
    cake__buf_t *frame = &gossip->frame;
    size_t max = frame->max;
    cake__gossip_frame_begin(gossip, frame, GOSSIP_WELCOME);
    frame->max = cake__min_u64(max, join->size - GOSSIP_FRAME_CHECK);
    cake__put_u64(frame, join->seq);
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
    cake__gossip_frame_send(gossip, frame, cake__gossip_sender(join, from));
}

/* One record with identity, which has to be the frame's sender's own. */
static bool open_join(cake__gossip_frame_t *frame, uint8_t *flags, uint64_t *cookie, cake__gossip_record_t *record)
{
    *flags = cake__get_u8(&frame->body);
    *cookie = cake__get_u64(&frame->body);
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
    uint64_t cookie;
    cake__gossip_record_t record;
    if (!open_join(frame, &flags, &cookie, &record)) {
        gossip->counters.frames_malformed++;
        return;
    }
    if (record.node_id == gossip->self->who.node_id) {
        if (memcmp(record.nonce, gossip->self->who.nonce, sizeof record.nonce) != 0)
            cake__gossip_answer_held(gossip, frame, from, gossip->self);
        return;
    }
    cake__gossip_peer_t *peer = cake__gossip_peer_find(gossip, record.node_id);
    if (is_held(peer, &record, (flags & JOIN_VERIFIED) != 0)) {
        cake__gossip_answer_held(gossip, frame, from, peer);
        return;
    }
    bool is_known = peer != NULL && memcmp(peer->who.nonce, record.nonce, sizeof record.nonce) == 0;
    if (!is_known && !is_cookie_good(gossip, frame, from, cookie) && !GOSSIP_MUTANT(no_challenge)) {
        send_challenge(gossip, frame, from);
        return;
    }
    cake__gossip_merge(gossip, &record, GOSSIP_FROM_JOIN);
    set_joined(gossip);
    peer = cake__gossip_peer_find(gossip, record.node_id);
    if (peer != NULL && peer->who.generation == record.generation) /* else: no memory, or too many members */
        send_welcome(gossip, frame, from, peer);
}

void cake__gossip_on_welcome(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from)
{
    uint64_t seq = cake__get_u64(&frame->body);
    cake_addr_t addr;
    if (frame->body.err != 0 || !cake__gossip_are_records(frame->body)) {
        gossip->counters.frames_malformed++;
        return;
    }
    if (!was_asked(gossip, seq, &addr)) {
        gossip->counters.frames_unknown++;
        return;
    }
    cake__gossip_merge_all(gossip, frame->body, GOSSIP_FROM_SYNC);
    const cake__gossip_peer_t *sender = cake__gossip_peer_find(gossip, frame->from.node_id);
    if (gossip->is_over || sender == NULL || sender == gossip->self)
        return;
    set_joined(gossip);
    cake__gossip_notices_again(gossip); /* until now we may have been a stranger, who is not listened to */
    cake__gossip_sync_with(gossip, sender);
}

/* Whoever lives where we know a member to be does not know us: it came back while we were cut off, or has forgotten us.
 * No more than ten times a second, and once per frame of ours. */
void cake__gossip_on_who(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from)
{
    uint64_t seq = cake__get_u64(&frame->body);
    if (!cake__reader_done(&frame->body)) {
        gossip->counters.frames_malformed++;
        return;
    }
    bool is_known = false, is_answer = seq > gossip->who_seq && seq <= gossip->frame_seq;
    for (size_t i = 0; i < gossip->member_count && is_answer && !is_known; i++)
        is_known = gossip->members[i] != gossip->self && cake_addr_equal(&gossip->members[i]->addr, from);
    if (!is_known || gossip->now_ns < gossip->next_who_ns || gossip->claim.is_active || gossip->is_leaving)
        return;
    gossip->who_seq = seq;
    gossip->next_who_ns = gossip->now_ns + cake__gossip_ms(WHO_INTERVAL_MS);
    cake__gossip_join_to(gossip, from, cake__gossip_tag(frame->from.nonce), 0);
}

void cake__gossip_send_who(cake__gossip_t *gossip, const cake__gossip_frame_t *frame, const cake_addr_t *from)
{
    cake__gossip_frame_begin(gossip, &gossip->frame, GOSSIP_WHO);
    cake__put_u64(&gossip->frame, frame->seq);
    if (gossip->frame.len + GOSSIP_FRAME_CHECK <= frame->size)
        cake__gossip_frame_send(gossip, &gossip->frame, cake__gossip_sender(frame, from));
}

/* ---- one id, two runs -------------------------------------------------------------------------------------------- */

static void begin_held(cake__gossip_t *gossip, const cake__gossip_peer_t *holder)
{
    cake__gossip_frame_begin(gossip, &gossip->frame, GOSSIP_HELD);
    (void)cake__gossip_put_record(gossip, &gossip->frame, holder, true);
}

void cake__gossip_send_held(cake__gossip_t *gossip, cake__gossip_dest_t to, const cake__gossip_peer_t *holder)
{
    begin_held(gossip, holder);
    cake__gossip_frame_send(gossip, &gossip->frame, to);
}

void cake__gossip_answer_held(cake__gossip_t *gossip, const cake__gossip_frame_t *frame, const cake_addr_t *from,
                              const cake__gossip_peer_t *holder)
{
    begin_held(gossip, holder);
    if (gossip->frame.len + GOSSIP_FRAME_CHECK > frame->size && !GOSSIP_MUTANT(held_is_larger))
        cake__gossip_send_who(gossip, frame, from);
    else
        cake__gossip_frame_send(gossip, &gossip->frame, cake__gossip_sender(frame, from));
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
    static const uint8_t zeroes[CLAIM_ADDR] = {0};
    cake__buf_t *frame = &gossip->frame;
    cake__gossip_frame_begin(gossip, frame, GOSSIP_CLAIM);
    cake__put_u8(frame, flags);
    cake__put_u64(frame, gossip->born);
    cake__put_u64(frame, gossip->now_ns - gossip->started_ns);
    cake__put_bytes(frame, holder_nonce, CAKE__GOSSIP_NONCE_LEN);
    size_t before = frame->len;
    cake__gossip_put_addr(frame, &gossip->self->addr);
    cake__put_bytes(frame, zeroes, before + CLAIM_ADDR - frame->len);
    cake__gossip_frame_send(gossip, frame, (cake__gossip_dest_t){*to, cake__gossip_tag(holder_nonce), 0});
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

/* Datagrams may all be lost on the way: nobody takes an id from a process that is there. */
static void ask_holder(cake__gossip_t *gossip)
{
    cake__gossip_claim_t *claim = &gossip->claim;
    cake__gossip_action_t *action = cake__gossip_act(gossip, CAKE__GOSSIP_PING);
    claim->tries = 0;
    claim->is_there = false;
    claim->asked_ns = gossip->now_ns;
    claim->token = ++gossip->seq;
    if (action == NULL)
        return; /* no memory: it times out */
    action->ping.to = claim->addr;
    action->ping.who = claim->holder;
    action->ping.token = claim->token;
}

bool cake__gossip_claim_pinged(cake__gossip_t *gossip, uint64_t token, bool is_answered,
                               const cake__gossip_who_t *answer)
{
    cake__gossip_claim_t *claim = &gossip->claim;
    if (!claim->is_active || token == 0 || token != claim->token)
        return false;
    claim->token = 0;
    claim->is_there = is_answered && memcmp(answer->nonce, claim->holder.nonce, sizeof answer->nonce) == 0;
    return true;
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
    else
        ask_holder(gossip);
}

void cake__gossip_claim_run(cake__gossip_t *gossip)
{
    cake__gossip_claim_t *claim = &gossip->claim;
    if (!claim->is_active || gossip->now_ns < claim->next_ns)
        return;
    bool is_waiting =
        claim->token != 0 && gossip->now_ns < claim->asked_ns + cake__gossip_ms(gossip->params.last_ping_ms);
    if (GOSSIP_MUTANT(claims_by_datagrams))
        is_waiting = claim->is_there = false;
    if (claim->tries >= CLAIM_TRIES && !claim->is_there && !is_waiting) {
        settle(gossip);
        return;
    }
    if (claim->tries++ >= CLAIM_TRIES_MAX)
        ask_holder(gossip);
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

/* Who claims our id is no member, so that no window of a member knows its frames. */
static bool is_claim_old(cake__gossip_t *gossip, const cake__gossip_frame_t *frame)
{
    bool is_same = memcmp(gossip->claimant, frame->from.nonce, sizeof gossip->claimant) == 0;
    if (is_same && frame->seq <= gossip->claimant_seq)
        return true;
    memcpy(gossip->claimant, frame->from.nonce, sizeof gossip->claimant);
    gossip->claimant_seq = frame->seq;
    return false;
}

void cake__gossip_on_claim(cake__gossip_t *gossip, cake__gossip_frame_t *frame, const cake_addr_t *from)
{
    uint8_t flags = cake__get_u8(&frame->body);
    uint64_t born = cake__get_u64(&frame->body), uptime_ns = cake__get_u64(&frame->body);
    const uint8_t *nonce = cake__get_bytes(&frame->body, CAKE__GOSSIP_NONCE_LEN);
    cake_addr_t addr;
    cake__reader_t addr_reader = cake__reader(cake__get_bytes(&frame->body, CLAIM_ADDR), CLAIM_ADDR);
    if (frame->body.err == 0)
        cake__gossip_get_addr(&addr_reader, &addr);
    if (addr_reader.err != 0)
        frame->body.err = addr_reader.err;
    if (!cake__reader_done(&frame->body) || flags > (CLAIM_REPLY | CLAIM_STAY)) {
        gossip->counters.frames_malformed++;
        return;
    }
    const cake__gossip_who_t *own = &gossip->self->who, *other = &frame->from;
    int order = memcmp(own->nonce, other->nonce, sizeof own->nonce);
    bool is_asked = gossip->claim.is_active && memcmp(gossip->claim.holder.nonce, other->nonce, sizeof own->nonce) == 0;
    bool is_reply = (flags & CLAIM_REPLY) != 0, do_we_stay;
    if (is_claim_old(gossip, frame) || other->node_id != own->node_id || order == 0 ||
        memcmp(nonce, own->nonce, sizeof own->nonce) != 0 || (is_reply && !is_asked) || gossip->is_leaving) {
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

/* ---- leaving ----------------------------------------------------------------------------------------------------- */

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
        if (gossip->seeds[i].tag == 0)
            continue;
        cake__gossip_frame_begin(gossip, &gossip->frame, GOSSIP_RUMOUR);
        (void)cake__gossip_put_record(gossip, &gossip->frame, gossip->self, true);
        cake__gossip_frame_send(gossip, &gossip->frame,
                                (cake__gossip_dest_t){gossip->seeds[i].addr, gossip->seeds[i].tag, 0});
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
        cake__gossip_frame_send(gossip, frame, cake__gossip_dest(peer));
    }
}
