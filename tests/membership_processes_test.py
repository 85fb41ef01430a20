#!/usr/bin/env python3
"""Membership of N `datacake serve` on one machine (8, or the second argument): how long until all see all, what idle members cost,
who notices a pause, a kill, a restart and a goodbye, and when. Usage: membership_processes_test.py BIN_DIR [N]

Nobody is asked anything while figures are taken: they come from the logs of the nodes and from /proc. What is asserted has
generous deadlines; the goals of docs/membership.md stand beside the figures, and with DATACAKE_GOALS=1 they are asserted, too. Whether
nobody dies who only had no turn is one of them: on a machine that is busy with other things it may be more than the 4 s of this test."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime

from processes import DATACAKE, ENVIRONMENT, PATIENCE_S, figure, free_port, new_cluster_id, tell_missed, wait_for

COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 8
SETTLE_S, IDLE_S = (2, 3) if COUNT < 20 else (20, 30)  # to begin as a cluster takes 10 s where all are new
CLUSTER_ID = new_cluster_id()
STORAGE = os.environ.get("DATACAKE_STORAGE", "sqlite")
LINE = re.compile(r"^(\S+Z) \w+ +node (\d+) at \S+ is (alive|suspect|dead|left|back)")


class Member:
    def __init__(self, directory, node_id):
        self.id, self.dir, self.listen = node_id, directory / str(node_id), free_port()
        self.dir.mkdir()
        self.read_bytes, self.seen, self.process = 0, [], None

    def start(self, seeds):
        self.log = open(self.dir / "log", "ab")
        data = [] if STORAGE == "memory" else ["--data-dir", str(self.dir / "data")]
        self.started = time.time()
        self.process = subprocess.Popen(
            [DATACAKE, "serve", "--node-id", str(self.id), "--listen", f"127.0.0.1:{self.listen}", "--http", "127.0.0.1:0", "--cluster-id",
             CLUSTER_ID, "--storage", STORAGE, *data, *(f"--seed=127.0.0.1:{seed.listen}" for seed in seeds)],
            stdout=self.log, stderr=self.log, env=ENVIRONMENT)

    def news(self):
        """What it has said of members so far: (when, who, what), in order."""
        with open(self.dir / "log", "rb") as log:
            log.seek(self.read_bytes)
            text = log.read()
        whole = text.rfind(b"\n") + 1
        self.read_bytes += whole
        for line in text[:whole].decode(errors="replace").splitlines():
            found = LINE.match(line)
            if found:
                when = datetime.fromisoformat(found[1].replace("Z", "+00:00")).timestamp()
                self.seen.append((when, int(found[2]), found[3]))
        return self.seen

    def statuses(self, since=0):
        return {who: (what, when) for when, who, what in self.news() if when >= since}

    def cpu_s(self):
        """Of all its threads, to the nanosecond; the ticks of /proc/PID/stat are too coarse for this."""
        return sum(int(file.read_text().split()[0]) for file in pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")) / 1e9

    def memory(self):
        """Resident KiB: all, what is its own, and its share of what several processes have mapped."""
        text = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        values = {name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB", text, re.M)}
        return values["Rss"], values["Private_Dirty"] + values["Private_Clean"], values["Pss"]


def start_all(members):
    """All at once, by two seeds; the time from the first start until the last one has seen the last one."""
    for member in members:
        member.start(members[:2])
    everyone = {member.id for member in members}

    def all_see_all():
        for member in members:
            assert member.process.poll() is None, f"node {member.id} has ended:\n{(member.dir / 'log').read_text()}"
        return all(everyone <= set(member.statuses()) for member in members)
    time.sleep(0.05 * len(members))  # reading so many logs takes as much time as what is being measured
    wait_for("all to see all", all_see_all)
    began = members[0].started
    last_start = max(max(when for when, who, what in member.seen if who == member.id) for member in members)
    last_seen = max(min(when for when, who, what in member.seen if who == other) for member in members for other in everyone)
    figure(f"{len(members)} processes: start of the first until all see all", last_seen - began, "s", 1.6)
    figure("  of which until the last one was up", last_start - began, "s")


def measure_idle(members):
    time.sleep(SETTLE_S)  # joining is over, and what it stirred up has settled
    before, began = {member.id: member.cpu_s() for member in members}, time.monotonic()
    time.sleep(IDLE_S)
    spent = time.monotonic() - began
    shares = sorted(100 * (member.cpu_s() - before[member.id]) / spent for member in members)
    figure(f"CPU of an idle member, mean over {spent:.0f} s", sum(shares) / len(shares), "%", 0.2)
    figure("  of the busiest one", shares[-1], "%")
    memory = [member.memory() for member in members]
    figure("RSS of a member, largest", max(rss for rss, _, _ in memory) / 1024, "MiB", 8)
    figure("  its own pages, largest", max(own for _, own, _ in memory) / 1024, "MiB")
    figure("  proportional share, mean", sum(pss for _, _, pss in memory) / len(memory) / 1024, "MiB")


def pause(members):
    """A SIGSTOP of 4 s: nobody is dead for anybody, neither the one that slept nor those that it missed."""
    began, sleeper = time.time(), members[-1]
    sleeper.process.send_signal(signal.SIGSTOP)
    time.sleep(4)
    sleeper.process.send_signal(signal.SIGCONT)
    time.sleep(4)
    deaths = [(member.id, who) for member in members for when, who, what in member.news() if when >= began and what in ("dead", "left")]
    figure("SIGSTOP of 4 s: deaths", len(deaths), "", 0)


def kill(members):
    victim, others = members[-2], [member for member in members if member is not members[-2]]
    began = time.time()
    victim.process.kill()
    victim.process.wait()

    def what_of_victim():
        return [member.statuses(began).get(victim.id, ("", 0)) for member in others]
    wait_for("the death known to all", lambda: all(what == "dead" for what, _ in what_of_victim()))
    times = sorted(when - began for _, when in what_of_victim())
    figure("SIGKILL until the first one knows", times[0], "s")
    figure("SIGKILL until all know", times[-1], "s", 8)
    began = time.time()
    victim.start(members[:2])
    wait_for("the restarted one known to all", lambda: all(what in ("alive", "back") for what, _ in what_of_victim()))
    figure("restart until all know", max(when for _, when in what_of_victim()) - began, "s")
    figure("  deaths since", len([who for member in members for when, who, what in member.news() if when >= began and what == "dead"]), "", 0)


def goodbye(members):
    leaver, others = members[-1], members[:-1]
    began = time.time()
    leaver.process.send_signal(signal.SIGTERM)
    assert leaver.process.wait(PATIENCE_S) == 0
    figure("SIGTERM until the process has ended", time.time() - began, "s")
    wait_for("the goodbye known to all", lambda: all(member.statuses(began).get(leaver.id, ("",))[0] == "left" for member in others))
    figure("SIGTERM until all know", max(member.statuses(began)[leaver.id][1] for member in others) - began, "s")


def main():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="datacake-members-"))
    members = [Member(directory, i + 1) for i in range(COUNT)]
    try:
        start_all(members)
        measure_idle(members)
        pause(members)
        kill(members)
        goodbye(members)
    except BaseException:
        for member in members[:2] + members[-2:]:
            print(f"---- node {member.id}\n" + (member.dir / "log").read_text(errors="replace")[-3000:] if (member.dir / "log").exists() else "")
        raise
    finally:
        for member in members:
            if member.process and member.process.poll() is None:
                member.process.kill()
                member.process.wait()
        shutil.rmtree(directory, ignore_errors=True)
    return tell_missed()


sys.exit(main())
