/* Keyspaces: made on first use, loaded at the start, and what they add to the store's digest. */
#include <openssl/evp.h>

#include "store/store.h"

#define KEYSPACE_META "ks/"
#define RETIRED_META  "retired/"

int cake__key_id(cake_slice_t key, cake_id_t *out)
{
    memset(out, 0, sizeof *out);
    if (key.len == 0 || key.len > CAKE_KEY_MAX)
        return CAKE_EINVAL;
    if (cake_id_of_key(key, out))
        return 0;
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (EVP_Digest(key.data, key.len, digest, &len, EVP_blake2s256(), NULL) != 1 || len < 15)
        return CAKE_EINTERNAL;
    memcpy(out->bytes, digest, 15);
    out->bytes[15] = 0xff;
    return 0;
}

/* ---- making and freeing -------------------------------------------------------------------------------------------*/

static int make_set(cake__keyspace_t *keyspace)
{
    cake_store_t *store = keyspace->store;
    cake_orswot_config_t config = CAKE_ORSWOT_CONFIG_INIT;
    config.alloc = store->alloc;
    config.clock = cake_node_clock(store->node);
    config.actor = store->actor;
    config.is_joined = store->is_joined;
    return cake_orswot_new(&config, &keyspace->set);
}

static int make_keyspace(cake_store_t *store, cake_slice_t name, cake__keyspace_t **out)
{
    if (store->keyspaces.count >= CAKE__KEYSPACES_MAX)
        return CAKE_ETOOBIG;
    cake__keyspace_t *keyspace = cake__calloc(store->alloc, 1, sizeof *keyspace + name.len + 1);
    if (keyspace == NULL)
        return CAKE_ENOMEM;
    keyspace->store = store;
    keyspace->chunk_limit = store->options.chunk_records;
    keyspace->name = (char *)(keyspace + 1);
    memcpy(keyspace->name, name.data, name.len);
    keyspace->name_hash = cake__hash_bytes(name.data, name.len);
    cake__list_init(&keyspace->changed_link);
    cake__list_init(&keyspace->tombstone_link);
    cake__list_init(&keyspace->wanting_link);
    cake__list_init(&keyspace->crowded_link);
    keyspace->actor = store->actor;
    cake__list_init(&keyspace->writes);
    cake__list_init(&keyspace->watches);
    int err = make_set(keyspace);
    if (err == 0)
        err = cake__map_put(&store->keyspaces, cake__slice(keyspace->name, name.len), keyspace);
    if (err != 0) {
        cake_orswot_free(keyspace->set);
        cake__free(store->alloc, keyspace);
        return err;
    }
    *out = keyspace;
    return 0;
}

int cake__keyspace_find(cake_store_t *store, cake_slice_t name, bool may_create, cake__keyspace_t **out)
{
    if (!cake__is_name(name, CAKE_KEYSPACE_NAME_MAX))
        return CAKE_EINVAL;
    *out = cake__map_get(&store->keyspaces, name);
    if (*out != NULL)
        return 0;
    if (!may_create)
        return CAKE_ENOTFOUND;
    int err = make_keyspace(store, name, out);
    if (err == 0)
        (*out)->lane = &store->lanes[store->storage->ops->lane_of(store->storage, name)];
    return err;
}

void cake__keyspace_free(cake__keyspace_t *keyspace)
{
    cake_store_t *store = keyspace->store;
    CAKE_ASSERT(keyspace->change == NULL && keyspace->pull == NULL);
    cake__keyspace_watches_free(keyspace);
    for (uint32_t i = 0; i < keyspace->acked_count; i++)
        cake__context_free(&keyspace->acked[i].context);
    for (uint32_t i = 0; i < keyspace->want_count; i++)
        cake__context_free(&keyspace->wants[i].context);
    cake__retired_release(keyspace->loaded_table);
    cake__free(store->alloc, keyspace->acked);
    cake__free(store->alloc, keyspace->wants);
    cake_orswot_free(keyspace->set);
    cake__free(store->alloc, keyspace);
}

/* ---- digest -------------------------------------------------------------------------------------------------------*/

static uint64_t digest_part(const cake__keyspace_t *keyspace)
{
    uint64_t hash = cake__context_hash(&cake__orswot_summary(keyspace->set)->context);
    return hash == 0 ? 0 : cake__mix64(keyspace->name_hash ^ hash);
}

void cake__keyspace_committed(cake__keyspace_t *keyspace)
{
    cake_store_t *store = keyspace->store;
    uint64_t part = digest_part(keyspace);
    if (part != keyspace->digest_part) {
        store->digest += part - keyspace->digest_part;
        keyspace->digest_part = part;
        keyspace->changed_version = ++store->version;
        cake__list_remove(&keyspace->changed_link);
        cake__list_push_back(&store->changed, &keyspace->changed_link);
    }
    const cake__context_t *context = cake__keyspace_context(keyspace);
    keyspace->stored_table = context->retired == NULL ? 0 : context->retired->hash;
    bool is_crowded = context->count > CAKE__CROWDED_ACTORS + store->peer_count;
    if (is_crowded && !cake__list_is_linked(&keyspace->crowded_link))
        cake__list_push_back(&store->crowded, &keyspace->crowded_link);
    else if (!is_crowded)
        cake__list_remove(&keyspace->crowded_link);
    bool has_tombstones = cake_orswot_tombstones(keyspace->set) > 0;
    if (has_tombstones && !cake__list_is_linked(&keyspace->tombstone_link))
        cake__list_push_back(&store->with_tombstones, &keyspace->tombstone_link);
    else if (!has_tombstones)
        cake__list_remove(&keyspace->tombstone_link);
}

/* ---- what peers have acknowledged ---------------------------------------------------------------------------------*/

cake__acked_t *cake__keyspace_acked(cake__keyspace_t *keyspace, uint16_t node_id, bool may_create)
{
    for (uint32_t i = 0; i < keyspace->acked_count; i++) {
        if (keyspace->acked[i].node_id == node_id)
            return &keyspace->acked[i];
    }
    if (!may_create)
        return NULL;
    cake__acked_t *acked =
        cake__realloc(keyspace->store->alloc, keyspace->acked, (keyspace->acked_count + 1) * sizeof *acked);
    if (acked == NULL)
        return NULL;
    keyspace->acked = acked;
    acked = &keyspace->acked[keyspace->acked_count++];
    *acked = (cake__acked_t){.node_id = node_id};
    cake__context_init(&acked->context, keyspace->store->alloc);
    return acked;
}

void cake__keyspace_forget_acked(cake__keyspace_t *keyspace, uint16_t node_id)
{
    cake__acked_t *acked = cake__keyspace_acked(keyspace, node_id, false);
    if (acked == NULL)
        return;
    cake__context_free(&acked->context);
    *acked = keyspace->acked[--keyspace->acked_count];
}

/* ---- persistence ----------------------------------------------------------------------------------------------------
 * Meta "ks/NAME": one byte, whether it has joined, then the summary as it will be after the change under way. Every
 * batch writes it, and so the table of retired actors is apart, in "retired/NAME", and named by its hash. */

static const cake__retired_t *next_table(const cake__keyspace_t *keyspace)
{
    return cake__change_summary(keyspace->change)->context.retired;
}

void cake__keyspace_meta(cake__keyspace_t *keyspace, cake__buf_t *out, size_t *name_len)
{
    size_t start = out->len;
    bool is_joined = cake__orswot_is_joined(keyspace->set) || cake__change_joins(keyspace->change);
    cake__put_bytes(out, KEYSPACE_META, strlen(KEYSPACE_META));
    cake__put_bytes(out, keyspace->name, strlen(keyspace->name));
    *name_len = out->len - start;
    cake__put_u8(out, is_joined);
    const cake__retired_t *table = next_table(keyspace);
    cake__summary_encode_known(cake__change_summary(keyspace->change), table == NULL ? 0 : table->hash, out);
}

void cake__keyspace_retired_meta(cake__keyspace_t *keyspace, cake__buf_t *out, size_t *name_len)
{
    const cake__retired_t *table = next_table(keyspace);
    if (table == NULL || table->hash == keyspace->stored_table)
        return;
    cake__put_bytes(out, RETIRED_META, strlen(RETIRED_META));
    cake__put_bytes(out, keyspace->name, strlen(keyspace->name));
    *name_len = strlen(RETIRED_META) + strlen(keyspace->name);
    cake__retired_encode(table, out);
}

typedef struct {
    cake_store_t *store;
    cake__keyspace_t *keyspace;
    int err; /* what stopped the scan, where the storage passes on only that it was stopped */
} loading_t;

static int found_name(loading_t *loading, cake_slice_t name)
{
    cake__keyspace_t *keyspace;
    if (!cake__is_name(name, CAKE_KEYSPACE_NAME_MAX))
        return loading->err = CAKE_ECORRUPT;
    if (cake__map_get(&loading->store->keyspaces, name) != NULL)
        return 0;
    return loading->err = make_keyspace(loading->store, name, &keyspace);
}

static int on_name(void *arg, const char *name)
{
    return found_name(arg, cake__slice_str(name));
}

static cake_slice_t meta_keyspace(cake_slice_t name, const char *of)
{
    size_t prefix = strlen(of);
    return cake__slice((const char *)name.data + prefix, name.len - prefix);
}

static int on_meta_name(void *arg, cake_slice_t name, cake_slice_t value)
{
    (void)value;
    return found_name(arg, meta_keyspace(name, KEYSPACE_META));
}

static int on_row(void *arg, const cake_row_t *row)
{
    loading_t *loading = arg;
    cake_record_t record = {row->id, row->hlc, row->dot, row->is_tombstone};
    return loading->err = cake__orswot_load_record(loading->keyspace->set, &record);
}

/* Before the summaries, which name it by its hash. */
static int on_retired(void *arg, cake_slice_t name, cake_slice_t value)
{
    loading_t *loading = arg;
    cake__keyspace_t *keyspace = cake__map_get(&loading->store->keyspaces, meta_keyspace(name, RETIRED_META));
    cake__reader_t reader = cake__reader(value.data, value.len);
    int err = keyspace == NULL || keyspace->loaded_table != NULL
                  ? CAKE_ECORRUPT
                  : cake__retired_decode(loading->store->alloc, &reader, &keyspace->loaded_table);
    if (err == 0 && !cake__reader_done(&reader))
        err = CAKE_ECORRUPT;
    return loading->err = err == CAKE_EPARSE || err == CAKE_ETOOBIG ? CAKE_ECORRUPT : err;
}

static int on_meta(void *arg, cake_slice_t name, cake_slice_t value)
{
    loading_t *loading = arg;
    cake__keyspace_t *keyspace = cake__map_get(&loading->store->keyspaces, meta_keyspace(name, KEYSPACE_META));
    cake__reader_t reader = cake__reader(value.data, value.len);
    cake__summary_t summary;
    cake__summary_init(&summary, loading->store->alloc);
    uint8_t is_joined = cake__get_u8(&reader);
    int err = is_joined > 1 || keyspace == NULL ? CAKE_ECORRUPT : cake__summary_decode(&summary, &reader);
    if (err == 0 && !cake__reader_done(&reader))
        err = CAKE_ECORRUPT;
    if (err == 0 && cake__context_resolve(&summary.context, keyspace->loaded_table) != 0)
        err = CAKE_ECORRUPT;
    if (err == 0)
        err = cake__orswot_load_summary(keyspace->set, &summary);
    if (err == 0)
        cake__orswot_set_joined(keyspace->set, is_joined == 1 || loading->store->is_joined);
    cake__summary_free(&summary);
    return loading->err = err == CAKE_EPARSE || err == CAKE_ETOOBIG ? CAKE_ECORRUPT : err;
}

int cake__keyspaces_load(cake_store_t *store)
{
    cake_storage_t *storage = store->storage;
    loading_t loading = {.store = store};
    int err = storage->ops->keyspaces(storage, on_name, &loading);
    for (unsigned lane = 0; err == 0 && lane < store->lane_count; lane++)
        err = storage->ops->metas(storage, lane, cake__slice_str(KEYSPACE_META), on_meta_name, &loading);
    size_t cursor = 0;
    while (err == 0 && (loading.keyspace = cake__map_next(&store->keyspaces, &cursor)) != NULL) {
        cake_slice_t name = cake__slice_str(loading.keyspace->name);
        loading.keyspace->lane = &store->lanes[storage->ops->lane_of(storage, name)];
        err = storage->ops->metadata(storage, name, on_row, &loading);
    }
    for (unsigned lane = 0; err == 0 && lane < store->lane_count; lane++)
        err = storage->ops->metas(storage, lane, cake__slice_str(RETIRED_META), on_retired, &loading);
    for (unsigned lane = 0; err == 0 && lane < store->lane_count; lane++)
        err = storage->ops->metas(storage, lane, cake__slice_str(KEYSPACE_META), on_meta, &loading);
    cursor = 0;
    while (err == 0 && (loading.keyspace = cake__map_next(&store->keyspaces, &cursor)) != NULL) {
        cake__retired_release(loading.keyspace->loaded_table);
        loading.keyspace->loaded_table = NULL;
        cake__keyspace_committed(loading.keyspace);
    }
    return loading.err != 0 ? loading.err : err;
}
