/* version_test.h: files of LMDB as other versions and other programs make them. Include cmocka first. */
#ifndef CAKE_LMDB_VERSION_TEST_H
#define CAKE_LMDB_VERSION_TEST_H

#include "lmdb/lmdb.h"

static inline MDB_txn *version_begin(const char *dir, unsigned flags)
{
    MDB_env *env;
    MDB_txn *txn;
    char path[128];
    snprintf(path, sizeof path, "%s/lane-000.mdb", dir);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, CAKE__TABLES), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_NOSUBDIR | flags, 0666), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, flags, &txn), 0);
    return txn;
}

static inline void version_end(MDB_txn *txn)
{
    MDB_env *env = mdb_txn_env(txn);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

/* Puts a number into table "about", or drops the table. */
static inline void set_about(const char *dir, const char *name, uint32_t number, bool drop)
{
    MDB_txn *txn = version_begin(dir, 0);
    MDB_dbi table;
    assert_int_equal(mdb_dbi_open(txn, "about", 0, &table), 0);
    MDB_val key = cake__val(name, strlen(name)), value = cake__val(&number, sizeof number);
    assert_int_equal(drop ? mdb_drop(txn, table, 1) : mdb_put(txn, table, &key, &value, 0), 0);
    version_end(txn);
}

/* What the file says it is; it has the tables of that version. */
static inline unsigned version_of(const char *dir)
{
    MDB_txn *txn = version_begin(dir, MDB_RDONLY);
    MDB_dbi table;
    MDB_val key = cake__val("version", 7), value;
    uint32_t version;
    assert_int_equal(mdb_dbi_open(txn, "about", 0, &table), 0);
    assert_int_equal(mdb_get(txn, table, &key, &value), 0);
    memcpy(&version, value.mv_data, sizeof version);
    for (int i = 0; i < 2; i++)
        assert_int_equal(mdb_dbi_open(txn, i == 0 ? "late-0" : "late-1", MDB_INTEGERKEY, &table),
                         version == 1 ? MDB_NOTFOUND : 0);
    version_end(txn);
    return version;
}

/* The id that a key of more than 15 bytes had in version 2; any will do that no other key has. */
static inline void version_old_id(cake_slice_t key, uint8_t id[16])
{
    memcpy(id, key.data, 15);
    id[15] = 0xff;
}

/* A record with its id, and an entry in ids or, for every other one, in late-0. */
static inline void version_add_id(MDB_cursor *rows, MDB_val place, MDB_val record, uint64_t number)
{
    MDB_txn *txn = mdb_cursor_txn(rows);
    MDB_dbi table;
    uint8_t at[4 + CAKE_KEY_MAX], bytes[4096], entry[20 + CAKE_KEY_MAX];
    size_t key_len = place.mv_size - 4, len = record.mv_size + 16;
    bool is_late = number % 2 == 0;
    assert_true(len <= sizeof bytes);
    memcpy(at, place.mv_data, place.mv_size);
    memcpy(bytes, record.mv_data, 26);
    bytes[1] = 1;
    version_old_id(cake__slice(at + 4, key_len), bytes + 26);
    memcpy(bytes + 42, (uint8_t *)record.mv_data + 26, record.mv_size - 26);
    MDB_val key = cake__val(at, place.mv_size), value = cake__val(bytes, len);
    assert_int_equal(mdb_cursor_put(rows, &key, &value, MDB_CURRENT), 0);
    for (int i = 0; i < 4; i++)
        entry[i] = at[is_late ? 3 - i : i];
    memcpy(entry + 4, bytes + 26, 16);
    memcpy(entry + 20, at + 4, key_len);
    assert_int_equal(mdb_dbi_open(txn, is_late ? "late-0" : "ids", is_late ? MDB_INTEGERKEY : 0, &table), 0);
    key = is_late ? cake__val(&number, sizeof number) : cake__val(entry, 20);
    value = is_late ? cake__val(entry, 20 + key_len) : cake__val(entry + 20, key_len);
    assert_int_equal(mdb_put(txn, table, &key, &value, 0), 0);
}

/* Takes a file back to version 2: only keys of up to 15 bytes are held by their ids. Returns how many others there
 * are. */
static inline unsigned make_version_2(const char *dir)
{
    MDB_txn *txn = version_begin(dir, 0);
    MDB_dbi table;
    MDB_cursor *cursor;
    MDB_val key, record;
    cake_id_t id;
    unsigned count = 0;
    assert_int_equal(mdb_dbi_open(txn, "rows", 0, &table), 0);
    assert_int_equal(mdb_cursor_open(txn, table, &cursor), 0);
    while (mdb_cursor_get(cursor, &key, &record, MDB_NEXT) == 0) {
        cake_slice_t name = cake__slice((uint8_t *)key.mv_data + 4, key.mv_size - 4);
        if (name.len > CAKE_ID_PLAIN_MAX && cake_id_of_key(name, &id))
            version_add_id(cursor, key, record, 1000000 + count++);
    }
    mdb_cursor_close(cursor);
    version_end(txn);
    set_about(dir, "version", 2, false);
    return count;
}

/* Takes a file back to version 1: without late ids, all of them in their places. */
static inline void make_version_1(const char *dir)
{
    assert_true(make_version_2(dir) > 0);
    MDB_txn *txn = version_begin(dir, 0);
    MDB_dbi late, ids;
    assert_int_equal(mdb_dbi_open(txn, "ids", 0, &ids), 0);
    for (int i = 0; i < 2; i++) {
        MDB_cursor *cursor;
        MDB_val number, entry;
        assert_int_equal(mdb_dbi_open(txn, i == 0 ? "late-0" : "late-1", MDB_INTEGERKEY, &late), 0);
        assert_int_equal(mdb_cursor_open(txn, late, &cursor), 0);
        while (mdb_cursor_get(cursor, &number, &entry, MDB_NEXT) == 0) {
            const uint8_t *bytes = entry.mv_data;
            uint8_t place[20] = {bytes[3], bytes[2], bytes[1], bytes[0]};
            memcpy(place + 4, bytes + 4, 16);
            MDB_val id = cake__val(place, sizeof place), key = cake__val(bytes + 20, entry.mv_size - 20);
            assert_int_equal(mdb_put(txn, ids, &id, &key, 0), 0);
        }
        mdb_cursor_close(cursor);
        assert_int_equal(mdb_drop(txn, late, 1), 0);
    }
    version_end(txn);
    set_about(dir, "version", 1, false);
}

#endif
