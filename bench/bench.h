/* bench.h: what the benchmarks of whole stores measure with. */
#ifndef CAKE_BENCH_H
#define CAKE_BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include <datacake/base.h>

static inline void check(int err, const char *what)
{
    if (err == 0)
        return;
    fprintf(stderr, "bench: %s: %s\n", what, cake_strerror(err));
    exit(1);
}

static inline double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Of the whole process. */
static inline double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

#endif
