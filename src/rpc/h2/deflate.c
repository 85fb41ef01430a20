#include "rpc/h2/deflate.h"

#define ENTRY_OVERHEAD 32u /* RFC 7541, 4.1 */

void cake__deflate_init(cake__deflate_t *deflate, const cake_alloc_t *alloc, nghttp2_mem *mem)
{
    *deflate = (cake__deflate_t){.alloc = alloc, .mem = mem, .max_bytes = CAKE__DEFLATE_TABLE_BYTES};
}

void cake__deflate_free(cake__deflate_t *deflate)
{
    for (size_t i = 0; i < CAKE__DEFLATE_KEPT; i++)
        cake__free(deflate->alloc, deflate->kept[i]);
    if (deflate->deflater != NULL)
        nghttp2_hd_deflate_del(deflate->deflater);
    deflate->deflater = NULL;
}

void cake__deflate_rest(cake__deflate_t *deflate)
{
    bool is_needed = deflate->has_unique || deflate->has_news || deflate->max_bytes < CAKE__DEFLATE_TABLE_BYTES;
    if (deflate->deflater == NULL || is_needed || nghttp2_hd_deflate_get_dynamic_table_size(deflate->deflater) > 0)
        return;
    nghttp2_hd_deflate_del(deflate->deflater);
    deflate->deflater = NULL;
}

/* ---- the table ---- */

/* Blocks made before it are of no use any more. */
static void table_changed(cake__deflate_t *deflate)
{
    deflate->version++;
    deflate->misses = 0;
}

static int resize_table(cake__deflate_t *deflate, uint32_t max_bytes)
{
    table_changed(deflate);
    deflate->has_news = true;
    return nghttp2_hd_deflate_change_table_size(deflate->deflater, max_bytes) == 0 ? 0 : CAKE_ENOMEM;
}

int cake__deflate_limit(cake__deflate_t *deflate, uint32_t max_bytes)
{
    uint32_t limit = max_bytes < CAKE__DEFLATE_TABLE_BYTES ? max_bytes : CAKE__DEFLATE_TABLE_BYTES;
    if (limit == deflate->max_bytes)
        return 0;
    deflate->max_bytes = limit;
    table_changed(deflate); /* also without an encoder: the next block says so */
    return deflate->deflater != NULL ? resize_table(deflate, limit) : 0;
}

static int make(cake__deflate_t *deflate)
{
    if (deflate->deflater != NULL)
        return 0;
    if (nghttp2_hd_deflate_new2(&deflate->deflater, CAKE__DEFLATE_TABLE_BYTES, deflate->mem) != 0) {
        deflate->deflater = NULL;
        return CAKE_ENOMEM;
    }
    return deflate->max_bytes < CAKE__DEFLATE_TABLE_BYTES ? resize_table(deflate, deflate->max_bytes) : 0;
}

/* ---- kept blocks: each header's lengths, name and value, one after another, then the block ---- */

static size_t key_bytes(const cake__h2_header_t *headers, size_t count)
{
    size_t len = 0;
    for (size_t i = 0; i < count; i++)
        len += headers[i].is_unique ? 0 : 2 * sizeof(uint32_t) + headers[i].name.len + headers[i].value.len;
    return len;
}

static bool is_key(const uint8_t *key, const cake__h2_header_t *headers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        cake_slice_t name = headers[i].name, value = headers[i].value;
        uint32_t lens[2];
        if (headers[i].is_unique)
            continue;
        memcpy(lens, key, sizeof lens);
        key += sizeof lens;
        if (lens[0] != name.len || lens[1] != value.len || memcmp(key, name.data, name.len) != 0 ||
            (value.len > 0 && memcmp(key + name.len, value.data, value.len) != 0))
            return false;
        key += name.len + value.len;
    }
    return true;
}

static void write_key(uint8_t *key, const cake__h2_header_t *headers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        cake_slice_t name = headers[i].name, value = headers[i].value;
        uint32_t lens[2] = {(uint32_t)name.len, (uint32_t)value.len};
        if (headers[i].is_unique)
            continue;
        memcpy(key, lens, sizeof lens);
        memcpy(key + sizeof lens, name.data, name.len);
        if (value.len > 0)
            memcpy(key + sizeof lens + name.len, value.data, value.len);
        key += sizeof lens + name.len + value.len;
    }
}

static const cake__kept_block_t *find_kept(const cake__deflate_t *deflate, const cake__h2_header_t *headers,
                                           size_t count, size_t shared)
{
    for (size_t i = 0; i < CAKE__DEFLATE_KEPT; i++) {
        const cake__kept_block_t *kept = deflate->kept[i];
        if (kept != NULL && kept->version == deflate->version && kept->count == shared &&
            is_key(kept->bytes, headers, count))
            return kept;
    }
    return NULL;
}

/* Without memory it is not kept. */
static void keep(cake__deflate_t *deflate, const cake__h2_header_t *headers, size_t count, size_t shared,
                 const uint8_t *block, size_t len)
{
    size_t key_len = key_bytes(headers, count);
    if (key_len == 0 || key_len > CAKE__DEFLATE_KEPT_BYTES)
        return;
    cake__kept_block_t *kept = cake__malloc(deflate->alloc, sizeof *kept + key_len + len);
    if (kept == NULL)
        return;
    kept->version = deflate->version;
    kept->count = (uint32_t)shared;
    kept->key_len = (uint32_t)key_len;
    kept->len = (uint32_t)len;
    write_key(kept->bytes, headers, count);
    memcpy(kept->bytes + key_len, block, len);
    cake__kept_block_t **place = &deflate->kept[deflate->next_kept++ % CAKE__DEFLATE_KEPT];
    cake__free(deflate->alloc, *place);
    *place = kept;
}

/* ---- blocks ---- */

size_t cake__deflate_most(const cake__h2_header_t *headers, size_t count)
{
    size_t most = CAKE__DEFLATE_OVERHEAD;
    for (size_t i = 0; i < count; i++)
        most += headers[i].name.len + headers[i].value.len + CAKE__DEFLATE_OVERHEAD;
    return most;
}

static intptr_t encode(cake__deflate_t *deflate, const cake__h2_header_t *headers, size_t count, bool is_unique,
                       uint8_t *out)
{
    nghttp2_nv all[CAKE__DEFLATE_HEADERS_MAX];
    size_t chosen = 0, most = CAKE__DEFLATE_OVERHEAD;
    for (size_t i = 0; i < count; i++) {
        cake_slice_t name = headers[i].name, value = headers[i].value;
        if (headers[i].is_unique != is_unique)
            continue;
        CAKE_ASSERT(chosen < CAKE__DEFLATE_HEADERS_MAX);
        all[chosen++] = (nghttp2_nv){(uint8_t *)(uintptr_t)name.data, (uint8_t *)(uintptr_t)value.data, name.len,
                                     value.len, is_unique ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE};
        most += name.len + value.len + CAKE__DEFLATE_OVERHEAD;
    }
    if (chosen == 0)
        return 0;
    deflate->has_unique |= is_unique;
    if (make(deflate) != 0)
        return CAKE_ENOMEM;
    ssize_t len = nghttp2_hd_deflate_hd(deflate->deflater, out, most, all, chosen);
    return len < 0 ? CAKE_ENOMEM : (intptr_t)len;
}

/* What the table would hold more, were none of these in it. */
static size_t cost_of(const cake__h2_header_t *headers, size_t count)
{
    size_t cost = 0;
    for (size_t i = 0; i < count; i++)
        cost += headers[i].is_unique ? 0 : headers[i].name.len + headers[i].value.len + ENTRY_OVERHEAD;
    return cost;
}

/* The table has not changed when it has as many entries as before and there was room for more without one going.
 * When there is not, that cannot be told any more: then it is emptied some time. */
static intptr_t encode_shared(cake__deflate_t *deflate, const cake__h2_header_t *headers, size_t count, size_t shared,
                              uint8_t *out)
{
    if (deflate->misses > CAKE__DEFLATE_MISSES &&
        (resize_table(deflate, 0) != 0 || resize_table(deflate, deflate->max_bytes) != 0))
        return CAKE_ENOMEM;
    size_t entries = nghttp2_hd_deflate_get_num_table_entries(deflate->deflater);
    size_t bytes = nghttp2_hd_deflate_get_dynamic_table_size(deflate->deflater);
    bool has_room = bytes + cost_of(headers, count) <= deflate->max_bytes, had_news = deflate->has_news;
    intptr_t len = encode(deflate, headers, count, false, out);
    if (len < 0)
        return len;
    deflate->has_news = false;
    deflate->misses += !has_room;
    if (!has_room || nghttp2_hd_deflate_get_num_table_entries(deflate->deflater) != entries)
        deflate->version++;
    else if (!had_news)
        keep(deflate, headers, count, shared, out, (size_t)len);
    return len;
}

intptr_t cake__deflate_write(cake__deflate_t *deflate, const cake__h2_header_t *headers, size_t count, uint8_t *out)
{
    size_t shared = 0;
    for (size_t i = 0; i < count; i++)
        shared += !headers[i].is_unique;
    const cake__kept_block_t *kept = find_kept(deflate, headers, count, shared);
    intptr_t len = 0;
    if (kept != NULL) {
        len = (intptr_t)kept->len;
        memcpy(out, kept->bytes + kept->key_len, kept->len);
    } else if (make(deflate) != 0 || (len = encode_shared(deflate, headers, count, shared, out)) < 0) {
        return CAKE_ENOMEM;
    }
    if (shared == count)
        return len;
    intptr_t more = encode(deflate, headers, count, true, out + len);
    return more < 0 ? more : len + more;
}
