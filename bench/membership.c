/* membership.c: the figures of docs/membership.md, from the production core in virtual time: detection of a crash, with and
 * without loss, convergence of state, bytes and processor time of an idle node, isolation, healing, cold start.
 *
 *      bench-membership [N...]        default: 10 100 1000 */
#include <inttypes.h>
#include <time.h>

#include "gossip/virtual.h"

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
        return 0;
    qsort(samples->values, samples->count, sizeof samples->values[0], compare_doubles);
    size_t at = (size_t)(part * (double)samples->count);
    return samples->values[at < samples->count ? at : samples->count - 1];
}

static void print_row(const char *what, uint32_t count, double p50, double p99, const char *unit, const char *goal)
{
    printf("%-44s %6" PRIu32 "   %8.2f   %8.2f %-7s %s\n", what, count, p50, p99, unit, goal);
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

/* ---- a crash ----------------------------------------------------------------------------------------------------------- */

static bool all_know_of_crash(virtual_t *cluster)
{
    uint32_t crashed = *(uint32_t *)cluster->arg;
    for (uint32_t i = 0; i < cluster->count; i++)
        if (cluster->nodes[i].is_up && virtual_status(cluster, i, crashed) != CAKE__GOSSIP_DEAD)
            return false;
    return true;
}

static void measure_crash(uint32_t count, double loss, uint32_t runs)
{
    static samples_t samples;
    samples.count = 0;
    virtual_t cluster;
    uint64_t false_deaths = 0;
    start(&cluster, count, 42 + count);
    cluster.loss = loss;
    for (uint32_t run = 0; run < runs; run++) {
        virtual_run(&cluster, 8 * VIRTUAL_SECOND + cake__random_below(&cluster.random, VIRTUAL_SECOND));
        uint32_t crashed = (uint32_t)cake__random_below(&cluster.random, count);
        cluster.arg = &crashed;
        virtual_crash(&cluster, crashed);
        uint64_t start_ns = cluster.now_ns;
        bool is_known = virtual_until(&cluster, all_know_of_crash, 60 * VIRTUAL_SECOND);
        add_sample(&samples, is_known ? (double)(cluster.now_ns - start_ns) / 1e9 : 99);
        cluster.nodes[crashed].who.generation += 10;
        virtual_start(&cluster, crashed, 3);
    }
    false_deaths = cluster.false_deaths;
    virtual_free(&cluster);
    print_row(loss > 0 ? "crash known to all, 25% loss" : "crash known to all", count, percentile(&samples, 0.5),
              percentile(&samples, 0.99), "s", loss > 0 ? "p99 <= 9" : "p50 <= 6.5, p99 <= 8");
    if (false_deaths > 0)
        printf("    %" PRIu64 " false deaths\n", false_deaths);
}

/* ---- state --------------------------------------------------------------------------------------------------------------- */

static bool all_have_version(virtual_t *cluster)
{
    const uint32_t *writer = cluster->arg;
    cake__gossip_member_t own, seen;
    cake__gossip_self(cluster->nodes[*writer].gossip, &own);
    for (uint32_t i = 0; i < cluster->count; i++)
        if (!cake__gossip_find_member(cluster->nodes[i].gossip, own.who.node_id, &seen) || seen.version != own.version)
            return false;
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
        add_sample(&samples, (double)(cluster.now_ns - start_ns) / 1e9);
    }
    virtual_free(&cluster);
    print_row(loss > 0 ? "state convergence, 25% loss" : "state convergence", count, percentile(&samples, 0.5),
              percentile(&samples, 0.99), "rounds", loss > 0 ? "p99 <= 5, 8, 10" : "p99 <= 3, 5, 6");
}

/* ---- idle ---------------------------------------------------------------------------------------------------------------- */

static double processor_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void measure_idle(uint32_t count, double loss, uint32_t seconds)
{
    virtual_t cluster;
    start(&cluster, count, 5 + count);
    cluster.loss = loss;
    virtual_run(&cluster, 10 * VIRTUAL_SECOND);
    uint64_t before = 0, after = 0;
    for (uint32_t i = 0; i < count; i++)
        before += cluster.nodes[i].bytes_out;
    double cpu = processor_seconds();
    virtual_run(&cluster, seconds * VIRTUAL_SECOND);
    cpu = processor_seconds() - cpu;
    for (uint32_t i = 0; i < count; i++)
        after += cluster.nodes[i].bytes_out;
    double per_node = (double)(after - before) / count / seconds / 1e3;
    print_row(loss > 0 ? "sent per node, 25% loss" : "sent per node, idle", count, per_node, per_node, "KB/s",
              loss > 0 ? "<= 5 (100), 12 (1000)" : "<= 2.5");
    if (loss == 0)
        print_row("processor per node, idle (with the simulator)", count, 100 * cpu / count / seconds,
                  100 * cpu / count / seconds, "%", "<= 0.05 (100), 0.2 (1000)");
    double hours = (double)count * seconds / 3600;
    printf("    %" PRIu64 " deaths in %.0f node-hours\n", cluster.died, hours);
    virtual_free(&cluster);
}

static void measure_false_deaths(uint32_t count, double node_hours)
{
    virtual_t cluster;
    start(&cluster, count, 9 + count);
    cluster.loss = 0.25;
    uint64_t seconds = (uint64_t)(node_hours * 3600 / count);
    virtual_run(&cluster, seconds * VIRTUAL_SECOND);
    cake__gossip_counters_t counters;
    uint64_t suspicions = 0;
    for (uint32_t i = 0; i < count; i++) {
        cake__gossip_counters(cluster.nodes[i].gossip, &counters);
        suspicions += counters.refutations_made;
    }
    print_row("false deaths at 25% loss", count, (double)cluster.died, node_hours, "deaths, node-hours", "0");
    printf("    %" PRIu64 " accusations refuted\n", suspicions);
    virtual_free(&cluster);
}

/* ---- partitions ------------------------------------------------------------------------------------------------------------ */

static bool is_first_isolated(virtual_t *cluster)
{
    return cluster->nodes[0].is_isolated;
}

static bool is_healed(virtual_t *cluster)
{
    return virtual_all_see_all(cluster);
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
            add_sample(&isolated, (double)(cluster.now_ns - start_ns) / 1e9);
        virtual_run(&cluster, 60 * VIRTUAL_SECOND);
        for (uint32_t i = 0; i < cut; i++)
            cluster.nodes[i].group = 0;
        start_ns = cluster.now_ns;
        (void)virtual_until(&cluster, is_healed, 60 * VIRTUAL_SECOND);
        add_sample(&healed, (double)(cluster.now_ns - start_ns) / 1e9);
        virtual_free(&cluster);
    }
    print_row("isolated raised", count, percentile(&isolated, 0.5), percentile(&isolated, 0.99), "s", "<= 4");
    print_row("partition healed to one view", count, percentile(&healed, 0.5), percentile(&healed, 0.99), "s", "<= 5");
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
        (void)virtual_until(&cluster, virtual_all_see_all, 60 * VIRTUAL_SECOND);
        add_sample(&samples, (double)cluster.now_ns / 1e9 - count * 0.005);
        virtual_free(&cluster);
    }
    print_row("all see all after the last has started", count, percentile(&samples, 0.5), percentile(&samples, 0.99),
              "s", "<= 1.6");
}

int main(int argc, char **argv)
{
    uint32_t counts[16] = {10, 100, 1000};
    size_t given = 3;
    for (int i = 1; i < argc && i <= 16; i++) {
        counts[i - 1] = (uint32_t)strtoul(argv[i], NULL, 10);
        given = (size_t)i;
    }
    printf("%-44s %6s   %8s   %8s %-7s %s\n", "", "N", "p50", "p99", "", "goal");
    for (size_t i = 0; i < given; i++) {
        uint32_t n = counts[i], scale = n >= 1000 ? 1 : (n >= 100 ? 4 : 20);
        if (n < 3)
            continue;
        measure_start(n == 10 ? 60 : n, 2 * scale);
        measure_crash(n, 0, 10 * scale);
        measure_crash(n, 0.25, 10 * scale);
        measure_convergence(n, 0, 10 * scale);
        measure_convergence(n, 0.25, 10 * scale);
        measure_idle(n, 0, n >= 1000 ? 20 : 100);
        measure_idle(n, 0.25, n >= 1000 ? 20 : 100);
        measure_partition(n, 2 * scale);
        measure_false_deaths(n, n >= 1000 ? 20 : 200);
    }
    return 0;
}
