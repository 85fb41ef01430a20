#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/base.h"

static void every_code_has_a_name_and_a_text(void **state)
{
    assert_string_equal(cake_strerror(0), "success");
    assert_string_equal(cake_err_name(CAKE_ENOTENOUGHNODES), "CAKE_ENOTENOUGHNODES");
    assert_string_equal(cake_err_name(-9999), "CAKE_EUNKNOWN");
    assert_string_equal(cake_strerror(1), "unknown error");
#define CHECK(name, number, text)                                                                                      \
    assert_string_equal(cake_strerror(number), text);                                                                  \
    assert_string_equal(cake_err_name(number), "CAKE_" #name);                                                         \
    assert_true((number) < 0);
    CAKE_ERRORS(CHECK)
#undef CHECK
}

static void *refuse(void *ctx, void *block, size_t size)
{
    assert_int_equal(size == 0, 0); /* nothing was given out, so nothing comes back */
    return NULL;
}

static void copies_are_whole_or_null(void **state)
{
    const cake_alloc_t none = {refuse, NULL};
    const cake_alloc_t *libc = cake__alloc_or_default(NULL);
    assert_null(cake__calloc(libc, SIZE_MAX / 2, 3));
    assert_null(cake__calloc(&none, 1, 1));
    assert_null(cake__strdup(&none, "text"));
    assert_null(cake__strdup(libc, NULL));
    assert_ptr_equal(cake__alloc_or_default(&none), &none);

    char *text = cake__strdup(libc, "text");
    assert_string_equal(text, "text");
    text = cake__realloc(libc, text, 100);
    assert_string_equal(text, "text");
    cake__free(libc, text);
    void *empty = cake__memdup(libc, NULL, 0);
    assert_non_null(empty);
    cake__free(libc, empty);
    cake__free(libc, NULL);
}

static void names_are_utf8_without_control_characters(void **state)
{
    const char *good[] = {"a", "dc-1", "Größe", "数据", "\xf0\x9f\x8d\xb0", "a b", "\xc2\xa0"};
    const char *bad[] = {"",
                         "a\n",
                         "\x7f",
                         "\xc2\x85",
                         "\x80",
                         "\xc0\xaf",
                         "\xc3",
                         "\xe0\x80\x80",
                         "\xed\xa0\x80",
                         "\xf0\x80\x80\x80",
                         "\xf4\x90\x80\x80",
                         "\xf5\x80",
                         "\xe2\x82",
                         "\xff"};
    for (size_t i = 0; i < CAKE_COUNT_OF(good); i++)
        assert_true(cake__is_name(cake__slice_str(good[i]), 127));
    for (size_t i = 0; i < CAKE_COUNT_OF(bad); i++)
        assert_false(cake__is_name(cake__slice_str(bad[i]), 127));
    assert_false(cake__is_name(cake__slice("a\0b", 3), 127));
    assert_true(cake__is_name(cake__slice_str("abc"), 3));
    assert_false(cake__is_name(cake__slice_str("abcd"), 3));
}

static void slices_compare_bytewise_and_by_length(void **state)
{
    cake_slice_t empty = {NULL, 0}, a = cake__slice_str("a"), ab = cake__slice_str("ab"),
                 high = cake__slice_str("\xff");
    assert_true(cake__slice_equal(empty, cake__slice("", 0)));
    assert_false(cake__slice_equal(a, ab));
    assert_true(cake__slice_compare(empty, a) < 0);
    assert_true(cake__slice_compare(a, ab) < 0);
    assert_true(cake__slice_compare(high, ab) > 0);
    assert_int_equal(cake__slice_compare(ab, ab), 0);
}

typedef struct {
    size_t size;
    uint64_t first, second;
} options_t;

static void options_of_older_and_newer_programs_are_understood(void **state)
{
    options_t options, given = {sizeof given, 1, 2};
    struct {
        options_t known;
        uint64_t third;
    } newer = {{sizeof newer, 1, 2}, 0};
    assert_int_equal(cake__options_copy(&options, sizeof options, &given), 0);
    assert_int_equal(options.second, 2);
    given.size = offsetof(options_t, second);
    assert_int_equal(cake__options_copy(&options, sizeof options, &given), 0);
    assert_int_equal(options.size, sizeof options);
    assert_int_equal(options.first, 1);
    assert_int_equal(options.second, 0);
    assert_int_equal(cake__options_copy(&options, sizeof options, &newer), 0);
    assert_int_equal(options.second, 2);
    newer.third = 1;
    assert_int_equal(cake__options_copy(&options, sizeof options, &newer), CAKE_EINVAL);
    given.size = 0;
    assert_int_equal(cake__options_copy(&options, sizeof options, &given), CAKE_EINVAL);
    given.size = SIZE_MAX;
    assert_int_equal(cake__options_copy(&options, sizeof options, &given), CAKE_EINVAL);
}

typedef struct {
    char line[600];
    int count;
} sink_t;

static void keep(void *ctx, cake_log_level_t level, const char *message)
{
    sink_t *sink = ctx;
    sink->count++;
    strcpy(sink->line, message);
}

static void log_lines_below_the_level_are_not_made_and_long_ones_are_cut(void **state)
{
    sink_t sink = {0};
    cake_log_t log = {keep, &sink, CAKE_LOG_INFO};
    cake__log(&log, CAKE_LOG_DEBUG, "%d", 1);
    assert_int_equal(sink.count, 0);
    cake__log(&log, CAKE_LOG_WARN, "%s %d", "node", 7);
    assert_string_equal(sink.line, "node 7");
    cake__log(&log, CAKE_LOG_ERROR, "%0600d", 1);
    assert_int_equal(strlen(sink.line), 500);
    cake__log(NULL, CAKE_LOG_ERROR, "nobody listens");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_a_name_and_a_text),
        cmocka_unit_test(copies_are_whole_or_null),
        cmocka_unit_test(names_are_utf8_without_control_characters),
        cmocka_unit_test(slices_compare_bytewise_and_by_length),
        cmocka_unit_test(options_of_older_and_newer_programs_are_understood),
        cmocka_unit_test(log_lines_below_the_level_are_not_made_and_long_ones_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
