/* Watches that go on where an earlier one was left, and wait for whoever reads them.
 *
 *      seen     the dots that were told, with all before them (C of some instant)
 *      round    what the set has beyond it at one instant, the target, in order of stamps; told up to `told`
 *
 *      behind   rounds: gather ─> fetch values ─> tell as far as the credit goes ─> seen += target ─> next round, or
 *      live     nothing is unseen: each commit is told as it happens, if the credit takes it whole; otherwise behind
 *               again
 *
 * Nothing is queued for a slow reader: it is told later what is there then, each document's last change. That leaves
 * one gap: a tombstone that is dropped before it was told. Purges wait for a watch that is behind, for a minute; and
 * where one came in between (g has grown), the reader is told to begin anew (is_reset), and then everything that is
 * there.
 *
 * A position is {seen, target, told}: dots mean the same on every replica, and so do positions. */
#include "store/store.h"

#define ROUND_RECORDS    65536u /* held at once; the rest of a round is gathered again */
#define FETCH_RECORDS    256u
#define FETCH_BYTES      (4u << 20)
#define HOLD_MS          60000u
#define POSITION_VERSION 1u
#define CREDIT_DEFAULT   1024u

typedef struct {
    size_t index; /* in the round */
    cake_dot_t dot;
    size_t key_at, key_len, value_at, value_len;
    cake_hlc_t hlc;
    bool is_tombstone;
} fetched_t;

/* Invariants: is_live: the set's context is seen, and `seen` is not kept; otherwise `seen` is. target and told
 * belong to a round that has begun: has_target. */
typedef struct from_watch {
    cake_watch_t base; /* first */
    cake__list_t link; /* in keyspace->watches */
    cake__keyspace_t *keyspace;
    cake_change_fn fn;
    void *arg;
    uint64_t credit, behind_since_ns;
    bool is_live, is_lost, is_fetching, is_telling, is_stopped;

    cake__context_t seen;
    bool has_target;
    cake__summary_t target;
    cake_record_t told; /* hlc 0: nothing of the round */
    cake_record_t *round;
    size_t round_count, round_at;
    bool is_gathered, is_round_cut; /* round is filled; there was more than fits */

    fetched_t rows[FETCH_RECORDS];
    size_t row_count, row_at, fetch_from, fetch_count; /* fetch_count 0: nothing is fetched */
    bool is_fetch_cut;
    cake_id_t ids[FETCH_RECORDS];
    cake__buf_t bytes;
    int result;
    cake_work_t work;
    cake_deferred_t pump;
    cake_timer_t timer; /* when a position that is ahead is given up */
} from_watch_t;

static void pump(void *arg);

static void pump_later(from_watch_t *watch)
{
    watch->keyspace->store->env->ops->defer(watch->keyspace->store->env, &watch->pump);
}

static void free_watch(from_watch_t *watch)
{
    cake_store_t *store = watch->keyspace->store;
    store->env->ops->defer_cancel(store->env, &watch->pump);
    store->env->ops->timer_cancel(store->env, &watch->timer);
    cake__list_remove(&watch->link);
    cake__context_free(&watch->seen);
    cake__summary_free(&watch->target);
    cake__buf_free(&watch->bytes);
    cake__free(store->alloc, watch->round);
    cake__free(store->alloc, watch);
}

/* ---- rounds -------------------------------------------------------------------------------------------------------*/

static int by_stamp(const void *a, const void *b)
{
    const cake_record_t *left = a, *right = b;
    if (left->hlc != right->hlc)
        return left->hlc < right->hlc ? -1 : 1;
    if (left->dot.actor != right->dot.actor)
        return left->dot.actor < right->dot.actor ? -1 : 1;
    return left->dot.seq < right->dot.seq ? -1 : left->dot.seq > right->dot.seq;
}

/* Drops since that instant: what they dropped may not have been told. */
static bool has_dropped_since(const cake__limits_t *now, const cake__limits_t *then)
{
    for (uint32_t i = 0; i < now->count; i++) {
        if (cake__limits_get(then, now->items[i].actor) < now->items[i].seq)
            return true;
    }
    return false;
}

static bool has_missed(const from_watch_t *watch)
{
    const cake__summary_t *summary = cake__orswot_summary(watch->keyspace->set);
    if (watch->is_lost)
        return true;
    if (watch->has_target)
        return has_dropped_since(&summary->dropped, &watch->target.dropped);
    if (cake__context_is_empty(&watch->seen))
        return false; /* nothing was told that could have gone */
    return !cake__dropped_is_covered(&summary->context, &summary->dropped, &watch->seen);
}

static void end_round(from_watch_t *watch)
{
    watch->has_target = false;
    watch->told = (cake_record_t){0};
    watch->round_count = watch->round_at = 0;
    watch->fetch_count = 0;
    watch->is_gathered = false;
}

static void tell(from_watch_t *watch, const cake_change_t *change)
{
    watch->is_telling = true;
    watch->fn(watch->arg, change);
    watch->is_telling = false;
}

static void reset(from_watch_t *watch)
{
    const cake_change_t change = {.keyspace = watch->keyspace->name, .is_reset = true};
    cake__context_free(&watch->seen);
    cake__context_init(&watch->seen, watch->keyspace->store->alloc);
    end_round(watch);
    watch->is_lost = false;
    tell(watch, &change);
}

/* Keeps the records with the lowest stamps. */
static void cut_round(from_watch_t *watch)
{
    cake__sort(watch->round, watch->round_count, sizeof *watch->round, by_stamp);
    if (watch->round_count > ROUND_RECORDS) {
        watch->round_count = ROUND_RECORDS;
        watch->is_round_cut = true;
    }
}

static int gather(from_watch_t *watch)
{
    cake_store_t *store = watch->keyspace->store;
    const cake_orswot_t *set = watch->keyspace->set;
    cake_orswot_cursor_t cursor = {{0}};
    int err = watch->has_target ? 0 : cake__summary_copy(&watch->target, cake__orswot_summary(set));
    if (err == 0 && watch->round == NULL)
        watch->round = cake__malloc(store->alloc, 2 * ROUND_RECORDS * sizeof *watch->round);
    if (err != 0 || watch->round == NULL)
        return CAKE_ENOMEM;
    watch->has_target = true;
    watch->round_count = watch->round_at = 0;
    watch->is_round_cut = false;
    for (;;) {
        size_t kept = watch->round_count, room = 2 * ROUND_RECORDS - kept;
        size_t count = cake__orswot_unseen(set, &watch->seen, &cursor, watch->round + kept, room);
        for (size_t i = kept; i < kept + count; i++) {
            const cake_record_t *record = &watch->round[i];
            bool is_in =
                by_stamp(record, &watch->told) > 0 && cake__context_contains(&watch->target.context, record->dot);
            if (is_in)
                watch->round[watch->round_count++] = *record;
        }
        if (count == 0)
            break;
        if (watch->round_count == 2 * ROUND_RECORDS)
            cut_round(watch);
    }
    cut_round(watch);
    watch->is_gathered = true;
    return 0;
}

/* ---- values -------------------------------------------------------------------------------------------------------*/

static int on_row(void *arg, const cake_row_t *row)
{
    from_watch_t *watch = arg;
    fetched_t *fetched = &watch->rows[watch->row_count];
    if (watch->row_count > 0 && watch->bytes.len > FETCH_BYTES) {
        watch->is_fetch_cut = true;
        return CAKE_EBUSY;
    }
    size_t index = watch->row_count == 0 ? 0 : watch->rows[watch->row_count - 1].index + 1 - watch->fetch_from;
    while (index < watch->fetch_count && memcmp(watch->ids[index].bytes, row->id.bytes, sizeof row->id.bytes) != 0)
        index++;
    if (index == watch->fetch_count)
        return CAKE_ECORRUPT; /* not in the order of ids */
    *fetched = (fetched_t){.index = watch->fetch_from + index, .dot = row->dot, .hlc = row->hlc};
    fetched->is_tombstone = row->is_tombstone;
    fetched->key_at = watch->bytes.len;
    fetched->key_len = row->key.len;
    fetched->value_at = watch->bytes.len + row->key.len;
    fetched->value_len = row->value.len;
    cake__put_bytes(&watch->bytes, row->key.data, row->key.len);
    cake__put_bytes(&watch->bytes, row->value.data, row->value.len);
    watch->row_count++;
    return watch->bytes.err;
}

static void run_fetch(void *arg)
{
    from_watch_t *watch = arg;
    cake_storage_t *storage = watch->keyspace->store->storage;
    watch->result = storage->ops->fetch(storage, cake__slice_str(watch->keyspace->name), watch->ids, watch->fetch_count,
                                        on_row, watch);
    if (watch->is_fetch_cut)
        watch->result = 0;
}

static void on_fetched(void *arg)
{
    from_watch_t *watch = arg;
    cake_store_t *store = watch->keyspace->store;
    watch->is_fetching = false;
    store->reads_running--;
    if (watch->is_stopped)
        free_watch(watch);
    else if (watch->result == 0)
        pump(watch);
    else
        watch->fetch_count = 0; /* tried again with the next change or grant */
    cake__store_check_stopped(store);
}

static void fetch(from_watch_t *watch)
{
    cake_store_t *store = watch->keyspace->store;
    watch->fetch_from = watch->round_at;
    watch->fetch_count = cake__min_u64(watch->round_count - watch->round_at, FETCH_RECORDS);
    watch->row_count = watch->row_at = 0;
    watch->is_fetch_cut = false;
    cake__buf_clear(&watch->bytes);
    for (size_t i = 0; i < watch->fetch_count; i++)
        watch->ids[i] = watch->round[watch->round_at + i].id;
    watch->is_fetching = true;
    store->reads_running++;
    watch->work = (cake_work_t){.run = run_fetch, .done = on_fetched, .arg = watch};
    if (store->is_inline) {
        run_fetch(watch);
        watch->is_fetching = false;
        store->reads_running--;
        if (watch->result == 0)
            pump_later(watch);
        else
            watch->fetch_count = 0;
        return;
    }
    cake_lane_t *lane = store->reads_anywhere ? store->reader : watch->keyspace->lane->worker;
    store->env->ops->lane_submit(lane, &watch->work);
}

/* A row that is newer than its record is of a later round, or of the commit that is under way; one that has gone was
 * dropped, which g tells at the end of the round, or killed by a repair, which cake__watches_lost tells. */
static void tell_rows(from_watch_t *watch)
{
    while (watch->row_at < watch->row_count && watch->credit > 0 && !watch->is_stopped) {
        const fetched_t *row = &watch->rows[watch->row_at++];
        const cake_record_t *record = &watch->round[row->index];
        watch->round_at = row->index + 1;
        watch->told = *record;
        if (row->dot.actor != record->dot.actor || row->dot.seq != record->dot.seq)
            continue;
        const cake_change_t change = {.keyspace = watch->keyspace->name,
                                      .key = cake__slice(watch->bytes.data + row->key_at, row->key_len),
                                      .value = cake__slice(watch->bytes.data + row->value_at, row->value_len),
                                      .timestamp = row->hlc,
                                      .is_delete = row->is_tombstone};
        watch->credit--;
        tell(watch, &change);
    }
    if (watch->row_at < watch->row_count || watch->is_stopped)
        return;
    if (!watch->is_fetch_cut) { /* behind the last row: ids without one */
        watch->round_at = watch->fetch_from + watch->fetch_count;
        watch->told = watch->round[watch->round_at - 1];
    }
    watch->fetch_count = 0;
}

/* ---- behind and live ----------------------------------------------------------------------------------------------*/

/* A position of another replica may know of changes that have not come here yet. Until they have, nothing is told:
 * it could be older than what the reader knows. */
static bool is_ahead(const from_watch_t *watch)
{
    const cake__context_t *now = cake__keyspace_context(watch->keyspace);
    return !cake__context_covers(now, &watch->seen) ||
           (watch->has_target && !cake__context_covers(now, &watch->target.context));
}

/* Writes that were lost with a disk never come. */
static bool is_ahead_for_good(from_watch_t *watch)
{
    cake_env_t *env = watch->keyspace->store->env;
    uint64_t until_ns = watch->behind_since_ns + HOLD_MS * CAKE_NS_PER_MS;
    if (!is_ahead(watch))
        return false;
    if (cake__now_ns(env) >= until_ns)
        return true;
    env->ops->timer_arm(env, &watch->timer, until_ns);
    return false;
}

/* The round is told, or none has begun: makes the next one. CAKE_ENOMEM: later. */
static int begin_round(from_watch_t *watch)
{
    const cake__context_t *now = cake__keyspace_context(watch->keyspace);
    if (has_missed(watch) || is_ahead_for_good(watch))
        reset(watch);
    if (watch->is_stopped || is_ahead(watch))
        return 0;
    if (watch->is_gathered && !watch->is_round_cut) {
        int err = cake__context_join(&watch->seen, &watch->target.context);
        if (err != 0)
            return err;
        end_round(watch);
    }
    if (watch->has_target || !cake__context_covers(&watch->seen, now))
        return gather(watch);
    watch->is_live = true;
    cake__context_free(&watch->seen);
    return 0;
}

static void pump(void *arg)
{
    from_watch_t *watch = arg;
    cake_store_t *store = watch->keyspace->store;
    if (watch->is_live || watch->is_fetching || watch->is_telling || store->state != CAKE__STORE_RUNNING)
        return;
    if (watch->fetch_count > 0)
        tell_rows(watch);
    for (int turn = 0; turn < 2 && !watch->is_stopped && !watch->is_live; turn++) {
        if (watch->fetch_count == 0 && watch->credit > 0 && watch->round_at == watch->round_count &&
            begin_round(watch) != 0)
            break;
    }
    if (watch->is_stopped)
        free_watch(watch);
    else if (!watch->is_live && watch->fetch_count == 0 && watch->credit > 0 && watch->round_at < watch->round_count)
        fetch(watch);
}

/* Before the commit of what it was not told: the set is what it has seen. */
static void fall_behind(from_watch_t *watch)
{
    cake_store_t *store = watch->keyspace->store;
    watch->is_live = false;
    watch->behind_since_ns = cake__now_ns(store->env);
    cake__context_init(&watch->seen, store->alloc);
    if (cake__context_copy(&watch->seen, cake__keyspace_context(watch->keyspace)) != 0)
        watch->is_lost = true;
    end_round(watch);
    pump_later(watch);
}

static int staged_by_stamp(const void *a, const void *b)
{
    const cake__staged_t *const *left = a, *const *right = b;
    return by_stamp(&(*left)->record, &(*right)->record);
}

/* In the order of stamps, so that a position in the middle has a meaning. */
static void tell_commit(from_watch_t *watch, const cake__staged_t *const *puts, size_t count)
{
    for (size_t i = 0; i < count && !watch->is_stopped; i++) {
        const cake__value_t *value = puts[i]->tag;
        const cake_record_t *record = &puts[i]->record;
        const cake_change_t change = {.keyspace = watch->keyspace->name,
                                      .key = value->key,
                                      .value = record->is_tombstone ? cake__slice(NULL, 0) : value->value,
                                      .timestamp = record->hlc,
                                      .is_delete = record->is_tombstone,
                                      .is_local = value->origin == NULL};
        watch->told = *record;
        watch->credit--;
        tell(watch, &change);
    }
    watch->told = (cake_record_t){0};
}

static bool kills_documents(const cake__keyspace_t *keyspace)
{
    size_t count;
    cake_record_t record;
    const cake_id_t *erases = cake__change_erases(keyspace->change, &count);
    for (size_t i = 0; i < count; i++) {
        if (cake_orswot_get(keyspace->set, &erases[i], &record) && !record.is_tombstone)
            return true;
    }
    return false;
}

void cake__watches_commit(cake__keyspace_t *keyspace)
{
    const cake_alloc_t *alloc = keyspace->store->alloc;
    size_t put_count, count = 0;
    const cake__staged_t *puts = cake__change_puts(keyspace->change, &put_count);
    const cake__staged_t **told = cake__malloc(alloc, put_count * sizeof(const cake__staged_t *));
    bool is_killing = kills_documents(keyspace);
    for (size_t i = 0; told != NULL && i < put_count; i++) {
        if (puts[i].tag != NULL) /* else a record of ours under a new dot: the document is what it was */
            told[count++] = &puts[i];
    }
    if (told != NULL && count > 1)
        cake__sort(told, count, sizeof(const cake__staged_t *), staged_by_stamp);
    CAKE_LIST_FOR_EACH_SAFE(link, &keyspace->watches)
    {
        from_watch_t *watch = CAKE_CONTAINER_OF(link, from_watch_t, link);
        if (watch->is_live && (told == NULL || count > watch->credit || is_killing))
            fall_behind(watch);
        else if (watch->is_live)
            tell_commit(watch, told, count);
        else
            pump_later(watch);
        watch->is_lost |= is_killing;
        if (watch->is_stopped && !watch->is_fetching)
            free_watch(watch);
    }
    cake__free(alloc, told);
}

bool cake__watches_hold(const cake__keyspace_t *keyspace)
{
    uint64_t now_ns = cake__now_ns(keyspace->store->env);
    CAKE_LIST_FOR_EACH(link, &keyspace->watches)
    {
        const from_watch_t *watch = CAKE_CONTAINER_OF(link, from_watch_t, link);
        if (!watch->is_live && now_ns - watch->behind_since_ns < HOLD_MS * CAKE_NS_PER_MS)
            return true;
    }
    return false;
}

void cake__keyspace_watches_free(cake__keyspace_t *keyspace)
{
    CAKE_LIST_FOR_EACH_SAFE(link, &keyspace->watches)
    free_watch(CAKE_CONTAINER_OF(link, from_watch_t, link));
}

/* ---- positions ------------------------------------------------------------------------------------------------------
 *   version u8, keyspace string, seen (context), has_target u8, then target (summary), hlc u64, actor u64, seq u64 */

typedef struct {
    from_watch_t *watch;
    cake__buf_t out;
} position_request_t;

static int put_position(void *arg)
{
    position_request_t *request = arg;
    const from_watch_t *watch = request->watch;
    const cake__keyspace_t *keyspace = watch->keyspace;
    cake__buf_t *out = &request->out;
    bool is_in_commit = watch->is_live && watch->is_telling;
    cake__put_u8(out, POSITION_VERSION);
    cake__put_string(out, cake__slice_str(keyspace->name));
    cake__context_encode(watch->is_live ? cake__keyspace_context(keyspace) : &watch->seen, out);
    cake__put_u8(out, is_in_commit || watch->has_target);
    if (is_in_commit)
        cake__summary_encode(cake__change_summary(keyspace->change), out);
    else if (watch->has_target)
        cake__summary_encode(&watch->target, out);
    if (is_in_commit || watch->has_target) {
        cake__put_u64(out, watch->told.hlc);
        cake__put_u64(out, watch->told.dot.actor);
        cake__put_u64(out, watch->told.dot.seq);
    }
    return out->err;
}

static int take_position(from_watch_t *watch, cake_slice_t position)
{
    cake__reader_t reader = cake__reader(position.data, position.len);
    if (position.len == 0)
        return 0;
    uint8_t version = cake__get_u8(&reader);
    cake_slice_t name = cake__get_string(&reader, CAKE_KEYSPACE_NAME_MAX);
    if (reader.err != 0 || version != POSITION_VERSION)
        return reader.err != 0 ? CAKE_EPARSE : CAKE_EVERSION;
    if (!cake__slice_equal(name, cake__slice_str(watch->keyspace->name)))
        return CAKE_EINVAL;
    int err = cake__context_decode(&watch->seen, &reader);
    uint8_t has_target = err != 0 ? 0 : cake__get_u8(&reader);
    if (err == 0 && has_target == 1) {
        err = cake__summary_decode(&watch->target, &reader);
        watch->told.hlc = cake__get_u64(&reader);
        watch->told.dot.actor = cake__get_u64(&reader);
        watch->told.dot.seq = cake__get_u64(&reader);
        watch->has_target = err == 0;
    }
    return err != 0 ? err : cake__reader_done(&reader) && has_target <= 1 ? 0 : CAKE_EPARSE;
}

/* ---- the calls ----------------------------------------------------------------------------------------------------*/

static void stop_watch(cake_watch_t *base)
{
    from_watch_t *watch = CAKE_CONTAINER_OF(base, from_watch_t, base);
    watch->is_stopped = true;
    if (!watch->is_telling && !watch->is_fetching)
        free_watch(watch);
}

static from_watch_t *watch_of(cake_watch_t *base)
{
    return base != NULL && base->stop == stop_watch ? CAKE_CONTAINER_OF(base, from_watch_t, base) : NULL;
}

typedef struct {
    cake_store_t *store;
    const cake_watch_options_t *options;
    from_watch_t *watch;
    cake_watch_t **out;
    uint64_t credit;
} watch_request_t;

static int add_watch(void *arg)
{
    watch_request_t *request = arg;
    cake_store_t *store = request->store;
    from_watch_t *watch = request->watch;
    if (cake__store_is_stopping(store))
        return CAKE_ECLOSED;
    int err = cake__keyspace_find(store, cake__slice_str(request->options->keyspace), true, &watch->keyspace);
    if (err == 0)
        err = take_position(watch, request->options->position);
    if (err != 0) {
        cake__context_free(&watch->seen);
        cake__summary_free(&watch->target);
        return err;
    }
    watch->pump = CAKE_DEFERRED_INIT(pump, watch);
    watch->timer = CAKE_TIMER_INIT(pump, watch);
    watch->behind_since_ns = cake__now_ns(store->env);
    cake__list_push_back(&watch->keyspace->watches, &watch->link);
    pump_later(watch);
    *request->out = &watch->base; /* before the first callback */
    return 0;
}

int cake_store_watch_from(cake_store_t *store, const cake_watch_options_t *given, cake_change_fn fn, void *arg,
                          cake_watch_t **out)
{
    *out = NULL;
    cake_watch_options_t options;
    if (fn == NULL || given == NULL || cake__options_copy(&options, sizeof options, given) != 0 ||
        options.keyspace == NULL || !cake__is_name(cake__slice_str(options.keyspace), CAKE_KEYSPACE_NAME_MAX))
        return CAKE_EINVAL;
    from_watch_t *watch = cake__calloc(store->alloc, 1, sizeof *watch);
    if (watch == NULL)
        return CAKE_ENOMEM;
    watch->base = (cake_watch_t){store->env, stop_watch};
    watch->fn = fn;
    watch->arg = arg;
    watch->credit = options.credit != 0 ? options.credit : CREDIT_DEFAULT;
    cake__list_init(&watch->link);
    cake__context_init(&watch->seen, store->alloc);
    cake__summary_init(&watch->target, store->alloc);
    cake__buf_init(&watch->bytes, store->alloc);
    watch_request_t request = {.store = store, .options = &options, .watch = watch, .out = out};
    int err = cake__run_on_loop(store->env, add_watch, &request);
    if (err != 0)
        cake__free(store->alloc, watch);
    return err;
}

static int grant(void *arg)
{
    watch_request_t *request = arg;
    from_watch_t *watch = request->watch;
    watch->credit += cake__min_u64(request->credit, UINT64_MAX - watch->credit);
    pump_later(watch);
    return 0;
}

int cake_watch_grant(cake_watch_t *base, uint64_t changes)
{
    watch_request_t request = {.watch = watch_of(base), .credit = changes};
    return request.watch == NULL ? CAKE_EINVAL : cake__run_on_loop(base->env, grant, &request);
}

int cake_watch_position(cake_watch_t *base, cake_position_t *out)
{
    position_request_t request = {.watch = watch_of(base)};
    *out = (cake_position_t){0};
    if (request.watch == NULL)
        return CAKE_EINVAL;
    cake__buf_init(&request.out, &cake__libc_alloc);
    int err = cake__run_on_loop(base->env, put_position, &request);
    if (err != 0)
        cake__buf_free(&request.out);
    else
        *out = (cake_position_t){request.out.data, request.out.len};
    return err;
}

void cake_position_free(cake_position_t *position)
{
    cake__free(&cake__libc_alloc, position->data);
    *position = (cake_position_t){0};
}
