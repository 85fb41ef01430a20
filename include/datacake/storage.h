/* datacake/storage.h: the one interface to implement to keep a replicated store's data elsewhere, and the storage in
 * memory. <datacake/sqlite.h> and <datacake/lmdb.h> have two that work as they are.
 *
 * What a storage holds
 *   rows    (keyspace, id) -> key, value, hlc, dot, live or tombstone. One row at most per id; key and id belong
 *           together for good, and most ids hold their key (see key.h: cake_id_key()).
 *   metas   (lane, name) -> bytes: small records of the store's own, written in the same step as the rows they cover.
 *   lanes   independent writers. A keyspace belongs to one lane for ever; a batch concerns one lane.
 *
 * Threads
 *   write    one at a time per lane, on the lane's thread. Different lanes write at once.
 *   reads    any thread, several at once, beside the writers, when CAKE_STORAGE_CONCURRENT_READS is set; otherwise on
 *            the lane's thread of the keyspace, like the writes. A read sees whole batches only, and no less than one
 *            that ended before it began.
 * A callback must not call the storage. Slices it gets are valid for the call.
 *
 * The consequence of getting it wrong: a batch that is only partly there after a crash loses deletes or acknowledged
 * writes for good. Run cake_storage_suite_run() on your storage; it tries that. */
#ifndef DATACAKE_STORAGE_H
#define DATACAKE_STORAGE_H

#include <stdio.h>

#include <datacake/hlc.h>
#include <datacake/key.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cake_storage cake_storage_t;

/* ---- documents: what reads return; one block, owned by the receiver, any thread -----------------------------------*/
typedef struct cake_doc cake_doc_t;

CAKE_API cake_doc_t *cake_doc_new(const cake_alloc_t *alloc, cake_slice_t key, cake_slice_t value, cake_hlc_t hlc,
                                  cake_dot_t dot); /* copies; NULL: out of memory */
CAKE_API void cake_doc_free(cake_doc_t *doc);      /* NULL allowed */
CAKE_API cake_slice_t cake_doc_key(const cake_doc_t *doc);
CAKE_API cake_slice_t cake_doc_value(const cake_doc_t *doc);
CAKE_API cake_hlc_t cake_doc_timestamp(const cake_doc_t *doc);
CAKE_API cake_dot_t cake_doc_dot(const cake_doc_t *doc);

/* ---- writing ------------------------------------------------------------------------------------------------------*/
typedef enum cake_write_kind {
    CAKE_WRITE_PUT,       /* the row becomes live with this value */
    CAKE_WRITE_TOMBSTONE, /* the row becomes a tombstone without value; made when there was none */
    CAKE_WRITE_ERASE      /* the row goes, live or dead, if it is there; key may be empty, find it by id */
} cake_write_kind_t;

/* Where a write comes from: the node that sent it, which need not be the one that made it, but has it on its disk,
 * perhaps under an older timestamp (a repair may give a document a new one: docs/consistency.md). A storage with
 * CAKE_STORAGE_FETCHES may get from there what is too large for a message, before its write returns, and calls
 * progress from time to time meanwhile, at least every few seconds, so that neither side gives up. Both are for the
 * thread that write runs on, and for the time of that call. examples/blobs.c is such a storage. */
struct cake_reply;
typedef struct cake_write_context {
    uint16_t node_id;            /* of the sender; never 0 */
    const char *address;         /* of its RPC server; empty: it is gone */
    void (*progress)(void *arg); /* cheap: call it for each piece */
    void *arg;                   /* of both */
    /* Calls a method of a service of that node ("/service/method") through this node's channel to it, and waits:
     * cake_channel_call of <datacake/rpc.h>. CAKE_ENOTFOUND (the node is not known any more), CAKE_ECLOSED (this
     * node stops), CAKE_EDEADLK. */
    int (*call)(void *arg, const char *path, const void *data, size_t len, uint64_t timeout_ms,
                struct cake_reply **reply);
} cake_write_context_t;

typedef struct cake_write {
    cake_write_kind_t kind;
    cake_slice_t keyspace, key, value;
    cake_id_t id;
    cake_hlc_t hlc;
    cake_dot_t dot;
    const cake_write_context_t *context; /* NULL: a write of this node itself */
} cake_write_t;

typedef struct cake_meta_write {
    cake_slice_t name;  /* 1 to 255 bytes */
    cake_slice_t value; /* data NULL: remove it */
} cake_meta_write_t;

/* Writes apply in order; a row may occur more than once. */
typedef struct cake_batch {
    unsigned lane;
    const cake_write_t *writes;
    size_t write_count;
    const cake_meta_write_t *metas;
    size_t meta_count;
} cake_batch_t;

/* ---- reading ------------------------------------------------------------------------------------------------------*/
typedef struct cake_row {
    cake_id_t id; /* all zero in answers to get and scan where the storage does not keep it */
    cake_slice_t key, value;
    cake_hlc_t hlc;
    cake_dot_t dot;
    bool is_tombstone;
} cake_row_t;

typedef struct cake_scan {
    cake_slice_t prefix; /* only keys that begin so; empty: all */
    cake_slice_t after;  /* only keys above it, bytewise; empty: from the first */
    size_t limit;        /* 0: no limit */
    bool keys_only;      /* values may be left empty */
} cake_scan_t;

/* Return 0 to go on; anything else stops the scan, which then returns it. */
typedef int (*cake_row_fn)(void *arg, const cake_row_t *row);
typedef int (*cake_name_fn)(void *arg, const char *name);
typedef int (*cake_meta_fn)(void *arg, cake_slice_t name, cake_slice_t value);

#define CAKE_STORAGE_CONCURRENT_READS 1u /* reads may come from any thread */
#define CAKE_STORAGE_INLINE           2u /* nothing here waits for I/O: calls may run on the loop thread */
#define CAKE_STORAGE_FETCHES          4u /* write() calls the node of origin: each batch is of one. Not with INLINE */

#define CAKE_STORAGE_VERSION   1u
#define CAKE_STORAGE_LANES_MAX 256u

/* All calls that can fail return 0 or CAKE_ENOMEM, CAKE_EIO, CAKE_ENOSPC, CAKE_ECORRUPT, CAKE_EBUSY, CAKE_ETOOBIG.
 * Unknown keyspaces are empty when read, and made when written. */
typedef struct cake_storage_ops {
    uint32_t version;
    uint32_t flags;

    unsigned (*lanes)(cake_storage_t *storage);                          /* at least 1; constant */
    unsigned (*lane_of)(cake_storage_t *storage, cake_slice_t keyspace); /* constant per keyspace, for ever */

    /* Atomic and durable: 0 means that all of it survives a crash; an error means that none of it is there, now.
     * After an error of which the storage cannot say whether the batch reached the disk, it may turn up after a
     * restart, whole, but only if no later batch of its lane has succeeded: a later one takes its place for good. */
    int (*write)(cake_storage_t *storage, const cake_batch_t *batch);

    int (*get)(cake_storage_t *storage, cake_slice_t keyspace, cake_slice_t key, cake_doc_t **doc); /* live only:
                                                                                                CAKE_ENOTFOUND */
    int (*fetch)(cake_storage_t *storage, cake_slice_t keyspace, const cake_id_t *ids, size_t count, cake_row_fn fn,
                 void *arg); /* rows live or dead, in the order of ids; absent ones skipped */
    int (*scan)(cake_storage_t *storage, cake_slice_t keyspace, const cake_scan_t *range, cake_row_fn fn,
                void *arg); /* live rows in bytewise order of their keys */
    int (*metadata)(cake_storage_t *storage, cake_slice_t keyspace, cake_row_fn fn,
                    void *arg); /* every row, any order, id and key set, value empty */
    int (*keyspaces)(cake_storage_t *storage, cake_name_fn fn, void *arg); /* those that ever had a row; any order */
    int (*metas)(cake_storage_t *storage, unsigned lane, cake_slice_t prefix, cake_meta_fn fn, void *arg);

    int (*check)(cake_storage_t *storage, char *report,
                 size_t size);              /* integrity; 0 or CAKE_ECORRUPT and why; may be NULL */
    void (*close)(cake_storage_t *storage); /* frees it; no call may be under way */

    /* A copy of everything, whole batches only, in the new directory dir, that opens as a storage of the same kind. Any
     * thread, beside writers and readers. CAKE_ECONFLICT when dir exists. NULL: cannot be done. */
    int (*backup)(cake_storage_t *storage, const char *dir);
} cake_storage_ops_t;

/* Implementations begin with this. */
struct cake_storage {
    const cake_storage_ops_t *ops;
};

static inline void cake_storage_close(cake_storage_t *storage)
{
    if (storage != NULL)
        storage->ops->close(storage);
}

/* ---- the storage in memory: keeps nothing beyond close ------------------------------------------------------------*/
typedef struct cake_memory_options {
    size_t size;
    const cake_alloc_t *alloc; /* NULL: the C library's */
    uint64_t max_bytes;        /* of keys and values; 0: no cap. Above it writes fail with CAKE_ENOSPC. */
} cake_memory_options_t;

#define CAKE_MEMORY_OPTIONS_INIT CAKE_SIZED(cake_memory_options_t)

CAKE_API int cake_memory_open(cake_storage_t **storage);
CAKE_API int cake_memory_open_with(const cake_memory_options_t *options, cake_storage_t **storage);

/* ---- the conformance suite ------------------------------------------------------------------------------------------
 * The factory opens the storage under test. `fresh`: empty; otherwise the one that was closed last, with what it
 * held, or CAKE_EUNAVAILABLE for a storage that keeps nothing (the cases of reopening are then skipped, and the
 * report says so). */
typedef int (*cake_storage_factory_fn)(void *arg, bool fresh, cake_storage_t **storage);

/* Runs every case, one line each in report (may be NULL). 0 when every case passed, CAKE_EINTERNAL otherwise. Starts
 * threads that read beside the writer when the storage says that this is allowed. */
CAKE_API int cake_storage_suite_run(cake_storage_factory_fn factory, void *arg, FILE *report);

typedef struct cake_storage_suite_options {
    size_t size;
    size_t rows;      /* of the case with many rows; 0: 100,000 */
    size_t steps;     /* of the case with random batches; 0: 2,000 */
    uint64_t seed;    /* of the same */
    const char *only; /* cases whose name contains this; NULL: all */
    /* How often a child process that writes is killed; 0: 8. SIZE_MAX: never, for a storage that cannot be opened in
     * a child. */
    size_t kills;
    /* From now on the disk under the storage is full (CAKE_ENOSPC), fails (CAKE_EIO), or works (0). arg is the
     * factory's. NULL: the cases of failing disks are skipped. */
    int (*break_disk)(void *arg, int err);
} cake_storage_suite_options_t;

#define CAKE_STORAGE_SUITE_OPTIONS_INIT CAKE_SIZED(cake_storage_suite_options_t)

CAKE_API int cake_storage_suite_run_with(const cake_storage_suite_options_t *options, cake_storage_factory_fn factory,
                                         void *arg, FILE *report);

/* ---- wrappers for tests ---------------------------------------------------------------------------------------------
 * Both own `inner` once they return 0, pass every call on to it, and keep its flags. */

/* One finished call. Slices and pointers are valid for the call of the hook, which comes from the caller's thread. */
typedef struct cake_storage_call {
    const char *name; /* "write", "get", ... */
    cake_slice_t keyspace;
    size_t count;   /* writes and metas of a batch, ids of a fetch, rows given out by the rest */
    uint64_t bytes; /* keys and values written, values read */
    int result;
    uint64_t duration_ns; /* 0 without a time source */
} cake_storage_call_t;

typedef struct cake_instrument_options {
    size_t size;
    const cake_alloc_t *alloc;     /* NULL: the C library's */
    uint64_t (*now_ns)(void *arg); /* NULL: no times */
    void (*call)(void *arg, const cake_storage_call_t *call);
    void *arg;  /* of both */
    FILE *file; /* when call is NULL: one line per call goes here */
} cake_instrument_options_t;

#define CAKE_INSTRUMENT_OPTIONS_INIT CAKE_SIZED(cake_instrument_options_t)

CAKE_API int cake_storage_instrument(cake_storage_t *inner, const cake_instrument_options_t *options,
                                     cake_storage_t **storage);

typedef struct cake_fault {
    bool is_read;     /* false: write() fails; true: the reading calls */
    bool is_repeated; /* every call from that one on */
    bool is_applied;  /* the write happens and is durable; the error is returned all the same */
    uint64_t nth;     /* which call from now on: 1 the next; 0: none */
    int err;          /* what it returns */
} cake_fault_t;

CAKE_API int cake_storage_inject(cake_storage_t *inner, const cake_alloc_t *alloc, cake_storage_t **storage);
/* Takes the place of the fault of the same kind set before. Any thread. */
CAKE_API void cake_storage_fail(cake_storage_t *injected, const cake_fault_t *fault);

#ifdef __cplusplus
}
#endif
#endif
