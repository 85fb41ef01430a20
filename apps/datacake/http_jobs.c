/* http_jobs.c: what an operator asks of the whole cluster: to compare itself now, to forget a node that is gone. */
#include "http_request.h"

#include "command.h"

#include <stdio.h>
#include <string.h>

static void end_job(http_t *http)
{
    pthread_mutex_lock(&http->lock);
    http->is_job_running = false;
    pthread_mutex_unlock(&http->lock);
}

#define DAMAGE_TOLD_MAX 1000u /* documents named in an answer; the counts are of all */

static void on_damage(void *arg, const cake_damage_t *damage)
{
    json_t *found = arg;
    if (json_array_size(found) >= DAMAGE_TOLD_MAX)
        return;
    json_t *key = json_stringn(damage->key.data, damage->key.len); /* NULL: no text */
    json_array_append_new(found, json_pack("{s:s,s:s,s:o*,s:i,s:b,s:s*}", "kind", cake_damage_name(damage->kind),
                                           "keyspace", damage->keyspace, "key", key, "node", (int)damage->node_id,
                                           "healed", (int)damage->is_healed, "why", damage->why));
}

static json_t *report_of(const cake_verify_report_t *report, json_t *found)
{
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "keyspaces", (json_int_t)report->keyspaces,
                     "documents", (json_int_t)report->documents, "replicas", (json_int_t)report->replicas,
                     "ranges_different", (json_int_t)report->ranges_different, "missing", (json_int_t)report->missing,
                     "strange", (json_int_t)report->strange, "wrong", (json_int_t)report->wrong, "different",
                     (json_int_t)report->different, "healed", (json_int_t)report->healed, "not_compared",
                     (json_int_t)report->not_compared, "damaged", (json_int_t)report->damaged, "damage", found);
}

/* A thread of its own: it may take long, and libmicrohttpd's threads are few. */
static void *run_verify(void *arg)
{
    request_t *request = arg;
    http_t *http = request->http;
    cake_verify_options_t options = CAKE_VERIFY_OPTIONS_INIT;
    cake_verify_report_t report;
    json_t *found = json_array();
    options.found = found == NULL ? NULL : on_damage;
    options.arg = found;
    int err = cake_store_verify(http->options.store, &options, &report);
    if (err == 0)
        request->own = report_of(&report, found);
    else
        json_decref(found);
    end_job(http);
    cake_result_t result = {.err = err, .message = cake_strerror(err)};
    http_leave(http);
    request_done(&result, request);
    return NULL;
}

static enum MHD_Result answer_verify(request_t *request)
{
    json_t *answer = request->own;
    request->own = NULL;
    if (request->answer.err != 0)
        return request_answer_error(request);
    cake_store_stats_t stats = {0};
    bool is_inside = http_enter(request->http);
    int err = is_inside ? cake_store_stats(request->http->options.store, &stats) : CAKE_ECLOSED;
    if (is_inside)
        http_leave(request->http);
    if (err != 0 || answer == NULL) {
        json_decref(answer);
        return request_error(request, err != 0 ? err : CAKE_ENOMEM, NULL);
    }
    char fingerprint[20];
    snprintf(fingerprint, sizeof(fingerprint), "%016llx", (unsigned long long)stats.fingerprint);
    json_object_set_new(answer, "live", json_integer((json_int_t)stats.live));
    json_object_set_new(answer, "fingerprint", json_string(fingerprint));
    return request_json(request, 200, answer, 0);
}

void job_verify_end(request_t *request)
{
    json_decref(request->own); /* the client has gone */
}

enum MHD_Result job_verify(request_t *request)
{
    http_t *http = request->http;
    if (request->is_started)
        return answer_verify(request);
    pthread_mutex_lock(&http->lock);
    bool is_free = !http->is_job_running;
    http->is_job_running = true;
    pthread_mutex_unlock(&http->lock);
    if (!is_free)
        return request_error(request, CAKE_EBUSY, "a comparison is under way already; try again");

    pthread_t thread;
    pthread_attr_t detached;
    request_suspend(request);
    atomic_fetch_add(&http->inside, 1); /* run_verify leaves */
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    int failed = pthread_create(&thread, &detached, run_verify, request);
    pthread_attr_destroy(&detached);
    if (failed != 0) {
        http_leave(http);
        end_job(http);
        request_not_started(request, CAKE_EBUSY);
    }
    return MHD_YES;
}

enum MHD_Result job_forget(request_t *request)
{
    uint64_t id;
    if (parse_number(request->keyspace, 1, UINT16_MAX, &id) != 0)
        return request_error(request, CAKE_EINVAL, "a node id is a number from 1 to 65535");
    if (id == request->http->node_id)
        return request_error(request, CAKE_ECONFLICT, "that is this node: stop it, then tell another to forget it");
    int err = cake_store_forget(request->http->options.store, (uint16_t)id);
    if (err == CAKE_ENOTFOUND)
        return request_error(request, err, "there is no such replica");
    if (err == CAKE_EBUSY)
        return request_error(request, CAKE_ECONFLICT, "that node is alive; stop it first");
    if (err != 0)
        return request_error(request, err, NULL);
    return request_json(request, 200, json_pack("{s:I}", "forgotten", (json_int_t)id), 0);
}
