/* verify.c: fingerprints by range for who compares replicas from outside (ranges.h has how). */
#include "crdt/ranges.h"
#include "crdt/set.h"

struct cake_ranges {
    cake_orswot_t *set;
    cake__context_t known; /* C at the beginning */
    uint64_t epoch;
    cake__range_build_t build;
    cake__walk_t walk; /* of a range that is listed */
    uint32_t bits, index;
};

uint64_t cake_orswot_position(const cake_id_t *id)
{
    return cake__range_position(cake__id_pair(id));
}

int cake_ranges_new(cake_orswot_t *set, uint32_t bits, cake_ranges_t **out)
{
    *out = NULL;
    if (bits > CAKE_RANGE_BITS_MAX || bits % CAKE_RANGE_BITS_STEP != 0)
        return CAKE_EINVAL;
    int err = cake__orswot_finish_loading(set);
    cake_ranges_t *made = err == 0 ? cake__calloc(set->alloc, 1, sizeof *made) : NULL;
    if (made == NULL)
        return err != 0 ? err : CAKE_ENOMEM;
    made->set = set;
    made->epoch = set->epoch;
    cake__context_init(&made->known, set->alloc);
    err = cake__context_copy(&made->known, &set->summary.context);
    if (err == 0)
        err = cake__range_build_init(&made->build, set->alloc, bits, &made->known, &made->known, UINT64_MAX);
    if (err == 0)
        err = cake__walk_init(&made->walk, set->alloc, &made->known);
    if (err != 0) {
        cake_ranges_free(made);
        return err;
    }
    *out = made;
    return 0;
}

void cake_ranges_free(cake_ranges_t *ranges)
{
    if (ranges == NULL)
        return;
    const cake_alloc_t *alloc = ranges->set->alloc;
    cake__context_free(&ranges->known);
    cake__range_build_free(&ranges->build);
    cake__walk_free(&ranges->walk);
    cake__free(alloc, ranges);
}

int cake_ranges_step(cake_ranges_t *ranges)
{
    if (ranges->build.is_done)
        return 0;
    int err = cake__range_build_step(&ranges->build, &ranges->set->table, ranges->set->repair.step_records);
    return err != 0 ? err : !ranges->build.is_done;
}

bool cake_ranges_are_exact(const cake_ranges_t *ranges)
{
    return ranges->build.is_done && ranges->epoch == ranges->set->epoch &&
           cake__context_equal(&ranges->known, &ranges->set->summary.context);
}

uint64_t cake_ranges_fingerprint(const cake_ranges_t *ranges, uint32_t bits, uint32_t index, uint64_t *count)
{
    const cake__ranges_t *sums = &ranges->build.ranges;
    bool is_there =
        ranges->build.is_done && bits <= sums->bits && bits % CAKE_RANGE_BITS_STEP == 0 && (uint64_t)index >> bits == 0;
    if (count != NULL)
        *count = is_there ? cake__ranges_count(sums, bits, index) : 0;
    return is_there ? cake__ranges_sum(sums, bits, index) : 0;
}

void cake_ranges_seek(cake_ranges_t *ranges, uint32_t bits, uint32_t index)
{
    ranges->walk.cursor = (cake__context_cursor_t){0};
    ranges->walk.run = (cake__run_t){1, 0};
    ranges->bits = bits;
    ranges->index = index;
}

int cake_ranges_next(cake_ranges_t *ranges, cake_record_t *records, size_t *count)
{
    size_t read;
    *count = 0;
    if (!cake__walk_next(&ranges->walk, &ranges->set->table, &read))
        return 0;
    for (size_t i = 0; i < read; i++) {
        const cake_record_t *record = &ranges->walk.records[i];
        uint64_t position = cake__range_position(cake__id_pair(&record->id));
        if (!record->is_tombstone && cake__range_index(position, ranges->bits) == ranges->index)
            records[(*count)++] = *record;
    }
    return 1;
}

int cake_orswot_fingerprint_range(cake_orswot_t *set, uint64_t from, uint64_t to, uint64_t *fingerprint,
                                  uint64_t *count)
{
    cake__walk_t walk;
    uint64_t sum = 0, live = 0;
    size_t read;
    int err = cake__orswot_finish_loading(set);
    if (err == 0)
        err = cake__walk_init(&walk, set->alloc, &set->summary.context);
    if (err != 0)
        return err;
    while (cake__walk_next(&walk, &set->table, &read)) {
        for (size_t i = 0; i < read; i++) {
            cake__id_pair_t id = cake__id_pair(&walk.records[i].id);
            uint64_t position = cake__range_position(id);
            if (walk.records[i].is_tombstone || position < from || position > to)
                continue;
            sum += cake__fingerprint_of(id, walk.records[i].dot);
            live++;
        }
    }
    cake__walk_free(&walk);
    *fingerprint = sum;
    if (count != NULL)
        *count = live;
    return 0;
}
