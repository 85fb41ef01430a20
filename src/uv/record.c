#include "uv/record.h"

#include <openssl/crypto.h>
#include <openssl/hmac.h>

#define USELESS_MAX   32u /* as OpenSSL allows */
#define NEW_TICKET    4u
#define KEY_UPDATE    24u
#define KEY_BYTES_MAX 32u
#define LABEL_MAX     16u

/* ---- keys: RFC 8446, 7.1 to 7.3 ---- */

static const EVP_CIPHER *cipher_of(uint32_t suite)
{
    return suite == 0x1301   ? EVP_aes_128_gcm()
           : suite == 0x1302 ? EVP_aes_256_gcm()
           : suite == 0x1303 ? EVP_chacha20_poly1305()
                             : NULL;
}

static const EVP_MD *hash_of(uint32_t suite)
{
    return suite == 0x1302 ? EVP_sha384() : EVP_sha256();
}

/* HKDF-Expand-Label with no context; no more than the hash is long, which is one step of it. */
static bool derive(const cake__traffic_t *traffic, const char *label, uint8_t *out, size_t len)
{
    const EVP_MD *hash = hash_of(traffic->suite);
    uint8_t info[4 + 6 + LABEL_MAX + 1], digest[EVP_MAX_MD_SIZE];
    size_t at = 0, label_len = strlen(label);
    unsigned digest_len = 0;
    CAKE_ASSERT(label_len <= LABEL_MAX);
    info[at++] = 0;
    info[at++] = (uint8_t)len;
    info[at++] = (uint8_t)(6 + label_len);
    memcpy(info + at, "tls13 ", 6);
    memcpy(info + at + 6, label, label_len);
    at += 6 + label_len;
    info[at++] = 0; /* the context's length */
    info[at++] = 1; /* HKDF's first step */
    bool is_done =
        HMAC(hash, traffic->secret, EVP_MD_get_size(hash), info, at, digest, &digest_len) != NULL && digest_len >= len;
    if (is_done)
        memcpy(out, digest, len);
    OPENSSL_cleanse(digest, sizeof digest);
    return is_done;
}

static int use_secret(cake__traffic_t *traffic, bool is_out)
{
    const EVP_CIPHER *cipher = cipher_of(traffic->suite);
    uint8_t key[KEY_BYTES_MAX];
    bool is_done = cipher != NULL && derive(traffic, "key", key, (size_t)EVP_CIPHER_get_key_length(cipher)) &&
                   derive(traffic, "iv", traffic->iv, sizeof traffic->iv) &&
                   EVP_CipherInit_ex(traffic->cipher, cipher, NULL, key, NULL, is_out) == 1;
    traffic->sequence = 0;
    OPENSSL_cleanse(key, sizeof key);
    return is_done ? 0 : CAKE_ENOMEM;
}

static int use_next_secret(cake__traffic_t *traffic, bool is_out)
{
    uint8_t next[CAKE__RECORD_SECRET];
    size_t len = (size_t)EVP_MD_get_size(hash_of(traffic->suite));
    if (!derive(traffic, "traffic upd", next, len))
        return CAKE_ENOMEM;
    memcpy(traffic->secret, next, len);
    OPENSSL_cleanse(next, sizeof next);
    return use_secret(traffic, is_out);
}

static int start(cake__traffic_t *traffic, uint32_t suite, const uint8_t *secret, bool is_out)
{
    traffic->cipher = EVP_CIPHER_CTX_new();
    traffic->suite = suite;
    memcpy(traffic->secret, secret, CAKE__RECORD_SECRET);
    return traffic->cipher != NULL ? use_secret(traffic, is_out) : CAKE_ENOMEM;
}

int cake__records_start(cake__records_t *records, uint32_t suite, const uint8_t *in, const uint8_t *out)
{
    *records = (cake__records_t){.peer_alert = -1};
    int err = start(&records->in, suite, in, false);
    if (err == 0)
        err = start(&records->out, suite, out, true);
    if (err != 0)
        cake__records_end(records);
    return err;
}

void cake__records_end(cake__records_t *records)
{
    EVP_CIPHER_CTX_free(records->in.cipher);
    EVP_CIPHER_CTX_free(records->out.cipher);
    OPENSSL_cleanse(records, sizeof *records);
}

/* ---- records ---- */

/* What every record begins with: the nonce of its number, and its head, which is covered by the tag. */
static bool begin(cake__traffic_t *traffic, const uint8_t *head)
{
    uint8_t nonce[sizeof traffic->iv];
    int written;
    memcpy(nonce, traffic->iv, sizeof nonce);
    for (size_t i = 0; i < 8; i++)
        nonce[sizeof nonce - 1 - i] ^= (uint8_t)(traffic->sequence >> (8 * i));
    traffic->sequence++;
    return EVP_CipherInit_ex(traffic->cipher, NULL, NULL, NULL, nonce, -1) == 1 &&
           EVP_CipherUpdate(traffic->cipher, NULL, &written, head, CAKE__RECORD_HEAD) == 1;
}

int cake__records_seal(cake__records_t *records, uint8_t type, const cake_slice_t *parts, size_t len, uint8_t *to)
{
    EVP_CIPHER_CTX *cipher = records->out.cipher;
    size_t sealed = len + CAKE__RECORD_MORE;
    int written;
    CAKE_ASSERT(len <= CAKE__RECORD_MAX);
    to[0] = CAKE__RECORD_DATA;
    to[1] = to[2] = 3;
    to[3] = (uint8_t)(sealed >> 8);
    to[4] = (uint8_t)sealed;
    bool is_done = begin(&records->out, to);
    to += CAKE__RECORD_HEAD;
    for (; is_done && len > 0; parts++) {
        size_t step = cake__min_u64(parts->len, len);
        is_done = step == 0 || EVP_CipherUpdate(cipher, to, &written, parts->data, (int)step) == 1;
        to += step;
        len -= step;
    }
    is_done = is_done && EVP_CipherUpdate(cipher, to, &written, &type, 1) == 1 &&
              EVP_CipherFinal_ex(cipher, to + 1, &written) == 1 &&
              EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, CAKE__RECORD_TAG, to + 1) == 1;
    return is_done ? 0 : CAKE_ENOMEM;
}

size_t cake__record_len(const uint8_t *data, size_t len)
{
    if (len < CAKE__RECORD_HEAD)
        return 0;
    size_t body = (size_t)data[3] << 8 | data[4];
    if (data[0] != CAKE__RECORD_DATA || body > CAKE__RECORD_LONGEST)
        return CAKE__RECORD_HEAD; /* it need not be waited for */
    return len >= CAKE__RECORD_HEAD + body ? CAKE__RECORD_HEAD + body : 0;
}

static intptr_t refuse(cake__records_t *records, uint8_t alert)
{
    records->alert = alert;
    return CAKE_EUNAUTHENTICATED;
}

/* Gives the length of what a record has, and its type; or an error. */
static intptr_t decrypt(cake__records_t *records, uint8_t *record, size_t len, uint8_t *to, uint8_t *type)
{
    EVP_CIPHER_CTX *cipher = records->in.cipher;
    size_t body = (size_t)record[3] << 8 | record[4];
    int written;
    if (record[0] != CAKE__RECORD_DATA)
        return refuse(records, CAKE__ALERT_UNEXPECTED_MESSAGE);
    if (body > CAKE__RECORD_LONGEST || body < CAKE__RECORD_MORE)
        return refuse(records, body < CAKE__RECORD_MORE ? CAKE__ALERT_BAD_RECORD_MAC : CAKE__ALERT_RECORD_OVERFLOW);
    CAKE_ASSERT(len == CAKE__RECORD_HEAD + body);
    uint8_t *from = record + CAKE__RECORD_HEAD, *tag = record + len - CAKE__RECORD_TAG;
    size_t size = body - CAKE__RECORD_MORE;
    bool is_right = begin(&records->in, record) &&
                    (size == 0 || EVP_CipherUpdate(cipher, to, &written, from, (int)size) == 1) &&
                    EVP_CipherUpdate(cipher, type, &written, from + size, 1) == 1 &&
                    EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_SET_TAG, CAKE__RECORD_TAG, tag) == 1 &&
                    EVP_CipherFinal_ex(cipher, tag, &written) == 1;
    if (!is_right)
        return refuse(records, CAKE__ALERT_BAD_RECORD_MAC);
    while (*type == 0 && size > 0) /* zeroes that hide how long it is */
        *type = to[--size];
    if (size > CAKE__RECORD_MAX)
        return refuse(records, CAKE__ALERT_RECORD_OVERFLOW);
    return (intptr_t)size;
}

/* ---- what is no data ---- */

static int take_update(cake__records_t *records, uint8_t request)
{
    if (request > 1)
        return (int)refuse(records, CAKE__ALERT_DECODE_ERROR);
    records->is_update_owed = records->is_update_owed || request == 1;
    if (use_next_secret(&records->in, false) != 0)
        return (int)refuse(records, CAKE__ALERT_INTERNAL_ERROR);
    return 0;
}

/* Tickets are of no use here and left out; keys change at the end of a record only (RFC 8446, 5.1). */
static int take_handshake(cake__records_t *records, const uint8_t *data, size_t len)
{
    while (len > 0) {
        if (records->head_len < sizeof records->head) {
            records->head[records->head_len++] = *data++;
            len--;
            if (records->head_len == sizeof records->head)
                records->message_left =
                    (uint32_t)records->head[1] << 16 | (uint32_t)records->head[2] << 8 | records->head[3];
            if (records->head[0] != NEW_TICKET && records->head[0] != KEY_UPDATE)
                return (int)refuse(records, CAKE__ALERT_UNEXPECTED_MESSAGE);
            if (records->head_len == sizeof records->head && records->head[0] == KEY_UPDATE &&
                records->message_left != 1)
                return (int)refuse(records, CAKE__ALERT_DECODE_ERROR);
        } else if (records->head[0] == KEY_UPDATE) {
            if (len != 1)
                return (int)refuse(records, CAKE__ALERT_UNEXPECTED_MESSAGE);
            records->head_len = 0;
            return take_update(records, *data);
        } else {
            size_t step = cake__min_u64(len, records->message_left);
            records->message_left -= (uint32_t)step;
            data += step;
            len -= step;
        }
        if (records->head_len == sizeof records->head && records->message_left == 0)
            records->head_len = 0;
    }
    return 0;
}

static int take_alert(cake__records_t *records, const uint8_t *data, size_t len)
{
    if (len != 2)
        return (int)refuse(records, CAKE__ALERT_DECODE_ERROR);
    if (data[1] == CAKE__ALERT_CLOSE_NOTIFY)
        return CAKE_ECLOSED;
    if (data[1] == CAKE__ALERT_USER_CANCELED)
        return 0;
    records->peer_alert = data[1];
    return CAKE_EUNAUTHENTICATED;
}

intptr_t cake__records_open(cake__records_t *records, uint8_t *record, size_t len, uint8_t *to)
{
    uint8_t type = 0;
    intptr_t size = decrypt(records, record, len, to, &type);
    if (size < 0)
        return size;
    if (type == CAKE__RECORD_DATA && records->head_len == 0 && size > 0) {
        records->useless = 0;
        return size;
    }
    if (++records->useless > USELESS_MAX || (type != CAKE__RECORD_HANDSHAKE && records->head_len != 0))
        return refuse(records, CAKE__ALERT_UNEXPECTED_MESSAGE);
    switch (type) {
    case CAKE__RECORD_DATA:
        return 0;
    case CAKE__RECORD_ALERT:
        return take_alert(records, to, (size_t)size);
    case CAKE__RECORD_HANDSHAKE:
        return size > 0 ? take_handshake(records, to, (size_t)size) : refuse(records, CAKE__ALERT_UNEXPECTED_MESSAGE);
    default:
        return refuse(records, CAKE__ALERT_UNEXPECTED_MESSAGE);
    }
}

bool cake__records_wants_update(const cake__records_t *records)
{
    return records->is_update_owed || records->out.sequence >= CAKE__RECORD_OF_A_KEY;
}

int cake__records_update(cake__records_t *records, uint8_t to[CAKE__RECORD_UPDATE])
{
    static const uint8_t message[] = {KEY_UPDATE, 0, 0, 1, 0}; /* not requested: the peer counts for itself */
    const cake_slice_t part = cake__slice(message, sizeof message);
    int err = cake__records_seal(records, CAKE__RECORD_HANDSHAKE, &part, sizeof message, to);
    records->is_update_owed = false;
    return err != 0 ? err : use_next_secret(&records->out, true);
}
