/* bench-crdt: the set alone. A table for each number of entries; a column for each order and kind of key, a row for
 * each operation: ns of CPU time per operation, medians of the rounds.
 *
 *      bench-crdt [--rounds N] [--kinds order,random,long-order,long-random] [--peer PROGRAM] [--pauses] [ENTRIES...]
 *
 *      --rounds N      5
 *      --pauses        the longest single calls instead, see below
 *      --peer PROGRAM  the Rust set on the same keys (bench/peers/datacake-crdt), in turns with ours; ratios are theirs
 *                      to ours
 *      ENTRIES         100000, which takes seconds; figures are compared at 1000000 and 10000000
 *
 * With --pauses there is no such table, but a row per operation of single calls in wall time, nothing left out: of each
 * of three turns (same calls in the same order) the longest, how many were above 0.5 and above 1 ms, and the same of
 * the calls that were so long in each turn: what is ours is long every time, what the machine does is not. Below, as
 * many calls that only compute, and as many that touch a page of their own: what the machine adds to any program, shown
 * the same way.
 *
 * Otherwise below each table what the machine gives at best: crdt_limits.h. */
#include "crdt/replica.h"
#include "crdt_limits.h"

#define ROUNDS_MAX     15
#define KINDS          4
#define BATCH          1000u
#define PURGE_STEP     10000u
#define DIFF_TRIES     20
#define PAUSE_TURNS    3
#define SLOW_NS        20000.0 /* of one call: what is remembered of it */
#define SLOW_MAX       262144u
#define CALLS_PER_PAGE 192u /* of those that touch pages: 21.3 bytes per entry, as the set takes while it is filled */
#define WALL_MS        UINT64_C(1795342830123)

enum {
    INSERT,
    INSERT_ONE,
    UPDATE,
    UPDATE_ONE,
    GET,
    GET_ONE,
    DELETE,
    DELETE_ONE,
    PURGE,
    DIFF_10,
    DIFF_10K,
    MERGE_10,
    PULL,
    STAGED,
    STAGED_ACTORS,
    FINGERPRINT,
    RANGES,
    SAVE,
    LOAD,
    BYTES,
    SAVED_BYTES,
    READ_ALONE,
    READ_MANY,
    TOUCH,
    TOUCH_LARGE,
    COPY_10K,
    BARE, /* as many rows as it has operations */
    BARE_LAST = BARE + BARE_OPERATIONS - 1,
    ROWS
};

/* name in what the peer prints, or NULL; goals in order and at random, 0: none */
static const struct row {
    const char *title, *peer;
    double goals[2];
} rows[ROWS] = {
    [INSERT] = {"insert, 1000 at a time       ns", NULL, {50, 50}},
    [INSERT_ONE] = {"insert, one at a time        ns", "insert", {0, 0}},
    [UPDATE] = {"update, 1000 at a time       ns", NULL, {50, 60}},
    [UPDATE_ONE] = {"update, one at a time        ns", "update", {0, 0}},
    [GET] = {"get, 1000 at a time          ns", NULL, {25, 35}},
    [GET_ONE] = {"get, one at a time           ns", "get", {0, 0}},
    [DELETE] = {"delete, 1000 at a time       ns", NULL, {60, 70}},
    [DELETE_ONE] = {"delete, one at a time        ns", "delete", {0, 0}},
    [PURGE] = {"purge 10,000, per tombstone  ns", "purge", {5, 5}},
    [DIFF_10] = {"delta of 10                  us", "diff_10", {1, 1}},
    [DIFF_10K] = {"delta of 10,000              us", "diff_10k", {15, 15}},
    [MERGE_10] = {"merge, 10 differences        ms", "merge_10", {1, 1}},
    [PULL] = {"session of all, per record   ns", NULL, {0, 0}},
    [STAGED] = {"a change of one write         ns", NULL, {0, 0}},
    [STAGED_ACTORS] = {"... with 1,000 actors in C    ns", NULL, {0, 0}},
    [FINGERPRINT] = {"fingerprint                  ns", NULL, {0, 0}},
    [RANGES] = {"... of 4,096 ranges, per rec. ns", NULL, {0, 0}},
    [SAVE] = {"save, per record             ns", NULL, {0, 0}},
    [LOAD] = {"load, per record             ns", NULL, {0, 0}},
    [BYTES] = {"bytes per live entry          B", "bytes", {22, 32}},
    [SAVED_BYTES] = {"saved bytes per entry         B", NULL, {0, 0}},
    [READ_ALONE] = {"limit: a read after another  ns", NULL, {0, 0}},
    [READ_MANY] = {"limit: many reads at once    ns", NULL, {0, 0}},
    [TOUCH] = {"limit: first touch of 4 KiB  ns", NULL, {0, 0}},
    [TOUCH_LARGE] = {"limit: ... of 2 MiB, longest  us", NULL, {0, 0}},
    [COPY_10K] = {"limit: a copy of 480 KB      us", NULL, {0, 0}},
    [BARE + BARE_INSERT] = {"limit: bare table, insert    ns", NULL, {0, 0}},
    [BARE + BARE_UPDATE] = {"limit: bare table, update    ns", NULL, {0, 0}},
    [BARE + BARE_GET] = {"limit: bare table, get       ns", NULL, {0, 0}},
    [BARE + BARE_DELETE] = {"limit: bare table, delete    ns", NULL, {0, 0}},
};

static const char *const kinds[KINDS] = {"order", "random", "long-order", "long-random"};

typedef struct work {
    size_t count;
    cake_id_t *ids;   /* in the order of use */
    uint64_t wall_ms; /* moves on as writes do, a thousand per ms */
    cake_record_t *records;
} work_t;

static cake_orswot_t *set_new(uint64_t actor)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set;
    config.actor = actor;
    must_be_ok(cake_orswot_new(&config, &set));
    return set;
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

/* The operation number `at` of a row, of which a step does this many. */
static size_t step_of(int row)
{
    if (row == PURGE)
        return PURGE_STEP;
    return row == INSERT || row == UPDATE || row == GET || row == DELETE ? BATCH : 1;
}

static void operate(cake_orswot_t *set, work_t *work, int row, size_t at)
{
    size_t most = row == PURGE ? PURGE_STEP : BATCH;
    size_t count = work->count - at < most ? work->count - at : most, done = count;
    uint64_t wall_ms = work->wall_ms + at / 1000;
    const cake_id_t *ids = &work->ids[at];
    switch (row) {
    case INSERT:
    case UPDATE:
        must_be_ok(cake_orswot_insert_many(set, wall_ms, ids, count, NULL, &done));
        break;
    case INSERT_ONE:
    case UPDATE_ONE:
        must_be_ok(cake_orswot_insert(set, wall_ms, ids, NULL));
        break;
    case GET:
        done = cake_orswot_get_many(set, ids, count, work->records);
        break;
    case GET_ONE:
        done = cake_orswot_get(set, ids, work->records) ? count : 0;
        break;
    case DELETE:
        must_be_ok(cake_orswot_delete_many(set, wall_ms, ids, count, NULL, &done));
        break;
    case DELETE_ONE:
        must_be_ok(cake_orswot_delete(set, wall_ms, ids, NULL));
        break;
    default:
        must_be_ok(cake_orswot_purge(set, wall_ms + 60000, NULL, 0, 1000, 1000, count, &done));
    }
    if (done != count)
        must_be_ok(CAKE_EINTERNAL);
}

static double all(cake_orswot_t *set, work_t *work, int row)
{
    double began = cpu_ns();
    for (size_t at = 0; at < work->count; at += step_of(row))
        operate(set, work, row, at);
    double took = cpu_ns() - began;
    work->wall_ms += work->count / 1000 + 1;
    return took / (double)work->count;
}

/* ns for all records that one side lacks, the least of some tries */
static double diff_once(cake_orswot_t *set, cake_orswot_t *other, cake_record_t *records, size_t expected)
{
    double best = 1e18;
    for (int i = 0; i < DIFF_TRIES; i++) {
        cake_orswot_cursor_t cursor = {{0}};
        double began = cpu_ns();
        size_t found = cake_orswot_diff(set, other, &cursor, records, expected + 1);
        double took = cpu_ns() - began;
        if (found != expected)
            must_be_ok(CAKE_EINTERNAL);
        best = took < best ? took : best;
    }
    return best;
}

typedef struct tape {
    uint8_t *bytes;
    size_t len, at, capacity;
} tape_t;

static int tape_write(void *ctx, const void *data, size_t len)
{
    tape_t *tape = ctx;
    if (tape->len + len > tape->capacity)
        return CAKE_ENOSPC;
    memcpy(tape->bytes + tape->len, data, len);
    tape->len += len;
    return 0;
}

static int tape_read(void *ctx, void *data, size_t len)
{
    tape_t *tape = ctx;
    size_t part = tape->len - tape->at < len ? tape->len - tape->at : len;
    memcpy(data, tape->bytes + tape->at, part);
    tape->at += part;
    return (int)part;
}

static void save_and_load(cake_orswot_t *set, work_t *work, double *out)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *back;
    tape_t tape = {.capacity = work->count * 24 + 65536};
    tape.bytes = must(malloc(tape.capacity));
    memset(tape.bytes, 1, tape.capacity);
    config.actor = 99;
    double began = cpu_ns();
    must_be_ok(cake_orswot_save(set, tape_write, &tape));
    out[SAVE] = (cpu_ns() - began) / (double)work->count;
    out[SAVED_BYTES] = (double)tape.len / (double)work->count;
    began = cpu_ns();
    must_be_ok(cake_orswot_load(&config, tape_read, &tape, &back));
    out[LOAD] = (cpu_ns() - began) / (double)work->count;
    if (cake_orswot_fingerprint(back) != cake_orswot_fingerprint(set))
        must_be_ok(CAKE_EINTERNAL);
    cake_orswot_free(back);
    free(tape.bytes);
}

static void fingerprints(cake_orswot_t *set, work_t *work, double *out)
{
    volatile uint64_t sum = 0;
    cake_ranges_t *ranges;
    int more;
    double began = cpu_ns();
    for (int i = 0; i < 1000; i++)
        sum += cake_orswot_fingerprint(set);
    out[FINGERPRINT] = (cpu_ns() - began) / 1000;
    began = cpu_ns();
    must_be_ok(cake_ranges_new(set, 12, &ranges));
    while ((more = cake_ranges_step(ranges)) > 0)
        ;
    out[RANGES] = (cpu_ns() - began) / (double)work->count;
    must_be_ok(more);
    cake_ranges_free(ranges);
}

static double merge_with_differences(work_t *work, cake_orswot_t *a, cake_orswot_t *b, size_t differences)
{
    for (size_t i = 0; i < differences / 2; i++) {
        must_be_ok(cake_orswot_insert(a, work->wall_ms, &work->ids[i * 7 % work->count], NULL));
        must_be_ok(cake_orswot_insert(b, work->wall_ms, &work->ids[i * 11 % work->count], NULL));
    }
    double began = cpu_ns();
    must_be_ok(cake_orswot_merge(a, b, work->wall_ms));
    double took = cpu_ns() - began;
    if (!cake_orswot_is_in_sync(a, b) || cake_orswot_fingerprint(a) != cake_orswot_fingerprint(b))
        must_be_ok(CAKE_EINTERNAL);
    return took;
}

/* ---- changes ----------------------------------------------------------------------------------------------------- */

/* What a store does for each batch: a change is staged, made durable, committed; here of a single write. */
static double staged_write(const work_t *work, uint64_t actors)
{
    enum { WRITES = 2000 };
    cake_orswot_t *set = set_new(actors);
    for (uint64_t actor = 1; actor < actors; actor++) { /* each wrote once */
        cake_record_t record = {work->ids[actor], cake_hlc_from_parts(work->wall_ms, 0), {actor, 1}, false};
        must_be_ok(cake_orswot_receive(set, work->wall_ms, &record, CAKE_SOURCE_EAGER, NULL));
    }
    double began = cpu_ns();
    for (size_t i = 0; i < WRITES; i++) {
        cake__change_t *change;
        cake_record_t record;
        must_be_ok(cake__change_begin(set, work->wall_ms + i, &change));
        must_be_ok(cake__change_end(change, cake__change_write(change, &work->ids[i], false, NULL, &record)));
    }
    double took = cpu_ns() - began;
    cake_orswot_free(set);
    return took / WRITES;
}

/* ---- a round ----------------------------------------------------------------------------------------------------- */

static void compare_sets(cake_orswot_t *set, work_t *work, double *out)
{
    cake_orswot_t *copy = set_new(12);
    double began = cpu_ns();
    must_be_ok(cake_orswot_pull(copy, set, work->wall_ms));
    out[PULL] = (cpu_ns() - began) / (double)work->count;
    for (size_t i = 0; i < 10; i++)
        must_be_ok(cake_orswot_insert(set, work->wall_ms, &work->ids[i], NULL));
    out[DIFF_10] = diff_once(set, copy, work->records, 10) / 1e3;
    for (size_t i = 10; i < 10000; i++)
        must_be_ok(cake_orswot_insert(set, work->wall_ms, &work->ids[i], NULL));
    out[DIFF_10K] = diff_once(set, copy, work->records, 10000) / 1e3;
    out[COPY_10K] = measure_copy(work->records, 10000 * sizeof *work->records, DIFF_TRIES) / 1e3;
    must_be_ok(cake_orswot_merge(set, copy, work->wall_ms));
    out[MERGE_10] = merge_with_differences(work, set, copy, 10) / 1e6;
    cake_orswot_free(copy);
}

static void one_round(work_t *work, double *out)
{
    cake_orswot_statistics_t statistics;
    cake_orswot_t *set = set_new(11);
    work->wall_ms = WALL_MS;
    for (int row = INSERT; row <= PURGE; row += 2)
        out[row] = all(set, work, row);
    cake_orswot_free(set);
    measure_bare(work->ids, work->count, BATCH, work->records, &out[BARE]);
    set = set_new(13);
    out[INSERT_ONE] = all(set, work, INSERT_ONE);
    cake_orswot_statistics(set, &statistics);
    out[BYTES] = (double)statistics.bytes / (double)work->count;
    out[STAGED] = staged_write(work, 1);
    out[STAGED_ACTORS] = staged_write(work, 1000);
    save_and_load(set, work, out);
    fingerprints(set, work, out);
    for (int row = UPDATE_ONE; row <= DELETE_ONE; row += 2) {
        if (row == DELETE_ONE)
            compare_sets(set, work, out);
        out[row] = all(set, work, row);
    }
    cake_orswot_free(set);
    reads_t reads = measure_reads((size_t)statistics.bytes);
    out[READ_ALONE] = reads.alone_ns;
    out[READ_MANY] = reads.many_ns;
    out[TOUCH] = reads.touch_ns;
    out[TOUCH_LARGE] = measure_large_touch();
}

/* ---- pauses ------------------------------------------------------------------------------------------------------ */

enum { PAUSE_INSERT, PAUSE_UPDATE, PAUSE_GET, PAUSE_DELETE, PAUSE_PURGE, COMPUTING, TOUCHING, PAUSE_ROWS };

static const struct {
    const char *title;
    int row; /* of the table, or -1: no call of ours */
} pause_rows[PAUSE_ROWS] = {
    [PAUSE_INSERT] = {"insert", INSERT_ONE},
    [PAUSE_UPDATE] = {"update", UPDATE_ONE},
    [PAUSE_GET] = {"get", GET_ONE},
    [PAUSE_DELETE] = {"delete", DELETE_ONE},
    [PAUSE_PURGE] = {"purge of 10,000", PURGE},
    [COMPUTING] = {"noise: computing only", -1},
    [TOUCHING] = {"noise: touching pages", -1},
};

/* Slow calls of a row in one turn: each call's number and time. */
typedef struct slow_calls {
    struct slow_call {
        size_t at;
        double ns;
    } calls[SLOW_MAX];
    size_t count;
} slow_calls_t;

/* Of one operation: the longest call, and how many are long. */
typedef struct pauses {
    double longest_us;
    size_t longest_at, above_half_ms, above_1_ms;
} pauses_t;

/* About as long as an operation of ours that misses no cache. */
static void compute(void)
{
    static volatile uint64_t result;
    uint64_t x = result;
    for (int i = 0; i < 32; i++)
        x = cake__mix64(x + 1);
    result = x;
}

static void time_all(cake_orswot_t *set, work_t *work, int kind, slow_calls_t *slow)
{
    int row = pause_rows[kind].row;
    size_t step = row < 0 ? 1 : step_of(row), page_bytes = (work->count / CALLS_PER_PAGE + 1) * 4096;
    void *memory = fresh_pages(page_bytes);
    volatile uint8_t *pages = memory;
    slow->count = 0;
    for (size_t at = 0; at < work->count; at += step) {
        double began = now_ns(CLOCK_MONOTONIC);
        if (row >= 0)
            operate(set, work, row, at);
        else
            compute();
        if (kind == TOUCHING && at % CALLS_PER_PAGE == 0)
            pages[at / CALLS_PER_PAGE * 4096] = 1;
        double took = now_ns(CLOCK_MONOTONIC) - began;
        if (took > SLOW_NS && slow->count < SLOW_MAX)
            slow->calls[slow->count++] = (struct slow_call){at, took};
    }
    work->wall_ms += work->count / 1000 + 1;
    munmap(memory, page_bytes);
}

/* Keeps in a those that are slow in b too, with the lesser time. */
static void keep_common(slow_calls_t *a, const slow_calls_t *b)
{
    size_t kept = 0, k = 0;
    for (size_t i = 0; i < a->count; i++) {
        while (k < b->count && b->calls[k].at < a->calls[i].at)
            k++;
        if (k == b->count || b->calls[k].at != a->calls[i].at)
            continue;
        double ns = a->calls[i].ns < b->calls[k].ns ? a->calls[i].ns : b->calls[k].ns;
        a->calls[kept++] = (struct slow_call){a->calls[i].at, ns};
    }
    a->count = kept;
}

static pauses_t pauses_of(const slow_calls_t *slow)
{
    pauses_t pauses = {0, 0, 0, 0};
    for (size_t i = 0; i < slow->count; i++) {
        double us = slow->calls[i].ns / 1e3;
        if (us > pauses.longest_us) {
            pauses.longest_us = us;
            pauses.longest_at = slow->calls[i].at;
        }
        pauses.above_half_ms += us > 500;
        pauses.above_1_ms += us > 1000;
    }
    return pauses;
}

/* "320 us (2 > 0.5 ms, 1 > 1 ms)" */
static void print_pauses(const pauses_t *pauses)
{
    if (pauses->longest_us == 0)
        printf("%10s", "< 20");
    else
        printf("%10.0f", pauses->longest_us);
    printf(" %3zu /%3zu |", pauses->above_half_ms, pauses->above_1_ms);
}

static void run_pauses(work_t *work, const char *kind_name)
{
    slow_calls_t *common = must(calloc(PAUSE_ROWS, sizeof *common)), *slow = must(malloc(sizeof *slow));
    pauses_t turns[PAUSE_TURNS][PAUSE_ROWS];
    for (int turn = 0; turn < PAUSE_TURNS; turn++) {
        cake_orswot_t *set = set_new(11);
        work->wall_ms = WALL_MS;
        for (int kind = 0; kind < PAUSE_ROWS; kind++) {
            time_all(set, work, kind, turn == 0 ? &common[kind] : slow);
            turns[turn][kind] = pauses_of(turn == 0 ? &common[kind] : slow);
            if (turn > 0)
                keep_common(&common[kind], slow);
        }
        cake_orswot_free(set);
    }
    printf("%zu entries, %s: longest call us, calls above 0.5 / 1 ms, per turn | in all turns, at call\n", work->count,
           kind_name);
    for (int kind = 0; kind < PAUSE_ROWS; kind++) {
        pauses_t always = pauses_of(&common[kind]);
        printf("%-22s |", pause_rows[kind].title);
        for (int turn = 0; turn < PAUSE_TURNS; turn++)
            print_pauses(&turns[turn][kind]);
        print_pauses(&always);
        printf(" %zu\n", always.longest_at);
    }
    fflush(stdout);
    free(common);
    free(slow);
}

/* ---- the peer ---------------------------------------------------------------------------------------------------- */

/* Lines of a name and a number. */
static void peer_round(const char *program, size_t count, const char *kind, double *out)
{
    char command[512], name[32];
    double value;
    snprintf(command, sizeof command, "'%s' %zu %s", program, count, kind);
    FILE *pipe = must(popen(command, "r"));
    while (fscanf(pipe, "%31s %lf", name, &value) == 2) {
        for (int row = 0; row < ROWS; row++) {
            if (rows[row].peer != NULL && strcmp(rows[row].peer, name) == 0)
                out[row] = value;
        }
    }
    if (pclose(pipe) != 0) {
        fprintf(stderr, "bench-crdt: the peer failed\n");
        exit(1);
    }
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

typedef struct options {
    int rounds;
    bool has_kind[KINDS], wants_pauses;
    const char *peer;
} options_t;

typedef struct column {
    double ours[ROWS], theirs[ROWS];
} column_t;

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void medians(double values[ROUNDS_MAX][ROWS], int rounds, double *out)
{
    for (int row = 0; row < ROWS; row++) {
        double sorted[ROUNDS_MAX];
        for (int i = 0; i < rounds; i++)
            sorted[i] = values[i][row];
        qsort(sorted, (size_t)rounds, sizeof sorted[0], compare_doubles);
        out[row] = sorted[rounds / 2];
    }
}

static void make_ids(work_t *work, bool is_random, bool is_long)
{
    cake__random_t random;
    cake__random_init(&random, 1);
    for (size_t i = 0; i < work->count; i++) {
        work->ids[i] = cake_id_of_u64(i);
        if (is_long) { /* as of keys above 15 bytes: a digest */
            uint64_t words[2] = {cake__mix64(i + 1), cake__mix64(~i)};
            memcpy(work->ids[i].bytes, words, 15);
            work->ids[i].bytes[15] = 0xff;
        }
    }
    for (size_t i = work->count; i-- > 1 && is_random;) {
        size_t k = (size_t)cake__random_below(&random, i + 1);
        cake_id_t swap = work->ids[i];
        work->ids[i] = work->ids[k];
        work->ids[k] = swap;
    }
}

static void run_rounds(const options_t *options, work_t *work, int kind, column_t *column)
{
    static double ours[ROUNDS_MAX][ROWS], theirs[ROUNDS_MAX][ROWS];
    memset(theirs, 0, sizeof theirs);
    for (int i = 0; i < options->rounds; i++) {
        one_round(work, ours[i]);
        if (options->peer != NULL && kind < 2)
            peer_round(options->peer, work->count, kinds[kind], theirs[i]);
    }
    medians(ours, options->rounds, column->ours);
    medians(theirs, options->rounds, column->theirs);
}

static void run_kind(const options_t *options, size_t count, int kind, column_t *column)
{
    work_t work = {.count = count, .ids = must(malloc(count * sizeof(cake_id_t)))};
    work.records = must(malloc(10001 * sizeof *work.records));
    make_ids(&work, kind & 1, kind & 2);
    if (options->wants_pauses)
        run_pauses(&work, kinds[kind]);
    else
        run_rounds(options, &work, kind, column);
    free(work.ids);
    free(work.records);
}

/* digits: as many as mean something */
static void print_cell(double value)
{
    printf("%15.*f", value < 1 ? 3 : value < 10 ? 2 : 1, value);
}

/* How many times as long as the bare table's. */
static void print_ratios_to_bare(const options_t *options, const column_t *columns, int row)
{
    static const int rows_of[BARE_OPERATIONS] = {INSERT, UPDATE, GET, DELETE};
    for (int operation = 0; operation < BARE_OPERATIONS; operation++) {
        if (rows_of[operation] != row)
            continue;
        printf("   of bare:");
        for (int kind = 0; kind < KINDS; kind++) {
            if (options->has_kind[kind])
                printf(" %.2f", columns[kind].ours[row] / columns[kind].ours[BARE + operation]);
        }
    }
}

static void print_rows(const options_t *options, const column_t *columns)
{
    for (int row = 0; row < ROWS; row++) {
        printf("%-31s", rows[row].title);
        for (int kind = 0; kind < KINDS; kind++) {
            if (options->has_kind[kind])
                print_cell(columns[kind].ours[row]);
        }
        if (rows[row].goals[0] != 0)
            printf("   goal %g / %g", rows[row].goals[0], rows[row].goals[1]);
        if (row == BYTES)
            printf(" (8 B / long)");
        print_ratios_to_bare(options, columns, row);
        for (int kind = 0; kind < 2; kind++) {
            if (options->has_kind[kind] && columns[kind].theirs[row] > 0)
                printf("   Rust, %s: %.4g (%.3gx)", kinds[kind], columns[kind].theirs[row],
                       columns[kind].theirs[row] / columns[kind].ours[row]);
        }
        printf("\n");
    }
    fflush(stdout);
}

static void run(const options_t *options, size_t count)
{
    static column_t columns[KINDS];
    memset(columns, 0, sizeof columns);
    for (int kind = 0; kind < KINDS; kind++) {
        if (options->has_kind[kind])
            run_kind(options, count, kind, &columns[kind]);
    }
    if (options->wants_pauses)
        return;
    printf("%-31s", "");
    for (int kind = 0; kind < KINDS; kind++) {
        if (options->has_kind[kind])
            printf("%15s", kinds[kind]);
    }
    printf("   %zu entries, %d rounds\n", count, options->rounds);
    print_rows(options, columns);
}

static int usage(void)
{
    fprintf(stderr,
            "usage: bench-crdt [--rounds 1..%d] [--kinds order,random,long-order,long-random] [--peer PROGRAM]\n"
            "                  [--pauses] [ENTRIES, at least 20000...]\n",
            ROUNDS_MAX);
    return 2;
}

static bool choose_kinds(options_t *options, char *names)
{
    memset(options->has_kind, 0, sizeof options->has_kind);
    for (char *name = strtok(names, ","); name != NULL; name = strtok(NULL, ",")) {
        int kind = 0;
        while (kind < KINDS && strcmp(kinds[kind], name) != 0)
            kind++;
        if (kind == KINDS)
            return false;
        options->has_kind[kind] = true;
    }
    return true;
}

int main(int argc, char **argv)
{
    options_t options = {.rounds = 5, .has_kind = {true, true, true, true}};
    int at = 1;
    for (; at < argc && argv[at][0] == '-'; at++) {
        bool has_value = at + 1 < argc;
        if (strcmp(argv[at], "--pauses") == 0)
            options.wants_pauses = true;
        else if (strcmp(argv[at], "--rounds") == 0 && has_value)
            options.rounds = atoi(argv[++at]);
        else if (strcmp(argv[at], "--peer") == 0 && has_value)
            options.peer = argv[++at];
        else if (strcmp(argv[at], "--kinds") != 0 || !has_value || !choose_kinds(&options, argv[++at]))
            return usage();
    }
    if (options.rounds < 1 || options.rounds > ROUNDS_MAX)
        return usage();
    for (int i = at; i < (argc > at ? argc : at + 1); i++) {
        size_t count = argc > at ? (size_t)strtoull(argv[i], NULL, 10) : 100000;
        if (count < 20000)
            return usage();
        run(&options, count);
    }
    return 0;
}
