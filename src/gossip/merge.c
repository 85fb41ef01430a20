/* merge.c: what another member says about a member, and what of it is believed.
 *
 *   generation  the higher run replaces the lower at once; the same with another nonce is a duplicate id
 *   liveness    ordered by (refutation, ALIVE < SUSPECT < DEAD); LEFT is final. Only its subject raises a refutation
 *   keys        a continuation of what is there, or a reset to a state whose tombstones were collected */
#include "gossip/state.h"

static void who_of(const cake__gossip_record_t *record, cake__gossip_who_t *who)
{
    who->node_id = record->node_id;
    who->generation = record->generation;
    memcpy(who->nonce, record->nonce, sizeof who->nonce);
}

/* ---- about this node --------------------------------------------------------------------------------------------- */

void cake__gossip_raise_generation(cake__gossip_t *gossip, uint64_t above)
{
    cake__gossip_peer_t *self = gossip->self;
    if (above < self->who.generation || above >= GOSSIP_GENERATION_MAX || gossip->raises >= GOSSIP_RAISES_MAX)
        return;
    gossip->raises++;
    self->who.generation = above + 1;
    self->refutation = 0;
    cake__log(gossip->log, CAKE_LOG_INFO, "gossip: generation raised to %llu: the cluster remembers a run of this node",
              (unsigned long long)self->who.generation);
    cake__gossip_peer_touch(gossip, self);
    cake__gossip_rumour(gossip, self);
    gossip->next_join_ns = gossip->now_ns; /* those who refused the old one hear of it first */
}

static void refute(cake__gossip_t *gossip, uint32_t refutation)
{
    cake__gossip_peer_t *self = gossip->self;
    if (GOSSIP_MUTANT(no_refutation) || refutation < self->refutation || refutation + 1 >= GOSSIP_REFUTATION_MAX)
        return;
    self->refutation = refutation + 1;
    gossip->counters.refutations_made++;
    cake__gossip_peer_touch(gossip, self);
    cake__gossip_rumour(gossip, self);
}

static void merge_self(cake__gossip_t *gossip, const cake__gossip_record_t *record)
{
    cake__gossip_peer_t *self = gossip->self;
    if (gossip->is_leaving || record->generation < self->who.generation)
        return;
    bool is_other = record->has_identity && memcmp(record->nonce, self->who.nonce, sizeof record->nonce) != 0;
    if (is_other && (record->status == CAKE__GOSSIP_DEAD || record->status == CAKE__GOSSIP_LEFT)) {
        cake__gossip_raise_generation(gossip, record->generation);
    } else if (is_other) {
        cake__gossip_who_t who;
        who_of(record, &who);
        cake__gossip_claim_start(gossip, &who, &record->addr);
    } else if (record->generation > self->who.generation) {
        return; /* who says so has not told us of which run */
    } else if (record->status == CAKE__GOSSIP_LEFT) {
        cake__gossip_raise_generation(gossip, record->generation); /* LEFT is final for this one */
    } else if (record->status != CAKE__GOSSIP_ALIVE || record->refutation > self->refutation) {
        refute(gossip, record->refutation);
    }
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/* Brings keys to where the record's entries continue; false when they do not fit together. */
static bool align_keys(cake__gossip_t *gossip, cake__gossip_keys_t *keys, const cake__gossip_record_t *record)
{
    if (record->gc_version > keys->gc_version) {
        if (keys->max_version >= record->gc_version)
            cake__gossip_keys_collect(keys, gossip->alloc, record->gc_version);
        else if (record->from_version == 0)
            cake__gossip_keys_reset(keys, gossip->alloc, record->gc_version);
        else
            return false;
    } else if (record->gc_version < keys->gc_version && keys->max_version < keys->gc_version &&
               !GOSSIP_MUTANT(no_reset_guard)) {
        return false; /* in mid-reset: the sender may still have what was deleted and collected */
    }
    return record->from_version <= keys->max_version;
}

static void merge_keys(cake__gossip_t *gossip, cake__gossip_peer_t *peer, const cake__gossip_record_t *record)
{
    cake__gossip_keys_t *keys = &peer->keys;
    uint64_t max_before = keys->max_version, gc_before = keys->gc_version;
    bool is_aligned = align_keys(gossip, keys, record);
    cake__reader_t entries = record->entries;
    int err = 0;
    for (uint64_t i = 0; is_aligned && err == 0 && i < record->entry_count; i++) {
        cake__gossip_wire_entry_t entry;
        cake__gossip_get_entry(&entries, &entry);
        if (entry.version <= keys->max_version)
            continue;
        err = cake__gossip_keys_put(keys, gossip->alloc, entry.key, entry.value, entry.is_deleted, entry.version,
                                    gossip->now_ns);
    }
    if (err == CAKE_ENOMEM)
        gossip->err = err;
    if (is_aligned && err == 0 && record->to_version > keys->max_version)
        keys->max_version = record->to_version;
    if (keys->max_version == max_before && keys->gc_version == gc_before)
        return;
    peer->is_updated = true;
    cake__gossip_peer_changed(gossip, peer);
    cake__gossip_peer_touch(gossip, peer);
    cake__gossip_sync_soon(gossip);
}

/* ---- about another ----------------------------------------------------------------------------------------------- */

static bool is_ended(const cake__gossip_record_t *record)
{
    return record->status == CAKE__GOSSIP_DEAD || record->status == CAKE__GOSSIP_LEFT;
}

/* Nearly forgotten elsewhere: learning it now would keep it going round for ever. */
static bool is_stale(const cake__gossip_t *gossip, const cake__gossip_record_t *record)
{
    uint64_t retention_ms =
        record->status == CAKE__GOSSIP_LEFT ? gossip->params.left_retention_ms : gossip->params.dead_retention_ms;
    return is_ended(record) && record->age_ms >= retention_ms / 10 * 9;
}

static void set_age(cake__gossip_t *gossip, cake__gossip_peer_t *peer, const cake__gossip_record_t *record)
{
    peer->ended_ns = (int64_t)gossip->now_ns - (int64_t)cake__gossip_ms(GOSSIP_MUTANT(age_stays) ? 0 : record->age_ms);
    cake__gossip_peer_touch(gossip, peer);
}

/* A run that was not known: as it is told, but an accusation is taken up as one of our own hearing. */
static void meet(cake__gossip_t *gossip, cake__gossip_peer_t *old, const cake__gossip_record_t *record,
                 cake__gossip_source_t source)
{
    if (!record->has_identity || is_stale(gossip, record))
        return;
    cake__gossip_who_t who;
    who_of(record, &who);
    cake__gossip_status_t status = record->status == CAKE__GOSSIP_SUSPECT ? CAKE__GOSSIP_ALIVE : record->status;
    cake__gossip_peer_t *peer =
        old == NULL ? cake__gossip_peer_add(gossip, &who, &record->addr, record->data_center, status)
                    : cake__gossip_peer_replace(gossip, old, &who, &record->addr, record->data_center, status);
    if (peer == NULL)
        return;
    peer->refutation = record->refutation;
    cake__gossip_peer_touch(gossip, peer);
    cake__gossip_notices_again(gossip);
    if (is_ended(record))
        set_age(gossip, peer, record);
    if (record->status == CAKE__GOSSIP_SUSPECT)
        cake__gossip_hear_suspect(gossip, peer, record, source);
    else if (source != GOSSIP_FROM_SYNC)
        cake__gossip_rumour(gossip, peer);
    if (record->has_keys)
        merge_keys(gossip, peer, record);
}

/* Two processes with one id and one generation: each is shown the other, and the later one gives way (join.c). */
static void show_each_other(cake__gossip_t *gossip, const cake__gossip_peer_t *peer,
                            const cake__gossip_record_t *record)
{
    cake__gossip_peer_t other = {.addr = record->addr, .refutation = record->refutation};
    char name[CAKE__GOSSIP_NAME_MAX + 1] = {0};
    who_of(record, &other.who);
    memcpy(name, record->data_center.data, record->data_center.len);
    other.data_center = name;
    cake__gossip_send_held(gossip, cake__gossip_dest(peer), &other);
    cake__gossip_dest_t to_other = cake__gossip_dest(&other);
    to_other.node_id = 0;
    cake__gossip_send_held(gossip, to_other, peer);
}

static void merge_status(cake__gossip_t *gossip, cake__gossip_peer_t *peer, const cake__gossip_record_t *record,
                         cake__gossip_source_t source)
{
    if (peer->status == CAKE__GOSSIP_LEFT)
        return;
    switch (record->status) {
    case CAKE__GOSSIP_ALIVE:
        if (record->refutation <= peer->refutation &&
            (record->refutation < peer->refutation || !GOSSIP_MUTANT(alive_without_refuting)))
            return;
        peer->refutation = record->refutation;
        cake__gossip_note_refutation(gossip, peer);
        cake__gossip_clear_suspicion(peer);
        cake__gossip_peer_set_status(gossip, peer, CAKE__GOSSIP_ALIVE);
        cake__gossip_peer_touch(gossip, peer);
        cake__gossip_edge_alive(gossip, peer);
        cake__gossip_rumour(gossip, peer);
        return;
    case CAKE__GOSSIP_SUSPECT:
        cake__gossip_hear_suspect(gossip, peer, record, source);
        return;
    case CAKE__GOSSIP_DEAD:
        cake__gossip_hear_dead(gossip, peer, record, source);
        return;
    case CAKE__GOSSIP_LEFT:
        if (is_stale(gossip, record))
            return;
        cake__gossip_peer_set_status(gossip, peer, CAKE__GOSSIP_LEFT);
        set_age(gossip, peer, record);
        cake__gossip_rumour(gossip, peer);
        return;
    }
}

/* The same process under a higher generation: its keys go on. */
static void follow_raise(cake__gossip_t *gossip, cake__gossip_peer_t *peer, const cake__gossip_record_t *record)
{
    peer->who.generation = record->generation;
    peer->refutation = 0;
    peer->is_updated = true;
    cake__gossip_peer_set_status(gossip, peer, CAKE__GOSSIP_ALIVE);
    cake__gossip_clear_suspicion(peer);
    cake__gossip_peer_changed(gossip, peer);
    cake__gossip_peer_touch(gossip, peer);
    cake__gossip_rumour(gossip, peer);
}

void cake__gossip_merge(cake__gossip_t *gossip, const cake__gossip_record_t *record, cake__gossip_source_t source)
{
    if (record->is_notice) {
        cake__gossip_notice_heard(gossip, record->node_id, &record->addr, &record->refused);
        return;
    }
    if (record->node_id == gossip->self->who.node_id) {
        merge_self(gossip, record);
        return;
    }
    cake__gossip_peer_t *peer = cake__gossip_peer_find(gossip, record->node_id);
    bool is_same_process =
        peer != NULL && record->has_identity && memcmp(peer->who.nonce, record->nonce, sizeof record->nonce) == 0;
    if (peer == NULL || (record->generation > peer->who.generation && !is_same_process)) {
        meet(gossip, peer, record, source);
        return;
    }
    if (record->generation < peer->who.generation)
        return;
    if (record->has_identity && !is_same_process) {
        show_each_other(gossip, peer, record);
        return;
    }
    if (record->generation > peer->who.generation)
        follow_raise(gossip, peer, record);
    merge_status(gossip, peer, record, source);
    if (record->has_keys)
        merge_keys(gossip, peer, record);
}

void cake__gossip_merge_all(cake__gossip_t *gossip, cake__reader_t body, cake__gossip_source_t source)
{
    cake__gossip_record_t record;
    while (!gossip->is_over && cake__reader_left(&body) > 0) {
        int err = cake__gossip_get_record(&body, &record);
        CAKE_ASSERT(err == 0); /* the body was walked before */
        cake__gossip_merge(gossip, &record, source);
    }
}
