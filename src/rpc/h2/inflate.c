/* inflate.c: header blocks read by nghttp2 (RFC 7541), and those that come again given out as they were read before.
 *
 *   block: [ what many messages have ] [ literals never to be indexed ]      the first part is kept, with its headers
 *
 * A kept part stays right as long as the reader's table stays as it was. Each representation says where it ends, so
 * that equal bytes are equal headers; what follows must be such a literal, since a change of the table's size may
 * only stand at a block's beginning. */
#include "rpc/h2/state.h"

#define KEPT_BYTES    512u  /* of a block */
#define KEPT_TEXT     1024u /* of its headers, with their lengths */
#define ENTRY_BYTES   32u   /* RFC 7541, 4.1 */
#define NEVER_INDEXED 0x10u /* the first byte's upper half */

/* What a block that is being read may leave behind. */
typedef struct {
    size_t bytes, text_len, count; /* of the part before the first literal never to be indexed */
    size_t cost;                   /* of all its headers in a table */
    bool is_over;
    bool is_checked, has_regular; /* as in cake__inflated_t, so far */
    uint32_t pseudo;
    size_t header_bytes;
    uint8_t text[KEPT_TEXT];
} draft_t;

void cake__inflate_free(cake__inflate_t *inflate)
{
    for (size_t i = 0; i < CAKE__INFLATE_KEPT; i++)
        cake__free(inflate->alloc, inflate->kept[i]);
    if (inflate->inflater != NULL)
        nghttp2_hd_inflate_del(inflate->inflater);
    inflate->inflater = NULL;
}

/* ---- kept blocks: bytes of the block, then of each header its lengths, name and value ---- */

static bool is_next_never_indexed(const uint8_t *data, size_t len)
{
    return len == 0 || (data[0] & 0xf0u) == NEVER_INDEXED;
}

static const cake__inflated_t *find_kept(const cake__inflate_t *inflate, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < CAKE__INFLATE_KEPT; i++) {
        const cake__inflated_t *kept = inflate->kept[i];
        if (kept != NULL && kept->version == inflate->version && kept->len <= len &&
            memcmp(kept->bytes, data, kept->len) == 0 && is_next_never_indexed(data + kept->len, len - kept->len))
            return kept;
    }
    return NULL;
}

static void add_text(draft_t *draft, const nghttp2_nv *nv)
{
    uint32_t lens[2] = {(uint32_t)nv->namelen, (uint32_t)nv->valuelen};
    size_t len = sizeof lens + nv->namelen + nv->valuelen;
    if (len > KEPT_TEXT - draft->text_len) {
        draft->bytes = SIZE_MAX; /* too long to be kept */
        draft->is_over = true;
        return;
    }
    uint8_t *to = draft->text + draft->text_len;
    memcpy(to, lens, sizeof lens);
    memcpy(to + sizeof lens, nv->name, nv->namelen);
    memcpy(to + sizeof lens + nv->namelen, nv->value, nv->valuelen);
    draft->text_len += len;
    draft->count++;
}

/* Without memory it is not kept. */
static void keep(cake__inflate_t *inflate, const draft_t *draft, const uint8_t *data)
{
    if (draft->count == 0 || draft->bytes > KEPT_BYTES)
        return;
    cake__inflated_t *kept = cake__malloc(inflate->alloc, sizeof *kept + draft->bytes + draft->text_len);
    if (kept == NULL)
        return;
    *kept = (cake__inflated_t){.version = inflate->version,
                               .count = (uint32_t)draft->count,
                               .len = (uint32_t)draft->bytes,
                               .is_checked = draft->is_checked,
                               .has_regular = draft->has_regular,
                               .pseudo = draft->pseudo,
                               .header_bytes = draft->header_bytes};
    memcpy(kept->bytes, data, draft->bytes);
    memcpy(kept->bytes + draft->bytes, draft->text, draft->text_len);
    cake__inflated_t **place = &inflate->kept[inflate->next_kept++ % CAKE__INFLATE_KEPT];
    cake__free(inflate->alloc, *place);
    *place = kept;
}

static void repeat(cake__h2_t *h2, const cake__inflated_t *kept)
{
    const uint8_t *at = kept->bytes + kept->len;
    bool is_checked = kept->is_checked && h2->block_stream != NULL && !h2->is_block_trailer;
    if (is_checked) {
        h2->block_stream->header_bytes += kept->header_bytes;
        h2->block_pseudo = kept->pseudo;
        h2->has_regular = kept->has_regular;
    }
    for (uint32_t i = 0; i < kept->count; i++) {
        uint32_t lens[2];
        memcpy(lens, at, sizeof lens);
        const uint8_t *name = at + sizeof lens, *value = name + lens[0];
        cake_slice_t name_text = cake__slice(name, lens[0]), value_text = cake__slice(value, lens[1]);
        if (!is_checked)
            cake__h2_take_header(h2, name_text, value_text);
        else if (h2->block_stream != NULL)
            h2->config.events->on_header(h2->config.arg, h2->block_stream, name_text, value_text);
        at = value + lens[1];
    }
}

/* ---- blocks ---- */

static bool make_inflater(cake__h2_t *h2)
{
    cake__inflate_t *inflate = &h2->inflate;
    if (inflate->inflater != NULL)
        return true;
    inflate->alloc = h2->config.alloc;
    if (nghttp2_hd_inflate_new2(&inflate->inflater, &h2->mem) != 0) {
        inflate->inflater = NULL;
        cake__h2_fail(h2, CAKE_ENOMEM, NGHTTP2_INTERNAL_ERROR);
    }
    return inflate->inflater != NULL;
}

/* Notes for the draft what came out of the bytes up to `end`, and how its checks went. */
static void note(draft_t *draft, const cake__h2_t *h2, const nghttp2_nv *nv, bool is_never_indexed, size_t end)
{
    const cake__h2_stream_t *stream = h2->block_stream;
    draft->cost += nv->namelen + nv->valuelen + ENTRY_BYTES;
    draft->is_over |= is_never_indexed;
    if (draft->is_over)
        return;
    draft->bytes = end;
    add_text(draft, nv);
    /* a length belongs to one message, and 1xx is no head */
    draft->is_checked = stream != NULL && !h2->is_block_bad && !h2->is_block_trailer && !h2->is_block_interim &&
                        stream->length_left == -1 && stream->header_bytes <= h2->config.max_header_bytes;
    draft->has_regular = h2->has_regular;
    draft->pseudo = h2->block_pseudo;
    draft->header_bytes = stream != NULL ? stream->header_bytes : 0;
}

static bool read_all(cake__h2_t *h2, const uint8_t *data, size_t len, bool is_last, draft_t *draft)
{
    size_t at = 0, begun = 0;
    for (;;) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t taken = nghttp2_hd_inflate_hd2(h2->inflate.inflater, &nv, &flags, data + at, len - at, is_last);
        if (taken < 0) {
            bool is_memory = taken == NGHTTP2_ERR_NOMEM;
            cake__h2_fail(h2, is_memory ? CAKE_ENOMEM : CAKE_EPARSE, NGHTTP2_COMPRESSION_ERROR);
            return false;
        }
        at += (size_t)taken;
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0) {
            cake__h2_take_header(h2, cake__slice(nv.name, nv.namelen), cake__slice(nv.value, nv.valuelen));
            if (draft != NULL)
                note(draft, h2, &nv, begun < len && (data[begun] & 0xf0u) == NEVER_INDEXED, at);
            begun = at;
        }
        if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) {
            nghttp2_hd_inflate_end_headers(h2->inflate.inflater);
            return true;
        }
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0 && at == len)
            return true;
    }
}

bool cake__h2_inflate(cake__h2_t *h2, const uint8_t *data, size_t len, bool is_first, bool is_last)
{
    cake__inflate_t *inflate = &h2->inflate;
    bool is_whole = is_first && is_last;
    const cake__inflated_t *kept = is_whole ? find_kept(inflate, data, len) : NULL;
    if (kept != NULL) {
        repeat(h2, kept);
        data += kept->len;
        len -= kept->len;
        if (len == 0)
            return true;
    }
    if (!make_inflater(h2))
        return false;
    size_t entries = nghttp2_hd_inflate_get_num_table_entries(inflate->inflater);
    size_t bytes = nghttp2_hd_inflate_get_dynamic_table_size(inflate->inflater);
    size_t max = nghttp2_hd_inflate_get_max_dynamic_table_size(inflate->inflater);
    draft_t draft = {.bytes = 0};
    if (!read_all(h2, data, len, is_last, is_whole ? &draft : NULL))
        return false;
    bool is_unchanged = is_whole && nghttp2_hd_inflate_get_num_table_entries(inflate->inflater) == entries &&
                        nghttp2_hd_inflate_get_max_dynamic_table_size(inflate->inflater) == max &&
                        bytes + draft.cost <= max; /* else one may have gone for each that came */
    if (!is_unchanged)
        inflate->version++;
    else if (kept == NULL)
        keep(inflate, &draft, data);
    return true;
}
