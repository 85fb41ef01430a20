#include "rpc/conn.h"

#define TICK_MIN_NS (10 * CAKE_NS_PER_MS)
#define LINGER_MS   1000u
#define PACE_MIN    256u /* bytes a second: slower than any network in use */

/* Messages that one read should bring: fewer waste writes, more keep the other side waiting. A client knows how many
 * are under way, and takes them in parts, so that both sides always have one to work at. */
#define BATCH_MIN 16u
#define BATCH_MAX 64u
#define PARTS     4u

static void flush(void *arg);
static void tick(void *arg);

static uint32_t u32_or(uint32_t value, uint32_t otherwise)
{
    return value != 0 ? value : otherwise;
}

static uint64_t u64_or(uint64_t value, uint64_t otherwise)
{
    return value != 0 ? value : otherwise;
}

void cake__limits_fill(cake_rpc_limits_t *limits)
{
    limits->max_connections = u32_or(limits->max_connections, 16384);
    limits->max_streams = u32_or(limits->max_streams, 1024);
    limits->max_header_bytes = u32_or(limits->max_header_bytes, 16384);
    limits->max_body_bytes = u64_or(limits->max_body_bytes, UINT64_C(64) << 20);
    limits->max_input_bytes = u64_or(limits->max_input_bytes, UINT64_C(256) << 20);
    limits->max_output_bytes = u64_or(limits->max_output_bytes, UINT64_C(16) << 20);
    limits->max_resets_per_s = u32_or(limits->max_resets_per_s, 1000);
    limits->max_pings_per_s = u32_or(limits->max_pings_per_s, 100);
    limits->max_settings_per_s = u32_or(limits->max_settings_per_s, 20);
    limits->idle_ms = u64_or(limits->idle_ms, 300000);
    limits->stall_ms = u64_or(limits->stall_ms, 30000);
}

void cake__conn_kind_init(cake__conn_kind_t *kind)
{
    cake__limits_fill(&kind->limits);
    cake__pool_init(&kind->pool, &kind->env->alloc);
    cake__slab_init(&kind->slab, &kind->env->alloc);
    kind->spare_batch = NULL;
}

int cake__tls_make(cake_env_t *env, const cake_tls_config_t *config, cake_tls_t **out)
{
    *out = NULL;
    if (config == NULL)
        return 0;
    if (env->ops->version < 2 || env->ops->tls_open == NULL)
        return CAKE_EUNAVAILABLE;
    return env->ops->tls_open(env, config, out);
}

void cake__conn_kind_own_tls(cake__conn_kind_t *kind, cake_tls_t *tls)
{
    kind->tls = tls;
    kind->has_own_tls = tls != NULL;
}

static void drop_tls(cake__conn_kind_t *kind)
{
    if (kind->tls != NULL && !kind->is_tls_lent)
        kind->env->ops->tls_close(kind->tls);
    kind->tls = NULL;
}

typedef struct {
    cake__conn_kind_t *kind;
    cake_tls_t *tls;
} reload_t;

static int reload_on_loop(void *arg)
{
    reload_t *reload = arg;
    drop_tls(reload->kind);
    reload->kind->tls = reload->tls;
    return 0;
}

int cake__conn_kind_reload_tls(cake__conn_kind_t *kind, const cake_tls_config_t *config)
{
    reload_t reload = {.kind = kind};
    if (config == NULL || !kind->has_own_tls)
        return CAKE_EINVAL;
    int err = cake__tls_make(kind->env, config, &reload.tls);
    if (err == 0)
        return cake__run_on_loop(kind->env, reload_on_loop, &reload);
    cake__log(&kind->env->log, CAKE_LOG_ERROR, "TLS stays as it was: %s", cake_strerror(err));
    return err;
}

void cake__conn_kind_lend_tls(cake__conn_kind_t *kind, cake_tls_t *tls)
{
    CAKE_ASSERT(kind->tls == NULL || kind->is_tls_lent);
    kind->tls = tls;
    kind->is_tls_lent = true;
}

void cake__conn_kind_free(cake__conn_kind_t *kind)
{
    drop_tls(kind);
    cake__spare_unref(kind->spare);
    cake__free(&kind->env->alloc, kind->spare_batch);
    cake__pool_free(&kind->pool);
    cake__slab_free(&kind->slab);
}

/* ---- create ---- */

int cake__conn_new(cake__conn_kind_t *kind, void *owner, cake__conn_t **out)
{
    const cake_alloc_t *alloc = &kind->env->alloc;
    cake__conn_t *conn = cake__calloc(alloc, 1, sizeof *conn);
    *out = NULL;
    if (conn == NULL)
        return CAKE_ENOMEM;
    cake__h2_config_t config = {.is_server = kind->is_server,
                                .alloc = &kind->slab.alloc,
                                .max_streams = kind->limits.max_streams,
                                .max_header_bytes = kind->limits.max_header_bytes,
                                .max_resets_per_s = kind->limits.max_resets_per_s,
                                .max_pings_per_s = kind->limits.max_pings_per_s,
                                .max_settings_per_s = kind->limits.max_settings_per_s,
                                .events = &kind->events,
                                .arg = conn};
    if (cake__h2_new(&config, &conn->h2) != 0) {
        cake__free(alloc, conn);
        return CAKE_ENOMEM;
    }
    cake__list_init(&conn->link);
    conn->kind = kind;
    conn->owner = owner;
    conn->flush = CAKE_DEFERRED_INIT(flush, conn);
    conn->tick = CAKE_TIMER_INIT(tick, conn);
    conn->read_cap = CAKE__BLOCK_BYTES / 4;
    *out = conn;
    return 0;
}

void cake__conn_free(cake__conn_t *conn)
{
    CAKE_ASSERT(conn->stream == NULL && !cake__list_is_linked(&conn->link));
    cake_env_t *env = conn->kind->env;
    env->ops->defer_cancel(env, &conn->flush);
    env->ops->timer_cancel(env, &conn->tick);
    cake__h2_free(conn->h2);
    cake__free(&env->alloc, conn);
}

static void arm_tick(cake__conn_t *conn)
{
    const cake__conn_kind_t *kind = conn->kind;
    uint64_t period_ms = cake__min_u64(kind->limits.stall_ms, kind->is_server ? kind->limits.idle_ms : UINT64_MAX);
    period_ms = cake__min_u64(period_ms, kind->keepalive_ms);
    if (period_ms > UINT64_MAX / CAKE_NS_PER_MS / 4)
        return;
    uint64_t period_ns = cake__max_u64(period_ms * CAKE_NS_PER_MS / 2, TICK_MIN_NS);
    /* All connections look at the same times: a hundred idle ones wake their thread as seldom as one. */
    uint64_t due_ns = cake__now_ns(kind->env) + period_ns;
    kind->env->ops->timer_arm(kind->env, &conn->tick, due_ns - due_ns % period_ns);
}

static void began(cake__conn_t *conn)
{
    cake_env_t *env = conn->kind->env;
    conn->now_ns = conn->last_read_ns = cake__now_ns(env);
    env->ops->stream_peer(conn->stream, &conn->peer);
    arm_tick(conn);
    cake__conn_kick(conn); /* the first settings */
}

/* ---- the stream's side ---- */

static void note_why(cake__conn_t *conn)
{
    if (conn->kind->tls != NULL && conn->why == NULL)
        conn->why = conn->kind->env->ops->stream_reason(conn->stream);
}

/* The first bytes of TLS, a handshake's or an alert's, are never the first of HTTP/2. */
static bool is_tls(cake__conn_t *conn, const uint8_t *data, intptr_t len)
{
    if (conn->has_read)
        return false;
    conn->has_read = true;
    return conn->kind->tls == NULL && (data[0] == 0x16 || data[0] == 0x15) && (len < 2 || data[1] == 3);
}

static void on_connect(void *arg, int err)
{
    cake__conn_t *conn = arg;
    if (err != 0)
        note_why(conn);
    if (err == 0)
        began(conn);
    conn->kind->on_connect(conn, err);
}

/* A long body is read to where it is gathered, a frame at once: no copy is made of it. The head of the next frame
 * comes along behind, and is overwritten by what follows it. */
static bool read_into_body(cake__conn_t *conn, void **data, size_t *size)
{
    size_t left, room = 0;
    cake__h2_stream_t *stream = conn->is_finishing ? NULL : cake__h2_receiving(conn->h2, &left);
    if (stream == NULL || left < CAKE__COPY_BELOW)
        return false;
    *data = conn->kind->body_room(stream, left, &room);
    if (*data == NULL)
        return false;
    *size = cake__min_u64(room, left + CAKE__H2_HEAD_BYTES);
    conn->direct = left;
    return true;
}

static int receive_direct(cake__conn_t *conn, const uint8_t *data, size_t len)
{
    uint8_t head[CAKE__H2_HEAD_BYTES];
    size_t body = cake__min_u64(len, conn->direct), rest = len - body;
    memcpy(head, data + body, rest); /* who has the body may let go of it at its end */
    int err = cake__h2_receive(conn->h2, conn->now_ns, data, body);
    return err == 0 && rest > 0 ? cake__h2_receive(conn->h2, conn->now_ns, head, rest) : err;
}

static int receive_in_block(cake__conn_t *conn, const uint8_t *data, size_t len)
{
    CAKE_ASSERT(conn->block != NULL && data == conn->block->data + conn->block->len);
    int err = cake__h2_receive(conn->h2, conn->now_ns, data, len);
    if (conn->block->refs > 1) {
        conn->block->len += (len + 7) & ~(size_t)7;
    } else {
        cake__block_unref(conn->block); /* an idle connection keeps none */
        conn->block = NULL;
    }
    return err;
}

static void on_buffer(void *arg, void **data, size_t *size)
{
    cake__conn_t *conn = arg;
    *data = NULL;
    *size = 0;
    if (conn->is_ended || conn->is_held) {
        conn->is_stopped = true;
        return;
    }
    conn->direct = 0;
    if (read_into_body(conn, data, size))
        return;
    if (conn->block != NULL && conn->block->refs > 1 && CAKE__BLOCK_BYTES - conn->block->len < CAKE__BLOCK_BYTES / 4) {
        cake__block_unref(conn->block); /* calls read in it: the next bytes go elsewhere */
        conn->block = NULL;
    }
    if (conn->block == NULL)
        conn->block = cake__block_get(&conn->kind->pool);
    if (conn->block == NULL) {
        cake__conn_end(conn, CAKE_ENOMEM);
        return;
    }
    if (conn->block->refs == 1)
        conn->block->len = 0;
    *data = conn->block->data + conn->block->len;
    *size = cake__min_u64(conn->read_cap, CAKE__BLOCK_BYTES - conn->block->len);
}

static void adapt_read_cap(cake__conn_t *conn, size_t len)
{
    uint64_t message_bytes = len / cake__max_u64(conn->messages, 1), batch = BATCH_MAX;
    if (!conn->kind->is_server)
        batch = cake__min_u64(cake__max_u64((conn->calls + conn->messages) / PARTS, BATCH_MIN), BATCH_MAX);
    conn->read_cap = cake__min_u64(cake__max_u64(batch * message_bytes, CAKE__READ_MIN), CAKE__BLOCK_BYTES);
}

/* A peer that does not take what waits for it may not ask for more. Only while a write is stuck: else its window
 * updates, which let the rest go out, would wait for themselves. */
static void pause_if_full(cake__conn_t *conn)
{
    if (conn->is_paused || conn->queued_bytes <= conn->kind->limits.max_output_bytes)
        return;
    conn->is_paused = conn->was_paused = conn->is_stopped = true;
    conn->kind->env->ops->stream_pause(conn->stream);
}

static void on_read(void *arg, void *data, intptr_t len)
{
    cake__conn_t *conn = arg;
    if (conn->is_ended)
        return;
    if (len <= 0) {
        note_why(conn);
        cake__conn_end(conn, CAKE_ECONNECTION);
        return;
    }
    if (is_tls(conn, data, len)) {
        conn->why = "the peer encrypts by TLS, and this side does not";
        cake__conn_end(conn, CAKE_ECONNECTION);
        return;
    }
    if (conn->is_finishing)
        return;
    conn->now_ns = conn->last_read_ns = cake__now_ns(conn->kind->env);
    conn->coming.bytes += (uint64_t)len;
    conn->messages = 0;
    int err = conn->direct > 0 ? receive_direct(conn, data, (size_t)len) : receive_in_block(conn, data, (size_t)len);
    /* a full read of many messages: their replies go out before the next are taken, so that both sides work at once */
    conn->is_held = (size_t)len >= conn->read_cap && conn->messages >= BATCH_MIN / 2 && err == 0;
    if (conn->direct == 0)
        adapt_read_cap(conn, (size_t)len);
    if (conn->is_held)
        cake__conn_kick(conn);
    if (conn->is_writing)
        pause_if_full(conn);
    if (err == CAKE_EBUSY)
        conn->was_abused = true;
    if (err != 0)
        cake__conn_finish(conn, err == CAKE_ENOMEM ? err : CAKE_ECONNECTION);
    else if (cake__h2_has_output(conn->h2) || cake__h2_is_over(conn->h2))
        cake__conn_kick(conn);
}

static void free_batch(cake__conn_t *conn)
{
    cake__conn_kind_t *kind = conn->kind;
    if (conn->batch == NULL)
        return;
    cake__batch_clear(conn->batch);
    if (kind->spare_batch == NULL)
        kind->spare_batch = conn->batch;
    else
        cake__free(&kind->env->alloc, conn->batch);
    conn->batch = NULL;
}

static void resume_reading(cake__conn_t *conn)
{
    conn->is_held = false;
    if (!conn->is_stopped || conn->is_ended || conn->is_paused)
        return;
    conn->is_stopped = false;
    conn->kind->env->ops->stream_resume(conn->stream);
}

static void on_written(void *arg, int err)
{
    cake__conn_t *conn = arg;
    conn->is_writing = false;
    conn->is_paused = false;
    resume_reading(conn);
    cake__batch_clear(conn->batch);
    if (err != 0)
        cake__conn_end(conn, CAKE_ECONNECTION);
    else if (!conn->is_ended)
        flush(conn);
}

static void on_closed(void *arg)
{
    cake__conn_t *conn = arg;
    CAKE_ASSERT(conn->is_dead && conn->calls == 0);
    conn->stream = NULL;
    free_batch(conn);
    if (conn->block != NULL)
        cake__block_unref(conn->block);
    conn->block = NULL;
    conn->kind->on_gone(conn);
}

static const cake_stream_handlers_t HANDLERS = {.on_connect = on_connect,
                                                .on_buffer = on_buffer,
                                                .on_read = on_read,
                                                .on_written = on_written,
                                                .on_closed = on_closed};

void cake__conn_accept(cake__conn_t *conn, cake_stream_t *stream)
{
    conn->stream = stream;
    conn->kind->env->ops->stream_start(stream, &HANDLERS, conn);
    began(conn);
}

int cake__conn_connect(cake__conn_t *conn, const cake_addr_t *addr)
{
    cake_env_t *env = conn->kind->env;
    int err = env->ops->connect(env, addr, &HANDLERS, conn, &conn->stream);
    if (err != 0) {
        conn->stream = NULL;
        return err;
    }
    if (conn->kind->tls != NULL && (err = env->ops->stream_secure(conn->stream, conn->kind->tls)) != 0)
        cake__conn_end(conn, err);
    return 0;
}

/* ---- writing ---- */

static cake__batch_t *get_batch(cake__conn_kind_t *kind)
{
    cake__batch_t *batch = kind->spare_batch;
    kind->spare_batch = NULL;
    if (batch == NULL)
        batch = cake__malloc(&kind->env->alloc, sizeof *batch);
    if (batch != NULL) {
        batch->pool = &kind->pool;
        batch->tail = NULL;
        batch->count = batch->bytes = batch->body_bytes = 0;
    }
    return batch;
}

static void die(cake__conn_t *conn)
{
    if (conn->is_dead)
        return;
    cake_env_t *env = conn->kind->env;
    conn->is_dead = true;
    env->ops->timer_cancel(env, &conn->tick);
    conn->kind->on_dead(conn, conn->err);
    cake__h2_free(conn->h2);
    conn->h2 = NULL;
    CAKE_ASSERT(conn->calls == 0);
    env->ops->stream_close(conn->stream);
}

/* Says that nothing more comes, and goes on reading for a moment: closing with bytes unread would reset the
 * connection, and the peer could lose the last that was sent. */
static void linger(cake__conn_t *conn)
{
    cake_env_t *env = conn->kind->env;
    if (!conn->kind->is_server) {
        cake__conn_end(conn, CAKE_ECONNECTION);
    } else if (!conn->is_shut) {
        conn->is_shut = true;
        conn->finish_ns = cake__now_ns(env);
        env->ops->stream_shutdown(conn->stream);
        cake__timer_arm_ms(env, &conn->tick, LINGER_MS);
    }
}

static void flush(void *arg)
{
    cake__conn_t *conn = arg;
    cake_env_t *env = conn->kind->env;
    if (conn->is_ended) {
        die(conn);
        return;
    }
    if (conn->is_writing)
        return;
    if (conn->batch == NULL && (conn->batch = get_batch(conn->kind)) == NULL) {
        cake__conn_end(conn, CAKE_ENOMEM);
        return;
    }
    int err = cake__h2_pull(conn->h2, conn->batch);
    if (err == 0 && conn->batch->count > 0) {
        conn->is_writing = true;
        conn->write_since_ns = 0;
        conn->sending.bytes += conn->batch->body_bytes;
        if (env->ops->stream_write(conn->stream, conn->batch->iov, conn->batch->count) == 0) {
            pause_if_full(conn);
            return;
        }
        conn->is_writing = false;
        err = CAKE_ECONNECTION;
    }
    free_batch(conn);
    resume_reading(conn);
    if (err != 0)
        cake__conn_end(conn, err == CAKE_ENOMEM ? err : CAKE_ECONNECTION);
    else if (conn->is_finishing)
        linger(conn);
    else if (cake__h2_is_over(conn->h2))
        cake__conn_finish(conn, CAKE_ECONNECTION);
}

void cake__conn_kick(cake__conn_t *conn)
{
    cake_env_t *env = conn->kind->env;
    if (!conn->is_writing || conn->is_ended)
        env->ops->defer(env, &conn->flush);
}

void cake__conn_queued(cake__conn_t *conn, int64_t change)
{
    conn->queued_bytes = (uint64_t)((int64_t)conn->queued_bytes + change);
}

/* ---- the end ---- */

void cake__conn_finish(cake__conn_t *conn, int err)
{
    if (conn->is_finishing || conn->is_ended)
        return;
    conn->is_finishing = true;
    conn->err = err;
    conn->finish_ns = cake__now_ns(conn->kind->env);
    cake__conn_kick(conn);
}

void cake__conn_end(cake__conn_t *conn, int err)
{
    if (conn->is_ended)
        return;
    conn->is_ended = true;
    if (conn->err == 0)
        conn->err = err;
    cake__conn_kick(conn);
}

static bool has_passed(uint64_t now_ns, uint64_t since_ns, uint64_t limit_ms)
{
    return limit_ms < UINT64_MAX / CAKE_NS_PER_MS && now_ns - since_ns >= limit_ms * CAKE_NS_PER_MS;
}

/* Whether something is so for that long, as ticks see it: what begins sets *since_ns to 0, and needs no clock. */
static bool has_lasted(bool is_so, uint64_t *since_ns, uint64_t now_ns, uint64_t limit_ms)
{
    if (is_so && *since_ns != 0)
        return has_passed(now_ns, *since_ns, limit_ms);
    *since_ns = is_so ? cake__max_u64(now_ns, 1) : 0;
    return false;
}

/* Whether something has waited for that long and hardly moved. Each such time is judged by itself: a peer may pause for
 * half of it, and does not live on a byte in each. */
bool cake__pace_is_slow(cake__pace_t *pace, bool is_waiting, uint64_t now_ns, uint64_t limit_ms)
{
    bool has_begun = is_waiting && pace->since_ns != 0;
    if (has_begun && !has_passed(now_ns, pace->since_ns, limit_ms))
        return false;
    bool is_slow = has_begun && pace->bytes < limit_ms * PACE_MIN / 1000;
    *pace = (cake__pace_t){.since_ns = is_waiting ? cake__max_u64(now_ns, 1) : 0};
    return is_slow;
}

/* Of replies: what waits for its turn, or for a write, is not the peer's fault. */
static bool is_blocked(const cake__conn_t *conn)
{
    bool is = false;
    if (conn->queued_bytes == 0)
        return false;
    for (cake__h2_stream_t *stream = NULL; !is && (stream = cake__h2_next(conn->h2, stream)) != NULL;)
        is = cake__h2_is_blocked(conn->h2, stream);
    return is;
}

static void keep_alive(cake__conn_t *conn, uint64_t now_ns)
{
    if (conn->was_paused) /* its answer may lie there unread */
        conn->last_read_ns = now_ns;
    if (conn->calls == 0 || !has_passed(now_ns, conn->last_read_ns, conn->kind->keepalive_ms))
        return;
    if (conn->ping_ns > conn->last_read_ns) {
        if (has_passed(now_ns, conn->ping_ns, conn->kind->keepalive_ms))
            cake__conn_end(conn, CAKE_ECONNECTION);
        return;
    }
    conn->ping_ns = now_ns;
    cake__h2_ping(conn->h2);
    cake__conn_kick(conn);
}

static void tick(void *arg)
{
    cake__conn_t *conn = arg;
    const cake__conn_kind_t *kind = conn->kind;
    uint64_t now_ns = cake__now_ns(kind->env);
    if (conn->is_ended)
        return;
    if (conn->is_shut) {
        cake__conn_end(conn, CAKE_ECONNECTION);
        return;
    }
    bool is_stuck = has_lasted(conn->is_writing, &conn->write_since_ns, now_ns, kind->limits.stall_ms);
    bool is_unread = cake__pace_is_slow(&conn->sending, is_blocked(conn), now_ns, kind->limits.stall_ms);
    if (is_stuck || is_unread || (conn->is_finishing && has_passed(now_ns, conn->finish_ns, kind->limits.stall_ms))) {
        conn->was_abused = true;
        cake__conn_end(conn, CAKE_ECONNECTION);
        return;
    }
    if (conn->calls == 0)
        cake__slab_trim(&conn->kind->slab);
    if (conn->calls == 0 && kind->spare != NULL)
        cake__spare_trim(kind->spare);
    keep_alive(conn, now_ns);
    if (kind->on_tick != NULL && !conn->is_finishing)
        kind->on_tick(conn, now_ns);
    conn->was_paused = conn->is_paused;
    if (kind->is_server && has_lasted(conn->calls == 0, &conn->idle_since_ns, now_ns, kind->limits.idle_ms)) {
        cake__h2_goaway(conn->h2);
        cake__conn_finish(conn, CAKE_ECONNECTION);
    }
    arm_tick(conn);
}
