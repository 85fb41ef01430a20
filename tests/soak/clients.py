"""Clients: threads that write, delete and read at random, and note what they were told."""
import http.client
import json
import threading
import time
from datetime import datetime, timezone

from history import ACKNOWLEDGED, OPEN, REFUSED

LEVELS = ["none"] * 6 + ["one"] * 2 + ["two", "local_quorum", "each_quorum"] + ["quorum"] * 7 + ["all"] * 2
NOT_WRITTEN = {"not_enough_nodes", "not_joined", "busy", "clock_drift", "out_of_memory", "storage_full"}
MAY_BE_WRITTEN = {"consistency_failed", "closing", "storage_failed", "internal"}
PATIENCE_S = 4
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def parse_stamp(text):
    """2026-11-22T10:20:30.123Z+0042: milliseconds, and a counter of four hexadecimal digits."""
    if text is None:
        return None
    when, counter = text.rsplit("Z+", 1)
    delta = datetime.strptime(when + "+0000", "%Y-%m-%dT%H:%M:%S.%f%z") - EPOCH
    return ((delta.days * 86400 + delta.seconds) * 1000 + delta.microseconds // 1000) << 16 | int(counter, 16)


class Answer:
    def __init__(self, response):
        self.status, self.body = response.status, response.read()
        self.etag, self.stamp_header = response.getheader("ETag"), response.getheader("X-Datacake-Timestamp")
        self.stamp = parse_stamp(self.stamp_header)

    def json(self):
        return json.loads(self.body)

    def code(self):
        try:
            return self.json()["error"]["code"]
        except (ValueError, KeyError, TypeError):
            return None


class NotSent(Exception):
    pass


class Client(threading.Thread):
    """Works while soak.is_open; is_idle says that nothing of it is under way."""
    def __init__(self, soak, number, random):
        super().__init__(daemon=True)
        self.soak, self.number, self.random = soak, number, random
        self.connections, self.is_idle, self.is_over = {}, True, False

    def run(self):
        while not self.is_over:
            if not self.soak.is_open:
                self.is_idle = True
                time.sleep(0.02)
                continue
            self.is_idle = False
            if self.soak.is_open:
                try:
                    self.step()
                except Exception as problem:  # a client that dies unseen would make the run worth nothing
                    self.soak.fail(f"client {self.number}: {problem!r}")
            time.sleep(self.random.uniform(0, 2 * self.pause_s()))
        self.is_idle = True

    def pause_s(self):
        return self.soak.clients_count / self.soak.rate

    def ask(self, node, method, path, body=None, headers={}):
        connection = self.connections.pop(node.id, None)
        if connection is None:
            connection = node.connect(PATIENCE_S)
            try:
                connection.connect()
            except OSError as problem:
                raise NotSent from problem
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = Answer(connection.getresponse())
        except BaseException:
            connection.close()
            raise
        self.connections[node.id] = connection
        return answer

    def write(self, place, is_delete):
        node, level = self.random.choice(self.soak.nodes), self.random.choice(LEVELS)
        write = self.soak.history.begin(place, is_delete, level, node.id, node.life)
        path = f"/kv/{place[0]}/{place[1]}?consistency={level}"
        try:
            if is_delete:
                answer = self.ask(node, "DELETE", path)
            else:
                length = self.random.choice([0, 10, 100, 100, 1000, 20000])
                answer = self.ask(node, "PUT", path, f"{write.token}.{'x' * length}")
        except NotSent:
            self.soak.history.end(write, REFUSED)
            return
        except (OSError, http.client.HTTPException):
            self.soak.history.end(write, OPEN)
            return
        if answer.status == 200:
            stamp = parse_stamp(answer.json()["timestamp"])
            self.soak.history.end(write, ACKNOWLEDGED, stamp, stamp)
        elif answer.code() in NOT_WRITTEN:
            self.soak.history.end(write, REFUSED)
        else:
            self.soak.history.end(write, OPEN, None, answer.stamp)
            if answer.code() not in MAY_BE_WRITTEN:
                self.soak.fail(f"{write}: answered {answer.status} {answer.body[:200]}")

    def read(self, place):
        """At a quorum: not older than what a quorum had acknowledged before. After the loss of a disk that holds again from
        the next heal on."""
        node = self.random.choice(self.soak.nodes)
        floor = self.soak.history.quorum_floor(place)
        try:
            answer = self.ask(node, "GET", f"/kv/{place[0]}/{place[1]}?consistency=quorum")
        except (NotSent, OSError, http.client.HTTPException):
            return
        if floor is None or self.soak.lost_lives or answer.status not in (200, 404):
            return
        self.soak.reads_checked += 1
        if answer.status == 404:
            if floor.token is not None and not self.soak.history.has_delete(place):
                self.soak.fail(f"{place}: node {node.id} read nothing at quorum after {floor}")
            return
        stamp = int(answer.etag.strip('"').split("-")[0], 16)
        if stamp < floor.low:
            self.soak.fail(f"{place}: node {node.id} read {answer.body[:20]} of {stamp} at quorum after {floor}")

    def step(self):
        place = (f"space-{self.random.randrange(3)}", f"key-{self.random.randrange(self.soak.keys)}")
        choice = self.random.random()
        if choice < 0.6:
            self.write(place, False)
        elif choice < 0.85:
            self.write(place, True)
        else:
            self.read(place)


class BulkClient(Client):
    """The only writer of its keyspace: many documents at once, each call ordered after the one before."""
    COUNT = 300

    def __init__(self, soak, number, random):
        super().__init__(soak, number, random)
        self.stamp_header, self.low = None, 0

    def pause_s(self):
        return 1.0

    def step(self):
        node, level = self.random.choice(self.soak.nodes), self.random.choice(LEVELS)
        is_delete = self.random.random() < 0.4
        first = self.random.randrange(2000)
        lines, writes = [], []
        for i in range(first, first + self.COUNT):
            write = self.soak.history.begin(("bulk", f"key-{i}"), is_delete, level, node.id, node.life)
            line = {"key": f"key-{i}", "delete": True} if is_delete else {"key": f"key-{i}", "value": write.token + "."}
            writes.append(write)
            lines.append(json.dumps(line))
        headers = {} if self.stamp_header is None else {"X-Datacake-Timestamp": self.stamp_header}
        state, low, high = OPEN, None, None
        try:
            answer = self.ask(node, "POST", f"/kv/bulk?consistency={level}", "\n".join(lines), headers)
        except NotSent:
            state = REFUSED
        except (OSError, http.client.HTTPException):
            pass
        else:
            high = answer.stamp
            if answer.status == 200:
                state, low = ACKNOWLEDGED, self.low
                if answer.json()["failed"]:
                    self.soak.fail(f"bulk: {answer.body[:300]}")
            elif answer.code() not in NOT_WRITTEN | MAY_BE_WRITTEN:
                self.soak.fail(f"bulk: answered {answer.status} {answer.body[:200]}")
            if high is not None:
                self.stamp_header, self.low = answer.stamp_header, high
        for write in writes:
            self.soak.history.end(write, state, low, high)
