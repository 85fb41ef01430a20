#include "storage/storage.h"

/* One block, with what is needed to free it: a document may outlive its storage. The key follows the value. */
struct cake_doc {
    cake_alloc_t alloc;
    cake_hlc_t hlc;
    cake_dot_t dot;
    size_t key_len, value_len;
    uint8_t bytes[];
};

cake_doc_t *cake__doc_reserve(const cake_alloc_t *alloc, cake_slice_t key, size_t value_len, cake_hlc_t hlc,
                              cake_dot_t dot, uint8_t **value)
{
    size_t size;
    alloc = cake__alloc_or_default(alloc);
    if (__builtin_add_overflow(sizeof(cake_doc_t) + key.len, value_len, &size))
        return NULL;
    cake_doc_t *doc = cake__malloc(alloc, size);
    if (doc == NULL)
        return NULL;
    *doc = (cake_doc_t){.alloc = *alloc, .hlc = hlc, .dot = dot, .key_len = key.len, .value_len = value_len};
    if (key.len > 0)
        memcpy(doc->bytes + value_len, key.data, key.len);
    *value = doc->bytes;
    return doc;
}

cake_doc_t *cake_doc_new(const cake_alloc_t *alloc, cake_slice_t key, cake_slice_t value, cake_hlc_t hlc,
                         cake_dot_t dot)
{
    uint8_t *to;
    cake_doc_t *doc = cake__doc_reserve(alloc, key, value.len, hlc, dot, &to);
    if (doc != NULL && value.len > 0)
        memcpy(to, value.data, value.len);
    return doc;
}

void cake_doc_free(cake_doc_t *doc)
{
    if (doc == NULL)
        return;
    cake_alloc_t alloc = doc->alloc;
    cake__free(&alloc, doc);
}

cake_slice_t cake_doc_key(const cake_doc_t *doc)
{
    return cake__slice(doc->bytes + doc->value_len, doc->key_len);
}

cake_slice_t cake_doc_value(const cake_doc_t *doc)
{
    return cake__slice(doc->bytes, doc->value_len);
}

cake_hlc_t cake_doc_timestamp(const cake_doc_t *doc)
{
    return doc->hlc;
}

cake_dot_t cake_doc_dot(const cake_doc_t *doc)
{
    return doc->dot;
}
