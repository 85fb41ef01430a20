/* TLS 1.3: the handshake by OpenSSL over memory, then records of ours (record.h), and the SSL is gone. A context is what streams of one owner
 * share; each stream holds it, so that its owner may exchange it for one with newer certificates at any time.
 *
 *   socket --feed--> [in] --> SSL, then records --read--> application       errors end the connection, with a reason in words
 *   socket <-output- [out] <- SSL, then records <-write-- application
 *
 * With a cluster key there are no certificates: the key, hashed, is an external pre-shared key (RFC 8446, 2.2), used together
 * with a Diffie-Hellman exchange, so that one who learns it later cannot read what was recorded. Its name on the wire is
 * another hash of it, so that a server can hold several while keys are changed. */
#include "uv/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>

#include "base/bytes.h"
#include "uv/loop.h"
#include "uv/record.h"

#define PSK_BYTES    32u
#define PSK_NAME_LEN 24u /* "datacake" and 16 hex digits of another hash of the key */
#define PSKS_MAX     (1u + CAKE_TLS_OTHER_KEYS_MAX)
#define REASON_MAX   200u

static const unsigned char ALPN[] = {2, 'h', '2'};

struct cake_tls {
    cake_alloc_t alloc;
    atomic_uint refs;
    SSL_CTX *server, *client;
    BIO_METHOD *method; /* between SSL and the bytes of a cake__tls_t, without a copy of ours */
    struct {
        uint8_t key[PSK_BYTES];
        char name[PSK_NAME_LEN + 1];
    } psks[PSKS_MAX]; /* the first is offered, all are taken */
    size_t psk_count; /* 0: certificates */
};

/* SSL takes no more of the input than the records of the handshake: what follows them stays. */
struct cake__tls {
    cake_tls_t *context;
    cake__tls_pool_t *pool;
    SSL *ssl;                   /* NULL once the handshake is done */
    uint8_t *in, *out;          /* the pool's */
    size_t in_at, in_end;       /* not taken yet */
    size_t plain_at, plain_len; /* of in: a record that was decrypted there, and is larger than what was asked for */
    size_t out_len;
    cake__records_t records;
    uint8_t secrets[2][CAKE__RECORD_SECRET]; /* the client's and the server's, at the end of the handshake */
    uint8_t secrets_seen;                    /* bits */
    int read_err;                            /* what the next read gives */
    bool is_server, has_begun;
    char *reason;
};

/* ---- buffers ---- */

uint8_t *cake__tls_buffer(cake__tls_pool_t *pool)
{
    if (pool->spare_count > 0)
        return pool->spare[--pool->spare_count];
    return cake__malloc(pool->alloc, CAKE__TLS_BUFFER_BYTES);
}

void cake__tls_give(cake__tls_pool_t *pool, uint8_t *buffer)
{
    if (buffer != NULL && pool->spare_count < CAKE__TLS_SPARE_MAX)
        pool->spare[pool->spare_count++] = buffer;
    else
        cake__free(pool->alloc, buffer);
}

void cake__tls_pool_free(cake__tls_pool_t *pool)
{
    while (pool->spare_count > 0)
        cake__free(pool->alloc, pool->spare[--pool->spare_count]);
}

/* ---- the bytes of the socket, as OpenSSL has them ---- */

static int bio_read(BIO *bio, char *data, int len)
{
    cake__tls_t *tls = BIO_get_data(bio);
    size_t step = cake__min_u64(tls->in_end - tls->in_at, len > 0 ? (size_t)len : 0);
    BIO_clear_retry_flags(bio);
    if (step == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(data, tls->in + tls->in_at, step);
    tls->in_at += step;
    return (int)step;
}

/* Room for len bytes more; they count once out_len says so. NULL: none. */
static uint8_t *output_room(cake__tls_t *tls, size_t len)
{
    if (tls->out == NULL)
        tls->out = cake__tls_buffer(tls->pool);
    return tls->out == NULL || len > CAKE__TLS_BUFFER_BYTES - tls->out_len ? NULL : tls->out + tls->out_len;
}

static bool put_output(cake__tls_t *tls, const void *data, size_t len)
{
    uint8_t *to = output_room(tls, len);
    if (to == NULL)
        return false;
    memcpy(to, data, len);
    tls->out_len += len;
    return true;
}

static int bio_write(BIO *bio, const char *data, int len)
{
    BIO_clear_retry_flags(bio);
    return len > 0 && put_output(BIO_get_data(bio), data, (size_t)len) ? len : -1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *make_method(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK | 120, "datacake");
    if (method != NULL && BIO_meth_set_read(method, bio_read) == 1 && BIO_meth_set_write(method, bio_write) == 1 &&
        BIO_meth_set_ctrl(method, bio_ctrl) == 1)
        return method;
    BIO_meth_free(method);
    return NULL;
}

/* ---- contexts ---- */

static SSL_SESSION *psk_session(const cake_tls_t *context, size_t index, SSL *ssl)
{
    static const unsigned char aes_128_gcm_sha256[] = {0x13, 0x01};
    const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, aes_128_gcm_sha256);
    SSL_SESSION *session = SSL_SESSION_new();
    if (session != NULL && cipher != NULL &&
        SSL_SESSION_set1_master_key(session, context->psks[index].key, PSK_BYTES) == 1 &&
        SSL_SESSION_set_cipher(session, cipher) == 1 && SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1)
        return session;
    SSL_SESSION_free(session);
    return NULL;
}

static int use_psk(SSL *ssl, const EVP_MD *digest, const unsigned char **id, size_t *id_len, SSL_SESSION **session)
{
    const cake_tls_t *context = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    (void)digest;
    *id = (const unsigned char *)context->psks[0].name;
    *id_len = PSK_NAME_LEN;
    *session = psk_session(context, 0, ssl);
    return *session != NULL;
}

/* A name that is none of ours is tried with our first key all the same: it does not verify, and both sides get to know that
 * their keys differ, instead of that a certificate is missing. */
static int find_psk(SSL *ssl, const unsigned char *id, size_t id_len, SSL_SESSION **session)
{
    const cake_tls_t *context = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    size_t found = 0;
    for (size_t i = 0; i < context->psk_count && id_len == PSK_NAME_LEN; i++) {
        if (memcmp(id, context->psks[i].name, PSK_NAME_LEN) == 0)
            found = i;
    }
    *session = psk_session(context, found, ssl);
    return *session != NULL;
}

static int select_h2(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                     unsigned in_len, void *arg)
{
    unsigned char *found;
    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto(&found, out_len, ALPN, sizeof ALPN, in, in_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = found;
    return SSL_TLSEXT_ERR_OK;
}

static uint8_t digit_of(char hex)
{
    return (uint8_t)(hex <= '9' ? hex - '0' : (hex | 0x20) - 'a' + 10);
}

/* The one way in which OpenSSL gives the secrets that records are encrypted by: a label, the client's random bytes, the secret. */
static void take_secret(const SSL *ssl, const char *line)
{
    static const char *const labels[] = {"CLIENT_TRAFFIC_SECRET_0 ", "SERVER_TRAFFIC_SECRET_0 "};
    cake__tls_t *tls = SSL_get_app_data(ssl);
    for (size_t i = 0; i < CAKE_COUNT_OF(labels); i++) {
        const char *hex = strrchr(line, ' ');
        if (strncmp(line, labels[i], strlen(labels[i])) != 0 || hex == NULL)
            continue;
        for (size_t at = 0; at < CAKE__RECORD_SECRET && hex[1] != '\0' && hex[2] != '\0'; at++, hex += 2)
            tls->secrets[i][at] = (uint8_t)(digit_of(hex[1]) << 4 | digit_of(hex[2]));
        tls->secrets_seen |= (uint8_t)(1u << i);
    }
}

static int load_files(SSL_CTX *ctx, const cake_tls_config_t *config, bool is_server)
{
    STACK_OF(X509_NAME) *names = NULL;
    if (SSL_CTX_use_certificate_chain_file(ctx, config->cert_file) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, config->key_file, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(ctx) != 1 || SSL_CTX_load_verify_locations(ctx, config->ca_file, NULL) != 1)
        return CAKE_EPARSE;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    if (is_server && (names = SSL_load_client_CA_file(config->ca_file)) == NULL)
        return CAKE_EPARSE;
    if (names != NULL)
        SSL_CTX_set_client_CA_list(ctx, names);
    if (!is_server && config->peer_name != NULL &&
        X509_VERIFY_PARAM_set1_host(SSL_CTX_get0_param(ctx), config->peer_name, 0) != 1)
        return CAKE_ENOMEM;
    return 0;
}

static int make_ctx(cake_tls_t *context, const cake_tls_config_t *config, bool is_server, SSL_CTX **out)
{
    SSL_CTX *ctx = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
    *out = ctx;
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(
            ctx, context->psk_count > 0
                     ? "TLS_AES_128_GCM_SHA256"
                     : "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256") != 1)
        return CAKE_ENOMEM;
    SSL_CTX_set_app_data(ctx, context);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_num_tickets(ctx, 0); /* a key that was exchanged must not live on in tickets */
    SSL_CTX_set_keylog_callback(ctx, take_secret);
    if (is_server)
        SSL_CTX_set_alpn_select_cb(ctx, select_h2, NULL);
    else if (SSL_CTX_set_alpn_protos(ctx, ALPN, sizeof ALPN) != 0)
        return CAKE_ENOMEM;
    if (context->psk_count == 0)
        return load_files(ctx, config, is_server);
    if (is_server) {
        SSL_CTX_set_psk_find_session_callback(ctx, find_psk);
    } else {
        SSL_CTX_set_psk_use_session_callback(ctx, use_psk);
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL); /* by no authority: who comes with a certificate is refused */
    }
    return 0;
}

static bool hash_key(const char *label, cake_slice_t key, uint8_t out[PSK_BYTES])
{
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    bool is_done = hash != NULL && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1 &&
                   EVP_DigestUpdate(hash, label, strlen(label)) == 1 &&
                   EVP_DigestUpdate(hash, key.data, key.len) == 1 && EVP_DigestFinal_ex(hash, out, NULL) == 1;
    EVP_MD_CTX_free(hash);
    return is_done;
}

static int add_psk(cake_tls_t *context, cake_slice_t key)
{
    uint8_t name[PSK_BYTES];
    size_t at = context->psk_count++;
    CAKE_ASSERT(at < PSKS_MAX);
    if (!hash_key("datacake cluster key 1", key, context->psks[at].key) ||
        !hash_key("datacake cluster key name 1", key, name))
        return CAKE_ENOMEM;
    int len = snprintf(context->psks[at].name, sizeof context->psks[at].name, "datacake");
    for (size_t i = 0; len < (int)PSK_NAME_LEN; i++)
        len += snprintf(context->psks[at].name + len, 3, "%02x", name[i]);
    return 0;
}

static int add_psks(cake_tls_t *context, const cake_tls_config_t *config)
{
    int err =
        config->cluster_key == NULL ? 0 : add_psk(context, cake__slice(config->cluster_key, config->cluster_key_len));
    for (size_t i = 0; err == 0 && i < config->other_key_count; i++)
        err = add_psk(context, config->other_keys[i]);
    return err;
}

static bool can_be_read(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file != NULL)
        fclose(file);
    return file != NULL;
}

static bool are_keys(const cake_tls_config_t *config)
{
    bool are_sound = config->cluster_key_len >= CAKE__TLS_KEY_MIN && config->other_key_count <= CAKE_TLS_OTHER_KEYS_MAX;
    for (size_t i = 0; are_sound && i < config->other_key_count; i++)
        are_sound = config->other_keys[i].len >= CAKE__TLS_KEY_MIN;
    return are_sound;
}

static int check_config(const cake_tls_config_t *config)
{
    bool has_files = config->cert_file != NULL && config->key_file != NULL && config->ca_file != NULL;
    bool has_any = config->cert_file != NULL || config->key_file != NULL || config->ca_file != NULL;
    if (config->cluster_key != NULL)
        return has_any || !are_keys(config) ? CAKE_EINVAL : 0;
    if (!has_files || config->other_key_count > 0)
        return CAKE_EINVAL;
    bool are_there = can_be_read(config->cert_file) && can_be_read(config->key_file) && can_be_read(config->ca_file);
    return are_there ? 0 : CAKE_ENOTFOUND;
}

int cake__tls_open(cake_env_t *env, const cake_tls_config_t *config, cake_tls_t **out)
{
    *out = NULL;
    int err = check_config(config);
    if (err != 0)
        return err;
    cake_tls_t *context = cake__calloc(&env->alloc, 1, sizeof *context);
    if (context == NULL)
        return CAKE_ENOMEM;
    context->alloc = env->alloc;
    atomic_init(&context->refs, 1);
    err = add_psks(context, config);
    if (err == 0 && (context->method = make_method()) == NULL)
        err = CAKE_ENOMEM;
    if (err == 0)
        err = make_ctx(context, config, true, &context->server);
    if (err == 0)
        err = make_ctx(context, config, false, &context->client);
    if (err != 0) {
        char text[120] = "";
        ERR_error_string_n(ERR_peek_last_error(), text, sizeof text);
        cake__log(&env->log, CAKE_LOG_ERROR, "TLS cannot be set up: %s", text);
        cake__tls_close(context);
    } else {
        *out = context;
    }
    ERR_clear_error();
    return err;
}

void cake__tls_close(cake_tls_t *context)
{
    if (context == NULL || atomic_fetch_sub(&context->refs, 1) > 1)
        return;
    SSL_CTX_free(context->server);
    SSL_CTX_free(context->client);
    BIO_meth_free(context->method);
    OPENSSL_cleanse(context->psks, sizeof context->psks);
    cake_alloc_t alloc = context->alloc;
    cake__free(&alloc, context);
}

/* ---- create and destroy ---- */

int cake__tls_new(cake_tls_t *context, bool is_server, cake__tls_pool_t *pool, cake__tls_t **out)
{
    cake__tls_t *tls = cake__calloc(&context->alloc, 1, sizeof *tls);
    *out = NULL;
    if (tls == NULL)
        return CAKE_ENOMEM;
    tls->ssl = SSL_new(is_server ? context->server : context->client);
    BIO *bio = BIO_new(context->method);
    if (tls->ssl == NULL || bio == NULL) {
        SSL_free(tls->ssl);
        BIO_free(bio);
        cake__free(&context->alloc, tls);
        return CAKE_ENOMEM;
    }
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio);
    SSL_set_app_data(tls->ssl, tls);
    if (is_server)
        SSL_set_accept_state(tls->ssl);
    else
        SSL_set_connect_state(tls->ssl);
    tls->is_server = is_server;
    tls->pool = pool;
    tls->context = context;
    atomic_fetch_add(&context->refs, 1);
    *out = tls;
    return 0;
}

void cake__tls_free(cake__tls_t *tls)
{
    if (tls == NULL)
        return;
    cake_tls_t *context = tls->context;
    SSL_free(tls->ssl);
    cake__records_end(&tls->records);
    OPENSSL_cleanse(tls->secrets, sizeof tls->secrets);
    cake__tls_give(tls->pool, tls->in);
    cake__tls_give(tls->pool, tls->out);
    cake__free(&context->alloc, tls->reason);
    cake__free(&context->alloc, tls);
    cake__tls_close(context);
}

/* ---- failures ---- */

void cake__tls_fail(cake__tls_t *tls, const char *reason)
{
    if (tls->reason == NULL)
        tls->reason = cake__strdup(&tls->context->alloc, reason); /* without memory: none */
}

const char *cake__tls_reason(const cake__tls_t *tls)
{
    return tls->reason;
}

#define OTHER_KIND_THERE "TLS: the peer uses certificates, and this side a cluster key"
#define OTHER_KIND_HERE  "TLS: the peer shows no certificate (a cluster key, perhaps), and this side wants one"

/* What OpenSSL's last error means, where that is not plain; NULL: it is. */
static const char *meaning_of(const cake__tls_t *tls, int reason)
{
    if (tls->context->psk_count == 0)
        return reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE ? OTHER_KIND_HERE : NULL;
    switch (reason) {
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
    case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM: /* it knows no key: there is no certificate that it could get instead */
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
        return OTHER_KIND_THERE;
    case SSL_R_BINDER_DOES_NOT_VERIFY:
    case SSL_R_SSLV3_ALERT_ILLEGAL_PARAMETER:
    case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
        return "TLS: the peer has another cluster key";
    default:
        return NULL;
    }
}

/* In words: a reason of OpenSSL's, with what it means where that is not plain. */
static void note_reason(cake__tls_t *tls, unsigned long code)
{
    const char *what = code != 0 ? ERR_reason_error_string(code) : "the connection was cut";
    long verified = tls->ssl != NULL ? SSL_get_verify_result(tls->ssl) : X509_V_OK;
    char text[REASON_MAX];
    const char *meaning = meaning_of(tls, ERR_GET_REASON(code));
    if (tls->context->psk_count == 0 && verified != X509_V_OK)
        snprintf(text, sizeof text, "TLS: the peer's certificate is refused: %s",
                 X509_verify_cert_error_string(verified));
    else if (meaning != NULL)
        snprintf(text, sizeof text, "%s", meaning);
    else
        snprintf(text, sizeof text, "TLS: %s", what != NULL ? what : "unknown error");
    cake__tls_fail(tls, text);
}

static int note_failure(cake__tls_t *tls)
{
    note_reason(tls, ERR_peek_error());
    ERR_clear_error();
    return CAKE_EUNAUTHENTICATED;
}

/* ---- operate ---- */

/* A peer without TLS is told by an alert, which begins as no HTTP/2 frame does, and finds the reason in that. */
static int check_first_byte(cake__tls_t *tls, uint8_t first)
{
    static const uint8_t alert[] = {0x15, 0x03, 0x03, 0, 2, 2, 70}; /* fatal, protocol_version */
    tls->has_begun = true;
    if (first == 0x16 || first == 0x15)
        return 0;
    cake__tls_fail(tls, "the peer does not encrypt, and this side wants TLS");
    (void)put_output(tls, alert, sizeof alert);
    return CAKE_EUNAUTHENTICATED;
}

uint8_t *cake__tls_room(cake__tls_t *tls, size_t *size)
{
    CAKE_ASSERT(tls->plain_len == 0);
    if (tls->in == NULL)
        tls->in = cake__tls_buffer(tls->pool);
    *size = 0;
    if (tls->in == NULL)
        return NULL;
    size_t left = tls->in_end - tls->in_at; /* of a record that is not whole */
    memmove(tls->in, tls->in + tls->in_at, left);
    tls->in_at = 0;
    tls->in_end = left;
    *size = CAKE__TLS_BUFFER_BYTES - left;
    return tls->in + left;
}

void cake__tls_rest(cake__tls_t *tls)
{
    if (tls->in_at < tls->in_end || tls->plain_len > 0)
        return;
    cake__tls_give(tls->pool, tls->in);
    tls->in = NULL;
    tls->in_at = tls->in_end = 0;
}

void cake__tls_drop(cake__tls_t *tls)
{
    tls->in_at = tls->in_end;
    tls->plain_len = 0;
    cake__tls_rest(tls);
}

int cake__tls_feed(cake__tls_t *tls, size_t len)
{
    CAKE_ASSERT(len > 0 && len <= CAKE__TLS_BUFFER_BYTES - tls->in_end);
    tls->in_end += len;
    return tls->has_begun ? 0 : check_first_byte(tls, tls->in[0]);
}

/* From here on records are ours, and all that was the handshake's goes. */
static int start_records(cake__tls_t *tls)
{
    int err = CAKE_ENOMEM;
    if (tls->secrets_seen == 3)
        err = cake__records_start(&tls->records, SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(tls->ssl)),
                                  tls->secrets[tls->is_server ? 0 : 1], tls->secrets[tls->is_server ? 1 : 0]);
    OPENSSL_cleanse(tls->secrets, sizeof tls->secrets);
    if (err != 0)
        return err;
    SSL_free(tls->ssl);
    tls->ssl = NULL;
    return 0;
}

int cake__tls_handshake(cake__tls_t *tls)
{
    const unsigned char *protocol;
    unsigned protocol_len;
    ERR_clear_error();
    int result = SSL_do_handshake(tls->ssl);
    if (result == 1) {
        /* A peer that answered without the key has shown nothing that proves who it is. */
        if (tls->context->psk_count > 0 && SSL_session_reused(tls->ssl) != 1) {
            cake__tls_fail(tls, OTHER_KIND_THERE);
            return CAKE_EUNAUTHENTICATED;
        }
        SSL_get0_alpn_selected(tls->ssl, &protocol, &protocol_len);
        if (protocol_len == 2 && memcmp(protocol, "h2", 2) == 0)
            return start_records(tls);
        cake__tls_fail(tls, "TLS: the peer does not speak HTTP/2");
        return CAKE_EUNAUTHENTICATED;
    }
    return SSL_get_error(tls->ssl, result) == SSL_ERROR_WANT_READ ? CAKE_EBUSY : note_failure(tls);
}

bool cake__tls_has_input(const cake__tls_t *tls)
{
    return tls->read_err != 0 || tls->plain_len > 0 ||
           (tls->in != NULL && cake__record_len(tls->in + tls->in_at, tls->in_end - tls->in_at) > 0);
}

static int put_update(cake__tls_t *tls)
{
    uint8_t *to = output_room(tls, CAKE__RECORD_UPDATE);
    tls->out_len += to != NULL ? CAKE__RECORD_UPDATE : 0;
    return to != NULL ? cake__records_update(&tls->records, to) : CAKE_ENOMEM;
}

static int put_record(cake__tls_t *tls, uint8_t type, const cake_slice_t *parts, size_t len)
{
    size_t size = CAKE__RECORD_HEAD + len + CAKE__RECORD_MORE;
    int err = cake__records_wants_update(&tls->records) ? put_update(tls) : 0;
    uint8_t *to = err == 0 ? output_room(tls, size) : NULL;
    if (to == NULL)
        return CAKE_ENOMEM;
    tls->out_len += size;
    return cake__records_seal(&tls->records, type, parts, len, to);
}

static void put_alert(cake__tls_t *tls, uint8_t alert)
{
    const uint8_t message[] = {alert == CAKE__ALERT_CLOSE_NOTIFY ? 1 : 2, alert};
    const cake_slice_t part = cake__slice(message, sizeof message);
    (void)put_record(tls, CAKE__RECORD_ALERT, &part, sizeof message); /* without memory: a peer that has to guess */
}

/* A record that cannot be read. */
static int read_failed(cake__tls_t *tls)
{
    int alert = tls->records.peer_alert;
    ERR_clear_error();
    if (alert >= 0) {
        note_reason(tls, ERR_PACK(ERR_LIB_SSL, 0, SSL_AD_REASON_OFFSET + alert));
    } else {
        cake__tls_fail(tls, tls->records.alert == CAKE__ALERT_BAD_RECORD_MAC
                                ? "TLS: a record was altered on its way"
                                : "TLS: the peer sends what is no TLS 1.3");
        put_alert(tls, tls->records.alert);
    }
    return CAKE_EUNAUTHENTICATED;
}

static size_t take_plain(cake__tls_t *tls, uint8_t *to, size_t size)
{
    size_t step = cake__min_u64(size, tls->plain_len);
    cake__copy(to, tls->in + tls->plain_at, step);
    tls->plain_at += step;
    tls->plain_len -= step;
    return step;
}

/* The next record: decrypted to where the application wants it, when that has room for all of it, else where it lies. */
static size_t read_record(cake__tls_t *tls, size_t len, uint8_t *to, size_t size)
{
    uint8_t *record = tls->in + tls->in_at;
    bool is_fit = len <= size + CAKE__RECORD_HEAD + CAKE__RECORD_MORE;
    tls->in_at += len;
    intptr_t got = cake__records_open(&tls->records, record, len, is_fit ? to : record + CAKE__RECORD_HEAD);
    if (got == CAKE_ECLOSED)
        tls->read_err = CAKE_ECLOSED;
    else if (got < 0)
        tls->read_err = read_failed(tls);
    else if (is_fit)
        return (size_t)got;
    if (got <= 0)
        return 0;
    tls->plain_at = (size_t)(record + CAKE__RECORD_HEAD - tls->in);
    tls->plain_len = (size_t)got;
    return take_plain(tls, to, size);
}

/* Records are handed over together, as far as there is room. */
intptr_t cake__tls_read(cake__tls_t *tls, void *data, size_t size)
{
    uint8_t *to = data;
    size_t done = take_plain(tls, to, size);
    while (done < size && tls->read_err == 0) {
        size_t len = tls->in != NULL ? cake__record_len(tls->in + tls->in_at, tls->in_end - tls->in_at) : 0;
        if (len == 0)
            break;
        done += read_record(tls, len, to + done, size - done);
    }
    if (tls->read_err == 0 && cake__records_wants_update(&tls->records) && put_update(tls) != 0)
        tls->read_err = CAKE_ENOMEM;
    if (done > 0)
        return (intptr_t)done;
    int err = tls->read_err;
    tls->read_err = 0;
    return err == 0 ? CAKE_EBUSY : err == CAKE_ECLOSED ? 0 : err;
}

intptr_t cake__tls_write(cake__tls_t *tls, const cake_slice_t *parts, size_t count)
{
    size_t len = 0;
    for (size_t i = 0; i < count && len < CAKE__RECORD_MAX; i++)
        len += cake__min_u64(parts[i].len, CAKE__RECORD_MAX - len);
    int err = put_record(tls, CAKE__RECORD_DATA, parts, len);
    return err != 0 ? err : (intptr_t)len;
}

void cake__tls_shut(cake__tls_t *tls)
{
    put_alert(tls, CAKE__ALERT_CLOSE_NOTIFY);
}

cake_slice_t cake__tls_output(const cake__tls_t *tls)
{
    return cake__slice(tls->out, tls->out_len);
}

void cake__tls_sent(cake__tls_t *tls)
{
    cake__tls_give(tls->pool, cake__tls_take(tls));
}

uint8_t *cake__tls_take(cake__tls_t *tls)
{
    uint8_t *buffer = tls->out;
    tls->out = NULL;
    tls->out_len = 0;
    return buffer;
}
