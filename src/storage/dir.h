/* dir.h: a data directory on disk, held by one process at a time. Header only: the storage library itself does no file
 * I/O, the storages on disk do. Every failure says in the log what was tried. */
#ifndef CAKE_STORAGE_DIR_H
#define CAKE_STORAGE_DIR_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/storage.h"

#define CAKE__PATH_MAX 1024u

static inline int cake__err_of_errno(int number)
{
    switch (number) {
    case ENOSPC:
    case EDQUOT:
        return CAKE_ENOSPC;
    case ENOMEM:
        return CAKE_ENOMEM;
    default:
        return CAKE_EIO;
    }
}

/* dir/name; CAKE_ETOOBIG when it does not fit. */
static inline int cake__path_join(char out[CAKE__PATH_MAX], const char *dir, const char *name)
{
    int len = snprintf(out, CAKE__PATH_MAX, "%s/%s", dir, name);
    return len < 0 || (size_t)len >= CAKE__PATH_MAX ? CAKE_ETOOBIG : 0;
}

static inline bool cake__path_exists(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0;
}

/* Makes names of files just made or renamed in dir durable. */
static inline int cake__dir_sync(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return cake__err_of_errno(errno);
    int err = fsync(fd) == 0 ? 0 : cake__err_of_errno(errno);
    close(fd);
    return err;
}

/* The directory that names the file or directory at path. */
static inline int cake__parent_sync(const char *path)
{
    char parent[CAKE__PATH_MAX];
    size_t len = strlen(path);
    if (len >= sizeof parent)
        return CAKE_ETOOBIG;
    memcpy(parent, path, len + 1);
    char *slash = strrchr(parent, '/');
    if (slash == NULL)
        return cake__dir_sync(".");
    *(slash == parent ? slash + 1 : slash) = '\0';
    return cake__dir_sync(parent);
}

/* Durable: what is written in it shall not be lost with it. */
static inline int cake__mkdir_one(const char *path, const cake_log_t *log)
{
    struct stat info;
    if (mkdir(path, 0777) == 0) {
        int err = cake__parent_sync(path);
        if (err != 0)
            cake__log(log, CAKE_LOG_ERROR, "cannot make directory %s durable: %s", path, strerror(errno));
        return err;
    }
    if (errno == EEXIST && stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return 0;
    int number = errno == EEXIST ? ENOTDIR : errno;
    cake__log(log, CAKE_LOG_ERROR, "cannot make directory %s: %s", path, strerror(number));
    return cake__err_of_errno(number);
}

/* With its parents. */
static inline int cake__dir_make(const char *dir, const cake_log_t *log)
{
    char path[CAKE__PATH_MAX];
    int len = snprintf(path, sizeof path, "%s", dir), err = 0;
    if (len <= 0 || (size_t)len >= sizeof path)
        return len == 0 ? CAKE_EINVAL : CAKE_ETOOBIG;
    for (char *at = path + 1; *at != '\0' && err == 0; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        err = cake__mkdir_one(path, log);
        *at = '/';
    }
    return err != 0 ? err : cake__mkdir_one(path, log);
}

static inline int cake__file_sync(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return cake__err_of_errno(errno);
    int err = fsync(fd) == 0 ? 0 : cake__err_of_errno(errno);
    close(fd);
    return err;
}

/* From a name that is never opened to one that stands for a whole file. */
static inline int cake__file_publish(const char *dir, const char *from, const char *to, const cake_log_t *log)
{
    int err = cake__file_sync(from);
    if (err == 0 && rename(from, to) != 0)
        err = cake__err_of_errno(errno);
    if (err == 0)
        err = cake__dir_sync(dir);
    if (err != 0)
        cake__log(log, CAKE_LOG_ERROR, "cannot make %s: %s", to, cake_strerror(err));
    return err;
}

/* Makes the directory if need be and takes its lock, which the kernel gives back when the process ends, however it
 * ends. CAKE_EBUSY: somebody else has it. */
static inline int cake__dir_lock(const char *dir, const cake_log_t *log, int *lock_fd)
{
    char path[CAKE__PATH_MAX];
    *lock_fd = -1;
    int err = cake__dir_make(dir, log);
    if (err == 0)
        err = cake__path_join(path, dir, "lock");
    if (err != 0)
        return err;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) {
        cake__log(log, CAKE_LOG_ERROR, "cannot open %s: %s", path, strerror(errno));
        return cake__err_of_errno(errno);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        err = errno == EWOULDBLOCK ? CAKE_EBUSY : cake__err_of_errno(errno);
        cake__log(log, CAKE_LOG_ERROR, "cannot lock %s: %s", path,
                  err == CAKE_EBUSY ? "another process has this data directory open" : strerror(errno));
        close(fd);
        return err;
    }
    *lock_fd = fd;
    return 0;
}

static inline void cake__dir_unlock(int *lock_fd)
{
    if (*lock_fd >= 0)
        close(*lock_fd);
    *lock_fd = -1;
}

/* ---- copies ---------------------------------------------------------------------------------------------------------
 * A copy is made in dir.new, which gets its name when it is whole: a directory that was left unfinished would open
 * as an empty storage. */

/* With the files in it; it has no directories. */
static inline void cake__dir_discard(const char *dir)
{
    DIR *listing = opendir(dir);
    const struct dirent *entry;
    while (listing != NULL && (entry = readdir(listing)) != NULL) {
        char path[CAKE__PATH_MAX];
        if (cake__path_join(path, dir, entry->d_name) == 0)
            (void)unlink(path);
    }
    if (listing != NULL)
        closedir(listing);
    (void)rmdir(dir);
}

static inline int cake__copy_begin(const char *dir, char draft[CAKE__PATH_MAX], const cake_log_t *log)
{
    int len = snprintf(draft, CAKE__PATH_MAX, "%s.new", dir);
    if (len < 0 || (size_t)len >= CAKE__PATH_MAX)
        return CAKE_ETOOBIG;
    if (cake__path_exists(dir))
        return CAKE_ECONFLICT;
    cake__dir_discard(draft); /* of an attempt that was cut short */
    return cake__dir_make(draft, log);
}

/* err: of making the copy. Returns it, or what goes wrong here. */
static inline int cake__copy_end(const char *dir, const char *draft, int err, const cake_log_t *log)
{
    if (err == 0)
        err = cake__dir_sync(draft);
    if (err == 0 && rename(draft, dir) != 0)
        err = errno == ENOTEMPTY || errno == EEXIST ? CAKE_ECONFLICT : cake__err_of_errno(errno);
    if (err != 0) {
        cake__log(log, CAKE_LOG_ERROR, "cannot make a copy in %s: %s", dir, cake_strerror(err));
        cake__dir_discard(draft);
        return err;
    }
    return cake__parent_sync(dir);
}

#endif
