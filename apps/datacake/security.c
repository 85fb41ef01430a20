/* security.c: see security.h. */
#include "security.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define KEYS_TEXT_MAX 16384u
#define KEY_DIGITS    (2u * CAKE_CLUSTER_KEY_LEN)

static int wrong(security_t *security, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int wrong(security_t *security, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(security->message, sizeof(security->message), format, list);
    va_end(list);
    return CAKE_EINVAL;
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static int digit_of(char c)
{
    static const char digits[] = "0123456789abcdef";
    char lower = c >= 'A' && c <= 'F' ? (char)(c - 'A' + 'a') : c;
    const char *at = lower == 0 ? NULL : strchr(digits, lower);
    return at == NULL ? -1 : (int)(at - digits);
}

static bool parse_key(const char *text, uint8_t out[CAKE_CLUSTER_KEY_LEN])
{
    if (strlen(text) != KEY_DIGITS)
        return false;
    for (size_t i = 0; i < CAKE_CLUSTER_KEY_LEN; i++) {
        int high = digit_of(text[2 * i]), low = digit_of(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high * 16 + low);
    }
    return true;
}

static int parse_line(security_t *security, const char *where, unsigned number, char *line)
{
    char *save = NULL;
    line[strcspn(line, "#")] = 0;
    for (char *word = strtok_r(line, ", \t\r", &save); word != NULL; word = strtok_r(NULL, ", \t\r", &save)) {
        if (security->key_count == CAKE_CLUSTER_KEYS_MAX)
            return wrong(security, "%s: more than %d keys; keep the one in use and the one that follows it", where,
                         CAKE_CLUSTER_KEYS_MAX);
        if (!parse_key(word, security->keys[security->key_count]))
            return wrong(security, "%s:%u: a key is %u hexadecimal digits; make one with: datacake keygen", where,
                         number, KEY_DIGITS);
        security->key_count++;
    }
    return 0;
}

int security_parse_keys(security_t *security, const char *where, char *text)
{
    unsigned number = 0;
    int err = 0;
    for (char *line = text; line != NULL && err == 0; number++) {
        char *end = strchr(line, '\n');
        if (end != NULL)
            *end++ = 0;
        err = parse_line(security, where, number + 1, line);
        line = end;
    }
    if (err == 0 && security->key_count == 0)
        return wrong(security, "%s holds no key; make one with: datacake keygen", where);
    return err;
}

static int read_key_file(security_t *security, const char *path, char text[KEYS_TEXT_MAX + 1])
{
    struct stat info = {0};
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return wrong(security, "cannot read the cluster key in %s: %s", path, strerror(errno));
    bool is_file = fstat(fileno(file), &info) == 0 && !S_ISDIR(info.st_mode);
    size_t len = is_file ? fread(text, 1, KEYS_TEXT_MAX + 1, file) : 0;
    bool has_failed = ferror(file) != 0 || !is_file;
    fclose(file);
    if (has_failed)
        return wrong(security, "cannot read the cluster key in %s", path);
    if (len > KEYS_TEXT_MAX || memchr(text, 0, len) != NULL)
        return wrong(security, "%s is no file of keys: lines of %u hexadecimal digits", path, KEY_DIGITS);
    text[len] = 0;
    security->is_readable_by_others = (info.st_mode & 077) != 0;
    return security_parse_keys(security, path, text);
}

static int read_keys(security_t *security, const args_t *args)
{
    char text[KEYS_TEXT_MAX + 1];
    const char *path = args_value(args, "cluster-key", NULL), *given = getenv(SECURITY_KEY_VARIABLE);
    int err = 0;
    if (path != NULL) {
        err = read_key_file(security, path, text);
    } else if (given != NULL) {
        int len = snprintf(text, sizeof(text), "%s", given);
        err = len > (int)KEYS_TEXT_MAX ? wrong(security, SECURITY_KEY_VARIABLE " is too long")
                                       : security_parse_keys(security, SECURITY_KEY_VARIABLE, text);
    }
    explicit_bzero(text, sizeof(text));
    return err;
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

static int read_files(security_t *security, const args_t *args)
{
    static const char *const names[] = {"tls-cert", "tls-key", "tls-ca"};
    const char *paths[3];
    size_t given = 0;
    for (size_t i = 0; i < 3; i++) {
        paths[i] = args_value(args, names[i], NULL);
        given += paths[i] != NULL;
    }
    if (given != 0 && given != 3)
        return wrong(security, "give --tls-cert, --tls-key and --tls-ca together, or none of them");
    for (size_t i = 0; i < given; i++) {
        FILE *file = fopen(paths[i], "re");
        if (file == NULL)
            return wrong(security, "cannot read --%s %s: %s", names[i], paths[i], strerror(errno));
        fclose(file);
    }
    security->tls = (cake_tls_config_t){.cert_file = paths[0], .key_file = paths[1], .ca_file = paths[2]};
    return 0;
}

int security_read(security_t *security, const args_t *args)
{
    memset(security, 0, sizeof(*security));
    int err = read_keys(security, args);
    return err != 0 ? err : read_files(security, args);
}

void security_wipe(security_t *security)
{
    explicit_bzero(security, sizeof(*security));
}

void security_configure(const security_t *security, cake_node_config_t *config)
{
    config->cluster_keys = (const uint8_t(*)[CAKE_CLUSTER_KEY_LEN])security->keys;
    config->cluster_key_count = security->key_count;
    config->tls = security->tls.cert_file == NULL ? NULL : &security->tls;
}

static void reload_keys(cake_node_t *node, const security_t *security, const log_t *log)
{
    int err = cake_node_reload_keys(node, (const uint8_t(*)[CAKE_CLUSTER_KEY_LEN])security->keys, security->key_count);
    if (err == 0)
        log_line(log, CAKE_LOG_INFO, "read again: %zu cluster key%s, the first of which seals", security->key_count,
                 security->key_count == 1 ? "" : "s");
    else
        log_line(log, CAKE_LOG_ERROR, "the cluster keys stay as they were: %s", cake_strerror(err));
}

static void reload_tls(cake_node_t *node, const security_t *security, const log_t *log)
{
    int err = cake_node_reload_tls(node, &security->tls);
    if (err == 0)
        log_line(log, CAKE_LOG_INFO, "read again: the certificate in %s", security->tls.cert_file);
    else
        log_line(log, CAKE_LOG_ERROR, "the certificate stays as it was: %s", cake_strerror(err));
}

void security_reload(cake_node_t *node, const args_t *args, const log_t *log)
{
    security_t security;
    if (security_read(&security, args) != 0) {
        log_line(log, CAKE_LOG_ERROR, "keys and certificates stay as they were: %s", security.message);
    } else {
        if (security.key_count > 0)
            reload_keys(node, &security, log);
        if (security.tls.cert_file != NULL)
            reload_tls(node, &security, log);
    }
    security_wipe(&security);
}

/* ---- datacake keygen --------------------------------------------------------------------------------------------- */

static int run_keygen(const args_t *args)
{
    uint8_t key[CAKE_CLUSTER_KEY_LEN];
    if (getrandom(key, sizeof(key), 0) != (ssize_t)sizeof(key))
        return fail(args, EXIT_OTHER, "no random numbers: %s", strerror(errno));
    for (size_t i = 0; i < sizeof(key); i++)
        printf("%02x", key[i]);
    printf("\n");
    explicit_bzero(key, sizeof(key));
    return EXIT_DONE;
}

const command_t keygen_command = {
    .name = "keygen",
    .operands = "",
    .summary = "a new cluster key on standard output, for the file of serve --cluster-key",
    .details =
        "All nodes of a cluster have the same key. Keep it from others: (umask 077; datacake keygen >cluster.key)",
    .flags = no_flags,
    .run = run_keygen,
};
