/* Ids and the keys that they hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <datacake/key.h>

#include "base/bytes.h"
#include "base/random.h"

static const char uuid[] = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";

/* *id is as it was when the answer is no. */
static bool is_held(const void *bytes, size_t len, cake_id_t *id)
{
    cake_id_t before;
    memset(id, 0xa5, sizeof *id);
    before = *id;
    bool held = cake_id_of_key(cake__slice(bytes, len), id);
    assert_int_equal(held, cake_id_holds_key(id) && memcmp(id, &before, sizeof before) != 0);
    assert_true(held || memcmp(id, &before, sizeof before) == 0);
    return held;
}

static void check_held(const void *bytes, size_t len)
{
    cake_id_t id;
    char room[CAKE_ID_KEY_MAX];
    assert_true(is_held(bytes, len, &id));
    cake_slice_t key = cake_id_key(&id, room);
    assert_int_equal(key.len, len);
    assert_memory_equal(key.data, bytes, len);
}

static void a_held_key_comes_back(void **state)
{
    uint8_t key[CAKE_ID_KEY_MAX];
    cake__random_t random;
    cake__random_init(&random, 7);
    for (int turn = 0; turn < 20000; turn++) {
        size_t len = 1 + (size_t)cake__random_below(&random, 17);
        for (size_t i = 0; i < len; i++)
            key[i] = (uint8_t)(cake__random_u64(&random) & (len > CAKE_ID_PLAIN_MAX ? 0x7f : 0xff));
        check_held(key, len);
    }
    check_held(uuid, 36);
    check_held("00000000-0000-4000-8000-000000000000", 36);
    check_held("ffffffff-ffff-7fff-bfff-ffffffffffff", 36);
}

/* What is on disks and on the wire. */
static void ids_have_their_form(void **state)
{
    static const struct {
        const char *key;
        uint8_t id[16];
    } cases[] = {
        {"k", {'k', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}},
        {"fifteen letters", {'f', 'i', 'f', 't', 'e', 'e', 'n', ' ', 'l', 'e', 't', 't', 'e', 'r', 's', 15}},
        {"\001\001\001\001\001\001\001\001\177\177\177\177\177\177\177\177",
         {0x81, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 16}},
        {"\001\001\001\001\001\001\001\001\001\001\001\001\001\001\001\001A",
         {0x81, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02, 0x81, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02, 'A', 17}},
        {uuid, {0xf8, 0x1d, 0x4f, 0xae, 0x7d, 0xec, 0x11, 0xd0, 0x65, 0x00, 0xa0, 0xc9, 0x1e, 0x6b, 0xf6, 0xa7}},
    };
    for (size_t i = 0; i < CAKE_COUNT_OF(cases); i++) {
        cake_id_t id;
        assert_true(is_held(cases[i].key, strlen(cases[i].key), &id));
        assert_memory_equal(id.bytes, cases[i].id, 16);
    }
}

static void other_keys_are_not_held(void **state)
{
    cake_id_t id;
    assert_false(is_held("", 0, &id));
    assert_false(is_held("sixteen letter\xc3\xa9", 16, &id));
    assert_false(is_held("\xc3\xa9 and 14 letters", 17, &id));
    assert_false(is_held("seventeen letter\x80", 17, &id));
    assert_false(is_held("eighteen character", 18, &id));
    assert_false(is_held("35 characters of text and no UUID..", 35, &id));
    assert_false(is_held("37 characters of text, and no UUID...", 37, &id));
}

static void texts_like_uuids_are_not_held(void **state)
{
    cake_id_t id;
    char text[36];
    for (size_t i = 0; i < 36; i++) {
        memcpy(text, uuid, 36);
        text[i] = uuid[i] == '-' ? '0' : 'g';
        assert_false(is_held(text, 36, &id));
        text[i] = uuid[i] == '-' ? '_' : 'A';
        assert_false(is_held(text, 36, &id));
    }
    static const char variants[] = "01234567cdef"; /* of others than RFC 9562 */
    for (size_t i = 0; variants[i] != '\0'; i++) {
        memcpy(text, uuid, 36);
        text[19] = variants[i];
        assert_false(is_held(text, 36, &id));
    }
}

/* Ids come from other machines, too. */
static void any_bytes_are_an_id(void **state)
{
    cake_id_t id;
    char room[CAKE_ID_KEY_MAX];
    for (unsigned last = 0; last < 256; last++) {
        memset(id.bytes, 0xff, 15);
        id.bytes[15] = (uint8_t)last;
        cake_slice_t key = cake_id_key(&id, room);
        assert_true(key.len <= CAKE_ID_KEY_MAX);
        assert_int_equal(key.len > 0, cake_id_holds_key(&id) && last != 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_held_key_comes_back),   cmocka_unit_test(ids_have_their_form),
        cmocka_unit_test(other_keys_are_not_held), cmocka_unit_test(texts_like_uuids_are_not_held),
        cmocka_unit_test(any_bytes_are_an_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
