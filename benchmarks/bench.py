"""What every measurement is given: the form to run in, a place to work, and Sandyards started as a user starts them."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.redis_server import RedisServer
from tests.contract.running import Combination, Instance, start
from tests.contract.toolbox import Toolbox

LOCAL = Combination("local", "local")
DOCKER = Combination("docker", "docker")
WITH_BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}
"""Starts are measured as users have them: modules are compiled once and kept."""
ENGINE_SECONDS = 30


@dataclass(slots=True)
class Bench:
    """One run of the benchmarks."""

    folder: Path
    """Scratch space; its file system holds the sandboxes and the baselines' files."""
    is_quick: bool = False
    started: int = 0

    def rounds(self, usual: int) -> int:
        """How often to repeat: fewer times in the short form, never less than three."""
        return max(3, usual // 5) if self.is_quick else usual

    def new_folder(self) -> Path:
        """An empty directory that nothing has used."""
        self.started += 1
        folder = self.folder / str(self.started)
        folder.mkdir()
        return folder

    @contextmanager
    def sandyard(self, combination: Combination = LOCAL, *extra: str, folder: Path | None = None) -> Iterator[Instance]:
        """A running Sandyard, ended in order."""
        instance = start(combination, folder or self.new_folder(), *extra, environment=WITH_BYTECODE)
        try:
            yield instance
        finally:
            instance.stop()

    @contextmanager
    def toolbox(self, combination: Combination = LOCAL, *extra: str) -> Iterator[Toolbox]:
        """A sandbox in a Sandyard of its own, with a session called `bench`."""
        with self.sandyard(combination, *extra) as instance, sandbox(instance) as toolbox:
            toolbox.session("bench")
            yield toolbox

    @contextmanager
    def redis(self) -> Iterator[RedisServer]:
        """A private Redis server."""
        server = RedisServer(self.new_folder())
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def sandbox(instance: Instance) -> Iterator[Toolbox]:
    """A started sandbox, removed at the end."""
    toolbox = Toolbox.create(instance)
    try:
        yield toolbox
    finally:
        toolbox.delete()


def why_no_docker() -> str | None:
    """`None` when an engine answers and its command line is there, else the reason."""
    if shutil.which("docker") is None:
        return "the docker command is not installed"
    asked = subprocess.run(["docker", "version"], capture_output=True, timeout=ENGINE_SECONDS, check=False)
    return None if asked.returncode == 0 else "no Docker engine answers"


def why_no_redis() -> str | None:
    """`None` when a Redis server can be started, else the reason."""
    return None if shutil.which("redis-server") else "redis-server is not installed"


def container_of(toolbox: Toolbox) -> str:
    """The id of the container that holds the sandbox."""
    return docker("ps", "--quiet", "--no-trunc", "--filter", f"label=dev.sandyard.sandbox={toolbox.id}")


def docker(*arguments: str) -> str:
    """What the engine's command line printed. Raises `subprocess.CalledProcessError`."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=ENGINE_SECONDS, check=True)
    return done.stdout.strip()


def execute(toolbox: Toolbox, command: str) -> str:
    """Run a command by `process/execute` and return what it printed. Fails unless it exits with 0."""
    answer: dict[str, Any] = toolbox.call("POST", "/process/execute", {"command": command}).json()
    assert answer["exitCode"] == 0, answer
    return str(answer["result"])
