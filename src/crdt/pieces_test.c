/* Pieces against an array of those that are out: none overlaps another, whatever fails, and memory goes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "crdt/pieces.h"

#define PIECE  ((size_t)1 << 16)
#define PIECES 1000u
#define ALONE  (CAKE__ALONE_BYTES / PIECE)
#define AREA   (CAKE__AREA_BYTES / PIECE)

typedef struct heap {
    size_t blocks, large; /* that are out; of them areas */
    bool refuses_large;
    uint32_t failures; /* one of that many calls fails; 0: none */
    cake__random_t random;
} heap_t;

static void *resize(void *ctx, void *block, size_t size)
{
    heap_t *heap = ctx;
    bool is_large = size >= CAKE__AREA_BYTES;
    if (size != 0 && ((heap->refuses_large && is_large) ||
                      (heap->failures != 0 && cake__random_below(&heap->random, heap->failures) == 0)))
        return NULL;
    heap->blocks += (block == NULL) - (size_t)(size == 0);
    heap->large += is_large;
    return cake__libc_alloc.resize(NULL, block, size);
}

typedef struct pieces {
    heap_t heap;
    cake_alloc_t alloc;
    cake__pieces_t taken_from;
    uint32_t *out[PIECES]; /* marked with its number at both ends */
    size_t count;
} pieces_t;

static bool take(pieces_t *pieces)
{
    uint32_t number = (uint32_t)pieces->count, *piece = cake__pieces_take(&pieces->taken_from, &pieces->alloc, PIECE);
    if (piece == NULL)
        return false;
    assert_int_equal((uintptr_t)piece % 8, 0);
    piece[0] = piece[PIECE / 4 - 1] = number;
    pieces->out[pieces->count++] = piece;
    return true;
}

static void give(pieces_t *pieces, size_t at)
{
    uint32_t *piece = pieces->out[at], *last = pieces->out[--pieces->count];
    assert_int_equal(piece[0], at);
    assert_int_equal(piece[PIECE / 4 - 1], at);
    cake__pieces_give(&pieces->taken_from, &pieces->alloc, piece);
    if (piece == last)
        return;
    pieces->out[at] = last;
    last[0] = last[PIECE / 4 - 1] = (uint32_t)at;
}

static void begin(pieces_t *pieces, uint64_t seed)
{
    memset(pieces, 0, sizeof *pieces);
    cake__random_init(&pieces->heap.random, seed);
    pieces->alloc = (cake_alloc_t){resize, &pieces->heap};
}

static void end(pieces_t *pieces)
{
    while (pieces->count > 0)
        give(pieces, pieces->count - 1);
    cake__pieces_give(&pieces->taken_from, &pieces->alloc, NULL);
    cake__pieces_free(&pieces->taken_from, &pieces->alloc);
    assert_int_equal(pieces->heap.blocks, 0);
}

static void test_pieces_do_not_overlap(void **state)
{
    (void)state;
    static pieces_t pieces;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        begin(&pieces, seed);
        pieces.heap.failures = seed % 2 == 0 ? 10 : 0;
        cake__random_t random;
        cake__random_init(&random, seed);
        for (uint32_t i = 0; i < 4000; i++) {
            bool grows = (i / 700) % 2 == 0;
            bool takes = cake__random_below(&random, 10) < (grows ? 9u : 2u);
            if (takes && pieces.count < PIECES)
                assert_true(take(&pieces) || pieces.heap.failures != 0);
            else if (pieces.count > 0)
                give(&pieces, (size_t)cake__random_below(&random, pieces.count));
        }
        end(&pieces);
    }
}

static void test_few_pieces_are_from_the_heap_and_many_from_areas(void **state)
{
    (void)state;
    static pieces_t pieces;
    begin(&pieces, 1);
    while (pieces.count < ALONE)
        assert_true(take(&pieces));
    assert_int_equal(pieces.heap.blocks, ALONE);
    assert_int_equal(pieces.heap.large, 0);
    while (pieces.count < ALONE + 3 * AREA)
        assert_true(take(&pieces));
    assert_int_equal(pieces.heap.large, 3);
    assert_int_equal(pieces.heap.blocks, ALONE + 3 + 2); /* and the list of areas with its head */
    end(&pieces);
}

static void test_areas_go_back_but_not_each_time(void **state)
{
    (void)state;
    static pieces_t pieces;
    begin(&pieces, 1);
    while (pieces.count < ALONE + 2 * AREA + 1)
        assert_true(take(&pieces));
    size_t blocks = pieces.heap.blocks;
    for (uint32_t i = 0; i < 10; i++) { /* at the border of the third area */
        give(&pieces, pieces.count - 1);
        assert_true(take(&pieces));
    }
    assert_int_equal(pieces.heap.large, 3);
    assert_int_equal(pieces.heap.blocks, blocks);
    while (pieces.count > ALONE + AREA / 4)
        give(&pieces, pieces.count - 1);
    assert_int_equal(pieces.heap.blocks, blocks - 2);
    while (pieces.count < ALONE + AREA)
        assert_true(take(&pieces));
    assert_int_equal(pieces.heap.large, 3);
    end(&pieces);
}

static void test_without_an_area_pieces_are_alone(void **state)
{
    (void)state;
    static pieces_t pieces;
    begin(&pieces, 1);
    pieces.heap.refuses_large = true;
    while (pieces.count < ALONE + 10)
        assert_true(take(&pieces));
    pieces.heap.failures = 1;
    assert_false(take(&pieces));
    pieces.heap.failures = 0;
    pieces.heap.refuses_large = false;
    assert_true(take(&pieces));
    assert_int_equal(pieces.heap.large, 1);
    end(&pieces);
}

static void test_the_heap_gives_large_pages(void **state)
{
    (void)state;
    void *begin = NULL, *block = cake__malloc_large(&cake__libc_alloc, CAKE_LARGE_PAGE, &begin);
    assert_non_null(block);
    assert_int_equal((uintptr_t)begin % 64, 0);
    memset(begin, 1, CAKE_LARGE_PAGE);
    cake__free(&cake__libc_alloc, block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_do_not_overlap),
        cmocka_unit_test(test_few_pieces_are_from_the_heap_and_many_from_areas),
        cmocka_unit_test(test_areas_go_back_but_not_each_time),
        cmocka_unit_test(test_without_an_area_pieces_are_alone),
        cmocka_unit_test(test_the_heap_gives_large_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
