/* client.c: see client.h. Reads what RFC 9112 lets a server send: a length, chunks, or a body up to the end. */
#include "client.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <datacake/hlc.h>

#define BUFFER_BYTES       (64u << 10)
#define CONNECT_TIMEOUT_MS 5000

struct client {
    char url[300], host[256], port[8];
    char *token;
    int socket; /* -1: not connected */
    bool is_reused;
    size_t at, len; /* unread bytes of buffer */
    char message[128];
    char buffer[BUFFER_BYTES];
};

typedef struct head {
    uint64_t length;
    bool has_length, is_chunked, is_closing;
} head_t;

typedef struct sink {
    client_body_fn take;
    void *arg;
    text_t *body;
} sink_t;

/* ---- making and ending ------------------------------------------------------------------------------------------- */

static int parse_url(client_t *client, const char *url)
{
    if (strncmp(url, "http://", 7) == 0)
        url += 7;
    size_t len = strcspn(url, "/");
    if (url[len] != 0 && url[len + 1] != 0)
        return CAKE_EPARSE; /* a path would be dropped silently */
    const char *colon = memrchr(url, ':', len);
    size_t host_len = colon == NULL ? 0 : (size_t)(colon - url), port_len = colon == NULL ? 0 : len - host_len - 1;
    if (host_len > 2 && url[0] == '[' && url[host_len - 1] == ']') {
        snprintf(client->host, sizeof(client->host), "%.*s", (int)host_len - 2, url + 1);
    } else {
        if (host_len == 0 || host_len >= sizeof(client->host) || memchr(url, ':', host_len) != NULL)
            return CAKE_EPARSE;
        snprintf(client->host, sizeof(client->host), "%.*s", (int)host_len, url);
    }
    uint64_t port;
    snprintf(client->port, sizeof(client->port), "%.*s", (int)(port_len < 7 ? port_len : 7), colon + 1);
    if (parse_number(client->port, 1, 65535, &port) != 0)
        return CAKE_EPARSE;
    snprintf(client->url, sizeof(client->url), "http://%.*s", (int)len, url);
    return 0;
}

int client_open(const char *url, const char *token, client_t **out)
{
    *out = NULL;
    client_t *client = calloc(1, sizeof(*client));
    if (client == NULL)
        return CAKE_ENOMEM;
    client->socket = -1;
    int err = parse_url(client, url);
    if (err == 0 && token != NULL && (client->token = strdup(token)) == NULL)
        err = CAKE_ENOMEM;
    if (err != 0) {
        client_close(client);
        return err;
    }
    *out = client;
    return 0;
}

static void disconnect(client_t *client)
{
    if (client->socket >= 0)
        close(client->socket);
    client->socket = -1;
    client->at = client->len = 0;
}

void client_close(client_t *client)
{
    if (client == NULL)
        return;
    disconnect(client);
    free(client->token);
    free(client);
}

const char *client_url(const client_t *client)
{
    return client->url;
}

const char *client_message(const client_t *client)
{
    return client->message;
}

void response_free(response_t *response)
{
    text_free(&response->body);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static int lose(client_t *client, int err, const char *message)
{
    snprintf(client->message, sizeof(client->message), "%s", message);
    disconnect(client);
    return err;
}

static int lose_by_errno(client_t *client)
{
    bool is_timeout = errno == EAGAIN || errno == EWOULDBLOCK || errno == ETIMEDOUT;
    return lose(client, is_timeout ? CAKE_ETIMEDOUT : CAKE_ECONNECTION,
                is_timeout ? "no answer in time" : strerror(errno));
}

static int try_connect(client_t *client, const struct addrinfo *where)
{
    struct timeval connect_time = {.tv_sec = CONNECT_TIMEOUT_MS / 1000};
    struct timeval idle_time = {.tv_sec = CLIENT_TIMEOUT_MS / 1000};
    int on = 1;
    client->socket = socket(where->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->socket < 0)
        return lose_by_errno(client);
    setsockopt(client->socket, SOL_SOCKET, SO_SNDTIMEO, &connect_time, sizeof(connect_time));
    if (connect(client->socket, where->ai_addr, where->ai_addrlen) != 0) {
        if (errno == EINPROGRESS)
            errno = ETIMEDOUT;
        return lose_by_errno(client);
    }
    setsockopt(client->socket, SOL_SOCKET, SO_SNDTIMEO, &idle_time, sizeof(idle_time));
    setsockopt(client->socket, SOL_SOCKET, SO_RCVTIMEO, &idle_time, sizeof(idle_time));
    setsockopt(client->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return 0;
}

static int connect_to(client_t *client)
{
    struct addrinfo *found = NULL, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    int err = getaddrinfo(client->host, client->port, &hints, &found);
    if (err != 0)
        return lose(client, CAKE_ECONNECTION, gai_strerror(err));
    err = CAKE_ECONNECTION;
    for (const struct addrinfo *where = found; where != NULL && err != 0; where = where->ai_next)
        err = try_connect(client, where);
    freeaddrinfo(found);
    client->is_reused = false;
    return err;
}

static int send_all(client_t *client, struct iovec *parts, int count)
{
    while (count > 0) {
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
        ssize_t sent = sendmsg(client->socket, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return lose_by_errno(client);
        size_t left = (size_t)sent;
        while (count > 0 && left >= parts->iov_len) {
            left -= parts->iov_len;
            parts++;
            count--;
        }
        if (count > 0) {
            parts->iov_base = (char *)parts->iov_base + left;
            parts->iov_len -= left;
        }
    }
    return 0;
}

/* Fills the empty buffer. CAKE_ECLOSED: the server sent its end. */
static int receive(client_t *client)
{
    client->at = client->len = 0;
    for (;;) {
        ssize_t len = recv(client->socket, client->buffer, BUFFER_BYTES, 0);
        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0)
            return lose_by_errno(client);
        client->len = (size_t)len;
        return len == 0 ? CAKE_ECLOSED : 0;
    }
}

/* One line without its end. */
static int read_line(client_t *client, text_t *line)
{
    text_clear(line);
    for (;;) {
        if (client->at == client->len) {
            int err = receive(client);
            if (err != 0)
                return err;
        }
        const char *from = client->buffer + client->at;
        const char *newline = memchr(from, '\n', client->len - client->at);
        size_t len = newline == NULL ? client->len - client->at : (size_t)(newline - from);
        text_append(line, from, len);
        client->at += newline == NULL ? len : len + 1;
        if (line->failed)
            return CAKE_ETOOBIG;
        if (newline == NULL)
            continue;
        if (line->len > 0 && line->data[line->len - 1] == '\r')
            line->data[--line->len] = 0;
        text_append(line, "", 0);
        return 0;
    }
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static int take_header(const char *line, head_t *head, response_t *response)
{
    const char *colon = strchr(line, ':');
    if (colon == NULL)
        return CAKE_EPARSE;
    size_t len = (size_t)(colon - line);
    const char *value = colon + 1 + strspn(colon + 1, " \t");
    if (len == 14 && strncasecmp(line, "Content-Length", len) == 0) {
        head->has_length = true;
        return parse_number(value, 0, INT64_MAX, &head->length) == 0 ? 0 : CAKE_EPARSE;
    }
    if (len == 17 && strncasecmp(line, "Transfer-Encoding", len) == 0) {
        head->is_chunked = strcasecmp(value, "chunked") == 0;
        return head->is_chunked ? 0 : CAKE_EPARSE;
    }
    if (len == 10 && strncasecmp(line, "Connection", len) == 0)
        head->is_closing = strcasecmp(value, "close") == 0;
    if (len == 20 && strncasecmp(line, "X-Datacake-Timestamp", len) == 0)
        snprintf(response->stamp, sizeof(response->stamp), "%s", value);
    return 0;
}

static int read_head(client_t *client, text_t *line, head_t *head, response_t *response)
{
    int minor = 0;
    do { /* skips 100 Continue and its like */
        *head = (head_t){0};
        int err = read_line(client, line);
        if (err != 0)
            return err;
        if (sscanf(line->data, "HTTP/1.%1d %3d", &minor, &response->status) != 2 || response->status < 100)
            return CAKE_EPARSE;
        head->is_closing = minor == 0;
        size_t total = 0;
        while ((err = read_line(client, line)) == 0 && line->len > 0) {
            total += line->len;
            if (total > CLIENT_HEADERS_MAX)
                return CAKE_ETOOBIG;
            err = take_header(line->data, head, response);
            if (err != 0)
                return err;
        }
        if (err != 0)
            return err;
    } while (response->status < 200);
    return 0;
}

static int deliver(const sink_t *sink, const char *data, size_t len)
{
    if (sink->take != NULL)
        return sink->take(sink->arg, data, len);
    text_append(sink->body, data, len);
    return sink->body->failed ? CAKE_ETOOBIG : 0;
}

/* Exactly length bytes; or, with UINT64_MAX, all up to the end. */
static int read_bytes(client_t *client, const sink_t *sink, uint64_t length)
{
    while (length > 0) {
        if (client->at == client->len) {
            int err = receive(client);
            if (err != 0)
                return err == CAKE_ECLOSED && length == UINT64_MAX ? 0 : err;
        }
        size_t len = client->len - client->at;
        len = len < length ? len : (size_t)length;
        int err = deliver(sink, client->buffer + client->at, len);
        if (err != 0)
            return err;
        client->at += len;
        length -= length == UINT64_MAX ? 0 : len;
    }
    return 0;
}

static int read_chunks(client_t *client, text_t *line, const sink_t *sink)
{
    for (;;) {
        int err = read_line(client, line);
        if (err != 0)
            return err;
        char *end;
        uint64_t length = strtoull(line->data, &end, 16);
        if (end == line->data || (*end != 0 && *end != ';' && *end != ' ') || length > INT64_MAX)
            return CAKE_EPARSE;
        if (length == 0)
            break;
        err = read_bytes(client, sink, length);
        if (err == 0)
            err = read_line(client, line);
        if (err != 0 || line->len != 0)
            return err != 0 ? err : CAKE_EPARSE;
    }
    int err;
    while ((err = read_line(client, line)) == 0 && line->len > 0)
        continue; /* trailers */
    return err;
}

static int read_answer(client_t *client, bool is_head, client_body_fn take, void *arg, response_t *response)
{
    text_t line = TEXT_INIT(CLIENT_HEADERS_MAX);
    head_t head;
    int err = read_head(client, &line, &head, response);
    bool has_begun = err == 0;
    sink_t sink = {response->status == 200 ? take : NULL, arg, &response->body};
    if (err == 0 && !is_head && response->status != 204 && response->status != 304) {
        if (head.is_chunked)
            err = read_chunks(client, &line, &sink);
        else
            err = read_bytes(client, &sink, head.has_length ? head.length : UINT64_MAX);
        head.is_closing = head.is_closing || (!head.is_chunked && !head.has_length);
    }
    bool is_empty = !has_begun && line.len == 0 && response->status == 0;
    text_free(&line);
    if (err == CAKE_ECLOSED && is_empty)
        return CAKE_ECLOSED;
    if (err == CAKE_ECLOSED)
        return lose(client, CAKE_ECONNECTION, "the connection was closed in the middle of an answer");
    if (err == CAKE_EPARSE)
        return lose(client, err, "what answers there does not speak HTTP as a node does");
    if (err != 0 || head.is_closing)
        disconnect(client);
    return err;
}

static int send_request(client_t *client, const char *method, const char *path, const void *body, size_t len)
{
    text_t head = TEXT_INIT(0);
    text_printf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, client->url + strlen("http://"));
    if (client->token != NULL)
        text_printf(&head, "Authorization: Bearer %s\r\n", client->token);
    if (body != NULL)
        text_printf(&head, "Content-Length: %zu\r\n", len);
    text_add(&head, "\r\n");
    struct iovec parts[2] = {{head.data, head.len}, {(void *)(uintptr_t)body, body == NULL ? 0 : len}};
    int err = head.failed ? CAKE_ENOMEM : send_all(client, parts, body == NULL || len == 0 ? 1 : 2);
    text_free(&head);
    return err;
}

int client_request(client_t *client, const char *method, const char *path, const void *body, size_t len,
                   client_body_fn take, void *arg, response_t *response)
{
    int err = 0;
    client->message[0] = 0;
    for (int attempt = 0; attempt < 2; attempt++) {
        memset(response, 0, sizeof(*response));
        response->body = TEXT_INIT(CLIENT_BODY_MAX);
        err = client->socket >= 0 ? 0 : connect_to(client);
        bool was_reused = client->is_reused;
        if (err != 0)
            return err;
        err = send_request(client, method, path, body, len);
        if (err == 0)
            err = read_answer(client, strcmp(method, "HEAD") == 0, take, arg, response);
        client->is_reused = err == 0 && client->socket >= 0;
        bool is_stale = was_reused && response->status == 0 && (err == CAKE_ECLOSED || err == CAKE_ECONNECTION);
        if (!is_stale)
            break;
        disconnect(client);
        response_free(response);
    }
    if (err == CAKE_ECLOSED)
        return lose(client, CAKE_ECONNECTION, "the node closed the connection");
    return err;
}

/* ---- for commands ------------------------------------------------------------------------------------------------ */

int client_token(const args_t *args, char token[CLIENT_TOKEN_MAX])
{
    const char *path = args_value(args, "http-token", getenv("DATACAKE_HTTP_TOKEN"));
    token[0] = 0;
    if (path == NULL || *path == 0)
        return 0;
    FILE *file = fopen(path, "re");
    if (file == NULL || fgets(token, CLIENT_TOKEN_MAX, file) == NULL)
        token[0] = 0;
    if (file != NULL)
        fclose(file);
    token[strcspn(token, "\r\n")] = 0;
    return token[0] != 0 ? 0 : fail(args, EXIT_USAGE, "there is no token to be read in %s", path);
}

int client_from_args(const args_t *args, client_t **out)
{
    const char *environment = getenv(CLIENT_ENVIRONMENT);
    const char *url = args_value(args, "http", environment != NULL && *environment != 0 ? environment : NULL);
    char token[CLIENT_TOKEN_MAX];
    *out = NULL;
    int status = client_token(args, token);
    if (status != 0)
        return status;
    if (url == NULL)
        url = "http://127.0.0.1:8001";
    int err = client_open(url, token[0] == 0 ? NULL : token, out);
    if (err == CAKE_EPARSE)
        return fail(args, EXIT_USAGE, "\"%s\" names no node; --http and " CLIENT_ENVIRONMENT " take http://HOST:PORT",
                    url);
    return err == 0 ? 0 : fail(args, EXIT_OTHER, "%s", cake_strerror(err));
}

int client_explain(const response_t *response, char *message, size_t size)
{
    json_t *body = json_loadb(response->body.data == NULL ? "" : response->body.data, response->body.len, 0, NULL);
    const json_t *error = json_object_get(body, "error");
    const char *code = json_string_value(json_object_get(error, "code"));
    const char *text = json_string_value(json_object_get(error, "message"));
    int status = EXIT_OTHER;
    if (text != NULL)
        snprintf(message, size, "%s", text);
    else
        snprintf(message, size, "the node answered with status %d", response->status);
    if (response->status == 404)
        status = EXIT_NOT_FOUND;
    else if (response->status == 400)
        status = EXIT_USAGE;
    else if (code != NULL && (strcmp(code, "not_enough_nodes") == 0 || strcmp(code, "consistency_failed") == 0))
        status = EXIT_CONSISTENCY;
    json_decref(body);
    return status;
}

int client_fail(const args_t *args, const client_t *client, int err, const response_t *response)
{
    char message[512];
    if (err == CAKE_ECONNECTION || err == CAKE_ETIMEDOUT || err == CAKE_EPARSE)
        return fail(args, EXIT_UNREACHABLE, "cannot reach %s: %s; is a node running there? (datacake serve, --http)",
                    client->url, client->message);
    if (err != 0)
        return fail(args, EXIT_OTHER, "%s", cake_strerror(err));
    int status = client_explain(response, message, sizeof(message));
    return fail(args, status, "%s", message);
}

int client_ask(const args_t *args, const char *method, const text_t *path, const text_t *body, client_body_fn take,
               void *arg, response_t *response)
{
    client_t *client = NULL;
    *response = (response_t){0};
    if (path->failed)
        return fail(args, EXIT_OTHER, "out of memory");
    int status = client_from_args(args, &client);
    if (status != 0)
        return status;
    const void *data = body == NULL ? NULL : body->len == 0 ? "" : body->data;
    int err = client_request(client, method, path->data, data, body == NULL ? 0 : body->len, take, arg, response);
    if (err != 0 || response->status != 200)
        status = client_fail(args, client, err, response);
    client_close(client);
    return status;
}

int client_print(void *arg, const char *data, size_t len)
{
    return fwrite(data, 1, len, stdout) == len ? 0 : CAKE_EIO;
}
