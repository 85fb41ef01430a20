/* The loop of a simulated host: timers, posts, deferred calls, gates, and its lanes. */
#include "sim/env/world.h"

#define DEFERRED_MAX 1000000u /* in one step; more is a loop that never ends */

struct cake_lane {
    cake__simenv_t *env;
    cake_work_t *first, **last;           /* to run */
    cake_work_t *first_done, **last_done; /* ran; done to be called */
    size_t under_way;
    bool is_closing;
    cake_event_fn closed;
    void *arg;
};

/* ---- timers: the least of a host's has one event in the world's queue ---- */

static void schedule_least(cake__simenv_t *env)
{
    cake__host_t *host = env->host;
    uint64_t now_ns = host->monotonic_base_ns + host->world->now_ns;
    uint64_t deadline_ns = cake__timers_deadline_ns(&env->timers);
    if (env->timer_event != NULL) {
        bool both_due = env->timer_event_deadline_ns <= now_ns && deadline_ns <= now_ns;
        if (both_due || env->timer_event_deadline_ns == deadline_ns)
            return; /* a due one keeps its place among the parked events */
        cake__sim_cancel(host->world, &env->timer_event);
    }
    if (deadline_ns == CAKE_NEVER)
        return;
    uint64_t at_ns = deadline_ns > host->monotonic_base_ns ? deadline_ns - host->monotonic_base_ns : 0;
    env->timer_event = cake__sim_schedule(host->world, CAKE__SIM_TIMER, host, at_ns, env);
    env->timer_event_deadline_ns = deadline_ns;
}

void cake__sim_timer_arm(cake_env_t *base, cake_timer_t *timer, uint64_t deadline_ns)
{
    cake__simenv_t *env = cake__simenv(base);
    cake__sim_check_on_loop(env);
    cake__timers_arm(&env->timers, timer, deadline_ns);
    schedule_least(env);
}

void cake__sim_timer_cancel(cake_env_t *base, cake_timer_t *timer)
{
    cake__simenv_t *env = cake__simenv(base);
    cake__sim_check_on_loop(env);
    if (!timer->is_armed)
        return;
    cake__timers_cancel(&env->timers, timer);
    schedule_least(env);
}

void cake__sim_run_timer(cake__world_t *world, cake__host_t *host, void *object)
{
    cake__simenv_t *env = object;
    env->timer_event = NULL;
    cake_timer_t *timer = cake__timers_least(&env->timers);
    CAKE_ASSERT(timer != NULL && timer->deadline_ns <= host->monotonic_base_ns + world->now_ns);
    cake__timers_cancel(&env->timers, timer);
    schedule_least(env);
    timer->fn(timer->arg);
}

/* ---- posts and deferred calls ---- */

void cake__sim_post(cake_env_t *base, cake_post_t *post)
{
    cake__simenv_t *env = cake__simenv(base);
    post->next = NULL;
    *env->last_post = post;
    env->last_post = &post->next;
    cake__sim_schedule(env->host->world, CAKE__SIM_POST, env->host, env->host->world->now_ns, env);
}

void cake__sim_run_post(cake__world_t *world, cake__host_t *host, void *object)
{
    cake__simenv_t *env = object;
    cake_post_t *post = env->first_post;
    CAKE_ASSERT(post != NULL);
    env->first_post = post->next;
    if (env->first_post == NULL)
        env->last_post = &env->first_post;
    post->fn(post->arg);
}

void cake__sim_defer(cake_env_t *base, cake_deferred_t *deferred)
{
    cake__simenv_t *env = cake__simenv(base);
    cake__sim_check_on_loop(env);
    cake__deferreds_add(&env->deferreds, deferred);
}

void cake__sim_defer_cancel(cake_env_t *base, cake_deferred_t *deferred)
{
    cake__simenv_t *env = cake__simenv(base);
    cake__sim_check_on_loop(env);
    cake__deferreds_cancel(&env->deferreds, deferred);
}

void cake__sim_run_deferred(cake__simenv_t *env)
{
    unsigned count = 0;
    while (cake__deferreds_run_one(&env->deferreds))
        CAKE_ASSERT(++count < DEFERRED_MAX && "deferred calls that defer each other for ever");
}

bool cake__sim_on_loop(cake_env_t *base)
{
    const cake__simenv_t *env = cake__simenv(base);
    return env->host->world->current == env->host && !env->host->world->in_lane;
}

/* ---- gates: the first word says whether it is open ---- */

void cake__sim_gate_init(cake_env_t *base, cake_gate_t *gate)
{
    *gate = (cake_gate_t){0};
}

void cake__sim_gate_open(cake_env_t *base, cake_gate_t *gate)
{
    gate->opaque[0] = 1;
}

void cake__sim_gate_destroy(cake_env_t *base, cake_gate_t *gate)
{
    gate->opaque[0] = 2;
}

void cake__sim_gate_wait(cake_env_t *base, cake_gate_t *gate)
{
    cake__host_t *host = cake__simenv(base)->host;
    cake__world_t *world = host->world;
    uint32_t incarnation = host->incarnation;
    uint64_t until_ns = world->now_ns + CAKE__WORLD_WAIT_MAX_NS;
    bool in_lane = world->in_lane;
    CAKE_ASSERT((world->current == NULL || in_lane) && "the loop may not wait at a gate");
    world->current = NULL; /* a lane's thread waits as any other does */
    world->in_lane = false;
    while (gate->opaque[0] == 0) {
        CAKE_ASSERT(world->queue_len > 0 && world->queue[0].at_ns <= until_ns && "nothing will open this gate");
        cake__world_step(world);
        CAKE_ASSERT(host->incarnation == incarnation && "the host of a waiting thread crashed");
    }
    world->current = in_lane ? host : NULL;
    world->in_lane = in_lane;
}

/* ---- lanes ---- */

static uint64_t lane_delay_ns(cake__world_t *world)
{
    const cake__world_options_t *options = &world->options;
    return cake__sim_between(world, CAKE__DRAW_LANE, options->lane_min_ns, options->lane_max_ns);
}

static void schedule_run(cake_lane_t *lane)
{
    cake__world_t *world = lane->env->host->world;
    const cake__faults_t *faults = &world->options.faults;
    uint64_t at_ns = world->now_ns + lane_delay_ns(world);
    if (cake__sim_happens(world, CAKE__DRAW_LANE_STALL, faults->lane_stall_rate))
        at_ns += cake__sim_between(world, CAKE__DRAW_LANE_STALL, 0, faults->lane_stall_max_ns);
    cake__sim_schedule(world, CAKE__SIM_LANE_RUN, lane->env->host, at_ns, lane);
}

int cake__sim_lane_open(cake_env_t *base, const char *name, cake_lane_t **out)
{
    cake__simenv_t *env = cake__simenv(base);
    cake__sim_check_on_loop(env);
    cake_lane_t *lane = cake__calloc(&base->alloc, 1, sizeof *lane);
    if (lane == NULL)
        return CAKE_ENOMEM;
    lane->env = env;
    lane->last = &lane->first;
    lane->last_done = &lane->first_done;
    env->open_count++;
    *out = lane;
    return 0;
}

void cake__sim_lane_submit(cake_lane_t *lane, cake_work_t *work)
{
    cake__sim_check_on_loop(lane->env);
    CAKE_ASSERT(!lane->is_closing);
    bool was_idle = lane->first == NULL;
    work->next = NULL;
    *lane->last = work;
    lane->last = &work->next;
    lane->under_way++;
    if (was_idle)
        schedule_run(lane);
}

void cake__sim_run_lane_work(cake__world_t *world, cake__host_t *host, void *object)
{
    cake_lane_t *lane = object;
    cake_work_t *work = lane->first;
    CAKE_ASSERT(work != NULL);
    work->run(work->arg);
    lane->first = work->next;
    if (lane->first == NULL)
        lane->last = &lane->first;
    work->next = NULL;
    *lane->last_done = work;
    lane->last_done = &work->next;
    cake__sim_schedule(world, CAKE__SIM_LANE_DONE, host, world->now_ns + lane_delay_ns(world), lane);
    if (lane->first != NULL)
        schedule_run(lane);
}

static void close_when_idle(cake_lane_t *lane)
{
    cake__host_t *host = lane->env->host;
    if (lane->is_closing && lane->under_way == 0)
        cake__sim_schedule(host->world, CAKE__SIM_LANE_CLOSED, host, host->world->now_ns, lane);
}

void cake__sim_run_lane_done(cake__world_t *world, cake__host_t *host, void *object)
{
    cake_lane_t *lane = object;
    cake_work_t *work = lane->first_done;
    CAKE_ASSERT(work != NULL && lane->under_way > 0);
    lane->first_done = work->next;
    if (lane->first_done == NULL)
        lane->last_done = &lane->first_done;
    work->done(work->arg);
    lane->under_way--; /* after done, so that a close inside of it is not scheduled twice */
    close_when_idle(lane);
}

void cake__sim_lane_close(cake_lane_t *lane, cake_event_fn closed, void *arg)
{
    cake__sim_check_on_loop(lane->env);
    CAKE_ASSERT(!lane->is_closing);
    lane->is_closing = true;
    lane->closed = closed;
    lane->arg = arg;
    close_when_idle(lane);
}

void cake__sim_run_lane_closed(cake__world_t *world, cake__host_t *host, void *object)
{
    cake_lane_t *lane = object;
    cake_event_fn closed = lane->closed;
    void *arg = lane->arg;
    lane->env->open_count--;
    cake__free(&lane->env->base.alloc, lane);
    if (closed != NULL)
        closed(arg);
}
