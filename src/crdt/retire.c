/* retire.c: rule 8 for the set alone; what it does is in limits.c, why it may in retired.h. */
#include "crdt/set.h"

int cake_orswot_retire(cake_orswot_t *set, const uint64_t *living, size_t living_count,
                       const cake_orswot_t *const *replicas, size_t count, size_t *retired)
{
    size_t made;
    CAKE_ASSERT(set->change == NULL);
    retired = retired == NULL ? &made : retired;
    *retired = 0;
    int err = cake__orswot_finish_loading(set);
    const cake__context_t **peers = err == 0 ? cake__malloc(set->alloc, count * sizeof(cake__context_t *)) : NULL;
    uint64_t *actors = peers == NULL ? NULL : cake__malloc(set->alloc, (living_count + 1) * sizeof *actors);
    if (actors == NULL) {
        cake__free(set->alloc, peers);
        return CAKE_ENOMEM;
    }
    for (size_t i = 0; i < count; i++)
        peers[i] = &replicas[i]->summary.context;
    actors[0] = set->actor;
    if (living_count > 0)
        memcpy(actors + 1, living, living_count * sizeof *actors);
    err = cake__summary_retire(&set->summary, actors, living_count + 1, peers, count, retired);
    cake__free(set->alloc, actors);
    cake__free(set->alloc, peers);
    return err;
}
