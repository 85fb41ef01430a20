/* Checker "resources": a node's heap stays below its cap, and nothing is left of it after a graceful stop; every queue is
 * empty once all is quiet. */
#include "sim/sim.h"

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

void cake__check_queues(cake__trial_t *trial)
{
    for (uint32_t i = 0; i < trial->node_count; i++) {
        const cake_store_t *store = trial->nodes[i]->store;
        if (store->pending_bytes != 0 && cake__lanes_are_idle(store))
            cake__violation(trial, "resources", "node %u counts %zu bytes for the lanes, which are idle",
                            trial->nodes[i]->id, store->pending_bytes);
        if (store->write_bytes != 0)
            cake__violation(trial, "resources", "node %u counts %zu bytes of writes, and there are none",
                            trial->nodes[i]->id, store->write_bytes);
        CAKE_LIST_FOR_EACH(link, &store->peers)
        {
            const cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
            if (peer->queue_bytes != 0 || peer->queue_count != 0)
                cake__violation(trial, "resources", "node %u has %zu writes queued for node %u, long after the last",
                                trial->nodes[i]->id, peer->queue_count, peer->node_id);
        }
    }
}
