/* log.h: the server's log: one line per entry on standard error, as text or as JSON. Any thread. */
#ifndef DATACAKE_APP_LOG_H
#define DATACAKE_APP_LOG_H

#include <datacake/base.h>

typedef struct log {
    cake_log_level_t least;
    bool is_json;
} log_t;

int log_level_parse(const char *text, cake_log_level_t *out);
void log_line(const log_t *log, cake_log_level_t level, const char *format, ...) __attribute__((format(printf, 3, 4)));
cake_log_t log_hook(log_t *log); /* for environments and storages; borrows log */

#endif
