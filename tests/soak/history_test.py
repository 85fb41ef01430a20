"""The judge, tried on what must pass and on what must not."""
from history import ACKNOWLEDGED, OPEN, REFUSED, Write, judge


def write(token, state, stamp, level="quorum", life=1):
    made = Write(token, level, 1, life)
    made.state, made.low, made.high = state, stamp, stamp
    return made


PUT = write("1", ACKNOWLEDGED, 5)
CASES = [  # what was written, what is found, lost lives, whether that is wrong
    ([PUT], ("1", 5), {}, False),
    ([PUT], None, {}, True),
    ([PUT], ("1", 4), {}, True),
    ([PUT], ("1", 6), {}, False),
    ([PUT, write("2", ACKNOWLEDGED, 8)], ("1", 9), {}, True),
    ([PUT], ("9", 7), {}, True),
    ([PUT, write(None, ACKNOWLEDGED, 6)], None, {}, False),
    ([PUT, write(None, ACKNOWLEDGED, 6)], ("1", 5), {}, True),
    ([PUT, write("2", ACKNOWLEDGED, 8)], ("1", 5), {}, True),
    ([PUT, write("2", OPEN, None)], ("2", 7), {}, False),
    ([PUT, write("2", OPEN, None)], ("2", 4), {}, True),
    ([PUT, write("2", REFUSED, None)], ("2", 7), {}, True),
    ([PUT, write(None, OPEN, None)], None, {}, False),
    ([PUT, write(None, OPEN, 4)], None, {}, True),
    ([PUT, write(None, REFUSED, None)], None, {}, True),
    ([write("1", ACKNOWLEDGED, 5, "none")], None, {1: 1}, False),
    ([write("1", ACKNOWLEDGED, 5, "one")], None, {1: 1}, True),
    ([write("1", ACKNOWLEDGED, 5, "none", life=2)], None, {1: 1}, True),
]

for number, (writes, found, lost_lives, is_wrong) in enumerate(CASES):
    problem = judge(writes, found, lost_lives)
    assert bool(problem) == is_wrong, (number, problem)
