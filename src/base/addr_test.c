#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/base.h"

static void text_round_trips(void **state)
{
    const char *texts[] = {"127.0.0.1:7001", "0.0.0.0:0", "255.255.255.255:65535", "[::1]:80", "[2001:db8::ff]:7001"};
    for (size_t i = 0; i < CAKE_COUNT_OF(texts); i++) {
        cake_addr_t addr, again;
        char text[CAKE_ADDR_TEXT_MAX];
        assert_int_equal(cake_addr_parse(texts[i], &addr), 0);
        cake_addr_format(&addr, text);
        assert_string_equal(text, texts[i]);
        assert_int_equal(cake_addr_parse(text, &again), 0);
        assert_true(cake_addr_equal(&addr, &again));
        again.port++;
        assert_false(cake_addr_equal(&addr, &again));
    }
    cake_addr_t none = {0};
    char text[CAKE_ADDR_TEXT_MAX];
    cake_addr_format(&none, text);
    assert_string_equal(text, "-");
}

static void anything_else_is_refused_and_changes_nothing(void **state)
{
    const char *texts[] = {"",          ":",           ":80",         "127.0.0.1",     "127.0.0.1:",  "127.0.0.1:x",
                           "1.2.3:80",  "localhost:1", "1.2.3.4:+80", "1.2.3.4:65536", "1.2.3.4: 80", "1.2.3.4:999999",
                           "::1:80",    "[::1]",       "[::1:80",     "[1.2.3.4]:80",  "[]:80",       "]:80",
                           "[::1]x:80", " 1.2.3.4:80", "1.2.3.4:80 ", "1.2.3.4:-1"};
    for (size_t i = 0; i < CAKE_COUNT_OF(texts); i++) {
        cake_addr_t addr = {.family = 9};
        assert_int_equal(cake_addr_parse(texts[i], &addr), CAKE_EPARSE);
        assert_int_equal(addr.family, 9);
    }
    char longer[300];
    memset(longer, '1', sizeof longer);
    strcpy(longer + 200, ":80");
    cake_addr_t addr;
    assert_int_equal(cake_addr_parse(longer, &addr), CAKE_EPARSE);
    assert_int_equal(cake_addr_parse(NULL, &addr), CAKE_EPARSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_round_trips),
        cmocka_unit_test(anything_else_is_refused_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
