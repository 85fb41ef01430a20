/* Code of users in a cluster: told of starts and ends of nodes, asked for steps of clients, and for its rule at the
 * end. */
#include "sim/sim.h"

#include <stdio.h>

/* ---- what hooks may ask -------------------------------------------------------------------------------------------*/

void cake_sim_fail(cake_sim_t *sim, const char *rule, const char *format, ...)
{
    char text[400];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    cake__violation(sim, rule, "%s", text);
}

void cake_sim_note(cake_sim_t *sim, const char *format, ...)
{
    char text[1000];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    cake__note(sim, "%s", text);
}

uint64_t cake_sim_draw(cake_sim_t *sim)
{
    return cake__random_u64(&sim->draws[CAKE__TRIAL_DRAW_WORKLOAD]);
}

uint64_t cake_sim_now_ms(const cake_sim_t *sim)
{
    return cake__world_now_ns(sim->world) / CAKE_NS_PER_MS;
}

bool cake_sim_is_mended(const cake_sim_t *sim)
{
    return sim->calm_since_ns != 0;
}

uint32_t cake_sim_node_count(const cake_sim_t *sim)
{
    return sim->node_count;
}

static const cake__trial_node_t *find_up(const cake_sim_t *sim, uint16_t id)
{
    bool is_known = id > 0 && id <= sim->node_count;
    return is_known && sim->nodes[id - 1]->state == CAKE__IS_UP ? sim->nodes[id - 1] : NULL;
}

cake_node_t *cake_sim_node(const cake_sim_t *sim, uint16_t id)
{
    const cake__trial_node_t *node = find_up(sim, id);
    return node != NULL ? node->node : NULL;
}

cake_store_t *cake_sim_store(const cake_sim_t *sim, uint16_t id)
{
    const cake__trial_node_t *node = find_up(sim, id);
    return node != NULL ? node->store : NULL;
}

/* ---- calling the hooks --------------------------------------------------------------------------------------------*/

void cake__workload_begin(cake__trial_t *trial)
{
    const cake_sim_workload_t *workload = trial->options.workload;
    if (workload != NULL)
        trial->run = workload->begin != NULL ? workload->begin(trial, workload->arg) : workload->arg;
}

void cake__workload_end(cake__trial_t *trial)
{
    const cake_sim_workload_t *workload = trial->options.workload;
    if (workload != NULL && workload->end != NULL)
        workload->end(trial->run);
}

int cake__workload_started(cake__trial_node_t *node)
{
    cake__trial_t *trial = node->trial;
    const cake_sim_workload_t *workload = trial->options.workload;
    if (workload == NULL || workload->start == NULL)
        return 0;
    node->has_workload = true;
    return workload->start(trial->run, trial, node->id, node->node, node->store);
}

void cake__workload_gone(cake__trial_node_t *node)
{
    cake__trial_t *trial = node->trial;
    const cake_sim_workload_t *workload = trial->options.workload;
    if (node->has_workload && workload->gone != NULL)
        workload->gone(trial->run, trial, node->id);
    node->has_workload = node->is_stepping = false;
}

void cake__workload_check(cake__trial_t *trial)
{
    const cake_sim_workload_t *workload = trial->options.workload;
    if (workload != NULL && workload->check != NULL && !cake__has_failed(trial))
        workload->check(trial->run, trial);
}

bool cake__is_foreign(const cake__trial_t *trial, cake_slice_t keyspace)
{
    uint32_t number;
    return trial->options.workload != NULL && !cake__keyspace_parse(trial, keyspace, &number);
}

/* ---- clients ------------------------------------------------------------------------------------------------------*/

static void step_one(void *arg)
{
    cake__trial_node_t *node = arg;
    cake__trial_t *trial = node->trial;
    node->is_stepping = false;
    if (node->state != CAKE__IS_UP || cake__has_failed(trial))
        return;
    trial->result->steps++;
    trial->options.workload->step(trial->run, trial, node->id, node->node, node->store);
}

/* On the loop, where no thread of an application would hold up a crash. */
static void ask_for_step(cake__trial_t *trial)
{
    cake__trial_node_t *node = trial->nodes[cake__below(trial, CAKE__TRIAL_DRAW_WORKLOAD, trial->node_count)];
    if (node->state != CAKE__IS_UP || node->is_stepping)
        return;
    node->is_stepping = true;
    node->step_post = (cake_post_t){.fn = step_one, .arg = node};
    cake_env_t *env = cake__host_env(node->host);
    env->ops->post(env, &node->step_post);
}

static void on_client(void *arg)
{
    cake__trial_t *trial = arg;
    uint64_t now_ns = cake__world_now_ns(trial->world);
    if (!trial->is_chaotic || trial->steps_left == 0 || cake__has_failed(trial))
        return;
    uint64_t left_ns = trial->chaos_ends_ns > now_ns ? trial->chaos_ends_ns - now_ns : 1;
    uint64_t mean_ns = left_ns / (trial->steps_left + 1);
    trial->steps_left--;
    cake__world_at(trial->world, now_ns + cake__below(trial, CAKE__TRIAL_DRAW_WORKLOAD, mean_ns * 2 + 2), on_client,
                   trial);
    ask_for_step(trial);
}

void cake__workload_clients(cake__trial_t *trial)
{
    const cake_sim_workload_t *workload = trial->options.workload;
    trial->steps_left = trial->options.steps;
    if (workload != NULL && workload->step != NULL)
        cake__world_at(trial->world, cake__world_now_ns(trial->world), on_client, trial);
}
