/* One seed from beginning to end: the cluster forms, chaos, healing, demands. */
#include "sim/sim.h"

#include <stdio.h>
#include <stdlib.h>

#define FORMING_NS            (60 * CAKE__SECOND_NS)
#define EVENTS_PER_SECOND_MAX UINT64_C(50000) /* and node */

void *cake__sim_alloc(size_t size)
{
    void *block = cake__calloc(&cake__libc_alloc, 1, size);
    CAKE_ASSERT(block != NULL && "no memory for the simulator itself");
    return block;
}

/* ---- options ------------------------------------------------------------------------------------------------------*/

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value != 0 ? value : otherwise;
}

static int fill_options(cake__trial_t *trial, const cake_sim_options_t *options)
{
    cake_sim_options_t *to = &trial->options;
    if (options != NULL && cake__options_copy(to, sizeof *to, options) != 0)
        return CAKE_EINVAL;
    if (to->workload != NULL && cake__options_copy(&trial->workload, sizeof trial->workload, to->workload) != 0)
        return CAKE_EINVAL;
    to->workload = to->workload != NULL ? &trial->workload : NULL;
    to->seconds = or_default(to->seconds, 60);
    trial->has_default_writes = to->workload == NULL && to->writes == 0;
    to->writes = to->workload != NULL ? to->writes : or_default(to->writes, 500);
    to->steps = or_default(to->steps, 200);
    to->faults = to->faults == CAKE_SIM_NOTHING ? 0 : or_default(to->faults, CAKE_SIM_ALL);
    if (to->nodes > 32 || to->keys > CAKE__TRIAL_KEYS_MAX || to->keyspaces > CAKE__TRIAL_KEYSPACES_MAX ||
        to->writes > CAKE__TRIAL_OPS_MAX / 4 || to->storage > CAKE_SIM_STORAGE_SQLITE || to->seconds > 86400)
        return CAKE_EINVAL;
    return 0;
}

/* ---- phases -------------------------------------------------------------------------------------------------------*/

static bool has_formed(void *arg)
{
    cake__trial_t *trial = arg;
    bool all = true;
    for (uint32_t i = 0; i < trial->node_count && all; i++)
        all = cake__node_is_ready(trial->nodes[i]);
    return all || cake__has_failed(trial);
}

/* Asked after each event: a storm of messages is a failure, and would take for ever. */
static bool is_failed(void *arg)
{
    cake__trial_t *trial = arg;
    uint64_t second = cake__world_now_ns(trial->world) / CAKE__SECOND_NS;
    uint64_t events = cake__world_event_count(trial->world);
    if (second != trial->second) {
        trial->second = second;
        trial->second_events = events;
    }
    if (events - trial->second_events > EVENTS_PER_SECOND_MAX * trial->node_count)
        cake__violation(trial, "resources", "a storm: %llu events in one second",
                        (unsigned long long)(events - trial->second_events));
    return cake__has_failed(trial);
}

static void run_phases(cake__trial_t *trial)
{
    cake__world_t *world = trial->world;
    trial->disks_hold = true;
    cake__workload_begin(trial);
    cake__cluster_new(trial);
    if (!cake__world_run_until(world, has_formed, trial, cake__world_now_ns(world) + FORMING_NS))
        cake__violation(trial, "forming", "the cluster has not formed within a minute");
    if (cake__has_failed(trial))
        return;
    cake__note(trial, "the cluster has formed");
    trial->disks_hold = false;
    uint64_t chaos_ns = trial->options.seconds * CAKE__SECOND_NS * 2 / 3;
    trial->chaos_ends_ns = cake__world_now_ns(world) + chaos_ns;
    cake__chaos_start(trial);
    cake__clients_start(trial);
    cake__followers_begin(trial);
    cake__workload_clients(trial);
    cake__calls_start(trial);
    cake__world_run_until(world, is_failed, trial, trial->chaos_ends_ns);
    if (!cake__has_failed(trial)) {
        cake__chaos_end(trial);
        cake__settle(trial);
    }
    trial->is_chaotic = false;
    if (cake__has_failed(trial))
        cake__dump(trial);
}

/* ---- making and freeing -------------------------------------------------------------------------------------------*/

static int make_world(cake__trial_t *trial)
{
    cake__world_options_t options = {.seed = trial->seed,
                                     .latency_max_ns = trial->plan.latency_max_ns,
                                     .clock_offset_max_ms = trial->plan.clock_offset_ms,
                                     .clock_drift_max_ppm = trial->plan.clock_drift_ppm};
    if (trial->options.has_log && trial->options.trace != NULL) {
        trial->log = cake__trace_log(trial);
        options.log = &trial->log;
    }
    if (trial->options.has_events) {
        options.trace = trial->options.trace;
        options.trace_arg = trial->options.trace_arg;
    }
    if (trial->picture != NULL) {
        options.flight = cake__picture_flight;
        options.flight_arg = trial;
    }
    return cake__world_new(&options, &trial->world);
}

static void make_key_ids(cake__trial_t *trial)
{
    trial->key_ids = cake__sim_alloc(trial->plan.keys * sizeof *trial->key_ids);
    for (uint32_t key = 0; key < trial->plan.keys; key++) {
        char text[64];
        int err = cake__key_id(cake__slice(text, cake__key_text(key, text)), &trial->key_ids[key]);
        CAKE_ASSERT(err == 0);
    }
}

static void free_trial(cake__trial_t *trial)
{
    trial->is_over = true;
    cake__impostor_end(trial);
    cake__world_free(trial->world);
    cake__chaos_free(trial);
    cake__cluster_free(trial);
    cake__files_clean(trial);
    cake__workload_end(trial);
    cake__calls_free(trial);
    cake__clients_free(trial);
    cake__free(&cake__libc_alloc, trial->floors);
    cake__free(&cake__libc_alloc, trial->deleted);
    cake__free(&cake__libc_alloc, trial->key_ids);
    cake__free(&cake__libc_alloc, trial);
}

int cake_sim_run(uint64_t seed, const cake_sim_options_t *options, cake_sim_result_t *result)
{
    return cake__sim_run(seed, options, result, NULL);
}

int cake__sim_run(uint64_t seed, const cake_sim_options_t *options, cake_sim_result_t *result, cake__picture_t *picture)
{
    cake__trial_t *trial = cake__sim_alloc(sizeof *trial);
    trial->picture = picture;
    *result = (cake_sim_result_t){.seed = seed};
    trial->seed = seed;
    cake__list_init(&trial->happenings);
    trial->result = result;
    int err = fill_options(trial, options);
    if (err != 0) {
        cake__free(&cake__libc_alloc, trial);
        return err;
    }
    for (unsigned i = 0; i < CAKE__TRIAL_DRAW_COUNT; i++)
        cake__random_init(&trial->draws[i], cake__mix64(seed + 1) ^ cake__mix64(i + 1000));
    cake__plan_draw(trial);
    result->nodes = trial->options.nodes;
    result->storage = trial->options.storage;
    cake__plan_print(trial, result->faults, sizeof result->faults);
    cake__note(trial, "seed %llu: %s", (unsigned long long)seed, result->faults);
    size_t places = (size_t)trial->plan.keyspaces * trial->plan.keys;
    trial->floors = cake__sim_alloc((1 + trial->plan.data_centers) * places * sizeof *trial->floors);
    trial->deleted = cake__sim_alloc(places * sizeof *trial->deleted);
    make_key_ids(trial);
    err = make_world(trial);
    CAKE_ASSERT(err == 0);
    run_phases(trial);
    result->ok = !cake__has_failed(trial);
    cake__picture_end(trial);
    result->virtual_ms = cake__world_now_ns(trial->world) / CAKE_NS_PER_MS;
    result->events = cake__world_event_count(trial->world);
    result->trace_hash = cake__mix64(trial->hash ^ cake__world_trace_hash(trial->world));
    free_trial(trial);
    return 0;
}
