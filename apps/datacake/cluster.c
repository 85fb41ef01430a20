/* cluster.c: members, status, verify, forget: what a node knows of its cluster, and what an operator asks of it. */
#include "client.h"

#include <stdio.h>
#include <string.h>

static const flag_t cluster_flags[] = {
    {"json", NULL, "print the node's answer"},
    CLIENT_FLAGS,
    {NULL, NULL, NULL},
};

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "-" : text;
}

static long long number_of(const json_t *object, const char *name)
{
    return (long long)json_integer_value(json_object_get(object, name));
}

/* Makes a request; *root is its answer in JSON. */
static int ask(const args_t *args, const char *method, const char *path, json_t **root)
{
    text_t path_text = TEXT_INIT(0);
    response_t response;
    *root = NULL;
    text_add(&path_text, path);
    int status = client_ask(args, method, &path_text, NULL, NULL, NULL, &response);
    if (status == 0 && args_has(args, "json")) {
        client_print(NULL, response.body.data, response.body.len);
    } else if (status == 0) {
        *root = json_loadb(response.body.data, response.body.len, 0, NULL);
        if (*root == NULL)
            status = fail(args, EXIT_OTHER, "the node's answer is no JSON");
    }
    response_free(&response);
    text_free(&path_text);
    return status;
}

static void print_members(const json_t *members)
{
    json_t *member;
    size_t i;
    printf("%6s  %-22s %-16s %-10s %6s  %s\n", "id", "address", "data centre", "status", "phi", "http");
    json_array_foreach(members, i, member)
    {
        bool is_self = json_is_true(json_object_get(member, "self"));
        printf("%6lld%c %-22s %-16s %-10s %6.1f  %s\n", number_of(member, "id"), is_self ? '*' : ' ',
               text_of(member, "address"), text_of(member, "data_center"), text_of(member, "status"),
               json_real_value(json_object_get(member, "phi")), text_of(member, "http"));
    }
}

static int run_members(const args_t *args)
{
    json_t *root;
    int status = ask(args, "GET", "/members", &root);
    if (root != NULL)
        print_members(json_object_get(root, "members"));
    json_decref(root);
    return status;
}

static void print_peers(const json_t *peers)
{
    json_t *peer;
    size_t i;
    json_array_foreach(peers, i, peer) printf("peer %-11lld %lld writes queued, lag %lld ms%s\n", number_of(peer, "id"),
                                              number_of(peer, "queued_writes"), number_of(peer, "lag_ms"),
                                              json_is_true(json_object_get(peer, "replica")) ? "" : ", no replica");
}

/* One "name value" per line, so that scripts can read it, too. */
static void print_status(const json_t *root)
{
    const json_t *node = json_object_get(root, "node"), *store = json_object_get(root, "store");
    const json_t *cluster = json_object_get(root, "cluster");
    printf("node             %lld\naddress          %s\nhttp             %s\n", number_of(node, "id"),
           text_of(node, "address"), text_of(node, "http"));
    printf("cluster          %s\ndata-center      %s\nstorage          %s\n", text_of(node, "cluster_id"),
           text_of(node, "data_center"), text_of(node, "storage"));
    printf("uptime-s         %lld\njoined           %s\n", number_of(node, "uptime_ms") / 1000,
           json_is_true(json_object_get(store, "joined")) ? "yes" : "no");
    printf("alive            %lld\nsuspect          %lld\ndead             %lld\nreplicas         %lld\n",
           number_of(cluster, "alive"), number_of(cluster, "suspect"), number_of(cluster, "dead"),
           number_of(store, "replicas"));
    printf("keyspaces        %lld\ndocuments        %lld\ntombstones       %lld\nfingerprint      %s\n",
           number_of(store, "keyspaces"), number_of(store, "live"), number_of(store, "tombstones"),
           text_of(store, "fingerprint"));
    printf("writes           %lld\nwrites-failed    %lld\nwrites-received  %lld\ncommits          %lld\n",
           number_of(store, "writes"), number_of(store, "writes_failed"), number_of(store, "writes_received"),
           number_of(store, "commits"));
    printf("sessions         %lld running, %lld finished, %lld failed, %lld repairs\n",
           number_of(store, "sessions_running"), number_of(store, "sessions_finished"),
           number_of(store, "sessions_failed"), number_of(store, "repairs_finished"));
    print_peers(json_object_get(root, "peers"));
    if (json_is_true(json_object_get(cluster, "isolated")))
        printf("warning          isolated: half of this node's probes go unanswered\n");
    if (json_is_true(json_object_get(cluster, "duplicate")))
        printf("warning          another node has this node's id; stop one of them\n");
}

static int run_status(const args_t *args)
{
    json_t *root;
    int status = ask(args, "GET", "/status", &root);
    if (root != NULL)
        print_status(root);
    json_decref(root);
    return status;
}

/* ---- verify: this node looks for damage and compares with all; then each node's own count is held against it ----- */

static int tell_damage(const args_t *args, const json_t *verified)
{
    const json_t *damage;
    size_t i;
    json_array_foreach(json_object_get(verified, "damage"), i, damage)
    {
        long long node = number_of(damage, "node");
        const char *why = json_string_value(json_object_get(damage, "why"));
        if (why != NULL) {
            printf("storage: %s\n", why);
            continue;
        }
        printf("%s/%s: %s", text_of(damage, "keyspace"), text_of(damage, "key"), text_of(damage, "kind"));
        if (node != 0)
            printf(" on this node and node %lld", node);
        printf("%s\n", json_is_true(json_object_get(damage, "healed")) ? ", mended" : "");
    }
    if (number_of(verified, "damaged") > 0)
        return fail(args, EXIT_OTHER,
                    "the node's storage is damaged: stop it, move its data directory away, start it "
                    "empty with the same id: it gets its data from the others");
    long long found = number_of(verified, "missing") + number_of(verified, "strange") + number_of(verified, "wrong") +
                      number_of(verified, "different");
    if (found > number_of(verified, "healed"))
        return fail(args, EXIT_OTHER, "%lld documents are damaged and could not be mended",
                    found - number_of(verified, "healed"));
    if (number_of(verified, "not_compared") > 0)
        return fail(args, EXIT_OTHER, "%lld comparisons of a keyspace with a node could not be made; try again",
                    number_of(verified, "not_compared"));
    return 0;
}

typedef struct tally {
    const char *fingerprint, *token;
    unsigned equal, different, silent;
} tally_t;

static bool is_replica(const json_t *peers, long long id)
{
    bool is = false;
    for (size_t i = 0; i < json_array_size(peers) && !is; i++) {
        const json_t *peer = json_array_get(peers, i);
        is = number_of(peer, "id") == id && json_is_true(json_object_get(peer, "replica"));
    }
    return is;
}

static void compare_member(const json_t *member, const json_t *peers, tally_t *tally)
{
    client_t *client = NULL;
    response_t response = {0};
    json_t *root = NULL;
    const char *http = json_string_value(json_object_get(member, "http")), *state = text_of(member, "status");
    bool may_answer = strcmp(state, "alive") == 0 || strcmp(state, "suspect") == 0;
    if (!may_answer && !is_replica(peers, number_of(member, "id")))
        return; /* it was forgotten */
    bool is_there = may_answer && http != NULL && client_open(http, tally->token, &client) == 0 &&
                    client_request(client, "GET", "/status", NULL, 0, NULL, NULL, &response) == 0 &&
                    response.status == 200;
    if (is_there)
        root = json_loadb(response.body.data, response.body.len, 0, NULL);
    const json_t *store = json_object_get(root, "store");
    bool is_equal = is_there && strcmp(text_of(store, "fingerprint"), tally->fingerprint) == 0;
    if (!is_there)
        tally->silent++;
    else if (is_equal)
        tally->equal++;
    else
        tally->different++;
    printf("node %-6lld %10lld documents  %-16s  %s\n", number_of(member, "id"), number_of(store, "live"),
           text_of(store, "fingerprint"),
           !is_there  ? state
           : is_equal ? "equal"
                      : "different");
    json_decref(root);
    response_free(&response);
    client_close(client);
}

static int run_verify(const args_t *args)
{
    json_t *verified = NULL, *known = NULL, *member;
    size_t i;
    int status = ask(args, "POST", "/verify", &verified);
    if (status != 0 || verified == NULL)
        return status;
    int damage = tell_damage(args, verified);
    status = ask(args, "GET", "/status", &known);
    char token[CLIENT_TOKEN_MAX];
    tally_t tally = {.fingerprint = text_of(verified, "fingerprint")};
    if (client_token(args, token) == 0 && token[0] != 0)
        tally.token = token;
    const json_t *peers = json_object_get(known, "peers");
    json_array_foreach(json_object_get(known, "members"), i, member) compare_member(member, peers, &tally);
    if (status == 0 && tally.different > 0)
        status = fail(args, EXIT_OTHER, "%u nodes differ; writes may be under way: try again, then look at their logs",
                      tally.different);
    if (status == 0 && tally.silent > 0)
        status = fail(args, EXIT_OTHER, "%u nodes could not be asked", tally.silent);
    status = status != 0 ? status : damage;
    json_decref(known);
    json_decref(verified);
    return status;
}

static int run_forget(const args_t *args)
{
    char path[64];
    uint64_t id;
    json_t *root;
    if (parse_number(args->operands[0], 1, UINT16_MAX, &id) != 0)
        return fail(args, EXIT_USAGE, "a node id is a number from 1 to 65535, not \"%s\"", args->operands[0]);
    snprintf(path, sizeof(path), "/members/%llu", (unsigned long long)id);
    int status = ask(args, "DELETE", path, &root);
    if (root != NULL)
        printf("node %llu is forgotten\n", (unsigned long long)id);
    json_decref(root);
    return status;
}

const command_t members_command = {
    .name = "members",
    .operands = "",
    .summary = "list the nodes that a node knows",
    .flags = cluster_flags,
    .run = run_members,
};
const command_t status_command = {
    .name = "status",
    .operands = "",
    .summary = "what a node holds and does",
    .flags = cluster_flags,
    .run = run_status,
};
const command_t verify_command = {
    .name = "verify",
    .operands = "",
    .summary = "look for damage, compare all nodes now, and mend what differs",
    .flags = cluster_flags,
    .run = run_verify,
};
const command_t forget_command = {
    .name = "forget",
    .operands = "NODE_ID",
    .least = 1,
    .most = 1,
    .summary = "a node that will not come back no longer counts",
    .flags = cluster_flags,
    .run = run_forget,
};
