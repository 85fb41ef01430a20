/* Blocks that come again, read from what was kept, give the headers that nghttp2's reader gives.
 * ctest: no-tsan: one thread */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "rpc/h2/state.h"

#define BLOCK_MAX 4096u

typedef struct {
    cake__h2_t *h2;
    cake__h2_stream_t stream; /* one at a time: each is reset by the next block's test */
    char text[BLOCK_MAX];     /* what has come: name=value; */
    size_t len;
    int32_t next_id;
} reader_t;

static void add(char *text, size_t *len, cake_slice_t name, cake_slice_t value)
{
    int more = snprintf(text + *len, BLOCK_MAX - *len, "%.*s=%.*s;", (int)name.len, (const char *)name.data,
                        (int)value.len, (const char *)value.data);
    assert_true(more > 0 && *len + (size_t)more < BLOCK_MAX);
    *len += (size_t)more;
}

static cake__h2_stream_t *on_begin(void *arg)
{
    reader_t *reader = arg;
    reader->stream = (cake__h2_stream_t){.id = 0};
    return &reader->stream;
}

static void on_header(void *arg, cake__h2_stream_t *stream, cake_slice_t name, cake_slice_t value)
{
    reader_t *reader = arg;
    (void)stream;
    add(reader->text, &reader->len, name, value);
}

static void on_headers(void *arg, cake__h2_stream_t *stream)
{
    (void)arg;
    (void)stream;
}

static void on_end(void *arg, cake__h2_stream_t *stream)
{
    cake__h2_reset(((reader_t *)arg)->h2, stream);
}

static void on_closed(void *arg, cake__h2_stream_t *stream, cake__h2_reason_t reason)
{
    (void)arg;
    (void)stream;
    (void)reason;
}

static void begin(reader_t *reader)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    static const cake__h2_events_t events = {.on_begin = on_begin,
                                             .on_header = on_header,
                                             .on_headers = on_headers,
                                             .on_end = on_end,
                                             .on_closed = on_closed};
    *reader = (reader_t){.next_id = 1};
    cake__h2_config_t config = {.is_server = true,
                                .alloc = &cake__libc_alloc,
                                .max_streams = 10,
                                .max_header_bytes = 10000,
                                .max_resets_per_s = 10,
                                .max_pings_per_s = 10,
                                .max_settings_per_s = 10,
                                .events = &events,
                                .arg = reader};
    assert_int_equal(cake__h2_new(&config, &reader->h2), 0);
    assert_int_equal(cake__h2_receive(reader->h2, 1, (const uint8_t *)preface, sizeof preface - 1), 0);
}

static void end(reader_t *reader)
{
    cake__h2_free(reader->h2);
}

/* A request of headers alone; then its stream goes. */
static int receive(reader_t *reader, const uint8_t *block, size_t len)
{
    uint8_t frame[CAKE__H2_HEAD_BYTES + BLOCK_MAX] = {0, (uint8_t)(len >> 8), (uint8_t)len, NGHTTP2_HEADERS, 5};
    cake__h2_store_u32(frame + 5, (uint32_t)reader->next_id);
    reader->next_id += 2;
    reader->len = 0;
    memcpy(frame + CAKE__H2_HEAD_BYTES, block, len);
    int err = cake__h2_receive(reader->h2, 1, frame, CAKE__H2_HEAD_BYTES + len);
    cake__pool_t pool;
    cake__batch_t *batch = calloc(1, sizeof *batch);
    cake__pool_init(&pool, &cake__libc_alloc);
    batch->pool = &pool;
    (void)cake__h2_pull(reader->h2, batch);
    cake__batch_clear(batch);
    cake__pool_free(&pool);
    free(batch);
    return err;
}

static size_t expect(nghttp2_hd_inflater *inflater, const uint8_t *block, size_t len, char *text)
{
    size_t text_len = 0;
    for (int flags = 0; (flags & NGHTTP2_HD_INFLATE_FINAL) == 0;) {
        nghttp2_nv nv;
        ssize_t taken = nghttp2_hd_inflate_hd2(inflater, &nv, &flags, block, len, 1);
        assert_true(taken >= 0);
        block += taken;
        len -= (size_t)taken;
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0)
            add(text, &text_len, cake__slice(nv.name, nv.namelen), cake__slice(nv.value, nv.valuelen));
    }
    nghttp2_hd_inflate_end_headers(inflater);
    return text_len;
}

static nghttp2_nv header(const char *name, const char *value, uint8_t flags)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name), strlen(value), flags};
}

static uint64_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void blocks_that_come_again_read_alike(void **state)
{
    static uint8_t block[BLOCK_MAX];
    static char text[BLOCK_MAX];
    for (uint64_t seed = 1; seed <= 20; seed++) {
        reader_t reader;
        nghttp2_hd_deflater *deflater;
        nghttp2_hd_inflater *inflater;
        uint64_t random = seed, variety = seed % 4 == 0 ? 500 : 3;
        char path[30], custom[30], unique[30];
        begin(&reader);
        assert_int_equal(nghttp2_hd_deflate_new(&deflater, 4096), 0);
        assert_int_equal(nghttp2_hd_inflate_new(&inflater), 0);
        for (uint64_t i = 0; i < 1500; i++) {
            snprintf(path, sizeof path, "/service/%u", (unsigned)(draw(&random) % variety));
            snprintf(custom, sizeof custom, "value %u", (unsigned)(draw(&random) % variety));
            snprintf(unique, sizeof unique, "%u", (unsigned)i);
            nghttp2_nv all[] = {header(":method", "POST", 0), header(":scheme", "http", 0), header(":path", path, 0),
                                header("custom", custom, 0), header("unique", unique, NGHTTP2_NV_FLAG_NO_INDEX)};
            if (draw(&random) % 200 == 0)
                nghttp2_hd_deflate_change_table_size(deflater, draw(&random) % 4096);
            ssize_t len = nghttp2_hd_deflate_hd(deflater, block, sizeof block, all, 4 + draw(&random) % 2);
            assert_true(len > 0);
            assert_int_equal(receive(&reader, block, (size_t)len), 0);
            assert_int_equal(reader.len, expect(inflater, block, (size_t)len, text));
            assert_memory_equal(reader.text, text, reader.len);
        }
        end(&reader);
        nghttp2_hd_deflate_del(deflater);
        nghttp2_hd_inflate_del(inflater);
    }
}

/* RFC 7541, 4.2: a change of the table's size stands at the beginning, also where that was not read again. */
static void what_follows_a_kept_block_is_checked(void **state)
{
    static const uint8_t block[] = {0x83, 0x86, 0x04, 2, '/', 'a'};
    uint8_t longer[sizeof block + 3];
    reader_t reader;
    begin(&reader);
    for (int i = 0; i < 3; i++)
        assert_int_equal(receive(&reader, block, sizeof block), 0);
    assert_string_equal(reader.text, ":method=POST;:scheme=http;:path=/a;");
    memcpy(longer, block, sizeof block);
    memcpy(longer + sizeof block, "\x3f\xe1\x1f", 3);
    assert_int_equal(receive(&reader, longer, sizeof longer), CAKE_EPARSE);
    end(&reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(blocks_that_come_again_read_alike),
                                       cmocka_unit_test(what_follows_a_kept_block_is_checked)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
