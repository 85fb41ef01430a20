/* Checker "resources": a node's heap stays below its cap, and nothing is left of it after a graceful stop; every
 * queue is empty once all is quiet. */
#include "sim/sim.h"

#include <stdio.h>

#define HEAP_CAP_BYTES (64u << 20) /* small documents, few keys: what needs more has run away */

void cake__check_heap(cake__trial_node_t *node, bool is_stopped)
{
    cake__trial_t *trial = node->trial;
    cake__heap_stats_t heap;
    cake__host_heap_stats(node->host, &heap);
    trial->result->peak_heap_bytes = cake__max_u64(trial->result->peak_heap_bytes, heap.peak_bytes);
    if (heap.peak_bytes > HEAP_CAP_BYTES)
        cake__violation(trial, "resources", "node %u took %zu bytes", node->id, heap.peak_bytes);
    if (is_stopped && heap.live_blocks != 0)
        cake__violation(trial, "resources", "node %u has stopped and left %zu blocks, %zu bytes", node->id,
                        heap.live_blocks, heap.live_bytes);
}

static bool is_empty(const cake__trial_node_t *node, char *why, size_t size)
{
    const cake_store_t *store = node->store;
    if (store->pending_bytes != 0 || store->write_bytes != 0) {
        snprintf(why, size, "node %u counts %zu bytes for its lanes, %zu of writes, and nothing happens",
                 (unsigned)node->id, store->pending_bytes, store->write_bytes);
        return false;
    }
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        const cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        if (peer->queue_bytes == 0 && peer->queue_count == 0 && peer->flight_count == 0)
            continue;
        snprintf(why, size, "node %u has %zu writes queued for node %u, %u batches under way, long after the last",
                 (unsigned)node->id, peer->queue_count, (unsigned)peer->node_id, (unsigned)peer->flight_count);
        return false;
    }
    return true;
}

bool cake__are_queues_empty(cake__trial_t *trial, char *why, size_t size)
{
    for (uint32_t i = 0; i < trial->node_count; i++) {
        if (!is_empty(trial->nodes[i], why, size))
            return false;
    }
    return true;
}
