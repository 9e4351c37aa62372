"""How long `sandyard up` takes until it is ready, and what it costs while nothing happens."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import LOCAL, WITH_BYTECODE, Bench
from benchmarks.figures import Figure, Row, at_most, interleaved
from benchmarks.memory import Memory

IDLE_SECONDS = 5
IMPORTS = "import sandyard.wiring"
START_SECONDS = 60


def measure_ready(bench: Bench) -> Iterator[Row]:
    """From the start of the command to its lines on standard output."""
    folder = bench.new_folder()
    with bench.sandyard(LOCAL, folder=folder):
        pass  # compiles what is not compiled yet, and makes the keys, the database and the bundle
    usual, imports, bare = interleaved(
        bench.rounds(9),
        lambda: _ready(bench, folder),
        lambda: _interpreter(IMPORTS),
        lambda: _interpreter("pass"),
    )
    first = statistics.median(_ready(bench, None) for _ in range(bench.rounds(5)))
    interpreter = f"CPython {sys.version.split()[0]}"
    yield Figure(
        "`sandyard up` until ready", usual, "s", imports, "importing its modules alone", at_most(2), interpreter
    )
    yield Figure(
        "`sandyard up` until ready, new data directory",
        first,
        "s",
        bare,
        "an empty Python program",
        at_most(2),
        "builds the daemon's bundle and the database",
    )


def measure_idle(bench: Bench) -> Iterator[Row]:
    """Memory of the embedded form without a sandbox."""
    with bench.sandyard(LOCAL) as instance:
        time.sleep(IDLE_SECONDS)  # what is measured is what stays when nothing happens
        memory = Memory.of(instance.process.pid)
    bare = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=_environment())
    try:
        time.sleep(1)
        interpreter = Memory.of(bare.pid)
    finally:
        bare.kill()
        bare.wait()
    yield Figure(
        "idle embedded, resident", memory.resident, "MB", interpreter.resident, "an idle interpreter", at_most(150)
    )
    yield Figure("idle embedded, proportional", memory.proportional, "MB", interpreter.proportional, "the same")


def _ready(bench: Bench, folder: Path | None) -> float:
    begun = time.perf_counter()
    with bench.sandyard(LOCAL, folder=folder):
        return time.perf_counter() - begun


def _interpreter(code: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=START_SECONDS, env=_environment())
    return time.perf_counter() - begun


def _environment() -> dict[str, str]:
    return os.environ | WITH_BYTECODE
