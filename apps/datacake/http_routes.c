/* http_routes.c: what the server answers to, in one table. */
#include "http_request.h"

static const char *const write_queries[] = {"consistency", NULL};
static const char *const read_queries[] = {"consistency", NULL};
static const char *const list_queries[] = {"prefix", "after", "limit", "values", NULL};
static const char *const watch_queries[] = {"values", NULL};

const route_t http_routes[] = {
    {.path = "/", .method = METHOD_GET, .is_open = true, .finish = info_page},
    {.path = "/healthz", .method = METHOD_GET, .is_open = true, .finish = info_health},
    {.path = "/readyz", .method = METHOD_GET, .is_open = true, .finish = info_ready},
    {.path = "/metrics", .method = METHOD_GET, .finish = info_metrics},
    {.path = "/members", .method = METHOD_GET, .finish = info_members},
    {.path = "/members/{}", .method = METHOD_DELETE, .finish = job_forget},
    {.path = "/status", .method = METHOD_GET, .finish = info_status},
    {.path = "/verify", .method = METHOD_POST, .finish = job_verify, .end = job_verify_end},
    {.path = "/events", .method = METHOD_GET, .finish = watch_cluster},
    {.path = "/kv", .method = METHOD_GET, .finish = info_keyspaces},
    {.path = "/kv/{}", .method = METHOD_GET, .queries = list_queries, .finish = list_documents},
    {.path = "/kv/{}",
     .method = METHOD_POST,
     .queries = write_queries,
     .begin = bulk_begin,
     .body = bulk_body,
     .finish = bulk_finish,
     .end = bulk_end},
    {.path = "/kv/{}/{}",
     .method = METHOD_PUT | METHOD_POST,
     .queries = write_queries,
     .begin = kv_begin_write,
     .body = kv_take_body,
     .finish = kv_put},
    {.path = "/kv/{}/{}", .method = METHOD_GET, .queries = read_queries, .finish = kv_get},
    {.path = "/kv/{}/{}",
     .method = METHOD_DELETE,
     .queries = write_queries,
     .begin = kv_begin_delete,
     .finish = kv_delete},
    {.path = "/watch/{}", .method = METHOD_GET, .queries = watch_queries, .finish = watch_keyspace},
};

const size_t http_route_count = sizeof(http_routes) / sizeof(http_routes[0]);
