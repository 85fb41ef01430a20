/* http.c: the daemon of the REST side: its socket, its threads, the connections it has, and how it ends. */
#include "http_request.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTION_MEMORY (64u << 10) /* of libmicrohttpd for one connection: headers and a piece of body */

bool http_enter(http_t *http)
{
    atomic_fetch_add(&http->inside, 1);
    if (!atomic_load(&http->is_stopping))
        return true;
    atomic_fetch_sub(&http->inside, 1);
    return false;
}

void http_leave(http_t *http)
{
    int before = atomic_fetch_sub(&http->inside, 1);
    assert(before > 0);
    (void)before;
}

void http_add_event(http_t *http, const char *kind, const char *format, ...)
{
    pthread_mutex_lock(&http->lock);
    event_t *event = &http->events[http->event_count % HTTP_EVENTS_MAX];
    event->unix_ms = wall_ms();
    snprintf(event->kind, sizeof(event->kind), "%s", kind);
    va_list list;
    va_start(list, format);
    vsnprintf(event->text, sizeof(event->text), format, list);
    va_end(list);
    http->event_count++;
    pthread_mutex_unlock(&http->lock);
}

/* On the loop of the node. */
static void membership_changed(void *arg, cake_membership_kind_t kind, const cake_member_t *member)
{
    http_t *http = arg;
    const char *what = kind == CAKE_MEMBER_JOINED ? "joined" : kind == CAKE_MEMBER_LEFT ? "left" : "changed";
    if (kind == CAKE_MEMBER_LEFT && member->status == CAKE_DEAD)
        what = "died";
    http_add_event(http, what, "node %u at %s in %s is %s", member->node_id, member->address, member->data_center,
                   cake_status_name(member->status));
    log_line(http->options.log, CAKE_LOG_INFO, "node %u at %s is %s", member->node_id, member->address,
             cake_status_name(member->status));
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

static void connection_changed(void *cls, struct MHD_Connection *handle, void **own,
                               enum MHD_ConnectionNotificationCode code)
{
    http_t *http = cls;
    connection_t *connection = *own;
    pthread_mutex_lock(&http->lock);
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        connection = calloc(1, sizeof(*connection));
        *own = connection;
        if (connection != NULL) {
            connection->socket = MHD_get_connection_info(handle, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
            connection->since_ms = monotonic_ms();
            connection->next = http->connections;
            if (connection->next != NULL)
                connection->next->previous = connection;
            http->connections = connection;
            http->connection_count++;
        }
    } else if (connection != NULL) {
        if (connection->previous != NULL)
            connection->previous->next = connection->next;
        else
            http->connections = connection->next;
        if (connection->next != NULL)
            connection->next->previous = connection->previous;
        http->connection_count--;
        free(connection);
    }
    pthread_mutex_unlock(&http->lock);
}

/* libmicrohttpd's own timeout starts anew with every byte: a client that sends one now and then would stay for ever. */
static void cut_idle_connections(http_t *http)
{
    uint64_t now_ms = monotonic_ms();
    pthread_mutex_lock(&http->lock);
    for (connection_t *connection = http->connections; connection != NULL; connection = connection->next) {
        if (connection->is_busy || now_ms - connection->since_ms < 2000u * http->options.idle_s)
            continue;
        shutdown(connection->socket, SHUT_RDWR);
        connection->since_ms = now_ms;
        atomic_fetch_add(&http->connections_cut, 1);
    }
    pthread_mutex_unlock(&http->lock);
}

static void *run_ticks(void *arg)
{
    http_t *http = arg;
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    pthread_mutex_lock(&http->lock);
    while (!atomic_load(&http->is_stopping)) {
        next.tv_sec++;
        int err = 0;
        while (err == 0 && !atomic_load(&http->is_stopping))
            err = pthread_cond_timedwait(&http->tick_wake, &http->lock, &next);
        if (atomic_load(&http->is_stopping))
            break;
        pthread_mutex_unlock(&http->lock);
        cut_idle_connections(http);
        watch_tick(http);
        pthread_mutex_lock(&http->lock);
    }
    pthread_mutex_unlock(&http->lock);
    return NULL;
}

/* ---- start ------------------------------------------------------------------------------------------------------- */

static int open_socket(const char *address, const struct addrinfo *where, char message[HTTP_MESSAGE_MAX])
{
    int on = 1, handle = socket(where->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (handle < 0) {
        snprintf(message, HTTP_MESSAGE_MAX, "no socket for the HTTP address: %s", strerror(errno));
        return CAKE_EIO;
    }
    setsockopt(handle, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(handle, where->ai_addr, where->ai_addrlen) == 0 && listen(handle, 1024) == 0)
        return handle;
    int err = errno == EADDRINUSE ? CAKE_EADDRINUSE : errno == EADDRNOTAVAIL ? CAKE_EINVAL : CAKE_EIO;
    if (err == CAKE_EADDRINUSE)
        snprintf(message, HTTP_MESSAGE_MAX,
                 "the HTTP address %s is in use; stop what listens there, or give another --http", address);
    else
        snprintf(message, HTTP_MESSAGE_MAX, "cannot listen on the HTTP address %s: %s", address, strerror(errno));
    close(handle);
    return err;
}

void http_address(int socket, char out[HTTP_ADDRESS_MAX])
{
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound);
    char host[64] = "?", port[8] = "?";
    if (getsockname(socket, (struct sockaddr *)&bound, &len) == 0)
        getnameinfo((struct sockaddr *)&bound, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(out, HTTP_ADDRESS_MAX, bound.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

int http_listen(const char *address, char message[HTTP_MESSAGE_MAX])
{
    char host[128];
    struct addrinfo *found = NULL, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    const char *colon = strrchr(address, ':');
    size_t len = colon == NULL ? 0 : (size_t)(colon - address);
    bool is_bracketed = len > 2 && address[0] == '[' && address[len - 1] == ']';
    if (is_bracketed)
        snprintf(host, sizeof(host), "%.*s", (int)len - 2, address + 1);
    else
        snprintf(host, sizeof(host), "%.*s", (int)len, address);
    if (colon == NULL || colon[1] == 0 || strlen(colon) > 6 || len == 0 || len >= sizeof(host) ||
        (!is_bracketed && strchr(host, ':') != NULL) || getaddrinfo(host, colon + 1, &hints, &found) != 0) {
        snprintf(message, HTTP_MESSAGE_MAX, "\"%s\" is no HTTP address; give --http HOST:PORT, like 127.0.0.1:8001",
                 address);
        return CAKE_EPARSE;
    }
    int handle = open_socket(address, found, message);
    freeaddrinfo(found);
    return handle;
}

static void log_of_daemon(void *cls, const char *format, va_list list)
{
    const http_t *http = cls;
    char line[512];
    vsnprintf(line, sizeof(line), format, list);
    line[strcspn(line, "\n")] = 0;
    log_line(http->options.log, CAKE_LOG_DEBUG, "http: %s", line);
}

/* Escapes stay as they are: routes decode their own parts, so that %2F and %00 may be in keys. */
static size_t keep_escapes(void *cls, struct MHD_Connection *handle, char *text)
{
    return strlen(text);
}

void *request_new(void *cls, const char *uri, struct MHD_Connection *handle);
enum MHD_Result request_handle(void *cls, struct MHD_Connection *handle, const char *url, const char *method,
                               const char *version, const char *data, size_t *len, void **own);
void request_completed(void *cls, struct MHD_Connection *handle, void **own, enum MHD_RequestTerminationCode code);

static int start_daemon(http_t *http)
{
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, request_handle,
        http, MHD_OPTION_EXTERNAL_LOGGER, log_of_daemon, http, MHD_OPTION_LISTEN_SOCKET, http->listen_socket,
        MHD_OPTION_THREAD_POOL_SIZE, HTTP_THREADS, MHD_OPTION_CONNECTION_LIMIT, http->options.max_connections,
        MHD_OPTION_CONNECTION_TIMEOUT, http->options.idle_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_MEMORY, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, http, MHD_OPTION_URI_LOG_CALLBACK,
        request_new, http, MHD_OPTION_NOTIFY_COMPLETED, request_completed, http, MHD_OPTION_NOTIFY_CONNECTION,
        connection_changed, http, MHD_OPTION_END);
    return http->daemon == NULL ? CAKE_EIO : 0;
}

int http_start(const http_options_t *options, int socket, http_t **out)
{
    *out = NULL;
    http_t *http = calloc(1, sizeof(*http));
    if (http == NULL) {
        close(socket);
        return CAKE_ENOMEM;
    }
    http->options = *options;
    http->listen_socket = socket;
    http_address(socket, http->address);
    http->started_ms = monotonic_ms();
    http->node_id = cake_node_id(options->node);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&http->lock, NULL);
    pthread_cond_init(&http->tick_wake, &monotonic);
    pthread_condattr_destroy(&monotonic);

    bool has_ticks = false;
    int err = options->token == NULL || (http->token = strdup(options->token)) != NULL ? 0 : CAKE_ENOMEM;
    if (err == 0)
        err = cake_node_watch(options->node, membership_changed, http, &http->membership_watch);
    if (err == 0 && pthread_create(&http->tick_thread, NULL, run_ticks, http) != 0)
        err = CAKE_EINTERNAL;
    has_ticks = err == 0;
    if (err == 0)
        err = start_daemon(http);
    if (err == 0) {
        *out = http;
        return 0;
    }
    if (!has_ticks)
        http->tick_thread = 0;
    http_quiesce(http);
    http_stop(http);
    return err;
}

/* ---- end --------------------------------------------------------------------------------------------------------- */

static void wait_for_zero(const atomic_int *counter)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    while (atomic_load(counter) > 0)
        nanosleep(&pause, NULL);
}

void http_quiesce(http_t *http)
{
    if (http == NULL)
        return;
    if (http->daemon != NULL)
        MHD_quiesce_daemon(http->daemon);
    pthread_mutex_lock(&http->lock);
    atomic_store(&http->is_stopping, true);
    pthread_cond_broadcast(&http->tick_wake);
    pthread_mutex_unlock(&http->lock);
    if (http->tick_thread != 0)
        pthread_join(http->tick_thread, NULL);
    http->tick_thread = 0;
    cake_watch_stop(http->membership_watch);
    http->membership_watch = NULL;
    wait_for_zero(&http->inside); /* no more watchers are made... */
    watch_end_all(http);
    wait_for_zero(&http->inside); /* ...and those that are freed meanwhile have let the store go */
}

void http_stop(http_t *http)
{
    if (http == NULL)
        return;
    assert(atomic_load(&http->is_stopping));
    /* libmicrohttpd must not be stopped while a connection is suspended. */
    wait_for_zero(&http->waiting);
    if (http->daemon != NULL)
        MHD_stop_daemon(http->daemon);
    if (http->listen_socket >= 0)
        close(http->listen_socket);
    assert(http->watchers == NULL);
    pthread_cond_destroy(&http->tick_wake);
    pthread_mutex_destroy(&http->lock);
    free(http->token);
    free(http);
}
