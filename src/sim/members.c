/* The membership core alone, message by message, for clusters of a thousand members: crashes and restarts, pauses, a
 * partition, loss. Checkers: nobody who runs is declared dead; every crash is known to all in time; in the end all
 * see all. */
#include <datacake/sim.h>

#include <stdio.h>

#include "gossip/virtual.h"
#include "sim/sim.h"

#define SEEDS        3u
#define SEE_ALL_NS   (60 * CAKE__SECOND_NS)
#define DOWN_NS      (20 * CAKE__SECOND_NS) /* by then everybody knows, also at the worst loss */
#define EXCUSED_NS   (30 * CAKE__SECOND_NS) /* after a pause, or a partition */
#define LOSS_MAX     0.2
#define PAUSE_MAX_MS 4000u

typedef struct {
    virtual_t cluster;
    cake_sim_members_result_t *result;
    uint32_t crashed;
} town_t;

static void violate(town_t *town, const char *text)
{
    if (town->result->violation[0] == '\0')
        snprintf(town->result->violation, sizeof town->result->violation, "members, at %.3f s: %s",
                 (double)town->cluster.now_ns / (double)CAKE__SECOND_NS, text);
}

static bool is_crash_known(virtual_t *cluster)
{
    const uint32_t *crashed = cluster->arg;
    for (uint32_t i = 0; i < cluster->count; i++) {
        uint32_t viewer = (cluster->looked_at + i) % cluster->count;
        if (!cluster->nodes[viewer].is_up || virtual_status(cluster, viewer, *crashed) == CAKE__GOSSIP_DEAD)
            continue;
        cluster->looked_at = viewer;
        return false;
    }
    return true;
}

static void crash_one(town_t *town)
{
    virtual_t *cluster = &town->cluster;
    town->crashed = (uint32_t)cake__random_below(&cluster->random, cluster->count);
    uint64_t began_ns = cluster->now_ns;
    cluster->arg = &town->crashed;
    virtual_crash(cluster, town->crashed);
    if (!virtual_until(cluster, is_crash_known, DOWN_NS))
        violate(town, "a crash is not known to all");
    uint64_t took_ms = (cluster->now_ns - began_ns) / CAKE_NS_PER_MS;
    town->result->crashes++;
    town->result->crash_known_ms_most = cake__max_u64(town->result->crash_known_ms_most, took_ms);
    cluster->nodes[town->crashed].who.generation += 10;
    virtual_start(cluster, town->crashed, SEEDS);
}

static void pause_one(town_t *town)
{
    virtual_t *cluster = &town->cluster;
    virtual_node_t *node = &cluster->nodes[cake__random_below(&cluster->random, cluster->count)];
    node->paused_until_ns = cluster->now_ns + cake__random_below(&cluster->random, PAUSE_MAX_MS) * CAKE_NS_PER_MS;
    node->excused_until_ns = node->paused_until_ns + EXCUSED_NS;
    town->result->pauses++;
}

static void split(town_t *town)
{
    virtual_t *cluster = &town->cluster;
    uint32_t size = 1 + (uint32_t)cake__random_below(&cluster->random, cluster->count / 2);
    for (uint32_t i = 0; i < size; i++)
        cluster->nodes[i].group = 1;
    virtual_run(cluster, 2 * CAKE__SECOND_NS + cake__random_below(&cluster->random, 10 * CAKE__SECOND_NS));
    for (uint32_t i = 0; i < cluster->count; i++) {
        cluster->nodes[i].group = 0;
        cluster->nodes[i].excused_until_ns = cluster->now_ns + EXCUSED_NS;
    }
    town->result->partitions++;
}

static void see_all(town_t *town, uint64_t *took_ms)
{
    uint64_t began_ns = town->cluster.now_ns;
    if (!virtual_until(&town->cluster, virtual_all_see_all, SEE_ALL_NS))
        violate(town, "not all see all");
    *took_ms = (town->cluster.now_ns - began_ns) / CAKE_NS_PER_MS;
}

static void run(town_t *town, uint64_t seconds)
{
    virtual_t *cluster = &town->cluster;
    virtual_start_all(cluster, cluster->count < SEEDS ? cluster->count : SEEDS);
    see_all(town, &town->result->formed_ms);
    cluster->loss = cake__random_below(&cluster->random, 2) * cake__random_unit(&cluster->random) * LOSS_MAX;
    cluster->duplication = cake__random_below(&cluster->random, 2) * cake__random_unit(&cluster->random) * LOSS_MAX;
    town->result->loss = cluster->loss;
    for (uint64_t end_ns = cluster->now_ns + seconds * CAKE__SECOND_NS; cluster->now_ns < end_ns;) {
        virtual_run(cluster, cake__random_below(&cluster->random, 4 * CAKE__SECOND_NS));
        switch (cake__random_below(&cluster->random, 8)) {
        case 0:
            split(town);
            break;
        case 1:
        case 2:
            crash_one(town);
            break;
        default:
            pause_one(town);
            break;
        }
    }
    cluster->loss = cluster->duplication = 0;
    see_all(town, &town->result->healed_ms);
    if (cluster->false_deaths > 0)
        violate(town, "somebody who runs was declared dead");
}

int cake_sim_members(uint64_t seed, uint32_t members, uint32_t seconds, cake_sim_members_result_t *result)
{
    town_t *town =
        members < 2 || members > CAKE_SIM_MEMBERS_MAX || seconds > 86400 ? NULL : cake__sim_alloc(sizeof *town);
    *result = (cake_sim_members_result_t){.seed = seed};
    if (town == NULL)
        return CAKE_EINVAL;
    town->result = result;
    virtual_init(&town->cluster, members, seed);
    run(town, seconds);
    result->ok = result->violation[0] == '\0';
    result->virtual_ms = town->cluster.now_ns / CAKE_NS_PER_MS;
    result->steps = town->cluster.steps;
    result->false_deaths = town->cluster.false_deaths;
    for (uint32_t i = 0; i < members; i++)
        result->bytes += town->cluster.nodes[i].bytes_out;
    virtual_free(&town->cluster);
    cake__free(&cake__libc_alloc, town);
    return 0;
}
