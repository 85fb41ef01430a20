/* Every interleaving of a few operations on a few sets, as far as a bound on states goes: breadth first, so that the
 * first way to a violation is a shortest one. A state is reached by running its way again from the beginning; two ways
 * that end in equal sets, messages and sessions are one state.
 *
 *      queue of states: (parent, choice) --run again--> sets, messages, sessions --> digest: seen before? --> checks
 *      --> choices
 *
 * Only <datacake/orswot.h> is used: what is checked is what applications get. Of three replicas the first writes
 * first; which one that is makes no difference. */
#include <datacake/sim.h>

#include <stdio.h>

#include <datacake/orswot.h>

#include "base/base.h"
#include "base/bytes.h"
#include "base/map.h"

#define REPLICAS_MAX 4u
#define KEYS_MAX     3u
#define WRITES_MAX   6u
#define SESSIONS_MAX 4u
#define HISTORY_MAX  64u
#define CHOICES_MAX  128u
#define WALL_MS      UINT64_C(1000000)
#define NEVER_MS     (UINT64_C(1) << 40)

/* ---- the world ----------------------------------------------------------------------------------------------------*/

typedef enum { WRITE, DELIVER, OPEN, ASK, TAKE, PURGE, FORGET, CRASH } kind_t;

typedef struct {
    uint8_t kind, a, b, c;
} choice_t;

typedef struct {
    uint8_t from, to, open;
    cake_pull_t *pull;
    cake_answer_t *answer;
    cake_slice_t reply;
    bool has_reply;
    uint64_t digest; /* of all that was said */
} session_t;

typedef struct {
    cake_record_t record;
    uint8_t untold; /* bits of replicas that the message is still under way to */
} written_t;

typedef struct {
    const cake_sim_explore_options_t *options;
    cake_sim_explore_result_t *result;
    cake_clock_t clocks[REPLICAS_MAX];
    cake_orswot_t *sets[REPLICAS_MAX];
    uint8_t starts[REPLICAS_MAX];
    written_t history[HISTORY_MAX]; /* writes of clients, then those that repairs made anew, in their order */
    uint32_t history_count, writes, sessions_opened, purges, forgets, crashes;
    session_t sessions[SESSIONS_MAX];
    uint64_t randoms;
} world_t;

static void violate(world_t *world, const char *format, ...) CAKE_PRINTF(2, 3);

static void violate(world_t *world, const char *format, ...)
{
    va_list list;
    if (world->result->violation[0] != '\0')
        return;
    va_start(list, format);
    vsnprintf(world->result->violation, sizeof world->result->violation, format, list);
    va_end(list);
}

/* The explorer's own memory is the C library's, and there is enough. */
static void must(int err)
{
    CAKE_ASSERT(err == 0);
}

static cake_orswot_config_t config_of(world_t *world, uint32_t replica)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    config.actor = (replica + 1) * 1000 + world->starts[replica];
    config.clock = &world->clocks[replica];
    return config;
}

static void world_new(world_t *world, const cake_sim_explore_options_t *options, cake_sim_explore_result_t *result)
{
    *world = (world_t){.options = options, .result = result};
    for (uint32_t i = 0; i < options->replicas; i++) {
        cake_orswot_config_t config = config_of(world, i);
        cake_clock_init(&world->clocks[i], 0, 0);
        must(cake_orswot_new(&config, &world->sets[i]));
    }
}

static void close_session(session_t *session)
{
    cake_pull_free(session->pull);
    cake_answer_free(session->answer);
    *session = (session_t){.digest = session->digest};
}

static void world_free(world_t *world)
{
    for (uint32_t i = 0; i < SESSIONS_MAX; i++)
        close_session(&world->sessions[i]);
    for (uint32_t i = 0; i < world->options->replicas; i++)
        cake_orswot_free(world->sets[i]);
}

/* ---- what may happen next -----------------------------------------------------------------------------------------*/

static void add(choice_t *choices, uint32_t *count, kind_t kind, uint32_t a, uint32_t b, uint32_t c)
{
    CAKE_ASSERT(*count < CHOICES_MAX);
    choices[(*count)++] = (choice_t){(uint8_t)kind, (uint8_t)a, (uint8_t)b, (uint8_t)c};
}

static uint32_t list_choices(const world_t *world, choice_t *choices)
{
    const cake_sim_explore_options_t *options = world->options;
    uint32_t count = 0, n = options->replicas;
    for (uint32_t i = 0; i < n && world->writes < options->writes; i++) {
        for (uint32_t key = 0; key < options->keys && (world->writes > 0 || i == 0); key++) {
            add(choices, &count, WRITE, i, key, 0);
            add(choices, &count, WRITE, i, key, 1);
        }
    }
    for (uint32_t i = 0; i < world->history_count; i++) {
        for (uint32_t to = 0; to < n; to++) {
            if ((world->history[i].untold >> to & 1) != 0)
                add(choices, &count, DELIVER, i, to, 0);
        }
    }
    for (uint32_t from = 0; from < n && world->sessions_opened < options->sessions && world->writes > 0; from++) {
        for (uint32_t to = 0; to < n; to++) {
            if (from != to)
                add(choices, &count, OPEN, from, to, 0);
        }
    }
    for (uint32_t i = 0; i < world->sessions_opened; i++) {
        if (world->sessions[i].open)
            add(choices, &count, world->sessions[i].has_reply ? TAKE : ASK, i, 0, 0);
    }
    for (uint32_t i = 0; i < n && world->writes > 0; i++) {
        bool has_tombstones = cake_orswot_tombstones(world->sets[i]) > 0;
        if (has_tombstones && world->purges < options->purges)
            add(choices, &count, PURGE, i, n, 0);
        for (uint32_t without = 0; without < n && has_tombstones && world->forgets < options->forgets; without++) {
            if (without != i)
                add(choices, &count, FORGET, i, without, 0);
        }
        if (world->crashes < options->crashes)
            add(choices, &count, CRASH, i, 0, 0);
    }
    return count;
}

static void format_choice(const choice_t *choice, char *out, size_t size)
{
    switch ((kind_t)choice->kind) {
    case WRITE:
        snprintf(out, size, "%u %s k%u", choice->a, choice->c != 0 ? "deletes" : "puts", choice->b);
        break;
    case DELIVER:
        snprintf(out, size, "write %u reaches %u", choice->a, choice->b);
        break;
    case OPEN:
        snprintf(out, size, "%u opens a session with %u", choice->b, choice->a);
        break;
    case ASK:
        snprintf(out, size, "session %u: request and answer", choice->a);
        break;
    case TAKE:
        snprintf(out, size, "session %u: the answer arrives", choice->a);
        break;
    case PURGE:
        snprintf(out, size, "%u purges", choice->a);
        break;
    case FORGET:
        snprintf(out, size, "%u purges without %u", choice->a, choice->b);
        break;
    case CRASH:
        snprintf(out, size, "%u crashes and restarts", choice->a);
        break;
    }
}

/* ---- steps --------------------------------------------------------------------------------------------------------*/

static bool is_known(const world_t *world, cake_dot_t dot)
{
    for (uint32_t i = 0; i < world->history_count; i++) {
        if (world->history[i].record.dot.actor == dot.actor && world->history[i].record.dot.seq == dot.seq)
            return true;
    }
    return false;
}

static void remember(world_t *world, const cake_record_t *record, uint32_t untold)
{
    if (is_known(world, record->dot))
        violate(world, "a dot is used twice");
    CAKE_ASSERT(world->history_count < HISTORY_MAX);
    world->history[world->history_count++] = (written_t){*record, (uint8_t)untold};
}

/* A repair may have made writes of its own (rule 5): they carry this replica's dots. */
static void remember_reissues(world_t *world, uint32_t replica)
{
    cake_orswot_cursor_t cursor = {{0}};
    cake_record_t records[16];
    for (size_t count;
         (count = cake_orswot_next(world->sets[replica], &cursor, records, CAKE_COUNT_OF(records))) > 0;) {
        for (size_t i = 0; i < count; i++) {
            if (is_known(world, records[i].dot))
                continue;
            if (records[i].dot.actor != config_of(world, replica).actor)
                violate(world, "replica %u holds what nobody wrote", (unsigned)replica);
            remember(world, &records[i], 0);
        }
    }
}

static void write_one(world_t *world, const choice_t *choice)
{
    cake_orswot_t *set = world->sets[choice->a];
    cake_id_t id = cake_id_of_u64(choice->b);
    cake_record_t record;
    must(choice->c != 0 ? cake_orswot_delete(set, WALL_MS, &id, &record)
                        : cake_orswot_insert(set, WALL_MS, &id, &record));
    world->writes++;
    remember(world, &record, ((1u << world->options->replicas) - 1) & ~(1u << choice->a));
}

static void purge(world_t *world, uint32_t replica, uint32_t without)
{
    const cake_orswot_t *others[REPLICAS_MAX];
    size_t count = 0;
    for (uint32_t i = 0; i < world->options->replicas; i++) {
        if (i != replica && i != without)
            others[count++] = world->sets[i];
    }
    must(cake_orswot_purge(world->sets[replica], WALL_MS, others, count, 0, NEVER_MS, 100, NULL));
}

static void open_session(world_t *world, const choice_t *choice)
{
    session_t *session = &world->sessions[world->sessions_opened++];
    *session = (session_t){.from = choice->a, .to = choice->b, .open = 1};
    must(cake_pull_new(world->sets[choice->b], ++world->randoms, &session->pull));
    must(cake_answer_new(world->sets[choice->a], ++world->randoms, &session->answer));
}

static uint64_t fold(uint64_t digest, cake_slice_t bytes)
{
    return cake__mix64(digest ^ cake__hash_bytes(bytes.data, bytes.len)) + 1;
}

static void ask(session_t *session)
{
    cake_slice_t request;
    int more = cake_pull_next(session->pull, &request);
    if (more != 1) {
        close_session(session);
        return;
    }
    session->digest = fold(session->digest, request);
    must(cake_answer_next(session->answer, request, &session->reply));
    session->digest = fold(session->digest, session->reply);
    session->has_reply = true;
}

static void take(world_t *world, session_t *session)
{
    session->has_reply = false;
    if (cake_pull_take(session->pull, WALL_MS, session->reply) != 0)
        close_session(session);
    else
        remember_reissues(world, session->to);
}

typedef struct {
    uint8_t *bytes;
    size_t len, at;
} image_t;

static int on_save(void *ctx, const void *data, size_t len)
{
    image_t *image = ctx;
    image->bytes = cake__realloc(&cake__libc_alloc, image->bytes, image->len + len);
    CAKE_ASSERT(image->bytes != NULL);
    memcpy(image->bytes + image->len, data, len);
    image->len += len;
    return 0;
}

static int on_load(void *ctx, void *data, size_t len)
{
    image_t *image = ctx;
    size_t part = cake__min_u64(len, image->len - image->at);
    memcpy(data, image->bytes + image->at, part);
    image->at += part;
    return (int)part;
}

/* Whatever was committed is there again, under a new actor; its sessions are not. */
static void crash(world_t *world, uint32_t replica)
{
    image_t image = {0};
    for (uint32_t i = 0; i < world->sessions_opened; i++) {
        if (world->sessions[i].from == replica || world->sessions[i].to == replica)
            close_session(&world->sessions[i]);
    }
    must(cake_orswot_save(world->sets[replica], on_save, &image));
    cake_orswot_free(world->sets[replica]);
    world->starts[replica]++;
    cake_orswot_config_t config = config_of(world, replica);
    cake_clock_init(&world->clocks[replica], 0, 0);
    must(cake_orswot_load(&config, on_load, &image, &world->sets[replica]));
    cake__free(&cake__libc_alloc, image.bytes);
}

static void step(world_t *world, const choice_t *choice)
{
    switch ((kind_t)choice->kind) {
    case WRITE:
        write_one(world, choice);
        break;
    case DELIVER:
        world->history[choice->a].untold &= (uint8_t) ~(1u << choice->b);
        must(cake_orswot_receive(world->sets[choice->b], WALL_MS, &world->history[choice->a].record, CAKE_SOURCE_EAGER,
                                 NULL));
        break;
    case OPEN:
        open_session(world, choice);
        break;
    case ASK:
        ask(&world->sessions[choice->a]);
        break;
    case TAKE:
        take(world, &world->sessions[choice->a]);
        break;
    case PURGE:
        world->purges++;
        purge(world, choice->a, choice->a);
        break;
    case FORGET:
        world->forgets++;
        purge(world, choice->a, choice->b);
        break;
    case CRASH:
        world->crashes++;
        crash(world, choice->a);
        break;
    }
}

/* ---- checks -------------------------------------------------------------------------------------------------------*/

static bool beats(const cake_record_t *a, const cake_record_t *b)
{
    if (a->hlc != b->hlc)
        return a->hlc > b->hlc;
    return a->dot.actor != b->dot.actor ? a->dot.actor > b->dot.actor : a->dot.seq > b->dot.seq;
}

/* Model, I1: each key shows the greatest write that the replica has seen, or nothing when that is a delete. */
static void check_replica(world_t *world, uint32_t replica)
{
    const cake_orswot_t *set = world->sets[replica];
    for (uint32_t key = 0; key < world->options->keys; key++) {
        cake_id_t id = cake_id_of_u64(key);
        const cake_record_t *top = NULL;
        cake_record_t record;
        for (uint32_t i = 0; i < world->history_count; i++) {
            const cake_record_t *write = &world->history[i].record;
            if (memcmp(&write->id, &id, sizeof id) == 0 && cake_orswot_has_seen(set, write->dot) &&
                (top == NULL || beats(write, top)))
                top = write;
        }
        bool has_record = cake_orswot_get(set, &id, &record);
        if (top == NULL ? has_record : has_record && beats(top, &record))
            violate(world, "I1: replica %u shows less of k%u than it has seen", (unsigned)replica, (unsigned)key);
        else if (top != NULL && !has_record && !top->is_tombstone)
            violate(world, "I1: replica %u has lost k%u", (unsigned)replica, (unsigned)key);
    }
}

static void check_state(world_t *world)
{
    for (uint32_t a = 0; a < world->options->replicas; a++) {
        check_replica(world, a);
        for (uint32_t b = 0; b < a; b++) {
            if (cake_orswot_is_in_sync(world->sets[a], world->sets[b]) &&
                cake_orswot_fingerprint(world->sets[a]) != cake_orswot_fingerprint(world->sets[b]))
                violate(world, "replicas %u and %u have equal contexts and other documents", (unsigned)b, (unsigned)a);
        }
    }
}

static bool are_equal(const world_t *world)
{
    for (uint32_t i = 1; i < world->options->replicas; i++) {
        if (!cake_orswot_is_in_sync(world->sets[0], world->sets[i]))
            return false;
    }
    return true;
}

static void pull_whole(world_t *world, uint32_t to, uint32_t from)
{
    session_t session = {.from = (uint8_t)from, .to = (uint8_t)to, .open = 1};
    must(cake_pull_new(world->sets[to], ++world->randoms, &session.pull));
    must(cake_answer_new(world->sets[from], ++world->randoms, &session.answer));
    while (session.open) {
        ask(&session);
        if (session.open)
            take(world, &session);
    }
}

/* From every state there is an end: messages still under way arrive late, or never, and then whole sessions make all
 * equal. */
static void check_end(world_t *world, bool arrives)
{
    for (uint32_t i = 0; i < SESSIONS_MAX; i++)
        close_session(&world->sessions[i]);
    for (uint32_t round = 0; round < 6 && !are_equal(world); round++) {
        for (uint32_t to = 0; to < world->options->replicas; to++) {
            for (uint32_t from = 0; from < world->options->replicas; from++) {
                if (to != from)
                    pull_whole(world, to, from);
            }
        }
    }
    if (!are_equal(world))
        violate(world, "the replicas do not become equal");
    check_state(world);
    for (uint32_t i = 0; i < world->history_count && arrives; i++) {
        for (uint32_t to = 0; to < world->options->replicas; to++) {
            if ((world->history[i].untold >> to & 1) != 0)
                must(cake_orswot_receive(world->sets[to], WALL_MS, &world->history[i].record, CAKE_SOURCE_EAGER, NULL));
        }
    }
    check_state(world);
    if (arrives && !are_equal(world))
        violate(world, "what arrives late makes equal replicas differ");
}

/* ---- the search ---------------------------------------------------------------------------------------------------*/

typedef struct {
    uint32_t parent;
    uint16_t depth;
    choice_t choice;
} state_t;

typedef struct {
    const cake_sim_explore_options_t *options;
    cake_sim_explore_result_t *result;
    state_t *states;
    uint64_t count, capacity;
    uint64_t *seen; /* digests; 0: empty; twice as many as states at least */
    uint64_t seen_capacity;
} search_t;

static uint64_t digest_of(world_t *world)
{
    uint64_t digest = cake__mix64(world->writes | world->sessions_opened << 8 | world->purges << 16 |
                                  world->forgets << 20 | world->crashes << 24);
    for (uint32_t i = 0; i < world->options->replicas; i++) {
        image_t image = {0};
        must(cake_orswot_save(world->sets[i], on_save, &image));
        digest = fold(digest, cake__slice(image.bytes, image.len));
        digest = cake__mix64(digest ^ cake_clock_last(&world->clocks[i])) + world->starts[i];
        cake__free(&cake__libc_alloc, image.bytes);
    }
    /* the order in which messages were sent makes no difference */
    uint64_t messages = 0;
    for (uint32_t i = 0; i < world->history_count; i++) {
        const written_t *written = &world->history[i];
        uint64_t one =
            cake__mix64(written->record.hlc ^ cake__mix64(written->record.dot.actor * 64 + written->record.dot.seq));
        messages += cake__mix64(one + written->untold);
    }
    digest = cake__mix64(digest ^ messages);
    for (uint32_t i = 0; i < world->sessions_opened; i++) {
        const session_t *session = &world->sessions[i];
        uint64_t ends = session->open ? session->from * 8u + session->to + 64u + session->has_reply * 128u : 0;
        digest = cake__mix64(digest ^ (session->open ? session->digest : 0) ^ cake__mix64(ends + i * 1024));
    }
    return digest | 1;
}

static bool is_new(search_t *search, uint64_t digest)
{
    uint64_t at = digest & (search->seen_capacity - 1);
    while (search->seen[at] != 0) {
        if (search->seen[at] == digest)
            return false;
        at = (at + 1) & (search->seen_capacity - 1);
    }
    search->seen[at] = digest;
    return true;
}

static void replay(search_t *search, uint64_t state, world_t *world)
{
    choice_t way[UINT8_MAX];
    uint32_t depth = search->states[state].depth, at = depth;
    for (uint64_t i = state; at > 0; i = search->states[i].parent)
        way[--at] = search->states[i].choice;
    world_new(world, search->options, search->result);
    for (at = 0; at < depth; at++)
        step(world, &way[at]);
}

static void tell_way(search_t *search, uint64_t state, const choice_t *last)
{
    choice_t way[UINT8_MAX];
    uint32_t depth = search->states[state].depth, count = depth + 1;
    char *out = search->result->way;
    size_t len = 0, size = sizeof search->result->way;
    way[depth] = *last;
    for (uint64_t i = state; depth > 0; i = search->states[i].parent)
        way[--depth] = search->states[i].choice;
    for (uint32_t i = 0; i < count && len + 64 < size; i++) {
        char text[64];
        format_choice(&way[i], text, sizeof text);
        len += (size_t)snprintf(out + len, size - len, "%s%s", i == 0 ? "" : "; ", text);
    }
}

/* One more state when it is a new one; its end is looked at, too. */
static void visit(search_t *search, uint64_t parent, const choice_t *choice)
{
    world_t *world = cake__calloc(&cake__libc_alloc, 1, sizeof *world);
    CAKE_ASSERT(world != NULL);
    replay(search, parent, world);
    step(world, choice);
    search->result->transitions++;
    check_state(world);
    bool is_fresh = is_new(search, digest_of(world));
    if (is_fresh && search->result->violation[0] == '\0') {
        uint16_t depth = (uint16_t)(search->states[parent].depth + 1);
        search->states[search->count++] = (state_t){(uint32_t)parent, depth, *choice};
        search->result->longest = depth;
        check_end(world, search->count % 2 == 0);
    }
    world_free(world);
    cake__free(&cake__libc_alloc, world);
    if (search->result->violation[0] != '\0')
        tell_way(search, parent, choice);
}

static void expand(search_t *search, uint64_t state)
{
    choice_t choices[CHOICES_MAX];
    world_t *world = cake__calloc(&cake__libc_alloc, 1, sizeof *world);
    CAKE_ASSERT(world != NULL);
    replay(search, state, world);
    uint32_t count = list_choices(world, choices);
    world_free(world);
    cake__free(&cake__libc_alloc, world);
    for (uint32_t i = 0; i < count && search->count < search->capacity && search->result->violation[0] == '\0'; i++)
        visit(search, state, &choices[i]);
}

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value == CAKE_SIM_EXPLORE_NONE ? 0 : value != 0 ? value : otherwise;
}

int cake_sim_explore(const cake_sim_explore_options_t *given, cake_sim_explore_result_t *result)
{
    cake_sim_explore_options_t options = CAKE_SIM_EXPLORE_OPTIONS_INIT;
    if (given != NULL && cake__options_copy(&options, sizeof options, given) != 0)
        return CAKE_EINVAL;
    options.replicas = or_default(options.replicas, 3);
    options.keys = or_default(options.keys, 1);
    options.writes = or_default(options.writes, 2);
    options.sessions = or_default(options.sessions, 1);
    options.purges = or_default(options.purges, 1);
    options.forgets = or_default(options.forgets, 1);
    options.crashes = or_default(options.crashes, 1);
    options.max_states = options.max_states != 0 ? options.max_states : 20000;
    if (options.replicas < 2 || options.replicas > REPLICAS_MAX || options.keys == 0 || options.keys > KEYS_MAX ||
        options.writes == 0 || options.writes > WRITES_MAX || options.sessions > SESSIONS_MAX || options.purges > 8 ||
        options.forgets > 8 || options.crashes > 8 || options.max_states > CAKE_SIM_EXPLORE_STATES_MAX)
        return CAKE_EINVAL;
    *result = (cake_sim_explore_result_t){0};
    search_t search = {.options = &options, .result = result, .count = 1, .capacity = options.max_states};
    for (search.seen_capacity = 1024; search.seen_capacity < 2 * options.max_states;)
        search.seen_capacity *= 2;
    search.states = cake__calloc(&cake__libc_alloc, options.max_states, sizeof *search.states);
    search.seen = cake__calloc(&cake__libc_alloc, search.seen_capacity, sizeof *search.seen);
    int err = search.states == NULL || search.seen == NULL ? CAKE_ENOMEM : 0;
    uint64_t next = 0;
    for (; err == 0 && next < search.count && search.count < search.capacity && result->violation[0] == '\0'; next++)
        expand(&search, next);
    result->states = search.count;
    result->is_complete = next == search.count;
    result->ok = result->violation[0] == '\0';
    cake__free(&cake__libc_alloc, search.states);
    cake__free(&cake__libc_alloc, search.seen);
    return err;
}
