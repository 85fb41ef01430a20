/* What a repair between two large sets costs, in one process over bytes: r was away while z deleted some keys and
 * dropped the tombstones, so that the two are compared by ranges.
 *
 *   bench-repair [records (1000000)] [at most so many differences (10000)]
 *
 * A row per number of differences (as many keys deleted as written meanwhile): bytes both ways and round trips; CPU
 * time of all, of both sides; the longest pause of a loop that does one piece at a time (the larger of step, next,
 * answer, take), and of its parts. Then what a walk for fingerprints by range costs per record, and its longest
 * step. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <datacake/orswot.h>

#include "bench.h"

#define WALL_MS UINT64_C(1795342830123)

static double cpu_us(void)
{
    return cpu_seconds() * 1e6;
}

/* CPU time of a piece, and the longest so far: other programs of a busy machine are no pause of ours. */
static double timed(double since_us, double *longest_us)
{
    double took_us = cpu_us() - since_us;
    if (took_us > *longest_us)
        *longest_us = took_us;
    return took_us;
}

static cake_orswot_t *set_new(uint64_t actor)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set;
    config.actor = actor;
    check(cake_orswot_new(&config, &set), "new");
    return set;
}

static cake_id_t id_of(uint64_t number)
{
    return cake_id_of_u64(number * UINT64_C(0x9e3779b97f4a7c15)); /* keys in no order */
}

static void fill(cake_orswot_t *set, uint64_t first, uint64_t count, uint64_t wall_ms)
{
    for (uint64_t i = first; i < first + count; i++) {
        cake_id_t id = id_of(i);
        check(cake_orswot_insert(set, wall_ms + (i - first) / 1000, &id, NULL), "insert");
    }
}

typedef struct figures {
    size_t bytes, rounds;
    double step_us, answer_us, next_us, take_us, all_us;
} figures_t;

static void repair(cake_orswot_t *r, cake_orswot_t *z, uint64_t wall_ms, uint64_t number, figures_t *figures)
{
    cake_pull_t *pull;
    cake_answer_t *answer;
    cake_slice_t request, reply;
    double begin_us = cpu_us(), since_us;
    check(cake_pull_new(r, number, &pull), "pull");
    check(cake_answer_new(z, number, &answer), "answer");
    for (;;) {
        int more;
        do {
            since_us = cpu_us();
            more = cake_pull_step(pull);
            (void)timed(since_us, &figures->step_us);
        } while (more > 0);
        do {
            since_us = cpu_us();
            more = cake_answer_step(answer);
            (void)timed(since_us, &figures->step_us);
        } while (more > 0);
        since_us = cpu_us();
        int result = cake_pull_next(pull, &request);
        (void)timed(since_us, &figures->next_us);
        if (result <= 0) {
            check(result, "session");
            break;
        }
        since_us = cpu_us();
        check(cake_answer_next(answer, request, &reply), "answer");
        (void)timed(since_us, &figures->answer_us);
        since_us = cpu_us();
        check(cake_pull_take(pull, wall_ms, reply), "take");
        (void)timed(since_us, &figures->take_us);
        figures->bytes += request.len + reply.len;
        figures->rounds++;
    }
    cake_pull_free(pull);
    cake_answer_free(answer);
    figures->all_us = cpu_us() - begin_us;
}

static void row(cake_orswot_t *r, cake_orswot_t *z, uint64_t records, uint64_t differences, uint64_t *written)
{
    figures_t figures = {0};
    uint64_t wall_ms = WALL_MS + (records + *written) / 1000 + 100000;
    for (uint64_t i = 0; i < differences; i++) {
        cake_id_t gone = id_of(*written + i);
        check(cake_orswot_delete(z, wall_ms, &gone, NULL), "delete");
    }
    fill(z, records + *written, differences, wall_ms);
    *written += differences;
    check(cake_orswot_purge(z, wall_ms + 10000, NULL, 0, 0, 0, SIZE_MAX, NULL), "purge");
    repair(r, z, wall_ms + 10000, differences, &figures);
    check(cake_orswot_is_in_sync(r, z) && cake_orswot_fingerprint(r) == cake_orswot_fingerprint(z) ? 0 : CAKE_EINTERNAL,
          "equal sets");
    printf("%11llu %12zu %6zu %10.1f %11.0f %9.0f %9.0f %9.0f\n", (unsigned long long)differences, figures.bytes,
           figures.rounds, figures.all_us / 1000, figures.step_us, figures.next_us, figures.answer_us, figures.take_us);
}

static void walk(cake_orswot_t *set, uint64_t records)
{
    cake_ranges_t *ranges;
    double longest_us = 0, all_us = 0;
    int more;
    check(cake_ranges_new(set, 16, &ranges), "ranges");
    do {
        double since_us = cpu_us();
        more = cake_ranges_step(ranges);
        all_us += timed(since_us, &longest_us);
    } while (more > 0);
    printf("fingerprints of 65536 ranges: %.1f ns per record, longest step %.0f us\n", all_us * 1000 / (double)records,
           longest_us);
    cake_ranges_free(ranges);
}

int main(int argc, char **argv)
{
    uint64_t records = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    uint64_t most = argc > 2 ? strtoull(argv[2], NULL, 10) : 10000, written = 0;
    cake_orswot_t *r = set_new(1), *z = set_new(2);
    fill(z, 0, records, WALL_MS);
    check(cake_orswot_pull(r, z, WALL_MS + records / 1000 + 1000), "pull");
    printf("%llu records\n%11s %12s %6s %10s %11s %9s %9s %9s\n", (unsigned long long)records, "differences", "bytes",
           "rounds", "CPU ms", "longest: step", "next", "answer", "take us");
    for (uint64_t differences = 1; differences <= most; differences *= 10)
        row(r, z, records, differences, &written);
    walk(z, records);
    cake_orswot_free(r);
    cake_orswot_free(z);
    return 0;
}
