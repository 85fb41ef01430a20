#!/usr/bin/env python3
"""Membership of real `datacake serve`, each in a network namespace of its own, over a network that loses, delays and cuts packets.
Usage: membership_network_test.py BIN_DIR [N]

Every namespace has a tun device, and this program is the wire between them: it reads each IP packet, of TCP as of UDP, and passes
it on, late, or not at all. So it needs neither netem nor a packet filter of the kernel, only root and /dev/net/tun; elsewhere it says
so and ends well. With DATACAKE_FULL=1 it takes minutes rather than seconds, and with DATACAKE_GOALS=1 a missed goal is a failure.
Figures come from the logs of the nodes. That views become equal is asserted, and that nobody dies too early is a goal: who dies is a matter
of time, and this program itself may get no turn for seconds. In the simulator's time it is asserted, too."""
import fcntl
import heapq
import os
import pathlib
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime

from processes import DATACAKE, ENVIRONMENT, figure, tell_missed, wait_for

COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 5
IS_FULL = os.environ.get("DATACAKE_FULL") == "1"
NAME = f"dc{os.getpid() % 100000}"
LINE = re.compile(r"^(\S+Z) \w+ +node (\d+) at \S+ is (alive|suspect|dead|left)")
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Wire(threading.Thread):
    """Passes packets between the namespaces. Rules are exchanged as a whole: (from, to) -> is it cut; loss; least and most delay."""

    def __init__(self, count):
        super().__init__(daemon=True)
        self.count, self.fds, self.is_over = count, {}, False
        self.cut, self.loss, self.delay_s = frozenset(), 0.0, (0.0, 0.0)
        self.passed = self.lost = self.order = 0
        self.late = []

    def open(self):
        for i in range(1, self.count + 1):
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            self.fds[i] = fd
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", f"{NAME}t{i}".encode(), IFF_TUN | IFF_NO_PI))
            ip("netns", "add", f"{NAME}n{i}")
            ip("link", "set", f"{NAME}t{i}", "netns", f"{NAME}n{i}")
            ip("-n", f"{NAME}n{i}", "address", "add", f"10.77.0.{i}/24", "dev", f"{NAME}t{i}")
            for device in ("lo", f"{NAME}t{i}"):
                ip("-n", f"{NAME}n{i}", "link", "set", device, "up")

    def close(self):
        self.is_over = True
        if self.is_alive():
            self.join()
        for i, fd in self.fds.items():
            os.close(fd)
            subprocess.run(["ip", "netns", "delete", f"{NAME}n{i}"], capture_output=True)

    def heal(self):
        self.cut, self.loss, self.delay_s = frozenset(), 0.0, (0.0, 0.0)

    def part(self, some, others):
        self.cut = frozenset((a, b) for a in some for b in others) | frozenset((b, a) for a in some for b in others)

    def take(self, source, packet):
        if packet[0] >> 4 != 4 or packet[16:19] != b"\x0a\x4d\x00":
            return
        to = packet[19]
        if to not in self.fds or (source, to) in self.cut or random.random() < self.loss:
            self.lost += 1
            return
        self.passed += 1
        self.order += 1
        heapq.heappush(self.late, (time.monotonic() + random.uniform(*self.delay_s), self.order, to, packet))

    def run(self):
        by_fd = {fd: i for i, fd in self.fds.items()}
        while not self.is_over:
            wait = 0.2 if not self.late else max(0.0, self.late[0][0] - time.monotonic())
            for fd in select.select(list(by_fd), [], [], min(wait, 0.2))[0]:
                try:
                    while True:
                        self.take(by_fd[fd], os.read(fd, 65536))
                except BlockingIOError:
                    pass
            while self.late and self.late[0][0] <= time.monotonic():
                _, _, to, packet = heapq.heappop(self.late)
                try:
                    os.write(self.fds[to], packet)
                except OSError:
                    self.lost += 1


class Member:
    def __init__(self, directory, node_id):
        self.id, self.dir, self.process = node_id, directory / str(node_id), None
        self.dir.mkdir()

    def start(self):
        log = open(self.dir / "log", "ab")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", f"{NAME}n{self.id}", DATACAKE, "serve", "--node-id", str(self.id), "--listen", f"10.77.0.{self.id}:7001",
             "--http", "127.0.0.1:0", "--storage", "memory", "--seed", "10.77.0.1:7001", "--seed", "10.77.0.2:7001"], stdout=log, stderr=log,
            env=ENVIRONMENT)

    def news(self, since=0):
        """What it has said of members since then: (when, who, what), in order."""
        said = []
        for line in (self.dir / "log").read_text(errors="replace").splitlines():
            found = LINE.match(line)
            if found:
                when = datetime.fromisoformat(found[1].replace("Z", "+00:00")).timestamp()
                if when >= since:
                    said.append((when, int(found[2]), found[3]))
        return said

    def view(self):
        """Its members, as it says they are, and when it last said something new."""
        news = self.news()
        return {who: what for _, who, what in news}, max((when for when, _, _ in news), default=0)


def are_equal(members, among=None):
    wanted = {member.id: "alive" for member in (among or members)}
    views = [member.view()[0] for member in members]
    return all({who: what for who, what in view.items() if what != "dead"} == wanted for view in views)


def deaths(members, since):
    return [(member.id, who) for member in members for _, who, what in member.news(since) if what == "dead"]


def heal_and_measure(name, wire, members):
    began = time.time()
    wire.heal()
    wait_for(f"one view after {name}", lambda: are_equal(members))
    figure(f"{name}: healed until all views are equal", max(0.0, max(member.view()[1] for member in members) - began), "s", 5)
    time.sleep(1)
    figure("  deaths that were found later than 0.2 s", len(deaths(members, began + 0.2)), "", 0)


def cold_start(wire, members):
    began = time.time()
    for member in members:
        member.start()
    wait_for("all to see all", lambda: are_equal(members))
    figure(f"{len(members)} namespaces: start until all see all", max(member.view()[1] for member in members) - began, "s")
    time.sleep(2)


def loss(wire, members):
    seconds = 120 if IS_FULL else 4
    began = time.time()
    wire.loss, wire.delay_s = 0.25, (0.005, 0.05)
    time.sleep(seconds)
    figure(f"25% loss, 5 to 50 ms each way, {seconds} s: deaths", len(deaths(members, began)), "", 0)
    figure("  suspicions", len([1 for member in members for _, _, what in member.news(began) if what == "suspect"]), "")
    heal_and_measure("25% loss", wire, members)


def partition(wire, members):
    few, many = members[:len(members) // 2], members[len(members) // 2:]
    began = time.time()
    wire.part({member.id for member in few}, {member.id for member in many})
    wait_for("the larger half to see the other dead", lambda: are_equal(many, many))
    figure("partition: cut until the larger half has judged the other", max(member.view()[1] for member in many) - began, "s")
    if IS_FULL:
        wait_for("the smaller half to see the other dead", lambda: are_equal(few, few))
        figure("  and the smaller one, which is isolated and holds back", max(member.view()[1] for member in few) - began, "s")
        time.sleep(30)
    heal_and_measure("partition", wire, members)


def one_way_between_two(wire, members):
    """1 cannot be heard by 3, though it hears it: others pass pings on, and nobody dies."""
    began = time.time()
    wire.cut = frozenset({(1, 3)})
    time.sleep(20)
    figure("one-way cut between two, 20 s: deaths", len(deaths(members, began)), "", 0)
    heal_and_measure("one-way cut between two", wire, members)


def one_way_of_one(wire, members):
    """The last one hears all and is heard by nobody: all others agree that it is dead, and none of them dies."""
    mute, others = members[-1], members[:-1]
    began = time.time()
    wire.cut = frozenset((mute.id, member.id) for member in others)
    wait_for("the mute one dead for all", lambda: are_equal(others, others))
    figure("mute member: cut until all others know", max(member.view()[1] for member in others) - began, "s")
    figure("  deaths of others", len([who for _, who in deaths(others, began) if who != mute.id]), "", 0)
    heal_and_measure("mute member", wire, members)


def deaf(wire, members):
    """The last one is heard by all and hears nobody: its pings go out, so that it is not alone who judges."""
    lone, others = members[-1], members[:-1]
    began = time.time()
    wire.cut = frozenset((member.id, lone.id) for member in others)
    wait_for("the deaf one dead for all", lambda: are_equal(others, others))
    figure("deaf member: cut until all others know", max(member.view()[1] for member in others) - began, "s")
    heal_and_measure("deaf member", wire, members)


def flapping(wire, members):
    """Cut and mended every 2 s: shorter than any judgement."""
    began, last = time.time(), {members[-1].id}
    for _ in range(10):
        wire.part(last, {member.id for member in members[:-1]})
        time.sleep(2)
        wire.heal()
        time.sleep(2)
    figure("link of one member cut 2 s in every 4 s, 40 s: deaths", len(deaths(members, began)), "", 0)
    heal_and_measure("flapping link", wire, members)


def may_run():
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun") or shutil.which("ip") is None:
        return "needs root, /dev/net/tun and ip"
    done = subprocess.run(["ip", "netns", "add", f"{NAME}try"], capture_output=True)
    subprocess.run(["ip", "netns", "delete", f"{NAME}try"], capture_output=True)
    return "network namespaces cannot be made here" if done.returncode != 0 else None


def main():
    why = may_run()
    if why is not None:
        print(f"skipped: {why}")
        return 0
    directory = pathlib.Path(tempfile.mkdtemp(prefix="datacake-network-"))
    members, wire = [Member(directory, i) for i in range(1, COUNT + 1)], Wire(COUNT)
    try:
        wire.open()
        wire.start()
        for scene in [cold_start, loss, partition] + ([one_way_between_two, one_way_of_one, deaf, flapping] if IS_FULL else []):
            scene(wire, members)
        print(f"packets passed {wire.passed}, lost {wire.lost}")
    except BaseException:
        for member in members:
            if (member.dir / "log").exists():
                print(f"---- node {member.id}\n" + (member.dir / "log").read_text(errors="replace")[-4000:])
        raise
    finally:
        for member in members:
            if member.process is not None:
                member.process.send_signal(signal.SIGKILL)
                member.process.wait()
        wire.close()
        shutil.rmtree(directory, ignore_errors=True)
    return tell_missed()


sys.exit(main())
