/* log.h: the server's log: one line per entry on standard error, as text or as JSON. Any thread. */
#ifndef DATACAKE_APP_LOG_H
#define DATACAKE_APP_LOG_H

#include <pthread.h>
#include <stdatomic.h>

#include <datacake/base.h>

#define LOG_KEPT_MAX 512

typedef struct log {
    cake_log_level_t least;
    bool is_json;
    atomic_bool
        keeps_errors; /* while starting: errors only go to `kept`, to become part of the one line that is said */
    pthread_mutex_t lock;
    char kept[LOG_KEPT_MAX]; /* the last error, or empty; under the lock */
} log_t;

#define LOG_INIT ((log_t){.least = CAKE_LOG_INFO, .lock = PTHREAD_MUTEX_INITIALIZER})

int log_level_parse(const char *text, cake_log_level_t *out);
void log_line(const log_t *log, cake_log_level_t level, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The last error, or otherwise when there was none. */
void log_kept(log_t *log, const char *otherwise, char out[LOG_KEPT_MAX]);
cake_log_t log_hook(log_t *log); /* for environments and storages; borrows log */

#endif
