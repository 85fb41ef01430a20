/* A storage of your own: copy this file, keep the shape, replace the inside. It keeps every row in memory, sorted,
 * and a log of all batches in one file; main() runs the conformance suite on it.
 *
 *      log     ( length u32 | checksum u64 | batch )*        a batch is there when its checksum is right
 *      batch   ( kind, lengths, id, hlc, dot | keyspace, key, value )*
 *
 * What makes a write atomic and durable, whatever the storage: everything that can fail comes first (memory), then
 * the one step that decides (the log record is on the disk, or is cut off again), then what cannot fail (the rows
 * in memory). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <datacake/storage.h>

#define KIND_GONE   2 /* erased, or a meta removed */
#define RECORD_HEAD 12
#define ROW_HEAD    48

typedef struct row {
    struct {
        uint8_t kind; /* of cake_write_kind_t */
        uint8_t keyspace_len;
        uint16_t key_len;
        uint32_t value_len;
        uint8_t id[16];
        uint64_t hlc, actor, seq;
    } head;          /* as it lies in the log, too: a file for machines of one byte order */
    uint8_t bytes[]; /* keyspace, key, value. Metas are rows of the keyspace "". */
} row_t;

_Static_assert(sizeof(row_t) == ROW_HEAD, "no padding: rows are written as they are");

/* A storage begins with the public part: that is the pointer that everybody has. */
typedef struct template
{
    cake_storage_t base;
    int fd;
    off_t log_len;
    row_t **rows; /* sorted by keyspace, then key */
    size_t count, capacity;
}
template_t;

static template_t *template_of(cake_storage_t *storage)
{
    return (template_t *)(void *)storage;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static cake_slice_t keyspace_of(const row_t *row)
{
    return (cake_slice_t){row->bytes, row->head.keyspace_len};
}

static cake_slice_t key_of(const row_t *row)
{
    return (cake_slice_t){row->bytes + row->head.keyspace_len, row->head.key_len};
}

static cake_slice_t value_of(const row_t *row)
{
    return (cake_slice_t){row->bytes + row->head.keyspace_len + row->head.key_len, row->head.value_len};
}

static size_t size_of(const row_t *row)
{
    return sizeof *row + row->head.keyspace_len + row->head.key_len + row->head.value_len;
}

static int compare(cake_slice_t a, cake_slice_t b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len == 0 ? 0 : memcmp(a.data, b.data, len);
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

static bool has_prefix(cake_slice_t text, cake_slice_t prefix)
{
    return text.len >= prefix.len && (prefix.len == 0 || memcmp(text.data, prefix.data, prefix.len) == 0);
}

/* The first row that is not below (keyspace, key). */
static size_t lower_bound(const template_t *t, cake_slice_t keyspace, cake_slice_t key)
{
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = compare(keyspace_of(t->rows[middle]), keyspace);
        if (order == 0)
            order = compare(key_of(t->rows[middle]), key);
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static row_t *row_at(const template_t *t, size_t at, cake_slice_t keyspace)
{
    bool is_there = at < t->count && compare(keyspace_of(t->rows[at]), keyspace) == 0;
    return is_there ? t->rows[at] : NULL;
}

static row_t *find(const template_t *t, cake_slice_t keyspace, cake_slice_t key)
{
    row_t *row = row_at(t, lower_bound(t, keyspace, key), keyspace);
    return row != NULL && compare(key_of(row), key) == 0 ? row : NULL;
}

/* Most ids hold their key; for the others a real storage keeps an index. */
static row_t *find_by_id(const template_t *t, cake_slice_t keyspace, const cake_id_t *id)
{
    row_t *row;
    char room[CAKE_ID_KEY_MAX];
    if (cake_id_holds_key(id))
        return find(t, keyspace, cake_id_key(id, room));
    for (size_t at = lower_bound(t, keyspace, (cake_slice_t){NULL, 0}); (row = row_at(t, at, keyspace)) != NULL; at++) {
        if (memcmp(row->head.id, id->bytes, sizeof id->bytes) == 0)
            return row;
    }
    return NULL;
}

/* Puts the row in its place and frees what was there. There is room: nothing here can fail. */
static void apply(template_t *t, row_t *row)
{
    bool is_gone = row->head.kind == KIND_GONE;
    cake_id_t id;
    memcpy(id.bytes, row->head.id, sizeof id.bytes);
    cake_slice_t keyspace = keyspace_of(row), key = key_of(row);
    row_t *old = is_gone && keyspace.len > 0 ? find_by_id(t, keyspace, &id) : find(t, keyspace, key);
    size_t at = lower_bound(t, keyspace, old != NULL ? key_of(old) : key);
    if (old != NULL && is_gone) {
        memmove(&t->rows[at], &t->rows[at + 1], (--t->count - at) * sizeof *t->rows);
    } else if (old != NULL) {
        t->rows[at] = row;
    } else if (!is_gone) {
        memmove(&t->rows[at + 1], &t->rows[at], (t->count++ - at) * sizeof *t->rows);
        t->rows[at] = row;
    }
    free(old);
    if (is_gone)
        free(row);
}

/* ---- the log ----------------------------------------------------------------------------------------------------- */

static uint64_t checksum(const uint8_t *bytes, size_t len)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a; a real storage takes a better one */
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* On any failure the log is as it was. */
static int append(template_t *t, uint8_t *record, size_t len)
{
    uint32_t body = (uint32_t)(len - RECORD_HEAD);
    uint64_t sum = checksum(record + RECORD_HEAD, body);
    memcpy(record, &body, 4);
    memcpy(record + 4, &sum, 8);
    size_t done = 0;
    while (done < len) {
        ssize_t wrote = pwrite(t->fd, record + done, len - done, t->log_len + (off_t)done);
        if (wrote < 0 && errno != EINTR)
            break;
        done += wrote < 0 ? 0 : (size_t)wrote;
    }
    if (done == len && fdatasync(t->fd) == 0) {
        t->log_len += (off_t)len;
        return 0;
    }
    int err = errno == ENOSPC ? CAKE_ENOSPC : CAKE_EIO;
    return ftruncate(t->fd, t->log_len) == 0 ? err : CAKE_EIO;
}

static int reserve(template_t *t, size_t more)
{
    if (t->count + more <= t->capacity)
        return 0;
    size_t capacity = (t->count + more) * 2;
    row_t **rows = realloc(t->rows, capacity * sizeof *rows);
    if (rows == NULL)
        return CAKE_ENOMEM;
    t->rows = rows;
    t->capacity = capacity;
    return 0;
}

/* The row that the len bytes begin with. */
static int copy_row(const uint8_t *from, size_t len, row_t **out)
{
    row_t head;
    if (len < sizeof head)
        return CAKE_ECORRUPT;
    memcpy(&head, from, sizeof head);
    if (len < size_of(&head))
        return CAKE_ECORRUPT;
    *out = malloc(size_of(&head));
    if (*out == NULL)
        return CAKE_ENOMEM;
    memcpy(*out, from, size_of(&head));
    return 0;
}

static int replay_record(template_t *t, const uint8_t *body, size_t len)
{
    int err = 0;
    for (size_t at = 0; at < len && err == 0;) {
        row_t *row;
        err = reserve(t, 1);
        if (err == 0)
            err = copy_row(body + at, len - at, &row);
        if (err == 0) {
            at += size_of(row);
            apply(t, row);
        }
    }
    return err;
}

/* A record whose checksum is wrong is the one that was being written when the process ended: it goes. */
static int replay(template_t *t)
{
    struct stat info;
    if (fstat(t->fd, &info) != 0)
        return CAKE_EIO;
    uint8_t *log = malloc((size_t)info.st_size + 1);
    if (log == NULL)
        return CAKE_ENOMEM;
    int err = pread(t->fd, log, (size_t)info.st_size, 0) == info.st_size ? 0 : CAKE_EIO;
    while (err == 0 && t->log_len + RECORD_HEAD <= info.st_size) {
        uint32_t len;
        uint64_t sum;
        memcpy(&len, log + t->log_len, 4);
        memcpy(&sum, log + t->log_len + 4, 8);
        const uint8_t *body = log + t->log_len + RECORD_HEAD;
        if ((off_t)len > info.st_size - t->log_len - RECORD_HEAD || checksum(body, len) != sum)
            break;
        err = replay_record(t, body, len);
        t->log_len += RECORD_HEAD + (off_t)len;
    }
    free(log);
    return err == 0 && ftruncate(t->fd, t->log_len) != 0 ? CAKE_EIO : err;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static row_t make_head(const cake_write_t *write)
{
    bool is_put = write->kind == CAKE_WRITE_PUT;
    row_t row = {.head = {.kind = write->kind == CAKE_WRITE_ERASE ? KIND_GONE : (uint8_t)write->kind,
                          .keyspace_len = (uint8_t)write->keyspace.len,
                          .key_len = (uint16_t)write->key.len,
                          .value_len = is_put ? (uint32_t)write->value.len : 0,
                          .hlc = write->hlc,
                          .actor = write->dot.actor,
                          .seq = write->dot.seq}};
    memcpy(row.head.id, write->id.bytes, sizeof row.head.id);
    return row;
}

/* A meta is a row of the keyspace "". */
static cake_write_t write_of_meta(const cake_meta_write_t *meta)
{
    return (cake_write_t){.kind = meta->value.data == NULL ? CAKE_WRITE_ERASE : CAKE_WRITE_PUT,
                          .keyspace = {"", 0},
                          .key = meta->name,
                          .value = meta->value};
}

static cake_write_t nth_write(const cake_batch_t *batch, size_t i)
{
    return i < batch->write_count ? batch->writes[i] : write_of_meta(&batch->metas[i - batch->write_count]);
}

static uint8_t *put_bytes(uint8_t *to, cake_slice_t bytes, size_t len)
{
    if (len > 0)
        memcpy(to, bytes.data, len);
    return to + len;
}

static uint8_t *encode(const cake_batch_t *batch, size_t count, size_t *len)
{
    *len = RECORD_HEAD;
    for (size_t i = 0; i < count; i++) {
        cake_write_t write = nth_write(batch, i);
        row_t head = make_head(&write);
        *len += size_of(&head);
    }
    uint8_t *record = malloc(*len), *to = record + RECORD_HEAD;
    for (size_t i = 0; i < count && record != NULL; i++) {
        cake_write_t write = nth_write(batch, i);
        row_t head = make_head(&write);
        memcpy(to, &head, sizeof head);
        to = put_bytes(to + sizeof head, write.keyspace, head.head.keyspace_len);
        to = put_bytes(to, write.key, head.head.key_len);
        to = put_bytes(to, write.value, head.head.value_len);
    }
    return record;
}

static int check_batch(const cake_batch_t *batch)
{
    for (size_t i = 0; i < batch->write_count; i++) {
        const cake_write_t *write = &batch->writes[i];
        if (write->keyspace.len == 0 || write->keyspace.len > CAKE_KEYSPACE_NAME_MAX)
            return CAKE_EINVAL;
        if (write->key.len > CAKE_KEY_MAX || write->value.len > UINT32_MAX / 2)
            return CAKE_ETOOBIG;
    }
    return batch->lane == 0 ? 0 : CAKE_EINVAL;
}

static int template_write(cake_storage_t *storage, const cake_batch_t *batch)
{
    template_t *t = template_of(storage);
    size_t count = batch->write_count + batch->meta_count, len, made = 0;
    int err = check_batch(batch);
    if (err != 0 || count == 0)
        return err;
    uint8_t *record = encode(batch, count, &len);
    row_t **rows = calloc(count, sizeof *rows);
    err = record == NULL || rows == NULL ? CAKE_ENOMEM : reserve(t, count);
    for (size_t at = RECORD_HEAD; at < len && err == 0; made++) {
        err = copy_row(record + at, len - at, &rows[made]);
        at += err == 0 ? size_of(rows[made]) : 0;
    }
    if (err == 0)
        err = append(t, record, len);
    for (size_t i = 0; i < made; i++) {
        if (err == 0)
            apply(t, rows[i]);
        else
            free(rows[i]);
    }
    free(rows);
    free(record);
    return err;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static cake_row_t public_row(const row_t *row, bool with_value)
{
    cake_row_t out = {.key = key_of(row),
                      .value = with_value ? value_of(row) : (cake_slice_t){NULL, 0},
                      .hlc = row->head.hlc,
                      .dot = {row->head.actor, row->head.seq},
                      .is_tombstone = row->head.kind == CAKE_WRITE_TOMBSTONE};
    memcpy(out.id.bytes, row->head.id, sizeof out.id.bytes);
    return out;
}

static int template_get(cake_storage_t *storage, cake_slice_t keyspace, cake_slice_t key, cake_doc_t **doc)
{
    const row_t *row = find(template_of(storage), keyspace, key);
    *doc = NULL;
    if (row == NULL || row->head.kind == CAKE_WRITE_TOMBSTONE)
        return CAKE_ENOTFOUND;
    *doc = cake_doc_new(NULL, key, value_of(row), row->head.hlc, (cake_dot_t){row->head.actor, row->head.seq});
    return *doc == NULL ? CAKE_ENOMEM : 0;
}

static int template_fetch(cake_storage_t *storage, cake_slice_t keyspace, const cake_id_t *ids, size_t count,
                          cake_row_fn fn, void *arg)
{
    int err = 0;
    for (size_t i = 0; i < count && err == 0; i++) {
        const row_t *row = find_by_id(template_of(storage), keyspace, &ids[i]);
        if (row == NULL)
            continue;
        cake_row_t out = public_row(row, true);
        err = fn(arg, &out);
    }
    return err;
}

static int template_scan(cake_storage_t *storage, cake_slice_t keyspace, const cake_scan_t *range, cake_row_fn fn,
                         void *arg)
{
    const template_t *t = template_of(storage);
    bool from_after = compare(range->after, range->prefix) > 0;
    size_t count = 0, at = lower_bound(t, keyspace, from_after ? range->after : range->prefix);
    int err = 0;
    for (const row_t *row; err == 0 && (row = row_at(t, at, keyspace)) != NULL; at++) {
        cake_slice_t key = key_of(row);
        if (!has_prefix(key, range->prefix) || (range->limit != 0 && count == range->limit))
            break;
        bool is_after = range->after.len == 0 || compare(key, range->after) > 0;
        if (!is_after || row->head.kind == CAKE_WRITE_TOMBSTONE)
            continue;
        cake_row_t out = public_row(row, !range->keys_only);
        err = fn(arg, &out);
        count++;
    }
    return err;
}

static int template_metadata(cake_storage_t *storage, cake_slice_t keyspace, cake_row_fn fn, void *arg)
{
    const template_t *t = template_of(storage);
    const row_t *row;
    int err = 0;
    for (size_t at = lower_bound(t, keyspace, (cake_slice_t){NULL, 0});
         err == 0 && (row = row_at(t, at, keyspace)) != NULL; at++) {
        cake_row_t out = public_row(row, false);
        err = fn(arg, &out);
    }
    return err;
}

/* Those that have a row. (One that had rows once may be left out; a storage with a table of keyspaces keeps it.) */
static int template_keyspaces(cake_storage_t *storage, cake_name_fn fn, void *arg)
{
    const template_t *t = template_of(storage);
    int err = 0;
    for (size_t at = 0; at < t->count && err == 0; at++) {
        char name[CAKE_KEYSPACE_NAME_MAX + 1];
        cake_slice_t keyspace = keyspace_of(t->rows[at]);
        bool is_first = at == 0 || compare(keyspace_of(t->rows[at - 1]), keyspace) != 0;
        if (!is_first || keyspace.len == 0)
            continue;
        memcpy(name, keyspace.data, keyspace.len);
        name[keyspace.len] = '\0';
        err = fn(arg, name);
    }
    return err;
}

static int template_metas(cake_storage_t *storage, unsigned lane, cake_slice_t prefix, cake_meta_fn fn, void *arg)
{
    const template_t *t = template_of(storage);
    const row_t *row;
    int err = lane == 0 ? 0 : CAKE_EINVAL;
    for (size_t at = lower_bound(t, (cake_slice_t){"", 0}, prefix);
         err == 0 && (row = row_at(t, at, (cake_slice_t){"", 0})) != NULL && has_prefix(key_of(row), prefix); at++)
        err = fn(arg, key_of(row), value_of(row));
    return err;
}

static unsigned template_lanes(cake_storage_t *storage)
{
    (void)storage;
    return 1;
}

static unsigned template_lane_of(cake_storage_t *storage, cake_slice_t keyspace)
{
    (void)storage;
    (void)keyspace;
    return 0;
}

static void template_close(cake_storage_t *storage)
{
    template_t *t = template_of(storage);
    for (size_t i = 0; i < t->count; i++)
        free(t->rows[i]);
    free(t->rows);
    close(t->fd);
    free(t);
}

/* No flags: reads come on the lane's thread, like the writes, so nothing here needs a lock. */
static const cake_storage_ops_t template_ops = {
    .version = CAKE_STORAGE_VERSION,
    .lanes = template_lanes,
    .lane_of = template_lane_of,
    .write = template_write,
    .get = template_get,
    .fetch = template_fetch,
    .scan = template_scan,
    .metadata = template_metadata,
    .keyspaces = template_keyspaces,
    .metas = template_metas,
    .close = template_close,
};

static int template_open(const char *path, cake_storage_t **storage)
{
    template_t *t = calloc(1, sizeof *t);
    *storage = NULL;
    if (t == NULL)
        return CAKE_ENOMEM;
    t->base.ops = &template_ops;
    t->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    int err = t->fd < 0 ? CAKE_EIO : replay(t);
    if (err != 0)
        template_close(&t->base);
    else
        *storage = &t->base;
    return err;
}

/* ---- the suite --------------------------------------------------------------------------------------------------- */

static int open_for_suite(void *arg, bool fresh, cake_storage_t **storage)
{
    if (fresh)
        (void)unlink(arg);
    return template_open(arg, storage);
}

int main(void)
{
    char path[] = "/tmp/datacake-template-XXXXXX";
    cake_storage_suite_options_t options = CAKE_STORAGE_SUITE_OPTIONS_INIT;
    options.rows = 10000;
    int fd = mkstemp(path);
    if (fd < 0)
        return 1;
    close(fd);
    int err = cake_storage_suite_run_with(&options, open_for_suite, path, stdout);
    (void)unlink(path);
    return err == 0 ? 0 : 1;
}
