/* security.h: what `datacake serve` and its peers have in common and strangers do not: cluster keys and
 * certificates, from the flags, a file and the environment, read at the start and again on SIGHUP. */
#ifndef DATACAKE_APP_SECURITY_H
#define DATACAKE_APP_SECURITY_H

#include <datacake/node.h>

#include "command.h"
#include "log.h"

#define SECURITY_MESSAGE_MAX  512
#define SECURITY_KEY_VARIABLE "DATACAKE_CLUSTER_KEY"

typedef struct security {
    uint8_t keys[CAKE_CLUSTER_KEYS_MAX][CAKE_CLUSTER_KEY_LEN];
    size_t key_count;
    cake_tls_config_t tls; /* cert_file NULL: without certificates; the paths are the flags' */
    bool is_readable_by_others;
    char message[SECURITY_MESSAGE_MAX]; /* what is wrong, after an error */
} security_t;

/* 0, or CAKE_EINVAL and a message. Keys come from --cluster-key, or else the environment. */
int security_read(security_t *security, const args_t *args);
void security_wipe(security_t *security);

/* Reads the keys of a text, one a line or between commas; the rest of a line after # is a comment. */
int security_parse_keys(security_t *security, const char *where, char *text);

/* Points the node's configuration into security, which has to outlive the start. */
void security_configure(const security_t *security, cake_node_config_t *config);
/* Reads everything again and gives it to the node; logs what came of it. */
void security_reload(cake_node_t *node, const args_t *args, const log_t *log);

#endif
