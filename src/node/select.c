/* Consistency levels by name, and the data-centre aware selector. Pure: everything comes in the selection. */
#include <limits.h>

#include "node/node.h"

static const char *const level_names[] = {"none",   "one",          "two",         "three",
                                          "quorum", "local_quorum", "each_quorum", "all"};

const char *cake_consistency_name(cake_consistency_t level)
{
    return (unsigned)level < CAKE_COUNT_OF(level_names) ? level_names[level] : NULL;
}

int cake_consistency_parse(const char *text, cake_consistency_t *out)
{
    for (size_t i = 0; text != NULL && i < CAKE_COUNT_OF(level_names); i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *out = (cake_consistency_t)i;
            return 0;
        }
    }
    return CAKE_EPARSE;
}

const char *cake_status_name(cake_status_t status)
{
    static const char *const names[] = {"alive", "suspect", "dead", "left"};
    return (unsigned)status < CAKE_COUNT_OF(names) ? names[status] : NULL;
}

static bool is_there(const cake_candidate_t *candidate)
{
    return candidate->status == CAKE_ALIVE || candidate->status == CAKE_SUSPECT;
}

static bool is_chosen(const cake_selection_t *selection, uint16_t node_id)
{
    for (size_t i = 0; i < selection->node_count; i++) {
        if (selection->nodes[i] == node_id)
            return true;
    }
    return false;
}

/* Lower is taken first: healthy before suspected before flapping. */
static int rank_of(const cake_candidate_t *candidate)
{
    return (candidate->is_degraded ? 2 : 0) + (candidate->status == CAKE_SUSPECT ? 1 : 0);
}

static bool fits(const cake_candidate_t *candidate, const char *data_center)
{
    return data_center == NULL || strcmp(candidate->data_center, data_center) == 0;
}

/* The best candidate of a data centre (NULL: of any) that was not chosen yet; equals take turns. */
static const cake_candidate_t *best_of(const cake_selection_t *selection, const char *data_center, uint64_t turn)
{
    int best = INT_MAX;
    uint64_t equals = 0;
    for (int round = 0; round < 2; round++) {
        uint64_t wanted = equals == 0 ? 0 : turn % equals;
        for (size_t i = 0; i < selection->count; i++) {
            const cake_candidate_t *candidate = &selection->candidates[i];
            if (!fits(candidate, data_center) || !is_there(candidate) || is_chosen(selection, candidate->node_id))
                continue;
            if (round == 1 && rank_of(candidate) == best && wanted-- == 0)
                return candidate;
            if (round == 0 && rank_of(candidate) < best) {
                best = rank_of(candidate);
                equals = 0;
            }
            equals += round == 0 && rank_of(candidate) == best;
        }
    }
    return NULL;
}

static bool take(cake_selection_t *selection, const cake_candidate_t *candidate)
{
    if (candidate == NULL)
        return false;
    selection->nodes[selection->node_count++] = candidate->node_id;
    return true;
}

/* How many replicas of a data centre (NULL: of all) there are and are there, the local node counted. */
static void count_replicas(const cake_selection_t *selection, const char *data_center, uint32_t *known, uint32_t *live)
{
    bool counts_local = data_center == NULL || strcmp(data_center, selection->local_data_center) == 0;
    *known = *live = counts_local ? 1 : 0;
    for (size_t i = 0; i < selection->count; i++) {
        const cake_candidate_t *candidate = &selection->candidates[i];
        if (data_center != NULL && strcmp(candidate->data_center, data_center) != 0)
            continue;
        *known += 1;
        *live += is_there(candidate);
    }
}

static bool is_first_of_its_data_center(const cake_selection_t *selection, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (strcmp(selection->candidates[i].data_center, selection->candidates[index].data_center) == 0)
            return false;
    }
    return true;
}

/* The n-th data centre other than the local one, in the order of their first candidates; NULL: there are fewer. */
static const char *other_data_center(const cake_selection_t *selection, uint64_t n)
{
    for (size_t i = 0; i < selection->count; i++) {
        const char *name = selection->candidates[i].data_center;
        bool is_local = strcmp(name, selection->local_data_center) == 0;
        if (!is_local && is_first_of_its_data_center(selection, i) && n-- == 0)
            return name;
    }
    return NULL;
}

/* ONE, TWO, THREE: a copy elsewhere is worth more than a second one here, so each further data centre gets one first.
 * The data centres take turns, and within each its nodes, one step for each full turn of the data centres. */
static int select_spread(cake_selection_t *selection, uint32_t wanted)
{
    uint64_t others = 0;
    while (other_data_center(selection, others) != NULL)
        others++;
    uint64_t turn = others == 0 ? selection->rotation : selection->rotation / others;
    for (uint64_t i = 0; i < others && selection->node_count < wanted; i++)
        take(selection, best_of(selection, other_data_center(selection, (selection->rotation + i) % others), turn));
    while (selection->node_count < wanted && take(selection, best_of(selection, NULL, turn)))
        ;
    if (selection->node_count == wanted)
        return 0;
    uint32_t known, live;
    count_replicas(selection, NULL, &known, &live);
    selection->live = live - 1;
    selection->required = wanted;
    return CAKE_ENOTENOUGHNODES;
}

/* More than half of the replicas of a data centre (NULL: of all); the local node is one of them where it belongs. */
static int select_majority(cake_selection_t *selection, const char *data_center)
{
    uint32_t known, live;
    count_replicas(selection, data_center, &known, &live);
    uint32_t required = known / 2 + 1;
    selection->live += live;
    selection->required += required;
    if (live < required)
        return CAKE_ENOTENOUGHNODES;
    bool counts_local = data_center == NULL || strcmp(data_center, selection->local_data_center) == 0;
    for (uint32_t i = counts_local ? 1 : 0; i < required; i++) {
        bool taken = take(selection, best_of(selection, data_center, selection->rotation));
        CAKE_ASSERT(taken);
    }
    return 0;
}

static int select_each_majority(cake_selection_t *selection)
{
    int result = select_majority(selection, selection->local_data_center);
    for (size_t i = 0; i < selection->count; i++) {
        const char *data_center = selection->candidates[i].data_center;
        bool is_local = strcmp(data_center, selection->local_data_center) == 0;
        if (is_local || !is_first_of_its_data_center(selection, i))
            continue;
        int err = select_majority(selection, data_center);
        result = result != 0 ? result : err;
    }
    return result;
}

static int select_all(cake_selection_t *selection)
{
    count_replicas(selection, NULL, &selection->required, &selection->live);
    if (selection->live < selection->required)
        return CAKE_ENOTENOUGHNODES;
    for (size_t i = 0; i < selection->count; i++)
        take(selection, &selection->candidates[i]);
    return 0;
}

int cake_select_data_center_aware(cake_selection_t *selection, void *arg)
{
    (void)arg;
    selection->node_count = 0;
    selection->live = selection->required = 0;
    switch (selection->level) {
    case CAKE_NONE:
        return 0;
    case CAKE_ONE:
        return select_spread(selection, 1);
    case CAKE_TWO:
        return select_spread(selection, 2);
    case CAKE_THREE:
        return select_spread(selection, 3);
    case CAKE_QUORUM:
        return select_majority(selection, NULL);
    case CAKE_LOCAL_QUORUM:
        return select_majority(selection, selection->local_data_center);
    case CAKE_EACH_QUORUM:
        return select_each_majority(selection);
    case CAKE_ALL:
        return select_all(selection);
    default:
        return CAKE_EINVAL;
    }
}
