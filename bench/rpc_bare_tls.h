/* rpc_bare_tls.h: what the library underneath TLS takes at least, for bench/rpc.c and rpc_idle.c: its cipher alone,
 * and two bare SSL over memory, set up as src/uv/tls.c does with a cluster key. Figures of ours stand beside them. */
#ifndef CAKE_BENCH_RPC_BARE_TLS_H
#define CAKE_BENCH_RPC_BARE_TLS_H

#include <stdbool.h>
#include <stdint.h>

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BARE_RECORD 16384
#define BARE_ROUNDS 2000

static int bare_acting; /* the end whose turn it is: for who counts what it allocates */

static inline void bare_must(bool is_fine, const char *what)
{
    if (is_fine)
        return;
    fprintf(stderr, "OpenSSL: %s\n", what);
    exit(1);
}

static inline double bare_cpu_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

/* ---- the cipher ---- */

static inline void bare_crypt(EVP_CIPHER_CTX *ctx, uint8_t *record, uint8_t tag[16], bool is_encrypting)
{
    uint8_t nonce[12] = {1}, head[5] = {23, 3, 3};
    int len;
    bool is_done = EVP_CipherInit_ex(ctx, NULL, NULL, NULL, nonce, is_encrypting) == 1 &&
                   (is_encrypting || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, 16, tag) == 1) &&
                   EVP_CipherUpdate(ctx, NULL, &len, head, sizeof head) == 1 &&
                   EVP_CipherUpdate(ctx, record, &len, record, BARE_RECORD) == 1 &&
                   EVP_CipherFinal_ex(ctx, record, &len) == 1 &&
                   (!is_encrypting || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, tag) == 1);
    bare_must(is_done, "AES-128-GCM");
}

/* To encrypt a byte and to decrypt one, in full records, in place. */
static inline double bare_cipher_us_per_byte(void)
{
    static uint8_t record[BARE_RECORD];
    uint8_t key[16] = {2}, tag[16];
    EVP_CIPHER_CTX *ctx[2] = {EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_new()};
    for (int i = 0; i < 2; i++)
        bare_must(EVP_CipherInit_ex(ctx[i], EVP_aes_128_gcm(), NULL, key, NULL, i == 0) == 1, "AES-128-GCM");
    double start_us = bare_cpu_us();
    for (int i = 0; i < BARE_ROUNDS; i++) {
        bare_crypt(ctx[0], record, tag, true);
        bare_crypt(ctx[1], record, tag, false);
    }
    double took_us = bare_cpu_us() - start_us;
    EVP_CIPHER_CTX_free(ctx[0]);
    EVP_CIPHER_CTX_free(ctx[1]);
    return took_us / BARE_ROUNDS / BARE_RECORD;
}

/* ---- two SSL ---- */

typedef struct {
    uint8_t data[2 * BARE_RECORD];
    size_t at, len;
} bare_pipe_t;

typedef struct {
    SSL *ssl;
    bare_pipe_t *in, *out;
} bare_end_t;

static inline int bare_bio_read(BIO *bio, char *data, int len)
{
    bare_pipe_t *in = ((bare_end_t *)BIO_get_data(bio))->in;
    size_t step = in->len - in->at < (size_t)len ? in->len - in->at : (size_t)len;
    BIO_clear_retry_flags(bio);
    if (step == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(data, in->data + in->at, step);
    in->at += step;
    if (in->at == in->len)
        in->at = in->len = 0;
    return (int)step;
}

static inline int bare_bio_write(BIO *bio, const char *data, int len)
{
    bare_pipe_t *out = ((bare_end_t *)BIO_get_data(bio))->out;
    BIO_clear_retry_flags(bio);
    bare_must(len > 0 && (size_t)len <= sizeof out->data - out->len, "no room for a record");
    memcpy(out->data + out->len, data, (size_t)len);
    out->len += (size_t)len;
    return len;
}

static inline long bare_bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    return command == BIO_CTRL_FLUSH;
}

static inline SSL_SESSION *bare_session(SSL *ssl)
{
    static const unsigned char key[32] = {3}, aes_128_gcm_sha256[] = {0x13, 0x01};
    SSL_SESSION *session = SSL_SESSION_new();
    bool is_done = SSL_SESSION_set1_master_key(session, key, sizeof key) == 1 &&
                   SSL_SESSION_set_cipher(session, SSL_CIPHER_find(ssl, aes_128_gcm_sha256)) == 1 &&
                   SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1;
    bare_must(is_done, "a session");
    return session;
}

static inline int bare_use_psk(SSL *ssl, const EVP_MD *digest, const unsigned char **id, size_t *id_len,
                               SSL_SESSION **session)
{
    *id = (const unsigned char *)"bare";
    *id_len = 4;
    *session = bare_session(ssl);
    return 1;
}

static inline int bare_find_psk(SSL *ssl, const unsigned char *id, size_t id_len, SSL_SESSION **session)
{
    *session = bare_session(ssl);
    return 1;
}

typedef struct {
    SSL_CTX *ctx[2]; /* the server's, the client's */
    BIO_METHOD *method;
} bare_t;

static inline bare_t bare_open(void)
{
    bare_t bare = {{SSL_CTX_new(TLS_server_method()), SSL_CTX_new(TLS_client_method())},
                   BIO_meth_new(BIO_TYPE_SOURCE_SINK | 121, "bare")};
    BIO_meth_set_read(bare.method, bare_bio_read);
    BIO_meth_set_write(bare.method, bare_bio_write);
    BIO_meth_set_ctrl(bare.method, bare_bio_ctrl);
    for (int i = 0; i < 2; i++) {
        SSL_CTX_set_min_proto_version(bare.ctx[i], TLS1_3_VERSION);
        bare_must(SSL_CTX_set_ciphersuites(bare.ctx[i], "TLS_AES_128_GCM_SHA256") == 1, "the cipher");
        SSL_CTX_set_session_cache_mode(bare.ctx[i], SSL_SESS_CACHE_OFF);
        SSL_CTX_set_options(bare.ctx[i], SSL_OP_NO_TICKET);
        SSL_CTX_set_num_tickets(bare.ctx[i], 0);
        SSL_CTX_set_mode(bare.ctx[i], SSL_MODE_RELEASE_BUFFERS);
    }
    SSL_CTX_set_psk_find_session_callback(bare.ctx[0], bare_find_psk);
    SSL_CTX_set_psk_use_session_callback(bare.ctx[1], bare_use_psk);
    return bare;
}

static inline void bare_close(bare_t *bare)
{
    SSL_CTX_free(bare->ctx[0]);
    SSL_CTX_free(bare->ctx[1]);
    BIO_meth_free(bare->method);
}

static inline SSL *bare_new_end(const bare_t *bare, bool is_client, bare_end_t *end)
{
    BIO *bio = BIO_new(bare->method);
    end->ssl = SSL_new(bare->ctx[is_client]);
    bare_must(bio != NULL && end->ssl != NULL, "no memory");
    BIO_set_data(bio, end);
    BIO_set_init(bio, 1);
    SSL_set_bio(end->ssl, bio, bio);
    if (is_client)
        SSL_set_connect_state(end->ssl);
    else
        SSL_set_accept_state(end->ssl);
    return end->ssl;
}

/* Two ends, connected by the pipes, after their handshake; the first is the server's. */
static inline void bare_connect(const bare_t *bare, bare_end_t ends[2], bare_pipe_t pipes[2])
{
    int done[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        pipes[i].at = pipes[i].len = 0;
        ends[i].in = &pipes[i];
        ends[i].out = &pipes[1 - i];
        bare_acting = i;
        bare_new_end(bare, i == 1, &ends[i]);
    }
    for (int i = 0; i < 20 && (done[0] != 1 || done[1] != 1); i++) {
        bare_acting = ~i & 1;
        done[bare_acting] = SSL_do_handshake(ends[bare_acting].ssl);
    }
    bare_must(done[0] == 1 && done[1] == 1, "the handshake");
}

/* To write a byte and to read one, in full records. */
static inline double bare_ssl_us_per_byte(void)
{
    static bare_pipe_t pipes[2];
    static uint8_t from[BARE_RECORD], to[BARE_RECORD];
    bare_end_t ends[2];
    bare_t bare = bare_open();
    bare_connect(&bare, ends, pipes);
    double start_us = bare_cpu_us();
    for (int i = 0; i < BARE_ROUNDS; i++) {
        bare_must(SSL_write(ends[i & 1].ssl, from, BARE_RECORD) == BARE_RECORD &&
                      SSL_read(ends[~i & 1].ssl, to, BARE_RECORD) == BARE_RECORD,
                  "a record");
    }
    double took_us = bare_cpu_us() - start_us;
    SSL_free(ends[0].ssl);
    SSL_free(ends[1].ssl);
    bare_close(&bare);
    return took_us / BARE_ROUNDS / BARE_RECORD;
}

#endif
