/* text.c: see text.h. */
#include "text.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(text_t *text, size_t more)
{
    if (text->failed)
        return false;
    if (more > SIZE_MAX / 4 - text->len || (text->max != 0 && text->len + more > text->max)) {
        text->failed = true;
        return false;
    }
    size_t needed = text->len + more + 1;
    if (needed <= text->size)
        return true;
    size_t size = text->size == 0 ? 256 : text->size;
    while (size < needed)
        size *= 2;
    char *data = realloc(text->data, size);
    if (data == NULL) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->size = size;
    return true;
}

void text_append(text_t *text, const void *data, size_t len)
{
    if (!reserve(text, len))
        return;
    if (len > 0)
        memcpy(text->data + text->len, data, len);
    text->len += len;
    text->data[text->len] = 0;
    assert(text->len < text->size);
}

void text_add(text_t *text, const char *string)
{
    text_append(text, string, strlen(string));
}

void text_printf(text_t *text, const char *format, ...)
{
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    int len = vsnprintf(NULL, 0, format, list);
    va_end(list);
    if (len < 0)
        text->failed = true;
    else if (reserve(text, (size_t)len)) {
        vsnprintf(text->data + text->len, (size_t)len + 1, format, again);
        text->len += (size_t)len;
    }
    va_end(again);
}

static int dump_piece(const char *piece, size_t len, void *arg)
{
    text_t *text = arg;
    text_append(text, piece, len);
    return text->failed ? -1 : 0;
}

void text_json(text_t *text, const json_t *value)
{
    if (value == NULL || json_dump_callback(value, dump_piece, text, JSON_COMPACT | JSON_ENCODE_ANY) != 0)
        text->failed = true;
}

void text_clear(text_t *text)
{
    text->len = 0;
    text->failed = false;
}

void text_free(text_t *text)
{
    free(text->data);
    *text = TEXT_INIT(text->max);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int percent_decode(const char *in, size_t len, void *out, size_t size, size_t *out_len)
{
    unsigned char *to = out;
    size_t used = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)in[i];
        if (in[i] == '%') {
            int high = i + 2 < len ? hex_digit(in[i + 1]) : -1;
            int low = i + 2 < len ? hex_digit(in[i + 2]) : -1;
            if (high < 0 || low < 0)
                return CAKE_EPARSE;
            byte = (unsigned char)(high << 4 | low);
            i += 2;
        }
        if (used == size)
            return CAKE_ETOOBIG;
        to[used++] = byte;
    }
    *out_len = used;
    return 0;
}

void percent_encode(text_t *out, const void *data, size_t len)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = bytes[i];
        bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
                     c == '.' || c == '_' || c == '~';
        if (plain)
            text_append(out, &c, 1);
        else
            text_printf(out, "%%%02X", c);
    }
}

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(text_t *out, const void *data, size_t len)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < len; i += 3) {
        size_t left = len - i;
        uint32_t group = (uint32_t)bytes[i] << 16;
        group |= left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0;
        group |= left > 2 ? bytes[i + 2] : 0;
        char four[4] = {base64_digits[group >> 18], base64_digits[group >> 12 & 63],
                        left > 1 ? base64_digits[group >> 6 & 63] : '=', left > 2 ? base64_digits[group & 63] : '='};
        text_append(out, four, 4);
    }
}

static int base64_value(char c)
{
    const char *at = c == 0 ? NULL : strchr(base64_digits, c);
    return at == NULL ? -1 : (int)(at - base64_digits);
}

int base64_decode(text_t *out, const char *in, size_t len)
{
    if (len % 4 != 0)
        return CAKE_EPARSE;
    for (size_t i = 0; i < len; i += 4) {
        bool is_last = i + 4 == len;
        unsigned pad = 0;
        if (is_last && in[i + 3] == '=')
            pad = in[i + 2] == '=' ? 2 : 1;
        uint32_t group = 0;
        for (unsigned j = 0; j < 4; j++) {
            int value = j + pad >= 4 ? 0 : base64_value(in[i + j]);
            if (value < 0)
                return CAKE_EPARSE;
            group = group << 6 | (uint32_t)value;
        }
        unsigned char three[3] = {(unsigned char)(group >> 16), (unsigned char)(group >> 8), (unsigned char)group};
        text_append(out, three, 3 - pad);
    }
    return out->failed ? CAKE_ETOOBIG : 0;
}

json_t *bytes_to_json(const void *data, size_t len)
{
    json_t *string = json_stringn(len == 0 ? "" : data, len);
    if (string != NULL)
        return string;
    text_t encoded = TEXT_INIT(0);
    base64_encode(&encoded, data, len);
    json_t *object = NULL;
    if (!encoded.failed)
        object = json_pack("{s:s%}", "base64", len == 0 ? "" : encoded.data, encoded.len);
    text_free(&encoded);
    return object;
}

bool is_utf8_name(const void *data, size_t len)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < len; i++)
        if (bytes[i] < 0x20 || bytes[i] == 0x7f || (bytes[i] == 0xc2 && i + 1 < len && bytes[i + 1] < 0xa0))
            return false;
    json_t *string = json_stringn(data, len);
    bool is_utf8 = string != NULL;
    json_decref(string);
    return is_utf8;
}
