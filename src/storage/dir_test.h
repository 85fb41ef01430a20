/* dir_test.h: data directories for tests, and what is done to their files. */
#ifndef CAKE_STORAGE_DIR_TEST_H
#define CAKE_STORAGE_DIR_TEST_H

#include <dirent.h>
#include <stdlib.h>

#include "storage/dir.h"

typedef struct cake__test_dir {
    char parent[64]; /* made by mkdtemp */
    char path[80];   /* parent/data; a storage makes it */
} cake__test_dir_t;

/* Into the program's own log, so that a failing test shows what the storage said. */
static inline void cake__test_log(void *ctx, cake_log_level_t level, const char *message)
{
    (void)ctx;
    (void)level;
    if (getenv("CAKE_TEST_LOG") != NULL)
        fprintf(stderr, "  log: %s\n", message);
}

static inline void cake__test_dir_make(cake__test_dir_t *dir)
{
    snprintf(dir->parent, sizeof dir->parent, "/tmp/datacake-test-XXXXXX");
    char *made = mkdtemp(dir->parent);
    CAKE_ASSERT(made != NULL);
    snprintf(dir->path, sizeof dir->path, "%s/data", dir->parent);
}

/* Files and directories below path, two levels at most; path stays. */
static inline void cake__test_empty(const char *path)
{
    DIR *listing = opendir(path);
    const struct dirent *entry;
    while (listing != NULL && (entry = readdir(listing)) != NULL) {
        char name[CAKE__PATH_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (cake__path_join(name, path, entry->d_name) == 0 && unlink(name) != 0) {
            cake__test_empty(name);
            (void)rmdir(name);
        }
    }
    if (listing != NULL)
        closedir(listing);
}

static inline void cake__test_dir_clear(cake__test_dir_t *dir)
{
    cake__test_empty(dir->parent);
}

static inline void cake__test_dir_remove(cake__test_dir_t *dir)
{
    cake__test_empty(dir->parent);
    (void)rmdir(dir->parent);
}

#endif
