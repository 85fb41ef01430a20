/* progress.c: see progress.h. */
#include "progress.h"

#include "clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BAR_CELLS     30u
#define BAR_PERIOD_MS 100u

int progress_start(progress_t *progress, const char *kind, const char *title, uint64_t total)
{
    *progress = (progress_t){.title = title, .unit = "documents", .total = total, .started_ms = monotonic_ms()};
    if (kind == NULL)
        progress->kind = isatty(STDERR_FILENO) ? PROGRESS_BAR : PROGRESS_LINES;
    else if (strcmp(kind, "bar") == 0)
        progress->kind = PROGRESS_BAR;
    else if (strcmp(kind, "lines") == 0)
        progress->kind = PROGRESS_LINES;
    else if (strcmp(kind, "none") != 0)
        return -1;
    return 0;
}

static void draw_bar(const progress_t *progress, unsigned percent, uint64_t count)
{
    uint64_t spent_ms = monotonic_ms() - progress->started_ms;
    unsigned full = percent * BAR_CELLS / 100;
    char cells[BAR_CELLS + 1];
    memset(cells, '.', BAR_CELLS);
    memset(cells, '#', full);
    cells[BAR_CELLS] = 0;
    fprintf(stderr, "\r\033[K%s [%s] %3u%%  %llu %s, %llu/s", progress->title, cells, percent,
            (unsigned long long)count, progress->unit,
            (unsigned long long)(spent_ms == 0 ? 0 : count * 1000 / spent_ms));
    fflush(stderr);
}

void progress_show(progress_t *progress, uint64_t done, uint64_t count)
{
    unsigned percent =
        progress->total == 0 ? 0 : (unsigned)(done >= progress->total ? 100 : done * 100 / progress->total);
    uint64_t now_ms = monotonic_ms();
    if (progress->kind == PROGRESS_BAR && now_ms - progress->shown_ms >= BAR_PERIOD_MS) {
        progress->shown_ms = now_ms;
        draw_bar(progress, percent, count);
    }
    if (progress->kind == PROGRESS_LINES && percent / 10 > progress->shown_tenth) {
        progress->shown_tenth = percent / 10;
        fprintf(stderr, "%s %u%%: %llu %s\n", progress->title, percent, (unsigned long long)count, progress->unit);
    }
}

void progress_end(progress_t *progress, uint64_t count)
{
    if (progress->kind != PROGRESS_BAR)
        return;
    draw_bar(progress, 100, count);
    fputc('\n', stderr);
}

void progress_clear(progress_t *progress)
{
    if (progress->kind == PROGRESS_BAR && progress->shown_ms != 0)
        fputs("\r\033[K", stderr);
    progress->shown_ms = 0;
}
