/* lanes.c: where a record goes: the blocks of an actor, their growth, splitting and packing. Every step moves at
 * most one block of 1024 records. */
#include "crdt/table_internal.h"

#define SMALL            32u /* a sparse block of this capacity is not packed again */
#define PACK_LEAST_SPARE 4u  /* a dense block may have this many positions per record, and a few */
#define MOVE_AHEAD       16u /* records whose index entries are fetched ahead */
#define BLOCKS_MAX       (UINT32_MAX / CAKE__BLOCK_POSITIONS - 1)

/* ---- lanes ------------------------------------------------------------------------------------------------------- */

static uint32_t lower_bound(const cake__table_t *table, uint64_t actor)
{
    uint32_t low = 0, high = table->lane_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (table->lanes[middle].actor < actor)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

cake__lane_t *cake__table_search_lane(const cake__table_t *table, uint64_t actor)
{
    uint32_t at = lower_bound(table, actor);
    return at < table->lane_count && table->lanes[at].actor == actor ? &table->lanes[at] : NULL;
}

static cake__lane_t *lane_for(cake__table_t *table, uint64_t actor)
{
    cake__lane_t *lane = cake__table_lane(table, actor);
    if (lane != NULL) {
        table->lane_hint = (uint32_t)(lane - table->lanes);
        return lane;
    }
    if (table->lane_count == table->lane_capacity) {
        uint32_t capacity = table->lane_capacity == 0 ? 1 : table->lane_capacity * 2;
        cake__lane_t *lanes = cake__realloc(table->alloc, table->lanes, capacity * sizeof *lanes);
        if (lanes == NULL)
            return NULL;
        table->lanes = lanes;
        table->lane_capacity = capacity;
    }
    uint32_t at = lower_bound(table, actor);
    memmove(table->lanes + at + 1, table->lanes + at, (table->lane_count - at) * sizeof *table->lanes);
    table->lanes[at] = (cake__lane_t){.actor = actor};
    table->lane_count++;
    table->lane_hint = at;
    return &table->lanes[at];
}

uint32_t cake__lane_search_entry(const cake__lane_t *lane, uint64_t seq)
{
    uint32_t low = 0, high = lane->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (lane->entries[middle].first <= seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low == 0 ? 0 : low - 1;
}

void cake__lane_free(const cake_alloc_t *alloc, cake__lane_t *lane)
{
    if (lane->entries != NULL)
        cake__free(alloc, lane->entries - lane->spare);
}

static void remove_lane(cake__table_t *table, cake__lane_t *lane)
{
    uint32_t at = (uint32_t)(lane - table->lanes);
    cake__lane_free(table->alloc, lane);
    table->bytes -= lane->capacity * sizeof *lane->entries;
    memmove(lane, lane + 1, (table->lane_count - at - 1) * sizeof *lane);
    table->lane_count--;
}

/* ---- the list of blocks ------------------------------------------------------------------------------------------ */

/* The address to be freed is right before them. */
static cake__block_t *new_heads(const cake_alloc_t *alloc, size_t count)
{
    size_t slack = count < 8 ? 16 : 64; /* whole cache lines, where there are many */
    uint8_t *memory = cake__malloc(alloc, count * sizeof(cake__block_t) + slack);
    if (memory == NULL)
        return NULL;
    uintptr_t begin = ((uintptr_t)memory + slack) & ~(uintptr_t)(slack - 1);
    ((void **)begin)[-1] = memory;
    return (cake__block_t *)begin;
}

void cake__table_free_heads(cake__table_t *table)
{
    for (uint32_t i = 0; i < table->head_lists; i++)
        cake__free(table->alloc, ((void **)(void *)table->heads[i])[-1]);
    cake__free(table->alloc, table->heads);
}

/* A head that is free, and stays so until a block is in it. NULL: no memory. */
static cake__block_t *free_head(cake__table_t *table)
{
    uint32_t number = table->free_count > 0 ? table->free_number : table->block_count;
    if (number + 1 >= 1u << table->head_lists) {
        size_t size = (table->head_lists + 1) * sizeof *table->heads;
        cake__block_t **heads = number >= BLOCKS_MAX ? NULL : cake__realloc(table->alloc, table->heads, size);
        if (heads == NULL)
            return NULL;
        table->heads = heads;
        heads[table->head_lists] = new_heads(table->alloc, (size_t)1 << table->head_lists);
        if (heads[table->head_lists] == NULL)
            return NULL;
        table->head_lists++;
    }
    cake__block_t *head = cake__table_head(table, number);
    if (table->free_count == 0)
        *head = (cake__block_t){.number = number};
    return head;
}

static void note_moved(cake__table_t *table, size_t entries)
{
    table->index.work += entries * sizeof(struct cake__lane_entry) / 64;
}

static void close_gap(cake__lane_t *lane)
{
    memmove(lane->entries - lane->spare, lane->entries, lane->count * sizeof *lane->entries);
    lane->entries -= lane->spare;
    lane->spare = 0;
}

static bool reserve_entry(cake__table_t *table, cake__lane_t *lane)
{
    if (lane->spare + lane->count < lane->capacity)
        return true;
    bool has_room = lane->spare > 0, has_much_room = lane->spare > lane->capacity / 4; /* so that it is seldom closed */
    if (has_room) {
        close_gap(lane);
        note_moved(table, lane->count);
    }
    uint32_t capacity = lane->capacity == 0 ? 1 : lane->capacity * 2;
    struct cake__lane_entry *entries =
        has_much_room ? NULL : cake__realloc(table->alloc, lane->entries, capacity * sizeof *entries);
    if (entries == NULL)
        return has_room;
    table->bytes += (capacity - lane->capacity) * sizeof *entries;
    note_moved(table, lane->capacity);
    lane->entries = entries;
    lane->capacity = capacity;
    return true;
}

/* Most are taken out at the front, where tombstones are old: then what is before moves, not what is behind. */
static void remove_entry(cake__table_t *table, cake__lane_t *lane, uint32_t at)
{
    lane->count--;
    note_moved(table, cake__min_u64(at, lane->count - at));
    if (at >= lane->count - at) {
        memmove(lane->entries + at, lane->entries + at + 1, (lane->count - at) * sizeof *lane->entries);
        return;
    }
    memmove(lane->entries + 1, lane->entries, at * sizeof *lane->entries);
    lane->entries++;
    lane->spare++;
}

static cake__block_t *new_block(cake__table_t *table, cake__shape_t shape, uint64_t actor, uint64_t first,
                                cake_hlc_t hlc)
{
    cake__block_t *block = free_head(table);
    uint32_t next_free = block == NULL ? 0 : (uint32_t)block->first;
    if (block == NULL || !cake__block_init(table->alloc, block, shape, actor, first, hlc))
        return NULL;
    if (table->free_count > 0) {
        table->free_count--;
        table->free_number = next_free;
    } else {
        table->block_count++;
    }
    table->bytes += cake__block_bytes(block);
    return block;
}

static void drop_block(cake__table_t *table, cake__block_t *block)
{
    table->bytes -= cake__block_bytes(block);
    cake__block_free(table->alloc, block);
    block->shape.capacity = 0;
    block->first = table->free_number;
    table->free_number = block->number;
    table->free_count++;
}

/* Room was reserved for the entry. */
static void enlist(cake__table_t *table, cake__lane_t *lane, uint32_t at, const cake__block_t *block)
{
    note_moved(table, lane->count - at);
    memmove(lane->entries + at + 1, lane->entries + at, (lane->count - at) * sizeof *lane->entries);
    lane->entries[at] = (struct cake__lane_entry){block->first, block->number};
    lane->count++;
    /* The new one may get tombstones: those below it may not count as searched beyond it. */
    if (lane->first_tombstones >= at && lane->first_tombstones > 0)
        lane->first_tombstones = at;
}

static cake__block_t *add_block(cake__table_t *table, cake__lane_t *lane, uint32_t at, cake__shape_t shape,
                                uint64_t first, cake_hlc_t hlc)
{
    cake__block_t *block = reserve_entry(table, lane) ? new_block(table, shape, lane->actor, first, hlc) : NULL;
    if (block != NULL)
        enlist(table, lane, at, block);
    return block;
}

static void release(cake__table_t *table, cake__lane_t *lane, uint32_t at)
{
    cake__block_t *block = cake__lane_block(table, lane, at);
    CAKE_ASSERT(block->occupied == 0);
    drop_block(table, block);
    remove_entry(table, lane, at);
    if (lane->first_tombstones > at)
        lane->first_tombstones--;
    if (lane->count == 0)
        remove_lane(table, lane);
}

static bool reshape(cake__table_t *table, cake__block_t *block, cake__shape_t shape)
{
    size_t before = cake__block_bytes(block);
    if (!cake__block_reshape(table->alloc, block, shape))
        return false;
    table->bytes += cake__block_bytes(block) - before;
    table->index.work += block->occupied;
    return true;
}

/* ---- moving records between blocks ------------------------------------------------------------------------------- */

static void move_record(cake__table_t *table, cake__block_t *from, uint32_t position, cake__block_t *to, uint64_t hash)
{
    uint32_t target = cake__block_free_position(to);
    cake__block_write(to, target, cake__block_seq(from, position), cake__block_id(from, position),
                      cake__block_hlc(from, position), cake__block_is_tombstone(from, position));
    if (cake__block_is_present(from, position))
        cake__block_reveal(to, target);
    /* A staged record that follows a present one is not in the index yet: then nothing is replaced. */
    cake__index_replace(&table->index, hash, from->number * CAKE__BLOCK_POSITIONS + position,
                        to->number * CAKE__BLOCK_POSITIONS + target);
    cake__block_vacate(from, position);
}

/* Everything of `from` with seq >= first goes to the low free positions of `to`, which has the room and the shape.
 * The index is touched in as many places, which are fetched ahead. */
static void move_records(cake__table_t *table, cake__block_t *from, uint64_t first, cake__block_t *to)
{
    uint64_t hashes[CAKE__BLOCK_POSITIONS];
    uint16_t positions[CAKE__BLOCK_POSITIONS];
    uint32_t count = 0;
    for (uint32_t word = 0; word < cake__block_words(from); word++) {
        for (uint64_t left = cake__block_word(from, word)->occupied; left != 0; left &= left - 1) {
            uint32_t position = word * 64 + (uint32_t)__builtin_ctzll(left);
            if (cake__block_seq(from, position) < first)
                continue;
            positions[count] = (uint16_t)position;
            hashes[count++] = cake__table_hash(table, cake__block_id(from, position));
        }
    }
    table->index.work += count;
    for (uint32_t i = 0; i < count + MOVE_AHEAD; i++) {
        if (i < count)
            __builtin_prefetch(cake__index_home(&table->index, hashes[i]), 1);
        if (i >= MOVE_AHEAD)
            move_record(table, from, positions[i - MOVE_AHEAD], to, hashes[i - MOVE_AHEAD]);
    }
}

static bool needs_wide_hlcs(const cake__block_t *from, const cake__block_t *to)
{
    for (uint32_t position = 0; position < from->shape.capacity; position++) {
        if (cake__block_is_occupied(from, position) &&
            !cake__block_fits(to, (cake__id_pair_t){0, CAKE__NARROW_ID_HIGH}, cake__block_hlc(from, position)))
            return true;
    }
    return false;
}

/* Room for all that `from` holds. False: no memory. */
static bool make_fit(cake__table_t *table, cake__block_t *to, const cake__block_t *from)
{
    cake__shape_t shape = to->shape;
    uint16_t capacity = cake__block_capacity_for((uint32_t)to->occupied + from->occupied);
    shape.capacity = capacity > shape.capacity ? capacity : shape.capacity;
    shape.has_wide_ids = shape.has_wide_ids || from->shape.has_wide_ids;
    shape.has_wide_hlcs = shape.has_wide_hlcs || needs_wide_hlcs(from, to);
    bool fits = shape.capacity == to->shape.capacity && shape.has_wide_ids == to->shape.has_wide_ids &&
                shape.has_wide_hlcs == to->shape.has_wide_hlcs;
    return fits || reshape(table, to, shape);
}

/* A dense block that is mostly empty, or a sparse one that is far too large, becomes a sparse one that fits. */
static cake__block_t *pack(cake__table_t *table, cake__lane_t *lane, uint32_t at)
{
    cake__block_t *old = cake__lane_block(table, lane, at);
    cake__shape_t shape = {cake__block_capacity_for(old->occupied + old->occupied / 4u + 1), true,
                           old->shape.has_wide_ids, old->shape.has_wide_hlcs};
    cake__block_t *packed =
        old->max_seq < old->first + CAKE__BLOCK_SPAN_MAX ? new_block(table, shape, old->actor, old->first, 0) : NULL;
    if (packed == NULL)
        return NULL;
    packed->hlc_base = old->hlc_base;
    packed->max_seq = old->max_seq;
    move_records(table, old, 0, packed);
    lane->entries[at].block = packed->number;
    drop_block(table, old);
    return packed;
}

/* A full sparse block gives its upper half to a new one behind it. */
static int split(cake__table_t *table, cake__lane_t *lane, uint32_t at)
{
    cake__block_t *block = cake__lane_block(table, lane, at);
    uint64_t low = block->first, high = block->max_seq;
    while (low < high) { /* the median by bisection over seqs */
        uint64_t middle = low + (high - low) / 2;
        uint32_t below = 0;
        for (uint32_t position = 0; position < block->shape.capacity; position++)
            below += cake__block_is_occupied(block, position) && cake__block_seq(block, position) <= middle;
        if (below < block->occupied / 2u)
            low = middle + 1;
        else
            high = middle;
    }
    cake__block_t *upper = add_block(table, lane, at + 1, block->shape, low + 1, block->hlc_base);
    if (upper == NULL)
        return CAKE_ENOMEM;
    upper->hlc_base = block->hlc_base;
    move_records(table, block, low + 1, upper);
    block->max_seq = low;
    return 0;
}

/* ---- placing ----------------------------------------------------------------------------------------------------- */

/* A block for a seq that no other covers, behind entry at - 1. Aligned, so that stretches out of order meet. */
static cake__block_t *block_behind(cake__table_t *table, cake__lane_t *lane, uint32_t at, const cake_record_t *record,
                                   bool has_wide_id)
{
    uint64_t first = (record->dot.seq - 1) / CAKE__BLOCK_POSITIONS * CAKE__BLOCK_POSITIONS + 1;
    if (at > 0)
        first = cake__max_u64(first, cake__lane_block(table, lane, at - 1)->max_seq + 1);
    cake__shape_t shape = {CAKE__BLOCK_LEAST, record->dot.seq - first >= CAKE__PLACE_NEAR, has_wide_id, false};
    if (at > 0 && at == lane->count && !shape.is_sparse) { /* after a full one the next will be full too */
        const cake__block_t *before = cake__lane_block(table, lane, at - 1);
        bool was_full = !before->shape.is_sparse && before->occupied > CAKE__BLOCK_POSITIONS * 3 / 4;
        shape.capacity = was_full ? CAKE__BLOCK_POSITIONS : CAKE__BLOCK_LEAST;
    }
    return add_block(table, lane, at, shape, first, record->hlc);
}

static bool is_mostly_empty(const cake__block_t *block, uint64_t positions)
{
    return positions > (uint64_t)PACK_LEAST_SPARE * (block->occupied + 16u);
}

/* The block that takes this seq, perhaps still without a free position. NULL: no memory. */
static cake__block_t *block_for(cake__table_t *table, cake__lane_t *lane, const cake_record_t *record, bool has_wide_id)
{
    uint64_t seq = record->dot.seq;
    for (;;) {
        uint32_t at = cake__lane_entry_at(lane, seq);
        cake__block_t *block = lane->count == 0 ? NULL : cake__lane_block(table, lane, at);
        if (block == NULL || block->first > seq)
            return block_behind(table, lane, 0, record, has_wide_id);
        uint64_t offset = seq - block->first;
        bool is_dense = !block->shape.is_sparse;
        if (is_dense && offset < CAKE__BLOCK_POSITIONS && !is_mostly_empty(block, offset + 1))
            return block;
        if (offset >= CAKE__BLOCK_SPAN_MAX)
            return block_behind(table, lane, at + 1, record, has_wide_id);
        if (is_dense && is_mostly_empty(block, cake__min_u64(offset + 1, CAKE__BLOCK_POSITIONS))) {
            if (pack(table, lane, at) == NULL)
                return NULL;
            continue;
        }
        if (is_dense)
            return block_behind(table, lane, at + 1, record, has_wide_id);
        if (block->occupied < CAKE__BLOCK_POSITIONS)
            return block;
        if (seq > block->max_seq)
            return block_behind(table, lane, at + 1, record, has_wide_id);
        if (split(table, lane, at) != 0)
            return NULL;
    }
}

/* After a failure a lane or a block without records may stay: it means nothing and is used by the next attempt. */
int cake__table_place(cake__table_t *table, const cake_record_t *record, cake__id_pair_t id, uint32_t *slot)
{
    cake__block_t *block = cake__table_tail(table, record, id);
    if (block != NULL) {
        uint32_t next = (uint32_t)(record->dot.seq - block->first);
        cake__block_write(block, next, record->dot.seq, id, record->hlc, record->is_tombstone);
        *slot = block->number * CAKE__BLOCK_POSITIONS + next;
        return 0;
    }
    cake__lane_t *lane = lane_for(table, record->dot.actor);
    if (lane == NULL)
        return CAKE_ENOMEM;
    block = block_for(table, lane, record, id.high != CAKE__NARROW_ID_HIGH);
    if (block == NULL)
        return CAKE_ENOMEM;
    bool is_sparse = block->shape.is_sparse;
    uint32_t position = is_sparse ? cake__block_free_position(block) : (uint32_t)(record->dot.seq - block->first);
    bool is_taken = is_sparse ? block->max_seq >= record->dot.seq &&
                                    cake__block_find(block, record->dot.seq) < CAKE__BLOCK_POSITIONS
                              : position < block->shape.capacity && cake__block_is_occupied(block, position);
    if (is_taken)
        return CAKE_EDUPLICATE;
    if (position >= block->shape.capacity || !cake__block_fits(block, id, record->hlc)) {
        cake__shape_t shape = block->shape;
        uint16_t capacity = cake__block_capacity_for(position + 1);
        shape.capacity = capacity > shape.capacity ? capacity : shape.capacity;
        shape.has_wide_ids = shape.has_wide_ids || id.high != CAKE__NARROW_ID_HIGH;
        shape.has_wide_hlcs =
            shape.has_wide_hlcs || !cake__block_fits(block, (cake__id_pair_t){0, CAKE__NARROW_ID_HIGH}, record->hlc);
        if (!reshape(table, block, shape))
            return CAKE_ENOMEM;
    }
    cake__block_write(block, position, record->dot.seq, id, record->hlc, record->is_tombstone);
    *slot = block->number * CAKE__BLOCK_POSITIONS + position;
    return 0;
}

uint32_t cake__table_slot_of(const cake__table_t *table, cake_dot_t dot)
{
    const cake__lane_t *lane = cake__table_lane(table, dot.actor);
    if (lane == NULL || lane->count == 0)
        return CAKE__SLOT_NONE;
    const cake__block_t *block = cake__lane_block(table, lane, cake__lane_entry_at(lane, dot.seq));
    uint32_t position = cake__block_find(block, dot.seq);
    return position == CAKE__BLOCK_POSITIONS ? CAKE__SLOT_NONE : block->number * CAKE__BLOCK_POSITIONS + position;
}

/* ---- after records were taken out -------------------------------------------------------------------------------- */

bool cake__table_release_if_empty(cake__table_t *table, cake__block_t *block)
{
    if (block->occupied > 0)
        return false;
    cake__lane_t *lane = cake__table_lane(table, block->actor);
    release(table, lane, cake__lane_entry_at(lane, block->first));
    return true;
}

/* Into the sparse neighbour before it, where both together stay small. */
static bool merge_into_previous(cake__table_t *table, cake__lane_t *lane, uint32_t at)
{
    cake__block_t *block = cake__lane_block(table, lane, at);
    cake__block_t *to = at == 0 ? NULL : cake__lane_block(table, lane, at - 1);
    if (to == NULL || !to->shape.is_sparse || block->max_seq >= to->first + CAKE__BLOCK_SPAN_MAX ||
        (uint32_t)to->occupied + block->occupied > CAKE__BLOCK_POSITIONS * 3 / 4)
        return false;
    if (!make_fit(table, to, block))
        return false;
    move_records(table, block, 0, to);
    if (to->tombstones > 0 && lane->first_tombstones > at - 1)
        lane->first_tombstones = at - 1;
    release(table, lane, at);
    return true;
}

void cake__table_settle_now(cake__table_t *table, cake__block_t *block)
{
    if (cake__table_release_if_empty(table, block))
        return;
    cake__lane_t *lane = cake__table_lane(table, block->actor);
    uint32_t at = cake__lane_entry_at(lane, block->first);
    if (at + 1 == lane->count) /* still being filled */
        return;
    bool is_small = block->shape.is_sparse && block->shape.capacity <= SMALL;
    if (!merge_into_previous(table, lane, at) && !is_small)
        (void)pack(table, lane, at);
}
