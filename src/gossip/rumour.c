/* rumour.c: what is new about a member is told to a few others at once, and by them to a few more, until everyone was
 * told about 2·log2(N+1) times by each (Das et al. 2002, section 4.1). What rumours miss, state gossip repairs.
 *
 * The list is in the order of telling: what goes out moves to the back, what is new enters at the front. */
#include "gossip/state.h"

#define FRAMES_PER_PEER    4u /* in one batch, while there is a backlog */
#define NOTICE_REMEMBER_MS 60000u
#define NOTICE_TELL_MS     10000u /* with every ping and answer, too: nobody is missed by chance */

static uint32_t sends_max(const cake__gossip_t *gossip)
{
    return 2 * cake__gossip_log2(gossip->live_count + 2);
}

void cake__gossip_rumour(cake__gossip_t *gossip, cake__gossip_peer_t *peer)
{
    CAKE_ASSERT(!peer->is_gone);
    peer->rumour_sends = 0;
    cake__list_remove(&peer->rumour_link);
    cake__list_push_front(&gossip->rumours, &peer->rumour_link);
}

static size_t count_rumours(const cake__gossip_t *gossip)
{
    size_t count = 0;
    CAKE_LIST_FOR_EACH(node, &gossip->rumours)
    count++;
    return count;
}

/* Tells at most limit of them; returns how many fitted. */
static size_t append(cake__gossip_t *gossip, cake__buf_t *frame, size_t limit)
{
    uint32_t most = sends_max(gossip);
    size_t told = 0;
    while (told < limit && !cake__list_is_empty(&gossip->rumours)) {
        cake__gossip_peer_t *peer = CAKE_CONTAINER_OF(gossip->rumours.next, cake__gossip_peer_t, rumour_link);
        bool has_identity = peer->status == CAKE__GOSSIP_ALIVE || peer->status == CAKE__GOSSIP_LEFT;
        if (!cake__gossip_put_record(gossip, frame, peer, has_identity))
            break;
        cake__list_remove(&peer->rumour_link);
        if (++peer->rumour_sends < most)
            cake__list_push_back(&gossip->rumours, &peer->rumour_link);
        told++;
    }
    return told;
}

/* ---- notices of duplicate ids ------------------------------------------------------------------------------------ */

void cake__gossip_notice_heard(cake__gossip_t *gossip, uint16_t node_id, const cake_addr_t *kept,
                               const cake_addr_t *refused)
{
    const uint64_t remember_ns = cake__gossip_ms(NOTICE_REMEMBER_MS);
    cake__gossip_notice_t *place = &gossip->notices[0];
    for (size_t i = 0; i < GOSSIP_NOTICES; i++) {
        cake__gossip_notice_t *notice = &gossip->notices[i];
        if (notice->expires_ns > gossip->now_ns && notice->node_id == node_id &&
            cake_addr_equal(&notice->refused, refused))
            return;
        if (notice->expires_ns < place->expires_ns)
            place = notice;
    }
    cake__gossip_action_t *action = cake__gossip_act(gossip, CAKE__GOSSIP_DUPLICATE);
    if (action == NULL)
        return; /* it is told again */
    action->duplicate.node_id = node_id;
    action->duplicate.kept = *kept;
    action->duplicate.refused = *refused;
    *place = (cake__gossip_notice_t){
        .node_id = node_id, .kept = *kept, .refused = *refused, .expires_ns = gossip->now_ns + remember_ns};
    gossip->notice_count = 1; /* at least one has to be told */
}

/* Those who were told before a member joined may not have known the teller, or the member nobody: again. */
void cake__gossip_notices_again(cake__gossip_t *gossip)
{
    for (size_t i = 0; i < GOSSIP_NOTICES; i++) {
        gossip->notices[i].sends = 0;
        gossip->notice_count += gossip->notices[i].expires_ns > gossip->now_ns;
    }
}

static void append_notices(cake__gossip_t *gossip, cake__buf_t *frame)
{
    uint32_t most = sends_max(gossip);
    gossip->notice_count = 0;
    for (size_t i = 0; i < GOSSIP_NOTICES; i++) {
        cake__gossip_notice_t *notice = &gossip->notices[i];
        if (notice->expires_ns <= gossip->now_ns || notice->sends >= most)
            continue;
        gossip->notice_count++;
        notice->sends += cake__gossip_put_notice(frame, notice);
    }
}

/* State gossip knows nothing of notices: what the batches miss comes by a ping. */
static void append_fresh_notices(cake__gossip_t *gossip, cake__buf_t *frame)
{
    uint64_t old_ns = cake__gossip_ms(NOTICE_REMEMBER_MS - NOTICE_TELL_MS);
    for (size_t i = 0; i < GOSSIP_NOTICES && !GOSSIP_MUTANT(notices_in_batches_only); i++)
        if (gossip->notices[i].expires_ns > gossip->now_ns + old_ns)
            (void)cake__gossip_put_notice(frame, &gossip->notices[i]);
}

void cake__gossip_rumours_append(cake__gossip_t *gossip, cake__buf_t *frame)
{
    append_fresh_notices(gossip, frame);
    (void)append(gossip, frame, count_rumours(gossip));
}

/* ---- batches ----------------------------------------------------------------------------------------------------- */

static bool has_news(const cake__gossip_t *gossip)
{
    return gossip->live_count > 0 && (!cake__list_is_empty(&gossip->rumours) || gossip->notice_count > 0);
}

uint64_t cake__gossip_rumours_due(const cake__gossip_t *gossip)
{
    return has_news(gossip) ? gossip->next_rumour_ns : CAKE__GOSSIP_NEVER;
}

void cake__gossip_rumours_run(cake__gossip_t *gossip)
{
    if (!has_news(gossip) || gossip->now_ns < gossip->next_rumour_ns)
        return;
    cake__gossip_peer_t *peers[GOSSIP_RINGS_MAX];
    size_t count = cake__gossip_draw(gossip, NULL, peers, gossip->params.rumour_fanout);
    gossip->next_rumour_ns = gossip->now_ns + cake__gossip_ms(gossip->params.rumour_ms);
    for (size_t i = 0; i < count; i++) {
        size_t left = count_rumours(gossip);
        for (size_t frames = 0; frames < FRAMES_PER_PEER && (left > 0 || frames == 0); frames++) {
            cake__buf_t *frame = &gossip->frame;
            cake__gossip_frame_begin(gossip, frame, GOSSIP_RUMOUR);
            append_notices(gossip, frame);
            left -= append(gossip, frame, left);
            if (frame->len > GOSSIP_FRAME_HEADER)
                cake__gossip_frame_send(gossip, frame, cake__gossip_dest(peers[i]));
        }
    }
}
