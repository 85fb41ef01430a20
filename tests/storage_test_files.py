"""What the files of a node hold, read without Datacake, in the words of docs/storage.md: to compare a set with what it was made from."""
import ctypes
import ctypes.util
import sqlite3

MASK = (1 << 64) - 1
LIBRARY = ctypes.util.find_library("lmdb")


class Row:
    def __init__(self, key, identity, actor, seq, is_tombstone):
        self.is_tombstone = is_tombstone
        self.id = identity if len(key) > 15 else key.ljust(15, b"\0") + bytes([len(key)])
        self.actor, self.seq = actor & MASK, seq & MASK


def rows_of(directory, storage):
    """name of a keyspace -> its rows, from all lanes; None where this machine has nothing to read them with."""
    if storage == "lmdb" and LIBRARY is None:
        return None
    read, suffix = (read_lmdb, "mdb") if storage == "lmdb" else (read_sqlite, "sqlite")
    keyspaces = {}
    for path in sorted(directory.glob(f"lane-*.{suffix}")):
        keyspaces.update(read(path))
    return keyspaces


def read_sqlite(path):
    keyspaces = {}
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        for name, key, *rest in database.execute("SELECT k.name, key, id, actor, seq, value IS NULL FROM keyspaces k"
                                                 " JOIN documents d ON d.keyspace = k.number"):
            keyspaces.setdefault(name, []).append(Row(key, *rest))
    database.close()
    return keyspaces


# ---- LMDB -------------------------------------------------------------------------------------------------------------

NO_SUBDIRECTORY, READ_ONLY, NO_TLS, NEXT = 0x4000, 0x20000, 0x200000, 8


class Value(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("data", ctypes.c_void_p)]

    def bytes(self):
        return ctypes.string_at(self.data, self.size)


def call(library, name, *arguments):
    code = getattr(library, name)(*arguments)
    assert code == 0, (name, code)


def each(library, transaction, table):
    dbi, cursor, key, value = ctypes.c_uint(), ctypes.c_void_p(), Value(), Value()
    call(library, "mdb_dbi_open", transaction, table, 0, ctypes.byref(dbi))
    call(library, "mdb_cursor_open", transaction, dbi, ctypes.byref(cursor))
    while library.mdb_cursor_get(cursor, ctypes.byref(key), ctypes.byref(value), NEXT) == 0:
        yield key.bytes(), value.bytes()
    library.mdb_cursor_close(cursor)


def read_lmdb(path):
    library = ctypes.CDLL(LIBRARY)
    environment, transaction = ctypes.c_void_p(), ctypes.c_void_p()
    call(library, "mdb_env_create", ctypes.byref(environment))
    try:
        call(library, "mdb_env_set_maxdbs", environment, 8)
        call(library, "mdb_env_open", environment, str(path).encode(), NO_SUBDIRECTORY | READ_ONLY | NO_TLS, 0)
        call(library, "mdb_txn_begin", environment, None, READ_ONLY, ctypes.byref(transaction))
        names = {int.from_bytes(number, "little"): name.decode() for name, number in each(library, transaction, b"names")}
        keyspaces = {}
        for key, record in each(library, transaction, b"rows"):
            actor, seq = (int.from_bytes(record[at:at + 8], "little") for at in (10, 18))
            row = Row(key[4:], record[26:42] if record[1] & 1 else None, actor, seq, record[0] != 0)
            keyspaces.setdefault(names[int.from_bytes(key[:4], "big")], []).append(row)
        return keyspaces
    finally:
        if transaction:
            library.mdb_txn_abort(transaction)
        library.mdb_env_close(environment)


# ---- fingerprints -------------------------------------------------------------------------------------------------------

def fold(a, b):
    product = a * b
    return (product ^ product >> 64) & MASK


def mix(x):
    for factor in (0xff51afd7ed558ccd, 0xc4ceb9fe1a85ec53):
        x = ((x ^ x >> 33) * factor) & MASK
    return x ^ x >> 33


def fingerprint(rows):
    """What a set with these documents says of itself: it tells every id and every dot."""
    total = 0
    for row in rows:
        low, high = (int.from_bytes(row.id[at:at + 8], "little") for at in (0, 8))
        x = fold(low ^ 0x8ebc6af09c88c6e3, high ^ 0x589965cc75374cc3)
        y = fold(row.actor ^ 0x1d8e4e27c47d124f, row.seq ^ 0xeb44accab455d165)
        total += mix((x + (y << 32 | y >> 32)) & MASK) if not row.is_tombstone else 0
    return f"{total & MASK:016x}"
