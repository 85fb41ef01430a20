/* service.c: services of a server, added and removed while calls run. */
#include "rpc/server.h"

static int check(const cake_rpc_service_t *service)
{
    if (service == NULL || !cake__is_rpc_name(service->name) || service->methods == NULL || service->count == 0)
        return CAKE_EINVAL;
    for (size_t i = 0; i < service->count; i++) {
        const cake_rpc_method_t *method = &service->methods[i];
        bool is_both = (method->flags & CAKE_RPC_BLOCKING) != 0 && (method->flags & CAKE_RPC_STREAM) != 0;
        bool is_known = (method->flags & ~(CAKE_RPC_BLOCKING | CAKE_RPC_STREAM)) == 0;
        if (!cake__is_rpc_name(method->name) || method->handler == NULL || is_both || !is_known)
            return CAKE_EINVAL;
        for (size_t j = 0; j < i; j++) {
            if (strcmp(method->name, service->methods[j].name) == 0)
                return CAKE_EDUPLICATE;
        }
    }
    return 0;
}

static void free_service(cake__service_t *service)
{
    const cake_alloc_t *alloc = &service->server->env->alloc;
    for (size_t i = 0; i < service->count; i++)
        cake__free(alloc, service->methods[i].path);
    cake__free(alloc, service->name);
    cake__free(alloc, service);
}

static void last_call_ended(void *arg)
{
    cake__service_t *service = arg;
    cake_rpc_server_t *server = service->server;
    cake_gate_t *gate = service->gate;
    CAKE_ASSERT(service->is_removed && service->running == 0);
    cake__list_remove(&service->link);
    if (service->removed != NULL)
        service->removed(service->arg);
    free_service(service);
    if (gate != NULL)
        server->env->ops->gate_open(server->env, gate);
    cake__server_step(server);
}

static cake__service_t *make(cake_rpc_server_t *server, const cake_rpc_service_t *from)
{
    const cake_alloc_t *alloc = &server->env->alloc;
    cake__service_t *service = cake__calloc(alloc, 1, sizeof *service + from->count * sizeof(cake__method_t));
    if (service == NULL)
        return NULL;
    cake__list_init(&service->link);
    service->server = server;
    service->arg = from->arg;
    service->removed = from->removed;
    service->done = CAKE_DEFERRED_INIT(last_call_ended, service);
    service->name = cake__strdup(alloc, from->name);
    service->count = from->count;
    bool is_made = service->name != NULL;
    for (size_t i = 0; i < from->count && is_made; i++) {
        cake__method_t *method = &service->methods[i];
        size_t name_len = strlen(from->name), method_len = strlen(from->methods[i].name);
        method->method = from->methods[i];
        method->service = service;
        method->path = cake__malloc(alloc, name_len + method_len + 3);
        is_made = method->path != NULL;
        if (!is_made)
            break;
        method->path[0] = '/';
        memcpy(method->path + 1, from->name, name_len);
        method->path[1 + name_len] = '/';
        memcpy(method->path + 2 + name_len, from->methods[i].name, method_len + 1);
        method->method.name = method->path + 2 + name_len;
    }
    if (is_made)
        return service;
    free_service(service);
    return NULL;
}

static void forget_names(cake_rpc_server_t *server, cake__service_t *service)
{
    server->services_version++;
    for (size_t i = 0; i < service->count; i++) {
        cake_slice_t path = cake__slice_str(service->methods[i].path);
        if (cake__map_get(&server->paths, path) == &service->methods[i])
            (void)cake__map_remove(&server->paths, path);
    }
    cake_slice_t name = cake__slice_str(service->name);
    if (cake__map_get(&server->services, name) == service)
        (void)cake__map_remove(&server->services, name);
}

int cake__service_add(cake_rpc_server_t *server, const cake_rpc_service_t *from)
{
    int err = check(from);
    if (err != 0)
        return err;
    if (server->is_closing)
        return CAKE_ECLOSED;
    if (cake__map_get(&server->services, cake__slice_str(from->name)) != NULL)
        return CAKE_EDUPLICATE;
    cake__service_t *service = make(server, from);
    if (service == NULL)
        return CAKE_ENOMEM;
    err = cake__map_put(&server->services, cake__slice_str(service->name), service);
    for (size_t i = 0; i < service->count && err == 0; i++)
        err = cake__map_put(&server->paths, cake__slice_str(service->methods[i].path), &service->methods[i]);
    if (err != 0) {
        forget_names(server, service);
        free_service(service);
        return err;
    }
    cake__list_push_back(&server->service_list, &service->link);
    server->services_version++;
    return 0;
}

static void mark_removed(cake_rpc_server_t *server, cake__service_t *service, cake_gate_t *gate)
{
    CAKE_ASSERT(!service->is_removed);
    forget_names(server, service);
    service->is_removed = true;
    service->gate = gate;
    if (service->running == 0)
        server->env->ops->defer(server->env, &service->done);
}

int cake__service_remove(cake_rpc_server_t *server, const char *name, cake_gate_t *gate)
{
    if (name == NULL)
        return CAKE_EINVAL;
    cake__service_t *service = cake__map_get(&server->services, cake__slice_str(name));
    if (service == NULL)
        return CAKE_ENOTFOUND;
    mark_removed(server, service, gate);
    return 0;
}

void cake__service_release(cake__service_t *service)
{
    CAKE_ASSERT(service->running > 0);
    if (--service->running == 0 && service->is_removed)
        service->server->env->ops->defer(service->server->env, &service->done);
}

const cake__method_t *cake__service_find(const cake_rpc_server_t *server, cake_slice_t path)
{
    return cake__map_get(&server->paths, path);
}

void cake__services_clear(cake_rpc_server_t *server)
{
    CAKE_LIST_FOR_EACH(link, &server->service_list)
    {
        cake__service_t *service = CAKE_CONTAINER_OF(link, cake__service_t, link);
        if (!service->is_removed)
            mark_removed(server, service, NULL);
    }
}
