"""How long it takes from asking for a sandbox to the answer of its first command."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from benchmarks.bench import DOCKER, LOCAL, Bench, container_of, docker, execute, sandbox, why_no_docker
from benchmarks.figures import Figure, NotMeasured, Row, Target, at_most, interleaved
from tests.contract.running import Instance
from tests.contract.toolbox import Toolbox

SECONDS = 60


def measure(bench: Bench) -> Iterator[Row]:
    """Both runtimes, the default snapshot."""
    rounds = bench.rounds(20)
    with bench.sandyard(LOCAL) as instance:
        value, bare = interleaved(rounds, lambda: _create(instance), _enter)
    yield Figure(
        "create to first command, local, p50",
        value,
        "ms",
        bare,
        "`unshare` of the same namespaces, and `python3 -c 'import asyncio'` in them",
        at_most(250),
        f"{rounds} rounds",
    )
    if reason := why_no_docker():
        yield NotMeasured("create to first command, docker, p50", reason)
        return
    with bench.sandyard(DOCKER) as instance:
        with sandbox(instance) as first:
            image = docker("inspect", "--format", "{{.Config.Image}}", container_of(first))
        rounds = bench.rounds(15)
        value, engine = interleaved(rounds, lambda: _create(instance), lambda: _run(image))
    yield Figure(
        "create to first command, docker, p50",
        value,
        "ms",
        engine,
        f"`docker run --rm {image} true`",
        Target(1.3, of_ratio=True),
        f"{rounds} rounds",
    )


def _create(instance: Instance) -> float:
    begun = time.perf_counter()
    toolbox = Toolbox.create(instance)
    execute(toolbox, "true")
    took = time.perf_counter() - begun
    _remove(toolbox)
    return took * 1e3


def _remove(toolbox: Toolbox) -> None:
    """Return when nothing of the sandbox is left to do, so that the next one is not made beside it."""
    toolbox.delete()
    deadline = time.monotonic() + SECONDS
    while toolbox.api("GET", f"/sandbox/{toolbox.id}").json()["state"] != "destroyed":
        assert time.monotonic() < deadline, toolbox.id
        time.sleep(0.02)


def _enter() -> float:
    """Namespaces and an interpreter by hand: no mounts, no network but loopback, nobody who keeps account."""
    namespaces = ["--mount", "--pid", "--ipc", "--uts", "--net", "--fork"]
    if os.geteuid() != 0:
        namespaces += ["--user", "--map-root-user"]
    return _time(["unshare", *namespaces, sys.executable, "-c", "import asyncio"])


def _run(image: str) -> float:
    return _time(["docker", "run", "--rm", image, "true"])


def _time(command: Sequence[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, timeout=SECONDS)
    return (time.perf_counter() - begun) * 1e3
