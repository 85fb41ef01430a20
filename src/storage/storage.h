/* storage: the interface's shared parts, the storage in memory, the conformance suite and two wrappers for tests. Uses
 * base and hlc. Never does file I/O or starts threads, but for the suite, which is a test tool.
 *
 *   doc.c        documents                          memory.c   the storage in memory, on the trees of tree.c
 *   storage.c    checks and rules all storages share wrap.c     instrumented and fault-injecting wrappers
 *   dir.h        a locked data directory, for storages on disk    suite*.c   the conformance suite
 *   reserve.h    room for deletes on a full disk, for the same     *_test.h   crashes and full disks, for their tests
 *   names.c      keyspaces and their numbers, for the same */
#ifndef CAKE_STORAGE_STORAGE_H
#define CAKE_STORAGE_STORAGE_H

#include <datacake/storage.h>

#include "base/base.h"

#define CAKE__META_NAME_MAX  255u
#define CAKE__VALUE_HARD_MAX (UINT32_C(1) << 29) /* what every storage of ours can keep; stores set a lower limit */

/* What is wrong with the batch: 0, CAKE_EINVAL or CAKE_ETOOBIG. Ids of short keys must hold the key. */
int cake__batch_check(const cake_batch_t *batch, unsigned lanes);

/* The lane of a keyspace: FNV-1a of its name, mixed. Data directories depend on it: it never changes. */
unsigned cake__lane_of(cake_slice_t keyspace, unsigned lanes);

static inline bool cake__slice_has_prefix(cake_slice_t text, cake_slice_t prefix)
{
    return text.len >= prefix.len && (prefix.len == 0 || memcmp(text.data, prefix.data, prefix.len) == 0);
}

/* A document whose value the caller fills in: *value has value_len bytes. */
cake_doc_t *cake__doc_reserve(const cake_alloc_t *alloc, cake_slice_t key, size_t value_len, cake_hlc_t hlc,
                              cake_dot_t dot, uint8_t **value);

#endif
