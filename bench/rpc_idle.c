/* What connections cost that are open and idle after one call each: the server's heap and the process's memory, per
 * connection. The clients are plain sockets of the same process, which have no memory outside of the kernel; with TLS they are
 * channels of ours in another process.
 *
 *   bench-rpc_idle [connections: 10000] [tls] */
#include <stdatomic.h>
#include <malloc.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
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

/* ---- clients with TLS ---- */

static const cake_tls_config_t KEY = {.cluster_key = "a key for this program", .cluster_key_len = 22};

typedef struct {
    int fds[2]; /* what the client reads, and what it writes: a byte after each connection */
    pid_t pid;
} client_t;

/* Opens one connection for each byte that it is sent, after the server's address. */
static void run_client(int in, int out)
{
    char address[CAKE_ADDR_TEXT_MAX], byte;
    cake_channel_config_t config = CAKE_CHANNEL_CONFIG_INIT;
    must(read(in, address, sizeof address) == sizeof address, "address");
    must(cake_uv_env_new(NULL, &config.env) == 0, "env");
    config.tls = &KEY;
    while (read(in, &byte, 1) == 1) {
        cake_channel_t *channel; /* open until the process ends */
        must(cake_channel_open(address, &config, &channel) == 0, "open");
        must(cake_channel_call(channel, "/bench/echo", "a", 1, NULL, NULL) == 0, "call");
        must(write(out, &byte, 1) == 1, "write");
    }
    _exit(0);
}

static client_t start_client(void)
{
    client_t client;
    int to[2], from[2];
    must(pipe(to) == 0 && pipe(from) == 0, "pipe");
    client.pid = fork();
    must(client.pid >= 0, "fork");
    if (client.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(to[1]);
        run_client(to[0], from[1]);
    }
    close(to[0]);
    close(from[1]);
    client.fds[0] = from[0];
    client.fds[1] = to[1];
    return client;
}

static void connect_secure(const client_t *client)
{
    char byte = 0;
    must(write(client->fds[1], &byte, 1) == 1 && read(client->fds[0], &byte, 1) == 1, "a client with TLS");
}

int main(int argc, char **argv)
{
    static const cake_rpc_method_t method = {"echo", echo, 0};
    static const cake_rpc_service_t service = {"bench", &method, 1, NULL, NULL};
    size_t count = argc > 1 ? (size_t)atoi(argv[1]) : 10000;
    bool is_secure = argc > 2 && strcmp(argv[2], "tls") == 0;
    struct rlimit files;
    must(getrlimit(RLIMIT_NOFILE, &files) == 0, "getrlimit");
    files.rlim_cur = 2 * count + 100; /* both ends are here */
    if (files.rlim_cur > files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        count = (files.rlim_max - 100) / 2;
        printf("only %zu connections: no more files may be open\n", count);
    }
    must(setrlimit(RLIMIT_NOFILE, &files) == 0, "setrlimit");

    client_t client = is_secure ? start_client() : (client_t){.pid = 0};
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
    config.tls = is_secure ? &KEY : NULL;
    must(cake_rpc_listen(&config, &server) == 0 && cake_rpc_add_service(server, &service) == 0, "listen");
    cake_addr_t addr;
    cake_addr_parse(cake_rpc_address(server), &addr);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(addr.port), .sin_addr = {htonl(INADDR_LOOPBACK)}};

    int *clients = calloc(count, sizeof *clients);
    char address[CAKE_ADDR_TEXT_MAX];
    cake_addr_format(&addr, address);
    must(!is_secure || write(client.fds[1], address, sizeof address) == sizeof address, "address");
    size_t live_before = 0;
    double resident_before = 0;
    for (size_t i = 0; i < count; i++) {
        if (is_secure)
            connect_secure(&client);
        else
            clients[i] = connect_and_call(&to);
        if (i > 0)
            continue;
        live_before = live;
        resident_before = resident_bytes();
    }
    cake_rpc_server_stats_t stats;
    must(cake_rpc_server_stats(server, &stats) == 0 && stats.connections == count, "connections");
    double heap = (double)(live - live_before) / (double)(count - 1);
    double resident = (resident_bytes() - resident_before) / (double)(count - 1);
    printf("%zu idle connections%s: %.0f bytes of heap, %.0f bytes resident each (goal: %.0f resident)\n", count,
           is_secure ? " with TLS" : "", heap, resident, LIMIT_BYTES);
    for (size_t i = 0; i < count && !is_secure; i++)
        close(clients[i]);
    free(clients);
    if (is_secure) {
        close(client.fds[1]);
        close(client.fds[0]);
        waitpid(client.pid, NULL, 0);
    }
    cake_rpc_close(server);
    env->ops->close(env);
    return 0;
}
