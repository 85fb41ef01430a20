#include "storage/storage.h"

static int check_write(const cake_write_t *write)
{
    if (write->keyspace.len == 0 || write->keyspace.len > CAKE_KEYSPACE_NAME_MAX)
        return CAKE_EINVAL;
    if (write->kind == CAKE_WRITE_ERASE)
        return 0;
    if (write->kind != CAKE_WRITE_PUT && write->kind != CAKE_WRITE_TOMBSTONE)
        return CAKE_EINVAL;
    if (write->key.len > CAKE_KEY_MAX || write->value.len > CAKE__VALUE_HARD_MAX)
        return CAKE_ETOOBIG;
    cake_id_t id;
    bool belongs =
        cake_id_of_key(write->key, &id) ? memcmp(&id, &write->id, sizeof id) == 0 : !cake_id_holds_key(&write->id);
    return write->key.len > 0 && belongs ? 0 : CAKE_EINVAL;
}

int cake__batch_check(const cake_batch_t *batch, unsigned lanes)
{
    if (batch->lane >= lanes)
        return CAKE_EINVAL;
    for (size_t i = 0; i < batch->write_count; i++) {
        int err = check_write(&batch->writes[i]);
        if (err != 0)
            return err;
    }
    for (size_t i = 0; i < batch->meta_count; i++) {
        const cake_meta_write_t *meta = &batch->metas[i];
        if (meta->name.len == 0)
            return CAKE_EINVAL;
        if (meta->name.len > CAKE__META_NAME_MAX || meta->value.len > CAKE__VALUE_HARD_MAX)
            return CAKE_ETOOBIG;
    }
    return 0;
}

unsigned cake__lane_of(cake_slice_t keyspace, unsigned lanes)
{
    const uint8_t *bytes = keyspace.data;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < keyspace.len; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return (unsigned)(cake__mix64(hash) % lanes);
}
