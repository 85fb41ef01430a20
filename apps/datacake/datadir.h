/* datadir.h: a node's directory: who it belongs to, that only one process uses it, and the count of its starts.
 *
 *   DIR/lock         held by flock() while a process runs; the process id is in it
 *   DIR/node         "node-id 1", "cluster-id datacake", "storage sqlite": whose data this is, fixed by the first start
 *   DIR/generation   a number that grows with each start, which tells a restarted node from its past; written in place
 *   DIR/store/       the storage */
#ifndef DATACAKE_APP_DATADIR_H
#define DATACAKE_APP_DATADIR_H

#include <stdbool.h>
#include <stdint.h>

#include <datacake/base.h>

#define DATADIR_PATH_MAX 4096

typedef struct datadir {
    char path[DATADIR_PATH_MAX];
    char store_path[DATADIR_PATH_MAX + 8];
    int lock; /* -1: not held */
    uint64_t generation;
    char message[DATADIR_PATH_MAX + 256]; /* why opening failed */
} datadir_t;

/* Makes the directory where there is none, and raises the generation durably. CAKE_EIO, CAKE_EBUSY (another process),
 * CAKE_ECONFLICT (another node's or cluster's), CAKE_ECORRUPT. datadir_close in any case. */
int datadir_open(datadir_t *datadir, const char *path, uint16_t node_id, const char *cluster_id, const char *storage);
void datadir_close(datadir_t *datadir);

/* Of directories that are not opened: what `datacake backup` copies and makes. errno says why after CAKE_EIO. */
typedef struct datadir_owner {
    unsigned node_id;
    char cluster[256], storage[32];
} datadir_owner_t;

int datadir_read_owner(const char *dir, datadir_owner_t *owner);        /* CAKE_ENOTFOUND, CAKE_ECORRUPT, CAKE_EIO */
int datadir_write_owner(const char *dir, const datadir_owner_t *owner); /* CAKE_ENOSPC, CAKE_EIO */
bool datadir_is_in_use(const char *dir);                                /* by a process that holds its lock */
int datadir_sync(const char *directory); /* what it names is durable then; -1 and errno */

#endif
