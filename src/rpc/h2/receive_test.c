/* What a session takes from its peer, and how much of it: frames, windows, headers, and what it is made to send.
 * ctest: no-tsan: one thread */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "rpc/h2/state.h"

#define STREAMS       4u
#define HEADERS_MAX   1000u
#define USELESS_MAX   10000u   /* in a second */
#define WINDOWS_MAX   1000000u /* likewise */
#define CONTROL_MAX   (256u << 10)
#define STREAM_WINDOW (4u << 20)
#define CONN_WINDOW   (16u << 20)

static const uint8_t HEAD[] = {0x83, 0x86, 0x04, 2, '/', 'a'}; /* :method POST, :scheme http, :path /a */

typedef struct {
    cake__h2_t *h2;
    cake__h2_stream_t streams[STREAMS];
    size_t begun, ended, reset;
    size_t heads, header_bytes; /* that were given to the owner */
    size_t body_bytes;
    uint64_t now_ns;
    cake__pool_t pool;
    /* what it has sent */
    int frames[10];
    uint32_t reset_code, goaway_code;
    uint64_t conn_window, stream_window; /* that it has given so far */
} machine_t;

static cake__h2_stream_t *on_begin(void *arg)
{
    machine_t *machine = arg;
    cake__h2_stream_t *stream = &machine->streams[machine->begun++ % STREAMS];
    *stream = (cake__h2_stream_t){.id = 0};
    return stream;
}

static void on_header(void *arg, cake__h2_stream_t *stream, cake_slice_t name, cake_slice_t value)
{
    machine_t *machine = arg;
    machine->header_bytes += name.len + value.len + 32;
}

static void on_headers(void *arg, cake__h2_stream_t *stream)
{
    machine_t *machine = arg;
    machine->heads++;
}

static void on_data(void *arg, cake__h2_stream_t *stream, const uint8_t *data, size_t len, bool is_whole)
{
    machine_t *machine = arg;
    machine->body_bytes += len;
}

static void on_end(void *arg, cake__h2_stream_t *stream)
{
    machine_t *machine = arg;
    machine->ended++;
    cake__h2_reset(machine->h2, stream);
}

static void on_closed(void *arg, cake__h2_stream_t *stream, cake__h2_reason_t reason)
{
    machine_t *machine = arg;
    machine->reset += reason == CAKE__H2_RESET;
}

/* ---- in and out ---- */

static int take(machine_t *machine, uint8_t type, uint8_t flags, int32_t id, const void *payload, size_t len)
{
    uint8_t *frame = malloc(CAKE__H2_HEAD_BYTES + len);
    memcpy(frame, (uint8_t[]){(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, type, flags}, 5);
    cake__h2_store_u32(frame + 5, (uint32_t)id);
    if (len > 0)
        memcpy(frame + CAKE__H2_HEAD_BYTES, payload, len);
    int err = cake__h2_receive(machine->h2, machine->now_ns, frame, CAKE__H2_HEAD_BYTES + len);
    free(frame);
    return err;
}

static void note_sent(machine_t *machine, const uint8_t *head, const uint8_t *payload, size_t len)
{
    machine->frames[head[3]]++;
    if (head[3] == NGHTTP2_RST_STREAM)
        machine->reset_code = cake__h2_load_u32(payload);
    else if (head[3] == NGHTTP2_GOAWAY)
        machine->goaway_code = cake__h2_load_u32(payload + 4);
    else if (head[3] == NGHTTP2_WINDOW_UPDATE && cake__h2_load_u32(head + 5) == 0)
        machine->conn_window += cake__h2_load_u32(payload);
    else if (head[3] == NGHTTP2_WINDOW_UPDATE)
        machine->stream_window += cake__h2_load_u32(payload);
    for (size_t at = 0; head[3] == NGHTTP2_SETTINGS && at < len; at += 6) {
        if (payload[at + 1] == NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE)
            machine->stream_window = cake__h2_load_u32(payload + at + 2);
    }
}

static void pull(machine_t *machine)
{
    cake__batch_t *batch = calloc(1, sizeof *batch);
    cake__buf_t out;
    cake__buf_init(&out, &cake__libc_alloc);
    batch->pool = &machine->pool;
    do {
        cake__batch_clear(batch);
        assert_int_equal(cake__h2_pull(machine->h2, batch), 0);
        for (size_t i = 0; i < batch->count; i++)
            cake__put_bytes(&out, batch->iov[i].data, batch->iov[i].len);
    } while (batch->count > 0);
    for (size_t at = 0, len = 0; at < out.len; at += CAKE__H2_HEAD_BYTES + len) {
        len = (size_t)out.data[at] << 16 | (size_t)out.data[at + 1] << 8 | out.data[at + 2];
        note_sent(machine, out.data + at, out.data + at + CAKE__H2_HEAD_BYTES, len);
    }
    cake__buf_free(&out);
    free(batch);
}

static void begin(machine_t *machine)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    static const cake__h2_events_t events = {.on_begin = on_begin,
                                             .on_header = on_header,
                                             .on_headers = on_headers,
                                             .on_data = on_data,
                                             .on_end = on_end,
                                             .on_closed = on_closed};
    *machine = (machine_t){.now_ns = 1, .conn_window = CAKE__H2_WINDOW_FIRST};
    cake__pool_init(&machine->pool, &cake__libc_alloc);
    cake__h2_config_t config = {.is_server = true,
                                .alloc = &cake__libc_alloc,
                                .max_streams = STREAMS,
                                .max_header_bytes = HEADERS_MAX,
                                .max_resets_per_s = UINT32_MAX,
                                .max_pings_per_s = UINT32_MAX,
                                .max_settings_per_s = UINT32_MAX,
                                .events = &events,
                                .arg = machine};
    assert_int_equal(cake__h2_new(&config, &machine->h2), 0);
    assert_int_equal(cake__h2_receive(machine->h2, 1, (const uint8_t *)preface, sizeof preface - 1), 0);
    pull(machine);
}

static void end(machine_t *machine)
{
    cake__h2_free(machine->h2);
    cake__pool_free(&machine->pool);
}

/* ---- frames that are of no use ---- */

typedef struct {
    uint8_t type, flags;
    int32_t id;
    const char *payload;
    size_t len, max; /* max: of them in a second, or 0 */
    size_t answer;   /* bytes of each, or 0 */
} flood_t;

static const flood_t FLOODS[] = {{NGHTTP2_DATA, 0, 1, "", 0, USELESS_MAX, 0},
                                 {NGHTTP2_PRIORITY, 0, 1, "\0\0\0\7\1", 5, USELESS_MAX, 0},
                                 {NGHTTP2_WINDOW_UPDATE, 0, 0, "\0\0\0\1", 4, WINDOWS_MAX, 0},
                                 {NGHTTP2_WINDOW_UPDATE, 0, 1, "\0\0\0\1", 4, WINDOWS_MAX, 0},
                                 {NGHTTP2_PING, 0, 0, "12345678", 8, 0, CAKE__H2_HEAD_BYTES + 8},
                                 {NGHTTP2_SETTINGS, 0, 0, "", 0, 0, CAKE__H2_HEAD_BYTES}};

static int send_flood(machine_t *machine, const flood_t *flood, size_t count)
{
    int err = 0;
    for (size_t i = 0; i < count && err == 0; i++)
        err = take(machine, flood->type, flood->flags, flood->id, flood->payload, flood->len);
    return err;
}

static void useless_frames_are_counted(void **state)
{
    for (size_t i = 0; i < CAKE_COUNT_OF(FLOODS); i++) {
        const flood_t *flood = &FLOODS[i];
        machine_t machine;
        if (flood->max == 0)
            continue;
        begin(&machine);
        assert_int_equal(take(&machine, NGHTTP2_HEADERS, 4, 1, HEAD, sizeof HEAD), 0);
        for (int second = 0; second < 2; second++) {
            machine.now_ns += 1000 * CAKE_NS_PER_MS;
            assert_int_equal(send_flood(&machine, flood, flood->max), 0);
        }
        assert_int_equal(send_flood(&machine, flood, 1), CAKE_EBUSY);
        pull(&machine);
        assert_int_equal(machine.goaway_code, NGHTTP2_ENHANCE_YOUR_CALM);
        assert_int_equal(machine.frames[NGHTTP2_RST_STREAM], 0);
        end(&machine);
    }
}

/* An empty frame that ends a body is how many clients end one. */
static void empty_frames_that_end_a_body_are_of_use(void **state)
{
    machine_t machine;
    begin(&machine);
    for (int32_t i = 0; i < (int32_t)USELESS_MAX + 10; i++) {
        assert_int_equal(take(&machine, NGHTTP2_HEADERS, 4, 2 * i + 1, HEAD, sizeof HEAD), 0);
        assert_int_equal(take(&machine, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 2 * i + 1, "", 0), 0);
        pull(&machine);
    }
    assert_int_equal(machine.ended, USELESS_MAX + 10);
    end(&machine);
}

/* ---- answers that nobody reads ---- */

static void answers_that_nobody_reads_are_limited(void **state)
{
    for (size_t i = 0; i < CAKE_COUNT_OF(FLOODS); i++) {
        const flood_t *flood = &FLOODS[i];
        machine_t machine;
        if (flood->answer == 0)
            continue;
        begin(&machine);
        for (int reads = 0; reads < 3; reads++) { /* who reads them may go on */
            assert_int_equal(send_flood(&machine, flood, CONTROL_MAX / flood->answer), 0);
            pull(&machine);
        }
        assert_int_equal(send_flood(&machine, flood, CONTROL_MAX / flood->answer), 0);
        assert_int_equal(send_flood(&machine, flood, 1), CAKE_EBUSY);
        pull(&machine);
        assert_int_equal(machine.goaway_code, NGHTTP2_ENHANCE_YOUR_CALM);
        end(&machine);
    }
}

static void refusals_that_nobody_reads_are_limited(void **state)
{
    machine_t machine;
    int32_t id = 1, err = 0;
    begin(&machine);
    for (; err == 0 && id < 100000; id += 2)
        err = take(&machine, NGHTTP2_HEADERS, 4, id, HEAD, sizeof HEAD);
    assert_int_equal(err, CAKE_EBUSY);
    assert_int_equal((uint32_t)id / 2, STREAMS + CONTROL_MAX / (CAKE__H2_HEAD_BYTES + 4) + 1);
    pull(&machine);
    assert_int_equal(machine.goaway_code, NGHTTP2_ENHANCE_YOUR_CALM);
    assert_int_equal(machine.reset_code, NGHTTP2_REFUSED_STREAM);
    end(&machine);
}

/* ---- windows ---- */

static void a_stream_has_its_window(void **state)
{
    static const uint8_t body[CAKE__H2_FRAME_MAX];
    machine_t machine;
    begin(&machine);
    assert_int_equal(machine.stream_window, STREAM_WINDOW);
    assert_int_equal(take(&machine, NGHTTP2_HEADERS, 4, 1, HEAD, sizeof HEAD), 0);
    assert_int_equal(take(&machine, NGHTTP2_HEADERS, 4, 3, HEAD, sizeof HEAD), 0);
    for (size_t sent = 0; sent < STREAM_WINDOW; sent += sizeof body)
        assert_int_equal(take(&machine, NGHTTP2_DATA, 0, 1, body, sizeof body), 0);
    pull(&machine);
    assert_true(machine.body_bytes == STREAM_WINDOW && machine.reset == 0);
    assert_int_equal(machine.stream_window, STREAM_WINDOW); /* nothing was consumed */
    assert_int_equal(take(&machine, NGHTTP2_DATA, 0, 1, body, 1), 0);
    pull(&machine);
    assert_true(machine.body_bytes == STREAM_WINDOW && machine.reset == 1); /* that stream, and no other */
    assert_int_equal(machine.reset_code, NGHTTP2_FLOW_CONTROL_ERROR);
    assert_int_equal(take(&machine, NGHTTP2_DATA, 0, 3, body, 1), 0);
    assert_int_equal(machine.body_bytes, STREAM_WINDOW + 1);
    end(&machine);
}

/* What was consumed may be sent again, and no byte more. */
static void what_is_consumed_widens_the_window(void **state)
{
    static const uint8_t body[CAKE__H2_FRAME_MAX];
    machine_t machine;
    size_t sent = 0;
    begin(&machine);
    assert_int_equal(take(&machine, NGHTTP2_HEADERS, 4, 1, HEAD, sizeof HEAD), 0);
    for (; sent < 3 * STREAM_WINDOW; sent += sizeof body) {
        assert_int_equal(take(&machine, NGHTTP2_DATA, 0, 1, body, sizeof body), 0);
        cake__h2_consume(machine.h2, machine.h2->data_stream, sizeof body);
        pull(&machine);
        assert_true(machine.stream_window >= sent + sizeof body);
        assert_true(machine.stream_window <= sent + sizeof body + STREAM_WINDOW);
    }
    for (; sent < machine.stream_window; sent += sizeof body)
        assert_int_equal(take(&machine, NGHTTP2_DATA, 0, 1, body, sizeof body), 0);
    assert_int_equal(machine.reset, 0);
    assert_int_equal(take(&machine, NGHTTP2_DATA, 0, 1, body, 1), 0);
    assert_int_equal(machine.reset, 1);
    end(&machine);
}

/* All streams together: it is given anew as bytes come, in time, and never more than the window ahead of them. */
static void the_connection_has_its_window(void **state)
{
    static const uint8_t body[CAKE__H2_FRAME_MAX];
    machine_t machine;
    size_t sent = 0;
    begin(&machine);
    assert_int_equal(machine.conn_window, CONN_WINDOW);
    for (int32_t id = 1; id < 25; id += 2) {
        assert_int_equal(take(&machine, NGHTTP2_HEADERS, 4, id, HEAD, sizeof HEAD), 0);
        for (size_t of_stream = 0; of_stream < STREAM_WINDOW; of_stream += sizeof body, sent += sizeof body) {
            assert_int_equal(take(&machine, NGHTTP2_DATA, 0, id, body, sizeof body), 0);
            pull(&machine);
            assert_true(machine.conn_window > sent + CONN_WINDOW / 2);
            assert_true(machine.conn_window <= sent + sizeof body + CONN_WINDOW);
        }
        assert_int_equal(take(&machine, NGHTTP2_RST_STREAM, 0, id, "\0\0\0\10", 4), 0);
    }
    machine.h2->receive_left = 100; /* one that was told so little may not send more */
    assert_int_equal(take(&machine, NGHTTP2_HEADERS, 4, 25, HEAD, sizeof HEAD), 0);
    assert_int_equal(take(&machine, NGHTTP2_DATA, 0, 25, body, 100), 0);
    assert_int_equal(take(&machine, NGHTTP2_DATA, 0, 25, body, 1), CAKE_EPARSE);
    pull(&machine);
    assert_int_equal(machine.goaway_code, NGHTTP2_FLOW_CONTROL_ERROR);
    end(&machine);
}

/* ---- headers ---- */

/* A request with so many headers x, each of which counts for 33 bytes and its value. */
static size_t put_head(uint8_t *block, size_t count, uint8_t value_len, bool is_indexed)
{
    size_t len = sizeof HEAD;
    memcpy(block, HEAD, len);
    for (size_t i = 0; i < count; i++) {
        if (is_indexed && i > 0) {
            block[len++] = 0xbe; /* the newest of the table */
            continue;
        }
        block[len++] = is_indexed ? 0x40 : 0;
        block[len++] = 1;
        block[len++] = 'x';
        block[len++] = value_len;
        memset(block + len, 'a', value_len);
        len += value_len;
    }
    return len;
}

/* Beyond the limit they are counted and not reported, beyond four times of it the request is no longer looked at; also
 * when the block has come before, short enough to be kept. */
static void headers_beyond_the_limit_are_not_reported(void **state)
{
    static const struct {
        size_t count;
        uint8_t value_len;
        bool is_whole, is_seen;
    } cases[] = {{8, 67, true, true},    {9, 67, false, true},    {30, 67, false, true},   {38, 67, false, true},
                 {39, 67, false, false}, {600, 67, false, false}, {25, 1, true, true},     {26, 1, false, true},
                 {113, 1, false, true},  {114, 1, false, false},  {50000, 1, false, false}};
    static uint8_t block[300000];
    for (size_t i = 0; i < 2 * CAKE_COUNT_OF(cases); i++) {
        size_t count = cases[i / 2].count, value_len = cases[i / 2].value_len;
        size_t bytes = 43 + 43 + 39 + count * (33 + value_len); /* HEAD's three, see there */
        size_t len = put_head(block, count, (uint8_t)value_len, i % 2 == 1);
        bool is_whole = cases[i / 2].is_whole, is_seen = cases[i / 2].is_seen;
        machine_t machine;
        if (len > CAKE__H2_FRAME_MAX)
            continue;
        begin(&machine);
        for (int32_t id = 1; id <= 5; id += 2) {
            machine.heads = machine.header_bytes = machine.reset = 0;
            assert_int_equal(take(&machine, NGHTTP2_HEADERS, 4, id, block, len), 0);
            assert_int_equal(machine.heads, is_seen);
            assert_int_equal(machine.reset, !is_seen);
            assert_true(machine.header_bytes <= HEADERS_MAX);
            assert_int_equal(machine.header_bytes == bytes, is_whole);
            if (is_seen)
                assert_int_equal(machine.streams[id / 2].header_bytes, bytes);
        }
        pull(&machine);
        assert_true(is_seen || machine.reset_code == NGHTTP2_PROTOCOL_ERROR);
        end(&machine);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(useless_frames_are_counted),
        cmocka_unit_test(empty_frames_that_end_a_body_are_of_use),
        cmocka_unit_test(answers_that_nobody_reads_are_limited),
        cmocka_unit_test(refusals_that_nobody_reads_are_limited),
        cmocka_unit_test(a_stream_has_its_window),
        cmocka_unit_test(what_is_consumed_widens_the_window),
        cmocka_unit_test(the_connection_has_its_window),
        cmocka_unit_test(headers_beyond_the_limit_are_not_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
