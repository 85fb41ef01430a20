/* http_info.c: what a node says about itself and its cluster: members, keyspaces, status, metrics, health, the page. */
#include "http_request.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define STATUS_KEYSPACES_MAX 200u /* listed in /status; /kv has all */

extern const char page_html[];
extern const size_t page_html_len;

static json_t *number(uint64_t value)
{
    return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

static json_t *hex(uint64_t value)
{
    char text[20];
    snprintf(text, sizeof(text), "%016llx", (unsigned long long)value);
    return json_string(text);
}

/* ---- keyspaces --------------------------------------------------------------------------------------------------- */

typedef struct keyspace_list {
    json_t *array;
    uint64_t total, max;
} keyspace_list_t;

static void add_keyspace(void *arg, const cake_keyspace_info_t *info)
{
    keyspace_list_t *list = arg;
    if (list->total++ >= list->max)
        return;
    json_array_append_new(list->array,
                          json_pack("{s:s,s:o,s:o,s:o}", "name", info->name, "live", number(info->live), "tombstones",
                                    number(info->tombstones), "fingerprint", hex(info->fingerprint)));
}

enum MHD_Result info_keyspaces(request_t *request)
{
    keyspace_list_t list = {.array = json_array(), .max = UINT64_MAX};
    int err = cake_store_keyspace_info(request->http->options.store, add_keyspace, &list);
    if (err != 0) {
        json_decref(list.array);
        return request_error(request, err, NULL);
    }
    return request_json(request, 200, json_pack("{s:o}", "keyspaces", list.array), 0);
}

/* ---- members ----------------------------------------------------------------------------------------------------- */

static json_t *member_json(http_t *http, const cake_member_t *member)
{
    char address[CAKE_ADDR_TEXT_MAX * 2];
    size_t len = sizeof(address) - 1;
    json_t *entry = json_pack("{s:i,s:s,s:s,s:s,s:o,s:b,s:b,s:f}", "id", member->node_id, "address", member->address,
                              "data_center", member->data_center, "status", cake_status_name(member->status),
                              "generation", number(member->generation), "self", member->is_self, "degraded",
                              member->is_degraded, "phi", member->phi);
    if (entry != NULL && cake_node_published(http->options.node, member->node_id, "http", address, &len) == 0 &&
        len < sizeof(address))
        json_object_set_new(entry, "http", json_stringn(address, len));
    return entry;
}

static json_t *members_json(http_t *http)
{
    cake_member_t *members = NULL;
    size_t count = 0;
    json_t *array = json_array();
    if (cake_node_members(http->options.node, &members, &count) != 0)
        return array;
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, member_json(http, &members[i]));
    cake_members_free(members);
    return array;
}

enum MHD_Result info_members(request_t *request)
{
    return request_json(request, 200, json_pack("{s:o}", "members", members_json(request->http)), 0);
}

/* ---- status ------------------------------------------------------------------------------------------------------ */

static json_t *peers_json(http_t *http)
{
    cake_peer_info_t *peers = NULL;
    size_t count = 0;
    json_t *array = json_array();
    if (cake_store_peers(http->options.store, &peers, &count) != 0)
        return array;
    for (size_t i = 0; i < count; i++) {
        const cake_peer_info_t *peer = &peers[i];
        json_t *entry = json_pack("{s:i,s:b,s:o,s:o,s:o}", "id", peer->node_id, "replica", peer->is_replica,
                                  "queued_writes", number(peer->queued_writes), "queued_bytes",
                                  number(peer->queued_bytes), "lag_ms", number(peer->lag_ms));
        bool is_heard = peer->last_heard_ms_ago != UINT64_MAX;
        json_object_set_new(entry, "last_heard_ms_ago", is_heard ? number(peer->last_heard_ms_ago) : json_null());
        json_array_append_new(array, entry);
    }
    cake_peers_free(peers);
    return array;
}

/* The store's figures: their names in /status, which are the members', and in /metrics. */
typedef struct figure {
    const char *name, *metric, *type, *help;
    size_t offset;
} figure_t;

#define STORE_FIGURE(name_, metric_, type_, help_)                                                                     \
    {                                                                                                                  \
#name_, metric_, type_, help_, offsetof(cake_store_stats_t, name_)                                             \
    }

static const figure_t store_figures[] = {
    STORE_FIGURE(keyspaces, "keyspaces", "gauge", "Keyspaces."),
    STORE_FIGURE(live, "documents", "gauge", "Documents."),
    STORE_FIGURE(tombstones, "tombstones", "gauge",
                 "Tombstones of deleted documents that not every replica has acknowledged."),
    STORE_FIGURE(replicas, "replicas", "gauge", "Replicas that count for consistency levels, this node included."),
    STORE_FIGURE(writes, "writes_total", "counter", "Writes asked of this node."),
    STORE_FIGURE(writes_failed, "writes_failed_total", "counter",
                 "Writes that failed, or whose level was not reached."),
    STORE_FIGURE(reads, "reads_total", "counter", "Reads asked of this node."),
    STORE_FIGURE(writes_received, "writes_received_total", "counter", "Writes that came from other nodes."),
    STORE_FIGURE(batches_sent, "batches_sent_total", "counter", "Batches of writes sent to other nodes."),
    STORE_FIGURE(batches_received, "batches_received_total", "counter", "Batches of writes received."),
    STORE_FIGURE(batches_failed, "batches_failed_total", "counter", "Batches that a peer did not acknowledge."),
    STORE_FIGURE(batch_bytes_sent, "batch_sent_bytes_total", "counter", "Bytes of batches sent."),
    STORE_FIGURE(sessions_running, "sessions_running", "gauge", "Sync sessions under way."),
    STORE_FIGURE(sessions_finished, "sessions_finished_total", "counter", "Sync sessions that ended well."),
    STORE_FIGURE(sessions_failed, "sessions_failed_total", "counter", "Sync sessions that failed."),
    STORE_FIGURE(repairs_finished, "repairs_finished_total", "counter", "Repair sessions that ended well."),
    STORE_FIGURE(commits, "commits_total", "counter", "Commits of the storage."),
    STORE_FIGURE(commits_failed, "commits_failed_total", "counter", "Commits that the storage refused."),
    STORE_FIGURE(tombstones_purged, "tombstones_purged_total", "counter",
                 "Tombstones dropped once every replica had them."),
};

#define STORE_FIGURE_COUNT (sizeof(store_figures) / sizeof(store_figures[0]))

static uint64_t store_figure(const cake_store_stats_t *stats, size_t i)
{
    uint64_t value;
    memcpy(&value, (const char *)stats + store_figures[i].offset, sizeof(value));
    return value;
}

static json_t *store_json(const cake_store_stats_t *stats)
{
    json_t *store = json_pack("{s:b,s:o}", "joined", stats->is_joined, "fingerprint", hex(stats->fingerprint));
    for (size_t i = 0; i < STORE_FIGURE_COUNT; i++)
        json_object_set_new(store, store_figures[i].name, number(store_figure(stats, i)));
    return store;
}

static json_t *cluster_json(const cake_node_stats_t *stats)
{
    return json_pack("{s:i,s:i,s:i,s:i,s:b,s:b,s:o,s:o,s:o,s:o,s:o,s:o}", "alive", (int)stats->alive, "suspect",
                     (int)stats->suspect, "dead", (int)stats->dead, "data_centers", (int)stats->data_centers,
                     "isolated", stats->is_isolated, "duplicate", stats->is_duplicate, "gossip_sent_bytes",
                     number(stats->gossip_sent_bytes), "gossip_received_bytes", number(stats->gossip_received_bytes),
                     "gossip_bad_frames", number(stats->gossip_bad_frames), "rpc_connections",
                     number(stats->rpc_connections), "rpc_calls_started", number(stats->rpc_calls_started),
                     "rpc_calls_failed", number(stats->rpc_calls_failed));
}

static json_t *http_json(http_t *http)
{
    uint64_t answers = 0, errors = 0;
    for (size_t i = 0; i < HTTP_STATUS_MAX; i++) {
        uint64_t count = atomic_load(&http->answers[i]);
        answers += count;
        errors += i >= 500 ? count : 0;
    }
    return json_pack("{s:o,s:o,s:o,s:o}", "answers", number(answers), "errors", number(errors), "received_bytes",
                     number(atomic_load(&http->received_bytes)), "sent_bytes", number(atomic_load(&http->sent_bytes)));
}

static json_t *events_json(http_t *http)
{
    json_t *array = json_array();
    pthread_mutex_lock(&http->lock);
    uint64_t first = http->event_count > HTTP_EVENTS_MAX ? http->event_count - HTTP_EVENTS_MAX : 0;
    for (uint64_t i = first; i < http->event_count; i++) {
        const event_t *event = &http->events[i % HTTP_EVENTS_MAX];
        json_array_append_new(array, json_pack("{s:o,s:o,s:s,s:s}", "number", number(i), "unix_ms",
                                               number(event->unix_ms), "kind", event->kind, "text", event->text));
    }
    pthread_mutex_unlock(&http->lock);
    return array;
}

static json_t *node_json(http_t *http)
{
    cake_node_t *node = http->options.node;
    return json_pack("{s:i,s:s,s:s,s:s,s:s,s:s,s:s,s:o}", "id", http->node_id, "address", cake_node_address(node),
                     "http", http->address, "data_center", cake_node_data_center(node), "cluster_id",
                     cake_node_cluster_id(node), "storage", http->options.storage_name, "version", cake_version(),
                     "uptime_ms", number(monotonic_ms() - http->started_ms));
}

json_t *info_status_json(http_t *http)
{
    cake_store_stats_t store = {0};
    cake_node_stats_t node = {0};
    keyspace_list_t list = {.array = NULL, .max = STATUS_KEYSPACES_MAX};
    if (!http_enter(http))
        return NULL;
    list.array = json_array();
    cake_node_stats(http->options.node, &node);
    cake_store_stats(http->options.store, &store);
    cake_store_keyspace_info(http->options.store, add_keyspace, &list);
    json_t *status = json_object();
    json_object_set_new(status, "node", node_json(http));
    json_object_set_new(status, "cluster", cluster_json(&node));
    json_object_set_new(status, "members", members_json(http));
    json_object_set_new(status, "store", store_json(&store));
    json_object_set_new(status, "peers", peers_json(http));
    json_object_set_new(status, "keyspaces", list.array);
    json_object_set_new(status, "keyspaces_omitted", number(list.total > list.max ? list.total - list.max : 0));
    json_object_set_new(status, "http", http_json(http));
    json_object_set_new(status, "events", events_json(http));
    http_leave(http);
    return status;
}

enum MHD_Result info_status(request_t *request)
{
    return request_json(request, 200, info_status_json(request->http), 0);
}

/* ---- metrics ----------------------------------------------------------------------------------------------------- */

static void add_metric(text_t *text, const char *name, const char *type, const char *help, uint64_t value)
{
    text_printf(text, "# HELP datacake_%s %s\n# TYPE datacake_%s %s\ndatacake_%s %llu\n", name, help, name, type, name,
                (unsigned long long)value);
}

static void add_store_metrics(http_t *http, text_t *text)
{
    cake_store_stats_t stats = {0};
    if (cake_store_stats(http->options.store, &stats) != 0)
        return;
    for (size_t i = 0; i < STORE_FIGURE_COUNT; i++)
        add_metric(text, store_figures[i].metric, store_figures[i].type, store_figures[i].help,
                   store_figure(&stats, i));
    add_metric(text, "joined", "gauge", "Whether this node has caught up for the first time.", stats.is_joined);
}

static void add_node_metrics(http_t *http, text_t *text)
{
    cake_node_stats_t stats = {0};
    if (cake_node_stats(http->options.node, &stats) != 0)
        return;
    text_printf(text,
                "# HELP datacake_members Members by status.\n# TYPE datacake_members gauge\n"
                "datacake_members{status=\"alive\"} %u\ndatacake_members{status=\"suspect\"} %u\n"
                "datacake_members{status=\"dead\"} %u\n",
                stats.alive, stats.suspect, stats.dead);
    add_metric(text, "isolated", "gauge", "Whether half of this node's probes go unanswered.", stats.is_isolated);
    add_metric(text, "gossip_sent_bytes_total", "counter", "Bytes of gossip sent.", stats.gossip_sent_bytes);
    add_metric(text, "gossip_received_bytes_total", "counter", "Bytes of gossip received.",
               stats.gossip_received_bytes);
    add_metric(text, "gossip_bad_frames_total", "counter", "Frames not understood.", stats.gossip_bad_frames);
    add_metric(text, "rpc_connections", "gauge", "RPC connections from other nodes.", stats.rpc_connections);
    add_metric(text, "rpc_calls_total", "counter", "RPC calls served.", stats.rpc_calls_started);
    add_metric(text, "rpc_calls_failed_total", "counter", "RPC calls that failed.", stats.rpc_calls_failed);
}

static void add_peer_metrics(http_t *http, text_t *text)
{
    cake_peer_info_t *peers = NULL;
    size_t count = 0;
    if (cake_store_peers(http->options.store, &peers, &count) != 0)
        return;
    text_add(text, "# HELP datacake_peer_lag_seconds Age of the oldest write that a peer has not acknowledged.\n"
                   "# TYPE datacake_peer_lag_seconds gauge\n");
    for (size_t i = 0; i < count; i++)
        text_printf(text, "datacake_peer_lag_seconds{peer=\"%u\"} %llu.%03u\n", peers[i].node_id,
                    (unsigned long long)(peers[i].lag_ms / 1000), (unsigned)(peers[i].lag_ms % 1000));
    text_add(text, "# HELP datacake_peer_queued_writes Writes waiting to be sent to a peer.\n"
                   "# TYPE datacake_peer_queued_writes gauge\n");
    for (size_t i = 0; i < count; i++)
        text_printf(text, "datacake_peer_queued_writes{peer=\"%u\"} %llu\n", peers[i].node_id,
                    (unsigned long long)peers[i].queued_writes);
    cake_peers_free(peers);
}

static void add_http_metrics(http_t *http, text_t *text)
{
    text_add(text, "# HELP datacake_http_answers_total HTTP answers by status.\n"
                   "# TYPE datacake_http_answers_total counter\n");
    for (size_t i = 0; i < HTTP_STATUS_MAX; i++) {
        uint64_t count = atomic_load(&http->answers[i]);
        if (count > 0)
            text_printf(text, "datacake_http_answers_total{status=\"%zu\"} %llu\n", i, (unsigned long long)count);
    }
    pthread_mutex_lock(&http->lock);
    uint64_t connections = http->connection_count, watchers = http->watcher_count;
    pthread_mutex_unlock(&http->lock);
    add_metric(text, "http_connections", "gauge", "Open HTTP connections.", connections);
    add_metric(text, "http_watchers", "gauge", "Clients that follow changes.", watchers);
    add_metric(text, "http_connections_cut_total", "counter", "Connections cut for being idle or slow.",
               atomic_load(&http->connections_cut));
    add_metric(text, "http_received_bytes_total", "counter", "Bytes of request bodies.",
               atomic_load(&http->received_bytes));
    add_metric(text, "http_sent_bytes_total", "counter", "Bytes of answers.", atomic_load(&http->sent_bytes));
}

/* How long clients wait, by method: from the request's first line to its answer. */
static void add_latency_metrics(http_t *http, text_t *text)
{
    static const char *const methods[HTTP_METHOD_COUNT] = {"GET", "PUT", "POST", "DELETE"};
    const char *name = "datacake_http_request_duration_seconds";
    text_printf(text, "# HELP %s Time from a request to its answer.\n# TYPE %s histogram\n", name, name);
    for (size_t i = 0; i < HTTP_METHOD_COUNT; i++) {
        latency_t *latency = &http->latencies[i];
        uint64_t sum_us = atomic_load(&latency->sum_us), count = 0;
        for (size_t k = 0; k <= HTTP_LATENCY_BOUNDS; k++) {
            char bound[16] = "+Inf";
            if (k < HTTP_LATENCY_BOUNDS)
                snprintf(bound, sizeof(bound), "%g", (double)http_latency_bounds_us[k] / 1e6);
            count += atomic_load(&latency->counts[k]);
            text_printf(text, "%s_bucket{method=\"%s\",le=\"%s\"} %llu\n", name, methods[i], bound,
                        (unsigned long long)count);
        }
        text_printf(text, "%s_sum{method=\"%s\"} %.6f\n%s_count{method=\"%s\"} %llu\n", name, methods[i],
                    (double)sum_us / 1e6, name, methods[i], (unsigned long long)count);
    }
}

static uint64_t resident_bytes(void)
{
    unsigned long long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    int fields = file == NULL ? 0 : fscanf(file, "%llu %llu", &total, &resident);
    if (file != NULL)
        fclose(file);
    return fields == 2 ? resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static uint64_t open_files(void)
{
    uint64_t count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (directory != NULL && readdir(directory) != NULL)
        count++;
    if (directory != NULL)
        closedir(directory);
    return count > 3 ? count - 3 : 0; /* ".", "..", and the directory itself */
}

/* By the names that all exporters use for them. */
static void add_process_metrics(http_t *http, text_t *text)
{
    struct rusage usage = {0};
    struct rlimit files = {0};
    getrusage(RUSAGE_SELF, &usage);
    getrlimit(RLIMIT_NOFILE, &files);
    double cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                   (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    double started_s = (double)(wall_ms() - (monotonic_ms() - http->started_ms)) / 1e3;
    const struct {
        const char *name, *type, *help;
        double value;
    } rows[] = {{"cpu_seconds_total", "counter", "CPU time of the process.", cpu_s},
                {"resident_memory_bytes", "gauge", "Memory of the process.", (double)resident_bytes()},
                {"open_fds", "gauge", "Open files and sockets.", (double)open_files()},
                {"max_fds", "gauge", "How many may be open.", (double)files.rlim_cur},
                {"start_time_seconds", "gauge", "Unix time of the start.", started_s}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        text_printf(text, "# HELP process_%s %s\n# TYPE process_%s %s\nprocess_%s %.15g\n", rows[i].name, rows[i].help,
                    rows[i].name, rows[i].type, rows[i].name, rows[i].value);
}

enum MHD_Result info_metrics(request_t *request)
{
    text_t text = TEXT_INIT(0);
    text_printf(&text,
                "# HELP datacake_info The version.\n# TYPE datacake_info gauge\ndatacake_info{version=\"%s\"} 1\n",
                cake_version());
    add_store_metrics(request->http, &text);
    add_node_metrics(request->http, &text);
    add_peer_metrics(request->http, &text);
    add_http_metrics(request->http, &text);
    add_latency_metrics(request->http, &text);
    add_process_metrics(request->http, &text);
    return request_text(request, 200, "text/plain; version=0.0.4", &text);
}

/* ---- health and the page ----------------------------------------------------------------------------------------- */

enum MHD_Result info_health(request_t *request)
{
    return request_json(request, 200, json_pack("{s:s}", "status", "ok"), 0);
}

static bool has_met(const cake_peer_info_t *peers, size_t count, uint16_t id)
{
    for (size_t i = 0; i < count; i++)
        if (peers[i].node_id == id)
            return peers[i].last_heard_ms_ago != UINT64_MAX;
    return false;
}

static bool has_met_all(http_t *http)
{
    cake_peer_info_t *peers = NULL;
    cake_member_t *members = NULL;
    size_t peer_count = 0, member_count = 0;
    bool has = cake_store_peers(http->options.store, &peers, &peer_count) == 0 &&
               cake_node_members(http->options.node, &members, &member_count) == 0;
    for (size_t i = 0; has && i < member_count; i++)
        has = members[i].is_self || members[i].status != CAKE_ALIVE || has_met(peers, peer_count, members[i].node_id);
    cake_peers_free(peers);
    cake_members_free(members);
    return has;
}

bool http_is_ready(http_t *http)
{
    cake_store_stats_t stats = {0};
    if (!http_enter(http))
        return false;
    bool is_ready = atomic_load(&http->is_ready);
    if (!is_ready && cake_store_stats(http->options.store, &stats) == 0 && stats.is_joined)
        is_ready = monotonic_ms() - http->started_ms > HTTP_GREETING_MS || has_met_all(http);
    if (is_ready)
        atomic_store(&http->is_ready, true);
    http_leave(http);
    return is_ready;
}

enum MHD_Result info_ready(request_t *request)
{
    if (!http_is_ready(request->http))
        return request_error(request, CAKE_ENOTJOINED, NULL);
    return request_json(request, 200, json_pack("{s:s}", "status", "ready"), 0);
}

enum MHD_Result info_page(request_t *request)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(page_html_len, (void *)(uintptr_t)page_html, MHD_RESPMEM_PERSISTENT);
    if (response != NULL) {
        MHD_add_response_header(response, "Content-Type", "text/html; charset=utf-8");
        MHD_add_response_header(response, "Cache-Control", "no-cache");
        MHD_add_response_header(response, "Content-Security-Policy",
                                "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
                                "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                                "frame-ancestors 'none'");
    }
    return request_respond(request, 200, response, 0);
}
