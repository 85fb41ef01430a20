/* What it costs to become equal again: two nodes in this process, connected over loopback; one is closed while the
 * other writes, and starts again on the storage it had.
 *
 *   bench-sync [keys (100000; up to some millions)] [part ...]
 *       parts: changed, repair, memory, sqlite, lmdb; without any: all of them
 *
 * A row per number of differences: wire bytes (all streams of both nodes, framing and comparisons included; without the
 * values, 100 random bytes each), bytes and round trips of the sessions alone, time to open the storage, time from
 * the first call of the session on until both are equal, documents per second of that time; and the CPU of both
 * nodes for each. Rows: overwritten documents; an emptied disk; deletes whose tombstones have gone meanwhile, so
 * that the node is compared by ranges. Then what an in-sync round takes, and how long a node needs to open what it
 * has. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <datacake/datacake.h>
#include <datacake/lmdb.h>
#include <datacake/sqlite.h>
#include <datacake/uv.h>

#include "bench.h"

#define VALUE_BYTES 100
#define MANY        20000 /* fewer would take a minute of syncs to fill a disk */
#define SPACE       "bench"
#define PATIENCE_S  300

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

/* ---- bytes on the wire: every environment of this process counts what its streams write ---------------------------*/

static atomic_ullong wire_bytes;
static cake_env_ops_t counting_ops;
static int (*real_write)(cake_stream_t *stream, const cake_slice_t *iov, size_t count);

static int count_write(cake_stream_t *stream, const cake_slice_t *iov, size_t count)
{
    int err = real_write(stream, iov, count);
    for (size_t i = 0; err == 0 && i < count; i++)
        wire_bytes += iov[i].len;
    return err;
}

static cake_env_t *open_env(void)
{
    cake_env_t *env;
    check(cake_uv_env_new(NULL, &env), "environment");
    real_write = env->ops->stream_write;
    counting_ops = *env->ops;
    counting_ops.stream_write = count_write;
    env->ops = &counting_ops;
    return env;
}

/* ---- storages in memory that outlive their store ------------------------------------------------------------------*/

static cake_storage_ops_t kept_ops;
static const cake_storage_ops_t *memory_ops;

static void keep(cake_storage_t *storage)
{
    (void)storage;
}

static cake_storage_t *open_kept(void)
{
    cake_storage_t *storage;
    check(cake_memory_open(&storage), "memory");
    memory_ops = storage->ops;
    kept_ops = *storage->ops;
    kept_ops.close = keep;
    storage->ops = &kept_ops;
    return storage;
}

static void drop_kept(cake_storage_t *storage)
{
    storage->ops = memory_ops;
    cake_storage_close(storage);
}

/* ---- nodes --------------------------------------------------------------------------------------------------------*/

typedef struct {
    uint16_t id;
    cake_env_t *env;
    cake_node_t *node;
    cake_store_t *store;
    cake_storage_t *storage;
} peer_t;

static void start(peer_t *peer, const char *seed)
{
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    cake_store_options_t options = CAKE_STORE_OPTIONS_INIT;
    options.tombstone_min_age_ms = 1;
    options.sync_interval_ms = 1000; /* not to wait for rounds in sync */
    config.env = peer->env;
    config.node_id = peer->id;
    config.listen_addr = "127.0.0.1:0";
    config.seeds = &seed;
    config.seed_count = seed != NULL;
    check(cake_node_start(&config, &peer->node), "node");
    check(cake_store_open(peer->node, peer->storage, &options, &peer->store), "store");
}

static void stop(peer_t *peer)
{
    check(cake_node_stop(peer->node), "stop");
    peer->node = NULL;
    peer->store = NULL;
}

static cake_store_stats_t stats_of(const peer_t *peer)
{
    cake_store_stats_t stats;
    check(cake_store_stats(peer->store, &stats), "statistics");
    return stats;
}

static void wait_equal(const peer_t *one, const peer_t *two)
{
    double end = seconds() + PATIENCE_S;
    for (;;) {
        cake_store_stats_t a = stats_of(one), b = stats_of(two);
        if (a.fingerprint == b.fingerprint && a.live == b.live && b.is_joined && b.sessions_running == 0)
            return;
        check(seconds() < end ? 0 : CAKE_ETIMEDOUT, "waiting for equal nodes");
        pause_briefly();
    }
}

static void wait_purged(const peer_t *peer)
{
    double end = seconds() + PATIENCE_S;
    while (stats_of(peer).tombstones > 0) {
        check(seconds() < end ? 0 : CAKE_ETIMEDOUT, "waiting for tombstones to go");
        pause_briefly();
    }
}

/* ---- documents ----------------------------------------------------------------------------------------------------*/

static uint64_t mix(uint64_t n)
{
    n = (n ^ (n >> 31)) * UINT64_C(0x9e3779b97f4a7c15);
    return n ^ (n >> 29);
}

/* The keys of `count` differences are spread over all. */
static cake_key_t key_of(uint64_t i, uint64_t count, uint64_t keys)
{
    return cake_key_u64(mix(i * (keys / count)));
}

static void put_spread(cake_store_t *store, uint64_t count, uint64_t keys, uint64_t salt)
{
    static uint64_t values[MANY][(VALUE_BYTES + 7) / 8];
    static cake_item_t items[MANY];
    for (uint64_t done = 0; done < count;) {
        size_t many = 0;
        for (; many < MANY && done < count; many++, done++) {
            for (size_t word = 0; word < sizeof values[0] / 8; word++)
                values[many][word] = mix(mix(done * 16 + word + 1) + salt);
            items[many] = (cake_item_t){.key = key_of(done, count, keys), .value = values[many], .len = VALUE_BYTES};
        }
        check(cake_store_put_many(store, SPACE, items, many, CAKE_NONE), "put_many");
    }
}

static void delete_spread(cake_store_t *store, uint64_t count, uint64_t keys)
{
    static cake_key_t deleted[MANY];
    for (uint64_t done = 0; done < count;) {
        size_t many = 0;
        for (; many < MANY && done < count; many++, done++)
            deleted[many] = key_of(done, count, keys);
        check(cake_store_del_many(store, SPACE, deleted, many, CAKE_NONE), "del_many");
    }
}

/* ---- rows ---------------------------------------------------------------------------------------------------------*/

/* Starts `two` and measures until it is equal to `one`. Opening is what a restart takes; the clock of the session
 * starts with its first call. */
static void measure(const char *what, peer_t *one, peer_t *two, uint64_t differences, uint64_t values)
{
    unsigned long long wire = wire_bytes;
    double cpu = cpu_seconds(), begin = seconds(), session = 0;
    start(two, cake_node_address(one->node));
    double opened = seconds() - begin, opened_cpu = cpu_seconds() - cpu;
    cpu = cpu_seconds();
    while (session == 0 && differences > 0) {
        pause_briefly();
        session = stats_of(two).session_calls > 0 ? seconds() : 0;
        check(seconds() - begin < PATIENCE_S ? 0 : CAKE_ETIMEDOUT, "waiting for a session");
    }
    wait_equal(one, two);
    double took = seconds() - (differences > 0 ? session : begin);
    cake_store_stats_t stats = stats_of(two);
    wire = wire_bytes - wire;
    cpu = cpu_seconds() - cpu;
    printf("%-10s %9llu %11llu %11llu %11llu %6llu %9.1f %9.1f %9.1f %9.1f %9.0f %9.2f\n", what,
           (unsigned long long)differences, wire, wire - values * VALUE_BYTES,
           (unsigned long long)(stats.session_bytes - values * VALUE_BYTES), (unsigned long long)stats.session_calls,
           opened * 1e3, opened_cpu * 1e3, took * 1e3, cpu * 1e3, differences > 0 ? (double)differences / took : 0,
           differences > 0 ? cpu * 1e6 / (double)differences : 0);
    fflush(stdout);
}

static void wait_pulses(const peer_t *one, const peer_t *two, unsigned long long more)
{
    double end = seconds() + PATIENCE_S;
    unsigned long long before = stats_of(one).pulses + stats_of(two).pulses, now = before;
    for (; now < before + more; now = stats_of(one).pulses + stats_of(two).pulses) {
        check(seconds() < end ? 0 : CAKE_ETIMEDOUT, "waiting for pulses");
        pause_briefly();
    }
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL); /* their answers */
}

/* The first pulses after a session still tell of what it brought. */
static void measure_idle(const peer_t *one, const peer_t *two)
{
    wait_pulses(one, two, 4);
    cake_store_stats_t a = stats_of(one), b = stats_of(two);
    unsigned long long wire = wire_bytes, pulses = a.pulses + b.pulses, bytes = a.pulse_bytes + b.pulse_bytes;
    wait_pulses(one, two, 4);
    a = stats_of(one), b = stats_of(two);
    double rounds = (double)(a.pulses + b.pulses - pulses);
    printf("in sync: %.0f bytes per round and peer, %.0f on the wire (goal 64)\n",
           (double)(a.pulse_bytes + b.pulse_bytes - bytes) / rounds, (double)(wire_bytes - wire) / rounds);
}

static void print_head(void)
{
    printf("%-10s %9s %11s %11s %11s %6s %9s %9s %9s %9s %9s %9s\n", "what", "differ", "wire", "-values", "session-val",
           "trips", "open ms", "CPU ms", "equal ms", "CPU ms", "docs/s", "CPU us/doc");
}

typedef struct {
    peer_t one, two;
    uint64_t keys;
} pair_t;

static void open_pair(pair_t *pair, uint64_t keys)
{
    pair->keys = keys;
    pair->one = (peer_t){.id = 1, .env = open_env(), .storage = open_kept()};
    pair->two = (peer_t){.id = 2, .env = open_env(), .storage = open_kept()};
    start(&pair->one, NULL);
    put_spread(pair->one.store, keys, keys, 0);
    print_head();
    measure("empty", &pair->one, &pair->two, keys, keys);
}

static void close_pair(pair_t *pair)
{
    stop(&pair->two);
    stop(&pair->one);
    drop_kept(pair->one.storage);
    drop_kept(pair->two.storage);
    pair->one.env->ops->close(pair->one.env);
    pair->two.env->ops->close(pair->two.env);
}

static void measure_changed(uint64_t keys)
{
    const uint64_t counts[] = {0, 10, 10000, keys};
    pair_t pair;
    open_pair(&pair, keys);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        stop(&pair.two);
        if (counts[i] > 0)
            put_spread(pair.one.store, counts[i], keys, i + 1);
        measure("changed", &pair.one, &pair.two, counts[i], counts[i]);
    }
    measure_idle(&pair.one, &pair.two);
    printf("goals at 1M keys: 10 changed in 2 KB and 2 round trips; 10,000 in 300 KB plus values; 300,000 docs/s\n");
    close_pair(&pair);
}

static void measure_repair(uint64_t keys)
{
    const uint64_t counts[] = {10, 10000};
    pair_t pair;
    open_pair(&pair, keys);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        stop(&pair.two);
        delete_spread(pair.one.store, counts[i], keys);
        check(cake_store_forget(pair.one.store, 2), "forget");
        wait_purged(&pair.one);
        measure("repair", &pair.one, &pair.two, counts[i], 0);
        put_spread(pair.one.store, counts[i], keys, 99);
        wait_equal(&pair.one, &pair.two);
    }
    close_pair(&pair);
}

/* ---- restart: until the first put is done -------------------------------------------------------------------------*/

static void print_restart(const char *from, uint64_t keys, double begin, double cpu)
{
    printf("restart with %llu keys from %s: %.0f ms, %.0f of CPU (goal for 1M: 1,000)\n", (unsigned long long)keys,
           from, (seconds() - begin) * 1e3, (cpu_seconds() - cpu) * 1e3);
    fflush(stdout);
}

static void start_and_put(peer_t *peer)
{
    start(peer, NULL);
    check(cake_store_put(peer->store, SPACE, cake_key_u64(0), "", 0, CAKE_NONE), "put");
}

static void measure_memory(uint64_t keys)
{
    peer_t peer = {.id = 1, .env = open_env(), .storage = open_kept()};
    start_and_put(&peer);
    put_spread(peer.store, keys, keys, 0);
    stop(&peer);
    double begin = seconds(), cpu = cpu_seconds();
    start_and_put(&peer);
    print_restart("memory", keys, begin, cpu);
    stop(&peer);
    drop_kept(peer.storage);
    peer.env->ops->close(peer.env);
}

/* Filling is not measured: it need not last. */
static int open_sqlite(const char *dir, bool is_filled, cake_storage_t **storage)
{
    cake_sqlite_options_t options = CAKE_SQLITE_OPTIONS_INIT;
    options.lose_last_writes_on_power_cut = !is_filled;
    return cake_sqlite_open(dir, &options, storage);
}

static int open_lmdb(const char *dir, bool is_filled, cake_storage_t **storage)
{
    cake_lmdb_options_t options = CAKE_LMDB_OPTIONS_INIT;
    options.lose_last_writes_on_power_cut = !is_filled;
    return cake_lmdb_open(dir, &options, storage);
}

static void measure_disk(const char *name, int (*open)(const char *dir, bool is_filled, cake_storage_t **storage),
                         uint64_t keys)
{
    char dir[] = "/tmp/bench-sync-XXXXXX", command[64];
    peer_t peer = {.id = 1, .env = open_env()};
    if (mkdtemp(dir) == NULL)
        check(CAKE_EIO, "a temporary directory");
    for (int pass = 0; pass < 2; pass++) {
        double begin = seconds(), cpu = cpu_seconds();
        check(open(dir, pass == 1, &peer.storage), dir);
        start_and_put(&peer);
        if (pass == 1)
            print_restart(name, keys, begin, cpu);
        else
            put_spread(peer.store, keys, keys, 0);
        stop(&peer);
    }
    peer.env->ops->close(peer.env);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    if (system(command) != 0)
        fprintf(stderr, "bench-sync: %s is left behind\n", dir);
}

static void measure_sqlite(uint64_t keys)
{
    measure_disk("SQLite", open_sqlite, keys);
}

static void measure_lmdb(uint64_t keys)
{
    measure_disk("LMDB", open_lmdb, keys);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*measure)(uint64_t keys);
    } parts[] = {{"changed", measure_changed},
                 {"repair", measure_repair},
                 {"memory", measure_memory},
                 {"sqlite", measure_sqlite},
                 {"lmdb", measure_lmdb}};
    uint64_t keys = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000;
    int known = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        for (int k = 2; k < argc; k++)
            known += strcmp(argv[k], parts[i].name) == 0;
    }
    if (keys < 10000 || known != (argc > 2 ? argc - 2 : 0)) {
        fprintf(stderr, "usage: bench-sync [keys, at least 10000] [changed] [repair] [memory] [sqlite] [lmdb]\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        bool is_asked = argc <= 2;
        for (int k = 2; k < argc; k++)
            is_asked |= strcmp(argv[k], parts[i].name) == 0;
        if (is_asked)
            parts[i].measure(keys);
    }
    return 0;
}
