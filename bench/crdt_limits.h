/* crdt_limits.h: what the machine gives to any set, measured beside ours in the same run: reads, first touches, and a
 * bare table.
 *
 *      index: 4/3 cells per id, [tag 32 | record 32]    records: [key 8 | stamp 8] in the order of writes, never moved
 *
 * The bare table does the least that a set with deltas must: one line of an index and one record per operation, both
 * fetched ahead as ours are, a write put behind all others, a bit for the one before it. It has no growth (all is as
 * large as it will be from the start), no counts, no fingerprint, no context, no stamps from a clock, no way to give
 * memory back, and its keys have eight bytes. */
#ifndef CAKE_BENCH_CRDT_LIMITS_H
#define CAKE_BENCH_CRDT_LIMITS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <datacake/orswot.h>

#include "base/random.h"

static inline double now_ns(clockid_t clock)
{
    struct timespec at;
    clock_gettime(clock, &at);
    return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

/* CPU time, so that other programs on the machine count less. */
static inline double cpu_ns(void)
{
    return now_ns(CLOCK_THREAD_CPUTIME_ID);
}

static inline void must_be_ok(int err)
{
    if (err != 0) {
        fprintf(stderr, "bench-crdt: %s\n", cake_strerror(err));
        exit(1);
    }
}

static inline void *must(void *memory)
{
    if (memory == NULL)
        must_be_ok(CAKE_ENOMEM);
    return memory;
}

/* Pages that nobody has touched, whatever the heap keeps. */
static inline void *fresh_pages(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return must(memory == MAP_FAILED ? NULL : memory);
}

/* ---- reads ------------------------------------------------------------------------------------------------------- */

typedef struct line {
    uint32_t next;
    uint8_t rest[60];
} line_t;

typedef struct reads {
    double alone_ns, many_ns, touch_ns; /* a read after another, many at once, the first touch of 4 KiB */
} reads_t;

static inline reads_t measure_reads(size_t bytes)
{
    enum { READS = 1000000, AHEAD = 24 };
    size_t count = bytes / sizeof(line_t);
    uint32_t *order = must(malloc(count * sizeof *order)), at = 0;
    line_t *lines = fresh_pages(count * sizeof *lines);
    reads_t reads;
    cake__random_t random;
    cake__random_init(&random, 2);
    volatile line_t *touched = lines;
    volatile uint32_t used;
    double began = cpu_ns();
    for (size_t i = 0; i < count; i += 4096 / sizeof(line_t))
        touched[i].next = 0;
    reads.touch_ns = (cpu_ns() - began) / (double)(bytes / 4096);
    for (size_t i = 0; i < count; i++)
        order[i] = (uint32_t)i;
    for (size_t i = count; i-- > 1;) {
        size_t k = (size_t)cake__random_below(&random, i + 1);
        uint32_t swap = order[i];
        order[i] = order[k];
        order[k] = swap;
    }
    for (size_t i = 0; i < count; i++)
        lines[order[i]].next = order[(i + 1) % count];
    began = cpu_ns();
    for (size_t i = 0; i < READS; i++)
        at = lines[at].next;
    reads.alone_ns = (cpu_ns() - began) / READS;
    began = cpu_ns();
    for (size_t i = 0; i < READS; i++) {
        __builtin_prefetch(&lines[order[(i * 7 + AHEAD * 7) % count]]);
        at += lines[order[i * 7 % count]].next;
    }
    reads.many_ns = (cpu_ns() - began) / READS;
    used = at;
    (void)used;
    free(order);
    munmap(lines, count * sizeof *lines);
    return reads;
}

/* The longest first touch of 2 MiB at a time, if the system gives such pages, in us: why a set does not ask for
 * them. */
static inline double measure_large_touch(void)
{
    enum { PAGE = 2 << 20, PAGES = 64 };
    double longest_ns = 0;
    uint8_t *memory = fresh_pages((PAGES + 1) * (size_t)PAGE);
    volatile uint8_t *pages = (uint8_t *)(((uintptr_t)memory + PAGE - 1) & ~(uintptr_t)(PAGE - 1));
    (void)madvise((void *)(uintptr_t)pages, PAGES * (size_t)PAGE, MADV_HUGEPAGE);
    for (size_t i = 0; i < PAGES; i++) {
        double began = cpu_ns();
        pages[i * PAGE] = 1;
        double took = cpu_ns() - began;
        longest_ns = took > longest_ns ? took : longest_ns;
    }
    munmap(memory, (PAGES + 1) * (size_t)PAGE);
    return longest_ns / 1e3;
}

/* The least ns of some copies of that many bytes: a delta writes as many. */
static inline double measure_copy(void *to, size_t bytes, int tries)
{
    uint8_t *from = must(malloc(bytes));
    double best = 1e18;
    memset(from, 1, bytes);
    for (int i = 0; i < tries; i++) {
        double began = cpu_ns();
        memcpy(to, from, bytes);
        double took = cpu_ns() - began;
        from[i] = ((volatile uint8_t *)to)[i + 1];
        best = took < best ? took : best;
    }
    free(from);
    return best;
}

/* ---- the bare table ---------------------------------------------------------------------------------------------- */

enum { BARE_INSERT, BARE_UPDATE, BARE_GET, BARE_DELETE, BARE_OPERATIONS };

typedef struct bare_record {
    uint64_t key, hlc;
} bare_record_t;

typedef struct bare {
    uint64_t *index; /* 0: none */
    bare_record_t *records;
    uint64_t *gone; /* a bit per record */
    size_t cells;
    uint32_t count; /* the first record is 1 */
} bare_t;

static inline uint64_t bare_hash(const cake_id_t *id, uint64_t *key)
{
    memcpy(key, id->bytes, sizeof *key);
    unsigned __int128 product = (unsigned __int128)(*key ^ UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xa0761d6478bd642f);
    uint64_t folded = (uint64_t)product ^ (uint64_t)(product >> 64);
    product = (unsigned __int128)folded * UINT64_C(0xe7037ed1a0b428db);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t *bare_cell(const bare_t *bare, uint64_t hash)
{
    return &bare->index[(size_t)(((unsigned __int128)hash * bare->cells) >> 64)];
}

/* The cell of a key, or the empty one where it would be. */
static inline uint64_t *bare_find(const bare_t *bare, uint64_t hash, uint64_t key)
{
    uint64_t *cell = bare_cell(bare, hash);
    while (*cell != 0 && (*cell >> 32 != (uint32_t)hash || bare->records[(uint32_t)*cell].key != key))
        cell = cell + 1 == bare->index + bare->cells ? bare->index : cell + 1;
    return cell;
}

static inline void bare_operate(bare_t *bare, int operation, const cake_id_t *ids, size_t count, cake_record_t *out)
{
    enum { AHEAD = 10, RING = 32 };
    uint64_t hashes[RING], keys[RING];
    for (size_t i = 0; i < count + 2 * AHEAD; i++) {
        if (i < count) {
            hashes[i % RING] = bare_hash(&ids[i], &keys[i % RING]);
            __builtin_prefetch(bare_cell(bare, hashes[i % RING]), 1);
        }
        if (i >= AHEAD && i - AHEAD < count)
            __builtin_prefetch(&bare->records[(uint32_t)*bare_cell(bare, hashes[(i - AHEAD) % RING])]);
        if (i < 2 * AHEAD)
            continue;
        size_t at = i - 2 * AHEAD;
        uint64_t hash = hashes[at % RING], key = keys[at % RING], *cell = bare_find(bare, hash, key);
        uint32_t held = (uint32_t)*cell;
        if (operation == BARE_GET) {
            out[at] = (cake_record_t){ids[at], bare->records[held].hlc, {1, held}, false};
            continue;
        }
        bare->gone[held / 64] |= UINT64_C(1) << held % 64;
        bare->records[++bare->count] = (bare_record_t){key, (uint64_t)bare->count << 1 | (operation == BARE_DELETE)};
        *cell = (hash & UINT32_MAX) << 32 | bare->count;
    }
}

/* ns per operation, in batches. out: of as many records as a batch */
static inline void measure_bare(const cake_id_t *ids, size_t count, size_t batch, cake_record_t *out, double *ns)
{
    size_t cells = count + count / 3, writes = 3 * count + 1, words = writes / 64 + 1;
    bare_t bare = {fresh_pages(cells * sizeof(uint64_t)), fresh_pages(writes * sizeof(bare_record_t)),
                   fresh_pages(words * sizeof(uint64_t)), cells, 0};
    for (int operation = 0; operation < BARE_OPERATIONS; operation++) {
        double began = cpu_ns();
        for (size_t at = 0; at < count; at += batch)
            bare_operate(&bare, operation, &ids[at], count - at < batch ? count - at : batch, out);
        ns[operation] = (cpu_ns() - began) / (double)count;
    }
    if (bare.count != 3 * count)
        must_be_ok(CAKE_EINTERNAL);
    munmap(bare.index, cells * sizeof(uint64_t));
    munmap(bare.records, writes * sizeof(bare_record_t));
    munmap(bare.gone, words * sizeof(uint64_t));
}

#endif
