/* Two storages around another one: one tells about every call, the other makes chosen calls fail. Both are the same
 * shape: a copy of the inner vtable's flags, and one function per call that does its work around the inner one. */
#include "storage/storage.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/lock.h"

/* ---- instrumented ------------------------------------------------------------------------------------------------ */

typedef struct instrumented {
    cake_storage_t base;
    cake_storage_ops_t ops;
    cake_storage_t *inner;
    cake_alloc_t alloc;
    cake_instrument_options_t options;
} instrumented_t;

static instrumented_t *instrumented_of(cake_storage_t *storage)
{
    return CAKE_CONTAINER_OF(storage, instrumented_t, base);
}

static uint64_t now_ns(const instrumented_t *wrapper)
{
    return wrapper->options.now_ns == NULL ? 0 : wrapper->options.now_ns(wrapper->options.arg);
}

static int tell(const instrumented_t *wrapper, cake_storage_call_t call, uint64_t started_ns)
{
    call.duration_ns = now_ns(wrapper) - started_ns;
    if (wrapper->options.call != NULL)
        wrapper->options.call(wrapper->options.arg, &call);
    else if (wrapper->options.file != NULL)
        fprintf(wrapper->options.file, "%-9s %.*s count=%zu bytes=%" PRIu64 " ns=%" PRIu64 " %s\n", call.name,
                (int)call.keyspace.len, call.keyspace.len == 0 ? "" : (const char *)call.keyspace.data, call.count,
                call.bytes, call.duration_ns, cake_err_name(call.result));
    return call.result;
}

/* Counts what passes through on its way to the real callback. */
typedef struct counter {
    cake_row_fn row_fn;
    cake_name_fn name_fn;
    cake_meta_fn meta_fn;
    void *arg;
    size_t count;
    uint64_t bytes;
} counter_t;

static int count_row(void *arg, const cake_row_t *row)
{
    counter_t *counter = arg;
    counter->count++;
    counter->bytes += row->value.len;
    return counter->row_fn(counter->arg, row);
}

static int count_name(void *arg, const char *name)
{
    counter_t *counter = arg;
    counter->count++;
    return counter->name_fn(counter->arg, name);
}

static int count_meta(void *arg, cake_slice_t name, cake_slice_t value)
{
    counter_t *counter = arg;
    counter->count++;
    counter->bytes += value.len;
    return counter->meta_fn(counter->arg, name, value);
}

static unsigned told_lanes(cake_storage_t *storage)
{
    cake_storage_t *inner = instrumented_of(storage)->inner;
    return inner->ops->lanes(inner);
}

static unsigned told_lane_of(cake_storage_t *storage, cake_slice_t keyspace)
{
    cake_storage_t *inner = instrumented_of(storage)->inner;
    return inner->ops->lane_of(inner, keyspace);
}

static int told_write(cake_storage_t *storage, const cake_batch_t *batch)
{
    instrumented_t *wrapper = instrumented_of(storage);
    cake_storage_call_t call = {.name = "write", .count = batch->write_count + batch->meta_count};
    for (size_t i = 0; i < batch->write_count; i++)
        call.bytes += batch->writes[i].key.len + batch->writes[i].value.len;
    for (size_t i = 0; i < batch->meta_count; i++)
        call.bytes += batch->metas[i].name.len + batch->metas[i].value.len;
    if (batch->write_count > 0)
        call.keyspace = batch->writes[0].keyspace;
    uint64_t started_ns = now_ns(wrapper);
    call.result = wrapper->inner->ops->write(wrapper->inner, batch);
    return tell(wrapper, call, started_ns);
}

static int told_get(cake_storage_t *storage, cake_slice_t keyspace, cake_slice_t key, cake_doc_t **doc)
{
    instrumented_t *wrapper = instrumented_of(storage);
    cake_storage_call_t call = {.name = "get", .keyspace = keyspace};
    uint64_t started_ns = now_ns(wrapper);
    call.result = wrapper->inner->ops->get(wrapper->inner, keyspace, key, doc);
    call.count = call.result == 0 ? 1 : 0;
    call.bytes = call.result == 0 ? cake_doc_value(*doc).len : 0;
    return tell(wrapper, call, started_ns);
}

static int told_fetch(cake_storage_t *storage, cake_slice_t keyspace, const cake_id_t *ids, size_t count,
                      cake_row_fn fn, void *arg)
{
    instrumented_t *wrapper = instrumented_of(storage);
    counter_t counter = {.row_fn = fn, .arg = arg};
    uint64_t started_ns = now_ns(wrapper);
    int err = wrapper->inner->ops->fetch(wrapper->inner, keyspace, ids, count, count_row, &counter);
    return tell(wrapper, (cake_storage_call_t){"fetch", keyspace, count, counter.bytes, err, 0}, started_ns);
}

static int told_scan(cake_storage_t *storage, cake_slice_t keyspace, const cake_scan_t *range, cake_row_fn fn,
                     void *arg)
{
    instrumented_t *wrapper = instrumented_of(storage);
    counter_t counter = {.row_fn = fn, .arg = arg};
    uint64_t started_ns = now_ns(wrapper);
    int err = wrapper->inner->ops->scan(wrapper->inner, keyspace, range, count_row, &counter);
    return tell(wrapper, (cake_storage_call_t){"scan", keyspace, counter.count, counter.bytes, err, 0}, started_ns);
}

static int told_metadata(cake_storage_t *storage, cake_slice_t keyspace, cake_row_fn fn, void *arg)
{
    instrumented_t *wrapper = instrumented_of(storage);
    counter_t counter = {.row_fn = fn, .arg = arg};
    uint64_t started_ns = now_ns(wrapper);
    int err = wrapper->inner->ops->metadata(wrapper->inner, keyspace, count_row, &counter);
    return tell(wrapper, (cake_storage_call_t){"metadata", keyspace, counter.count, 0, err, 0}, started_ns);
}

static int told_keyspaces(cake_storage_t *storage, cake_name_fn fn, void *arg)
{
    instrumented_t *wrapper = instrumented_of(storage);
    counter_t counter = {.name_fn = fn, .arg = arg};
    uint64_t started_ns = now_ns(wrapper);
    int err = wrapper->inner->ops->keyspaces(wrapper->inner, count_name, &counter);
    return tell(wrapper, (cake_storage_call_t){"keyspaces", {NULL, 0}, counter.count, 0, err, 0}, started_ns);
}

static int told_metas(cake_storage_t *storage, unsigned lane, cake_slice_t prefix, cake_meta_fn fn, void *arg)
{
    instrumented_t *wrapper = instrumented_of(storage);
    counter_t counter = {.meta_fn = fn, .arg = arg};
    uint64_t started_ns = now_ns(wrapper);
    int err = wrapper->inner->ops->metas(wrapper->inner, lane, prefix, count_meta, &counter);
    return tell(wrapper, (cake_storage_call_t){"metas", {NULL, 0}, counter.count, counter.bytes, err, 0}, started_ns);
}

static int told_check(cake_storage_t *storage, char *report, size_t size)
{
    instrumented_t *wrapper = instrumented_of(storage);
    uint64_t started_ns = now_ns(wrapper);
    int err = wrapper->inner->ops->check(wrapper->inner, report, size);
    return tell(wrapper, (cake_storage_call_t){"check", {NULL, 0}, 0, 0, err, 0}, started_ns);
}

static int told_backup(cake_storage_t *storage, const char *dir)
{
    instrumented_t *wrapper = instrumented_of(storage);
    uint64_t started_ns = now_ns(wrapper);
    int err = wrapper->inner->ops->backup(wrapper->inner, dir);
    return tell(wrapper, (cake_storage_call_t){"backup", {NULL, 0}, 0, 0, err, 0}, started_ns);
}

static void told_close(cake_storage_t *storage)
{
    instrumented_t *wrapper = instrumented_of(storage);
    cake_alloc_t alloc = wrapper->alloc;
    uint64_t started_ns = now_ns(wrapper);
    cake_storage_close(wrapper->inner);
    (void)tell(wrapper, (cake_storage_call_t){.name = "close"}, started_ns);
    cake__free(&alloc, wrapper);
}

int cake_storage_instrument(cake_storage_t *inner, const cake_instrument_options_t *given, cake_storage_t **storage)
{
    cake_instrument_options_t options = CAKE_INSTRUMENT_OPTIONS_INIT;
    *storage = NULL;
    int err = cake__options_copy(&options, sizeof options, given);
    if (err != 0)
        return err;
    const cake_alloc_t *alloc = cake__alloc_or_default(options.alloc);
    instrumented_t *wrapper = cake__malloc(alloc, sizeof *wrapper);
    if (wrapper == NULL)
        return CAKE_ENOMEM;
    *wrapper = (instrumented_t){.inner = inner, .alloc = *alloc, .options = options};
    wrapper->ops = (cake_storage_ops_t){.version = CAKE_STORAGE_VERSION,
                                        .flags = inner->ops->flags,
                                        .lanes = told_lanes,
                                        .lane_of = told_lane_of,
                                        .write = told_write,
                                        .get = told_get,
                                        .fetch = told_fetch,
                                        .scan = told_scan,
                                        .metadata = told_metadata,
                                        .keyspaces = told_keyspaces,
                                        .metas = told_metas,
                                        .check = inner->ops->check == NULL ? NULL : told_check,
                                        .close = told_close,
                                        .backup = inner->ops->backup == NULL ? NULL : told_backup};
    wrapper->base.ops = &wrapper->ops;
    *storage = &wrapper->base;
    return 0;
}

/* ---- with faults ------------------------------------------------------------------------------------------------- */

typedef struct faulty {
    cake_storage_t base;
    cake_storage_ops_t ops;
    cake_storage_t *inner;
    cake_alloc_t alloc;
    cake__lock_t lock;
    cake_fault_t faults[2]; /* of writes, of reads */
} faulty_t;

static faulty_t *faulty_of(cake_storage_t *storage)
{
    return CAKE_CONTAINER_OF(storage, faulty_t, base);
}

/* Counts one call down. The error it is to return, or 0. */
static int due(faulty_t *wrapper, bool is_read, bool *is_applied)
{
    cake__lock_take(&wrapper->lock);
    cake_fault_t *fault = &wrapper->faults[is_read];
    bool is_due = fault->nth == 1;
    int err = is_due ? fault->err : 0;
    *is_applied = fault->is_applied;
    if (fault->nth > 1 || (is_due && !fault->is_repeated))
        fault->nth--;
    cake__lock_give(&wrapper->lock);
    return err;
}

static int due_read(faulty_t *wrapper)
{
    bool is_applied;
    return due(wrapper, true, &is_applied);
}

static unsigned faulty_lanes(cake_storage_t *storage)
{
    cake_storage_t *inner = faulty_of(storage)->inner;
    return inner->ops->lanes(inner);
}

static unsigned faulty_lane_of(cake_storage_t *storage, cake_slice_t keyspace)
{
    cake_storage_t *inner = faulty_of(storage)->inner;
    return inner->ops->lane_of(inner, keyspace);
}

static int faulty_write(cake_storage_t *storage, const cake_batch_t *batch)
{
    faulty_t *wrapper = faulty_of(storage);
    bool is_applied;
    int fault = due(wrapper, false, &is_applied);
    if (fault != 0 && !is_applied)
        return fault;
    int err = wrapper->inner->ops->write(wrapper->inner, batch);
    return err != 0 ? err : fault;
}

static int faulty_get(cake_storage_t *storage, cake_slice_t keyspace, cake_slice_t key, cake_doc_t **doc)
{
    faulty_t *wrapper = faulty_of(storage);
    int err = due_read(wrapper);
    *doc = NULL;
    return err != 0 ? err : wrapper->inner->ops->get(wrapper->inner, keyspace, key, doc);
}

static int faulty_fetch(cake_storage_t *storage, cake_slice_t keyspace, const cake_id_t *ids, size_t count,
                        cake_row_fn fn, void *arg)
{
    faulty_t *wrapper = faulty_of(storage);
    int err = due_read(wrapper);
    return err != 0 ? err : wrapper->inner->ops->fetch(wrapper->inner, keyspace, ids, count, fn, arg);
}

static int faulty_scan(cake_storage_t *storage, cake_slice_t keyspace, const cake_scan_t *range, cake_row_fn fn,
                       void *arg)
{
    faulty_t *wrapper = faulty_of(storage);
    int err = due_read(wrapper);
    return err != 0 ? err : wrapper->inner->ops->scan(wrapper->inner, keyspace, range, fn, arg);
}

static int faulty_metadata(cake_storage_t *storage, cake_slice_t keyspace, cake_row_fn fn, void *arg)
{
    faulty_t *wrapper = faulty_of(storage);
    int err = due_read(wrapper);
    return err != 0 ? err : wrapper->inner->ops->metadata(wrapper->inner, keyspace, fn, arg);
}

static int faulty_keyspaces(cake_storage_t *storage, cake_name_fn fn, void *arg)
{
    faulty_t *wrapper = faulty_of(storage);
    int err = due_read(wrapper);
    return err != 0 ? err : wrapper->inner->ops->keyspaces(wrapper->inner, fn, arg);
}

static int faulty_metas(cake_storage_t *storage, unsigned lane, cake_slice_t prefix, cake_meta_fn fn, void *arg)
{
    faulty_t *wrapper = faulty_of(storage);
    int err = due_read(wrapper);
    return err != 0 ? err : wrapper->inner->ops->metas(wrapper->inner, lane, prefix, fn, arg);
}

static int faulty_check(cake_storage_t *storage, char *report, size_t size)
{
    cake_storage_t *inner = faulty_of(storage)->inner;
    return inner->ops->check(inner, report, size);
}

static int faulty_backup(cake_storage_t *storage, const char *dir)
{
    cake_storage_t *inner = faulty_of(storage)->inner;
    return inner->ops->backup(inner, dir);
}

static void faulty_close(cake_storage_t *storage)
{
    faulty_t *wrapper = faulty_of(storage);
    cake_alloc_t alloc = wrapper->alloc;
    cake_storage_close(wrapper->inner);
    cake__lock_destroy(&wrapper->lock);
    cake__free(&alloc, wrapper);
}

int cake_storage_inject(cake_storage_t *inner, const cake_alloc_t *given, cake_storage_t **storage)
{
    const cake_alloc_t *alloc = cake__alloc_or_default(given);
    *storage = NULL;
    faulty_t *wrapper = cake__malloc(alloc, sizeof *wrapper);
    if (wrapper == NULL)
        return CAKE_ENOMEM;
    *wrapper = (faulty_t){.inner = inner, .alloc = *alloc};
    cake__lock_init(&wrapper->lock);
    wrapper->ops = (cake_storage_ops_t){.version = CAKE_STORAGE_VERSION,
                                        .flags = inner->ops->flags,
                                        .lanes = faulty_lanes,
                                        .lane_of = faulty_lane_of,
                                        .write = faulty_write,
                                        .get = faulty_get,
                                        .fetch = faulty_fetch,
                                        .scan = faulty_scan,
                                        .metadata = faulty_metadata,
                                        .keyspaces = faulty_keyspaces,
                                        .metas = faulty_metas,
                                        .check = inner->ops->check == NULL ? NULL : faulty_check,
                                        .close = faulty_close,
                                        .backup = inner->ops->backup == NULL ? NULL : faulty_backup};
    wrapper->base.ops = &wrapper->ops;
    *storage = &wrapper->base;
    return 0;
}

void cake_storage_fail(cake_storage_t *injected, const cake_fault_t *fault)
{
    faulty_t *wrapper = faulty_of(injected);
    CAKE_ASSERT(injected->ops->write == faulty_write);
    cake__lock_take(&wrapper->lock);
    wrapper->faults[fault->is_read] = *fault;
    cake__lock_give(&wrapper->lock);
}
