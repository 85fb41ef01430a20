/* datacake/base.h: what every layer shares: error codes, borrowed bytes, the allocator and log hooks.
 *
 * Every call that can fail returns 0 or one of the negative codes below. Any thread may call anything here. */
#ifndef DATACAKE_BASE_H
#define DATACAKE_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What options are initialised with, by a macro of theirs: the size, by which the library knows the version of the
 * headers that the program was built with, and zero for all else. */
#ifdef __cplusplus
template <typename type> inline type cake_sized()
{
    type options = type();
    options.size = sizeof(type);
    return options;
}
#define CAKE_SIZED(type) cake_sized<type>()
#else
#define CAKE_SIZED(type)                                                                                               \
    {                                                                                                                  \
        .size = sizeof(type)                                                                                           \
    }
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define CAKE_API __attribute__((visibility("default")))

/* code, number, text. Numbers travel between nodes of different versions: they are never reused. */
#define CAKE_ERRORS(X)                                                                                                 \
    X(EINVAL, -1, "invalid argument")                                                                                  \
    X(ENOMEM, -2, "out of memory")                                                                                     \
    X(ENOTFOUND, -3, "not found")                                                                                      \
    X(ETIMEDOUT, -4, "timed out")                                                                                      \
    X(ENOTENOUGHNODES, -5, "not enough live nodes for this consistency level; nothing was written")                    \
    X(ECONSISTENCY, -6, "consistency level not reached in time; the write stays and goes on replicating")              \
    X(EDRIFT, -7, "timestamp too far ahead of the local wall clock")                                                   \
    X(EPARSE, -8, "cannot be parsed")                                                                                  \
    X(ETOOBIG, -9, "larger than the limit")                                                                            \
    X(EBUSY, -10, "busy; try again")                                                                                   \
    X(EIO, -11, "input/output error")                                                                                  \
    X(ENOSPC, -12, "no space left in the storage")                                                                     \
    X(ECORRUPT, -13, "stored or received data is damaged")                                                             \
    X(EDEADLK, -14, "a blocking call on the loop thread would never return")                                           \
    X(ECLOSED, -15, "closed")                                                                                          \
    X(EUNAVAILABLE, -16, "service or method is not available")                                                         \
    X(EINTERNAL, -17, "internal error")                                                                                \
    X(ECONNECTION, -18, "connection failed or was lost")                                                               \
    X(EDUPLICATE, -19, "already in use")                                                                               \
    X(ECONFLICT, -20, "belongs to something else or was changed meanwhile")                                            \
    X(ECANCELED, -21, "canceled")                                                                                      \
    X(EADDRINUSE, -22, "address already in use")                                                                       \
    X(EUNAUTHENTICATED, -23, "not authenticated")                                                                      \
    X(EVERSION, -24, "made by a version that is not understood")                                                       \
    X(ENOTJOINED, -25, "this node has not joined its cluster yet; try again")

enum cake_err {
#define CAKE_ERROR_ENUM(name, number, text) CAKE_##name = (number),
    CAKE_ERRORS(CAKE_ERROR_ENUM)
#undef CAKE_ERROR_ENUM
};

CAKE_API const char *cake_strerror(int err); /* never NULL; static text */
CAKE_API const char *cake_err_name(int err); /* "CAKE_EINVAL"; "CAKE_EUNKNOWN" for no code of ours */
CAKE_API const char *cake_version(void);     /* "0.1.0"; static text */

/* Borrowed bytes: whoever hands out a slice says how long it lives. data may be NULL when len is 0. */
typedef struct cake_slice {
    const void *data;
    size_t len;
} cake_slice_t;

/* The heap hook. resize(ctx, NULL, n) allocates, resize(ctx, p, 0) frees and returns NULL, the rest is realloc:
 * on failure NULL, and the old block stays. May be called from any thread that uses its owner. */
typedef struct cake_alloc {
    void *(*resize)(void *ctx, void *block, size_t size);
    void *ctx;
} cake_alloc_t;

typedef enum cake_log_level { CAKE_LOG_DEBUG, CAKE_LOG_INFO, CAKE_LOG_WARN, CAKE_LOG_ERROR } cake_log_level_t;

/* The log hook. message is one line without the newline, valid for the call; called from any thread of its owner. */
typedef struct cake_log {
    void (*write)(void *ctx, cake_log_level_t level, const char *message);
    void *ctx;
    cake_log_level_t least; /* lines below it are not made at all */
} cake_log_t;

/* Numeric addresses. Text form "127.0.0.1:7001" or "[::1]:7001". IPv4 is kept in the first four bytes. */
typedef struct cake_addr {
    uint8_t family; /* 0 none, 4 or 6 */
    uint16_t port;
    uint8_t ip[16];
} cake_addr_t;

#define CAKE_ADDR_TEXT_MAX 64

CAKE_API int cake_addr_parse(const char *text, cake_addr_t *out); /* CAKE_EPARSE; numeric only, port required */
CAKE_API void cake_addr_format(const cake_addr_t *addr, char out[CAKE_ADDR_TEXT_MAX]);
CAKE_API bool cake_addr_equal(const cake_addr_t *a, const cake_addr_t *b);

#ifdef __cplusplus
}
#endif
#endif
