"""How fast the daemon takes a command's output, beside a bare loop that copies a pipe into a file."""

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from benchmarks.bench import Bench, execute
from benchmarks.figures import Figure, Row, Target, interleaved
from tests.contract.toolbox import Toolbox, command_path

BLOCK = 1 << 16
PIPE_BYTES = 1 << 20
READ_BYTES = 1 << 18
END_SECONDS = 120
CPUS = 2
"""One for who writes and one for who reads: with the one of a new sandbox the two wait for each other."""
PYTHON = "/usr/bin/python3"
WRITER = """
import os, sys, time
block, count = bytes(range(32, 127)) * 689 + b"\\n" * 81, int(sys.argv[1])
begun = time.perf_counter()
for _ in range(count):
    left = memoryview(block)
    while left:
        left = left[os.write(1, left):]
open(sys.argv[2], "w").write(str(time.perf_counter() - begun))
"""
"""Writes `argv[1]` blocks as fast as they are taken, and then its own time in seconds into the file `argv[2]`."""


def measure(bench: Bench) -> Iterator[Row]:
    """Throughput of one command that only writes."""
    total = (64 if bench.is_quick else 512) << 20
    with bench.toolbox() as toolbox:
        _widen(toolbox)
        captured, bare = interleaved(
            bench.rounds(9), lambda: _captured(toolbox, total), lambda: _bare(bench.folder, total)
        )
    yield Figure(
        "log capture, one command",
        captured,
        "MB/s",
        bare,
        "bare pipe-to-file loop",
        Target(0.5, at_least=True, of_ratio=True),
        f"{total >> 20} MiB a round; a sandbox of {CPUS} CPUs, as the loop has, whose pipe is of 1 MiB",
    )


def _widen(toolbox: Toolbox) -> None:
    """Give a running sandbox as many processors as the baseline has."""
    assert toolbox.api("POST", f"/sandbox/{toolbox.id}/resize", {"cpu": CPUS}).status == 200
    deadline = time.monotonic() + END_SECONDS
    while toolbox.api("GET", f"/sandbox/{toolbox.id}").json()["state"] != "started":
        assert time.monotonic() < deadline, toolbox.id
        time.sleep(0.02)


def _captured(toolbox: Toolbox, total: int) -> float:
    elapsed = "/tmp/bench-elapsed"
    command = f"{PYTHON} -c {quote(WRITER)} {total // BLOCK} {elapsed}"
    made = toolbox.run("bench", command, wait=False)
    wait_for_end(toolbox, made["cmdId"])
    head = toolbox.call("GET", f"{command_path('bench', made['cmdId'])}/logs?cursor={total}&limit=1")
    assert head.status == 200, head
    return total / float(execute(toolbox, f"cat {elapsed}")) / 1e6


def wait_for_end(toolbox: Toolbox, command_id: str) -> None:
    """Return when the command has an exit code. Fails when that is not 0."""
    # A second command in the session's queue starts when the first has ended, which needs no asking again and again.
    toolbox.run("bench", "true")
    code = toolbox.exit_code("bench", command_id)
    assert code == 0, f"the command exited with {code}"


def _bare(folder: Path, total: int) -> float:
    elapsed, target = folder / "elapsed", folder / "captured"
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    process = subprocess.Popen([PYTHON, "-c", WRITER, str(total // BLOCK), str(elapsed)], stdout=writer)
    os.close(writer)
    file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        while chunk := os.read(reader, READ_BYTES):
            os.write(file, chunk)
        process.wait(END_SECONDS)
    finally:
        os.close(file)
        os.close(reader)
        target.unlink()
    return total / float(elapsed.read_text()) / 1e6


def bare_seconds(command: list[str]) -> float:
    """How long the command's output takes to be read from a pipe and dropped."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as output:
        while os.read(output.fileno(), READ_BYTES):
            pass
    process.wait(END_SECONDS)
    return time.monotonic() - begun
