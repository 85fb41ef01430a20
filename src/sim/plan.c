/* What a seed has: each kind of fault is on or off, each with rates of its own (swarm testing: a fault that is
 * always on hides what only happens without it). */
#include "sim/sim.h"

#include <stdio.h>

static uint64_t below(cake__trial_t *trial, uint64_t bound)
{
    return cake__below(trial, CAKE__TRIAL_DRAW_PLAN, bound);
}

static uint32_t between(cake__trial_t *trial, uint32_t least, uint32_t most)
{
    return least + (uint32_t)below(trial, most - least + 1);
}

/* Small rates as likely as large ones: the product of the bound and a power of two. */
static double rate(cake__trial_t *trial, double most)
{
    return most / (double)(UINT64_C(1) << below(trial, 6)) * (0.5 + (double)below(trial, 512) / 1024);
}

static bool is_on(const cake__trial_t *trial, uint32_t kind)
{
    return (trial->plan.kinds & kind) != 0;
}

/* Half of the kinds, on average; none at all in one of sixteen runs. */
static void draw_kinds(cake__trial_t *trial)
{
    uint64_t bits = cake__random_u64(&trial->draws[CAKE__TRIAL_DRAW_PLAN]);
    uint64_t others = cake__random_u64(&trial->draws[CAKE__TRIAL_DRAW_PLAN]);
    uint32_t kinds = (uint32_t)bits;
    if (bits >> 60 == 1)
        kinds = 0;
    if ((others & 7) != 0)
        kinds &= ~(uint32_t)CAKE_SIM_DISK_LOSS; /* both weaken other checks: less often */
    if ((others >> 3 & 7) != 0)
        kinds &= ~(uint32_t)CAKE_SIM_FORGET;
    if ((others >> 6 & 3) != 0)
        kinds &= ~(uint32_t)(CAKE_SIM_DUPLICATE_ID | CAKE_SIM_DUPLICATE_STORE);
    if ((trial->options.faults & CAKE_SIM_ALLOC) != 0)
        kinds |= CAKE_SIM_ALLOC;
    trial->plan.kinds = (trial->options.force_faults ? ~UINT32_C(0) : kinds) & trial->options.faults;
}

static void draw_net(cake__trial_t *trial)
{
    cake__faults_t *net = &trial->plan.net;
    trial->plan.latency_max_ns = (1 + below(trial, 2)) * CAKE_NS_PER_MS;
    if (is_on(trial, CAKE_SIM_DELAY))
        trial->plan.latency_max_ns = between(trial, 5, 200) * CAKE_NS_PER_MS;
    net->loss_rate = is_on(trial, CAKE_SIM_LOSS) ? rate(trial, 0.3) : 0;
    net->duplicate_rate = is_on(trial, CAKE_SIM_DUPLICATE) ? rate(trial, 0.3) : 0;
    net->reorder_rate = is_on(trial, CAKE_SIM_REORDER) ? rate(trial, 0.5) : 0;
    net->reorder_max_ns = between(trial, 10, 1000) * CAKE_NS_PER_MS;
    net->segment_rate = is_on(trial, CAKE_SIM_SEGMENT) ? rate(trial, 1.0) : 0;
    net->stall_rate = is_on(trial, CAKE_SIM_STALL) ? rate(trial, 0.02) : 0;
    net->stall_max_ns = between(trial, 100, 8000) * CAKE_NS_PER_MS;
    net->reset_rate = is_on(trial, CAKE_SIM_RESET) ? rate(trial, 0.01) : 0;
    net->half_open_rate = is_on(trial, CAKE_SIM_HALF_OPEN) ? rate(trial, 0.003) : 0;
    net->black_hole_rate = is_on(trial, CAKE_SIM_BLACK_HOLE) ? rate(trial, 0.3) : 0;
    net->connect_refuse_rate = is_on(trial, CAKE_SIM_CONNECT) ? rate(trial, 0.3) : 0;
    net->connect_timeout_rate = is_on(trial, CAKE_SIM_CONNECT) ? rate(trial, 0.1) : 0;
    net->lane_stall_rate = is_on(trial, CAKE_SIM_LANE) ? rate(trial, 0.05) : 0;
    net->lane_stall_max_ns = between(trial, 10, 4000) * CAKE_NS_PER_MS;
    net->alloc_fail_rate = is_on(trial, CAKE_SIM_ALLOC) ? rate(trial, 0.02) : 0;
}

static void draw_hosts(cake__trial_t *trial)
{
    cake__plan_t *plan = &trial->plan;
    plan->partition_ms = is_on(trial, CAKE_SIM_PARTITION) ? between(trial, 2000, 20000) : 0;
    plan->partition_shapes = between(trial, 1, 15);
    plan->partition_len_ms = between(trial, 500, 20000);
    plan->pause_ms = is_on(trial, CAKE_SIM_PAUSE) ? between(trial, 2000, 20000) : 0;
    plan->pause_len_ms = between(trial, 100, 12000);
    plan->slow_ms = is_on(trial, CAKE_SIM_SLOW) ? between(trial, 4000, 20000) : 0;
    plan->crash_ms = is_on(trial, CAKE_SIM_CRASH) ? between(trial, 1500, 20000) : 0;
    plan->stop_ms = is_on(trial, CAKE_SIM_STOP) ? between(trial, 3000, 20000) : 0;
    plan->down_len_ms = between(trial, 50, 12000);
    plan->jump_ms = is_on(trial, CAKE_SIM_CLOCK) ? between(trial, 2000, 20000) : 0;
    plan->clock_offset_ms = is_on(trial, CAKE_SIM_CLOCK) ? between(trial, 1, 10000) : 0;
    plan->clock_drift_ppm = is_on(trial, CAKE_SIM_CLOCK) ? between(trial, 1, 10000) : 0;
    plan->disk_loss_ms = is_on(trial, CAKE_SIM_DISK_LOSS) ? between(trial, 10000, 40000) : 0;
    plan->join_ms = is_on(trial, CAKE_SIM_JOIN) ? between(trial, 8000, 30000) : 0;
    plan->absence_ms = is_on(trial, CAKE_SIM_FORGET) ? between(trial, 8000, 30000) : 0;
    plan->double_ms = is_on(trial, CAKE_SIM_DUPLICATE_ID) ? 15000 : 0;
    plan->write_error_rate = is_on(trial, CAKE_SIM_DISK_ERROR) ? rate(trial, 0.05) : 0;
    plan->read_error_rate = is_on(trial, CAKE_SIM_DISK_ERROR) ? rate(trial, 0.02) : 0;
    plan->ambiguous_share = below(trial, 3) == 0 ? 0 : (double)below(trial, 100) / 100;
}

static void draw_work(cake__trial_t *trial)
{
    static const uint32_t levels[] = {0xff, 0xff, 0x01, 0x10, 0x80, 0x91, 0x1e, 0x70};
    cake__plan_t *plan = &trial->plan;
    plan->keys = trial->options.keys != 0 ? trial->options.keys : between(trial, 2, 60);
    plan->keyspaces = trial->options.keyspaces != 0 ? trial->options.keyspaces : between(trial, 1, 4);
    plan->lanes = between(trial, 1, 3);
    plan->many_share = between(trial, 0, 30);
    plan->delete_share = between(trial, 10, 60);
    plan->read_share = between(trial, 10, 40);
    plan->scan_share = between(trial, 0, 20);
    plan->levels = levels[below(trial, CAKE_COUNT_OF(levels))];
    plan->max_value_bytes = below(trial, 4) == 0 ? 60000 : 300;
    plan->data_centers = below(trial, 3) == 0 ? between(trial, 2, 3) : 1;
    plan->tombstone_min_age_ms = between(trial, 500, 10000);
    plan->hole_age_ms = is_on(trial, CAKE_SIM_DISK_LOSS | CAKE_SIM_FORGET | CAKE_SIM_DUPLICATE_STORE) ? 20000 : 3600000;
    plan->forget_after_ms = is_on(trial, CAKE_SIM_FORGET) && below(trial, 2) == 0 ? between(trial, 6000, 15000) : 0;
    plan->timeout_ms = between(trial, 500, 3000);
    plan->chunk_records = below(trial, 4) == 0 ? 0 : between(trial, 1, 8); /* sessions of several messages */
}

/* Half of the runs have five; with few nodes a fault hits more of what there is, with many it meets another one. */
static void draw_nodes(cake__trial_t *trial)
{
    static const uint8_t counts[] = {5, 5, 5, 5, 5, 5, 5, 5, 2, 3, 3, 4, 4, 6, 7, 8};
    uint64_t which = cake__below(trial, CAKE__TRIAL_DRAW_SHAPE, CAKE_COUNT_OF(counts));
    if (trial->options.nodes == 0)
        trial->options.nodes = counts[which];
    bool has_calls = cake__below(trial, CAKE__TRIAL_DRAW_SHAPE, 3) != 0;
    uint32_t calls = 10 + (uint32_t)cake__below(trial, CAKE__TRIAL_DRAW_SHAPE, 100);
    trial->plan.calls = has_calls && trial->options.writes > 0 ? calls : 0;
    bool has_files = cake__below(trial, CAKE__TRIAL_DRAW_SHAPE, 16) == 0;
    bool has_followers = cake__below(trial, CAKE__TRIAL_DRAW_SHAPE, 4) == 0;
    uint32_t credit = 1 + (uint32_t)cake__below(trial, CAKE__TRIAL_DRAW_SHAPE, 20);
    trial->plan.follower_credit = has_followers && trial->options.writes > 0 ? credit : 0;
    bool may_pack = cake__below(trial, CAKE__TRIAL_DRAW_SHAPE, 4) != 0;
    uint64_t unpacked = cake__random_u64(&trial->draws[CAKE__TRIAL_DRAW_SHAPE]);
    trial->plan.unpacked = may_pack ? 0 : unpacked;
    if (cake__below(trial, CAKE__TRIAL_DRAW_SHAPE, 8) == 0 && trial->has_default_writes)
        trial->options.writes /= 8; /* so seldom that what is done behind them comes to its end */
    trial->plan.all_have_seeds = cake__below(trial, CAKE__TRIAL_DRAW_SHAPE, 4) == 0;
    if (trial->options.storage == CAKE_SIM_STORAGE_DRAWN)
        trial->options.storage = has_files ? CAKE_SIM_STORAGE_SQLITE : CAKE_SIM_STORAGE_MEMORY;
    bool has_fetches = cake__below(trial, CAKE__TRIAL_DRAW_SHAPE, 16) == 0;
    trial->plan.has_fetches =
        has_fetches && trial->options.storage == CAKE_SIM_STORAGE_MEMORY && trial->options.workload == NULL;
}

static void draw_added(cake__trial_t *trial)
{
    static const uint8_t shares[] = {0, 5, 20, 50};
    cake__plan_t *plan = &trial->plan;
    plan->condition_share = shares[cake__below(trial, CAKE__TRIAL_DRAW_ADDED, CAKE_COUNT_OF(shares))];
    plan->wait_share = shares[cake__below(trial, CAKE__TRIAL_DRAW_ADDED, CAKE_COUNT_OF(shares))];
    bool fills = cake__below(trial, CAKE__TRIAL_DRAW_ADDED, 2) == 0;
    plan->full_ms = 4000 + (uint32_t)cake__below(trial, CAKE__TRIAL_DRAW_ADDED, 16000);
    plan->full_len_ms = 500 + (uint32_t)cake__below(trial, CAKE__TRIAL_DRAW_ADDED, 12000);
    if (!fills || !is_on(trial, CAKE_SIM_DISK_ERROR))
        plan->full_ms = 0;
}

void cake__plan_draw(cake__trial_t *trial)
{
    draw_kinds(trial);
    draw_net(trial);
    draw_hosts(trial);
    draw_work(trial);
    draw_nodes(trial);
    draw_added(trial);
}

static void append(char *out, size_t size, const char *format, ...) CAKE_PRINTF(3, 4);

static void append(char *out, size_t size, const char *format, ...)
{
    size_t len = strlen(out);
    va_list list;
    va_start(list, format);
    if (len < size)
        vsnprintf(out + len, size - len, format, list);
    va_end(list);
}

static void append_rate(char *out, size_t size, const char *name, double chance)
{
    if (chance > 0)
        append(out, size, " %s %.2g%%,", name, chance * 100);
}

static void append_mean(char *out, size_t size, const char *name, uint32_t mean_ms)
{
    if (mean_ms > 0)
        append(out, size, " %s every %.1f s,", name, mean_ms / 1000.0);
}

void cake__plan_print(const cake__trial_t *trial, char *out, size_t size)
{
    const cake__plan_t *plan = &trial->plan;
    const cake__faults_t *net = &plan->net;
    out[0] = '\0';
    append(out, size, "%u nodes, %u writes, %u x %u keys, %u lanes%s, latency up to %llu ms,",
           (unsigned)trial->options.nodes, (unsigned)trial->options.writes, (unsigned)plan->keyspaces,
           (unsigned)plan->keys, (unsigned)plan->lanes,
           trial->options.storage == CAKE_SIM_STORAGE_SQLITE ? " of SQLite" : "",
           (unsigned long long)(plan->latency_max_ns / CAKE_NS_PER_MS));
    append(out, size, "%s%s%s%s", plan->has_fetches ? " fetches," : "", plan->follower_credit > 0 ? " followers," : "",
           plan->unpacked != 0 ? " nodes that do not compress," : "",
           plan->condition_share > 0 ? " writes with conditions," : "");
    append_rate(out, size, "loss", net->loss_rate);
    append_rate(out, size, "duplicates", net->duplicate_rate);
    append_rate(out, size, "reordering", net->reorder_rate);
    append_rate(out, size, "segments", net->segment_rate);
    append_rate(out, size, "stalls", net->stall_rate);
    append_rate(out, size, "resets", net->reset_rate);
    append_rate(out, size, "half-open", net->half_open_rate);
    append_rate(out, size, "black holes", net->black_hole_rate);
    append_rate(out, size, "refused", net->connect_refuse_rate);
    append_rate(out, size, "unanswered", net->connect_timeout_rate);
    append_rate(out, size, "lane stalls", net->lane_stall_rate);
    append_rate(out, size, "failed allocations", net->alloc_fail_rate);
    append_rate(out, size, "failed writes", plan->write_error_rate);
    append_rate(out, size, "failed reads", plan->read_error_rate);
    append_mean(out, size, "full disk", plan->full_ms);
    append_mean(out, size, "partition", plan->partition_ms);
    append_mean(out, size, "pause", plan->pause_ms);
    append_mean(out, size, "slow host", plan->slow_ms);
    append_mean(out, size, "crash", plan->crash_ms);
    append_mean(out, size, "stop", plan->stop_ms);
    append_mean(out, size, "clock jump", plan->jump_ms);
    append_mean(out, size, "lost disk", plan->disk_loss_ms);
    append_mean(out, size, "join", plan->join_ms);
    append_mean(out, size, "absence", plan->absence_ms);
    append_mean(out, size, "doubled id", plan->double_ms);
    if (plan->forget_after_ms > 0)
        append(out, size, " forgotten after %.1f s,", (double)plan->forget_after_ms / 1000);
    size_t len = strlen(out);
    if (len > 0 && out[len - 1] == ',')
        out[len - 1] = '\0';
}
