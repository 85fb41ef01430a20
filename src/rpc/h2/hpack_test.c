/* Header blocks that we write are read as they were meant, by nghttp2's reader, whatever its table's size.
 * ctest: no-tsan: one thread */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include <nghttp2/nghttp2.h>

#include "rpc/h2/hpack.h"

#define HEADERS 8u

typedef struct {
    char names[HEADERS][40], values[HEADERS][900];
    cake__h2_header_t headers[HEADERS];
    size_t count;
} block_t;

static uint64_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void set(block_t *block, const char *name, const char *value, bool is_unique)
{
    size_t i = block->count++;
    snprintf(block->names[i], sizeof block->names[i], "%s", name);
    snprintf(block->values[i], sizeof block->values[i], "%s", value);
    block->headers[i] = (cake__h2_header_t){cake__slice(block->names[i], strlen(block->names[i])),
                                            cake__slice(block->values[i], strlen(block->values[i])), is_unique};
}

static void make_block(block_t *block, uint64_t *state, uint64_t variety)
{
    char name[40], value[900];
    block->count = 0;
    set(block, ":method", draw(state) % 3 == 0 ? "GET" : "POST", false);
    set(block, ":status", draw(state) % 2 == 0 ? "200" : "503", false);
    snprintf(value, sizeof value, "/service/%d", (int)(draw(state) % variety));
    set(block, ":path", value, false);
    set(block, "content-length", value + 9, true);
    while (block->count < HEADERS - draw(state) % 4) {
        snprintf(name, sizeof name, "x-%d", (int)(draw(state) % 5));
        size_t len = draw(state) % 7 == 0 ? draw(state) % 890 : draw(state) % 30;
        memset(value, 'a' + (int)(draw(state) % variety % 26), len);
        value[len] = '\0';
        set(block, name, value, draw(state) % 9 == 0);
    }
}

static void reads_as(nghttp2_hd_inflater *inflater, const uint8_t *data, size_t len, const block_t *block)
{
    size_t count = 0;
    for (int flags = 0; (flags & NGHTTP2_HD_INFLATE_FINAL) == 0;) {
        nghttp2_nv nv;
        ssize_t taken = nghttp2_hd_inflate_hd2(inflater, &nv, &flags, data, len, 1);
        assert_true(taken >= 0);
        data += taken;
        len -= (size_t)taken;
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0)
            continue;
        assert_true(count < block->count);
        assert_true(cake__slice_equal(cake__slice(nv.name, nv.namelen), block->headers[count].name));
        assert_true(cake__slice_equal(cake__slice(nv.value, nv.valuelen), block->headers[count].value));
        count++;
    }
    assert_int_equal(nghttp2_hd_inflate_end_headers(inflater), 0);
    assert_int_equal(count, block->count);
    assert_int_equal(len, 0);
}

static void blocks_read_as_written(void **state)
{
    static block_t block;
    static uint8_t out[HEADERS * 1000];
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t random = seed, variety = seed % 2 == 0 ? 4 : 1000;
        nghttp2_hd_inflater *inflater;
        cake__hpack_t hpack;
        cake__hpack_init(&hpack, &cake__libc_alloc);
        assert_int_equal(nghttp2_hd_inflate_new(&inflater), 0);
        for (int i = 0; i < 600; i++) {
            if (draw(&random) % 97 == 0) { /* as the peer's settings say: both sides know it before the next block */
                uint32_t size = (uint32_t)(draw(&random) % 5000);
                assert_int_equal(nghttp2_hd_inflate_change_table_size(inflater, size), 0);
                cake__hpack_limit(&hpack, size);
            }
            make_block(&block, &random, variety);
            assert_true(cake__hpack_most(block.headers, block.count) <= sizeof out);
            size_t len = cake__hpack_write(&hpack, block.headers, block.count, out);
            assert_true(len <= cake__hpack_most(block.headers, block.count));
            reads_as(inflater, out, len, &block);
        }
        nghttp2_hd_inflate_del(inflater);
        cake__hpack_free(&hpack);
    }
}

static void what_comes_again_is_one_byte(void **state)
{
    static block_t block;
    uint8_t out[HEADERS * 1000];
    cake__hpack_t hpack;
    cake__hpack_init(&hpack, &cake__libc_alloc);
    set(&block, ":method", "POST", false);
    set(&block, ":path", "/service/method", false);
    set(&block, "datacake-timeout", "10000", false);
    (void)cake__hpack_write(&hpack, block.headers, block.count, out);
    assert_int_equal(cake__hpack_write(&hpack, block.headers, block.count, out), 3);
    for (int i = 0; i < 2000; i++) { /* others fill the table, and go again */
        block.count = 2;
        char value[20];
        snprintf(value, sizeof value, "%d", i < 1000 ? i : 7);
        set(&block, "x-other", value, false);
        (void)cake__hpack_write(&hpack, block.headers, block.count, out);
    }
    assert_int_equal(cake__hpack_write(&hpack, block.headers, block.count, out), 3);
    cake__hpack_free(&hpack);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(blocks_read_as_written),
                                       cmocka_unit_test(what_comes_again_is_one_byte)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
