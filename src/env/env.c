#include "env/env.h"

typedef struct {
    cake_env_t *env;
    cake__loop_fn fn;
    void *arg;
    int result;
    cake_gate_t gate;
} loop_call_t;

static void run_posted(void *arg)
{
    loop_call_t *call = arg;
    call->result = call->fn(call->arg);
    call->env->ops->gate_open(call->env, &call->gate);
}

int cake__run_on_loop(cake_env_t *env, cake__loop_fn fn, void *arg)
{
    if (env->ops->on_loop(env))
        return fn(arg);
    loop_call_t call = {.env = env, .fn = fn, .arg = arg};
    cake_post_t post = {.fn = run_posted, .arg = &call};
    env->ops->gate_init(env, &call.gate);
    env->ops->post(env, &post);
    env->ops->gate_wait(env, &call.gate);
    env->ops->gate_destroy(env, &call.gate);
    return call.result;
}
