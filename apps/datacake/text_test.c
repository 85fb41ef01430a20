/* Encodings of keys and values in URLs and JSON: what goes in comes out, and what is malformed is refused. */
#include "text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void percent_round_trips_every_byte(void **state)
{
    unsigned char bytes[256], back[256];
    text_t text = TEXT_INIT(0);
    size_t len = 0;
    for (int i = 0; i < 256; i++)
        bytes[i] = (unsigned char)i;
    percent_encode(&text, bytes, sizeof(bytes));
    assert_int_equal(percent_decode(text.data, text.len, back, sizeof(back), &len), 0);
    assert_int_equal(len, 256);
    assert_memory_equal(bytes, back, 256);
    text_free(&text);
}

static void percent_decodes_what_browsers_send(void **state)
{
    static const struct {
        const char *in, *out;
        size_t len;
        int err;
    } rows[] = {
        {"", "", 0, 0},
        {"abc", "abc", 3, 0},
        {"a%2Fb", "a/b", 3, 0},
        {"a%2fb", "a/b", 3, 0},
        {"%00", "\0", 1, 0},
        {"a+b", "a+b", 3, 0},
        {"%", "", 0, CAKE_EPARSE},
        {"%4", "", 0, CAKE_EPARSE},
        {"a%zz", "", 0, CAKE_EPARSE},
        {"%4g", "", 0, CAKE_EPARSE},
        {"%-1", "", 0, CAKE_EPARSE},
        {"12345678", "12345678", 8, 0},
        {"123456789", "", 0, CAKE_ETOOBIG},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char out[8];
        size_t len = 0;
        assert_int_equal(percent_decode(rows[i].in, strlen(rows[i].in), out, sizeof(out), &len), rows[i].err);
        assert_int_equal(len, rows[i].len);
        assert_memory_equal(out, rows[i].out, len);
    }
}

static void base64_round_trips_every_length(void **state)
{
    unsigned char bytes[67];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(i * 37 + 250);
    for (size_t len = 0; len <= sizeof(bytes); len++) {
        text_t text = TEXT_INIT(0), back = TEXT_INIT(0);
        base64_encode(&text, bytes, len);
        assert_int_equal(base64_decode(&back, len == 0 ? "" : text.data, text.len), 0);
        assert_int_equal(back.len, len);
        assert_memory_equal(len == 0 ? "" : back.data, bytes, len);
        text_free(&text);
        text_free(&back);
    }
}

static void base64_is_strict(void **state)
{
    static const char *const bad[] = {"A", "AB", "ABC", "A===", "====", "AB=C", "A!==", "AAAA=", "QQ==QQ==", "QQ=\n"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        text_t out = TEXT_INIT(0);
        assert_int_equal(base64_decode(&out, bad[i], strlen(bad[i])), CAKE_EPARSE);
        text_free(&out);
    }
}

static void a_text_stops_at_its_limit_and_keeps_what_it_has(void **state)
{
    text_t text = TEXT_INIT(10);
    text_add(&text, "12345678");
    text_add(&text, "9ab");
    assert_true(text.failed);
    assert_string_equal(text.data, "12345678");
    text_add(&text, "9");
    assert_true(text.failed); /* also what would fit: nothing is left out in the middle */
    text_clear(&text);
    text_printf(&text, "%d", 1234567890);
    assert_false(text.failed);
    assert_int_equal(text.len, 10);
    text_free(&text);
}

static void names_are_utf8_without_control_characters(void **state)
{
    assert_true(is_utf8_name("books", 5));
    assert_true(is_utf8_name("b\xc3\xbc"
                             "cher",
                             7));
    assert_false(is_utf8_name("a\nb", 3));
    assert_false(is_utf8_name("a\0b", 3));
    assert_false(is_utf8_name("a\x7f", 2));
    assert_false(is_utf8_name("a\xc2\x80", 3));
    assert_false(is_utf8_name("\xff\xfe", 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percent_round_trips_every_byte),
        cmocka_unit_test(percent_decodes_what_browsers_send),
        cmocka_unit_test(base64_round_trips_every_length),
        cmocka_unit_test(base64_is_strict),
        cmocka_unit_test(a_text_stops_at_its_limit_and_keeps_what_it_has),
        cmocka_unit_test(names_are_utf8_without_control_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
