/* Nodes on simulated hosts, for the node's tests. Host i is at 10.0.0.i, and node i listens on its port 7000. */
#ifndef CAKE_NODE_NET_TEST_H
#define CAKE_NODE_NET_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "node/node.h"
#include "sim/env/simenv.h"

#define HOSTS_MAX 6

typedef struct {
    cake__world_t *world;
    cake__host_t *hosts[HOSTS_MAX + 1];
    cake_node_t *nodes[HOSTS_MAX + 1];
} net_t;

static const uint16_t ids[] = {1, 2, 3, 4, 5, 6};

static inline void open_net(net_t *net, uint64_t seed, int hosts)
{
    cake__world_options_t options = {.seed = seed};
    memset(net, 0, sizeof *net);
    assert_int_equal(cake__world_new(&options, &net->world), 0);
    for (int i = 1; i <= hosts; i++)
        net->hosts[i] = cake__world_add_host(net->world);
}

static inline cake_env_t *env_of(net_t *net, int host)
{
    cake_env_t *env = cake__host_env(net->hosts[host]);
    return env != NULL ? env : cake__host_start(net->hosts[host]);
}

/* listen_addr NULL: as above. */
static inline int start_with_seeds(net_t *net, int host, uint16_t id, const char *const *seeds, size_t seed_count,
                                   cake_node_config_t config)
{
    char listen[32];
    snprintf(listen, sizeof listen, "10.0.0.%d:7000", host);
    config.env = env_of(net, host);
    config.node_id = id;
    config.listen_addr = config.listen_addr != NULL ? config.listen_addr : listen;
    config.seeds = seeds;
    config.seed_count = seed_count;
    return cake_node_start(&config, &net->nodes[host]);
}

/* Nothing of a stopped node may be left on its heap. */
static inline void close_net(net_t *net)
{
    for (int i = 1; i <= HOSTS_MAX; i++) {
        cake__heap_stats_t heap;
        if (net->nodes[i] == NULL)
            continue;
        assert_int_equal(cake_node_stop(net->nodes[i]), 0);
        cake__host_heap_stats(net->hosts[i], &heap);
        assert_int_equal(heap.live_blocks, 0);
    }
    cake__world_free(net->world);
}

#endif
