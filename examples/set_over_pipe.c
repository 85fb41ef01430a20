/* The set alone, between two processes over a pair of pipes: the child writes and deletes, the parent writes too
 * and then pulls what the child has. Needs libdatacake-crdt only.
 *
 *      cc set_over_pipe.c $(pkg-config --cflags --libs datacake-crdt) */
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <datacake/orswot.h>

#define MESSAGE_MAX (1u << 20)

static void check(int err, const char *what)
{
    if (err < 0) {
        fprintf(stderr, "%s: %s\n", what, cake_strerror(err));
        exit(1);
    }
}

static uint64_t now_ms(void)
{
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    return (uint64_t)at.tv_sec * 1000 + (uint64_t)at.tv_nsec / 1000000;
}

static uint64_t random_number(void)
{
    uint64_t number = 0;
    while (number == 0 && getrandom(&number, sizeof number, 0) != sizeof number)
        ;
    return number;
}

static cake_orswot_t *new_set(void)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set;
    config.actor = random_number(); /* a new one for every run of a process */
    check(cake_orswot_new(&config, &set), "new set");
    return set;
}

/* Messages are a length and that many bytes. */
static int read_all(int fd, void *data, size_t len)
{
    char *at = data;
    while (len > 0) {
        ssize_t got = read(fd, at, len);
        if (got <= 0)
            return -1;
        at += got;
        len -= (size_t)got;
    }
    return 0;
}

static void send_message(int fd, cake_slice_t message)
{
    uint32_t len = (uint32_t)message.len;
    if (write(fd, &len, sizeof len) != sizeof len || write(fd, message.data, len) != (ssize_t)len)
        exit(1);
}

static int receive_message(int fd, void *buffer, cake_slice_t *message)
{
    uint32_t len;
    if (read_all(fd, &len, sizeof len) != 0 || len > MESSAGE_MAX || read_all(fd, buffer, len) != 0)
        return -1;
    *message = (cake_slice_t){buffer, len};
    return 0;
}

static void child(int in, int out)
{
    cake_orswot_t *set = new_set();
    cake_answer_t *answer;
    cake_slice_t request, reply;
    void *buffer = malloc(MESSAGE_MAX);
    for (uint64_t key = 0; key < 5000; key++) {
        cake_id_t id = cake_id_of_u64(key);
        check(cake_orswot_insert(set, now_ms(), &id, NULL), "insert");
        if (key % 5 == 0)
            check(cake_orswot_delete(set, now_ms(), &id, NULL), "delete");
    }
    check(cake_answer_new(set, random_number(), &answer), "answer");
    while (buffer != NULL && receive_message(in, buffer, &request) == 0) {
        check(cake_answer_next(answer, request, &reply), "answer");
        send_message(out, reply);
    }
    cake_answer_free(answer);
    cake_orswot_free(set);
    free(buffer);
    exit(0);
}

static void pull(cake_orswot_t *set, int in, int out)
{
    cake_pull_t *pull;
    cake_slice_t request, reply;
    void *buffer = malloc(MESSAGE_MAX);
    int more, messages = 0;
    if (buffer == NULL)
        exit(1);
    check(cake_pull_new(set, random_number(), &pull), "pull");
    while ((more = cake_pull_next(pull, &request)) > 0) {
        send_message(out, request);
        if (receive_message(in, buffer, &reply) != 0)
            exit(1);
        check(cake_pull_take(pull, now_ms(), reply), "take");
        messages++;
    }
    check(more, "pull");
    printf("pulled in %d round trips\n", messages);
    cake_pull_free(pull);
    free(buffer);
}

int main(void)
{
    int to_child[2], from_child[2], status;
    if (pipe(to_child) != 0 || pipe(from_child) != 0)
        return 1;
    pid_t pid = fork();
    if (pid == 0) {
        close(to_child[1]);
        close(from_child[0]);
        child(to_child[0], from_child[1]);
    }
    close(to_child[0]);
    close(from_child[1]);
    cake_orswot_t *set = new_set();
    cake_id_t id = cake_id_of_u64(1000000);
    check(cake_orswot_insert(set, now_ms(), &id, NULL), "insert");
    pull(set, from_child[0], to_child[1]);
    pull(set, from_child[0], to_child[1]); /* nothing has changed: two short messages */
    printf("%zu live, %zu deleted\n", cake_orswot_live(set), cake_orswot_tombstones(set));
    close(to_child[1]);
    int is_fine = cake_orswot_live(set) == 4001 && waitpid(pid, &status, 0) == pid && status == 0;
    cake_orswot_free(set);
    return is_fine ? 0 : 1;
}
