/* What happened, one line each with the virtual time in front; and the hash over it, by which two runs of a seed
 * compare. */
#include "sim/sim.h"

#include <stdio.h>

static void hash_line(cake__trial_t *trial, const char *line)
{
    trial->hash = cake__mix64(trial->hash ^ cake__hash_bytes(line, strlen(line)));
}

static size_t put_time(const cake__trial_t *trial, char *line, size_t size)
{
    uint64_t now_us = trial->world == NULL ? 0 : cake__world_now_ns(trial->world) / 1000;
    int len = snprintf(line, size, "%3llu.%06llu  ", (unsigned long long)(now_us / 1000000),
                       (unsigned long long)(now_us % 1000000));
    return (size_t)len;
}

/* Of node number `row`, or of the cluster (0). */
static void note(cake__trial_t *trial, uint32_t row, cake__mark_t mark, const char *format, va_list list)
{
    char line[1280];
    size_t len = put_time(trial, line, sizeof line), text_at = len;
    if (row > 0)
        len += (size_t)snprintf(line + len, sizeof line - len, "node %u: ", (unsigned)row);
    vsnprintf(line + len, sizeof line - len, format, list);
    hash_line(trial, line);
    if (mark != CAKE__MARK_NONE && trial->world != NULL)
        cake__picture_mark(trial, row, mark, line + text_at);
    if (trial->options.trace != NULL)
        trial->options.trace(trial->options.trace_arg, line);
}

void cake__note(cake__trial_t *trial, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    note(trial, 0, CAKE__MARK_EVENT, format, list);
    va_end(list);
}

void cake__note_of(cake__trial_node_t *node, cake__mark_t mark, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    note(node->trial, node->id, mark, format, list);
    va_end(list);
}

void cake__note_detail(cake__trial_t *trial, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    note(trial, 0, CAKE__MARK_NONE, format, list);
    va_end(list);
}

void cake__violation(cake__trial_t *trial, const char *checker, const char *format, ...)
{
    char text[400];
    va_list list;
    if (cake__has_failed(trial))
        return;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    cake__note(trial, "VIOLATION of %s: %s", checker, text);
    uint64_t now_ms = cake__world_now_ns(trial->world) / CAKE_NS_PER_MS;
    snprintf(trial->result->violation, sizeof trial->result->violation, "%s, at %llu.%03llu s: %s", checker,
             (unsigned long long)(now_ms / 1000), (unsigned long long)(now_ms % 1000), text);
}

/* The nodes' own log; the world has put time and host in front. */
static void on_log(void *ctx, cake_log_level_t level, const char *message)
{
    cake__trial_t *trial = ctx;
    char line[640];
    (void)level;
    snprintf(line, sizeof line, "           | %s", message);
    trial->options.trace(trial->options.trace_arg, line);
}

cake_log_t cake__trace_log(cake__trial_t *trial)
{
    return (cake_log_t){on_log, trial, trial->options.least_log};
}

/* ---- the state of all replicas, for whoever looks for a cause -----------------------------------------------------*/

/* Of an actor without holes only the last number is of interest. */
static void dump_context(cake__trial_t *trial, const cake__context_t *context, const char *whose)
{
    cake__context_cursor_t cursor = {0};
    uint64_t actor;
    cake__run_t run;
    char line[900] = "";
    size_t len = 0, count = 0;
    for (; cake__context_next(context, &cursor, &actor, &run); count++) {
        if (run.first > 1 && len < sizeof line - 64)
            len += (size_t)snprintf(line + len, sizeof line - len, " %04llx:%llu-%llu", (unsigned long long)actor >> 48,
                                    (unsigned long long)run.first, (unsigned long long)run.last);
    }
    cake__note_detail(trial, "    %s %016llx, %zu runs, above holes:%s", whose,
                      (unsigned long long)cake__context_hash(context), count, line);
}

static void dump_node(cake__trial_t *trial, cake__trial_node_t *node)
{
    cake__keyspace_t *keyspace;
    if (node->state != CAKE__IS_UP)
        return;
    for (size_t cursor = 0; (keyspace = cake__map_next(&node->store->keyspaces, &cursor)) != NULL;) {
        const cake__summary_t *summary = cake__orswot_summary(keyspace->set);
        cake__note_detail(
            trial, "  node %u, %s: %llu live, %llu tombstones, horizon %llx, oldest %llx%s%s%s", node->id,
            keyspace->name, (unsigned long long)cake_orswot_live(keyspace->set),
            (unsigned long long)cake_orswot_tombstones(keyspace->set), (unsigned long long)summary->horizon,
            (unsigned long long)cake__orswot_oldest_tombstone(keyspace->set), keyspace->is_purging ? ", purging" : "",
            keyspace->pull != NULL ? ", pulling" : "", keyspace->serving_count > 0 ? ", serving" : "");
        for (uint32_t i = 0; i < keyspace->want_count; i++)
            cake__note_detail(trial, "    wanted of node %u", (unsigned)keyspace->wants[i].node_id);
        dump_context(trial, &summary->context, "C");
        for (uint32_t i = 0; i < keyspace->acked_count; i++) {
            char whose[32];
            snprintf(whose, sizeof whose, "node %u has", (unsigned)keyspace->acked[i].node_id);
            dump_context(trial, &keyspace->acked[i].context, whose);
        }
    }
    CAKE_LIST_FOR_EACH(link, &node->store->peers)
    {
        const cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
        cake__note_detail(
            trial, "    peer %u: %s%s%s, actor %04llx, %zu queued, %u under way, equal %llu told %llu of %llu%s%s",
            peer->node_id, cake_status_name(peer->status), peer->has_store ? ", store" : "",
            peer->is_replica ? ", replica" : "", (unsigned long long)peer->actor >> 48, peer->queue_count,
            (unsigned)peer->flight_count, (unsigned long long)peer->equal_version,
            (unsigned long long)peer->told_version, (unsigned long long)node->store->version,
            peer->is_pulsing ? ", pulsing" : "", peer->is_listing ? ", listing" : "");
    }
}

void cake__dump(cake__trial_t *trial)
{
    if (trial->options.trace == NULL)
        return;
    for (uint32_t i = 0; i < trial->node_count; i++)
        dump_node(trial, trial->nodes[i]);
}
