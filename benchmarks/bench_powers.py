"""What the test bench costs: its server's start, a reset, an organization for a test, and nothing when unused."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from benchmarks.bench import WITH_BYTECODE, Bench
from benchmarks.figures import Figure, Row, at_most, interleaved
from sandyard.testing import READY
from sandyard.testing.client import Door, new_yard, remove_yard
from tests.contract.running import Combination

PLAIN = Combination("powers", "local", isolation="none")
MILLISECONDS = 1000.0
REQUESTS = 200
MONTH_SECONDS = 30 * 86400
START_SECONDS = 60.0
TESTS = 101


def measure(bench: Bench) -> Iterator[Row]:
    """Everything of the bench."""
    yield from _server(bench)
    with bench.sandyard(PLAIN) as instance:
        door = Door(instance.origin, instance.api_key)
        yield from _resets(bench, door)
        yield from _overhead(bench, door)
        yield from _month(bench, door)


def _server(bench: Bench) -> Iterator[Row]:
    _start_server(bench, "none")  # compiles and builds what is kept
    plain, isolated, imports = interleaved(
        bench.rounds(7), lambda: _start_server(bench, "none"), lambda: _start_server(bench, "namespaces"), _import
    )
    alone = "importing its modules alone"
    yield Figure("test server until ready, new data directory", plain, "s", imports, alone, at_most(1))
    yield Figure("test server with sandboxes in namespaces, the same", isolated, "s", imports, alone, at_most(1))
    plugin, plain = interleaved(bench.rounds(5), lambda: _test(bench, "sandyard"), lambda: _test(bench, ""))
    yield Figure("a test with the plugin's `sandyard`", plugin, "ms", plain, "an empty test", note=f"of {TESTS}")


def _import() -> float:
    begun = time.perf_counter()
    code = "import sandyard.testing.serving"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=START_SECONDS, env=os.environ | WITH_BYTECODE)
    return time.perf_counter() - begun


def _test(bench: Bench, argument: str) -> float:
    """Milliseconds from one test with that argument to the next, in a run of pytest."""
    folder = bench.new_folder()
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(
        "import pathlib, time\nbegun = []\n"
        + "".join(f"def test_{number}({argument}): begun.append(time.perf_counter())\n" for number in range(TESTS))
        + "def test_end(): pathlib.Path('took').write_text(str(begun[-1] - begun[0]))\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--sandyard-isolation", "none"]
    subprocess.run(
        [*command, "--sandyard-runtime", "local"],
        check=True,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=START_SECONDS * 5,
        env=os.environ | WITH_BYTECODE,
    )
    return float((folder / "took").read_text()) / (TESTS - 1) * MILLISECONDS


def _start_server(bench: Bench, isolation: str) -> float:
    folder = bench.new_folder()
    command = [sys.executable, "-m", "sandyard.testing.server", str(folder), str(os.getpid()), "--runtime", "local"]
    begun = time.perf_counter()
    server = subprocess.Popen([*command, "--isolation", isolation], env=os.environ | WITH_BYTECODE)
    while not (folder / READY).exists():
        assert server.poll() is None
        assert time.perf_counter() - begun < START_SECONDS
        time.sleep(0.001)
    seconds = time.perf_counter() - begun
    server.send_signal(signal.SIGTERM)
    server.wait()
    return seconds


def _resets(bench: Bench, door: Door) -> Iterator[Row]:
    def reset() -> float:
        return _timed(lambda: door.ask("POST", "/_sandyard/reset", {}))

    def health() -> float:
        return _timed(lambda: door.ask("GET", "/api/api-keys/current"))

    empty, baseline = interleaved(bench.rounds(50), reset, health)
    yield Figure("reset, nothing runs", empty, "ms", baseline, "one small GET", at_most(20))

    def one_test() -> float:
        def work() -> None:
            remove_yard(door, new_yard(door))

        return _timed(work)

    overhead, baseline = interleaved(bench.rounds(50), one_test, health)
    yield Figure("organization and key for a test, made and removed", overhead, "ms", baseline, "one small GET")


def _overhead(bench: Bench, door: Door) -> Iterator[Row]:
    """A small request with everything off, with the journal on, with a rule that does not meet it."""

    def plain() -> float:
        return _requests(door)

    def journaled() -> float:
        door.ask("POST", "/_sandyard/journal", {"on": True})
        try:
            return _requests(door)
        finally:
            door.ask("POST", "/_sandyard/journal", {"on": False})

    def ruled() -> float:
        door.ask("POST", "/_sandyard/faults", {"operation": "createSandbox", "action": {"kind": "drop"}})
        try:
            return _requests(door)
        finally:
            door.ask("DELETE", "/_sandyard/faults")

    journal, rule, off = interleaved(bench.rounds(15), journaled, ruled, plain)
    yield Figure("GET with the journal on", journal, "ms", off, "all off")
    yield Figure("GET with a fault rule for something else", rule, "ms", off, "all off")


def _month(bench: Bench, door: Door) -> Iterator[Row]:
    """Thirty days in which one sandbox is stopped and deleted by its timers."""

    def month() -> float:
        door.ask("POST", "/api/sandbox", {"autoStopInterval": 15, "autoDeleteInterval": 60})
        return _timed(lambda: door.ask("POST", "/_sandyard/clock", {"action": "advance", "seconds": MONTH_SECONDS}))

    def idle() -> float:
        return _timed(lambda: door.ask("POST", "/_sandyard/clock", {"action": "advance", "seconds": MONTH_SECONDS}))

    busy, nothing = interleaved(bench.rounds(7), month, idle)
    yield Figure("a month, one sandbox stopped and deleted", busy, "ms", nothing, "a month of nothing", at_most(1000))


def _timed(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * MILLISECONDS


def _requests(door: Door) -> float:
    """Milliseconds of one of many requests on one connection."""
    parts = urlsplit(door.origin)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    headers = {"Authorization": f"Bearer {door.api_key}"}
    begun = time.perf_counter()
    for _ in range(REQUESTS):
        connection.request("GET", "/api/config", headers=headers)
        connection.getresponse().read()
    seconds = time.perf_counter() - begun
    connection.close()
    return seconds / REQUESTS * MILLISECONDS
