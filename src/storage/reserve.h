/* reserve.h: space kept on the disk so that deletes go through when it is full. Header only, for storages on disk.
 *
 *      dir/reserve-000     RESERVE_BYTES that hold nothing; one per lane
 *
 * When a batch that only removes finds the disk full, the file is removed and the batch tried again. From then on
 * puts are refused until the file could be made again: they would take the room that deletes need. What deletes free
 * inside the data file is used by later writes, so that a full disk can be got out of by deleting alone. */
#ifndef CAKE_STORAGE_RESERVE_H
#define CAKE_STORAGE_RESERVE_H

#include "storage/dir.h"

#define CAKE__RESERVE_BYTES (INT64_C(4) << 20)

typedef struct cake__reserve {
    char path[CAKE__PATH_MAX];
    bool is_held; /* or cannot be had on this kind of file system */
} cake__reserve_t;

/* Makes the file if it is not whole. False: there is no room for it. */
static inline bool cake__reserve_hold(cake__reserve_t *reserve)
{
    if (reserve->is_held)
        return true;
    int fd = open(reserve->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    int number = fd < 0 ? errno : 0;
    if (fd >= 0 && fallocate(fd, 0, 0, CAKE__RESERVE_BYTES) != 0)
        number = errno;
    if (fd >= 0)
        close(fd);
    reserve->is_held = number != ENOSPC && number != EDQUOT;
    if (number != 0)
        (void)unlink(reserve->path);
    return reserve->is_held;
}

static inline int cake__reserve_path(const char *dir, unsigned lane, char out[CAKE__PATH_MAX])
{
    char name[32];
    snprintf(name, sizeof name, "reserve-%03u", lane);
    return cake__path_join(out, dir, name);
}

/* At opening. Without room for it the storage can still be read, and what it holds deleted. */
static inline int cake__reserve_open(cake__reserve_t *reserve, const char *dir, unsigned lane)
{
    int err = cake__reserve_path(dir, lane, reserve->path);
    if (err == 0)
        (void)cake__reserve_hold(reserve);
    return err;
}

/* False: there was nothing to give up. */
static inline bool cake__reserve_give_up(cake__reserve_t *reserve)
{
    bool was_there = unlink(reserve->path) == 0;
    reserve->is_held = false;
    return was_there;
}

/* Of all lanes, for opening that needs room; they are made again when there is some. False: there were none. */
static inline bool cake__reserves_give_up(const char *dir)
{
    char path[CAKE__PATH_MAX];
    bool was_there = false;
    for (unsigned i = 0; i < CAKE_STORAGE_LANES_MAX; i++)
        was_there |= cake__reserve_path(dir, i, path) == 0 && unlink(path) == 0;
    return was_there;
}

static inline bool cake__batch_only_removes(const cake_batch_t *batch)
{
    for (size_t i = 0; i < batch->write_count; i++) {
        if (batch->writes[i].kind == CAKE_WRITE_PUT)
            return false;
    }
    return true;
}

#endif
