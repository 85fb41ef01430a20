/* The wall clock of one process: cc -shared -fPIC -o skew.so skew.c, LD_PRELOAD=skew.so DATACAKE_SKEW=FILE. The file
 * holds eight bytes, milliseconds to add, and may change at any time: it is mapped. Time that only runs forward
 * stays as it is. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *skew_ms;

__attribute__((constructor)) static void map_skew(void)
{
    const char *path = getenv("DATACAKE_SKEW");
    int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof *skew_ms, PROT_READ, MAP_SHARED, fd, 0);
    skew_ms = mapped == MAP_FAILED ? NULL : mapped;
    close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int err = (int)syscall(SYS_clock_gettime, clock, now);
    if (err == 0 && clock == CLOCK_REALTIME && skew_ms != NULL) {
        int64_t ns = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + *skew_ms * 1000000;
        now->tv_sec = ns / 1000000000;
        now->tv_nsec = ns % 1000000000;
    }
    return err;
}
