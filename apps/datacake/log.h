/* log.h: the server's log: one line per entry on standard error, as text or as JSON. Any thread. */
#ifndef DATACAKE_APP_LOG_H
#define DATACAKE_APP_LOG_H

#include <datacake/base.h>

#define LOG_KEPT_MAX 512

typedef struct log {
    cake_log_level_t least;
    bool is_json;
    bool keeps_errors;       /* while starting: errors go to `kept`, to become part of the one line that is said */
    char kept[LOG_KEPT_MAX]; /* the last one, or empty */
} log_t;

int log_level_parse(const char *text, cake_log_level_t *out);
void log_line(const log_t *log, cake_log_level_t level, const char *format, ...) __attribute__((format(printf, 3, 4)));
cake_log_t log_hook(log_t *log); /* for environments and storages; borrows log */

#endif
