/* An echo service. example-echo_server ADDRESS serves until interrupted; without an address it calls itself once. */
#include <datacake/rpc.h>
#include <signal.h>
#include <stdio.h>

static void echo(cake_rpc_call_t *call, void *arg)
{
    cake_slice_t body = cake_rpc_body(call);
    (void)arg;
    cake_rpc_reply(call, body.data, body.len);
}

int main(int argc, char **argv)
{
    static const cake_rpc_method_t method = {"echo", echo, 0};
    const cake_rpc_service_t service = {.name = "echo", .methods = &method, .count = 1};
    cake_rpc_server_config_t config = CAKE_RPC_SERVER_CONFIG_INIT;
    cake_rpc_server_t *server = NULL;
    cake_channel_t *channel = NULL;
    sigset_t signals;
    int err, number;

    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    config.listen_addr = argc > 1 ? argv[1] : "127.0.0.1:0";
    if ((err = cake_rpc_listen(&config, &server)) == 0 && (err = cake_rpc_add_service(server, &service)) == 0) {
        printf("listening on %s\n", cake_rpc_address(server));
        fflush(stdout);
        if (argc > 1)
            sigwait(&signals, &number);
        else if ((err = cake_channel_open(cake_rpc_address(server), NULL, &channel)) == 0)
            err = cake_channel_call(channel, "/echo/echo", "hello", 5, NULL, NULL);
    }
    cake_channel_close(channel);
    cake_rpc_close(server);
    return err != 0;
}
