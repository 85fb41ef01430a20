/* datadir.c: see datadir.h. */
#include "datadir.h"

#include "clock.h"
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SMALL_FILE_MAX 512
#define SLOT_BYTES     512

static int report(datadir_t *datadir, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int report(datadir_t *datadir, int err, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(datadir->message, sizeof(datadir->message), format, list);
    va_end(list);
    return err;
}

int datadir_sync(const char *directory)
{
    int file = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int err = file >= 0 && fsync(file) == 0 ? 0 : -1;
    if (file >= 0)
        close(file);
    return err;
}

/* 0 or -1 and errno. Durable: what is written in it shall not be lost with it. */
static int make_directory(const char *path, mode_t mode)
{
    char above[DATADIR_PATH_MAX];
    if (mkdir(path, mode) != 0)
        return errno == EEXIST ? 0 : -1;
    snprintf(above, sizeof(above), "%s", path);
    char *slash = strrchr(above, '/');
    if (slash != NULL)
        slash[slash == above] = 0;
    return datadir_sync(slash == NULL ? "." : above);
}

static int make_directories(datadir_t *datadir)
{
    char *path = datadir->path;
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        int err = make_directory(path, 0777);
        *slash = '/';
        if (err != 0)
            break; /* the last one says why */
    }
    struct stat info;
    if (make_directory(path, 0700) != 0)
        return report(datadir, CAKE_EIO, "cannot make the data directory %s: %s", path, strerror(errno));
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode))
        return report(datadir, CAKE_EIO, "%s is no directory; give --data-dir another path", path);
    return 0;
}

/* ---- small files ------------------------------------------------------------------------------------------------- */

/* CAKE_ENOTFOUND when there is none. errno says why otherwise. */
static int read_small(const char *dir, const char *name, char out[SMALL_FILE_MAX])
{
    char path[DATADIR_PATH_MAX + 32];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return errno == ENOENT ? CAKE_ENOTFOUND : CAKE_EIO;
    ssize_t len = read(file, out, SMALL_FILE_MAX - 1);
    close(file);
    out[len > 0 ? len : 0] = 0;
    return len < 0 ? CAKE_EIO : 0;
}

/* Whole and durable, or not at all. */
static int write_small(const char *dir, const char *name, const char *text)
{
    char path[DATADIR_PATH_MAX + 32], temporary[DATADIR_PATH_MAX + 40];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    snprintf(temporary, sizeof(temporary), "%s.new", path);
    int err = CAKE_EIO;
    int file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0)
        goto out;
    size_t len = strlen(text);
    if (write(file, text, len) != (ssize_t)len || fsync(file) != 0 || rename(temporary, path) != 0)
        goto out;
    err = datadir_sync(dir) == 0 ? 0 : CAKE_EIO;
out:
    if (err != 0 && errno == ENOSPC)
        err = CAKE_ENOSPC;
    if (file >= 0)
        close(file);
    return err;
}

/* ---- whose it is ------------------------------------------------------------------------------------------------- */

int datadir_read_owner(const char *dir, datadir_owner_t *owner)
{
    char text[SMALL_FILE_MAX];
    int err = read_small(dir, "node", text);
    if (err != 0)
        return err;
    int fields =
        sscanf(text, "node-id %u\ncluster-id %255[^\n]\nstorage %31s", &owner->node_id, owner->cluster, owner->storage);
    return fields == 3 ? 0 : CAKE_ECORRUPT;
}

int datadir_write_owner(const char *dir, const datadir_owner_t *owner)
{
    char text[SMALL_FILE_MAX];
    snprintf(text, sizeof(text), "node-id %u\ncluster-id %s\nstorage %s\n", owner->node_id, owner->cluster,
             owner->storage);
    return write_small(dir, "node", text);
}

bool datadir_is_in_use(const char *dir)
{
    char path[DATADIR_PATH_MAX + 32];
    snprintf(path, sizeof(path), "%s/lock", dir);
    int lock = open(path, O_RDWR | O_CLOEXEC);
    bool is_held = lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) != 0;
    if (lock >= 0)
        close(lock);
    return is_held;
}

static int take_lock(datadir_t *datadir)
{
    char path[DATADIR_PATH_MAX + 16], holder[24] = "";
    snprintf(path, sizeof(path), "%s/lock", datadir->path);
    datadir->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (datadir->lock < 0)
        return report(datadir, CAKE_EIO, "cannot write into the data directory %s: %s", datadir->path, strerror(errno));
    if (flock(datadir->lock, LOCK_EX | LOCK_NB) != 0) {
        ssize_t len = read(datadir->lock, holder, sizeof(holder) - 1);
        holder[len > 0 ? strspn(holder, "0123456789") : 0] = 0;
        close(datadir->lock);
        datadir->lock = -1;
        return report(datadir, CAKE_EBUSY, "the data directory %s is in use by process %s; stop it first",
                      datadir->path, *holder ? holder : "of another datacake");
    }
    char text[24]; /* of the same length each time: on a full disk, one cut short could not grow again */
    int len = snprintf(text, sizeof(text), "%-20ld\n", (long)getpid());
    if (pwrite(datadir->lock, text, (size_t)len, 0) != len)
        return report(datadir, CAKE_EIO, "cannot write %s: %s", path, strerror(errno));
    return 0;
}

static int first_owner(datadir_t *datadir, uint16_t node_id, const char *cluster_id, const char *storage)
{
    datadir_owner_t owner = {.node_id = node_id};
    snprintf(owner.cluster, sizeof(owner.cluster), "%s", cluster_id);
    snprintf(owner.storage, sizeof(owner.storage), "%s", storage);
    int err = datadir_write_owner(datadir->path, &owner);
    return err == 0 ? 0 : report(datadir, err, "cannot write %s/node: %s", datadir->path, strerror(errno));
}

static int check_owner(datadir_t *datadir, uint16_t node_id, const char *cluster_id, const char *storage)
{
    datadir_owner_t owner;
    const char *path = datadir->path;
    int err = datadir_read_owner(path, &owner);
    if (err == CAKE_ENOTFOUND)
        return first_owner(datadir, node_id, cluster_id, storage);
    if (err == CAKE_ECORRUPT)
        return report(datadir, err,
                      "%s/node is damaged; its three lines should read: node-id N, cluster-id NAME, storage KIND",
                      path);
    if (err != 0)
        return report(datadir, err, "cannot read %s/node: %s", path, strerror(errno));
    if (owner.node_id != node_id)
        return report(datadir, CAKE_ECONFLICT,
                      "%s holds the data of node %u, not of node %u; give another --data-dir or --node-id %u", path,
                      owner.node_id, node_id, owner.node_id);
    if (strcmp(owner.cluster, cluster_id) != 0)
        return report(datadir, CAKE_ECONFLICT,
                      "%s holds data of cluster \"%s\", not of \"%s\"; give another --data-dir or --cluster-id", path,
                      owner.cluster, cluster_id);
    if (strcmp(owner.storage, storage) != 0)
        return report(datadir, CAKE_ECONFLICT,
                      "%s was made with --storage %s, not %s; give that, or another --data-dir", path, owner.storage,
                      storage);
    return 0;
}

/* ---- generation -----------------------------------------------------------------------------------------------------
 * The file has two slots, each in a sector of its own: "1732300000123 fffffe6caa2ab434\n", the number and its
 * complement, then spaces. A start overwrites the lower one in place: a full disk has no room for a new file, and a
 * write that is torn leaves the other. A number alone in the first line is from before there were slots. */

/* 0: none */
static uint64_t read_slot(const char *text)
{
    unsigned long long number = 0, complement = 0;
    char end = 0, alone = 0;
    int fields = sscanf(text, "%llu%c%16llx%c", &number, &alone, &complement, &end);
    bool is_sound = fields == 4 ? alone == ' ' && end == '\n' && complement == ~number : fields >= 2 && alone == '\n';
    return is_sound && number < UINT64_MAX ? number : 0;
}

static void fill_slot(char slot[SLOT_BYTES], uint64_t generation)
{
    char text[SLOT_BYTES];
    int len =
        snprintf(text, sizeof(text), "%llu %016llx\n", (unsigned long long)generation, (unsigned long long)~generation);
    memset(slot, ' ', SLOT_BYTES);
    memcpy(slot, text, (size_t)len);
    slot[SLOT_BYTES - 1] = '\n';
}

static uint64_t next_generation(uint64_t stored)
{
    uint64_t now_ms = wall_ms();
    return stored + 1 > now_ms ? stored + 1 : now_ms;
}

static int make_generation(datadir_t *datadir)
{
    char text[SLOT_BYTES * 2 + 1];
    datadir->generation = next_generation(0);
    fill_slot(text, datadir->generation);
    memset(text + SLOT_BYTES, ' ', SLOT_BYTES);
    text[sizeof(text) - 1] = 0;
    int err = write_small(datadir->path, "generation", text);
    return err == 0 ? 0 : report(datadir, err, "cannot write %s/generation: %s", datadir->path, strerror(errno));
}

static int raise_in(datadir_t *datadir, int file, const char *path)
{
    char text[SLOT_BYTES * 2 + 1] = "", slot[SLOT_BYTES];
    if (file < 0 || pread(file, text, sizeof(text) - 1, 0) < 0)
        return report(datadir, CAKE_EIO, "cannot open %s: %s", path, strerror(errno));
    uint64_t first = read_slot(text), second = read_slot(text + SLOT_BYTES);
    if (first == 0 && second == 0)
        return report(datadir, CAKE_ECORRUPT,
                      "%s is damaged; it should hold a number above that of every earlier start, and its complement",
                      path);
    datadir->generation = next_generation(first > second ? first : second);
    fill_slot(slot, datadir->generation);
    if (pwrite(file, slot, sizeof(slot), first > second ? SLOT_BYTES : 0) != (ssize_t)sizeof(slot) || fsync(file) != 0)
        return report(datadir, errno == ENOSPC ? CAKE_ENOSPC : CAKE_EIO, "cannot write %s: %s", path, strerror(errno));
    return 0;
}

static int raise_generation(datadir_t *datadir)
{
    char path[DATADIR_PATH_MAX + 16];
    snprintf(path, sizeof(path), "%s/generation", datadir->path);
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0 && errno == ENOENT)
        return make_generation(datadir);
    int err = raise_in(datadir, file, path);
    if (file >= 0)
        close(file);
    return err;
}

int datadir_open(datadir_t *datadir, const char *path, uint16_t node_id, const char *cluster_id, const char *storage)
{
    memset(datadir, 0, sizeof(*datadir));
    datadir->lock = -1;
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    if (len == 0 || len >= DATADIR_PATH_MAX)
        return report(datadir, CAKE_EINVAL, "the path of the data directory is empty or too long");
    memcpy(datadir->path, path, len);
    snprintf(datadir->store_path, sizeof(datadir->store_path), "%s/store", datadir->path);
    int err = make_directories(datadir);
    if (err == 0)
        err = take_lock(datadir);
    if (err == 0)
        err = check_owner(datadir, node_id, cluster_id, storage);
    if (err == 0)
        err = raise_generation(datadir);
    return err;
}

void datadir_close(datadir_t *datadir)
{
    if (datadir->lock >= 0)
        close(datadir->lock);
    datadir->lock = -1;
}
