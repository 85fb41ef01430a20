/* Loading a saved set: any bytes. What loads must be whole, and is written again as it was read. */
#include <stdlib.h>
#include <string.h>

#include "crdt/set.h"

typedef struct tape {
    const uint8_t *data;
    size_t len, at;
} tape_t;

static int read_tape(void *ctx, void *data, size_t len)
{
    tape_t *tape = ctx;
    size_t part = tape->len - tape->at < len ? tape->len - tape->at : len;
    memcpy(data, tape->data + tape->at, part);
    tape->at += part;
    return (int)part;
}

static int compare_with_tape(void *ctx, const void *data, size_t len)
{
    tape_t *tape = ctx;
    CAKE_ASSERT(tape->at + len <= tape->len && memcmp(tape->data + tape->at, data, len) == 0);
    tape->at += len;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tape_t tape = {data, size, 0};
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    cake_orswot_t *set;
    config.actor = 1;
    if (cake_orswot_load(&config, read_tape, &tape, &set) != 0)
        return 0;
    cake__table_check(&set->table);
    tape.at = 0;
    CAKE_ASSERT(cake_orswot_save(set, compare_with_tape, &tape) == 0);
    cake_orswot_free(set);
    return 0;
}
