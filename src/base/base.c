#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

const char *cake_strerror(int err)
{
    switch (err) {
    case 0:
        return "success";
#define CAKE_ERROR_TEXT(name, number, text)                                                                            \
    case number:                                                                                                       \
        return text;
        CAKE_ERRORS(CAKE_ERROR_TEXT)
#undef CAKE_ERROR_TEXT
    default:
        return "unknown error";
    }
}

const char *cake_err_name(int err)
{
    switch (err) {
    case 0:
        return "CAKE_OK";
#define CAKE_ERROR_NAME(name, number, text)                                                                            \
    case number:                                                                                                       \
        return "CAKE_" #name;
        CAKE_ERRORS(CAKE_ERROR_NAME)
#undef CAKE_ERROR_NAME
    default:
        return "CAKE_EUNKNOWN";
    }
}

const char *cake_version(void)
{
    return CAKE_VERSION;
}

void cake__assert_failed(const char *text, const char *file, int line, const char *function)
{
    fprintf(stderr, "datacake: broken invariant in %s at %s:%d: %s\n", function, file, line, text);
    abort();
}

static void *libc_resize(void *ctx, void *block, size_t size)
{
    (void)ctx;
    if (size == 0) {
        free(block);
        return NULL;
    }
    return realloc(block, size);
}

const cake_alloc_t cake__libc_alloc = {libc_resize, NULL};

void *cake__calloc(const cake_alloc_t *alloc, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    void *block = cake__malloc(alloc, bytes);
    if (block != NULL)
        memset(block, 0, bytes);
    return block;
}

void *cake__memdup(const cake_alloc_t *alloc, const void *data, size_t len)
{
    void *copy = cake__malloc(alloc, len);
    if (copy != NULL && len > 0)
        memcpy(copy, data, len);
    return copy;
}

char *cake__strdup(const cake_alloc_t *alloc, const char *text)
{
    return text == NULL ? NULL : cake__memdup(alloc, text, strlen(text) + 1);
}

int cake__options_copy(void *options, size_t size, const void *given)
{
    size_t given_size;
    const uint8_t *bytes = given;
    CAKE_ASSERT(size >= sizeof given_size && size <= CAKE__OPTIONS_MAX);
    memcpy(&given_size, given, sizeof given_size);
    if (given_size < sizeof given_size || given_size > CAKE__OPTIONS_MAX)
        return CAKE_EINVAL;
    for (size_t i = size; i < given_size; i++) {
        if (bytes[i] != 0)
            return CAKE_EINVAL;
    }
    memset(options, 0, size);
    memcpy(options, given, given_size < size ? given_size : size);
    memcpy(options, &size, sizeof size);
    return 0;
}

/* Length of the UTF-8 sequence at text, 0 when there is no valid one (overlong forms and surrogates are none). */
static size_t utf8_length(const uint8_t *text, size_t left)
{
    uint8_t lead = text[0];
    size_t len = lead < 0x80                   ? 1
                 : lead >= 0xc2 && lead < 0xe0 ? 2
                 : lead >= 0xe0 && lead < 0xf0 ? 3
                 : lead >= 0xf0 && lead < 0xf5 ? 4
                                               : 0;
    if (len == 0 || len > left)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    }
    bool bad_second = (lead == 0xe0 && text[1] < 0xa0) || (lead == 0xed && text[1] >= 0xa0) ||
                      (lead == 0xf0 && text[1] < 0x90) || (lead == 0xf4 && text[1] >= 0x90);
    return len > 1 && bad_second ? 0 : len;
}

bool cake__is_utf8(const void *text, size_t len)
{
    const uint8_t *at = text;
    while (len > 0) {
        size_t step = utf8_length(at, len);
        if (step == 0)
            return false;
        at += step;
        len -= step;
    }
    return true;
}

bool cake__is_name(cake_slice_t text, size_t max_len)
{
    const uint8_t *at = text.data;
    if (text.len == 0 || text.len > max_len)
        return false;
    for (size_t left = text.len; left > 0;) {
        size_t len = utf8_length(at, left);
        bool is_control = at[0] < 0x20 || at[0] == 0x7f || (len == 2 && at[0] == 0xc2 && at[1] < 0xa0);
        if (len == 0 || is_control)
            return false;
        at += len;
        left -= len;
    }
    return true;
}

void cake__log(const cake_log_t *log, cake_log_level_t level, const char *format, ...)
{
    if (log == NULL || log->write == NULL || level < log->least)
        return;
    char line[501];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    log->write(log->ctx, level, line);
}
