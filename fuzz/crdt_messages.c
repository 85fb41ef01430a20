/* Every message of a session, decoded from any bytes; what decodes is encoded again as it was. Then the bytes as
 * requests and replies of a session of the set alone, which may be a repair by ranges: the sets must stay whole. The
 * first byte chooses. */
#include "crdt/set.h"

static void check_same(const cake__buf_t *buf, const uint8_t *data, size_t len)
{
    CAKE_ASSERT(buf->err == 0 && buf->len == len && (len == 0 || memcmp(buf->data, data, len) == 0));
}

#define ROUND_TRIP(type, free_call)                                                                                    \
    do {                                                                                                               \
        cake__##type##_t message;                                                                                      \
        if (cake__##type##_decode(&message, alloc, &reader) == 0) {                                                    \
            cake__##type##_encode(&message, &buf);                                                                     \
            check_same(&buf, data, (size_t)(reader.at - data));                                                        \
            free_call;                                                                                                 \
        }                                                                                                              \
    } while (0)

static void decode(uint8_t kind, const uint8_t *data, size_t size)
{
    const cake_alloc_t *alloc = &cake__libc_alloc;
    cake__reader_t reader = cake__reader(data, size);
    cake__buf_t buf;
    cake__buf_init(&buf, alloc);
    switch (kind % 5) {
    case 0:
        ROUND_TRIP(hello, cake__hello_free(&message));
        break;
    case 1:
        ROUND_TRIP(welcome, cake__welcome_free(&message));
        break;
    case 2:
        ROUND_TRIP(fin, cake__fin_free(&message));
        break;
    case 3:
        ROUND_TRIP(compare, cake__compare_free(&message, alloc));
        break;
    default:
        ROUND_TRIP(compared, cake__compared_free(&message, alloc));
        break;
    }
    cake__buf_free(&buf);
}

static cake_orswot_t *some_set(uint64_t actor, bool is_folded)
{
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set;
    config.actor = actor;
    CAKE_ASSERT(cake_orswot_new(&config, &set) == 0);
    for (uint64_t key = 0; key < 9; key++) {
        cake_id_t id = cake_id_of_u64(key);
        (void)cake_orswot_insert(set, 1000, &id, NULL);
        if (key % 3 == 0)
            (void)cake_orswot_delete(set, 1000, &id, NULL);
    }
    (void)cake_orswot_purge(set, 2000, NULL, 0, 0, 0, actor, NULL);
    cake__orswot_take_actor(set, actor + 10);
    size_t retired;
    if (is_folded)
        (void)cake_orswot_retire(set, NULL, 0, NULL, 0, &retired);
    set->repair = (cake__repair_limits_t){.leaf_records = 1, .step_records = 4, .step_drops = 1};
    return set;
}

/* Messages of any bytes: each is a length byte and that many. */
static void converse(const uint8_t *data, size_t size)
{
    cake_orswot_t *a = some_set(1, size > 0 && data[0] % 4 > 1), *b = some_set(2, size > 0 && data[0] % 8 > 3);
    cake_pull_t *pull;
    cake_answer_t *answer;
    cake_slice_t slice, reply;
    CAKE_ASSERT(cake_pull_new(a, 5, &pull) == 0 && cake_answer_new(b, 7, &answer) == 0);
    bool has_request = cake_pull_next(pull, &slice) > 0;
    /* An honest beginning of as many rounds as the first byte says. */
    for (unsigned i = 0; size > 0 && i < data[0] % 8u && has_request; i++) {
        if (cake_answer_next(answer, slice, &reply) == 0)
            (void)cake_pull_take(pull, 1000, reply);
        has_request = cake_pull_next(pull, &slice) > 0;
    }
    while (size > 1) {
        size_t len = data[0] < size - 1 ? data[0] : size - 1;
        if (data[1] == 'H' || data[1] == 'N' || data[1] == 'C')
            (void)cake_answer_next(answer, cake__slice(data + 1, len), &reply);
        else
            (void)cake_pull_take(pull, 1000, cake__slice(data + 1, len));
        (void)cake_pull_step(pull);
        (void)cake_answer_step(answer);
        (void)cake_pull_next(pull, &slice);
        data += len + 1;
        size -= len + 1;
    }
    cake__table_check(&a->table);
    cake__table_check(&b->table);
    cake_pull_free(pull);
    cake_answer_free(answer);
    cake_orswot_free(a);
    cake_orswot_free(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] < 128)
        decode(data[0], data + 1, size - 1);
    else
        converse(data + 1, size - 1);
    return 0;
}
