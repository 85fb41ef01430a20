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

int cake__split_host_port(const char *text, char host[CAKE__HOST_MAX + 1], uint16_t *port)
{
    const char *colon = text == NULL ? NULL : strrchr(text, ':');
    size_t len = colon == NULL ? 0 : (size_t)(colon - text), digits = colon == NULL ? 0 : strlen(colon + 1);
    uint32_t number = 0;
    if (len == 0 || len > CAKE__HOST_MAX || digits == 0 || digits > 5 || memchr(text, ':', len) != NULL)
        return CAKE_EPARSE;
    for (size_t i = 1; i <= digits; i++) {
        if (colon[i] < '0' || colon[i] > '9')
            return CAKE_EPARSE;
        number = number * 10 + (uint32_t)(colon[i] - '0');
    }
    if (number > UINT16_MAX)
        return CAKE_EPARSE;
    memcpy(host, text, len);
    host[len] = '\0';
    *port = (uint16_t)number;
    return 0;
}
