/* What happened, one line each with the virtual time in front; and the hash over it, by which two runs of a seed compare. */
#include "sim/sim.h"

#include <stdio.h>

static void hash_line(cake__trial_t *trial, const char *line)
{
    trial->hash = cake__mix64(trial->hash ^ cake__hash_bytes(line, strlen(line)));
}

static size_t put_time(const cake__trial_t *trial, char *line, size_t size)
{
    uint64_t now_us = trial->world == NULL ? 0 : cake__world_now_ns(trial->world) / 1000;
    int len = snprintf(line, size, "%3llu.%06llu  ", (unsigned long long)(now_us / 1000000),
                       (unsigned long long)(now_us % 1000000));
    return (size_t)len;
}

void cake__note(cake__trial_t *trial, const char *format, ...)
{
    char line[1280];
    size_t len = put_time(trial, line, sizeof line);
    va_list list;
    va_start(list, format);
    vsnprintf(line + len, sizeof line - len, format, list);
    va_end(list);
    hash_line(trial, line);
    if (trial->options.trace != NULL)
        trial->options.trace(trial->options.trace_arg, line);
}

void cake__violation(cake__trial_t *trial, const char *checker, const char *format, ...)
{
    char text[400];
    va_list list;
    if (cake__has_failed(trial))
        return;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    cake__note(trial, "VIOLATION of %s: %s", checker, text);
    uint64_t now_ms = cake__world_now_ns(trial->world) / CAKE_NS_PER_MS;
    snprintf(trial->result->violation, sizeof trial->result->violation, "%s, at %llu.%03llu s: %s", checker,
             (unsigned long long)(now_ms / 1000), (unsigned long long)(now_ms % 1000), text);
}

/* The nodes' own log; the world has put time and host in front. */
static void on_log(void *ctx, cake_log_level_t level, const char *message)
{
    cake__trial_t *trial = ctx;
    char line[640];
    (void)level;
    snprintf(line, sizeof line, "           | %s", message);
    trial->options.trace(trial->options.trace_arg, line);
}

cake_log_t cake__trace_log(cake__trial_t *trial)
{
    return (cake_log_t){on_log, trial, trial->options.least_log};
}
