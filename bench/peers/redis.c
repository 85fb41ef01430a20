/* SET and WAIT on a redis primary: the load that replicated puts are held against.
 *
 *   peer-redis PORT NODES STORAGE
 *
 * Prints "ready", then answers the lines of bench/store.c: "put LEVEL WRITERS SECONDS COUNT", with
 *   row redis NODES STORAGE put LEVEL WRITERS OPS/S CPU_US DONE FAILED
 * A writer is a connection that sends SET and WAIT together and awaits both answers before its next. LEVEL none
 * sends no WAIT, one waits for one replica, all for NODES - 1. CPU_US is that of this client alone. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WRITERS_MAX     4096
#define VALUE_BYTES     100
#define KEYS            100000
#define WAIT_TIMEOUT_MS 2000
#define EVENTS          256

/* One writer. Answers are lines: +OK of SET, then :N of WAIT. */
typedef struct {
    int fd;
    int lines_due;
    char line[64]; /* of the answer being read, without what follows 63 bytes */
    size_t line_len;
    bool is_failed;
} connection_t;

typedef struct {
    uint16_t port;
    int replicas; /* to wait for; 0: no WAIT */
    double end;
    uint64_t limit, begun, done, failed;
    int running;
} load_t;

static void check(bool is_right, const char *what)
{
    if (is_right)
        return;
    fprintf(stderr, "peer-redis: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    check(fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0, "connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* False when the row is over. A request is far smaller than any socket buffer: nothing is ever left unsent. */
static bool send_next(load_t *load, connection_t *connection)
{
    char key[24], count[12], request[320];
    if (load->begun >= load->limit || seconds() >= load->end)
        return false;
    int key_len = snprintf(key, sizeof key, "%llu", (unsigned long long)(load->begun++ % KEYS));
    int len = snprintf(request, sizeof request, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%0*d\r\n", key_len, key,
                       VALUE_BYTES, VALUE_BYTES, 0);
    connection->lines_due = 1;
    if (load->replicas > 0) {
        int count_len = snprintf(count, sizeof count, "%d", load->replicas);
        len += snprintf(request + len, sizeof request - (size_t)len, "*3\r\n$4\r\nWAIT\r\n$%d\r\n%s\r\n$4\r\n%d\r\n",
                        count_len, count, WAIT_TIMEOUT_MS);
        connection->lines_due = 2;
    }
    connection->is_failed = false;
    check(send(connection->fd, request, (size_t)len, MSG_NOSIGNAL) == len, "send");
    return true;
}

static void take_line(const load_t *load, connection_t *connection)
{
    const char *line = connection->line;
    bool is_right = line[0] == '+' || (line[0] == ':' && atoi(line + 1) >= load->replicas);
    connection->is_failed |= !is_right;
    connection->lines_due--;
    connection->line_len = 0;
}

/* Reads what is there. True when the last answer that is due has come. */
static bool take_answer(const load_t *load, connection_t *connection)
{
    char bytes[256];
    ssize_t got = recv(connection->fd, bytes, sizeof bytes, 0);
    check(got > 0, "recv");
    for (ssize_t i = 0; i < got; i++) {
        if (connection->line_len < sizeof connection->line - 1)
            connection->line[connection->line_len++] = bytes[i];
        connection->line[connection->line_len] = 0;
        if (bytes[i] == '\n')
            take_line(load, connection);
    }
    return connection->lines_due == 0;
}

static void on_readable(load_t *load, connection_t *connection)
{
    if (!take_answer(load, connection))
        return;
    load->done += !connection->is_failed;
    load->failed += connection->is_failed;
    if (!send_next(load, connection))
        load->running--;
}

static void run(load_t *load, connection_t *connections, int writers, int epoll_fd)
{
    struct epoll_event events[EVENTS];
    for (int i = 0; i < writers; i++)
        load->running += send_next(load, &connections[i]);
    while (load->running > 0) {
        int count = epoll_wait(epoll_fd, events, EVENTS, -1);
        check(count >= 0 || errno == EINTR, "epoll_wait");
        for (int i = 0; i < count; i++)
            on_readable(load, events[i].data.ptr);
    }
}

/* Connections are made before the clock starts, and closed after it stops. */
static void measure(load_t *load, int writers, double duration, double *elapsed, double *cpu)
{
    static connection_t connections[WRITERS_MAX];
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    check(epoll_fd >= 0, "epoll_create1");
    for (int i = 0; i < writers; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections[i]};
        connections[i] = (connection_t){.fd = connect_to(load->port)};
        check(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, connections[i].fd, &event) == 0, "epoll_ctl");
    }
    double begin = seconds(), cpu_begin = cpu_seconds();
    load->end = begin + duration;
    run(load, connections, writers, epoll_fd);
    *elapsed = seconds() - begin;
    *cpu = cpu_seconds() - cpu_begin;
    for (int i = 0; i < writers; i++)
        close(connections[i].fd);
    close(epoll_fd);
}

static void answer(uint16_t port, int nodes, const char *storage, const char *line)
{
    char op[8], level[32];
    int writers;
    double duration, elapsed, cpu;
    unsigned long long limit;
    load_t load = {.port = port};
    bool is_row = sscanf(line, "%7s %31s %d %lf %llu", op, level, &writers, &duration, &limit) == 5;
    errno = EINVAL;
    check(is_row && strcmp(op, "put") == 0 && writers >= 0 && writers <= WRITERS_MAX, line);
    load.limit = limit == 0 ? UINT64_MAX : limit;
    load.replicas = strcmp(level, "none") == 0 ? 0 : strcmp(level, "one") == 0 ? 1 : nodes - 1;
    measure(&load, writers == 0 ? 1 : writers, duration, &elapsed, &cpu);
    printf("row redis %d %s %s %s %d %.0f %.2f %llu %llu\n", nodes, storage, op, level, writers,
           (double)load.done / elapsed, cpu * 1e6 / (load.done > 0 ? (double)load.done : 1),
           (unsigned long long)load.done, (unsigned long long)load.failed);
}

int main(int argc, char **argv)
{
    char line[128];
    if (argc != 4) {
        fprintf(stderr, "usage: peer-redis PORT NODES STORAGE\n");
        return 2;
    }
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        answer((uint16_t)atoi(argv[1]), atoi(argv[2]), argv[3], line);
        fflush(stdout);
    }
    return 0;
}
