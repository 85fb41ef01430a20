/* http_kv.c: single documents and listings. */
#include "http_request.h"

#include "command.h"
#include "lines.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES     (256u << 10) /* of a listing, made at once */
#define PAGE_DOCUMENTS 512u

static cake_key_t key_of(const request_t *request)
{
    return cake_key_bytes(request->key, request->key_len);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static void refuse_large(request_t *request)
{
    request_refuse(request, 413, "too_large", "a value has up to %llu bytes here",
                   (unsigned long long)request->http->options.max_value_bytes);
}

/* If-Match: a tag that this API gave, of which the stamp decides. If-None-Match: * where there must be no document. */
static void take_condition(request_t *request)
{
    const char *match = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "If-Match");
    const char *none = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "If-None-Match");
    if (match == NULL && none == NULL)
        return;
    unsigned long long stamp = 0;
    int end = 0;
    bool is_create = match == NULL && strcmp(none, "*") == 0;
    bool is_tag = match != NULL && none == NULL &&
                  sscanf(match, "\"%16llx-%*16[0-9a-f]-%*16[0-9a-f]\"%n", &stamp, &end) == 1 && end > 0 &&
                  match[end] == 0 && stamp != 0;
    if (!is_create && !is_tag)
        request_refuse(request, 400, "invalid_argument",
                       "writes take If-Match with one ETag of a document, or If-None-Match: *");
    request->has_expected = true;
    request->expected = stamp;
}

void kv_begin_delete(request_t *request)
{
    take_condition(request);
}

void kv_begin_write(request_t *request)
{
    take_condition(request);
    const char *length = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "Content-Length");
    uint64_t announced = length == NULL ? 0 : strtoull(length, NULL, 10);
    if (announced > request->http->options.max_value_bytes)
        refuse_large(request);
}

void kv_take_body(request_t *request, const char *data, size_t *len)
{
    uint64_t total = request->body.len + *len;
    if (total > request->http->options.max_value_bytes) {
        refuse_large(request);
    } else if (total <= request->charged || http_charge(request, total - request->charged)) {
        text_append(&request->body, data, *len);
        if (request->body.failed)
            request_refuse(request, 503, "out_of_memory", "out of memory; try again");
    }
    *len = 0;
}

static enum MHD_Result answer_write(request_t *request)
{
    if (request->answer.err != 0)
        return request_answer_error(request);
    char stamp[CAKE_HLC_TEXT_MAX];
    cake_hlc_format(request->answer.timestamp, stamp, sizeof(stamp));
    json_t *body = json_pack("{s:s,s:o,s:s}", "keyspace", request->keyspace, "key",
                             bytes_to_json(request->key, request->key_len), "timestamp", stamp);
    return request_json(request, 200, body, request->answer.timestamp);
}

enum MHD_Result kv_put(request_t *request)
{
    if (request->is_started)
        return answer_write(request);
    cake_store_t *store = request->http->options.store;
    const char *value = request->body.len == 0 ? "" : request->body.data;
    request_suspend(request);
    int err = request->has_expected
                  ? cake_store_put_if_async(store, request->keyspace, key_of(request), value, request->body.len,
                                            request->expected, request->level, request_done, request)
                  : cake_store_put_async(store, request->keyspace, key_of(request), value, request->body.len,
                                         request->level, request_done, request);
    if (err != 0)
        request_not_started(request, err);
    return MHD_YES;
}

enum MHD_Result kv_delete(request_t *request)
{
    if (request->is_started)
        return answer_write(request);
    cake_store_t *store = request->http->options.store;
    request_suspend(request);
    int err = request->has_expected ? cake_store_del_if_async(store, request->keyspace, key_of(request),
                                                              request->expected, request->level, request_done, request)
                                    : cake_store_del_async(store, request->keyspace, key_of(request), request->level,
                                                           request_done, request);
    if (err != 0)
        request_not_started(request, err);
    return MHD_YES;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static void free_doc(void *doc)
{
    cake_doc_free(doc);
}

/* The version's own name: two writes may share a stamp, never stamp and dot. */
static void format_tag(const cake_doc_t *doc, char *out, size_t size)
{
    cake_dot_t dot = cake_doc_dot(doc);
    snprintf(out, size, "\"%016llx-%016llx-%llx\"", (unsigned long long)cake_doc_timestamp(doc),
             (unsigned long long)dot.actor, (unsigned long long)dot.seq);
}

static enum MHD_Result answer_document(request_t *request)
{
    cake_doc_t *doc = request->answer.doc;
    cake_slice_t value = cake_doc_value(doc);
    cake_hlc_t stamp = cake_doc_timestamp(doc);
    char tag[64];
    format_tag(doc, tag, sizeof(tag));
    const char *known = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "If-None-Match");
    bool is_known = known != NULL && (strcmp(known, "*") == 0 || strstr(known, tag) != NULL);
    struct MHD_Response *response;
    if (is_known) {
        response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    } else {
        if (!http_charge(request, value.len))
            return request_error(request, 0, NULL);
        response = MHD_create_response_from_buffer_with_free_callback_cls(
            value.len, (void *)(uintptr_t)(value.len == 0 ? "" : value.data), free_doc, doc);
        if (response != NULL)
            request->answer.doc = NULL; /* the response frees it */
        atomic_fetch_add(&request->http->sent_bytes, value.len);
    }
    if (response != NULL) {
        MHD_add_response_header(response, "ETag", tag);
        if (!is_known)
            MHD_add_response_header(response, "Content-Type", "application/octet-stream");
    }
    return request_respond(request, is_known ? 304 : 200, response, stamp);
}

enum MHD_Result kv_get(request_t *request)
{
    cake_store_t *store = request->http->options.store;
    if (!request->is_started && request->has_level && request->level != CAKE_NONE) {
        request_suspend(request);
        int err =
            cake_store_get_at_async(store, request->keyspace, key_of(request), request->level, request_done, request);
        if (err != 0)
            request_not_started(request, err);
        return MHD_YES;
    }
    if (!request->is_started)
        request->answer.err = cake_store_get(store, request->keyspace, key_of(request), &request->answer.doc);
    if (request->answer.err == 0 && request->answer.doc == NULL)
        request->answer.err = CAKE_ENOTFOUND;
    if (request->answer.err == CAKE_ENOTFOUND)
        snprintf(request->answer.message, sizeof(request->answer.message), "there is no such document");
    if (request->answer.err != 0)
        return request_answer_error(request);
    return answer_document(request);
}

/* ---- listing: pages of PAGE_BYTES, made as the client reads ------------------------------------------------------ */

typedef struct listing {
    http_t *http;
    char keyspace[CAKE_KEYSPACE_NAME_MAX + 1];
    text_t prefix, after, page;
    size_t page_at; /* sent so far */
    uint64_t left;  /* documents still to list */
    uint64_t charged;
    bool has_values, is_last;
} listing_t;

static void listing_free(void *arg)
{
    listing_t *listing = arg;
    atomic_fetch_sub(&listing->http->body_bytes, listing->charged);
    text_free(&listing->prefix);
    text_free(&listing->after);
    text_free(&listing->page);
    free(listing);
}

static int list_one(void *arg, const cake_doc_t *doc)
{
    listing_t *listing = arg;
    cake_slice_t key = cake_doc_key(doc), value = cake_doc_value(doc);
    line_write(&listing->page, key, listing->has_values ? &value : NULL, cake_doc_timestamp(doc));
    text_clear(&listing->after);
    text_append(&listing->after, key.data, key.len);
    listing->left--;
    return listing->page.len >= PAGE_BYTES ? 1 : 0;
}

/* Listings with large values hold more than a page: that counts like bodies. */
static bool charge_page(listing_t *listing)
{
    if (listing->page.size <= listing->charged)
        return true;
    uint64_t more = listing->page.size - listing->charged;
    listing->charged += more;
    return atomic_fetch_add(&listing->http->body_bytes, more) + more <= listing->http->options.max_body_bytes;
}

static int make_page(listing_t *listing)
{
    cake_scan_t range = {.prefix = {listing->prefix.data, listing->prefix.len},
                         .after = {listing->after.data, listing->after.len},
                         .limit = listing->left < PAGE_DOCUMENTS ? listing->left : PAGE_DOCUMENTS,
                         .keys_only = !listing->has_values};
    char after[CAKE_KEY_MAX]; /* list_one overwrites the original */
    memcpy(after, listing->after.len == 0 ? "" : listing->after.data, listing->after.len);
    range.after.data = after;
    uint64_t before = listing->left;
    text_clear(&listing->page);
    listing->page_at = 0;
    int err = range.limit == 0
                  ? 0
                  : cake_store_scan(listing->http->options.store, listing->keyspace, &range, list_one, listing);
    if (err < 0)
        return err;
    listing->is_last = err == 0 && before - listing->left < range.limit;
    listing->is_last = listing->is_last || listing->left == 0;
    if (listing->page.failed || listing->after.failed)
        return CAKE_ENOMEM;
    return charge_page(listing) ? 0 : CAKE_EBUSY;
}

static ssize_t read_listing(void *arg, uint64_t position, char *out, size_t max)
{
    listing_t *listing = arg;
    if (listing->page_at == listing->page.len) {
        if (listing->is_last)
            return MHD_CONTENT_READER_END_OF_STREAM;
        if (!http_enter(listing->http))
            return MHD_CONTENT_READER_END_WITH_ERROR;
        int err = make_page(listing);
        http_leave(listing->http);
        if (err != 0)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        if (listing->page.len == 0)
            return MHD_CONTENT_READER_END_OF_STREAM;
    }
    size_t len = listing->page.len - listing->page_at;
    len = len < max ? len : max;
    memcpy(out, listing->page.data + listing->page_at, len);
    listing->page_at += len;
    atomic_fetch_add(&listing->http->sent_bytes, len);
    return (ssize_t)len;
}

static void take_range(request_t *request, listing_t *listing)
{
    const char *limit = request_query(request, "limit");
    if (request_query_bytes(request, "prefix", &listing->prefix) != 0 ||
        request_query_bytes(request, "after", &listing->after) != 0)
        return;
    if (limit != NULL && parse_number(limit, 1, UINT64_MAX / 2, &listing->left) != 0)
        request_refuse(request, 400, "invalid_argument", "limit is a number above 0");
    listing->has_values = request_query_flag(request, "values");
}

enum MHD_Result list_documents(request_t *request)
{
    listing_t *listing = calloc(1, sizeof(*listing));
    if (listing == NULL)
        return request_error(request, CAKE_ENOMEM, NULL);
    listing->http = request->http;
    listing->left = UINT64_MAX / 2;
    memcpy(listing->keyspace, request->keyspace, sizeof(listing->keyspace));
    take_range(request, listing);
    int err = request->refusal != 0 ? CAKE_EINVAL : make_page(listing);
    if (err != 0) {
        listing_free(listing);
        return request_error(request, err, NULL);
    }
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 32u << 10, read_listing, listing, listing_free);
    if (response == NULL)
        listing_free(listing);
    else
        MHD_add_response_header(response, "Content-Type", "application/x-ndjson");
    return request_respond(request, 200, response, 0);
}
