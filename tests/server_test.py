#!/usr/bin/env python3
"""`datacake` as users meet it: real processes, real files, real kills. Usage: server_test.py BIN_DIR [NAME...]

Each test_ function below is one promise. Ports are free ones, waits are for conditions and have deadlines. When a test fails,
the logs of its nodes are printed."""
import base64
import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time

from processes import DATACAKE, PATIENCE_S, Node, free_port, main, refused, run, wait_for


# ---- a cluster of three ---------------------------------------------------------------------------------------------

def test_a_document_at_all_is_read_at_once_on_the_others(cluster):
    nodes = cluster.of(3)
    for i in range(20):
        key, value = f"key-{i}", os.urandom(100)
        assert nodes[i % 3].put("books", key, value, "all").status == 200
        for node in nodes:
            answer = node.get("books", key)
            assert (answer.status, answer.body) == (200, value)


def test_a_ready_node_is_counted_by_all(cluster):
    for count in (1, 2, 3, 4):
        began = time.monotonic()
        cluster.add()
        is_late = time.monotonic() - began > 4  # after 5 s it no longer waits for all: one may be out of reach
        if is_late:
            cluster.wait_whole()
        assert [node.status()["store"]["replicas"] for node in cluster.nodes] == [count] * count
        assert cluster.nodes[0].put("books", str(count), b"1", "all").status == 200
        assert all(node.get("books", str(count)).status == 200 for node in cluster.nodes)


def test_all_with_a_node_just_killed_fails_in_time_and_the_node_gets_it_later(cluster):
    one, two, three = cluster.add("--timeout-ms", "2000"), cluster.add(), cluster.add()
    cluster.wait_whole()
    assert three.put("books", "before", b"1", "all").status == 200
    while True:
        two.kill()
        began = time.monotonic()
        answer = one.put("books", "moby-dick", b"Call me Ishmael.", "all")
        spent = time.monotonic() - began
        assert answer.status == 503, answer.body
        if answer.code == "consistency_failed":
            break
        two.start()  # its death was known before the put came: this machine is slow now
        cluster.wait_whole()
    error = answer.json()["error"]
    assert error["responses"] < error["required"] == 3 and error["timeout_ms"] == 2000, error
    assert spent > 1.5, spent
    assert answer.stamp and answer.headers["Retry-After"]
    # The write stays, and goes on replicating: to the third node now, to the second once it is back.
    assert one.get("books", "moby-dick").body == b"Call me Ishmael."
    wait_for("the write on node 3", lambda: three.get("books", "moby-dick").status == 200)

    wait_for("a death that is known", lambda: one.status()["cluster"]["dead"] == 1)
    answer = one.put("books", "never", b"x", "all")  # at once: nobody is asked
    assert answer.status == 503 and answer.code == "not_enough_nodes", answer.body
    error = answer.json()["error"]
    assert (error["live"], error["required"]) == (2, 3), error
    assert one.get("books", "never").status == three.get("books", "never").status == 404

    # A quorum is there. The commands say it by their status.
    assert three.put("books", "at-quorum", b"y").status == 200
    refused(one.run("put", "books", "never", "x", "--consistency", "all"), 4, "2", "3")
    two.start()
    wait_for("both writes on node 2", lambda: two.get("books", "moby-dick").body == b"Call me Ishmael."
             and two.get("books", "at-quorum").status == 200)
    assert two.get("books", "never").status == 404
    cluster.wait_equal()


def test_too_few_members_is_said_at_once(cluster):
    node = cluster.add()
    for level, required in (("one", 1), ("two", 2), ("three", 3)):
        answer = node.put("books", "x", b"1", level)
        assert answer.status == 503 and answer.code == "not_enough_nodes", (level, answer.body)
        error = answer.json()["error"]
        assert (error["live"], error["required"]) == (0, required), error
        assert node.get("books", "x").status == 404
    for level in ("none", "quorum", "local_quorum", "each_quorum", "all"):
        assert node.put("books", level, b"1", level).status == 200


def test_deletes_leave_no_tombstones(cluster):
    nodes = cluster.of(3)
    lines = "".join(json.dumps({"key": f"{i:05}", "value": "x" * 50}) + "\n" for i in range(10000))
    result = nodes[0].run("import", "many", "-", stdin=lines.encode())
    assert result.status == 0 and b"imported 10000" in result.out, result.err
    cluster.wait_equal()
    keys = "".join(f"{i:05}\n" for i in range(10000)).encode()
    result = nodes[1].run("del", "many", "--from", "-", "--json", stdin=keys)
    assert result.status == 0 and json.loads(result.out)["deleted"] == 10000, result.err
    cluster.wait_equal()
    assert all(node.status()["store"]["live"] == 0 for node in nodes)


def test_a_node_killed_while_writing_catches_up(cluster):
    nodes = cluster.of(3)
    lines = "".join(json.dumps({"key": f"key-{i}", "value": str(i)}) + "\n" for i in range(20000)).encode()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        importing = pool.submit(nodes[0].run, "import", "many", "-", "--workers", "2", stdin=lines)
        wait_for("the first writes", lambda: nodes[0].status()["store"]["live"] > 1000 or importing.done())
        nodes[1].kill()
        result = importing.result()
    assert result.status == 0, result.err
    assert nodes[2].delete("many", "key-7").status == 200
    nodes[1].start()
    cluster.wait_equal()
    assert all(node.status()["store"]["live"] == 19999 for node in nodes)
    assert nodes[1].get("many", "key-7").status == 404
    # All three restart from their disks, and are still what they were.
    for node in nodes:
        node.stop()
    for node in nodes:
        node.start()
    assert all(node.status()["store"]["live"] == 19999 for node in nodes)
    cluster.wait_equal()


def test_a_client_that_moves_stays_in_order(cluster):
    nodes = cluster.of(3)
    assert nodes[0].put("books", "x", b"first", "all").status == 200
    # As from a node whose clock is 20 s ahead: the others order what follows after it all the same.
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z+0007", time.gmtime(time.time() + 20))
    for i in range(30):
        headers = {"X-Datacake-Timestamp": stamp}
        answer = nodes[i % 3].put("books", "x", str(i).encode(), "none", **headers)
        assert answer.stamp > stamp, (answer.stamp, stamp)
        stamp = answer.stamp
        other = nodes[(i + 1) % 3].ask("GET", "/kv/books/none-such", headers={"X-Datacake-Timestamp": stamp})
        assert other.stamp >= stamp  # also what only reads hands the order on
        stamp = other.stamp
    wait_for("the last write everywhere", lambda: all(node.get("books", "x").body == b"29" for node in nodes))


def test_a_partition_heals(cluster):
    def demo(*words):
        result = run("demo", *words, "--dir", str(cluster.dir / "demo"))
        assert result.status == 0, result.err
        return result.out.decode()

    def rows():
        return [line.split() for line in demo("status").splitlines()[1:]]

    try:
        demo("up", "3")
        urls = [row[1] for row in rows()]
        wait_for("three", lambda: all(row[3] == "3" for row in rows()))
        wait_for("three replicas", lambda: all(b"replicas         3" in run("status", "--http", url).out for url in urls))
        demo("partition", "1")
        wait_for("a death on both sides", lambda: [row[3] for row in rows()] == ["1", "2", "2"])
        assert run("put", "books", "alone", "1", "--http", urls[0]).status == 4  # no quorum on the smaller side
        assert run("put", "books", "alone", "1", "--consistency", "none", "--http", urls[0]).status == 0
        wait_for("a quorum on the larger side", lambda: run("put", "books", "most", "2", "--http", urls[1]).status == 0)
        assert run("get", "books", "most", "--http", urls[0]).status == 1
        demo("heal")
        wait_for("one cluster again", lambda: {(row[3], row[4]) for row in rows()} == {("3", "2")})
        wait_for("equal documents", lambda: len({row[6] for row in rows()}) == 1)
        demo("down")
        assert all(row[2] == "stopped" for row in rows())
    finally:
        run("demo", "down", "--dir", str(cluster.dir / "demo"))


# ---- HTTP -----------------------------------------------------------------------------------------------------------

def test_keys_and_values_are_bytes(cluster):
    node = cluster.add()
    keys = [b"a", b"\0", b"a/b", b"%41", b"\xff\xfe", b"with space+plus?&=#", bytes(range(256)), b"k" * 511, b".", b".."]
    for i, key in enumerate(keys):
        value = bytes(range(256)) * i
        assert node.put("bytes", key, value).status == 200
        answer = node.get("bytes", key)
        assert (answer.status, answer.body) == (200, value), key
    listed = [json.loads(line) for line in node.ask("GET", "/kv/bytes?values=1").body.splitlines()]

    def to_bytes(part):
        return part.encode() if isinstance(part, str) else base64.b64decode(part["base64"])
    assert [to_bytes(line["key"]) for line in listed] == sorted(keys)
    assert all(to_bytes(line["value"]) == bytes(range(256)) * keys.index(to_bytes(line["key"])) for line in listed)
    exported = node.run("export", "bytes").out
    assert node.run("import", "copy", "-", stdin=exported).status == 0
    again = node.run("export", "copy").out
    names = node.run("ls", "copy").out
    assert names.count(b"\n") == len(keys) and not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", names)
    assert json.loads(node.run("del", "copy", "--from", "-", "--json", stdin=names).out)["deleted"] == len(keys)
    assert node.run("ls", "copy").out == b""
    assert [(json.loads(l)["key"], json.loads(l)["value"]) for l in again.splitlines()] == \
        [(json.loads(l)["key"], json.loads(l)["value"]) for l in exported.splitlines()]


def test_listing_pages_and_prefixes(cluster):
    node = cluster.add()
    names = [f"{a}/{i:03}" for a in "abc" for i in range(500)]
    body = "".join(json.dumps({"key": name, "value": name}) + "\n" for name in names)
    answer = node.ask("POST", "/kv/names", body)
    assert answer.status == 200 and answer.json()["put"] == 1500

    def keys(query):
        return [json.loads(line)["key"] for line in node.ask("GET", "/kv/names" + query).body.splitlines()]
    assert keys("") == names
    assert keys("?prefix=b%2F") == names[500:1000]
    assert keys("?prefix=b/&limit=3") == names[500:503]
    assert keys("?prefix=b/&limit=3&after=b%2F002") == names[503:506]
    assert keys("?after=c%2F499") == []
    assert keys("?limit=600&after=a%2F100") == names[101:701]
    assert node.run("ls", "names", "--prefix", "c/", "--limit", "2").out == b"c/000\nc/001\n"
    assert node.ask("GET", "/kv/unknown").body == b""
    spaces = node.ask("GET", "/kv").json()["keyspaces"]
    assert [(s["name"], s["live"]) for s in spaces] == [("names", 1500)]


def test_bulk_names_bad_lines_and_goes_on(cluster):
    node = cluster.add()
    body = b"\n".join([b'{"key":"a","value":"1"}', b"not json", b"", b'{"key":"b"}', b'{"key":"","value":"1"}',
                       b'{"key":"' + b"k" * 512 + b'","value":"1"}', b'{"key":"c","value":{"base64":"AP8="}}',
                       b'{"key":"a","delete":true}', b'{"key":"d","value":"2"}', b'{"key":"\xff","value":"1"}',
                       b'{"key":"e","value":"3"}'])
    for headers in ({}, {"Transfer-Encoding": "chunked"}):
        sent = (body[i:i + 7] for i in range(0, len(body), 7)) if headers else body
        answer = node.ask("POST", "/kv/bulk", sent, headers)
        result = answer.json()
        assert answer.status == 200, result
        assert (result["put"], result["deleted"], result["failed"]) == (4, 1, 5), result
        assert [error["line"] for error in result["errors"]] == [2, 4, 5, 6, 10], result
    assert node.run("ls", "bulk").out == b"c\nd\ne\n"
    path = cluster.dir / "lines.ndjson"
    path.write_bytes(body)
    result = node.run("import", "again", str(path))
    assert result.status == 5, result.err
    assert re.findall(r"lines\.ndjson:(\d+): ", result.err) == ["2", "4", "5", "6", "10"], result.err
    assert node.run("ls", "again").out == b"c\nd\ne\n"


def test_bulk_needs_little_memory(cluster):
    node = cluster.add("--storage", "memory", "--max-body-mib", "16")

    def lines():
        for i in range(200):
            yield b"".join(b'{"key":"%d","value":"%s"}\n' % (j % 10, b"x" * 10000) for j in range(20))
    answer = node.ask("POST", "/kv/bulk?consistency=none", lines(), {"Transfer-Encoding": "chunked"})
    assert answer.status == 200 and answer.json()["put"] == 4000  # 40 MB through 16
    status = pathlib.Path(f"/proc/{node.process.pid}/status").read_text()
    peak_kib = int(re.search(r"VmHWM:\s+(\d+)", status)[1])
    assert peak_kib < 150 << 10 or "asan" in DATACAKE or "tsan" in DATACAKE, peak_kib


def test_bad_requests_get_the_right_status(cluster):
    node = cluster.add("--max-value-mib", "1")
    long_name = "n" * 128
    rows = [
        ("GET", "/nope", None, {}, 404, "not_found"),
        ("GET", "/kv/books/none", None, {}, 404, "not_found"),
        ("PATCH", "/kv/books/x", b"", {}, 405, "method_not_allowed"),
        ("DELETE", "/status", None, {}, 405, "method_not_allowed"),
        ("PUT", "/kv/books/x?consistency=most", b"1", {}, 400, "invalid_argument"),
        ("PUT", "/kv/books/x?consistncy=all", b"1", {}, 400, "invalid_argument"),
        ("PUT", "/kv/books/x?consistency=all&consistency=none", b"1", {}, 400, "invalid_argument"),
        ("PUT", "/kv/books/", b"1", {}, 400, "invalid_argument"),
        ("PUT", "/kv//x", b"1", {}, 400, "invalid_argument"),
        ("PUT", "/kv/books/" + "k" * 512, b"1", {}, 400, "invalid_argument"),
        ("PUT", "/kv/books/a%zz", b"1", {}, 400, "invalid_argument"),
        ("PUT", f"/kv/{long_name}/x", b"1", {}, 400, "invalid_argument"),
        ("PUT", "/kv/a%0ab/x", b"1", {}, 400, "invalid_argument"),
        ("PUT", "/kv/a%00b/x", b"1", {}, 400, "invalid_argument"),
        ("PUT", "/kv/%ff/x", b"1", {}, 400, "invalid_argument"),
        ("GET", "/kv/books?limit=0", None, {}, 400, "invalid_argument"),
        ("GET", "/kv/books?limit=x", None, {}, 400, "invalid_argument"),
        ("GET", "/kv/books?values=yes", None, {}, 400, "invalid_argument"),
        ("GET", "/watch/books?values=yes", None, {}, 400, "invalid_argument"),
        ("GET", "/kv/books?prefix=%", None, {}, 400, "invalid_argument"),
        ("GET", "/kv/books/x", None, {"X-Datacake-Timestamp": "yesterday"}, 400, "invalid_argument"),
        ("GET", "/kv/books/x", None, {"X-Datacake-Timestamp": "2999-11-22T10:20:30.123Z+0042"}, 503, "clock_drift"),
        ("PUT", "/kv/books/x", b"1" * (1 << 20) + b"1", {}, 413, "too_large"),
        ("DELETE", "/members/99", None, {}, 404, "not_found"),
        ("DELETE", "/members/x", None, {}, 400, "invalid_argument"),
    ]
    for method, path, body, headers, status, code in rows:
        answer = node.ask(method, path, body, headers)
        assert (answer.status, answer.code) == (status, code), (method, path, answer.status, answer.body)
        assert answer.json()["error"]["message"] and answer.stamp
    pieces = (b"x" * 65536 for _ in range(17))
    answer = node.ask("PUT", "/kv/books/x", pieces, {"Transfer-Encoding": "chunked"})
    assert (answer.status, answer.code) == (413, "too_large")
    assert node.ask("GET", "/kv/books").body == b""
    assert node.ask("PATCH", "/kv/books/x").headers["Allow"] == "GET, HEAD, PUT, POST, DELETE"
    assert node.put("books", "x", b"1" * (1 << 20)).status == 200
    assert node.put("b\u00fccher/sub", "x", b"").status == 200
    assert (node.get("b\u00fccher/sub", "x").status, node.get("b\u00fccher/sub", "x").body) == (200, b"")


def test_reads_have_tags_and_levels(cluster):
    nodes = cluster.of(2)
    stamp = nodes[0].put("books", "x", b"1", "all").stamp
    answer = nodes[1].get("books", "x")
    assert answer.stamp == stamp
    same = nodes[1].ask("GET", "/kv/books/x", headers={"If-None-Match": answer.headers["ETag"]})
    assert (same.status, same.body) == (304, b"")
    assert nodes[0].put("books", "x", b"2", "none").status == 200
    newest = nodes[1].get("books", "x", "?consistency=all")
    assert (newest.status, newest.body) == (200, b"2")
    assert newest.headers["ETag"] != answer.headers["ETag"]
    assert nodes[0].delete("books", "x", "none").status == 200
    assert nodes[1].get("books", "x", "?consistency=all").status == 404
    assert nodes[0].delete("books", "never-was").status == 200
    head = nodes[0].put("books", "y", b"12345", "all") and nodes[1].ask("HEAD", "/kv/books/y")
    assert head.status == 200 and head.headers["Content-Length"] == "5"


def test_conditional_writes(cluster):
    node = cluster.add()
    create = {"If-None-Match": "*"}
    assert node.put("books", "x", b"1", **create).status == 200
    lost = node.put("books", "x", b"2", **create)
    assert (lost.status, lost.code) == (409, "conflict")
    read = node.get("books", "x")
    assert lost.json()["error"]["timestamp"] == read.stamp and read.body == b"1"
    tag = {"If-Match": read.headers["ETag"]}
    assert node.put("books", "x", b"3", **tag).status == 200
    assert node.put("books", "x", b"4", **tag).status == 409
    assert node.ask("DELETE", "/kv/books/x", headers=tag).status == 409
    assert node.get("books", "x").body == b"3"
    tag = {"If-Match": node.get("books", "x").headers["ETag"]}
    assert node.ask("DELETE", "/kv/books/x", headers=tag).status == 200
    assert node.put("books", "x", b"5", **create).status == 200
    for bad in ("*", "x", '"x"', 'W/"1"', '"0000000000000000-1-1"'):
        assert node.put("books", "x", b"6", **{"If-Match": bad}).status == 400, bad
    with concurrent.futures.ThreadPoolExecutor(16) as pool:  # one of many wins
        done = list(pool.map(lambda i: node.put("books", "race", str(i).encode(), **create).status, range(64)))
    assert sorted(set(done)) == [200, 409] and done.count(200) == 1


def test_a_token_is_asked_for(cluster):
    token = cluster.dir / "token"
    token.write_text("s3cret\n")
    node = cluster.add("--http-token", str(token))
    for headers in ({}, {"Authorization": "Bearer wrong!"}, {"Authorization": "Bearer s3cre"}, {"Authorization": "s3cret"}):
        answer = node.ask("GET", "/kv", headers=headers)
        assert (answer.status, answer.code) == (401, "unauthorized")
        assert node.ask("PUT", "/kv/a/b", b"1", headers).status == 401
    assert node.ask("GET", "/kv", headers={"Authorization": "Bearer s3cret"}).status == 200
    assert node.ask("GET", "/healthz").status == node.ask("GET", "/").status == 200
    refused(node.run("keyspaces"), 5, "token")
    refused(node.run("import", "a", "-", "--http-token", "/nonexistent"), 2, "/nonexistent")
    assert node.run("put", "a", "b", "1", "--http-token", str(token)).status == 0
    cluster.add("--http-token", str(token))
    right = {"Authorization": "Bearer s3cret"}
    wait_for("the other's address", lambda: all("http" in m for m in node.ask("GET", "/members", headers=right).json()["members"]))

    def verifies():  # who is slow may be suspected for a moment, and is not asked
        result = node.run("verify", "--http-token", str(token))
        assert result.status == 0 or "could not be asked" in result.err, (result.out, result.err)
        return result.status == 0 and result.out.count(b"  equal") == 2
    wait_for("two equal nodes", verifies)


def test_others_are_told_where_a_wildcard_leads(cluster):
    node = Node(cluster, 1)
    node.flags = ("--http", f"0.0.0.0:{node.http}")
    node.start()
    cluster.nodes.append(node)
    assert node.ask("GET", "/members").json()["members"][0]["http"] == f"127.0.0.1:{node.http}"


def test_pages_of_other_sites_do_not_write(cluster):
    node = cluster.add()
    own, other = {"Origin": f"http://127.0.0.1:{node.http}"}, {"Origin": "http://example.com"}
    for headers in (other, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"} | own):
        for method, path in (("PUT", "/kv/a/b"), ("POST", "/kv/a/b"), ("POST", "/kv/a"), ("DELETE", "/kv/a/b"),
                             ("POST", "/verify"), ("DELETE", "/members/9")):
            answer = node.ask(method, path, b"1", headers)
            assert (answer.status, answer.code) == (403, "forbidden"), (method, path, headers)
    assert node.get("a", "b").status == 404
    assert node.put("a", "b", b"1", **own).status == 200
    assert node.put("a", "b", b"1", **{"Sec-Fetch-Site": "same-origin"} | other).status == 200  # behind a proxy
    assert node.ask("GET", "/kv/a/b", headers=other).status == 200


def test_names_of_other_sites_that_lead_here_are_refused(cluster):
    """DNS rebinding: for the browser, the page that asks is this node's own."""
    node = cluster.add("--http-name", "db.example")

    def answers(host, method="GET", path="/kv", **headers):
        return node.ask(method, path, b"1" if method == "PUT" else None, {"Host": host} | headers)
    language, own = {"Accept-Language": "en"}, f"127.0.0.1:{node.http}"
    for host in ("evil.example", f"evil.example:{node.http}", "127.0.0.1.evil.example", "db.example.evil", "b.example"):
        for answer in (answers(host, **language), answers(host, path="/", **language),
                       answers(host, "PUT", "/kv/a/b", Origin=f"http://{host}")):
            assert (answer.status, answer.code) == (403, "forbidden") and host in answer.json()["error"]["message"], answer.body
    assert node.get("a", "b").status == 404
    for host in (own, "localhost", f"a.localhost:{node.http}", "[::1]:80", "database", "DB.example", f"db.example:{node.http}"):
        assert answers(host, **language).status == 200, host
        assert answers(host, "PUT", "/kv/a/b", Origin=f"http://{host}", **language).status == 200, host
    # What is no browser, what came by https through a proxy, and whoever knows the token.
    assert answers("evil.example").status == 200
    assert answers("shop.example", **language, **{"Sec-Fetch-Site": "same-origin"}).status == 200
    token = cluster.dir / "token"
    token.write_text("s3cret\n")
    guarded = cluster.add("--http-token", str(token))
    assert guarded.ask("GET", "/kv", headers={"Host": "shop.example", "Authorization": "Bearer s3cret"} | language).status == 200
    assert guarded.ask("GET", "/kv", headers={"Host": "shop.example"} | language).status == 401


def test_watchers_see_every_change_in_order(cluster):
    nodes = cluster.of(2)
    connection = http.client.HTTPConnection("127.0.0.1", nodes[1].http, timeout=PATIENCE_S)
    connection.request("GET", "/watch/books?values=1")
    stream = connection.getresponse()
    assert stream.status == 200 and stream.getheader("Content-Type") == "text/event-stream"
    assert stream.readline() == b": datacake\n"
    for i in range(50):
        assert nodes[i % 2].put("books", str(i), f"value {i}", "all").status == 200
        assert nodes[i % 2].put("other", str(i), b"x", "all").status == 200
    assert nodes[0].delete("books", "0", "all").status == 200
    seen = []
    while len(seen) < 51:
        line = stream.readline()
        assert line, "the stream has ended"
        if line.startswith(b"data: "):
            seen.append((kind, json.loads(line[6:])))
        elif line.startswith(b"event: "):
            kind = line[7:].strip().decode()
    assert [(kind, e["key"], e.get("value")) for kind, e in seen] == \
        [("put", str(i), f"value {i}") for i in range(50)] + [("delete", "0", None)]
    nodes[1].stop()  # a watcher holds nobody up
    assert stream.read() is not None
    connection.close()


def test_the_page_and_the_figures(cluster):
    node = cluster.add()
    node.put("books", "x", b"1")
    page = node.ask("GET", "/")
    assert page.status == 200 and page.headers["Content-Type"].startswith("text/html")
    assert b"<title>Datacake</title>" in page.body
    assert not re.search(rb"(src|href)=[\"']?(https?:)?//", page.body)  # no outside assets
    metrics = node.ask("GET", "/metrics").body.decode()
    values = dict(re.findall(r"^(\w+) ([0-9.e+]+)$", metrics, re.M))
    assert values["datacake_documents"] == "1" and values["datacake_writes_total"] == "1", metrics
    assert abs(float(values["process_start_time_seconds"]) - time.time()) < 600 and int(values["process_open_fds"]) > 3
    assert float(values["process_cpu_seconds_total"]) > 0 and int(values["process_resident_memory_bytes"]) > 1 << 20
    waits = re.findall(r'request_duration_seconds_bucket\{method="PUT",le="([^"]+)"\} (\d+)', metrics)
    assert waits[-1] == ("+Inf", "1") and [int(count) for _, count in waits] == sorted(int(count) for _, count in waits)
    for line in metrics.splitlines():
        assert re.fullmatch(r'# .*|(datacake|process)_\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [0-9.e+]+', line), line
    status = node.status()
    assert status["store"]["live"] == 1 and status["keyspaces"][0]["name"] == "books"
    assert [m["id"] for m in node.ask("GET", "/members").json()["members"]] == [1]
    events = http.client.HTTPConnection("127.0.0.1", node.http, timeout=PATIENCE_S)
    events.request("GET", "/events")
    stream = events.getresponse()
    data = [line for line in (stream.readline() for _ in range(8)) if line.startswith(b"data: ")]
    assert json.loads(data[0][6:])["node"]["id"] == 1
    events.close()


def puts(node):
    """Of a node with a short --idle-s: on a busy machine this client, too, may be slower than that."""
    try:
        return node.put("books", "x", b"1").status == 200
    except (OSError, http.client.HTTPException):
        return False


def test_slow_clients_are_cut(cluster):
    node = cluster.add("--idle-s", "1", "--max-connections", "32")
    slow = []
    for i in range(20):
        connection = socket.create_connection(("127.0.0.1", node.http))
        connection.sendall(b"PUT /kv/books/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc" if i % 2 else b"GET /kv HT")
        connection.setblocking(False)
        slow.append(connection)

    def is_cut(connection):
        try:
            connection.send(b"x")  # one byte now and then does not help
            return connection.recv(4096) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
    left = list(slow)

    def all_cut():
        left[:] = [connection for connection in left if not is_cut(connection)]
        return not left
    wait_for("all slow clients cut", all_cut)
    wait_for("a quick client", lambda: puts(node))


def test_hostile_bytes_do_no_harm(cluster):
    node = cluster.add("--idle-s", "2")
    for request in (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20000, b"PUT /kv/%s/x HTTP/1.1\r\n\r\n" % (b"a" * 100000),
                    b"PUT /kv/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                    b"PUT /kv/a/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                    b"GET /kv/a/b?" + b"a=b&" * 500 + b" HTTP/1.1\r\nHost: x\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", node.http), timeout=PATIENCE_S) as connection:
            try:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except OSError:
                pass
    # The port of the nodes takes what does not come from a node, too.
    for request in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(100)):
        with socket.create_connection(("127.0.0.1", node.listen), timeout=PATIENCE_S) as connection:
            connection.sendall(request)
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.sendto(request, ("127.0.0.1", node.listen))
    wait_for("a good client", lambda: puts(node))


# ---- the command ----------------------------------------------------------------------------------------------------

def serve(cluster, *flags, dir="bad"):
    return run("serve", "--node-id", "1", "--data-dir", str(cluster.dir / dir), "--listen", "127.0.0.1:0", "--http",
               "127.0.0.1:0", *cluster.id_flags(flags), *flags)


def test_usage_errors_are_one_line_with_status_2(cluster):
    refused(run("nonsense"), 2, "nonsense")
    refused(run("put", "books"), 2, "usage")
    refused(run("get", "books", "x", "--nope"), 2, "--nope")
    refused(run("put", "", "x", "y"), 2, "keyspace")
    refused(run("put", "k" * 128, "x", "y"), 2, "keyspace")
    refused(run("put", "books", "k" * 512, "y"), 2, "511")
    refused(run("put", "books", "x", "y", "--consistency", "most"), 2, "most")
    for words in (("get", "books", "x"), ("import", "books", os.devnull), ("bench", "--duration-s", "1")):
        refused(run(*words, "--http", "nowhere"), 2, "nowhere")
    refused(run("get", "books", "x", "--http", f"127.0.0.1:{free_port()}"), 3, "cannot reach")
    refused(run("import", "books", "/nonexistent"), 2, "/nonexistent")
    refused(run("serve"), 2, "--data-dir")
    refused(run("serve", "--storage", "memory"), 2, "--node-id")
    refused(serve(cluster, "--bogus"), 2, "--bogus")
    refused(serve(cluster, "--node-id", "0"), 2, "node-id")
    refused(serve(cluster, "--node-id", "70000"), 2, "node-id")
    refused(serve(cluster, "--listen", "nowhere"), 2, "--listen", "nowhere")
    refused(serve(cluster, "--listen", "1.2.3.4:99999"), 2, "--listen")
    refused(serve(cluster, "--seed", "x y"), 2, "--seed")
    refused(serve(cluster, "--http", "127.0.0.1"), 2, "--http")
    refused(serve(cluster, "--log-level", "loud"), 2, "loud")
    refused(serve(cluster, "--storage", "tape"), 2, "tape")
    refused(serve(cluster, "--config", "/nonexistent"), 2, "/nonexistent")
    refused(serve(cluster, "--listen", "0.0.0.0:0"), 2, "--public")
    refused(serve(cluster, "--listen", "[::]:0"), 2, "--public")
    refused(serve(cluster, "--public", "0.0.0.0:7001"), 2, "--public")
    refused(serve(cluster, "--listen", "host.example:7001"), 2, "--listen", "IP:PORT")
    refused(serve(cluster, "--cluster-id", ""), 2, "--cluster-id")
    refused(serve(cluster, "--data-center", "x" * 64), 2, "--data-center")
    assert not (cluster.dir / "bad").exists()
    assert run("help").status == run("--version").status == run("help", "serve").status == run("help", "help").status == 0


def test_ports_in_use_are_named(cluster):
    node = cluster.add()
    refused(serve(cluster, "--listen", f"127.0.0.1:{node.listen}"), 5, f"127.0.0.1:{node.listen}", "in use")
    refused(serve(cluster, "--http", f"127.0.0.1:{node.http}"), 5, f"127.0.0.1:{node.http}", "in use")
    assert node.put("books", "x", b"1").status == 200


def test_a_directory_belongs_to_one_node_and_one_process(cluster):
    node = cluster.add()
    assert node.put("books", "x", b"1").status == 200
    mine = f"{node.dir.name}/data"
    refused(serve(cluster, dir=mine), 5, "in use", str(node.process.pid))
    node.stop()
    refused(serve(cluster, "--node-id", "2", dir=mine), 5, "node 1", "node 2")
    refused(serve(cluster, "--cluster-id", "other", dir=mine), 5, "other")
    refused(serve(cluster, "--lanes", "3", dir=mine), 5, "--lanes")
    refused(serve(cluster, "--storage", "memory", dir=mine), 5, "sqlite", "memory")
    # Also when the small files that say so are lost: the store knows itself whose it is.
    (node.dir / "data" / "node").unlink()
    refused(serve(cluster, "--node-id", "2", dir=mine), 5, "another node")
    (node.dir / "data" / "node").unlink(missing_ok=True)
    node.start()
    assert node.get("books", "x").body == b"1"


def test_a_second_node_of_the_same_id_is_refused(cluster):
    node = cluster.add()
    seed = ("--seed", f"127.0.0.1:{node.listen}")
    refused_later = serve(cluster, *seed)  # ends by itself, with one line that names both; it may have begun to serve before
    lines = [line for line in refused_later.err.splitlines() if line.startswith("datacake serve: ")]
    assert refused_later.status == 5 and len(lines) == 1 and "twice" in lines[0], refused_later.err
    addresses = set(re.findall(r"127\.0\.0\.1:\d+", lines[0]))
    assert len(addresses) == 2 and f"127.0.0.1:{node.listen}" in addresses, refused_later.err
    wait_for("the same line in the first one's log", lambda: "twice" in (node.dir / "log").read_text())
    assert node.put("books", "x", b"1", "all").status == 200  # the first one goes on
    assert serve(cluster, *seed, "--node-id", "2", "--cluster-id", "other", "--lanes", "0").status == 2


def test_a_node_that_is_gone_for_good_is_forgotten(cluster):
    one, two, three = cluster.of(3)
    assert one.put("books", "before", b"1", "all").status == 200
    refused(one.run("forget", "3"), 5)  # it is alive
    refused(one.run("forget", "1"), 5, "this node")
    refused(one.run("forget", "9"), 1)
    three.kill()
    wait_for("a death that is known", lambda: all(node.status()["cluster"]["dead"] == 1 for node in (one, two)))
    assert one.put("books", "x", b"1", "all").code == "not_enough_nodes"
    result = one.run("verify")
    assert result.status == 5 and "1 nodes could not be asked" in result.err, result.err
    result = one.run("forget", "3")
    assert result.status == 0, result.err
    for node in (one, two):
        wait_for("writes without it", lambda: node.put("books", "x", b"2", "all").status == 200)
        assert node.status()["store"]["replicas"] == 2
    wait_for("two equal nodes", lambda: one.run("verify").status == 0)  # the one that is forgotten is not missed
    three.start()  # it was not gone for good: it is a replica again, with what it missed
    cluster.wait_whole()
    cluster.wait_equal()
    assert three.get("books", "x").body == b"2" and three.get("books", "before").body == b"1"


def test_damaged_files_are_named_and_nothing_is_lost(cluster):
    node = cluster.add()
    assert node.put("books", "x", b"1").status == 200
    node.stop()
    data = node.dir / "data"
    for name, text in (("generation", "x\n"), ("node", "gibberish\n")):
        good = (data / name).read_text()
        (data / name).write_text(text)
        refused(serve(cluster, dir="node-1/data"), 5, name, "damaged")
        (data / name).write_text(good)
    files = [path for path in (data / "store").glob("lane-*") if path.is_file() and path.stat().st_size > 4096]
    assert files
    for path in files:
        good = path.read_bytes()
        path.write_bytes(b"this is no database" * 1000)
        refused(serve(cluster, dir="node-1/data"), 5, "damaged")
        path.write_bytes(good)
    node.start()
    assert node.get("books", "x").body == b"1"


def test_the_generation_grows(cluster):
    def generation():
        return node.ask("GET", "/members").json()["members"][0]["generation"]
    node = cluster.add()
    generations = []
    for _ in range(3):
        generations.append(generation())
        node.stop()
        node.start()
    assert generations == sorted(set(generations))
    node.stop()
    ahead = 1 << 52
    (node.dir / "data" / "generation").write_text(f"{ahead}\n")
    node.start()
    assert generation() == ahead + 1


def test_lmdb_keeps_documents_as_well(cluster):
    result = serve(cluster, "--storage", "lmdb", "--seed", "bad")  # refused for the seed where there is LMDB
    if "does not have --storage lmdb" in result.err:
        return
    nodes = [cluster.add("--storage", kind) for kind in ("lmdb", "sqlite")]
    cluster.wait_whole()
    assert nodes[0].put("books", "x", b"1", "all").status == 200
    nodes[0].stop()
    nodes[0].start()
    assert nodes[0].get("books", "x").body == nodes[1].get("books", "x").body == b"1"


def test_commands_work_on_documents(cluster):
    node = cluster.add()
    assert node.run("put", "books", "x", "value").status == 0
    assert node.run("get", "books", "x").out == b"value"
    assert node.run("put", "books", "big", "-", stdin=b"\0\xff" * 100000).status == 0
    assert node.run("get", "books", "big").out == b"\0\xff" * 100000
    refused(node.run("get", "books", "none"), 1)
    assert node.run("ls", "books").out == b"big\nx\n"
    assert node.run("del", "books", "x").status == 0
    assert node.run("ls", "books").out == b"big\n"
    assert json.loads(node.run("keyspaces", "--json").out)["keyspaces"][0]["live"] == 1
    assert b"alive" in node.run("members").out and b"documents        1" in node.run("status").out
    assert node.run("verify").status == 0
    tsv = cluster.dir / "words.tsv"
    tsv.write_text("one\t1\nno tab here\ntwo\t2\\n2\n")
    result = node.run("import", "words", str(tsv))
    assert result.status == 5 and "words.tsv:2: " in result.err, result.err
    assert node.run("get", "words", "two").out == b"2\n2"
    result = node.run("bench", "--duration-s", "1", "--writers", "4", "--reads", "50", "--json")
    assert result.status == 0, result.err
    figures = json.loads(result.out)
    assert figures["writes"]["count"] + figures["reads"]["count"] > 0 and figures["errors"] == 0, figures


def test_a_configuration_file_and_json_logs(cluster):
    config = cluster.dir / "node.conf"
    config.write_text("# a node\nlog-format = json\ndata-center = harbour\nlog-level = error\n")
    node = cluster.add("--config", str(config), "--log-level", "info")
    assert node.status()["node"]["data_center"] == "harbour"
    node.stop()
    lines = (node.dir / "log").read_text().splitlines()
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    assert any("serves http" in line["message"] for line in logged) and all(line["level"] for line in logged)
    node.start()


def test_a_node_under_load_stops_in_order(cluster):
    node = cluster.add()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        load = pool.submit(node.run, "bench", "--duration-s", "60", "--writers", "16", "--reads", "30")
        wait_for("load", lambda: node.status()["store"]["writes"] > 200)
        acknowledged = node.put("books", "last", b"1")
        assert acknowledged.status == 200
        node.stop()
        assert load.result().status in (3, 5)
    node.start()
    assert node.get("books", "last").body == b"1"


sys.exit(main(globals()))
