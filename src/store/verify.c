/* Verifying: this node's storage is held against its set. Both go on being written to, so that what looks wrong in a
 * first pass over all rows is looked at again, one by one, in the lane, where nothing is between them. */
#include "store/verify.h"

#define SUSPECTS_MAX    65536u /* of one keyspace; more are found by the next call */
#define SENT_TIMEOUT_MS 5000u
#define ROWS_AT_ONCE    1024u /* held against the set in one turn of the loop */

const char *cake_damage_name(cake_damage_kind_t kind)
{
    static const char *const names[] = {"missing", "strange", "wrong", "different", "storage"};
    return (size_t)kind < CAKE_COUNT_OF(names) ? names[kind] : NULL;
}

void cake__verify_tell(cake__verifying_t *verifying, cake_damage_kind_t kind, uint16_t node_id, const cake_id_t *id,
                       cake_slice_t key, bool is_healed)
{
    cake_verify_report_t *report = verifying->report;
    uint64_t *const counts[] = {&report->missing, &report->strange, &report->wrong, &report->different};
    char room[CAKE_ID_KEY_MAX];
    if (key.len == 0)
        key = cake_id_key(id, room);
    *counts[kind] += 1;
    report->healed += is_healed;
    cake__log(verifying->store->log, CAKE_LOG_WARN, "verify: a document of %s is %s%s", verifying->keyspace->name,
              cake_damage_name(kind), is_healed ? ", and mended" : "");
    const cake_damage_t damage = {kind, verifying->keyspace->name, key, *id, node_id, is_healed, NULL};
    if (verifying->options.found != NULL)
        verifying->options.found(verifying->options.arg, &damage);
}

/* ---- in the lane ----------------------------------------------------------------------------------------------------
 * run on the lane's thread between two batches, then done on the loop: batches and this end there in the order in
 * which they ran, so that the set in done is as the storage was in run. */

typedef struct {
    cake__keyspace_t *keyspace;
    void (*run)(void *arg);
    void (*done)(void *arg);
    void *arg;
    cake_work_t work;
    cake_gate_t gate;
} visit_t;

static void run_visit(void *arg)
{
    visit_t *visit = arg;
    visit->run(visit->arg);
}

static void end_visit(void *arg)
{
    visit_t *visit = arg;
    cake_env_t *env = visit->keyspace->store->env;
    visit->done(visit->arg);
    env->ops->gate_open(env, &visit->gate);
}

static int begin_visit(void *arg)
{
    visit_t *visit = arg;
    cake_store_t *store = visit->keyspace->store;
    if (cake__store_is_stopping(store))
        return CAKE_ECLOSED;
    visit->work = (cake_work_t){.run = run_visit, .done = end_visit, .arg = visit};
    if (!store->is_inline) {
        store->env->ops->lane_submit(visit->keyspace->lane->worker, &visit->work);
        return 0;
    }
    run_visit(visit);
    end_visit(visit);
    return 0;
}

static int in_lane(cake__keyspace_t *keyspace, void (*run)(void *arg), void (*done)(void *arg), void *arg)
{
    cake_env_t *env = keyspace->store->env;
    visit_t visit = {.keyspace = keyspace, .run = run, .done = done, .arg = arg};
    env->ops->gate_init(env, &visit.gate);
    int err = cake__run_on_loop(env, begin_visit, &visit);
    if (err == 0)
        env->ops->gate_wait(env, &visit.gate);
    env->ops->gate_destroy(env, &visit.gate);
    return err;
}

/* ---- all rows of the storage --------------------------------------------------------------------------------------*/

typedef struct {
    const cake_alloc_t *alloc;
    cake__keyspace_t *keyspace;
    cake_record_t *rows; /* by id */
    size_t count, capacity;
    size_t at; /* of the pass over them */
    cake_id_t *suspects;
    size_t suspect_count, suspect_capacity;
    cake__sender_t *walk; /* through the set */
    cake_record_t *records;
    size_t record_count;
    int err;
} sweep_t;

static int on_row(void *arg, const cake_row_t *row)
{
    sweep_t *sweep = arg;
    cake_record_t *rows = cake__grow(sweep->alloc, sweep->rows, sweep->count, &sweep->capacity, sizeof *rows);
    if (rows == NULL)
        return sweep->err = CAKE_ENOMEM;
    sweep->rows = rows;
    sweep->rows[sweep->count++] = (cake_record_t){row->id, row->hlc, row->dot, row->is_tombstone};
    return 0;
}

static void read_rows(void *arg)
{
    sweep_t *sweep = arg;
    cake_storage_t *storage = sweep->keyspace->store->storage;
    int err = storage->ops->metadata(storage, cake__slice_str(sweep->keyspace->name), on_row, sweep);
    sweep->err = sweep->err != 0 ? sweep->err : err;
}

static void nothing_more(void *arg)
{
    (void)arg;
}

static int by_id(const void *a, const void *b)
{
    return memcmp(&((const cake_record_t *)a)->id, &((const cake_record_t *)b)->id, sizeof(cake_id_t));
}

static bool is_same(const cake_record_t *a, const cake_record_t *b)
{
    return a->hlc == b->hlc && a->dot.actor == b->dot.actor && a->dot.seq == b->dot.seq &&
           a->is_tombstone == b->is_tombstone;
}

static int suspect(sweep_t *sweep, const cake_id_t *id)
{
    if (sweep->suspect_count == SUSPECTS_MAX)
        return 0;
    cake_id_t *suspects =
        cake__grow(sweep->alloc, sweep->suspects, sweep->suspect_count, &sweep->suspect_capacity, sizeof *suspects);
    if (suspects == NULL)
        return CAKE_ENOMEM;
    sweep->suspects = suspects;
    sweep->suspects[sweep->suspect_count++] = *id;
    return 0;
}

/* Rows of which the set knows nothing, or something else. */
static int hold_rows_against_set(void *arg)
{
    sweep_t *sweep = arg;
    int err = 0;
    for (size_t i = 0; i < ROWS_AT_ONCE && sweep->at < sweep->count && err == 0; i++) {
        const cake_record_t *row = &sweep->rows[sweep->at++];
        cake_record_t record;
        if (!cake_orswot_get(sweep->keyspace->set, &row->id, &record) || !is_same(row, &record))
            err = suspect(sweep, &row->id);
    }
    return err;
}

static bool has_row(const sweep_t *sweep, const cake_id_t *id)
{
    size_t low = 0, high = sweep->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = memcmp(&sweep->rows[middle].id, id, sizeof *id);
        if (order == 0)
            return true;
        low = order < 0 ? middle + 1 : low;
        high = order < 0 ? high : middle;
    }
    return false;
}

/* All records, live and dead, are what a replica lacks that has nothing. */
static int begin_walk(void *arg)
{
    sweep_t *sweep = arg;
    cake_store_t *store = sweep->keyspace->store;
    cake__hello_t nothing = {.node_id = cake_node_id(store->node)};
    cake__summary_init(&nothing.summary, store->alloc);
    int err = cake__sender_new(sweep->keyspace->set, cake_node_id(store->node), &nothing, 0, &sweep->walk);
    cake__summary_free(&nothing.summary);
    return err;
}

/* 1: there is more; 0: these were the last. */
static int step_walk(void *arg)
{
    sweep_t *sweep = arg;
    cake__fin_t fin;
    uint32_t index;
    bool has_fin;
    int err =
        cake__sender_next(sweep->walk, ROWS_AT_ONCE, sweep->records, &sweep->record_count, &index, &has_fin, &fin);
    if (err == 0 && has_fin)
        cake__fin_free(&fin);
    return err != 0 ? err : !has_fin;
}

static int end_walk(void *arg)
{
    sweep_t *sweep = arg;
    cake__sender_free(sweep->walk);
    return 0;
}

/* Documents and tombstones of which the storage has no row. */
static int hold_set_against_rows(sweep_t *sweep, cake_verify_report_t *report)
{
    cake_env_t *env = sweep->keyspace->store->env;
    int err = cake__run_on_loop(env, begin_walk, sweep);
    for (int more = 1; err == 0 && more > 0;) {
        more = cake__run_on_loop(env, step_walk, sweep);
        err = more < 0 ? more : 0;
        for (size_t i = 0; err == 0 && i < sweep->record_count; i++) {
            if (!has_row(sweep, &sweep->records[i].id))
                err = suspect(sweep, &sweep->records[i].id);
            report->documents += !sweep->records[i].is_tombstone;
        }
    }
    (void)cake__run_on_loop(env, end_walk, sweep);
    return err;
}

static int find_suspects(sweep_t *sweep, cake_verify_report_t *report)
{
    cake_store_t *store = sweep->keyspace->store;
    int err = 0;
    if (store->reads_anywhere && !store->is_inline)
        read_rows(sweep);
    else
        err = in_lane(sweep->keyspace, read_rows, nothing_more, sweep);
    err = err != 0 ? err : sweep->err;
    if (err == 0 && sweep->count > 1)
        cake__sort(sweep->rows, sweep->count, sizeof *sweep->rows, by_id);
    while (err == 0 && sweep->at < sweep->count)
        err = cake__run_on_loop(store->env, hold_rows_against_set, sweep);
    return err != 0 ? err : hold_set_against_rows(sweep, report);
}

/* ---- one document -------------------------------------------------------------------------------------------------*/

typedef struct {
    cake__keyspace_t *keyspace;
    cake_id_t id;
    cake_record_t row, record;
    bool has_row, has_record;
    uint8_t key[CAKE_KEY_MAX];
    size_t key_len;
    int err;
} look_t;

static int on_looked(void *arg, const cake_row_t *row)
{
    look_t *look = arg;
    look->has_row = true;
    look->row = (cake_record_t){row->id, row->hlc, row->dot, row->is_tombstone};
    look->key_len = row->key.len <= sizeof look->key ? row->key.len : 0;
    if (look->key_len > 0)
        memcpy(look->key, row->key.data, look->key_len);
    return 0;
}

static void look_at_row(void *arg)
{
    look_t *look = arg;
    cake_storage_t *storage = look->keyspace->store->storage;
    look->err = storage->ops->fetch(storage, cake__slice_str(look->keyspace->name), &look->id, 1, on_looked, look);
}

static void look_at_record(void *arg)
{
    look_t *look = arg;
    look->has_record = cake_orswot_get(look->keyspace->set, &look->id, &look->record);
}

/* Writes or erases one row, unless the set has moved on. */
typedef struct {
    cake__task_t task;
    cake_write_t write;
    const look_t *look;
    cake_gate_t gate;
    int err;
} mend_t;

static int stage_mend(cake__task_t *task, cake__change_t *change)
{
    mend_t *mend = CAKE_CONTAINER_OF(task, mend_t, task);
    cake_record_t record;
    bool has_record = cake__change_find(change, &mend->look->id, &record, NULL);
    bool is_as_seen = has_record == mend->look->has_record && (!has_record || is_same(&record, &mend->look->record));
    task->mended = is_as_seen ? &mend->write : NULL;
    return 0;
}

static void finish_mend(cake__task_t *task, int err)
{
    mend_t *mend = CAKE_CONTAINER_OF(task, mend_t, task);
    cake_env_t *env = task->keyspace->store->env;
    mend->err = err;
    env->ops->gate_open(env, &mend->gate);
}

static int begin_mend(void *arg)
{
    mend_t *mend = arg;
    cake__keyspace_t *keyspace = mend->task.keyspace;
    if (cake__store_is_stopping(keyspace->store))
        return CAKE_ECLOSED;
    cake__lane_submit(keyspace->lane, &mend->task);
    return 0;
}

static int mend_row(const look_t *look, cake_slice_t key, cake_slice_t value)
{
    cake_env_t *env = look->keyspace->store->env;
    cake_write_kind_t kind = !look->has_record           ? CAKE_WRITE_ERASE
                             : look->record.is_tombstone ? CAKE_WRITE_TOMBSTONE
                                                         : CAKE_WRITE_PUT;
    mend_t mend = {.look = look};
    mend.write = (cake_write_t){.kind = kind,
                                .keyspace = cake__slice_str(look->keyspace->name),
                                .key = key,
                                .value = value,
                                .id = look->id,
                                .hlc = look->has_record ? look->record.hlc : 0,
                                .dot = look->has_record ? look->record.dot : (cake_dot_t){0}};
    mend.task = (cake__task_t){.keyspace = look->keyspace, .stage = stage_mend, .finish = finish_mend};
    env->ops->gate_init(env, &mend.gate);
    int err = cake__run_on_loop(env, begin_mend, &mend);
    if (err == 0) {
        env->ops->gate_wait(env, &mend.gate);
        err = mend.err;
    }
    env->ops->gate_destroy(env, &mend.gate);
    return err;
}

int cake__verify_fetch(cake__verifying_t *verifying, const cake_record_t *record, cake__comparison_t *answer,
                       cake__compared_row_t *out)
{
    cake__buf_t request;
    int found = CAKE_ENOTFOUND;
    cake__buf_init(&request, verifying->store->alloc);
    cake__compare_put_head(&request, verifying->keyspace->name, CAKE__COMPARE_ROW, 0);
    cake__put_bytes(&request, record->id.bytes, sizeof record->id.bytes);
    for (size_t i = 0; found != 0 && i < verifying->peer_count; i++) {
        if (cake__compare_ask(verifying->store, verifying->peers[i], &request, answer) != 0)
            continue;
        if (cake__compare_get_row(answer, out) && is_same(&out->record, record))
            found = 0;
        else
            cake__compare_end(answer);
    }
    cake__buf_free(&request);
    return found;
}

typedef struct {
    cake__verifying_t *verifying;
    cake_id_t id;
    cake__compared_row_t *out;
    bool is_found;
    int err;
} own_t;

static int on_own(void *arg, const cake_row_t *row)
{
    own_t *own = arg;
    cake__buf_t *buf = &own->verifying->own;
    own->is_found = true;
    own->out->record = (cake_record_t){row->id, row->hlc, row->dot, row->is_tombstone};
    cake__put_bytes(buf, row->key.data, row->key.len);
    cake__put_bytes(buf, row->value.data, row->value.len);
    own->out->value = (cake__value_t){.key = {.len = row->key.len}, .value = {.len = row->value.len}};
    return buf->err;
}

static void read_own(void *arg)
{
    own_t *own = arg;
    cake_storage_t *storage = own->verifying->store->storage;
    own->err = storage->ops->fetch(storage, cake__slice_str(own->verifying->keyspace->name), &own->id, 1, on_own, own);
}

int cake__verify_read(cake__verifying_t *verifying, const cake_record_t *record, cake__compared_row_t *out)
{
    own_t own = {.verifying = verifying, .id = record->id, .out = out};
    cake__buf_clear(&verifying->own);
    int err = in_lane(verifying->keyspace, read_own, nothing_more, &own);
    if (err != 0 || own.err != 0)
        return err != 0 ? err : own.err;
    if (!own.is_found || !is_same(&out->record, record))
        return CAKE_ENOTFOUND;
    out->value.key.data = verifying->own.data;
    out->value.value.data = verifying->own.data + out->value.key.len;
    return 0;
}

static bool heal(cake__verifying_t *verifying, const look_t *look)
{
    cake__comparison_t answer;
    cake__compared_row_t row;
    cake_slice_t none = cake__slice(NULL, 0);
    if (verifying->options.only_report)
        return false;
    if (!look->has_record)
        return mend_row(look, none, none) == 0;
    if (cake__verify_fetch(verifying, &look->record, &answer, &row) == 0) {
        int err = mend_row(look, row.value.key, row.value.value);
        cake__compare_end(&answer);
        return err == 0;
    }
    char room[CAKE_ID_KEY_MAX];
    cake_slice_t key = cake_id_key(&look->id, room);
    return look->record.is_tombstone && key.len > 0 && mend_row(look, key, none) == 0;
}

static int look_at_suspect(cake__verifying_t *verifying, const cake_id_t *id)
{
    look_t look = {.keyspace = verifying->keyspace, .id = *id};
    int err = in_lane(verifying->keyspace, look_at_row, look_at_record, &look);
    err = err != 0 ? err : look.err;
    if (err != 0 || (!look.has_row && !look.has_record) ||
        (look.has_row && look.has_record && is_same(&look.row, &look.record)))
        return err;
    cake_damage_kind_t kind = !look.has_row      ? CAKE_DAMAGE_MISSING
                              : !look.has_record ? CAKE_DAMAGE_STRANGE
                                                 : CAKE_DAMAGE_WRONG;
    cake__verify_tell(verifying, kind, 0, id, cake__slice(look.key, look.key_len), heal(verifying, &look));
    return 0;
}

static int verify_storage(cake__verifying_t *verifying)
{
    sweep_t sweep = {.alloc = verifying->store->alloc, .keyspace = verifying->keyspace};
    sweep.records = cake__malloc(sweep.alloc, ROWS_AT_ONCE * sizeof *sweep.records);
    int err = sweep.records == NULL ? CAKE_ENOMEM : find_suspects(&sweep, verifying->report);
    cake__free(sweep.alloc, sweep.records);
    cake__free(sweep.alloc, sweep.rows);
    for (size_t i = 0; err == 0 && i < sweep.suspect_count; i++)
        err = look_at_suspect(verifying, &sweep.suspects[i]);
    cake__free(sweep.alloc, sweep.suspects);
    return err;
}

/* ---- the files of the storage -------------------------------------------------------------------------------------*/

/* On the caller's thread, since it reads everything: a storage that lets nobody read beside its lanes is not asked. */
static int check_files(const cake__verifying_t *verifying)
{
    cake_store_t *store = verifying->store;
    cake_storage_t *storage = store->storage;
    char why[256] = "";
    if (storage->ops->check == NULL || !store->reads_anywhere || store->is_inline)
        return 0;
    int err = storage->ops->check(storage, why, sizeof why);
    if (err != CAKE_ECORRUPT)
        return err;
    verifying->report->damaged = 1;
    cake__log(store->log, CAKE_LOG_ERROR, "verify: the storage is damaged: %s", why);
    const cake_damage_t damage = {.kind = CAKE_DAMAGE_STORAGE, .keyspace = "", .why = why};
    if (verifying->options.found != NULL)
        verifying->options.found(verifying->options.arg, &damage);
    return 0;
}

/* ---- the call -----------------------------------------------------------------------------------------------------*/

typedef struct {
    cake__verifying_t *verifying;
    cake__keyspace_t **keyspaces;
    size_t count;
} beginning_t;

static int begin(void *arg)
{
    beginning_t *beginning = arg;
    cake__verifying_t *verifying = beginning->verifying;
    cake_store_t *store = verifying->store;
    cake__keyspace_t *keyspace;
    if (store->state != CAKE__STORE_RUNNING)
        return CAKE_ECLOSED;
    beginning->keyspaces = cake__malloc(store->alloc, store->keyspaces.count * sizeof(cake__keyspace_t *));
    if (beginning->keyspaces == NULL)
        return CAKE_ENOMEM;
    for (size_t cursor = 0; (keyspace = cake__map_next(&store->keyspaces, &cursor)) != NULL;)
        beginning->keyspaces[beginning->count++] = keyspace;
    CAKE_LIST_FOR_EACH(link, &store->peers)
    {
        const cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        bool is_asked = peer->is_replica && peer->has_store && cake__peer_is_there(peer);
        if (is_asked && verifying->peer_count < CAKE__VERIFY_PEERS_MAX)
            verifying->peers[verifying->peer_count++] = peer->node_id;
    }
    store->reads_running++;
    return 0;
}

static int end(void *arg)
{
    cake_store_t *store = arg;
    store->reads_running--;
    cake__store_check_stopped(store);
    return 0;
}

int cake_store_verify(cake_store_t *store, const cake_verify_options_t *options, cake_verify_report_t *report)
{
    cake__verifying_t verifying = {.store = store, .report = report};
    beginning_t beginning = {.verifying = &verifying};
    cake__buf_init(&verifying.own, store->alloc);
    if (report == NULL ||
        (options != NULL && cake__options_copy(&verifying.options, sizeof verifying.options, options) != 0))
        return CAKE_EINVAL;
    *report = (cake_verify_report_t){0};
    int err = cake_store_sync(store);
    if (err == 0)
        err = cake__run_on_loop(store->env, begin, &beginning);
    if (err != 0)
        return err;
    report->replicas = verifying.peer_count;
    err = check_files(&verifying);
    for (size_t i = 0; err == 0 && i < beginning.count; i++) {
        verifying.keyspace = beginning.keyspaces[i];
        report->keyspaces++;
        err = verify_storage(&verifying);
        if (err == 0)
            err = cake__verify_peers(&verifying);
    }
    if (err == 0 && report->healed > 0)
        err = cake__wait_sent(store, SENT_TIMEOUT_MS) == CAKE_ECLOSED ? CAKE_ECLOSED : 0; /* the others see it, too */
    cake__free(store->alloc, beginning.keyspaces);
    cake__buf_free(&verifying.own);
    (void)cake__run_on_loop(store->env, end, store);
    return err;
}
