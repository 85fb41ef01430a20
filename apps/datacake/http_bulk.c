/* http_bulk.c: POST /kv/{keyspace}: documents and deletes as NDJSON, written in batches while the body arrives.
 *
 *   bytes -> line -> batch (BATCH_ITEMS or BATCH_BYTES) -> the store, the connection suspended meanwhile
 *
 * A batch holds puts or deletes: a line of the other kind waits in `line` until the batch before it is written.
 *
 * So a body of any length needs the memory of one line and one batch. Lines that are no document are counted and
 * named in the answer, and the rest goes on. When the store refuses a batch, nothing after it is put: the answer is
 * the store's error with the number of the batch's first line, from which a client goes on. */
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
    uint64_t put, deleted, failed;
    json_t *errors;
    bool is_skipping; /* the rest of a line that is too long */
    bool is_flushing; /* a batch is with the store */
    bool is_over;     /* the store refused one */
    bool is_delete;   /* what the batch holds */
    bool is_held;     /* line is whole, and of the other kind */
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

static void add_item(bulk_t *bulk, const line_t *line)
{
    size_t at = bulk->arena.len;
    if (bulk->count == 0)
        bulk->batch_line = bulk->line_number;
    text_append(&bulk->arena, line->key.data, line->key.len);
    text_append(&bulk->arena, line->value.data, line->value.len);
    bulk->items[bulk->count].key_at = at;
    bulk->items[bulk->count].key_len = line->key.len;
    bulk->items[bulk->count].value_at = at + line->key.len;
    bulk->items[bulk->count].value_len = line->value.len;
    bulk->count++;
    bulk->is_delete = line->is_delete;
}

/* Sets is_held, and leaves the line as it is, when the batch has to go first. */
static void end_line(request_t *request, bulk_t *bulk)
{
    line_t line;
    size_t len = bulk->line.len;
    bulk->is_held = false;
    if (bulk->is_skipping) {
        note_bad_line(bulk, "too_large", "the line is too long");
    } else if (len > 0 && strspn(bulk->line.data, " \t\r") != len) {
        int err = line_parse(&line, bulk->line.data, len, request->http->options.max_value_bytes);
        bulk->is_held = err == 0 && bulk->count > 0 && line.is_delete != bulk->is_delete;
        if (err != 0)
            note_bad_line(bulk, err == CAKE_ETOOBIG ? "too_large" : "invalid_argument", line.message);
        else if (!bulk->is_held)
            add_item(bulk, &line);
        line_free(&line);
    }
    if (bulk->is_held)
        return;
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

static int write_batch(request_t *request, const bulk_t *bulk)
{
    cake_store_t *store = request->http->options.store;
    cake_item_t *items = calloc(bulk->count, sizeof(*items));
    cake_key_t *keys = calloc(bulk->count, sizeof(*keys));
    int err = items == NULL || keys == NULL || bulk->arena.failed ? CAKE_ENOMEM : 0;
    for (size_t i = 0; err == 0 && i < bulk->count; i++) {
        keys[i] = cake_key_bytes(bulk->arena.data + bulk->items[i].key_at, bulk->items[i].key_len);
        items[i].key = keys[i];
        items[i].value = bulk->arena.data + bulk->items[i].value_at;
        items[i].len = bulk->items[i].value_len;
    }
    if (err == 0 && bulk->is_delete)
        err = cake_store_del_many_async(store, request->keyspace, keys, bulk->count, request->level, request_done,
                                        request);
    else if (err == 0)
        err = cake_store_put_many_async(store, request->keyspace, items, bulk->count, request->level, request_done,
                                        request);
    free(items);
    free(keys);
    return err;
}

static void flush(request_t *request, bulk_t *bulk)
{
    if (!http_enter(request->http)) {
        give_up(request, bulk, CAKE_ECLOSED);
        return;
    }
    bulk->is_flushing = true;
    request_suspend(request);
    int err = write_batch(request, bulk);
    if (err != 0)
        request_not_started(request, err);
    http_leave(request->http);
}

static void take_result(request_t *request, bulk_t *bulk)
{
    bulk->is_flushing = false;
    if (request->answer.err != 0)
        bulk->is_over = true;
    else if (bulk->is_delete)
        bulk->deleted += bulk->count;
    else
        bulk->put += bulk->count;
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
    if (bulk->is_held && !bulk->is_over)
        end_line(request, bulk);
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
        if (charge(request, bulk) && (bulk->is_held || bulk->count == BATCH_ITEMS || bulk->arena.len >= BATCH_BYTES))
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
    json_object_set_new(body, "deleted", json_integer((json_int_t)bulk->deleted));
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
