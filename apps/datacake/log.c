/* log.c: see log.h. */
#include "log.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#define LINE_MAX_BYTES 4096

static const char *const level_names[] = {"debug", "info", "warn", "error"};

int log_level_parse(const char *text, cake_log_level_t *out)
{
    for (int i = CAKE_LOG_DEBUG; i <= CAKE_LOG_ERROR; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *out = (cake_log_level_t)i;
            return 0;
        }
    }
    return CAKE_EPARSE;
}

static void format_time(char *out, size_t size)
{
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t len = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(out + len, size - len, ".%03ldZ", now.tv_nsec / 1000000);
}

static void write_line(void *ctx, cake_log_level_t level, const char *message)
{
    log_t *log = ctx;
    if (level == CAKE_LOG_ERROR) {
        pthread_mutex_lock(&log->lock);
        snprintf(log->kept, sizeof(log->kept), "%s", message);
        pthread_mutex_unlock(&log->lock);
        if (atomic_load(&log->keeps_errors))
            return;
    }
    char when[40], line[LINE_MAX_BYTES];
    format_time(when, sizeof(when));
    size_t len = 0;
    if (log->is_json) {
        json_t *entry =
            json_pack("{s:s,s:s,s:s%}", "time", when, "level", level_names[level], "message", message, strlen(message));
        len = entry == NULL ? 0 : json_dumpb(entry, line, sizeof(line) - 1, JSON_COMPACT);
        json_decref(entry);
        if (len > sizeof(line) - 1)
            len = 0;
    }
    if (len == 0) {
        int wanted = snprintf(line, sizeof(line) - 1, "%s %-5s %s", when, level_names[level], message);
        len = wanted < 0 ? 0 : (size_t)wanted < sizeof(line) - 1 ? (size_t)wanted : sizeof(line) - 2;
    }
    line[len++] = '\n';
    if (write(STDERR_FILENO, line, len) < 0)
        return; /* there is nowhere left to say it */
}

void log_line(const log_t *log, cake_log_level_t level, const char *format, ...)
{
    if (level < log->least)
        return;
    char message[LINE_MAX_BYTES / 2];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof(message), format, list);
    va_end(list);
    write_line((void *)(uintptr_t)log, level, message);
}

void log_kept(log_t *log, const char *otherwise, char out[LOG_KEPT_MAX])
{
    pthread_mutex_lock(&log->lock);
    snprintf(out, LOG_KEPT_MAX, "%s", log->kept[0] != 0 ? log->kept : otherwise);
    pthread_mutex_unlock(&log->lock);
}

cake_log_t log_hook(log_t *log)
{
    return (cake_log_t){.write = write_line, .ctx = log, .least = log->least};
}
