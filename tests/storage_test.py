#!/usr/bin/env python3
"""What nodes keep: full disks, kills under load, backups, the files in the sqlite3 shell. Usage: storage_test.py BIN_DIR [NAME...]

CAKE_TEST_KILLS says how often a node of each storage is killed (3)."""
import base64
import http.client
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time

from processes import PATIENCE_S, Node, main, refused, run, wait_for
from storage_test_files import fingerprint, rows_of

STORAGES = ("sqlite", "lmdb")
KILLS = int(os.environ.get("CAKE_TEST_KILLS", 3))


# ---- a full disk ----------------------------------------------------------------------------------------------------

class SmallDisk:
    """A tmpfs at a node's directory. None where the test may not mount."""

    def __init__(self, path, mib):
        path.mkdir(parents=True)
        self.path = path
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(path)], capture_output=True)
        self.is_there = done.returncode == 0

    def fill(self):
        with open(self.path / "ballast", "ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(65536))
            except OSError:
                pass

    def make_room(self):
        (self.path / "ballast").unlink()

    def end(self):
        if self.is_there:
            subprocess.run(["umount", "-l", str(self.path)], check=True)


def put_until_full(node, stored, prefix):
    for i in range(5000):
        key, value = f"{prefix}-{i}", os.urandom(8000)
        answer = node.put("docs", key, value)
        if answer.status != 200:
            assert (answer.status, answer.code) == (507, "storage_full"), answer.body
            return
        stored[key] = value
    raise AssertionError("the disk never was full")


def check_all(node, stored):
    for key, value in stored.items():
        answer = node.get("docs", key)
        assert (answer.status, answer.body == value) == (200, True), (key, answer.status)
    listed = node.ask("GET", "/kv/docs?limit=10000").body.decode().splitlines()
    assert len(listed) == len(stored), (len(listed), len(stored))


def delete_some(node, stored):
    """On a full disk deletes go through."""
    for key in list(stored)[:20]:
        assert node.delete("docs", key).status == 200, key
        del stored[key]
    check_all(node, stored)
    assert node.is_ready()


def fill_disk(node, disk, stored, prefix, leave=None):
    """Reads and deletes go on, also when the node is started again there. leave: how it ends."""
    disk.fill()
    put_until_full(node, stored, prefix)
    check_all(node, stored)
    if leave is not None:
        leave()
        disk.fill()
        node.start()
        check_all(node, stored)
        assert node.put("docs", "too-large-for-any-gap", bytes(1 << 20)).status == 507
    delete_some(node, stored)  # the room they make is not what puts wait for
    if leave is not None:
        leave()
        node.start()
        check_all(node, stored)
        delete_some(node, stored)
    disk.make_room()
    stored[f"after-{prefix}"] = b"there is room again"
    assert node.put("docs", f"after-{prefix}", stored[f"after-{prefix}"]).status == 200
    check_all(node, stored)


def full_disk(cluster, storage):
    disk = SmallDisk(cluster.dir / "node-1", 48)
    if not disk.is_there:
        print(f"skipped: {storage}: a tmpfs cannot be mounted here")
        return
    try:
        node, stored = cluster.add("--storage", storage), {}
        for i in range(50):
            stored[f"first-{i}"] = os.urandom(4000)
            assert node.put("docs", f"first-{i}", stored[f"first-{i}"]).status == 200
        fill_disk(node, disk, stored, "runs")
        fill_disk(node, disk, stored, "is-killed", node.kill)
        fill_disk(node, disk, stored, "ends", node.stop)
        node.kill()
        node.start()
        check_all(node, stored)
        node.stop()
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.abandon()
        disk.end()


def delete_all_and_put(cluster, storage, size):
    """Values of `size` until the disk is full. All can be deleted, and their room is used again, without any other."""
    disk = SmallDisk(cluster.dir / "node-1", 64)
    if not disk.is_there:
        print(f"skipped: {storage}: a tmpfs cannot be mounted here")
        return
    try:
        node, count = cluster.add("--storage", storage), 0
        while node.put("docs", f"old-{count}", os.urandom(size)).status == 200:
            count += 1
        for i in range(count):
            answer = node.delete("docs", f"old-{i}")
            assert answer.status == 200, (i, count, answer.body)
        for i in range(count // 2):
            answer = node.put("docs", f"new-{i}", os.urandom(size))
            assert answer.status == 200, (i, count, answer.body)
        node.stop()
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.abandon()
        disk.end()


def test_a_full_disk_is_emptied_sqlite(cluster):
    delete_all_and_put(cluster, "sqlite", 100000)


def test_large_values_on_a_full_disk_sqlite(cluster):
    delete_all_and_put(cluster, "sqlite", 1000000)


def test_a_full_disk_is_emptied_lmdb(cluster):
    delete_all_and_put(cluster, "lmdb", 100000)


def test_a_full_disk_sqlite(cluster):
    full_disk(cluster, "sqlite")


def test_a_full_disk_lmdb(cluster):
    full_disk(cluster, "lmdb")


# ---- kills under load -----------------------------------------------------------------------------------------------

class Writer(threading.Thread):
    """Puts and deletes of keys of its own, until the node is gone or it is to end. expected: what was acknowledged, None for a
    delete; doubt: the last write, of which it never heard; count: of all that were acknowledged."""

    def __init__(self, node, number, expected):
        super().__init__()
        self.node, self.keyspace, self.number, self.expected = node, f"k{number % 3}", number, expected
        self.doubt, self.count, self.is_to_end, self.problem = {}, 0, False, None
        self.random = random.Random(time.monotonic_ns() + number)

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.node.http, timeout=PATIENCE_S)
        try:
            while not self.is_to_end:
                self.write(connection)
        except (OSError, http.client.HTTPException):
            pass
        except AssertionError as problem:
            self.problem = problem
        finally:
            connection.close()

    def write(self, connection):
        long_key = "-with-a-long-key,-known-inside-by-its-digest" if self.random.random() < 0.5 else ""
        key = f"{self.number}-{self.random.randrange(100)}{long_key}"
        value = None if self.random.random() < 0.2 else self.random.randbytes(self.random.randrange(1, 2000))
        self.doubt = {key: value}
        connection.request("DELETE" if value is None else "PUT", f"/kv/{self.keyspace}/{key}", value)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        self.expected[key] = value
        self.doubt = {}
        self.count += 1

    def end(self):
        self.is_to_end = True
        self.join()

    def check(self, found):
        """Every acknowledged write is there, and of the last one all or nothing. found: the keyspace."""
        assert self.problem is None, self.problem
        for key, value in {**self.expected, **self.doubt}.items():
            allowed = [self.expected.get(key)] + ([self.doubt[key]] if key in self.doubt else [])
            assert found.get(key) in allowed, (key, found.get(key), allowed)
            self.expected[key] = found.get(key)


def documents(node, keyspace):
    lines = node.ask("GET", f"/kv/{keyspace}?limit=100000&values=1").body.splitlines()
    found = {}
    for line in map(json.loads, lines):
        value = line["value"]
        found[line["key"]] = base64.b64decode(value["base64"]) if isinstance(value, dict) else value.encode()
    return found


def about_sets(node):
    return {one["name"]: one for one in node.ask("GET", "/kv").json()["keyspaces"]}


def check_set_and_storage(node, storage):
    """The set has what is in the files, dot by dot, and nothing else. Tombstones go while we look."""
    def are_equal():
        stored = rows_of(node.dir / "data" / "store", storage)
        if stored is None:
            return True
        sets = {name: (one["live"], one["tombstones"], one["fingerprint"]) for name, one in about_sets(node).items()}
        counted = {}
        for name, rows in stored.items():
            dead = sum(row.is_tombstone for row in rows)
            counted[name] = (len(rows) - dead, dead, fingerprint(rows))
        return all(sets.get(name, (0, 0, fingerprint([]))) == counted.get(name, (0, 0, fingerprint([])))
                   for name in {*sets, *counted})
    wait_for("set and storage are equal", are_equal)


def check_after_kill(node, storage, writers):
    keyspaces = {writer.keyspace: documents(node, writer.keyspace) for writer in writers}
    for writer in writers:
        writer.check(keyspaces[writer.keyspace])
        key = random.choice([*writer.expected, "never-written"])
        answer = node.get(writer.keyspace, key)
        assert (answer.body if answer.status == 200 else None) == writer.expected.get(key), key
    # Nothing came back, and what the set counts is what the storage lists.
    for name, found in keyspaces.items():
        expected = [one.expected for one in writers if one.keyspace == name]
        assert len(found) == sum(value is not None for one in expected for value in one.values()), name
    sets = about_sets(node)
    assert all(sets.get(name, {"live": 0})["live"] == len(found) for name, found in keyspaces.items()), sets
    check_set_and_storage(node, storage)


def kill_once(node, turn, expected):
    """A node in the midst of its work; now and then while it starts, and once its writers have ended: then the set that grew with
    the writes has to be the one that is made from the files."""
    writers, sets = [Writer(node, i, one) for i, one in enumerate(expected)], None
    for writer in writers:
        writer.start()
    time.sleep(random.random() * 0.15)
    if turn % 10 == 9:
        for writer in writers:
            writer.end()
        sets = {name: (one["live"], one["fingerprint"]) for name, one in about_sets(node).items()}
    node.kill()
    for writer in writers:
        writer.join()
    if turn % 10 == 4:
        node.start(wait=False)
        time.sleep(random.random() * 0.04)
        node.kill()
    node.start()
    if sets is not None:
        again = about_sets(node)
        assert {name: (again[name]["live"], again[name]["fingerprint"]) for name in sets} == sets, (sets, again)
    return writers


def kills(cluster, storage):
    node = cluster.add("--storage", storage, "--lanes", "2")
    expected = [{} for _ in range(8)]
    began, acknowledged = time.monotonic(), 0
    for turn in range(KILLS):
        writers = kill_once(node, turn, expected)
        check_after_kill(node, storage, writers)
        acknowledged += sum(writer.count for writer in writers)
        if turn % 100 == 99:
            check_files(node, storage)
            print(f"{storage}: {turn + 1} kills in {time.monotonic() - began:.0f} s, {acknowledged} writes acknowledged, none lost", flush=True)
    node.stop()
    check_files(node, storage)
    print(f"{storage}: {KILLS} kills in {time.monotonic() - began:.0f} s, {acknowledged} writes acknowledged, none lost", flush=True)


def check_files(node, storage):
    """A backup checks what it copies."""
    copy = node.dir / "checked"
    result = run("backup", "--data-dir", str(node.dir / "data"), str(copy))
    assert result.status == 0 and b"checked" in result.out, result.err
    shutil.rmtree(copy)


def test_kills_under_load_sqlite(cluster):
    kills(cluster, "sqlite")


def test_kills_under_load_lmdb(cluster):
    kills(cluster, "lmdb")


# ---- backup and restore -----------------------------------------------------------------------------------------------

def actors_since(node):
    found = []
    for path in (node.dir / "data" / "store").glob("lane-*.sqlite"):
        rows = ask_shell(str(path), "SELECT DISTINCT actor FROM documents WHERE CAST(key AS TEXT) LIKE 'since-%'")
        found += [row["actor"] for row in rows]
    return found


def backups(cluster, storage):
    node = cluster.add("--storage", storage, "--lanes", "2")
    stored = {f"key-{i}": os.urandom(500) for i in range(200)}
    for key, value in stored.items():
        assert node.put("docs", key, value).status == 200
    writer = Writer(node, 0, {})
    writer.start()
    copy, data = cluster.dir / "copy", str(node.dir / "data")
    result = run("backup", "--data-dir", data, str(copy))
    assert result.status == 0 and b"node 1" in result.out, result.err
    assert not (cluster.dir / "copy.new").exists()
    suffix = {"sqlite": "sqlite", "lmdb": "mdb"}[storage]
    assert sorted(at.name for at in (copy / "store").iterdir()) == [f"lane-00{i}.{suffix}" for i in range(2)]
    refused(run("backup", "--data-dir", data, str(copy)), 2, "exists")
    refused(run("backup", "--data-dir", str(cluster.dir), str(copy) + "2"), 5, "no data directory")
    refused(run("restore", "--data-dir", data, str(copy)), 2, "is running")
    node.kill()
    writer.join()
    refused(run("restore", "--data-dir", data, str(copy)), 2, "not empty")
    assert node.start().get("docs", "key-7").body == stored["key-7"]

    # The copy runs beside the original, which should not be: even then none of its writes is named as one of the other's.
    twin = Node(cluster, 1, "--storage", storage, "--lanes", "2")
    twin.dir = cluster.dir / "twin"
    twin.dir.mkdir()
    result = run("restore", "--data-dir", str(twin.dir / "data"), str(copy))
    assert result.status == 0 and b"restored node 1" in result.out, result.err
    cluster.nodes.clear()
    twin.start()
    for one in (node, twin):
        for i in range(20):
            assert one.put("docs", f"since-{i}", b"x").status == 200
    for key, value in stored.items():
        assert twin.get("docs", key).body == value
    node.stop()
    twin.stop()
    if storage == "sqlite":
        actors = [actors_since(one) for one in (node, twin)]
        assert all(actors) and not set(actors[0]) & set(actors[1]), actors

    # In place of what was lost, in an empty directory, and the node gets from the others what it missed.
    shutil.rmtree(data)
    os.mkdir(data)
    assert run("restore", "--data-dir", data, str(copy)).status == 0
    cluster.nodes.append(node)
    node.start()
    assert node.get("docs", "since-1").status == 404 and node.get("docs", "key-7").body == stored["key-7"]
    other = cluster.add("--storage", storage)
    assert other.put("docs", "later", b"y", "all").status == 200
    cluster.wait_equal()
    assert other.get("docs", "key-7").body == stored["key-7"]


def test_backup_and_restore_sqlite(cluster):
    backups(cluster, "sqlite")


def test_backup_and_restore_lmdb(cluster):
    backups(cluster, "lmdb")


def test_a_backup_counts_all_keyspaces(cluster):
    node = cluster.add()
    for i in range(600):
        assert node.put(f"{i:0>120}", "key", b"x").status == 200
    result = run("backup", "--data-dir", str(node.dir / "data"), str(cluster.dir / "copy"))
    assert result.status == 0 and b"600 keyspaces, 600 documents, checked" in result.out, (result.out, result.err)


def refused_when_cut_short(cluster, storage):
    node = cluster.add("--storage", storage)
    lines = b"".join(b'{"key":"key-%d","value":"%s"}\n' % (i, b"v" * 200) for i in range(3000))
    assert node.ask("POST", "/kv/docs", lines).status == 200
    node.stop()
    path = next((node.dir / "data" / "store").glob("lane-000.*[eb]"))
    whole = path.read_bytes()
    for size in (len(whole) // 2, 65536, 4096):
        path.write_bytes(whole[:size])
        result = run("backup", "--data-dir", str(node.dir / "data"), str(cluster.dir / "copy"))
        assert result.status == 5 and str(node.dir / "data") in result.err, (size, result.status, result.err)
        assert sorted(at.name for at in cluster.dir.iterdir() if at.name.startswith("copy")) == [], size
    path.write_bytes(whole)
    assert run("backup", "--data-dir", str(node.dir / "data"), str(cluster.dir / "copy")).status == 0


def test_a_backup_of_a_file_cut_short_says_so_sqlite(cluster):
    refused_when_cut_short(cluster, "sqlite")


def test_a_backup_of_a_file_cut_short_says_so_lmdb(cluster):
    refused_when_cut_short(cluster, "lmdb")


# ---- damage in files ----------------------------------------------------------------------------------------------------

def lose_half_of_an_index(path):
    with sqlite3.connect(path) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_documents_1'").fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
    database.close()
    with open(path, "r+b") as file:
        file.seek((page - 1) * size)
        assert file.read(1) == b"\x0a"  # a leaf
        file.seek((page - 1) * size + 3)
        count = int.from_bytes(file.read(2), "big")
        file.seek((page - 1) * size + 3)
        file.write((count // 2).to_bytes(2, "big"))


def test_verify_tells_of_damage_that_only_sqlite_sees(cluster):
    node = cluster.add()
    for i in range(20):
        assert node.put("docs", f"key-{i}", b"x").status == 200
    assert node.run("verify").status == 0
    node.stop()
    lose_half_of_an_index(node.dir / "data" / "store" / "lane-000.sqlite")
    node.start()
    verified = node.ask("POST", "/verify").json()
    assert verified["damaged"] == 1, verified
    assert "lane-000.sqlite" in next(found["why"] for found in verified["damage"] if found["kind"] == "storage"), verified
    result = node.run("verify")
    assert result.status == 5 and b"storage: " in result.out and "storage is damaged" in result.err, (result.out, result.err)


# ---- sqlite3 while the node runs --------------------------------------------------------------------------------------

def documented_queries():
    page = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "docs", "storage.md")
    with open(page, encoding="utf-8") as file:
        blocks = re.findall(r"```sql\n(SELECT.*?)```", file.read(), re.DOTALL)
    assert len(blocks) >= 4, blocks
    return blocks


def ask_shell(path, query):
    """With the shell where there is one, and with Python's module otherwise."""
    if shutil.which("sqlite3"):
        done = subprocess.run(["sqlite3", "-readonly", "-json", path, query], capture_output=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout or b"[]")
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(query)]


def test_sqlite3_reads_a_data_file_while_the_node_runs(cluster):
    node = cluster.add()
    for i in range(20):
        assert node.put("users", f"user-{i}", f"value {i}".encode()).status == 200
    assert node.delete("users", "user-19").status == 200
    path = str(node.dir / "data" / "store" / "lane-000.sqlite")
    users, one, counts, latest = (ask_shell(path, query) for query in documented_queries()[:4])
    assert {(row["key"], row["value"]) for row in users} == {(f"user-{i}", f"value {i}") for i in range(19)}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", row["written"]) for row in users), users[0]
    assert len(one) == 1 and one[0]["value"] == "value 1", one
    assert counts[0]["name"] == "users" and counts[0]["live"] == 19, counts
    assert latest and latest[0]["key"] in ("user-19", "user-18"), latest[0]
    assert ask_shell(path, "PRAGMA application_id")[0]["application_id"] == 0x43414B45
    # The node goes on, and the shell sees what it writes.
    assert node.put("users", "later", b"x").status == 200
    assert len(ask_shell(path, documented_queries()[0])) == 20


if __name__ == "__main__":
    sys.exit(main(globals()))
