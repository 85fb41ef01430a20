/* Calls between the nodes, beside the store's: services that answer at once, later, from a worker, or with an error.
 * Checker "calls": the answer is that of the question, the error is the one that the handler gave, each call ends
 * once, in its time, and no handler runs twice for one call. */
#include "sim/sim.h"

#include <stdio.h>

#define PAYLOAD_HEAD 16u /* number u64, kind u32, what u32 */
#define PAYLOAD_MAX  100000u
#define LATENESS_NS  (1500 * CAKE_NS_PER_MS)
#define SERVICE      "trial"

typedef enum { ECHO, LATE, WORKER, FAILURE, KIND_COUNT } kind_t;

struct cake__asked {
    cake__trial_t *trial;
    uint64_t number, asked_ns;
    uint32_t size, timeout_ms, what; /* what: of LATE, milliseconds; of FAILURE, the error */
    uint16_t from, to;
    kind_t kind;
    uint32_t starts; /* of the node that asks */
    bool is_done, was_disturbed;
    uint32_t runs; /* of the handler */
};

/* ---- serving ------------------------------------------------------------------------------------------------------*/

typedef struct {
    cake_timer_t timer;
    cake_rpc_call_t *call;
    cake_env_t *env;
    cake__trial_t *trial;
} late_t;

static cake__asked_t *find(cake__trial_t *trial, cake_slice_t body)
{
    uint64_t number = body.len >= PAYLOAD_HEAD ? cake__load_le(body.data, 8) : UINT64_MAX;
    if (number < trial->asked_count && body.len == trial->asked[number]->size)
        return trial->asked[number];
    cake__violation(trial, "calls", "a handler is given a call that nobody made (%zu bytes)", body.len);
    return NULL;
}

static uint8_t byte_of(uint64_t number, size_t at)
{
    return (uint8_t)(number * 13 + at * 5 + 1);
}

static void answer(cake__trial_t *trial, cake_rpc_call_t *call)
{
    cake_slice_t body = cake_rpc_body(call);
    cake__asked_t *asked = find(trial, body);
    if (asked == NULL) {
        cake_rpc_fail(call, CAKE_EINTERNAL, NULL);
        return;
    }
    for (size_t i = PAYLOAD_HEAD; i < body.len; i++) {
        if (((const uint8_t *)body.data)[i] == byte_of(asked->number, i))
            continue;
        cake__violation(trial, "calls", "call %llu arrives with other bytes", (unsigned long long)asked->number);
        break;
    }
    if (++asked->runs > 1)
        cake__violation(trial, "calls", "the handler of call %llu runs twice", (unsigned long long)asked->number);
    if (asked->kind == FAILURE)
        cake_rpc_fail(call, -(int)asked->what, "as asked for");
    else
        cake_rpc_reply(call, body.data, body.len);
}

static void on_call(cake_rpc_call_t *call, void *arg)
{
    answer(((cake__trial_node_t *)arg)->trial, call);
}

static void on_late(void *arg)
{
    late_t *late = arg;
    answer(late->trial, late->call);
    cake__free(&late->env->alloc, late);
}

static void on_call_later(cake_rpc_call_t *call, void *arg)
{
    cake__trial_node_t *node = arg;
    cake_env_t *env = cake__host_env(node->host);
    cake_slice_t body = cake_rpc_body(call);
    late_t *late = cake__calloc(&env->alloc, 1, sizeof *late);
    if (late == NULL || body.len < PAYLOAD_HEAD) {
        cake__free(&env->alloc, late);
        cake_rpc_fail(call, CAKE_ENOMEM, NULL);
        return;
    }
    *late = (late_t){CAKE_TIMER_INIT(on_late, late), call, env, node->trial};
    cake__timer_arm_ms(env, &late->timer, cake__load_le((const uint8_t *)body.data + 12, 4));
}

int cake__calls_serve(cake__trial_node_t *node)
{
    static const cake_rpc_method_t methods[] = {{"echo", on_call, 0},
                                                {"late", on_call_later, 0},
                                                {"worker", on_call, CAKE_RPC_BLOCKING},
                                                {"failure", on_call, 0}};
    cake_rpc_service_t service = {SERVICE, methods, CAKE_COUNT_OF(methods), node, NULL};
    return node->trial->plan.calls == 0 ? 0 : cake_node_add_service(node->node, &service);
}

/* ---- asking -------------------------------------------------------------------------------------------------------*/

static void check_body(cake__trial_t *trial, const cake__asked_t *asked, cake_slice_t body)
{
    const uint8_t *at = body.data;
    bool is_same = asked->kind != FAILURE && body.len == asked->size && cake__load_le(at, 8) == asked->number;
    for (size_t i = PAYLOAD_HEAD; i < body.len && is_same; i++)
        is_same = at[i] == byte_of(asked->number, i);
    if (!is_same)
        cake__violation(trial, "calls", "call %llu of %u bytes gets an answer that is not its own (%zu bytes)",
                        (unsigned long long)asked->number, (unsigned)asked->size, body.len);
    else if (asked->runs == 0)
        cake__violation(trial, "calls", "call %llu is answered, and no handler ran", (unsigned long long)asked->number);
}

static bool is_expected(const cake__trial_t *trial, const cake__asked_t *asked, int err)
{
    switch (err) {
    case CAKE_ECONNECTION:
    case CAKE_ETIMEDOUT:
    case CAKE_ECLOSED:
    case CAKE_EUNAVAILABLE: /* it is still starting */
    case CAKE_EBUSY:
        return true;
    case CAKE_ENOMEM:
        return (trial->plan.kinds & CAKE_SIM_ALLOC) != 0;
    default:
        return asked->kind == FAILURE && err == -(int)asked->what;
    }
}

static void on_reply(cake_reply_t *reply, void *arg)
{
    cake__asked_t *asked = arg;
    cake__trial_t *trial = asked->trial;
    const cake__trial_node_t *node = trial->nodes[asked->from - 1];
    uint64_t took_ns = cake__world_now_ns(trial->world) - asked->asked_ns;
    int err = cake_reply_err(reply);
    if (asked->is_done)
        cake__violation(trial, "calls", "call %llu ends twice", (unsigned long long)asked->number);
    asked->is_done = true;
    trial->result->calls++;
    trial->result->calls_failed += err != 0;
    bool is_slowed = asked->was_disturbed || node->is_slow || node->is_paused || node->pauses != 0;
    if (!is_slowed && took_ns > asked->timeout_ms * CAKE_NS_PER_MS + LATENESS_NS)
        cake__violation(trial, "calls", "call %llu takes %llu ms, its time-out is %u ms",
                        (unsigned long long)asked->number, (unsigned long long)(took_ns / CAKE_NS_PER_MS),
                        (unsigned)asked->timeout_ms);
    if (err == 0)
        check_body(trial, asked, cake_reply_body(reply));
    else if (!is_expected(trial, asked, err))
        cake__violation(trial, "calls", "call %llu ends with %s", (unsigned long long)asked->number,
                        cake_err_name(err));
    cake_reply_free(reply);
}

static cake__asked_t *new_asked(cake__trial_t *trial, cake__trial_node_t *node)
{
    static const uint16_t errors[] = {1, 7, 300, 4000};
    cake__asked_t *asked = cake__sim_alloc(sizeof *asked);
    trial->asked = cake__realloc(&cake__libc_alloc, trial->asked, (trial->asked_count + 1) * sizeof(cake__asked_t *));
    CAKE_ASSERT(trial->asked != NULL);
    asked->trial = trial;
    asked->number = trial->asked_count;
    asked->asked_ns = cake__world_now_ns(trial->world);
    asked->from = node->id;
    asked->starts = node->starts;
    asked->was_disturbed = node->is_slow || node->is_paused;
    asked->to = trial->nodes[cake__below(trial, CAKE__TRIAL_DRAW_CALLS, trial->node_count)]->id;
    asked->kind = (kind_t)cake__below(trial, CAKE__TRIAL_DRAW_CALLS, KIND_COUNT);
    asked->timeout_ms = 200 + (uint32_t)cake__below(trial, CAKE__TRIAL_DRAW_CALLS, 5000);
    asked->what = (uint32_t)cake__below(trial, CAKE__TRIAL_DRAW_CALLS, 3000);
    if (asked->kind == FAILURE)
        asked->what = errors[asked->what % CAKE_COUNT_OF(errors)];
    uint64_t most = cake__below(trial, CAKE__TRIAL_DRAW_CALLS, 8) == 0 ? PAYLOAD_MAX : 300;
    asked->size = PAYLOAD_HEAD + (uint32_t)cake__below(trial, CAKE__TRIAL_DRAW_CALLS, most);
    trial->asked[trial->asked_count++] = asked;
    return asked;
}

/* On the loop of the node. */
static void ask(void *arg)
{
    static const char *const paths[] = {"/trial/echo", "/trial/late", "/trial/worker", "/trial/failure"};
    cake__trial_node_t *node = arg;
    cake__trial_t *trial = node->trial;
    cake_channel_t *channel;
    node->is_asking = false;
    if (node->state != CAKE__IS_UP)
        return;
    cake__asked_t *asked = new_asked(trial, node);
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    options.timeout_ms = asked->timeout_ms;
    asked->is_done = true; /* until it is under way */
    if (cake_node_channel(node->node, asked->to, &channel) != 0)
        return;
    uint8_t *bytes = cake__sim_alloc(asked->size);
    cake__store_le(bytes, asked->number, 8);
    cake__store_le(bytes + 8, asked->kind, 4);
    cake__store_le(bytes + 12, asked->what, 4);
    for (size_t i = PAYLOAD_HEAD; i < asked->size; i++)
        bytes[i] = byte_of(asked->number, i);
    cake_slice_t part = cake__slice(bytes, asked->size);
    asked->is_done =
        cake_channel_call_async(channel, paths[asked->kind], &part, 1, &options, on_reply, asked, NULL) != 0;
    cake__free(&cake__libc_alloc, bytes);
}

static void on_client(void *arg)
{
    cake__trial_t *trial = arg;
    uint64_t now_ns = cake__world_now_ns(trial->world);
    if (!trial->is_chaotic || trial->asked_count >= trial->plan.calls || cake__has_failed(trial))
        return;
    uint64_t left_ns = trial->chaos_ends_ns > now_ns ? trial->chaos_ends_ns - now_ns : 1;
    uint64_t mean_ns = left_ns / (trial->plan.calls - trial->asked_count + 1);
    cake__trial_node_t *node = trial->nodes[cake__below(trial, CAKE__TRIAL_DRAW_CALLS, trial->node_count)];
    cake__world_at(trial->world, now_ns + cake__below(trial, CAKE__TRIAL_DRAW_CALLS, mean_ns * 2 + 2), on_client,
                   trial);
    if (node->state != CAKE__IS_UP || node->is_asking)
        return;
    node->is_asking = true;
    node->ask_post = (cake_post_t){.fn = ask, .arg = node};
    cake_env_t *env = cake__host_env(node->host);
    env->ops->post(env, &node->ask_post);
}

void cake__calls_start(cake__trial_t *trial)
{
    if (trial->plan.calls > 0)
        cake__world_at(trial->world, cake__world_now_ns(trial->world), on_client, trial);
}

/* Every call ends, but those of processes that died. */
bool cake__are_calls_over(cake__trial_t *trial, char *why, size_t size)
{
    for (uint64_t i = 0; i < trial->asked_count; i++) {
        const cake__asked_t *asked = trial->asked[i];
        const cake__trial_node_t *node = trial->nodes[asked->from - 1];
        if (asked->is_done || node->starts != asked->starts || node->state != CAKE__IS_UP)
            continue;
        snprintf(why, size, "call %llu never ends", (unsigned long long)asked->number);
        return false;
    }
    return true;
}

void cake__calls_free(cake__trial_t *trial)
{
    for (uint64_t i = 0; i < trial->asked_count; i++)
        cake__free(&cake__libc_alloc, trial->asked[i]);
    cake__free(&cake__libc_alloc, trial->asked);
}
