"""What clients were told, and whether what the nodes hold in the end agrees with it.

A write is acknowledged (with its stamp), refused (nothing was written), or open: it may be there or not. Every value is
written once in a run, so that what is found names its write. After a heal all nodes are equal, and what they hold is the new
beginning: whatever else was ever written must never come back."""
import threading

OPEN, REFUSED, ACKNOWLEDGED = "open", "refused", "acknowledged"
QUORUMS = ("quorum", "local_quorum", "each_quorum", "all")  # one data centre: each is a majority at least


class Write:
    """token None: a delete. The stamp is between low and high (None: not known); both are the same for single writes."""
    def __init__(self, token, level, node, life):
        self.token, self.level, self.node, self.life = token, level, node, life
        self.state, self.low, self.high = OPEN, None, None

    def __str__(self):
        what = "delete" if self.token is None else f"put {self.token}"
        return f"{what} at {self.level} by node {self.node}, {self.state}, stamp {stamp_text(self.high)}"


def stamp_text(stamp):
    return "unknown" if stamp is None else f"{stamp >> 16}+{stamp & 0xffff}"


class History:
    def __init__(self):
        self.lock = threading.Lock()
        self.writes = {}  # (keyspace, key) -> [Write]: since the last heal, and the one that stood then
        self.count = self.next_token = 0
        self.tally = {OPEN: 0, REFUSED: 0, ACKNOWLEDGED: 0}

    def begin(self, place, is_delete, level, node, life):
        with self.lock:
            self.next_token += 1
            write = Write(None if is_delete else str(self.next_token), level, node, life)
            self.writes.setdefault(place, []).append(write)
            return write

    def end(self, write, state, low=None, high=None):
        with self.lock:
            write.state, write.low, write.high = state, low, high
            self.tally[state] += 1

    def quorum_floor(self, place):
        """The greatest stamp acknowledged by a majority so far; whether a delete may have followed."""
        with self.lock:
            writes = self.writes.get(place, [])
            floor = max((w for w in writes if w.state == ACKNOWLEDGED and w.level in QUORUMS),
                        key=lambda w: w.low, default=None)
            return floor

    def has_delete(self, place):
        with self.lock:
            return any(w.token is None and w.state != REFUSED for w in self.writes.get(place, []))

    def settle(self, found, lost_lives):
        """found: (keyspace, key) -> (token, stamp), on all nodes alike. lost_lives: node -> the life that ended with the loss of
        its disk; what only that disk had is not missed. Returns what is wrong, and makes `found` the new beginning."""
        problems = []
        with self.lock:
            for place in found.keys() - self.writes.keys():
                problems.append(f"{place}: holds {found[place][0]}, which was never written here")
            for place, writes in self.writes.items():
                problem = judge(writes, found.get(place), lost_lives)
                if problem:
                    problems.append(f"{place}: {problem}; writes: " + "; ".join(str(w) for w in writes[-20:]))
            for place in list(self.writes):
                self.writes[place] = [rebase(self.writes[place], found.get(place))]
        return problems


def is_certain(write, lost_lives):
    is_lost = write.level == "none" and write.life <= lost_lives.get(write.node, -1)
    return write.state == ACKNOWLEDGED and not is_lost


def judge(writes, found, lost_lives):
    floor = max((w for w in writes if is_certain(w, lost_lives)), key=lambda w: w.high, default=None)
    if found is None:
        if floor is None or floor.token is None:
            return None
        for write in writes:
            is_later = write.high is None or write.high >= floor.low
            if write.token is None and write.state != REFUSED and is_later:
                return None
        return f"acknowledged {floor.token} is lost: there is nothing"
    token, stamp = found
    write = next((w for w in writes if w.token == token), None)
    if write is None:
        return f"{token} came back: it was overwritten or deleted before the last heal, or written elsewhere"
    if write.state == REFUSED:
        return f"{token} was refused, and is there"
    if write.low is not None and stamp < write.low:
        return f"{token} has the stamp {stamp_text(stamp)}"
    if floor is None or floor is write:
        return None
    # A node may stamp a document of its own anew, so that it survives a comparison: what it was counts.
    if (stamp if write.high is None else min(stamp, write.high)) < floor.low:
        kind = "delete undone" if floor.token is None else f"{floor.token} is lost"
        return f"acknowledged {kind}: there is the older {token}"
    return None


def rebase(writes, found):
    last = Write(None, "all", 0, 0)
    last.state, last.low, last.high = ACKNOWLEDGED, 0, 0
    if found is not None:
        last.token, last.low, last.high = found[0], found[1], found[1]
    else:
        last.low = last.high = max((w.high for w in writes if w.state == ACKNOWLEDGED and w.token is None), default=0)
    return last
