/* Processes that do everything at random on hosts to which everything happens, many seeds of it. They keep all they
 * have in their simulated heaps, so that whatever outlives a crash touches freed memory. In the end all is closed, and
 * nothing may be left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "env/env.h"
#include "sim/env/world.h"

#define HOSTS        4u
#define SEEDS        60u
#define CHAOS_ROUNDS 60u
#define STREAMS_MAX  12u
#define SOAK_PORT    7000
#define ROUND_NS     (100 * CAKE_NS_PER_MS)

typedef struct process {
    cake_env_t *env;
    cake_listener_t *listener;
    cake_datagram_t *socket;
    cake_lane_t *lane;
    cake_post_t start;
    cake_work_t work;
    cake_timer_t timer;
    cake_deferred_t deferred;
    cake__list_t ends;
    unsigned end_count, open_count;
    bool is_stopping, is_working;
} process_t;

typedef struct end {
    cake__list_t in_process;
    process_t *process;
    cake_stream_t *stream;
    size_t sent, received;
    uint8_t in[700], out[3000];
    bool is_connected, is_writing, is_over, is_shut, is_closing;
} end_t;

static uint8_t soak_byte(size_t index)
{
    return (uint8_t)(index * 13 + index / 251);
}

static uint64_t draw(process_t *process, uint64_t bound)
{
    return cake__draw_u64(process->env) % bound;
}

/* ---- ends of streams ---- */

static void end_close(end_t *end)
{
    end->is_closing = true;
    end->process->env->ops->stream_close(end->stream);
}

static void end_write(end_t *end)
{
    if (end->is_writing || !end->is_connected || end->is_shut || end->is_closing)
        return;
    cake_slice_t slices[3];
    size_t used = 0;
    for (size_t i = 0; i < 3; i++) {
        size_t len = (size_t)draw(end->process, 1000);
        for (size_t j = 0; j < len; j++)
            end->out[used + j] = soak_byte(end->sent + j);
        slices[i] = cake__slice(end->out + used, len);
        used += len;
        end->sent += len;
    }
    end->is_writing = true;
    CAKE_ASSERT(end->process->env->ops->stream_write(end->stream, slices, 3) == 0);
}

static void on_connect(void *arg, int err)
{
    end_t *end = arg;
    CAKE_ASSERT(!end->is_connected && !end->is_closing);
    end->is_connected = err == 0;
    if (err != 0)
        end_close(end);
}

static void on_buffer(void *arg, void **data, size_t *size)
{
    end_t *end = arg;
    CAKE_ASSERT(end->is_connected && !end->is_over && !end->is_closing);
    *data = end->in;
    *size = (size_t)draw(end->process, 10) == 0 ? 0 : 1 + (size_t)draw(end->process, sizeof end->in);
}

static void on_read(void *arg, void *data, intptr_t len)
{
    end_t *end = arg;
    CAKE_ASSERT(end->is_connected && !end->is_over && !end->is_closing);
    end->is_over = len <= 0;
    for (intptr_t i = 0; i < len; i++)
        CAKE_ASSERT(end->in[i] == soak_byte(end->received++));
    if (len <= 0 ? draw(end->process, 2) == 0 : draw(end->process, 50) == 0)
        end_close(end);
    else if (draw(end->process, 2) == 0)
        end_write(end);
}

static void on_written(void *arg, int err)
{
    end_t *end = arg;
    CAKE_ASSERT(end->is_writing && !end->is_closing);
    memset(end->out, 0xee, sizeof end->out);
    end->is_writing = false;
    if (err != 0)
        end_close(end);
}

static void process_check_stopped(process_t *process)
{
    CAKE_ASSERT(process->open_count > 0);
    process->open_count--;
}

static void on_closed(void *arg)
{
    end_t *end = arg;
    process_t *process = end->process;
    CAKE_ASSERT(end->is_closing);
    cake__list_remove(&end->in_process);
    process->end_count--;
    cake__free(&process->env->alloc, end);
    process_check_stopped(process);
}

static const cake_stream_handlers_t end_handlers = {on_connect, on_buffer, on_read, on_written, on_closed};

static end_t *end_new(process_t *process)
{
    if (process->end_count >= STREAMS_MAX || process->is_stopping)
        return NULL;
    end_t *end = cake__calloc(&process->env->alloc, 1, sizeof *end);
    if (end == NULL)
        return NULL;
    end->process = process;
    return end;
}

static void end_link(end_t *end)
{
    cake__list_init(&end->in_process);
    cake__list_push_back(&end->process->ends, &end->in_process);
    end->process->end_count++;
    end->process->open_count++;
}

static void on_accept(void *arg, cake_stream_t *stream)
{
    process_t *process = arg;
    end_t *end = end_new(process);
    if (end == NULL) {
        process->env->ops->stream_close(stream); /* without handlers: nobody will hear of it */
        return;
    }
    end->stream = stream;
    end->is_connected = true;
    end_link(end);
    process->env->ops->stream_start(stream, &end_handlers, end);
}

static void connect_somewhere(process_t *process)
{
    cake_addr_t addr = {.family = 4, .port = SOAK_PORT, .ip = {10, 0, 0, (uint8_t)(1 + draw(process, HOSTS + 1))}};
    end_t *end = end_new(process);
    if (end == NULL)
        return;
    if (process->env->ops->connect(process->env, &addr, &end_handlers, end, &end->stream) == 0)
        end_link(end);
    else
        cake__free(&process->env->alloc, end);
}

static void do_something(end_t *end)
{
    const cake_env_ops_t *ops = end->process->env->ops;
    switch (end->is_closing ? 6 : draw(end->process, 12)) {
    case 0:
        ops->stream_pause(end->stream);
        break;
    case 1:
        end_close(end);
        break;
    case 2:
        if (end->is_connected)
            end->is_shut = true;
        ops->stream_shutdown(end->stream);
        break;
    case 3:
    case 4:
    case 5:
        ops->stream_resume(end->stream);
        break;
    default:
        end_write(end);
    }
}

/* ---- processes ---- */

static void on_packet(void *arg, const cake_addr_t *from, const void *data, size_t len)
{
    process_t *process = arg;
    for (size_t i = 0; i < len; i++)
        CAKE_ASSERT(((const uint8_t *)data)[i] == soak_byte(i));
    if (draw(process, 3) == 0)
        process->env->ops->datagram_send(process->socket, from, data, len);
}

static void work_run(void *arg)
{
    process_t *process = arg;
    void *block = cake__malloc(&process->env->alloc, 10);
    cake__free(&process->env->alloc, block);
}

static void work_done(void *arg)
{
    process_t *process = arg;
    process->is_working = false;
    process->env->ops->defer(process->env, &process->deferred);
}

static void send_somewhere(void *arg)
{
    process_t *process = arg;
    uint8_t data[300];
    cake_addr_t addr = {.family = 4, .port = SOAK_PORT, .ip = {10, 0, 0, (uint8_t)(1 + draw(process, HOSTS))}};
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = soak_byte(i);
    if (process->socket != NULL && !process->is_stopping)
        process->env->ops->datagram_send(process->socket, &addr, data, (size_t)draw(process, sizeof data));
}

static void on_timer(void *arg)
{
    process_t *process = arg;
    const cake_env_ops_t *ops = process->env->ops;
    (void)cake__wall_ms(process->env);
    if (draw(process, 3) == 0)
        connect_somewhere(process);
    if (!cake__list_is_empty(&process->ends)) {
        cake__list_t *node = process->ends.next;
        for (uint64_t skip = draw(process, process->end_count); skip > 0; skip--)
            node = node->next;
        do_something(CAKE_CONTAINER_OF(node, end_t, in_process));
    }
    if (process->lane != NULL && !process->is_working && draw(process, 4) == 0) {
        process->is_working = true;
        process->work = (cake_work_t){.run = work_run, .done = work_done, .arg = process};
        ops->lane_submit(process->lane, &process->work);
    }
    if (draw(process, 4) == 0)
        ops->defer(process->env, &process->deferred);
    ops->timer_arm(process->env, &process->timer, cake__now_ns(process->env) + draw(process, 5 * CAKE_NS_PER_MS));
}

/* What there is no memory for is left out. */
static int process_start(void *arg)
{
    process_t *process = arg;
    cake_env_t *env = process->env;
    cake_addr_t any = {.family = 4, .port = SOAK_PORT};
    process->open_count += env->ops->listen(env, &any, on_accept, process, &process->listener) == 0;
    process->open_count += env->ops->datagram_open(env, &any, on_packet, process, &process->socket) == 0;
    process->open_count += env->ops->lane_open(env, "soak", &process->lane) == 0;
    on_timer(process);
    return 0;
}

static void on_part_closed(void *arg)
{
    process_check_stopped(arg);
}

static int process_stop(void *arg)
{
    process_t *process = arg;
    const cake_env_ops_t *ops = process->env->ops;
    process->is_stopping = true;
    ops->timer_cancel(process->env, &process->timer);
    CAKE_LIST_FOR_EACH(node, &process->ends)
    {
        end_close(CAKE_CONTAINER_OF(node, end_t, in_process));
    }
    if (process->listener != NULL)
        ops->listener_close(process->listener, on_part_closed, process);
    if (process->socket != NULL)
        ops->datagram_close(process->socket, on_part_closed, process);
    if (process->lane != NULL)
        ops->lane_close(process->lane, on_part_closed, process);
    return 0;
}

static bool process_is_stopped(void *arg)
{
    return ((process_t *)arg)->open_count == 0;
}

static void run_start(void *arg)
{
    process_start(arg);
}

static process_t *process_new(cake__host_t *host)
{
    cake_env_t *env = cake__host_env(host);
    process_t *process = cake__calloc(&env->alloc, 1, sizeof *process);
    if (process == NULL)
        return NULL; /* then this host does nothing */
    process->env = env;
    process->timer = CAKE_TIMER_INIT(on_timer, process);
    process->deferred = (cake_deferred_t)CAKE_DEFERRED_INIT(send_somewhere, process);
    cake__list_init(&process->ends);
    process->start = (cake_post_t){.fn = run_start, .arg = process};
    env->ops->post(env, &process->start);
    return process;
}

/* ---- chaos, then quiet, then the end ---- */

static cake__faults_t draw_faults(cake__world_t *world)
{
    cake__faults_t faults = {.stall_max_ns = ROUND_NS, .clock_jump_max_ms = 1000};
    double *rates[] = {&faults.segment_rate,   &faults.stall_rate,           &faults.reset_rate,
                       &faults.half_open_rate, &faults.black_hole_rate,      &faults.connect_refuse_rate,
                       &faults.loss_rate,      &faults.connect_timeout_rate, &faults.duplicate_rate,
                       &faults.reorder_rate,   &faults.lane_stall_rate,      &faults.alloc_fail_rate,
                       &faults.clock_jump_rate};
    for (size_t i = 0; i < CAKE_COUNT_OF(rates); i++) {
        if (cake__world_draw(world) % 2 == 0)
            *rates[i] = (double)(cake__world_draw(world) % 100) / 1000;
    }
    return faults;
}

static void do_harm(cake__world_t *world, process_t *processes[HOSTS])
{
    uint32_t which = (uint32_t)(cake__world_draw(world) % HOSTS), other = (uint32_t)(cake__world_draw(world) % HOSTS);
    cake__host_t *host = cake__world_host(world, which + 1);
    switch (cake__world_draw(world) % 9) {
    case 0:
        if (cake__host_env(host) != NULL)
            cake__host_crash(host, CAKE__CRASH_DRAWN);
        processes[which] = NULL;
        break;
    case 1:
    case 2:
        if (cake__host_env(host) == NULL) {
            cake__host_start(host);
            processes[which] = process_new(host);
        }
        break;
    case 3:
        cake__host_pause(host);
        break;
    case 4:
        cake__host_resume(host);
        break;
    case 5:
        cake__host_slow(host, cake__world_draw(world) % (3 * CAKE_NS_PER_MS));
        break;
    case 6:
        if (which != other)
            cake__world_cut(world, which + 1, other + 1, true);
        break;
    case 7:
        cake__world_slow_link(world, which + 1, other + 1, cake__world_draw(world) % ROUND_NS);
        break;
    default:
        cake__world_heal(world);
    }
}

static void stop_all(cake__world_t *world, process_t *processes[HOSTS])
{
    for (uint32_t i = 0; i < HOSTS; i++) {
        cake__host_t *host = cake__world_host(world, i + 1);
        cake__heap_stats_t heap;
        cake__host_resume(host);
        cake__host_slow(host, 0);
        cake_env_t *env = cake__host_env(host);
        if (env == NULL)
            continue;
        cake_alloc_t alloc = env->alloc;
        if (processes[i] != NULL) {
            cake__run_on_loop(env, process_stop, processes[i]);
            assert_true(cake__world_run_until(world, process_is_stopped, processes[i], CAKE_NEVER));
            cake__world_run_for(world, CAKE_NS_PER_MS); /* streams that were closed without handlers */
        }
        env->ops->close(env);
        cake__free(&alloc, processes[i]);
        cake__host_heap_stats(host, &heap);
        assert_int_equal(heap.live_blocks, 0);
    }
}

static uint64_t soak(uint64_t seed)
{
    cake__world_t *world;
    cake__world_options_t options = {.seed = seed, .stream_buffer_bytes = 2000 + seed * 300};
    process_t *processes[HOSTS];
    assert_int_equal(cake__world_new(&options, &world), 0);
    for (uint32_t i = 0; i < HOSTS; i++)
        processes[i] = process_new(cake__world_add_host(world));
    cake__faults_t faults = draw_faults(world);
    cake__world_set_faults(world, &faults);
    for (unsigned round = 0; round < CHAOS_ROUNDS; round++) {
        cake__world_run_for(world, ROUND_NS);
        do_harm(world, processes);
    }
    cake__world_set_faults(world, NULL);
    cake__world_heal(world);
    cake__world_run_for(world, ROUND_NS);
    stop_all(world, processes);
    cake__world_run_for(world, 100 * ROUND_NS);
    assert_true(cake__list_is_empty(&world->connections));
    uint64_t hash = cake__world_trace_hash(world);
    cake__world_free(world);
    return hash;
}

static void test_nothing_breaks_and_nothing_is_left(void **state)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        uint64_t hash = soak(seed);
        if (seed % 10 == 0)
            assert_true(hash == soak(seed));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nothing_breaks_and_nothing_is_left)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
