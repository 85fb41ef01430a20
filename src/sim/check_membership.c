/* Checker "membership": where nothing disturbs it nobody is taken for dead, and a while after everything is mended
 * every node sees exactly the nodes that run. */
#include "sim/sim.h"

#include <stdio.h>

#define CALM_NS (30 * CAKE__SECOND_NS) /* after which nobody may be taken for dead any more */

static bool is_calm(const cake__trial_t *trial)
{
    if (trial->plan.kinds == 0)
        return true;
    return !trial->is_chaotic && trial->calm_since_ns != 0 &&
           cake__world_now_ns(trial->world) > trial->calm_since_ns + CALM_NS;
}

void cake__check_membership_change(cake__trial_node_t *node, cake_membership_kind_t kind, const cake_member_t *member)
{
    static const char *const names[] = {"joined", "updated", "left"};
    cake__trial_t *trial = node->trial;
    if (member->node_id == 0 || member->node_id > trial->node_count)
        return;
    const cake__trial_node_t *subject = trial->nodes[member->node_id - 1];
    if (!trial->was_taken_over && trial->impostor_address[0] != '\0' &&
        strcmp(member->address, trial->impostor_address) == 0) {
        cake__note_of(node, CAKE__MARK_EVENT, "takes the second node %u for the first", subject->id);
        trial->was_taken_over = true;
    }
    if (kind != CAKE_MEMBER_UPDATED && !member->is_self)
        cake__note_of(node, CAKE__MARK_EVENT, "node %u has %s (%s)", subject->id, names[kind],
                      cake_status_name(member->status));
    bool runs = subject->state == CAKE__IS_UP && member->generation == subject->generation;
    if (member->status == CAKE_DEAD && runs && is_calm(trial) && node->state == CAKE__IS_UP)
        cake__violation(trial, "membership", "node %u takes node %u for dead, which runs undisturbed", node->id,
                        subject->id);
}

bool cake__is_membership_exact(cake__trial_t *trial, char *why, size_t size)
{
    for (uint32_t i = 0; i < trial->node_count; i++) {
        const cake_store_t *store = trial->nodes[i]->store;
        uint32_t alive = 0;
        CAKE_LIST_FOR_EACH(link, &store->peers)
        {
            const cake__peer_t *peer = CAKE_CONTAINER_OF(link, cake__peer_t, link);
            alive += peer->status == CAKE_ALIVE;
        }
        if (alive != trial->node_count - 1) {
            snprintf(why, size, "node %u sees %u of %u others alive", (unsigned)trial->nodes[i]->id, (unsigned)alive,
                     (unsigned)trial->node_count - 1);
            return false;
        }
    }
    return true;
}
