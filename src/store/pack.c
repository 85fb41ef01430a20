#include "store/pack.h"

#define ZSTD_STATIC_LINKING_ONLY /* workspaces of ours: the heap is the environment's */
#include <zstd.h>

#define PACK_LEVEL 1

static void *take_workspace(cake__workspace_t *workspace, size_t size)
{
    if (workspace->size < size) {
        cake__free(workspace->alloc, workspace->memory);
        workspace->memory = cake__malloc(workspace->alloc, size);
        workspace->size = workspace->memory == NULL ? 0 : size;
    }
    return workspace->memory;
}

void cake__workspace_free(cake__workspace_t *workspace)
{
    cake__free(workspace->alloc, workspace->memory);
    workspace->memory = NULL;
    workspace->size = 0;
}

bool cake__pack(cake__workspace_t *workspace, cake_slice_t raw, cake__buf_t *out)
{
    size_t start = out->len, most = raw.len - raw.len / 4;
    if (raw.len < CAKE__PACK_MIN || raw.len > CAKE__UNPACKED_MAX || out->err != 0)
        return false;
    ZSTD_compressionParameters parameters = ZSTD_getCParams(PACK_LEVEL, raw.len, 0);
    size_t size = ZSTD_estimateCCtxSize_usingCParams(parameters);
    void *memory = take_workspace(workspace, size);
    ZSTD_CCtx *context = memory == NULL ? NULL : ZSTD_initStaticCCtx(memory, workspace->size);
    uint8_t *frame = context == NULL ? NULL : cake__malloc(workspace->alloc, most);
    if (frame == NULL)
        return false;
    size_t len = ZSTD_compressCCtx(context, frame, most, raw.data, raw.len, PACK_LEVEL);
    bool is_packed = !ZSTD_isError(len); /* an error: it does not fit into three quarters */
    if (is_packed) {
        cake__put_u8(out, CAKE__PAYLOAD_PACKED);
        cake__put_varint(out, raw.len);
        cake__put_string(out, cake__slice(frame, len));
        is_packed = out->err == 0;
    }
    cake__free(workspace->alloc, frame);
    if (!is_packed)
        out->len = start;
    return is_packed;
}

int cake__unpack(cake__workspace_t *workspace, cake__reader_t *reader, cake__buf_t *raw)
{
    uint64_t raw_len = cake__get_varint(reader);
    cake_slice_t frame = cake__get_string(reader, CAKE__UNPACKED_MAX);
    if (reader->err != 0 || frame.len == 0)
        return CAKE_EPARSE;
    if (raw_len > CAKE__UNPACKED_MAX)
        return CAKE_ETOOBIG;
    if (ZSTD_getFrameContentSize(frame.data, frame.len) != raw_len || raw_len == 0 ||
        ZSTD_findFrameCompressedSize(frame.data, frame.len) != frame.len)
        return CAKE_EPARSE;
    void *memory = take_workspace(workspace, ZSTD_estimateDCtxSize());
    ZSTD_DCtx *context = memory == NULL ? NULL : ZSTD_initStaticDCtx(memory, workspace->size);
    uint8_t *to = context == NULL ? NULL : cake__buf_extend(raw, (size_t)raw_len);
    if (to == NULL)
        return CAKE_ENOMEM;
    size_t len = ZSTD_decompressDCtx(context, to, (size_t)raw_len, frame.data, frame.len);
    return ZSTD_isError(len) || len != raw_len ? CAKE_EPARSE : 0;
}

bool cake__payload_fits(const cake_store_t *store, cake__reader_t reader)
{
    uint64_t raw_len = cake__get_varint(&reader);
    return raw_len > CAKE__UNPACKED_MAX || store->pending_bytes + raw_len <= store->options.pending_bytes;
}
