/* faults.h: cuts a node off from others, for `datacake demo partition`: its environment drops what goes to or comes
 * from addresses that are named in a file. */
#ifndef DATACAKE_APP_FAULTS_H
#define DATACAKE_APP_FAULTS_H

#include <datacake/env.h>

/* Puts itself between a node and its environment, which must not be in use yet. Once per process. CAKE_ENOMEM. */
int faults_install(cake_env_t *env);

/* Reads the addresses, one a line, and blocks those alone. A missing file blocks none. Not on the loop. */
void faults_read(cake_env_t *env, const char *path);

#endif
