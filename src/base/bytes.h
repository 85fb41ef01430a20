/* bytes.h: a growable buffer, and the codec that every format of ours uses: little-endian numbers of fixed size,
 * LEB128 varints, byte strings behind a varint length.
 *
 * Writing: an allocation failure or a passed limit is remembered in err, later appends do nothing, and the writer
 * checks once at the end. Reading: past the end or malformed sets err, later reads give zeroes, checked once too. */
#ifndef CAKE_BASE_BYTES_H
#define CAKE_BASE_BYTES_H

#include "base/base.h"

typedef struct cake__buf {
    uint8_t *data;
    size_t len, capacity;
    size_t max; /* 0: no limit; passing it sets CAKE_ETOOBIG */
    int err;
    const cake_alloc_t *alloc;
} cake__buf_t;

static inline void cake__buf_init(cake__buf_t *buf, const cake_alloc_t *alloc)
{
    *buf = (cake__buf_t){.alloc = alloc};
}

void cake__buf_release(cake__buf_t *buf);

/* Also for a zeroed one; can be used again after. */
static inline void cake__buf_free(cake__buf_t *buf)
{
    if (buf->data != NULL || buf->err != 0)
        cake__buf_release(buf);
}

bool cake__buf_reserve(cake__buf_t *buf, size_t more);

/* Space for len more bytes, already counted in buf->len; NULL after an error. */
uint8_t *cake__buf_extend(cake__buf_t *buf, size_t len);

static inline void cake__buf_clear(cake__buf_t *buf)
{
    buf->len = 0;
    buf->err = 0;
}

static inline cake_slice_t cake__buf_slice(const cake__buf_t *buf)
{
    return cake__slice(buf->data, buf->len);
}

/* C libraries move long ranges by one instruction (glibc: above 2 KiB) that AMD's processors carry out 20 times slower
 * when `to` lies 1 to 63 bytes further into its page than `from`. */
#define CAKE__COPY_PIECE 2048u

static inline bool cake__copies_slowly(const void *to, const void *from)
{
    return (((uintptr_t)to - (uintptr_t)from - 1) & 4095) < 63;
}

static inline void cake__copy(void *to, const void *from, size_t len)
{
    size_t at = 0;
    for (; len - at > CAKE__COPY_PIECE && cake__copies_slowly(to, from); at += CAKE__COPY_PIECE)
        memcpy((char *)to + at, (const char *)from + at, CAKE__COPY_PIECE);
    memcpy((char *)to + at, (const char *)from + at, len - at);
}

static inline void cake__put_bytes(cake__buf_t *buf, const void *data, size_t len)
{
    uint8_t *to = cake__buf_extend(buf, len);
    if (to != NULL && len > 0)
        cake__copy(to, data, len);
}

static inline void cake__put_u8(cake__buf_t *buf, uint8_t value)
{
    cake__put_bytes(buf, &value, 1);
}

/* Of at most 8 bytes. Compilers leave a loop over bytes as it is: where they know the size, it is one store or load. */
#define CAKE__IS_ONE_MOVE(size) (__builtin_constant_p(size) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)

static inline void cake__store_le(uint8_t *to, uint64_t value, size_t size)
{
    if (CAKE__IS_ONE_MOVE(size)) {
        memcpy(to, &value, size);
        return;
    }
    for (size_t i = 0; i < size; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static inline uint64_t cake__load_le(const uint8_t *from, size_t size)
{
    uint64_t value = 0;
    if (CAKE__IS_ONE_MOVE(size)) {
        memcpy(&value, from, size);
        return value;
    }
    for (size_t i = 0; i < size; i++)
        value |= (uint64_t)from[i] << (8 * i);
    return value;
}

static inline void cake__put_le(cake__buf_t *buf, uint64_t value, size_t size)
{
    uint8_t *to = cake__buf_extend(buf, size);
    if (to != NULL)
        cake__store_le(to, value, size);
}

static inline void cake__put_u16(cake__buf_t *buf, uint16_t value)
{
    cake__put_le(buf, value, 2);
}

static inline void cake__put_u32(cake__buf_t *buf, uint32_t value)
{
    cake__put_le(buf, value, 4);
}

static inline void cake__put_u64(cake__buf_t *buf, uint64_t value)
{
    cake__put_le(buf, value, 8);
}

void cake__put_varint(cake__buf_t *buf, uint64_t value);
void cake__put_string(cake__buf_t *buf, cake_slice_t text); /* varint length, then the bytes */

typedef struct cake__reader {
    const uint8_t *at, *end;
    int err; /* 0 or CAKE_EPARSE */
} cake__reader_t;

/* data may be NULL when len is 0: adding to NULL is undefined even then, and NULL means past the end. */
static inline cake__reader_t cake__reader(const void *data, size_t len)
{
    const uint8_t *at = data == NULL ? (const uint8_t *)"" : data;
    return (cake__reader_t){at, at + len, 0};
}

static inline size_t cake__reader_left(const cake__reader_t *reader)
{
    return (size_t)(reader->end - reader->at);
}

/* In place; NULL past the end. */
static inline const uint8_t *cake__get_bytes(cake__reader_t *reader, size_t len)
{
    if (reader->err != 0 || cake__reader_left(reader) < len) {
        reader->err = CAKE_EPARSE;
        reader->at = reader->end;
        return NULL;
    }
    const uint8_t *from = reader->at;
    reader->at += len;
    return from;
}

static inline uint64_t cake__get_le(cake__reader_t *reader, size_t size)
{
    const uint8_t *from = cake__get_bytes(reader, size);
    return from == NULL ? 0 : cake__load_le(from, size);
}

uint64_t cake__get_varint(cake__reader_t *reader); /* the shortest form only: one value, one encoding */
cake_slice_t cake__get_string(cake__reader_t *reader, size_t max_len);

static inline uint8_t cake__get_u8(cake__reader_t *reader)
{
    return (uint8_t)cake__get_le(reader, 1);
}

static inline uint16_t cake__get_u16(cake__reader_t *reader)
{
    return (uint16_t)cake__get_le(reader, 2);
}

static inline uint32_t cake__get_u32(cake__reader_t *reader)
{
    return (uint32_t)cake__get_le(reader, 4);
}

static inline uint64_t cake__get_u64(cake__reader_t *reader)
{
    return cake__get_le(reader, 8);
}

/* Everything was read and nothing was malformed. */
static inline bool cake__reader_done(const cake__reader_t *reader)
{
    return reader->err == 0 && reader->at == reader->end;
}

#endif
