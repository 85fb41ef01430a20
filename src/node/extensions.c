/* Extensions: added while the node runs, stopped one after another in the reverse order. */
#include "node/node.h"

static void free_extension(cake__node_extension_t *entry)
{
    cake__list_remove(&entry->link);
    cake__free(entry->node->alloc, entry->name);
    cake__free(entry->node->alloc, entry);
}

static cake__node_extension_t *find_extension(cake_node_t *node, const char *name)
{
    CAKE_LIST_FOR_EACH(link, &node->extensions)
    {
        cake__node_extension_t *entry = CAKE_CONTAINER_OF(link, cake__node_extension_t, link);
        if (strcmp(entry->name, name) == 0)
            return entry;
    }
    return NULL;
}

/* The callback of every stop. The next one of a stopping node begins only now. */
static void on_stopped(void *arg)
{
    cake__node_extension_t *entry = arg;
    cake_node_t *node = entry->node;
    cake_event_fn removed = entry->removed;
    void *removed_arg = entry->removed_arg;
    free_extension(entry);
    if (removed != NULL)
        removed(removed_arg);
    if (node->state == CAKE__NODE_STOPPING_EXTENSIONS)
        cake__extensions_stop(node);
}

static void stop_extension(cake__node_extension_t *entry)
{
    if (entry->is_stopping)
        return;
    entry->is_stopping = true;
    entry->extension.stop(entry->node, entry->arg, on_stopped, entry);
}

void cake__extensions_stop(cake_node_t *node)
{
    CAKE_ASSERT(node->state == CAKE__NODE_STOPPING_EXTENSIONS);
    if (cake__list_is_empty(&node->extensions)) {
        cake__extensions_stopped(node);
        return;
    }
    stop_extension(CAKE_CONTAINER_OF(node->extensions.prev, cake__node_extension_t, link));
}

typedef struct {
    cake_node_t *node;
    const cake_extension_t *extension;
    const char *name;
    void *arg;
    cake_gate_t gate;
} extension_request_t;

static int add_extension(void *arg)
{
    extension_request_t *request = arg;
    cake_node_t *node = request->node;
    if (cake__node_is_stopping(node))
        return CAKE_ECLOSED;
    if (find_extension(node, request->extension->name) != NULL)
        return CAKE_EDUPLICATE;
    cake__node_extension_t *entry = cake__calloc(node->alloc, 1, sizeof *entry);
    if (entry == NULL)
        return CAKE_ENOMEM;
    *entry = (cake__node_extension_t){.node = node, .extension = *request->extension, .arg = request->arg};
    cake__list_init(&entry->link);
    entry->name = cake__strdup(node->alloc, request->extension->name);
    if (entry->name == NULL) {
        free_extension(entry);
        return CAKE_ENOMEM;
    }
    cake__list_push_back(&node->extensions, &entry->link);
    int err = entry->extension.init(node, entry->arg);
    if (err != 0)
        free_extension(entry);
    return err;
}

int cake_node_add_extension(cake_node_t *node, const cake_extension_t *extension, void *arg)
{
    if (extension == NULL || extension->name == NULL || extension->init == NULL || extension->stop == NULL ||
        !cake__is_name(cake__slice_str(extension->name), CAKE__NODE_NAME_MAX))
        return CAKE_EINVAL;
    extension_request_t request = {.node = node, .extension = extension, .arg = arg};
    return cake__run_on_loop(node->env, add_extension, &request);
}

static void on_removed(void *arg)
{
    extension_request_t *request = arg;
    request->node->env->ops->gate_open(request->node->env, &request->gate);
}

static int remove_extension(void *arg)
{
    extension_request_t *request = arg;
    cake__node_extension_t *entry = find_extension(request->node, request->name);
    if (entry == NULL)
        return CAKE_ENOTFOUND;
    if (entry->is_stopping)
        return CAKE_EBUSY;
    entry->removed = on_removed;
    entry->removed_arg = request;
    stop_extension(entry);
    return 0;
}

int cake_node_remove_extension(cake_node_t *node, const char *name)
{
    cake_env_t *env = node->env;
    if (env->ops->on_loop(env))
        return CAKE_EDEADLK;
    extension_request_t request = {.node = node, .name = name};
    env->ops->gate_init(env, &request.gate);
    int err = cake__run_on_loop(env, remove_extension, &request);
    if (err == 0)
        env->ops->gate_wait(env, &request.gate);
    env->ops->gate_destroy(env, &request.gate);
    return err;
}
