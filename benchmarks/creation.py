"""How long it takes from asking for a sandbox to the answer of its first command."""

import subprocess
import time
from collections.abc import Iterator

from benchmarks.bench import DOCKER, LOCAL, Bench, container_of, docker, execute, sandbox, why_no_docker
from benchmarks.figures import Figure, NotMeasured, Row, Target, at_most, interleaved, median, percentile
from tests.contract.running import Instance
from tests.contract.toolbox import Toolbox

SECONDS = 60


def measure(bench: Bench) -> Iterator[Row]:
    """Both runtimes, the default snapshot."""
    with bench.sandyard(LOCAL) as instance:
        values = [_create(instance) for _ in range(bench.rounds(20))]
    yield Figure(
        "create to first command, local, p50",
        median(values),
        "ms",
        target=at_most(250),
        note=f"p90 {percentile(values, 90):.0f} ms of {len(values)}",
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


def _run(image: str) -> float:
    begun = time.perf_counter()
    subprocess.run(["docker", "run", "--rm", image, "true"], check=True, timeout=SECONDS)
    return (time.perf_counter() - begun) * 1e3
