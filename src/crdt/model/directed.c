/* directed.c: schedules for the mutants that chance finds too rarely. Each passes on the correct protocol. */
#include <stdlib.h>

#include "crdt/model/world.h"

#define WALL_MS UINT64_C(1000000)

typedef struct replica {
    cake_orswot_t *set;
    cake__change_t *change;
    uint64_t wall_ms;
} replica_t;

static replica_t replica_new(uint64_t actor, bool is_joined)
{
    replica_t replica = {.wall_ms = WALL_MS + actor};
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    config.actor = actor;
    config.is_joined = is_joined;
    must_be_ok(cake_orswot_new(&config, &replica.set));
    return replica;
}

static cake__change_t *begin(replica_t *replica)
{
    must_be_ok(cake__change_begin(replica->set, replica->wall_ms++, &replica->change));
    return replica->change;
}

static void commit(replica_t *replica)
{
    cake__change_commit(replica->change);
}

static cake_record_t put(replica_t *replica, uint32_t key, bool is_tombstone)
{
    cake_record_t record;
    cake_id_t id = id_of_key(key);
    must_be_ok(cake__change_write(begin(replica), &id, is_tombstone, NULL, &record));
    commit(replica);
    return record;
}

static void drop(replica_t *replica, uint32_t key)
{
    cake_id_t id = id_of_key(key);
    must_be_ok(cake__change_drop(begin(replica), &id, 1));
    commit(replica);
}

static cake_verdict_t receive(replica_t *replica, const cake_record_t *record)
{
    cake_verdict_t verdict;
    must_be_ok(cake__change_receive(begin(replica), record, CAKE_SOURCE_EAGER, NULL, &verdict));
    commit(replica);
    return verdict;
}

static cake__receiver_t *open_session_of(replica_t *r, uint64_t id)
{
    cake__receiver_t *receiver;
    must_be_ok(cake__receiver_new(r->set, 1, id, &receiver));
    return receiver;
}

static cake__sender_t *answer(replica_t *z, const cake__receiver_t *receiver, uint64_t token)
{
    cake__sender_t *sender;
    must_be_ok(cake__sender_new(z->set, 2, cake__receiver_hello(receiver), token, &sender));
    return sender;
}

static void welcome(replica_t *r, cake__receiver_t *receiver, const cake__sender_t *sender)
{
    cake__welcome_t message;
    must_be_ok(cake__sender_welcome(sender, &message));
    must_be_ok(cake__receiver_on_welcome(receiver, begin(r), &message));
    commit(r);
    cake__welcome_free(&message);
}

static bool compare_once(replica_t *r, cake__receiver_t *receiver, cake__sender_t *sender)
{
    cake__compare_t request;
    cake__compared_t reply;
    bool has;
    must_be_ok(cake__receiver_next_compare(receiver, 9, &has, &request));
    if (!has)
        return false;
    if (cake__sender_compare(sender, &request, &reply) == 0) {
        must_be_ok(cake__receiver_on_compared(receiver, begin(r), &reply));
        commit(r);
        cake__compared_free(&reply, &cake__libc_alloc);
    }
    cake__compare_free(&request, &cake__libc_alloc);
    return true;
}

/* The next part of a sender, to be handled later or never. */
typedef struct part {
    cake_record_t records[9];
    cake__chunk_t chunk;
    bool has_fin;
    cake__fin_t fin;
} part_t;

static void next_part(cake__sender_t *sender, uint64_t session_id, size_t limit, part_t *part)
{
    must_be_ok(cake__sender_next(sender, limit, part->records, &part->chunk.count, &part->chunk.index, &part->has_fin,
                                 &part->fin));
    part->chunk.session_id = session_id;
    part->chunk.token = cake__sender_token(sender);
    part->chunk.records = part->records;
    part->chunk.tags = NULL;
}

static void take_chunk(replica_t *r, cake__receiver_t *receiver, const part_t *part)
{
    must_be_ok(cake__receiver_on_chunk(receiver, begin(r), &part->chunk));
    commit(r);
}

static void take_fin(replica_t *r, cake__receiver_t *receiver, part_t *part)
{
    if (!part->has_fin)
        return;
    must_be_ok(cake__receiver_on_fin(receiver, begin(r), &part->fin));
    commit(r);
    cake__fin_free(&part->fin);
}

static void synchronise(replica_t *r, replica_t *z)
{
    cake__receiver_t *receiver = open_session_of(r, 77);
    cake__sender_t *sender = answer(z, receiver, 99);
    welcome(r, receiver, sender);
    while (cake__receiver_phase(receiver) == CAKE__PHASE_RUNNING) {
        part_t part;
        if (cake__receiver_is_finishing(receiver)) {
            must_be_ok(cake__receiver_go_on(receiver, begin(r)));
            commit(r);
            continue;
        }
        if (compare_once(r, receiver, sender))
            continue;
        next_part(sender, 77, 9, &part);
        if (part.chunk.count > 0)
            take_chunk(r, receiver, &part);
        take_fin(r, receiver, &part);
        if (part.chunk.count == 0 && !part.has_fin)
            cake__receiver_abort(receiver, "incomplete");
    }
    cake__receiver_free(receiver);
    cake__sender_free(sender);
}

static bool theorem_holds(replica_t *r, replica_t *z)
{
    for (int i = 0; i < 2; i++) {
        synchronise(r, z);
        synchronise(z, r);
    }
    return cake__context_equal(&cake__orswot_summary(r->set)->context, &cake__orswot_summary(z->set)->context) &&
           cake_orswot_fingerprint(r->set) == cake_orswot_fingerprint(z->set);
}

/* z wrote x, deleted it and dropped the tombstone; then x reaches r, which has seen none of this, in the middle of
 * a session from z: as an eager operation, or in a session from y. */
static bool old_insert_during_session(bool is_repair, bool by_session)
{
    replica_t r = replica_new(1, is_repair), z = replica_new(2, true), y = replica_new(3, true);
    if (is_repair)
        (void)put(&r, 1, false);
    cake_record_t x = put(&z, 0, false);
    (void)receive(&y, &x);
    (void)put(&z, 0, true);
    drop(&z, 0);
    cake__receiver_t *session = open_session_of(&r, 1);
    cake__sender_t *sender = answer(&z, session, 5);
    welcome(&r, session, sender);
    bool is_fine = cake__receiver_mode(session) == (is_repair ? CAKE__MODE_REPAIR : CAKE__MODE_JOIN);
    if (by_session)
        synchronise(&r, &y);
    else
        (void)receive(&r, &x);
    while (compare_once(&r, session, sender))
        ;
    part_t part;
    next_part(sender, 1, 9, &part);
    take_fin(&r, session, &part);
    is_fine = is_fine && cake__receiver_phase(session) == CAKE__PHASE_FINISHED;
    cake__receiver_free(session);
    cake__sender_free(sender);
    is_fine = is_fine && theorem_holds(&r, &z);
    cake_orswot_free(r.set);
    cake_orswot_free(z.set);
    cake_orswot_free(y.set);
    return is_fine;
}

static bool nofloor(void)
{
    return old_insert_during_session(true, false);
}

static bool nohold(void)
{
    return old_insert_during_session(false, false);
}

static bool shared(void)
{
    return old_insert_during_session(true, true);
}

/* Two sender sessions of z exist for one HELLO; r gets CHUNK of one and FIN of the other. */
static bool notoken(void)
{
    replica_t r = replica_new(1, true), z = replica_new(2, true);
    part_t old, fresh;
    (void)put(&z, 0, false);
    cake__receiver_t *session = open_session_of(&r, 1);
    cake__sender_t *first = answer(&z, session, 5);
    next_part(first, 1, 9, &old);
    if (old.has_fin)
        cake__fin_free(&old.fin);
    (void)put(&z, 1, false);
    cake__sender_t *second = answer(&z, session, 6);
    welcome(&r, session, second);
    next_part(second, 1, 9, &fresh);
    take_chunk(&r, session, &old);
    take_fin(&r, session, &fresh);
    cake__receiver_abort(session, "timeout");
    cake__receiver_free(session);
    cake__sender_free(first);
    cake__sender_free(second);
    bool is_fine = theorem_holds(&r, &z);
    cake_orswot_free(r.set);
    cake_orswot_free(z.set);
    return is_fine;
}

/* z drops a tombstone during the JOIN of r, whose victim was sent already. */
static bool joinepoch(void)
{
    replica_t r = replica_new(1, false), z = replica_new(2, true);
    part_t part;
    (void)put(&z, 0, false);
    (void)put(&z, 1, false);
    cake__receiver_t *session = open_session_of(&r, 1);
    cake__sender_t *sender = answer(&z, session, 5);
    welcome(&r, session, sender);
    next_part(sender, 1, 1, &part);
    take_chunk(&r, session, &part);
    (void)put(&z, 0, true);
    drop(&z, 0);
    next_part(sender, 1, 9, &part);
    take_chunk(&r, session, &part);
    take_fin(&r, session, &part);
    cake__receiver_free(session);
    cake__sender_free(sender);
    bool is_fine = theorem_holds(&r, &z);
    cake_orswot_free(r.set);
    cake_orswot_free(z.set);
    return is_fine;
}

/* r, whose wall clock is behind, writes during a repair to a key where z dropped a tombstone that y still has. */
static bool noclockraise(void)
{
    replica_t r = replica_new(1, true), z = replica_new(2, true), y = replica_new(3, true);
    part_t part;
    z.wall_ms += 30000;
    (void)put(&r, 1, false);
    cake_record_t deletion = put(&z, 0, true);
    (void)receive(&y, &deletion);
    drop(&z, 0);
    cake__receiver_t *session = open_session_of(&r, 1);
    cake__sender_t *sender = answer(&z, session, 5);
    welcome(&r, session, sender);
    (void)put(&r, 0, false);
    while (compare_once(&r, session, sender))
        ;
    next_part(sender, 1, 9, &part);
    take_fin(&r, session, &part);
    bool is_fine = cake__receiver_phase(session) == CAKE__PHASE_FINISHED;
    cake__receiver_free(session);
    cake__sender_free(sender);
    is_fine = theorem_holds(&r, &y) && is_fine;
    cake_orswot_free(r.set);
    cake_orswot_free(z.set);
    cake_orswot_free(y.set);
    return is_fine;
}

/* A dot of r reaches it again, as a late repetition, after r dropped the tombstone above it: nothing may come back. */
static bool seen(void)
{
    replica_t r = replica_new(1, true);
    cake_record_t x = put(&r, 0, false), current;
    (void)put(&r, 0, true);
    cake__purge_t policy = {.max_count = 9};
    size_t dropped;
    must_be_ok(cake__change_purge(begin(&r), &policy, &dropped));
    commit(&r);
    bool is_fine = dropped == 1 && receive(&r, &x) == CAKE_VERDICT_SEEN && !cake_orswot_get(r.set, &x.id, &current);
    cake_orswot_free(r.set);
    return is_fine;
}

/* A chunk is staged, its change is refused by the storage, and the FIN arrives all the same. */
static bool keepsession(void)
{
    replica_t r = replica_new(1, true), z = replica_new(2, true);
    part_t part;
    (void)put(&z, 0, false);
    cake__receiver_t *session = open_session_of(&r, 1);
    cake__sender_t *sender = answer(&z, session, 5);
    welcome(&r, session, sender);
    next_part(sender, 1, 9, &part);
    must_be_ok(cake__receiver_on_chunk(session, begin(&r), &part.chunk));
    cake__change_abort(r.change);
    take_fin(&r, session, &part);
    cake__receiver_free(session);
    cake__sender_free(sender);
    bool is_fine = theorem_holds(&r, &z);
    cake_orswot_free(r.set);
    cake_orswot_free(z.set);
    return is_fine;
}

/* r has x of z and repairs, because z dropped w. Meanwhile z writes at key 0 after it said all it had to say
 * (latecompare), or deletes it and drops that (repairepoch), after it said what it holds there. If r ends with the
 * deletion in C, x is gone. */
static bool change_of_z_during_repair(bool is_late)
{
    replica_t r = replica_new(1, true), z = replica_new(2, true);
    part_t part, more;
    cake_record_t x = put(&z, 0, false), w = put(&z, 1, false), current;
    (void)receive(&r, &x);
    (void)receive(&r, &w);
    cake_record_t deletion = put(&z, is_late ? 0 : 1, true);
    drop(&z, is_late ? 0 : 1);
    cake__receiver_t *session = open_session_of(&r, 1);
    cake__sender_t *sender = answer(&z, session, 5);
    welcome(&r, session, sender);
    next_part(sender, 1, 9, &part);
    if (is_late)
        (void)put(&z, 0, false);
    while (compare_once(&r, session, sender))
        ;
    if (!is_late) {
        deletion = put(&z, 0, true);
        drop(&z, 0);
    }
    next_part(sender, 1, 9, &more);
    if (more.chunk.count > 0)
        take_chunk(&r, session, &more);
    take_fin(&r, session, &part);
    take_fin(&r, session, &more);
    bool has_x = cake_orswot_get(r.set, &x.id, &current) && current.dot.seq == x.dot.seq;
    bool is_fine = !has_x || !cake__context_contains(&cake__orswot_summary(r.set)->context, deletion.dot);
    cake__receiver_free(session);
    cake__sender_free(sender);
    is_fine = theorem_holds(&r, &z) && is_fine;
    cake_orswot_free(r.set);
    cake_orswot_free(z.set);
    return is_fine;
}

static bool latecompare(void)
{
    return change_of_z_during_repair(true);
}

static bool repairepoch(void)
{
    return change_of_z_during_repair(false);
}

/* A dot below a tombstone never comes, and the tombstone is old: it goes all the same. */
static bool holeforever(void)
{
    replica_t r = replica_new(1, true), z = replica_new(2, true);
    (void)put(&z, 0, false);
    cake_record_t deletion = put(&z, 0, true);
    (void)receive(&r, &deletion);
    cake__purge_t policy = {.hole_age_ms = 1000, .max_count = 9};
    size_t young, old;
    must_be_ok(cake__change_purge(begin(&r), &policy, &young));
    commit(&r);
    r.wall_ms += 5000;
    must_be_ok(cake__change_purge(begin(&r), &policy, &old));
    commit(&r);
    cake_orswot_free(r.set);
    cake_orswot_free(z.set);
    return young == 0 && old == 1;
}

/* r asks about one range at a time, and has the answers late: what it lost must be killed all the same. */
static bool rangeround(void)
{
    replica_t r = replica_new(1, true), z = replica_new(2, true);
    cake__compare_t first, second;
    cake__compared_t reply;
    cake_record_t current;
    bool has_first, has_second;
    r.set->repair.few_records = z.set->repair.few_records = 0;
    z.set->repair.least_bits = 4;
    cake_record_t x = put(&z, 0, false), y = put(&z, 1, false);
    (void)receive(&r, &x);
    (void)receive(&r, &y);
    (void)put(&z, 0, true);
    drop(&z, 0);
    cake__receiver_t *session = open_session_of(&r, 1);
    cake__sender_t *sender = answer(&z, session, 5);
    welcome(&r, session, sender);
    must_be_ok(cake__receiver_next_compare(session, 8, &has_first, &first));
    must_be_ok(cake__receiver_next_compare(session, 8, &has_second, &second));
    bool is_fine = has_first && !has_second && first.range_count > 0;
    must_be_ok(cake__sender_compare(sender, &first, &reply));
    must_be_ok(cake__receiver_on_compared(session, begin(&r), &reply));
    commit(&r);
    cake__compared_free(&reply, &cake__libc_alloc);
    cake__compare_free(&first, &cake__libc_alloc);
    if (has_second)
        cake__compare_free(&second, &cake__libc_alloc);
    while (compare_once(&r, session, sender))
        ;
    part_t part;
    next_part(sender, 1, 9, &part);
    take_fin(&r, session, &part);
    is_fine = is_fine && cake__receiver_phase(session) == CAKE__PHASE_FINISHED &&
              !cake_orswot_get(r.set, &x.id, &current) && cake_orswot_get(r.set, &y.id, &current);
    cake__receiver_free(session);
    cake__sender_free(sender);
    cake_orswot_free(r.set);
    cake_orswot_free(z.set);
    return is_fine;
}

/* z deleted x, dropped the tombstone, and folded the actor of both, without regard to r, which has x: r comes back. */
static bool foldnoG(void)
{
    replica_t r = replica_new(1, true), z = replica_new(2, true);
    cake_record_t x = put(&z, 0, false), current;
    size_t count;
    (void)receive(&r, &x);
    (void)put(&z, 0, true);
    drop(&z, 0);
    cake__orswot_take_actor(z.set, 20);
    must_be_ok(cake__change_retire(begin(&z), NULL, 0, NULL, 0, &count));
    commit(&z);
    bool is_fine = count == 1 && theorem_holds(&r, &z) && !cake_orswot_get(r.set, &x.id, &current);
    cake_orswot_free(r.set);
    cake_orswot_free(z.set);
    return is_fine;
}

const directed_t directed_schedules[] = {
    {"latecompare", latecompare},
    {"repairepoch", repairepoch},
    {"holeforever", holeforever},
    {"foldnoG", foldnoG},
    {"rangeround", rangeround},
    {"nofloor", nofloor},
    {"nohold", nohold},
    {"shared", shared},
    {"notoken", notoken},
    {"seen", seen},
    {"keepsession", keepsession},
    {"joinepoch", joinepoch},
    {"noclockraise", noclockraise},
    {NULL, NULL},
};
