/* Records of ours against OpenSSL's: a handshake between two SSLs, then one of them is put aside and its secrets are used here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdlib.h>

#include "uv/record.h"

typedef struct {
    SSL_CTX *contexts[2]; /* the client's, the server's */
    SSL *peer;            /* of OpenSSL, the server */
    BIO *to_peer, *from_peer;
    cake__records_t records; /* the client's */
    uint8_t wire[100000];    /* from the peer, not read yet */
    size_t wire_at, wire_len;
} pair_t;

static void take_secret(const SSL *ssl, const char *line)
{
    uint8_t(*secrets)[CAKE__RECORD_SECRET] = SSL_get_app_data(ssl);
    long len = 0;
    unsigned char *bytes = OPENSSL_hexstr2buf(strrchr(line, ' ') + 1, &len);
    assert_non_null(bytes);
    if (strncmp(line, "CLIENT_TRAFFIC_SECRET_0 ", 24) == 0)
        memcpy(secrets[0], bytes, (size_t)len);
    if (strncmp(line, "SERVER_TRAFFIC_SECRET_0 ", 24) == 0)
        memcpy(secrets[1], bytes, (size_t)len);
    OPENSSL_free(bytes);
}

static void use_certificate(SSL_CTX *context)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    assert_true(key != NULL && cert != NULL);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    assert_int_equal(SSL_CTX_use_certificate(context, cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(context, key), 1);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void start(pair_t *pair, const char *suite)
{
    uint8_t secrets[2][CAKE__RECORD_SECRET] = {{0}};
    SSL *client;
    memset(pair, 0, sizeof *pair);
    for (int i = 0; i < 2; i++) {
        pair->contexts[i] = SSL_CTX_new(i == 0 ? TLS_client_method() : TLS_server_method());
        SSL_CTX_set_min_proto_version(pair->contexts[i], TLS1_3_VERSION);
        SSL_CTX_set_ciphersuites(pair->contexts[i], suite);
    }
    SSL_CTX_set_keylog_callback(pair->contexts[0], take_secret);
    use_certificate(pair->contexts[1]);
    client = SSL_new(pair->contexts[0]);
    pair->peer = SSL_new(pair->contexts[1]);
    SSL_set_app_data(client, secrets);
    pair->to_peer = BIO_new(BIO_s_mem());
    pair->from_peer = BIO_new(BIO_s_mem());
    BIO_up_ref(pair->to_peer);
    BIO_up_ref(pair->from_peer);
    SSL_set_bio(client, pair->from_peer, pair->to_peer);
    BIO_up_ref(pair->to_peer);
    BIO_up_ref(pair->from_peer);
    SSL_set_bio(pair->peer, pair->to_peer, pair->from_peer);
    SSL_set_connect_state(client);
    SSL_set_accept_state(pair->peer);
    int done = 0;
    for (int i = 0; i < 8 && done < 2; i++)
        done = (SSL_do_handshake(client) == 1) + (SSL_do_handshake(pair->peer) == 1);
    assert_int_equal(done, 2);
    ERR_clear_error();
    uint32_t number = SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(client));
    assert_int_equal(cake__records_start(&pair->records, number, secrets[1], secrets[0]), 0);
    SSL_free(client);
}

static void stop(pair_t *pair)
{
    cake__records_end(&pair->records);
    SSL_free(pair->peer);
    BIO_free(pair->to_peer);
    BIO_free(pair->from_peer);
    for (int i = 0; i < 2; i++)
        SSL_CTX_free(pair->contexts[i]);
}

/* The next record that the peer has sent, as cake__records_open reads it; CAKE_EBUSY: there is none. */
static intptr_t open_next(pair_t *pair, uint8_t *to)
{
    if (pair->wire_at == pair->wire_len) {
        int got = BIO_read(pair->from_peer, pair->wire, sizeof pair->wire);
        pair->wire_at = 0;
        pair->wire_len = got > 0 ? (size_t)got : 0;
    }
    uint8_t *record = pair->wire + pair->wire_at;
    size_t len = cake__record_len(record, pair->wire_len - pair->wire_at);
    if (len == 0)
        return CAKE_EBUSY;
    pair->wire_at += len;
    return cake__records_open(&pair->records, record, len, to != NULL ? to : record + CAKE__RECORD_HEAD);
}

static void assert_reads(pair_t *pair, const char *text)
{
    uint8_t data[CAKE__RECORD_LONGEST];
    intptr_t got;
    do
        got = open_next(pair, data);
    while (got == 0);
    assert_int_equal(got, strlen(text));
    assert_memory_equal(data, text, (size_t)got);
}

static void send_parts(pair_t *pair, const char *one, const char *other)
{
    const cake_slice_t parts[] = {cake__slice_str(one), {NULL, 0}, cake__slice_str(other)};
    size_t len = strlen(one) + strlen(other);
    uint8_t record[1000];
    assert_int_equal(cake__records_seal(&pair->records, CAKE__RECORD_DATA, parts, len, record), 0);
    BIO_write(pair->to_peer, record, (int)(CAKE__RECORD_HEAD + len + CAKE__RECORD_MORE));
}

static void assert_peer_reads(pair_t *pair, const char *text)
{
    char data[1000] = "";
    assert_int_equal(SSL_read(pair->peer, data, sizeof data - 1), strlen(text));
    assert_string_equal(data, text);
}

static void assert_talks(pair_t *pair)
{
    send_parts(pair, "a question", " in parts");
    assert_peer_reads(pair, "a question in parts");
    assert_int_equal(SSL_write(pair->peer, "an answer", 9), 9);
    assert_reads(pair, "an answer");
}

static void test_every_suite_and_tickets(void **state)
{
    static const char *const suites[] = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
                                         "TLS_CHACHA20_POLY1305_SHA256"};
    pair_t *pair = malloc(sizeof *pair);
    (void)state;
    for (size_t i = 0; i < CAKE_COUNT_OF(suites); i++) {
        start(pair, suites[i]); /* the first that it sends are tickets */
        assert_talks(pair);
        assert_talks(pair);
        stop(pair);
    }
    free(pair);
}

static void update(pair_t *pair)
{
    uint8_t record[CAKE__RECORD_UPDATE];
    assert_int_equal(cake__records_update(&pair->records, record), 0);
    BIO_write(pair->to_peer, record, sizeof record);
}

static void test_keys_change_on_either_side(void **state)
{
    pair_t *pair = malloc(sizeof *pair);
    (void)state;
    start(pair, "TLS_AES_256_GCM_SHA384");
    assert_talks(pair);
    assert_int_equal(SSL_key_update(pair->peer, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
    assert_talks(pair);
    assert_false(cake__records_wants_update(&pair->records));
    assert_int_equal(SSL_key_update(pair->peer, SSL_KEY_UPDATE_REQUESTED), 1);
    assert_talks(pair);
    assert_true(cake__records_wants_update(&pair->records));
    update(pair);
    assert_false(cake__records_wants_update(&pair->records));
    assert_talks(pair);
    update(pair);
    update(pair);
    assert_talks(pair);
    pair->records.out.sequence = CAKE__RECORD_OF_A_KEY;
    assert_true(cake__records_wants_update(&pair->records));
    stop(pair);
    free(pair);
}

static void test_padding_is_cut_off(void **state)
{
    pair_t *pair = malloc(sizeof *pair);
    (void)state;
    start(pair, "TLS_AES_128_GCM_SHA256");
    SSL_set_block_padding(pair->peer, 512);
    assert_talks(pair);
    stop(pair);
    free(pair);
}

static void test_goodbyes_and_other_alerts(void **state)
{
    pair_t *pair = malloc(sizeof *pair);
    (void)state;
    start(pair, "TLS_AES_128_GCM_SHA256");
    assert_talks(pair);
    SSL_shutdown(pair->peer);
    assert_int_equal(open_next(pair, NULL), CAKE_ECLOSED);
    stop(pair);
    start(pair, "TLS_AES_128_GCM_SHA256");
    assert_talks(pair);
    BIO_write(pair->to_peer,
              "\x17\x03\x03\0\x20"
              "and this was not encrypted at al",
              37);
    char data[10];
    assert_true(SSL_read(pair->peer, data, sizeof data) < 0);
    assert_int_equal(open_next(pair, NULL), CAKE_EUNAUTHENTICATED);
    assert_int_equal(pair->records.peer_alert, CAKE__ALERT_BAD_RECORD_MAC);
    ERR_clear_error();
    stop(pair);
    free(pair);
}

/* Gives the alert that a record of len bytes of data of this type, altered at a place unless that is 0, is answered with. */
static int answer_to(uint8_t type, const void *data, size_t len, size_t altered)
{
    static const uint8_t secret[CAKE__RECORD_SECRET] = {1, 2, 3};
    cake__records_t one, other;
    uint8_t *record = calloc(1, CAKE__RECORD_HEAD + CAKE__RECORD_LONGEST);
    const cake_slice_t part = cake__slice(data, len);
    assert_int_equal(cake__records_start(&one, 0x1301, secret, secret), 0);
    assert_int_equal(cake__records_start(&other, 0x1301, secret, secret), 0);
    assert_int_equal(cake__records_seal(&one, type, &part, len, record), 0);
    record[altered] ^= altered != 0;
    len = cake__record_len(record, CAKE__RECORD_HEAD + len + CAKE__RECORD_MORE);
    intptr_t got = len == 0 ? CAKE_EBUSY : cake__records_open(&other, record, len, record + CAKE__RECORD_HEAD);
    int alert = got == CAKE_EUNAUTHENTICATED ? other.alert : (int)got;
    cake__records_end(&one);
    cake__records_end(&other);
    ERR_clear_error();
    free(record);
    return alert;
}

static void test_what_breaks_the_rules_ends_it(void **state)
{
    (void)state;
    assert_int_equal(answer_to(CAKE__RECORD_DATA, "data", 4, 0), 4);
    assert_int_equal(answer_to(CAKE__RECORD_DATA, "data", 4, 5), CAKE__ALERT_BAD_RECORD_MAC);
    assert_int_equal(answer_to(CAKE__RECORD_DATA, "data", 4, 9), CAKE__ALERT_BAD_RECORD_MAC);  /* the type */
    assert_int_equal(answer_to(CAKE__RECORD_DATA, "data", 4, 25), CAKE__ALERT_BAD_RECORD_MAC); /* the tag */
    assert_int_equal(answer_to(CAKE__RECORD_DATA, "data", 4, 1), CAKE__ALERT_BAD_RECORD_MAC);  /* the head */
    assert_int_equal(answer_to(CAKE__RECORD_DATA, "data", 4, 4), CAKE__ALERT_BAD_RECORD_MAC);  /* its length */
    assert_int_equal(answer_to(20, "\1", 1, 0), CAKE__ALERT_UNEXPECTED_MESSAGE);
    assert_int_equal(answer_to(0, "", 0, 0), CAKE__ALERT_UNEXPECTED_MESSAGE); /* zeroes only */
    assert_int_equal(answer_to(CAKE__RECORD_HANDSHAKE, "", 0, 0), CAKE__ALERT_UNEXPECTED_MESSAGE);
    assert_int_equal(answer_to(CAKE__RECORD_HANDSHAKE, "\15\0\0\1", 4, 0), CAKE__ALERT_UNEXPECTED_MESSAGE);
    assert_int_equal(answer_to(CAKE__RECORD_HANDSHAKE, "\4\0\0\2ab\4\0\0\0\4\0\0\1a", 15, 0), 0); /* tickets */
    assert_int_equal(answer_to(CAKE__RECORD_HANDSHAKE, "\30\0\0\1\0", 5, 0), 0);
    assert_int_equal(answer_to(CAKE__RECORD_HANDSHAKE, "\30\0\0\1\2", 5, 0), CAKE__ALERT_DECODE_ERROR);
    assert_int_equal(answer_to(CAKE__RECORD_HANDSHAKE, "\30\0\0\0", 4, 0), CAKE__ALERT_DECODE_ERROR);
    assert_int_equal(answer_to(CAKE__RECORD_HANDSHAKE, "\30\0\0\1\0\4\0\0\0", 9, 0), CAKE__ALERT_UNEXPECTED_MESSAGE);
    assert_int_equal(answer_to(CAKE__RECORD_ALERT, "\1", 1, 0), CAKE__ALERT_DECODE_ERROR);
    assert_int_equal(answer_to(CAKE__RECORD_ALERT, "\1\132", 2, 0), 0); /* user_canceled says nothing */
    assert_int_equal(answer_to(CAKE__RECORD_ALERT, "\1\0", 2, 0), CAKE_ECLOSED);
}

static void test_records_of_no_use_are_counted(void **state)
{
    static const uint8_t secret[CAKE__RECORD_SECRET] = {1, 2, 3};
    cake__records_t one, other;
    uint8_t record[100];
    intptr_t got = 0;
    int taken = 0;
    (void)state;
    assert_int_equal(cake__records_start(&one, 0x1303, secret, secret), 0);
    assert_int_equal(cake__records_start(&other, 0x1303, secret, secret), 0);
    for (; taken < 100 && got == 0; taken++) {
        assert_int_equal(cake__records_update(&one, record), 0);
        got = cake__records_open(&other, record, CAKE__RECORD_UPDATE, record + CAKE__RECORD_HEAD);
    }
    assert_int_equal(got, CAKE_EUNAUTHENTICATED);
    assert_int_equal(taken, 33);
    cake__records_end(&one);
    cake__records_end(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_suite_and_tickets),
        cmocka_unit_test(test_keys_change_on_either_side),
        cmocka_unit_test(test_padding_is_cut_off),
        cmocka_unit_test(test_goodbyes_and_other_alerts),
        cmocka_unit_test(test_what_breaks_the_rules_ends_it),
        cmocka_unit_test(test_records_of_no_use_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
