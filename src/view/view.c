/* view.c: writing and checking messages by their type's list of fields. The format is pictured in <datacake/view.h>.
 *
 * What the check establishes for a type's own slots, and the accessors rely on:
 *   - header, presence bits and all n slots lie inside the message, the message inside its buffer;
 *   - a scalar's value fits its type;
 *   - an item lies wholly between the end of the one before it and the end of the message (strings with their NUL),
 *     and a message in it is checked in the same way.
 * Slots past the type's last field belong to newer versions: nobody reads them. */
#include <datacake/view.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/bytes.h"

#define HEADER_BYTES  8u
#define VERSION       1u
#define ITEM_ALIGN    8u
#define CHECKSUM_SIZE 8u
#define HAS_CHECKSUM  0xc5u /* far from 0: no few flipped bits make a message say that it never had one */

const uint8_t cake_view_empty[8] = {8, 0, 0, 0, 0, 0, VERSION, 0};

static size_t slots_at(size_t slot_count)
{
    return HEADER_BYTES + (slot_count + 63) / 64 * 8;
}

static size_t aligned(size_t len)
{
    return (len + ITEM_ALIGN - 1) & ~(size_t)(ITEM_ALIGN - 1);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

typedef struct {
    cake__buf_t buf;
    int err;
} writer_t;

static void write_message(writer_t *writer, const cake_view_type_t *type, const uint8_t *message, unsigned depth);

static void fail(writer_t *writer, int err)
{
    if (writer->err == 0)
        writer->err = err;
}

static void pad(writer_t *writer)
{
    size_t len = aligned(writer->buf.len) - writer->buf.len;
    uint8_t *to = cake__buf_extend(&writer->buf, len);
    if (to != NULL)
        memset(to, 0, len);
}

static void set_slot(writer_t *writer, size_t start, const cake_view_type_t *type, size_t slot, uint64_t value)
{
    if (writer->buf.err != 0)
        return;
    uint8_t *message = writer->buf.data + start;
    message[HEADER_BYTES + slot / 8] |= (uint8_t)(1u << slot % 8);
    cake__store_le(message + slots_at(type->count) + 8 * slot, value, 8);
}

static uint64_t item_slot(size_t offset, size_t len)
{
    return (uint64_t)len << 32 | (uint32_t)offset;
}

static uint64_t native_scalar(const uint8_t *at, size_t width)
{
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
    switch (width) {
    case 1:
        memcpy(&u8, at, 1);
        return u8;
    case 2:
        memcpy(&u16, at, 2);
        return u16;
    case 4:
        memcpy(&u32, at, 4);
        return u32;
    default:
        memcpy(&u64, at, 8);
        return u64;
    }
}

static const void *pointer_at(const uint8_t *at)
{
    const void *pointer;
    memcpy(&pointer, at, sizeof pointer);
    return pointer;
}

static size_t size_at(const uint8_t *at)
{
    size_t size;
    memcpy(&size, at, sizeof size);
    return size;
}

static uint64_t write_bytes(writer_t *writer, size_t start, const void *data, size_t len)
{
    size_t offset = writer->buf.len - start;
    if (len > CAKE_VIEW_MAX_BYTES) {
        fail(writer, CAKE_ETOOBIG);
        return 0;
    }
    cake__put_bytes(&writer->buf, data, len);
    return item_slot(offset, len);
}

static uint64_t write_string(writer_t *writer, size_t start, const char *text)
{
    size_t len = text == NULL ? 0 : strlen(text);
    if (len > 0 && !cake__is_utf8(text, len))
        fail(writer, CAKE_EINVAL);
    uint64_t slot = write_bytes(writer, start, text, len);
    cake__put_u8(&writer->buf, 0);
    return slot;
}

static uint64_t write_array(writer_t *writer, size_t start, const uint8_t *elements, size_t count, size_t width)
{
    size_t offset = writer->buf.len - start;
    if (count > CAKE_VIEW_MAX_BYTES / width) {
        fail(writer, CAKE_ETOOBIG);
        return 0;
    }
    uint8_t *to = cake__buf_extend(&writer->buf, count * width);
    for (size_t i = 0; to != NULL && i < count; i++)
        cake__store_le(to + i * width, native_scalar(elements + i * width, width), width);
    return item_slot(offset, count);
}

static uint64_t write_messages(writer_t *writer, size_t start, const cake_view_type_t *type, const uint8_t *elements,
                               size_t count, unsigned depth)
{
    size_t item = writer->buf.len;
    if (count > CAKE_VIEW_MAX_BYTES / HEADER_BYTES) {
        fail(writer, CAKE_ETOOBIG);
        return 0;
    }
    (void)cake__buf_extend(&writer->buf, count * 4);
    for (size_t i = 0; i < count && writer->buf.err == 0 && writer->err == 0; i++) {
        pad(writer);
        size_t offset = writer->buf.len - item;
        write_message(writer, type, elements + i * type->struct_size, depth);
        if (writer->buf.err == 0)
            cake__store_le(writer->buf.data + item + 4 * i, offset, 4);
    }
    return item_slot(item - start, count);
}

static uint64_t write_nested(writer_t *writer, size_t start, const cake_view_type_t *type, const uint8_t *message,
                             unsigned depth)
{
    size_t at = writer->buf.len;
    write_message(writer, type, message, depth);
    return item_slot(at - start, writer->buf.len - at);
}

static void write_item(writer_t *writer, size_t start, const cake_view_type_t *type, size_t i, const uint8_t *message,
                       unsigned depth)
{
    const cake_view_field_t *field = &type->fields[i];
    const uint8_t *at = message + field->offset;
    cake_slice_t bytes = {NULL, 0};
    uint64_t slot = 0;
    bool is_optional =
        field->kind == CAKE_VIEW_OPT_BYTES || field->kind == CAKE_VIEW_OPT_STRING || field->kind == CAKE_VIEW_MESSAGE;
    if (is_optional && pointer_at(at) == NULL)
        return;
    pad(writer);
    switch (field->kind) {
    case CAKE_VIEW_FIXED:
        slot = write_bytes(writer, start, at, field->fixed_size);
        break;
    case CAKE_VIEW_BYTES:
    case CAKE_VIEW_OPT_BYTES:
        memcpy(&bytes, at, sizeof bytes);
        slot = write_bytes(writer, start, bytes.data, bytes.len);
        break;
    case CAKE_VIEW_STRING:
    case CAKE_VIEW_OPT_STRING:
        slot = write_string(writer, start, pointer_at(at));
        break;
    case CAKE_VIEW_ARRAY:
        slot = write_array(writer, start, pointer_at(at), size_at(message + field->count_offset), field->width);
        break;
    case CAKE_VIEW_MESSAGE:
        slot = write_nested(writer, start, field->type, pointer_at(at), depth + 1);
        break;
    default:
        slot = write_messages(writer, start, field->type, pointer_at(at), size_at(message + field->count_offset),
                              depth + 1);
        break;
    }
    set_slot(writer, start, type, i, slot);
}

static void write_message(writer_t *writer, const cake_view_type_t *type, const uint8_t *message, unsigned depth)
{
    CAKE_ASSERT(writer->buf.len % ITEM_ALIGN == 0 || writer->buf.err != 0);
    CAKE_ASSERT(type->count <= CAKE_VIEW_MAX_SLOTS);
    size_t start = writer->buf.len, fixed = slots_at(type->count) + 8 * type->count;
    if (depth >= CAKE_VIEW_MAX_DEPTH) {
        fail(writer, CAKE_EINVAL);
        return;
    }
    uint8_t *to = cake__buf_extend(&writer->buf, fixed);
    if (to == NULL)
        return;
    memset(to, 0, fixed);
    cake__store_le(to + 4, type->count, 2);
    to[6] = VERSION;
    for (size_t i = 0; i < type->count && writer->err == 0 && writer->buf.err == 0; i++) {
        const cake_view_field_t *field = &type->fields[i];
        if (field->kind == CAKE_VIEW_SCALAR)
            set_slot(writer, start, type, i, native_scalar(message + field->offset, field->width));
        else if (field->kind != CAKE_VIEW_OPT_SCALAR)
            write_item(writer, start, type, i, message, depth);
        else if (message[field->count_offset] != 0)
            set_slot(writer, start, type, i, native_scalar(message + field->offset, field->width));
    }
    pad(writer);
    if (writer->buf.err == 0)
        cake__store_le(writer->buf.data + start, writer->buf.len - start, 4);
}

int cake_view_encode(const cake_view_type_t *type, const void *message, unsigned flags, const cake_alloc_t *alloc,
                     void **data, size_t *len)
{
    writer_t writer = {.err = 0};
    *data = NULL;
    *len = 0;
    if ((flags & ~CAKE_VIEW_CHECKSUM) != 0)
        return CAKE_EINVAL;
    cake__buf_init(&writer.buf, cake__alloc_or_default(alloc));
    writer.buf.max = CAKE_VIEW_MAX_BYTES;
    write_message(&writer, type, message, 0);
    if ((flags & CAKE_VIEW_CHECKSUM) != 0 && writer.err == 0 && cake__buf_extend(&writer.buf, CHECKSUM_SIZE) != NULL) {
        size_t covered = writer.buf.len - CHECKSUM_SIZE;
        cake__store_le(writer.buf.data, writer.buf.len, 4);
        writer.buf.data[7] = HAS_CHECKSUM;
        cake__store_le(writer.buf.data + covered, XXH3_64bits(writer.buf.data, covered), CHECKSUM_SIZE);
    }
    int err = writer.err != 0 ? writer.err : writer.buf.err;
    if (err != 0) {
        cake__buf_free(&writer.buf);
        return err;
    }
    *data = writer.buf.data;
    *len = writer.buf.len;
    return 0;
}

void cake_view_free(const cake_alloc_t *alloc, void *data)
{
    cake__free(cake__alloc_or_default(alloc), data);
}

/* ---- checking ---------------------------------------------------------------------------------------------------- */

/* A message being checked: items must start at or after free_from and end by size. */
typedef struct {
    const uint8_t *data;
    size_t size, free_from;
    unsigned depth;
} checker_t;

static bool is_message(const cake_view_type_t *type, const uint8_t *data, size_t len, unsigned depth);

/* Takes len bytes at offset out of what is still free. */
static bool take(checker_t *checker, size_t offset, size_t len)
{
    if (offset % ITEM_ALIGN != 0 || offset < checker->free_from || offset > checker->size ||
        len > checker->size - offset)
        return false;
    checker->free_from = offset + len;
    return true;
}

static bool is_scalar(const cake_view_field_t *field, uint64_t value)
{
    if (field->is_bool)
        return value <= 1;
    return field->width == 8 || value >> (8 * field->width) == 0;
}

static bool is_string(checker_t *checker, size_t offset, size_t len)
{
    if (!take(checker, offset, len + 1) || checker->data[offset + len] != 0)
        return false;
    const char *text = (const char *)checker->data + offset;
    return len == 0 || (memchr(text, 0, len) == NULL && cake__is_utf8(text, len));
}

static bool are_messages(checker_t *checker, const cake_view_type_t *type, size_t offset, size_t count)
{
    if (!take(checker, offset, count * 4))
        return false;
    for (size_t i = 0; i < count; i++) {
        size_t at = offset + cake__load_le(checker->data + offset + 4 * i, 4);
        if (!take(checker, at, HEADER_BYTES))
            return false;
        size_t size = cake__load_le(checker->data + at, 4);
        if (size < HEADER_BYTES || !take(checker, at + HEADER_BYTES, size - HEADER_BYTES) ||
            !is_message(type, checker->data + at, size, checker->depth + 1))
            return false;
    }
    return true;
}

static bool is_field(checker_t *checker, const cake_view_field_t *field, uint64_t slot)
{
    size_t offset = (uint32_t)slot, len = (size_t)(slot >> 32);
    switch (field->kind) {
    case CAKE_VIEW_SCALAR:
    case CAKE_VIEW_OPT_SCALAR:
        return is_scalar(field, slot);
    case CAKE_VIEW_FIXED:
        return len == field->fixed_size && take(checker, offset, len);
    case CAKE_VIEW_BYTES:
    case CAKE_VIEW_OPT_BYTES:
        return take(checker, offset, len);
    case CAKE_VIEW_STRING:
    case CAKE_VIEW_OPT_STRING:
        return is_string(checker, offset, len);
    case CAKE_VIEW_ARRAY:
        return take(checker, offset, len * field->width);
    case CAKE_VIEW_MESSAGE:
        return len >= HEADER_BYTES && take(checker, offset, len) &&
               is_message(field->type, checker->data + offset, len, checker->depth + 1);
    default:
        return are_messages(checker, field->type, offset, len);
    }
}

/* data has at least the header's 8 bytes, and len of them. */
static bool is_message(const cake_view_type_t *type, const uint8_t *data, size_t len, unsigned depth)
{
    size_t count = cake__load_le(data + 4, 2), fixed = slots_at(count) + 8 * count;
    bool flags_fit = data[7] == 0 || (depth == 0 && data[7] == HAS_CHECKSUM);
    size_t size = len - (data[7] != 0 ? CHECKSUM_SIZE : 0);
    if (depth >= CAKE_VIEW_MAX_DEPTH || data[6] != VERSION || !flags_fit || count > CAKE_VIEW_MAX_SLOTS ||
        cake__load_le(data, 4) != len || len % ITEM_ALIGN != 0 || size > len || fixed > size)
        return false;
    checker_t checker = {data, size, fixed, depth};
    for (unsigned i = 0; i < type->count && i < count; i++) {
        if (cake_view__has(data, i) && !is_field(&checker, &type->fields[i], cake_view__slot(data, i)))
            return false;
    }
    return true;
}

int cake_view_check(const cake_view_type_t *type, const void *data, size_t len)
{
    const uint8_t *bytes = data;
    if (len < HEADER_BYTES || len > CAKE_VIEW_MAX_BYTES || cake__load_le(bytes, 4) != len)
        return CAKE_EPARSE;
    if (bytes[6] != VERSION)
        return CAKE_EVERSION;
    bool has_checksum = bytes[7] == HAS_CHECKSUM;
    if (has_checksum && (len < HEADER_BYTES + CHECKSUM_SIZE ||
                         XXH3_64bits(data, len - CHECKSUM_SIZE) != cake__load_le(bytes + len - CHECKSUM_SIZE, 8)))
        return CAKE_ECORRUPT;
    return is_message(type, bytes, len, 0) ? 0 : CAKE_EPARSE;
}
