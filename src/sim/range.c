/* Many seeds; each twentieth twice. Smaller runs that fail too. Names of faults. */
#include "sim/sim.h"

#include <stdio.h>

#define TWICE_ONE_IN 20u

static const struct {
    const char *name;
    uint32_t bit;
} fault_names[] = {
#define CAKE_SIM_FAULT_NAME(symbol, bit, name, text) {name, UINT32_C(1) << (bit)},
    CAKE_SIM_FAULTS(CAKE_SIM_FAULT_NAME)
#undef CAKE_SIM_FAULT_NAME
};

/* ---- many ---------------------------------------------------------------------------------------------------------*/

static void run_twice(uint64_t seed, const cake_sim_options_t *options, cake_sim_result_t *result)
{
    cake_sim_options_t silent = *options;
    cake_sim_result_t *again = cake__sim_alloc(sizeof *again);
    silent.trace = NULL;
    silent.has_log = false;
    (void)cake_sim_run(seed, &silent, again);
    if (again->trace_hash != result->trace_hash) {
        result->ok = false;
        snprintf(result->violation, sizeof result->violation, "determinism: a second run has the hash %llx, not %llx",
                 (unsigned long long)again->trace_hash, (unsigned long long)result->trace_hash);
    }
    cake__free(&cake__libc_alloc, again);
}

/* What cannot be run has failed: whoever only looks at the number must not take it for a success. */
uint64_t cake_sim_run_range(const cake_sim_range_t *given, const cake_sim_options_t *given_options)
{
    cake_sim_range_t range;
    cake_sim_options_t options = CAKE_SIM_OPTIONS_INIT;
    if (cake__options_copy(&range, sizeof range, given) != 0 ||
        (given_options != NULL && cake__options_copy(&options, sizeof options, given_options) != 0))
        return 1;
    cake_sim_result_t *result = cake__sim_alloc(sizeof *result);
    uint64_t failures = 0, most = range.failures_max != 0 ? range.failures_max : 1;
    for (uint64_t i = 0; i < range.count && failures < most; i++) {
        uint64_t seed = range.from + i;
        if (range.begin != NULL)
            range.begin(range.arg, seed);
        if (cake_sim_run(seed, &options, result) != 0) {
            failures++;
            break;
        }
        if (result->ok && seed % TWICE_ONE_IN == 0)
            run_twice(seed, &options, result);
        failures += !result->ok;
        if (range.done != NULL && range.done(range.arg, result) != 0)
            break;
    }
    cake__free(&cake__libc_alloc, result);
    return failures;
}

/* ---- smaller --------------------------------------------------------------------------------------------------------
 * A seed with fewer faults is another run: the smaller options are tried with the seed that fails now and with the
 * first few numbers, and count when the same checker objects. */

#define OTHER_SEEDS 8u

typedef struct {
    cake_sim_options_t *best;
    cake_sim_result_t *result;
    unsigned runs, runs_max;
} shrinking_t;

static bool is_same_checker(const cake_sim_result_t *a, const cake_sim_result_t *b)
{
    size_t len = strcspn(a->violation, ",");
    return len == strcspn(b->violation, ",") && memcmp(a->violation, b->violation, len) == 0;
}

static bool try_smaller(shrinking_t *shrinking, const cake_sim_options_t *smaller)
{
    cake_sim_result_t *result = cake__sim_alloc(sizeof *result);
    uint64_t first = shrinking->result->seed;
    bool fails = false;
    for (uint64_t other = 0; other <= OTHER_SEEDS && !fails && shrinking->runs < shrinking->runs_max; other++) {
        shrinking->runs++;
        fails = cake_sim_run(other == 0 ? first : other, smaller, result) == 0 && !result->ok &&
                is_same_checker(shrinking->result, result);
    }
    if (fails) {
        *shrinking->best = *smaller;
        *shrinking->result = *result;
    }
    cake__free(&cake__libc_alloc, result);
    return fails;
}

static bool shrink_number(shrinking_t *shrinking, size_t offset, uint32_t least)
{
    bool has_shrunk = false;
    for (uint32_t part = 2; part <= 8; part *= 2) {
        cake_sim_options_t smaller = *shrinking->best;
        uint32_t *number = (uint32_t *)(void *)((char *)&smaller + offset);
        uint32_t less = *number - *number / part;
        if (less < least || less == *number)
            continue;
        *number = less;
        if (try_smaller(shrinking, &smaller)) {
            has_shrunk = true;
            part = 1;
        }
    }
    return has_shrunk;
}

static bool try_faults(shrinking_t *shrinking, uint32_t faults)
{
    cake_sim_options_t smaller = *shrinking->best;
    smaller.faults = faults != 0 ? faults : CAKE_SIM_NOTHING;
    return smaller.faults != shrinking->best->faults && try_smaller(shrinking, &smaller);
}

/* None at all, one alone, then all but one. */
static bool shrink_faults(shrinking_t *shrinking)
{
    uint32_t faults = shrinking->best->faults;
    if (faults == CAKE_SIM_NOTHING)
        return false;
    if (try_faults(shrinking, 0))
        return true;
    for (size_t i = 0; i < CAKE_COUNT_OF(fault_names); i++) {
        if ((faults & fault_names[i].bit) != 0 && try_faults(shrinking, fault_names[i].bit))
            return true;
    }
    bool has_shrunk = false;
    for (size_t i = 0; i < CAKE_COUNT_OF(fault_names); i++) {
        if ((shrinking->best->faults & fault_names[i].bit) != 0)
            has_shrunk |= try_faults(shrinking, shrinking->best->faults & ~fault_names[i].bit);
    }
    return has_shrunk;
}

static unsigned shrink(uint64_t seed, cake_sim_options_t *options, cake_sim_result_t *result, unsigned runs_max)
{
    shrinking_t shrinking = {options, result, 1, runs_max};
    bool has_shrunk = true;
    options->writes = options->writes != 0 || options->workload != NULL ? options->writes : 500;
    options->steps = options->steps != 0 ? options->steps : 200;
    options->seconds = options->seconds != 0 ? options->seconds : 60;
    if (options->faults == 0)
        options->faults = CAKE_SIM_ALL;
    if (cake_sim_run(seed, options, result) != 0 || result->ok)
        return 1;
    options->nodes = result->nodes;
    options->storage = result->storage;
    while (has_shrunk && shrinking.runs < runs_max) {
        has_shrunk = shrink_number(&shrinking, offsetof(cake_sim_options_t, nodes), 1);
        has_shrunk |= shrink_number(&shrinking, offsetof(cake_sim_options_t, writes), 1);
        if (options->workload != NULL)
            has_shrunk |= shrink_number(&shrinking, offsetof(cake_sim_options_t, steps), 1);
        has_shrunk |= shrink_number(&shrinking, offsetof(cake_sim_options_t, seconds), 3);
        has_shrunk |= shrink_faults(&shrinking);
    }
    return shrinking.runs;
}

unsigned cake_sim_shrink(uint64_t seed, cake_sim_options_t *options, cake_sim_result_t *result, unsigned runs_max)
{
    cake_sim_options_t best;
    size_t size = options->size;
    *result = (cake_sim_result_t){.seed = seed};
    if (cake__options_copy(&best, sizeof best, options) != 0)
        return 1;
    unsigned runs = shrink(seed, &best, result, runs_max);
    best.size = size;
    memcpy(options, &best, cake__min_u64(size, sizeof best));
    return runs;
}

/* ---- names --------------------------------------------------------------------------------------------------------*/

int cake_sim_faults_parse(const char *text, uint32_t *out)
{
    uint32_t bits = 0;
    while (*text != '\0') {
        size_t len = strcspn(text, ",");
        uint32_t found = 0;
        if (len == 3 && memcmp(text, "all", 3) == 0)
            found = CAKE_SIM_ALL;
        if (len == 4 && memcmp(text, "none", 4) == 0)
            found = CAKE_SIM_NOTHING;
        for (size_t i = 0; i < CAKE_COUNT_OF(fault_names); i++) {
            if (strlen(fault_names[i].name) == len && memcmp(fault_names[i].name, text, len) == 0)
                found = fault_names[i].bit;
        }
        if (found == 0)
            return CAKE_EPARSE;
        bits |= found;
        text += len + (text[len] == ',');
    }
    if (bits == 0)
        return CAKE_EPARSE;
    *out = bits == CAKE_SIM_NOTHING ? bits : bits & ~CAKE_SIM_NOTHING;
    return 0;
}

void cake_sim_faults_format(uint32_t faults, char *out, size_t size)
{
    size_t len = 0;
    if (size == 0)
        return;
    out[0] = '\0';
    if (faults == CAKE_SIM_NOTHING || faults == CAKE_SIM_ALL || faults == 0) {
        snprintf(out, size, "%s", faults == CAKE_SIM_NOTHING ? "none" : "all");
        return;
    }
    for (size_t i = 0; i < CAKE_COUNT_OF(fault_names); i++) {
        if ((faults & fault_names[i].bit) != 0 && len < size)
            len += (size_t)snprintf(out + len, size - len, "%s%s", len == 0 ? "" : ",", fault_names[i].name);
    }
}
