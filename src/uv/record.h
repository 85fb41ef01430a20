/* record.h: the records of TLS 1.3 after the handshake (RFC 8446, 5): application data, alerts, changes of keys. OpenSSL's own take a
 * copy more each way and hold the whole handshake's memory for as long as the connection lives.
 *
 *   record   [ 23 | 3 3 | length ] [ data, its real type, zeroes: encrypted ] [ tag ]
 *
 * Each direction has a secret, from which its key and the base of its nonces follow; records are counted, and the count is part of the
 * nonce. A KeyUpdate message replaces a secret by one that follows from it. */
#ifndef CAKE_UV_RECORD_H
#define CAKE_UV_RECORD_H

#include <openssl/evp.h>

#include "base/base.h"

#define CAKE__RECORD_MAX      16384u                    /* bytes of data */
#define CAKE__RECORD_HEAD     5u                        /* before them */
#define CAKE__RECORD_TAG      16u                       /* behind them, */
#define CAKE__RECORD_MORE     (CAKE__RECORD_TAG + 1u)   /* with their type */
#define CAKE__RECORD_LONGEST  (CAKE__RECORD_MAX + 256u) /* what is read behind a head */
#define CAKE__RECORD_SECRET   48u
#define CAKE__RECORD_OF_A_KEY (UINT64_C(1) << 24) /* with AES-GCM, for its safety (RFC 8446, 5.5) */

enum { CAKE__RECORD_ALERT = 21, CAKE__RECORD_HANDSHAKE = 22, CAKE__RECORD_DATA = 23 };

/* Of alerts, those used here. */
enum {
    CAKE__ALERT_CLOSE_NOTIFY = 0,
    CAKE__ALERT_UNEXPECTED_MESSAGE = 10,
    CAKE__ALERT_BAD_RECORD_MAC = 20,
    CAKE__ALERT_RECORD_OVERFLOW = 22,
    CAKE__ALERT_DECODE_ERROR = 50,
    CAKE__ALERT_INTERNAL_ERROR = 80,
    CAKE__ALERT_USER_CANCELED = 90
};

/* One direction. */
typedef struct cake__traffic {
    EVP_CIPHER_CTX *cipher;
    uint64_t sequence; /* of the next record with this key */
    uint32_t suite;    /* 0x1301 to 0x1303 */
    uint8_t iv[12], secret[CAKE__RECORD_SECRET];
} cake__traffic_t;

typedef struct cake__records {
    cake__traffic_t in, out;
    uint8_t head[4], head_len; /* of a handshake message, which may lie in several records */
    uint32_t message_left;
    uint32_t useless;    /* records without data in a row */
    bool is_update_owed; /* the peer wants new keys the other way, too */
    uint8_t alert;       /* to be sent after a failure */
    int peer_alert;      /* that ended the connection; -1: none */
} cake__records_t;

/* The secrets of both directions after the handshake. CAKE_ENOMEM. */
int cake__records_start(cake__records_t *records, uint32_t suite, const uint8_t *in, const uint8_t *out);
void cake__records_end(cake__records_t *records); /* also a zeroed one */

/* From its first bytes: how long the record is with its head; 0: that is not known yet, or it is not whole. */
size_t cake__record_len(const uint8_t *data, size_t len);

/* Decrypts a whole record to `to`, len - CAKE__RECORD_HEAD - CAKE__RECORD_MORE bytes at most, or where it lies, behind its head. Gives how many
 * bytes of data it had, maybe none; CAKE_ECLOSED: the peer has said goodbye; CAKE_EUNAUTHENTICATED: it broke the rules (alert), or gave up
 * (peer_alert). What `to` has then is worth nothing. */
intptr_t cake__records_open(cake__records_t *records, uint8_t *record, size_t len, uint8_t *to);

/* A record of len bytes, those that the parts begin with. CAKE__RECORD_HEAD + len + CAKE__RECORD_MORE bytes to `to`. CAKE_ENOMEM. */
int cake__records_seal(cake__records_t *records, uint8_t type, const cake_slice_t *parts, size_t len, uint8_t *to);

/* Whether a record that changes the key is to go out before the next; then it does, by as many bytes as it gives. CAKE_ENOMEM. */
#define CAKE__RECORD_UPDATE (CAKE__RECORD_HEAD + 5u + CAKE__RECORD_MORE)
bool cake__records_wants_update(const cake__records_t *records);
int cake__records_update(cake__records_t *records, uint8_t to[CAKE__RECORD_UPDATE]);

#endif
