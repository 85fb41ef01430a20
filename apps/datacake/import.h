/* import.h: many lines of a file sent to a node at once: documents for import, keys for del. */
#ifndef DATACAKE_APP_IMPORT_H
#define DATACAKE_APP_IMPORT_H

#include "command.h"

typedef enum import_kind { IMPORT_NDJSON, IMPORT_TSV, IMPORT_DELETES } import_kind_t;

/* The flags that import_run reads; keyspace and path as operands would be. Returns the exit status. */
#define IMPORT_FLAGS                                                                                                   \
    {"consistency", "LEVEL", "none, one, two, three, quorum, local_quorum, each_quorum or all (quorum)"},              \
        {"workers", "N", "requests at once, for many lines (4)"},                                                      \
        {"progress", "KIND", "bar, lines or none (a bar on a terminal)"},                                              \
    {                                                                                                                  \
        "json", NULL, "print the result as JSON"                                                                       \
    }

int import_run(const args_t *args, const char *keyspace, const char *path, import_kind_t kind);

#endif
