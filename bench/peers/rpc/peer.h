/* peer.h: what the programs that bench-rpc runs beside ours have in common. Each is called
 *
 *   PROGRAM BYTES IN_FLIGHT SECONDS
 *
 * echoes over one connection between two processes on loopback, and prints one line:
 *   REQUESTS_PER_SECOND  CLIENT_CPU_US  SERVER_CPU_US      the last two per request, of the whole process while it
 *                                                          is measured */
#ifndef DATACAKE_BENCH_PEER_H
#define DATACAKE_BENCH_PEER_H

#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    size_t bytes, in_flight;
    double seconds;
    pid_t server;
    int port;
    uint64_t start_ns, client_cpu_ns, server_cpu_ns;
} peer_t;

static inline uint64_t peer_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static inline uint64_t peer_cpu_ns(pid_t pid)
{
    clockid_t clock;
    return clock_getcpuclockid(pid, &clock) == 0 ? peer_ns(clock) : 0;
}

/* Each side has a core of its own, as in bench/rpc.c. */
static inline void peer_pin(int side)
{
    cpu_set_t all, one;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) < 2)
        return;
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++) {
        if (CPU_ISSET(i, &all) && side-- == 0)
            CPU_SET(i, &one);
    }
    sched_setaffinity(0, sizeof one, &one);
}

/* serve(fd, arg) runs in a child, writes its port to fd as an int, and serves until it is killed. */
static inline int peer_start(peer_t *peer, int argc, char **argv, void (*serve)(int fd))
{
    int pipes[2];
    if (argc != 4 || pipe(pipes) != 0) {
        fprintf(stderr, "usage: %s BYTES IN_FLIGHT SECONDS\n", argv[0]);
        return 1;
    }
    peer->bytes = (size_t)atol(argv[1]);
    peer->in_flight = (size_t)atol(argv[2]);
    peer->seconds = atof(argv[3]);
    peer->server = fork();
    if (peer->server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(pipes[0]);
        peer_pin(1);
        serve(pipes[1]);
        _exit(1);
    }
    peer_pin(0);
    close(pipes[1]);
    if (peer->server < 0 || read(pipes[0], &peer->port, sizeof peer->port) != sizeof peer->port) {
        fprintf(stderr, "the server does not start\n");
        return 1;
    }
    close(pipes[0]);
    return 0;
}

static inline void peer_tell_port(int fd, int port)
{
    if (write(fd, &port, sizeof port) != sizeof port)
        _exit(1);
    close(fd);
}

/* From here on it is measured: after the first request, which connects. */
static inline uint64_t peer_begin(peer_t *peer)
{
    peer->start_ns = peer_ns(CLOCK_MONOTONIC);
    peer->client_cpu_ns = peer_cpu_ns(getpid());
    peer->server_cpu_ns = peer_cpu_ns(peer->server);
    return peer->start_ns + (uint64_t)(peer->seconds * 1e9);
}

static inline void peer_end(peer_t *peer, uint64_t calls)
{
    double took = (double)(peer_ns(CLOCK_MONOTONIC) - peer->start_ns) / 1e9, count = (double)(calls > 0 ? calls : 1);
    double client = (double)(peer_cpu_ns(getpid()) - peer->client_cpu_ns) / 1e3;
    double server = (double)(peer_cpu_ns(peer->server) - peer->server_cpu_ns) / 1e3;
    kill(peer->server, SIGKILL);
    waitpid(peer->server, NULL, 0);
    printf("%.1f %.3f %.3f\n", count / took, client / count, server / count);
}

#ifdef __cplusplus
}
#endif
#endif
