/* peer-storage: three copies of raw SQLite or raw LMDB, a process each: what the storages themselves leave a replicated
 * store to reach.
 *
 *   peer-storage sqlite|lmdb chain|apart DIR
 *
 *   chain   a batch is committed at the first, then at the other two at once, then the next one begins: what a store
 *           does whose every write is durable on all three before its answer, without all that it does besides
 *   apart   each commits batches of its own, and waits for nobody
 *
 * Prints "ready", then answers each line "put LEVEL WRITERS SECONDS COUNT" like bench-store: batches of WRITERS
 * rows, under the keys that bench-store writes to. The CPU is that of the three. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../storage_engines.h"

#define COPIES 3
#define KEYS   100000

typedef struct order {
    double seconds; /* 0: one batch */
    uint64_t first;
    uint32_t count;
} order_t;

typedef struct report {
    uint64_t done;
    double cpu_s;
} report_t;

typedef struct copy {
    pid_t process;
    int to;
    report_t last;
} copy_t;

static double cpu_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- a copy ------------------------------------------------------------------------------------------------------ */

static void serve(const engine_t *engine, const char *dir, int from)
{
    order_t order;
    report_t report = {0};
    void *state = engine->open(dir);
    while (read(from, &order, sizeof order) == sizeof order) {
        double end = now_s() + order.seconds;
        uint64_t first = order.first;
        do {
            engine->write(state, first % KEYS, order.count);
            first += order.count;
            report.done += order.count;
        } while (now_s() < end);
        report.cpu_s = cpu_now_s();
        check(write(from, &report, sizeof report) == sizeof report, "an answer");
    }
    engine->close(state);
}

static void start(copy_t *copies, int number, const engine_t *engine, const char *dir)
{
    int ends[2];
    char path[256];
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair");
    snprintf(path, sizeof path, "%s/raw-%d", dir, number);
    fflush(stdout);
    copies[number] = (copy_t){.process = fork(), .to = ends[0]};
    check(copies[number].process >= 0, "fork");
    if (copies[number].process == 0) {
        check(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl");
        for (int i = 0; i <= number; i++)
            close(copies[i].to);
        serve(engine, path, ends[1]);
        _exit(0);
    }
    close(ends[1]);
}

static void ask(const copy_t *copy, order_t order)
{
    check(write(copy->to, &order, sizeof order) == sizeof order, "an order");
}

static void hear(copy_t *copy)
{
    check(read(copy->to, &copy->last, sizeof copy->last) == sizeof copy->last, "a copy");
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static void write_chain(copy_t *copies, order_t order)
{
    for (double end = now_s() + order.seconds; now_s() < end; order.first += order.count) {
        const order_t one = {0, order.first, order.count};
        ask(&copies[0], one);
        hear(&copies[0]);
        for (int i = 1; i < COPIES; i++)
            ask(&copies[i], one);
        for (int i = 1; i < COPIES; i++)
            hear(&copies[i]);
    }
}

static void write_apart(copy_t *copies, order_t order)
{
    for (int i = 0; i < COPIES; i++)
        ask(&copies[i], order);
    for (int i = 0; i < COPIES; i++)
        hear(&copies[i]);
}

static report_t sum(const copy_t *copies)
{
    report_t all = {0};
    for (int i = 0; i < COPIES; i++) {
        all.done += copies[i].last.done;
        all.cpu_s += copies[i].last.cpu_s;
    }
    return all;
}

static void answer_rows(copy_t *copies, bool is_chain, const char *kind)
{
    char line[128], op[8], level[32];
    order_t order = {0};
    while (fgets(line, sizeof line, stdin) != NULL) {
        check(sscanf(line, "%7s %31s %" SCNu32 " %lf", op, level, &order.count, &order.seconds) == 4 && order.count > 0,
              line);
        write_chain(copies, (order_t){1e-9, 0, 1}); /* so that all have said what they spent so far */
        report_t before = sum(copies);
        double begin = now_s();
        (is_chain ? write_chain : write_apart)(copies, order);
        double took = now_s() - begin;
        report_t after = sum(copies);
        double done = (double)(after.done - before.done) / COPIES;
        order.first += (uint64_t)done;
        printf("row raw %d %s %s %s %" PRIu32 " %.0f %.2f %.0f 0\n", COPIES, kind, op, level, order.count, done / took,
               (after.cpu_s - before.cpu_s) * 1e6 / done, done);
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    copy_t copies[COPIES];
    check(argc == 4, "peer-storage sqlite|lmdb chain|apart DIR");
    bool is_chain = strcmp(argv[2], "chain") == 0;
    const engine_t *engine = NULL;
    for (size_t i = 0; i < ENGINES; i++)
        if (!engines[i].is_ours && strcmp(engines[i].name + strlen("raw "), argv[1]) == 0)
            engine = &engines[i];
    check(engine != NULL && (is_chain || strcmp(argv[2], "apart") == 0), "what is to be measured");
    memset(value, 'v', sizeof value);
    key_bytes = 8;
    sequential = UINT64_MAX;
    for (int i = 0; i < COPIES; i++)
        start(copies, i, engine, argv[3]);
    puts("ready");
    fflush(stdout);
    answer_rows(copies, is_chain, argv[1]);
    for (int i = 0; i < COPIES; i++)
        close(copies[i].to);
    for (int i = 0; i < COPIES; i++)
        (void)waitpid(copies[i].process, NULL, 0);
    return 0;
}
