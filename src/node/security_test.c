/* Keys and certificates of nodes on the real machine: who is let in, who is not and is told why, and exchanging
 * them while the nodes run. The certificates are made by the command openssl. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/node.h"

#define PATIENCE_MS 120000
#define LOG_MAX     20000

typedef uint8_t cluster_key_t[CAKE_CLUSTER_KEY_LEN];

typedef struct {
    cake_node_t *node;
    pthread_mutex_t lock;
    char text[LOG_MAX];
    cake_log_t log;
} member_t;

static const cluster_key_t OLD = {1, 2, 3}, NEW = {4, 5, 6};
static const uint16_t ids[] = {1, 2, 3};

static void write_log(void *ctx, cake_log_level_t level, const char *message)
{
    member_t *member = ctx;
    (void)level;
    pthread_mutex_lock(&member->lock);
    strncat(member->text, message, LOG_MAX - 2 - strlen(member->text));
    strcat(member->text, "\n");
    pthread_mutex_unlock(&member->lock);
}

static bool says(member_t *member, const char *text)
{
    pthread_mutex_lock(&member->lock);
    bool is_there = strstr(member->text, text) != NULL;
    pthread_mutex_unlock(&member->lock);
    return is_there;
}

static void wait_until_it_says(member_t *member, const char *text)
{
    for (int i = 0; i < PATIENCE_MS / 10 && !says(member, text); i++)
        usleep(10000);
    if (!says(member, text))
        fail_msg("it does not say \"%s\", but:\n%s", text, member->text);
}

static cake_node_config_t config_of(const cluster_key_t *keys, size_t count)
{
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    config.listen_addr = "127.0.0.1:0";
    config.cluster_keys = keys;
    config.cluster_key_count = count;
    return config;
}

static void start(member_t *member, uint16_t id, cake_node_config_t config, const member_t *seed)
{
    const char *address = seed == NULL ? NULL : cake_node_address(seed->node);
    memset(member, 0, sizeof *member);
    pthread_mutex_init(&member->lock, NULL);
    member->log = (cake_log_t){write_log, member, CAKE_LOG_WARN};
    config.node_id = id;
    config.seeds = &address;
    config.seed_count = seed == NULL ? 0 : 1;
    config.log = &member->log;
    assert_int_equal(cake_node_start(&config, &member->node), 0);
}

static void stop(member_t *member)
{
    assert_int_equal(cake_node_stop(member->node), 0);
    pthread_mutex_destroy(&member->lock);
}

static void answer(cake_rpc_call_t *call, void *arg)
{
    (void)arg;
    cake_rpc_reply(call, "pong", 4);
}

static void add_service(member_t *member)
{
    static const cake_rpc_method_t methods[] = {{"ping", answer, 0}};
    static const cake_rpc_service_t service = {"test", methods, 1, NULL, NULL};
    assert_int_equal(cake_node_add_service(member->node, &service), 0);
}

/* A node gives a connect two seconds, which a busy machine may need longer for. */
static int call(member_t *member, uint16_t id)
{
    cake_channel_t *channel;
    char message[200];
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    options.timeout_ms = PATIENCE_MS;
    options.message = message;
    options.message_size = sizeof message;
    assert_int_equal(cake_node_channel(member->node, id, &channel), 0);
    int err;
    do {
        message[0] = '\0';
        err = cake_channel_call(channel, "/test/ping", NULL, 0, &options, NULL);
    } while (err == CAKE_ECONNECTION && strstr(message, "took too long") != NULL);
    return err;
}

/* By a connection of its own, as nothing that is open already can help it. */
static int call_as(const member_t *to, const cake_tls_config_t *tls, char message[200])
{
    cake_channel_config_t config = CAKE_CHANNEL_CONFIG_INIT;
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    cake_channel_t *channel;
    options.message = message;
    options.message_size = 200;
    config.tls = tls;
    config.connect_timeout_ms = config.timeout_ms = PATIENCE_MS;
    assert_int_equal(cake_channel_open(cake_node_address(to->node), &config, &channel), 0);
    int err = cake_channel_call(channel, "/test/ping", NULL, 0, &options, NULL);
    cake_channel_close(channel);
    return err;
}

static void one_key_lets_in_and_encrypts_calls(void **state)
{
    (void)state;
    member_t one, two;
    char message[200];
    cake_tls_config_t tls = {.cluster_key = OLD, .cluster_key_len = sizeof OLD};
    start(&one, 1, config_of(&OLD, 1), NULL);
    start(&two, 2, config_of(&OLD, 1), &one);
    add_service(&two);
    assert_int_equal(cake_node_wait_for(one.node, ids, 2, PATIENCE_MS), 0);
    assert_int_equal(call(&one, 2), 0);
    assert_int_equal(call_as(&two, NULL, message), CAKE_ECONNECTION);
    assert_non_null(strstr(message, "encrypts by TLS"));
    assert_int_equal(call_as(&two, &tls, message), 0);
    assert_int_equal(cake_node_reload_tls(one.node, &tls), CAKE_EINVAL); /* it goes by the keys */
    stop(&two);
    stop(&one);
}

/* What a stranger does changes nothing, and both sides say why. */
static void strangers_are_not_let_in_and_are_told(void **state)
{
    (void)state;
    const struct {
        cake_node_config_t ours, theirs;
        const char *we_say, *they_say;
    } cases[] = {
        {config_of(&OLD, 1), config_of(&NEW, 1), "another cluster key", "another cluster key"},
        {config_of(&OLD, 1), config_of(NULL, 0), "its gossip is plain", "the peer encrypts by TLS"},
        {config_of(NULL, 0), config_of(&NEW, 1), "this node has none", "the peer does not encrypt"},
        {config_of(NULL, 0), config_of(NULL, 0), "it belongs to another cluster", "belongs to another cluster"},
        {config_of(&OLD, 1), config_of(&OLD, 1), "another cluster with the same key", "belongs to another cluster"},
    };
    enum { CASES = CAKE_COUNT_OF(cases) };
    static member_t ones[CASES], twos[CASES];
    for (size_t i = 0; i < CASES; i++) {
        cake_node_config_t theirs = cases[i].theirs;
        theirs.cluster_id = i >= 3 ? "other" : NULL;
        start(&ones[i], 1, cases[i].ours, NULL);
        start(&twos[i], 2, theirs, &ones[i]);
    }
    for (size_t i = 0; i < CASES; i++) {
        cake_member_t *members;
        size_t count;
        wait_until_it_says(&ones[i], cases[i].we_say);
        assert_true(says(&ones[i], cake_node_address(twos[i].node)));
        wait_until_it_says(&twos[i], cases[i].they_say);
        assert_true(says(&twos[i], cake_node_address(ones[i].node)));
        assert_int_equal(cake_node_members(ones[i].node, &members, &count), 0);
        assert_int_equal(count, 1);
        cake_members_free(members);
    }
    for (size_t i = 0; i < CASES; i++) {
        stop(&twos[i]);
        stop(&ones[i]);
    }
}

/* (old) -> (old, new) -> (new, old) -> (new), node by node: all go on seeing and calling each other. */
static void keys_are_changed_without_an_outage(void **state)
{
    (void)state;
    const cluster_key_t first[] = {{1, 2, 3}, {4, 5, 6}}, second[] = {{4, 5, 6}, {1, 2, 3}};
    const struct {
        const cluster_key_t *keys;
        size_t count;
    } steps[] = {{first, 2}, {second, 2}, {second, 1}};
    member_t members[3], late;
    cake_node_stats_t stats;
    start(&members[0], 1, config_of(&OLD, 1), NULL);
    start(&members[1], 2, config_of(&OLD, 1), &members[0]);
    start(&members[2], 3, config_of(&OLD, 1), &members[0]);
    for (int i = 0; i < 3; i++) {
        add_service(&members[i]);
        assert_int_equal(cake_node_wait_for(members[i].node, ids, 3, PATIENCE_MS), 0);
    }
    for (size_t step = 0; step < CAKE_COUNT_OF(steps); step++) {
        for (int i = 0; i < 3; i++) {
            assert_int_equal(cake_node_reload_keys(members[i].node, steps[step].keys, steps[step].count), 0);
            for (uint16_t id = 1; id <= 3; id++) {
                assert_int_equal(call(&members[(i + 1) % 3], id), 0);
                cake_tls_config_t tls = {.cluster_key = step == 2 ? NEW : OLD, .cluster_key_len = sizeof NEW};
                char message[200];
                assert_int_equal(call_as(&members[id - 1], &tls, message), 0);
            }
        }
    }
    char message[200];
    cake_tls_config_t old = {.cluster_key = OLD, .cluster_key_len = sizeof OLD};
    assert_int_equal(call_as(&members[0], &old, message), CAKE_ECONNECTION);
    start(&late, 4, config_of(&NEW, 1), &members[2]);
    const uint16_t all[] = {1, 2, 3, 4};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(cake_node_wait_for(members[i].node, all, CAKE_COUNT_OF(all), PATIENCE_MS), 0);
        assert_int_equal(cake_node_stats(members[i].node, &stats), 0);
        assert_int_equal(stats.gossip_bad_frames, 0);
    }
    assert_int_equal(cake_node_reload_keys(late.node, first, 0), CAKE_EINVAL);
    assert_int_equal(cake_node_reload_keys(late.node, first, CAKE_CLUSTER_KEYS_MAX + 1), CAKE_EINVAL);
    stop(&late);
    for (int i = 0; i < 3; i++)
        stop(&members[i]);
    start(&late, 4, config_of(NULL, 0), NULL);
    assert_int_equal(cake_node_reload_keys(late.node, first, 1), CAKE_EINVAL); /* it was started without */
    stop(&late);
}

/* ---- certificates ------------------------------------------------------------------------------------------------ */

typedef struct {
    char dir[64], ca[96], cert[96], key[96];
} files_t;

static files_t make_files(const char *dir)
{
    files_t files;
    char command[1200];
    snprintf(files.dir, sizeof files.dir, "%s", dir);
    snprintf(files.ca, sizeof files.ca, "%s/ca.pem", dir);
    snprintf(files.cert, sizeof files.cert, "%s/cert.pem", dir);
    snprintf(files.key, sizeof files.key, "%s/key.pem", dir);
    snprintf(
        command, sizeof command,
        "cd %s && exec 2>/dev/null && "
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca "
        "-days 2 && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out csr.pem "
        "-subj /CN=node && openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days "
        "2",
        dir);
    assert_int_equal(system(command), 0);
    return files;
}

static cake_tls_config_t tls_of(const files_t *files)
{
    return (cake_tls_config_t){.cert_file = files->cert, .key_file = files->key, .ca_file = files->ca};
}

static void certificates_let_in_and_are_changed_while_it_runs(void **state)
{
    (void)state;
    char first_dir[] = "/tmp/datacake-node-XXXXXX", next_dir[] = "/tmp/datacake-node-XXXXXX", command[200],
         message[200];
    assert_non_null(mkdtemp(first_dir));
    assert_non_null(mkdtemp(next_dir));
    files_t files = make_files(first_dir), next = make_files(next_dir);
    cake_tls_config_t tls = tls_of(&files), next_tls = tls_of(&next), missing = tls_of(&files);
    cake_node_config_t config = config_of(NULL, 0), plain = config_of(NULL, 0);
    member_t one, two, three;
    config.tls = &tls;
    start(&one, 1, config, NULL);
    start(&two, 2, config, &one);
    start(&three, 3, plain,
          &one); /* gossip is plain here: it is a member that nobody can call, and both sides say so */
    add_service(&one);
    add_service(&two);
    assert_int_equal(cake_node_wait_for(one.node, ids, 3, PATIENCE_MS), 0);
    assert_int_equal(call(&one, 2), 0);
    assert_int_equal(call(&one, 3), CAKE_ECONNECTION);
    wait_until_it_says(&three, "the peer encrypts by TLS");
    stop(&three);

    missing.key_file = "/nonexistent/key.pem";
    assert_int_equal(cake_node_reload_tls(one.node, &missing), CAKE_ENOTFOUND);
    assert_int_equal(cake_node_reload_tls(one.node, NULL), CAKE_EINVAL);
    assert_int_equal(call_as(&one, &tls, message), 0);
    assert_int_equal(cake_node_reload_tls(one.node, &next_tls), 0);
    assert_int_equal(call(&one, 2), 0); /* what is open goes on */
    assert_int_equal(call_as(&one, &tls, message), CAKE_ECONNECTION);
    assert_non_null(strstr(message, "TLS: "));
    assert_int_equal(call_as(&one, &next_tls, message), 0);
    assert_int_equal(cake_node_reload_tls(two.node, &next_tls), 0);
    assert_int_equal(call(&two, 1), 0);
    stop(&two);
    start(&two, 2, (config.tls = &next_tls, config), &one);
    add_service(&two);
    assert_int_equal(cake_node_wait_for(one.node, ids, 2, PATIENCE_MS), 0);
    int err =
        call(&one, 2); /* its last run may be found to be gone only now, and where it is now is heard a moment later */
    for (int i = 0; i < PATIENCE_MS / 10 && err == CAKE_ECONNECTION; i++) {
        usleep(10000);
        err = call(&one, 2);
    }
    assert_int_equal(err, 0);
    stop(&two);
    stop(&one);

    config.tls = &missing;
    config.node_id = 1;
    assert_int_equal(cake_node_start(&config, &one.node), CAKE_ENOTFOUND);
    assert_null(one.node);
    missing.key_file = files.ca;
    assert_int_equal(cake_node_start(&config, &one.node), CAKE_EPARSE);
    snprintf(command, sizeof command, "rm -r %s %s", first_dir, next_dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_key_lets_in_and_encrypts_calls),
        cmocka_unit_test(strangers_are_not_let_in_and_are_told),
        cmocka_unit_test(keys_are_changed_without_an_outage),
        cmocka_unit_test(certificates_let_in_and_are_changed_while_it_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
