/* What connections cost a server that are open and idle after one call each: its own heap, that of OpenSSL, and the
 * process's memory, per connection. The clients are channels in another process. The limit: what a bare SSL has after
 * its handshake.
 *
 *   bench-rpc_idle [connections: 10000] [plain | tls: both] */
#include <stdatomic.h>
#include <malloc.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <datacake/rpc.h>
#include <datacake/uv.h>

#include "env/env.h"
#include "rpc_bare_tls.h"

#define LIMIT_BYTES 12288.0 /* the goal, of each */

static void must(bool is_fine, const char *what)
{
    if (is_fine)
        return;
    perror(what);
    exit(1);
}

/* ---- heaps ---- */

typedef struct {
    _Atomic(size_t) live, largest;
} heap_t;

static heap_t ours, library; /* OpenSSL's functions have no context */

static size_t chunk_bytes(void *block)
{
    return block != NULL ? malloc_usable_size(block) + sizeof(size_t) : 0;
}

static void *counting_resize(void *ctx, void *block, size_t size)
{
    heap_t *heap = ctx;
    size_t before = chunk_bytes(block);
    void *after = NULL;
    if (size == 0)
        free(block);
    else if ((after = realloc(block, size)) == NULL)
        return NULL;
    heap->live += chunk_bytes(after) - before;
    if (size > heap->largest)
        heap->largest = size;
    return after;
}

static void *library_malloc(size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return size == 0 ? NULL : counting_resize(&library, NULL, size);
}

static void *library_realloc(void *block, size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return counting_resize(&library, block, size);
}

static void library_free(void *block, const char *file, int line)
{
    (void)file;
    (void)line;
    counting_resize(&library, block, 0);
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

/* ---- clients ---- */

static const cake_tls_config_t KEY = {.cluster_key = "a key for this program", .cluster_key_len = 22};

typedef struct {
    int fds[2]; /* what the client reads, and what it writes: a byte after each connection */
    pid_t pid;
} client_t;

/* Opens one connection for each byte that it is sent, after the server's address. */
static void run_client(int in, int out, bool is_secure)
{
    char address[CAKE_ADDR_TEXT_MAX], byte;
    cake_channel_config_t config = CAKE_CHANNEL_CONFIG_INIT;
    must(read(in, address, sizeof address) == sizeof address, "address");
    must(cake_uv_env_new(NULL, &config.env) == 0, "env");
    config.tls = is_secure ? &KEY : NULL;
    while (read(in, &byte, 1) == 1) {
        cake_channel_t *channel; /* open until the process ends */
        must(cake_channel_open(address, &config, &channel) == 0, "open");
        must(cake_channel_call(channel, "/bench/echo", "a", 1, NULL, NULL) == 0, "call");
        must(write(out, &byte, 1) == 1, "write");
    }
    _exit(0);
}

static client_t start_client(bool is_secure)
{
    client_t client;
    int to[2], from[2];
    must(pipe(to) == 0 && pipe(from) == 0, "pipe");
    client.pid = fork();
    must(client.pid >= 0, "fork");
    if (client.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(to[1]);
        run_client(to[0], from[1], is_secure);
    }
    close(to[0]);
    close(from[1]);
    client.fds[0] = from[0];
    client.fds[1] = to[1];
    return client;
}

static void connect_one(const client_t *client)
{
    char byte = 0;
    must(write(client->fds[1], &byte, 1) == 1 && read(client->fds[0], &byte, 1) == 1, "the client");
}

/* ---- one kind of connections ---- */

typedef struct {
    cake_env_t *env;
    cake_rpc_server_t *server;
    cake_addr_t addr;
    client_t client;
    size_t count;
    bool is_secure;
} bench_t;

static void allow_files(size_t count)
{
    struct rlimit files;
    must(getrlimit(RLIMIT_NOFILE, &files) == 0, "getrlimit");
    files.rlim_cur = count;
    if (files.rlim_max < count)
        files.rlim_max = count; /* root may */
    must(setrlimit(RLIMIT_NOFILE, &files) == 0, "so many open files");
}

static void start_server(bench_t *bench)
{
    static const cake_rpc_method_t method = {"echo", echo, 0};
    static const cake_rpc_service_t service = {"bench", &method, 1, NULL, NULL};
    cake_alloc_t alloc = {counting_resize, &ours};
    cake_uv_options_t options = CAKE_UV_OPTIONS_INIT;
    cake_rpc_server_config_t config = CAKE_RPC_SERVER_CONFIG_INIT;
    options.alloc = &alloc;
    must(cake_uv_env_new(&options, &bench->env) == 0, "env");
    config.env = bench->env;
    config.listen_addr = "127.0.0.1:0";
    config.tls = bench->is_secure ? &KEY : NULL;
    config.limits.max_connections = (uint32_t)bench->count;
    must(cake_rpc_listen(&config, &bench->server) == 0 && cake_rpc_add_service(bench->server, &service) == 0, "listen");
    cake_addr_parse(cake_rpc_address(bench->server), &bench->addr);
}

/* The first connection makes what all share, and does not count. */
static void measure(bench_t *bench)
{
    double each = (double)(bench->count - 1);
    connect_one(&bench->client);
    size_t ours_before = ours.live, library_before = library.live;
    double resident_before = resident_bytes();
    for (size_t i = 1; i < bench->count; i++)
        connect_one(&bench->client);
    cake_rpc_server_stats_t stats;
    must(cake_rpc_server_stats(bench->server, &stats) == 0 && stats.connections == bench->count, "connections");
    printf("%zu idle connections%s: %.0f bytes of heap", bench->count, bench->is_secure ? " with TLS" : "",
           (double)(ours.live - ours_before) / each);
    if (bench->is_secure)
        printf(" and %.0f of OpenSSL's", (double)(library.live - library_before) / each);
    printf(", %.0f bytes resident each (goal: %.0f resident)\n", (resident_bytes() - resident_before) / each,
           LIMIT_BYTES);
}

static void run(size_t count, bool is_secure)
{
    bench_t bench = {.count = count, .is_secure = is_secure};
    char address[CAKE_ADDR_TEXT_MAX];
    allow_files(count + 100);
    bench.client = start_client(is_secure);
    must(CRYPTO_set_mem_functions(library_malloc, library_realloc, library_free) == 1, "CRYPTO_set_mem_functions");
    start_server(&bench);
    cake_addr_format(&bench.addr, address);
    must(write(bench.client.fds[1], address, sizeof address) == sizeof address, "address");
    measure(&bench);
    close(bench.client.fds[1]);
    close(bench.client.fds[0]);
    waitpid(bench.client.pid, NULL, 0);
    cake_rpc_close(bench.server);
    bench.env->ops->close(bench.env);
}

/* ---- the limit ---- */

static size_t bare_live[2]; /* of each end */

static void *bare_malloc(size_t size, const char *file, int line)
{
    size_t before = library.live;
    void *block = library_malloc(size, file, line);
    bare_live[bare_acting] += library.live - before;
    return block;
}

static void *bare_realloc(void *block, size_t size, const char *file, int line)
{
    size_t before = library.live;
    void *after = library_realloc(block, size, file, line);
    bare_live[bare_acting] += library.live - before;
    return after;
}

static void bare_free(void *block, const char *file, int line)
{
    size_t before = library.live;
    library_free(block, file, line);
    bare_live[bare_acting] += library.live - before;
}

static void bare_exchange(bare_end_t ends[2])
{
    char data[100] = "";
    for (int i = 0; i < 2; i++) {
        bare_acting = 1 - i;
        bare_must(SSL_write(ends[1 - i].ssl, data, sizeof data) == sizeof data, "SSL_write");
        bare_acting = i;
        bare_must(SSL_read(ends[i].ssl, data, sizeof data) == sizeof data, "SSL_read");
    }
}

static void run_bare(size_t count, bool is_secure)
{
    static bare_pipe_t pipes[2];
    bare_end_t ends[2], first[2];
    (void)count;
    (void)is_secure;
    must(CRYPTO_set_mem_functions(bare_malloc, bare_realloc, bare_free) == 1, "CRYPTO_set_mem_functions");
    bare_t bare = bare_open();
    bare_connect(&bare, first, pipes); /* makes what all share */
    bare_exchange(first);
    library.largest = 0;
    SSL_free(SSL_new(bare.ctx[0]));
    size_t object_bytes = library.largest;
    bare_live[0] = 0;
    bare_connect(&bare, ends, pipes);
    bare_exchange(ends);
    printf("a bare SSL of OpenSSL on a server, after its handshake and with its buffers released: %zu bytes of heap, "
           "%zu of "
           "them the object itself\n",
           bare_live[0], object_bytes);
}

/* Each in a process of its own: no one's memory is left to the next. */
static void run_apart(void (*function)(size_t count, bool is_secure), size_t count, bool is_secure)
{
    int status;
    fflush(stdout);
    pid_t pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        function(count, is_secure);
        exit(0);
    }
    must(waitpid(pid, &status, 0) == pid && status == 0, "a measurement");
}

int main(int argc, char **argv)
{
    size_t count = argc > 1 ? (size_t)atoi(argv[1]) : 10000;
    const char *kind = argc > 2 ? argv[2] : "";
    must(count > 1, "usage: bench-rpc_idle [connections] [plain | tls]");
    if (strcmp(kind, "tls") != 0)
        run_apart(run, count, false);
    if (strcmp(kind, "plain") == 0)
        return 0;
    run_apart(run, count, true);
    run_apart(run_bare, 0, true);
    return 0;
}
