/* http_bulk.c: POST /kv/{keyspace}: documents as NDJSON, put in batches while the body arrives.
 *
 *   bytes -> line -> batch (BATCH_ITEMS or BATCH_BYTES) -> cake_store_put_many_async, the connection suspended meanwhile
 *
 * So a body of any length needs the memory of one line and one batch. Lines that are no document are counted and named in the
 * answer, and the rest goes on. When the store refuses a batch, nothing after it is put: the answer is the store's error
 * with the number of the batch's first line, from which a client goes on. */
#include "http_request.h"

#include "lines.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_ITEMS      1000u
#define BATCH_BYTES      (1u << 20)
#define LINE_SLACK_BYTES (64u << 10) /* of a line, beyond twice its value */
#define ERRORS_MAX       1000u       /* lines named in one answer */

typedef struct bulk {
    text_t line, arena;
    struct {
        size_t key_at, key_len, value_at, value_len;
    } items[BATCH_ITEMS];
    size_t count;
    uint64_t line_number, batch_line; /* of the current line; of the first one in the batch */
    uint64_t put, failed;
    json_t *errors;
    bool is_skipping; /* the rest of a line that is too long */
    bool is_flushing; /* a batch is with the store */
    bool is_over;     /* the store refused one */
} bulk_t;

void bulk_begin(request_t *request)
{
    bulk_t *bulk = calloc(1, sizeof(*bulk));
    request->own = bulk;
    if (bulk != NULL)
        bulk->errors = json_array();
    if (bulk == NULL || bulk->errors == NULL)
        request_refuse(request, 503, "out_of_memory", "out of memory; try again");
    else
        bulk->line_number = 1;
}

void bulk_end(request_t *request)
{
    bulk_t *bulk = request->own;
    if (bulk == NULL)
        return;
    text_free(&bulk->line);
    text_free(&bulk->arena);
    json_decref(bulk->errors);
    free(bulk);
}

static void note_bad_line(bulk_t *bulk, const char *code, const char *message)
{
    bulk->failed++;
    if (json_array_size(bulk->errors) == ERRORS_MAX)
        return;
    json_t *error = json_pack("{s:I,s:s,s:s}", "line", (json_int_t)bulk->line_number, "code", code, "message", message);
    if (error == NULL)
        error = json_pack("{s:I,s:s,s:s}", "line", (json_int_t)bulk->line_number, "code", code, "message", "refused");
    json_array_append_new(bulk->errors, error);
}

static void end_line(request_t *request, bulk_t *bulk)
{
    line_t line;
    size_t len = bulk->line.len;
    if (bulk->is_skipping) {
        note_bad_line(bulk, "too_large", "the line is too long");
    } else if (len > 0 && strspn(bulk->line.data, " \t\r") != len) {
        int err = line_parse(&line, bulk->line.data, len, request->http->options.max_value_bytes);
        if (err == 0) {
            if (bulk->count == 0)
                bulk->batch_line = bulk->line_number;
            size_t at = bulk->arena.len;
            text_append(&bulk->arena, line.key.data, line.key.len);
            text_append(&bulk->arena, line.value.data, line.value.len);
            bulk->items[bulk->count].key_at = at;
            bulk->items[bulk->count].key_len = line.key.len;
            bulk->items[bulk->count].value_at = at + line.key.len;
            bulk->items[bulk->count].value_len = line.value.len;
            bulk->count++;
        } else {
            note_bad_line(bulk, err == CAKE_ETOOBIG ? "too_large" : "invalid_argument", line.message);
        }
        line_free(&line);
    }
    text_clear(&bulk->line);
    bulk->is_skipping = false;
    bulk->line_number++;
}

static void give_up(request_t *request, bulk_t *bulk, int err)
{
    bulk->is_over = true;
    request->answer.err = err;
    snprintf(request->answer.message, sizeof(request->answer.message), "%s", cake_strerror(err));
}

static void flush(request_t *request, bulk_t *bulk)
{
    cake_item_t *items = calloc(bulk->count, sizeof(*items));
    if (items == NULL || bulk->arena.failed || !http_enter(request->http)) {
        give_up(request, bulk, atomic_load(&request->http->is_stopping) ? CAKE_ECLOSED : CAKE_ENOMEM);
        free(items);
        return;
    }
    for (size_t i = 0; i < bulk->count; i++) {
        items[i].key = cake_key_bytes(bulk->arena.data + bulk->items[i].key_at, bulk->items[i].key_len);
        items[i].value = bulk->arena.data + bulk->items[i].value_at;
        items[i].len = bulk->items[i].value_len;
    }
    bulk->is_flushing = true;
    request_suspend(request);
    int err = cake_store_put_many_async(request->http->options.store, request->keyspace, items, bulk->count,
                                        request->level, request_done, request);
    if (err != 0)
        request_not_started(request, err);
    http_leave(request->http);
    free(items);
}

static void take_result(request_t *request, bulk_t *bulk)
{
    bulk->is_flushing = false;
    if (request->answer.err == 0)
        bulk->put += bulk->count;
    else
        bulk->is_over = true;
    bulk->count = 0;
    text_clear(&bulk->arena);
}

static bool charge(request_t *request, bulk_t *bulk)
{
    uint64_t held = bulk->line.size + bulk->arena.size;
    if (held <= request->charged)
        return true;
    uint64_t more = held - request->charged;
    if (atomic_fetch_add(&request->http->body_bytes, more) + more > request->http->options.max_body_bytes) {
        atomic_fetch_sub(&request->http->body_bytes, more);
        give_up(request, bulk, CAKE_EBUSY);
        return false;
    }
    request->charged = held;
    return true;
}

void bulk_body(request_t *request, const char *data, size_t *len)
{
    bulk_t *bulk = request->own;
    size_t line_max = 2 * request->http->options.max_value_bytes + LINE_SLACK_BYTES;
    if (bulk->is_flushing)
        take_result(request, bulk);
    while (*len > 0 && !bulk->is_over && !bulk->is_flushing) {
        const char *newline = memchr(data, '\n', *len);
        size_t piece = newline == NULL ? *len : (size_t)(newline - data);
        bulk->is_skipping = bulk->is_skipping || bulk->line.len + piece > line_max;
        if (!bulk->is_skipping)
            text_append(&bulk->line, data, piece);
        if (bulk->line.failed)
            give_up(request, bulk, CAKE_ENOMEM);
        if (newline != NULL) {
            piece++;
            end_line(request, bulk);
        }
        data += piece;
        *len -= piece;
        if (charge(request, bulk) && (bulk->count == BATCH_ITEMS || bulk->arena.len >= BATCH_BYTES))
            flush(request, bulk);
    }
    if (bulk->is_over)
        *len = 0; /* read, so that the client gets to see the answer */
}

static enum MHD_Result answer_bulk(request_t *request, bulk_t *bulk)
{
    unsigned status = 200;
    json_t *body = request->answer.err == 0 ? json_object() : request_error_body(&request->answer, &status);
    json_object_set_new(body, "put", json_integer((json_int_t)bulk->put));
    json_object_set_new(body, "failed", json_integer((json_int_t)bulk->failed));
    json_object_set(body, "errors", bulk->errors);
    if (request->answer.err != 0)
        json_object_set_new(body, "line", json_integer((json_int_t)bulk->batch_line));
    return request_json(request, status, body, request->answer.timestamp);
}

enum MHD_Result bulk_finish(request_t *request)
{
    bulk_t *bulk = request->own;
    if (bulk->is_flushing)
        take_result(request, bulk);
    if (!bulk->is_over && (bulk->line.len > 0 || bulk->is_skipping))
        end_line(request, bulk);
    if (!bulk->is_over && bulk->count > 0)
        flush(request, bulk);
    return bulk->is_flushing ? MHD_YES : answer_bulk(request, bulk);
}
