/* Clients: one per node, asking its store for puts, deletes and reads at all levels over few keys, and writing down
 * what they were answered. Values carry the number of their operation, so that every row found later tells where it
 * comes from. */
#include "sim/sim.h"

#include <stdio.h>

#define VALUE_HEAD 12u /* operation u32, item u32, length u32 */

/* ---- keys and values ----------------------------------------------------------------------------------------------*/

/* Every fifth key is too long for its id to hold it, and every fifth one is a UUID, which it holds in another form. */
size_t cake__key_text(uint32_t key, char out[64])
{
    static const char *const formats[] = {"k%05u", "k%05u", "k%05u", "k%05u-longer-than-an-id-can-hold",
                                          "000%05u-7dec-41d0-a765-00a0c91e6bf6"};
    int len = snprintf(out, 64, formats[key % 5], (unsigned)key);
    return (size_t)len;
}

bool cake__key_parse(cake_slice_t text, uint32_t *key)
{
    const char *at = text.data;
    char expected[64];
    if (text.len < 6)
        return false;
    *key = 0;
    for (size_t i = text.len == 36 ? 3 : 1, end = i + 5; i < end; i++)
        *key = *key * 10 + (uint32_t)(at[i] - '0');
    return *key < CAKE__TRIAL_KEYS_MAX && cake__key_text(*key, expected) == text.len &&
           memcmp(expected, at, text.len) == 0;
}

void cake__keyspace_name(uint32_t keyspace, char out[32])
{
    snprintf(out, 32, "space-%u", (unsigned)keyspace);
}

bool cake__keyspace_parse(const cake__trial_t *trial, cake_slice_t name, uint32_t *keyspace)
{
    char text[32];
    for (uint32_t i = 0; i < trial->plan.keyspaces; i++) {
        cake__keyspace_name(i, text);
        if (cake__slice_equal(name, cake__slice_str(text))) {
            *keyspace = i;
            return true;
        }
    }
    return false;
}

static uint8_t filler(uint32_t op, uint32_t item, size_t at)
{
    return (uint8_t)(op * 31 + item * 7 + at);
}

/* Most values are small; some go up to what the seed has drawn. */
size_t cake__value_make(const cake__op_t *op, uint32_t item, uint8_t *out)
{
    uint64_t chance = cake__mix64(((uint64_t)op->number << 8) + item + 1);
    uint32_t most = op->trial->plan.max_value_bytes;
    uint32_t len = VALUE_HEAD + (uint32_t)((chance >> 8) % (chance % 16 == 0 ? most : cake__min_u64(most, 100)));
    cake__store_le(out, op->number, 4);
    cake__store_le(out + 4, item, 4);
    cake__store_le(out + 8, len, 4);
    for (size_t i = VALUE_HEAD; i < len; i++)
        out[i] = filler(op->number, item, i);
    return len;
}

bool cake__value_parse(cake_slice_t value, uint32_t *op, uint32_t *item)
{
    const uint8_t *at = value.data;
    if (value.len < VALUE_HEAD || cake__load_le(at + 8, 4) != value.len)
        return false;
    *op = (uint32_t)cake__load_le(at, 4);
    *item = (uint32_t)cake__load_le(at + 4, 4);
    for (size_t i = VALUE_HEAD; i < value.len; i++) {
        if (at[i] != filler(*op, *item, i))
            return false;
    }
    return true;
}

/* ---- answers ------------------------------------------------------------------------------------------------------*/

static const char *const kind_names[] = {"put", "del", "get", "get_at", "scan"};

static bool is_write(const cake__op_t *op)
{
    return op->kind == CAKE__OP_PUT || op->kind == CAKE__OP_DEL;
}

/* It was sent while the disk was busy with it; unless the others' storages ask back for the value, or no batch of
 * its lane was written since one failed: a full disk refuses whole. */
static bool may_be_elsewhere(const cake__op_t *op, int err)
{
    uint64_t batches;
    cake__disk_t *disk = &op->trial->nodes[op->node_id - 1]->disk;
    bool is_refusing = cake__disk_is_refusing(disk, op->keyspace, &batches);
    bool was_whole = err != CAKE_ENOMEM && op->was_refusing && is_refusing && batches == op->lane_batches;
    return !op->trial->plan.has_fetches && !was_whole;
}

static cake__op_state_t state_after(const cake__op_t *op, int err)
{
    switch (err) {
    case 0:
        return CAKE__OP_ACKED;
    case CAKE_ECONSISTENCY: /* it stays and goes on replicating */
    case CAKE_ECLOSED:
        return CAKE__OP_UNKNOWN;
    case CAKE_EIO:
    case CAKE_ENOSPC:
    case CAKE_ENOMEM:
        return op->may_turn_up || may_be_elsewhere(op, err) ? CAKE__OP_UNKNOWN : CAKE__OP_REFUSED;
    default:
        return CAKE__OP_REFUSED;
    }
}

static bool is_expected(const cake__op_t *op, int err)
{
    const cake__trial_t *trial = op->trial;
    switch (err) {
    case 0:
    case CAKE_ENOTFOUND:
    case CAKE_ENOTENOUGHNODES:
    case CAKE_ECONSISTENCY:
    case CAKE_ENOTJOINED:
    case CAKE_ECLOSED:
    case CAKE_ETIMEDOUT:
        return true;
    case CAKE_ECONFLICT:
        return op->has_condition;
    case CAKE_EDUPLICATE: /* the first of the two is refused when the second was taken for it meanwhile */
        return (trial->plan.kinds & CAKE_SIM_DUPLICATE_ID) != 0;
    case CAKE_EDRIFT:
        return (trial->plan.kinds & CAKE_SIM_CLOCK) != 0;
    case CAKE_EIO:
    case CAKE_ENOSPC:
        return (trial->plan.kinds & CAKE_SIM_DISK_ERROR) != 0;
    case CAKE_ENOMEM:
        return (trial->plan.kinds & CAKE_SIM_ALLOC) != 0;
    default:
        return false;
    }
}

static void count(cake__trial_t *trial, const cake__op_t *op)
{
    cake_sim_result_t *result = trial->result;
    result->writes_acked += op->state == CAKE__OP_ACKED;
    result->writes_refused += op->state == CAKE__OP_REFUSED;
    result->writes_unknown += op->state == CAKE__OP_UNKNOWN;
}

static void on_done(const cake_result_t *result, void *arg)
{
    cake__op_t *op = arg;
    cake__trial_t *trial = op->trial;
    cake__trial_node_t *node = trial->nodes[op->node_id - 1];
    if (op->state != CAKE__OP_PENDING) {
        cake__violation(trial, "answers", "operation %u is answered twice", op->number);
        return;
    }
    op->err = result->err;
    op->timestamp = result->err == CAKE_ECONFLICT ? 0 : result->timestamp;
    op->done_ns = cake__world_now_ns(trial->world);
    op->state = (uint8_t)state_after(op, result->err);
    cake__note_of(node, CAKE__MARK_NONE, "%s #%u at %s ends: %s %llx", kind_names[op->kind], op->number,
                  cake_consistency_name((cake_consistency_t)op->level),
                  result->err == 0 ? "ok" : cake_err_name(op->err), (unsigned long long)op->timestamp);
    if (!is_expected(op, result->err))
        cake__violation(trial, "answers", "operation %u (%s) fails with %s", op->number, kind_names[op->kind],
                        cake_err_name(result->err));
    if (!is_write(op)) {
        cake__check_read(trial, op, result);
    } else {
        count(trial, op);
        if (op->state == CAKE__OP_REFUSED)
            cake__check_refused(trial, op);
        else
            cake__check_acked(trial, op);
        cake__check_condition(trial, op, result->timestamp);
    }
    cake__check_clock(trial, op);
    cake__check_now(node);
    for (size_t i = 0; i < result->doc_count; i++)
        cake_doc_free(result->docs[i]);
}

void cake__clients_node_gone(cake__trial_node_t *node)
{
    cake__trial_t *trial = node->trial;
    for (uint32_t i = 0; i < trial->op_count; i++) {
        cake__op_t *op = trial->ops[i];
        if (op->node_id != node->id || op->state != CAKE__OP_PENDING)
            continue;
        op->state = CAKE__OP_UNKNOWN;
        op->err = CAKE_ECLOSED;
        if (is_write(op))
            count(trial, op);
    }
}

/* ---- asking -------------------------------------------------------------------------------------------------------*/

cake__op_t *cake__op_new(cake__trial_t *trial, cake__trial_node_t *node)
{
    if (trial->op_count == trial->op_capacity) {
        trial->op_capacity = trial->op_capacity == 0 ? 256 : trial->op_capacity * 2;
        trial->ops = cake__realloc(&cake__libc_alloc, trial->ops, trial->op_capacity * sizeof(cake__op_t *));
        CAKE_ASSERT(trial->ops != NULL);
    }
    cake__op_t *op = cake__sim_alloc(sizeof *op);
    op->trial = trial;
    op->number = trial->op_count;
    op->node_id = node->id;
    op->starts = node->starts;
    op->issued_ns = cake__world_now_ns(trial->world);
    op->node_floor = cake__max_u64(node->write_floor, node->read_floor);
    trial->ops[trial->op_count++] = op;
    return op;
}

static cake_consistency_t draw_level(cake__trial_t *trial)
{
    for (;;) {
        unsigned level = (unsigned)cake__below(trial, CAKE__TRIAL_DRAW_CLIENTS, CAKE_ALL + 1);
        if ((trial->plan.levels >> level & 1) != 0)
            return (cake_consistency_t)level;
    }
}

static void draw_keys(cake__trial_t *trial, cake__op_t *op, uint32_t items)
{
    while (op->count < items) {
        uint16_t key = (uint16_t)cake__below(trial, CAKE__TRIAL_DRAW_CLIENTS, trial->plan.keys);
        bool is_new = true;
        for (unsigned i = 0; i < op->count; i++)
            is_new &= op->keys[i] != key;
        if (is_new)
            op->keys[op->count++] = key;
        else
            items--;
    }
}

static void draw_op(cake__trial_t *trial, cake__op_t *op)
{
    uint64_t chance = cake__below(trial, CAKE__TRIAL_DRAW_CLIENTS, 100);
    bool is_read = chance < trial->plan.read_share;
    chance = cake__below(trial, CAKE__TRIAL_DRAW_CLIENTS, 100);
    if (is_read)
        op->kind = chance < trial->plan.scan_share ? CAKE__OP_SCAN : chance < 60 ? CAKE__OP_GET : CAKE__OP_GET_AT;
    else
        op->kind = chance < trial->plan.delete_share ? CAKE__OP_DEL : CAKE__OP_PUT;
    op->level = (uint8_t)draw_level(trial);
    op->keyspace = (uint8_t)cake__below(trial, CAKE__TRIAL_DRAW_CLIENTS, trial->plan.keyspaces);
    uint32_t items = 1;
    if (!is_read && cake__below(trial, CAKE__TRIAL_DRAW_CLIENTS, 100) < trial->plan.many_share)
        items = 2 + (uint32_t)cake__below(trial, CAKE__TRIAL_DRAW_CLIENTS, CAKE__OP_ITEMS_MAX - 1);
    draw_keys(trial, op, items);
    if (!is_read)
        trial->writes_left -= op->count < trial->writes_left ? op->count : trial->writes_left;
}

static int ask_put(cake_store_t *store, const char *keyspace, cake__op_t *op)
{
    cake_item_t items[CAKE__OP_ITEMS_MAX];
    char texts[CAKE__OP_ITEMS_MAX][64];
    uint32_t most = op->trial->plan.max_value_bytes + VALUE_HEAD;
    uint8_t *values = cake__sim_alloc((size_t)most * op->count);
    for (uint32_t i = 0; i < op->count; i++) {
        items[i].key = cake_key_bytes(texts[i], cake__key_text(op->keys[i], texts[i]));
        items[i].value = values + (size_t)i * most;
        items[i].len = cake__value_make(op, i, values + (size_t)i * most);
    }
    cake_consistency_t level = (cake_consistency_t)op->level;
    int err;
    if (op->has_condition)
        err = cake_store_put_if_async(store, keyspace, items[0].key, items[0].value, items[0].len, op->expected, level,
                                      on_done, op);
    else if (op->count > 1)
        err = cake_store_put_many_async(store, keyspace, items, op->count, level, on_done, op);
    else
        err = cake_store_put_async(store, keyspace, items[0].key, items[0].value, items[0].len, level, on_done, op);
    cake__free(&cake__libc_alloc, values);
    return err;
}

/* ---- scans: they wait, as an application's thread does ------------------------------------------------------------*/

typedef struct {
    cake__op_t *op;
    cake_hlc_t *found; /* per key */
    cake_slice_t last;
    char last_text[64];
} scanning_t;

static int on_scanned(void *arg, const cake_doc_t *doc)
{
    scanning_t *scanning = arg;
    cake__trial_t *trial = scanning->op->trial;
    cake_slice_t key = cake_doc_key(doc);
    uint32_t number, item, at = 0;
    if (!cake__key_parse(key, &at) || at >= trial->plan.keys || !cake__value_parse(cake_doc_value(doc), &number, &item))
        cake__violation(trial, "reads", "scan %u finds what nobody wrote", scanning->op->number);
    else if (cake__slice_compare(scanning->last, key) >= 0)
        cake__violation(trial, "reads", "scan %u is out of order", scanning->op->number);
    if (cake__has_failed(trial))
        return CAKE_ECORRUPT;
    scanning->found[at] = cake_doc_timestamp(doc);
    memcpy(scanning->last_text, key.data, key.len);
    scanning->last = cake__slice(scanning->last_text, key.len);
    return 0;
}

static void scan(cake__trial_t *trial, cake__trial_node_t *node, cake__op_t *op)
{
    uint32_t keys = trial->plan.keys;
    cake__stamp_t *before = cake__sim_alloc(keys * sizeof *before);
    scanning_t scanning = {.op = op, .found = cake__sim_alloc(keys * sizeof(cake_hlc_t))};
    char keyspace[32];
    cake__keyspace_name(op->keyspace, keyspace);
    memcpy(before, &node->disk.seen[(size_t)op->keyspace * keys], keys * sizeof *before);
    trial->result->scans++;
    node->waiting++;
    op->err = cake_store_scan(node->store, keyspace, NULL, on_scanned, &scanning);
    node->waiting--;
    op->state = op->err == 0 ? CAKE__OP_ACKED : CAKE__OP_REFUSED;
    cake__note_of(node, CAKE__MARK_NONE, "scan #%u ends: %s", op->number, op->err == 0 ? "ok" : cake_err_name(op->err));
    if (op->err == 0)
        cake__check_scan(trial, op, before, scanning.found);
    else if (!is_expected(op, op->err))
        cake__violation(trial, "answers", "scan %u fails with %s", op->number, cake_err_name(op->err));
    cake__free(&cake__libc_alloc, before);
    cake__free(&cake__libc_alloc, scanning.found);
}

static int ask(cake_store_t *store, cake__op_t *op)
{
    char keyspace[32], texts[CAKE__OP_ITEMS_MAX][64];
    cake_key_t keys[CAKE__OP_ITEMS_MAX];
    cake_consistency_t level = (cake_consistency_t)op->level;
    cake__keyspace_name(op->keyspace, keyspace);
    for (uint32_t i = 0; i < op->count; i++)
        keys[i] = cake_key_bytes(texts[i], cake__key_text(op->keys[i], texts[i]));
    switch ((cake__op_kind_t)op->kind) {
    case CAKE__OP_PUT:
        return ask_put(store, keyspace, op);
    case CAKE__OP_DEL:
        if (op->has_condition)
            return cake_store_del_if_async(store, keyspace, keys[0], op->expected, level, on_done, op);
        return op->count > 1 ? cake_store_del_many_async(store, keyspace, keys, op->count, level, on_done, op)
                             : cake_store_del_async(store, keyspace, keys[0], level, on_done, op);
    case CAKE__OP_GET:
        return cake_store_get_async(store, keyspace, keys[0], on_done, op);
    case CAKE__OP_SCAN:
        break;
    case CAKE__OP_GET_AT:
        return cake_store_get_at_async(store, keyspace, keys[0], level, on_done, op);
    }
    return CAKE_EINVAL;
}

static void note_state(cake__op_t *op)
{
    cake__disk_t *disk = &op->trial->nodes[op->node_id - 1]->disk;
    op->seen = disk->seen[cake__place(op, 0)];
    op->key_floor = cake__floor_of_read(op->trial, op);
    op->was_refusing = cake__disk_is_refusing(disk, op->keyspace, &op->lane_batches);
}

void cake__op_ask(cake__op_t *op)
{
    cake__trial_t *trial = op->trial;
    cake__trial_node_t *node = trial->nodes[op->node_id - 1];
    bool writes = is_write(op);
    note_state(op);
    trial->result->writes_asked += writes ? op->count : 0;
    trial->result->reads += !writes;
    char key[64];
    cake__key_text(op->keys[0], key);
    cake__note_of(node, CAKE__MARK_NONE, "%s #%u %u/%s%s at %s%s", kind_names[op->kind], op->number,
                  (unsigned)op->keyspace, key, op->count > 1 ? " and more" : "",
                  cake_consistency_name((cake_consistency_t)op->level), op->has_condition ? ", with a condition" : "");
    if (op->kind == CAKE__OP_SCAN) {
        scan(trial, node, op);
        return;
    }
    int err = ask(node->store, op);
    if (err == 0)
        return;
    op->state = CAKE__OP_REFUSED;
    op->err = err;
    if (writes)
        count(trial, op);
    if (!is_expected(op, err))
        cake__violation(trial, "answers", "operation %u (%s) fails with %s", op->number, kind_names[op->kind],
                        cake_err_name(err));
}

/* Of what this node has, mostly; or of what another one has, or that there is none. */
static void draw_condition(cake__trial_t *trial, cake__op_t *op)
{
    if (op->count > 1 || cake__below(trial, CAKE__TRIAL_DRAW_ADDED, 100) >= trial->plan.condition_share)
        return;
    bool is_of_other = cake__below(trial, CAKE__TRIAL_DRAW_ADDED, 8) == 0;
    uint64_t other = cake__below(trial, CAKE__TRIAL_DRAW_ADDED, trial->node_count);
    const cake__disk_t *disk = &trial->nodes[is_of_other ? other : op->node_id - 1u]->disk;
    const cake__stamp_t *seen = &disk->seen[cake__place(op, 0)];
    op->has_condition = true;
    if (!seen->is_tombstone && !seen->was_killed && cake__below(trial, CAKE__TRIAL_DRAW_ADDED, 16) != 0)
        op->expected = seen->hlc;
}

static void ask_something(cake__trial_t *trial, cake__trial_node_t *node)
{
    cake__op_t *op = cake__op_new(trial, node);
    draw_op(trial, op);
    if (is_write(op))
        draw_condition(trial, op);
    cake__op_ask(op);
}

/* The whole number of writes is spread over the time of chaos; bursts now and then. */
static void on_client(void *arg)
{
    cake__trial_t *trial = arg;
    if (!trial->is_chaotic || trial->writes_left == 0 || cake__has_failed(trial))
        return;
    uint64_t now_ns = cake__world_now_ns(trial->world);
    if (now_ns >= trial->chaos_ends_ns)
        return; /* it ends as soon as a thread that waits goes on */
    uint64_t left_ns = trial->chaos_ends_ns - now_ns;
    unsigned burst = cake__below(trial, CAKE__TRIAL_DRAW_CLIENTS, 20) == 0 ? 8 : 1;
    bool is_of_one = cake__below(trial, CAKE__TRIAL_DRAW_ADDED, 2) == 0; /* so that they go into one batch */
    cake__trial_node_t *node = NULL;
    uint64_t mean_ns = left_ns / (trial->writes_left + 1) * burst;
    for (unsigned i = 0; i < burst && trial->writes_left > 0; i++) {
        uint64_t which = cake__below(trial, CAKE__TRIAL_DRAW_CLIENTS, trial->node_count);
        node = node == NULL || !is_of_one ? trial->nodes[which] : node;
        if (node->state == CAKE__IS_UP && node->waiting == 0)
            ask_something(trial, node);
    }
    cake__world_at(trial->world, now_ns + cake__below(trial, CAKE__TRIAL_DRAW_CLIENTS, mean_ns * 2 + 2), on_client,
                   trial);
}

void cake__clients_start(cake__trial_t *trial)
{
    trial->writes_left = trial->options.writes;
    cake__world_at(trial->world, cake__world_now_ns(trial->world), on_client, trial);
}

void cake__clients_free(cake__trial_t *trial)
{
    for (uint32_t i = 0; i < trial->op_count; i++)
        cake__free(&cake__libc_alloc, trial->ops[i]);
    cake__free(&cake__libc_alloc, trial->ops);
}
