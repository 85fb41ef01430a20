/* Followers: on each node an application that follows one keyspace from where it was, slower than it is written.
 * What it knows and how far it is are kept in one step, and outlive its node; one that starts may go on with what
 * that of another node has, as an application that has moved. Checker "watch": it is told of nothing older than what
 * it knows, and in the end it knows just what the disk has. */
#include "sim/sim.h"

#include <stdio.h>

#define KEYSPACE    0u
#define GRANT_EVERY CAKE__SECOND_NS
#define MOVE_ONE_IN 4

struct cake__follower {
    cake__trial_node_t *node;
    cake_watch_t *watch; /* NULL: none in this run of the node */
    cake_position_t position;
    cake_post_t post;
    bool is_posted; /* on its way to the loop */
    uint64_t owed;  /* changes that were told and whose credit is still to be granted */
    struct known {
        uint32_t op; /* that wrote the document; CAKE__OP_NONE: there is none */
        cake_hlc_t stamp;
    } * known; /* per key */
};

static void forget_all(cake__follower_t *follower)
{
    for (uint32_t key = 0; key < follower->node->trial->plan.keys; key++)
        follower->known[key] = (struct known){CAKE__OP_NONE, 0};
}

static void set_position(cake__follower_t *follower, const void *data, size_t len)
{
    cake__free(&cake__libc_alloc, follower->position.data);
    follower->position = (cake_position_t){cake__sim_alloc(len + 1), len};
    memcpy(follower->position.data, data, len);
}

/* Where there is no memory for a position the one before stays: the same changes come again. */
static void keep_position(cake__follower_t *follower)
{
    cake_position_t position;
    if (follower->watch == NULL || cake_watch_position(follower->watch, &position) != 0)
        return;
    set_position(follower, position.data, position.len);
    cake_position_free(&position);
}

static void on_change(void *arg, const cake_change_t *change)
{
    cake__follower_t *follower = arg;
    cake__trial_t *trial = follower->node->trial;
    uint32_t key = 0, op = CAKE__OP_NONE, item;
    if (change->is_reset) {
        cake__note_of(follower->node, CAKE__MARK_EVENT, "its follower begins anew");
        forget_all(follower);
    } else if (!cake__key_parse(change->key, &key) || key >= trial->plan.keys ||
               (!change->is_delete && !cake__value_parse(change->value, &op, &item))) {
        cake__violation(trial, "watch", "the follower of node %u is told what nobody wrote", follower->node->id);
        return;
    } else {
        if (change->timestamp < follower->known[key].stamp && !cake__has_lost_disks(trial))
            cake__violation(trial, "watch", "the follower of node %u knows %llx of key %u, and is told of %llx",
                            follower->node->id, (unsigned long long)follower->known[key].stamp, (unsigned)key,
                            (unsigned long long)change->timestamp);
        follower->known[key] = (struct known){op, change->timestamp};
    }
    keep_position(follower);
    trial->result->changes_told++;
    follower->owed += !change->is_reset;
    if (follower->watch != NULL && cake__below(trial, CAKE__TRIAL_DRAW_FOLLOWERS, 2) == 0 &&
        cake_watch_grant(follower->watch, follower->owed) == 0)
        follower->owed = 0;
}

/* Another one's, as that has it at this moment. */
static void move_in(cake__follower_t *follower)
{
    cake__trial_t *trial = follower->node->trial;
    const cake__follower_t *from =
        trial->nodes[cake__below(trial, CAKE__TRIAL_DRAW_ADDED, trial->node_count)]->follower;
    if (from == NULL || from == follower || from->position.len == 0)
        return;
    set_position(follower, from->position.data, from->position.len);
    memcpy(follower->known, from->known, trial->plan.keys * sizeof *from->known);
    cake__note_of(follower->node, CAKE__MARK_EVENT, "its follower goes on with what that of node %u knows",
                  from->node->id);
}

/* What was owed to the run of the node before is part of what it begins with. */
int cake__follower_start(cake__trial_node_t *node)
{
    cake__trial_t *trial = node->trial;
    cake_watch_options_t options = CAKE_WATCH_OPTIONS_INIT;
    char name[32];
    if (trial->plan.follower_credit == 0)
        return 0;
    if (node->follower == NULL) {
        node->follower = cake__sim_alloc(sizeof *node->follower);
        node->follower->node = node;
        node->follower->known = cake__sim_alloc(trial->plan.keys * sizeof *node->follower->known);
        forget_all(node->follower);
    }
    if (cake__below(trial, CAKE__TRIAL_DRAW_ADDED, MOVE_ONE_IN) == 0)
        move_in(node->follower);
    cake__keyspace_name(KEYSPACE, name);
    options.keyspace = name;
    options.position = cake__slice(node->follower->position.data, node->follower->position.len);
    options.credit = trial->plan.follower_credit;
    node->follower->owed = 0;
    return cake_store_watch_from(node->store, &options, on_change, node->follower, &node->follower->watch);
}

void cake__follower_stop(cake__trial_node_t *node)
{
    if (node->follower != NULL && node->follower->watch != NULL)
        cake_watch_stop(node->follower->watch);
    cake__follower_gone(node);
}

void cake__follower_gone(cake__trial_node_t *node)
{
    if (node->follower == NULL)
        return;
    node->follower->watch = NULL;
    node->follower->is_posted = false;
}

void cake__follower_free(cake__trial_node_t *node)
{
    if (node->follower == NULL)
        return;
    cake__free(&cake__libc_alloc, node->follower->position.data);
    cake__free(&cake__libc_alloc, node->follower->known);
    cake__free(&cake__libc_alloc, node->follower);
}

static void grant(void *arg)
{
    cake__follower_t *follower = arg;
    follower->is_posted = false;
    if (follower->watch != NULL && cake_watch_grant(follower->watch, follower->owed + 1) == 0)
        follower->owed = 0;
}

static void on_grant(void *arg)
{
    cake__trial_t *trial = arg;
    for (uint32_t i = 0; i < trial->node_count; i++) {
        cake__follower_t *follower = trial->nodes[i]->follower;
        if (follower == NULL || follower->watch == NULL || follower->is_posted)
            continue;
        follower->is_posted = true;
        follower->post = (cake_post_t){.fn = grant, .arg = follower};
        cake_env_t *env = cake__host_env(trial->nodes[i]->host);
        env->ops->post(env, &follower->post);
    }
    if (!trial->is_over)
        cake__world_at(trial->world, cake__world_now_ns(trial->world) + GRANT_EVERY, on_grant, trial);
}

void cake__followers_begin(cake__trial_t *trial)
{
    if (trial->plan.follower_credit > 0)
        on_grant(trial);
}

bool cake__are_followers_told(cake__trial_t *trial, char *why, size_t size)
{
    for (uint32_t i = 0; i < trial->node_count && trial->plan.follower_credit > 0; i++) {
        cake__trial_node_t *node = trial->nodes[i];
        for (uint32_t key = 0; key < trial->plan.keys; key++) {
            cake__stamp_t row;
            bool is_live =
                node->state == CAKE__IS_UP && cake__disk_row(&node->disk, KEYSPACE, key, &row) && !row.is_tombstone;
            uint32_t known = node->follower->known[key].op;
            if (known == (is_live ? row.op : CAKE__OP_NONE))
                continue;
            snprintf(why, size, "the follower of node %u knows operation %d of key %u, and its disk has %d", node->id,
                     (int)known, (unsigned)key, is_live ? (int)row.op : -1);
            return false;
        }
    }
    return true;
}
