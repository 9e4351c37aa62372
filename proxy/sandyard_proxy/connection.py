"""One HTTP/1.1 client connection: streaming both ways with backpressure, and raw bytes after an upgrade.

Nothing is buffered beyond `HIGH_WATER`; the parser is httptools, which costs a tenth of a pure Python one.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import httptools
import msgspec

from sandyard_proxy.asgi import Headers
from sandyard_proxy.errors import BrokenExchange, NotDelivered

HIGH_WATER = 1 << 20
"""Bytes that may wait unread before the peer is held back."""
LOW_WATER = 1 << 18
MAX_HEAD_BYTES = 1 << 18


class ResponseHead(msgspec.Struct):
    """Status line and headers of an answer."""

    status: int = 0
    headers: Headers = msgspec.field(default_factory=list)


class HttpConnection(asyncio.Protocol):
    """Speaks one exchange at a time: `send_head`, `write` ..., `head`, `read` until empty; then it may be used again.

    Every method raises `BrokenExchange` when the connection ended before it could do its work.
    """

    def __init__(self) -> None:
        self.on_lost: Callable[[HttpConnection], None] | None = None
        """Called once when the connection has ended."""
        self._transport: asyncio.Transport | None = None
        self._lost = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._wake: asyncio.Future[None] | None = None
        self._begin("GET")

    def _begin(self, method: str) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._method = method
        self._head: ResponseHead | None = None
        self._arriving = ResponseHead()
        self._head_bytes = 0
        self._chunks: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._complete = False
        self._framed = False
        self._keep_alive = False
        self._raw = False
        self._started = False

    @property
    def reusable(self) -> bool:
        """Whether the next exchange may use this connection."""
        return not self._lost and self._complete and self._keep_alive and not self._raw and not self._chunks

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self._lost or self._transport is None or self._transport.is_closing()

    async def send_head(self, method: str, target: bytes, headers: Headers, first: bytes = b"") -> None:
        """Begin an exchange; `first` goes out in the same piece."""
        if self.closed:
            raise NotDelivered("bad gateway: the sandbox's daemon does not answer")
        self._begin(method)
        lines = [method.encode("ascii"), b" ", target, b" HTTP/1.1\r\n"]
        for key, value in headers:
            lines += (key, b": ", value, b"\r\n")
        lines += (b"\r\n", first)
        await self.write(b"".join(lines))
        self._started = True

    async def write(self, data: bytes) -> None:
        """Send bytes; returns when there is room for more."""
        if self.closed or self._transport is None:
            raise BrokenExchange("the connection to the sandbox ended while sending")
        self._transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()

    async def head(self) -> ResponseHead:
        """The answer's status and headers; informational ones but 101 are passed over."""
        while self._head is None:
            if self._lost:
                raise BrokenExchange("the connection to the sandbox ended before an answer came")
            await self._wait()
        return self._head

    async def read(self) -> bytes:
        """The next bytes of the body, or of the other side after an upgrade; empty at the end."""
        while not self._chunks:
            if self._complete or (self._lost and (self._raw or not self._framed)):
                return b""
            if self._lost:
                raise BrokenExchange("the connection to the sandbox ended within an answer")
            await self._wait()
        chunk = self._chunks.popleft()
        self._waiting_bytes -= len(chunk)
        if self._waiting_bytes <= LOW_WATER and self._transport is not None and not self.closed:
            self._transport.resume_reading()
        return chunk

    def close(self) -> None:
        """End the connection at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        self._wake = asyncio.get_running_loop().create_future()
        try:
            await self._wake
        finally:
            self._wake = None

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Streams are all we open; uvloop's transports are no subclass that could be asked.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._raw:
            self._keep(data)
        elif not self._started or self._complete:
            self.close()  # an answer that nobody asked for
        else:
            self._parse(data)
        self._notify()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._writable.set()
        self._notify()
        if self.on_lost is not None:
            self.on_lost(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _parse(self, data: bytes) -> None:
        if self._head is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._raw, self._complete = True, False
            if rest := data[upgrade.args[0] :]:
                self._keep(rest)
        except httptools.HttpParserError:
            self.close()
        if self._head is None and self._head_bytes > MAX_HEAD_BYTES:
            self.close()

    def _keep(self, data: bytes) -> None:
        self._chunks.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > HIGH_WATER and self._transport is not None:
            self._transport.pause_reading()

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._arriving.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        arriving, self._arriving = self._arriving, ResponseHead()
        arriving.status = self._parser.get_status_code()
        if arriving.status < HTTPStatus.OK and arriving.status != HTTPStatus.SWITCHING_PROTOCOLS:
            return
        self._framed = any(key in (b"content-length", b"transfer-encoding") for key, _ in arriving.headers)
        self._head = arriving
        if self._method == "HEAD":
            # The parser waits for a body that will not come; such a connection is not used again.
            self._complete = True

    def on_body(self, data: bytes) -> None:
        if self._method != "HEAD":
            self._keep(data)

    def on_message_complete(self) -> None:
        if self._head is None or self._method == "HEAD":
            return
        self._complete = True
        self._keep_alive = self._parser.should_keep_alive()
