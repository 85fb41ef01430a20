/* http_watch.c: server-sent events: the changes of a keyspace, and the state of the cluster once a second.
 *
 * The node's loop appends to a watcher's text and resumes its connection; libmicrohttpd's thread takes the text and
 * suspends the connection when there is none. A client that reads too slowly fills its text up to WATCHER_BYTES, is
 * told that events were lost, and is cut: it reads the listing again and watches anew. */
#include "http_request.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WATCHER_BYTES (2u << 20)
#define KEEP_ALIVE_TICKS                                                                                               \
    5u /* seconds without a byte until a comment is sent, which finds out whether the client lives */

typedef struct watcher {
    struct watcher *previous, *next; /* in http->watchers, under its lock */
    http_t *http;
    struct MHD_Connection *connection;
    cake_watch_t *watch;            /* under the lock of the list, too */
    bool is_of_cluster, has_values; /* constant */

    pthread_mutex_t lock; /* of all below */
    text_t text;
    size_t text_at; /* sent so far */
    unsigned quiet_ticks;
    bool is_suspended, is_ending;
} watcher_t;

/* Wakes the reader; to be called without the lock. Whoever clears is_suspended resumes: so it happens once. */
static void wake(watcher_t *watcher)
{
    pthread_mutex_lock(&watcher->lock);
    bool was_suspended = watcher->is_suspended;
    watcher->is_suspended = false;
    pthread_mutex_unlock(&watcher->lock);
    if (was_suspended) {
        http_t *http = watcher->http;
        MHD_resume_connection(watcher->connection);
        atomic_fetch_sub(&http->waiting, 1);
    }
}

static void append_event(watcher_t *watcher, const char *name, const text_t *data)
{
    pthread_mutex_lock(&watcher->lock);
    if (watcher->text_at > 0 && watcher->text_at == watcher->text.len) {
        text_clear(&watcher->text);
        watcher->text_at = 0;
    }
    size_t waiting = watcher->text.len - watcher->text_at;
    if (!watcher->is_ending && (data->failed || waiting + data->len + 64 > WATCHER_BYTES)) {
        text_add(&watcher->text, "event: lost\ndata: {\"message\":\"this client reads too slowly\"}\n\n");
        watcher->is_ending = true;
    }
    if (!watcher->is_ending) {
        text_printf(&watcher->text, "event: %s\ndata: ", name);
        text_append(&watcher->text, data->data, data->len);
        text_add(&watcher->text, "\n\n");
        watcher->is_ending = watcher->text.failed;
    }
    watcher->quiet_ticks = 0;
    pthread_mutex_unlock(&watcher->lock);
    wake(watcher);
}

static ssize_t read_watcher(void *arg, uint64_t position, char *out, size_t max)
{
    watcher_t *watcher = arg;
    ssize_t taken = 0;
    pthread_mutex_lock(&watcher->lock);
    size_t waiting = watcher->text.len - watcher->text_at;
    if (waiting > 0) {
        taken = (ssize_t)(waiting < max ? waiting : max);
        memcpy(out, watcher->text.data + watcher->text_at, (size_t)taken);
        watcher->text_at += (size_t)taken;
        atomic_fetch_add(&watcher->http->sent_bytes, (uint64_t)taken);
        if (watcher->text_at == watcher->text.len) {
            text_clear(&watcher->text);
            watcher->text_at = 0;
        } else if (watcher->text_at > WATCHER_BYTES / 2) {
            memmove(watcher->text.data, watcher->text.data + watcher->text_at, watcher->text.len - watcher->text_at);
            watcher->text.len -= watcher->text_at;
            watcher->text_at = 0;
        }
    } else if (watcher->is_ending || atomic_load(&watcher->http->is_stopping)) {
        taken = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        watcher->is_suspended = true;
        atomic_fetch_add(&watcher->http->waiting, 1);
        MHD_suspend_connection(watcher->connection);
    }
    pthread_mutex_unlock(&watcher->lock);
    return taken;
}

static void watcher_free(void *arg)
{
    watcher_t *watcher = arg;
    http_t *http = watcher->http;
    atomic_fetch_add(&http->inside, 1); /* also while stopping: the store then waits for this */
    pthread_mutex_lock(&http->lock);
    cake_watch_t *watch = watcher->watch; /* NULL: watch_end_all stops it, or has */
    if (watcher->previous != NULL)
        watcher->previous->next = watcher->next;
    else
        http->watchers = watcher->next;
    if (watcher->next != NULL)
        watcher->next->previous = watcher->previous;
    http->watcher_count--;
    pthread_mutex_unlock(&http->lock);
    cake_watch_stop(watch);
    http_leave(http);
    assert(!watcher->is_suspended);
    pthread_mutex_destroy(&watcher->lock);
    text_free(&watcher->text);
    free(watcher);
}

/* NULL: there are too many, and the request is refused. */
static watcher_t *watcher_new(request_t *request, bool is_of_cluster, bool has_values)
{
    http_t *http = request->http;
    watcher_t *watcher = calloc(1, sizeof(*watcher));
    if (watcher == NULL) {
        request_refuse(request, 503, "out_of_memory", "out of memory; try again");
        return NULL;
    }
    watcher->http = http;
    watcher->connection = request->connection;
    watcher->is_of_cluster = is_of_cluster;
    watcher->has_values = has_values;
    watcher->text = TEXT_INIT(2 * WATCHER_BYTES);
    pthread_mutex_init(&watcher->lock, NULL);
    text_add(&watcher->text, ": datacake\n\n");
    pthread_mutex_lock(&http->lock);
    bool has_room = http->watcher_count < HTTP_WATCHERS_MAX;
    if (has_room) {
        http->watcher_count++;
        watcher->next = http->watchers;
        if (watcher->next != NULL)
            watcher->next->previous = watcher;
        http->watchers = watcher;
    }
    pthread_mutex_unlock(&http->lock);
    if (has_room)
        return watcher;
    request_refuse(request, 503, "busy", "%u clients watch this node already", HTTP_WATCHERS_MAX);
    pthread_mutex_destroy(&watcher->lock);
    text_free(&watcher->text);
    free(watcher);
    return NULL;
}

static enum MHD_Result answer_with(request_t *request, watcher_t *watcher)
{
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 32u << 10, read_watcher, watcher, watcher_free);
    if (response == NULL) {
        watcher_free(watcher);
        return MHD_NO;
    }
    MHD_add_response_header(response, "Content-Type", "text/event-stream");
    MHD_add_response_header(response, "Cache-Control", "no-store");
    return request_respond(request, 200, response, 0);
}

/* ---- the changes of a keyspace ----------------------------------------------------------------------------------- */

/* On the node's loop. */
static void document_changed(void *arg, const cake_change_t *change)
{
    watcher_t *watcher = arg;
    char stamp[CAKE_HLC_TEXT_MAX];
    text_t data = TEXT_INIT(0);
    cake_hlc_format(change->timestamp, stamp, sizeof(stamp));
    json_t *body =
        json_pack("{s:s,s:o,s:s,s:b}", "keyspace", change->keyspace, "key",
                  bytes_to_json(change->key.data, change->key.len), "timestamp", stamp, "local", change->is_local);
    if (body != NULL && watcher->has_values && !change->is_delete && change->value.len < WATCHER_BYTES)
        json_object_set_new(body, "value", bytes_to_json(change->value.data, change->value.len));
    text_json(&data, body);
    json_decref(body);
    append_event(watcher, change->is_delete ? "delete" : "put", &data);
    text_free(&data);
}

enum MHD_Result watch_keyspace(request_t *request)
{
    bool has_values = request_query_flag(request, "values");
    watcher_t *watcher = request->refusal == 0 ? watcher_new(request, false, has_values) : NULL;
    if (watcher == NULL)
        return request_error(request, 0, NULL);
    cake_watch_t *watch = NULL;
    int err = cake_store_watch(request->http->options.store, request->keyspace, document_changed, watcher, &watch);
    pthread_mutex_lock(&request->http->lock);
    watcher->watch = watch;
    pthread_mutex_unlock(&request->http->lock);
    if (err != 0) {
        watcher_free(watcher);
        return request_error(request, err, NULL);
    }
    return answer_with(request, watcher);
}

/* ---- the cluster, for the page ----------------------------------------------------------------------------------- */

static bool make_status(http_t *http, text_t *out)
{
    json_t *status = info_status_json(http);
    text_json(out, status);
    json_decref(status);
    return !out->failed;
}

enum MHD_Result watch_cluster(request_t *request)
{
    watcher_t *watcher = watcher_new(request, true, false);
    if (watcher == NULL)
        return request_error(request, 0, NULL);
    text_t status = TEXT_INIT(0);
    if (make_status(request->http, &status))
        append_event(watcher, "status", &status);
    text_free(&status);
    return answer_with(request, watcher);
}

/* A watcher is in the list until its connection is gone, and watcher_free waits for the lock of the list: while it
 * is held here none is freed. Waking with it held is fine: libmicrohttpd calls nothing of ours in a resume. */
void watch_tick(http_t *http)
{
    text_t status = TEXT_INIT(0);
    pthread_mutex_lock(&http->lock);
    bool is_wanted = false;
    for (watcher_t *watcher = http->watchers; watcher != NULL; watcher = watcher->next)
        is_wanted = is_wanted || watcher->is_of_cluster;
    pthread_mutex_unlock(&http->lock);
    bool has_status = is_wanted && make_status(http, &status);

    pthread_mutex_lock(&http->lock);
    for (watcher_t *watcher = http->watchers; watcher != NULL; watcher = watcher->next) {
        if (watcher->is_of_cluster && has_status)
            append_event(watcher, "status", &status);
        pthread_mutex_lock(&watcher->lock);
        bool is_due = ++watcher->quiet_ticks >= KEEP_ALIVE_TICKS;
        if (is_due) {
            text_add(&watcher->text, ": alive\n\n");
            watcher->quiet_ticks = 0;
        }
        pthread_mutex_unlock(&watcher->lock);
        if (is_due)
            wake(watcher);
    }
    pthread_mutex_unlock(&http->lock);
    text_free(&status);
}

/* The server is stopping: after this no change reaches a watcher, and each reader finds that it is over. */
void watch_end_all(http_t *http)
{
    for (;;) {
        cake_watch_t *watch = NULL;
        pthread_mutex_lock(&http->lock);
        for (watcher_t *watcher = http->watchers; watcher != NULL && watch == NULL; watcher = watcher->next) {
            watch = watcher->watch;
            watcher->watch = NULL;
        }
        pthread_mutex_unlock(&http->lock);
        if (watch == NULL)
            break;
        cake_watch_stop(watch); /* without the lock: it waits for the loop, which may be in append_event */
    }
    pthread_mutex_lock(&http->lock);
    for (watcher_t *watcher = http->watchers; watcher != NULL; watcher = watcher->next)
        wake(watcher);
    pthread_mutex_unlock(&http->lock);
}
