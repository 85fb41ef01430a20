/* pull.c: sessions of the set alone between processes, as requests and replies. One byte says what follows:
 *
 *      request  H  HELLO          reply  W  WELCOME
 *               N  -                     P  fin u8 | token u64 | chunk u32 | varint records | records | [FIN]
 *               C  COMPARE               D  COMPARED, or X: there is no session any more
 *
 *      record   id 16 B | hlc u64 | actor u64 | varint seq | tombstone u8 */
#include "crdt/set.h"

#define REPLY_MAX (64u << 20)

struct cake_pull {
    cake_orswot_t *set;
    cake__receiver_t *receiver;
    cake__buf_t request;
    uint64_t wall_ms; /* of the last take */
    bool has_asked, has_fin;
};

struct cake_answer {
    cake_orswot_t *set;
    cake__sender_t *sender; /* of the last HELLO */
    uint64_t token;
    cake__buf_t reply;
    cake_record_t *records; /* CAKE_PULL_RECORDS_MAX of them */
};

/* ---- records ----------------------------------------------------------------------------------------------------- */

static void put_record(cake__buf_t *buf, const cake_record_t *record)
{
    cake__put_bytes(buf, record->id.bytes, sizeof record->id.bytes);
    cake__put_u64(buf, record->hlc);
    cake__put_u64(buf, record->dot.actor);
    cake__put_varint(buf, record->dot.seq);
    cake__put_u8(buf, record->is_tombstone);
}

static bool get_record(cake__reader_t *reader, cake_record_t *record)
{
    const uint8_t *id = cake__get_bytes(reader, sizeof record->id.bytes);
    if (id == NULL)
        return false;
    memcpy(record->id.bytes, id, sizeof record->id.bytes);
    record->hlc = cake__get_u64(reader);
    record->dot.actor = cake__get_u64(reader);
    record->dot.seq = cake__get_varint(reader);
    uint8_t is_tombstone = cake__get_u8(reader);
    record->is_tombstone = is_tombstone == 1;
    return reader->err == 0 && is_tombstone <= 1;
}

/* ---- the side that pulls ----------------------------------------------------------------------------------------- */

int cake_pull_new(cake_orswot_t *set, uint64_t random, cake_pull_t **out)
{
    *out = NULL;
    CAKE_ASSERT(set->change == NULL);
    cake_pull_t *pull = cake__calloc(set->alloc, 1, sizeof *pull);
    if (pull == NULL)
        return CAKE_ENOMEM;
    pull->set = set;
    cake__buf_init(&pull->request, set->alloc);
    int err = cake__receiver_new(set, 0, random, &pull->receiver);
    if (err != 0) {
        cake_pull_free(pull);
        return err;
    }
    *out = pull;
    return 0;
}

void cake_pull_free(cake_pull_t *pull)
{
    if (pull == NULL)
        return;
    cake__receiver_free(pull->receiver);
    cake__buf_free(&pull->request);
    cake__free(pull->set->alloc, pull);
}

static int finish_request(cake_pull_t *pull, cake_slice_t *request)
{
    *request = cake__buf_slice(&pull->request);
    return pull->request.err != 0 ? pull->request.err : 1;
}

static int step_error(int result)
{
    return result < 0 ? result : 0;
}

int cake_pull_step(cake_pull_t *pull)
{
    cake__change_t *change;
    bool has_more = false;
    int err;
    if (cake__receiver_is_finishing(pull->receiver)) {
        err = cake__change_begin(pull->set, pull->wall_ms, &change);
        if (err == 0)
            err = cake__change_end(change, cake__receiver_go_on(pull->receiver, change));
        has_more = cake__receiver_is_finishing(pull->receiver);
    } else {
        err = cake__receiver_step(pull->receiver, &has_more);
    }
    return err != 0 ? err : has_more;
}

int cake_pull_next(cake_pull_t *pull, cake_slice_t *request)
{
    cake__compare_t compare;
    bool has;
    int err = 0;
    while (err == 0 && cake__receiver_is_finishing(pull->receiver))
        err = step_error(cake_pull_step(pull));
    if (err != 0)
        return err;
    cake__buf_clear(&pull->request);
    *request = cake__slice(NULL, 0);
    switch (cake__receiver_phase(pull->receiver)) {
    case CAKE__PHASE_FINISHED:
        return 0;
    case CAKE__PHASE_ABORTED:
        return CAKE_EBUSY;
    case CAKE__PHASE_OPENING:
        if (pull->has_asked)
            return CAKE_EBUSY;
        pull->has_asked = true;
        cake__put_u8(&pull->request, 'H');
        cake__hello_encode(cake__receiver_hello(pull->receiver), &pull->request);
        return finish_request(pull, request);
    default:
        break;
    }
    err = cake__receiver_next_compare(pull->receiver, CAKE_PULL_RECORDS_MAX, &has, &compare);
    if (err != 0)
        return err;
    if (has) {
        cake__put_u8(&pull->request, 'C');
        cake__compare_encode(&compare, &pull->request);
        cake__compare_free(&compare, pull->set->alloc);
    } else if (pull->has_fin) {
        cake__receiver_abort(pull->receiver, "incomplete");
        return CAKE_EBUSY;
    } else {
        cake__put_u8(&pull->request, 'N');
    }
    return finish_request(pull, request);
}

static int take_welcome(cake_pull_t *pull, cake__change_t *change, cake__reader_t *reader)
{
    cake__welcome_t welcome;
    int err = cake__welcome_decode(&welcome, pull->set->alloc, reader);
    if (err != 0)
        return err;
    err = cake__reader_done(reader) ? cake__receiver_on_welcome(pull->receiver, change, &welcome) : CAKE_EPARSE;
    cake__welcome_free(&welcome);
    return err;
}

static int take_compared(cake_pull_t *pull, cake__change_t *change, cake__reader_t *reader)
{
    cake__compared_t compared;
    int err = cake__compared_decode(&compared, pull->set->alloc, reader);
    if (err != 0)
        return err;
    err = cake__reader_done(reader) ? cake__receiver_on_compared(pull->receiver, change, &compared) : CAKE_EPARSE;
    cake__compared_free(&compared, pull->set->alloc);
    return err;
}

static int take_fin(cake_pull_t *pull, cake__change_t *change, cake__reader_t *reader)
{
    cake__fin_t fin;
    int err = cake__fin_decode(&fin, pull->set->alloc, reader);
    if (err != 0)
        return err;
    pull->has_fin = true;
    err = cake__reader_done(reader) ? cake__receiver_on_fin(pull->receiver, change, &fin) : CAKE_EPARSE;
    cake__fin_free(&fin);
    return err;
}

static int take_part(cake_pull_t *pull, cake__change_t *change, cake__reader_t *reader)
{
    const cake_alloc_t *alloc = pull->set->alloc;
    uint8_t has_fin = cake__get_u8(reader);
    cake__chunk_t chunk = {.session_id = cake__receiver_hello(pull->receiver)->session_id};
    chunk.token = cake__get_u64(reader);
    chunk.index = cake__get_u32(reader);
    uint64_t count = cake__get_varint(reader);
    if (reader->err != 0 || has_fin > 1 || count > CAKE_PULL_RECORDS_MAX)
        return reader->err != 0 || has_fin > 1 ? CAKE_EPARSE : CAKE_ETOOBIG;
    cake_record_t *records = cake__malloc(alloc, (size_t)count * sizeof *records);
    int err = records == NULL ? CAKE_ENOMEM : 0;
    for (uint64_t i = 0; i < count && err == 0; i++)
        err = get_record(reader, &records[i]) ? 0 : CAKE_EPARSE;
    chunk.records = records;
    chunk.count = (size_t)count;
    if (err == 0 && count > 0)
        err = cake__receiver_on_chunk(pull->receiver, change, &chunk);
    if (err == 0)
        err = has_fin == 1 ? take_fin(pull, change, reader) : cake__reader_done(reader) ? 0 : CAKE_EPARSE;
    cake__free(alloc, records);
    return err;
}

int cake_pull_take(cake_pull_t *pull, uint64_t wall_ms, cake_slice_t reply)
{
    cake__change_t *change;
    if (reply.len > REPLY_MAX)
        return CAKE_ETOOBIG;
    cake__reader_t reader = cake__reader(reply.data, reply.len);
    int err = cake__change_begin(pull->set, wall_ms, &change);
    if (err != 0)
        return err;
    switch (cake__get_u8(&reader)) {
    case 'W':
        err = take_welcome(pull, change, &reader);
        break;
    case 'P':
        err = take_part(pull, change, &reader);
        break;
    case 'D':
        err = take_compared(pull, change, &reader);
        break;
    case 'X':
        cake__receiver_abort(pull->receiver, "there is no such session any more");
        break;
    default:
        err = CAKE_EPARSE;
    }
    pull->wall_ms = wall_ms;
    if (cake__change_end(change, err) != 0)
        cake__receiver_abort(pull->receiver, "a reply makes no sense");
    return err;
}

/* ---- the side that answers --------------------------------------------------------------------------------------- */

int cake_answer_new(cake_orswot_t *set, uint64_t random, cake_answer_t **out)
{
    *out = NULL;
    cake_answer_t *answer = cake__calloc(set->alloc, 1, sizeof *answer);
    if (answer == NULL)
        return CAKE_ENOMEM;
    answer->set = set;
    answer->token = random;
    cake__buf_init(&answer->reply, set->alloc);
    answer->records = cake__malloc(set->alloc, CAKE_PULL_RECORDS_MAX * sizeof *answer->records);
    if (answer->records == NULL) {
        cake_answer_free(answer);
        return CAKE_ENOMEM;
    }
    *out = answer;
    return 0;
}

void cake_answer_free(cake_answer_t *answer)
{
    if (answer == NULL)
        return;
    cake__sender_free(answer->sender);
    cake__buf_free(&answer->reply);
    cake__free(answer->set->alloc, answer->records);
    cake__free(answer->set->alloc, answer);
}

int cake_answer_step(cake_answer_t *answer)
{
    bool has_more = false;
    int err = answer->sender == NULL ? 0 : cake__sender_step(answer->sender, &has_more);
    return err != 0 ? err : has_more;
}

static int on_hello(cake_answer_t *answer, cake__reader_t *reader)
{
    cake__hello_t hello;
    cake__welcome_t welcome;
    cake__sender_t *sender = NULL;
    int err = cake__hello_decode(&hello, answer->set->alloc, reader);
    if (err != 0)
        return err;
    err = cake__reader_done(reader) ? cake__sender_new(answer->set, 0, &hello, ++answer->token, &sender) : CAKE_EPARSE;
    cake__hello_free(&hello);
    if (err == 0)
        err = cake__sender_welcome(sender, &welcome);
    if (err != 0) {
        cake__sender_free(sender);
        return err;
    }
    cake__sender_free(answer->sender);
    answer->sender = sender;
    cake__put_u8(&answer->reply, 'W');
    cake__welcome_encode(&welcome, &answer->reply);
    cake__welcome_free(&welcome);
    return 0;
}

static int on_next(cake_answer_t *answer)
{
    size_t count;
    uint32_t index;
    bool has_fin;
    cake__fin_t fin;
    int err = cake__sender_next(answer->sender, CAKE_PULL_RECORDS_MAX, answer->records, &count, &index, &has_fin, &fin);
    if (err != 0)
        return err;
    cake__put_u8(&answer->reply, 'P');
    cake__put_u8(&answer->reply, has_fin);
    cake__put_u64(&answer->reply, cake__sender_token(answer->sender));
    cake__put_u32(&answer->reply, index);
    cake__put_varint(&answer->reply, count);
    for (size_t i = 0; i < count; i++)
        put_record(&answer->reply, &answer->records[i]);
    if (has_fin) {
        cake__fin_encode(&fin, &answer->reply);
        cake__fin_free(&fin);
    }
    return 0;
}

static int on_compare(cake_answer_t *answer, cake__reader_t *reader)
{
    cake__compare_t compare;
    cake__compared_t compared;
    int err = cake__compare_decode(&compare, answer->set->alloc, reader);
    if (err != 0)
        return err;
    err = cake__reader_done(reader) ? cake__sender_compare(answer->sender, &compare, &compared) : CAKE_EPARSE;
    cake__compare_free(&compare, answer->set->alloc);
    if (err == CAKE_ECLOSED || err == CAKE_EINVAL) {
        cake__put_u8(&answer->reply, 'X');
        return 0;
    }
    if (err != 0)
        return err;
    cake__put_u8(&answer->reply, 'D');
    cake__compared_encode(&compared, &answer->reply);
    cake__compared_free(&compared, answer->set->alloc);
    return 0;
}

int cake_answer_next(cake_answer_t *answer, cake_slice_t request, cake_slice_t *reply)
{
    cake__reader_t reader = cake__reader(request.data, request.len);
    uint8_t kind = cake__get_u8(&reader);
    int err = 0;
    *reply = cake__slice(NULL, 0);
    cake__buf_clear(&answer->reply);
    if (kind == 'H')
        err = on_hello(answer, &reader);
    else if (kind != 'N' && kind != 'C')
        err = CAKE_EPARSE;
    else if (answer->sender == NULL)
        cake__put_u8(&answer->reply, 'X');
    else if (kind == 'C')
        err = on_compare(answer, &reader);
    else
        err = cake__reader_done(&reader) ? on_next(answer) : CAKE_EPARSE;
    err = err != 0 ? err : answer->reply.err;
    if (err == 0)
        *reply = cake__buf_slice(&answer->reply);
    return err;
}
