#!/usr/bin/env python3
"""Random load and random faults on five real nodes, checked at every heal.

    soak.py BIN_DIR [--duration-s 60] [--seed N] [--nodes 5] [--storage sqlite] [--netns] [--keep] ...

Rounds of faults under load, each ended by a heal: everything runs again, nobody is cut off, clients rest. Then, within bounds:
all nodes hold the same documents (fingerprints, and everything listed), no write is lost that was acknowledged, nothing comes back
that was deleted or overwritten, nothing is there that was refused, and no tombstones stay. During the rounds reads at quorum are
checked against what a quorum had acknowledged. A node that ends by itself, or does not end when told to, is a failure.

Faults: SIGKILL of one or all, graceful restarts, SIGSTOP, partitions, clocks that jump, the loss of one disk per round. Partitions are made by the nodes
themselves (serve --demo-faults), or with --netns (root, ip) by a network namespace per node, where bytes vanish, also one way only.
Each node's wall clock is off by up to --skew-ms, and jumps now and then (skew.c, where there is a compiler). The seed decides what is done, not how
threads and processes interleave.

Exit status 0: nothing found. 1: found something; the logs and data stay. Nothing stays running."""
import argparse
import heapq
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time

from clients import BulkClient, Client, parse_stamp
from history import ACKNOWLEDGED, OPEN, REFUSED, History
from nodes import Loopback, Namespaces, Node, build_skew, wait_for

HEAL_S = 120  # to be whole and equal again; a loaded machine is slow
PROBLEMS_MAX = 20


class Soak:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.rate, self.keys = options.rate, options.keys
        self.history, self.problems, self.lost_lives = History(), [], {}
        self.reads_checked, self.is_open, self.faults = 0, False, {}
        self.lock = threading.Lock()
        self.began = time.monotonic()
        self.undo, self.cut_count = [], 0
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="datacake-soak-"))
        self.network = (Namespaces if options.netns else Loopback)(options.nodes)
        flags = ["--storage", options.storage, *options.flag]
        program = str(pathlib.Path(options.bin_dir).resolve() / "datacake")
        self.skew = build_skew(self.dir) if options.skew_ms > 0 else None
        self.nodes = [Node(program, self.network, self.dir, i + 1, flags, self.skew) for i in range(options.nodes)]
        for node in self.nodes:
            self.jump_clock(node)
        self.clients_count = options.clients
        self.clients = [Client(self, i, random.Random(f"{options.seed}/{i}")) for i in range(options.clients)]
        self.clients.append(BulkClient(self, options.clients, random.Random(f"{options.seed}/bulk")))

    def say(self, text):
        sys.stdout.write(f"{time.monotonic() - self.began:7.1f} s  {text}\n")
        sys.stdout.flush()

    def fail(self, text):
        with self.lock:
            self.problems.append(text)
            is_shown = len(self.problems) <= PROBLEMS_MAX
        if is_shown:
            self.say(f"PROBLEM {text}")

    # ---- faults: each does something now, and puts off what ends it -----------------------------------------------------

    def later(self, low_s, high_s, action):
        at = time.monotonic() + self.random.uniform(low_s, high_s)
        heapq.heappush(self.undo, (at, len(self.undo) + self.random.random(), action))

    def start(self, node):
        if node.process:  # two faults met, and the other has started it
            return
        node.start([n.id for n in self.nodes if n is not node])

    def kill(self, node):
        node.kill()
        self.later(0, 6, lambda: self.start(node))

    def kill_all(self, _):
        for node in self.nodes:
            if node.process and node.is_wanted:
                node.kill()
                self.later(0, 3, lambda node=node: self.start(node))

    def restart(self, node):
        if not node.is_heard:  # it has no handlers yet: SIGTERM would only kill it
            self.kill(node)
            return
        node.end()

        def start_again():
            self.has_ended_well(node)
            self.start(node)
        self.later(0.5, 5, start_again)

    def has_ended_well(self, node):
        if node.process is None:  # killed meanwhile
            return
        status = node.has_ended(120)
        if status != 0:
            self.fail(f"node {node.id}: after SIGTERM {'it runs on' if status is None else f'status {status}'}\n"
                      f"{node.log_tail()}")
            node.kill()

    def pause(self, node):
        node.pause(True)

        def go_on():
            if node.is_paused:
                node.pause(False)
        self.later(0.2, 9, go_on)

    def cut(self, _):
        """Two sides, or some pairs; one way where the network can."""
        ids = [n.id for n in self.nodes]
        if self.random.random() < 0.6:
            side = set(self.random.sample(ids, self.random.randint(1, len(ids) // 2)))
            pairs = {(a, b) for a in ids for b in ids if (a in side) != (b in side)}
        else:
            chosen = self.random.sample([(a, b) for a in ids for b in ids if a < b], 3)
            pairs = {(a, b) for a, b in chosen} | {(b, a) for a, b in chosen}
        if self.network.is_one_way and self.random.random() < 0.4:
            pairs = {(a, b) for a, b in pairs if self.random.random() < 0.5}
        for node in self.nodes:
            node.blocked = {b for a, b in pairs if a == node.id}
            node.tend()
        self.later(1, 10, self.join)
        return "cut " + " ".join(f"{a}>{b}" for a, b in sorted(pairs))

    def join(self):
        for node in self.nodes:
            node.blocked = set()
            node.tend()

    def jump_clock(self, node):
        skew_ms = self.random.randint(-self.options.skew_ms, self.options.skew_ms)
        node.set_skew(skew_ms if self.skew else 0)
        return f"clock of {node.id} at {skew_ms:+} ms"

    def lose_disk(self, node):
        self.lost_lives[node.id] = node.life
        node.lose_disk()
        self.later(0, 3, lambda: self.start(node))

    def choose_fault(self):
        """Returns what was done. At most two nodes are missing at once, but for kill_all; one disk is lost in a round."""
        up = [n for n in self.nodes if n.process and n.is_wanted and not n.is_paused]
        if len(up) < len(self.nodes) - 1:
            return None
        kinds = [self.kill] * 6 + [self.restart] * 3 + [self.pause] * 4 + [self.cut] * 4 + [self.kill_all]
        if self.skew:
            kinds += [self.jump_clock] * 3
        if not self.lost_lives and self.options.lose_disks and len(up) == len(self.nodes):
            kinds.append(self.lose_disk)
        kind, node = self.random.choice(kinds), self.random.choice(up)
        name = kind.__name__
        if kind == self.cut and any(n.blocked for n in self.nodes):
            return None
        self.faults[name] = self.faults.get(name, 0) + 1
        text = kind(node)
        return text or (name if kind == self.kill_all else f"{name} {node.id}")

    def tend(self):
        now = time.monotonic()
        while self.undo and self.undo[0][0] <= now:
            heapq.heappop(self.undo)[2]()
        for node in self.nodes:
            node.tend()
            if node.process and node.is_wanted and node.process.poll() is not None:
                self.fail(f"node {node.id} ended by itself with {node.process.returncode}\n{node.log_tail()}")
                node.kill()
                self.start(node)

    def chaos(self, seconds):
        end = time.monotonic() + seconds
        next_fault = time.monotonic() + 1
        while time.monotonic() < end:
            self.tend()
            if time.monotonic() >= next_fault:
                done = self.choose_fault()
                if done:
                    self.say(done)
                next_fault = time.monotonic() + self.random.uniform(0.3, 3)
            time.sleep(0.03)

    # ---- heals --------------------------------------------------------------------------------------------------------------

    def rest(self):
        self.is_open = False
        if not wait_for(lambda: all(c.is_idle for c in self.clients), 120, 0.02):
            self.fail("a client hangs")

    def is_whole(self):
        for node in self.nodes:
            node.tend()
            status = node.status()
            if status is None or not status["store"]["joined"]:
                return False
            if not status["cluster"]["alive"] == status["store"]["replicas"] == len(self.nodes):
                return False
        return True

    def is_equal(self):
        statuses = [node.status() for node in self.nodes]
        if None in statuses:
            return False
        return len({(s["store"]["fingerprint"], s["store"]["live"]) for s in statuses}) == 1

    def has_no_tombstones(self):
        statuses = [node.status() for node in self.nodes]
        return None not in statuses and not any(s["store"]["tombstones"] for s in statuses)

    def listing(self, node):
        """(keyspace, key) -> (token, stamp)"""
        found = {}
        for space in json.loads(node.ask("GET", "/kv")[1])["keyspaces"]:
            for line in node.ask("GET", f"/kv/{space['name']}?values=1", timeout=120)[1].splitlines():
                row = json.loads(line)
                found[space["name"], row["key"]] = (row["value"].split(".")[0], parse_stamp(row["timestamp"]))
        return found

    def show_states(self):
        for node in self.nodes:
            status = node.status()
            text = "does not answer" if status is None else json.dumps(
                {"cluster": status["cluster"], "store": status["store"], "peers": status["peers"]})
            self.say(f"node {node.id}: {text}\n{node.log_tail()}")

    def wait(self, what, condition, seconds):
        began = time.monotonic()
        if wait_for(condition, seconds):
            return time.monotonic() - began
        self.fail(f"not {what} within {seconds} s")
        self.show_states()
        return None

    def compare_listings(self):
        listings = [self.listing(node) for node in self.nodes]
        for node, listing in zip(self.nodes[1:], listings[1:]):
            differing = [p for p in listing.keys() | listings[0].keys() if listing.get(p) != listings[0].get(p)]
            if differing:
                self.fail(f"nodes 1 and {node.id} differ in {len(differing)} documents: " + ", ".join(
                    f"{p}: {listings[0].get(p)} and {listing.get(p)}" for p in sorted(differing)[:5]))
        for problem in self.history.settle(listings[0], self.lost_lives):
            self.fail(problem)
        return listings[0]

    def heal(self):
        self.join()
        while self.undo:
            heapq.heappop(self.undo)[2]()
        self.chaos_free(2)  # clients find it whole again while it still catches up
        self.rest()
        whole_s = self.wait("whole", self.is_whole, HEAL_S)
        equal_s = self.wait("equal", self.is_equal, HEAL_S)
        if whole_s is None or equal_s is None:
            return False
        found = self.compare_listings()
        clean_s = self.wait("without tombstones", self.has_no_tombstones, HEAL_S)
        if clean_s is not None and self.compare_after(found):
            self.say(f"healed: whole after {whole_s:.1f} s, equal {equal_s:.1f} s later, {len(found)} documents, "
                     f"no tombstones {clean_s:.1f} s later")
        self.lost_lives = {}
        return not self.problems

    def compare_after(self, found):
        """Tombstones have gone: what they deleted must not be back."""
        for node in self.nodes:
            if self.listing(node) != found:
                self.fail(f"node {node.id} holds something else once tombstones have gone")
                return False
        return True

    def chaos_free(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.tend()
            time.sleep(0.03)

    # ---- the run --------------------------------------------------------------------------------------------------------

    def form(self):
        self.nodes[0].start([])
        wait_for(lambda: self.nodes[0].answers("/readyz"), 60)
        for node in self.nodes[1:]:
            self.start(node)
        return self.wait("whole", self.is_whole, HEAL_S) is not None

    def run(self):
        options = self.options
        self.say(f"seed {options.seed}, {options.nodes} nodes on {options.storage}, {self.network.name}, "
                 f"{options.clients} clients, {options.duration_s} s, logs in {self.dir}")
        for client in self.clients:
            client.start()
        is_fine = self.form()
        while is_fine and time.monotonic() - self.began < options.duration_s:
            self.is_open = True
            self.chaos(min(options.round_s, max(5, options.duration_s - (time.monotonic() - self.began) - 15)))
            is_fine = self.heal()
        self.report_figures()
        if is_fine:
            for node in self.nodes:
                node.end()
            for node in self.nodes:
                self.has_ended_well(node)

    def report_figures(self):
        totals = {}
        for status in filter(None, (node.status() for node in self.nodes)):
            for name, value in status["store"].items():
                if name.startswith(("sessions_", "repairs", "tombstones_purged", "commits_failed")):
                    totals[name] = totals.get(name, 0) + value
        for node in self.nodes:
            if node.process:
                node.note_memory()
        tally = self.history.tally
        self.say(f"writes: {tally[ACKNOWLEDGED]} acknowledged, {tally[REFUSED]} refused, {tally[OPEN]} open; "
                 f"{self.reads_checked} reads at quorum checked")
        self.say("faults: " + ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items())))
        self.say("since the last starts: " + ", ".join(f"{name} {value}" for name, value in totals.items()))
        self.say("peak memory: " + ", ".join(f"{n.peak_kib / 1024:.0f} MiB" for n in self.nodes))

    def close(self):
        self.is_open = False
        for client in self.clients:
            client.is_over = True
        for node in self.nodes:
            node.kill()
        self.network.close()
        if self.problems or self.options.keep:
            self.say(f"logs and data stay in {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin_dir")
    parser.add_argument("--duration-s", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--storage", default="sqlite")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--rate", type=float, default=300, help="calls per second of all clients")
    parser.add_argument("--keys", type=int, default=150, help="in each of three keyspaces")
    parser.add_argument("--round-s", type=float, default=20, help="of faults before each heal")
    parser.add_argument("--netns", action="store_true", help="a network namespace per node (root)")
    parser.add_argument("--skew-ms", type=int, default=4000, help="0: one clock for all")
    parser.add_argument("--no-lose-disks", dest="lose_disks", action="store_false")
    parser.add_argument("--flag", action="append", default=[], help="one more flag of serve, as --flag=--lanes=2")
    parser.add_argument("--keep", action="store_true", help="logs and data also when nothing was found")
    return parser.parse_args()


def main():
    options = parse_options()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, lambda received, _: sys.exit(f"soak.py: ended by signal {received}"))
    soak = Soak(options)
    try:
        soak.run()
    finally:
        soak.close()
    if soak.problems:
        soak.say(f"FOUND {len(soak.problems)} problems; again with --seed {options.seed}")
        sys.exit(1)
    soak.say("nothing found")


main()
