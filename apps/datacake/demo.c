/* demo.c: `datacake demo`: a cluster of real processes on this machine, to play with.
 *
 *   DIR/node-N/data      its data directory        DIR/node-N/log      its log
 *   DIR/node-N/ports     "LISTEN HTTP", two ports  DIR/node-N/pid      its process while it runs
 *   DIR/node-N/data/blocked   addresses that it does not hear: see faults.c */
#include "client.h"
#include "clock.h"
#include "progress.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NODES_MAX        60u
#define DIR_MAX          3000
#define READY_TIMEOUT_MS 60000u
#define STOP_TIMEOUT_MS  20000u
#define PORTS_FROM       10000u
#define PORTS_TO         32000u

extern char **environ;

static const flag_t flags[] = {
    {"dir", "DIR", "where the nodes keep everything (./datacake-demo)"},
    {"storage", "KIND", "sqlite or memory (sqlite)"},
    {"data-centers", "N", "spread the nodes over so many data centres (1)"},
    {NULL, NULL, NULL},
};

typedef struct demo {
    const args_t *args;
    char dir[DIR_MAX];
    uint64_t data_centers;
} demo_t;

typedef struct demo_node {
    unsigned id;
    unsigned listen_port, http_port; /* 0: none yet */
    pid_t pid;                       /* 0: not running */
} demo_node_t;

static void pause_briefly(void)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    nanosleep(&pause, NULL);
}

/* ---- the directory ----------------------------------------------------------------------------------------------- */

static void node_path(const demo_t *demo, unsigned id, const char *name, char out[DIR_MAX + 64])
{
    snprintf(out, DIR_MAX + 64, "%s/node-%u%s%s", demo->dir, id, *name ? "/" : "", name);
}

static int write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    if (file == NULL)
        return -1;
    int failed = fputs(text, file) < 0;
    return fclose(file) != 0 || failed ? -1 : 0;
}

/* A process is the node only while it holds the lock of the data directory: process ids are used again. */
static bool is_running(const demo_t *demo, const demo_node_t *node)
{
    char path[DIR_MAX + 64];
    if (node->pid <= 0 || kill(node->pid, 0) != 0)
        return false;
    node_path(demo, node->id, "data/lock", path);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    bool is_held = file >= 0 && flock(file, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (file >= 0)
        close(file);
    return is_held;
}

/* False: there is no such node. */
static bool load_node(const demo_t *demo, unsigned id, demo_node_t *node)
{
    char path[DIR_MAX + 64];
    long pid = 0;
    *node = (demo_node_t){.id = id};
    node_path(demo, id, "ports", path);
    FILE *file = fopen(path, "re");
    bool is_there = file != NULL && fscanf(file, "%u %u", &node->listen_port, &node->http_port) == 2;
    if (file != NULL)
        fclose(file);
    node_path(demo, id, "pid", path);
    file = fopen(path, "re");
    if (file != NULL) {
        if (fscanf(file, "%ld", &pid) == 1 && pid > 1)
            node->pid = (pid_t)pid;
        fclose(file);
    }
    if (!is_running(demo, node))
        node->pid = 0;
    return is_there;
}

static unsigned load_all(const demo_t *demo, demo_node_t nodes[NODES_MAX])
{
    unsigned count = 0;
    while (count < NODES_MAX && load_node(demo, count + 1, &nodes[count]))
        count++;
    return count;
}

/* ---- ports: bound once and let go, so that a node can have the same ones after a restart ------------------------- */

static int bind_port(int type, unsigned port)
{
    int on = 1, handle = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    struct sockaddr_in where = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (handle >= 0 && type == SOCK_STREAM)
        setsockopt(handle, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (handle >= 0 && bind(handle, (struct sockaddr *)&where, sizeof(where)) != 0) {
        close(handle);
        handle = -1;
    }
    return handle;
}

/* A port that is free for TCP and UDP, below those that the system gives to outgoing connections: one of these
 * might have it when the node comes back. 0: none. */
static unsigned find_port(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    unsigned start = (unsigned)now.tv_nsec / 64 + (unsigned)getpid();
    for (unsigned attempt = 0; attempt < 1000; attempt++) {
        unsigned port = PORTS_FROM + (start + attempt) % (PORTS_TO - PORTS_FROM);
        int tcp = bind_port(SOCK_STREAM, port), udp = tcp < 0 ? -1 : bind_port(SOCK_DGRAM, port);
        if (tcp >= 0)
            close(tcp);
        if (udp < 0)
            continue;
        close(udp);
        return port;
    }
    return 0;
}

static int make_node(const demo_t *demo, demo_node_t *node)
{
    char path[DIR_MAX + 64], text[64];
    if (mkdir(demo->dir, 0777) != 0 && errno != EEXIST)
        return fail(demo->args, EXIT_OTHER, "cannot make %s: %s", demo->dir, strerror(errno));
    node_path(demo, node->id, "", path);
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        return fail(demo->args, EXIT_OTHER, "cannot make %s: %s", path, strerror(errno));
    node->listen_port = find_port();
    do
        node->http_port = find_port();
    while (node->http_port == node->listen_port && node->http_port != 0);
    node_path(demo, node->id, "ports", path);
    snprintf(text, sizeof(text), "%u %u\n", node->listen_port, node->http_port);
    if (node->listen_port == 0 || node->http_port == 0 || write_file(path, text) != 0)
        return fail(demo->args, EXIT_OTHER, "no free port, or %s cannot be written", path);
    return 0;
}

/* ---- processes --------------------------------------------------------------------------------------------------- */

typedef struct node_call {
    char id[8], listen[32], http[32], data_center[16], data_dir[DIR_MAX + 64], log[DIR_MAX + 64];
    char seeds[NODES_MAX][32];
    char *argv[24 + 2 * NODES_MAX];
} node_call_t;

static void make_call(const demo_t *demo, const demo_node_t *node, node_call_t *call)
{
    demo_node_t others[NODES_MAX];
    unsigned count = load_all(demo, others), n = 0;
    snprintf(call->id, sizeof(call->id), "%u", node->id);
    snprintf(call->listen, sizeof(call->listen), "127.0.0.1:%u", node->listen_port);
    snprintf(call->http, sizeof(call->http), "127.0.0.1:%u", node->http_port);
    snprintf(call->data_center, sizeof(call->data_center), "dc-%u",
             (unsigned)((node->id - 1) % demo->data_centers + 1));
    node_path(demo, node->id, "data", call->data_dir);
    node_path(demo, node->id, "log", call->log);
    const char *const fixed[] = {"datacake",      "serve",
                                 "--node-id",     call->id,
                                 "--listen",      call->listen,
                                 "--http",        call->http,
                                 "--data-dir",    call->data_dir,
                                 "--data-center", call->data_center,
                                 "--storage",     args_value(demo->args, "storage", "sqlite"),
                                 "--cluster-id",  "demo",
                                 "--demo-faults"};
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        call->argv[n++] = (char *)(uintptr_t)fixed[i];
    for (unsigned i = 0; i < count; i++) {
        if (others[i].id == node->id || others[i].pid == 0)
            continue;
        snprintf(call->seeds[i], sizeof(call->seeds[i]), "127.0.0.1:%u", others[i].listen_port);
        call->argv[n++] = (char *)(uintptr_t) "--seed";
        call->argv[n++] = call->seeds[i];
    }
    call->argv[n] = NULL;
}

static int spawn_node(const demo_t *demo, demo_node_t *node)
{
    node_call_t *call = calloc(1, sizeof(*call));
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    char path[DIR_MAX + 64], text[24];
    if (call == NULL)
        return fail(demo->args, EXIT_OTHER, "out of memory");
    make_call(demo, node, call);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, call->log, O_WRONLY | O_CREAT | O_APPEND, 0666);
    posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    int err = posix_spawn(&node->pid, "/proc/self/exe", &files, &attributes, call->argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    free(call);
    if (err != 0)
        return fail(demo->args, EXIT_OTHER, "cannot start node %u: %s", node->id, strerror(err));
    node_path(demo, node->id, "pid", path);
    snprintf(text, sizeof(text), "%ld\n", (long)node->pid);
    return write_file(path, text) == 0 ? 0 : fail(demo->args, EXIT_OTHER, "cannot write %s", path);
}

static bool is_ready(const demo_node_t *node)
{
    char url[64];
    client_t *client = NULL;
    response_t response = {0};
    snprintf(url, sizeof(url), "127.0.0.1:%u", node->http_port);
    bool is_good = client_open(url, NULL, &client) == 0 &&
                   client_request(client, "GET", "/readyz", NULL, 0, NULL, NULL, &response) == 0 &&
                   response.status == 200;
    response_free(&response);
    client_close(client);
    return is_good;
}

static int start_node(const demo_t *demo, demo_node_t *node)
{
    uint64_t began_ms = monotonic_ms();
    if (node->pid != 0) {
        printf("node %u runs already: http://127.0.0.1:%u\n", node->id, node->http_port);
        return 0;
    }
    int status = node->listen_port == 0 ? make_node(demo, node) : 0;
    if (status == 0)
        status = spawn_node(demo, node);
    if (status != 0)
        return status;
    while (!is_ready(node)) {
        char path[DIR_MAX + 64];
        bool is_gone = waitpid(node->pid, NULL, WNOHANG) != 0;
        node_path(demo, node->id, "log", path);
        if (is_gone || monotonic_ms() - began_ms > READY_TIMEOUT_MS)
            return fail(demo->args, EXIT_OTHER, "node %u %s; its log is %s", node->id,
                        is_gone ? "has ended" : "is not ready in time", path);
        pause_briefly();
    }
    printf("node %u is ready: listen 127.0.0.1:%u  http://127.0.0.1:%u  process %ld\n", node->id, node->listen_port,
           node->http_port, (long)node->pid);
    return 0;
}

static int stop_node(const demo_t *demo, const demo_node_t *node, int signal)
{
    uint64_t began_ms = monotonic_ms();
    char path[DIR_MAX + 64];
    if (node->pid == 0)
        return 0;
    kill(node->pid, signal);
    bool is_forced = signal == SIGKILL;
    while (is_running(demo, node)) {
        if (!is_forced && monotonic_ms() - began_ms > STOP_TIMEOUT_MS) {
            fail(demo->args, EXIT_OTHER, "node %u does not stop and is killed", node->id);
            kill(node->pid, SIGKILL);
            is_forced = true;
        }
        if (monotonic_ms() - began_ms > 2 * STOP_TIMEOUT_MS)
            return fail(demo->args, EXIT_OTHER, "process %ld cannot be killed", (long)node->pid);
        pause_briefly();
    }
    node_path(demo, node->id, "pid", path);
    unlink(path);
    printf("node %u is %s\n", node->id, signal == SIGKILL ? "killed" : "stopped");
    return is_forced && signal != SIGKILL ? EXIT_OTHER : 0;
}

/* ---- what can be asked ------------------------------------------------------------------------------------------- */

static int run_up(const demo_t *demo)
{
    uint64_t wanted = 3;
    if (demo->args->operand_count > 1 && parse_number(demo->args->operands[1], 1, NODES_MAX, &wanted) != 0)
        return fail(demo->args, EXIT_USAGE, "demo up takes a number of nodes from 1 to %u", NODES_MAX);
    int status = 0;
    for (unsigned id = 1; status == 0 && id <= wanted; id++) {
        demo_node_t node;
        load_node(demo, id, &node);
        status = start_node(demo, &node);
    }
    if (status == 0)
        printf("everything is in %s; end it with: datacake demo down%s%s\n", demo->dir,
               args_has(demo->args, "dir") ? " --dir " : "", args_value(demo->args, "dir", ""));
    return status;
}

static int run_down(const demo_t *demo)
{
    demo_node_t nodes[NODES_MAX];
    unsigned count = load_all(demo, nodes);
    int status = 0;
    for (unsigned i = 0; i < count; i++) {
        int stopped = stop_node(demo, &nodes[i], SIGTERM);
        status = status != 0 ? status : stopped;
    }
    return status;
}

static int find_node(const demo_t *demo, demo_node_t *node)
{
    uint64_t id;
    if (demo->args->operand_count != 2 || parse_number(demo->args->operands[1], 1, NODES_MAX, &id) != 0)
        return fail(demo->args, EXIT_USAGE, "name a node: datacake demo %s 2", demo->args->operands[0]);
    if (load_node(demo, (unsigned)id, node))
        return 0;
    return fail(demo->args, EXIT_NOT_FOUND, "there is no node %llu in %s", (unsigned long long)id, demo->dir);
}

static int run_kill(const demo_t *demo)
{
    demo_node_t node;
    int status = find_node(demo, &node);
    return status != 0 ? status : stop_node(demo, &node, SIGKILL);
}

static int run_start(const demo_t *demo)
{
    demo_node_t node;
    int status = find_node(demo, &node);
    return status != 0 ? status : start_node(demo, &node);
}

/* Nodes of the first side do not hear those of the second, and the other way round. */
static int block(const demo_t *demo, const demo_node_t *nodes, unsigned count, unsigned first_side)
{
    for (unsigned i = 0; i < count; i++) {
        char path[DIR_MAX + 64];
        text_t text = TEXT_INIT(0);
        text_append(&text, "", 0);
        for (unsigned j = 0; first_side != 0 && j < count; j++)
            if ((i < first_side) != (j < first_side))
                text_printf(&text, "127.0.0.1:%u\n", nodes[j].listen_port);
        node_path(demo, nodes[i].id, "data/blocked", path);
        int failed = write_file(path, text.data);
        text_free(&text);
        if (failed != 0)
            return fail(demo->args, EXIT_OTHER, "cannot write %s", path);
        if (nodes[i].pid != 0)
            kill(nodes[i].pid, SIGHUP);
    }
    return 0;
}

static int run_partition(const demo_t *demo)
{
    demo_node_t nodes[NODES_MAX];
    unsigned count = load_all(demo, nodes);
    uint64_t first_side = 1;
    if (demo->args->operand_count > 1 && parse_number(demo->args->operands[1], 1, NODES_MAX, &first_side) != 0)
        return fail(demo->args, EXIT_USAGE,
                    "demo partition takes how many nodes to cut off: datacake demo partition 1");
    if (first_side >= count)
        return fail(demo->args, EXIT_USAGE, "there are %u nodes; cut off fewer than that", count);
    int status = block(demo, nodes, count, (unsigned)first_side);
    if (status == 0)
        printf("the first %u and the other %u of the nodes no longer hear each other\n", (unsigned)first_side,
               count - (unsigned)first_side);
    return status;
}

static int run_heal(const demo_t *demo)
{
    demo_node_t nodes[NODES_MAX];
    unsigned count = load_all(demo, nodes);
    int status = block(demo, nodes, count, 0);
    if (status == 0)
        printf("all %u nodes hear each other again\n", count);
    return status;
}

static void print_node(const demo_t *demo, const demo_node_t *node)
{
    char url[64];
    client_t *client = NULL;
    response_t response = {0};
    json_t *root = NULL;
    snprintf(url, sizeof(url), "127.0.0.1:%u", node->http_port);
    if (node->pid != 0 && client_open(url, NULL, &client) == 0 &&
        client_request(client, "GET", "/status", NULL, 0, NULL, NULL, &response) == 0)
        root = json_loadb(response.body.data == NULL ? "" : response.body.data, response.body.len, 0, NULL);
    const json_t *store = json_object_get(root, "store"), *cluster = json_object_get(root, "cluster");
    const char *fingerprint = json_string_value(json_object_get(store, "fingerprint"));
    printf("%4u  %-24s %-9s %5lld %10lld %10lld  %s\n", node->id, client == NULL ? url : client_url(client),
           node->pid == 0 ? "stopped"
           : root == NULL ? "silent"
                          : "running",
           (long long)json_integer_value(json_object_get(cluster, "alive")),
           (long long)json_integer_value(json_object_get(store, "live")),
           (long long)json_integer_value(json_object_get(store, "tombstones")),
           fingerprint == NULL ? "-" : fingerprint);
    json_decref(root);
    response_free(&response);
    client_close(client);
}

static int run_status(const demo_t *demo)
{
    demo_node_t nodes[NODES_MAX];
    unsigned count = load_all(demo, nodes);
    if (count == 0)
        return fail(demo->args, EXIT_NOT_FOUND, "there is no demo in %s; make one: datacake demo up 3", demo->dir);
    printf("%4s  %-24s %-9s %5s %10s %10s  %s\n", "node", "http", "process", "alive", "documents", "tombstones",
           "fingerprint");
    for (unsigned i = 0; i < count; i++)
        print_node(demo, &nodes[i]);
    return EXIT_DONE;
}

static int run(const args_t *args)
{
    static const struct {
        const char *name;
        int (*run)(const demo_t *demo);
    } actions[] = {{"up", run_up},       {"down", run_down},           {"status", run_status}, {"kill", run_kill},
                   {"start", run_start}, {"partition", run_partition}, {"heal", run_heal}};
    demo_t demo = {.args = args, .data_centers = 1};
    const char *dir = args_value(args, "dir", "datacake-demo");
    if (args_number(args, "data-centers", 1, NODES_MAX, &demo.data_centers) != 0)
        return EXIT_USAGE;
    char here[DIR_MAX / 2] = "";
    if (*dir != '/' && getcwd(here, sizeof(here)) == NULL)
        return fail(args, EXIT_OTHER, "where is this? %s", strerror(errno));
    if (snprintf(demo.dir, sizeof(demo.dir), "%s%s%s", here, *here ? "/" : "", dir) >= (int)sizeof(demo.dir))
        return fail(args, EXIT_USAGE, "the path of --dir is too long");
    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
        if (strcmp(actions[i].name, args->operands[0]) == 0)
            return actions[i].run(&demo);
    return fail(args, EXIT_USAGE, "demo takes up, down, status, kill, start, partition or heal, not \"%s\"",
                args->operands[0]);
}

const command_t demo_command = {
    .name = "demo",
    .operands = "up [N] | down | status | kill NODE | start NODE | partition [N] | heal",
    .least = 1,
    .most = 2,
    .summary = "a cluster of processes on this machine, to play with",
    .details =
        "up starts N nodes (3) and prints their ports; down stops them and keeps their data. kill ends a node with\n"
        "SIGKILL, start brings it back. partition cuts the first N nodes (1) off from the others, heal ends it.",
    .flags = flags,
    .run = run,
};
