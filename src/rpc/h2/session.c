/* session.c: h2.h with framing of our own; nghttp2 reads and writes header blocks. See state.h for the picture. */
#include "rpc/h2/state.h"

static const char MAGIC[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

void cake__h2_set_err(cake__h2_t *h2, int err)
{
    if (h2->err == 0)
        h2->err = err;
}

/* ---- create and destroy ---- */

static void *mem_malloc(size_t size, void *alloc)
{
    return cake__malloc(alloc, size);
}

static void mem_free(void *block, void *alloc)
{
    cake__free(alloc, block);
}

static void *mem_calloc(size_t count, size_t size, void *alloc)
{
    return cake__calloc(alloc, count, size);
}

static void *mem_realloc(void *block, size_t size, void *alloc)
{
    return cake__realloc(alloc, block, size);
}

nghttp2_mem cake__h2_mem(const cake_alloc_t *alloc)
{
    return (nghttp2_mem){(void *)(uintptr_t)alloc, mem_malloc, mem_free, mem_calloc, mem_realloc};
}

static void put_settings(cake__h2_t *h2)
{
    const cake__h2_config_t *config = &h2->config;
    const struct {
        uint16_t id;
        uint32_t value;
    } all[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, CAKE__H2_STREAM_WINDOW},
               {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, CAKE__H2_FRAME_MAX},
               {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, config->max_header_bytes},
               {config->is_server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
                config->is_server ? config->max_streams : 0}};
    if (!config->is_server)
        cake__put_bytes(&h2->control, MAGIC, sizeof MAGIC - 1);
    uint8_t *to = cake__h2_put_frame(h2, NGHTTP2_SETTINGS, 0, 0, 6 * CAKE_COUNT_OF(all));
    for (size_t i = 0; to != NULL && i < CAKE_COUNT_OF(all); i++, to += 6) {
        to[0] = (uint8_t)(all[i].id >> 8);
        to[1] = (uint8_t)all[i].id;
        cake__h2_store_u32(to + 2, all[i].value);
    }
    cake__h2_put_u32_frame(h2, NGHTTP2_WINDOW_UPDATE, 0, CAKE__H2_CONNECTION_WINDOW - CAKE__H2_WINDOW_FIRST);
}

int cake__h2_new(const cake__h2_config_t *config, cake__h2_t **out)
{
    cake__h2_t *h2 = cake__calloc(config->alloc, 1, sizeof *h2);
    *out = NULL;
    if (h2 == NULL)
        return CAKE_ENOMEM;
    h2->config = *config;
    cake__list_init(&h2->streams);
    cake__list_init(&h2->sending);
    cake__list_init(&h2->bulk);
    cake__list_init(&h2->blocked);
    cake__list_init(&h2->closing);
    h2->mem = cake__h2_mem(config->alloc);
    cake__deflate_init(&h2->deflate, config->alloc, &h2->mem);
    cake__buf_init(&h2->control, config->alloc);
    cake__buf_init(&h2->frame, config->alloc);
    h2->table = h2->first_table;
    h2->table_size = CAKE__H2_TABLE_MIN;
    h2->next_id = 1;
    h2->send_left = h2->peer_window = CAKE__H2_WINDOW_FIRST;
    h2->receive_left = CAKE__H2_CONNECTION_WINDOW;
    h2->peer_frame_max = CAKE__H2_FRAME_FIRST;
    h2->peer_max_streams = config->max_streams; /* until it says */
    h2->preface_len = config->is_server ? 0 : sizeof MAGIC - 1;
    put_settings(h2);
    if (h2->err == 0 && h2->control.err == 0) {
        *out = h2;
        return 0;
    }
    cake__h2_free(h2);
    return CAKE_ENOMEM;
}

void cake__h2_free(cake__h2_t *h2)
{
    if (h2 == NULL)
        return;
    CAKE_ASSERT(!h2->is_receiving && !h2->is_pulling);
    while (!cake__list_is_empty(&h2->streams))
        cake__h2_close_stream(h2, CAKE_CONTAINER_OF(h2->streams.next, cake__h2_stream_t, link), CAKE__H2_LOST);
    cake__inflate_free(&h2->inflate);
    cake__deflate_free(&h2->deflate);
    cake__buf_free(&h2->control);
    cake__buf_free(&h2->frame);
    if (h2->table != h2->first_table)
        cake__free(h2->config.alloc, h2->table);
    cake__free(h2->config.alloc, h2);
}

/* ---- streams by id: a table of chains; ids of one side are every second number ---- */

static cake__h2_stream_t **place_of(const cake__h2_t *h2, int32_t id)
{
    return &h2->table[((uint32_t)id >> 1) & (h2->table_size - 1)];
}

cake__h2_stream_t *cake__h2_find(const cake__h2_t *h2, int32_t id)
{
    cake__h2_stream_t *stream = *place_of(h2, id);
    while (stream != NULL && stream->id != id)
        stream = stream->next_id;
    return stream;
}

static void use_table(cake__h2_t *h2, cake__h2_stream_t **table, uint32_t size)
{
    cake__h2_stream_t **old = h2->table;
    h2->table = table;
    h2->table_size = size;
    memset(table, 0, size * sizeof table[0]);
    CAKE_LIST_FOR_EACH(link, &h2->streams)
    {
        cake__h2_stream_t *stream = CAKE_CONTAINER_OF(link, cake__h2_stream_t, link);
        cake__h2_stream_t **place = place_of(h2, stream->id);
        stream->next_id = *place;
        *place = stream;
    }
    if (old != h2->first_table)
        cake__free(h2->config.alloc, old);
}

int cake__h2_add(cake__h2_t *h2, cake__h2_stream_t *stream, int32_t id)
{
    if (h2->stream_count >= h2->table_size) {
        uint32_t size = 4 * h2->table_size;
        cake__h2_stream_t **table = cake__malloc(h2->config.alloc, size * sizeof table[0]);
        if (table == NULL)
            return CAKE_ENOMEM;
        use_table(h2, table, size);
    }
    stream->id = id;
    stream->receive_left = CAKE__H2_STREAM_WINDOW;
    stream->send_left = h2->peer_window;
    stream->length_left = -1;
    cake__list_init(&stream->link);
    cake__list_init(&stream->turn);
    cake__list_push_back(&h2->streams, &stream->link);
    cake__h2_stream_t **place = place_of(h2, id);
    stream->next_id = *place;
    *place = stream;
    h2->stream_count++;
    return 0;
}

void cake__h2_forget(cake__h2_t *h2, cake__h2_stream_t *stream)
{
    cake__h2_stream_t **at = place_of(h2, stream->id);
    while (*at != stream) {
        CAKE_ASSERT(*at != NULL);
        at = &(*at)->next_id;
    }
    *at = stream->next_id;
    cake__list_remove(&stream->link);
    cake__list_remove(&stream->turn);
    CAKE_ASSERT(h2->stream_count > 0);
    if (--h2->stream_count == 0 && h2->table != h2->first_table)
        use_table(h2, h2->first_table, CAKE__H2_TABLE_MIN);
    if (h2->block_stream == stream)
        h2->block_stream = NULL;
    if (h2->data_stream == stream)
        h2->data_stream = NULL;
}

void cake__h2_close_stream(cake__h2_t *h2, cake__h2_stream_t *stream, cake__h2_reason_t reason)
{
    if (stream->is_remote_ended) {
        h2->over_ids[h2->over_at] = stream->id;
        h2->over_at = (h2->over_at + 1) % CAKE__H2_OVER_IDS;
    }
    cake__h2_forget(h2, stream);
    h2->config.events->on_closed(h2->config.arg, stream, reason);
}

/* ---- what owners ask ---- */

bool cake__h2_is_over(const cake__h2_t *h2)
{
    bool is_leaving = h2->is_goaway_sent || h2->has_goaway;
    return (h2->is_terminated || (is_leaving && h2->stream_count == 0)) && !cake__h2_has_output(h2);
}

uint32_t cake__h2_peer_max_streams(const cake__h2_t *h2)
{
    return h2->peer_max_streams;
}

cake__h2_stream_t *cake__h2_next(const cake__h2_t *h2, const cake__h2_stream_t *after)
{
    cake__list_t *link = after != NULL ? after->link.next : h2->streams.next;
    return link != &h2->streams ? CAKE_CONTAINER_OF(link, cake__h2_stream_t, link) : NULL;
}

bool cake__h2_is_blocked(const cake__h2_t *h2, const cake__h2_stream_t *stream)
{
    return stream->is_begun && !stream->is_reset && stream->out.pending > 0 &&
           (stream->send_left <= 0 || h2->send_left <= 0);
}

bool cake__h2_takes_requests(const cake__h2_t *h2)
{
    return h2->err == 0 && !h2->is_terminated && !h2->has_goaway && h2->next_id <= CAKE__H2_STREAM_ID_MAX - 2;
}
