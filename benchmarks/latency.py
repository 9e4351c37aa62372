"""How late a follower is: after a write, after opening the stream, and after the command's exit."""

import subprocess
import time
from collections.abc import Iterator
from shlex import quote

from benchmarks.bench import LOCAL, Bench, why_no_redis
from benchmarks.figures import Figure, NotMeasured, Row, at_most, median, percentile
from benchmarks.log_capture import PYTHON
from tests.contract.toolbox import Toolbox

LINES = """
import os, sys, time
for number in range(int(sys.argv[1])):
    time.sleep(0.03)
    os.write(1, b"%d\\n" % time.monotonic_ns())
os._exit(0)
"""
"""Writes its clock every 30 ms; the clock is the machine's, the same inside and outside."""
ENDING = 'import os, time; time.sleep(0.2); os.write(1, b"%d\\n" % time.monotonic_ns()); os._exit(0)'
"""Writes its clock and exits at once."""
SECONDS = 60


def measure(bench: Bench) -> Iterator[Row]:
    """Embedded, with the memory bus."""
    yield from _latencies(bench, "memory bus")


def measure_redis(bench: Bench) -> Iterator[Row]:
    """With Redis as the bus."""
    if reason := why_no_redis():
        yield NotMeasured("latency over Redis", reason)
        return
    with bench.redis() as redis:
        yield from _latencies(bench, "Redis", "--bus-url", redis.url)


def _latencies(bench: Bench, bus: str, *extra: str) -> Iterator[Row]:
    lines, rounds = (20 if bench.is_quick else 100), bench.rounds(25)
    with bench.toolbox(LOCAL, *extra) as toolbox:
        writes = _after_writes(toolbox, lines)
        bare = _after_bare_writes(lines)
        openings = [_after_opening(toolbox) for _ in range(rounds)]
        exits = [_after_exit(toolbox) for _ in range(rounds)]
    yield Figure(
        f"from a write to the follower, {bus}, p50",
        median(writes),
        "ms",
        median(bare),
        "the same line read from a bare pipe",
        at_most(10),
        f"p99 {percentile(writes, 99):.1f} ms of {lines} lines",
    )
    yield Figure(
        f"from opening a stream to its first byte, {bus}, p50",
        median(openings),
        "ms",
        target=at_most(10),
        note=f"connect, upgrade and backlog; p90 {percentile(openings, 90):.1f} ms of {rounds}",
    )
    yield Figure(
        f"from a command's exit to the end of its stream, {bus}, p50",
        median(exits),
        "ms",
        target=at_most(20),
        note=f"p90 {percentile(exits, 90):.1f} ms of {rounds}",
    )


def _after_writes(toolbox: Toolbox, lines: int) -> list[float]:
    command = toolbox.run("bench", f"{PYTHON} -c {quote(LINES)} {lines}", wait=False)
    late = []
    with toolbox.speaking("0.226.1").follow("bench", command["cmdId"]) as stream:
        for message in stream.messages(SECONDS):
            written = message.data.strip(b"\x01\x02\n").split(b"\n")
            late += [message.at * 1e3 - int(each) / 1e6 for each in written]
    assert len(late) == lines, f"{len(late)} of {lines} lines came"
    return late[1:]  # the first may have been there before the stream was open


def _after_bare_writes(lines: int) -> list[float]:
    process = subprocess.Popen([PYTHON, "-c", LINES, str(lines)], stdout=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    with process.stdout as output:
        late = [time.monotonic() * 1e3 - int(line) / 1e6 for line in output]
    process.wait(SECONDS)
    return late


def _after_opening(toolbox: Toolbox) -> float:
    command = toolbox.run("bench", "echo first; sleep 0.1", wait=False)
    time.sleep(0.03)  # the line is in the log by then, and the command still runs
    begun = time.monotonic()
    with toolbox.speaking("0.226.1").follow("bench", command["cmdId"]) as stream:
        came = [message.at for message in stream.messages(SECONDS)]
    return (came[0] - begun) * 1e3


def _after_exit(toolbox: Toolbox) -> float:
    command = toolbox.run("bench", f"{PYTHON} -c {quote(ENDING)}", wait=False)
    with toolbox.speaking("0.226.1").follow("bench", command["cmdId"]) as stream:
        written = b"".join(message.data for message in stream.messages(SECONDS))
        ended = time.monotonic()
        assert stream.close_code == 1000, stream.close_code
    return ended * 1e3 - int(written.strip(b"\x01\x02\n")) / 1e6
