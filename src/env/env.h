/* env: the seam, for the layers above it. Types and thin inline calls over <datacake/env.h>; no code of its own but
 * what every user of the seam needs the same: running a function on the loop and waiting for it. */
#ifndef CAKE_ENV_ENV_H
#define CAKE_ENV_ENV_H

#include <datacake/env.h>

#include "base/base.h"

static inline uint64_t cake__now_ns(cake_env_t *env)
{
    return env->ops->now_ns(env);
}

static inline uint64_t cake__wall_ms(cake_env_t *env)
{
    return env->ops->wall_ms(env);
}

static inline uint64_t cake__draw_u64(cake_env_t *env)
{
    uint64_t value;
    env->ops->random(env, &value, sizeof value);
    return value;
}

static inline void cake__timer_arm_ms(cake_env_t *env, cake_timer_t *timer, uint64_t delay_ms)
{
    env->ops->timer_arm(env, timer, cake__now_ns(env) + delay_ms * CAKE_NS_PER_MS);
}

/* Runs fn(arg) on the loop and returns what it returned: directly when already there, else by a post and a wait. */
typedef int (*cake__loop_fn)(void *arg);
int cake__run_on_loop(cake_env_t *env, cake__loop_fn fn, void *arg);

/* "name:port" into its parts, for names that are no numeric addresses. CAKE_EPARSE; what it gives may not exist. */
#define CAKE__HOST_MAX 253u /* bytes, as DNS has it */
int cake__split_host_port(const char *text, char host[CAKE__HOST_MAX + 1], uint16_t *port);

#endif
