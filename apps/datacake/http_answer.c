/* http_answer.c: answers: documents in JSON, errors with their status and code, the stamp that every answer carries. */
#include "http_request.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct error_row {
    int err;
    unsigned status;
    const char *code;
} error_row_t;

static const error_row_t error_rows[] = {
    {CAKE_EINVAL, 400, "invalid_argument"},
    {CAKE_EPARSE, 400, "invalid_argument"},
    {CAKE_ENOTFOUND, 404, "not_found"},
    {CAKE_ECONFLICT, 409, "conflict"},
    {CAKE_ETOOBIG, 413, "too_large"},
    {CAKE_ENOTENOUGHNODES, 503, "not_enough_nodes"},
    {CAKE_ECONSISTENCY, 503, "consistency_failed"},
    {CAKE_ENOTJOINED, 503, "not_joined"},
    {CAKE_EDRIFT, 503, "clock_drift"},
    {CAKE_EBUSY, 503, "busy"},
    {CAKE_ECLOSED, 503, "closing"},
    {CAKE_ETIMEDOUT, 503, "timed_out"},
    {CAKE_EUNAVAILABLE, 503, "unavailable"},
    {CAKE_ECONNECTION, 503, "unavailable"},
    {CAKE_ENOSPC, 507, "storage_full"},
    {CAKE_ENOMEM, 503, "out_of_memory"},
    {CAKE_EIO, 500, "storage_failed"},
    {CAKE_ECORRUPT, 500, "storage_damaged"},
};

static error_row_t row_of(int err)
{
    for (size_t i = 0; i < sizeof(error_rows) / sizeof(error_rows[0]); i++)
        if (error_rows[i].err == err)
            return error_rows[i];
    return (error_row_t){err, 500, "internal"};
}

/* What goes out is never below what the client has seen: one that sends back the last stamp it got stays in order. */
static void add_stamp(request_t *request, struct MHD_Response *response, cake_hlc_t stamp)
{
    char text[CAKE_HLC_TEXT_MAX];
    if (stamp == 0 && http_enter(request->http)) {
        stamp = cake_node_now(request->http->options.node);
        http_leave(request->http);
    }
    if (stamp < request->seen)
        stamp = request->seen;
    if (stamp != 0 && cake_hlc_format(stamp, text, sizeof(text)) > 0)
        MHD_add_response_header(response, "X-Datacake-Timestamp", text);
}

void http_list_methods(unsigned methods, char out[HTTP_METHODS_MAX])
{
    static const char *const names[] = {"GET, HEAD", "PUT", "POST", "DELETE"}; /* in the order of their bits */
    size_t len = 0;
    out[0] = 0;
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if ((methods & 1u << i) != 0)
            len += (size_t)snprintf(out + len, HTTP_METHODS_MAX - len, "%s%s", len > 0 ? ", " : "", names[i]);
}

const uint32_t http_latency_bounds_us[HTTP_LATENCY_BOUNDS] = {
    500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000};

static void count_answer(request_t *request, unsigned status)
{
    assert(status < HTTP_STATUS_MAX);
    atomic_fetch_add(&request->http->answers[status], 1);
    if (request->method == 0)
        return; /* 405 */
    latency_t *latency = &request->http->latencies[__builtin_ctz(request->method)];
    uint64_t spent_us = monotonic_us() - request->began_us;
    size_t at = 0;
    while (at < HTTP_LATENCY_BOUNDS && spent_us > http_latency_bounds_us[at])
        at++;
    atomic_fetch_add(&latency->counts[at], 1);
    atomic_fetch_add(&latency->sum_us, spent_us);
}

enum MHD_Result request_respond(request_t *request, unsigned status, struct MHD_Response *response, cake_hlc_t stamp)
{
    if (response == NULL)
        return MHD_NO; /* out of memory: the connection is cut */
    add_stamp(request, response, stamp);
    MHD_add_response_header(response, "X-Content-Type-Options",
                            "nosniff"); /* a document is no page, whatever it holds */
    if (status == 405) {
        char allowed[HTTP_METHODS_MAX];
        http_list_methods(request->allowed, allowed);
        MHD_add_response_header(response, "Allow", allowed);
    }
    if (status == 401)
        MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    if (status == 503)
        MHD_add_response_header(response, "Retry-After", "1");
    count_answer(request, status);
    enum MHD_Result result = MHD_queue_response(request->connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result respond_with_text(request_t *request, unsigned status, const char *type, text_t *text,
                                         cake_hlc_t stamp)
{
    struct MHD_Response *response = NULL;
    atomic_fetch_add(&request->http->sent_bytes, text->len);
    if (!text->failed)
        response = MHD_create_response_from_buffer(text->len, text->data, MHD_RESPMEM_MUST_FREE);
    if (response == NULL)
        text_free(text);
    else
        MHD_add_response_header(response, "Content-Type", type);
    return request_respond(request, status, response, stamp);
}

enum MHD_Result request_text(request_t *request, unsigned status, const char *type, text_t *text)
{
    return respond_with_text(request, status, type, text, 0);
}

enum MHD_Result request_json(request_t *request, unsigned status, json_t *body, cake_hlc_t stamp)
{
    text_t text = TEXT_INIT(0);
    text_json(&text, body);
    text_append(&text, "\n", 1);
    json_decref(body);
    return respond_with_text(request, status, "application/json", &text, stamp);
}

json_t *request_error_body(const answer_t *answer, unsigned *status)
{
    error_row_t row = row_of(answer->err);
    *status = row.status;
    char message[HTTP_MESSAGE_MAX];
    snprintf(message, sizeof(message), "%s", answer->message[0] != 0 ? answer->message : cake_strerror(answer->err));
    if (answer->err == CAKE_ENOTENOUGHNODES)
        snprintf(message, sizeof(message), "the level takes %u replicas and %u are there; nothing was written",
                 answer->required, answer->live);
    if (answer->err == CAKE_ECONSISTENCY)
        snprintf(message, sizeof(message),
                 "%u of %u replicas had it after %llu ms; the write stays and goes on replicating", answer->responses,
                 answer->required, (unsigned long long)answer->timeout_ms);
    if (answer->err == CAKE_ECONFLICT)
        snprintf(message, sizeof(message), "the document is not what the condition says; nothing was written");
    json_t *error = json_pack("{s:s,s:s}", "code", row.code, "message", message);
    if (error == NULL)
        error = json_pack("{s:s,s:s}", "code", row.code, "message", cake_strerror(answer->err));
    if (answer->err == CAKE_ENOTENOUGHNODES)
        json_object_set_new(error, "live", json_integer(answer->live));
    if (answer->err == CAKE_ECONSISTENCY)
        json_object_set_new(error, "responses", json_integer(answer->responses));
    char stamp[CAKE_HLC_TEXT_MAX];
    if (answer->err == CAKE_ECONFLICT && answer->timestamp != 0 &&
        cake_hlc_format(answer->timestamp, stamp, sizeof(stamp)) > 0)
        json_object_set_new(error, "timestamp", json_string(stamp));
    if (answer->err == CAKE_ENOTENOUGHNODES || answer->err == CAKE_ECONSISTENCY)
        json_object_set_new(error, "required", json_integer(answer->required));
    if (answer->err == CAKE_ECONSISTENCY)
        json_object_set_new(error, "timeout_ms", json_integer((json_int_t)answer->timeout_ms));
    return json_pack("{s:o}", "error", error);
}

enum MHD_Result request_answer_error(request_t *request)
{
    unsigned status;
    json_t *body = request_error_body(&request->answer, &status);
    return request_json(request, status, body, request->answer.timestamp);
}

enum MHD_Result request_error(request_t *request, int err, const char *message)
{
    if (request->refusal == 0) {
        error_row_t row = row_of(err);
        request_refuse(request, row.status, row.code, "%s", message != NULL ? message : cake_strerror(err));
    }
    json_t *body =
        json_pack("{s:{s:s,s:s}}", "error", "code", request->refusal_code, "message", request->refusal_message);
    if (body == NULL) /* the message quoted something that is not UTF-8 */
        body = json_pack("{s:{s:s,s:s}}", "error", "code", request->refusal_code, "message", "not understood");
    return request_json(request, (unsigned)request->refusal, body, 0);
}
