#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/bytes.h"

static void what_is_written_is_read_back(void **state)
{
    cake__buf_t buf;
    cake__buf_init(&buf, &cake__libc_alloc);
    cake__put_u8(&buf, 0xab);
    cake__put_u16(&buf, 0x1234);
    cake__put_u32(&buf, 0xdeadbeef);
    cake__put_u64(&buf, UINT64_MAX - 1);
    cake__put_string(&buf, cake__slice_str("key"));
    cake__put_string(&buf, cake__slice(NULL, 0));
    assert_int_equal(buf.err, 0);
    assert_int_equal(buf.data[1], 0x34); /* little-endian wherever it runs */

    cake__reader_t reader = cake__reader(buf.data, buf.len);
    assert_int_equal(cake__get_u8(&reader), 0xab);
    assert_int_equal(cake__get_u16(&reader), 0x1234);
    assert_int_equal(cake__get_u32(&reader), 0xdeadbeef);
    assert_true(cake__get_u64(&reader) == UINT64_MAX - 1);
    assert_true(cake__slice_equal(cake__get_string(&reader, 3), cake__slice_str("key")));
    assert_int_equal(cake__get_string(&reader, 3).len, 0);
    assert_true(cake__reader_done(&reader));
    cake__buf_free(&buf);
}

static void a_varint_has_one_encoding(void **state)
{
    uint64_t values[] = {0, 1, 127, 128, 300, UINT32_MAX, (UINT64_C(1) << 63) - 1, UINT64_C(1) << 63, UINT64_MAX};
    for (size_t i = 0; i < CAKE_COUNT_OF(values); i++) {
        cake__buf_t buf;
        cake__buf_init(&buf, &cake__libc_alloc);
        cake__put_varint(&buf, values[i]);
        cake__reader_t reader = cake__reader(buf.data, buf.len);
        assert_true(cake__get_varint(&reader) == values[i]);
        assert_true(cake__reader_done(&reader));
        for (size_t len = 0; len < buf.len; len++) {
            reader = cake__reader(buf.data, len);
            cake__get_varint(&reader);
            assert_int_equal(reader.err, CAKE_EPARSE);
        }
        cake__buf_free(&buf);
    }
    const char *bad[] = {"\x80", "\x81\x80", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
                         "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"};
    for (size_t i = 0; i < CAKE_COUNT_OF(bad); i++) {
        cake__reader_t reader = cake__reader(bad[i], strlen(bad[i]) + (i < 2)); /* the first two end with a zero byte */
        cake__get_varint(&reader);
        assert_int_equal(reader.err, CAKE_EPARSE);
    }
}

static void reading_past_the_end_is_remembered(void **state)
{
    cake__reader_t reader = cake__reader("abc", 3);
    assert_null(cake__get_bytes(&reader, 4));
    assert_int_equal(cake__get_u8(&reader), 0);
    assert_null(cake__get_bytes(&reader, 0));
    assert_false(cake__reader_done(&reader));

    reader = cake__reader("\x05hello", 6);
    assert_int_equal(cake__get_string(&reader, 4).len, 0);
    assert_int_equal(reader.err, CAKE_EPARSE);
    reader = cake__reader("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10);
    assert_null(cake__get_string(&reader, SIZE_MAX).data);
    assert_int_equal(reader.err, CAKE_EPARSE);
    reader = cake__reader(NULL, 0);
    assert_true(cake__reader_done(&reader));
}

static void a_limit_or_a_failed_allocation_is_remembered(void **state)
{
    cake__buf_t buf;
    cake__buf_init(&buf, &cake__libc_alloc);
    buf.max = 4;
    cake__put_u32(&buf, 1);
    assert_int_equal(buf.err, 0);
    cake__put_u8(&buf, 1);
    assert_int_equal(buf.err, CAKE_ETOOBIG);
    cake__put_u8(&buf, 1);
    assert_int_equal(buf.len, 4);
    cake__buf_clear(&buf);
    assert_non_null(cake__buf_extend(&buf, 4));
    assert_null(cake__buf_extend(&buf, SIZE_MAX));
    assert_int_equal(buf.err, CAKE_ETOOBIG);
    cake__buf_clear(&buf);
    buf.max = 0;
    assert_false(cake__buf_reserve(&buf, SIZE_MAX - 100));
    assert_int_equal(buf.err, CAKE_ETOOBIG);
    buf.max = 4;
    cake__buf_free(&buf);
    assert_int_equal(buf.max, 4);
    cake__buf_free(&buf);
}

static void *refuse(void *ctx, void *block, size_t size)
{
    return NULL;
}

static void out_of_memory_is_an_error_and_loses_nothing(void **state)
{
    const cake_alloc_t none = {refuse, NULL};
    cake__buf_t buf;
    cake__buf_init(&buf, &cake__libc_alloc);
    for (int i = 0; i < 64; i++)
        cake__put_u8(&buf, (uint8_t)i);
    buf.alloc = &none;
    cake__put_u8(&buf, 64);
    assert_int_equal(buf.err, CAKE_ENOMEM);
    assert_int_equal(cake__buf_slice(&buf).len, 64);
    assert_int_equal(buf.data[63], 63);
    buf.alloc = &cake__libc_alloc;
    cake__buf_free(&buf);
}

static void appending_nothing_to_an_empty_buffer_is_no_error(void **state)
{
    cake__buf_t buf;
    cake__buf_init(&buf, &cake__libc_alloc);
    cake__put_bytes(&buf, NULL, 0);
    assert_non_null(cake__buf_extend(&buf, 0));
    assert_int_equal(buf.err, 0);
    assert_int_equal(buf.len, 0);
    cake__buf_free(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(a_varint_has_one_encoding),
        cmocka_unit_test(reading_past_the_end_is_remembered),
        cmocka_unit_test(a_limit_or_a_failed_allocation_is_remembered),
        cmocka_unit_test(out_of_memory_is_an_error_and_loses_nothing),
        cmocka_unit_test(appending_nothing_to_an_empty_buffer_is_no_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
