/* TLS 1.3 by OpenSSL over memory. A context is what streams of one owner share; each stream holds it, so that its owner
 * may exchange it for one with newer certificates at any time.
 *
 *   socket --feed--> [in] --> SSL --read--> application     SSL's own errors end the connection, with a reason in words
 *   socket <-output- [out] <- SSL <-write-- application
 *
 * With a cluster key there are no certificates: the key, hashed, is an external pre-shared key (RFC 8446, 2.2), used
 * together with a Diffie-Hellman exchange, so that one who learns it later cannot read what was recorded. Its name
 * on the wire is another hash of it, so that a server can hold several while keys are changed. */
#include "uv/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdio.h>

#include "base/bytes.h"
#include "uv/loop.h"

#define PSK_BYTES    32u
#define PSK_NAME_LEN 24u /* "datacake" and 16 hex digits of another hash of the key */
#define PSKS_MAX     (1u + CAKE_TLS_OTHER_KEYS_MAX)
#define REASON_MAX   200u
#define HEAD_BYTES   5u  /* of a record */
#define FIRST_PIECE  64u /* see cake__copies_slowly */

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

struct cake__tls {
    cake_tls_t *context;
    cake__tls_pool_t *pool;
    SSL *ssl;
    const uint8_t *in; /* what SSL has not taken: in the feeder's buffer, or in kept */
    size_t in_len;
    uint8_t *kept, *out; /* the pool's */
    size_t out_len;
    const uint8_t *record_in,
        *record_out; /* where SSL had the payload of its latest records: mostly the next ones' place too */
    int read_err;    /* what the next read gives */
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
    size_t step = cake__min_u64(tls->in_len, len > 0 ? (size_t)len : 0);
    BIO_clear_retry_flags(bio);
    if (step == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    if (len == HEAD_BYTES)
        tls->record_in = (const uint8_t *)data + HEAD_BYTES;
    cake__copy(data, tls->in, step);
    tls->in += step;
    tls->in_len -= step;
    return (int)step;
}

static bool put_output(cake__tls_t *tls, const void *data, size_t len)
{
    if (tls->out == NULL)
        tls->out = cake__tls_buffer(tls->pool);
    if (tls->out == NULL || len > CAKE__TLS_BUFFER_BYTES - tls->out_len)
        return false;
    cake__copy(tls->out + tls->out_len, data, len);
    tls->out_len += len;
    return true;
}

static int bio_write(BIO *bio, const char *data, int len)
{
    cake__tls_t *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (len <= 0 || !put_output(tls, data, (size_t)len))
        return -1;
    tls->record_out = (const uint8_t *)data + HEAD_BYTES;
    return len;
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

/* A name that is none of ours is tried with our first key all the same: it does not verify, and both sides get to
 * know that their keys differ, instead of that a certificate is missing. */
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

/* What OpenSSL's first error since they were cleared is about, in words for whoever made the file. */
static const char *file_failure(unsigned long code)
{
    const char *text = ERR_reason_error_string(code);
    if (ERR_SYSTEM_ERROR(code))
        return uv_strerror(uv_translate_sys_error(ERR_GET_REASON(code)));
    if ((ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE) ||
        (ERR_GET_LIB(code) == ERR_LIB_OSSL_DECODER && ERR_GET_REASON(code) == ERR_R_UNSUPPORTED))
        return "it holds none in PEM";
    if (ERR_GET_REASON(code) == ERR_R_INTERRUPTED_OR_CANCELLED) /* by no_password */
        return "it is encrypted, and there is nobody to ask for its password";
    return text != NULL ? text : "unknown error";
}

/* The code alone would not say which of the files it is, and why. */
static int refuse_file(const cake_env_t *env, const char *what, const char *path)
{
    unsigned long code = ERR_peek_error();
    cake__log(&env->log, CAKE_LOG_ERROR, "TLS: cannot use the %s in %s: %s", what, path, file_failure(code));
    return ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE ? CAKE_ENOMEM : CAKE_EPARSE;
}

static int refuse_pair(const cake_env_t *env, const cake_tls_config_t *config)
{
    cake__log(&env->log, CAKE_LOG_ERROR, "TLS: the key in %s is not that of the certificate in %s", config->key_file,
              config->cert_file);
    return CAKE_EPARSE;
}

/* OpenSSL would ask at the terminal, and wait. */
static int no_password(char *out, int size, int is_for_writing, void *arg)
{
    (void)out;
    (void)size;
    (void)is_for_writing;
    (void)arg;
    return -1;
}

static int load_key(const cake_env_t *env, SSL_CTX *ctx, const cake_tls_config_t *config)
{
    SSL_CTX_set_default_passwd_cb(ctx, no_password);
    if (SSL_CTX_use_PrivateKey_file(ctx, config->key_file, SSL_FILETYPE_PEM) != 1) {
        unsigned long code = ERR_peek_error();
        bool is_others = ERR_GET_LIB(code) == ERR_LIB_X509 && ERR_GET_REASON(code) == X509_R_KEY_VALUES_MISMATCH;
        return is_others ? refuse_pair(env, config) : refuse_file(env, "key", config->key_file);
    }
    return SSL_CTX_check_private_key(ctx) == 1 ? 0 : refuse_pair(env, config);
}

static int load_files(const cake_env_t *env, SSL_CTX *ctx, const cake_tls_config_t *config, bool is_server)
{
    STACK_OF(X509_NAME) *names = NULL;
    if (SSL_CTX_use_certificate_chain_file(ctx, config->cert_file) != 1)
        return refuse_file(env, "certificate", config->cert_file);
    int err = load_key(env, ctx, config);
    if (err != 0)
        return err;
    if (SSL_CTX_load_verify_locations(ctx, config->ca_file, NULL) != 1 ||
        (is_server && (names = SSL_load_client_CA_file(config->ca_file)) == NULL))
        return refuse_file(env, "authority's certificate", config->ca_file);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    if (names != NULL)
        SSL_CTX_set_client_CA_list(ctx, names);
    if (!is_server && config->peer_name != NULL &&
        X509_VERIFY_PARAM_set1_host(SSL_CTX_get0_param(ctx), config->peer_name, 0) != 1)
        return CAKE_ENOMEM;
    return 0;
}

static int make_ctx(const cake_env_t *env, cake_tls_t *context, const cake_tls_config_t *config, bool is_server,
                    SSL_CTX **out)
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
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    if (is_server)
        SSL_CTX_set_alpn_select_cb(ctx, select_h2, NULL);
    else if (SSL_CTX_set_alpn_protos(ctx, ALPN, sizeof ALPN) != 0)
        return CAKE_ENOMEM;
    if (context->psk_count == 0)
        return load_files(env, ctx, config, is_server);
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

static bool can_be_read(const cake_env_t *env, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file != NULL)
        fclose(file);
    else
        cake__log(&env->log, CAKE_LOG_ERROR, "TLS: cannot read %s: %s", path,
                  uv_strerror(uv_translate_sys_error(errno)));
    return file != NULL;
}

static bool are_keys(const cake_tls_config_t *config)
{
    bool are_sound = config->cluster_key_len >= CAKE__TLS_KEY_MIN && config->other_key_count <= CAKE_TLS_OTHER_KEYS_MAX;
    for (size_t i = 0; are_sound && i < config->other_key_count; i++)
        are_sound = config->other_keys[i].len >= CAKE__TLS_KEY_MIN;
    return are_sound;
}

static int check_config(const cake_env_t *env, const cake_tls_config_t *config)
{
    bool has_files = config->cert_file != NULL && config->key_file != NULL && config->ca_file != NULL;
    bool has_any = config->cert_file != NULL || config->key_file != NULL || config->ca_file != NULL;
    if (config->cluster_key != NULL)
        return has_any || !are_keys(config) ? CAKE_EINVAL : 0;
    if (!has_files || config->other_key_count > 0)
        return CAKE_EINVAL;
    bool are_there =
        can_be_read(env, config->cert_file) && can_be_read(env, config->key_file) && can_be_read(env, config->ca_file);
    return are_there ? 0 : CAKE_ENOTFOUND;
}

int cake__tls_open(cake_env_t *env, const cake_tls_config_t *config, cake_tls_t **out)
{
    *out = NULL;
    ERR_clear_error();
    int err = check_config(env, config);
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
        err = make_ctx(env, context, config, true, &context->server);
    if (err == 0)
        err = make_ctx(env, context, config, false, &context->client);
    if (err == CAKE_ENOMEM) {
        char text[120] = "";
        ERR_error_string_n(ERR_peek_last_error(), text, sizeof text);
        cake__log(&env->log, CAKE_LOG_ERROR, "TLS cannot be set up: %s", text);
    }
    if (err == 0)
        *out = context;
    else
        cake__tls_close(context);
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
    cake__tls_give(tls->pool, tls->kept);
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

/* The words of OpenSSL for the last error, with what they mean where that is not plain. */
static int note_failure(cake__tls_t *tls)
{
    unsigned long code = ERR_peek_error();
    const char *what = code != 0 ? ERR_reason_error_string(code) : "the connection was cut";
    long verified = SSL_get_verify_result(tls->ssl);
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

int cake__tls_feed(cake__tls_t *tls, uint8_t *buffer, size_t len)
{
    CAKE_ASSERT(len > 0 && len <= CAKE__TLS_BUFFER_BYTES && tls->in_len == 0);
    int err = tls->has_begun ? 0 : check_first_byte(tls, buffer[0]);
    if (err != 0)
        return err;
    cake__tls_give(tls->pool, tls->kept);
    tls->kept = NULL;
    tls->in = buffer;
    tls->in_len = len;
    return 0;
}

bool cake__tls_keep(cake__tls_t *tls, uint8_t *buffer)
{
    if (tls->in_len == 0)
        return false;
    CAKE_ASSERT(tls->kept == NULL);
    tls->kept = buffer;
    return true;
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
            return 0;
        cake__tls_fail(tls, "TLS: the peer does not speak HTTP/2");
        return CAKE_EUNAUTHENTICATED;
    }
    return SSL_get_error(tls->ssl, result) == SSL_ERROR_WANT_READ ? CAKE_EBUSY : note_failure(tls);
}

static bool may_have_more(const cake__tls_t *tls)
{
    return tls->in_len > 0 || SSL_pending(tls->ssl) > 0;
}

bool cake__tls_has_input(const cake__tls_t *tls)
{
    return tls->read_err != 0 || may_have_more(tls);
}

static int read_failed(cake__tls_t *tls, int got)
{
    switch (SSL_get_error(tls->ssl, got)) {
    case SSL_ERROR_WANT_READ:
        return CAKE_EBUSY;
    case SSL_ERROR_ZERO_RETURN:
        return CAKE_ECLOSED;
    default:
        return note_failure(tls);
    }
}

/* Records are handed over together, as far as there is room: each is at most 16 KiB. */
intptr_t cake__tls_read(cake__tls_t *tls, void *data, size_t size)
{
    uint8_t *to = data;
    size_t done = 0;
    ERR_clear_error();
    while (done < size && tls->read_err == 0 && (done == 0 || may_have_more(tls))) {
        size_t step = cake__min_u64(size - done, INT32_MAX);
        if (cake__copies_slowly(to + done, tls->record_in))
            step = cake__min_u64(step, CAKE__COPY_PIECE);
        int got = SSL_read(tls->ssl, to + done, (int)step);
        if (got > 0)
            done += (size_t)got;
        else
            tls->read_err = read_failed(tls, got);
    }
    if (tls->in_len == 0) {
        cake__tls_give(tls->pool, tls->kept);
        tls->kept = NULL;
    }
    int err = tls->read_err;
    if (done == 0 || err == CAKE_EBUSY)
        tls->read_err = 0;
    if (done > 0)
        return (intptr_t)done;
    return err == CAKE_ECLOSED ? 0 : err;
}

int cake__tls_write(cake__tls_t *tls, const void *data, size_t len)
{
    const uint8_t *from = data;
    CAKE_ASSERT(len > 0 && len <= CAKE__TLS_WRITE_MAX);
    ERR_clear_error();
    if (len > CAKE__COPY_PIECE && cake__copies_slowly(tls->record_out, from)) {
        if (SSL_write(tls->ssl, from, FIRST_PIECE) != (int)FIRST_PIECE)
            return note_failure(tls);
        from += FIRST_PIECE;
        len -= FIRST_PIECE;
    }
    return SSL_write(tls->ssl, from, (int)len) == (int)len ? 0 : note_failure(tls);
}

void cake__tls_shut(cake__tls_t *tls)
{
    ERR_clear_error();
    (void)SSL_shutdown(tls->ssl);
    ERR_clear_error();
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
