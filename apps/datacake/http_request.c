/* http_request.c: the life of a request: parsed, routed, given its body, suspended, answered, freed. */
#include "http_request.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void *request_new(void *cls, const char *uri, struct MHD_Connection *handle);
enum MHD_Result request_handle(void *cls, struct MHD_Connection *handle, const char *url, const char *method,
                               const char *version, const char *data, size_t *len, void **own);
void request_completed(void *cls, struct MHD_Connection *handle, void **own, enum MHD_RequestTerminationCode code);

/* ---- what the request line and the headers say ------------------------------------------------------------------- */

void *request_new(void *cls, const char *uri, struct MHD_Connection *handle)
{
    request_t *request = calloc(1, sizeof(*request));
    if (request == NULL)
        return NULL;
    request->http = cls;
    request->connection = handle;
    request->uri = strdup(uri);
    request->path = request->uri;
    request->level = CAKE_QUORUM;
    request->began_us = monotonic_us();
    request->body = TEXT_INIT(0);
    if (request->uri == NULL) {
        free(request);
        return NULL;
    }
    return request;
}

void request_refuse(request_t *request, unsigned status, const char *code, const char *format, ...)
{
    if (request->refusal != 0)
        return;
    request->refusal = (int)status;
    request->refusal_code = code;
    va_list list;
    va_start(list, format);
    vsnprintf(request->refusal_message, sizeof(request->refusal_message), format, list);
    va_end(list);
}

static const char *header(const request_t *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

static void split_query(request_t *request)
{
    char *at = strchr(request->uri, '?');
    if (at == NULL)
        return;
    *at++ = 0;
    for (char *next; at != NULL && *at != 0; at = next) {
        next = strchr(at, '&');
        if (next != NULL)
            *next++ = 0;
        if (request->query_count == HTTP_QUERY_MAX) {
            request_refuse(request, 400, "invalid_argument", "more than %u names in the query", HTTP_QUERY_MAX);
            return;
        }
        char *value = strchr(at, '=');
        if (value != NULL)
            *value++ = 0;
        request->query[request->query_count].name = at;
        request->query[request->query_count].value = value == NULL ? "" : value;
        request->query_count++;
    }
}

const char *request_query(const request_t *request, const char *name)
{
    for (size_t i = 0; i < request->query_count; i++)
        if (strcmp(request->query[i].name, name) == 0)
            return request->query[i].value;
    return NULL;
}

int request_query_bytes(request_t *request, const char *name, text_t *out)
{
    unsigned char bytes[CAKE_KEY_MAX];
    size_t len = 0;
    const char *raw = request_query(request, name);
    if (raw == NULL)
        return 0;
    int err = percent_decode(raw, strlen(raw), bytes, sizeof(bytes), &len);
    if (err != 0) {
        request_refuse(request, 400, "invalid_argument", "%s must be percent-encoded bytes, 511 at most", name);
        return err;
    }
    text_append(out, bytes, len);
    return out->failed ? CAKE_ENOMEM : 0;
}

bool request_query_flag(request_t *request, const char *name)
{
    const char *value = request_query(request, name);
    if (value != NULL && strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
        request_refuse(request, 400, "invalid_argument", "%s is 0 or 1", name);
    return value != NULL && strcmp(value, "1") == 0;
}

/* Whether pattern fits path. Parts of path that stand for {} come out raw. */
static bool path_fits(const char *pattern, const char *path, cake_slice_t parts[2])
{
    size_t count = 0;
    while (*pattern != 0) {
        if (strncmp(pattern, "{}", 2) != 0) {
            if (*pattern++ != *path++)
                return false;
            continue;
        }
        pattern += 2;
        size_t len = *pattern == 0 && count == 1 ? strlen(path) : strcspn(path, "/");
        assert(count < 2);
        parts[count++] = (cake_slice_t){path, len};
        path += len;
    }
    return *path == 0;
}

static void find_route(request_t *request, cake_slice_t parts[2])
{
    for (size_t i = 0; i < http_route_count; i++) {
        const route_t *route = &http_routes[i];
        cake_slice_t found[2] = {{NULL, 0}, {NULL, 0}};
        if (!path_fits(route->path, request->path, found))
            continue;
        if ((route->method & request->method) != 0) {
            request->route = route;
            parts[0] = found[0];
            parts[1] = found[1];
            return;
        }
        request->allowed |= route->method;
    }
    char methods[HTTP_METHODS_MAX];
    http_list_methods(request->allowed, methods);
    if (request->allowed == 0)
        request_refuse(request, 404, "not_found", "there is nothing at %.100s", request->path);
    else
        request_refuse(request, 405, "method_not_allowed", "%.100s takes %s", request->path, methods);
}

static void take_names(request_t *request, const cake_slice_t parts[2])
{
    size_t len = 0;
    if (parts[0].data != NULL) {
        int err = percent_decode(parts[0].data, parts[0].len, request->keyspace, CAKE_KEYSPACE_NAME_MAX, &len);
        if (err != 0 || len == 0 || !is_utf8_name(request->keyspace, len))
            request_refuse(request, 400, "invalid_argument",
                           "a keyspace name has 1 to 127 bytes of UTF-8 without control characters");
        else
            request->keyspace[len] = 0;
    }
    if (parts[1].data != NULL) {
        int err = percent_decode(parts[1].data, parts[1].len, request->key, CAKE_KEY_MAX, &request->key_len);
        if (err == CAKE_EPARSE)
            request_refuse(request, 400, "invalid_argument",
                           "the key holds a %% that is not followed by two hex digits");
        else if (err != 0 || request->key_len == 0)
            request_refuse(request, 400, "invalid_argument", "a key has 1 to 511 bytes");
    }
}

static void check_query(request_t *request)
{
    for (size_t i = 0; i < request->query_count; i++) {
        bool is_known = false;
        for (const char *const *name = request->route->queries; name != NULL && *name != NULL; name++)
            is_known = is_known || strcmp(*name, request->query[i].name) == 0;
        if (!is_known)
            request_refuse(request, 400, "invalid_argument", "unknown name in the query: %.60s",
                           request->query[i].name);
        if (request_query(request, request->query[i].name) != request->query[i].value)
            request_refuse(request, 400, "invalid_argument", "%.60s stands in the query twice", request->query[i].name);
    }
    const char *level = request_query(request, "consistency");
    if (level == NULL)
        return;
    request->has_level = true;
    if (cake_consistency_parse(level, &request->level) != 0)
        request_refuse(request, 400, "invalid_argument",
                       "consistency is none, one, two, three, quorum, local_quorum, each_quorum or all");
}

static void check_token(request_t *request)
{
    const char *wanted = request->http->token, *given = header(request, "Authorization");
    if (wanted == NULL)
        return;
    size_t len = strlen(wanted);
    unsigned differences = 1;
    if (given != NULL && strncmp(given, "Bearer ", 7) == 0 && strlen(given + 7) == len) {
        differences = 0; /* as long for a wrong token as for the right one */
        for (size_t i = 0; i < len; i++)
            differences |= (unsigned char)(wanted[i] ^ given[7 + i]);
    }
    if (differences != 0)
        request_refuse(request, 401, "unauthorized", "send the token: Authorization: Bearer TOKEN");
}

/* An address, a name that no stranger can give out (one without a dot, or of .localhost), or one of the operator. */
static bool is_name_of_ours(const http_t *http, const char *host)
{
    char name[256];
    struct in_addr numeric;
    size_t len = strcspn(host, ":");
    if (host[0] == '[')
        return true;
    if (len >= sizeof(name))
        return false;
    snprintf(name, sizeof(name), "%.*s", (int)len, host);
    bool is_ours = strchr(name, '.') == NULL || inet_pton(AF_INET, name, &numeric) == 1 ||
                   (len > 10 && strcasecmp(name + len - 10, ".localhost") == 0);
    for (const char *const *given = http->options.names; !is_ours && *given != NULL; given++)
        is_ours = strlen(*given) >= len && strncasecmp(*given, name, len) == 0 &&
                  ((*given)[len] == 0 || (*given)[len] == ':');
    return is_ours;
}

static bool came_over_loopback(const request_t *request)
{
    struct sockaddr_storage local = {0};
    socklen_t len = sizeof(local);
    int socket = MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    const struct sockaddr_in *v4 = (const void *)&local;
    const struct sockaddr_in6 *v6 = (const void *)&local;
    if (getsockname(socket, (struct sockaddr *)&local, &len) != 0)
        return false;
    if (local.ss_family == AF_INET)
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    return local.ss_family == AF_INET6 && (IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) ||
                                           (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && v6->sin6_addr.s6_addr[12] == 127));
}

/* Of the pages of other sites that are open in a browser which reaches this node, two kinds are refused:
 *
 *   - one that writes. It cannot read the answers, but its user would know nothing of it;
 *   - any whose name has been made to lead to this machine (DNS rebinding), so that it and we look like one site.
 *     All browsers send Accept-Language, and Sec-Fetch-Site only by https, where such a name has no certificate.
 *     Where a token is asked for, the page does not know it. */
static void check_site(request_t *request)
{
    const char *site = header(request, "Sec-Fetch-Site"), *origin = header(request, "Origin");
    const char *host = header(request, "Host"), *scheme_end = origin == NULL ? NULL : strstr(origin, "://");
    bool is_own = origin == NULL || (host != NULL && scheme_end != NULL && strcasecmp(scheme_end + 3, host) == 0);
    if (site != NULL)
        is_own = strcmp(site, "same-origin") == 0 || strcmp(site, "none") == 0;
    if (request->method != METHOD_GET && !is_own)
        request_refuse(request, 403, "forbidden", "pages of other sites may not write here");
    bool is_of_browser = origin != NULL || header(request, "Accept-Language") != NULL;
    if (is_of_browser && site == NULL && host != NULL && request->http->token == NULL &&
        !is_name_of_ours(request->http, host) && came_over_loopback(request))
        request_refuse(request, 403, "forbidden", "%.100s is no name of this node; if it is, start it with --http-name",
                       host);
}

static void observe_stamp(request_t *request)
{
    const char *text = header(request, "X-Datacake-Timestamp");
    if (text == NULL)
        return;
    cake_hlc_t stamp;
    if (cake_hlc_parse(text, &stamp) != 0) {
        request_refuse(request, 400, "invalid_argument", "X-Datacake-Timestamp must be one that a node gave");
        return;
    }
    if (cake_node_observe(request->http->options.node, stamp) != 0)
        request_refuse(
            request, 503, "clock_drift",
            "X-Datacake-Timestamp is too far ahead of this machine's clock; check the clocks of the cluster");
    else
        request->seen = stamp;
}

static http_method_t parse_method(const char *method)
{
    if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0)
        return METHOD_GET;
    if (strcmp(method, "PUT") == 0)
        return METHOD_PUT;
    if (strcmp(method, "POST") == 0)
        return METHOD_POST;
    return strcmp(method, "DELETE") == 0 ? METHOD_DELETE : 0;
}

static enum MHD_Result request_begin(request_t *request, const char *method)
{
    cake_slice_t parts[2] = {{NULL, 0}, {NULL, 0}};
    request->is_begun = true;
    request->method = parse_method(method);
    split_query(request);
    find_route(request, parts);
    if (request->route == NULL || !request->route->is_open)
        check_token(request);
    if (request->refusal == 0)
        check_site(request);
    if (request->refusal == 0)
        take_names(request, parts);
    if (request->refusal == 0)
        check_query(request);
    if (request->refusal == 0 && !http_enter(request->http)) {
        request_refuse(request, 503, "closing", "this node is stopping");
    } else if (request->refusal == 0) {
        observe_stamp(request);
        if (request->refusal == 0 && request->route->begin != NULL)
            request->route->begin(request);
        http_leave(request->http);
    }
    /* A client that sends its body only when told to must not be told to; an endless one is not read to its end. */
    const char *length = header(request, "Content-Length");
    bool is_endless = length != NULL && strtoull(length, NULL, 10) > HTTP_DRAIN_MAX;
    if (request->refusal != 0 && (header(request, "Expect") != NULL || is_endless))
        return request_error(request, 0, NULL);
    return MHD_YES;
}

/* ---- body and answer --------------------------------------------------------------------------------------------- */

static enum MHD_Result request_take_body(request_t *request, const char *data, size_t *len)
{
    uint64_t spent_ms = monotonic_ms() - request->began_us / 1000 - request->paused_ms;
    uint64_t allowed_ms = request->http->options.idle_s * 1000u + request->body_len / HTTP_BODY_LEAST_RATE;
    bool is_drained = request->refusal != 0 || request->route->body == NULL;
    if (spent_ms > allowed_ms || (is_drained && request->body_len > HTTP_DRAIN_MAX)) {
        atomic_fetch_add(&request->http->connections_cut, 1);
        return MHD_NO;
    }
    size_t left = 0;
    if (!is_drained) {
        left = *len;
        if (http_enter(request->http)) {
            request->route->body(request, data, &left);
            http_leave(request->http);
        } else {
            request_refuse(request, 503, "closing", "this node is stopping");
            left = 0;
        }
    }
    assert(left <= *len);
    request->body_len += *len - left;
    atomic_fetch_add(&request->http->received_bytes, *len - left);
    *len = left;
    return MHD_YES;
}

static enum MHD_Result request_finish(request_t *request)
{
    if (request->refusal != 0)
        return request_error(request, 0, NULL);
    bool is_inside = http_enter(request->http);
    if (!is_inside && !request->is_started) { /* one that was started has an answer to give */
        request_refuse(request, 503, "closing", "this node is stopping");
        return request_error(request, 0, NULL);
    }
    enum MHD_Result result = request->route->finish(request);
    if (is_inside)
        http_leave(request->http);
    return result;
}

static void set_busy(request_t *request, bool is_busy)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    connection_t *connection = info == NULL ? NULL : info->socket_context;
    if (connection == NULL)
        return;
    pthread_mutex_lock(&request->http->lock);
    connection->is_busy = is_busy;
    connection->since_ms = monotonic_ms();
    pthread_mutex_unlock(&request->http->lock);
}

enum MHD_Result request_handle(void *cls, struct MHD_Connection *handle, const char *url, const char *method,
                               const char *version, const char *data, size_t *len, void **own)
{
    request_t *request = *own;
    if (request == NULL)
        return MHD_NO; /* out of memory when it began */
    if (!request->is_begun) {
        set_busy(request, true);
        return request_begin(request, method);
    }
    if (atomic_load(&request->is_waiting))
        return MHD_YES; /* nothing taken: it comes again after the resume */
    if (*len > 0)
        return request_take_body(request, data, len);
    return request_finish(request);
}

void request_completed(void *cls, struct MHD_Connection *handle, void **own, enum MHD_RequestTerminationCode code)
{
    request_t *request = *own;
    if (request == NULL)
        return;
    *own = NULL;
    set_busy(request, false);
    if (request->route != NULL && request->route->end != NULL)
        request->route->end(request);
    if (request->charged > 0)
        atomic_fetch_sub(&request->http->body_bytes, request->charged);
    cake_doc_free(request->answer.doc);
    text_free(&request->body);
    free(request->uri);
    free(request);
}

bool http_charge(request_t *request, uint64_t bytes)
{
    uint64_t before = atomic_fetch_add(&request->http->body_bytes, bytes);
    if (before + bytes <= request->http->options.max_body_bytes) {
        request->charged += bytes;
        return true;
    }
    atomic_fetch_sub(&request->http->body_bytes, bytes);
    request_refuse(request, 503, "busy", "too many large requests at once; try again");
    return false;
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

void request_suspend(request_t *request)
{
    atomic_fetch_add(&request->http->waiting, 1);
    request->is_started = true;
    atomic_store(&request->is_waiting, true);
    request->paused_ms -= monotonic_ms(); /* request_resume adds the end of it */
    MHD_suspend_connection(request->connection);
}

static void request_resume(request_t *request)
{
    http_t *http = request->http;
    request->paused_ms += monotonic_ms();
    atomic_store(&request->is_waiting, false);
    MHD_resume_connection(request->connection); /* from here on the request may be freed at any moment */
    atomic_fetch_sub(&http->waiting, 1);
}

void request_done(const cake_result_t *result, void *arg)
{
    request_t *request = arg;
    answer_t *answer = &request->answer;
    answer->err = result->err;
    answer->timestamp = result->timestamp;
    answer->live = result->live;
    answer->responses = result->responses;
    answer->required = result->required;
    answer->timeout_ms = result->timeout_ms;
    for (size_t i = 0; i < result->doc_count; i++) {
        if (i == 0)
            answer->doc = result->docs[0];
        else
            cake_doc_free(result->docs[i]);
    }
    snprintf(answer->message, sizeof(answer->message), "%s", result->message == NULL ? "" : result->message);
    request_resume(request);
}

void request_not_started(request_t *request, int err)
{
    request->answer.err = err;
    snprintf(request->answer.message, sizeof(request->answer.message), "%s", cake_strerror(err));
    request_resume(request);
}
