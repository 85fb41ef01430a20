/* The data-centre aware selector: every level, over 1 to 7 data centres of uneven sizes, members coming and going. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/random.h"
#include "node/node.h"

#define MEMBERS_MAX 40

typedef struct {
    cake_candidate_t candidates[MEMBERS_MAX];
    size_t count;
    uint16_t nodes[MEMBERS_MAX];
    cake_selection_t selection;
} scene_t;

static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g"};

static void draw_scene(scene_t *scene, cake__random_t *random)
{
    size_t data_centers = 1 + cake__random_below(random, CAKE_COUNT_OF(names));
    scene->count = cake__random_below(random, MEMBERS_MAX);
    for (size_t i = 0; i < scene->count; i++) {
        scene->candidates[i] = (cake_candidate_t){.node_id = (uint16_t)(i + 2),
                                                  .status = (cake_status_t)cake__random_below(random, 4),
                                                  .is_degraded = cake__random_below(random, 5) == 0,
                                                  .data_center = names[cake__random_below(random, data_centers)]};
        if (cake__random_below(random, 2) == 0)
            scene->candidates[i].status = CAKE_ALIVE;
    }
    scene->selection = (cake_selection_t){.local_id = 1,
                                          .local_data_center = names[cake__random_below(random, data_centers)],
                                          .candidates = scene->candidates,
                                          .count = scene->count,
                                          .rotation = cake__random_u64(random),
                                          .nodes = scene->nodes};
}

static bool is_there(const cake_candidate_t *candidate)
{
    return candidate->status == CAKE_ALIVE || candidate->status == CAKE_SUSPECT;
}

static const cake_candidate_t *find(const scene_t *scene, uint16_t id)
{
    for (size_t i = 0; i < scene->count; i++) {
        if (scene->candidates[i].node_id == id)
            return &scene->candidates[i];
    }
    return NULL;
}

static void count(const scene_t *scene, const char *name, size_t *known, size_t *live)
{
    *known = *live = name == NULL || strcmp(name, scene->selection.local_data_center) == 0;
    for (size_t i = 0; i < scene->count; i++) {
        bool fits = name == NULL || strcmp(scene->candidates[i].data_center, name) == 0;
        *known += fits;
        *live += fits && is_there(&scene->candidates[i]);
    }
}

static size_t chosen_in(const scene_t *scene, const char *name)
{
    size_t chosen = 0;
    for (size_t i = 0; i < scene->selection.node_count; i++)
        chosen += strcmp(find(scene, scene->nodes[i])->data_center, name) == 0;
    return chosen;
}

/* What the level takes, computed the slow way: nodes besides the local one, or -1 when there are not enough. */
static int expected(const scene_t *scene, cake_consistency_t level)
{
    size_t known, live;
    int total = 0;
    switch (level) {
    case CAKE_NONE:
        return 0;
    case CAKE_ONE:
    case CAKE_TWO:
    case CAKE_THREE:
        count(scene, NULL, &known, &live);
        return live - 1 >= (size_t)level ? (int)level : -1;
    case CAKE_QUORUM:
        count(scene, NULL, &known, &live);
        return live >= known / 2 + 1 ? (int)(known / 2) : -1;
    case CAKE_LOCAL_QUORUM:
        count(scene, scene->selection.local_data_center, &known, &live);
        return live >= known / 2 + 1 ? (int)(known / 2) : -1;
    case CAKE_EACH_QUORUM:
        for (size_t i = 0; i < CAKE_COUNT_OF(names); i++) {
            bool is_local = strcmp(names[i], scene->selection.local_data_center) == 0;
            count(scene, names[i], &known, &live);
            if (known > 0 && live < known / 2 + 1)
                return -1;
            total += known == 0 ? 0 : (int)(known / 2 + 1) - (is_local ? 1 : 0);
        }
        return total;
    default:
        count(scene, NULL, &known, &live);
        return live == known ? (int)known - 1 : -1;
    }
}

static void check_chosen(const scene_t *scene)
{
    for (size_t i = 0; i < scene->selection.node_count; i++) {
        const cake_candidate_t *candidate = find(scene, scene->nodes[i]);
        assert_non_null(candidate); /* so never the local node */
        assert_true(is_there(candidate));
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(scene->nodes[i], scene->nodes[k]);
    }
}

static void every_level_takes_what_it_says_of_those_that_are_there(void **state)
{
    (void)state;
    cake__random_t random;
    cake__random_init(&random, 1);
    for (int round = 0; round < 20000; round++) {
        scene_t scene;
        draw_scene(&scene, &random);
        for (int level = CAKE_NONE; level <= CAKE_ALL; level++) {
            scene.selection.level = (cake_consistency_t)level;
            int err = cake_select_data_center_aware(&scene.selection, NULL);
            int wanted = expected(&scene, scene.selection.level);
            assert_int_equal(err, wanted < 0 ? CAKE_ENOTENOUGHNODES : 0);
            if (err != 0) {
                assert_true(scene.selection.live < scene.selection.required || level == CAKE_EACH_QUORUM);
                continue;
            }
            assert_int_equal(scene.selection.node_count, wanted);
            check_chosen(&scene);
        }
    }
}

static void few_copies_go_to_other_data_centres_first(void **state)
{
    (void)state;
    cake__random_t random;
    cake__random_init(&random, 2);
    for (int round = 0; round < 20000; round++) {
        scene_t scene;
        draw_scene(&scene, &random);
        scene.selection.level = (cake_consistency_t)(CAKE_ONE + cake__random_below(&random, 3));
        if (cake_select_data_center_aware(&scene.selection, NULL) != 0)
            continue;
        size_t others = 0, used = 0;
        for (size_t i = 0; i < CAKE_COUNT_OF(names); i++) {
            size_t known, live;
            count(&scene, names[i], &known, &live);
            bool is_other = strcmp(names[i], scene.selection.local_data_center) != 0;
            others += is_other && live > 0;
            used += is_other && chosen_in(&scene, names[i]) > 0;
        }
        size_t wanted = scene.selection.node_count < others ? scene.selection.node_count : others;
        assert_int_equal(used, wanted);
    }
}

static void equals_take_turns(void **state)
{
    (void)state;
    enum { MEMBERS = 9, ROUNDS = 9000 };
    scene_t scene = {.count = MEMBERS};
    size_t times[MEMBERS + 2] = {0};
    for (size_t i = 0; i < MEMBERS; i++)
        scene.candidates[i] = (cake_candidate_t){(uint16_t)(i + 2), CAKE_ALIVE, false, i < 3 ? "a" : i < 6 ? "b" : "c"};
    scene.selection = (cake_selection_t){.local_id = 1,
                                         .local_data_center = "a",
                                         .candidates = scene.candidates,
                                         .count = scene.count,
                                         .level = CAKE_TWO,
                                         .nodes = scene.nodes};
    for (scene.selection.rotation = 0; scene.selection.rotation < ROUNDS; scene.selection.rotation++) {
        assert_int_equal(cake_select_data_center_aware(&scene.selection, NULL), 0);
        for (size_t i = 0; i < scene.selection.node_count; i++)
            times[scene.nodes[i]]++;
    }
    for (size_t id = 2; id < 5; id++)
        assert_int_equal(times[id], 0); /* the local data centre is not needed */
    for (size_t id = 5; id < 11; id++)
        assert_in_range(times[id], ROUNDS / 6, ROUNDS / 2);
}

static void the_flapping_are_taken_last(void **state)
{
    (void)state;
    uint16_t nodes[3];
    const cake_candidate_t candidates[] = {
        {2, CAKE_ALIVE, true, "a"}, {3, CAKE_SUSPECT, false, "a"}, {4, CAKE_ALIVE, false, "a"}};
    cake_selection_t selection = {.local_data_center = "a", .candidates = candidates, .count = 3, .nodes = nodes};
    for (selection.rotation = 0; selection.rotation < 6; selection.rotation++) {
        selection.level = CAKE_ONE;
        assert_int_equal(cake_select_data_center_aware(&selection, NULL), 0);
        assert_int_equal(nodes[0], 4);
        selection.level = CAKE_TWO;
        assert_int_equal(cake_select_data_center_aware(&selection, NULL), 0);
        assert_int_equal(nodes[1], 3);
    }
}

static void names_of_levels_round_trip(void **state)
{
    (void)state;
    cake_consistency_t level;
    for (int i = CAKE_NONE; i <= CAKE_ALL; i++) {
        assert_int_equal(cake_consistency_parse(cake_consistency_name((cake_consistency_t)i), &level), 0);
        assert_int_equal(level, i);
    }
    assert_null(cake_consistency_name((cake_consistency_t)8));
    assert_int_equal(cake_consistency_parse("most", &level), CAKE_EPARSE);
    assert_int_equal(cake_consistency_parse(NULL, &level), CAKE_EPARSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_takes_what_it_says_of_those_that_are_there),
        cmocka_unit_test(few_copies_go_to_other_data_centres_first),
        cmocka_unit_test(equals_take_turns),
        cmocka_unit_test(the_flapping_are_taken_last),
        cmocka_unit_test(names_of_levels_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
