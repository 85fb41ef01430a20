/* What the environment of a real machine promises beyond the suite: threads, ends, signals, a failing heap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <datacake/uv.h>

#include "base/random.h"
#include "env/env.h"

/* ---- helpers ---- */

static size_t entries_of(const char *folder)
{
    DIR *dir = opendir(folder);
    size_t count = 0;
    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

static cake_env_t *new_env(const cake_alloc_t *alloc)
{
    cake_uv_options_t options = CAKE_UV_OPTIONS_INIT;
    cake_env_t *env;
    options.alloc = alloc;
    assert_int_equal(cake_uv_env_new(&options, &env), 0);
    return env;
}

typedef struct {
    cake_env_t *env;
    cake_gate_t gate;
} latch_t;

static void latch_init(latch_t *latch, cake_env_t *env)
{
    latch->env = env;
    env->ops->gate_init(env, &latch->gate);
}

static void latch_open(void *arg)
{
    latch_t *latch = arg;
    latch->env->ops->gate_open(latch->env, &latch->gate);
}

static void latch_wait(latch_t *latch)
{
    latch->env->ops->gate_wait(latch->env, &latch->gate);
    latch->env->ops->gate_destroy(latch->env, &latch->gate);
}

/* ---- posts from many threads: none lost, each thread's in its order ---- */

#define POSTERS          4
#define POSTS_PER_THREAD 20000

typedef struct posters {
    cake_env_t *env;
    latch_t all_run;
    unsigned run_count;
    struct poster {
        struct posters *all;
        unsigned next;
        struct numbered_post {
            cake_post_t post;
            struct poster *poster;
            unsigned number;
        } posts[POSTS_PER_THREAD];
    } posters[POSTERS];
} posters_t;

static void run_numbered(void *arg)
{
    struct numbered_post *numbered = arg;
    posters_t *all = numbered->poster->all;
    CAKE_ASSERT(numbered->number == numbered->poster->next);
    numbered->poster->next++;
    if (++all->run_count == POSTERS * POSTS_PER_THREAD)
        latch_open(&all->all_run);
}

static void *post_all(void *arg)
{
    struct poster *poster = arg;
    cake_env_t *env = poster->all->env;
    for (unsigned i = 0; i < POSTS_PER_THREAD; i++) {
        struct numbered_post *numbered = &poster->posts[i];
        *numbered = (struct numbered_post){{.fn = run_numbered, .arg = numbered}, poster, i};
        env->ops->post(env, &numbered->post);
    }
    return NULL;
}

static void test_posts_of_many_threads_keep_their_order(void **state)
{
    posters_t *all = calloc(1, sizeof *all);
    pthread_t threads[POSTERS];
    (void)state;
    all->env = new_env(NULL);
    latch_init(&all->all_run, all->env);
    for (unsigned i = 0; i < POSTERS; i++) {
        all->posters[i].all = all;
        assert_int_equal(pthread_create(&threads[i], NULL, post_all, &all->posters[i]), 0);
    }
    latch_wait(&all->all_run);
    for (unsigned i = 0; i < POSTERS; i++)
        pthread_join(threads[i], NULL);
    all->env->ops->close(all->env);
    free(all);
}

/* ---- deferred calls that never end, and timers ---- */

typedef struct {
    cake_env_t *env;
    latch_t done;
    cake_deferred_t deferred;
    cake_timer_t timer;
    bool is_over;
} spin_t;

static void spin(void *arg)
{
    spin_t *all = arg;
    if (!all->is_over)
        all->env->ops->defer(all->env, &all->deferred);
}

static void end_spin(void *arg)
{
    spin_t *all = arg;
    all->is_over = true;
    latch_open(&all->done);
}

static int start_spin(void *arg)
{
    spin_t *all = arg;
    all->env->ops->defer(all->env, &all->deferred);
    cake__timer_arm_ms(all->env, &all->timer, 5);
    return 0;
}

static void test_deferred_calls_without_end_do_not_hold_the_loop(void **state)
{
    spin_t all = {.env = new_env(NULL)};
    (void)state;
    all.deferred = (cake_deferred_t)CAKE_DEFERRED_INIT(spin, &all);
    all.timer = CAKE_TIMER_INIT(end_spin, &all);
    latch_init(&all.done, all.env);
    cake__run_on_loop(all.env, start_spin, &all);
    latch_wait(&all.done);
    all.env->ops->close(all.env);
}

#define TIMERS 5000

typedef struct many_timers {
    cake_env_t *env;
    latch_t done;
    cake_timer_t timers[TIMERS];
    uint64_t last_deadline_ns, last_sequence;
    unsigned left;
    struct timer_arg {
        struct many_timers *all;
        cake_timer_t *timer;
    } args[TIMERS];
} many_timers_t;

static void check_order(void *arg)
{
    struct timer_arg *fired = arg;
    many_timers_t *all = fired->all;
    const cake_timer_t *timer = fired->timer;
    CAKE_ASSERT(cake__now_ns(all->env) >= timer->deadline_ns);
    CAKE_ASSERT(timer->deadline_ns > all->last_deadline_ns ||
                (timer->deadline_ns == all->last_deadline_ns && timer->sequence > all->last_sequence));
    all->last_deadline_ns = timer->deadline_ns;
    all->last_sequence = timer->sequence;
    if (--all->left == 0)
        latch_open(&all->done);
}

static int arm_many(void *arg)
{
    many_timers_t *all = arg;
    cake__random_t random;
    uint64_t now_ns = cake__now_ns(all->env) + 20 * CAKE_NS_PER_MS;
    cake__random_init(&random, 3);
    all->left = TIMERS;
    for (unsigned i = 0; i < TIMERS; i++) {
        all->args[i] = (struct timer_arg){all, &all->timers[i]};
        all->timers[i] = CAKE_TIMER_INIT(check_order, &all->args[i]);
    }
    for (unsigned i = 0; i < TIMERS * 2; i++) { /* most of them moved once or more, many equal */
        cake_timer_t *timer = &all->timers[i < TIMERS ? i : cake__random_below(&random, TIMERS)];
        uint64_t delay_ms = cake__random_below(&random, 30);
        all->env->ops->timer_arm(all->env, timer, now_ns + delay_ms * CAKE_NS_PER_MS);
    }
    for (unsigned i = 0; i < TIMERS; i += 10) {
        all->env->ops->timer_cancel(all->env, &all->timers[i]);
        all->left--;
    }
    return 0;
}

static void test_many_timers_fire_in_order(void **state)
{
    many_timers_t *all = calloc(1, sizeof *all);
    (void)state;
    all->env = new_env(NULL);
    latch_init(&all->done, all->env);
    cake__run_on_loop(all->env, arm_many, all);
    latch_wait(&all->done);
    all->env->ops->close(all->env);
    free(all);
}

/* ---- lanes run beside each other and beside the loop ---- */

typedef struct {
    cake_env_t *env;
    cake_lane_t *lanes[2];
    cake_work_t works[2];
    cake_gate_t other_ran;
    latch_t closed;
    unsigned closed_count;
} two_lanes_t;

static void wait_for_other(void *arg)
{
    two_lanes_t *all = arg;
    all->env->ops->gate_wait(all->env, &all->other_ran);
}

static void let_other_go(void *arg)
{
    two_lanes_t *all = arg;
    all->env->ops->gate_open(all->env, &all->other_ran);
}

static void note_nothing(void *arg)
{
    (void)arg;
}

static void note_lane_closed(void *arg)
{
    two_lanes_t *all = arg;
    if (++all->closed_count == 2)
        latch_open(&all->closed);
}

static int start_two_lanes(void *arg)
{
    two_lanes_t *all = arg;
    const cake_env_ops_t *ops = all->env->ops;
    all->works[0] = (cake_work_t){.run = wait_for_other, .done = note_nothing, .arg = all};
    all->works[1] = (cake_work_t){.run = let_other_go, .done = note_nothing, .arg = all};
    for (unsigned i = 0; i < 2; i++) {
        CAKE_ASSERT(ops->lane_open(all->env, "a lane with a name that is too long", &all->lanes[i]) == 0);
        ops->lane_submit(all->lanes[i], &all->works[i]);
        ops->lane_close(all->lanes[i], note_lane_closed, all);
    }
    return 0;
}

static void test_lanes_run_beside_each_other(void **state)
{
    two_lanes_t all = {.env = new_env(NULL)};
    (void)state;
    all.env->ops->gate_init(all.env, &all.other_ran);
    latch_init(&all.closed, all.env);
    cake__run_on_loop(all.env, start_two_lanes, &all);
    latch_wait(&all.closed);
    all.env->ops->gate_destroy(all.env, &all.other_ran);
    all.env->ops->close(all.env);
}

/* ---- the end ---- */

static void *close_env(void *arg)
{
    cake_env_t *env = arg;
    env->ops->close(env);
    return NULL;
}

static void test_closing_leaves_no_thread_and_no_descriptor(void **state)
{
    size_t threads = entries_of("/proc/self/task"), files = entries_of("/proc/self/fd"), tries;
    (void)state;
    for (int i = 0; i < 20; i++) {
        pthread_t closer;
        assert_int_equal(pthread_create(&closer, NULL, close_env, new_env(NULL)), 0);
        pthread_join(closer, NULL);
    }
    /* The kernel lists a joined thread for a moment longer: those of the test before may have been among the first
     * count. */
    for (tries = 0; entries_of("/proc/self/task") > threads && tries < 60000; tries++)
        usleep(1000);
    assert_in_range(entries_of("/proc/self/task"), 1, threads);
    assert_int_equal(entries_of("/proc/self/fd"), files);
}

static void *post_one(void *arg)
{
    latch_t *latch = arg;
    cake_post_t *post = malloc(sizeof *post);
    *post = (cake_post_t){.fn = latch_open, .arg = latch};
    latch->env->ops->post(latch->env, post);
    return post;
}

/* The post runs, and what waited for it closes the environment, while the posting thread is still on its way out. */
static void test_closing_waits_for_threads_that_post(void **state)
{
    (void)state;
    for (int i = 0; i < 300; i++) {
        cake_env_t *env = new_env(NULL);
        latch_t latch;
        pthread_t poster;
        void *post;
        latch_init(&latch, env);
        assert_int_equal(pthread_create(&poster, NULL, post_one, &latch), 0);
        latch_wait(&latch);
        env->ops->close(env);
        pthread_join(poster, &post);
        free(post);
    }
}

static void test_options_are_checked(void **state)
{
    cake_uv_options_t options = CAKE_UV_OPTIONS_INIT;
    cake_env_t *env;
    (void)state;
    assert_int_equal(cake_uv_env_new(NULL, NULL), CAKE_EINVAL);
    options.size = 3;
    assert_int_equal(cake_uv_env_new(&options, &env), CAKE_EINVAL);
    assert_int_equal(cake_uv_env_new(NULL, &env), 0);
    env->ops->close(env);
}

static void test_options_of_older_and_newer_programs_are_understood(void **state)
{
    struct {
        cake_uv_options_t known;
        uint64_t later;
    } options = {.known = CAKE_UV_OPTIONS_INIT};
    const cake_log_t log = {NULL, NULL, CAKE_LOG_ERROR};
    cake_env_t *env;
    (void)state;
    options.known.size = offsetof(cake_uv_options_t, thread_name);
    options.known.log = &log;
    options.known.thread_name = (const char *)UINTPTR_MAX; /* an older program has no such member */
    assert_int_equal(cake_uv_env_new(&options.known, &env), 0);
    assert_int_equal(env->log.least, CAKE_LOG_ERROR);
    env->ops->close(env);
    options.known.size = sizeof options;
    options.known.thread_name = NULL;
    assert_int_equal(cake_uv_env_new(&options.known, &env), 0);
    env->ops->close(env);
    options.later = 1;
    assert_int_equal(cake_uv_env_new(&options.known, &env), CAKE_EINVAL);
    assert_null(env);
}

/* ---- addresses that cannot be had: the log says which, and why ---- */

/* The right to low ports, of this thread and those that it starts from now on. */
static void allow_low_ports(bool is_allowed)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
    const uint32_t bit = UINT32_C(1) << CAP_NET_BIND_SERVICE;
    assert_int_equal(syscall(SYS_capget, &head, sets), 0);
    sets[0].effective = is_allowed ? sets[0].effective | (sets[0].permitted & bit) : sets[0].effective & ~bit;
    assert_int_equal(syscall(SYS_capset, &head, sets), 0);
}

static bool are_low_ports_for_all(void)
{
    FILE *file = fopen("/proc/sys/net/ipv4/ip_unprivileged_port_start", "r");
    unsigned first = 1024;
    if (file != NULL) {
        if (fscanf(file, "%u", &first) != 1)
            first = 1024;
        fclose(file);
    }
    return first <= 1;
}

static void keep_line(void *ctx, cake_log_level_t level, const char *message)
{
    (void)level;
    snprintf(ctx, 200, "%s", message);
}

typedef struct {
    cake_env_t *env;
    const char *address;
    bool is_datagram;
} binding_t;

static void ignore_stream(void *arg, cake_stream_t *stream)
{
    (void)arg;
    (void)stream;
}

static void ignore_datagram(void *arg, const cake_addr_t *from, const void *data, size_t len)
{
    (void)arg;
    (void)from;
    (void)data;
    (void)len;
}

static int bind_on_loop(void *arg)
{
    const binding_t *binding = arg;
    const cake_env_ops_t *ops = binding->env->ops;
    cake_datagram_t *socket;
    cake_listener_t *listener;
    cake_addr_t addr;
    int err = cake_addr_parse(binding->address, &addr);
    CAKE_ASSERT(err == 0);
    return binding->is_datagram ? ops->datagram_open(binding->env, &addr, ignore_datagram, NULL, &socket)
                                : ops->listen(binding->env, &addr, ignore_stream, NULL, &listener);
}

static void expect_no_address(const char *address, int err, const char *says)
{
    char line[200];
    const cake_log_t log = {keep_line, line, CAKE_LOG_WARN};
    cake_uv_options_t options = CAKE_UV_OPTIONS_INIT;
    binding_t binding = {.address = address};
    options.log = &log;
    assert_int_equal(cake_uv_env_new(&options, &binding.env), 0);
    for (int i = 0; i < 2; i++) {
        binding.is_datagram = i == 1;
        line[0] = '\0';
        assert_int_equal(cake__run_on_loop(binding.env, bind_on_loop, &binding), err);
        assert_string_equal(line, says);
    }
    binding.env->ops->close(binding.env);
}

static void test_addresses_that_cannot_be_had_are_named(void **state)
{
    (void)state;
    expect_no_address("192.0.2.1:0", CAKE_EINVAL, "cannot listen on 192.0.2.1:0: address not available");
    if (are_low_ports_for_all())
        return;
    allow_low_ports(false);
    expect_no_address("127.0.0.1:1", CAKE_EIO, "cannot listen on 127.0.0.1:1: permission denied");
    allow_low_ports(true);
}

/* ---- a heap that fails when told to ---- */

typedef struct {
    atomic_bool fails;
    atomic_long live_blocks;
} heap_t;

static void *failing_resize(void *ctx, void *block, size_t size)
{
    heap_t *heap = ctx;
    if (size == 0) {
        atomic_fetch_sub(&heap->live_blocks, block != NULL);
        free(block);
        return NULL;
    }
    if (atomic_load(&heap->fails))
        return NULL;
    atomic_fetch_add(&heap->live_blocks, block == NULL);
    return realloc(block, size);
}

static void test_no_memory_for_the_environment(void **state)
{
    heap_t heap = {true, 0};
    cake_alloc_t alloc = {failing_resize, &heap};
    cake_uv_options_t options = CAKE_UV_OPTIONS_INIT;
    cake_env_t *env;
    (void)state;
    options.alloc = &alloc;
    assert_int_equal(cake_uv_env_new(&options, &env), CAKE_ENOMEM);
    assert_null(env);
}

typedef struct {
    cake_env_t *env;
    heap_t heap;
    cake_listener_t *listener;
    cake_addr_t addr;
    cake_stream_t *stream;
    latch_t accepted, closed;
} server_t;

static void on_closed(void *arg)
{
    (void)arg;
}

static void take(void *arg, cake_stream_t *stream)
{
    server_t *server = arg;
    server->env->ops->stream_close(stream);
    latch_open(&server->accepted);
}

static int try_all_without_memory(void *arg)
{
    server_t *server = arg;
    cake_env_t *env = server->env;
    const cake_stream_handlers_t handlers = {.on_closed = on_closed};
    cake_addr_t addr;
    cake_listener_t *listener;
    cake_stream_t *stream;
    cake_datagram_t *socket;
    cake_resolve_t *resolve;
    cake_lane_t *lane;
    CAKE_ASSERT(cake_addr_parse("127.0.0.1:0", &addr) == 0);
    CAKE_ASSERT(env->ops->listen(env, &addr, take, server, &listener) == CAKE_ENOMEM);
    CAKE_ASSERT(env->ops->datagram_open(env, &addr, NULL, NULL, &socket) == CAKE_ENOMEM);
    CAKE_ASSERT(env->ops->connect(env, &server->addr, &handlers, NULL, &stream) == CAKE_ENOMEM);
    CAKE_ASSERT(env->ops->resolve(env, "localhost:1", NULL, NULL, &resolve) == CAKE_ENOMEM);
    CAKE_ASSERT(env->ops->lane_open(env, "none", &lane) == CAKE_ENOMEM);
    return 0;
}

static int start_server(void *arg)
{
    server_t *server = arg;
    cake_addr_t addr;
    CAKE_ASSERT(cake_addr_parse("127.0.0.1:0", &addr) == 0);
    CAKE_ASSERT(server->env->ops->listen(server->env, &addr, take, server, &server->listener) == 0);
    server->env->ops->listener_addr(server->listener, &server->addr);
    return 0;
}

static int end_server(void *arg)
{
    server_t *server = arg;
    server->env->ops->listener_close(server->listener, latch_open, &server->closed);
    return 0;
}

static int make_socket(void)
{
    int file = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(file >= 0);
    return file;
}

static void connect_to(int file, uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    assert_int_equal(connect(file, (const struct sockaddr *)&to, sizeof to), 0);
}

static int connect_from_here(uint16_t port)
{
    int file = make_socket();
    connect_to(file, port);
    return file;
}

static void begin_server(server_t *server, const cake_alloc_t *alloc)
{
    server->env = new_env(alloc);
    latch_init(&server->accepted, server->env);
    latch_init(&server->closed, server->env);
    cake__run_on_loop(server->env, start_server, server);
}

/* The next connection is taken, and the server closed. */
static void finish_server(server_t *server)
{
    int file = connect_from_here(server->addr.port);
    latch_wait(&server->accepted);
    close(file);
    cake__run_on_loop(server->env, end_server, server);
    latch_wait(&server->closed);
    server->env->ops->close(server->env);
}

/* What was connected is closed by the other side. */
static void expect_refused(int *files, size_t count)
{
    char byte;
    for (size_t i = 0; i < count; i++)
        assert_true(read(files[i], &byte, 1) <= 0);
    for (size_t i = 0; i < count; i++)
        close(files[i]);
}

/* Several at once: each that is thrown away makes room for the next. */
static void test_connections_without_memory_are_closed_and_later_ones_taken(void **state)
{
    server_t server = {0};
    cake_alloc_t alloc = {failing_resize, &server.heap};
    int files[8];
    (void)state;
    begin_server(&server, &alloc);
    atomic_store(&server.heap.fails, true);
    cake__run_on_loop(server.env, try_all_without_memory, &server);
    for (size_t i = 0; i < CAKE_COUNT_OF(files); i++)
        files[i] = connect_from_here(server.addr.port);
    expect_refused(files, CAKE_COUNT_OF(files));
    atomic_store(&server.heap.fails, false);
    finish_server(&server);
    assert_int_equal(atomic_load(&server.heap.live_blocks), 0);
}

#define FILES_MAX 256

static void test_connections_without_descriptors_are_closed_and_later_ones_taken(void **state)
{
    server_t server = {0};
    struct rlimit before, few;
    int files[8], others[FILES_MAX], count = 0;
    (void)state;
    begin_server(&server, NULL);
    for (size_t i = 0; i < CAKE_COUNT_OF(files); i++)
        files[i] = make_socket();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = (struct rlimit){.rlim_cur = FILES_MAX, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    while ((others[count] = dup(files[0])) >= 0)
        count++;
    for (size_t i = 0; i < CAKE_COUNT_OF(files); i++)
        connect_to(files[i], server.addr.port);
    expect_refused(files, CAKE_COUNT_OF(files));
    while (count > 0)
        close(others[--count]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    finish_server(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_posts_of_many_threads_keep_their_order),
        cmocka_unit_test(test_deferred_calls_without_end_do_not_hold_the_loop),
        cmocka_unit_test(test_many_timers_fire_in_order),
        cmocka_unit_test(test_lanes_run_beside_each_other),
        cmocka_unit_test(test_closing_leaves_no_thread_and_no_descriptor),
        cmocka_unit_test(test_closing_waits_for_threads_that_post),
        cmocka_unit_test(test_options_are_checked),
        cmocka_unit_test(test_options_of_older_and_newer_programs_are_understood),
        cmocka_unit_test(test_addresses_that_cannot_be_had_are_named),
        cmocka_unit_test(test_no_memory_for_the_environment),
        cmocka_unit_test(test_connections_without_memory_are_closed_and_later_ones_taken),
        cmocka_unit_test(test_connections_without_descriptors_are_closed_and_later_ones_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
