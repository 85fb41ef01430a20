/* Ids that hold their key; key.h has their form. */
#include <datacake/key.h>

#include "base/bytes.h"

#define TEXT_MAX     17u
#define LOW_56       UINT64_C(0x00ffffffffffffff)
#define UUID_LEN     36u
#define UUID_VARIANT 8 /* the byte whose two upper bits are 10 in every UUID of RFC 9562 */

/* ---- text: eight characters in seven bytes ----------------------------------------------------------------------- */

static uint64_t pack(uint64_t x)
{
    x = (x & UINT64_C(0x007f007f007f007f)) | (x & UINT64_C(0x7f007f007f007f00)) >> 1;
    x = (x & UINT64_C(0x00003fff00003fff)) | (x & UINT64_C(0x3fff00003fff0000)) >> 2;
    return (x & UINT64_C(0x0fffffff)) | (x & UINT64_C(0x0fffffff00000000)) >> 4;
}

static uint64_t unpack(uint64_t x)
{
    x = (x & UINT64_C(0x0fffffff)) | (x & UINT64_C(0x00fffffff0000000)) << 4;
    x = (x & UINT64_C(0x00003fff00003fff)) | (x & UINT64_C(0x0fffc0000fffc000)) << 2;
    return (x & UINT64_C(0x007f007f007f007f)) | (x & UINT64_C(0x3f803f803f803f80)) << 1;
}

static bool hold_text(cake_slice_t key, cake_id_t *id)
{
    const uint8_t *bytes = key.data;
    uint64_t first = cake__load_le(bytes, 8), second = cake__load_le(bytes + 8, 8);
    uint8_t last = key.len == TEXT_MAX ? bytes[16] : 0;
    if (((first | second | last) & UINT64_C(0x8080808080808080)) != 0)
        return false;
    cake__store_le(id->bytes, pack(first), 8);
    cake__store_le(id->bytes + 7, pack(second), 8);
    id->bytes[14] = last;
    id->bytes[15] = (uint8_t)key.len;
    return true;
}

static cake_slice_t text_of(const cake_id_t *id, char *room)
{
    uint8_t *to = (uint8_t *)room;
    cake__store_le(to, unpack(cake__load_le(id->bytes, 8) & LOW_56), 8);
    cake__store_le(to + 8, unpack(cake__load_le(id->bytes + 7, 8) & LOW_56), 8);
    to[16] = id->bytes[14];
    return cake__slice(room, id->bytes[15]);
}

/* ---- UUIDs: thirty-two digits and four dashes -------------------------------------------------------------------- */

static bool is_before_dash(int byte)
{
    return byte == 3 || byte == 5 || byte == 7 || byte == 9;
}

/* Where byte i of a UUID is in its id. */
static int place_of(int byte)
{
    return byte == UUID_VARIANT ? 15 : byte - (byte > UUID_VARIANT);
}

static int digit_of(uint8_t character)
{
    if (character >= '0' && character <= '9')
        return character - '0';
    return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

static bool hold_uuid(cake_slice_t key, cake_id_t *id)
{
    const uint8_t *from = key.data;
    cake_id_t made;
    for (int i = 0; i < 16; i++) {
        int high = digit_of(from[0]), low = digit_of(from[1]);
        if (high < 0 || low < 0)
            return false;
        made.bytes[place_of(i)] = (uint8_t)(high << 4 | low);
        from += 2;
        if (is_before_dash(i) && *from++ != '-')
            return false;
    }
    if ((made.bytes[15] & 0xc0) != 0x80)
        return false;
    *id = made;
    return true;
}

static cake_slice_t uuid_of(const cake_id_t *id, char *room)
{
    static const char digits[] = "0123456789abcdef";
    char *to = room;
    for (int i = 0; i < 16; i++) {
        uint8_t byte = id->bytes[place_of(i)];
        *to++ = digits[byte >> 4];
        *to++ = digits[byte & 15];
        if (is_before_dash(i))
            *to++ = '-';
    }
    return cake__slice(room, UUID_LEN);
}

/* ---- of any kind ------------------------------------------------------------------------------------------------- */

bool cake_id_of_key(cake_slice_t key, cake_id_t *id)
{
    if (key.len == 0 || key.len > CAKE_ID_KEY_MAX)
        return false;
    if (key.len == UUID_LEN)
        return hold_uuid(key, id);
    if (key.len > CAKE_ID_PLAIN_MAX)
        return key.len <= TEXT_MAX && hold_text(key, id);
    *id = (cake_id_t){{0}};
    memcpy(id->bytes, key.data, key.len);
    id->bytes[15] = (uint8_t)key.len;
    return true;
}

cake_slice_t cake_id_key(const cake_id_t *id, char room[CAKE_ID_KEY_MAX])
{
    if (id->bytes[15] <= CAKE_ID_PLAIN_MAX)
        return cake__slice(id->bytes, id->bytes[15]);
    if (!cake_id_holds_key(id))
        return cake__slice(NULL, 0);
    return id->bytes[15] <= TEXT_MAX ? text_of(id, room) : uuid_of(id, room);
}
