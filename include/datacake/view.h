/* datacake/view.h: messages that are read where they lie. A type is declared once, as a list of fields; that gives a
 * struct to fill, an encoder, and a view whose accessors read the received bytes in place.
 *
 *   #define POINT_FIELDS(F, T) F(T, DOUBLE, x, 0) F(T, DOUBLE, y, 0)
 *   CAKE_VIEW(point, POINT_FIELDS)
 *   #define SHAPE_FIELDS(F, T)  F(T, U64, id, 0)  F(T, STRING, name, _)  F(T, MESSAGES, corners, point)
 *   CAKE_VIEW(shape, SHAPE_FIELDS)
 *
 *   shape_t shape = {.id = 7, .name = "triangle", .corners = points, .corners_count = 3};
 *   err = shape_encode(&shape, CAKE_VIEW_CHECKSUM, NULL, &data, &len);                  ... cake_view_free(NULL, data);
 *   shape_view_t view;
 *   if (shape_view_init(&view, data, len) == 0)           // every offset and length in it is checked here, once
 *       x = point_x(shape_corners_at(view, 2));           // so that accessors need not
 *
 * F(T, kind, name, parameter)         in the struct                          accessors, all taking the view first
 *   U8 U16 U32 U64 I64 DOUBLE BOOL      T name                                 T type_name(v); parameter: the default
 *   OPT_U8 ... OPT_BOOL                 bool has_name; T name                  type_has_name(v); type_name(v) or 0
 *   FIXED                               uint8_t name[parameter]                const uint8_t *type_name(v) or zeroes
 *   BYTES                               cake_slice_t name                      cake_slice_t type_name(v)
 *   OPT_BYTES                           the same; data NULL: absent            and type_has_name(v)
 *   STRING                              const char *name; NULL is ""           const char *type_name(v), UTF-8 and NUL
 *   OPT_STRING                          the same; NULL: absent                 and type_has_name(v)
 *   ARRAY_U8 ... ARRAY_DOUBLE           const T *name; size_t name_count       type_name_count(v), type_name_at(v, i)
 *   MESSAGE (parameter: its type)       const parameter_t *name; NULL: absent  bool type_name(v, parameter_view_t *out)
 *   MESSAGES (parameter: its type)      const parameter_t *name; name_count    type_name_count(v), type_name_at(v, i)
 * An index past the end gives 0, or a message whose fields all have their defaults. A type may contain itself.
 *
 * Versions: fields are only ever added at the end of the list, and their kinds never change. A reader skips fields
 * newer than it; fields that an older writer did not know read as their defaults, empty or absent.
 *
 * The bytes, little-endian throughout; offsets count from the start of their message, items start at multiples of 8:
 *
 *      0        4       6         7       8                 8 + 8b              8 + 8b + 8n
 *      +--------+-------+---------+-------+-----------------+-------------------+--------- ... ----------+------------+
 *      | size   | n     | version | flags | presence bits   | n slots of 8      | items, in slot order   | checksum   |
 *      | u32    | u16   | u8 = 1  | u8    | b = ceil(n/64)  |                   |                        | (optional) |
 *      +--------+-------+---------+-------+-----------------+-------------------+--------- ... ----------+------------+
 *      slot of a scalar   its value in 8 bytes                      item of a string     bytes, NUL
 *      slot of an item    u32 offset, u32 length or count           item of messages     u32 offset[count] from the
 *                                                                                       item's start, then the messages
 *   size counts all of it, and is a multiple of 8. flags: 0, or 0xc5: the last 8 bytes are XXH3_64bits of what is
 *   before (outermost only). Items may not overlap and come in the order of their slots, so that checking a message
 *   takes time linear in its size.
 *
 * Any thread may call anything here. C only: the generated code is not C++. */
#ifndef DATACAKE_VIEW_H
#define DATACAKE_VIEW_H

#include <string.h>

#include <datacake/base.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CAKE_VIEW_CHECKSUM  1u
#define CAKE_VIEW_MAX_DEPTH 32u           /* messages in messages; deeper ones are CAKE_EINVAL, CAKE_EPARSE */
#define CAKE_VIEW_MAX_BYTES (1024u << 20) /* CAKE_ETOOBIG */
#define CAKE_VIEW_MAX_SLOTS 4096u

/* ---- what the generated code stands on --------------------------------------------------------------------------- */

typedef enum cake_view_kind {
    CAKE_VIEW_SCALAR,     /* slot: the value */
    CAKE_VIEW_OPT_SCALAR, /* bool at the offset of has_ */
    CAKE_VIEW_FIXED,      /* slot: offset, size */
    CAKE_VIEW_BYTES,
    CAKE_VIEW_OPT_BYTES,
    CAKE_VIEW_STRING,
    CAKE_VIEW_OPT_STRING,
    CAKE_VIEW_ARRAY,   /* slot: offset, count */
    CAKE_VIEW_MESSAGE, /* slot: offset, size */
    CAKE_VIEW_MESSAGES /* slot: offset, count */
} cake_view_kind_t;

struct cake_view_type;

typedef struct cake_view_field {
    cake_view_kind_t kind;
    uint8_t width; /* bytes of a scalar or of an array's element */
    bool is_bool;
    size_t offset;       /* in the struct */
    size_t count_offset; /* of name_count, or of has_name */
    size_t fixed_size;
    const struct cake_view_type *type; /* of messages */
} cake_view_field_t;

typedef struct cake_view_type {
    const cake_view_field_t *fields;
    size_t count;
    size_t struct_size;
} cake_view_type_t;

/* 0, CAKE_EINVAL (not UTF-8, too deep), CAKE_ETOOBIG, CAKE_ENOMEM. alloc NULL: the C library's. */
CAKE_API int cake_view_encode(const cake_view_type_t *type, const void *message, unsigned flags,
                              const cake_alloc_t *alloc, void **data, size_t *len);
CAKE_API void cake_view_free(const cake_alloc_t *alloc, void *data);

/* 0; CAKE_EPARSE: not such a message; CAKE_ECORRUPT: the checksum is wrong; CAKE_EVERSION: of another format. */
CAKE_API int cake_view_check(const cake_view_type_t *type, const void *data, size_t len);

extern CAKE_API const uint8_t cake_view_empty[8]; /* a message without fields */

static inline uint64_t cake_view__load(const uint8_t *at, unsigned width)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static inline bool cake_view__has(const uint8_t *message, unsigned slot)
{
    return slot < cake_view__load(message + 4, 2) && (message[8 + slot / 8] >> (slot % 8) & 1) != 0;
}

static inline uint64_t cake_view__slot(const uint8_t *message, unsigned slot)
{
    size_t bitmap = (size_t)(cake_view__load(message + 4, 2) + 63) / 64 * 8;
    return cake_view__load(message + 8 + bitmap + 8 * (size_t)slot, 8);
}

static inline const uint8_t *cake_view__item(const uint8_t *message, unsigned slot, size_t *len)
{
    uint64_t value = cake_view__has(message, slot) ? cake_view__slot(message, slot) : 0;
    *len = (size_t)(value >> 32);
    return message + (uint32_t)value;
}

static inline uint64_t cake_view__at(const uint8_t *message, unsigned slot, unsigned width, size_t index)
{
    size_t count;
    const uint8_t *item = cake_view__item(message, slot, &count);
    return index < count ? cake_view__load(item + index * width, width) : 0;
}

static inline const uint8_t *cake_view__message_at(const uint8_t *message, unsigned slot, size_t index)
{
    size_t count;
    const uint8_t *item = cake_view__item(message, slot, &count);
    return index < count ? item + cake_view__load(item + index * 4, 4) : cake_view_empty;
}

static inline double cake_view__double(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- the generator ----------------------------------------------------------------------------------------------- */

#define CAKE_VIEW__INLINE static inline __attribute__((unused))

/* clang-format off */
#define CAKE_VIEW(T, FIELDS)                                                                                           \
    typedef struct T T##_t;                                                                                            \
    typedef struct T##_view { const uint8_t *data; } T##_view_t;                                                       \
    struct T { FIELDS(CAKE_VIEW__STRUCT, T) };                                                                         \
    enum { FIELDS(CAKE_VIEW__SLOT, T) T##__slots };                                                                    \
    static const cake_view_type_t T##_type;                                                                            \
    static const cake_view_field_t T##__fields[] = {FIELDS(CAKE_VIEW__FIELD, T)};                                      \
    static const cake_view_type_t T##_type = {T##__fields, T##__slots, sizeof(T##_t)};                                 \
    CAKE_VIEW__INLINE int T##_encode(const T##_t *message, unsigned flags, const cake_alloc_t *alloc, void **data,     \
                                     size_t *len)                                                                      \
    { return cake_view_encode(&T##_type, message, flags, alloc, data, len); }                                          \
    CAKE_VIEW__INLINE int T##_view_init(T##_view_t *view, const void *data, size_t len)                                \
    {                                                                                                                  \
        int err = cake_view_check(&T##_type, data, len);                                                               \
        view->data = err == 0 ? (const uint8_t *)data : cake_view_empty;                                               \
        return err;                                                                                                    \
    }                                                                                                                  \
    FIELDS(CAKE_VIEW__ACCESS, T)

#define CAKE_VIEW__SLOT(T, kind, name, p)   T##__slot_##name,
#define CAKE_VIEW__STRUCT(T, kind, name, p) CAKE_VIEW__STRUCT_##kind(name, p)
#define CAKE_VIEW__FIELD(T, kind, name, p)  CAKE_VIEW__FIELD_##kind(T, name, p),
#define CAKE_VIEW__ACCESS(T, kind, name, p) CAKE_VIEW__ACCESS_##kind(T, name, p)

#define CAKE_VIEW__STRUCT_U8(name, p)     uint8_t name;
#define CAKE_VIEW__STRUCT_U16(name, p)    uint16_t name;
#define CAKE_VIEW__STRUCT_U32(name, p)    uint32_t name;
#define CAKE_VIEW__STRUCT_U64(name, p)    uint64_t name;
#define CAKE_VIEW__STRUCT_I64(name, p)    int64_t name;
#define CAKE_VIEW__STRUCT_DOUBLE(name, p) double name;
#define CAKE_VIEW__STRUCT_BOOL(name, p)   bool name;
#define CAKE_VIEW__STRUCT_OPT_U8(name, p)     bool has_##name; uint8_t name;
#define CAKE_VIEW__STRUCT_OPT_U16(name, p)    bool has_##name; uint16_t name;
#define CAKE_VIEW__STRUCT_OPT_U32(name, p)    bool has_##name; uint32_t name;
#define CAKE_VIEW__STRUCT_OPT_U64(name, p)    bool has_##name; uint64_t name;
#define CAKE_VIEW__STRUCT_OPT_I64(name, p)    bool has_##name; int64_t name;
#define CAKE_VIEW__STRUCT_OPT_DOUBLE(name, p) bool has_##name; double name;
#define CAKE_VIEW__STRUCT_OPT_BOOL(name, p)   bool has_##name; bool name;
#define CAKE_VIEW__STRUCT_FIXED(name, p)      uint8_t name[p];
#define CAKE_VIEW__STRUCT_BYTES(name, p)      cake_slice_t name;
#define CAKE_VIEW__STRUCT_OPT_BYTES(name, p)  cake_slice_t name;
#define CAKE_VIEW__STRUCT_STRING(name, p)     const char *name;
#define CAKE_VIEW__STRUCT_OPT_STRING(name, p) const char *name;
#define CAKE_VIEW__STRUCT_ARRAY_U8(name, p)     const uint8_t *name; size_t name##_count;
#define CAKE_VIEW__STRUCT_ARRAY_U16(name, p)    const uint16_t *name; size_t name##_count;
#define CAKE_VIEW__STRUCT_ARRAY_U32(name, p)    const uint32_t *name; size_t name##_count;
#define CAKE_VIEW__STRUCT_ARRAY_U64(name, p)    const uint64_t *name; size_t name##_count;
#define CAKE_VIEW__STRUCT_ARRAY_I64(name, p)    const int64_t *name; size_t name##_count;
#define CAKE_VIEW__STRUCT_ARRAY_DOUBLE(name, p) const double *name; size_t name##_count;
#define CAKE_VIEW__STRUCT_MESSAGE(name, p)    const struct p *name;
#define CAKE_VIEW__STRUCT_MESSAGES(name, p)   const struct p *name; size_t name##_count;

#define CAKE_VIEW__F_SCALAR(T, name, width_, is_bool_)                                                                 \
    {.kind = CAKE_VIEW_SCALAR, .width = width_, .is_bool = is_bool_, .offset = offsetof(T##_t, name)}
#define CAKE_VIEW__F_OPT(T, name, width_, is_bool_)                                                                    \
    {.kind = CAKE_VIEW_OPT_SCALAR, .width = width_, .is_bool = is_bool_, .offset = offsetof(T##_t, name),              \
     .count_offset = offsetof(T##_t, has_##name)}
#define CAKE_VIEW__F_ITEM(T, name, kind_) {.kind = CAKE_VIEW_##kind_, .offset = offsetof(T##_t, name)}
#define CAKE_VIEW__F_ARRAY(T, name, width_)                                                                            \
    {.kind = CAKE_VIEW_ARRAY, .width = width_, .offset = offsetof(T##_t, name),                                        \
     .count_offset = offsetof(T##_t, name##_count)}

#define CAKE_VIEW__FIELD_U8(T, name, p)         CAKE_VIEW__F_SCALAR(T, name, 1, false)
#define CAKE_VIEW__FIELD_U16(T, name, p)        CAKE_VIEW__F_SCALAR(T, name, 2, false)
#define CAKE_VIEW__FIELD_U32(T, name, p)        CAKE_VIEW__F_SCALAR(T, name, 4, false)
#define CAKE_VIEW__FIELD_U64(T, name, p)        CAKE_VIEW__F_SCALAR(T, name, 8, false)
#define CAKE_VIEW__FIELD_I64(T, name, p)        CAKE_VIEW__F_SCALAR(T, name, 8, false)
#define CAKE_VIEW__FIELD_DOUBLE(T, name, p)     CAKE_VIEW__F_SCALAR(T, name, 8, false)
#define CAKE_VIEW__FIELD_BOOL(T, name, p)       CAKE_VIEW__F_SCALAR(T, name, 1, true)
#define CAKE_VIEW__FIELD_OPT_U8(T, name, p)     CAKE_VIEW__F_OPT(T, name, 1, false)
#define CAKE_VIEW__FIELD_OPT_U16(T, name, p)    CAKE_VIEW__F_OPT(T, name, 2, false)
#define CAKE_VIEW__FIELD_OPT_U32(T, name, p)    CAKE_VIEW__F_OPT(T, name, 4, false)
#define CAKE_VIEW__FIELD_OPT_U64(T, name, p)    CAKE_VIEW__F_OPT(T, name, 8, false)
#define CAKE_VIEW__FIELD_OPT_I64(T, name, p)    CAKE_VIEW__F_OPT(T, name, 8, false)
#define CAKE_VIEW__FIELD_OPT_DOUBLE(T, name, p) CAKE_VIEW__F_OPT(T, name, 8, false)
#define CAKE_VIEW__FIELD_OPT_BOOL(T, name, p)   CAKE_VIEW__F_OPT(T, name, 1, true)
#define CAKE_VIEW__FIELD_FIXED(T, name, p)                                                                             \
    {.kind = CAKE_VIEW_FIXED, .offset = offsetof(T##_t, name), .fixed_size = (p)}
#define CAKE_VIEW__FIELD_BYTES(T, name, p)        CAKE_VIEW__F_ITEM(T, name, BYTES)
#define CAKE_VIEW__FIELD_OPT_BYTES(T, name, p)    CAKE_VIEW__F_ITEM(T, name, OPT_BYTES)
#define CAKE_VIEW__FIELD_STRING(T, name, p)       CAKE_VIEW__F_ITEM(T, name, STRING)
#define CAKE_VIEW__FIELD_OPT_STRING(T, name, p)   CAKE_VIEW__F_ITEM(T, name, OPT_STRING)
#define CAKE_VIEW__FIELD_ARRAY_U8(T, name, p)     CAKE_VIEW__F_ARRAY(T, name, 1)
#define CAKE_VIEW__FIELD_ARRAY_U16(T, name, p)    CAKE_VIEW__F_ARRAY(T, name, 2)
#define CAKE_VIEW__FIELD_ARRAY_U32(T, name, p)    CAKE_VIEW__F_ARRAY(T, name, 4)
#define CAKE_VIEW__FIELD_ARRAY_U64(T, name, p)    CAKE_VIEW__F_ARRAY(T, name, 8)
#define CAKE_VIEW__FIELD_ARRAY_I64(T, name, p)    CAKE_VIEW__F_ARRAY(T, name, 8)
#define CAKE_VIEW__FIELD_ARRAY_DOUBLE(T, name, p) CAKE_VIEW__F_ARRAY(T, name, 8)
#define CAKE_VIEW__FIELD_MESSAGE(T, name, p)                                                                           \
    {.kind = CAKE_VIEW_MESSAGE, .offset = offsetof(T##_t, name), .type = &p##_type}
#define CAKE_VIEW__FIELD_MESSAGES(T, name, p)                                                                          \
    {.kind = CAKE_VIEW_MESSAGES, .offset = offsetof(T##_t, name), .count_offset = offsetof(T##_t, name##_count),       \
     .type = &p##_type}

#define CAKE_VIEW__GET(T, name, type, convert, otherwise)                                                              \
    CAKE_VIEW__INLINE type T##_##name(T##_view_t view)                                                                 \
    {                                                                                                                  \
        bool has = cake_view__has(view.data, T##__slot_##name);                                                        \
        return has ? (type)convert(cake_view__slot(view.data, T##__slot_##name)) : (type)(otherwise);                  \
    }
#define CAKE_VIEW__HAS(T, name)                                                                                        \
    CAKE_VIEW__INLINE bool T##_has_##name(T##_view_t view) { return cake_view__has(view.data, T##__slot_##name); }
#define CAKE_VIEW__AT(T, name, type, width, convert)                                                                   \
    CAKE_VIEW__COUNT(T, name)                                                                                          \
    CAKE_VIEW__INLINE type T##_##name##_at(T##_view_t view, size_t index)                                              \
    { return (type)convert(cake_view__at(view.data, T##__slot_##name, width, index)); }
#define CAKE_VIEW__COUNT(T, name)                                                                                      \
    CAKE_VIEW__INLINE size_t T##_##name##_count(T##_view_t view)                                                       \
    { size_t count; (void)cake_view__item(view.data, T##__slot_##name, &count); return count; }

#define CAKE_VIEW__ACCESS_U8(T, name, p)         CAKE_VIEW__GET(T, name, uint8_t, , p)
#define CAKE_VIEW__ACCESS_U16(T, name, p)        CAKE_VIEW__GET(T, name, uint16_t, , p)
#define CAKE_VIEW__ACCESS_U32(T, name, p)        CAKE_VIEW__GET(T, name, uint32_t, , p)
#define CAKE_VIEW__ACCESS_U64(T, name, p)        CAKE_VIEW__GET(T, name, uint64_t, , p)
#define CAKE_VIEW__ACCESS_I64(T, name, p)        CAKE_VIEW__GET(T, name, int64_t, , p)
#define CAKE_VIEW__ACCESS_DOUBLE(T, name, p)     CAKE_VIEW__GET(T, name, double, cake_view__double, p)
#define CAKE_VIEW__ACCESS_BOOL(T, name, p)       CAKE_VIEW__GET(T, name, bool, , p)
#define CAKE_VIEW__ACCESS_OPT_U8(T, name, p)     CAKE_VIEW__HAS(T, name) CAKE_VIEW__GET(T, name, uint8_t, , 0)
#define CAKE_VIEW__ACCESS_OPT_U16(T, name, p)    CAKE_VIEW__HAS(T, name) CAKE_VIEW__GET(T, name, uint16_t, , 0)
#define CAKE_VIEW__ACCESS_OPT_U32(T, name, p)    CAKE_VIEW__HAS(T, name) CAKE_VIEW__GET(T, name, uint32_t, , 0)
#define CAKE_VIEW__ACCESS_OPT_U64(T, name, p)    CAKE_VIEW__HAS(T, name) CAKE_VIEW__GET(T, name, uint64_t, , 0)
#define CAKE_VIEW__ACCESS_OPT_I64(T, name, p)    CAKE_VIEW__HAS(T, name) CAKE_VIEW__GET(T, name, int64_t, , 0)
#define CAKE_VIEW__ACCESS_OPT_DOUBLE(T, name, p)                                                                       \
    CAKE_VIEW__HAS(T, name) CAKE_VIEW__GET(T, name, double, cake_view__double, 0)
#define CAKE_VIEW__ACCESS_OPT_BOOL(T, name, p)   CAKE_VIEW__HAS(T, name) CAKE_VIEW__GET(T, name, bool, , 0)
#define CAKE_VIEW__ACCESS_FIXED(T, name, p)                                                                            \
    CAKE_VIEW__INLINE const uint8_t *T##_##name(T##_view_t view)                                                       \
    {                                                                                                                  \
        static const uint8_t zeroes[p];                                                                                \
        size_t len;                                                                                                    \
        const uint8_t *item = cake_view__item(view.data, T##__slot_##name, &len);                                      \
        return len != 0 ? item : zeroes;                                                                               \
    }
#define CAKE_VIEW__ACCESS_BYTES(T, name, p)                                                                            \
    CAKE_VIEW__INLINE cake_slice_t T##_##name(T##_view_t view)                                                         \
    {                                                                                                                  \
        cake_slice_t slice;                                                                                            \
        slice.data = cake_view__item(view.data, T##__slot_##name, &slice.len);                                         \
        return slice;                                                                                                  \
    }
#define CAKE_VIEW__ACCESS_OPT_BYTES(T, name, p) CAKE_VIEW__HAS(T, name) CAKE_VIEW__ACCESS_BYTES(T, name, p)
#define CAKE_VIEW__ACCESS_STRING(T, name, p)                                                                           \
    CAKE_VIEW__INLINE const char *T##_##name(T##_view_t view)                                                          \
    {                                                                                                                  \
        size_t len;                                                                                                    \
        const uint8_t *item = cake_view__item(view.data, T##__slot_##name, &len);                                      \
        return len != 0 ? (const char *)item : "";                                                                     \
    }
#define CAKE_VIEW__ACCESS_OPT_STRING(T, name, p) CAKE_VIEW__HAS(T, name) CAKE_VIEW__ACCESS_STRING(T, name, p)
#define CAKE_VIEW__ACCESS_ARRAY_U8(T, name, p)     CAKE_VIEW__AT(T, name, uint8_t, 1, )
#define CAKE_VIEW__ACCESS_ARRAY_U16(T, name, p)    CAKE_VIEW__AT(T, name, uint16_t, 2, )
#define CAKE_VIEW__ACCESS_ARRAY_U32(T, name, p)    CAKE_VIEW__AT(T, name, uint32_t, 4, )
#define CAKE_VIEW__ACCESS_ARRAY_U64(T, name, p)    CAKE_VIEW__AT(T, name, uint64_t, 8, )
#define CAKE_VIEW__ACCESS_ARRAY_I64(T, name, p)    CAKE_VIEW__AT(T, name, int64_t, 8, )
#define CAKE_VIEW__ACCESS_ARRAY_DOUBLE(T, name, p) CAKE_VIEW__AT(T, name, double, 8, cake_view__double)
#define CAKE_VIEW__ACCESS_MESSAGE(T, name, p)                                                                          \
    CAKE_VIEW__INLINE bool T##_##name(T##_view_t view, p##_view_t *out)                                                \
    {                                                                                                                  \
        size_t len;                                                                                                    \
        const uint8_t *item = cake_view__item(view.data, T##__slot_##name, &len);                                      \
        out->data = len != 0 ? item : cake_view_empty;                                                                 \
        return len != 0;                                                                                               \
    }
#define CAKE_VIEW__ACCESS_MESSAGES(T, name, p)                                                                         \
    CAKE_VIEW__COUNT(T, name)                                                                                          \
    CAKE_VIEW__INLINE p##_view_t T##_##name##_at(T##_view_t view, size_t index)                                        \
    { return (p##_view_t){cake_view__message_at(view.data, T##__slot_##name, index)}; }
/* clang-format on */

#ifdef __cplusplus
}
#endif
#endif
