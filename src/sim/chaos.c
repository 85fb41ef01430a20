/* Makes the faults of hosts and links happen in time; those of the net's rates happen inside of sim/env. Each kind is a
 * chain of events: one of it, then the next after a drawn time. */
#include "sim/sim.h"

#define DAY_MS INT64_C(86400000)

typedef enum cake__shape {
    SHAPE_SPLIT,   /* two groups that do not hear each other */
    SHAPE_ONE_WAY, /* one group hears the other, not the other way round */
    SHAPE_PARTIAL, /* some pairs only */
    SHAPE_ALONE    /* one node */
} cake__shape_t;

/* One chain, or the end of something that goes on for a while. Lives until the event has run, or the trial ends. */
typedef struct {
    cake__list_t link; /* in trial->happenings */
    cake__trial_t *trial;
    cake__trial_node_t *node;
    uint32_t mean_ms, starts;
    void (*fn)(cake__trial_t *trial);
} happening_t;

static uint64_t below(cake__trial_t *trial, uint64_t bound)
{
    return cake__below(trial, CAKE__TRIAL_DRAW_CHAOS, bound);
}

static void later(cake__trial_t *trial, uint64_t delay_ms, cake_event_fn fn, happening_t happening)
{
    happening_t *kept = cake__sim_alloc(sizeof *kept);
    *kept = happening;
    cake__list_init(&kept->link);
    cake__list_push_back(&trial->happenings, &kept->link);
    cake__world_at(trial->world, cake__world_now_ns(trial->world) + delay_ms * CAKE_NS_PER_MS, fn, kept);
}

/* What an event of the world was given, which then is no more. */
static happening_t take(void *arg)
{
    happening_t *kept = arg, happening = *kept;
    cake__list_remove(&kept->link);
    cake__free(&cake__libc_alloc, kept);
    return happening;
}

static void on_chain(void *arg)
{
    happening_t happening = take(arg);
    cake__trial_t *trial = happening.trial;
    if (!trial->is_chaotic || cake__has_failed(trial))
        return;
    happening.fn(trial);
    later(trial, 1 + below(trial, (uint64_t)happening.mean_ms * 2), on_chain, happening);
}

static void start_chain(cake__trial_t *trial, uint32_t mean_ms, void (*fn)(cake__trial_t *trial))
{
    if (mean_ms > 0)
        later(trial, 1 + below(trial, (uint64_t)mean_ms * 2), on_chain,
              (happening_t){.trial = trial, .mean_ms = mean_ms, .fn = fn});
}

/* Any node in the state; NULL when there is none. */
static cake__trial_node_t *any_node(cake__trial_t *trial, cake__process_state_t state)
{
    uint32_t first = (uint32_t)below(trial, trial->node_count);
    for (uint32_t i = 0; i < trial->node_count; i++) {
        cake__trial_node_t *node = trial->nodes[(first + i) % trial->node_count];
        if (node->state == state && node->waiting == 0)
            return node;
    }
    return NULL;
}

/* ---- links --------------------------------------------------------------------------------------------------------*/

static void on_mended(void *arg)
{
    happening_t happening = take(arg);
    if (!happening.trial->is_chaotic)
        return;
    cake__note(happening.trial, "the net is whole again");
    cake__picture_look(happening.trial, 0, CAKE__LOOKS_UP);
    cake__world_heal(happening.trial->world);
}

static void cut(cake__trial_t *trial, cake__shape_t shape, uint64_t side, uint64_t pairs)
{
    for (uint32_t a = 1; a <= trial->node_count; a++) {
        uint32_t from = cake__host_number(trial->nodes[a - 1]->host);
        for (uint32_t b = 1; b <= trial->node_count; b++) {
            uint32_t to = cake__host_number(trial->nodes[b - 1]->host);
            bool crosses = (side >> a & 1) != 0 && (side >> b & 1) == 0;
            bool is_chosen = shape == SHAPE_PARTIAL ? a < b && (pairs >> ((a * 7 + b) % 64) & 1) != 0 : crosses;
            if (a == b || !is_chosen)
                continue;
            cake__world_cut(trial->world, from, to, true);
            if (shape != SHAPE_ONE_WAY)
                cake__world_cut(trial->world, to, from, true);
        }
    }
}

/* A flapping one is cut for half a second, again and again: chains of short lengths do that. */
static void partition(cake__trial_t *trial)
{
    static const char *const names[] = {"splits", "splits one way", "has holes", "loses a node"};
    cake__shape_t shape = (cake__shape_t)below(trial, 4);
    while ((trial->plan.partition_shapes >> shape & 1) == 0)
        shape = (cake__shape_t)below(trial, 4);
    uint64_t side = cake__random_u64(&trial->draws[CAKE__TRIAL_DRAW_CHAOS]);
    uint64_t pairs = cake__random_u64(&trial->draws[CAKE__TRIAL_DRAW_CHAOS]);
    if (shape == SHAPE_ALONE)
        side = UINT64_C(1) << (1 + below(trial, trial->node_count));
    cake__note(trial, "the net %s (%llx)", names[shape],
               (unsigned long long)(side & ((UINT64_C(2) << trial->node_count) - 2)));
    cut(trial, shape, side, pairs);
    cake__picture_look(trial, 0, CAKE__LOOKS_CUT);
    trial->result->partitions++;
    later(trial, 100 + below(trial, trial->plan.partition_len_ms), on_mended, (happening_t){.trial = trial});
}

/* ---- hosts --------------------------------------------------------------------------------------------------------*/

static void on_resumed(void *arg)
{
    happening_t happening = take(arg);
    cake__trial_node_t *node = happening.node;
    if (node->starts != happening.starts || !node->is_paused)
        return;
    cake__note_of(node, CAKE__MARK_EVENT, "goes on");
    node->is_paused = false;
    cake__picture_look(node->trial, node->id, CAKE__LOOKS_UP);
    cake__host_resume(node->host);
}

static void pause_one(cake__trial_t *trial)
{
    cake__trial_node_t *node = any_node(trial, CAKE__IS_UP);
    if (node == NULL || node->is_paused)
        return;
    cake__note_of(node, CAKE__MARK_EVENT, "is paused");
    trial->result->pauses++;
    node->pauses++;
    node->is_paused = true;
    cake__picture_look(trial, node->id, CAKE__LOOKS_PAUSED);
    cake__host_pause(node->host);
    later(trial, 10 + below(trial, trial->plan.pause_len_ms), on_resumed,
          (happening_t){.trial = trial, .node = node, .starts = node->starts});
}

static void slow_one(cake__trial_t *trial)
{
    cake__trial_node_t *node = any_node(trial, CAKE__IS_UP);
    if (node == NULL)
        return;
    uint64_t cost_us = node->is_slow ? 0 : 50 + below(trial, 3000);
    cake__note_of(node, CAKE__MARK_EVENT, "each event takes %llu us", (unsigned long long)cost_us);
    node->is_slow = !node->is_slow;
    node->pauses++;
    cake__picture_look(trial, node->id, node->is_slow ? CAKE__LOOKS_SLOW : CAKE__LOOKS_UP);
    cake__host_slow(node->host, cost_us * 1000);
}

static void on_back(void *arg)
{
    happening_t happening = take(arg);
    cake__trial_node_t *node = happening.node;
    if (!node->trial->is_chaotic || node->state == CAKE__IS_UP || node->state == CAKE__IS_STARTING)
        return;
    if (node->state == CAKE__IS_DOWN)
        cake__node_up_and_wait(node);
    else
        later(node->trial, 500, on_back, happening); /* it is still leaving */
}

static void come_back(cake__trial_node_t *node)
{
    cake__trial_t *trial = node->trial;
    later(trial, below(trial, trial->plan.down_len_ms), on_back, (happening_t){.trial = trial, .node = node});
}

static void crash_one(cake__trial_t *trial)
{
    cake__trial_node_t *node = any_node(trial, below(trial, 8) == 0 ? CAKE__IS_LEAVING : CAKE__IS_UP);
    if (node == NULL)
        return;
    trial->result->crashes++;
    cake__node_crash(node, CAKE__CRASH_DRAWN);
    come_back(node);
}

static void stop_one(cake__trial_t *trial)
{
    cake__trial_node_t *node = any_node(trial, CAKE__IS_UP);
    if (node == NULL)
        return;
    trial->result->stops++;
    cake__node_leave(node);
    come_back(node);
}

static void replace_disk(cake__trial_node_t *node)
{
    cake__trial_t *trial = node->trial;
    cake__note_of(node, CAKE__MARK_DEATH, "its disk is lost");
    if (below(trial, 2) == 0) {
        cake__node_move(node);
        trial->result->ids_reused++;
        cake__note_of(node, CAKE__MARK_EVENT, "its id is used by another machine, %s", node->address);
    }
    cake__disk_lose(&node->disk);
    node->has_lost_disk = true;
    node->write_floor = 0;
    come_back(node);
}

static void on_left(void *arg)
{
    happening_t happening = take(arg);
    cake__trial_node_t *node = happening.node;
    if (!node->trial->is_chaotic || node->starts != happening.starts)
        return;
    if (node->state == CAKE__IS_DOWN)
        replace_disk(node);
    else
        later(node->trial, 200, on_left, happening);
}

/* With its machine, or after a goodbye, when another machine gets its id. Never a second one: the levels promise to
 * survive less than half of the replicas. */
static void lose_disk(cake__trial_t *trial)
{
    cake__trial_node_t *node = any_node(trial, CAKE__IS_UP);
    if (node == NULL || trial->result->disk_losses > 0)
        return;
    trial->result->disk_losses++;
    if (below(trial, 3) != 0) {
        cake__node_crash(node, CAKE__CRASH_DRAWN);
        replace_disk(node);
        return;
    }
    cake__node_leave(node);
    later(trial, 200, on_left, (happening_t){.trial = trial, .node = node, .starts = node->starts});
}

static void on_impostor_gone(void *arg)
{
    happening_t happening = take(arg);
    cake__impostor_end(happening.trial);
}

static void double_one(cake__trial_t *trial)
{
    cake__trial_node_t *node = any_node(trial, CAKE__IS_UP);
    if (node == NULL || trial->impostor != NULL)
        return;
    later(trial, 3000 + below(trial, 15000), on_impostor_gone, (happening_t){.trial = trial});
    cake__node_impersonate(node);
}

/* ---- absence: so long that the others drop tombstones without the node --------------------------------------------*/

static void forget(void *arg)
{
    cake__trial_node_t *node = arg;
    cake__trial_t *trial = node->trial;
    trial->result->forgotten++; /* at once: writes that wait for it are acknowledged before the call is back */
    int err = node->state == CAKE__IS_UP ? cake_store_forget(node->store, node->forget_id) : CAKE_ECLOSED;
    node->is_forgetting = false;
    trial->result->forgotten -= err != 0;
    cake__note_of(node, CAKE__MARK_EVENT, "forgets node %u: %s", node->forget_id, err == 0 ? "ok" : cake_err_name(err));
    if (err != 0 && err != CAKE_ENOTFOUND && err != CAKE_EBUSY && err != CAKE_ECLOSED)
        cake__violation(trial, "answers", "forgetting a node fails with %s", cake_err_name(err));
}

static void on_given_up(void *arg)
{
    happening_t happening = take(arg);
    cake__trial_t *trial = happening.trial;
    cake__trial_node_t *node = any_node(trial, CAKE__IS_UP);
    if (!trial->is_chaotic || happening.node->state != CAKE__IS_DOWN || node == NULL || node->is_forgetting)
        return;
    node->is_forgetting = true;
    node->forget_id = happening.node->id;
    node->forget_post = (cake_post_t){.fn = forget, .arg = node};
    cake_env_t *env = cake__host_env(node->host);
    env->ops->post(env, &node->forget_post);
}

static void be_absent(cake__trial_t *trial)
{
    cake__trial_node_t *node = any_node(trial, CAKE__IS_UP);
    if (node == NULL)
        return;
    trial->result->crashes++;
    cake__node_crash(node, CAKE__CRASH_DRAWN);
    happening_t happening = {.trial = trial, .node = node};
    if (trial->plan.forget_after_ms == 0)
        later(trial, 5000 + below(trial, 8000), on_given_up, happening);
    later(trial, 8000 + below(trial, 20000), on_back, happening);
}

static void jump_clock(cake__trial_t *trial)
{
    cake__trial_node_t *node = trial->nodes[below(trial, trial->node_count)];
    cake_env_t *env = cake__host_env(node->host);
    if (env == NULL)
        return;
    int64_t most = (int64_t)trial->plan.clock_offset_ms;
    int64_t off = (int64_t)cake__wall_ms(env) - (int64_t)cake__world_wall_ms(trial->world);
    int64_t to = (int64_t)below(trial, (uint64_t)most * 2 + 1) - most;
    if (below(trial, 12) == 0)
        to = below(trial, 3) == 0 ? DAY_MS : -DAY_MS;
    trial->was_tomorrow |= to == DAY_MS;
    cake__note_of(node, CAKE__MARK_EVENT, "its clock jumps by %lld ms", (long long)(to - off));
    trial->result->jumps++;
    cake__host_jump_clock(node->host, to - off);
    cake__host_drift_clock(node->host, (int64_t)below(trial, trial->plan.clock_drift_ppm * 2 + 1) -
                                           (int64_t)trial->plan.clock_drift_ppm);
}

/* ---- a full disk: everything is refused until somebody makes room -------------------------------------------------*/

static void on_room(void *arg)
{
    happening_t happening = take(arg);
    happening.node->disk.is_full = false;
    cake__note_of(happening.node, CAKE__MARK_EVENT, "its disk has room");
}

static void fill_disk(cake__trial_t *trial)
{
    cake__trial_node_t *node = any_node(trial, CAKE__IS_UP);
    if (node == NULL || node->disk.is_full)
        return;
    cake__note_of(node, CAKE__MARK_EVENT, "its disk is full");
    trial->result->disk_errors++;
    node->disk.is_full = true;
    later(trial, 100 + below(trial, trial->plan.full_len_ms), on_room, (happening_t){.trial = trial, .node = node});
}

static bool has_room(const cake__trial_t *trial)
{
    return trial->node_count < trial->first_count + 3 && trial->node_count < CAKE__TRIAL_NODES_MAX;
}

/* The worst moment to lose whom it has joined: as it begins to count. */
static void on_joining(void *arg)
{
    happening_t happening = take(arg);
    cake__trial_t *trial = happening.trial;
    cake__trial_node_t *node = happening.node, *other = any_node(trial, CAKE__IS_UP);
    if (!trial->is_chaotic || node->starts != happening.starts || node->state == CAKE__IS_DOWN)
        return;
    if (node->state != CAKE__IS_UP || !node->store->is_joined) {
        later(trial, 1 + below(trial, 20), on_joining, happening);
    } else if (other != NULL && other != node) {
        cake__note_of(node, CAKE__MARK_EVENT, "has joined, as node %u dies", other->id);
        trial->result->crashes++;
        cake__node_crash(other, CAKE__CRASH_DRAWN);
        come_back(other);
    }
}

static void join_one(cake__trial_t *trial, uint64_t *side)
{
    cake__trial_node_t *node = cake__cluster_add(trial);
    trial->result->joins++;
    *side |= UINT64_C(1) << trial->node_count;
    cake__note(trial, "node %u is new", node->id);
}

/* Several at once outvote what there was; so they would in a minority, when they come while it is cut off. */
static void join(cake__trial_t *trial)
{
    bool is_split = trial->plan.partition_ms > 0 && below(trial, 2) == 0;
    uint32_t first = trial->node_count;
    uint64_t more = below(trial, 3) == 0 ? 3 : 1, few = 1 + below(trial, first / 2), from = below(trial, first),
             side = 0;
    for (uint64_t i = 0; i < few; i++)
        side |= UINT64_C(2) << (from + i) % first;
    for (; more > 0 && has_room(trial); more--)
        join_one(trial, &side);
    if (is_split && trial->node_count > first) {
        cake__note(trial, "the net splits, new ones on one side (%llx)", (unsigned long long)side);
        cut(trial, SHAPE_SPLIT, side, 0);
        cake__picture_look(trial, 0, CAKE__LOOKS_CUT);
        trial->result->partitions++;
        later(trial, 2000 + below(trial, trial->plan.partition_len_ms), on_mended, (happening_t){.trial = trial});
    }
    bool is_worst = trial->plan.crash_ms > 0 && below(trial, 2) == 0;
    for (uint32_t i = first; i < trial->node_count; i++) {
        cake__trial_node_t *node = trial->nodes[i];
        cake__node_up(node, true);
        if (is_worst)
            later(trial, 1, on_joining, (happening_t){.trial = trial, .node = node, .starts = node->starts});
    }
}

/* ---- beginning and end --------------------------------------------------------------------------------------------*/

void cake__chaos_start(cake__trial_t *trial)
{
    const cake__plan_t *plan = &trial->plan;
    trial->is_chaotic = true;
    cake__world_set_faults(trial->world, &plan->net);
    start_chain(trial, plan->partition_ms, partition);
    start_chain(trial, plan->pause_ms, pause_one);
    start_chain(trial, plan->slow_ms, slow_one);
    start_chain(trial, plan->crash_ms, crash_one);
    start_chain(trial, plan->stop_ms, stop_one);
    start_chain(trial, plan->disk_loss_ms, lose_disk);
    start_chain(trial, plan->jump_ms, jump_clock);
    start_chain(trial, plan->join_ms, join);
    start_chain(trial, plan->absence_ms, be_absent);
    start_chain(trial, plan->double_ms, double_one);
    start_chain(trial, plan->full_ms, fill_disk);
}

void cake__chaos_free(cake__trial_t *trial)
{
    while (!cake__list_is_empty(&trial->happenings))
        (void)take(CAKE_CONTAINER_OF(trial->happenings.next, happening_t, link));
}

void cake__chaos_end(cake__trial_t *trial)
{
    cake__note(trial, "everything is mended");
    trial->is_chaotic = false;
    trial->calm_since_ns = cake__world_now_ns(trial->world);
    cake__world_set_faults(trial->world, NULL);
    cake__world_heal(trial->world);
    if (trial->was_tomorrow) /* what was written tomorrow is refused until then: it is, now */
        cake__world_jump_clock(trial->world, DAY_MS + trial->plan.clock_offset_ms);
    for (uint32_t i = 0; i < trial->node_count; i++)
        cake__host_mend_clock(trial->nodes[i]->host);
    cake__impostor_end(trial);
    for (uint32_t i = 0; i < trial->node_count; i++) {
        cake__trial_node_t *node = trial->nodes[i];
        node->disk.may_fail = node->disk.is_full = false;
        if (node->is_paused)
            cake__host_resume(node->host);
        if (node->is_slow)
            cake__host_slow(node->host, 0);
        if (node->is_paused || node->is_slow)
            cake__picture_look(trial, node->id, CAKE__LOOKS_UP);
        node->is_paused = node->is_slow = false;
    }
    cake__picture_look(trial, 0, CAKE__LOOKS_UP);
    for (uint32_t i = 0; i < trial->node_count; i++) {
        cake__node_unrefuse(trial->nodes[i]);
        if (trial->nodes[i]->state == CAKE__IS_DOWN)
            cake__node_up(trial->nodes[i], true);
    }
}
