"""Fixtures of the runner's tests: a daemon on a door of its own, and a runner with scripted surroundings."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandyard.bus.memory import MemoryBus
from sandyard.clock import SystemClock
from sandyard_runner.app import Leave, Runner, RunnerOptions, open_runner
from sandyard_runner.door_http import Door, ask
from sandyard_runner.doors import door_path, prepare_door, wait_until_daemon_answers
from sandyard_runner.runtime.memory import MemoryRuntime
from tests.runner.doubles import ScriptedControlPlane

TOKEN = "internal-token"
ENTRYPOINT = ("sh", "-c", "echo begun; sleep infinity")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine answers are late, those most of all that begin when a command has ended."""
    for name in (
        "client.CHANGE_TIMEOUT_SECONDS",
        "client.CONNECT_TIMEOUT_SECONDS",
        "door_http.HEAD_TIMEOUT_SECONDS",
        "doors.ANSWER_TIMEOUT_SECONDS",
        "egress.resolver.ANSWER_SECONDS",
        "egress.upstreams.CONNECT_SECONDS",
        "http_api.DAEMON_TIMEOUT_SECONDS",
        "usage.ANSWER_SECONDS",
    ):
        monkeypatch.setattr(f"sandyard_runner.{name}", 120.0)


@dataclass
class RunningDaemon:
    """A real daemon, started as a plain process."""

    sandbox_id: str
    door: Door
    process: subprocess.Popen[bytes]

    async def post(self, path: str, body: dict[str, object]) -> int:
        async with ask(self.door, path, json_body=body) as answer:
            async for _ in answer.chunks:
                pass
        return answer.status

    async def get(self, path: str) -> str:
        async with ask(self.door, path) as answer:
            return b"".join([chunk async for chunk in answer.chunks]).decode()

    async def run(self, command: str, *, session_id: str = "s") -> str:
        """Start a command in a session; its id."""
        await self.post("/process/session", {"sessionId": session_id})
        body = {"command": command, "runAsync": True}
        async with ask(self.door, f"/process/session/{session_id}/exec", json_body=body) as answer:
            text = b"".join([chunk async for chunk in answer.chunks])
        return str(json.loads(text)["cmdId"])


StartDaemon = Callable[[str, str], AbstractAsyncContextManager[RunningDaemon]]


@pytest.fixture
def start_daemon(tmp_path: Path) -> StartDaemon:
    """Start a daemon for a sandbox id and a secret, below the test's directory `doors`."""

    @asynccontextmanager
    async def start(sandbox_id: str, secret: str) -> AsyncIterator[RunningDaemon]:
        doors = tmp_path / "doors"
        directory = await asyncio.to_thread(prepare_door, doors, sandbox_id, secret)
        home = tmp_path / f"home-{sandbox_id}"
        home.mkdir(exist_ok=True)
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-m", "sandyard_daemon", "--door-dir", str(directory), "--", *ENTRYPOINT],
            env={
                "HOME": str(home),
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "DAYTONA_SANDBOX_ID": sandbox_id,
                "PYTHONPATH": ":".join(path for path in sys.path if path),
            },
        )
        door = Door(door_path(doors, sandbox_id), secret)
        try:
            await wait_until_daemon_answers(door.path, secret, timeout_seconds=60)
            yield RunningDaemon(sandbox_id, door, process)
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)

    return start


async def eventually(condition: Callable[[], Awaitable[bool]], *, timeout_seconds: float = 60.0) -> None:
    """Ask again and again until the condition holds."""
    async with asyncio.timeout(timeout_seconds):
        while not await condition():  # noqa: ASYNC110  what is asked is in another process
            await asyncio.sleep(0.01)


@pytest.fixture
async def daemon(start_daemon: StartDaemon) -> AsyncIterator[RunningDaemon]:
    async with start_daemon("sandbox-1", "s" * 32) as running:
        yield running


@pytest.fixture
def control_plane() -> ScriptedControlPlane:
    return ScriptedControlPlane()


@pytest.fixture
def memory_runtime(tmp_path: Path) -> MemoryRuntime:
    return MemoryRuntime(tmp_path / "doors")


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


OpenRunner = Callable[..., AbstractAsyncContextManager[Runner]]


@pytest.fixture
def open_a_runner(memory_runtime: MemoryRuntime, control_plane: ScriptedControlPlane, bus: MemoryBus) -> OpenRunner:
    """Open a runner over the memory runtime; `leave` and `reconcile_seconds` may be given."""

    def open_it(
        *, leave: Leave = Leave.RUNNING, reconcile_seconds: float = 3600
    ) -> AbstractAsyncContextManager[Runner]:
        options = RunnerOptions(
            "runner-1", "unix:/nowhere", TOKEN, leave=leave, reconcile_seconds=reconcile_seconds, max_parallel_jobs=2
        )
        return open_runner(
            runtime=memory_runtime, control_plane=control_plane, bus=bus, clock=SystemClock(), options=options
        )

    return open_it
