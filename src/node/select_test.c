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

/* Data centre i of `count` has i + 1 members, all alive; the local node stands in the first one. */
static void draw_uneven(scene_t *scene, size_t count)
{
    memset(scene, 0, sizeof *scene);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k <= i; k++) {
            uint16_t id = (uint16_t)(scene->count + 2);
            scene->candidates[scene->count++] = (cake_candidate_t){id, CAKE_ALIVE, false, names[i]};
        }
    }
    scene->selection = (cake_selection_t){.local_id = 1,
                                          .local_data_center = names[0],
                                          .candidates = scene->candidates,
                                          .count = scene->count,
                                          .nodes = scene->nodes};
}

/* ONE goes round the other data centres evenly, whatever their sizes, and within each round its members; without
 * others, round the local ones. */
static void turns_are_fair_among_one_to_seven_uneven_data_centres(void **state)
{
    (void)state;
    enum { ROUNDS = 5040 }; /* every number up to 7, and times every size, goes into it */
    for (size_t count = 1; count <= CAKE_COUNT_OF(names); count++) {
        scene_t scene;
        size_t times[MEMBERS_MAX + 2] = {0};
        draw_uneven(&scene, count);
        scene.selection.level = CAKE_ONE;
        for (scene.selection.rotation = 0; scene.selection.rotation < ROUNDS; scene.selection.rotation++) {
            assert_int_equal(cake_select_data_center_aware(&scene.selection, NULL), 0);
            assert_int_equal(scene.selection.node_count, 1);
            times[scene.nodes[0]]++;
        }
        size_t others = count - 1;
        for (size_t i = 0; i < scene.count; i++) {
            size_t size = 0;
            bool is_local = strcmp(scene.candidates[i].data_center, names[0]) == 0;
            for (size_t k = 0; k < scene.count; k++)
                size += scene.candidates[k].data_center == scene.candidates[i].data_center;
            size_t share = others == 0 ? ROUNDS / size : is_local ? 0 : ROUNDS / others / size;
            assert_in_range(times[scene.candidates[i].node_id] + 1, share, share + 2);
        }
    }
}

/* Members die one after another, come back, and are forgotten: each level goes on as long as it can, and no longer. */
static void members_come_and_go(void **state)
{
    (void)state;
    for (size_t count = 1; count <= CAKE_COUNT_OF(names); count++) {
        scene_t scene;
        draw_uneven(&scene, count);
        for (size_t dead = 0; dead <= scene.count; dead++) {
            for (size_t i = 0; i < scene.count; i++)
                scene.candidates[i].status = i < dead ? (i % 2 == 0 ? CAKE_DEAD : CAKE_LEFT) : CAKE_ALIVE;
            for (int level = CAKE_NONE; level <= CAKE_ALL; level++) {
                scene.selection.level = (cake_consistency_t)level;
                int wanted = expected(&scene, scene.selection.level);
                int err = cake_select_data_center_aware(&scene.selection, NULL);
                assert_int_equal(err, wanted < 0 ? CAKE_ENOTENOUGHNODES : 0);
                if (err == 0)
                    check_chosen(&scene);
            }
        }
        /* Those that are forgotten, from the largest data centre on, are no longer counted, nor is a data centre
         * without members. */
        for (; scene.selection.count > 0; scene.count = --scene.selection.count) {
            for (size_t i = 0; i < scene.count; i++)
                scene.candidates[i].status = CAKE_ALIVE;
            for (int level = CAKE_QUORUM; level <= CAKE_ALL; level++) {
                scene.selection.level = (cake_consistency_t)level;
                assert_int_equal(cake_select_data_center_aware(&scene.selection, NULL), 0);
                assert_int_equal(scene.selection.node_count, expected(&scene, scene.selection.level));
            }
        }
    }
}

/* Both count every replica that is known, so that whatever the cut, one side at most has a majority. */
static void two_halves_of_a_split_never_both_have_a_quorum(void **state)
{
    (void)state;
    cake__random_t random;
    cake__random_init(&random, 3);
    for (int round = 0; round < 5000; round++) {
        scene_t scene;
        bool has_quorum[2];
        uint64_t sides = cake__random_u64(&random);
        draw_uneven(&scene, 1 + cake__random_below(&random, CAKE_COUNT_OF(names)));
        scene.selection.level = cake__random_below(&random, 2) == 0 ? CAKE_QUORUM : CAKE_ALL;
        /* Seen by the local node, on side 0, and by the last candidate, on side 1, with the local one for candidate. */
        for (uint64_t side = 0; side < 2; side++) {
            for (size_t i = 0; i < scene.count; i++)
                scene.candidates[i].status =
                    ((i + 1 == scene.count ? 1 : sides >> i & 1) == side) ? CAKE_ALIVE : CAKE_DEAD;
            cake_candidate_t last = scene.candidates[scene.count - 1];
            if (side == 1) {
                scene.candidates[scene.count - 1] = (cake_candidate_t){1, CAKE_DEAD, false, names[0]};
                scene.selection.local_id = last.node_id;
                scene.selection.local_data_center = last.data_center;
            }
            has_quorum[side] = cake_select_data_center_aware(&scene.selection, NULL) == 0;
            scene.candidates[scene.count - 1] = last;
        }
        assert_false(has_quorum[0] && has_quorum[1]);
    }
}

static int take_the_last(cake_selection_t *selection, void *arg)
{
    ++*(int *)arg;
    assert_int_equal(selection->local_id, 7);
    assert_string_equal(selection->local_data_center, "here");
    if (selection->count == 0) {
        selection->required = 1;
        return CAKE_ENOTENOUGHNODES;
    }
    selection->nodes[selection->node_count++] = selection->candidates[selection->count - 1].node_id;
    return 0;
}

static void a_user_may_select_by_rules_of_his_own(void **state)
{
    (void)state;
    int calls = 0;
    uint16_t nodes[2];
    cake_node_config_t config = CAKE_NODE_CONFIG_INIT;
    cake_node_t *node;
    config.node_id = 7;
    config.listen_addr = "127.0.0.1:0";
    config.data_center = "here";
    config.selector = take_the_last;
    config.selector_arg = &calls;
    assert_int_equal(cake_node_start(&config, &node), 0);
    const cake_candidate_t candidates[] = {{2, CAKE_ALIVE, false, "a"}, {3, CAKE_ALIVE, false, "b"}};
    cake_selection_t selection = {.candidates = candidates, .count = 2, .level = CAKE_QUORUM, .nodes = nodes};
    assert_int_equal(cake__node_select(node, &selection), 0);
    assert_int_equal(selection.node_count, 1);
    assert_int_equal(nodes[0], 3);
    uint64_t rotation = selection.rotation;
    selection.count = 0;
    assert_int_equal(cake__node_select(node, &selection), CAKE_ENOTENOUGHNODES);
    assert_int_equal(selection.required, 1);
    assert_int_equal(selection.rotation, rotation + 1);
    assert_int_equal(calls, 2);
    assert_int_equal(cake_node_stop(node), 0);
}

static void what_is_no_level_is_refused(void **state)
{
    (void)state;
    scene_t scene;
    draw_uneven(&scene, 2);
    scene.selection.level = (cake_consistency_t)99;
    assert_int_equal(cake_select_data_center_aware(&scene.selection, NULL), CAKE_EINVAL);
    assert_null(cake_status_name((cake_status_t)4));
    assert_string_equal(cake_status_name(CAKE_SUSPECT), "suspect");
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
        cmocka_unit_test(turns_are_fair_among_one_to_seven_uneven_data_centres),
        cmocka_unit_test(members_come_and_go),
        cmocka_unit_test(two_halves_of_a_split_never_both_have_a_quorum),
        cmocka_unit_test(a_user_may_select_by_rules_of_his_own),
        cmocka_unit_test(what_is_no_level_is_refused),
        cmocka_unit_test(the_flapping_are_taken_last),
        cmocka_unit_test(names_of_levels_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
