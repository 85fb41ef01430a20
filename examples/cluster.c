/* Three nodes with replicated stores in one process: cc cluster.c $(pkg-config --cflags --libs datacake) */
#include <datacake/datacake.h>
#include <stdio.h>
#include <string.h>

#define NODES 3

typedef struct member {
    cake_node_t *node;
    cake_store_t *store;
} member_t;

/* seed: the address of a node that runs already, or NULL for the first one. */
static int start(member_t *member, uint16_t id, const char *seed)
{
    cake_storage_t *storage = NULL;
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    cake_store_options_t options = CAKE_STORE_OPTIONS_INIT;
    options.timeout_ms = 60000; /* how long a put may wait for its level */
    config.node_id = id;
    config.listen_addr = "127.0.0.1:0"; /* any free port; cake_node_address tells which */
    config.seeds = &seed;
    config.seed_count = seed != NULL ? 1 : 0;
    int err = cake_node_start(&config, &member->node);
    if (err == 0)
        err = cake_memory_open(&storage);
    if (err == 0)
        err = cake_store_open(member->node, storage, &options, &member->store);
    if (err != 0 && member->store == NULL)
        cake_storage_close(storage); /* it became the store's only if that opened */
    return err;
}

static int put(cake_store_t *store, const char *key, const char *value)
{
    /* ALL: acknowledged once every replica has it, so that each of them can be read at once. */
    return cake_store_put(store, "books", cake_key_str(key), value, strlen(value), CAKE_ALL);
}

static int show(const member_t *member, const char *key)
{
    cake_doc_t *doc = NULL;
    int err = cake_store_get(member->store, "books", cake_key_str(key), &doc);
    if (err == 0)
        printf("node %u has %s: %.*s\n", cake_node_id(member->node), key, (int)cake_doc_value(doc).len,
               (const char *)cake_doc_value(doc).data);
    cake_doc_free(doc);
    return err;
}

static int run(member_t members[NODES])
{
    const uint16_t ids[NODES] = {1, 2, 3};
    int err = start(&members[0], 1, NULL);
    for (uint16_t i = 1; err == 0 && i < NODES; i++)
        err = start(&members[i], (uint16_t)(i + 1), cake_node_address(members[0].node));
    /* Levels count the replicas that a store knows: before it has met the others, ALL means fewer than three. */
    for (int i = 0; err == 0 && i < NODES; i++)
        err = cake_store_wait_for(members[i].store, ids, NODES, 120000);

    if (err == 0)
        err = put(members[0].store, "moby-dick", "Call me Ishmael.");
    for (int i = 0; err == 0 && i < NODES; i++)
        err = show(&members[i], "moby-dick");

    /* Any node takes writes; the later one wins everywhere. */
    if (err == 0)
        err = put(members[2].store, "moby-dick", "It was the whiteness of the whale.");
    if (err == 0)
        err = show(&members[1], "moby-dick");
    return err;
}

int main(void)
{
    member_t members[NODES] = {{NULL, NULL}};
    int err = run(members);
    if (err != 0)
        fprintf(stderr, "cluster: %s\n", cake_strerror(err));
    for (int i = 0; i < NODES; i++)
        cake_node_stop(members[i].node); /* leaves the cluster; closes its store, too */
    return err != 0;
}
