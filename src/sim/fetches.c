/* Storages that get from the node of origin what does not fit into a message (CAKE_STORAGE_FETCHES): each fourth
 * operation counts as so large. Its bytes are asked for on the lane's thread, before the batch is written, while
 * everything else goes on. Checker "fetches": whoever is asked has the write on its disk, or that document under an
 * older stamp: a repair may give it a new one, and it may be deleted there meanwhile. */
#include "sim/sim.h"

#include <datacake/rpc.h>

#define SERVICE    "trial-large"
#define TIMEOUT_MS 1000u
#define BODY_BYTES 16u /* place u32, stamp u64, operation u32 */

static uint64_t answer_to(uint32_t place, cake_hlc_t hlc)
{
    return cake__mix64(hlc ^ place);
}

static void on_read(cake_rpc_call_t *call, void *arg)
{
    cake__trial_node_t *node = arg;
    cake__trial_t *trial = node->trial;
    cake_slice_t body = cake_rpc_body(call);
    uint32_t place = body.len == BODY_BYTES ? (uint32_t)cake__load_le(body.data, 4) : UINT32_MAX;
    if (place >= trial->plan.keyspaces * trial->plan.keys) {
        cake__violation(trial, "fetches", "node %u is asked for something else", node->id);
        cake_rpc_fail(call, CAKE_EINVAL, NULL);
        return;
    }
    cake_hlc_t hlc = cake__load_le((const uint8_t *)body.data + 4, 8);
    const cake__stamp_t *seen = &node->disk.seen[place];
    bool has_document = !seen->is_tombstone && seen->op == (uint32_t)cake__load_le((const uint8_t *)body.data + 12, 4);
    bool was_deleted = seen->is_tombstone && trial->plan.forget_after_ms != 0;
    if (seen->hlc < hlc && !has_document && !was_deleted && !cake__has_lost_disks(trial))
        cake__violation(trial, "fetches", "node %u is asked for %llx, and its disk has %llx", node->id,
                        (unsigned long long)hlc, (unsigned long long)seen->hlc);
    uint8_t reply[8];
    cake__store_le(reply, answer_to(place, hlc), 8);
    cake_rpc_reply(call, reply, sizeof reply);
}

int cake__fetches_serve(cake__trial_node_t *node)
{
    static const cake_rpc_method_t methods[] = {{"read", on_read, 0}};
    cake_rpc_service_t service = {SERVICE, methods, CAKE_COUNT_OF(methods), node, NULL};
    return node->trial->plan.has_fetches ? cake_node_add_service(node->node, &service) : 0;
}

static int fetch(cake__disk_t *disk, uint32_t place, uint32_t op, const cake_write_t *write)
{
    uint8_t body[BODY_BYTES];
    cake_reply_t *reply;
    cake__store_le(body, place, 4);
    cake__store_le(body + 4, write->hlc, 8);
    cake__store_le(body + 12, op, 4);
    int err = write->context->call(write->context->arg, "/" SERVICE "/read", body, sizeof body, TIMEOUT_MS, &reply);
    if (err != 0)
        return CAKE_EIO;
    cake_slice_t got = cake_reply_body(reply);
    if (got.len != 8 || cake__load_le(got.data, 8) != answer_to(place, write->hlc))
        cake__violation(disk->trial, "fetches", "node %u is sent other bytes than it asked for", disk->node->id);
    cake_reply_free(reply);
    write->context->progress(write->context->arg);
    return 0;
}

/* Its node is not crashed meanwhile: a lane that waits has a stack of its own. */
int cake__fetch_batch(cake__disk_t *disk, const cake_batch_t *batch)
{
    cake__trial_t *trial = disk->trial;
    int err = 0;
    disk->node->waiting++;
    for (size_t i = 0; i < batch->write_count && err == 0; i++) {
        const cake_write_t *write = &batch->writes[i];
        uint32_t keyspace, key, op, item;
        if (write->context == NULL || write->kind != CAKE_WRITE_PUT ||
            !cake__keyspace_parse(trial, write->keyspace, &keyspace) || !cake__key_parse(write->key, &key) ||
            !cake__value_parse(write->value, &op, &item) || op % 4 != 0)
            continue;
        trial->result->fetches++;
        err = fetch(disk, keyspace * trial->plan.keys + key, op, write);
    }
    disk->node->waiting--;
    return err;
}
