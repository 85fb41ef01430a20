/* merge.c: whole sessions in one process. Every message is a change of its own, so that memory stays small. */
#include "crdt/set.h"

#define PART_RECORDS 4096u
#define PART_IDS     4096u

typedef struct session {
    cake__receiver_t *receiver;
    cake__sender_t *sender;
    cake_orswot_t *set; /* of the receiver */
    uint64_t wall_ms;
    cake_record_t *records; /* PART_RECORDS of them */
    bool has_sent_fin;
} session_t;

static int open_session(session_t *session)
{
    cake__welcome_t welcome;
    cake__change_t *change;
    int err = cake__sender_welcome(session->sender, &welcome);
    if (err != 0)
        return err;
    err = cake__change_begin(session->set, session->wall_ms, &change);
    if (err == 0)
        err = cake__change_end(change, cake__receiver_on_welcome(session->receiver, change, &welcome));
    cake__welcome_free(&welcome);
    return err;
}

static int compare_part(session_t *session, bool *did)
{
    cake__compare_t request;
    cake__compared_t reply;
    cake__change_t *change;
    int err = cake__receiver_next_compare(session->receiver, PART_IDS, did, &request);
    if (err != 0 || !*did)
        return err;
    err = cake__sender_compare(session->sender, &request, &reply);
    if (err == 0) {
        err = cake__change_begin(session->set, session->wall_ms, &change);
        if (err == 0)
            err = cake__change_end(change, cake__receiver_on_compared(session->receiver, change, &reply));
        cake__compared_free(&reply, session->set->alloc);
    }
    cake__compare_free(&request, session->set->alloc);
    return err;
}

static int send_part(session_t *session)
{
    cake__chunk_t chunk = {.session_id = cake__receiver_hello(session->receiver)->session_id,
                           .token = cake__sender_token(session->sender),
                           .records = session->records};
    cake__fin_t fin;
    cake__change_t *change;
    bool has_fin;
    int err =
        cake__sender_next(session->sender, PART_RECORDS, session->records, &chunk.count, &chunk.index, &has_fin, &fin);
    if (err != 0)
        return err;
    session->has_sent_fin = has_fin;
    err = cake__change_begin(session->set, session->wall_ms, &change);
    if (err == 0) {
        err = chunk.count > 0 ? cake__receiver_on_chunk(session->receiver, change, &chunk) : 0;
        if (err == 0 && has_fin)
            err = cake__receiver_on_fin(session->receiver, change, &fin);
        err = cake__change_end(change, err);
    }
    if (has_fin)
        cake__fin_free(&fin);
    return err;
}

static int finish_part(session_t *session)
{
    cake__change_t *change;
    int err = cake__change_begin(session->set, session->wall_ms, &change);
    return err == 0 ? cake__change_end(change, cake__receiver_go_on(session->receiver, change)) : err;
}

static int run(session_t *session)
{
    int err = open_session(session);
    while (err == 0 && cake__receiver_phase(session->receiver) == CAKE__PHASE_RUNNING) {
        bool did = cake__receiver_is_finishing(session->receiver);
        err = did ? finish_part(session) : compare_part(session, &did);
        if (err == 0 && !did)
            err = session->has_sent_fin ? CAKE_EBUSY : send_part(session);
    }
    bool is_done = cake__receiver_phase(session->receiver) == CAKE__PHASE_FINISHED;
    return err != 0 || is_done ? err : CAKE_EBUSY;
}

int cake_orswot_pull(cake_orswot_t *a, cake_orswot_t *b, uint64_t wall_ms)
{
    session_t session = {.set = a, .wall_ms = wall_ms};
    if (a == b)
        return CAKE_EINVAL;
    session.records = cake__malloc(a->alloc, PART_RECORDS * sizeof *session.records);
    int err = session.records == NULL ? CAKE_ENOMEM : cake__receiver_new(a, 0, 1, &session.receiver);
    if (err == 0)
        err = cake__sender_new(b, 0, cake__receiver_hello(session.receiver), 1, &session.sender);
    if (err == 0)
        err = run(&session);
    cake__receiver_free(session.receiver);
    cake__sender_free(session.sender);
    cake__free(a->alloc, session.records);
    return err;
}

int cake_orswot_merge(cake_orswot_t *a, cake_orswot_t *b, uint64_t wall_ms)
{
    int err = cake_orswot_pull(a, b, wall_ms);
    return err != 0 ? err : cake_orswot_pull(b, a, wall_ms);
}
