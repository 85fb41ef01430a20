#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/list.h"

typedef struct {
    cake__list_t link;
    char name;
} item_t;

static void fill(cake__list_t *head, item_t *items, const char *names)
{
    cake__list_init(head);
    for (size_t i = 0; names[i] != '\0'; i++) {
        items[i].name = names[i];
        cake__list_init(&items[i].link);
        cake__list_push_back(head, &items[i].link);
    }
}

static void assert_holds(const cake__list_t *head, const char *names)
{
    size_t count = 0;
    const cake__list_t *last = head;
    for (const cake__list_t *node = head->next; node != head; node = node->next, count++) {
        assert_ptr_equal(node->prev, last);
        assert_int_equal(((const item_t *)(const void *)node)->name, names[count]);
        last = node;
    }
    assert_ptr_equal(head->prev, last);
    assert_int_equal(count, strlen(names));
}

static void nodes_stay_in_the_order_of_insertion(void **state)
{
    cake__list_t head;
    item_t items[3], first = {.name = 'x'}, middle = {.name = 'y'};
    fill(&head, items, "abc");
    cake__list_init(&first.link);
    cake__list_init(&middle.link);
    cake__list_push_front(&head, &first.link);
    cake__list_insert_before(&items[2].link, &middle.link);
    assert_holds(&head, "xabyc");
    cake__list_remove(&items[0].link);
    cake__list_remove(&items[0].link); /* a second time does nothing */
    assert_false(cake__list_is_linked(&items[0].link));
    assert_holds(&head, "xbyc");
    assert_ptr_equal(cake__list_pop_front(&head), &first.link);
    assert_holds(&head, "byc");
}

static void removing_all_while_going_through_leaves_it_empty(void **state)
{
    cake__list_t head;
    item_t items[4];
    size_t seen = 0;
    fill(&head, items, "abcd");
    CAKE_LIST_FOR_EACH_SAFE(node, &head)
    {
        cake__list_remove(node);
        seen++;
    }
    assert_int_equal(seen, 4);
    assert_true(cake__list_is_empty(&head));
    assert_null(cake__list_pop_front(&head));
}

static void a_splice_moves_everything(void **state)
{
    cake__list_t to, from;
    item_t left[2], right[2];
    fill(&to, left, "ab");
    fill(&from, right, "cd");
    cake__list_splice(&to, &from);
    assert_holds(&to, "abcd");
    assert_holds(&from, "");
    cake__list_splice(&to, &from);
    assert_holds(&to, "abcd");
    cake__list_splice(&from, &to);
    assert_holds(&from, "abcd");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_stay_in_the_order_of_insertion),
        cmocka_unit_test(removing_all_while_going_through_leaves_it_empty),
        cmocka_unit_test(a_splice_moves_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
