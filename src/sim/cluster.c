/* The nodes of a trial: production code on simulated hosts, with a disk each that survives them.
 *
 *      DOWN --up--> STARTING --> UP --leave--> LEAVING --> DOWN
 *                      |         +---crash------------------^
 *                      +--failed: DOWN, and another try a little later
 *
 * Starting waits at gates, in events of the scenario: other events run meanwhile, but nothing is done to a host that
 * is starting. */
#include "sim/sim.h"

#include <stdio.h>

#include "node/node.h"

#define RETRY_MS 700u

/* ---- starting -----------------------------------------------------------------------------------------------------*/

static void on_membership(void *arg, cake_membership_kind_t kind, const cake_member_t *member)
{
    cake__check_membership_change(arg, kind, member);
}

static void on_change(void *arg, const cake_change_t *change)
{
    cake__check_change(arg, change);
}

static size_t key_count(const cake__trial_t *trial)
{
    return (size_t)trial->plan.keyspaces * trial->plan.keys;
}

/* Every other node that was ever there; the very first node starts without, and so the cluster begins. */
static size_t gather_seeds(cake__trial_node_t *node, const char **seeds)
{
    cake__trial_t *trial = node->trial;
    size_t count = 0;
    for (uint32_t i = 0; i < trial->node_count; i++) {
        if (trial->nodes[i] != node)
            seeds[count++] = trial->nodes[i]->address;
    }
    return count;
}

static int start_node(cake__trial_node_t *node, bool with_seeds)
{
    cake__trial_t *trial = node->trial;
    cake_env_t *env = cake__host_env(node->host);
    const char *seeds[CAKE__TRIAL_NODES_MAX];
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    uint64_t wall_ms = cake__wall_ms(env);
    node->generation = cake__max_u64(node->generation + 1, wall_ms);
    config.env = env;
    config.node_id = node->id;
    config.listen_addr = node->address;
    config.seeds = seeds;
    config.seed_count = with_seeds ? gather_seeds(node, seeds) : 0;
    config.cluster_id = "trial";
    config.data_center = node->data_center;
    config.generation = node->generation;
    int err = cake_node_start(&config, &node->node);
    if (err != 0)
        return err;
    cake_store_options_t options = CAKE_STORE_OPTIONS_INIT;
    options.tombstone_min_age_ms = trial->plan.tombstone_min_age_ms;
    options.hole_age_ms = trial->plan.hole_age_ms;
    options.timeout_ms = trial->plan.timeout_ms;
    options.chunk_records = trial->plan.chunk_records;
    options.forget_after_ms = trial->plan.forget_after_ms;
    options.no_compression = (trial->plan.unpacked >> node->id & 1) != 0;
    memset(node->told, 0, key_count(trial) * sizeof *node->told);
    err = cake__fetches_serve(node);
    if (err == 0)
        err = cake__disk_open(&node->disk);
    if (err != 0)
        return err;
    err = cake_store_open(node->node, &node->disk.base, &options, &node->store);
    if (err != 0)
        cake__disk_crash(&node->disk, false); /* it is still ours */
    if (err == 0)
        err = cake_store_watch(node->store, NULL, on_change, node, &node->changes);
    memset(node->written, 0, key_count(trial) * sizeof *node->written); /* what came before is not told */
    if (err == 0)
        err = cake_node_watch(node->node, on_membership, node, &node->watch);
    if (err == 0)
        err = cake__follower_start(node);
    if (err == 0)
        err = cake__calls_serve(node);
    return err == 0 ? cake__workload_started(node) : err;
}

static void retry_later(cake__trial_node_t *node);

static void retry(void *arg)
{
    cake__trial_node_t *node = arg;
    node->is_retrying = false;
    if (node->trial->is_over || node->state == CAKE__IS_UP)
        return;
    if (node->state == CAKE__IS_DOWN)
        cake__node_up(node, true);
    else
        retry_later(node);
}

static void retry_later(cake__trial_node_t *node)
{
    cake__world_t *world = node->trial->world;
    if (!node->is_retrying)
        cake__world_at(world, cake__world_now_ns(world) + RETRY_MS * CAKE_NS_PER_MS, retry, node);
    node->is_retrying = true;
}

static void forget_process(cake__trial_node_t *node)
{
    cake__workload_gone(node);
    cake__disk_crash(&node->disk, cake__host_is_silent(node->host));
    node->node = NULL;
    node->store = NULL;
    node->watch = node->changes = NULL;
    cake__follower_gone(node);
    node->is_forgetting = node->is_asking = false;
    node->pauses = 0;
    node->read_floor = 0; /* of other nodes' documents: no promise across restarts */
    node->is_paused = node->is_slow = node->is_stopped = false;
    node->state = CAKE__IS_DOWN;
    cake__picture_look(node->trial, node->id, CAKE__LOOKS_DOWN);
    cake__clients_node_gone(node);
}

/* A start that fails leaves a process that stops as it should, and leaks nothing. */
static void give_up_start(cake__trial_node_t *node, int err)
{
    cake__note_of(node, CAKE__MARK_EVENT, "cannot start: %s", cake_err_name(err));
    retry_later(node);
    if (node->node != NULL) {
        node->state = CAKE__IS_UP;
        cake__node_leave(node);
        return;
    }
    cake_env_t *env = cake__host_env(node->host);
    env->ops->close(env);
    cake__check_heap(node, true);
    forget_process(node);
}

void cake__node_up(cake__trial_node_t *node, bool with_seeds)
{
    cake__trial_t *trial = node->trial;
    CAKE_ASSERT(node->state == CAKE__IS_DOWN);
    node->state = CAKE__IS_STARTING;
    node->starts++;
    if (cake__host_env(node->host) == NULL)
        (void)cake__host_start(node->host);
    cake__note_of(node, CAKE__MARK_EVENT, "starts");
    cake__picture_look(trial, node->id, CAKE__LOOKS_UP);
    trial->blocking++;
    int err = start_node(node, with_seeds);
    if (err != 0)
        give_up_start(node, err);
    else
        node->state = CAKE__IS_UP;
    trial->blocking--;
}

/* ---- ending -------------------------------------------------------------------------------------------------------*/

void cake__node_crash(cake__trial_node_t *node, cake__crash_t how)
{
    CAKE_ASSERT(node->state == CAKE__IS_UP || node->state == CAKE__IS_LEAVING);
    cake__note_of(node, CAKE__MARK_DEATH, "crashes%s",
                  how == CAKE__CRASH_SILENT  ? ", and its machine"
                  : how == CAKE__CRASH_RESET ? ", its connections are reset"
                                             : "");
    cake__check_heap(node, false);
    cake__host_crash(node->host, how);
    forget_process(node);
}

static void close_env(void *arg)
{
    cake__trial_node_t *node = arg;
    if (!node->is_stopped)
        return; /* it crashed just now */
    cake_env_t *env = cake__host_env(node->host);
    env->ops->close(env);
    cake__check_heap(node, true);
    if (node->disk.is_open)
        cake__violation(node->trial, "resources", "node %u has stopped and left its storage open", node->id);
    cake__note_of(node, CAKE__MARK_EVENT, "has stopped");
    forget_process(node);
}

static void on_stopped(void *arg)
{
    cake__trial_node_t *node = arg;
    cake__world_t *world = node->trial->world;
    node->is_stopped = true;
    cake__world_at(world, cake__world_now_ns(world), close_env, node);
}

static void begin_stop(void *arg)
{
    cake__trial_node_t *node = arg;
    cake_watch_stop(node->watch);
    cake_watch_stop(node->changes);
    cake__follower_stop(node);
    node->watch = node->changes = NULL;
    cake__node_stop(node->node, on_stopped, node);
}

void cake__node_leave(cake__trial_node_t *node)
{
    CAKE_ASSERT(node->state == CAKE__IS_UP);
    cake_env_t *env = cake__host_env(node->host);
    cake__note_of(node, CAKE__MARK_EVENT, "stops");
    node->state = CAKE__IS_LEAVING;
    node->stop_post = (cake_post_t){.fn = begin_stop, .arg = node};
    env->ops->post(env, &node->stop_post);
}

/* ---- a second node with an id that is taken -------------------------------------------------------------------------
 * As when somebody copies a configuration: the same generation, another address, an empty storage of its own.
 * Clients do not know it. It is refused, and must do no harm. */

void cake__node_impersonate(cake__trial_node_t *node)
{
    cake__trial_t *trial = node->trial;
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    cake_store_options_t options = CAKE_STORE_OPTIONS_INIT;
    const char *seeds[CAKE__TRIAL_NODES_MAX];
    char address[CAKE_ADDR_TEXT_MAX];
    cake_storage_t *storage;
    cake_addr_t addr;
    trial->impostor = cake__world_add_host(trial->world);
    trial->is_impostor_starting = true;
    cake__host_addr(trial->impostor, CAKE__TRIAL_PORT, &addr);
    cake_addr_format(&addr, address);
    memcpy(trial->impostor_address, address, sizeof address);
    config.env = cake__host_env(trial->impostor);
    config.node_id = node->id;
    config.listen_addr = address;
    config.seeds = seeds;
    config.seed_count = gather_seeds(node, seeds);
    config.cluster_id = "trial";
    config.data_center = node->data_center;
    config.generation = node->generation;
    options.tombstone_min_age_ms = trial->plan.tombstone_min_age_ms;
    cake__note(trial, "a second node %u starts at %s", node->id, address);
    trial->blocking++;
    bool has_store = (trial->plan.kinds & CAKE_SIM_DUPLICATE_STORE) != 0;
    if (cake_node_start(&config, &trial->impostor_node) == 0 && has_store && cake_memory_open(&storage) == 0 &&
        cake_store_open(trial->impostor_node, storage, &options, &trial->impostor_store) != 0)
        cake_storage_close(storage);
    trial->blocking--;
    trial->is_impostor_starting = false;
}

/* Cut off or down for a while, the first of the two may have been taken for the second: somebody has to start it
 * again. */
void cake__node_unrefuse(cake__trial_node_t *node)
{
    if (node->state != CAKE__IS_UP || node->waiting != 0 || !node->node->is_duplicate || node->trial->impostor != NULL)
        return;
    cake__note_of(node, CAKE__MARK_EVENT, "is refused, and started again");
    cake__node_crash(node, CAKE__CRASH_RESET);
}

/* Its machine is switched off. */
void cake__impostor_end(cake__trial_t *trial)
{
    if (trial->impostor == NULL || trial->is_impostor_starting)
        return;
    cake_storage_t *storage = trial->impostor_store != NULL ? trial->impostor_store->storage : NULL;
    trial->result->ids_doubled += trial->impostor_node != NULL && trial->impostor_node->is_duplicate;
    cake__note(trial, "the second node is gone");
    cake__host_crash(trial->impostor, CAKE__CRASH_DRAWN);
    cake_storage_close(storage);
    trial->impostor = NULL;
    trial->impostor_node = NULL;
    trial->impostor_store = NULL;
}

/* ---- the cluster --------------------------------------------------------------------------------------------------*/

bool cake__node_is_ready(const cake__trial_node_t *node)
{
    const cake__trial_t *trial = node->trial;
    if (node->state != CAKE__IS_UP || !node->store->is_joined)
        return false;
    for (uint32_t i = 0; i < trial->node_count; i++) {
        uint16_t id = trial->nodes[i]->id;
        if (id == node->id)
            continue;
        const cake__peer_t *peer = cake__peer_find(node->store, id);
        if (peer == NULL || !peer->is_replica)
            return false;
    }
    return true;
}

void cake__node_move(cake__trial_node_t *node)
{
    cake_addr_t addr;
    node->host = cake__world_add_host(node->trial->world);
    cake__host_addr(node->host, CAKE__TRIAL_PORT, &addr);
    cake_addr_format(&addr, node->address);
}

cake__trial_node_t *cake__cluster_add(cake__trial_t *trial)
{
    CAKE_ASSERT(trial->node_count < CAKE__TRIAL_NODES_MAX);
    cake__trial_node_t *node = cake__sim_alloc(sizeof *node);
    node->trial = trial;
    node->id = (uint16_t)(trial->node_count + 1);
    cake__node_move(node);
    snprintf(node->data_center, sizeof node->data_center, "dc-%u",
             (unsigned)(trial->node_count % trial->plan.data_centers) + 1);
    node->told = cake__sim_alloc(key_count(trial) * sizeof *node->told);
    node->written = cake__sim_alloc(key_count(trial) * sizeof *node->written);
    cake__disk_new(trial, node);
    trial->nodes[trial->node_count++] = node;
    return node;
}

void cake__cluster_new(cake__trial_t *trial)
{
    trial->first_count = trial->options.nodes;
    for (uint32_t i = 0; i < trial->first_count; i++)
        cake__cluster_add(trial);
    for (uint32_t i = 0; i < trial->first_count; i++)
        cake__node_up(trial->nodes[i], i > 0 || trial->plan.all_have_seeds);
}

/* The world is gone, and what ran in it. */
void cake__cluster_free(cake__trial_t *trial)
{
    for (uint32_t i = 0; i < trial->node_count; i++) {
        cake__disk_free(&trial->nodes[i]->disk);
        cake__follower_free(trial->nodes[i]);
        cake__free(&cake__libc_alloc, trial->nodes[i]->told);
        cake__free(&cake__libc_alloc, trial->nodes[i]->written);
        cake__free(&cake__libc_alloc, trial->nodes[i]);
    }
}
