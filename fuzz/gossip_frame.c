/* Frames for a membership core: as they are, with a check that is right (else nothing gets past it), and in a box of
 * ours. The first byte says which; the rest is the frame from its type on. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <xxhash.h>

#include "gossip/virtual.h"

#define FUZZ_HEADER 8u /* magic, version, type, cluster */

static void hand_over(virtual_t *cluster, const uint8_t *frame, size_t len, bool is_stream)
{
    cake__gossip_event_t event = {.kind = CAKE__GOSSIP_RECEIVED};
    event.received.from = cluster->nodes[1].addr;
    event.received.frame = cake__slice(frame, len);
    event.received.is_stream = is_stream;
    (void)virtual_step(cluster, 0, &event);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t frame[8192], box[8192 + 64];
    if (size < 1 || size > sizeof frame - 64)
        return 0;
    bool is_raw = (data[0] & 1) != 0, is_sealed = (data[0] & 2) != 0, is_from_member = (data[0] & 4) != 0;
    virtual_t cluster;
    virtual_init(&cluster, 3, 1);
    cluster.is_sealed = is_sealed;
    virtual_start_all(&cluster, 1);
    virtual_run(&cluster, VIRTUAL_SECOND);
    size_t len = size - 1;
    memcpy(frame, data + 1, len);
    if (!is_raw && len >= FUZZ_HEADER) {
        uint64_t hash = XXH3_64bits(cluster.cluster_id, strlen(cluster.cluster_id));
        memcpy(frame, "DG\1", 3);
        memcpy(frame + 4, &hash, 4);
        if (is_from_member && len >= 46) {
            const cake__gossip_who_t *who = &cluster.nodes[1].who;
            memcpy(frame + 8, cluster.nodes[0].who.nonce, 4);
            memcpy(frame + 12, &(uint64_t){1000000}, 8);
            memcpy(frame + 20, &who->node_id, 2);
            memcpy(frame + 22, &who->generation, 8);
            memcpy(frame + 30, who->nonce, sizeof who->nonce);
        }
        uint64_t check = XXH3_64bits_withSeed(frame, len, hash);
        memcpy(frame + len, &check, 8);
        len += 8;
    }
    if (is_sealed && !is_raw) {
        memcpy(box, "DS\1", 4);
        (void)virtual__seal(&cluster.nodes[1], cake__slice(frame, len), box + 4);
        hand_over(&cluster, box, len + 4 + CAKE__GOSSIP_SEAL_OVERHEAD, (data[0] & 8) != 0);
    } else {
        hand_over(&cluster, frame, len, (data[0] & 8) != 0);
    }
    virtual_run(&cluster, VIRTUAL_SECOND);
    virtual_free(&cluster);
    return 0;
}
