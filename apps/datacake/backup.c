/* backup.c: `datacake backup` and `datacake restore`: copies of a node's data directory, also while the node runs.
 *
 *   TO/node      as in the data directory: whose data it is
 *   TO/store/    the storage, copied in one snapshot per lane
 *
 * A copy is made in TO.new and gets its name when it is whole and has been checked. A restored directory has no
 * generation: the node's next one is drawn from the clock. Nor is a run's actor kept anywhere, so a copy that is
 * started beside its original names its writes differently. */
#include "command.h"
#include "datadir.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef CAKE_APP_LMDB
#include <datacake/lmdb.h>
#endif
#include <datacake/sqlite.h>

#define PATH_BYTES (DATADIR_PATH_MAX + 32u)

typedef struct copy {
    const args_t *args;
    char from[DATADIR_PATH_MAX], to[DATADIR_PATH_MAX], draft[DATADIR_PATH_MAX + 8];
    datadir_owner_t owner;
    unsigned keyspaces;
    unsigned long long documents;
} copy_t;

static void print_log(void *ctx, cake_log_level_t level, const char *message)
{
    (void)ctx;
    (void)level;
    fprintf(stderr, "%s\n", message);
}

static int take_path(const args_t *args, const char *text, char out[DATADIR_PATH_MAX])
{
    size_t len = strlen(text);
    while (len > 1 && text[len - 1] == '/')
        len--;
    if (len == 0 || len + 32 >= DATADIR_PATH_MAX)
        return fail(args, EXIT_USAGE, "a path is empty or too long");
    memcpy(out, text, len);
    out[len] = 0;
    return 0;
}

static int read_node(copy_t *copy)
{
    int err = datadir_read_owner(copy->from, &copy->owner);
    if (err == CAKE_ECORRUPT)
        return fail(copy->args, EXIT_OTHER, "%s/node is damaged", copy->from);
    if (err != 0)
        return fail(copy->args, EXIT_OTHER, "%s is no data directory of a node: it has no file \"node\" (%s)",
                    copy->from, strerror(errno));
    return 0;
}

static int write_node(const copy_t *copy)
{
    int err = datadir_write_owner(copy->draft, &copy->owner);
    return err == 0 ? 0 : fail(copy->args, EXIT_OTHER, "cannot write %s/node: %s", copy->draft, strerror(errno));
}

/* ---- the storage ------------------------------------------------------------------------------------------------- */

static int copy_store(const copy_t *copy, const char *from, const char *to)
{
    cake_log_t log = {print_log, NULL, CAKE_LOG_ERROR};
    int err = CAKE_EINVAL;
    if (strcmp(copy->owner.storage, "sqlite") == 0)
        err = cake_sqlite_copy(from, to, &log);
#ifdef CAKE_APP_LMDB
    if (strcmp(copy->owner.storage, "lmdb") == 0)
        err = cake_lmdb_copy(from, to, &log);
#endif
    if (err == CAKE_ENOTFOUND)
        return fail(copy->args, EXIT_OTHER, "%s holds no storage", from);
    if (err == CAKE_EINVAL)
        return fail(copy->args, EXIT_OTHER, "this program has no storage \"%s\" that could be copied",
                    copy->owner.storage);
    return err == 0 ? 0 : fail(copy->args, EXIT_OTHER, "cannot copy %s: %s", from, cake_strerror(err));
}

static int open_store(const copy_t *copy, const char *dir, cake_storage_t **storage)
{
    cake_log_t log = {print_log, NULL, CAKE_LOG_ERROR};
    cake_sqlite_options_t sqlite = CAKE_SQLITE_OPTIONS_INIT;
    sqlite.log = &log;
    if (strcmp(copy->owner.storage, "sqlite") == 0)
        return cake_sqlite_open(dir, &sqlite, storage);
#ifdef CAKE_APP_LMDB
    cake_lmdb_options_t lmdb = CAKE_LMDB_OPTIONS_INIT;
    lmdb.log = &log;
    return cake_lmdb_open(dir, &lmdb, storage);
#else
    return CAKE_EINVAL;
#endif
}

typedef struct count {
    copy_t *copy;
    cake_storage_t *storage;
} count_t;

static int count_document(void *arg, const cake_row_t *row)
{
    copy_t *copy = arg;
    copy->documents += !row->is_tombstone;
    return 0;
}

static int count_keyspace(void *arg, const char *name)
{
    count_t *count = arg;
    cake_slice_t keyspace = {name, strlen(name)};
    count->copy->keyspaces++;
    return count->storage->ops->metadata(count->storage, keyspace, count_document, count->copy);
}

/* Names are gathered first: a callback must not call the storage. */
typedef struct names {
    char *text;
    size_t len, capacity;
} names_t;

static int gather_name(void *arg, const char *name)
{
    names_t *names = arg;
    size_t len = strlen(name) + 1;
    if (names->len + len > names->capacity) {
        size_t capacity = names->capacity * 2 + 4096; /* a name has at most CAKE_KEYSPACE_NAME_MAX */
        char *text = realloc(names->text, capacity);
        if (text == NULL)
            return CAKE_ENOMEM;
        names->text = text;
        names->capacity = capacity;
    }
    memcpy(names->text + names->len, name, len);
    names->len += len;
    return 0;
}

/* What opening the copy left beside its data. */
static void remove_traces(const char *dir, unsigned lanes)
{
    static const char *const of_lanes[] = {"reserve-%03u", "lane-%03u.mdb-lock"};
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "%s/lock", dir);
    (void)unlink(path);
    for (unsigned i = 0; i < 2 * lanes; i++) {
        int len = snprintf(path, sizeof(path), "%s/", dir);
        snprintf(path + len, sizeof(path) - (size_t)len, of_lanes[i % 2], i / 2);
        (void)unlink(path);
    }
}

static int check_store(copy_t *copy, const char *dir)
{
    char report[256] = "";
    names_t names = {0};
    cake_storage_t *storage = NULL;
    int err = open_store(copy, dir, &storage);
    if (err == 0)
        err = storage->ops->check(storage, report, sizeof(report));
    if (err == 0)
        err = storage->ops->keyspaces(storage, gather_name, &names);
    count_t count = {copy, storage};
    for (size_t at = 0; at < names.len && err == 0; at += strlen(names.text + at) + 1)
        err = count_keyspace(&count, names.text + at);
    unsigned lanes = err == 0 ? storage->ops->lanes(storage) : 0;
    free(names.text);
    cake_storage_close(storage);
    if (err != 0)
        return fail(copy->args, EXIT_OTHER, "the copy is not sound: %s", *report ? report : cake_strerror(err));
    remove_traces(dir, lanes);
    return 0;
}

/* ---- directories ------------------------------------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    return remove(path);
}

static void remove_tree(const char *path)
{
    (void)nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static int publish(const copy_t *copy)
{
    char parent[DATADIR_PATH_MAX];
    memcpy(parent, copy->to, sizeof(parent));
    char *slash = strrchr(parent, '/');
    if (slash != NULL)
        slash[slash == parent] = 0;
    /* rename() takes the place of an empty directory, and of nothing else */
    if (datadir_sync(copy->draft) != 0 || rename(copy->draft, copy->to) != 0 ||
        datadir_sync(slash == NULL ? "." : parent) != 0)
        return fail(copy->args, EXIT_OTHER, "cannot make %s: %s", copy->to, strerror(errno));
    return 0;
}

static int copy_and_check(copy_t *copy)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    snprintf(from, sizeof(from), "%s/store", copy->from);
    snprintf(to, sizeof(to), "%s/store", copy->draft);
    int status = copy_store(copy, from, to);
    return status == 0 ? check_store(copy, to) : status;
}

static bool pass_on(int pipe_end, const copy_t *copy)
{
    const unsigned long long counts[] = {copy->keyspaces, copy->documents};
    return write(pipe_end, counts, sizeof(counts)) == (ssize_t)sizeof(counts);
}

/* Storages that map their files are ended by a signal where a file is shorter than its own pages say, or damaged in
 * other ways. So another process reads them, and this one tells. */
static int copy_apart(copy_t *copy)
{
    int ends[2], state = 0;
    unsigned long long counts[2] = {0};
    pid_t child = pipe(ends) == 0 ? fork() : -1;
    if (child < 0)
        return fail(copy->args, EXIT_OTHER, "cannot start a process: %s", strerror(errno));
    if (child == 0) {
        signal(SIGBUS, SIG_DFL); /* whatever this program was built with */
        signal(SIGSEGV, SIG_DFL);
        int status = copy_and_check(copy);
        _exit(status == 0 && !pass_on(ends[1], copy) ? EXIT_OTHER : status);
    }
    close(ends[1]);
    bool is_told = read(ends[0], counts, sizeof(counts)) == (ssize_t)sizeof(counts);
    close(ends[0]);
    while (waitpid(child, &state, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(state))
        return fail(copy->args, EXIT_OTHER, "%s is damaged: reading it ended with \"%s\"", copy->from,
                    strsignal(WTERMSIG(state)));
    copy->keyspaces = (unsigned)counts[0];
    copy->documents = counts[1];
    return WEXITSTATUS(state) == 0 && !is_told ? EXIT_OTHER : WEXITSTATUS(state);
}

static int make_copy(copy_t *copy)
{
    snprintf(copy->draft, sizeof(copy->draft), "%s.new", copy->to);
    if (mkdir(copy->draft, 0700) != 0)
        return fail(copy->args, EXIT_OTHER, "cannot make %s: %s%s", copy->draft, strerror(errno),
                    errno == EEXIST ? "; it is left from an attempt that was cut short, remove it" : "");
    int status = copy_apart(copy);
    if (status == 0)
        status = write_node(copy);
    if (status == 0)
        status = publish(copy);
    if (status != 0)
        remove_tree(copy->draft);
    return status;
}

/* ---- the commands ------------------------------------------------------------------------------------------------ */

static int take_paths(copy_t *copy, const char *from, const char *to)
{
    const char *dir = args_value(copy->args, "data-dir", NULL);
    if (dir == NULL)
        return fail(copy->args, EXIT_USAGE, "give --data-dir DIR");
    int status = take_path(copy->args, from == NULL ? dir : from, copy->from);
    if (status == 0)
        status = take_path(copy->args, to == NULL ? dir : to, copy->to);
    return status != 0 ? status : read_node(copy);
}

static int run_backup(const args_t *args)
{
    copy_t copy = {.args = args};
    struct stat info;
    int status = take_paths(&copy, NULL, args->operands[0]);
    if (status != 0)
        return status;
    if (lstat(copy.to, &info) == 0)
        return fail(args, EXIT_USAGE, "%s exists; give a new directory", copy.to);
    status = make_copy(&copy);
    if (status == 0)
        printf("backed up %s of node %u to %s: %u keyspaces, %llu documents, checked\n", copy.from, copy.owner.node_id,
               copy.to, copy.keyspaces, copy.documents);
    return status;
}

static int run_restore(const args_t *args)
{
    copy_t copy = {.args = args};
    int status = take_paths(&copy, args->operands[0], NULL);
    if (status != 0)
        return status;
    if (datadir_is_in_use(copy.to))
        return fail(args, EXIT_USAGE, "a node is running in %s; restore into a new directory", copy.to);
    if (rmdir(copy.to) != 0 && errno != ENOENT)
        return fail(args, EXIT_USAGE, "%s is not empty; restore into a new directory", copy.to);
    status = make_copy(&copy);
    if (status == 0)
        printf("restored node %u from %s into %s: %u keyspaces, %llu documents, checked\n", copy.owner.node_id,
               copy.from, copy.to, copy.keyspaces, copy.documents);
    return status;
}

static const flag_t backup_flags[] = {
    {"data-dir", "DIR", "the node's data directory; the node may be running (required)"},
    {NULL, NULL, NULL},
};

static const flag_t restore_flags[] = {
    {"data-dir", "DIR", "the directory to make; it must be missing or empty (required)"},
    {NULL, NULL, NULL},
};

const command_t backup_command = {
    .name = "backup",
    .operands = "TO",
    .least = 1,
    .most = 1,
    .summary = "copy a node's data into the new directory TO, also while it runs",
    .details = "The copy is one snapshot per lane, compact, checked, and a data directory like any other.",
    .flags = backup_flags,
    .run = run_backup,
};

const command_t restore_command = {
    .name = "restore",
    .operands = "FROM",
    .least = 1,
    .most = 1,
    .summary = "make a data directory from a backup",
    .details = "The node gets what it missed since from the others, and what they lack of it goes to them.",
    .flags = restore_flags,
    .run = run_restore,
};
