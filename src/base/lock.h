/* lock.h: a mutex and a readers-writer lock. Held for short, never across I/O, never by two at once. */
#ifndef CAKE_BASE_LOCK_H
#define CAKE_BASE_LOCK_H

#include <pthread.h>

#include "base/base.h"

typedef struct cake__lock {
    pthread_mutex_t mutex;
} cake__lock_t;

static inline void cake__lock_init(cake__lock_t *lock)
{
    int err = pthread_mutex_init(&lock->mutex, NULL);
    CAKE_ASSERT(err == 0);
}

static inline void cake__lock_destroy(cake__lock_t *lock)
{
    pthread_mutex_destroy(&lock->mutex);
}

static inline void cake__lock_take(cake__lock_t *lock)
{
    int err = pthread_mutex_lock(&lock->mutex);
    CAKE_ASSERT(err == 0);
}

/* False: somebody has it. */
static inline bool cake__lock_try(cake__lock_t *lock)
{
    return pthread_mutex_trylock(&lock->mutex) == 0;
}

static inline void cake__lock_give(cake__lock_t *lock)
{
    int err = pthread_mutex_unlock(&lock->mutex);
    CAKE_ASSERT(err == 0);
}

typedef struct cake__rwlock {
    pthread_rwlock_t lock;
} cake__rwlock_t;

/* Writers go first: with glibc's default a few readers keep a writer out for seconds. Nobody may read-lock twice. */
static inline void cake__rwlock_init(cake__rwlock_t *lock)
{
    pthread_rwlockattr_t attr;
    int err = pthread_rwlockattr_init(&attr);
    CAKE_ASSERT(err == 0);
#ifdef __GLIBC__
    err = pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    CAKE_ASSERT(err == 0);
#endif
    err = pthread_rwlock_init(&lock->lock, &attr);
    CAKE_ASSERT(err == 0);
    pthread_rwlockattr_destroy(&attr);
}

static inline void cake__rwlock_destroy(cake__rwlock_t *lock)
{
    pthread_rwlock_destroy(&lock->lock);
}

static inline void cake__rwlock_read(cake__rwlock_t *lock)
{
    int err = pthread_rwlock_rdlock(&lock->lock);
    CAKE_ASSERT(err == 0);
}

static inline void cake__rwlock_write(cake__rwlock_t *lock)
{
    int err = pthread_rwlock_wrlock(&lock->lock);
    CAKE_ASSERT(err == 0);
}

static inline void cake__rwlock_give(cake__rwlock_t *lock)
{
    int err = pthread_rwlock_unlock(&lock->lock);
    CAKE_ASSERT(err == 0);
}

#endif
