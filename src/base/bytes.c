#include "base/bytes.h"

void cake__buf_release(cake__buf_t *buf)
{
    if (buf->alloc != NULL)
        cake__free(buf->alloc, buf->data);
    *buf = (cake__buf_t){.alloc = buf->alloc, .max = buf->max};
}

bool cake__buf_reserve(cake__buf_t *buf, size_t more)
{
    size_t need;
    if (buf->err != 0)
        return false;
    if (__builtin_add_overflow(buf->len, more, &need) || need > SIZE_MAX / 2 || (buf->max != 0 && need > buf->max)) {
        buf->err = CAKE_ETOOBIG;
        return false;
    }
    if (need <= buf->capacity && buf->data != NULL)
        return true;
    size_t capacity = buf->capacity < 64 ? 64 : buf->capacity;
    while (capacity < need)
        capacity += capacity / 2;
    uint8_t *data = cake__realloc(buf->alloc, buf->data, capacity);
    if (data == NULL) {
        buf->err = CAKE_ENOMEM;
        return false;
    }
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

uint8_t *cake__buf_extend(cake__buf_t *buf, size_t len)
{
    if (buf->capacity - buf->len < len || buf->data == NULL || buf->err != 0 || buf->max != 0) {
        if (!cake__buf_reserve(buf, len))
            return NULL;
    }
    uint8_t *to = buf->data + buf->len;
    buf->len += len;
    return to;
}

void cake__put_varint(cake__buf_t *buf, uint64_t value)
{
    uint8_t bytes[10];
    size_t len = 0;
    do {
        bytes[len++] = (uint8_t)(value | 0x80);
        value >>= 7;
    } while (value != 0);
    bytes[len - 1] &= 0x7f;
    cake__put_bytes(buf, bytes, len);
}

void cake__put_string(cake__buf_t *buf, cake_slice_t text)
{
    cake__put_varint(buf, text.len);
    cake__put_bytes(buf, text.data, text.len);
}

uint64_t cake__get_varint(cake__reader_t *reader)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = cake__get_u8(reader);
        uint64_t part = (uint64_t)(byte & 0x7f) << shift;
        bool overflows = part >> shift != (byte & 0x7f);
        bool is_padded = byte == 0 && shift > 0;
        if (reader->err != 0 || overflows || is_padded)
            break;
        value |= part;
        if (byte < 0x80)
            return value;
    }
    reader->err = CAKE_EPARSE;
    reader->at = reader->end;
    return 0;
}

cake_slice_t cake__get_string(cake__reader_t *reader, size_t max_len)
{
    uint64_t len = cake__get_varint(reader);
    if (len > max_len)
        reader->err = CAKE_EPARSE;
    const uint8_t *from = cake__get_bytes(reader, reader->err != 0 ? SIZE_MAX : (size_t)len);
    return cake__slice(from, from == NULL ? 0 : (size_t)len);
}
