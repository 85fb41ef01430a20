/* Calls per second and CPU per call, side by side with what the machine gives at most: length-prefixed frames echoed
 * over epoll, once with as many in a read as there are (limit), once with at most BATCH, as ours has it (batched), and
 * so over libuv, which ours stands on (libuv); ours without and with TLS; programs on other libraries where
 * scripts/bench-rpc has built them. All run in turn, several rounds; figures are medians, ratios are medians of the
 * rounds' ratios. One server thread and one client thread each, over loopback, each side on a core of its own: left to
 * itself, the kernel has both on one core for some runs, which then give twice or half as much.
 *
 *   bench-rpc [seconds per measurement: 0.5] [rounds: 5] [row of the table, 0 to 7: all] [directory of peer-rpc-*] */
#include <datacake/rpc.h>
#include <datacake/uv.h>

#include "env/env.h"
#include "rpc_bare_h2.h"
#include "rpc_bare_tls.h"
#include "rpc_frames.h"

#define ROUNDS_MAX 31
#define BATCH      32u /* messages */

/* Latency is compared in many short turns, each stack on a new connection: where the kernel and the heap happen to
 * put things decides more than how long it runs. */
#define LATENCY_TURNS   41
#define LATENCY_SECONDS 0.025

#define BORROWED_MIN 65536u /* bytes of a body that is sent from where it lies, as the raw frames are */

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

static void lent_back(void *arg)
{
    (void)arg; /* all calls have the same body, which stays to the end */
}

static int call_once(ours_t *ours)
{
    cake_slice_t part = cake__slice(ours->body, ours->cell->bytes);
    ours->running++;
    if (part.len >= BORROWED_MIN)
        return cake_channel_call_borrowed(ours->channel, "/bench/echo", &part, 1, NULL, lent_back, answered, ours,
                                          NULL);
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

static int pin_loop(void *arg)
{
    pin(*(int *)arg);
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
    ours_t ours = {.cell = cell, .body = memset(malloc(cell->bytes), 1, cell->bytes), .samples = samples};
    samples->began_ns = samples->count = 0;
    must(cake_uv_env_new(NULL, &server_env) == 0 && cake_uv_env_new(NULL, &client_env) == 0, "env");
    server_config.env = server_env;
    server_config.listen_addr = "127.0.0.1:0";
    server_config.tls = channel_config.tls = is_secure ? &tls : NULL;
    channel_config.env = ours.env = client_env;
    must(cake_rpc_listen(&server_config, &server) == 0 && cake_rpc_add_service(server, &service) == 0, "listen");
    must(cake_channel_open(cake_rpc_address(server), &channel_config, &ours.channel) == 0, "open");
    must(cake_channel_call(ours.channel, "/bench/echo", NULL, 0, NULL, NULL) == 0, "first call");

    int sides[2] = {0, 1};
    cake__run_on_loop(client_env, pin_loop, &sides[0]);
    cake__run_on_loop(server_env, pin_loop, &sides[1]);
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

#define CALL_HEADS                                                                                                     \
    40 /* bytes of a call one way besides its payload, about: two heads of frames, a known block of headers */

enum { LIMIT, BATCHED, LIBUV, PLAIN, TLS, GRPC, HYPER, ZEROMQ, STACKS };

static const char *const NAMES[STACKS] = {"limit", "batched", "libuv", "ours", "ours, TLS", "grpc", "hyper", "zeromq"};

enum { CIPHER, BARE_SSL, TLS_LIMITS };

typedef struct {
    figures_t figures[STACKS][ROUNDS_MAX];
    double tls_us[TLS_LIMITS][ROUNDS_MAX]; /* of each side, for one call */
    bool is_there[STACKS];
    int rounds;
} table_t;

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of the rounds' figures, or of their ratios to another stack's. */
static double median(const table_t *table, char what, int stack, size_t member, int other)
{
    double values[ROUNDS_MAX], theirs;
    for (int i = 0; i < table->rounds; i++) {
        memcpy(&values[i], (const char *)&table->figures[stack][i] + member, sizeof values[i]);
        memcpy(&theirs, (const char *)&table->figures[other][i] + member, sizeof theirs);
        values[i] = what == '/' ? values[i] / theirs : values[i];
    }
    qsort(values, (size_t)table->rounds, sizeof values[0], compare);
    return values[table->rounds / 2];
}

#define OF(stack, member)          median(&table, ' ', stack, offsetof(figures_t, member), stack)
#define OVER(stack, other, member) median(&table, '/', stack, offsetof(figures_t, member), other)

static void measure(table_t *table, const cell_t *cell, double seconds, const char *peers)
{
    static samples_t samples;
    cell_t batch_cell = *cell;
    batch_cell.batch = BATCH;
    for (int stack = 0; stack < STACKS; stack++)
        table->is_there[stack] = stack <= TLS || peers != NULL;
    for (int i = 0; i < table->rounds; i++) {
        table->figures[LIMIT][i] = run_raw(cell, seconds, &samples, epoll_server, epoll_client);
        table->figures[BATCHED][i] = run_raw(&batch_cell, seconds, &samples, epoll_server, epoll_client);
        table->figures[LIBUV][i] = run_raw(&batch_cell, seconds, &samples, libuv_server, libuv_client);
        table->figures[PLAIN][i] = run_ours(cell, seconds, &samples, false);
        table->figures[TLS][i] = run_ours(cell, seconds, &samples, true);
        for (int stack = GRPC; stack < STACKS; stack++)
            table->is_there[stack] =
                table->is_there[stack] && run_peer(peers, NAMES[stack], cell, seconds, &table->figures[stack][i]);
        double bytes = (double)(cell->bytes + CALL_HEADS);
        table->tls_us[CIPHER][i] = bare_cipher_us_per_byte() * bytes;
        table->tls_us[BARE_SSL][i] = bare_ssl_us_per_byte() * bytes;
    }
}

static double cpu_us(const figures_t *figures)
{
    return figures->client_us + figures->server_us;
}

/* What TLS costs beyond plain, in CPU of both sides, and what it would if only so much were added to plain. */
static void print_tls_limits(const table_t *table)
{
    double us[TLS_LIMITS][ROUNDS_MAX], ratios[TLS_LIMITS + 1][ROUNDS_MAX];
    size_t middle = (size_t)table->rounds / 2;
    for (int i = 0; i < table->rounds; i++) {
        double plain_us = cpu_us(&table->figures[PLAIN][i]);
        for (int j = 0; j < TLS_LIMITS; j++) {
            us[j][i] = table->tls_us[j][i];
            ratios[j][i] = (plain_us + 2 * us[j][i]) / plain_us;
        }
        ratios[TLS_LIMITS][i] = cpu_us(&table->figures[TLS][i]) / plain_us;
    }
    for (int j = 0; j <= TLS_LIMITS; j++)
        qsort(ratios[j], (size_t)table->rounds, sizeof(double), compare);
    for (int j = 0; j < TLS_LIMITS; j++)
        qsort(us[j], (size_t)table->rounds, sizeof(double), compare);
    printf("%14s  CPU of TLS over plain: %.2f; with nothing but the cipher %.2f (%.2f us a side), a bare SSL %.2f "
           "(%.2f us)\n",
           "", ratios[TLS_LIMITS][middle], ratios[CIPHER][middle], us[CIPHER][middle], ratios[BARE_SSL][middle],
           us[BARE_SSL][middle]);
}

static void print_cell(const cell_t *cell, double seconds, int rounds, const char *peers)
{
    static table_t table;
    table.rounds = rounds;
    measure(&table, cell, seconds, peers);
    for (int stack = 0; stack < STACKS; stack++) {
        if (!table.is_there[stack])
            continue;
        printf("%8zu %5zu  %-10s %9.0f %9.2f %9.2f %9.3f %9.3f %9.3f", cell->bytes, cell->in_flight, NAMES[stack],
               OF(stack, per_s), OF(stack, client_us), OF(stack, server_us), OVER(stack, LIMIT, per_s),
               OVER(stack, BATCHED, per_s), OVER(stack, LIBUV, per_s));
        if (stack >= TLS)
            printf(" %9.2f", OVER(PLAIN, stack, per_s));
        printf("\n");
        if (stack == TLS && cell->in_flight > 1)
            print_tls_limits(&table);
    }
    fflush(stdout);
}

/* ---- latency ---- */

enum { LONE_LIMIT, LONE_LIBUV, LONE_NGHTTP2, LONE_PLAIN, LONE_TLS, LONE_STACKS };

static const char *const LONE_NAMES[LONE_STACKS] = {"limit", "libuv", "nghttp2 alone", "ours", "ours, TLS"};

static double median_of(double *values, size_t count)
{
    qsort(values, count, sizeof values[0], compare);
    return values[count / 2];
}

/* All threads on one core: what a call costs when there is nothing to overlap with. */
static void print_latency(void)
{
    static const cell_t cell = {64, 1, 0};
    static samples_t samples;
    static double us[LONE_STACKS][LATENCY_TURNS], more_us[LONE_STACKS][LATENCY_TURNS];
    cpu_set_t all;
    must(sched_getaffinity(0, sizeof all, &all) == 0, "sched_getaffinity");
    pin(0);
    for (int i = 0; i < LATENCY_TURNS; i++) {
        const double s = LATENCY_SECONDS;
        us[LONE_LIMIT][i] = run_raw(&cell, s, &samples, epoll_server, epoll_client).p50_us;
        us[LONE_LIBUV][i] = run_raw(&cell, s, &samples, libuv_server, libuv_client).p50_us;
        us[LONE_NGHTTP2][i] = run_raw(&cell, s, &samples, bare_h2_server, bare_h2_client).p50_us;
        us[LONE_PLAIN][i] = run_ours(&cell, s, &samples, false).p50_us;
        us[LONE_TLS][i] = run_ours(&cell, s, &samples, true).p50_us;
        for (int stack = 0; stack < LONE_STACKS; stack++)
            more_us[stack][i] = us[stack][i] - us[LONE_LIMIT][i];
    }
    must(sched_setaffinity(0, sizeof all, &all) == 0, "sched_setaffinity");
    printf("one call at a time, 64 bytes, one core, p50 and what it is more than the limit's, medians of %d turns:\n",
           LATENCY_TURNS);
    for (int stack = 0; stack < LONE_STACKS; stack++)
        printf("%14s  %-14s %6.1f us  %+6.1f us\n", "", LONE_NAMES[stack], median_of(us[stack], LATENCY_TURNS),
               median_of(more_us[stack], LATENCY_TURNS));
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
    printf("%8s %5s  %-10s %9s %9s %9s %9s %9s %9s %9s\n", "bytes", "calls", "", "calls/s", "client us", "server us",
           "/limit", "/batched", "/libuv", "ours/this");
    for (size_t i = 0; i < count; i++) {
        if (row == SIZE_MAX || row == i)
            print_cell(&cells[i], seconds, rounds, argc > 4 ? argv[4] : NULL);
    }
    if (row == SIZE_MAX || row == count)
        print_latency();
    return 0;
}
