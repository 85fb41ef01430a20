/* The HTTP client against a server that sends what it likes: lengths, chunks in any pieces, ends, lies. */
#include "client.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* Answers each connection's first request with the same bytes, piece bytes at a time, and closes. */
typedef struct script {
    int listener;
    const char *answer;
    size_t len, piece;
    int connections;
    char url[64];
    pthread_t thread;
} script_t;

static void *run_script(void *arg)
{
    script_t *script = arg;
    for (int i = 0; i < script->connections; i++) {
        char request[4096];
        int peer = accept(script->listener, NULL, NULL);
        if (peer < 0)
            break;
        ssize_t got = recv(peer, request, sizeof(request), 0);
        for (size_t at = 0; got > 0 && at < script->len; at += script->piece) {
            size_t len = script->len - at < script->piece ? script->len - at : script->piece;
            if (send(peer, script->answer + at, len, MSG_NOSIGNAL) < 0)
                break;
        }
        close(peer);
    }
    return NULL;
}

static void begin_script(script_t *script, const char *answer, size_t piece, int connections)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(where);
    *script = (script_t){.answer = answer, .len = strlen(answer), .piece = piece, .connections = connections};
    script->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(script->listener, (struct sockaddr *)&where, sizeof(where)), 0);
    assert_int_equal(listen(script->listener, 8), 0);
    assert_int_equal(getsockname(script->listener, (struct sockaddr *)&where, &len), 0);
    snprintf(script->url, sizeof(script->url), "http://127.0.0.1:%u", ntohs(where.sin_port));
    assert_int_equal(pthread_create(&script->thread, NULL, run_script, script), 0);
}

static void end_script(script_t *script)
{
    shutdown(script->listener, SHUT_RDWR);
    pthread_join(script->thread, NULL);
    close(script->listener);
}

static void answers_are_read_however_they_arrive(void **state)
{
    static const struct {
        const char *answer;
        int err, status;
        const char *body;
    } rows[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0, 200, "hello"},
        {"HTTP/1.1 200 OK\ncontent-length:5\n\nhello", 0, 200, "hello"},
        {"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", 0, 404, ""},
        {"HTTP/1.1 204 No\r\n\r\n", 0, 204, ""},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 0, 200, "x"},
        {"HTTP/1.0 200 OK\r\n\r\nup to the end", 0, 200, "up to the end"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: x\r\n\r\n", 0,
         200, "abc0123456789"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", CAKE_ECONNECTION, 200, NULL},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", CAKE_ECONNECTION, 200, NULL},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", CAKE_EPARSE, 200, NULL},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", CAKE_EPARSE, 200, NULL},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", CAKE_EPARSE, 200, NULL},
        {"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", CAKE_EPARSE, 200, NULL},
        {"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", CAKE_EPARSE, 200, NULL},
        {"SSH-2.0-OpenSSH\r\n", CAKE_EPARSE, 0, NULL},
        {"HTTP/1.1 20", CAKE_ECONNECTION, 0, NULL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (size_t piece = 1; piece <= 64; piece = piece == 1 ? 7 : piece + 57) {
            script_t script;
            client_t *client;
            response_t response;
            begin_script(&script, rows[i].answer, piece, 1);
            assert_int_equal(client_open(script.url, NULL, &client), 0);
            assert_int_equal(client_request(client, "GET", "/", NULL, 0, NULL, NULL, &response), rows[i].err);
            if (rows[i].err == 0) {
                assert_int_equal(response.status, rows[i].status);
                assert_string_equal(response.body.data == NULL ? "" : response.body.data, rows[i].body);
            }
            response_free(&response);
            client_close(client);
            end_script(&script);
        }
    }
}

static void a_stale_connection_is_made_anew(void **state)
{
    script_t script;
    client_t *client;
    begin_script(&script, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 100, 3);
    assert_int_equal(client_open(script.url, NULL, &client), 0);
    for (int i = 0; i < 3; i++) { /* the server closes after each, without saying so */
        response_t response;
        assert_int_equal(client_request(client, "GET", "/", NULL, 0, NULL, NULL, &response), 0);
        assert_string_equal(response.body.data, "x");
        response_free(&response);
    }
    client_close(client);
    end_script(&script);
}

static void urls_are_checked(void **state)
{
    static const char *const bad[] = {"",        "http://",  "localhost", "https://x:1", "x:",      "x:0",
                                      "x:65536", "x:1/path", ":80",       "::1:80",      "x:8001x", "http://x:80:81"};
    static const char *const good[] = {"x:1", "http://x:8001", "http://x:8001/", "[::1]:80", "http://127.0.0.1:65535"};
    client_t *client;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(client_open(bad[i], NULL, &client), CAKE_EPARSE);
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(client_open(good[i], NULL, &client), 0);
        client_close(client);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_read_however_they_arrive),
        cmocka_unit_test(a_stale_connection_is_made_anew),
        cmocka_unit_test(urls_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
