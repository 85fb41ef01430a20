/* Calls over TLS: both kinds of it, peers that do not fit and are told why, new keys without a restart. */
#include <openssl/crypto.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "rpc/fixture.h"

/* ---- certificates, made here ---- */

typedef struct {
    char dir[64], ca[96], cert[96], key[96];
} files_t;

static void write_pem(const char *path, X509 *cert, EVP_PKEY *key)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    if (cert != NULL)
        assert_int_equal(PEM_write_X509(file, cert), 1);
    if (key != NULL)
        assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(file);
}

static X509 *make_cert(const char *name, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key)
{
    static long serial = 1;
    X509 *cert = X509_new();
    X509V3_CTX context;
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_NAME *subject = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(issuer != NULL ? issuer : cert));
    X509_set_pubkey(cert, key);
    X509V3_set_ctx(&context, issuer != NULL ? issuer : cert, cert, NULL, NULL, 0);
    X509_EXTENSION *extension =
        X509V3_EXT_conf_nid(NULL, &context, issuer == NULL ? NID_basic_constraints : NID_subject_alt_name,
                            issuer == NULL ? "critical,CA:TRUE" : "DNS:node.example");
    assert_int_equal(X509_add_ext(cert, extension, -1), 1);
    X509_EXTENSION_free(extension);
    assert_true(X509_sign(cert, issuer_key, EVP_sha256()) > 0);
    return cert;
}

static files_t make_files(void)
{
    files_t files = {.dir = "/tmp/datacake-tls-XXXXXX"};
    assert_non_null(mkdtemp(files.dir));
    snprintf(files.ca, sizeof files.ca, "%s/ca.pem", files.dir);
    snprintf(files.cert, sizeof files.cert, "%s/cert.pem", files.dir);
    snprintf(files.key, sizeof files.key, "%s/key.pem", files.dir);
    EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *key = EVP_EC_gen("P-256");
    X509 *ca = make_cert("authority", ca_key, NULL, ca_key), *cert = make_cert("node", key, ca, ca_key);
    write_pem(files.ca, ca, NULL);
    write_pem(files.cert, cert, NULL);
    write_pem(files.key, NULL, key);
    X509_free(ca);
    X509_free(cert);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(key);
    return files;
}

/* A key that nobody can use without its password. */
static void encrypt_key(const files_t *files)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    FILE *file = fopen(files->key, "wb");
    assert_non_null(file);
    assert_int_equal(PEM_write_PrivateKey(file, key, EVP_aes_128_cbc(), (const unsigned char *)"secret", 6, NULL, NULL),
                     1);
    fclose(file);
    EVP_PKEY_free(key);
}

static void write_rsa_key(const files_t *files)
{
    EVP_PKEY *key = EVP_RSA_gen(2048);
    write_pem(files->key, NULL, key);
    EVP_PKEY_free(key);
}

static void remove_files(const files_t *files)
{
    unlink(files->ca);
    unlink(files->cert);
    unlink(files->key);
    rmdir(files->dir);
}

static cake_tls_config_t by_files(const files_t *files)
{
    return (cake_tls_config_t){.cert_file = files->cert, .key_file = files->key, .ca_file = files->ca};
}

static cake_tls_config_t by_key(const char *key)
{
    return (cake_tls_config_t){.cluster_key = key, .cluster_key_len = strlen(key)};
}

#define KEY       "a key of the cluster"
#define OTHER_KEY "another cluster's key"

/* ---- both sides ---- */

typedef struct {
    fixture_t fixture;
    pthread_mutex_t lock;
    cake_log_t log;
    char text[2000]; /* what the server's side has logged */
} tls_t;

static void write_log(void *ctx, cake_log_level_t level, const char *message)
{
    tls_t *tls = ctx;
    (void)level;
    pthread_mutex_lock(&tls->lock);
    strncat(tls->text, message, sizeof tls->text - 1 - strlen(tls->text));
    pthread_mutex_unlock(&tls->lock);
}

static bool server_says(tls_t *tls, const char *words)
{
    pthread_mutex_lock(&tls->lock);
    bool is_there = strstr(tls->text, words) != NULL;
    pthread_mutex_unlock(&tls->lock);
    return is_there;
}

/* It may see later than its peer that they do not fit, and not at all once it is closed. */
static void wait_until_server_says(tls_t *tls, const char *words)
{
    uint64_t until = cake__now_ns(tls->fixture.client_env) + REAL_PATIENCE_MS * CAKE_NS_PER_MS;
    while (!server_says(tls, words)) {
        if (cake__now_ns(tls->fixture.client_env) >= until)
            fail_msg("the server does not say \"%s\", but: %s", words, tls->text);
        usleep(1000);
    }
}

static void begin(tls_t *tls)
{
    memset(tls, 0, sizeof *tls);
    pthread_mutex_init(&tls->lock, NULL);
    tls->log = (cake_log_t){write_log, tls, CAKE_LOG_WARN};
}

static void start(tls_t *tls, const cake_tls_config_t *server_tls, const cake_tls_config_t *channel_tls)
{
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    cake_uv_options_t options = CAKE_UV_OPTIONS_INIT;
    begin(tls);
    options.log = &tls->log;
    assert_int_equal(cake_uv_env_new(&options, &tls->fixture.server_env), 0);
    assert_int_equal(cake_uv_env_new(NULL, &tls->fixture.client_env), 0);
    server.tls = server_tls;
    channel.tls = channel_tls;
    channel.backoff_min_ms = channel.backoff_max_ms = 1;
    fixture_listen(&tls->fixture, server, NULL);
    fixture_open(&tls->fixture, channel);
}

static int call(tls_t *tls, size_t len, char message[200])
{
    static char body[3 << 20];
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    cake_reply_t *reply = NULL;
    options.message = message;
    options.message_size = 200;
    message[0] = '\0';
    for (size_t i = 0; i < len; i++)
        body[i] = (char)(i * 7);
    int err = cake_channel_call(tls->fixture.channel, "/test/echo", body, len, &options, &reply);
    if (err == 0) {
        assert_int_equal(cake_reply_body(reply).len, len);
        if (len > 0)
            assert_memory_equal(cake_reply_body(reply).data, body, len);
    }
    cake_reply_free(reply);
    return err;
}

static void assert_works(tls_t *tls)
{
    static const size_t lens[] = {0, 1, 1024, 16384, 70000, 3 << 20};
    char message[200];
    for (size_t i = 0; i < CAKE_COUNT_OF(lens); i++)
        assert_int_equal(call(tls, lens[i], message), 0);
}

static void assert_refused(const cake_tls_config_t *server, const cake_tls_config_t *channel,
                           const char *words_of_client, const char *words_of_server)
{
    tls_t tls;
    char message[200];
    start(&tls, server, channel);
    assert_int_equal(call(&tls, 5, message), CAKE_ECONNECTION);
    if (strstr(message, words_of_client) == NULL)
        fail_msg("the client says: %s", message);
    wait_until_server_says(&tls, words_of_server);
    fixture_stop(&tls.fixture);
}

/* ---- tests ---- */

static void test_certificates_both_ways(void **state)
{
    files_t files = make_files();
    cake_tls_config_t config = by_files(&files);
    tls_t tls;
    config.peer_name = "node.example";
    start(&tls, &config, &config);
    assert_works(&tls);
    fixture_stop(&tls.fixture);
    assert_string_equal(tls.text, "");
    remove_files(&files);
}

static void test_one_key_and_no_certificate(void **state)
{
    cake_tls_config_t config = by_key(KEY);
    tls_t tls;
    start(&tls, &config, &config);
    assert_works(&tls);
    fixture_stop(&tls.fixture);
    assert_string_equal(tls.text, "");
}

/* While keys are changed a server takes each of its keys, and a client offers its first: (old), (old, new), (new,
 * old), (new). */
static void test_keys_that_are_being_changed(void **state)
{
    const cake_slice_t old = {KEY, sizeof KEY - 1}, next = {OTHER_KEY, sizeof OTHER_KEY - 1};
    const cake_tls_config_t steps[] = {by_key(KEY), by_key(KEY), by_key(OTHER_KEY), by_key(OTHER_KEY)};
    for (size_t server = 0; server < CAKE_COUNT_OF(steps); server++) {
        for (size_t client = 0; client < CAKE_COUNT_OF(steps); client++) {
            cake_tls_config_t theirs = steps[server], ours = steps[client];
            bool fits = strcmp(ours.cluster_key, theirs.cluster_key) == 0 || server == 1 || server == 2;
            tls_t tls;
            char message[200];
            theirs.other_keys = server == 1 ? &next : &old;
            theirs.other_key_count = server == 1 || server == 2;
            ours.other_keys = client == 1 ? &next : &old;
            ours.other_key_count = client == 1 || client == 2;
            start(&tls, &theirs, &ours);
            assert_int_equal(call(&tls, 10, message), fits ? 0 : CAKE_ECONNECTION);
            assert_true(fits == (strstr(message, "another cluster key") == NULL));
            fixture_stop(&tls.fixture);
        }
    }
}

static void test_plain_and_encrypted_refuse_each_other(void **state)
{
    cake_tls_config_t config = by_key(KEY);
    assert_refused(&config, NULL, "the peer encrypts by TLS", "the peer does not encrypt");
    assert_refused(NULL, &config, "the peer does not encrypt", "the peer encrypts by TLS");
}

static void test_strangers_are_refused(void **state)
{
    files_t files = make_files(), others = make_files();
    cake_tls_config_t ours = by_files(&files), theirs = by_files(&others), named = by_files(&files);
    cake_tls_config_t key = by_key(KEY), other_key = by_key(OTHER_KEY);
    named.peer_name = "other.example";
    cake_tls_config_t foreign = by_files(&others); /* trusts us, but is not of our authority */
    foreign.ca_file = files.ca;
    assert_refused(&ours, &theirs, "certificate is refused", "TLS: ");
    assert_refused(&ours, &foreign, "TLS: ", "certificate is refused");
    assert_refused(&ours, &named, "certificate is refused", "TLS: ");
    assert_refused(&key, &other_key, "another cluster key", "another cluster key");
    assert_refused(&key, &ours, "TLS: ", "the peer uses certificates");
    assert_refused(&ours, &key, "the peer uses certificates", "TLS: ");
    remove_files(&files);
    remove_files(&others);
}

/* A server of OpenSSL's own; address: 127.0.0.1 and its port. */
static FILE *start_openssl(const files_t *files, const char *options, char address[CAKE_ADDR_TEXT_MAX])
{
    char command[400], line[200] = "", *found;
    snprintf(command, sizeof command,
             "exec openssl s_server -accept 127.0.0.1:0 -naccept 1 -cert %s -key %s -tls1_3 -www %s 2>/dev/null",
             files->cert, files->key, options);
    FILE *server = popen(command, "r");
    assert_non_null(server);
    while ((found = strstr(line, "127.0.0.1:")) == NULL)
        assert_non_null(fgets(line, sizeof line, server)); /* ACCEPT 127.0.0.1:40123 */
    snprintf(address, CAKE_ADDR_TEXT_MAX, "%.*s", (int)strcspn(found, "\r\n "), found);
    return server;
}

static void assert_refuses_openssl(const cake_tls_config_t *tls, const files_t *files, const char *options,
                                   const char *says)
{
    cake_channel_config_t config = CAKE_CHANNEL_CONFIG_INIT;
    cake_call_options_t call_options = CAKE_CALL_OPTIONS_INIT;
    cake_channel_t *channel;
    char address[CAKE_ADDR_TEXT_MAX], message[200] = "";
    FILE *server = start_openssl(files, options, address);
    call_options.message = message;
    call_options.message_size = sizeof message;
    config.tls = tls;
    config.connect_timeout_ms = config.timeout_ms = REAL_PATIENCE_MS;
    assert_int_equal(cake_channel_open(address, &config, &channel), 0);
    assert_int_equal(cake_channel_call(channel, "/test/echo", "x", 1, &call_options, NULL), CAKE_ECONNECTION);
    if (strstr(message, says) == NULL)
        fail_msg("the client says: %s", message);
    cake_channel_close(channel);
    pclose(server);
}

/* One who stands between, and takes anybody: its certificate proves nothing to a client that goes by a key. */
static void test_a_certificate_is_no_key(void **state)
{
    files_t files = make_files();
    cake_tls_config_t key = by_key(KEY);
    assert_refuses_openssl(&key, &files, "-alpn h2", "the peer uses certificates");
    remove_files(&files);
}

/* What a command that calls the server by TLS prints; its %s are our certificate, our key, the authority, and the
 * port. */
static void assert_prints(tls_t *tls, const files_t *files, const char *format, const char *expected)
{
    char command[600], text[20000];
    const char *port = strrchr(cake_rpc_address(tls->fixture.server), ':') + 1;
    snprintf(command, sizeof command, format, files->cert, files->key, files->ca, port);
    FILE *client = popen(command, "r");
    assert_non_null(client);
    text[fread(text, 1, sizeof text - 1, client)] = '\0';
    pclose(client);
    if (strstr(text, expected) == NULL)
        fail_msg("%s\nprints %s", command, text);
}

#define S_CLIENT "openssl s_client -cert %s -key %s -CAfile %s -connect 127.0.0.1:%s </dev/null 2>&1 "

/* Who is one of ours by its certificate, and speaks another protocol over TLS, or an older TLS, is told so. */
static void test_only_http2_over_tls_1_3(void **state)
{
    files_t files = make_files();
    cake_tls_config_t config = by_files(&files);
    tls_t tls;
    start(&tls, &config, &config);
    assert_prints(&tls, &files, S_CLIENT "-alpn http/1.1,h2", "ALPN protocol: h2");
    assert_string_equal(tls.text, "");
    assert_prints(&tls, &files, S_CLIENT "-alpn http/1.1", "no application protocol");
    assert_prints(&tls, &files, S_CLIENT "-alpn h2 -tls1_2", "alert protocol version");
    fixture_stop(&tls.fixture);
    start(&tls, &config, &config);
    assert_prints(&tls, &files, S_CLIENT, "CONNECTED");
    wait_until_server_says(&tls, "the peer does not speak HTTP/2");
    fixture_stop(&tls.fixture);
    assert_refuses_openssl(&config, &files, "", "the peer does not speak HTTP/2");
    assert_refuses_openssl(&config, &files, "-alpn http/1.1", "no application protocol");
    remove_files(&files);
}

static void test_curl_calls_over_tls(void **state)
{
    files_t files = make_files();
    cake_tls_config_t config = by_files(&files);
    tls_t tls;
    if (system("curl --version 2>/dev/null | grep -q HTTP2") != 0)
        skip();
    start(&tls, &config, &config);
    assert_prints(
        &tls, &files,
        "curl -sS --cert %s --key %s --cacert %s --connect-to node.example:443:127.0.0.1:%s --data-binary hello "
        "-w ' by %%{http_version}' https://node.example/test/echo 2>&1",
        "hello by 2");
    fixture_stop(&tls.fixture);
    assert_string_equal(tls.text, "");
    remove_files(&files);
}

static void assert_no_use(const cake_tls_config_t *config, int err, const char *words, const char *path)
{
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    cake_uv_options_t options = CAKE_UV_OPTIONS_INIT;
    cake_channel_t *out;
    tls_t tls;
    begin(&tls);
    options.log = &tls.log;
    assert_int_equal(cake_uv_env_new(&options, &channel.env), 0);
    channel.tls = config;
    assert_int_equal(cake_channel_open("127.0.0.1:1", &channel, &out), err);
    assert_null(out);
    if (!server_says(&tls, words) || !server_says(&tls, path))
        fail_msg("instead of \"%s\" the log says: %s", words, tls.text);
    channel.env->ops->close(channel.env);
}

static void test_files_of_no_use_are_named(void **state)
{
    files_t files = make_files(), others = make_files();
    cake_tls_config_t config = by_files(&files);
    config.ca_file = "/nonexistent/ca.pem";
    assert_no_use(&config, CAKE_ENOTFOUND, "no such file", config.ca_file);
    config.ca_file = "/dev/null";
    assert_no_use(&config, CAKE_EPARSE, "authority's certificate in /dev/null: no cert", config.ca_file);
    config = by_files(&files);
    config.cert_file = files.dir;
    assert_no_use(&config, CAKE_EPARSE, "certificate in ", files.dir);
    config.cert_file = files.key;
    assert_no_use(&config, CAKE_EPARSE, "it holds none in PEM", files.key);
    config = by_files(&files);
    config.key_file = files.cert;
    assert_no_use(&config, CAKE_EPARSE, ": it holds none in PEM", files.cert);
    config.key_file = others.key;
    assert_no_use(&config, CAKE_EPARSE, "is not that of the certificate in ", others.key);
    write_rsa_key(&others);
    assert_no_use(&config, CAKE_EPARSE, "is not that of the certificate in ", others.key);
    encrypt_key(&others);
    assert_no_use(&config, CAKE_EPARSE, "it is encrypted", others.key);
    remove_files(&files);
    remove_files(&others);
}

static void test_reload_without_restart(void **state)
{
    files_t files = make_files(), newer = make_files();
    cake_tls_config_t config = by_files(&files), next = by_files(&newer), missing = by_files(&files);
    tls_t tls;
    char message[200];
    start(&tls, &config, &config);
    assert_works(&tls);
    missing.key_file = "/nonexistent/key.pem";
    assert_int_equal(cake_rpc_reload_tls(tls.fixture.server, &missing), CAKE_ENOTFOUND);
    assert_true(server_says(&tls, "cannot read /nonexistent/key.pem: no such file"));
    assert_true(server_says(&tls, "TLS stays as it was"));
    assert_int_equal(cake_rpc_reload_tls(tls.fixture.server, NULL), CAKE_EINVAL);
    assert_int_equal(cake_rpc_reload_tls(tls.fixture.server, &next), 0);
    assert_int_equal(call(&tls, 10, message), 0); /* what is open goes on */

    cake_channel_t *old = tls.fixture.channel;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    channel.tls = &config;
    channel.backoff_max_ms = 1;
    fixture_open(&tls.fixture, channel);
    assert_int_equal(call(&tls, 10, message), CAKE_ECONNECTION);
    assert_int_equal(cake_channel_reload_tls(tls.fixture.channel, &next), 0);
    assert_int_equal(call(&tls, 10, message), 0);
    cake_channel_close(old);
    fixture_stop(&tls.fixture);
    remove_files(&files);
    remove_files(&newer);
}

/* ---- memory that fails: the environment's, and OpenSSL's own ---- */

static _Atomic(int64_t) env_left, openssl_left; /* 0: all succeed; 1: the next fails */

static bool fails_now(_Atomic(int64_t) *left)
{
    return atomic_load(left) > 0 && atomic_fetch_sub(left, 1) == 1;
}

static void *failing_resize(void *ctx, void *block, size_t size)
{
    (void)ctx;
    if (size > 0 && fails_now(&env_left))
        return NULL;
    if (size > 0)
        return realloc(block, size);
    free(block);
    return NULL;
}

static void *openssl_malloc(size_t size, const char *file, int line)
{
    return fails_now(&openssl_left) ? NULL : malloc(size);
}

static void *openssl_realloc(void *block, size_t size, const char *file, int line)
{
    return fails_now(&openssl_left) ? NULL : realloc(block, size);
}

static void openssl_free(void *block, const char *file, int line)
{
    free(block);
}

/* A call may fail with its connection; it ends in any case, and the next ones find memory again. */
static void survive(_Atomic(int64_t) *left, int64_t nth)
{
    static const cake_alloc_t alloc = {failing_resize, NULL};
    cake_tls_config_t config = by_key(KEY);
    cake_rpc_server_config_t server = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    cake_uv_options_t options = CAKE_UV_OPTIONS_INIT;
    tls_t tls;
    char message[200];
    begin(&tls);
    options.alloc = &alloc;
    options.log = &tls.log;
    assert_int_equal(cake_uv_env_new(&options, &tls.fixture.server_env), 0);
    assert_int_equal(cake_uv_env_new(&options, &tls.fixture.client_env), 0);
    server.tls = channel.tls = &config;
    channel.backoff_min_ms = channel.backoff_max_ms = 1;
    fixture_listen(&tls.fixture, server, NULL);
    fixture_open(&tls.fixture, channel);
    atomic_store(left, nth);
    int err = call(&tls, 100000, message);
    if (err != 0 && err != CAKE_ENOMEM && err != CAKE_ECONNECTION && err != CAKE_EBUSY)
        fail_msg("allocation %d: %s, %s", (int)nth, cake_err_name(err), message);
    atomic_store(left, 0);
    for (int i = 0; i < 3 && err != 0; i++)
        err = call(&tls, 100000, message);
    assert_int_equal(err, 0);
    fixture_stop(&tls.fixture);
}

static int64_t count_of(const char *variable, int64_t otherwise)
{
    const char *text = getenv(variable);
    return text != NULL ? strtoll(text, NULL, 10) : otherwise;
}

static void test_each_allocation_may_fail(void **state)
{
    int64_t count = count_of("CAKE_ALLOCS", 60);
    for (int64_t nth = 1; nth <= count; nth++)
        survive(&env_left, nth);
}

static void test_allocations_of_openssl_may_fail(void **state)
{
    int64_t count = count_of("CAKE_OPENSSL_ALLOCS", 40), step = count_of("CAKE_OPENSSL_STEP", 37);
    for (int64_t i = 0; i < count; i++)
        survive(&openssl_left, 1 + i * step);
}

static void test_configurations_that_are_none(void **state)
{
    cake_tls_config_t config = by_key("too short");
    cake_channel_config_t channel = CAKE_CHANNEL_CONFIG_INIT;
    cake_channel_t *out;
    channel.tls = &config;
    assert_int_equal(cake_channel_open("127.0.0.1:1", &channel, &out), CAKE_EINVAL);
    const cake_slice_t others[CAKE_TLS_OTHER_KEYS_MAX + 1] = {{KEY, sizeof KEY - 1}, {"short", 5}};
    config = by_key(KEY);
    config.other_keys = others;
    config.other_key_count = 2;
    assert_int_equal(cake_channel_open("127.0.0.1:1", &channel, &out), CAKE_EINVAL);
    config.other_key_count = CAKE_COUNT_OF(others);
    assert_int_equal(cake_channel_open("127.0.0.1:1", &channel, &out), CAKE_EINVAL);
    config = (cake_tls_config_t){.cert_file = "x"};
    assert_int_equal(cake_channel_open("127.0.0.1:1", &channel, &out), CAKE_EINVAL);
    config = (cake_tls_config_t){.cert_file = "/dev/null", .key_file = "/dev/null", .ca_file = "/dev/null"};
    assert_int_equal(cake_channel_open("127.0.0.1:1", &channel, &out), CAKE_EPARSE);

    fixture_t fixture;
    fixture_envs(&fixture, true, 1);
    channel.env = fixture.client_env;
    assert_int_equal(cake_channel_open("127.0.0.1:1", &channel, &out), CAKE_EUNAVAILABLE);
    fixture.client_env->ops->close(fixture.client_env);
    fixture.server_env->ops->close(fixture.server_env);
    cake__world_free(fixture.world);
}

int main(void)
{
    if (CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free) != 1)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certificates_both_ways),
        cmocka_unit_test(test_one_key_and_no_certificate),
        cmocka_unit_test(test_keys_that_are_being_changed),
        cmocka_unit_test(test_plain_and_encrypted_refuse_each_other),
        cmocka_unit_test(test_strangers_are_refused),
        cmocka_unit_test(test_a_certificate_is_no_key),
        cmocka_unit_test(test_only_http2_over_tls_1_3),
        cmocka_unit_test(test_curl_calls_over_tls),
        cmocka_unit_test(test_files_of_no_use_are_named),
        cmocka_unit_test(test_reload_without_restart),
        cmocka_unit_test(test_each_allocation_may_fail),
        cmocka_unit_test(test_allocations_of_openssl_may_fail),
        cmocka_unit_test(test_configurations_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
