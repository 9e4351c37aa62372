"""A hand-written client, HTTP by the standard library and WebSockets by wsproto: it sends just the headers it is given.

It plays the conversations of the SDKs whose packages cannot be installed everywhere (Ruby, Java, Go), and raw curl.
"""

import http.client
import json
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

ANSWER_SECONDS = 30.0
CHUNK = 1 << 16

Body = bytes | str | Mapping[str, Any] | list[Any] | Iterable[bytes] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        """The decoded body. Fails with what was there instead."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise AssertionError(f"not JSON, {self.status}: {self.body[:500]!r}") from None


def request(
    method: str,
    url: str,
    body: Body = None,
    *,
    headers: Mapping[str, str] | None = None,
    seconds: float = ANSWER_SECONDS,
) -> Answer:
    """One request on a connection of its own. Mappings and lists are sent as JSON, iterables of bytes chunked."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "") or "/"
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
    sent = dict(headers or {})
    if isinstance(body, Mapping | list):
        body = json.dumps(body)
        sent.setdefault("Content-Type", "application/json")
    try:
        connection.request(method, target, body=body, headers=sent)
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())
    finally:
        connection.close()


class Refused(Exception):
    """A WebSocket upgrade that was answered by an HTTP status."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status}: {body[:300]!r}")
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message, and when it came."""

    data: bytes
    is_text: bool
    at: float
    """`time.monotonic()`."""


class WebSocket:
    """One client connection. Raises `Refused` when the upgrade is; every wait has a deadline (`TimeoutError`)."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        protocols: Iterable[str] = (),
        connect_to: str = "",
        connected: socket.socket | None = None,
    ) -> None:
        """`connected`: a connection to use instead of opening one to the URL's host or `connect_to`."""
        parts = urlsplit(url)
        default = 443 if parts.scheme in ("wss", "https") else 80
        self._socket = connected or socket.create_connection(
            (connect_to or parts.hostname or "", parts.port or default), ANSWER_SECONDS
        )
        self._connection = WSConnection(ConnectionType.CLIENT)
        self._events: deque[Event] = deque()
        self.close_code: int | None = None
        self.close_reason = ""
        self.pongs: list[bytes] = []
        extra = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        self._send(Request(host=parts.netloc, target=target, extra_headers=extra, subprotocols=list(protocols)))
        self.subprotocol = self._handshake()

    def _handshake(self) -> str | None:
        status, body = 0, b""
        for event in self._receive(time.monotonic() + ANSWER_SECONDS):
            if isinstance(event, AcceptConnection):
                return event.subprotocol
            if isinstance(event, RejectConnection):
                status = event.status_code
                if not event.has_body:
                    break
            elif isinstance(event, RejectData):
                body += event.data
                if event.body_finished:
                    break
        self._socket.close()
        raise Refused(status, body)

    def messages(self, seconds: float = ANSWER_SECONDS) -> Iterator[Message]:
        """Messages until the server's close frame or the connection's end, answering pings; at most `seconds` long."""
        pending = bytearray()
        for event in self._receive(time.monotonic() + seconds):
            if isinstance(event, BytesMessage | TextMessage):
                pending += event.data if isinstance(event, BytesMessage) else event.data.encode()
                if event.message_finished:
                    yield Message(bytes(pending), isinstance(event, TextMessage), time.monotonic())
                    pending.clear()
            elif isinstance(event, Ping):
                self._send(event.response())
            elif isinstance(event, Pong):
                self.pongs.append(bytes(event.payload))
            elif isinstance(event, CloseConnection):
                self.close_code, self.close_reason = event.code, event.reason or ""
                self._answer_close(event)
                return

    def ping(self, payload: bytes) -> None:
        """Send a ping; the answer appears in `pongs` while `messages` is read."""
        self._send(Ping(payload))

    def send(self, data: bytes | str) -> None:
        """Send one message."""
        self._send(BytesMessage(data) if isinstance(data, bytes) else TextMessage(data))

    def cut(self) -> None:
        """End the connection without a close frame, as a client that crashed."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _send(self, event: Event) -> None:
        self._socket.sendall(self._connection.send(event))

    def _answer_close(self, event: CloseConnection) -> None:
        try:
            self._send(event.response())
        except OSError:
            return  # the server need not wait for it

    def _receive(self, deadline: float) -> Iterator[Event]:
        """Events as they come. One generator's leftovers are the next one's first events."""
        while True:
            while self._events:
                yield self._events.popleft()
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the server sent nothing more in time")
            self._socket.settimeout(left)
            data = self._socket.recv(CHUNK)
            self._connection.receive_data(data or None)
            self._events.extend(self._connection.events())
            if not data:
                yield from self._events
                return
