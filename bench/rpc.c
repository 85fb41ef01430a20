/* Calls per second and CPU per call, side by side with what the machine gives at most: length-prefixed frames echoed over
 * epoll, once with as many in a read as there are (limit), once with at most BATCH, as ours has it (batched); ours without and
 * with TLS; programs on other libraries where scripts/bench-rpc has built them. All run in turn, several rounds; figures are
 * medians, ratios are medians of the rounds' ratios. One server thread and one client thread each, over loopback.
 *
 *   bench-rpc [seconds per measurement: 0.5] [rounds: 5] [row of the table, 0 to 7: all] [directory of peer-rpc-*] */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <datacake/rpc.h>
#include <datacake/uv.h>

#include "env/env.h"

#define ROUNDS_MAX 31
#define CHUNK      (256u << 10)
#define BATCH      32u /* messages */

#define BORROWED_MIN 65536u /* bytes of a body that is sent back from where it lies, as the raw echo does */

typedef struct {
    size_t bytes, in_flight, batch; /* batch: messages in one read of the raw echo; 0: all */
} cell_t;

typedef struct {
    double per_s, client_us, server_us, p50_us; /* p50: of what is measured with one call at a time */
} figures_t;

#define SAMPLES_MAX 200000u

/* How long calls took that were made one after the other. */
typedef struct {
    uint64_t began_ns;
    size_t count;
    uint32_t ns[SAMPLES_MAX];
} samples_t;

static uint64_t now_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void must(bool is_fine, const char *what)
{
    if (is_fine)
        return;
    perror(what);
    exit(1);
}

static void sample(samples_t *samples)
{
    uint64_t now = now_ns(CLOCK_MONOTONIC);
    if (samples->began_ns != 0 && samples->count < SAMPLES_MAX)
        samples->ns[samples->count++] = (uint32_t)(now - samples->began_ns);
    samples->began_ns = now;
}

static int compare_ns(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double p50_us(samples_t *samples)
{
    qsort(samples->ns, samples->count, sizeof samples->ns[0], compare_ns);
    return samples->count == 0 ? 0 : samples->ns[samples->count / 2] / 1e3;
}

/* ---- the limit: u32 length, bytes ---- */

typedef struct {
    int socket;
    const cell_t *cell;
    uint64_t until_ns, calls, cpu_ns;
    samples_t *samples;
} raw_t;

static void write_all(int socket, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t sent = send(socket, data, len, MSG_NOSIGNAL);
        if (sent <= 0)
            return; /* the client has ended */
        data += sent;
        len -= (size_t)sent;
    }
}

static int watch(int socket)
{
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    must(epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event) == 0, "epoll");
    return epoll;
}

/* Whole frames in data; gives their length together. */
static size_t whole_frames(const uint8_t *data, size_t len, size_t frame, uint64_t *count)
{
    (void)data;
    *count = len / frame;
    return len / frame * frame;
}

static size_t read_size(const cell_t *cell, size_t size, size_t len)
{
    size_t batch = cell->batch * (cell->bytes + 4), room = size - len;
    return cell->batch == 0 || batch - len > room || batch <= len ? room : batch - len;
}

static void *raw_server(void *arg)
{
    raw_t *raw = arg;
    size_t frame = raw->cell->bytes + 4, size = CHUNK > 2 * frame ? CHUNK : 2 * frame, len = 0;
    uint8_t *buffer = malloc(size);
    int epoll = watch(raw->socket);
    for (;;) {
        struct epoll_event event;
        must(epoll_wait(epoll, &event, 1, -1) == 1, "epoll_wait");
        ssize_t got = read(raw->socket, buffer + len, read_size(raw->cell, size, len));
        if (got <= 0)
            break;
        len += (size_t)got;
        uint64_t count;
        size_t whole = whole_frames(buffer, len, frame, &count);
        write_all(raw->socket, buffer, whole);
        memmove(buffer, buffer + whole, len - whole);
        len -= whole;
    }
    raw->cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID);
    close(epoll);
    free(buffer);
    return NULL;
}

/* Sends what the socket takes of pending bytes; all requests look the same. */
static size_t send_some(int socket, const uint8_t *requests, size_t size, size_t pending)
{
    while (pending > 0) {
        ssize_t sent = send(socket, requests, pending < size ? pending : size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            break;
        must(sent > 0, "send");
        pending -= (size_t)sent;
    }
    return pending;
}

static void *raw_client(void *arg)
{
    raw_t *raw = arg;
    size_t frame = raw->cell->bytes + 4, total = frame * raw->cell->in_flight, len = 0;
    size_t size = CHUNK > 2 * frame ? CHUNK : 2 * frame;
    uint8_t *requests = calloc(1, total), *buffer = malloc(size);
    int epoll = watch(raw->socket);
    size_t pending = send_some(raw->socket, requests, total, total);
    while (now_ns(CLOCK_MONOTONIC) < raw->until_ns) {
        struct epoll_event event = {.events = EPOLLIN | (pending > 0 ? EPOLLOUT : 0)};
        if (total > CHUNK)
            must(epoll_ctl(epoll, EPOLL_CTL_MOD, raw->socket, &event) == 0, "epoll_ctl");
        must(epoll_wait(epoll, &event, 1, -1) == 1, "epoll_wait");
        ssize_t got = recv(raw->socket, buffer + len, read_size(raw->cell, size, len), MSG_DONTWAIT);
        must(got > 0 || errno == EAGAIN, "recv");
        len += got > 0 ? (size_t)got : 0;
        uint64_t count;
        size_t whole = whole_frames(buffer, len, frame, &count);
        len -= whole;
        raw->calls += count;
        if (raw->cell->in_flight == 1 && count == 1)
            sample(raw->samples);
        pending = send_some(raw->socket, requests, total, pending + whole);
    }
    raw->cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID);
    close(
        raw->socket); /* with replies unread: the server's write fails, where a shutdown would leave it waiting for room */
    close(epoll);
    free(requests);
    free(buffer);
    return NULL;
}

static void connect_pair(int out[2])
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof addr;
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    must(bind(listener, (struct sockaddr *)&addr, size) == 0 && listen(listener, 1) == 0, "listen");
    getsockname(listener, (struct sockaddr *)&addr, &size);
    out[0] = socket(AF_INET, SOCK_STREAM, 0);
    must(connect(out[0], (struct sockaddr *)&addr, size) == 0, "connect");
    out[1] = accept(listener, NULL, NULL);
    must(out[1] >= 0, "accept");
    for (int i = 0; i < 2; i++)
        setsockopt(out[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    close(listener);
}

static figures_t run_raw(const cell_t *cell, double seconds, samples_t *samples)
{
    int sockets[2];
    pthread_t threads[2];
    connect_pair(sockets);
    uint64_t start_ns = now_ns(CLOCK_MONOTONIC);
    raw_t client = {.socket = sockets[0], .cell = cell, .until_ns = start_ns + (uint64_t)(seconds * 1e9)};
    samples->began_ns = samples->count = 0;
    client.samples = samples;
    raw_t server = {.socket = sockets[1], .cell = cell};
    must(pthread_create(&threads[0], NULL, raw_server, &server) == 0, "pthread_create");
    must(pthread_create(&threads[1], NULL, raw_client, &client) == 0, "pthread_create");
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    double took = (double)(now_ns(CLOCK_MONOTONIC) - start_ns) / 1e9, calls = (double)client.calls;
    close(sockets[1]);
    return (figures_t){calls / took, (double)client.cpu_ns / 1e3 / calls, (double)server.cpu_ns / 1e3 / calls,
                       p50_us(samples)};
}

/* ---- ours ---- */

static void echo(cake_rpc_call_t *call, void *arg)
{
    (void)arg;
    cake_slice_t body = cake_rpc_body(call);
    if (body.len < BORROWED_MIN)
        cake_rpc_reply(call, body.data, body.len);
    else
        cake_rpc_reply_borrowed(call, &body, 1, NULL, NULL);
}

typedef struct {
    cake_env_t *env;
    cake_channel_t *channel;
    const cell_t *cell;
    uint8_t *body;
    uint64_t until_ns, calls;
    size_t running;
    samples_t *samples;
    bool is_over;
    cake_gate_t gate;
} ours_t;

static void answered(cake_reply_t *reply, void *arg);

static int call_once(ours_t *ours)
{
    cake_slice_t part = cake__slice(ours->body, ours->cell->bytes);
    ours->running++;
    return cake_channel_call_async(ours->channel, "/bench/echo", &part, 1, NULL, answered, ours, NULL);
}

static void answered(cake_reply_t *reply, void *arg)
{
    ours_t *ours = arg;
    must(cake_reply_err(reply) == 0 && cake_reply_body(reply).len == ours->cell->bytes, "call");
    cake_reply_free(reply);
    if (ours->cell->in_flight == 1)
        sample(ours->samples);
    ours->calls++;
    ours->running--;
    ours->is_over = ours->is_over || ((ours->calls & 15) == 0 && cake__now_ns(ours->env) >= ours->until_ns);
    if (!ours->is_over)
        call_once(ours);
    if (ours->running == 0)
        ours->env->ops->gate_open(ours->env, &ours->gate);
}

static int start_calls(void *arg)
{
    ours_t *ours = arg;
    for (size_t i = 0; i < ours->cell->in_flight; i++)
        call_once(ours);
    return 0;
}

static int read_cpu(void *arg)
{
    *(uint64_t *)arg = now_ns(CLOCK_THREAD_CPUTIME_ID);
    return 0;
}

static figures_t run_ours(const cell_t *cell, double seconds, samples_t *samples, bool is_secure)
{
    static const cake_tls_config_t tls = {.cluster_key = "a key for this program", .cluster_key_len = 22};
    static const cake_rpc_method_t method = {"echo", echo, 0};
    static const cake_rpc_service_t service = {"bench", &method, 1, NULL, NULL};
    cake_rpc_server_config_t server_config = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel_config = CAKE_CHANNEL_CONFIG_INIT;
    cake_env_t *server_env, *client_env;
    cake_rpc_server_t *server;
    ours_t ours = {.cell = cell, .body = calloc(1, cell->bytes), .samples = samples};
    samples->began_ns = samples->count = 0;
    must(cake_uv_env_new(NULL, &server_env) == 0 && cake_uv_env_new(NULL, &client_env) == 0, "env");
    server_config.env = server_env;
    server_config.listen_addr = "127.0.0.1:0";
    server_config.tls = channel_config.tls = is_secure ? &tls : NULL;
    channel_config.env = ours.env = client_env;
    must(cake_rpc_listen(&server_config, &server) == 0 && cake_rpc_add_service(server, &service) == 0, "listen");
    must(cake_channel_open(cake_rpc_address(server), &channel_config, &ours.channel) == 0, "open");
    must(cake_channel_call(ours.channel, "/bench/echo", NULL, 0, NULL, NULL) == 0, "first call");

    uint64_t cpu[4], start_ns = now_ns(CLOCK_MONOTONIC);
    cake__run_on_loop(client_env, read_cpu, &cpu[0]);
    cake__run_on_loop(server_env, read_cpu, &cpu[1]);
    ours.until_ns = start_ns + (uint64_t)(seconds * 1e9);
    client_env->ops->gate_init(client_env, &ours.gate);
    cake__run_on_loop(client_env, start_calls, &ours);
    client_env->ops->gate_wait(client_env, &ours.gate);
    client_env->ops->gate_destroy(client_env, &ours.gate);
    double took = (double)(now_ns(CLOCK_MONOTONIC) - start_ns) / 1e9, calls = (double)ours.calls;
    cake__run_on_loop(client_env, read_cpu, &cpu[2]);
    cake__run_on_loop(server_env, read_cpu, &cpu[3]);

    cake_channel_close(ours.channel);
    cake_rpc_close(server);
    client_env->ops->close(client_env);
    server_env->ops->close(server_env);
    free(ours.body);
    return (figures_t){calls / took, (double)(cpu[2] - cpu[0]) / 1e3 / calls, (double)(cpu[3] - cpu[1]) / 1e3 / calls,
                       p50_us(samples)};
}

/* ---- others: programs of bench/peers/rpc ---- */

static bool run_peer(const char *dir, const char *name, const cell_t *cell, double seconds, figures_t *out)
{
    char command[512];
    snprintf(command, sizeof command, "'%s/peer-rpc-%s' %zu %zu %.3f", dir, name, cell->bytes, cell->in_flight,
             seconds);
    FILE *pipe = popen(command, "r");
    bool is_read = pipe != NULL && fscanf(pipe, "%lf %lf %lf", &out->per_s, &out->client_us, &out->server_us) == 3;
    return pipe != NULL && pclose(pipe) == 0 && is_read;
}

/* ---- the table ---- */

enum { LIMIT, BATCHED, PLAIN, TLS, GRPC, HYPER, ZEROMQ, STACKS };

static const char *const NAMES[STACKS] = {"limit", "batched", "ours", "ours, TLS", "grpc", "hyper", "zeromq"};

typedef struct {
    figures_t figures[STACKS][ROUNDS_MAX];
    bool is_there[STACKS];
    int rounds;
} table_t;

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const table_t *table, int stack, size_t member, int over)
{
    double values[ROUNDS_MAX], divisor = 1;
    for (int i = 0; i < table->rounds; i++) {
        memcpy(&values[i], (const char *)&table->figures[stack][i] + member, sizeof values[i]);
        if (over >= 0)
            memcpy(&divisor, (const char *)&table->figures[over][i] + member, sizeof divisor);
        values[i] /= divisor;
    }
    qsort(values, (size_t)table->rounds, sizeof values[0], compare);
    return values[table->rounds / 2];
}

#define OF(stack, member)          median(&table, stack, offsetof(figures_t, member), -1)
#define OVER(stack, other, member) median(&table, stack, offsetof(figures_t, member), other)

static void measure(table_t *table, const cell_t *cell, double seconds, const char *peers)
{
    static samples_t samples;
    cell_t batch_cell = *cell;
    batch_cell.batch = BATCH;
    for (int stack = 0; stack < STACKS; stack++)
        table->is_there[stack] = stack <= TLS || peers != NULL;
    for (int i = 0; i < table->rounds; i++) {
        table->figures[LIMIT][i] = run_raw(cell, seconds, &samples);
        table->figures[BATCHED][i] = run_raw(&batch_cell, seconds, &samples);
        table->figures[PLAIN][i] = run_ours(cell, seconds, &samples, false);
        table->figures[TLS][i] = run_ours(cell, seconds, &samples, true);
        for (int stack = GRPC; stack < STACKS; stack++)
            table->is_there[stack] =
                table->is_there[stack] && run_peer(peers, NAMES[stack], cell, seconds, &table->figures[stack][i]);
    }
}

static void print_cell(const cell_t *cell, double seconds, int rounds, const char *peers)
{
    static table_t table;
    table.rounds = rounds;
    measure(&table, cell, seconds, peers);
    for (int stack = 0; stack < STACKS; stack++) {
        if (!table.is_there[stack])
            continue;
        printf("%8zu %5zu  %-10s %9.0f %9.2f %9.2f %9.3f %9.3f", cell->bytes, cell->in_flight, NAMES[stack],
               OF(stack, per_s), OF(stack, client_us), OF(stack, server_us), OVER(stack, LIMIT, per_s),
               OVER(stack, BATCHED, per_s));
        if (stack >= TLS)
            printf(" %9.2f", OVER(PLAIN, stack, per_s));
        printf("\n");
    }
    fflush(stdout);
}

/* All threads on one core: what a call costs when there is nothing to overlap with. */
static void print_latency(double seconds, int rounds)
{
    static const cell_t cell = {64, 1, 0};
    static table_t table;
    cpu_set_t all, one;
    table.rounds = rounds;
    must(sched_getaffinity(0, sizeof all, &all) == 0, "sched_getaffinity");
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++) {
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    }
    must(sched_setaffinity(0, sizeof one, &one) == 0, "sched_setaffinity");
    measure(&table, &cell, seconds, NULL);
    must(sched_setaffinity(0, sizeof all, &all) == 0, "sched_setaffinity");
    printf("one call at a time, one core, p50: limit %.1f us, ours %.1f us (+%.1f), TLS %.1f us\n", OF(LIMIT, p50_us),
           OF(PLAIN, p50_us), OF(PLAIN, p50_us) - OF(LIMIT, p50_us), OF(TLS, p50_us));
}

int main(int argc, char **argv)
{
    static const cell_t cells[] = {{64, 1, 0},    {64, 64, 0},    {64, 256, 0},    {1024, 1, 0},
                                   {1024, 64, 0}, {1024, 256, 0}, {1 << 20, 16, 0}};
    const size_t count = sizeof cells / sizeof cells[0];
    double seconds = argc > 1 ? atof(argv[1]) : 0.5;
    int rounds = argc > 2 ? atoi(argv[2]) : 5;
    size_t row = argc > 3 && atoi(argv[3]) >= 0 ? (size_t)atoi(argv[3]) : SIZE_MAX;
    must(seconds > 0 && rounds > 0 && rounds <= ROUNDS_MAX, "usage: bench-rpc [seconds] [rounds] [row] [peers]");
    printf("%8s %5s  %-10s %9s %9s %9s %9s %9s %9s\n", "bytes", "calls", "", "calls/s", "client us", "server us",
           "/limit", "/batched", "ours/this");
    for (size_t i = 0; i < count; i++) {
        if (row == SIZE_MAX || row == i)
            print_cell(&cells[i], seconds, rounds, argc > 4 ? argv[4] : NULL);
    }
    if (row == SIZE_MAX || row == count)
        print_latency(seconds, rounds);
    return 0;
}
