/* import.c: import and export: files of documents, in NDJSON or TSV, into a keyspace and out of one.
 *
 *   reader (the command's thread) -> queue of up to QUEUE_MAX parts -> workers, each with a connection of its own
 *
 * A part is what one request takes: PART_LINES lines or PART_BYTES. It keeps the place of its lines in the file:
 * what the node refuses is named by the number that the user sees in an editor. */
#include "import.h"

#include "client.h"
#include "clock.h"
#include "lines.h"
#include "progress.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <datacake/key.h>
#include <datacake/node.h>

#define PART_LINES     1000u
#define PART_BYTES     (1u << 20)
#define LINE_BYTES_MAX (256u << 20)
#define WORKERS_MAX    64u
#define QUEUE_MAX      8u
#define SHOWN_MAX      20u    /* refused lines that are named */
#define PATIENCE_MS    30000u /* for a node that says it is busy, or is joining */

typedef struct part {
    struct part *next;
    text_t text;
    uint64_t first_line, lines, end_offset;
} part_t;

typedef struct import {
    const args_t *args;
    const char *path;
    text_t url_path;
    import_kind_t kind;
    progress_t progress;

    pthread_mutex_t lock; /* of all below */
    pthread_cond_t changed;
    part_t *first, **last;
    unsigned queued;
    bool is_read, is_stopped; /* no more parts come; no more are taken */
    uint64_t put, deleted, failed, shown, bytes;
    uint64_t stopped_line; /* the first one that may not be stored */
    int status;
    char message[512];
} import_t;

static const flag_t import_flags[] = {
    {"format", "FORMAT", "ndjson or tsv (by the file's name: .tsv, else ndjson)"},
    IMPORT_FLAGS,
    CLIENT_FLAGS,
    {NULL, NULL, NULL},
};

/* ---- what went wrong --------------------------------------------------------------------------------------------- */

/* With the lock. */
static void show_bad_line(import_t *import, uint64_t line, const char *message)
{
    import->failed++;
    if (import->shown++ >= SHOWN_MAX)
        return;
    progress_clear(&import->progress);
    fprintf(stderr, "%s:%llu: %s\n", import->path, (unsigned long long)line, message);
    if (import->shown == SHOWN_MAX)
        fprintf(stderr, "%s: more lines are refused; they are only counted\n", import->path);
}

static void stop_at(import_t *import, uint64_t line, int status, const char *message)
{
    pthread_mutex_lock(&import->lock);
    if (!import->is_stopped || line < import->stopped_line)
        import->stopped_line = line;
    if (import->status == 0) {
        import->status = status;
        snprintf(import->message, sizeof(import->message), "%s", message);
    }
    import->is_stopped = true;
    pthread_cond_broadcast(&import->changed);
    pthread_mutex_unlock(&import->lock);
}

/* ---- workers ----------------------------------------------------------------------------------------------------- */

static part_t *take_part(import_t *import)
{
    pthread_mutex_lock(&import->lock);
    while (import->first == NULL && !import->is_read && !import->is_stopped)
        pthread_cond_wait(&import->changed, &import->lock);
    part_t *part = import->is_stopped ? NULL : import->first;
    if (part != NULL) {
        import->first = part->next;
        import->last = import->first == NULL ? &import->first : import->last;
        import->queued--;
        pthread_cond_broadcast(&import->changed);
    }
    pthread_mutex_unlock(&import->lock);
    return part;
}

/* Counts what the node says of a part. base: the number of its first line in the file. */
static uint64_t count_answer(import_t *import, const response_t *response, uint64_t base, const char **code)
{
    /* A write that missed its level is made again: that is what brings a quorum about while a node has just died. */
    static const char *const known[] = {"busy", "not_joined", "clock_drift", "out_of_memory", "consistency_failed"};
    json_t *root = json_loadb(response->body.data == NULL ? "" : response->body.data, response->body.len, 0, NULL);
    json_t *entry;
    size_t i;
    const char *said = json_string_value(json_object_get(json_object_get(root, "error"), "code"));
    *code = NULL;
    for (i = 0; said != NULL && i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(said, known[i]) == 0)
            *code = known[i];
    uint64_t refused_line = (uint64_t)json_integer_value(json_object_get(root, "line"));
    pthread_mutex_lock(&import->lock);
    import->put += (uint64_t)json_integer_value(json_object_get(root, "put"));
    import->deleted += (uint64_t)json_integer_value(json_object_get(root, "deleted"));
    json_array_foreach(json_object_get(root, "errors"), i, entry)
    {
        uint64_t line = (uint64_t)json_integer_value(json_object_get(entry, "line"));
        bool comes_again = refused_line != 0 && line >= refused_line;
        const char *message = json_string_value(json_object_get(entry, "message"));
        if (!comes_again)
            show_bad_line(import, base + line - 1, message == NULL ? "refused" : message);
    }
    pthread_mutex_unlock(&import->lock);
    json_decref(root);
    return refused_line == 0 ? 1 : refused_line;
}

/* The place of the n-th line (1, 2, ...) in text. */
static size_t line_offset(const text_t *text, uint64_t n)
{
    size_t at = 0;
    for (uint64_t i = 1; i < n && at < text->len; i++) {
        const char *newline = memchr(text->data + at, '\n', text->len - at);
        at = newline == NULL ? text->len : (size_t)(newline - text->data) + 1;
    }
    return at;
}

static void pause_ms(long ms)
{
    const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

/* Sends a part; after a refusal that passes by itself, what is left of it, from the line that the node names. */
static bool send_part(import_t *import, client_t *client, const part_t *part)
{
    uint64_t done_lines = 0, deadline_ms = monotonic_ms() + PATIENCE_MS;
    for (long wait_ms = 20;; wait_ms = wait_ms < 1000 ? wait_ms * 2 : 1000) {
        response_t response;
        const char *passing = NULL;
        char message[512];
        size_t at = line_offset(&part->text, done_lines + 1);
        int err = client_request(client, "POST", import->url_path.data, part->text.data + at, part->text.len - at, NULL,
                                 NULL, &response);
        if (err != 0) {
            snprintf(message, sizeof(message), "cannot reach %s: %s", client_url(client),
                     *client_message(client) ? client_message(client) : cake_strerror(err));
            stop_at(import, part->first_line + done_lines, EXIT_UNREACHABLE, message);
            response_free(&response);
            return false;
        }
        uint64_t refused_line = count_answer(import, &response, part->first_line + done_lines, &passing);
        int status = response.status == 200 ? 0 : client_explain(&response, message, sizeof(message));
        response_free(&response);
        if (status == 0)
            return true;
        done_lines += refused_line - 1;
        if (passing == NULL || monotonic_ms() >= deadline_ms) {
            stop_at(import, part->first_line + done_lines, status, message);
            return false;
        }
        pause_ms(wait_ms);
    }
}

static void part_free(part_t *part)
{
    if (part != NULL)
        text_free(&part->text);
    free(part);
}

typedef struct worker {
    import_t *import;
    client_t *client;
    pthread_t thread;
} worker_t;

static void *run_worker(void *arg)
{
    worker_t *worker = arg;
    import_t *import = worker->import;
    for (part_t *part; (part = take_part(import)) != NULL;) {
        if (send_part(import, worker->client, part)) {
            pthread_mutex_lock(&import->lock);
            import->bytes = part->end_offset > import->bytes ? part->end_offset : import->bytes;
            progress_show(&import->progress, import->bytes, import->put + import->deleted);
            pthread_mutex_unlock(&import->lock);
        }
        part_free(part);
    }
    return NULL;
}

/* ---- reader ------------------------------------------------------------------------------------------------------ */

/* Waits for room in the queue. False: the import has stopped. */
static bool give_part(import_t *import, part_t *part)
{
    pthread_mutex_lock(&import->lock);
    while (import->queued >= QUEUE_MAX && !import->is_stopped)
        pthread_cond_wait(&import->changed, &import->lock);
    bool is_taken = !import->is_stopped;
    if (is_taken) {
        *import->last = part;
        import->last = &part->next;
        import->queued++;
        pthread_cond_broadcast(&import->changed);
    }
    pthread_mutex_unlock(&import->lock);
    return is_taken;
}

static part_t *part_new(uint64_t first_line)
{
    part_t *part = calloc(1, sizeof(*part));
    if (part != NULL)
        part->first_line = first_line;
    return part;
}

static void add_line(import_t *import, part_t *part, const char *line, size_t len)
{
    if (import->kind == IMPORT_NDJSON) {
        text_append(&part->text, line, len);
        text_add(&part->text, "\n");
    } else {
        if (len > 0 && line[len - 1] == '\r')
            len--;
        int err = CAKE_ENOTFOUND; /* an empty line keeps the count of lines */
        if (len > 0 && import->kind == IMPORT_TSV)
            err = line_from_tsv(&part->text, line, len);
        else if (len > 0)
            err = line_from_key(&part->text, line, len);
        if (err == CAKE_EPARSE) {
            pthread_mutex_lock(&import->lock);
            show_bad_line(import, part->first_line + part->lines, "there is no tab between key and value");
            pthread_mutex_unlock(&import->lock);
        }
        if (err == CAKE_EPARSE || err == CAKE_ENOTFOUND)
            text_add(&part->text, "\n");
    }
    part->lines++;
}

/* Returns 0, or the exit status when the file cannot be read on. */
static int read_file(import_t *import, FILE *file)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t len;
    int status = 0;
    uint64_t offset = 0;
    part_t *part = part_new(1);
    while (status == 0 && part != NULL && (len = getline(&line, &size, file)) >= 0) {
        offset += (uint64_t)len;
        if ((size_t)len > LINE_BYTES_MAX)
            status = fail(import->args, EXIT_OTHER, "%s: a line is longer than %u bytes", import->path, LINE_BYTES_MAX);
        else
            add_line(import, part, line, len > 0 && line[len - 1] == '\n' ? (size_t)len - 1 : (size_t)len);
        if (part->lines < PART_LINES && part->text.len < PART_BYTES)
            continue;
        uint64_t next_line = part->first_line + part->lines;
        part->end_offset = offset;
        if (part->text.failed || !give_part(import, part))
            break;
        part = part_new(next_line);
    }
    if (status == 0 && ferror(file) != 0)
        status = fail(import->args, EXIT_OTHER, "cannot read %s: %s", import->path, strerror(errno));
    if (part == NULL || part->text.failed)
        status = fail(import->args, EXIT_OTHER, "out of memory");
    bool is_given = false;
    if (status == 0 && part->lines > 0) {
        part->end_offset = offset;
        is_given = give_part(import, part);
    }
    if (!is_given)
        part_free(part);
    free(line);
    return status;
}

static int report(import_t *import)
{
    double spent_s = (double)(monotonic_ms() - import->progress.started_ms) / 1000;
    uint64_t done = import->put + import->deleted;
    if (import->status == 0)
        progress_end(&import->progress, done);
    else
        progress_clear(&import->progress);
    if (args_has(import->args, "json"))
        printf("{\"put\":%llu,\"deleted\":%llu,\"failed\":%llu,\"seconds\":%.3f,\"complete\":%s}\n",
               (unsigned long long)import->put, (unsigned long long)import->deleted, (unsigned long long)import->failed,
               spent_s, import->status == 0 ? "true" : "false");
    else
        printf("%s %llu documents in %.1f s (%.0f/s), %llu lines refused\n",
               import->kind == IMPORT_DELETES ? "deleted" : "imported", (unsigned long long)done, spent_s,
               spent_s > 0 ? (double)done / spent_s : 0.0, (unsigned long long)import->failed);
    if (import->status != 0 && import->message[0] != 0)
        return fail(import->args, import->status,
                    "stopped: %s; lines from %llu on may be missing: run it again, what is there stays",
                    import->message, (unsigned long long)import->stopped_line);
    if (import->status == 0 && import->failed > 0)
        return EXIT_OTHER;
    return import->status;
}

static int run_workers(import_t *import, FILE *file, uint64_t count)
{
    worker_t workers[WORKERS_MAX];
    size_t started = 0;
    int status = 0;
    for (bool has_started = true; status == 0 && has_started && started < count; started += has_started) {
        worker_t *worker = &workers[started];
        worker->import = import;
        status = client_from_args(import->args, &worker->client);
        has_started = status == 0 && pthread_create(&worker->thread, NULL, run_worker, worker) == 0;
        if (!has_started)
            client_close(worker->client);
    }
    if (status == 0)
        status = started == 0 ? fail(import->args, EXIT_OTHER, "no thread can be started") : read_file(import, file);
    pthread_mutex_lock(&import->lock);
    import->is_read = true;
    import->is_stopped = import->is_stopped || status != 0;
    pthread_cond_broadcast(&import->changed);
    pthread_mutex_unlock(&import->lock);
    for (size_t i = 0; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
        client_close(workers[i].client);
    }
    return status;
}

static int open_file(import_t *import, FILE **file, uint64_t *size)
{
    struct stat info;
    *file = strcmp(import->path, "-") == 0 ? stdin : fopen(import->path, "re");
    int why = *file == NULL || fstat(fileno(*file), &info) != 0 ? errno : S_ISDIR(info.st_mode) ? EISDIR : 0;
    if (why != 0)
        return fail(import->args, EXIT_USAGE, "cannot read %s: %s", import->path, strerror(why));
    *size = S_ISREG(info.st_mode) ? (uint64_t)info.st_size : 0;
    return 0;
}

int import_run(const args_t *args, const char *keyspace, const char *path, import_kind_t kind)
{
    import_t import = {.args = args, .path = path, .kind = kind};
    uint64_t workers = 4, size = 0;
    cake_consistency_t level;
    FILE *file = NULL;
    const char *level_name = args_value(args, "consistency", "quorum");
    size_t len = strlen(keyspace);
    if (len == 0 || len > CAKE_KEYSPACE_NAME_MAX || !is_utf8_name(keyspace, len))
        return fail(args, EXIT_USAGE, "a keyspace name has 1 to %u bytes of UTF-8 without control characters",
                    CAKE_KEYSPACE_NAME_MAX);
    if (cake_consistency_parse(level_name, &level) != 0)
        return fail(args, EXIT_USAGE, "there is no consistency level \"%s\"", level_name);
    if (args_number(args, "workers", 1, WORKERS_MAX, &workers) != 0)
        return EXIT_USAGE;
    int status = open_file(&import, &file, &size);
    if (status == 0 && progress_start(&import.progress, args_value(args, "progress", NULL),
                                      kind == IMPORT_DELETES ? "delete" : "import", size) != 0)
        status = fail(args, EXIT_USAGE, "--progress is bar, lines or none");
    if (status == 0) {
        import.last = &import.first;
        pthread_mutex_init(&import.lock, NULL);
        pthread_cond_init(&import.changed, NULL);
        text_add(&import.url_path, "/kv/");
        percent_encode(&import.url_path, keyspace, len);
        text_printf(&import.url_path, "?consistency=%s", level_name);
        status = run_workers(&import, file, workers);
        if (status == 0)
            status = report(&import);
        for (part_t *part; (part = import.first) != NULL; part_free(part))
            import.first = part->next;
        text_free(&import.url_path);
        pthread_cond_destroy(&import.changed);
        pthread_mutex_destroy(&import.lock);
    }
    if (file != NULL && file != stdin)
        fclose(file);
    return status;
}

static int run_import(const args_t *args)
{
    const char *path = args->operands[1];
    size_t len = strlen(path);
    bool is_named_tsv = len > 4 && strcmp(path + len - 4, ".tsv") == 0;
    const char *format = args_value(args, "format", is_named_tsv ? "tsv" : "ndjson");
    bool is_tsv = strcmp(format, "tsv") == 0;
    if (!is_tsv && strcmp(format, "ndjson") != 0)
        return fail(args, EXIT_USAGE, "--format is ndjson or tsv, not \"%s\"", format);
    return import_run(args, args->operands[0], path, is_tsv ? IMPORT_TSV : IMPORT_NDJSON);
}

/* ---- export ------------------------------------------------------------------------------------------------------ */

static const flag_t export_flags[] = {
    {"prefix", "P", "only keys that begin so"},
    CLIENT_FLAGS,
    {NULL, NULL, NULL},
};

static int run_export(const args_t *args)
{
    text_t path = TEXT_INIT(0);
    response_t response;
    const char *prefix = args_value(args, "prefix", NULL);
    text_add(&path, "/kv/");
    percent_encode(&path, args->operands[0], strlen(args->operands[0]));
    text_add(&path, "?values=1");
    if (prefix != NULL) {
        text_add(&path, "&prefix=");
        percent_encode(&path, prefix, strlen(prefix));
    }
    int status = client_ask(args, "GET", &path, NULL, client_print, NULL, &response);
    response_free(&response);
    text_free(&path);
    return status;
}

const command_t import_command = {
    .name = "import",
    .operands = "KEYSPACE FILE|-",
    .least = 2,
    .most = 2,
    .summary = "store the documents of a file",
    .details = "NDJSON has one {\"key\": ..., \"value\": ...} per line; bytes that are no UTF-8 are {\"base64\": "
               "\"...\"}, and a\n"
               "value that is neither a string nor that stands for its JSON text. TSV has key, tab, value; \\t \\n \\r "
               "\\\\ and\n"
               "\\x and two hex digits are escapes. Lines that are refused are named, and the rest goes on.",
    .flags = import_flags,
    .run = run_import,
};
const command_t export_command = {
    .name = "export",
    .operands = "KEYSPACE",
    .least = 1,
    .most = 1,
    .summary = "print the documents of a keyspace, as import takes them",
    .flags = export_flags,
    .run = run_export,
};
