#!/usr/bin/env python3
"""Cluster keys and certificates of `datacake serve`: who is let in, who is refused and why, changing both without a restart.
Usage: security_test.py BIN_DIR [NAME...]"""
import signal
import subprocess
import sys
import threading
import time

from processes import DATACAKE, ENVIRONMENT, free_port, main, refused, run, wait_for


def make_key(path, *more):
    """A file with a new key in the first line."""
    key = run("keygen").out.decode().strip()
    path.write_text("# keys of the test\n" + "\n".join([key, *more]) + "\n")
    path.chmod(0o600)
    return key


def openssl(directory, *words):
    subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)


def make_authority(directory):
    directory.mkdir()
    openssl(directory, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
            "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    return directory


def make_certificate(authority, name):
    openssl(authority, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout",
            f"{name}.key", "-out", f"{name}.csr")
    openssl(authority, "x509", "-req", "-days", "2", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", f"{name}.pem")
    return [f"--tls-cert={authority / (name + '.pem')}", f"--tls-key={authority / (name + '.key')}", f"--tls-ca={authority / 'ca.pem'}"]


def log_of(node):
    return (node.dir / "log").read_text(errors="replace")


def says(node, text):
    wait_for(f"node {node.id} to say: {text}", lambda: text in log_of(node))


def members(node):
    return {member["id"]: member["status"] for member in node.ask("GET", "/members").json()["members"]}


def all_alive(node, *ids):
    """Who has had no turn for a while on a busy machine may be suspected for a moment."""
    wait_for(f"all alive for node {node.id}", lambda: members(node) == dict.fromkeys(ids, "alive"))


class Stranger:
    """A node that is started beside a cluster and is none of it."""

    def __init__(self, cluster, node_id, seed, *flags, **environment):
        self.id, self.dir, self.listen = node_id, cluster.dir / f"stranger-{node_id}", free_port()
        self.dir.mkdir()
        log = open(self.dir / "log", "ab")
        self.process = subprocess.Popen(
            [DATACAKE, "serve", "--node-id", str(node_id), "--listen", f"127.0.0.1:{self.listen}", "--http", "127.0.0.1:0",
             "--data-dir", str(self.dir / "data"), "--seed", f"127.0.0.1:{seed.listen}",
             *cluster.id_flags(flags), *flags], stdout=log, stderr=log, env=ENVIRONMENT | environment)

    def end(self):
        self.process.kill()
        self.process.wait()


def test_keys_are_made_and_read(cluster):
    one, two = run("keygen"), run("keygen")
    assert one.status == 0 and len(one.out) == 65 and one.out != two.out
    file = cluster.dir / "keys"

    def serve(*flags):
        return run("serve", "--node-id", "1", "--data-dir", str(cluster.dir / "none"), "--listen", "127.0.0.1:0", "--http",
                   "127.0.0.1:0", *flags)
    refused(serve("--cluster-key", str(file)), 2, str(file), "No such file")
    for text, words in (("", "no key"), ("# nothing\n\n", "no key"), ("abc\n", "keys:1: "), ("\n" + "g" * 64, "keys:2: "),
                        ("a" * 63, "hexadecimal"), ("a" * 65, "hexadecimal"), ("a" * 64 + " b", "hexadecimal"),
                        (("a" * 64 + "\n") * 9, "more than 8"), ("x" * 20000, "no file of keys"), ("a" * 64 + "\0", "no file of keys")):
        file.write_text(text)
        refused(serve("--cluster-key", str(file)), 2, words)
    refused(serve("--cluster-key", str(cluster.dir)), 2, str(cluster.dir))
    refused(serve("--tls-cert", "/dev/null"), 2, "--tls-key", "together")
    refused(serve("--tls-cert", "/dev/null", "--tls-key", "/nonexistent", "--tls-ca", "/dev/null"), 2, "--tls-key", "/nonexistent")
    refused(serve("--tls-cert", "/dev/null", "--tls-key", "/dev/null", "--tls-ca", "/dev/null"), 5, "TLS", "--tls-cert")
    # Others may read the file: said, and no reason not to run. A key of the environment does as well.
    key = make_key(file)
    file.chmod(0o644)
    node = cluster.add("--cluster-key", str(file))
    says(node, "chmod 600")
    known = Stranger(cluster, 2, node, DATACAKE_CLUSTER_KEY=f"{key.upper()}, {'0' * 64}")
    other = Stranger(cluster, 3, node, DATACAKE_CLUSTER_KEY=f"{'0' * 64}, {key}")  # the first one counts
    try:
        wait_for("the second node", lambda: members(node).get(2) == "alive")
        says(node, "another cluster key")
        assert set(members(node)) == {1, 2}
    finally:
        known.end()
        other.end()


def test_a_key_keeps_strangers_out_and_both_sides_say_why(cluster):
    right, wrong = cluster.dir / "right", cluster.dir / "wrong"
    make_key(right)
    make_key(wrong)
    nodes = cluster.of(3, "--cluster-key", str(right))
    assert nodes[0].put("books", "x", b"1", "all").status == 200
    before = [node.status()["store"]["fingerprint"] for node in nodes]
    strangers = [(Stranger(cluster, 11, nodes[0], "--cluster-key", str(wrong)), "another cluster key", "another cluster key"),
                 (Stranger(cluster, 12, nodes[1]), "its gossip is plain", "encrypts by TLS, and this side does not"),
                 (Stranger(cluster, 13, nodes[2], "--cluster-key", str(right), "--cluster-id", "other"),
                  "another cluster with the same key", "belongs to another cluster")]
    try:
        for (stranger, ours, theirs), node in zip(strangers, nodes):
            says(node, ours)
            assert f"127.0.0.1:{stranger.listen} is not heard" in log_of(node)
            says(stranger, theirs)
            assert f"127.0.0.1:{node.listen}" in log_of(stranger)
        for node in nodes:
            all_alive(node, 1, 2, 3)
            assert node.status()["cluster"]["gossip_bad_frames"] > 0
        assert [node.status()["store"]["fingerprint"] for node in nodes] == before
        # The port does not answer a plain call either.
        done = subprocess.run(["curl", "-sS", "-m", "5", "--http2-prior-knowledge", "--data-binary", "x",
                               f"http://127.0.0.1:{nodes[0].listen}/datacake.gossip/ping"], capture_output=True)
        assert done.returncode != 0
    finally:
        for stranger, _, _ in strangers:
            stranger.end()


def test_keys_are_rotated_without_an_outage(cluster):
    files = [cluster.dir / f"keys-{i}" for i in (1, 2, 3)]
    old = make_key(files[0])
    new = run("keygen").out.decode().strip()
    for file in files[1:]:
        file.write_text(old + "\n")
        file.chmod(0o600)
    for file in files:
        cluster.add("--cluster-key", str(file))
    nodes = cluster.nodes
    cluster.wait_whole()
    failures, written, is_over = [], [0], threading.Event()

    def write():
        while not is_over.is_set():
            answer = nodes[written[0] % 3].put("books", f"key-{written[0]}", b"x", "all")
            if answer.status != 200:
                failures.append(answer.body)
            written[0] += 1
            time.sleep(0.01)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for text in (f"{old}\n{new}\n", f"{new}\n{old}\n", f"{new}\n"):
            for node, file in zip(nodes, files):
                had = log_of(node).count("read again: ")
                file.write_text(text)
                node.process.send_signal(signal.SIGHUP)
                wait_for("the keys read again", lambda: log_of(node).count("read again: ") > had)
                count = written[0] + 20
                wait_for("writes", lambda: written[0] >= count)
                all_alive(node, 1, 2, 3)
    finally:
        is_over.set()
        writer.join()
    assert not failures, failures
    for node in nodes:
        all_alive(node, 1, 2, 3)
        status = node.status()
        assert status["cluster"]["gossip_bad_frames"] == 0, status
        assert not any(event["kind"] in ("left", "died") for event in status["events"]), status["events"]
    # A bad file is said, and changes nothing.
    files[0].write_text("nonsense\n")
    nodes[0].process.send_signal(signal.SIGHUP)
    says(nodes[0], "stay as they were")
    files[0].write_text(new + "\n")
    # Who still has the old key is out, who has the new one is in, also after a restart.
    files[1].write_text(new + "\n")
    nodes[1].kill()
    nodes[1].start()
    cluster.wait_whole()
    old_file = cluster.dir / "old"
    old_file.write_text(old + "\n")
    stranger = Stranger(cluster, 9, nodes[0], "--cluster-key", str(old_file))
    try:
        says(nodes[0], "another cluster key")
        says(stranger, "another cluster key")
    finally:
        stranger.end()
    cluster.wait_equal()


def test_certificates_both_ways_and_read_again(cluster):
    authority = make_authority(cluster.dir / "authority")
    other = make_authority(cluster.dir / "other")
    for i in (1, 2, 3):
        cluster.add(*make_certificate(authority, f"node-{i}"))
    nodes = cluster.nodes
    cluster.wait_whole()
    for i, node in enumerate(nodes):
        assert node.put("books", str(i), b"x" * 100000, "all").status == 200
    assert all(node.get("books", "1").status == 200 for node in nodes)
    # Plain, and of another authority: no call goes through, and both sides say why. Without a cluster key gossip is open to all.
    plain = Stranger(cluster, 11, nodes[0], "--cluster-id", "other")
    foreign = Stranger(cluster, 12, nodes[1], "--cluster-id", "other", *make_certificate(other, "foreign"))
    try:
        says(plain, "the peer encrypts by TLS, and this side does not")
        says(nodes[0], "the peer does not encrypt, and this side wants TLS")
        says(foreign, "certificate")
        says(nodes[1], "TLS: ")
    finally:
        plain.end()
        foreign.end()
    # All certificates are exchanged for those of a new authority, by files that trust both at first.
    both = (authority / "ca.pem").read_text() + (other / "ca.pem").read_text()
    for step in ("trust both", "new certificates", "trust the new"):
        if step == "trust both":
            (authority / "ca.pem").write_text(both)
        for i, node in enumerate(nodes, 1):
            if step == "new certificates":
                make_certificate(other, f"node-{i}")
                for kind in ("key", "pem"):
                    (authority / f"node-{i}.{kind}").write_text((other / f"node-{i}.{kind}").read_text())
            if step == "trust the new":
                (authority / "ca.pem").write_text((other / "ca.pem").read_text())
            had = log_of(node).count("read again: ")
            node.process.send_signal(signal.SIGHUP)
            wait_for("the certificate read again", lambda: log_of(node).count("read again: ") > had)
            assert node.put("books", step, b"1", "all").status == 200
            all_alive(node, 1, 2, 3)
    (authority / "node-1.key").write_text("nonsense")
    nodes[0].process.send_signal(signal.SIGHUP)
    says(nodes[0], "the certificate stays as it was")
    assert nodes[0].put("books", "more", b"1", "all").status == 200
    nodes[1].kill()
    nodes[1].start()  # by a certificate of the new authority alone
    cluster.wait_whole()
    wait_for("a write on all", lambda: nodes[2].put("books", "last", b"1", "all").status == 200)
    cluster.wait_equal()


def test_a_plain_node_in_a_cluster_with_certificates(cluster):
    """It is a member by gossip, which is plain on both sides, but nobody can call it: the log of each names the reason."""
    authority = make_authority(cluster.dir / "authority")
    node = cluster.add(*make_certificate(authority, "node-1"))
    plain = Stranger(cluster, 2, node)
    try:
        says(node, "the peer does not encrypt, and this side wants TLS")
        says(plain, "the peer encrypts by TLS, and this side does not")
    finally:
        plain.end()


def test_key_and_certificates_together(cluster):
    authority = make_authority(cluster.dir / "authority")
    make_key(cluster.dir / "key")
    for i in (1, 2, 3):
        cluster.add("--cluster-key", str(cluster.dir / "key"), *make_certificate(authority, f"node-{i}"))
    cluster.wait_whole()
    assert cluster.nodes[0].put("books", "x", b"1", "all").status == 200
    no_key = Stranger(cluster, 9, cluster.nodes[0], *make_certificate(authority, "node-9"))
    try:
        says(cluster.nodes[0], "its gossip is plain")
        says(no_key, "answers calls, but not the gossip")
    finally:
        no_key.end()
    assert set(members(cluster.nodes[0])) == {1, 2, 3}


sys.exit(main(globals()))
