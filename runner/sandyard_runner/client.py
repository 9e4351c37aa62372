"""How proxies speak to a runner: the contract and its HTTP form. Errors are in `errors`."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from sandyard_runner.errors import RunnerUnreachable as RunnerUnreachable  # part of what clients import from here
from sandyard_runner.wire import RelayTick, UsageSample

CONNECT_TIMEOUT_SECONDS = 5.0
CHANGE_TIMEOUT_SECONDS = 5.0
SILENCE_SECONDS = 5.0
"""A relay ticks twice a second; one that is silent this long is taken for dead."""
TUNNEL_CHUNK_BYTES = 1 << 16


class RunnerClient(Protocol):
    """What a proxy may ask of one runner. Every method raises `RunnerUnreachable`."""

    def relay(self, sandbox_id: str, session_id: str, command_id: str) -> AsyncGenerator[RelayTick, None]:
        """Hold the lease on a command's log while iterating; the last tick has `end` or `lost`.

        Close the generator (`contextlib.aclosing`) to let the lease go. Raises `RunnerUnreachable` while iterating
        when the connection broke: open it again.
        """

    async def connect_door(self, sandbox_id: str) -> socket.socket:
        """A connected, non-blocking stream socket to the sandbox's daemon, through the runner. The caller closes it."""


class HttpRunner:
    """`RunnerClient` over HTTP. `base_url` is `http://host:port` or `unix:/path/to/socket`; close it after use."""

    def __init__(self, base_url: str, token: str, *, silence_seconds: float = SILENCE_SECONDS) -> None:
        unix = base_url.startswith("unix:")
        self._socket_path = base_url.removeprefix("unix:") if unix else None
        self._origin = "http://runner" if unix else base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._silence_seconds = silence_seconds
        self._session: aiohttp.ClientSession | None = None
        self._tunnels: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End tunnels and idle connections. The client can be used again afterwards."""
        tunnels = list(self._tunnels)
        for tunnel in tunnels:
            tunnel.cancel()
        await asyncio.gather(*tunnels, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def relay(self, sandbox_id: str, session_id: str, command_id: str) -> AsyncGenerator[RelayTick, None]:
        path = "/".join(quote(part, safe="") for part in (sandbox_id, session_id, command_id))
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=self._silence_seconds
        )
        try:
            async with self._open().get(self._url(f"/relay/{path}"), headers=self._headers, timeout=timeout) as answer:
                if answer.status != 200:
                    raise RunnerUnreachable(f"the runner answered status {answer.status} to a relay request")
                async for line in answer.content:
                    yield _tick(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RunnerUnreachable(f"relay of {sandbox_id}: {type(error).__name__}: {error}") from error

    async def connect_door(self, sandbox_id: str) -> socket.socket:
        url = self._url(f"/forward/{quote(sandbox_id, safe='')}")
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                tunnel = await self._open().ws_connect(url, headers=self._headers, max_msg_size=0, compress=0)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RunnerUnreachable(f"tunnel to {sandbox_id}: {type(error).__name__}: {error}") from error
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        task = asyncio.create_task(_carry(tunnel, ours))
        self._tunnels.add(task)
        task.add_done_callback(self._tunnels.discard)
        return theirs

    async def change_environment(self, sandbox_id: str, variables: Mapping[str, str]) -> None:
        """Set variables for all processes to come in a sandbox. Raises `RunnerUnreachable`, also when it refuses."""
        url = self._url(f"/environment/{quote(sandbox_id, safe='')}")
        timeout = aiohttp.ClientTimeout(total=CHANGE_TIMEOUT_SECONDS)
        try:
            async with self._open().post(url, headers=self._headers, json=dict(variables), timeout=timeout) as answer:
                if answer.status != HTTPStatus.NO_CONTENT:
                    raise RunnerUnreachable(f"the runner answered status {answer.status}: {await answer.text()}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RunnerUnreachable(f"environment of {sandbox_id}: {type(error).__name__}: {error}") from error

    async def usage(self, sandbox_id: str) -> list[UsageSample]:
        """What a sandbox used, oldest first; nothing of one that is not known. Raises `RunnerUnreachable`."""
        url = self._url(f"/usage/{quote(sandbox_id, safe='')}")
        timeout = aiohttp.ClientTimeout(total=CHANGE_TIMEOUT_SECONDS)
        try:
            async with self._open().get(url, headers=self._headers, timeout=timeout) as answer:
                if answer.status != HTTPStatus.OK:
                    raise RunnerUnreachable(f"the runner answered status {answer.status}: {await answer.text()}")
                return [UsageSample(*row) for row in (await answer.json())["samples"]]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RunnerUnreachable(f"usage of {sandbox_id}: {type(error).__name__}: {error}") from error

    def _url(self, path: str) -> URL:
        return URL(self._origin + path, encoded=True)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            path = self._socket_path
            # Every follower holds a relay request open for as long as it follows: no limit on their number.
            connector = aiohttp.UnixConnector(path, limit=0) if path else aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session


def _tick(line: bytes) -> RelayTick:
    fields = json.loads(line)
    return RelayTick(
        offset=fields["offset"],
        end=fields.get("end"),
        exit_code=fields.get("exit_code"),
        lost=fields.get("lost"),
    )


async def _carry(tunnel: aiohttp.ClientWebSocketResponse, end: socket.socket) -> None:
    """Copy between a tunnel and a socket until either closes; then close both."""
    try:
        reader, writer = await asyncio.open_connection(sock=end)
        inbound = asyncio.create_task(_inbound(tunnel, writer))
        outbound = asyncio.create_task(_outbound(tunnel, reader))
        try:
            await asyncio.wait({inbound, outbound}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            inbound.cancel()
            outbound.cancel()
            await asyncio.gather(inbound, outbound, return_exceptions=True)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    finally:
        await tunnel.close()


async def _inbound(tunnel: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    async for message in tunnel:
        if message.type is aiohttp.WSMsgType.BINARY:
            writer.write(message.data)
            await writer.drain()


async def _outbound(tunnel: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader) -> None:
    while chunk := await reader.read(TUNNEL_CHUNK_BYTES):
        await tunnel.send_bytes(chunk)
