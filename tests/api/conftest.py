"""A control plane on a real loopback server, with a scripted runner, for every test of this folder."""

import dataclasses
import io
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from cryptography.fernet import Fernet
from yarl import URL

from sandyard.bus import Bus
from sandyard.bus.memory import MemoryBus
from sandyard.clock import Clock, SystemClock
from sandyard.ids import IdSource, RandomIds
from sandyard.serving import listen_tcp, listen_unix, serve
from sandyard_api.app import ControlPlane, open_control_plane
from sandyard_api.jobs.client import HttpControlPlane
from sandyard_api.options import ControlPlaneOptions
from tests.api.doubles import ScriptedRunner

API_KEY = "sy_test-key-of-the-owner"
INTERNAL_TOKEN = "internal-token"
ENCRYPTION_KEY = Fernet.generate_key().decode()


@dataclasses.dataclass(slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes
    json: Any


class Client:
    """A plain HTTP client of the public API."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def call(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        data: bytes | io.BytesIO | None = None,
        key: str | None = API_KEY,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request, below `/api` unless the path says otherwise."""
        path = path if path.startswith(("/api/", "/_sandyard")) else f"/api{path}"
        sent = dict(headers or {})
        if key is not None:
            sent.setdefault("Authorization", f"Bearer {key}")
        url = URL(self.url + path, encoded=True)
        async with self.session.request(method, url, json=json, data=data, headers=sent) as answer:
            body = await answer.read()
            is_json = answer.headers.get("content-type", "").startswith("application/json")
            decoded = await answer.json() if is_json and body else None
            return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, body, decoded)


@dataclasses.dataclass(slots=True)
class World:
    """Everything a test may touch."""

    plane: ControlPlane
    client: Client
    internal: HttpControlPlane
    runner: ScriptedRunner
    bus: Bus
    internal_socket: Path

    async def create(self, **body: Any) -> dict[str, Any]:
        """A started sandbox, with the scripted runner working for it."""
        async with self.runner.working():
            answer = await self.client.call("POST", "/sandbox", body)
        assert answer.status == 200, answer.body
        assert isinstance(answer.json, dict)
        return answer.json


def options(**changes: Any) -> ControlPlaneOptions:
    """Options for tests: quick timers, and the keys of this module."""
    base = ControlPlaneOptions(
        api_key=API_KEY, internal_token=INTERNAL_TOKEN, encryption_key=ENCRYPTION_KEY, wait_seconds=20.0
    )
    return msgspec.structs.replace(base, **changes)


@asynccontextmanager
async def open_world(
    database_url: str,
    *,
    bus: Bus | None = None,
    clock: Clock | None = None,
    ids: IdSource | None = None,
    **changes: Any,
) -> AsyncIterator[World]:
    """A control plane and its clients on loopback."""
    async with AsyncExitStack() as stack:
        bus = bus or MemoryBus()
        plane = await stack.enter_async_context(
            open_control_plane(
                database_url=database_url,
                bus=bus,
                clock=clock or SystemClock(),
                ids=ids or RandomIds(),
                options=options(**changes),
            )
        )
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        public, inner = listen_tcp("127.0.0.1", 0), listen_unix(sockets / "internal.sock")
        port = public.getsockname()[1]
        await stack.enter_async_context(serve(plane.internal_app, inner, websockets=False))
        await stack.enter_async_context(serve(plane.app, public))
        internal = await stack.enter_async_context(
            HttpControlPlane(f"unix:{sockets / 'internal.sock'}", INTERNAL_TOKEN, timeout_seconds=120)
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        client = Client(f"http://127.0.0.1:{port}", session)
        yield World(plane, client, internal, ScriptedRunner(internal), bus, sockets / "internal.sock")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a runner's answer is late."""
    monkeypatch.setattr("sandyard_runner.client.CHANGE_TIMEOUT_SECONDS", 60.0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A control plane on SQLite, with a live runner that has no work yet."""
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}") as opened:
        await opened.runner.beat()
        yield opened


@pytest.fixture
async def either_world(database_url: str) -> AsyncIterator[World]:
    """The same on either database."""
    async with open_world(database_url) as opened:
        await opened.runner.beat()
        yield opened
