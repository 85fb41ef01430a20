/* documents.c: put, get, del, ls, keyspaces, watch: one document, or what a keyspace holds. */
#include "client.h"
#include "import.h"
#include "lines.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <datacake/key.h>
#include <datacake/node.h>

#define STDIN_MAX (UINT64_C(1) << 30)

static const flag_t write_flags[] = {
    {"consistency", "LEVEL", "none, one, two, three, quorum, local_quorum, each_quorum or all (quorum)"},
    {"json", NULL, "print the node's answer"},
    CLIENT_FLAGS,
    {NULL, NULL, NULL},
};
static const flag_t delete_flags[] = {
    {"from", "FILE", "delete the keys in this file, one a line (- is standard input)"},
    IMPORT_FLAGS,
    CLIENT_FLAGS,
    {NULL, NULL, NULL},
};
static const flag_t read_flags[] = {
    {"consistency", "LEVEL", "ask as many replicas as the level takes (this node only)"},
    CLIENT_FLAGS,
    {NULL, NULL, NULL},
};
static const flag_t list_flags[] = {
    {"prefix", "P", "only keys that begin so"},
    {"after", "KEY", "only keys after this one"},
    {"limit", "N", "at most so many"},
    {"values", NULL, "with their values (implies --json)"},
    {"json", NULL, "one JSON object per line"},
    CLIENT_FLAGS,
    {NULL, NULL, NULL},
};
static const flag_t keyspace_flags[] = {
    {"json", NULL, "print the node's answer"},
    CLIENT_FLAGS,
    {NULL, NULL, NULL},
};
static const flag_t watch_flags[] = {
    {"values", NULL, "with their values"},
    CLIENT_FLAGS,
    {NULL, NULL, NULL},
};

/* "/kv/KEYSPACE" or "/kv/KEYSPACE/KEY". */
static void make_path(text_t *path, const char *root, const char *keyspace, const char *key)
{
    text_add(path, root);
    percent_encode(path, keyspace, strlen(keyspace));
    if (key == NULL)
        return;
    text_add(path, "/");
    percent_encode(path, key, strlen(key));
}

static int add_level(const args_t *args, text_t *path)
{
    const char *level = args_value(args, "consistency", NULL);
    cake_consistency_t parsed;
    if (level == NULL)
        return 0;
    if (cake_consistency_parse(level, &parsed) != 0)
        return fail(args, EXIT_USAGE,
                    "--consistency is none, one, two, three, quorum, local_quorum, each_quorum or all, "
                    "not \"%s\"",
                    level);
    text_printf(path, "?consistency=%s", level);
    return 0;
}

static int check_names(const args_t *args)
{
    size_t keyspace_len = strlen(args->operands[0]);
    size_t key_len = args->operand_count > 1 ? strlen(args->operands[1]) : 1;
    if (keyspace_len == 0 || keyspace_len > CAKE_KEYSPACE_NAME_MAX || !is_utf8_name(args->operands[0], keyspace_len))
        return fail(args, EXIT_USAGE, "a keyspace name has 1 to %u bytes of UTF-8 without control characters",
                    CAKE_KEYSPACE_NAME_MAX);
    if (key_len == 0 || key_len > CAKE_KEY_MAX)
        return fail(args, EXIT_USAGE, "a key has 1 to %u bytes", CAKE_KEY_MAX);
    return 0;
}

static int read_stdin(const args_t *args, text_t *value)
{
    char piece[64 << 10];
    ssize_t len;
    while ((len = read(STDIN_FILENO, piece, sizeof(piece))) > 0)
        text_append(value, piece, (size_t)len);
    if (len < 0)
        return fail(args, EXIT_OTHER, "cannot read standard input: %s", strerror(errno));
    return value->failed ? fail(args, EXIT_OTHER, "standard input is too large for a document") : 0;
}

static int write_request(const args_t *args, const char *method, const text_t *value)
{
    text_t path = TEXT_INIT(0);
    response_t response = {0};
    make_path(&path, "/kv/", args->operands[0], args->operands[1]);
    int status = add_level(args, &path);
    if (status == 0)
        status = client_ask(args, method, &path, value, NULL, NULL, &response);
    if (status == 0 && args_has(args, "json"))
        client_print(NULL, response.body.data, response.body.len);
    else if (status == 0)
        printf("%s\n", response.stamp);
    response_free(&response);
    text_free(&path);
    return status;
}

static int run_put(const args_t *args)
{
    text_t value = TEXT_INIT(STDIN_MAX);
    int status = check_names(args);
    if (status != 0)
        return status;
    if (args->operand_count < 3 || strcmp(args->operands[2], "-") == 0)
        status = read_stdin(args, &value);
    else
        text_add(&value, args->operands[2]);
    if (status == 0)
        status = write_request(args, "PUT", &value);
    text_free(&value);
    return status;
}

static int run_del(const args_t *args)
{
    const char *file = args_value(args, "from", NULL);
    int status = check_names(args);
    if (status == 0 && (file != NULL) == (args->operand_count == 2))
        status = fail(args, EXIT_USAGE, "give a key, or --from a file of keys");
    if (status != 0)
        return status;
    return file != NULL ? import_run(args, args->operands[0], file, IMPORT_DELETES)
                        : write_request(args, "DELETE", NULL);
}

static int run_get(const args_t *args)
{
    text_t path = TEXT_INIT(0);
    response_t response = {0};
    int status = check_names(args);
    if (status == 0) {
        make_path(&path, "/kv/", args->operands[0], args->operands[1]);
        status = add_level(args, &path);
    }
    if (status == 0)
        status = client_ask(args, "GET", &path, NULL, client_print, NULL, &response);
    if (status == 0 && isatty(STDOUT_FILENO))
        putchar('\n');
    response_free(&response);
    text_free(&path);
    return status;
}

/* ---- listings ---------------------------------------------------------------------------------------------------- */

typedef struct line_printer {
    text_t line;
} line_printer_t;

/* With the escapes that del --from takes. */
static int print_key(const text_t *json)
{
    line_t line;
    text_t out = TEXT_INIT(0);
    int err = line_parse_key(&line, json->data, json->len);
    if (err == 0)
        line_escape(&out, line.key);
    text_append(&out, "\n", 1);
    err = err != 0 ? err : out.failed ? CAKE_ENOMEM : client_print(NULL, out.data, out.len);
    line_free(&line);
    text_free(&out);
    return err;
}

static int print_keys(void *arg, const char *data, size_t len)
{
    line_printer_t *printer = arg;
    while (len > 0) {
        const char *newline = memchr(data, '\n', len);
        size_t piece = newline == NULL ? len : (size_t)(newline - data);
        text_append(&printer->line, data, piece);
        if (printer->line.failed)
            return CAKE_ENOMEM;
        if (newline != NULL) {
            int err = print_key(&printer->line);
            if (err != 0)
                return err;
            text_clear(&printer->line);
            piece++;
        }
        data += piece;
        len -= piece;
    }
    return 0;
}

static void add_query(text_t *path, char *separator, const char *name, const char *value)
{
    if (value == NULL)
        return;
    text_printf(path, "%c%s=", *separator, name);
    percent_encode(path, value, strlen(value));
    *separator = '&';
}

static int run_ls(const args_t *args)
{
    text_t path = TEXT_INIT(0);
    response_t response = {0};
    line_printer_t printer = {.line = TEXT_INIT(0)};
    char separator = '?';
    uint64_t limit = 0;
    bool is_json = args_has(args, "json") || args_has(args, "values");
    int status = check_names(args);
    if (status == 0)
        status = args_number(args, "limit", 1, UINT64_MAX / 2, &limit);
    if (status == 0) {
        make_path(&path, "/kv/", args->operands[0], NULL);
        add_query(&path, &separator, "prefix", args_value(args, "prefix", NULL));
        add_query(&path, &separator, "after", args_value(args, "after", NULL));
        add_query(&path, &separator, "limit", args_value(args, "limit", NULL));
        add_query(&path, &separator, "values", args_has(args, "values") ? "1" : NULL);
        status = client_ask(args, "GET", &path, NULL, is_json ? client_print : print_keys, &printer, &response);
    }
    text_free(&printer.line);
    response_free(&response);
    text_free(&path);
    return status;
}

static void print_keyspaces(const response_t *response)
{
    json_t *root = json_loadb(response->body.data, response->body.len, 0, NULL), *entry;
    size_t i;
    json_array_foreach(json_object_get(root, "keyspaces"), i, entry)
        printf("%-32s %12lld documents %10lld tombstones  %s\n", json_string_value(json_object_get(entry, "name")),
               (long long)json_integer_value(json_object_get(entry, "live")),
               (long long)json_integer_value(json_object_get(entry, "tombstones")),
               json_string_value(json_object_get(entry, "fingerprint")));
    json_decref(root);
}

static int run_keyspaces(const args_t *args)
{
    text_t path = TEXT_INIT(0);
    response_t response;
    text_add(&path, "/kv");
    int status = client_ask(args, "GET", &path, NULL, NULL, NULL, &response);
    if (status == 0 && args_has(args, "json"))
        client_print(NULL, response.body.data, response.body.len);
    else if (status == 0)
        print_keyspaces(&response);
    response_free(&response);
    text_free(&path);
    return status;
}

/* ---- watch: each event on one line of JSON ----------------------------------------------------------------------- */

static int print_event(void *arg, const char *data, size_t len)
{
    line_printer_t *printer = arg;
    while (len > 0) {
        const char *newline = memchr(data, '\n', len);
        size_t piece = newline == NULL ? len : (size_t)(newline - data);
        text_append(&printer->line, data, piece);
        if (newline != NULL) {
            if (printer->line.len > 7 && memcmp(printer->line.data, "event: ", 7) == 0)
                printf("%-7s", printer->line.data + 7);
            if (printer->line.len > 6 && memcmp(printer->line.data, "data: ", 6) == 0)
                printf("%s\n", printer->line.data + 6);
            text_clear(&printer->line);
            piece++;
        }
        data += piece;
        len -= piece;
    }
    fflush(stdout);
    return ferror(stdout) ? CAKE_EIO : 0;
}

static int run_watch(const args_t *args)
{
    text_t path = TEXT_INIT(0);
    response_t response = {0};
    line_printer_t printer = {.line = TEXT_INIT(0)};
    int status = check_names(args);
    if (status == 0) {
        make_path(&path, "/watch/", args->operands[0], NULL);
        if (args_has(args, "values"))
            text_add(&path, "?values=1");
        status = client_ask(args, "GET", &path, NULL, print_event, &printer, &response);
    }
    text_free(&printer.line);
    response_free(&response);
    text_free(&path);
    return status;
}

const command_t put_command = {
    .name = "put",
    .operands = "KEYSPACE KEY [VALUE|-]",
    .least = 2,
    .most = 3,
    .summary = "store a document; its value is read from standard input when it is - or missing",
    .flags = write_flags,
    .run = run_put,
};
const command_t get_command = {
    .name = "get",
    .operands = "KEYSPACE KEY",
    .least = 2,
    .most = 2,
    .summary = "print a document's value",
    .flags = read_flags,
    .run = run_get,
};
const command_t del_command = {
    .name = "del",
    .operands = "KEYSPACE KEY | KEYSPACE --from FILE",
    .least = 1,
    .most = 2,
    .summary = "delete a document, also one that this node does not know",
    .flags = delete_flags,
    .run = run_del,
};
const command_t ls_command = {
    .name = "ls",
    .operands = "KEYSPACE",
    .least = 1,
    .most = 1,
    .summary = "list the keys of a keyspace, in order",
    .flags = list_flags,
    .run = run_ls,
};
const command_t keyspaces_command = {
    .name = "keyspaces",
    .operands = "",
    .summary = "list the keyspaces with what they hold",
    .flags = keyspace_flags,
    .run = run_keyspaces,
};
const command_t watch_command = {
    .name = "watch",
    .operands = "KEYSPACE",
    .least = 1,
    .most = 1,
    .summary = "print the changes of a keyspace as they reach the node",
    .flags = watch_flags,
    .run = run_watch,
};
