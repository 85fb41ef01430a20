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

/* A thread of its own: sync sessions may take long, and libmicrohttpd's threads are few. */
static void *run_verify(void *arg)
{
    request_t *request = arg;
    http_t *http = request->http;
    int err = cake_store_sync(http->options.store);
    end_job(http);
    cake_result_t result = {.err = err, .message = cake_strerror(err)};
    http_leave(http);
    request_done(&result, request);
    return NULL;
}

static enum MHD_Result answer_verify(request_t *request)
{
    if (request->answer.err != 0)
        return request_answer_error(request);
    cake_store_stats_t stats = {0};
    int err = http_enter(request->http) ? cake_store_stats(request->http->options.store, &stats) : CAKE_ECLOSED;
    if (err != CAKE_ECLOSED)
        http_leave(request->http);
    if (err != 0)
        return request_error(request, err, NULL);
    char fingerprint[20];
    snprintf(fingerprint, sizeof(fingerprint), "%016llx", (unsigned long long)stats.fingerprint);
    return request_json(request, 200,
                        json_pack("{s:I,s:s}", "live", (json_int_t)stats.live, "fingerprint", fingerprint), 0);
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
    int err = cake_store_forget(request->http->options.store, (uint16_t)id);
    if (err == CAKE_ENOTFOUND)
        return request_error(request, err, "there is no such replica");
    if (err == CAKE_EBUSY)
        return request_error(request, CAKE_ECONFLICT, "that node is alive; stop it first");
    if (err != 0)
        return request_error(request, err, NULL);
    return request_json(request, 200, json_pack("{s:I}", "forgotten", (json_int_t)id), 0);
}
