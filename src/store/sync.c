/* Catching up: this node as receiver r of sessions (model, rules 3, 5 and 7).
 *
 *   want    a peer has what we lack; due after a delay in which batches under way may still bring it
 *   pull    one session: open ─> answer ─staged in the lane─> next ─> answer ─> ... ─> FIN committed
 *
 *   open  hail, keyspace string, HELLO          next  hail, session u64, token u64, has_compare u8, COMPARE
 *   answer to both  hail, parts u8, WELCOME?, CHUNK?, COMPARED?, FIN? (serve.c) */
#include "store/session_wire.h"

#define PULL_TIMEOUT_MS     10000u
#define WANT_BACKOFF_MIN_MS 100u
#define WANT_BACKOFF_MAX_MS 5000u
#define WANTS_MAX           64u /* peers per keyspace */
#define COMPARE_IDS         4096u

/* Where an answer brings documents and nothing is compared, the next one is asked for before this one is staged:
 * both nodes work at once. Invariants: of task and step at most one is under way, and one of both or a call is;
 * `ahead` is kept for the end of the task. A pull that has ended but for its call has a problem or is finished, and
 * takes no more. */
typedef struct cake__pull {
    cake__task_t task; /* first */
    cake_store_t *store;
    cake__keyspace_t *keyspace;
    uint16_t node_id;
    cake__receiver_t *receiver;
    cake__origin_t origin;
    uint64_t token;
    cake_reply_t *reply; /* what the task stages */
    cake_reply_t *ahead; /* the answer after it; NULL: not here yet, or not asked for */
    bool is_asking, is_staging, has_ended;
    const char *problem; /* of one that has ended */
    cake__session_answer_t answer;
    uint32_t idle_rounds; /* answers in a row that brought nothing */
    cake_post_t step;     /* the task, in another turn; of a repair also its next piece that needs no message */
} pull_t;

static void arm_want_timer(cake_store_t *store);
static void end_pull(pull_t *pull, const char *problem);

/* ---- wants --------------------------------------------------------------------------------------------------------*/

static cake__want_t *find_want(cake__keyspace_t *keyspace, uint16_t node_id)
{
    for (uint32_t i = 0; i < keyspace->want_count; i++) {
        if (keyspace->wants[i].node_id == node_id)
            return &keyspace->wants[i];
    }
    return NULL;
}

static void drop_want(cake__keyspace_t *keyspace, cake__want_t *want)
{
    cake__context_free(&want->context);
    *want = keyspace->wants[--keyspace->want_count];
    if (keyspace->want_count == 0)
        cake__list_remove(&keyspace->wanting_link);
}

/* Some of what the peer had is not here, and does not come now: both have to be compared again
 * (cake_store_wait_for). */
static void give_up_want(cake__keyspace_t *keyspace, cake__want_t *want)
{
    cake__peer_t *peer = cake__peer_find(keyspace->store, want->node_id);
    if (peer != NULL) {
        peer->is_compared = false;
        peer->listed_registry = 0;
    }
    drop_want(keyspace, want);
}

int cake__want(cake__keyspace_t *keyspace, uint16_t node_id, const cake__context_t *context, uint64_t delay_ms,
               bool is_forced)
{
    cake_store_t *store = keyspace->store;
    cake__want_t *want = find_want(keyspace, node_id);
    if (want == NULL) {
        if (keyspace->want_count == WANTS_MAX)
            return CAKE_EBUSY;
        cake__want_t *wants = cake__realloc(store->alloc, keyspace->wants, (keyspace->want_count + 1) * sizeof *wants);
        if (wants == NULL)
            return CAKE_ENOMEM;
        keyspace->wants = wants;
        want = &wants[keyspace->want_count++];
        *want = (cake__want_t){.node_id = node_id};
        cake__context_init(&want->context, store->alloc);
        want->due_ns = cake__now_ns(store->env) + delay_ms * CAKE_NS_PER_MS;
        if (!cake__list_is_linked(&keyspace->wanting_link))
            cake__list_push_back(&store->wanting, &keyspace->wanting_link);
    }
    want->is_forced |= is_forced;
    int err = cake__context_join(&want->context, context);
    arm_want_timer(store);
    return err;
}

void cake__drop_wants(cake_store_t *store, uint16_t node_id)
{
    CAKE_LIST_FOR_EACH_SAFE(link, &store->wanting)
    {
        cake__keyspace_t *keyspace = CAKE_CONTAINER_OF(link, cake__keyspace_t, wanting_link);
        cake__want_t *want = find_want(keyspace, node_id);
        if (want != NULL)
            give_up_want(keyspace, want);
    }
}

bool cake__has_wants(const cake_store_t *store, uint16_t node_id)
{
    CAKE_LIST_FOR_EACH(link, &store->wanting)
    {
        cake__keyspace_t *keyspace = CAKE_CONTAINER_OF(link, cake__keyspace_t, wanting_link);
        if (find_want(keyspace, node_id) != NULL)
            return true;
    }
    return false;
}

/* ---- pulls --------------------------------------------------------------------------------------------------------*/

static void on_answer(cake_reply_t *reply, void *arg);

static int stage_answer(cake__task_t *task, cake__change_t *change)
{
    pull_t *pull = CAKE_CONTAINER_OF(task, pull_t, task);
    cake__session_answer_t *answer = &pull->answer;
    int err = 0;
    if (answer->has_welcome)
        err = cake__receiver_on_welcome(pull->receiver, change, &answer->welcome);
    if (err == 0 && answer->has_chunk)
        err = cake__receiver_on_chunk(pull->receiver, change, &answer->chunk);
    if (err == 0 && answer->has_compared)
        err = cake__receiver_on_compared(pull->receiver, change, &answer->compared);
    if (err == 0 && answer->has_fin)
        err = cake__receiver_on_fin(pull->receiver, change, &answer->fin);
    if (err == 0)
        err = cake__receiver_go_on(pull->receiver, change);
    return err;
}

static int call_peer(pull_t *pull, const char *method, cake__buf_t *out)
{
    cake_slice_t body = cake__buf_slice(out);
    int err = out->err;
    if (err == 0)
        err = cake__store_call(pull->store, pull->node_id, method, &body, 1, PULL_TIMEOUT_MS, on_answer, pull);
    pull->is_asking = err == 0;
    pull->store->stats.session_calls += err == 0;
    pull->store->stats.session_bytes += err == 0 ? body.len : 0;
    cake__buf_free(out);
    return err;
}

/* Asks for more, with the next comparison where there is one. */
static int ask_next(pull_t *pull)
{
    cake__compare_t compare;
    bool has_compare = false;
    int err = cake__receiver_next_compare(pull->receiver, COMPARE_IDS, &has_compare, &compare);
    if (err != 0)
        return err;
    cake__buf_t out;
    cake__buf_init(&out, pull->store->alloc);
    cake__put_hail(pull->store, &out);
    cake__put_u64(&out, cake__receiver_hello(pull->receiver)->session_id);
    cake__put_u64(&out, pull->token);
    cake__put_u8(&out, has_compare);
    if (has_compare) {
        cake__compare_encode(&compare, &out);
        cake__compare_free(&compare, pull->store->alloc);
    }
    return call_peer(pull, "next", &out);
}

static void release_answer(pull_t *pull)
{
    cake__session_answer_free(&pull->answer, pull->store->alloc);
    cake_reply_free(pull->reply);
    pull->reply = NULL;
}

/* In another turn of the loop: what was written in this one has left by then. */
static void step_later(pull_t *pull)
{
    pull->store->env->ops->post(pull->store->env, &pull->step);
}

/* A repair walks through the set and drops tombstones in pieces, each in a turn of its own and in a batch of its
 * own. */
static bool takes_a_step(pull_t *pull, int *err)
{
    bool has_more = cake__receiver_is_finishing(pull->receiver);
    if (*err == 0 && !has_more)
        *err = cake__receiver_step(pull->receiver, &has_more);
    if (*err != 0 || !has_more)
        return false;
    pull->is_staging = true;
    step_later(pull);
    return true;
}

static void on_step(void *arg)
{
    pull_t *pull = arg;
    if (cake__store_is_stopping(pull->store)) {
        if (pull->reply != NULL)
            release_answer(pull);
        end_pull(pull, cake_strerror(CAKE_ECLOSED));
        return;
    }
    pull->task.bytes = cake_reply_body(pull->reply).len;
    cake__lane_submit(pull->keyspace->lane, &pull->task);
}

static void take_answer(pull_t *pull, cake_reply_t *reply);

/* What follows an answer that was taken whole. */
static void go_on(pull_t *pull)
{
    cake__session_phase_t phase = cake__receiver_phase(pull->receiver);
    cake_reply_t *ahead = pull->ahead;
    if (phase == CAKE__PHASE_FINISHED) {
        end_pull(pull, NULL);
    } else if (phase == CAKE__PHASE_ABORTED) {
        end_pull(pull, cake__receiver_reason(pull->receiver));
    } else if (pull->idle_rounds > 3 || cake__store_is_stopping(pull->store)) {
        end_pull(pull, "nothing more comes");
    } else if (ahead != NULL) {
        pull->ahead = NULL;
        take_answer(pull, ahead);
    } else if (!pull->is_asking && ask_next(pull) != 0) {
        end_pull(pull, "the next part cannot be asked for");
    }
}

static void finish_answer(cake__task_t *task, int err)
{
    pull_t *pull = CAKE_CONTAINER_OF(task, pull_t, task);
    bool is_idle = !pull->answer.has_welcome && !pull->answer.has_chunk && !pull->answer.has_compared;
    pull->idle_rounds = is_idle ? pull->idle_rounds + 1 : 0;
    if (pull->answer.has_welcome)
        pull->token = pull->answer.welcome.token;
    release_answer(pull);
    pull->is_staging = false;
    if (takes_a_step(pull, &err)) {
        pull->idle_rounds = 0;
        return;
    }
    if (err != 0)
        end_pull(pull, cake_strerror(err));
    else
        go_on(pull);
}

/* Its mode is known once the WELCOME is staged. */
static bool may_ask_ahead(const pull_t *pull)
{
    cake__session_mode_t mode = cake__receiver_mode(pull->receiver);
    bool compares = mode != CAKE__MODE_JOIN && mode != CAKE__MODE_DELTA;
    return !compares && pull->answer.has_chunk && !pull->answer.has_fin;
}

static void take_answer(pull_t *pull, cake_reply_t *reply)
{
    cake_store_t *store = pull->store;
    cake_slice_t body = cake_reply_body(reply);
    cake__hail_t hail;
    int err = cake_reply_err(reply);
    if (err == 0)
        err = cake__session_answer_decode(&pull->answer, store, body, &hail);
    if (err == 0 && hail.node_id != pull->node_id) {
        cake__session_answer_free(&pull->answer, store->alloc);
        err = CAKE_ECONFLICT;
    }
    if (err != 0 || cake__store_is_stopping(store)) {
        if (err == 0)
            cake__session_answer_free(&pull->answer, store->alloc);
        cake_reply_free(reply);
        end_pull(pull, cake_strerror(err != 0 ? err : CAKE_ECLOSED));
        return;
    }
    cake__peer_heard(store, &hail);
    for (size_t i = 0; i < pull->answer.chunk.count; i++)
        pull->answer.values[i].origin = &pull->origin;
    pull->origin.token = pull->answer.has_welcome ? pull->answer.welcome.token : pull->token;
    pull->reply = reply;
    pull->is_staging = true;
    if (may_ask_ahead(pull) && ask_next(pull) == 0)
        step_later(pull); /* once the request has left */
    else
        on_step(pull);
}

static void on_answer(cake_reply_t *reply, void *arg)
{
    pull_t *pull = arg;
    pull->is_asking = false;
    pull->store->stats.session_bytes += cake_reply_body(reply).len;
    if (pull->has_ended) {
        cake_reply_free(reply);
        end_pull(pull, pull->problem);
    } else if (pull->is_staging) {
        pull->ahead = reply;
    } else {
        take_answer(pull, reply);
    }
}

static uint64_t backoff_ms(uint32_t failures)
{
    uint64_t delay_ms = (uint64_t)WANT_BACKOFF_MIN_MS << (failures < 8 ? failures : 8);
    return delay_ms < WANT_BACKOFF_MAX_MS ? delay_ms : WANT_BACKOFF_MAX_MS;
}

static void settle_want(pull_t *pull, bool is_finished)
{
    cake__keyspace_t *keyspace = pull->keyspace;
    cake__want_t *want = find_want(keyspace, pull->node_id);
    if (want == NULL)
        return;
    if (is_finished)
        want->is_forced = false;
    if (is_finished && cake__context_covers(cake__keyspace_context(keyspace), &want->context)) {
        drop_want(keyspace, want);
        return;
    }
    want->failures = is_finished ? 0 : want->failures + 1;
    want->due_ns = cake__now_ns(pull->store->env) + backoff_ms(want->failures) * CAKE_NS_PER_MS;
}

static void end_pull(pull_t *pull, const char *problem)
{
    cake_store_t *store = pull->store;
    cake__keyspace_t *keyspace = pull->keyspace;
    bool is_repair = cake__receiver_mode(pull->receiver) == CAKE__MODE_REPAIR;
    CAKE_ASSERT(keyspace->pull == pull && store->pulls_running > 0);
    cake_reply_free(pull->ahead);
    pull->ahead = NULL;
    pull->has_ended = true;
    pull->problem = problem;
    if (pull->is_asking)
        return; /* again with its answer */
    if (problem != NULL)
        cake__log(store->log, CAKE_LOG_DEBUG, "session for %s from node %u ended: %s", keyspace->name,
                  (unsigned)pull->node_id, problem);
    keyspace->pull = NULL;
    store->pulls_running--;
    store->stats.sessions_finished += problem == NULL;
    store->stats.sessions_failed += problem != NULL;
    store->stats.repairs_finished += problem == NULL && is_repair;
    cake__receiver_free(pull->receiver);
    settle_want(pull, problem == NULL);
    cake__free(store->alloc, pull);
    if (!cake__store_is_stopping(store)) {
        cake__join_try(store);
        arm_want_timer(store);
    }
    cake__store_check_stopped(store);
}

static int start_pull(cake__keyspace_t *keyspace, uint16_t node_id)
{
    cake_store_t *store = keyspace->store;
    pull_t *pull = cake__calloc(store->alloc, 1, sizeof *pull);
    if (pull == NULL)
        return CAKE_ENOMEM;
    pull->store = store;
    pull->keyspace = keyspace;
    pull->node_id = node_id;
    pull->step = (cake_post_t){.fn = on_step, .arg = pull};
    pull->task =
        (cake__task_t){.keyspace = keyspace, .stage = stage_answer, .finish = finish_answer, .origin = &pull->origin};
    cake__origin_init(&pull->origin, store, node_id);
    int err = cake__receiver_new(keyspace->set, cake_node_id(store->node), ++store->next_session_id, &pull->receiver);
    if (err != 0) {
        cake__free(store->alloc, pull);
        return err;
    }
    keyspace->pull = pull;
    store->pulls_running++;
    cake__buf_t out;
    cake__buf_init(&out, store->alloc);
    cake__put_hail(store, &out);
    cake__put_string(&out, cake__slice_str(keyspace->name));
    cake__hello_encode(cake__receiver_hello(pull->receiver), &out);
    err = call_peer(pull, "open", &out);
    if (err != 0)
        end_pull(pull, cake_strerror(err));
    return err;
}

/* ---- the timer of wants -------------------------------------------------------------------------------------------*/

/* Starts what is due of one keyspace; returns when it is to be looked at again. */
static uint64_t look_at(cake__keyspace_t *keyspace, uint64_t now_ns)
{
    cake_store_t *store = keyspace->store;
    uint64_t next_ns = CAKE_NEVER;
    for (uint32_t i = 0; i < keyspace->want_count;) {
        cake__want_t *want = &keyspace->wants[i];
        cake__peer_t *peer = cake__peer_find(store, want->node_id);
        bool is_covered = !want->is_forced && cake__context_covers(cake__keyspace_context(keyspace), &want->context);
        bool is_pulling = keyspace->pull != NULL;
        if (!is_pulling && is_covered) {
            drop_want(keyspace, want);
            continue;
        }
        if (!is_pulling && (peer == NULL || !cake__peer_is_there(peer))) {
            give_up_want(keyspace, want); /* a peer that comes back pulses, and is wanted anew */
            continue;
        }
        if (want->due_ns > now_ns) {
            next_ns = cake__min_u64(next_ns, want->due_ns);
        } else if (!is_pulling && store->pulls_running < store->options.max_sessions) {
            uint16_t node_id = want->node_id;
            want->due_ns = now_ns + PULL_TIMEOUT_MS * CAKE_NS_PER_MS;
            (void)start_pull(keyspace, node_id);
            return cake__min_u64(next_ns, now_ns + WANT_BACKOFF_MIN_MS * CAKE_NS_PER_MS);
        }
        i++;
    }
    return next_ns;
}

void cake__want_tick(void *arg)
{
    cake_store_t *store = arg;
    uint64_t now_ns = cake__now_ns(store->env), next_ns = CAKE_NEVER;
    if (store->state != CAKE__STORE_RUNNING)
        return;
    CAKE_LIST_FOR_EACH_SAFE(link, &store->wanting)
    next_ns = cake__min_u64(next_ns, look_at(CAKE_CONTAINER_OF(link, cake__keyspace_t, wanting_link), now_ns));
    if (next_ns != CAKE_NEVER)
        store->env->ops->timer_arm(store->env, &store->want_timer, next_ns);
}

/* In a step of its own, and not more than once in each: wants come in flocks. */
static void arm_want_timer(cake_store_t *store)
{
    uint64_t now_ns = cake__now_ns(store->env);
    if (store->state != CAKE__STORE_RUNNING || cake__list_is_empty(&store->wanting))
        return;
    if (!store->want_timer.is_armed || store->want_timer.deadline_ns > now_ns)
        store->env->ops->timer_arm(store->env, &store->want_timer, now_ns);
}
