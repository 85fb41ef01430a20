/* membership.c: the figures of docs/membership.md, from the production core in virtual time, each with its goal and
 * with what others need for the same. Ends with 1 when a goal is missed.
 *
 *      bench-membership [--full] [N...]        default: 10 100 1000
 *
 * --full: a hundred crashes at 1,000 members, too, and 1,000 node-hours of loss each (an hour or so of processor
 * time). */
#include <inttypes.h>
#include <math.h>
#include <time.h>

#include "gossip/virtual.h"
#include "membership_peers.h"

static bool is_full;
static uint32_t missed;

/* ---- samples and rows -------------------------------------------------------------------------------------------- */

typedef struct samples {
    double values[4096];
    size_t count;
} samples_t;

static void add_sample(samples_t *samples, double value)
{
    if (samples->count < CAKE_COUNT_OF(samples->values))
        samples->values[samples->count++] = value;
}

static int compare_doubles(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double percentile(samples_t *samples, double part)
{
    if (samples->count == 0)
        return NAN;
    qsort(samples->values, samples->count, sizeof samples->values[0], compare_doubles);
    size_t at = (size_t)(part * (double)samples->count);
    return samples->values[at < samples->count ? at : samples->count - 1];
}

/* What others need, of the same kind; docs/membership.md says what was run. NULL: nothing known. */
typedef struct peers {
    const char *memberlist, *chitchat;
} peers_t;

static const peers_t nothing = {"", ""};

static void print_row(const char *what, uint32_t count, double p50, double p99, double goal_p50, double goal_p99,
                      const char *unit, peers_t peers)
{
    bool is_met = (isnan(goal_p50) || p50 <= goal_p50) && (isnan(goal_p99) || p99 <= goal_p99);
    char goal[32] = "";
    if (!isnan(goal_p50))
        snprintf(goal, sizeof goal, "%g / %g", goal_p50, goal_p99);
    else if (!isnan(goal_p99))
        snprintf(goal, sizeof goal, "%g", goal_p99);
    missed += !is_met;
    printf("%-34s %5" PRIu32 " %9.3f %9.3f %-6s %-10s %-6s | %-16s %s\n", what, count, p50, p99, unit, goal,
           is_met ? "met" : "MISSED", peers.memberlist, peers.chitchat);
    fflush(stdout);
}

static void start(virtual_t *cluster, uint32_t count, uint64_t seed)
{
    virtual_init(cluster, count, seed);
    virtual_start_all(cluster, count < 3 ? count : 3);
    bool is_up = virtual_until(cluster, virtual_all_see_all, 60 * VIRTUAL_SECOND);
    CAKE_ASSERT(is_up);
    virtual_run(cluster, 5 * VIRTUAL_SECOND);
}

static double seconds_since(const virtual_t *cluster, uint64_t start_ns)
{
    return (double)(cluster->now_ns - start_ns) / 1e9;
}

/* ---- a crash ----------------------------------------------------------------------------------------------------- */

static bool all_know_of_crash(virtual_t *cluster)
{
    uint32_t crashed = *(uint32_t *)cluster->arg;
    for (uint32_t i = 0; i < cluster->count; i++) {
        uint32_t viewer = (cluster->looked_at + i) % cluster->count;
        if (!cluster->nodes[viewer].is_up || virtual_status(cluster, viewer, crashed) == CAKE__GOSSIP_DEAD)
            continue;
        cluster->looked_at = viewer;
        return false;
    }
    return true;
}

static peers_t crash_peers(uint32_t count, bool is_lossy)
{
    switch (count) {
    case 10:
        return is_lossy ? (peers_t){PEER_CRASH_10_LOSS} : (peers_t){PEER_CRASH_10};
    case 100:
        return is_lossy ? (peers_t){PEER_CRASH_100_LOSS} : (peers_t){PEER_CRASH_100};
    default:
        return nothing;
    }
}

static void measure_crash(uint32_t count, double loss, uint32_t runs)
{
    static samples_t samples;
    samples.count = 0;
    virtual_t cluster;
    start(&cluster, count, 42 + count);
    cluster.loss = loss;
    for (uint32_t run = 0; run < runs; run++) {
        virtual_run(&cluster, 8 * VIRTUAL_SECOND + cake__random_below(&cluster.random, VIRTUAL_SECOND));
        uint32_t crashed = (uint32_t)cake__random_below(&cluster.random, count);
        cluster.arg = &crashed;
        virtual_crash(&cluster, crashed);
        uint64_t start_ns = cluster.now_ns;
        bool is_known = virtual_until(&cluster, all_know_of_crash, 60 * VIRTUAL_SECOND);
        add_sample(&samples, is_known ? seconds_since(&cluster, start_ns) : 99);
        cluster.nodes[crashed].who.generation += 10;
        virtual_start(&cluster, crashed, 3);
    }
    missed += cluster.false_deaths > 0;
    if (cluster.false_deaths > 0)
        printf("    %" PRIu64 " false deaths\n", cluster.false_deaths);
    virtual_free(&cluster);
    print_row(loss > 0 ? "crash known to all, 25% loss" : "crash known to all", count, percentile(&samples, 0.5),
              percentile(&samples, 0.99), loss > 0 ? NAN : 6.5, loss > 0 ? 9 : 8, "s", crash_peers(count, loss > 0));
}

/* ---- pauses ------------------------------------------------------------------------------------------------------ */

static uint64_t deaths_seen_by_paused;

static void count_deaths_seen_by_paused(virtual_t *cluster, uint32_t node, cake__gossip_change_t change,
                                        const cake__gossip_member_t *member)
{
    deaths_seen_by_paused += node == *(uint32_t *)cluster->arg && change == CAKE__GOSSIP_DIED;
}

static void measure_pauses(uint32_t count, uint32_t runs)
{
    virtual_t cluster;
    start(&cluster, count, 60 + count);
    uint32_t paused = 0;
    cluster.arg = &paused;
    cluster.on_member = count_deaths_seen_by_paused;
    deaths_seen_by_paused = 0;
    for (uint32_t run = 0; run < runs; run++) {
        paused = (uint32_t)cake__random_below(&cluster.random, count);
        cluster.nodes[paused].paused_until_ns = cluster.now_ns + 4 * VIRTUAL_SECOND;
        virtual_run(&cluster, 9 * VIRTUAL_SECOND + cake__random_below(&cluster.random, VIRTUAL_SECOND));
    }
    print_row("deaths by pauses of 4 s", count, (double)cluster.died, (double)cluster.died, NAN, 0, "", nothing);
    deaths_seen_by_paused = 0;
    for (uint32_t run = 0; run < runs; run++) {
        uint64_t pause_ns = 4 * VIRTUAL_SECOND + cake__random_below(&cluster.random, 40 * VIRTUAL_SECOND);
        paused = (uint32_t)cake__random_below(&cluster.random, count);
        cluster.nodes[paused].paused_until_ns = cluster.now_ns + pause_ns;
        virtual_run(&cluster, pause_ns + 12 * VIRTUAL_SECOND);
    }
    print_row("the healthy held dead by the paused", count, (double)deaths_seen_by_paused,
              (double)deaths_seen_by_paused, NAN, 0, "", nothing);
    virtual_free(&cluster);
}

/* ---- state ------------------------------------------------------------------------------------------------------- */

static bool all_have_version(virtual_t *cluster)
{
    const uint32_t *writer = cluster->arg;
    cake__gossip_member_t own, seen;
    cake__gossip_self(cluster->nodes[*writer].gossip, &own);
    for (uint32_t i = 0; i < cluster->count; i++) {
        uint32_t viewer = (cluster->looked_at + i) % cluster->count;
        if (cake__gossip_find_member(cluster->nodes[viewer].gossip, own.who.node_id, &seen) &&
            seen.version == own.version)
            continue;
        cluster->looked_at = viewer;
        return false;
    }
    return true;
}

static void measure_convergence(uint32_t count, double loss, uint32_t runs)
{
    static samples_t samples;
    samples.count = 0;
    virtual_t cluster;
    start(&cluster, count, 77 + count);
    cluster.loss = loss;
    for (uint32_t run = 0; run < runs; run++) {
        virtual_run(&cluster, cake__random_below(&cluster.random, VIRTUAL_SECOND));
        uint32_t writer = (uint32_t)cake__random_below(&cluster.random, count);
        cluster.arg = &writer;
        (void)virtual_set(&cluster, writer, "key", cake__slice(&run, sizeof run));
        uint64_t start_ns = cluster.now_ns;
        (void)virtual_until(&cluster, all_have_version, 60 * VIRTUAL_SECOND);
        add_sample(&samples, seconds_since(&cluster, start_ns));
    }
    virtual_free(&cluster);
    double goal = count >= 1000 ? (loss > 0 ? 10 : 6) : (count >= 100 ? (loss > 0 ? 8 : 5) : (loss > 0 ? 5 : 3));
    peers_t peers = nothing;
    if (count == 10)
        peers = loss > 0 ? (peers_t){PEER_STATE_10_LOSS} : (peers_t){PEER_STATE_10};
    if (count == 100)
        peers = loss > 0 ? (peers_t){PEER_STATE_100_LOSS} : (peers_t){PEER_STATE_100};
    print_row(loss > 0 ? "state known to all, 25% loss" : "state known to all", count, percentile(&samples, 0.5),
              percentile(&samples, 0.99), NAN, goal, "rounds", peers);
}

/* ---- idle -------------------------------------------------------------------------------------------------------- */

static double processor_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static uint64_t bytes_sent(const virtual_t *cluster)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < cluster->count; i++)
        bytes += cluster->nodes[i].bytes_out;
    return bytes;
}

static void measure_idle(uint32_t count, double loss, uint32_t seconds)
{
    virtual_t cluster;
    start(&cluster, count, 5 + count);
    cluster.loss = loss;
    virtual_run(&cluster, 10 * VIRTUAL_SECOND);
    uint64_t before = bytes_sent(&cluster);
    double cpu = processor_seconds();
    virtual_run(&cluster, seconds * VIRTUAL_SECOND);
    cpu = 100 * (processor_seconds() - cpu) / count / seconds;
    double rate = (double)(bytes_sent(&cluster) - before) / count / seconds / 1e3;
    double goal = loss > 0 ? (count >= 1000 ? 12 : 5) : 2.5;
    peers_t peers = nothing, cpu_peers = nothing;
    if (count == 10)
        peers = loss > 0 ? (peers_t){PEER_BYTES_10_LOSS} : (peers_t){PEER_BYTES_10}, cpu_peers = (peers_t){PEER_CPU_10};
    if (count == 100)
        peers = loss > 0 ? (peers_t){PEER_BYTES_100_LOSS} : (peers_t){PEER_BYTES_100},
        cpu_peers = (peers_t){PEER_CPU_100};
    print_row(loss > 0 ? "sent per node, 25% loss" : "sent per node, idle", count, rate, rate, NAN, goal, "KB/s",
              peers);
    if (loss == 0) /* of the core and the simulated net; a socket's share is in docs/membership.md */
        print_row("processor per node, idle", count, cpu, cpu, NAN, count >= 1000 ? 0.2 : 0.05, "%", cpu_peers);
    missed += cluster.died > 0;
    if (cluster.died > 0)
        printf("    %" PRIu64 " deaths\n", cluster.died);
    virtual_free(&cluster);
}

static void measure_false_deaths(uint32_t count, double node_hours)
{
    virtual_t cluster;
    start(&cluster, count, 9 + count);
    cluster.loss = 0.25;
    virtual_run(&cluster, (uint64_t)(node_hours * 3600 / count) * VIRTUAL_SECOND);
    uint64_t refuted = 0;
    for (uint32_t i = 0; i < count; i++) {
        cake__gossip_counters_t counters;
        cake__gossip_counters(cluster.nodes[i].gossip, &counters);
        refuted += counters.refutations_made;
    }
    char what[64];
    snprintf(what, sizeof what, "deaths in %.0f node-hours of loss", node_hours);
    peers_t peers = nothing;
    if (count == 10)
        peers = (peers_t){PEER_DEATHS_10};
    if (count == 100)
        peers = (peers_t){PEER_DEATHS_100};
    print_row(what, count, (double)cluster.died, (double)cluster.died, NAN, 0, "", peers);
    printf("    %" PRIu64 " accusations refuted\n", refuted);
    virtual_free(&cluster);
}

/* ---- partitions -------------------------------------------------------------------------------------------------- */

static bool is_first_isolated(virtual_t *cluster)
{
    return cluster->nodes[0].is_isolated;
}

static void measure_partition(uint32_t count, uint32_t runs)
{
    static samples_t isolated, healed;
    isolated.count = healed.count = 0;
    for (uint32_t run = 0; run < runs; run++) {
        virtual_t cluster;
        uint32_t cut = run % 2 == 0 ? 1 : count / 2;
        start(&cluster, count, 1000 + run);
        virtual_run(&cluster, cake__random_below(&cluster.random, VIRTUAL_SECOND));
        for (uint32_t i = 0; i < cut; i++)
            cluster.nodes[i].group = 1;
        uint64_t start_ns = cluster.now_ns;
        if (cut == 1 && virtual_until(&cluster, is_first_isolated, 20 * VIRTUAL_SECOND))
            add_sample(&isolated, seconds_since(&cluster, start_ns));
        virtual_run(&cluster, 60 * VIRTUAL_SECOND);
        for (uint32_t i = 0; i < cut; i++)
            cluster.nodes[i].group = 0;
        start_ns = cluster.now_ns;
        (void)virtual_until(&cluster, virtual_all_see_all, 60 * VIRTUAL_SECOND);
        add_sample(&healed, seconds_since(&cluster, start_ns));
        virtual_free(&cluster);
    }
    print_row("isolated raised", count, percentile(&isolated, 0.5), percentile(&isolated, 0.99), NAN, 4, "s", nothing);
    print_row("partition healed to one view", count, percentile(&healed, 0.5), percentile(&healed, 0.99), NAN, 5, "s",
              nothing);
}

static void measure_start(uint32_t count, uint32_t runs)
{
    static samples_t samples;
    samples.count = 0;
    for (uint32_t run = 0; run < runs; run++) {
        virtual_t cluster;
        virtual_init(&cluster, count, 300 + run);
        for (uint32_t i = 0; i < count; i++) { /* as processes come up one after another */
            virtual_start(&cluster, i, 3);
            virtual_run(&cluster, 5 * VIRTUAL_MS);
        }
        uint64_t start_ns = cluster.now_ns;
        (void)virtual_until(&cluster, virtual_all_see_all, 60 * VIRTUAL_SECOND);
        add_sample(&samples, seconds_since(&cluster, start_ns));
        virtual_free(&cluster);
    }
    print_row("all see all after the last start", count, percentile(&samples, 0.5), percentile(&samples, 0.99), NAN,
              count <= 60 ? 1.6 : NAN, "s", count == 60 ? (peers_t){PEER_START_60} : nothing);
}

static void measure_all(uint32_t n)
{
    bool is_large = n >= 1000;
    uint32_t scale = is_large ? 1 : (n >= 100 ? 4 : 20);
    measure_start(n == 10 ? 60 : n, 2 * scale);
    measure_crash(n, 0, is_full ? 100 : 10 * scale);
    measure_crash(n, 0.25, is_full ? 100 : 10 * scale);
    measure_pauses(n, is_large ? 3 : 20);
    measure_convergence(n, 0, is_full ? 200 : 20 * scale);
    measure_convergence(n, 0.25, is_full ? 200 : 20 * scale);
    measure_idle(n, 0, is_large ? 20 : 100);
    measure_idle(n, 0.25, is_large ? 20 : 100);
    measure_partition(n, is_large && !is_full ? 2 : 4 * scale);
    measure_false_deaths(n, is_full ? 1000 : (is_large ? 20 : 100));
}

int main(int argc, char **argv)
{
    uint32_t counts[16] = {10, 100, 1000};
    size_t given = 0;
    for (int i = 1; i < argc && given < CAKE_COUNT_OF(counts); i++) {
        if (strcmp(argv[i], "--full") == 0)
            is_full = true;
        else
            counts[given++] = (uint32_t)strtoul(argv[i], NULL, 10);
    }
    printf("%-34s %5s %9s %9s %-6s %-10s %-6s | %-16s %s\n", "", "N", "p50", "p99", "", "goal", "", "memberlist",
           "chitchat");
    for (size_t i = 0; i < (given == 0 ? 3 : given); i++) {
        if (counts[i] >= 3)
            measure_all(counts[i]);
    }
    printf("%" PRIu32 " goals missed\n", missed);
    return missed > 0;
}
