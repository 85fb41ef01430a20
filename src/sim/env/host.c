/* Simulated hosts: life and death, clocks, random numbers, the heap of the process, addresses. */
#include <stdio.h>

#include "sim/env/world.h"

/* ---- the heap: every block is linked into its host, so that a crash finds them all ---- */

static bool allocation_fails(cake__host_t *host)
{
    host->heap.allocations++;
    bool fails = cake__sim_happens(host->world, CAKE__DRAW_ALLOC, host->world->options.faults.alloc_fail_rate);
    if (host->fail_in > 0 && --host->fail_in == 0) {
        host->fail_in = host->fail_all_after ? 1 : 0;
        fails = true;
    }
    host->heap.failed += fails;
    return fails;
}

static void unlink_block(cake__host_t *host, cake__sim_block_t *block)
{
    CAKE_ASSERT(block->host == host && "a block of another heap");
    cake__list_remove(&block->in_host);
    host->heap.live_blocks--;
    host->heap.live_bytes -= block->size;
}

static void link_block(cake__host_t *host, cake__sim_block_t *block, size_t size)
{
    block->host = host;
    block->size = size;
    cake__list_init(&block->in_host);
    cake__list_push_back(&host->blocks, &block->in_host);
    host->heap.live_blocks++;
    host->heap.live_bytes += size;
    if (host->heap.live_bytes > host->heap.peak_bytes)
        host->heap.peak_bytes = host->heap.live_bytes;
}

static void *heap_resize(void *ctx, void *data, size_t size)
{
    cake__host_t *host = ctx;
    const cake_alloc_t *alloc = host->world->alloc;
    cake__sim_block_t *block = data == NULL ? NULL : (cake__sim_block_t *)data - 1;
    size_t old_size = block == NULL ? 0 : block->size;
    if (size == 0) {
        if (block != NULL)
            unlink_block(host, block);
        cake__free(alloc, block);
        return NULL;
    }
    if (size > SIZE_MAX - sizeof *block || (size > old_size && allocation_fails(host)))
        return NULL;
    if (block != NULL)
        unlink_block(host, block);
    block = cake__sim_must(cake__realloc(alloc, block, sizeof *block + size));
    link_block(host, block, size);
    return block + 1;
}

static void free_blocks(cake__host_t *host)
{
    cake__list_t *node;
    while ((node = cake__list_pop_front(&host->blocks)) != NULL)
        cake__free(host->world->alloc, CAKE_CONTAINER_OF(node, cake__sim_block_t, in_host));
    host->heap.live_blocks = host->heap.live_bytes = 0;
}

void cake__host_heap_stats(const cake__host_t *host, cake__heap_stats_t *out)
{
    *out = host->heap;
}

void cake__host_fail_alloc(cake__host_t *host, uint64_t nth, bool and_all_after)
{
    host->fail_in = nth;
    host->fail_all_after = and_all_after;
}

/* ---- clocks and random numbers ---- */

static uint64_t now_ns(cake_env_t *env)
{
    const cake__host_t *host = cake__simenv(env)->host;
    return host->monotonic_base_ns + host->world->now_ns;
}

static int64_t drifted_ms(const cake__host_t *host)
{
    int64_t elapsed_us = (int64_t)((host->world->now_ns - host->drift_since_ns) / 1000);
    return elapsed_us / 1000 * host->drift_ppm / 1000000;
}

static int64_t either_way(cake__world_t *world, cake__draw_t draw, uint64_t most)
{
    return (int64_t)cake__sim_between(world, draw, 0, most * 2) - (int64_t)most;
}

static uint64_t wall_ms(cake_env_t *env)
{
    cake__host_t *host = cake__simenv(env)->host;
    const cake__faults_t *faults = &host->world->options.faults;
    if (cake__sim_happens(host->world, CAKE__DRAW_CLOCK_JUMP, faults->clock_jump_rate))
        host->wall_offset_ms += either_way(host->world, CAKE__DRAW_CLOCK_JUMP, faults->clock_jump_max_ms);
    return (uint64_t)((int64_t)cake__world_wall_ms(host->world) + host->wall_offset_ms + drifted_ms(host));
}

void cake__host_jump_clock(cake__host_t *host, int64_t by_ms)
{
    host->wall_offset_ms += by_ms;
}

void cake__host_drift_clock(cake__host_t *host, int64_t ppm)
{
    host->wall_offset_ms += drifted_ms(host);
    host->drift_since_ns = host->world->now_ns;
    host->drift_ppm = ppm;
}

void cake__host_mend_clock(cake__host_t *host)
{
    host->wall_offset_ms = host->drift_ppm = 0;
    host->drift_since_ns = host->world->now_ns;
}

static void fill_random(cake_env_t *env, void *out, size_t len)
{
    cake__host_t *host = cake__simenv(env)->host;
    uint8_t *to = out;
    while (len > 0) {
        uint64_t value = cake__random_u64(&host->random);
        size_t part = len < sizeof value ? len : sizeof value;
        memcpy(to, &value, part);
        to += part;
        len -= part;
    }
}

static void write_log(void *ctx, cake_log_level_t level, const char *message)
{
    const cake__host_t *host = ctx;
    const cake_log_t *log = host->world->options.log;
    uint64_t us = host->world->now_ns / 1000;
    char line[600];
    snprintf(line, sizeof line, "%llu.%06llu %s: %s", (unsigned long long)(us / 1000000),
             (unsigned long long)(us % 1000000), host->name, message);
    log->write(log->ctx, level, line);
}

/* ---- addresses ---- */

void cake__host_addr(const cake__host_t *host, uint16_t port, cake_addr_t *out)
{
    *out = (cake_addr_t){.family = 4, .port = port};
    out->ip[0] = 10;
    out->ip[2] = (uint8_t)(host->number >> 8);
    out->ip[3] = (uint8_t)host->number;
}

cake__host_t *cake__sim_host_at(const cake__host_t *from, const cake_addr_t *addr)
{
    static const uint8_t any[16] = {0}, loopback[16] = {[15] = 1};
    cake__world_t *world = from->world;
    const uint8_t *ip = addr->ip;
    bool is_own = addr->family == 6 ? memcmp(ip, any, 16) == 0 || memcmp(ip, loopback, 16) == 0
                                    : ip[0] == 127 || memcmp(ip, any, 4) == 0;
    if (is_own)
        return cake__world_host(world, from->number);
    if (addr->family != 4 || ip[0] != 10 || ip[1] != 0)
        return NULL;
    return cake__world_host(world, (uint32_t)ip[2] << 8 | ip[3]);
}

/* ---- life and death ---- */

cake__host_t *cake__sim_host_new(cake__world_t *world, uint32_t number)
{
    const cake__world_options_t *options = &world->options;
    cake__host_t *host = cake__sim_must(cake__calloc(world->alloc, 1, sizeof *host));
    host->world = world;
    host->number = number;
    snprintf(host->name, sizeof host->name, "host-%u", (unsigned)number);
    cake__list_init(&host->parked);
    cake__list_init(&host->blocks);
    host->monotonic_base_ns =
        cake__sim_between(world, CAKE__DRAW_CLOCK, 1000 * CAKE_NS_PER_MS, UINT64_C(86400000) * 30 * CAKE_NS_PER_MS);
    host->wall_offset_ms = either_way(world, CAKE__DRAW_CLOCK, options->clock_offset_max_ms);
    host->drift_ppm = either_way(world, CAKE__DRAW_CLOCK, options->clock_drift_max_ppm);
    host->drift_since_ns = world->now_ns;
    cake__random_init(&host->random, cake__mix64(options->seed + 1) ^ cake__mix64(number + (UINT64_C(1) << 32)));
    host->next_port = 49152;
    return host;
}

cake_env_t *cake__host_start(cake__host_t *host)
{
    CAKE_ASSERT(host->env == NULL && "it is up");
    cake__world_t *world = host->world;
    free_blocks(host);
    host->heap = (cake__heap_stats_t){0};
    cake__simenv_t *env = cake__sim_must(cake__calloc(world->alloc, 1, sizeof *env));
    env->base.ops = &cake__sim_ops;
    env->base.alloc = (cake_alloc_t){heap_resize, host};
    if (world->options.log != NULL)
        env->base.log = (cake_log_t){write_log, host, world->options.log->least};
    env->host = host;
    cake__timers_init(&env->timers);
    cake__deferreds_init(&env->deferreds);
    env->last_post = &env->first_post;
    cake__list_init(&env->listeners);
    cake__list_init(&env->sockets);
    host->incarnation++;
    host->env = env;
    host->is_silent = host->is_paused = false;
    host->busy_until_ns = world->now_ns;
    cake__sim_wake_pipes(world); /* what waited for the silent machine gets its answer */
    return &env->base;
}

/* The process is gone: its events will be dropped, since they carry the incarnation of before. */
static void end_process(cake__host_t *host)
{
    cake__free(host->world->alloc, host->env);
    host->env = NULL;
    host->incarnation++;
    host->wake = NULL;
    host->fail_in = 0;
    cake__sim_unpark_all(host);
}

void cake__host_crash(cake__host_t *host, cake__crash_t how)
{
    cake__world_t *world = host->world;
    CAKE_ASSERT(host->env != NULL && world->current != host);
    if (how == CAKE__CRASH_DRAWN)
        how = cake__sim_happens(world, CAKE__DRAW_CRASH, 0.5) ? CAKE__CRASH_SILENT : CAKE__CRASH_RESET;
    host->is_silent = how == CAKE__CRASH_SILENT;
    cake__sim_connections_crash(host, host->is_silent);
    end_process(host);
    free_blocks(host);
}

void cake__sim_close(cake_env_t *base)
{
    cake__simenv_t *env = cake__simenv(base);
    cake__host_t *host = env->host;
    CAKE_ASSERT(host->world->current == NULL && "close belongs outside of the loop");
    CAKE_ASSERT(env->open_count == 0 && "everything opened in an environment must be closed before it");
    end_process(host);
}

void cake__sim_host_free(cake__host_t *host)
{
    free_blocks(host);
    cake__free(host->world->alloc, host);
}

bool cake__host_is_silent(const cake__host_t *host)
{
    return host->is_silent;
}

void cake__host_pause(cake__host_t *host)
{
    host->is_paused = true;
}

void cake__host_resume(cake__host_t *host)
{
    host->is_paused = false;
    cake__sim_wake(host);
}

void cake__host_slow(cake__host_t *host, uint64_t event_cost_ns)
{
    host->event_cost_ns = event_cost_ns;
}

cake_env_t *cake__host_env(const cake__host_t *host)
{
    return host->env == NULL ? NULL : &host->env->base;
}

uint32_t cake__host_number(const cake__host_t *host)
{
    return host->number;
}

const char *cake__host_name(const cake__host_t *host)
{
    return host->name;
}

const cake_env_ops_t cake__sim_ops = {
    .version = 1,
    .now_ns = now_ns,
    .wall_ms = wall_ms,
    .random = fill_random,
    .timer_arm = cake__sim_timer_arm,
    .timer_cancel = cake__sim_timer_cancel,
    .defer = cake__sim_defer,
    .defer_cancel = cake__sim_defer_cancel,
    .post = cake__sim_post,
    .on_loop = cake__sim_on_loop,
    .gate_init = cake__sim_gate_init,
    .gate_wait = cake__sim_gate_wait,
    .gate_open = cake__sim_gate_open,
    .gate_destroy = cake__sim_gate_destroy,
    .lane_open = cake__sim_lane_open,
    .lane_submit = cake__sim_lane_submit,
    .lane_close = cake__sim_lane_close,
    .listen = cake__sim_listen,
    .listener_addr = cake__sim_listener_addr,
    .listener_close = cake__sim_listener_close,
    .connect = cake__sim_connect,
    .stream_start = cake__sim_stream_start,
    .stream_peer = cake__sim_stream_peer,
    .stream_write = cake__sim_stream_write,
    .stream_pause = cake__sim_stream_pause,
    .stream_resume = cake__sim_stream_resume,
    .stream_shutdown = cake__sim_stream_shutdown,
    .stream_close = cake__sim_stream_close,
    .datagram_open = cake__sim_datagram_open,
    .datagram_addr = cake__sim_datagram_addr,
    .datagram_send = cake__sim_datagram_send,
    .datagram_close = cake__sim_datagram_close,
    .resolve = cake__sim_resolve,
    .resolve_cancel = cake__sim_resolve_cancel,
    .close = cake__sim_close,
};
