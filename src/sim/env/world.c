/* The queue of events, the step that takes one, the links between hosts, and the draws of chance. */
#include <stdio.h>

#include "sim/env/world.h"

typedef void (*handler_fn)(cake__world_t *world, cake__host_t *host, void *object);

static const handler_fn handlers[] = {
#define EVENT_HANDLER(name, handler) handler,
    CAKE__SIM_EVENTS(EVENT_HANDLER)
#undef EVENT_HANDLER
};

static const char *const kind_names[] = {
#define EVENT_NAME(name, handler) #name,
    CAKE__SIM_EVENTS(EVENT_NAME)
#undef EVENT_NAME
};

typedef struct {
    cake_event_fn fn;
    void *arg;
} call_t;

void *cake__sim_must(void *block)
{
    CAKE_ASSERT(block != NULL && "the simulator itself is out of memory");
    return block;
}

/* ---- the queue ---- */

static bool slot_before(const cake__sim_slot_t *a, const cake__sim_slot_t *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->sequence < b->sequence;
}

static void place(cake__world_t *world, size_t index, cake__sim_slot_t slot)
{
    world->queue[index] = slot;
    slot.event->index = index;
}

static void sift_up(cake__world_t *world, size_t index, cake__sim_slot_t slot)
{
    while (index > 0) {
        size_t parent = (index - 1) / 4;
        if (!slot_before(&slot, &world->queue[parent]))
            break;
        place(world, index, world->queue[parent]);
        index = parent;
    }
    place(world, index, slot);
}

static void sift_down(cake__world_t *world, size_t index, cake__sim_slot_t slot)
{
    for (;;) {
        size_t first = index * 4 + 1, last = first + 4 < world->queue_len ? first + 4 : world->queue_len;
        if (first >= last)
            break;
        size_t least = first;
        for (size_t child = first + 1; child < last; child++) {
            if (slot_before(&world->queue[child], &world->queue[least]))
                least = child;
        }
        if (!slot_before(&world->queue[least], &slot))
            break;
        place(world, index, world->queue[least]);
        index = least;
    }
    place(world, index, slot);
}

static void queue_remove(cake__world_t *world, size_t index)
{
    world->queue[index].event->index = SIZE_MAX;
    cake__sim_slot_t last = world->queue[--world->queue_len];
    if (index == world->queue_len)
        return;
    if (index > 0 && slot_before(&last, &world->queue[(index - 1) / 4]))
        sift_up(world, index, last);
    else
        sift_down(world, index, last);
}

static void queue_add(cake__world_t *world, cake__sim_event_t *event, uint64_t at_ns)
{
    if (world->queue_len == world->queue_capacity) {
        world->queue_capacity = world->queue_capacity == 0 ? 256 : world->queue_capacity * 2;
        world->queue =
            cake__sim_must(cake__realloc(world->alloc, world->queue, world->queue_capacity * sizeof *world->queue));
    }
    cake__sim_slot_t slot = {at_ns > world->now_ns ? at_ns : world->now_ns, world->sequence++, event};
    sift_up(world, world->queue_len++, slot);
}

static void free_event(cake__world_t *world, cake__sim_event_t *event)
{
    event->object = NULL;
    event->host = NULL;
    cake__list_push_front(&world->free_events, &event->parked);
}

cake__sim_event_t *cake__sim_schedule(cake__world_t *world, cake__sim_kind_t kind, cake__host_t *host, uint64_t at_ns,
                                      void *object)
{
    cake__sim_event_t *event;
    cake__list_t *reused = cake__list_pop_front(&world->free_events);
    if (reused != NULL) {
        event = CAKE_CONTAINER_OF(reused, cake__sim_event_t, parked);
    } else {
        event = cake__sim_must(cake__malloc(world->alloc, sizeof *event));
        cake__list_init(&event->parked);
    }
    event->host = host;
    event->incarnation = host == NULL ? 0 : host->incarnation;
    event->kind = kind;
    event->object = object;
    queue_add(world, event, at_ns);
    return event;
}

/* A datagram is the world's memory: it ends with its event. All other objects end otherwise. */
static void drop_event(cake__world_t *world, cake__sim_event_t *event)
{
    if (event->kind == CAKE__SIM_DATAGRAM || event->kind == CAKE__SIM_CALL)
        cake__free(world->alloc, event->object);
    free_event(world, event);
}

void cake__sim_cancel(cake__world_t *world, cake__sim_event_t **event)
{
    if (*event == NULL)
        return;
    if ((*event)->index != SIZE_MAX)
        queue_remove(world, (*event)->index);
    else
        cake__list_remove(&(*event)->parked);
    free_event(world, *event);
    *event = NULL;
}

/* ---- hosts that cannot run now ---- */

static void park(cake__host_t *host, cake__sim_event_t *event)
{
    if (event->kind == CAKE__SIM_DATAGRAM && ++host->parked_packets > CAKE__SIM_PACKETS_WAITING_MAX) {
        host->parked_packets--;
        drop_event(host->world, event);
        return;
    }
    cake__list_push_back(&host->parked, &event->parked);
}

void cake__sim_wake(cake__host_t *host)
{
    if (host->wake == NULL && !host->is_paused && !cake__list_is_empty(&host->parked))
        host->wake = cake__sim_schedule(host->world, CAKE__SIM_WAKE, host, host->busy_until_ns, NULL);
}

static cake__sim_event_t *unpark(cake__host_t *host)
{
    cake__list_t *node = cake__list_pop_front(&host->parked);
    if (node == NULL)
        return NULL;
    cake__sim_event_t *event = CAKE_CONTAINER_OF(node, cake__sim_event_t, parked);
    host->parked_packets -= event->kind == CAKE__SIM_DATAGRAM;
    return event;
}

void cake__sim_unpark_all(cake__host_t *host)
{
    cake__sim_event_t *event;
    while ((event = unpark(host)) != NULL)
        drop_event(host->world, event);
}

/* ---- steps ---- */

static void trace(cake__world_t *world, const cake__sim_event_t *event)
{
    uint32_t number = event->host == NULL ? 0 : event->host->number;
    world->event_count++;
    world->trace_hash = cake__mix64(world->trace_hash ^ world->now_ns ^ ((uint64_t)number << 48)) + event->kind;
    if (world->options.trace == NULL)
        return;
    char line[96];
    snprintf(line, sizeof line, "%llu.%09llu %s %s", (unsigned long long)(world->now_ns / 1000000000u),
             (unsigned long long)(world->now_ns % 1000000000u), number == 0 ? "-" : event->host->name,
             kind_names[event->kind]);
    world->options.trace(world->options.trace_arg, line);
}

static void run_on_host(cake__world_t *world, cake__host_t *host, cake__sim_event_t *event)
{
    cake__sim_kind_t kind = event->kind;
    void *object = event->object;
    trace(world, event);
    free_event(world, event);
    CAKE_ASSERT(world->current == NULL && host->env != NULL);
    world->current = host;
    world->in_lane = kind == CAKE__SIM_LANE_RUN;
    handlers[kind](world, host, object);
    world->in_lane = false;
    cake__sim_run_deferred(host->env);
    world->current = NULL;
    host->busy_until_ns = world->now_ns + host->event_cost_ns;
    cake__sim_wake(host);
}

static void dispatch(cake__world_t *world, cake__sim_event_t *event)
{
    cake__host_t *host = event->host;
    if (host == NULL) {
        handler_fn handler = handlers[event->kind];
        void *object = event->object;
        trace(world, event);
        free_event(world, event);
        handler(world, NULL, object);
    } else if (event->incarnation != host->incarnation || host->env == NULL) {
        drop_event(world, event);
    } else if (event->kind == CAKE__SIM_WAKE) {
        host->wake = NULL;
        free_event(world, event);
        if (!host->is_paused && (event = unpark(host)) != NULL)
            run_on_host(world, host, event);
    } else if (host->is_paused || host->busy_until_ns > world->now_ns || !cake__list_is_empty(&host->parked)) {
        park(host, event);
        cake__sim_wake(host);
    } else {
        run_on_host(world, host, event);
    }
}

bool cake__world_step(cake__world_t *world)
{
    CAKE_ASSERT(world->current == NULL && "an event may not run the world");
    if (world->queue_len == 0)
        return false;
    cake__sim_slot_t least = world->queue[0];
    queue_remove(world, 0);
    world->same_time_count = least.at_ns > world->now_ns ? 0 : world->same_time_count + 1;
    CAKE_ASSERT(world->same_time_count < CAKE__WORLD_SAME_TIME_EVENTS && "virtual time stands still");
    world->now_ns = cake__max_u64(world->now_ns, least.at_ns);
    dispatch(world, least.event);
    return true;
}

bool cake__world_run_until(cake__world_t *world, bool (*done)(void *arg), void *arg, uint64_t until_ns)
{
    if (done != NULL && done(arg))
        return true;
    while (world->queue_len > 0 && world->queue[0].at_ns <= until_ns) {
        cake__world_step(world);
        if (done != NULL && done(arg))
            return true;
    }
    if (until_ns != CAKE_NEVER)
        world->now_ns = cake__max_u64(world->now_ns, until_ns);
    return false;
}

void cake__sim_note_flight(cake__host_t *from, cake__host_t *to, uint64_t arrives_ns, size_t bytes, bool is_stream)
{
    const cake__world_options_t *options = &from->world->options;
    if (options->flight != NULL)
        options->flight(options->flight_arg, from->number, to->number, cake__sim_is_cut(from, to) ? 0 : arrives_ns,
                        bytes, is_stream);
}

void cake__world_run_for(cake__world_t *world, uint64_t duration_ns)
{
    cake__world_run_until(world, NULL, NULL, world->now_ns + duration_ns);
}

void cake__sim_run_call(cake__world_t *world, cake__host_t *host, void *object)
{
    call_t call = *(call_t *)object;
    cake__free(world->alloc, object);
    call.fn(call.arg);
}

void cake__world_at(cake__world_t *world, uint64_t at_ns, cake_event_fn fn, void *arg)
{
    call_t *call = cake__sim_must(cake__malloc(world->alloc, sizeof *call));
    *call = (call_t){fn, arg};
    cake__sim_schedule(world, CAKE__SIM_CALL, NULL, at_ns, call);
}

/* ---- chance ---- */

bool cake__sim_happens(cake__world_t *world, cake__draw_t draw, double rate)
{
    return rate > 0 && cake__random_unit(&world->draws[draw]) < rate;
}

uint64_t cake__sim_between(cake__world_t *world, cake__draw_t draw, uint64_t least, uint64_t most)
{
    return most <= least ? least : least + cake__random_below(&world->draws[draw], most - least + 1);
}

uint64_t cake__world_draw(cake__world_t *world)
{
    return cake__random_u64(&world->draws[CAKE__DRAW_SCENARIO]);
}

/* ---- links ---- */

cake__sim_link_t *cake__sim_link(const cake__world_t *world, uint32_t from, uint32_t to)
{
    CAKE_ASSERT(from >= 1 && from <= world->host_count && to >= 1 && to <= world->host_count);
    return &world->links[(size_t)(from - 1) * world->link_stride + (to - 1)];
}

uint64_t cake__sim_latency_ns(cake__world_t *world, const cake__host_t *from, const cake__host_t *to)
{
    const cake__world_options_t *options = &world->options;
    if (from == to)
        return cake__sim_between(world, CAKE__DRAW_LATENCY, 5000, 20000);
    return cake__sim_between(world, CAKE__DRAW_LATENCY, options->latency_min_ns, options->latency_max_ns) +
           cake__sim_link(world, from->number, to->number)->extra_latency_ns;
}

bool cake__sim_is_cut(const cake__host_t *from, const cake__host_t *to)
{
    return cake__sim_link(from->world, from->number, to->number)->is_cut;
}

void cake__sim_wake_pipes(cake__world_t *world)
{
    CAKE_LIST_FOR_EACH(node, &world->connections)
    {
        cake__connection_t *connection = CAKE_CONTAINER_OF(node, cake__connection_t, in_world);
        cake__pipe_mended(&connection->pipes[0]);
        cake__pipe_mended(&connection->pipes[1]);
    }
}

void cake__world_cut(cake__world_t *world, uint32_t from, uint32_t to, bool is_cut)
{
    cake__sim_link(world, from, to)->is_cut = is_cut;
    if (!is_cut)
        cake__sim_wake_pipes(world);
}

void cake__world_cut_both(cake__world_t *world, uint32_t a, uint32_t b, bool is_cut)
{
    cake__world_cut(world, a, b, is_cut);
    cake__world_cut(world, b, a, is_cut);
}

void cake__world_slow_link(cake__world_t *world, uint32_t from, uint32_t to, uint64_t extra_latency_ns)
{
    cake__sim_link(world, from, to)->extra_latency_ns = extra_latency_ns;
}

void cake__world_heal(cake__world_t *world)
{
    if (world->links != NULL)
        memset(world->links, 0, (size_t)world->link_stride * world->link_stride * sizeof *world->links);
    cake__sim_wake_pipes(world);
}

void cake__world_set_faults(cake__world_t *world, const cake__faults_t *faults)
{
    cake__faults_t *to = &world->options.faults;
    *to = faults != NULL ? *faults : (cake__faults_t){0};
    to->stall_max_ns = to->stall_max_ns != 0 ? to->stall_max_ns : 5000 * CAKE_NS_PER_MS;
    to->reorder_max_ns = to->reorder_max_ns != 0 ? to->reorder_max_ns : 50 * CAKE_NS_PER_MS;
    to->lane_stall_max_ns = to->lane_stall_max_ns != 0 ? to->lane_stall_max_ns : 2000 * CAKE_NS_PER_MS;
    to->clock_jump_max_ms = to->clock_jump_max_ms != 0 ? to->clock_jump_max_ms : 86400000;
}

/* ---- the world ---- */

static uint64_t or_default(uint64_t value, uint64_t otherwise)
{
    return value != 0 ? value : otherwise;
}

static void set_options(cake__world_t *world, const cake__world_options_t *options)
{
    const uint64_t us = 1000, s = 1000 * CAKE_NS_PER_MS;
    cake__world_options_t *to = &world->options;
    *to = *options;
    to->latency_min_ns = or_default(to->latency_min_ns, 100 * us);
    to->latency_max_ns = or_default(to->latency_max_ns, cake__max_u64(1000 * us, to->latency_min_ns));
    to->lane_min_ns = or_default(to->lane_min_ns, 10 * us);
    to->lane_max_ns = or_default(to->lane_max_ns, cake__max_u64(500 * us, to->lane_min_ns));
    to->connect_timeout_ns = or_default(to->connect_timeout_ns, 30 * s);
    to->give_up_min_ns = or_default(to->give_up_min_ns, 20 * s);
    to->give_up_max_ns = or_default(to->give_up_max_ns, cake__max_u64(60 * s, to->give_up_min_ns));
    to->stream_buffer_bytes = or_default(to->stream_buffer_bytes, 256 * 1024);
    cake__world_set_faults(world, &options->faults);
}

int cake__world_new(const cake__world_options_t *options, cake__world_t **out)
{
    const cake_alloc_t *alloc = cake__alloc_or_default(options->alloc);
    cake__world_t *world = cake__calloc(alloc, 1, sizeof *world);
    if (world == NULL)
        return CAKE_ENOMEM;
    world->alloc = alloc;
    world->trace_hash = options->seed;
    cake__list_init(&world->free_events);
    cake__list_init(&world->connections);
    for (unsigned i = 0; i < CAKE__DRAW_COUNT; i++)
        cake__random_init(&world->draws[i], cake__mix64(options->seed) ^ cake__mix64(i + 1));
    set_options(world, options);
    *out = world;
    return 0;
}

void cake__world_free(cake__world_t *world)
{
    if (world == NULL)
        return;
    for (uint32_t i = 0; i < world->host_count; i++) {
        if (world->hosts[i]->env != NULL)
            cake__host_crash(world->hosts[i], CAKE__CRASH_RESET);
    }
    CAKE_LIST_FOR_EACH_SAFE(node, &world->connections)
    {
        cake__connection_free(CAKE_CONTAINER_OF(node, cake__connection_t, in_world));
    }
    while (world->queue_len > 0) {
        cake__sim_event_t *event = world->queue[0].event;
        queue_remove(world, 0);
        drop_event(world, event);
    }
    for (uint32_t i = 0; i < world->host_count; i++)
        cake__sim_host_free(world->hosts[i]);
    cake__list_t *node;
    while ((node = cake__list_pop_front(&world->free_events)) != NULL)
        cake__free(world->alloc, CAKE_CONTAINER_OF(node, cake__sim_event_t, parked));
    cake__free(world->alloc, world->queue);
    cake__free(world->alloc, world->hosts);
    cake__free(world->alloc, world->links);
    cake__free(world->alloc, world);
}

static void grow_hosts(cake__world_t *world)
{
    uint32_t capacity = world->host_capacity == 0 ? 8 : world->host_capacity * 2;
    cake__sim_link_t *links = cake__sim_must(cake__calloc(world->alloc, (size_t)capacity * capacity, sizeof *links));
    for (uint32_t from = 0; from < world->host_count; from++)
        memcpy(&links[(size_t)from * capacity], &world->links[(size_t)from * world->link_stride],
               world->host_count * sizeof *links);
    cake__free(world->alloc, world->links);
    world->links = links;
    world->link_stride = world->host_capacity = capacity;
    world->hosts = cake__sim_must(cake__realloc(world->alloc, world->hosts, capacity * sizeof(cake__host_t *)));
}

cake__host_t *cake__world_add_host(cake__world_t *world)
{
    CAKE_ASSERT(world->host_count < CAKE__HOSTS_MAX);
    if (world->host_count == world->host_capacity)
        grow_hosts(world);
    cake__host_t *host = cake__sim_host_new(world, world->host_count + 1);
    world->hosts[world->host_count++] = host;
    cake__host_start(host);
    return host;
}

cake__host_t *cake__world_host(const cake__world_t *world, uint32_t number)
{
    return number >= 1 && number <= world->host_count ? world->hosts[number - 1] : NULL;
}

uint32_t cake__world_host_count(const cake__world_t *world)
{
    return world->host_count;
}

uint64_t cake__world_now_ns(const cake__world_t *world)
{
    return world->now_ns;
}

uint64_t cake__world_wall_ms(const cake__world_t *world)
{
    return CAKE__WORLD_WALL_START_MS + world->wall_jumped_ms + world->now_ns / CAKE_NS_PER_MS;
}

void cake__world_jump_clock(cake__world_t *world, uint64_t by_ms)
{
    world->wall_jumped_ms += by_ms;
}

uint64_t cake__world_event_count(const cake__world_t *world)
{
    return world->event_count;
}

uint64_t cake__world_trace_hash(const cake__world_t *world)
{
    return world->trace_hash;
}
