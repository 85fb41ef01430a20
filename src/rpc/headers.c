#include "rpc/headers.h"

static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

int cake__headers_check(const char *name, const char *value)
{
    /* of one connection or of HTTP itself (RFC 9113, 8.2.2) */
    static const char *const reserved[] = {"connection", "keep-alive",        "proxy-connection", "te",
                                           "upgrade",    "transfer-encoding", "content-length",   "host"};
    if (name == NULL || value == NULL || name[0] == '\0' || strncmp(name, "datacake-", 9) == 0)
        return CAKE_EINVAL;
    for (const char *at = name; *at != '\0'; at++) {
        if (!is_token_char(*at))
            return CAKE_EINVAL;
    }
    for (size_t i = 0; i < CAKE_COUNT_OF(reserved); i++) {
        if (strcmp(name, reserved[i]) == 0)
            return CAKE_EINVAL;
    }
    size_t len = strlen(value);
    for (size_t i = 0; i < len; i++) {
        if (value[i] < 0x20 || value[i] > 0x7e)
            return CAKE_EINVAL;
    }
    return len > 0 && (value[0] == ' ' || value[len - 1] == ' ') ? CAKE_EINVAL : 0;
}

int cake__headers_add(cake__headers_t *headers, cake_slice_t name, cake_slice_t value)
{
    if (headers->count >= CAKE__HEADERS_MAX)
        return CAKE_ETOOBIG;
    uint8_t *to = cake__buf_extend(&headers->buf, name.len + value.len + 2);
    if (to == NULL) {
        int err = headers->buf.err;
        headers->buf.err = 0; /* what is there stays whole */
        return err;
    }
    memcpy(to, name.data, name.len);
    to[name.len] = '\0';
    if (value.len > 0)
        memcpy(to + name.len + 1, value.data, value.len);
    to[name.len + 1 + value.len] = '\0';
    headers->count++;
    return 0;
}

const char *cake__headers_get(const cake__headers_t *headers, const char *name)
{
    const char *at = (const char *)headers->buf.data;
    for (size_t i = 0; i < headers->count; i++) {
        const char *value = at + strlen(at) + 1;
        if (strcmp(at, name) == 0)
            return value;
        at = value + strlen(value) + 1;
    }
    return NULL;
}

size_t cake__headers_fill(const cake__headers_t *headers, cake__h2_header_t *out)
{
    const char *at = (const char *)headers->buf.data;
    for (size_t i = 0; i < headers->count; i++) {
        cake_slice_t name = cake__slice_str(at), value = cake__slice_str(at + name.len + 1);
        out[i] = cake__header(name, value, false);
        at += name.len + value.len + 2;
    }
    return headers->count;
}

bool cake__is_rpc_name(const char *name)
{
    size_t len = name == NULL ? 0 : strlen(name);
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_letter && c != '.' && c != '_' && c != '-')
            return false;
    }
    return len >= 1 && len <= CAKE_RPC_NAME_MAX;
}

bool cake__is_cluster_id(const char *text)
{
    return text == NULL || cake__is_name(cake__slice_str(text), CAKE_RPC_NAME_MAX);
}

void cake__hex_write(uint64_t value, char out[CAKE__HEX_BYTES])
{
    for (size_t i = 0; i < CAKE__HEX_BYTES; i++)
        out[i] = "0123456789abcdef"[value >> (60 - 4 * i) & 15];
}

bool cake__hex_read(cake_slice_t text, uint64_t *out)
{
    const char *at = text.data;
    *out = 0;
    for (size_t i = 0; i < text.len; i++) {
        bool is_digit = at[i] >= '0' && at[i] <= '9', is_letter = at[i] >= 'a' && at[i] <= 'f';
        if (!is_digit && !is_letter)
            return false;
        *out = *out << 4 | (uint64_t)(is_digit ? at[i] - '0' : at[i] - 'a' + 10);
    }
    return text.len == CAKE__HEX_BYTES;
}

cake_slice_t cake__decimal_write(int64_t value, char room[CAKE__DECIMAL_MAX])
{
    uint64_t left = value < 0 ? -(uint64_t)value : (uint64_t)value;
    size_t at = CAKE__DECIMAL_MAX;
    do {
        room[--at] = (char)('0' + left % 10);
    } while ((left /= 10) != 0);
    if (value < 0)
        room[--at] = '-';
    return cake__slice(room + at, CAKE__DECIMAL_MAX - at);
}

bool cake__decimal_read(cake_slice_t text, uint64_t *out)
{
    const char *at = text.data;
    *out = 0;
    for (size_t i = 0; i < text.len && i < 19; i++) {
        if (at[i] < '0' || at[i] > '9')
            return false;
        *out = *out * 10 + (uint64_t)(at[i] - '0');
    }
    return text.len >= 1 && text.len <= 19;
}
