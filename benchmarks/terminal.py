"""How long a keystroke takes to a program on a terminal and back, through the proxy, beside a bare local terminal."""

import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.bench import DOCKER, LOCAL, Bench, why_no_docker
from benchmarks.figures import Figure, NotMeasured, Row, at_most, interleaved, percentile
from tests.contract.running import Combination
from tests.contract.toolbox import Toolbox
from tests.contract.wire_client import WebSocket

SECONDS = 30
LIMIT_MS = 5
ECHO = "stty raw -echo; printf 'rea%s' dy; exec cat"
"""From here on every byte comes back from a program, not from the terminal's own echo."""
CROWD = 50


def measure(bench: Bench) -> Iterator[Row]:
    """Both runtimes, and one of many terminals."""
    yield from _round_trip(bench, LOCAL, others=0)
    yield from _round_trip(bench, LOCAL, others=CROWD)
    if reason := why_no_docker():
        yield NotMeasured("terminal, a byte to `cat` and back, docker, p50", reason)
        return
    yield from _round_trip(bench, DOCKER, others=0)


def _round_trip(bench: Bench, combination: Combination, *, others: int) -> Iterator[Row]:
    rounds = bench.rounds(500)
    with bench.toolbox(combination) as toolbox, _bare() as bare:
        idle = [_terminal(toolbox, f"other-{number}") for number in range(others)]
        socket = _terminal(toolbox, "measured")
        all_of_them: list[float] = []

        def there_and_back() -> float:
            begun = time.perf_counter()
            socket.send(b"x")
            next(messages)
            all_of_them.append((time.perf_counter() - begun) * 1e3)
            return all_of_them[-1]

        messages = socket.messages(SECONDS * 10)
        for _ in range(10):
            there_and_back()
        value, baseline = interleaved(rounds, there_and_back, bare)
        for each in (socket, *idle):
            each.cut()
    beside = f" beside {others} open terminals" if others else ""
    yield Figure(
        f"terminal, a byte to `cat` and back, {combination.name}{beside}, p50",
        value,
        "ms",
        baseline,
        "the same on a bare local terminal",
        at_most(LIMIT_MS),
        f"p99 {percentile(all_of_them, 99):.1f} ms of {rounds}, through the proxy",
    )


def _terminal(toolbox: Toolbox, name: str) -> WebSocket:
    url = toolbox.base.replace("http", "ws", 1) + f"/process/pty/create-connect?id={name}"
    socket = WebSocket(url, headers=toolbox.headers)
    socket.send(ECHO + "\n")
    seen = b""
    for message in socket.messages(SECONDS):
        seen += message.data
        if seen.endswith(b"ready"):
            return socket
    raise AssertionError(seen)


@contextmanager
def _bare() -> Iterator[Callable[[], float]]:
    near, far = os.openpty()
    process = subprocess.Popen(["sh", "-c", ECHO], stdin=far, stdout=far, stderr=far, start_new_session=True)
    os.close(far)
    try:
        seen = b""
        while not seen.endswith(b"ready"):
            assert select.select([near], [], [], SECONDS)[0], seen
            seen += os.read(near, 100)

        def there_and_back() -> float:
            begun = time.perf_counter()
            os.write(near, b"x")
            os.read(near, 1)
            return (time.perf_counter() - begun) * 1e3

        yield there_and_back
    finally:
        process.kill()
        process.wait(SECONDS)
        os.close(near)
