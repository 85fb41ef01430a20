/* text.h: bytes that grow up to a limit, and the encodings that keys and values take in URLs and JSON. */
#ifndef DATACAKE_APP_TEXT_H
#define DATACAKE_APP_TEXT_H

#include <datacake/base.h>
#include <jansson.h>

/* data is NULL or zero-terminated (the zero is not counted). A failed append leaves `failed` set and the bytes
 * before it in place, so that a row of appends needs one check at its end. */
typedef struct text {
    char *data;
    size_t len, size;
    size_t max; /* bytes; 0: no limit */
    bool failed;
} text_t;

#define TEXT_INIT(max_bytes) ((text_t){.max = (max_bytes)})

void text_append(text_t *text, const void *data, size_t len);
void text_add(text_t *text, const char *string);
void text_printf(text_t *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_json(text_t *text, const json_t *value); /* on one line, without the newline */
void text_clear(text_t *text);                     /* keeps its memory */
void text_free(text_t *text);

/* "%41b" -> "Ab". CAKE_EPARSE: a stray %; CAKE_ETOOBIG: more than size bytes. */
int percent_decode(const char *in, size_t len, void *out, size_t size, size_t *out_len);
void percent_encode(text_t *out, const void *data, size_t len); /* all but A-Z a-z 0-9 - . _ ~ */

void base64_encode(text_t *out, const void *data, size_t len);
int base64_decode(text_t *out, const char *in, size_t len); /* CAKE_EPARSE; padding is required */

/* A JSON string when the bytes are UTF-8, {"base64": "..."} otherwise. NULL: out of memory. */
json_t *bytes_to_json(const void *data, size_t len);

bool is_utf8_name(const void *data, size_t len); /* UTF-8 without control characters */

#endif
