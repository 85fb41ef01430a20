/* serve.c: `datacake serve`: a node, its store and its HTTP side, from start to the end of the process. */
#include "command.h"
#include "datadir.h"
#include "faults.h"
#include "http.h"
#include "memory.h"
#include "security.h"
#include "text.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#ifdef CAKE_APP_LMDB
#include <datacake/lmdb.h>
#endif
#include <datacake/sqlite.h>
#include <datacake/uv.h>

#define SEEDS_MAX      64u
#define NAME_MAX_BYTES 63u
#define TOKEN_MAX      256u
#define VALUE_MAX_MIB  1024u
#define LOOK_FIRST_NS  10000000 /* between two looks whether the node is ready */
#define LOOK_LAST_NS   200000000

static const flag_t flags[] = {
    {"node-id", "N", "this node's number, 1 to 65535, unique in the cluster (required)"},
    {"data-dir", "DIR", "where this node keeps its data; made when missing (required unless --storage memory)"},
    {"listen", "IP:PORT", "address for other nodes, TCP and UDP (127.0.0.1:7001; port 0: any)"},
    {"public", "IP:PORT", "address that other nodes are told (that of --listen)"},
    {"http", "HOST:PORT", "address of the REST side and the page (127.0.0.1:8001; port 0: any)"},
    {"seed", "HOST:PORT", "a node to join by; may be given several times"},
    {"data-center", "NAME", "where this node stands (default)"},
    {"cluster-id", "NAME", "nodes of other clusters are not heard (datacake)"},
    {"storage", "KIND", "sqlite, lmdb or memory (sqlite)"},
    {"lanes", "N", "independent writers of the storage, fixed by the first start (1)"},
    {"timeout-ms", "N", "how long a write waits for its consistency level (2000)"},
    {"max-value-mib", "N", "largest document, in MiB (16)"},
    {"max-body-mib", "N", "request bodies held at once, in MiB (256)"},
    {"max-connections", "N", "HTTP connections at once (1024)"},
    {"idle-s", "N", "HTTP connections idle or stalled for so many seconds are cut (30)"},
    {"http-token", "FILE", "clients have to send the token in this file"},
    {"http-name", "NAME",
     "a name with a dot by which browsers on this machine, or a proxy, reach --http; several times"},
    {"cluster-key", "FILE",
     "key of the cluster (see: datacake keygen), or $" SECURITY_KEY_VARIABLE ": only its nodes are heard"},
    {"tls-cert", "FILE", "certificate of this node, for calls between nodes; read again on SIGHUP, as the next two"},
    {"tls-key", "FILE", "key of that certificate"},
    {"tls-ca", "FILE", "authority that has signed the certificates of all nodes"},
    {"demo-faults", NULL, "on SIGHUP, do not hear the addresses in DATA_DIR/blocked (see: datacake demo)"},
    {"config", "FILE", "more flags, as lines of name = value; the command line wins"},
    {"log-level", "LEVEL", "debug, info, warn or error (info)"},
    {"log-format", "FORMAT", "text or json (text)"},
    {NULL, NULL, NULL},
};

typedef struct server {
    const args_t *args;
    log_t log;
    cake_log_t hook;
    datadir_t datadir;
    cake_env_t *env;
    cake_storage_t *storage;
    cake_node_t *node;
    cake_store_t *store;
    http_t *http;
    int http_socket; /* -1: none, or the HTTP side's */
    char http_address[HTTP_ADDRESS_MAX];
    const char *http_names[HTTP_NAMES_MAX + 2]; /* the host of --http first, NULL at the end */
    const char *storage_name;
    char token[TOKEN_MAX + 2];
    security_t security; /* of the start */
    uint64_t node_id, lanes, timeout_ms, max_value_mib, max_body_mib, max_connections, idle_s;
} server_t;

/* ---- flags ------------------------------------------------------------------------------------------------------- */

static int read_token(server_t *server)
{
    const char *path = args_value(server->args, "http-token", NULL);
    if (path == NULL)
        return 0;
    FILE *file = fopen(path, "re");
    size_t len = file == NULL ? 0 : fread(server->token, 1, TOKEN_MAX + 1, file);
    if (file == NULL)
        return fail(server->args, EXIT_USAGE, "cannot read the token in %s: %s", path, strerror(errno));
    fclose(file);
    server->token[len] = 0;
    server->token[strcspn(server->token, "\r\n")] = 0;
    if (server->token[0] == 0 || len > TOKEN_MAX)
        return fail(server->args, EXIT_USAGE, "%s must hold a token of 1 to %u characters on one line", path,
                    TOKEN_MAX);
    return 0;
}

static int read_numbers(server_t *server)
{
    const args_t *args = server->args;
    server->lanes = 1;
    server->timeout_ms = 2000;
    server->max_value_mib = 16;
    server->max_body_mib = 256;
    server->max_connections = 1024;
    server->idle_s = 30;
    if (!args_has(args, "node-id"))
        return fail(args, EXIT_USAGE, "give --node-id N, a number that no other node of the cluster has");
    if (args_number(args, "node-id", 1, UINT16_MAX, &server->node_id) != 0 ||
        args_number(args, "lanes", 1, CAKE_STORAGE_LANES_MAX, &server->lanes) != 0 ||
        args_number(args, "timeout-ms", 1, 3600000, &server->timeout_ms) != 0 ||
        args_number(args, "max-value-mib", 1, VALUE_MAX_MIB, &server->max_value_mib) != 0 ||
        args_number(args, "max-body-mib", 4, 1u << 20, &server->max_body_mib) != 0 ||
        args_number(args, "max-connections", 1, 1u << 20, &server->max_connections) != 0 ||
        args_number(args, "idle-s", 1, 3600, &server->idle_s) != 0)
        return EXIT_USAGE;
    if (server->max_body_mib < server->max_value_mib)
        return fail(args, EXIT_USAGE, "--max-body-mib must be at least --max-value-mib");
    return 0;
}

/* Says which address it is: the node only says that one of them is bad. */
static int check_address(const args_t *args, const char *flag, bool takes_names, const char *text)
{
    const char *colon = strrchr(text, ':');
    uint64_t port;
    cake_addr_t numeric;
    if (cake_addr_parse(text, &numeric) == 0)
        return 0;
    bool has_name = colon != NULL && colon > text && strchr(text, ':') == colon &&
                    (takes_names || strncmp(text, "localhost:", strlen("localhost:")) == 0);
    if (has_name && parse_number(colon + 1, 0, 65535, &port) == 0)
        return 0;
    return fail(args, EXIT_USAGE, "--%s \"%s\" is no address; give %s:PORT, like 127.0.0.1:7001", flag, text,
                takes_names ? "HOST" : "IP");
}

static bool is_any_address(const char *text)
{
    static const uint8_t any[16];
    cake_addr_t addr;
    return cake_addr_parse(text, &addr) == 0 && memcmp(addr.ip, any, sizeof(any)) == 0;
}

static int check_addresses(const args_t *args)
{
    static const struct {
        const char *flag;
        bool takes_names;
    } rows[] = {{"listen", false}, {"public", false}, {"http", true}, {"seed", true}};
    const char *given[ARGS_VALUES_MAX];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t count = args_values(args, rows[i].flag, given, ARGS_VALUES_MAX);
        for (size_t j = 0; j < count; j++)
            if (check_address(args, rows[i].flag, rows[i].takes_names, given[j]) != 0)
                return EXIT_USAGE;
    }
    const char *listen = args_value(args, "listen", "127.0.0.1:7001"), *public = args_value(args, "public", NULL);
    if (public == NULL && is_any_address(listen))
        return fail(args, EXIT_USAGE, "with --listen %s give --public IP:PORT, where the other nodes reach this one",
                    listen);
    if (public != NULL && is_any_address(public))
        return fail(args, EXIT_USAGE, "--public %s is not where other nodes reach this one; give IP:PORT", public);
    return 0;
}

static int check_name(const args_t *args, const char *flag)
{
    const char *name = args_value(args, flag, "default");
    size_t len = strlen(name);
    if (len > 0 && len <= NAME_MAX_BYTES && is_utf8_name(name, len))
        return 0;
    return fail(args, EXIT_USAGE, "--%s has 1 to %u bytes of UTF-8 without control characters", flag, NAME_MAX_BYTES);
}

static int read_flags(server_t *server)
{
    const args_t *args = server->args;
    const char *level = args_value(args, "log-level", "info"), *format = args_value(args, "log-format", "text");
    server->storage_name = args_value(args, "storage", "sqlite");
    server->log.is_json = strcmp(format, "json") == 0;
    if (log_level_parse(level, &server->log.least) != 0)
        return fail(args, EXIT_USAGE, "--log-level is debug, info, warn or error, not \"%s\"", level);
    if (!server->log.is_json && strcmp(format, "text") != 0)
        return fail(args, EXIT_USAGE, "--log-format is text or json, not \"%s\"", format);
#ifndef CAKE_APP_LMDB
    if (strcmp(server->storage_name, "lmdb") == 0)
        return fail(args, EXIT_USAGE, "this build does not have --storage lmdb; use sqlite");
#endif
    bool is_memory = strcmp(server->storage_name, "memory") == 0;
    if (strcmp(server->storage_name, "sqlite") != 0 && strcmp(server->storage_name, "lmdb") != 0 && !is_memory)
        return fail(args, EXIT_USAGE, "--storage is sqlite, lmdb or memory, not \"%s\"", server->storage_name);
    if (!is_memory && !args_has(args, "data-dir"))
        return fail(args, EXIT_USAGE, "give --data-dir DIR, or --storage memory to keep nothing");
    if (args_values(args, "seed", NULL, 0) > SEEDS_MAX)
        return fail(args, EXIT_USAGE, "more than %u seeds", SEEDS_MAX);
    if (args_values(args, "http-name", server->http_names + 1, HTTP_NAMES_MAX) > HTTP_NAMES_MAX)
        return fail(args, EXIT_USAGE, "more than %u names by --http-name", HTTP_NAMES_MAX);
    server->http_names[0] = args_value(args, "http", "127.0.0.1:8001");
    server->hook = log_hook(&server->log);
    int err = check_addresses(args);
    if (err == 0)
        err = check_name(args, "cluster-id");
    if (err == 0)
        err = check_name(args, "data-center");
    if (err == 0)
        err = read_numbers(server);
    if (err == 0 && security_read(&server->security, args) != 0)
        err = fail(args, EXIT_USAGE, "%s", server->security.message);
    if (err == 0 && server->security.is_readable_by_others)
        log_line(&server->log, CAKE_LOG_WARN, "others can read %s, too: chmod 600 would keep the key a secret",
                 args_value(args, "cluster-key", ""));
    return err != 0 ? err : read_token(server);
}

/* ---- start ------------------------------------------------------------------------------------------------------- */

static int open_files(server_t *server)
{
#ifdef CAKE_APP_LMDB
    if (strcmp(server->storage_name, "lmdb") == 0) {
        cake_lmdb_options_t lmdb = CAKE_LMDB_OPTIONS_INIT;
        lmdb.lanes = (unsigned)server->lanes;
        lmdb.log = &server->hook;
        return cake_lmdb_open(server->datadir.store_path, &lmdb, &server->storage);
    }
#endif
    cake_sqlite_options_t sqlite = CAKE_SQLITE_OPTIONS_INIT;
    sqlite.lanes = (unsigned)server->lanes;
    sqlite.log = &server->hook;
    return cake_sqlite_open(server->datadir.store_path, &sqlite, &server->storage);
}

static int open_storage(server_t *server)
{
    const args_t *args = server->args;
    const char *path = args_value(args, "data-dir", NULL);
    if (path != NULL && datadir_open(&server->datadir, path, (uint16_t)server->node_id,
                                     args_value(args, "cluster-id", "datacake"), server->storage_name) != 0)
        return fail(args, EXIT_OTHER, "%s", server->datadir.message);
    if (strcmp(server->storage_name, "memory") == 0) {
        int err = cake_memory_open(&server->storage);
        return err == 0 ? 0 : fail(args, EXIT_OTHER, "%s", cake_strerror(err));
    }
    int err = open_files(server);
    if (err == 0)
        return 0;
    const char *hint = "";
    if (err == CAKE_ECORRUPT)
        hint = "; move it away and start again: the node gets its data from the others";
    else if (err == CAKE_ECONFLICT)
        hint = "; give the --lanes it was made with, or another --data-dir";
    char kept[LOG_KEPT_MAX];
    log_kept(&server->log, "", kept);
    if (kept[0] != 0)
        return fail(args, EXIT_OTHER, "%s%s", kept, hint);
    return fail(args, EXIT_OTHER, "cannot open the storage in %s: %s%s", server->datadir.store_path, cake_strerror(err),
                hint);
}

static int fail_node(server_t *server, const cake_node_config_t *config, int err)
{
    const args_t *args = server->args;
    char why[LOG_KEPT_MAX];
    log_kept(&server->log, "", why);
    if (err == CAKE_EADDRINUSE)
        return fail(args, EXIT_OTHER, "the address %s is in use; stop what listens there, or give another --listen",
                    config->listen_addr);
    if (err == CAKE_EINVAL)
        return fail(args, EXIT_USAGE,
                    "--listen %s is no address of this machine; behind a port mapping, that is --public",
                    config->listen_addr);
    if (why[0] != 0 && err == CAKE_EIO) /* the address, and what the system has against it */
        return fail(args, EXIT_OTHER, "%s; give another --listen, or the right to it", why);
    if (why[0] != 0 && config->tls != NULL)
        return fail(args, EXIT_OTHER, "%s; look at --tls-cert, --tls-key and --tls-ca", why);
    return fail(args, EXIT_OTHER, "cannot start the node: %s", why[0] != 0 ? why : cake_strerror(err));
}

static int start_node(server_t *server)
{
    const args_t *args = server->args;
    const char *seeds[SEEDS_MAX];
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    config.node_id = (uint16_t)server->node_id;
    config.listen_addr = args_value(args, "listen", "127.0.0.1:7001");
    config.public_addr = args_value(args, "public", NULL);
    config.seeds = seeds;
    config.seed_count = args_values(args, "seed", seeds, SEEDS_MAX);
    config.cluster_id = args_value(args, "cluster-id", "datacake");
    config.data_center = args_value(args, "data-center", "default");
    config.generation = server->datadir.generation;
    security_configure(&server->security, &config);
    cake_uv_options_t options = CAKE_UV_OPTIONS_INIT;
    options.log = &server->hook;
    int err = cake_uv_env_new(&options, &server->env);
    if (err != 0)
        return fail(args, EXIT_OTHER, "cannot start the event loop: %s", cake_strerror(err));
    if (args_has(args, "demo-faults") && faults_install(server->env) != 0)
        return fail(args, EXIT_OTHER, "out of memory");
    config.env = server->env;
    err = cake_node_start(&config, &server->node);
    security_wipe(&server->security);
    return err == 0 ? 0 : fail_node(server, &config, err);
}

static int open_store(server_t *server)
{
    cake_store_options_t options = CAKE_STORE_OPTIONS_INIT;
    options.timeout_ms = server->timeout_ms;
    options.max_value_bytes = server->max_value_mib << 20;
    int err = cake_store_open(server->node, server->storage, &options, &server->store);
    if (err == 0) {
        server->storage = NULL; /* the store's now */
        return 0;
    }
    char why[LOG_KEPT_MAX];
    log_kept(&server->log, cake_strerror(err), why);
    if (err == CAKE_ECONFLICT)
        return fail(server->args, EXIT_OTHER,
                    "%s holds the data of another node or cluster (%s); give another --data-dir",
                    server->datadir.store_path, why);
    if (err == CAKE_ECORRUPT)
        return fail(server->args, EXIT_OTHER,
                    "the data in %s is damaged (%s); move it away and start again: the node gets "
                    "its data from the others",
                    server->datadir.store_path, why);
    return fail(server->args, EXIT_OTHER, "cannot open the store: %s", why);
}

static int open_http(server_t *server)
{
    char message[HTTP_MESSAGE_MAX] = "";
    int err = http_listen(server->http_names[0], message);
    if (err < 0)
        return fail(server->args, err == CAKE_EPARSE ? EXIT_USAGE : EXIT_OTHER, "%s", message);
    server->http_socket = err;
    http_address(err, server->http_address);
    return 0;
}

static int fail_duplicate(server_t *server)
{
    char why[LOG_KEPT_MAX];
    log_kept(&server->log, "another node of the cluster has the same node id", why);
    return fail(server->args, EXIT_OTHER, "%s; give this one another --node-id and an empty --data-dir", why);
}

/* Where others reach the HTTP side: behind a wildcard, that is where they reach the node. */
static void tell_address(const server_t *server, char out[HTTP_ADDRESS_MAX])
{
    cake_addr_t http, node;
    snprintf(out, HTTP_ADDRESS_MAX, "%s", server->http_address);
    if (!is_any_address(out) || cake_addr_parse(out, &http) != 0 ||
        cake_addr_parse(cake_node_address(server->node), &node) != 0)
        return;
    node.port = http.port;
    cake_addr_format(&node, out);
}

static int start_http(server_t *server)
{
    http_options_t options = {
        .token = server->token[0] == 0 ? NULL : server->token,
        .node = server->node,
        .store = server->store,
        .log = &server->log,
        .max_value_bytes = server->max_value_mib << 20,
        .max_body_bytes = server->max_body_mib << 20,
        .max_connections = (uint32_t)server->max_connections,
        .idle_s = (uint32_t)server->idle_s,
        .storage_name = server->storage_name,
        .names = server->http_names,
    };
    char address[HTTP_ADDRESS_MAX];
    tell_address(server, address);
    int err = cake_node_publish(server->node, "http", address, strlen(address)); /* first: whoever asks finds it */
    if (err == 0) {
        err = http_start(&options, server->http_socket, &server->http);
        server->http_socket = -1;
    }
    if (err != 0 && cake_node_is_duplicate(server->node))
        return fail_duplicate(server);
    return err == 0 ? 0 : fail(server->args, EXIT_OTHER, "cannot start the HTTP server: %s", cake_strerror(err));
}

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void say_ready(const server_t *server)
{
    printf("datacake: node %u is ready: listen %s, http http://%s\n", cake_node_id(server->node),
           cake_node_address(server->node), server->http_address);
    fflush(stdout);
    log_line(&server->log, CAKE_LOG_INFO, "node %u is ready: listen %s, http http://%s, storage %s",
             cake_node_id(server->node), cake_node_address(server->node), server->http_address, server->storage_name);
}

static void read_faults(server_t *server)
{
    char path[DATADIR_PATH_MAX + 16];
    snprintf(path, sizeof(path), "%s/blocked", server->datadir.path);
    faults_read(server->env, path);
    log_line(&server->log, CAKE_LOG_WARN, "the addresses in %s are not heard", path);
}

/* Until SIGINT or SIGTERM, or until another node with our id turns out to have been there first. On SIGHUP what may
 * change without a restart is read again; it is nothing to end for. */
static int wait_for_end(server_t *server, const sigset_t *signals)
{
    const struct timespec second = {.tv_sec = 1};
    struct timespec look = {.tv_nsec = LOOK_FIRST_NS}; /* a start of ten seconds may be told of a little late */
    bool is_ready = false;
    for (;;) {
        int received = sigtimedwait(signals, NULL, is_ready ? &second : &look);
        look.tv_nsec += look.tv_nsec < LOOK_LAST_NS ? look.tv_nsec / 16 : 0;
        if (received == SIGINT || received == SIGTERM)
            return EXIT_DONE;
        if (received == SIGHUP && args_has(server->args, "demo-faults") && server->datadir.path[0] != 0)
            read_faults(server);
        if (received == SIGHUP)
            security_reload(server->node, server->args, &server->log);
        if (cake_node_is_duplicate(server->node))
            return fail_duplicate(server);
        if (!is_ready && http_is_ready(server->http)) {
            is_ready = true;
            say_ready(server);
            memory_release_start();
        }
    }
}

/* ---- end --------------------------------------------------------------------------------------------------------- */

/* In the order that lets each finish what it does with the next. */
static void stop(server_t *server)
{
    http_quiesce(server->http);
    cake_store_close(server->store);
    http_stop(server->http);
    cake_node_stop(server->node);
    cake_storage_close(server->storage);
    if (server->http_socket >= 0)
        close(server->http_socket);
    if (server->env != NULL)
        server->env->ops->close(server->env);
    datadir_close(&server->datadir);
}

static int run(const args_t *given)
{
    args_t args = *given;
    server_t server = {.args = &args, .datadir = {.lock = -1}, .http_socket = -1, .log = LOG_INIT};
    sigset_t signals;
    atomic_store(&server.log.keeps_errors, true);
    /* Before any thread starts, so that all of them leave the signals to this one. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    raise_file_limit();

    const char *file = args_value(&args, "config", NULL);
    int status = file == NULL ? 0 : args_read_file(&args, file);
    if (status == 0)
        status = read_flags(&server);
    if (status == 0)
        status = open_http(&server);
    if (status == 0)
        status = open_storage(&server);
    if (status == 0)
        status = start_node(&server);
    if (status == 0)
        status = open_store(&server);
    if (status == 0)
        status = start_http(&server);
    atomic_store(&server.log.keeps_errors, false);
    if (status == 0) {
        log_line(&server.log, CAKE_LOG_INFO, "node %u serves http://%s, version %s", cake_node_id(server.node),
                 server.http_address, cake_version());
        status = wait_for_end(&server, &signals);
        log_line(&server.log, CAKE_LOG_INFO, "node %u leaves", cake_node_id(server.node));
        pthread_sigmask(SIG_UNBLOCK, &signals, NULL); /* a second signal ends the process at once */
    }
    stop(&server);
    if (args.file != given->file)
        args_free(&args);
    return status;
}

const command_t serve_command = {
    .name = "serve",
    .operands = "",
    .summary = "run a node until SIGINT or SIGTERM, then leave gracefully",
    .details =
        "One line on standard output says that the node is ready, with the ports it has. The log is on standard\n"
        "error. SIGHUP reads keys and certificates again.",
    .flags = flags,
    .run = run,
};
