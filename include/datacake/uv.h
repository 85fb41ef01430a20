/* datacake/uv.h: the environment of a real machine: one libuv loop on a thread of its own, a thread per lane. */
#ifndef DATACAKE_UV_H
#define DATACAKE_UV_H

#include <datacake/env.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cake_uv_options {
    size_t size;
    const cake_alloc_t *alloc; /* NULL: the C library's */
    const cake_log_t *log;     /* NULL: warnings and errors on standard error */
    const char *thread_name;   /* NULL: "datacake" */
} cake_uv_options_t;

#define CAKE_UV_OPTIONS_INIT CAKE_SIZED(cake_uv_options_t)

/* Starts the loop thread. options may be NULL. CAKE_ENOMEM, CAKE_EINTERNAL (no thread or loop to be had).
 * End it with (*out)->ops->close(*out), from any thread but the loop's. */
CAKE_API int cake_uv_env_new(const cake_uv_options_t *options, cake_env_t **out);

#ifdef __cplusplus
}
#endif
#endif
