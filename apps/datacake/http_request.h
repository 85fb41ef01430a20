/* http_request.h: one request of the REST side, as its routes see it. Internal to http_*.c. */
#ifndef DATACAKE_APP_HTTP_REQUEST_H
#define DATACAKE_APP_HTTP_REQUEST_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "clock.h"
#include "http.h"
#include "text.h"

#define MIB                  (UINT64_C(1) << 20)
#define HTTP_THREADS         4u
#define HTTP_DRAIN_MAX       (64 * MIB) /* of a refused body is read, so that the client sees the refusal */
#define HTTP_QUERY_MAX       8u         /* names in a query */
#define HTTP_WATCHERS_MAX    64u
#define HTTP_EVENTS_MAX      64u /* recent events kept for /status */
#define HTTP_STATUS_MAX      600u
#define HTTP_METHODS_MAX     40u /* "GET, HEAD, PUT, POST, DELETE" */
#define HTTP_BODY_LEAST_RATE 4u  /* bytes per ms, after the idle time; a slower sender is cut */

#define HTTP_LATENCY_BOUNDS 14u

typedef enum http_method { METHOD_GET = 1, METHOD_PUT = 2, METHOD_POST = 4, METHOD_DELETE = 8 } http_method_t;

#define HTTP_METHOD_COUNT 4u

struct request;
struct watcher;

typedef struct route {
    const char *path;           /* "/kv/{}/{}": a {} stands for one part; the last one takes the rest */
    unsigned method;            /* of http_method_t */
    const char *const *queries; /* names it takes, NULL at the end */
    bool is_open;               /* needs no token */
    /* Members may be NULL, except finish. begin: the headers are there. body: takes up to *len bytes, sets *len to
     * what is left. finish: the body is whole; called again after each resume until it has answered. */
    void (*begin)(struct request *request);
    void (*body)(struct request *request, const char *data, size_t *len);
    enum MHD_Result (*finish)(struct request *request);
    void (*end)(struct request *request);
} route_t;

/* A copy of what the store answered. */
typedef struct answer {
    int err;
    cake_hlc_t timestamp;
    uint32_t live, responses, required;
    uint64_t timeout_ms;
    cake_doc_t *doc;
    char message[HTTP_MESSAGE_MAX];
} answer_t;

typedef struct request {
    http_t *http;
    struct MHD_Connection *connection;
    const route_t *route;
    char *uri; /* raw, cut at ? and & */
    const char *path;
    struct {
        const char *name, *value;
    } query[HTTP_QUERY_MAX];
    size_t query_count;
    http_method_t method;
    unsigned allowed; /* with 405: the methods that the path takes */
    char keyspace[CAKE_KEYSPACE_NAME_MAX + 1];
    unsigned char key[CAKE_KEY_MAX];
    size_t key_len;
    cake_consistency_t level;
    bool has_level;
    cake_hlc_t seen;     /* the stamp the client sent; 0: none */
    cake_hlc_t expected; /* with has_expected: the document's, for the write to be made; 0: there is none */
    bool has_expected;

    bool is_begun, is_started; /* started: the store was asked at least once */
    atomic_bool is_waiting;    /* for the store; libmicrohttpd may still call in with the next piece of a body */
    int refusal;               /* status, 0: none */
    const char *refusal_code;
    char refusal_message[HTTP_MESSAGE_MAX];

    text_t body;
    uint64_t body_len;  /* received */
    uint64_t charged;   /* taken from the budget of all bodies */
    uint64_t began_us;  /* monotonic */
    uint64_t paused_ms; /* waited for the store while a body was under way */
    answer_t answer;
    void *own; /* the route's */
} request_t;

/* A connection, so that ones that never finish a request can be cut. */
typedef struct connection {
    struct connection *previous, *next;
    int socket;
    bool is_busy; /* between a request's headers and the end of its answer */
    uint64_t since_ms;
} connection_t;

/* How many answers took up to each bound, and longer than the one before; the last: longer than all. */
typedef struct latency {
    atomic_uint_fast64_t counts[HTTP_LATENCY_BOUNDS + 1];
    atomic_uint_fast64_t sum_us;
} latency_t;

typedef struct event {
    uint64_t unix_ms;
    char kind[16];
    char text[160];
} event_t;

struct http {
    http_options_t options;
    char address[HTTP_ADDRESS_MAX];
    char *token;
    struct MHD_Daemon *daemon;
    int listen_socket;
    uint64_t started_ms;
    uint16_t node_id;

    atomic_bool is_stopping;
    atomic_bool is_ready; /* was once */
    atomic_int inside;    /* threads of libmicrohttpd that use the store right now */
    atomic_int waiting;   /* suspended requests that the store will answer */
    atomic_uint_fast64_t body_bytes;
    atomic_uint_fast64_t answers[HTTP_STATUS_MAX];
    atomic_uint_fast64_t received_bytes, sent_bytes, connections_cut;
    latency_t latencies[HTTP_METHOD_COUNT]; /* in the order of their bits */

    pthread_mutex_t lock; /* of all below */
    pthread_cond_t tick_wake;
    pthread_t tick_thread;
    connection_t *connections;
    unsigned connection_count;
    struct watcher *watchers;
    unsigned watcher_count;
    event_t events[HTTP_EVENTS_MAX];
    uint64_t event_count; /* ever */
    bool is_job_running;  /* a /verify */
    cake_watch_t *membership_watch;
};

extern const route_t http_routes[];
extern const size_t http_route_count;

extern const uint32_t http_latency_bounds_us[HTTP_LATENCY_BOUNDS];

/* Around every use of the store or node on a thread of libmicrohttpd. False: the server is stopping, keep out. */
bool http_enter(http_t *http);
void http_leave(http_t *http);

void http_add_event(http_t *http, const char *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));

void http_list_methods(unsigned methods, char out[HTTP_METHODS_MAX]);

/* ---- answers: each request gets one of them, once; they are what finish returns ---------------------------------- */
enum MHD_Result request_respond(request_t *request, unsigned status, struct MHD_Response *response, cake_hlc_t stamp);
enum MHD_Result request_json(request_t *request, unsigned status, json_t *body, cake_hlc_t stamp); /* takes body */
enum MHD_Result request_text(request_t *request, unsigned status, const char *type, text_t *text); /* takes text */
enum MHD_Result request_error(request_t *request, int err, const char *message);
enum MHD_Result request_answer_error(request_t *request); /* of request->answer */
json_t *request_error_body(const answer_t *answer, unsigned *status);

/* Marks it as refused: its body is not looked at, and its answer says this. The first refusal stays. */
void request_refuse(request_t *request, unsigned status, const char *code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
const char *request_query(const request_t *request, const char *name); /* raw; NULL: not given */
int request_query_bytes(request_t *request, const char *name, text_t *out);
bool request_query_flag(request_t *request, const char *name); /* 1; refused when it is neither that nor 0 */

/* ---- waiting for the store --------------------------------------------------------------------------------------- */
void request_suspend(request_t *request);              /* before the store's call... */
void request_done(const cake_result_t *, void *arg);   /* ...which gets this and the request */
void request_not_started(request_t *request, int err); /* the call itself failed: finish runs again, with its error */

bool http_charge(request_t *request, uint64_t bytes); /* false: too much is held; refused */

/* ---- routes ------------------------------------------------------------------------------------------------------ */
void kv_begin_write(request_t *request);
void kv_begin_delete(request_t *request);
void kv_take_body(request_t *request, const char *data, size_t *len);
enum MHD_Result kv_put(request_t *request);
enum MHD_Result kv_get(request_t *request);
enum MHD_Result kv_delete(request_t *request);
enum MHD_Result list_documents(request_t *request);
void bulk_begin(request_t *request);
void bulk_body(request_t *request, const char *data, size_t *len);
enum MHD_Result bulk_finish(request_t *request);
void bulk_end(request_t *request);
enum MHD_Result info_keyspaces(request_t *request);
enum MHD_Result info_members(request_t *request);
enum MHD_Result info_status(request_t *request);
enum MHD_Result info_metrics(request_t *request);
enum MHD_Result info_health(request_t *request);
enum MHD_Result info_ready(request_t *request);
enum MHD_Result info_page(request_t *request);
enum MHD_Result job_verify(request_t *request);
void job_verify_end(request_t *request);
enum MHD_Result job_forget(request_t *request);
enum MHD_Result watch_keyspace(request_t *request);
enum MHD_Result watch_cluster(request_t *request);

json_t *info_status_json(http_t *http); /* NULL: out of memory, or the server is stopping */
void watch_tick(http_t *http);          /* once a second, without the lock */
void watch_end_all(http_t *http);

#endif
