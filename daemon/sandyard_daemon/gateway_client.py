"""The client's end of `/_daemon/exec`, `forward/...`, `listen` and `fs`, on a connection to a door."""

import asyncio
import errno
import json
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from sandyard_daemon.wire import DOOR_HEADER
from sandyard_daemon.wire.messages import pack, unpack

OPEN_SECONDS = 15.0
CLOSE_SECONDS = 2.0
MAX_WAITING = 512 << 10
_READ = 256 << 10


class GatewayRefused(Exception):
    """The daemon answered the upgrade with an HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class GatewayClosed(ConnectionError):
    """The conversation is over."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"closed: {code} {reason}")
        self.code = code
        self.reason = reason


class GatewaySocket:
    """One WebSocket to a daemon. One task receives, any number send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._connection = WSConnection(ConnectionType.CLIENT)
        self._events: deque[Event] = deque()

    @classmethod
    async def open(cls, door: socket.socket, target: str, secret: str) -> "GatewaySocket":
        """Upgrade on a fresh connection to a door, which is taken over. Raises `GatewayRefused`, `GatewayClosed`,
        `TimeoutError`."""
        reader, writer = await asyncio.open_connection(sock=door, limit=_READ)
        made = cls(reader, writer)
        headers = [(DOOR_HEADER.encode(), secret.encode())]
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await made._send(Request(host="sandbox", target=target, extra_headers=headers))
                await made._handshake()
        except BaseException:
            writer.close()
            raise
        return made

    async def send(self, message: str | bytes) -> None:
        """Send one message, waiting while the daemon is slow. Raises `GatewayClosed`."""
        await self._send(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    async def receive(self) -> str | bytes:
        """The next whole message. Raises `GatewayClosed`."""
        texts: list[str] = []
        parts: list[bytes] = []
        while True:
            event = await self._event()
            if isinstance(event, TextMessage):
                texts.append(event.data)
                if event.message_finished:
                    return "".join(texts)
            elif isinstance(event, BytesMessage):
                parts.append(bytes(event.data))
                if event.message_finished:
                    return b"".join(parts)
            elif isinstance(event, Ping):
                await self._send(event.response())
            elif isinstance(event, CloseConnection):
                raise GatewayClosed(int(event.code), event.reason or "")

    async def close(self) -> None:
        """Say goodbye and close; may be repeated."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._send(CloseConnection(1000))
        except (GatewayClosed, TimeoutError):
            pass  # it is over either way
        finally:
            self._writer.close()

    def abort(self) -> None:
        """Cut at once; whoever receives is told."""
        self._writer.transport.abort()

    async def _send(self, event: Event) -> None:
        try:
            self._writer.write(self._connection.send(event))
            await self._writer.drain()
        except (LocalProtocolError, OSError) as error:
            raise GatewayClosed(1006, str(error)) from error

    async def _event(self) -> Event:
        while not self._events:
            try:
                data = await self._reader.read(_READ)
                self._connection.receive_data(data or None)
            except (RemoteProtocolError, LocalProtocolError, OSError) as error:
                raise GatewayClosed(1006, str(error)) from error
            self._events.extend(self._connection.events())
            if not data and not self._events:
                raise GatewayClosed(1006)
        return self._events.popleft()

    async def _handshake(self) -> None:
        status, body = 0, b""
        while True:
            event = await self._event()
            if isinstance(event, AcceptConnection):
                return
            if isinstance(event, RejectConnection):
                status = event.status_code
                if not event.has_body:
                    break
            elif isinstance(event, RejectData):
                body += event.data
                if event.body_finished:
                    break
        raise GatewayRefused(status, _message(body))


@dataclass(frozen=True, slots=True)
class Pty:
    """A terminal to run on."""

    cols: int = 80
    rows: int = 24
    term: str = "xterm-256color"


@dataclass(frozen=True, slots=True)
class Exited:
    """How a program ended."""

    exit_code: int
    signal: str | None = None
    """Name without `SIG` of the signal that killed it."""


class Execution:
    """A program in the sandbox. Closing it before the end hangs up on everything it started."""

    def __init__(self, socket: GatewaySocket) -> None:
        self._socket = socket
        self.exited: Exited | None = None
        """Known when `outputs` has ended by itself."""
        self._waiting = 0
        self._room = asyncio.Event()
        self._over = False

    @classmethod
    async def start(
        cls,
        socket: GatewaySocket,
        command: str | None,
        *,
        cwd: str | None = None,
        envs: Mapping[str, str] | None = None,
        pty: Pty | None = None,
        login: bool = False,
    ) -> "Execution":
        """On a socket opened at `/_daemon/exec`; `None` is the user's shell. Raises `GatewayRefused`."""
        order: dict[str, Any] = {"command": command, "cwd": cwd, "envs": dict(envs or {}), "login": login}
        if pty is not None:
            order["pty"] = {"cols": pty.cols, "rows": pty.rows, "term": pty.term}
        await socket.send(json.dumps(order))
        answer = json.loads(await socket.receive())
        if answer.get("type") != "started":
            raise GatewayRefused(400, str(answer.get("error")))
        return cls(socket)

    async def outputs(self) -> AsyncIterator[tuple[int, bytes]]:
        """Stream (1 or 2) and bytes, to the program's end. Raises `GatewayClosed`."""
        while self.exited is None:
            try:
                message = await self._socket.receive()
            except GatewayClosed:
                self._finish()
                raise
            if isinstance(message, bytes):
                yield message[0], message[1:]
            else:
                self._note(json.loads(message))

    async def write(self, data: bytes) -> None:
        """To its standard input; at the most 512 KiB. Waits while as much is not taken; somebody must be in `outputs`.

        Raises `GatewayClosed`.
        """
        while self._waiting >= MAX_WAITING and not self._over:
            self._room.clear()
            await self._room.wait()
        if self._over:
            raise GatewayClosed(1000, "the program has ended")
        self._waiting += len(data)
        await self._socket.send(b"\0" + data)

    def _note(self, said: Mapping[str, Any]) -> None:
        if said.get("type") == "exited":
            self.exited = Exited(int(said["exitCode"]), said.get("signal"))
            self._finish()
        elif said.get("type") == "taken":
            self._waiting -= int(said["bytes"])
            self._room.set()

    def _finish(self) -> None:
        self._over = True
        self._room.set()

    async def end_input(self) -> None:
        """Nothing more is written."""
        await self._socket.send(json.dumps({"type": "eof"}))

    async def resize(self, cols: int, rows: int) -> None:
        """Of its terminal."""
        await self._socket.send(json.dumps({"type": "resize", "cols": cols, "rows": rows}))

    async def send_signal(self, name: str) -> None:
        """By its name without `SIG`."""
        await self._socket.send(json.dumps({"type": "signal", "name": name}))

    async def close(self) -> None:
        """Let go of it."""
        await self._socket.close()


class ForwardedStream:
    """A connection to a server in the sandbox, on a socket opened at `/_daemon/forward/...`."""

    def __init__(self, socket: GatewaySocket) -> None:
        self._socket = socket
        self._ended = False

    async def read(self) -> bytes:
        """The next bytes; empty at the server's end."""
        while not self._ended:
            message = await self._socket.receive()
            if isinstance(message, bytes):
                return message
            self._ended = True
        return b""

    async def write(self, data: bytes) -> None:
        """At the most 1 MiB."""
        await self._socket.send(data)

    async def write_eof(self) -> None:
        """The server sees our end and may still answer."""
        await self._socket.send(json.dumps({"type": "eof"}))

    async def close(self) -> None:
        """Both ways."""
        await self._socket.close()


@dataclass(frozen=True, slots=True)
class Accepted:
    """A connection that somebody in the sandbox made to a port or socket that we listen on there."""

    id: str
    origin: tuple[str, int]
    """Where it comes from; empty for a unix socket."""


class RemoteListener:
    """A port or socket in the sandbox, listened on by a socket opened at `/_daemon/listen` until that is closed."""

    def __init__(self, socket: GatewaySocket, port: int) -> None:
        self._socket = socket
        self.port = port
        """0 for a unix socket."""

    @classmethod
    async def start(cls, socket: GatewaySocket) -> "RemoteListener":
        """On a socket that was opened there. Raises `GatewayClosed`."""
        return cls(socket, int(json.loads(await socket.receive())["port"]))

    async def accept(self) -> Accepted:
        """The next connection, to be taken soon at `/_daemon/forward/accepted?id=`. Raises `GatewayClosed`."""
        said = json.loads(await self._socket.receive())
        return Accepted(str(said["id"]), (str(said["origin"][0]), int(said["origin"][1])))

    async def close(self) -> None:
        """Listen no more; connections that were taken go on."""
        await self._socket.close()


class FileConversation:
    """File operations on a socket opened at `/_daemon/fs`; any number may be asked at a time."""

    def __init__(self, socket: GatewaySocket) -> None:
        self._socket = socket
        self._last = 0
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], bytes]]] = {}
        self._task = asyncio.get_running_loop().create_task(self._receive())

    async def ask(self, operation: str, payload: bytes = b"", **fields: Any) -> tuple[dict[str, Any], bytes]:
        """One operation of `wire`'s table: its answer and the bytes behind it. Raises `OSError`, `GatewayClosed`."""
        if self._task.done():
            raise GatewayClosed(1006)
        self._last += 1
        number = self._last
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._socket.send(pack({"op": operation, "id": number, **fields}, payload))
            made: tuple[dict[str, Any], bytes] = await answer
            return made
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        """What is open is closed by the daemon."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._socket.close()

    def abort(self) -> None:
        """Cut at once; those who wait for answers are told."""
        self._task.cancel()
        self._socket.abort()

    async def _receive(self) -> None:
        try:
            while True:
                message = await self._socket.receive()
                head, payload = unpack(message if isinstance(message, bytes) else message.encode())
                waiting = self._waiting.get(head.get("id", 0))
                if waiting is None or waiting.done():
                    continue
                if (code := head.get("error")) is not None:
                    number = getattr(errno, code, errno.EIO)
                    waiting.set_exception(OSError(number, head.get("message") or os.strerror(number)))
                else:
                    waiting.set_result((head, payload))
        except (GatewayClosed, ValueError):
            pass  # those who wait are told below
        finally:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(GatewayClosed(1006))


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace")[:200]
