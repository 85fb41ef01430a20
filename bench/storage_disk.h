/* storage_disk.h: a disk whose syncs take a given time, for bench/storage.c: what the disk of the machine does
 * varies from minute to minute. The C library's calls are replaced in this program, so that SQLite and LMDB meet
 * them, too. */
#ifndef CAKE_BENCH_STORAGE_DISK_H
#define CAKE_BENCH_STORAGE_DISK_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SEEN_BY_LIBRARIES __attribute__((visibility("default")))

static uint64_t sync_us; /* 0: as it is */

static void slow_syncs_down(uint64_t us)
{
    sync_us = us;
    (void)prctl(PR_SET_TIMERSLACK, 1ul); /* threads inherit it */
}

static void wait_for_disk(void)
{
    struct timespec left = {(time_t)(sync_us / 1000000), (long)(sync_us % 1000000) * 1000};
    while (sync_us != 0 && nanosleep(&left, &left) != 0 && errno == EINTR)
        continue;
}

SEEN_BY_LIBRARIES int fdatasync(int fd)
{
    wait_for_disk();
    return (int)syscall(SYS_fdatasync, fd);
}

SEEN_BY_LIBRARIES int fsync(int fd)
{
    wait_for_disk();
    return (int)syscall(SYS_fsync, fd);
}

/* LMDB's meta pages go through a descriptor that syncs. */
static ssize_t write_at(int fd, const void *data, size_t len, off_t at)
{
    if (sync_us != 0 && (fcntl(fd, F_GETFL) & O_DSYNC) != 0)
        wait_for_disk();
    return syscall(SYS_pwrite64, fd, data, len, at);
}

SEEN_BY_LIBRARIES ssize_t pwrite(int fd, const void *data, size_t len, off_t at)
{
    return write_at(fd, data, len, at);
}

SEEN_BY_LIBRARIES ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at)
{
    return write_at(fd, data, len, at);
}

#endif
