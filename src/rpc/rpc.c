#include "rpc/rpc.h"

#include "env/env.h"
#include "rpc/conn.h"
#include "rpc/headers.h"

int cake_rpc_status(int err)
{
    switch (err) {
    case 0:
        return 200;
    case CAKE_EINVAL:
    case CAKE_EPARSE:
    case CAKE_EVERSION:
        return 400;
    case CAKE_EUNAUTHENTICATED:
        return 401;
    case CAKE_ENOTFOUND:
    case CAKE_EUNAVAILABLE:
        return 404;
    case CAKE_ECONFLICT:
    case CAKE_EDUPLICATE:
        return 409;
    case CAKE_ETOOBIG:
        return 413;
    case CAKE_EBUSY:
    case CAKE_ENOTENOUGHNODES:
    case CAKE_ENOTJOINED:
        return 503;
    case CAKE_ETIMEDOUT:
    case CAKE_ECONSISTENCY:
        return 504;
    default:
        return 500;
    }
}

/* By name only: the layers here run in any environment, and uv is no layer of theirs. Not weak: a static library
 * would leave uv out then. */
struct cake_uv_options;
extern int cake_uv_env_new(const struct cake_uv_options *options, cake_env_t **out);

int cake__default_env(cake_env_t **env)
{
    *env = NULL;
    return cake_uv_env_new(NULL, env);
}

int cake__set_up(cake__setup_t *setup, bool is_sound, cake_env_t *env, const char *cluster_id,
                 const cake_tls_config_t *tls)
{
    *setup = (cake__setup_t){.env = env, .owns_env = env == NULL};
    if (!is_sound || !cake__is_cluster_id(cluster_id))
        return CAKE_EINVAL;
    int err = setup->owns_env ? cake__default_env(&setup->env) : 0;
    if (err != 0)
        return err;
    err = cake__tls_make(setup->env, tls, &setup->tls);
    if (err != 0)
        cake__undo_setup(setup);
    return err;
}

void cake__undo_setup(cake__setup_t *setup)
{
    if (setup->tls != NULL)
        setup->env->ops->tls_close(setup->tls);
    if (setup->owns_env)
        setup->env->ops->close(setup->env);
}

typedef struct {
    cake_env_t *env;
    cake_gate_t gate;
} closing_t;

static void open_gate(void *arg)
{
    closing_t *closing = arg;
    closing->env->ops->gate_open(closing->env, &closing->gate);
}

int cake__close_and_wait(cake_env_t *env, bool owns_env, int (*begin)(void *owner), void *owner, cake_event_fn *closed,
                         void **closed_arg)
{
    closing_t closing = {.env = env};
    if (env->ops->on_loop(env))
        return CAKE_EDEADLK;
    env->ops->gate_init(env, &closing.gate);
    *closed = open_gate;
    *closed_arg = &closing;
    (void)cake__run_on_loop(env, begin, owner);
    env->ops->gate_wait(env, &closing.gate);
    env->ops->gate_destroy(env, &closing.gate);
    if (owns_env)
        env->ops->close(env);
    return 0;
}
