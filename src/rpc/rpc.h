/* rpc: what the layers above need of it beyond <datacake/rpc.h>: closing without waiting, and the environment that an
 * owner without one gets. Calls belong to the loop thread unless they say otherwise.
 *
 *   h2/      an HTTP/2 session: bytes in, events out; commands in, bytes out. Knows no sockets and no calls.
 *   conn     one connection: feeds a stream's bytes to a session and the session's to the stream, one write per loop
 *            turn
 *   server, service, answer      accepting, services, the calls being answered
 *   channel, call                connecting, the calls being made */
#ifndef CAKE_RPC_RPC_H
#define CAKE_RPC_RPC_H

#include <datacake/rpc.h>

#define CAKE__MESSAGE_MAX   1000u      /* bytes of an error's text */
#define CAKE__STREAM_BUFFER (1u << 20) /* written to a stream and not sent: writing gives CAKE_EBUSY beyond */

/* The non-blocking twins of cake_rpc_close and cake_channel_close: closed(arg) is the last that is heard of it, and
 * is never called inside. Only for a server or channel with a borrowed environment (CAKE_EINVAL else). Any thread. */
int cake__rpc_server_close(cake_rpc_server_t *server, cake_event_fn closed, void *arg);
int cake__channel_close(cake_channel_t *channel, cake_event_fn closed, void *arg);

/* Has the loop begin the end of what is an owner's, waits until it says so by *closed(*closed_arg), and closes the
 * environment with it when that is its own. CAKE_EDEADLK: on the loop. */
int cake__close_and_wait(cake_env_t *env, bool owns_env, int (*begin)(void *owner), void *owner, cake_event_fn *closed,
                         void **closed_arg);

/* Ends the calls under way with CAKE_ECONNECTION and the connection with them; the channel stays, and its next call
 * connects. Loop thread. */
void cake__channel_reset(cake_channel_t *channel);

/* For an owner of many channels and servers that all use one TLS context of its own: connections made from now on are
 * secured by it. Instead of `tls` in their configurations, and never with reload_tls. tls outlives them, or another
 * one is lent before it is closed. Loop thread; before the first call, or the next step of the loop after listening. */
void cake__channel_lend_tls(cake_channel_t *channel, cake_tls_t *tls);
void cake__rpc_server_lend_tls(cake_rpc_server_t *server, cake_tls_t *tls);

/* An environment of the real machine, for owners that were given none. End it with env->ops->close(env). Any thread.
 * CAKE_ENOMEM, CAKE_EINTERNAL. */
int cake__default_env(cake_env_t **env);

/* What the configurations of servers and channels share, checked and made: an environment where none is given, a TLS
 * context where one is asked for. Any thread. CAKE_EINVAL, CAKE_EUNAVAILABLE: the environment has no TLS; else as of
 * cake__default_env and tls_open. */
typedef struct {
    cake_env_t *env;
    cake_tls_t *tls; /* NULL: without */
    bool owns_env;
} cake__setup_t;

int cake__set_up(cake__setup_t *setup, bool is_sound, cake_env_t *env, const char *cluster_id,
                 const cake_tls_config_t *tls); /* an error: there is nothing to undo */
void cake__undo_setup(cake__setup_t *setup);

#endif
