/* A node with a replicated store on SQLite: cc hello.c $(pkg-config --cflags --libs datacake datacake-sqlite) */
#include <datacake/datacake.h>
#include <datacake/sqlite.h>
#include <stdio.h>

int main(void)
{
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    config.node_id = 1;
    config.listen_addr = "127.0.0.1:0"; /* any free port; other nodes name this one among their seeds */
    cake_node_t *node = NULL;
    cake_storage_t *storage = NULL;
    cake_store_t *store = NULL;
    cake_doc_t *doc = NULL;
    int err;

    if ((err = cake_node_start(&config, &node)) != 0 || (err = cake_sqlite_open("hello-data", NULL, &storage)) != 0 ||
        (err = cake_store_open(node, storage, NULL, &store)) != 0 ||
        (err = cake_store_wait_for(store, NULL, 0, 60000)) != 0 || /* until it takes writes */
        (err = cake_store_put(store, "greetings", cake_key_str("hello"), "world", 5, CAKE_QUORUM)) != 0 ||
        (err = cake_store_get(store, "greetings", cake_key_str("hello"), &doc)) != 0)
        fprintf(stderr, "hello: %s\n", cake_strerror(err));
    else
        printf("hello, %.*s\n", (int)cake_doc_value(doc).len, (const char *)cake_doc_value(doc).data);

    cake_doc_free(doc);
    cake_node_stop(node); /* closes its store and storage too */
    return err != 0;
}
