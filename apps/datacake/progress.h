/* progress.h: how far a long command is: a bar on a terminal, a line every tenth otherwise. On standard error. */
#ifndef DATACAKE_APP_PROGRESS_H
#define DATACAKE_APP_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum progress_kind { PROGRESS_NONE, PROGRESS_LINES, PROGRESS_BAR } progress_kind_t;

typedef struct progress {
    progress_kind_t kind;
    const char *title, *unit; /* unit: "documents", of what progress_show counts second */
    uint64_t total;           /* 0: not known */
    uint64_t started_ms, shown_ms;
    unsigned shown_tenth;
} progress_t;

/* kind: "bar", "lines", "none", or NULL for what suits standard error. -1: no such kind. */
int progress_start(progress_t *progress, const char *kind, const char *title, uint64_t total);
void progress_show(progress_t *progress, uint64_t done, uint64_t count);
void progress_end(progress_t *progress, uint64_t count); /* full, and the line ends */
void progress_clear(progress_t *progress);               /* takes a bar off the line, for other output */

#endif
