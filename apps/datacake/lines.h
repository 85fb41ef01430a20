/* lines.h: documents as lines of text: NDJSON as the server takes and gives it, and TSV for imports. */
#ifndef DATACAKE_APP_LINES_H
#define DATACAKE_APP_LINES_H

#include "text.h"

#define LINE_MESSAGE_MAX 160

/* One document. key and value point into the owner's memory until line_free. */
typedef struct line {
    cake_slice_t key, value;
    bool is_delete;
    json_t *root;
    text_t decoded_key, decoded_value;
    char message[LINE_MESSAGE_MAX]; /* why it was refused */
} line_t;

/* {"key": K, "value": V} or {"key": K, "delete": true}: K is a string or {"base64": "..."}; V as well, and any other
 * JSON value stands for its text. Further members are ignored, so that exports with more in them can be read back.
 * CAKE_EPARSE; CAKE_EINVAL (key out of bounds); CAKE_ETOOBIG; CAKE_ENOMEM. line_free in any case. */
int line_parse(line_t *line, const char *text, size_t len, size_t max_value_bytes);
/* The key alone is looked at. */
int line_parse_key(line_t *line, const char *text, size_t len);
void line_free(line_t *line);

/* "key<TAB>value" as such a line of JSON, with its newline; \t \n \r \\ and \x with two hex digits are escapes.
 * CAKE_EPARSE: no tab. */
int line_from_tsv(text_t *out, const char *text, size_t len);
/* A key alone, with the same escapes, as the line that deletes it. CAKE_ENOMEM. */
int line_from_key(text_t *out, const char *text, size_t len);

/* By these escapes any bytes as text that a terminal shows and line_from_key takes back. */
void line_escape(text_t *out, cake_slice_t bytes);

/* value NULL: the key alone. timestamp 0: none. */
void line_write(text_t *out, cake_slice_t key, const cake_slice_t *value, uint64_t timestamp);

#endif
