/* datacake/key.h: how documents and writes are named. Any thread; calls are O(length), take no memory, cannot fail.
 *
 *   cake_key_t by_number = cake_key_u64(42), by_text = cake_key_str("user/42");
 *   cake_slice_t bytes = cake_key_slice(&by_text);      valid while by_text and the text are */
#ifndef DATACAKE_KEY_H
#define DATACAKE_KEY_H

#include <string.h>

#include <datacake/base.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CAKE_KEY_MAX           511u        /* bytes; the least is 1 */
#define CAKE_KEYSPACE_NAME_MAX 127u        /* bytes of UTF-8 without control characters; the least is 1 */
#define CAKE_VALUE_MAX_DEFAULT (16u << 20) /* bytes */

/* A key, by value. Numbers are held inside; text and bytes are borrowed for the call that takes the key. */
typedef struct cake_key {
    const void *data; /* NULL: the eight bytes of number */
    size_t len;
    uint8_t number[8];
} cake_key_t;

/* Eight big-endian bytes, so that numbers sort. */
static inline cake_key_t cake_key_u64(uint64_t n)
{
    cake_key_t key = {NULL, 8, {0}};
    for (int i = 0; i < 8; i++)
        key.number[i] = (uint8_t)(n >> (56 - 8 * i));
    return key;
}

static inline cake_key_t cake_key_bytes(const void *data, size_t len)
{
    cake_key_t key = {data == NULL ? "" : data, data == NULL ? 0 : len, {0}};
    return key;
}

static inline cake_key_t cake_key_str(const char *text)
{
    return cake_key_bytes(text, text == NULL ? 0 : strlen(text));
}

/* Borrows from *key: valid while *key is. */
static inline cake_slice_t cake_key_slice(const cake_key_t *key)
{
    cake_slice_t slice = {key->data == NULL ? key->number : key->data, key->len};
    return slice;
}

/* What a document is known by inside. The last byte says what the others are:
 *
 *      0..15      a key of that length as it is, then zeroes
 *      16, 17     a key of that length, all its bytes below 128, in seven bits each: bytes 0 to 6 are its first
 *                 eight, 7 to 13 the next eight, the earlier ones in the lower bits of little-endian numbers; 14 is
 *                 the seventeenth or 0
 *      128..191   a UUID as text (RFC 9562; 36 characters, lower case): its bytes, the ninth, which tells the
 *                 variant, last
 *      255        any other key: 15 bytes of its BLAKE2s digest
 *
 * All but the last hold their key, so that a storage finds them by it and needs no second index. */
typedef struct cake_id {
    uint8_t bytes[16];
} cake_id_t;

#define CAKE_ID_PLAIN_MAX 15u /* keys up to this length are held as they are */
#define CAKE_ID_KEY_MAX   36u /* no longer key is held */

static inline bool cake_id_holds_key(const cake_id_t *id)
{
    return id->bytes[15] <= 17 || (id->bytes[15] & 0xc0) == 0x80;
}

/* The id of a key that its id holds. False: of another one or an empty one; then *id is as it was. */
CAKE_API bool cake_id_of_key(cake_slice_t key, cake_id_t *id);

/* The key of an id that holds one; else an empty slice. It lies in the id or in room: valid while both are. */
CAKE_API cake_slice_t cake_id_key(const cake_id_t *id, char room[CAKE_ID_KEY_MAX]);

/* The identity of one write: the seq-th of an actor, 1, 2, 3... An actor is one run of one node, drawn at random. */
typedef struct cake_dot {
    uint64_t actor, seq;
} cake_dot_t;

#define CAKE_SEQ_MAX (UINT64_C(1) << 60) /* a dot with seq 0 or above this names no write */

#ifdef __cplusplus
}
#endif
#endif
