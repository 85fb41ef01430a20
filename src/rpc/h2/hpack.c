#include "rpc/h2/hpack.h"

#define FIRST_DYNAMIC 62u

void cake__hpack_init(cake__hpack_t *hpack, const cake_alloc_t *alloc)
{
    *hpack = (cake__hpack_t){.alloc = alloc, .max_bytes = CAKE__HPACK_BYTES};
}

static void forget_entries(cake__hpack_t *hpack)
{
    for (uint32_t i = 0; i < hpack->count; i++)
        cake__free(hpack->alloc, hpack->entries[i].text);
    hpack->count = hpack->bytes = hpack->misses = 0;
}

void cake__hpack_free(cake__hpack_t *hpack)
{
    forget_entries(hpack);
    cake__free(hpack->alloc, hpack->entries);
    hpack->entries = NULL;
}

void cake__hpack_limit(cake__hpack_t *hpack, uint32_t max_bytes)
{
    uint32_t limit = max_bytes < CAKE__HPACK_BYTES ? max_bytes : CAKE__HPACK_BYTES;
    if (limit == hpack->max_bytes)
        return;
    hpack->max_bytes = limit;
    hpack->must_say_size = true;
}

/* ---- numbers and strings (RFC 7541, 5) ---- */

static uint8_t *put_number(uint8_t *to, uint8_t pattern, unsigned bits, size_t value)
{
    size_t most = ((size_t)1 << bits) - 1;
    if (value < most) {
        *to++ = (uint8_t)(pattern | value);
        return to;
    }
    *to++ = (uint8_t)(pattern | most);
    for (value -= most; value >= 128; value >>= 7)
        *to++ = (uint8_t)(value | 128);
    *to++ = (uint8_t)value;
    return to;
}

static uint8_t *put_text(uint8_t *to, cake_slice_t text)
{
    to = put_number(to, 0, 7, text.len);
    if (text.len > 0)
        memcpy(to, text.data, text.len);
    return to + text.len;
}

/* ---- the static table: what of it we send ---- */

typedef struct {
    const char *name, *value; /* value NULL: of the name alone */
    uint8_t index;
} known_t;

/* An index of the header as a whole, or of its name (then *is_whole is false), or 0. */
static uint8_t find_known(const cake__h2_header_t *header, bool *is_whole)
{
    static const known_t known[] = {{":method", "POST", 3},  {":scheme", "http", 6},      {":status", "200", 8},
                                    {":status", "404", 13},  {":status", "500", 14},      {":path", NULL, 4},
                                    {":authority", NULL, 1}, {"content-length", NULL, 28}};
    uint8_t by_name = 0;
    *is_whole = false;
    for (size_t i = 0; i < CAKE_COUNT_OF(known); i++) {
        if (!cake__slice_equal(header->name, cake__slice_str(known[i].name)))
            continue;
        by_name = known[i].index;
        *is_whole = known[i].value != NULL && cake__slice_equal(header->value, cake__slice_str(known[i].value));
        if (*is_whole)
            break;
    }
    return by_name;
}

/* ---- the table ---- */

static bool is_entry(const cake__hpack_entry_t *entry, const cake__h2_header_t *header)
{
    return entry->value_len == header->value.len && entry->name_len == header->name.len &&
           memcmp(entry->text + entry->name_len, header->value.data, entry->value_len) == 0 &&
           memcmp(entry->text, header->name.data, entry->name_len) == 0;
}

static uint32_t find_entry(const cake__hpack_t *hpack, const cake__h2_header_t *header)
{
    for (uint32_t i = 0; i < hpack->count; i++) {
        if (is_entry(&hpack->entries[i], header))
            return FIRST_DYNAMIC + hpack->count - 1 - i;
    }
    return 0;
}

static bool add_entry(cake__hpack_t *hpack, const cake__h2_header_t *header)
{
    size_t len = header->name.len + header->value.len;
    if (len > CAKE__HPACK_ENTRY_MAX || header->is_unique)
        return false;
    if (hpack->count == CAKE__HPACK_ENTRIES || hpack->bytes + len + 32 > hpack->max_bytes) {
        hpack->misses++;
        return false;
    }
    if (hpack->entries == NULL)
        hpack->entries = cake__malloc(hpack->alloc, CAKE__HPACK_ENTRIES * sizeof hpack->entries[0]);
    char *text = hpack->entries == NULL ? NULL : cake__malloc(hpack->alloc, len + 1);
    if (text == NULL)
        return false;
    memcpy(text, header->name.data, header->name.len);
    if (header->value.len > 0)
        memcpy(text + header->name.len, header->value.data, header->value.len);
    hpack->entries[hpack->count++] =
        (cake__hpack_entry_t){(uint16_t)header->name.len, (uint16_t)header->value.len, text};
    hpack->bytes += (uint32_t)len + 32;
    return true;
}

/* ---- blocks ---- */

size_t cake__hpack_most(const cake__h2_header_t *headers, size_t count)
{
    size_t most = CAKE__HPACK_OVERHEAD;
    for (size_t i = 0; i < count; i++)
        most += headers[i].name.len + headers[i].value.len + CAKE__HPACK_OVERHEAD;
    return most;
}

static uint8_t *put_header(cake__hpack_t *hpack, const cake__h2_header_t *header, uint8_t *to)
{
    bool is_whole = false;
    uint8_t known =
        ((const char *)header->name.data)[0] == ':' || header->name.len == 14 ? find_known(header, &is_whole) : 0;
    if (is_whole)
        return put_number(to, 0x80, 7, known);
    uint32_t index = header->is_unique ? 0 : find_entry(hpack, header);
    if (index != 0)
        return put_number(to, 0x80, 7, index);
    if (add_entry(hpack, header))
        to = put_number(to, 0x40, 6, known);
    else
        to = put_number(to, 0, 4, known);
    if (known == 0)
        to = put_text(to, header->name);
    return put_text(to, header->value);
}

size_t cake__hpack_write(cake__hpack_t *hpack, const cake__h2_header_t *headers, size_t count, uint8_t *out)
{
    uint8_t *to = out;
    if (hpack->must_say_size || hpack->misses > CAKE__HPACK_MISSES) {
        forget_entries(hpack);
        hpack->must_say_size = false;
        to = put_number(to, 0x20, 5, 0);
        to = put_number(to, 0x20, 5, hpack->max_bytes);
    }
    for (size_t i = 0; i < count; i++)
        to = put_header(hpack, &headers[i], to);
    return (size_t)(to - out);
}
