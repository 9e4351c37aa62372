"""How long `1+1` takes in a warm interpreter context through the proxy, beside a line through a bare Python's pipes."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.bench import DOCKER, LOCAL, Bench, why_no_docker
from benchmarks.figures import Figure, NotMeasured, Row, at_most, interleaved, percentile
from benchmarks.log_capture import PYTHON
from tests.contract.toolbox import Toolbox
from tests.contract.wire_client import WebSocket

LIMIT_MS = 10
ECHO = "import sys\nfor line in sys.stdin: exec(line); print('done', flush=True)"
"""A loop that runs each line it reads."""


def measure(bench: Bench) -> Iterator[Row]:
    """Both runtimes. A connection each, as every SDK makes one for each execution."""
    yield _figure(bench, "local", bench.rounds(150))
    if reason := why_no_docker():
        yield NotMeasured("interpreter 1+1, docker, p50", reason)
        return
    yield _figure(bench, "docker", bench.rounds(100))


def _figure(bench: Bench, runtime: str, rounds: int) -> Figure:
    with bench.toolbox(LOCAL if runtime == "local" else DOCKER) as toolbox, _bare() as bare:
        cold = _execute(toolbox)
        for _ in range(5):
            _execute(toolbox)
        times: list[float] = []

        def timed() -> float:
            times.append(_execute(toolbox))
            return times[-1]

        value, baseline = interleaved(rounds, timed, lambda: _line(bare))
    return Figure(
        f"interpreter 1+1, {runtime}, p50",
        value,
        "ms",
        baseline,
        "a line run by a bare `python3` over pipes",
        at_most(LIMIT_MS),
        f"p99 {percentile(times, 99):.1f} ms of {rounds}, a connection each; the first starts Python: {cold:.0f} ms",
    )


def _execute(toolbox: Toolbox) -> float:
    """Milliseconds from connecting to the close frame."""
    begun = time.perf_counter()
    url = toolbox.base.replace("http", "ws", 1) + "/process/interpreter/execute"
    with WebSocket(url, headers=toolbox.headers) as socket:
        socket.send('{"code": "1+1"}')
        messages = [json.loads(message.data) for message in socket.messages()]
        took = time.perf_counter() - begun
        assert [message["text"] for message in messages] == ["completed"], messages
        assert socket.close_code == 1000
    return took * 1e3


@contextmanager
def _bare() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([PYTHON, "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _line(process: "subprocess.Popen[bytes]") -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    begun = time.perf_counter()
    process.stdin.write(b"1+1\n")
    assert process.stdout.readline() == b"done\n"
    return (time.perf_counter() - begun) * 1e3
