/* world.c: one run: what it is made of, drawn from the seed, its events and its faults. */
#include <stdio.h>
#include <stdlib.h>

#include "crdt/model/world.h"

/* Loss, repetition, reordering, partitions, clock skew, refused and lost batches are always on. */
static const profile_t profiles[] = {
    {.name = "strict", .unclean_crash = true, .clean_restart = true},
    {.name = "strict", .unclean_crash = true, .clean_restart = true},
    {.name = "forced",
     .unclean_crash = true,
     .clean_restart = true,
     .forced_drop = true,
     .silent_ms = 80,
     .holes_age = true},
    {.name = "disk",
     .unclean_crash = true,
     .clean_restart = true,
     .disk_loss = true,
     .silent_ms = 80,
     .holes_age = true,
     .leaves = true},
    {.name = "all",
     .unclean_crash = true,
     .clean_restart = true,
     .forced_drop = true,
     .disk_loss = true,
     .silent_ms = 50,
     .holes_age = true,
     .leaves = true},
    {.name = "sessions", .forced_drop = true, .busy_sessions = true},
    {.name = "sessions", .forced_drop = true, .busy_sessions = true},
    {.name = "crashes", .unclean_crash = true, .clean_restart = true, .forced_drop = true, .busy_sessions = true},
    {.name = "joins", .clean_restart = true, .forced_drop = true, .busy_sessions = true, .disk_loss = true},
};

static const double plain_weights[EVENT_COUNT] = {16, 42, 4, 6, 18, 2, 8, 2, 4, 6, 1, 0.6, 1.5};
static const double busy_weights[EVENT_COUNT] = {16, 60, 4, 10, 40, 0.2, 8, 2, 0.5, 8, 0, 0.2, 3};
static const double strict_weights[EVENT_COUNT] = {16, 42, 4, 6, 18, 5, 8, 2, 6, 10, 1, 0.6, 6};

const char *const count_names[COUNT_COUNT] = {
    "runs",         "joins",        "deltas",  "repairs",      "aborted sessions",
    "reissues",

    "stable drops", "forced drops", "crashes", "lost batches", "torn batches",
    "disks lost",   "acknowledged", "retired", "quiet rounds", "tombstones kept above a permanent hole",
    "steps"};

void violate(world_t *world, const char *format, ...)
{
    va_list args;
    int len = snprintf(world->violation, sizeof world->violation, "step %u [%s] ", world->step, world->profile->name);
    va_start(args, format);
    vsnprintf(world->violation + len, sizeof world->violation - (size_t)len, format, args);
    va_end(args);
    longjmp(world->on_violation, 1);
}

bool chance(world_t *world, double probability)
{
    return cake__random_unit(&world->random) < probability;
}

uint64_t pick(world_t *world, uint64_t below)
{
    return cake__random_below(&world->random, below);
}

/* Here no session may ever be refused because of a drop, and no repair may run. */
bool is_strict(const world_t *world)
{
    const profile_t *profile = world->profile;
    return !(profile->forced_drop || profile->silent_ms != 0 || profile->holes_age || profile->disk_loss ||
             profile->leaves);
}

static double one_of(world_t *world, double a, double b, double c)
{
    uint64_t choice = pick(world, 3);
    return choice == 0 ? a : choice == 1 ? b : c;
}

static void draw_parameters(world_t *world)
{
    static const uint32_t node_counts[] = {2, 3, 3, 4};
    const profile_t *profile = world->profile = &profiles[pick(world, CAKE_COUNT_OF(profiles))];
    world->node_count = node_counts[pick(world, 4)];
    world->eager_loss = one_of(world, 0.2, 0.5, 0.9);
    world->late_share = one_of(world, 0.1, 0.5, 0.9);
    world->repeat_share = one_of(world, 0.02, 0.06, 0.25);
    world->key_count = (uint32_t)(profile->busy_sessions ? one_of(world, 2, 3, 4) : one_of(world, 2, 6, 20));
    world->sessions_at_once = (uint32_t)one_of(world, 1, 2, 4);
    world->steps = (uint32_t)one_of(world, 80, 200, 500);
    world->chunk_limit = (uint32_t)one_of(world, 1, 2, 5);
    world->drop_rate = chance(world, 0.5) ? 0.1 : 0.5;
    world->commit_rate = one_of(world, 0.3, 0.8, 1);
    world->level = (uint32_t)cake__min_u64((uint64_t)one_of(world, 1, 2, 3), world->node_count);
    /* From ids alone to ranges of one record in three levels; small steps, so that much comes between them. */
    world->repair = (cake__repair_limits_t){.leaf_records = chance(world, 0.3) ? 100 : 1,
                                            .least_bits = chance(world, 0.1) ? 12 : 0,
                                            .few_records = chance(world, 0.5) ? 0 : 1,
                                            .step_records = 1,
                                            .step_drops = 1 + (uint32_t)pick(world, 2)};
    world->retire_rate = one_of(world, 0, 0.2, 0.8);
    world->hole_age_ms = profile->holes_age ? HOLE_AGE_MS : NEVER_MS;
    const double *weights = profile->busy_sessions ? busy_weights : is_strict(world) ? strict_weights : plain_weights;
    for (int i = 0; i < EVENT_COUNT; i++) /* every run stresses other things */
        world->weights[i] = weights[i] * (chance(world, 0.5) ? 1 : chance(world, 0.5) ? 0.4 : 3);
}

static void set_up(world_t *world, uint64_t seed)
{
    cake__random_init(&world->random, seed);
    draw_parameters(world);
    world->counts[COUNT_RUNS] = 1;
    world->now_ms = START_MS;
    world->next_session_id = 1;
    for (uint32_t i = 0; i < world->node_count; i++) {
        static const int64_t offsets[] = {0, 0, 5, -5, 20};
        node_t *node = &world->nodes[i];
        node->id = i;
        image_init(&node->image, true);
        cake__context_init(&node->promised_context, &cake__libc_alloc);
        node->wall_offset_ms = offsets[pick(world, 5)];
        if (chance(world, 0.2)) /* a counter about to overflow */
            node->image.clock_bound = (START_MS + 30) << 16 | 0xfffc;
        node_start(world, node);
    }
}

/* ---- faults of machines ------------------------------------------------------------------------------------------ */

static void restart_from_old_image(world_t *world, node_t *node)
{
    if (node->old_image_count == 0)
        return;
    uint32_t chosen = (uint32_t)pick(world, node->old_image_count);
    node_lose_disk(world, node);
    image_copy(&node->image, &node->old_images[chosen]); /* declared: the process takes a new actor */
    node_start(world, node);
}

static void restart_cleanly(world_t *world, node_t *node)
{
    node_settle(world, node);
    if (node->old_image_count < IMAGES_MAX) {
        image_init(&node->old_images[node->old_image_count], true);
        image_copy(&node->old_images[node->old_image_count++], &node->image);
    }
    node_stop(node);
    node_start(world, node);
}

static void restart_empty(world_t *world, node_t *node)
{
    node_lose_disk(world, node);
    image_free(&node->image);
    image_init(&node->image, false);
    node_start(world, node);
}

static void leave(world_t *world, node_t *node)
{
    for (uint32_t i = 0; i < world->node_count; i++) {
        if (world->nodes[i].is_gone || world->node_count == 2)
            return;
    }
    node_lose_disk(world, node);
    node->is_gone = true;
}

static void machine_fault(world_t *world, node_t *node)
{
    enum { CRASH, CLEAN, DISK, IMAGE, LEAVE } kinds[16];
    const profile_t *profile = world->profile;
    uint32_t count = 0;
    for (uint32_t i = 0; i < 4 && profile->unclean_crash; i++)
        kinds[count++] = CRASH;
    for (uint32_t i = 0; i < 2 && profile->clean_restart; i++)
        kinds[count++] = CLEAN;
    for (uint32_t i = 0; i < 4 && profile->disk_loss; i++)
        kinds[count++] = DISK;
    for (uint32_t i = 0; i < 2 && profile->disk_loss; i++)
        kinds[count++] = IMAGE;
    if (profile->leaves)
        kinds[count++] = LEAVE;
    switch (count == 0 ? (int)LEAVE + 1 : (int)kinds[pick(world, count)]) {
    case CRASH:
        node_crash(world, node);
        break;
    case CLEAN:
        restart_cleanly(world, node);
        break;
    case DISK:
        restart_empty(world, node);
        break;
    case IMAGE:
        restart_from_old_image(world, node);
        break;
    case LEAVE:
        leave(world, node);
        break;
    default:
        break;
    }
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static int draw_event(world_t *world)
{
    double total = 0;
    for (int i = 0; i < EVENT_COUNT; i++)
        total += world->weights[i];
    double at = cake__random_unit(&world->random) * total;
    for (int i = 0; i < EVENT_COUNT; i++) {
        at -= world->weights[i];
        if (at < 0)
            return i;
    }
    return EVENT_DELIVER;
}

static bool is_disturbable(const receiving_t *receiving)
{
    return cake__receiver_phase(receiving->receiver) == CAKE__PHASE_RUNNING &&
           cake__receiver_mode(receiving->receiver) != CAKE__MODE_DELTA;
}

/* Something happens at one end of a running repair or join. */
static void disturb_session(world_t *world, node_t **node, int *event)
{
    static const int disturbances[] = {EVENT_LOCAL_WRITE, EVENT_LOCAL_WRITE, EVENT_DROP,         EVENT_LATE_BATCH,
                                       EVENT_LATE_BATCH,  EVENT_PUMP,        EVENT_WHOLE_SESSION};
    node_t *ends[2 * NODES_MAX * SESSIONS_MAX];
    size_t count = 0;
    for (uint32_t n = 0; n < world->node_count; n++) {
        node_t *receiver = &world->nodes[n];
        for (size_t i = 0; i < receiver->receiving_count && !receiver->is_gone; i++) {
            if (!is_disturbable(&receiver->receiving[i]))
                continue;
            ends[count++] = receiver;
            ends[count++] = &world->nodes[receiver->receiving[i].peer];
        }
    }
    if (count == 0)
        return;
    *node = ends[pick(world, count)];
    *event = disturbances[pick(world, CAKE_COUNT_OF(disturbances))];
}

static void deliver_some(world_t *world)
{
    for (uint64_t i = 1 + pick(world, 4); i > 0; i--) {
        node_t *touched = deliver_one(world);
        if (touched == NULL)
            continue;
        if (!node_is_busy(touched) && chance(world, world->commit_rate))
            node_commit(world, touched);
        check_node(world, touched);
    }
}

static void one_session_at_once(world_t *world, node_t *node)
{
    uint32_t peer = (uint32_t)pick(world, world->node_count);
    if (peer == node->id || !link_is_up(world, node->id, peer) || node_is_busy(node))
        return;
    node_t *sender = &world->nodes[peer];
    wall_of(world, sender);
    sender->newest_boot_heard[node->id] = node->boot; /* connecting ends what older connections had queued */
    node->newest_boot_heard[peer] = sender->boot;
    (void)whole_session(world, node, sender);
}

static void do_event(world_t *world, node_t *node, int event)
{
    static const int64_t offsets[] = {0, 0, 5, -20, -200, 20, 30, 500};
    uint32_t other = (uint32_t)pick(world, world->node_count);
    switch (event) {
    case EVENT_LOCAL_WRITE:
        node_write(world, node, (uint32_t)pick(world, world->key_count), chance(world, 0.4));
        break;
    case EVENT_DELIVER:
        deliver_some(world);
        return;
    case EVENT_LATE_BATCH:
        deliver_late_batch(world, node);
        break;
    case EVENT_OPEN_SESSION:
        open_session(world, node);
        break;
    case EVENT_PUMP:
        if (!cake__orswot_is_joined(node->set) && node->receiving_count == 0)
            open_session(world, node);
        else
            pump_sessions(world);
        break;
    case EVENT_WHOLE_SESSION:
        one_session_at_once(world, node);
        break;
    case EVENT_COMMIT:
        node_commit(world, node);
        break;
    case EVENT_SUBMIT:
        node_submit(node);
        return;
    case EVENT_ACKNOWLEDGE:
        acknowledge_context(world, node);
        break;
    case EVENT_DROP:
        node_drop(world, node);
        break;
    case EVENT_TOGGLE_LINK:
        world->is_cut[node->id][other] = world->is_cut[other][node->id] =
            other != node->id && !world->is_cut[node->id][other];
        break;
    case EVENT_CLOCK_FAULT:
        node->wall_offset_ms = offsets[pick(world, CAKE_COUNT_OF(offsets))];
        break;
    default:
        machine_fault(world, node);
        return;
    }
    if (!node_is_busy(node) && chance(world, world->commit_rate))
        node_commit(world, node);
}

static void one_step(world_t *world)
{
    static const uint64_t elapsed_ms[] = {0, 0, 1, 2};
    world->now_ms += elapsed_ms[pick(world, 4)];
    node_t *node = &world->nodes[pick(world, world->node_count)];
    int event = draw_event(world);
    if (world->profile->busy_sessions && chance(world, 0.3))
        disturb_session(world, &node, &event);
    if (node->is_gone)
        return;
    wall_of(world, node);
    do_event(world, node, event);
    if (node->is_gone)
        return;
    expire_sessions(world, node);
    check_node(world, node);
}

bool world_run(world_t *world, uint64_t seed)
{
    memset(world, 0, sizeof *world);
    if (setjmp(world->on_violation) != 0)
        return false;
    set_up(world, seed);
    for (world->step = 1; world->step <= world->steps; world->step++)
        one_step(world);
    world->counts[COUNT_STEPS] = world->steps;
    quiet_phase(world);
    return true;
}

static void messages_free(messages_t *messages)
{
    for (size_t i = 0; i < messages->count; i++)
        payload_release(messages->items[i].payload);
    free(messages->items);
}

void world_free(world_t *world)
{
    messages_free(&world->network);
    messages_free(&world->late_batches);
    for (uint32_t i = 0; i < world->node_count; i++)
        node_free(&world->nodes[i]);
    free(world->history);
}
