/* A service of one's own in simulated clusters: each node hands out numbers, none ever twice, and keeps the last
 * one in its store. With --fixed it writes each before it answers; without, every fourth, to save time: the
 * simulator finds the crash after which a number is given out again, and makes the run small. cc sim_service.c
 * $(pkg-config --cflags --libs datacake datacake-sim) */
#include <datacake/datacake.h>
#include <datacake/sim.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES_MAX   64
#define NUMBERS_MAX 1024

/* ---- the service, as it would run on a machine ---- */

typedef struct tickets {
    cake_store_t *store;
    uint16_t node_id;
    uint64_t last;
    bool is_fixed;
} tickets_t;

typedef struct answer {
    cake_rpc_call_t *call;
    uint64_t number;
} answer_t;

static void on_written(const cake_result_t *result, void *arg)
{
    answer_t *answer = arg;
    if (result->err == 0)
        cake_rpc_reply(answer->call, &answer->number, sizeof answer->number);
    else
        cake_rpc_fail(answer->call, result->err, NULL);
    free(answer);
}

static void next(cake_rpc_call_t *call, void *arg)
{
    tickets_t *tickets = arg;
    uint64_t number = ++tickets->last;
    if (!tickets->is_fixed && number % 4 != 0) { /* the bug */
        cake_rpc_reply(call, &number, sizeof number);
        return;
    }
    answer_t *answer = malloc(sizeof *answer);
    int err = CAKE_ENOMEM;
    if (answer != NULL) {
        *answer = (answer_t){call, number};
        err = cake_store_put_async(tickets->store, "tickets", cake_key_u64(tickets->node_id), &number, sizeof number,
                                   CAKE_NONE, on_written, answer);
    }
    if (err != 0) {
        free(answer);
        cake_rpc_fail(call, err, NULL);
    }
}

static int start_tickets(tickets_t *tickets, cake_node_t *node, cake_store_t *store)
{
    static const cake_rpc_method_t methods[] = {{"next", next, 0}};
    cake_rpc_service_t service = {"tickets", methods, 1, tickets, NULL};
    cake_doc_t *doc = NULL;
    tickets->store = store;
    tickets->last = 0;
    int err = cake_store_get(store, "tickets", cake_key_u64(tickets->node_id), &doc);
    if (err == 0)
        memcpy(&tickets->last, cake_doc_value(doc).data, sizeof tickets->last);
    cake_doc_free(doc);
    return err == 0 || err == CAKE_ENOTFOUND ? cake_node_add_service(node, &service) : err;
}

/* ---- the simulation ---- */

typedef struct run {
    tickets_t tickets[NODES_MAX];
    bool is_taken[NODES_MAX][NUMBERS_MAX];
} run_t;

typedef struct question {
    cake_sim_t *sim;
    run_t *run;
    uint16_t asked;
} question_t;

static void *begin(cake_sim_t *sim, void *arg)
{
    (void)sim;
    run_t *run = calloc(1, sizeof *run);
    if (run == NULL)
        abort();
    for (uint16_t id = 0; id < NODES_MAX; id++)
        run->tickets[id] = (tickets_t){.node_id = id, .is_fixed = *(bool *)arg};
    return run;
}

static int start(void *run, cake_sim_t *sim, uint16_t id, cake_node_t *node, cake_store_t *store)
{
    (void)sim;
    return start_tickets(&((run_t *)run)->tickets[id], node, store);
}

static void on_number(cake_reply_t *reply, void *arg)
{
    question_t *question = arg;
    uint64_t number;
    if (cake_reply_err(reply) == 0) {
        memcpy(&number, cake_reply_body(reply).data, sizeof number);
        bool *is_taken = &question->run->is_taken[question->asked][number % NUMBERS_MAX];
        cake_sim_note(question->sim, "node %u gives out number %u", question->asked, (unsigned)number);
        if (*is_taken)
            cake_sim_fail(question->sim, "tickets", "node %u gives out number %u twice", question->asked,
                          (unsigned)number);
        *is_taken = true;
    }
    cake_reply_free(reply);
}

static void step(void *arg, cake_sim_t *sim, uint16_t id, cake_node_t *node, cake_store_t *store)
{
    (void)id;
    (void)store;
    static question_t questions[NODES_MAX]; /* kept: a crash takes the callback along */
    run_t *run = arg;
    uint16_t asked = (uint16_t)(cake_sim_draw(sim) % cake_sim_node_count(sim) + 1);
    cake_channel_t *channel;
    questions[asked] = (question_t){sim, run, asked};
    if (cake_node_channel(node, asked, &channel) == 0)
        cake_channel_call_async(channel, "/tickets/next", NULL, 0, NULL, on_number, &questions[asked], NULL);
}

int main(int argc, char **argv)
{
    bool is_fixed = argc > 1 && strcmp(argv[1], "--fixed") == 0;
    cake_sim_workload_t workload = {
        .size = sizeof workload, .arg = &is_fixed, .begin = begin, .end = free, .start = start, .step = step};
    cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
    cake_sim_result_t result;
    options.workload = &workload;
    options.faults = CAKE_SIM_ALL & ~CAKE_SIM_DISK_LOSS; /* whose disk is lost forgets its numbers, rightly */
    for (uint64_t seed = 1; seed <= 30; seed++) {
        if (cake_sim_run(seed, &options, &result) != 0)
            return 1;
        if (result.ok)
            continue;
        char faults[512];
        unsigned runs = cake_sim_shrink(seed, &options, &result, 400);
        cake_sim_faults_format(options.faults, faults, sizeof faults);
        printf("seed %u fails; after %u runs: seed %u, %u nodes, %u s, %u steps, faults: %s\n%s\n", (unsigned)seed,
               runs, (unsigned)result.seed, (unsigned)options.nodes, (unsigned)options.seconds, (unsigned)options.steps,
               faults, result.violation);
        return is_fixed ? 1 : 0;
    }
    printf("30 seeds, no number twice\n");
    return is_fixed ? 0 : 1; /* the bug is there to be found */
}
