"""How long `process/execute` of `true` takes through the proxy, beside `docker exec` and a bare spawn."""

import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from benchmarks.bench import DOCKER, LOCAL, Bench, container_of, why_no_docker
from benchmarks.figures import Figure, NotMeasured, Row, at_most, interleaved, percentile
from tests.contract.toolbox import Toolbox

SECONDS = 30
LIMIT_MS = 6


def measure(bench: Bench) -> Iterator[Row]:
    """Both runtimes."""
    rounds = bench.rounds(150)
    with bench.toolbox(LOCAL) as toolbox, _executing(toolbox) as execute:
        all_of_them: list[float] = []
        value, bare = interleaved(rounds, lambda: _kept(all_of_them, execute()), lambda: _spawn("sh", "-c", "true"))
        note = f"p99 {percentile(all_of_them, 99):.1f} ms of {rounds}, one kept connection"
        yield _figure("local", value, bare, "a bare `sh -c true`", note)
    if reason := why_no_docker():
        yield NotMeasured("process/execute true, docker, p50", reason)
        return
    rounds = bench.rounds(50)
    with bench.toolbox(DOCKER) as toolbox, _executing(toolbox) as execute:
        container = container_of(toolbox)
        value, engine = interleaved(rounds, execute, lambda: _spawn("docker", "exec", container, "true"))
        yield _figure("docker", value, engine, "`docker exec CONTAINER true`", f"{rounds} rounds")


def _figure(runtime: str, value: float, baseline: float, baseline_name: str, note: str) -> Figure:
    return Figure(
        f"process/execute true, {runtime}, p50", value, "ms", baseline, baseline_name, at_most(LIMIT_MS), note
    )


def _kept(values: list[float], value: float) -> float:
    values.append(value)
    return value


class _Execute:
    """One connection, as an SDK keeps one."""

    def __init__(self, toolbox: Toolbox) -> None:
        parts = urlsplit(toolbox.base)
        self._path = f"{parts.path}/process/execute"
        self._headers = {**toolbox.headers, "Content-Type": "application/json"}
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)

    def __call__(self) -> float:
        """Milliseconds of one call."""
        begun = time.perf_counter()
        self.connection.request("POST", self._path, b'{"command": "true"}', self._headers)
        answer = self.connection.getresponse()
        body = answer.read()
        took = time.perf_counter() - begun
        assert answer.status == 200, body
        assert json.loads(body)["exitCode"] == 0, body
        return took * 1e3


@contextmanager
def _executing(toolbox: Toolbox) -> Iterator[_Execute]:
    execute = _Execute(toolbox)
    try:
        execute()
        yield execute
    finally:
        execute.connection.close()


def _spawn(*command: str) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, timeout=SECONDS)
    return (time.perf_counter() - begun) * 1e3
