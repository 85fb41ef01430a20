"""Real nodes, and the networks between them."""
import atexit
import ctypes
import http.client
import json
import os
import random
import shutil
import pathlib
import signal
import struct
import subprocess
import time

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("DATACAKE_")}
LIBC = ctypes.CDLL(None)


def die_with_parent():
    LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: whatever becomes of the script, nothing stays behind


class Loopback:
    """An address of 127.0.0.0/8 per node. Nodes that are cut off hold what they have for each other (serve --demo-faults)."""
    name = "loopback"
    flags = ["--demo-faults"]
    is_one_way = False

    def __init__(self, count):
        base = f"127.{random.SystemRandom().randint(1, 250)}.{random.SystemRandom().randint(1, 250)}"
        self.addresses = {i: f"{base}.{i}" for i in range(1, count + 1)}

    def command(self, node_id, words):
        return words

    def apply(self, node, blocked):
        path = node.data / "blocked"
        if not node.is_heard or not node.data.exists():
            return False
        path.write_text("".join(f"{self.addresses[i]}:7001\n" for i in sorted(blocked)))
        node.process.send_signal(signal.SIGHUP)
        return True

    def close(self):
        pass


class Namespaces:
    """A network namespace per node, on one bridge. Who is cut off sends to a hardware address that nobody has: bytes vanish,
    one way."""
    name = "namespaces"
    flags = []
    is_one_way = True

    def __init__(self, count):
        self.mark = f"sk{os.getpid() % 100000}"
        net = f"10.231.{random.SystemRandom().randint(1, 250)}"
        self.addresses = {i: f"{net}.{i + 1}" for i in range(1, count + 1)}
        self.applied = {i: set() for i in self.addresses}
        atexit.register(self.close)
        ip("link", "add", self.mark, "type", "bridge")
        ip("addr", "add", f"{net}.1/24", "dev", self.mark)
        ip("link", "set", self.mark, "up")
        for i, address in self.addresses.items():
            space, outside = f"{self.mark}-{i}", f"{self.mark}v{i}"
            ip("netns", "add", space)
            ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", outside, "master", self.mark, "up")
            ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")

    def command(self, node_id, words):
        return ["ip", "netns", "exec", f"{self.mark}-{node_id}", *words]

    def apply(self, node, blocked):
        space = f"{self.mark}-{node.id}"
        for i in blocked - self.applied[node.id]:
            ip("-n", space, "neigh", "replace", self.addresses[i], "lladdr", "02:00:00:00:de:ad", "dev", "eth0", "nud",
               "permanent")
        for i in self.applied[node.id] - blocked:
            ip("-n", space, "neigh", "del", self.addresses[i], "dev", "eth0")
        self.applied[node.id] = set(blocked)
        return True

    def close(self):
        for i in self.addresses:
            ip("link", "del", f"{self.mark}v{i}", check=False)
            ip("netns", "del", f"{self.mark}-{i}", check=False)
        ip("link", "del", self.mark, check=False)
        self.addresses = {}


def ip(*words, check=True):
    subprocess.run(["ip", *words], check=check, stdout=subprocess.DEVNULL, stderr=None if check else subprocess.DEVNULL)


def build_skew(directory):
    """The library that skews a process's wall clock; None where there is no compiler."""
    source, library = pathlib.Path(__file__).with_name("skew.c"), directory / "skew.so"
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        return None
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


class Node:
    """life counts its starts. is_heard: it answers, so that signals to it have their handlers. is_wanted: its end would be
    its own doing."""
    def __init__(self, program, network, directory, node_id, flags, skew_library):
        self.program, self.network, self.id, self.flags = program, network, node_id, flags
        self.address = network.addresses[node_id]
        self.dir = directory / f"node-{node_id}"
        self.data = self.dir / "data"
        self.dir.mkdir()
        self.environment = dict(ENVIRONMENT)
        if skew_library:
            self.environment.update(LD_PRELOAD=str(skew_library), DATACAKE_SKEW=str(self.dir / "skew"))
            options = self.environment.get("ASAN_OPTIONS", "")  # a sanitizer would not be the second library
            self.environment["ASAN_OPTIONS"] = f"{options}:verify_asan_link_order=0" if options else "verify_asan_link_order=0"
        self.set_skew(0)
        self.process, self.life, self.blocked, self.applied = None, 0, set(), set()
        self.is_heard = self.is_wanted = self.is_paused = False
        self.peak_kib = 0

    def start(self, seeds):
        self.life += 1
        self.is_heard, self.is_wanted, self.applied = False, True, None
        if self.data.exists():
            (self.data / "blocked").unlink(missing_ok=True)
        words = [self.program, "serve", "--node-id", str(self.id), "--data-dir", str(self.data), "--listen",
                 f"{self.address}:7001", "--http", f"{self.address}:8001", *self.network.flags, *self.flags,
                 *(f"--seed={self.network.addresses[i]}:7001" for i in seeds)]
        with open(self.dir / "log", "ab") as log:
            self.process = subprocess.Popen(self.network.command(self.id, words), stdout=log, stderr=log,
                                            env=self.environment, preexec_fn=die_with_parent)

    def set_skew(self, milliseconds):
        with open(self.dir / "skew", "r+b" if (self.dir / "skew").exists() else "wb") as file:
            file.write(struct.pack("<q", milliseconds))

    def kill(self):
        self.is_wanted = self.is_heard = self.is_paused = False
        if self.process:
            self.note_memory()
            self.process.kill()
            self.process.wait()
            self.process = None

    def end(self):
        self.is_wanted = self.is_heard = False
        self.note_memory()
        self.process.send_signal(signal.SIGTERM)

    def has_ended(self, seconds):
        """None while it runs for longer; else its status."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self.process = None
        return status

    def lose_disk(self):
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)

    def pause(self, is_paused):
        self.is_paused = is_paused
        self.process.send_signal(signal.SIGSTOP if is_paused else signal.SIGCONT)

    def note_memory(self):
        try:
            with open(f"/proc/{self.process.pid}/status") as status:
                peak = next((line for line in status if line.startswith("VmHWM")), None)
            self.peak_kib = max(self.peak_kib, int(peak.split()[1]) if peak else 0)
        except OSError:
            pass

    def tend(self):
        """Tells it who is cut off from it, once it can hear."""
        if self.process and not self.is_heard and not self.is_paused:
            self.is_heard = self.is_wanted and self.answers("/healthz")
        if self.process and self.applied != self.blocked and self.network.apply(self, self.blocked):
            self.applied = set(self.blocked)

    def answers(self, path):
        try:
            return self.ask("GET", path, timeout=1)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def connect(self, timeout):
        return http.client.HTTPConnection(self.address, 8001, timeout=timeout)

    def ask(self, method, path, body=None, timeout=120):
        connection = self.connect(timeout)
        try:
            connection.request(method, path, body=body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def status(self):
        try:
            return json.loads(self.ask("GET", "/status", timeout=60)[1])
        except (OSError, http.client.HTTPException, ValueError):
            return None

    def log_tail(self, lines=25):
        text = (self.dir / "log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def wait_for(condition, seconds, step=0.1):
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(step)
