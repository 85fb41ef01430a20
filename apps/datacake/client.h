/* client.h: a small HTTP/1.1 client for the commands that talk to a node: one connection, kept alive, blocking.
 *
 * Not shared between threads: each has its own. */
#ifndef DATACAKE_APP_CLIENT_H
#define DATACAKE_APP_CLIENT_H

#include "command.h"
#include "text.h"

#define CLIENT_HEADERS_MAX (64u << 10)
#define CLIENT_BODY_MAX    (UINT64_C(1) << 30) /* of an answer that is not taken piece by piece */
#define CLIENT_TIMEOUT_MS  60000u              /* without a byte */
#define CLIENT_ENVIRONMENT "DATACAKE_HTTP"

typedef struct client client_t;

/* Takes the body piece by piece: 0 to go on. */
typedef int (*client_body_fn)(void *arg, const char *data, size_t len);

typedef struct response {
    int status;
    char stamp[64]; /* X-Datacake-Timestamp, or empty */
    text_t body;    /* empty when a body_fn took it */
} response_t;

/* url: "http://host:port" or "host:port"; token may be NULL. CAKE_EPARSE, CAKE_ENOMEM. The first request connects. */
int client_open(const char *url, const char *token, client_t **out);
void client_close(client_t *client);
const char *client_url(const client_t *client);

/* Returns 0 when there is an answer, whatever its status; CAKE_ECONNECTION, CAKE_ETIMEDOUT, CAKE_EPARSE (not HTTP),
 * CAKE_ETOOBIG, or what take returned. A request that a kept-alive connection lost without a byte of answer is made
 * once more. Only answers of status 200 go to take. response_free in any case. */
int client_request(client_t *client, const char *method, const char *path, const void *body, size_t len,
                   client_body_fn take, void *arg, response_t *response);
void response_free(response_t *response);
const char *client_message(const client_t *client); /* of the last failure: "Connection refused" */

/* ---- for commands ------------------------------------------------------------------------------------------------ */
#define CLIENT_FLAGS                                                                                                   \
    {"http", "URL", "the node to talk to (DATACAKE_HTTP, or http://127.0.0.1:8001)"},                                  \
    {                                                                                                                  \
        "http-token", "FILE", "send the token in this file (DATACAKE_HTTP_TOKEN names one, too)"                       \
    }

#define CLIENT_TOKEN_MAX 512

/* That of --http-token; empty: none is given. 0, or the exit status once it has been said why. */
int client_token(const args_t *args, char token[CLIENT_TOKEN_MAX]);
/* By --http and --http-token. As above. */
int client_from_args(const args_t *args, client_t **out);
/* The one request of a command, by such a client: 0 when its answer has status 200, as above otherwise.
 * response_free in any case. take may be client_print. */
int client_ask(const args_t *args, const char *method, const text_t *path, const text_t *body, client_body_fn take,
               void *arg, response_t *response);
int client_print(void *arg, const char *data, size_t len); /* on standard output */
/* Says why a request failed, and returns the exit status for it. err as client_request returned it. */
int client_fail(const args_t *args, const client_t *client, int err, const response_t *response);
/* The exit status for an answer; *message what the node says. */
int client_explain(const response_t *response, char *message, size_t size);

#endif
