/* lines.c: see lines.h. */
#include "lines.h"

#include <stdio.h>
#include <string.h>

#include <datacake/hlc.h>
#include <datacake/key.h>

static int refuse(line_t *line, int err, const char *message)
{
    snprintf(line->message, sizeof(line->message), "%s", message);
    return err;
}

/* The bytes that a JSON value stands for: a string's own, or those of {"base64": ...}. CAKE_ENOTFOUND: neither. */
static int json_bytes(const json_t *value, text_t *decoded, cake_slice_t *out)
{
    if (json_is_string(value)) {
        *out = (cake_slice_t){json_string_value(value), json_string_length(value)};
        return 0;
    }
    const json_t *base64 =
        json_is_object(value) && json_object_size(value) == 1 ? json_object_get(value, "base64") : NULL;
    if (!json_is_string(base64))
        return CAKE_ENOTFOUND;
    int err = base64_decode(decoded, json_string_value(base64), json_string_length(base64));
    *out = (cake_slice_t){decoded->data, decoded->len};
    return err;
}

static int take_key(line_t *line)
{
    const json_t *key = json_object_get(line->root, "key");
    if (key == NULL)
        return refuse(line, CAKE_EPARSE, "there is no \"key\"");
    int err = json_bytes(key, &line->decoded_key, &line->key);
    if (err == CAKE_ENOTFOUND)
        return refuse(line, CAKE_EPARSE, "\"key\" must be a string or {\"base64\": \"...\"}");
    if (err != 0)
        return refuse(line, err, "\"key\" is no valid base64");
    if (line->key.len == 0 || line->key.len > CAKE_KEY_MAX)
        return refuse(line, CAKE_EINVAL, "a key has 1 to 511 bytes");
    return 0;
}

static int take_value(line_t *line, size_t max_value_bytes)
{
    const json_t *is_delete = json_object_get(line->root, "delete");
    if (is_delete != NULL && !json_is_true(is_delete))
        return refuse(line, CAKE_EPARSE, "\"delete\" can only be true");
    line->is_delete = is_delete != NULL;
    if (line->is_delete)
        return 0;
    const json_t *value = json_object_get(line->root, "value");
    if (value == NULL)
        return refuse(line, CAKE_EPARSE, "there is no \"value\"");
    int err = json_bytes(value, &line->decoded_value, &line->value);
    if (err == CAKE_ENOTFOUND) {
        text_json(&line->decoded_value, value);
        err = line->decoded_value.failed ? CAKE_ENOMEM : 0;
        line->value = (cake_slice_t){line->decoded_value.data, line->decoded_value.len};
    }
    if (err != 0)
        return refuse(line, err, err == CAKE_EPARSE ? "\"value\" is no valid base64" : cake_strerror(err));
    if (line->value.len > max_value_bytes) {
        snprintf(line->message, sizeof(line->message), "the value has %zu bytes; the limit is %zu", line->value.len,
                 max_value_bytes);
        return CAKE_ETOOBIG;
    }
    return 0;
}

int line_parse_key(line_t *line, const char *text, size_t len)
{
    memset(line, 0, sizeof(*line));
    json_error_t error;
    line->root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (line->root == NULL) {
        snprintf(line->message, sizeof(line->message), "invalid JSON: %.120s", error.text);
        return CAKE_EPARSE;
    }
    if (!json_is_object(line->root))
        return refuse(line, CAKE_EPARSE, "a line must be an object with \"key\" and \"value\"");
    return take_key(line);
}

int line_parse(line_t *line, const char *text, size_t len, size_t max_value_bytes)
{
    int err = line_parse_key(line, text, len);
    return err != 0 ? err : take_value(line, max_value_bytes);
}

void line_free(line_t *line)
{
    json_decref(line->root);
    text_free(&line->decoded_key);
    text_free(&line->decoded_value);
}

/* ---- escapes ----------------------------------------------------------------------------------------------------- */

static const char escapes[] = "t\tn\nr\r\\\\"; /* the letter, and what it stands for */

/* The byte that the escape at text stands for, and in *used how long that is; -1: it is none. */
static int escaped_byte(const char *text, size_t len, size_t *used)
{
    unsigned char byte;
    size_t ignored;
    if (len < 2 || text[0] != '\\')
        return -1;
    *used = 2;
    for (size_t i = 0; i < sizeof(escapes) - 1; i += 2)
        if (escapes[i] == text[1])
            return (unsigned char)escapes[i + 1];
    char percent[3] = {'%', len > 2 ? text[2] : 0, len > 3 ? text[3] : 0};
    *used = 4;
    return text[1] == 'x' && len >= 4 && percent_decode(percent, sizeof(percent), &byte, 1, &ignored) == 0 ? byte : -1;
}

static void unescape(text_t *out, const char *text, size_t len)
{
    for (size_t i = 0, used; i < len; i += used) {
        int byte = escaped_byte(text + i, len - i, &used);
        char plain = byte < 0 ? text[i] : (char)byte;
        used = byte < 0 ? 1 : used;
        text_append(out, &plain, 1);
    }
}

static char escape_letter(unsigned char byte)
{
    for (size_t i = 0; i < sizeof(escapes) - 1; i += 2)
        if ((unsigned char)escapes[i + 1] == byte)
            return escapes[i];
    return 0;
}

/* U+0000 to U+001F, U+007F, and U+0080 to U+009F, which have two bytes. */
static bool is_of_control(const unsigned char *data, size_t i, size_t len)
{
    bool is_lead = data[i] == 0xc2 && i + 1 < len && data[i + 1] < 0xa0;
    bool is_second = data[i] >= 0x80 && data[i] < 0xa0 && i > 0 && data[i - 1] == 0xc2;
    return data[i] < 0x20 || data[i] == 0x7f || is_lead || is_second;
}

void line_escape(text_t *out, cake_slice_t bytes)
{
    const unsigned char *data = bytes.data;
    json_t *string = json_stringn(bytes.data, bytes.len);
    bool is_utf8 = string != NULL;
    for (size_t i = 0; i < bytes.len; i++) {
        char letter = escape_letter(data[i]);
        if (letter != 0)
            text_printf(out, "\\%c", letter);
        else if (is_of_control(data, i, bytes.len) || (data[i] >= 0x80 && !is_utf8))
            text_printf(out, "\\x%02x", data[i]);
        else
            text_append(out, &data[i], 1);
    }
    json_decref(string);
}

int line_from_tsv(text_t *out, const char *text, size_t len)
{
    const char *tab = memchr(text, '\t', len);
    if (tab == NULL)
        return CAKE_EPARSE;
    text_t key = TEXT_INIT(0), value = TEXT_INIT(0);
    unescape(&key, text, (size_t)(tab - text));
    unescape(&value, tab + 1, len - (size_t)(tab + 1 - text));
    cake_slice_t value_slice = {value.data, value.len};
    if (key.failed || value.failed)
        out->failed = true;
    else
        line_write(out, (cake_slice_t){key.data, key.len}, &value_slice, 0);
    text_free(&key);
    text_free(&value);
    return out->failed ? CAKE_ENOMEM : 0;
}

int line_from_key(text_t *out, const char *text, size_t len)
{
    text_t key = TEXT_INIT(0);
    unescape(&key, text, len);
    json_t *line = key.failed ? NULL : json_pack("{s:o,s:b}", "key", bytes_to_json(key.data, key.len), "delete", 1);
    text_json(out, line);
    text_append(out, "\n", 1);
    json_decref(line);
    text_free(&key);
    return out->failed ? CAKE_ENOMEM : 0;
}

void line_write(text_t *out, cake_slice_t key, const cake_slice_t *value, uint64_t timestamp)
{
    json_t *line = json_object();
    int err = json_object_set_new(line, "key", bytes_to_json(key.data, key.len));
    if (value != NULL)
        err |= json_object_set_new(line, "value", bytes_to_json(value->data, value->len));
    char stamp[CAKE_HLC_TEXT_MAX];
    if (timestamp != 0 && cake_hlc_format(timestamp, stamp, sizeof(stamp)) > 0)
        err |= json_object_set_new(line, "timestamp", json_string(stamp));
    if (err != 0)
        out->failed = true;
    else
        text_json(out, line);
    text_append(out, "\n", 1);
    json_decref(line);
}
