"""A whole proxy on a free port, before doubles of everything it talks to."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from sandyard.bus.memory import MemoryBus
from sandyard.clock import SystemClock
from sandyard.serving import listen_tcp, serve
from sandyard_api.jobs.wire import CHANNEL_KEYS, CHANNEL_ROUTES
from sandyard_proxy.app import ProxyOptions, open_proxy
from tests.proxy.doubles import (
    KEY,
    SANDBOX,
    LogFile,
    ScriptedControlPlane,
    ScriptedDaemon,
    ScriptedRunner,
    open_door,
    plain_control_plane,
)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a connection is made late."""
    for name in ("doors", "upstream"):
        monkeypatch.setattr(f"sandyard_proxy.{name}.CONNECT_SECONDS", 60.0)


@dataclass
class Yard:
    """What a test drives and looks at."""

    origin: str
    client: aiohttp.ClientSession
    control_plane: ScriptedControlPlane
    daemon: ScriptedDaemon
    runner: ScriptedRunner
    bus: MemoryBus
    doors_dir: Path

    @property
    def toolbox(self) -> str:
        """The toolbox base URL."""
        return f"{self.origin}/toolbox/{SANDBOX}"

    @property
    def port(self) -> int:
        """Where the proxy listens."""
        return int(self.origin.rpartition(":")[2])

    @property
    def key(self) -> dict[str, str]:
        """Headers that let in."""
        return {"Authorization": f"Bearer {KEY}"}

    def log(self, session: str = "s", command: str = "c") -> LogFile:
        """A new command's log."""
        self.daemon.logs[session, command] = LogFile()
        return self.daemon.logs[session, command]


@asynccontextmanager
async def open_yard(*, preview_warning: bool = False) -> AsyncIterator[Yard]:
    """A proxy between doubles."""
    with tempfile.TemporaryDirectory() as folder:
        control_plane, daemon, bus = ScriptedControlPlane(), ScriptedDaemon(), MemoryBus()
        runner = ScriptedRunner(daemon, bus)
        doors_dir = Path(folder)
        listener = listen_tcp("127.0.0.1", 0)
        async with (
            open_door(daemon, doors_dir),
            open_proxy(
                control_plane_app=plain_control_plane,
                control_plane=control_plane,
                runners=lambda url: runner,
                bus=bus,
                clock=SystemClock(),
                options=ProxyOptions(
                    doors_dir=doors_dir,
                    allowed_hosts=("sandyard.test",),
                    preview_warning=preview_warning,
                    version="1.2.3",
                ),
            ) as proxy,
            serve(proxy, listener),
            aiohttp.ClientSession(auto_decompress=False) as client,
        ):
            origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield Yard(origin, client, control_plane, daemon, runner, bus, doors_dir)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Yard]:
    """One proxy for the tests of a file; starting and ending two servers takes longer than most tests."""
    async with open_yard() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def yard(running: Yard) -> Yard:
    """The proxy with every double as new, and with nothing remembered."""
    running.control_plane.reset()
    running.daemon.reset()
    running.runner.reset()
    running.client.cookie_jar.clear()
    await running.bus.publish(CHANNEL_ROUTES, SANDBOX.encode())
    await running.bus.publish(CHANNEL_KEYS, b"")
    await asyncio.sleep(0)
    return running
