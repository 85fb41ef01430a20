/* Documents that do not fit into a message: what is put and replicated is their size, and a storage that sees such
 * a put come from another node fetches the bytes from there: cc blobs.c $(pkg-config --cflags --libs datacake) */
#include <datacake/datacake.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE     (UINT64_C(1) << 20)
#define BLOB_SIZE (UINT64_C(40) << 20) /* a value may have 16 MiB */
#define BLOBS     8
#define FILM      (BLOBS - 1)
#define NODES     3

typedef struct blob {
    uint64_t size;
    unsigned char bytes[];
} blob_t;

/* What a node has, and its storage: one of ours with another write(), found again by its table, which is its own. */
typedef struct member {
    cake_storage_ops_t ops; /* first */
    const cake_storage_ops_t *inner;
    _Atomic(blob_t *) blobs[BLOBS]; /* by key; lanes add, the loop reads */
    cake_node_t *node;
    cake_store_t *store;
} member_t;

static blob_t *make(uint64_t size)
{
    blob_t *blob = malloc(sizeof *blob + size);
    if (blob != NULL)
        blob->size = size;
    return blob;
}

/* "/blobs/read": key and offset, eight bytes each; answered with a piece. */
static void handle_read(cake_rpc_call_t *call, void *member)
{
    uint64_t request[2] = {BLOBS, 0};
    cake_slice_t body = cake_rpc_body(call);
    if (body.len == sizeof request)
        memcpy(request, body.data, sizeof request);
    const blob_t *blob = request[0] < BLOBS ? ((member_t *)member)->blobs[request[0]] : NULL;
    if (blob == NULL || request[1] >= blob->size)
        cake_rpc_fail(call, CAKE_ENOTFOUND, NULL);
    else
        cake_rpc_reply(call, blob->bytes + request[1],
                       PIECE < blob->size - request[1] ? PIECE : blob->size - request[1]);
}

static int fetch(const cake_write_context_t *from, uint64_t key, blob_t *blob)
{
    for (uint64_t offset = 0; offset < blob->size;) {
        const uint64_t request[2] = {key, offset};
        cake_reply_t *reply;
        int err = from->call(from->arg, "/blobs/read", request, sizeof request, 60000, &reply);
        if (err != 0)
            return err;
        cake_slice_t piece = cake_reply_body(reply);
        size_t len = piece.len <= blob->size - offset ? piece.len : 0;
        memcpy(blob->bytes + offset, piece.data, len);
        offset += len;
        cake_reply_free(reply);
        if (len == 0)
            return CAKE_ECORRUPT;
        from->progress(from->arg); /* the sender waits on */
    }
    return 0;
}

/* The bytes first: no row may speak of what is not there. */
static int write_batch(cake_storage_t *storage, const cake_batch_t *batch)
{
    member_t *member = (member_t *)(uintptr_t)storage->ops;
    for (size_t i = 0; i < batch->write_count; i++) {
        const cake_write_t *write = &batch->writes[i];
        uint64_t size, key = 0;
        for (size_t k = 0; k < write->key.len; k++)
            key = key << 8 | ((const unsigned char *)write->key.data)[k];
        if (write->context == NULL || write->value.len != sizeof size || key >= BLOBS || member->blobs[key] != NULL)
            continue; /* the bytes of a put of this node itself are here; a delete has no value */
        memcpy(&size, write->value.data, sizeof size);
        blob_t *blob = make(size);
        int err = blob == NULL ? CAKE_ENOMEM : fetch(write->context, key, blob);
        if (err != 0) {
            free(blob);
            return err;
        }
        member->blobs[key] = blob;
    }
    return member->inner->write(storage, batch);
}

static int start(member_t *member, uint16_t id, const char *seed)
{
    const cake_rpc_method_t method = {"read", handle_read, 0};
    const cake_rpc_service_t service = {.name = "blobs", .methods = &method, .count = 1, .arg = member};
    cake_storage_t *storage;
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    cake_store_options_t options = CAKE_STORE_OPTIONS_INIT;
    options.timeout_ms = 60000; /* a put at ALL ends when the others have fetched the film */
    config.node_id = id;
    config.listen_addr = "127.0.0.1:0";
    config.seeds = &seed;
    config.seed_count = seed != NULL ? 1 : 0;
    if (cake_memory_open(&storage) != 0 || cake_node_start(&config, &member->node) != 0)
        return CAKE_EUNAVAILABLE;
    member->inner = storage->ops;
    member->ops = *storage->ops;
    member->ops.write = write_batch;
    member->ops.flags = (storage->ops->flags & ~CAKE_STORAGE_INLINE) | CAKE_STORAGE_FETCHES;
    storage->ops = &member->ops;
    int err = cake_node_add_service(member->node, &service);
    return err != 0 ? err : cake_store_open(member->node, storage, &options, &member->store);
}

/* The third node starts after the put, and gets the film while it joins. */
static int run(member_t members[NODES], blob_t *film)
{
    int err = start(&members[0], 1, NULL);
    for (uint16_t i = 1; err == 0 && i < NODES; i++) {
        const uint16_t ids[] = {1, (uint16_t)(i + 1)};
        if (i == 2) {
            members[0].blobs[FILM] = film;
            err =
                cake_store_put(members[0].store, "films", cake_key_u64(FILM), &film->size, sizeof film->size, CAKE_ALL);
        }
        err = err != 0 ? err : start(&members[i], ids[1], cake_node_address(members[0].node));
        err = err != 0 ? err : cake_store_wait_for(members[0].store, ids, 2, 120000);
        err = err != 0 ? err : cake_store_wait_for(members[i].store, ids, 2, 120000);
    }
    for (int i = 0; i < NODES && err == 0; i++) {
        const blob_t *blob = members[i].blobs[FILM];
        err = blob != NULL && memcmp(blob->bytes, film->bytes, film->size) == 0 ? 0 : CAKE_ENOTFOUND;
        printf("node %d %s the film\n", i + 1, err == 0 ? "has" : "lacks");
    }
    return err;
}

int main(void)
{
    static member_t members[NODES];
    blob_t *film = make(BLOB_SIZE);
    for (uint64_t i = 0; film != NULL && i < BLOB_SIZE; i++)
        film->bytes[i] = (unsigned char)(i * 7 / 5 % 251);
    int err = film == NULL ? CAKE_ENOMEM : run(members, film);
    for (int i = 0; i < NODES && members[i].node != NULL; i++)
        cake_node_stop(members[i].node);
    return err == 0 ? 0 : 1;
}
