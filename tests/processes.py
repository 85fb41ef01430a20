"""Clusters of real `datacake serve` processes, for the tests beside it. sys.argv[1] is the directory of the programs."""
import concurrent.futures
import http.client
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.parse

DATACAKE = os.path.join(os.path.abspath(sys.argv[1]), "datacake")
PATIENCE_S = int(os.environ.get("DATACAKE_PATIENCE_S", 120))  # sanitizers are slow; nothing here takes long when it works
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("DATACAKE_")}


def wait_for(what, condition, seconds=PATIENCE_S):
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


CLUSTERS = itertools.count()
PORTS = itertools.count(random.randrange(10000, 32000))
TAKEN = []  # sockets whose names keep other tests that run now away from ports that their node does not hold yet, or not just now


def free_port():
    """A port that is free for TCP and UDP, for nodes that have to have the same one again: below those that the system gives to
    outgoing connections, and another one each time."""
    while True:
        port = 10000 + next(PORTS) % 22000
        taken = socket.socket(socket.AF_UNIX)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                taken.bind(f"\0datacake-test-port-{port}")
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
                TAKEN.append(taken)
                return port
            except OSError:
                taken.close()


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = dict(response.getheaders())
        self.stamp = response.getheader("X-Datacake-Timestamp")
        self.body = response.read()

    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        return self.json()["error"]["code"]


class Node:
    def __init__(self, cluster, node_id, *flags):
        self.cluster, self.id, self.flags = cluster, node_id, flags
        self.dir = cluster.dir / f"node-{node_id}"
        self.listen, self.http, self.process = free_port(), free_port(), None

    def start(self, wait=True):
        seeds = [f"--seed=127.0.0.1:{n.listen}" for n in self.cluster.nodes if n is not self and n.process]
        self.dir.mkdir(exist_ok=True)
        self.log = open(self.dir / "log", "ab")
        self.process = subprocess.Popen(
            [DATACAKE, "serve", "--timeout-ms", "30000", "--node-id", str(self.id), "--listen",
             f"127.0.0.1:{self.listen}", "--http", f"127.0.0.1:{self.http}", "--data-dir", str(self.dir / "data"),
             *self.cluster.id_flags(self.flags), *seeds, *self.flags],
            stdout=self.log, stderr=self.log, env=ENVIRONMENT)
        if wait:
            wait_for(f"node {self.id} ready", self.is_ready)
        return self

    def is_ready(self):
        assert self.process.poll() is None, f"node {self.id} has ended with {self.process.returncode}"
        try:
            return self.ask("GET", "/readyz").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE_S)
        self.process = None
        assert status == 0, f"node {self.id} ended with {status}"

    def ask(self, method, path, body=None, headers={}):
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body=body, headers=headers, encode_chunked="Transfer-Encoding" in headers)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def put(self, keyspace, key, value, level="quorum", **headers):
        return self.ask("PUT", f"/kv/{quote(keyspace)}/{quote(key)}?consistency={level}", value, headers)

    def get(self, keyspace, key, query=""):
        return self.ask("GET", f"/kv/{quote(keyspace)}/{quote(key)}{query}")

    def delete(self, keyspace, key, level="quorum"):
        return self.ask("DELETE", f"/kv/{quote(keyspace)}/{quote(key)}?consistency={level}")

    def status(self):
        return self.ask("GET", "/status").json()

    def run(self, *words, stdin=b""):
        return run(*words, "--http", f"http://127.0.0.1:{self.http}", stdin=stdin)


def new_cluster_id():
    """Nodes of another test that looks for one of its own where there is a node of ours now are none of us."""
    return f"test-{os.getpid()}-{next(CLUSTERS)}"


class Cluster:
    def __init__(self):
        self.id = new_cluster_id()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="datacake-server-"))
        self.nodes = []

    def id_flags(self, flags):
        return [] if "--cluster-id" in flags else ["--cluster-id", self.id]

    def add(self, *flags):
        node = Node(self, len(self.nodes) + 1, *flags)
        self.nodes.append(node)
        return node.start()

    def of(self, count, *flags):
        for _ in range(count):
            self.add(*flags)
        self.wait_whole()
        return self.nodes

    def wait_whole(self):
        def is_whole(node):
            status = node.status()
            return status["cluster"]["alive"] == status["store"]["replicas"] == len(self.nodes)
        wait_for("a whole cluster", lambda: all(is_whole(node) for node in self.nodes))

    def wait_equal(self):
        def are_equal():
            stores = [node.status()["store"] for node in self.nodes]
            return len({(s["live"], s["fingerprint"]) for s in stores}) == 1 and not any(s["tombstones"] for s in stores)
        wait_for("equal nodes without tombstones", are_equal)

    def end(self):
        for node in self.nodes:
            if node.process:
                node.stop()

    def abandon(self):
        for node in self.nodes:
            if node.process:
                node.process.kill()
                node.process.wait()

    def logs(self):
        return "".join(f"---- {log}\n{log.read_text(errors='replace')[-6000:]}\n" for log in sorted(self.dir.rglob("log")))


def quote(part):
    return urllib.parse.quote(part, safe="")


class Result:
    def __init__(self, done):
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr.decode(errors="replace")


def run(*words, stdin=b""):
    return Result(subprocess.run([DATACAKE, *words], input=stdin, capture_output=True, timeout=PATIENCE_S, env=ENVIRONMENT))


def refused(result, status, *texts):
    """One line that says what is wrong, and the right status."""
    assert result.status == status, (result.status, result.err)
    assert result.err.count("\n") == 1, result.err
    for text in texts:
        assert text in result.err, (text, result.err)


# ---- figures --------------------------------------------------------------------------------------------------------

missed = []  # figures whose goals were not reached


def figure(name, value, unit, goal=None):
    is_reached = goal is None or value <= goal
    print(f"{name:64} {value:9.3f} {unit:6}" + ("" if goal is None else f" goal {goal:g}{'' if is_reached else '  MISSED'}"), flush=True)
    if not is_reached:
        missed.append(name)


def tell_missed():
    """The exit status: times are asserted only when DATACAKE_GOALS=1 asks for it, as a busy machine is no defect."""
    print(f"goals missed: {', '.join(missed) if missed else 'none'}")
    return 1 if missed and os.environ.get("DATACAKE_GOALS") == "1" else 0


# ---- running --------------------------------------------------------------------------------------------------------

def run_test(name, function):
    """What to print, and whether it passed."""
    cluster = Cluster()
    began = time.monotonic()
    try:
        function(cluster)
        cluster.end()
        return f"ok      {name}  {time.monotonic() - began:.1f} s", True
    except Exception:
        spent = time.monotonic() - began
        return f"FAILED  {name}  {spent:.1f} s\n{traceback.format_exc()}{cluster.logs()}", False
    finally:
        cluster.abandon()
        shutil.rmtree(cluster.dir, ignore_errors=True)


def main(module):
    """Runs what the module's names that begin with test_ promise, or those named on the command line."""
    names = {name if name.startswith("test_") else "test_" + name for name in sys.argv[2:]}
    tests = [(name, function) for name, function in module.items()
             if name.startswith("test_") and (not names or name in names)]
    failed = 0
    # Most of the time of a test goes by waiting for what a cluster does at its own pace.
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for done in concurrent.futures.as_completed([pool.submit(run_test, *test) for test in tests]):
            text, passed = done.result()
            failed += not passed
            print(text, flush=True)
    print(f"{failed} failed")
    return failed != 0 or not tests

