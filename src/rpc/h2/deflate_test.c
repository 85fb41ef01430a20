/* Header blocks that we write are read as they were meant, by nghttp2's reader, whatever its table's size.
 * ctest: no-tsan: one thread */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "rpc/h2/state.h"

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

/* Unique headers come last. */
static const cake__h2_header_t *at_place(const block_t *block, size_t place)
{
    for (int is_unique = 0; is_unique < 2; is_unique++) {
        for (size_t i = 0; i < block->count; i++) {
            if (block->headers[i].is_unique == (is_unique != 0) && place-- == 0)
                return &block->headers[i];
        }
    }
    return NULL;
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
        const cake__h2_header_t *header = at_place(block, count++);
        assert_non_null(header);
        assert_true(cake__slice_equal(cake__slice(nv.name, nv.namelen), header->name));
        assert_true(cake__slice_equal(cake__slice(nv.value, nv.valuelen), header->value));
    }
    assert_int_equal(nghttp2_hd_inflate_end_headers(inflater), 0);
    assert_int_equal(count, block->count);
    assert_int_equal(len, 0);
}

static void *resize(void *ctx, void *block, size_t size)
{
    int64_t *left = ctx; /* allocations, then none; negative: all that are asked for */
    if (size > 0 && *left >= 0 && (*left)-- == 0) {
        *left = 0;
        return NULL;
    }
    return cake__libc_alloc.resize(cake__libc_alloc.ctx, block, size);
}

/* One writer and its peer's reader. */
typedef struct {
    int64_t left;
    cake_alloc_t alloc;
    nghttp2_mem mem;
    cake__deflate_t deflate;
    nghttp2_hd_inflater *inflater;
} pair_t;

static void begin(pair_t *pair)
{
    pair->left = -1;
    pair->alloc = (cake_alloc_t){resize, &pair->left};
    pair->mem = cake__h2_mem(&pair->alloc);
    cake__deflate_init(&pair->deflate, &pair->alloc, &pair->mem);
    assert_int_equal(nghttp2_hd_inflate_new(&pair->inflater), 0);
}

static void end(pair_t *pair)
{
    cake__deflate_free(&pair->deflate);
    nghttp2_hd_inflate_del(pair->inflater);
}

static void limit(pair_t *pair,
                  uint32_t bytes) /* as the peer's settings say: both sides know it before the next block */
{
    assert_int_equal(nghttp2_hd_inflate_change_table_size(pair->inflater, bytes), 0);
    assert_int_equal(cake__deflate_limit(&pair->deflate, bytes), 0);
}

static size_t pass(pair_t *pair, const block_t *block)
{
    static uint8_t out[HEADERS * 1000];
    size_t most = cake__deflate_most(block->headers, block->count);
    assert_true(most <= sizeof out);
    intptr_t len = cake__deflate_write(&pair->deflate, block->headers, block->count, out);
    assert_true(len > 0 && (size_t)len <= most);
    reads_as(pair->inflater, out, (size_t)len, block);
    return (size_t)len;
}

static void blocks_read_as_written(void **state)
{
    static block_t blocks[3];
    pair_t pair;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t random = seed, variety = seed % 2 == 0 ? 4 : 1000;
        begin(&pair);
        for (int i = 0; i < 600; i++) {
            block_t *block = &blocks[draw(&random) % 3];
            if (draw(&random) % 97 == 0)
                limit(&pair, (uint32_t)(draw(&random) % 5000));
            if (block->count == 0 || draw(&random) % 3 == 0)
                make_block(block, &random, variety);
            pass(&pair, block);
        }
        end(&pair);
        memset(blocks, 0, sizeof blocks);
    }
}

static void what_comes_again_is_short(void **state)
{
    static block_t block, other;
    pair_t pair;
    begin(&pair);
    set(&block, ":method", "POST", false);
    set(&block, ":path", "/service/method", false);
    set(&block, "datacake-timeout", "10000", false);
    set(&block, "datacake-cluster", "a cluster with a long name", false);
    size_t first = pass(&pair, &block), again = pass(&pair, &block);
    assert_true(again < first && again <= 3 + strlen("/service/method") + 2);
    uint32_t version = pair.deflate.version;
    for (int i = 0; i < 10; i++)
        assert_int_equal(pass(&pair, &block), again);
    assert_int_equal(pair.deflate.version, version);
    for (int i = 0; i < 2000; i++) { /* others fill the table, and go again */
        char value[20];
        other.count = 0;
        snprintf(value, sizeof value, "%d", i < 1000 ? i : 7);
        set(&other, ":method", "POST", false);
        set(&other, "x-other", value, false);
        pass(&pair, &other);
    }
    pass(&pair, &block);
    assert_int_equal(pass(&pair, &block), again);
    version = pair.deflate.version;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(pass(&pair, &block), again);
        pass(&pair, &other);
    }
    assert_int_equal(pair.deflate.version, version); /* all of them kept */
    end(&pair);
}

/* An encoder whose table is empty costs memory for nothing; what was kept is good without it, and a new one goes on. */
static void an_encoder_that_knows_nothing_goes(void **state)
{
    static block_t block, other;
    pair_t pair;
    begin(&pair);
    set(&block, ":status", "200", false);
    set(&other, ":status", "200", false);
    set(&other, "x-other", "7", false);
    pass(&pair, &block);
    cake__deflate_rest(&pair.deflate);
    assert_null(pair.deflate.deflater);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pass(&pair, &block), 1);
        cake__deflate_rest(&pair.deflate);
    }
    assert_null(pair.deflate.deflater);
    limit(&pair, 2000);
    assert_true(pass(&pair, &block) > 1); /* the table's size comes before it */
    limit(&pair, 4096);
    pass(&pair, &other);
    cake__deflate_rest(&pair.deflate); /* its table has an entry, as the peer's */
    assert_non_null(pair.deflate.deflater);
    assert_true(pass(&pair, &other) <= 2);
    end(&pair);
}

/* A block is written right or not at all; one that cannot be kept is written all the same. */
static void each_allocation_may_fail(void **state)
{
    static block_t block;
    static uint8_t out[HEADERS * 1000];
    uint64_t random = 1;
    intptr_t len = CAKE_ENOMEM;
    for (int64_t fails_at = 0; len < 0; fails_at++) {
        pair_t pair;
        begin(&pair);
        pair.left = fails_at;
        make_block(&block, &random, 10);
        for (int i = 0; i < 3; i++) {
            len = cake__deflate_write(&pair.deflate, block.headers, block.count, out);
            if (len < 0)
                break;
            reads_as(pair.inflater, out, (size_t)len, &block);
        }
        assert_true(len > 0 || len == CAKE_ENOMEM);
        end(&pair);
        assert_true(fails_at < 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_read_as_written), cmocka_unit_test(what_comes_again_is_short),
        cmocka_unit_test(an_encoder_that_knows_nothing_goes), cmocka_unit_test(each_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
