/* Calls an echo service: example-echo_client 127.0.0.1:7001 hello. Without arguments it says how it is called. */
#include <datacake/rpc.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    cake_call_options_t options = CAKE_CALL_OPTIONS_INIT;
    cake_channel_t *channel = NULL;
    cake_reply_t *reply = NULL;
    char message[200] = "";
    int err;

    if (argc != 3) {
        printf("usage: %s ADDRESS TEXT\n", argv[0]);
        return 0;
    }
    options.timeout_ms = 30000;
    options.message = message;
    options.message_size = sizeof message;
    if ((err = cake_channel_open(argv[1], NULL, &channel)) != 0 ||
        (err = cake_channel_call(channel, "/echo/echo", argv[2], strlen(argv[2]), &options, &reply)) != 0)
        fprintf(stderr, "echo: %s (%s)\n", cake_strerror(err), message);
    else
        printf("%.*s\n", (int)cake_reply_body(reply).len, (const char *)cake_reply_body(reply).data);

    cake_reply_free(reply);
    cake_channel_close(channel);
    return err != 0;
}
