/* Verifying against the replicas: two that have seen the same writes must hold the same documents, so that sums of
 * ranges that differ tell of damage: of a row that was lost or came back while a node was down, and was loaded so.
 * Neither context tells; no session would ever mend it. Which of the two is right nobody can say, so that the newest
 * copy stays, and none is lost: it is written anew, under a new stamp (as in a repair, rule 5), and wins everywhere. */
#include "store/verify.h"

#define TRIES_MAX         5u     /* to find both with equal contexts; a sync in between */
#define RECORDS_PER_RANGE 64u    /* about, in the finest */
#define DIFFERENCES_MAX   65536u /* of one keyspace and replica; more are found by the next call */
#define SENT_TIMEOUT_MS   5000u

/* A document that differs. Healed only once all have been found: what heals is a write, and changes the contexts. */
typedef struct {
    cake_record_t ours, theirs;
    bool has_ours, has_theirs;
} difference_t;

/* One side of a comparison. */
typedef struct {
    cake__verifying_t *verifying;
    uint32_t bits, index;
    cake_ranges_t *ranges;
    cake__range_list_t list;
    uint64_t context_hash;
    uint64_t *sums;
    bool is_exact;
    difference_t *differences;
    size_t count, capacity;
} ours_t;

/* ---- this node's set: on the loop ---------------------------------------------------------------------------------*/

static int begin_sums(void *arg)
{
    ours_t *ours = arg;
    cake_orswot_t *set = ours->verifying->keyspace->set;
    ours->bits = 0;
    while (ours->bits < CAKE__COMPARE_BITS && cake_orswot_live(set) >> ours->bits > RECORDS_PER_RANGE)
        ours->bits += CAKE_RANGE_BITS_STEP;
    return cake_ranges_new(set, ours->bits, &ours->ranges);
}

static int step_sums(void *arg)
{
    ours_t *ours = arg;
    return cake_ranges_step(ours->ranges);
}

static int end_sums(void *arg)
{
    ours_t *ours = arg;
    const cake_alloc_t *alloc = ours->verifying->store->alloc;
    ours->is_exact = ours->ranges != NULL && cake_ranges_are_exact(ours->ranges);
    ours->context_hash = cake__context_hash(cake__keyspace_context(ours->verifying->keyspace));
    ours->sums = ours->is_exact ? cake__malloc(alloc, sizeof(uint64_t) << ours->bits) : NULL;
    for (uint32_t i = 0; ours->sums != NULL && i >> ours->bits == 0; i++)
        ours->sums[i] = cake_ranges_fingerprint(ours->ranges, ours->bits, i, NULL);
    cake_ranges_free(ours->ranges);
    ours->ranges = NULL;
    return ours->is_exact && ours->sums == NULL ? CAKE_ENOMEM : 0;
}

static int sum_ours(ours_t *ours)
{
    cake_env_t *env = ours->verifying->store->env;
    int more = cake__run_on_loop(env, begin_sums, ours);
    for (int err = more; err == 0;) {
        more = cake__run_on_loop(env, step_sums, ours);
        err = more > 0 ? 0 : 1;
    }
    int err = cake__run_on_loop(env, end_sums, ours);
    return more < 0 ? more : err;
}

static int begin_list(void *arg)
{
    ours_t *ours = arg;
    return cake__range_list_init(&ours->list, ours->verifying->keyspace, ours->bits, ours->index);
}

static int step_list(void *arg)
{
    ours_t *ours = arg;
    int more = cake__range_list_step(&ours->list);
    if (more == 0)
        ours->context_hash = cake__context_hash(cake__keyspace_context(ours->verifying->keyspace));
    return more;
}

static int end_list(void *arg)
{
    cake__range_list_free(arg);
    return 0;
}

static int by_id(const void *a, const void *b)
{
    return memcmp(&((const cake_record_t *)a)->id, &((const cake_record_t *)b)->id, sizeof(cake_id_t));
}

static int list_ours(ours_t *ours)
{
    cake_env_t *env = ours->verifying->store->env;
    int err = cake__run_on_loop(env, begin_list, ours), more = 1;
    while (err == 0 && more > 0) {
        more = cake__run_on_loop(env, step_list, ours);
        err = more < 0 ? more : 0;
    }
    if (err == 0 && ours->list.count > 1)
        cake__sort(ours->list.records, ours->list.count, sizeof *ours->list.records, by_id);
    return err;
}

/* ---- one document that differs ------------------------------------------------------------------------------------*/

static bool is_newer(const cake_record_t *a, const cake_record_t *b)
{
    if (b == NULL || a == NULL)
        return a != NULL;
    if (a->hlc != b->hlc)
        return a->hlc > b->hlc;
    return a->dot.actor != b->dot.actor ? a->dot.actor > b->dot.actor : a->dot.seq > b->dot.seq;
}

static bool write_anew(cake__verifying_t *verifying, const cake_record_t *ours, const cake__value_t *value)
{
    return cake_store_put_if(verifying->store, verifying->keyspace->name,
                             cake_key_bytes(value->key.data, value->key.len), value->value.data, value->value.len,
                             ours == NULL ? 0 : ours->hlc, CAKE_NONE) == 0;
}

/* Any replica that has exactly this one will do: this node too. */
static bool heal(cake__verifying_t *verifying, const cake_record_t *ours, const cake_record_t *theirs,
                 cake__compared_row_t *row, cake__comparison_t *answer)
{
    bool is_ours = is_newer(ours, theirs);
    if (is_ours && cake__verify_read(verifying, ours, row) != 0)
        return false;
    if (!is_ours && cake__verify_fetch(verifying, theirs, answer, row) != 0)
        return false;
    return write_anew(verifying, ours, &row->value);
}

static void tell_difference(cake__verifying_t *verifying, uint16_t node_id, const cake_record_t *ours,
                            const cake_record_t *theirs)
{
    cake__compared_row_t row = {0};
    cake__comparison_t answer = {0};
    bool is_healed = !verifying->options.only_report && heal(verifying, ours, theirs, &row, &answer);
    cake__verify_tell(verifying, CAKE_DAMAGE_DIFFERENT, node_id, ours != NULL ? &ours->id : &theirs->id, row.value.key,
                      is_healed);
    cake__compare_end(&answer);
}

/* ---- one range ----------------------------------------------------------------------------------------------------*/

static int read_list(cake__comparison_t *answer, const cake_alloc_t *alloc, uint64_t *context_hash,
                     cake_record_t **records, size_t *count)
{
    cake__reader_t *reader = &answer->reader;
    *context_hash = cake__get_u64(reader);
    uint64_t claimed = cake__get_varint(reader);
    if (reader->err != 0 || claimed > cake__reader_left(reader) / 33) /* bytes that a record takes at least */
        return CAKE_EPARSE;
    *records = cake__calloc(alloc, (size_t)claimed, sizeof **records);
    if (*records == NULL)
        return CAKE_ENOMEM;
    for (*count = 0; *count < claimed && reader->err == 0; *count += 1) {
        cake_record_t *record = &(*records)[*count];
        const uint8_t *id = cake__get_bytes(reader, sizeof record->id.bytes);
        if (id != NULL)
            memcpy(record->id.bytes, id, sizeof record->id.bytes);
        record->hlc = cake__get_u64(reader);
        record->dot.actor = cake__get_u64(reader);
        record->dot.seq = cake__get_varint(reader);
    }
    if (*count > 1)
        cake__sort(*records, *count, sizeof **records, by_id);
    return cake__reader_done(reader) ? 0 : CAKE_EPARSE;
}

static int note(ours_t *ours, const cake_record_t *a, const cake_record_t *b)
{
    if (ours->count == DIFFERENCES_MAX)
        return 0;
    difference_t *more =
        cake__grow(ours->verifying->store->alloc, ours->differences, ours->count, &ours->capacity, sizeof *more);
    if (more == NULL)
        return CAKE_ENOMEM;
    ours->differences = more;
    difference_t *difference = &ours->differences[ours->count++];
    *difference = (difference_t){.has_ours = a != NULL, .has_theirs = b != NULL};
    if (a != NULL)
        difference->ours = *a;
    if (b != NULL)
        difference->theirs = *b;
    return 0;
}

static int compare_lists(ours_t *ours, const cake_record_t *theirs, size_t count)
{
    const cake__range_list_t *list = &ours->list;
    size_t i = 0, k = 0;
    int err = 0;
    while (err == 0 && (i < list->count || k < count)) {
        int order = i == list->count ? 1 : k == count ? -1 : by_id(&list->records[i], &theirs[k]);
        const cake_record_t *a = order <= 0 ? &list->records[i++] : NULL, *b = order >= 0 ? &theirs[k++] : NULL;
        bool is_equal = a != NULL && b != NULL && a->dot.actor == b->dot.actor && a->dot.seq == b->dot.seq;
        if (!is_equal)
            err = note(ours, a, b);
    }
    return err;
}

/* CAKE_EBUSY: one of both was written to since the sums. */
static int compare_range(ours_t *ours, uint16_t node_id)
{
    cake__verifying_t *verifying = ours->verifying;
    const cake_alloc_t *alloc = verifying->store->alloc;
    cake__comparison_t answer = {0};
    cake_record_t *theirs = NULL;
    uint64_t summed_hash = ours->context_hash, their_hash = 0;
    size_t count = 0;
    cake__buf_t request;
    cake__buf_init(&request, alloc);
    cake__compare_put_head(&request, verifying->keyspace->name, CAKE__COMPARE_LIST, ours->bits);
    cake__put_u32(&request, ours->index);
    int err = list_ours(ours);
    if (err == 0)
        err = cake__compare_ask(verifying->store, node_id, &request, &answer);
    if (err == 0)
        err = read_list(&answer, alloc, &their_hash, &theirs, &count);
    if (err == 0 && (their_hash != summed_hash || ours->context_hash != summed_hash))
        err = CAKE_EBUSY;
    if (err == 0)
        err = compare_lists(ours, theirs, count);
    cake__buf_free(&request);
    cake__free(alloc, theirs);
    cake__compare_end(&answer);
    (void)cake__run_on_loop(verifying->store->env, end_list, &ours->list);
    return err;
}

/* ---- one replica --------------------------------------------------------------------------------------------------*/

/* CAKE_EBUSY: the contexts are not equal now. */
static int sum_both(ours_t *ours, uint16_t node_id, cake__comparison_t *answer)
{
    cake__verifying_t *verifying = ours->verifying;
    cake__buf_t request;
    int err = sum_ours(ours);
    cake__buf_init(&request, verifying->store->alloc);
    cake__compare_put_head(&request, verifying->keyspace->name, CAKE__COMPARE_SUMS, ours->bits);
    if (err == 0)
        err = ours->is_exact ? cake__compare_ask(verifying->store, node_id, &request, answer) : CAKE_EBUSY;
    cake__buf_free(&request);
    if (err != 0)
        return err;
    if (cake__get_u64(&answer->reader) != ours->context_hash)
        return CAKE_EBUSY;
    return cake__reader_left(&answer->reader) == sizeof(uint64_t) << ours->bits ? 0 : CAKE_EPARSE;
}

static int compare_with(cake__verifying_t *verifying, uint16_t node_id)
{
    ours_t ours = {.verifying = verifying};
    cake__comparison_t answer = {0};
    uint32_t looked_into = 0;
    uint64_t ranges = verifying->report->ranges_different;
    int err = sum_both(&ours, node_id, &answer);
    uint64_t hash = ours.context_hash;
    for (ours.index = 0; err == 0 && ours.index >> ours.bits == 0; ours.index++) {
        if (cake__get_u64(&answer.reader) == ours.sums[ours.index])
            continue;
        ranges++;
        if (looked_into++ == CAKE__COMPARE_RANGES)
            break;
        err = compare_range(&ours, node_id);
        ours.context_hash = hash;
    }
    if (err == 0)
        verifying->report->ranges_different = ranges;
    for (size_t i = 0; err == 0 && i < ours.count; i++) {
        const difference_t *difference = &ours.differences[i];
        tell_difference(verifying, node_id, difference->has_ours ? &difference->ours : NULL,
                        difference->has_theirs ? &difference->theirs : NULL);
    }
    cake__compare_end(&answer);
    cake__free(verifying->store->alloc, ours.sums);
    cake__free(verifying->store->alloc, ours.differences);
    return err;
}

static bool is_worth_a_try(int err)
{
    return err == CAKE_EBUSY || err == CAKE_ENOTFOUND; /* it has not got the keyspace yet */
}

int cake__verify_peers(cake__verifying_t *verifying)
{
    for (size_t i = 0; i < verifying->peer_count; i++) {
        int err = CAKE_EBUSY;
        for (uint32_t tries = 0; is_worth_a_try(err) && tries < TRIES_MAX; tries++) {
            /* What was healed with the replica before has to be there, too. */
            int sent = cake__wait_sent(verifying->store, SENT_TIMEOUT_MS);
            if (sent == 0 && tries > 0)
                sent = cake_store_sync(verifying->store);
            if (sent == CAKE_ECLOSED)
                return sent;
            err = compare_with(verifying, verifying->peers[i]);
        }
        if (err == CAKE_ECLOSED || err == CAKE_ENOMEM)
            return err;
        verifying->report->not_compared += err != 0;
    }
    return 0;
}
