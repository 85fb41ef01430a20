/* One direction of a connection: bytes in flight, then readable, in a ring.
 *
 *      ring:  [ readable | flight 1 | flight 2 | ... ]      len = readable + the bytes of the flights
 *
 * Flights arrive in order. One that finds its path cut, black or its machine dead stalls, and with it all behind it,
 * until the path is mended or the sender gives up: then the sender's end breaks, and the reader's hears nothing. */
#include "sim/env/world.h"

static cake__host_t *host_from(const cake__pipe_t *pipe)
{
    return cake__pipe_from(pipe)->host;
}

static cake__host_t *host_to(const cake__pipe_t *pipe)
{
    return cake__pipe_to(pipe)->host;
}

void cake__pipe_init(cake__pipe_t *pipe, cake__connection_t *connection)
{
    *pipe = (cake__pipe_t){.connection = connection, .black_hole_after = UINT64_MAX};
}

void cake__pipe_free(cake__pipe_t *pipe)
{
    cake__world_t *world = pipe->connection->world;
    cake__sim_cancel(world, &pipe->arrive);
    cake__sim_cancel(world, &pipe->give_up);
    cake__free(world->alloc, pipe->ring);
    pipe->ring = NULL;
}

/* Forgets what is under way; what arrived can still be read. */
static void drop_flights(cake__pipe_t *pipe)
{
    cake__world_t *world = pipe->connection->world;
    cake__sim_cancel(world, &pipe->arrive);
    cake__sim_cancel(world, &pipe->give_up);
    pipe->count = 0;
    pipe->len = pipe->readable;
    pipe->is_stalled = pipe->is_space_held = false;
}

size_t cake__pipe_space(const cake__pipe_t *pipe)
{
    return pipe->connection->world->options.stream_buffer_bytes - pipe->len;
}

void cake__pipe_put(cake__pipe_t *pipe, const void *data, size_t len)
{
    cake__world_t *world = pipe->connection->world;
    size_t capacity = world->options.stream_buffer_bytes;
    CAKE_ASSERT(len <= capacity - pipe->len);
    if (len == 0)
        return;
    if (pipe->ring == NULL)
        pipe->ring = cake__sim_must(cake__malloc(world->alloc, capacity));
    size_t at = (pipe->head + pipe->len) % capacity;
    size_t part = len < capacity - at ? len : capacity - at;
    memcpy(pipe->ring + at, data, part);
    memcpy(pipe->ring, (const uint8_t *)data + part, len - part);
    pipe->len += len;
}

void cake__pipe_get(cake__pipe_t *pipe, void *data, size_t len)
{
    size_t capacity = pipe->connection->world->options.stream_buffer_bytes;
    CAKE_ASSERT(len <= pipe->readable);
    size_t part = len < capacity - pipe->head ? len : capacity - pipe->head;
    memcpy(data, pipe->ring + pipe->head, part);
    memcpy((uint8_t *)data + part, pipe->ring, len - part);
    pipe->head = (pipe->head + len) % capacity;
    pipe->len -= len;
    pipe->readable -= len;
    if (pipe->len == 0)
        pipe->head = 0; /* small messages stay in the same few cache lines */
    if (cake__sim_is_cut(host_to(pipe), host_from(pipe)))
        pipe->is_space_held = true;
    else
        cake__end_space_freed(cake__pipe_from(pipe));
}

/* ---- flights ---- */

static void schedule_arrival(cake__pipe_t *pipe)
{
    if (pipe->count == 0 || pipe->arrive != NULL || pipe->is_stalled)
        return;
    pipe->arrive = cake__sim_schedule(pipe->connection->world, CAKE__SIM_ARRIVE, NULL,
                                      pipe->flights[pipe->first].arrives_ns, pipe);
}

/* Drawn for each alone: one that would be earlier than those before it waits for them. */
static uint64_t arrival_ns(cake__pipe_t *pipe)
{
    cake__world_t *world = pipe->connection->world;
    const cake__faults_t *faults = &world->options.faults;
    uint64_t at_ns = world->now_ns + cake__sim_latency_ns(world, host_from(pipe), host_to(pipe));
    if (cake__sim_happens(world, CAKE__DRAW_STALL, faults->stall_rate))
        at_ns += cake__sim_between(world, CAKE__DRAW_STALL, 0, faults->stall_max_ns);
    return at_ns;
}

/* The flight that the bytes just put go with: a new one, or the last when the ring of flights is full. */
static cake__flight_t *board(cake__pipe_t *pipe, size_t bytes)
{
    if (pipe->count == CAKE__SIM_FLIGHTS) {
        cake__flight_t *last = &pipe->flights[(pipe->first + pipe->count - 1) % CAKE__SIM_FLIGHTS];
        last->bytes += bytes;
        return last;
    }
    cake__flight_t *flight = &pipe->flights[(pipe->first + pipe->count++) % CAKE__SIM_FLIGHTS];
    *flight = (cake__flight_t){.arrives_ns = arrival_ns(pipe), .bytes = bytes, .break_after = SIZE_MAX};
    cake__sim_note_flight(host_from(pipe), host_to(pipe), flight->arrives_ns, bytes, true);
    return flight;
}

void cake__pipe_launch(cake__pipe_t *pipe, size_t bytes)
{
    cake__world_t *world = pipe->connection->world;
    const cake__faults_t *faults = &world->options.faults;
    cake__flight_t *flight = board(pipe, bytes);
    bool breaks_one = cake__sim_happens(world, CAKE__DRAW_HALF_OPEN, faults->half_open_rate);
    if (breaks_one || cake__sim_happens(world, CAKE__DRAW_RESET, faults->reset_rate)) {
        flight->breaks_one_end = breaks_one;
        flight->break_after = cake__sim_between(world, CAKE__DRAW_RESET, 0, flight->bytes);
    }
    schedule_arrival(pipe);
}

void cake__pipe_launch_end(cake__pipe_t *pipe, bool is_reset)
{
    if (pipe->is_shut && !is_reset)
        return;
    cake__flight_t *flight = board(pipe, 0);
    flight->is_end = flight->is_end || !is_reset;
    flight->is_reset = flight->is_reset || is_reset;
    pipe->is_shut = true;
    schedule_arrival(pipe);
}

/* ---- arriving ---- */

static bool path_is_dead(cake__pipe_t *pipe, const cake__flight_t *flight)
{
    cake__world_t *world = pipe->connection->world;
    bool has_holes = world->options.faults.black_hole_rate > 0; /* one that was not reached before they ended is none */
    pipe->is_black |= has_holes && pipe->sent_bytes + flight->bytes > pipe->black_hole_after;
    return cake__sim_is_cut(host_from(pipe), host_to(pipe)) || host_to(pipe)->is_silent || pipe->is_black;
}

static cake__pipe_t *way_back(const cake__pipe_t *pipe)
{
    return &pipe->connection->pipes[pipe == &pipe->connection->pipes[0] ? 1 : 0];
}

/* Bytes arrive, but their acknowledgements do not. */
static bool is_unanswered(const cake__pipe_t *pipe)
{
    return cake__sim_is_cut(host_to(pipe), host_from(pipe)) || way_back(pipe)->is_black;
}

static void wait_to_give_up(cake__pipe_t *pipe)
{
    cake__world_t *world = pipe->connection->world;
    if (pipe->give_up != NULL)
        return;
    uint64_t wait_ns =
        cake__sim_between(world, CAKE__DRAW_GIVE_UP, world->options.give_up_min_ns, world->options.give_up_max_ns);
    pipe->give_up = cake__sim_schedule(world, CAKE__SIM_GIVE_UP, NULL, world->now_ns + wait_ns, pipe);
}

static void break_in_flight(cake__pipe_t *pipe, const cake__flight_t *flight)
{
    cake__world_t *world = pipe->connection->world;
    bool spares_reader = flight->breaks_one_end && cake__sim_happens(world, CAKE__DRAW_HALF_OPEN, 0.5);
    bool spares_writer = flight->breaks_one_end && !spares_reader;
    drop_flights(pipe);
    if (!spares_writer)
        cake__end_break(cake__pipe_from(pipe), CAKE_ECONNECTION);
    if (!spares_reader)
        cake__end_break(cake__pipe_to(pipe), CAKE_ECONNECTION);
    else
        cake__end_bytes_arrived(cake__pipe_to(pipe));
}

static void land(cake__pipe_t *pipe, const cake__flight_t *flight)
{
    cake__end_t *to = cake__pipe_to(pipe);
    size_t bytes = flight->break_after < flight->bytes ? flight->break_after : flight->bytes;
    pipe->sent_bytes += bytes;
    pipe->readable += bytes;
    if (flight->break_after != SIZE_MAX) {
        break_in_flight(pipe, flight);
        return;
    }
    pipe->end_arrived = pipe->end_arrived || flight->is_end;
    if (flight->is_reset)
        cake__end_break(to, CAKE_ECONNECTION);
    else
        cake__end_bytes_arrived(to);
}

void cake__sim_run_arrive(cake__world_t *world, cake__host_t *host, void *object)
{
    cake__pipe_t *pipe = object;
    cake__end_t *to = cake__pipe_to(pipe);
    pipe->arrive = NULL;
    CAKE_ASSERT(pipe->count > 0);
    cake__flight_t flight = pipe->flights[pipe->first];
    if (path_is_dead(pipe, &flight)) {
        pipe->is_stalled = true;
        wait_to_give_up(pipe);
        return;
    }
    if (is_unanswered(pipe))
        wait_to_give_up(pipe);
    else
        cake__sim_cancel(world, &pipe->give_up);
    if (to->is_gone || to->broken != 0) { /* its machine answers what nobody has open with a reset */
        drop_flights(pipe);
        if (!flight.is_reset && !cake__pipe_from(pipe)->is_gone)
            cake__pipe_launch_end(way_back(pipe), true);
        return;
    }
    pipe->first = (pipe->first + 1) % CAKE__SIM_FLIGHTS;
    pipe->count--;
    land(pipe, &flight);
    schedule_arrival(pipe);
}

void cake__sim_run_give_up(cake__world_t *world, cake__host_t *host, void *object)
{
    cake__pipe_t *pipe = object;
    pipe->give_up = NULL;
    drop_flights(pipe);
    cake__end_break(cake__pipe_from(pipe), CAKE_ETIMEDOUT);
}

void cake__pipe_mended(cake__pipe_t *pipe)
{
    cake__connection_t *connection = pipe->connection;
    if (!connection->is_accepted)
        return;
    if (pipe->is_stalled && !path_is_dead(pipe, &pipe->flights[pipe->first])) {
        cake__sim_cancel(connection->world, &pipe->give_up);
        pipe->is_stalled = false;
        pipe->flights[pipe->first].arrives_ns = arrival_ns(pipe);
        schedule_arrival(pipe);
    }
    if (!pipe->is_stalled && !is_unanswered(pipe))
        cake__sim_cancel(connection->world, &pipe->give_up);
    if (pipe->is_space_held && !cake__sim_is_cut(host_to(pipe), host_from(pipe))) {
        pipe->is_space_held = false;
        cake__end_space_freed(cake__pipe_from(pipe));
    }
}
