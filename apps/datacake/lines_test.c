/* Lines of documents: what export writes import reads back, and what is no document is refused with a reason. */
#include "lines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_slice(cake_slice_t slice, const char *text, size_t len)
{
    assert_int_equal(slice.len, len);
    assert_memory_equal(len == 0 ? "" : slice.data, text, len);
}

static void lines_stand_for_bytes(void **state)
{
    static const struct {
        const char *line, *key, *value;
        size_t key_len, value_len;
    } rows[] = {
        {"{\"key\":\"a\",\"value\":\"b\"}", "a", "b", 1, 1},
        {"{\"key\":\"a\",\"value\":\"\"}", "a", "", 1, 0},
        {" {\"value\":\"b\", \"key\":\"a\", \"timestamp\":\"x\"}\r", "a", "b", 1, 1},
        {"{\"key\":\"a\\u0000b\",\"value\":\"\\u0000\"}", "a\0b", "\0", 3, 1},
        {"{\"key\":{\"base64\":\"/wA=\"},\"value\":{\"base64\":\"AP8=\"}}", "\xff\0", "\0\xff", 2, 2},
        {"{\"key\":\"a\",\"value\":12.5}", "a", "12.5", 1, 4},
        {"{\"key\":\"a\",\"value\":null}", "a", "null", 1, 4},
        {"{\"key\":\"a\",\"value\":{\"x\":[1, true]}}", "a", "{\"x\":[1,true]}", 1, 14},
        {"{\"key\":\"a\",\"value\":{\"base64\":\"QQ==\",\"x\":1}}", "a", "{\"base64\":\"QQ==\",\"x\":1}", 1, 23},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        line_t line;
        assert_int_equal(line_parse(&line, rows[i].line, strlen(rows[i].line), 100), 0);
        assert_slice(line.key, rows[i].key, rows[i].key_len);
        assert_slice(line.value, rows[i].value, rows[i].value_len);
        assert_false(line.is_delete);
        line_free(&line);
    }
}

static void bad_lines_are_refused_with_a_reason(void **state)
{
    static const struct {
        const char *line;
        int err;
        const char *reason;
    } rows[] = {
        {"", CAKE_EPARSE, "JSON"},
        {"{", CAKE_EPARSE, "JSON"},
        {"[1]", CAKE_EPARSE, "object"},
        {"\"a\"", CAKE_EPARSE, "JSON"},
        {"{\"key\":\"a\",\"value\":\"b\"} x", CAKE_EPARSE, "JSON"},
        {"{\"key\":\"a\",\"key\":\"b\",\"value\":\"b\"}", CAKE_EPARSE, "JSON"},
        {"{\"key\":\"\xff\",\"value\":\"b\"}", CAKE_EPARSE, "JSON"},
        {"{\"value\":\"b\"}", CAKE_EPARSE, "\"key\""},
        {"{\"key\":\"a\"}", CAKE_EPARSE, "\"value\""},
        {"{\"key\":5,\"value\":\"b\"}", CAKE_EPARSE, "\"key\""},
        {"{\"key\":\"\",\"value\":\"b\"}", CAKE_EINVAL, "511"},
        {"{\"key\":{\"base64\":\"A\"},\"value\":\"b\"}", CAKE_EPARSE, "base64"},
        {"{\"key\":\"a\",\"value\":{\"base64\":\"A\"}}", CAKE_EPARSE, "base64"},
        {"{\"key\":\"a\",\"value\":\"12345678901\"}", CAKE_ETOOBIG, "11 bytes"},
        {"{\"key\":\"a\",\"delete\":false}", CAKE_EPARSE, "delete"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        line_t line;
        assert_int_equal(line_parse(&line, rows[i].line, strlen(rows[i].line), 10), rows[i].err);
        assert_non_null(strstr(line.message, rows[i].reason));
        line_free(&line);
    }
}

static void deep_nesting_is_refused_not_followed(void **state)
{
    size_t depth = 1000000;
    char *text = malloc(depth + 32);
    line_t line;
    assert_non_null(text);
    size_t len = (size_t)sprintf(text, "{\"key\":\"a\",\"value\":");
    memset(text + len, '[', depth);
    assert_int_equal(line_parse(&line, text, len + depth, 1 << 24), CAKE_EPARSE);
    line_free(&line);
    free(text);
}

static void what_is_written_is_read_back(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } rows[] = {{"plain", 5}, {"\0\xff\x80", 3}, {"b\xc3\xbc\"\\\n\t", 7}, {"\x01\x1f", 2}, {"{\"base64\":\"x\"}", 14}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        text_t text = TEXT_INIT(0);
        line_t line;
        cake_slice_t bytes = {rows[i].bytes, rows[i].len};
        line_write(&text, bytes, &bytes, 1234567890);
        assert_false(text.failed);
        assert_ptr_equal(memchr(text.data, '\n', text.len), text.data + text.len - 1);
        assert_int_equal(line_parse(&line, text.data, text.len, 100), 0);
        assert_slice(line.key, rows[i].bytes, rows[i].len);
        assert_slice(line.value, rows[i].bytes, rows[i].len);
        line_free(&line);
        text_free(&text);
    }
}

static void tsv_has_escapes(void **state)
{
    static const struct {
        const char *tsv, *key, *value;
    } rows[] = {
        {"a\tb", "a", "b"}, {"a\tb\tc", "a", "b\tc"},   {"a\\tb\tx\\ny\\\\z\\q", "a\tb", "x\ny\\z\\q"},
        {"a\t", "a", ""},   {"a\tend\\", "a", "end\\"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        text_t text = TEXT_INIT(0);
        line_t line;
        assert_int_equal(line_from_tsv(&text, rows[i].tsv, strlen(rows[i].tsv)), 0);
        assert_int_equal(line_parse(&line, text.data, text.len, 100), 0);
        assert_slice(line.key, rows[i].key, strlen(rows[i].key));
        assert_slice(line.value, rows[i].value, strlen(rows[i].value));
        line_free(&line);
        text_free(&text);
    }
    text_t text = TEXT_INIT(0);
    assert_int_equal(line_from_tsv(&text, "no tab", 6), CAKE_EPARSE);
    assert_int_equal(text.len, 0);
    text_free(&text);
}

static void a_key_becomes_its_delete(void **state)
{
    text_t text = TEXT_INIT(0);
    line_t line;
    assert_int_equal(line_from_key(&text, "a\\tb", 4), 0);
    assert_int_equal(line_parse(&line, text.data, text.len, 100), 0);
    assert_true(line.is_delete);
    assert_slice(line.key, "a\tb", 3);
    line_free(&line);
    text_free(&text);
}

static void escaped_keys_are_taken_back(void **state)
{
    static const struct {
        const char *bytes, *escaped;
        size_t len;
    } rows[] = {
        {"plain key", "plain key", 9},
        {"a\tb\nc\rd\\t", "a\\tb\\nc\\rd\\\\t", 9},
        {"\0\x1b[2J\x7f", "\\x00\\x1b[2J\\x7f", 6},
        {"b\xc3\xbc", "b\xc3\xbc", 3},
        {"\xc2\x9b", "\\xc2\\x9b", 2},
        {"\xff\xc3\xbc", "\\xff\\xc3\\xbc", 3},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        text_t escaped = TEXT_INIT(0), json = TEXT_INIT(0);
        line_t line;
        line_escape(&escaped, (cake_slice_t){rows[i].bytes, rows[i].len});
        assert_string_equal(escaped.data, rows[i].escaped);
        assert_int_equal(line_from_key(&json, escaped.data, escaped.len), 0);
        assert_int_equal(line_parse(&line, json.data, json.len, 0), 0);
        assert_slice(line.key, rows[i].bytes, rows[i].len);
        line_free(&line);
        text_free(&json);
        text_free(&escaped);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_stand_for_bytes),
        cmocka_unit_test(bad_lines_are_refused_with_a_reason),
        cmocka_unit_test(deep_nesting_is_refused_not_followed),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(tsv_has_escapes),
        cmocka_unit_test(a_key_becomes_its_delete),
        cmocka_unit_test(escaped_keys_are_taken_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
