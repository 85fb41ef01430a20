/* What connections cost that are open and idle after one call each: the server's heap and the process's memory, per
 * connection. The clients are plain sockets of the same process, which have no memory outside of the kernel.
 *
 *   bench-rpc_idle [connections: 10000] */
#include <stdatomic.h>
#include <malloc.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <datacake/rpc.h>
#include <datacake/uv.h>

#include "env/env.h"

#define LIMIT_BYTES 12288.0 /* the goal, of each */

/* The client's preface, empty settings, the acknowledgement, and a call of /bench/echo. */
static const char HELLO[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0\0"
                            "\0\0\22\1\5\0\0\0\1\203\206\4\13/bench/echo\1\1a";

static void must(bool is_fine, const char *what)
{
    if (is_fine)
        return;
    perror(what);
    exit(1);
}

static void *counting_resize(void *ctx, void *block, size_t size)
{
    _Atomic(size_t) *live = ctx;
    size_t before = malloc_usable_size(block);
    void *after = NULL;
    if (size == 0)
        free(block);
    else if ((after = realloc(block, size)) == NULL)
        return NULL;
    atomic_fetch_add(live, malloc_usable_size(after) - before);
    return after;
}

static double resident_bytes(void)
{
    unsigned long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    must(file != NULL && fscanf(file, "%lu %lu", &size, &resident) == 2, "/proc/self/statm");
    fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static void echo(cake_rpc_call_t *call, void *arg)
{
    (void)arg;
    cake_rpc_reply(call, "hello", 5);
}

/* Gives the socket once the call has been answered: the last frame is DATA with the end. */
static int connect_and_call(const struct sockaddr_in *to)
{
    uint8_t in[512];
    size_t len = 0;
    int client = socket(AF_INET, SOCK_STREAM, 0);
    must(client >= 0 && connect(client, (const struct sockaddr *)to, sizeof *to) == 0, "connect");
    must(send(client, HELLO, sizeof HELLO - 1, MSG_NOSIGNAL) == sizeof HELLO - 1, "send");
    while (len < 5 || memcmp(in + len - 5, "hello", 5) != 0) {
        ssize_t got = read(client, in + len, sizeof in - len);
        must(got > 0, "read");
        len += (size_t)got;
    }
    return client;
}

int main(int argc, char **argv)
{
    static const cake_rpc_method_t method = {"echo", echo, 0};
    static const cake_rpc_service_t service = {"bench", &method, 1, NULL, NULL};
    size_t count = argc > 1 ? (size_t)atoi(argv[1]) : 10000;
    struct rlimit files;
    must(getrlimit(RLIMIT_NOFILE, &files) == 0, "getrlimit");
    files.rlim_cur = 2 * count + 100; /* both ends are here */
    if (files.rlim_cur > files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        count = (files.rlim_max - 100) / 2;
        printf("only %zu connections: no more files may be open\n", count);
    }
    must(setrlimit(RLIMIT_NOFILE, &files) == 0, "setrlimit");

    _Atomic(size_t) live = 0;
    cake_alloc_t alloc = {counting_resize, &live};
    cake_uv_options_t options = CAKE_UV_OPTIONS_INIT;
    cake_rpc_server_config_t config = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_rpc_server_t *server;
    cake_env_t *env;
    options.alloc = &alloc;
    must(cake_uv_env_new(&options, &env) == 0, "env");
    config.env = env;
    config.listen_addr = "127.0.0.1:0";
    must(cake_rpc_listen(&config, &server) == 0 && cake_rpc_add_service(server, &service) == 0, "listen");
    cake_addr_t addr;
    cake_addr_parse(cake_rpc_address(server), &addr);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(addr.port), .sin_addr = {htonl(INADDR_LOOPBACK)}};

    int *clients = calloc(count, sizeof *clients);
    clients[0] = connect_and_call(&to);
    size_t live_before = live;
    double resident_before = resident_bytes();
    for (size_t i = 1; i < count; i++)
        clients[i] = connect_and_call(&to);
    cake_rpc_server_stats_t stats;
    must(cake_rpc_server_stats(server, &stats) == 0 && stats.connections == count, "connections");
    double heap = (double)(live - live_before) / (double)(count - 1);
    double resident = (resident_bytes() - resident_before) / (double)(count - 1);
    printf("%zu idle connections: %.0f bytes of heap, %.0f bytes resident each (goal: %.0f resident)\n", count, heap,
           resident, LIMIT_BYTES);
    for (size_t i = 0; i < count; i++)
        close(clients[i]);
    free(clients);
    cake_rpc_close(server);
    env->ops->close(env);
    return 0;
}
