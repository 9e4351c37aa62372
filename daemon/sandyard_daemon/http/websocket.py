"""The server's end of a WebSocket: wsproto over a connection that left HTTP. Imported by the areas that need it."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    TextMessage,
)
from wsproto.events import Request as Upgrade
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from sandyard_daemon.errors import BadRequest
from sandyard_daemon.http.messages import Request, Tunnel

MAX_MESSAGE = 1 << 20
"""Bytes of one message; a longer one ends the connection with code 1009."""
CLOSE_SECONDS = 2.0
"""How long a client may take to answer our close frame."""

_MAX_REASON = 123  # RFC 6455, 5.5: a control frame has 125 bytes, two are the code


class Disconnected(ConnectionError):
    """The client closed or went away."""


class WebSocket:
    """One open WebSocket. One task receives, any number send; a ping is answered while somebody receives."""

    def __init__(self, tunnel: Tunnel, connection: WSConnection, max_message: int) -> None:
        self._tunnel = tunnel
        self._connection = connection
        self._max_message = max_message
        self._arrived: deque[Event] = deque()
        self._closed = False

    @classmethod
    async def accept(
        cls, request: Request, subprotocol: str | None = None, *, max_message: int = MAX_MESSAGE
    ) -> "WebSocket":
        """Answer the upgrade. Raises `BadRequest` when the request is none, and `ConnectionError`."""
        connection = WSConnection(ConnectionType.SERVER)
        if not is_upgrade(request):
            raise BadRequest("this operation is a WebSocket: send an upgrade request")
        try:
            # h11 keeps no reader's bytes of the head, and wsproto wants to see one: it is given the same head again.
            connection.initiate_upgrade_connection([*request.headers], _target(request))
        except RemoteProtocolError as error:
            raise BadRequest(f"malformed upgrade: {error}") from error
        if not any(isinstance(event, Upgrade) for event in connection.events()):
            raise BadRequest("malformed upgrade")
        answer = connection.send(AcceptConnection(subprotocol=subprotocol))
        socket = cls(request.take_over(), connection, max_message)
        await socket._tunnel.write(answer)
        return socket

    async def receive(self) -> str | bytes:
        """The next whole message. Raises `Disconnected`; also for a message that is too long or malformed."""
        parts: list[str | bytes] = []
        size = 0
        while True:
            event = await self._next()
            if not isinstance(event, TextMessage | BytesMessage):
                continue
            size += len(event.data)
            if size > self._max_message:
                await self.close(1009, "message too big")
                raise Disconnected
            parts.append(bytes(event.data) if isinstance(event, BytesMessage) else event.data)
            if event.message_finished:
                return _joined(parts)

    async def send(self, message: str | bytes) -> None:
        """Send one message, waiting while the client is slow. Raises `Disconnected`."""
        await self._write(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame and wait a little for the client's; may be repeated. Nobody may be in `receive`."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(ConnectionError, TimeoutError, LocalProtocolError):
            short = reason.encode()[:_MAX_REASON].decode("utf-8", "ignore")
            await self._tunnel.write(self._connection.send(CloseConnection(code, short or None)))
            async with asyncio.timeout(CLOSE_SECONDS):
                while not isinstance(await self._event(), CloseConnection):
                    pass
        self._tunnel.close()

    def abort(self) -> None:
        """Cut at once, whatever waits to be sent."""
        self._closed = True
        self._tunnel.abort()

    async def _write(self, event: Event) -> None:
        if self._closed:
            raise Disconnected
        try:
            await self._tunnel.write(self._connection.send(event))
        except (LocalProtocolError, ConnectionError, TimeoutError) as error:
            raise Disconnected from error

    async def _next(self) -> Event:
        """The next event that is not the connection's own affair."""
        while True:
            try:
                event = await self._event()
            except RemoteProtocolError as error:
                await self.close(1002, "malformed frame")
                raise Disconnected from error
            if isinstance(event, Ping):
                await self._write(event.response())
            elif isinstance(event, CloseConnection):
                await self._answer_close(event)
                raise Disconnected
            else:
                return event

    async def _event(self) -> Event:
        while not self._arrived:
            data = await self._tunnel.read()
            if not data:
                self.abort()
                raise Disconnected
            self._connection.receive_data(data)
            self._arrived.extend(self._connection.events())
        return self._arrived.popleft()

    async def _answer_close(self, event: CloseConnection) -> None:
        self._closed = True
        with contextlib.suppress(LocalProtocolError, ConnectionError, TimeoutError):
            await self._tunnel.write(self._connection.send(event.response()))
        self._tunnel.close()


def is_upgrade(request: Request) -> bool:
    """Whether the request asks for a WebSocket, in any spelling of case."""
    return (request.header("upgrade") or "").strip().lower() == "websocket"


def offered_subprotocols(request: Request) -> Sequence[str]:
    """The tokens of all `Sec-WebSocket-Protocol` lines, in order."""
    lines = [value.decode("latin-1") for name, value in request.headers if name == b"sec-websocket-protocol"]
    return [token.strip() for token in ",".join(lines).split(",") if token.strip()]


def _joined(parts: list[str | bytes]) -> str | bytes:
    if isinstance(parts[0], str):
        return "".join(part for part in parts if isinstance(part, str))
    return b"".join(part for part in parts if isinstance(part, bytes))


def _target(request: Request) -> str:
    return f"{request.raw_path}?{request.raw_query}" if request.raw_query else request.raw_path
